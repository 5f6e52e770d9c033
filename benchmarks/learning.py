"""Do these scripts learn as well as libraries that people trust? TD3 and SAC on MuJoCo.

    pip install -r requirements-bench.txt -r requirements-envs.txt
    python benchmarks/learning.py           the runs that are missing, then pictures and table
    python benchmarks/learning.py --draw    pictures and table of the runs that are there

The papers' preset, and SBX (JAX) with the same settings as far as it has them: the same seeds,
steps, and greedy evaluations from the same start states. TD3 on HalfCheetah again with fewer
random steps, and with these each with choices of the other's, to see which of them matter. A run
takes five minutes to an hour, as fast as the processor multiplies matrices. Each is kept in
benchmarks/learning.json when it has finished; the same command goes on.
"""

import argparse
import functools
import importlib.metadata
import json
import platform
import shutil
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
LIBRARIES = {"this project": ["tensorflow"], "SBX": ["sbx-rl", "jax"]}  # with their packages
# trials of FEW, half as long: each library with choices of the other's
FLAGS = {"this project, updates as SBX": ["--soft-tau", "0.01", "--policy-loss", "min"]}
CHOICES = {"SBX, updates as here": ["updates"],
           "SBX, first weights as here": ["weights"],
           "SBX, both as here": ["updates", "weights"]}
TRIALS = [*FLAGS, *CHOICES]
PICTURES = {"Hopper-v5": ("Hopper-v5", ["TD3", "SAC"]),
            "HalfCheetah-v5": ("HalfCheetah-v5", ["TD3", "SAC"]),
            "HalfCheetah-v5_random_steps": ("HalfCheetah-v5", ["TD3", FEW])}
SEEDS = range(3)
STEPS, EVERY, EPISODES = 100_000, 5000, 10
READ = {"at 50,000 steps": [50_000], "at 100,000 steps": [100_000],  # the table's columns
        "80,000 to 100,000": range(80_000, STEPS + 1, EVERY)}


def steps_of(library):
    return STEPS // 2 if library in TRIALS else STEPS


def flags_of(task, setting, library):
    """The flags of a setting beside the preset."""
    return [*TASKS[task][setting][1:], *FLAGS.get(library, [])]


def words_of(task, setting, library, seed):
    """The command line of a script's training, whose constants SBX takes over."""
    return ["--train", "--env", task, "--preset", "paper", *flags_of(task, setting, library),
            "--steps", str(steps_of(library)), "--seed", str(seed), "--evaluate-every", str(EVERY),
            "--evaluation-episodes", str(EPISODES)]


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
    evaluations = checkpoint.progress_in(state).evaluations
    shutil.rmtree(folder)
    return evaluations


def td3_as_here(choices, soft_tau):
    """SBX's TD3 with these `choices` of this project's: a class, the only one of its process."""
    import flax.linen
    import jax
    import sbx

    if "weights" in choices:  # as with weight_init="fan_in"
        uniform = flax.linen.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        flax.linen.Dense = functools.partial(flax.linen.Dense, kernel_init=uniform)
    if "updates" not in choices:
        return sbx.TD3

    class TD3(sbx.TD3):
        """The policy learns from the first Q; all targets move then, and at no other time."""

        @staticmethod
        def soft_update(tau, qf_state, actor_state):
            return qf_state, actor_state

        @staticmethod
        def update_actor(actor_state, qf_state, observations, key):
            key, dropout_key = jax.random.split(key)

            def loss(params):
                actions = actor_state.apply_fn(params, observations)
                q_values = qf_state.apply_fn(qf_state.params, observations, actions,
                                             rngs={"dropout": dropout_key})
                return -q_values[0].mean()

            value, gradients = jax.value_and_grad(loss)(actor_state.params)
            actor_state = actor_state.apply_gradients(grads=gradients)
            qf_state, actor_state = sbx.TD3.soft_update(soft_tau, qf_state, actor_state)
            return actor_state, qf_state, value, key

    return TD3


def of_sbx(task, setting, library, seed):
    """The same of SBX, in this process."""
    import gymnasium
    import sbx
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
    choices = CHOICES.get(library, [])
    agent = (td3_as_here(choices, preset["SOFT_TAU"]) if choices
             else getattr(sbx, preset["ALG_NAME"]))
    if "updates" in choices:
        settings["policy_kwargs"]["optimizer_kwargs"] = {"eps": 1e-7}  # Keras' Adam has it
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

    model = agent("MlpPolicy", env, **settings)
    model.learn(steps_of(library), callback=Evaluate())
    return evaluations


def finished():
    """The runs that are kept: list of dict."""
    return json.loads(KEPT.read_text(encoding="utf-8"))["runs"] if KEPT.exists() else []


def measure(task, setting, library, seed):
    """Make one run and keep it."""
    began, package = time.time(), library.partition(",")[0]
    if package == "SBX":
        line = [sys.executable, __file__, "--one", task, setting, library, str(seed)]
        said = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True).stdout
        evaluations = json.loads(said.splitlines()[-1])
    else:
        evaluations = of_this_project(task, setting, library, seed)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            stdout=subprocess.PIPE, text=True).stdout.strip()
    versions = {name: importlib.metadata.version(name)
                for name in [*LIBRARIES[package], "gymnasium", "mujoco"]}
    run = {"task": task, "setting": setting, "library": library, "seed": seed,
           "evaluations": evaluations, "commit": commit, "versions": versions,
           "python": platform.python_version(), "date": date.today().isoformat()}
    kept = [json.dumps(one) for one in [*finished(), run]]  # a line for each
    text = '{"runs": [\n' + ",\n".join(kept) + "\n]}\n"
    write_atomically(KEPT, lambda file: file.write(text.encode()))
    _, returns = evaluations[-1]
    print(f"{setting}, {library}, on {task}, seed {seed}: {sum(returns) / len(returns):.0f} "
          f"in {time.time() - began:.0f} s", flush=True)


def measured(found, task, settings, libraries=LIBRARIES):
    """The runs of a task as common/comparison takes them: dict from a label to a list."""
    of_label = {f"{setting}, {library}": [
        run for run in found
        if (run["task"], run["setting"], run["library"]) == (task, setting, library)
    ] for setting in settings for library in libraries}
    return {label: runs_of for label, runs_of in of_label.items() if runs_of}


def table(found):
    """Returns where READ says, mean and range over seeds, as Markdown."""
    from common.comparison import statistics  # late: SciPy takes a while

    lines = ["| task | setting | flags | seeds | " + " | ".join(READ) + " |",
             "|---" * (4 + len(READ)) + "|"]
    for task, settings in TASKS.items():
        for label, results in measured(found, task, settings, [*LIBRARIES, *TRIALS]).items():
            steps, returns = statistics.curves(results, EVERY)
            flags = " ".join(flags_of(task, results[0]["setting"], results[0]["library"]))
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
        print("\n" + json.dumps(of_sbx(*of, int(seed))))
        return
    done = {(run["task"], run["setting"], run["library"], run["seed"]) for run in finished()}
    for seed in [] if args.draw else SEEDS:  # seed by seed, so that early pictures are fair
        for task, settings in TASKS.items():
            for setting in settings:
                for library in [*LIBRARIES, *(TRIALS if setting == FEW else [])]:
                    if (task, setting, library, seed) not in done:
                        measure(task, setting, library, seed)
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
