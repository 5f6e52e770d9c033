"""What an agent has learned of Pendulum, as a picture: its policy and its Q beside the best."""

import contextlib

import numpy as np

from common.errors import one_line
from common.files.figures import new_figure, save_figure
from common.files.names import picture_path
from common.pendulum import optimum
from common.tasks.making import make

N_ANGLES, N_SPEEDS, N_TORQUES = 200, 201, 21  # a grid that takes a few seconds


def save(agent, settings):
    """Draw policy and Q over angle and speed, learned and best, beside the curve's picture.

    Best are the policy and the value that dynamic programming gives for the agent's own
    discount factor, over the 200 steps of an episode. Over both policies goes the greedy
    episode from the start state of the first test episode, with its returns: the undiscounted
    one, which a test prints, and the discounted one, which both policies are to maximise.
    Prints where the picture is.

    Args:
        agent: has greedy_actions(states), q_values(states, actions), and `q_unit`, what Q sums.
        settings: what flags.parse() returned.

    Raises:
        UserError: the file cannot be written.
    """
    gamma, name = settings.constants["GAMMA"], settings.algorithm
    states = _states(*np.broadcast_arrays(*optimum.grid(N_ANGLES, N_SPEEDS)))
    *_, following, best_value = optimum.value_functions(
        N_ANGLES, N_SPEEDS, N_TORQUES, gamma=gamma
    )

    def learned(angle, speed):
        actions = agent.greedy_actions(_states(angle, speed)).reshape(np.shape(angle))
        limit = optimum.TORQUE_LIMIT
        return np.clip(actions * (limit if settings.unit_actions else 1), -limit, limit)

    def best(angle, speed):
        return optimum.greedy_torques(following, angle, speed, gamma)

    value = agent.q_values(states, agent.greedy_actions(states)).reshape(best_value.shape)
    standardised = settings.constants.get("STANDARDISE_REWARDS", False)
    if not standardised:  # of standardised rewards, nobody knows the scale
        value = value / settings.constants["REWARD_SCALE"]  # in the environment's, as the best
    unit = ("\nstandardised " if standardised else " ") + agent.q_unit
    columns = [  # titles, policy, value, what it is a sum of
        (f"{name}'s policy π", f"{name}'s Q(s, π(s))", learned, value, unit),
        (f"best policy for γ = {gamma:g}", f"best value for γ = {gamma:g}", best, best_value,
         " rewards"),
    ]
    beside = picture_path(settings.image_dir, *settings.task)
    file = beside.with_name(f"{beside.stem}_explained.png")
    with new_figure(12, 10.5) as figure:
        draw(figure, columns, start(settings), gamma, one_scale=not standardised)
        save_figure(file, figure)
    print(f"Saved {one_line(file)}", flush=True)


def _states(angle, speed):
    """Observations (N, 3) of angles and speeds, arrays of N numbers in all or a number each."""
    return np.stack([np.cos(angle), np.sin(angle), speed], -1).astype(np.float32).reshape(-1, 3)


def start(settings):
    """Angle and speed at which the first test episode starts."""
    with contextlib.closing(make(settings.env_id)) as env:
        env.reset(seed=settings.seed)
        return env.unwrapped.state


def episode(policy, angle, speed):
    """Angles, speeds (each 201) and rewards (200) of the policy, a function of a state."""
    states, rewards = [(angle, speed)], []
    for _ in range(optimum.HORIZON):
        angle, speed, reward = optimum.step(angle, speed, policy(angle, speed))
        states.append((angle, speed))
        rewards.append(reward)
    return *np.transpose(states), np.array(rewards)


def draw(figure, columns, start, gamma, one_scale):
    """Policies above, values below; the agent's on the left, the best on the right."""
    values = [value for *_, value, _ in columns]
    scale = {"vmin": np.min(values), "vmax": np.max(values)} if one_scale else {}
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    angles, speeds = np.broadcast_arrays(*optimum.grid(*values[0].shape))
    for (upper, lower), (above, below, policy, value, unit) in zip(axes.T, columns):
        torque = _heat_map(upper, policy(angles, speeds), cmap="RdBu_r", vmin=-2, vmax=2)
        *states, rewards = episode(policy, *start)
        _trace(upper, *states)
        discounted = gamma ** np.arange(len(rewards)) @ rewards
        _note(upper, f"undiscounted return: {rewards.sum():.1f}\n"
                     f"discounted return: {discounted:.1f}")
        heights = _heat_map(lower, value, cmap="viridis", **scale)
        heights.set_cmap(heights.get_cmap().resampled(20))  # bands, like the lines of a map
        figure.colorbar(heights, ax=lower, pad=0.02, label=f"discounted sum of{unit}")
        upper.set_title(above, pad=10)
        lower.set_title(below, pad=10)
        lower.set_xlabel("angle (rad), 0 is upright")
    for axis in axes[:, 0]:
        axis.set_ylabel("speed (rad/s)")
    figure.colorbar(torque, ax=axes[0], pad=0.02, label="torque (N m)")
    correlation = np.corrcoef(*map(np.ravel, values))[0, 1]
    _note(axes[1, 0], f"correlation with the best: {correlation:.2f}")
    figure.supxlabel(
        "Line: the greedy episode from the start of the first test episode (dot), 200 steps.\n"
        "Best: largest discounted return (the sum of $\\gamma^t r_t$), by dynamic programming; "
        "undiscounted, others may be ahead.",
        fontsize=14,
    )


def _heat_map(axis, values, **options):
    """Draw values (n_angles, n_speeds) over angle and speed."""
    angles, speeds = optimum.grid(*values.shape)
    angles = np.append(angles, np.pi)
    values = np.append(values, values[:1], axis=0)  # the last angle is the first
    image = axis.pcolormesh(angles, speeds[0], values.T, shading="nearest", **options)
    axis.set_xticks(np.pi * np.array([-1, -0.5, 0, 0.5, 1]), ["−π", "−π/2", "0", "π/2", "π"])
    axis.set(xlim=(-np.pi, np.pi), ylim=(-8, 8))
    return image


def _note(axis, text):
    box = {"color": "white", "alpha": 0.85, "pad": 4}
    axis.text(0.97, 0.965, text.replace("-", "−"), fontsize=15, transform=axis.transAxes, bbox=box,
              ha="right", va="top")


def _trace(axis, angles, speeds):
    """Draw an episode's states as a line, which leaves the picture at pi and comes in at -pi."""
    for shift in np.unique((optimum.wrapped(angles) - angles).round(6)):
        for colour, width in (("white", 5), ("black", 2.5)):
            axis.plot(angles + shift, speeds, color=colour, linewidth=width)
    start = optimum.wrapped(angles[0]), speeds[0]
    axis.plot(*start, "o", color="black", mec="white", mew=2, markersize=12)
