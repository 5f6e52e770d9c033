"""The three scripts as a user runs them: as processes, from the command line."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ALGORITHMS = ["ddpg", "td3", "sac"]
SHORT = {  # learning starts within a second
    "ddpg": ["--max-steps", "60", "--memory-capacity", "64"],
    "td3": ["--max-steps", "60", "--batch-size", "16", "--explore-steps", "40"],
    "sac": ["--max-steps", "60", "--batch-size", "16", "--explore-steps", "40"],
}
LINE = r"\| Episode: {}/{} \| Episode Reward: -?\d+\.\d{{4}} \| Running Time: \d+\.\d{{4}}$"
slow = pytest.mark.slow
COMPILING = "Compiling the update: this takes a few seconds, once."


def command(script, *flags, folder=None):
    """The command line of a run; in `folder`, nothing of the checkout is written."""
    line = [sys.executable, f"{script}.py", *map(str, flags)]
    if folder is not None:
        line += ["--model-dir", str(folder / "model"), "--image-dir", str(folder / "image")]
    return line


def environment():
    """The environment variables of a run: no display, no width of this terminal."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "TF_CPP_MIN_LOG_LEVEL")
    return {k: v for k, v in os.environ.items() if k not in hidden}


def run(script, *flags, folder=None):
    """Run a script to its end: (exit status, lines on stdout, lines on stderr)."""
    done = subprocess.run(
        command(script, *flags, folder=folder),
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def without_networks(out):
    """The lines without those of the networks, which the chapter prints first."""
    return [line for line in out if not re.match(r".*Network.*: |  \(|\)$", line)]


@pytest.mark.parametrize("script", [pytest.param("ddpg", marks=slow), "td3",
                                    pytest.param("sac", marks=slow)])
def test_train_then_test_shows_the_run_and_nothing_else(script, tmp_path):
    flags = ["--train", "--test", "--episodes", 3, "--test-episodes", 2, *SHORT[script]]
    status, out, err = run(script, *flags, folder=tmp_path)
    assert (status, err) == (0, [])
    folder = tmp_path / "model" / f"{script.upper()}_Pendulum-v1"
    image = tmp_path / "image" / f"{script}_Pendulum-v1.png"
    training = [line for line in out if line.startswith("Training")]
    testing = [line for line in out if line.startswith("Testing")]
    for i, line in enumerate(training, 1):
        assert re.fullmatch("Training " + LINE.format(i, 3), line)
    for i, line in enumerate(testing[:2], 1):
        assert re.fullmatch("Testing " + LINE.format(i, 2), line)
    assert re.fullmatch(
        r"Testing \| Episodes: 2 \| Mean: -?\d+\.\d{4} \| Standard Deviation: \d+\.\d{4}",
        testing[2],
    )
    rest = [line for line in without_networks(out) if line not in training + testing]
    assert rest == [
        "Episodes of Pendulum-v1 have 200 steps, but --max-steps 60 cuts them.",
        COMPILING,
        f"Saved {folder / 'weights.npz'}",
        f"Saved {image}",
        "No display: playing on without a window.",
    ]
    assert (len(training), len(testing)) == (3, 3)
    files = sorted(p.name for p in folder.iterdir())
    assert files == ["progress.json", "training.lock", "training.npz", "weights.npz"]
    assert json.loads((folder / "progress.json").read_text()) == {"steps": 180, "episodes": 3}
    assert image.read_bytes().startswith(b"\x89PNG")


@slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    flags = ["--train", "--episodes", 3, *SHORT["td3"]]
    runs = [(2, "a"), (2, "b"), (3, "c")]
    rewards, files = [], []
    for seed, name in runs:
        status, out, _ = run("td3", *flags, "--seed", seed, folder=tmp_path / name)
        assert status == 0
        rewards.append([line.split("|")[2] for line in out if line.startswith("Training")])
        path = tmp_path / name / "model" / "TD3_Pendulum-v1" / "weights.npz"
        files.append(path.read_bytes())
    assert rewards[0] == rewards[1] != rewards[2]
    assert files[0] == files[1] != files[2]


@slow
@pytest.mark.parametrize("script", ALGORITHMS)
def test_random_actions_are_held_and_learning_waits(script, tmp_path):
    flags = ["--train", "--episodes", 2, "--max-steps", 20, "--explore-steps", 1000]
    flags += ["--explore-hold", 7, "--learn-after", 39, "--batch-size", 16]
    status, out, err = run(script, *flags, folder=tmp_path)
    assert (status, err) == (0, [])
    assert COMPILING in out  # at the 40th step, and only there
    buffer = "agent/stored" if script == "ddpg" else "agent/replay_buffer/rows"
    with np.load(tmp_path / "model" / f"{script.upper()}_Pendulum-v1" / "training.npz") as file:
        actions = file[buffer][:, 3].reshape(2, 20)
    for episode in actions:
        runs = np.split(episode, [7, 14])
        assert [len(set(run)) for run in runs] == [1, 1, 1]
        assert len(set(episode)) == 3
    flags[flags.index(39)] = 40
    assert COMPILING not in run(script, *flags, folder=tmp_path)[1]


@slow
def test_eager_runs_the_same_lines(tmp_path):
    flags = ["--train", "--episodes", 2, *SHORT["sac"]]
    compiled = run("sac", *flags, folder=tmp_path)
    eager = run("sac", *flags, "--eager", folder=tmp_path)
    assert compiled[0] == eager[0] == 0
    assert COMPILING in compiled[1]
    assert COMPILING not in eager[1]

    def rewards(out):
        return [float(line.split("|")[2].split()[-1]) for line in out if "Training" in line]

    np.testing.assert_allclose(rewards(compiled[1]), rewards(eager[1]), rtol=1e-3)


@slow
@pytest.mark.parametrize(
    ("script", "sent", "status"), [("td3", signal.SIGINT, 130), ("sac", signal.SIGTERM, 143)]
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
def test_an_interrupted_training_saves_what_it_learned(script, sent, status, tmp_path):
    process = subprocess.Popen(
        command(script, "--train", *SHORT[script], folder=tmp_path),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for line in process.stdout:
        if "Episode: 5/" in line:
            break
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
    saved = re.findall(r"^Saved (.*)$", out, re.MULTILINE)
    assert [Path(p).suffix for p in saved] == [".npz", ".png"]
    assert all(Path(p).exists() for p in saved)
    assert run(script, "--test", "--test-episodes", 1, *SHORT[script], folder=tmp_path)[0] == 0


@slow
def test_an_interrupt_before_the_first_update_leaves_saved_weights_alone(tmp_path):
    path = tmp_path / "model" / "DDPG_Pendulum-v1" / "weights.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    process = subprocess.Popen(
        command("ddpg", "--train", "--memory-capacity", 500_000, folder=tmp_path),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for line in process.stdout:
        if "Episode: 2/" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "No update was made in this run: saved weights are left as they were." in out
    assert path.read_bytes() == b"precious"


@slow
def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    path = tmp_path / "model" / "TD3_Pendulum-v1" / "weights.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    status, _, err = run("td3", "--train", "--q-lr", "1e38", *SHORT["td3"], folder=tmp_path)
    assert status == 1
    assert len(err) == 1
    assert err[0].startswith("td3.py: a loss or weight is no longer finite (episode 1)")
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        pytest.param(["--test", "--env", "Pendulum-v7"], 1, r"--env.*Pendulum-v1", marks=slow),
        pytest.param(["--train", "--env", "CartPole-v1"], 1,
                     r"CartPole-v1.*Discrete\(2\).*Pendulum-v1", marks=slow),
        (["--test", "--model-dir", "nowhere"], 1, r"nowhere.*--train"),
        (["--train", "--gamma", "1.5"], 2, r"--gamma must be in \[0, 1\], got 1.5"),
        (["--test", "--bacth-size", "3"], 2, r"--bacth-size.*--batch-size"),
    ],
)
def test_a_mistake_gets_one_line(flags, status, message):
    found, out, err = run("td3", *flags)
    assert (found, without_networks(out), len(err)) == (status, [], 1)
    assert err[0].startswith("td3.py: ")
    assert re.search(message, err[0])


def test_neither_train_nor_test_gets_one_line():
    line = "sac.py: --train or --test is needed, or both; sac.py --help lists all flags"
    assert run("sac") == (2, [], [line])


@slow
@pytest.mark.parametrize("script", ALGORITHMS)
def test_shipped_weights_play_well_in_a_fresh_clone(script):
    status, out, err = run(script, "--test", "--env", "Pendulum-v0", "--test-episodes", 20)
    assert (status, err) == (0, [])
    assert "Pendulum-v1" in out[0]
    mean = float(re.search(r"Mean: (\S+)", out[-1])[1])
    assert mean > -250


@slow
@pytest.mark.parametrize("script", ALGORITHMS)
def test_each_algorithm_learns_pendulum(script, tmp_path):
    status, out, _ = run(script, "--train", folder=tmp_path)
    assert status == 0
    assert len([line for line in out if line.startswith("Training")]) == 100
    table = subprocess.run(
        [sys.executable, "benchmarks/evaluate.py", "--algorithms", script,
         "--model-dir", str(tmp_path / "model")],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=True,
    ).stdout
    mean = float(re.search(rf"\| {script.upper()} \| (\S+) \|", table)[1])
    assert mean > -250
