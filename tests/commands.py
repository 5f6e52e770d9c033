"""The scripts as a user runs them, as processes from the command line, and what a user is told."""

import os
import subprocess
import sys

import pytest

from common.errors import UserError
from common.files.names import ROOT

SHORT = {  # learning starts within a second
    "ddpg": ["--max-steps", "60", "--memory-capacity", "64", "--learn-after", "64"],
    "td3": ["--max-steps", "60", "--batch-size", "16", "--explore-steps", "40"],
    "sac": ["--max-steps", "60", "--batch-size", "16", "--explore-steps", "40"],
}


def command(script, *flags, folder=None):
    """The command line of a run; in `folder`, nothing of the checkout is written."""
    line = [sys.executable, str(ROOT / f"{script}.py"), *map(str, flags)]
    if folder is not None:
        line += ["--model-dir", str(folder / "model"), "--image-dir", str(folder / "image")]
    return line


def environment(**variables):
    """The environment variables of a run: no display, no width of this terminal; and these."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "TF_CPP_MIN_LOG_LEVEL",
              "PYTHONWARNINGS")
    return {k: v for k, v in os.environ.items() if k not in hidden} | variables


def run(script, *flags, folder=None, cwd=ROOT, **variables):
    """Run a script to its end: (exit status, lines on stdout, lines on stderr)."""
    done = subprocess.run(
        command(script, *flags, folder=folder), cwd=cwd, env=environment(**variables),
        capture_output=True, text=True, timeout=600,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def python(code, **variables):
    """Run code as a process, without a display; returns what subprocess.run() does."""
    variables = {"PYGAME_HIDE_SUPPORT_PROMPT": "hide", **variables}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(**variables),
                          capture_output=True, text=True, timeout=120)


def refusal(call, *args, **options):
    """The one line with which the call refuses."""
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 900
    return message
