"""Training speed beside Stable-Baselines3 (PyTorch), SBX and Rejax (JAX), in one run.

    pip install -r requirements-bench.txt
    python benchmarks/throughput.py            tables, benchmarks/throughput.json, a picture
    python benchmarks/throughput.py --quick    the same in a minute or two, less exact
    python benchmarks/throughput.py --quick --before ../old    this code and another checkout's

Each contestant lives in its own process, with the same widths, batch size, updates per step
and policy delay, on Pendulum. After it has compiled and learned for a while, they take turns:
every round, each is asked for some environment steps, learning on, and times them. So all of
them see the same machine, and ratios of their medians hold even where it is noisy. The floor
is this project's updates alone, looped inside one XLA call: no environment, no acting, no
sampling, no Python.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
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
LABELS = {"ours": "this project", "plain": "with a plain tf.function",
          "eager": "this project, --eager", "SB3": "SB3 (PyTorch)", "SBX": "SBX (JAX)",
          "Rejax": "Rejax (all in one JAX program)", "floor": "updates alone, in one XLA call"}
MODULES = {"SB3": "stable_baselines3", "SBX": "sbx"}
COLORS = {"ours": "#1f77b4", "plain": "#6fa8d6", "eager": "#aec7e8", "SB3": "#ff7f0e",
          "SBX": "#2ca02c", "Rejax": "#9467bd", "floor": "#bbbbbb"}
WARM_UP = 1100  # steps before learning, so that batches are drawn from something


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
    """The same algorithm and sizes in Stable-Baselines3 or SBX."""

    def __init__(self, library, algorithm, size, clock):
        package = importlib.import_module(MODULES[library])
        clock(f"import {library}")
        width = size["width"]
        # SBX names the policies' layers like SB3; both get this project's widths and depths.
        net_arch = {"pi": [width] * size["layers"], "qf": [width] * 2}
        settings = {
            "batch_size": size["batch"], "gradient_steps": size["updates"], "train_freq": 1,
            "learning_starts": WARM_UP, "buffer_size": 500_000, "learning_rate": 3e-4,
            "policy_kwargs": {"net_arch": net_arch}, "seed": 2, "device": "cpu",
        }
        if algorithm == "td3":
            settings["policy_delay"] = size["delay"]
        if library == "SBX":
            del settings["device"]
        model_class = getattr(package, algorithm.upper())
        self.model = model_class("MlpPolicy", "Pendulum-v1", **settings)
        clock("build the agent")
        self.model.learn(WARM_UP + 2)
        clock(f"{WARM_UP} steps without learning, first updates")

    def run(self, n):
        start = time.perf_counter()
        self.model.learn(n, reset_num_timesteps=False)
        return time.perf_counter() - start


class Rejax:
    """TD3 or SAC of the same sizes in Rejax: environment, buffer and all within one JAX program.

    Its TD3 lets the policy learn from each batch that the critics had since its last turn: from
    three at the chapter's sizes, where the others take one.
    """

    def __init__(self, algorithm, size, clock):
        import jax
        import rejax
        from flax import linen
        from rejax.networks import DeterministicPolicy, QNetwork, SquashedGaussianPolicy

        clock("import Rejax")
        settings = {"num_epochs": size["updates"], "batch_size": size["batch"],
                    "fill_buffer": WARM_UP, "num_envs": 1, "skip_initial_evaluation": True,
                    # as small as this benchmark allows: on a CPU it is copied at every step
                    "buffer_size": 12_000}
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
        self.jax, self.programs = jax, {}
        self.state = self.made.init_state(jax.random.PRNGKey(2))
        clock("build the agent")
        self.run(WARM_UP + 2)
        clock(f"{WARM_UP} steps without learning, first updates")

    def run(self, n):
        if n not in self.programs:  # the number of steps is built in
            part = self.made.replace(total_timesteps=n, eval_freq=n)
            step = self.jax.jit(lambda state: part.train(train_state=state)[0])
            self.programs[n] = step.lower(self.state).compile()
        start = time.perf_counter()
        self.state = self.jax.block_until_ready(self.programs[n](self.state))
        return time.perf_counter() - start


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
    elif contestant == "Rejax":
        player = Rejax(algorithm, size, clock)
    else:
        player = Baselines(contestant, algorithm, size, clock)
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

            kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer(kilobytes / (1024 if sys.platform != "darwin" else 1024**2))
        else:
            answer(player.run(int(number)))


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


def measure(algorithm, size, contestants, rounds, share, before=None):
    """All contestants of one algorithm, side by side: dict for the JSON file."""
    roots = {"before": before}
    contestants = [n for n in contestants if (algorithm, n) != ("ddpg", "Rejax")]  # it has none
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


def in_order(results):
    """The contestants that some algorithm has."""
    return [n for n in [*CONTESTANTS, "before"] if any(n in r["median"] for r in results.values())]


def table(title, results):
    """Markdown of one set of sizes: medians, and ratios to this project."""
    names = in_order(results)
    lines = [f"**{title}**: milliseconds per environment step (times ours)", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for algorithm, result in results.items():
        medians = result["median"]
        cells = [
            f"{medians[n]:.3f}" + (f" ({medians[n] / medians['ours']:.2f})" if n != "ours" else "")
            if n in medians else "" for n in names
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


def picture(path, results, machine):
    """Bars of steps per second, one group for each algorithm; logarithmic."""
    names = [n for n in ("eager", "plain", "SB3", "SBX", "Rejax", "ours", "floor")
             if n in in_order(results)]
    width = 0.86 / len(names)
    with new_figure(12, 6.5) as figure:
        axes = figure.add_subplot()
        for k, name in enumerate(names):
            places = [i + (k - (len(names) - 1) / 2) * width for i in range(len(results))]
            medians = [result["median"].get(name) for result in results.values()]
            found = [(place, 1e3 / ms) for place, ms in zip(places, medians) if ms]
            bars = axes.bar(*zip(*found), 0.93 * width, label=LABELS[name], color=COLORS[name])
            axes.bar_label(bars, [f"{s:,.0f}" for _, s in found], fontsize=10, padding=1)
        axes.set_xticks(range(len(results)), [a.upper() for a in results])
        axes.set_yscale("log")
        axes.set_ylabel("environment steps per second")
        title = f"Training on Pendulum at the chapter's sizes\n{machine}"
        axes.set_title(title, fontsize=17, pad=18)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        save_figure(path, figure)


def main():
    if "--worker" in sys.argv:
        contestant, algorithm, size, started = sys.argv[2:]
        worker(contestant, algorithm, json.loads(size), float(started))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: 9)")
    parser.add_argument("--quick", action="store_true", help="3 short rounds, chapter's sizes only")
    parser.add_argument("--before", metavar="DIR",
                        help="another checkout of this project: compare with it, and nothing else")
    parser.add_argument("--json", default="benchmarks/throughput.json", help="results file")
    parser.add_argument("--picture", default="docs/pictures/throughput.png", help="picture file")
    args = parser.parse_args()
    rounds, share = (3, 0.3) if args.quick else (args.rounds, 1.0)
    machine = f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}"
    machine += f", {date.today()}"
    print(machine, flush=True)
    report = {"machine": machine, "command": " ".join(sys.argv)}
    for sizes in ["chapter"] if args.quick else ["chapter", "papers"]:
        papers = [name for name in CONTESTANTS if name != "eager"]
        contestants = CONTESTANTS if sizes == "chapter" else papers
        contestants = ["ours", "before"] if args.before else contestants
        scale = share if sizes == "chapter" else share / 5
        report[sizes] = {}
        for algorithm in args.algorithms:
            size = SIZES[sizes][algorithm]
            report[sizes][algorithm] = measure(algorithm, size, contestants, rounds, scale,
                                               args.before)
        print("\n" + table(f"At the {sizes}'s sizes" if sizes == "chapter" else
                           "At the papers' sizes", report[sizes]), flush=True)
    print(details(report["chapter"]))
    if args.before:
        return
    Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    picture(args.picture, report["chapter"], machine)


def processor():
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
