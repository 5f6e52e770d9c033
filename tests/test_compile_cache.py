"""common/files/compile_cache.py: the second start compiles nothing, whatever lies in the folder."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata

import pytest

from common.files import compile_cache
from common.files.compile_cache import CompileCache
from common.files.names import ROOT


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A process starts, with the scripts in tmp_path/scripts: its cache, before TensorFlow."""
    (tmp_path / "scripts").mkdir()
    monkeypatch.setattr(compile_cache, "ROOT", tmp_path / "scripts")
    monkeypatch.setattr("importlib.metadata.version", lambda package: "2.21.0")
    monkeypatch.setattr(compile_cache, "_FREE", 0)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user's"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)

    def start(flags=""):
        monkeypatch.setenv("TF_XLA_FLAGS", flags)
        cache = CompileCache()
        cache.use()
        return cache

    return start


def compile_(cache, program="p", content=b"code"):
    """What a first call does: TensorFlow writes a file where the program is not kept."""
    with cache.compiling(program) as kept:
        if not kept and cache.folder:
            (cache.folder / f"{program}.pb").write_bytes(content)
    return kept


def test_a_program_is_kept_for_the_next_start(start):
    assert not compile_(start())
    assert compile_(start())
    assert not compile_(start(), "another")
    assert compile_(start()) and compile_(start(), "another")


@pytest.mark.parametrize("content", [b"", b"cod", b"garbage", None])
def test_what_is_damaged_is_deleted_before_tensorflow_reads_it(content, start):
    cache = start()
    compile_(cache)
    file = cache.folder / "p.pb"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    cache = start()
    with cache.compiling("p") as kept:
        assert not kept and not file.exists()
    assert not compile_(cache)
    assert compile_(start())


@pytest.mark.parametrize("note", ["", "{", "[1]", "null", '{"p.pb": "x"}', None])
def test_what_no_note_vouches_for_is_deleted_at_the_start(note, start):
    cache = start()
    compile_(cache)
    (cache.folder / "foreign.pb").write_bytes(b"of another program")
    path = cache.folder / "p.json"
    path.unlink() if note is None else path.write_text(note)
    cache = start()
    assert not compile_(cache)
    assert [file.name for file in cache.folder.glob("*.pb")] == ["p.pb"]
    assert compile_(start())


def test_the_oldest_go_when_there_is_too_much(start, monkeypatch):
    monkeypatch.setattr(compile_cache, "LIMIT", 1000)
    cache = start()
    for age, program in enumerate("abcd"):
        compile_(cache, program, bytes(400))
        for file in cache.folder.glob(f"{program}.*"):
            os.utime(file, (age, age))
    older = cache.folder.with_name("tensorflow-2.0-old")
    older.mkdir()
    (older / "x.pb").write_bytes(bytes(400))
    os.utime(older / "x.pb", (0, 0))
    assert compile_(cache, "a")  # used: it is young again
    cache = start()
    assert [compile_(cache, program) for program in "abcd"] == [True, False, False, True]
    assert not (older / "x.pb").exists()


def test_where_it_is(start, tmp_path, monkeypatch):
    beside = start().folder
    assert beside.parent == tmp_path / "scripts" / ".cache"
    assert re.search(r"tensorflow-2\.\d+\.\d+-[0-9a-f]{8}$", beside.name)
    assert f'--tf_xla_persistent_cache_directory="{beside}"' in os.environ["TF_XLA_FLAGS"]
    shutil.rmtree(tmp_path / "scripts")
    (tmp_path / "scripts").write_text("where nobody may write")
    assert start().folder == tmp_path / "user's" / "deep-rl-chapter-6" / beside.name
    shutil.rmtree(tmp_path / "user's")
    (tmp_path / "user's").write_text("")
    cache = start("--tf_xla_auto_jit=1")
    assert (cache.folder, os.environ["TF_XLA_FLAGS"]) == (None, "--tf_xla_auto_jit=1")
    assert not compile_(cache)


def test_a_process_that_another_starts_has_the_same(start):
    cache = start()
    flags = os.environ["TF_XLA_FLAGS"]
    assert not compile_(cache)
    cache = start(flags)
    assert compile_(cache) and os.environ["TF_XLA_FLAGS"] == flags


def test_an_older_tensorflow_keeps_nothing(start, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda package: "2.16.1")
    assert start().folder is None and not os.environ["TF_XLA_FLAGS"]


def test_without_room_nothing_is_kept(start, monkeypatch):
    monkeypatch.setattr(compile_cache, "_FREE", 1e18)
    assert start().folder is None


def test_what_changes_the_code_has_another_folder(start, monkeypatch):
    folders = {start().folder}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    folders.add(start().folder)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    folders.add(start().folder)
    monkeypatch.setattr(compile_cache.platform, "machine", lambda: "another")
    folders.add(start().folder)
    assert len(folders) == 4


def test_the_users_own_cache_stays(start):
    flags = "--tf_xla_persistent_cache_directory=/somewhere"
    assert start(flags).folder is None
    assert os.environ["TF_XLA_FLAGS"] == flags


@pytest.mark.slow
@pytest.mark.skipif(metadata.version("tensorflow") < "2.21", reason="keeps nothing")
def test_trainings(tmp_path):
    """Real ones: the second, and two at a time after damage, with a blank in the path."""
    home = tmp_path / "a folder"
    home.mkdir()
    shutil.copy(ROOT / "td3.py", home)
    shutil.copytree(ROOT / "common", home / "common")
    (home / "model").symlink_to(ROOT / "model")
    command = [sys.executable, "td3.py", "--train", "--episodes", "1", "--max-steps", "80",
               "--batch-size", "16", "--hidden-dim", "8", "--explore-steps", "40"]

    def training(name):
        env = {key: value for key, value in os.environ.items() if key != "TF_XLA_FLAGS"}
        return subprocess.Popen([*command, "--model-dir", name, "--image-dir", name], cwd=home,
                                env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)

    def ended(process):
        out = process.communicate(timeout=300)[0]
        assert process.returncode == 0, out
        return "Compiling" in out

    def files():
        return {file: file.stat().st_ino for file in home.glob(".cache/*/*.pb")}

    assert ended(training("first"))
    first = files()
    assert len(first) == 3  # of the first words, an action, the update
    assert not ended(training("second"))
    assert files() == first
    for file in first:
        file.write_bytes(b"garbage")
    two = training("one"), training("other")
    assert all([*map(ended, two)])
    assert not ended(training("last"))
    weights = {path.read_bytes() for path in home.glob("*/TD3_Pendulum-v1/weights.npz")}
    assert len(weights) == 1
