"""Submissions examined on other machines by Dask workers: source text out, verdicts back; nothing else is shared.

A worker is any `dask worker` in an environment where this package is installed; it keeps its own warm jailed process.
Its answers are JSON and are taken only in the form that a worker of ours gives them; whether they are true is what
audit.py looks at. Dask itself unpickles what its processes send one another: scheduler and workers are to be run by
people one trusts, in a network of their own. A student's code never gets that far: it is in the worker's jail.
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue

from dask.typing import Key
from distributed import Client, Future, KilledWorker
from distributed.comm.addressing import parse_address
from tqdm import tqdm

from autograder import sandbox
from autograder.exercise import find
from autograder.workers import Outcome, Task, Verdict, examine

AHEAD = 3  # tasks in flight for each thread of the workers: none waits for the network, and few wait in memory
CONNECT = 10.0  # seconds for a scheduler to answer
PATIENCE = 60.0  # seconds for a worker to join where there is none
LONGEST = 900.0  # seconds in flight after which an answer is given up; the sandbox's own budgets end far before
TEXT = 100_000  # characters of one text in an answer
ANSWER = 4_000_000  # characters of a whole answer
DIED = "every worker that examined it died of it"
START = "dask worker {address} --nthreads 1 --nworkers CORES"


class ClusterError(Exception):
    """The cluster can't be used; the message says why, and what to do."""


def remote(tasks: Iterable[Task], address: str) -> Iterator[tuple[Task, Outcome]]:
    """Examines tasks on the workers of the Dask scheduler at `address`; yields them as they are done.

    Workers may join, leave or be killed meanwhile. What a worker says in another form than ours is examined here
    instead, and the worker is sent away. Raises ClusterError: before the first task where the scheduler can't be
    reached or a worker differs from this machine, later where scheduler or workers are gone for good.
    """
    with _connected(address) as client:
        try:
            _refuse_strangers(client, address)
            felled = []
            for task, outcome in _examined(client, iter(tasks), address):
                if outcome == DIED:
                    felled.append(task)
                else:
                    yield task, outcome
            for task in felled:  # again, alone: it may have been the one beside it
                yield from _examined(client, iter([task]), address)
        except OSError as error:
            raise ClusterError(
                f"The connection to the scheduler at {address} broke off ({error}). What is graded stays graded: start "
                "the scheduler and its workers again, then run the same command."
            ) from None


def _connected(address: str) -> Client:
    try:
        parse_address(address, strict=True)  # Client would leave a thread behind
        return Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"No Dask scheduler answers at {address} ({error}). Start one with `dask scheduler`, give --cluster the "
            f"address that it prints, and start workers: `{START.format(address='tcp://HOST:8786')}`."
        ) from None


def _examined(client: Client, tasks: Iterator[Task], address: str) -> Iterator[tuple[Task, Outcome]]:
    done: SimpleQueue[Future] = SimpleQueue()
    flying: dict[Key, tuple[Future, Task]] = {}  # by the future's key, the oldest first
    heard = time.monotonic()
    while True:
        threads = sum(client.nthreads().values())
        for task in islice(tasks, max(AHEAD * max(threads, 1) - len(flying), 0)):
            future = client.submit(_answer, task, pure=False)
            flying[future.key] = future, task
            future.add_done_callback(done.put)
        if not flying:
            return
        try:
            future = done.get(timeout=1)
        except Empty:
            silence = time.monotonic() - heard
            if silence > PATIENCE and not threads:
                raise ClusterError(_no_worker(address)) from None
            if silence > LONGEST:
                future, task = flying.pop(next(iter(flying)))
                heard = time.monotonic()
                yield task, _given_up(client, future)
            continue
        heard = time.monotonic()
        if future.key not in flying:  # it was given up
            continue
        if future.done():
            _, task = flying.pop(future.key)
            yield task, _outcome(client, future, task)
        else:  # its worker is gone and the answer with it: another one is asked
            future.add_done_callback(done.put)


def _no_worker(address: str) -> str:
    return (
        f"The scheduler at {address} has no worker. Start some with `{START.format(address=address)}`, then run the "
        "same command (again): what is graded stays graded."
    )


# --- on a worker -------------------------------------------------------------------------------------------------


def _versions() -> str:
    """What decides a verdict: this package to the letter, and the libraries it counts with."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "torch"))
    python = ".".join(platform.python_version_tuple()[:2])
    return f"autograder {digest.hexdigest()[:12]}, Python {python}, {libraries}"


VERSIONS = _versions()  # of the code as it was loaded


def _ready() -> str:
    """Starts what examines; says by what it will judge. Raises JailError where there is no jail."""
    sandbox.start()
    return VERSIONS


def _answer(task: Task) -> str:
    """A task's outcome as JSON: plain values in ASCII, whatever a student's messages hold."""
    outcome = examine(task)
    if isinstance(outcome, str):
        return json.dumps([VERSIONS, outcome])
    verdicts = [[v.exercise, v.points, v.max_points, v.text, v.mistake] for v in outcome.values()]
    return json.dumps([VERSIONS, verdicts])


# --- believing it ------------------------------------------------------------------------------------------------


def _outcome(client: Client, future: Future, task: Task) -> Outcome:
    """What a future came to; examined here where a worker did not say it as ours do."""
    if future.cancelled():
        raise OSError("it has dropped a task")
    if future.status == "error":
        if isinstance(future.exception(), KilledWorker):
            return DIED
        tqdm.write(f"A worker failed on a submission ({future.exception()!r}); it was examined here.", file=sys.stderr)
        return examine(task)
    worker = next(iter(client.who_has([future])[future.key]), "that has left")
    try:
        said = believed(task, future.result(), worker)
        fault = f"could not examine what this machine could ({said})"
    except OSError:
        raise
    except Exception as error:  # also whatever unpickling raises
        said, fault = {}, f"answered in another form than ours: {error}"
    if said and not isinstance(said, str):
        return said
    here = examine(task)
    if not (isinstance(said, str) and isinstance(here, str)):
        _send_away(client, worker, fault)
    return here


def _given_up(client: Client, future: Future) -> str:
    """The outcome of a task that no worker answers, least of all the one that has it."""
    silence = f"did not answer within {LONGEST:g} seconds"
    for worker, keys in client.processing().items():
        if future.key in keys:
            _send_away(client, worker, silence)
    return f"the worker that examined it {silence}"


def believed(task: Task, answer: object, worker: str) -> Outcome:
    """The outcome that an answer states; a ValueError says what no worker of ours would have said."""
    if not isinstance(answer, str) or len(answer) > ANSWER:
        raise ValueError(f"not a text of at most {ANSWER:,} characters")
    try:
        versions, said = json.loads(answer)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("not a pair in JSON") from None
    if versions != VERSIONS:
        raise ValueError(_differs(versions))
    if isinstance(said, str):
        return said[:TEXT]
    if not isinstance(said, list) or len(said) != len(task.exercises):
        raise ValueError(f"not {len(task.exercises)} verdicts")
    return {name: _verdict(name, item, worker) for name, item in zip(task.exercises, said, strict=True)}


def _verdict(exercise: str, said: object, worker: str) -> Verdict:
    worth = find(exercise).points
    match said:
        case [str(name), float(points), int(most), str(text), str() | None as mistake]:
            fits = name == exercise and 0 <= points <= most == worth and type(most) is int
            if fits and 0 < len(text) <= TEXT and len(mistake or "") <= TEXT:
                return Verdict(name, points, most, text, mistake, worker)
    raise ValueError(f"no verdict on {exercise} of 0 to {worth} points")


# --- workers -----------------------------------------------------------------------------------------------------


def _refuse_strangers(client: Client, address: str) -> None:
    """A ClusterError where no worker is, or one that would not judge as this machine does."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise ClusterError(_no_worker(address)) from None
    if strangers := _strangers(client):
        named = "\n".join(f"  worker {worker} {_differs(versions)}" for worker, versions in strangers.items())
        raise ClusterError(
            f"Not every worker at {address} would judge as this machine does, so nothing was graded:\n{named}\n"
            "Install the same on all of them, start them again, then run the same command."
        )


def _strangers(client: Client) -> dict[str, object]:
    """The workers that differ from this machine, and what they are."""
    versions = client.run(_ready, on_error="return")
    return {worker: said for worker, said in versions.items() if said != VERSIONS}


def _differs(versions: object) -> str:
    return f"says {str(versions)[:300]!r} where this machine says {VERSIONS!r}"


def _send_away(client: Client, worker: str, fault: str) -> None:
    """Says what a worker did, and closes it: its other answers get lost with it, and are asked of others."""
    tqdm.write(f"Worker {worker} {fault}. It gets no more submissions.", file=sys.stderr)
    if worker in client.nthreads():  # retire_workers would pass its answers on to a worker that then seems to say them
        close = lambda dask_worker: dask_worker.loop.add_callback(dask_worker.close, executor_wait=False)  # noqa: E731
        client.run(close, workers=[worker], on_error="ignore")
