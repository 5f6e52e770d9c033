"""Whether a compiled program does what the same lines do eagerly, found out before it is used."""

import numpy as np
import tensorflow as tf

from common.feed import kind_of, mapped, run_eagerly
from common.flat import NotFlat

TOLERANCE = 0.1  # of a step, in its norm; rounding was up to 0.003 of it in trials


def hold_against_eager(program, variables, fn, rest, items, kinds):
    """Run a program and its lines once each, and leave no trace.

    Lines are run eagerly, which takes 0.1 to 0.5 s; compiling them for this would take seconds.

    Args:
        program: of fn, rest, items and kinds, as engines take them.
        variables: dict from name to variable; they are read and written as anybody would.

    Raises:
        NotFlat: variables or results differ by more than rounding; the message names one.
    """
    generators = list({id(g): g for g, _ in program.noise}.values())
    states = [generator.bit_generator.state for generator in generators]
    real, rng = [variable.numpy() for variable in variables.values()], np.random.default_rng(0)

    def begin(values):
        for variable, value in zip(variables.values(), values):
            variable.assign(value)
        for generator, state in zip(generators, states):
            generator.bit_generator.state = state

    start = [_tame(value, rng) for value in real]
    rest, items = mapped((rest, items), lambda number: _tame(number, rng))
    fed, outcomes = [], []
    kind_of((rest, items), fed)
    try:
        for run in (lambda: program(fed), lambda: run_eagerly(fn, rest, items, kinds)):
            begin(start)
            results = tf.nest.flatten(run())
            outcomes.append(([variable.numpy() for variable in variables.values()], results))
    finally:
        begin(real)
    (found, our_results), (expected, eager_results) = outcomes
    for name, *values in zip(variables, start, found, expected):
        if not _alike(*values):
            raise NotFlat(f"it makes something else of {name} than the same lines run eagerly")
    for ours, eager in zip(our_results, map(np.asarray, eager_results), strict=True):
        # whole numbers and truth values may hang on a rounding
        if eager.dtype.kind == "f" and not _alike(0.0, ours, eager, 1e-5):
            raise NotFlat("it returns something else than the same lines run eagerly")


def _tame(value, rng):
    """Similar numbers, no wider than new weights, none of them 0 and no two equal.

    Otherwise rounding may decide: wide weights saturate tanh, standardised rewards have a mean
    of nearly 0, and a first step of Adam is as long where the gradient is nothing but rounding.
    """
    if not np.ndim(value) or not value.size or value.dtype.kind != "f":
        return value
    limit = len(value) ** -0.5
    factor = limit / max(limit, np.sqrt(np.mean(np.square(value, dtype=np.float64))))
    spread = rng.uniform(0.5, 1.0, (2, *value.shape))
    return (value * factor * spread[0] + 0.05 * limit * spread[1]).astype(value.dtype)


def _alike(before, found, expected, least=0.0):
    """Whether two values are the same but for rounding, measured by the step that led there."""
    if expected.dtype.kind != "f":
        return np.array_equal(found, expected)
    before, found, expected = (np.asarray(v, np.float64) for v in (before, found, expected))
    if not np.isfinite(expected).all():
        return True
    error, step = np.linalg.norm(found - expected), np.linalg.norm(expected - before)
    rounding = 1e-6 * np.linalg.norm(expected) + least * expected.size**0.5
    return error <= TOLERANCE * step + rounding
