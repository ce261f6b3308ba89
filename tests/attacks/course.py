"""A class of attackers and honest students: graded in one run by our grader, in small ones by nbgrader as it comes."""

import hashlib
import os
import selectors
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import numpy as np
from nbformat import NotebookNode

import autograder
from autograder.build import text_of
from autograder.cases import questions
from autograder.exercise import find
from autograder.nbgrader import NOTE
from tests.attacks import answers, files, machine
from tests.attacks.case import Case, honest
from tests.attacks.detectors import (
    SHARED,
    Aftermath,
    Trace,
    is_heard,
    is_left_out,
    is_rendered,
    learns_a_secret,
    learns_expected_values,
    survives,
    takes_too_long,
)  # fmt: skip
from tests.test_nbgrader import FULL, LESSON, ROOT, Course, cell_of, file_of, solved

CLASSES: Mapping[str, Sequence[Case]] = {**answers.CLASSES, **machine.CLASSES, **files.CLASSES}
CONTROLS = files.CONTROLS
PATIENCE = 150.0  # seconds for the whole class, of which the time limits are most
STOCK_PATIENCE = 20.0  # and ten for each student
HANGS = 60.0  # seconds over patience after which a run is ended
PACKAGE = Path(autograder.__file__).parent
PLACES = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
HIDDEN = "answer-of-a-friend"
CANARIES = {
    "the seed": "canary-seedlings",
    "the environment": "canary-tokenized",
    "the model solution": "canary-solutions",
    "another student": "canary-neighbour",
    "a file outside": "canary-outsiders",
    "the instructor's home": "canary-keyholder",
}


def members(classes: Mapping[str, Iterable[Case]]) -> dict[str, Case]:
    """Student -> case: an honest one first, after each class of attacks, and last."""
    named = {"a_honest": honest()}
    for kind, cases in classes.items():
        named |= {f"{kind}_{case.name}": case for case in cases} | {f"{kind}_z_honest": honest()}
    return named | {"z_honest": honest()}


# --- what is graded ----------------------------------------------------------------------------------------------


OUR_OPTIONS = "\nc.Grade.seconds = 2.0\n"
STOCK_CONFIG = """
from pathlib import Path

c = get_config()
c.CourseDirectory.root = str(Path(__file__).parent.resolve())
c.CourseDirectory.course_id = "layer-by-layer"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "course"
c.Exchange.root = str(Path(__file__).parent.resolve() / "exchange")
c.Execute.timeout = 8
"""
STOCK_CHECKS = {
    "linear_forward": """
import torch
rng = np.random.default_rng(0)
x, w, b = rng.normal(size=(5, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
want = torch.nn.functional.linear(*map(torch.tensor, (x, w, b))).numpy()
got = linear_forward(x, w, b)
if np.abs(got - want).max() > 1e-6:
    raise AssertionError(f"expected {want}, got {got}")
""",
    "linear_backward": """
dy = rng.normal(size=(5, 3))
x, w, b = (torch.tensor(v, requires_grad=True) for v in (x, w, b))
torch.nn.functional.linear(x, w, b).backward(torch.tensor(dy))
got = linear_backward(dy, *(v.detach().numpy() for v in (x, w, b)))
for value, parameter in zip(got, (x, w, b)):
    assert np.allclose(value, parameter.grad.numpy())
""",
    "count_parameters": """
for widths in ([3, 2], [4, 8, 1]):
    layers = [torch.nn.Linear(i, o) for i, o in zip(widths, widths[1:])]
    want = sum(p.numel() for layer in layers for p in layer.parameters())
    assert count_parameters(widths) == want
""",
}


def our_lesson() -> NotebookNode:
    nb = solved()
    cell = cell_of(nb, "linear_forward_answer")
    secret = f"    # {CANARIES['the model solution']}\n    ### END SOLUTION"
    cell.source = cell.source.replace("    ### END SOLUTION", secret)
    return nb


def stock_lesson() -> NotebookNode:
    """The same lesson, its checks written into the test cells as usual courses do."""
    nb = our_lesson()
    for name, source in STOCK_CHECKS.items():
        cell_of(nb, name).source = source.strip()
    return nb


def config_of_ours() -> str:
    return (ROOT / "nbgrader_config.py").read_text() + OUR_OPTIONS


# --- the folders -------------------------------------------------------------------------------------------------


@dataclass
class Hall:
    """A course in a folder of its own, with secrets around it and listeners beside it."""

    base: Path
    heard: bytearray = field(default_factory=bytearray)
    port: int = 0
    log: str = ""
    seconds: float = 0.0
    before: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.base / "course" / "ours"

    def environment(self) -> dict[str, str]:
        beside = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
        secrets = {"AUTOGRADER_SEED": CANARIES["the seed"], "COURSE_TOKEN": CANARIES["the environment"]}
        return Course(self.root).environment | secrets | {"PATH": beside}

    def open(self, lesson: NotebookNode, config: str) -> None:
        """The released course and its secrets."""
        source = self.root / "solutions" / LESSON / f"{LESSON}.ipynb"
        source.parent.mkdir(parents=True)
        source.write_text(text_of(lesson))
        (self.root / "solutions" / f"{LESSON}.py").write_text("# %%\n")  # by which the command knows the lesson
        (self.root / "nbgrader_config.py").write_text(config)
        (self.root / ".autograder_seed").write_text(CANARIES["the seed"])
        (self.root / "exchange").mkdir()
        (self.root / "home" / ".ssh").mkdir(parents=True)
        (self.root / "home" / ".ssh" / "id_rsa").write_text(CANARIES["the instructor's home"])
        (self.base / "secret.txt").write_text(CANARIES["a file outside"])
        ended = self.run(["nbgrader", "generate_assignment", LESSON], 120)
        assert ended, self.log

    def hand_in(self, student: str, case: Case) -> None:
        """One student's folder."""
        path = self.root / "submitted" / student / LESSON / f"{LESSON}.ipynb"
        path.parent.mkdir(parents=True)
        released = nbformat.read(self.root / "course" / LESSON / path.name, as_version=4)
        data = file_of(case.edit, released)
        if student == "a_honest":
            data = data.replace(b"return x @", f"# {CANARIES['another student']}\\n    return x @".encode(), 1)
        case.arrange(path, data)
        if path.is_file() and not path.is_symlink():
            words = {"ROOT": self.root, "BASE": self.base, "PACKAGE": PACKAGE, "PORT": self.port, "MARK": mark(student)}
            data = filled = path.read_bytes()
            for word, value in words.items():
                filled = filled.replace(f"@{word}@".encode(), str(value).encode())
            if filled != data:
                path.write_bytes(filled)

    def run(self, arguments: list[str], seconds: float) -> bool:
        """Runs a module's command in the course's folder and ends what is left of it; whether it came to its end."""
        start = time.monotonic()
        with open(self.base / "log", "a+") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=self.root, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
            ended = process.poll() is not None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.seconds += time.monotonic() - start
        self.log = (self.base / "log").read_text(errors="replace")
        return ended

    def watched(self) -> dict[str, str]:
        """The files that grading has no business to change, with their digests."""
        folders = [self.root / name for name in ("solutions", "course", "submitted")]
        paths = [path for folder in folders for path in folder.rglob("*")]
        paths += [self.root / "nbgrader_config.py", self.root / "home" / ".ssh" / "id_rsa", self.base / "secret.txt"]
        regular = [path for path in paths if os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode)]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in regular}


def mark(student: str) -> str:
    """A word by which a student's traces are found, short enough for the name of a process."""
    return f"{RUN}{hashlib.sha256(student.encode()).hexdigest()[:8]}"


RUN = f"atk{os.getpid() % 4096:03x}"


@contextmanager
def listening(hall: Hall) -> Iterator[None]:
    """Every way out that an attacker might find, with somebody listening at its end."""
    with selectors.DefaultSelector() as selector, socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        hall.port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", hall.port))
        with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as unix:
            abstract.bind(f"\0attacks-{hall.port}")
            unix.bind(str(hall.base / "socket"))
            os.mkfifo(hall.base / "pipe")
            pipe = os.open(hall.base / "pipe", os.O_RDWR | os.O_NONBLOCK)
            for server in (tcp, abstract, unix):
                server.listen(64)
                selector.register(server, selectors.EVENT_READ, "server")
            selector.register(udp, selectors.EVENT_READ)
            selector.register(pipe, selectors.EVENT_READ)
            over = threading.Event()
            thread = threading.Thread(target=_listen, args=(selector, hall.heard, over))
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
                os.close(pipe)


def _listen(selector: selectors.BaseSelector, heard: bytearray, over: threading.Event) -> None:
    calls = []
    while not over.is_set():
        for key, _ in selector.select(0.1):
            if key.data == "server":
                call, _ = key.fileobj.accept()  # type: ignore[union-attr]
                calls.append(call)
                selector.register(call, selectors.EVENT_READ)
            elif data := os.read(key.fd, 2**16):
                heard += data
            else:
                selector.unregister(key.fileobj)
    for call in calls:
        call.close()


# --- what is left behind -----------------------------------------------------------------------------------------


def aftermath(hall: Hall, cases: Mapping[str, Case], patience: float) -> Aftermath:
    """Everything that the detectors look at."""
    rows = points(hall.root)
    after = Aftermath(
        students={student: trace(hall.root, student, case, rows.get(student, {})) for student, case in cases.items()},
        honest=frozenset(student for student, case in cases.items() if case.name == "honest"),
        canaries=CANARIES,
        heard=hall.heard.decode(errors="replace"),
        processes="\n".join(processes().values()),
        files=frozenset(str(path) for path in [*shared_files(), *hall.base.rglob(f"{RUN}*")]),
        changed=frozenset(path for path, digest in hall.before.items() if hall.watched().get(path) != digest),
        strange_rows=strange_rows(hall.root, set(cases)),
        seconds=hall.seconds,
        patience=patience,
        log=hall.log,
    )
    clean_up()
    return after


def trace(root: Path, student: str, case: Case, row: Mapping[str, float | None]) -> Trace:
    folders = [root / name / student / LESSON for name in ("feedback", "autograded")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    texts = {path.name: path.read_bytes()[:4_000_000].decode(errors="replace") for path in paths}
    nb = NotebookNode(cells=[], metadata=NotebookNode())
    with suppress(ValueError, KeyError):
        nb = nbformat.reads(texts[f"{LESSON}.ipynb"], as_version=4)
    released = nbformat.read(root / "course" / LESSON / f"{LESSON}.ipynb", as_version=4)
    usual = {cell.source for cell in released.cells}
    return Trace(
        mark=mark(student),
        worth=case.worth,
        points=row,
        expected=expected(nb),
        pages="\n".join(texts.values()),
        html=texts.get(f"{LESSON}.html", ""),
        outputs=tuple(output for cell in nb.cells for output in cell.get("outputs", ())),
        markdown=tuple(cell.source for cell in nb.cells if cell.cell_type != "code" and cell.source not in usual),
    )


def expected(nb: NotebookNode) -> frozenset[str]:
    """What linear_forward's questions expect, as reports might print it, where a number is long enough to be known."""
    if NOTE in nb.metadata:
        asked = questions(find("linear_forward"), nb.metadata[NOTE]["seed"])
        wanted = np.concatenate([np.ravel(want) for question in asked for want in question.want])
    else:
        rng = np.random.default_rng(0)
        x, w, b = rng.normal(size=(5, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
        wanted = np.ravel(x @ w.T + b)
    texts = {form.format(abs(number)) for number in wanted for form in ("{:.4g}", "{:.4f}", "{:.8f}")}
    return frozenset(text for text in texts if len(text) >= 5 and "e" not in text)


def points(root: Path) -> dict[str, dict[str, float | None]]:
    """The gradebook's rows: student -> exercise -> points, None where a person has to look."""
    query = """
        select submitted_assignment.student_id, base_cell.name,
            coalesce(grade.manual_score, grade.auto_score) + coalesce(grade.extra_credit, 0)
        from submitted_assignment
        join submitted_notebook on submitted_notebook.assignment_id = submitted_assignment.id
        join grade on grade.notebook_id = submitted_notebook.id
        join base_cell on base_cell.id = grade.cell_id"""
    rows: dict[str, dict[str, float | None]] = {}
    for student, name, score in _select(root, query):
        rows.setdefault(student, {})[name] = score
    return rows


def strange_rows(root: Path, students: set[str]) -> frozenset[str]:
    known = {student for (student,) in _select(root, "select id from student")} - students
    manual = _select(root, "select id from grade where manual_score is not null")
    worth = _select(
        root, "select base_cell.name, max_score from grade_cells join base_cell on base_cell.id = grade_cells.id"
    )
    return frozenset([*known, *(row for (row,) in manual), *(name for name, score in worth if FULL[name] != score)])


def _select(root: Path, query: str) -> list[tuple]:
    """Rows of the gradebook; none where it is broken."""
    try:
        with sqlite3.connect(f"file:{root / 'gradebook.db'}?mode=ro", uri=True, timeout=60) as db:
            return db.execute(query).fetchall()
    except sqlite3.Error as error:
        if "no such column" in str(error) or "no such table" in str(error):
            raise
        return []


def processes() -> dict[int, str]:
    """The command line and the name of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ") + (folder / "comm").read_bytes()
            found[int(folder.name)] = words.decode(errors="replace")
    return found


def shared_files() -> list[Path]:
    """What carries this run's mark in the places that outlive the course."""
    libraries = Path(np.__file__).parents[1]
    caches = [PACKAGE / "__pycache__", Path(np.__file__).parent / "__pycache__"]
    startup = Path.home() / ".ipython" / "profile_default" / "startup"
    places = {*PLACES, PACKAGE, libraries, *caches, startup}
    return [path for place in places for path in place.glob(f"{RUN}*")]


def clean_up() -> None:
    """Ends the processes and removes the files that carry this run's mark."""
    for pid, words in processes().items():
        if RUN in words and pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for path in shared_files():
        path.unlink()
    for folder in PLACES:
        (folder / HIDDEN).unlink(missing_ok=True)


# --- runs --------------------------------------------------------------------------------------------------------


def our_run(base: Path, classes: Mapping[str, Iterable[Case]]) -> tuple[Aftermath, dict[str, Case], Hall]:
    """All cases as one class, graded by one command."""
    hall, cases = Hall(base), members(classes)
    hall.root.mkdir(parents=True)
    with listening(hall):
        hall.open(our_lesson(), config_of_ours())
        for student, case in cases.items():
            hall.hand_in(student, case)
        hall.before, hall.seconds = hall.watched(), 0.0
        hall.run(["autograder.cli", "grade", LESSON], PATIENCE + HANGS)
        time.sleep(2.5)  # for those who come later
        return aftermath(hall, cases, PATIENCE), cases, hall


def stock_run(template: Path, base: Path, cases: Mapping[str, Case]) -> Aftermath:
    """A few cases after an honest student who has been graded before, and before one where the class may be harmed."""
    shutil.copytree(template, base)
    detectors = {case.by for case in cases.values()}
    last = {"z_honest": honest()} if detectors & {*SHARED, is_left_out} else {}
    hall, cases = Hall(base), {"a_honest": honest(), **cases, **last}
    with listening(hall):
        for student in [*cases][1:]:
            hall.hand_in(student, cases[student])
        hall.before = hall.watched()
        patience = STOCK_PATIENCE + 10 * len(cases)
        ended = hall.run(["nbgrader", "autograde", LESSON], patience + 15)
        if ended and detectors & {learns_a_secret, learns_expected_values, is_rendered, takes_too_long}:
            hall.run(["nbgrader", "generate_feedback", LESSON], patience)
        time.sleep(2.0 if detectors & {is_heard, survives} else 0.0)
        return aftermath(hall, cases, patience)


def stock_template(base: Path) -> Path:
    """A course of nbgrader as it comes, in which one honest student has been graded."""
    hall = Hall(base)
    hall.root.mkdir(parents=True)
    hall.open(stock_lesson(), STOCK_CONFIG)
    hall.hand_in("a_honest", honest())
    assert hall.run(["nbgrader", "autograde", LESSON], 120), hall.log
    (base / "log").unlink()
    return base
