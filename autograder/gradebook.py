"""nbgrader's gradebook for a whole class: one session for a run, one short transaction for a submission.

The rows are those that nbgrader's own SaveAutoGrades and AssignLatePenalties leave; a test compares them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from nbgrader import api
from nbgrader.api import Comment, Grade, Student, SubmittedAssignment, SubmittedNotebook
from sqlalchemy import ColumnElement, Table, bindparam, insert, make_url, or_, select, text, update

PATIENCE = 60  # seconds to wait for another program that is writing into the gradebook
INDEXES = (  # nbgrader looks rows up by these and has no index, so that each look-up would read the whole class
    "grade(notebook_id)", "comment(notebook_id)", "submitted_notebook(assignment_id)",
    "submitted_assignment(student_id)", "base_cell(notebook_id)",
)  # fmt: skip

Penalty = Callable[[SubmittedAssignment, SubmittedNotebook], float | None]


@dataclass(frozen=True)
class Sheet:
    """A lesson in the gradebook: what every submission has a row for."""

    assignment: str  # the id of its row, like all ids here
    notebook: str
    duedate: datetime | None
    grades: Mapping[str, str]  # name of a check cell -> id
    worth: Mapping[str, float]  # name of a check cell -> points
    comments: Mapping[str, str]  # name of an answer cell -> id


class Gradebook(api.Gradebook):
    """nbgrader's, kept open for a run; it waits where another program is writing, and finds rows by index."""

    def __init__(self, db_url: str, course_id: str):
        url = make_url(db_url)
        if url.get_backend_name() == "sqlite":
            url = url.update_query_dict({"timeout": str(PATIENCE)})
        super().__init__(url, course_id)
        for place in INDEXES:
            name = "ix_" + place.rstrip(")").replace("(", "_")
            self.db.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON {place}"))
        self.db.commit()

    def sheet(self, lesson: str) -> Sheet:
        """The rows of a lesson; nbgrader's MissingEntry where it was never generated."""
        notebook = self.find_notebook(lesson, lesson)
        return Sheet(
            assignment=notebook.assignment_id,
            notebook=notebook.id,
            duedate=notebook.assignment.duedate,
            grades={cell.name: cell.id for cell in notebook.grade_cells},
            worth={cell.name: cell.max_score for cell in notebook.grade_cells},
            comments={cell.name: cell.id for cell in notebook.solution_cells},
        )

    def scores(self, sheet: Sheet, student: str) -> dict[str, tuple[float | None, float | None]]:
        """A student's automatic and manual score by check cell; only those that have a row."""
        rows = self.db.execute(
            select(Grade.cell_id, Grade.auto_score, Grade.manual_score)
            .join(SubmittedNotebook, SubmittedNotebook.id == Grade.notebook_id)
            .join(SubmittedAssignment, SubmittedAssignment.id == SubmittedNotebook.assignment_id)
            .where(SubmittedAssignment.student_id == student, SubmittedNotebook.notebook_id == sheet.notebook)
        )
        names = {cell: name for name, cell in sheet.grades.items()}
        return {names[cell]: (automatic, manual) for cell, automatic, manual in rows if cell in names}

    def save(
        self,
        sheet: Sheet,
        student: str,
        timestamp: datetime | None,
        scores: Mapping[str, float | None],
        comments: Mapping[str, str | None],
        penalty: Penalty,
    ) -> None:
        """All rows of a submission in one transaction; manual scores and comments and extra credit stay as they are.

        A score of None asks for a person, and so does a manual score that the automatic one may have outdated.
        """
        try:
            submission, notebook = self._ids(sheet, student)
            self._set(SubmittedAssignment, submission, timestamp=timestamp)
            self._set(SubmittedNotebook, notebook, late_submission_penalty=None)
            self._save(Grade.__table__, notebook, {
                cell: {"auto_score": scores[name], "needs_manual_grade": scores[name] is None}
                for name, cell in sheet.grades.items()
            })  # fmt: skip
            self._save(Comment.__table__, notebook, {
                cell: {"auto_comment": comments[name]} for name, cell in sheet.comments.items()
            })  # fmt: skip
            late = self.db.get_one(SubmittedAssignment, submission) if timestamp and sheet.duedate else None
            if late is not None and late.total_seconds_late > 0:
                found = penalty(late, self.db.get_one(SubmittedNotebook, notebook))
                self._set(SubmittedNotebook, notebook, late_submission_penalty=found)
            self.db.commit()
        except BaseException:
            self.db.rollback()
            raise
        finally:
            self.db.expunge_all()  # else memory grows with the class

    def _ids(self, sheet: Sheet, student: str) -> tuple[str, str]:
        """The rows of a student's submission and its notebook, made where they are missing."""
        if self._find(Student, id=student) is None:
            self.db.execute(insert(Student.__table__), {"id": student})
        submission = self._found_or_made(SubmittedAssignment, assignment_id=sheet.assignment, student_id=student)
        return submission, self._found_or_made(SubmittedNotebook, assignment_id=submission, notebook_id=sheet.notebook)

    def _found_or_made(self, kind: type[api.Base], **fields: str) -> str:
        found = self._find(kind, **fields)
        if found is None:
            found = api.new_uuid()
            self.db.execute(insert(kind.__table__), {"id": found, **fields})
        return found

    def _find(self, kind: type[api.Base], **fields: str) -> str | None:
        """The id of the row with these fields."""
        columns = kind.__table__.c
        return self.db.execute(
            select(columns.id).where(*(columns[name] == value for name, value in fields.items()))
        ).scalar()  # fmt: skip

    def _set(self, kind: type[api.Base], row: str, **fields: object) -> None:
        table = kind.__table__
        self.db.execute(update(table).where(table.c.id == row).values(fields))

    def _save(self, table: Table, notebook: str, values: Mapping[str, dict]) -> None:
        """Writes values into the rows of a submission's cells, all in one statement for old rows and one for new."""
        old = {cell: row for row, cell in self.db.execute(
            select(table.c.id, table.c.cell_id).where(table.c.notebook_id == notebook)
        )}  # fmt: skip
        changed = [{"row": old[cell], **value} for cell, value in values.items() if cell in old]
        added = [
            {"notebook_id": notebook, "cell_id": cell, **value} for cell, value in values.items() if cell not in old
        ]
        if changed:
            new: dict[str, ColumnElement] = {name: bindparam(name) for name in changed[0] if name != "row"}
            if "needs_manual_grade" in new:
                new["needs_manual_grade"] = or_(table.c.manual_score.is_not(None), bindparam("needs_manual_grade"))
            self.db.execute(update(table).where(table.c.id == bindparam("row")).values(new), changed)
        if added:
            self.db.execute(insert(table), added)
