"""Files of weights: whole, proven, or refused in one line; one's own first, else the shipped."""

import json
import os
import random
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from commands import refusal

from common.errors import UserError
from common.files import weights
from common.files.names import weights_path

ENV = "Pendulum-v1"


class Variable:
    """What weights.py needs to know of a tf.Variable."""

    def __init__(self, value):
        self.value = np.array(value)

    shape = property(lambda self: self.value.shape)

    def numpy(self):
        return self.value.copy()

    def assign(self, value):
        assert value.shape == self.value.shape and value.dtype == self.value.dtype
        self.value = value


def make(seed=0, hidden=4):
    """The variables of a small agent, drawn from `seed`."""
    rng = np.random.default_rng(seed)

    def variable(*shape):
        return Variable(rng.normal(size=shape).astype(np.float32))

    shapes = {"q_net1": [(4, hidden), (hidden,), (hidden, 1)],
              "policy_net": [(3, hidden), (hidden,)], "log_alpha": [()]}
    return {f"{name}/{i}": variable(*shape)
            for name, of_it in shapes.items() for i, shape in enumerate(of_it)}


def values(agent):
    """All values as one list of (shape, dtype, bytes), to compare bit for bit."""
    flat = [variable.value for variable in agent.values()]
    return [(value.shape, value.dtype.str, value.tobytes()) for value in flat]


@pytest.fixture
def saved(tmp_path):
    path = weights_path(tmp_path / "model", "TD3", ENV)
    weights.save(path, "TD3", ENV, make(seed=1))
    return path


def test_round_trip_is_exact_and_an_ordinary_npz(saved, tmp_path):
    agent = make(seed=2)
    weights.load(str(saved), "TD3", "gymnasium:" + ENV, agent)
    assert values(agent) == values(make(seed=1))
    assert weights.units(saved) == 4
    with np.load(saved, allow_pickle=False) as data:
        header = json.loads(data["header"].item())
        np.testing.assert_array_equal(data["policy_net/1"], agent["policy_net/1"].value)
    assert header["networks"]["q_net1"] == [[4, 4], [4], [4, 1]]
    assert (header["algorithm"], header["environment"]) == ("TD3", ENV)
    weights.save(tmp_path / "again.npz", "TD3", ENV, agent)
    assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:  # a clock in the file would show only after 2 s
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("path", sorted(weights.SHIPPED.glob("*/weights.npz")),
                         ids=lambda path: path.parent.name)
def test_shipped_weights_load_and_are_saved_byte_for_byte(path, tmp_path, monkeypatch):
    with np.load(path) as data:
        header = json.loads(data["header"].item())
        variables = {key: Variable(np.zeros_like(data[key])) for key in data.files[1:]}
    about = header["algorithm"], header["environment"], variables, header["unit_actions"]
    weights.load(path, *about)
    for name, version in header["versions"].items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__=version))
    weights.save(tmp_path / "again.npz", *about)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_not_saved(saved, bad):
    before, agent = saved.read_bytes(), make(seed=3)
    agent["policy_net/1"].value[2] = bad
    said = refusal(weights.save, saved, "TD3", ENV, agent)
    assert "policy_net" in said and "not finite" in said
    assert said.startswith(f"{saved}: ") and "left as it was" in said
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["weights.npz"]


# ---- files that must be refused


def rewrite(path, about=None, **arrays):
    """Change parts of the file as somebody with NumPy would: its header's entries, its arrays."""
    with np.load(path) as old:
        data = dict(old)
    data["header"] = np.array(json.dumps({**json.loads(data["header"].item()), **(about or {})}))
    np.savez(path, **{**data, **arrays})


def resaved(without=None, **others):
    """A function that saves other variables in the file's place."""
    found = {name: value for name, value in {**make(), **others}.items() if name != without}
    return lambda path: weights.save(path, "TD3", ENV, found)


def folder(path):
    path.unlink()
    path.mkdir()


DAMAGED = "damaged or was not written by this version of these scripts"
BROKEN = {
    "text": (lambda p: p.write_text("<html>404: Not Found</html>"), DAMAGED),
    "garbage": (lambda p: p.write_bytes(random.Random(0).randbytes(3000)), DAMAGED),
    "a folder": (folder, "cannot be read"),
    "npz of others": (lambda p: np.savez(p, params=np.zeros(3)), DAMAGED),
    "format": (lambda p: rewrite(p, {"format": 7}), f"{DAMAGED} (it has format 7, not "),
    "algorithm": (lambda p: rewrite(p, {"algorithm": "SAC"}), "weights of 'SAC' on 'Pendulum-v1'"),
    "environment": (
        lambda p: rewrite(p, {"environment": "Acrobot-v1"}),
        "weights of 'TD3' on 'Acrobot-v1' without --unit-actions, not of 'TD3' on 'Pendulum-v1'",
    ),
    "unit actions": (
        lambda p: weights.save(p, "TD3", ENV, make(), unit_actions=True),
        "weights of 'TD3' on 'Pendulum-v1' with --unit-actions, not of 'TD3' on 'Pendulum-v1' with"
        "out --",
    ),
    "larger": (
        resaved(**make(hidden=9)),
        "'q_net1' differ: saved [[4, 9], [9], [9, 1]], expected [[4, 4], [4], [4, 1]]. Flags such "
        "as --hidden-dim",
    ),
    "a layer less": (
        resaved(without="q_net1/2"),
        "'q_net1' differ: saved [[4, 4], [4]], expected [[4, 4], [4], [4, 1]]",
    ),
    "no log_alpha": (
        resaved(without="log_alpha/0"), "'log_alpha' differ: saved None, expected [[]]",
    ),
    "another network": (
        resaved(**{"value_net/0": Variable(np.float32(1))}),
        "'value_net' differ: saved [[]], expected N",
    ),
    "float64": (lambda p: rewrite(p, **{"log_alpha/0": np.float64(1)}), "numbers of float64"),
    "nan": (lambda p: rewrite(p, **{"log_alpha/0": np.float32("nan")}), "log_alpha/0 is not fin"),
}


@pytest.mark.parametrize(("spoil", "phrase"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_refused(saved, spoil, phrase):
    spoil(saved)
    agent = make(seed=2)
    said = refusal(weights.load, saved, "TD3", ENV, agent)
    assert str(saved) in said and phrase in said and "--train" in said
    assert values(agent) == values(make(seed=2))


def test_damaged_bytes_never_pass_for_others(saved):
    """A file cut anywhere is refused, one with a wrong byte is refused or read as it was."""
    whole, rng, agent = saved.read_bytes(), random.Random(0), make(seed=2)
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        saved.write_bytes(whole[:length])
        assert DAMAGED in refusal(weights.load, saved, "TD3", ENV, agent)
    refusals = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        saved.write_bytes(data)
        agent = make(seed=2)
        try:
            weights.load(saved, "TD3", ENV, agent)
            assert values(agent) == values(make(seed=1))
        except UserError:
            refusals += 1
            assert values(agent) == values(make(seed=2))
    assert refusals > 100


class Bomb:
    """Its unpickling creates the file `target`."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("key", ["header", "log_alpha/0"])
def test_pickles_are_never_read(saved, tmp_path, key):
    target = tmp_path / "unpickled"
    rewrite(saved, **{key: np.array([Bomb(target)], dtype=object)})
    assert DAMAGED in refusal(weights.load, saved, "TD3", ENV, make(seed=2))
    assert not target.exists()
    with np.load(saved, allow_pickle=True) as data:  # the bomb is real
        data[key][0].close()
    assert target.exists()


# ---- which file


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped weights, with TD3's and SAC's tuned ones; work is done elsewhere."""
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "pretrained")
    for task in (("TD3", ENV), ("SAC", ENV, "tuned")):
        weights.save(weights_path(weights.SHIPPED, *task), *task[:2], make(seed=4))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return weights.SHIPPED


def test_ones_own_weights_come_first_and_then_the_shipped(shipped):
    assert weights.find("model", "TD3", ENV) == weights_path(shipped, "TD3", ENV)
    own = weights_path("model", "TD3", ENV)
    own.mkdir(parents=True)  # whatever it is, it is not passed over
    assert weights.find("model", "TD3", ENV) == own
    own.rmdir()
    own.symlink_to("nowhere")
    assert "there is no such file" in refusal(weights.find, "model", "TD3", ENV)


def test_missing_weights_name_the_whole_path_and_what_there_is(shipped, tmp_path):
    path = weights_path("model", "SAC", ENV)
    for said in (refusal(weights.load, path, "SAC", ENV, make()),
                 refusal(weights.find, "model", "SAC", ENV)):
        assert str(tmp_path / "work" / path) in said
        assert "there is no such file. Train first, with --train." in said
        assert "There are weights for --preset tuned." in said
    said = refusal(weights.find, "model", "SAC", "Other-v0")
    assert "There are weights of SAC_Pendulum-v1_tuned." in said
    assert "Train first, with --train." in refusal(weights.find, "model", "DDPG", ENV)
