"""What the networks see of an environment's spaces: a state vector, actions around 0."""

import sys
from functools import partial

import numpy as np

from common.errors import UserError, one_line


def vector_space(space, env_id):
    """The float32 Box of the state; what flattens an observation, None if it is a Box."""
    spaces = _library_of(space)
    try:
        flat = spaces.flatten_space(space)
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # no space, for one
        flat = None
    # A graph or a sequence flattens, but not to a Box; and there are Boxes without numbers.
    if not hasattr(flat, "low") or not flat.low.size or _holds_image(space):
        raise _unsuitable(env_id, "observations", space, "are no vectors")
    with np.errstate(over="ignore"):  # float64's largest number stands for infinity
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    flatten = None if isinstance(space, spaces.Box) else partial(spaces.flatten, space)
    return spaces.Box(low, high, dtype=np.float32), flatten


def _holds_image(space):
    parts = getattr(space, "spaces", ())
    parts = parts.values() if hasattr(parts, "values") else parts
    is_image = getattr(space, "dtype", None) == np.uint8 and len(space.shape) >= 2
    return is_image or any(_holds_image(part) for part in parts)


def symmetric_space(space, env_id):
    """The Box of the agent's flat actions: half the width to either side of 0."""
    spaces = _library_of(space)
    if not spaces or not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        raise _unsuitable(env_id, "actions", space, "are not continuous")
    with np.errstate(over="ignore", invalid="ignore"):
        half = ((space.high.astype(np.float64) - space.low) / 2).astype(np.float32).ravel()
    if not (half < 1e30).all():  # infinite, NaN, or the largest float, which means the same
        raise _unsuitable(env_id, "actions", space, "have no bounds")
    if not (half > 0).all() or not half.size:
        raise _unsuitable(env_id, "actions", space, "leave nothing to choose (low equals high)")
    return spaces.Box(-half, half, dtype=np.float32)


def _library_of(space):
    """gym.spaces or gymnasium.spaces, whichever defines `space`; None if neither does."""
    libraries = filter(None, map(sys.modules.get, ("gym.spaces", "gymnasium.spaces")))
    return next((each for each in libraries if isinstance(space, each.Space)), None)


def _unsuitable(env_id, what, space, why):
    step = "choose one with vectors and bounded, continuous actions, such as Pendulum-v1"
    return UserError(f"--env {env_id}: its {what} {one_line(space)} {why}; {step}.")
