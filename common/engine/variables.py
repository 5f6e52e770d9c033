"""What an agent consists of, found among its attributes: networks, optimizers, single variables."""

import tensorflow as tf
from tensorlayer.layers import Layer
from tensorlayer.models import Model

from common.errors import UserError


def weights_in(agent):
    """What a file of weights holds: those of networks, targets included, and single variables.

    Returns:
        dict from a name, the attribute's and the place there ("q_net1/0"), to each variable.
    """
    found = {}
    parts = {"network": agent} if isinstance(agent, Model) else vars(agent)  # one by itself
    for name, value in parts.items():
        if isinstance(value, Model):
            found |= {f"{name}/{i}": weight for i, weight in enumerate(_weights(value))}
        elif isinstance(value, tf.Variable):
            found[f"{name}/0"] = value
    return found


def variables_of(agent):
    """All variables, as weights_in() names them: also optimizers' moments, moving averages."""
    found = weights_in(agent)
    weights = [*found.values()]
    for name, value in vars(agent).items():
        variables = []
        if isinstance(value, tf.optimizers.Optimizer):
            variables = [getattr(variable, "value", variable) for variable in value.variables]
        elif isinstance(value, tf.train.ExponentialMovingAverage):
            variables = [v for v in map(value.average, weights) if v is not None]
        found |= {f"{name}/{i}": variable for i, variable in enumerate(variables)}
    return found


def _weights(model):
    """The weights of a network; TensorLayer lists its layers once, at the first call."""
    layers = {name: value for name, value in vars(model).items() if isinstance(value, Layer)}
    for name, layer in layers.items():
        if all(layer is not known for known in model.all_layers):
            raise UserError(
                f"{type(model).__name__}.{name} came after the network's first call, and "
                "TensorLayer would not train it: make all layers before that call"
            )
    return model.all_weights
