"""Which algorithm is better, and is it luck? Many seeds of each, side by side.

    python compare.py                                     all three on Pendulum
    python compare.py --algorithms td3 sac --seeds 0-4 --preset paper
    python compare.py --algorithms td3 --gamma 0.9 0.99   a curve for each value

Draws learning curves and writes a table. What is finished is kept: the same
command goes on where it was stopped, and one with more seeds or algorithms
trains only what is new.
"""

import argparse
import asyncio
import contextlib
import functools
import itertools
import math
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import process
from common.comparison import cluster, runs
from common.errors import UserError
from common.files.digest import digest
from common.files.lock import locked
from common.files.names import ROOT, task_name
from common.files.whole import check_writable, write_atomically
from common.flags import Command, Constant, Parser, is_script
from common.tasks.making import make
from common.training.screen import bar

ALGORITHMS = ["ddpg", "td3", "sac"]
# Of every run, unless the command says otherwise.
USUAL = {"--env": ["Pendulum-v1"], "--preset": ["chapter"], "--steps": ["20000"],
         "--evaluate-every": ["1000"], "--evaluation-episodes": ["20"]}
# What the scripts take and a comparison does not -> why.
NOT_HERE = {
    "--episodes": "comparisons count steps, use --steps",
    "--seed": "comparisons take several, use --seeds such as 0-9",
    "--model-dir": "each run has a folder of its own in --runs-dir",
}


def _seeds(word):
    """The seeds that a word such as 7 or 0-9 means."""
    found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", word)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last < 2**32:
        raise argparse.ArgumentTypeError("must be whole numbers or upward ranges such as 0-9, in "
                                         f"[0, {2**32 - 1}], got {word!r:.40}")
    return range(first, last + 1)


def _script(word):
    """A script beside this one, with or without .py."""
    path = ROOT / f"{word.removesuffix('.py')}.py"
    if not is_script(path):
        raise argparse.ArgumentTypeError(f"{path} is no script like td3.py")
    return path.stem


def _name(word):
    """Part of a file's name."""
    if not word or Path(word).name != word:
        raise argparse.ArgumentTypeError(f"must be a name for files, not a path, got {word!r:.40}")
    return word


def parse(argv):
    """The command line: (Namespace, dict from a script's flag to the list of its values)."""
    parser = Parser(
        prog="compare.py",
        usage="%(prog)s [flags] [flags of the scripts, each with one value or several]",
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Each flag of the scripts may have several values, and then each has a curve."
        "\nUnless given:\n  " + "\n  ".join(f"{flag} {value}" for flag, (value,) in USUAL.items()),
    )
    parser.add_argument("--algorithms", nargs="+", metavar="NAME", default=ALGORITHMS,
                        type=_script, help="any of ddpg, td3, sac (default: all), or a copy of "
                        "one, mytd3.py, with an ALG_NAME of its own")
    parser.add_argument("--seeds", nargs="+", type=_seeds, default=[range(10)], metavar="N",
                        help="seeds of the runs, such as 0-9 or 1 2 5 (default: 0-9)")
    parser.add_argument("--workers", type=Constant("WORKERS", 1, "in [1, 9999]").value_of,
                        metavar="N", default=os.cpu_count() or 1,
                        help="runs at a time (default: one for each core)")
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
                        help="run on the Ray cluster there (without ADDRESS: one on this "
                        "machine); the module of an --env module:ID must be installed on each node")
    parser.add_argument("--name", type=_name,
                        help="of the results' files (default: the environment and what varies)")
    parser.add_argument("--runs-dir", default="runs/compare", metavar="DIR",
                        help="folder of the runs (default: runs/compare)")
    parser.add_argument("--image-dir", default="image", metavar="DIR",
                        help="folder of the picture and the tables (default: image)")
    args, others = parser.parse_known_args(argv)
    given = {}
    for word in others:
        flag, has_value, value = word.partition("=")
        if flag.startswith("--"):
            values = given[flag] = [value] if has_value else []
        elif not given:
            parser.error(f"{word!r:.40} belongs to no flag")
        else:
            values.append(word)
    args.algorithms = list(dict.fromkeys(args.algorithms))
    args.seeds = list(dict.fromkeys(itertools.chain(*args.seeds)))
    return args, given


def varied(given):
    """The flags that have several values, so that each value has a curve."""
    return [flag for flag, values in given.items() if len(values) > 1]


def settings_of(args, given):
    """What to compare: a Run of each setting, without its seed.

    Raises:
        UserError: no script knows a flag, or a value does not fit.
        SystemExit: 2, a script refuses a value, and has said why.
    """
    scripts = [Command(ROOT / f"{name}.py") for name in args.algorithms]
    names, known = [script.name for script in scripts], {"--preset"}.union(
        *(script.flags for script in scripts))
    for flag in given:
        if flag in NOT_HERE:
            raise UserError(f"{flag}: {NOT_HERE[flag]}")
        if flag not in known:
            raise UserError(f"{flag} is no constant of {', '.join(names)}, to be compared")
    if len(given.get("--env", [])) > 1:
        raise UserError("--env takes one environment: compare on another with another command")
    settings = {}
    for script in scripts:
        usable = {flag: values or [None] for flag, values in (USUAL | given).items()
                  if flag in script.flags or flag == "--preset"}
        for values in itertools.product(*usable.values()):
            chosen = dict(zip(usable, values))
            words = tuple(word for pair in chosen.items() for word in pair if word is not None)
            label = ", ".join([script.algorithm, *(f"{flag[2:]} {chosen[flag]}" for flag in
                                                   varied(given) if flag in chosen)])
            read = script.read(["--train", *words])
            if not 1 <= read.evaluate_every <= read.train_steps:
                raise UserError("--evaluate-every must be in [1, --steps], or nothing is seen of "
                                "the learning")
            new = runs.Run(read, words, label, digest(script.script, read.env_id))
            same = settings.setdefault(new.setting, new)
            if same is not new:
                raise UserError(f"{new.label} gives the same runs as {same.label}")
    return [*settings.values()]


def train(todo, args, finished, total):
    """Execute the runs, with one display for all; returns a line for each that failed.

    finished: dict from run to result, to which theirs are added.
    """
    steps, failed, began = dict.fromkeys(todo, 0), [], time.time()
    all_steps = sum(run.args.train_steps for run in todo)

    def tell(run, what, value):
        if what == "retry":
            print(f"{run}: {value}; tried once more")
        elif what == "failed":
            failed.append(f"{run} failed: {value}")
            print(failed[-1])
        if what != "retry":
            steps[run] = min(value if what == "steps" else math.inf, run.args.train_steps)
            shown.update(sum(steps.values()) - shown.n)
        if what == "result":
            finished[run] = value
            done = f"{len(finished)} of {total}"
            shown.set_postfix_str(f"{done} runs")
            mean = np.mean(value["test_returns"])
            left = shown.format_interval(
                (time.time() - began) * (all_steps / sum(steps.values()) - 1))
            print(f"{run}: {mean:.1f} in {value['seconds']:.0f} s ({done}"
                  + (f"; about {left} to go)" if len(finished) < total else ")"))

    with contextlib.ExitStack() as opened:
        if args.ray is None:
            at_a_time, threads = args.workers, max(1, (os.cpu_count() or 1) // args.workers)
            execute = functools.partial(runs.execute, threads=threads)
        else:
            at_a_time = len(todo)  # Ray has a queue of its own
            execute = opened.enter_context(cluster.on_ray(args.ray or None))
        shown = opened.enter_context(bar(total=all_steps, unit=" steps", unit_scale=True))
        asyncio.run(runs.execute_all(todo, args.runs_dir, at_a_time, execute, tell))
    return failed


def command(args, given):
    """The command that gives the same results, wherever they are kept."""
    first, last = args.seeds[0], args.seeds[-1]
    in_a_row = last > first and args.seeds == list(range(first, last + 1))
    words = ["python compare.py", "--algorithms", *args.algorithms, "--seeds"]
    words += [f"{first}-{last}"] if in_a_row else map(str, args.seeds)
    for flag, values in given.items():
        words += [flag, *values]
    return " ".join(words)


def report(settings, finished, args, given):
    """Draw the picture, write and print the tables, of all that is finished.

    finished: dict from run to result, in the runs' order.
    """
    from common.comparison import picture, statistics  # late: SciPy takes a while
    from common.pendulum.optimum import best_return
    from common.training.evaluation import TEST_STARTS, VALIDATION_STARTS

    if not finished:
        raise UserError("no run has finished: there is nothing to compare yet")
    measured = {one.label: found for one in settings if (found := [
        result for run, result in finished.items() if run.label == one.label])}
    first, presets = settings[0].args, sorted({one.args.preset for one in settings})
    every = max(one.args.evaluate_every for one in settings)
    name = [task_name(first.env_id), *(preset for preset in presets if preset != "chapter"),
            *(flag[2:] for flag in varied(given) if flag != "--preset")]
    path = Path(args.image_dir) / f"compare_{args.name or '_'.join(name)[:100]}"
    drawn, *tables = (path.with_name(path.name + end) for end in (".png", ".md", ".csv"))
    rows = statistics.table(measured, every)
    max_steps = [one.args.constants["MAX_STEPS"] for one in settings]
    table = statistics.as_markdown(rows, best_return(first.env_id, TEST_STARTS, max_steps))
    texts = f"`{command(args, given)}`\n\n{table}", statistics.as_csv(rows)
    for file, text in zip(tables, texts):
        write_atomically(file, lambda opened, text=text: opened.write(text.encode()))
    title = f"{first.env_id}, {' and '.join(presets)} constants"
    # An algorithm looks the same in every picture, unless something else is compared.
    styles = [ALGORITHMS.index(label.lower()) for label in measured if label.lower() in ALGORITHMS]
    best = best_return(first.env_id, VALIDATION_STARTS[: first.evaluation_episodes], max_steps)
    picture.draw(drawn, measured, every, title, best,
                 styles if len(styles) == len(measured) else None)
    print("\n" + table)
    if min(map(len, measured.values())) < 5:
        print("Fewer than five seeds say little of others: the interval is their range.")
    for file in (drawn, *tables):
        print(f"Saved {file}")


def main(argv):
    """Returns the exit status: 1 if a run is missing from the results."""
    args, given = parse(argv)
    sys.path.append(os.getcwd())  # where the module of an --env may lie
    settings = settings_of(args, given)
    make(settings[0].args.env_id).close()  # or thirty trainings would say what is wrong
    check_writable(args.image_dir, "--image-dir")
    with locked(args.runs_dir, "--runs-dir", "compare.lock"):
        # seed by seed, so that early pictures are fair
        everything = [replace(one, seed=seed) for seed in args.seeds for one in settings]
        finished = {run: found for run in everything if (found := runs.result(run, args.runs_dir))}
        failed = []
        print(f"Runs: {len(everything)}, finished already: {len(finished)}")
        todo = [run for run in everything if run not in finished]
        stale = runs.of_other_code(todo, args.runs_dir)
        if stale:
            print(f"{stale} of the others have finished with other code or packages; these results "
                  f"stay in {args.runs_dir} and are not used.")
        if todo:
            failed = train(todo, args, finished, len(everything))
        report(settings, {run: finished[run] for run in everything if run in finished}, args, given)
    for line in failed:
        print(f"compare.py: {line}; the same command tries again", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    process.prepare("compare.py")
    process.take_signals()
    try:
        sys.exit(main(sys.argv[1:]))
    except process.Stopped:
        print("compare.py: stopped; what is finished is kept: the same command goes on",
              file=sys.stderr)
        raise
