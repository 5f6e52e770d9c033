"""The three scripts as a user runs them: as processes, from the command line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ALGORITHMS = ["ddpg", "td3", "sac"]
SHORT = {  # learning starts within a second
    "ddpg": ["--max-steps", "60", "--memory-capacity", "64", "--learn-after", "64"],
    "td3": ["--max-steps", "60", "--batch-size", "16", "--explore-steps", "40"],
    "sac": ["--max-steps", "60", "--batch-size", "16", "--explore-steps", "40"],
}
LINE = r"\| Episode: {}/{} \| Episode Reward: -?\d+\.\d{{4}} \| Running Time: \d+\.\d{{4}}$"
slow = pytest.mark.slow
all_scripts = pytest.mark.parametrize(
    "script", [pytest.param("ddpg", marks=slow), "td3", pytest.param("sac", marks=slow)])
COMPILING = "Compiling the update: this takes a few seconds, once."


def command(script, *flags, folder=None):
    """The command line of a run; in `folder`, nothing of the checkout is written."""
    line = [sys.executable, str(ROOT / f"{script}.py"), *map(str, flags)]
    if folder is not None:
        line += ["--model-dir", str(folder / "model"), "--image-dir", str(folder / "image")]
    return line


def environment():
    """The environment variables of a run: no display, no width of this terminal."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "TF_CPP_MIN_LOG_LEVEL")
    return {k: v for k, v in os.environ.items() if k not in hidden}


def run(script, *flags, folder=None, cwd=ROOT):
    """Run a script to its end: (exit status, lines on stdout, lines on stderr)."""
    done = subprocess.run(
        command(script, *flags, folder=folder),
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


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


def test_a_test_takes_the_units_of_the_weights(trained):
    """Whatever --hidden-dim is in the script."""
    folder, *_ = trained("td3")
    status, out, err = run("td3", "--test", "--test-episodes", 1, "--max-steps", 60, cwd=folder)
    assert (status, err) == (0, []) and out[-1].startswith("Testing | Episodes: 1 | Mean")


@slow
def test_one_seed_gives_one_run_and_another_seed_another(trained, tmp_path):
    """That the same seed gives the same files, tests/test_checkpoint.py has for all scripts."""
    folder, _, out, _ = trained("td3")
    flags = ["--train", "--episodes", 3, *SHORT["td3"]]
    for seed, same in (2, True), (3, False):
        status, again, _ = run("td3", *flags, "--seed", seed, folder=tmp_path)
        assert status == 0
        assert (rewards(again) == rewards(out)) == same
        name = "model/TD3_Pendulum-v1/weights.npz"
        assert ((tmp_path / name).read_bytes() == (folder / name).read_bytes()) == same


@slow
def test_eager_runs_the_same_lines(trained, tmp_path):
    _, _, compiled, _ = trained("sac")
    status, eager, err = run("sac", "--train", "--episodes", 2, *SHORT["sac"], "--eager",
                             folder=tmp_path)
    assert (status, err) == (0, [])
    assert COMPILING not in eager
    np.testing.assert_allclose(rewards(eager), rewards(compiled)[:2], rtol=1e-3)


@slow
def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    path = tmp_path / "model" / "TD3_Pendulum-v1" / "weights.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    status, _, err = run("td3", "--train", "--q-lr", "1e38", *SHORT["td3"], folder=tmp_path)
    assert (status, len(err)) == (1, 1)
    assert re.match(r"td3\.py: (a loss is no longer finite|.*the policy is no longer finite)",
                    err[0])
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        pytest.param(["--train", "--env", "Pendulum-v7"], 1, r"--env.*Pendulum-v1", marks=slow),
        pytest.param(["--train", "--env", "CartPole-v1"], 1,
                     r"CartPole-v1.*Discrete\(2\).*Pendulum-v1", marks=slow),
        (["--test", "--preset", "paper", "--model-dir", "nowhere"], 1, r"nowhere.*--train"),
        (["--train", "--gamma", "1.5"], 2, r"--gamma.* must be in \[0, 1\], got 1.5"),
        (["--test", "--bacth-size", "3"], 2, r"--bacth-size.*--batch-size"),
        ([], 2, "--train or --test is needed, or both; td3.py --help lists all flags"),
    ],
)
def test_a_mistake_gets_one_line(flags, status, message):
    found, out, err = run("td3", *flags)
    assert (found, without_networks(out), len(err)) == (status, [], 1)
    assert err[0].startswith("td3.py: ")
    assert re.search(message, err[0])


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
    status, out, _ = run(script, "--train", folder=tmp_path)
    assert (status, len(rewards(out))) == (0, 100)
    table = subprocess.run(
        [sys.executable, "benchmarks/evaluate.py", "--algorithms", script,
         "--model-dir", str(tmp_path / "model")],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=True,
    ).stdout
    mean = float(re.search(rf"\| {script.upper()} \| (\S+) \|", table)[1])
    assert mean > -250
