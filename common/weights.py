"""Trained weights on disk: one npz file that says what it holds, and never any pickle."""

import io
import json
import sys
import zipfile
from itertools import zip_longest
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import plain_env_id, safe_name, task_name, write_atomically

FORMAT = 2  # raise it when older code could no longer read the file
HEADER_LIMIT = 1_000_000  # bytes; the headers of the chapter's agents take about 3000
NPY_LIMIT = 1_000  # bytes that NumPy may put before an array's values; it takes 128


def path(model_dir, algorithm, env_id, preset="chapter"):
    """Where the weights live: `model/TD3_Pendulum-v1/weights.npz`, as a Path.

    Those of another preset have a folder of their own: `model/TD3_Pendulum-v1_paper/`.
    """
    return Path(model_dir) / f"{algorithm.upper()}_{task_name(env_id, preset)}" / "weights.npz"


def save(path, algorithm, env_id, networks, unit_actions=False):
    """Write all networks into one file; the same values give the same bytes.

    The file is a plain npz: `np.load(path)["policy_net/0"]` is the first array of the
    network "policy_net", `np.load(path)["header"]` a JSON text that describes the rest.

    Args:
        path: the file, see `path()`; a file already there is replaced in one step.
        algorithm: for example "TD3".
        env_id: for example "Pendulum-v1".
        networks: dict from a name to a list of variables of any shapes (as
            `trainable_weights` gives them) or to a single variable.
        unit_actions: whether the agent acts in [-1, 1] whatever the environment's range.

    Raises:
        UserError: a value is not finite, or the file cannot be written. A file that was
            there before is then as it was.
    """
    arrays = _values(_variables(networks))
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{path}: not saved, the network '{key.split('/')[0]}' holds values that are not "
                "finite; the file was left as it was. Train with another --seed or smaller "
                "learning rates."
            )
    modules = {name: sys.modules.get(name) for name in ("numpy", "tensorflow", "tensorlayer")}
    header = {
        "format": FORMAT,
        "algorithm": algorithm,
        "environment": env_id,
        "unit_actions": unit_actions,
        "networks": _shapes(arrays),
        "versions": {k: getattr(m, "__version__", "unknown") for k, m in modules.items() if m},
    }
    text = np.array(json.dumps(header))
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))


def load(path, algorithm, env_id, networks, unit_actions=False):
    """Read a file of `save()` into the variables of an agent of the same sizes.

    Everything is read and checked before the first variable changes: on an error the
    agent is as it was. Arguments as in `save()`.

    Raises:
        UserError: the file is missing, damaged, or holds the weights of another
            algorithm, environment or size, or for actions of another scale.
    """
    path = Path(path)
    variables = _variables(networks)
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise _missing(path, env_id) from error
    except OSError as error:  # a folder in its place, no permission
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    with file:
        try:
            arrays = _read(path, file, algorithm, env_id, unit_actions, _values(variables))
        except UserError:
            raise
        # A damaged file makes zipfile, zlib, NumPy and json fail in more ways than can be
        # listed here, MemoryError and RecursionError among them.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            problem = f"is damaged or was not written by these scripts ({reason:.80})"
            raise _unusable(path, problem) from error
    for key, variable in variables.items():
        variable.assign(arrays[key])


def _read(path, file, algorithm, env_id, unit_actions, expected):
    """All arrays of the file, proven to be what `expected` (key -> array) asks for."""
    with zipfile.ZipFile(file) as archive:
        header = json.loads(_read_array(archive, "header", HEADER_LIMIT).item())
        if header["format"] != FORMAT:
            raise _unusable(path, f"has format {header['format']!r:.20}, not {FORMAT}")
        if header["algorithm"] != algorithm:
            raise UserError(
                f"{path}: holds weights of {header['algorithm']!r:.60}, not of '{algorithm}'. "
                "Use the script of that algorithm, or train this one with --train."
            )
        if plain_env_id(header["environment"]) != plain_env_id(env_id):
            raise UserError(
                f"{path}: was trained on {header['environment']!r:.60}, not on '{env_id}'. "
                "Use that environment, or train on this one with --train."
            )
        if header["unit_actions"] is not unit_actions:
            now, then = ("with", "without") if unit_actions else ("without", "with")
            raise UserError(
                f"{path}: was trained {then} --unit-actions, and this run is {now}: its actions "
                "would have the wrong scale. Give the same flags as for training."
            )
        _check_sizes(path, header["networks"], _shapes(expected))
        entries = archive.namelist()
        needed = ["header.npy", *(f"{key}.npy" for key in expected)]
        if sorted(entries) != sorted(needed):  # lists, for an entry may be there twice
            odd = sorted(set(entries) ^ set(needed))
            raise _unusable(path, f"has missing, surplus or repeated entries {odd!r:.80}")
        arrays = {key: _read_array(archive, key, expected[key].nbytes) for key in expected}
    for key, array in arrays.items():
        found, wanted = ((a.dtype.str, a.shape) for a in (array, expected[key]))
        if found != wanted:
            raise _unusable(path, f"holds {found!r:.60} as '{key}', not {wanted}")
        if not np.isfinite(array).all():
            raise _unusable(path, f"holds values that are not finite in '{key.split('/')[0]}'")
    return arrays


def _read_array(archive, key, limit):
    """The array `key`, of at most `limit` bytes; its checksum is checked, no pickle read."""
    entry = archive.getinfo(f"{key}.npy")
    if entry.file_size > limit + NPY_LIMIT:  # asked before unpacking: it may be a zip bomb
        raise ValueError(f"'{key}' takes {entry.file_size} bytes, more than {limit}")
    return np.lib.format.read_array(io.BytesIO(archive.read(entry)), allow_pickle=False)


def _check_sizes(path, saved, expected):
    """Raise a UserError unless both dicts hold the same lists of shapes."""
    for name in [*expected, *saved]:
        for old, new in zip_longest(saved.get(name, []), expected.get(name, [])):
            if old != new:
                raise UserError(
                    f"{path}: sizes of the network {name!r:.60} differ: saved {old!r:.60}, "
                    f"expected {new}. Flags such as --hidden-dim must equal those of training; "
                    "or train again with --train."
                )


def _variables(networks):
    """The variables under the keys of the file: "q_net1/0", "q_net1/1", ..., "log_alpha/0"."""
    return {
        f"{name}/{i}": variable
        for name, group in networks.items()
        for i, variable in enumerate([group] if hasattr(group, "assign") else group)
    }


def _values(variables):
    return {key: np.asarray(variable.numpy()) for key, variable in variables.items()}


def _shapes(arrays):
    """For each network the list of its arrays' shapes."""
    shapes = {}
    for key, array in arrays.items():
        shapes.setdefault(key.split("/")[0], []).append(list(array.shape))
    return shapes


def _unusable(path, problem):
    return UserError(f"{path}: {problem}. Restore the file, or train again with --train.")


def _missing(path, env_id):
    """The error for a file that is not there; names the algorithms that have been trained."""
    folders = [file.parent.name for file in path.parent.parent.glob("*/weights.npz")]
    suffix = f"_{safe_name(env_id)}"
    others = [name.removesuffix(suffix) for name in sorted(folders) if name.endswith(suffix)]
    hint = f" For this environment there are weights of {', '.join(others)}." if others else ""
    return UserError(f"{path}: there is no such file. Train first, with --train.{hint}")
