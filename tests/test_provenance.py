"""What a run's numbers depend on: the code, found without running it, and the packages."""

import importlib.metadata
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from common.provenance import changed, provenance

ROOT = Path(__file__).parent.parent
FILES = {
    "script.py": '''
        """A script."""
        from common import first
        from common.second import thing
        import common.third as third
        import random, json

        GAMMA = 0.9  # discount factor, in [0, 1]

        def update():
            """Learns."""
            from common import late
            return f"{GAMMA}"
    ''',
    "common/__init__.py": "",
    "common/first.py": "from . import beside\n",
    "common/second.py": "thing = 1\n",
    "common/third.py": "from common.fourth import *\n",
    "common/late.py": "A = 1\n",
    "common/beside.py": "A = 1\n",
    "common/fourth.py": "A = 1\n",
    "common/unused.py": "A = 1\n",
    "json.py.txt": "",
}


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def code(folder, env_id=""):
    return provenance(folder / "script.py", env_id)["code"]


def test_the_script_and_all_that_it_imports_count(tmp_path):
    before = code(write(tmp_path / "a", FILES))
    assert before == code(write(tmp_path / "b", FILES))  # wherever it is
    for name in FILES:
        if name.endswith(".py"):
            folder = write(tmp_path / name.replace("/", "-"), FILES)
            with open(folder / name, "a") as file:
                file.write("B = 2\n")
            assert (code(folder) == before) == (name == "common/unused.py"), name


@pytest.mark.parametrize(("old", "new", "same"), [
    ("# discount factor, in [0, 1]", "# how far one looks", True),
    ('"""A script."""', '"""Another."""', True),
    ('"""Learns."""', "", True),
    ("GAMMA = 0.9", "\n\nGAMMA = (\n    0.9)", True),
    ("GAMMA = 0.9", "GAMMA = 0.8", False),
    ("GAMMA = 0.9", "GAMMA = '0.9'", False),
    ('f"{GAMMA}"', 'f"{GAMMA!r}"', False),
    ("def update():", "def update(x=None):", False),
    ("import random, json", "import random", False),
])
def test_only_what_python_runs_counts(old, new, same, tmp_path):
    before = code(write(tmp_path / "a", FILES))
    assert old in FILES["script.py"]
    other = write(tmp_path / "b", FILES)
    script = other / "script.py"
    script.write_text(script.read_text().replace(old, new))
    assert (code(other) == before) == same


def test_a_file_that_is_no_python_is_for_the_run_to_complain_about(tmp_path):
    before = code(write(tmp_path, FILES))
    for content in (b"A = (", b"\xff\xfe", b"\x00"):
        (tmp_path / "common" / "late.py").write_bytes(content)
        assert code(tmp_path) != before


def test_the_module_of_an_environment_counts(tmp_path, monkeypatch):
    here = write(tmp_path / "here", {"mine.py": "import helper\n", "helper.py": "A = 1\n",
                                     "other.py": "", "package/__init__.py": "",
                                     "package/deep/task.py": "A = 1\n"})
    installed = write(tmp_path / "installed", {"theirs.py": "import big\n", "big.py": "A = 1\n"})
    folder = write(tmp_path / "project", FILES)
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(installed)
    ids = ("mine:Task-v0", "gymnasium:mine:Task-v0", "package.deep:Task-v0", "theirs:Task-v0")
    before = {env_id: code(folder, env_id) for env_id in ids}
    assert before["mine:Task-v0"] == before["gymnasium:mine:Task-v0"] != code(folder)
    for path, counts in {here / "mine.py": "mine", here / "helper.py": "mine",
                         here / "other.py": "none", here / "package/deep/task.py": "package",
                         installed / "theirs.py": "theirs", installed / "big.py": "none"}.items():
        text = path.read_text()
        path.write_text(text + "B = 2\n")
        for env_id in ids:
            assert (code(folder, env_id) != before[env_id]) == (counts in env_id), (path, env_id)
        path.write_text(text)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "gymnasium:Pendulum-v1", "no_such_module:A-v0",
                                    "ALE/Pong-v5", "a..b:C", ":C", "__main__:C", "sys:C", ""])
def test_an_environment_without_a_file_is_no_part(env_id, tmp_path):
    folder = write(tmp_path, FILES)
    if env_id != "__main__:C":
        assert code(folder, env_id) == code(folder)
    code(folder, env_id)


def test_versions_of_the_packages_that_compute(monkeypatch):
    before = provenance(ROOT / "td3.py")
    assert before["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert {"tensorflow", "tensorlayer", "gym"} <= before["versions"].keys()
    assert changed(before, provenance(ROOT / "td3.py")) == ""
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version",
                        lambda name: "9.9" if name == "numpy" else version(name))
    now = provenance(ROOT / "td3.py")
    was = before["versions"]["numpy"]
    assert changed(before, now) == f"numpy ({was} then, 9.9 now)"
    old = {"code": "another", "versions": {**before["versions"], "box2d": "1.0"}}
    del now["versions"]["numpy"]
    now["versions"]["box2d"] = "2.0"
    assert changed(old, now) == f"the code, box2d (1.0 then, 2.0 now), numpy ({was} then, none now)"


def test_every_module_that_a_script_imports_is_found():
    """And none of the packages that take seconds to import is needed to find them."""
    program = """
import sys
from common.provenance import _imported
from pathlib import Path
assert not {"numpy", "tensorflow"} & sys.modules.keys()
found = {path.relative_to(Path.cwd()).as_posix() for path in _imported("td3", Path.cwd())}
assert "compare.py" not in found and "common/runs.py" not in found
import td3
files = {Path(m.__file__) for m in sys.modules.values() if getattr(m, "__file__", None)}
ours = {path.relative_to(Path.cwd()).as_posix() for path in files if path.parent in
        (Path.cwd(), Path.cwd() / "common")}
assert ours <= found, ours - found
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
