"""Environments of tests, a folder for a reader's own, and two Pendulums for whole runs."""

import sys

import gym
import gymnasium
import pytest
from gym.envs.classic_control import PendulumEnv

LIBRARIES = [gym, gymnasium]


@pytest.fixture(autouse=True)
def registries():
    """What a test registers is gone after it."""
    before = [(library.envs.registration.registry, dict(library.envs.registration.registry))
              for library in LIBRARIES]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder that is not on the path; what is imported from it is gone after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in [*sys.modules.items()]:
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


class Short(PendulumEnv):
    """Its episodes end where the pendulum swings fast, each after another number of steps."""

    def step(self, action):
        state, reward, _, truncated, info = super().step(action)
        return state, reward, bool(abs(state[2]) > 4.0), truncated, info


class NotANumber(PendulumEnv):
    """Its 100th reward is NaN."""

    count = 0

    def step(self, action):
        self.count += 1
        state, reward, *rest = super().step(action)
        return state, float("nan") if self.count == 100 else reward, *rest


gym.register("Short-v0", entry_point=Short, max_episode_steps=60)
gym.register("NotANumber-v0", entry_point=NotANumber, max_episode_steps=30)
