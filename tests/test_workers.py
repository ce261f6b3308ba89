"""Many processes that examine: what they find, and what a death or a hang costs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autograder import workers
from autograder.sandbox import Cell
from autograder.workers import Task, Verdict

WORDS = {"dies": 2, "dies_once": 1, "hangs": 2}  # what a task does, so many times


def task(number: int, source: str = "") -> Task:
    return Task(f"student-{number}", (Cell(None, source),), ("sum",), seed=number, seconds=0.0)


def verdict(task: Task):
    return {"sum": Verdict("sum", float(task.seed), 9, f"{task.seed} points")}


@pytest.fixture(autouse=True)
def examine(monkeypatch, tmp_path):
    """Examines without a jail; what a task says is done to the process that examines it."""
    monkeypatch.setattr(workers, "GRACE", 0.5)

    def examine(task):
        word, tried = task.cells[0].source, tmp_path / task.student
        tries = tried.read_text() if tried.exists() else ""
        tried.write_text(tries + "x")
        if len(tries) < WORDS.get(word, 0):
            if word == "hangs":
                time.sleep(60)
            os.kill(os.getpid(), signal.SIGKILL)
        return verdict(task)

    monkeypatch.setattr(workers, "examine", examine)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_task_is_examined_once(count, tmp_path):
    tasks = [task(number) for number in range(9)]
    found = dict(workers.local(tasks, count))
    assert found == {each: verdict(each) for each in tasks}
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}


def test_a_process_that_dies_costs_its_task_another_try(tmp_path):
    tasks = [task(0), task(1, "dies_once"), task(2), task(3)]
    found = dict(workers.local(tasks, 2))
    assert found == {each: verdict(each) for each in tasks}
    assert (tmp_path / "student-1").read_text() == "xx"


@pytest.mark.parametrize(
    ("word", "reason"), [("dies", "ended twice (exit code -9)"), ("hangs", "did not come back within 0.5 seconds")]
)
def test_a_task_that_takes_two_processes_with_it_has_a_reason_and_the_others_their_verdicts(word, reason):
    tasks = [task(0), task(1, word), task(2), task(3)]
    found = {each.student: outcome for each, outcome in workers.local(tasks, 2)}
    assert reason in found.pop("student-1")
    assert len(found) == 3 and not any(isinstance(outcome, str) for outcome in found.values())


def test_no_more_tasks_are_drawn_than_processes_can_take():
    drawn = []

    def tasks():
        for number in range(20):
            drawn.append(number)
            yield task(number)

    for done, _ in enumerate(workers.local(tasks(), 2), 1):
        assert len(drawn) <= done + 2


def test_a_failure_of_the_tasks_themselves_ends_the_processes():
    def tasks():
        yield task(0)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(workers.local(tasks(), 2))


ORPHANS = """
import time
from autograder import workers
from autograder.workers import Task

def examine(task):
    time.sleep(0.2)
    return {}

workers.examine = examine
for number, _ in enumerate(workers.local((Task(str(n), (), (), 0, 1.0) for n in range(1000)), 2)):
    if not number:
        print("begun", flush=True)
"""


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_no_process_outlives_the_one_that_started_it():
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline, "a worker goes on without anyone to tell"
        time.sleep(0.05)
