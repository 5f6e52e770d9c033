"""The command line of a script, read off the constants at its top.

    GAMMA = 0.9  # discount factor, in [0, 1]

makes a flag `--gamma X` with that default, that explanation and that check. The
constant stays the only place where any of them is written: see common/constants.py.
"""

import argparse
import ast
import contextlib
import difflib
import importlib.util
import io
import math
import os
import re
import shutil
import sys

from common import output, quiet, signals
from common.constants import above_parse, checked_presets, constants_in, on_one_line, read
from common.errors import UserError

# What is no constant of the algorithm: flag -> (value when it is not given, metavar of an
# optional value and what stands for it when it is left out, help).
_RUN = {
    "--train": (False, None, "train, save the weights and the reward curve"),
    "--test": (False, None, "play with the saved weights, after training if both"),
    "--preset": ("chapter", ("NAME",), "values for the constants, which single flags override: "),
    "--resume": (False, None, "with --train: go on where a training was stopped or killed"),
    "--tensorboard": (None, ("DIR", "runs"), "with --train: write curves for TensorBoard "
                      "(folder: runs)"),
    "--record": (None, ("FILE", ""), "with --test: film the first episode, no display needed "
                 "(.gif or .mp4; default: a .gif in the folder of the curves)"),
    "--explain": (False, None, "with --test: draw what was learned of Pendulum, beside the best"),
    "--eager": (False, None, "run updates uncompiled: slow, but breakpoints work"),
    "--verbose": (False, None, "show the packages' logs, and tracebacks"),
}
_NEEDS = {"resume": "train", "tensorboard": "train", "record": "test", "explain": "test"}
_NO_BREAK = "\N{NO-BREAK SPACE}"


def parse(namespace, argv=None):
    """Parse the command line and write its values over the script's constants.

    Call it with `globals()`, after the constants and before the heavy imports, so that
    --help answers at once. A flag is made of each module-level `NAME = literal` (int,
    float, bool or str) above the call with a comment on its line, which is its meaning.
    A script may have a dict PRESETS: name -> {constant's name: value}. `--preset NAME`
    takes its values for those of the constants; single flags override both.

    In a script that is run, Ctrl-C, SIGTERM and a closed terminal become SystemExit from
    here on (status 130, 143, 129), a UserError is printed as one line, and the packages
    are silenced.

    Args:
        namespace: the script's globals().
        argv: list of str, the words after the script's name. Without it: those of the
            command line if the script is run; if it is imported, nothing is parsed, the
            constants stay as they are, and the packages are imported without a word.

    Returns:
        Namespace: train, test, resume, explain, eager, verbose (bool), preset (str), tensorboard
        (None or a folder), record (None, a file, or "" for the usual one).

    Raises:
        SystemExit: 0 after --help; 2 after a line on stderr that names what is wrong: a flag,
            or the line of the script with a constant or preset that cannot be one.
        UserError: a package that the script needs is not installed.
    """
    # A cell of a notebook is __main__ too, but has no file.
    is_script = namespace["__name__"] == "__main__" and "__file__" in namespace
    if argv is None:
        if not is_script:
            quiet.prepare(verbose=False, imported=True)
            defaults = {flag[2:]: default for flag, (default, _, _) in _RUN.items()}
            return argparse.Namespace(**defaults)
        argv = sys.argv[1:]
    if is_script:
        output.prepare()
    prog = os.path.basename(namespace["__file__"])
    try:
        title, constants = _read(namespace)
        presets = checked_presets(namespace, constants)
    except UserError as error:
        Parser().exit(2, f"{prog}, {error}\n")
    parser = _parser(prog, title, constants, presets)
    args, unknown = parser.parse_known_args(_words(argv, parser))
    if unknown:
        parser.error(_did_you_mean(unknown[0], constants, prog))
    if args.preset not in presets:
        names = " or ".join(presets)
        parser.error(f"--preset must be {names}, got {on_one_line(args.preset)}")
    values = presets["chapter"] | presets[args.preset]
    for constant in constants:
        given = vars(args).pop(constant.name, None)  # None: the flag was not used
        if given is not None:
            try:
                values[constant.name] = constant.checked(given, typed=True)
            except ValueError as error:
                parser.error(f"{constant.flag} must be {error}, got {on_one_line(given)}")
    if not (args.train or args.test):
        parser.print_usage(sys.stderr)
        parser.error(f"--train or --test is needed, or both; {prog} --help lists all flags")
    try:
        _check_together(args, values)
    except UserError as error:
        parser.error(str(error))
    namespace.update(values)
    if is_script:
        output.errors_on_one_line(prog, args.verbose)
        signals.install()
        quiet.prepare(args.verbose)
    return args


def _check_together(args, values):
    """Raise UserError if flags do not fit each other, or what is installed."""
    for flag, needed in _NEEDS.items():
        if getattr(args, flag) not in (None, False) and not getattr(args, needed):
            raise UserError(f"--{flag} needs --{needed}")
    if args.train:
        size = values.get("REPLAY_BUFFER_SIZE", math.inf)
        for flag, least in ("batch-size", "BATCH_SIZE"), ("learn-after", "LEARN_AFTER"):
            if values.get(least, 0) >= size:
                raise UserError(f"--replay-buffer-size must be larger than --{flag}, or nothing "
                                f"is learned, got {size} and {values[least]}")
        if values.get("KEEP") == "best" and not values["EVALUATE_EVERY"]:
            raise UserError("--keep best needs --evaluate-every: what is best has to be measured")
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    # Imported late: they take NumPy, for which --help need not wait.
    if args.record:
        from common import film

        film.check(args.record)
    if args.explain:
        from common import explain

        if not explain.can_show(values["ENV_ID"]):
            raise UserError("--explain needs --env Pendulum-v1: it draws over angle and speed")


def _read(namespace):
    """The first line of the script's docstring, and the list of its constants."""
    return read(namespace["__file__"], taken=[*_RUN, "--help"])


class Script:
    """A script's command line, read without running the script.

    Args:
        path: of the script.

    Attributes:
        flags: dict from the flags made of its constants, to whether they take a value.

    Raises:
        UserError: a constant or preset cannot be one; the message has file and line.
    """

    def __init__(self, path):
        self._namespace = {"__file__": str(path), "__name__": "script"}
        above = ast.Module(above_parse(path)[1], [])
        exec(compile(above, str(path), "exec"), self._namespace)
        self.constants(["--train"])
        self.flags = {}
        for constant in _read(self._namespace)[1]:
            self.flags |= dict.fromkeys(constant.flags, constant.kind is not bool)

    def constants(self, argv):
        """The constants that a run with the words `argv` has: dict from name to value.

        Raises:
            UserError: the script would refuse them.
        """
        namespace = dict(self._namespace)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                parse(namespace, argv)
        except SystemExit as error:
            raise UserError(said.getvalue().strip().splitlines()[-1]) from error
        return constants_in(namespace)


def _parser(prog, title, constants, presets):
    # The flags' column leaves room for the words; a longer flag has a line of its own.
    layout = {"width": min(shutil.get_terminal_size().columns - 1, 100), "max_help_position": 28}
    parser = Parser(
        prog=prog,
        usage="%(prog)s [--train] [--test] [flags]",
        description=title,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, **layout),
        allow_abbrev=False,
        add_help=False,
    )
    group = parser.add_argument_group("run")
    for flag, (default, value, text) in _RUN.items():
        if value is None:
            options = {"action": "store_true"}
        elif len(value) == 1:
            options = {"metavar": value[0]}
            text += f"{', '.join(presets)} (default: {default})"
        else:
            options = {"metavar": value[0], "nargs": "?", "const": value[1]}
        group.add_argument(flag, default=default, help=text, **options)
    group.add_argument("-h", "--help", action="help", help="show this and exit")
    group = parser.add_argument_group("constants")
    for constant in constants:
        _add_to(group, constant)
    return parser


def _add_to(group, constant):
    """Add a constant's flag to a group of a parser; unused, it leaves nothing in the result."""
    default = {"False": "off", "True": "on"}.get(constant.written, constant.written)
    text = constant.comment.removesuffix(constant.limits)
    text += constant.limits.replace(" ", _NO_BREAK) + " "
    text += f"(default: {default})".replace(" ", _NO_BREAK)
    options = {"dest": constant.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if constant.kind is bool:
        both = len(constant.flags) == 2
        options["action"] = argparse.BooleanOptionalAction if both else "store_true"
    else:  # ENV_ID takes an ID, MODEL_DIR a DIR, NOISE a NOISE
        metavars = {int: "N", float: "X", str: constant.name.split("_")[-1]}
        options["metavar"] = metavars[constant.kind]
    group.add_argument(constant.flag, **options)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse says "argument" and more."""

    def error(self, message):
        message = message.removeprefix("argument ")
        message = message.replace(": expected one argument", " needs a value")
        message = re.sub(": ignored explicit argument .*", " takes no value", message, flags=re.S)
        self.exit(2, f"{self.prog}: {message}\n")

    def print_help(self, file=None):
        try:
            print(self.format_help(), end="", file=file, flush=True)
        except OSError as error:
            self.exit(1, f"{self.prog}: {output.lost(error) or error}\n")

    def _print_message(self, message, file=None):
        with contextlib.suppress(OSError):  # nobody hears it; the status says it, too
            super()._print_message(message, file)

    def format_help(self):
        return super().format_help().replace(_NO_BREAK, " ")


def _words(argv, parser):
    """The words, with `--flag -1e-3` as `--flag=-1e-3`: argparse takes such a number for a flag."""
    words = []
    for word in argv:
        before = words[-1] if words else ""
        if re.fullmatch("--[^=]+", before) and re.match(r"-(\.?\d|inf)|$", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
        if "\0" in word:
            parser.error(f"{on_one_line(word)} has a NUL character in it")
    for flag, (_, takes_value, _) in _RUN.items():
        if takes_value and f"{flag}=" in words:
            parser.error(f"{flag} must be a name, got ''")
    return words


def _did_you_mean(word, constants, prog):
    """What to say of a word that is no flag."""
    typed = word.partition("=")[0]
    name = typed.lstrip("-").replace("_", "-").lower()
    flags = [*_RUN, "--help", *(constant.flag for constant in constants)]
    # TRAIN_EPISODES, --train-episodes and --train_episodes all mean --episodes.
    meant = {constant.name.lower().replace("_", "-"): constant.flag for constant in constants}
    begun = [flag for flag in flags if name and flag.startswith(f"--{name}")]
    near = [meant[name]] if name in meant else begun
    # Compared without the dashes, which would make any two flags look alike.
    near = near or difflib.get_close_matches(name, [f[2:] for f in flags], n=1, cutoff=0.7)
    hint = f"did you mean --{near[0].lstrip('-')}? " if near else ""
    what = "flag" if typed.startswith("-") else "argument"
    return f"unknown {what} {on_one_line(typed)}; {hint}{prog} --help lists all flags"
