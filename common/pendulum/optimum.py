"""Pendulum-v1 solved: the best possible values and torques, by dynamic programming.

What to measure a learned agent against. A state is (angle in rad, 0 upright; speed in rad/s),
which the environment shows as (cos angle, sin angle, speed); an action is a torque in N m.
"""

import json

import numpy as np

from common.files.names import ROOT, plain_env_id

SPEED_LIMIT = 8.0  # rad/s
TORQUE_LIMIT = 2.0  # N m
STEP = 0.05  # s
HORIZON = 200  # steps of an episode


def step(angle, speed, torque):
    """One step of gym's Pendulum-v1 for arrays that broadcast: (next angle, speed, reward).

    As in gym, the angle goes on beyond pi, and the reward is that of the state before.
    """
    reward = -(wrapped(angle) ** 2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * STEP, -SPEED_LIMIT, SPEED_LIMIT)
    return angle + speed * STEP, speed, reward


def wrapped(angle):
    """The angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def grid(n_angles, n_speeds):
    """Angles (n_angles, 1) around the circle, from -pi on, and speeds (1, n_speeds)."""
    angles = np.linspace(-np.pi, np.pi, n_angles, endpoint=False)
    return angles[:, None], np.linspace(-SPEED_LIMIT, SPEED_LIMIT, n_speeds)[None]


def value_functions(n_angles, n_speeds, n_torques, horizon=HORIZON, gamma=1.0):
    """Backward dynamic programming: the best sum of gamma^t r_t over the steps that are left.

    V_k(s) = max over torques of r + gamma V_(k-1)(s'), with V_0 = 0 and V_(k-1) interpolated
    linearly in angle and speed.

    Args:
        n_angles, n_speeds: see grid(). Even and odd, they have the upright state among them.
        n_torques: tried in each state, evenly spaced over [-2, 2].
        horizon: number of steps.
        gamma: discount factor.

    Returns:
        float32 (horizon + 1, n_angles, n_speeds): [k] is the value with k steps to go.
    """
    import tensorflow as tf  # late: whoever only asks for a step needs not wait for it

    angles, speeds = grid(n_angles, n_speeds)
    torques = np.linspace(-TORQUE_LIMIT, TORQUE_LIMIT, n_torques)[:, None, None]
    next_angles, next_speeds, rewards = step(angles, speeds, torques)
    rewards = tf.constant(rewards, tf.float32)
    corners, *parts = map(tf.constant, _cells(next_angles, next_speeds, n_angles, n_speeds))

    @tf.function(jit_compile=True)
    def backup(value, rewards, corners, *parts):
        value = tf.reshape(value, [-1])
        cells = (corners, *parts)
        following = _blend(lambda i: tf.gather(value, i), cells, n_angles, n_speeds)
        return tf.reduce_max(rewards + gamma * following, axis=0)

    values = np.zeros((horizon + 1, n_angles, n_speeds), np.float32)
    for k in range(horizon):
        values[k + 1] = backup(tf.constant(values[k]), rewards, corners, *parts)
    return values


def interpolate(value, angle, speed):
    """A value (n_angles, n_speeds) on a grid, between its points, for arrays of states."""
    return _blend(value.ravel().take, _cells(angle, speed, *value.shape), *value.shape)


def greedy_torques(value, angle, speed, gamma=1.0, n_torques=161):
    """The torques that are best if what follows the next state is worth `value`.

    Args:
        value: (n_angles, n_speeds), one of value_functions().
        angle, speed: arrays of one shape, which the result has too.
    """
    torques = np.linspace(-TORQUE_LIMIT, TORQUE_LIMIT, n_torques)
    next_angle, next_speed, reward = step(angle[..., None], speed[..., None], torques)
    return torques[(reward + gamma * interpolate(value, next_angle, next_speed)).argmax(-1)]


def _cells(angle, speed, n_angles, n_speeds):
    """The cell of each state: index of its lower corner in the flat grid, position inside."""
    x = (angle + np.pi) * (n_angles / (2 * np.pi))
    y = (speed + SPEED_LIMIT) * ((n_speeds - 1) / (2 * SPEED_LIMIT))
    i, j = np.floor(x).astype(np.int32), np.minimum(y.astype(np.int32), n_speeds - 2)
    x, y = (x - i).astype(np.float32), (y - j).astype(np.float32)
    return i % n_angles * n_speeds + j, x, y


def _blend(gather, cells, n_angles, n_speeds):
    """Bilinear interpolation; gather: from indices of the flat grid to values."""
    corner, x, y = cells
    across = (corner + n_speeds) % (n_angles * n_speeds)  # after the last angle comes the first
    low = gather(corner) * (1 - y) + gather(corner + 1) * y
    high = gather(across) * (1 - y) + gather(across + 1) * y
    return low * (1 - x) + high * x


def best_return(env_id, starts, max_steps=(200,)):
    """The best possible mean return over some starts (seeds for env.reset()): float, or None.

    It is known for Pendulum-v1 with its 200 steps, over the test starts and the first 100 of the
    validation starts; benchmarks/pendulum_optimum.py has computed it. max_steps: of one or
    more agents, the steps after which their episodes are cut.
    """
    best = json.loads((ROOT / "benchmarks" / "pendulum_optimum.json").read_text(encoding="utf-8"))
    found = [best["best_return"].get(str(seed)) for seed in starts]
    cut = min(max_steps) < 200
    if plain_env_id(env_id) != best["environment"] or cut or not found or None in found:
        return None
    return float(np.mean(found))
