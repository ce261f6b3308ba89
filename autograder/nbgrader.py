"""What puts the course into nbgrader: `nbgrader autograde`, formgrader's button and `autograder grade` all pass here.

nbgrader reads a submission, runs it, scores what its cells print and saves that, one after the other. Here the
submissions are read by this process, examined by many (workers.py), and recorded by this one alone: rows in the
gradebook and the graded notebook, which is the released one with the student's source text in it. Whatever moment a run
ends at, the next one goes on from there.
"""

import asyncio
import errno
import glob
import hashlib
import json
import os
import platform
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from itertools import islice
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, NoReturn

import nbformat
from filelock import FileLock, Timeout
from nbformat import NotebookNode
from nbgrader import apps, converters, utils
from nbgrader.api import MissingEntry, SubmittedAssignment, SubmittedNotebook
from nbgrader.converters.base import NbGraderException
from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, OverwriteCells
from sqlalchemy.exc import OperationalError
from traitlets import Enum, Float
from traitlets.config import Config

from autograder import feedback, sandbox, workers
from autograder.audit import Audit
from autograder.feedback import TRAVELS
from autograder.grade import SECONDS
from autograder.gradebook import PATIENCE, Gradebook
from autograder.jail import UNJAILED
from autograder.notebooks import (
    ANSWER,
    MAX_BYTES,
    NotebookError,
    Released,
    Submission,
    cells_of,
    flags_of,
    parse_notebook,
    problems_of,
)  # fmt: skip
from autograder.sandbox import Cell
from autograder.workers import Outcome, Task, Verdict

NOTE = "autograder"  # the metadata in which a graded notebook carries the record of its grading
UNGRADED = "CouldNotBeGraded"  # the error in the check cells of a submission on which our own code failed
STAMP = "timestamp.txt"  # when it was handed in, as nbgrader's collect writes it
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class Stopped(NbGraderException):
    """The run ended before everybody was graded; the message says why and what to do."""


Note = dict[str, Any]  # the record of a grading, plain data


def configure(c: Config) -> None:
    """The part of nbgrader_config.py that is about grading."""
    # nbgrader runs `alembic`, which stands beside the interpreter, also where nobody has activated the environment.
    beside, paths = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([beside, *(path for path in paths if path != beside)])
    apps.autogradeapp.Autograde = apps.api.Autograde = Autograde
    feedback.configure(c)


# --- what was handed in ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paper:
    """What a student's folder holds: bytes, and what is wrong with them before anyone has looked into them."""

    student: str
    data: bytes | None  # of the notebook; None where no file can be read
    slips: Mapping[str, str]  # the texts of timestamp.txt and submission_secret.txt, where they are there
    unreadable: str  # why there is no file to read

    @property
    def stamp(self) -> str:
        return self.slips.get(STAMP, "")

    @property
    def digest(self) -> str:
        return digest_of([self.unreadable, self.slips], self.data or b"")


def paper_in(folder: Path, name: str) -> Paper:
    """Reads the three files that count in a folder that may hold anything: follows no link, opens no pipe."""
    slips = {slip: _text(folder / slip) for slip in TRAVELS if os.path.lexists(folder / slip)}
    try:
        return Paper(folder.parent.name, read_regular(folder / name, MAX_BYTES + 1), slips, "")
    except NotebookError as error:
        return Paper(folder.parent.name, None, slips, str(error))


def _text(path: Path) -> str:
    """A line of text, or why there is none."""
    try:
        return read_regular(path, 200).decode(errors="replace").strip()
    except NotebookError as error:
        return str(error)


def read_regular(path: Path, most: int) -> bytes:
    """The first bytes of a regular file, without following a link or waiting for a pipe."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        raise NotebookError(f"What was handed in as {path.parent.name} is no ordinary folder.") from None
    try:
        file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        raise NotebookError(_no_file(path)) from None
    finally:
        os.close(folder)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(file)
        raise NotebookError(_no_file(path))
    with open(file, "rb") as stream:
        return stream.read(most)


def _no_file(path: Path) -> str:
    if os.path.lexists(path):
        return f"{path.name} is no ordinary file but a link, a folder or something stranger."
    with os.scandir(path.parent) as entries:
        others = sorted(entry.name for entry in islice(entries, 1000) if entry.name.endswith(".ipynb"))
    instead = f"; there is {others[0][:80]!r}, but the name has to stay as it was" if others else ""
    return f"There is no file {path.name}{instead}."


@dataclass(frozen=True)
class Handed:
    """A paper that has been read: what is examined, and what its author is told about the file."""

    paper: Paper
    cells: tuple[Cell, ...] = ()
    problems: tuple[str, ...] = ()
    timestamp: datetime | None = None
    unreadable: str = ""  # two sentences: nothing is examined, and what to do
    failure: str = ""  # our own code failed on it

    @property
    def source(self) -> str:
        return digest_of([[cell.exercise, cell.source] for cell in self.cells])


def understood(paper: Paper, name: str, released: Released) -> Handed:
    """What a paper says; never raises for it."""
    problems: list[str] = []
    try:
        timestamp = utils.parse_utc(paper.stamp) if paper.stamp else None
    except Exception:  # dateutil has many
        timestamp = None
        problems.append(f"The file {STAMP} holds no date, so that nobody knows when this was handed in.")
    try:
        if paper.data is None:
            raise NotebookError(paper.unreadable)
        submission = Submission(parse_notebook(paper.data), released)
        problems += problems_of(submission)
        return Handed(paper, tuple(cells_of(submission)), tuple(problems), timestamp)
    except NotebookError as error:
        advice = f"No exercise counts as answered: hand in {name} again, as JupyterLab saves it."
        return Handed(paper, (), tuple(problems), timestamp, unreadable=f"{error} {advice}")
    except Exception as error:
        return Handed(paper, (), tuple(problems), timestamp, failure=f"{type(error).__name__}: {error}")


def digest_of(facts: Any, data: bytes = b"") -> str:
    return hashlib.sha256(json.dumps(facts).encode() + b"\0" + data).hexdigest()


# --- the graded notebook -----------------------------------------------------------------------------------------


class Lesson:
    """A released notebook, with what is worked out of it once for a whole class."""

    def __init__(self, nb: NotebookNode):
        self.nb, self.released = nb, Released(nb)
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        self.names = [cell.metadata.get("nbgrader", {}).get("grade_id", "") for cell in nb.cells]
        self.answers = {
            name: cell for name, cell in zip(self.names, nb.cells, strict=True) if utils.is_solution(cell)
        }  # fmt: skip
        self.exercises = tuple(
            name for name, cell in zip(self.names, nb.cells, strict=True) if utils.is_grade(cell)
        )  # fmt: skip
        self.texts = [cell_json(cell) for cell in nb.cells]

    def comments(self, cells: Iterable[Cell]) -> dict[str, str | None]:
        """nbgrader's remark on each answer cell: none was given where it is as it was handed out."""
        sources = {f"{cell.exercise}{ANSWER}": cell.source for cell in cells if cell.exercise}
        found = {}
        for name, cell in self.answers.items():
            written = NotebookNode(cell, source=sources.get(name, cell.source))
            same = utils.compute_checksum(written) == cell.metadata.nbgrader.get("checksum")
            found[name] = "No response." if same else None
        return found

    def text(self, cells: Sequence[Cell], outputs: Mapping[str, list[dict]], remarks: Sequence[str], note: Note) -> str:
        """The graded notebook as nbformat writes it: the student's own cells stand behind the answer they followed."""
        answers = {f"{cell.exercise}{ANSWER}": cell.source for cell in cells if cell.exercise}
        own = own_cells(cells)
        texts = [cell_json(cell) for cell in [*about_the_file(remarks), *own.get("", ())]]
        for name, cell, text in zip(self.names, self.nb.cells, self.texts, strict=True):
            if name in answers:
                text = cell_json({**cell, "source": answers[name]})
            elif name in outputs:
                text = cell_json({**cell, "outputs": outputs[name]})
            texts += [text, *(cell_json(each) for each in own.get(name, ()) if name)]
        around = as_json({**self.nb, "cells": [], "metadata": {**self.nb.metadata, NOTE: note}}, 0)
        return around.replace('"cells": []', '"cells": [\n  ' + ",\n  ".join(texts) + "\n ]", 1) + "\n"


def cell_json(cell: Mapping) -> str:
    """A cell as nbformat writes it into a file."""
    return as_json({**cell, "source": cell["source"].splitlines(True)}, 2)


def as_json(value: Any, depth: int) -> str:
    """JSON with an indent of 1 from this depth on: as json.dumps writes it, several times as fast."""
    if isinstance(value, str):
        return encode_basestring(value)
    if not (value and isinstance(value, dict | list)):
        return json.dumps(value)
    indent = "\n" + " " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{encode_basestring(key)}: {as_json(item, depth + 1)}" for key, item in sorted(value.items())]
        return f"{{{indent}{f',{indent}'.join(items)}{indent[:-1]}}}"
    return f"[{indent}{f',{indent}'.join([as_json(item, depth + 1) for item in value])}{indent[:-1]}]"


def own_cells(cells: Sequence[Cell]) -> dict[str, list[dict]]:
    """The code cells that the student added, by the answer cell they followed."""
    own: dict[str, list[dict]] = {}
    place = ""
    for number, cell in enumerate(cells[1:]):  # the first holds the course's own imports
        if cell.exercise:
            place = f"{cell.exercise}{ANSWER}"
        elif cell.source.strip():
            own.setdefault(place, []).append(code_cell(f"own-{number}", cell.source))
    return own


def about_the_file(remarks: Sequence[str]) -> list[dict]:
    """A cell on top of the feedback page; as printed text, so that nothing a student wrote is rendered."""
    text = "# About the file you handed in"
    return [code_cell("about-the-file", text, printed("\n".join(remarks)))] if remarks else []


def code_cell(name: str, source: str, *outputs: dict) -> dict:
    fields: dict[str, Any] = {"cell_type": "code", "execution_count": None, "id": name, "metadata": {}}
    return {**fields, "outputs": [*outputs], "source": source}


def printed(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": (text + "\n").splitlines(True)}


def outputs(text: str, points: float, **facts: Any) -> list[dict]:
    """What nbgrader's scoring reads, a plain float, under what the student reads; `facts` go with it."""
    value = {"data": {"text/plain": [repr(points)]}, "execution_count": None, "metadata": {NOTE: facts}}
    return [printed(text), {"output_type": "execute_result", **value}]


def not_graded(name: str, reason: str) -> list[dict]:
    """The output that asks for a person."""
    sentence = f"{name} could not be graded, because the grader itself failed: {reason}. An instructor has to look."
    return [{"output_type": "error", "ename": UNGRADED, "evalue": sentence, "traceback": [sentence]}]


def note_in(path: Path) -> Note:
    """The record in a graded notebook; an empty one where there is no notebook that this module wrote."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads("{" + text[text.rindex('\n "metadata": {') :])["metadata"][NOTE]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# --- the converter -----------------------------------------------------------------------------------------------


class Autograde(converters.Autograde):
    """nbgrader's, which grades every folder that was handed in, also one in which the notebook is missing."""

    seconds = Float(SECONDS, help="How long the answer to one exercise may run.").tag(config=True)
    jail = Enum(("bubblewrap", "none"), "bubblewrap", help="What students' code is locked into.").tag(config=True)

    students: Sequence[str] = ()  # those to grade, where it is not what coursedir.student_id says
    cores: int | None = None  # processes of this machine; default: one more than cores
    cluster: str = ""  # the address of a Dask scheduler, whose workers examine instead
    audit: Audit | None = None  # has a share of the submissions examined again
    tick: Callable[[Note, float], object] = staticmethod(lambda note, worth: None)  # told of every recorded submission

    def init_notebooks(self) -> None:
        names = self.students or [self.coursedir.student_id]
        wanted = [self._format_source(self.coursedir.assignment_id, name) for name in names]
        folders = [found for path in wanted for found in ([path] if os.path.lexists(path) else glob.glob(path))]
        self.assignments = dict.fromkeys(folders, ())
        if not folders:
            super().init_notebooks()  # says what it looked for

    def convert_notebooks(self) -> None:
        self.failures: dict[str, str] = {}  # student -> why there is no grade
        self.recorded = 0
        try:
            if not self.cluster:
                sandbox.start(self.jail)  # while the gradebook is opened
            if self.jail == "none":
                print(UNJAILED, file=sys.stderr)
            with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as self.gradebook:
                self.prepare()
                self.handed: dict[str, Handed] = {}  # under examination
                for task, outcome in self.examine(self.tasks()):
                    self.settle(self.handed.pop(task.student), task.seed, outcome)
        except sandbox.JailError as error:
            self.stop(str(error))
        except (OSError, OperationalError) as error:
            self.interrupt(error)
        if self.failures:
            raise NbGraderException(f"Not graded: {', '.join(map(ascii, self.failures))}; the reasons stand above.")

    def interrupt(self, error: Exception) -> NoReturn:
        reason = error.orig if isinstance(error, OperationalError) else error
        self.stop(
            f"Stopped after {self.recorded} of {len(self.assignments)} submissions: {reason}. What is graded is safe; "
            "when that is mended, the same command goes on where this one stopped."
        )

    def stop(self, sentence: str) -> NoReturn:
        self.log.error(sentence)
        raise Stopped(sentence) from None

    def prepare(self) -> None:
        """What the whole class has in common."""
        lesson = self.coursedir.assignment_id
        self.name = f"{lesson}.ipynb"
        path = Path(self.coursedir.format_path(self.coursedir.release_directory, ".", lesson)) / self.name
        try:
            self.sheet = self.gradebook.sheet(lesson)
        except MissingEntry:
            self.stop(f"The gradebook does not know {lesson}: run `nbgrader generate_assignment {lesson}` first.")
        if not path.exists():
            self.stop(f"There is no released notebook {path}: run `nbgrader generate_assignment {lesson}` first.")
        data = path.read_bytes()
        nb = nbformat.reads(data.decode(), as_version=4)
        ids = {"student": "", "assignment": lesson, "notebook": lesson, "db_url": self.coursedir.db_url}
        for step in (OverwriteCells(parent=self), CheckCellMetadata(parent=self)):  # points and checksums as recorded
            nb, _ = step.preprocess(nb, {"nbgrader": ids})
        self.lesson = Lesson(nb)
        if not self.cluster:
            sandbox.start(self.jail, lends=sandbox.asks(self.lesson.released.imports))
        self.secret = os.environ.get("AUTOGRADER_SEED") or kept_secret(self.coursedir.db_url)
        self.late = AssignLatePenalties(parent=self)
        self.late.init_plugin()
        self.common = {"released": hashlib.sha256(data).hexdigest(), "seconds": self.seconds, "versions": versions()}
        folder = Path(self.coursedir.format_path(self.coursedir.autograded_directory, ".", "."))
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / ".lock", timeout=PATIENCE)

    def examine(self, tasks: Iterable[Task]) -> Iterable[tuple[Task, Outcome]]:
        if self.cluster:
            pairs = self.remote(tasks)
        elif len(self.assignments) == 1 or not may_fork():
            pairs = workers.here(tasks)
        else:
            pairs = workers.local(tasks, self.cores)
        return self.audit.watch(pairs) if self.audit else pairs

    def remote(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        try:
            from autograder import cluster
        except ImportError as error:
            self.stop(f"--cluster needs Dask ({error}): install layer-by-layer[cluster].")
        try:
            yield from cluster.remote(tasks, self.cluster)
        except cluster.ClusterError as error:
            self.stop(str(error))

    def tasks(self) -> Iterator[Task]:
        """What is left to examine. What needs no examination is recorded on the way."""
        excluded = self.coursedir.student_id_exclude.split(",")
        for folder in sorted(map(Path, self.assignments)):
            student = folder.parent.name
            if student in excluded:
                continue
            if not student.isprintable():
                self.fail(student, "the folder's name holds characters that cannot be read: rename it")
                continue
            paper, old = paper_in(folder, self.name), note_in(self.place(student))
            if not self.force and self.is_done(paper, old):
                self.count(old)
                continue
            handed = understood(paper, self.name, self.lesson.released)
            known = old.get("seed") if old.get("source") == handed.source else None
            seed = known or seed_of(self.secret, self.coursedir.assignment_id, student, handed.source)
            if handed.unreadable or handed.failure:
                self.settle(handed, seed, handed.failure or {})
                continue
            self.handed[student] = handed
            yield Task(student, handed.cells, self.lesson.exercises, seed, self.seconds, self.jail)

    def place(self, student: str) -> Path:
        return Path(self._format_dest(self.coursedir.assignment_id, student)) / self.name

    def is_done(self, paper: Paper, old: Note) -> bool:
        """Whether this very paper has been graded, and both the notebook and the gradebook say so."""
        if old.get("submission") != paper.digest or old["scores"].keys() != self.sheet.grades.keys():
            return False
        rows = self.gradebook.scores(self.sheet, paper.student)
        return all(
            name in rows and rows[name][0] == score and rows[name] != (None, None)
            for name, score in old["scores"].items()
        )  # fmt: skip

    def settle(self, handed: Handed, seed: int, outcome: Outcome) -> None:
        """Records an outcome; where that fails, the reason; where that fails too, only says so."""
        try:
            note = self.record(handed, seed, outcome)
        except Exception as error:
            if stops_all(error):
                self.interrupt(error)
            reason = f"{type(error).__name__}: {error}"
            if isinstance(outcome, str):
                self.fail(handed.paper.student, reason)
            else:
                self.settle(handed, seed, reason)
        else:
            if isinstance(outcome, str):
                self.fail(handed.paper.student, outcome)
            self.count(note)

    def count(self, note: Note) -> None:
        self.recorded += 1
        self.tick(note, sum(self.sheet.worth.values()))

    def fail(self, student: str, reason: str) -> None:
        self.log.error("Could not grade %s: %s", student if student.isprintable() else ascii(student), reason)
        self.failures[student] = reason

    def record(self, handed: Handed, seed: int, outcome: Outcome) -> Note:
        """The rows and the notebook. Equal papers give equal bytes; a death in between leaves what `is_done` sees."""
        failure = outcome if isinstance(outcome, str) else ""
        verdicts = {} if isinstance(outcome, str) else outcome
        found = {name: self.found(handed, failure, name, verdicts.get(name)) for name in self.lesson.exercises}
        scores = {name: score for name, (score, _) in found.items()}
        path = self.place(handed.paper.student)
        note = self.common | {
            "submission": handed.paper.digest,
            "timestamp": handed.paper.stamp,
            "source": handed.source,
            "seed": seed,
            "scores": scores,
            "mistakes": {name: verdict.mistake for name, verdict in verdicts.items() if verdict.mistake},
            "flags": flags_of(handed.cells),
            "failure": failure,
        }
        general = [problem for problem in handed.problems if not problem.startswith("`")]
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.lock:
            note["attempts"] = attempts(note_in(path), handed.paper)
            texts = {name: text for name, (_, text) in found.items()}
            notebook = stage(path, self.lesson.text(handed.cells, texts, general, note), self.permissions)
            slips = {slip: text for slip, text in handed.paper.slips.items() if slip != STAMP or handed.timestamp}
            staged = {slip: stage(path.with_name(slip), text, self.permissions) for slip, text in slips.items()}
            self.gradebook.save(
                self.sheet, handed.paper.student, handed.timestamp,
                dict.fromkeys(self.sheet.grades) | scores, self.lesson.comments(handed.cells), self.penalty,
            )  # fmt: skip
            for slip in TRAVELS:
                if slip in staged:
                    os.replace(staged[slip], path.with_name(slip))
                else:
                    path.with_name(slip).unlink(missing_ok=True)
            os.replace(notebook, path)  # the last: from here on it is done
        if self.coursedir.groupshared:
            self.set_permissions(self.coursedir.assignment_id, handed.paper.student)
        return note

    def found(
        self, handed: Handed, failure: str, name: str, verdict: Verdict | None
    ) -> tuple[float | None, list[dict]]:
        """An exercise's score, and the outputs of its check cell."""
        if failure:
            return None, not_graded(name, failure)
        if handed.unreadable:
            return 0.0, outputs(f"{name}: nothing was graded.\n\n{handed.unreadable}", 0.0)
        assert verdict is not None
        worth = float(self.sheet.worth[name])
        points = min(max(worth * verdict.points / verdict.max_points, 0.0), worth)
        remarks = [problem for problem in handed.problems if problem.startswith(f"`{name}`")]
        return points, outputs("\n\n".join([*remarks, verdict.text]), points, mistake=verdict.mistake)

    def penalty(self, submission: SubmittedAssignment, notebook: SubmittedNotebook) -> float | None:
        """What nbgrader's plugin for late submissions takes off."""
        plugin, late = self.late.plugin_inst, submission.total_seconds_late
        penalty = plugin.late_submission_penalty(submission.student_id, notebook.score, late)
        return None if penalty is None else self.late._check_late_penalty(notebook, penalty)


def stops_all(error: Exception) -> bool:
    """Whether every later submission would meet the same: a full disk, a gradebook that another program locks."""
    return isinstance(error, OperationalError | Timeout) or getattr(error, "errno", None) in FULL


def may_fork() -> bool:
    """Not in a server, whose threads and event loop a fork would tear in two."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return hasattr(os, "fork") and threading.current_thread() is threading.main_thread()
    return False


def attempts(old: Note, paper: Paper) -> list[dict]:
    """What was graded of a student before this paper: the record keeps them, as the folder has only the last."""
    earlier = old.get("attempts", [])
    if not old or old["failure"] or old["submission"] == paper.digest:
        return earlier
    return [*earlier, {key: old[key] for key in ("timestamp", "submission", "seed", "scores")}]


def stage(path: Path, text: str, permissions: int) -> Path:
    """Writes what is to stand at `path` beside it; where that is to be replaced, as far as the disk.

    A power cut may empty a file that was not there before: then it is graded again, as if it never had been.
    """
    beside = path.with_name(f".{path.name}.part")
    with open(beside, "wb") as file:
        file.write(text.encode(errors="replace"))
        if path.exists():
            file.flush()
            os.fsync(file.fileno())
    beside.chmod(int(str(permissions), 8))
    return beside


def versions() -> dict[str, str]:
    packages = ("numpy", "torch", "layer-by-layer")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def seed_of(secret: str, assignment: str, student: str, source: str) -> int:
    """A submission's seed: nobody can tell it without the secret, and it always grades the same."""
    return int.from_bytes(hashlib.sha256(f"{secret}:{assignment}:{student}:{source}".encode()).digest()[:4])


def kept_secret(db_url: str) -> str:
    """The secret beside the gradebook, drawn when it is first needed."""
    folder = Path(db_url.removeprefix("sqlite:///")).parent if db_url.startswith("sqlite:///") else Path()  # the course
    path = folder / ".autograder_seed"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    return path.read_text().strip()
