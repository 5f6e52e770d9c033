"""common/evaluation.py: greedy episodes side by side are those that would be played alone."""

import contextlib

import gym
import numpy as np
import pytest
from gym.envs.classic_control import PendulumEnv

from common.errors import UserError
from common.evaluation import SIDE_BY_SIDE, TEST_STARTS, VALIDATION_STARTS, Evaluation
from common.making import make


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
        state, total, steps, over = env.reset(seed=seed), 0.0, 0, False
        while not over and steps < max_steps:
            state, reward, done, info = env.step(agent.greedy_actions(state[np.newaxis])[0])
            total, steps, over = total + reward, steps + 1, done or info["TimeLimit.truncated"]
        played.append((total, steps))
    agent.asked.clear()
    return zip(*played)


@pytest.mark.parametrize("starts", [[3, 5, 8], [5], range(20)])
@pytest.mark.parametrize(
    ("env_id", "unit_actions", "max_steps"),
    [
        ("Pendulum-v1", False, 200),
        ("Pendulum-v1", True, 30),
        ("MountainCarContinuous-v0", False, 999),  # ends at the goal, each start at another time
        ("InvertedPendulum-v5", True, 1000),
    ],
)
def test_side_by_side_is_as_one_by_one(env_id, unit_actions, max_steps, starts):
    if "Inverted" in env_id:
        pytest.importorskip("mujoco")
    env = make(env_id, unit_actions=unit_actions)
    agent = Agent(env.action_space.high)
    with contextlib.closing(Evaluation(env_id, max_steps, unit_actions)) as evaluation:
        expected, lengths = one_by_one(agent, env, starts, max_steps)
        assert evaluation.returns(agent, starts) == list(expected)
        assert evaluation.returns(agent, starts) == list(evaluation.returns(agent, starts))
        # One shape only, for which the policy is compiled.
        assert agent.asked == {(SIDE_BY_SIDE, env.observation_space.shape[0])}
    if env_id != "Pendulum-v1" and len(starts) > 1:
        assert len(set(lengths)) > 1 and min(lengths) < max_steps


def test_what_chooses_the_weights_is_not_what_they_are_judged_by():
    assert not set(TEST_STARTS) & set(VALIDATION_STARTS)


# --- simulators that cannot be open often --------------------------------------------------


@pytest.fixture(params=["__init__", "reset"])
def limited(request, monkeypatch):
    """A class that refuses to be open more than `most` times; it notes how often it was."""

    class Limited(PendulumEnv):
        most, open, peak, made = 1, 0, 0, 0

        def __init__(self, **options):
            self.is_open = False
            type(self).made += 1
            super().__init__(**options)
            if request.param == "__init__":
                self.connect()

        def connect(self):
            if not self.is_open:
                if Limited.open >= self.most:
                    raise OSError("Address already in use")
                Limited.open += 1
                Limited.peak = max(Limited.peak, Limited.open)
                self.is_open = True

        def reset(self, **options):
            self.connect()
            return super().reset(**options)

        def close(self):
            if self.is_open:
                Limited.open -= 1
            self.is_open = False
            super().close()

    gym.envs.registration.registry.pop("Limited-v0", None)
    gym.register("Limited-v0", entry_point=Limited, max_episode_steps=20)
    return Limited


def test_one_that_can_be_open_once_is_shared(limited, capsys):
    env, twin = make("Limited-v0"), make("Pendulum-v1")
    agent = Agent(env.action_space.high)
    env.seed(2)
    twin.seed(2)
    evaluation = Evaluation("Limited-v0", 20, shared=env)
    pendulum = Evaluation("Pendulum-v1", 20)
    for _ in range(3):  # before the first reset, too
        for starts in (range(3), range(10, 30)):
            assert evaluation.returns(agent, starts) == pendulum.returns(agent, starts)
        # The training goes on as without the evaluation.
        for _ in range(2):
            np.testing.assert_array_equal(env.reset(), twin.reset())
            for _ in range(5):
                np.testing.assert_array_equal(env.step([1.0])[0], twin.step([1.0])[0])
    evaluation.close()
    assert limited.open == limited.peak == 1
    env.close()
    assert limited.open == 0
    assert capsys.readouterr().out == (
        "Limited-v0 can be open only once: evaluated in the training's own.\n"
    )


def test_a_shared_one_gets_its_random_numbers_back_after_an_error(limited):
    env, twin = make("Limited-v0"), make("Pendulum-v1")
    for each in (env, twin):
        each.reset(seed=2)

    class Broken:
        def greedy_actions(self, states):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Evaluation("Limited-v0", 20, shared=env).returns(Broken(), [1])
    np.testing.assert_array_equal(env.reset(), twin.reset())


@pytest.mark.parametrize(("most", "shared"), [(1, False), (2, True), (3, False), (5, True)])
def test_as_many_as_can_be_open(most, shared, limited, capsys):
    limited.most = most
    env = make("Limited-v0") if shared else None
    agent, starts = Agent([2.0]), range(20)
    with contextlib.closing(Evaluation("Limited-v0", 20, shared=env)) as evaluation:
        expected = Evaluation("Pendulum-v1", 20).returns(agent, starts)
        assert evaluation.returns(agent, starts) == expected
        made = limited.made
        assert evaluation.returns(agent, starts) == expected  # in those that are open already
        assert limited.open == limited.peak == most and limited.made == made
    assert limited.open == shared
    assert capsys.readouterr().out == ""


def test_few_are_open(limited):
    limited.most = 1000
    with contextlib.closing(Evaluation("Limited-v0", 20)) as evaluation:
        for starts, open_now in [(range(2), 2), (range(100), SIDE_BY_SIDE), ([1], SIDE_BY_SIDE)]:
            assert len(evaluation.returns(Agent([2.0]), starts)) == len(starts)
            assert limited.open == limited.peak == open_now
    assert limited.open == 0


def test_none_can_be_opened(limited):
    limited.most = 0
    with pytest.raises(UserError, match=r"Limited-v0.*Address already in use"):
        Evaluation("Limited-v0", 20).returns(Agent([2.0]), range(3))
    assert limited.open == 0
