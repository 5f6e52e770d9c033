"""common/tasks/film.py: the film of an episode, small enough for a page, whole or not there."""

import ctypes.util

import imageio.v2
import imageio.v3
import numpy as np
import pytest
import tasks
from commands import python, refusal
from PIL import Image

from common.errors import UserError
from common.files.names import ROOT
from common.flags import Command
from common.process import Stopped
from common.tasks import film as films
from common.tasks.making import make
from common.training.testing import Testing

here, registries = tasks.here, tasks.registries


def moving_square(count, shape=(500, 500, 3)):
    """Frames of a red square that goes to the right, over a background of many colours."""
    height, width, _ = shape
    background = np.zeros(shape, np.uint8)
    background[..., 1] = np.linspace(0, 255, width)[None, :]
    background[..., 2] = np.linspace(0, 255, height)[:, None]
    for number in range(count):
        frame = background.copy()
        left = round((width - 20) * number / max(1, count - 1))
        frame[20:40, left : left + 20] = [255, 0, 0]
        yield frame


def saved(path, frames, fps=30):
    frames = list(frames)
    with open(path, "wb") as file:
        write = films._write_gif if path.suffix == ".gif" else films._write_mp4
        write(file, lambda numbers: (frames[n] for n in numbers), len(frames), fps)
    return path


def read(path):
    """Frames, uint8 (count, height, width, 3), and how long each is shown, in milliseconds."""
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0  # for ever
        durations = []
        for number in range(gif.n_frames):
            gif.seek(number)
            durations.append(gif.info["duration"])
    return imageio.v3.imread(path, index=None), durations


def test_gif(tmp_path):
    path = saved(tmp_path / "film.gif", moving_square(61))
    shown, durations = read(path)
    assert shown.shape == (31, 250, 250, 3)
    assert sum(durations) == 2070  # 31 frames at 15 per second
    assert path.stat().st_size < 1e6
    expected = [frame for number, frame in enumerate(moving_square(61)) if number % 2 == 0]
    for ours, frame in zip(shown, expected, strict=True):
        mean = frame.reshape(250, 2, 250, 2, 3).mean(axis=(1, 3))
        assert np.abs(ours - mean).mean() < 8  # 255 colours for 62500
    assert np.ptp(shown[:, 21:], axis=0).max() == 0  # what stands still does not flicker
    again = saved(tmp_path / "again.gif", moving_square(61))
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(("fps", "step"), [(10, 1), (20, 1), (30, 2), (59.94, 4)])
def test_gif_runs_at_the_episodes_own_speed(fps, step, tmp_path):
    frames = list(moving_square(100, (60, 200, 3)))
    shown, durations = read(saved(tmp_path / "film.gif", frames, fps))
    kept = frames[::-1][::step][::-1]  # the last one is always there
    assert len(shown) == len(durations) == len(kept)
    assert np.abs(np.cumsum(durations) - np.arange(1, len(kept) + 1) * 1000 * step / fps).max() <= 5
    for ours, frame in zip(shown, kept):
        assert np.abs(ours.astype(int) - frame).mean() < 10


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((400, 600), (200, 300)), ((96, 96), (96, 96)), ((501, 1003), (126, 251))],
)
def test_gif_is_shrunk_by_a_whole_number(shape, expected, tmp_path):
    shown, _ = read(saved(tmp_path / "film.gif", moving_square(3, (*shape, 3)), fps=10))
    assert shown.shape == (3, *expected, 3)


def test_white_stays_white_and_what_stands_still_takes_its_time(tmp_path):
    frames = [next(moving_square(1))] * 100 + list(moving_square(2))
    for frame in frames:
        frame[250:] = 255
    shown, durations = read(saved(tmp_path / "film.gif", frames))
    assert (shown[:, 126:] == 255).all()
    assert sum(durations) == 3400  # whatever the writer makes of frames that are the same


@pytest.mark.parametrize("shape", [(240, 320, 3), (101, 75, 3)])
def test_mp4_is_full_size_and_full_rate(shape, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    frames = list(moving_square(31, shape))
    path = saved(tmp_path / "film.mp4", frames, fps=20)
    height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
    shown = imageio.v3.imread(path, plugin="FFMPEG")
    assert shown.shape == (31, height, width, 3)
    for ours, frame in zip(shown, frames):
        assert np.abs(ours[: shape[0], : shape[1]].astype(int) - frame).mean() < 12
    meta = imageio.v3.immeta(path, plugin="FFMPEG")
    assert (meta["fps"], meta["codec"]) == (20, "h264")


def test_an_encoder_that_fails(tmp_path, monkeypatch):
    class Writer:
        def __init__(self, *args, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            raise OSError("Broken pipe\n\nFFMPEG COMMAND:\nffmpeg -y")

        def append_data(self, frame):
            pass

    monkeypatch.setattr(imageio.v2, "get_writer", Writer)
    with pytest.raises(OSError, match=r"^ffmpeg failed"):
        saved(tmp_path / "film.mp4", moving_square(3))


# An environment that is filmed

WALK = '''
import os
import gymnasium, numpy as np

class Walk(gymnasium.Env):
    metadata = {"render_fps": 10}
    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1), {}

    def step(self, action):
        print("step", self.steps)
        self.steps += 1
        return np.zeros(1), float(self.np_random.normal()), self.steps == 3, False, {}

    def render(self):  # a small picture that tells the step
        return np.full((8, 10, 3), 40 + 10 * self.steps, np.uint8)

class Silent(Walk):
    def __init__(self):
        pass

class Blind(Walk):
    def render(self):
        return None

class Dead(Walk):
    def render(self):
        os.abort()

class Leaving(Walk):
    def render(self):
        raise SystemExit(5)

class Drawn(Walk):
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        state, reward, *rest = super().step(action)
        return self.observation_space.sample(), float(self.observation_space.sample()[0]), *rest

class Other(Walk):
    def step(self, action):
        state, reward, *rest = super().step(action)
        return state, os.getpid(), *rest

for kind in Walk, Silent, Blind, Dead, Leaving, Drawn, Other:
    gymnasium.register(f"{kind.__name__}-v0", kind)
'''


@pytest.fixture
def film(here, monkeypatch):
    """A path; the module of the task lies in the current folder."""
    monkeypatch.setattr(films, "START", str(here))
    (here / "filmed_walk.py").write_text(WALK)
    (here / "common.py").write_text("raise SystemExit('a file of the reader')")
    return here / "film.gif"


def play(env, steps):
    env.reset(seed=3)
    for _ in range(steps):
        env.render()
        env.step([0.5])


def test_a_filmed_pendulum(film):
    """In a process without a display."""
    code = (
        "from common.tasks.making import make\n"
        f"env = make('gymnasium:Pendulum-v1', render=True, record={str(film)!r})\n"
        "env.reset(seed=1)\n"
        "for _ in range(200): env.render(); env.step([2.0])\n"
        "env.close()\n"
    )
    done = python(code)
    said = f"Drawing 200 steps ...\nSaved {film}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    frames = imageio.v3.imread(film, index=None)
    assert frames.shape == (101, 250, 250, 3) and film.stat().st_size < 1e6
    assert (frames[:, :10] == 255).all()  # white around a red rod that swings
    red = (frames[..., 0] > 150) & (frames[..., 1] < 120)
    assert red.sum(axis=(1, 2)).min() > 500 and (red[1:] != red[:-1]).any()


def test_each_step_and_the_end_of_the_first_episode(film, capsys):
    env = make("filmed_walk:Walk-v0", record=film)
    for _ in range(2):  # two episodes of three steps
        play(env, 3)
    frames, durations = read(film)
    assert frames.shape == (4, 8, 10, 3) and frames[:, 0, 0, 0].tolist() == [40, 50, 60, 70]
    assert durations == [100] * 4
    film.unlink()
    env.close()
    said = "Drawing 3 steps ...\nSaved film.gif\n"
    out = capsys.readouterr().out.replace(str(film), "film.gif")
    assert out.replace("step 0\nstep 1\nstep 2\n", "") == said  # once
    assert not film.exists()


@pytest.mark.parametrize("steps", [None, 0, 2])
def test_an_episode_that_the_loop_cuts_short(steps, film):
    """Without any episode there is no film."""
    env = make("filmed_walk:Walk-v0", record=film)
    if steps is not None:
        play(env, steps)
    env.close()
    assert film.exists() == (steps is not None)
    assert steps is None or len(read(film)[0]) == steps + 1


@pytest.mark.parametrize("error", [UserError("its step() failed"), Stopped(130)])
def test_an_episode_that_is_broken_off_is_not_drawn(error, film, capsys):
    settings = Command(ROOT / "td3.py").settings(
        {"ENV_ID": "filmed_walk:Walk-v0"}, test=True, record=str(film))
    with pytest.raises(type(error)), Testing(None, make(settings.env_id), settings) as env:
        play(env, 2)
        raise error
    assert not film.exists() and "Drawing" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Silent", "TypeError: "),
        ("Blind", "ValueError: render() gave object of shape (), no picture"),
        ("Dead", "killed by signal 6"),
        ("Leaving", "SystemExit: 5"),
    ],
)
def test_an_environment_that_cannot_be_drawn(name, reason, film):
    """One line says so, after the episode; the old film stays."""
    film.write_text("old")
    env = make(f"filmed_walk:{name}-v0", record=film)
    play(env, 3)
    play(env, 3)  # the test goes on
    message = refusal(env.close)
    assert message.startswith(f"--record: filmed_walk:{name}-v0 cannot be drawn ({reason}")
    assert message.endswith("; leave out --record.")
    assert film.read_text() == "old"


def test_spaces_that_are_drawn_from(film):
    """One seed fixes them, too."""
    env = make("filmed_walk:Drawn-v0", record=film)
    play(env, 3)
    env.close()
    assert film.exists()


def test_an_episode_that_is_another_the_second_time(film):
    env = make("filmed_walk:Other-v0", record=film)
    play(env, 3)
    assert "is another episode with the same seed and actions" in refusal(env.close)


def test_mujoco_draws_without_a_display(film):
    """Beside TensorFlow, whose LLVM the driver's own would meet."""
    pytest.importorskip("mujoco")
    if not ctypes.util.find_library("OSMesa"):
        pytest.skip("no OSMesa")
    code = (
        "import os, tensorflow\n"
        "from common.tasks.making import make\n"
        "for _ in range(2):\n"
        f"    env = make('InvertedPendulum-v5', record={str(film)!r})\n"
        "    env.reset(seed=1); env.step([1.0]); env.close()\n"
        "    os.environ.pop('MUJOCO_GL', None)\n"
    )
    done = python(code, MUJOCO_GL="osmesa")
    assert (done.returncode, done.stdout.count("Saved ")) == (0, 2), done.stderr
    assert imageio.v3.imread(film, index=None).std() > 5
