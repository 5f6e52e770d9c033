"""The command line of a script, read off the constants at its top.

    GAMMA = 0.9  # discount factor, in [0, 1]

makes a flag `--gamma X` with that default, that explanation and that check. The
constant stays the only place where any of them is written.
"""

import argparse
import ast
import contextlib
import difflib
import io
import math
import os
import re
import shutil
import sys
import tokenize
from dataclasses import dataclass

from common import quiet, signals
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
_SHORT = {"ENV_ID": "--env", "RANDOM_SEED": "--seed", "TRAIN_EPISODES": "--episodes",
          "TRAIN_STEPS": "--steps"}
_BOUND = r"(-?(?:inf|\d[\d.e+-]*))"
_INTERVAL = re.compile(rf"\b(in ([\[(]){_BOUND}, {_BOUND}([\])]))")
_CHOICE = re.compile(r"\bone of (.+)$")
_UNBROKEN = re.compile(r"\bin [\[(]\S+ |\(default: .*")  # on one line of --help, that is
_NO_BREAK = "\N{NO-BREAK SPACE}"


def parse(namespace, argv=None):
    """Parse the command line and write its values over the script's constants.

    Call it with `globals()`, after the constants and before the heavy imports, so that
    --help answers at once. A flag is made of each module-level `NAME = literal` (int,
    float, bool or str) with a comment on its line. The comment is the meaning; it may
    end in an interval, `in [0, 1]`, `in (0, inf)`, or a choice, `one of a, b`: enforced.

    In a script that is run, Ctrl-C, SIGTERM and a closed terminal become SystemExit from
    here on (status 130, 143, 129), a UserError is printed as one line, and the packages
    are silenced.

    Args:
        namespace: the script's globals().
        argv: list of str, the words after the script's name. Without it: those of the
            command line if the script is run; if it is imported, nothing is parsed
            and the constants stay as they are.

    A script may have a dict PRESETS: name -> {constant's name: value}. `--preset NAME`
    takes its values for those of the constants; single flags override both.

    Returns:
        Namespace: train, test, resume, explain, eager, verbose (bool), preset (str), tensorboard
        (None or a folder), record (None, a file, or "" for the usual one).

    Raises:
        SystemExit: 0 after --help; 2 after a line on stderr that names what is wrong.
        UserError: the script is run, and a package it needs is not installed.
    """
    # A cell of a notebook is __main__ too, but has no file.
    is_script = namespace["__name__"] == "__main__" and "__file__" in namespace
    if argv is None:
        if not is_script:
            defaults = {flag[2:]: default for flag, (default, _, _) in _RUN.items()}
            return argparse.Namespace(**defaults)
        argv = sys.argv[1:]
    title, constants = _read(namespace)
    presets = {"chapter": {}, **namespace.get("PRESETS", {})}
    parser = _parser(os.path.basename(namespace["__file__"]), title, constants, presets)
    args, unknown = parser.parse_known_args(_join_negative_numbers(argv))
    if unknown:
        parser.error(_did_you_mean(unknown[0], constants, parser.prog))
    if args.preset not in presets:
        names = " or ".join(presets)
        parser.error(f"--preset must be {names}, got {_on_one_line(args.preset)}")
    preset = presets[args.preset]
    values = {}
    for constant in constants:
        given = vars(args).pop(constant.name, None)  # None: the flag was not used
        value = preset.get(constant.name, namespace[constant.name]) if given is None else given
        try:
            values[constant.name] = constant.checked(value)
        except ValueError as error:
            culprit = constant.name if given is None else constant.flag
            parser.error(f"{culprit} must be {error}, got {_on_one_line(value)}")
    if not (args.train or args.test):
        parser.print_usage(sys.stderr)
        parser.error(f"--train or --test is needed, or both; {parser.prog} --help lists all flags")
    for flag, needed in _NEEDS.items():
        if getattr(args, flag) not in (None, False) and not getattr(args, needed):
            parser.error(f"--{flag} needs --{needed}")
    if args.explain:
        from common import explain  # late: it takes NumPy, for which --help need not wait

        if not explain.can_show(values["ENV_ID"]):
            parser.error("--explain needs --env Pendulum-v1: it draws over angle and speed")
    namespace.update(values)
    if is_script:
        _print_user_errors_on_one_line(parser.prog, args.verbose)
        signals.install()
        quiet.prepare(args.verbose)
    return args


class Script:
    """A script's command line, read without running the script.

    Args:
        path: of the script.

    Attributes:
        flags: dict from the flags made of its constants, to whether they take a value.
    """

    def __init__(self, path):
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
        self._namespace = {"__file__": str(path), "__name__": "script"}
        above = []  # the constants and presets
        for node in tree.body:
            if isinstance(node, ast.Assign):
                if "arguments.parse" in ast.unparse(node.value):
                    break
                above.append(node)
        exec(compile(ast.Module(above, []), str(path), "exec"), self._namespace)
        self.flags = {}
        for constant in _read(self._namespace)[1]:
            self.flags[constant.flag] = constant.kind is not bool
            if constant.default == "True":
                self.flags["--no-" + constant.flag.removeprefix("--")] = False

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


def constants_in(namespace):
    """The constants of a script's globals(), without the presets: dict from name to value."""
    return {
        name: value
        for name, value in namespace.items()
        if name.isupper() and isinstance(value, (bool, int, float, str))
    }


@dataclass
class _Constant:
    """One constant of a script, and the flag made of it."""

    name: str
    kind: type  # int, float, bool or str
    default: str  # as the script writes it
    comment: str

    def __post_init__(self):
        self.flag = _SHORT.get(self.name, "--" + self.name.lower().replace("_", "-"))
        interval, choice = _INTERVAL.search(self.comment), _CHOICE.search(self.comment)
        self.interval = interval.groups() if interval else ("", "[", "-inf", "inf", "]")
        self.choices = choice[1].split(", ") if choice else None

    def add_to(self, group):
        """Add the flag to a group of a parser; unused, it leaves nothing in the result."""
        default = {"False": "off", "True": "on"}.get(self.default, self.default)
        text = f"{self.comment} (default: {default})".replace("%", "%%")
        text = _UNBROKEN.sub(lambda found: found[0].replace(" ", _NO_BREAK), text)
        options = {"dest": self.name, "default": argparse.SUPPRESS, "help": text}
        if self.kind is bool:
            both = self.default == "True"
            options["action"] = argparse.BooleanOptionalAction if both else "store_true"
        else:  # ENV_ID takes an ID, MODEL_DIR a DIR, NOISE a NOISE
            options["metavar"] = {int: "N", float: "X", str: self.name.split("_")[-1]}[self.kind]
        group.add_argument(self.flag, **options)

    def checked(self, value):
        """The constant's value, or the text given to its flag, as a value of this kind.

        Raises:
            ValueError: it is not allowed; the message says what is.
        """
        if self.kind is bool:
            return value
        if self.kind is str:
            if not value or (self.choices and value not in self.choices):
                raise ValueError(" or ".join(self.choices or ["a name"]))
            return value
        interval, left, low, high, right = self.interval
        try:
            number = _number(self.kind, str(value))
        except ValueError:
            what = "a whole number" if self.kind is int else "a finite number"
            raise ValueError(f"{what} {interval}".rstrip()) from None
        above = number >= float(low) if left == "[" else number > float(low)
        below = number <= float(high) if right == "]" else number < float(high)
        if not (above and below):
            raise ValueError(interval)
        return number


def _number(kind, text):
    """The text as a finite float or, where kind is int, a whole number: 500000 or 5e5."""
    if kind is int:
        with contextlib.suppress(ValueError):
            return int(text)
    number = float(text)
    if not math.isfinite(number) or kind(number) != number:
        raise ValueError
    return kind(number)


def _read(namespace):
    """The first line of the script's docstring, and the list of its constants so far."""
    with tokenize.open(namespace["__file__"]) as file:
        source = file.read()
    tree = ast.parse(source)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    constants = []
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                comment = comments.get(node.end_lineno, "").lstrip("# ")
            case _:
                continue
        # One that is assigned only after parse() would overwrite what the flag was given.
        if not (comment and re.fullmatch("[A-Z][A-Z0-9_]*", name) and name in namespace):
            continue
        with contextlib.suppress(ValueError):  # computed, not a literal
            literal = ast.literal_eval(value)
            if type(literal) in (int, float, bool, str):
                written = literal if type(literal) is str else ast.get_source_segment(source, value)
                constants.append(_Constant(name, type(literal), written, comment))
    return (ast.get_docstring(tree) or "").partition("\n")[0], constants


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
        constant.add_to(group)
    return parser


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse says "argument" and more."""

    def error(self, message):
        message = message.removeprefix("argument ")
        message = message.replace(": expected one argument", " needs a value")
        message = re.sub(": ignored explicit argument .*", " takes no value", message)
        self.exit(2, f"{self.prog}: {message}\n")

    def format_help(self):
        return super().format_help().replace(_NO_BREAK, " ")


def _join_negative_numbers(argv):
    """`--flag -1e-3` as `--flag=-1e-3`, for argparse takes such a number for a flag."""
    words = []
    for word in argv:
        if words and words[-1].startswith("--") and re.match(r"-(\.?\d|inf)", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _did_you_mean(word, constants, prog):
    """What to say of a word that is no flag."""
    typed = word.partition("=")[0]
    name = typed.lstrip("-").replace("_", "-").lower()
    flags = [*_RUN, "--help", *(constant.flag for constant in constants)]
    # TRAIN_EPISODES, --train-episodes and --train_episodes all mean --episodes.
    meant = {constant.name.lower().replace("_", "-"): constant.flag for constant in constants}
    near = [meant[name]] if name in meant else [f for f in flags if f.startswith(f"--{name}")]
    # Compared without the dashes, which would make any two flags look alike.
    near = near or difflib.get_close_matches(name, [f[2:] for f in flags], n=1, cutoff=0.7)
    hint = f"did you mean --{near[0].lstrip('-')}? " if near else ""
    what = "flag" if typed.startswith("-") else "argument"
    return f"unknown {what} {_on_one_line(typed)}; {hint}{prog} --help lists all flags"


def _on_one_line(value):
    """The value as it was typed, in quotes if it is empty or has newlines."""
    text = str(value)
    return text if text.strip() and text.isprintable() else repr(text)


def _print_user_errors_on_one_line(prog, verbose):
    default = sys.excepthook

    def hook(kind, error, traceback):
        if issubclass(kind, UserError):
            if verbose and error.__cause__ is not None:
                default(kind, error, traceback)
            print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
        else:
            default(kind, error, traceback)

    sys.excepthook = hook
