"""Matplotlib's pictures, the same for every reader, without a display."""

import contextlib

from common.files.whole import write_atomically

_SIZES = {"axes.titlesize": 20, "axes.labelsize": 16, "legend.fontsize": 14, "figure.titlesize": 20,
          "figure.labelsize": 16, "xtick.labelsize": 14, "ytick.labelsize": 14}  # for a slide


@contextlib.contextmanager
def new_figure(width, height):
    """A Matplotlib Figure to draw and save in the block, of so many hundred pixels.

    It needs no display, and whatever stands in a reader's matplotlibrc: all get the same picture.
    """
    from matplotlib import style  # late: playing draws no curve
    from matplotlib.figure import Figure

    with style.context(["default", _SIZES]):
        yield Figure(figsize=(width, height), dpi=100, layout="constrained")


def save_figure(path, figure):
    """Write the figure as a png, without the version of the software: the bytes stay the same."""
    options = {"format": "png", "metadata": {"Software": None}}
    write_atomically(path, lambda file: figure.savefig(file, **options))
