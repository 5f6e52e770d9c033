"""Files that are whole or not there, folders for one process alone, names that every disk takes.

And the digest of what a run's numbers depend on: its code, and the packages that compute.
"""

import errno
import importlib.metadata
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import refusal

from common.errors import UserError, one_line
from common.files import arrays, names
from common.files import digest as digest_module
from common.files.digest import changed, digest
from common.files.lock import locked
from common.files.names import ROOT
from common.files.whole import check_writable, write_atomically

ENV = "Pendulum-v1"


# ---- whole files


def test_a_file_is_replaced_and_missing_folders_are_made(tmp_path):
    path = tmp_path / "new" / "folders" / "file.bin"
    for content in (b"first", b"second"):
        write_atomically(str(path), lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_write_changes_nothing(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the n")
        file.flush()
        assert len(os.listdir(tmp_path)) == 2
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["mkdir", "write", "fsync", "replace"])
def test_a_failing_disk_changes_nothing(tmp_path, monkeypatch, step):
    path = tmp_path / "file.npz"
    arrays.save(path, {"format": 1}, {"a": np.zeros(3)})
    before = path.read_bytes()

    def fail(file, *args, **kwargs):
        if step == "write":
            file.write(b"half of the n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target, name = {"mkdir": (Path, "mkdir"), "write": (np, "savez"), "fsync": (os, "fsync"),
                    "replace": (os, "replace")}[step]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, fail)
        said = refusal(arrays.save, path, {"format": 1}, {"a": np.ones(3)})
    assert said == (f"{path}: cannot be written (No space left on device). Free the disk, "
                    "make the folder writable or choose another one.")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["file.npz"]


def test_what_is_in_the_way_is_said_and_left(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "w.npz", tmp_path / "file" / "sub" / "w.npz"):
        with pytest.raises(UserError, match=r"cannot be written \(.*is a file\)"):
            write_atomically(path, lambda file: file.write(b"x"))
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "folder", lambda file: file.write(b"x"))
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


SAVE_FOREVER = """
import sys
import numpy as np
from common.files import arrays
while True:
    for fill in (1.0, 2.0):
        arrays.save(sys.argv[1], {"format": 1}, {"a": np.full(100_000, fill)})
"""


def test_killed_while_saving(tmp_path):
    path, rng = tmp_path / "file.npz", random.Random(0)
    for _ in range(2):
        path.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(path)], cwd=ROOT)
        try:
            while not path.exists():
                assert child.poll() is None, "the child died by itself"
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02))
        finally:
            child.kill()
            child.wait()
        values = arrays.load(path, 1, "")[1]["a"]
        assert len(values) == 100_000 and values[0] in (1.0, 2.0)
        assert (values == values[0]).all()  # not half of each
    # What the killed ones left behind is in nobody's way, and git ignores it.
    arrays.save(path, {"format": 1}, {"a": np.zeros(3)})
    left = set(os.listdir(tmp_path)) - {path.name}
    assert all(name.startswith(".file.npz.") and name.endswith(".tmp") for name in left)


@pytest.mark.parametrize("step", ["open", "fsync", "replace", "unlink"])
def test_a_folder_that_cannot_be_written_is_known_before(tmp_path, monkeypatch, step):
    check_writable(tmp_path / "new", "--model-dir", "weights.npz")
    assert os.listdir(tmp_path / "new") == []

    def fail(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if step == "open":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(Path if step == "unlink" else os, step, fail)
    assert refusal(check_writable, tmp_path, "--image-dir") == (
        f"--image-dir {tmp_path}: cannot be written (Operation not permitted). Choose another "
        "folder.")


def test_a_folder_in_the_place_of_a_file_is_known_before(tmp_path):
    (tmp_path / "weights.npz").mkdir()
    with pytest.raises(UserError, match=r"--model-dir .* \(weights.npz is a folder\)"):
        check_writable(tmp_path, "--model-dir", "weights.npz", "training.npz")


# ---- the lock

HOLD = """
import os, subprocess, sys, time
from common.files.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    exec(sys.argv[2])
"""


def holder(folder, then="time.sleep(60)"):
    """A process that holds the lock of `folder`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), then], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def assert_free(folder):
    with locked(folder):
        assert (folder / "training.lock.txt").exists()
    assert not (folder / "training.lock.txt").exists()


def test_the_second_hears_who_holds_the_folder(tmp_path):
    folder = tmp_path / "model" / "TD3_Pendulum-v1"
    with holder(folder) as process:
        text = refusal(locked(folder).__enter__)
        assert text.startswith(f"{folder}: is in use by process {process.pid} on ")
        assert " since 20" in text and "(-c " in text
        assert text.endswith("Wait until it has ended, or give another --model-dir.")
        process.kill()
    assert (folder / "training.lock.txt").exists()  # left by the killed one: means nothing
    assert_free(folder)


def test_a_lock_ends_with_its_block_and_has_a_name(tmp_path):
    with pytest.raises(ValueError), locked(tmp_path):
        raise ValueError
    assert_free(tmp_path)
    with locked(tmp_path, "--runs-dir", "run.lock"), locked(tmp_path), \
            pytest.raises(UserError, match=r"in use by .* give another --runs-dir\."), \
            locked(tmp_path, "--runs-dir", "run.lock"):
        pytest.fail("both hold it")
    assert_free(tmp_path)


def test_what_a_killed_save_left_goes(tmp_path):
    (tmp_path / ".weights.npz.0badf00d.tmp").write_bytes(bytes(100))
    (tmp_path / "mine.tmp").write_text("kept")
    with locked(tmp_path):
        assert not (tmp_path / ".weights.npz.0badf00d.tmp").exists()
    assert (tmp_path / "mine.tmp").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_children_neither_release_nor_keep_it(tmp_path):
    then = """
if os.fork() == 0:
    sys.exit()
os.wait()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=-3)
print(child.pid, flush=True)
time.sleep(60)
"""
    with holder(tmp_path, then) as process:
        child = int(process.stdout.readline())
        with pytest.raises(UserError, match="is in use by"), locked(tmp_path):
            pytest.fail("a child released it")
        process.kill()
    try:
        assert_free(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, number):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with locked(tmp_path):
            said = capsys.readouterr().out
    assert f"cannot be locked ({os.strerror(number)}). See to it" in said
    assert_free(tmp_path)


def test_git_ignores_what_a_training_leaves():
    folders = "model/TD3_Pendulum-v1", "mine/TD3_Pendulum-v1"
    files = ("training.lock", "training.lock.txt", "training.npz", "training.old-2.npz",
             ".weights.npz.0a1b2c3d.tmp")
    paths = [f"{folder}/{name}" for folder in folders for name in files]
    paths += ["model/TD3_Pendulum-v1/weights.npz", "image/td3.png"]
    done = subprocess.run(["git", "check-ignore", *paths, "model/pretrained/TD3_A/weights.npz"],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("no git repository")
    assert done.stdout.splitlines() == paths


# ---- names and lines


def test_paths():
    assert names.weights_path("model", "sac", "gymnasium:" + ENV) == Path(
        "model/SAC_Pendulum-v1/weights.npz")
    assert names.state_path("m", "DDPG", "ALE/Pong-v5", "paper") == Path(
        "m/DDPG_ALE-Pong-v5_paper/training.npz")
    for task, picture in {("TD3", ENV): "image/td3.png",
                          ("SAC", "gymnasium:Pendulum-v1"): "image/sac.png",
                          ("TD3", "ALE/Pong-v5"): "image/td3_ALE-Pong-v5.png",
                          ("TD3", ENV, "tuned"): "image/td3_Pendulum-v1_tuned.png"}.items():
        assert names.picture_path("image", *task) == Path(picture)
    assert names.picture_path("mine", "TD3", ENV) == Path("mine/td3_Pendulum-v1.png")


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("gymnasium:Pendulum-v1", "Pendulum-v1"),
        ("my_pkg.envs:My_Env", "my_pkg.envs-My_Env"),
        ("../../etc/passwd", "etc-passwd"),
        ('C:a<b>|"c?*\n\0 d', "C-a-b-c-d"),
        ("ends with a dot.", "ends-with-a-dot"),
        ("钟摆", "environment"),
    ],
)
def test_names_that_every_disk_takes(env_id, name):
    assert names.safe_name(env_id) == name


@pytest.mark.parametrize(
    ("thing", "kind", "text"),
    [
        ("a\nb\x1b\udcff é", False, "a\\nb\\x1b\\udcff é"),
        ("x" * 300 + "y" * 300, False, "x" * 150 + "..." + "y" * 75),
        (OSError(errno.ENOSPC, "No space left on device", "w.npz"), False, "No space left on devi"
         "ce"),
        (ValueError("two\n  lines"), False, "two lines"),
        (MemoryError(), False, "MemoryError"),
        (ZeroDivisionError("the\n joint"), True, "ZeroDivisionError: the joint"),
        (KeyError(), True, "KeyError"),
        (UserError("--env x: give another."), True, "--env x: give another."),
    ],
)
def test_one_line(thing, kind, text):
    assert one_line(thing, kind=kind) == text


@pytest.mark.parametrize("name", ["x" * 5000, "\udcff\u949f", "a\nb"], ids=["long", "odd", "line"])
def test_odd_folders(tmp_path, name):
    for action in (lambda: check_writable(tmp_path / name, "--model-dir"),
                   lambda: write_atomically(tmp_path / name / "f", lambda file: file.write(b"x")),
                   lambda: locked(tmp_path / name).__enter__()):
        try:
            action()
            assert len(name) < 5000
        except UserError as error:
            assert len(name) == 5000 and str(error).isprintable() and len(str(error)) < 700


# ---- the digest


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of td3.py and common/, and modules of environments beside them."""
    shutil.copy(ROOT / "td3.py", tmp_path)
    shutil.copytree(ROOT / "common", tmp_path / "common")
    monkeypatch.setattr(digest_module, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("digest_mine.py", "digest_package/__init__.py", "digest_package/deep/task.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("A = 1\n")
    return tmp_path


def test_each_file_that_may_run_counts(project):
    ids = "Pendulum-v1", "digest_mine:A-v0", "gymnasium:digest_package:A-v0"

    def codes():
        return {env_id: digest(project / "td3.py", env_id)["code"] for env_id in ids}

    assert len({*codes().values()}) == 3
    counts = {"td3.py": "", "common/noise.py": "", "common/engine/fast.py": "",
              "digest_mine.py": "mine", "digest_package/deep/task.py": "package"}
    for name, part in counts.items():
        before = codes()
        with open(project / name, "a") as file:
            file.write("B = 2\n")
        after = codes()
        assert [env_id for env_id in ids if after[env_id] != before[env_id]] == [
            env_id for env_id in ids if part in env_id], name


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "no_such_module:A-v0", "a..b:C", ":C", "sys:C",
                                    "__main__:C"])
def test_an_environment_without_a_file_is_no_error(env_id):
    assert len(digest(ROOT / "td3.py", env_id)["code"]) == 64


def test_versions_of_the_packages_that_compute(monkeypatch):
    before = digest(ROOT / "td3.py")
    was = importlib.metadata.version("numpy")
    assert before["versions"]["numpy"] == was
    assert changed(before, digest(ROOT / "td3.py")) == ""
    now = {"code": "another", "versions": {**before["versions"], "box2d": "2.0", "numpy": "9.9"}}
    before["versions"].pop("box2d", None)
    assert changed(before, now) == (
        f"the code, box2d (none then, 2.0 now), numpy ({was} then, 9.9 now)")
