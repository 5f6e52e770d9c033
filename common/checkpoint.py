"""The whole state of a training in one file, so that a killed run goes on as if it had not been.

One npz file, like the weights, because one file can be replaced in one step: whenever the
run is killed, the old state or the new one is there, whole. It holds no pickle.
"""

import json
import random
from pathlib import Path

import numpy as np

from common import weights
from common.errors import UserError
from common.files import write_atomically

FORMAT = 2  # raise it when older code could no longer read the file
# A run may be resumed with other values of these; they change nothing that was computed.
FREE = {"TRAIN_EPISODES", "TRAIN_STEPS", "TEST_EPISODES", "RENDER", "CHECKPOINT_EVERY",
        "MODEL_DIR", "IMAGE_DIR"}


def path(model_dir, algorithm, env_id, preset):
    """Where the state lives: `model/TD3_Pendulum-v1/training.npz`, beside the weights."""
    return weights.path(model_dir, algorithm, env_id, preset).with_name("training.npz")


def save(path, agent, env, constants, progress):
    """Write everything the training depends on.

    That is: all variables of the agent (weights, targets, optimizers' slots), the numbers,
    arrays and random generators among the attributes of the agent and of its networks and
    buffer, the environment's random generator, and Python's and NumPy's own.

    Args:
        path: the file; it is replaced in one step.
        agent: holds `compiler`.
        env: Environment, at the end of an episode.
        constants: dict, those of the script.
        progress: dict for JSON, comes back from restore().

    Raises:
        UserError: the file cannot be written; the old one is then as it was.
    """
    arrays = {f"variables/{i}": v.numpy() for i, v in enumerate(agent.compiler.pack())}
    header = {"format": FORMAT, "constants": constants, "progress": progress}
    header["numbers"], header["generators"], header["lengths"] = {}, {}, {}
    for name, holder, _, value in _attributes(agent):
        if isinstance(value, np.random.Generator):
            header["generators"][name] = value.bit_generator.state
        elif isinstance(value, np.ndarray):
            header["lengths"][name] = len(value)
            # Of a buffer, the part that was written; a large one's rest takes long to look at.
            arrays[name] = value[: holder.size] if value.ndim == 2 else value
        else:
            header["numbers"][name] = value
    header["environment"] = env.generator_state()
    header["random"] = random.getstate()
    header["numpy"] = np.random.get_state(legacy=False)
    text = np.array(json.dumps(header, default=lambda array: array.tolist()))
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))


def restore(path, agent, env, constants):
    """Bring a new agent and environment to the state of save(); returns its progress.

    Everything is read and checked before anything changes.

    Raises:
        UserError: there is no such file, it is damaged, or it belongs to a run with other
            constants; the message names them.
    """
    path = Path(path)
    header, arrays = _read(path)
    saved = header["constants"]
    differing = [
        f"{name} is {saved.get(name)!r} there, {value!r} here"
        for name, value in constants.items()
        if name not in FREE and saved.get(name) != value
    ]
    if differing:
        raise UserError(
            f"{path}: the saved training has other constants: {'; '.join(differing)}. "
            "Give the same flags as at its start, or train anew, without --resume."
        )
    vectors = agent.compiler.pack()
    new = [arrays.get(f"variables/{i}") for i in range(len(vectors))]
    attributes = list(_attributes(agent, also_none=True))
    known = {**header["numbers"], **header["generators"], **header["lengths"]}
    odd = known.keys() - {name for name, *_ in attributes}
    if odd or any(a is None or a.shape != v.shape for a, v in zip(new, vectors)):
        raise UserError(
            f"{path}: was written by another version of this script, whose agent has other parts "
            f"({', '.join(sorted(odd)) or 'networks of other sizes'}): train anew, without "
            "--resume."
        )
    agent.compiler.unpack_from(new)
    for name, holder, attribute, value in attributes:
        if name in header["generators"]:
            value.bit_generator.state = header["generators"][name]
        elif name in header["lengths"]:
            rows = arrays[name]
            whole = np.zeros((header["lengths"][name], *rows.shape[1:]), rows.dtype)
            whole[: len(rows)] = rows
            setattr(holder, attribute, whole)
        elif name in header["numbers"]:
            setattr(holder, attribute, header["numbers"][name])
    env.restore_generator(header["environment"])
    version, internal, gauss = header["random"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(header["numpy"])
    return header["progress"]


def progress_in(path):
    """The progress of a saved training, or None where there is none that can be read."""
    try:
        return _read(Path(path), with_arrays=False)[0]["progress"]
    except UserError:
        return None


def _read(path, with_arrays=True):
    """The header and, unless only that is wanted (a buffer is large), all arrays by name."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].item())
            names = [name for name in file.files if name != "header"] if with_arrays else []
            arrays = {name: file[name] for name in names}
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}, not {FORMAT}")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: there is no such file, so nothing to resume. Start with --train alone."
        ) from error
    # A damaged file makes zipfile, zlib, NumPy and json fail in many ways.
    except Exception as error:
        raise UserError(
            f"{path}: is damaged or was not written by these scripts "
            f"({' '.join(str(error).split()):.80}). Train anew, without --resume."
        ) from error
    return header, arrays


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
