"""ReplayBuffer of td3.py and sac.py: a ring that forgets the oldest, and fair batches from it."""

import inspect
import random
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sac
import td3
from td3 import ReplayBuffer

FIELDS = ("state", "action", "reward", "next_state", "done")
REPEATABLE = settings(deadline=None, derandomize=True, max_examples=100)


def transition(number, state_dim=3, action_dim=2):
    """The transition of that number: each of its values tells which one it is."""
    steps = np.arange(state_dim) / 8
    state, next_state = number + steps, number + 1 + steps
    action = -number - np.arange(action_dim) / 8
    return state, action, number + 0.5, next_state, number % 3 == 0


def filled(n, capacity=None, seed=0, **dims):
    """A buffer after the pushes number 0 to n - 1."""
    random.seed(seed)
    buffer = ReplayBuffer(capacity or n)
    for number in range(n):
        buffer.push(*transition(number, **dims))
    return buffer


def numbers_of(batch, **dims):
    """The numbers of a batch's transitions; fails unless each row is one transition, whole."""
    numbers = [round(float(reward) - 0.5) for reward in batch[2]]
    for i, number in enumerate(numbers):
        for name, column, expected in zip(FIELDS, batch, transition(number, **dims)):
            np.testing.assert_array_equal(column[i], np.float32(expected), err_msg=name)
    return numbers


def far_from_uniform(counts, draws, share):
    """How improbable counts are, in standard deviations, if each is of `draws` with odds `share`.

    Without replacement the counts are negatively correlated, hence the factor (n - 1) / n; then
    the sum is chi-square with n - 1 degrees of freedom.
    """
    counts = np.asarray(counts)
    n = len(counts)
    chi2 = ((counts - draws * share) ** 2).sum() / (draws * share * (1 - share)) * (n - 1) / n
    return (chi2 - (n - 1)) / np.sqrt(2 * (n - 1))


def test_both_scripts_have_the_same():
    assert inspect.getsource(sac.ReplayBuffer) == inspect.getsource(td3.ReplayBuffer)


@given(
    capacity=st.integers(1, 12),
    state_dim=st.integers(1, 4),
    action_dim=st.integers(1, 3),
    steps=st.lists(st.integers(0, 14), max_size=25),
)
@REPEATABLE
def test_behaves_like_a_deque(capacity, state_dim, action_dim, steps):
    """Pushes, each followed by a sample: length, position, contents are those of a deque."""
    dims = {"state_dim": state_dim, "action_dim": action_dim}
    buffer, model = ReplayBuffer(capacity), deque(maxlen=capacity)
    assert (len(buffer), buffer.position, buffer.capacity) == (0, 0, capacity)
    for number, batch_size in enumerate(steps):
        buffer.push(*transition(number, **dims))
        model.append(number)
        assert len(buffer) == len(model)
        assert buffer.position == (number + 1) % capacity
        assert buffer.capacity == capacity
        assert sorted(numbers_of(buffer.sample(len(model)), **dims)) == list(model)
        if batch_size > len(model):
            with pytest.raises(ValueError, match="larger sample than population"):
                buffer.sample(batch_size)
        else:
            drawn = numbers_of(buffer.sample(batch_size), **dims)
            assert len(set(drawn)) == len(drawn) == batch_size
            assert set(drawn) <= set(model)


@pytest.mark.parametrize("state_dim", [1, 3])
@pytest.mark.parametrize("action_dim", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_five_arrays(state_dim, action_dim, batch_size):
    buffer = filled(9, state_dim=state_dim, action_dim=action_dim)
    batch = buffer.sample(batch_size)
    n = batch_size
    shapes = [(n, state_dim), (n, action_dim), (n,), (n, state_dim), (n,)]
    assert [array.shape for array in batch] == shapes
    assert [array.dtype for array in batch] == [np.float32] * 5
    assert all(type(array) is np.ndarray for array in batch)


def test_capacity_may_be_written_as_5e5():
    """The chapter's constant is a float; a ring of that size costs nothing before its use."""
    buffer = ReplayBuffer(5e5)
    assert buffer.capacity == 500_000
    assert type(buffer.capacity) is int
    buffer.push(*transition(0))
    assert (len(buffer), buffer.position) == (1, 1)


@pytest.mark.parametrize(
    ("done", "stored"),
    [
        (False, 0.0),
        (True, 1.0),
        (np.bool_(False), 0.0),
        (np.bool_(True), 1.0),  # for which `done is True` is false (errata E8)
        (1, 1.0),
        (1.0, 1.0),
    ],
)
def test_done(done, stored):
    buffer = ReplayBuffer(2)
    buffer.push(np.zeros(3), np.zeros(1), 0.0, np.zeros(3), done)
    assert buffer.sample(1)[4].tolist() == [stored]


def test_what_is_pushed_is_copied():
    """An environment that reuses its observation array changes nothing stored."""
    buffer = ReplayBuffer(2)
    state, action, reward, next_state, done = transition(1)
    buffer.push(state, action, reward, next_state, done)
    for array in (state, action, next_state):
        array[:] = 99
    assert numbers_of(buffer.sample(1)) == [1]


def test_what_is_sampled_is_a_copy():
    buffer = filled(6)
    for array in buffer.sample(6):
        array[:] = 99
    assert sorted(numbers_of(buffer.sample(6))) == list(range(6))


# --- fairness; the seeds are fixed, so the outcome is too


@pytest.mark.parametrize(("stored", "capacity"), [(20, 20), (20, 1000), (50, 20)])
@pytest.mark.parametrize("batch_size", [1, 7, 19])
def test_each_transition_is_as_likely(stored, capacity, batch_size):
    """Whether the ring is just full, far from full, or has been overwritten."""
    buffer, n, draws = filled(stored, capacity=capacity), 20, 2000
    counts = np.zeros(stored)
    for _ in range(draws):
        reward = buffer.sample(batch_size)[2]
        drawn = (reward - 0.5).astype(int)
        assert len(np.unique(drawn)) == batch_size, "drawn twice"
        counts[drawn] += 1
    assert counts[: stored - n].sum() == 0, "an overwritten transition"
    assert abs(far_from_uniform(counts[stored - n :], draws, batch_size / n)) < 4


# --- seeds


def draws_of(buffer):
    return [numbers_of(buffer.sample(5)) for _ in range(4)]


def test_random_seed_fixes_the_batches():
    """random.seed(), as in the chapter's main part, where np.random.seed() has no say."""
    np.random.seed(1)
    first = draws_of(filled(100, seed=7))
    np.random.seed(2)
    assert draws_of(filled(100, seed=7)) == first
    assert draws_of(filled(100, seed=8)) != first
    assert len(set(map(tuple, first))) == 4, "batches differ from each other"


def test_buffers_of_one_process_draw_their_own_batches():
    random.seed(7)
    buffers = [ReplayBuffer(100), ReplayBuffer(100)]
    for buffer in buffers:
        for number in range(100):
            buffer.push(*transition(number))
    assert draws_of(buffers[0]) != draws_of(buffers[1])


def test_sampling_leaves_the_global_generators_alone():
    """Else drawing a batch would change the exploration or the environment."""
    buffer = filled(20)
    states = random.getstate(), np.random.get_state()
    buffer.sample(5)
    assert random.getstate() == states[0]
    np.testing.assert_equal(np.random.get_state(), states[1])
