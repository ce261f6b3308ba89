"""The pages that students read: what the check found, points and comments; text, and nothing that runs or loads.

`GenerateFeedback` takes the place of nbgrader's: the same files in the same folders, made from a template of ours. What
came from a student, or through one, is cut to a length, stripped of codes that only a terminal obeys, and escaped.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import bleach
import jinja2
from markupsafe import Markup, escape
from nbconvert.filters import markdown2html
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nbgrader import api, apps, converters
from nbgrader.server_extensions.formgrader import formgrader, handlers
from pygments import token
from pygments.lexers import PythonLexer
from sqlalchemy import bindparam, select
from traitlets.config import Config

from autograder.gradebook import Gradebook
from autograder.notebooks import ANSWER, COURSE_ID, Part, parse_notebook, parts
from autograder.report import points

LIMIT = 10_000  # characters of one text on a page
OWN_CELLS = 20  # of a student's own cells on a page
ABOUT_THE_FILE = "about-the-file"  # id of the cell whose output names what is wrong with the file handed in
TRAVELS = ("timestamp.txt", "submission_secret.txt")  # what nbgrader's release_feedback reads beside a page
TEMPLATES = Path(__file__).parent / "templates"
PAGE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
).get_template("feedback.html.j2")  # fmt: skip


def configure(c: Config) -> None:
    """The part of nbgrader_config.py that is about what students, and graders in formgrader, get to see."""
    apps.generatefeedbackapp.GenerateFeedback = apps.api.GenerateFeedback = GenerateFeedback
    # Formgrader renders autograded notebooks with nbconvert, which by itself runs what it finds in them.
    c.HTMLExporter.preprocessors = ["autograder.feedback.Inert"]
    c.HTMLExporter.filters = {"markdown2html": "autograder.feedback.prose"}
    c.HTMLExporter.extra_template_basedirs = [str(TEMPLATES), handlers.template_path]
    formgrader.Environment = partial(jinja2.Environment, autoescape=True)  # its pages show names of folders, too


# --- text --------------------------------------------------------------------------------------------------------

# Colours and cursor movements, titles and links; each repetition is possessive, so that time grows with length only.
_TERMINAL = re.compile(r"\x1b\[[0-?]*+[ -/]*+[@-~]|\x1b\][^\x07\x1b]*+(?:\x07|\x1b\\)")
# Control characters, marks that reorder or hide the text around them, halves of characters.
_INVISIBLE = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def readable(text: str) -> str:
    """A text as a page may hold it, once it is escaped: cut to LIMIT; what nobody sees is left out or given a name."""
    bare = _TERMINAL.sub("", text[:LIMIT].replace("\r\n", "\n"))
    return _INVISIBLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", bare) + _cut(text)


def _cut(text: str) -> str:
    return f"\n\n[Cut here: the first {LIMIT:,} of {len(text):,} characters are shown.]" if len(text) > LIMIT else ""


def with_code(text: str) -> Markup:
    """A sentence, escaped, with what stands in `backticks` as code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))


def highlighted(source: str) -> Markup:
    """Python source, as readable returns it and escaped, with the kinds of its tokens as classes."""
    return _spans(readable(source[:LIMIT])) + _cut(source)


@lru_cache(1000)  # many in a class leave the same cell as it was
def _spans(source: str) -> Markup:
    spans = (
        f'<i class="{kind}">{escape(value)}</i>' if (kind := _kind(tokens)) else escape(value)
        for tokens, value in _PYTHON.get_tokens(source)
    )
    return Markup("".join(spans))


@cache
def _kind(tokens: Any) -> str:
    return next((kind for group, kind in _KINDS if tokens in group), "")


_PYTHON = PythonLexer(stripnl=False, ensurenl=False)
_KINDS = (
    (token.Comment, "c"), (token.Keyword, "k"), (token.Operator.Word, "k"), (token.String, "s"), (token.Number, "n"),
    (token.Name.Function, "f"), (token.Name.Class, "f"),
)  # fmt: skip


# --- what the gradebook holds ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marks:
    """What the gradebook holds of one student's notebook."""

    student: str
    grades: Mapping[str, Any]  # exercise -> row: worth, score, auto_score, manual_score, extra_credit, waits
    comments: Mapping[str, Any]  # grade_id -> row: auto_comment, manual_comment
    penalty: float  # points


# By columns that nbgrader's tables are indexed by, so that the size of the class costs nothing.
_SUBMISSION = (
    select(
        api.SubmittedNotebook.id,
        api.SubmittedNotebook.notebook_id,
        api.SubmittedNotebook.late_submission_penalty,
        api.Student.first_name,
        api.Student.last_name,
    )
    .join(api.SubmittedAssignment, api.SubmittedAssignment.id == api.SubmittedNotebook.assignment_id)
    .join(api.Student, api.Student.id == api.SubmittedAssignment.student_id)
    .join(api.Assignment, api.Assignment.id == api.SubmittedAssignment.assignment_id)
    .join(api.Notebook, api.Notebook.id == api.SubmittedNotebook.notebook_id)
    .where(
        api.Assignment.name == bindparam("lesson"),
        api.Notebook.name == bindparam("notebook"),
        api.Student.id == bindparam("student"),
    )
)
_GRADES = (
    select(
        api.GradeCell.name,
        api.GradeCell.max_score.label("worth"),
        api.Grade.score,
        api.Grade.auto_score,
        api.Grade.manual_score,
        api.Grade.extra_credit,
        api.Grade.needs_manual_grade.label("waits"),
    )
    .outerjoin(api.Grade, (api.Grade.cell_id == api.GradeCell.id) & (api.Grade.notebook_id == bindparam("submission")))
    .where(api.GradeCell.notebook_id == bindparam("notebook"))
)
_COMMENTS = (
    select(api.SolutionCell.name, api.Comment.auto_comment, api.Comment.manual_comment)
    .join(
        api.Comment,
        (api.Comment.cell_id == api.SolutionCell.id) & (api.Comment.notebook_id == bindparam("submission")),
    )
    .where(api.SolutionCell.notebook_id == bindparam("notebook"))
)


def marks_of(gradebook: api.Gradebook, lesson: str, notebook: str, student: str) -> Marks:
    """A student's marks, in three queries; nbgrader's MissingEntry where the gradebook has none."""
    ids = {"lesson": lesson, "notebook": notebook, "student": student}
    submission = gradebook.db.execute(_SUBMISSION, ids).one_or_none()
    if submission is None:
        raise api.MissingEntry(f"The gradebook knows no submission of {lesson} by {student}: autograde it first.")
    rows = {"submission": submission.id, "notebook": submission.notebook_id}
    grades, comments = (gradebook.db.execute(query, rows) for query in (_GRADES, _COMMENTS))
    name = " ".join(filter(None, (submission.first_name, submission.last_name)))
    return Marks(
        student=f"{name} ({student})" if name else student,
        grades={row.name: row for row in grades},
        comments={row.name: row for row in comments},
        penalty=submission.late_submission_penalty or 0.0,
    )


# --- from a graded notebook to a page ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """An exercise on the page."""

    name: str
    score: float
    worth: float
    mark: str  # "full", "part", "none" or "waiting"
    verdict: str  # one line
    remarks: Sequence[str]  # on the score
    report: Sequence[tuple[bool, Markup]]  # paragraphs; True: a table
    comments: Sequence[tuple[str, str]]  # where from, what
    answer: Markup


def page(nb: Mapping[str, Any], marks: Marks, notebook: str) -> str:
    """The page for a graded notebook, as parse_notebook returns it."""
    found = parts(nb)
    cells = [cell for cell in nb["cells"] if isinstance(cell, dict)]
    told = {part.grade_id or part.cell_id: _told(cell) for part, cell in zip(found, cells, strict=True)}
    sources = {part.grade_id: part.source for part in found if part.grade_id}
    own = [part.source for part in found if _is_own(part)]
    places = {name: place for place, name in enumerate(sources)}
    items = [
        _item(marks, name, told.get(name, ""), sources.get(name + ANSWER, ""))
        for name in sorted(marks.grades, key=lambda name: places.get(name, len(places)))
    ]
    earned = sum(item.score for item in items)
    return PAGE.render(
        title=readable(_heading(found) or notebook),
        student=readable(marks.student),
        points=points,
        score=earned - marks.penalty,
        worth=sum(item.worth for item in items),
        earned=earned,
        penalty=marks.penalty,
        problems=[with_code(line) for line in readable(told.get(ABOUT_THE_FILE, "")).splitlines() if line],
        items=items,
        own=[highlighted(source) for source in own[:OWN_CELLS]],
        own_cells=len(own),
    )


def _is_own(part: Part) -> bool:
    """Whether a student added the cell."""
    course = part.grade_id or part.cell_id == ABOUT_THE_FILE or COURSE_ID.fullmatch(part.cell_id)
    return part.kind == "code" and not course


def _heading(found: Iterable[Part]) -> str:
    """What the lesson begins with; empty where that is no heading."""
    first = next((part.source for part in found if part.kind == "markdown"), "").partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""


def _told(cell: Mapping[str, Any]) -> str:
    """What the outputs of a cell say: what was printed, and why the grader failed; nothing else counts."""
    outputs = cell.get("outputs")
    texts = [
        _joined(output.get("evalue" if output.get("output_type") == "error" else "text"))
        for output in (outputs if isinstance(outputs, list) else ())
        if isinstance(output, dict) and output.get("output_type") in ("stream", "error")
    ]
    return "\n\n".join(texts)


def _joined(text: Any) -> str:
    """nbformat keeps a text whole or as a list of lines."""
    lines = text if isinstance(text, list) else [text]
    return "".join(line for line in lines if isinstance(line, str))


def _item(marks: Marks, name: str, told: str, answer: str) -> Item:
    row, comment = marks.grades[name], marks.comments.get(name + ANSWER)
    score = row.score or 0.0
    mark = "waiting" if row.waits else "full" if score >= row.worth else "part" if score > 0 else "none"
    report = _paragraphs(readable(told), name)
    comments = [("From your grader", comment.manual_comment), ("Automatic", comment.auto_comment)] if comment else []
    return Item(
        name=name,
        score=score,
        worth=row.worth,
        mark=mark,
        verdict="Right." if mark == "full" else _verdict(report),
        remarks=list(_remarks(row)),
        report=[(text.startswith(" "), with_code(textwrap.dedent(text))) for text in report],
        comments=[(source, readable(text)) for source, text in comments if text],
        answer=highlighted(answer),
    )


def _paragraphs(report: str, name: str) -> list[str]:
    """A report without its headline, whose name and points the page has anyway."""
    headline = re.compile(rf"{re.escape(name)}: [\d.]+ of \d+ points?")
    return [text for text in re.split(r"\n{2,}", report.strip("\n")) if text and not headline.fullmatch(text)]


def _verdict(report: Sequence[str]) -> str:
    """The first sentence of a report that is about the answer; else the first about its cell."""
    sentences = [re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0] for text in report if not text.startswith(" ")]
    answer = (text for text in sentences if not text.startswith("`"))
    return textwrap.shorten(next(answer, "".join(sentences[:1])), 120, placeholder=" …")


def _remarks(row: Any) -> Iterable[str]:
    if row.waits:
        yield "An instructor still has to look at this."
    if row.manual_score is not None and row.auto_score is not None and row.manual_score != row.auto_score:
        yield f"The check gave {points(row.auto_score)}; your grader made it {points(row.manual_score)}."
    if row.extra_credit:
        yield f"{points(row.extra_credit)} of it is extra credit."


# --- nbgrader's command and buttons ------------------------------------------------------------------------------


class GenerateFeedback(converters.GenerateFeedback):
    """nbgrader's own, with pages of ours. Every page is made anew, and written where it says something new."""

    def start(self) -> None:
        with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as self.gradebook:
            super().start()

    def init_destination(self, assignment_id: str, student_id: str) -> bool:
        return student_id not in self.coursedir.student_id_exclude.split(",")

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        source, folder = (Path(place(assignment_id, student_id)) for place in (self._format_source, self._format_dest))
        folder.mkdir(parents=True, exist_ok=True)
        for path in (source / name for name in TRAVELS):  # and no other file of the student's
            if path.is_file() and not path.is_symlink():
                write(folder / path.name, path.read_bytes(), self.mode)

    def convert_single_notebook(self, notebook_filename: str) -> None:
        self.log.info("Converting notebook %s", notebook_filename)
        ids = self.init_single_notebook_resources(notebook_filename)["nbgrader"]
        marks = marks_of(self.gradebook, ids["assignment"], ids["notebook"], ids["student"])
        html = page(parse_notebook(Path(notebook_filename).read_bytes()), marks, ids["notebook"])
        folder = Path(self._format_dest(ids["assignment"], ids["student"]))
        write(folder / f"{ids['notebook']}.html", html.encode(), self.mode)

    @property
    def mode(self) -> int:
        return int(str(self.permissions), 8)  # a decimal number that is meant to be read as an octal one


def write(path: Path, data: bytes, mode: int) -> None:
    """Puts a whole file in place at once; leaves one alone that holds the same already."""
    if path.is_file() and path.read_bytes() == data:
        return
    unfinished = path.with_name(f".{path.name}.part")  # always the same name: what a killed run left is written over
    unfinished.write_bytes(data)
    unfinished.chmod(mode)
    unfinished.replace(path)


# --- formgrader --------------------------------------------------------------------------------------------------


PROSE = bleach.ALLOWED_TAGS | set(
    "p br hr h1 h2 h3 h4 h5 h6 pre div span del sub sup table thead tbody tr th td details summary".split()
)


class Inert(Preprocessor):
    """What formgrader shows of a graded notebook: sources and printed text. Nothing else gets through."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        nb.metadata = NotebookNode(language_info={"name": "python"})
        nb.cells = [_inert(cell) for cell in nb.cells]
        for key in ("student", "first_name", "last_name", "notebook_path"):
            resources[key] = str(escape(readable(resources.get(key) or "")))
        return nb, resources


def _inert(cell: NotebookNode) -> NotebookNode:
    if cell.cell_type != "code":
        shown = new_markdown_cell(readable(cell.source))
    else:
        text = readable(_told(cell))
        shown = new_code_cell(readable(cell.source), outputs=[new_output("stream", text=text)] if text else [])
    facts = cell.metadata.get("nbgrader")
    if isinstance(facts, dict) and re.fullmatch(r"[\w.-]+", str(facts.get("grade_id"))):  # the template escapes nothing
        shown.metadata.nbgrader = facts
    return shown


def prose(markdown: str) -> str:
    """Markdown -> HTML of plain elements only: no scripts, pictures or styles."""
    return bleach.clean(markdown2html(markdown), PROSE, {"a": ["href"]}, strip=True)
