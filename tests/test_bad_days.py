"""What goes wrong in a long run: one line each, nothing saved is lost, the status says it failed.

Also what a run shows while it goes on. The agent of the first part only looks like one.
"""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace

import numpy as np
import pytest
import tensorflow as tf
from test_scripts import ROOT, SHORT, command, environment

from common import report, signals
from common.errors import UserError
from common.making import make


class Agent:
    """Saves a line of text for its weights."""

    torque = 0.0
    losses = None
    loss_names = ("loss/policy", "q/mean")

    def __init__(self, path):
        self.path = path
        self.compiler = self

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("new weights")
        return self.path

    def greedy_actions(self, states):
        return np.full((len(states), 1), self.torque, np.float32)

    def all_finite(self):
        return True

    def pack(self):
        return [tf.constant([self.torque])]

    def unpack_from(self, vectors):
        self.torque = float(vectors[0][0])

    def load(self):
        self.torque = 1.0


@pytest.fixture
def training(tmp_path):
    """A function that makes a Training; `training.weights` is where its agent saves."""

    def made(episodes=30, args=(), **constants):
        usual = {
            "ALG_NAME": "TD3", "ENV_ID": "Pendulum-v1", "RANDOM_SEED": 2, "MAX_STEPS": 200,
            "TRAIN_EPISODES": episodes, "CHECKPOINT_EVERY": 10, "BATCH_SIZE": 64,
            "MODEL_DIR": str(tmp_path / "model"), "IMAGE_DIR": str(tmp_path / "image"),
            "TRAIN_STEPS": 0, "EVALUATE_EVERY": 0, "EVALUATION_EPISODES": 3, "KEEP": "last",
            "UNIT_ACTIONS": False, "__file__": str(ROOT / "td3.py"),
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
def test_a_collapse_keeps_the_weights_that_it_replaces(rewards, collapsed, training, capsys):
    training.weights.parent.mkdir(parents=True)
    training.weights.write_text("good weights")
    play(training(len(rewards)), rewards)
    assert training.weights.read_text() == "new weights"
    out = capsys.readouterr().out
    old = training.weights.with_name("weights.old.npz")
    assert old.exists() == collapsed == ("collapsed" in out)
    if collapsed:
        assert old.read_text() == "good weights"
        assert re.search(r"collapsed, from -\d+.\d at episode \d+ to -1.* kept as .*old\.npz", out)


def test_a_second_collapse_keeps_both(training, capsys):
    for _ in range(3):
        play(training(60), CASES["collapsed"][0])
    names = sorted(path.name for path in training.weights.parent.glob("weights*"))
    assert names == ["weights.npz", "weights.old-2.npz", "weights.old.npz"]


def test_episodes_that_would_be_cut_are_announced(training, capsys):
    play(training(2, MAX_STEPS=50), [-1.0, -2.0])
    line = "Episodes of Pendulum-v1 have 200 steps, but --max-steps 50 cuts them."
    assert capsys.readouterr().out.splitlines()[0] == line


def test_a_number_of_steps_ends_the_training(training, capsys):
    with training(1, TRAIN_STEPS=500) as log:
        for episode in log.episodes():
            assert episode < 4
            log.episode(-5.0, 200)
    out = capsys.readouterr().out
    assert "Training | Episode: 3 | Step: 600/500 | Episode Reward: -5.0000 |" in out
    assert "Episode: 4" not in out


def test_episodes_end_the_training(training):
    with training(3) as log:
        numbers = []
        for episode in log.episodes():
            numbers.append(episode)
            log.episode(-5.0, 200)
    assert numbers == [0, 1, 2]


def test_evaluations_have_starts_of_their_own(training, capsys):
    with training(4, EVALUATE_EVERY=400) as log:
        log.agent.losses = tf.constant([0.5, -3.0])
        for episode in log.episodes():
            log.agent.torque = 0.1 * episode
            log.episode(-5.0, 150)
    assert [steps for steps, _ in log.evaluations] == [0, 450, 600]
    assert "Evaluation | Step: 450 | Mean: -" in capsys.readouterr().out
    env, returns = make("Pendulum-v1"), []
    for seed in (10_000, 10_001, 10_002):
        env.reset(seed=seed)
        returns.append(sum(env.step([0.2])[1] for _ in range(200)))
    np.testing.assert_allclose(log.evaluations[1][1], returns, rtol=1e-6)


def test_the_best_weights_are_kept(training, capsys):
    saved = []
    with training(5, EVALUATE_EVERY=200, KEEP="best") as log:
        log.agent.save = lambda: saved.append(log.steps)
        means = iter([-9.0, -5.0, -7.0, -4.0, -6.0])
        play_starts, log._play = log._play, lambda starts: (
            play_starts(starts) if len(starts) == 100 else [next(means)]
        )
        log.agent.losses = tf.constant([0.5, -3.0])
        for _ in log.episodes():
            log.episode(-5.0, 200)
    assert saved == [200, 400, 800]
    assert len(log.test_returns) == 100 and log.agent.torque == 0.0
    env = make("Pendulum-v1")
    env.reset(seed=7)  # the test plays the weights that were kept
    assert log.test_returns[7] == pytest.approx(sum(env.step([1.0])[1] for _ in range(200)))
    out = capsys.readouterr().out
    assert "weights.npz has the weights of the best evaluation, -4.0 at 800" in out


def test_best_weights_that_could_not_be_written_are_not_said_to_be_there(training, capsys):
    def full():
        raise UserError("weights.npz: cannot be written (No space left on device)")

    with pytest.raises(UserError, match="No space left"), \
            training(2, KEEP="best", EVALUATE_EVERY=200) as log:
        log.agent.losses = tf.constant([0.5, -3.0])
        log.agent.save = full
        log.episode(-5.0, 200)
    assert "has the weights of the best" not in capsys.readouterr().out


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


# ---- scripts


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


# ---- signals


@pytest.fixture
def handled():
    """Signals are handled as in a script that is run."""
    numbers = [signal.SIGINT, signal.SIGTERM, *([] if os.name == "nt" else [signal.SIGHUP])]
    before = [signal.getsignal(number) for number in numbers]
    signals.install()
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


def test_signals_are_noted_and_stop_a_training_at_the_next_step(training, handled):
    with pytest.raises(signals.Stopped) as stopped, training(3) as log:
        log.agent.losses = tf.constant([0.5, -3.0])
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # a second one changes nothing
        log.episode(-5.0, 200)
        log.env.step(np.zeros(1))
        raise AssertionError("the step should have stopped it")
    assert stopped.value.code == 143
    assert training.weights.exists()


@pytest.mark.parametrize("when", ["saving", "between", "best"])
def test_no_signal_interrupts_the_saving(when, training, handled):
    """The end of a training, told to stop at the worst of moments, and again and again."""

    def kill(*_):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)

    log = training(2, **({"KEEP": "best", "EVALUATE_EVERY": 200} if when == "best" else {}))
    save = log.agent.save
    log.agent.save = lambda: (kill(), save(), kill())[1]
    with pytest.raises(signals.Stopped) as stopped, log:
        log.agent.losses = tf.constant([0.5, -3.0])
        for _ in range(2):
            log.episode(-5.0, 200)
        if when == "between":
            kill()
    assert stopped.value.code in (130, 143)
    assert training.weights.read_text() == "new weights"
    assert (training.weights.parents[2] / "image" / "td3_Pendulum-v1.png").exists()


def test_a_training_that_hangs_is_stopped_by_a_later_second_signal(
    training, handled, monkeypatch
):
    monkeypatch.setattr(signals, "PATIENCE", 0.0)
    with pytest.raises(signals.Stopped), training(3):
        for _ in range(2):  # an environment that never comes back
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        raise AssertionError("the second signal should have stopped it")


# ---- folders


def test_one_training_at_a_time_in_a_folder(training):
    with training(3), pytest.raises(UserError, match=r"pid|process"), training(3):
        pass
    play(training(3), [-5.0])


def test_an_unwritable_folder_is_said_before_training(training, tmp_path):
    (tmp_path / "file").write_text("")
    for flag in ("MODEL_DIR", "IMAGE_DIR"):
        name = flag.lower().replace("_", "-")
        with pytest.raises(UserError, match=f"--{name}"):
            play(training(3, **{flag: str(tmp_path / "file" / "below")}), [])


def test_everything_is_closed_in_the_end(training):
    for error in (None, UserError):
        log = training(2, EVALUATE_EVERY=200)
        closed = []
        log.env.close = lambda closed=closed: closed.append("env")
        with contextlib.suppress(UserError), log:
            log.evaluation.close = lambda closed=closed: closed.append("evaluation")
            if error:
                raise error
        assert "env" in closed


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
