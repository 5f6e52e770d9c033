"""The whole state of a training in one file, so that a killed run goes on as if it had not been.

One npz file, like the weights, because one file can be replaced in one step: whenever the
run is killed, the old state or the new one is there, whole.
"""

import contextlib
import os
import random
import weakref
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorlayer.models import Model

from common.engine.plain import Programs
from common.engine.variables import variables_of
from common.errors import UserError, one_line
from common.files import arrays
from common.files.digest import changed
from common.training.progress import Progress

FORMAT = 6  # raise it when older code could no longer read the file, or this code older files
# A run may be resumed with other values of these; they change nothing that was computed.
FREE = {"TRAIN_EPISODES", "TRAIN_STEPS", "TEST_EPISODES", "RENDER", "CHECKPOINT_EVERY",
        "MODEL_DIR", "IMAGE_DIR"}
_ANEW = "Train anew, without --resume."
_HISTORY = "episode_reward", "all_episode_reward"
_VARIABLES = Model, tf.Variable, tf.optimizers.Optimizer, tf.train.ExponentialMovingAverage
_ARRAYS = np.ndarray, np.generic, tf.Tensor
_VALUES = int, float, str, type(None), np.random.Generator, *_ARRAYS
_UNSEEN = list, dict, set, random.Random, *_VARIABLES  # vars() does not tell what these hold
_BLOCK = 10_000  # rows that are looked at together
_said = set()  # what is not saved


def save(path, agent, env, constants, progress, digest):
    """Write everything the training depends on: what vars(agent) holds, and how it came about.

    That is: its variables (weights, targets, optimizers' moments, averages); the numbers, texts,
    arrays, tensors and np.random.Generators among its attributes and those of its objects (a
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
    bad = not_finite(agent)
    if bad:
        raise UserError(f"{one_line(path)}: not saved, {bad} is not finite: try smaller learning "
                        "rates or another --reward-scale")
    held = {f"variable/{name}": value for name, value in _variables(agent).items()}
    numbers, shapes = {}, {}
    for place, (holder, name) in _places(agent).items():
        value = vars(holder)[name]
        if isinstance(value, _ARRAYS):
            array = np.asarray(value)
            kind = "array" if value is array else "tensor" if tf.is_tensor(value) else "number"
            shapes[place] = kind, array.shape
            held[f"array/{place}"] = array[: _written(array)] if array.ndim else array
        elif isinstance(value, np.random.Generator):
            numbers[place] = _as_json(value.bit_generator.state)
        else:
            numbers[place] = value
    done = dict(vars(progress))
    held |= {f"history/{name}": np.array(done.pop(name)) for name in _HISTORY}
    header = {"format": FORMAT, "constants": dict(constants), "digest": digest, "progress": done,
              "numbers": numbers, "shapes": shapes, "environment": _as_json(env.generator_states()),
              "random": random.getstate(), "numpy": _as_json(np.random.get_state(legacy=False))}
    arrays.save(path, header, held)


def restore(path, agent, env, constants, digest):
    """Bring a new agent and environment to the state of save(); returns its Progress.

    Where the state was written by other code or packages than `digest` says, a line says so.

    Raises:
        UserError: there is no such file, it is damaged, or it belongs to a run with other
            constants; the message names them. Agent and environment are as they were.
    """
    try:
        header, held = arrays.load(path, FORMAT, _ANEW)
    except FileNotFoundError as error:
        raise UserError(f"{one_line(path)}: there is no such file, so nothing to resume. "
                        "Start with --train alone.") from error
    _refuse_other_constants(path, header["constants"], constants)
    places, own = _places(agent), variables_of(agent)
    saved = {name.removeprefix("variable/"): (value.shape, value.dtype)
             for name, value in held.items() if name.startswith("variable/")}
    unfit = saved.items() ^ {name: (tuple(v.shape), np.dtype(v.dtype.as_numpy_dtype))
                             for name, v in own.items()}.items()
    unfit = {name for name, _ in unfit} | (header["numbers"].keys() | header["shapes"].keys()) ^ (
        places.keys())
    if unfit:
        raise UserError(f"{one_line(path)} is of another agent ({one_line(min(unfit))}). {_ANEW}")
    differing = changed(header["digest"], digest)
    if differing:
        print(f"{one_line(path)} was written by other code or packages "
              f"({one_line(differing)}): going on with the present ones.")
    for name, variable in own.items():
        variable.assign(held[f"variable/{name}"])
    for place, (holder, name) in places.items():
        present = vars(holder)[name]
        if isinstance(present, np.random.Generator):
            present.bit_generator.state = _from_json(header["numbers"][place])
        elif place in header["numbers"]:
            vars(holder)[name] = header["numbers"][place]
        else:
            kind, shape = header["shapes"][place]
            value = held[f"array/{place}"]
            if shape:
                value, written = np.zeros(shape, value.dtype), value
                value[: len(written)] = written
            again = {"array": np.asarray, "tensor": tf.constant, "number": lambda array: array[()]}
            vars(holder)[name] = again[kind](value)
    env.restore_generators(_from_json(header["environment"]))
    version, words, gauss = header["random"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(_from_json(header["numpy"]))
    return _progress(header, held)


def progress_in(path):
    """The Progress of a saved training, or None where there is none that can be read."""
    try:
        return _progress(*arrays.load(path, FORMAT, _ANEW))
    except (UserError, FileNotFoundError):
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


def set_aside(path):
    """Rename the state of a training that was not finished: training.old.npz, ...-2.npz, ..."""
    try:
        os.rename(path, _unused(path))
    except OSError as error:
        raise UserError(f"{one_line(path)}: cannot be kept ({one_line(error)}). Move it away, "
                        "go on with --resume, or give another --model-dir.") from error


@contextlib.contextmanager
def put_back(agent):
    """A block after which the agent's variables and tensors are again what they were."""
    values = _variables(agent)
    tensors = {name: value for name, value in vars(agent).items() if isinstance(value, tf.Tensor)}
    yield
    for name, variable in variables_of(agent).items():
        variable.assign(values[name])
    vars(agent).update(tensors)


def not_finite(agent):
    """The name of a loss or a variable that is no longer finite, or None."""
    values = {**(agent.losses or {}), **_variables(agent)}
    return next((name for name, value in values.items() if not np.isfinite(value).all()), None)


def _variables(agent):
    """The values of all variables of an agent: dict from a name to each array."""
    return {name: variable.numpy() for name, variable in variables_of(agent).items()}


def _unused(path):
    path = Path(path)
    kept, number = path.with_suffix(".old.npz"), 1
    while os.path.lexists(kept):
        number += 1
        kept = path.with_suffix(f".old-{number}.npz")
    return kept


def _progress(header, held):
    history = {name: held[f"history/{name}"].tolist() for name in _HISTORY}
    return Progress(**header["progress"], **history)


def _places(thing, prefix=""):
    """Where what is saved stands: dict from "replay_buffer.position" to (object, name)."""
    found = {}
    for name, value in vars(thing).items():
        place = prefix + name
        # Losses are of the last update alone; what is compiled is compiled anew.
        if place == "losses" or isinstance(value, (Programs, weakref.ref)) or (
                isinstance(value, _VARIABLES) and not prefix):
            continue
        pickled = isinstance(value, np.ndarray) and value.dtype.hasobject
        if isinstance(value, _VALUES) and not pickled:
            found[place] = thing, name
        elif hasattr(value, "__dict__") and not (callable(value) or isinstance(value, _UNSEEN)):
            found |= _places(value, f"{place}.")
        elif place not in _said:
            _said.add(place)
            print(f"{place}, a {type(value).__name__}, is not saved with the training: after "
                  "--resume it is new.")
    return found


def _written(array):
    """How many rows there are before those of zeros at the end, which need not be saved."""
    for end in range(len(array), 0, -_BLOCK):
        begin = max(0, end - _BLOCK)
        used = np.frombuffer(array[begin:end].tobytes(), np.uint8).reshape(end - begin, -1)
        rows = np.flatnonzero(used.any(axis=1))
        if len(rows):
            return begin + int(rows[-1]) + 1
    return 0


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
