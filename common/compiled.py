"""One compiled call where eager TensorFlow makes hundreds.

An update written with GradientTape, apply_gradients and assign runs operation
by operation from Python: hundreds of calls, each far longer than its
arithmetic. Inside `tf.function(jit_compile=True)` it is one call, but that call
still pays for every tf.Variable it touches, and TD3 has 86 (weights, targets,
Adam's slots). `Compiler` therefore goes one step further:

1. trace the function as TensorFlow always does, reads and assignments included;
2. replay the traced graph with each variable replaced by a slice of one flat
   vector and each assignment by the slice's new value (large variables are
   vectors of their own: copying them would cost more than an argument);
3. let XLA compile the replayed graph: vectors in, vectors out, no variables.

The traced lines are the lines a reader sees; nothing is written twice. While
the vectors are ahead of the variables, touching any of them (reading, assigning,
calling a network that holds it) first writes the vectors back, and the next
compiled call packs them again: nobody sees old values. The one exception is a
tf.function of your own that reads the variables: it holds them from its tracing
on, unnoticed, so call `agent.compiler.unpack()` before you call it.

A compiled function has the agent's networks, optimizers and options built in. So each call
first looks whether they are still the same objects, and compiles anew if they are not.
"""

import contextlib
import itertools

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context  # call_function: 20 us, the public call takes 90
from tensorlayer.models import Model
from tqdm import tqdm

from common.errors import UserError
from common.networks import parts_of, refresh, variables_of

# On a CPU a call is over when it returns, so the next may write where this one's input was.
ON_CPU = not tf.config.list_physical_devices("GPU")

LARGE = 16384  # elements; from here on, a variable is a vector of its own

_tracing = None  # the step being traced: standard_normal() asks it for an input


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
        agent: its networks, optimizers, variables and options are looked up among its
            attributes when a function is first called, and when one has been replaced.
        eager: run the functions as they are, so that breakpoints and prints work.
        join: called before each such look, to join new parts with the old ones.
        numbers: names of the numbers among the agent's options; other numbers of it are state.
    """

    def __init__(self, agent, eager=False, join=lambda: None, numbers=()):
        self.agent = agent
        self.eager = eager
        self.join = join
        self.numbers = numbers
        self.programs = {}  # by function and kind of arguments, for the present options
        self._parts = [({}, "none yet", None)]  # (namespace, name, value) of each
        self._programs = {}  # by options
        self._variables = None
        self._vectors = None  # the variables' values by group, while these are the newer ones
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

    def repeated(self, fn, announce=None):
        """Compile the repetition of fn, one call for several updates.

        The returned function takes (items, kinds, *rest) and calls
        fn(items[i], kinds[i], *rest) for each i in turn; it returns what the last of
        them returns. Arguments are treated as by function().

        Args:
            fn: as for function().
            announce: a line to print before the first compilation.

        Returns:
            A function of an array, a tuple of as many constants, and the rest.
        """
        return _Function(self, fn, announce, repeated=True)

    def check(self):
        """Look whether the agent is still made of the same parts; if not, start anew with these.

        It takes 2 to 3 us where nothing has changed. A changed option keeps what was compiled
        for the old one, a replaced object does not.
        """
        try:
            for namespace, name, value in self._parts:
                if namespace[name] is not value:
                    break
            else:
                return
        except KeyError:
            pass
        self.unpack()
        for value in vars(self.agent).values():
            if isinstance(value, Model):
                refresh(value)
        self.join()
        before, self._parts = self._parts, list(parts_of(self.agent, self.numbers))
        objects, options = _objects_and_options(self._parts)
        if objects != _objects_and_options(before)[0]:
            self._variables = None
            self._programs.clear()
        self.programs = self._programs.setdefault(options, {})

    @property
    def variables(self):
        """Every tf.Variable of the agent, in a fixed order."""
        if self._variables is None:
            self._variables = variables_of(self.agent)
            for variable in self._variables:
                if self not in (vars(kind).get("compiler") for kind in type(variable).__mro__):
                    _write_back_first(variable, self)
        return self._variables

    def groups(self):
        """The variables by dtype, large ones apart: those of one group share a vector."""
        groups = {}
        for variable in self.variables:
            large = variable.shape.num_elements() >= LARGE
            groups.setdefault(id(variable) if large else variable.dtype, []).append(variable)
        return list(groups.values())

    def pack(self):
        """The values of all variables, as one vector for each group."""
        self.check()
        return self._pack()

    def _pack(self):
        if self._vectors is None:
            with self.hands_off(), tf.init_scope():
                self._vectors = [_join(group) for group in self.groups()]
        return self._vectors

    def unpack(self):
        """Write the vectors back; from here on the variables count."""
        if self._vectors is None or self._hands_off:
            return
        with self.hands_off(), tf.init_scope():  # not into a graph that is being traced
            for vector, group in zip(self._vectors, self.groups(), strict=True):
                for variable, value in zip(group, _split(vector, group), strict=True):
                    variable.assign(value)
            self._vectors = None

    def unpack_from(self, vectors):
        """Give the variables new values, laid out as pack() gives them."""
        self._vectors = [tf.constant(vector) for vector in vectors]
        self.unpack()

    def all_finite(self):
        """Whether no weight, target or optimizer slot is NaN or infinite."""
        self.check()
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

    def __init__(self, compiler, fn, announce, repeated=False):
        self.compiler, self.fn, self.announce, self.repeated = compiler, fn, announce, repeated

    def __call__(self, *args):
        if self.repeated and len(args[0]) != len(args[1]):
            raise ValueError(f"{len(args[0])} items, but {len(args[1])} kinds")
        self.compiler.check()
        if self.compiler.eager:
            return self._run_eagerly(args)
        kind = (self, *map(_kind, args))
        program = self.compiler.programs.get(kind)
        if program is None:
            if self.announce:
                with tqdm.external_write_mode():  # not into a progress bar
                    print(self.announce, flush=True)
                self.announce = None
            program = _Program(self.compiler, self.fn, args, self.repeated)
            self.compiler.programs[kind] = program
        return program(args)

    def _run_eagerly(self, args):
        args = [tf.constant(a, tf.float32) if isinstance(a, np.ndarray) else a for a in args]
        if not self.repeated:
            return self.fn(*args)
        items, kinds, *rest = args
        for item, kind in zip(tf.unstack(items), kinds):
            results = self.fn(item, kind, *rest)
        return results


def _objects_and_options(parts):
    """Of what parts_of() gives: the ids of objects, and (name, type, value) of plain values."""
    plain = bool, int, float, str, np.generic
    objects = [(name, id(value)) for _, name, value in parts if not isinstance(value, plain)]
    options = [(name, type(v), v) for _, name, v in parts if isinstance(v, plain)]
    return objects, tuple(options)


def cannot_be_copied(agent):
    """For an agent's __reduce__: copy and pickle would miss what is compiled and packed."""
    name = type(agent).__name__
    raise TypeError(
        f"a {name} cannot be copied or pickled: make a new {name} with the same arguments, then "
        "agent.save(path) and new.load(path) bring it the weights"
    )


def joined(optimizer, weights):
    """The optimizer with slots for these weights; a new one like it if its slots are of others."""
    if optimizer.built:
        known = {id(weight) for weight in optimizer._trainable_variables}
        if not all(id(weight) in known for weight in weights):
            optimizer = type(optimizer).from_config(optimizer.get_config())
    if not optimizer.built:
        optimizer.build(weights)
    return optimizer


def _kind(argument):
    """What an argument contributes to the choice of a program."""
    if isinstance(argument, np.ndarray):
        return argument.shape
    if isinstance(argument, float):
        return float
    if isinstance(argument, tuple):
        return tuple(_kind(a) for a in argument)
    return type(argument), argument  # with its type, because True == 1


class _Program:
    """Steps replayed one after the other on the same values, compiled as one function.

    All its inputs but the variables' vectors travel in one float32 vector, because
    each further tensor costs as much as a small matrix product: first the arguments
    that all steps share, then for each step its item and its noise.
    """

    def __init__(self, compiler, fn, args, repeated):
        self.compiler = compiler
        self.repeated = repeated
        self.shared = [i for i, a in enumerate(args) if isinstance(a, (np.ndarray, float))]
        kinds = [None]
        if repeated:
            self.shared.remove(0)
            items, kinds, *rest = args
        steps = {}
        for kind in kinds:
            if _kind(kind) not in steps:
                step_args = [items[0], kind, *rest] if repeated else args
                steps[_kind(kind)] = _Step(compiler, fn, step_args, self.shared, [0] * repeated)
        self.steps = [steps[_kind(kind)] for kind in kinds]
        self.results = self.steps[-1].graph.structured_outputs
        assigned = {i for step in self.steps for i in step.assigned}
        used = assigned | {id(v) for step in self.steps for v in step.captured.values()}
        groups = compiler.groups()
        self.taken = [k for k, group in enumerate(groups) if used & set(map(id, group))]
        self.given = [k for k in self.taken if assigned & set(map(id, groups[k]))]

        shared_sizes = [np.size(args[i]) for i in self.shared]
        sizes = shared_sizes + [n for step in self.steps for n in step.sizes]
        self.array, self.tensor = _shared_memory(sum(sizes))
        slots = np.split(self.array, np.cumsum(sizes)[:-1])
        self.shared_slots = list(zip(self.shared, slots))
        slots = iter(slots[len(shared_sizes) :])
        self.item_slots, self.noise_slots = [], []
        for step in self.steps:
            self.item_slots += [next(slots) for _ in step.own]
            self.noise_slots += [(generator, next(slots)) for generator, _ in step.noise]
        self._compile(sum(shared_sizes), shared_sizes)

    def __call__(self, args):
        for i, slot in self.shared_slots:
            slot[:] = args[i].ravel() if isinstance(args[i], np.ndarray) else args[i]
        for item, slot in zip(args[0] if self.repeated else (), self.item_slots):
            slot[:] = item.ravel()
        for generator, slot in self.noise_slots:
            generator.standard_normal(dtype=np.float32, out=slot)
        vectors = self.compiler._pack()
        inputs = self.tensor if ON_CPU else tf.constant(self.array)
        outputs = context.context().call_function(
            self.compiled.name,
            [*(vectors[k] for k in self.taken), inputs, *self.outside],
            self.n_outputs,
        )
        if self.given:
            self.compiler._vectors = vectors = list(vectors)
            for k, vector in zip(self.given, outputs):
                vectors[k] = vector
            outputs = outputs[len(self.given) :]
        if isinstance(self.results, tf.Tensor):  # the usual case; tf.nest takes its time
            return outputs[0]
        outputs = iter(outputs or [])
        return tf.nest.map_structure(lambda t: None if t is None else next(outputs), self.results)

    def _compile(self, start, shared_sizes):
        groups = self.compiler.groups()
        taken, given = [groups[k] for k in self.taken], [groups[k] for k in self.given]

        def program(*tensors):
            *vectors, inputs = tensors
            value = {}
            for vector, group in zip(vectors, taken, strict=True):
                value.update(zip(map(id, group), _split(vector, group), strict=True))
            shared = tf.split(inputs[:start], shared_sizes) if shared_sizes else []
            begin = start
            for step, run in itertools.groupby(self.steps):
                count = len(list(run))
                end = begin + count * sum(step.sizes)
                own = tf.reshape(inputs[begin:end], [count, sum(step.sizes)])
                value, outputs = step.replay(value, shared, own)
                begin = end
            return [_join([value[id(v)] for v in group]) for group in given] + outputs

        sizes = [sum(v.shape.num_elements() for v in group) for group in taken]
        specs = [tf.TensorSpec([n], g[0].dtype) for n, g in zip(sizes, taken, strict=True)]
        specs.append(tf.TensorSpec([self.array.size], tf.float32))
        compiled = tf.function(program, jit_compile=True, autograph=False)
        self.compiled = compiled.get_concrete_function(*specs)
        self.outside = self.compiled.captured_inputs  # tensors the function uses, not given to it
        self.n_outputs = len(self.compiled.structured_outputs)


class _Step:
    """A function traced with one kind of arguments and rid of its variables.

    Args:
        compiler, fn: as for Compiler.function.
        args: example arguments.
        shared, own: positions of the arguments that are fed: those that are the same at
            each repetition, and those that are not.
    """

    def __init__(self, compiler, fn, args, shared, own):
        self.shared, self.own = shared, own
        self.noise = []  # (generator, placeholder), in the order of the draws
        graph = self.graph = self._trace(compiler, fn, args)
        n = len(own)
        self.own_inputs = graph.inputs[:n] + [placeholder for _, placeholder in self.noise]
        self.shared_inputs = graph.inputs[n : n + len(shared)]
        self.sizes = [tensor.shape.num_elements() for tensor in self.own_inputs]

        with compiler.hands_off():
            by_handle = {id(variable.handle): variable for variable in compiler.variables}
        self.captured, self.constants = {}, {}  # by the name of the tensor inside
        for outside, inside in graph.captures:
            if outside.dtype != tf.resource:
                self.constants[inside.name] = outside
            elif id(outside) in by_handle:
                self.captured[inside.op.name] = by_handle[id(outside)]
            else:
                raise UserError(
                    f"a compiled function of {type(compiler.agent).__name__} uses a variable "
                    "that is no attribute of the agent, nor of its networks or optimizers: "
                    "store it there, or run with --eager"
                )
        self.graph_def, final = _without_variables(graph, self.captured)
        self.assigned = {
            id(self.captured[handle]): _full(name)
            for handle, name in final.items()
            if name != handle
        }
        results = [t for t in tf.nest.flatten(graph.structured_outputs) if t is not None]
        self.outputs = [tensor.name for tensor in results]
        self.used = {_full(name) for node in self.graph_def.node for name in node.input}

    def noise_input(self, generator, shape):
        placeholder = tf.raw_ops.Placeholder(dtype=tf.float32, shape=shape)
        self.noise.append((generator, placeholder))
        return placeholder

    def _trace(self, compiler, fn, args):
        """The graph of fn, as TensorFlow traces it, with variables."""
        fed = [*self.own, *self.shared]

        def traced(*tensors):
            given = dict(zip(fed, tensors, strict=True))
            return fn(*(given.get(i, a) for i, a in enumerate(args)))

        global _tracing
        _tracing = self
        try:
            with compiler.hands_off():
                specs = [tf.TensorSpec(np.shape(args[i]), tf.float32) for i in fed]
                return tf.function(traced, autograph=False).get_concrete_function(*specs).graph
        finally:
            _tracing = None

    def replay(self, value, shared, own):
        """Do the step len(own) times, in the function being compiled.

        Args:
            value: dict from a variable's id to its value.
            shared: flat tensors for the shared inputs.
            own: (repetitions, total size) the other inputs.

        Returns:
            (new value, list of what the last repetition returned)
        """
        if own.shape[0] == 1:
            return self._replay_once(value, shared, own[0])
        # A loop, because unrolled the code to compile would be as many times as long.
        shapes = [self.graph.get_tensor_by_name(name) for name in self.outputs]
        state = [value[i] for i in self.assigned] + [tf.zeros(t.shape, t.dtype) for t in shapes]

        def body(i, *state):
            before = {**value, **dict(zip(self.assigned, state))}
            after, outputs = self._replay_once(before, shared, own[i])
            return (i + 1, *(after[i] for i in self.assigned), *outputs)

        n = own.shape[0]
        _, *state = tf.while_loop(lambda i, *_: i < n, body, (0, *state), maximum_iterations=n)
        outputs = state[len(self.assigned) :]
        return {**value, **dict(zip(self.assigned, state))}, list(outputs)

    def _replay_once(self, value, shared, own):
        known = {_full(handle): value[id(v)] for handle, v in self.captured.items()}
        known.update(self.constants)
        pieces = tf.split(own, self.sizes) if self.sizes else []
        for tensor, piece in zip(
            self.own_inputs + self.shared_inputs, [*pieces, *shared], strict=True
        ):
            known[tensor.name] = tf.reshape(piece, tensor.shape)
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

    owner = compiler

    class Variable(type(variable)):
        compiler = owner

        @property
        def _handle(self):
            owner.unpack()
            return self.__dict__["_handle"]

        @_handle.setter
        def _handle(self, handle):
            self.__dict__["_handle"] = handle

    variable.__class__ = Variable


def _shared_memory(size):
    """A float32 array of a size and a tensor over the same memory.

    Making a new tensor for each call costs more than the call itself.
    """
    alignment = 64  # bytes; TensorFlow would copy from an address that is not a multiple
    raw = np.zeros(size + alignment // 4, np.float32)
    start = -raw.ctypes.data % alignment // 4
    array = raw[start : start + size]
    return array, tf.experimental.dlpack.from_dlpack(array.__dlpack__())


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
