"""The reward curve of a training run, as a picture for the book's page or a slide."""

import numpy as np

from common.files.figures import new_figure, save_figure


def save(path, episode_reward, running_reward, algorithm, env_id, preset, seed):
    """Draw the chapter's running curve over the faint episode rewards, 1000 x 600 pixels.

    Needs no display, and the same data give the same bytes.

    Args:
        path: the png file, see names.picture_path(); an older picture is replaced.
        episode_reward: sum of the rewards of each episode, of one or more.
        running_reward: as many values, 0.9 * the last one + 0.1 * the episode's.
        algorithm, env_id, preset, seed: for the title; the chapter's preset is not named.

    Raises:
        UserError: the file cannot be written.
    """
    number = np.arange(1, len(episode_reward) + 1)
    with new_figure(10, 6) as figure:
        axes = figure.add_subplot()
        marker = "o" if len(number) <= 20 else None  # one point alone would draw no line
        blue = {"color": "tab:blue", "marker": marker}
        axes.plot(number, episode_reward, **blue, alpha=0.35, linewidth=1.5, markersize=10)
        axes.plot(number, running_reward, **blue, linewidth=3, markersize=6)
        axes.legend(["each episode", "running: 0.9 × last + 0.1 × episode"])
        axes.set_xlim(0, len(number) + 1)
        axes.set_ylim(*_y_range(episode_reward, running_reward))
        constants = "" if preset == "chapter" else f", preset {preset}"
        axes.set_title(f"{algorithm} on {env_id}{constants}, seed {seed}", pad=12)
        axes.set_xlabel("Episode")
        axes.set_ylabel("Reward")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        save_figure(path, figure)


def _y_range(episodes, running):
    """Limits of the reward axis: zero and the running curve fill at least a third of it.

    Zero is always shown, or the noise of a run that learned nothing would look like progress.
    An episode far off the running curve leaves the picture instead of flattening it.
    """
    bottom, top = min([0.0, *running]), max([0.0, *running])
    height = (top - bottom) or 1.0
    shown = np.clip([bottom, top, *episodes], bottom - height, top + height)
    margin = 0.05 * np.ptp(shown) or 1.0
    return shown.min() - margin, shown.max() + margin
