"""--explain: the picture of what was learned, and what it is drawn from."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_scripts import run

import ddpg
import sac
import td3
from common import explain, pendulum
from common.errors import UserError

SCRIPTS = {"ddpg": ddpg, "td3": td3, "sac": sac}


class Swinger:
    """Pushes the way it moves; its Q is 5 at the top, and lower elsewhere."""

    def greedy_actions(self, states):
        return 2 * np.sign(states[:, 2:])

    def q_values(self, states, actions):
        assert actions.shape == (len(states), 1)
        return 5 * states[:, 0] - 0.1 * states[:, 2] ** 2


@pytest.fixture(autouse=True)
def small_grid(monkeypatch):
    monkeypatch.setattr(explain, "N_ANGLES", 40)
    monkeypatch.setattr(explain, "N_SPEEDS", 41)


def settings(folder, reward_scale=1.0, gamma=0.9, preset="chapter", unit_actions=False):
    constants = {"GAMMA": gamma, "REWARD_SCALE": reward_scale}
    return SimpleNamespace(constants=constants, algorithm="TD3", env_id="Pendulum-v1", seed=2,
                           task=("TD3", "Pendulum-v1", preset), image_dir=str(folder),
                           unit_actions=unit_actions)


def drawn(monkeypatch, folder, agent=None, **changed):
    """What save() hands to the drawing, and the file; nothing is drawn or written."""
    found = {}

    def draw(figure, columns, start, gamma, one_scale):
        above, below, policies, values, units = zip(*columns)
        found.update(policies=policies, values=values, start=start, texts=[*above, *below, *units],
                     one_scale=one_scale)

    monkeypatch.setattr(explain, "_draw", draw)
    monkeypatch.setattr(explain.curve, "save_figure", lambda path, figure: found.update(path=path))
    explain.save(agent or Swinger(), settings(folder, **changed))
    return found


@pytest.mark.parametrize(
    ("folder", "preset", "expected"),
    [
        ("image", "chapter", "image/td3_explained.png"),
        ("image", "tuned", "image/td3_Pendulum-v1_tuned_explained.png"),
        ("mine", "chapter", "mine/td3_Pendulum-v1_explained.png"),
    ],
)
def test_path(folder, preset, expected, monkeypatch):
    assert drawn(monkeypatch, folder, preset=preset)["path"] == Path(expected)


def test_picture(tmp_path, capsys):
    for name in "ab":
        explain.save(Swinger(), settings(tmp_path / name))
    files = [tmp_path / name / "td3_Pendulum-v1_explained.png" for name in "ab"]
    assert capsys.readouterr().out.splitlines() == [f"Saved {file}" for file in files]
    assert Image.open(files[0]).size == (1200, 1050)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        explain.save(Swinger(), settings(tmp_path / "file"))


def test_what_is_drawn(monkeypatch, tmp_path):
    found = drawn(monkeypatch, tmp_path)
    angles, speeds = np.broadcast_arrays(*pendulum.grid(40, 41))
    policy, best_policy = (policy(angles, speeds) for policy in found["policies"])
    value, best_value = found["values"]
    np.testing.assert_array_equal(policy, 2 * np.sign(speeds))
    np.testing.assert_allclose(value, 5 * np.cos(angles) - 0.1 * speeds**2, atol=1e-5)
    values = pendulum.value_functions(40, 41, explain.N_TORQUES, gamma=0.9)
    np.testing.assert_array_equal(best_value, values[-1])
    np.testing.assert_array_equal(
        best_policy, pendulum.greedy_torques(values[-2], angles, speeds, 0.9)
    )
    assert found["one_scale"]


def test_the_units_are_the_environments(monkeypatch, tmp_path):
    plain = drawn(monkeypatch, tmp_path)
    scaled = drawn(monkeypatch, tmp_path, reward_scale=0.1)
    np.testing.assert_allclose(scaled["values"][0], 10 * plain["values"][0], rtol=1e-5)
    # Of standardised rewards, nobody knows the scale.
    agent = Swinger()
    agent.standardise_rewards = True
    kept = drawn(monkeypatch, tmp_path, agent, reward_scale=0.1)
    np.testing.assert_array_equal(kept["values"][0], plain["values"][0])
    assert not kept["one_scale"]
    unit = drawn(monkeypatch, tmp_path, unit_actions=True)  # the Swinger's 2 are clipped
    np.testing.assert_array_equal(unit["policies"][0](0.0, 1.0), plain["policies"][0](0.0, 1.0))


def test_what_is_written(monkeypatch, tmp_path):
    soft, standardised = Swinger(), Swinger()
    soft.log_alpha, standardised.standardise_rewards = 0.0, True
    for agent, q, unit in [
        (Swinger(), "Q(s, π(s))", " rewards"),
        (soft, "soft Q(s, π(s))", " rewards + entropy"),
        (standardised, "Q(s, π(s))", "\nstandardised rewards"),
    ]:
        texts = drawn(monkeypatch, tmp_path, agent)["texts"]
        assert texts == ["TD3's policy π", "best policy for γ = 0.9",
                         f"TD3's {q}", "best value for γ = 0.9", unit, " rewards"]


def test_the_line_is_the_episode_that_the_agent_plays(monkeypatch, tmp_path):
    from common.evaluation import Evaluation

    agent = td3.TD3(3, 1, td3.ReplayBuffer(10), 8, np.float32([2.0]))
    found = drawn(monkeypatch, tmp_path, agent, gamma=1.0)
    learned, best = (explain._episode(policy, *found["start"]) for policy in found["policies"])
    angles, speeds, rewards = learned
    assert angles.shape == speeds.shape == (201,) and rewards.shape == (200,)
    played = Evaluation("Pendulum-v1", 200).returns(agent, [2])[0]
    assert rewards.sum() == pytest.approx(played, abs=0.01)
    assert (best[0][0], best[1][0]) == (angles[0], speeds[0])
    # It swings up, which an agent that knows nothing does not.
    assert best[2].sum() > rewards.sum() + 100


def test_both_returns_of_both_are_noted(monkeypatch, tmp_path):
    """What is best with a discount has the larger discounted return, not the larger other one."""
    notes = []
    monkeypatch.setattr(explain, "_note", lambda axis, text: notes.append(text))
    explain.save(Swinger(), settings(tmp_path, gamma=0.9))
    learned, best = (dict(line.split(": ") for line in note.split("\n")) for note in notes[:2])
    found = drawn(monkeypatch, tmp_path, gamma=0.9)
    for noted, policy in zip((learned, best), found["policies"]):
        *_, rewards = explain._episode(policy, *found["start"])
        assert float(noted["undiscounted return"]) == pytest.approx(sum(rewards), abs=0.06)
        discounted = sum(0.9**t * reward for t, reward in enumerate(rewards))
        assert float(noted["discounted return"]) == pytest.approx(discounted, abs=0.06)
    assert float(best["discounted return"]) > float(learned["discounted return"])


def test_the_environment_is_closed_whatever_it_raises(monkeypatch):
    class Broken:
        closed = False

        def reset(self, seed):
            raise OSError("no simulator")

        def close(self):
            self.closed = True

    env = Broken()
    monkeypatch.setattr("common.making.make", lambda env_id: env)
    with pytest.raises(OSError, match="no simulator"):
        explain.start(settings("image"))
    assert env.closed


@pytest.mark.parametrize("script", SCRIPTS)
def test_q_values_are_the_networks(script):
    if script == "ddpg":
        agent = ddpg.DDPG(1, 3, np.float32([2.0]), hidden_dim=8, memory_capacity=10)
        nets = [agent.critic]
    elif script == "td3":
        agent = td3.TD3(3, 1, td3.ReplayBuffer(10), 8, np.float32([2.0]))
        nets = [agent.q_net1, agent.q_net2]
    else:
        agent = sac.SAC(3, 1, sac.ReplayBuffer(10), 8, np.float32([2.0]))
        nets = [agent.soft_q_net1, agent.soft_q_net2]
    rng = np.random.default_rng(0)
    first = [rng.normal(size=weight.shape) for weight in nets[0].trainable_weights]
    for net in nets:  # nearly equal, so that now the one is smaller and now the other
        for weight, value in zip(net.trainable_weights, first):
            weight.assign(value + 0.1 * rng.normal(size=value.shape))
    states = rng.normal(size=(50, 3)).astype(np.float32)
    actions = rng.normal(size=(50, 1)).astype(np.float32)
    outputs = []
    for net in nets:
        x = np.hstack([states, actions])
        matrices = [weight.numpy() for weight in net.trainable_weights]
        for matrix, bias in zip(matrices[0::2], matrices[1::2]):
            x = x @ matrix + bias
            x = np.maximum(x, 0) if len(bias) > 1 else x
        outputs.append(x[:, 0])
    assert len(set(np.argmin(outputs, axis=0))) == len(nets)
    found = agent.q_values(states, actions)
    assert found.shape == (50,)
    np.testing.assert_allclose(found, np.min(outputs, axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [("Pendulum-v1", True), ("Pendulum-v0", True), ("gymnasium:Pendulum-v1", True),
     ("Pendulum", True), ("InvertedPendulum-v4", False), ("mine:Pendulum-v1", False)],
)
def test_what_can_be_shown(env_id, expected):
    assert explain.can_show(env_id) is expected


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--train --explain", "td3.py: --explain needs --test"),
        ("--train --test --explain --env MountainCarContinuous-v0",
         "td3.py: --explain needs --env Pendulum-v1: it draws over angle and speed"),
    ],
)
def test_refused_before_anything_is_played(flags, line):
    assert run("td3", *flags.split()) == (2, [], [line])


@pytest.mark.slow
def test_a_shipped_agent(tmp_path):
    flags = ["--test", "--test-episodes", "1", "--explain", "--image-dir", str(tmp_path)]
    status, out, err = run("ddpg", *flags)
    assert (status, err) == (0, [])
    file = tmp_path / "ddpg_Pendulum-v1_explained.png"
    assert out[-1] == f"Saved {file}"
    assert file.exists()
