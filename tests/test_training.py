"""What happens around the chapter's loop, whatever ends it. The agent only looks like one."""

import contextlib
import io
import os
import signal
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from common import process
from common.errors import UserError
from common.files.names import ROOT
from common.flags import Command
from common.tasks.making import make
from common.training import checkpoint
from common.training import training as training_module
from common.training.training import Training


class Agent:
    """Its one weight is a torque, its file of weights a line of text."""

    losses = None

    def __init__(self, path):
        self.path = str(path)
        self.torque = tf.Variable(0.0)
        self.doubled = 2 * self.torque  # a tensor, as SAC's alpha

    def learn(self, torque):
        self.torque.assign(torque)
        self.doubled = 2 * self.torque
        self.losses = {"loss": 0.5 * torque}

    def save(self):
        with open(self.path, "w") as file:
            file.write(str(self.torque.numpy()))

    def load(self, path):
        with open(path) as file:
            self.torque.assign(float(file.read()))
        self.doubled = 2 * self.torque

    def greedy_actions(self, states):
        return np.full((len(states), 1), self.torque.numpy())


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A function that makes a Training; `training.weights` is where its agent saves."""
    monkeypatch.setattr(training_module, "SAVING", np.inf)  # these episodes take no time

    def made(episodes=30, resume=False, tensorboard=None, **constants):
        settings = Command(ROOT / "td3.py").settings(
            {"TRAIN_EPISODES": episodes, "EVALUATION_EPISODES": 3,
             "MODEL_DIR": str(tmp_path / "model"), "IMAGE_DIR": str(tmp_path / "image"),
             **constants}, resume=resume, tensorboard=tensorboard,
        )
        return Training(Agent(made.weights), make("Pendulum-v1"), [], settings)

    made.weights = tmp_path / "model" / "TD3_Pendulum-v1" / "weights.npz"
    made.state = made.weights.with_name("training.npz")
    made.image = tmp_path / "image" / "td3_Pendulum-v1.png"
    return made


def episodes(training, steps=200, then=None):
    """The chapter's loop, without its steps: in episode n, n is learned and earned, negative.

    then: function of the number, called at the end of an episode. Gives the numbers.
    """
    env, running = training.env, training.progress.all_episode_reward
    for episode in training(range(training.episodes)):
        env.reset()
        env.returns[-1], env.lengths[-1] = -float(episode), steps
        training.agent.learn(float(episode))
        if then:
            then(episode)
        running.append(0.9 * running[-1] - 0.1 * episode if running else 0.0)
        print(f"Training | Episode: {episode + 1}/{training.total}")
        yield episode


def play(training, **options):
    """A whole training as a script has it; returns the numbers of its episodes."""
    with training:
        played = [*episodes(training, **options)]
        training.agent.save()
        training.plot(training.progress.all_episode_reward)
    return played


def fails(at):
    """For episodes(): the episode of this number raises."""

    def then(episode):
        if episode == at:
            raise UserError("--env Pendulum-v1: its step() failed")

    return then


def test_a_number_of_episodes_or_of_steps_ends_the_training(training, capsys):
    assert play(training(3, MAX_STEPS=50)) == [0, 1, 2]
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "Episodes of Pendulum-v1 have 200 steps, but --max-steps 50 cuts them.",
        *(f"Training | Episode: {number}/3" for number in (1, 2, 3)), f"Saved {training.image}",
    ]
    assert training.weights.read_text() == "2.0"
    assert play(training(1, TRAIN_STEPS=500)) == [0, 1, 2]
    assert "Training | Episode: 3/?" in capsys.readouterr().out


def test_evaluations_have_starts_of_their_own(training, capsys):
    with training(4, EVALUATE_EVERY=400) as log:
        for _ in episodes(log, steps=150):
            pass
    assert [steps for steps, _ in log.progress.evaluations] == [0, 450, 600]
    assert "Evaluation | Step: 450 | Mean: -" in capsys.readouterr().out
    env, returns = make("Pendulum-v1"), []
    for seed in (10_000, 10_001, 10_002):
        env.reset(seed=seed)
        returns.append(sum(env.step([2.0])[1] for _ in range(200)))
    np.testing.assert_allclose(log.progress.evaluations[1][1], returns, rtol=1e-6)
    assert len(log.progress.test_returns) == 100


def test_the_best_weights_are_kept_and_the_last_go_on(training):
    with training(5, EVALUATE_EVERY=200, KEEP="best") as log:
        means, real = iter([-9.0, -5.0, -4.0, -7.0, -6.0, -8.0]), log.evaluation.returns
        log.evaluation.returns = lambda agent, starts: (
            real(agent, starts) if len(starts) == 100 else [next(means)])
        kept = [training.weights.exists() and training.weights.read_text() for _ in episodes(log)]
        assert kept == [False, "0.0", "1.0", "1.0", "1.0"]
        assert log.agent.torque == 1.0  # which is what the script saves
    env = make("Pendulum-v1")
    env.reset(seed=7)  # the test plays them
    expected = sum(env.step([1.0])[1] for _ in range(200))
    assert log.progress.test_returns[7] == pytest.approx(expected)
    assert log.progress.best == [400, -4.0]
    with training(6, EVALUATE_EVERY=200, KEEP="best") as longer:
        longer.resume()
        assert (longer.agent.torque, longer.agent.doubled) == (4.0, 8.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_pipe_does_not(training, monkeypatch, capsys):
    play(training(3))
    assert "3/3 |" not in capsys.readouterr().out
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    with pytest.raises(ZeroDivisionError), training(3, CHECKPOINT_EVERY=1) as log:
        for _ in episodes(log, then=lambda episode: 1 / (2 - episode)):
            pass
    shown = screen.getvalue()
    assert "2/3 |" in shown and "left" in shown
    assert "running reward -0.1" in shown and "steps/s" in shown
    assert shown.splitlines()[-1] == (  # below the bar
        "Stopped in episode 3: the same command with --resume goes on after episode 2.")


def test_tensorboard(training, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with training(3, tensorboard=str(tmp_path / "runs")) as log:
        for _ in episodes(log):
            pass
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("td3_Pendulum-v1_seed2_")
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    found = {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert found["episode_reward"] == [(200, 0.0), (400, -1.0), (600, -2.0)]
    np.testing.assert_allclose([x for _, x in found["running_reward"]], [0.0, -0.1, -0.29])
    assert found["loss"] == [(200, 0.0), (400, 0.5), (600, 1.0)]
    assert found.keys() == {"episode_reward", "running_reward", "steps_per_second", "loss"}
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--tensorboard"):
        play(training(1, tensorboard=str(tmp_path / "file")))


# ---- what ends it


def test_an_environment_that_raises_loses_nothing_that_was_learned(training, capsys):
    with pytest.raises(UserError) as error:
        play(training(), then=fails(12))
    assert str(error.value) == ("--env Pendulum-v1: its step() failed "
                                "(the same command with --resume goes on after episode 10)")
    assert training.weights.read_text() == "12.0"
    assert capsys.readouterr().out.splitlines()[-1] == f"Saved {training.image}"
    with training(resume=True) as log:
        assert log.resume() == 2000
        assert capsys.readouterr().out == f"Resumed {training.state} after 10 episodes.\n"
        assert (log.agent.torque, len(log.progress.all_episode_reward)) == (9.0, 10)
        assert [*episodes(log)] == list(range(10, 30))
    assert "Training | Episode: 11/30" in capsys.readouterr().out
    with pytest.raises(UserError, match="has 30 episodes already: give --episodes more"), \
            training(29) as log:
        log.resume()


def test_before_the_first_state_there_is_nothing_to_go_on_with(training):
    with pytest.raises(UserError, match=r"its step\(\) failed$"):
        play(training(), then=fails(3))
    assert training.weights.read_text() == "3.0"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_saved(bad, training):
    def loss(episode):
        if episode == 12:
            log.agent.losses = {"loss": bad}

    def weight(episode):
        if episode == 12:
            log.agent.torque.assign(bad)
            raise UserError("the policy is no longer finite")

    for then, message in ((loss, r"a loss is no longer finite \(episode 13\)"),
                          (weight, "the policy is no longer finite")):
        # Before the 13th episode, that of the 10th is saved, or none: what was there stays.
        for every, before, left in (10, None, ["9.0"]), (20, None, []), (20, "old", ["old"]):
            log = training(CHECKPOINT_EVERY=every)
            training.weights.unlink(missing_ok=True)
            if before:
                training.weights.write_text(before)
            with pytest.raises(UserError, match=message) as error:
                play(log, then=then)
            assert "--resume" not in str(error.value)  # it would end the same way
            assert [path.read_text() for path in training.weights.parent.glob("w*.npz")] == left


def test_what_was_not_finite_from_the_first_update_on_is_not_saved(training):
    def learns_late(episode):
        log.agent.losses = {"loss": np.nan} if episode == 12 else None

    log = training(CHECKPOINT_EVERY=10)
    training.weights.parent.mkdir(parents=True)
    training.weights.write_text("old")
    with pytest.raises(UserError, match="no longer finite"):
        play(log, then=learns_late)
    assert training.weights.read_text() == "old"  # what the state holds has learned nothing


def test_a_state_that_is_not_finite_is_not_saved(training):
    with pytest.raises(UserError, match="not saved, torque/0 is not finite"), \
            training(CHECKPOINT_EVERY=2) as log:
        for number in episodes(log):
            if number == 3:
                log.agent.torque.assign(np.inf)
    assert checkpoint.progress_in(training.state).episodes == 2
    assert training.weights.read_text() == "1.0"


def test_saving_takes_a_share_of_the_time(training, monkeypatch):
    monkeypatch.setattr(training_module, "SAVING", 1e-9)
    saved, save = [], checkpoint.save

    def noted(path, agent, env, constants, done, digest):
        saved.append(done.episodes)
        time.sleep(0.01)
        save(path, agent, env, constants, done, digest)

    monkeypatch.setattr(checkpoint, "save", noted)
    play(training(CHECKPOINT_EVERY=2))
    assert saved == [2, 30]  # the first, and the last whatever it takes


def test_a_full_disk_under_tensorboard(training, tmp_path, monkeypatch, capsys):
    def full(name, value):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.summary, "scalar", full)
    play(training(3, tensorboard=str(tmp_path / "runs")))
    said = [line for line in capsys.readouterr().out.splitlines() if "--tensorboard" in line]
    assert len(said) == 1 and said[0].endswith("no further curves.")
    assert training.weights.exists()


def test_without_an_update_no_weights_are_saved(training, capsys):
    training.weights.parent.mkdir(parents=True)
    training.weights.write_text("precious")
    log = training(2)
    log.agent.learn = lambda torque: None
    with pytest.raises(UserError, match=r"^no update was made in 400 steps, so no weights are"):
        play(log)
    assert training.weights.read_text() == "precious" and not training.image.exists()


def test_a_disk_that_is_full_is_said_first(training, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    log = training()
    with pytest.raises(UserError) as error:
        play(log, then=lambda episode: monkeypatch.setattr(os, "fsync", full) if episode == 15
             else None)
    assert str(error.value).startswith(f"{training.state}: cannot be written (No space left on dev")
    assert str(error.value).endswith("--resume goes on after episode 10)")
    assert "td3_Pendulum-v1.png: cannot be written" in capsys.readouterr().out
    assert checkpoint.progress_in(training.state).episodes == 10


def test_an_unfinished_state_is_kept_once_there_is_another(training, capsys):
    with pytest.raises(UserError):
        play(training(), then=fails(12))
    old, kept = training.state.read_bytes(), training.state.with_name("training.old.npz")
    capsys.readouterr()
    with pytest.raises(UserError):
        play(training(), then=fails(9))
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("after 10 episodes; --resume would go on. It is kept as training.old.npz.")
    assert training.state.read_bytes() == old and not kept.exists()
    play(training(10))
    assert kept.read_bytes() == old
    capsys.readouterr()
    play(training(1))  # that one was finished
    assert "kept as" not in capsys.readouterr().out


# ---- signals


@pytest.fixture
def handled(monkeypatch):
    """Signals are handled as in a script that is run."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    numbers = [signal.SIGINT, signal.SIGTERM, *([] if os.name == "nt" else [signal.SIGHUP])]
    before = [signal.getsignal(number) for number in numbers]
    process.prepare("td3.py")
    process.take_signals()
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


def sends(number, at, times=1):
    def then(episode):
        if episode == at:
            for _ in range(times):
                signal.raise_signal(number)

    return then


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_episode_be_played_to_its_end(number, status, training, handled, capsys):
    with pytest.raises(process.Stopped) as stopped:
        play(training(), then=sends(number, 3))
    assert stopped.value.code == status
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "Training | Episode: 4/30", f"Saved {training.image}",
        "Stopped after 4 of 30 episodes: the same command with --resume goes on.",
    ]
    assert training.weights.read_text() == "3.0"
    assert checkpoint.progress_in(training.state).episodes == 4


def test_a_second_signal_stops_at_once_and_the_last_state_stays(training, handled, capsys):
    with pytest.raises(process.Stopped) as stopped:
        play(training(), then=sends(signal.SIGINT, 13, times=2))
    assert stopped.value.code == 130
    assert capsys.readouterr().out.splitlines()[-1] == "Training | Episode: 13/30"
    assert not training.weights.exists()
    assert checkpoint.progress_in(training.state).episodes == 10


def test_a_signal_in_the_last_episode_ends_the_script_too(training, handled):
    with pytest.raises(process.Stopped) as stopped:
        play(training(4), then=sends(signal.SIGTERM, 3))
    assert stopped.value.code == 143
    assert training.weights.read_text() == "3.0" and training.image.exists()


# ---- folders


def test_one_training_at_a_time_in_a_folder(training):
    with training(), pytest.raises(UserError, match=r"is in use by process \d+"), training():
        pytest.fail("both hold it")
    play(training(3))


@pytest.mark.parametrize("error", [None, UserError])
def test_everything_is_closed_in_the_end(error, training):
    log, closed = training(2), []
    log.env.close = lambda: closed.append("env")
    log.evaluation.close = lambda: closed.append("evaluation")
    with contextlib.suppress(UserError), log:
        if error:
            raise error
    assert closed == ["evaluation", "env"]
