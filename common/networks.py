"""What the scripts need of networks beyond TensorLayer: first weights, saving and loading."""

from pathlib import Path

import tensorflow as tf

from common.engine.variables import weights_in
from common.errors import one_line
from common.files import weights
from common.files.names import weights_path


def fan_in(shape, dtype=tf.float32):
    """Initial weights, uniform up to 1 / sqrt(inputs): Lillicrap et al., 2016, section 7."""
    bound = shape[0] ** -0.5
    return tf.random.uniform(shape, -bound, bound, dtype)


def check_choice(name, value, *allowed):
    """Raise a ValueError unless the option is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(allowed)}, got {value!r}")


def save(agent, settings, path=None):
    """Save an agent's networks into the npz file `path`, or the usual one; returns its path."""
    path = path or weights_path(settings.model_dir, *settings.task)
    task = settings.algorithm, settings.env_id
    weights.save(Path(path).expanduser(), *task, weights_in(agent), settings.unit_actions)
    print(f"Saved {one_line(path)}", flush=True)
    return path


def load(agent, settings, path=None):
    """Load an agent's networks from `path`, or the usual file.

    Raises:
        UserError: the file is unfit; the agent is as it was.
    """
    if not path:
        own = weights_path(settings.model_dir, *settings.task)
        path = weights.find(settings.model_dir, *settings.task)
        if path != own:
            print(f"There is no {one_line(own)} yet: using the shipped weights.", flush=True)
    task = settings.algorithm, settings.env_id
    weights.load(Path(path).expanduser(), *task, weights_in(agent), settings.unit_actions)
