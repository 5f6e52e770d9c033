"""The progress bar of a training or a comparison."""

import contextlib
import sys


@contextlib.contextmanager
def bar(**options):
    """A block's progress bar, one of tqdm's, if the output is a terminal; print() goes above it."""
    from tqdm import tqdm

    with tqdm(file=sys.stdout, disable=None, dynamic_ncols=True, **options) as shown:
        above = contextlib.nullcontext()
        if not shown.disable:
            from tqdm.contrib import DummyTqdmFile  # late: it complains in a bare notebook

            above = contextlib.redirect_stdout(DummyTqdmFile(sys.stdout))
        with above:
            yield shown
