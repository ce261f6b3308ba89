"""Many submissions examined at once: source text in, verdicts out; nothing else is shared."""

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait

from autograder.report import Result
from autograder.sandbox import TOTAL, Cell, examine_notebook

GRACE = 300.0  # seconds beyond twice a notebook's own budget, after which a process counts as hanging


@dataclass(frozen=True)
class Task:
    """A submission as it is examined: source text and what to draw its questions from."""

    student: str
    cells: tuple[Cell, ...]
    exercises: tuple[str, ...]
    seed: int
    seconds: float  # for the answer to one exercise
    jail: str = "bubblewrap"


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
        results = examine_notebook(task.cells, task.exercises, task.seed, task.seconds, jail=task.jail)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return {name: Verdict.of(result) for name, result in results.items()}


def here(tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
    """Examines tasks in this process, one after the other."""
    for task in tasks:
        yield task, examine(task)


def local(tasks: Iterable[Task], workers: int | None = None) -> Iterator[tuple[Task, Outcome]]:
    """Examines tasks in processes forked from this one, and yields them as they are done.

    Default: one process more than there are cores, so that none idles while one waits for its next task.

    A task whose process dies or hangs is tried again, alone; when that happens twice, the outcome says so. Only as many
    tasks are under way as there are processes, so that memory does not grow with the class.
    """
    lost: list[Task] = []
    for task, outcome, came in _examined(iter(tasks), workers or (os.cpu_count() or 1) + 1):
        if came:
            yield task, outcome
        else:
            lost.append(task)
    for task, outcome, _ in _examined(iter(lost), 1):
        yield task, outcome


def _examined(tasks: Iterator[Task], count: int) -> Iterator[tuple[Task, Outcome, bool]]:
    """What `count` processes find out, and whether it came from one; else the outcome says how the process ended."""
    crew: list[_Worker] = []
    try:
        for task in islice(tasks, count):
            crew.append(_Worker(crew, task))
        while crew:
            wait([worker.pipe for worker in crew], max(0.0, min(worker.deadline for worker in crew) - time.monotonic()))
            for worker in [worker for worker in crew if worker.pipe.poll() or time.monotonic() > worker.deadline]:
                outcome, came = worker.take()
                done, following = worker.task, next(tasks, None)
                if came and following:
                    worker.give(following)
                else:
                    worker.end()
                    crew.remove(worker)
                    if following:
                        crew.append(_Worker(crew, following))
                yield done, outcome, came
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A forked process that examines one task after the other."""

    def __init__(self, others: Sequence["_Worker"], task: Task):
        import torch  # a second that only a run with something to examine has to spend

        torch.set_num_threads(1)  # a fork takes no other threads along
        self.pipe, theirs = multiprocessing.Pipe()
        inherited = [self.pipe, *(worker.pipe for worker in others)]
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_serve, args=(theirs, inherited), daemon=True)
        self.process.start()
        theirs.close()
        self.give(task)

    def give(self, task: Task) -> None:
        """Has a task examined. Where the process is gone, `take` will say so."""
        self.task, self.patience = task, 2 * TOTAL * task.seconds + GRACE
        self.deadline = time.monotonic() + self.patience
        try:
            self.pipe.send(task)
        except OSError:
            self.deadline = time.monotonic()

    def take(self) -> tuple[Outcome, bool]:
        """The outcome of the task, or how the process ended without one."""
        if not self.pipe.poll() and self.process.is_alive():
            return f"the process that examined it did not come back within {self.patience:g} seconds, twice", False
        try:
            return self.pipe.recv(), True
        except (EOFError, OSError):
            self.process.join()
            return f"the process that examined it ended twice (exit code {self.process.exitcode})", False

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def _serve(pipe: Connection, inherited: Sequence[Connection]) -> None:
    """Examines what comes through the pipe, until its other end, which only the parent holds, is closed."""
    for other in inherited:
        other.close()
    try:
        while True:
            pipe.send(examine(pipe.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return
