"""A second look at a random share of verdicts, on this machine: it finds a worker that lies and hardware that fails."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autograder.workers import Outcome, Task, Verdict, Verdicts, examine


@dataclass(frozen=True)
class Difference:
    """A verdict that did not come out again."""

    student: str
    recorded: Verdict
    rechecked: Verdict

    def __str__(self) -> str:
        worker = f"worker {self.recorded.worker}" if self.recorded.worker else "this machine"
        said, found = (f"{v.points:g} of {v.max_points}" for v in (self.recorded, self.rechecked))
        found = f"the same points with another report ({found})" if said == found else f"{found} points"
        return f"{self.student}, {self.recorded.exercise}: {worker} said {said} points; a second look found {found}."


class Audit:
    """Examines a random share of submissions again, and every one of a worker that was caught.

    `differences` is what came out otherwise, or not at all: a str of each is a sentence. `suspects` are the students
    whose verdicts are still the bare word of a worker that was caught later: they are to be examined again here.
    """

    def __init__(self, share: float, chance: random.Random | None = None):
        self.share, self.chance = share, chance or random.SystemRandom()
        self.differences: list[Difference | str] = []
        self.caught: set[str] = set()
        self._believed: dict[str, list[str]] = defaultdict(list)  # worker -> students

    @property
    def suspects(self) -> list[str]:
        return [student for worker in sorted(self.caught) for student in self._believed[worker]]

    def watch(self, examined: Iterable[tuple[Task, Outcome]]) -> Iterator[tuple[Task, Outcome]]:
        """The same pairs; where a second look differs, with what was found here."""
        for task, outcome in examined:
            if isinstance(outcome, str):  # nobody's points, and it may be a submission that kills its examiner
                yield task, outcome
                continue
            (worker,) = {verdict.worker for verdict in outcome.values()} or {""}
            if worker in self.caught or self.chance.random() < self.share:
                outcome = self._second_look(task, outcome, worker)
            elif worker:
                self._believed[worker].append(task.student)
            yield task, outcome

    def _second_look(self, task: Task, outcome: Verdicts, worker: str) -> Outcome:
        here = examine(task)
        if isinstance(here, str):
            self.differences.append(f"{task.student}: there was no second look, because {here}")
            return outcome
        found = differences(task, outcome, here)
        if not found:
            return outcome
        self.differences += found
        if here != examine(task):  # the answer itself is unsteady: nobody lied
            return outcome
        if worker:
            self.caught.add(worker)
        return here


def differences(task: Task, recorded: Verdicts, rechecked: Verdicts) -> list[Difference]:
    """The verdicts that two examinations of a task do not share."""
    pairs = ((recorded[name], rechecked[name]) for name in task.exercises)
    return [Difference(task.student, said, found) for said, found in pairs if said != found]


def share(text: str) -> float:
    """ "2%" -> 0.02; a ValueError for what is no share."""
    number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= number <= 1:
        raise ValueError(f"a share is between 0% and 100%, such as 2%; this is {text!r}")
    return number
