"""Environments that fail, for tests of whole runs: each is a Pendulum but for one thing."""

import gym
from gym.envs.classic_control import PendulumEnv


class Failing(PendulumEnv):
    """Raises at its 100th step."""

    def __init__(self, **options):
        super().__init__(**options)
        self.count = 0

    def step(self, action):
        self.count += 1
        if self.count == 100:
            raise ZeroDivisionError("the joint broke")
        return super().step(action)


class NotANumber(Failing):
    """Returns the reward NaN in place of raising."""

    def step(self, action):
        try:
            return super().step(action)
        except ZeroDivisionError:
            state, _, *rest = PendulumEnv.step(self, action)
            return state, float("nan"), *rest


class Single(PendulumEnv):
    """A simulator of which only one can be open at a time."""

    open = 0

    def __init__(self, **options):
        if Single.open:
            raise OSError("Address already in use")
        Single.open += 1
        super().__init__(**options)

    def close(self):
        Single.open -= 1
        super().close()


gym.register("Failing-v0", entry_point=Failing, max_episode_steps=30)
gym.register("NotANumber-v0", entry_point=NotANumber, max_episode_steps=30)
gym.register("Single-v0", entry_point=Single, max_episode_steps=30)
