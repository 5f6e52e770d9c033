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


def fan_in(shape, dtype=tf.float32):
    """Initial weights, uniform up to 1 / sqrt(inputs): Lillicrap et al., 2016, section 7."""
    bound = shape[0] ** -0.5
    return tf.random.uniform(shape, -bound, bound, dtype)


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


def holders_of(agent):
    """The objects whose attributes are the agent's state beside its variables.

    Yields:
        (prefix of the attributes' names, object, whether its numbers and arrays count:
        a TensorLayer model has many of its own, so of it only random generators do).
    """
    yield "", agent, True
    for name, value in vars(agent).items():
        if isinstance(value, Model):
            yield f"{name}.", value, False
        elif type(value).__module__ in (type(agent).__module__, "common.replay_buffer"):
            yield f"{name}.", value, True
