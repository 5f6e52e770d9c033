"""How the numbers of a call reach a function: as pieces of one flat vector, or one by one."""

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
        self.pieces = []  # (generator of noise or None, function from an array to its place there)

    def take(self, shape, generator=None):
        """The next piece, in that shape."""
        start, shape = self.size, tuple(shape)
        self.size = end = start + int(np.prod(shape))
        self.pieces.append((generator, lambda array: array[start:end].reshape(shape)))
        return tf.reshape(self.vector[start:end], shape)

    def give(self, argument):
        """The argument with a piece in place of each array and float."""
        if isinstance(argument, tuple) and all(
            isinstance(a, np.ndarray) and a.ndim in (1, 2) for a in argument
        ) and len({len(a) for a in argument}) == 1:
            return self._columns(argument)
        return mapped(argument, lambda number: self.take(np.shape(number)))

    def _columns(self, batch):
        """A batch as it lies in a replay buffer: each array is columns of one matrix."""
        ends = np.cumsum([1 if a.ndim == 1 else a.shape[1] for a in batch]).tolist()
        columns = [begin if a.ndim == 1 else slice(begin, end)
                   for a, begin, end in zip(batch, [0, *ends], ends)]
        rows = self.take((len(batch[0]), ends[-1]))
        _, place = self.pieces.pop()
        self.pieces += [(None, lambda array, column=c: place(array)[:, column]) for c in columns]
        return tuple([rows[:, column] for column in columns])

    def run(self, fn, *args):
        """fn(*args), whose noise comes from here."""
        Feed.tracing = self
        try:
            return fn(*args)
        finally:
            Feed.tracing = None


def run_eagerly(fn, rest, items=((),), kinds=(None,)):
    """fn(item, kind, *rest) for each, arrays as float32 tensors, floats as they are.

    Returns:
        What the last of them returns, with NumPy arrays for tensors and variables.
    """

    def tensor(number):
        return number if isinstance(number, float) else tf.constant(number, tf.float32)

    rest = mapped(rest, tensor)
    for item, kind in zip(items, kinds):
        results = fn(mapped(item, tensor), kind, *rest)
    return tf.nest.map_structure(lambda r: r.numpy() if hasattr(r, "numpy") else r, results)
