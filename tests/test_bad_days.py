"""What goes wrong in a run of a script: one line each, nothing saved is lost, the status says so.

tests/test_training.py has what goes wrong within one process.
"""

import os
import signal
import subprocess
import time

import pytest
from test_scripts import ROOT, SHORT, command, environment


@pytest.mark.slow
def test_an_environment_that_raises(tmp_path):
    flags = ["--train", "--env", "failing_environment:Failing-v0", *SHORT["td3"]]
    done = subprocess.run(
        command("td3", *flags, folder=tmp_path), cwd=ROOT, capture_output=True, text=True,
        env={**environment(), "PYTHONPATH": str(ROOT / "tests")}, timeout=600,
    )
    out = done.stdout.splitlines()
    assert done.returncode == 1
    assert done.stderr == (
        "td3.py: --env failing_environment:Failing-v0: its step() failed "
        "(ZeroDivisionError: the joint broke), at step 10; --verbose shows where\n"
    )
    assert len([line for line in out if line.startswith("Training")]) == 3
    assert [line.split()[0] for line in out[-2:]] == ["Saved", "Saved"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
@pytest.mark.parametrize("closed", ["terminal", "pipe"])
def test_the_terminal_or_the_reader_goes_away(closed, tmp_path):
    flags = ["--train", "--episodes", 10000, *SHORT["td3"]]
    process = subprocess.Popen(
        command("td3", *flags, folder=tmp_path),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    while not process.stdout.readline().startswith("Training | Episode: 3/"):
        assert process.poll() is None
    time.sleep(0.1)
    process.stdout.close()
    if closed == "terminal":
        process.send_signal(signal.SIGHUP)
    err = process.stderr.read()
    status = process.wait(60)
    weights = tmp_path / "model" / "TD3_Pendulum-v1" / "weights.npz"
    assert weights.exists()
    assert (tmp_path / "image" / "td3_Pendulum-v1.png").exists()
    if closed == "pipe":
        assert status == 1
        assert err.startswith("td3.py: the output was closed after episode ")
        assert err.count("\n") == 1
    else:
        assert status in (1, 129)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a shell's pipes")
@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("{train} | true", "the output was closed"),
        ("{train} > /dev/full", "the output cannot be written"),
        ("{test} | head -1 > /dev/null", "the output was closed"),
        ("{test} > /dev/full", "the output cannot be written"),
        ("{train} >&-", ""),
    ],
)
def test_an_output_that_takes_nothing(shell, line, tmp_path):
    train = " ".join(command("td3", "--train", "--episodes", 3, *SHORT["td3"], folder=tmp_path))
    test = " ".join(command("td3", "--test", "--test-episodes", 300, "--max-steps", 20))
    script = "set -o pipefail; " + shell.format(train=train, test=test)
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True,
        timeout=600,
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if line:
        assert done.returncode == 1
        assert done.stderr.startswith("td3.py: ") and done.stderr.count("\n") == 1
        assert line in done.stderr
        assert "training stopped" not in done.stderr or "--train" in script
    else:
        assert (done.returncode, done.stderr) == (0, "")
