"""Every lesson in a real JupyterLab: cells run, figures appear, their controls, moved by keyboard, change them."""

import os

import nbformat
import pytest

from tests.lab import ROOT, Lab, chromium

SOLVED = sorted(ROOT.glob("solutions/*/*.ipynb"))
RELEASED = sorted(ROOT.glob("course/*/*.ipynb"))
FIRST_PAGE = sorted(ROOT.glob("course/*.ipynb"))


@pytest.fixture(scope="module")
def lab():
    """One server and one browser for all notebooks."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        unavailable("playwright is not installed")
    if not chromium():
        unavailable("chromium is not installed (Debian: apt-get install chromium)")
    with Lab() as lab:
        yield lab


def unavailable(reason):
    """At home a reason to skip; in continuous integration, where nobody reads skips, a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


# --- the lessons -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notebook", SOLVED, ids=names(SOLVED))
def test_a_solved_lesson_runs_and_its_figures_answer_the_keyboard(lab, notebook, capsys):
    report = lab.examine(notebook)
    with capsys.disabled():
        print(f"\n{notebook.name}: {report}")
    assert not report.faults, "\n".join(report.faults)
    assert report.figures >= 2, "a lesson has at least two interactive figures"
    assert report.predictions >= 1, "a lesson asks for a prediction at least once"


@pytest.mark.parametrize("notebook", RELEASED, ids=names(RELEASED))
def test_a_released_lesson_is_set_up(lab, notebook):
    report = lab.examine(notebook, only_first=True)
    assert not report.faults, "\n".join(report.faults)


@pytest.mark.parametrize("notebook", FIRST_PAGE, ids=names(FIRST_PAGE))
def test_a_page_of_the_course_runs(lab, notebook):
    report = lab.examine(notebook)
    assert not report.faults, "\n".join(report.faults)


# --- does the harness see faults? --------------------------------------------------------------------------------

SETUP = """
import os
import numpy as np
from IPython.display import HTML, Javascript
from course import plots
from course.widgets.explorer import Explorer, choice, slider, toggle
from course.widgets.picture import curve, heat
from course.widgets.predict import Predict
assert os.environ["COURSE_FAST"]
"""
GOOD = [
    """
def draw(k, kind, on):
    return heat(np.arange(3.0) * k + on, kind)
Explorer(draw, alt="three numbers", k=slider("k", 0, 5, 5), kind=choice("kind", ["a", "b"]), on=toggle("on"))
""",
    """
long = [f"a rather long option {n}" for n in range(9)]
Explorer(lambda which: heat(np.ones(2), which), alt="ones", which=choice("which", long))
""",
    'Predict("How many?", 1, lambda: heat(np.ones(1), "one"))',
    'Predict("Which?", "b", lambda: heat(np.ones(1), "b"), options=["a", "b"])',
    """
with plots.Training(3, "loss") as run:
    for loss in (3, 2, 1):
        run.log(loss)
""",
    'fig, ax = plots.figure(2, 1); plots.show(fig, alt="nothing")',
]
BAD = {
    "figure 1: its controls were moved by keyboard and no picture changed": """
Explorer(lambda k: heat(np.ones(2), "y"), alt="ones", k=slider("dead", 0, 3))
""",
    "figure 2 shows: ZeroDivisionError while drawing": """
Explorer(lambda k: heat(np.ones(2) / 2, "y") if k != 1 else 1 / 0, alt="ones", k=slider("k", 0, 3))
""",
    "a widget could not be shown": """
import ipywidgets, traitlets
class Foreign(ipywidgets.DOMWidget):
    _view_name = traitlets.Unicode("View").tag(sync=True)
    _view_module = traitlets.Unicode("no-such-module").tag(sync=True)
    _model_name = traitlets.Unicode("Model").tag(sync=True)
    _model_module = traitlets.Unicode("no-such-module").tag(sync=True)
Foreign()
""",
    "<img> without alternative text": "HTML(\"<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>\")",
    "<svg> without alternative text": "HTML(\"<svg width='9' height='9'></svg>\")",
    "thrown on purpose": "Javascript(\"setTimeout(() => { throw new Error('thrown on purpose') }, 0)\")",
    "prediction 1: nothing was revealed": """
question = Predict("Which?", 1, str)
question.button._click_handlers.callbacks.clear()
question
""",
}


def notebook(folder, cells):
    path = folder / "example.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
    return path


KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def code(source, **metadata):
    return nbformat.v4.new_code_cell(source.strip(), metadata=metadata)


def test_a_good_notebook_has_no_faults(lab, tmp_path):
    report = lab.examine(notebook(tmp_path, [code(source) for source in [SETUP, *GOOD]]))
    assert report.faults == [] and report.figures == 2 and report.predictions == 2
    assert [move.control for move in report.moves] == ["k", "kind", "on", "which"]
    assert all(0 < move.milliseconds < 3000 for move in report.moves)


@pytest.fixture(scope="module")
def faults(lab, tmp_path_factory):
    """What is said of a notebook that has every fault but an error in a cell."""
    cells = [code(source) for source in [SETUP, *BAD.values()]]
    return lab.examine(notebook(tmp_path_factory.mktemp("bad"), cells)).faults


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_is_seen(faults, fault):
    assert any(fault in line for line in faults), "\n".join(faults)


def test_nothing_else_is_called_a_fault(faults):
    assert [line for line in faults if not any(fault in line for fault in BAD) and "no-such-module" not in line] == []


def test_an_error_in_a_cell_is_seen_where_it_was_not_meant(lab, tmp_path):
    graded = {"nbgrader": {"grade": True, "grade_id": "f"}}
    cells = [
        code("1 / 0", tags=["raises-exception"]),  # a lesson may show an error
        code("[][0]", tags=["raises-exception"], **graded),  # but no check may fail in a solved one
        code("print(1)"),
        code("None.x"),
        code("print(2)"),
    ]
    faults = lab.examine(notebook(tmp_path, cells)).faults
    assert [line.split(":")[1].strip() for line in faults] == ["IndexError", "AttributeError"]
    assert faults[1].startswith("cell 3")


def test_only_the_first_code_cell_is_run_where_so_asked(lab, tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# Title"), code("x = 1"), code("1 / 0")]
    assert lab.examine(notebook(tmp_path, cells), only_first=True).faults == []
    cells[1] = code("import no_such_package")
    assert "ModuleNotFoundError" in lab.examine(notebook(tmp_path, cells), only_first=True).faults[0]


def test_the_original_is_not_written(lab, tmp_path):
    path = notebook(tmp_path, [code("print(1)")])
    before = path.read_bytes()
    lab.examine(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_screenshot_shows_the_whole_notebook(lab, tmp_path):
    from PIL import Image

    cells = [code("print('line\\n' * 100)"), code("1")]
    lab.examine(notebook(tmp_path, cells), screenshot=tmp_path / "all.png")
    with Image.open(tmp_path / "all.png") as picture:
        assert picture.size[1] > 1500


@pytest.mark.parametrize(("ci", "outcome"), [("1", pytest.fail.Exception), (None, pytest.skip.Exception)])
def test_a_missing_browser_fails_where_it_must_be_there(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci) if ci else monkeypatch.delenv("CI", raising=False)
    with pytest.raises(outcome, match="no browser"):
        unavailable("no browser")
