"""A film of one episode, as an animated GIF for a page or a slide, or as an MP4.

An episode is drawn when it is over, in a process of its own, which plays its actions again:
the OpenGL drivers that draw without a display bring an LLVM, which where TensorFlow has brought
its own ends the process.
"""

import contextlib
import ctypes.util
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from common.errors import START, UserError, one_line
from common.files.names import ROOT
from common.files.whole import write_atomically

# Without the current folder, where a file of the reader's may have the name of one of ours
_PROCESS = "import sys; sys.path.pop(0); from common.tasks import film; film.main()"
_GIF_SIDE = 250  # pixels, of the longer side, about: a picture is shrunk by a whole number
_GIF_FPS = 15  # about, for the same reason


def film(path, env_id, options, actions, total):
    """Write the film of an episode.

    Args:
        path: str or Path of the .gif or .mp4 file; an older one is replaced, whole.
        env_id: as make() takes it.
        options: dict, what the environment's reset() was given, with a seed.
        actions: list of arrays, what its step() was given.
        total: the sum of its rewards.

    Raises:
        UserError: it cannot be drawn or written, or is another episode the second time.
    """
    fewer = " (--max-steps plays fewer)" if len(actions) > 500 else ""
    print(f"Drawing {len(actions)} steps{fewer} ...", flush=True)
    path = Path(path)
    given = {"suffix": path.suffix.lower(), "env_id": env_id, "options": options,
             "actions": [action.tolist() for action in actions], "total": total}
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS], input=json.dumps(given).encode(), cwd=START,
        env=_surroundings(), capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if done.returncode < 0:
            said = (f"--record: {env_id} cannot be drawn (killed by signal {-done.returncode}); "
                    "leave out --record.")
        raise UserError(said)
    write_atomically(path, lambda file: file.write(done.stdout))
    print(f"Saved {one_line(path)}", flush=True)


def _surroundings():
    """The variables of the process that draws: it needs no display."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # SDL: there are environments that open a window to draw anything at all.
    found = {"SDL_VIDEODRIVER": "dummy"}
    if without_display():
        found["MUJOCO_GL"] = "osmesa" if ctypes.util.find_library("OSMesa") else "egl"
    return {**found, **os.environ, "PYTHONPATH": path}


def without_display():
    """Whether this is a Linux without a screen."""
    return (sys.platform.startswith("linux")
            and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _draw(suffix, env_id, options, actions, total):
    """Play an episode again and write its film to stdout, in the process that draws."""
    from common.tasks.making import build

    film = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "w") as nowhere:  # for what the environment prints
        os.dup2(nowhere.fileno(), 1)
    rewards = []
    try:
        try:
            env = build(env_id, "rgb_array")
        except UserError as error:  # it could be made before, so drawing is the reason
            raise (error.__cause__ or error) from None

        if hasattr(env.unwrapped, "mujoco_renderer"):  # a camera that follows, where there is one
            import mujoco

            camera = mujoco.mj_name2id(env.unwrapped.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
            env.unwrapped.mujoco_renderer.camera_id = camera

        def frames(numbers):
            """The frames of these numbers, in turn."""
            for space in env.observation_space, env.action_space:  # as Environment does
                space.seed(options["seed"])
            env.reset(**options)
            for number in range(len(actions) + 1):
                if number in numbers:
                    yield _picture(env.render())
                if number < len(actions):
                    action = np.array(actions[number], env.action_space.dtype)
                    rewards.append(float(env.step(action)[1]))

        fps = env.metadata.get("render_fps") or 30
        write = _write_gif if suffix == ".gif" else _write_mp4
        with film:
            write(film, frames, len(actions) + 1, fps)
        env.close()
    except (Exception, SystemExit) as error:
        step = "leave out --record"
        if "mujoco" in sys.modules and without_display():
            step = ("MuJoCo draws without a display with MUJOCO_GL=osmesa, after apt install "
                    "libosmesa6")
        raise UserError(f"--record: {env_id} cannot be drawn ({one_line(error, kind=True)}); "
                        f"{step}.") from error
    if not np.isclose(sum(rewards), total):
        raise UserError(f"--record: {env_id} is another episode with the same seed and actions, so "
                        "there is no film of that which was tested.")


def _picture(frame):
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"render() gave {frame.dtype} of shape {frame.shape}, no picture")
    return frame


def _write_gif(file, frames, count, fps):
    """Small (Pendulum: 250 x 250 pixels, 15 frames per second), and repeats for ever."""
    from PIL import Image

    step = max(1, round(fps / _GIF_FPS))
    pictures = []
    # Counted from the last frame, which shows how the episode ended.
    for frame in frames(range((count - 1) % step, count, step)):
        # Each pixel is the mean of a square.
        factor = max(1, round(max(frame.shape) / _GIF_SIDE))
        pictures.append(Image.fromarray(frame).reduce(factor))
    # One picture of all, for one palette: with one for each, as imageio and Pillow write it,
    # what stands still would flicker if it has more colours, and take three times the room.
    strip = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures]))
    width, height = pictures[0].size
    boxes = [(0, top, width, top + height) for top in range(0, strip.height, height)]
    first, *others = map(strip.quantize(256).crop, boxes)
    # GIF counts in 10 ms. Rounded one by one, frames of 67 ms would run 5 % fast or slow.
    times = np.rint(np.arange(len(pictures) + 1) * (100 * step / fps)) * 10
    options = {"duration": np.diff(times).astype(int).tolist(), "loop": 0, "optimize": False}
    first.save(file, "GIF", save_all=True, append_images=others, **options)


def _write_mp4(file, frames, count, fps):
    """All frames, in full."""
    import imageio.v2 as imageio

    # Every player takes h264 with colours at half the resolution, so in even sizes.
    options = {"codec": "libx264", "macro_block_size": 2, "ffmpeg_log_level": "quiet", "fps": fps}
    film = io.BytesIO()
    broken = contextlib.suppress(OSError)  # of many lines, and not raised by every failure
    with broken, imageio.get_writer(film, ".mp4", mode="I", **options) as writer:
        for frame in frames(range(count)):
            writer.append_data(frame)
    if b"moov" not in film.getvalue():  # the table of contents, which comes last
        raise OSError(f"ffmpeg failed, perhaps {tempfile.gettempdir()} is full")
    file.write(film.getvalue())


def main():
    """The process that draws: a film on stdout, or a line on stderr."""
    try:
        _draw(**json.load(sys.stdin))
    except UserError as error:
        sys.exit(str(error))
