"""What the scripts need of TensorLayer models beyond what TensorLayer gives."""

import tensorflow as tf
from tensorlayer.models import Model


def connect(model, num_inputs):
    """Send one zero through a new model, so that its forward() can be called by itself.

    Until a model has been called once, its layers try to join each input to a
    static graph, and fail on anything but another layer's output (errata E17).
    The chapter makes this call in its main part.
    """
    model(tf.zeros([1, num_inputs]), is_train=False)


def networks_of(agent):
    """What a weight file holds: dict from attribute name to weights.

    These are the agent's networks (each a list of variables) and its variables
    (SAC's log_alpha), targets included, optimizers not.
    """
    networks = {}
    for name, value in vars(agent).items():
        if isinstance(value, Model):
            networks[name] = value.all_weights
        elif isinstance(value, tf.Variable):
            networks[name] = value
    return networks


def variables_of(agent):
    """All variables an agent consists of: networks, single ones, lists, optimizers' slots."""
    found = {}
    for value in vars(agent).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, tf.Variable):
                held = [item]
            elif isinstance(item, Model):
                held = item.all_weights
            elif isinstance(item, tf.optimizers.Optimizer):
                held = [getattr(variable, "value", variable) for variable in item.variables]
            else:
                held = []
            found.update((id(variable), variable) for variable in held)
    return list(found.values())
