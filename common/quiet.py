"""Nothing but the run on the screen: the packages' own messages are put aside.

TensorFlow's C++ writes its first lines straight to file descriptor 2, before it
looks at any log level: "oneDNN custom operations are on", "Could not find cuda
drivers", "failed call to cuInit". So the imports, and only they, happen with
that descriptor pointing elsewhere; from then on log levels do.
"""

import contextlib
import logging
import os
import sys
import tempfile
import warnings

from common.errors import UserError

# TensorLayer compares with `is`, pygame uses pkg_resources: nothing a reader can change. What
# the Python compiler finds is filed under the path, all else under the name of the module.
_WARNERS = r"(.*[\\/])?(tensorlayer|pygame)([\\/.]|$)"


def prepare(verbose, imported=False):
    """Import TensorFlow and TensorLayer without a word, and keep them silent afterwards.

    Environment variables and Python warning options that are already set win.

    Args:
        verbose: True does nothing at all, and every message appears.
        imported: the script is a library of a program, which may want to hear what else
            TensorFlow's logger says: the logger is left alone.

    Raises:
        UserError: a package is not installed.
        Exception: whatever else an import raised; what it had written is shown first.
    """
    if verbose:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=_WARNERS)
    try:
        with _stderr_aside():
            import tensorflow as tf
            import tensorlayer as tl

            # TensorFlow 2.16 announces XLA at the first compilation, whatever the level. If
            # there is no XLA here, the run will say so, unless it is --eager and needs none.
            with contextlib.suppress(tf.errors.OpError):
                tf.function(lambda: tf.constant(0.0) + 1.0, jit_compile=True, autograph=False)()
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed, run: pip install -r requirements.txt"
        raise UserError(message) from error
    if not imported:
        tf.get_logger().setLevel(logging.ERROR)
    tl.logging.set_verbosity(tl.logging.ERROR)


@contextlib.contextmanager
def _stderr_aside():
    """Point file descriptor 2 to a temporary file; if the block fails, show what it caught."""
    try:
        stderr, caught = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    except OSError:  # closed: nobody is disturbed; or there is no place for a file
        yield
        return
    with caught:
        try:
            os.dup2(caught.fileno(), 2)
            yield
        except Exception as error:
            if not isinstance(error, ModuleNotFoundError):  # which says it all
                caught.seek(0)
                os.write(stderr, caught.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
