"""common/evaluation.py: greedy episodes side by side are those that would be played alone."""

import numpy as np
import pytest

from common.environment import make
from common.evaluation import TEST_STARTS, VALIDATION_STARTS, Evaluation


class Agent:
    """Pushes towards where the last component of the state is going."""

    def __init__(self, high):
        self.high = np.float32(high)

    def greedy_actions(self, states):
        self.asked = states.shape
        return self.high * np.sign(states[:, -1:]) * np.ones_like(self.high)


@pytest.mark.parametrize(
    ("env_id", "unit_actions", "max_steps"),
    [
        ("Pendulum-v1", False, 200),
        ("Pendulum-v1", True, 30),
        ("MountainCarContinuous-v0", False, 999),  # ends at the goal, each start at another time
        ("InvertedPendulum-v5", True, 1000),
    ],
)
def test_side_by_side_is_as_one_by_one(env_id, unit_actions, max_steps):
    if "Inverted" in env_id:
        pytest.importorskip("mujoco")
    env = make(env_id, unit_actions=unit_actions)
    agent = Agent(env.action_space.high)
    starts, expected, lengths = [3, 5, 8], [], []
    for seed in starts:
        state, total, steps, over = env.reset(seed=seed), 0.0, 0, False
        while not over and steps < max_steps:
            state, reward, done, info = env.step(agent.greedy_actions(state[np.newaxis])[0])
            total, steps, over = total + reward, steps + 1, done or info["TimeLimit.truncated"]
        expected.append(total)
        lengths.append(steps)
    evaluation = Evaluation(env_id, starts, max_steps, unit_actions)
    assert evaluation.returns(agent) == pytest.approx(expected)
    assert evaluation.returns(agent) == pytest.approx(expected)  # and again, from the same starts
    assert agent.asked == (3, env.observation_space.shape[0])
    if env_id != "Pendulum-v1":
        assert len(set(lengths)) > 1 and min(lengths) < max_steps


def test_what_chooses_the_weights_is_not_what_they_are_judged_by():
    assert not set(TEST_STARTS) & set(VALIDATION_STARTS)
