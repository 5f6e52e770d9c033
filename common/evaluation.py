"""How good a policy is: greedy episodes from start states that are the same every time."""

import json
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import plain_env_id
from common.making import make

_BEST = Path(__file__).parent.parent / "benchmarks" / "pendulum_optimum.json"

# Seeds of env.reset(). The results in the README are over the first; what is looked at while
# training, and to choose the weights that are kept, is over the second.
TEST_STARTS = range(100)
VALIDATION_STARTS = range(10_000, 11_000)

SIDE_BY_SIDE = 8  # environments at most, for one call of the policy serves them all


class Evaluation:
    """Greedy episodes from start states, in environments that stay open until close().

    As many as can be opened play side by side, up to SIDE_BY_SIDE; where not even one can,
    because a simulator runs only once, the episodes are played one after the other in `shared`.

    Args:
        env_id: as for making.make().
        max_steps: steps after which an episode is cut.
        unit_actions: as for making.make().
        shared: the training's own Environment, between two of its episodes; its random numbers
            go on afterwards as if it had not been lent. None: there is none.
    """

    def __init__(self, env_id, max_steps, unit_actions=False, shared=None):
        self.env_id, self.max_steps, self.unit_actions = env_id, max_steps, unit_actions
        self.shared = shared
        self._envs = []
        self._wanted = SIDE_BY_SIDE  # fewer where no more can be opened

    def returns(self, agent, starts):
        """The return, the plain sum of the rewards, of each episode: a list of float.

        agent: has greedy_actions(), from states (N, state_dim) to actions (N, action_dim).
        starts: seeds for env.reset(), at least one.
        Raises UserError if an environment fails, or none can be made.
        """
        if self.shared is not None and not self.shared.started:
            with self.shared.lent():
                self.shared.reset(seed=starts[0])  # or it would be the one that cannot be opened
        while len(self._envs) < min(self._wanted, len(starts)):
            try:
                self._envs.append(self._open(starts[0]))
            except UserError:
                if not self._envs and self.shared is None:
                    raise
                self._wanted = len(self._envs)
                if not self._envs:
                    print(f"{self.env_id} can be open only once: evaluated in the training's own.")
        if self._envs:
            return self._play(agent, starts, self._envs[: len(starts)])
        with self.shared.lent():
            return self._play(agent, starts, [self.shared])

    def _open(self, seed):
        env = make(self.env_id, unit_actions=self.unit_actions)
        try:
            env.reset(seed=seed)  # a simulator may be started only here
        except UserError:
            env.close()
            raise
        return env

    def close(self):
        """Close the environments that were opened for it."""
        while self._envs:
            self._envs.pop().close()

    def _play(self, agent, starts, envs):
        returns, waiting = [0.0] * len(starts), enumerate(starts)
        # Always as many states, played or not: the policy is compiled for one shape.
        states = np.zeros((SIDE_BY_SIDE, *envs[0].observation_space.shape), np.float32)

        def episodes(env, state):
            """Play while there are starts: yields where it needs the action for `state`."""
            for number, seed in waiting:
                state[:] = env.reset(seed=seed)
                for _ in range(self.max_steps):
                    action = yield
                    state[:], reward, done, info = env.step(action)
                    returns[number] += reward
                    if done or info["TimeLimit.truncated"]:
                        break

        playing = {row: episodes(env, states[row]) for row, env in enumerate(envs)}
        for player in playing.values():
            next(player)
        while playing:
            actions = agent.greedy_actions(states)
            for row in list(playing):
                try:
                    playing[row].send(actions[row])
                except StopIteration:  # no more starts for this one
                    del playing[row]
        return returns


def print_returns(what, returns):
    """Print mean and worst of some greedy episodes' returns."""
    print(f"{what} | Mean: {np.mean(returns):.4f} | Worst: {min(returns):.4f}")


def optimum(env_id, starts):
    """The best possible mean return over some starts (seeds for env.reset()): float, or None.

    It is known for Pendulum-v1 with its 200 steps, over TEST_STARTS and the first 100 of
    VALIDATION_STARTS; benchmarks/pendulum_optimum.py has computed it.
    """
    best = json.loads(_BEST.read_text(encoding="utf-8"))
    found = [best["best_return"].get(str(seed)) for seed in starts]
    if plain_env_id(env_id) != best["environment"] or not found or None in found:
        return None
    return float(np.mean(found))
