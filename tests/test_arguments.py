"""The flags are the constants: same names, meanings, defaults and limits."""

import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest

from common import arguments, constants, defaults, files, output, quiet, signals
from common.errors import UserError

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = '''"""Twin delayed DDPG, section 6.5.3.

More about it.
"""
from common import arguments

ALG_NAME = "TD3"
ENV_ID = "Pendulum-v1"  # environment id
RANDOM_SEED = 2  # seed of everything random, in [0, 4294967295]
RENDER = False  # show each training step in a window
TRAIN_EPISODES = 100  # training episodes, in [1, inf)
TEST_EPISODES = 10  # test episodes, in [1, inf)
BUFFER_SIZE = 500_000  # transitions in the buffer, in [1, inf)
POLICY_TARGET_UPDATE_INTERVAL = 3  # updates of the Q networks for one of the policy, in [1, inf)
OFFSET = 0  # any whole number
GAMMA = 0.9  # discount factor, in [0, 1]
DECAY = 0.5  # one of many that are in [5, 6] after each step, in (0, 1)
Q_LR = 3e-4  # learning rate of the Q networks, in (0, inf)
TARGET_ENTROPY = -2.0  # 100% free
AUTO_ENTROPY = True  # learn alpha
NOISE = "gaussian"  # exploration noise, in {gaussian, ou, none}
MOTTO = "no # comment"
LABEL = "a # b"  # label of the curve
# computed
DOUBLE = 2 * TEST_EPISODES
lower = 1  # not a constant

args = arguments.parse(__file__, __name__)

AFTERWARDS = 5  # assigned when the flags are read
'''
PRESETS = {"TD3": {"paper": {"GAMMA": 0.99, "NOISE": "none", "KEEP": "best", "EVALUATE_EVERY": 9}}}

FLAGS = {  # group -> flag and value's name -> meaning, limits and default
    "run": {
        "--train": "train, then save the weights and the reward curve (default: off)",
        "--test": "play with the saved weights; with --train, after it (default: off)",
        "--env ID": "environment id (default: Pendulum-v1)",
        "--seed N": "seed of everything random, in [0, 4294967295] (default: 2)",
        "--preset PRESET": "set of values for the constants, which single flags override, in "
        "{chapter, paper, tuned} (default: chapter)",
        "--resume": "with --train: go on where a training was stopped or killed (default: off)",
        "--render": "show each training step in a window (default: off)",
        "--explain": "with --test: draw what was learned of Pendulum beside the best "
        "(default: off)",
        "--page": "with --test: what was learned of Pendulum, to play with in a browser "
        "(default: off)",
        "--eager": "run the updates uncompiled: slow, but breakpoints work (default: off)",
        "--verbose": "show the packages' logs, and tracebacks (default: off)",
    },
    "training": {
        "--episodes N": "training episodes, in [1, inf) (default: 100)",
        "--steps N": "steps of training, in place of --episodes (0: off), in [0, inf) "
        "(default: 0)",
    },
    "updates": {
        "--q-lr X": "learning rate of the Q networks, in (0, inf) (default: 0.0003)",
        "--gamma X": "discount factor, in [0, 1] (default: 0.9)",
        "--policy-target-update-interval N": "updates of the Q networks for one of the policy, "
        "in [1, inf) (default: 3)",
        "--auto-entropy, --no-auto-entropy": "learn alpha (default: on)",
    },
    "exploration": {
        "--noise NOISE": "exploration noise, in {gaussian, ou, none} (default: gaussian)",
        "--unit-actions": "the agent acts in [-1, 1], which is stretched to the environment's "
        "range (default: off)",
    },
    "evaluation": {
        "--test-episodes N": "test episodes, in [1, inf) (default: 10)",
        "--evaluate-every N": "steps of training between two evaluations (0: off), in [0, inf) "
        "(default: 0)",
        "--evaluation-episodes N": "greedy episodes in an evaluation, in [1, 1000] (default: 10)",
        "--keep KEEP": "weights to save: the last, or those of the best evaluation, in "
        "{last, best} (default: last)",
    },
    "files": {
        "--model-dir DIR": "folder of the weights and the training's state (default: model)",
        "--image-dir DIR": "folder of curves, films and pictures (default: image)",
        "--checkpoint-every N": "episodes between two savings of the whole training, in [1, inf) "
        "(default: 10)",
        "--record [FILE]": "with --test: film the first episode as .gif or .mp4, no display "
        "needed (without FILE: a .gif beside the curves)",
        "--tensorboard [DIR]": "with --train: write curves for TensorBoard (without DIR: into "
        "runs)",
    },
    "others": {  # a reader's own
        "--buffer-size N": "transitions in the buffer, in [1, inf) (default: 500000)",
        "--offset N": "any whole number (default: 0)",
        "--decay X": "one of many that are in [5, 6] after each step, in (0, 1) (default: 0.5)",
        "--target-entropy X": "100% free (default: -2.0)",
        "--label LABEL": "label of the curve (default: a # b)",
    },
}
RUN = {"train": False, "test": False, "preset": "chapter", "resume": False, "tensorboard": None,
       "record": None, "explain": False, "page": False, "eager": False, "verbose": False}


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setattr(defaults, "PRESETS", PRESETS)
    path = tmp_path / "td3.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def read(script, line):
    """The Settings of a command line, as text or as a list of words."""
    words = line.split() if isinstance(line, str) else line
    return arguments.Command(script).read(words)


def decided(settings):
    return {name: getattr(settings, name) for name in RUN}


@pytest.fixture
def refused(capsys, monkeypatch):
    """Run a script with words: the lines on stderr before it exits with status 2."""

    def run(script, *words):
        monkeypatch.setattr(output, "prepare", lambda: None)
        monkeypatch.setattr(sys, "argv", [script.name, *words])
        with pytest.raises(SystemExit) as exit:
            arguments.parse(script, "__main__")
        out, err = capsys.readouterr()
        assert (exit.value.code, out) == (2, "")
        assert err.endswith("\n")
        return err[:-1].split("\n")

    return run


def start(script, *args, more="", options=()):
    """Run the script with some lines appended. With --verbose it imports no TensorFlow."""
    script.write_text(SCRIPT + more, encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    command = [sys.executable, *options, str(script), *args]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(script, *args, **settings):
    process = start(script, *args, **settings)
    stdout, stderr = process.communicate(timeout=60)
    return Namespace(returncode=process.returncode, stdout=stdout, stderr=stderr)


# ---- what is decided


def test_a_script_tells_its_flags_without_being_run(script):
    script.write_text(SCRIPT + "raise RuntimeError\n", encoding="utf-8")
    flags = arguments.Command(script).flags
    expected = {"--gamma": True, "--render": False, "--no-auto-entropy": False, "--keep": True}
    assert {flag: flags[flag] for flag in expected} == expected
    assert not flags.keys() & {"--motto", "--train", "--no-render"}


def test_a_command_can_be_read_again_and_refuses_without_a_word(script, capsys):
    command = arguments.Command(script)
    with pytest.raises(UserError, match=r"^td3.py: --gamma must be in \[0, 1\], got 7$"):
        command.read(["--train", "--gamma", "7"])
    assert capsys.readouterr().err == ""
    assert command.read(["--train", "--gamma", "0.7"]).constants["GAMMA"] == 0.7
    assert command.read(["--train"]).constants["GAMMA"] == 0.9  # nothing is left of the former


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("--train", {"train": True}),
        ("--train --test --eager --verbose",
         {"train": True, "test": True, "eager": True, "verbose": True}),
        ("--train --resume", {"train": True, "resume": True}),
        ("--train --tensorboard", {"train": True, "tensorboard": "runs"}),
        ("--train --tensorboard here", {"train": True, "tensorboard": "here"}),
        ("--test --record", {"test": True, "record": True}),
        ("--test --explain", {"test": True, "explain": True}),
        ("--test --page", {"test": True, "page": True}),
        ("--record --test", {"test": True, "record": True}),
        ("--test --record a.mp4", {"test": True, "record": "a.mp4"}),
        ("--train --preset paper", {"train": True, "preset": "paper"}),
    ],
)
def test_what_to_do(script, line, given):
    assert decided(read(script, line)) == RUN | given


def test_settings_are_decided_for_good(script):
    settings = read(script, "--train --seed 7 --model-dir there --preset paper")
    assert (settings.script, settings.algorithm) == (script, "TD3")
    assert (settings.seed, settings.env_id) == (7, "Pendulum-v1")
    assert settings.task == ("TD3", "Pendulum-v1", "paper")
    assert (settings.model_dir, settings.image_dir) == ("there", "image")
    assert settings.evaluate_every == 9
    for change in (
        lambda: setattr(settings, "train", False),
        lambda: setattr(settings, "model_dir", "here"),
        lambda: settings.constants.update(GAMMA=1.0),
        lambda: settings.everything.update(GAMMA=1.0),
    ):
        with pytest.raises(AttributeError):
            change()
    with pytest.raises(AttributeError, match="has no attribute 'gamma'"):
        settings.gamma  # noqa: B018


def test_constants_are_the_scripts_and_everything_has_those_of_the_run_too(script):
    own = {name: value for name, value in runpy.run_path(str(script)).items() if name.isupper()}
    for name in ("ALG_NAME", "MOTTO", "DOUBLE", "AFTERWARDS"):  # no flags
        del own[name]
    of_all = {c.name: c.value for c in constants.read(defaults.__file__)[2]}
    settings = arguments.Command(script).settings()
    assert settings.constants == own
    assert settings.everything == own | of_all | {"ALG_NAME": "TD3"}
    assert of_all == {name: getattr(defaults, name) for name in of_all}


def test_a_preset_gives_its_values_and_flags_override_it(script):
    before = read(script, "--train").everything
    after = read(script, "--train --noise ou --preset paper --seed 7").everything
    changed = {"GAMMA": 0.99, "KEEP": "best", "EVALUATE_EVERY": 9, "NOISE": "ou", "RANDOM_SEED": 7}
    assert after == before | changed


@pytest.mark.parametrize("name", ["ddpg", "td3", "sac"])
def test_presets_of_the_scripts_name_constants_and_are_allowed(name):
    script = ROOT / f"{name}.py"
    before = read(script, "--train").everything
    presets = defaults.PRESETS[name.upper()]
    assert presets.keys() == {"paper", "tuned"}
    for preset, values in presets.items():
        assert read(script, f"--train --preset {preset}").everything == before | values


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        ("--preset paper --env HalfCheetah-v5", 10_000),
        ("--preset paper --env gymnasium:Ant-v4", 10_000),
        ("--preset paper --env HalfCheetah-v5 --explore-steps 7 --learn-after 7", 7),
        ("--preset paper --env Hopper-v5", 1000),
        ("--preset paper --env AntMaze_UMaze-v5", 1000),
        ("--preset paper", 1000),
    ],
)
def test_papers_td3_explores_longer_in_two_tasks(line, steps):
    constants = read(ROOT / "td3.py", f"--train {line}").constants
    assert (constants["EXPLORE_STEPS"], constants["LEARN_AFTER"]) == (steps, steps)
    others = read(ROOT / "td3.py", f"--train {line.replace('paper', 'tuned')}").constants
    assert others["EXPLORE_STEPS"] in (1000, 7)


def test_a_preset_has_what_is_its_in_the_task_that_the_script_names(script, monkeypatch):
    monkeypatch.setattr(defaults, "OF_TASKS", {("TD3", "paper"): {"Pendulum": {"OFFSET": 3}}})
    line = "--train --preset paper"
    before, after = read(script, f"{line} --env Hopper-v5"), read(script, line)
    assert after.everything == before.everything | {"OFFSET": 3, "ENV_ID": "Pendulum-v1"}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--env CartPole-v1", "ENV_ID", "CartPole-v1"),
        ("--seed 0", "RANDOM_SEED", 0),
        ("--seed 4294967295", "RANDOM_SEED", 4294967295),
        ("--render", "RENDER", True),
        ("--episodes 3", "TRAIN_EPISODES", 3),
        ("--episodes=3", "TRAIN_EPISODES", 3),
        ("--episodes 3 --episodes 4", "TRAIN_EPISODES", 4),
        ("--buffer-size 5e5", "BUFFER_SIZE", 500000),
        ("--buffer-size 400_000", "BUFFER_SIZE", 400000),
        ("--buffer-size 7.0", "BUFFER_SIZE", 7),
        ("--buffer-size 9007199254740993", "BUFFER_SIZE", 9007199254740993),  # not through float
        ("--offset -3", "OFFSET", -3),
        ("--gamma 0", "GAMMA", 0.0),
        ("--gamma 1", "GAMMA", 1.0),
        ("--q-lr 1e-300", "Q_LR", 1e-300),
        ("--target-entropy -1.5", "TARGET_ENTROPY", -1.5),
        ("--target-entropy -1e-3", "TARGET_ENTROPY", -1e-3),
        ("--target-entropy -.5", "TARGET_ENTROPY", -0.5),
        ("--auto-entropy", "AUTO_ENTROPY", True),
        ("--no-auto-entropy", "AUTO_ENTROPY", False),
        ("--noise ou", "NOISE", "ou"),
        ("--label a#b", "LABEL", "a#b"),
        ("--steps 1e4", "TRAIN_STEPS", 10_000),
        ("--unit-actions", "UNIT_ACTIONS", True),
    ],
)
def test_a_flag_changes_its_constant(script, line, name, value):
    before = read(script, "--train").everything
    after = read(script, f"--train {line}").everything
    assert after == before | {name: value}
    assert type(after[name]) is type(value)


def test_an_environments_former_id_becomes_the_present_one(script, capsys):
    files.present_id.cache_clear()  # it is said once in a process
    settings = read(script, "--train --env Pendulum-v0")
    assert settings.env_id == settings.constants["ENV_ID"] == "Pendulum-v1"
    said = capsys.readouterr().out
    assert said == "Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.\n"


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--train --preset best", "--preset must be chapter or paper, got best"),
        ("--test --resume", "--resume needs --train"),
        ("--test --tensorboard", "--tensorboard needs --train"),
        ("--train --record", "--record needs --test"),
        ("--train --explain", "--explain needs --test"),
        ("--test --explain --env Hopper-v4",
         "--explain needs --env Pendulum-v1: it draws over angle and speed"),
        ("--train --page", "--page needs --test"),
        ("--test --page --env Hopper-v4",
         "--page needs --env Pendulum-v1, whose dynamics it has; --record films any task"),
        ("--train fast", "unknown argument fast; td3.py --help lists all flags"),
        ("--train --gamma", "--gamma needs a value"),
        ("--train --gamma --test", "--gamma needs a value"),
        ("--train --render=1", "--render takes no value"),
        (["--train", "--render", ""], "unknown argument ''; td3.py --help lists all flags"),
        ("--train --gamma=0.5 -1", "unknown flag -1; td3.py --help lists all flags"),
        ("--train --record=", "--record must be a name, got ''"),
        (["--test", "--record", ""], "--record must be a name, got ''"),
        (["--train", "--tensorboard", ""], "--tensorboard must be a name, got ''"),
        (["--train", "--model-dir", ""], "--model-dir must be a name, got ''"),
        (["--train", "--model-dir", "a\0b"], r"--model-dir must be a name, got a\x00b"),
        ("--test --record=a\0.gif", r"--record must be a name, got a\x00.gif"),
        ("--test --record a.avi", "--record a.avi: the file's name must end in .gif or .mp4."),
        (["--train", "--gamma", "a\nb"],
         r"--gamma must be a finite number in [0, 1], got a\nb"),
    ],
)
def test_a_mistake_is_one_line(script, refused, words, line):
    words = words.split() if isinstance(words, str) else words
    assert refused(script, *words) == [f"td3.py: {line}"]


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--gamma", "1.5", "in [0, 1]"),
        ("--gamma", "-1e-9", "in [0, 1]"),
        ("--gamma", "nan", "a finite number in [0, 1]"),
        ("--gamma", "much", "a finite number in [0, 1]"),
        ("--decay", "0", "in (0, 1)"),
        ("--decay", "1", "in (0, 1)"),
        ("--q-lr", "0", "in (0, inf)"),
        ("--q-lr", "inf", "a finite number in (0, inf)"),
        ("--q-lr", "-inf", "a finite number in (0, inf)"),
        ("--target-entropy", "inf", "a finite number"),
        ("--seed", "-1", "in [0, 4294967295]"),
        ("--seed", "4294967296", "in [0, 4294967295]"),
        ("--episodes", "0", "in [1, inf)"),
        ("--episodes", "2.5", "a whole number in [1, inf)"),
        ("--episodes", "ten", "a whole number in [1, inf)"),
        ("--episodes", "1e400", "a whole number in [1, inf)"),
        ("--episodes", "nan", "a whole number in [1, inf)"),
        ("--offset", "0.5", "a whole number"),
        ("--noise", "uo", "gaussian or ou or none"),
        ("--keep", "first", "last or best"),
        ("--evaluation-episodes", "1001", "in [1, 1000]"),
        # huge ones, of which the line shows the beginning
        ("--evaluation-episodes", "1e15", "in [1, 1000]"),
        ("--offset", "1e30", "between -2**63 and 2**63"),
        ("--seed", "1" + 5000 * "0", "a whole number in [0, 4294967295]"),  # more than int() reads
        ("--gamma", "1" + 5000 * "0", "a finite number in [0, 1]"),
    ],
)
def test_a_bad_value_is_one_line(script, refused, flag, value, allowed):
    shown = value if len(value) <= 80 else f"{value[:40]}...{value[-20:]}"
    lines = refused(script, "--train", "--label", "new", flag, value)
    assert lines == [f"td3.py: {flag} must be {allowed}, got {shown}"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--gama", "--gamma"),
        ("--gamm", "--gamma"),  # nearly: no abbreviations
        ("--gama=0.5", "--gamma"),
        ("--tran", "--train"),
        ("-train", "--train"),
        ("--test-ep", "--test-episodes"),
        ("--train-episodes", "--episodes"),  # the constant's own name
        ("--train_steps", "--steps"),
        ("--buffer_size", "--buffer-size"),
        ("--GAMMA", "--gamma"),
        ("--xyzzy", None),
        ("--", None),
        ("--double", None),  # computed
        ("--afterwards", None),  # assigned after parse(), so no flag
        ("--alg-name", None),  # without a comment
        ("--motto", None),
    ],
)
def test_an_unknown_flag_is_one_line(script, refused, word, meant):
    hint = f"did you mean {meant}? " if meant else ""
    line = f"td3.py: unknown flag {word.split('=')[0]}; {hint}td3.py --help lists all flags"
    assert refused(script, "--train", word) == [line]


def test_train_or_test_is_needed(script, refused):
    line = "td3.py: --train or --test is needed, or both; td3.py --help lists all flags"
    assert refused(script, "--seed", "3") == [line]


def test_tensorboard_has_to_be_installed(script, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    line = "td3.py: --tensorboard needs a package: pip install tensorboard"
    assert refused(script, "--train", "--tensorboard") == [line]


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("td3", "--preset paper --replay-buffer-size 1000", "--replay-buffer-size must be larger "
         "than --learn-after, or nothing is learned, got 1000 and 1000"),
        ("sac", "--replay-buffer-size 256", "--replay-buffer-size must be larger than "
         "--batch-size, or nothing is learned, got 256 and 256"),
        ("td3", "--learn-after 500000", "--replay-buffer-size must be larger than --learn-after, "
         "or nothing is learned, got 500000 and 500000"),
        ("ddpg", "--keep best", "--keep best needs --evaluate-every: what is best has to be "
         "measured"),
        ("sac", "--preset tuned --evaluate-every 0", "--keep best needs --evaluate-every: what "
         "is best has to be measured"),
        ("td3", "--replay-buffer-size 65", None),
        ("ddpg", "--memory-capacity 8", None),  # it draws with replacement, and counts on when full
        ("ddpg", "--memory-capacity 8 --learn-after 100", None),
        ("ddpg", "--keep best --evaluate-every 100", None),
    ],
)
def test_flags_of_the_scripts_fit_each_other(name, line, problem):
    command = arguments.Command(ROOT / f"{name}.py")
    if problem:
        with pytest.raises(UserError, match=re.escape(f"{name}.py: {problem}") + "$"):
            command.read(["--train", *line.split()])
    else:
        command.read(["--train", *line.split()])
    command.read(["--test", *line.split()])  # where nothing is to be learned


def test_flags_are_refused_before_anything_heavy_is_imported():
    command = [sys.executable, "-X", "importtime", ROOT / "td3.py", "--train", "--keep", "best"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert not re.search(r"\| +(tensorflow|numpy|gym)$", done.stderr, re.M)


# ---- what a script's author is told


def with_line(script, line):
    """Write a line above parse() into the script; returns its number."""
    text = SCRIPT.replace("\nargs = ", f"\n{line}\n\nargs = ")
    script.write_text(text, encoding="utf-8")
    return text[: text.index(line)].count("\n") + 1


NO_FLAG = (" cannot be a flag, as the comment asks: write one number, text, True or False, not "
           "computed, or put the comment above the line")
LIMITS = ": limits of a number are in [0, 1] or in (0, inf), of a text in {a, b}"
TAKEN = ", which there is already: choose another name"


@pytest.mark.parametrize(
    ("constant", "line"),
    [
        ("WARM = int(1e4)  # steps", "WARM" + NO_FLAG),
        ("SIZES = (64, 64)  # units", "SIZES" + NO_FLAG),
        ("FOLDER = None  # of the runs", "FOLDER" + NO_FLAG),
        ("A = B = 3  # both", "A and B" + NO_FLAG),
        ("GAMMA *= 0.99  # a little less", "GAMMA" + NO_FLAG),
        ("FAR: int = 5  # steps, in [0, 1]", "FAR must be in [0, 1], got 5"),
        ("COLD = -1e-3  # degrees, in [0, inf)", "COLD must be in [0, inf), got -0.001"),
        ("ENDLESS = 1e999  # steps", "ENDLESS must be a finite number, got inf"),
        ('KIND = "c"  # which, in {a, b}', "KIND must be a or b, got c"),
        ('NAME = ""  # of the run', "NAME must be a name, got ''"),
        ("X = 1  # in [0 1]", "X's comment ends in 'in [0 1]'" + LIMITS),
        ("X = 1  # some, in [5, 1]", "X must be in [5, 1], got 1"),
        ("X = 1  # some, in (1, 1)", "X must be in (1, 1), got 1"),
        ("X = 1  # some, in [0, 1", "X's comment ends in 'in [0, 1'" + LIMITS),
        ("X = 1  # some, in [0, 1].", "X's comment ends in 'in [0, 1].'" + LIMITS),
        ("X = 1  # In [0, 1]", "X's comment ends in 'In [0, 1]'" + LIMITS),
        ("X = 1  # some, in [one, two]", "X's comment ends in 'in [one, two]'" + LIMITS),
        ("X = 1  # some, in [0, nan]", "X must be in [0, nan], got 1"),
        ("X = 1  # some, in {1, 2}", "X's comment ends in 'in {1, 2}'" + LIMITS),
        ('X = "a"  # some, in {}', "X's comment ends in 'in {}'" + LIMITS),
        ('X = "a"  # some, in {a,}', "X's comment ends in 'in {a,}'" + LIMITS),
        ('X = "a"  # some, in [a, b]', "X's comment ends in 'in [a, b]'" + LIMITS),
        ("X = True  # in [0, 1]", "X's comment ends in 'in [0, 1]'" + LIMITS),
        ("GAMMA = 0.5  # again", "GAMMA would be --gamma" + TAKEN),
        ("ENV = 1  # of the two", "ENV would be --env" + TAKEN),
        ("TRAIN = 1  # x", "TRAIN would be --train" + TAKEN),
        ("HELP = 1  # x", "HELP would be --help" + TAKEN),
        ("KEEP = 1  # x", "KEEP would be --keep" + TAKEN),
        ("NO_AUTO_ENTROPY = False  # x",
         "NO_AUTO_ENTROPY would be --no-auto-entropy" + TAKEN),
    ],
)
def test_what_is_no_constant_is_said_at_once(script, refused, constant, line):
    number = with_line(script, constant)
    expected = f"td3.py, line {number}: {line}"
    with pytest.raises(UserError) as refusal:
        arguments.Command(script)
    assert str(refusal.value) == expected
    for flag in ("--train", "--help"):  # which would show what is not so
        assert refused(script, flag) == [expected]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"GAMA": 0.9}, " has GAMA, which is no constant of td3.py"),
        ({"MOTTO": "x"}, " has MOTTO, which is no constant of td3.py"),
        ({"GAMMA": "0.9"}, ": GAMMA must be a finite number in [0, 1], got '0.9'"),
        ({"GAMMA": 1.5}, ": GAMMA must be in [0, 1], got 1.5"),
        ({"OFFSET": 2.5}, ": OFFSET must be a whole number, got 2.5"),
        ({"OFFSET": True}, ": OFFSET must be a whole number, got True"),
        ({"RENDER": 1}, ": RENDER must be True or False, got 1"),
        ({"NOISE": "uo"}, ": NOISE must be gaussian or ou or none, got uo"),
        ({"NOISE": None}, ": NOISE must be gaussian or ou or none, got None"),
        ({"KEEP": "first"}, ": KEEP must be last or best, got first"),
    ],
)
def test_what_is_no_preset_is_said_when_it_is_taken(script, refused, monkeypatch, values, problem):
    monkeypatch.setattr(defaults, "PRESETS", {"TD3": {"mine": values}})
    line = f"td3.py: the preset mine of TD3 in {defaults.__file__}{problem}"
    assert refused(script, "--train", "--preset", "mine") == [line]
    monkeypatch.setattr(defaults, "PRESETS", {"TD3": {"mine": {}}})
    monkeypatch.setattr(defaults, "OF_TASKS", {("TD3", "mine"): {"Pendulum": values}})
    assert refused(script, "--train", "--preset", "mine") == [line]


@pytest.mark.parametrize(
    ("constant", "line", "value"),
    [
        ("X = -1e-3  # one of many", "--x -7", -7.0),
        ("X = 500_000  # in [0, 1] before the scaling", "--x 7", 7),
        ("X: float = 0.5  # a share, in (0, 1]", "--x 1", 1.0),
        ("X = 1  # (as in [3])", "--x 7", 7),
        ("X = 0.5  # a share, in [0,1]", "--x 1", 1.0),
        ("X = 0.0  # degrees, in (-inf, 0]", "--x -5", -5.0),
        ('X = "a"  # one of a, b', "--x c", "c"),
        ('X = "a"  # in {a,b}', "--x b", "b"),
        ("X = False  # in the middle {of it}, that is", "--x", True),
        ("# where the unit is\nX = int(5)", "", None),  # no flag
        ("x = int(5)  # a name of the program's own\nX = 5", "", None),
    ],
)
def test_only_the_end_of_a_comment_means_something(script, constant, line, value):
    with_line(script, constant)
    found = read(script, f"--train {line}").constants.get("X")
    assert (found, type(found)) == (value, type(value))


# ---- --help


def test_every_flag_of_the_scripts_has_its_group():
    commands = [arguments.Command(ROOT / f"{name}.py") for name in ("ddpg", "td3", "sac")]
    flags = {flag for command in commands for flag in command.flags if flag[:5] != "--no-"}
    flags |= {f"--{name}" for name in RUN}
    placed = " ".join(arguments.GROUPS.values()).split()
    assert sorted(f"--{name}" for name in placed) == sorted(flags)


def test_help_has_every_flag_in_80_columns_and_imports_nothing_heavy(script):
    done = run(script, "--help", options=["-X", "importtime"])
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\nTwin delayed DDPG, section 6.5.3.\n" in done.stdout
    assert "More about it" not in done.stdout
    groups = re.split(r"\n\n(\w+):\n", done.stdout)[3:]  # behind the usage and -h
    assert groups[::2] == list(FLAGS)
    for title, group in zip(groups[::2], groups[1::2]):
        entries = re.split(r"^  (?=-)", group, flags=re.M)[1:]
        assert [" ".join(entry.split()) for entry in entries] == [
            f"{flag} {text}" for flag, text in FLAGS[title].items()
        ]
    # No interval or default is broken over two lines.
    assert not re.search(r"(\bin [\[(][^\])]*|\(default:[^)]*)\n", done.stdout)
    imported = re.findall(r"\| +([\w.]+)$", done.stderr, re.M)
    assert "common.arguments" in imported
    heavy = {"tensorflow", "tensorlayer", "numpy", "gym", "gymnasium", "matplotlib"}
    assert not heavy & set(imported)


# ---- script or not


def test_an_imported_script_is_left_alone(script, monkeypatch):
    argv = ["pytest", "--train", "--seed", "9", "--nonsense"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(output, "prepare", lambda: pytest.fail("not a script"))
    calls = []
    monkeypatch.setattr(quiet, "prepare", lambda **options: calls.append(options))
    process = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.excepthook
    args = runpy.run_path(str(script), run_name="td3")["args"]
    assert decided(args) == RUN
    assert (args.seed, args.keep) == (2, "last")
    assert calls == [{"verbose": False, "imported": True}]
    assert sys.argv is argv
    after = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.excepthook
    assert after == process


@pytest.fixture
def as_a_script(script, monkeypatch):
    """Run the script in this process with a command line: (its settings, calls of others)."""

    def run(line):
        calls = []
        monkeypatch.setattr(quiet, "prepare", lambda verbose: calls.append(("quiet", verbose)))
        monkeypatch.setattr(output, "prepare", lambda: calls.append("output"))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back afterwards
        monkeypatch.setattr(sys, "argv", ["td3.py", *line.split()])
        return runpy.run_path(str(script), run_name="__main__")["args"], calls

    return run


@pytest.mark.parametrize("verbose", [True, False])
def test_a_script_reads_the_command_line_and_is_quiet(as_a_script, monkeypatch, verbose):
    monkeypatch.setattr(signals, "install", lambda: None)
    args, calls = as_a_script("--test --seed 9" + verbose * " --verbose")
    assert decided(args) == RUN | {"test": True, "verbose": verbose}
    assert args.seed == args.constants["RANDOM_SEED"] == 9
    assert calls == ["output", ("quiet", verbose)]


def test_a_thread_leaves_the_signals_alone(as_a_script):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    found = []
    work = threading.Thread(target=lambda: found.append(as_a_script("--test --verbose")[0]))
    work.start()
    work.join()
    assert [decided(args) for args in found] == [RUN | {"test": True, "verbose": True}]
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


# ---- how a script ends

WAIT = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("saved")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 1), 129)],
)
def test_a_signal_leaves_through_finally(script, number, status):
    if status == 129 and signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup, which the scripts respect")
    process = start(script, "--train", "--verbose", more=WAIT)
    assert process.stdout.readline() == "ready\n"
    begin = time.monotonic()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (stdout, stderr, process.returncode) == ("saved\n", "", status)
    assert time.monotonic() - begin < 20  # it was not the sleep that ended


def test_a_user_error_is_one_line(script):
    more = (
        "from common.errors import UserError\nraise UserError('no model/td3.npz:\\n run --train')"
    )
    done = run(script, "--train", "--verbose", more=more)
    assert (done.stderr, done.returncode) == ("td3.py: no model/td3.npz: run --train\n", 1)


def test_verbose_shows_what_a_user_error_came_from(script):
    more = (
        "from common.errors import UserError\ntry:\n    [][0]\nexcept IndexError as error:\n"
        "    raise UserError('nothing there') from error"
    )
    done = run(script, "--train", "--verbose", more=more)
    assert "IndexError: list index out of range" in done.stderr
    assert done.stderr.endswith("\ntd3.py: nothing there\n")


def test_any_other_error_has_its_traceback(script):
    done = run(script, "--train", "--verbose", more="raise ValueError('a bug')")
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ValueError: a bug\n")
    assert done.returncode == 1
