"""common/checkpoint.py: a training killed at any moment and resumed ends as if it had not been.

First in one process, for each algorithm; then with scripts that are killed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from test_library import made
from test_scripts import ROOT, SHORT, command, environment, run

import ddpg
import sac
import td3
from common import checkpoint
from common.errors import UserError
from common.making import make
from common.progress import Progress
from common.replay_buffer import ReplayBuffer

CONSTANTS = {"GAMMA": 0.9, "BATCH_SIZE": 8, "TRAIN_EPISODES": 3}
SOURCE = {"code": "a" * 64, "versions": {"numpy": "2.1"}}
PROGRESS = Progress(
    episode_reward=[-1.5, -0.25], all_episode_reward=[-1.5, -1.375], steps=60, seconds=1.5,
    learned=True, evaluations=[[0, [-9.5, -8.0]], [30, [-3.0, -2.5]]], best=[30, -2.75],
    log_name="x",
)


class Run:
    """An agent of a script, its environment, and the script's loop."""

    def __init__(self, module, seed, eager=True):
        random.seed(seed)
        np.random.seed(seed)
        tf.random.set_seed(seed)
        self.module = module
        self.env = make("Pendulum-v1")
        self.env.seed(seed)
        high = self.env.action_space.high
        if module is ddpg:
            self.agent = self.buffer = ddpg.DDPG(1, 3, high, hidden_dim=8, batch_size=8, noise="ou",
                                                eager=eager)
            self.store, self.act = self.agent.store_transition, self.agent.get_action
            self.update = lambda: self.agent.learn(2)
            return
        self.buffer = ReplayBuffer(1000)
        self.store = self.buffer.push
        if module is td3:
            self.agent = td3.TD3(3, 1, self.buffer, 8, high, eager=eager)
            self.act = lambda s: self.agent.policy_net.get_action(s, 1.0)
            self.update = lambda: self.agent.update(8, 0.5, n_updates=2)
        else:
            self.agent = sac.SAC(3, 1, self.buffer, 8, high, eager=eager)
            self.act = self.agent.policy_net.get_action
            self.update = lambda: self.agent.update(8, n_updates=2)

    def play(self, episodes, steps=12):
        """The rewards of all steps, and what the random numbers of all are then."""
        rewards = []
        for _ in range(episodes):
            state = self.env.reset()
            for step in range(steps):
                next_state, reward, done, _ = self.env.step(self.act(state))
                self.store(state, self.act(state), reward, next_state, done)
                rewards.append(reward)
                state = next_state
                if step > 8:
                    self.update()
        return [*rewards, random.random(), np.random.random()]

    def values(self):
        return self.agent.compiler.values()

    def save(self, path):
        checkpoint.save(path, self.agent, self.env, CONSTANTS, PROGRESS, SOURCE)

    def restore(self, path, constants=CONSTANTS):
        return checkpoint.restore(path, self.agent, self.env, constants, SOURCE)


@pytest.fixture
def started(tmp_path):
    """A run after two episodes, and the file its state was saved to."""
    one = made(Run, ddpg, 1)
    one.play(2)
    path = tmp_path / "sub" / "training.npz"
    one.save(path)
    return one, path


@pytest.mark.parametrize("module", [pytest.param(ddpg, marks=pytest.mark.slow, id="ddpg"),
                                    pytest.param(td3, id="td3"),
                                    pytest.param(sac, marks=pytest.mark.slow, id="sac")])
def test_restored_is_as_saved_bit_for_bit(module, tmp_path):
    path = tmp_path / "training.npz"
    one, other = made(Run, module, 1, False), made(Run, module, 5, False)
    one.play(2)
    one.save(path)
    unlike = other.play(3)
    other.restore(path)  # for the generators of all
    after = one.play(3)
    assert other.restore(path) == PROGRESS
    assert other.play(3) == after != unlike
    np.testing.assert_equal(one.values(), other.values())


def test_a_buffer_is_saved_as_far_as_it_is_written(started):
    _, path = started
    with np.load(path) as file:
        assert len(file["agent/stored"]) == 24


def test_other_constants_are_named_and_nothing_changes(started):
    one, path = started
    before = one.values()
    constants = {**CONSTANTS, "GAMMA": 0.95, "BATCH_SIZE": 9, "TRAIN_EPISODES": 300}
    with pytest.raises(UserError) as error:
        one.restore(path, constants)
    assert "GAMMA is 0.9 there, 0.95 here; BATCH_SIZE is 8 there, 9 here. " in str(error.value)
    assert "TRAIN_EPISODES" not in str(error.value)
    np.testing.assert_equal(one.values(), before)


def test_damaged_files_are_refused_in_one_line(started):
    one, path = started
    whole = path.read_bytes()
    for damaged in (b"", b"no zip", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            one.restore(path)
        assert checkpoint.progress_in(path) is None
    path.unlink()
    with pytest.raises(UserError, match="no such file, so nothing to resume"):
        one.restore(path)


def test_a_full_disk_leaves_the_old_state(started, monkeypatch):
    one, path = started
    whole = path.read_bytes()
    one.play(1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        one.save(path)
    assert path.read_bytes() == whole
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_another_agent_is_refused(started):
    one, path = started
    one.agent.new_number = 3
    one.agent.state_names.append("new_number")
    one.save(path)
    other = made(Run, ddpg, 5)
    with pytest.raises(UserError, match=r"this version of these scripts \(state/agent\)"):
        other.restore(path)


# ---- scripts, killed

FLAGS = ["--train", "--episodes", 40, "--checkpoint-every", 1, *SHORT["td3"]]
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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    status, _, err = run("td3", *FLAGS, folder=folder)
    assert (status, err) == (0, [])
    return folder


def assert_same_end(folder, expected):
    task, image = "model/TD3_Pendulum-v1/", "image/td3_Pendulum-v1.png"
    for name in (task + "weights.npz", image):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    rewards = []
    for f in (folder, expected):
        with np.load(f / task / "training.npz") as file:
            rewards.append(json.loads(file["header"].item())["progress"]["episode_reward"])
    assert len(rewards[0]) == 40
    assert rewards[0] == rewards[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("where", ["writing", "after renaming"])
def test_killed_while_saving(where, uninterrupted, tmp_path):
    line = command("td3", *FLAGS, folder=tmp_path)
    die = [sys.executable, "-c", DIE, where, "9", *line[1:]]
    done = subprocess.run(die, cwd=ROOT, env=environment(), capture_output=True, timeout=600)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model/TD3_Pendulum-v1/weights.npz").exists()
    status, out, err = run("td3", *FLAGS, "--resume", folder=tmp_path)
    assert (status, err) == (0, [])
    done = 9 if where == "after renaming" else 8
    assert any(line.endswith(f"training.npz after {done} episodes.") for line in out)
    assert_same_end(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_at_random_moments(uninterrupted, tmp_path):
    state = tmp_path / "model/TD3_Pendulum-v1/training.npz"
    flags = FLAGS
    for _ in range(2):
        process = subprocess.Popen(
            command("td3", *flags, folder=tmp_path),
            cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and not (
            state.exists() and state.stat().st_mtime_ns != before
        ):
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.5))
        process.kill()
        process.wait()
        flags = [*FLAGS, "--resume"]
    status, _, err = run("td3", *flags, folder=tmp_path)
    assert (status, err) == (0, [])
    assert_same_end(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("env_id", ["MountainCarContinuous-v0", "InvertedPendulum-v5"])
def test_killed_on_another_task_with_all_that_a_long_run_has(env_id, tmp_path):
    """Terminals, held random actions, evaluations and the best weights; episodes of any length."""
    if "Inverted" in env_id:
        pytest.importorskip("mujoco")
    flags = ["--train", "--env", env_id, "--preset", "tuned", "--steps", 700, "--max-steps", 150,
             "--hidden-dim", 8, "--batch-size", 16, "--explore-steps", 200, "--explore-hold", 7,
             "--learn-after", 200, "--evaluate-every", 100, "--evaluation-episodes", 2,
             "--checkpoint-every", 1]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("sac", *flags, folder=whole)[0] == 0
    line = command("sac", *flags, folder=killed)
    die = [sys.executable, "-c", DIE, "after renaming", "4", *line[1:]]
    subprocess.run(die, cwd=ROOT, env=environment(), capture_output=True, timeout=600)
    status, out, err = run("sac", *flags, "--resume", folder=killed)
    assert (status, err) == (0, [])
    assert any(line.endswith("training.npz after 4 episodes.") for line in out)
    (name,) = [path.relative_to(whole) for path in whole.glob("model/*/weights.npz")]
    assert (killed / name).read_bytes() == (whole / name).read_bytes()
    ends = [checkpoint.progress_in((f / name).with_name("training.npz")) for f in (whole, killed)]
    for key in ("episode_reward", "evaluations", "best", "test_returns", "steps"):
        assert getattr(ends[0], key) == getattr(ends[1], key), key
    assert ends[0].steps >= 700 and len(ends[0].evaluations) > 4


@pytest.mark.slow
def test_resume_with_other_constants_stops(uninterrupted):
    status, _, err = run("td3", *FLAGS, "--resume", "--gamma", 0.5, folder=uninterrupted)
    assert status == 1
    assert len(err) == 1
    assert "GAMMA is 0.9 there, 0.5 here" in err[0]


@pytest.mark.slow
def test_a_forgotten_resume_loses_nothing(uninterrupted, tmp_path):
    folder = tmp_path / "model" / "TD3_Pendulum-v1"
    flags = ["--train", "--checkpoint-every", 1, *SHORT["td3"]]
    state = folder / "training.npz"
    process = subprocess.Popen(
        command("td3", *flags, "--episodes", 1000, folder=tmp_path),
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not state.exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    stopped = state.read_bytes()
    status, out, err = run("td3", *flags, "--episodes", 2, folder=tmp_path)
    assert (status, err) == (0, [])
    assert any("--resume would go on. It is kept as training.old.npz." in line for line in out)
    assert (folder / "training.old.npz").read_bytes() == stopped
