"""The course's first page: what is at hand, how far the reader is, whether the computer is ready."""

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from autograder import build as builder
from autograder import start
from autograder.exercise import load_registry

ROOT = Path(__file__).parents[1]


@pytest.fixture
def course(tmp_path):
    """A course folder with lesson 01, in which one check was passed, one half passed and one never run."""

    def check(name, text=None):
        outputs = [{"output_type": "stream", "name": "stdout", "text": [text]}] if text else []
        return {"cell_type": "code", "source": [f"check({name})"], "outputs": outputs}

    cells = [
        {"cell_type": "markdown", "source": ["# 01 · The linear layer\n", "What you build"]},
        check("linear_forward", "linear_forward: 2 of 2 points\n"),
        check("linear_backward", "linear_backward: 2 of 6 points\n"),
        check("compose_linear"),
    ]
    path = tmp_path / "01_linear" / "01_linear.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps({"cells": cells}))
    return tmp_path


def test_progress_is_what_the_saved_checks_say(course):
    (lesson,) = start.progress(course)
    linear = [exercise for exercise in load_registry().values() if exercise.lesson == "linear"]
    assert lesson.title == "01 · The linear layer"
    assert lesson.done == {"linear_forward"}
    assert lesson.points == sum(exercise.points for exercise in linear)
    assert lesson.minutes == sum(exercise.minutes for exercise in linear)


def test_the_report_of_a_passed_check_is_recognised():
    """The wording of report.py and the pattern of start.py stay together."""
    from autograder.report import Result

    entry = load_registry()["linear_forward"]
    right, half = Result("linear_forward", 2.0, 2, ()), Result("linear_forward", 1.0, 2, ())
    assert re.search(start.passed(entry), right.text, re.M)
    assert not re.search(start.passed(entry), half.text, re.M)


def test_the_map_links_each_lesson_and_ticks_what_is_solved(course):
    text = start.course_map(course).data
    assert "[01 · The linear layer](01_linear/01_linear.ipynb)" in text
    assert "`linear_forward` ✓" in text and "`linear_backward` ✓" not in text
    assert re.search(r"\| 1 of \d+ \|$", text)


def test_the_first_page_links_every_lesson_and_nothing_else():
    text = (ROOT / "solutions" / "start.py").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((\w+)/\w+\.ipynb\)", text)
    assert linked == [lesson.name for lesson in builder.lessons(ROOT)]


def test_a_folder_without_lessons_says_so(tmp_path):
    assert start.course_map(tmp_path).data == "No lesson was found in this folder."


def test_a_damaged_notebook_does_not_take_the_map_away(course):
    (course / "02_activations").mkdir()
    (course / "02_activations" / "02_activations.ipynb").write_text("{")
    assert [lesson.path.stem for lesson in start.progress(course)] == ["01_linear"]


@pytest.mark.parametrize(("minutes", "said"), [(45, "45 min"), (60, "1 h 00 min"), (135, "2 h 15 min")])
def test_durations(minutes, said):
    assert start._duration(minutes) == said


def test_a_ready_computer(capsys):
    start.environment()
    printed = capsys.readouterr().out
    assert re.search(r"^torch +\d", printed, re.M) and printed.endswith("\nEverything is here.\n")


def test_a_computer_that_is_not_ready(capsys, monkeypatch):
    real = metadata.version

    def version(name):
        if name == "torch":
            raise metadata.PackageNotFoundError
        return "1.0" if name == "numpy" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    start.environment()
    printed = capsys.readouterr().out
    assert re.search(r"^torch +missing +needs >=2.5$", printed, re.M)
    assert printed.endswith("Missing or outside the range: numpy, torch.\n")
