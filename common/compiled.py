"""One compiled call where eager TensorFlow makes hundreds.

An update written with GradientTape, apply_gradients and assign runs operation
by operation from Python: hundreds of calls, each far longer than its
arithmetic. Inside `tf.function(jit_compile=True)` it is one call, but that call
still pays for every tf.Variable it touches, and TD3 has 86 (weights, targets,
Adam's slots). `Compiler` therefore goes one step further:

1. trace the function as TensorFlow always does, reads and assignments included;
2. replay the traced graph with each variable replaced by a slice of one flat
   vector and each assignment by the slice's new value;
3. let XLA compile the replayed graph: vector in, vector out, no variables.

The traced lines are the lines a reader sees; nothing is written twice. While
the vector is ahead of the variables, touching any of them (reading, assigning,
calling a network that holds it) first writes the vector back, and the next
compiled call packs them again: nobody ever sees old values.
"""

import contextlib

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context  # call_function: 20 us, the public call takes 90

from common.errors import UserError
from common.networks import variables_of

_tracing = None  # the program being traced: standard_normal() asks it for an input


def standard_normal(generator, shape):
    """Noise from N(0, 1), float32, that one seed fixes.

    XLA ignores tf.random.set_seed, so under it the chapter's
    `Normal(0, 1).sample(shape)` would never repeat. Here the numbers come from a
    NumPy generator at each call of the function, compiled or not, in one order.

    Args:
        generator: np.random.Generator that draws the numbers.
        shape: of the noise, fully known.
    """
    shape = [int(n) for n in shape]
    if _tracing is not None:
        return _tracing.noise_input(generator, shape)
    return tf.constant(generator.standard_normal(shape, dtype=np.float32))


class Compiler:
    """Compiles functions over the variables of one agent.

    Args:
        agent: its networks, optimizers and variables are looked up among its
            attributes when a function is first called.
        eager: run the functions as they are, so that breakpoints and prints work.
    """

    def __init__(self, agent, eager=False):
        self.agent = agent
        self.eager = eager
        self._variables = None
        self._vectors = None  # the variables' values by dtype, while these are the newer ones
        self._hands_off = False  # while tracing or copying, variables are used as they are

    def function(self, fn, announce=None):
        """Compile fn, for each kind of arguments it is called with.

        NumPy arrays and Python floats reach fn as float32 tensors and may change
        from call to call. Anything else (int, bool, str, None) is a constant of
        the compiled code; a new value compiles anew.

        Args:
            fn: takes and returns tensors; may read and assign variables of the agent.
            announce: a line to print before the first compilation.

        Returns:
            A function with fn's arguments that returns fn's tensors.
        """
        return _Function(self, fn, announce)

    @property
    def variables(self):
        """Every tf.Variable of the agent, in a fixed order."""
        if self._variables is None:
            self._variables = variables_of(self.agent)
            for variable in self._variables:
                _write_back_first(variable, self)
        return self._variables

    def groups(self):
        """The variables by dtype: those of one group share a vector."""
        groups = {}
        for variable in self.variables:
            groups.setdefault(variable.dtype, []).append(variable)
        return list(groups.values())

    def pack(self):
        """The values of all variables, as one vector for each group."""
        if self._vectors is None:
            with self.hands_off():
                self._vectors = [_join(group) for group in self.groups()]
        return self._vectors

    def unpack(self):
        """Write the vectors back; from here on the variables count."""
        if self._vectors is None or self._hands_off:
            return
        with self.hands_off():
            for vector, group in zip(self._vectors, self.groups(), strict=True):
                for variable, value in zip(group, _split(vector, group), strict=True):
                    variable.assign(value)
            self._vectors = None

    def all_finite(self):
        """Whether no weight, target or optimizer slot is NaN or infinite."""
        with self.hands_off():
            vectors = self._vectors or [_join(group) for group in self.groups()]
        return all(np.isfinite(vector.numpy()).all() for vector in vectors)

    @contextlib.contextmanager
    def hands_off(self):
        """Within this block, touching a variable writes nothing back."""
        before, self._hands_off = self._hands_off, True
        try:
            yield
        finally:
            self._hands_off = before


class _Function:
    """A function and its compiled programs, one for each kind of arguments."""

    def __init__(self, compiler, fn, announce):
        self.compiler, self.fn, self.announce = compiler, fn, announce
        self.programs = {}

    def __call__(self, *args):
        if self.compiler.eager:
            return self.fn(*(tf.constant(a) if isinstance(a, np.ndarray) else a for a in args))
        kind = tuple(
            a.shape if isinstance(a, np.ndarray) else float if isinstance(a, float) else a
            for a in args
        )
        program = self.programs.get(kind)
        if program is None:
            if self.announce and not self.programs:
                print(self.announce, flush=True)
            program = self.programs[kind] = _Program(self.compiler, self.fn, args)
        return program(args)


class _Program:
    """A function traced, replayed without variables and compiled by XLA.

    All its inputs but the vectors (arguments, then noise) travel in one float32
    vector, because each further tensor costs as much as a small matrix product.
    """

    def __init__(self, compiler, fn, args):
        self.compiler = compiler
        self.fed = [i for i, a in enumerate(args) if isinstance(a, (np.ndarray, float))]
        self.noise = []  # (generator, placeholder), in the order of the draws
        graph = self._trace(fn, args)
        self.results = graph.structured_outputs
        placeholders = graph.inputs[: len(self.fed)] + [p for _, p in self.noise]
        self._compile(graph, placeholders)

        sizes = [p.shape.num_elements() for p in placeholders]
        self.inputs = np.empty(sum(sizes), np.float32)
        slots = np.split(self.inputs, np.cumsum(sizes)[:-1])
        self.argument_slots = list(zip(self.fed, slots, strict=False))
        self.noise_slots = [
            (generator, slot)
            for (generator, _), slot in zip(self.noise, slots[len(self.fed) :], strict=True)
        ]

    def __call__(self, args):
        for i, slot in self.argument_slots:
            slot[:] = args[i].ravel() if isinstance(args[i], np.ndarray) else args[i]
        for generator, slot in self.noise_slots:
            generator.standard_normal(dtype=np.float32, out=slot)
        vectors = self.compiler.pack()
        outputs = context.context().call_function(
            self.compiled.name, [*vectors, tf.constant(self.inputs)], self.n_outputs
        )
        if self.assigns:
            self.compiler._vectors = outputs[: len(vectors)]
            outputs = outputs[len(vectors) :]
        return tf.nest.pack_sequence_as(self.results, outputs)

    def noise_input(self, generator, shape):
        placeholder = tf.raw_ops.Placeholder(dtype=tf.float32, shape=shape)
        self.noise.append((generator, placeholder))
        return placeholder

    def _trace(self, fn, args):
        """The graph of fn, as TensorFlow traces it, with variables."""

        def traced(*tensors):
            given = dict(zip(self.fed, tensors, strict=True))
            return fn(*(given.get(i, a) for i, a in enumerate(args)))

        global _tracing
        _tracing = self
        try:
            with self.compiler.hands_off():
                specs = [tf.TensorSpec(np.shape(args[i]), tf.float32) for i in self.fed]
                return tf.function(traced, autograph=False).get_concrete_function(*specs).graph
        finally:
            _tracing = None

    def _compile(self, graph, placeholders):
        groups = self.compiler.groups()
        with self.compiler.hands_off():
            by_handle = {id(variable.handle): variable for variable in self.compiler.variables}
        captured, constants = {}, {}
        for outside, inside in graph.captures:
            if outside.dtype != tf.resource:
                constants[inside.name] = outside
            elif id(outside) in by_handle:
                captured[inside.op.name] = by_handle[id(outside)]
            else:
                raise UserError(
                    f"a compiled function of {type(self.compiler.agent).__name__} uses a variable "
                    "that is no attribute of the agent, nor of its networks or optimizers: "
                    "store it there, or run with --eager"
                )
        graph_def, final = _without_variables(graph, captured)
        assigned = {id(captured[h]): name for h, name in final.items() if name != h}
        self.assigns = bool(assigned)
        used = {_full(name) for node in graph_def.node for name in node.input}
        wanted = [_full(n) for n in assigned.values()]
        wanted += [t.name for t in tf.nest.flatten(self.results)]

        def replayed(*tensors):
            *vectors, inputs = tensors
            value = {}
            for vector, group in zip(vectors, groups, strict=True):
                value.update(zip(map(id, group), _split(vector, group), strict=True))
            known = dict(constants)
            known.update({_full(handle): value[id(v)] for handle, v in captured.items()})
            pieces = _split(inputs, placeholders)
            known.update({p.name: piece for p, piece in zip(placeholders, pieces, strict=True)})
            computed = [name for name in wanted if name not in known]
            found = tf.graph_util.import_graph_def(
                graph_def,
                input_map={name: tensor for name, tensor in known.items() if name in used},
                return_elements=computed,
                name="",
            )
            known.update(zip(computed, found, strict=True))
            outputs = [known[name] for name in wanted]
            if assigned:
                value.update(zip(assigned, outputs, strict=False))
                vectors = [_join([value[id(v)] for v in group]) for group in groups]
                outputs = vectors + outputs[len(assigned) :]
            return outputs

        sizes = [sum(v.shape.num_elements() for v in group) for group in groups]
        specs = [tf.TensorSpec([n], g[0].dtype) for n, g in zip(sizes, groups, strict=True)]
        specs.append(tf.TensorSpec([sum(p.shape.num_elements() for p in placeholders)], tf.float32))
        compiled = tf.function(replayed, jit_compile=True, autograph=False)
        self.compiled = compiled.get_concrete_function(*specs)
        self.n_outputs = len(self.compiled.structured_outputs)


def _without_variables(graph, captured):
    """Turn a graph's reads and assignments of variables into plain data flow.

    Operations are visited in program order, so that a read sees the value of the
    last assignment before it.

    Args:
        graph: FuncGraph.
        captured: dict from the name of a handle's placeholder to its variable.

    Returns:
        (GraphDef, dict from handle name to the name of its final value)
    """
    graph_def = graph.as_graph_def()
    nodes = {node.name: node for node in graph_def.node}
    latest = {handle: handle for handle in captured}
    alias = {}
    del graph_def.node[:]
    for op in graph.get_operations():
        node = nodes[op.name]
        inputs = [alias.get(name, name) for name in node.input if not name.startswith("^")]
        if op.type == "Placeholder":
            continue
        if op.type == "ReadVariableOp":
            alias[op.name] = latest[inputs[0]]
            continue
        if op.type == "AssignVariableOp":
            latest[inputs[0]] = inputs[1]
            continue
        if op.type in ("AssignAddVariableOp", "AssignSubVariableOp"):
            node.op = "AddV2" if op.type == "AssignAddVariableOp" else "Sub"
            node.attr["T"].type = node.attr["dtype"].type
            del node.attr["dtype"]
            handle, inputs[0] = inputs[0], latest[inputs[0]]
            latest[handle] = op.name
        elif any(tensor.dtype == tf.resource for tensor in op.inputs):
            raise UserError(
                f"a compiled function cannot use {op.type} on a variable: write the choice as "
                "Python's if on a constant, or run with --eager"
            )
        node.input[:] = inputs
        graph_def.node.append(node)
    return graph_def, latest


def _write_back_first(variable, compiler):
    """From now on, any access to the variable's storage calls compiler.unpack() first.

    Everything TensorFlow does with a variable, in Python and in C++, goes through
    its attribute `_handle`.
    """

    class Variable(type(variable)):
        @property
        def _handle(self):
            compiler.unpack()
            return self.__dict__["_handle"]

        @_handle.setter
        def _handle(self, handle):
            self.__dict__["_handle"] = handle

    variable.__class__ = Variable


def _join(tensors):
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _split(vector, like):
    """The pieces of a flat vector, in the shapes of the variables or tensors `like`."""
    if not like:
        return []
    pieces = tf.split(vector, [item.shape.num_elements() for item in like])
    return [tf.reshape(piece, item.shape) for piece, item in zip(pieces, like, strict=True)]


def _full(name):
    """A tensor's full name: NodeDef leaves out the `:0` of a first output."""
    return name if ":" in name else f"{name}:0"
