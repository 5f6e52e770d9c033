"""common/compiled.py: compiled functions do what eager ones do, and nobody sees old values.

Most tests hold two equal agents of a few variables together, one compiled and one eager: the
twin is the expectation. The last part repeats a training of each of the chapter's agents.
"""

import contextlib
import copy
import functools
import gc
import pickle
import random
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
import tensorlayer as tl
from hypothesis import given, settings
from hypothesis import strategies as st

import ddpg
import sac
import td3
from common import flat, private, weights
from common.compiled import COMPILING, TAKEN_OVER, Compiler, StandardNormal
from common.compiled import compiled as decorated
from common.networks import connect, named_variables, networks_of

ROW = np.array([1.0, -2.0, 3.0], np.float32)
MODES = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


def made(kind, *args, **kwargs):
    """kind(...), called in a thread, whose call stack is short.

    For each layer TensorLayer reads the source of every function on the stack, and under
    pytest these are many.
    """
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(kind, *args, **kwargs).result()


class Net(tl.models.Model):
    """One layer, 3 -> 2, of small whole numbers, so that sums of them are exact."""

    def __init__(self):
        super().__init__()
        self.layer = tl.layers.Dense(n_units=2, in_channels=3)
        connect(self, 3)
        self.layer.W.assign([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]])
        self.train()

    def forward(self, x):
        return self.layer(x)


class Agent:
    """A variable of each kind that a Compiler looks for among the attributes."""

    def __init__(self, eager=False, plain=False):
        self.x = tf.Variable([1.0, 2.0, 3.0])
        self.y = tf.Variable([-1.0, 5.0, 4.0])
        self.matrix = tf.Variable([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        self.scalar = tf.Variable(2.0)
        self.count = tf.Variable(3, dtype=tf.int64)
        self.averages = [tf.Variable([0.0, 9.0]), tf.Variable([7, 8], dtype=tf.int64)]
        self.net = Net()
        self.optimizer = tf.optimizers.Adam(0.1)
        self.optimizer.build(self.net.trainable_weights)
        self.generator = np.random.default_rng(1)
        self.other_generator = np.random.default_rng(2)
        self.compiler = Compiler(self, eager=eager)
        self.compiler.plain = plain

    def function(self, fn):
        """fn(agent, ...) as a function of its other parameters, compiled or not."""

        def call(*args):
            self.compiler.check()
            return self.compiler.run(fn, lambda item, kind, *args: fn(self, *args), args)

        return call


def noise_of(generator, shape):
    return StandardNormal(generator).sample(shape)


def twins():
    """(compiled, eager): equal agents."""
    return made(Agent), made(Agent, eager=True)


def assert_same(found, expected, tolerance=0.0):
    """Equal nests of results: structure, dtypes, shapes, values."""
    tf.nest.assert_same_structure(found, expected)
    for ours, theirs in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
        if theirs is None:
            assert ours is None
            continue
        if hasattr(theirs, "dtype"):
            assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, strict=False)
        assert np.shape(ours) == np.shape(theirs)


def assert_same_agents(agent, twin, tolerance=0.0):
    """All variables equal, optimizers' slots included, and the generators in the same state."""
    for ours, theirs in zip(*(named_variables(a).values() for a in (agent, twin)), strict=True):
        assert_same(ours.numpy(), theirs.numpy(), tolerance)
    for name in ("generator", "other_generator"):
        states = [getattr(a, name).bit_generator.state for a in (agent, twin)]
        assert states[0] == states[1]


# --- functions: what they return and what they leave behind

CASES = {}


def case(*args):
    """Register a function of an agent, to be called with these arguments."""

    def register(fn):
        CASES[fn.__name__] = fn, args
        return fn

    return register


@case(ROW)
def read_after_assign(agent, row):
    agent.x.assign(row * 2)
    return agent.x + 1


@case(ROW)
def read_before_and_after(agent, row):
    before = agent.x.read_value()
    agent.x.assign_add(row)
    between = agent.x * 1
    agent.x.assign_sub(row * 3)
    return before, between, agent.x * 1


@case(ROW)
def interleaved(agent, row):
    agent.x.assign_add(row)
    agent.y.assign_sub(agent.x)
    first = agent.x + agent.y
    agent.x.assign(agent.y * 2 + agent.x)
    agent.scalar.assign(tf.reduce_sum(agent.x))
    agent.y.assign_add(agent.x * agent.scalar)
    agent.matrix.assign(agent.matrix + agent.y)
    agent.scalar.assign_sub(agent.matrix[0, 1])
    return first, agent.y + agent.scalar


@case(ROW)
def swap(agent, row):
    x, y = agent.x.read_value(), agent.y.read_value()
    agent.x.assign(y)
    agent.y.assign(x)
    return agent.x - agent.y + row


@case(ROW)
def one_variable_into_another(agent, row):
    agent.x.assign(agent.y)
    agent.y.assign_add(row)
    return agent.x * 1


@case(ROW)
def back_to_the_old_value(agent, row):
    before = agent.x.read_value()
    agent.x.assign_add(row)
    agent.y.assign(agent.x)
    agent.x.assign(before)
    return agent.x + row


@case(ROW)
def assigned_twice(agent, row):
    agent.x.assign(row)
    agent.x.assign(row * 5)
    agent.y.assign_add(row)
    agent.y.assign_add(row)
    agent.y.assign_sub(agent.y)
    agent.y.assign_sub(row)
    return agent.x + agent.y


@case(ROW)
def result_of_an_assignment(agent, row):
    y = agent.x.assign_add(row) * 2
    return y, agent.x.assign(y), agent.y.assign_sub(row)


@case(ROW)
def constants_assigned(agent, row):
    agent.x.assign([4.0, 5.0, 6.0])
    agent.count.assign(10)
    agent.scalar.assign_add(1.0)
    return row


@case(ROW)
def whole_numbers(agent, row):
    agent.count.assign_add(1)
    agent.averages[1].assign_sub([1, agent.count])
    agent.averages[1].assign(agent.averages[1][::-1])
    agent.x.assign_add(row * tf.cast(agent.count, tf.float32))
    return agent.count * 2, agent.averages[1] + 2**40


@case(ROW)
def only_whole_numbers_assigned(agent, row):
    agent.count.assign_sub(5)
    return agent.x * row


@case(ROW)
def only_reads(agent, row):
    return agent.x * row, agent.count + 1, agent.net(row[None])


@case(ROW)
def no_variables(agent, row):
    return row * 2


@case(ROW, 2.5)
def arguments_unchanged(agent, row, number):
    return row, row, number


@case(ROW)
def variables_unchanged(agent, row):
    return agent.x, agent.x, agent.count, agent.averages[0], row


@case(ROW)
def variables_unchanged_after_assignment(agent, row):
    agent.x.assign_add(row)
    return agent.x, agent.y


@case(ROW)
def nest(agent, row):
    return {"b": (row, [agent.x * 2, (agent.count * 1,)]), "a": agent.y > row}, [], 7.0, 3


@case(ROW, ROW[:2], 0.5, 2)
def several_arguments(agent, row, short, number, factor):
    agent.x.assign(row * number * factor)
    agent.averages[0].assign_add(short)
    return agent.x + short[0]


@case(2, ROW, "sum", 0.25, None, ROW.reshape(1, 3), True)
def arguments_of_all_kinds(agent, factor, row, name, number, nothing, matrix, flag):
    assert nothing is None
    result = row * number * factor if flag is True else row
    return tf.reduce_sum(result + matrix) if name == "sum" else result


@case(np.float32(3), ROW[:0], np.arange(12, dtype=np.float32).reshape(4, 3).T)
def odd_shapes(agent, number, nothing, transposed):
    return number * 2.0, nothing, transposed, transposed[1] - transposed[2]


@case(ROW)
def operations_of_several_outputs(agent, row):
    a, b, c = tf.unstack(agent.x)
    agent.x.assign(tf.stack([c, a, b]))
    low, high = tf.split(tf.concat([agent.x, row], 0), 2)
    values, indices = tf.math.top_k(low, 2)
    agent.averages[0].assign(values)
    return high, indices


@case(ROW)
def a_choice_without_variables(agent, row):
    """tf.cond, a loop and a tf.function, where they touch no variable."""
    positive = tf.cond(tf.reduce_sum(row) > 0, lambda: row * 2, lambda: row)
    _, powers = tf.while_loop(lambda i, p: i < 4, lambda i, p: (i + 1, p * row), (0, row))
    agent.x.assign(positive)
    return powers, tf.function(lambda r: r + 1)(agent.x * 1)


@case(ROW)
def choose(agent, row):
    return tf.cond(row[0] > 0, lambda: agent.x * 2, lambda: row)


@case(ROW)
def loop(agent, row):
    return tf.while_loop(lambda i: i < agent.scalar, lambda i: [i + 1], [0.0])


@case(ROW)
def a_map(agent, row):
    return tf.map_fn(lambda r: r + agent.x, row)


@case(ROW)
def a_tf_function(agent, row):
    return tf.function(lambda r: agent.x + r)(row)


@case(ROW)
def gradients(agent, row):
    """Over variables, before and after an assignment."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(agent.x * agent.x * row) + agent.scalar**2
    first = tape.gradient(loss, [agent.x, agent.scalar])
    agent.x.assign_sub(first[0])
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_sum(agent.x * agent.x)
    zero = tape.gradient(loss, [agent.y], unconnected_gradients="zero")
    return first, tape.gradient(loss, agent.x), zero


@case(ROW)
def optimizer_steps(agent, row):
    """Two in one function: the second starts from the first's weights and slots."""
    losses = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            losses.append(tf.reduce_mean(tf.square(agent.net(row[None]) - 1)))
        grads = tape.gradient(losses[-1], agent.net.trainable_weights)
        agent.optimizer.apply_gradients(zip(grads, agent.net.trainable_weights))
    return losses


@case(ROW)
def noise(agent, row):
    """Several requests of several shapes and generators, in one order."""
    a = noise_of(agent.generator, [2, 3])
    b = noise_of(agent.other_generator, row.shape)
    c = noise_of(agent.generator, [])
    noise_of(agent.other_generator, [4])  # not used, but drawn all the same
    d = noise_of(agent.generator, tf.TensorShape([1, 2]))
    agent.x.assign(b)
    agent.scalar.assign_add(c)
    return a, b, c, d, agent.x + agent.scalar


@case()
def noise_without_arguments(agent):
    agent.x.assign(noise_of(agent.generator, (3,)))
    return agent.x * 1


@case(ROW)
def noise_in_a_gradient(agent, row):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(agent.x * noise_of(agent.generator, agent.x.shape) * row)
    return tape.gradient(loss, agent.x)


@pytest.mark.parametrize("plain", [False, True], ids=["flat", "plain"])
@pytest.mark.parametrize("name", CASES)
def test_same_as_eager(name, plain):
    """Three calls: results, variables and generators are the eager twin's, with each engine."""
    fn, args = CASES[name]
    tolerance = 1e-5 if fn in (optimizer_steps, noise) else 0.0
    agent, twin = made(Agent, plain=plain), made(Agent, eager=True)
    compiled, eager = agent.function(fn), twin.function(fn)
    for _ in range(3):
        assert_same(compiled(*args), eager(*args), tolerance)
    assert_same_agents(agent, twin, tolerance)
    assert agent.compiler.plain is plain


def test_many_functions_of_one_agent():
    """Taking turns, each goes on where the last stopped."""
    agent, twin = twins()
    names = "interleaved swap only_reads whole_numbers noise_in_a_gradient variables_unchanged"
    both = [(agent.function(CASES[n][0]), twin.function(CASES[n][0])) for n in names.split()]
    for _ in range(2):
        for compiled, eager in both:
            assert_same(compiled(ROW), eager(ROW))
    assert_same_agents(agent, twin)


def test_results_stay_as_they_are():
    """Later calls, and changes of the array that was given, do not reach into them."""
    agent, row = made(Agent), ROW.copy()
    function = agent.function(lambda agent, row: (row, agent.x.assign_add(row), agent.x))
    first = function(row)
    row[:] = 100
    function(row)
    agent.x.assign([0.0, 0.0, 0.0])
    function(row)
    assert_same(list(first), [ROW, np.float32([2, 0, 6]), np.float32([2, 0, 6])])


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.float32])
@MODES
def test_arrays_arrive_as_float32(eager, dtype):
    """In either mode, so that --eager runs whatever runs without it."""
    function = made(Agent, eager=eager).function(lambda agent, row: row + agent.x)
    result = function(np.array([0, 1, 1]).astype(dtype))
    assert_same(result, np.float32([1, 3, 4]))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(lambda row: None, None, id="None"),
        pytest.param(lambda row: (None, row, None), (None, ROW, None), id="None in a tuple"),
        pytest.param(lambda row: {}, {}, id="an empty dict"),
    ],
)
def test_functions_without_result(result, expected):
    agent = made(Agent)

    def fn(agent, row):
        agent.x.assign(row)
        return result(row)

    assert_same(agent.function(fn)(ROW), expected)
    assert_same(agent.x.numpy(), ROW)


@pytest.mark.parametrize("args", [(), (2,)], ids=["no arguments", "a constant"])
def test_functions_of_no_array(args):
    agent = made(Agent)
    result = agent.function(lambda agent, factor=1: agent.x.assign_add([1.0, 1, 1]) * factor)(*args)
    assert_same(result, np.float32([2, 3, 4]) * (args or (1,))[0])


@pytest.mark.parametrize("size", [3, 300])
def test_tensors_from_outside(size):
    """A tensor that exists already, and that the function uses without being given it."""
    outside = tf.range(size, dtype=tf.float32)
    function = made(Agent).function(lambda agent, row: row + tf.reduce_sum(outside))
    np.testing.assert_array_equal(function(ROW), ROW + size * (size - 1) / 2)


# --- for_each: several steps in one call


def one_step(agent, row, kind, factor=1.0):
    """Reads, assigns and draws; what it does depends on its kind."""
    drawn = tf.round(noise_of(agent.generator, row.shape) * 4)
    agent.x.assign(row * factor + agent.x + drawn)
    agent.count.assign_add(1)
    if kind:
        agent.y.assign_sub(agent.x)
        agent.averages[1].assign(agent.averages[1][::-1] + agent.count)
        agent.scalar.assign_add(tf.round(noise_of(agent.other_generator, [])))
    return agent.x + agent.y, {"count": agent.count, "row": row, "drawn": drawn}


KINDS = [
    (None,),
    (True,),
    (None, None, None),
    (1, 1),
    (False, False, True),
    (True, False, False, True, True, False),
    (0, 1, 2, 0),
    ("", "min"),
]


@pytest.mark.parametrize("plain", [False, True], ids=["flat", "plain"])
@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_for_each_same_as_eager(kinds, plain):
    """And as so many calls of the function itself: results are those of the last."""
    agent, twin, third = made(Agent, plain=plain), made(Agent, eager=True), made(Agent, eager=True)
    compiled, eager = (
        functools.partial(a.compiler.for_each, functools.partial(one_step, a))
        for a in (agent, twin)
    )
    rng = np.random.default_rng(0)
    for factor in (2.0, 3.0):
        rows = rng.integers(-3, 4, (len(kinds), 3)).astype(np.float32)
        found = compiled(rows, kinds, factor)
        assert_same(found, eager(rows, kinds, factor))
        for row, kind in zip(rows, kinds):
            expected = one_step(third, tf.constant(row), kind, factor)
        assert_same(found, expected)
    assert_same_agents(agent, twin)
    assert_same_agents(agent, third)


@MODES
def test_for_each_shares_its_other_arguments(eager):
    """Arrays, floats and constants after the kinds are the same at each step."""

    def fn(row, kind, matrix, number, factor):
        agent.x.assign_add(row * factor + matrix[1] * number)
        return agent.x * 1

    agent = made(Agent, eager=eager)
    function = functools.partial(agent.compiler.for_each, fn)
    matrix = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]])
    for i in (1, 2):
        before = agent.x.numpy()
        found = function(np.stack([ROW, -ROW, 2 * ROW]), (None,) * 3, matrix * i, 0.5, 3)
        np.testing.assert_array_equal(found, before + 6 * ROW + 1.5 * i * matrix[1])


def test_for_each_steps_without_variables_or_noise():
    """The last one's result, of an item of any shape."""
    function = functools.partial(made(Agent).compiler.for_each, lambda x, kind: (x * 2, kind, None))
    items = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    found, kind, nothing = function(items, (7, 7, 7))
    np.testing.assert_array_equal(found, items[-1] * 2)
    assert (int(kind), nothing) == (7, None)


def test_for_each_compiles_anew_for_other_kinds_only(capsys):
    """For their order and number too; not for other items."""
    agent, log = made(Agent), []

    def fn(row, kind):
        if not tf.executing_eagerly():
            log.append(kind)
        return row * (2 if kind is True else 3)

    function = functools.partial(agent.compiler.for_each, fn)
    calls = [(True, False), (False, True), (True, False, False), (True,)]
    for kinds in calls:
        rows = np.stack([ROW] * len(kinds))
        traced = len(log)
        for i in range(3):
            np.testing.assert_array_equal(function(rows * i, kinds)[0], i * (2 + (not kinds[-1])))
            traced, before = len(log), traced
            assert (traced > before) == (i == 0)
    assert capsys.readouterr().out == f"{COMPILING}\n"


def test_for_each_tells_1_from_true():
    function = functools.partial(
        made(Agent).compiler.for_each, lambda row, kind: row * (2 if kind is True else 3)
    )
    rows = np.stack([ROW, ROW])
    np.testing.assert_array_equal(function(rows, (True, 1)), ROW * 3)
    np.testing.assert_array_equal(function(rows, (1, True)), ROW * 2)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("kinds", [(None,), (None, None, None)])
def test_for_each_needs_a_kind_for_each_item(eager, kinds):
    function = functools.partial(
        made(Agent, eager=eager).compiler.for_each, lambda row, kind: row * 2
    )
    with pytest.raises(ValueError, match=r"2 items, but [13] kinds"):
        function(np.stack([ROW, ROW]), kinds)


# --- kinds of arguments: what compiles anew


@pytest.fixture
def traced():
    """(function, log) of a function that logs its arguments each time it is traced."""
    log = []

    def fn(agent, *args):
        if not tf.executing_eagerly():  # as in the trial before the first call
            log.append(args)
        return args[0] * 2.0

    return made(Agent).function(fn), log


def test_floats_and_arrays_change_without_compiling(traced):
    """And their new values count."""
    function, log = traced
    for i in range(4):
        function(ROW * i, float(i), np.float64(i / 2))
    assert len(log) == 1

    compiled = made(Agent).function(lambda agent, row, a, b: row * a + b)
    for i in range(4):
        result = compiled(ROW * i, float(i), np.float64(i / 2))
        np.testing.assert_array_equal(result, ROW * i * i + i / 2)
    assert np.isnan(compiled(ROW, float("nan"), 0.0)).all()


@pytest.mark.parametrize(
    "constants",
    [
        [1, 2, 3],
        [True, False],
        [None, 1, False],
        ["min", "q1"],
        [np.zeros(3), np.zeros(2), np.zeros((3, 1)), np.zeros(()), 0.0],
        [1, True, 0, False],  # 1 == True
    ],
    ids=["int", "bool", "None", "str", "shape", "int and bool"],
)
def test_other_values_compile_anew(traced, constants):
    """Once for each value, in whatever order they come; the function is given the value."""
    function, log = traced
    for constant in [*constants, *constants[::-1]]:
        function(ROW, constant)
    assert len(log) == len(constants)
    for (_, received), constant in zip(log, constants):
        if isinstance(constant, (np.ndarray, float)):
            assert received.shape == np.shape(constant)
        else:
            assert received is constant


def test_same_kind_in_another_place_compiles_anew():
    function = made(Agent).function(lambda agent, a, b: a if a is not None else -b)
    np.testing.assert_array_equal(function(ROW, None), ROW)
    np.testing.assert_array_equal(function(None, ROW), -ROW)


def test_eager_runs_the_function_itself():
    """At each call, its prints and breakpoints included; floats and constants as given."""
    log = []

    def fn(agent, *args):
        log.append(args)
        return agent.x.assign_add(args[0])

    function = made(Agent, eager=True).function(fn)
    for _ in range(3):
        function(ROW, 0.5, 2, None)
    assert len(log) == 3
    for row, *rest in log:
        assert isinstance(row, tf.Tensor)
        assert row.dtype == tf.float32
        assert tf.executing_eagerly()
        row.numpy()
        assert rest == [0.5, 2, None]


# --- coherence: variables read and written from anywhere


def step(agent, row):
    """Change every variable, exactly: all values are whole or halves, and stay small."""

    def small(value):
        return tf.clip_by_value(value, -100.0, 100.0)

    agent.x.assign(small(agent.x + row))
    agent.y.assign(small(agent.y - agent.x))
    agent.matrix.assign(small(agent.matrix + agent.y))
    agent.scalar.assign_add(0.5)
    agent.count.assign_add(1)
    agent.averages[0].assign(agent.averages[0][::-1] + 1.0)
    agent.averages[1].assign_sub([1, 2])
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


def read_by_checkpoint(agent, tmp_path):
    path = tf.train.Checkpoint(x=agent.x, count=agent.count).save(str(tmp_path / "checkpoint"))
    reader = tf.train.load_checkpoint(path)
    return [reader.get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE") for name in ("x", "count")]


def read_by_save(agent, tmp_path):
    weights.save(tmp_path / "weights.npz", "TD3", "Pendulum-v1", networks_of(agent))
    with np.load(tmp_path / "weights.npz") as file:
        return [file[name] for name in ("net/0", "net/1", "x/0", "scalar/0")]


READS = {
    "numpy()": lambda agent: agent.x.numpy(),
    "numpy() of a scalar": lambda agent: agent.scalar.numpy(),
    "numpy() of an int64": lambda agent: agent.count.numpy(),
    "numpy() of a list": lambda agent: [v.numpy() for v in agent.averages],
    "value()": lambda agent: agent.x.value(),
    "read_value()": lambda agent: agent.x.read_value(),
    "v + 1": lambda agent: agent.x + 1,
    "1 - v": lambda agent: 1 - agent.scalar,
    "v * w": lambda agent: agent.x * agent.y,
    "v[1]": lambda agent: agent.x[1],
    "v > 0": lambda agent: tf.cast(agent.x > 0, tf.float32),
    "tf.identity": lambda agent: tf.identity(agent.x),
    "tf.convert_to_tensor": lambda agent: tf.convert_to_tensor(agent.x),
    "tf.matmul": lambda agent: tf.matmul(agent.matrix, agent.x[:, None]),
    "tf.linalg.matvec": lambda agent: tf.linalg.matvec(agent.matrix, agent.x),
    "tf.stack": lambda agent: tf.stack([agent.x, agent.y]),
    "tf.add_n": lambda agent: tf.add_n([agent.x, agent.y]),
    "tf.gather": lambda agent: tf.gather(agent.x, [2, 0]),
    "tf.raw_ops": lambda agent: tf.raw_ops.ReadVariableOp(
        resource=agent.x.handle, dtype=tf.float32
    ),
    "tf.cond": lambda agent: tf.cond(agent.scalar > 0, lambda: agent.x, lambda: agent.y),
    "np.asarray": lambda agent: np.asarray(agent.x),
    "np.mean": lambda agent: np.mean(agent.matrix),
    "float()": lambda agent: float(agent.scalar),
    "int()": lambda agent: int(agent.count),
    "list()": lambda agent: [v.numpy() for v in agent.x],
    "repr()": lambda agent: [ord(c) for c in repr(agent.x).split("shape")[1]],
    "copy.deepcopy": lambda agent: copy.deepcopy(agent.x).numpy(),
    "pickle": lambda agent: pickle.loads(pickle.dumps(agent.x)).numpy(),
    "tf.Variable of it": lambda agent: tf.Variable(agent.x).numpy(),
    "network": lambda agent: agent.net(ROW[None]),
    "forward()": lambda agent: agent.net.forward(ROW[None]),
    "layer.W": lambda agent: agent.net.layer.W.numpy(),
    "trainable_weights": lambda agent: [w.numpy() for w in agent.net.trainable_weights],
    "all_weights": lambda agent: [w * 1 for w in agent.net.all_weights],
    "optimizer.variables": lambda agent: [v.numpy() for v in agent.optimizer.variables],
    "optimizer.iterations": lambda agent: agent.optimizer.iterations.numpy(),
    "optimizer.learning_rate": lambda agent: float(agent.optimizer.learning_rate),
    "GradientTape": gradient_of,
    "Checkpoint": read_by_checkpoint,
    "weights.save": read_by_save,
}


def apply_gradients(agent):
    """Plain eager steps of the optimizer; its slots are set so that the weights stay exact."""
    agent.optimizer.learning_rate = 0.0
    gradients = [tf.zeros_like(w) for w in agent.net.trainable_weights]
    agent.optimizer.apply_gradients(zip(gradients, agent.net.trainable_weights))
    for slot in agent.optimizer.variables[2:]:
        slot.assign(tf.ones_like(slot))


def write_by_checkpoint(agent, tmp_path):
    """Save, change, restore."""
    checkpoint = tf.train.Checkpoint(x=agent.x, count=agent.count)
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    agent.x.assign_add([1.0, 1.0, 1.0])
    agent.y.assign(agent.x)
    checkpoint.restore(path)


def write_by_load(agent, tmp_path):
    """Save, change, load."""
    place = tmp_path / "weights.npz", "TD3", "Pendulum-v1", networks_of(agent)
    weights.save(*place)
    for weight in agent.net.all_weights:
        weight.assign(tf.zeros_like(weight))
    agent.y.assign(agent.x)
    weights.load(*place)


WRITES = {
    "assign": lambda agent: agent.x.assign([7.0, 8.0, 9.0]),
    "assign_add": lambda agent: agent.scalar.assign_add(3.0),
    "assign_sub": lambda agent: agent.matrix.assign_sub(agent.matrix),
    "assign of an int64": lambda agent: agent.count.assign(agent.count // 2),
    "assign in a list": lambda agent: agent.averages[0].assign([5.0, 6.0]),
    "assign of another": lambda agent: agent.x.assign(agent.y),
    "v[0].assign": lambda agent: agent.x[0].assign(4.0),
    "scatter_nd_update": lambda agent: agent.x.scatter_nd_update([[1]], [40.0]),
    "tf.raw_ops": lambda agent: tf.raw_ops.AssignVariableOp(
        resource=agent.y.handle, value=tf.constant([1.0, 2.0, 1.0])
    ),
    "layer.b": lambda agent: agent.net.layer.b.assign([3.0, -3.0]),
    "tl.files.assign_weights": lambda agent: tl.files.assign_weights(
        [np.ones((3, 2), np.float32), np.zeros(2, np.float32)], agent.net
    ),
    "optimizer.learning_rate": lambda agent: setattr(agent.optimizer, "learning_rate", 0.25),
    "apply_gradients": apply_gradients,
    "Checkpoint": write_by_checkpoint,
    "weights.load": write_by_load,
}


@pytest.fixture(scope="module")
def pair():
    """(agent, twin, step compiled, step eager), of which each test leaves some state behind."""
    agent, twin = twins()
    return agent, twin, agent.function(step), twin.function(step)


def with_folder(actions, name, tmp_path):
    """The action of that name, with a folder of its own where it needs one."""
    action = actions[name]
    if action.__code__.co_argcount == 1:
        return action

    def in_folder(agent):
        folder = tmp_path / str(id(agent))
        folder.mkdir(exist_ok=True)
        return action(agent, folder)

    return in_folder


@pytest.mark.parametrize("name", READS)
def test_reading_sees_the_new_value(pair, tmp_path, name):
    """Right after a compiled call; and the next call goes on from there."""
    agent, twin, compiled, eager = pair
    read = with_folder(READS, name, tmp_path)
    for _ in range(2):
        assert_same(compiled(ROW), eager(ROW))
        assert_same(read(agent), read(twin))
    assert_same(compiled(ROW), eager(ROW))
    assert_same_agents(agent, twin)


@pytest.mark.parametrize("name", WRITES)
def test_writing_is_seen_by_the_next_call(pair, tmp_path, name):
    """Right after a compiled call, nothing read in between; and nothing else is lost."""
    agent, twin, compiled, eager = pair
    write = with_folder(WRITES, name, tmp_path)
    for _ in range(2):
        assert_same(compiled(ROW), eager(ROW))
        write(agent)
        write(twin)
    assert_same(compiled(ROW), eager(ROW))
    assert_same_agents(agent, twin)


@pytest.mark.parametrize("name", WRITES)
def test_writing_is_seen_by_the_next_read(pair, tmp_path, name):
    agent, twin, compiled, eager = pair
    write = with_folder(WRITES, name, tmp_path)
    assert_same(compiled(ROW), eager(ROW))
    write(agent)
    write(twin)
    assert_same_agents(agent, twin)


QUICK_READS = sorted({*READS} - {"Checkpoint", "weights.save", "pickle", "copy.deepcopy"})
QUICK_WRITES = sorted({*WRITES} - {"Checkpoint", "weights.load"})
CALLS = {
    "step": step,
    "swap": swap,
    "whole_numbers": whole_numbers,
    "only_reads": only_reads,
    "back_to_the_old_value": back_to_the_old_value,
    "variables_unchanged": variables_unchanged,
    "noise_in_a_gradient": noise_in_a_gradient,
}


@pytest.fixture(scope="module")
def functions():
    """(agent, twin, dict of name to (compiled, eager)); CALLS, each compiled once."""
    agent, twin = twins()
    both = {name: (agent.function(fn), twin.function(fn)) for name, fn in CALLS.items()}
    for name in both:
        both[name][0](ROW)
        both[name][1](ROW)
    return agent, twin, both


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("call"), st.sampled_from(sorted(CALLS))),
            st.tuples(st.just("call"), st.sampled_from(sorted(CALLS))),
            st.tuples(st.just("read"), st.sampled_from(QUICK_READS)),
            st.tuples(st.just("write"), st.sampled_from(QUICK_WRITES)),
        ),
        max_size=25,
    )
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_any_program_equals_its_eager_twin(functions, program):
    """Calls, reads and writes in any order, from equal values on."""
    agent, twin, both = functions
    for variable in (*named_variables(agent).values(), *named_variables(twin).values()):
        variable.assign(tf.ones_like(variable) * 2)
    for kind, name in program:
        if kind == "call":
            compiled, eager = both[name]
            assert_same(compiled(ROW), eager(ROW))
        elif kind == "read":
            assert_same(READS[name](agent), READS[name](twin))
        else:
            WRITES[name](agent)
            WRITES[name](twin)
    assert_same_agents(agent, twin)


def test_a_variable_is_still_a_variable(pair):
    """For isinstance, dictionaries and sets, as TensorFlow and TensorLayer ask."""
    agent, _, compiled, _ = pair
    compiled(ROW)
    assert isinstance(agent.x, tf.Variable)
    assert tf.is_tensor(agent.x)
    assert (agent.x.shape, agent.x.dtype, agent.x.trainable) == ((3,), tf.float32, True)
    assert {agent.x.ref(): 1}[agent.x.ref()] == 1
    assert agent.net.trainable_weights[0] is agent.net.layer.all_weights[0]


@pytest.fixture
def own_function():
    """(agent, compiled step of its x, a tf.function of a reader's own that reads x)."""
    agent = made(Agent)
    compiled = agent.function(lambda agent, row: agent.x.assign_add(row))
    compiled(np.zeros(3))
    return agent, compiled, tf.function(lambda: agent.x + 0.0)


def test_a_tf_function_traced_after_a_call(own_function):
    """It reads, and changes nothing, neither while it is traced nor later."""
    agent, compiled, own = own_function
    compiled(ROW)
    np.testing.assert_array_equal(own(), [2.0, 0.0, 6.0])
    agent.x.assign([7.0, 7.0, 7.0])
    np.testing.assert_array_equal(own(), [7.0, 7.0, 7.0])
    np.testing.assert_array_equal(agent.x, [7.0, 7.0, 7.0])


@pytest.mark.parametrize("ahead", [False, True])
def test_a_tf_function_after_unpack(own_function, ahead):
    """The one case that needs a word from the reader: it holds the variables since its tracing."""
    agent, compiled, own = own_function
    if not ahead:
        agent.x.numpy()
    own()
    own_assign = tf.function(lambda: agent.x.assign_add([10.0, 10.0, 10.0]))
    for i in (1.0, 2.0, 3.0):
        compiled(ROW)
        agent.compiler.unpack()
        np.testing.assert_array_equal(own(), [1, 2, 3] + i * ROW + (i - 1) * 10)
        own_assign()
    np.testing.assert_array_equal(compiled(ROW), [1, 2, 3] + 4 * ROW + 30)


def test_saved_model_after_unpack(tmp_path):
    """It too reads the variables in a graph of its own."""
    agent = made(Agent)
    agent.function(lambda agent, row: agent.x.assign_add(row))(ROW)
    agent.compiler.unpack()
    module = tf.Module()
    module.x = agent.x
    tf.saved_model.save(module, str(tmp_path))
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path)).x, [2.0, 0.0, 6.0])


def test_a_tape_watches_what_is_read(pair):
    """And not all the variables that this read writes back."""
    agent, _, compiled, _ = pair
    compiled(ROW)
    with tf.GradientTape() as tape:
        tf.reduce_sum(agent.x)
    assert [v.ref() for v in tape.watched_variables()] == [agent.x.ref()]


# --- what cannot be run without variables


def choose_what_to_assign(agent, row):
    def assign():
        agent.x.assign(row)
        return row

    return tf.cond(row[0] > 0, assign, lambda: row)


def gather(agent, row):
    return tf.gather(agent.x, [0, 2])


def assign_a_slice(agent, row):
    return agent.x[:2].assign(row[:2])


@pytest.mark.parametrize("fn", [choose_what_to_assign, gather, assign_a_slice])
def test_the_plain_engine_takes_over(fn, capsys):
    """Where a function uses a variable in a way of its own; one line says so, nothing is lost."""
    agent, twin = twins()
    both = [(a.function(step), a.function(fn)) for a in (agent, twin)]
    for _ in range(2):
        for ours, theirs in zip(*both):
            assert_same(ours(ROW), theirs(ROW))
    assert_same_agents(agent, twin)
    assert agent.compiler.plain
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.endswith(f": {TAKEN_OVER}\n")


def test_a_variable_that_the_agent_does_not_hold(capsys):
    """Nor its networks, optimizers and lists: the line says whose it is not."""
    agent, outside = made(Agent), tf.Variable([0.0, 0.0, 0.0])
    function = agent.function(lambda agent, row: outside.assign_add(row) + agent.x)
    for i in (1, 2):
        np.testing.assert_array_equal(function(ROW), [1, 2, 3] + i * ROW)
    np.testing.assert_array_equal(outside, 2 * ROW)
    out = capsys.readouterr().out
    assert "no attribute of the agent" in out and out.endswith(f": {TAKEN_OVER}\n")


def assert_still_works(agent, add):
    """Values, further calls, and noise, after an error in between; `add` was called once."""
    np.testing.assert_array_equal(agent.x, [2.0, 0.0, 6.0])
    np.testing.assert_array_equal(add(ROW), [3.0, -2.0, 9.0])
    np.testing.assert_array_equal(agent.x, [3.0, -2.0, 9.0])
    found = noise_of(agent.generator, [2])
    np.testing.assert_array_equal(found, np.random.default_rng(1).standard_normal(2, np.float32))
    assert not agent.compiler.plain


def test_an_error_of_the_function_itself():
    """Passes through as it is, and leaves nothing behind."""
    agent = made(Agent)
    add = agent.function(lambda agent, row: agent.x.assign_add(row))
    add(ROW)

    def fail(agent, row):
        agent.x.assign(row)
        noise_of(agent.generator, [5])
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        agent.function(fail)(ROW)
    assert_still_works(agent, add)


# --- noise


@pytest.mark.parametrize("shape", [[], [3], [2, 3], (4, 1), tf.TensorShape([2]), [0]], ids=str)
@MODES
def test_noise_is_the_generators(eager, shape):
    """standard_normal(shape, float32) of the generator, call by call; its state moves along."""
    agent = made(Agent, eager=eager)
    function = agent.function(lambda agent, row: (noise_of(agent.generator, shape), row + agent.x))
    expected = np.random.default_rng(1)
    for _ in range(3):
        found, _ = function(ROW)
        assert found.dtype == tf.float32
        np.testing.assert_array_equal(found, expected.standard_normal(tuple(shape), np.float32))
    assert agent.generator.bit_generator.state == expected.bit_generator.state


def test_noise_outside_any_function():
    found = noise_of(np.random.default_rng(3), [2, 2])
    expected = np.random.default_rng(3).standard_normal((2, 2), np.float32)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, expected)


@MODES
def test_noise_of_functions_that_share_a_generator(eager):
    """Drawn in the order of the calls; compiling draws none."""
    agent = made(Agent, eager=eager)
    one = agent.function(lambda agent, row: noise_of(agent.generator, [2]) + 0 * row[:2])
    two = agent.function(lambda agent, row: noise_of(agent.generator, [3]) + 0 * row)
    found = [one(ROW), two(ROW), noise_of(agent.generator, [4]), two(ROW), one(ROW)]
    expected = np.random.default_rng(1).standard_normal(14, np.float32)
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_noise_follows_a_generator_set_back():
    """The state counts at each call: a run that is resumed draws what it would have drawn."""
    agent = made(Agent)
    function = agent.function(lambda agent, row: noise_of(agent.generator, row.shape))
    first = function(ROW)
    state = agent.generator.bit_generator.state
    second = function(ROW)
    agent.generator.bit_generator.state = state
    np.testing.assert_array_equal(function(ROW), second)
    assert np.all(first != second)


# --- the decorator


class Policy(Net):
    """A network with compiled methods: shapes as in the scripts."""

    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(3)

    @decorated
    def act(self, states):
        """Of one state or several."""
        assert tf.is_tensor(states)
        return self.forward(tf.reshape(states, [-1, 3]))

    @decorated
    def get_action(self, state, greedy=False, scale=1.0):
        """(action, what drew it, how)."""
        assert isinstance(greedy, bool)
        mean = self.forward(state[np.newaxis])
        noise = 0.0 if greedy else StandardNormal(self.generator).sample(mean.shape)
        return {"action": (mean + scale * noise)[0], "as": (greedy, None)}


class Actor(Agent):
    """An agent with such a network, and a compiled method of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.policy = Policy()

    @decorated
    def greedy_actions(self, states):
        """Through the network's compiled method."""
        return self.scalar * self.policy.act(states)


@pytest.fixture(scope="module", params=["flat", "plain", "eager"])
def actor(request):
    return made(Actor, **({} if request.param == "flat" else {request.param: True}))


@pytest.fixture
def bound(actor):
    """The actor, after a first look at its parts; its network anew, for others replace it."""
    actor.policy = made(Policy)
    actor.compiler.check()
    return actor


def test_methods_of_agent_and_network(bound):
    """NumPy in, NumPy out, whichever engine runs; a tensor in, a tensor out."""
    states = np.stack([ROW, ROW + 1])
    expected = states @ np.float32([[1, 2], [0, -1], [3, 1]])
    for found in (bound.policy.act(states), bound.greedy_actions(states) / 2):
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)
    assert isinstance(bound.policy.act(tf.constant(states)), tf.Tensor)
    np.testing.assert_array_equal(made(Policy).act(states), expected)  # without a compiler
    assert isinstance(made(Policy).act(states), np.ndarray)
    for row in (ROW.tolist(), tuple(ROW), ROW.astype(int), ROW.astype(float)):
        np.testing.assert_array_equal(bound.policy.act(row)[0], expected[0])


def test_defaults_and_keywords(bound):
    """However an argument is given, it is the same; one of the wrong name is a TypeError."""
    act, expected = bound.policy.get_action, np.random.default_rng(3)
    mean = bound.policy.act(ROW)[0]
    calls = [lambda: act(ROW), lambda: act(ROW, False), lambda: act(state=ROW, scale=1.0)]
    for call in calls:
        noise = expected.standard_normal(2, np.float32)
        np.testing.assert_allclose(call()["action"], mean + noise, rtol=1e-6)
    for result in (act(ROW, True), act(ROW, greedy=True), act(list(ROW), greedy=True, scale=9.0)):
        np.testing.assert_array_equal(result["action"], mean)
        assert result["as"] == (True, None)
    assert len([key for key in bound.compiler.programs if "get_action" in str(key)]) in (0, 2)
    for wrong in (lambda: act(), lambda: act(ROW, gready=True)):
        with pytest.raises(TypeError):
            wrong()


def test_a_replaced_network_is_compiled_and_the_old_one_runs_by_itself(bound, capsys):
    old, new = bound.policy, made(Policy)
    old.act(ROW)
    new.layer.W.assign(2 * new.layer.W)
    bound.policy = new
    np.testing.assert_array_equal(2 * old.act(ROW), new.act(ROW))
    assert old.compiler is None and new.compiler is bound.compiler
    np.testing.assert_array_equal(bound.greedy_actions(ROW), 2 * new.act(ROW))
    assert TAKEN_OVER not in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["flat", "plain", "eager"])
def test_batches_of_several_arrays(mode):
    """An item may be a tuple of arrays, views among them."""
    agent = made(Agent, **({} if mode == "flat" else {mode: True}))
    rows = np.arange(48, dtype=np.float32).reshape(2, 4, 6)
    batches = [(row[:, :3], row[:, 3:5].T, row[:, 5]) for row in rows]

    def fn(batch, kind, factor):
        state, transposed, last = batch
        agent.x.assign_add(factor * (state[0] + transposed[0, 1] + last[3]))
        return agent.x * 1

    expected = np.float32([1, 2, 3])
    for _ in range(2):
        for row in rows:
            expected = expected + 0.5 * (row[0, :3] + row[1, 3] + row[3, 5])
        np.testing.assert_array_equal(agent.compiler.for_each(fn, batches, (0, 0), 0.5), expected)


# --- values


@pytest.mark.parametrize("mode", ["flat", "plain", "eager"])
def test_values_brought_back(mode):
    """Every bit of every variable, under names that say where it is."""
    agent = made(Agent, **({} if mode == "flat" else {mode: True}))
    function = agent.function(step)
    function(ROW)
    values = agent.compiler.values()
    assert {"x", "scalar", "averages/1", "net/0", "optimizer/5"} <= values.keys()
    assert all(isinstance(value, (np.ndarray, np.generic)) for value in values.values())
    later = function(ROW)
    agent.compiler.set_values(values)
    assert_same(agent.compiler.values(), values)
    assert_same(function(ROW), later)
    for unfit in ({}, {**values, "x": values["x"][:2]}, {**values, "z": values["x"]}):
        with pytest.raises(ValueError, match="values of other variables"):
            agent.compiler.set_values(unfit)


# --- what is not promised: each check fails on purpose, and the plain engine learns


def without_module(monkeypatch):
    import tensorflow.python.eager as package

    monkeypatch.delattr(package, "context")
    monkeypatch.setitem(sys.modules, "tensorflow.python.eager.context", None)


def without_tape(monkeypatch):
    import tensorflow.python.eager as package

    monkeypatch.delattr(package, "tape")
    monkeypatch.setitem(sys.modules, "tensorflow.python.eager.tape", None)


def handle_not_intercepted(monkeypatch):
    monkeypatch.setattr(private, "hold", lambda variable, owner: None)


def memory_is_copied(monkeypatch):
    monkeypatch.setattr(private, "shared_memory", lambda n: (np.zeros(n, np.float32), tf.zeros(n)))


def tracing_that(spoil):
    """Lines are traced, and what has become of the variables is changed."""

    def change(monkeypatch):
        right = flat.Vectors.replaced

        @contextlib.contextmanager
        def wrong(self, values):
            with right(self, values) as latest:
                yield latest
                if self.variables:  # none of the plain engine
                    spoil(latest, self.variables["x"], self.variables["y"])

        monkeypatch.setattr(flat.Vectors, "replaced", wrong)

    return change


def loses_an_assignment(latest, variable, other):
    latest[id(variable)] = latest.start[id(variable)]


def confuses_variables(latest, one, other):
    latest[id(one)], latest[id(other)] = latest[id(other)], latest[id(one)]


def raises(latest, variable, other):
    raise AttributeError("no such thing\nin this TensorFlow")


SPOILT = {
    "module": (without_module, "context"),
    "tape": (without_tape, "tape"),
    "handle": (handle_not_intercepted, "no attribute of the agent"),
    "memory": (memory_is_copied, "it makes something else of"),
    "lost": (tracing_that(loses_an_assignment), "it makes something else of"),
    "confused": (tracing_that(confuses_variables), "it makes something else of"),
    "error": (tracing_that(raises), "AttributeError: no such thing)"),
}


def learn(agent, row):
    """Noise, two steps of the optimizer, and variables of one shape that follow."""
    for _ in range(2):
        with tf.GradientTape() as tape:
            noise = noise_of(agent.generator, [2])
            loss = tf.reduce_mean(tf.square(agent.net(row[None]) - 1 - noise))
        grads = tape.gradient(loss, agent.net.trainable_weights)
        agent.optimizer.apply_gradients(zip(grads, agent.net.trainable_weights))
    agent.x.assign(agent.x * 0.9 + agent.y * 0.1 + row)
    agent.y.assign(agent.y * 0.5 + loss)
    return loss


@pytest.mark.parametrize("what", SPOILT)
def test_the_plain_engine_takes_over_and_learns(what, monkeypatch, capsys):
    """One line gives the reason; losses, variables and noise are the eager twin's."""
    agent, twin = twins()
    spoil, reason = SPOILT[what]
    spoil(monkeypatch)
    flat.APPROVED.clear()
    compiled, eager = agent.function(learn), twin.function(learn)
    before = agent.net.layer.W.numpy()
    for i in range(5):
        assert_same(compiled(ROW * i), eager(ROW * i), 1e-4)
    assert agent.compiler.plain
    assert np.all(before != agent.net.layer.W.numpy())
    assert_same_agents(agent, twin, 1e-4)
    out = capsys.readouterr().out
    assert out.startswith("The fast engine does not work here (")
    assert reason in out
    assert out.endswith(f"): {TAKEN_OVER}\n") and out.count("\n") == 1


def test_a_replaced_network_that_cannot_be_replayed(capsys):
    """What is compiled anew is tried anew; values learned by the fast engine are kept."""

    class Counting(Net):
        def forward(self, x):
            return self.layer(x) + tf.gather(self.layer.b, [0, 1])

    agent, twin = twins()
    compiled, eager = agent.function(learn), twin.function(learn)
    assert_same(compiled(ROW), eager(ROW), 1e-4)
    assert not agent.compiler.plain
    for one in (agent, twin):
        one.compiler.trains = {"optimizer": "net"}
        one.net, one.optimizer = made(Counting), tf.optimizers.Adam(0.1)
    for _ in range(2):
        assert_same(compiled(ROW), eager(ROW), 1e-4)
    assert agent.compiler.plain
    assert_same_agents(agent, twin, 1e-4)
    assert TAKEN_OVER in capsys.readouterr().out


# --- agents that compute the same share what is compiled


def test_equal_agents_compile_once(monkeypatch):
    """Each learns on with its own values and noise; another option or constant is no equal."""
    compiled = []
    right = flat.Program._compiled
    monkeypatch.setattr(
        flat.Program, "_compiled", lambda self, *args: compiled.append(1) or right(self, *args)
    )
    flat.APPROVED.clear()

    def fn(agent, row, factor):
        return learn(agent, row) * factor

    for factor, count in ((2, 1), (2, 1), (3, 2), (2, 2)):
        agent, twin = twins()
        for one in (agent, twin):
            one.x.assign_add(factor * ROW)
            one.generator = np.random.default_rng(count)
        ours, theirs = agent.function(fn), twin.function(fn)
        for i in range(3):
            assert_same(ours(ROW * i, factor), theirs(ROW * i, factor), 1e-4)
        assert_same_agents(agent, twin, 1e-4)
        assert len(compiled) == count
        assert not agent.compiler.plain


def test_what_takes_a_tensor_from_outside_is_not_shared():
    """It has the tensor built in, and another agent's may be another."""
    for first in (0.0, 1.0):
        outside = tf.range(first, 300)
        function = made(Agent).function(lambda agent, row, t=outside: row + tf.reduce_sum(t))
        np.testing.assert_array_equal(function(ROW), ROW + 150 * 299)


def test_what_is_shared_holds_no_agent():
    agent = made(Agent)
    agent.function(learn)(ROW)
    gone = weakref.ref(agent)
    del agent
    gc.collect()
    assert gone() is None


def test_the_trial_leaves_no_trace():
    """Values, generators and the first call's result are as if there had been none."""
    agent, twin = made(Agent), made(Agent, plain=True)
    agent.x.assign([1e8, -1e-8, 0.0])
    twin.x.assign(agent.x)
    found = agent.function(learn)(ROW)
    assert_same(found, twin.function(learn)(ROW), 1e-6)
    assert_same_agents(agent, twin, 1e-6)


def test_the_trial_lets_nan_pass(capsys):
    """What diverged has diverged, and the engine is not at fault."""
    agent = made(Agent)
    agent.function(lambda agent, row: agent.x.assign(tf.math.log(-tf.abs(row) - 1)))(ROW)
    assert not agent.compiler.plain
    assert not agent.compiler.all_finite()


# --- all_finite


BAD = {
    "x": lambda agent, value: agent.x.assign([1.0, value, 1.0]),
    "scalar": lambda agent, value: agent.scalar.assign(value),
    "list": lambda agent, value: agent.averages[0].assign([value, 0.0]),
    "network": lambda agent, value: agent.net.layer.b.assign([0.0, value]),
    "slot": lambda agent, value: agent.optimizer.variables[-1].assign([value, 0.0]),
}


@pytest.fixture(scope="module")
def touched():
    """(agent, a compiled function that changes no value but leaves the vector ahead)."""
    agent = made(Agent)
    return agent, agent.function(lambda agent, row: agent.y.assign_add(0 * row))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", BAD)
@pytest.mark.parametrize("ahead", ["variables", "vector"])
def test_all_finite(touched, ahead, where, value):
    """Whichever are the newer values, in any variable; and asking changes none of them."""
    agent, touch = touched
    for x, expected in ((0.0, True), (value, False), (1.0, True)):
        BAD[where](agent, x)
        if ahead == "vector":
            touch(ROW)
        assert agent.compiler.all_finite() is expected
        assert agent.compiler.all_finite() is expected
        values = [v.numpy() for v in named_variables(agent).values()]
        assert all(np.isfinite(v).all() for v in values) is expected


@pytest.mark.parametrize("where", BAD)
def test_all_finite_when_eager(where):
    agent = made(Agent, eager=True)
    assert agent.compiler.all_finite() is True
    BAD[where](agent, np.nan)
    assert agent.compiler.all_finite() is False


@MODES
def test_all_finite_of_what_a_function_computed(eager):
    agent = made(Agent, eager=eager)
    divide = agent.function(lambda agent, row: agent.x.assign(agent.x / row))
    divide(ROW)
    assert agent.compiler.all_finite()
    divide(np.float32([1, 0, 1]))
    assert not agent.compiler.all_finite()


# --- subclasses, as an exercise writes them


class SumOfSquares(td3.TD3):
    """Another update, of a network and an optimizer that TD3 does not have."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model = made(td3.QNetwork, 3, 1, 4)
        self.model_optimizer = tf.optimizers.Adam(1e-2)
        self.weight = 0.5

    def _update_from(self, batch, policy_turn, *args):
        losses = super()._update_from(batch, policy_turn, *args)
        q_input = tf.concat(batch[:2], 1)
        with tf.GradientTape() as tape:
            loss = self.weight * tf.reduce_sum(tf.square(self.model(q_input) - 1))
        grads = tape.gradient(loss, self.model.trainable_weights)
        self.model_optimizer.apply_gradients(zip(grads, self.model.trainable_weights))
        return tf.concat([losses, [loss]], 0)


class Careful(sac.PolicyNetwork):
    """Another forward pass."""

    def forward(self, state):
        mean, log_std = super().forward(state)
        return 0.5 * mean, log_std - 1.0


class CarefulSAC(sac.SAC):
    """With a network of the reader's own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.policy_net = made(Careful, 3, 1, 4, np.float32([2.0]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SumOfSquares, CarefulSAC])
def test_a_subclass_is_compiled(kind, monkeypatch, capsys):
    """As it stands in a reader's own file: the fast engine runs it, eager is the expectation."""
    script = sac if kind is CarefulSAC else td3
    monkeypatch.setattr(script, script.ALG_NAME, kind)
    agent, twin = (new_agent(script, 5, eager=eager, standardise_rewards=False)
                   for eager in (False, True))
    state = np.float32([0.3, -0.2, 0.9])
    for _, update, act in (agent, twin):
        act(state)
        update()
        act(state)
        update()
    assert not agent[0].compiler.plain
    assert TAKEN_OVER not in capsys.readouterr().out
    np.testing.assert_allclose(agent[0].losses, twin[0].losses, 2e-3, 2e-4)
    expected = twin[0].compiler.values()
    for name, value in agent[0].compiler.values().items():
        np.testing.assert_allclose(value, expected[name], 2e-3, 2e-4, err_msg=name)


# --- the chapter's agents: one seed, one outcome, bit for bit

CALLS_OF_UPDATE, UPDATES_EACH = 20, 3
SCRIPTS = [ddpg, td3, sac]
NAMES = ["ddpg", "td3", "sac"]


def seed_everything(seed):
    """As each script's main part does."""
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)


def new_agent(script, seed, **options):
    """(agent, update, act): small, on a filled buffer."""
    seed_everything(seed)
    rng = np.random.default_rng(9)
    rows = [
        (rng.normal(size=3), rng.uniform(-2, 2, 1), rng.normal(), rng.normal(size=3), i % 7 == 0)
        for i in range(20)
    ]
    if script is ddpg:
        sizes = {"memory_capacity": 20, "hidden_dim": 4, "batch_size": 8}
        agent = made(ddpg.DDPG, 1, 3, np.float32([2.0]), **sizes, **options)
        for row in rows:
            agent.store_transition(*row)
        return agent, lambda: agent.learn(UPDATES_EACH), agent.get_action
    ring = td3.ReplayBuffer(20)
    for row in rows:
        ring.push(*row)
    if script is td3:
        agent = made(
            td3.TD3, 3, 1, ring, 4, np.float32([2.0]), q_lr=3e-3, policy_lr=3e-3, **options
        )
        update = functools.partial(agent.update, 8, 0.5, n_updates=UPDATES_EACH)
        return agent, update, lambda state: agent.policy_net.get_action(state, 1.0)
    agent = made(sac.SAC, 3, 1, ring, 4, np.float32([2.0]), 3e-3, 3e-3, 3e-3, **options)
    update = functools.partial(agent.update, 8, n_updates=UPDATES_EACH)
    return agent, update, agent.policy_net.get_action


def trained(script, seed):
    """A short training: dict of agent, losses, actions on the way, sampled ones, variables."""
    agent, update, act = new_agent(script, seed)
    run = {"agent": agent, "losses": [], "actions": [], "samples": []}
    states = np.random.default_rng(8).normal(size=(CALLS_OF_UPDATE, 3)).astype(np.float32)
    for state in states:
        update()
        run["losses"].append(agent.losses)
        run["actions"].append(act(state))
        if script is not ddpg:
            run["samples"].append(agent.policy_net.sample_action())
    run["variables"] = [variable.numpy() for variable in named_variables(agent).values()]
    return run


@pytest.fixture(scope="module", params=SCRIPTS, ids=NAMES)
def runs(request):
    """(script, first, second): two trainings with one seed."""
    return request.param, trained(request.param, 5), trained(request.param, 5)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["losses", "actions", "samples", "variables"])
def test_one_seed_one_outcome(runs, what):
    """Weights, targets, slots, losses and actions of two runs are equal, every bit."""
    _, first, second = runs
    for one, two in zip(first[what], second[what], strict=True):
        assert one.dtype == two.dtype
        assert one.tobytes() == two.tobytes()


@pytest.mark.slow
def test_the_training_was_one(runs):
    """Weights moved, actions vary: equal runs in which nothing happens would prove nothing."""
    script, first, _ = runs
    assert np.isfinite(first["losses"]).all()
    assert len(np.unique(first["actions"])) > CALLS_OF_UPDATE / 2
    fresh, _, _ = new_agent(script, 5)
    held = zip(named_variables(fresh).values(), first["variables"], strict=True)
    moved = [np.any(before.numpy() != after) for before, after in held]
    assert np.mean(moved) > 0.9  # all but the learning rates


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_another_seed_another_outcome(script):
    """Other weights at the start, other noise, other batches."""
    found = []
    for seed in (5, 6):
        agent, _, _ = new_agent(script, seed)
        policy = agent if script is ddpg else agent.policy_net
        batches = agent if script is ddpg else agent.replay_buffer
        start = [v.numpy().ravel() for v in next(iter(networks_of(agent).values()))]
        noise = noise_of(policy.generator, [5])
        found.append((start[0], noise, batches.generator.random(5)))
    for one, other in zip(*found):
        assert np.all(one != other)


@pytest.mark.slow
def test_what_acts_is_what_was_trained(runs):
    """The compiled greedy action is that of the network called by hand, after 60 updates."""
    script, first, _ = runs
    agent, state = first["agent"], np.float32([0.3, -0.2, 0.9])
    if script is ddpg:
        acted, called = agent.get_action(state, greedy=True), agent.actor(state[None])
    elif script is td3:
        acted = agent.policy_net.get_action(state, 1.0, greedy=True)
        called = 2.0 * agent.policy_net(state[None])
    else:
        acted = agent.policy_net.get_action(state, greedy=True)
        called = 2.0 * tf.tanh(agent.policy_net(state[None])[0])
    np.testing.assert_allclose(acted, called[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_flat_equals_plain_equals_eager(script):
    """From wide weights, over 40 calls, each of which starts all three from the same values.

    Slots start above 0 and rewards stay as they are, because Adam's first steps along a gradient
    that is nothing but rounding would differ by all their length.
    """
    options = {} if script is ddpg else {"standardise_rewards": False}
    run = {}
    for mode in ("flat", "plain", "eager"):
        agent, update, act = new_agent(script, 5, eager=mode == "eager", **options)
        agent.compiler.plain = mode == "plain"
        run[mode] = agent, update, act
    ours, rng = run["flat"][0].compiler, np.random.default_rng(0)
    values = ours.values()
    for name, value in values.items():
        if "opt" in name and value.ndim:
            values[name] = np.full_like(value, 0.01)
        elif value.ndim:
            values[name] = rng.uniform(-1, 1, value.shape).astype(np.float32)  # twice fan-in
    ours.set_values(values)
    state = np.float32([0.3, -0.2, 0.9])
    for _ in range(40):
        start = ours.values()
        outcome = {}
        for mode, (agent, update, act) in run.items():
            agent.compiler.set_values(start)
            update()
            outcome[mode] = {
                "losses": agent.losses,
                "action": act(state),
                **agent.compiler.values(),
            }
        for mode in ("plain", "eager"):
            for name, found in outcome["flat"].items():
                np.testing.assert_allclose(found, outcome[mode][name], 1e-3, 1e-4, err_msg=name)
    assert not ours.plain
    assert np.mean([np.any(v != values[n]) for n, v in ours.values().items()]) > 0.8
