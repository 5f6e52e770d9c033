"""Registers Failing-v0, a Pendulum that raises at its 100th step: for tests/test_bad_days.py."""

import gym
from gym.envs.classic_control import PendulumEnv


class Failing(PendulumEnv):
    def __init__(self, **options):
        super().__init__(**options)
        self.count = 0

    def step(self, action):
        self.count += 1
        if self.count == 100:
            raise ZeroDivisionError("the joint broke")
        return super().step(action)


gym.register("Failing-v0", entry_point=Failing, max_episode_steps=30)
