"""What the course's first page shows: the lessons at hand, how far the reader is, whether this computer is ready."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from autograder.exercise import Exercise, load_registry
from autograder.notebooks import NotebookError, parse_notebook

NEEDED = ("numpy", "torch", "matplotlib", "ipywidgets", "scikit-learn", "safetensors")


@dataclass(frozen=True)
class Progress:
    """A lesson as it lies on the reader's disk."""

    path: Path
    title: str
    exercises: tuple[Exercise, ...]
    done: frozenset[str]  # exercises whose check, when the notebook was last saved, had all points

    @property
    def points(self) -> int:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def minutes(self) -> int:
        return sum(exercise.minutes for exercise in self.exercises)


def progress(course: Path) -> Iterator[Progress]:
    """The lessons in a folder, with the outputs of their check cells as they were last saved."""
    for path in sorted(course.glob("[0-9][0-9]_*/[0-9][0-9]_*.ipynb")):
        try:
            cells = parse_notebook(path.read_bytes())["cells"]
        except NotebookError:
            continue
        heading = next((c["source"] for c in cells if c["cell_type"] == "markdown"), "")
        title = "".join(heading).partition("\n")[0].lstrip("# ")
        module = path.stem.partition("_")[2]
        exercises = tuple(entry for entry in load_registry().values() if entry.lesson == module)
        printed = "\n".join("".join(out.get("text", "")) for c in cells for out in c.get("outputs", ()))
        done = {exercise.name for exercise in exercises if re.search(passed(exercise), printed, re.M)}
        yield Progress(path, title or path.stem, exercises, frozenset(done))


def passed(exercise: Exercise) -> str:
    """The line that a check prints when everything is right, as a pattern."""
    return rf"^{exercise.name}: {exercise.points} of {exercise.points} point"


def course_map(course: str | Path = "."):
    """The lessons at hand as a table: exercises, points, minutes, and what is solved."""
    from IPython.display import Markdown

    rows = [
        f"| [{lesson.title}]({lesson.path.relative_to(course).as_posix()}) "
        f"| {', '.join(_ticked(exercise, lesson.done) for exercise in lesson.exercises)} "
        f"| {lesson.points} | {_duration(lesson.minutes)} | {len(lesson.done)} of {len(lesson.exercises)} |"
        for lesson in progress(Path(course))
    ]
    head = "| lesson | exercises | points | exercises alone take about | solved |\n|:--|:--|--:|--:|--:|"
    return Markdown("\n".join([head, *rows]) if rows else "No lesson was found in this folder.")


def _ticked(exercise: Exercise, done: frozenset[str]) -> str:
    return f"`{exercise.name}`" + (" ✓" if exercise.name in done else "")


def _duration(minutes: int) -> str:
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def environment() -> None:
    """Prints the versions that the lessons use, and says what is missing or too old."""
    from packaging.requirements import Requirement

    required = {r.name: r for r in map(Requirement, metadata.requires("layer-by-layer") or ())}
    print(f"{'Python':14}{sys.version.split()[0]}")
    verdicts = [_verdict(name, str(required[name].specifier)) for name in NEEDED]
    wrong = [name for name, good in zip(NEEDED, verdicts, strict=True) if not good]
    print(f"\nMissing or outside the range: {', '.join(wrong)}." if wrong else "\nEverything is here.")


def _verdict(name: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        found = ""
    good = bool(found) and SpecifierSet(wanted).contains(found.partition("+")[0], prereleases=True)
    print(f"{name:14}{found or 'missing':12}{'' if good else f'  needs {wanted}'}".rstrip())
    return good
