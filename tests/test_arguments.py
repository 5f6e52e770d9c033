"""The flags are the constants: same names, meanings, defaults and limits."""

import importlib
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

from common import arguments, output, quiet, signals
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
MODEL_DIR = "model"  # folder of trained weights
# computed
DOUBLE = 2 * TEST_EPISODES
lower = 1  # not a constant

PRESETS = {"paper": {"GAMMA": 0.99, "NOISE": "none", "AUTO_ENTROPY": False}}

args = arguments.parse(globals())

AFTERWARDS = 5  # assigned when the flags are read
'''

FLAGS = {  # flag and value's name: meaning and default
    "--env ID": "environment id (default: Pendulum-v1)",
    "--seed N": "seed of everything random, in [0, 4294967295] (default: 2)",
    "--render": "show each training step in a window (default: off)",
    "--episodes N": "training episodes, in [1, inf) (default: 100)",
    "--test-episodes N": "test episodes, in [1, inf) (default: 10)",
    "--buffer-size N": "transitions in the buffer, in [1, inf) (default: 500_000)",
    "--policy-target-update-interval N": "updates of the Q networks for one of the policy, "
    "in [1, inf) (default: 3)",
    "--offset N": "any whole number (default: 0)",
    "--gamma X": "discount factor, in [0, 1] (default: 0.9)",
    "--decay X": "one of many that are in [5, 6] after each step, in (0, 1) (default: 0.5)",
    "--q-lr X": "learning rate of the Q networks, in (0, inf) (default: 3e-4)",
    "--target-entropy X": "100% free (default: -2.0)",
    "--auto-entropy, --no-auto-entropy": "learn alpha (default: on)",
    "--noise NOISE": "exploration noise, in {gaussian, ou, none} (default: gaussian)",
    "--label LABEL": "label of the curve (default: a # b)",
    "--model-dir DIR": "folder of trained weights (default: model)",
}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "td3.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture
def td3(script, monkeypatch):
    """The globals of the script, imported."""
    monkeypatch.setattr(quiet, "prepare", lambda *args, **options: None)
    return runpy.run_path(str(script), run_name="td3")


def run_flags(**given):
    """What parse() returns: the flags that were given, and what the others are without."""
    usual = {"train": False, "test": False, "preset": "chapter", "resume": False}
    usual |= {"tensorboard": None, "record": None, "explain": False}
    usual |= {"eager": False, "verbose": False}
    return Namespace(**(usual | given))


def constants(namespace):
    return {name: value for name, value in namespace.items() if name.isupper()}


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


def refused(capsys, namespace, *argv):
    """The lines that parse() leaves on stderr before it exits with status 2."""
    before = constants(namespace)
    with pytest.raises(SystemExit) as exit:
        arguments.parse(namespace, argv)
    out, err = capsys.readouterr()
    assert (exit.value.code, out) == (2, "")
    assert constants(namespace) == before
    assert err.endswith("\n")
    return err[:-1].split("\n")


# ---- a script that is not run


def test_a_script_tells_its_flags_and_constants_without_being_run(script):
    script.write_text(SCRIPT + "raise RuntimeError\n", encoding="utf-8")
    read = arguments.Script(script)
    for flag, takes in {"--gamma": True, "--render": False, "--no-auto-entropy": False}.items():
        assert read.flags[flag] is takes
    assert "--motto" not in read.flags
    found = read.constants(["--train", "--preset", "paper", "--buffer-size", "5e3"])
    assert (found["GAMMA"], found["BUFFER_SIZE"], found["AUTO_ENTROPY"]) == (0.99, 5000, False)
    assert (found["MOTTO"], found["Q_LR"]) == ("no # comment", 3e-4)
    assert read.constants(["--train"])["GAMMA"] == 0.9  # nothing is left of the call before


def test_a_script_refuses_in_the_same_words(script, capsys):
    with pytest.raises(UserError, match=r"^td3.py: --gamma must be in \[0, 1\], got 7$"):
        arguments.Script(script).constants(["--train", "--gamma", "7"])
    assert capsys.readouterr().err == ""


# ---- what is parsed


def test_without_flags_the_constants_stay(td3):
    before = constants(td3)
    args = arguments.parse(td3, ["--train"])
    assert args == run_flags(train=True)
    assert constants(td3) == before


def test_the_run_flags(td3):
    args = arguments.parse(td3, ["--train", "--test", "--eager", "--verbose"])
    assert args == run_flags(train=True, test=True, eager=True, verbose=True)


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        ("--train --resume", {"train": True, "resume": True}),
        ("--train --tensorboard", {"train": True, "tensorboard": "runs"}),
        ("--train --tensorboard here", {"train": True, "tensorboard": "here"}),
        ("--test --record", {"test": True, "record": ""}),
        ("--test --explain", {"test": True, "explain": True}),
        ("--record --test", {"test": True, "record": ""}),
        ("--test --record a.mp4", {"test": True, "record": "a.mp4"}),
    ],
)
def test_run_flags_with_values(td3, argv, given):
    assert arguments.parse(td3, argv.split()) == run_flags(**given)


def test_a_preset_gives_its_values_and_flags_override_it(td3):
    before = constants(td3)
    flags = ["--train", "--preset", "paper", "--noise", "ou", "--seed", "7"]
    args = arguments.parse(td3, flags)
    assert args == run_flags(train=True, preset="paper")
    changed = {"GAMMA": 0.99, "AUTO_ENTROPY": False, "NOISE": "ou", "RANDOM_SEED": 7}
    assert constants(td3) == {**before, **changed}


@pytest.mark.parametrize("script", ["ddpg", "td3", "sac"])
def test_presets_of_the_scripts_name_constants_and_are_allowed(script):
    namespace = vars(importlib.import_module(script))
    before = constants(namespace)
    for preset, values in namespace["PRESETS"].items():
        namespace_of_run = dict(namespace)
        arguments.parse(namespace_of_run, ["--train", "--preset", preset])
        assert constants(namespace_of_run) == {**before, **values}
        assert values.keys() <= before.keys()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--train --preset best", "td3.py: --preset must be chapter or paper, got best"),
        ("--test --resume", "td3.py: --resume needs --train"),
        ("--test --tensorboard", "td3.py: --tensorboard needs --train"),
        ("--train --record", "td3.py: --record needs --test"),
        ("--train --explain", "td3.py: --explain needs --test"),
        ("--test --explain --env Hopper-v4",
         "td3.py: --explain needs --env Pendulum-v1: it draws over angle and speed"),
    ],
)
def test_run_flags_that_do_not_fit(td3, capsys, argv, line):
    assert refused(capsys, td3, *argv.split()) == [line]


@pytest.mark.parametrize(
    ("argv", "name", "value"),
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
    ],
)
def test_a_flag_writes_its_constant(td3, argv, name, value):
    expected = constants(td3) | {name: value}
    arguments.parse(td3, ["--train", *argv.split()])
    assert constants(td3) == expected
    assert type(td3[name]) is type(value)


def test_a_constant_changed_in_a_notebook_is_the_default(td3):
    td3["GAMMA"] = 0.5
    arguments.parse(td3, ["--train", "--seed", "7"])
    assert (td3["GAMMA"], td3["RANDOM_SEED"]) == (0.5, 7)


# ---- what is refused


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
    ],
)
def test_a_bad_value_is_one_line(td3, capsys, flag, value, allowed):
    lines = refused(capsys, td3, "--train", "--label", "new", flag, value)
    assert lines == [f"td3.py: {flag} must be {allowed}, got {value}"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--model-dir", ""], "--model-dir must be a name, got ''"),
        (["--gamma", "a\nb"], r"--gamma must be a finite number in [0, 1], got 'a\nb'"),
        (["--gamma"], "--gamma needs a value"),
        (["--gamma", "--train"], "--gamma needs a value"),
        (["--render=1"], "--render takes no value"),
    ],
)
def test_other_mistakes_are_one_line_too(td3, capsys, argv, line):
    assert refused(capsys, td3, "--train", *argv) == [f"td3.py: {line}"]


def test_a_bad_constant_in_the_file_is_called_by_its_name(td3, capsys):
    td3["GAMMA"] = 1.5
    line = "td3.py, line 16: GAMMA must be in [0, 1], got 1.5"
    assert refused(capsys, td3, "--train") == [line]


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
def test_an_unknown_flag_is_one_line(td3, capsys, word, meant):
    td3.pop("AFTERWARDS")  # the script runs on when it is imported; at parse() it has not
    hint = f"did you mean {meant}? " if meant else ""
    line = f"td3.py: unknown flag {word.split('=')[0]}; {hint}td3.py --help lists all flags"
    assert refused(capsys, td3, "--train", word) == [line]


def test_a_stray_word_is_one_line(td3, capsys):
    line = "td3.py: unknown argument fast; td3.py --help lists all flags"
    assert refused(capsys, td3, "--train", "fast") == [line]


def test_train_or_test_is_needed(td3, capsys):
    usage, line = refused(capsys, td3, "--seed", "3")
    assert usage == "usage: td3.py [--train] [--test] [flags]"
    assert line == "td3.py: --train or --test is needed, or both; td3.py --help lists all flags"


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--size", "1e15", "in [1, 1e9]"),
        ("--size", "1000000001", "in [1, 1e9]"),
        ("--offset", "1e30", "between -2**63 and 2**63"),
        ("--seed", "1" + 5000 * "0", "a whole number in [0, 4294967295]"),  # more than int() reads
        ("--gamma", "1" + 5000 * "0", "a finite number in [0, 1]"),
    ],
)
def test_huge_numbers_are_one_short_line(script, capsys, flag, value, allowed):
    td3 = imported(script, "SIZE = 1_000  # how many, in [1, 1e9]")[0]
    arguments.parse(td3, ["--train", "--size", "5e5"])
    assert td3["SIZE"] == 500_000
    assert type(td3["SIZE"]) is int
    (line,) = refused(capsys, td3, "--train", flag, value)
    assert line.startswith(f"td3.py: {flag} must be {allowed}, got {value[:50]}")
    assert len(line) < 200


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--record="], "--record must be a name, got ''"),
        (["--test", "--record", ""], "--record must be a name, got ''"),
        (["--tensorboard", ""], "--tensorboard must be a name, got ''"),
        (["--model-dir", "a\0b"], r"'a\x00b' has a NUL character in it"),
        (["--test", "--record=a\0.gif"], r"'--record=a\x00.gif' has a NUL character in it"),
        (["--test", "--record", "a.avi"],
         "--record a.avi: the file's name must end in .gif or .mp4."),
        (["--gamma=0.5", "-1"], "unknown flag -1; td3.py --help lists all flags"),
        (["--render", ""], "--render takes no value"),
    ],
)
def test_what_cannot_be_a_file_is_refused(td3, capsys, argv, line):
    assert refused(capsys, td3, "--train", *argv) == [f"td3.py: {line}"]


def test_tensorboard_has_to_be_installed(td3, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    line = "td3.py: --tensorboard needs a package: pip install tensorboard"
    assert refused(capsys, td3, "--train", "--tensorboard") == [line]


@pytest.mark.parametrize(
    ("name", "argv", "line"),
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
    ],
)
def test_flags_of_the_scripts_that_do_not_fit_each_other(name, argv, line):
    script = arguments.Script(ROOT / f"{name}.py")
    with pytest.raises(UserError) as refusal:
        script.constants(["--train", *argv.split()])
    assert str(refusal.value) == f"{name}.py: {line}"
    script.constants(["--test", *argv.split()])  # where nothing is to be learned


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("td3", "--replay-buffer-size 65"),
        ("ddpg", "--memory-capacity 8"),  # it draws with replacement, and counts on when full
        ("ddpg", "--memory-capacity 8 --learn-after 100"),
        ("ddpg", "--keep best --evaluate-every 100"),
    ],
)
def test_flags_of_the_scripts_that_fit(name, argv):
    arguments.Script(ROOT / f"{name}.py").constants(["--train", *argv.split()])


def test_flags_are_refused_before_anything_heavy_is_imported():
    command = [sys.executable, "-X", "importtime", ROOT / "td3.py", "--train", "--keep", "best"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert not re.search(r"\| +(tensorflow|numpy|gym)$", done.stderr, re.M)


# ---- what a script's author is told


def imported(script, more):
    """The globals of the script with a line above parse(), and the number of that line."""
    text = SCRIPT.replace("\nargs = ", f"\n{more}\n\nargs = ")
    script.write_text(text, encoding="utf-8")
    return runpy.run_path(str(script), run_name="td3"), text[: text.index(more)].count("\n") + 1


NO_FLAG = (" cannot be a flag, as the comment asks: write one number, text, True or False, not "
           "computed, or put the comment above the line")
NUMBER, TEXT = ": limits are in [0, 1] or in (0, inf)", ": limits are in {a, b}"


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
        ("X = 1  # in [0 1]", "X's comment ends in 'in [0 1]'" + NUMBER),
        ("X = 1  # some, in [5, 1]", "X's comment ends in 'in [5, 1]'" + NUMBER),
        ("X = 1  # some, in (1, 1)", "X's comment ends in 'in (1, 1)'" + NUMBER),
        ("X = 1  # some, in [0, 1", "X's comment ends in 'in [0, 1'" + NUMBER),
        ("X = 1  # some, in [0, 1].", "X's comment ends in 'in [0, 1].'" + NUMBER),
        ("X = 1  # In [0, 1]", "X's comment ends in 'In [0, 1]'" + NUMBER),
        ("X = 1  # some, in [one, two]", "X's comment ends in 'in [one, two]'" + NUMBER),
        ("X = 1  # some, in [0, nan]", "X's comment ends in 'in [0, nan]'" + NUMBER),
        ("X = 1  # some, in {1, 2}", "X's comment ends in 'in {1, 2}'" + NUMBER),
        ('X = "a"  # some, in {}', "X's comment ends in 'in {}'" + TEXT),
        ('X = "a"  # some, in {a,}', "X's comment ends in 'in {a,}'" + TEXT),
        ('X = "a"  # some, in [a, b]', "X's comment ends in 'in [a, b]'" + TEXT),
        ("X = True  # in [0, 1]",
         "X's comment ends in 'in [0, 1]': limits are for numbers and texts"),
        ("GAMMA = 0.5  # again", "GAMMA would be --gamma, which GAMMA has: choose another name"),
        ("ENV = 1  # of the two", "ENV would be --env, which ENV_ID has: choose another name"),
        ("TRAIN = 1  # x", "TRAIN would be --train, which every script has: choose another name"),
        ("HELP = 1  # x", "HELP would be --help, which every script has: choose another name"),
        ("NO_AUTO_ENTROPY = False  # x",
         "NO_AUTO_ENTROPY would be --no-auto-entropy, which AUTO_ENTROPY has: choose another name"),
        ('PRESETS["b"] = {"GAMA": 0.9}',
         "the preset b has GAMA, which is no constant with a flag; did you mean GAMMA?"),
        ('PRESETS["b"] = {"MOTTO": "x"}',
         "the preset b has MOTTO, which is no constant with a flag"),
        ('PRESETS["b"] = {"GAMMA": "0.9"}', "GAMMA must be a finite number in [0, 1], got 0.9"),
        ('PRESETS["b"] = {"GAMMA": 1.5}', "GAMMA must be in [0, 1], got 1.5"),
        ('PRESETS["b"] = {"OFFSET": 2.5}', "OFFSET must be a whole number, got 2.5"),
        ('PRESETS["b"] = {"OFFSET": True}', "OFFSET must be a whole number, got True"),
        ('PRESETS["b"] = {"RENDER": 1}', "RENDER must be True or False, got 1"),
        ('PRESETS["b"] = {"NOISE": "uo"}', "NOISE must be gaussian or ou or none, got uo"),
        ('PRESETS["b"] = {"NOISE": None}', "NOISE must be gaussian or ou or none, got None"),
        ('PRESETS["b"] = ["GAMMA"]',
         "the preset b must be a dict of constants, and not be called chapter"),
        ('PRESETS["chapter"] = {}',
         "the preset chapter must be a dict of constants, and not be called chapter"),
    ],
)
def test_what_is_no_constant_or_preset_is_said_at_once(script, capsys, constant, line):
    td3, number = imported(script, constant)
    expected = f"td3.py, line {number}: {line}"
    assert refused(capsys, td3, "--train") == [expected]
    assert refused(capsys, td3, "--help") == [expected]  # it would show what is not so
    with pytest.raises(UserError) as refusal:
        arguments.Script(script)
    assert str(refusal.value) == expected


def test_the_line_of_a_presets_value_is_its_own(script, capsys):
    td3, number = imported(script, 'PRESETS["b"] = {\n    "DECAY": 0.1,\n    "GAMMA": 2,\n}')
    line = f"td3.py, line {number + 2}: GAMMA must be in [0, 1], got 2"
    assert refused(capsys, td3, "--train") == [line]


@pytest.mark.parametrize(
    ("constant", "argv", "value"),
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
        ("# where the unit is\nX = int(5)", "", 5),
        ("x = int(5)  # a name of the program's own\nX = 5", "", 5),
    ],
)
def test_only_the_end_of_a_comment_means_something(script, constant, argv, value):
    td3 = imported(script, constant)[0]
    arguments.parse(td3, ["--train", *argv.split()])
    assert td3["X"] == value
    assert type(td3["X"]) is type(value)


# ---- --help


def test_help_has_every_flag_in_80_columns_and_imports_nothing_heavy(script):
    done = run(script, "--help", options=["-X", "importtime"])
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\nTwin delayed DDPG, section 6.5.3.\n" in done.stdout
    assert "More about it" not in done.stdout
    run_group, constants_group = done.stdout.split("\nrun:\n")[1].split("\nconstants:\n")
    for flag in ("--train", "--test", "--preset NAME", "--resume", r"--tensorboard \[DIR\]",
                 r"--record \[FILE\]", "--eager", "--verbose", "-h, --help"):
        assert re.search(rf"^  {flag} +\w", run_group, re.M), flag
    assert "chapter, paper (default: chapter)" in " ".join(run_group.split())
    entries = re.split(r"^  (?=-)", constants_group, flags=re.M)[1:]
    assert [" ".join(entry.split()) for entry in entries] == [
        f"{flag} {text}" for flag, text in FLAGS.items()
    ]
    # No interval or default is broken over two lines.
    assert not re.search(r"(\bin [\[(][^\])]*|\(default:[^)]*)\n", constants_group)
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
    td3 = runpy.run_path(str(script), run_name="td3")
    assert td3["args"] == run_flags()
    assert calls == [{"verbose": False, "imported": True}]
    assert td3["RANDOM_SEED"] == 2
    arguments.parse(td3, ["--train", "--seed", "3"])
    assert td3["RANDOM_SEED"] == 3
    assert sys.argv is argv
    assert process == (
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        sys.excepthook,
    )


def test_a_cell_of_a_notebook_is_not_a_script(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setattr(quiet, "prepare", lambda **options: None)
    args = arguments.parse({"__name__": "__main__"})
    assert args == run_flags()


@pytest.mark.parametrize("verbose", [True, False])
def test_a_script_reads_the_command_line_and_is_quiet(script, monkeypatch, verbose):
    calls, ready = [], []
    monkeypatch.setattr(quiet, "prepare", calls.append)
    monkeypatch.setattr(output, "prepare", lambda: ready.append(True))
    monkeypatch.setattr(signals, "install", lambda: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back afterwards
    monkeypatch.setattr(sys, "argv", ["td3.py", "--test", "--seed", "9"])
    if verbose:
        sys.argv.append("--verbose")
    td3 = runpy.run_path(str(script), run_name="__main__")
    assert td3["args"] == run_flags(test=True, verbose=verbose)
    assert td3["RANDOM_SEED"] == 9
    assert calls == [verbose]
    assert ready == [True]


def test_a_thread_leaves_the_signals_alone(td3, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    td3["__name__"] = "__main__"
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    results = []
    work = threading.Thread(
        target=lambda: results.append(arguments.parse(td3, ["--test", "--verbose"]))
    )
    work.start()
    work.join()
    assert results == [run_flags(test=True, verbose=True)]
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
