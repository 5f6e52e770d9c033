"""Do these scripts learn as well as libraries that people trust? TD3 and SAC on MuJoCo.

    pip install -r requirements-bench.txt -r requirements-envs.txt
    python benchmarks/learning.py           the runs that are missing, then pictures and table
    python benchmarks/learning.py --draw    pictures and table of the runs that are there

The papers' preset, and SBX (JAX) with the same settings as far as it has them: the same seeds,
steps, and greedy evaluations from the same start states. TD3 on HalfCheetah again with fewer
random steps, and then beside Stable-Baselines3 (PyTorch), too. Seed 0 of this project goes on
to 300,000 steps: its best weights, in runs/learning/, are the agents that ship. A run takes
five minutes to an hour, as fast as the processor multiplies matrices. Each is kept in
benchmarks/learning.json when it has finished; the same command goes on.
"""

import argparse
import importlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.files.names import ROOT, safe_name, state_path
from common.files.whole import write_atomically
from common.flags import Command
from common.training.evaluation import VALIDATION_STARTS

KEPT = ROOT / "benchmarks" / "learning.json"
FEW = "TD3, 1,000 random steps"
TASKS = {  # for each setting, script and flags beside the preset
    "Hopper-v5": {"TD3": ["td3"], "SAC": ["sac"]},
    "HalfCheetah-v5": {"TD3": ["td3", "--explore-steps", "10000", "--learn-after", "10000"],
                       FEW: ["td3"], "SAC": ["sac"]},
}
LIBRARIES = {"this project": ["tensorflow"], "SBX": ["sbx-rl", "jax"],
             "SB3": ["stable-baselines3", "torch"]}  # with their packages
PICTURES = {"Hopper-v5": ("Hopper-v5", ["TD3", "SAC"]),
            "HalfCheetah-v5": ("HalfCheetah-v5", ["TD3", "SAC"]),
            "HalfCheetah-v5_random_steps": ("HalfCheetah-v5", ["TD3", FEW])}
STEPS, EVERY, EPISODES = 100_000, 5000, 10
SHIPPED = 300_000  # steps of this project's seed 0
READ = {"at 50,000 steps": [50_000], "at 100,000 steps": [100_000],  # the table's columns
        "80,000 to 100,000": range(80_000, STEPS + 1, EVERY)}


def plan():
    """The runs (task, setting, library, seed), seed by seed, so that early pictures are fair."""
    for seed in range(5):
        for task, settings in TASKS.items():
            for setting in settings:
                asked = setting == FEW or (task, setting) == ("HalfCheetah-v5", "SAC")
                for library in LIBRARIES if seed < (5 if asked else 3) else []:
                    if library != "SB3" or setting == FEW:
                        yield task, setting, library, seed


def steps_of(setting, library, seed):
    if setting == FEW:
        return STEPS // 2
    return SHIPPED if (library, seed) == ("this project", 0) else STEPS


def words_of(task, setting, library, seed):
    """The command line of a script's training, whose constants the libraries take over."""
    return ["--train", "--env", task, "--preset", "paper", *TASKS[task][setting][1:],
            "--steps", str(steps_of(setting, library, seed)), "--seed", str(seed),
            "--evaluate-every", str(EVERY), "--evaluation-episodes", str(EPISODES),
            "--keep", "best", "--checkpoint-every", "50"]


def of_this_project(task, setting, library, seed):
    """The evaluations [steps, returns] of one training of a script, resumed if it was cut."""
    from common.training import checkpoint  # late: SBX needs no TensorFlow

    script = f"{TASKS[task][setting][0]}.py"
    folder = ROOT / "runs" / "learning" / safe_name(f"{task} {setting} {library} {seed}")
    words = [*words_of(task, setting, library, seed), "--model-dir", str(folder), "--image-dir",
             str(folder)]
    state = state_path(folder, *Command(ROOT / script).read(words).task)
    resume = ["--resume"] if state.exists() else []
    subprocess.run([sys.executable, str(ROOT / script), *words, *resume],
                   stdout=subprocess.DEVNULL, check=True)
    return checkpoint.progress_in(state).evaluations


def of_library(task, setting, library, seed):
    """The same of SBX or SB3, in this process."""
    import gymnasium
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import NormalActionNoise

    words = words_of(task, setting, library, seed)
    preset = Command(ROOT / f"{TASKS[task][setting][0]}.py").read(words).everything
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

    agents = importlib.import_module({"SBX": "sbx", "SB3": "stable_baselines3"}[library])
    model = getattr(agents, preset["ALG_NAME"])("MlpPolicy", env, **settings)
    model.learn(steps_of(setting, library, seed), callback=Evaluate())
    return evaluations


def finished():
    """The runs that are kept: list of dict."""
    return json.loads(KEPT.read_text(encoding="utf-8"))["runs"] if KEPT.exists() else []


def measure(task, setting, library, seed):
    """Make one run and keep it."""
    began = time.time()
    if library != "this project":
        line = [sys.executable, __file__, "--one", task, setting, library, str(seed)]
        said = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True).stdout
        evaluations = json.loads(said.splitlines()[-1])
    else:
        evaluations = of_this_project(task, setting, library, seed)
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
    """The runs of a task as common/comparison takes them: dict from a label to a list."""
    of_label = {}
    for setting in settings:
        for library in LIBRARIES:
            until = min(STEPS, steps_of(setting, library, 0)) + EVERY
            runs = [run | {"evaluations": [one for one in run["evaluations"] if one[0] < until]}
                    for run in found if (run["task"], run["setting"], run["library"])
                    == (task, setting, library)]
            if runs:
                of_label[f"{setting}, {library}"] = runs
    return of_label


def table(found):
    """Returns where READ says, mean and range over seeds, as Markdown."""
    from common.comparison import statistics  # late: SciPy takes a while

    lines = ["| task | setting | flags | seeds | " + " | ".join(READ) + " |",
             "|---" * (4 + len(READ)) + "|"]
    for task, settings in TASKS.items():
        for label, results in measured(found, task, settings).items():
            steps, returns = statistics.curves(results, EVERY)
            flags = " ".join(settings[results[0]["setting"]][1:])
            flags = f"`{flags}`" if flags else ""
            of_each = [returns[:, np.isin(steps, list(at))] for at in READ.values()]
            cells = [f"{r.mean():.0f} ({r.mean(1).min():.0f} to {r.mean(1).max():.0f})"
                     if r.size else "" for r in of_each]
            cells = [task, label, flags, str(len(results)), *cells]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="train nothing")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.one:
        *of, seed = args.one
        print("\n" + json.dumps(of_library(*of, int(seed))))
        return
    done = {(run["task"], run["setting"], run["library"], run["seed"]) for run in finished()}
    for run in [] if args.draw else plan():
        if run not in done:
            measure(*run)
    from common.comparison import picture

    found = finished()
    for name, (task, settings) in PICTURES.items():
        path = ROOT / "docs" / "pictures" / f"learning_{name}.png"
        runs_of = measured(found, task, settings)
        if runs_of:
            picture.draw(path, runs_of, EVERY, f"{task}, paper constants")
            print(f"Saved {path}")
    print(table(found))


if __name__ == "__main__":
    main()
