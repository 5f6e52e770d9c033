"""The engine that is faster: an update's variables as a few flat vectors.

A compiled function pays for every tf.Variable that it touches, and TD3 has 86 (weights, targets,
Adam's moments). Here the traced graph of the lines is made one of values, without variables: its
reads and assignments become the values themselves. In the compiled program these are slices of a
few vectors: vectors in, vectors out. While a vector is ahead of its variables, whoever touches one
of them first has it written back, and the next call packs them again. So nobody sees old values,
with one exception: a tf.function of your own that has read a variable before holds it for good.
Equal updates in one call run as a loop: unrolled, they would take as many times as long to compile.

It relies on what TensorFlow does not promise, and tests hold it for each supported version:
- everything that TensorFlow does with a variable goes through its attribute `_handle`, and the
  class of a variable may be exchanged for a subclass (_held);
- a graph lists its operations in the order in which they were made (_values_instead);
- the eager context's call_function, which takes 20 us where the public call takes 90 (_caller);
- on a CPU, a tensor made of an array through DLPack shares its memory (_shared_memory).
Delete this file and the choice in plain.py, and everything runs as before, at half the speed.
"""

import functools
import itertools

import numpy as np
import tensorflow as tf

from common.engine import plain
from common.engine.variables import variables_of

SUPPORTED = (2, 16), (2, 21)  # TensorFlow's versions, first and last
LARGE = 16384  # elements; from here on, a variable is a vector of its own: slicing would cost more
ON_CPU = not tf.config.list_physical_devices("GPU")


class NotFlat(Exception):
    """A method does what cannot be run without variables; the message says what."""


def usable(programs):
    """Whether this engine is to be tried; says so once if it does not know this TensorFlow."""
    if not SUPPORTED[0] <= tuple(map(int, tf.__version__.split(".")[:2])) <= SUPPORTED[1]:
        if not programs:
            print(f"TensorFlow {tf.__version__}: a plain tf.function runs the updates, slower.")
        return False
    return not programs.plain


class Vector:
    """Variables of one type, and their values as one flat tensor while this is the newer."""

    def __init__(self, variables, programs):
        self.variables, self.programs, self.tensor = variables, programs, None
        for variable in variables:
            if "vector" in vars(variable) and variable.vector.programs is not programs:
                variable.vector.programs.forget()  # of another agent, or of this one before
            variable.__class__ = _held(type(variable))
            variable.vector = self
        self.size = sum(v.shape.num_elements() for v in variables)

    def pack(self):
        """The values as one tensor."""
        if self.tensor is None:
            with tf.init_scope():
                self.tensor = _join(self.variables)
        return self.tensor

    def unpack(self):
        """Write the values back; from here on the variables count."""
        with plain.LOCK:
            tensor, self.tensor = self.tensor, None
            if tensor is None:
                return
            try:
                with tf.init_scope():  # not into a graph that is being traced
                    for variable, value in zip(self.variables, _split(tensor, self.variables)):
                        variable.assign(value)
            except BaseException:  # Ctrl-C among them
                self.tensor = tensor
                raise


@functools.cache
def _held(kind):
    """The class of variables that are held by a Vector, one for each class of TensorFlow's."""
    if hasattr(kind, "held"):
        return kind

    class Held(kind):
        held = True

        @property
        def _handle(self):
            if self.vector.tensor is not None:
                self.vector.unpack()
            return vars(self)["_handle"]

        @_handle.setter
        def _handle(self, handle):
            vars(self)["_handle"] = handle

    return Held


class Program(plain.Program):
    """plain.Program on vectors: those of the agent, in an order that no call can change.

    The order counts: in another, rounding may be another.
    """

    def __init__(self, agent, programs, part, method, kinds):
        self.agent, self.programs = agent, programs
        super().__init__(part, method, kinds)

    def _compile(self):
        traced = {item: _Step(self, item) for item in dict.fromkeys(self.items)}
        self.steps = [traced[item] for item in self.items]
        place = self._place()
        touched = {id(v) for step in traced.values() for v in step.variables.values()}
        if not touched <= place.keys():  # at first, and where tracing gave an optimizer its moments
            self.programs.forget()
            groups = {}  # by type, large ones apart
            for variable in variables_of(self.agent).values():
                large = variable.shape.num_elements() >= LARGE
                groups.setdefault(id(variable) if large else variable.dtype, []).append(variable)
            self.programs.vectors = [Vector(group, self.programs) for group in groups.values()]
            place = self._place()
            if not touched <= place.keys():
                raise NotFlat("it uses a variable that is no attribute of the agent, nor of its "
                              "networks or optimizers")
        self.vectors = self.programs.vectors
        for step in traced.values():
            step.locate(place)
        self.noise = sum(step.noise for step in self.steps)
        used = {k for step in traced.values() for k, _ in step.used}
        given = {k for step in traced.values() for k, _ in step.assigned}
        self.taken, self.given = sorted(used), sorted(given)
        self.results = self.steps[-1].results  # as tensors of the graph
        flat = [t for t in tf.nest.flatten(self.results) if t is not None]
        ends = np.cumsum([0, *(t.shape.num_elements() for t in flat)]).tolist()
        self.pieces = list(zip(ends, ends[1:], [tuple(t.shape) for t in flat]))
        self.names = [] if isinstance(self.results, tf.Tensor) else None
        if isinstance(self.results, dict) and len(self.results) == len(flat):
            self.names = sorted(self.results)  # as tf.nest has them
        specs = [tf.TensorSpec([self.vectors[k].size], self.vectors[k].variables[0].dtype)
                 for k in self.taken]
        specs += [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self.tensors()]
        function = tf.function(self._body, jit_compile=True, autograph=False)
        vector = tf.TensorSpec([self.size + self.noise], tf.float32)
        return _caller(self._identified(function.get_concrete_function(*specs, vector)))

    def _memory(self, size):
        array, self.tensor = _shared_memory(size)
        return array

    def _place(self):
        """Where each variable is: dict from its id to (number of the vector, number in it)."""
        return {id(v): (k, i) for k, vector in enumerate(self.programs.vectors)
                for i, v in enumerate(vector.variables)}

    def _body(self, *tensors):
        *tensors, numbers = tensors
        vectors = [self.vectors[k].variables for k in self.taken]
        values = {}  # by place, and last those of held tensors
        for k, tensor, variables in zip(self.taken, tensors, vectors):
            values |= {(k, i): value for i, value in enumerate(_split(tensor, variables))}
        values[None] = tensors[len(self.taken) :]
        n_rest, start, noise = plain.size(self.rest), plain.size(self.rest), self.size
        for step, equal in itertools.groupby(self.steps):
            count = len(list(equal))
            own = [(start, step.size), (noise, step.noise)]
            own = [tf.reshape(numbers[at : at + count * n], [count, n]) for at, n in own]
            start, noise = start + count * step.size, noise + count * step.noise
            values, results = step.repeat(values, numbers[:n_rest], *own)
        vectors = [_join([values[k, i] for i in range(len(self.vectors[k].variables))])
                   for k in self.given]
        self.together = all(result.dtype == tf.float32 for result in results)
        if self.together:  # each further tensor takes its time
            results = [_join(results)] if results else []
        return [*vectors, *values[None], *results]

    def __call__(self, numbers):
        self.fill(numbers)
        tensors = [self.vectors[k].pack() for k in self.taken]
        tensors += self.tensors()
        tensors.append(self.tensor if ON_CPU else tf.constant(self.array))
        outputs = self.function(tensors)
        for k, output in zip(self.given, outputs):
            self.vectors[k].tensor = output
        outputs = outputs[len(self.given) :]
        if self.held:
            vars(self.part).update(zip(self.held, outputs))
            outputs = outputs[len(self.held) :]
        return self._arrays(outputs)

    def _arrays(self, outputs):
        """What the method returned, with arrays for tensors."""
        if self.together and outputs:
            values = outputs[0].numpy()
            outputs = [values[begin:end].reshape(shape) if shape else values[begin]
                       for begin, end, shape in self.pieces]
        else:
            outputs = [output.numpy() for output in outputs]
        if self.names is not None:  # a dict of them, or one: tf.nest takes its time
            return dict(zip(self.names, outputs)) if self.names else outputs[0]
        outputs = iter(outputs)
        return tf.nest.map_structure(lambda t: None if t is None else next(outputs), self.results)


class _Step:
    """The lines for one item, as a function of its numbers and of the variables' values."""

    def __init__(self, program, item):
        self.size = plain.size(item)

        def lines(numbers, noise, *tensors):
            feed = plain.Feed(numbers, noise)
            results, after = program.lines(feed, [item], tensors)
            self.noise, self.results = feed.noise_size, results
            return results, after

        vector = tf.TensorSpec([None], tf.float32)  # of noise, tracing finds out how much
        numbers = tf.TensorSpec([plain.size(program.rest) + self.size], tf.float32)
        held = [tf.TensorSpec(t.shape, t.dtype) for t in program.tensors()]
        function = tf.function(lines, autograph=False)
        concrete = function.get_concrete_function(numbers, vector, *held)
        outside = list(zip(concrete.inputs[2 + len(held) :], concrete.captured_inputs))
        handles = {id(variable.handle): variable for variable in concrete.variables}
        self.variables, self.constants = {}, {}  # by the name of what stands for them in the graph
        for inside, captured in outside:
            if id(captured) in handles:
                self.variables[inside.op.name] = handles[id(captured)]
            elif captured.dtype == tf.resource:
                raise NotFlat("it uses a resource that is no variable")
            else:
                self.constants[inside.name] = captured
        self.inputs = [tensor.name for tensor in concrete.inputs[: 2 + len(held)]]
        self.graph, self.latest = _values_instead(concrete.graph.as_graph_def(), self.variables)
        self.needed = {word if ":" in word else word + ":0"
                       for node in self.graph.node for word in node.input}
        given = {name.partition(":")[0] for name in (*self.inputs, *self.constants)}
        nodes = [node for node in self.graph.node if node.name not in given | set(self.variables)]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        outputs, n_results = [t.name for t in concrete.outputs], len(concrete.outputs) - len(held)
        self.outputs = [*(name + ":0" for name in self.latest.values()), *outputs[n_results:],
                        *outputs[:n_results]]

    def locate(self, place):
        """Note where its variables are."""
        self.used = {place[id(v)]: name + ":0" for name, v in self.variables.items()}
        self.assigned = [place[id(self.variables[name])] for name in self.latest]

    def repeat(self, values, rest, own, noise):
        """Do the step len(own) times, in the function being compiled.

        Args:
            values: dict from a variable's place to its value; at None, the held tensors.
            rest: the numbers that all repetitions share.
            own, noise: (repetitions, size) those of each.

        Returns:
            (new values, list of what the last repetition returned)
        """

        def once(i, values):
            inputs = zip(self.inputs, [tf.concat([rest, own[i]], 0), noise[i], *values[None]])
            inputs = {**self.constants, **dict(inputs)}
            inputs |= {name: values[place] for place, name in self.used.items()}
            # identity() brings them into the graph of a loop
            inputs = {name: tf.identity(t) for name, t in inputs.items() if name in self.needed}
            outputs = tf.graph_util.import_graph_def(self.graph, inputs, self.outputs, name="step")
            return merged(values, outputs)

        def merged(values, outputs):
            n, m = len(self.assigned), len(values[None])
            after = {**values, **dict(zip(self.assigned, outputs)), None: outputs[n : n + m]}
            return after, outputs[n + m :]

        count = own.shape[0]
        if count == 1:
            return once(0, values)
        shapes = [t for t in tf.nest.flatten(self.results) if t is not None]
        state = [*(values[place] for place in self.assigned), *values[None],
                 *(tf.zeros(t.shape, t.dtype) for t in shapes)]

        def body(i, *state):
            after, results = once(i, merged(values, state)[0])
            return i + 1, *(after[place] for place in self.assigned), *after[None], *results

        _, *state = tf.while_loop(lambda i, *_: i < count, body, (0, *state),
                                  maximum_iterations=count)
        return merged(values, state)


def _values_instead(graph, variables):
    """A traced graph with values in place of variables.

    Args:
        graph: GraphDef, which is changed.
        variables: dict from the name of the placeholder of a variable to it.

    Returns:
        (graph, dict from the placeholder of each variable that is assigned to the name of the
        operation that has its last value)
    """
    latest = {name: name for name in variables}
    for node in graph.node:
        inputs = [word for word in node.input if not word.startswith("^")]
        name = inputs[0].partition(":")[0] if inputs else ""
        if node.name in variables:
            variable = variables[node.name]
            node.attr["dtype"].type = variable.dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(variable.shape.as_proto())
        elif name in variables and node.op in _INSTEAD:
            after = [word for word in node.input if word.startswith("^")]
            values = {"old": latest[name], "new": inputs[-1]}
            if node.op != "ReadVariableOp":
                latest[name] = node.name
            node.op, *used = _INSTEAD[node.op]
            node.input[:] = [*map(values.get, used), *after]
            kind = node.attr["dtype"].type
            node.attr.clear()
            node.attr["T"].type = kind
        elif any(word.partition(":")[0] in variables for word in inputs):
            raise NotFlat(f"a variable goes into {node.op}, as in tf.cond or a loop")
    return graph, {name: last for name, last in latest.items() if last != name}


_INSTEAD = {"ReadVariableOp": ("Identity", "old"), "AssignVariableOp": ("Identity", "new"),
            "AssignAddVariableOp": ("AddV2", "old", "new"),
            "AssignSubVariableOp": ("Sub", "old", "new")}


def _caller(function):
    """A function of a list of tensors that runs a concrete function; returns its flat results."""
    from tensorflow.python.eager import context

    call, name, outside = context.context().call_function, function.name, function.captured_inputs
    n_outputs = len(function.outputs)

    def run(tensors, _alive=function):  # the context forgets a function that nobody holds
        return call(name, [*tensors, *outside], n_outputs)

    return run


def _shared_memory(size):
    """A float32 array of a size and a tensor over the same memory.

    Making a new tensor for each call costs more than the call itself. A call is over when it
    returns, so the next one's numbers may be written into the array.
    """
    alignment = 64  # bytes; TensorFlow would copy from an address that is not a multiple
    raw = np.zeros(size + alignment // 4, np.float32)
    start = -raw.ctypes.data % alignment // 4
    array = raw[start : start + size]
    return array, tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _join(tensors):
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _split(vector, like):
    """The pieces of a flat vector, in the shapes of the variables `like`."""
    pieces = tf.split(vector, [item.shape.num_elements() for item in like])
    return [tf.reshape(piece, item.shape) for piece, item in zip(pieces, like, strict=True)]
