"""A training killed at any moment and resumed ends as if it had not been.

First in one process, then with scripts that are killed. tests/test_training.py has what happens
around it, with a few lines in the agent's place.
"""

import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from agents import act, new_agent, update, values
from commands import SHORT, command, environment, refusal, run

from common.errors import UserError
from common.files.names import ROOT
from common.tasks.making import make
from common.training import checkpoint
from common.training.progress import Progress

CONSTANTS = {"GAMMA": 0.9, "BATCH_SIZE": 8, "TRAIN_EPISODES": 3}
DIGEST = {"code": "a" * 64, "versions": {"numpy": "2.1"}}
PROGRESS = Progress(
    episode_reward=[-1.5, -0.25], all_episode_reward=[-1.5, -1.375], steps=60, seconds=1.5,
    learned=True, evaluations=[[0, [-9.5, -8.0]], [30, [-3.0, -2.5]]], best=[30, -2.75],
    log_name="x",
)


class State:
    """An agent and its environment, to be saved together."""

    def __init__(self, agent, seed=1):
        self.agent, self.env = agent, make("Pendulum-v1")
        self.env.seed(seed)
        self.env.reset()

    def save(self, path):
        checkpoint.save(path, self.agent, self.env, CONSTANTS, PROGRESS, DIGEST)

    def restore(self, path, constants=CONSTANTS, digest=DIGEST):
        return checkpoint.restore(path, self.agent, self.env, constants, digest)


def played(one, episodes):
    """The rewards of all steps of an agent that learns, and its next random numbers."""
    rewards = []
    for _ in range(episodes):
        state = one.env.reset()
        for step in range(12):
            action = act(one.agent, state, greedy=False)
            next_state, reward, done, _ = one.env.step(action)
            one.agent.replay_buffer.push(state, action, reward, next_state, done)
            rewards.append(reward)
            state = next_state
            if step > 8:
                update(one.agent, 2)
    return [*rewards, random.random(), np.random.random()]


def test_restored_is_as_saved_bit_for_bit(tmp_path):
    path = tmp_path / "training.npz"
    one, other = (State(new_agent("td3", seed, filled=False, wide=False), seed) for seed in (1, 5))
    played(one, 1)
    one.save(path)
    unlike = played(other, 3)
    other.restore(path)  # for the random numbers that both share
    after = played(one, 3)
    assert other.restore(path) == PROGRESS
    assert played(other, 3) == after != unlike
    np.testing.assert_equal(values(one.agent), values(other.agent))


class Thing:
    pass


def anything(seed):
    """An agent that holds one of each that can be saved, with values of the seed."""
    rng, agent = np.random.default_rng(seed), Thing()
    agent.losses, agent.number, agent.rate, agent.text = None, seed, seed / 3, f"é{seed}"
    agent.switch, agent.best = seed > 1, -np.inf
    agent.nothing_yet = None if seed > 1 else rng.random(3, np.float32)
    agent.scalar, agent.tensor = np.float32(seed / 7), tf.constant([seed / 7, 2.0])
    agent.strided, agent.turned = rng.random(20)[::2], rng.random((4, 3, 2)).T
    agent.empty, agent.zero = np.zeros((0, 3)), np.zeros(5)
    agent.ring = np.zeros(6, [("state", "f4", 2), ("done", "?")])
    agent.ring[:3] = [(rng.random(2), True)] * seed + [((-0.0, 0.0), False)] * (3 - seed)
    agent.unbounded = np.array([-np.inf, seed])
    agent.generator = rng
    agent.variable = tf.Variable(rng.random(3))
    agent.optimizer = tf.optimizers.Adam()
    agent.optimizer.build([agent.variable])
    agent.optimizer.apply_gradients([(tf.constant(rng.random(3)), agent.variable)])
    agent.average = tf.train.ExponentialMovingAverage(0.9)
    agent.average.apply([agent.variable])
    agent.buffer = Thing()
    agent.buffer._position, agent.buffer.noise = seed, Thing()
    agent.buffer.noise.x = rng.random(2)
    return agent


def held(thing):
    """All that it holds, each value with its type."""
    found = {}
    for name, value in vars(thing).items():
        if isinstance(value, Thing):
            found[name] = held(value)
        elif isinstance(value, np.random.Generator):
            found[name] = value.bit_generator.state
        elif not hasattr(value, "__dict__") or tf.is_tensor(value):
            found[name] = type(value), getattr(value, "numpy", lambda value=value: value)()
    return found


@pytest.fixture
def started(tmp_path):
    """A State, and the file it was saved to."""
    one, path = State(anything(1)), tmp_path / "sub" / "training.npz"
    one.save(path)
    return one, path


def test_other_constants_are_named_and_nothing_changes(started):
    one, path = started
    one.agent.variable.assign_add(np.ones(3))
    before = values(one.agent)
    constants = {**CONSTANTS, "GAMMA": 0.95, "BATCH_SIZE": 9, "TRAIN_EPISODES": 300}
    said = refusal(one.restore, path, constants)
    assert "GAMMA is 0.9 there, 0.95 here; BATCH_SIZE is 8 there, 9 here. " in said
    assert "TRAIN_EPISODES" not in said
    np.testing.assert_equal(values(one.agent), before)


def test_damaged_files_are_refused_in_one_line(started):
    one, path = started
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(one.agent.variable.numpy().tobytes())] ^= 1
    one.agent.variable.assign_add(np.ones(3))
    before = values(one.agent)
    for damaged in whole[: len(whole) // 2], flipped:
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged .* without --resume\.$"):
            one.restore(path)
        assert checkpoint.progress_in(path) is None
    np.testing.assert_equal(values(one.agent), before)
    assert "cannot be read as the state of a training. It is kept" in checkpoint.unfinished(path)
    checkpoint.set_aside(path)
    assert not path.exists() and path.with_name("training.old.npz").exists()
    with pytest.raises(UserError, match="no such file, so nothing to resume"):
        one.restore(path)


def test_another_agent_is_refused(started):
    one, path = started
    for new in 3, tf.Variable(3.0):
        one.agent.own = new
        with pytest.raises(UserError, match=r"is of another agent \(own.*\)\. Train anew"):
            one.restore(path)


def test_other_code_or_packages_are_said(started, capsys):
    one, path = started
    capsys.readouterr()
    one.restore(path)
    assert capsys.readouterr().out == ""
    one.restore(path, digest={"code": "b" * 64, "versions": {"numpy": "2.2"}})
    assert capsys.readouterr().out == (
        f"{path} was written by other code or packages (the code, numpy (2.1 then, 2.2 now)): "
        "going on with the present ones.\n"
    )


def test_unfinished_states_are_set_aside(started, monkeypatch):
    _, path = started
    whole, kept = path.read_bytes(), path.with_name("training.old-2.npz")
    path.with_name("training.old.npz").mkdir()
    line = checkpoint.unfinished(path)
    assert "was stopped after 2 episodes; --resume would go on." in line
    assert line.endswith("It is kept as training.old-2.npz.")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="cannot be kept"):
        patch.setattr(os, "rename", lambda *_: os.link(path, path))
        checkpoint.set_aside(path)
    checkpoint.set_aside(path)
    assert kept.read_bytes() == whole and not path.exists()


# ---- what an agent may hold


def test_all_that_an_agent_holds_comes_back(tmp_path, capsys):
    path, one, other = tmp_path / "training.npz", anything(1), anything(2)
    State(one).save(path)
    State(other).restore(path)
    with np.load(path) as file:
        assert len(file["array/ring"]) == 3  # as far as it is written
    np.testing.assert_equal(held(other), held(one))
    np.testing.assert_equal(values(other), values(one))
    assert len(values(one)) == 6 and len(held(one)) == 18
    assert np.signbit(other.ring["state"][1, 0])  # a zero, but its sign is saved
    assert capsys.readouterr().out == ""


def test_an_attribute_that_cannot_be_saved_is_said_once(tmp_path, capsys):
    agent, path = anything(1), tmp_path / "training.npz"
    agent.buffer.weight = tf.Variable(1.0)
    vars(agent).update(sizes=[64, 64], table={}, act=tf.nn.relu, dice=random.Random(),
                       names=np.array(["x", None]), other=SimpleNamespace(deep=set()))
    for _ in range(2):
        State(agent).save(path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", is not saved")[0] for line in lines] == [
        "buffer.weight, a ResourceVariable", "sizes, a list", "table, a dict", "act, a function",
        "dice, a Random", "names, a ndarray", "other.deep, a set"]
    State(agent).restore(path)


# ---- scripts, killed and told to stop

# Killed when half of the n-th state is on the disk, or as soon as all of it is.
DIE = """
import os, runpy, signal, sys
import numpy as np
where, n, script, *rest = sys.argv[1:]
save, replace, count = np.savez, os.replace, 0
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def savez(file, **arrays):
    global count
    count += "training.npz" in str(file.name)
    save(file, **arrays)
    if count == int(n) and where == "writing":
        file.flush()
        os.truncate(file.name, file.tell() // 2)
        die()
def renamed(source, target):
    replace(source, target)
    if count == int(n) and where == "after renaming":
        die()
np.savez, os.replace = savez, renamed
sys.argv = [script, *rest]
runpy.run_path(script, run_name="__main__")
"""
EPISODES = 20
FLAGS = {
    "ddpg": ["--noise", "ou"],
    "td3": ["--env", "tasks:Short-v0", "--update-itr", 1,
            "--policy-target-update-interval", 2],
    "sac": ["--evaluate-every", 200, "--evaluation-episodes", 3, "--keep", "best"],
}


def dies_in_a_save(line, where):
    """Killed in or after its fifth save; returns after how many episodes its state is."""
    done = subprocess.run([sys.executable, "-c", DIE, where, "5", *line[1:]], **PROCESS,
                          capture_output=True, timeout=600)
    assert done.returncode == -signal.SIGKILL
    return 4 if where == "writing" else 5


def starts(line, episodes):
    """The process of a run that has just played so many episodes."""
    process = subprocess.Popen(line, **PROCESS, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    while f"Episode: {episodes}/" not in process.stdout.readline():
        assert process.poll() is None
    return process


def dies_anywhere(line):
    process = starts(line, 8)
    time.sleep(random.uniform(0.0, 0.3))
    process.kill()
    process.communicate()


def is_told_to_stop(line, number):
    """Told once; returns after how many episodes its state is."""
    process = starts(line, 13)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert ("Stopping after this episode" in err) == (number == signal.SIGINT)
    last = out.splitlines()[-1]
    assert last.startswith("Stopped after ")
    assert last.endswith(f" of {EPISODES} episodes: the same command with --resume goes on.")
    return int(last.split()[2])


TASKS = {"PYTHONPATH": str(ROOT / "tests")}  # which tasks.py is in
PROCESS = {"cwd": ROOT, "env": environment(**TASKS)}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("script", "in_a_save", "told"), [
    ("ddpg", "writing", signal.SIGTERM),
    ("td3", "after renaming", signal.SIGINT),
    ("sac", "writing", signal.SIGINT),
])
def test_whatever_stops_it_it_ends_as_if_nothing_had(script, in_a_save, told, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    flags = ["--train", "--episodes", EPISODES, "--checkpoint-every", 1, *SHORT[script],
             *FLAGS[script]]
    status, _, err = run(script, *flags, folder=whole, **TASKS)
    assert (status, err) == (0, [])
    line = command(script, *flags, folder=broken)
    saved = dies_in_a_save(line, in_a_save)
    state = next(broken.glob("model/*/training.npz"))
    assert checkpoint.progress_in(state).episodes == saved
    dies_anywhere([*line, "--resume"])
    assert checkpoint.progress_in(state).episodes >= 7
    saved = is_told_to_stop([*line, "--resume"], told)
    status, out, err = run(script, *flags, "--resume", folder=broken, **TASKS)
    assert (status, err) == (0, [])
    assert f"Resumed {state} after {saved} episodes." in out
    for path in (*whole.glob("model/*/weights.npz"), *whole.glob("image/*.png")):
        same = (broken / path.relative_to(whole)).read_bytes() == path.read_bytes()
        assert same, path.name
    ends = [checkpoint.progress_in(next(f.glob("model/*/training.npz"))) for f in (whole, broken)]
    for end in ends:
        end.seconds, end.log_name = 0.0, ""
    assert ends[0] == ends[1]
    assert len(ends[0].episode_reward) == EPISODES
    assert (len(ends[0].evaluations), ends[0].best is None) == ((7, False) if script == "sac"
                                                                else (0, True))
