"""common/files.py: one process to a folder, folders tried before use, names that no file has.

And what common/weights.py finds, keeps and misses in folders.
"""

import errno
import functools
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from test_weights import ENV, make, values

from common import curve, errors, files, weights
from common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
ODD_NAMES = ["x" * 5000, "\udcff\u949f", "a\nb"]


def one_line(error):
    line = str(error.value)
    assert line.isprintable() and len(line) < 900, line
    return line


# ---- the lock

HOLD = """
import subprocess, sys, time
from common import files
with files.locked(sys.argv[1]):
    print("held", flush=True)
    exec(sys.argv[2])
print("released", flush=True)
"""


def holder(folder, then="time.sleep(60)"):
    """A process that holds the lock of `folder`."""
    line = [sys.executable, "-c", HOLD, str(folder), then]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def assert_free(folder):
    with files.locked(folder):
        assert (folder / "training.lock.txt").exists()
    assert not (folder / "training.lock.txt").exists()


def test_the_second_hears_who_holds_the_folder(tmp_path):
    folder = tmp_path / "model" / "TD3_Pendulum-v1"
    with holder(folder) as process:
        for _ in range(2):  # also after the first attempt
            with pytest.raises(UserError) as error, files.locked(folder):
                pytest.fail("both hold it")
            line = one_line(error)
            assert line.startswith(f"{folder}: is in use by process {process.pid} on ")
            assert " since 20" in line and "(-c " in line
            assert line.endswith("Wait until it has ended, or give another --model-dir.")
        process.kill()
    assert (folder / "training.lock.txt").exists()  # left by the killed one: means nothing
    assert_free(folder)


def test_released_at_the_end_of_the_block_and_after_an_error(tmp_path):
    with holder(tmp_path, "pass") as process:
        assert process.stdout.readline() == "released\n"
    assert_free(tmp_path)
    with pytest.raises(ValueError), files.locked(tmp_path):
        raise ValueError
    assert_free(tmp_path)


def test_in_one_process_too(tmp_path):
    with files.locked(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        files.locked(tmp_path).__enter__()
    assert_free(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    "child",
    [
        "import os\nif os.fork() == 0: sys.exit()\nos.wait()",
        "import os\nif os.fork() == 0: os._exit(0)\nos.wait()",
        "subprocess.run([sys.executable, '-c', ''])",
    ],
    ids=["fork", "fork and _exit", "subprocess"],
)
def test_a_child_that_ends_does_not_release_it(tmp_path, child):
    with holder(tmp_path, f"{child}\nprint('over', flush=True)\ntime.sleep(60)") as process:
        said = ""
        while said != "over\n":
            said = process.stdout.readline()
        with pytest.raises(UserError, match="is in use by"):
            files.locked(tmp_path).__enter__()
        process.kill()
    assert_free(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_child_that_outlives_its_killed_parent_does_not_hold_it(tmp_path):
    then = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "stdout=subprocess.DEVNULL)\nprint(child.pid, flush=True)\ntime.sleep(60)"
    )
    with holder(tmp_path, then) as process:
        child = int(process.stdout.readline())
        process.kill()
    try:
        assert_free(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("content", "who"), [(b"", "another process"), (b"\xff\n\x1b[2J" * 999, "\\n\\x1b[2J")]
)
def test_a_damaged_description_of_the_holder(tmp_path, content, who):
    with holder(tmp_path) as process:
        (tmp_path / "training.lock.txt").write_bytes(content)
        with pytest.raises(UserError) as error:
            files.locked(tmp_path).__enter__()
        assert who in one_line(error)
        process.kill()


def test_a_lock_of_another_name(tmp_path):
    run = functools.partial(files.locked, tmp_path, "--runs-dir", "run.lock")
    held = pytest.raises(files.InUse, match=r"in use by .* give another --runs-dir\.")
    with run(), files.locked(tmp_path), held, run():  # one of each name is not in the other's way
        pytest.fail("both hold it")
    with run():
        pass
    assert {*os.listdir(tmp_path)} <= {"run.lock", "training.lock"}  # on Windows, none is left


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, number):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with files.locked(tmp_path):
            (line,) = capsys.readouterr().out.splitlines()
            assert f"cannot be locked ({os.strerror(number)}). See to it" in line
    monkeypatch.undo()
    assert_free(tmp_path)


def test_a_lock_in_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / ODD_NAMES[0]):
        with pytest.raises(UserError) as error:
            files.locked(folder, "--runs-dir").__enter__()
        assert one_line(error).startswith("--runs-dir ")


def test_git_ignores_what_a_training_leaves():
    names = ["training.lock", "training.lock.txt", "training.npz", "training.old-2.npz",
             "weights.old.npz", ".weights.npz.0a1b2c3d.tmp"]
    for folder in ("model/TD3_Pendulum-v1", "mine/TD3_Pendulum-v1"):
        paths = [f"{folder}/{name}" for name in names]
        done = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True,
                              text=True, check=False)
        if done.returncode == 128:
            pytest.skip("no git repository")
        assert done.stdout.splitlines() == paths


# ---- folders and names


@pytest.mark.parametrize(
    ("thing", "line"),
    [
        ("a  b é.npz", "a  b é.npz"),
        ("a\nb\x1b\udcff", "a\\nb\\x1b\\udcff"),
        ("x" * 400, "x" * 400),
        ("x" * 300 + "y" * 300, "x" * 200 + "..." + "y" * 100),
        (OSError(errno.ENOSPC, "No space left on device", "w.npz"), "No space left on device"),
        (ValueError("two\n  lines"), "two lines"),
        (MemoryError(), "MemoryError"),
        (Path("w.npz"), "w.npz"),
    ],
)
def test_one_line(thing, line):
    assert errors.one_line(thing) == line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("the\n joint"), "ZeroDivisionError: the joint"),
        (KeyError(), "KeyError"),
        (OSError(errno.ENOENT, "None", "a"), "FileNotFoundError: [Errno 2] None: 'a'"),
        (UserError("--env x: give another."), "--env x: give another."),
    ],
)
def test_one_line_of_an_error_of_others(error, line):
    assert errors.one_line(error, kind=True) == line


def test_one_line_of_another_length():
    assert errors.one_line("abcdefghi", limit=8) == "abcd...hi"


def test_check_writable_creates_the_folder_and_leaves_nothing(tmp_path):
    files.check_writable(tmp_path / "new" / "folder", "--model-dir", "weights.npz")
    assert os.listdir(tmp_path / "new" / "folder") == []


@pytest.mark.parametrize("step", ["open", "fsync", "replace", "unlink"])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, step):
    def fail(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if step == "open":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(Path if step == "unlink" else os, step, fail)
    with pytest.raises(UserError) as error:
        files.check_writable(tmp_path, "--image-dir")
    assert one_line(error) == (
        f"--image-dir {tmp_path}: cannot be written (Operation not permitted). "
        "Choose another folder."
    )


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "weights.npz").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--model-dir .* \(weights.npz is a folder\)"):
        files.check_writable(tmp_path, "--model-dir", "weights.npz", "training.npz")
    with pytest.raises(UserError, match=r"--model-dir .*is a file"):
        files.check_writable(tmp_path / "file" / "sub", "--model-dir")


@pytest.mark.parametrize("name", ODD_NAMES, ids=["long", "surrogates", "newline"])
def test_odd_names(tmp_path, name):
    folder = tmp_path / name
    path = weights.path(folder, "TD3", ENV)
    rewards = ([-1.0], [-1.0], "TD3", ENV, "chapter", 2)
    actions = [
        lambda: files.check_writable(folder, "--model-dir"),
        lambda: weights.save(path, "TD3", ENV, make()),
        lambda: curve.save(folder / "td3.png", *rewards),
        lambda: files.locked(folder).__enter__(),
    ]
    for action in actions:
        if name == ODD_NAMES[0]:
            with pytest.raises(UserError) as error:
                action()
            one_line(error)
        else:
            action()
    with pytest.raises(UserError) as error:
        weights.load(path, "DDPG", ENV, make())
    one_line(error)
    assert (weights.keep_old(path) is None) == (name == ODD_NAMES[0])


def test_unused_names(tmp_path):
    path = tmp_path / "training.npz"
    names = []
    for n in range(4):
        names.append(files.unused(path).name)
        if n == 1:
            (tmp_path / names[-1]).symlink_to("nowhere")
        else:
            (tmp_path / names[-1]).mkdir()
    assert names == ["training.old.npz", *(f"training.old-{n}.npz" for n in (2, 3, 4))]


# ---- weights: found, kept, missing


def test_the_shipped_weights_load_and_are_found_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shipped = ROOT / "model" / "TD3_Pendulum-v1" / "weights.npz"
    assert weights.find("model", "TD3", ENV) == shipped
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        f"There is no {tmp_path / 'model/TD3_Pendulum-v1/weights.npz'}: using the shipped "
        f"{shipped}."
    )
    # Not where another folder was named, and never instead of a file that is there.
    for folder in ("mine", str(tmp_path / "model")):
        assert weights.find(folder, "TD3", ENV) == weights.path(folder, "TD3", ENV)
    own = weights.path("model", "TD3", ENV)
    own.mkdir(parents=True)
    assert weights.find("model", "TD3", ENV) == own
    assert weights.find("model", "SAC", ENV, "paper") == weights.path("model", "SAC", ENV, "paper")
    assert capsys.readouterr().out == ""
    monkeypatch.chdir(ROOT)
    assert weights.find("model", "TD3", ENV) == weights.path("model", "TD3", ENV)
    assert capsys.readouterr().out == ""


def test_missing_weights_name_the_whole_path_and_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = weights.find("model", "TD3", ENV, "paper")
    with pytest.raises(UserError) as error:
        weights.load(path, "TD3", ENV, make())
    line = one_line(error)
    assert line.startswith(f"{tmp_path / path}: there is no such file. Train first, with --train.")
    assert line.endswith(" There are weights for --preset chapter and --preset tuned.")
    weights.save(weights.path("mine", "TD3", "Task-v0"), "TD3", "Task-v0", make())
    with pytest.raises(UserError) as error:
        weights.load(weights.path("mine", "TD3", ENV), "TD3", ENV, make())
    assert one_line(error).endswith("There are weights of TD3_Task-v0.")


def test_replaced_weights_are_kept(tmp_path):
    path = tmp_path / "weights.npz"
    assert weights.keep_old(path) is None
    (tmp_path / "weights.old.npz").mkdir()
    for seed, name in [(1, "weights.old-2.npz"), (2, "weights.old-3.npz")]:
        weights.save(path, "TD3", ENV, make(seed=seed))
        assert weights.keep_old(path) == tmp_path / name
        assert path.exists()  # until the new ones replace them
        agent = make()
        weights.load(tmp_path / name, "TD3", ENV, agent)
        assert values(agent) == values(make(seed=seed))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
@pytest.mark.parametrize("make_it", [os.mkfifo, lambda p: p.symlink_to("/dev/zero")])
def test_weights_from_what_is_no_file(tmp_path, make_it):
    path = tmp_path / "weights.npz"
    make_it(path)
    start = time.monotonic()
    with pytest.raises(UserError, match="it is no file"):
        weights.load(path, "TD3", ENV, make())
    assert weights.keep_old(path) is None
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_weights_in_a_packing_that_numpy_does_not_write(tmp_path, method):
    path, again = tmp_path / "weights.npz", tmp_path / "again.npz"
    weights.save(path, "TD3", ENV, make())
    for kind in (zipfile.ZIP_DEFLATED, method):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(again, "w", kind) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        if kind == zipfile.ZIP_DEFLATED:
            weights.load(again, "TD3", ENV, make())
    with pytest.raises(UserError, match="packed as NumPy packs nothing"):
        weights.load(again, "TD3", ENV, make())
