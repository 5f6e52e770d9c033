"""Only the run is on the screen, and nothing that matters is lost on the way."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What td3.py and sac.py do with the packages, in short.
RUN = """
from common import quiet
import sys

quiet.prepare(verbose="--verbose" in sys.argv)

import tensorflow as tf
import tensorlayer as tl
import tensorflow_probability as tfp

inputs = tl.layers.Input([None, 3])
net = tl.models.Model(inputs, tl.layers.Dense(4, act=tf.nn.relu)(inputs))
net.train()
update = tf.function(lambda x: tf.reduce_mean(net(x)), jit_compile=True, autograph=False)
for size in range(1, 8):  # tracing anew so often makes TensorFlow warn
    update(tf.ones([size, 3]))
tfp.distributions.Normal(0.0, 1.0).sample((3,), seed=(1, 2))
"""

# Stand-ins that import at once. {0} is what happens at the end of TensorFlow's import.
TENSORFLOW = """
import contextlib, logging, os, types
with contextlib.suppress(OSError):
    os.write(2, b"noise of C++\\n")
constant = float
errors = types.SimpleNamespace(OpError=ZeroDivisionError)
def function(f, **options):
    with contextlib.suppress(OSError):
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


@pytest.fixture
def python(tmp_path):
    """Run a script where nobody has asked for logs; returns the finished process."""

    def run(code, *args, options=(), **variables):
        (tmp_path / "script.py").write_text(code, encoding="utf-8")
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONWARNINGS", "PYTHONDEVMODE")}
        for name in ("TF_CPP_MIN_LOG_LEVEL", "PYGAME_HIDE_SUPPORT_PROMPT"):
            env.pop(name, None)
        # The script's own folder, with the stand-ins if there are any, comes before PYTHONPATH.
        env |= {"PYTHONPATH": str(ROOT)} | variables
        command = [sys.executable, *options, str(tmp_path / "script.py"), *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def fake(python, tmp_path):
    """As `python`, with stand-ins of the packages; `ending` ends TensorFlow's import."""

    def run(code, *args, ending="", **settings):
        (tmp_path / "tensorflow.py").write_text(TENSORFLOW.format(ending))
        (tmp_path / "tensorlayer.py").write_text(TENSORLAYER)
        return python(code, *args, **settings)

    return run


# By itself TensorFlow has oneDNN, and says so, on some processors only. The flag is for all.
NOISY = {"TF_ENABLE_ONEDNN_OPTS": "1"}
PREPARE = "from common import quiet\nquiet.prepare(verbose=False)\n"


def test_the_packages_are_silent(python):
    done = python(RUN, **NOISY)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.slow
def test_verbose_silences_nothing(python):
    done = python(RUN, "--verbose", **NOISY)
    assert done.returncode == 0
    for part in ("oneDNN", "Compiled cluster using XLA", "WARNING:tensorflow:"):
        assert part in done.stderr


CASES = {  # what runs, how TensorFlow's import ends, then stdout, stderr and exit status
    "only the imports are redirected": (
        PREPARE + "import os, sys; os.write(2, b'C++ later,'); print('me', file=sys.stderr)",
        "", "", "C\\+\\+ later,me\n", 0),
    "a failed import shows what was held back": (
        PREPARE, "raise ImportError('the DLL is broken')",
        "", "noise of C\\+\\+\nTraceback(.|\n)*ImportError: the DLL is broken\n", 1),
    "stderr is back after a failed import": (
        "import os\nfrom common import quiet\ntry: quiet.prepare(False)\n"
        "except ImportError: os.write(2, b'back')",
        "raise ImportError", "", "noise of C\\+\\+\nback", 0),
    "leaving during the imports is silent": (PREPARE, "raise SystemExit(130)", "", "", 130),
    "no XLA is left to the run": (
        PREPARE, "def function(f, **options): return lambda: 1 / 0", "", "", 0),
    "a closed stderr does no harm": (
        "import os; os.close(2)\n" + PREPARE + "print('runs')", "", "runs\n", "", 0),
    "no place for a file does no harm": (  # rather noisy than not at all
        "import tempfile; tempfile.tempdir = 'nowhere/at/all'\n" + PREPARE,
        "", "", "noise of C\\+\\+\n(.|\n)*", 0),
    "pygame does not greet": (
        PREPARE + "import os; print('PYGAME_HIDE_SUPPORT_PROMPT' in os.environ)",
        "", "True\n", "", 0),
}


@pytest.mark.parametrize(("code", "ending", "out", "err", "status"), CASES.values(), ids=CASES)
def test_what_is_heard_of_the_imports(code, ending, out, err, status, fake):
    done = fake(code, ending=ending)
    assert re.fullmatch(err, done.stderr), done.stderr
    assert (done.stdout, done.returncode) == (out, status)


def test_a_missing_package_is_one_line(fake):
    code = "from common import arguments\nENV_ID = 'Pendulum-v1'  # task\n"
    code += "arguments.parse(__file__, __name__)\n"
    done = fake(code, "--train", ending="import opencv_is_not_here")
    expected = "opencv_is_not_here is not installed, run: pip install -r requirements.txt"
    assert (done.stderr, done.returncode) == (f"script.py: {expected}\n", 1)


WARN = """
import warnings
warnings.warn_explicit("is", SyntaxWarning, "/lib/tensorlayer/models/core.py", 1)
warnings.warn_explicit("is", SyntaxWarning, r"C:\\lib\\tensorlayer\\models\\core.py", 1)
warnings.warn_explicit("api", UserWarning, "/lib/pkgdata.py", 1, module="pygame.pkgdata")
warnings.warn_explicit("mine", UserWarning, "/book/pygame_player.py", 1)
"""


def test_only_warnings_of_the_packages_are_ignored(fake):
    done = fake(PREPARE + WARN)
    assert done.stderr.count("Warning:") == 1
    assert "UserWarning: mine" in done.stderr


@pytest.mark.parametrize(
    "settings",
    [{"options": ["-W", "always"]}, {"PYTHONWARNINGS": "always"}],
    ids=["-W", "variable"],
)
def test_warnings_that_are_asked_for_appear(fake, settings):
    assert fake(PREPARE + WARN, **settings).stderr.count("Warning:") >= 4


def test_a_log_level_that_is_asked_for_stays(fake):
    code = PREPARE + "import os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert fake(code).stdout == "3\n"
    assert fake(code, TF_CPP_MIN_LOG_LEVEL="0").stdout == "0\n"


IMPORTED = """
import warnings, logging
before = list(warnings.filters), logging.getLogger("tensorflow").level
from {script} import {name}
import tensorflow as tf
{more}
ours = [entry for entry in warnings.filters if "tensorlayer" in str(entry[3])]
assert len(ours) == 1, "only what those two packages warn of is put aside"
assert set(before[0]) <= set(warnings.filters)
assert before[1] == tf.get_logger().level
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", ["ddpg", "td3", "sac"])
def test_a_script_that_is_imported_leaves_the_program_its_own(python, script):
    """It prints nothing but, as in the chapter, the networks of an agent that is made."""
    agent = "td3.TD3(3, 1, td3.ReplayBuffer(10), 8, 2.0).policy_net.get_action(np.zeros(3), 0.1)"
    more = f"import numpy as np, td3; {agent}" if script == "td3" else ""
    done = python(IMPORTED.format(script=script, name=script.upper(), more=more))
    printed = "Q Network (1,2)" if more else ""
    assert (done.stdout.partition(":")[0], done.stderr, done.returncode) == (printed, "", 0)
