"""The whole state of a training in one file, so that a killed run goes on as if it had not been.

One npz file, like the weights, because one file can be replaced in one step: whenever the
run is killed, the old state or the new one is there, whole. It holds no pickle.
"""

import copy
import inspect
import json
import math
import os
import random
from pathlib import Path

import numpy as np

from common import npz, weights
from common.errors import UserError
from common.files import printable, reason_of, unused, write_atomically
from common.provenance import changed

FORMAT = 3  # raise it when older code could no longer read the file, or this code older files
# A run may be resumed with other values of these; they change nothing that was computed.
FREE = {"TRAIN_EPISODES", "TRAIN_STEPS", "TEST_EPISODES", "RENDER", "CHECKPOINT_EVERY",
        "MODEL_DIR", "IMAGE_DIR"}
# Arrays of transitions, of which only the first `size` rows have been written.
ROWS = ("memory", "buffer")
_WRITTEN = ("size", "position")  # of a ReplayBuffer: how many, and the next one
_ANEW = "Train anew, without --resume."
_HEADER = {"format", "constants", "provenance", "progress", "numbers", "generators", "lengths",
           "environment", "random", "numpy"}


def path(model_dir, algorithm, env_id, preset):
    """Where the state lives: `model/TD3_Pendulum-v1/training.npz`, beside the weights."""
    return weights.path(model_dir, algorithm, env_id, preset).with_name("training.npz")


def save(path, agent, env, constants, progress, provenance=None):
    """Write everything the training depends on.

    That is: all variables of the agent (weights, targets, optimizers' slots), the numbers,
    arrays and random generators among the attributes of the agent and of its networks and
    buffer, the environment's random generator, and Python's and NumPy's own.

    Args:
        path: the file; it is replaced in one step.
        agent: holds `compiler`.
        env: Environment, at the end of an episode.
        constants: dict, those of the script.
        progress: dict with the entries of PROGRESS, comes back from restore().
        provenance: what provenance.provenance() says of the code and the packages that run.

    Raises:
        UserError: the file cannot be written; the old one is then as it was.
    """
    arrays = {f"variables/{n}": value for n, value in agent.compiler.values().items()}
    header = {"format": FORMAT, "constants": constants, "progress": progress}
    header["provenance"] = provenance
    header["numbers"], header["generators"], header["lengths"] = {}, {}, {}
    for name, holder, attribute, value in _attributes(agent):
        if isinstance(value, np.random.Generator):
            header["generators"][name] = value.bit_generator.state
        elif isinstance(value, np.ndarray):
            arrays[name] = value
            # The rest of a large one takes long to look at.
            if attribute in ROWS and hasattr(holder, "size"):
                header["lengths"][name] = len(value)
                arrays[name] = value[: holder.size]
        else:
            header["numbers"][name] = value
    header["environment"] = env.generator_state()
    header["random"] = random.getstate()
    header["numpy"] = np.random.get_state(legacy=False)
    text = np.array(_json(header))
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))


def restore(path, agent, env, constants, provenance=None):
    """Bring a new agent and environment to the state of save(); returns its progress.

    Everything is read and checked before anything changes. Where the state was written by
    other code or packages than `provenance` says, a line says so.

    Raises:
        UserError: there is no such file, it is damaged, or it belongs to a run with other
            constants; the message names them.
    """
    path = Path(path)
    try:
        with npz.opened(path, _ANEW) as archive:
            header = _header(archive, path)
            _refuse_other_constants(path, header["constants"], constants)
            changes = _checked(archive, header, path, agent, env)
            old = header["provenance"]
            differing = changed(old, provenance) if old and provenance else ""
    except FileNotFoundError as error:
        raise UserError(
            f"{printable(path)}: there is no such file, so nothing to resume. "
            "Start with --train alone."
        ) from error
    if differing:
        print(
            f"{printable(path)} was written by other code or packages "
            f"({printable(differing)}): going on with the present ones.",
            flush=True,
        )
    for change, *values in changes:
        change(*values)
    return header["progress"]


def progress_in(path):
    """The progress of a saved training, or None where there is none that can be read."""
    try:
        with npz.opened(path, _ANEW) as archive:
            return _header(archive, path)["progress"]
    except (UserError, FileNotFoundError):
        return None


def unfinished(path):
    """A line about the training whose state a new one would overwrite; "" if it was finished.

    A file that cannot be read counts as unfinished: newer code, or a patient person, may read it.
    """
    if not os.path.lexists(path):
        return ""
    progress = progress_in(path)
    if progress is None:
        what = "cannot be read as the state of a training"
    elif progress["finished"]:
        return ""
    else:
        episodes = len(progress["episode_reward"])
        what = f"holds a training that was stopped after {episodes} episodes; --resume would go on"
    return f"{printable(path)} {what}. It is kept as {printable(unused(path).name)}."


def set_aside(path):
    """Rename the file to the first free of training.old.npz, training.old-2.npz, ...; returns it.

    Raises:
        UserError: it cannot be renamed.
    """
    kept = unused(path)
    try:
        os.rename(path, kept)
    except OSError as error:
        raise UserError(
            f"{printable(path)}: cannot be kept as {printable(kept.name)} ({reason_of(error)}). "
            "Move it away, go on with --resume, or give another --model-dir."
        ) from error
    return kept


# What a file says, checked


def _number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _list_of(check):
    return lambda value: type(value) is list and all(check(item) for item in value)


def _pair(first, second):
    return lambda value: type(value) is list and len(value) == 2 and (
        first(value[0]) and second(value[1])
    )


def _type(*kinds):
    return lambda value: type(value) in kinds


# The entries of a training's progress (see report.Training), and what each must be.
PROGRESS = {
    "episode_reward": _list_of(_number),
    "running_reward": _list_of(_number),
    "steps": _type(int),
    "seconds": _number,
    "learned": _type(bool),
    "evaluations": _list_of(_pair(_type(int), _list_of(_number))),
    "best": lambda value: value is None or _pair(_type(int), _number)(value),
    "test_returns": lambda value: value is None or _list_of(_number)(value),
    "finished": _type(bool),
    "log_name": _type(str),
}


def _header(archive, path):
    """The header, its progress checked; ValueError and the like say what is wrong."""
    # Stored, it cannot be larger than the file; nor should it be, packed.
    header = json.loads(npz.array(archive, "header", os.stat(path).st_size).item())
    if header["format"] != FORMAT:
        raise UserError(
            f"{printable(path)}: was written by another version of these scripts (format "
            f"{printable(repr(header['format']))}, not {FORMAT}). {_ANEW}"
        )
    if header.keys() != _HEADER:
        raise ValueError(f"{sorted(header.keys() ^ _HEADER)} in its header")
    for name in _HEADER - {"format", "provenance", "environment", "random"}:
        if not isinstance(header[name], dict):
            raise ValueError(f"'{name}' is no dict")
    source = header["provenance"]
    if source is not None and not (
        source.keys() == {"code", "versions"}
        and all(isinstance(text, str) for text in (source["code"], *source["versions"].values()))
    ):
        raise ValueError("its provenance is odd")
    progress = header["progress"]
    wrong = [name for name, check in PROGRESS.items() if not check(progress[name])]
    if progress.keys() != PROGRESS.keys():
        wrong += progress.keys() - PROGRESS.keys()
    if not wrong and len(progress["episode_reward"]) != len(progress["running_reward"]):
        wrong.append("running_reward")
    if wrong:
        raise ValueError(f"its progress has an odd {wrong[0]}")
    return header


def _refuse_other_constants(path, saved, constants):
    differing = [
        f"{name} is {saved.get(name)!r:.60} there, {value!r} here"
        for name, value in constants.items()
        if name not in FREE and saved.get(name) != value
    ]
    if differing:
        raise UserError(
            f"{printable(path)}: the saved training has other constants: {'; '.join(differing)}. "
            "Give the same flags as at its start, or train anew, without --resume."
        )


def _checked(archive, header, path, agent, env):
    """What restore() has to do, as tuples (function, its arguments), when all is proven fit."""
    numbers, generators, lengths = header["numbers"], header["generators"], header["lengths"]
    vectors = agent.compiler.values()
    arrays = {f"variables/{name}": (value, value.shape) for name, value in vectors.items()}
    changes, places, missing = [], {}, set()
    for name, holder, attribute, value in _attributes(agent, also_none=True):
        prefix = name.removesuffix(attribute)
        like = _after_a_push(holder, env) if f"{prefix}buffer" in lengths else holder
        value = getattr(like, attribute) if value is None else value
        places[name] = holder, attribute
        if isinstance(value, np.random.Generator) and name in generators:
            _try(copy.deepcopy(value), generators[name])
            changes.append((setattr, value.bit_generator, "state", generators[name]))
        elif attribute in ROWS and name in lengths:
            own = {a: numbers[prefix + a] for a in vars(like) if prefix + a in numbers}
            rows = _rows(_twin(like, own), len(value), lengths[name])
            arrays[name] = value, (rows, *value.shape[1:])
        elif isinstance(value, np.ndarray):
            arrays[name] = value, value.shape
        elif name in numbers:
            unmade = attribute in ROWS and value is None
            if unmade or not _alike(numbers[name], value, type(holder), attribute):
                raise ValueError(f"'{name}' cannot be {numbers[name]!r:.40}")
            changes.append((setattr, holder, attribute, numbers[name]))
        elif value is not None:
            missing.add(name)
        elif attribute in ROWS and any(numbers.get(f"{prefix}{n}") for n in _WRITTEN):
            raise ValueError(f"'{name}' is missing")
    odd = missing | ({*numbers, *generators, *lengths} - places.keys())
    odd |= {"header", *arrays} ^ {entry.removesuffix(".npy") for entry in archive.namelist()}
    if odd:
        raise UserError(
            f"{printable(path)}: was written by another version of this script, whose agent has "
            f"other parts ({printable(', '.join(sorted(odd)))}). {_ANEW}"
        )
    for name, (value, shape) in arrays.items():
        array = npz.array(archive, name, math.prod(shape) * value.itemsize)
        if (array.dtype, array.shape) != (value.dtype, shape):
            raise ValueError(f"'{name}' has {array.dtype}{list(array.shape)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all() and np.isfinite(value).all():
            raise ValueError(f"'{name}' holds values that are not finite")
        if name not in places:
            vectors[name.partition("/")[2]] = array
        elif shape == value.shape:
            changes.append((setattr, *places[name], array))
        else:
            whole = np.zeros(value.shape, value.dtype)  # takes no memory until it is written
            whole[: len(array)] = array
            changes.append((setattr, *places[name], whole))
    changes.append((agent.compiler.set_values, vectors))

    version, internal, gauss = header["random"]
    state = version, tuple(internal), gauss
    scratch = random.Random(0)
    scratch.setstate(state)
    if scratch.getstate() != state or not (gauss is None or _number(gauss)):
        raise ValueError("'random' is no state of Python's random numbers")
    changes.append((random.setstate, state))
    _try(np.random.RandomState(0), header["numpy"])
    changes.append((np.random.set_state, header["numpy"]))
    if (env.generator_state() is None) != (header["environment"] is None):
        raise ValueError("'environment' has random numbers, or this environment has")
    if header["environment"] is not None:
        _try(copy.deepcopy(env.unwrapped.np_random), header["environment"])
    changes.append((env.restore_generator, header["environment"]))
    return changes


def _twin(holder, changed):
    """An object like `holder` but for some attributes, which can be set without setting its."""
    twin = object.__new__(type(holder))
    vars(twin).update(vars(holder) | changed)
    return twin


def _after_a_push(buffer, env):
    """The buffer as it is with one transition or more: only then it has rows, and columns."""
    if buffer.buffer is not None:
        return buffer
    twin = _twin(buffer, {})
    state, action = (np.zeros(s.shape) for s in (env.observation_space, env.action_space))
    twin.push(state, action, 0.0, state, False)
    return twin


def _rows(buffer, length, saved_length):
    """How many rows of a buffer, all its numbers as saved, have been written."""
    rows, position = buffer.size, getattr(buffer, "position", 0)
    if saved_length != length or not (0 <= rows <= length and 0 <= position < length):
        raise ValueError(f"a buffer of {saved_length!r:.20} rows, {rows} of them written")
    if hasattr(buffer, "position") and rows < length and position != rows:
        raise ValueError(f"a buffer that is written at row {position}, after {rows} rows")
    return rows


def _alike(saved, present, owner=None, attribute=""):
    """Whether a number, text or list can be what `present`, an attribute of `owner`, has become."""
    if present is None:
        return _is_plain(saved)
    if isinstance(present, list):
        fits = type(saved) is list and (_is_plain(saved) if not present else all(
            any(_alike(item, like) for like in present) for item in saved
        ))
    elif isinstance(present, float):
        fits = type(saved) in (int, float)
        return fits and (math.isfinite(saved) or not math.isfinite(present))
    else:
        fits = type(saved) is next(k for k in (bool, int, str) if isinstance(present, k))
    # Sizes and choices stay as the constructor was given them, and columns where they are.
    given = owner is not None and attribute in (*inspect.signature(owner).parameters, "_ends")
    return fits and (saved == present or not given)


def _try(generator, state):
    """Give a generator a state and read it again: ValueError and the like where it is no state."""
    if isinstance(generator, np.random.RandomState):
        generator.set_state(state)
        now = generator.get_state(legacy=False)
    else:
        generator.bit_generator.state = state
        now = generator.bit_generator.state
    # NumPy does not look where in its 624 words a Mersenne twister stands.
    if _json(now) != _json(state) or not 0 <= now["state"].get("pos", 0) <= 624:
        raise ValueError("no state of random numbers")
    if not math.isfinite(now.get("gauss", 0.0)):
        raise ValueError("no state of random numbers")


def _json(value):
    return json.dumps(value, default=lambda array: array.tolist(), sort_keys=True)


def _attributes(agent, also_none=False):
    """What changes during training and is no variable: (name, its object, attribute, value)."""
    from common.networks import holders_of  # late: it needs TensorFlow, progress_in() does not

    for prefix, holder, all_kinds in holders_of(agent):
        for attribute, value in vars(holder).items():
            changes = isinstance(value, np.random.Generator)
            if all_kinds and not changes:
                changes = isinstance(value, np.ndarray) or _is_plain(value)
                changes = changes or (also_none and value is None)
            if changes:
                yield prefix + attribute, holder, attribute, value


def _is_plain(value):
    """Whether JSON keeps the value: a number, a text, a list of them."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (int, float, str))
