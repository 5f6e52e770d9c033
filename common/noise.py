"""Ornstein and Uhlenbeck's noise, for the exploration of DDPG."""

import numpy as np


class OrnsteinUhlenbeck:
    """The noise process of (6.1), dX = theta (mu - X) dt + sigma dW, of `size` dimensions.

    It is sampled exactly: X(t + dt), given X(t), is normal with mean mu + (X(t) - mu) e^(-theta dt)
    and variance sigma^2 (1 - e^(-2 theta dt)) / (2 theta), for steps dt of any size. The default
    sigma, sqrt(2 theta), makes the stationary standard deviation 1.
    """

    def __init__(self, size, theta=0.15, sigma=None, mu=0.0, dt=1.0, generator=None):
        self.size, self.mu = size, mu
        self.generator = generator or np.random.default_rng()
        sigma = np.sqrt(2 * theta) if sigma is None else sigma
        self.decay = np.exp(-theta * dt)
        self.scale = sigma * np.sqrt((1 - np.exp(-2 * theta * dt)) / (2 * theta))
        self.reset()

    def reset(self):
        """Start again from the mean."""
        self.x = np.full(self.size, self.mu)

    def sample(self):
        """Go on by dt; returns the new X, (size,)."""
        noise = self.scale * self.generator.standard_normal(self.size)
        self.x = self.mu + (self.x - self.mu) * self.decay + noise
        return self.x
