"""Ctrl-C, SIGTERM and a closed terminal stop a run where nothing is lost.

Outside a training they end the script at once, through SystemExit. During one they are noted,
and the next `check()` stops it: a file that is being written, an episode that is being entered
into the books, or the saving at the end is never cut in two.
"""

import math
import signal
import threading
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
    if threading.current_thread() is not threading.main_thread():
        return  # Python allows it nowhere else
    signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGTERM, _handle)
    hangup = getattr(signal, "SIGHUP", None)  # the terminal was closed; not on Windows
    if hangup and signal.getsignal(hangup) is not signal.SIG_IGN:  # nohup ignores it
        signal.signal(hangup, _handle)


def installed():
    """Whether Ctrl-C is handled so: then it never raises a KeyboardInterrupt."""
    return signal.getsignal(signal.SIGINT) is _handle


def _handle(number, frame):
    if not _State.held:
        raise Stopped(128 + number)
    if _State.noted is None:
        _State.noted, _State.since = number, time.monotonic()
    elif time.monotonic() - _State.since > _State.patience:  # something hangs
        raise Stopped(128 + number)


def check():
    """Raise Stopped if a signal has been noted; to be called where a training may stop."""
    if _State.noted is not None:
        raise Stopped(128 + _State.noted)


def hold():
    """From here on, signals are only noted."""
    _State.held, _State.patience, _State.noted = True, PATIENCE, None


def hold_to_the_end():
    """From here on nothing stops the process before release(), however often it is told."""
    _State.patience = math.inf


def release():
    """Signals end the script at once again. Returns Stopped if one was noted, else None."""
    noted, _State.held, _State.noted = _State.noted, False, None
    return None if noted is None else Stopped(128 + noted)
