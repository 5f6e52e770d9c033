"""The fast engine: a traced function, replayed on a few flat vectors instead of its variables.

A compiled function pays for every tf.Variable it touches, and TD3 has 86 (weights, targets,
Adam's slots). Therefore:

1. the function is traced as TensorFlow always does, reads and assignments included;
2. the traced graph is replayed with each variable replaced by a slice of one flat vector and each
   assignment by the slice's new value (large variables are vectors of their own: copying them
   would cost more than an argument);
3. XLA compiles the replayed graph: vectors in, vectors out, no variables.

While the vectors are ahead of the variables, touching any of them (reading, assigning, calling
a network that holds it) first writes the vectors back, and the next compiled call packs them
again: nobody sees old values.
"""

import contextlib
import itertools

import tensorflow as tf

from common import private
from common.plain import Feed, Inputs, kind_of

ON_CPU = not tf.config.list_physical_devices("GPU")
LARGE = 16384  # elements; from here on, a variable is a vector of its own


class Vectors:
    """The variables of one agent, and their values as flat vectors while these are the newer."""

    def __init__(self):
        self.variables, self.groups = {}, []
        self.vectors = None
        self._hands_off = False  # while tracing or copying, variables are used as they are

    def hold(self, variables):
        """Stand for these variables, a dict from their names, from now on."""
        if self.variables is variables:
            return
        self.unpack()
        groups = {}  # by dtype, large ones apart: those of one group share a vector
        for variable in variables.values():
            private.unpack_first(variable, self)
            large = variable.shape.num_elements() >= LARGE
            groups.setdefault(id(variable) if large else variable.dtype, []).append(variable)
        self.variables, self.groups = variables, list(groups.values())

    def pack(self):
        """The values of all variables, as one vector for each group."""
        if self.vectors is None:
            with self.hands_off(), tf.init_scope():
                self.vectors = [_join(group) for group in self.groups]
        return self.vectors

    def unpack(self):
        """Write the vectors back; from here on the variables count."""
        if self.vectors is None or self._hands_off:
            return
        with self.hands_off(), tf.init_scope():  # not into a graph that is being traced
            for vector, group in zip(self.vectors, self.groups, strict=True):
                for variable, value in zip(group, _split(vector, group), strict=True):
                    variable.assign(value)
            self.vectors = None

    @contextlib.contextmanager
    def hands_off(self):
        """Within this block, touching a variable writes nothing back."""
        before, self._hands_off = self._hands_off, True
        try:
            yield
        finally:
            self._hands_off = before


class FlatProgram:
    """fn(item, kind, *rest) for each item and kind in turn, compiled as one function.

    Its inputs are the vectors and one more: first the numbers that all steps share, then for
    each step its item and its noise.
    """

    def __init__(self, vectors, fn, rest, items, kinds):
        self.vectors = vectors
        traced, self.steps = {}, []
        for item, kind in zip(items, kinds):
            key = kind_of((item, kind), [])
            if key not in traced:
                traced[key] = _Step(vectors, fn, item, kind, rest)
            self.steps.append(traced[key])
        self.results = self.steps[-1].function.structured_outputs
        self.single = isinstance(self.results, tf.Tensor)
        shared = self.steps[-1].shared
        pieces, size = list(shared.pieces), shared.size
        for step in self.steps:
            pieces += [(size + start, *piece) for start, *piece in step.own.pieces]
            size += step.own.size
        array, self.tensor = private.shared_memory(size)
        self.inputs = Inputs(array, pieces)

        groups = vectors.groups
        assigned = {i for step in traced.values() for i in step.assigned}
        used = assigned | {id(v) for step in traced.values() for v in step.handles.values()}
        self.taken = [k for k, group in enumerate(groups) if used & set(map(id, group))]
        self.given = [k for k in self.taken if assigned & set(map(id, groups[k]))]
        self.function = self._compiled(shared.size, size)
        self.call = private.caller(self.function)

    def __call__(self, fed):
        """The results of the last, as NumPy arrays.

        Args:
            fed: the numbers among (rest, items), as kind_of() lists them.
        """
        self.inputs.fill(fed)
        vectors = self.vectors.pack()
        inputs = self.tensor if ON_CPU else tf.constant(self.inputs.array)
        outputs = self.call([*[vectors[k] for k in self.taken], inputs])
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

    def _compiled(self, begin, size):
        groups = self.vectors.groups
        taken, given = [groups[k] for k in self.taken], [groups[k] for k in self.given]

        def program(*tensors):
            *vectors, inputs = tensors
            value = {}  # by a variable's id
            for vector, group in zip(vectors, taken, strict=True):
                value.update(zip(map(id, group), _split(vector, group), strict=True))
            start = begin
            for step, run in itertools.groupby(self.steps):
                count = len(list(run))
                end = start + count * step.own.size
                own = tf.reshape(inputs[start:end], [count, step.own.size])
                value, outputs = step.replay(value, inputs[:begin], own)
                start = end
            return [_join([value[id(v)] for v in group]) for group in given] + outputs

        sizes = [sum(v.shape.num_elements() for v in group) for group in taken]
        specs = [tf.TensorSpec([n], g[0].dtype) for n, g in zip(sizes, taken, strict=True)]
        compiled = tf.function(program, jit_compile=True, autograph=False)
        return compiled.get_concrete_function(*specs, tf.TensorSpec([size], tf.float32))


class _Step:
    """fn(item, kind, *rest), traced and rid of its variables."""

    def __init__(self, vectors, fn, item, kind, rest):
        def traced(own, shared):
            self.own, self.shared = Feed(own), Feed(shared)
            return self.own.run(fn, self.own.give(item), kind, *self.shared.give(rest))

        spec = tf.TensorSpec([None], tf.float32)  # what noise is asked for, tracing finds out
        with vectors.hands_off():
            self.function = tf.function(traced, autograph=False).get_concrete_function(spec, spec)
            self.graph_def, self.handles, final, self.constants = private.without_variables(
                self.function, vectors.variables.values()
            )
        self.inputs = [tensor.name for tensor in self.function.inputs[:2]]
        self.assigned = {
            id(self.handles[handle]): _full(name)
            for handle, name in final.items()
            if name != handle
        }
        self.outputs = [tensor.name for tensor in self.function.outputs]
        self.used = {_full(name) for node in self.graph_def.node for name in node.input}

    def replay(self, value, shared, own):
        """Do the step len(own) times, in the function being compiled.

        Args:
            value: dict from a variable's id to its value.
            shared: the numbers that all repetitions share.
            own: (repetitions, size) those of each.

        Returns:
            (new value, list of what the last repetition returned)
        """
        if own.shape[0] == 1:
            return self._replay_once(value, shared, own[0])
        # A loop, because unrolled the code to compile would be as many times as long.
        zeros = [tf.zeros(tensor.shape, tensor.dtype) for tensor in self.function.outputs]
        state = [value[i] for i in self.assigned] + zeros

        def body(i, *state):
            before = {**value, **dict(zip(self.assigned, state))}
            after, outputs = self._replay_once(before, shared, own[i])
            return (i + 1, *(after[i] for i in self.assigned), *outputs)

        n = own.shape[0]
        _, *state = tf.while_loop(lambda i, *_: i < n, body, (0, *state), maximum_iterations=n)
        outputs = state[len(self.assigned) :]
        return {**value, **dict(zip(self.assigned, state))}, list(outputs)

    def _replay_once(self, value, shared, own):
        known = {_full(handle): value[id(v)] for handle, v in self.handles.items()}
        known.update(self.constants)
        known.update(zip(self.inputs, (own, shared)))
        wanted = [*self.assigned.values(), *self.outputs]
        computed = [name for name in wanted if name not in known]
        found = tf.graph_util.import_graph_def(
            self.graph_def,
            # identity: what comes from outside a loop's body has to be brought in by an operation
            input_map={name: tf.identity(t) for name, t in known.items() if name in self.used},
            return_elements=computed,
            name="",
        )
        known.update(zip(computed, found, strict=True))
        after = {**value, **{i: known[name] for i, name in self.assigned.items()}}
        return after, [known[name] for name in self.outputs]


def _join(tensors):
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _split(vector, like):
    """The pieces of a flat vector, in the shapes of the variables or tensors `like`."""
    pieces = tf.split(vector, [item.shape.num_elements() for item in like])
    return [tf.reshape(piece, item.shape) for piece, item in zip(pieces, like, strict=True)]


def _full(name):
    """A tensor's full name: NodeDef leaves out the `:0` of a first output."""
    return name if ":" in name else f"{name}:0"
