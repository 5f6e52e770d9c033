"""The house of docs/design.md: which way imports go, what is private, who knows an algorithm."""

import ast
import re

from common.files.names import ROOT

# From top to bottom, as in docs/design.md; but for the scripts, neighbours may import each other
FLOORS = [{"ddpg", "td3", "sac", "compare"}, {"comparison"}, {"training"}, {"pendulum"},
          {"flags", "presets"}, {"tasks"}, {"networks", "noise"}, {"engine"}, {"files"},
          {"process", "errors"}]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
         for path in [*ROOT.glob("*.py"), *(ROOT / "common").rglob("*.py")]}
ROOM_OF = {path: path.removeprefix("common/").split("/")[0].removesuffix(".py") for path in TREES}


def imports(tree):
    """(room, name) of each import of ours, late ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = f"{getattr(node, 'module', '')}.{alias.name}".removeprefix(".")
                room = name.removeprefix("common.").split(".")[0]
                if name.startswith("common.") or room in FLOORS[0]:
                    yield room, alias.name


def private_words(tree, context):
    """Private attributes that a module reads or assigns."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
            and re.match("_[^_]", node.attr) and isinstance(node.ctx, context)}


def test_imports_go_down():
    wrong = [f"{path} imports {other}" for path, tree in TREES.items() for other, _ in imports(tree)
             if FLOOR_OF[other] < max(FLOOR_OF[ROOM_OF[path]], 1)]
    assert not wrong


def test_nothing_private_leaves_its_room():
    defined = {}  # private name -> rooms
    for path, tree in TREES.items():
        names = {node.name for node in ast.walk(tree)
                 if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for name in names | private_words(tree, ast.Store):
            defined.setdefault(name, {ROOM_OF[path]}).add(ROOM_OF[path])
    for path, tree in TREES.items():
        taken = {name for room, name in imports(tree) if room != ROOM_OF[path]}
        assert not [name for name in taken if name.startswith("_")], path
        for name in private_words(tree, ast.Load):
            assert ROOM_OF[path] in defined.get(name, {ROOM_OF[path]}), f"{path} uses {name}"


def test_common_names_no_algorithm():
    for path in [path for path in TREES if path.startswith("common/")]:
        names = {value for node in ast.walk(TREES[path]) for _, value in ast.iter_fields(node)
                 if isinstance(value, str) and " " not in value}  # a text of one word may be one
        words = {word for name in names for word in re.split(r"\W|_", name.lower())}
        assert path == "common/presets.py" or not words & {"ddpg", "td3", "sac"}, path
