"""The program of a function: its lines, traced, run on a few flat vectors instead of variables.

A compiled function pays for every tf.Variable it touches, and TD3 has 86 (weights, targets,
Adam's slots). Therefore:

1. the lines are traced with a tensor in place of each variable's value, so that what they make
   is a function of values, without variables;
2. in the compiled program these values are slices of a few flat vectors (large variables are
   vectors of their own: copying them would cost more than an argument);
3. XLA compiles it: vectors in, vectors out.

While the vectors are ahead of the variables, touching any of them (reading, assigning, calling
a network that holds it) first writes the vectors back, and the next compiled call packs them
again: nobody sees old values.

Without vectors the same program reads and assigns the variables where they are. That is the plain
engine: tf.function(jit_compile=True), on public API only.
"""

import contextlib
import hashlib
import itertools

import numpy as np
import tensorflow as tf

from common import private
from common.feed import Feed, kind_of

ON_CPU = not tf.config.list_physical_devices("GPU")
LARGE = 16384  # elements; from here on, a variable is a vector of its own
APPROVED = {}  # by key: compiled programs that were held against eager lines, for any agent


class NotFlat(Exception):
    """A function does what cannot be run without variables; the message says what."""


class Vectors:
    """The variables of one agent, and their values as flat vectors while these are the newer."""

    def __init__(self):
        self.variables, self.groups = {}, []  # by name; lists of those that share a vector
        self.vectors = None
        self.traced = None  # while lines are traced: what stands for a variable, by its id

    def hold(self, variables):
        """Stand for these variables, a dict from their names, from now on."""
        if self.variables is variables:
            return
        self.unpack()
        groups = {}  # by dtype, large ones apart
        for variable in variables.values():
            private.hold(variable, self)
            large = variable.shape.num_elements() >= LARGE
            groups.setdefault(id(variable) if large else variable.dtype, []).append(variable)
        self.variables, self.groups = variables, list(groups.values())

    def pack(self):
        """The values of all variables, as one vector for each group."""
        if self.vectors is None:
            with tf.init_scope():
                self.vectors = [_join(group) for group in self.groups]
        return self.vectors

    def unpack(self):
        """Write the vectors back; from here on the variables count."""
        vectors, self.vectors = self.vectors, None
        if vectors is None:
            return
        try:
            with tf.init_scope():  # not into a graph that is being traced
                for vector, group in zip(vectors, self.groups, strict=True):
                    for variable, value in zip(group, _split(vector, group), strict=True):
                        variable.assign(value)
        except BaseException:
            self.vectors = vectors
            raise

    @contextlib.contextmanager
    def replaced(self, values):
        """Within this block, tensors stand for the variables; yields what has become of them."""
        self.traced = _Latest(dict(zip(map(id, self.variables.values()), values, strict=True)))
        try:
            yield self.traced
        finally:
            self.traced = None


class _Latest(dict):
    """The value that stands for each variable by now, by its id, in the order of first use.

    The order counts: in another, the results of a loop are rounded otherwise.
    """

    def __init__(self, start):
        self.start, self.graph = start, tf.compat.v1.get_default_graph()

    def __missing__(self, i):
        return self.setdefault(i, self.start[i])

    def __setitem__(self, i, value):
        if tf.compat.v1.get_default_graph() is not self.graph:  # it may not be run
            raise NotFlat("a compiled function assigns a variable within tf.cond or a loop")
        super().__setitem__(i, value)


class Program:
    """fn(item, kind, *rest) for each item and kind in turn, compiled as one function.

    Its inputs are the vectors and one more: first the numbers that all steps share, then for
    each step its item and its noise.

    Args:
        vectors: what holds the variables that fn may use, or None: the plain engine.
    """

    def __init__(self, vectors, fn, rest, items, kinds):
        self.flat, self.vectors = vectors is not None, vectors or Vectors()
        traced, self.steps = {}, []
        for item, kind in zip(items, kinds):
            key = kind_of((item, kind), [])
            if key not in traced:
                traced[key] = _Step(self.vectors, fn, item, kind, rest)
                if self.flat and traced[key].touches_variables:
                    raise NotFlat("a compiled function uses a variable that is no attribute of "
                                  "the agent, nor of its networks or optimizers")
            self.steps.append(traced[key])
        feeds = [self.steps[-1].shared, *[step.own for step in self.steps]]
        size = sum(feed.size for feed in feeds)
        make = private.shared_memory if self.flat else lambda n: (np.zeros(n, np.float32), None)
        array, self.tensor = make(size)
        self.array, self.slots, self.noise = array, [], []
        for feed in feeds:
            for generator, place in feed.pieces:
                if generator is None:
                    self.slots.append(place(array))
                else:
                    self.noise.append((generator, place(array)))
            array = array[feed.size :]

        groups = self.vectors.groups
        assigned = {i for step in traced.values() for i in step.assigned}
        used = assigned.union(*[step.used for step in traced.values()])
        self.taken = [k for k, group in enumerate(groups) if used & set(map(id, group))]
        self.given = [k for k in self.taken if assigned & set(map(id, groups[k]))]
        self.key = self._key(list(traced.values())) if self.flat else None
        self.call = APPROVED.get(self.key)
        if self.call is None:
            call = private.caller if self.flat else _plainly
            self.call = call(self._compiled(feeds[0].size, size))
        self.results = self.steps[-1].function.structured_outputs[1]
        self.single = isinstance(self.results, tf.Tensor)

    def __call__(self, fed):
        """The results of the last, as NumPy arrays.

        Args:
            fed: the numbers among (rest, items), as kind_of() lists them.
        """
        for slot, number in zip(self.slots, fed):
            slot[...] = number
        for generator, slot in self.noise:
            generator.standard_normal(dtype=np.float32, out=slot)
        vectors = self.vectors.pack()
        numbers = self.tensor if self.flat and ON_CPU else tf.constant(self.array)
        outputs = self.call([*[vectors[k] for k in self.taken], numbers])
        if self.given:
            self.vectors.vectors = vectors = list(vectors)
            for k, vector in zip(self.given, outputs):
                vectors[k] = vector
            outputs = outputs[len(self.given) :]
        if self.single:  # the usual case; tf.nest takes its time
            return outputs[0].numpy()
        outputs = iter(outputs or [])
        return tf.nest.map_structure(
            lambda t: None if t is None else next(outputs).numpy(), self.results
        )

    def _key(self, traced):
        """What the program computes; None if it also takes tensors from outside."""
        if any(step.function.captured_inputs for step in traced):
            return None
        place = {id(v): k for k, v in enumerate(self.vectors.variables.values())}
        steps = [(_meaning(step.function), sorted(place[i] for i in step.used),
                  [place[i] for i in step.assigned]) for step in traced]
        groups = [[place[id(v)] for v in group] for group in self.vectors.groups]
        key = steps, [traced.index(step) for step in self.steps], groups
        return hashlib.sha256(repr(key).encode()).digest()

    def _compiled(self, begin, size):
        groups = self.vectors.groups
        taken, given = [groups[k] for k in self.taken], [groups[k] for k in self.given]

        def program(*tensors):
            *vectors, numbers = tensors
            value = {}  # by a variable's id
            for vector, group in zip(vectors, taken, strict=True):
                value.update(zip(map(id, group), _split(vector, group), strict=True))
            start = begin
            for step, run in itertools.groupby(self.steps):
                count = len(list(run))
                end = start + count * step.own.size
                own = tf.reshape(numbers[start:end], [count, step.own.size])
                value, results = step.repeat(value, numbers[:begin], own)
                start = end
            return [_join([value[id(v)] for v in group]) for group in given] + results

        sizes = [sum(v.shape.num_elements() for v in group) for group in taken]
        specs = [tf.TensorSpec([n], g[0].dtype) for n, g in zip(sizes, taken, strict=True)]
        compiled = tf.function(program, jit_compile=True, autograph=False)
        return compiled.get_concrete_function(*specs, tf.TensorSpec([size], tf.float32))


class _Step:
    """fn(item, kind, *rest), traced as a function of its numbers and of the variables' values."""

    def __init__(self, vectors, fn, item, kind, rest):
        self.variables = list(vectors.variables.values())

        def traced(own, shared, *values):
            self.own, self.shared = Feed(own), Feed(shared)
            with vectors.replaced(values) as latest:
                results = self.own.run(fn, self.own.give(item), kind, *self.shared.give(rest))
                results = tf.nest.map_structure(_tensor, results)
            self.used = set(latest)
            self.assigned = [i for i, value in latest.items() if value is not latest.start[i]]
            return [latest[i] for i in self.assigned], results

        numbers = tf.TensorSpec([None], tf.float32)  # what noise is asked for, tracing finds out
        specs = [tf.TensorSpec(v.shape, v.dtype) for v in self.variables]
        function = tf.function(traced, jit_compile=True, autograph=False)
        self.function = function.get_concrete_function(numbers, numbers, *specs)
        self.touches_variables = any(
            tensor.dtype == tf.resource for tensor in self.function.captured_inputs
        )

    def repeat(self, value, shared, own):
        """Do the step len(own) times, in the function being compiled.

        Args:
            value: dict from a variable's id to its value.
            shared: the numbers that all repetitions share.
            own: (repetitions, size) those of each.

        Returns:
            (new value, list of what the last repetition returned)
        """

        def once(numbers, value):
            values = [value[id(v)] if id(v) in self.used else tf.zeros(v.shape, v.dtype)
                      for v in self.variables]
            assigned, results = self.function(numbers, shared, *values)
            results = [result for result in tf.nest.flatten(results) if result is not None]
            return {**value, **dict(zip(self.assigned, assigned))}, results

        n = own.shape[0]
        if n == 1:
            return once(own[0], value)
        # A loop, because unrolled the code to compile would be as many times as long.
        outputs = self.function.outputs[len(self.assigned) :]
        state = [value[i] for i in self.assigned]
        state += [tf.zeros(tensor.shape, tensor.dtype) for tensor in outputs]

        def body(i, *state):
            after, results = once(own[i], {**value, **dict(zip(self.assigned, state))})
            return (i + 1, *[after[k] for k in self.assigned], *results)

        _, *state = tf.while_loop(lambda i, *_: i < n, body, (0, *state), maximum_iterations=n)
        results = state[len(self.assigned) :]
        return {**value, **dict(zip(self.assigned, state))}, list(results)


def _meaning(function):
    """What a traced function computes, as text that leaves out how its operations are named."""
    graph = function.graph.as_graph_def()
    number = {node.name: str(i) for i, node in enumerate(graph.node)}

    def numbered(tensor):
        name, _, output = tensor.removeprefix("^").partition(":")
        return f"{'^' * tensor.startswith('^')}{number[name]}:{output or 0}"

    for node in graph.node:
        node.name = number[node.name]
        node.input[:] = map(numbered, node.input)
        for name in ("_class", "_gradient_op_type"):  # where it runs, how it is differentiated
            node.attr.pop(name, None)
        node.ClearField("experimental_debug_info")
    ends = [numbered(tensor.name) for tensor in (*function.inputs, *function.outputs)]
    return graph.SerializeToString(deterministic=True), ends


def _plainly(function):
    """As private.caller(), on public API only."""
    return lambda tensors: [t for t in tf.nest.flatten(function(*tensors)) if t is not None]


def _tensor(result):
    return result if result is None else tf.convert_to_tensor(result)


def _join(tensors):
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _split(vector, like):
    """The pieces of a flat vector, in the shapes of the variables or tensors `like`."""
    pieces = tf.split(vector, [item.shape.num_elements() for item in like])
    return [tf.reshape(piece, item.shape) for piece, item in zip(pieces, like, strict=True)]
