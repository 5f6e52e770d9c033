"""The ring of transitions that td3.py and sac.py learn from."""

import random

import numpy as np

from common.errors import UserError

_NUMBER = (float, int, np.generic)  # bool is an int


def empty_rows(flag, capacity, width):
    """Zeros (capacity, width), float32.

    Raises:
        UserError: they do not fit into the memory; the message names the flag.
    """
    try:
        return np.zeros((capacity, width), np.float32)
    except (MemoryError, ValueError) as error:  # NumPy has both, for too large and far too large
        raise UserError(
            f"{flag} {capacity}: so many transitions of {width} numbers do not fit into the "
            "memory; choose a smaller one"
        ) from error


def check_sizes(state_dim, action_dim, state, action, reward, next_state, done):
    """Raise a ValueError that names what is not as long as the other transitions' is.

    NumPy would spread a single number over a whole state.
    """
    try:  # the usual case, in a tenth of the time
        if (
            len(state) == len(next_state) == state_dim
            and len(action) == action_dim
            and isinstance(reward, _NUMBER)
            and isinstance(done, _NUMBER)
        ):
            return
    except TypeError:  # a number has no len()
        pass
    sizes = {"state": (state, state_dim), "action": (action, action_dim), "reward": (reward, 1),
             "next_state": (next_state, state_dim), "done": (done, 1)}
    for name, (value, expected) in sizes.items():
        if np.size(value) != expected:
            raise ValueError(f"{name} has size {np.size(value)}, the buffer's has {expected}")


class ReplayBuffer:
    """A ring of the last `capacity` transitions.

    Transitions are rows of one float32 array, so that a batch is one indexing
    operation and reaches the compiled update as one tensor. The operating system
    hands out the array's memory as rows are written, not before.

    Args:
        capacity: transitions kept; the oldest is overwritten first.
    """

    def __init__(self, capacity):
        self.capacity = int(capacity)
        self.buffer = None  # (capacity, row width), made at the first push
        self._ends = None  # where the columns of a row end
        self.position = 0  # the row written next
        self.size = 0
        # The chapter samples with `random`, so random.seed() fixes the batches here too.
        self.generator = np.random.default_rng(random.getrandbits(64))

    def push(self, state, action, reward, next_state, done):
        """Store one transition.

        Args:
            state, next_state: (state_dim,) observations, arrays or lists.
            action: (action_dim,) or a number.
            reward: number.
            done: true only for a real terminal, after which nothing can be earned.

        Raises:
            ValueError: one of them has another size than in the first transition.
            UserError: a buffer of this capacity does not fit into the memory.
        """
        if self.buffer is None:
            state_dim, action_dim = np.size(state), np.size(action)
            check_sizes(state_dim, action_dim, state, action, reward, next_state, done)
            ends = np.cumsum([state_dim, action_dim, 1, state_dim])
            self._ends = [int(end) for end in ends]
            self.buffer = empty_rows("--replay-buffer-size", self.capacity, self._ends[-1] + 1)
        a, b, c, d = self._ends
        check_sizes(a, b - a, state, action, reward, next_state, done)
        row = self.buffer[self.position]
        row[:a] = state
        row[a:b] = action
        row[b:c] = reward
        row[c:d] = next_state
        row[d:] = done
        self.position = (self.position + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, batch_size):
        """A batch drawn uniformly without replacement.

        Returns:
            state (N, state_dim), action (N, action_dim), reward (N,),
            next_state (N, state_dim), done (N,), float32.

        Raises:
            ValueError: the buffer holds fewer than batch_size transitions, or it is empty.
        """
        state, action, reward, next_state, done = self.columns(self.rows(batch_size)[0])
        return state, action, reward[:, 0], next_state, done[:, 0]

    def rows(self, batch_size, n_batches=1):
        """Independent batches as stored, for columns(): (n_batches, batch_size, row width)."""
        if batch_size > self.size or not self.size:
            raise ValueError(f"cannot sample {batch_size} of {self.size} transitions")
        choice = self.generator.choice
        indices = [
            choice(self.size, batch_size, replace=False, shuffle=False) for _ in range(n_batches)
        ]
        return self.buffer[np.stack(indices)]

    def columns(self, rows):
        """Split rows (array or tensor) into state, action, reward, next_state, done, 2-D each."""
        a, b, c, d = self._ends
        return rows[:, :a], rows[:, a:b], rows[:, b:c], rows[:, c:d], rows[:, d:]

    def clear(self):
        """Forget all transitions, and what sizes they had."""
        self.buffer = self._ends = None
        self.position = self.size = 0

    def __len__(self):
        return self.size
