"""The reward curve of a training run, as a picture for the book's page or a slide."""

import contextlib
import os
from pathlib import Path

import numpy as np

from common.files import plain_env_id, task_name, write_atomically


def path(image_dir, algorithm, env_id, preset="chapter"):
    """Where the curve goes: the chapter's `image/td3.png` for Pendulum in the chapter's folder,
    `DIR/td3_ENV.png` for other environments and folders, `DIR/td3_ENV_PRESET.png` for presets.
    """
    name, task = algorithm.lower(), task_name(env_id, preset)
    if (plain_env_id(env_id), preset, Path(image_dir)) != ("Pendulum-v1", "chapter", Path("image")):
        name += f"_{task}"
    return Path(image_dir) / f"{name}.png"


def save(path, episode_reward, running_reward, algorithm, env_id, seed):
    """Draw the chapter's running curve over the faint episode rewards, 1000 x 600 pixels.

    Needs no display, and the same data give the same bytes.

    Args:
        path: the png file, see `path()`; an older picture is replaced.
        episode_reward: sum of the rewards of each episode, from the first on.
        running_reward: as many values, 0.9 * the last one + 0.1 * the episode's.
        algorithm, env_id, seed: for the title.

    Returns:
        True, or False where there is no episode yet: then nothing is written.

    Raises:
        UserError: the file cannot be written.
    """
    if len(episode_reward) == 0:
        return False
    style, Figure = matplotlib_parts()
    episodes, running = _drawable(episode_reward), _drawable(running_reward)
    number = np.arange(1, len(episodes) + 1)
    # Whatever stands in a reader's matplotlibrc: everyone gets the same picture.
    with style.context("default"):
        figure = Figure(figsize=(10, 6), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        marker = "o" if len(number) <= 20 else None  # one point alone would draw no line
        blue = {"color": "tab:blue", "marker": marker}
        axes.plot(number, episodes, **blue, alpha=0.35, linewidth=1.5, markersize=10)
        axes.plot(number, running, **blue, linewidth=3, markersize=6)
        axes.legend(["each episode", "running: 0.9 × last + 0.1 × episode"], fontsize=14)
        axes.set_xlim(0, len(number) + 1)
        axes.set_ylim(*_y_range(episodes, running))
        axes.set_title(f"{algorithm} on {env_id}, seed {seed}", fontsize=20, pad=12)
        axes.set_xlabel("Episode", fontsize=16)
        axes.set_ylabel("Reward", fontsize=16)
        axes.tick_params(labelsize=14)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        # No software version in the file: it would change the bytes.
        metadata = {"Software": None}
        write_atomically(path, lambda file: figure.savefig(file, format="png", metadata=metadata))
    return True


def _drawable(rewards):
    """The rewards as floats; what no axis can show (NaN, infinity, 1e300) leaves a gap."""
    rewards = np.array(rewards, dtype=float)
    rewards[~(np.abs(rewards) < 1e100)] = np.nan
    return rewards


def _y_range(episodes, running):
    """Limits of the reward axis: zero and the running curve fill at least a third of it.

    Zero is always shown, or the noise of a run that learned nothing would look like progress.
    An episode far off the running curve leaves the picture instead of flattening it.
    """
    running = np.append(running[np.isfinite(running)], 0.0)
    bottom, top = running.min(), running.max()
    height = (top - bottom) or 1.0
    episodes = np.clip(episodes[np.isfinite(episodes)], bottom - height, top + height)
    bottom, top = min([bottom, *episodes]), max([top, *episodes])
    margin = 0.05 * (top - bottom) or 1.0
    return bottom - margin, top + margin


def matplotlib_parts():
    """Matplotlib's parts that need no display, imported late: playing draws no curve."""
    # Importing matplotlib fails on an unknown MPLBACKEND, which we would not use anyway.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return style, Figure


@contextlib.contextmanager
def new_figure(width, height):
    """A Matplotlib Figure to draw and save in the block, of so many hundred pixels."""
    style, Figure = matplotlib_parts()
    with style.context("default"):
        yield Figure(figsize=(width, height), dpi=100, layout="constrained")


def save_figure(path, figure):
    """Write the figure as a png, without the version of the software: the bytes stay the same."""
    options = {"format": "png", "metadata": {"Software": None}}
    write_atomically(path, lambda file: figure.savefig(file, **options))
