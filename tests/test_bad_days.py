"""What goes wrong in a long run: one line each, nothing saved is lost, the status says it failed.

Also what a run shows while it goes on. The agent of the first part only looks like one.
"""

import io
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace

import numpy as np
import pytest
import tensorflow as tf
from test_scripts import ROOT, SHORT, command, environment

from common import report
from common.environment import make
from common.errors import UserError


class Agent:
    """Saves a line of text for its weights."""

    losses = None
    loss_names = ("loss/policy", "q/mean")

    def __init__(self, path):
        self.path = path
        self.compiler = self

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("new weights")
        return self.path

    def all_finite(self):
        return True

    def pack(self):
        return []


@pytest.fixture
def training(tmp_path):
    """A function that makes a Training; `training.weights` is where its agent saves."""

    def made(episodes=30, args=(), **constants):
        usual = {
            "ALG_NAME": "TD3", "ENV_ID": "Pendulum-v1", "RANDOM_SEED": 2, "MAX_STEPS": 200,
            "TRAIN_EPISODES": episodes, "CHECKPOINT_EVERY": 10, "BATCH_SIZE": 64,
            "MODEL_DIR": str(tmp_path / "model"), "IMAGE_DIR": str(tmp_path / "image"),
        }
        flags = {"preset": "chapter", "resume": False, "tensorboard": None, **dict(args)}
        env = make("Pendulum-v1")
        env.reset()
        return report.Training(Agent(made.weights), env, Namespace(**flags), {**usual, **constants})

    made.weights = tmp_path / "model" / "TD3_Pendulum-v1" / "weights.npz"
    return made


def play(training, rewards):
    with training as log:
        log.agent.losses = tf.constant([0.5, -3.0])
        for reward in rewards:
            log.episode(reward, 200)


UP = [-1400.0] * 10 + [-200.0] * 30
CASES = {
    "collapsed": ([*UP, *[-1400.0] * 20], True),
    "learned": (UP, False),
    "a bad end": ([*UP, -900.0, -250.0], False),
    "never learned": ([-1400.0 + 300 * (i % 3) for i in range(60)], False),
    "too short to tell": ([-200.0, -1400.0, -1400.0], False),
    "only worse": ([-900.0 - i for i in range(40)], False),
}


@pytest.mark.parametrize(("rewards", "collapsed"), CASES.values(), ids=CASES)
def test_a_collapse_spares_saved_weights_and_fails(rewards, collapsed, training, capsys):
    training.weights.parent.mkdir(parents=True)
    training.weights.write_text("good weights")
    if collapsed:
        with pytest.raises(UserError, match=r"collapsed, from -\d+.\d at episode \d+ to -1"):
            play(training(len(rewards)), rewards)
        assert training.weights.read_text() == "good weights"
        assert "weights.npz is left as it was." in capsys.readouterr().out
    else:
        play(training(len(rewards)), rewards)
        assert training.weights.read_text() == "new weights"


def test_a_collapse_without_saved_weights_saves_what_there_is(training):
    with pytest.raises(UserError, match="collapsed"):
        play(training(60), CASES["collapsed"][0])
    assert training.weights.read_text() == "new weights"


def test_a_buffer_smaller_than_a_batch(training):
    with pytest.raises(UserError, match="--replay-buffer-size must be larger than --batch-size"):
        training(REPLAY_BUFFER_SIZE=64)
    training(REPLAY_BUFFER_SIZE=65)


def test_episodes_that_would_be_cut_are_announced(training, capsys):
    play(training(2, MAX_STEPS=50), [-1.0, -2.0])
    line = "Episodes of Pendulum-v1 have 200 steps, but --max-steps 50 cuts them."
    assert capsys.readouterr().out.splitlines()[0] == line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_pipe_does_not(training, monkeypatch, capsys):
    play(training(3), [-5.0, -6.0, -7.0])
    assert "%" not in capsys.readouterr().out
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    play(training(3), [-5.0, -6.0, -7.0])
    shown = screen.getvalue()
    assert "3/3 |" in shown and "left" in shown
    assert "running reward -5.3" in shown and "steps/s" in shown  # 0.9 (0.9 * -5 + 0.1 * -6) ...
    assert shown.count("Training | Episode: ") == 3


def test_tensorboard(training, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    play(training(3, {"tensorboard": str(tmp_path / "runs")}.items()), [-5.0, -6.0, -7.0])
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("td3_Pendulum-v1_seed2_")
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    found = {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert found["episode_reward"] == [(200, -5.0), (400, -6.0), (600, -7.0)]
    np.testing.assert_allclose([x for _, x in found["running_reward"]], [-5.0, -5.1, -5.29])
    assert found["q/mean"] == [(200, -3.0), (400, -3.0), (600, -3.0)]
    assert found.keys() == {
        "episode_reward", "running_reward", "steps_per_second", "loss/policy", "q/mean",
    }


def test_tensorboard_is_not_installed(training, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        play(training(3, {"tensorboard": "runs"}.items()), [])


# ---- scripts


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
        "(ZeroDivisionError: the joint broke); --verbose shows where\n"
    )
    assert len([line for line in out if line.startswith("Training")]) == 3
    assert [line.split()[0] for line in out[-2:]] == ["Saved", "Saved"]


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
