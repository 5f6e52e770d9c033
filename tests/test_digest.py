"""What a run's numbers depend on: its code, and the packages that compute."""

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from common.files import digest as module
from common.files.digest import changed, digest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of td3.py and common/, and modules of environments beside them."""
    shutil.copy(ROOT / "td3.py", tmp_path)
    shutil.copytree(ROOT / "common", tmp_path / "common")
    monkeypatch.setattr(module, "ROOT", tmp_path)
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
