"""Trained weights on disk: one npz file that says what it holds, and never any pickle."""

import os
import sys
from pathlib import Path

import numpy as np

from common import npz
from common.errors import UserError, one_line
from common.files import plain_env_id, task_name, unused, write_atomically

FORMAT = 2  # raise it when older code could no longer read the file
HEADER_LIMIT = 1_000_000  # bytes; the headers of the chapter's agents take about 3000
DEFAULT_DIR = "model"  # of the scripts
SHIPPED = Path(__file__).resolve().parent.parent / DEFAULT_DIR  # weights that come with them
_NEXT_STEP = "Restore the file, or train again with --train."


def path(model_dir, algorithm, env_id, preset="chapter"):
    """Where the weights live: `model/TD3_Pendulum-v1/weights.npz`, as a Path.

    Those of another preset have a folder of their own: `model/TD3_Pendulum-v1_paper/`.
    """
    return Path(model_dir) / f"{algorithm.upper()}_{task_name(env_id, preset)}" / "weights.npz"


def find(model_dir, algorithm, env_id, preset="chapter"):
    """The file to load: that of path(), or, where the default folder has none, the shipped one.

    Scripts started in another folder find what lies beside them; a line says so.
    """
    own = path(model_dir, algorithm, env_id, preset)
    shipped = SHIPPED / own.parent.name / own.name
    missing = Path(model_dir) == Path(DEFAULT_DIR) and not os.path.lexists(own)
    if missing and os.path.isfile(shipped):
        where = one_line(own.absolute())
        print(f"There is no {where}: using the shipped {one_line(shipped)}.", flush=True)
        return shipped
    return own


def save(path, algorithm, env_id, networks, unit_actions=False):
    """Write all networks into one file; the same values give the same bytes.

    The file is a plain npz: `np.load(path)["policy_net/0"]` is the first array of the
    network "policy_net", `np.load(path)["header"]` a JSON text that describes the rest.

    Args:
        path: the file, see `path()`; a file already there is replaced in one step.
        algorithm: for example "TD3".
        env_id: for example "Pendulum-v1".
        networks: dict from a name to a list of variables of any shapes (as
            `trainable_weights` gives them).
        unit_actions: whether the agent acts in [-1, 1] whatever the environment's range.

    Raises:
        UserError: a value is not finite, or the file cannot be written. A file that was
            there before is then as it was.
    """
    arrays = {key: variable.numpy() for key, variable in _variables(networks).items()}
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{one_line(path)}: not saved, values of the network '{key.split('/')[0]}' are "
                "not finite. It was left as it was: train with another --seed or smaller learning "
                "rates."
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
    npz.save(path, header, arrays)


def load(path, algorithm, env_id, networks, unit_actions=False):
    """Read a file of `save()` into the variables of an agent of the same sizes.

    Everything is read and checked before the first variable changes: on an error the
    agent is as it was. Arguments as in `save()`.

    Raises:
        UserError: the file is missing, damaged, or holds the weights of another
            algorithm, environment or size, or for actions of another scale.
    """
    variables = _variables(networks)
    try:
        with npz.opened(path, FORMAT, _NEXT_STEP) as (header, archive):
            if archive.getinfo("header.npy").file_size > HEADER_LIMIT:
                raise ValueError(f"its header takes more than {HEADER_LIMIT} bytes")
            saved = header["algorithm"], plain_env_id(header["environment"]), header["unit_actions"]
            wanted = algorithm, plain_env_id(env_id), unit_actions
            if saved != wanted:
                raise UserError(
                    f"{one_line(path)}: holds weights of {_task(*saved)}, not of {_task(*wanted)}. "
                    "Use the script and the flags of that training, or train anew with --train."
                )
            _refuse_other_sizes(path, header["networks"], _shapes(variables))
            arrays = {key: npz.array(archive, key) for key in variables}
            for key, variable in variables.items():
                found = arrays[key].dtype, arrays[key].shape
                if found != (variable.numpy().dtype, variable.shape):
                    raise ValueError(f"'{key}' has {found[0]}{list(found[1])}")
    except FileNotFoundError as error:
        raise _missing(Path(path), algorithm, env_id) from error
    for key, variable in variables.items():
        variable.assign(arrays[key])


def keep_old(path):
    """Copy the file, before it is replaced, to the first free of weights.old.npz, ...-2.npz, ...

    Returns the Path of the copy, or None where there is no file. Raises UserError if it cannot
    be read, or its copy not be written.
    """
    if not os.path.isfile(path):
        return None
    kept = unused(path)
    write_atomically(kept, lambda file: file.write(Path(path).read_bytes()))
    return kept


def _refuse_other_sizes(path, saved, wanted):
    for name in {**wanted, **saved}:
        if saved.get(name) != wanted.get(name):
            raise UserError(
                f"{one_line(path)}: sizes of the network {name!r:.60} differ: saved "
                f"{saved.get(name)!r:.90}, expected {wanted.get(name)}. Flags such as --hidden-dim "
                "must equal those of training; or use --train."
            )


def _variables(networks):
    """The variables under the keys of the file: "q_net1/0", "q_net1/1", ..., "log_alpha/0"."""
    return {f"{name}/{i}": variable
            for name, variables in networks.items() for i, variable in enumerate(variables)}


def _shapes(arrays):
    """For each network the list of its arrays' shapes."""
    shapes = {}
    for key, array in arrays.items():
        shapes.setdefault(key.split("/")[0], []).append(list(array.shape))
    return shapes


def _task(algorithm, env_id, unit_actions):
    actions = {True: "with", False: "without"}[unit_actions]
    return f"{algorithm!r:.60} on {env_id!r:.60} {actions} --unit-actions"


def _missing(path, algorithm, env_id):
    """The error for a file that is not there; names the presets or tasks that have been trained."""
    model_dir = path.parent.parent
    found = [*model_dir.glob("*/weights.npz")]
    if model_dir == Path(DEFAULT_DIR):
        found += SHIPPED.glob("*/weights.npz")
    names = sorted({file.parent.name for file in found})
    task = f"{algorithm.upper()}_{task_name(env_id)}"
    presets = [name.removeprefix(task)[1:] or "chapter" for name in names
               if name == task or name.startswith(f"{task}_")]
    hint = "Train first, with --train."
    if presets:
        hint += f" There are weights for --preset {one_line(' and --preset '.join(presets))}."
    elif names:
        hint += f" There are weights of {one_line(', '.join(names))}."
    return UserError(f"{one_line(path.absolute())}: there is no such file. {hint}")
