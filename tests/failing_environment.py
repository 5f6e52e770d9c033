"""An environment that fails, for tests of whole runs: a Pendulum but for one step."""

import gym
from gym.envs.classic_control import PendulumEnv


class NotANumber(PendulumEnv):
    """Its 100th reward is NaN."""

    def __init__(self, **options):
        super().__init__(**options)
        self.count = 0

    def step(self, action):
        self.count += 1
        state, reward, *rest = super().step(action)
        return state, float("nan") if self.count == 100 else reward, *rest


gym.register("NotANumber-v0", entry_point=NotANumber, max_episode_steps=30)
