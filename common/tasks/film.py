"""A film of one episode, as an animated GIF for a page or a slide, or as an MP4."""

import contextlib
import io
import tempfile
import zlib
from pathlib import Path

import numpy as np

from common.files.whole import write_atomically

_GIF_SIDE = 250  # pixels, of the longer side, about: a picture is shrunk by a whole number
_GIF_FPS = 15  # about, for the same reason


class Film:
    """The frames of an episode, and the file they go to.

    Args:
        path: str or Path of the .gif or .mp4 file; an older one is replaced, whole.
        fps: how many frames make a second when the episode is shown at its own speed.

    """

    def __init__(self, path, fps):
        self.path = Path(path)
        self.fps = fps
        self._shape = None
        self._frames = []  # compressed: the 201 of Pendulum are 150 MB, and 1.3 MB so

    def add(self, frame):
        """Append a frame, uint8 of shape (height, width, 3), the same for all.

        Raises:
            ValueError: it is something else.
        """
        frame = np.asarray(frame)
        shape = self._shape or (*frame.shape[:2], 3)
        if frame.dtype != np.uint8 or frame.shape != shape:
            raise ValueError(f"{frame.dtype} of shape {frame.shape}, no picture of shape {shape}")
        self._shape = shape
        self._frames.append(zlib.compress(frame.tobytes(), 1))

    def save(self):
        """Write the file, from at least one frame. The same frames give the same bytes of GIF.

        The GIF repeats for ever; it is small (Pendulum: 250 x 250 pixels, 15 frames per
        second). The MP4 has all frames, in full. Both last as long as the episode.

        Raises:
            UserError: the file cannot be written; an older one is left as it was.
        """
        is_gif = self.path.suffix.lower() == ".gif"
        write_atomically(self.path, self._write_gif if is_gif else self._write_mp4)

    def _frame(self, number):
        return np.frombuffer(zlib.decompress(self._frames[number]), np.uint8).reshape(self._shape)

    def _write_gif(self, file):
        from PIL import Image

        count, step = len(self._frames), max(1, round(self.fps / _GIF_FPS))
        factor = max(1, round(max(self._shape[:2]) / _GIF_SIDE))
        # Counted from the last frame, which shows how the episode ended.
        numbers = range((count - 1) % step, count, step)
        # Each pixel is the mean of a square.
        pictures = [Image.fromarray(self._frame(number)).reduce(factor) for number in numbers]
        # One picture of all, for one palette: with one for each, as imageio and Pillow write it,
        # what stands still would flicker if it has more colours, and take three times the room.
        strip = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures]))
        width, height = pictures[0].size
        boxes = [(0, top, width, top + height) for top in range(0, strip.height, height)]
        first, *others = map(strip.quantize(256).crop, boxes)
        # GIF counts in 10 ms. Rounded one by one, frames of 67 ms would run 5 % fast or slow.
        times = np.rint(np.arange(len(pictures) + 1) * (100 * step / self.fps)) * 10
        options = {"duration": np.diff(times).astype(int).tolist(), "loop": 0, "optimize": False}
        first.save(file, "GIF", save_all=True, append_images=others, **options)

    def _write_mp4(self, file):
        import imageio.v2 as imageio

        # Every player takes h264 with colours at half the resolution, so in even sizes.
        options = {"codec": "libx264", "macro_block_size": 2, "ffmpeg_log_level": "quiet"}
        film, options["fps"] = io.BytesIO(), self.fps
        broken = contextlib.suppress(OSError)  # of many lines, and not raised by every failure
        with broken, imageio.get_writer(film, ".mp4", mode="I", **options) as writer:
            for number in range(len(self._frames)):
                writer.append_data(self._frame(number))
        if b"moov" not in film.getvalue():  # the table of contents, which comes last
            raise OSError(f"ffmpeg failed, perhaps {tempfile.gettempdir()} is full")
        file.write(film.getvalue())
