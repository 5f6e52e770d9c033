"""What the files of a run are called."""

import functools
import os
import re
from pathlib import Path

from common.errors import START

ROOT = Path(__file__).resolve().parent.parent.parent  # of the scripts


@functools.cache
def present_id(env_id):
    """The id under which an environment is known today; where it has changed, says so, once."""
    if plain_env_id(env_id) != "Pendulum-v0":
        return env_id
    print("Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.", flush=True)
    return env_id.replace("-v0", "-v1")


def plain_env_id(env_id):
    """The environment's id without "gymnasium:", which names the library, not the task."""
    return env_id.removeprefix("gymnasium:")


def fixed(path):
    """A path as it was meant where the program started, wherever it is now; ~ is the home."""
    return os.path.normpath(os.path.join(START, os.path.expanduser(path)))


def safe_name(env_id):
    """An environment's id as part of a file name, valid on Linux, macOS and Windows.

    "Pendulum-v1" and "gymnasium:Pendulum-v1" give "Pendulum-v1", "ALE/Pong-v5" gives
    "ALE-Pong-v5".
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain_env_id(env_id))
    return name.strip(".-") or "environment"  # Windows drops a dot at the end of a name


def task_name(env_id, preset="chapter"):
    """The environment and, unless it is the chapter's, the preset: part of a file name."""
    return safe_name(env_id) + (f"_{safe_name(preset)}" if preset != "chapter" else "")


def weights_path(model_dir, algorithm, env_id, preset="chapter"):
    """Where weights live: model/TD3_Pendulum-v1/weights.npz, model/TD3_Pendulum-v1_paper/..."""
    return Path(model_dir) / f"{algorithm.upper()}_{task_name(env_id, preset)}" / "weights.npz"


def state_path(model_dir, algorithm, env_id, preset="chapter"):
    """Where a training's state lives: `training.npz`, beside the weights."""
    return weights_path(model_dir, algorithm, env_id, preset).with_name("training.npz")


def picture_path(image_dir, algorithm, env_id, preset="chapter"):
    """Where the curve goes: the chapter's `image/td3.png` for Pendulum in the chapter's folder,
    `DIR/td3_ENV.png` for other environments and folders, `DIR/td3_ENV_PRESET.png` for presets.
    """
    name, task = algorithm.lower(), task_name(env_id, preset)
    usual = plain_env_id(env_id) == "Pendulum-v1" and preset == "chapter"
    if not usual or fixed(image_dir) != fixed("image"):
        name += f"_{task}"
    return Path(image_dir) / f"{name}.png"
