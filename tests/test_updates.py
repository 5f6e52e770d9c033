"""Each update of ddpg.py, td3.py and sac.py against reference.py, and what stands around them.

A comparison starts from wide random weights, for near the 3e-3 of the chapter most errors
would hide, with targets that differ from their networks, on a ring that has been
overwritten. Agent and reference then learn from the same batches with the same noise.

float32 and float64 part where a derivative is taken next to a kink of ReLU, min or clip, for
they may see its two sides. With the seeds chosen, no run takes one closer than 8e-6 to a kink.
"""

import copy

import numpy as np
import pytest
import reference
import tensorflow as tf
from agents import (
    ENGINES,
    STATE,
    act,
    made,
    networks,
    new_agent,
    running,
    seed_everything,
    small_ddpg,
    update,
    values,
    widen,
)

import ddpg
import sac
import td3
from common.engine.plain import COMPILING
from common.engine.variables import variables_of, weights_in
from common.files.compile_cache import compile_cache

STATE_DIM, HIDDEN_DIM, BATCH_SIZE = 3, 8, 16
CAPACITY, PUSHED = 40, 53  # the ring, and the transitions that went into it
TOLERANCE = 5e-5  # measured: 1e-6 in weights, 2e-6 in losses, 2e-5 in actions, moments, log_prob

TD3_SETTINGS = {"eval_noise_scale": 0.8, "reward_scale": 2.0, "gamma": 0.8, "soft_tau": 0.05}
SAC_SETTINGS = {"reward_scale": 2.0, "target_entropy": -0.4, "gamma": 0.8, "soft_tau": 0.05}
DDPG_CONSTANTS = {"MEMORY_CAPACITY": CAPACITY, "BATCH_SIZE": BATCH_SIZE, "HIDDEN_DIM": HIDDEN_DIM,
                  "LR_A": 7e-4, "LR_C": 1e-3, "GAMMA": 0.8, "TAU": 0.05, "VAR": 1.5}

VECTOR = {"action_dim": 2, "action_range": [0.7, 1.6]}
SHARED = {"action_dim": 2, "action_range": 1.3}  # one range for both dimensions


@pytest.fixture(autouse=True)
def constants():
    with small_ddpg(**DDPG_CONSTANTS):
        yield


# TensorLayer sorts a network's layers by the alphabet; this is their order in reference.py.
LAYERS = [
    *("A_l1", "A_l2", "A_a", "C_l1", "C_l2", "C_out", "q1", "q2", "q3"),
    *("policy1", "policy2", "policy3", "policy_output", "policy_mean", "policy_logstd"),
]


def deviation(ours, expected, least_unit=1.0):
    """The largest difference of two lists of arrays, in units of the largest expected number.

    The unit is at least least_unit. NaN and infinity count as infinitely far.
    """
    assert [np.shape(a) for a in ours] == [np.shape(b) for b in expected]
    ours, expected = (np.concatenate([np.ravel(a) for a in x]) for x in (ours, expected))
    difference = np.abs(ours.astype(np.float64) - expected).max()
    unit = max(np.abs(expected).max(), least_unit)
    return difference / unit if np.isfinite(difference) else np.inf


def assert_close(ours, expected, what, least_unit=1.0):
    off = deviation(ours, expected, least_unit)
    assert off < TOLERANCE, f"{what} is off by {off:.1e}"


def in_order(net, values):
    """Values, one for each of net.trainable_weights, as reference.py orders and joins them.

    For a single variable in a network's place, that is no change.
    """
    if isinstance(net, tf.Variable):
        return [value.numpy() for value in values]
    index = {id(variable): i for i, variable in enumerate(net.trainable_weights)}
    layers = {layer.name: layer for layer in net.all_layers}
    arrays = [
        values[index[id(variable)]].numpy()
        for name in LAYERS
        if name in layers
        for variable in (layers[name].W, layers[name].b)
    ]
    if "policy_mean" in layers:  # the reference has both heads in one layer
        *arrays, w_mean, b_mean, w_log_std, b_log_std = arrays
        arrays += [np.hstack([w_mean, w_log_std]), np.hstack([b_mean, b_log_std])]
    return arrays


def weights_of(net):
    """The network's weights, for reference.py."""
    return in_order(net, net.trainable_weights)


class Pair:
    """An agent and its reference, with the same weights, transitions and random draws.

    A subclass knows the agent:
        build(...) makes it, and notes what each optimizer is for, by name;
        push(...) stores a transition;
        start(weights) makes the reference;
        act() gives the greedy action in self.state;
        update_agent(n_updates) learns, and update_reference(), once, which returns losses.

    Args:
        engine: runs the updates.
        seed: fixes everything.
        action_dim, action_range: of the actions.
        reward: function from a generator to a reward.
        options: of the subclass's build().
    """

    script = None  # module of the agent
    numbers = ()  # names of its numbers that change

    def __init__(
        self,
        engine="eager",
        seed=13,
        action_dim=1,
        action_range=2.0,
        reward=lambda rng: rng.normal(1, 3),
        **options,
    ):
        seed_everything(seed)
        rng = np.random.default_rng(seed)
        self.engine = engine
        self.action_dim, self.action_range = action_dim, np.array(action_range)
        made(self.build, **options)
        self.fill(rng, reward)
        for net in networks(self.agent).values():
            widen(net.trainable_weights, rng)
        self.start({name: weights_of(net) for name, net in networks(self.agent).items()})
        self.state = rng.normal(size=STATE_DIM).astype(np.float32)
        self.random = np.random.RandomState()  # draws once more what the agent has drawn

    def fill(self, rng, reward):
        """Push PUSHED transitions, a quarter terminal; keep the columns of what stays."""
        ring = [None] * CAPACITY
        for i in range(PUSHED):
            state, next_state = rng.normal(size=(2, STATE_DIM)).astype(np.float32)
            action = (rng.uniform(-1, 1, self.action_dim) * self.action_range).astype(np.float32)
            transition = state, action, np.float32(reward(rng)), next_state, rng.random() < 0.25
            self.push(*transition)
            ring[i % CAPACITY] = transition
        columns = [np.array(column, np.float64) for column in zip(*ring)]
        self.columns = [column.reshape(CAPACITY, -1) for column in columns]

    def batch(self, indices):
        """Rows of the ring, by column."""
        return [column[indices] for column in self.columns]

    def update(self, n_updates=1):
        """Update both n_updates times, the agent in one call, and compare the last losses."""
        self.random.set_state(np.random.get_state())
        with running(self.engine):
            self.update_agent(n_updates)
        for _ in range(n_updates):
            losses = self.update_reference()
        np.testing.assert_equal(self.random.get_state(), np.random.get_state())
        ours = self.agent.losses
        assert ours.keys() == losses.keys()
        self.compare([ours[name] for name in losses], list(losses.values()), "losses")

    def run(self, n_calls, n_updates=1, checks=(1, 2, 10, 25)):
        """Call update() n_calls times, check() after some of the calls and after the last."""
        for i in range(n_calls):
            self.update(n_updates)
            if i + 1 in (*checks, n_calls):
                self.check()

    def check(self):
        """Compare the greedy action and all that the agent and the reference consist of."""
        expected = self.reference.act(self.state[np.newaxis])
        with running(self.engine):
            self.compare([self.act()], expected, "greedy action")
        for name, net in networks(self.agent).items():
            self.compare(weights_of(net), getattr(self.reference, name).weights, name)
        for name, of in self.optimizers.items():
            ours, expected = getattr(self.agent, name), getattr(self.reference, name)
            assert int(ours.iterations) == expected.iterations, name
            learner = getattr(self.agent, of)
            slots = [ours._momentums, ours._velocities]
            for slot, moments in zip(slots, [expected.moments, expected.squares]):
                self.compare(in_order(learner, slot), moments, f"moments of {name}", 1e-30)
        for name in self.numbers:
            self.compare([getattr(self.agent, name)], [getattr(self.reference, name)], name)

    def compare(self, ours, expected, what, least_unit=1.0):
        parts = vars(self.reference).values()
        margin = min(part.margin for part in parts if isinstance(part, reference.Net))
        assert_close(ours, expected, f"{what} (closest kink: {margin:.0e})", least_unit)


class DDPGPair(Pair):
    script = ddpg
    numbers = ("var",)

    def build(self):
        self.agent = ddpg.DDPG(self.action_dim, STATE_DIM, self.action_range)
        self.push = self.agent.store_transition
        self.optimizers = {"actor_opt": "actor", "critic_opt": "critic"}

    def start(self, weights):
        agent = self.agent
        for net, target in ((agent.actor, agent.actor_target), (agent.critic, agent.critic_target)):
            for weight, moved in zip(net.trainable_weights, target.trainable_weights):
                agent.ema.average(weight).assign(moved)
        names = "LR_A", "LR_C", "GAMMA", "TAU", "VAR", "REWARD_SCALE"
        constants = {name.lower(): getattr(ddpg, name) for name in names}
        self.reference = reference.DDPG(weights, self.action_range, **constants)

    def act(self):
        return self.agent.get_action(self.state, greedy=True)

    def update_agent(self, n_updates):
        self.agent.learn(n_updates)

    def update_reference(self):
        indices = self.random.choice(CAPACITY, size=BATCH_SIZE)
        return self.reference.update(*self.batch(indices))


class BufferPair(Pair):
    """A pair whose agent learns from a ReplayBuffer, by update(BATCH_SIZE, **settings)."""

    def build(self, settings):
        self.settings = settings
        self.buffer = self.script.ReplayBuffer(CAPACITY)
        self.batches = copy.deepcopy(self.buffer.generator)
        self.push = self.buffer.push

    def update_agent(self, n_updates):
        self.agent.update(BATCH_SIZE, **self.settings, n_updates=n_updates)

    def update_reference(self):
        indices = self.batches.choice(CAPACITY, BATCH_SIZE, replace=False, shuffle=False)
        noise = [self.random.standard_normal((BATCH_SIZE, self.action_dim)).astype(np.float32)
                 for _ in range(self.draws())]
        noise = [np.float64(drawn) for drawn in noise[: self.used]]
        return self.reference.update(*self.batch(indices), *noise, **self.settings)


class TD3Pair(BufferPair):
    script = td3
    numbers = ("update_cnt",)
    used = 1

    def build(self, policy_loss="q1", settings=TD3_SETTINGS, interval=1, **options):
        super().build(settings)
        rates = {"q_lr": 1e-3, "policy_lr": 7e-4}
        sizes = STATE_DIM, self.action_dim, self.buffer, HIDDEN_DIM
        options = {"policy_loss": policy_loss, **rates, **options}
        self.agent = td3.TD3(*sizes, self.action_range, interval, **options)
        self.optimizers = {f"q_optimizer{i}": f"q_net{i}" for i in (1, 2)}
        self.optimizers["policy_optimizer"] = "policy_net"
        self.of_reference = {"interval": interval, "policy_loss": policy_loss, **rates}

    def start(self, weights):
        self.reference = reference.TD3(weights, self.action_range, **self.of_reference)

    def draws(self):
        """The policy's step draws noise, too, and takes it times 0."""
        return 1 if (self.reference.update_cnt + 1) % self.reference.interval else 2

    def act(self):
        return self.agent.policy_net.get_action(self.state, 1.0, greedy=True)


class SACPair(BufferPair):
    script = sac
    numbers = ("log_alpha", "alpha")
    used = 2

    def build(self, policy_loss="q1", settings=SAC_SETTINGS, **options):
        super().build(settings)
        rates = {"soft_q_lr": 1e-3, "policy_lr": 7e-4, "alpha_lr": 2e-3}
        sizes = STATE_DIM, self.action_dim, self.buffer, HIDDEN_DIM
        options = {"policy_loss": policy_loss, **rates, **options}
        self.agent = sac.SAC(*sizes, self.action_range, **options)
        bounds = {"log_std_min": -1.5, "log_std_max": -0.3}  # narrow, so that both are met
        vars(self.agent.policy_net).update(bounds)
        self.agent.log_alpha.assign(-0.7)
        self.agent.alpha = tf.math.exp(self.agent.log_alpha)
        self.optimizers = {f"soft_q_optimizer{i}": f"soft_q_net{i}" for i in (1, 2)}
        self.optimizers |= {"policy_optimizer": "policy_net", "alpha_optimizer": "log_alpha"}
        self.of_reference = {"log_alpha": -0.7, "policy_loss": policy_loss, **rates, **bounds}

    def start(self, weights):
        self.reference = reference.SAC(weights, action_range=self.action_range, **self.of_reference)

    def draws(self):
        return 2

    def act(self):
        return self.agent.policy_net.get_action(self.state, greedy=True)


@pytest.mark.parametrize(
    "kind, options",
    [
        (DDPGPair, {}),
        (TD3Pair, {"policy_loss": "min", "interval": 2, **VECTOR}),
        pytest.param(SACPair, {"policy_loss": "min", **VECTOR}, marks=pytest.mark.slow),
    ],
)
def test_all_engines_follow_the_reference_and_agree(kind, options, capsys):
    """Over 60 updates: all variables, losses and actions, and one with the other."""
    learned = []
    for engine in ENGINES:
        pair = kind(engine, **options)
        pair.run(60)
        learned.append(variables_of(pair.agent).values())
    fast, *others = learned
    for other in others:
        for a, b in zip(fast, other, strict=True):
            assert_close([a.numpy()], [b.numpy()], a.name, least_unit=0.01)
    assert "slower" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind",
    [pytest.param(DDPGPair, marks=pytest.mark.slow), pytest.param(TD3Pair, marks=pytest.mark.slow),
     SACPair],
)
def test_the_papers_way_and_several_updates_in_one_call(monkeypatch, kind):
    """Rewards as they are, times a factor; and TD3's target actions within the range."""
    options = {}
    if kind is DDPGPair:
        monkeypatch.setattr(ddpg, "REWARD_SCALE", 0.3)
    else:
        settings = TD3_SETTINGS if kind is TD3Pair else SAC_SETTINGS
        options = {"settings": {**settings, "reward_scale": 0.3}, "standardise_rewards": False}
        monkeypatch.setattr(getattr(reference, kind.script.ALG_NAME), "standardises", False)
    if kind is TD3Pair:
        options |= {"clip_actions": True, "interval": 3}
        monkeypatch.setattr(reference.TD3, "clips", True)
    kind("fast", **VECTOR, **options).run(20, n_updates=3)


@pytest.mark.parametrize("alpha", [None, 0.2])
def test_sac_with_a_fixed_alpha(alpha, monkeypatch):
    """Unless given, it is 1 after the first update, as printed."""
    monkeypatch.setattr(reference.SAC, "fixed_alpha", alpha or 1.0)
    pair = SACPair(settings={**SAC_SETTINGS, "auto_entropy": False}, alpha=alpha, **SHARED)
    pair.run(4)
    assert np.float32(pair.agent.alpha) == np.float32(alpha or 1)


def test_a_given_alpha_stays():
    agent = new_agent("sac", alpha=0.2)
    update(agent)  # with auto_entropy, by default
    assert float(agent.alpha) == float(agent.losses["alpha"]) == np.float32(0.2)
    assert float(agent.log_alpha.numpy()) == np.float32(np.log(0.2))


@pytest.mark.parametrize(("interval", "n_updates"), [(1, 1), (2, 1), (2, 3), (3, 2), (3, 3)])
def test_td3_delays_policy_and_targets(interval, n_updates):
    """Wherever their turn falls in a call of several updates."""
    pair = TD3Pair(seed=2, interval=interval, **SHARED)
    pair.run(6 // n_updates, n_updates, checks=())
    assert int(pair.agent.policy_optimizer.iterations) == 6 // interval


@pytest.mark.parametrize(
    "kind, options",
    [(DDPGPair, {}), (TD3Pair, {"interval": 2}), (SACPair, {})],
)
def test_one_call_of_three_updates_is_three_calls(kind, options):
    """To the last bit where both run eagerly."""
    together, apart = (kind(**options) for _ in range(2))
    seed_everything(1)
    together.run(1, n_updates=3)
    seed_everything(1)
    apart.run(3, checks=())
    for a, b in zip(*(variables_of(p.agent).values() for p in (together, apart)), strict=True):
        np.testing.assert_array_equal(a, b, a.name)
    assert together.agent.losses == apart.agent.losses


@pytest.mark.parametrize("reward", [lambda rng: rng.normal(0, 1e-6), lambda rng: -2.0],
                         ids=["nearly equal", "equal"])
@pytest.mark.parametrize("kind", [TD3Pair, SACPair])
def test_rewards_that_hardly_differ(kind, reward):
    """Another epsilon than 1e-6 would show; equal ones become 0, and not NaN, E7."""
    kind(seed=1, reward=reward).run(3)


def test_ddpg_learns_from_what_is_stored():
    """Before the memory is full, its empty rows are no transitions."""
    agent = DDPGPair().agent
    agent.pointer = 7
    agent.memory[7:] = np.nan
    with running("eager"):
        for _ in range(3):
            agent.learn()
            assert np.isfinite(list(agent.losses.values())).all()


# What needs no gradients


def test_first_ema_update_moves_targets_by_tau():
    """It does not make the targets jump onto the networks, E11."""
    with small_ddpg(TAU=0.25):
        agent = made(ddpg.DDPG, 2, STATE_DIM, 1.0)
    for net, target in ((agent.actor, agent.actor_target), (agent.critic, agent.critic_target)):
        before = weights_of(target)
        widen(net.trainable_weights, 1)
        goal = weights_of(net)
        for share in (0.25, 0.4375):  # 1 - 0.75, 1 - 0.75^2
            agent.ema_update()
            expected = [(1 - share) * b + share * g for b, g in zip(before, goal)]
            assert_close(weights_of(target), expected, "target")


# The policies


def policy(script, seed=0, action_dim=1, action_range=2.0, scale=0.4):
    """A PolicyNetwork of td3 or sac with weights from N(0, scale^2), and 500 states."""
    seed_everything(seed)
    net = made(script.PolicyNetwork, STATE_DIM, action_dim, HIDDEN_DIM, action_range)
    rng = np.random.default_rng(seed)
    widen(net.trainable_weights, rng, scale)
    return net, rng.normal(size=(500, STATE_DIM)).astype(np.float32)


def next_noise(shape):
    """What np.random.standard_normal() will draw next."""
    state = np.random.get_state()
    noise = np.random.standard_normal(shape)
    np.random.set_state(state)
    return noise


def test_sac_log_prob_is_the_density_of_a_change_of_variables():
    """log N(artanh(a / r); mean, std) - log |da/dx|, from the action alone."""
    net, states = policy(sac, **VECTOR, scale=0.3)
    net.log_std_max = -0.3  # farther out, float32 has no digits left for 1 - tanh^2
    action, log_prob, z, mean, log_std = (np.float64(x) for x in net.evaluate(states))
    bounded = action / [0.7, 1.6]
    x = np.arctanh(bounded)
    by_dimension = (
        -0.5 * ((x - mean) / np.exp(log_std)) ** 2
        - log_std
        - 0.5 * np.log(2 * np.pi)
        - np.log([0.7, 1.6])
        - np.log(1 - bounded**2)
    )
    assert_close([x], [mean + np.exp(log_std) * z], "z")
    assert_close([log_prob], [by_dimension.sum(1, keepdims=True)], "log_prob")


@pytest.mark.parametrize("epsilon", [None, 1e-3])
def test_sac_log_prob_where_tanh_saturates(epsilon):
    """There, epsilon is all that is left of 1 - tanh^2."""
    net, states = policy(sac, **VECTOR, scale=0.1)
    net.mean_linear.b.assign([20.0, -20.0])
    given = {} if epsilon is None else {"epsilon": epsilon}
    action, log_prob, z, _, log_std = (np.float64(x) for x in net.evaluate(states, **given))
    np.testing.assert_array_equal(np.abs(action), np.float32([[0.7, 1.6]]).repeat(500, 0))
    gaussian = -0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)
    expected = gaussian - np.log(epsilon or 1e-6) - np.log([0.7, 1.6])
    assert_close([log_prob], [expected.sum(1, keepdims=True)], "log_prob")


def test_sac_acts_within_the_range():
    net, states = policy(sac, **VECTOR, scale=1.0)
    mean, log_std = (np.float64(x) for x in net.forward(states))
    noise = next_noise((500, 2))
    for greedy, x in ((False, mean + np.exp(log_std) * noise), (True, mean)):
        actions = np.array([net.get_action(state, greedy=greedy) for state in states])
        assert actions.shape == (500, 2)
        assert (np.abs(actions) <= np.float32([0.7, 1.6])).all()
        assert_close([actions], [np.tanh(x) * [0.7, 1.6]], "action")


def test_td3_acts_within_the_range_when_greedy():
    net, states = policy(td3, **VECTOR, scale=1.0)
    noise = next_noise((500, 2))
    exact = net.forward(states).numpy() * [0.7, 1.6]
    noisy, greedy = (
        np.array([net.get_action(state, 0.5, greedy=greedy) for state in states])
        for greedy in (False, True)
    )
    assert (np.abs(greedy) <= np.float32([0.7, 1.6])).all()
    assert_close([greedy], [exact], "greedy action")
    assert_close([noisy], [exact + 0.5 * noise], "exploring action")  # unclipped, as printed


@pytest.mark.parametrize("script", [td3, sac])
def test_random_actions_are_uniform(script):
    net, _ = policy(script, **VECTOR)
    shares = np.sort([net.sample_action() / [0.7, 1.6] for _ in range(4000)], axis=0)
    assert np.abs(shares).max() <= 1
    grid = np.linspace(-1, 1, 4000)[:, np.newaxis]
    assert np.abs(shares - grid).max() < 2 * 1.95 / np.sqrt(4000)  # Kolmogorov-Smirnov, 0.1 %


# One seed, one outcome, bit for bit


def trained(script, seed):
    """A short training: (agent, dict of what it did)."""
    agent = new_agent(script, seed, wide=False)
    run = {}
    for i in range(5):
        update(agent)
        run |= {f"{name} {i}": value for name, value in agent.losses.items()}
        run[f"action {i}"] = act(agent, greedy=False)
        policy = agent if script == "ddpg" else agent.policy_net
        run[f"random action {i}"] = policy.sample_action()
    return agent, {**run, **values(agent)}


@pytest.mark.parametrize(
    "script", ["td3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddpg", "sac"))]
)
def test_one_seed_one_outcome(script, monkeypatch, capsys):
    """Weights, targets, moments, losses and actions of two trainings are equal, every bit."""
    monkeypatch.setattr(compile_cache, "folder", None)  # nothing is known to be compiled
    with small_ddpg():
        agent, first = trained(script, 5)
        _, second = trained(script, 5)
        start = values(new_agent(script, 5, wide=False))
        other = values(new_agent(script, 6, wide=False))
        called = {"ddpg": lambda s: agent.actor(s),
                  "td3": lambda s: 2.0 * agent.policy_net(s),
                  "sac": lambda s: 2.0 * tf.tanh(agent.policy_net(s)[0])}[script]
        np.testing.assert_allclose(act(agent), called(np.float32([STATE]))[0], rtol=1e-5)
    assert {n: np.asarray(v).tobytes() for n, v in first.items()} == {
        n: np.asarray(v).tobytes() for n, v in second.items()}
    moved = [np.any(first[name] != value) for name, value in start.items()]
    assert np.mean(moved) > 0.8  # all but learning rates, and moments where ReLU lets nothing by
    weights = next(iter(weights_in(agent)))
    assert np.any(start[weights] != other[weights])
    assert capsys.readouterr().out.count(COMPILING) == 2
