"""common/noise.py: Normal, and Ornstein and Uhlenbeck's; how DDPG explores with noise."""

import numpy as np
import pytest
import tensorflow as tf
from agents import ENGINES, made, running, small_ddpg
from tensorflow_probability import distributions

import ddpg
from common.engine.plain import compiled
from common.noise import Normal, OrnsteinUhlenbeck

MANY = 100_000  # dimensions: as many independent paths at once
SIGMAS = 5  # tolerance in standard errors; the seeds are fixed, so the outcome is too

PROCESSES = [
    {"theta": 0.15, "sigma": 0.3, "mu": 0.0, "dt": 1.0},
    {"theta": 0.15, "sigma": 1.0, "mu": 2.0, "dt": 0.01},
    {"theta": 2.0, "sigma": 0.5, "mu": -1.0, "dt": 1.0},  # Euler's method would not converge
    {"theta": 1e-4, "sigma": 1.0, "mu": 0.5, "dt": 3.0},  # nearly Brownian motion
]


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(1)


@pytest.fixture
def scripted(monkeypatch):
    """scripted(number): from now on, that is all the "noise"."""

    def script(number):
        monkeypatch.setattr(np.random, "standard_normal", lambda size: np.full(size, float(number)))

    return script


def path(process, steps):
    """The next samples, (steps, size)."""
    return np.array([process.sample() for _ in range(steps)])


def variance_of_step(theta, sigma, dt):
    """Var of X(t + dt) given X(t), from the solution of (6.1)."""
    return sigma**2 * (1 - np.exp(-2 * theta * dt)) / (2 * theta)


def assert_mean(values, expected, variance):
    error = SIGMAS * np.sqrt(variance / np.size(values))
    assert abs(np.mean(values) - expected) < error


def assert_variance(values, expected):
    """Of normal values: their sample variance has the standard error expected sqrt(2 / n)."""
    error = SIGMAS * expected * np.sqrt(2 / np.size(values))
    assert abs(np.var(values) - expected) < error


# --- the transition, exactly: without noise the mean remains, from mu the deviation


@pytest.mark.parametrize("kwargs", PROCESSES)
def test_mean_decays_exponentially(scripted, kwargs):
    scripted(0)
    process = OrnsteinUhlenbeck(2, **kwargs)
    process.x = np.array([3.0, -7.0])
    mu, times = kwargs["mu"], kwargs["dt"] * np.arange(1, 6)[:, None]
    expected = mu + np.array([3.0 - mu, -7.0 - mu]) * np.exp(-kwargs["theta"] * times)
    np.testing.assert_allclose(path(process, 5), expected, rtol=1e-12)


@pytest.mark.parametrize("kwargs", PROCESSES)
def test_deviation_of_one_step(scripted, kwargs):
    scripted(1)
    process = OrnsteinUhlenbeck(3, **kwargs)
    variance = variance_of_step(kwargs["theta"], kwargs["sigma"], kwargs["dt"])
    np.testing.assert_allclose((process.sample() - kwargs["mu"]) ** 2, variance, rtol=1e-9)


# --- statistics over many paths


@pytest.mark.parametrize("theta", [0.15, 1.0, 0.02])
@pytest.mark.parametrize("dt", [1.0, 0.3])
def test_default_sigma_makes_the_stationary_variance_one(theta, dt):
    """From the mean, the variance grows as 1 - exp(-2 theta t), to 1 and no further."""
    process = OrnsteinUhlenbeck(MANY, theta, dt=dt)
    for steps in (1, 4, 20):
        process.reset()
        x = path(process, steps)[-1]
        assert_mean(x, 0.0, 1.0)
        assert_variance(x, 1 - np.exp(-2 * theta * dt * steps))


# --- its state


@pytest.mark.parametrize("mu", [0, 0.0, 1.5, np.array([1.0, -2.0, 0.5])])
def test_starts_and_restarts_from_the_mean(mu):
    process = OrnsteinUhlenbeck(3, mu=mu)
    np.testing.assert_array_equal(process.x, np.broadcast_to(mu, 3))
    path(process, 5)
    assert np.all(process.x != mu)
    process.reset()
    np.testing.assert_array_equal(process.x, np.broadcast_to(mu, 3))


def test_the_seed_fixes_the_path():
    """reset() does not: the numbers go on, or each episode would explore alike."""
    process = OrnsteinUhlenbeck(2)
    first = path(process, 10)
    process.reset()
    assert np.all(path(process, 10) != first)
    np.random.seed(1)
    np.testing.assert_array_equal(path(OrnsteinUhlenbeck(2), 10), first)


def test_a_sample_is_not_changed_by_the_next():
    process = OrnsteinUhlenbeck(2)
    first = process.sample()
    before = first.copy()
    process.sample()
    process.reset()
    np.testing.assert_array_equal(first, before)


# --- Normal


SCALES = {
    "numbers": (0, 1),
    "tensors": (np.float32([1.0, -2.0, 0.5]), np.float32([0.1, 2.0, 1.0])),
    "broadcast": (np.float32([[1.0], [5.0]]), np.float32([0.1, 2.0, 1.0])),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("scales", "shape"), [*zip(SCALES, [(), [2], tf.TensorShape([4, 3])])])
def test_samples(scales, shape, engine):
    """Of tfp's shapes, in float32, from NumPy's generator; the same whichever engine runs."""
    loc, scale = map(tf.constant, SCALES[scales]) if scales != "numbers" else SCALES[scales]

    def lines(agent, row):
        return Normal(loc, scale).sample(shape), row

    theirs = distributions.Normal(tf.cast(loc, tf.float32), scale).sample(shape)
    with running(engine):
        for seed in (1, 2, 1):
            np.random.seed(seed)
            found, _ = compiled(lines)(Holder(), [0.0])
            following = np.random.standard_normal()
            np.random.seed(seed)
            expected = loc + scale * np.random.standard_normal(theirs.shape)
            assert (found.shape, found.dtype) == (theirs.shape, np.float32)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            assert np.random.standard_normal() == following  # no more was drawn


class Holder:
    """What a compiled method is of."""


@pytest.mark.parametrize("scales", SCALES)
def test_log_prob(scales):
    """tfp's, with its gradient, by which SAC's policy learns."""
    loc, scale = (tf.constant(number, tf.float32) for number in SCALES[scales])
    value = tf.constant([[0.3, -1.0, 2.5], [7.0, 0.0, 1.0]])
    expected = -0.5 * ((value - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    with tf.GradientTape() as tape:
        tape.watch(loc)
        found = Normal(loc, scale).log_prob(value)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    slope = tf.broadcast_to((value - loc) / scale**2, value.shape).numpy()
    np.testing.assert_allclose(np.sum(tape.gradient(found, loc)), slope.sum(), rtol=1e-5)


# --- DDPG.get_action


STATE = np.zeros(3, np.float32)


@pytest.fixture
def agent():
    """make(action_dim, action_range, ...) -> a DDPG that is nothing but its exploration."""

    def make(action_dim=2, action_range=2.0, noise="gaussian", var=2.0, center=0.0, theta=0.15):
        action_range = np.broadcast_to(np.float32(action_range), action_dim)
        with small_ddpg(MEMORY_CAPACITY=1, HIDDEN_DIM=2, VAR=var, OU_THETA=theta):
            agent = made(ddpg.DDPG, action_dim, 3, action_range, noise)
        *_, bias = agent.actor.trainable_weights
        for variable in agent.actor.trainable_weights:
            variable.assign(np.zeros(variable.shape))
        bias.assign(np.full(bias.shape, np.arctanh(center / action_range)))
        return agent

    with running("eager"):
        yield make


def test_gaussian_is_the_default():
    assert (ddpg.NOISE, ddpg.VAR, ddpg.OU_THETA) == ("gaussian", 2.0, 0.15)


@pytest.mark.parametrize("var", [0.1, 0.3])
@pytest.mark.parametrize("center", [0.0, -0.5])
def test_gaussian_noise(agent, var, center):
    """Around the actor's action, its standard deviation `var`, step after step anew."""
    agent = agent(MANY, 4.0, var=var, center=center)
    first, second = agent.get_action(STATE), agent.get_action(STATE)
    assert_mean(first, center, var**2)
    assert_variance(first, var**2)
    assert abs(np.corrcoef(first, second)[0, 1]) < SIGMAS / np.sqrt(MANY)


@pytest.mark.parametrize("var", [0.1, 0.3])
@pytest.mark.parametrize("theta", [0.15, 0.7])
def test_ornstein_uhlenbeck_noise(agent, var, theta):
    """Around the actor's action: in the long run of deviation `var`, each step near the last."""
    agent = agent(MANY, 4.0, "ou", var, center=-0.5, theta=theta)
    agent.ou.reset()
    first = agent.get_action(STATE)
    assert_mean(first, -0.5, var**2)
    assert_variance(first, var**2 * (1 - np.exp(-2 * theta)))
    for _ in range(40):
        before, after = first, agent.get_action(STATE)
        first = after
    assert_variance(after, var**2)
    correlation = np.corrcoef(before, after)[0, 1]
    assert correlation == pytest.approx(np.exp(-theta), abs=SIGMAS / np.sqrt(MANY))


@pytest.mark.parametrize("noise", ["gaussian", "ou"])
@pytest.mark.parametrize("action_range", [2.0, np.array([0.5, 2.0, 8.0])])
def test_clipped_to_the_action_range(agent, noise, action_range):
    """Each dimension to its own; both ends are reached."""
    agent = agent(3, action_range, noise, var=1000.0)
    actions = np.array([agent.get_action(STATE) for _ in range(60)])
    high = np.broadcast_to(action_range, 3)
    np.testing.assert_array_equal(actions.max(0), high)
    np.testing.assert_array_equal(actions.min(0), -high)


@pytest.mark.parametrize("noise", ["gaussian", "ou"])
def test_greedy_is_the_actor(agent, noise):
    """Without noise, and without a draw that would change the noise to come."""
    agent = agent(3, 2.0, noise, var=1000.0, center=-1.5)
    agent.get_action(STATE)
    x, following = agent.ou.x.copy(), np.random.get_state()
    for _ in range(3):
        np.testing.assert_allclose(agent.get_action(STATE, greedy=True), -1.5, rtol=1e-6)
    np.testing.assert_equal(np.random.get_state(), following)
    np.testing.assert_array_equal(agent.ou.x, x)


@pytest.mark.parametrize("noise", ["gaussian", "ou"])
def test_no_noise_left(agent, noise):
    """var = 0 explores no more; the noise scales with var as it is at each step."""
    agent = agent(3, 2.0, noise, var=0.0, center=1.5)
    np.testing.assert_allclose(agent.get_action(STATE), 1.5, rtol=1e-6)
    agent.var = 0.1
    assert np.all(np.abs(agent.get_action(STATE) - 1.5) > 1e-6)


def test_var_shrinks_with_learning_only(agent):
    """By 0.9995 at each update, not at each action."""
    agent = agent(var=1.5)
    agent.store_transition(STATE, [0.5, 0.5], 1.0, STATE)
    agent.get_action(STATE)
    assert agent.var == 1.5
    agent.learn()
    assert agent.var == pytest.approx(1.5 * 0.9995, rel=1e-12)
    agent.learn(3)
    assert agent.var == pytest.approx(1.5 * 0.9995**4, rel=1e-12)
