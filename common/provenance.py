"""What a run's numbers depend on besides its constants: its code, and the packages that compute."""

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
from importlib.machinery import PathFinder
from modulefinder import ModuleFinder
from pathlib import Path

from common.files import plain_env_id

PACKAGES = ("tensorflow", "keras", "tensorlayer", "tensorflow-probability", "numpy", "gym",
            "gymnasium", "mujoco", "box2d")
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def provenance(script, env_id=""):
    """The code that a script runs, and the versions of the packages that it computes with.

    Code is the script, the modules beside it that it imports, and the module of an env_id
    `module:ID` (all of a package; of a module in the current folder also what it imports from
    there). Comments, docstrings and layout do not count, nor does where the files lie.

    Args:
        script: str or Path of the script.
        env_id: as --env takes it.

    Returns:
        dict for JSON: code (hexadecimal digest), versions (dict from package to version).
    """
    script = Path(script).resolve()
    parts = [(script.parent, _imported(script.stem, script.parent))]
    module = plain_env_id(env_id).rpartition(":")[0].partition(".")[0]
    parts += [_environment(module)] if module else []
    code = [(path.relative_to(folder).as_posix(), _plain(path))
            for folder, files in parts for path in sorted(files) if path.is_file()]
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"code": hashlib.sha256(repr(code).encode()).hexdigest(), "versions": versions}


def changed(old, new):
    """What differs between two provenances, in words; "" if nothing does."""
    parts = [] if old["code"] == new["code"] else ["the code"]
    for package in sorted(old["versions"].keys() | new["versions"].keys()):
        was, now = (found["versions"].get(package, "none") for found in (old, new))
        if was != now:
            parts.append(f"{package} ({was} then, {now} now)")
    return ", ".join(parts)


def _imported(module, folder):
    """The files in a folder that a module there consists of and imports, in a function or not."""
    finder = ModuleFinder([str(folder)])
    with contextlib.suppress(ImportError, SyntaxError, ValueError):  # running it will say so
        finder.import_hook(module)
    return {Path(found.__file__) for found in finder.modules.values() if found.__file__}


def _environment(module):
    """The folder and the files of a module that registers an environment."""
    here, spec = Path.cwd().resolve(), None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module) or PathFinder.find_spec(module, [str(here)])
    if spec is None:
        return here, set()
    folders = spec.submodule_search_locations
    top = Path(folders[0] if folders else spec.origin).resolve()
    files = {*top.rglob("*.py")} if folders else {top}
    return top.parent, files | (_imported(module, here) if top.parent == here else set())


def _plain(path):
    """A file's code, without comments, docstrings and layout."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # not Python of this version
        return repr(content)
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree)
