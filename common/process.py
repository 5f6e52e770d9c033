"""The process of a script: what it shows, and what stops it.

Outside a training, Ctrl-C, SIGTERM and a closed terminal end a script at once. During one, the
first of them is noted, and the episode is played to its end; the second ends the script at once.
"""

import atexit
import contextlib
import gc
import importlib.util
import logging
import os
import signal
import sys
import warnings
from importlib.machinery import PathFinder
from pathlib import Path

from common.errors import UserError, one_line

# TensorLayer compares with `is`, pygame uses pkg_resources: nothing a reader can change. What
# the Python compiler finds is filed under the path, all else under the name of the module.
_WARNERS = r"(.*[\\/])?(tensorlayer|pygame)([\\/.]|$)"

_PACKAGES = "numpy", "tensorflow", "tensorlayer", "gym", "gymnasium", "matplotlib", "filelock"
_WITHOUT_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type=reduce"  # a list without products


class Stopped(SystemExit):
    """The run was told to stop; its code is 128 plus the signal's number, as in a shell."""


class _Signals:
    importing = True  # the script's imports are not over
    held = False  # a training is going on
    noted = None  # the number of the first signal during it
    terminals = ()  # which of the descriptors 1 and 2 are one; a closed one no longer says so


def prepare(prog, verbose=False):
    """Set up the streams and the last line of the process of a script that is run.

    From here on a UserError ends it with one line on stderr, a closed output without a word, and
    Ctrl-C as the system has it, until take_signals(): an import might swallow an exception.

    Args:
        prog: the script's name, with which its lines on stderr begin.
        verbose: show tracebacks, too.
    """
    for stream in sys.stdout, sys.stderr:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    _Signals.terminals = [number for number in (1, 2) if os.isatty(number)]
    sys.excepthook = _one_line_hook(prog, verbose, sys.excepthook)
    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def take_signals():
    """The imports are over: signals end a training after its episode, anything else at once."""
    _Signals.importing = False
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last, a closed terminal, not on Windows
        number = getattr(signal, name, None)
        if number and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):  # nohup
            with contextlib.suppress(ValueError):  # outside the main thread
                signal.signal(number, _handle)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)


def _handle(number, frame):
    if _Signals.noted:
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopped at once; what was saved last stays for --resume.\n")
    if not _Signals.held or _Signals.noted:
        raise Stopped(128 + number)
    _Signals.noted = number
    with contextlib.suppress(OSError):
        if number == signal.SIGINT:
            os.write(2, b"\nStopping after this episode; a second Ctrl-C stops at once.\n")
        elif number != signal.SIGTERM:  # the terminal is gone
            _discard(*_Signals.terminals)


def _in_child():
    """A process that an environment forks ends as any other does."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number and signal.getsignal(number) is _handle:
            python = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if python else signal.SIG_DFL)


@contextlib.contextmanager
def signals_noted():
    """A block in which the first signal is only noted: see stop_if_told()."""
    _Signals.held, _Signals.noted = True, None
    try:
        yield
    finally:
        _Signals.held, _Signals.noted = False, None


def stop_if_told():
    """Raise Stopped if a signal has been noted."""
    if _Signals.noted:
        raise Stopped(128 + _Signals.noted)


def _discard(*descriptors):
    with open(os.devnull, "w") as nowhere:
        for number in descriptors:
            os.dup2(nowhere.fileno(), number)


def _one_line_hook(prog, verbose, default):
    def hook(kind, error, traceback):
        line = ""
        if issubclass(kind, BrokenPipeError):
            _discard(1, 2)  # or Python would complain at its end
            return
        if issubclass(kind, UserError):
            line = one_line(error, limit=2000)
        elif issubclass(kind, MemoryError) or kind.__name__ == "ResourceExhaustedError":
            line = (f"the memory is too small ({one_line(error, limit=200)}): choose a smaller "
                    "--hidden-dim, --batch-size, --replay-buffer-size or --memory-capacity")
            if "No space left" in str(error):  # as TensorFlow calls it
                line = f"the disk is full ({one_line(error, limit=200)}): free some space"
        elif _Signals.importing:
            line = _hiding_file()
        if not line or (verbose and error.__cause__ is not None):
            default(kind, error, traceback)
        if line:
            print(f"{prog}: {line}", file=sys.stderr)

    return hook


def choose_products(cpuinfo="/proc/cpuinfo"):
    """Before TensorFlow's import: which library multiplies XLA's matrices.

    TensorFlow 2.21 takes YNNPACK, which on a processor with AVX and no FMA takes three times as
    long as oneDNN, the library of before. Elsewhere the two are level.

    Raises:
        UserError: the processor has no AVX, without which TensorFlow aborts.
    """
    from importlib import metadata  # late, with all that it imports: see _hiding_file()

    with contextlib.suppress(OSError, metadata.PackageNotFoundError):
        with open(cpuinfo, encoding="utf-8") as file:
            found = next((line.split() for line in file if line.startswith("flags")), [])
        if found and "avx" not in found:
            raise UserError("this processor has no AVX, which TensorFlow needs: use another one")
        if found and "fma" not in found and metadata.version("tensorflow").startswith("2.21."):
            # others might not know the flag, and abort
            os.environ.setdefault("XLA_FLAGS", _WITHOUT_YNNPACK)


def import_quietly(verbose, own=False):
    """Import TensorFlow and TensorLayer without a word, and keep them silent afterwards.

    TensorFlow's C++ writes its first lines straight to descriptor 2, before it looks at any log
    level. So the imports, and only they, happen with that descriptor pointing elsewhere, unless
    XLA_FLAGS is set, for which XLA may abort. A script that is run sets Keras, Matplotlib and
    Python's warnings right for itself; a program that imports one is told what is wrong.

    Args:
        verbose: True shows every message.
        own: the process is a script's own, and not a program's, whose settings stay.

    Raises:
        UserError: a package is not installed or hidden by a file, or Keras is set otherwise.
        Exception: whatever else an import raised; what it had written is shown first.
    """
    for name in _PACKAGES:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise UserError(_not_installed(name))
    if own:
        os.environ.update(KERAS_BACKEND="tensorflow", TF_USE_LEGACY_KERAS="0")
        os.environ.pop("MPLBACKEND", None)  # a notebook's, or one of long ago; pictures need none
        if any(option.startswith("error") for option in sys.warnoptions):
            warnings.simplefilter("default")  # or a package's first warning would end the run
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        if not sys.warnoptions:
            warnings.filterwarnings("ignore", module=_WARNERS)
    collects = gc.isenabled()
    gc.disable()  # what is imported stays: to look through it again and again takes 0.7 s
    loud = verbose or os.environ.get("XLA_FLAGS") not in (None, _WITHOUT_YNNPACK)
    try:
        with contextlib.nullcontext() if loud else _stderr_aside():
            import tensorflow as tf
            import tensorlayer as tl

            # TensorFlow 2.16 announces XLA at the first compilation, whatever the level. If
            # there is no XLA here, the run will say so, unless it is --eager and needs none.
            with contextlib.suppress(tf.errors.OpError):
                tf.function(lambda: tf.constant(0.0) + 1.0, jit_compile=True, autograph=False)()
    except ModuleNotFoundError as error:
        if _hiding_file():
            raise
        raise UserError(_not_installed(error.name)) from error
    finally:
        if collects:
            gc.enable()
    if own:
        gc.freeze()
        atexit.register(gc.freeze)  # nor at the end: another second
        tf.keras.backend.set_floatx("float32")  # ~/.keras/keras.json may have another
    _check_keras(tf.keras)
    if not verbose:
        if own:
            tf.get_logger().setLevel(logging.ERROR)
        tl.logging.set_verbosity(tl.logging.ERROR)


def _not_installed(name):
    step = "pip install -r requirements.txt"
    venv = Path(__file__).parent.parent / ".venv"
    if venv.is_dir() and Path(sys.prefix).resolve() != venv.resolve():
        step = ".venv\\Scripts\\activate" if os.name == "nt" else "source .venv/bin/activate"
    return f"{name} is not installed, run: {step}"


def _hiding_file():
    """A line on a file beside the script that was imported in place of another module, or ""."""
    here = sys.path[0]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file in (os.path.join(here, f"{name}.py"), os.path.join(here, name, "__init__.py")) and (
                PathFinder.find_spec(name, sys.path[1:])):
            return f"{file} hides Python's or a package's {name}: rename it"
    return ""


def _check_keras(keras):
    """Raise UserError unless Keras 3 computes with TensorFlow, in float32."""
    wrong = ""
    if not keras.__version__.startswith("3."):
        wrong = "version 2 (TF_USE_LEGACY_KERAS is set)"
    elif keras.config.backend() != "tensorflow":
        wrong = f"the backend {keras.config.backend()} (KERAS_BACKEND or ~/.keras/keras.json)"
    elif keras.config.floatx() != "float32":
        wrong = f"numbers of {keras.config.floatx()} (set_floatx or ~/.keras/keras.json)"
    if wrong:
        raise UserError(f"Keras has {wrong}: the agents need Keras 3, TensorFlow and float32")


@contextlib.contextmanager
def _stderr_aside():
    """Point file descriptor 2 to a temporary file; if the block fails, show what it caught."""
    import tempfile  # late, with all that it imports: see _hiding_file()

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
            if not (isinstance(error, ModuleNotFoundError) or _hiding_file()):  # that says it all
                caught.seek(0)
                os.write(stderr, caught.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
