"""common/weights.py and common/files.py: a file is whole, proven, or refused in one line."""

import contextlib
import errno
import json
import os
import pickle
import random
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common import files, weights
from common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
ENV = "Pendulum-v1"


class Variable:
    """What weights.py needs to know of a tf.Variable."""

    def __init__(self, value):
        self.value = np.array(value)

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)

    def numpy(self):
        return self.value.copy()

    def assign(self, value):
        assert np.shape(value) == self.shape
        self.value = np.array(value, self.dtype)


def make(seed=0, hidden=4, fill=None):
    """The networks of a small agent; every value drawn from `seed` or equal to `fill`."""
    rng = np.random.default_rng(seed)

    def variable(*shape):
        value = rng.normal(size=shape) if fill is None else np.full(shape, fill)
        return Variable(value.astype(np.float32))

    return {
        "q_net1": [variable(4, hidden), variable(hidden), variable(hidden, 1)],
        "policy_net": [variable(3, hidden), variable(hidden)],
        "log_alpha": [variable()],
    }


def values(networks):
    """All values as one list of (shape, dtype, bytes), to compare bit for bit."""
    flat = [variable for group in networks.values() for variable in group]
    return [(v.value.shape, v.value.dtype.str, v.value.tobytes()) for v in flat]


@contextlib.contextmanager
def refused(path, *phrases):
    """The block raises a UserError of one line that names the file and holds all phrases."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert message.isprintable(), "not one plain line"
    for phrase in (str(path), *phrases):
        assert phrase in message
    assert len(message) - len(str(path)) < 400


@pytest.fixture
def saved(tmp_path):
    path = weights.path(tmp_path / "model", "TD3", ENV)
    weights.save(path, "TD3", ENV, make(seed=1))
    return path


# Saving and loading


def test_path():
    assert weights.path("model", "TD3", ENV) == Path("model/TD3_Pendulum-v1/weights.npz")
    assert weights.path("model", "sac", "gymnasium:" + ENV).parent.name == "SAC_Pendulum-v1"
    assert weights.path("m", "DDPG", "ALE/Pong-v5").parent == Path("m/DDPG_ALE-Pong-v5")


def test_round_trip_is_exact_and_an_ordinary_npz(saved):
    agent = make(seed=2)
    weights.load(str(saved), "TD3", ENV, agent)
    assert values(agent) == values(make(seed=1))
    with np.load(saved, allow_pickle=False) as data:
        header = json.loads(data["header"].item())
        assert list(data)[1:] == [
            "q_net1/0", "q_net1/1", "q_net1/2", "policy_net/0", "policy_net/1", "log_alpha/0",
        ]  # fmt: skip
    assert header["networks"] == {
        "q_net1": [[4, 4], [4], [4, 1]],
        "policy_net": [[3, 4], [4]],
        "log_alpha": [[]],
    }
    assert (header["algorithm"], header["environment"]) == ("TD3", ENV)


def test_what_else_stands_in_the_file_is_not_read(saved):
    rewrite(saved, notes=np.zeros(2))
    agent = make(seed=2)
    weights.load(saved, "TD3", ENV, agent)
    assert values(agent) == values(make(seed=1))


SHIPPED = sorted((ROOT / "model").glob("*/weights.npz"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.parent.name for path in SHIPPED])
def test_shipped_weights_load_and_are_saved_byte_for_byte(path, tmp_path, monkeypatch):
    with np.load(path) as data:
        header = json.loads(data["header"].item())
        arrays = {key: data[key] for key in data if key != "header"}
    about = header["algorithm"], header["environment"]
    networks = {}
    for key, array in arrays.items():
        networks.setdefault(key.split("/")[0], []).append(Variable(np.zeros_like(array)))
    weights.load(path, *about, networks, header["unit_actions"])
    assert values(networks) == [(a.shape, a.dtype.str, a.tobytes()) for a in arrays.values()]
    for name, version in header["versions"].items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__=version))
    weights.save(tmp_path / "again.npz", *about, networks, header["unit_actions"])
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_integers_and_float64_keep_their_type(tmp_path):
    path = tmp_path / "weights.npz"
    weights.save(path, "A", ENV, {"step": [Variable(np.int64(7))], "x": [Variable([1 / 3])]})
    networks = {"step": [Variable(np.int64(0))], "x": [Variable([0.0])]}
    weights.load(path, "A", ENV, networks)
    assert networks["step"][0].value == 7
    assert networks["x"][0].value == [1 / 3]


def test_round_trip_with_tensorflow(tmp_path):
    tf = pytest.importorskip("tensorflow")

    def networks(scale):
        kernel = tf.Variable(scale * np.arange(12, dtype=np.float32).reshape(3, 4))
        return {"policy_net": [kernel, tf.Variable([scale] * 4)], "log_alpha": [tf.Variable(scale)]}

    path = weights.path(tmp_path, "SAC", ENV)
    weights.save(path, "SAC", ENV, networks(0.1))
    agent = networks(0.0)
    weights.load(path, "SAC", ENV, agent)
    for name, expected in networks(0.1).items():
        for got, wanted in zip(
            tf.nest.flatten(agent[name]), tf.nest.flatten(expected), strict=True
        ):
            np.testing.assert_array_equal(got.numpy(), wanted.numpy())
    with np.load(path) as data:
        assert json.loads(data["header"].item())["versions"]["tensorflow"] == tf.__version__


def test_same_values_give_the_same_bytes(saved, tmp_path):
    weights.save(tmp_path / "again.npz", "TD3", ENV, make(seed=1))
    assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:  # a clock in the file would show only after 2 s
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("unit_actions", [False, True])
def test_actions_of_another_scale_are_refused(unit_actions, tmp_path):
    path, networks = tmp_path / "weights.npz", make()
    weights.save(path, "TD3", ENV, networks, unit_actions)
    weights.load(path, "TD3", ENV, networks, unit_actions)
    then, now = ("with", "without") if unit_actions else ("without", "with")
    of = "weights of 'TD3' on 'Pendulum-v1' {} --unit-actions, not of 'TD3' on 'Pendulum-v1' {} --"
    with pytest.raises(UserError, match=of.format(then, now)):
        weights.load(path, "TD3", ENV, networks, not unit_actions)


def test_gymnasium_prefix_names_the_same_environment(saved):
    agent = make(seed=2)
    weights.load(saved, "TD3", "gymnasium:" + ENV, agent)
    assert values(agent) == values(make(seed=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_saved(saved, bad):
    before = saved.read_bytes()
    agent = make(seed=3)
    agent["policy_net"][1].value[2] = bad
    with refused(saved, "policy_net", "not finite", "left as it was"):
        weights.save(saved, "TD3", ENV, agent)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["weights.npz"]


def test_importing_needs_neither_tensorflow_nor_matplotlib():
    code = """
import sys
from common import curve, files, weights
assert not {"tensorflow", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# Files that must be refused


def rewrite(path, header=None, drop=(), **arrays):
    """Change parts of the file as somebody with NumPy would."""
    with np.load(path) as old:
        data = {**old, **arrays}
    described = json.loads(data["header"].item())
    if header:
        data["header"] = np.array(json.dumps({**described, **header}))
    np.savez(path, **{key: value for key, value in data.items() if key not in drop})


def replace_header(path, header):
    with np.load(path) as old:
        np.savez(path, **{**old, "header": header})


def replace_entry(path, name, content, compression=zipfile.ZIP_STORED):
    """Put raw bytes in the place of one entry of the zip."""
    with zipfile.ZipFile(path) as old:
        entries = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for entry, old_content in entries.items():
            new.writestr(entry, content if entry == name else old_content)


def patch_entry_record(path, offset, value):
    """Overwrite 2 bytes of the last entry's record in the zip's directory."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + offset
    data[at : at + 2] = value.to_bytes(2, "little")
    path.write_bytes(data)


def npy(header):
    """An npy file that claims to be what `header` says, and holds 4 bytes."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(4)


def duplicate(path):
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("log_alpha/0.npy", archive.read("log_alpha/0.npy"))


def pickle_file(path):
    path.write_bytes(pickle.dumps(make()))


def object_npy(path):
    with open(path, "wb") as file:
        np.save(file, np.array([{"w": 1}], dtype=object), allow_pickle=True)


def folder(path):
    path.unlink()
    path.mkdir()


LAST = "log_alpha/0.npy"  # the last one read: all before it is then known to be good
CLAIM = "{'descr': %s, 'fortran_order': False, 'shape': %s, }"
DAMAGED = "damaged or was not written by this version of these scripts"
BROKEN = {
    "empty": (lambda p: p.write_bytes(b""), DAMAGED),
    "text": (lambda p: p.write_text("<html>404: Not Found</html>"), DAMAGED),
    "garbage": (lambda p: p.write_bytes(random.Random(0).randbytes(3000)), DAMAGED),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-30]), DAMAGED),
    "pickle": (pickle_file, DAMAGED),
    "npy with pickle": (object_npy, DAMAGED),
    "a folder": (folder, "cannot be read"),
    "empty zip": (lambda p: zipfile.ZipFile(p, "w").close(), DAMAGED),
    "npz of others": (lambda p: np.savez(p, params=np.zeros(3)), DAMAGED),
    "pickled header": (lambda p: replace_header(p, np.array([{}], dtype=object)), "Object arrays"),
    "pickled weights": (lambda p: rewrite(p, **{"log_alpha/0": object()}), "Object arrays"),
    "format": (lambda p: rewrite(p, {"format": 7}), DAMAGED + " (it has format 7, not 2)"),
    "algorithm": (lambda p: rewrite(p, {"algorithm": "SAC"}), "weights of 'SAC' on 'Pendulum-v1'"),
    "evil name": (lambda p: rewrite(p, {"algorithm": "\x1b[2J\n\ud800" * 99}), "not of 'TD3' on"),
    "environment": (
        lambda p: rewrite(p, {"environment": "Acrobot-v1"}),
        "weights of 'TD3' on 'Acrobot-v1' without --unit-actions, not of 'TD3' on 'Pendulum-v1'",
    ),
    "unit actions no truth": (lambda p: rewrite(p, {"unit_actions": "yes"}), DAMAGED),
    "environment is no text": (lambda p: rewrite(p, {"environment": 3}), DAMAGED),
    "larger": (
        lambda p: weights.save(p, "TD3", ENV, make(hidden=9)),
        "'q_net1' differ: saved [[4, 9], [9], [9, 1]], expected [[4, 4], [4], [4, 1]]. Flags such "
        "as --hidden-dim",
    ),
    "much larger": (lambda p: weights.save(p, "TD3", ENV, make(hidden=999)), "saved [[4, 999]"),
    "another layer": (
        lambda p: weights.save(p, "TD3", ENV, {**make(), "q_net1": make()["q_net1"] * 2}),
        "'q_net1' differ: saved [[4, 4], [4], [4, 1], [4, 4], [4], [4, 1]], expected [[4, 4], [4],",
    ),
    "a layer less": (
        lambda p: weights.save(p, "TD3", ENV, {**make(), "q_net1": make()["q_net1"][:2]}),
        "'q_net1' differ: saved [[4, 4], [4]], expected [[4, 4], [4], [4, 1]]",
    ),
    "no log_alpha": (
        lambda p: weights.save(p, "TD3", ENV, {**make(), "log_alpha": []}),
        "'log_alpha' differ: saved None, expected [[]]",
    ),
    "another network": (
        lambda p: weights.save(p, "TD3", ENV, {**make(), "value_net": [Variable(1.0)]}),
        "'value_net' differ: saved [[]], expected None",
    ),
    "entry missing": (lambda p: rewrite(p, drop=["log_alpha/0"]), "no item named 'log_alpha/0"),
    "entry twice": (duplicate, "repeated"),
    "shape": (lambda p: rewrite(p, **{"log_alpha/0": np.float32([1])}), "'log_alpha/0'"),
    "float64": (lambda p: rewrite(p, **{"log_alpha/0": np.float64(1)}), "/0' has float64[]"),
    "int32": (lambda p: rewrite(p, **{"log_alpha/0": np.int32(1)}), "'log_alpha/0' has int32[]"),
    "nan": (lambda p: rewrite(p, **{"log_alpha/0": np.float32("nan")}), "'log_alpha/0' holds"),
    "inf": (lambda p: rewrite(p, **{"log_alpha/0": np.float32("inf")}), "not finite"),
    "header no JSON": (lambda p: replace_header(p, np.array("{")), DAMAGED),
    "header a list": (lambda p: replace_header(p, np.array("[1]")), DAMAGED),
    "header nested": (lambda p: replace_header(p, np.array("[" * 100_000)), DAMAGED),
    "header numbers": (lambda p: replace_header(p, np.arange(3)), DAMAGED),
    "header without format": (lambda p: replace_header(p, np.array("{}")), "'format'"),
    "header too long": (lambda p: rewrite(p, {"x": "x" * 300_000}), "more than 1000000"),
    "networks a list": (lambda p: rewrite(p, {"networks": []}), DAMAGED),
    "networks null": (lambda p: rewrite(p, {"networks": {"q_net1": None}}), "'q_net1' differ"),
    "npy shape of 4 PB": (lambda p: replace_entry(p, LAST, npy(CLAIM % ("'<f4'", (10**15,)))), ""),
    "npy shape overflows": (lambda p: replace_entry(p, LAST, npy(CLAIM % ("'<f4'", (2**63,)))), ""),
    "npy negative shape": (lambda p: replace_entry(p, LAST, npy(CLAIM % ("'<f4'", (-1,)))), ""),
    "npy strange type": (lambda p: replace_entry(p, LAST, npy(CLAIM % ("[(1, 2)]", ()))), ""),
    "npy no dict": (lambda p: replace_entry(p, LAST, npy("(" * 900)), ""),
    "npy header of 4 GB": (
        lambda p: replace_entry(p, LAST, b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
        DAMAGED,
    ),
    "npy of the future": (lambda p: replace_entry(p, LAST, b"\x93NUMPY\x09\x00"), DAMAGED),
    "zip in zip": (lambda p: replace_entry(p, LAST, p.read_bytes()[-900:]), DAMAGED),
    "encrypted": (lambda p: patch_entry_record(p, 8, 1), DAMAGED),
    "unknown compression": (lambda p: patch_entry_record(p, 10, 77), DAMAGED),
}


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize(("spoil", "phrase"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_refused(saved, spoil, phrase):
    spoil(saved)
    agent = make(seed=2)
    with refused(saved, phrase, "--train"):
        weights.load(saved, "TD3", ENV, agent)
    assert values(agent) == values(make(seed=2))


def test_zip_bomb_is_not_unpacked(saved):
    replace_entry(saved, LAST, bytes(30_000_000), zipfile.ZIP_DEFLATED)
    assert saved.stat().st_size < 100_000
    agent = make(seed=2)
    tracemalloc.start()
    try:
        with refused(saved, DAMAGED, "unpacked, it takes more than"):
            weights.load(saved, "TD3", ENV, agent)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert values(agent) == values(make(seed=2))


class Bomb:
    """Its unpickling creates the file `target`."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("key", ["header", "log_alpha/0"])
def test_pickles_are_never_read(saved, tmp_path, key):
    target = tmp_path / "unpickled"
    with np.load(saved) as old:
        np.savez(saved, **{**old, key: np.array([Bomb(target)], dtype=object)})
    agent = make(seed=2)
    with refused(saved, DAMAGED):
        weights.load(saved, "TD3", ENV, agent)
    assert not target.exists()
    assert values(agent) == values(make(seed=2))
    with np.load(saved, allow_pickle=True) as data:  # the bomb is real
        data[key][0].close()
    assert target.exists()


def test_missing_file(tmp_path):
    path = weights.path(tmp_path, "SAC", ENV)
    agent = make(seed=2)
    with refused(path, "no such file", "--train"):
        weights.load(path, "SAC", ENV, agent)
    for algorithm, env_id in [("TD3", ENV), ("DDPG", "Acrobot-v1")]:
        other = weights.path(tmp_path, algorithm, env_id)
        weights.save(other, algorithm, env_id, make())
    with refused(path, "--train", "There are weights of DDPG_Acrobot-v1, TD3_Pendulum-v1."):
        weights.load(path, "SAC", ENV, agent)
    for preset in ("chapter", "tuned"):
        weights.save(weights.path(tmp_path, "SAC", ENV, preset), "SAC", ENV, make())
    paper = weights.path(tmp_path, "SAC", ENV, "paper")
    with refused(paper, "There are weights for --preset chapter and --preset tuned."):
        weights.load(paper, "SAC", ENV, agent)
    assert values(agent) == values(make(seed=2))


def test_a_file_in_place_of_the_model_folder(tmp_path):
    (tmp_path / "model").write_text("mine")
    path = weights.path(tmp_path / "model", "TD3", ENV)
    with refused(path, "--train"):
        weights.load(path, "TD3", ENV, make())


def test_unreadable_file(saved, monkeypatch):
    def deny(self, *args, **kwargs):  # the tests may run as root, who may read everything
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", deny)
    agent = make(seed=2)
    with refused(saved, "Permission denied"):
        weights.load(saved, "TD3", ENV, agent)
    assert values(agent) == values(make(seed=2))


def load_damaged(path, data):
    """Load `data` as a file: it is refused, or it is whole. Returns True if refused."""
    path.write_bytes(data)
    agent = make(seed=2)
    try:
        weights.load(path, "TD3", ENV, agent)
    except UserError as error:
        assert str(path) in str(error)
        assert str(error).isprintable()
        assert values(agent) == values(make(seed=2))
        return True
    assert values(agent) == values(make(seed=1))
    return False


def test_fuzz_truncation(saved):
    whole = saved.read_bytes()
    # The tail holds the zip's directory: each of its bytes counts.
    for length in [*range(0, len(whole) - 700, 11), *range(len(whole) - 700, len(whole))]:
        assert load_damaged(saved, whole[:length]), f"accepted {length} bytes"


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_fuzz_bytes(saved):
    whole = saved.read_bytes()
    rng = random.Random(0)
    refusals = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(len(data))] = rng.choice([0, 255, rng.randrange(256)])
        refusals += load_damaged(saved, bytes(data))
    assert refusals > 500


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_fuzz_inside_the_entries(saved):
    """Damage with a right checksum: NumPy and json see it, not only zipfile."""
    whole = saved.read_bytes()
    rng = random.Random(0)
    refusals = 0
    for _ in range(300):
        saved.write_bytes(whole)
        with zipfile.ZipFile(saved) as archive:
            name = rng.choice(archive.namelist())
            content = bytearray(archive.read(name))
        # Only what stands before an array's values: another value is no damage.
        end = len(content) if name == "header.npy" else 128
        for _ in range(rng.choice([1, 2, 8])):
            content[rng.randrange(end)] = rng.randrange(256)
        replace_entry(saved, name, bytes(content))
        refusals += load_damaged(saved, saved.read_bytes())
    assert refusals > 200


# Writing


def test_write_atomically_replaces_the_content(tmp_path):
    path = tmp_path / "new" / "folders" / "file.bin"
    for content in (b"first", b"second"):
        files.write_atomically(str(path), lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_others_may_read_the_file(tmp_path):
    old = os.umask(0o022)
    try:
        files.write_atomically(tmp_path / "file", lambda file: file.write(b"x"))
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_interrupted_write_changes_nothing(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the n")
        file.flush()
        assert len(os.listdir(tmp_path)) == 2
        raise error

    with pytest.raises(error):
        files.write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["mkdir", "write", "fsync", "replace"])
def test_failing_disk(saved, monkeypatch, step):
    def fail(file, *args, **kwargs):
        if step == "write":
            file.write(b"half of the n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target, name = {
        "mkdir": (Path, "mkdir"),
        "write": (np, "savez"),
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
    }[step]
    before = saved.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(target, name, fail)
        with refused(saved, "cannot be written", os.strerror(errno.ENOSPC)):
            weights.save(saved, "TD3", ENV, make(seed=3))
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["weights.npz"]


@pytest.mark.parametrize("depth", ["model", "model/TD3_Pendulum-v1"])
def test_a_file_where_a_folder_should_be(tmp_path, depth):
    blocker = tmp_path / depth
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("mine")
    path = weights.path(tmp_path / "model", "TD3", ENV)
    with refused(path, "cannot be written", "is a file"):
        weights.save(path, "TD3", ENV, make())
    assert blocker.read_text() == "mine"


def test_a_folder_where_the_file_should_be(tmp_path):
    path = tmp_path / "weights.npz"
    path.mkdir()
    with refused(path, "cannot be written"):
        weights.save(path, "TD3", ENV, make())
    assert os.listdir(tmp_path) == ["weights.npz"]


SAVE_FOREVER = """
import sys
sys.path.insert(0, "tests")
from test_weights import ENV, make, weights
agents = [make(hidden=150, fill=fill) for fill in (1.0, 2.0)]
while True:
    for agent in agents:
        weights.save(sys.argv[1], "TD3", ENV, agent)
"""


def test_killed_while_saving(tmp_path):
    path = weights.path(tmp_path, "TD3", ENV)
    rng = random.Random(0)
    for _ in range(6):
        path.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(path)], cwd=ROOT)
        try:
            deadline = time.monotonic() + 60
            while not path.exists():
                assert child.poll() is None, "the child died by itself"
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02))
        finally:
            child.kill()
            child.wait()
        agent = make(hidden=150)
        weights.load(path, "TD3", ENV, agent)
        fill = agent["log_alpha"][0].value
        assert fill in (1.0, 2.0)
        assert values(agent) == values(make(hidden=150, fill=fill))  # not half of each
    weights.save(path, "TD3", ENV, make(seed=1))  # whatever the killed ones left behind
    agent = make(seed=2)
    weights.load(path, "TD3", ENV, agent)
    assert values(agent) == values(make(seed=1))


def test_a_left_over_aside_file_is_ignored(saved):
    """kill -9 in the middle of a write, made certain: the aside file stays, half full."""
    code = """
import os, sys
from common import files
def write(file):
    file.write(b"half"); file.flush(); os._exit(9)
files.write_atomically(sys.argv[1], write)
"""
    before = saved.read_bytes()
    killed = subprocess.run([sys.executable, "-c", code, str(saved)], cwd=ROOT, check=False)
    assert killed.returncode == 9
    left = set(os.listdir(saved.parent)) - {"weights.npz"}
    assert [name.endswith(".tmp") for name in left] == [True]  # .gitignore knows *.tmp
    assert saved.read_bytes() == before
    weights.save(saved, "TD3", ENV, make(seed=3))
    agent = make(seed=2)
    weights.load(saved, "TD3", ENV, agent)
    assert values(agent) == values(make(seed=3))
    assert set(os.listdir(saved.parent)) == {"weights.npz", *left}


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("Pendulum-v1", "Pendulum-v1"),
        ("gymnasium:Pendulum-v1", "Pendulum-v1"),
        ("ALE/Pong-v5", "ALE-Pong-v5"),
        ("module:Env-v0", "module-Env-v0"),
        ("my_pkg.envs:My_Env", "my_pkg.envs-My_Env"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\Windows", "C-Windows"),
        ('a<b>|"c?*\n\0 d', "a-b-c-d"),
        ("ends with a dot.", "ends-with-a-dot"),
        ("钟摆", "environment"),
        ("", "environment"),
    ],
)
def test_safe_name(env_id, name):
    assert files.safe_name(env_id) == name
