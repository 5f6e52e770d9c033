"""common/engine: compiled methods do what eager ones do, and nobody sees old values.

Most tests hold two equal agents of a few variables together, one of which runs eagerly: this twin
is the expectation.
"""

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
import tensorlayer as tl
from agents import made, running, values
from hypothesis import given, settings
from hypothesis import strategies as st

from common.engine import fast
from common.engine.plain import compiled
from common.errors import UserError
from common.noise import Normal

ROW = np.array([1.0, -2.0, 3.0], np.float32)
SLOWER = "A plain tf.function runs "
both_engines = pytest.mark.parametrize("engine", ["fast", "plain"])
all_engines = pytest.mark.parametrize("engine", ["fast", "plain", "eager"])


class Net(tl.models.Model):
    """One layer, 3 -> 2, of small whole numbers, so that sums of them are exact."""

    def __init__(self):
        super().__init__()
        self.layer = tl.layers.Dense(n_units=2, in_channels=3)
        self(np.zeros((1, 3), np.float32), is_train=False)
        self.layer.W.assign([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]])
        self.train()

    def forward(self, x):
        return self.layer(x)

    @compiled
    def act(self, states):
        """Of one state or several."""
        assert tf.is_tensor(states)
        return self.forward(tf.reshape(states, [-1, 3]))

    @compiled
    def get_action(self, state, greedy=False, scale=1.0):
        """(action, what drew it)."""
        assert isinstance(greedy, bool)
        mean = self.forward([state])[0]
        return {"action": mean if greedy else mean + scale * Normal(0, 1).sample(mean.shape),
                "greedy": greedy}


class Agent:
    """Something of each kind that the engine looks for among the attributes."""

    def __init__(self):
        self.x = tf.Variable([1.0, 2.0, 3.0])
        self.y = tf.Variable([-1.0, 5.0, 4.0])
        self.matrix = tf.Variable([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        self.scalar = tf.Variable(2.0)
        self.count = tf.Variable(3, dtype=tf.int64)
        self.net = Net()
        self.optimizer = tf.optimizers.Adam(0.1)
        self.optimizer.build(self.net.trainable_weights)
        self.average = tf.train.ExponentialMovingAverage(0.5)
        self.average.apply(self.net.trainable_weights)
        self.level = tf.constant(2.0)  # as SAC's alpha
        self.twice, self.goal = False, "one"

    @compiled
    def learn(self, row):
        """Noise, the optimizer, moving averages, a tensor of its own, and two options."""
        goal = 1.0 if self.goal == "one" else 5.0
        for _ in range(2 if self.twice else 1):
            with tf.GradientTape() as tape:
                noise = Normal(0, 1).sample([2])
                loss = tf.reduce_mean(tf.square(self.net(row[None]) - goal - noise))
            grads = tape.gradient(loss, self.net.trainable_weights)
            self.optimizer.apply_gradients(zip(grads, self.net.trainable_weights))
        self.average.apply(self.net.trainable_weights)
        self.x.assign(self.x * 0.9 + self.y * 0.1 + row * self.level)
        self.level = self.level * 0.5 + row[0]
        return {"loss": loss, "level": self.level, "x": self.x}

    @compiled
    def greedy(self, states):
        """Through the network's compiled method."""
        return self.scalar * self.net.act(states)


class Pair:
    """An agent, whose methods the engine runs, and its twin, whose run eagerly."""

    def __init__(self, engine="fast"):
        self.engine = engine
        self.agent, self.twin = made(Agent), made(Agent)

    def call(self, function, *args, tolerance=0.0):
        """Call a function of an agent in both ways, with the same noise, and compare results."""
        state = np.random.get_state()
        with running(self.engine):
            found = function(self.agent, *args)
        after = np.random.get_state()
        np.random.set_state(state)
        with running("eager"):
            expected = function(self.twin, *args)
        np.testing.assert_equal(np.random.get_state(), after)
        assert_same(found, expected, tolerance)
        return found

    def compare(self, tolerance=0.0):
        """All variables, those of the optimizer included."""
        assert_same(values(self.agent), values(self.twin), tolerance)
        assert_same(np.asarray(self.agent.level), np.asarray(self.twin.level), tolerance)


def assert_same(found, expected, tolerance=0.0):
    """Equal nests of results: structure, dtypes, shapes, values."""
    tf.nest.assert_same_structure(found, expected)
    for ours, theirs in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
        if theirs is None:
            assert ours is None
            continue
        if hasattr(theirs, "dtype"):
            assert ours.dtype == theirs.dtype
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# --- what methods return and what they leave behind

CASES = {}


def case(*args):
    """Register a function of an agent, to be compiled and called with these arguments."""

    def register(function):
        CASES[function.__name__] = compiled(function), args
        return function

    return register


@case(ROW)
def interleaved(agent, row):
    before = agent.x.read_value()
    agent.x.assign_add(row)
    agent.y.assign_sub(agent.x)
    first = agent.x + agent.y
    agent.x.assign(agent.y * 2 + before)
    agent.scalar.assign(tf.reduce_sum(agent.x))
    agent.y.assign_add(agent.x * agent.scalar)
    agent.matrix.assign(agent.matrix + agent.y)
    agent.scalar.assign_sub(agent.matrix[0, 1])
    return before, first, agent.y + agent.scalar


@case(ROW)
def swap(agent, row):
    x, y = agent.x.read_value(), agent.y.read_value()
    agent.x.assign(y)
    agent.y.assign(x)
    return agent.x - agent.y + row


@case(ROW)
def back_to_the_old_value(agent, row):
    before = agent.x.read_value()
    agent.x.assign_add(row)
    agent.y.assign(agent.x)
    agent.x.assign(before)
    return agent.x + row


@case(ROW)
def results_of_assignments(agent, row):
    y = agent.x.assign_add(row) * 2
    return y, agent.x.assign(y), agent.scalar.assign(7.0), agent.x, agent.y, agent.count, row


@case(ROW)
def whole_numbers(agent, row):
    agent.count.assign_add(1)
    agent.x.assign_add(row * tf.cast(agent.count, tf.float32))
    return agent.count * 2, agent.count + 2**40


@case(ROW)
def nest(agent, row):
    return {"b": (row, [agent.x * 2, (agent.count * 1,)]), "a": agent.y > row}, [], 7.0, None, 3


@case(ROW)
def no_result(agent, row):
    agent.x.assign(row)


@case()
def no_arguments(agent):
    agent.level = agent.level + 1.0
    return agent.level * agent.x


@case(2, [1.0, -2.0, 3.0], "sum", 0.25, None, np.arange(12).reshape(4, 3).T, True, (ROW, ROW[:0]))
def arguments_of_all_kinds(agent, factor, row, name, number, nothing, transposed, flag, both):
    assert (nothing, flag, name, type(factor)) == (None, True, "sum", int)
    return row * number * factor + both[0], both[1], transposed, transposed[1] - transposed[2]


@case(ROW)
def operations_of_several_outputs(agent, row):
    a, b, c = tf.unstack(agent.x)
    agent.x.assign(tf.stack([c, a, b]))
    low, high = tf.split(tf.concat([agent.x, row], 0), 2)
    return high, tf.math.top_k(low, 2)[1]


@case(ROW)
def a_choice_without_variables(agent, row):
    """tf.cond, a loop and a tf.function, where they touch no variable."""
    positive = tf.cond(tf.reduce_sum(row) > 0, lambda: row * 2, lambda: row)
    _, powers = tf.while_loop(lambda i, p: i < 4, lambda i, p: (i + 1, p * row), (0, row))
    agent.x.assign(positive)
    return powers, tf.function(lambda r: r + 1)(agent.x * 1)


@case(ROW)
def gradients(agent, row):
    """Over variables, before and after an assignment."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(agent.x * agent.x * row) + agent.scalar**2
    first = tape.gradient(loss, [agent.x, agent.scalar])
    agent.x.assign_sub(first[0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(agent.x * agent.x)
    return first, tape.gradient(loss, [agent.x, agent.y])


@case(ROW)
def noise(agent, row):
    """Several requests of several shapes, in one order."""
    normal = Normal(0, 1)
    a, b = normal.sample([2, 3]), normal.sample(row.shape)
    normal.sample([4])  # not used, but drawn all the same
    agent.x.assign(b)
    return a, normal.sample(), Normal(agent.x, 0.5).sample([2])


CASES["learn"] = Agent.learn, (ROW,)


@both_engines
@pytest.mark.parametrize("name", CASES)
def test_same_as_eager(name, engine, capsys):
    """Three calls: results, variables and noise are the eager twin's, with each engine."""
    function, args = CASES[name]
    pair, tolerance = Pair(engine), 1e-5 if name in ("learn", "noise") else 0.0
    for _ in range(3):
        pair.call(function, *args, tolerance=tolerance)
    pair.compare(tolerance)
    assert SLOWER not in capsys.readouterr().out


@pytest.mark.parametrize("large", [1, 4, 10**6])
def test_large_variables_are_vectors_of_their_own(large, monkeypatch):
    """Whichever variables these are; methods take turns, and each goes on where others stopped."""
    monkeypatch.setattr(fast, "LARGE", large)
    pair = Pair()
    for _ in range(2):
        for name in ("interleaved", "swap", "whole_numbers", "learn"):
            pair.call(CASES[name][0], ROW, tolerance=1e-5)
    pair.compare(1e-5)


def test_results_stay_as_they_are():
    """Later calls, and changes of the array that was given, do not reach into them."""
    agent, row = made(Agent), ROW.copy()
    method = compiled(lambda agent, row: (row, agent.x.assign_add(row), agent.x))
    first = method(agent, row)
    row[:] = 100
    method(agent, row)
    agent.x.assign([0.0, 0.0, 0.0])
    assert_same(list(first), [ROW, np.float32([2, 0, 6]), np.float32([2, 0, 6])])


def test_a_tensor_from_outside():
    """Which exists already, and which the lines use without being given it."""
    outside = tf.range(300, dtype=tf.float32)
    found = compiled(lambda agent, row: row + tf.reduce_sum(outside))(made(Agent), ROW)
    np.testing.assert_array_equal(found, ROW + 150 * 299)


# --- for_each: several calls in one


@compiled
def one_step(agent, row, kind, factor=1.0):
    """Reads, assigns and draws; what it does depends on its kind."""
    drawn = tf.round(Normal(0, 1).sample(row.shape) * 4)
    agent.x.assign(row * factor + agent.x + drawn)
    agent.count.assign_add(1)
    if kind:
        agent.y.assign_sub(agent.x)
        agent.level = agent.level + tf.round(Normal(0, 1).sample())
    return agent.x + agent.y, {"count": agent.count, "row": row, "drawn": drawn}


def all_steps(agent, *args):
    return one_step.__get__(agent).for_each(*args)


@both_engines
@pytest.mark.parametrize(
    "kinds", [(None,), (1, 1, 1), (True, False, False, True, True, False), ("", "min", 0)], ids=str
)
def test_for_each(kinds, engine):
    """As so many calls where nothing is compiled; results are those of the last."""
    pair, rng = Pair(engine), np.random.default_rng(0)
    for factor in (2.0, 3.0):
        items = [(rng.integers(-3, 4, 3).astype(np.float32), kind) for kind in kinds]
        found = pair.call(all_steps, items, factor)
        np.testing.assert_array_equal(found[1]["row"], items[-1][0])
        pair.compare()


# --- kinds of arguments: what compiles anew


def tracing_log(agent):
    """(method, list of the arguments with which it was traced)."""
    log = []

    def lines(agent, row, *args):
        log.append(args)
        return [row * 2.0, *(a for a in args if tf.is_tensor(a))]

    return lambda *args: compiled(lines)(agent, *args), log


def test_floats_and_arrays_change_without_compiling():
    method, log = tracing_log(made(Agent))
    for i in range(4):
        found = method(ROW * i, float(i), np.float64(i / 2), np.full(2, i))
        assert_same(found, [ROW * 2 * i, np.float32(i), np.float32(i / 2), np.float32([i, i])])
    assert len(log) == 1


@pytest.mark.parametrize(
    "constants",
    [["min", "q1"], [np.zeros(3), np.zeros(2), np.zeros((3, 1)), 0.0], [1, True, 0, False, None]],
    ids=["text", "shape", "number or switch"],  # 1 == True
)
def test_other_values_compile_anew(constants):
    """Once for each value, in whatever order they come; the lines are given the value."""
    method, log = tracing_log(made(Agent))
    for constant in [*constants, *constants[::-1]]:
        method(ROW, constant)
    assert len(log) == len(constants)
    for (received,), constant in zip(log, constants):
        assert received is constant or received.shape == np.shape(constant)


def test_eager_runs_the_lines_themselves():
    """At each call, with numbers; options are given as they are."""
    method, log = tracing_log(made(Agent))
    with running("eager"):
        for _ in range(3):
            method(ROW, 0.5, 2, [1.0])
    assert [(number, option, given.numpy()) for number, option, given in log] == [(0.5, 2, [1])] * 3


@all_engines
def test_arguments_as_they_are_given(engine):
    """By place or name, array or list; only a tensor brings back a tensor."""
    net = made(Net)
    mean = ROW @ np.float32([[1, 2], [0, -1], [3, 1]])
    calls = [lambda: net.get_action(ROW), lambda: net.get_action(ROW, False),
             lambda: net.get_action(state=ROW, scale=1.0)]
    with running(engine):
        for call in calls:
            np.random.seed(3)
            noise = np.random.standard_normal(2)
            np.random.seed(3)
            np.testing.assert_allclose(call()["action"], mean + noise, rtol=1e-6)
        for result in (net.get_action(ROW, True), net.get_action(list(ROW), greedy=True)):
            np.testing.assert_array_equal(result["action"], mean)
            assert result["greedy"]
        for wrong in (lambda: net.get_action(), lambda: net.get_action(ROW, gready=True)):
            with pytest.raises(TypeError):
                wrong()
        assert type(net.act(ROW.astype(int))) is np.ndarray
        assert tf.is_tensor(net.act(tf.constant(ROW)))


# --- coherence: variables read and written from anywhere


@compiled
def step(agent, row):
    """Change every variable, exactly: all values are whole or halves, and stay small."""

    def small(value):
        return tf.clip_by_value(value, -100.0, 100.0)

    agent.x.assign(small(agent.x + row))
    agent.y.assign(small(agent.y - agent.x))
    agent.matrix.assign(small(agent.matrix + agent.y))
    agent.scalar.assign_add(0.5)
    agent.count.assign_add(1)
    for weight in agent.net.trainable_weights:
        weight.assign(small(weight + 1.0))
    for slot in agent.optimizer.variables:
        slot.assign(slot + tf.ones_like(slot))
    return agent.net(agent.x[None])


def gradient_of(agent):
    """Of a network's loss, with respect to a weight, an input and a variable of the loss."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(agent.net(agent.x[None]) * agent.scalar)
    return tape.gradient(loss, [agent.net.layer.W, agent.x, agent.scalar])


def kept(agent):
    """As a variable is: in a dictionary, and by a tape, which watches what is read alone."""
    with tf.GradientTape() as tape:
        found = {agent.x.ref(): agent.x * 1}[agent.x.ref()]
    return [found, *tape.watched_variables(), isinstance(agent.x, tf.Variable)]


READS = {
    "numpy()": lambda agent: (agent.x.numpy(), agent.scalar.numpy(), agent.count.numpy()),
    "value()": lambda agent: (agent.x.value(), agent.x.read_value(), tf.identity(agent.x)),
    "arithmetic": lambda agent: (agent.x + 1, 1 - agent.scalar, agent.x * agent.y, agent.x[1]),
    "tf.matmul": lambda agent: tf.matmul(agent.matrix, agent.x[:, None]),
    "tf.gather": lambda agent: tf.gather(agent.x, [2, 0]),
    "tf.cond": lambda agent: tf.cond(agent.scalar > 0, lambda: agent.x, lambda: agent.y),
    "tf.function": lambda agent: tf.function(lambda: agent.x + agent.y)(),
    "np.asarray": lambda agent: (np.asarray(agent.x), np.mean(agent.matrix)),
    "float()": lambda agent: (float(agent.scalar), int(agent.count)),
    "copy.deepcopy": lambda agent: copy.deepcopy(agent.x).numpy(),
    "network": lambda agent: (agent.net(ROW[None]), agent.net.forward(ROW[None])),
    "weights": lambda agent: [w.numpy() for w in agent.net.all_weights],
    "optimizer": lambda agent: [v.numpy() for v in agent.optimizer.variables],
    "GradientTape": gradient_of,
    "watched": kept,
}
WRITES = {
    "assign": lambda agent: agent.x.assign([7.0, 8.0, 9.0]),
    "assign_add": lambda agent: agent.scalar.assign_add(3.0),
    "assign of an int64": lambda agent: agent.count.assign(agent.count // 2),
    "assign of another": lambda agent: agent.x.assign(agent.y),
    "v[0].assign": lambda agent: agent.x[0].assign(4.0),
    "scatter_nd_update": lambda agent: agent.x.scatter_nd_update([[1]], [40.0]),
    "layer.b": lambda agent: agent.net.layer.b.assign([3.0, -3.0]),
    "learning_rate": lambda agent: setattr(agent.optimizer, "learning_rate", 0.25),
}
CALLS = {"step": step, "greedy": Agent.greedy, **{name: CASES[name][0] for name in (
    "swap", "whole_numbers", "back_to_the_old_value", "results_of_assignments")}}
ACTIONS = {"call": CALLS, "read": READS, "write": WRITES}


@pytest.fixture(scope="module")
def pair():
    """One whose methods are compiled once; each test leaves some state behind."""
    return Pair()


def do(pair, kind, name):
    """A call, a read or a write of both."""
    if kind == "call":
        pair.call(CALLS[name], ROW)
    elif kind == "write":
        for agent in (pair.agent, pair.twin):
            WRITES[name](agent)
    else:
        assert_same(READS[name](pair.agent), READS[name](pair.twin))


@pytest.mark.parametrize(("kind", "name"), [("read", n) for n in READS] + [
    ("write", n) for n in WRITES])
def test_reading_and_writing_between_calls(pair, kind, name):
    """Right after a compiled call, nothing read in between; and the next goes on from there."""
    for _ in range(2):
        do(pair, "call", "step")
        do(pair, kind, name)
    do(pair, "call", "step")
    do(pair, kind, name)
    pair.compare()


@given(st.lists(st.sampled_from([(kind, name) for kind in ACTIONS for name in ACTIONS[kind]]),
                max_size=25))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_any_program_equals_its_eager_twin(pair, program):
    """Calls, reads and writes in any order, from equal values on."""
    for agent in (pair.agent, pair.twin):
        for variable in (agent.x, agent.y, agent.matrix, agent.scalar, agent.count):
            variable.assign(tf.ones_like(variable) * 2)
    for kind, name in program:
        do(pair, kind, name)
    pair.compare()


# --- what is assigned to an agent that has learned


def another_network(agent):
    agent.net = made(Net)
    agent.optimizer = tf.optimizers.Adam(0.3)
    agent.optimizer.build(agent.net.trainable_weights)
    agent.average.apply(agent.net.trainable_weights)


ASSIGNED = {
    "network and optimizer": another_network,
    "optimizer": lambda agent: setattr(agent, "optimizer", tf.optimizers.Adam(0.4)),
    "text": lambda agent: setattr(agent, "goal", "five"),
    "switch": lambda agent: setattr(agent, "twice", True),
    "variable": lambda agent: setattr(agent, "y", tf.Variable([9.0, 8.0, 7.0])),
    "tensor": lambda agent: setattr(agent, "level", tf.constant(10.0)),
    "number for a tensor": lambda agent: setattr(agent, "level", 10.0),
}


@both_engines
@pytest.mark.parametrize("what", ASSIGNED)
def test_what_is_assigned_counts_from_the_next_call(what, engine, capsys):
    """As it counts where nothing is compiled; what was there before keeps what it had learned."""
    pair = Pair(engine)
    pair.call(Agent.learn, ROW, tolerance=1e-5)
    held = [(agent.net, agent.optimizer, agent.y) for agent in (pair.agent, pair.twin)]
    for agent in (pair.agent, pair.twin):
        ASSIGNED[what](agent)
    for _ in range(2):
        pair.call(Agent.learn, ROW, tolerance=1e-5)
        pair.call(Agent.greedy, ROW, tolerance=1e-5)
    pair.compare(1e-5)
    ours, theirs = ([*net.all_weights, *optimizer.variables, y] for net, optimizer, y in held)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), 1e-5, 1e-5)
    assert SLOWER not in capsys.readouterr().out


@both_engines
def test_a_number_that_is_read_is_not_silently_the_old_one(engine, capsys):
    """A method that reads a counter is compiled again at each new value, and a line says so."""

    class Counts(Agent):
        @compiled
        def counted(self, row):
            return row * self.count

    agent = made(Counts)
    with running(engine):
        for agent.count in (1, 2, 2, 3.5):
            np.testing.assert_allclose(agent.counted(ROW), agent.count * ROW, 1e-6)
    assert capsys.readouterr().out.count("counted reads self.count, which has changed") == 2


@both_engines
def test_a_tensor_that_was_none_before(engine):
    """It would be built in as it is, and lost: an error says so, and the agent is as it was."""
    agent = made(Agent)
    agent.level = 2.0
    with running(engine), pytest.raises(TypeError, match="level is assigned a tensor"):
        agent.learn(ROW)
    assert agent.level == 2.0


def test_variables_that_change_hands():
    """Two agents with one network: neither sees old values of it."""
    pair = Pair()
    others = [made(Agent), made(Agent)]
    for _ in range(2):
        pair.call(Agent.learn, ROW, tolerance=1e-5)
        for other, agent in zip(others, (pair.agent, pair.twin)):
            other.net = agent.net
        found = others[0].greedy(ROW)
        np.testing.assert_allclose(found, 2 * pair.twin.net(ROW[None]), 1e-5)
        pair.compare(1e-5)


def test_agents_that_have_learned_are_not_copied(pair):
    """One line says what to do instead."""
    do(pair, "call", "step")
    with pytest.raises(TypeError, match=r"save\(path\).*load\(path\)"):
        copy.deepcopy(pair.agent)


def test_a_copy_of_a_network_is_no_part_of_its_agent(pair):
    """It computes by itself, and the agent goes on as it was."""
    do(pair, "call", "step")
    agent = pair.agent
    programs, net = vars(agent)["_programs"], copy.deepcopy(agent.net)
    np.testing.assert_array_equal(net.act(ROW), agent.net.act(ROW))
    assert "_programs" in vars(net) and "_programs" not in vars(agent.net)
    do(pair, "call", "step")
    assert vars(agent)["_programs"] is programs and not programs.plain


# --- what the fast engine does not do: the plain one takes over


def choose(agent, row):
    return tf.cond(row[0] > 0, lambda: agent.x * 2, lambda: row)


def gather(agent, row):
    return tf.gather(agent.x, [0, 2])


def assign_a_slice(agent, row):
    return agent.x[:2].assign(row[:2])


@pytest.mark.parametrize("lines", [choose, gather, assign_a_slice])
def test_the_plain_engine_takes_over(lines, capsys):
    """Where a method uses a variable in a way of its own; one line says so, nothing is lost."""
    pair = Pair()
    for _ in range(3):
        pair.call(step, ROW)
        pair.call(compiled(lines), ROW)
    pair.compare()
    out = capsys.readouterr().out
    assert out.startswith(f"{SLOWER}{lines.__name__}, slower: a variable goes into ")
    assert out.count("\n") == 1


def test_a_variable_that_the_agent_does_not_hold(capsys):
    agent, outside = made(Agent), tf.Variable([0.0, 0.0, 0.0])
    method = compiled(lambda agent, row: outside.assign_add(row) + agent.x)
    for i in (1, 2):
        np.testing.assert_array_equal(method(agent, ROW), [1, 2, 3] + i * ROW)
    np.testing.assert_array_equal(outside, 2 * ROW)
    out = capsys.readouterr().out
    assert "no attribute of the agent" in out and out.count("\n") == 1


def test_another_tensorflow(monkeypatch, capsys):
    """Of a version that nobody has tried: one line, and the plain engine alone."""
    monkeypatch.setattr(fast, "SUPPORTED", ((1, 0), (2, 0)))
    monkeypatch.setattr(fast, "Program", None)
    pair = Pair()
    for _ in range(2):
        pair.call(Agent.learn, ROW, tolerance=1e-5)
        pair.call(step, ROW, tolerance=1e-5)
    out = capsys.readouterr().out
    assert out == f"TensorFlow {tf.__version__}: a plain tf.function runs the updates, slower.\n"


def fail(agent, row):
    raise KeyError("mine")


def branch(agent, row):
    return row if agent.x[0] > 0 else -row


WRONG = {"float": lambda agent, row: print(float(agent.x[0])),
         "numpy": lambda agent, row: (agent.x * row).numpy(), "if": branch, "own": fail,
         "typo": lambda agent, row: agent.x * raw}  # noqa: F821


@both_engines
@pytest.mark.parametrize("name", WRONG)
def test_an_error_while_tracing(name, engine):
    """Its last line says that --eager runs the lines with numbers; nothing is left behind."""
    pair = Pair(engine)
    pair.call(step, ROW)
    with running(engine), pytest.raises(Exception, match=r".*") as caught:
        compiled(WRONG[name])(pair.agent, ROW)
    last = caught.value.args[0].splitlines()[-1]
    hint = "is being compiled" in last and "--eager runs its lines one by one, with numbers" in last
    assert hint == (name != "typo")  # which Python explains
    pair.compare()
    pair.call(step, ROW)
    pair.call(Agent.learn, ROW, tolerance=1e-5)


@both_engines
def test_a_print_while_tracing_is_said_once(engine, capsys):
    def talk(agent, row, turn):
        print("row is", row.shape)
        return row * 2

    with running(engine):
        for turn in True, False, True:
            compiled(talk)(Pair(engine).agent, ROW, turn)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("row is")][:1] == ["row is (3,)"]
    assert len([line for line in lines if "runs only while it is compiled: --eager" in line]) == 1


# --- what no compiled code can have


@both_engines
def test_an_operation_that_xla_lacks(engine):
    agent = Pair(engine).agent
    with running(engine):
        tf.debugging.enable_check_numerics()
        try:
            for _ in range(2):
                with pytest.raises(UserError, match="which enable_check_numerics"):
                    Agent.learn(agent, ROW)
        finally:
            tf.debugging.disable_check_numerics()
        compiled(step)(agent, ROW)
        with pytest.raises(UserError, match=r"XLA has no \w*String"):
            compiled(lambda agent, row: tf.strings.length(tf.strings.as_string(row)))(agent, ROW)


def test_another_way_of_running(monkeypatch):
    agent = Pair().agent
    scope = tf.distribute.OneDeviceStrategy("/cpu:0").scope()
    with scope, pytest.raises(UserError, match="on one device"):
        agent.learn(ROW)
    monkeypatch.setattr(tf, "executing_eagerly", lambda: False)  # there is no way back from it
    with pytest.raises(UserError, match="leave out disable_eager_execution"):
        agent.learn(ROW)


# --- threads


@pytest.fixture
def busy():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def together(*functions):
    """Call each in a thread of its own; returns what they return."""
    with ThreadPoolExecutor(len(functions)) as executor:
        return [future.result() for future in [executor.submit(f) for f in functions]]


def test_one_agent_asked_by_four_threads(busy):
    """Each has the actions of its own states."""
    agent = made(Agent)
    states = np.random.default_rng(1).normal(size=(4, 8, 3)).astype(np.float32)
    alone = [agent.greedy(s) for s in states]

    def wrong(i):
        return sum(np.any(agent.greedy(states[i]) != alone[i]) for _ in range(1000))

    assert together(*(lambda i=i: wrong(i) for i in range(4))) == [0] * 4


def test_one_learns_while_another_acts(busy):
    pair, done = Pair(), threading.Event()

    def learn():
        for _ in range(300):
            step(pair.agent, ROW)
        done.set()

    def ask():
        while not done.is_set():
            pair.agent.greedy(ROW)
            pair.agent.x.numpy()

    together(learn, ask)
    with running("eager"):
        for _ in range(300):
            step(pair.twin, ROW)
    pair.compare()


def test_two_agents_learn_in_two_threads(busy):
    """From compiling on, which they do at the same time."""
    pairs = [Pair(), Pair()]

    def learn(pair, sign):
        for i in range(200):
            step(pair.agent, sign * ROW * (i % 3))

    together(lambda: learn(pairs[0], 1), lambda: learn(pairs[1], -1))
    with running("eager"):
        for pair, sign in zip(pairs, (1, -1)):
            for i in range(200):
                step(pair.twin, sign * ROW * (i % 3))
            pair.compare()


@both_engines
def test_noise_drawn_in_another_thread_while_one_traces(engine):
    """It consists of numbers."""
    drawn = []

    def lines(agent, row):
        drawn.extend(together(lambda: Normal(0, 1).sample([2])))
        return row

    with running(engine):
        compiled(lines)(made(Agent), ROW)
    assert drawn[0].numpy().shape == (2,)


@both_engines
def test_a_number_read_in_another_thread_while_one_traces(engine, capsys):
    """Is not one that the lines read."""
    def lines(agent, row):
        together(lambda: agent.count)
        return row

    with running(engine):
        agent = made(Agent)
        for agent.count in 1, 2:
            compiled(lines)(agent, ROW)
    assert "compiled again" not in capsys.readouterr().out
