"""No attack wins anything against our grader, honest students keep everything, and the detectors see what they name."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.attacks.course import CLASSES, CONTROLS, members, our_run
from tests.attacks.detectors import OWN, SHARED, active_content, is_left_out, loses_points
from tests.test_nbgrader import LESSON

ATTACKS = {kind: list(cases) for kind, cases in CLASSES.items()}
STUDENTS = [f"{kind}_{case.name}" for kind, cases in ATTACKS.items() for case in cases]
HONEST = [student for student, case in members(ATTACKS | {"control": CONTROLS}).items() if case.name == "honest"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The whole class, graded once: what it leaves behind, and where."""
    after, _, hall = our_run(tmp_path_factory.mktemp("attacks"), ATTACKS | {"control": CONTROLS})
    return after, hall


@pytest.mark.parametrize("student", STUDENTS)
def test_no_attack_wins_anything(graded, student):
    after, _ = graded
    assert [detector.__doc__ for detector in OWN if detector(after, student)] == []


@pytest.mark.parametrize("detector", SHARED, ids=lambda detector: detector.__name__)
def test_the_class_as_a_whole_is_unharmed(graded, detector):
    after, _ = graded
    assert not detector(after, STUDENTS[0]), after.log[-3000:]


@pytest.mark.parametrize("student", [*HONEST, *(f"control_{case.name}" for case in CONTROLS)])
def test_honest_work_keeps_every_point(graded, student):
    after, _ = graded
    assert not loses_points(after, student), after.students[student].pages[-3000:]
    assert not is_left_out(after, student)


def test_pytorch_in_an_answer_from_scratch_is_named_for_a_person(graded):
    after, _ = graded
    for name in ("torch", "torch_on_top", "torch_by_name", "torch_modules", "torch_compiled"):
        report, *_ = after.students[f"policy_{name}"].outputs
        assert "torch" in report["text"], name


def test_the_suite_is_as_large_as_it_says():
    assert len(STUDENTS) >= 110 and len(CONTROLS) >= 15 and len(CLASSES) == 14
    assert len(set(STUDENTS)) == len(STUDENTS)
    assert all(case.sentence.endswith(".") for cases in ATTACKS.values() for case in [*cases, *CONTROLS])


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_nothing_of_a_students_runs_in_a_browser(graded):
    after, hall = graded
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        for case in ATTACKS["cross_site_scripting"]:
            student = f"cross_site_scripting_{case.name}"
            page.goto((hall.root / "feedback" / student / LESSON / f"{LESSON}.html").as_uri())
            assert after.students[student].mark not in page.title(), case.sentence
            assert not any(after.students[student].mark in frame.url for frame in page.frames), case.sentence
        browser.close()


# --- the detectors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "count"),
    [
        ("<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>", 0),
        ("<script>alert(1)</script>", 2),
        ("<img src='data:image/png;base64,AAAA'>", 0),
        ("<img src=x onerror=alert(1)>", 2),
        ("<a href='javascript:alert(1)'>x</a>", 1),
        ("<a href='#top'>x</a>", 0),
        ("<iframe srcdoc='<b>'></iframe>", 2),
        ("<svg onload=alert(1)>", 2),
    ],
)
def test_active_content_is_what_a_browser_runs_or_loads(html, count):
    assert len(active_content(html)) == count


def test_each_detector_fires_on_what_it_names(graded):
    """Once for each detector, on a copy of the run in which its finding has been planted."""
    after, _ = graded
    student = STUDENTS[0]
    trace, full = after.students[student], after.students[HONEST[0]]
    mark, number = trace.mark, min(trace.expected)

    def with_trace(name, **changes):
        return replace(after, students={**after.students, name: replace(after.students[name], **changes)})

    planted = {
        "earns_points": with_trace(student, points=full.points),
        "is_left_out": with_trace(student, points={}),
        "harms_others": with_trace(HONEST[-1], points={}),
        "alters_gradebook": replace(after, strange_rows=frozenset({"eve"})),
        "alters_course": replace(after, changed=frozenset({"nbgrader_config.py"})),
        "leaves_files": replace(after, files=frozenset({f"/tmp/{mark}"})),
        "survives": replace(after, processes=f"python -c sleep {mark}"),
        "is_heard": replace(after, heard=mark),
        "learns_a_secret": with_trace(student, pages="canary-outsiders"),
        "learns_expected_values": with_trace(student, html=f"expected {number}, got 0"),
        "takes_too_long": replace(after, seconds=after.patience + 1),
        "is_rendered": with_trace(student, html="<script>alert(1)</script>"),
    }
    for detector in OWN + SHARED:
        assert detector(planted[detector.__name__], student), detector.__name__


def test_the_words_of_an_attack_name_places_that_exist(graded):
    _, hall = graded
    text = (hall.root / "submitted" / "leaks_secret_file" / LESSON / f"{LESSON}.ipynb").read_text()
    path = text.split("open('")[1].split("'")[0]
    assert Path(path).read_text().startswith("canary-")
