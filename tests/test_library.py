"""The classes as a library: options, what is assigned, files.

What is assigned is assigned to two equal agents, one of which runs eagerly: this twin is the
expectation.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from agents import (
    CAPACITY,
    HIDDEN_DIM,
    SCRIPTS,
    act,
    made,
    new_agent,
    running,
    seed_everything,
    small_ddpg,
    transitions,
    update,
    values,
    widen,
)

import sac
import td3
from common import networks
from common.errors import UserError
from common.files.names import ROOT
from common.flags import Command


@pytest.fixture(autouse=True)
def sizes():
    with small_ddpg():
        yield


@pytest.fixture(scope="module")
def learned():
    """learned(script) -> an agent that has learned; it is the same in all tests."""
    found = {}

    def of(script):
        if script not in found:
            found[script] = new_agent(script)
            update(found[script])
        return found[script]

    return of


def assert_same(agent, twin):
    for name, value in values(agent).items():
        np.testing.assert_allclose(value, values(twin)[name], 2e-3, 2e-4, err_msg=name)
    for name, value in agent.losses.items():
        np.testing.assert_allclose(value, twin.losses[name], 2e-3, 2e-4, err_msg=name)
    np.testing.assert_allclose(act(agent), in_eager(act, twin), 1e-3, 1e-4)


def in_eager(function, agent):
    with running("eager"):
        return function(agent)


def same_updates(agent, twin, n=1):
    """Update both, the twin eagerly, with the same draws."""
    for _ in range(n):
        state = np.random.get_state()
        update(agent)
        np.random.set_state(state)
        in_eager(update, twin)


@pytest.mark.slow
def test_importing_prints_nothing():
    code = "from ddpg import DDPG; from td3 import TD3, ReplayBuffer; from sac import SAC"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# --- options


def test_two_agents_of_different_sizes():
    with running("eager"):
        small, large = new_agent("sac"), new_agent("sac", hidden_dim=7, state_dim=5)
        for agent in (small, large, small):
            update(agent)
        assert act(large, [0.1] * 5).shape == act(small).shape == (1,)


@pytest.mark.parametrize(
    ("script", "option"),
    [("ddpg", "weight_init"), ("ddpg", "noise"), ("td3", "weight_init"), ("td3", "policy_loss"),
     ("sac", "weight_init"), ("sac", "policy_loss")],
)
def test_an_unknown_choice(script, option):
    with pytest.raises(ValueError, match=rf"{option} must be \w+ or \w+, got 'other'"):
        new_agent(script, **{option: "other"})


# --- what is assigned


def q_network(agent):
    """As docs/library.md has it."""
    agent.q_net1 = made(td3.QNetwork, 3, 1, HIDDEN_DIM)
    widen(agent.q_net1.all_weights, 5)
    agent.q_net1.train()
    agent.q_optimizer1 = tf.optimizers.Adam(0.02)


def buffer(agent):
    seed_everything(3)
    agent.replay_buffer = sac.ReplayBuffer(CAPACITY)
    for transition in transitions(12):
        agent.replay_buffer.push(*transition)


ASSIGNED = {
    "q_network": ("td3", q_network),
    "clip_actions": ("td3", lambda agent: setattr(agent.target_policy_net, "clip_actions", True)),
    "log_std_min": ("sac", lambda agent: setattr(agent.policy_net, "log_std_min", 0.5)),
    "buffer": ("sac", buffer),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ASSIGNED)
def test_what_is_assigned_counts(what, capsys):
    """From the next update on, in the very way it counts where nothing is compiled."""
    script, assign = ASSIGNED[what]
    agent, twin = new_agent(script), new_agent(script)
    same_updates(agent, twin)
    for one in (agent, twin):
        assign(one)
    same_updates(agent, twin, 2)
    assert_same(agent, twin)
    assert "slower" not in capsys.readouterr().out


# --- save and load


@pytest.mark.parametrize(
    "script", ["td3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpg", "sac"))]
)
def test_save_and_load_a_path(learned, script, tmp_path):
    """A text or a Path; what is not a network's goes along."""
    agent, other = learned(script), new_agent(script, wide=False)
    path = tmp_path / "folder" / "mine.npz"
    assert agent.save(str(path)) == str(path)
    other.load(path)
    np.testing.assert_allclose(act(agent), in_eager(act, other), rtol=1e-5)
    if script == "ddpg":
        for weight, target in zip(other.actor.trainable_weights,
                                  other.actor_target.trainable_weights):
            np.testing.assert_array_equal(other.ema.average(weight), target)
    if script == "sac":
        assert float(other.alpha) == float(agent.alpha) != 1.0
    with pytest.raises(UserError, match=r"nowhere\.npz"):
        other.load(str(tmp_path / "nowhere.npz"))


def test_the_usual_path_and_another_environment(tmp_path, monkeypatch):
    """As the page says; the script's own save() names the script's environment."""
    monkeypatch.chdir(tmp_path)
    agent = new_agent("td3")
    assert Path(agent.save()) == Path("model") / "TD3_Pendulum-v1" / "weights.npz"
    agent.load()
    settings = Command(td3.__file__).settings({"ENV_ID": "Hopper-v5"})
    path = networks.save(agent, settings)
    assert Path(path) == Path("model") / "TD3_Hopper-v5" / "weights.npz"
    networks.load(agent, settings)
    with pytest.raises(UserError, match=r"Hopper-v5"):
        agent.load(path)


# --- what an agent is given


@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_to_learn_from(script):
    """One ValueError, and later updates work."""
    agent = new_agent(script, filled=False)
    with running("eager"):
        with pytest.raises(ValueError):
            update(agent)
        store = agent.store_transition if script == "ddpg" else agent.replay_buffer.push
        for transition in transitions():
            store(*transition)
        update(agent)
    assert np.isfinite(list(agent.losses.values())).all()
