"""What a run's numbers depend on besides its constants: its code, and the packages that compute."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

from common.files.names import ROOT, plain_env_id

PACKAGES = ("tensorflow", "keras", "tensorlayer", "tensorflow-probability", "numpy", "gym",
            "gymnasium", "mujoco", "box2d")


def digest(script, env_id=""):
    """The code that a script runs, and the versions of the packages that it computes with.

    Code is the bytes of the script, of common/, and of the module of an env_id `module:ID`.

    Returns:
        dict for JSON: code (hexadecimal), versions (dict from package to version).
    """
    code = hashlib.sha256(Path(script).read_bytes())
    for path in sorted((ROOT / "common").rglob("*.py")):
        code.update(path.read_bytes())
    module = plain_env_id(env_id).rpartition(":")[0]
    if module:
        with contextlib.suppress(ImportError, ValueError, OSError, AttributeError, TypeError):
            spec = importlib.util.find_spec(module)
            folders = spec.submodule_search_locations or []  # of a package
            for path in sorted(p for folder in folders for p in Path(folder).rglob("*.py")):
                code.update(path.read_bytes())
            code.update(Path(spec.origin).read_bytes())
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"code": code.hexdigest(), "versions": versions}


def changed(old, new):
    """What differs between two digests, in words; "" if nothing does."""
    parts = [] if old["code"] == new["code"] else ["the code"]
    for package in sorted(old["versions"].keys() | new["versions"].keys()):
        was, now = (found["versions"].get(package, "none") for found in (old, new))
        if was != now:
            parts.append(f"{package} ({was} then, {now} now)")
    return ", ".join(parts)
