"""A Pendulum whose episodes end by themselves, each after another number of steps."""

import gym
from gym.envs.classic_control import PendulumEnv


class Short(PendulumEnv):
    """Ends where the pendulum swings fast."""

    def step(self, action):
        state, reward, _, truncated, info = super().step(action)
        return state, reward, bool(abs(state[2]) > 4.0), truncated, info


gym.register("Short-v0", entry_point=Short, max_episode_steps=60)
