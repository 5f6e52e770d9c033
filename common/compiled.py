"""One compiled call where eager TensorFlow makes hundreds.

An update written with GradientTape, apply_gradients and assign runs operation by operation
from Python: hundreds of calls, each far longer than its arithmetic. Here it becomes one. The lines
that are traced are the lines a reader sees; nothing is written twice. Two engines of common/flat.py
can run them. The fast one stands on what TensorFlow does not promise (common/private.py), so what
it compiles is first held against the same lines run eagerly (common/trial.py), once in a process:
agents that compute the same share it. Where that fails, the plain one takes over, and says so.

A compiled function has the agent's networks, optimizers and options built in. So each call
first looks whether they are still the same objects, and compiles anew if they are not.

Nobody sees old values of a variable, with one exception: a tf.function of your own that reads
variables holds them from its tracing on, unnoticed. So call `agent.compiler.unpack()` before it.
"""

import functools
import inspect

import numpy as np
import tensorflow as tf
from tensorlayer.models import Model

from common.feed import Feed, kind_of, run_eagerly
from common.flat import APPROVED, NotFlat, Program, Vectors
from common.networks import named_variables, parts_of, refresh
from common.trial import hold_against_eager

COMPILING = "Compiling the update: this takes a few seconds, once."
TAKEN_OVER = "the plain tf.function takes over, slower, same results."


class StandardNormal:
    """The chapter's Normal(0, 1), whose samples one seed fixes.

    XLA ignores tf.random.set_seed, so under it a distribution of TensorFlow's would never repeat.
    Here the numbers come from a NumPy generator at each call of a function, compiled or not, in
    one order.

    Args:
        generator: np.random.Generator that draws the numbers.
    """

    def __init__(self, generator):
        self.generator = generator

    def sample(self, shape):
        """Noise of a shape that is fully known, float32."""
        shape = [int(n) for n in shape]
        if Feed.tracing is not None:
            return Feed.tracing.take(shape, self.generator)
        return tf.constant(self.generator.standard_normal(shape, dtype=np.float32))


def compiled(method):
    """Decorator: compile a method of an agent, or of a network of one.

    With a NumPy array (or a list of numbers) as its first argument, the method runs compiled, by
    the compiler that is its object's attribute, and what it returns is turned into NumPy arrays.
    Called with a tensor, as within another compiled function, it simply runs. Without a compiler
    (a network by itself) or with an eager one, it runs as it is on float32 tensors.

    Further arrays, and floats, may change from call to call. Anything else (int, bool, str, None)
    is a constant of the compiled code; a new value compiles anew.
    """
    signature = inspect.signature(method)
    _, *parameters = signature.parameters.values()
    defaults = tuple(parameter.default for parameter in parameters)
    required = defaults.count(inspect.Parameter.empty)

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        if kwargs or len(args) < required:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            _, *args = bound.args
        first, *others = args
        if not isinstance(first, np.ndarray):
            if tf.is_tensor(first):
                return method(self, *args)
            first = np.asarray(first, np.float32)
        args = (first, *others, *defaults[len(args) :])

        def fn(item, kind, *args):
            return method(self, *args)

        if getattr(self, "compiler", None) is not None:
            self.compiler.check()
            if self.compiler is not None:  # a network may have been replaced by another
                return self.compiler.run((method, id(self)), fn, args)
        return run_eagerly(fn, args)

    return call


class Compiler:
    """Compiles functions over the variables of one agent.

    Args:
        agent: its networks, optimizers, variables and options are looked up among its
            attributes when a function is first called, and when one has been replaced.
        eager: run the functions as they are, so that breakpoints and prints work.
        trains: dict from an optimizer's name to that of the network or variable it trains.
        renew: called when a part is new, now included, to join it with the others.
        numbers: names of the numbers among the agent's options; other numbers of it are state.
    """

    def __init__(self, agent, eager=False, trains=(), renew=lambda: None, numbers=()):
        self.agent, self.eager, self.numbers = agent, eager, numbers
        self.trains, self.renew = dict(trains), renew
        self.plain = False  # whether the plain engine runs
        self.programs = {}  # by engine, function and kind of arguments, for the present options
        self._programs = {}  # by options
        self._parts = [({}, "none yet", None)]  # (namespace, name, value) of each
        self._variables = {}  # by name
        self._vectors = Vectors()
        self._announced = False
        self._networks = []
        self._slots = {}  # by an optimizer's name: what was built, for which weights
        self._join()

    def for_each(self, fn, items, kinds, *rest):
        """Several updates in one call: fn(items[i], kinds[i], *rest) for each i in turn.

        Args:
            fn: method of the agent; may read and assign its variables, and returns tensors.
            items: an array or a tuple of arrays for each update. They, further arrays and floats
                reach fn as float32 tensors and may change from call to call.
            kinds: a constant for each: anything that is no array or float (int, bool, str, None)
                is built in, and a new value compiles anew.
            rest: what all updates share.

        Returns:
            What the last of them returns, as NumPy arrays.
        """
        if getattr(fn, "__self__", self.agent) is not self.agent:
            self.__reduce__()  # it is a method of a copy.copy()
        items = list(items)
        if len(items) != len(kinds) or not items:
            raise ValueError(f"{len(items)} items, but {len(kinds)} kinds")
        self.check()
        return self.run(fn, fn, rest, items, kinds)

    def run(self, key, fn, rest, items=None, kinds=(None,)):
        """for_each() after check(), of fn known by a key; without items, fn((), None, *rest)."""
        if self.eager:
            return run_eagerly(fn, rest, items or [()], kinds)
        fed = []
        kind = key, kind_of((rest, items, kinds) if items else rest, fed)
        program = self.programs.get((self.plain, kind))
        if program is None:
            if items and not self._announced:
                print(COMPILING, flush=True)
                self._announced = True
            program = self._compile(fn, rest, items or [()], kinds)
            self.programs[self.plain, kind] = program
        if self.plain:
            self.unpack()
        return program(fed)

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
        self._join()
        before, self._parts = self._parts, list(parts_of(self.agent, self.numbers))
        objects, options = _objects_and_options(self._parts)
        if objects != _objects_and_options(before)[0]:
            self._variables = named_variables(self.agent)
            self._programs.clear()
        self.programs = self._programs.setdefault(options, {})

    def _join(self):
        """Be the compiler of the networks that the agent has now, and give them optimizers."""
        for model in self._networks:
            model.compiler = None
        self._networks = [value for value in vars(self.agent).values() if isinstance(value, Model)]
        for model in self._networks:
            refresh(model)
            model.compiler = self
        for name, trained in self.trains.items():
            optimizer, trained = getattr(self.agent, name), getattr(self.agent, trained)
            weights = getattr(trained, "trainable_weights", [trained])
            for built, of in self._slots.values():
                if built is optimizer and [*map(id, of)] != [*map(id, weights)]:
                    optimizer = type(optimizer).from_config(optimizer.get_config())
            if not optimizer.built:
                optimizer.build(weights)
                self._slots[name] = optimizer, weights
            setattr(self.agent, name, optimizer)
        self.renew()

    def __reduce__(self):
        """Copy and pickle would miss what is compiled and packed."""
        name = type(self.agent).__name__
        raise TypeError(
            f"a {name} cannot be copied or pickled: make a new {name} with the same arguments, "
            "then agent.save(path) and new.load(path) bring it the weights"
        )

    def unpack(self):
        """Bring all variables up to date, for readers that hold them in a way of their own."""
        self._vectors.unpack()

    def values(self):
        """The values of all variables: dict from names like "q_net1/0" to NumPy arrays."""
        self.check()
        held = named_variables(self.agent)  # an optimizer may have got its slots since
        return {name: np.asarray(variable.numpy()) for name, variable in held.items()}

    def set_values(self, values):
        """Give all variables values, as values() returns them; a ValueError if some are unfit."""
        self.check()
        held = named_variables(self.agent)
        own = {(name, tuple(variable.shape)) for name, variable in held.items()}
        unfit = own ^ {(name, np.shape(value)) for name, value in values.items()}
        if unfit:
            raise ValueError(f"values of other variables: {sorted({name for name, _ in unfit})}")
        for name, variable in held.items():
            variable.assign(values[name])

    def all_finite(self):
        """Whether no weight, target or optimizer slot is NaN or infinite."""
        self.check()
        held = self._vectors.vectors or self._variables.values()
        return all(np.isfinite(value.numpy()).all() for value in held)

    def _compile(self, fn, rest, items, kinds):
        if self.plain:
            return Program(None, fn, rest, items, kinds)
        try:
            self.unpack()
            self._vectors.hold(self._variables)
            try:
                program = Program(self._vectors, fn, rest, items, kinds)
            except NotFlat:
                known, self._variables = self._variables, named_variables(self.agent)
                if self._variables.keys() == known.keys():
                    raise
                # Tracing gave an optimizer its slots. From here on they are held too.
                for programs in self._programs.values():
                    programs.clear()
                self._vectors.hold(self._variables)
                program = Program(self._vectors, fn, rest, items, kinds)
            if program.key not in APPROVED:
                hold_against_eager(program, self._variables, fn, rest, items, kinds)
                if program.key:
                    APPROVED[program.key] = program.call
            return program
        except Exception as error:  # whatever another TensorFlow makes of what is not promised
            reason = f"{type(error).__name__}: {error}".removeprefix("NotFlat: ").partition("\n")[0]
        finally:
            self._vectors.vectors = None  # where the variables' values are is known for certain
        program = Program(None, fn, rest, items, kinds)  # raises what is the function's own error
        self.plain = True
        print(f"The fast engine does not work here ({reason:.200}): {TAKEN_OVER}", flush=True)
        return program


def _objects_and_options(parts):
    """Of what parts_of() gives: the ids of objects, and (name, type, value) of plain values."""
    plain = bool, int, float, str, np.generic
    objects = [(name, id(value)) for _, name, value in parts if not isinstance(value, plain)]
    options = [(name, type(v), v) for _, name, v in parts if isinstance(v, plain)]
    return objects, tuple(options)
