"""The whole state of a training in one file, so that a killed run goes on as if it had not been.

One npz file, like the weights, because one file can be replaced in one step: whenever the
run is killed, the old state or the new one is there, whole. It holds no pickle.
"""

import copy
import json
import math
import operator
import os
import random

import numpy as np

from common import npz, weights
from common.errors import UserError, one_line
from common.files import unused
from common.progress import Progress
from common.provenance import changed

FORMAT = 4  # raise it when older code could no longer read the file, or this code older files
# A run may be resumed with other values of these; they change nothing that was computed.
FREE = {"TRAIN_EPISODES", "TRAIN_STEPS", "TEST_EPISODES", "RENDER", "CHECKPOINT_EVERY",
        "MODEL_DIR", "IMAGE_DIR"}
_ANEW = "Train anew, without --resume."


def path(model_dir, algorithm, env_id, preset):
    """Where the state lives: `model/TD3_Pendulum-v1/training.npz`, beside the weights."""
    return weights.path(model_dir, algorithm, env_id, preset).with_name("training.npz")


def save(path, agent, env, constants, progress, provenance):
    """Write everything the training depends on: what state_of() finds, and how it came about.

    Args:
        path: the file; it is replaced in one step.
        agent: as for state_of().
        env: Environment, at the end of an episode.
        constants: dict, those of the run.
        progress: Progress.
        provenance: what provenance.provenance() says of the code and the packages that run.

    Raises:
        UserError: the file cannot be written; the old one is then as it was.
    """
    arrays = {}
    header = {"format": FORMAT, "constants": dict(constants), "provenance": provenance,
              "progress": progress.as_dict(), "state": _packed(state_of(agent, env), "", arrays)}
    npz.save(path, header, arrays)


def restore(path, agent, env, constants, provenance):
    """Bring a new agent and environment to the state of save(); returns its Progress.

    On an error both are as they were. Where the state was written by other code or packages
    than `provenance` says, a line says so.

    Raises:
        UserError: there is no such file, it is damaged, or it belongs to a run with other
            constants; the message names them.
    """
    try:
        with npz.opened(path, FORMAT, _ANEW) as (header, archive):
            progress = Progress.from_dict(header["progress"])
            _refuse_other_constants(path, header["constants"], constants)
            differing = changed(header["provenance"], provenance)
            before = copy.deepcopy(state_of(agent, env))
            saved = _unpacked(header["state"], "", before, archive)
            arrays = {}
            _packed(saved, "", arrays)
            if len(archive.namelist()) > 1 + len(arrays):
                raise ValueError("surplus entries")
            sizes = [env.observation_space.shape[0], env.action_space.shape[0]]
            for part in saved["agent"].values():
                if isinstance(part, dict) and part.get("sizes") not in (None, sizes):
                    raise ValueError("transitions of other sizes")
            try:
                with env.lent():  # and so as it was, its seed too, if anything fails
                    env.restore_generator(saved["environment"])
                    put(saved, agent)
                    # What a part could not take over, or took for something else, shows here.
                    np.testing.assert_equal(state_of(agent, env), saved)
            except Exception:
                put(before, agent)
                raise
    except FileNotFoundError as error:
        raise UserError(
            f"{one_line(path)}: there is no such file, so nothing to resume. "
            "Start with --train alone."
        ) from error
    env.restore_generator(saved["environment"])
    if differing:
        print(f"{one_line(path)} was written by other code or packages "
              f"({one_line(differing)}): going on with the present ones.")
    return progress


def progress_in(path):
    """The Progress of a saved training, or None where there is none that can be read."""
    try:
        with npz.opened(path, FORMAT, _ANEW) as (header, _):
            return Progress.from_dict(header["progress"])
    except (UserError, FileNotFoundError):
        return None


def unfinished(path):
    """A line about the training whose state a new one would overwrite; "" if it was finished.

    A file that cannot be read counts as unfinished: newer code, or a patient person, may read it.
    """
    progress = progress_in(path)
    if not os.path.lexists(path) or (progress and progress.finished):
        return ""
    what = "cannot be read as the state of a training"
    if progress:
        what = (f"holds a training that was stopped after {progress.episodes} episodes; "
                "--resume would go on")
    return f"{one_line(path)} {what}. It is kept as {one_line(unused(path).name)}."


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
            f"{one_line(path)}: cannot be kept as {one_line(kept.name)} ({one_line(error)}). "
            "Move it away, go on with --resume, or give another --model-dir."
        ) from error
    return kept


def state_of(agent, env):
    """What a training goes on with, as nested dicts and lists of numbers, texts and arrays.

    That is: the agent's variables (weights, targets, optimizers' slots), what its `state_names`
    lists (numbers, arrays, np.random.Generators, or objects with state() and restore()), the
    environment's random numbers, Python's and NumPy's own.
    """
    state = {"variables": agent.compiler.values(), "environment": env.generator_state(),
             "random": json.loads(json.dumps(random.getstate())),
             "numpy": np.random.get_state(legacy=False), "agent": {}}
    for name in agent.state_names:
        value = operator.attrgetter(name)(agent)
        if isinstance(value, np.random.Generator):
            value = value.bit_generator.state
        state["agent"][name] = value.state() if hasattr(value, "restore") else value
    return state


def put(state, agent):
    """Bring an agent, Python's and NumPy's random numbers to a state_of()."""
    agent.compiler.set_values(state["variables"])
    for name, value in state["agent"].items():
        place, _, attribute = name.rpartition(".")
        holder = operator.attrgetter(place)(agent) if place else agent
        present = getattr(holder, attribute)
        if isinstance(present, np.random.Generator):
            present.bit_generator.state = value
        elif hasattr(present, "restore"):
            present.restore(value)
        elif isinstance(present, np.ndarray) and attribute in vars(holder):
            present[...] = value  # which has the right length, or cannot
        else:
            setattr(holder, attribute, value)
    version, words, gauss = state["random"]
    if not (gauss is None or math.isfinite(gauss)):
        raise ValueError("a random number that is not finite")
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(state["numpy"])


def _packed(tree, place, arrays):
    """The tree with {"array": its place} instead of each array, which goes into `arrays`."""
    if isinstance(tree, dict):
        return {key: _packed(value, f"{place}{key}/", arrays) for key, value in tree.items()}
    if isinstance(tree, np.ndarray):
        arrays[place[:-1]] = tree
        return {"array": place[:-1]}
    return tree


def _unpacked(packed, place, present, archive):
    """What _packed() was given; ValueError where the present tree could not have become that."""
    if isinstance(present, dict) and isinstance(packed, dict) and packed.keys() == present.keys():
        return {key: _unpacked(packed[key], f"{place}{key}/", value, archive)
                for key, value in present.items()}
    fits = type(packed) is type(present) and not isinstance(packed, dict)
    if isinstance(present, np.ndarray) and packed == {"array": place[:-1]}:
        packed = npz.array(archive, place[:-1])
        fits = packed.dtype == present.dtype and packed.ndim == present.ndim
    elif type(present) is float:
        fits = type(packed) in (int, float) and math.isfinite(packed)
    elif type(present) is int:  # NumPy does not look where in its 624 words a twister is
        fits = fits and 0 <= packed <= (624 if place.endswith("/pos/") else math.inf)
    elif present is None:  # not known yet, such as the sizes in a buffer
        fits = isinstance(packed, (type(None), list))
    if not fits:
        raise ValueError(f"state/{place[:-1]}")
    return packed


def _refuse_other_constants(path, saved, constants):
    differing = [f"{name} is {saved.get(name)!r:.60} there, {value!r} here"
                 for name, value in constants.items()
                 if name not in FREE and saved.get(name) != value]
    if differing:
        raise UserError(
            f"{one_line(path)}: the saved training has other constants: {'; '.join(differing)}. "
            "Give the same flags as at its start, or train anew, without --resume."
        )
