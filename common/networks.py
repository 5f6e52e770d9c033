"""What the scripts need of TensorLayer models beyond what TensorLayer gives."""

from numbers import Number

import tensorflow as tf
from tensorlayer.layers import Layer
from tensorlayer.models import Model

from common import private, weights
from common.errors import UserError


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


def check_choice(name, value, *allowed):
    """Raise a ValueError unless the option is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(allowed)}, got {value!r}")


def refresh(model):
    """Let a model see the layers it has now: TensorLayer lists them once, at the first look."""
    if model.outputs is None:  # the dynamic API, where a layer is an attribute
        private.forget_layers(model)
    for layer in model.all_layers:
        if isinstance(layer, Layer):
            private.fix_nodes(layer)  # as connect() does
            for name in ("W", "b"):
                held = vars(layer).get(name)
                if held is not None and all(held is not weight for weight in layer.all_weights):
                    raise UserError(
                        f"the layer {layer.name} of {model.name} has another {name} than it was "
                        f"made with, which TensorLayer would not train: use {name}.assign(values), "
                        "or put another layer in its place"
                    )
    if model.is_train is None:  # new, and in none of the two modes
        model.train()


def networks_of(agent):
    """What a weight file holds: dict from attribute name to a list of variables.

    These are the agent's networks and its single variables (SAC's log_alpha), targets
    included, optimizers not.
    """
    networks = {}
    for name, value in vars(agent).items():
        if isinstance(value, Model):
            refresh(value)
            networks[name] = value.all_weights
        elif isinstance(value, tf.Variable):
            networks[name] = [value]
    return networks


def named_variables(agent):
    """All variables an agent consists of: networks, single ones, lists, optimizers' slots.

    Returns:
        Dict from a name to each: the attribute's, then where in it ("q_net1/0", "log_alpha").
    """
    found = {}
    for name, value in vars(agent).items():
        held = [(name, value)]
        if isinstance(value, (list, tuple)):
            held = [(f"{name}/{i}", item) for i, item in enumerate(value)]
        for place, item in held:
            if isinstance(item, tf.Variable):
                found.setdefault(id(item), (place, item))
            variables = []
            if isinstance(item, Model):
                variables = item.all_weights
            elif isinstance(item, tf.optimizers.Optimizer):
                variables = [getattr(variable, "value", variable) for variable in item.variables]
            for i, variable in enumerate(variables):
                found.setdefault(id(variable), (f"{place}/{i}", variable))
    return dict(found.values())


def parts_of(agent, numbers=()):
    """What a compiled function of the agent has built in, as (namespace, name, value) of each.

    That is every object, text and switch among the agent's attributes but `losses`, which come out
    of one, and of its numbers only those named: the others count something. Of its networks it is
    also the numbers, and the layers with their weights.
    """
    for name, value in vars(agent).items():
        count = isinstance(value, Number) and not isinstance(value, bool) and name not in numbers
        none = value is None or isinstance(value, tf.Tensor) or name == "losses"
        if not (count or none or name.startswith("_")):
            yield vars(agent), name, value
        if isinstance(value, Model):
            for of_model in vars(value):
                not_options = "name", "num_actions", "compiler"
                if not (of_model.startswith("_") or of_model in not_options):
                    yield vars(value), of_model, vars(value)[of_model]
            for layer in value.all_layers:
                for of_layer in ("W", "b", "act"):
                    if of_layer in vars(layer):
                        yield vars(layer), of_layer, vars(layer)[of_layer]


def save(agent, settings, path=None):
    """Save an agent's networks into the npz file `path`, or the usual one; returns its path."""
    path = path or weights.path(settings.model_dir, *settings.task)
    task = settings.algorithm, settings.env_id
    weights.save(path, *task, networks_of(agent), settings.unit_actions)
    return path


def load(agent, settings, path=None):
    """Load an agent's networks from `path`, or the usual file.

    Raises:
        UserError: the file is unfit; the agent is as it was.
    """
    path = path or weights.find(settings.model_dir, *settings.task)
    task = settings.algorithm, settings.env_id
    weights.load(path, *task, networks_of(agent), settings.unit_actions)
