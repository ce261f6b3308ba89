"""A student's notebook in jailed processes: arrays in, arrays out, limits. The parent draws, compares and scores."""

import atexit
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import IO

import numpy as np

from autograder import report, wire
from autograder.cases import Question, needs_torch
from autograder.child import LOAD_SECONDS, ON_DEMAND
from autograder.exercise import Exercise, find
from autograder.grade import SECONDS, failed, judge
from autograder.jail import DOORS, JailError, explained, probe, refuse_open_doors, refuse_unless_possible, start_warm
from autograder.report import Result

__all__ = ["Cell", "JailError", "examine_notebook", "start"]

TEXT = 2_000  # characters of one text in a reply
TOTAL = 6  # a whole notebook gets this many times the seconds of one exercise
REPLIES = 512 * 2**20  # bytes of all replies about one notebook
START_SECONDS = 120.0  # for a warm process to import what it needs, on a machine that is busy


@dataclass(frozen=True)
class Cell:
    """A piece of a notebook that is run when it is graded."""

    exercise: str | None  # whose answer it holds; None for imports and for the student's own cells
    source: str


def start(jail: str = "bubblewrap", lends: bool = False) -> None:
    """Starts the warm processes, which import what they need while the caller goes on. Raises JailError.

    Without it the first examination starts them, jailed. Processes forked after it share them. `lends` says that the
    lesson asks for what earlier ones have built.
    """
    for torch in (False, True):
        _warm(torch, jail).start()
    if lends:
        _lender(jail).start()


def asks(source: str) -> bool:
    """Whether code asks for what earlier lessons have built."""
    return "mine(" in source


def examine_notebook(
    cells: Sequence[Cell],
    exercises: Iterable[str],
    seed: int | None = None,
    seconds: float = SECONDS,
    graded: bool = True,
    jail: str = "bubblewrap",
) -> dict[str, Result]:
    """Grades the named exercises of a notebook, in a jailed child for all, those that fail there in one of their own.

    Nothing that the cells do makes this raise, and nothing they print or patch awards a point. `seconds` is the time
    for the questions of one exercise; the notebook has TOTAL times that. The texts of `graded` results reveal no
    expected value. Raises JailError where there is no such jail.
    """
    seed = secrets.randbits(32) if seed is None else seed
    names = list(exercises)
    submission = _Submission(cells, names, seconds, jail)
    try:
        results = {name: _together(find(name), submission, seed, graded) for name in names}
        return {name: result or _alone(find(name), submission, seed, graded) for name, result in results.items()}
    finally:
        submission.end()


def _together(entry: Exercise, submission: "_Submission", seed: int, graded: bool) -> Result | None:
    """An exercise in the child that plays them all; None where it has to play it alone.

    A right answer to questions that nobody could know is right, wherever it was found. A wrong one might be the fault
    of what an exercise before it has left behind.
    """
    student = submission.student(entry)
    result = _judged(entry, student, seed, graded, why=False)
    if student.is_lost:
        submission.drop(student)
    final = result.passed or student.is_out_of_time or student.is_unwritten
    return result if final else None


def _alone(entry: Exercise, submission: "_Submission", seed: int, graded: bool) -> Result:
    """An exercise in a fresh child, where every statement has run: what it finds counts."""
    submission.drop(submission.students.get(needs_torch(entry.name)))
    return _judged(entry, submission.student(entry, every_statement=True), seed, graded)


def _judged(entry: Exercise, student: "_Student", seed: int, graded: bool, why: bool = True) -> Result:
    missing = student.begin(entry)
    if missing:
        return failed(entry, missing, seed, graded)
    return judge(entry, student.ask, seed, graded, why=why)


class _Submission:
    """One student's notebook under examination: its supervisors in the jail, and what is left of its budget."""

    def __init__(self, cells: Sequence[Cell], exercises: Sequence[str], seconds: float, jail: str):
        self.cells, self.exercises, self.jail = cells, exercises, jail
        self.seconds, self.left, self.bytes_left = seconds, TOTAL * seconds, REPLIES
        self.lesson = find(exercises[0]).lesson if exercises and any(asks(cell.source) for cell in cells) else None
        self.supervisors: dict[bool, socket.socket] = {}  # by whether torch is there
        self.students: dict[bool, _Student] = {}  # the child there is
        self.slow: dict[bool, list] = {False: [], True: []}  # (cell, statement) pairs to run once, unless it matters

    def student(self, entry: Exercise, every_statement: bool = False) -> "_Student":
        """The child for an exercise; a fresh one where there is none."""
        torch = needs_torch(entry.name)
        if torch not in self.students:
            self.students[torch] = student = _Student(self._child(torch), self)
            slow = student.load([] if every_statement else self.slow[torch])
            self.slow[torch] = self.slow[torch] or slow
        return self.students[torch]

    def drop(self, student: "_Student | None") -> None:
        """Ends a child; what it still had to say is not heard."""
        if student:
            self.students = {torch: other for torch, other in self.students.items() if other is not student}
            student.channel.close()

    def _child(self, torch: bool) -> socket.socket:
        """The channel to a new child, for which the supervisor ends the one before."""
        for _ in range(2):  # a cell may be able to crash the supervisor, as it may crash Python's parser
            if torch not in self.supervisors:
                scripts = sorted({find(name).script for name in self.exercises} - {""})
                self.supervisors[torch] = _warm(torch, self.jail).supervisor(self.cells, self.seconds, scripts)
            ours, theirs = socket.socketpair()
            with ExitStack() as ends, suppress(OSError):
                sent = [ends.enter_context(theirs)]
                if self.lesson:
                    sent.append(ends.enter_context(_lender(self.jail).lender(self.lesson)))
                socket.send_fds(self.supervisors[torch], [b"e"], [end.fileno() for end in sent])
                break
            self.supervisors.pop(torch).close()
            ours.close()
        return ours  # if no supervisor has taken it, its other end is closed, as when a child has died

    def end(self) -> None:
        """Closes all sockets, on which the supervisors end with all that is in their namespaces."""
        for student in list(self.students.values()):
            self.drop(student)
        for supervisor in self.supervisors.values():
            supervisor.close()


class _Student:
    """The other end of a channel: one student's code in one child, on a time budget."""

    def __init__(self, channel: socket.socket, submission: _Submission):
        self.channel, self.submission = channel, submission
        self.is_lost = self.is_out_of_time = self.is_unwritten = False
        self.left = submission.seconds
        self.loaded: Mapping = {}

    def load(self, skip: Sequence) -> list:
        """Has the cells run, but for those statements, in a time of its own; returns those that were slow or failed."""
        self.left = 2 * LOAD_SECONDS + self.submission.seconds
        (reply,) = self._exchange({"exercises": list(self.submission.exercises), "skip": skip}, 1)
        self.loaded = (
            reply if isinstance(reply, dict) and ("failure" in reply or _says_how(reply)) else {"failure": "died"}
        )
        return _pairs(self.loaded.get("slow", []))

    def begin(self, entry: Exercise) -> Mapping | None:
        """Turns to an exercise; the failure if there is nothing to ask about."""
        self.left = self.submission.seconds
        if "failure" in self.loaded:
            return _believable(self.loaded, entry)
        if entry.name in self.loaded["found"]:
            return None
        error = self.loaded["errors"].get(entry.name)
        return {"failure": "not_loaded", "error": error} if isinstance(error, str) else {"failure": "missing"}

    def ask(self, questions: Sequence[Question]) -> Iterator[Mapping]:
        """Questions -> the replies of play.perform, up to the first failure, or the failure to get one."""
        message = {"exercise": questions[0].exercise.name, "requests": [question.request() for question in questions]}
        for question, reply in zip(questions, self._exchange(message, len(questions)), strict=False):
            reply = _believable(reply, question.exercise)
            if "failure" not in reply and len(reply["values"]) != len(question.want):
                reply = {"failure": "died"}
            self.is_lost |= reply.get("failure") == "died"
            self.is_unwritten = reply.get("failure") == "unwritten"
            yield reply

    def _exchange(self, message, replies: int) -> Iterator[Mapping]:
        """Sends a message and yields so many replies, or fewer of which the last is a failure."""
        stream = _Stream(self.channel, self)
        try:
            stream.sendall(wire.framed(message))
            for _ in range(replies):
                yield _clipped(wire.receive(stream))
        except TimeoutError:
            self.is_lost = self.is_out_of_time = True
            yield {"failure": "time", "seconds": f"{self.submission.seconds:g}"}
        except _Spent:
            self.is_lost = self.is_out_of_time = True
            yield {"failure": "budget", "seconds": f"{TOTAL * self.submission.seconds:g}"}
        except (EOFError, OSError, RecursionError, wire.WireError):
            self.is_lost = True
            yield {"failure": "died"}


class _Spent(Exception):
    """The budget of the whole notebook is used up."""


class _Stream:
    """A channel on which sending and receiving, in however many pieces, use up a student's budget."""

    def __init__(self, channel: socket.socket, student: _Student):
        self.channel, self.student = channel, student

    def sendall(self, data: bytes) -> None:
        with self._timed():
            self.channel.sendall(data)

    def recv(self, size: int) -> bytes:
        with self._timed():
            data = self.channel.recv(size)
        self.student.submission.bytes_left -= len(data)
        if self.student.submission.bytes_left < 0:
            raise EOFError("more than all replies may have")
        return data

    @contextmanager
    def _timed(self) -> Iterator[None]:
        student, submission = self.student, self.student.submission
        if submission.left <= 0:
            raise _Spent
        if student.left <= 0:
            raise TimeoutError
        self.channel.settimeout(min(student.left, submission.left))
        begun = time.monotonic()
        try:
            yield
        finally:
            student.left -= time.monotonic() - begun
            submission.left -= time.monotonic() - begun


def _says_how(reply: Mapping) -> bool:
    """Whether this is what a child says when it has run the cells."""
    return all(isinstance(reply.get(key), kind) for key, kind in (("found", list), ("errors", dict), ("slow", list)))


def _pairs(pairs: list) -> list[list[int]]:
    """What a child says of its statements, where it is that: pairs of whole numbers."""
    return [pair for pair in pairs if isinstance(pair, list) and [type(item) for item in pair] == [int, int]]


def _believable(reply, entry: Exercise) -> Mapping:
    """A reply with short texts only; whatever play.perform would not have said counts as no answer at all.

    It comes from a process that is not trusted: it may have found the channel and speak for itself.
    """
    try:
        if "failure" in reply:
            report.failure(entry, {**reply, "case": {}, "number": 0})
        for value in () if "failure" in reply else reply["values"]:
            if not isinstance(value.get("array"), np.ndarray):
                report.refusal("", value)
        if not all(isinstance(text, str) for key in ("modified", "warnings") for text in reply.get(key, ())):
            return {"failure": "died"}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return {"failure": "died"}
    return reply


def _clipped(value):
    """The same with every text cut to what a report may quote, and every list to what a reply may hold."""
    if isinstance(value, str):
        return value[:TEXT]
    if isinstance(value, (list, tuple)):
        return [_clipped(item) for item in value[:TEXT]]
    if isinstance(value, dict):
        return {_clipped(key): _clipped(item) for key, item in list(value.items())[:TEXT]}
    return value


class _Warm:
    """A warm process; started at its first use, ended with this one, started anew when it has gone."""

    def __init__(self, program: str, jail: str) -> None:
        self.program, self.jail, self.tried, self.lock = program, jail, False, threading.Lock()
        self.process: subprocess.Popen | None = None
        self.orders: socket.socket | None = None
        self.errors: IO[str] | None = None

    def start(self) -> None:
        """Starts the process, unless it stands."""
        with self.lock:
            if self.orders is not None:
                return
            refuse_unless_possible(self.jail)
            self.errors = tempfile.TemporaryFile("w+")
            self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.process = start_warm(self.jail, self.program, theirs.fileno(), self.errors)

    def lender(self, lesson: str) -> socket.socket:
        """A socket on which answers of the lessons before this one are lent."""

        def stands(ours: socket.socket) -> bool:
            ready = bool(ours.recv(1))  # waited for here, since what comes after is the student's time
            ours.setblocking(True)  # for the child, which will hold this end
            return ready

        return self._ordered(lesson, stands)

    def supervisor(self, cells: Sequence[Cell], seconds: float, scripts: Sequence[str] = ()) -> socket.socket:
        """The control socket of a new supervisor that has been given these cells, in a jail that has been tried.

        Of the modules that its cells use, the warm process imports those that take long.
        """
        if not self.tried:
            self.tried = True
            self._try_the_doors()
        sources = [cell.source for cell in cells]
        wanted = ON_DEMAND[self.program].items()
        modules = [module for word, module in wanted if any(word in source for source in sources)]
        task = {"cells": [[cell.exercise, cell.source] for cell in cells], "scripts": list(scripts)}
        task |= {"seconds": seconds, "total": TOTAL * seconds}

        def stands(ours: socket.socket) -> bool:
            ready = bool(ours.recv(1))
            if ready:
                wire.send(ours, task)
            return ready

        return self._ordered(" ".join(["s", *modules]), stands)

    def _ordered(self, order: str, stands: Callable[[socket.socket], bool]) -> socket.socket:
        """Our end of a socket whose other end the process was sent with an order; a JailError if nothing answers."""
        for _ in range(2):  # the process may have been killed since it was last used
            self.start()
            assert self.orders is not None
            ours, theirs = socket.socketpair()
            ours.settimeout(START_SECONDS)
            with suppress(OSError, EOFError):
                with theirs:
                    socket.send_fds(self.orders, [order.encode()], [theirs.fileno()])
                if stands(ours):
                    return ours
            ours.close()
            said = self._said()
            self.end()
        raise explained(said)

    def _try_the_doors(self) -> None:
        """Plays a function that is known to answer; a JailError if it does not, or could do what no answer should."""
        supervisor = self.supervisor([Cell("probe", probe(self.jail))], SECONDS)
        ours, theirs = socket.socketpair()
        ours.settimeout(START_SECONDS)
        request = {"kind": "function", "inputs": {"x": np.ones(len(DOORS))}, "outputs": 1, "forbids": []}
        try:
            with supervisor, ours, theirs:
                socket.send_fds(supervisor, [b"e"], [theirs.fileno()])
                theirs.close()
                wire.send(ours, {"exercises": ["probe"], "skip": []})
                wire.receive(ours)
                wire.send(ours, {"exercise": "probe", "requests": [request]})
                (value,) = wire.receive(ours)["values"]
        except (OSError, EOFError, KeyError, wire.WireError):
            raise explained(self._said()) from None
        if self.jail != "none":
            refuse_open_doors(value["array"])

    def _said(self) -> str:
        assert self.errors is not None
        self.errors.seek(0)
        return self.errors.read()

    def end(self) -> None:
        """Ends the warm process; the next use starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for file in (self.orders, self.errors):
            if file is not None:
                file.close()
        self.process = self.orders = self.errors = None
        self.tried = False


def _warm(torch: bool, jail: str) -> _Warm:
    return _process("torch" if torch else "numpy", jail)


def _lender(jail: str) -> _Warm:
    return _process("lender", jail)


@cache
def _process(program: str, jail: str) -> _Warm:
    """The one warm process of this kind."""
    warm = _Warm(program, jail)
    atexit.register(warm.end)
    return warm
