"""common/flags.py: the flags are the constants; same names, meanings, defaults and limits."""

import re
import runpy
import subprocess
import sys

import pytest
from commands import refusal

from common import flags, presets, process
from common.errors import UserError
from common.files import names
from common.files.names import ROOT

SCRIPTS = ["ddpg", "td3", "sac"]

SCRIPT = '''"""Twin delayed DDPG, section 6.5.3.

More about it.
"""
from common import flags

ALG_NAME = "TD3"
ENV_ID = "Pendulum-v1"  # environment id
RANDOM_SEED = 2  # seed of everything random, in [0, 4294967295]
RENDER = False  # show each training step in a window
TRAIN_EPISODES = 100  # training episodes, in [1, inf)
TEST_EPISODES = 10
BUFFER_SIZE = 500_000  # transitions in the buffer, in [1, inf)
OFFSET = 0  # any whole number
GAMMA = 0.9  # discount factor, in [0, 1]
DECAY: float = 0.5  # 折扣, one of many that are in [5, 6] after each step, in (0, 1)
Q_LR = 3e-4  # learning rate of the Q networks, in (0, inf)
TARGET_ENTROPY = -2.0  # 100% free
AUTO_ENTROPY = True  # learn alpha
NOISE = "gaussian"  # exploration noise, in {gaussian, ou, none}
LABEL = "a # b"
SIZES = (64, 64)  # a tuple
DOUBLE = 2 * TEST_EPISODES  # computed
FOLDER = None  # of the runs
lower = 1  # not in capitals

args = flags.parse(globals())

AFTERWARDS = 5  # assigned when the flags are read
'''
NO_FLAGS = ["--alg-name", "--sizes", "--double", "--folder", "--lower", "--afterwards"]
PRESETS = {"TD3": {"paper": {"GAMMA": 0.99, "NOISE": "none", "KEEP": "best", "EVALUATE_EVERY": 9}}}


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "PRESETS", PRESETS)
    path = tmp_path / "td3.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def read(script, line):
    """The Settings of a command line, as text or as a list of words."""
    return flags.Command(script).read(line.split() if isinstance(line, str) else line)


@pytest.fixture
def as_a_script(tmp_path, monkeypatch):
    """Run a script's text in this process, as if from the command line; returns its names."""
    monkeypatch.setattr(process, "prepare", lambda prog, verbose: None)
    monkeypatch.setattr(process, "take_signals", lambda: None)
    monkeypatch.setattr(names, "START", str(tmp_path))
    monkeypatch.setattr(process, "import_quietly", lambda verbose, own: None)

    def run(script, *words):
        monkeypatch.setattr(sys, "argv", [script.name, *words])
        return runpy.run_path(str(script), run_name="__main__")

    return run


@pytest.fixture
def refused(as_a_script, capsys):
    """Run a script with words: the one line on stderr before it exits with status 2."""

    def run(script, *words):
        with pytest.raises(SystemExit) as exit:
            as_a_script(script, *words)
        out, err = capsys.readouterr()
        assert (exit.value.code, out, err.count("\n"), err[-1]) == (2, "", 1, "\n")
        return err[:-1]

    return run


# What is decided


def test_flags_of_a_script_that_is_not_run(script):
    script.write_text(SCRIPT + "raise RuntimeError\n", encoding="utf-8")
    found = flags.Command(script).flags
    expected = {"--gamma": True, "--render": False, "--no-auto-entropy": False, "--keep": True,
                "--test-episodes": True, "--label": True}
    assert {flag: found[flag] for flag in expected} == expected
    assert not found.keys() & {*NO_FLAGS, "--train", "--no-render"}


RUN = {"train": False, "test": False, "preset": "chapter", "resume": False, "tensorboard": None,
       "record": None, "explain": False, "page": False, "eager": False, "verbose": False}


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("--train --test --eager --verbose",
         dict.fromkeys(["train", "test", "eager", "verbose"], True)),
        ("--train --resume --tensorboard", {"train": True, "resume": True, "tensorboard": "runs"}),
        ("--train --tensorboard here", {"train": True, "tensorboard": "here"}),
        ("--test --record --explain --page", {"test": True, "record": True, "explain": True,
                                              "page": True}),
        ("--test --record a.mp4", {"test": True, "record": "a.mp4"}),
        ("--train --preset paper", {"train": True, "preset": "paper"}),
    ],
)
def test_what_to_do(script, line, given):
    settings = read(script, line)
    assert {name: getattr(settings, name) for name in RUN} == RUN | given


def test_settings(script):
    settings = read(script, "--train --seed 7 --model-dir there --preset paper")
    assert (settings.script, settings.algorithm) == (script, "TD3")
    assert (settings.seed, settings.env_id) == (7, "Pendulum-v1")
    assert settings.task == ("TD3", "Pendulum-v1", "paper")
    assert (settings.model_dir, settings.image_dir) == ("there", "image")
    assert settings.evaluate_every == 9
    own = flags.Command(script).settings().constants
    assert own == {
        "ENV_ID": "Pendulum-v1", "RANDOM_SEED": 2, "RENDER": False, "TRAIN_EPISODES": 100,
        "TEST_EPISODES": 10, "BUFFER_SIZE": 500_000, "OFFSET": 0, "GAMMA": 0.9, "DECAY": 0.5,
        "Q_LR": 3e-4, "TARGET_ENTROPY": -2.0, "AUTO_ENTROPY": True, "NOISE": "gaussian",
        "LABEL": "a # b",
    }
    everything = flags.Command(script).settings().everything
    assert everything.items() >= (own | {"ALG_NAME": "TD3", "MODEL_DIR": "model"}).items()


def test_a_preset_gives_its_values_and_flags_override_it(script):
    before = read(script, "--train").everything
    after = read(script, "--train --noise ou --preset paper --seed 7").everything
    changed = {"GAMMA": 0.99, "KEEP": "best", "EVALUATE_EVERY": 9, "NOISE": "ou", "RANDOM_SEED": 7}
    assert after == before | changed


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("preset", ["paper", "tuned"])
def test_presets_name_constants_of_the_script_and_are_within_their_limits(name, preset):
    script = ROOT / f"{name}.py"
    before, values = read(script, "--train").everything, presets.PRESETS[name.upper()][preset]
    assert before | values == read(script, f"--train --preset {preset}").everything
    line = []  # flags look at limits, too
    for constant, value in values.items():
        flag = constant.lower().replace("_", "-")
        switch = f"--{flag}" if value else f"--no-{flag}"
        line += [switch] if type(value) is bool else [f"--{flag}", str(value)]
    assert read(script, ["--train", *line]).everything == before | values


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--env CartPole-v1", "ENV_ID", "CartPole-v1"),
        ("--seed 4294967295", "RANDOM_SEED", 4294967295),
        ("--render", "RENDER", True),
        ("--episodes 3", "TRAIN_EPISODES", 3),
        ("--episodes=3 --episodes 4", "TRAIN_EPISODES", 4),
        ("--buffer-size 5e5", "BUFFER_SIZE", 500000),
        ("--buffer-size 9007199254740993", "BUFFER_SIZE", 9007199254740993),  # not through float
        ("--offset -3", "OFFSET", -3),
        ("--gamma 0", "GAMMA", 0.0),
        ("--gamma 1", "GAMMA", 1.0),
        ("--target-entropy -.5", "TARGET_ENTROPY", -0.5),
        ("--auto-entropy", "AUTO_ENTROPY", True),
        ("--no-auto-entropy", "AUTO_ENTROPY", False),
        ("--noise ou", "NOISE", "ou"),
        ("--test-episodes 3", "TEST_EPISODES", 3),  # has no comment
        ("--label a#b", "LABEL", "a#b"),
        ("--steps 1e4", "TRAIN_STEPS", 10_000),
        ("--unit-actions", "UNIT_ACTIONS", True),
    ],
)
def test_a_flag_changes_its_constant(script, line, name, value):
    after = read(script, f"--train {line}").everything
    assert after == read(script, "--train").everything | {name: value}
    assert type(after[name]) is type(value)


def test_the_constants_of_a_script_that_runs_are_what_its_flags_say(script, as_a_script):
    names = as_a_script(script, "--train", "--gamma", "0.7", "--no-auto-entropy")
    assert (names["GAMMA"], names["AUTO_ENTROPY"], names["Q_LR"]) == (0.7, False, 3e-4)
    assert names["args"].train and not names["args"].test


def test_folders_are_fixed_when_the_command_is_read(script, as_a_script, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    words = "--train", "--test", "--model-dir=~/mine", "--record", "a.gif"
    args = as_a_script(script, *words)["args"]
    places = args.model_dir, args.image_dir, args.record
    assert places == tuple(str(tmp_path / name) for name in ("home/mine", "image", "a.gif"))


def test_an_imported_script_is_left_alone(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--train", "--seed", "9", "--nonsense"])
    monkeypatch.setattr(process, "prepare", lambda *args: pytest.fail("not a script"))
    calls = []
    monkeypatch.setattr(process, "import_quietly", lambda **options: calls.append(options))
    args = runpy.run_path(str(script), run_name="td3")["args"]
    assert (args.train, args.seed, args.keep) == (False, 2, "last")
    assert calls == [{"verbose": False}]


# What is refused


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--train --preset best", "--preset: invalid choice: 'best'"),
        ("--test --resume", "--resume needs --train"),
        ("--test --tensorboard", "--tensorboard needs --train"),
        ("--train --record", "--record needs --test"),
        ("--train --explain", "--explain needs --test"),
        ("--test --explain --env Hopper-v4", "--explain needs --env Pendulum-v1"),
        ("--test --explain --env mine:Pendulum-v1", "--explain needs --env Pendulum-v1"),
        ("--test --page --env Hopper-v4", "--page needs --env Pendulum-v1"),
        ("--seed 3", "--train or --test is needed, or both; td3.py --help lists all flags"),
        ("--train fast", "unknown argument fast; td3.py --help lists all flags"),
        ("--train --gamma --test", "--gamma: expected one argument"),
        ("--train --render=1", "--render: ignored explicit argument '1'"),
        (["--train", "--model-dir", ""], "--model-dir: must be a name, got ''"),
        (["--train", "--model-dir", "a\0b"], r"--model-dir: must be a name, got a\x00b"),
        ("--test --record a.avi", "--record a.avi: the name must end in .gif or .mp4"),
        ("--train --keep best", "--keep best needs --evaluate-every"),
        (["--train", "--gamma", "a\nb"], r"--gamma: must be a finite number in [0, 1], got a\nb"),
    ],
)
def test_a_mistake_is_one_line(script, refused, words, line):
    said = refused(script, *(words.split() if isinstance(words, str) else words))
    assert said.removeprefix("td3.py: ").removeprefix("argument ").startswith(line)


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--gamma", "1.5", "in [0, 1]"),
        ("--gamma", "nan", "a finite number in [0, 1]"),
        ("--gamma", "much", "a finite number in [0, 1]"),
        ("--decay", "0", "in (0, 1)"),
        ("--decay", "1", "in (0, 1)"),
        ("--q-lr", "inf", "a finite number in (0, inf)"),
        ("--target-entropy", "inf", "a finite number"),
        ("--seed", "4294967296", "in [0, 4294967295]"),
        ("--seed", "-1", "in [0, 4294967295]"),
        ("--episodes", "0", "in [1, inf)"),
        ("--episodes", "2.5", "a whole number in [1, inf)"),
        ("--episodes", "1e400", "a whole number in [1, inf)"),
        ("--offset", "1e30", "a whole number"),
        ("--noise", "uo", "gaussian or ou or none"),
        ("--keep", "first", "last or best"),
        ("--evaluation-episodes", "1001", "in [1, 1000]"),
    ],
)
def test_a_bad_value_is_one_line(script, refused, flag, value, allowed):
    line = f"td3.py: argument {flag}: must be {allowed}, got {value}; td3.py --help lists all flags"
    assert refused(script, "--train", flag, value) == line


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--gama=0.5", "--gamma"),
        ("--gamm", "--gamma"),  # nearly: no abbreviations
        ("-train", "--train"),
        ("--test-ep", "--test-episodes"),
        ("--train-episodes", "--episodes"),  # the constant's own name
        ("--buffer_size", "--buffer-size"),
        ("--GAMMA", "--gamma"),
        ("--xyzzy", None),
        *((flag, None) for flag in NO_FLAGS),
    ],
)
def test_an_unknown_flag_is_one_line(script, refused, word, meant):
    hint = f"did you mean {meant}? " if meant else ""
    line = f"td3.py: unknown flag {word.split('=')[0]}; {hint}td3.py --help lists all flags"
    assert refused(script, "--train", word) == line


def test_a_flag_of_another_script_is_called_so():
    with pytest.raises(UserError, match=r"unknown flag --lr-a; it is a flag of ddpg\.py; td3\.py"):
        read(ROOT / "td3.py", "--train --lr-a 0.1")


@pytest.mark.parametrize(("line", "most"), [
    ("--episodes 50", 10_000), ("--episodes 3 --max-steps 90", 270), ("--steps 9999", 9999),
])
def test_a_training_that_would_learn_nothing_is_refused(line, most):
    with pytest.raises(UserError, match=f"this run makes {most} transitions at most, and learning "
                                        "starts after 10000 .*--learn-after"):
        read(ROOT / "ddpg.py", f"--train {line}")
    assert read(ROOT / "ddpg.py", f"--train --resume {line}").resume
    assert read(ROOT / "ddpg.py", f"--test {line}").test
    assert read(ROOT / "ddpg.py", f"--train --learn-after {most - 1} {line}").train


@pytest.mark.parametrize(
    ("flag", "package"), [("--tensorboard", "tensorboard"), ("--record=a.mp4", "imageio_ffmpeg")]
)
def test_a_package_has_to_be_installed(script, refused, monkeypatch, flag, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(script, "--train", "--test", flag)
    assert f"pip install {package.replace('_', '-')}" in line
    assert flag.partition("=")[0] in line


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("td3", "--preset paper --replay-buffer-size 1000", "--replay-buffer-size must be larger "
         "than --learn-after, or nothing is learned, got 1000 and 1000"),
        ("sac", "--replay-buffer-size 256", "--replay-buffer-size must be larger than "
         "--batch-size, or nothing is learned, got 256 and 256"),
        ("sac", "--preset tuned --evaluate-every 0", "--keep best needs --evaluate-every"),
        ("td3", "--replay-buffer-size 65", None),
        ("ddpg", "--memory-capacity 8", None),  # it draws with replacement, and counts on when full
        ("ddpg", "--learn-after 0 --episodes 1 --max-steps 30", None),
    ],
)
def test_flags_of_the_scripts_fit_each_other(name, line, problem):
    command = flags.Command(ROOT / f"{name}.py")
    if problem:
        with pytest.raises(UserError, match=f"^{name}.py: {problem}"):
            command.read(["--train", *line.split()])
    else:
        command.read(["--train", *line.split()])
    command.read(["--test", *line.split()])  # where nothing is to be learned


@pytest.mark.parametrize(
    ("constant", "line"),
    [
        ("FAR: int = 5  # steps, in [0, 1]", "FAR must be in [0, 1], got 5"),
        ("FAR = '5'  # steps, in [0, 9]", "FAR must be a number in [0, 9], got '5'"),
        ('KIND = "c"  # which, in {a, b}', "KIND must be a or b, got 'c'"),
        ("ENV = 1", "ENV would be --env, which there is already: choose another name"),
        ("HELP = 1", "HELP would be --help, which there is already: choose another name"),
        ("KEEP = 1", "KEEP would be --keep, which there is already: choose another name"),
    ],
)
def test_a_constant_that_a_reader_adds_and_that_cannot_be(script, refused, constant, line):
    script.write_text(SCRIPT.replace("\nargs = ", f"\n{constant}\nargs = "), encoding="utf-8")
    assert refused(script, "--train") == f"td3.py: {line}"


@pytest.mark.parametrize(
    ("constant", "line", "value"),
    [
        ("X = 500_000  # in [0, 1] before the scaling", "--x 7", 7),
        ("X = 1  # (as in [3])", "--x 7", 7),
        ("X = 0.0  # degrees, in (-inf, 0]", "--x=-5", -5.0),
        ('X = "a"  # in {a,b}', "--x b", "b"),
        ("X = False  # in the middle {of it}, that is", "--x", True),
    ],
)
def test_only_the_end_of_a_comment_is_a_limit(script, constant, line, value):
    script.write_text(SCRIPT.replace("\nargs = ", f"\n{constant}\nargs = "), encoding="utf-8")
    assert read(script, f"--train {line}").constants["X"] == value


# --help


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_has_every_flag_with_its_default_within_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    command = flags.Command(ROOT / f"{name}.py")
    with pytest.raises(SystemExit) as exit:
        command.read(["--help"])
    out = capsys.readouterr().out
    assert exit.value.code == 0 and max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    for flag in [*command.flags, "--train", "--preset", "--record"]:
        assert re.search(rf"(^|\s|, ){flag}\b", out), flag
    assert "--gamma X discount factor, in [0, 1] (default: 0.9" in words
    assert "--unit-actions the agent acts in [-1, 1], which is stretched to the" in words


# Before anything heavy is imported


@pytest.mark.parametrize(("words", "status", "said"), [
    (["--help"], 0, ""),
    (["--train", "--model-dir", "FILE"], 1, "--model-dir FILE/TD3_Pendulum-v1: cannot be written"),
])
def test_nothing_heavy_is_imported(words, status, said, tmp_path):
    (tmp_path / "FILE").write_text("")
    command = [sys.executable, "-X", "importtime", str(ROOT / "td3.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.M))
    assert done.returncode == status and "common.flags" in imported
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not {"tensorflow", "tensorlayer", "matplotlib"} & imported
    assert status == 1 or "numpy" not in imported


@pytest.mark.parametrize(("words", "said"), [
    (["--test", "--env", "Other-v0"], "there is no such environment"),
    (["--test", "--env", "MountainCarContinuous-v0"], "there is no such file"),
    (["--train", "--image-dir", "FILE"], "--image-dir FILE: cannot be written"),
    (["--test", "--explain", "--image-dir", "FILE"], "--image-dir FILE: cannot be written"),
    (["--test", "--record", "FILE/a.gif"], "--record FILE: cannot be written"),
    (["--train", "--model-dir", str(ROOT / "model" / "pretrained")], "holds what ships"),
    (["--train", "--image-dir", str(ROOT / "image" / "pretrained")], "holds what ships"),
    (["--test", "--record", str(ROOT / "image" / "pretrained" / "a.gif")], "holds what ships"),
])
def test_what_is_looked_at_first(words, said, as_a_script, tmp_path, monkeypatch):
    (tmp_path / "FILE").write_text("")
    monkeypatch.setattr("common.errors.START", str(tmp_path))
    monkeypatch.setattr(process, "import_quietly", lambda **_: pytest.fail("it is too late"))
    assert said in refusal(as_a_script, ROOT / "td3.py", *words)
