"""Evaluations: greedy episodes side by side are those that would be played alone."""

import contextlib
import random

import gym
import numpy as np
import pytest
from gym.envs.classic_control import PendulumEnv

from common.files.names import ROOT
from common.flags import Command
from common.tasks.making import make
from common.training.evaluation import SIDE_BY_SIDE, TEST_STARTS, VALIDATION_STARTS, Evaluation


class Agent:
    """Pushes towards where the last component of the state is going."""

    def __init__(self, high):
        self.high = np.float32(high)
        self.asked = set()

    def greedy_actions(self, states):
        self.asked.add(states.shape)
        return self.high * np.sign(states[:, -1:]) * np.ones_like(self.high)


def one_by_one(agent, env, starts, max_steps):
    """The return and the length of each episode."""
    played = []
    for seed in starts:
        state, total, steps, done = env.reset(seed=seed), 0.0, 0, False
        while not done and steps < max_steps:
            state, reward, done, _ = env.step(agent.greedy_actions(state[np.newaxis])[0])
            total, steps = total + reward, steps + 1
        played.append((total, steps))
    agent.asked.clear()
    return zip(*played)


@pytest.mark.parametrize("starts", [[5], range(20)], ids=["one", "many"])
@pytest.mark.parametrize(
    ("env_id", "unit_actions", "max_steps"),
    [
        ("Pendulum-v1", True, 30),
        ("MountainCarContinuous-v0", False, 999),  # ends at the goal, each start at another time
        ("InvertedPendulum-v5", True, 1000),
    ],
)
def test_side_by_side_is_as_one_by_one(env_id, unit_actions, max_steps, starts):
    if "Inverted" in env_id:
        pytest.importorskip("mujoco")
    settings = Command(ROOT / "td3.py").settings({"UNIT_ACTIONS": unit_actions})
    env = make(env_id, settings=settings)
    agent = Agent(env.action_space.high)
    with contextlib.closing(Evaluation(env, max_steps)) as evaluation:
        expected, lengths = one_by_one(agent, env, starts, max_steps)
        assert evaluation.returns(agent, starts) == list(expected)
        # One shape only, for which the policy is compiled.
        assert agent.asked == {(SIDE_BY_SIDE, env.observation_space.shape[0])}
    if env_id != "Pendulum-v1" and len(starts) > 1:
        assert len(set(lengths)) > 1 and min(lengths) < max_steps


def test_what_chooses_the_weights_is_not_what_they_are_judged_by():
    assert not set(TEST_STARTS) & set(VALIDATION_STARTS)


class Counted(PendulumEnv):
    """Draws from all global random numbers; notes how many are open."""

    open, peak = 0, 0

    def __init__(self, **options):
        random.random()
        np.random.random()
        Counted.open += 1
        Counted.peak = max(Counted.peak, Counted.open)
        super().__init__(**options)

    def reset(self, **options):
        random.random()
        np.random.random()
        return super().reset(**options)

    def close(self):
        Counted.open -= 1


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Counted, "open", 0)
    monkeypatch.setattr(Counted, "peak", 0)
    monkeypatch.setitem(gym.envs.registration.registry, "Counted-v0", gym.envs.registration.EnvSpec(
        "Counted-v0", entry_point=Counted, max_episode_steps=20))
    return Counted


def test_both_random_streams_go_on_as_without_it(counted):
    env = make("Counted-v0")
    evaluation, agent = Evaluation(env, 20), Agent([2.0])
    env.reset(seed=3)
    for starts in (range(3), range(20)):  # environments are opened for both
        random.seed(5)
        np.random.seed(5)
        streams = random.random(), np.random.random(), env.reset(seed=3)
        random.seed(5)
        np.random.seed(5)
        env.seed(3)
        evaluation.returns(agent, starts)
        np.testing.assert_equal((random.random(), np.random.random(), env.reset()), streams)


def test_few_are_open_and_one_alone_of_a_module_of_ones_own(counted):
    for env_id, most in (("Counted-v0", SIDE_BY_SIDE), (f"{__name__}:Counted-v0", 1)):
        env = make(env_id)
        with contextlib.closing(Evaluation(env, 20)) as evaluation:
            for starts in (range(2), range(20), [1]):
                assert len(evaluation.returns(Agent([2.0]), starts)) == len(starts)
            assert counted.open - 1 == counted.peak - 1 == most
        assert counted.open == 1
        env.close()
        counted.peak = 0
