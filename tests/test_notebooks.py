"""What is taken from a student's file, and what is said about a damaged one."""

import copy
import json

import pytest

from autograder import notebooks
from autograder.notebooks import NotebookError, Released, Submission, parse_notebook
from autograder.sandbox import Cell

STUB = "def double(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
DONE = "def double(x):\n    return 2 * x"


def cell(source, kind="code", id=None, grade_id=None):
    metadata = {"nbgrader": {"grade_id": grade_id}} if grade_id else {}
    return {"cell_type": kind, "id": id, "source": source, "metadata": metadata}


def notebook(*cells):
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


SETUP = cell("import numpy as np\n%matplotlib inline\nfrom autograder import check\nrng = np.random", id="cell-01")
TEXT = cell("### Twice as much", kind="markdown", id="cell-02")
ANSWER = cell(STUB, id="double_answer", grade_id="double_answer")
CHECK = cell("check(double)", id="double", grade_id="double")
LESSON = notebook(SETUP, TEXT, ANSWER, CHECK, cell("import math\ntrain()", id="cell-05"))
RELEASED = Released(LESSON)
IMPORTS = Cell(None, "import numpy as np\nfrom autograder import check\nimport math")


def cells_of(nb, released):
    return notebooks.cells_of(Submission(nb, released))


def problems_of(nb, released):
    return notebooks.problems_of(Submission(nb, released))


def handed_in(*cells):
    return copy.deepcopy(notebook(*cells))


def answered(source=DONE, **changes):
    return {**cell(source, id="double_answer", grade_id="double_answer"), **changes}


class TestWhatIsGraded:
    def test_the_course_gives_its_import_statements_and_the_student_the_answers(self):
        assert cells_of(handed_in(SETUP, TEXT, answered(), CHECK), RELEASED) == [IMPORTS, Cell("double", DONE)]

    def test_what_earlier_lessons_have_built_comes_along_and_no_other_assignment(self):
        asks = cell("f = mine('f')\ng, h = mine('g'), mine('h')\nk = 3\nl, m = mine('l'), 3", id="cell-06")
        released = Released(notebook(SETUP, TEXT, ANSWER, CHECK, asks))
        (brought, _) = cells_of(handed_in(answered()), released)
        assert brought.source.splitlines()[-2:] == ["f = mine('f')", "g, h = (mine('g'), mine('h'))"]

    def test_added_code_cells_keep_their_place(self):
        nb = handed_in(cell("helper = 1"), answered(), cell("print(helper)"))
        own = Cell(None, "helper = 1"), Cell(None, "print(helper)")
        assert cells_of(nb, RELEASED) == [IMPORTS, own[0], Cell("double", DONE), own[1]]

    def test_the_course_s_own_cells_are_never_run_whether_edited_or_stripped_of_their_ids(self):
        edited = cell("import math\ntrain(epochs=10_000)", id="cell-05")
        nameless = cell("import math\ntrain()")
        assert cells_of(handed_in(answered(), edited, nameless), RELEASED) == [IMPORTS, Cell("double", DONE)]

    def test_check_cells_are_never_the_student_s(self):
        forged = cell("import sys; sys.displayhook('fine')", id="double", grade_id="double")
        assert cells_of(handed_in(answered(), forged), RELEASED) == [IMPORTS, Cell("double", DONE)]

    def test_an_answer_is_known_by_its_cell_id_where_an_editor_lost_the_metadata(self):
        for lost in ({"metadata": {}}, {"id": None, "metadata": {"id": "double_answer"}}):
            assert Cell("double", DONE) in cells_of(handed_in(answered(**lost)), RELEASED)

    def test_of_copies_the_last_changed_one_is_the_answer_and_earlier_ones_run_before_it(self):
        nb = handed_in(answered("def half(x): ..."), answered(), answered(STUB))
        assert cells_of(nb, RELEASED) == [IMPORTS, Cell(None, "def half(x): ..."), Cell("double", DONE)]

    def test_an_answer_turned_into_text_is_still_read(self):
        assert Cell("double", DONE) in cells_of(handed_in(answered(cell_type="markdown")), RELEASED)

    def test_a_source_given_as_a_list_of_lines_is_the_same_source(self):
        assert Cell("double", DONE) in cells_of(handed_in(answered(source=DONE.splitlines(True))), RELEASED)

    def test_a_missing_answer_leaves_no_cell(self):
        assert cells_of(handed_in(SETUP, CHECK), RELEASED) == [IMPORTS]

    @pytest.mark.parametrize("junk", [None, 1, [], {}, {"source": 5, "metadata": []}, {"metadata": {"nbgrader": 7}}])
    def test_junk_between_the_cells_is_passed_over(self, junk):
        assert cells_of(handed_in(junk, answered()), RELEASED) == [IMPORTS, Cell("double", DONE)]


class TestWhatIsSaid:
    def said(self, *cells):
        return problems_of(handed_in(*cells), RELEASED)

    def test_nothing_about_a_notebook_in_order(self):
        assert self.said(SETUP, TEXT, answered(), CHECK, cell("x = 1")) == []
        assert self.said(*LESSON["cells"]) == []

    def test_the_wrong_file(self):
        assert self.said(cell("x = 1")) == ["This notebook holds none of the lesson's exercises: is it the right file?"]

    @pytest.mark.parametrize(
        ("cells", "sentence"),
        [
            ([CHECK], "`double`: the exercise cell is missing"),
            ([answered(), answered(), CHECK], "`double`: there are 2 exercise cells; the last"),
            ([answered(cell_type="markdown"), CHECK], "`double`: the exercise cell became a markdown cell"),
            ([answered()], "`double`: the check cell was deleted"),
            ([answered(), CHECK, CHECK], "`double`: there are 2 check cells"),
            ([answered(), cell("5.0", grade_id="double")], "`double`: the check cell was altered"),
            ([answered(), CHECK, cell("", grade_id="conv2d_answer")], "The cell `conv2d_answer` belongs to no"),
            ([answered(), CHECK, cell("def mine(): ...", id="cell-05")], "`mine` is defined in a cell of the course"),
        ],
    )
    def test_one_sentence_for_each_damaged_cell(self, cells, sentence):
        (said,) = self.said(*cells)
        assert said.startswith(sentence) and said.endswith(".")


class TestFiles:
    def test_a_notebook_is_read_as_plain_data(self):
        assert parse_notebook(json.dumps(LESSON).encode()) == LESSON
        assert parse_notebook(b"\xef\xbb\xbf" + json.dumps(LESSON).encode()) == LESSON

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            (b"", "broken JSON in line 1"),
            (b'{"cells": [\n}', "broken JSON in line 2"),
            (b"\xff\xfe\x00", "no text in UTF-8"),
            (b"[" * 100_000, "nested too deeply"),
            (b"9" * 10_000, "a number too long"),
            (b"[]", "has no list of cells"),
            (b'{"cells": {}}', "has no list of cells"),
            (b'{"worksheets": []}', "has no list of cells"),
            (json.dumps({"cells": [{}] * 3000}).encode(), "has 3000 cells"),
            (json.dumps(notebook(cell("x" * 2_000_000))).encode(), "more than 1,000,000 characters"),
            (b" " * 33_000_000, "larger than 32 MB"),
            (b"[" + b"[]," * 1_000_000 + b"]", r"more than 200,000 times \["),
            (b"[" + b"0," * 3_000_000 + b"0]", "more than 2,000,000 times ,"),
        ],
    )
    def test_any_other_file_is_refused_in_one_sentence(self, data, sentence):
        with pytest.raises(NotebookError, match=sentence) as caught:
            parse_notebook(data)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
