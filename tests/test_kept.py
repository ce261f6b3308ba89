"""What a learner has built comes along: `mine` in real kernels, one after another."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from autograder import cases, kept, mine, reference
from autograder.build import ThisInterpreter

HELPED = """
import numpy as np
from autograder import check, mine

SIGN = 1.0

def product(a, b):
    return SIGN * a @ b

def linear_forward(x, w, b):
    return product(x, w.T) + b

check(linear_forward)
"""
ASKED = """
import inspect, numpy as np
from autograder import mine
f = mine("linear_forward")
print(f(np.ones((1, 2)), np.ones((1, 2)), np.ones(1)), "product" in getattr(f, "__globals__", {}))
"""


@pytest.fixture
def home(tmp_path):
    return {key: value for key, value in os.environ.items() if key != "LAYER_BY_LAYER"} | {"HOME": str(tmp_path)}


def said(code, home, **more):
    done = subprocess.run([sys.executable, "-c", code], env=home | more, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def test_what_passed_its_check_is_there_in_the_next_kernel_with_the_helpers_it_uses(home):
    assert "linear_forward: the course's reference (PyTorch)" in said(ASKED, home)
    said(HELPED, home)
    answer = said(ASKED, home)
    assert "linear_forward: yours, which passed its check on" in answer and "[[3.]] True" in answer


def test_it_survives_a_restart_of_the_kernel(home):
    for source, expected in ((HELPED, "2 of 2 points"), (ASKED, "[[3.]] True")):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        client = NotebookClient(nb, kernel_manager_class=ThisInterpreter)
        assert expected in client.execute(env=home).cells[0].outputs[0].text


def test_the_latest_version_that_passed_counts_and_one_that_fails_changes_nothing(home):
    said(HELPED, home)
    failing = HELPED.replace("SIGN = 1.0", "SIGN = -1.0").replace("check(", "import sys\ntry: check(")
    said(failing + "\nexcept AssertionError: print('refused')", home)
    assert "[[3.]] True" in said(ASKED, home)
    said(HELPED.replace("product(x, w.T) + b", "x @ w.T + b"), home)
    assert "[[3.]] False" in said(ASKED, home)


def test_a_graded_run_takes_the_reference(home):
    said(HELPED, home)
    answer = said(ASKED, home, NBGRADER_EXECUTION="autograde")
    assert "the course's reference" in answer and "[[3.]] False" in answer


def test_a_damaged_file_is_told_and_replaced_by_the_reference(home, tmp_path):
    said(HELPED, home)
    (path,) = (tmp_path / ".layer-by-layer").glob("*/linear_forward")
    path.write_bytes(path.read_bytes()[:50])
    answer = said(ASKED, home)
    assert "the course's reference (PyTorch), since yours is damaged" in answer and "[[3.]] False" in answer


def test_a_passed_check_passes_also_where_nothing_can_be_kept(home, tmp_path):
    (tmp_path / ".layer-by-layer").write_text("in the way")
    answer = said(HELPED, home)
    assert "2 of 2 points" in answer and "can't be kept for later lessons" in answer and "Error" in answer


def test_an_answer_that_drags_a_data_set_along_is_not_kept(home):
    answer = said(HELPED.replace("SIGN = 1.0", "SIGN = np.ones((1000, 1000))[0, 0:1]; SIGN.base"), home)
    assert "can't be kept" not in answer  # a view is kept as what it shows
    big = HELPED.replace("SIGN = 1.0", "DATA = np.ones((1000, 1000)); SIGN = 1.0").replace("SIGN *", "DATA[0, 0] *")
    assert "it uses 8 MB of data from other cells" in said(big, home)


def test_the_reference_may_be_used_in_an_answer_and_is_found_again_by_name(home):
    said(
        "from autograder import check, mine\ninner = mine('linear_forward')\n"
        "def linear_forward(x, w, b):\n    product = 1\n    return inner(x, w, b)\ncheck(linear_forward)",
        home,
    )
    assert "yours" in said(ASKED, home)


def test_the_reference_itself_is_never_kept_as_somebodys_own(home, tmp_path):
    said("from autograder import check, mine\ncheck(mine('linear_forward'), 'linear_forward')", home)
    assert not (tmp_path / ".layer-by-layer").exists()


def test_what_is_shown_beside_figures_is_no_answer(home):
    said(
        "from autograder import examine, reference\n"
        "assert not examine(reference('linear_forward'), 'linear_forward').passed",
        home,
    )


def test_an_empty_setting_keeps_and_finds_nothing(home):
    said(HELPED, home)
    assert "reference" in said(ASKED, home, LAYER_BY_LAYER="")


def test_nothing_that_the_course_hands_out_holds_a_solution():
    """What `mine` gives where the learner has nothing is PyTorch's answer, not a NumPy one."""
    assert isinstance(mine("linear_backward"), cases.Reference)
    assert reference("linear_backward").entry.reference.__module__ == "autograder.exercises.linear"


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(KeyError, match="linear_forward"):
        mine("linear_forwrd")
    with pytest.raises(ValueError, match=r"torch\.nn"):
        mine("LinearFunction")


def test_a_folder_is_by_version_of_python(monkeypatch):
    monkeypatch.setenv("LAYER_BY_LAYER", "/somewhere")
    assert str(kept.place("f")) == f"/somewhere/{sys.version_info.major}.{sys.version_info.minor}/f"
