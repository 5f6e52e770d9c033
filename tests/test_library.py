"""The classes as a library: docs/library.md, options, replaced parts, copies, sizes, files.

What is replaced is replaced in two equal agents, one compiled and one eager: the twin, which
computes line by line what stands there, is the expectation.
"""

import copy
import functools
import os
import pickle
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorlayer as tl

import ddpg
import sac
import td3
from common import networks
from common.arguments import Command
from common.errors import UserError
from common.networks import named_variables, networks_of
from common.replay_buffer import ReplayBuffer

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"ddpg": ddpg, "td3": td3, "sac": sac}
HIDDEN, BATCH = 4, 8
STATE = [0.3, -0.2, 0.9]
each = pytest.mark.parametrize("script", SCRIPTS)
both_modes = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


def seed_everything(seed=0):
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)


def made(make, *args, **kwargs):
    """make(...) in a thread, whose stack is short: TensorLayer reads it for each layer."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(make, *args, **kwargs).result()


def transitions(n=20, state_dim=3):
    rng = np.random.default_rng(9)
    return [
        (rng.normal(size=state_dim), rng.uniform(-2, 2, 1), rng.normal(),
         rng.normal(size=state_dim), i % 7 == 0)
        for i in range(n)
    ]


def ring(seed=0, **dims):
    random.seed(seed)
    buffer = ReplayBuffer(20)
    for transition in transitions(**dims):
        buffer.push(*transition)
    return buffer


def new_agent(script, filled=True, state_dim=3, hidden=HIDDEN, wide=True, **options):
    """A small agent with wide weights, the same at each call."""
    seed_everything()
    if script == "ddpg":
        options = {"memory_capacity": 20, "batch_size": BATCH, "hidden_dim": hidden, **options}
        agent = made(ddpg.DDPG, 1, state_dim, 2.0, **options)
        for transition in transitions(state_dim=state_dim) if filled else ():
            agent.store_transition(*transition)
    else:
        buffer = ring(state_dim=state_dim) if filled else ReplayBuffer(20)
        kind = getattr(SCRIPTS[script], script.upper())
        agent = made(kind, state_dim, 1, buffer, hidden, 2.0, **options)
    if wide:
        for i, net in enumerate(networks_of(agent).values()):
            widen(net, i)
    return agent


def widen(weights, seed):
    rng = np.random.default_rng(seed)
    for weight in weights if isinstance(weights, list) else ():
        weight.assign(rng.normal(0, 0.4, weight.shape))


def update(agent, n=1, batch=BATCH):
    for _ in range(n):
        if isinstance(agent, ddpg.DDPG):
            agent.learn()
        elif isinstance(agent, td3.TD3):
            agent.update(batch, 0.5)
        else:
            agent.update(batch)


def act(agent, state=STATE, greedy=True):
    if isinstance(agent, ddpg.DDPG):
        return agent.get_action(state, greedy)
    if isinstance(agent, td3.TD3):
        return agent.policy_net.get_action(state, 1.0, greedy)
    return agent.policy_net.get_action(state, greedy)


def values(agent):
    return [variable.numpy() for variable in named_variables(agent).values()]


# --- the page


@pytest.mark.slow
def test_the_page(tmp_path, monkeypatch, capsys):
    """Its block runs as it stands, and prints one greedy action."""
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 23
    monkeypatch.chdir(tmp_path)
    seed_everything()
    names = {}
    made(exec, code, names)
    assert (tmp_path / "my_td3.npz").is_file()
    assert re.search(r"^\[[-\d.e]+\]$", capsys.readouterr().out, re.MULTILINE)
    agent, other = names["agent"], names["other"]
    assert int(agent.q_optimizer1.iterations) == 1
    np.testing.assert_array_equal(act(agent), act(other))


@pytest.mark.slow
@each
def test_importing_prints_nothing(script):
    result = subprocess.run(
        [sys.executable, "-c", f"from {script} import {script.upper()}"],
        cwd=ROOT, capture_output=True, text=True,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# --- options


OPTIONS = {
    "ddpg": {"gamma": 0.5, "tau": 0.3, "reward_scale": 3.0, "lr_a": 0.1, "lr_c": 0.1,
             "batch_size": 5, "weight_init": "fan_in"},
    "td3": {"policy_loss": "min", "standardise_rewards": False, "clip_actions": True,
            "weight_init": "fan_in"},
    "sac": {"policy_loss": "q1", "standardise_rewards": False, "weight_init": "fan_in"},
}


@pytest.mark.slow
@each
def test_two_agents_with_different_options(script):
    """In turn, in one process: each as its eager twin, and not as the other."""
    first, second = (new_agent(script, **options) for options in ({}, OPTIONS[script]))
    twins = [new_agent(script, eager=True, **options) for options in ({}, OPTIONS[script])]
    for _ in range(2):
        for agent in (first, second, *twins):
            update(agent)
    for agent, twin in zip((first, second), twins):
        for ours, theirs in zip(values(agent), values(twin), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert abs(act(first) - act(second)) > 1e-6


@pytest.mark.slow
@each
def test_two_agents_of_different_sizes(script):
    small, large = new_agent(script), new_agent(script, hidden=7, state_dim=5)
    for agent in (small, large, small):
        update(agent)
    assert act(large, [0.1] * 5).shape == act(small).shape == (1,)


@each
@pytest.mark.parametrize("weight_init", ["other", None])
def test_an_unknown_initialisation(script, weight_init):
    with pytest.raises((KeyError, ValueError), match=str(weight_init)):
        new_agent(script, weight_init=weight_init)


# --- replaced parts


def new_network(agent, name):
    """A network like the agent's of that name, with weights of its own, the same at each call."""
    old = getattr(agent, name)
    seed_everything(1)
    if isinstance(agent, ddpg.DDPG):
        new = made(new_agent, "ddpg", hidden=len(old.all_layers[-1 - ("actor" in name)].W[:, 0]))
        new = getattr(new, name)
    else:
        new = made(type(old), 3, 1, HIDDEN, **({"action_range": 2.0} if "policy" in name else {}))
    widen(new.all_weights, 5)
    return new


def network(name):
    return lambda agent: setattr(agent, name, new_network(agent, name))


def optimizer(name, rate):
    return lambda agent: setattr(agent, name, tf.optimizers.SGD(rate))


def option(name, value):
    return lambda agent: setattr(agent, name, value)


def layer(name, of, act=tf.nn.relu):
    def replace(agent):
        net = getattr(agent, name)
        old = getattr(net, of)
        n_in, n_out = old.W.shape
        new = tl.layers.Dense(n_units=n_out, in_channels=n_in, act=act, name=old.name)
        widen(new.all_weights, 6)
        setattr(net, of, new)

    return lambda agent: made(replace, agent)


def generator(agent):
    net = agent if isinstance(agent, ddpg.DDPG) else agent.policy_net
    net.generator = np.random.default_rng(77)


def variable(agent):
    agent.log_alpha = tf.Variable(0.0, name="another")  # of an equal value: still another


def activation(agent):
    net = agent.actor if isinstance(agent, ddpg.DDPG) else agent.policy_net
    next(layer for layer in net.all_layers if hasattr(layer, "W")).act = tf.nn.tanh


def one_optimizer_for_two(agent):
    agent.q_optimizer1 = agent.q_optimizer2 = tf.optimizers.Adam(0.02)


def buffer(agent):
    agent.replay_buffer = ring(seed=3)


REPLACED = {
    "ddpg": {
        "critic": network("critic"), "actor": network("actor"),
        "actor_target": network("actor_target"),
        "critic_opt": optimizer("critic_opt", 0.02), "actor_opt": optimizer("actor_opt", 0.02),
        "gamma": option("gamma", 0.3), "tau": option("tau", 0.4),
        "reward_scale": option("reward_scale", 5.0), "activation": activation,
        "generator": generator,
    },
    "td3": {
        "q_net1": network("q_net1"), "target_q_net2": network("target_q_net2"),
        "policy_net": network("policy_net"),
        "q_optimizer1": optimizer("q_optimizer1", 0.02),
        "one optimizer for two": one_optimizer_for_two,
        "policy_loss": option("policy_loss", "min"),
        "standardise_rewards": option("standardise_rewards", False),
        "clip_actions": lambda agent: setattr(agent.target_policy_net, "clip_actions", True),
        "action_range": lambda agent: setattr(agent.policy_net, "action_range", np.float32(0.7)),
        "layer": layer("policy_net", "linear2"), "activation": activation, "buffer": buffer,
    },
    "sac": {
        "soft_q_net2": network("soft_q_net2"), "policy_net": network("policy_net"),
        "alpha_optimizer": optimizer("alpha_optimizer", 0.02), "log_alpha": variable,
        "policy_loss": option("policy_loss", "q1"),
        "standardise_rewards": option("standardise_rewards", False),
        "log_std_max": lambda agent: setattr(agent.policy_net, "log_std_max", -1.0),
        "layer": layer("soft_q_net1", "linear1"), "generator": generator, "buffer": buffer,
    },
}


@functools.cache
def twins(script):
    """(compiled, eager), which have learned already; each test leaves both changed."""
    pair = new_agent(script), new_agent(script, eager=True)
    for agent in pair:
        update(agent, 2)
        act(agent)
    return pair


QUICK = [("ddpg", "critic_opt")]  # each takes a compilation


@pytest.mark.parametrize(
    ("script", "what"),
    [pytest.param(s, what, marks=[] if (s, what) in QUICK else pytest.mark.slow)
     for s in REPLACED for what in REPLACED[s]],
)
def test_what_is_replaced_counts(script, what):
    """From the next call on, in the very way it counts where nothing is compiled."""
    agent, twin = twins(script)
    for ours, theirs in zip(*(named_variables(a).values() for a in (agent, twin)), strict=True):
        theirs.assign(ours)
    before = values(agent)
    for one in (agent, twin):
        REPLACED[script][what](one)
    np.testing.assert_allclose(act(agent), act(twin), rtol=1e-4, atol=1e-5)
    for one in (agent, twin):
        update(one)
        act(one, greedy=False)
        update(one)
    for ours, theirs in zip(*(named_variables(a).values() for a in (agent, twin)), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), 2e-3, 2e-4, err_msg=ours.name)
    np.testing.assert_allclose(agent.losses, twin.losses, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(act(agent), act(twin), rtol=1e-3, atol=1e-4)
    assert any(old.shape != new.shape or np.any(old != new)
               for old, new in zip(before, values(agent)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["q_net1", "policy_net"])
def test_what_is_put_in_moves_and_what_was_there_stays(name):
    """The old network keeps what it had learned, though it was only in the packed values."""
    agent = new_agent("td3")
    update(agent, 3)
    old, new = getattr(agent, name), new_network(agent, name)
    setattr(agent, name, new)
    start = [weight.numpy() for weight in new.all_weights]
    update(agent)
    learned = [weight.numpy() for weight in old.all_weights]
    update(agent, 2)
    assert all(np.any(a != b.numpy()) for a, b in zip(start, new.all_weights))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(learned, old.all_weights))
    fresh = networks_of(new_agent("td3"))[name]
    assert any(np.any(a != b.numpy()) for a, b in zip(learned, fresh))


def test_a_replaced_part_is_saved_at_once(tmp_path):
    """Before any further update, a layer too."""
    agent = new_agent("td3")
    update(agent)
    layer("q_net1", "linear2")(agent)
    expected = agent.q_net1.linear2.W.numpy()
    with np.load(agent.save(tmp_path / "weights.npz")) as file:
        assert any(np.array_equal(file[key], expected) for key in file.files if key != "header")


@pytest.mark.slow
def test_a_switched_option_is_compiled_once():
    agent = new_agent("td3")
    for policy_loss in ("q1", "min") * 3:
        agent.policy_loss = policy_loss
        update(agent)
    assert len([programs for programs in agent.compiler._programs.values() if programs]) == 2


@pytest.mark.parametrize("eager", [pytest.param(False, marks=pytest.mark.slow, id="compiled"),
                                   pytest.param(True, id="eager")])
def test_a_weight_cannot_be_replaced_alone(eager):
    """TensorLayer would go on training the old one, so one line says what to do."""
    agent = new_agent("td3", eager=eager)
    update(agent)
    agent.q_net1.linear1.W = tf.Variable(agent.q_net1.linear1.W + 1.0)
    with pytest.raises(UserError, match=r"q1 .* W .*assign"):
        update(agent)


# --- copies


@each
@both_modes
def test_agents_are_not_copied(script, eager):
    """One line says what to do instead; where parts are shared, before they learn."""
    agent = new_agent(script, eager=eager)
    for copier in copy.deepcopy, lambda agent: update(copy.copy(agent)):
        with pytest.raises(TypeError, match=rf"{script.upper()} .*save\(path\).*load\(path\)"):
            copier(agent)
    with pytest.raises((TypeError, AttributeError)):  # of DDPG, Python refuses a lambda before
        pickle.dumps(agent)


# --- save and load


@each
def test_save_and_load_a_path(script, tmp_path):
    """A text or a Path."""
    eager = script != "td3"  # compiled, the values are elsewhere when they are saved
    agent, other = new_agent(script, eager=eager), new_agent(script, wide=False, eager=eager)
    update(agent)
    path = tmp_path / "folder" / "mine.npz"
    assert agent.save(str(path)) == str(path)
    other.load(path)
    np.testing.assert_array_equal(act(agent), act(other))
    with pytest.raises(UserError, match=r"nowhere\.npz: there is no such file"):
        other.load(str(tmp_path / "nowhere.npz"))


def settings_of(script, **constants):
    return Command(SCRIPTS[script].__file__).settings(constants)


@each
def test_the_usual_path(script, tmp_path, monkeypatch):
    monkeypatch.setattr(SCRIPTS[script], "args", settings_of(script, MODEL_DIR=str(tmp_path)))
    expected = tmp_path / f"{script.upper()}_Pendulum-v1" / "weights.npz"
    agent = new_agent(script)
    assert agent.save() == expected
    agent.load()


def test_another_environment(tmp_path):
    """As the page says; the script's own save() would name the script's."""
    agent = new_agent("td3")
    settings = settings_of("td3", ENV_ID="Hopper-v5", MODEL_DIR=str(tmp_path))
    assert networks.save(agent, settings) == tmp_path / "TD3_Hopper-v5" / "weights.npz"
    networks.load(agent, settings)
    with pytest.raises(UserError, match=r"Hopper-v5.*not of .*Pendulum-v1"):
        agent.load(tmp_path / "TD3_Hopper-v5" / "weights.npz")


# --- lists, sizes, nothing to learn from


@each
@both_modes
def test_a_list_as_state(script, eager):
    agent = new_agent(script, eager=eager)
    for state in (STATE, tuple(STATE), np.array(STATE), np.float32(STATE)):
        action = act(agent, state)
        assert action.shape == (1,)
        np.testing.assert_allclose(action, act(agent, np.float32(STATE)), rtol=1e-6)


@each
@both_modes
def test_nothing_to_learn_from(script, eager):
    """One ValueError, and later updates work."""
    agent = new_agent(script, filled=False, eager=eager)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"empty|sample"):
            update(agent)
    store = agent.store_transition if script == "ddpg" else agent.replay_buffer.push
    for transition in transitions():
        store(*transition)
    if eager:  # a compilation would show no more
        update(agent)


STORES = {
    "push": lambda: ring().push,
    "store_transition": lambda: new_agent("ddpg").store_transition,
}
GOOD = {"state": [1.0, 2.0, 3.0], "action": [0.5], "reward": -1.0,
        "next_state": [4.0, 5.0, 6.0], "done": False}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("name", "value", "sizes"),
    [
        ("state", 1.0, (1, 3)), ("state", [1.0], (1, 3)), ("state", np.zeros(4), (4, 3)),
        ("next_state", np.float32(1), (1, 3)), ("next_state", [1.0, 2.0], (2, 3)),
        ("action", [1.0, 2.0], (2, 1)), ("action", [], (0, 1)),
        ("reward", [1.0, 2.0], (2, 1)), ("done", np.array([True, False]), (2, 1)),
    ],
)
def test_another_size_is_refused(store, name, value, sizes):
    """By name and both sizes."""
    with pytest.raises(ValueError, match=f"^{name} has size {sizes[0]}, .* {sizes[1]}$"):
        STORES[store]()(*{**GOOD, name: value}.values())


@pytest.mark.parametrize("wrong", ["next_state", "reward"])
def test_the_first_transition_is_checked_too(wrong):
    """And a buffer that refused it takes the next."""
    buffer = ReplayBuffer(5)
    with pytest.raises(ValueError, match=wrong):
        buffer.push(*{**GOOD, wrong: [1.0, 2.0]}.values())
    buffer.push(*GOOD.values())
    assert len(buffer) == 1


@pytest.mark.parametrize("store", STORES)
def test_lists_and_arrays_of_one_are_numbers(store):
    method = STORES[store]()
    for convert in (list, np.array, np.float32):
        given = {n: convert(np.ravel(v)) for n, v in GOOD.items()}
        method(*given.values())
    held = method.__self__
    rows = held.buffer if store == "push" else held.memory
    np.testing.assert_array_equal(rows[:3], [[1, 2, 3, 0.5, -1, 4, 5, 6, 0]] * 3)


# --- one environment at a time


ONCE = '''
import gymnasium, numpy as np
log = open("opened.txt", "a")
class Once(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    is_open = made = 0
    def __init__(self, render_mode=None):
        if Once.is_open:
            raise OSError("Address already in use")
        Once.is_open = 1
        Once.made += 1
        print("open", file=log, flush=True)
        self.steps = 0
    def reset(self, seed=None, options=None):
        return np.zeros(3, np.float32), {}
    def step(self, action):
        self.steps += 1
        if Once.made == 2 and self.steps > 3:
            raise RuntimeError("the simulator died")
        return np.zeros(3, np.float32), 0.0, False, False, {}
    def render(self): pass
    def close(self):
        Once.is_open = 0
        print("close", file=log, flush=True)
gymnasium.register("Once-v0", entry_point=Once)
'''


@pytest.mark.slow
@each
def test_one_environment_at_a_time(script, tmp_path):
    """The first is closed before the test's is made, which is closed also after an error."""
    (tmp_path / "once.py").write_text(ONCE)
    words = "--train --test --env once:Once-v0 --episodes 1 --max-steps 5 --model-dir m "
    words += "--image-dir i --batch-size 2 --eager "
    words += "--memory-capacity 3" if script == "ddpg" else "--explore-steps 2"
    result = subprocess.run(
        [sys.executable, str(ROOT / f"{script}.py"), *words.split()],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True,
    )
    assert "the simulator died" in result.stderr
    assert result.returncode == 1
    assert (tmp_path / "opened.txt").read_text().split() == ["open", "close"] * 2
