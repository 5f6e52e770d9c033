"""The command line of a script, read off the constants at its top.

    GAMMA = 0.9  # discount factor, in [0, 1]

makes a flag `--gamma X` with that default. The comment is its help; it may end in an interval of a
number (`in [0, 1]`, `in (0, inf)`) or in the choices of a text (`in {gaussian, ou}`), which are
checked. A name in capitals whose value is no number, text or switch written out is no flag.
"""

import argparse
import ast
import contextlib
import difflib
import importlib.util
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from common import presets, process
from common.errors import UserError, one_line
from common.files.compile_cache import compile_cache
from common.files.names import (
    fixed,
    picture_path,
    plain_env_id,
    present_id,
    state_path,
    weights_path,
)
from common.files.whole import check_writable

# Constants of every run, which are flags of every script, written as a script's are.
OF_EVERY_RUN = '''
TRAIN_STEPS = 0  # steps of training, in place of --episodes (0: off), in [0, inf)
UNIT_ACTIONS = False  # the agent acts in [-1, 1], which is stretched to the environment's range
CHECKPOINT_EVERY = 10  # episodes between savings of all; more, where they take long, in [1, inf)
EVALUATE_EVERY = 0  # steps of training between two evaluations (0: off), in [0, inf)
EVALUATION_EPISODES = 10  # greedy episodes in an evaluation, in [1, 1000]
KEEP = "last"  # weights to save: the last, or those of the best evaluation, in {last, best}
MODEL_DIR = "model"  # folder of the weights and the training's state
IMAGE_DIR = "image"  # folder of curves, films and pictures
'''
_SWITCHES = {
    "train": "train, then save the weights and the reward curve",
    "test": "play with the saved weights; with --train, after it",
    "resume": "with --train: go on where a training was stopped or killed",
    "explain": "with --test: draw what was learned of Pendulum beside the best",
    "page": "with --test: what was learned of Pendulum, to play with in a browser",
    "eager": "run the updates uncompiled: slow, but breakpoints work",
    "verbose": "show the packages' logs, and tracebacks",
}
_OF_A_RUN = *_SWITCHES, "preset", "record", "tensorboard"  # flags that are no constants
_NEEDS = {"resume": "train", "tensorboard": "train", "record": "test", "explain": "test",
          "page": "test"}
_SHORT = {"ENV_ID": "--env", "RANDOM_SEED": "--seed", "TRAIN_EPISODES": "--episodes",
          "TRAIN_STEPS": "--steps"}
_LIMITS = re.compile(r",? *\b(in (?:[\[(][^,]+,[^,]+[\])]|\{[^{}]+\}))$")


class Settings(SimpleNamespace):
    """What the command line decided.

    Attributes:
        script: Path of the script.
        algorithm: its ALG_NAME.
        constants: dict of the script's constants with a flag, by name.
        everything: the same with ALG_NAME and the constants of every run.
        train, test, resume, explain, page, eager, verbose: bool.
        record: None, a file, or True for the usual one.
        tensorboard: None or a folder.
        env_id, preset, seed: as the flags --env, --preset and --seed.
        given: set of the names of constants that a flag of the command line has set.
        task: (algorithm, env_id, preset), which names the files of a run.
        and each constant of every run in small letters: train_steps, model_dir, ...
    """


def parse(namespace):
    """Read the command line of a script that is run; its constants become what flags say.

    Call it with globals(), after the constants and before the heavy imports, so that --help
    answers at once. The process is set up (see process.py), and TensorFlow is imported without a
    word. If the script is imported instead, the constants stay as they are written, and only the
    packages are imported.

    Returns:
        Settings.

    Raises:
        SystemExit: 0 after --help; 2 after a line on stderr that names what is wrong.
        UserError: a package is not installed, weights are missing, a folder cannot be written.
    """
    script = Path(namespace["__file__"])
    if namespace["__name__"] != "__main__":
        _import_packages(verbose=False)
        return Command(script).settings()
    process.prepare(script.name, "--verbose" in sys.argv)
    try:
        settings = Command(script).read(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for name in "model_dir", "image_dir", "record", "tensorboard":
        if isinstance(getattr(settings, name), str):
            setattr(settings, name, fixed(getattr(settings, name)))
    _check_files(settings)
    namespace.update(settings.constants)
    _import_packages(verbose=settings.verbose, own=True)
    process.take_signals()
    if settings.eager:
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
    return settings


def is_script(path):
    """Whether a file is a script whose command line parse() reads."""
    return path.is_file() and b"\nargs = flags.parse(globals())" in path.read_bytes()


def _import_packages(**how):
    """Import TensorFlow and TensorLayer, see process.import_quietly(), set up for our calls."""
    process.choose_products()
    compile_cache.use()
    with compile_cache.compiling("imports"):  # which make XLA say its first words
        process.import_quietly(**how)


class Command:
    """The command line that a script has, known without running the script.

    Args:
        script: its path.

    Attributes:
        name: of the script, "td3.py".
        algorithm: its ALG_NAME.
        flags: dict from the flags made of constants to whether they take a value.

    Raises:
        UserError: a constant is not within its own limits, or there is its flag already.
    """

    def __init__(self, script):
        self.script = Path(script).absolute()
        self.name = self.script.name
        source = self.script.read_bytes()
        self._own, self.algorithm, title = _constants(source)
        self._of_all = _constants(OF_EVERY_RUN.encode())[0]
        self._presets = {"chapter": {}} | presets.PRESETS.get(self.algorithm, {})
        self.flags = {flag: constant.kind is not bool
                      for constant in self._own + self._of_all for flag in constant.flags}
        self._parser = Parser(
            prog=self.name, usage="%(prog)s [--train] [--test] [flags]", description=title,
            allow_abbrev=False,
        )
        run = self._parser.add_argument_group("what to do")
        for name, text in _SWITCHES.items():
            run.add_argument(f"--{name}", action="store_true", help=text)
        run.add_argument("--preset", default="chapter", choices=self._presets, metavar="NAME",
                         help="constants to take, which single flags override: "
                              f"{', '.join(self._presets)}")
        run.add_argument("--record", nargs="?", const=True, metavar="FILE",
                         help="with --test: film the first episode as .gif or .mp4, no display "
                              "needed (without FILE: a .gif beside the curves)")
        run.add_argument("--tensorboard", nargs="?", const="runs", metavar="DIR",
                         help="with --train: curves for TensorBoard (without DIR: into runs)")
        groups = {"constants of this script": self._own, "every run": self._of_all}
        for heading, constants in groups.items():
            group = self._parser.add_argument_group(heading)
            for constant in constants:
                constant.check(constant.value, f"{self.name}: {constant.name}")
                try:
                    group.add_argument(constant.flag, **constant.options())
                except argparse.ArgumentError:
                    raise UserError(f"{self.name}: {constant.name} would be {constant.flag}, which "
                                    "there is already: choose another name") from None

    def settings(self, given=None, **run):
        """The Settings with these values of constants, by default as the script has them."""
        given = given or {}
        own, of_all = ({constant.name: given.get(constant.name, constant.value)
                        for constant in constants} for constants in (self._own, self._of_all))
        if "ENV_ID" in own:
            own["ENV_ID"] = present_id(own["ENV_ID"])
        env_id = own.get("ENV_ID", "")
        run = dict.fromkeys(_SWITCHES, False) | {"record": None, "tensorboard": None,
                                                 "preset": "chapter"} | run
        return Settings(
            script=self.script, algorithm=self.algorithm, constants=own, given=set(),
            everything={"ALG_NAME": self.algorithm} | own | of_all,
            env_id=env_id, seed=own.get("RANDOM_SEED"),
            task=(self.algorithm, env_id, run["preset"]),
            **run, **{name.lower(): value for name, value in of_all.items()},
        )

    def read(self, argv):
        """The Settings of the words after the script's name.

        Raises:
            UserError: it names what is wrong; the message begins with the script's name.
            SystemExit: 0 after --help, 2 after a line on stderr.
        """
        args, unknown = self._parser.parse_known_args(argv)
        given = vars(args)
        try:
            if unknown:
                raise UserError(self._did_you_mean(unknown[0]))
            run = {name: given.pop(name) for name in _OF_A_RUN}
            if given.get("TRAIN_STEPS") and "TRAIN_EPISODES" in given:
                raise UserError("--steps ends a training instead of --episodes: give one of them")
            settings = self.settings(self._presets[run["preset"]] | given, **run)
            settings.given = set(given)
            _check_together(settings)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        return settings

    def _did_you_mean(self, word):
        """What to say of a word that is no flag."""
        typed = word.partition("=")[0]
        known = {name: f"--{name}" for name in ("help", *_OF_A_RUN)}
        known |= {flag.lstrip("-"): flag for flag in self.flags}
        # TRAIN_EPISODES and --train-episodes mean --episodes
        known |= {constant.name.lower().replace("_", "-"): constant.flag
                  for constant in self._own + self._of_all}
        name = typed.lstrip("-").replace("_", "-").lower()
        near = [flag for flag in known if name and flag.startswith(name)]
        near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f"did you mean {known[near[0]]}? " if near else ""
        for other in sorted(self.script.parent.glob("*.py")):
            if other != self.script and is_script(other) and typed in Command(other).flags:
                hint = f"it is a flag of {other.name}; "
        what = f"unknown {'flag' if typed.startswith('-') else 'argument'}"
        return f"{what} {one_line(typed, 80)!s}; {hint}{self.name} --help lists all flags"


def _check_together(settings):
    """Raise UserError if flags do not fit each other, or what is installed."""
    if not (settings.train or settings.test):
        raise UserError(f"--train or --test is needed, or both; {settings.script.name} --help "
                        "lists all flags")
    for flag, needed in _NEEDS.items():
        if getattr(settings, flag) and not getattr(settings, needed):
            raise UserError(f"--{flag} needs --{needed}")
    if settings.train:
        values = settings.everything
        size = values.get("REPLAY_BUFFER_SIZE", math.inf)
        for flag, name in ("batch-size", "BATCH_SIZE"), ("learn-after", "LEARN_AFTER"):
            if values.get(name, 0) >= size:
                raise UserError(f"--replay-buffer-size must be larger than --{flag}, or nothing "
                                f"is learned, got {size} and {values[name]}")
        most = settings.train_steps or (
            values.get("TRAIN_EPISODES", math.inf) * values.get("MAX_STEPS", math.inf))
        least, flags = values.get("LEARN_AFTER", 0), "--learn-after"
        if size < math.inf:  # DDPG draws with replacement, a batch from ever so few
            least, flags = max(least, values.get("BATCH_SIZE", 0)), "--learn-after, --batch-size"
        if most <= least and not settings.resume:
            raise UserError(f"nothing would be learned: this run makes {most} transitions at most, "
                            f"and learning starts after {least} ({flags})")
        if settings.keep == "best" and not settings.evaluate_every:
            raise UserError("--keep best needs --evaluate-every: what is best has to be measured")
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install tensorboard")
    if settings.record not in (None, True):
        suffix = Path(settings.record).suffix.lower()
        if suffix not in (".gif", ".mp4"):
            raise UserError(f"--record {settings.record}: the name must end in .gif or .mp4")
        if suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
            raise UserError("--record: MP4 needs a package: pip install imageio-ffmpeg, or record "
                            "a .gif")
    for flag in ("explain", "page"):
        if getattr(settings, flag) and plain_env_id(settings.env_id) != "Pendulum-v1":
            raise UserError(f"--{flag} needs --env Pendulum-v1, whose best values are known; "
                            "--record films any task")


def _check_files(settings):
    """Raise UserError, before the long imports, if files are missing or cannot be written.

    --test takes HIDDEN_DIM from the weights, unless it is given.
    """
    from common.files import weights  # NumPy with it, which --help does without

    own = weights_path(settings.model_dir, *settings.task)
    state = state_path(settings.model_dir, *settings.task)
    image = picture_path(settings.image_dir, *settings.task)
    if settings.train:
        check_writable(own.parent, "--model-dir", own.name, state.name)
    else:
        try:
            path = weights.find(settings.model_dir, *settings.task)
        except UserError:
            from common.tasks.making import make

            make(settings.env_id).close()  # where its name is wrong, that is what to say
            raise
        if "HIDDEN_DIM" in settings.constants and "HIDDEN_DIM" not in settings.given:
            settings.constants["HIDDEN_DIM"] = weights.units(path)
    if settings.train or settings.explain or settings.page or settings.record is True:
        check_writable(image.parent, "--image-dir", image.name)
    if settings.record not in (None, True):
        check_writable(Path(settings.record).parent, "--record", Path(settings.record).name)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {one_line(message, 500)}; {self.prog} --help lists all flags\n")


class Constant:
    """One constant of a script, and the flag made of it.

    Args:
        name, value, comment: as the script has them.

    Attributes:
        flag, flags: `--name`, and a list with, for what is True, `--no-name`, too.
        kind: int, float, bool or str, the type of its value and of any other.
    """

    def __init__(self, name, value, comment):
        self.name, self.value, self.kind, self.comment = name, value, type(value), comment
        self.flag = _SHORT.get(name, "--" + name.lower().replace("_", "-"))
        self.flags = [self.flag] + ["--no-" + self.flag[2:]] * (value is True)
        found = _LIMITS.search(comment)
        self.limits = found[1] if found else ""
        self.choices, self.interval = [], None
        if self.limits.endswith("}") and self.kind is str:
            self.choices = re.split(", *", self.limits[4:-1])
        elif self.limits and self.kind in (int, float):
            with contextlib.suppress(ValueError):  # words, no numbers
                low, high = map(float, self.limits[4:-1].split(","))
                self.interval = low, high, self.limits[3], self.limits[-1]

    def options(self):
        """What add_argument() is told; of a flag that is not used, nothing is left behind."""
        default = {False: "off", True: "on"}[self.value] if self.kind is bool else self.value
        text = f"{self.comment} (default: {default})".strip().replace("%", "%%")
        options = {"dest": self.name, "default": argparse.SUPPRESS, "help": text}
        if self.kind is bool:
            action = argparse.BooleanOptionalAction if self.value else "store_true"
            return options | {"action": action}
        # ENV_ID takes an ID, MODEL_DIR a DIR, NOISE a NOISE
        metavar = {int: "N", float: "X"}.get(self.kind, self.name.split("_")[-1])
        return options | {"type": self.value_of, "metavar": metavar}

    def value_of(self, text):
        """The value that a text means; raises ArgumentTypeError, which says what is allowed."""
        value = text if self.kind is str else _number(self.kind, text)
        try:
            self.check(value, "it", text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("it ")) from None
        return value

    def check(self, value, name, got=None):
        """Raise UserError, which begins with `name`, if the constant may not have the value."""
        fits, allowed = True, self.limits
        if self.choices:
            fits, allowed = value in self.choices, " or ".join(self.choices)
        elif self.kind is str and self.limits:
            fits, allowed = False, f"a number {self.limits}"
        elif self.kind is str:
            fits, allowed = bool(value) and "\0" not in value, "a name"
        elif value is None:
            kind = "whole" if self.kind is int else "finite"
            fits, allowed = False, f"a {kind} number {self.limits}".rstrip()
        elif self.interval:
            low, high, begin, end = self.interval
            fits = low <= value <= high and (begin == "[" or value != low) and (
                end == "]" or value != high)
        if not fits:
            raise UserError(f"{name} must be {allowed}, got {one_line(got or repr(value), 80)}")


def _number(kind, text):
    """The text as a finite float or, if kind is int, a whole number (500000, 5e5); else None."""
    with contextlib.suppress(ValueError, OverflowError):
        number = float(text)
        if kind is int and number == int(number) and abs(number) < 2**63:
            return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else int(number)
        if kind is float and math.isfinite(number):
            return number
    return None


def _constants(source):
    """(list of Constant, ALG_NAME or None, first line of the docstring) of a script's bytes.

    Constants are assigned above the call of flags.parse().
    """
    lines, tree = source.splitlines(), ast.parse(source)
    algorithm, constants = None, {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            if "flags.parse(" in ast.unparse(node.value):
                break
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = getattr(target, "id", "")
            try:
                value = ast.literal_eval(node.value)
            except ValueError:  # computed
                continue
            if name == "ALG_NAME":
                algorithm = value
            elif re.fullmatch("[A-Z][A-Z0-9_]*", name) and isinstance(value, int | float | str):
                comment = lines[node.end_lineno - 1][node.end_col_offset :].decode().strip()
                constants[name] = Constant(name, value, comment.lstrip("# "))
    return [*constants.values()], algorithm, (ast.get_docstring(tree) or "").partition("\n")[0]
