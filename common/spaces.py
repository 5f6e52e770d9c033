"""What the networks see of an environment's spaces: a state vector, actions around 0."""

import functools
import sys

import numpy as np

from common.errors import UserError

_SUITABLE = "choose one with bounded, continuous actions, such as Pendulum-v1"


def vector_space(space, env_id):
    """The float32 Box of the state; what flattens an observation, or None if it is a Box."""
    spaces = _library_of(space)
    try:
        flat = None if spaces is None or _holds_image(space) else spaces.flatten_space(space)
    except (NotImplementedError, TypeError, ValueError):
        flat = None
    # A graph or a sequence flattens, but not to a Box; and there are Boxes without numbers.
    if not hasattr(flat, "low") or not flat.low.size:
        raise UserError(
            f"--env {env_id}: its observations {one_line(space)} are no vectors, which these "
            "networks take; choose one with vectors, such as Pendulum-v1."
        )
    with np.errstate(over="ignore"):  # float64's largest number stands for infinity
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    is_box = isinstance(space, spaces.Box)
    flatten = None if is_box else functools.partial(spaces.flatten, space)
    return spaces.Box(low, high, dtype=np.float32), flatten


def _holds_image(space):
    parts = getattr(space, "spaces", ())
    parts = parts.values() if hasattr(parts, "values") else parts
    if any(_holds_image(part) for part in parts):
        return True
    return getattr(space, "dtype", None) == np.uint8 and len(space.shape) >= 2


def symmetric_space(space, env_id):
    """The Box of the agent's flat actions: half the width to either side of 0."""
    actions = f"--env {env_id}: its actions {one_line(space)}"
    spaces = _library_of(space)
    if spaces is None or not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        raise UserError(f"{actions} are not continuous; {_SUITABLE}.")
    with np.errstate(over="ignore", invalid="ignore"):
        half = (space.high.astype(np.float64) - space.low) / 2
        half = half.astype(np.float32).ravel()
    if not (half < 1e30).all():  # infinite, NaN, or the largest float, which means the same
        raise UserError(f"{actions} have no bounds; {_SUITABLE}.")
    if not half.size or not (half > 0).all():
        raise UserError(f"{actions} leave nothing to choose (low equals high); {_SUITABLE}.")
    return spaces.Box(-half, half, dtype=np.float32)


def _library_of(space):
    """gym.spaces or gymnasium.spaces, whichever defines `space`; None if neither does."""
    for library in (sys.modules.get("gym"), sys.modules.get("gymnasium")):
        if library is not None and isinstance(space, library.Space):
            return library.spaces
    return None


def one_line(thing):
    """What an error or a value says, on one line that is not endless."""
    text = " ".join(str(thing).split())
    if isinstance(thing, BaseException):
        text = f"{type(thing).__name__}: {text}" if text else type(thing).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."
