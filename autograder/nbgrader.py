"""What puts the course into nbgrader: `nbgrader autograde`, formgrader's button and `autograder grade` all pass here.

nbgrader reads a submission, runs it and scores what its cells print. Here the first becomes: put the student's source
text into the released notebook (`SubmissionExporter`); the second: examine the answers in the sandbox and write the
verdicts into the check cells (`Grade`). The rest, from the gradebook to late penalties and feedback, is nbgrader's own.
"""

import glob
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbconvert.exporters.exporter import ResourcesDict
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from nbgrader import apps, converters, utils
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Float
from traitlets.config import Config

from autograder.batch import NOTE, UNGRADED
from autograder.grade import SECONDS
from autograder.notebooks import ANSWER, MAX_BYTES, NotebookError, cells_of, parse_notebook, problems_of
from autograder.sandbox import Cell, examine_notebook


def configure(c: Config) -> None:
    """The part of nbgrader_config.py that is about grading."""
    # nbgrader runs `alembic`, which stands beside the interpreter, also where nobody has activated the environment.
    beside, paths = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([beside, *(path for path in paths if path != beside)])
    c.Autograde.exporter_class = "autograder.nbgrader.SubmissionExporter"
    c.Autograde.sanitize_preprocessors = [
        "nbgrader.preprocessors.OverwriteCells",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    c.Autograde.autograde_preprocessors = [
        "autograder.nbgrader.Grade",
        "nbgrader.preprocessors.SaveAutoGrades",
        "nbgrader.preprocessors.AssignLatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    # nbgrader passes over a folder without a notebook before it looks at any configuration.
    apps.autogradeapp.Autograde = apps.api.Autograde = Autograde


class Autograde(converters.Autograde):
    """nbgrader's own, but every folder that was handed in is graded, also one in which the notebook is missing."""

    def init_notebooks(self) -> None:
        folders = glob.glob(self._format_source(self.coursedir.assignment_id, self.coursedir.student_id))
        self.assignments = {folder: [os.path.join(folder, f"{Path(folder).name}.ipynb")] for folder in folders}
        if not folders:
            super().init_notebooks()  # says what it looked for


# --- from the student's file to a notebook -----------------------------------------------------------------------


class SubmissionExporter(NotebookExporter):
    """Reads a submission as the released notebook with the student's source text in it."""

    parent: Autograde

    def from_filename(self, filename: str, resources: Any = None, **kw: Any) -> tuple[Any, Any]:
        if not self.parent._sanitizing:  # the second reading, of what the first has written
            return super().from_filename(filename, resources, **kw)
        resources["metadata"] = ResourcesDict(name=Path(filename).stem, path=str(Path(filename).parent))
        released = nbformat.read(self.released(resources["nbgrader"]), as_version=4)
        return self.from_notebook_node(rebuild(Path(filename), released), resources)

    def released(self, ids: Mapping[str, str]) -> Path:
        coursedir = self.parent.coursedir
        folder = coursedir.format_path(coursedir.release_directory, ".", ids["assignment"])
        return Path(folder) / f"{ids['notebook']}.ipynb"


def rebuild(path: Path, released: NotebookNode) -> NotebookNode:
    """The released notebook with the answers and added code cells of the file at `path`; never raises for that file."""
    cells: list[Cell] = []
    note: dict[str, Any] = {"problems": [], "unreadable": "", "failure": ""}
    try:
        submitted = parse_notebook(read_regular(path))
        cells = cells_of(submitted, released)
        note["problems"] = problems_of(submitted, released)
    except NotebookError as error:
        advice = f"No exercise counts as answered: hand in {path.name} again, as JupyterLab saves it."
        note["unreadable"] = f"{error} {advice}"
    except Exception as error:
        note["failure"] = f"{type(error).__name__}: {error}"
    nb = with_answers(released, cells)
    nb.metadata[NOTE] = {"cells": [[cell.exercise, cell.source] for cell in cells], **note}
    return nb


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file, without following a link or waiting for a pipe."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise NotebookError(_no_file(path)) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotebookError(_no_file(path))
    with open(file, "rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _no_file(path: Path) -> str:
    if os.path.lexists(path):
        return f"{path.name} is no ordinary file but a link, a folder or something stranger."
    others = sorted(found.name for found in path.parent.glob("*.ipynb"))
    instead = f"; there is {others[0][:80]!r}, but the name has to stay as it was" if others else ""
    return f"There is no file {path.name}{instead}."


def with_answers(released: NotebookNode, cells: list[Cell]) -> NotebookNode:
    """A copy of the released notebook in which the student's own cells stand behind the answer they followed."""
    answers = {f"{cell.exercise}{ANSWER}": cell.source for cell in cells if cell.exercise}
    own: dict[str, list[NotebookNode]] = {}
    place = ""
    for number, cell in enumerate(cells[1:]):  # the first holds the course's own imports
        if cell.exercise:
            place = f"{cell.exercise}{ANSWER}"
        elif cell.source.strip():
            own.setdefault(place, []).append(new_code_cell(cell.source, id=f"own-{number}"))
    nb = NotebookNode(released, cells=own.pop("", []))
    for cell in released.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        nb.cells += [NotebookNode(cell, source=answers.get(name, cell.source)), *own.get(name, [])]
    return nb


# --- from the notebook to grades ---------------------------------------------------------------------------------


class Grade(NbGraderPreprocessor):
    """Examines a rebuilt notebook and writes the output of every check cell: the report, then the points as a float."""

    seconds = Float(SECONDS, help="How long the answer to one exercise may run.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        note = nb.metadata.pop(NOTE)
        code = [cell for cell in nb.cells if cell.cell_type == "code"]
        checks = {cell.metadata.nbgrader.grade_id: cell for cell in code if utils.is_grade(cell)}
        for cell in code:
            cell.outputs, cell.execution_count = [], None
        try:
            verdicts = self.verdicts(note, checks, resources["nbgrader"])
        except Exception as error:
            self.log.error("Could not grade %s", resources["nbgrader"]["student"], exc_info=True)
            verdicts = {name: [not_graded(name, f"{type(error).__name__}: {error}")] for name in checks}
        for name, cell in checks.items():
            cell.outputs = verdicts[name]
        if general := [problem for problem in note["problems"] if not problem.startswith("`")]:
            nb.cells.insert(0, remark(general))
        return nb, resources

    def verdicts(
        self, note: Mapping[str, Any], checks: Mapping[str, NotebookNode], ids: Mapping[str, str]
    ) -> dict[str, list]:
        if note["failure"]:
            raise RuntimeError(note["failure"])
        if note["unreadable"]:
            return {name: outputs(f"{name}: nothing was graded.\n\n{note['unreadable']}", 0.0) for name in checks}
        cells = [Cell(exercise, source) for exercise, source in note["cells"]]
        results = examine_notebook(cells, list(checks), seed_of(ids), self.seconds)
        return {name: verdict(results[name], cell, note["problems"]) for name, cell in checks.items()}


def verdict(result: Any, cell: NotebookNode, problems: list[str]) -> list[NotebookNode]:
    """The outputs of a check cell for what the sandbox found."""
    worth = float(cell.metadata.nbgrader.points)
    points = min(max(worth * float(result.points) / result.max_points, 0.0), worth)
    remarks = [problem for problem in problems if problem.startswith(f"`{result.exercise}`")]
    return outputs("\n\n".join([*remarks, result.text]), points, mistake=result.mistake)


def outputs(text: str, points: float, **facts: Any) -> list[NotebookNode]:
    """What nbgrader's scoring reads, a plain float, under what the student reads; `facts` are for batch.py."""
    return [
        new_output("stream", name="stdout", text=text + "\n"),
        new_output("execute_result", data={"text/plain": repr(points)}, metadata={NOTE: facts}),
    ]


def not_graded(name: str, reason: str) -> NotebookNode:
    """The output that scores 0 and asks for a person."""
    sentence = f"{name} could not be graded, because the grader itself failed: {reason}. An instructor has to look."
    return new_output("error", ename=UNGRADED, evalue=sentence, traceback=[sentence])


def remark(problems: list[str]) -> NotebookNode:
    """A cell on top of the feedback page; as printed text, so that nothing a student wrote is rendered."""
    cell = new_code_cell("# About the file you handed in", id="about-the-file")
    cell.outputs = [new_output("stream", name="stdout", text="\n".join(problems) + "\n")]
    return cell


def seed_of(ids: Mapping[str, str]) -> int:
    """An assignment's seed: secret, and kept with the gradebook, so that a submission always grades the same."""
    secret = os.environ.get("AUTOGRADER_SEED") or kept_secret(ids["db_url"])
    return int.from_bytes(hashlib.sha256(f"{secret}:{ids['assignment']}".encode()).digest()[:4])


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
