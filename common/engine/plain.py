"""`@compiled`: one call where eager TensorFlow makes hundreds.

An update written with GradientTape, apply_gradients and assign runs operation by operation from
Python, and each operation's call takes far longer than its arithmetic. `@compiled` traces the
method's lines and compiles them with tf.function(jit_compile=True). That is all it does, on public
API only; fast.py runs the same lines on fewer, larger tensors. `--eager`, which is
tf.config.run_functions_eagerly(True), runs them as they stand, with numbers.

XLA ignores tf.random.set_seed. So noise (common/noise.py) is drawn by NumPy at each call, in the
order in which the lines ask for it, compiled or not, and reaches them like any other number: all
numbers of a call travel in one float32 vector, because each tensor costs as much as a small matrix
product.
"""

import contextlib
import functools
import hashlib
import inspect
import io
import re
import threading
import weakref

import numpy as np
import tensorflow as tf

from common.errors import UserError
from common.files.compile_cache import compile_cache

COMPILING = "Compiling the update: this takes a few seconds."
_STATE = (int, float, dict, tf.Tensor)  # an agent's attributes that change without another code
_printing = set()  # methods whose print() a line has told of
LOCK = threading.RLock()  # tracing and calls: one thread of the process at a time


class compiled:
    """Decorator: compile a method of an agent, or of a network that is an attribute of one.

    Arrays, lists of numbers and floats may change from call to call; they arrive as float32
    tensors. Anything else (int, bool, str, None) is built in, and a new value compiles anew. What
    the method returns comes back as NumPy arrays. Called with a tensor first, as in another
    compiled method, it just runs.

    A tensor that is an attribute of the agent may be read and assigned, like a variable; other
    attributes are built in. What is assigned to one counts from the next call on, which compiles
    anew: a number that changes often should be an argument.
    """

    def __init__(self, method):
        functools.update_wrapper(self, method)
        self.method, self.signature = method, inspect.signature(method)
        self.defaults = [p.default for p in self.signature.parameters.values()][1:]
        self.required = self.defaults.count(inspect.Parameter.empty)

    def __set_name__(self, owner, name):
        if not getattr(owner.__setattr__, "notices", False):
            owner.__setattr__ = _noticing(owner.__setattr__)

    def __get__(self, part, owner=None):
        return self if part is None else _Bound(self, part)

    def __call__(self, part, *args, **kwargs):
        return _Bound(self, part)(*args, **kwargs)


class _Bound:
    """A compiled method of one object."""

    def __init__(self, function, part):
        self._function, self._part = function, part

    def __call__(self, *given, **kwargs):
        args = (*given, *self._function.defaults[len(given) :])
        if kwargs or len(given) < self._function.required:  # slower than the usual case
            bound = self._function.signature.bind(self._part, *given, **kwargs)
            bound.apply_defaults()
            args = bound.args[1:]
        if args and type(args[0]) is not np.ndarray and tf.is_tensor(args[0]):  # that takes 10 us
            return self._function.method(self._part, *args)
        return self._run([()], args)

    def for_each(self, items, *rest):
        """Several calls in one: method(*item, *rest) for each item, a tuple, in turn.

        Returns what the last of them returns.
        """
        return self._run(items, rest, COMPILING)

    def _run(self, items, rest, what=None):
        method, part = self._function.method, self._part
        if tf.config.functions_run_eagerly():
            return _eagerly(method, part, items, rest)
        numbers = []
        kinds = _kind(rest, numbers), tuple([_kind(item, numbers) for item in items])
        with LOCK:
            programs = vars(_root(part)).setdefault("_programs", Programs())
            key = method, id(part), kinds
            program = programs.get(key)
            changed = program and program.changed()
            if changed:
                print(f"{method.__qualname__} reads self.{changed}, which has changed, so it is "
                      "compiled again: make it an argument if it changes often.", flush=True)
            if program is None or changed:
                program = programs[key] = _compile(programs, part, method, kinds)
                with compile_cache.compiling(program.identity) as kept:  # by the first call
                    if what and not kept and not programs.announced:
                        print(what, flush=True)
                        programs.announced = True
                    try:
                        return program(numbers)
                    except tf.errors.InvalidArgumentError as error:
                        del programs[key]
                        raise _what_xla_lacks(method, error) from error
            return program(numbers)


class Programs(dict):
    """What is compiled of one agent, by method, object and kinds of arguments."""

    announced = False
    plain = False  # whether fast.py has met what it cannot do
    vectors = ()  # fast.py's

    def forget(self):
        """Forget what is compiled; variables have their values again."""
        for vector in self.vectors:
            vector.unpack()
        self.vectors = ()
        self.clear()

    def __reduce__(self):
        """A copy would share the compiled code, which has the agent's variables built in."""
        raise TypeError(
            "an agent that has learned cannot be copied or pickled: make a new one with the same "
            "arguments, then agent.save(path) and new.load(path) bring it the weights"
        )


def _what_xla_lacks(method, error):
    """A UserError for an operation that XLA cannot compile, else the error itself."""
    found = re.search(r"Detected unsupported operations .*? on \w+: (\w+)", str(error))
    if not found:
        return error
    why = ", which enable_check_numerics() asks for" if "NumericSummary" in found[1] else ""
    return UserError(f"{method.__qualname__} cannot be compiled: XLA has no {found[1]}{why}. "
                     "Without it, or with --eager, tf.config.run_functions_eagerly(True), its "
                     "lines run.")


def _compile(programs, part, method, kinds):
    with tf.init_scope():
        if not tf.executing_eagerly():
            raise UserError("the agents need TensorFlow 2: leave out disable_eager_execution() and "
                            "disable_v2_behavior()")
    if tf.distribute.has_strategy():
        raise UserError("an agent runs on one device: make and use it outside of strategy.scope()")
    from common.engine import fast  # the choice of the engine: without these lines, it is this one

    if fast.usable(programs):
        try:
            return fast.Program(_root(part), programs, part, method, kinds)
        except fast.NotFlat as reason:
            programs.forget()
            programs.plain = True
            print(f"A plain tf.function runs {method.__qualname__}, slower: {reason}.", flush=True)
    return Program(part, method, kinds)


class Program:
    """A method compiled for kinds of arguments: a function of their numbers.

    Args:
        part: the object.
        method: function of it and its arguments.
        kinds: of the arguments that all items share, and of each item's own.
    """

    def __init__(self, part, method, kinds):
        self.part, self.method = part, method
        self.rest, self.items = kinds
        self.read = {}  # the numbers among the attributes that the lines have read
        self.held = [name for name, value in vars(part).items() if isinstance(value, tf.Tensor)]
        self.size = size(self.rest) + sum(map(size, self.items))
        self.function = self._compile()
        self.array = self._memory(self.size + self.noise)
        self.slots, start = [], 0
        for kind in (self.rest, *self.items):
            end = start + size(kind)
            self.slots += _pieces(self.array[start:end], kind, np.reshape)
            start = end

    def _memory(self, size):
        """The array in which the numbers of a call travel."""
        return np.zeros(size, np.float32)

    def _compile(self):
        function = tf.function(self._body, jit_compile=True, autograph=False)
        vector = tf.TensorSpec([None], tf.float32)  # what noise is asked for, tracing finds out
        return self._identified(function.get_concrete_function(vector, *self.tensors()))

    def _identified(self, function):
        """The concrete function; `identity` names what XLA will make of it, for the cache."""
        graph = function.graph.as_graph_def().SerializeToString(deterministic=True)
        self.identity = hashlib.sha256(function.name + graph).hexdigest()[:20]
        return function

    def tensors(self):
        """The tensors that are attributes of the object; a number may have taken their place."""
        return [tf.convert_to_tensor(vars(self.part)[name], tf.float32) for name in self.held]

    def _body(self, vector, *tensors):
        feed = Feed(vector[: self.size], vector[self.size :])
        results = self.lines(feed, self.items, tensors)
        self.noise = feed.noise_size
        return results

    def lines(self, feed, items, tensors):
        """Run the method's lines for each item: what the last returns, the held tensors after it.

        While they run, `tensors` stand for those that are attributes.
        """
        attributes = vars(self.part)
        before = dict(attributes)
        attributes.update(zip(self.held, tensors))
        _thread.feed = feed

        def __getattribute__(part, name):  # notes which numbers are read, since they are built in
            value = super(type(part), part).__getattribute__(name)
            mine = part is self.part and tracing() is feed  # another thread may read, too
            if mine and type(value) in (int, float) and name not in self.held:
                self.read[name] = value
            return value

        type(self.part).__getattribute__ = __getattribute__
        try:
            rest = feed.given(self.rest)
            with contextlib.redirect_stdout(io.StringIO()) as said:
                for item in items:
                    results = self.method(self.part, *feed.given(item), *rest)
            print(said.getvalue(), end="", flush=True)
            if said.getvalue() and self.method not in _printing:
                _printing.add(self.method)
                print(f"print() in {self.method.__qualname__} runs only while it is compiled: "
                      "--eager runs it each time, with numbers.", flush=True)
            for name in attributes.keys() - set(self.held):
                if isinstance(attributes[name], tf.Tensor):
                    raise TypeError(f"{name} is assigned a tensor, so make it one before the call")
            after = [tf.convert_to_tensor(attributes[name], tf.float32) for name in self.held]
            return tf.nest.map_structure(_tensor, results), after
        except Exception as error:
            worded = len(error.args) == 1 and isinstance(error.args[0], str)
            if worded and not isinstance(error, NameError):  # a slip of the pen
                where = self.method.__qualname__
                error.args = (f"{error}\n{where} is being compiled: here, tensors have no values "
                              "yet, and only TensorFlow's functions take them. --eager runs its "
                              "lines one by one, with numbers.",)
            raise
        finally:
            del type(self.part).__getattribute__
            _thread.feed = None
            attributes.update(before)

    def changed(self):
        """The name of a number that the lines have read and that is another now, or None."""
        return next((name for name, value in self.read.items()
                     if getattr(self.part, name) != value), None)

    def fill(self, numbers):
        """Write the numbers of a call into the array, and noise behind them."""
        for slot, number in zip(self.slots, numbers):
            slot[...] = number
        if self.noise:
            self.array[self.size :] = np.random.standard_normal(self.noise)

    def __call__(self, numbers):
        self.fill(numbers)
        results, after = self.function(tf.constant(self.array), *self.tensors())
        vars(self.part).update(zip(self.held, after))
        return tf.nest.map_structure(_array, results)


class Feed:
    """Hands lines that are being traced their numbers: pieces of a vector, and of one of noise."""

    def __init__(self, numbers, noise):
        self.numbers, self.noise = numbers, noise
        self.size = self.noise_size = 0

    def given(self, kind):
        """The argument of a kind, with a tensor for each of its numbers."""
        start, self.size = self.size, self.size + size(kind)
        return _filled(kind, iter(_pieces(self.numbers[start : self.size], kind, tf.reshape)))

    def normal(self, shape):
        """Standard normal noise of a shape."""
        start, self.noise_size = self.noise_size, self.noise_size + int(np.prod(shape))
        return tf.reshape(self.noise[start : self.noise_size], shape)


_thread = threading.local()


def tracing():
    """The Feed of the lines that this thread is tracing, or None."""
    return getattr(_thread, "feed", None)


def _kind(argument, numbers):
    """What of an argument is built in, as a tuple; its numbers are appended to `numbers`."""
    if isinstance(argument, tuple):
        return (tuple, *[_kind(a, numbers) for a in argument])
    if isinstance(argument, (np.ndarray, float, np.floating, list)):
        number = np.asarray(argument, np.float32)
        numbers.append(number)
        return np.ndarray, number.shape
    return type(argument), argument  # with its type, because True == 1


def size(kind):
    """How many numbers there are in an argument of a kind."""
    if kind[0] is tuple:
        return sum(map(size, kind[1:]))
    return int(np.prod(kind[1])) if kind[0] is np.ndarray else 0


def _pieces(vector, kind, reshape):
    """The numbers in an argument of a kind, in turn, as pieces of a vector, an array or a tensor.

    A batch, arrays of one length, is one matrix there, as in a replay buffer, and each array some
    columns of it: XLA makes faster code of that.
    """
    if kind[0] is not tuple:
        return [reshape(vector, kind[1])] if kind[0] is np.ndarray else []
    shapes = [k[1] for k in kind[1:] if k[0] is np.ndarray]
    pieces, start = [], 0
    if len({shape[:1] for shape in shapes}) == 1 < len(shapes) and {*map(len, shapes)} <= {1, 2}:
        rows = reshape(vector, [shapes[0][0], -1])
        for shape in shapes:
            end = start + (shape[1] if len(shape) == 2 else 1)
            pieces.append(rows[:, start:end] if len(shape) == 2 else rows[:, start])
            start = end
    else:
        for k in kind[1:]:
            end = start + size(k)
            pieces += _pieces(vector[start:end], k, reshape)
            start = end
    return pieces


def _filled(kind, numbers):
    """The argument of a kind, with the next of `numbers` for each of its own."""
    if kind[0] is tuple:
        return tuple([_filled(k, numbers) for k in kind[1:]])
    return next(numbers) if kind[0] is np.ndarray else kind[1]


def _eagerly(method, part, items, rest):
    def tensor(argument):
        if isinstance(argument, tuple):
            return tuple(map(tensor, argument))
        is_array = isinstance(argument, (np.ndarray, list))
        return tf.constant(argument, tf.float32) if is_array else argument

    rest = tensor(rest)
    for item in items:
        results = method(part, *tensor(item), *rest)
    return tf.nest.map_structure(_array, results)


def _tensor(result):
    return result if result is None else tf.convert_to_tensor(result)


def _array(result):
    return result.numpy() if hasattr(result, "numpy") else result


def _root(part):
    """The agent that a network, and no copy of it, is part of, else the object itself."""
    agent = vars(part).get("_agent")
    agent = agent and agent()
    parts = [*vars(agent).values()] if agent else []  # at once: another thread may assign one
    return agent if any(value is part for value in parts) else part


def _noticing(plainly):
    """An object's __setattr__ that drops what is compiled where the code has to change."""

    def __setattr__(self, name, value):
        replaced = vars(self).get(name, value) is not value and not name.startswith("_")
        plainly(self, name, value)
        if getattr(type(value).__setattr__, "notices", False):
            vars(value)["_agent"] = weakref.ref(self)
        state = isinstance(value, _STATE) and not isinstance(value, bool) and _root(self) is self
        if replaced and not state:
            vars(_root(self)).pop("_programs", None)

    __setattr__.notices = True
    return __setattr__
