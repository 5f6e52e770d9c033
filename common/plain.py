"""The plain engine: a function's lines under tf.function(jit_compile=True), on public API only."""

import numpy as np
import tensorflow as tf


def mapped(argument, change):
    """The argument with change(x) in place of each array and float x; lists become tuples."""
    if isinstance(argument, (np.ndarray, float)):
        return change(argument)
    if isinstance(argument, (tuple, list)):
        return tuple([mapped(a, change) for a in argument])
    return argument


def kind_of(argument, fed):
    """What an argument contributes to the choice of a program; its numbers are appended to fed."""
    if isinstance(argument, np.ndarray):
        fed.append(argument)
        return argument.shape
    if isinstance(argument, float):
        fed.append(argument)
        return float
    if isinstance(argument, (tuple, list)):
        return tuple([kind_of(a, fed) for a in argument])
    return type(argument), argument  # with its type, because True == 1


class Feed:
    """Hands a function that is being traced its numbers: pieces of one flat vector, in turn.

    In one vector, because each further tensor costs as much as a small matrix product.
    """

    tracing = None  # the feed that StandardNormal takes noise from

    def __init__(self, vector):
        self.vector, self.size = vector, 0
        self.pieces = []  # (start, shape, generator of noise or None, None or column and width)

    def take(self, shape, generator=None):
        """The next piece, in that shape."""
        start = self.size
        self.pieces.append((start, tuple(shape), generator, None))
        self.size += int(np.prod(shape))
        return tf.reshape(self.vector[start : self.size], shape)

    def give(self, argument):
        """The argument with a piece in place of each array and float."""
        if isinstance(argument, tuple) and all(
            isinstance(a, np.ndarray) and a.ndim in (1, 2) for a in argument
        ) and len({len(a) for a in argument}) == 1:
            return self._columns(argument)
        return mapped(argument, lambda number: self.take(np.shape(number)))

    def _columns(self, batch):
        """A batch as it lies in a replay buffer: each array is columns of one matrix."""
        start, n = self.size, len(batch[0])
        ends = np.cumsum([1 if a.ndim == 1 else a.shape[1] for a in batch]).tolist()
        columns = [begin if a.ndim == 1 else slice(begin, end)
                   for a, begin, end in zip(batch, [0, *ends], ends)]
        self.pieces += [(start, a.shape, None, (column, ends[-1]))
                        for a, column in zip(batch, columns)]
        self.size += n * ends[-1]
        rows = tf.reshape(self.vector[start : self.size], [n, ends[-1]])
        return tuple([rows[:, column] for column in columns])

    def run(self, fn, *args):
        """fn(*args), whose noise comes from here."""
        Feed.tracing = self
        try:
            return fn(*args)
        finally:
            Feed.tracing = None


class Inputs:
    """An array in which the numbers of a call travel.

    Args:
        array: flat, float32.
        pieces: as a Feed lists them; those without generator in the order of kind_of().
    """

    def __init__(self, array, pieces):
        self.array = array
        self.slots, self.noise = [], []
        for start, shape, generator, place in pieces:
            if place:
                column, width = place
                rows = array[start : start + shape[0] * width].reshape(-1, width)
                self.slots.append(rows[:, column])
                continue
            slot = array[start : start + int(np.prod(shape))]
            if generator is None:
                self.slots.append(slot.reshape(shape))
            else:
                self.noise.append((generator, slot))
        self.generators = list({id(g): g for g, _ in self.noise}.values())

    def fill(self, fed):
        """Write the numbers of a call, and draw its noise."""
        for slot, number in zip(self.slots, fed):
            slot[...] = number
        for generator, slot in self.noise:
            generator.standard_normal(dtype=np.float32, out=slot)


class PlainProgram:
    """fn(item, kind, *rest) for each item and kind in turn, compiled as one function.

    Variables are read and assigned where they are.
    """

    def __init__(self, fn, rest, items, kinds):
        def program(vector):
            feed = self.feed = Feed(vector)
            given = feed.give(rest)
            for item, kind in zip(items, kinds):
                results = feed.run(fn, feed.give(item), kind, *given)
            return results

        function = tf.function(program, jit_compile=True, autograph=False)
        # Of any size: what noise is asked for, tracing finds out.
        self.function = function.get_concrete_function(tf.TensorSpec([None], tf.float32))
        self.inputs = Inputs(np.zeros(self.feed.size, np.float32), self.feed.pieces)

    def __call__(self, fed):
        """The results of the last, as NumPy arrays.

        Args:
            fed: the numbers among (rest, items), as kind_of() lists them.
        """
        self.inputs.fill(fed)
        return as_numpy(self.function(tf.constant(self.inputs.array)))


def as_numpy(results):
    """A nest of tensors and variables as one of NumPy arrays; other values stay."""
    return tf.nest.map_structure(lambda r: r.numpy() if hasattr(r, "numpy") else r, results)


def run_eagerly(fn, rest, items=((),), kinds=(None,)):
    """fn(item, kind, *rest) for each, arrays as float32 tensors, floats as they are."""

    def tensor(number):
        return number if isinstance(number, float) else tf.constant(number, tf.float32)

    rest = mapped(rest, tensor)
    for item, kind in zip(items, kinds):
        results = fn(mapped(item, tensor), kind, *rest)
    return as_numpy(results)
