"""How good a policy is: greedy episodes from start states that are the same every time."""

import random

import numpy as np

from common.errors import UserError
from common.files.names import plain_env_id

# Seeds of env.reset(). The results in the README are over the first; what is looked at while
# training, and to choose the weights that are kept, is over the second.
TEST_STARTS = range(100)
VALIDATION_STARTS = range(10_000, 11_000)

SIDE_BY_SIDE = 8  # environments that play in step, for one call of the policy serves them all


class Evaluation:
    """Greedy episodes from start states, in environments that stay open until close().

    Tasks of gym and Gymnasium are played several at a time, in step; one of a reader's module
    in one environment, one episode after the other: its simulator may belong to the process.

    Args:
        env: an Environment of the task.
        max_steps: steps after which an episode is cut.
    """

    def __init__(self, env, max_steps):
        self.env, self.max_steps, self._envs = env, max_steps, []
        own_module = ":" in plain_env_id(env.env_id)
        self.side_by_side = 1 if own_module else SIDE_BY_SIDE

    def returns(self, agent, starts):
        """The return, the plain sum of the rewards, of each episode: a list of float.

        The global random numbers go on afterwards as if nothing had been played.

        Args:
            agent: has greedy_actions(), from states (N, state_dim) to actions (N, action_dim).
            starts: seeds for env.reset(), at least one.

        Raises:
            UserError: an environment fails, or none can be made.
        """
        before, returns = (random.getstate(), np.random.get_state()), []
        try:
            while len(self._envs) < min(self.side_by_side, len(starts)):
                self._envs.append(self.env.another())
            for first in range(0, len(starts), self.side_by_side):
                returns += self._play(agent, starts[first : first + self.side_by_side])
        except UserError as error:
            raise UserError(f"an evaluation failed: {error} If only one of these environments can "
                            "be open at a time, leave out --evaluate-every.") from error
        random.setstate(before[0])
        np.random.set_state(before[1])
        return returns

    def _play(self, agent, starts):
        # Always as many states, played or not: the policy is compiled for one shape.
        states = np.zeros((SIDE_BY_SIDE, *self.env.observation_space.shape), np.float32)
        returns, playing = [0.0] * len(starts), dict(enumerate(self._envs[: len(starts)]))
        for row, env in playing.items():
            states[row] = env.reset(seed=starts[row])
        for _ in range(self.max_steps):
            actions = agent.greedy_actions(states)
            for row, env in list(playing.items()):
                states[row], reward, done, _ = env.step(actions[row])
                returns[row] += reward
                if done:
                    del playing[row]
            if not playing:
                break
        return returns

    def close(self):
        """Close the environments that were opened for it."""
        while self._envs:
            self._envs.pop().close()


def print_returns(what, returns):
    """Print mean and worst of some greedy episodes' returns."""
    print(f"{what} | Mean: {np.mean(returns):.4f} | Worst: {min(returns):.4f}")
