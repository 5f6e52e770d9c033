"""What a run's numbers depend on besides its constants: its code, and the packages that compute.

Found without running any of it, in a fifth of a second.
"""

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
from importlib.machinery import PathFinder
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
    found = _sources([script], script.parent)
    module = plain_env_id(env_id).rpartition(":")[0].partition(".")[0]
    found = [*found.items(), *(_environment(module).items() if module else ())]
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    code = hashlib.sha256(repr(sorted(found)).encode("utf-8", "backslashreplace"))
    return {"code": code.hexdigest(), "versions": versions}


def changed(old, new):
    """What differs between two provenances, in words; "" if nothing does."""
    parts = [] if old["code"] == new["code"] else ["the code"]
    for package in sorted(old["versions"].keys() | new["versions"].keys()):
        was, now = (found["versions"].get(package, "none") for found in (old, new))
        if was != now:
            parts.append(f"{package} ({was} then, {now} now)")
    return ", ".join(parts)


def _environment(module):
    """The sources of a module that registers an environment, as _sources() gives them."""
    here, spec = Path.cwd(), None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module) or PathFinder.find_spec(module, [str(here)])
    if spec is None:
        return {}
    folders = [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    if not folders and str(spec.origin).endswith(".py"):
        files = [Path(spec.origin).resolve()]
    if not files:
        return {}
    root = folders[0].parent if folders else files[0].parent
    return _sources(files, root, follow=root == here.resolve())


def _sources(files, root, follow=True):
    """Dict from path below `root` to what files say and, if followed, all that they import there.

    Files that cannot be read as Python count with their bytes: running them will say what is wrong.
    """
    found, left = {}, list(files)
    while left:
        path = left.pop()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else None
        if name is None or name in found:
            continue
        source = b""
        try:
            source = path.read_bytes()
            tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError):
            found[name] = repr(source)
            continue
        found[name] = repr(_plain(tree))
        if follow:
            left += _imported(tree, path, root)
    return found


def _imported(tree, path, root):
    """The files below `root` that a module at `path` imports, also inside its functions."""
    for node in ast.walk(tree):
        names, base = [], root
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else root
            above = f"{node.module}." if node.module else ""
            names = [above + alias.name for alias in node.names]  # of a module, or in one
        for name in names:
            parts = name.split(".")
            for n in range(1, len(parts) + 1):
                module = base.joinpath(*parts[:n])
                for file in (module.with_name(f"{module.name}.py"), module / "__init__.py"):
                    if file.is_file():
                        yield file


def _plain(node):
    """A syntax tree as nested lists, without docstrings and places, in every Python the same."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _WITH_DOCSTRING):
        fields["body"] = node.body[ast.get_docstring(node, clean=False) is not None :]
    # What is empty is left out: newer Pythons have more fields.
    full = {k: _plain(v) for k, v in fields.items() if v is not None and v != []}
    return [type(node).__name__, *full.items()]
