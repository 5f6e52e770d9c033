"""Training speed beside Stable-Baselines3 (PyTorch), SBX and Rejax (JAX), in one run.

    pip install -r requirements-bench.txt
    python benchmarks/throughput.py            tables, benchmarks/throughput.json, a picture
    python benchmarks/throughput.py --quick    the same in some minutes, less exact
    python benchmarks/throughput.py --only whole    the commands and the picture; or: steps
    python benchmarks/throughput.py --quick --before ../old    this code and another checkout's

All have the same widths, batch size, updates per step and policy delay, on Pendulum, and take
turns: in every round, each is measured once. So all of them see the same machine, and ratios of
their medians hold even where it is noisy.

Whole commands are what a reader waits for: a process trains an agent with the scripts' 100
episodes, saves it and ends. All of that counts: imports, compilation, the scripts' curve. The
scripts keep what they have compiled, so their first start is one contestant and their second
another.

Steps are measured in processes that live on: after each has compiled and learned for a while, it
is asked for some environment steps, learning on, and times them. The floor is this project's
updates alone, looped inside one XLA call: no environment, no acting, no sampling, no Python.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.files.figures import new_figure, save_figure

ROOT = Path(__file__).parent.parent
ALGORITHMS = ["ddpg", "td3", "sac"]
SIZES = {
    "chapter": {
        "ddpg": {"width": 64, "batch": 32, "updates": 1, "delay": 1, "layers": 2},
        "td3": {"width": 64, "batch": 64, "updates": 3, "delay": 3, "layers": 3},
        "sac": {"width": 32, "batch": 256, "updates": 3, "delay": 1, "layers": 3},
    },
    "papers": {
        "ddpg": {"width": 256, "batch": 256, "updates": 1, "delay": 1, "layers": 2},
        "td3": {"width": 256, "batch": 256, "updates": 1, "delay": 2, "layers": 3},
        "sac": {"width": 256, "batch": 256, "updates": 1, "delay": 1, "layers": 3},
    },
}
CONTESTANTS = ["ours", "plain", "eager", "SB3", "SBX", "Rejax", "floor"]
# in one turn
STEPS = {"ours": 1000, "plain": 500, "eager": 20, "SB3": 200, "SBX": 500, "Rejax": 1000,
         "floor": 1000}
STEPS["before"] = STEPS["ours"]
MODULES = {"SB3": "stable_baselines3", "SBX": "sbx"}
WARM_UP = 1100  # steps before learning, so that batches are drawn from something
FIRST, SECOND, OTHERS = "ours, first start", "ours, second start", ["SBX", "SB3", "Rejax"]
ROWS = {SECOND: "this project,\nsecond start", FIRST: "this project,\nfirst start",
        "SBX": "SBX (JAX)", "Rejax": "Rejax (JAX)", "SB3": "SB3 (PyTorch)"}  # of the picture


class Ours:
    """This project's agent in the scripts' loop, on behalf of a worker process.

    Args:
        how: "ours", "eager", or "plain": compiled by tf.function alone, without the fast engine.
    """

    def __init__(self, algorithm, size, how, clock):
        from common import process

        process.import_quietly(verbose=False)
        clock("import TensorFlow and TensorLayer")
        module = importlib.import_module(algorithm)
        clock("import the rest")
        import tensorflow as tf

        from common.engine import fast
        from common.tasks.making import make

        tf.config.run_functions_eagerly(how == "eager")
        if how == "plain":
            fast.usable = lambda programs: False
        module.BATCH_SIZE, module.HIDDEN_DIM = size["batch"], size["width"]
        self.module, self.algorithm, self.updates = module, algorithm, size["updates"]
        self.env = make("Pendulum-v1")
        self.env.seed(2)
        state_dim, high = 3, self.env.action_space.high
        if algorithm == "ddpg":
            module.MEMORY_CAPACITY = WARM_UP
            self.agent = module.DDPG(1, state_dim, high)
        else:
            self.buffer = module.ReplayBuffer(module.REPLAY_BUFFER_SIZE)
            make_agent = getattr(module, module.ALG_NAME)
            delay = [size["delay"]] if algorithm == "td3" else []
            self.agent = make_agent(state_dim, 1, self.buffer, size["width"], high, *delay)
        self.state = self.env.reset()
        clock("build the agent")
        self._steps(WARM_UP, learn=False)
        clock(f"{WARM_UP} steps without learning")
        self._steps(1)
        clock("first update" if how == "eager" else "trace and compile the update and the policy")

    def act(self):
        if self.algorithm == "td3":
            return self.agent.policy_net.get_action(self.state, 1.0)
        return getattr(self.agent, "policy_net", self.agent).get_action(self.state)

    def store(self, action, reward, next_state, done):
        if self.algorithm == "ddpg":
            self.agent.store_transition(self.state, action, reward, next_state, done)
        else:
            self.buffer.push(self.state, action, reward, next_state, done)

    def update(self):
        if self.algorithm == "ddpg":
            self.agent.learn(self.updates)
        elif self.algorithm == "td3":
            self.agent.update(self.module.BATCH_SIZE, 0.5, 1.0, n_updates=self.updates)
        else:
            self.agent.update(self.module.BATCH_SIZE, 1.0, True, -1.0, n_updates=self.updates)

    def _steps(self, n, learn=True):
        for _ in range(n):
            action = self.act()
            next_state, reward, done, _ = self.env.step(action)
            self.store(action, reward, next_state, self.env.terminal)
            self.state = next_state
            if learn:
                self.update()
            if done:
                self.state = self.env.reset()

    def run(self, n):
        start = time.perf_counter()
        self._steps(n)
        return time.perf_counter() - start

    def parts(self, n=1000):
        """Microseconds of each part of a step while learning, medians."""
        call = self.agent.update_networks = self.agent.update_networks  # one, to be timed
        part_of = {"act": (self, "act"), "environment": (self.env, "step"),
                   "of it the task": (self.env.unwrapped, "step"), "store": (self, "store"),
                   "call": (call, "for_each"), "sample": (self, "update")}
        taken = {name: timed(*method) for name, method in part_of.items()}
        whole = timed(self, "_steps")
        for _ in range(n):
            self._steps(1)
        medians = {name: statistics.median(times) * 1e6 for name, times in taken.items()}
        total = statistics.median(whole) * 1e6
        medians["rest"] = total - sum(medians[name] for name in ("act", "environment", "store",
                                                                 "sample"))
        medians["sample"] -= medians["call"]  # an update is both
        return medians


def timed(owner, name):
    """From now on, measure each call of a method; returns the list that the seconds go to."""
    method, times = getattr(owner, name), []

    def call(*args, **kwargs):
        start = time.perf_counter()
        result = method(*args, **kwargs)
        times.append(time.perf_counter() - start)
        return result

    setattr(owner, name, call)
    return times


class Floor(Ours):
    """The updates of Ours, again and again inside one XLA call."""

    def __init__(self, algorithm, size, clock):
        super().__init__(algorithm, size, "eager", clock)
        import tensorflow as tf

        from common.noise import Normal

        tf.config.run_functions_eagerly(False)
        # Noise of zeros: the numbers do not matter, and drawing them is not part of the floor.
        Normal.sample = lambda self, shape: tf.zeros(shape)
        agent = self.agent
        batches = [[*map(tf.constant, self._batch())] for _ in range(self.updates)]
        constants = {"ddpg": [], "td3": [0.5, 1.0, 0.9, 0.01],
                     "sac": [1.0, True, -1.0, 0.99, 0.01]}[algorithm]
        # Where the policy has its turn once in several steps, one pass is that many steps.
        self.period = max(1, size["delay"] // size["updates"])

        def one_pass(done):
            if algorithm == "sac":  # no tensor may stay from pass to pass
                agent.alpha = tf.math.exp(agent.log_alpha)
            for i in range(self.period * size["updates"]):
                turn = [(i + 1) % size["delay"] == 0] if algorithm == "td3" else []
                agent.update_networks(*batches[i % size["updates"]], *turn, *constants)
            return done + 1

        def loop(n):
            return tf.while_loop(lambda done: done < n, one_pass, [0])

        self.loop = tf.function(
            loop, jit_compile=True, autograph=False
        ).get_concrete_function(tf.TensorSpec([], tf.int32))
        self.constant = tf.constant
        self.loop(self.constant(1))

    def _batch(self):
        if self.algorithm == "ddpg":
            return (self.agent.memory[np.random.choice(WARM_UP, self.module.BATCH_SIZE)],)
        return self.buffer.sample(self.module.BATCH_SIZE)

    def run(self, n):
        passes = self.constant(n // self.period)
        start = time.perf_counter()
        self.loop(passes)[0].numpy()
        return time.perf_counter() - start


class Baselines:
    """The same algorithm and sizes in Stable-Baselines3 or SBX.

    Args:
        start: steps with random actions, after which it learns.
        buffer: rows of its replay buffer.
    """

    def __init__(self, library, algorithm, size, clock, start=WARM_UP, buffer=500_000):
        package = importlib.import_module(MODULES[library])
        clock(f"import {library}")
        width = size["width"]
        # SBX names the policies' layers like SB3; both get this project's widths and depths.
        net_arch = {"pi": [width] * size["layers"], "qf": [width] * 2}
        settings = {
            "batch_size": size["batch"], "gradient_steps": size["updates"], "train_freq": 1,
            "learning_starts": start, "buffer_size": buffer, "learning_rate": 3e-4,
            "policy_kwargs": {"net_arch": net_arch}, "seed": 2, "device": "cpu",
        }
        if algorithm == "td3":
            settings["policy_delay"] = size["delay"]
        if library == "SBX":
            del settings["device"]
        model_class = getattr(package, algorithm.upper())
        self.model = model_class("MlpPolicy", "Pendulum-v1", **settings)
        clock("build the agent")

    def warm_up(self, clock):
        self.model.learn(WARM_UP + 2)
        clock(f"{WARM_UP} steps without learning, first updates")

    def train_and_save(self, steps, path):
        self.model.learn(steps)
        self.model.save(path)

    def run(self, n):
        start = time.perf_counter()
        self.model.learn(n, reset_num_timesteps=False)
        return time.perf_counter() - start


class Rejax:
    """TD3 or SAC of the same sizes in Rejax: environment, buffer and all within one JAX program.

    Its TD3 lets the policy learn from each batch that the critics had since its last turn: from
    three at the chapter's sizes, where the others take one.

    Args:
        start, buffer: as those of Baselines; a small buffer, for on a CPU each step copies it.
    """

    def __init__(self, algorithm, size, clock, start=WARM_UP, buffer=12_000):
        import jax
        import rejax
        from flax import linen
        from rejax.networks import DeterministicPolicy, QNetwork, SquashedGaussianPolicy

        clock("import Rejax")
        settings = {"num_epochs": size["updates"], "batch_size": size["batch"],
                    "fill_buffer": start, "num_envs": 1, "skip_initial_evaluation": True,
                    "buffer_size": buffer}
        if algorithm == "td3":
            settings["policy_delay"] = max(1, size["delay"] // size["updates"])
        made = rejax.get_algo(algorithm).create(env="Pendulum-v1", **settings)
        policy = {"td3": DeterministicPolicy, "sac": SquashedGaussianPolicy}[algorithm]
        more = {"log_std_range": (-20, 2)} if algorithm == "sac" else {}
        space = made.env.action_space(made.env_params)

        def layers(n):
            return {"hidden_layer_sizes": (size["width"],) * n, "activation": linen.relu}

        self.made = made.replace(
            actor=policy(1, (space.low, space.high), **layers(size["layers"]), **more),
            critic=QNetwork(**layers(2)), eval_callback=lambda *_: 0,
        )
        self.jax, self.programs, self.key = jax, {}, jax.random.PRNGKey(2)

    def warm_up(self, clock):
        self.state = self.made.init_state(self.key)
        clock("build the agent")
        self.run(WARM_UP + 2)
        clock(f"{WARM_UP} steps without learning, first updates")

    def train_and_save(self, steps, path):
        """As its own documents train: the agent, too, is made within the program."""
        made = self.made.replace(total_timesteps=steps, eval_freq=steps)
        state, _ = self.jax.jit(made.train)(self.key)
        np.savez(path, *self.jax.tree.leaves((state.actor_ts.params, state.critic_ts.params)))

    def run(self, n):
        if n not in self.programs:  # the number of steps is built in
            part = self.made.replace(total_timesteps=n, eval_freq=n)
            step = self.jax.jit(lambda state: part.train(train_state=state)[0])
            self.programs[n] = step.lower(self.state).compile()
        start = time.perf_counter()
        self.state = self.jax.block_until_ready(self.programs[n](self.state))
        return time.perf_counter() - start


def other(name, *args, **kwargs):
    """A contestant that is not this project."""
    return Rejax(*args, **kwargs) if name == "Rejax" else Baselines(name, *args, **kwargs)


def worker(contestant, algorithm, size, started):
    """Obey the parent: it asks for `steps N`, `parts` of a step, peak `memory`."""
    timeline, last = {}, started

    def clock(what):
        nonlocal last
        now = time.time()
        timeline[what], last = now - last, now

    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print must not reach the parent as an answer
    if contestant == "floor":
        player = Floor(algorithm, size, clock)
    elif contestant in ("ours", "plain", "eager"):
        player = Ours(algorithm, size, contestant, clock)
    else:
        player = other(contestant, algorithm, size, clock)
        player.warm_up(clock)
    player.run(100 if contestant != "eager" else 5)

    def answer(value):
        print(json.dumps(value), file=channel, flush=True)

    answer(timeline)
    for line in sys.stdin:
        question, _, number = line.strip().partition(" ")
        if question == "parts":
            answer(player.parts())
        elif question == "memory":
            import resource

            answer(megabytes(resource.getrusage(resource.RUSAGE_SELF)))
        else:
            answer(player.run(int(number)))


def megabytes(usage):
    """The peak memory of a process, from what `resource` tells of it."""
    return usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


class Process:
    """A worker, seen from the parent."""

    def __init__(self, contestant, algorithm, size, root=ROOT):
        name = "ours" if contestant == "before" else contestant  # an older checkout knows no other
        command = [sys.executable, "benchmarks/throughput.py", "--worker", name, algorithm,
                   json.dumps(size), str(time.time())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, cwd=root)
        self.timeline = self._answer()

    def ask(self, question):
        print(question, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args[2:5])} ended; run it by hand")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def having(algorithm, names):
    """Those of the contestants that have the algorithm: Rejax has no DDPG."""
    return [name for name in names if (algorithm, name) != ("ddpg", "Rejax")]


def measure(algorithm, size, contestants, rounds, share, before=None):
    """All contestants of one algorithm, side by side: dict for the JSON file."""
    roots = {"before": before}
    contestants = having(algorithm, contestants)
    workers = {n: Process(n, algorithm, size, roots.get(n, ROOT)) for n in contestants}
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, process in workers.items():
            steps = max(10, int(STEPS[name] * share))
            times[name].append(process.ask(f"steps {steps}") / steps * 1e3)
    result = {
        "milliseconds per step": times,
        "median": {name: statistics.median(t) for name, t in times.items()},
        "parts": workers["ours"].ask("parts"),
        "timeline": {name: process.timeline for name, process in workers.items()},
        "peak megabytes": {name: process.ask("memory") for name, process in workers.items()},
    }
    for process in workers.values():
        process.end()
    return result


def whole(library, algorithm, steps):
    """A whole command of another library, as the scripts train at the chapter's sizes."""
    # Where this project is installed, too, they would import its packages, which takes seconds.
    for name in ("tensorflow", "gym"):
        sys.modules[name] = None
    start = {"ddpg": steps // 2, "td3": 500, "sac": 100}[algorithm]
    buffer = steps if library == "Rejax" else 10_000 if algorithm == "ddpg" else 500_000
    player = other(library, algorithm, SIZES["chapter"][algorithm], lambda what: None,
                   start=start, buffer=buffer)
    with tempfile.TemporaryDirectory() as folder:
        player.train_and_save(steps, Path(folder, "agent"))


def whole_commands(algorithm, steps, rounds, without):
    """The whole commands of one algorithm, in turns: lists of what each run took, by contestant."""
    contestants = [FIRST, SECOND, *(name for name in OTHERS if name not in without)]
    runs = {name: [] for name in having(algorithm, contestants)}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:  # a fresh copy has nothing compiled yet
            for script in ALGORITHMS:
                shutil.copy(ROOT / f"{script}.py", folder)
            shutil.copytree(ROOT / "common", Path(folder, "common"),
                            ignore=shutil.ignore_patterns("__pycache__"))
            for name in runs:
                if name in OTHERS:
                    command = [__file__, "--whole", name, algorithm, str(steps)]
                else:
                    made = tempfile.mkdtemp(dir=folder)
                    command = [f"{algorithm}.py", "--train", "--episodes", str(steps // 200),
                               "--model-dir", made, "--image-dir", made]
                    if algorithm == "ddpg":  # so that it learns in a short run, too
                        command += ["--learn-after", str(steps // 2)]
                runs[name].append(resources([sys.executable, *command], folder))
    return {name: {what: [run[what] for run in those] for what in those[0]}
            for name, those in runs.items()}


def resources(command, folder):
    """Run a command in a folder: its seconds, processor seconds and peak memory."""
    # What is compiled is kept where it is by default, whatever this machine's settings.
    settings = "TF_XLA_FLAGS", "PYTHONDONTWRITEBYTECODE"
    environment = {name: value for name, value in os.environ.items()
                   if "CACHE" not in name and name not in settings}
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as process:
        errors = process.stderr.read()  # to its end
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{errors}")
    return {"seconds": seconds, "processor seconds": usage.ru_utime + usage.ru_stime,
            "peak megabytes": megabytes(usage)}


def in_order(results):
    """The contestants that some algorithm has."""
    return [n for n in [*CONTESTANTS, "before"] if any(n in r["median"] for r in results.values())]


def table(title, names, rows, digits):
    """Markdown of numbers by algorithm and contestant, and of their ratios to the first, ours."""
    lines = ["", f"**{title}** (times ours)", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for algorithm, row in rows.items():
        ours = row[names[0]]
        cells = [
            f"{row[n]:.{digits}f}" + (f" ({row[n] / ours:.2f})" if n != names[0] else "")
            if n in row else "" for n in names
        ]
        lines.append(f"| {algorithm.upper()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def details(results):
    """Markdown of where our time goes, of the start, and of memory."""
    names = next(iter(results.values()))["parts"]
    lines = ["", f"| ours, us per step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for algorithm, result in results.items():
        parts = " | ".join(f"{us:.0f}" for us in result["parts"].values())
        lines.append(f"| {algorithm.upper()} | {parts} |")
    lines += ["", "| ours, seconds from process start | | |", "|---|---|---|"]
    for algorithm, result in results.items():
        timeline = result["timeline"]["ours"]
        shares = ", ".join(f"{what} {seconds:.1f}" for what, seconds in timeline.items())
        lines.append(f"| {algorithm.upper()} | {sum(timeline.values()):.1f} | {shares} |")
    names = in_order(results)
    lines += ["", f"| peak memory, MB | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for algorithm, result in results.items():
        peaks = result["peak megabytes"]
        cells = " | ".join(f"{peaks[n]:.0f}" if n in peaks else "" for n in names)
        lines.append(f"| {algorithm.upper()} | {cells} |")
    return "\n".join(lines)


def picture(path, results, title):
    """Dots of the whole commands' seconds: a panel for each algorithm, a row for each contestant.

    Every run is a ring, a little below the median, so that none hides behind it.
    """
    with new_figure(13, 6) as figure:
        panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
        for axes, (algorithm, runs) in zip(panels, results.items()):
            for y, name in enumerate(ROWS):
                if name not in runs:
                    axes.text(0.03, y, f"has no {algorithm.upper()}", fontsize=12, color="0.4",
                              va="center", transform=axes.get_yaxis_transform())
                    continue
                seconds = runs[name]["seconds"]
                median = statistics.median(seconds)
                color = "0.6" if name in OTHERS else "black"
                median_dots = axes.scatter(median, y, s=150, color=color)
                rings = axes.scatter(seconds, [y + 0.26] * len(seconds), s=30,
                                     facecolors="none", edgecolors="black", linewidths=1)
                axes.annotate(f"{median:.1f}", (median, y), xytext=(11, 0), va="center",
                              textcoords="offset points", fontsize=14)
            longest = max(max(those["seconds"]) for those in runs.values())
            axes.set_xlim(0, 1.25 * longest)  # room for its number
            axes.set_title(algorithm.upper(), fontsize=17)
            axes.grid(axis="x", alpha=0.3)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(ROWS)), ROWS.values())
        for label in panels[0].get_yticklabels()[:2]:
            label.set_fontweight("bold")
        panels[0].set_ylim(len(ROWS) - 0.5, -0.5)  # the first on top
        figure.suptitle(title, fontsize=17)
        figure.supxlabel("seconds")
        figure.legend([median_dots, rings], ["median", "each run"], loc="outside lower right",
                      ncols=2, frameon=False)
        save_figure(path, figure)


def main():
    if "--worker" in sys.argv:
        contestant, algorithm, size, started = sys.argv[2:]
        worker(contestant, algorithm, json.loads(size), float(started))
        return
    if "--whole" in sys.argv:
        library, algorithm, steps = sys.argv[2:]
        whole(library, algorithm, int(steps))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--only", choices=["whole", "steps"], help="whole commands, or steps; the "
                        "results file keeps the others")
    parser.add_argument("--without", nargs="+", choices=OTHERS, default=[], help="do not measure "
                        "their whole commands; the results file keeps what it has of them")
    parser.add_argument("--rounds", type=int, help="turns of each (default: 9 of steps, 3 of whole "
                        "commands; with --quick: 3 and 1)")
    parser.add_argument("--quick", action="store_true",
                        help="few and short rounds, chapter's sizes only, 20 episodes")
    parser.add_argument("--before", metavar="DIR", help="another checkout of this project: compare "
                        "its steps with this, and nothing else")
    parser.add_argument("--json", default="benchmarks/throughput.json", help="results file")
    parser.add_argument("--picture", default="docs/pictures/throughput.png", help="picture file")
    args = parser.parse_args()
    machine = f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}"
    machine += f", {date.today()}"
    print(machine, flush=True)
    if args.before:
        compare_steps(args)
        return
    file = Path(args.json)
    report = json.loads(file.read_text()) if file.exists() else {}
    for part in "whole", "steps":
        if args.only in (None, part):
            found = (compare_whole(args, report.get(part, {})) if part == "whole"
                     else compare_steps(args))
            report[part] = {"machine": machine, "command": " ".join(sys.argv), **found}
            file.write_text(json.dumps(report, indent=1) + "\n")
            if part == "whole":
                title = f"Training {found['episodes']} episodes of Pendulum: the whole command"
                picture(args.picture, found["chapter"], f"{title}\n{machine}")


def compare_whole(args, earlier):
    """Measure the whole commands and print tables of them: dict for the JSON file.

    earlier: the same of the results file, {} if it has none.
    """
    episodes, rounds = (20, 1) if args.quick else (100, 3)
    results = {}
    for algorithm in args.algorithms:
        kept = earlier.get("chapter", {}).get(algorithm, {})
        results[algorithm] = {name: kept[name] for name in args.without if name in kept}
        results[algorithm] |= whole_commands(algorithm, episodes * 200, args.rounds or rounds,
                                             args.without)
    names = [SECOND, FIRST, *OTHERS]
    for what, digits in {"seconds": 1, "processor seconds": 1, "peak megabytes": 0}.items():
        medians = {algorithm: {name: statistics.median(run[what]) for name, run in runs.items()}
                   for algorithm, runs in results.items()}
        print(table(f"Whole commands, {episodes} episodes: {what}", names, medians, digits),
              flush=True)
    return {"episodes": episodes, "chapter": results}


def compare_steps(args):
    """Measure the steps and print tables of them: dict for the JSON file."""
    rounds, share = (3, 0.3) if args.quick else (9, 1.0)
    report = {}
    for sizes in ["chapter"] if args.quick else ["chapter", "papers"]:
        papers = [name for name in CONTESTANTS if name != "eager"]
        contestants = CONTESTANTS if sizes == "chapter" else papers
        contestants = ["ours", "before"] if args.before else contestants
        scale = share if sizes == "chapter" else share / 5
        report[sizes] = {}
        for algorithm in args.algorithms:
            size = SIZES[sizes][algorithm]
            report[sizes][algorithm] = measure(algorithm, size, contestants,
                                               args.rounds or rounds, scale, args.before)
        medians = {algorithm: result["median"] for algorithm, result in report[sizes].items()}
        whose = "chapter's" if sizes == "chapter" else "papers'"
        print(table(f"At the {whose} sizes: milliseconds per environment step",
                    in_order(report[sizes]), medians, 3), flush=True)
    print(details(report["chapter"]))
    return report


def processor():
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
