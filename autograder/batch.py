"""A class's submissions of a lesson: graded through nbgrader's own commands, then summed up for the instructor."""

import glob
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGrader
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import chdir
from tqdm import tqdm

NOTE = "autograder"  # the metadata in which a graded notebook carries what the class's summary needs
UNGRADED = "CouldNotBeGraded"  # the error in the check cells of a submission on which our own code failed
DONE = {"autograde": "Autograding /", "generate_feedback": "Converting notebook /"}  # in nbgrader's log: one more
SKIPPED = "Skipping existing assignment:"


@dataclass
class Standing:
    """How a class stands in one lesson."""

    lesson: str
    worth: dict[str, float] = field(default_factory=dict)  # exercise -> points, in the lesson's order
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)  # student -> exercise -> score
    mistakes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (exercise, sentence) -> how many students
    ungraded: list[str] = field(default_factory=list)  # students


def grade(lesson: str, root: Path | str = ".", force: bool = False) -> int:
    """Autogrades what was handed in for a lesson and writes the feedback; returns 1 if anyone is left out, else 0."""
    course = course_at(root)
    students = handed_in(course, lesson)
    if not students:
        print(f"Nobody has handed in {lesson}: there is no {Path(course.submitted_directory) / '<student>' / lesson}.")
        return 1
    with tqdm(total=2 * len(students), desc=lesson, unit="step", file=sys.stdout) as bar:
        ran = grade_lesson(course, lesson, bar.update, force)
    standing = standing_of(course, lesson)
    print(f"\n{table(standing)}\n\n{frequent(standing.mistakes)}\n\n{feedback_at(course, lesson)}")
    if standing.ungraded:
        again = f"nbgrader autograde {lesson} --force --student NAME"
        print(f"\nNot graded: {', '.join(standing.ungraded)}. Grade one again: {again}")
    return int(not ran or bool(standing.ungraded))


def grade_lesson(course: CourseDirectory, lesson: str, tick: Callable[[], object], force: bool = False) -> bool:
    """nbgrader's autograde and generate_feedback; generate_assignment first where the gradebook has no such lesson."""
    again = ["--force"] if force else []
    released = known(course, lesson) or nbgrader(course, "generate_assignment", lesson, "--force")
    graded = nbgrader(course, "autograde", lesson, *again, tick=tick)
    return nbgrader(course, "generate_feedback", lesson, "--force", tick=tick) and graded and released


def nbgrader(course: CourseDirectory, command: str, *arguments: str, tick: Callable[[], object] | None = None) -> bool:
    """Runs an nbgrader command in the course's folder, with a `tick` for each submission; whether it succeeded."""
    log = []
    with subprocess.Popen(
        [sys.executable, "-m", "nbgrader", command, *arguments],
        cwd=course.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            log.append(line)
            if tick and (DONE[command] in line or SKIPPED in line):
                tick()
    if process.returncode:
        tqdm.write("".join(log[-40:]), file=sys.stderr)
        tqdm.write(f"`nbgrader {command}` did not succeed; the end of what it said stands above.", file=sys.stderr)
    return process.returncode == 0


# --- the course's folder and gradebook ---------------------------------------------------------------------------


def course_at(root: Path | str) -> CourseDirectory:
    """The folders and the gradebook that nbgrader_config.py in `root` names."""
    app = NbGrader()
    with chdir(str(root)):
        app.initialize([])
    return app.coursedir


def handed_in(course: CourseDirectory, lesson: str) -> list[str]:
    """The students who handed in anything for a lesson."""
    folders = glob.glob(course.format_path(course.submitted_directory, "*", lesson))
    return sorted(Path(folder).parent.name for folder in folders)


def known(course: CourseDirectory, lesson: str) -> bool:
    with Gradebook(course.db_url, course.course_id) as gradebook:
        try:
            return bool(gradebook.find_assignment(lesson).notebooks)
        except MissingEntry:
            return False


def standing_of(course: CourseDirectory, lesson: str) -> Standing:
    """Scores as the gradebook has them (manual ones included), mistakes as the graded notebooks name them."""
    standing = Standing(lesson)
    with Gradebook(course.db_url, course.course_id) as gradebook:
        assignment = gradebook.find_assignment(lesson)
        standing.worth = {
            cell.name: cell.max_score for notebook in assignment.notebooks for cell in notebook.grade_cells
        }
        for submission in assignment.submissions:
            grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
            scores = {grade.cell.name: None if _waits(grade) else grade.score for grade in grades}
            standing.scores[submission.student.id] = {name: scores.get(name) for name in standing.worth}
    for student in handed_in(course, lesson):
        scores = standing.scores.setdefault(student, dict.fromkeys(standing.worth))
        failed = _read_verdicts(standing, Path(course.format_path(course.autograded_directory, student, lesson)))
        if failed or None in scores.values():
            standing.ungraded.append(student)
    return standing


def _waits(grade) -> bool:
    return grade.auto_score is None and grade.manual_score is None


def _read_verdicts(standing: Standing, folder: Path) -> bool:
    """Counts the mistakes named in a student's graded notebook; whether the grader failed on it."""
    failed = False
    for path in folder.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                failed |= output.get("ename") == UNGRADED
                mistake = output.get("metadata", {}).get(NOTE, {}).get("mistake")
                if mistake:
                    standing.mistakes[cell.metadata.nbgrader.grade_id, mistake] += 1
    return failed


# --- in words ----------------------------------------------------------------------------------------------------


def table(standing: Standing) -> str:
    """Students × exercises; the exercises are numbered, and named below."""
    width = max(map(len, standing.scores), default=0)
    total = sum(standing.worth.values())
    numbers = "".join(f"{number:>5}" for number in range(1, len(standing.worth) + 1))
    lines = [f"{standing.lesson:<{width}}{numbers}   of {total:g}"]
    for student, scores in sorted(standing.scores.items()):
        cells = "".join(f"{'?' if score is None else _points(score):>5}" for score in scores.values())
        lines.append(f"{student:<{width}}{cells}{_points(sum(score or 0 for score in scores.values())):>8}")
    return "\n".join([*lines, "", *_legend(standing)])


def _legend(standing: Standing) -> list[str]:
    """Each exercise with its points and the share of them that the class earned."""
    lines = []
    width = max(map(len, standing.worth), default=0)
    for number, (exercise, worth) in enumerate(standing.worth.items(), 1):
        scores = [scores[exercise] or 0 for scores in standing.scores.values()]
        share = sum(scores) / (worth * len(scores)) if scores and worth else 0
        points = "point, " if worth == 1 else "points,"
        lines.append(f"{number:>3}  {exercise:<{width}} {worth:>3g} {points} on average {share:4.0%}")
    return lines


def _points(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def frequent(mistakes: Counter[tuple[str, str]], most: int = 8) -> str:
    """The mistakes that most students share."""
    if not mistakes:
        return "No mistake of this class has a name."
    lines = [f"{count:>3} × {exercise}: {sentence}" for (exercise, sentence), count in mistakes.most_common(most)]
    return "\n".join(["The most frequent mistakes:", *(_folded(line) for line in lines)])


def _folded(line: str) -> str:
    return textwrap.fill(line, 100, subsequent_indent=" " * 6)


def feedback_at(course: CourseDirectory, lesson: str) -> str:
    pages = Path(course.format_path(course.feedback_directory, "<student>", lesson)) / f"{lesson}.html"
    return f"Feedback: {os.path.relpath(pages)}"
