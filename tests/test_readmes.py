"""README.md and its Chinese version say the same, and name only what exists."""

import ast
import re
from collections import Counter
from functools import cache
from itertools import zip_longest

import pytest
from test_chapter_map import CODE, LINK, ROOT, SCRIPTS, anchors, find, flags_of, source_of, tables
from test_environment import MINE

from common import arguments

READMES = ["README.md", "README.zh-CN.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IMAGE = re.compile(r"!\[[^\]]+\]\(([^)\s]+)\)")
NUMBER = re.compile(r"(?:(?<![\w)])-)?\d+(?:\.\d+)*")  # a minus, but not the hyphen of 0-9
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FOREIGN = {  # flags of others' programs
    "python3": {"--version"},
    "pytest": {"--cov"},
    "ray": {"--head", "--port", "--address"},
    "tensorboard": {"--logdir"},
}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(params=READMES)
def page(request):
    return read(request.param)


@pytest.fixture
def pages():
    return [read(name) for name in READMES]


# What both have --------------------------------------------------------------------------------


def code_blocks(text):
    """[(language, [commands])], without the comments, which are translated."""
    return [
        (language, [line.partition(" #")[0].rstrip() for line in body.splitlines()])
        for language, body in FENCED.findall(text)
    ]


def prose(text):
    """The text without code blocks and HTML comments."""
    return re.sub(r"<!--.*?-->", "", FENCED.sub("", text), flags=re.DOTALL)


def numbers(text):
    return NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))


def test_same_code_blocks(pages):
    english, chinese = map(code_blocks, pages)
    assert len(english) > 5
    assert english == chinese


def test_same_sections_and_placeholders(pages):
    english, chinese = [
        re.findall(r"^(#+)(?= )|^(@@.*@@)$", prose(text), re.MULTILINE) for text in pages
    ]
    assert len(english) > 8
    assert english == chinese


def test_same_images(pages):
    english, chinese = map(IMAGE.findall, pages)
    assert len(english) > 8
    assert english == chinese


def test_same_links(pages):
    """However often, and in whatever order: a sentence may be built the other way round."""
    english, chinese = [
        Counter(address.replace(".zh-CN", "") for _, address in LINK.findall(prose(text)))
        for text in pages
    ]
    assert len(english) > 10
    assert english == chinese


def test_same_tables(pages):
    english, chinese = [
        [[header, *rows] for _, header, rows in tables(prose(text))] for text in pages
    ]
    assert len(english) > 7
    for ours, theirs in zip_longest(english, chinese, fillvalue=[]):
        assert [len(row) for row in ours] == [len(row) for row in theirs], (ours[:1], theirs[:1])
        for row, other in zip(ours, theirs):
            assert list(map(numbers, row)) == list(map(numbers, other))


def test_same_numbers_in_each_section(pages):
    """Digits stay digits and words stay words, so that none is forgotten when it changes."""
    english, chinese = [re.split(r"^#+ ", prose(text), flags=re.MULTILINE) for text in pages]
    for ours, theirs in zip_longest(english, chinese, fillvalue=""):
        assert Counter(numbers(ours)) == Counter(numbers(theirs)), ours.partition("\n")[0]


def test_same_code_words(pages):
    """What is in backticks is typed, read on the screen or found in the code: not translated."""
    english, chinese = [Counter(CODE.findall(prose(text))) for text in pages]
    assert len(english) > 60
    assert english == chinese


# What exists -----------------------------------------------------------------------------------


def test_linked_and_shown_files_exist(page):
    addresses = {*IMAGE.findall(page), *(address for _, address in LINK.findall(page))}
    local = [address.partition("#") for address in addresses if "://" not in address]
    missing = {file for file, _, _ in local if file and not (ROOT / file).is_file()}
    assert not missing
    for file, _, place in local:
        assert not place or place in anchors(read(file) if file else page), f"{file}#{place}"


def test_named_files_exist(page):
    """In commands and in backticks: scripts, requirements, results of benchmarks."""
    names = set(re.findall(r"(?<![\w./-])[\w./-]+\.(?:py|txt|json)\b", page))
    assert len(names) > 15
    missing = {name for name in names if not (ROOT / name).is_file()}
    assert missing == {"mine.py"}  # the reader's own: the page shows it


def test_the_environment_of_ones_own_is_the_tested_one(page):
    (shown,) = [body for language, body in FENCED.findall(page) if language == "python"]
    assert shown == MINE


@cache
def all_flags():
    """Flags of each script, of compare.py and of each benchmark, by file; of others by program."""
    flags = dict(FOREIGN)
    for script in SCRIPTS:
        flags[script] = {"--help", *arguments._RUN}
        for constant, flag in flags_of(script).items():
            flags[script].add(flag)
            if isinstance(find(script, constant).value.value, bool):
                flags[script].add(flag.replace("--", "--no-"))
    for path in [ROOT / "compare.py", *ROOT.glob("benchmarks/*.py")]:
        file = path.relative_to(ROOT).as_posix()
        flags[file] = {"--help"} | {
            node.args[0].value
            for node in ast.walk(ast.parse(source_of(file)))
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        }
    flags["compare.py"] |= flags["ddpg.py"] | flags["td3.py"] | flags["sac.py"]
    return flags


def commands(text):
    """[(program, flags)] of every command in blocks and backticks."""
    lines = [line for _, block in code_blocks(text) for line in block]
    found = []
    for line in [*lines, *CODE.findall(prose(text))]:
        for command in line.split("&&"):
            programs = [word for word in command.split() if word in all_flags()]
            if programs and FLAG.search(command):
                found.append((programs[0], FLAG.findall(command)))
    return found


def test_commands_have_flags_that_their_program_has(page):
    found = commands(page)
    assert {"td3.py", "sac.py", "compare.py", "benchmarks/watching.py", "ray"} <= dict(found).keys()
    for program, flags in found:
        assert set(flags) <= all_flags()[program], program


def test_flags_exist(page):
    """Those named without a command, too."""
    mentioned = set(FLAG.findall(page))
    assert len(mentioned) > 30
    assert mentioned <= set().union(*all_flags().values())
