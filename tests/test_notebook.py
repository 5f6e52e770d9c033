"""docs/chapter6.ipynb: it runs from top to bottom, and ships with the outputs of a full run.

Both languages say the same, and the checks of its exercises tell a right answer from a wrong one.
"""

import ast
import re
from collections import Counter

import nbformat
import pytest
from nbclient import NotebookClient

from common.files.names import ROOT
from docs.check import CODE, FENCED, NUMBER, ROW

NOTEBOOK = ROOT / "docs" / "chapter6.ipynb"
A_MACHINE = re.compile(r"(?<![\w.)\]])(/(home|root|Users|tmp|work|usr|opt|mnt)/|[A-Z]:\\)")
CHINESE = re.compile("[\u4e00-\u9fff]")
BETWEEN = "\n\n---\n\n"  # the languages of a text cell
SHARED = re.compile(r"^#+ .*$|^</?details>$|^<summary>.*</summary>$", re.MULTILINE)
SAME = {  # what both languages of a text cell have, as often
    "number": NUMBER,
    "code": CODE,
    "block": FENCED,
    "formula": re.compile(r"\$[^$]+\$"),
    "link": re.compile(r"\]\(([^)\s]+)\)"),
    "row": ROW,
    "bold": re.compile(r"\*\*"),
}
# Wrong answers, and what their checks say before any training
WRONG = {
    "check_1(ReplayBuffer)": "of 0 to 69, 20 are",
    "check_2(td3.TD3)": "the first update is TD3's own",
    "check_3(7)": "not a multiple of 4",
    # without the term of tanh, and without that of the range
    "check_4(lambda a, m, s, c: log_prob(a, m, s, c) + np.log(1 - (a / c) ** 2))": "integrals",
    "check_4(lambda a, m, s, c: log_prob(a, m, s, c) + np.log(c))": "integrals (积分) 1.000, 1.00",
    "check_4(lambda a, m, s, c: np.zeros_like(a) - np.log(2 * c))": "1.000, 1.000, 1.000; at most",
    "check_5(0)": "not above 0",
}
# Made-up trainings, by check and verdict: what over_seeds() measures, the same in every seed
MADE_UP = {
    ("check_1(NewestOnly)", True): "{'greedy return': -900}",
    ("check_1(NewestOnly)", False): "{'greedy return': -140}",
    ("check_2(LargerOfTwo)", True): "{'q': -80, 'real': -117, 'greedy return': -300}",
    ("check_2(LargerOfTwo)", False): "{'q': -130, 'real': -117, 'greedy return': -135}",
    ("check_3(8)", True): "{'greedy return': -1400 if c.get('POLICY_TARGET_UPDATE_INTERVAL') == 8 "
                          "else -140}",
    ("check_3(8)", False): "{'greedy return': -140}",
    ("check_3(16)", False): "{'greedy return': -1400}",
    ("check_5(0.1)", True): "{'entropy': -0.9, 'greedy return': -135}",
    ("check_5(0.1)", False): "{'entropy': -0.3, 'greedy return': -135}",
}


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def answers(notebook):
    return [cell for cell in code_cells(notebook) if "answer" in cell.metadata.get("tags", [])]


def plots(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def printed(cell):
    """All that the cell printed; pictures are left out."""
    outputs = cell.get("outputs", [])
    return "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs)


def complaints(cell):
    """The cell's outputs that are errors or warnings."""
    return [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_and_its_checks_can_fail(notebook, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    for cell in code_cells(notebook):
        cell.outputs = []
    own = code_cells(notebook)
    # Further cells: wrong answers, then what the checks say of made-up full trainings
    notebook.cells += [nbformat.v4.new_code_cell(call) for call in WRONG]
    notebook.cells.append(nbformat.v4.new_code_cell("QUICK = False"))
    for (call, _), measured in MADE_UP.items():
        notebook.cells.append(nbformat.v4.new_code_cell(
            "usual_td3 = lambda: {k: np.full((3, 3), v) for k, v in "
            "{'greedy return': -135, 'q': -130, 'real': -117}.items()}\n"
            "over_seeds = lambda *a, seeds=range(3), **c: {k: np.full((len(seeds), 3), float(v)) "
            f"for k, v in {measured}.items()}}\n{call}"))
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=900, resources=folder).execute()  # raises if a cell does

    for cell in own:
        assert plots(cell) == cell.source.count("plt.show()")
        assert complaints(cell) == []
    said = [printed(cell).splitlines()[-1].split()[:2] for cell in answers(notebook)]
    judged = ["passed", "(通过)"]
    assert said == [["not", "judged"]] * 3 + [judged] + [["not", "judged"]]
    added = code_cells(notebook)[len(own):]
    for cell, reason in zip(added, WRONG.values(), strict=False):
        assert reason in printed(cell), cell.source
        assert "not yet" in printed(cell), cell.source
    for cell, (_, right) in zip(added[len(WRONG) + 1:], MADE_UP, strict=True):
        assert ("passed" in printed(cell), "not yet" in printed(cell)) == (right, not right), (
            cell.source)


def test_every_cell_ships_with_its_plots_and_no_complaint(notebook):
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert plots(cell) == cell.source.count("plt.show()")
        assert complaints(cell) == []
    assert sum(plots(cell) for cell in code_cells(notebook)) >= 6  # one a section


def test_its_outputs_are_of_one_full_run(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    settings = re.search(r"STEPS = \d+ if QUICK else (\d+)", cells[0].source)
    assert f"{settings[1]} steps each" in printed(cells[-1])


def test_it_names_no_path_of_a_machine_and_is_small(notebook):
    for cell in notebook.cells:
        assert not A_MACHINE.search(cell.source + printed(cell))
        assert "execution" not in cell.metadata  # times of day
    assert NOTEBOOK.stat().st_size < 2_000_000


# Both languages


def differences(source):
    """What only one language of a text cell has: a list of texts."""
    headings = [line for line in SHARED.findall(source) if line.startswith("#")]
    found = [f"a heading in one language: {line}" for line in headings if not CHINESE.search(line)]
    parts = SHARED.sub("", source).split(BETWEEN)
    if len(parts) != 2:
        return [*found, f"{len(parts)} languages"]
    english, chinese = (re.sub(r"(?<=\d),(?=\d{3}\b)", "", part) for part in parts)
    if CHINESE.search(english) or not CHINESE.search(chinese):
        found.append("the first language is not English, or the second not Chinese")
    for what, pattern in SAME.items():
        one, other = (Counter(m[m.re.groups] for m in pattern.finditer(text))
                      for text in (english, chinese.replace(".zh-CN", "")))
        found += [f"only English: {what} {item}" for item in one - other]
        found += [f"only Chinese: {what} {item}" for item in other - one]
        links = what == "link" and [m[1] for m in pattern.finditer(chinese)]
        found += [f"leads to English: {link}" for link in links or []
                  if "://" not in link and ".zh-CN.md" not in link]
    return found


def test_both_languages_of_every_text_say_the_same(notebook):
    assert {cell.id: differences(cell.source) for cell in text_cells(notebook)} == {
        cell.id: [] for cell in text_cells(notebook)}


@pytest.mark.parametrize("change", [
    ("0.86", "0.68"), ("`f`", "`g`"), ("$x$", "$y$"), ("(b.zh-CN.md", "(c.zh-CN.md"),
    ("(b.zh-CN.md", "(b.md"), ("(标题)", ""), (BETWEEN, "\n\n"), ("#e1)", "#e2)"),
    ("是 0.86", "is 0.86"),
])
def test_a_difference_between_the_languages_is_found(change):
    source = f"## Title (标题)\n\nIs 0.86, `f`, $x$, [E1](b.md#e1).{BETWEEN}" \
             "是 0.86，`f`，$x$，[E1](b.zh-CN.md#e1)。"
    assert differences(source) == []
    before, _, after = source.rpartition(change[0])
    assert differences(before + change[1] + after)


def test_links_lead_somewhere(notebook):
    for cell in text_cells(notebook):
        for address in SAME["link"].findall(cell.source):
            file, _, place = address.partition("#")
            text = (NOTEBOOK.parent / file).read_text(encoding="utf-8")
            assert re.search(rf"^#+ {place}$", text, re.MULTILINE | re.IGNORECASE), address


def test_a_chinese_reader_can_follow_the_code(notebook):
    """Every docstring and every printed line of a table's head holds both languages."""
    for cell in code_cells(notebook):
        tree = ast.parse(cell.source)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
                assert CHINESE.search(ast.get_docstring(node)), node.name
        if "row(" in cell.source and "def row(" not in cell.source:
            assert CHINESE.search(printed(cell)), cell.id


# The exercises


def test_five_exercises_have_a_check_and_a_folded_answer_that_passes_it(notebook):
    cells, found = notebook.cells, answers(notebook)
    assert len(found) == 5
    for number, answer in enumerate(found, 1):
        where = cells.index(answer)
        task, check, text = cells[where - 3 : where]
        assert task.source.startswith(f"### Exercise {number}.")
        assert f"\ncheck_{number}(None)" in check.source
        assert "no answer yet" in printed(check)  # what is measured is said, nothing is trained
        assert "asked (要求)" in printed(check)
        assert text.source.startswith("<details>\n<summary>")
        assert text.source.endswith("</details>")
        # JupyterLab folds both; elsewhere they can be read
        assert answer.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
        assert answer.source.startswith("# An answer (一个答案)\n")  # the fold shows this line
        assert answer.source.splitlines()[-1].startswith(f"check_{number}(")
        assert printed(answer).splitlines()[-1] == "passed (通过)"


def test_the_answer_that_copies_an_update_is_td3s_but_for_the_marked_line(notebook):
    def update(source, class_name):
        """The method's statements, without docstring and comments."""
        owner = next(n for n in ast.parse(source).body if getattr(n, "name", "") == class_name)
        method = next(n for n in owner.body if getattr(n, "name", "") == "update_networks")
        return ast.unparse([*method.decorator_list, method.args, *method.body[1:]])

    own = update((ROOT / "td3.py").read_text(encoding="utf-8"), "TD3")
    one, other = "tf.minimum(self.target_q_net1", "tf.maximum(self.target_q_net1"
    assert one in own
    copied = update(answers(notebook)[1].source, "LargerOfTwo")
    assert copied == own.replace(one, other), "copy TD3.update_networks again, and change its line"
