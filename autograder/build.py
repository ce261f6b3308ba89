"""From a lesson's text to its notebooks, and the proof that what is committed is what the text gives.

solutions/01_linear.py  ->  solutions/01_linear/01_linear.ipynb  ->  course/01_linear/01_linear.ipynb
percent text                solved, executed, with outputs           released: no solutions, no outputs
"""

import ast
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from autograder.exercise import Exercise, load_registry
from autograder.notebooks import ANSWER, Released, Submission, cells_of
from autograder.release import METADATA, broken, release
from autograder.sandbox import examine_notebook

MAX_LINES = 25  # of a code cell
MAX_BYTES = 300_000  # of a solved notebook
SECONDS = 600  # for one cell
KEYS = ("about", "exercise", "check")  # an exercise's three cells
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class LessonError(Exception):
    """What is wrong with a lesson, one `file:line: sentence` per line."""


@dataclass(frozen=True)
class Lesson:
    """One text and the two notebooks it becomes."""

    source: Path  # solutions/01_linear.py

    @property
    def root(self) -> Path:
        return self.source.parents[1]

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def module(self) -> str:
        """The module of its declarations: linear, for 01_linear."""
        return self.name.partition("_")[2]

    @property
    def solved(self) -> Path:
        return self.source.with_suffix("") / f"{self.name}.ipynb"

    @property
    def released(self) -> Path:
        return self.root / "course" / self.name / f"{self.name}.ipynb"

    def short(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    @cached_property
    def exercises(self) -> dict[str, Exercise]:
        return {name: entry for name, entry in load_registry().items() if entry.lesson == self.module}


def lessons(root: Path) -> list[Lesson]:
    return [Lesson(path) for path in sorted((root / "solutions").glob("[0-9][0-9]_*.py"))]


# --- text -> notebook ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceCell:
    """A cell of the percent text."""

    line: int  # of its `# %%`
    kind: str
    source: str
    keys: Mapping[str, object]  # what stands on its `# %%` line

    @property
    def exercise(self) -> tuple[str, str] | None:
        """Which cell of which exercise this is: ("check", "linear_forward")."""
        return next(((key, str(self.keys[key])) for key in KEYS if key in self.keys), None)


def source_cells(text: str) -> list[SourceCell]:
    cells = jupytext.reads(text, fmt="py:percent").cells
    lines = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"# ?%%(\s|$)", line)]
    if len(lines) != len(cells):
        raise LessonError("the text does not start with a `# %%` cell, or a string contains one")
    return [SourceCell(line, c.cell_type, c.source, _keys(c.metadata)) for line, c in zip(lines, cells, strict=True)]


def _keys(metadata: Mapping) -> dict[str, object]:
    """What the author wrote on the `# %%` line; jupytext adds how many blank lines it saw."""
    return {key: value for key, value in metadata.items() if not key.startswith("lines_to_")}


def notebook(lesson: Lesson) -> NotebookNode:
    """The lesson as a notebook, not executed: every key expanded, every id fixed."""
    cells = source_cells(lesson.source.read_text(encoding="utf-8"))
    problems = sorted(set(_problems(cells, lesson.exercises)))
    if problems:
        raise LessonError("\n".join(f"{lesson.short(lesson.source)}:{line}: {sentence}" for line, sentence in problems))
    return assemble(_expanded(cell, lesson.exercises) for cell in cells)


def assemble(cells: Iterable[NotebookNode]) -> NotebookNode:
    """A notebook of these cells; the same cells give the same bytes."""
    numbered = list(cells)
    for number, cell in enumerate(numbered, 1):  # notebooks.COURSE_ID
        cell.id = cell.metadata.get("nbgrader", {}).get("grade_id", f"cell-{number:02}")
    nb = nbformat.v4.new_notebook(cells=numbered, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nbformat.validate(nb)
    return nb


def _expanded(cell: SourceCell, exercises: Mapping[str, Exercise]) -> NotebookNode:
    new = nbformat.v4.new_code_cell if cell.kind == "code" else nbformat.v4.new_markdown_cell
    node = new(cell.source, metadata={"tags": cell.keys["tags"]} if "tags" in cell.keys else {})
    if cell.exercise:
        key, name = cell.exercise
        if key == "about":
            node.source = about(cell.source, exercises[name])
        else:
            node.metadata.nbgrader = _nbgrader(key, exercises[name])
    return node


def _nbgrader(key: str, exercise: Exercise) -> dict:
    """nbgrader's metadata of an exercise cell or a check cell."""
    if key == "exercise":
        return dict(
            grade=False, grade_id=exercise.name + ANSWER, locked=False, solution=True, task=False, schema_version=3
        )
    return dict(
        grade=True, grade_id=exercise.name, locked=True, solution=False, task=False, schema_version=3,
        points=exercise.points,
    )  # fmt: skip


def about(text: str, exercise: Exercise) -> str:
    """The task's text with what the declaration knows: points, difficulty and minutes under the title, hints below."""
    title, _, rest = text.partition("\n")
    dots = "●" * exercise.difficulty + "○" * (3 - exercise.difficulty)
    facts = (
        f"{exercise.points} point{'s' * (exercise.points != 1)} · difficulty {dots} · about {exercise.minutes} minutes"
    )
    return "\n\n".join(part for part in (title, f"*{facts}*", rest.strip("\n"), unfolding(exercise.hints)) if part)


def unfolding(hints: Iterable[str], number: int = 1) -> str:
    """Hints that unfold one by one: each stands inside the one before it."""
    hint, *others = [*hints] or [""]
    if not hint:
        return ""
    inner = f"\n\n{unfolding(others, number + 1)}" if others else ""
    return f"<details><summary>Hint {number}</summary>\n\n{hint}{inner}\n\n</details>"


# --- what a text may get wrong ---------------------------------------------------------------------------------


def _problems(cells: list[SourceCell], exercises: Mapping[str, Exercise]) -> Iterator[tuple[int, str]]:
    for cell in cells:
        yield from ((cell.line, sentence) for sentence in _cell_problems(cell, exercises))
    found = {cell.exercise: cell.line for cell in reversed(cells) if cell.exercise}
    for cell in cells:
        if cell.exercise and found[cell.exercise] != cell.line:
            key, name = cell.exercise
            yield cell.line, f'a second cell with {key}="{name}"; the first is in line {found[cell.exercise]}'
    for name in exercises:
        lines = [found.get((key, name)) for key in KEYS]
        present = [line for line in lines if line]
        if not present:
            yield 1, f"the declared exercise `{name}` is missing from the lesson"
        elif len(present) < len(KEYS):
            missing = ", ".join(f'{key}="{name}"' for key, line in zip(KEYS, lines, strict=True) if not line)
            yield present[0], f"`{name}` has no cell with {missing}"
        elif present != sorted(present):
            yield present[0], f"`{name}`: its cells stand in another order than about, exercise, check"


def _cell_problems(cell: SourceCell, exercises: Mapping[str, Exercise]) -> Iterator[str]:
    for key in cell.keys:
        if key not in (*KEYS, "setup", "tags"):
            yield f"unknown key `{key}`; the keys are about, exercise, check, setup and tags"
    if sum(key in cell.keys for key in KEYS) > 1:
        yield "one cell cannot be two of about, exercise and check"
    if cell.kind == "code" and len(_shown(cell.source)) > MAX_LINES:
        yield f"a code cell of {len(_shown(cell.source))} lines; at most {MAX_LINES} are read at one glance"
    key, name = cell.exercise or ("", "")
    if key != "exercise" and re.search(r"### (BEGIN|END) SOLUTION|### BROKEN", cell.source):
        yield "a solution outside a cell with exercise="
    if key and name not in exercises:
        yield f'{key}="{name}": {_unknown(name, exercises)}'
    elif key == "about" and not (cell.kind == "markdown" and cell.source.startswith("### ")):
        yield f"the text about `{name}` is a markdown cell that starts with a line `### Title`"
    elif key == "check" and cell.source.strip() != f"check({name})":
        yield f"the check cell of `{name}` contains check({name}) and nothing else"
    elif key == "exercise":
        yield from _exercise_problems(cell.source, exercises[name])


def _exercise_problems(source: str, exercise: Exercise) -> Iterator[str]:
    name = exercise.name
    markers = re.findall(r"^[ \t]*### (BEGIN SOLUTION|BROKEN|END SOLUTION)$", source, re.M)
    wanted = ["BEGIN SOLUTION", "BROKEN", "END SOLUTION"] if exercise.repair else ["BEGIN SOLUTION", "END SOLUTION"]
    regions = 1 if exercise.repair else max(len(markers) // 2, 1)  # a class has one for each method
    if markers != wanted * regions:
        found = ", ".join(f"### {marker}" for marker in markers) or "none"
        needed = ", ".join(f"### {marker}" for marker in wanted)
        yield f"`{name}` needs the lines {needed} in this order; found: {found}"
    try:
        trees = [ast.parse(source), ast.parse(broken(source) or "")]
    except SyntaxError as error:
        yield f"`{name}`: its solution, or the broken lines it starts from, is no Python ({error.msg})"
        return
    if not any(getattr(node, "name", None) == name for node in trees[0].body):
        yield f"the exercise cell of `{name}` defines no {name}"


def _unknown(name: str, exercises: Mapping[str, Exercise]) -> str:
    if name in load_registry():
        return f"this exercise is declared in another lesson, {load_registry()[name].lesson}"
    near = difflib.get_close_matches(name, exercises, n=1, cutoff=0.4)
    return "no such exercise is declared" + (f"; the nearest is `{near[0]}`" if near else "")


def _shown(source: str) -> list[str]:
    """The lines of a cell, without those a repair starts from: they replace others."""
    return re.sub(r"### BROKEN\n.*?(?=^[ \t]*### END)", "", source, flags=re.S | re.M).rstrip().splitlines()


# --- execution -------------------------------------------------------------------------------------------------


class ThisInterpreter(AsyncKernelManager):
    """Starts the interpreter that runs this, whichever kernels the user has installed under the name python3."""

    def __init__(self, **options):
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)


def execute(nb: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook with its outputs, run from top to bottom in a fresh kernel of this interpreter."""
    client = NotebookClient(
        deepcopy(nb),
        kernel_manager_class=ThisInterpreter,
        extra_arguments=["--log-level=40"],  # no warnings of the kernel's own on the terminal
        timeout=SECONDS,
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("COURSE_FAST", "NBGRADER_EXECUTION")}
    # What was kept here is no part of the lesson; one thread adds up in the same order on every machine.
    environment |= {"LAYER_BY_LAYER": "", "OMP_NUM_THREADS": "1"}
    try:
        done = client.execute(env=environment)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise LessonError(f"{folder.name}: the solved notebook does not run\n{error}") from None
    done.metadata = deepcopy(nb.metadata)
    for cell in done.cells:
        for output in cell.get("outputs", []):
            _without_widget_view(output)
    return done


def _without_widget_view(output: NotebookNode) -> None:
    """A saved widget points to a model that no kernel holds any more; the static picture beside it stays."""
    data = output.get("data", {})
    if "text/html" in data:
        data.pop("application/vnd.jupyter.widget-view+json", None)


def digest(lesson: Lesson) -> str:
    """Of all that outputs depend on: the text, its declarations, what the notebook imports, the data it reads.

    Not of the scripts make_*.py, which make data.
    """
    root = lesson.root
    declarations = root / "autograder" / "exercises" / f"{lesson.module}.py"
    files = [path for path in (root / "autograder").glob("*.py") if path.stem in _IMPORTED]
    files += [root / "autograder" / "scripts" / f"{lesson.module}.py"]
    files += [path for path in (root / "course").rglob("*") if path.is_file() and not {*path.parts} & {"__pycache__"}]
    files = [path for path in files if path not in _other_figures(lesson) and not path.name.startswith("make_")]
    inputs = [lesson.source, declarations, *sorted(path for path in files if path.suffix not in (".ipynb", ".pyc"))]
    total = hashlib.sha256()
    for path in inputs:
        if path.exists():
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _other_figures(lesson: Lesson) -> set[Path]:
    """The modules of figures that belong to other lessons and that nothing of this one imports."""
    folder = lesson.root / "course" / "widgets"
    reached, new = set(), {lesson.module, *re.findall(r"\bwidgets\.(\w+)", lesson.source.read_text(encoding="utf-8"))}
    while new:
        reached |= new
        texts = [path.read_text(encoding="utf-8") for name in new if (path := folder / f"{name}.py").exists()]
        imports = [line for text in texts for line in re.findall(r"^ *from course\.widgets\b.*", text, re.M)]
        new = set(re.findall(r"\w+", " ".join(imports))) - reached
    others = {other.module for other in lessons(lesson.root)} - reached
    return {folder / f"{name}.py" for name in others}


_IMPORTED = frozenset(
    "__init__ builders play exercise cases compare diagnose report kept grade".split()
)  # by notebooks


# --- build and sync --------------------------------------------------------------------------------------------


def build(lesson: Lesson, force: bool = False) -> str:
    """Writes both notebooks and says what was done; executes only what has changed."""
    fresh, inputs = notebook(lesson), digest(lesson)
    solved = _read(lesson.solved)
    up_to_date = solved is not None and solved.metadata.get(METADATA) == inputs and without_outputs(solved) == fresh
    if force or not up_to_date:
        lesson.solved.parent.mkdir(parents=True, exist_ok=True)
        solved = execute(fresh, lesson.solved.parent)
        solved.metadata[METADATA] = inputs
        _write(lesson.solved, text_of(solved))
    assert solved is not None
    _write(lesson.released, release(solved))
    size = lesson.solved.stat().st_size
    if size > MAX_BYTES:
        raise LessonError(
            f"{lesson.short(lesson.solved)}: {size // 1000} kB with its outputs; at most {MAX_BYTES // 1000} kB"
        )
    return f"{'unchanged' if up_to_date and not force else 'executed'}, {size // 1000} kB"


def start_page(root: Path) -> str | None:
    """The course's first page: text like a lesson's, but nothing in it is graded and nothing is executed."""
    source = root / "solutions" / "start.py"
    if not source.exists():
        return None
    return text_of(assemble(_expanded(cell, {}) for cell in source_cells(source.read_text(encoding="utf-8"))))


def without_outputs(nb: NotebookNode) -> NotebookNode:
    """A solved notebook as it was before it was executed."""
    bare = deepcopy(nb)
    bare.metadata.pop(METADATA, None)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def text_of(nb: NotebookNode) -> str:
    return nbformat.writes(nb) + "\n"


def _read(path: Path) -> NotebookNode | None:
    return nbformat.read(path, as_version=4) if path.exists() else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def differences(lesson: Lesson) -> list[str]:
    """Where the committed notebooks differ from what a rebuild gives; none is what `make check` wants to see."""
    fresh, solved = notebook(lesson), _read(lesson.solved)
    if solved is None or not lesson.released.exists():
        return [f"{lesson.name}: not built yet"]
    committed = lesson.released.read_text(encoding="utf-8")
    return [
        *_difference(lesson.short(lesson.solved), text_of(without_outputs(solved)), text_of(fresh)),
        *_difference(lesson.short(lesson.released), committed, release(solved)),
        *(f"{lesson.short(lesson.solved)}: {sentence}" for sentence in _unfinished(solved)),
        *(f"{lesson.short(lesson.released)}: {sentence}" for sentence in _leaks(json.loads(committed))),
    ]


def is_stale(lesson: Lesson) -> bool:
    """Whether the stored outputs are older than something they depend on. What they show is nbval's matter."""
    solved = _read(lesson.solved)
    return solved is not None and solved.metadata.get(METADATA) != digest(lesson)


def _difference(name: str, committed: str, rebuilt: str) -> list[str]:
    lines = difflib.unified_diff(
        committed.splitlines(), rebuilt.splitlines(), f"{name} (committed)", f"{name} (rebuilt)", n=1, lineterm=""
    )
    shown = list(lines)
    return ["\n".join(shown[:20] + ["…"] * (len(shown) > 20))] if shown else []


def _unfinished(solved: NotebookNode) -> Iterator[str]:
    """What the outputs of a solved notebook must not be."""
    for cell in solved.cells:
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            yield f"cell {cell.id} was not executed"
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                yield f"cell {cell.id} ended in {output.ename}"


def _leaks(released: Mapping) -> Iterator[str]:
    """What a released notebook must not contain."""
    for cell in released["cells"]:
        if cell.get("outputs"):
            yield f"cell {cell['id']} has outputs"
        if re.search(r"### (BEGIN|END) SOLUTION|### BROKEN", "".join(cell["source"])):
            yield f"cell {cell['id']} shows its solution"


def strays(root: Path) -> list[str]:
    """Declarations without a lesson, and generated folders whose text is gone."""
    known = lessons(root)
    modules, names = {lesson.module for lesson in known}, {lesson.name for lesson in known}
    declared = sorted({entry.lesson for entry in load_registry().values()} - modules)
    folders = sorted(
        path for top in ("solutions", "course") for path in (root / top).glob("[0-9][0-9]_*") if path.is_dir()
    )
    return [f"autograder/exercises/{module}.py: no lesson solutions/NN_{module}.py" for module in declared] + [
        f"{path.relative_to(root)}: no text solutions/{path.name}.py" for path in folders if path.name not in names
    ]


def unfair(lesson: Lesson) -> list[str]:
    """Exercises of a built lesson in which the solution does not get all points, or the unsolved cell gets any."""
    full = {name: float(exercise.points) for name, exercise in lesson.exercises.items()}
    wanted = {lesson.solved: full, lesson.released: dict.fromkeys(full, 0.0)}
    return [
        f"{lesson.short(path)}: `{name}` scores {points:g} where it should score {expected[name]:g}"
        for path, expected in wanted.items()
        for name, points in scores(lesson, path).items()
        if points != expected[name]
    ]


def scores(lesson: Lesson, path: Path) -> dict[str, float]:
    """Points by exercise of a notebook, graded as a submission."""
    nb, released = (nbformat.read(file, as_version=4) for file in (path, lesson.released))
    results = examine_notebook(cells_of(Submission(nb, Released(released))), lesson.exercises, jail="none")  # our own
    return {name: result.points for name, result in results.items()}
