"""Which algorithm is better, and is it luck? Many seeds of each, side by side.

    python compare.py                                     all three, seeds 0 to 9, on Pendulum
    python compare.py --algorithms td3 sac --seeds 0-4 --env LunarLanderContinuous-v3
    python compare.py --algorithms td3 --gamma 0.9 0.99   a curve for each value

Draws learning curves and writes a table. What is finished is kept: the same command goes on
where it was stopped, and one with more seeds or algorithms trains only what is new.
"""

import argparse
import contextlib
import itertools
import os
import re
import sys
from pathlib import Path

from tqdm import tqdm

from common import output, pools, runs, signals
from common.arguments import Parser, Script
from common.errors import UserError
from common.files import check_writable, task_name, write_atomically
from common.provenance import provenance

ALGORITHMS = ["ddpg", "td3", "sac"]
MOST_SEEDS, MOST_WORKERS = 10_000, 1000
# Of every run, unless the command says otherwise.
USUAL = {"--env": "Pendulum-v1", "--preset": "chapter", "--steps": "20000",
         "--evaluate-every": "1000", "--evaluation-episodes": "20"}
# What the scripts take and a comparison does not -> why.
_BY_ITSELF = "compare.py does so by itself, leave it out"
_OF_ONE = "it shows one agent, give it to a script with "
NOT_HERE = {
    "--episodes": "comparisons count steps, use --steps",
    "--seed": "comparisons take several, use --seeds such as 0-9",
    "--model-dir": "each run has a folder of its own in --runs-dir",
    "--train": _BY_ITSELF, "--test": _BY_ITSELF, "--resume": _BY_ITSELF,
    "--record": _OF_ONE + "--test", "--explain": _OF_ONE + "--test",
    "--tensorboard": _OF_ONE + "--train",
    "--eager": "runs of a comparison are compiled, leave it out",
    "--verbose": "what a run prints is in log.txt of its folder in --runs-dir",
}


def parse(argv):
    """The command line: (Namespace, dict from a script's flag to the list of its values)."""
    parser = Parser(
        prog="compare.py",
        usage="%(prog)s [flags] [flags of the scripts, each with one value or several]",
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Each flag of the scripts may have several values (--gamma 0.9 0.99): a curve each."
        " Unless given: " + " ".join(f"{flag} {value}" for flag, value in USUAL.items()),
    )
    parser.add_argument("--algorithms", nargs="+", metavar="NAME", default=ALGORITHMS,
                        choices=ALGORITHMS, help="of ddpg, td3, sac (default: all)")
    parser.add_argument("--seeds", nargs="+", default=["0-9"], metavar="N",
                        help="such as 0-9 or 1 2 5 (default: 0-9)")
    parser.add_argument("--workers", default=min(os.cpu_count() or 1, MOST_WORKERS), metavar="N",
                        help="runs at a time (default: one for each core)")
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
                        help="run on the Ray cluster there (default: one on this machine); "
                        "the module of an --env module:ID must be installed on each node")
    parser.add_argument("--name", help="of the results (default: the environment and what varies)")
    parser.add_argument("--runs-dir", default="runs/compare", metavar="DIR",
                        help="folder of the runs (default: runs/compare)")
    parser.add_argument("--image-dir", default="image", metavar="DIR",
                        help="folder of the picture and the tables (default: image)")
    known, rest = [], {}
    own = {"-h", *parser._option_string_actions}
    where = known
    for word in argv:
        flag, has_value, value = word.partition("=")
        if flag in own:
            where = known
            known.append(word)
        elif word.startswith("--"):
            where = rest[flag] = [value] if has_value else []
        else:
            where.append(word)
    args = parser.parse_args(known)
    try:
        args.workers = int(args.workers)
    except ValueError:
        parser.error(f"--workers must be a whole number, got {args.workers!r:.40}")
    if not 1 <= args.workers <= MOST_WORKERS:
        parser.error(f"--workers must be in [1, {MOST_WORKERS}], got {args.workers}")
    seeds = []
    for word in args.seeds:
        found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", word)
        if not found:
            parser.error(f"--seeds must be whole numbers or ranges such as 0-9, got {word!r:.40}")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            parser.error(f"--seeds {word} has no seed in it: a range goes upwards, such as 0-9")
        if last > 2**32 - 1:
            parser.error(f"--seeds must be in [0, {2**32 - 1}], got {last}")
        if len(seeds) + last - first >= MOST_SEEDS:
            parser.error(f"--seeds has more than {MOST_SEEDS} seeds in it: give fewer")
        seeds += range(first, last + 1)
    args.seeds = list(dict.fromkeys(seeds))
    name = args.name  # in a file's name, on Linux, macOS and Windows
    if name is not None and (
        not re.fullmatch(r'[^/\\:*?"<>|\x00-\x1f\x7f]+', name) or len(os.fsencode(name)) > 200
    ):
        parser.error(f"--name must be a name for files, not a path and not long, got {name!r:.40}")
    return args, rest


def varied(given):
    """The flags that have several values, so that each value has a curve."""
    return [flag for flag, values in given.items() if len(values) > 1]


def settings_of(args, given):
    """What to compare: dict from a label to (script's name, flags, preset, constants).

    The second value tells whether some settings were refused, and said so.

    Raises:
        UserError: no script knows a flag, a value is missing, or no setting is valid.
    """
    scripts = {name: Script(runs.ROOT / f"{name}.py") for name in args.algorithms}
    for flag, values in given.items():
        if flag in NOT_HERE:
            raise UserError(f"{flag}: {NOT_HERE[flag]}")
        takes_value = {script.flags[flag] for script in scripts.values() if flag in script.flags}
        takes_value |= {True} if flag == "--preset" else set()
        if not takes_value:
            names = ", ".join(f"{name}.py" for name in scripts)
            raise UserError(f"{flag} is no flag to compare of {names}; --help of each lists them")
        if True in takes_value and not values:
            raise UserError(f"{flag} needs a value")
        if takes_value == {False} and values:
            raise UserError(f"{flag} takes no value")
    if len(given.get("--env", [])) > 1:
        raise UserError("--env takes one environment: compare on another with another command")
    flags = {**{flag: [value] for flag, value in USUAL.items()}, **given}
    found, refused = {}, []
    for name, script in scripts.items():
        usable = {f: v or [None] for f, v in flags.items() if f in script.flags or f == "--preset"}
        for values in itertools.product(*usable.values()):
            chosen = dict(zip(usable, values))
            words = [word for pair in chosen.items() for word in pair if word is not None]
            differing = [f"{f[2:]} {chosen[f]}" for f in varied(given) if f in chosen]
            label = ", ".join([name.upper(), *differing])
            try:
                constants = script.constants(["--train", *words])
            except UserError as error:
                refused.append(f"{label} is left out: {error}")
                continue
            if not (constants["TRAIN_STEPS"] and constants["EVALUATE_EVERY"]):
                raise UserError("--steps and --evaluate-every must be larger than 0 to compare")
            if constants["EVALUATE_EVERY"] > constants["TRAIN_STEPS"]:
                raise UserError("--evaluate-every must not be larger than --steps, or nothing is "
                                "seen of the learning")
            same = [other for other, (*_, preset, theirs) in found.items() if
                    (preset, runs.parts(theirs)) == (chosen["--preset"], runs.parts(constants))]
            if same:
                refused.append(f"{label} is left out: it gives the same runs as {same[0]}")
                continue
            found[label] = f"{name}.py", tuple(words), chosen["--preset"], constants
    for line in refused:
        print(f"compare.py: {line}", file=sys.stderr)
    if not found:
        raise UserError("no setting is left to train")
    return found, bool(refused)


def all_runs(settings, seeds):
    """A Run for each setting and seed; seed by seed, so that early pictures are fair."""
    of = {script: provenance(runs.ROOT / script, constants["ENV_ID"])
          for script, _, _, constants in settings.values()}
    return [
        runs.Run(script, flags, seed, preset, {**constants, "RANDOM_SEED": seed}, label, of[script])
        for seed in seeds
        for label, (script, flags, preset, constants) in settings.items()
    ]


def train(todo, pool, runs_dir, finished, total):
    """Execute the runs, with one display for all; returns a line for each that failed.

    finished: dict from run to result, to which theirs are added.
    """
    steps, failed = {}, []
    with contextlib.closing(pools.execute_all(todo, runs_dir, pool)) as events, tqdm(
        total=sum(run.steps for run in todo), unit=" steps", unit_scale=True, disable=None,
        file=sys.stdout, dynamic_ncols=True,
    ) as bar:
        def say(line):
            with tqdm.external_write_mode(file=sys.stdout):
                print(line, flush=True)

        def advance(run, to):
            bar.update(min(to, run.steps) - steps.get(run, 0))
            steps[run] = min(to, run.steps)

        for run, what, value in events:
            if what == "steps":
                advance(run, value)
            elif what == "held":
                say(f"Another comparison is working on {value} of these runs; waiting for them.")
            elif what == "retry":
                say(f"{run}: {value}; tried once more")
            elif what == "failed":
                failed.append(f"{run} failed: {value}")
                say(failed[-1])
                advance(run, run.steps)
            else:
                finished[run] = value
                advance(run, run.steps)
                done = f"{len(finished)} of {total}"
                bar.set_postfix_str(f"{done} runs")
                mean = sum(value["test_returns"]) / len(value["test_returns"])
                say(f"{run}: {mean:.1f} in {value['seconds']:.0f} s ({done})")
    return failed


def command(args, given):
    """The command that gives the same results, wherever they are kept."""
    seeds = args.seeds
    in_a_row = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    words = ["python compare.py", "--algorithms", *args.algorithms, "--seeds"]
    words += [f"{seeds[0]}-{seeds[-1]}"] if in_a_row else map(str, seeds)
    for flag, values in given.items():
        words += [flag, *values]
    return " ".join(words)


def report(settings, finished, args, given):
    """Draw the picture, write and print the tables, of all that is finished.

    finished: dict from run to result, in the runs' order.
    """
    from common import comparison  # late: SciPy takes a while, and --help need not wait
    from common.evaluation import TEST_STARTS, VALIDATION_STARTS, optimum

    measured = {}
    for run, result in finished.items():
        measured.setdefault(run.label, []).append(result)
    measured = {label: measured[label] for label in settings if label in measured}
    if not measured:
        raise UserError("no run has finished: there is nothing to compare yet")
    constants = [constants for *_, constants in settings.values()]
    env_id, presets = constants[0]["ENV_ID"], sorted({preset for _, _, preset, _ in
                                                      settings.values()})
    every = max(c["EVALUATE_EVERY"] for c in constants)
    starts = VALIDATION_STARTS[: constants[0]["EVALUATION_EPISODES"]]
    parts = [task_name(env_id), *(p for p in presets if p != "chapter")]
    parts += [flag[2:] for flag in varied(given) if flag != "--preset"]
    name = args.name or "_".join(parts)[:100]
    folder = Path(args.image_dir)
    rows = comparison.table(measured, every)
    best = optimum(env_id, TEST_STARTS)
    table = comparison.as_markdown(rows, best)
    files = {folder / f"compare_{name}.md": f"`{command(args, given)}`\n\n{table}",
             folder / f"compare_{name}.csv": comparison.as_csv(rows)}
    for path, text in files.items():
        content = text.encode("utf-8", "backslashreplace")
        write_atomically(path, lambda file, content=content: file.write(content))
    title = f"{env_id}, {' and '.join(presets)} constants: IQM over seeds, 95 % interval"
    picture = folder / f"compare_{name}.png"
    # An algorithm looks the same in every picture, unless something else is compared.
    styles = [ALGORITHMS.index(label.lower()) for label in measured if label.lower() in ALGORITHMS]
    styles = styles if len(styles) == len(measured) else None
    comparison.draw(picture, measured, every, title, optimum(env_id, starts), styles)
    print("\n" + table)
    for path in (picture, *files):
        print(f"Saved {path}")


def main(argv):
    """Returns the exit status: 1 if a setting or a run is missing from the results."""
    args, given = parse(argv)
    settings, refused = settings_of(args, given)
    check_writable(args.image_dir, "--image-dir")
    everything, finished = all_runs(settings, args.seeds), {}
    for run in everything:
        try:
            result = runs.result(run, args.runs_dir)
        except UserError as error:
            print(f"compare.py: {error}: this run is made anew", file=sys.stderr)
            continue
        if result:
            finished[run] = result
    print(f"Runs: {len(everything)}, finished already: {len(finished)}", flush=True)
    todo, failed = [run for run in everything if run not in finished], []
    if todo:
        check_writable(args.runs_dir, "--runs-dir")
        stale = runs.of_other_code(todo, args.runs_dir)
        if stale:
            print(f"{stale} of the others have finished with other code or packages; these results "
                  f"stay in {args.runs_dir} and are not used.", flush=True)
        pool = pools.Local(args.workers) if args.ray is None else pools.OnRay(args.ray or None)
        signals.install()  # Ray has its own way with them
        signals.hold()  # or a run could be started, and nobody would end it
        try:
            failed = train(todo, pool, args.runs_dir, finished, len(everything))
        finally:
            stopped = signals.release()
            if stopped:
                raise stopped
    report(settings, {run: finished[run] for run in everything if run in finished}, args, given)
    for line in failed:
        print(f"compare.py: {line}; the same command tries again", file=sys.stderr)
    return int(bool(failed) or refused)


def run_as_script():
    """main() with the exit status, and one line at most for whatever ends it early."""
    signals.install()
    output.prepare()
    status = 1
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except signals.Stopped as stopped:
        status, line = stopped.code, "stopped; what is finished is kept: the same command goes on"
    except UserError as error:
        line = " ".join(str(error).split())
    except OSError as error:
        line = output.lost(error)
        if not line:
            raise
        line += "; what is finished is kept"
    else:
        sys.exit(status)
    with contextlib.suppress(OSError):
        print(f"compare.py: {line}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    run_as_script()
