"""What a script prints: every name can be printed, and nobody need be reading it."""

import atexit
import contextlib
import errno
import os
import sys

from common.errors import UserError, one_line

# What writing to a pipe or terminal gives whose other end is closed, and to a full disk.
_CLOSED = {errno.EPIPE, errno.EIO, errno.EBADF, errno.EINVAL if os.name == "nt" else errno.EPIPE}
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def prepare():
    """Set sys.stdout and sys.stderr up, for the rest of the process of a script that is run.

    What the terminal's encoding lacks is printed as an escape (`\\xe9`), every line is written
    at once, where there is no stream at all (`>&-`) print() prints nowhere, and Python does
    not complain at its end of what it could not write.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    atexit.register(_let_go)


def lost(error):
    """Why nothing can be printed any more, if that is what the exception says; else "".

    From then on, what is printed goes nowhere. (Files' errors do not come here as OSError: the
    project raises UserError for them, and open() says which file it was.)
    """
    if not isinstance(error, OSError) or error.filename or error.errno not in _CLOSED | _FULL:
        return ""
    _discard(sys.stdout)
    if error.errno in _CLOSED:
        return "the output was closed"
    return f"the output cannot be written ({os.strerror(error.errno)})"


def say(line):
    """Print a line; raises UserError if it cannot be printed.

    For where the caller would take an OSError for somebody else's.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        raise UserError(lost(error) or str(error)) from error


@contextlib.contextmanager
def bar(**options):
    """A block's progress bar, one of tqdm's, if the output is a terminal; print() goes above it.

    options: of tqdm().
    """
    from tqdm import tqdm  # late: --help need not wait

    # Where the output is no terminal, disable=None shows nothing.
    with tqdm(**options, disable=None, file=sys.stdout, dynamic_ncols=True) as shown:
        above = contextlib.nullcontext()
        if not shown.disable:
            from tqdm.contrib import DummyTqdmFile  # late: it complains in a bare notebook

            above = contextlib.redirect_stdout(DummyTqdmFile(sys.stdout))
        with above:
            yield shown


def _discard(stream):
    """Point a stream's descriptor to where everything can be written."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _let_go():
    """What a stream could not write, Python would try once more at its end, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _discard(stream)


def errors_on_one_line(prog, verbose):
    """From here on a UserError, a lost output or a full memory ends a script with one line."""
    default = sys.excepthook

    def hook(kind, error, traceback):
        line = lost(error)
        if line:
            line += "; the run has stopped: send the output where it can be written"
        elif issubclass(kind, UserError):
            line = one_line(error, limit=2000)
        elif issubclass(kind, MemoryError) or kind.__name__ == "ResourceExhaustedError":
            line = (f"the memory is too small ({one_line(error, limit=200)}): choose a smaller "
                    "--hidden-dim, --batch-size, --replay-buffer-size or --memory-capacity")
        if not line or (verbose and error.__cause__ is not None):
            default(kind, error, traceback)
        if line:
            with contextlib.suppress(OSError):
                print(f"{prog}: {line}", file=sys.stderr)

    sys.excepthook = hook
