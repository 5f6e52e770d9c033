"""The map from the page to the code, and the errata, name only what exists.

Both are read as a reader sees them, and looked up in the sources' syntax trees; nothing is
imported but the module that makes flags of constants.
"""

import ast
import itertools
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from common import arguments

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ["ddpg.py", "td3.py", "sac.py"]
MAPS = ["docs/chapter-map.md", "docs/chapter-map.zh-CN.md"]
ERRATA = "docs/errata.md"

SECTIONS = ["6.1", "6.2", "6.3", "6.4", "6.4.1", "6.4.2", "6.5", "6.5.1", "6.5.2", "6.5.3", "6.5.4"]
ALGORITHMS = {"6.26": 17, "6.27": 16, "6.28": 15}  # steps in print, and one that 6.26 lacks
PRINTED = {  # every class of the listings, with its methods
    "common/replay_buffer.py": {"ReplayBuffer": "__init__ push sample __len__"},
    "ddpg.py": {
        "DDPG": "__init__ ema_update get_action learn store_transition save load "
        "__init__.get_actor __init__.get_critic __init__.copy_para",
    },
    "td3.py": {
        "QNetwork": "__init__ forward",
        "PolicyNetwork": "__init__ forward evaluate get_action sample_action",
        "TD3": "__init__ target_ini target_soft_update update save load",
    },
    "sac.py": {
        "SoftQNetwork": "__init__ forward",
        "PolicyNetwork": "__init__ forward evaluate get_action sample_action",
        "SAC": "__init__ target_ini target_soft_update update save load",
    },
}

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# Titles of columns, in both languages.
EQUATION, STATEMENT, CONSTANT = ("eq.", "公式"), ("statement", "语句"), ("constant", "常量")


# Python sources ------------------------------------------------------------------------------


@cache
def source_of(file):
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def tree_of(file):
    return ast.parse(source_of(file))


def find(file, name):
    """The node that a dotted name means in a file: class, function, constant or `__main__`."""
    node = tree_of(file)
    for part in name.split("."):
        node = next((child for child in node.body if part in names_of(child)), None)
        assert node is not None, f"{file} has no {name}"
    return node


def names_of(node):
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return ["__main__"]
    return []


@cache
def code_of(file, name):
    """The source of a name, or of the whole file without one, on one line, blanks as one."""
    whole = source_of(file)
    return one_line(ast.get_source_segment(whole, find(file, name)) if name else whole)


def one_line(text):
    return " ".join(text.split())


@cache
def flags_of(file):
    """Constant -> flag, as the script's --help has them."""
    namespace = {"__file__": str(ROOT / file)}
    namespace.update((name, None) for node in tree_of(file).body for name in names_of(node))
    return {constant.name: constant.flag for constant in arguments._read(namespace)[1]}


# Markdown ------------------------------------------------------------------------------------


@dataclass
class Target:
    """A place that a map leads to, with the statements quoted from it."""

    file: str
    name: str
    statements: list = field(default_factory=list)


def tables(text):
    """Each table of a Markdown text: (heading above it, header cells, rows of cells)."""
    heading, found = "", []
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("#"):
            heading = lines[0].lstrip("# ")
        if len(lines) > 2 and re.fullmatch(r"(\|-+)+\|", lines[1]):
            header, _, *rows = [cells(line) for line in lines]
            assert all(len(row) == len(header) for row in rows), f"a broken table in {heading}"
            found.append((heading, header, rows))
    return found


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def targets_of(text):
    """Every target of a map, in order."""
    found = []
    for _, header, rows in tables(text):
        column = next((i for i, title in enumerate(header) if title in STATEMENT), None)
        for row in rows:
            here = [target for cell in row for target in linked_places(cell)]
            found += here
            if column is not None and row[column] != "–":
                assert len(here) == 1, f"one place for its statements: {row}"
                here[0].statements = CODE.findall(row[column])
                assert here[0].statements, f"no statement: {row}"
    return found


def linked_places(text):
    """The Targets among the links of a text; each link leads to the file that it names."""
    found = []
    for label, address in LINK.findall(text):
        if re.fullmatch(r"`[\w/]+\.py(: [\w.]+)?`", label):
            file, _, name = label.strip("`").partition(": ")
            assert address == f"../{file}", f"{label} leads to {address}"
            found.append(Target(file, name))
    return found


def anchor(heading):
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(text):
    return {anchor(h) for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.fixture(params=MAPS)
def page(request):
    return (ROOT / request.param).read_text(encoding="utf-8")


# The map -------------------------------------------------------------------------------------


def test_places_and_statements_exist(page):
    targets = targets_of(page)
    assert len(targets) > 200
    for target in targets:
        source = code_of(target.file, target.name)
        for statement in target.statements:
            assert one_line(statement) in source, f"{target.file}: {target.name}: `{statement}`"


def test_links_lead_somewhere(page):
    errata = anchors((ROOT / ERRATA).read_text(encoding="utf-8"))
    own = anchors(page)
    for label, address in LINK.findall(page):
        file, _, place = address.partition("#")
        assert not file or (ROOT / "docs" / file).exists(), address
        if place:
            assert place in (errata if file == "errata.md" else own), address
        if re.fullmatch(r"E\d+", label):
            assert address == f"errata.md#{label.lower()}", label


def test_nothing_of_the_chapter_is_missing(page):
    headings = re.findall(r"^##+ (\S+)", page, re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    rows = [row for _, _, rows in tables(page) for row in rows]
    assert [row[0] for row in rows if re.fullmatch(r"\(6\.\d+\)", row[0])] == [
        f"(6.{number})" for number in range(1, 30)
    ]
    named = {(target.file, target.name) for target in targets_of(page)}
    for file, classes in PRINTED.items():
        for name, methods in classes.items():
            expected = {name, *(f"{name}.{method}" for method in methods.split())}
            assert {(file, place) for place in expected} <= named
    assert re.search("(table|表) 6.1", page, re.IGNORECASE)
    assert re.search("(theorem|定理) 6.1", page)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_line_of_an_algorithm(page, algorithm):
    [(_, _, rows)] = [t for t in tables(page) if re.search(rf"\b{algorithm} \(", t[0])]
    lines = [row[0] for row in rows if row[0]]
    assert lines == [str(n + 1) for n in range(ALGORITHMS[algorithm])]


def test_equations_without_code_say_so(page):
    equations = [rows for _, header, rows in tables(page) if header[0] in EQUATION]
    for row in itertools.chain(*equations):
        if row[0]:  # else the row before goes on
            assert bool(linked_places(row[2])) != bool(re.search("no code|没有代码", row[-1])), row


def test_constants(page):
    """Every constant of every script, with its value and its flag, and no other."""
    listed = {}
    for _, header, rows in tables(page):
        if header[1] not in CONSTANT:
            continue
        for _, name, *values, flag in rows:
            assert name not in listed
            listed[name.strip("`")] = [value.strip("`") for value in values], flag.strip("`")
    for i, file in enumerate(SCRIPTS):
        flags = flags_of(file)
        assert set(flags) == {name for name, (values, _) in listed.items() if values[i] != "–"}
        for name, flag in flags.items():
            values, listed_flag = listed[name]
            value = ast.literal_eval(find(file, name).value)
            assert (ast.literal_eval(values[i]), listed_flag) == (value, flag), name


def test_both_languages_agree():
    english, chinese = [(ROOT / name).read_text(encoding="utf-8") for name in MAPS]
    assert targets_of(english) == targets_of(chinese)

    def shape(text):
        _, *rest = tables(text)  # without the first, whose links are headings
        return [(len(header), [LINK.findall(row[-1]) for row in rows]) for _, header, rows in rest]

    assert shape(english) == shape(chinese)


# The errata ----------------------------------------------------------------------------------


def entries():
    """Number -> (title and files in the overview, title and text of the section)."""
    text = (ROOT / ERRATA).read_text(encoding="utf-8")
    [(_, _, rows)] = tables(text)
    overview = {LINK.fullmatch(row[0])[1]: (LINK.fullmatch(row[0])[2], *row[1:]) for row in rows}
    assert len(overview) == len(rows), "a number twice"
    sections = text.partition("\n## ")[2]
    parts = re.split(r"^### (E\d+)\n+\*\*(.+)\*\*\n", sections, flags=re.MULTILINE)
    found = list(zip(parts[1::3], parts[2::3], parts[3::3], strict=True))
    assert len({number for number, _, _ in found}) == len(found), "a section twice"
    return overview, {number: (title, body.partition("\n## ")[0]) for number, title, body in found}


OVERVIEW, SECTION = entries()


def test_the_overview_has_each_entry():
    assert set(OVERVIEW) == set(SECTION)
    assert sorted(OVERVIEW, key=lambda n: int(n[1:])) == [
        f"E{number}" for number in range(1, len(OVERVIEW) + 1)
    ]


@pytest.mark.parametrize("number", OVERVIEW)
def test_entry(number):
    address, title, where = OVERVIEW[number]
    assert address == f"#{number.lower()}"
    section_title, body = SECTION[number]
    assert section_title == title
    assert re.findall(r"^- (\w+):", body, re.MULTILINE) in (
        ["Printed", "Wrong", "Here"],
        ["Printed", "Effect", "Here"],
    )
    files = CODE.findall(where)
    for file in files:
        assert (ROOT / file).is_file(), file
    here = one_line(body.partition("- Here: ")[2])
    for quoted in CODE.findall(here):
        if re.fullmatch(r"[\w/]+\.(py|txt)", quoted):
            assert (ROOT / quoted).is_file(), quoted
        elif re.fullmatch(r"[A-Z]\w+\.\w+", quoted):
            assert_defined(quoted, files)
        elif re.fullmatch(r"[A-Z]+(_[A-Z]+)*( = .+)?", quoted):
            assert_defined(quoted.partition(" ")[0], files)
        elif quoted.startswith("--"):
            assert quoted.split()[0] in all_flags(), quoted
    # `file.py`, `name`: the name is in that file
    for file, name in re.findall(r"`([\w/]+\.py)`(?:, |: )`(\w+)[`(]", here):
        find(file, name)


def assert_defined(name, files):
    for file in files:
        try:
            return find(file, name)
        except AssertionError:
            continue
    raise AssertionError(f"{name} is in none of {files}")


@cache
def all_flags():
    flags = set(arguments._RUN)
    for file in SCRIPTS:
        for flag in flags_of(file).values():
            flags |= {flag, flag.replace("--", "--no-")}
    return flags
