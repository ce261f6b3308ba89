"""How fast a class is graded: ours against stock nbgrader, on the same submissions, in one run. `make bench`.

python -m tests.bench [--lesson 01_linear] [--submissions 100] [--stock 100] [--whole 2] [--growth 2000]
"""

import argparse
import copy
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
import torch
from nbformat import NotebookNode
from tqdm import tqdm

from autograder import batch, demo, nbgrader, play, workers
from autograder.cases import questions
from autograder.exercise import find
from autograder.notebooks import ANSWER, Released

ROOT = Path(__file__).parents[1]
STOCK = """
c = get_config()
c.CourseDirectory.root = {root!r}
c.CourseDirectory.course_id = "layer-by-layer"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "course"
c.Exchange.root = {root!r}
"""
MODULES = {"nbgrader": "nbgrader", "autograder": "autograder.cli"}
MIXED = (demo.good, demo.mistaken, demo.partly, demo.mistaken, demo.shared)
RIGHT = (demo.good,)


# --- two courses -------------------------------------------------------------------------------------------------


def our_course(root: Path, name: str, count: int, kinds: Sequence[demo.Kind] = MIXED) -> Path:
    """A course of ours with so many submissions."""
    demo.set_up(ROOT, root)
    batch.release(batch.app_at(root), name)
    hand_in(root, name, count, kinds)
    return root


def stock_course(root: Path, name: str, count: int, keep: Callable[[NotebookNode, int], bool]) -> Path:
    """A course with nbgrader as it comes; its lesson has the cells to keep."""
    solved = nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4)
    solved.cells = [cell for number, cell in enumerate(solved.cells) if keep(cell, number)]
    folder = root / "solutions" / name
    folder.mkdir(parents=True)
    nbformat.write(solved, folder / f"{name}.ipynb")
    (root / "nbgrader_config.py").write_text(STOCK.format(root=str(root)))
    command(root, "nbgrader", "generate_assignment", name)
    hand_in(root, name, count, MIXED)
    return root


def without_figures(name: str) -> Callable[[NotebookNode, int], bool]:
    """Text, the exercises and their checks, and the course's imports: neither training nor figures."""
    solved = nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4)
    first = next(number for number, cell in enumerate(solved.cells) if cell.cell_type == "code")
    return lambda cell, number: cell.cell_type != "code" or "nbgrader" in cell.metadata or number == first


def hand_in(root: Path, name: str, count: int, kinds: Sequence[demo.Kind]) -> None:
    """A class whose students are of these kinds in turn, the same in both courses."""
    lesson = demo.lesson_at(ROOT, name)
    released = nbformat.read(root / "course" / name / f"{name}.ipynb", as_version=4)
    for number in range(count):
        answers = answers_in(kinds[number % len(kinds)](lesson, number).data)
        nb = copy.deepcopy(released)
        for cell in nb.cells:
            cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
        folder = root / "submitted" / f"student{number:05}" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.ipynb").write_text(nbformat.writes(nb))


def answers_in(data: bytes) -> dict[str, str]:
    named = ((cell.metadata.get("nbgrader", {}).get("grade_id", ""), cell.source) for cell in
             nbformat.reads(data.decode(), as_version=4).cells)  # fmt: skip
    return {name: source for name, source in named if name.endswith(ANSWER)}


def command(root: Path, program: str, *arguments: str) -> float:
    """Seconds that a command takes, its start included."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", MODULES[program], *arguments], cwd=root, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)} did not succeed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - begun


def scores(root: Path, name: str) -> list[dict]:
    return list(batch.standing_of(batch.course_at(root), name).scores.values())


# --- where our time goes -----------------------------------------------------------------------------------------


@contextmanager
def timed(split: dict[str, float], owner, attribute: str, stage: str):
    """Adds up the seconds that a function takes, but for those of a stage inside it."""
    intact = getattr(owner, attribute)

    def measured(*args, **kwargs):
        begun = time.perf_counter()
        try:
            return intact(*args, **kwargs)
        finally:
            split[stage] += time.perf_counter() - begun

    setattr(owner, attribute, measured)
    try:
        yield
    finally:
        setattr(owner, attribute, intact)


def split_of(root: Path, name: str, count: int) -> dict[str, float]:
    """Milliseconds per submission, one process, one after the other."""
    split: dict[str, float] = defaultdict(float)
    with (
        timed(split, nbgrader, "paper_in", "read"),
        timed(split, nbgrader, "understood", "understand"),
        timed(split, workers, "examine", "examine"),
        timed(split, nbgrader.Autograde, "settle", "record"),
    ):
        intact, nbgrader.may_fork = nbgrader.may_fork, lambda: False
        try:
            app = batch.app_at(root)
            batch.grade_lesson(app, name, lambda *_: None, force=True)
        finally:
            nbgrader.may_fork = intact
    return {stage: 1000 * seconds / count for stage, seconds in split.items()}


def floor(root: Path, name: str, count: int) -> float:
    """Milliseconds per submission to run the same cells and answer the same questions in a warm interpreter."""
    released = Released(nbformat.read(root / "course" / name / f"{name}.ipynb", as_version=4))
    folders = sorted((root / "submitted").glob(f"*/{name}"))[:count]
    papers = [nbgrader.understood(nbgrader.paper_in(folder, f"{name}.ipynb"), name, released) for folder in folders]
    exercises = list(demo.lesson_at(ROOT, name).solved)
    asked = {exercise: [question.request() for question in questions(find(exercise), 1)] for exercise in exercises}
    bare(papers[0].cells, asked)
    begun = time.perf_counter()
    for paper in papers:
        bare(paper.cells, asked)
    return 1000 * (time.perf_counter() - begun) / count


def bare(cells: Sequence, asked: dict[str, list]) -> None:
    namespace: dict = {}
    for cell in cells:
        try:
            exec(cell.source, namespace)
        except Exception:
            continue
    for exercise, requests in asked.items():
        for request in requests if exercise in namespace else ():
            play.perform(namespace[exercise], request)


# --- the table ---------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lesson", default="01_linear")
    parser.add_argument("--submissions", type=int, default=100)
    parser.add_argument("--stock", type=int, default=100, help="of these, how many stock nbgrader grades")
    parser.add_argument("--whole", type=int, default=2, help="submissions of the whole lesson, figures and all")
    parser.add_argument("--growth", type=int, default=0, help="the size of a large class to compare with")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    name, count, figures = args.lesson, args.submissions, {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=7, file=sys.stderr, desc="bench") as bar:
        ours = our_course(Path(folder) / "ours", name, count)
        stock = stock_course(Path(folder) / "stock", name, args.stock, without_figures(name))
        bar.update()
        figures["ours, with feedback"] = command(ours, "autograder", "grade", name) / count
        bar.update()
        figures["stock"] = command(stock, "nbgrader", "autograde", name) / args.stock
        same = min(count, args.stock)
        assert scores(ours, name)[:same] == scores(stock, name)[:same], "the two do not give the same grades"
        bar.update()
        figures["our feedback alone"] = command(ours, "nbgrader", "generate_feedback", name) / count
        figures["stock feedback"] = command(stock, "nbgrader", "generate_feedback", name) / args.stock
        bar.update()
        right = our_course(Path(folder) / "right", name, count, RIGHT)
        figures["ours, if all are right"] = command(right, "autograder", "grade", name) / count
        bar.update()
        if args.whole:
            whole = stock_course(Path(folder) / "whole", name, args.whole, lambda cell, number: True)
            figures["stock, whole lesson"] = command(whole, "nbgrader", "autograde", name) / args.whole
        bar.update()
        split = split_of(ours, name, count)
        ground = floor(ours, name, min(count, 20))
        bar.update()
        if args.growth:
            large = our_course(Path(folder) / "large", name, args.growth)
            figures[f"ours, {args.growth} submissions"] = command(large, "autograder", "grade", name) / args.growth
    if args.json:
        print(json.dumps({"seconds": figures, "split": split, "floor": ground}, indent=1))
        return
    print(f"\n{name}: seconds per submission, everything included, {os.cpu_count()} cores")
    for what, seconds in figures.items():
        print(f"  {what:24}{seconds:9.4f}")
    print(f"\n  stock / ours                    {figures['stock'] / figures['ours, with feedback']:8.1f}×")
    print(f"  stock / ours, if all are right  {figures['stock'] / figures['ours, if all are right']:8.1f}×")
    print(f"  feedback: stock / ours          {figures['stock feedback'] / figures['our feedback alone']:8.1f}×")
    if args.whole:
        print(
            f"  whole lesson / ours             {figures['stock, whole lesson'] / figures['ours, with feedback']:8.1f}×"
        )
    print("\nwhere our time goes, milliseconds per submission, one process:")
    for stage, milliseconds in split.items():
        print(f"  {stage:24}{milliseconds:9.1f}")
    print(f"  {'(the bare code: floor)':24}{ground:9.1f}")
    print(f"\nlargest process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
