"""The three scripts as a user runs them: as processes, from the command line."""

import re

import numpy as np
import pytest
from commands import SHORT, run

ALGORITHMS = ["ddpg", "td3", "sac"]
LINE = r"\| Episode: {}/{} \| Episode Reward: -?\d+\.\d{{4}} \| Running Time: \d+\.\d{{4}}$"
slow = pytest.mark.slow
all_scripts = pytest.mark.parametrize(
    "script", [pytest.param("ddpg", marks=slow), "td3", pytest.param("sac", marks=slow)])
COMPILING = "Compiling the update: this takes a few seconds."


def without_networks(out):
    """The lines without those of the networks, which the chapter prints first."""
    return [line for line in out if not re.match(r".*Network.*: |  \(|\)$", line)]


def rewards(out):
    return [float(line.split("|")[2].split()[-1]) for line in out if line.startswith("Training")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function of a script that trains and tests in a folder of its own, once for all tests.

    Returns the folder and what run() returned.
    """
    known = {}

    def trained(script):
        if script not in known:
            folder = tmp_path_factory.mktemp(script)
            flags = ["--train", "--test", "--episodes", 3, "--test-episodes", 2, *SHORT[script]]
            known[script] = folder, *run(script, *flags, cwd=folder)
        return known[script]

    return trained


@all_scripts
def test_train_then_test_shows_the_run_and_nothing_else(script, trained):
    folder, status, out, err = trained(script)
    assert (status, err) == (0, [])
    training = [line for line in out if line.startswith("Training")]
    testing = [line for line in out if line.startswith("Testing")]
    assert (len(training), len(testing)) == (3, 3)
    for i, line in enumerate(training, 1):
        assert re.fullmatch("Training " + LINE.format(i, 3), line)
    for i, line in enumerate(testing[:2], 1):
        assert re.fullmatch("Testing " + LINE.format(i, 2), line)
    assert re.fullmatch(
        r"Testing \| Episodes: 2 \| Mean: -?\d+\.\d{4} \| Standard Deviation: \d+\.\d{4}",
        testing[2],
    )
    model, image = f"model/{script.upper()}_Pendulum-v1", f"image/{script}.png"
    known = [*training, *testing, COMPILING]  # the last, unless it is kept from an earlier run
    rest = [line for line in without_networks(out) if line not in known]
    assert rest == [
        "Episodes of Pendulum-v1 have 200 steps, but --max-steps 60 cuts them.",
        f"Saved {model}/weights.npz",
        f"Saved {image}",
        "No display: playing on without a window.",
    ]
    assert {path.name for path in (folder / model).iterdir()} - {"training.lock"} == {
        "training.npz", "weights.npz"}
    assert (folder / image).read_bytes().startswith(b"\x89PNG")


@slow
def test_eager_runs_the_same_lines(trained, tmp_path):
    _, _, compiled, _ = trained("sac")
    status, eager, err = run("sac", "--train", "--episodes", 2, *SHORT["sac"], "--eager",
                             folder=tmp_path)
    assert (status, err) == (0, [])
    assert COMPILING not in eager
    np.testing.assert_allclose(rewards(eager), rewards(compiled)[:2], rtol=1e-3)


@slow
@pytest.mark.parametrize("script", ALGORITHMS)
def test_shipped_weights_play_well_from_any_folder(script, tmp_path):
    status, out, err = run(script, "--test", "--env", "Pendulum-v0", "--test-episodes", 20,
                           cwd=tmp_path)
    assert (status, err) == (0, [])
    assert "Pendulum-v1" in out[0]
    assert (f"There is no model/{script.upper()}_Pendulum-v1/weights.npz yet: using the shipped "
            "weights." in out)
    assert float(re.search(r"Mean: (\S+)", out[-1])[1]) > -250
    assert not any(tmp_path.iterdir())


@slow
@pytest.mark.parametrize("script", ALGORITHMS)
def test_each_algorithm_learns_pendulum(script, tmp_path):
    status, out, _ = run(script, "--train", "--test", "--test-episodes", 100, folder=tmp_path)
    assert (status, len(rewards(out))) == (0, 100)
    assert float(re.search(r"Mean: (\S+)", out[-1])[1]) > -250
