"""Small agents of the chapter for the tests: made, filled, widened, updated, asked."""

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from tensorlayer.models import Model

import ddpg
import sac
import td3
from common.engine import fast
from common.engine.variables import variables_of, weights_in

SCRIPTS = {"ddpg": ddpg, "td3": td3, "sac": sac}
ENGINES = ["fast", "plain", "eager"]
STATE_DIM, HIDDEN_DIM, BATCH_SIZE, CAPACITY = 3, 4, 8, 20
STATE = [0.3, -0.2, 0.9]


@contextlib.contextmanager
def running(engine):
    """What is called in the block for the first time is run by this engine; eager, all is."""
    with pytest.MonkeyPatch.context() as patch:
        if engine == "plain":
            patch.setattr(fast, "usable", lambda programs: False)
        tf.config.run_functions_eagerly(engine == "eager")
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


@contextlib.contextmanager
def small_ddpg(**constants):
    """DDPG reads its sizes off the constants of its script: here they are other ones."""
    sizes = {"MEMORY_CAPACITY": CAPACITY, "BATCH_SIZE": BATCH_SIZE, "HIDDEN_DIM": HIDDEN_DIM}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**sizes, **constants}.items():
            patch.setattr(ddpg, name, value)
        yield


def seed_everything(seed=0):
    """As each script's main part does."""
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)


def made(make, *args, **kwargs):
    """make(...) in a thread, whose stack is short: TensorLayer reads it for each layer."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(make, *args, **kwargs).result()


def transitions(n=CAPACITY, state_dim=STATE_DIM):
    rng = np.random.default_rng(9)
    return [
        (rng.normal(size=state_dim), rng.uniform(-2, 2, 1), rng.normal(),
         rng.normal(size=state_dim), i % 7 == 0)
        for i in range(n)
    ]


def widen(weights, rng, scale=0.4):
    """Set a list of weights from N(0, scale^2); rng is a generator or a seed."""
    rng = np.random.default_rng(rng)
    for weight in weights:
        weight.assign(rng.normal(0, scale, weight.shape))


def networks(agent):
    """The agent's networks by name, in the order of their creation."""
    return {name: value for name, value in vars(agent).items() if isinstance(value, Model)}


def new_agent(script, seed=0, filled=True, state_dim=STATE_DIM, hidden_dim=HIDDEN_DIM, wide=True,
              **options):
    """A small agent with transitions and, if wide, weights that depend on no seed."""
    seed_everything(seed)
    if script == "ddpg":
        agent = made(ddpg.DDPG, 1, state_dim, 2.0, **options)
        store = agent.store_transition
    else:
        buffer = SCRIPTS[script].ReplayBuffer(CAPACITY)
        kind = getattr(SCRIPTS[script], script.upper())
        agent = made(kind, state_dim, 1, buffer, hidden_dim, 2.0, **options)
        store = buffer.push
    for transition in transitions(state_dim=state_dim) if filled else ():
        store(*transition)
    if wide:
        of_each = {}
        for name, weight in weights_in(agent).items():
            of_each.setdefault(name.partition("/")[0], []).append(weight)
        for i, weights in enumerate(of_each.values()):
            if len(weights) > 1:  # a network's
                widen(weights, i)
    return agent


def update(agent, n_updates=1):
    if isinstance(agent, ddpg.DDPG):
        agent.learn(n_updates)
    elif isinstance(agent, td3.TD3):
        agent.update(BATCH_SIZE, 0.5, n_updates=n_updates)
    else:
        agent.update(BATCH_SIZE, n_updates=n_updates)


def act(agent, state=STATE, greedy=True):
    if isinstance(agent, ddpg.DDPG):
        return agent.get_action(state, greedy)
    if isinstance(agent, td3.TD3):
        return agent.policy_net.get_action(state, 1.0, greedy)
    return agent.policy_net.get_action(state, greedy)


def values(agent):
    """All that an agent has learned, by name."""
    return {name: variable.numpy() for name, variable in variables_of(agent).items()}
