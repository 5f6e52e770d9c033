"""What an agent has learned of Pendulum, as a picture: its policy and its Q beside the best."""

import contextlib

import numpy as np

from common import curve, pendulum
from common.files import plain_env_id

N_ANGLES, N_SPEEDS, N_TORQUES = 200, 201, 21  # a grid that takes a few seconds


def can_show(env_id):
    """Whether it is Pendulum, whose states have two dimensions and a known best value."""
    return plain_env_id(env_id) in ("Pendulum", "Pendulum-v0", "Pendulum-v1")


def path(image_dir, algorithm, env_id, preset="chapter"):
    """Where the picture goes: beside the curve, `image/td3_explained.png`."""
    beside = curve.path(image_dir, algorithm, env_id, preset)
    return beside.with_name(f"{beside.stem}_explained.png")


def save(agent, settings):
    """Draw policy and Q over angle and speed, learned and best; prints where the picture is.

    Best are the policy and the value that dynamic programming gives for the agent's own
    discount factor, over the 200 steps of an episode. Over both policies goes the greedy
    episode from the start state of the first test episode.

    Args:
        agent: has greedy_actions(states) and q_values(states, actions).
        settings: what arguments.parse() returned.

    Raises:
        UserError: the file cannot be written.
    """
    gamma = settings.constants["GAMMA"]
    angles, speeds = np.broadcast_arrays(*pendulum.grid(N_ANGLES, N_SPEEDS))
    *_, following, best_value = pendulum.value_functions(
        N_ANGLES, N_SPEEDS, N_TORQUES, gamma=gamma
    )

    def learned(angle, speed):
        actions = agent.greedy_actions(_states(angle, speed)).reshape(np.shape(angle))
        limit = pendulum.TORQUE_LIMIT
        return np.clip(actions * (limit if settings.unit_actions else 1), -limit, limit)

    def best(angle, speed):
        return pendulum.greedy_torques(following, angle, speed, gamma)

    states = _states(angles, speeds)
    value = agent.q_values(states, agent.greedy_actions(states)).reshape(angles.shape)
    # Of standardised rewards, nobody knows the scale.
    standardised = getattr(agent, "standardise_rewards", False)
    if not standardised:
        value = value / settings.constants["REWARD_SCALE"]  # in the environment's, as the best
    soft = hasattr(agent, "log_alpha")  # Q counts the policy's entropy, too
    name = settings.algorithm
    titles = [
        [f"{name}'s policy π", f"{name}'s {'soft ' * soft}Q(s, π(s))"],
        [f"best policy for γ = {gamma:g}", f"best value for γ = {gamma:g}"],
    ]
    units = [f" {'standardised ' * standardised}rewards{' + entropy' * soft}", " rewards"]
    if standardised:
        units[0] = units[0].replace(" ", "\n", 1)  # a long label takes two lines
    first = start(settings)
    episodes = [_episode(policy, *first) for policy in (learned, best)]
    policies = [policy(angles, speeds) for policy in (learned, best)]
    file = path(settings.image_dir, name, settings.env_id, settings.preset)
    with curve.new_figure(12, 10.5) as figure:
        _draw(figure, policies, [value, best_value], episodes, titles, units, standardised)
        curve.save_figure(file, figure)
    print(f"Saved {file}", flush=True)


def _states(angle, speed):
    """Observations (N, 3) of angles and speeds, arrays of N numbers in all or a number each."""
    return np.stack([np.cos(angle), np.sin(angle), speed], -1).astype(np.float32).reshape(-1, 3)


def start(settings):
    """Angle and speed at which the first test episode starts."""
    from common.making import make  # late: not before the flags have been read

    with contextlib.closing(make(settings.env_id)) as env:
        env.reset(seed=settings.seed)
        return env.unwrapped.state


def _episode(policy, angle, speed):
    """Angles, speeds (each 201) and return of an episode of the policy, a function of a state."""
    states, total = [(angle, speed)], 0.0
    for _ in range(pendulum.HORIZON):
        angle, speed, reward = pendulum.step(angle, speed, policy(angle, speed))
        states.append((angle, speed))
        total += reward
    return *np.transpose(states), total


def _draw(figure, policies, values, episodes, titles, units, standardised):
    """Policies above, values below; the agent's on the left, the best on the right."""
    common_scale = {} if standardised else {"vmin": np.min(values), "vmax": np.max(values)}
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for column in range(2):
        upper, lower = axes[:, column]
        *states, total = episodes[column]
        torque = _heat_map(upper, policies[column], cmap="RdBu_r", vmin=-2, vmax=2)
        _trace(upper, *states)
        _note(upper, f"return of this episode: {total:.1f}")
        value = _heat_map(lower, values[column], cmap="viridis", **common_scale)
        value.set_cmap(value.get_cmap().resampled(20))  # bands, like the lines of a map
        _bar(figure, value, lower, f"discounted sum of{units[column]}")
        lower.set_xlabel("angle (rad), 0 is upright")
        for axis, title in zip((upper, lower), titles[column]):
            axis.set_title(title, pad=10)
        axes[column, 0].set_ylabel("speed (rad/s)")
    _bar(figure, torque, axes[0], "torque (N m)")
    correlation = np.corrcoef(values[0].ravel(), values[1].ravel())[0, 1]
    _note(axes[1, 0], f"correlation with the best: {correlation:.2f}")
    figure.supxlabel(
        "Best: dynamic programming, sum of $\\gamma^t r_t$ over the 200 steps of an episode.\n"
        "Line: the greedy episode from the start of the first test episode (dot).",
        fontsize=14,
    )


def _heat_map(axis, values, **options):
    """Draw values (n_angles, n_speeds) over angle and speed."""
    angles, speeds = pendulum.grid(*values.shape)
    angles = np.append(angles, np.pi)
    values = np.append(values, values[:1], axis=0)  # the last angle is the first
    image = axis.pcolormesh(angles, speeds[0], values.T, shading="nearest", **options)
    axis.set_xticks(np.pi * np.array([-1, -0.5, 0, 0.5, 1]), ["−π", "−π/2", "0", "π/2", "π"])
    axis.set(xlim=(-np.pi, np.pi), ylim=(-8, 8))
    return image


def _bar(figure, image, axes, label):
    figure.colorbar(image, ax=axes, pad=0.02).set_label(label, fontsize=15)


def _note(axis, text):
    box = {"color": "white", "alpha": 0.85, "pad": 4}
    axis.text(0.025, 0.03, text.replace("-", "−"), fontsize=15, transform=axis.transAxes, bbox=box)


def _trace(axis, angles, speeds):
    """Draw an episode's states as a line, which leaves the picture at pi and comes in at -pi."""
    for shift in np.unique((pendulum.wrapped(angles) - angles).round(6)):
        for colour, width in (("white", 5), ("black", 2.5)):
            axis.plot(angles + shift, speeds, color=colour, linewidth=width)
    start = pendulum.wrapped(angles[0]), speeds[0]
    axis.plot(*start, "o", color="black", mec="white", mew=2, markersize=12)
