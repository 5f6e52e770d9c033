"""The best possible returns on Pendulum, from the start states that the agents are measured on.

    python benchmarks/pendulum_optimum.py

Dynamic programming on grids that get finer, and from each start state the best episode that a
beam search over the values finds. Its torques are then played in the real environment, and
what that gives is written to pendulum_optimum.json: returns that can be reached, and, as the
table shows, hardly bettered. A last step shows what discounting costs.

The start states are those of `env.reset(seed=0..99)`, which the README's results are over, and
of the first 100 seeds that evaluations in training use.
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from common import process
from common.files.whole import write_atomically
from common.pendulum import optimum
from common.tasks.making import make
from common.training.evaluation import TEST_STARTS, VALIDATION_STARTS

ROWS = {201: [100], 401: [100], 801: [100, 300]}  # speeds of each grid: widths of the beam
N_TORQUES = 21
GAMMAS = [0.9, 0.99]  # of the chapter's agents
# Multiples of 1/8 pass float32 unchanged, so the environment computes the same states, bit for
# bit; without that, the unstable pendulum would soon be elsewhere.
_TORQUES = np.arange(-16, 17) / 8
_CELL = np.array([0.016, 0.064])  # rad and rad/s; about the pendulum's own ratio, sqrt(15)


def greedy_return(values, angle, speed, gamma=1.0):
    """Returns, not discounted, of episodes that follow values[t] greedily in step t."""
    total = 0.0
    for value in values:
        torque = optimum.greedy_torques(value, angle, speed, gamma)
        angle, speed, reward = optimum.step(angle, speed, torque)
        total = total + reward
    return total


def best_episode(values, angle, speed, width):
    """The best episode that a beam search finds, in the real dynamics, not on a grid.

    A greedy step trusts the interpolated value, which is too high where only just enough
    torque is at hand to come up at once. The search goes on from many states instead: from
    each it tries 33 torques, and keeps the `width` states that are best by the rewards so
    far plus the value, and of states that are nearly equal only the best.

    Args:
        values: of optimum.value_functions() with gamma 1, one more than the episode has steps.
        angle, speed: the start state, two numbers.
        width: how many states are kept.

    Returns:
        (the return, float; the torques of the episode, float64 (steps,)).
    """
    angle, speed, total = np.array([angle]), np.array([speed]), np.zeros(1)
    steps = []  # for each: where the kept states came from, and by which torque
    for value in values[-2::-1]:
        next_angle, next_speed, reward = optimum.step(angle[:, None], speed[:, None], _TORQUES)
        reward = total[:, None] + reward
        next_angle, next_speed, reward = next_angle.ravel(), next_speed.ravel(), reward.ravel()
        worth = reward + optimum.interpolate(value, next_angle, next_speed)
        order = np.argsort(-worth)[: 8 * width]
        cell = np.floor(np.stack([next_angle[order], next_speed[order]], 1) / _CELL)
        number = (cell @ [2**20, 1]).astype(np.int64)
        _, first = np.unique(number, return_index=True)  # the best of each cell
        kept = order[np.sort(first)[:width]]
        angle, speed, total = next_angle[kept], next_speed[kept], reward[kept]
        steps.append(np.divmod(kept, len(_TORQUES)))
    state = best = total.argmax()
    torques = []
    for parents, numbers in reversed(steps):
        torques.append(_TORQUES[numbers[state]])
        state = parents[state]
    return float(total[best]), np.array(torques[::-1])


def play(env, seed, torques):
    """Return of an episode of the real environment with these torques."""
    env.reset(seed=seed)
    return sum(env.step([torque])[1] for torque in torques)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only the coarse grids")
    file = Path(__file__).with_suffix(".json")
    parser.add_argument("--out", type=Path, default=file, help=f"default: {file.name}")
    args = parser.parse_args()
    process.import_quietly(verbose=False)
    env = make("Pendulum-v1")
    seeds = [*TEST_STARTS, *VALIDATION_STARTS[:100]]
    states = []
    for seed in seeds:
        env.reset(seed=seed)
        states.append(env.unwrapped.state)
    states = np.array(states)

    def both(array):
        """Means over the two sets of starts."""
        parts = np.split(np.array(array, dtype=float), [len(TEST_STARTS)])
        return [round(part.mean(), 4) for part in parts]

    print("Mean returns from the starts of seeds 0 to 99 / 10000 to 10099\n")
    print("| grid | by the grid's values | greedy | beam | best episodes found | seconds |")
    print("|---|---|---|---|---|---|")
    convergence, best = [], {}
    rows = {size: widths for size, widths in ROWS.items() if size < 801 or not args.quick}
    for size, widths in rows.items():
        began = time.time()
        values = optimum.value_functions(size - 1, size, N_TORQUES)
        value = optimum.interpolate(values[-1], *states.T)
        greedy = greedy_return(values[-2::-1], *states.T)
        for width in widths:
            returns = [
                play(env, seed, best_episode(values, *state, width)[1])
                for seed, state in zip(seeds, states)
            ]
            means = {"value": both(value), "greedy": both(greedy), "beam": both(returns)}
            row = {"angles": size - 1, "speeds": size, "torques": N_TORQUES, "width": width}
            row |= {"seconds": round(time.time() - began, 1), "means": means}
            convergence.append(row)
            for seed, reached in zip(seeds, returns):
                best[seed] = max(reached, best.get(seed, -np.inf))
            cells = [" / ".join(f"{mean:.2f}" for mean in pair) for pair in means.values()]
            cells.insert(2, str(width))
            print(f"| {size - 1} x {size} | {' | '.join(cells)} | {row['seconds']} |", flush=True)
    discounted = {}
    for gamma in GAMMAS:
        *_, value, _ = optimum.value_functions(size - 1, size, N_TORQUES, gamma=gamma)
        returns = greedy_return([value] * optimum.HORIZON, *states.T, gamma)
        discounted[str(gamma)] = both(returns)
        print(f"\nReturns, not discounted, of the best policy for gamma {gamma}: "
              + " / ".join(f"{mean:.2f}" for mean in discounted[str(gamma)]), flush=True)
    report = {
        "environment": "Pendulum-v1",
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {"python": platform.python_version(),
                     **{name: version(name) for name in ("gym", "numpy", "tensorflow")}},
        "convergence": convergence,
        "best_policy_for_gamma": discounted,
        "best_return": {str(seed): round(reached, 4) for seed, reached in best.items()},
    }
    text = json.dumps(report, indent=1) + "\n"
    write_atomically(args.out, lambda out: out.write(text.encode()))
    print(f"\nSaved {args.out}")


if __name__ == "__main__":
    main()
