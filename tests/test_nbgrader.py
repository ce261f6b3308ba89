"""nbgrader's own commands on a course with our configuration, and a class that cheats, breaks things and does well."""

import copy
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nbgrader.api import Gradebook

from autograder import batch, nbgrader
from autograder.build import assemble, text_of
from autograder.exercise import find

LESSON = "01_sample"
ROOT = Path(__file__).parents[1]
RIGHT = {
    "linear_forward": "def linear_forward(x, w, b):\n    return x @ w.T + b",
    "linear_backward": "def linear_backward(dy, x, w, b):\n    return dy @ w, dy.T @ x, dy.sum(axis=0)",
    "count_parameters": "def count_parameters(widths):\n    return sum(i * o + o for i, o in zip(widths, widths[1:]))",
}
FULL = {name: float(find(name).points) for name in RIGHT}
NONE = dict.fromkeys(RIGHT, 0.0)
NO_BIAS = "def linear_forward(x, w, b):\n    return x @ w.T"  # a wrong answer, to be sold as a right one


def solved() -> nbformat.NotebookNode:
    """A lesson of three exercises, as the builder makes them."""
    cells = [new_code_cell("import numpy as np\nfrom autograder import check"), new_markdown_cell("## From scratch")]
    for name, source in RIGHT.items():
        head, body = source.split("\n", 1)
        answer = f"{head}\n    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION"
        cells.append(_cell(answer, f"{name}_answer", solution=True))
        cells.append(_cell(f"check({name})", name, points=find(name).points))
    return assemble(cells)


def _cell(source, grade_id, solution=False, **points):
    flags = dict(grade=bool(points), locked=bool(points), solution=solution, task=False, schema_version=3)
    return new_code_cell(source, metadata={"nbgrader": {"grade_id": grade_id} | flags | points})


# --- the class: what each student does to the released notebook, and the points that this has to be worth --------


def cell_of(nb, grade_id):
    return next(cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def answer(nb, **answers):
    """The solved lesson, but for the given answers."""
    for name, source in (RIGHT | answers).items():
        cell_of(nb, f"{name}_answer").source = source


def sells(check="check(linear_forward)", before="", **metadata):
    """A wrong linear_forward with a tampered check cell: its source, what the answer does first, its metadata."""

    def hand_in(nb):
        answer(nb, linear_forward=f"{before}\n{NO_BIAS}")
        cell = cell_of(nb, "linear_forward")
        cell.source, cell.outputs = check, [new_output("execute_result", data={"text/plain": "2.0"}, execution_count=1)]
        cell.metadata.nbgrader.update(metadata)

    return hand_in


def skips_execution(nb):
    answer(nb, linear_forward=NO_BIAS)
    for cell in nb.cells:
        cell.metadata.tags = ["skip-execution"]


def pads_every_cell(**metadata):
    def hand_in(nb):
        answer(nb, linear_forward=NO_BIAS)
        for cell in nb.cells:
            if "nbgrader" in cell.metadata:
                cell.metadata.nbgrader.update(metadata)

    return hand_in


def answers(**sources):
    return lambda nb: answer(nb, **sources)


def copies_answer(nb):
    answer(nb)
    second = cell_of(nb, "linear_forward_answer")
    first = copy.deepcopy(second) | {"source": NO_BIAS, "id": "copied"}
    nb.cells.insert(nb.cells.index(second), nbformat.from_dict(first))


def copies_check(nb):
    answer(nb)
    nb.cells.append(nbformat.from_dict(copy.deepcopy(cell_of(nb, "linear_forward")) | {"id": "copied"}))


def deletes(grade_id):
    def hand_in(nb):
        answer(nb)
        nb.cells.remove(cell_of(nb, grade_id))

    return hand_in


def retypes(grade_id, kind):
    def hand_in(nb):
        answer(nb)
        cell = cell_of(nb, grade_id)
        cell.cell_type = kind
        cell.pop("outputs"), cell.pop("execution_count")

    return hand_in


def adds(*sources, **changed):
    """Cells of one's own on top."""

    def hand_in(nb):
        answer(nb, **changed)
        nb.cells[1:1] = [new_code_cell(source) for source in sources]

    return hand_in


def another_lesson(nb):
    """The wrong file, with markup where the grader might repeat it."""
    nb.cells = [new_code_cell("print('my homework')", metadata={"nbgrader": {"grade_id": "<script>"}})]


def other_kernel(nb):
    answer(nb)
    nb.metadata.kernelspec = {"name": "no-such-kernel", "display_name": "?", "language": "fortran"}


def part(name):
    """FULL, but nothing for one exercise."""
    return FULL | {name: 0.0}


LOOP = "def count_parameters(widths):\n    while True:\n        pass"
EXIT = "def count_parameters(widths):\n    import os\n    os._exit(0)"
WARNS = "import sys, warnings\nprint('!', file=sys.stderr)\n" + RIGHT["linear_forward"].replace(
    "return", "warnings.warn('old')\n    return"
)
DB_MEAN = RIGHT["linear_backward"].replace("sum", "mean")
HELPED = "def linear_forward(x, w, b):\n    return helper(x, w) + b"
BREAKS_NUMPY = "import numpy as np\nnp.allclose = lambda *a, **k: True\nnp.abs = lambda *a: 0.0"
CLASS = {
    "honest": (answers(), FULL),
    "untouched": (lambda nb: None, NONE),
    "partly": (answers(linear_backward=DB_MEAN), FULL | {"linear_backward": 4.0}),
    "says_failed": (sells("'FAILED'"), part("linear_forward")),
    "says_nan": (sells("float('nan')"), part("linear_forward")),
    "says_minus_one": (sells("-1"), part("linear_forward")),
    "says_numpy": (sells("np.float64(2.5)"), part("linear_forward")),
    "says_nothing": (sells("pass"), part("linear_forward")),
    "says_fine": (sells("import sys; sys.displayhook('fine')"), part("linear_forward")),
    "displayhook": (sells(before="import sys\nsys.displayhook('fine')"), part("linear_forward")),
    "patches_check": (sells(before="check = lambda f: 2.0"), part("linear_forward")),
    "patches_numpy": (sells(before=BREAKS_NUMPY), part("linear_forward")),
    "extra_credit": (sells(extra_credit=20, points=1000), part("linear_forward")),
    "no_points": (sells(points=0, grade=False, locked=False), part("linear_forward")),
    "unlocked": (sells("2.0", solution=True, locked=False), part("linear_forward")),
    "skip_execution": (skips_execution, part("linear_forward")),
    "schema_1": (pads_every_cell(schema_version=1), part("linear_forward")),
    "schema_99": (pads_every_cell(schema_version=99), part("linear_forward")),
    "one_name": (pads_every_cell(grade_id="linear_forward"), NONE),
    "other_kernel": (other_kernel, FULL),
    "wrong_file": (another_lesson, NONE),
    "warns": (answers(linear_forward=WARNS), FULL),
    "helper_cell": (adds("def helper(x, w):\n    return x @ w.T", linear_forward=HELPED), FULL),
    "failing_cell": (adds("1 / 0", "assert False", "print('x' * 10_000)"), FULL),
    "copies_answer": (copies_answer, FULL),
    "copies_check": (copies_check, FULL),
    "deletes_check": (deletes("linear_forward"), FULL),
    "deletes_answer": (deletes("linear_forward_answer"), part("linear_forward")),
    "markdown_check": (retypes("linear_forward", "markdown"), FULL),
    "raw_answer": (retypes("linear_forward_answer", "raw"), FULL),
    "syntax_error": (answers(count_parameters="def count_parameters(widths:\n    return 1"), part("count_parameters")),
    "endless_loop": (answers(count_parameters=LOOP), part("count_parameters")),
    "exits": (answers(count_parameters=EXIT), part("count_parameters")),
}


def file_of(hand_in, released) -> bytes:
    nb = copy.deepcopy(released)
    hand_in(nb)
    return json.dumps(nb).encode()


def old_format(data: bytes) -> bytes:
    worksheets = [{"cells": json.loads(data)["cells"]}]
    return json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": worksheets}).encode()


BROKEN = {  # what is in the file instead of a notebook, and what the student is told
    "broken_json": (lambda data: data[: len(data) // 2], "broken JSON in line 1"),
    "empty_file": (lambda data: b"", "broken JSON in line 1"),
    "utf_16": (lambda data: data.decode().encode("utf-16"), "no text in UTF-8"),
    "a_list": (lambda data: b"[1, 2]", "no list of cells"),
    "old_format": (old_format, "no list of cells"),
    "nested": (lambda data: b'{"cells":' + b"[" * 100_000, "nested too deeply"),
}
NO_FILE = {  # what is done in the folder that is handed in, and what the student is told
    "missing": (lambda path, data: None, "There is no file 01_sample.ipynb."),
    "renamed": (lambda path, data: (path.parent / "final (2).ipynb").write_bytes(data), "there is 'final (2).ipynb'"),
    "a_folder": (lambda path, data: path.mkdir(), "no ordinary file"),
    "a_pipe": (lambda path, data: os.mkfifo(path), "no ordinary file"),
    "a_link": (lambda path, data: path.symlink_to(path.parents[2] / "honest" / LESSON / path.name), "no ordinary file"),
}


# --- the course --------------------------------------------------------------------------------------------------


OPTIONS = "c.Autograde.seconds = 2.0\nc.LateSubmissionPlugin.penalty_method = 'zero'\n"
SABOTAGE = """
from autograder import workers
intact = workers.examine_notebook

def examine(cells, *rest, **options):
    if any("sabotage" in cell.source for cell in cells):
        raise OSError("out of luck")
    return intact(cells, *rest, **options)

workers.examine_notebook = examine
"""  # our own code fails for one submission


class Course:
    """A course in a folder of its own, run with nbgrader's commands."""

    def __init__(self, root: Path):
        self.root = root
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "NBGRADER", "AUTOGRADER"))
        }
        # As from a desktop icon: nobody has activated the virtual environment.
        self.environment |= {"PATH": os.defpath, "HOME": str(root / "home")}
        self.environment |= {"NBGRADER_EXCHANGE": str(root / "exchange")}

    def nbgrader(self, *arguments, where=None, status=0):
        command = [sys.executable, "-m", "nbgrader", *arguments]
        done = subprocess.run(command, cwd=where or self.root, env=self.environment, capture_output=True, text=True)
        assert done.returncode == status, f"{arguments}: {done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def submitted(self, student) -> Path:
        path = self.root / "submitted" / student / LESSON / f"{LESSON}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def graded(self, student):
        return nbformat.read(self.root / "autograded" / student / LESSON / f"{LESSON}.ipynb", as_version=4)

    def report(self, student, exercise) -> str:
        return cell_of(self.graded(student), exercise).outputs[0].text

    def note(self, student) -> dict:
        return self.graded(student).metadata.autograder

    def feedback(self, student) -> str:
        return (self.root / "feedback" / student / LESSON / f"{LESSON}.html").read_text()

    def scores(self, student) -> dict:
        return batch.standing_of(batch.course_at(self.root), LESSON).scores[student]

    def gradebook(self):
        return Gradebook(f"sqlite:///{self.root / 'gradebook.db'}", "layer-by-layer")


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """The class above, released, fetched, submitted, collected, autograded and given feedback."""
    course = Course(tmp_path_factory.mktemp("course"))
    (course.root / "exchange").mkdir()
    (course.root / "nbgrader_config.py").write_text((ROOT / "nbgrader_config.py").read_text() + OPTIONS + SABOTAGE)
    source = course.root / "solutions" / LESSON / f"{LESSON}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text(text_of(solved()))
    course.nbgrader("generate_assignment", LESSON)
    course.nbgrader("release_assignment", LESSON)
    hand_in_everything(course)
    fetch_and_submit(course)
    course.nbgrader("collect", LESSON)
    with course.gradebook() as gradebook:
        gradebook.update_or_create_assignment(LESSON, duedate="2026-05-01 12:00:00 UTC")
    course.log = course.nbgrader("autograde", LESSON, status=1)  # somebody's submission makes the grader fail
    course.nbgrader("generate_feedback", LESSON)
    return course


def released(course):
    return nbformat.read(course.root / "course" / LESSON / f"{LESSON}.ipynb", as_version=4)


def hand_in_everything(course):
    nb = released(course)
    honest = file_of(answers(), nb)
    for student, (hand_in, _) in CLASS.items():
        course.submitted(student).write_bytes(file_of(hand_in, nb))
    for student, (damage, _) in BROKEN.items():
        course.submitted(student).write_bytes(damage(honest))
    for student, (arrange, _) in NO_FILE.items():
        arrange(course.submitted(student), honest)
    course.submitted("sabotaged").write_bytes(file_of(adds("'sabotage'"), nb))
    for student, hour in (("in_time", 11), ("late", 13)):
        course.submitted(student).write_bytes(honest)
        course.submitted(student).with_name("timestamp.txt").write_text(f"2026-05-01 {hour}:00:00 UTC")


def fetch_and_submit(course):
    """A student's side, with nbgrader's commands."""
    home = course.root / "home"
    home.mkdir()
    course.nbgrader("fetch_assignment", LESSON, *exchange(course), where=home)
    path = home / LESSON / f"{LESSON}.ipynb"
    path.write_bytes(file_of(answers(), nbformat.read(path, as_version=4)))
    course.nbgrader("submit", LESSON, *exchange(course), where=home)


def exchange(course):
    """What a student without our configuration has to say."""
    return ["--course=layer-by-layer", f"--Exchange.root={course.root / 'exchange'}"]


# --- what has to come out ----------------------------------------------------------------------------------------


def test_every_submission_gets_exactly_what_it_is_worth(course):
    standing = batch.standing_of(batch.course_at(course.root), LESSON)
    worthless = dict.fromkeys([*BROKEN, *NO_FILE], NONE)
    want = {student: points for student, (_, points) in CLASS.items()} | worthless
    got = {student: standing.scores[student] for student in want}
    assert got == want
    assert set(standing.ungraded) <= {"sabotaged"}
    assert standing.worth == FULL


def test_no_row_waits_for_a_person(course):
    with course.gradebook() as gradebook:
        for submission in gradebook.find_assignment(LESSON).submissions:
            assert submission.needs_manual_grade == (submission.student.id == "sabotaged"), submission.student.id


def test_check_cells_hold_one_stream_and_one_plain_float_and_other_cells_nothing(course):
    for student, points in [(name, points) for name, (_, points) in CLASS.items()] + [("missing", NONE)]:
        for cell in course.graded(student).cells:
            outputs = cell.get("outputs", [])
            if cell.get("id") == "about-the-file":
                continue
            if not cell.metadata.get("nbgrader", {}).get("grade"):
                assert not outputs, student
                continue
            stream, value = outputs
            assert (stream.output_type, stream.name) == ("stream", "stdout")
            assert value.data == {"text/plain": repr(points[cell.metadata.nbgrader.grade_id])}


def test_the_graded_notebook_is_written_as_nbformat_writes_it(course):
    for student in (*CLASS, *BROKEN, "sabotaged"):
        path = course.root / "autograded" / student / LESSON / f"{LESSON}.ipynb"
        nb = nbformat.read(path, as_version=4)
        nbformat.validate(nb)
        assert path.read_text() == nbformat.writes(nb) + "\n", student


def test_nothing_of_the_students_file_but_source_text_survives(course):
    def skeleton(nb):
        return [(cell.cell_type, cell.id, cell.metadata) for cell in nb.cells]

    for student in ("skip_execution", "schema_99", "extra_credit", "markdown_check", "other_kernel"):
        graded = course.graded(student)
        assert skeleton(graded) == skeleton(released(course)), student
        assert graded.metadata.kernelspec == released(course).metadata.kernelspec


@pytest.mark.parametrize("student", [*BROKEN, *NO_FILE])
def test_an_unreadable_file_is_explained_in_the_feedback(course, student):
    sentence = (BROKEN | NO_FILE)[student][1]
    for exercise in RIGHT:
        assert sentence in course.report(student, exercise)
    assert "hand in 01_sample.ipynb again" in course.feedback(student)


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ("copies_answer", "2 exercise cells"),
        ("copies_check", "2 check cells"),
        ("deletes_check", "check cell was deleted"),
        ("deletes_answer", "exercise cell is missing"),
        ("markdown_check", "check cell was altered"),
        ("raw_answer", "raw cell"),
        ("says_fine", "check cell was altered"),
    ],
)
def test_a_damaged_cell_is_one_sentence_in_the_report_of_its_exercise(course, student, words):
    first, *_ = course.report(student, "linear_forward").splitlines()
    assert first.startswith("`linear_forward`: ")
    assert words in first
    assert course.report(student, "linear_backward").startswith("linear_backward: 6 of 6 points")


def test_what_concerns_the_whole_file_stands_on_top_of_the_feedback(course):
    assert "This notebook holds none of the lesson" in course.feedback("wrong_file")
    assert course.graded("wrong_file").cells[0].id == "about-the-file"
    assert "About the file" not in course.feedback("honest")


def test_partial_credit_comes_with_its_reason(course):
    assert "db is averaged over the batch." in course.report("partly", "linear_backward")
    assert "db is averaged over the batch." in course.feedback("partly")
    assert "4 of 6" in course.feedback("partly")


def test_feedback_names_the_trouble_and_reveals_no_seed(course):
    assert "did not come back within 2 seconds" in course.feedback("endless_loop")
    assert "SyntaxError" in course.feedback("syntax_error")
    secret = (course.root / ".autograder_seed").read_text()
    for student in (*CLASS, *BROKEN, *NO_FILE):
        page = course.feedback(student)
        assert secret not in page
        assert "seed=" not in page


def test_the_secret_is_drawn_once_and_for_its_owner_only(course):
    path = course.root / ".autograder_seed"
    assert path.stat().st_mode & 0o777 == 0o600
    assert nbgrader.kept_secret(f"sqlite:///{course.root / 'gradebook.db'}") == path.read_text()
    seeds = {course.note(student)["seed"] for student in CLASS}
    assert len(seeds) == len(CLASS), "every submission is asked other questions"
    assert nbgrader.seed_of(path.read_text(), LESSON, "honest", course.note("honest")["source"]) in seeds


def test_a_submission_always_grades_the_same_and_a_manual_grade_stays(course):
    path = course.root / "autograded" / "partly" / LESSON / f"{LESSON}.ipynb"
    before = path.read_bytes()
    with course.gradebook() as gradebook:
        gradebook.find_grade("linear_backward", LESSON, LESSON, "partly").manual_score = 5.0
        gradebook.db.commit()
    course.nbgrader("autograde", LESSON, "--student", "partly", "--force")
    assert path.read_bytes() == before
    with course.gradebook() as gradebook:
        grade = gradebook.find_grade("linear_backward", LESSON, LESSON, "partly")
        assert (grade.manual_score, grade.auto_score, grade.score) == (5.0, 4.0, 5.0)
        grade.manual_score, grade.needs_manual_grade = None, False
        gradebook.db.commit()


def test_late_penalties_are_nbgraders(course):
    with course.gradebook() as gradebook:
        late, in_time = (gradebook.find_submission(LESSON, student) for student in ("late", "in_time"))
        assert (late.total_seconds_late, late.score, late.late_submission_penalty) == (3600, 10.0, 10.0)
        assert (in_time.total_seconds_late, in_time.score, in_time.late_submission_penalty) == (0, 10.0, 0.0)


def test_a_submission_through_the_exchange_is_collected_and_graded(course):
    (student,) = {path.name for path in (course.root / "submitted").iterdir()} - {
        *CLASS, *BROKEN, *NO_FILE, "late", "in_time", "sabotaged",
    }  # fmt: skip
    assert course.scores(student) == FULL
    course.nbgrader("release_feedback", LESSON, "--student", student)
    home = course.root / "home"
    course.nbgrader("fetch_feedback", LESSON, *exchange(course), where=home)
    (page,) = home.glob(f"{LESSON}/feedback/*/{LESSON}.html")
    assert page.read_text() == course.feedback(student)


def test_grades_are_exported(course):
    course.nbgrader("export", "--to", "grades.csv")
    header, *rows = [line.split(",") for line in (course.root / "grades.csv").read_text().splitlines()]
    raw = {row[header.index("student_id")]: row[header.index("raw_score")] for row in rows}
    assert (raw["honest"], raw["partly"], raw["missing"]) == ("10.0", "8.0", "0.0")


def test_nothing_in_the_log_complains(course):
    complaints = [line for line in course.log.splitlines() if "| ERROR]" in line]
    assert [line.split("] ")[1] for line in complaints] == ["Could not grade sabotaged: OSError: out of luck"]


def test_our_own_failure_is_a_row_that_asks_for_a_person_and_is_graded_when_it_is_mended(course):
    standing = batch.standing_of(batch.course_at(course.root), LESSON)
    assert standing.scores["sabotaged"] == dict.fromkeys(RIGHT)
    assert standing.ungraded == {"sabotaged": "OSError: out of luck"}
    reason = "could not be graded, because the grader itself failed: OSError: out of luck"
    assert reason in course.feedback("sabotaged")
    config = course.root / "nbgrader_config.py"
    sabotaged = config.read_text()
    try:
        config.write_text(sabotaged.replace(SABOTAGE, ""))
        course.nbgrader("autograde", LESSON, "--student", "sabotaged")
    finally:
        config.write_text(sabotaged)
    standing = batch.standing_of(batch.course_at(course.root), LESSON)
    assert (standing.scores["sabotaged"], standing.ungraded) == (FULL, {})


def test_the_command_says_how_the_class_stands(course, capfd, monkeypatch):
    monkeypatch.chdir(course.root)
    assert batch.grade("02_other") == 1
    assert "Nobody has handed in 02_other" in capfd.readouterr().err
    left_out = batch.standing_of(batch.course_at(course.root), LESSON).ungraded
    assert batch.grade(LESSON) == bool(left_out)  # whoever is graded already is not graded again
    out, err = capfd.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert "100%" in err
    assert ["honest", "2", "6", "2", "10"] in rows
    assert ["partly", "2", "4", "2", "8"] in rows
    assert "× linear_forward: y has no bias" in out
    assert "Feedback: feedback/<student>/01_sample/01_sample.html" in out


# --- formgrader in JupyterLab ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server(course):
    """A Jupyter server in the course's folder, as JupyterLab starts it; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=secret"]
    with open(course.root / "server.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, "--no-browser", "--allow-root"],
            cwd=course.root, env=course.environment, stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            time.sleep(0.25)
            try:
                request(f"{address}/api/status")
                break
            except OSError:
                assert process.poll() is None, (course.root / "server.log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait()


def request(address, method="GET"):
    asked = urllib.request.Request(address, method=method, headers={"Authorization": "token secret"})
    with urllib.request.urlopen(asked, data=b"" if method == "POST" else None, timeout=60) as answered:
        return json.load(answered)


@pytest.mark.parametrize("student", ["partly", "missing"])
def test_formgraders_buttons_take_the_same_path(course, server, student):
    shutil.rmtree(course.root / "autograded" / student, ignore_errors=True)
    (course.root / "feedback" / student / LESSON / f"{LESSON}.html").unlink()
    graded = request(f"{server}/formgrader/api/submission/{LESSON}/{student}/autograde", "POST")
    assert graded["success"], graded
    told = request(f"{server}/formgrader/api/assignment/{LESSON}/{student}/generate_feedback", "POST")
    assert told["success"], told
    listed = request(f"{server}/formgrader/api/submission/{LESSON}/{student}")
    want = CLASS[student][1] if student in CLASS else NONE
    assert (listed["score"], listed["autograded"]) == (sum(want.values()), True)
    assert course.scores(student) == want
    assert "linear_backward" in course.feedback(student)


def test_formgrader_knows_the_lesson_and_its_exchange(server):
    (lesson,) = request(f"{server}/formgrader/api/assignments")
    assert (lesson["name"], lesson["status"], lesson["releaseable"]) == (LESSON, "released", True)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_a_click_on_formgraders_button_grades(course, server):
    playwright = pytest.importorskip("playwright.sync_api")
    shutil.rmtree(course.root / "autograded" / "honest", ignore_errors=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{server}/login?token=secret&next=/formgrader/manage_submissions/{LESSON}")
        row = page.locator("tr", has=page.locator("td.student-id", has_text="honest"))
        row.locator(".autograde a").click()
        page.locator("#success-modal").wait_for(state="visible", timeout=60_000)
        browser.close()
    assert course.scores("honest") == FULL
    assert course.report("honest", "linear_forward").startswith("linear_forward: 2 of 2 points")
