"""Which algorithm is better, and is it luck? Many seeds of each, side by side.

    python compare.py                                     all three on Pendulum
    python compare.py --algorithms td3 sac --seeds 0-4 --preset paper
    python compare.py --algorithms td3 --gamma 0.9 0.99   a curve for each value

Draws learning curves and writes a table. What is finished is kept: the same
command goes on where it was stopped, and one with more seeds or algorithms
trains only what is new.
"""

import argparse
import contextlib
import itertools
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

from common import output, pools, runs, signals
from common.arguments import Command, Parser
from common.errors import UserError
from common.files import check_writable, task_name, write_atomically
from common.provenance import provenance

ALGORITHMS = ["ddpg", "td3", "sac"]
MOST_SEEDS, MOST_WORKERS = 10_000, 1000
# Of every run, unless the command says otherwise.
USUAL = {"--env": ["Pendulum-v1"], "--preset": ["chapter"], "--steps": ["20000"],
         "--evaluate-every": ["1000"], "--evaluation-episodes": ["20"]}
# What the scripts take and a comparison does not -> why.
NOT_HERE = {
    "--episodes": "comparisons count steps, use --steps",
    "--seed": "comparisons take several, use --seeds such as 0-9",
    "--model-dir": "each run has a folder of its own in --runs-dir",
}


def _must_be(what, word):
    return argparse.ArgumentTypeError(f"must be {what}, got {word!r:.40}")


def _seeds(word):
    """The seeds that a word such as 7 or 0-9 means."""
    found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", word)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last < 2**32:
        raise _must_be(f"whole numbers or upward ranges such as 0-9, in [0, {2**32 - 1}]", word)
    if last - first >= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{word} has more than {MOST_SEEDS} seeds in it")
    return range(first, last + 1)


def _workers(word):
    """A number of runs at a time."""
    if not re.fullmatch(r"\d{1,9}", word) or not 1 <= int(word) <= MOST_WORKERS:
        raise _must_be(f"a whole number in [1, {MOST_WORKERS}]", word)
    return int(word)


def _name(word):
    """Part of a file's name, on Linux, macOS and Windows."""
    if not re.fullmatch(r'[^/\\:*?"<>|\x00-\x1f\x7f]+', word) or len(os.fsencode(word)) > 200:
        raise _must_be("a name for files, not a path and not long", word)
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
                        choices=ALGORITHMS, help="any of ddpg, td3, sac (default: all)")
    parser.add_argument("--seeds", nargs="+", type=_seeds, default=[range(10)], metavar="N",
                        help="seeds of the runs, such as 0-9 or 1 2 5 (default: 0-9)")
    parser.add_argument("--workers", type=_workers, metavar="N",
                        default=min(os.cpu_count() or 1, MOST_WORKERS),
                        help="runs at a time, in [1, 1000] (default: one for each core)")
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
    args.seeds = list(dict.fromkeys(itertools.chain(*args.seeds)))
    return args, given


def varied(given):
    """The flags that have several values, so that each value has a curve."""
    return [flag for flag, values in given.items() if len(values) > 1]


def settings_of(args, given):
    """What to compare: a Run of each setting, without its seed, and whether some are left out.

    Those that are left out, because a script refuses them, have been said.

    Raises:
        UserError: no script knows a flag, a value is missing, or no setting is valid.
    """
    scripts = {f"{name}.py": Command(runs.ROOT / f"{name}.py") for name in args.algorithms}
    takes_value = {"--preset": True}
    for script in scripts.values():
        takes_value |= script.flags
    for flag, values in given.items():
        if flag in NOT_HERE:
            raise UserError(f"{flag}: {NOT_HERE[flag]}")
        if flag not in takes_value:
            raise UserError(f"{flag} is no constant of {', '.join(scripts)}, to be compared")
        if takes_value[flag] != bool(values):
            raise UserError(f"{flag} {'needs a' if takes_value[flag] else 'takes no'} value")
    if len(given.get("--env", [])) > 1:
        raise UserError("--env takes one environment: compare on another with another command")
    flags, settings, left_out = USUAL | given, [], False
    for name, script in scripts.items():
        code = provenance(runs.ROOT / name, flags["--env"][0])
        usable = {f: v or [None] for f, v in flags.items() if f in script.flags or f == "--preset"}
        for values in itertools.product(*usable.values()):
            chosen = dict(zip(usable, values))
            words = tuple(word for pair in chosen.items() for word in pair if word is not None)
            label = ", ".join([name[:-3].upper(), *(f"{flag[2:]} {chosen[flag]}" for flag in
                                                    varied(given) if flag in chosen)])
            try:
                constants = dict(script.read(["--train", *words]).everything)
                new = runs.Run(name, words, None, chosen["--preset"], constants, label, code)
                for other in settings:
                    if (other.setting, other.preset) == (new.setting, new.preset):
                        raise UserError(f"it gives the same runs as {other.label}")
            except UserError as error:
                print(f"compare.py: {label} is left out: {error}", file=sys.stderr)
                left_out = True
                continue
            if not 1 <= constants["EVALUATE_EVERY"] <= constants["TRAIN_STEPS"]:
                raise UserError("--evaluate-every must be in [1, --steps], or nothing is seen of "
                                "the learning")
            settings.append(new)
    if not settings:
        raise UserError("no setting is left to train")
    return settings, left_out


def all_runs(settings, seeds):
    """A Run for each setting and seed; seed by seed, so that early pictures are fair."""
    return [
        replace(one, seed=seed, constants={**one.constants, "RANDOM_SEED": seed})
        for seed in seeds for one in settings
    ]


def train(todo, args, finished, total):
    """Execute the runs, with one display for all; returns a line for each that failed.

    finished: dict from run to result, to which theirs are added.
    """
    steps, failed, waits = dict.fromkeys(todo, 0), [], False
    pool = pools.local(args.workers) if args.ray is None else pools.on_ray(args.ray or None)
    display = output.bar(total=sum(run.steps for run in todo), unit=" steps", unit_scale=True)
    with pool as (at_a_time, execute), display as bar, contextlib.closing(
        pools.execute_all(todo, args.runs_dir, at_a_time, execute)
    ) as events:
        for run, what, value in events:
            if what == "held" and not waits:
                waits = True
                print("Another comparison is working on some of these runs; waiting for them.")
            elif what == "retry":
                print(f"{run}: {value}; tried once more")
            elif what == "failed":
                failed.append(f"{run} failed: {value}")
                print(failed[-1])
            elif what == "result":
                finished[run] = value
                done = f"{len(finished)} of {total}"
                bar.set_postfix_str(f"{done} runs")
                mean = sum(value["test_returns"]) / len(value["test_returns"])
                print(f"{run}: {mean:.1f} in {value['seconds']:.0f} s ({done})")
            if what in ("steps", "failed", "result"):
                steps[run] = min(value, run.steps) if what == "steps" else run.steps
                bar.update(sum(steps.values()) - bar.n)
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
    from common import comparison  # late: SciPy takes a while, and --help need not wait
    from common.evaluation import TEST_STARTS, VALIDATION_STARTS, optimum

    if not finished:
        raise UserError("no run has finished: there is nothing to compare yet")
    measured = {one.label: [result for run, result in finished.items() if run.label == one.label]
                for one in settings}
    measured = {label: results for label, results in measured.items() if results}
    constants, presets = settings[0].constants, sorted({one.preset for one in settings})
    env_id, every = constants["ENV_ID"], max(one.constants["EVALUATE_EVERY"] for one in settings)
    name = [task_name(env_id), *(preset for preset in presets if preset != "chapter"),
            *(flag[2:] for flag in varied(given) if flag != "--preset")]
    path = Path(args.image_dir) / f"compare_{args.name or '_'.join(name)[:100]}"
    picture, *tables = (path.with_name(path.name + end) for end in (".png", ".md", ".csv"))
    rows = comparison.table(measured, every)
    table = comparison.as_markdown(rows, optimum(env_id, TEST_STARTS))
    texts = f"`{command(args, given)}`\n\n{table}", comparison.as_csv(rows)
    for file, text in zip(tables, texts):
        write_atomically(file, lambda opened, text=text: opened.write(text.encode()))
    title = f"{env_id}, {' and '.join(presets)} constants"
    # An algorithm looks the same in every picture, unless something else is compared.
    styles = [ALGORITHMS.index(label.lower()) for label in measured if label.lower() in ALGORITHMS]
    best = optimum(env_id, VALIDATION_STARTS[: constants["EVALUATION_EPISODES"]])
    comparison.draw(picture, measured, every, title, best,
                    styles if len(styles) == len(measured) else None)
    print("\n" + table)
    for file in (picture, *tables):
        print(f"Saved {file}")


def main(argv):
    """Returns the exit status: 1 if a setting or a run is missing from the results."""
    args, given = parse(argv)
    settings, left_out = settings_of(args, given)
    check_writable(args.image_dir, "--image-dir")
    everything, finished, failed = all_runs(settings, args.seeds), {}, []
    for run in everything:
        try:
            result = runs.result(run, args.runs_dir)
            finished |= {run: result} if result else {}
        except UserError as error:
            print(f"compare.py: {error}: this run is made anew", file=sys.stderr)
    print(f"Runs: {len(everything)}, finished already: {len(finished)}")
    todo = [run for run in everything if run not in finished]
    if todo:
        check_writable(args.runs_dir, "--runs-dir")
        stale = runs.of_other_code(todo, args.runs_dir)
        if stale:
            print(f"{stale} of the others have finished with other code or packages; these results "
                  f"stay in {args.runs_dir} and are not used.")
        failed = train(todo, args, finished, len(everything))
    report(settings, {run: finished[run] for run in everything if run in finished}, args, given)
    for line in failed:
        print(f"compare.py: {line}; the same command tries again", file=sys.stderr)
    return int(bool(failed) or left_out)


if __name__ == "__main__":
    output.prepare()
    output.errors_on_one_line("compare.py", verbose=False)
    signals.install()
    try:
        sys.exit(main(sys.argv[1:]))
    except signals.Stopped:
        with contextlib.suppress(OSError):
            print("compare.py: stopped; what is finished is kept: the same command goes on",
                  file=sys.stderr)
        raise
