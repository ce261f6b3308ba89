"""The gradebook's rows, beside those of nbgrader's own steps; and what a large class asks of it."""

import sqlite3
from datetime import datetime

import nbformat
import pytest
from nbgrader.api import Gradebook as StockGradebook
from nbgrader.preprocessors import AssignLatePenalties, SaveAutoGrades
from traitlets.config import Config

from autograder import batch
from autograder.gradebook import PATIENCE, Gradebook
from autograder.nbgrader import Autograde, Lesson, outputs
from autograder.notebooks import ANSWER
from autograder.sandbox import Cell
from tests.test_batch import course_in, rows
from tests.test_nbgrader import FULL, LESSON, NONE, RIGHT, released

DUE = datetime(2026, 5, 1, 12)
EARLY, LATE = datetime(2026, 5, 1, 11), datetime(2026, 5, 2, 11, 30)
PARTLY = FULL | {"linear_backward": 4.0}
PAPERS = {  # when it was handed in, its scores, and the exercises that were answered
    "early": (EARLY, FULL, RIGHT),
    "late": (LATE, PARTLY, RIGHT),
    "undated": (None, PARTLY, RIGHT),
    "blank": (EARLY, NONE, {}),
    "half": (LATE, PARTLY, {"linear_forward": RIGHT["linear_forward"]}),
}
SETTINGS = Config({"LateSubmissionPlugin": {"penalty_method": "zero"}})


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return course_in(tmp_path_factory.mktemp("course"))


@pytest.fixture
def empty(course, tmp_path):
    """The address of a gradebook that knows the lesson and nobody's work."""
    source = sqlite3.connect(course.root / "gradebook.db")
    copy = sqlite3.connect(tmp_path / "gradebook.db")
    source.backup(copy)
    source.close()
    copy.close()
    return f"sqlite:///{tmp_path / 'gradebook.db'}"


def save(course, gradebook, papers):
    """Saves papers as the converter does."""
    lesson, sheet = Lesson(released(course)), gradebook.sheet(LESSON)
    app = batch.app_at(course.root)
    autograde = Autograde(coursedir=app.coursedir, parent=app)
    autograde.late = AssignLatePenalties(config=SETTINGS)
    autograde.late.init_plugin()
    for student, (timestamp, scores, written) in papers.items():
        cells = [Cell(None, ""), *(Cell(name, source) for name, source in written.items())]
        gradebook.save(sheet, student, timestamp, scores, lesson.comments(cells), autograde.penalty)


def save_as_nbgrader_does(course, db_url, papers):
    """The same through nbgrader's own preprocessors, on the notebooks that the converter writes."""
    lesson = Lesson(released(course))
    for student, (timestamp, scores, written) in papers.items():
        cells = [Cell(None, ""), *(Cell(name, source) for name, source in written.items())]
        checks = {name: outputs("report", score) for name, score in scores.items()}
        nb = nbformat.reads(lesson.text(cells, checks, [], {}), as_version=4)
        with StockGradebook(db_url, "layer-by-layer") as gradebook:
            gradebook.update_or_create_student(student)
            gradebook.update_or_create_submission(LESSON, student, timestamp=timestamp)
        ids = {"student": student, "assignment": LESSON, "notebook": LESSON, "db_url": db_url}
        for step in (SaveAutoGrades(), AssignLatePenalties(config=SETTINGS)):
            nb, _ = step.preprocess(nb, {"nbgrader": ids})


def grades_by_hand(db_url):
    with StockGradebook(db_url, "layer-by-layer") as gradebook:
        grade = gradebook.find_grade("linear_backward", LESSON, LESSON, "early")
        grade.manual_score, grade.needs_manual_grade, grade.extra_credit = 5.5, False, 0.5
        gradebook.find_comment(f"linear_forward{ANSWER}", LESSON, LESSON, "early").manual_comment = "neat"
        gradebook.db.commit()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of nbgrader's own
def test_rows_equal_those_of_nbgraders_own_steps_the_first_time_and_again(course, empty, tmp_path):
    (tmp_path / "stock").mkdir()
    (tmp_path / "stock" / "gradebook.db").write_bytes((tmp_path / "gradebook.db").read_bytes())
    stock = f"sqlite:///{tmp_path / 'stock' / 'gradebook.db'}"
    again = {"early": (LATE, PARTLY, RIGHT), "late": (EARLY, NONE, {})}
    for papers in (PAPERS, again):
        with Gradebook(empty, "layer-by-layer") as gradebook:
            save(course, gradebook, papers)
        save_as_nbgrader_does(course, stock, papers)
        assert rows(tmp_path) == rows(tmp_path / "stock")
        grades_by_hand(empty)
        grades_by_hand(stock)
    penalties = {row[0]: row[2] for row in rows(tmp_path)}
    assert (penalties["early"], penalties["late"], penalties["half"]) == (10.0, None, 8.0)


def test_a_save_that_fails_half_way_leaves_nothing(course, empty, tmp_path):
    def fails(submission, notebook):
        raise ArithmeticError

    with Gradebook(empty, "layer-by-layer") as gradebook:
        sheet = gradebook.sheet(LESSON)
        comments = dict.fromkeys(sheet.comments)
        with pytest.raises(ArithmeticError):
            gradebook.save(sheet, "late", LATE, FULL, comments, fails)
        assert gradebook.scores(sheet, "late") == {}
        gradebook.save(sheet, "late", LATE, FULL, comments, lambda *rows: None)
        assert gradebook.scores(sheet, "late") == {name: (score, None) for name, score in FULL.items()}
    assert len(rows(tmp_path)) == 1


def test_nothing_of_a_saved_submission_stays_in_memory(course, empty):
    with Gradebook(empty, "layer-by-layer") as gradebook:
        save(course, gradebook, PAPERS)
        assert not list(gradebook.db().identity_map)


def test_rows_are_found_by_index_and_another_writer_is_waited_for(empty):
    with Gradebook(empty, "layer-by-layer") as gradebook:
        connection = gradebook.db.connection().connection.dbapi_connection
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (PATIENCE * 1000,)
        for table in ("grade", "comment"):
            (plan,) = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT id FROM {table} WHERE notebook_id = 'x'"
            ).fetchall()
            assert f"USING INDEX ix_{table}_notebook_id" in plan[3]
