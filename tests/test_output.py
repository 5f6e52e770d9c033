"""Whoever reads the output may leave, or be unable to show a name: one line, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import output

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from common import arguments

ENV_ID = "Pendulum-v1"  # task
LABEL = "é"  # name of é, in {é, \U0001f40d}
args = arguments.parse(__file__, __name__)
LABEL = args.constants["LABEL"]
print("first", LABEL, "\\udcff")
input()  # until the reader has gone
print("second")
"""
posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
CLOSED = "the output was closed"
FULL = "the output cannot be written (No space left on device)"
STOPPED = "; the run has stopped: send the output where it can be written"


@pytest.fixture(params=["buffered", pytest.param("unbuffered", marks=pytest.mark.slow)])
def shell(request, tmp_path):
    """Run a line of shell, where $RUN is the script: (its exit status, stdout, stderr)."""
    (tmp_path / "mine.py").write_text(SCRIPT, encoding="utf-8")

    def run(line, **variables):
        usual = {"PYTHONPATH": str(ROOT), "RUN": f"{sys.executable} {tmp_path / 'mine.py'}"}
        usual["PYTHONUNBUFFERED"] = "1" if request.param == "unbuffered" else ""
        usual["PYTHONIOENCODING"] = "utf-8"
        line = f"{line}\nexit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", line], env=os.environ | usual | variables, capture_output=True,
            text=True, encoding="utf-8", errors="replace", timeout=60, stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@posix
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("(sleep 1; echo | $RUN --train --verbose) | true", CLOSED + STOPPED),
        pytest.param("$RUN --train --verbose > /dev/full", FULL + STOPPED, marks=full),
        ("(sleep 1; $RUN --help) | true", CLOSED + STOPPED),
        pytest.param("$RUN --help > /dev/full", FULL + STOPPED, marks=full),
    ],
)
def test_output_that_nobody_takes_is_one_line(shell, line, expected):
    status, out, err = shell(f"set -o pipefail\n{line}")
    assert (out, err) == ("", f"mine.py: {expected}\n")
    assert status == 1


@posix
def test_a_reader_that_leaves_has_what_it_wanted(shell):
    _, out, err = shell("(sleep 1; echo) | ($RUN --train --verbose; echo $? >&2) | head -1")
    assert out == "first é \\udcff\n"
    assert err == f"mine.py: {CLOSED}{STOPPED}\n1\n"


@posix
@pytest.mark.parametrize(
    ("closed", "out"), [(">&-", ""), ("2>&-", "first é \\udcff\nsecond\n"), (">&- 2>&-", "")]
)
def test_without_streams_it_runs(shell, closed, out):
    assert shell(f"$RUN --train --verbose {closed} <<< x") == (0, out, "")
    assert shell(f"$RUN --help {closed}")[::2] == (0, "")


@posix
@pytest.mark.parametrize("nowhere", ["2>&-", pytest.param("2> /dev/full", marks=full)])
def test_an_error_that_nobody_hears_is_in_the_status(shell, nowhere):
    assert shell(f"$RUN --train --label x {nowhere}") == (2, "", "")
    assert shell(f"$RUN --label é {nowhere}") == (2, "", "")
    status, _, err = shell(f"$RUN --train --verbose {nowhere} < /dev/null")  # EOFError
    assert (status, err) == (1, "")


@posix
def test_every_name_can_be_printed(shell):
    expected = "first \\xe9 \\udcff\nsecond\n"
    variables = {"PYTHONIOENCODING": "ascii"}
    assert shell("$RUN --train --verbose <<< x", **variables) == (0, expected, "")
    status, out, err = shell("$RUN --help", **variables)
    assert (status, err) == (0, "")
    assert "in {\\xe9, \\U0001f40d}" in out
    status, _, err = shell("$RUN --train --label $'\\xff\\n'", **variables)
    assert (status, err) == (2, "mine.py: --label must be \\xe9 or \\U0001f40d, got \\udcff\\n\n")


def test_other_errors_are_not_the_outputs():
    assert output.lost(ValueError("full")) == ""
    assert output.lost(FileNotFoundError(2, "No such file or directory")) == ""
    assert output.lost(OSError(28, "No space left on device", "weights.npz")) == ""
