"""The ring of transitions that td3.py and sac.py learn from."""

import random

import numpy as np

_NUMBER = (float, int, np.generic)  # bool is an int


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
    """A ring of the last `capacity` transitions; the oldest is overwritten first.

    Transitions are rows of one float32 array, so that a batch is one indexing operation. The
    operating system hands out the array's memory as rows are written, not before.
    """

    def __init__(self, capacity):
        self.capacity = int(capacity)
        self.clear()
        # The chapter samples with `random`, so random.seed() fixes the batches here too.
        self.generator = np.random.default_rng(random.getrandbits(64))

    def clear(self):
        """Forget all transitions, and what sizes they had."""
        self.buffer = None  # (capacity, row width), made at the first push
        self.sizes = None  # of a state and an action
        self.position = 0  # the row written next
        self.size = 0

    def push(self, state, action, reward, next_state, done):
        """Store one transition.

        Args:
            state, next_state: (state_dim,) observations, arrays or lists.
            action: (action_dim,) or a number.
            reward: number.
            done: true only for a real terminal, after which nothing can be earned.

        Raises:
            ValueError: one of them has another size than in the first transition.
        """
        state_dim, action_dim = self.sizes or (np.size(state), np.size(action))
        check_sizes(state_dim, action_dim, state, action, reward, next_state, done)
        if self.buffer is None:
            self._make(state_dim, action_dim)
        a, b, c, d = self._ends
        row = self.buffer[self.position]
        row[:a] = state
        row[a:b] = action
        row[b:c] = reward
        row[c:d] = next_state
        row[d:] = done
        self.position = (self.position + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def _make(self, state_dim, action_dim):
        self.sizes = state_dim, action_dim
        self._ends = [int(end) for end in np.cumsum([state_dim, action_dim, 1, state_dim])]
        self.buffer = np.zeros((self.capacity, self._ends[-1] + 1), np.float32)

    def sample(self, batch_size):
        """A batch drawn uniformly without replacement.

        Returns:
            state (N, state_dim), action (N, action_dim), reward (N,),
            next_state (N, state_dim), done (N,), float32.

        Raises:
            ValueError: the buffer holds fewer than batch_size transitions, or it is empty.
        """
        if batch_size > self.size or not self.size:
            raise ValueError(f"cannot sample {batch_size} of {self.size} transitions")
        chosen = self.generator.choice(self.size, batch_size, replace=False, shuffle=False)
        rows = self.buffer[chosen]
        a, b, c, d = self._ends
        return rows[:, :a], rows[:, a:b], rows[:, b], rows[:, c:d], rows[:, d]

    def __len__(self):
        return self.size

    # Ours, for --resume

    def state(self):
        """All that restore() needs, as a dict of numbers, lists and arrays."""
        rows = np.zeros((0, 0), np.float32) if self.buffer is None else self.buffer[: self.size]
        return {"capacity": self.capacity, "sizes": self.sizes and list(self.sizes), "rows": rows,
                "position": self.position, "generator": self.generator.bit_generator.state}

    def restore(self, state):
        """Go on from a state(); a ValueError if it is none of a buffer of this capacity."""
        rows, position, size = state["rows"], state["position"], len(state["rows"])
        after = size if size < self.capacity else position  # the next row is the first free one
        if state["capacity"] != self.capacity or not 0 <= position <= size <= self.capacity or (
            position != after % self.capacity
        ):
            raise ValueError(f"a buffer of {size} rows, the next of them {position}")
        self.clear()
        if state["sizes"] is not None:
            self._make(*state["sizes"])
            self.buffer[:size] = rows
        self.position, self.size = position, size
        self.generator.bit_generator.state = state["generator"]
