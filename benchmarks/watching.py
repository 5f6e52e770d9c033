"""What watching and safety cost: the same training plain, with TensorBoard, saved more often.

    python benchmarks/watching.py

Whole runs of the scripts, taking turns; counted is the time from the end of the 20th episode
to the end of the last, so without imports and compilation.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
EPISODES, FROM = 80, 20
WAYS = {
    "plain": ["--checkpoint-every", "1000"],
    "state saved every 10 episodes (default)": [],
    "state saved every episode": ["--checkpoint-every", "1"],
    "--tensorboard": ["--checkpoint-every", "1000", "--tensorboard"],
}


def seconds(algorithm, flags, folder):
    """Running time of the counted episodes of one training."""
    if "--tensorboard" in flags:
        flags = [*flags, str(folder / "runs")]
    if algorithm == "ddpg":
        flags = [*flags, "--learn-after", "1000"]  # learns as long as the others
    command = [sys.executable, f"{algorithm}.py", "--train", "--episodes", str(EPISODES), *flags]
    command += ["--model-dir", str(folder / "model"), "--image-dir", str(folder / "image")]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    times = [float(t) for t in re.findall(r"Running Time: ([\d.]+)", out)]
    if len(times) != EPISODES:
        raise SystemExit(f"{' '.join(command)} failed: run it by hand")
    return times[-1] - times[FROM - 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algorithms", nargs="+", default=["ddpg", "td3", "sac"])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: 3)")
    args = parser.parse_args()
    print(f"seconds for episodes {FROM + 1} to {EPISODES}, medians of {args.rounds}\n")
    print("| | " + " | ".join(WAYS) + " |\n" + "|---" * (len(WAYS) + 1) + "|")
    for algorithm in args.algorithms:
        times = {way: [] for way in WAYS}
        for _ in range(args.rounds):
            for way, flags in WAYS.items():
                with tempfile.TemporaryDirectory() as folder:
                    times[way].append(seconds(algorithm, flags, Path(folder)))
        medians = [statistics.median(t) for t in times.values()]
        cells = [f"{m:.2f} ({m / medians[0] - 1:+.1%})" for m in medians]
        print(f"| {algorithm.upper()} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
