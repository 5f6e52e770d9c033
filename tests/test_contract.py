"""What the three scripts keep of the chapter: every name on the printed page, doing the same.

The chapter stands here once, as a table: its code with all bodies left out, and the constants
that its authors published with it. Each is in the file, in the order of the page, with the same
parameters and defaults; parameters of ours may stand behind the chapter's.
"""

import ast
import inspect
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
import tensorlayer as tl
from agents import SCRIPTS, made, networks, small_ddpg

import ddpg
import sac
import td3
from common.files.names import ROOT
from common.flags import Command

STATE_DIM, ACTION_DIM, HIDDEN_DIM = 4, 2, 6


@dataclass
class Section:
    """One section of the chapter: 6.5.2, 6.5.3 or 6.5.4."""

    code: str  # classes and functions, without bodies
    constants: dict


COMMON = {
    "ENV_ID": "Pendulum-v1",  # printed as Pendulum-v0, which gym no longer has (errata E15)
    "RANDOM_SEED": 2,
    "TRAIN_EPISODES": 100,
    "TEST_EPISODES": 10,
    "MAX_STEPS": 200,
}
RING = """
class ReplayBuffer:
    def __init__(self, capacity): ...
    def push(self, state, action, reward, next_state, done): ...
    def sample(self, batch_size): ...
    def __len__(self): ...
"""
CHAPTER = {
    "ddpg": Section(
        code="""
class DDPG:
    def __init__(self, action_dim, state_dim, action_range):
        def get_actor(input_state_shape): ...  # printed with a name, which nothing needs
        def get_critic(input_state_shape, input_action_shape): ...
        def copy_para(from_model, to_model): ...
    def ema_update(self): ...
    def get_action(self, s, greedy=False): ...
    def learn(self): ...
    def store_transition(self, s, a, r, s_): ...
    def save(self): ...
    def load(self): ...
""",
        constants={
            **COMMON,
            "LR_A": 1e-3,
            "LR_C": 2e-3,
            "GAMMA": 0.9,
            "TAU": 0.01,
            "MEMORY_CAPACITY": 10000,
            "BATCH_SIZE": 32,
            "HIDDEN_DIM": 64,  # a number on the page
            "UPDATE_ITR": 1,
            "VAR": 2.0,
        },
    ),
    "td3": Section(
        code=RING
        + """
class QNetwork:
    def __init__(self, num_inputs, num_actions, hidden_dim, init_w=3e-3): ...
    def forward(self, input): ...
class PolicyNetwork:
    def __init__(self, num_inputs, num_actions, hidden_dim, action_range=1.0, init_w=3e-3): ...
    def forward(self, state): ...
    def evaluate(self, state, eval_noise_scale): ...
    def get_action(self, state, explore_noise_scale, greedy=False): ...
    def sample_action(self): ...
class TD3:
    def __init__(self, state_dim, action_dim, replay_buffer, hidden_dim, action_range,
                 policy_target_update_interval=1, q_lr=3e-4, policy_lr=3e-4): ...
    def target_ini(self, net, target_net): ...
    def target_soft_update(self, net, target_net, soft_tau): ...
    def update(self, batch_size, eval_noise_scale, reward_scale=10.0, gamma=0.9,
               soft_tau=1e-2): ...
    def save(self): ...
    def load(self): ...
""",
        constants={
            **COMMON,
            "BATCH_SIZE": 64,
            "EXPLORE_STEPS": 500,
            "HIDDEN_DIM": 64,
            "Q_LR": 3e-4,
            "POLICY_LR": 3e-4,
            "POLICY_TARGET_UPDATE_INTERVAL": 3,
            "EXPLORE_NOISE_SCALE": 1.0,
            "EVAL_NOISE_SCALE": 0.5,
            "REWARD_SCALE": 1.0,
            "REPLAY_BUFFER_SIZE": 500_000,
            "UPDATE_ITR": 3,
        },
    ),
    "sac": Section(
        code=RING
        + """
class SoftQNetwork:
    def __init__(self, num_inputs, num_actions, hidden_dim, init_w=3e-3): ...
    def forward(self, input): ...
class PolicyNetwork:
    def __init__(self, num_inputs, num_actions, hidden_dim, action_range=1.0, init_w=3e-3,
                 log_std_min=-20, log_std_max=2): ...
    def forward(self, state): ...
    def evaluate(self, state, epsilon=1e-6): ...
    def get_action(self, state, greedy=False): ...
    def sample_action(self): ...
class SAC:
    def __init__(self, state_dim, action_dim, replay_buffer, hidden_dim, action_range,
                 soft_q_lr=3e-4, policy_lr=3e-4, alpha_lr=3e-4): ...
    def target_ini(self, net, target_net): ...
    def target_soft_update(self, net, target_net, soft_tau): ...
    def update(self, batch_size, reward_scale=10.0, auto_entropy=True, target_entropy=-2,
               gamma=0.99, soft_tau=1e-2): ...
    def save(self): ...
    def load(self): ...
""",
        constants={
            **COMMON,
            "BATCH_SIZE": 256,
            "EXPLORE_STEPS": 100,
            "HIDDEN_DIM": 32,
            "SOFT_Q_LR": 3e-4,
            "POLICY_LR": 3e-4,
            "ALPHA_LR": 3e-4,
            "AUTO_ENTROPY": True,
            "REWARD_SCALE": 1.0,
            "REPLAY_BUFFER_SIZE": 500_000,
            "UPDATE_ITR": 3,
        },
    ),
}


# --- reading the page and the file


def definitions(node):
    """The classes and functions defined right in a module, class or function, in order."""
    kinds = ast.ClassDef | ast.FunctionDef
    return {child.name: child for child in node.body if isinstance(child, kinds)}


def every_definition(node, prefix=""):
    """All of them, at any depth: dict from a dotted name to its node, in order."""
    found = {}
    for name, child in definitions(node).items():
        found[prefix + name] = child
        found.update(every_definition(child, f"{prefix}{name}."))
    return found


def parameters(function):
    """Names and defaults of a function's parameters, in order."""
    a = function.args
    assert not (a.vararg or a.kwarg or a.kwonlyargs or a.posonlyargs), function.name
    defaults = [None] * (len(a.args) - len(a.defaults)) + a.defaults
    return [
        (argument.arg, inspect.Parameter.empty if default is None else ast.literal_eval(default))
        for argument, default in zip(a.args, defaults)
    ]


def tree(script):
    return ast.parse((ROOT / f"{script}.py").read_text(encoding="utf-8"))


def printed(script):
    """All definitions of the page."""
    return every_definition(ast.parse(CHAPTER[script].code))


def look_up(script, name):
    """The class or function of a dotted name, as the script imports or defines it."""
    found = SCRIPTS[script]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def every_function():
    """One case for each function of each page."""
    return [
        pytest.param(script, name, id=f"{script}-{name}")
        for script in CHAPTER
        for name, node in printed(script).items()
        if isinstance(node, ast.FunctionDef)
    ]


@pytest.mark.parametrize(("script", "name"), every_function())
def test_parameters(script, name):
    """The chapter's first, in order, with their defaults; ours may follow, with defaults."""
    expected = parameters(printed(script)[name])
    if name.startswith("DDPG.__init__."):  # a function inside a function exists only as text
        found = parameters(every_definition(tree(script))[name])
    else:
        signature = inspect.signature(look_up(script, name))
        kinds = {p.kind for p in signature.parameters.values()}
        assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        found = [(p.name, p.default) for p in signature.parameters.values()]
    assert found[: len(expected)] == expected
    assert [type(default) for _, default in found[: len(expected)]] == [
        type(default) for _, default in expected
    ]
    ours = found[len(expected) :]
    assert all(default is not inspect.Parameter.empty for _, default in ours)


@pytest.mark.parametrize("script", CHAPTER)
def test_order(script):
    """Classes, methods and functions stand as on the page; ours stand among them."""
    expected, found = list(printed(script)), list(every_definition(tree(script)))
    assert [name for name in found if name in expected] == expected


@pytest.mark.parametrize("script", CHAPTER)
def test_constants(script):
    """The published values, above the line that makes flags of them."""
    written = Command(ROOT / f"{script}.py").settings().constants
    for name, value in CHAPTER[script].constants.items():
        for found in (written[name], getattr(SCRIPTS[script], name)):
            assert (name, found, type(found)) == (name, value, type(value))


@pytest.mark.parametrize("script", ["td3", "sac"])
def test_constants_that_the_chapter_leaves_to_update(script):
    """GAMMA and SOFT_TAU, which make flags, are the defaults of update()."""
    module = SCRIPTS[script]
    update = inspect.signature(getattr(module, script.upper()).update)
    assert update.parameters["gamma"].default == module.GAMMA
    assert update.parameters["soft_tau"].default == module.SOFT_TAU
    assert {"td3": "q1", "sac": "min"}[script] == module.POLICY_LOSS  # what the page runs


# --- the main part


def main_part(script):
    *_, last = tree(script).body
    assert isinstance(last, ast.If)
    assert ast.unparse(last.test) == "__name__ == '__main__'"
    return last


def calls(node, *names):
    """The calls of functions or methods with these names, in the order of the text."""
    found = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    found = [call for call in found if ast.unparse(call.func).split(".")[-1] in names]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


@pytest.mark.parametrize("script", CHAPTER)
def test_arguments_in_the_order_of_the_parameters(script):
    """Each argument is the constant of its parameter's name (errata E6)."""
    agent_class = getattr(SCRIPTS[script], script.upper())
    both = [(agent_class, calls(main_part(script), script.upper()))]
    if script != "ddpg":
        both.append((agent_class.update, calls(main_part(script), "update")))
    for function, given in both:
        assert len(given) == 1
        names = [name for name in inspect.signature(function).parameters if name != "self"]
        arguments = [ast.unparse(argument).lower() for argument in given[0].args]
        special = {"-1.0 * action_dim": "target_entropy"}
        assert [special.get(a, a) for a in arguments] == names[: len(arguments)]
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in given[0].keywords}
        assert keywords.pop("n_updates", "UPDATE_ITR") == "UPDATE_ITR"
        for name, value in keywords.items():
            assert value in (name.upper(), "-1.0 * action_dim" * (name == "target_entropy"))


# --- constructed agents


@pytest.fixture(scope="module")
def agents():
    """(first, second): two dicts of new agents, one of each kind."""

    def make():
        action_range = np.float32([2.0, 3.0])
        found = {"ddpg": ddpg.DDPG(ACTION_DIM, STATE_DIM, action_range)}
        for script in ("td3", "sac"):
            kind, ring = getattr(SCRIPTS[script], script.upper()), SCRIPTS[script].ReplayBuffer(10)
            found[script] = kind(STATE_DIM, ACTION_DIM, ring, HIDDEN_DIM, action_range)
        return found

    tf.random.set_seed(0)
    with small_ddpg(MEMORY_CAPACITY=10, HIDDEN_DIM=HIDDEN_DIM):
        return [made(make), made(make)]


@pytest.fixture
def agent(agents, script):
    """The first agent of the script that the test is for."""
    return agents[0][script]


@pytest.mark.parametrize("script", CHAPTER)
def test_two_agents_in_one_process(agents, script):
    """Of the same kind: they share no weights."""
    first, second = (pair[script] for pair in agents)
    for name, net in networks(first).items():
        other = networks(second)[name]
        shared = {id(w) for w in net.all_weights} & {id(w) for w in other.all_weights}
        assert not shared


def test_ddpg_starts_with(agents):
    """An empty memory, a row of which has room for `done` (errata E9), and the first noise."""
    agent = agents[0]["ddpg"]
    assert agent.memory.shape == (10, STATE_DIM * 2 + ACTION_DIM + 2)
    assert agent.memory.dtype == np.float32
    assert (agent.pointer, agent.var) == (0, ddpg.VAR)
    assert (agent.action_dim, agent.state_dim) == (ACTION_DIM, STATE_DIM)
    np.testing.assert_array_equal(agent.action_range, [2.0, 3.0])
    assert isinstance(agent.ema, tf.train.ExponentialMovingAverage)


def test_td3_starts_with(agents):
    agent = agents[0]["td3"]
    assert (agent.update_cnt, agent.policy_target_update_interval) == (0, 1)
    assert isinstance(agent.replay_buffer, td3.ReplayBuffer)


def test_sac_starts_with(agents):
    """log_alpha, a learnable number, at 0; alpha is its exponential."""
    agent = agents[0]["sac"]
    assert isinstance(agent.log_alpha, tf.Variable)
    assert agent.log_alpha.trainable
    assert agent.log_alpha.dtype == tf.float32
    assert (agent.log_alpha.shape, float(agent.log_alpha)) == ((), 0.0)
    assert float(agent.alpha) == 1.0
    assert isinstance(agent.replay_buffer, sac.ReplayBuffer)


@pytest.mark.parametrize(
    ("script", "rates"),
    [
        ("ddpg", {"actor_opt": 1e-3, "critic_opt": 2e-3}),
        ("td3", {"q_optimizer1": 3e-4, "q_optimizer2": 3e-4, "policy_optimizer": 3e-4}),
        (
            "sac",
            {
                "soft_q_optimizer1": 3e-4,
                "soft_q_optimizer2": 3e-4,
                "policy_optimizer": 3e-4,
                "alpha_optimizer": 3e-4,
            },
        ),
    ],
)
def test_optimizers(agent, script, rates):
    """Adam, as TensorFlow has it by default, at the chapter's learning rates."""
    for name, rate in rates.items():
        optimizer, default = getattr(agent, name), tf.optimizers.Adam()
        assert isinstance(optimizer, tf.optimizers.Adam)
        assert float(optimizer.learning_rate) == np.float32(rate)
        for setting in ("beta_1", "beta_2", "epsilon", "amsgrad", "clipnorm", "weight_decay"):
            assert getattr(optimizer, setting) == getattr(default, setting)


def test_each_learning_rate_reaches_its_optimizer():
    """Each of its own: a rate given in the wrong place would go unnoticed at equal defaults."""

    def rates(agent, *names):
        return [round(float(getattr(agent, name).learning_rate), 6) for name in names]

    sizes = STATE_DIM, ACTION_DIM, None, HIDDEN_DIM, 1.0
    agent = made(td3.TD3, *sizes, 7, 0.1, 0.2)
    assert rates(agent, "q_optimizer1", "q_optimizer2", "policy_optimizer") == [0.1, 0.1, 0.2]
    assert agent.policy_target_update_interval == 7
    agent = made(sac.SAC, *sizes, 0.1, 0.2, 0.3)
    names = "soft_q_optimizer1", "soft_q_optimizer2", "policy_optimizer", "alpha_optimizer"
    assert rates(agent, *names) == [0.1, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("script", "pairs"),
    [
        ("ddpg", "actor actor_target critic critic_target"),
        ("td3", "q_net1 target_q_net1 q_net2 target_q_net2 policy_net target_policy_net"),
        ("sac", "soft_q_net1 target_soft_q_net1 soft_q_net2 target_soft_q_net2"),
    ],
)
def test_targets_start_as_copies(agent, script, pairs):
    """Equal to their networks, but not the same; and twins differ from each other."""
    names = pairs.split()
    for name, target in zip(names[::2], names[1::2]):
        weights = getattr(agent, name).all_weights
        for weight, copy in zip(weights, getattr(agent, target).all_weights, strict=True):
            assert weight is not copy
            np.testing.assert_array_equal(weight.numpy(), copy.numpy())
    if script != "ddpg":
        one, two = getattr(agent, names[0]), getattr(agent, names[2])
        assert np.all(one.all_weights[0].numpy() != two.all_weights[0].numpy())


@pytest.mark.parametrize(
    ("script", "training", "evaluating"),
    [
        ("ddpg", "actor critic", "actor_target critic_target"),
        ("td3", "q_net1 q_net2 target_q_net1 target_q_net2 policy_net target_policy_net", ""),
        ("sac", "soft_q_net1 soft_q_net2 policy_net", "target_soft_q_net1 target_soft_q_net2"),
    ],
)
def test_modes(agent, script, training, evaluating):
    """train() and eval(), network by network as in the chapter."""
    for name, net in networks(agent).items():
        assert net.is_train is (name in training.split())
        assert (name in training.split()) != (name in evaluating.split())


# --- the networks


def layers(net):
    """Names and shapes of the layers that have weights, by name."""
    return {layer.name: tuple(layer.W.shape) for layer in net.all_layers if layer.all_weights}


STATE, BOTH = STATE_DIM, STATE_DIM + ACTION_DIM
Q = {"q1": (BOTH, HIDDEN_DIM), "q2": (HIDDEN_DIM, HIDDEN_DIM), "q3": (HIDDEN_DIM, 1)}
POLICY = {
    "policy1": (STATE, HIDDEN_DIM),
    "policy2": (HIDDEN_DIM, HIDDEN_DIM),
    "policy3": (HIDDEN_DIM, HIDDEN_DIM),
}
ACTOR = {
    "A_l1": (STATE, HIDDEN_DIM),
    "A_l2": (HIDDEN_DIM, HIDDEN_DIM),
    "A_a": (HIDDEN_DIM, ACTION_DIM),
}
CRITIC = {
    "C_l1": (BOTH, HIDDEN_DIM),
    "C_l2": (HIDDEN_DIM, HIDDEN_DIM),
    "C_out": (HIDDEN_DIM, 1),
}
HEAD = HIDDEN_DIM, ACTION_DIM
SHAPES = {
    "ddpg": {"actor": ACTOR, "critic": CRITIC, "actor_target": ACTOR, "critic_target": CRITIC},
    "td3": {
        "q_net1": Q,
        "q_net2": Q,
        "target_q_net1": Q,
        "target_q_net2": Q,
        "policy_net": {**POLICY, "policy_output": HEAD},
        "target_policy_net": {**POLICY, "policy_output": HEAD},
    },
    "sac": {
        "soft_q_net1": Q,
        "soft_q_net2": Q,
        "target_soft_q_net1": Q,
        "target_soft_q_net2": Q,
        "policy_net": {**POLICY, "policy_mean": HEAD, "policy_logstd": HEAD},
    },
}


@pytest.mark.parametrize("script", CHAPTER)
def test_layers(agent, script):
    """Their names, the units in and out, a bias for each; and no other network."""
    assert {name: layers(net) for name, net in networks(agent).items()} == SHAPES[script]
    for net in networks(agent).values():
        for layer in net.all_layers:
            if layer.all_weights:
                assert layer.b.shape == layer.W.shape[1:]
        assert len(net.trainable_weights) == len(net.all_weights) == 2 * len(layers(net))


def test_static_api(agents):
    """DDPG's networks are plain Models of inputs and outputs, with layers as in the chapter."""
    agent = agents[0]["ddpg"]
    for name, net in networks(agent).items():
        assert type(net) is tl.models.Model
        assert net.outputs is not None
    kinds = [type(layer).__name__ for layer in agent.actor.all_layers]
    assert kinds == ["_InputLayer", "Dense", "Dense", "Dense", "Lambda"]
    assert [layer.name for layer in agent.actor.all_layers][:-1] == ["A_input", *ACTOR]
    kinds = [type(layer).__name__ for layer in agent.critic.all_layers]
    assert kinds == ["_InputLayer", "_InputLayer", "Concat", "Dense", "Dense", "Dense"]
    names = [layer.name for layer in agent.critic.all_layers]
    assert names[:2] + names[3:] == ["C_s_input", "C_a_input", *CRITIC]


@pytest.mark.parametrize("script", ["td3", "sac"])
def test_dynamic_api(agent, script):
    """The networks of TD3 and SAC are subclasses of Model with a forward() of their own."""
    q_class = td3.QNetwork if script == "td3" else sac.SoftQNetwork
    for name, net in networks(agent).items():
        policy = "policy" in name
        assert type(net) is (SCRIPTS[script].PolicyNetwork if policy else q_class)
        assert type(net).__bases__ == (tl.models.Model,)
        assert "forward" in vars(type(net))
        assert net.inputs is None
        assert net.outputs is None
        attributes = ["linear1", "linear2", "linear3"]
        if policy:
            heads = {"td3": ["output_linear"], "sac": ["mean_linear", "log_std_linear"]}
            attributes += heads[script]
        found = [getattr(net, attribute).name for attribute in attributes]
        assert found == list(SHAPES[script][name])


def test_bounds_of_log_std_are_parameters():
    net = made(sac.PolicyNetwork, 2, 1, 3, 1.0, 3e-3, -1.5, 0.5)
    for bias, bound in ((100.0, 0.5), (-100.0, -1.5)):
        net.log_std_linear.b.assign([bias])
        assert net.forward(np.zeros((1, 2), np.float32))[1].numpy().item() == bound


# --- initial weights, of networks large enough for statistics


SIGMAS = 5  # tolerance in standard errors; the seeds are fixed, so the outcome is too


def assert_normal(values, _, deviation=0.3):
    """Around 0, with this standard deviation, and with a normal distribution's tails."""
    n = np.size(values)
    assert abs(np.mean(values)) < SIGMAS * deviation / np.sqrt(n)
    assert abs(np.std(values) - deviation) < SIGMAS * deviation / np.sqrt(2 * n)
    assert np.mean(np.abs(values) < deviation) == pytest.approx(0.683, abs=SIGMAS / np.sqrt(4 * n))


def assert_uniform(values, bound):
    """In [-bound, bound], everywhere alike."""
    n = np.size(values)
    assert np.max(np.abs(values)) <= bound
    counts, _ = np.histogram(values, 10, (-bound, bound))
    assert ((counts - n / 10) ** 2 / (n / 10)).sum() < 9 + SIGMAS * np.sqrt(18)


def assert_fan_in(values, _):
    assert_uniform(values, values.shape[0] ** -0.5)


def assert_glorot(values, _):
    """Normal, cut at two deviations, of variance 2 / (inputs + outputs)."""
    deviation = np.sqrt(2 / sum(values.shape))
    n = np.size(values)
    assert abs(np.mean(values)) < SIGMAS * deviation / np.sqrt(n)
    assert abs(np.std(values) - deviation) < SIGMAS * deviation / np.sqrt(2 * n)
    assert np.max(np.abs(values)) < 2.3 * deviation  # a deviation of 0.88 remains of the cut one


def all_different(arrays):
    """Whether no two arrays of one shape are equal: one initializer may repeat itself."""
    return len({(a.shape, a.tobytes()) for a in arrays}) == len(arrays)


GIVEN, FAN_IN = {"init_w": 0.5}, {"weight_init": "fan_in"}


@pytest.mark.parametrize(
    ("kind", "sizes", "options", "assert_spread", "heads"),
    [
        (ddpg.DDPG, (8, 8, 1.0), {}, assert_normal, []),
        (ddpg.DDPG, (8, 8, 1.0), FAN_IN, assert_fan_in, []),
        *((kind, (12, 4, 64), *rest, [])
          for kind in (td3.QNetwork, sac.SoftQNetwork)
          for rest in (({}, assert_uniform), (GIVEN, assert_uniform), (FAN_IN, assert_fan_in))),
        *((td3.PolicyNetwork, (16, 64, 64), *rest, ["policy_output"])
          for rest in (({}, assert_uniform), (GIVEN, assert_uniform), (FAN_IN, assert_fan_in))),
        *((sac.PolicyNetwork, (64, 64, 64), given, assert_glorot, ["policy_mean", "policy_logstd"])
          for given in ({}, GIVEN)),
    ],
)
def test_initial_weights(kind, sizes, options, assert_spread, heads):
    """The biases of heads are uniform up to init_w, 3e-3 unless given; others 0, or DDPG's 0.1."""
    tf.keras.utils.set_random_seed(4)
    new, init_w = made(kind, *sizes, **options), options.get("init_w", 3e-3)
    nets = networks(new).values() if kind is ddpg.DDPG else [new]
    found = [layer for net in nets if net.is_train for layer in net.all_layers if layer.all_weights]
    for layer in found:
        assert_spread(layer.W.numpy(), init_w)
        if layer.name in heads:
            assert_uniform(layer.b.numpy(), init_w)
        else:
            bias = np.float32(0.1 if assert_spread is assert_normal else 0)
            np.testing.assert_array_equal(layer.b.numpy(), np.full(layer.b.shape, bias))
    assert all_different([layer.W.numpy() for layer in found])
    assert all_different([layer.b.numpy() for layer in found if layer.name in heads])
    assert kind is ddpg.DDPG or getattr(new, "action_range", 1.0) == 1.0
