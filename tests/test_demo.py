"""The sample class: each student gets the score that the script means, through nbgrader's own commands."""

import contextlib
import io
from pathlib import Path

import pytest

from autograder import batch, demo
from autograder.exercise import load_registry
from autograder.grade import examine

ROOT = Path(__file__).parents[1]
GRADED = [entry for entry in load_registry().values() if entry.lesson in ("linear", "activations", "losses")]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The folder of a demo that has been run, with all it printed and its exit status."""
    root, printed = tmp_path_factory.mktemp("demo") / "demo", io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = demo.demo(ROOT, root)
    return root, printed.getvalue(), status


def meant(paper):
    """The scores that a paper is meant to get: a wrong implementation is worth what it gets right."""
    return {
        exercise: examine(worth, exercise, seed=1).points if callable(worth) else worth
        for exercise, worth in paper.worth.items()
    }


def test_every_student_gets_the_score_that_is_meant(graded):
    root, _, status = graded
    course = batch.course_at(root)
    names = sorted(path.name for path in (root / "solutions").iterdir())
    assert len(names) == 3
    for number, name in enumerate(names):
        standing = batch.standing_of(course, name)
        papers = demo.papers(demo.lesson_at(root, name), number)
        want = {student: pytest.approx(meant(paper)) for student, paper in papers.items()}
        assert standing.scores == want
        assert standing.ungraded == {}
    assert status == 0


def test_everybody_has_a_feedback_page(graded):
    root, _, _ = graded
    for name in (path.name for path in (root / "solutions").iterdir()):
        for student in demo.CLASS:
            assert (root / "feedback" / student / name / f"{name}.html").exists()


def test_it_ends_with_the_table_the_mistakes_and_the_place_of_the_feedback(graded):
    _, printed, _ = graded
    rows = [line.split() for line in printed.splitlines()]
    for student in demo.CLASS:
        assert len([row for row in rows if row and row[0] == student]) == 3
    assert "100%" in printed
    most = printed.split("The most frequent mistakes:\n")[1]
    assert int(most.split("×")[0]) >= 3
    assert printed.rstrip().endswith("feedback/<student>/03_losses/03_losses.html")


def test_the_class_holds_every_kind_of_submission():
    kinds = {kind.__name__ for kinds in demo.CLASS.values() for kind in kinds}
    assert kinds == {
        "good", "partly", "mistaken", "shared", "blank", "syntax_error", "endless_loop", "warns", "missing",
        "broken_json", "deleted_cells", "copied_cells", "retyped_cells",
    }  # fmt: skip
    assert 40 <= 3 * len(demo.CLASS) <= 45


@pytest.mark.parametrize("exercise", GRADED, ids=lambda exercise: exercise.name)
def test_a_declared_mistake_is_the_same_mistake_as_a_students_cell(exercise):
    for sentence, implementation in exercise.mistakes:
        namespace = {}
        exec(demo.as_answer(implementation, exercise.name), namespace)
        assert examine(namespace[exercise.name], exercise.name, seed=1).mistake == sentence
