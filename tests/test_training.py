"""common/training.py: what happens around the chapter's loop, whatever ends it.

The agent only looks like one.
"""

import contextlib
import io
import json
import os
import re
import signal
import sys
import time

import numpy as np
import pytest
from test_scripts import ROOT

from common import signals
from common import training as module
from common.arguments import Command
from common.errors import UserError
from common.making import make
from common.training import Training


class Agent:
    """Saves a line of text for its weights; is its own compiler, with one variable."""

    losses = None
    loss_names = ("q/mean", "loss/policy")
    state_names = ()

    def __init__(self, path):
        self.path = path
        self.compiler = self
        self.torque = 0.0

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("new weights")
        return self.path

    def load(self):
        self.torque = 1.0

    def greedy_actions(self, states):
        return np.full((len(states), 1), self.torque, np.float32)

    def all_finite(self):
        return np.isfinite(self.torque)

    def values(self):
        return {"torque": np.array(self.torque)}

    def set_values(self, values):
        self.torque = float(values["torque"])


@pytest.fixture
def training(tmp_path):
    """A function that makes a Training; `training.weights` is where its agent saves."""

    def made(episodes=30, flags=(), **constants):
        settings = Command(ROOT / "td3.py").settings(
            {"TRAIN_EPISODES": episodes, "EVALUATION_EPISODES": 3,
             "MODEL_DIR": str(tmp_path / "model"), "IMAGE_DIR": str(tmp_path / "image"),
             **constants},
            **dict(flags),
        )
        env = make("Pendulum-v1")
        env.reset()
        return Training(Agent(made.weights), env, settings)

    made.weights = tmp_path / "model" / "TD3_Pendulum-v1" / "weights.npz"
    made.state = made.weights.with_name("training.npz")
    return made


def played(log, reward=-5.0, steps=200):
    """What the chapter's loop does when an episode is over."""
    running = log.all_episode_reward
    running.append(running[-1] * 0.9 + reward * 0.1 if running else reward)
    print(f"Training | Episode: {log.number(log.steps + steps)} | Episode Reward: {reward:.4f}")
    log.episode_done(reward, steps)


def learns(log):
    log.agent.losses = np.array([-3.0, 0.5], np.float32)


def play(training, rewards):
    with training as log:
        learns(log)
        for reward in rewards:
            played(log, reward)


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
            played(log)
    out = capsys.readouterr().out
    assert "Training | Episode: 3, step 600/500 | Episode Reward: -5.0000" in out
    assert "Episode: 4" not in out


def test_episodes_end_the_training(training):
    with training(3) as log:
        numbers = []
        for episode in log.episodes():
            numbers.append(episode)
            played(log)
    assert numbers == [0, 1, 2]


def test_evaluations_have_starts_of_their_own(training, capsys):
    with training(4, EVALUATE_EVERY=400) as log:
        learns(log)
        for episode in log.episodes():
            log.agent.torque = 0.1 * episode
            played(log, steps=150)
    assert [steps for steps, _ in log.progress.evaluations] == [0, 450, 600]
    assert "Evaluation | Step: 450 | Mean: -" in capsys.readouterr().out
    env, returns = make("Pendulum-v1"), []
    for seed in (10_000, 10_001, 10_002):
        env.reset(seed=seed)
        returns.append(sum(env.step([0.2])[1] for _ in range(200)))
    np.testing.assert_allclose(log.progress.evaluations[1][1], returns, rtol=1e-6)


def test_the_best_weights_are_kept(training, capsys):
    saved = []
    with training(5, EVALUATE_EVERY=200, KEEP="best") as log:
        log.agent.save = lambda: saved.append(log.steps)
        means = iter([-9.0, -5.0, -7.0, -4.0, -6.0])
        real = log.evaluation.returns
        log.evaluation.returns = lambda agent, starts: (
            real(agent, starts) if len(starts) == 100 else [next(means)]
        )
        learns(log)
        for _ in log.episodes():
            played(log)
    assert saved == [200, 400, 800]
    assert len(log.progress.test_returns) == 100 and log.agent.torque == 0.0
    env = make("Pendulum-v1")
    env.reset(seed=7)  # the test plays the weights that were kept
    expected = sum(env.step([1.0])[1] for _ in range(200))
    assert log.progress.test_returns[7] == pytest.approx(expected)
    out = capsys.readouterr().out
    assert "weights.npz has the weights of the best evaluation, -4.0 at 800" in out


def test_best_weights_that_could_not_be_written_are_not_said_to_be_there(training, capsys):
    def full():
        raise UserError("weights.npz: cannot be written (No space left on device)")

    with pytest.raises(UserError, match="No space left"), \
            training(2, KEEP="best", EVALUATE_EVERY=200) as log:
        learns(log)
        log.agent.save = full
        played(log)
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

    with training(3, {"tensorboard": str(tmp_path / "runs")}.items()) as log:
        for reward in (-5.0, -6.0, -7.0):
            played(log, reward)
            log.agent.losses = np.array([-3.0, 0.5][: 2 if reward < -5 else 1], np.float32)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("td3_Pendulum-v1_seed2_")
    import tensorflow as tf

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    found = {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert found["episode_reward"] == [(200, -5.0), (400, -6.0), (600, -7.0)]
    np.testing.assert_allclose([x for _, x in found["running_reward"]], [-5.0, -5.1, -5.29])
    assert found["q/mean"] == [(400, -3.0), (600, -3.0)]
    assert found["loss/policy"] == [(600, 0.5)]  # where the policy was updated
    assert found.keys() == {
        "episode_reward", "running_reward", "steps_per_second", "loss/policy", "q/mean",
    }



# ---- states


def stopped(training, episodes, **options):
    """A training that an error ends after some episodes."""
    with pytest.raises(ZeroDivisionError), training(**options) as log:
        learns(log)
        for i in range(episodes):
            log.agent.torque = float(i)
            played(log, -float(i))
        1 / 0  # noqa: B018


def test_resumed_from_the_last_state(training, capsys):
    stopped(training, 12)
    capsys.readouterr()
    with training(flags={"resume": True}.items()) as log:
        assert capsys.readouterr().out == f"Resumed {training.state} after 10 episodes.\n"
        assert (log.steps, log.agent.torque, len(log.all_episode_reward)) == (2000, 9.0, 10)
        numbers = []
        for number in log.episodes():
            numbers.append(number)
            played(log)
    assert numbers == list(range(10, 30))
    assert "Training | Episode: 11/30 |" in capsys.readouterr().out
    with pytest.raises(UserError, match="has 30 episodes already: give --episodes more"), \
            training(29, {"resume": True}.items()):
        pass
    with pytest.raises(UserError, match=r"GAMMA is 0.9 there, 0.5 here"), \
            training(flags={"resume": True}.items(), GAMMA=0.5):
        pass


def test_an_unfinished_state_is_kept_once_there_is_another(training, capsys):
    stopped(training, 12)
    old, kept = training.state.read_bytes(), training.state.with_name("training.old.npz")
    capsys.readouterr()
    stopped(training, 9)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("after 10 episodes; --resume would go on. It is kept as training.old.npz.")
    assert training.state.read_bytes() == old and not kept.exists()
    play(training(10), [-1.0] * 10)
    assert kept.read_bytes() == old
    capsys.readouterr()
    play(training(1), [-1.0])  # that one was finished
    assert "kept as" not in capsys.readouterr().out


def test_weights_that_are_not_finite_are_not_saved(training):
    for name, value in (("losses", np.array([np.nan, 0.0])), ("torque", np.inf)):
        with pytest.raises(UserError, match=r"no longer finite \(episode 2\)"), training() as log:
            learns(log)
            played(log)
            setattr(log.agent, name, value)
            played(log)
        assert not training.weights.exists()


def test_without_an_update_nothing_is_saved(training, capsys):
    with training(2) as log:
        for _ in log.episodes():
            played(log)
    assert not training.weights.exists()
    assert "No update was made in this run: saved weights are left" in capsys.readouterr().out


def test_progress_is_noted_for_whoever_watches(training, monkeypatch):
    noted = training.weights.with_name("progress.json")
    monkeypatch.setattr(module, "NOTE_EVERY", 3600)
    with training(3) as log:
        found = []
        for _ in log.episodes():
            played(log, steps=150)
            found.append(json.loads(noted.read_text()))
    first, last = {"steps": 150, "episodes": 1}, {"steps": 450, "episodes": 3}
    assert found == [first, first, last]  # not twice in an hour, but at the end


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
        learns(log)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # a second one changes nothing
        played(log)
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
        learns(log)
        for _ in range(2):
            played(log)
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
        log.evaluation.close = lambda closed=closed: closed.append("evaluation")
        with contextlib.suppress(UserError), log:
            if error:
                raise error
        assert closed == ["evaluation", "env"]
