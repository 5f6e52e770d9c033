"""The whole state of a training in one file, so that a killed run goes on as if it had not been.

One npz file, like the weights, because one file can be replaced in one step: whenever the
run is killed, the old state or the new one is there, whole. It holds no pickle.
"""

import json
import math
import operator
import os
import random

import numpy as np

from common import npz, weights
from common.errors import UserError
from common.files import printable, reason_of, unused, write_atomically
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
    text = np.array(json.dumps(header))
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))


def restore(path, agent, env, constants, provenance):
    """Bring a new agent and environment to the state of save(); returns its Progress.

    On an error both are as they were. Where the state was written by other code or packages
    than `provenance` says, a line says so.

    Raises:
        UserError: there is no such file, it is damaged, or it belongs to a run with other
            constants; the message names them.
    """
    try:
        with npz.opened(path, _ANEW) as archive:
            header, progress = _header(archive, path)
            _refuse_other_constants(path, header["constants"], constants)
            arrays = {entry.removesuffix(".npy") for entry in archive.namelist()} - {"header"}
            saved = _unpacked(header["state"], archive, os.stat(path).st_size, arrays)
            if arrays:
                raise ValueError(f"surplus entries {sorted(arrays)}")
            before = state_of(agent, env)
            odd = _unlike(saved, before)
            if odd:
                raise UserError(f"{printable(path)}: was written by another version of this "
                                f"script, or is damaged ({printable(odd)}). {_ANEW}")
            before = _unpacked(_packed(before, "", copies := {}), copies)
            try:
                _put(saved, agent, env)
                if not _same(saved, state_of(agent, env)):
                    raise ValueError("a value is beyond what it can be")
            except Exception:
                _put(before, agent, env)
                raise
            differing = changed(header["provenance"], provenance)
    except FileNotFoundError as error:
        raise UserError(
            f"{printable(path)}: there is no such file, so nothing to resume. "
            "Start with --train alone."
        ) from error
    if differing:
        print(f"{printable(path)} was written by other code or packages "
              f"({printable(differing)}): going on with the present ones.")
    return progress


def progress_in(path):
    """The Progress of a saved training, or None where there is none that can be read."""
    try:
        with npz.opened(path, _ANEW) as archive:
            return _header(archive, path)[1]
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
    elif progress.finished:
        return ""
    else:
        episodes = len(progress.episode_reward)
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


def _put(state, agent, env):
    """Bring agent and environment to a state_of()."""
    agent.compiler.set_values(state["variables"])
    for name, value in state["agent"].items():
        place, _, attribute = name.rpartition(".")
        holder = operator.attrgetter(place)(agent) if place else agent
        present = getattr(holder, attribute)
        if isinstance(present, np.random.Generator):
            present.bit_generator.state = value
        elif hasattr(present, "restore"):
            present.restore(value)
        else:
            setattr(holder, attribute, value)
    env.restore_generator(state["environment"])
    version, words, gauss = state["random"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(state["numpy"])


# How a state lies in a file: JSON, with arrays apart


def _packed(tree, place, arrays):
    """The tree with the name of an entry in place of each array, which goes into `arrays`."""
    if isinstance(tree, dict):
        return {key: _packed(value, f"{place}{key}/", arrays) for key, value in tree.items()}
    if isinstance(tree, np.ndarray):
        arrays[place[:-1]] = np.array(tree)
        return {"array": place[:-1]}
    return tree


def _unpacked(tree, archive, limit=0, left=None):
    """The tree again; its arrays come from a dict, or from an archive and leave the set `left`."""
    if not isinstance(tree, dict):
        return tree
    if tree.keys() != {"array"}:
        return {key: _unpacked(value, archive, limit, left) for key, value in tree.items()}
    if isinstance(archive, dict):
        return archive[tree["array"]]
    left.remove(tree["array"])
    return npz.array(archive, tree["array"], limit)


def _unlike(saved, present, place="state"):
    """Where a saved tree cannot be what the present one has become; "" if it can everywhere."""
    if isinstance(present, dict):
        if not isinstance(saved, dict) or saved.keys() != present.keys():
            return place
        found = (_unlike(saved[key], present[key], f"{place}/{key}") for key in present)
        return next(filter(None, found), "")
    if isinstance(present, np.ndarray):
        fits = isinstance(saved, np.ndarray) and saved.dtype == present.dtype
        fits = fits and saved.ndim == present.ndim
        return "" if fits and (saved.dtype.kind != "f" or np.isfinite(saved).all()) else place
    if present is None:  # not known yet, such as the sizes in a buffer
        return "" if isinstance(saved, (type(None), list)) else place
    kinds = (int, float) if type(present) is float else (type(present),)
    fits = type(saved) in kinds and (type(saved) is not float or math.isfinite(saved))
    if place.endswith("/pos"):  # NumPy does not look where in its 624 words a Mersenne twister is
        fits = fits and 0 <= saved <= 624
    return "" if fits else place


def _same(one, other):
    """Whether two trees are equal, numbers in them by value."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return one == other


def _header(archive, path):
    """The header and its Progress; ValueError and the like say what is wrong."""
    # Stored, it cannot be larger than the file; nor should it be, packed.
    header = json.loads(npz.array(archive, "header", os.stat(path).st_size).item())
    if header["format"] != FORMAT:
        raise UserError(
            f"{printable(path)}: was written by another version of these scripts (format "
            f"{printable(repr(header['format']))}, not {FORMAT}). {_ANEW}"
        )
    if header.keys() != {"format", "constants", "provenance", "progress", "state"}:
        raise ValueError("its header has other entries")
    provenance = header["provenance"]
    texts = [provenance["code"], *provenance["versions"].values()]
    if not all(isinstance(text, str) for text in texts) or len(provenance) != 2:
        raise ValueError("its provenance is odd")
    header["constants"].items()  # a dict
    return header, Progress.from_dict(header["progress"])


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
