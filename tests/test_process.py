"""common/process.py: what a script shows, and what stops it. TensorFlow is a stand-in here."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest

from common import process
from common.errors import UserError
from common.files.names import ROOT

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX's signals and pipes")

# Stand-ins that import at once. {0} is what happens at the end of TensorFlow's import.
TENSORFLOW = """
import logging, os, types
os.write(2, b"noise of C++\\n")
constant = float
class _Config:
    def floatx(): return os.environ.get("FLOATX", "float32")
    def backend(): return os.environ["KERAS_BACKEND"]
keras = types.SimpleNamespace(
    __version__="2.15" if os.environ.get("TF_USE_LEGACY_KERAS") == "1" else "3.15", config=_Config,
    backend=types.SimpleNamespace(set_floatx=lambda kind: os.environ.update(FLOATX=kind)))
errors = types.SimpleNamespace(OpError=ZeroDivisionError)
def function(f, **options):
    os.write(2, b"noise of XLA\\n")
    return f
def get_logger():
    return logging.getLogger("tensorflow")
{0}
"""
TENSORLAYER = """
import types
logging = types.SimpleNamespace(ERROR=40, set_verbosity=lambda level: None)
"""
SCRIPT = """
from common import flags, process
from common.errors import UserError
import os, signal, sys, time

ALG_NAME = "X"
ENV_ID = "Pendulum-v1"
args = flags.parse(globals())
"""


@pytest.fixture
def start(tmp_path):
    """Start a script of these lines behind SCRIPT; `ending` ends TensorFlow's import."""

    def start(code, *words, ending="", options=(), shell=None, stdout=subprocess.PIPE,
              stderr=subprocess.PIPE, module=False, **variables):
        packages = tmp_path / "packages"
        packages.mkdir(exist_ok=True)
        (packages / "tensorflow.py").write_text(TENSORFLOW.replace("{0}", ending))
        (packages / "tensorlayer.py").write_text(TENSORLAYER)
        (tmp_path / "mine.py").write_text(SCRIPT + code, encoding="utf-8")
        ours = ("PYTHONWARNINGS", "PYTHONDEVMODE", "TF_CPP_MIN_LOG_LEVEL",
                "PYGAME_HIDE_SUPPORT_PROMPT", "XLA_FLAGS", "TF_XLA_FLAGS")
        env = {key: value for key, value in os.environ.items() if key not in ours}
        env |= {"PYTHONPATH": os.pathsep.join(map(str, (packages, ROOT))),
                "PYTHONIOENCODING": "utf-8"} | variables
        command = [sys.executable, *options, str(tmp_path / "mine.py"), "--train", *words]
        if module:
            command = [sys.executable, "-c", "import mine"]
            env["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
        if shell:
            command = ["bash", "-c", shell.format(" ".join(command))]
        return subprocess.Popen(command, env=env, stdout=stdout, stderr=stderr, text=True,
                                encoding="utf-8", cwd=tmp_path)

    return start


@pytest.fixture
def run(start):
    """The same to the end: (exit status, stdout, stderr)."""

    def run(*args, **settings):
        process = start(*args, **settings)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return run


# What is shown


@pytest.mark.parametrize(
    ("code", "ending", "status", "out", "err"),
    [
        # only the imports are redirected
        ("os.write(2, b'C++ later,'); print('me', file=sys.stderr)", "", 0, "",
         "C\\+\\+ later,me\n"),
        # a failed import shows what was held back
        ("", "raise ImportError('the DLL is broken')", 1, "",
         "noise of C\\+\\+\nTraceback(.|\n)*ImportError: the DLL is broken\n"),
        ("", "import opencv_is_not_here", 1, "",
         "mine.py: opencv_is_not_here is not installed, run: pip install -r requirements.txt\n"),
        ("", "raise SystemExit(130)", 130, "", ""),
        # no XLA is left to the run
        ("", "def function(f, **options): return lambda: 1 / 0", 0, "", ""),
        ("print('PYGAME_HIDE_SUPPORT_PROMPT' in os.environ)", "", 0, "True\n", ""),
    ],
)
def test_what_is_heard_of_the_imports(code, ending, status, out, err, run):
    found = run(code, ending=ending)
    assert found[:2] == (status, out) and re.fullmatch(err, found[2])


def test_what_is_asked_for_appears(run):
    assert run("", "--verbose", ending="")[2] == "noise of C++\nnoise of XLA\n"
    assert "noise of C++" in run("import tensorflow", "--verbose")[2]
    code = "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert run(code, TF_CPP_MIN_LOG_LEVEL="0")[1] == "0\n"


WARN = """
import warnings
warnings.warn_explicit("is", SyntaxWarning, "/lib/tensorlayer/models/core.py", 1)
warnings.warn_explicit("is", SyntaxWarning, r"C:\\lib\\tensorlayer\\models\\core.py", 1)
warnings.warn_explicit("api", UserWarning, "/lib/pkgdata.py", 1, module="pygame.pkgdata")
warnings.warn_explicit("mine", UserWarning, "/book/pygame_player.py", 1)
"""


def test_only_warnings_of_the_packages_are_ignored(run):
    err = run(WARN)[2]
    assert err.count("Warning:") == 1 and "UserWarning: mine" in err
    assert run(WARN, options=["-W", "always"])[2].count("Warning:") == 4


@pytest.mark.slow
def test_the_packages_themselves_are_silent_unless_asked():
    """By itself TensorFlow has oneDNN, and says so, on some processors only."""
    code = (
        "import sys\nfrom common import process\n"
        "process.import_quietly('--verbose' in sys.argv, True)\n"
        "import tensorflow as tf, tensorlayer as tl\n"
        "inputs = tl.layers.Input([None, 3])\n"
        "net = tl.models.Model(inputs, tl.layers.Dense(4, act=tf.nn.relu)(inputs))\n"
        "update = tf.function(lambda x: tf.reduce_mean(net(x)), jit_compile=True)\n"
        "net.train()\n"
        "for size in range(1, 8): update(tf.ones([size, 3]))\n"  # so often makes TensorFlow warn
    )
    env = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    env |= {"TF_ENABLE_ONEDNN_OPTS": "1"}
    quiet, verbose = (
        subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=env,
                       capture_output=True, text=True)
        for words in ([], ["--verbose"])
    )
    assert (quiet.stdout, quiet.stderr, quiet.returncode) == ("", "", 0)
    for part in ("oneDNN", "Compiled cluster using XLA", "WARNING:tensorflow:"):
        assert part in verbose.stderr


# How a script ends

CAUSED = """
try:
    [][0]
except IndexError as error:
    raise UserError("nothing there:\\n run --train") from error
"""


def test_a_user_error_is_one_line_and_verbose_shows_what_it_came_from(run):
    assert run(CAUSED) == (1, "", "mine.py: nothing there: run --train\n")
    status, _, err = run(CAUSED, "--verbose")
    assert status == 1 and "IndexError: list index out of range" in err
    assert err.endswith("\nmine.py: nothing there: run --train\n")


def test_too_little_memory_names_the_flags(run):
    status, _, err = run("raise MemoryError('1 TiB')")
    assert status == 1 and err.startswith("mine.py: the memory is too small (1 TiB): choose a ")


def test_any_other_error_has_its_traceback(run):
    status, _, err = run("raise ValueError('a bug')")
    assert status == 1 and err.startswith("Traceback") and err.endswith("ValueError: a bug\n")


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 1)])
def test_a_signal_leaves_through_finally(start, number):
    # short sleeps: a signal just before the system's call would be seen after it
    process = start("try: print('ready'); [time.sleep(0.01) for _ in range(6000)]\n"
                    "finally: print('left')\n")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("left\n", "")
    assert process.returncode == 128 + number


NOTED = "\nStopping after this episode; a second Ctrl-C stops at once.\n"


@posix
@pytest.mark.parametrize(("second", "status"), [("", 130), ("SIGINT", 130), ("SIGTERM", 143)])
def test_the_first_signal_in_a_training_is_noted_and_the_second_ends_it(run, second, status):
    code = """
with process.signals_noted():
    print("begun")
    os.kill(os.getpid(), signal.SIGINT)
    print("played to its end")
    {}
    process.stop_if_told()
    print("never")
"""
    again = f"os.kill(os.getpid(), signal.{second}); print('never')" if second else ""
    err = NOTED + "\nStopped at once; what was saved last stays for --resume.\n" * bool(second)
    assert run(code.format(again)) == (status, "begun\nplayed to its end\n", err)


@posix
def test_a_signal_after_a_training_ends_the_script_at_once(run):
    code = """
with process.signals_noted():
    os.kill(os.getpid(), signal.SIGTERM)
process.stop_if_told()
print("trained")
os.kill(os.getpid(), signal.SIGTERM)
print("never")
"""
    assert run(code) == (143, "trained\n", "")


@posix
def test_where_the_terminal_is_gone_the_episode_is_played_to_its_end(start, tmp_path):
    code = f"""
with process.signals_noted():
    print("begun")
    with open({str(tmp_path / "saved")!r}, "w") as file:
        try:
            while True: process.stop_if_told()
        except process.Stopped:
            print("to nobody")
        file.write("saved")
    process.stop_if_told()
"""
    master, terminal = os.openpty()
    child = start(code, stdout=terminal, stderr=terminal)
    os.close(terminal)
    with os.fdopen(master, "rb", buffering=0) as screen:
        assert screen.readline() == b"begun\r\n"  # the end of a line is written by itself
    child.send_signal(signal.SIGHUP)
    assert child.wait(30) == 129 and (tmp_path / "saved").read_text() == "saved"


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_an_environment_forks_ends_as_any_process_does(run, number):
    """With our handlers it would note the signal, and whoever waits for it would hang."""
    code = f"""
begun, begins = os.pipe()
with process.signals_noted():
    child = os.fork()
    if not child:
        try: os.write(begins, b"."); [time.sleep(0.01) for _ in range(3000)]
        except KeyboardInterrupt: os._exit(7)
        os._exit(0)
    os.read(begun, 1)
    os.kill(child, {int(number)})
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status)
"""
    assert run(code) == (0, "7\n" if number == signal.SIGINT else "-15\n", "")


@posix
def test_nohup_is_respected(run):
    code = "os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    assert run(code, shell="nohup {}")[:2] == (0, "goes on\n")


@posix
def test_a_closed_pipe_ends_the_run_quietly(run):
    code = "while True: print('line')\n"
    assert run(code, shell="{} | head -1; exit ${{PIPESTATUS[0]}}") == (1, "line\n", "")


def test_every_name_can_be_printed(run):
    code = "print('\u00e9', '\\udcff')"
    assert run(code, PYTHONIOENCODING="ascii") == (0, "\\xe9 \\udcff\n", "")


# Which library multiplies matrices


@pytest.mark.parametrize(("flags", "version", "given", "chosen"), [
    ("fpu avx sse4_2", "2.21.0", None, process._WITHOUT_YNNPACK),
    ("fpu avx sse4_2", "2.21.0", "--mine", "--mine"),
    ("fpu avx sse4_2", "2.20.0", None, None),
    ("fpu avx fma avx2", "2.21.0", None, None),
    ("fpu sse4_2", "2.21.0", None, None),
    (None, "2.21.0", None, None),  # another system
])
def test_products_where_a_processor_has_no_fma(flags, version, given, chosen, tmp_path,
                                               monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda package: version)
    monkeypatch.setenv("XLA_FLAGS", given or "")
    if given is None:
        monkeypatch.delenv("XLA_FLAGS")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"model name\t: X\nflags\t\t: {flags}\n")
    refused = pytest.raises(UserError, match="has no AVX")
    with refused if flags == "fpu sse4_2" else contextlib.nullcontext():
        process.choose_products(tmp_path / "cpuinfo")
    assert os.environ.get("XLA_FLAGS") == chosen


@pytest.mark.parametrize(("venv", "step"), [(False, "pip"), (True, ".*activate$")])
def test_a_missing_package_is_said_before_any_is_imported(venv, step, tmp_path, monkeypatch):
    """Where there is an environment, the step is to activate it."""
    monkeypatch.setattr(process, "_PACKAGES", ("sys", "not_here"))
    monkeypatch.setattr(process, "__file__", str(tmp_path / "common" / "process.py"))
    if venv:
        (tmp_path / ".venv").mkdir()
    for verbose in (False, True):
        with pytest.raises(UserError, match=rf"^not_here is not installed, run: {step}"):
            process.import_quietly(verbose)


# Other people's settings and files


def test_a_script_sets_its_own_process_right(run):
    code = """
for name in "KERAS_BACKEND", "TF_USE_LEGACY_KERAS", "FLOATX", "MPLBACKEND":
    print(os.environ.get(name))
"""
    wrong = {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1", "FLOATX": "float64",
             "MPLBACKEND": "Qt4Agg", "PYTHONWARNINGS": "error"}
    assert run(code, ending="import warnings; warnings.warn('old')", **wrong) == (
        0, "tensorflow\n0\nfloat32\nNone\n", "")


@pytest.mark.parametrize(("wrong", "said"), [
    ({"KERAS_BACKEND": "jax"}, "the backend jax"),
    ({"TF_USE_LEGACY_KERAS": "1"}, "version 2"),
    ({"FLOATX": "float16"}, "numbers of float16"),
    ({}, ""),
])
def test_a_program_that_imports_a_script_is_told(wrong, said, run, tmp_path):
    variables = {"KERAS_BACKEND": "tensorflow"} | wrong
    done = run("", module=True, **variables)
    assert (done[0] != 0, said in done[2], "Keras has" in done[2]) == (
        bool(said), True, bool(said)), done


@pytest.mark.parametrize("name", ["queue", "matplotlib"])
def test_a_file_that_hides_a_module_is_named(name, run, tmp_path):
    file = tmp_path / f"{name}.py"
    file.write_text("x = 1\n")
    uses = {"queue": "SimpleQueue", "matplotlib": "figure"}[name]
    line = f"mine.py: {file} hides Python's or a package's {name}: rename it\n"
    assert run("", ending=f"import {name}; {name}.{uses}") == (1, "", line)


def test_a_file_that_hides_nothing_is_left_alone(run, tmp_path):
    (tmp_path / "mine_too.py").write_text("x = 1\n")
    status, _, err = run("", ending="import mine_too; mine_too.y")
    assert status == 1 and "Traceback" in err and "rename it" not in err


def test_what_xla_says_of_its_flags_is_heard(run):
    assert run("", XLA_FLAGS="--no_such_flag")[2] == "noise of C++\nnoise of XLA\n"


def test_ctrl_c_during_the_imports_is_the_systems(start):
    process = start("", ending="print('importing', flush=True); import time; time.sleep(60)")
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert (process.wait(10), process.stderr.read()) == (-signal.SIGINT, "")


def test_a_full_disk_of_tensorflows_is_called_so(run):
    code = """
class ResourceExhaustedError(Exception): pass
raise ResourceExhaustedError("runs/events; No space left on device")
"""
    assert run(code) == (1, "", "mine.py: the disk is full (runs/events; No space left on device): "
                                "free some space\n")
