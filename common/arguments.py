"""The command line of a script, read off the constants at its top.

    GAMMA = 0.9  # discount factor, in [0, 1]

makes a flag `--gamma X` with that default, that explanation and that check. The
constant stays the only place where any of them is written: see common/constants.py.
"""

import argparse
import contextlib
import difflib
import importlib.util
import math
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from common import constants, defaults, output, quiet, signals
from common.constants import on_one_line
from common.errors import UserError
from common.files import present_id

# What is no constant: flag -> (value when it is not given, metavar of an optional value and
# what stands for it when it is left out, help).
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
    "--page": (False, None, "with --test: what was learned of Pendulum, to play with in a browser"),
    "--eager": (False, None, "run updates uncompiled: slow, but breakpoints work"),
    "--verbose": (False, None, "show the packages' logs, and tracebacks"),
}
_NEEDS = {"resume": "train", "tensorboard": "train", "record": "test", "explain": "test",
          "page": "test"}
_NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Settings:
    """What the command line decided, for good.

    Attributes:
        script: Path of the script.
        algorithm: its ALG_NAME.
        preset: name.
        constants: read-only dict of the script's constants with a flag, by name.
        everything: the same with ALG_NAME and the constants of every run (common/defaults.py).
        train, test, resume, explain, page, eager, verbose: bool.
        tensorboard: None or a folder.
        record: None, a file, or "" for the usual one.
        and each constant of every run in small letters: train_steps, model_dir, ...
    """

    script: Path
    algorithm: str
    constants: MappingProxyType
    everything: MappingProxyType
    train: bool
    test: bool
    preset: str
    resume: bool
    tensorboard: str | None
    record: str | None
    explain: bool
    page: bool
    eager: bool
    verbose: bool

    def __getattr__(self, name):
        if name.isupper() or name.startswith("_") or name.upper() not in vars(defaults):
            raise AttributeError(f"Settings have no {name}")
        return self.everything[name.upper()]

    @property
    def env_id(self):
        return self.constants["ENV_ID"]

    @property
    def seed(self):
        return self.constants["RANDOM_SEED"]

    @property
    def task(self):
        """Algorithm, environment and preset: what names the files of a run."""
        return self.algorithm, self.env_id, self.preset


def parse(script, name):
    """Read the command line of a script that is run.

    Call it with `__file__` and `__name__`, after the constants and before the heavy imports,
    so that --help answers at once, and take over `constants` of what it returns. A flag is
    made of each `NAME = literal` (int, float, bool or str) above the call with a comment on its
    line, which is its meaning, and of each constant in common/defaults.py. There, too, are the
    presets.

    From here on Ctrl-C, SIGTERM and a closed terminal become SystemExit (status 130, 143, 129),
    a UserError is printed as one line, and the packages are silenced. If the script is imported
    instead, nothing is parsed: the constants are as they are written, and the packages are
    imported without a word.

    Args:
        script: path of the script.
        name: its module's name; "__main__" if it is run.

    Returns:
        Settings.

    Raises:
        SystemExit: 0 after --help; 2 after a line on stderr that names what is wrong: a flag,
            or the line of the script with a constant that cannot be one.
        UserError: a package that the script needs is not installed.
    """
    if name != "__main__":
        quiet.prepare(verbose=False, imported=True)
        return Command(script).settings()
    output.prepare()
    try:
        command = Command(script)
        settings = command.read(sys.argv[1:])
    except UserError as error:
        Parser().exit(2, f"{error}\n")
    output.errors_on_one_line(command.name, settings.verbose)
    signals.install()
    quiet.prepare(settings.verbose)
    return settings


class Command:
    """The command line that a script has, known without running the script.

    Args:
        script: its path.

    Attributes:
        name: of the script, "td3.py".
        flags: dict from the flags made of constants to whether they take a value.

    Raises:
        UserError: a constant cannot be one; the message begins with its file and line.
    """

    def __init__(self, script):
        self.script = Path(script).absolute()
        self.name = self.script.name
        of_all = constants.read(defaults.__file__)[2]
        taken = [*_RUN, "--help", *(flag for constant in of_all for flag in constant.flags)]
        self._title, self.algorithm, own = constants.read(script, taken)
        self._own = [constant.name for constant in own]
        self._constants = own + of_all
        self._by_name = {constant.name: constant for constant in self._constants}
        self.flags = {flag: constant.kind is not bool
                      for constant in self._constants for flag in constant.flags}

    def settings(self, given=None, **run):
        """The Settings with these values of constants, by default as the script has them."""
        values = {name: constant.value for name, constant in self._by_name.items()}
        values |= given or {}
        values["ENV_ID"] = present_id(values["ENV_ID"])
        run = {flag[2:]: default for flag, (default, _, _) in _RUN.items()} | run
        return Settings(
            script=self.script,
            algorithm=self.algorithm,
            constants=MappingProxyType({name: values[name] for name in self._own}),
            everything=MappingProxyType({"ALG_NAME": self.algorithm} | values),
            **run,
        )

    def read(self, argv):
        """The Settings of the words after the script's name.

        Raises:
            UserError: it names what is wrong; the message begins with the script's name.
            SystemExit: after --help.
        """
        parser = self._parser()
        args, unknown = parser.parse_known_args(_words(argv, parser))
        if unknown:
            parser.error(self._did_you_mean(unknown[0]))
        args, values = vars(args), {}
        try:
            values |= self._preset(args["preset"])
            for constant in self._constants:
                given = args.pop(constant.name, None)  # None: the flag was not used
                if given is not None:
                    values[constant.name] = constant.checked(given, constant.flag, typed=True)
            if not (args["train"] or args["test"]):
                parser.print_usage(sys.stderr)
                raise UserError(
                    f"--train or --test is needed, or both; {self.name} --help lists all flags"
                )
            settings = self.settings(values, **args)
            _check_together(settings)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        return settings

    def _preset(self, preset):
        """The values of a preset, checked."""
        presets = {"chapter": {}} | defaults.PRESETS.get(self.algorithm, {})
        if preset not in presets:
            raise UserError(f"--preset must be {' or '.join(presets)}, got {on_one_line(preset)}")
        for name, value in presets[preset].items():
            where = f"the preset {preset} of {self.algorithm} in {defaults.__file__}"
            if name not in self._by_name:
                raise UserError(f"{where} has {name}, which is no constant of {self.name}")
            self._by_name[name].checked(value, f"{where}: {name}")
        return presets[preset]

    def _parser(self):
        # The flags' column leaves room for the words; a longer flag has a line of its own.
        width = min(shutil.get_terminal_size().columns - 1, 100)
        parser = _Raising(
            prog=self.name,
            usage="%(prog)s [--train] [--test] [flags]",
            description=self._title,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, 2, 28, width),
            allow_abbrev=False,
            add_help=False,
        )
        group = parser.add_argument_group("run")
        for flag, (default, value, text) in _RUN.items():
            if value is None:
                options = {"action": "store_true"}
            elif len(value) == 1:
                options = {"metavar": value[0]}
                presets = ["chapter", *defaults.PRESETS.get(self.algorithm, {})]
                text += f"{', '.join(presets)} (default: {default})"
            else:
                options = {"metavar": value[0], "nargs": "?", "const": value[1]}
            group.add_argument(flag, default=default, help=text, **options)
        group.add_argument("-h", "--help", action="help", help="show this and exit")
        group = parser.add_argument_group("constants")
        for constant in self._constants:
            _add_to(group, constant)
        return parser

    def _did_you_mean(self, word):
        """What to say of a word that is no flag."""
        typed = word.partition("=")[0]
        name = typed.lstrip("-").replace("_", "-").lower()
        flags = [*_RUN, "--help", *(constant.flag for constant in self._constants)]
        # TRAIN_EPISODES, --train-episodes and --train_episodes all mean --episodes.
        meant = {c.name.lower().replace("_", "-"): c.flag for c in self._constants}
        begun = [flag for flag in flags if name and flag.startswith(f"--{name}")]
        near = [meant[name]] if name in meant else begun
        # Compared without the dashes, which would make any two flags look alike.
        near = near or difflib.get_close_matches(name, [f[2:] for f in flags], n=1, cutoff=0.7)
        hint = f"did you mean --{near[0].lstrip('-')}? " if near else ""
        what = "flag" if typed.startswith("-") else "argument"
        return f"unknown {what} {on_one_line(typed)}; {hint}{self.name} --help lists all flags"


def _check_together(settings):
    """Raise UserError if flags do not fit each other, or what is installed."""
    for flag, needed in _NEEDS.items():
        if getattr(settings, flag) not in (None, False) and not getattr(settings, needed):
            raise UserError(f"--{flag} needs --{needed}")
    if settings.train:
        values = settings.everything
        size = values.get("REPLAY_BUFFER_SIZE", math.inf)
        for flag, least in ("batch-size", "BATCH_SIZE"), ("learn-after", "LEARN_AFTER"):
            if values.get(least, 0) >= size:
                raise UserError(f"--replay-buffer-size must be larger than --{flag}, or nothing "
                                f"is learned, got {size} and {values[least]}")
        if settings.keep == "best" and not settings.evaluate_every:
            raise UserError("--keep best needs --evaluate-every: what is best has to be measured")
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    # Imported late: they take NumPy, for which --help need not wait.
    if settings.record:
        from common import film

        film.check(settings.record)
    if settings.explain or settings.page:
        from common import explain

        if not explain.can_show(settings.env_id):
            if settings.explain:
                raise UserError("--explain needs --env Pendulum-v1: it draws over angle and speed")
            raise UserError("--page needs --env Pendulum-v1, whose dynamics it has; --record films "
                            "any task")


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


class _Raising(Parser):
    """Raises what is wrong: whoever reads a Command decides what becomes of it."""

    def exit(self, status=0, message=None):
        if status == 2:
            raise UserError(message.rstrip("\n"))
        super().exit(status, message)


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
