"""Trained weights on disk: one npz file that says what it holds, and never any pickle."""

import os
import sys
from pathlib import Path

import numpy as np

from common.errors import UserError, one_line
from common.files import arrays
from common.files.names import ROOT, plain_env_id, task_name, weights_path

FORMAT = 3  # raise it when older code could no longer read the file
SHIPPED = ROOT / "model" / "pretrained"  # weights that come with the scripts; no run writes there
_NEXT_STEP = "Restore the file, or train again with --train."


def find(model_dir, algorithm, env_id, preset="chapter"):
    """The file to load: one's own or, where there is none, the shipped one.

    Raises:
        UserError: there is neither.
    """
    own = weights_path(model_dir, algorithm, env_id, preset)
    shipped = weights_path(SHIPPED, algorithm, env_id, preset)
    if os.path.exists(own):
        return own
    if os.path.islink(own) or not shipped.is_file():
        raise _missing(own, algorithm, env_id)
    return shipped


def save(path, algorithm, env_id, variables, unit_actions=False):
    """Write all networks into one file; the same values give the same bytes.

    The file is a plain npz: `np.load(path)["policy_net/0"]` is the first array of the
    network "policy_net", `np.load(path)["header"]` a JSON text that describes the rest.

    Args:
        path: the file, see `names.weights_path()`; one already there is replaced in one step.
        algorithm: for example "TD3".
        env_id: for example "Pendulum-v1".
        variables: dict from a name ("q_net1/0") to each variable, see engine/variables.py.
        unit_actions: whether the agent acts in [-1, 1] whatever the environment's range.

    Raises:
        UserError: a value is not finite, or the file cannot be written. A file that was
            there before is then as it was.
    """
    values = {key: variable.numpy() for key, variable in variables.items()}
    for key, array in values.items():
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
        "networks": _shapes(values),
        "versions": {k: getattr(m, "__version__", "unknown") for k, m in modules.items() if m},
    }
    arrays.save(path, header, values)


def load(path, algorithm, env_id, variables, unit_actions=False):
    """Read a file of `save()` into the variables of an agent of the same sizes.

    Everything is read and checked before the first variable changes: on an error the
    agent is as it was. Arguments as in `save()`.

    Raises:
        UserError: the file is missing, damaged, or holds the weights of another
            algorithm, environment or size, or for actions of another scale.
    """
    try:
        header, values = arrays.load(path, FORMAT, _NEXT_STEP)
    except FileNotFoundError as error:
        raise _missing(Path(path), algorithm, env_id) from error
    saved = (header.get("algorithm"), plain_env_id(str(header.get("environment"))),
             header.get("unit_actions"))
    wanted = algorithm, plain_env_id(env_id), unit_actions
    if saved != wanted:
        raise UserError(
            f"{one_line(path)}: holds weights of {_task(*saved)}, not of {_task(*wanted)}. "
            "Use the script and the flags of that training, or train anew with --train."
        )
    _refuse_other_sizes(path, _shapes(values), _shapes(variables))
    for key, variable in variables.items():
        value = values[key]
        if value.dtype != variable.numpy().dtype:
            raise UserError(f"{one_line(path)}: {key} has numbers of {value.dtype}. {_NEXT_STEP}")
        if not np.isfinite(value).all():
            raise UserError(f"{one_line(path)}: {key} is not finite. {_NEXT_STEP}")
    for key, variable in variables.items():
        variable.assign(values[key])


def units(path):
    """How many units the first layer in a file of save() has.

    Raises:
        UserError: the file cannot be read.
    """
    _, values = arrays.load(path, FORMAT, _NEXT_STEP)
    return next(iter(values.values())).shape[-1]


def _refuse_other_sizes(path, saved, wanted):
    for name in {**wanted, **saved}:
        if saved.get(name) != wanted.get(name):
            raise UserError(
                f"{one_line(path)}: sizes of the network {name!r:.60} differ: saved "
                f"{saved.get(name)!r:.90}, expected {wanted.get(name)}. Flags such as --hidden-dim "
                "must equal those of training; or use --train."
            )


def _shapes(values):
    """For each network the list of its arrays' shapes."""
    shapes = {}
    for key, array in values.items():
        shapes.setdefault(key.split("/")[0], []).append(list(array.shape))
    return shapes


def _task(algorithm, env_id, unit_actions):
    actions = "with" if unit_actions else "without"
    return f"{algorithm!r:.60} on {env_id!r:.60} {actions} --unit-actions"


def _missing(path, algorithm, env_id):
    """The error for a file that is not there; names the presets or tasks that have been trained."""
    own = f"{algorithm.upper()}_*/weights.npz"  # of this algorithm
    found = [*path.parent.parent.glob(own), *SHIPPED.glob(own)]
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
