"""A run that is killed, or runs out of disk, and goes on; what is said of a class at the end."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder import audit, batch, cli, jail, nbgrader, sandbox
from autograder.build import text_of
from tests.test_nbgrader import (
    BROKEN,
    CLASS,
    FULL,
    LESSON,
    NO_FILE,
    RIGHT,
    ROOT,
    Course,
    answers,
    cell_of,
    file_of,
    released,
    solved,
)

MOMENTS = 20
SLOW = {"endless_loop", "exits"}
HANDED_IN = [name for name in CLASS if name not in SLOW][:14]
LATE = HANDED_IN[:6]  # three hours

# Grades as often as it is told to, each time in a process of its own, which it kills after so many seconds.
RUNNER = """
import os, signal, sys, time, torch
from autograder import batch, gradebook, sandbox
from autograder import nbgrader as ours

def dies_in(place, name, after):
    intact, calls = getattr(place, name), []
    def mortal(*arguments):
        calls.append(arguments)
        found = intact(*arguments) if after or len(calls) < 7 else None
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    setattr(place, name, mortal)

STEPS = {"before_staging": (ours, "stage", False), "before_saving": (gradebook.Gradebook, "save", False),
         "after_saving": (gradebook.Gradebook, "save", True), "before_publishing": (os, "replace", False),
         "after_publishing": (os, "replace", True)}
sandbox.start()
print("ready", flush=True)
for line in sys.stdin:
    root, when = line.split()
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        if when in STEPS:
            dies_in(*STEPS[when])
        os._exit(batch.grade("01_sample", root, cores=2))
    begun, end = time.monotonic(), float("inf") if when in STEPS else float(when)
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() - begun < end:
        time.sleep(0.002)
    if not done[0]:
        os.kill(child, signal.SIGKILL)
        done = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(done[1]), time.monotonic() - begun, flush=True)
"""


class Runner:
    """A process with everything imported that grades a course in processes of its own."""

    def __init__(self, environment):
        command = [sys.executable, "-c", RUNNER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, bufsize=1, **pipes)
        assert self.process.stdout.readline() == "ready\n"

    def grade(self, root: Path, when="inf") -> tuple[int, float]:
        """Grades a course, killed after so many seconds, or in the middle of a step: exit status and seconds."""
        self.process.stdin.write(f"{root} {when}\n")
        status, seconds = self.process.stdout.readline().split()
        return int(status), float(seconds)

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def course_in(root: Path) -> Course:
    """A class that has handed in, and a lesson that was generated; nothing is graded."""
    course = Course(root)
    course.environment["AUTOGRADER_SEED"] = "7"
    config = (ROOT / "nbgrader_config.py").read_text()
    config += "c.Autograde.seconds = 2.0\nc.LateSubmissionPlugin.penalty_method = 'zero'\n"
    (course.root / "nbgrader_config.py").write_text(config)
    source = course.root / "solutions" / LESSON / f"{LESSON}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text(text_of(solved()))
    (source.parents[1] / f"{LESSON}.py").touch()
    batch.release(batch.app_at(root), LESSON)
    nb = released(course)
    honest = file_of(answers(), nb)
    for student in HANDED_IN:
        course.submitted(student).write_bytes(file_of(CLASS[student][0], nb))
    for student in BROKEN:
        course.submitted(student).write_bytes(BROKEN[student][0](honest))
    for student in NO_FILE:
        NO_FILE[student][0](course.submitted(student), honest)
    for student in LATE:
        course.submitted(student).with_name("timestamp.txt").write_text("2026-05-01 15:00:00 UTC")
    with course.gradebook() as gradebook:
        gradebook.update_or_create_assignment(LESSON, duedate="2026-05-01 12:00:00 UTC")
    return course


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return course_in(tmp_path_factory.mktemp("pristine"))


@pytest.fixture(scope="module")
def runner(pristine):
    runner = Runner(pristine.environment)
    yield runner
    runner.end()


@pytest.fixture(scope="module")
def whole(pristine, runner, tmp_path_factory):
    """The course after a run that nothing interrupted, and how many seconds that took."""
    root = copied(pristine.root, tmp_path_factory.mktemp("whole") / "course")
    status, seconds = runner.grade(root)
    assert status == 0
    return root, seconds


def copied(root: Path, to: Path) -> Path:
    """The course somewhere else; its pipe is made anew, as nobody would wait for it."""
    shutil.copytree(root, to, symlinks=True, ignore=lambda folder, names: [n for n in names if _is_pipe(folder, n)])
    os.mkfifo(to / "submitted" / "a_pipe" / LESSON / f"{LESSON}.ipynb")
    return to


def _is_pipe(folder, name):
    return Path(folder, name).is_fifo()


def rows(root: Path) -> list:
    """All that the gradebook says of the class, without the names that it makes up for its own rows."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", "layer-by-layer") as gradebook:
        return sorted(
            (
                submission.student.id, str(submission.timestamp), notebook.late_submission_penalty,
                sorted((g.name, g.auto_score, g.manual_score, g.needs_manual_grade) for g in notebook.grades),
                sorted((c.name, c.auto_comment, c.manual_comment) for c in notebook.comments),
            )
            for submission in gradebook.find_assignment(LESSON).submissions
            for notebook in submission.notebooks
        )  # fmt: skip


def files(root: Path) -> dict:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in ("autograded", "feedback")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_an_uninterrupted_run_gives_everybody_a_row(whole):
    root, _ = whole
    assert {row[0] for row in rows(root)} == {*HANDED_IN, *BROKEN, *NO_FILE}
    assert all(len(row[3]) == len(RIGHT) and None not in [score for _, score, *_ in row[3]] for row in rows(root))


def test_a_run_killed_at_any_moment_goes_on_to_the_same_gradebook_and_the_same_files(
    pristine, runner, whole, tmp_path
):  # fmt: skip
    root, seconds = whole
    want = rows(root), files(root)
    chance, killed, half_way = random.Random(3), 0, 0
    while killed < MOMENTS:
        course = copied(pristine.root, tmp_path / str(killed))
        if runner.grade(course, when=chance.uniform(0, seconds))[0] == -9:
            done = len(list(course.glob(f"autograded/*/{LESSON}/{LESSON}.ipynb")))
            half_way += 0 < done < len(want[0])
            assert runner.grade(course)[0] == 0
            assert (rows(course), files(course)) == want, f"killed as number {killed}"
            killed += 1
        else:
            seconds *= 0.9  # it was quicker than it had been
        shutil.rmtree(course)
    assert half_way >= 3


@pytest.mark.parametrize(
    "step", ["before_staging", "before_saving", "after_saving", "before_publishing", "after_publishing"]
)
def test_a_run_killed_within_the_recording_of_a_submission_loses_nothing(pristine, runner, whole, tmp_path, step):
    course = copied(pristine.root, tmp_path / "course")
    assert runner.grade(course, when=step)[0] == -9
    assert runner.grade(course)[0] == 0
    assert (rows(course), files(course)) == (rows(whole[0]), files(whole[0]))


SMALL = """
import os, shutil, subprocess, sys
from pathlib import Path
from autograder import batch
root, small = Path(sys.argv[1]), Path(sys.argv[2])
shutil.copytree(root, small / "course", symlinks=True)
filler = small / "filler"
free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
filler.write_bytes(bytes(free - 120_000))
print(batch.grade("01_sample", small / "course", cores=2))
filler.unlink()
print(batch.grade("01_sample", small / "course", cores=2))
shutil.rmtree(root)
shutil.copytree(small / "course", root, symlinks=True)
"""  # a disk that is full until something is deleted from it


@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap for a small disk")
def test_a_run_on_a_full_disk_stops_in_words_and_goes_on_when_there_is_room(pristine, whole, tmp_path):
    course, small = copied(pristine.root, tmp_path / "course"), tmp_path / "small"
    small.mkdir()
    (course / "submitted" / "a_pipe" / LESSON / f"{LESSON}.ipynb").unlink()  # which nobody can copy
    disk = ["bwrap", "--dev-bind", "/", "/", "--size", "3000000", "--tmpfs", str(small)]
    done = subprocess.run(
        [*disk, sys.executable, "-c", SMALL, str(course), str(small)],
        cwd=ROOT, env=pristine.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert [line for line in done.stdout.splitlines() if line in ("0", "1")] == ["1", "0"], done.stderr
    assert "Stopped after" in done.stderr
    assert "the same command goes on" in done.stderr
    piped = {"a_pipe"}
    want = [row for row in rows(whole[0]) if row[0] not in piped]
    assert [row for row in rows(course) if row[0] not in piped] == want
    assert {name: data for name, data in files(course).items() if "a_pipe" not in name} == {
        name: data for name, data in files(whole[0]).items() if "a_pipe" not in name
    }


# --- what a later run keeps --------------------------------------------------------------------------------------


@pytest.fixture
def graded(whole, tmp_path, monkeypatch):
    """A copy of the graded course, to change."""
    monkeypatch.setenv("AUTOGRADER_SEED", "7")
    return copied(whole[0], tmp_path / "course")


def handed_in(root: Path, student: str) -> Path:
    return root / "submitted" / student / LESSON / f"{LESSON}.ipynb"


def note(root: Path, student: str) -> dict:
    path = root / "autograded" / student / LESSON / f"{LESSON}.ipynb"
    return nbformat.read(path, as_version=4).metadata.autograder


def answer_again(root: Path, student: str, **sources):
    path = handed_in(root, student)
    nb = nbformat.read(path, as_version=4)
    for name, source in sources.items():
        cell_of(nb, f"{name}_answer").source = source
    nbformat.write(nb, path)


def test_a_run_that_has_nothing_to_do_changes_nothing(graded):
    before = rows(graded), {path: path.stat().st_mtime_ns for path in (graded / "autograded").rglob("*.ipynb")}
    assert batch.grade(LESSON, graded) == 0
    assert (rows(graded), {path: path.stat().st_mtime_ns for path in before[1]}) == before


def test_grading_again_with_force_gives_the_same_bytes(graded):
    before = files(graded)
    assert batch.grade(LESSON, graded, force=True, students=["honest", "partly", "no_points", "broken_json"]) == 0
    assert files(graded) == before


def test_manual_grades_comments_and_penalties_survive_a_new_submission_and_the_attempt_is_remembered(graded):
    student = LATE[2]
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}", "layer-by-layer") as gradebook:
        gradebook.find_grade("linear_backward", LESSON, LESSON, student).manual_score = 5.0
        gradebook.find_grade("linear_backward", LESSON, LESSON, student).extra_credit = 1.0
        gradebook.find_comment("linear_backward_answer", LESSON, LESSON, student).manual_comment = "well seen"
        gradebook.db.commit()
    first = note(graded, student)
    assert first["attempts"] == []
    answer_again(graded, student, count_parameters="def count_parameters(widths):\n    return 7")
    assert batch.grade(LESSON, graded) == 0  # without force, and without another timestamp: the file is another
    second = note(graded, student)
    (attempt,) = second["attempts"]
    assert attempt == {key: first[key] for key in ("timestamp", "submission", "seed", "scores")}
    assert second["seed"] != first["seed"]
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}", "layer-by-layer") as gradebook:
        grade = gradebook.find_grade("linear_backward", LESSON, LESSON, student)
        assert (grade.manual_score, grade.extra_credit, grade.score, grade.needs_manual_grade) == (5.0, 1.0, 6.0, True)
        assert gradebook.find_comment("linear_backward_answer", LESSON, LESSON, student).comment == "well seen"
        assert gradebook.find_grade("count_parameters", LESSON, LESSON, student).score == 0.0
        late = gradebook.find_submission(LESSON, student)
        assert late.late_submission_penalty == late.score
    answer_again(graded, student, count_parameters=RIGHT["count_parameters"])
    assert batch.grade(LESSON, graded) == 0
    assert [entry["submission"] for entry in note(graded, student)["attempts"]] == [
        first["submission"], second["submission"],
    ]  # fmt: skip


def test_a_lost_row_is_graded_again(graded):
    want = rows(graded)
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}", "layer-by-layer") as gradebook:
        gradebook.remove_submission(LESSON, "honest")
        gradebook.find_grade("linear_forward", LESSON, LESSON, "partly").auto_score = 0.5
        gradebook.db.commit()
    assert batch.grade(LESSON, graded) == 0
    assert rows(graded) == want


def test_a_failure_of_ours_waits_for_the_next_run_or_for_a_person(graded, monkeypatch, capsys):
    def fails(*arguments):
        raise ZeroDivisionError("ours")

    with monkeypatch.context() as broken:
        broken.setattr(nbgrader, "cells_of", fails)
        assert batch.grade(LESSON, graded, force=True, students=["honest", "partly"]) == 1
    assert "honest: ZeroDivisionError: ours" in capsys.readouterr().out
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}", "layer-by-layer") as gradebook:
        for name in RIGHT:
            grade = gradebook.find_grade(name, LESSON, LESSON, "honest")
            assert (grade.auto_score, grade.needs_manual_grade) == (None, True)
            grade = gradebook.find_grade(name, LESSON, LESSON, "partly")
            grade.manual_score, grade.needs_manual_grade = 1.0, False
        gradebook.db.commit()
    assert batch.grade(LESSON, graded) == 0
    standing = batch.standing_of(batch.course_at(graded), LESSON)
    assert standing.scores["honest"] == FULL
    assert standing.scores["partly"] == dict.fromkeys(RIGHT, 1.0), "a person has decided: nobody waits"
    assert note(graded, "partly")["failure"]


# --- what is said ------------------------------------------------------------------------------------------------


def test_json_is_one_object_with_what_programs_ask_for(graded, capsys):
    assert batch.grade(LESSON, graded, as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["lesson"] == LESSON
    assert said["worth"] == FULL
    assert said["scores"]["partly"] == FULL | {"linear_backward": 4.0}
    assert sum(said["counts"][kind] for kind in ("full", "partial", "zero")) == said["counts"]["handed_in"]
    (mistake,) = [entry for entry in said["mistakes"] if entry["exercise"] == "linear_backward"]
    assert mistake["mistake"].startswith("db is averaged over the batch.")
    assert mistake["students"] == 1
    assert (said["ungraded"], said["flags"]) == ({}, {})


def test_an_answer_that_names_another_library_is_flagged_and_costs_nothing(graded, capsys):
    borrowed = "def linear_forward(x, w, b):\n    seen_in = 'torch'\n    return x @ w.T + b"
    answer_again(graded, "honest", linear_forward=borrowed)
    assert batch.grade(LESSON, graded) == 0
    assert "honest, linear_forward: names torch" in capsys.readouterr().out
    assert note(graded, "honest")["flags"] == {"linear_forward": ["torch"]}
    assert batch.standing_of(batch.course_at(graded), LESSON).scores["honest"] == FULL


def test_a_student_who_is_not_there_is_named(graded, capsys):
    assert batch.grade(LESSON, graded, students=["honest", "nobody"]) == 1
    assert "nobody has not handed in 01_sample" in capsys.readouterr().err


def test_a_name_that_no_gradebook_takes_stops_nobody_and_is_said(graded, capsys):
    shutil.copytree(graded / "submitted" / "honest", graded / "submitted" / "two\nlines")
    shutil.copytree(graded / "submitted" / "honest", graded / "submitted" / "<script>")
    os.rename(graded / "submitted" / "honest", os.fsencode(graded / "submitted" / "zo") + b"\xff")
    assert batch.grade(LESSON, graded) == 1
    said = capsys.readouterr().out
    assert r"'two\nlines': the folder's name" in said
    assert r"'zo\udcff': the folder's name" in said
    standing = batch.standing_of(batch.course_at(graded), LESSON)
    assert standing.scores["<script>"] == FULL


def test_without_bubblewrap_nothing_is_graded_unless_that_is_asked_for(graded, capsys, monkeypatch):
    for torch in (False, True):
        sandbox._warm(torch, "bubblewrap").end()
    monkeypatch.setattr(jail.shutil, "which", lambda program: None)
    before = rows(graded), files(graded)
    assert batch.grade(LESSON, graded, force=True, students=["honest"]) == 1
    said = capsys.readouterr().err
    assert "there is no program `bwrap` here. Install it" in said and "--jail none" in said
    assert (rows(graded), files(graded)) == before
    assert batch.grade(LESSON, graded, force=True, students=["honest"], jail="none") == 0
    assert "WARNING: --jail none. Students' code runs as you" in capsys.readouterr().err
    assert (rows(graded), files(graded)) == before


def test_a_configuration_that_fails_grades_nobody(graded):
    """Else nbgrader would go on with its own, and run students' code without a jail."""
    shutil.copy(ROOT / "nbgrader_config.py", graded / "nbgrader_config.py")
    (graded / "autograder.py").write_text("raise ImportError('half installed')")
    command = [sys.executable, "-m", "nbgrader", "autograde", LESSON, "--force"]
    before = files(graded)
    done = subprocess.run(command, cwd=graded, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nbgrader is not configured, so nothing is done: ImportError: half installed" in done.stderr
    assert files(graded) == before


def test_regrade_says_what_comes_out_and_why(graded, capsys):
    before = files(graded)
    assert batch.regrade(LESSON, "partly", graded, why=True) == 0
    said = capsys.readouterr().out
    assert "linear_backward: 4, as recorded" in said
    assert "Changed since: nothing." in said
    assert f"seed {note(graded, 'partly')['seed']}" in said
    assert "db, expected: array(" in said
    assert "db, got: array(" in said
    assert files(graded) == before
    answer_again(graded, "partly", linear_backward=RIGHT["linear_backward"])
    assert batch.regrade(LESSON, "partly", graded) == 0
    said = capsys.readouterr().out
    assert "linear_backward: 6, recorded were 4" in said
    assert "Changed since: the submitted files." in said
    assert batch.regrade(LESSON, "nobody", graded) == 1


def test_a_cluster_that_is_not_there_stops_before_anything_is_graded(graded, capsys):
    answer_again(graded, "honest", linear_forward="")
    before = rows(graded)
    assert batch.grade(LESSON, graded, cluster="tcp://127.0.0.1:1") == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:1" in capsys.readouterr().err
    assert rows(graded) == before


def test_a_verdict_that_a_second_look_does_not_confirm_is_reported(graded, monkeypatch, capsys):
    intact = audit.examine

    def second_look(task):
        found = intact(task)
        return found | {"linear_forward": replace(found["linear_forward"], points=0.0)}

    monkeypatch.setattr(audit, "examine", second_look)
    assert batch.grade(LESSON, graded, force=True, students=["honest"], share=1.0) == 1
    assert "honest, linear_forward: this machine said 2 of 2 points" in capsys.readouterr().err


def test_a_large_class_is_summed_up():
    scores = {f"s{number}": dict.fromkeys(FULL, float(number % 2)) for number in range(batch.TABLE + 1)}
    said = batch.table(batch.Standing(LESSON, worth=dict.fromkeys(FULL, 1.0), scores=scores))
    assert said.startswith("01_sample: 61 students, 30 with full marks, 31 with none")
    assert "s7" not in said


@pytest.mark.parametrize(("text", "sentence"), [("3", "between 0% and 100%"), ("much", "could not convert")])
def test_a_share_that_is_none_is_refused(text, sentence, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["grade", "01_linear", "--audit", text]) == 2
    assert sentence in capsys.readouterr().err
