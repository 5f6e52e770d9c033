"""--explain: the picture of what was learned, and what it is drawn from."""

from types import SimpleNamespace

import numpy as np
import pytest
from agents import new_agent
from PIL import Image

from common.files.names import picture_path
from common.pendulum import explain, optimum
from common.tasks.making import make
from common.training.evaluation import Evaluation


class Swinger:
    """Pushes the way it moves; its Q is 5 at the top, and lower elsewhere."""

    q_unit = "pounds"

    def greedy_actions(self, states):
        return 2 * np.sign(states[:, 2:])

    def q_values(self, states, actions):
        assert actions.shape == (len(states), 1)
        return 5 * states[:, 0] - 0.1 * states[:, 2] ** 2


@pytest.fixture(autouse=True)
def small_grid(monkeypatch):
    monkeypatch.setattr(explain, "N_ANGLES", 40)
    monkeypatch.setattr(explain, "N_SPEEDS", 41)


def settings(folder, gamma=0.9, reward_scale=1.0, unit_actions=False, **constants):
    constants |= {"GAMMA": gamma, "REWARD_SCALE": reward_scale}
    return SimpleNamespace(constants=constants, algorithm="TD3", env_id="Pendulum-v1", seed=2,
                           task=("TD3", "Pendulum-v1", "mine"), image_dir=folder,
                           unit_actions=unit_actions)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A function that gives what save() hands to the drawing; nothing is drawn or written."""
    monkeypatch.setattr(explain, "save_figure", lambda path, figure: None)

    def what(agent=None, **changed):
        found = {}

        def draw(figure, columns, start, gamma, one_scale):
            above, below, policies, values, units = zip(*columns)
            found.update(policies=policies, values=values, start=start,
                         texts=[*above, *below, *units], one_scale=one_scale)

        monkeypatch.setattr(explain, "draw", draw)
        explain.save(agent or Swinger(), settings(tmp_path, **changed))
        return found

    return what


def test_picture(tmp_path, capsys):
    pictures = []
    for name in "ab":
        explain.save(Swinger(), settings(tmp_path / name))
        beside = picture_path(tmp_path / name, "TD3", "Pendulum-v1", "mine")
        pictures.append(beside.with_name(beside.stem + "_explained.png"))
    assert capsys.readouterr().out.splitlines() == [f"Saved {file}" for file in pictures]
    assert Image.open(pictures[0]).size == (1200, 1050)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_what_is_drawn(drawn):
    found = drawn()
    angles, speeds = np.broadcast_arrays(*optimum.grid(40, 41))
    policy, best_policy = (policy(angles, speeds) for policy in found["policies"])
    value, best_value = found["values"]
    np.testing.assert_array_equal(policy, 2 * np.sign(speeds))
    np.testing.assert_allclose(value, 5 * np.cos(angles) - 0.1 * speeds**2, atol=1e-5)
    values = optimum.value_functions(40, 41, explain.N_TORQUES, gamma=0.9)
    np.testing.assert_array_equal(best_value, values[-1])
    np.testing.assert_array_equal(
        best_policy, optimum.greedy_torques(values[-2], angles, speeds, 0.9)
    )
    assert found["one_scale"]
    assert found["texts"] == ["TD3's policy π", "best policy for γ = 0.9", "TD3's Q(s, π(s))",
                              "best value for γ = 0.9", " pounds", " rewards"]


def test_the_units_are_the_environments(drawn):
    plain, scaled = drawn(), drawn(reward_scale=0.1)
    np.testing.assert_allclose(scaled["values"][0], 10 * plain["values"][0], rtol=1e-5)
    # Of standardised rewards, nobody knows the scale.
    kept = drawn(reward_scale=0.1, STANDARDISE_REWARDS=True)
    np.testing.assert_array_equal(kept["values"][0], plain["values"][0])
    assert not kept["one_scale"]
    assert kept["texts"][4] == "\nstandardised pounds"
    unit = drawn(unit_actions=True)  # the Swinger's 2 are clipped
    np.testing.assert_array_equal(unit["policies"][0](0.0, 1.0), plain["policies"][0](0.0, 1.0))


def test_the_line_is_the_episode_that_the_agent_plays(drawn):
    agent = new_agent("td3")
    found = drawn(agent, gamma=1.0)
    learned, best = (explain.episode(policy, *found["start"]) for policy in found["policies"])
    angles, speeds, rewards = learned
    assert angles.shape == speeds.shape == (201,) and rewards.shape == (200,)
    played = Evaluation(make("Pendulum-v1"), 200).returns(agent, [2])[0]
    assert rewards.sum() == pytest.approx(played, abs=0.01)
    assert (best[0][0], best[1][0]) == (angles[0], speeds[0])
    # It swings up, which an agent that knows nothing does not.
    assert best[2].sum() > rewards.sum() + 100


@pytest.mark.parametrize("script", ["ddpg", "td3", "sac"])
def test_q_values_are_the_networks(script):
    agent = new_agent(script)
    policy, critics = agent.layers()
    rng = np.random.default_rng(0)
    states = rng.normal(size=(50, 3)).astype(np.float32)

    def output(layers, x):
        for layer in layers:
            x = x @ layer.W.numpy() + layer.b.numpy()
            x = x if layer is layers[-1] else np.maximum(x, 0)
        return x

    actions = agent.greedy_actions(states)
    np.testing.assert_allclose(2 * np.tanh(output(policy, states)), actions, rtol=1e-4, atol=1e-5)
    outputs = [output(critic, np.hstack([states, actions]))[:, 0] for critic in critics]
    if len(critics) == 2:  # level them, so that now the one is smaller and now the other
        above = np.median(outputs[0] - outputs[1])
        critics[1][-1].b.assign_add([above])
        outputs[1] += above
        assert 0 < np.mean(outputs[0] < outputs[1]) < 1
    found = agent.q_values(states, actions)
    np.testing.assert_allclose(found, np.min(outputs, axis=0), rtol=1e-4, atol=1e-4)
