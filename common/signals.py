"""Ctrl-C, SIGTERM and a closed terminal stop a run where nothing is lost.

Outside a training they end the script at once, through SystemExit. During one they are noted,
and the next `check()` stops it: a file that is being written, an episode that is being entered
into the books, or the saving at the end is never cut in two.
"""

import contextlib
import math
import signal
import time

PATIENCE = 5.0  # seconds after which a second signal stops a training that reaches no check()


class Stopped(SystemExit):
    """The run was told to stop; its code is 128 plus the signal's number, as in a shell."""


class _State:
    held = False  # a training is going on: signals are noted
    patience = PATIENCE
    noted = None  # the number of the first signal
    since = 0.0  # when it came


def install():
    """Handle the signals so, for the rest of the process; does nothing outside the main thread."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last, a closed terminal, not on Windows
        number = getattr(signal, name, None)
        if number and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):  # nohup
            with contextlib.suppress(ValueError):  # outside the main thread
                signal.signal(number, _handle)


def installed():
    """Whether Ctrl-C is handled so: then it never raises a KeyboardInterrupt."""
    return signal.getsignal(signal.SIGINT) is _handle


def _handle(number, frame):
    hangs = _State.noted and time.monotonic() - _State.since > _State.patience
    if hangs or not _State.held:
        raise Stopped(128 + number)
    if not _State.noted:
        _State.noted, _State.since = number, time.monotonic()


def check():
    """Raise Stopped if a signal has been noted; to be called where a training may stop."""
    if _State.noted:
        raise Stopped(128 + _State.noted)


@contextlib.contextmanager
def held():
    """A block in which signals are only noted; at its end, unless an error passes, it check()s.

    Yields a function: once that is called, nothing stops the process before the end of the
    block, however often it is told.
    """

    def to_the_end():
        _State.patience = math.inf

    _State.held, _State.patience, _State.noted = True, PATIENCE, None
    try:
        yield to_the_end
        _State.held = False  # before the check(), or a signal could come between
        check()
    finally:
        _State.held, _State.noted = False, None
