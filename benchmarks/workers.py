"""Do parallel runs of compare.py fight for the cores? The same runs with one worker and with all.

    python benchmarks/workers.py                  one worker for each core
    python benchmarks/workers.py --workers 4

Efficiency is the time of one worker over N times that of N workers: 100 % if N runs at a time
take no longer than one. Whole processes count, imports and compilation included.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def seconds(algorithm, steps, seeds, workers):
    """How long compare.py takes for so many seeds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "compare.py"), "--algorithms", algorithm, "--seeds",
                   f"0-{seeds - 1}", "--steps", str(steps), "--evaluate-every",
                   str(min(steps, 1000)), "--workers", str(workers),
                   "--runs-dir", f"{folder}/runs", "--image-dir", f"{folder}/image"]
        if algorithm == "ddpg":  # so that it learns in a short run, too
            command += ["--learn-after", str(steps // 2)]
        began = time.time()
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            sys.exit(1)  # it has said why
        return time.time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: the cores")
    parser.add_argument("--steps", type=int, default=5000, help="of each run (default: 5000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: 3)")
    args = parser.parse_args()
    if min(args.workers, args.steps, args.rounds) < 1:
        parser.error("--workers, --steps and --rounds must be in [1, inf)")
    print("| | one worker | all workers | efficiency |\n|---|---|---|---|")
    for algorithm in ("ddpg", "td3", "sac"):
        times = {1: [], args.workers: []}
        for _ in range(args.rounds):
            for workers in times:
                times[workers].append(seconds(algorithm, args.steps, args.workers, workers))
        one, all_ = (statistics.median(times[workers]) for workers in (1, args.workers))
        cells = f"{one:.1f} s | {all_:.1f} s | {one / (args.workers * all_):.0%}"
        print(f"| {algorithm.upper()} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
