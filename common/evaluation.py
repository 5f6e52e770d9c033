"""How good a policy is: greedy episodes from start states that are the same every time."""

import json
from pathlib import Path

import numpy as np

from common.environment import make
from common.files import plain_env_id

_BEST = Path(__file__).parent.parent / "benchmarks" / "pendulum_optimum.json"

# Seeds of env.reset(). The results in the README are over the first; what is looked at while
# training, and to choose the weights that are kept, is over the second.
TEST_STARTS = range(100)
VALIDATION_STARTS = range(10_000, 11_000)


class Evaluation:
    """One greedy episode from each of some start states, all played side by side.

    Side by side, because one call of the policy then serves them all.

    Args:
        env_id: as for environment.make().
        starts: seeds for env.reset().
        max_steps: steps after which an episode is cut.
        unit_actions: as for environment.make().
    """

    def __init__(self, env_id, starts, max_steps, unit_actions=False):
        self.starts = starts
        self.max_steps = max_steps
        self.envs = [make(env_id, unit_actions=unit_actions) for _ in starts]

    def returns(self, agent):
        """The return, the plain sum of the rewards, of each episode: a list of float.

        agent: has greedy_actions(), from states (N, state_dim) to actions (N, action_dim).
        """
        states = np.stack([env.reset(seed=seed) for env, seed in zip(self.envs, self.starts)])
        returns = [0.0] * len(self.envs)
        playing = list(range(len(self.envs)))
        for _ in range(self.max_steps):
            actions = agent.greedy_actions(states)  # of those that have ended too: one shape only
            for i in playing[:]:
                states[i], reward, done, info = self.envs[i].step(actions[i])
                returns[i] += reward
                if done or info["TimeLimit.truncated"]:
                    playing.remove(i)
            if not playing:
                break
        return returns


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
