"""What is committed is what a rebuild gives: `make check` in the form of tests, on the real lessons."""

from pathlib import Path

import nbformat
import pytest

from autograder import build as builder
from autograder import exercises
from autograder.exercise import load_registry

ROOT = Path(__file__).parents[1]
LESSONS = builder.lessons(ROOT)
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def test_every_declaration_has_a_lesson_and_every_generated_folder_a_text():
    assert builder.strays(ROOT) == []


def test_the_order_of_the_declarations_is_that_of_the_lessons():
    """On it depends what an earlier lesson is."""
    assert tuple(lesson.module for lesson in LESSONS) == exercises.LESSONS


@each_lesson
def test_committed_notebooks_are_what_the_text_gives(lesson):
    assert "\n\n".join(builder.differences(lesson)) == ""


def test_the_first_page_is_what_its_text_gives():
    assert (ROOT / "course" / "start.ipynb").read_text(encoding="utf-8") == builder.start_page(ROOT)


@each_lesson
def test_declarations_exercise_cells_and_check_cells_match_one_to_one(lesson):
    graded = [cell.metadata.nbgrader for cell in read(lesson.released).cells if "nbgrader" in cell.metadata]
    checks = {meta.grade_id: meta.points for meta in graded if meta.grade}
    answers = [meta.grade_id for meta in graded if meta.solution]
    declared = {name: entry.points for name, entry in load_registry().items() if entry.lesson == lesson.module}
    assert checks == declared
    assert sorted(answers) == sorted(f"{name}_answer" for name in declared)
    assert len(graded) == 2 * len(declared)


@each_lesson
def test_the_solved_notebook_scores_everything(lesson):
    full = {name: entry.points for name, entry in lesson.exercises.items()}
    assert builder.scores(lesson, lesson.solved) == full


@each_lesson
def test_the_released_notebook_scores_nothing(lesson):
    assert set(builder.scores(lesson, lesson.released).values()) == {0.0}


@each_lesson
def test_the_released_notebook_shows_no_solution_and_no_output(lesson):
    text = lesson.released.read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in text and "END SOLUTION" not in text and "### BROKEN" not in text
    assert not [cell.id for cell in read(lesson.released).cells if cell.get("outputs")]


@each_lesson
def test_what_is_typed_once_is_not_left_over_elsewhere(lesson):
    """No line of a solution of any length stands in the released notebook, unless the lesson shows it on purpose."""
    solved, released = read(lesson.solved), read(lesson.released)
    shown = "\n".join(cell.source for cell in released.cells)
    for before, after in zip(solved.cells, released.cells, strict=True):
        if before.source != after.source:
            kept = set(after.source.splitlines())
            gone = [line.strip() for line in before.source.splitlines() if line not in kept]
            assert not [line for line in gone if len(line) > 60 and not line.startswith("#") and line in shown]
