"""The chapter's noise: normal, and Ornstein and Uhlenbeck's, both from NumPy's global generator."""

import numpy as np
import tensorflow as tf

from common.engine import plain


class Normal:
    """tfp.distributions.Normal, whose samples np.random.seed() fixes, compiled or not.

    XLA ignores TensorFlow's seeds (errata E19).

    Args:
        loc, scale: mean and standard deviation, numbers or tensors.
    """

    def __init__(self, loc, scale):
        self.loc, self.scale = loc, scale

    def sample(self, shape=()):
        """Samples, a float32 tensor of a shape that is fully known, times that of loc and scale."""
        own = [tf.TensorShape(np.shape(number)) for number in (self.loc, self.scale)]
        shape = [*map(int, shape), *tf.broadcast_static_shape(*own)]
        feed = plain.tracing()
        if feed:
            noise = feed.normal(shape)
        else:
            noise = tf.constant(np.random.standard_normal(shape), tf.float32)
        return self.loc + self.scale * noise

    def log_prob(self, value):
        """The logarithm of the density at a value, of the shapes' broadcast."""
        from tensorflow_probability import distributions  # late: td3.py samples only

        return distributions.Normal(self.loc, self.scale).log_prob(value)


class OrnsteinUhlenbeck:
    """The noise process of (6.1), dX = theta (mu - X) dt + sigma dW, of `size` dimensions.

    It is sampled exactly: X(t + dt), given X(t), is normal with mean mu + (X(t) - mu) e^(-theta dt)
    and variance sigma^2 (1 - e^(-2 theta dt)) / (2 theta), for steps dt of any size. The default
    sigma, sqrt(2 theta), makes the stationary standard deviation 1.
    """

    def __init__(self, size, theta=0.15, sigma=None, mu=0.0, dt=1.0):
        self.size, self.mu = size, mu
        sigma = np.sqrt(2 * theta) if sigma is None else sigma
        self.decay = np.exp(-theta * dt)
        self.scale = sigma * np.sqrt((1 - np.exp(-2 * theta * dt)) / (2 * theta))
        self.reset()

    def reset(self):
        """Start again from the mean."""
        self.x = np.full(self.size, self.mu)

    def sample(self):
        """Go on by dt; returns the new X, (size,)."""
        noise = self.scale * np.random.standard_normal(self.size)
        self.x = self.mu + (self.x - self.mu) * self.decay + noise
        return self.x
