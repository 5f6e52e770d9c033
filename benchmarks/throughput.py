"""Training speed beside Stable-Baselines3 (PyTorch) and SBX (JAX), in one run.

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

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import curve

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
CONTESTANTS = ["ours", "plain", "eager", "SB3", "SBX", "floor"]
# in one turn
STEPS = {"ours": 1000, "plain": 500, "eager": 20, "SB3": 200, "SBX": 500, "floor": 1000}
STEPS["before"] = STEPS["ours"]
LABELS = {"ours": "this project", "plain": "with a plain tf.function",
          "eager": "this project, --eager", "SB3": "SB3 (PyTorch)", "SBX": "SBX (JAX)",
          "floor": "updates alone, in one XLA call"}
COLORS = {"ours": "#1f77b4", "plain": "#6fa8d6", "eager": "#aec7e8", "SB3": "#ff7f0e",
          "SBX": "#2ca02c", "floor": "#bbbbbb"}
WARM_UP = 1100  # steps before learning, so that batches are drawn from something


class Ours:
    """This project's agent in the scripts' loop, on behalf of a worker process.

    Args:
        how: "ours", "eager", or "plain": compiled by tf.function alone, without the fast engine.
    """

    def __init__(self, algorithm, size, how, clock):
        eager = how == "eager"
        from common import quiet

        quiet.prepare(verbose=False)
        clock("import TensorFlow and TensorLayer")
        module = importlib.import_module(algorithm)
        clock("import the rest")
        from common.making import make

        module.BATCH_SIZE = size["batch"]
        self.module, self.algorithm, self.updates = module, algorithm, size["updates"]
        self.env = make("Pendulum-v1")
        self.env.seed(2)
        state_dim, high = 3, self.env.action_space.high
        if algorithm == "ddpg":
            self.agent = module.DDPG(1, state_dim, high, memory_capacity=WARM_UP, eager=eager,
                                     hidden_dim=size["width"], batch_size=size["batch"])
        else:
            self.buffer = module.ReplayBuffer(module.REPLAY_BUFFER_SIZE)
            make_agent = getattr(module, module.ALG_NAME)
            delay = [size["delay"]] if algorithm == "td3" else []
            self.agent = make_agent(state_dim, 1, self.buffer, size["width"], high, *delay,
                                    eager=eager)
        self.agent.compiler.plain = how == "plain"
        self.state, self.step_count = self.env.reset(), 0
        clock("build the agent")
        self._steps(WARM_UP, learn=False)
        clock(f"{WARM_UP} steps without learning")
        self._steps(1)
        clock("trace and compile the update and the policy" if not eager else "first update")

    def act(self):
        if self.algorithm == "td3":
            return self.agent.policy_net.get_action(self.state, 1.0)
        return getattr(self.agent, "policy_net", self.agent).get_action(self.state)

    def store(self, action, reward, next_state, done):
        if self.algorithm == "ddpg":
            self.agent.store_transition(self.state, action, reward, next_state, done)
        else:
            self.buffer.push(self.state, action, reward, next_state, done)

    def sample(self):
        if self.algorithm == "ddpg":
            choice = self.agent.generator.integers(
                WARM_UP, size=(self.updates, self.module.BATCH_SIZE)
            )
            return self.agent.memory[choice]
        return [self.buffer.sample(self.module.BATCH_SIZE) for _ in range(self.updates)]

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
            next_state, reward, done, info = self.env.step(action)
            self.store(action, reward, next_state, done)
            self.state = next_state
            self.step_count += 1
            if learn:
                self.update()
            if done or info["TimeLimit.truncated"]:
                self.state = self.env.reset()

    def run(self, n):
        start = time.perf_counter()
        self._steps(n)
        return time.perf_counter() - start

    def parts(self, n=500):
        """Microseconds of each part of a step, medians; the update without its sampling."""
        action = self.act()
        transition = (action, 0.0, self.state, False)
        taken = {}
        for name, call in {
            "act": self.act,
            "env": lambda: self.env.step(action),
            "of it the task itself": lambda: self.env.unwrapped.step(action),
            "store": lambda: self.store(*transition),
            "sample": self.sample,
            "update": self.update,
        }.items():
            self.env.reset()
            times = []
            for i in range(n):
                if i % 150 == 149:
                    self.env.reset()
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            taken[name] = statistics.median(times) * 1e6
        taken["update"] -= taken["sample"]
        return taken


class Floor(Ours):
    """The updates of Ours, again and again inside one XLA call."""

    def __init__(self, algorithm, size, clock):
        super().__init__(algorithm, size, "eager", clock)
        import tensorflow as tf

        from common.compiled import StandardNormal

        # Noise of zeros: the numbers do not matter, and drawing them is not part of the floor.
        StandardNormal.sample = lambda self, shape: tf.zeros(shape)
        agent = self.agent
        batches = [tf.nest.map_structure(tf.constant, batch) for batch in self.sample()]
        constants = {"ddpg": [], "td3": [0.5, 1.0, 0.9, 0.01], "sac": [1.0, -1.0, 0.99, 0.01]}
        turn = {"sac": lambda i: [True], "td3": lambda i: [(i + 1) % size["delay"] == 0]}
        turns = turn.get(algorithm, lambda i: [None])
        # Where the policy has its turn once in several steps, one pass is that many steps.
        self.period = max(1, size["delay"] // size["updates"])

        def loop(n):
            for _ in tf.range(n):
                for i in range(self.period * size["updates"]):
                    agent._update_from(batches[i % size["updates"]], *turns(i),
                                       *constants[algorithm])
            return n

        self.loop = tf.function(loop, jit_compile=True).get_concrete_function(
            tf.TensorSpec([], tf.int32)
        )
        self.constant = tf.constant
        self.loop(self.constant(1))

    def run(self, n):
        passes = self.constant(n // self.period)
        start = time.perf_counter()
        self.loop(passes).numpy()
        return time.perf_counter() - start


class Baselines:
    """The same algorithm and sizes in Stable-Baselines3 or SBX."""

    def __init__(self, library, algorithm, size, clock):
        package = importlib.import_module({"SB3": "stable_baselines3", "SBX": "sbx"}[library])
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


def table(title, results):
    """Markdown of one set of sizes: medians, and ratios to this project."""
    names = list(next(iter(results.values()))["median"])
    lines = [f"**{title}**: milliseconds per environment step (times ours)", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for algorithm, result in results.items():
        medians = result["median"]
        cells = [
            f"{medians[n]:.3f}" + (f" ({medians[n] / medians['ours']:.2f})" if n != "ours" else "")
            for n in names
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
    names = next(iter(results.values()))["peak megabytes"]
    lines += ["", f"| peak memory, MB | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for algorithm, result in results.items():
        cells = " | ".join(f"{peak:.0f}" for peak in result["peak megabytes"].values())
        lines.append(f"| {algorithm.upper()} | {cells} |")
    return "\n".join(lines)


def picture(path, results, machine):
    """Bars of steps per second, one group for each algorithm; logarithmic."""
    names = [n for n in ("eager", "plain", "SB3", "SBX", "ours", "floor")
             if n in next(iter(results.values()))["median"]]
    width = 0.86 / len(names)
    with curve.new_figure(12, 6.5) as figure:
        axes = figure.add_subplot()
        for k, name in enumerate(names):
            places = [i + (k - (len(names) - 1) / 2) * width for i in range(len(results))]
            speeds = [1e3 / result["median"][name] for result in results.values()]
            bars = axes.bar(places, speeds, 0.93 * width, label=LABELS[name], color=COLORS[name])
            axes.bar_label(bars, [f"{s:,.0f}" for s in speeds], fontsize=13, padding=1)
        axes.set_xticks(range(len(results)), [a.upper() for a in results])
        axes.set_yscale("log")
        axes.set_ylabel("environment steps per second")
        title = f"Training on Pendulum at the chapter's sizes\n{machine}"
        axes.set_title(title, fontsize=17, pad=18)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        curve.save_figure(path, figure)


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
    parser.add_argument("--picture", default="image/throughput.png", help="picture file")
    args = parser.parse_args()
    rounds, share = (3, 0.3) if args.quick else (args.rounds, 1.0)
    machine = f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}"
    machine += f", {date.today()}"
    print(machine, flush=True)
    report = {"machine": machine, "command": " ".join(sys.argv)}
    for sizes in ["chapter"] if args.quick else ["chapter", "papers"]:
        papers = ["ours", "plain", "SB3", "SBX", "floor"]
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
