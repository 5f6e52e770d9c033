"""Each update of ddpg.py, td3.py and sac.py against reference.py, and what stands around them.

A comparison starts from wide random weights, for near the 3e-3 of the chapter most errors
would hide, with targets that differ from their networks, on a ring that has been
overwritten. Agent and reference then learn from the same batches with the same noise.
"""

import copy
import random

import numpy as np
import pytest
import reference
import tensorflow as tf
from tensorlayer.models import Model

import ddpg
import sac
import td3
from common.networks import variables_of
from common.replay_buffer import ReplayBuffer

STATE_DIM, HIDDEN_DIM, BATCH_SIZE = 3, 8, 16
CAPACITY, PUSHED = 40, 53  # the ring, and the transitions that went into it
TOLERANCE = 1e-4

# TensorLayer sorts a network's layers by the alphabet; this is their order in reference.py.
LAYERS = (
    "A_l1 A_l2 A_a C_l1 C_l2 C_out q1 q2 q3 "
    "policy1 policy2 policy3 policy_output policy_mean policy_logstd"
).split()


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
    """Values, one for each of net.trainable_weights, as reference.py orders and joins them."""
    index = {id(variable): i for i, variable in enumerate(net.trainable_weights)}
    layers = {layer.name: layer for layer in net.all_layers}
    arrays = [
        np.asarray(values[index[id(variable)]])
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


def networks(agent):
    """The agent's networks by name, in the order of their creation."""
    return {name: value for name, value in vars(agent).items() if isinstance(value, Model)}


def widen(net, rng, scale=0.4):
    """Set weights and biases from N(0, scale^2)."""
    for variable in net.trainable_weights:
        variable.assign(rng.normal(0, scale, variable.shape))


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)


class Pair:
    """An agent and its reference, with the same weights, transitions and random draws.

    Args:
        patch: pytest's monkeypatch.
        eager: run the updates uncompiled.
        seed: fixes everything.
        action_dim, action_range: of the actions.
        reward: function from a generator to a reward.
        options: of the subclass.
    """

    script = None  # module of the agent
    optimizers = {}  # from the name of an optimizer to that of its network
    numbers = ()  # names of numbers to compare

    def __init__(
        self,
        patch,
        eager=False,
        seed=0,
        action_dim=1,
        action_range=2.0,
        reward=lambda rng: rng.normal(1, 3),
        **options,
    ):
        patch.setattr(self.script.args, "eager", eager)
        seed_everything(seed)
        rng = np.random.default_rng(seed)
        self.action_dim, self.action_range = action_dim, np.array(action_range)
        self.build(patch, **options)
        self.fill(rng, reward)
        for net in networks(self.agent).values():
            widen(net, rng)
        self.start({name: weights_of(net) for name, net in networks(self.agent).items()})
        self.state = rng.normal(size=STATE_DIM).astype(np.float32)

    def fill(self, rng, reward):
        """Push PUSHED transitions, a quarter terminal; keep what the ring should hold, by column."""
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
        return [column[indices] for column in self.columns]

    def update(self, n_updates=1):
        """Update both n_updates times, the agent in one call, and compare the last losses."""
        self.update_agent(n_updates)
        for _ in range(n_updates):
            losses = self.update_reference()
        assert_close(self.agent.losses, losses, "loss")

    def run(self, n_calls, n_updates=1, checks=(1, 2, 10, 25)):
        """Call update() n_calls times, check() after some of the calls and after the last."""
        for i in range(n_calls):
            self.update(n_updates)
            if i + 1 in (*checks, n_calls):
                self.check()

    def check(self):
        """Compare the greedy action and all that the agent and the reference consist of."""
        expected = self.reference.act(self.state[np.newaxis])
        assert_close([self.act()], expected, "the greedy action")
        for name, net in networks(self.agent).items():
            assert_close(weights_of(net), getattr(self.reference, name).weights, name)
        for name, of in self.optimizers.items():
            ours, expected = getattr(self.agent, name), getattr(self.reference, name)
            assert int(ours.iterations) == expected.iterations, name
            for slots, moments in ((ours._momentums, expected.moments),
                                   (ours._velocities, expected.squares)):
                slots = in_order(getattr(self.agent, of), slots) if of else map(np.array, slots)
                assert_close(list(slots), moments, f"a moment of {name}", least_unit=0)
        for name in self.numbers:
            assert_close([getattr(self.agent, name)], [getattr(self.reference, name)], name)


class DDPGPair(Pair):
    script = ddpg
    optimizers = {"actor_opt": "actor", "critic_opt": "critic"}
    numbers = ["var"]

    def build(self, patch):
        self.constants = {"LR_A": 7e-4, "LR_C": 1e-3, "GAMMA": 0.8, "TAU": 0.05, "VAR": 1.5}
        sizes = {"MEMORY_CAPACITY": CAPACITY, "BATCH_SIZE": BATCH_SIZE, "HIDDEN_DIM": HIDDEN_DIM}
        for name, value in {**self.constants, **sizes}.items():
            patch.setattr(ddpg, name, value)
        self.agent = ddpg.DDPG(self.action_dim, STATE_DIM, self.action_range)

    def push(self, state, action, reward, next_state, done):
        self.agent.store_transition(state, action, reward, next_state, done)

    def start(self, weights):
        targets = [
            *self.agent.actor_target.trainable_weights,
            *self.agent.critic_target.trainable_weights,
        ]
        for average, target in zip(self.agent.averages, targets, strict=True):
            average.assign(target)
        constants = {name.lower(): value for name, value in self.constants.items()}
        self.reference = reference.DDPG(weights, self.action_range, **constants)
        self.generator = copy.deepcopy(self.agent.generator)

    def act(self):
        return self.agent.get_action(self.state, greedy=True)

    def update_agent(self, n_updates):
        self.agent.learn(n_updates)

    def update_reference(self):
        indices = self.generator.integers(CAPACITY, size=BATCH_SIZE)
        return self.reference.update(*self.batch(indices))


class BufferPair(Pair):
    """A pair whose agent learns from a ReplayBuffer.

    Options:
        policy_loss: "q1" or "min".
        settings: keywords of update(), where not those of the class.
    """

    settings = {}  # keywords of update()
    draws = 0  # of noise, in each update

    def build(self, patch, policy_loss, settings=None, **options):
        patch.setattr(self.script, "POLICY_LOSS", policy_loss)
        self.policy_loss = policy_loss
        self.settings = self.settings if settings is None else settings
        self.buffer = ReplayBuffer(CAPACITY)
        self.push = self.buffer.push
        self.make_agent(**options)

    def start(self, weights):
        self.make_reference(weights)
        self.batches = copy.deepcopy(self.buffer.generator)
        self.noise = copy.deepcopy(self.noisy_net().generator)

    def update_agent(self, n_updates):
        self.agent.update(BATCH_SIZE, **self.settings, n_updates=n_updates)

    def update_reference(self):
        indices = self.batches.choice(CAPACITY, BATCH_SIZE, replace=False, shuffle=False)
        noise = [self.draw() for _ in range(self.draws)]
        return self.reference.update(*self.batch(indices), *noise, **self.settings)

    def draw(self):
        shape = BATCH_SIZE, self.action_dim
        return self.noise.standard_normal(shape, dtype=np.float32).astype(np.float64)


class TD3Pair(BufferPair):
    script = td3
    optimizers = {"q_optimizer1": "q_net1", "q_optimizer2": "q_net2",
                  "policy_optimizer": "policy_net"}
    numbers = ["update_cnt"]
    settings = {"eval_noise_scale": 0.8, "reward_scale": 2.0, "gamma": 0.8, "soft_tau": 0.05}
    draws = 1
    rates = {"q_lr": 1e-3, "policy_lr": 7e-4}

    def make_agent(self, interval=1):
        self.interval = interval
        self.agent = td3.TD3(STATE_DIM, self.action_dim, self.buffer, HIDDEN_DIM,
                             self.action_range, interval, **self.rates)

    def make_reference(self, weights):
        self.reference = reference.TD3(weights, self.action_range, self.interval,
                                       policy_loss=self.policy_loss, **self.rates)

    def noisy_net(self):
        return self.agent.target_policy_net

    def act(self):
        return self.agent.policy_net.get_action(self.state, 1.0, greedy=True)


class SACPair(BufferPair):
    script = sac
    optimizers = {"soft_q_optimizer1": "soft_q_net1", "soft_q_optimizer2": "soft_q_net2",
                  "policy_optimizer": "policy_net", "alpha_optimizer": None}
    numbers = ["log_alpha", "alpha"]
    settings = {"reward_scale": 2.0, "target_entropy": -0.4, "gamma": 0.8, "soft_tau": 0.05}
    draws = 2
    rates = {"soft_q_lr": 1e-3, "policy_lr": 7e-4, "alpha_lr": 2e-3}
    bounds = {"log_std_min": -1.5, "log_std_max": -0.3}  # narrow, so that both are met

    def make_agent(self):
        self.agent = sac.SAC(STATE_DIM, self.action_dim, self.buffer, HIDDEN_DIM,
                             self.action_range, **self.rates)
        vars(self.agent.policy_net).update(self.bounds)

    def make_reference(self, weights):
        self.agent.log_alpha.assign(-0.7)
        self.agent.alpha.assign(np.exp(-0.7))
        self.reference = reference.SAC(weights, -0.7, self.action_range,
                                       policy_loss=self.policy_loss, **self.rates, **self.bounds)

    def noisy_net(self):
        return self.agent.policy_net

    def act(self):
        return self.agent.policy_net.get_action(self.state, greedy=True)


VECTOR = {"action_dim": 2, "action_range": [0.7, 1.6]}
SHARED = {"action_dim": 2, "action_range": 1.3}  # one range for both dimensions

LONG = [
    (DDPGPair, {}),
    (TD3Pair, {"policy_loss": "min", "interval": 2, **VECTOR}),
    (SACPair, {"policy_loss": "min", **VECTOR}),
]
COMPILED = [
    (DDPGPair, 2, VECTOR),
    (TD3Pair, 2, {"policy_loss": "q1", "interval": 3, **SHARED}),
    (TD3Pair, 3, {"policy_loss": "q1", "interval": 3}),
    (SACPair, 2, {"policy_loss": "q1"}),
    (SACPair, 1, {"policy_loss": "min", "fixed_alpha": True, **SHARED}),
]


def options_id(value):
    """A test's name for one of its parameters."""
    if isinstance(value, dict):
        return "-".join(f"{k}={v}" for k, v in value.items()) or "default"
    return value.__name__.removesuffix("Pair") if isinstance(value, type) else str(value)


@pytest.mark.parametrize("kind, options", LONG, ids=options_id)
def test_eager_and_compiled_follow_the_reference_and_agree(monkeypatch, kind, options):
    pairs = [kind(monkeypatch, eager, **options) for eager in (True, False)]
    for pair in pairs:
        pair.run(100)
    for ours, theirs in zip(*(variables_of(pair.agent) for pair in pairs), strict=True):
        assert_close([np.array(ours)], [np.array(theirs)], ours.name, least_unit=0.01)
    assert pairs[0].compiled_programs() == 0 < pairs[1].compiled_programs()


@pytest.mark.parametrize("kind, n_updates, options", COMPILED, ids=options_id)
def test_compiled_updates_follow_the_reference(monkeypatch, kind, n_updates, options):
    kind(monkeypatch, **options).run(-(-54 // n_updates), n_updates)


@pytest.mark.parametrize("policy_loss", ["q1", "min"])
@pytest.mark.parametrize("n_updates", [1, 2, 3])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_td3_delays_the_policy(monkeypatch, interval, n_updates, policy_loss):
    """Wherever in a call of several updates the policy's turn comes."""
    pair = TD3Pair(monkeypatch, eager=True, policy_loss=policy_loss, interval=interval)
    pair.run(6 // n_updates, n_updates, checks=range(7))
    assert int(pair.agent.policy_optimizer.iterations) == 6 // interval
