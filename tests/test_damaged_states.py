"""common/checkpoint.py and npz.py: a damaged or crafted training state changes nothing."""

import copy
import dataclasses
import json
import os
import random
import struct
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import CONSTANTS, PROGRESS, SOURCE, Run
from test_library import made

import ddpg
import sac
import td3
from common import checkpoint
from common.errors import UserError
from common.progress import Progress

ODD = [None, True, 7, -1, 0.5, float("nan"), 10**400, "x", [], ["x"], [[]], {}, {"x": 1}]


@pytest.fixture(scope="module", params=[pytest.param(ddpg, marks=pytest.mark.slow, id="ddpg"),
                                        pytest.param(td3, id="td3"),
                                        pytest.param(sac, marks=pytest.mark.slow, id="sac")])
def runs(request, tmp_path_factory):
    """A state that was saved after two episodes, and another, new agent to restore it to."""
    module = request.param
    one, other = made(Run, module, 1), made(Run, module, 5)
    one.play(2)
    path = tmp_path_factory.mktemp("state") / "training.npz"
    one.save(path)
    return path, path.read_bytes(), other


# Of what is the same for all agents
one_agent = pytest.mark.parametrize("runs", [td3], indirect=True, ids=["td3"])


@pytest.fixture
def state(runs):
    path, whole, other = runs
    path.write_bytes(whole)
    return path, whole, other


def everything(run):
    """All that restore() may change."""
    state = checkpoint.state_of(run.agent, run.env), run.env._reset_options
    return copy.deepcopy(state)


def refused(path, run, what, before):
    """restore() ends in one line, and the run is as it was."""
    with pytest.raises(UserError) as error:
        run.restore(path)
        pytest.fail(f"accepted: {what}")
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "without --resume" in line, (what, line)
    assert line.isprintable() and len(line) < 600, (what, line)
    np.testing.assert_equal(everything(run), before, str(what))
    assert isinstance(checkpoint.progress_in(path), (Progress, type(None)))


def leaves(node, route=()):
    """Routes to the entries of nested dicts, of lists and the many variables to the first ones."""
    items = node.items() if isinstance(node, dict) else enumerate(node[:2])
    for key, value in list(items)[: 2 if route[-1:] == ("variables",) else None]:
        yield (*route, key)
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*route, key))


def changed(header, route, value):
    header = copy.deepcopy(header)
    *above, last = route
    node = header
    for key in above:
        node = node[key]
    if value is leaves:
        del node[last]
    else:
        node[last] = value
    return header


def read(path):
    with np.load(path) as file:
        arrays = dict(file)
    return json.loads(arrays.pop("header").item()), arrays


def write(path, header, arrays):
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


def kind(value):
    return float if isinstance(value, float) else type(value)


def test_each_entry_of_the_header(state):
    path, _, run = state
    before = everything(run)
    header, arrays = read(path)
    tried = 0
    for route in leaves(header):
        if route[:2] in (("constants", "TRAIN_EPISODES"), ("progress", "log_name")):
            continue
        if route[0] == "provenance" and len(route) > 2:  # other packages are said
            continue
        old = header
        for key in route:
            old = old[key]
        write(path, changed(header, route, leaves), arrays)
        if isinstance(route[-1], str):
            refused(path, run, ("dropped", *route), before)
        for value in random.Random(str(route)).sample(ODD, 3):
            # None and a list may stand where there may be none, a whole number for a real one.
            whole = type(value) is int and value < 9
            if kind(value) is kind(old) or (kind(old) is float and whole):
                continue
            if route[0] in ("provenance", "constants") and len(route) > 1:
                continue
            if value in (None, []) and route[-1] in ("best", "test_returns", "evaluations", 2):
                continue
            write(path, changed(header, route, value), arrays)
            refused(path, run, (*route, value), before)
            tried += 1
    assert tried > 100


def test_each_array(state):
    path, _, run = state
    before = everything(run)
    header, arrays = read(path)
    # One of each rank among the many variables, and all others.
    some = {array.ndim: name for name, array in arrays.items() if name.startswith("variables/")}
    some = [*some.values(), *(name for name in arrays if not name.startswith("variables/"))]
    for name, array in ((name, arrays[name]) for name in some):
        floats = array.dtype.kind == "f"
        others = {
            "dropped": None,
            "another kind": array.astype(np.int32 if floats else np.float32),
            "another width": array.astype(np.float16 if floats else np.uint8),
            "text": np.array("x"),
            "flat": array.reshape(1, *array.shape),
            "swapped": array.astype(array.dtype.newbyteorder()),
            "objects": array.astype(object),
        }
        if floats:
            others["nan"], others["inf"] = array.copy(), array.copy()
            others["nan"].flat[-1], others["inf"].flat[0] = np.nan, -np.inf
        if array.ndim:
            others["shorter"], others["empty"] = array[:-1], array[:0]
            others["longer"] = np.concatenate([array, array])
        if array.ndim == 2:
            others["narrower"] = array[:, :-1]
        for what, other in others.items():
            rest = {k: v for k, v in arrays.items() if k != name}
            write(path, header, rest if other is None else {**rest, name: other})
            refused(path, run, (name, what), before)
    write(path, header, {**arrays, "one_more": np.zeros(3)})
    refused(path, run, "one more", before)


def test_numbers_that_do_not_fit(state):
    path, _, run = state
    before = everything(run)
    header, arrays = read(path)
    if "pointer" in header["state"]["agent"]:
        odd = {("pointer",): [-1, 3, 23, 25, 10**400], ("var",): [10**400]}
    else:
        odd = {("position",): [-1, 3, 1000], ("capacity",): [0, 10**9],
               ("sizes",): [[3, 4, 5], [1, 2, 3, 4], [], None, [2, 3], [10**9, 1], [-1, 9]]}
        odd = {("replay_buffer", *name): values for name, values in odd.items()}
    for name, values in odd.items():
        for value in values:
            write(path, changed(header, ("state", "agent", *name), value), arrays)
            refused(path, run, (name, value), before)
    for position in (-1, 625, 10**6):  # NumPy itself would read beyond its 624 words
        write(path, changed(header, ("state", "numpy", "state", "pos"), position), arrays)
        refused(path, run, ("pos", position), before)
    for gauss in ("x", [], True, float("nan")):
        write(path, changed(header, ("state", "random", 2), gauss), arrays)
        if gauss is not True:  # which is 1
            refused(path, run, ("gauss", gauss), before)


def test_arrays_that_stand_for_others(state):
    path, _, run = state
    before = everything(run)
    header, arrays = read(path)
    variables = header["state"]["variables"]
    one, other = next(iter(variables)), next(reversed(variables))
    for there in (one, other, "header", "nowhere", 7, None, ["x"], {"array": one}):
        new = changed(header, ("state", "variables", one, "array"), there)
        if there != one:
            write(path, new, arrays)
            refused(path, run, there, before)


def records(whole):
    """Where the zip entries' own records lie: 30 bytes, then the name and an extra field."""
    starts = [at for at in range(len(whole)) if whole.startswith(b"PK\3\4", at)]
    return [(at, at + 30 + sum(struct.unpack_from("<HH", whole, at + 26))) for at in starts]


@one_agent
def test_damaged_bytes(state):
    path, whole, run = state
    before = everything(run)
    rng = random.Random(0)
    cuts = [rng.randrange(len(whole)) for _ in range(10)]
    for n in (0, 1, *cuts, len(whole) - 1):
        path.write_bytes(whole[:n])
        refused(path, run, f"{n} bytes", before)
    entries = [at for at in range(len(whole)) if whole.startswith(b"PK\x01\x02", at)]
    for _ in range(60):
        damaged = bytearray(whole)
        at = rng.randrange(len(whole) // 2, entries[0])  # values, whose checksum is then wrong
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            refused(path, run, f"bit of byte {at}", before)
        except BaseException:
            # A field of a zip entry's own record that nobody reads (its date) may differ.
            assert any(start < at < end for start, end in records(whole))
            run.restore(path)
            before = everything(run)


def packed(path, name, content, method):
    """The state with one entry packed anew."""
    with zipfile.ZipFile(path) as old:
        entries = {entry: old.read(entry) for entry in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for entry, own in entries.items():
            new.writestr(entry, *((content, method) if entry == name else (own,)))


def lie_about_the_size(path, name, size):
    """Write `size` as the unpacked size of an entry, wherever the zip says it."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            length = 30 if mark[2] == 3 else 46
            if data[at + length : at + length + len(name)] == name.encode():
                data[at + offset : at + offset + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)


@one_agent
@pytest.mark.parametrize("lie", [None, 128, 4000])
@pytest.mark.parametrize("method", ["ZIP_DEFLATED", "ZIP_BZIP2", "ZIP_LZMA"])
@pytest.mark.parametrize("entry", ["header.npy", "numpy/state/key.npy"])
def test_bombs_are_not_unpacked(state, entry, method, lie):
    path, _, run = state
    before = everything(run)
    packed(path, entry, bytes(40_000_000), getattr(zipfile, method))
    if lie:
        lie_about_the_size(path, entry, lie)
    tracemalloc.start()
    try:
        refused(path, run, "bomb", before)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@one_agent
def test_many_entries_are_no_bomb_together(state):
    """Each takes less than the file has, all of them more."""
    path, _, run = state
    before = everything(run)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **arrays, **{f"more/{i}": np.zeros(30_000) for i in range(300)})
    tracemalloc.start()
    try:
        refused(path, run, "bombs", before)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def fifo(path):
    os.mkfifo(path)


FOREIGN = {
    "a folder": Path.mkdir,
    "a FIFO": fifo,
    "a device": lambda p: p.symlink_to("/dev/zero"),
    "a loop of links": lambda p: p.symlink_to(p.name),
    "empty": Path.touch,
    "another program's": lambda p: np.savez(p, weights=np.zeros(3)),
    "a list": lambda p: np.savez(p, header=np.array("[]")),
    "a number": lambda p: np.savez(p, header=np.array(3)),
    "nested": lambda p: np.savez(p, header=np.array("[" * 100_000)),
    "no entries": lambda p: np.savez(p, header=np.array("{}")),
    "format only": lambda p: np.savez(p, header=np.array('{"format": 4}')),
    "an older format": lambda p: np.savez(p, header=np.array('{"format": 3}')),
}


@one_agent
@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs, and links need rights")
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_state(runs, make, tmp_path):
    _, _, run = runs
    path = tmp_path / "training.npz"
    before = everything(run)
    make(path)
    start = time.monotonic()
    refused(path, run, "foreign", before)
    assert checkpoint.progress_in(path) is None
    assert time.monotonic() - start < 5
    assert "cannot be read as the state of a training. It is kept as training.old.npz." in (
        checkpoint.unfinished(path)
    )
    assert checkpoint.set_aside(path) == tmp_path / "training.old.npz"
    assert not os.path.lexists(path) and os.path.lexists(tmp_path / "training.old.npz")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udcff\u949f", "a\nb"])
def test_names_that_no_file_has(name, tmp_path):
    path = tmp_path / name / "training.npz"
    assert checkpoint.progress_in(path) is None
    assert checkpoint.unfinished(path) == ""
    with pytest.raises(UserError) as error:
        checkpoint.restore(path, None, None, CONSTANTS, SOURCE)
    assert str(error.value).isprintable() and len(str(error.value)) < 700


@one_agent
def test_other_code_or_packages_are_said(state, capsys):
    path, _, run = state

    def said(there, here):
        checkpoint.save(path, run.agent, run.env, CONSTANTS, PROGRESS, there)
        capsys.readouterr()
        checkpoint.restore(path, run.agent, run.env, CONSTANTS, here)
        return capsys.readouterr().out.splitlines()

    old = {"code": "a" * 64, "versions": {"numpy": "1.26", "tensorflow": "2.21"}}
    new = {"code": "b" * 64, "versions": {"numpy": "2.1", "tensorflow": "2.21"}}
    assert said(old, old) == []
    (line,) = said(old, new)
    assert line == (
        f"{path} was written by other code or packages "
        "(the code, numpy (1.26 then, 2.1 now)): going on with the present ones."
    )


@one_agent
def test_folder_names_that_are_no_text_survive(state):
    path, _, run = state
    constants = {**CONSTANTS, "MODEL_DIR": "\udcff\u949f"}
    checkpoint.save(path, run.agent, run.env, constants, PROGRESS, SOURCE)
    assert run.restore(path, constants) == PROGRESS


@one_agent
def test_unfinished_and_finished(state, tmp_path):
    _, whole, run = state
    own = tmp_path / "training.npz"
    assert checkpoint.unfinished(own) == ""
    (tmp_path / "training.old.npz").mkdir()
    for n in (2, 3):
        own.write_bytes(whole)
        line = checkpoint.unfinished(own)
        assert "was stopped after 2 episodes; --resume would go on. It is kept as" in line
        assert line.endswith(f"training.old-{n}.npz.")
        assert checkpoint.set_aside(own).read_bytes() == whole
    assert checkpoint.progress_in(tmp_path / "training.old-2.npz") == PROGRESS
    finished = dataclasses.replace(PROGRESS, finished=True)
    checkpoint.save(own, run.agent, run.env, CONSTANTS, finished, SOURCE)
    assert checkpoint.unfinished(own) == ""


@one_agent
def test_a_state_that_cannot_be_renamed(state, monkeypatch):
    path, whole, _ = state

    def immutable(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "rename", immutable)
    with pytest.raises(UserError, match=r"kept as training.old.npz \(Operation not permitted\)"):
        checkpoint.set_aside(path)
    assert path.read_bytes() == whole
