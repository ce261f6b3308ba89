"""What a notebook file holds: the cells that are graded, and what is wrong with the file.

A submission is hostile or damaged until proved otherwise. Nothing is taken from it but source text: the answers,
found by their grade_id, and the code cells the student added. Everything else comes from the released notebook.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from autograder.cases import needs_torch
from autograder.child import FOREIGN
from autograder.exercise import Exercise, load_registry
from autograder.sandbox import Cell

ANSWER = "_answer"  # grade_id of an exercise cell: the exercise's name and this; of its check cell: the name alone
COURSE_ID = re.compile(r"cell-\d\d+")  # of every other cell of the course: cell-07, by its place
MAX_BYTES, MAX_CELLS, MAX_SOURCE = 32_000_000, 2_000, 1_000_000
MOST = {b"[": 200_000, b"{": 200_000, b",": 2_000_000, b'"': 2_000_000}  # what makes a parser allocate
LIBRARIES = (*FOREIGN, "sklearn")  # arrays or gradients ready-made: for a NumPy exercise, a person looks at their names


class NotebookError(Exception):
    """A file that cannot be read as a notebook; the message is one sentence for the person who handed it in."""


def parse_notebook(data: bytes) -> dict[str, Any]:
    """The notebook in a file's bytes, as plain dictionaries and lists; a NotebookError says what is wrong with it."""
    if len(data) > MAX_BYTES:
        raise NotebookError(
            f"The file is larger than {MAX_BYTES // 1_000_000} MB: clear its outputs and save it again."
        )
    for sign, most in MOST.items():
        if data.count(sign) > most:
            raise NotebookError(
                f"The file holds more than {most:,} times {sign.decode()}, as no notebook does: "
                "clear its outputs and save it again."
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
    if sum(len(line) for cell in cells if isinstance(cell, dict) for line in _lines(cell)) > MAX_SOURCE:
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
    return Part(
        kind=_str(cell.get("cell_type")),
        grade_id=_str(_dict(metadata.get("nbgrader")).get("grade_id")),
        cell_id=_str(cell.get("id")) or _str(metadata.get("id")),  # Colab keeps ids in the metadata
        source=_text("".join(_lines(cell))),
    )


def _lines(cell: dict[str, Any]) -> list[str]:
    source = cell.get("source")
    return [line for line in (source if isinstance(source, list) else [source]) if isinstance(line, str)]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _str(value: Any) -> str:
    return _text(value) if isinstance(value, str) else ""


def _text(value: str) -> str:
    """JSON can hold half of a surrogate pair, which no file can."""
    return value if value.isascii() else value.encode(errors="replace").decode()


class Released:
    """The notebook that was handed out, with what is worked out of it once for a whole class."""

    def __init__(self, nb: Mapping[str, Any]):
        self.parts = parts(nb)
        self.graded = {part.grade_id: part for part in self.parts if part.grade_id}
        self.course = {part.cell_id: part for part in self.parts if part.cell_id and not part.grade_id}
        self.sources = {part.source.strip() for part in self.parts}

    @cached_property
    def imports(self) -> str:
        """What the course's own code cells bring in at their top level, each once: imports, and what `mine` gives."""
        sources = [part.source for part in self.parts if part.kind == "code" and not part.grade_id]
        nodes = [node for source in sources for node in _tree(source).body]
        return "\n".join(dict.fromkeys(ast.unparse(node) for node in nodes if _brings_in(node)))


def _brings_in(node: ast.stmt) -> bool:
    """Whether a statement is an import, or gives names to what earlier lessons have built."""
    if not isinstance(node, ast.Assign):
        return isinstance(node, IMPORTS)
    values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    return all(isinstance(value, ast.Call) and ast.unparse(value.func) == "mine" for value in values)


class Submission:
    """A student's cells beside the released ones."""

    def __init__(self, nb: Mapping[str, Any], released: Released):
        self.released = released
        self.cells = parts(nb)
        self.copies: dict[str, list[Part]] = {}  # of a graded cell, by its grade_id
        for part in self.cells:
            if grade_id := self.grade_id(part):
                self.copies.setdefault(grade_id, []).append(part)

    def grade_id(self, part: Part) -> str:
        """Which graded cell this is, also where an editor has dropped nbgrader's metadata but kept the cell's id."""
        graded = self.released.graded
        return part.grade_id if part.grade_id in graded else part.cell_id if part.cell_id in graded else ""

    def changed(self, part: Part) -> bool:
        return part.source.strip() != self.released.graded[self.grade_id(part)].source.strip()

    def answer(self, grade_id: str) -> Part:
        """Of several copies, the last one the student has changed."""
        ranked = sorted(self.copies[grade_id], key=lambda part: (self.changed(part), part.kind == "code"))
        return ranked[-1]

    def is_own(self, part: Part) -> bool:
        """A code cell that the student has added."""
        return (
            part.kind == "code"
            and not self.grade_id(part)
            and part.cell_id not in self.released.course
            and part.source.strip() not in self.released.sources
        )


def cells_of(submission: Submission) -> list[Cell]:
    """What is run to grade: what the course brings in, then answers and the student's own cells in their order."""
    answers = {name: submission.answer(name) for name in submission.copies if name.endswith(ANSWER)}
    cells = [Cell(None, submission.released.imports)]
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


def template(nb: Mapping[str, Any], exercises: Iterable[Exercise]) -> Released:
    """What stands in for the released notebook where only the student's own copy is at hand.

    The course's cells are those that carry the builder's ids; the graded ones follow from the declarations.
    """
    course = [cell for cell in nb["cells"] if isinstance(cell, dict) and COURSE_ID.fullmatch(_part(cell).cell_id)]
    graded = [
        {"cell_type": "code", "source": source, "metadata": {"nbgrader": {"grade_id": grade_id}}}
        for exercise in exercises
        for grade_id, source in [(exercise.name + ANSWER, ""), (exercise.name, f"check({exercise.name})")]
    ]
    return Released({"cells": course + graded})


IMPORTS = (ast.Import, ast.ImportFrom)


def _tree(source: str) -> ast.Module:
    """The syntax tree of some code, without IPython's magics; an empty one where it has none."""
    for read in (str, TransformerManager().transform_cell):
        try:
            return ast.parse(read(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return ast.Module(body=[], type_ignores=[])


# --- what is wrong with the file ---------------------------------------------------------------------------------


def problems_of(submission: Submission) -> list[str]:
    """One sentence for each cell that is missing, duplicated, retyped, altered or foreign."""
    if not submission.copies:
        return ["This notebook holds none of the lesson's exercises: is it the right file?"]
    return [
        *_graded_cell_problems(submission),
        *_foreign_cell_problems(submission),
        *_lost_code_problems(submission),
    ]


def _graded_cell_problems(submission: Submission) -> Iterable[str]:
    for grade_id, original in submission.released.graded.items():
        copies = submission.copies.get(grade_id, [])
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
        original = submission.released.course.get(part.cell_id)
        if original and part.kind == "code" and part.source != original.source and not submission.grade_id(part):
            for name in sorted(_defined(part.source) - _defined(original.source)):
                yield f"`{name}` is defined in a cell of the course, which is not graded; move it to a cell you add."


def _defined(source: str) -> set[str]:
    """The names that functions, classes and imports at the top level of a cell define."""
    names: set[str] = set()
    for node in _tree(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, IMPORTS):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    return names


# --- what a person has to look at --------------------------------------------------------------------------------


def flags_of(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """NumPy exercise -> the libraries that would do its work, where its answer or what that uses names one.

    A name costs no points: it may stand there for nothing. Only a person can say.
    """
    answers = {cell.exercise: cell.source for cell in cells if cell.exercise and not needs_torch(cell.exercise)}
    own = [cell.source for cell in cells[1:] if cell.exercise is None]
    imported = next((cell.source for cell in cells), "")
    if not any(map(_suspects(imported).search, [*answers.values(), *own])):
        return {}
    defined: dict[str, list[ast.AST]] = {}
    for cell in cells:
        for node in _tree(cell.source).body if cell.exercise is None else ():
            for name in _bound(node):
                defined.setdefault(name, []).append(node)
    named = {name: sorted({lib for node in _reached(_tree(source), defined) for lib in _libraries(node)})
             for name, source in answers.items()}  # fmt: skip
    return {name: libraries for name, libraries in named.items() if libraries}


@lru_cache
def _suspects(imports: str) -> re.Pattern:
    """What has to be looked at more closely: the libraries, and what the course's own imports call a part of one."""
    names = [name for node in _tree(imports).body if {*_libraries(node)} for name in _bound(node)]
    return re.compile(rf"\b({'|'.join([*LIBRARIES, *names])})\b")


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement gives a value to."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            yield inner.name
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id
        elif isinstance(inner, ast.alias):
            yield (inner.asname or inner.name).split(".")[0]


def _reached(answer: ast.AST, defined: Mapping[str, Sequence[ast.AST]]) -> list[ast.AST]:
    """An answer and the statements of other cells that it uses, directly or through others."""
    reached: list[ast.AST] = [answer]
    seen: set[str] = set()
    for node in reached:  # which grows meanwhile
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)} - seen
        seen |= names
        reached += [statement for name in names for statement in defined.get(name, ()) if statement not in reached]
    return reached


def _libraries(tree: ast.AST) -> Iterator[str]:
    """The libraries named in imports, as variables, or in texts such as importlib and sys.modules take."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if re.fullmatch(r"[\w.]+", node.value) else []
        else:
            continue
        yield from {name.split(".")[0] for name in names} & {*LIBRARIES}
