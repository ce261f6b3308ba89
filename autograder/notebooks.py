"""What a notebook file holds: the cells that are graded, and what is wrong with the file.

A submission is hostile or damaged until proved otherwise. Nothing is taken from it but source text: the answers,
found by their grade_id, and the code cells the student added. Everything else comes from the released notebook.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from autograder.exercise import Exercise, load_registry
from autograder.sandbox import Cell

ANSWER = "_answer"  # grade_id of an exercise cell: the exercise's name and this; of its check cell: the name alone
COURSE_ID = re.compile(r"cell-\d\d+")  # of every other cell of the course: cell-07, by its place
MAX_BYTES, MAX_CELLS, MAX_SOURCE = 64_000_000, 2_000, 1_000_000


class NotebookError(Exception):
    """A file that cannot be read as a notebook; the message is one sentence for the person who handed it in."""


def parse_notebook(data: bytes) -> dict[str, Any]:
    """The notebook in a file's bytes, as plain dictionaries and lists; a NotebookError says what is wrong with it."""
    if len(data) > MAX_BYTES:
        raise NotebookError(
            f"The file is larger than {MAX_BYTES // 1_000_000} MB: clear its outputs and save it again."
        )
    try:
        nb = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise NotebookError("The file is no text in UTF-8, so it is no notebook.") from None
    except json.JSONDecodeError as error:
        raise NotebookError(f"The file is no notebook: broken JSON in line {error.lineno} ({error.msg}).") from None
    except (RecursionError, ValueError):
        raise NotebookError(
            "The file is no notebook: its JSON is nested too deeply or holds a number too long."
        ) from None
    cells = nb.get("cells") if isinstance(nb, dict) else None
    if not isinstance(cells, list):
        raise NotebookError("The file is JSON but no notebook: it has no list of cells (nbformat 4).")
    if len(cells) > MAX_CELLS:
        raise NotebookError(f"The notebook has {len(cells)} cells; at most {MAX_CELLS} are read.")
    if sum(len(part.source) for part in parts(nb)) > MAX_SOURCE:
        raise NotebookError(f"The notebook holds more than {MAX_SOURCE:,} characters of text and code.")
    return nb


@dataclass(frozen=True)
class Part:
    """A cell, reduced to what grading may look at."""

    kind: str  # "code", "markdown", "raw"
    grade_id: str  # nbgrader's name of the cell, or ""
    cell_id: str
    source: str


def parts(nb: Mapping[str, Any]) -> list[Part]:
    """The cells of any notebook-like JSON; what is no cell is left out."""
    return [_part(cell) for cell in nb["cells"] if isinstance(cell, dict)]


def _part(cell: dict[str, Any]) -> Part:
    metadata = _dict(cell.get("metadata"))
    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    return Part(
        kind=_str(cell.get("cell_type")),
        grade_id=_str(_dict(metadata.get("nbgrader")).get("grade_id")),
        cell_id=_str(cell.get("id")) or _str(metadata.get("id")),  # Colab keeps ids in the metadata
        source="".join(line for line in lines if isinstance(line, str)),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


class Submission:
    """A student's cells beside the released ones."""

    def __init__(self, nb: Mapping[str, Any], released: Mapping[str, Any]):
        self.released = parts(released)
        self.graded = {part.grade_id: part for part in self.released if part.grade_id}
        self.course = {part.cell_id: part for part in self.released if part.cell_id and not part.grade_id}
        self.sources = {part.source.strip() for part in self.released}
        self.cells = parts(nb)

    def grade_id(self, part: Part) -> str:
        """Which graded cell this is, also where an editor has dropped nbgrader's metadata but kept the cell's id."""
        return next((name for name in (part.grade_id, part.cell_id) if name in self.graded), "")

    def copies(self, grade_id: str) -> list[Part]:
        return [part for part in self.cells if self.grade_id(part) == grade_id]

    def changed(self, part: Part) -> bool:
        return part.source.strip() != self.graded[self.grade_id(part)].source.strip()

    def answer(self, grade_id: str) -> Part | None:
        """Of several copies, the last one the student has changed."""
        copies = self.copies(grade_id)
        ranked = sorted(copies, key=lambda part: (self.changed(part), part.kind == "code"))
        return ranked[-1] if ranked else None

    def is_own(self, part: Part) -> bool:
        """A code cell that the student has added."""
        return (
            part.kind == "code"
            and not self.grade_id(part)
            and part.cell_id not in self.course
            and part.source.strip() not in self.sources
        )


def cells_of(nb: Mapping[str, Any], released: Mapping[str, Any]) -> list[Cell]:
    """What is run to grade: the course's import statements, then answers and the student's own cells in their order."""
    submission = Submission(nb, released)
    answers = {grade_id: submission.answer(grade_id) for grade_id in submission.graded if grade_id.endswith(ANSWER)}
    cells = [Cell(None, imports(submission.released))]
    for part in submission.cells:
        grade_id = submission.grade_id(part)
        if grade_id in answers:
            if part is answers[grade_id]:
                cells.append(Cell(grade_id.removesuffix(ANSWER), part.source))
            elif part.kind == "code" and submission.changed(part):  # a split cell, or an earlier attempt
                cells.append(Cell(None, part.source))
        elif submission.is_own(part):
            cells.append(Cell(None, part.source))
    return cells


def exercises_in(nb: Mapping[str, Any]) -> list[Exercise]:
    """All exercises of the lesson that a notebook is about; NotebookError where it is about none."""
    registry = load_registry()
    named = (name.removesuffix(ANSWER) for part in parts(nb) for name in (part.grade_id, part.cell_id))
    lessons = Counter(registry[name].lesson for name in named if name in registry)
    if not lessons:
        raise NotebookError("The notebook has none of this course's exercise cells: is it the right file?")
    ((lesson, _),) = lessons.most_common(1)
    return [exercise for exercise in registry.values() if exercise.lesson == lesson]


def template(nb: Mapping[str, Any], exercises: Iterable[Exercise]) -> dict[str, Any]:
    """What stands in for the released notebook where only the student's own copy is at hand.

    The course's cells are those that carry the builder's ids; the graded ones follow from the declarations.
    """
    course = [cell for cell in nb["cells"] if isinstance(cell, dict) and COURSE_ID.fullmatch(_part(cell).cell_id)]
    graded = [
        {"cell_type": "code", "source": source, "metadata": {"nbgrader": {"grade_id": grade_id}}}
        for exercise in exercises
        for grade_id, source in [(exercise.name + ANSWER, ""), (exercise.name, f"check({exercise.name})")]
    ]
    return {"cells": course + graded}


def imports(cells: Iterable[Part]) -> str:
    """The import statements at the top level of the course's own code cells, each once."""
    sources = [part.source for part in cells if part.kind == "code" and not part.grade_id]
    trees = [_tree(TransformerManager().transform_cell(source)) for source in sources]  # without IPython's magics
    statements = [
        ast.unparse(node) for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return "\n".join(dict.fromkeys(statements))


def _tree(source: str) -> ast.Module:
    """The syntax tree of some code; an empty one where it has none."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


def problems_of(nb: Mapping[str, Any], released: Mapping[str, Any]) -> list[str]:
    """One sentence for each cell that is missing, duplicated, retyped, altered or foreign."""
    submission = Submission(nb, released)
    if not any(submission.grade_id(part) for part in submission.cells):
        return ["This notebook holds none of the lesson's exercises: is it the right file?"]
    return [
        *_graded_cell_problems(submission),
        *_foreign_cell_problems(submission),
        *_lost_code_problems(submission),
    ]


def _graded_cell_problems(submission: Submission) -> Iterable[str]:
    for grade_id, original in submission.graded.items():
        copies = submission.copies(grade_id)
        exercise = grade_id.removesuffix(ANSWER)
        if grade_id.endswith(ANSWER):
            if not copies:
                yield f"`{exercise}`: the exercise cell is missing; copy it back from a fresh copy of the lesson."
            elif len(copies) > 1:
                yield f"`{exercise}`: there are {len(copies)} exercise cells; the last one you changed is graded."
            elif copies[0].kind != original.kind:
                kind = copies[0].kind if copies[0].kind in ("markdown", "raw") else "strange"
                yield f"`{exercise}`: the exercise cell became a {kind} cell; make it a code cell again."
        elif not copies:
            yield f"`{exercise}`: the check cell was deleted; the exercise is graded all the same."
        elif len(copies) > 1:
            yield f"`{exercise}`: there are {len(copies)} check cells; the exercise is graded once."
        elif copies[0].kind != original.kind or submission.changed(copies[0]):
            yield f"`{exercise}`: the check cell was altered; the course's own check is used."


def _foreign_cell_problems(submission: Submission) -> Iterable[str]:
    for part in submission.cells:
        if part.grade_id and not submission.grade_id(part):
            yield f"The cell `{part.grade_id[:60]}` belongs to no exercise of this lesson; it counts as your own."


def _lost_code_problems(submission: Submission) -> Iterable[str]:
    """What is defined in one of the course's own cells works in the notebook and is lost in grading."""
    for part in submission.cells:
        if part.kind == "code" and not submission.grade_id(part) and part.cell_id in submission.course:
            for name in sorted(_defined(part.source) - _defined(submission.course[part.cell_id].source)):
                yield f"`{name}` is defined in a cell of the course, which is not graded; move it to a cell you add."


def _defined(source: str) -> set[str]:
    """The names that functions, classes and imports at the top level of a cell define."""
    names: set[str] = set()
    for node in _tree(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    return names
