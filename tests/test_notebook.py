"""docs/chapter6.ipynb: it runs from top to bottom, and ships with the outputs of a full run."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "chapter6.ipynb"
A_MACHINE = re.compile(r"(?<![\w.)\]])(/(home|root|Users|tmp|work|usr|opt|mnt)/|[A-Z]:\\)")


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


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
def test_it_runs_from_top_to_bottom(notebook, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    for cell in code_cells(notebook):
        cell.outputs = []
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=900, resources=folder).execute()  # raises if a cell does
    for cell in code_cells(notebook):
        assert plots(cell) == cell.source.count("plt.show()")
        assert complaints(cell) == []


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


@pytest.mark.parametrize("path", ["/home/me/ddpg.py", 'File "/tmp/x"', r"C:\Users\me"])
def test_paths_of_a_machine_are_recognised(path):
    assert A_MACHINE.search(path)
