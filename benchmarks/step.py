"""What a step of an environment costs beyond the library's own, checks included: microseconds.

    python benchmarks/step.py --env Pendulum-v1 HalfCheetah-v5

The two take turns, and the fastest of many turns counts: other work on the machine only adds.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

STEPS, TURNS = 20, 1000


def fastest(env_id):
    """Microseconds of a step: the library's own, and Environment's."""
    from common.environment import make

    env = make(env_id)
    action = env.action_space.high * 0.1
    inner, best = env._env, [float("inf")] * 2
    theirs = action.reshape(inner.action_space.shape).astype(inner.action_space.dtype)
    for _ in range(TURNS):
        for i, (step, given) in enumerate([(inner.step, theirs), (env.step, action)]):
            env.reset(seed=1)
            start = time.perf_counter()
            for _ in range(STEPS):
                step(given)
            best[i] = min(best[i], (time.perf_counter() - start) / STEPS * 1e6)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", nargs="+", default=["Pendulum-v1"], help="default: Pendulum-v1")
    print("| environment | library | Environment.step | difference |\n|---|---|---|---|")
    for env_id in parser.parse_args().env:
        library, ours = fastest(env_id)
        print(f"| {env_id} | {library:.2f} | {ours:.2f} | {ours - library:.2f} |", flush=True)


if __name__ == "__main__":
    main()
