"""A class's submissions of a lesson: graded by nbgrader.py in this process, then summed up for the instructor."""

import glob
import json
import logging
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nbgrader import apps
from nbgrader.api import MissingEntry
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import chdir, temp_attrs
from tqdm import tqdm

from autograder.audit import Audit
from autograder.gradebook import Gradebook
from autograder.nbgrader import Autograde, Handed, Note, Stopped, note_in, paper_in, understood
from autograder.notebooks import Released, parse_notebook
from autograder.sandbox import examine_notebook

KINDS = {"full": "with full marks", "partial": "with some", "zero": "with none", "ungraded": "not graded"}
TABLE = 60  # students whose scores are printed; a larger class is summed up

tqdm.monitor_interval = 0  # a thread of its own would be torn in two when the workers are forked


@dataclass
class Standing:
    """How a class stands in one lesson."""

    lesson: str
    worth: dict[str, float] = field(default_factory=dict)  # exercise -> points, in the lesson's order
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)  # student -> exercise -> score
    mistakes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (exercise, sentence) -> how many students
    flags: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # student -> exercise -> libraries it names
    ungraded: dict[str, str] = field(default_factory=dict)  # student -> why


def grade(lesson: str, root: Path | str = ".", as_json: bool = False, share: float = 0.0, **options: Any) -> int:
    """Autogrades what was handed in for a lesson and writes the feedback; returns 1 if anyone is left out, else 0.

    `share` is that of the submissions to examine a second time; `options` are attributes of Autograde: students,
    force, jail, cores, cluster.
    """
    begun = time.monotonic()
    app = app_at(root)
    everybody = handed_in(app.coursedir, lesson)
    named = options.get("students", ())
    absent = [student for student in named or ["<student>"] if student not in everybody]
    if absent and (named or not everybody):
        who = f"{absent[0]} has not" if named else "Nobody has"
        folder = Path(app.coursedir.submitted_directory) / absent[0] / lesson
        print(f"{who} handed in {lesson}: there is no {folder}.", file=sys.stderr)
        return 1
    audit = Audit(share)
    with tqdm(total=len(named or everybody), desc=lesson, unit="student", file=sys.stderr) as bar:
        complaints, failures = grade_lesson(app, lesson, Tally(bar), audit=audit, **options)
    complaints += [str(difference) for difference in audit.differences]
    if audit.suspects:  # what a worker said that was caught later
        here = {**options, "students": audit.suspects, "force": True, "cluster": ""}
        complaints += grade_lesson(app, lesson, lambda *_: None, **here)[0]
    standing = standing_of(app.coursedir, lesson)
    standing.ungraded |= failures
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if as_json:
        print(json.dumps(as_dict(standing, time.monotonic() - begun), indent=1))
    else:
        print(f"\n{summary(standing)}\n\n{feedback_at(app.coursedir, lesson)}")
    return int(bool(complaints or standing.ungraded))


def regrade(lesson: str, student: str, root: Path | str = ".", why: bool = False, **options: Any) -> int:
    """Grades a submission again, as it stands and with the seed that was recorded, and says what comes out otherwise.

    `why` explains every point, with the expected values: for the instructor. Returns 1 where there is no grade.
    """
    app = app_at(root)
    coursedir = app.coursedir
    folder = Path(coursedir.format_path(coursedir.submitted_directory, student, lesson))
    if not folder.is_dir():
        print(f"{student} has not handed in {lesson}: there is no {folder}.", file=sys.stderr)
        return 1
    path = Path(coursedir.format_path(coursedir.autograded_directory, student, lesson)) / f"{lesson}.ipynb"
    before = note_in(path)
    complaints, failures = grade_lesson(app, lesson, lambda *_: None, students=[student], force=True, **options)
    after = note_in(path)
    for complaint in [*complaints, *failures.values()]:
        print(complaint, file=sys.stderr)
    if complaints or failures:
        return 1
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:  # a note's names stand in the alphabet's order
        after["scores"] = {name: after["scores"][name] for name in gradebook.sheet(lesson).worth}
    print("\n".join([f"{student}, {lesson}", *compared(before, after)]))
    if why:
        released = Path(coursedir.format_path(coursedir.release_directory, ".", lesson)) / f"{lesson}.ipynb"
        handed = understood(paper_in(folder, path.name), path.name, Released(parse_notebook(released.read_bytes())))
        print("\n".join(["", *reasons(handed, after, options.get("jail", "bubblewrap"))]))
    return 0


def compared(before: Note, after: Note) -> list[str]:
    """Each exercise's points, against those of the record; then what is no longer as it was."""
    if not before:
        return [f"  {name}: {_points(score)}, the first grade" for name, score in after["scores"].items()]
    lines = []
    for name, score in after["scores"].items():
        old = before["scores"].get(name)
        verdict = "as recorded" if old == score else f"recorded were {'none' if old is None else _points(old)}"
        lines.append(f"  {name}: {_points(score)}, {verdict}")
    things = {"submission": "the submitted files", "released": "the released notebook", "seconds": "the time limit"}
    changed = [thing for key, thing in things.items() if before[key] != after[key]]
    changed += [
        f"{name} ({before['versions'].get(name, 'none')}, now {version})"
        for name, version in after["versions"].items()
        if before["versions"].get(name) != version
    ]
    return [*lines, f"Changed since: {', '.join(changed) or 'nothing'}."]


def reasons(handed: Handed, note: Note, jail: str) -> Iterator[str]:
    """Every point in full: the record, then each exercise's report with the case that is wrong."""
    yield f"seed {note['seed']}, {note['seconds']:g} seconds for each exercise, " + ", ".join(
        f"{name} {version}" for name, version in note["versions"].items()
    )
    yield f"submitted file {note['submission'][:16]}, released notebook {note['released'][:16]}"
    yield from handed.problems
    if handed.unreadable:
        yield handed.unreadable
        return
    results = examine_notebook(handed.cells, note["scores"], note["seed"], note["seconds"], graded=False, jail=jail)
    for result in results.values():
        yield f"\n{result.text}"
        if result.wrong is not None:
            yield f"Case {result.wrong.number + 1}: {dict(result.wrong.case)}"
            with np.printoptions(precision=6, threshold=200, suppress=True):
                for name, value in result.wrong.inputs.items():
                    yield f"{name} = {value!r}"
                yield f"{result.wrong.name}, expected: {result.wrong.want!r}"
                yield f"{result.wrong.name}, got: {result.wrong.got!r}"


class Tally:
    """A progress bar that says how the class does so far."""

    def __init__(self, bar: tqdm):
        self.bar = bar
        self.counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))

    def __call__(self, note: Note, worth: float) -> None:
        self.counts[kind(note["scores"], worth)] += 1
        self.bar.set_postfix(self.counts, refresh=False)
        self.bar.update()


def kind(scores: Mapping[str, float | None], worth: float) -> str:
    """What a student's scores come to, in a word."""
    if None in scores.values():
        return "ungraded"
    points = sum(score or 0.0 for score in scores.values())
    return "full" if points >= worth else "partial" if points else "zero"


def grade_lesson(
    app: apps.NbGrader, lesson: str, tick: Callable[[Note, float], object], **options: Any
) -> tuple[list[str], dict[str, str]]:
    """Generates the lesson where the gradebook has none, grades it and writes the feedback.

    Returns what went wrong for all, and the students for whom not even a row could be written, with the reason.
    """
    complaints, failures = [], {}
    with temp_attrs(app.coursedir, assignment_id=lesson):
        try:
            if not known(app.coursedir, lesson):
                release(app, lesson)
            autograde = converter(app, Autograde, tick=tick, **options)
            try:
                autograde.start()
            except Stopped as error:
                complaints.append(str(error))
            except NbGraderException:  # the reasons are in its failures
                failures = autograde.failures
            for student in options.get("students") or ["*"]:
                with temp_attrs(app.coursedir, student_id=student):
                    converter(app, apps.generatefeedbackapp.GenerateFeedback, force=True).start()
        except (NbGraderException, OSError) as error:
            complaints.append(str(error))
    return complaints, failures


def release(app: apps.NbGrader, lesson: str) -> None:
    """`nbgrader generate_assignment`."""
    with temp_attrs(app.coursedir, assignment_id=lesson):
        converter(app, apps.generateassignmentapp.GenerateAssignment, force=True).start()


def converter(app: apps.NbGrader, kind: type, **attributes: Any) -> Any:
    """One of nbgrader's converters for the course, with some of its attributes set."""
    made = kind(coursedir=app.coursedir, parent=app)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


# --- the course's folder and gradebook ---------------------------------------------------------------------------


def app_at(root: Path | str) -> apps.NbGrader:
    """nbgrader, configured by nbgrader_config.py in `root`, which says no more than what went wrong."""
    app = apps.NbGrader()
    with chdir(str(root)):
        app.initialize([])
    app.log.setLevel(logging.ERROR)
    return app


def course_at(root: Path | str) -> CourseDirectory:
    """The folders and the gradebook that nbgrader_config.py in `root` names."""
    return app_at(root).coursedir


def handed_in(course: CourseDirectory, lesson: str) -> list[str]:
    """The students who handed in anything for a lesson."""
    folders = glob.glob(course.format_path(course.submitted_directory, "*", lesson))
    return sorted(Path(folder).parent.name for folder in folders)


def known(course: CourseDirectory, lesson: str) -> bool:
    """Whether the gradebook has the lesson."""
    with Gradebook(course.db_url, course.course_id) as gradebook:
        try:
            gradebook.sheet(lesson)
        except MissingEntry:
            return False
    return True


def standing_of(course: CourseDirectory, lesson: str) -> Standing:
    """Scores as the gradebook has them (manual ones included), the rest as the graded notebooks record it."""
    standing = Standing(lesson)
    with Gradebook(course.db_url, course.course_id) as gradebook:
        sheet = gradebook.sheet(lesson)
        standing.worth = dict(sheet.worth)
        for student in handed_in(course, lesson):
            rows = gradebook.scores(sheet, student) if student.isprintable() else {}
            scores = {name: score_of(*rows.get(name, (None, None))) for name in standing.worth}
            standing.scores[student] = scores
            note = note_in(Path(course.format_path(course.autograded_directory, student, lesson)) / f"{lesson}.ipynb")
            standing.mistakes.update(note.get("mistakes", {}).items())
            if note.get("flags"):
                standing.flags[student] = note["flags"]
            if None in scores.values():
                standing.ungraded[student] = note.get("failure") or "not examined yet"
    return standing


def score_of(automatic: float | None, manual: float | None) -> float | None:
    return automatic if manual is None else manual


def as_dict(standing: Standing, seconds: float) -> dict[str, Any]:
    """The standing for programs."""
    worth = sum(standing.worth.values())
    kinds = Counter(kind(scores, worth) for scores in standing.scores.values())
    return {
        "lesson": standing.lesson,
        "seconds": round(seconds, 3),
        "counts": {"handed_in": len(standing.scores)} | {name: kinds[name] for name in KINDS},
        "worth": standing.worth,
        "scores": standing.scores,
        "mistakes": [
            {"exercise": exercise, "mistake": sentence, "students": count}
            for (exercise, sentence), count in standing.mistakes.most_common()
        ],
        "ungraded": standing.ungraded,
        "flags": standing.flags,
    }


# --- in words ----------------------------------------------------------------------------------------------------


def summary(standing: Standing) -> str:
    """What an instructor wants to know first; for a large class without the scores of each student."""
    parts = [table(standing), frequent(standing.mistakes), *_flagged(standing), *_left_out(standing)]
    return "\n\n".join(parts)


def _flagged(standing: Standing) -> list[str]:
    lines = [
        f"  {student}, {exercise}: names {', '.join(libraries)}"
        for student, flags in standing.flags.items()
        for exercise, libraries in flags.items()
    ]
    return ["\n".join(["To be looked at, since these answers are to be from scratch:", *lines])] if lines else []


def _left_out(standing: Standing) -> list[str]:
    lines = [f"  {_shown(student)}: {reason}" for student, reason in standing.ungraded.items()]
    again = f"Grade them again, once that is mended: autograder grade {standing.lesson}"
    return ["\n".join(["Not graded:", *lines, again])] if lines else []


def _shown(student: str) -> str:
    """A folder's name that can be printed."""
    return student if student.isprintable() else ascii(student)


def table(standing: Standing) -> str:
    """Students × exercises, of a small class; the exercises are numbered, and named below."""
    if len(standing.scores) > TABLE:
        worth = sum(standing.worth.values())
        counts = Counter(kind(scores, worth) for scores in standing.scores.values())
        said = ", ".join(f"{counts[name]} {KINDS[name]}" for name in KINDS if counts[name])
        return "\n".join([f"{standing.lesson}: {len(standing.scores)} students, {said}", "", *_legend(standing)])
    width = max((len(_shown(student)) for student in standing.scores), default=0)
    total = sum(standing.worth.values())
    numbers = "".join(f"{number:>5}" for number in range(1, len(standing.worth) + 1))
    lines = [f"{standing.lesson:<{width}}{numbers}   of {total:g}"]
    for student, scores in sorted(standing.scores.items()):
        cells = "".join(f"{'?' if score is None else _points(score):>5}" for score in scores.values())
        lines.append(f"{_shown(student):<{width}}{cells}{_points(sum(score or 0 for score in scores.values())):>8}")
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
