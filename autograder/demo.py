"""A sample class, graded end to end: `autograder demo`.

Fourteen students hand in every lesson, made from the solved notebooks and the declared mistakes; nbgrader's own
commands release, autograde and write feedback into demo/. Nothing is asserted here; the tests prove that each student
gets what is meant.
"""

import ast
import inspect
import json
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.apps import NbGrader
from tqdm import tqdm

from autograder import batch
from autograder.exercise import find
from autograder.notebooks import ANSWER

SECONDS = 3.0  # for one answer: the endless loop of the class takes all of it


# --- the class ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lesson:
    """What a student's paper is made from."""

    name: str
    released: NotebookNode
    solved: Mapping[str, str]  # exercise -> right answer

    def paper(self, answers: Mapping[str, str]) -> NotebookNode:
        """The released notebook with these answers written into it."""
        nb = deepcopy(self.released)
        for exercise, source in answers.items():
            cell_of(nb, exercise + ANSWER).source = source
        return nb


@dataclass(frozen=True)
class Paper:
    """What a student hands in for a lesson, and what it is meant to be worth."""

    data: bytes | None  # None: no notebook in the folder
    worth: Mapping[str, float | Callable]  # exercise -> points, or the wrong implementation that was written down


def cell_of(nb: NotebookNode, grade_id: str) -> NotebookNode:
    return next(cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def full(lesson: Lesson) -> dict[str, float | Callable]:
    return {exercise: float(find(exercise).points) for exercise in lesson.solved}


def nothing(lesson: Lesson) -> dict[str, float | Callable]:
    return dict.fromkeys(lesson.solved, 0.0)


def written(nb: NotebookNode) -> bytes:
    return nbformat.writes(nb).encode()


def good(lesson: Lesson, number: int) -> Paper:
    return Paper(written(lesson.paper(lesson.solved)), full(lesson))


def blank(lesson: Lesson, number: int) -> Paper:
    return Paper(written(lesson.released), nothing(lesson))


def partly(lesson: Lesson, number: int) -> Paper:
    """The first half of the exercises, then the weekend began."""
    half = list(lesson.solved)[: (len(lesson.solved) + 1) // 2]
    worth = nothing(lesson) | {exercise: float(find(exercise).points) for exercise in half}
    return Paper(written(lesson.paper({exercise: lesson.solved[exercise] for exercise in half})), worth)


def mistaken(lesson: Lesson, number: int) -> Paper:
    """Every third exercise wrong, each in another of the declared ways."""
    wrong = {}
    for place, exercise in enumerate(lesson.solved):
        known = find(exercise).mistakes
        if (place + number) % 3 == 0 and known:
            wrong[exercise] = known[(place + number) // 3 % len(known)][1]
    answers = {exercise: as_answer(implementation, exercise) for exercise, implementation in wrong.items()}
    return Paper(written(lesson.paper({**lesson.solved, **answers})), full(lesson) | wrong)


def shared(lesson: Lesson, number: int) -> Paper:
    """The mistake that the class has in common: the first that is declared for the first gradient."""
    exercise = next(name for name in lesson.solved if find(name).kind == "gradient")
    wrong = find(exercise).mistakes[0][1]
    nb = lesson.paper({**lesson.solved, exercise: as_answer(wrong, exercise)})
    return Paper(written(nb), full(lesson) | {exercise: wrong})


def spoilt(lesson: Lesson, number: int, make: Callable[[str, str], str], worthless: bool = True) -> Paper:
    """All right, but for one answer that `make` rewrites from its name and source."""
    exercise = functions(lesson)[number % len(functions(lesson))]
    nb = lesson.paper({**lesson.solved, exercise: make(exercise, lesson.solved[exercise])})
    return Paper(written(nb), full(lesson) | ({exercise: 0.0} if worthless else {}))


def functions(lesson: Lesson) -> list[str]:
    return [exercise for exercise in lesson.solved if find(exercise).kind in ("function", "gradient")]


def syntax_error(lesson: Lesson, number: int) -> Paper:
    return spoilt(lesson, number, lambda exercise, source: source.replace("):", ")", 1))


def endless_loop(lesson: Lesson, number: int) -> Paper:
    return spoilt(
        lesson, number, lambda exercise, source: f"def {exercise}(*arguments):\n    while True:\n        pass"
    )


def warns(lesson: Lesson, number: int) -> Paper:
    """Right, and noisy on stderr, both when it is defined and when it is called."""
    noise = "import sys\nimport warnings\n\nwarnings.warn('this is only a warning')\n\n"
    shout = "    print('still computing', file=sys.stderr)\n    warnings.warn('deprecated in 1962')\n"

    def make(exercise: str, source: str) -> str:
        body = ast.parse(source).body[-1].body  # type: ignore[attr-defined]
        first = next(node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)))
        lines = source.splitlines(keepends=True)
        return noise + "".join([*lines[: first.lineno - 1], shout, *lines[first.lineno - 1 :]])

    return spoilt(lesson, number, make, worthless=False)


def missing(lesson: Lesson, number: int) -> Paper:
    return Paper(None, nothing(lesson))


def broken_json(lesson: Lesson, number: int) -> Paper:
    """The laptop ran out of power while it saved."""
    data = written(lesson.paper(lesson.solved))
    return Paper(data[: len(data) * 2 // 3], nothing(lesson))


def deleted_cells(lesson: Lesson, number: int) -> Paper:
    """A check cell is gone, which costs nothing, and an answer, which does."""
    nb = lesson.paper(lesson.solved)
    first, second, *_ = lesson.solved
    nb.cells.remove(cell_of(nb, first))
    nb.cells.remove(cell_of(nb, second + ANSWER))
    return Paper(written(nb), full(lesson) | {second: 0.0})


def copied_cells(lesson: Lesson, number: int) -> Paper:
    """The first attempt is still there, above a copy that is right."""
    nb = lesson.paper(lesson.solved)
    first = next(iter(lesson.solved))
    cell = cell_of(nb, first + ANSWER)
    attempt = deepcopy(cell) | {"id": "attempt", "source": f"{cell.source}\n    return None"}
    nb.cells.insert(nb.cells.index(cell), nbformat.from_dict(attempt))
    return Paper(written(nb), full(lesson))


def retyped_cells(lesson: Lesson, number: int) -> Paper:
    """An answer and a check became text by a slip on the keyboard."""
    nb = lesson.paper(lesson.solved)
    for grade_id in (first := next(iter(lesson.solved)), first + ANSWER):
        cell = cell_of(nb, grade_id)
        cell.cell_type = "markdown"
        del cell["outputs"], cell["execution_count"]
    return Paper(json.dumps(nb).encode(), full(lesson))


Kind = Callable[[Lesson, int], Paper]
CLASS: Mapping[str, tuple[Kind, Kind, Kind]] = {  # what each hands in for the first, second and third lesson
    "ada_activation": (good, good, good),
    "bruno_bias": (shared, shared, shared),
    "carla_crossentropy": (mistaken, mistaken, mistaken),
    "dmitri_dropout": (good, partly, blank),
    "elif_epoch": (mistaken, mistaken, mistaken),
    "femi_forward": (warns, good, warns),
    "grete_gradient": (shared, mistaken, shared),
    "hiro_hinge": (syntax_error, mistaken, syntax_error),
    "ines_infinity": (shared, endless_loop, shared),
    "jonas_jacobian": (broken_json, good, missing),
    "kofi_kernel": (deleted_cells, copied_cells, retyped_cells),
    "lucia_logit": (shared, shared, partly),
    "milo_momentum": (blank, missing, broken_json),
    "nadia_nan": (mistaken, warns, mistaken),
}


# --- a declared mistake as a student writes it -------------------------------------------------------------------


def as_answer(implementation: Callable, name: str) -> str:
    """The source of a wrong implementation out of a declaration, with all that it uses, as the function `name`."""
    if inspect.isbuiltin(implementation):
        return f"{name} = {implementation.__name__}"
    implementation = bare(implementation)
    return "\n\n\n".join([*_needs(implementation), _renamed(implementation, name)])


def bare(implementation: Callable) -> Callable:
    """The function inside a wrapper that passes everything on, such as one that silences warnings."""
    implementation = inspect.unwrap(implementation)
    if isinstance(implementation, FunctionType) and not inspect.getfullargspec(implementation).args:
        inner = [value for value in _closure(implementation).values() if inspect.isfunction(value)]
        return bare(*inner) if inner else implementation
    return implementation


def _renamed(implementation: Callable, name: str) -> str:
    if isinstance(implementation, FunctionType) and implementation.__name__ == "<lambda>":
        node = deepcopy(lambda_of(implementation))
        node.args.defaults = [ast.parse(repr(value), mode="eval").body for value in implementation.__defaults__ or ()]
        return f"def {name}({ast.unparse(node.args)}):\n    return {ast.unparse(node.body)}"
    source = textwrap.dedent(inspect.getsource(implementation)).strip()
    undecorated = source[re.search("^(def|class) ", source, re.M).start() :]  # type: ignore[union-attr]
    return re.sub(rf"\b{implementation.__name__}\b", name, undecorated)


def lambda_of(function: FunctionType) -> ast.Lambda:
    """The lambda expression that a function was made from: the smallest one around all of its code."""
    positions = _positions(function.__code__)
    tree = _tree(sys.modules[function.__module__])
    lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    around = [node for node in lambdas if all(_start(node) <= start and end <= _end(node) for start, end in positions)]
    return max(around, key=_start)


def _positions(code: CodeType) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end of everything in the code that stands somewhere in the text."""
    found = []
    for line, end_line, column, end_column in code.co_positions():
        if line and end_line and column is not None and end_column:
            found.append(((line, column), (end_line, end_column)))
    return found


def _start(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


@cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _needs(implementation: Callable) -> list[str]:
    """What a cell has to define before the implementation: imports, then constants and helpers in their order."""
    constants = _closure(implementation)
    pieces = [f"{name} = {value!r}" for name, value in constants.items() if not callable(value)]
    for name in _names(ast.parse(_renamed(implementation, "_"))):
        if callable(constants.get(name)):
            pieces += [*_needs(constants[name]), _renamed(constants[name], name)]
        elif name not in constants:
            pieces += _defined(name, sys.modules[implementation.__module__])
    return list(dict.fromkeys(pieces))


def _defined(name: str, module: ModuleType) -> list[str]:
    """A module's own definition of a name, after what that needs; nothing where the name is none of the module's."""
    value = vars(module).get(name)
    if getattr(value, "__module__", None) == module.__name__ and callable(value):
        return [*_needs(bare(value)), _renamed(bare(value), name)]
    for node in _tree(module).body:
        imported = isinstance(node, ast.Import | ast.ImportFrom) and any(name in (a.name, a.asname) for a in node.names)
        assigned = isinstance(node, ast.Assign) and name in [
            n for target in node.targets for n in _names(target, ast.Store)
        ]
        if imported or assigned:
            source = ast.unparse(node)
            return [*(piece for used in _names(node) for piece in _defined(used, module)), source]
    return []


def _closure(implementation: Callable) -> dict[str, Any]:
    """What a function, or a class's methods, took along from the function that made it."""
    if inspect.isclass(implementation):
        methods = [getattr(value, "__func__", value) for value in vars(implementation).values()]
        return {
            name: value for method in filter(inspect.isfunction, methods) for name, value in _closure(method).items()
        }
    assert isinstance(implementation, FunctionType)
    cells = zip(implementation.__code__.co_freevars, implementation.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if name != "__class__"}


def _names(tree: ast.AST, context: type = ast.Load) -> list[str]:
    """The names that a piece of code reads, or assigns, in order."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(node.id for node in nodes if isinstance(node.ctx, context)))


# --- the whole of it ---------------------------------------------------------------------------------------------


def demo(source: Path | str = ".", root: Path | str = "demo", **options: str) -> int:
    """Makes the class in `root` from the solved notebooks in `source`, grades it, and says how it stands.

    `options` are attributes of nbgrader.Autograde: jail.
    """
    names = set_up(Path(source), Path(root))
    app = batch.app_at(root)
    with tqdm(total=len(names) * len(CLASS), unit="student", file=sys.stderr) as bar:
        complaints = [said for number, name in enumerate(names) for said in _grade(app, name, number, bar, options)]
    standings = [batch.standing_of(app.coursedir, name) for name in names]
    for standing in standings:
        print(f"\n{batch.table(standing)}")
    print(f"\n{batch.frequent(sum((standing.mistakes for standing in standings), Counter()))}\n")
    for name in names:
        print(batch.feedback_at(app.coursedir, name))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return int(bool(complaints) or any(standing.ungraded for standing in standings))


def set_up(source: Path, root: Path) -> list[str]:
    """A new course folder with the configuration and the solved notebooks of this one; the lessons' names."""
    if root.exists():
        shutil.rmtree(root)
    names = sorted(path.stem for path in source.glob("solutions/[0-9][0-9]_*/[0-9][0-9]_*.ipynb"))[
        : len(next(iter(CLASS.values())))
    ]
    for name in names:
        shutil.copytree(source / "solutions" / name, root / "solutions" / name)
    config = (source / "nbgrader_config.py").read_text(encoding="utf-8")
    (root / "nbgrader_config.py").write_text(f"{config}c.Autograde.seconds = {SECONDS}\n", encoding="utf-8")
    return names


def _grade(app: NbGrader, name: str, number: int, bar: tqdm, options: Mapping[str, str]) -> list[str]:
    """Releases a lesson, hands in everybody's paper, autogrades and writes the feedback; what went wrong."""
    bar.set_description(name)
    batch.release(app, name)
    for student, paper in papers(lesson_at(Path(app.coursedir.root), name), number).items():
        folder = Path(app.coursedir.format_path(app.coursedir.submitted_directory, student, name))
        folder.mkdir(parents=True)
        if paper.data is not None:
            (folder / f"{name}.ipynb").write_bytes(paper.data)
    return batch.grade_lesson(app, name, batch.Tally(bar), **options)[0]


def lesson_at(root: Path, name: str) -> Lesson:
    released = nbformat.read(root / "course" / name / f"{name}.ipynb", as_version=4)
    solved = nbformat.read(root / "solutions" / name / f"{name}.ipynb", as_version=4)
    exercises = [
        cell.metadata.nbgrader.grade_id for cell in released.cells if cell.metadata.get("nbgrader", {}).get("grade")
    ]
    return Lesson(name, released, {exercise: cell_of(solved, exercise + ANSWER).source for exercise in exercises})


def papers(lesson: Lesson, number: int) -> dict[str, Paper]:
    """What everybody hands in for the lesson of this number."""
    return {student: kinds[number](lesson, place) for place, (student, kinds) in enumerate(CLASS.items())}
