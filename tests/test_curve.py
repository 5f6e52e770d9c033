"""The reward curve appears wherever the training ran, and looks the same."""

import os
import subprocess
import sys

import numpy as np
import pytest

from common.files.names import ROOT
from common.training import curve

TITLE = "TD3", "Pendulum-v1", "chapter", 2


def run_of(episodes):
    """Episode and running rewards of a run that learns, like Pendulum's."""
    rng = np.random.default_rng(0)
    reward = [float(r) for r in -1300 * np.exp(-np.arange(episodes) / 15) + rng.normal(0, 90)]
    running = reward[:1]
    for value in reward[1:]:
        running.append(0.9 * running[-1] + 0.1 * value)
    return reward, running


def pixels(path):
    """The picture as (600, 1000, 3) floats in [0, 1]."""
    from matplotlib import image

    return image.imread(path)[..., :3]


def dark_blue(picture):
    """For each pixel: has it the running curve's colour (also that of its line in the legend)?"""
    return np.abs(picture - np.array([31, 119, 180]) / 255).max(axis=-1) < 0.02


def test_same_data_same_bytes_whatever_the_settings(tmp_path):
    import matplotlib

    path = tmp_path / "new" / "a.png"
    curve.save(str(path), *run_of(100), *TITLE)
    assert pixels(path).shape == (600, 1000, 3)
    assert dark_blue(pixels(path)).sum() > 2000
    mine = {"axes.facecolor": "black", "savefig.bbox": "tight", "savefig.dpi": 30, "font.size": 30}
    with matplotlib.rc_context(mine):
        curve.save(tmp_path / "b.png", *run_of(100), *TITLE)
    assert (tmp_path / "b.png").read_bytes() == path.read_bytes()
    assert matplotlib.__version__.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("preset", "title"),
    [("chapter", "TD3 on Pendulum-v1, seed 2"),
     ("tuned", "TD3 on Pendulum-v1, preset tuned, seed 2")],
)
def test_the_title_names_the_preset(preset, title, monkeypatch):
    drawn = []
    monkeypatch.setattr(curve, "save_figure", lambda path, figure: drawn.append(figure))
    curve.save("any.png", *run_of(30), "TD3", "Pendulum-v1", preset, 2)
    assert drawn[0].axes[0].get_title() == title


def test_one_episode_shows_a_point(tmp_path):
    curve.save(tmp_path / "one.png", [-1300.0], [-1300.0], *TITLE)
    area = np.s_[130:540, 120:]  # the axes, without the legend
    assert dark_blue(pixels(tmp_path / "one.png")[area]).sum() > 30


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reward", [0.0, -1e38, 1e38])
def test_rewards_at_the_limits(tmp_path, reward):
    path = tmp_path / "td3.png"
    curve.save(path, np.full(30, reward), np.full(30, reward), *TITLE)
    assert pixels(path).shape == (600, 1000, 3)


def test_an_outlier_does_not_flatten_the_curve(tmp_path):
    reward, running = run_of(100)
    curve.save(tmp_path / "plain.png", reward, running, *TITLE)
    reward[50] = -1e6
    curve.save(tmp_path / "outlier.png", reward, running, *TITLE)

    def height(name):
        picture = pixels(tmp_path / name)[50:400, 120:990]  # above the legend
        return np.ptp(np.flatnonzero(dark_blue(picture).any(axis=1)))

    assert height("outlier.png") > height("plain.png") / 3


def test_needs_no_display_and_no_pyplot(tmp_path):
    code = """
import sys
from common.training import curve
assert "matplotlib" not in sys.modules
curve.save(sys.argv[1], [-1.0, -2.0], [-1.0, -1.1], "TD3", "Pendulum-v1", "chapter", 2)
assert "matplotlib.pyplot" not in sys.modules
"""
    environ = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "td3.png")], cwd=ROOT, check=True,
                   env={**environ, "MPLBACKEND": "TkAgg"})
    assert (tmp_path / "td3.png").read_bytes().startswith(b"\x89PNG")
