"""A student's notebook in a child process: arrays in, arrays out, limits. The parent draws, compares and scores."""

import atexit
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from autograder import report, wire
from autograder.cases import Question
from autograder.child import CELL_SECONDS
from autograder.exercise import Exercise, find
from autograder.grade import SECONDS, failed, judge
from autograder.report import Result

TEXT = 2_000  # characters of one text in a reply


@dataclass(frozen=True)
class Cell:
    """A piece of a notebook that is run when it is graded."""

    exercise: str | None  # whose answer it holds; None for imports and for the student's own cells
    source: str


def examine_notebook(
    cells: Sequence[Cell], exercises: Iterable[str], seed: int | None = None, seconds: float = SECONDS
) -> dict[str, Result]:
    """Grades the named exercises of a notebook, each in a fresh child of one warm process.

    Nothing that the cells do makes this raise, and nothing they print or patch awards a point. `seconds` is the time
    for the questions of one exercise. The results' texts reveal no expected value.
    """
    seed = secrets.randbits(32) if seed is None else seed
    return {name: _examine(find(name), cells, seed, seconds) for name in exercises}


def _examine(entry: Exercise, cells: Sequence[Cell], seed: int, seconds: float) -> Result:
    with _WARM.child() as channel:
        student = _Student(channel, entry, seconds)
        reply = student.load(cells)
        if "failure" in reply:
            return failed(entry, reply, seed, graded=True)
        return judge(entry, student.ask, seed, graded=True)


class _Student:
    """The other end of a channel: one student's code in one child, on a time budget."""

    def __init__(self, channel: socket.socket, entry: Exercise, seconds: float):
        self.channel, self.entry, self.seconds = channel, entry, seconds
        self.deadline = time.monotonic() + seconds

    def load(self, cells: Sequence[Cell]) -> Mapping:
        """Runs the cells; says so, or a failure. Loading has its own time, so that no cell uses up the questions'."""
        self.deadline = time.monotonic() + self.seconds + CELL_SECONDS * len(cells)
        sources = [[cell.exercise, cell.source] for cell in cells]
        task = {"cells": sources, "exercise": self.entry.name, "seconds": self.seconds}
        reply = self._exchange(task)
        self.deadline = time.monotonic() + self.seconds
        return reply

    def ask(self, question: Question) -> Mapping:
        """A question -> the reply of play.perform, or the failure to get one."""
        reply = self._exchange(question.request())
        answered = "failure" in reply or len(reply.get("values", ())) == len(question.want)
        return reply if answered else {"failure": "died"}

    def _exchange(self, message: Mapping) -> Mapping:
        try:
            self.channel.settimeout(max(self.deadline - time.monotonic(), 0.001))
            wire.send(self.channel, message)
            reply = wire.receive(_Deadline(self.channel, self.deadline))
        except TimeoutError:
            return {"failure": "time", "seconds": f"{self.seconds:g}"}
        except (EOFError, OSError, wire.WireError):
            return {"failure": "died"}
        return _believable(reply, self.entry)


class _Deadline:
    """A socket whose reads, however many, end at one moment."""

    def __init__(self, channel: socket.socket, deadline: float):
        self.channel, self.deadline = channel, deadline

    def recv(self, size: int) -> bytes:
        self.channel.settimeout(max(self.deadline - time.monotonic(), 0.001))
        return self.channel.recv(size)


def _believable(reply, entry: Exercise) -> Mapping:
    """A reply with short texts only; whatever play.perform would not have said counts as no answer at all.

    It comes from a process that is not trusted: it may have found the channel and speak for itself.
    """
    try:
        reply = _clipped(reply)
        if "failure" in reply:
            report.failure(entry, {**reply, "case": {}, "number": 0})
        for value in reply.get("values", ()):
            if not isinstance(value.get("array"), np.ndarray):
                report.refusal("", value)
        if not all(isinstance(text, str) for key in ("modified", "warnings") for text in reply.get(key, ())):
            return {"failure": "died"}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
        return {"failure": "died"}
    return reply


def _clipped(value):
    """The same with every text cut to what a report may quote, and every list to what a reply may hold."""
    if isinstance(value, str):
        return value[:TEXT]
    if isinstance(value, list):
        return [_clipped(item) for item in value[:TEXT]]
    if isinstance(value, dict):
        return {_clipped(key): _clipped(item) for key, item in list(value.items())[:TEXT]}
    return value


class _Warm:
    """The warm process; started at its first use, ended with this one, replaced when a student's code kills it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.channel: socket.socket | None = None

    @contextmanager
    def child(self) -> Iterator[socket.socket]:
        """The channel to a fresh child, which is killed at the end with all that it started."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, self.lock:
                pid, process = self._fork(theirs)
            try:
                yield ours
            finally:
                with self.lock:
                    self._kill(pid, process)

    def _fork(self, theirs: socket.socket) -> tuple[int, subprocess.Popen]:
        for _ in range(2):  # an earlier child may have killed the warm process
            process, channel = self._start()
            pid = _order(channel, b"f", 0, theirs)
            if pid is not None:
                return pid, process
            self.end()
        raise RuntimeError("the process that runs students' code does not start")

    def _kill(self, pid: int, process: subprocess.Popen) -> None:
        if self.process is process and self.channel and _order(self.channel, b"k", pid) is not None:
            return
        with suppress(ProcessLookupError, PermissionError):  # its parent is gone
            os.killpg(pid, signal.SIGKILL)

    def _start(self) -> tuple[subprocess.Popen, socket.socket]:
        if self.process is None or self.channel is None or self.process.poll() is not None:
            self.end()
            self.channel, theirs = socket.socketpair()
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "autograder.child", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=tempfile.gettempdir(), env=_environment(),
                )  # fmt: skip
        return self.process, self.channel

    def end(self) -> None:
        """Ends the warm process; the next use starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.channel is not None:
            self.channel.close()
        self.process = self.channel = None


def _order(channel: socket.socket, command: bytes, number: int, theirs: socket.socket | None = None) -> int | None:
    """Tells the warm process to fork (its answer is the pid) or to kill; None when it is gone."""
    try:
        socket.send_fds(channel, [command + struct.pack("<q", number)], [theirs.fileno()] if theirs else [])
        answer = channel.recv(8, socket.MSG_WAITALL)
    except OSError:
        return None
    return struct.unpack("<q", answer)[0] if len(answer) == 8 else None


def _environment() -> dict[str, str]:
    """Nothing of ours but what an interpreter needs: no tokens, no hint that a graded run is on."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT") if key in os.environ}
    one_thread = {key: "1" for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return kept | one_thread | {"MPLBACKEND": "agg", "HOME": tempfile.gettempdir(), "PYTHONDONTWRITEBYTECODE": "1"}


_WARM = _Warm()
atexit.register(_WARM.end)
