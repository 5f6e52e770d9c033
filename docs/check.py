"""What the documents say of the code, checked: `python docs/check.py`.

One line for each thing that is not so, with file, line and what to change; then the status is 1.
The code is read, not run: nothing need be installed.
"""

import ast
import contextlib
import difflib
import io
import re
import sys
from collections import Counter
from functools import cache
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.flags import Command, Constant  # noqa: E402

SCRIPTS = ["ddpg.py", "td3.py", "sac.py"]
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")
PLACE = re.compile(r"\[`([\w/]+\.py)(?:: ([\w.]+))?`\]\(([^)\s]+)\)")  # a link into the code
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$|<!--.*?-->", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?:(?<![\w)])-)?\d+(?:\.\d+)*")  # a minus, but not the hyphen of 0-9
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FILE = re.compile(r"(?<![\w./-])[\w/-][\w./-]*\.(?:py|txt|json)\b")
ROW = re.compile(r"^\|", re.MULTILINE)
OTHERS = {"mine.py", "mytd3.py", "spin.py", "angle.py", "apart.py", "platform.py",
          "estimate.py", "alpha.py", "price.py"}  # a reader's own files
FOREIGN = {  # flags of others' programs
    "python3": {"--version"},
    "pytest": {"--cov"},
    "ray": {"--head", "--port", "--address"},
    "tensorboard": {"--logdir"},
}
# Titles of columns, in both languages
STATEMENT, CONSTANT = ("statement", "语句"), ("constant", "常量")
# What an entry of the errata says, in both languages
PARTS = re.compile(r"^- (?:Printed:|书中：).*^- (?:Wrong:|Effect:|问题：|影响：).*"
                   r"^- (?:Here:|这里：)(.*)", re.MULTILINE | re.DOTALL)
# The page's order: that of the rows of these sections, and of what they lead to in the scripts
LISTING = re.compile(r"6\.5\.[234] ")

found = []


class Page:
    """A Markdown file; `prose` is its text with code blocks and comments blank."""

    def __init__(self, path):
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")
        self.prose = FENCED.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), self.text)
        self.blocks = [match for match in FENCED.finditer(self.text) if match[2] is not None]
        headings = re.finditer(r"^(#+) (.+)$", self.prose, re.MULTILINE)
        self.headings = [(match.start(), match[2]) for match in headings]
        self.anchors = [anchor(heading) for _, heading in self.headings]

    def say(self, place, problem):
        """Note a problem at a place in the text."""
        found.append(f"{self.name}:{self.text.count(chr(10), 0, place) + 1}: {problem}")

    def rows(self):
        """(place, heading above, cells of the header, cells) of each row of a table."""
        header, above = None, ""
        for match in re.finditer(r"^.*$", self.prose, re.MULTILINE):
            line = match[0].strip()
            above = line.lstrip("# ") if line.startswith("#") else above
            if not line.startswith("|"):
                header = None
                continue
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if header is None:
                header = cells
            elif not set(line) <= set("|-"):
                if len(cells) != len(header):
                    self.say(match.start(), f"{len(cells)} cells, the header has {len(header)}")
                yield match.start(), above, header, cells

    def sections(self):
        """(place, heading, text) of each section, the code blocks left out."""
        starts = [(0, ""), *self.headings]
        for (place, heading), (end, _) in zip_longest(starts, starts[1:], fillvalue=(None, "")):
            yield place, heading, self.prose[place:end]


page_at = cache(Page)  # of a path


def anchor(heading):
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# The code


@cache
def source_of(file):
    return (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""


@cache
def tree_of(file):
    return ast.parse(source_of(file))


def find(file, name):
    """The node of a dotted name in a file (class, function, constant or `__main__`), or None."""
    node = tree_of(file)
    for part in name.split(".") if name else []:
        node = node and next((child for child in node.body if part in names_of(child)), None)
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


def one_line(text):
    return " ".join(text.split())


@cache
def flags():
    """The flags of each program of ours, by file, and of others', by name."""
    known = dict(FOREIGN)
    for script in SCRIPTS:
        with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
            Command(ROOT / script).read(["--help"])
        known[script] = set(FLAG.findall(shown.getvalue()))
    for path in [ROOT / "compare.py", *ROOT.glob("benchmarks/*.py")]:
        file = path.relative_to(ROOT).as_posix()
        known[file] = {"--help"} | {
            node.args[0].value for node in ast.walk(tree_of(file))
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
            and isinstance(node.args[0], ast.Constant)  # not one handed on to a browser
        }
    known["compare.py"] |= set().union(*(known[script] for script in SCRIPTS))
    return known


# Every page


def target_of(page, address):
    """What a link leads to: (path, its anchors in their order, the anchor named)."""
    file, _, place = address.partition("#")
    path = ((ROOT / page.name).parent / file).resolve() if file else ROOT / page.name
    return path, page_at(path).anchors if path.is_file() and path.suffix == ".md" else [], place


def check_links(page):
    for match in LINK.finditer(page.prose):
        label, address = match.groups()
        if "://" in address:
            continue
        path, anchors, place = target_of(page, address)
        if not path.exists():
            page.say(match.start(), f"the link {address} leads nowhere: mend or delete it")
        elif place and place not in anchors:
            near = difflib.get_close_matches(place, anchors, n=1)
            hint = f": write #{near[0]}" if near else ""
            page.say(match.start(), f"{path.name} has no heading #{place}{hint}")
        if re.fullmatch(r"E\d+", label) and place != label.lower():
            page.say(match.start(), f"{label} leads to #{place}: write #{label.lower()}")


def check_names(page):
    """Files and flags that are named, and the flags of each command."""
    folders = [ROOT, *(ROOT / "common").glob("**")]
    for match in FILE.finditer(page.text):
        there = any((folder / match[0]).is_file() for folder in folders)
        if not there and match[0] not in OTHERS:
            page.say(match.start(), f"there is no file {match[0]}: write its present name")
    every = set().union(*flags().values())
    for match in FLAG.finditer(page.text):
        if match[0] not in every:
            page.say(match.start(), f"no program here has {match[0]}: write the present flag")
    lines = [(block.start(2) + line.start(), line[0].partition(" #")[0])
             for block in page.blocks for line in re.finditer(r"^.+$", block[2], re.MULTILINE)]
    lines += [(match.start(), match[1]) for match in CODE.finditer(page.prose)]
    for place, line in lines:
        for command in line.split("&&"):
            program = next((word for word in command.split() if word in flags()), None)
            for flag in FLAG.findall(command) if program else []:
                if flag in every and flag not in flags()[program]:
                    page.say(place, f"{program} has no {flag}: write a flag that it has")


# Both languages


def contents(page, text):
    """(what, item) of all in a text that does not depend on the language."""
    for _, address in LINK.findall(text):
        _, anchors, place = target_of(page, address)
        heading = f", heading {anchors.index(place) + 1}" if place in anchors else ""
        yield "link", address.partition("#")[0].replace(".zh-CN", "") + heading
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    for what, pattern in ("number", NUMBER), ("code", CODE), ("row of a table", ROW):
        for match in pattern.finditer(text):
            yield what, one_line(match[pattern.groups])


def check_same(english, chinese):
    """Digits, code, links, images and tables: the same in each section of both languages."""
    both = zip_longest(english.sections(), chinese.sections(), fillvalue=(0, "(none)", ""))
    for (_, heading, ours), (place, _, theirs) in both:
        one, other = Counter(contents(english, ours)), Counter(contents(chinese, theirs))
        for extra, where in (one - other, english), (other - one, chinese):
            for what, item in extra:
                chinese.say(place, f"section {heading!r}: only {where.name} has the {what} {item}: "
                                   "change one of the two")
    blocks = [[[line.partition(" #")[0].rstrip() for line in block[2].splitlines()]
               for block in page.blocks] for page in (english, chinese)]
    for number, (one, other) in enumerate(zip_longest(*blocks), 1):
        if one != other:
            chinese.say(0, f"code block {number} is not that of {english.name}: copy it")


# The READMEs


def check_example(page):
    """What a reader copies is tested, as the listings of docs/environments.md are."""
    for block in page.blocks:
        if block[1] == "python" and block[2] not in page_at(ROOT / "docs/environments.md").text:
            page.say(block.start(), "this code is not in docs/environments.md: copy one")


# The results


def check_results(page):
    """The tables of comparisons are those that compare.py wrote beside the pictures, each shown."""
    for file in sorted(ROOT.glob("docs/pictures/compare_*.md")):
        table, picture = file.read_text(encoding="utf-8").strip(), f"(pictures/{file.stem}.png)"
        if table not in page.text or picture not in page.text:
            page.say(0, f"{file.stem} is not here as it is in docs/pictures: copy its table")


# The map


def check_places(page):
    """The places that rows lead to, and the statements quoted from them, in their order."""
    last = {}  # what was seen of a section and file, or of a section and place

    def in_order(at, what, *key):
        if not LISTING.match(key[0]) or key[1] not in SCRIPTS:
            return
        if at < last.get(key, 0):
            page.say(start, f"{key[1]} has {what} above that of an earlier row, the page has it "
                            "below: move one of the two")
        last[key] = at

    for start, heading, header, cells in page.rows():
        places = PLACE.findall(" ".join(cells))  # file, name or "", address
        column = next((i for i, title in enumerate(header) if title in STATEMENT), None)
        quoted = [] if column is None else [one_line(code) for code in CODE.findall(cells[column])]
        if quoted and len(places) != 1:
            page.say(start, f"{len(places)} places for its statements: split the row")
        for file, name, address in places:
            node = find(file, name)
            if address != f"../{file}":
                page.say(start, f"{file} is linked to {address}: write ../{file}")
            elif node is None:
                page.say(start, f"{file} has no {name}: write what it is called now")
            elif not quoted:
                in_order(getattr(node, "lineno", 0), name, heading, file)
            else:
                source = source_of(file)
                source = source if node is tree_of(file) else ast.get_source_segment(source, node)
                code = one_line(source)
                for statement in quoted:
                    if statement in code:
                        in_order(code.index(statement), f"`{statement}`", heading, file, name)
                    else:
                        lines = map(str.strip, source.splitlines())
                        near = difflib.get_close_matches(statement, lines, n=1)
                        hint = f" `{near[0]}`" if near else " what it is now"
                        page.say(start, f"{file}: {name} has no `{statement}`: write{hint}")


def check_constants(page):
    """Every constant of every script, with its value and its flag, and no other."""
    values = {}  # name -> [value in each script, or None]
    for i, script in enumerate(SCRIPTS):
        for name, value in Command(ROOT / script).settings().everything.items():
            values.setdefault(name, [None] * len(SCRIPTS))[i] = repr(value)
    del values["ALG_NAME"]
    place = 0
    for start, _, header, cells in page.rows():
        if header[1] not in CONSTANT:
            continue
        place, name = start, cells[1].strip("`")
        if name not in values:
            page.say(start, f"no script has {name}, or it is here twice: delete the row")
            continue
        flag = Constant(name, "", "").flag
        if cells[-1] != f"`{flag}`":
            page.say(start, f"the flag of {name} is `{flag}`: write that")
        for script, value, cell in zip(SCRIPTS, values.pop(name), cells[2:-1]):
            listed = None if cell == "–" else repr(ast.literal_eval(cell.strip("`")))
            if listed != value:
                page.say(start, f"{name} of {script} is {value}, not {listed}: write that")
    for name, held in values.items():
        page.say(place, f"no row for {name}, {held}: add one")


# The errata


def check_errata(page):
    """Each entry is in the overview and a section; what it says of the code here exists."""
    overview = {}
    for start, _, _, (number, title, where) in page.rows():
        overview[LINK.sub(r"\1", number)] = start, title, CODE.findall(where)
    numbers = sorted(int(number[1:]) for number in overview)
    if numbers != list(range(1, len(numbers) + 1)):
        page.say(0, f"the overview has entries {numbers}: each number once, none left out")
    for start, number, text in page.sections():
        if not re.fullmatch(r"E\d+", number):
            continue
        place, title, files = overview.pop(number, (start, None, []))
        own = re.search(r"^\*\*(.+)\*\*$", text, re.MULTILINE)
        if own is None or own[1] != title:
            page.say(place, f"{number} has another title in its section: write the same")
        parts = PARTS.search(text)
        if parts is None:
            page.say(start, f"{number}: say '- Printed:', '- Wrong:' or '- Effect:', '- Here:'")
        here = one_line(parts[1] if parts else "")
        named = re.findall(r"`([\w/]+\.py)`(?:, |: |，|：)`(?!\w+\.py`)([\w.]+)[`(]", here)
        for quoted in CODE.findall(here):
            if re.fullmatch(r"[A-Z]\w+\.\w+|[A-Z]+(_[A-Z]+)*( = .+)?", quoted):
                name = quoted.split()[0]
                if not any(find(file, name) for file in files):
                    page.say(start, f"{number}: none of {files} has {name}: write its present name")
        for file, name in named:
            if find(file, name) is None:
                page.say(start, f"{number}: {file} has no {name}: write its present name")
    for number, (place, _, _) in overview.items():
        page.say(place, f"{number} has no section: write one")


CHECKS = {
    "README": [check_example],
    "docs/chapter-map": [check_places, check_constants],
    "docs/errata": [check_errata],
    "docs/results": [check_results],
}


def main():
    paths = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    for path in paths:
        page = page_at(path)
        check_links(page)
        check_names(page)
        document = page.name.removesuffix(".md").removesuffix(".zh-CN")
        for check in CHECKS.get(document, []):
            check(page)
        chinese = ROOT / f"{document}.zh-CN.md"
        if not chinese.is_file():
            page.say(0, f"there is no {document}.zh-CN.md: write it")
        elif path != chinese:
            check_same(page, page_at(chinese))
    print("\n".join(found) or f"{len(paths)} documents say what is so.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
