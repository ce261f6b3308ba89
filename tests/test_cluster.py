"""Grading on Dask workers, with a real scheduler and real workers, of which some are killed, broken or dishonest."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from distributed import Client

from autograder import cluster
from autograder.audit import Audit
from autograder.exercise import find
from autograder.sandbox import Cell
from autograder.workers import Task, Verdict, examine

RIGHT = "def linear_forward(x, w, b):\n    return x @ w.T + b"
WRONG = "def linear_forward(x, w, b):\n    return x @ w.T"
SLOW = "def linear_forward(x, w, b):\n    import time; time.sleep(0.02)\n    return x @ w.T + b"
DASK = Path(sys.executable).with_name("dask")


def task(student, source=RIGHT):
    cells = (Cell(None, "import numpy as np"), Cell("linear_forward", source))
    return Task(student, cells, ("linear_forward",), seed=1, seconds=10.0)


TASKS = [task(f"student-{number:02}", (RIGHT, WRONG, SLOW)[number % 3]) for number in range(20)]


@pytest.fixture(scope="module")
def honest():
    """What this machine finds, by student."""
    return {task.student: examine(task) for task in TASKS}


def by_student(pairs):
    return {task.student: outcome for task, outcome in pairs}


# --- processes ---------------------------------------------------------------------------------------------------


@contextmanager
def running(folder, *command, failures=3):
    """A dask command with all that it starts; killed in the end."""
    environment = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures)}
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [DASK, *command], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def scheduler_in(folder, **environment):
    file = folder / "scheduler.json"
    command = "scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard", "--scheduler-file", file
    with running(folder, *command, **environment) as it:
        while not (text := file.read_text() if file.exists() else "").rstrip().endswith("}"):  # whole, not begun
            assert it.poll() is None, (folder / "log").read_text()
            time.sleep(0.02)
        yield json.loads(text)["address"]


@contextmanager
def workers(address, folder, count=1, preload=""):
    """Workers of the scheduler at `address`; `preload` is Python code that they run first."""
    (folder / "preload.py").write_text(textwrap.dedent(preload))
    options = ["--nthreads=1", f"--nworkers={count}", "--no-dashboard", "--local-directory", folder]
    more = ["--preload", folder / "preload.py"] if preload else []
    with Client(address, set_as_default=False) as client:
        before = set(client.nthreads())
        with running(folder, "worker", address, *options, *more) as it:
            while len(joined := set(client.nthreads()) - before) < count:
                assert it.poll() is None, (folder / "log").read_text()
                time.sleep(0.02)
            yield sorted(joined)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    with scheduler_in(tmp_path_factory.mktemp("scheduler")) as address:
        yield address


@pytest.fixture(scope="module")
def pair(scheduler, tmp_path_factory):
    """Two honest workers."""
    with workers(scheduler, tmp_path_factory.mktemp("pair"), 2):
        yield scheduler


# --- honest workers ----------------------------------------------------------------------------------------------


def test_workers_find_what_this_machine_finds(pair, honest):
    found = by_student(cluster.remote(TASKS, pair))
    assert found == honest
    assert len({verdict.worker for verdicts in found.values() for verdict in verdicts.values()}) == 2


def test_few_tasks_are_in_flight(pair):
    drawn = 0

    def tasks():
        nonlocal drawn
        for drawn, each in enumerate(TASKS, 1):  # noqa: B007
            yield each

    for done, _ in enumerate(cluster.remote(tasks(), pair)):
        assert drawn - done <= 2 * cluster.AHEAD


def test_a_killed_worker_costs_time_only(pair, honest):
    with Client(pair, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))
    found = {}
    for each, outcome in cluster.remote(TASKS, pair):
        if not found:
            os.kill(victim, signal.SIGKILL)
        found[each.student] = outcome
    assert found == honest


# --- workers that are not ----------------------------------------------------------------------------------------


QUICK = """
    import os, signal, time
    from autograder import cluster
    from autograder.workers import Verdict
    def examine(task):
        if task.student == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.student == "sleeper":
            time.sleep(1000)
        return {name: Verdict(name, 0.0, 2, "quick") for name in task.exercises}
    cluster.examine = examine
"""
QUICKLY = {task.student: {"linear_forward": Verdict("linear_forward", 0.0, 2, "quick")} for task in TASKS}


def test_a_task_that_kills_its_workers_is_given_up(tmp_path):
    with scheduler_in(tmp_path, failures=0) as address, workers(address, tmp_path, 2, QUICK):
        found = by_student(cluster.remote([task("killer"), *TASKS], address))
    assert found == QUICKLY | {"killer": "every worker that examined it died of it"}


def test_a_worker_that_does_not_come_back_is_sent_away(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "LONGEST", 3.0)
    with scheduler_in(tmp_path) as address, workers(address, tmp_path, 2, QUICK) as names:
        found = by_student(cluster.remote([task("sleeper"), *TASKS], address))
    assert found == QUICKLY | {"sleeper": "the worker that examined it did not answer within 3 seconds"}
    (said,) = capsys.readouterr().err.splitlines()
    assert said.partition(" did not answer")[0] in [f"Worker {name}" for name in names]


NONSENSE = {
    "an object": "cluster._answer = lambda task: object()",
    "a long text": "cluster._answer = lambda task: 'x' * 5_000_000",
    "too many points": """
        from autograder.workers import Verdict
        cluster.examine = lambda task: {name: Verdict(name, 99.0, 2, "well done") for name in task.exercises}
    """,
    "failure": "cluster.examine = lambda task: 'JailError: bubblewrap is missing'",
}


def test_nonsense_is_not_accepted_and_its_worker_sent_away(pair, tmp_path, honest, capsys):
    with ExitStack() as stack:
        names = []
        for kind, code in NONSENSE.items():
            folder = tmp_path / kind.replace(" ", "-")
            folder.mkdir()
            code = f"from autograder import cluster\n{textwrap.dedent(code)}"
            names += stack.enter_context(workers(pair, folder, preload=code))
        assert by_student(cluster.remote(TASKS, pair)) == honest
        said = capsys.readouterr().err
        with Client(pair, set_as_default=False) as client:
            left = client.nthreads()
    assert [name for name in names if f"Worker {name} " not in said] == []
    assert [name for name in names if name in left] == []


def test_a_worker_that_joins_without_the_package_costs_nothing(pair, tmp_path, honest):
    pairs = cluster.remote(TASKS, pair)
    found = by_student([next(pairs)])
    with workers(pair, tmp_path, preload="import sys; sys.modules['autograder'] = None"):
        assert found | by_student(pairs) == honest
    assert "ModuleNotFoundError" in (tmp_path / "log").read_text()


def test_a_worker_without_a_jail_is_refused_before_anything_is_graded(pair, tmp_path):
    gone = """
        from autograder import sandbox
        def start():
            raise sandbox.JailError("bubblewrap is missing")
        sandbox.start = start
    """
    with workers(pair, tmp_path, preload=gone) as (name,), pytest.raises(cluster.ClusterError) as refusal:
        next(cluster.remote(TASKS, pair))
    assert f"worker {name} says 'bubblewrap is missing'" in str(refusal.value)


def test_a_worker_with_other_declarations_is_refused_before_anything_is_graded(pair, tmp_path):
    drawn = iter(TASKS)
    other = "from autograder import cluster\ncluster.VERSIONS = 'autograder of last year'"
    with workers(pair, tmp_path, preload=other) as (name,), pytest.raises(cluster.ClusterError) as refusal:
        next(cluster.remote(drawn, pair))
    assert f"worker {name} says 'autograder of last year' where this machine says 'autograder " in str(refusal.value)
    assert next(drawn) is TASKS[0]


LIAR = """
    from dataclasses import replace
    from autograder import cluster
    from autograder.workers import examine
    def kind(task):
        verdicts = examine(task)
        if task.student in {friends}:
            return {{name: replace(verdict, points=2.0, text="well done") for name, verdict in verdicts.items()}}
        return verdicts
    cluster.examine = kind
"""


def test_the_audit_finds_an_altered_result(tmp_path, honest):
    with scheduler_in(tmp_path) as address, workers(address, tmp_path, 2, LIAR.format(friends={"student-07"})):
        believed = by_student(cluster.remote(TASKS, address))
        audit = Audit(share=1.0)
        found = by_student(audit.watch(cluster.remote(TASKS, address)))
    assert {student for student in honest if believed[student] != honest[student]} == {"student-07"}
    assert found == honest
    (difference,) = audit.differences
    worker = believed["student-07"]["linear_forward"].worker
    assert difference.recorded.worker.rpartition(":")[0] == worker.rpartition(":")[0]
    assert f"student-07, linear_forward: worker {difference.recorded.worker} said 2 of 2 points" in str(difference)
    assert "a second look found 0 of 2 points." in str(difference)


# --- the audit, without processes --------------------------------------------------------------------------------


def lied(honest, worker="tcp://liar", students=()):
    """What a worker says that gives these students all points."""
    for each in TASKS:
        verdict = honest[each.student]["linear_forward"]
        points = 2.0 if each.student in students else verdict.points
        said = Verdict(verdict.exercise, points, verdict.max_points, verdict.text, verdict.mistake, worker)
        yield each, {"linear_forward": said}


def test_an_audit_of_honest_verdicts_changes_nothing(honest):
    audit = Audit(share=1.0)
    assert by_student(audit.watch(lied(honest))) == honest
    assert (audit.differences, audit.caught, audit.suspects) == ([], set(), [])


def test_a_sample_catches_a_habitual_liar_and_names_whose_verdicts_are_its_bare_word(honest):
    wrong = {each.student for each in TASKS if honest[each.student]["linear_forward"].points == 0}
    audit = Audit(share=0.3, chance=random.Random(1))
    found = by_student(audit.watch(lied(honest, students=wrong)))
    assert audit.caught == {"tcp://liar"}
    assert 0 < len(audit.suspects) < len(TASKS) / 2
    assert all(found[student] == honest[student] for student in honest if student not in audit.suspects)
    assert {student for student in honest if found[student] != honest[student]} <= set(audit.suspects)


def test_a_share_is_that_share_of_the_class(honest, monkeypatch):
    looked_at = []
    monkeypatch.setattr("autograder.audit.examine", lambda task: looked_at.append(task) or honest[task.student])
    for _ in Audit(share=0.02, chance=random.Random(0)).watch(list(lied(honest)) * 500):
        pass
    assert 150 < len(looked_at) < 250  # of 10,000


def test_an_audit_of_this_machine_needs_no_cluster(honest):
    audit = Audit(share=1.0)
    assert by_student(audit.watch(lied(honest, worker="", students={"student-01"}))) == honest
    assert [str(difference).partition(":")[0] for difference in audit.differences] == ["student-01, linear_forward"]
    assert (audit.caught, audit.suspects) == (set(), [])


def test_a_second_look_that_fails_is_said(honest, monkeypatch):
    monkeypatch.setattr("autograder.audit.examine", lambda task: "JailError: bubblewrap is missing")
    audit = Audit(share=1.0)
    assert by_student(audit.watch(list(lied(honest))[:1])) == {"student-00": honest["student-00"]}
    (said,) = audit.differences
    assert said == "student-00: there was no second look, because JailError: bubblewrap is missing"


def test_an_answer_that_changes_its_mind_accuses_nobody(honest, monkeypatch):
    texts = iter("abcdef")
    moody = lambda task: {"linear_forward": Verdict("linear_forward", 0.0, 2, next(texts))}  # noqa: E731
    monkeypatch.setattr("autograder.audit.examine", moody)
    audit = Audit(share=1.0)
    assert by_student(audit.watch(list(lied(honest))[:1])) == {"student-00": honest["student-00"]}
    assert len(audit.differences) == 1
    assert audit.caught == set()


# --- forms -------------------------------------------------------------------------------------------------------


def answer(*verdict, versions=cluster.VERSIONS):
    return json.dumps([versions, [verdict]])


GOOD = ("linear_forward", 1.0, 2, "1 of 2 points", None)


def test_an_answer_in_our_form_is_believed():
    assert find("linear_forward").points == 2
    assert cluster.believed(TASKS[0], answer(*GOOD), "w") == {"linear_forward": Verdict(*GOOD)}
    assert cluster.believed(TASKS[0], cluster._answer(TASKS[0]), "w") == examine(TASKS[0])
    assert cluster.believed(TASKS[0], json.dumps([cluster.VERSIONS, "JailError"]), "w") == "JailError"


@pytest.mark.parametrize(
    "said",
    [
        None, b"{}", 3, "", "[]", "{}", "null", "NaN", "[" * 100_000, "x" * 5_000_000, "1" * 10_000,
        json.dumps([cluster.VERSIONS, []]),
        json.dumps([cluster.VERSIONS, None]),
        json.dumps([cluster.VERSIONS, [GOOD, GOOD]]),
        json.dumps([cluster.VERSIONS, {"linear_forward": GOOD}]),
        answer(*GOOD, versions="autograder of last year"),
        answer(*GOOD, versions=None),
        answer("linear_backward", *GOOD[1:]),
        answer("linear_forward", 2.5, 2, "text", None),
        answer("linear_forward", -0.5, 2, "text", None),
        answer("linear_forward", float("nan"), 2, "text", None),
        answer("linear_forward", float("inf"), 2, "text", None),
        answer("linear_forward", "2.0", 2, "text", None),
        answer("linear_forward", True, 2, "text", None),
        answer("linear_forward", 3.0, 3, "text", None),
        answer("linear_forward", 1.0, True, "text", None),
        answer("linear_forward", 1.0, 2, "", None),
        answer("linear_forward", 1.0, 2, "x" * 100_001, None),
        answer("linear_forward", 1.0, 2, ["text"], None),
        answer("linear_forward", 1.0, 2, "text", 7),
        answer("linear_forward", 1.0, 2, "text"),
    ],
)  # fmt: skip
def test_an_answer_in_any_other_form_is_not(said):
    with pytest.raises(ValueError, match=r"not a |not 1 verdicts|no verdict on linear_forward|this machine says 'auto"):
        cluster.believed(TASKS[0], said, "w")


# --- no cluster --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://no.such.host.example:8786", "nonsense"])
def test_no_scheduler_is_said_at_once(address, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 1.0)
    with pytest.raises(cluster.ClusterError, match=f"No Dask scheduler answers at {address}.*dask scheduler"):
        next(cluster.remote(TASKS, address))


def test_no_worker_is_said_after_some_patience(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with scheduler_in(tmp_path) as address, pytest.raises(cluster.ClusterError, match="has no worker"):
        next(cluster.remote(TASKS, address))


def test_a_scheduler_that_dies_ends_the_run_with_a_sentence(tmp_path, monkeypatch):
    with ExitStack() as stack:
        dead = stack.enter_context(ExitStack())
        address = dead.enter_context(scheduler_in(tmp_path))
        stack.enter_context(workers(address, tmp_path, preload=QUICK))
        pairs = cluster.remote(TASKS, address)
        next(pairs)
        dead.close()
        with pytest.raises(cluster.ClusterError, match=f"connection to the scheduler at {address} broke off"):
            list(pairs)
