"""Do these scripts learn as well as libraries that people trust? TD3 and SAC on MuJoCo.

    pip install -r requirements-bench.txt -r requirements-envs.txt
    python benchmarks/learning.py           the runs that are missing, then pictures and table
    python benchmarks/learning.py --draw    pictures and table of the runs that are there

The papers' preset, and SBX (JAX) with the same settings as far as it has them: the same seeds,
steps, and greedy evaluations from the same start states; TD3 on HalfCheetah again with fewer random
steps. A run takes five minutes to an hour, as fast as the processor multiplies matrices. Each is
kept in benchmarks/learning.json when it has finished; the same command goes on.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import compare
from common import comparison, runs
from common.evaluation import VALIDATION_STARTS
from common.files import write_atomically

KEPT = ROOT / "benchmarks" / "learning.json"
FEW = "TD3, 1,000 random steps"
SETTINGS = {"TD3": ["td3"],  # with their flags beside the preset
            FEW: ["td3", "--explore-steps", "1000", "--learn-after", "1000"],
            "SAC": ["sac"]}
TASKS = {"Hopper-v5": ["TD3", "SAC"], "HalfCheetah-v5": ["TD3", FEW, "SAC"]}
LIBRARIES = {"this project": ["tensorflow"], "SBX": ["sbx-rl", "jax"]}  # with their packages
PICTURES = {"Hopper-v5": ("Hopper-v5", ["TD3", "SAC"]),
            "HalfCheetah-v5": ("HalfCheetah-v5", ["TD3", "SAC"]),
            "HalfCheetah-v5_random_steps": ("HalfCheetah-v5", ["TD3", FEW])}
SEEDS = range(3)
STEPS, EVERY, EPISODES = 100_000, 5000, 10
READ = {"at 50,000 steps": [50_000], "at 100,000 steps": [100_000],  # the table's columns
        "80,000 to 100,000": range(80_000, STEPS + 1, EVERY)}


def run_of(task, setting, seed):
    """The training of a script: runs.Run."""
    algorithm, *flags = SETTINGS[setting]
    words = ["--algorithms", algorithm, "--env", task, "--preset", "paper", *flags,
             "--steps", str(STEPS), "--evaluate-every", str(EVERY),
             "--evaluation-episodes", str(EPISODES)]
    settings, _ = compare.settings_of(*compare.parse(words))
    run, = compare.all_runs(settings, [seed])
    return run


def of_this_project(task, setting, seed):
    """The evaluations [steps, returns] of one training of a script, resumed if it was cut."""
    run = run_of(task, setting, seed)
    return runs.execute(run, run.folder(ROOT / "runs" / "learning"), threads=2)["evaluations"]


def of_sbx(task, setting, seed):
    """The same of SBX, in this process."""
    import gymnasium
    import sbx
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import NormalActionNoise

    preset = run_of(task, setting, seed).constants
    width = preset["HIDDEN_DIM"]
    settings = {
        "batch_size": preset["BATCH_SIZE"], "buffer_size": preset["REPLAY_BUFFER_SIZE"],
        "gamma": preset["GAMMA"], "tau": preset["SOFT_TAU"],
        "learning_rate": preset["POLICY_LR"], "learning_starts": preset["LEARN_AFTER"],
        "train_freq": 1, "gradient_steps": preset["UPDATE_ITR"], "seed": seed,
        # the chapter's policy has three hidden layers, its Q networks have two
        "policy_kwargs": {"net_arch": {"pi": [width] * 3, "qf": [width] * 2}},
    }
    env = gymnasium.make(task)
    if preset["ALG_NAME"] == "TD3":
        size = env.action_space.shape[0]
        settings |= {
            "policy_delay": preset["POLICY_TARGET_UPDATE_INTERVAL"],
            "action_noise": NormalActionNoise(
                np.zeros(size), np.full(size, preset["EXPLORE_NOISE_SCALE"])
            ),
            "target_policy_noise": preset["EVAL_NOISE_SCALE"],
            "target_noise_clip": 2 * preset["EVAL_NOISE_SCALE"],  # as evaluate() does
        }
    evaluations, playground = [], gymnasium.make(task)

    class Evaluate(BaseCallback):
        """Every so many steps, greedy episodes from the starts that the scripts use."""

        def _on_training_start(self):
            self._on_step()  # the scripts, too, evaluate before they learn

        def _on_step(self):
            if self.num_timesteps % EVERY == 0:
                returns = [self._play(start) for start in VALIDATION_STARTS[:EPISODES]]
                evaluations.append([self.num_timesteps, returns])
            return True

        def _play(self, start):
            state, _ = playground.reset(seed=start)
            total, over = 0.0, False
            while not over:
                action, _ = self.model.predict(state, deterministic=True)
                state, reward, done, cut, _ = playground.step(action)
                total, over = total + reward, done or cut
            return float(total)

    model = getattr(sbx, preset["ALG_NAME"])("MlpPolicy", env, **settings)
    model.learn(STEPS, callback=Evaluate())
    return evaluations


def finished():
    """The runs that are kept: list of dict."""
    return json.loads(KEPT.read_text(encoding="utf-8"))["runs"] if KEPT.exists() else []


def measure(task, setting, library, seed):
    """Make one run and keep it."""
    began = time.time()
    if library == "SBX":
        line = [sys.executable, __file__, "--one", task, setting, str(seed)]
        said = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True).stdout
        evaluations = json.loads(said.splitlines()[-1])
    else:
        evaluations = of_this_project(task, setting, seed)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            stdout=subprocess.PIPE, text=True).stdout.strip()
    versions = {name: importlib.metadata.version(name)
                for name in [*LIBRARIES[library], "gymnasium", "mujoco"]}
    run = {"task": task, "setting": setting, "library": library, "seed": seed,
           "evaluations": evaluations, "commit": commit, "versions": versions,
           "python": platform.python_version(), "date": date.today().isoformat()}
    kept = [json.dumps(one) for one in [*finished(), run]]  # a line for each
    text = '{"runs": [\n' + ",\n".join(kept) + "\n]}\n"
    write_atomically(KEPT, lambda file: file.write(text.encode()))
    _, returns = evaluations[-1]
    print(f"{setting}, {library}, on {task}, seed {seed}: {sum(returns) / len(returns):.0f} "
          f"in {time.time() - began:.0f} s", flush=True)


def measured(found, task, settings):
    """The runs of a task as common/comparison.py takes them: dict from a label to a list."""
    of_label = {f"{setting}, {library}": [
        run for run in found
        if (run["task"], run["setting"], run["library"]) == (task, setting, library)
    ] for setting in settings for library in LIBRARIES}
    return {label: runs_of for label, runs_of in of_label.items() if runs_of}


def table(found):
    """Returns where READ says, mean and range over seeds, as Markdown."""
    lines = ["| task | setting | seeds | " + " | ".join(READ) + " |",
             "|---" * (3 + len(READ)) + "|"]
    for task, settings in TASKS.items():
        for label, results in measured(found, task, settings).items():
            steps, returns = comparison.curves(results, EVERY)
            of_each = [returns[:, np.isin(steps, list(at))].mean(1) for at in READ.values()]
            cells = [f"{r.mean():.0f} ({r.min():.0f} to {r.max():.0f})" for r in of_each]
            lines.append(f"| {task} | {label} | {len(results)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="train nothing")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.one:
        task, setting, seed = args.one
        print("\n" + json.dumps(of_sbx(task, setting, int(seed))))
        return
    done = {(run["task"], run["setting"], run["library"], run["seed"]) for run in finished()}
    for seed in [] if args.draw else SEEDS:  # seed by seed, so that early pictures are fair
        for task, settings in TASKS.items():
            for setting in settings:
                for library in LIBRARIES:
                    if (task, setting, library, seed) not in done:
                        measure(task, setting, library, seed)
    found = finished()
    for name, (task, settings) in PICTURES.items():
        path = ROOT / "image" / f"learning_{name}.png"
        runs_of = measured(found, task, settings)
        if runs_of:
            comparison.draw(path, runs_of, EVERY, f"{task}, paper constants")
            print(f"Saved {path}")
    print(table(found))


if __name__ == "__main__":
    main()
