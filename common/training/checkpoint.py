"""The whole state of a training in one file, so that a killed run goes on as if it had not been.

One npz file, like the weights, because one file can be replaced in one step: whenever the
run is killed, the old state or the new one is there, whole.
"""

import contextlib
import json
import os
import random
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorlayer.models import Model

from common.engine.variables import variables_of
from common.errors import UserError, one_line
from common.files import arrays
from common.files.digest import changed
from common.training.progress import Progress

FORMAT = 5  # raise it when older code could no longer read the file, or this code older files
# A run may be resumed with other values of these; they change nothing that was computed.
FREE = {"TRAIN_EPISODES", "TRAIN_STEPS", "TEST_EPISODES", "RENDER", "CHECKPOINT_EVERY",
        "MODEL_DIR", "IMAGE_DIR"}
_ANEW = "Train anew, without --resume."
_HISTORY = "episode_reward", "all_episode_reward"
_VARIABLES = Model, tf.Variable, tf.optimizers.Optimizer, tf.train.ExponentialMovingAverage
_said = set()  # what is not saved


def save(path, agent, env, constants, progress, digest):
    """Write everything the training depends on: what vars(agent) holds, and how it came about.

    That is: its variables (weights, targets, optimizers' moments, averages); the numbers, texts,
    arrays, tensors and np.random.Generators among its attributes and those of their objects (a
    buffer's); the random numbers of the environment, Python and NumPy. An attribute of another
    kind is not saved, and a line says so.

    Args:
        path: the file; it is replaced in one step.
        agent: of any kind.
        env: Environment, at the end of an episode.
        constants: dict, those of the run.
        progress: Progress.
        digest: what digest.digest() says of the code and the packages that run.

    Raises:
        UserError: the file cannot be written, or a value is not finite; the old one is then as it
            was.
    """
    held, numbers, shapes = {}, {}, {}
    for place, (holder, name) in _places(agent).items():
        value = vars(holder)[name]
        if isinstance(value, np.random.Generator):
            value = {"generator": _as_json(value.bit_generator.state)}
        if isinstance(value, (np.ndarray, np.generic, tf.Tensor)):
            value = np.asarray(value)
            shapes[place] = value.shape
            held[f"array/{place}"] = value[: _written(value)] if value.ndim else value
        else:
            numbers[place] = value
    held |= {f"variable/{name}": value for name, value in variables(agent).items()}
    for name, value in held.items():
        if not arrays.is_finite(value):
            raise UserError(f"{one_line(path)}: not saved, {name} is not finite: try smaller "
                            "learning rates or another --reward-scale")
    done = progress.as_dict()
    held |= {f"history/{name}": np.array(done.pop(name)) for name in _HISTORY}
    header = {"format": FORMAT, "constants": dict(constants), "digest": digest, "progress": done,
              "numbers": numbers, "shapes": shapes, "environment": _as_json(env.generator_state()),
              "random": random.getstate(), "numpy": _as_json(np.random.get_state(legacy=False))}
    arrays.save(path, header, held)


def restore(path, agent, env, constants, digest):
    """Bring a new agent and environment to the state of save(); returns its Progress.

    Where the state was written by other code or packages than `digest` says, a line says so.

    Raises:
        UserError: there is no such file, it is damaged, or it belongs to a run with other
            constants; the message names them. Agent and environment are as they were.
    """
    header, held = _read(path)
    _refuse_other_constants(path, header["constants"], constants)
    places, own = _places(agent), variables_of(agent)
    saved = {name.removeprefix("variable/"): (value.shape, value.dtype)
             for name, value in held.items() if name.startswith("variable/")}
    unfit = saved.items() ^ {name: (tuple(v.shape), v.dtype.as_numpy_dtype)
                             for name, v in own.items()}.items()
    unfit = {name for name, _ in unfit} | (header["numbers"].keys() | header["shapes"].keys()) ^ (
        places.keys())
    if unfit:
        raise UserError(f"{one_line(path)} is of another agent ({one_line(min(unfit))}). {_ANEW}")
    differing = changed(header["digest"], digest)
    if differing:
        print(f"{one_line(path)} was written by other code or packages "
              f"({one_line(differing)}): going on with the present ones.")
    assign(agent, {name: held[f"variable/{name}"] for name in own})
    for place, (holder, name) in places.items():
        value, present = header["numbers"].get(place), vars(holder)[name]
        if isinstance(present, np.random.Generator):
            present.bit_generator.state = _from_json(value["generator"])
        elif place not in header["shapes"]:
            vars(holder)[name] = value
        else:
            value = held[f"array/{place}"]
            if value.ndim:
                whole = np.zeros(header["shapes"][place], value.dtype)
                whole[: len(value)] = value
                value = whole
            vars(holder)[name] = tf.constant(value) if isinstance(present, tf.Tensor) else value
    env.restore_generator(_from_json(header["environment"]))
    version, words, gauss = header["random"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(_from_json(header["numpy"]))
    return _progress(header, held)


def progress_in(path):
    """The Progress of a saved training, or None where there is none that can be read."""
    try:
        return _progress(*_read(path))
    except UserError:
        return None


def unfinished(path):
    """A line about the training whose state a new one would overwrite; "" if it was finished."""
    if not os.path.lexists(path):
        return ""
    progress = progress_in(path)
    if progress and progress.finished:
        return ""
    what = "cannot be read as the state of a training"
    if progress:
        what = (f"holds a training that was stopped after {progress.episodes} episodes; "
                "--resume would go on")
    return f"{one_line(path)} {what}. It is kept as {one_line(_unused(path).name)}."


def set_aside_unfinished(path):
    """Rename the state of a training that was not finished: training.old.npz, ...-2.npz, ..."""
    if unfinished(path):
        try:
            os.rename(path, _unused(path))
        except OSError as error:
            raise UserError(f"{one_line(path)}: cannot be kept ({one_line(error)}). Move it away, "
                            "go on with --resume, or give another --model-dir.") from error


def variables(agent):
    """The values of all variables of an agent: dict from a name to each array."""
    return {name: variable.numpy() for name, variable in variables_of(agent).items()}


def assign(agent, values):
    """Give all variables values, as variables() returns them."""
    for name, variable in variables_of(agent).items():
        variable.assign(values[name])


def _unused(path):
    path = Path(path)
    kept, number = path.with_suffix(".old.npz"), 1
    while os.path.lexists(kept):
        number += 1
        kept = path.with_suffix(f".old-{number}.npz")
    return kept


def _read(path):
    try:
        return arrays.load(path, FORMAT, _ANEW)
    except FileNotFoundError as error:
        raise UserError(
            f"{one_line(path)}: there is no such file, so nothing to resume. "
            "Start with --train alone."
        ) from error


def _progress(header, held):
    history = {name: held[f"history/{name}"].tolist() for name in _HISTORY}
    return Progress(**header["progress"], **history)


def _places(thing, prefix=""):
    """Where what is saved stands: dict from "replay_buffer.position" to (object, name)."""
    found = {}
    for name, value in vars(thing).items():
        place = prefix + name
        plain = value is None or isinstance(value, (int, float, str, np.ndarray, np.generic,
                                                    tf.Tensor, np.random.Generator))
        if name.startswith("_") or name == "losses" or isinstance(value, _VARIABLES):
            continue
        if plain:
            found[place] = thing, name
        elif hasattr(value, "__dict__") and not callable(value):
            found |= _places(value, f"{place}.")
        elif place not in _said:
            _said.add(place)
            print(f"{place}, a {type(value).__name__}, is not saved with the training: after "
                  "--resume it is new.")
    return found


def _written(array):
    """How many rows there are before those of zeros at the end, which need not be saved."""
    rows = array.view(np.uint8).reshape(len(array), -1) if array.flags.c_contiguous else array
    with contextlib.suppress(ValueError):  # no rows
        for end in range(len(rows), 0, -100_000):
            written = np.flatnonzero(rows[max(0, end - 100_000) : end].any(axis=-1))
            if len(written):
                return max(0, end - 100_000) + int(written[-1]) + 1
        return 0
    return len(array)


def _as_json(state):
    """The state of a random generator with lists in place of arrays."""
    if isinstance(state, dict):
        return {name: _as_json(value) for name, value in state.items()}
    return {"array": state.tolist(), "dtype": str(state.dtype)} if isinstance(
        state, np.ndarray) else state


def _from_json(state):
    if isinstance(state, dict):
        if state.keys() == {"array", "dtype"}:
            return np.array(state["array"], state["dtype"])
        return {name: _from_json(value) for name, value in state.items()}
    return state


def _refuse_other_constants(path, saved, constants):
    differing = [f"{name} is {saved.get(name)!r:.60} there, {value!r} here"
                 for name, value in constants.items()
                 if name not in FREE and saved.get(name) != value]
    if differing:
        raise UserError(
            f"{one_line(path)}: the saved training has other constants: {'; '.join(differing)}. "
            "Give the same flags as at its start, or train anew, without --resume."
        )
