"""common/film.py: the film of an episode, small enough for a page, whole or not there."""

import errno
import importlib.machinery
import os
import sys
import types
from pathlib import Path

import imageio.v2
import imageio.v3
import numpy as np
import pytest
from PIL import Image

from common import film, testing
from common.errors import UserError
from common.film import Film


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
    shot = Film(path, fps)
    for frame in frames:
        shot.add(frame)
    shot.save()
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


def refusal(call, *args):
    """The one line with which the call refuses."""
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- which file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "env_id", "record", "expected"),
    [
        ("image", "Pendulum-v1", True, Path("image/td3.gif")),
        ("mine", "ALE/Pong-v5", True, Path("mine/td3_ALE-Pong-v5.gif")),
        ("mine", "Pendulum-v1", "film.mp4", "film.mp4"),
        ("mine", "Pendulum-v1", None, None),
    ],
)
def test_the_usual_film_is_beside_the_curve(folder, env_id, record, expected, monkeypatch):
    opened = []
    env = types.SimpleNamespace(close=lambda: None, seed=lambda seed: None)
    monkeypatch.setattr(testing, "make", lambda env_id, render, record, unit_actions:
                        opened.append(record) or env)
    settings = types.SimpleNamespace(image_dir=folder, env_id=env_id, record=record, seed=2,
                                     task=("TD3", env_id, "chapter"), unit_actions=False)
    testing.Testing(None, env, settings)
    assert opened == [expected]


@pytest.mark.parametrize("name", ["film", "film.png", "film.gif.part", "gif", ".gif", ""])
def test_a_file_that_is_no_film(name):
    for refuse in (film.check, lambda name: Film(name, 30)):
        message = refusal(refuse, name)
        assert message.startswith(f"--record {name}: ") and ".gif or .mp4" in message


def test_what_can_be_written(monkeypatch):
    for name in ("film.gif", Path("a.b/film.GIF")):
        film.check(name)
    package = types.ModuleType("imageio_ffmpeg")
    package.__spec__ = importlib.machinery.ModuleSpec("imageio_ffmpeg", None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", package)
    film.check("film.MP4")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    film.check("film.gif")
    for refuse in (film.check, lambda name: Film(name, 30)):
        assert "pip install imageio-ffmpeg" in refusal(refuse, "film.mp4")


# --- GIF -----------------------------------------------------------------------------------


def test_gif(tmp_path):
    path = saved(tmp_path / "new" / "film.gif", moving_square(61))
    shown, durations = read(path)
    assert shown.shape == (31, 250, 250, 3)
    assert sum(durations) == 2070  # 31 frames at 15 per second
    assert path.stat().st_size < 1e6
    expected = [frame for number, frame in enumerate(moving_square(61)) if number % 2 == 0]
    for ours, frame in zip(shown, expected, strict=True):
        mean = frame.reshape(250, 2, 250, 2, 3).mean(axis=(1, 3))
        assert np.abs(ours - mean).mean() < 8  # 255 colours for 62500
        square = np.all(frame[::2, ::2] == [255, 0, 0], axis=-1) & (mean[..., 0] == 255)
        assert square.sum() >= 90 and (ours[square] - [255, 0, 0]).max() < 8
    assert np.ptp(shown[:, 21:], axis=0).max() == 0  # what stands still does not flicker


@pytest.mark.parametrize(
    ("fps", "step"), [(10, 1), (15, 1), (20, 1), (30, 2), (50, 3), (59.94, 4), (125, 8)]
)
def test_gif_runs_at_the_episodes_own_speed(fps, step, tmp_path):
    frames = list(moving_square(100, (60, 200, 3)))
    shown, durations = read(saved(tmp_path / "film.gif", frames, fps))
    kept = frames[::-1][::step][::-1]  # the last one is always there
    assert len(shown) == len(durations) == len(kept)
    assert np.abs(np.cumsum(durations) - np.arange(1, len(kept) + 1) * 1000 * step / fps).max() <= 5
    assert min(durations) >= 40 and set(durations) <= {40, 50, 60, 70, 80, 100}
    for ours, frame in zip(shown, kept):
        assert np.abs(ours.astype(int) - frame).mean() < 10


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((400, 600), (200, 300)),
        ((480, 480), (240, 240)),
        ((96, 96), (96, 96)),
        ((300, 240), (300, 240)),
        ((501, 1003), (126, 251)),
    ],
)
def test_gif_is_shrunk_by_a_whole_number(shape, expected, tmp_path):
    shown, _ = read(saved(tmp_path / "film.gif", moving_square(3, (*shape, 3)), fps=10))
    assert shown.shape == (3, *expected, 3)


def test_gif_has_means_not_every_other_pixel(tmp_path):
    stripes = np.zeros((500, 500, 3), np.uint8)
    stripes[:, ::2] = 255
    shown, _ = read(saved(tmp_path / "film.gif", [stripes]))
    assert shown.shape == (1, 250, 250, 3)
    assert shown.min() >= 126 and shown.max() <= 129


def test_white_stays_white(tmp_path):
    frames = list(moving_square(4))
    for frame in frames:
        frame[250:] = 255
    shown, _ = read(saved(tmp_path / "film.gif", frames))
    assert (shown[:, 126:] == 255).all()


def test_an_episode_that_stands_still_takes_its_time(tmp_path):
    frames = [next(moving_square(1))] * 100 + list(moving_square(2))
    _, durations = read(saved(tmp_path / "film.gif", frames))
    assert sum(durations) == 3400  # whatever the writer makes of frames that are the same


def test_same_frames_same_bytes(tmp_path):
    a = saved(tmp_path / "a.gif", moving_square(10)).read_bytes()
    assert saved(str(tmp_path / "b.gif"), moving_square(10)) and len(a) > 1000
    assert (tmp_path / "b.gif").read_bytes() == a
    assert saved(tmp_path / "c.gif", list(moving_square(10))[::-1]).read_bytes() != a


# --- frames --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        None,
        "frame",
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((50, 50, 3)),
        np.zeros((2, 50, 50, 3), np.uint8),
        np.zeros((50, 51, 3), np.uint8),  # fine, were it the first
    ],
)
def test_what_is_no_frame(frame, tmp_path):
    shot = Film(tmp_path / "film.gif", 30)
    shot.add(np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(ValueError, match="picture"):
        shot.add(frame)
    shot.save()
    assert len(imageio.v3.imread(shot.path, index=None)) == 1


def test_a_frame_is_copied(tmp_path):
    shot = Film(tmp_path / "film.gif", 30)
    canvas = np.full((60, 50, 3), 255, np.uint8)
    shot.add(canvas.transpose(1, 0, 2))  # as pygame gives it: not contiguous
    canvas[:] = 0
    shot.save()
    shown, _ = read(shot.path)
    assert shown.shape == (1, 50, 60, 3) and (shown == 255).all()


# --- whole or not there --------------------------------------------------------------------


def no_space(self, file, *args, **options):
    file.write(b"GIF89a, the first half")
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(self, file, *args, **options):
    file.write(b"GIF89a, the first half")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("fail", "error"), [(no_space, UserError), (killed, KeyboardInterrupt)])
def test_an_error_leaves_the_old_film(fail, error, tmp_path, monkeypatch):
    path = saved(tmp_path / "film.gif", moving_square(2))
    old = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(error):
            saved(path, moving_square(3))
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["film.gif"]
    saved(path, moving_square(3))
    assert path.read_bytes() != old and os.listdir(tmp_path) == ["film.gif"]


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    message = refusal(saved, tmp_path / "file" / "film.gif", moving_square(1))
    assert str(tmp_path / "file") in message


# --- MP4 -----------------------------------------------------------------------------------


@pytest.fixture
def recorder(monkeypatch):
    """Stands in for imageio's writer: notes what it is given, writes `content`."""

    class Writer:
        content = b"film moov"

        def get_writer(self, file, format, mode, **options):
            self.file, self.format, self.options, self.frames = file, format, options, []
            return self

        def __enter__(self):
            return self

        def append_data(self, frame):
            self.frames.append(frame)

        def __exit__(self, *error):
            self.file.write(self.content)

    writer = Writer()
    monkeypatch.setattr(imageio.v2, "get_writer", writer.get_writer)
    package = types.ModuleType("imageio_ffmpeg")
    package.__spec__ = importlib.machinery.ModuleSpec("imageio_ffmpeg", None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", package)
    return writer


def test_mp4_is_full_size_and_full_rate(recorder, tmp_path):
    frames = list(moving_square(7, (502, 334, 3)))
    path = saved(tmp_path / "film.mp4", frames, fps=59.94)
    assert path.read_bytes() == b"film moov" and recorder.options["fps"] == 59.94
    assert len(recorder.frames) == 7
    for ours, frame in zip(recorder.frames, frames):
        np.testing.assert_array_equal(ours, frame)


@pytest.mark.parametrize("content", [b"", b"half a film"])
def test_an_encoder_that_fails_leaves_the_old_film(content, recorder, tmp_path):
    path = saved(tmp_path / "film.mp4", moving_square(2))
    recorder.content = content
    assert "ffmpeg failed" in refusal(saved, path, moving_square(3))
    assert path.read_bytes() == b"film moov" and os.listdir(tmp_path) == ["film.mp4"]


def test_an_encoder_that_raises_leaves_the_old_film(recorder, tmp_path):
    path = saved(tmp_path / "film.mp4", moving_square(2))

    def append_data(frame):
        raise OSError("Broken pipe\n\nFFMPEG COMMAND:\nffmpeg -y")

    recorder.append_data = append_data
    recorder.content = b""
    assert "ffmpeg failed" in refusal(saved, path, moving_square(3))
    assert path.read_bytes() == b"film moov"


@pytest.mark.parametrize("shape", [(240, 320, 3), (101, 75, 3)])
def test_mp4(shape, tmp_path):
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
    assert meta["duration"] == pytest.approx(31 / 20, abs=0.05)
