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
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

from common import constants, defaults, output, quiet, signals
from common.constants import NO_BREAK, Constant
from common.errors import UserError, one_line
from common.files import present_id

# What a run does: flags that are no constants of it, and which of them need another.
_RUN = [
    Constant("TRAIN", False, "train, then save the weights and the reward curve"),
    Constant("TEST", False, "play with the saved weights; with --train, after it"),
    Constant("RESUME", False, "with --train: go on where a training was stopped or killed"),
    Constant("EXPLAIN", False, "with --test: draw what was learned of Pendulum beside the best"),
    Constant("PAGE", False, "with --test: what was learned of Pendulum, to play with in a browser"),
    Constant("EAGER", False, "run the updates uncompiled: slow, but breakpoints work"),
    Constant("VERBOSE", False, "show the packages' logs, and tracebacks"),
    Constant("RECORD", None, "with --test: film the first episode as .gif or .mp4, no display "
             "needed (without FILE: a .gif beside the curves)", ("FILE", True)),
    Constant("TENSORBOARD", None, "with --train: write curves for TensorBoard (without DIR: "
             "into runs)", ("DIR", "runs")),
]
_NEEDS = {"resume": "train", "tensorboard": "train", "record": "test", "explain": "test",
          "page": "test"}
GROUPS = {  # of --help and of the READMEs, where a script has such a flag
    "run": "train test env seed preset resume render explain page eager verbose",
    "training": "episodes steps max-steps batch-size update-itr learn-after memory-capacity "
                "replay-buffer-size",
    "updates": "lr-a lr-c q-lr soft-q-lr policy-lr alpha-lr gamma tau soft-tau eval-noise-scale "
               "policy-target-update-interval policy-loss auto-entropy reward-scale "
               "standardise-rewards",
    "networks": "hidden-dim weight-init",
    "exploration": "explore-steps explore-hold explore-noise-scale noise var var-decay ou-theta "
                   "clip-actions unit-actions",
    "evaluation": "test-episodes evaluate-every evaluation-episodes keep",
    "files": "model-dir image-dir checkpoint-every record tensorboard",
}


class Settings(SimpleNamespace):
    """What the command line decided, for good.

    Attributes:
        script: Path of the script.
        algorithm: its ALG_NAME.
        constants: read-only dict of the script's constants with a flag, by name.
        everything: the same with ALG_NAME and the constants of every run (common/defaults.py).
        train, test, resume, explain, page, eager, verbose: bool.
        record: None, a file, or True for the usual one.
        tensorboard: None or a folder.
        env_id, preset, seed: as the flags --env, --preset and --seed.
        task: (algorithm, env_id, preset), which names the files of a run.
        and each constant of every run in small letters: train_steps, model_dir, ...
    """

    def __setattr__(self, name, value):
        raise AttributeError(f"Settings are decided for good: {name} stays as it is")


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
    output.errors_on_one_line(Path(script).name, "--verbose" in sys.argv)  # --help's, too
    try:
        settings = Command(script).read(sys.argv[1:])
    except UserError as error:
        with contextlib.suppress(OSError):  # nobody hears it; the status says it, too
            print(error, file=sys.stderr)
        sys.exit(2)
    signals.install()
    quiet.prepare(settings.verbose)
    return settings


class Command:
    """The command line that a script has, known without running the script.

    Args:
        script: its path.

    Attributes:
        name: of the script, "td3.py".
        algorithm: its ALG_NAME.
        flags: dict from the flags made of constants to whether they take a value.

    Raises:
        UserError: a constant cannot be one; the message begins with its file and line.
    """

    def __init__(self, script):
        self.script = Path(script).absolute()
        self.name = self.script.name
        title, self.algorithm, self._own = constants.read(script)
        self._of_all = constants.read(defaults.__file__)[2]
        self.flags = {flag: constant.kind is not bool
                      for constant in self._own + self._of_all for flag in constant.flags}
        self._presets = {"chapter": {}} | defaults.PRESETS.get(self.algorithm, {})
        self._run = [*_RUN, Constant("PRESET", "chapter", "set of values for the constants, which "
                                     f"single flags override, in {{{', '.join(self._presets)}}}")]
        # The flags' column leaves room for the words; a longer flag has a line of its own.
        width = min(shutil.get_terminal_size().columns - 1, 100)
        self._parser = Parser(
            prog=self.name, usage="%(prog)s [--train] [--test] [flags]", description=title,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, 2, 28, width),
            allow_abbrev=False, exit_on_error=False,
        )
        groups = {title: self._parser.add_argument_group(title) for title in [*GROUPS, "others"]}
        places = {"--" + name: title for title, names in GROUPS.items() for name in names.split()}
        self._constants = sorted(self._run + self._of_all + self._own,
                                 key=lambda one: [*places, one.flag].index(one.flag))
        for constant in self._constants:
            try:
                group = groups[places.get(constant.flag, "others")]
                group.add_argument(constant.flag, **constant.options())
            except argparse.ArgumentError:
                raise UserError(
                    f"{self.name}, line {constant.line}: {constant.name} would be "
                    f"{constant.flag}, which there is already: choose another name") from None

    def settings(self, given=None, **run):
        """The Settings with these values of constants, by default as the script has them."""
        values = {constant.name: constant.value for constant in self._constants} | (given or {})
        values |= {name.upper(): value for name, value in run.items()}
        values["ENV_ID"] = present_id(values["ENV_ID"])
        own, of_all, of_run = ({constant.name: values[constant.name] for constant in constants}
                               for constants in (self._own, self._of_all, self._run))
        return Settings(
            script=self.script, algorithm=self.algorithm, constants=MappingProxyType(own),
            everything=MappingProxyType({"ALG_NAME": self.algorithm} | own | of_all),
            env_id=values["ENV_ID"], seed=values.get("RANDOM_SEED"),
            task=(self.algorithm, values["ENV_ID"], values["PRESET"]),
            **{name.lower(): value for name, value in (of_run | of_all).items()},
        )

    def read(self, argv):
        """The Settings of the words after the script's name.

        Raises:
            UserError: it names what is wrong; the message begins with the script's name.
            SystemExit: after --help.
        """
        try:
            args, unknown = self._parser.parse_known_args(_words(argv))
            if unknown:
                raise UserError(self._did_you_mean(unknown[0]))
            given = vars(args)
            settings = self.settings(self._preset(*self.settings(given).task) | given)
            _check_together(settings)
        except (UserError, argparse.ArgumentError) as error:
            raise UserError(f"{self.name}: {_in_our_words(str(error))}") from None
        return settings

    def _preset(self, algorithm, env_id, preset):
        """The values of a preset in a task, checked."""
        constants = {constant.name: constant for constant in self._own + self._of_all}
        task = env_id.rpartition(":")[2].rpartition("-v")[0]  # without its module and version
        of_task = defaults.OF_TASKS.get((algorithm, preset), {}).get(task, {})
        values = self._presets[preset] | of_task
        for name, value in values.items():
            where = f"the preset {preset} of {algorithm} in {defaults.__file__}"
            if name not in constants:
                raise UserError(f"{where} has {name}, which is no constant of {self.name}")
            constants[name].check(value, f"{where}: {name}")
        return values

    def _did_you_mean(self, word):
        """What to say of a word that is no flag."""
        typed = word.partition("=")[0]
        name = typed.lstrip("-").replace("_", "-").lower()
        flags = {"help": "--help"}
        for constant in self._constants:
            flags |= {flag[2:]: flag for flag in constant.flags}
            # TRAIN_EPISODES, --train-episodes and --train_episodes all mean --episodes.
            flags.setdefault(constant.name.lower().replace("_", "-"), constant.flag)
        near = [flag for flag in flags if name and flag.startswith(name)]
        near = near or difflib.get_close_matches(name, flags, n=1, cutoff=0.7)
        hint = f"did you mean {flags[near[0]]}? " if near else ""
        what = f"unknown {'flag' if typed.startswith('-') else 'argument'}"
        shown = one_line(typed, 80) or repr(typed)
        return f"{what} {shown}; {hint}{self.name} --help lists all flags"


def _check_together(settings):
    """Raise UserError if flags do not fit each other, or what is installed."""
    if not (settings.train or settings.test):
        raise UserError(f"--train or --test is needed, or both; {settings.script.name} --help "
                        "lists all flags")
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
    if settings.record not in (None, True):
        from common import film

        film.check(settings.record)
    if settings.explain or settings.page:
        from common import explain

        if not explain.can_show(settings.env_id):
            if settings.explain:
                raise UserError("--explain needs --env Pendulum-v1: it draws over angle and speed")
            raise UserError("--page needs --env Pendulum-v1, whose dynamics it has; --record films "
                            "any task")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse says "argument" and more."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {_in_our_words(message)}\n")

    def print_help(self, file=None):
        print(self.format_help().replace(NO_BREAK, " "), end="", flush=True)


def _in_our_words(message):
    message = message.removeprefix("argument ").replace(": must be", " must be")
    message = message.replace(": expected one argument", " needs a value")
    return re.sub(": ignored explicit argument .*", " takes no value", message, flags=re.DOTALL)


def _words(argv):
    """The words, with `--flag -1e-3` as `--flag=-1e-3`: argparse takes such a number for a flag."""
    words = []
    for word in argv:
        if words and re.match(r"-(\.?\d|inf)", word) and re.fullmatch("--[^=]+", words[-1]):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words
