"""The feedback pages: what they say, what they keep from running, and what they cost."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
from nbgrader import converters
from nbgrader.coursedir import CourseDirectory

from autograder import feedback
from autograder.build import text_of
from tests import test_nbgrader
from tests.lab import chromium
from tests.test_nbgrader import (
    DB_MEAN,
    LESSON,
    OPTIONS,
    ROOT,
    Course,
    adds,
    answers,
    file_of,
    released,
    solved,
)

ELSEWHERE = "http://127.0.0.1:9/"
PAYLOADS = (
    "<script>alert('script')</script>",
    "<img src=x onerror=alert('image')>",
    "<svg/onload=alert('svg')>",
    "</pre></code></style></title><script>alert('out')</script>",
    f"{{{{ 7 * 7 }}}}<iframe src='{ELSEWHERE}'></iframe>",
    f"<link rel=stylesheet href='{ELSEWHERE}'>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    f"[link](javascript:alert('link')) ![picture]({ELSEWHERE})",
    "<a href=javascript:alert(1) autofocus onfocus=alert(2)>",
)
EVERYTHING = "\n".join(PAYLOADS)
STRAY = (
    new_output("stream", text=EVERYTHING),
    new_output("error", ename=EVERYTHING, evalue=EVERYTHING, traceback=[EVERYTHING]),
    new_output("display_data", data=dict.fromkeys(("text/html", "image/svg+xml", "text/markdown"), EVERYTHING)),
    new_output("display_data", data={"application/javascript": "alert(3)", "application/pdf": EVERYTHING}),
    new_output("display_data", data={"image/png": "x"}, metadata={"image/png": {"width": "1 onerror=alert(4)"}}),
)  # what no grader of ours writes
HOSTILE = f"""def count_parameters(widths):
    {PAYLOADS!r}  # {" ".join(PAYLOADS)}
    raise ValueError({EVERYTHING!r})"""
CLASS = {
    "honest": answers(),
    "partly": answers(linear_backward=DB_MEAN),
    "late": answers(),
    "hostile": adds(f"# {' '.join(PAYLOADS)}", repr(EVERYTHING), count_parameters=HOSTILE),
}


server = test_nbgrader.server  # the fixture, for the course of this module


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A small class, autograded and given feedback."""
    course = Course(tmp_path_factory.mktemp("course"))
    (course.root / "nbgrader_config.py").write_text((ROOT / "nbgrader_config.py").read_text() + OPTIONS)
    source = course.root / "solutions" / LESSON / f"{LESSON}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text(text_of(solved()))
    course.nbgrader("generate_assignment", LESSON)
    with course.gradebook() as gradebook:
        gradebook.update_or_create_assignment(LESSON, duedate="2026-05-01 12:00:00 UTC")
    for student, hand_in in CLASS.items():
        course.submitted(student).write_bytes(file_of(hand_in, released(course)))
    course.submitted("late").with_name("timestamp.txt").write_text("2026-05-01 13:00:00 UTC")
    course.submitted("hostile").with_name("evil.html").write_text(EVERYTHING)
    course.nbgrader("autograde", LESSON)
    course.nbgrader("generate_feedback", LESSON)
    return course


def rendered(cells, **marks):
    """The page for a notebook of these cells, in which linear_forward is worth 2 points."""
    grade = SimpleNamespace(worth=2.0, score=0.5, auto_score=0.5, manual_score=None, extra_credit=None, waits=False)
    found = {"student": "ada", "grades": {"linear_forward": grade}, "comments": {}, "penalty": 0.0} | marks
    return feedback.page(json.loads(json.dumps(new_notebook(cells=cells))), feedback.Marks(**found), LESSON)


def about_the_file(text):
    return new_code_cell("", id=feedback.ABOUT_THE_FILE, outputs=[new_output("stream", text=text)])


def graded(answer="", outputs=(), **more):
    """The two cells of linear_forward."""
    return [
        new_code_cell(answer, metadata={"nbgrader": {"grade_id": "linear_forward_answer", "solution": True}}, **more),
        new_code_cell("", metadata={"nbgrader": {"grade_id": "linear_forward", "grade": True}}, outputs=list(outputs)),
    ]


# --- what the page says ------------------------------------------------------------------------------------------


def test_points_verdicts_and_answers_are_on_the_page(course):
    page = course.feedback("partly")
    assert "<strong>8</strong> of 10 points" in page
    assert "<td>db is averaged over the batch.</td><td>4 of 6</td>" in page
    assert page.count("<td>Right.</td>") == 2
    assert '<i class="k">return</i> dy @ w' in page
    assert "late" not in page[page.index("<body>") :]


def test_the_lessons_prose_is_not_repeated_and_the_page_is_small(course):
    assert "From scratch" not in course.feedback("partly")
    assert len(course.feedback("partly")) < 15_000


def test_a_late_penalty_says_what_was_earned(course):
    assert "<strong>0</strong> of 10 points" in course.feedback("late")
    assert "10 earned, 10 taken off for handing in late." in course.feedback("late")


def test_a_manual_grade_and_comments_appear_when_feedback_is_generated_again(course):
    before = course.feedback("partly")
    with course.gradebook() as gradebook:
        grade = gradebook.find_grade("linear_backward", LESSON, LESSON, "partly")
        comment = gradebook.find_comment("linear_backward_answer", LESSON, LESSON, "partly")
        grade.manual_score, grade.extra_credit, comment.manual_comment = 5.0, 1.0, "Nearly <b>there</b>."
        gradebook.db.commit()
    course.nbgrader("generate_feedback", LESSON)
    page = course.feedback("partly")
    assert "<strong>10</strong> of 10 points" in page
    assert "The check gave 4; your grader made it 5." in page
    assert "1 of it is extra credit." in page
    assert "Nearly &lt;b&gt;there&lt;/b&gt;." in page
    with course.gradebook() as gradebook:
        grade = gradebook.find_grade("linear_backward", LESSON, LESSON, "partly")
        comment = gradebook.find_comment("linear_backward_answer", LESSON, LESSON, "partly")
        grade.manual_score = grade.extra_credit = comment.manual_comment = None
        gradebook.db.commit()
    course.nbgrader("generate_feedback", LESSON, "--student", "partly")
    assert course.feedback("partly") == before


def test_problems_with_the_file_stand_on_top_and_own_cells_are_folded_below():
    page = rendered([about_the_file("Two `cells` are <odd>.\n"), *graded(), new_code_cell("mine = 1", id="own-3")])
    assert "<li>Two <code>cells</code> are &lt;odd&gt;.</li>" in page
    assert "<summary>1 cell of your own" in page
    assert page.index("</section>") < page.index("<details>") < page.index("mine = ")


def test_a_row_that_waits_for_a_person_says_so():
    waits = SimpleNamespace(worth=2.0, score=0.0, auto_score=None, manual_score=None, extra_credit=None, waits=True)
    assert "An instructor still has to look at this." in rendered(graded(), grades={"linear_forward": waits})


def test_the_verdict_is_the_first_sentence_about_the_answer():
    remark = "`linear_forward`: the check cell was altered."
    report = f"{remark}\n\nlinear_forward: 1 of 2 points\n\n  y  (2,)\n\ny has no bias. Add b."
    page = rendered(graded(outputs=[new_output("stream", text=report)]))
    assert "<td>y has no bias.</td>" in page
    assert "<pre>y  (2,)</pre>" in page
    assert "1 of 2 points" not in page
    assert "<code>linear_forward</code>: the check cell was altered." in page


# --- the command -------------------------------------------------------------------------------------------------


def test_only_what_changed_is_written_and_for_all_to_read(course):
    path = course.root / "feedback" / "honest" / LESSON / f"{LESSON}.html"
    os.utime(path, (1, 1))
    course.nbgrader("generate_feedback", LESSON, "--force", "--student", "honest")
    assert path.stat().st_mtime == 1
    path.write_text("old")
    course.nbgrader("generate_feedback", LESSON)
    assert "Right." in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_of_the_students_own_files_none_is_passed_on(course):
    assert not (course.root / "feedback" / "hostile" / LESSON / "evil.html").exists()
    assert (course.root / "feedback" / "late" / LESSON / "timestamp.txt").read_text().startswith("2026-05-01")


def test_one_unreadable_notebook_is_logged_and_the_others_get_their_pages(course):
    path = course.root / "autograded" / "honest" / LESSON / f"{LESSON}.ipynb"
    intact = path.read_bytes()
    os.chmod(path, 0o644)
    path.write_text("{")
    (course.root / "feedback" / "partly" / LESSON / f"{LESSON}.html").unlink()
    try:
        with pytest.raises(AssertionError, match="error processing assignment '01_sample' for student 'honest'"):
            course.nbgrader("generate_feedback", LESSON)
        assert "db is averaged" in course.feedback("partly")
    finally:
        path.write_bytes(intact)
    course.nbgrader("generate_feedback", LESSON)
    assert "Right." in course.feedback("honest")


def test_a_page_whose_writing_was_killed_is_written_again_and_nothing_is_left_over(tmp_path, monkeypatch):
    page = tmp_path / "page.html"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as moment:
        moment.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            feedback.write(page, b"half", 0o644)
    assert not page.exists()
    feedback.write(page, b"whole", 0o644)
    assert page.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [page]


# --- what the page keeps from running ----------------------------------------------------------------------------


def visited(address, within="body"):
    """What happens when Chromium opens a page."""
    playwright = pytest.importorskip("playwright.sync_api")
    seen = SimpleNamespace(requests=[], dialogs=[], log=[])
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page()
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: seen.log.append(message.text))
        page.goto(address)
        page.wait_for_timeout(500)
        seen.text = page.inner_text(within)
        seen.live = page.locator(f"{within} :is({LIVE})").evaluate_all(
            "found => found.map(element => element.outerHTML)"
        )
        seen.address = page.url
        browser.close()
    return seen


LIVE = "script, iframe, img, svg, link, object, embed, form, base, [onload], [onerror], [onfocus], [onmouseover]"
browser = pytest.mark.skipif(chromium() is None, reason="needs Chromium")


@browser
def test_whatever_came_from_a_student_is_inert_text(course):
    page = course.root / "feedback" / "hostile" / LESSON / f"{LESSON}.html"
    seen = visited(page.as_uri())
    assert seen.requests == [page.as_uri()]
    assert (seen.dialogs, seen.log, seen.live, seen.address) == ([], [], [], page.as_uri())
    assert "<script>alert('script')</script>" in seen.text
    assert "{{ 7 * 7 }}" in seen.text


@browser
def test_so_are_stray_outputs_names_comments_and_metadata(tmp_path):
    cells = [new_markdown_cell(f"# {EVERYTHING}"), *graded(EVERYTHING, STRAY), new_code_cell(EVERYTHING, id="own-0")]
    cells[0].attachments = {"x": {"text/html": EVERYTHING}}
    comment = SimpleNamespace(manual_comment=EVERYTHING, auto_comment=EVERYTHING)
    html = rendered(
        [about_the_file(EVERYTHING), *cells], student=EVERYTHING, comments={"linear_forward_answer": comment}
    )
    path = tmp_path / "page.html"
    path.write_text(html)
    seen = visited(path.as_uri())
    assert seen.requests == [path.as_uri()]
    assert (seen.dialogs, seen.log, seen.live, seen.address) == ([], [], [], path.as_uri())
    assert "alert(3)" not in html and "alert(4)" not in html


@browser
def test_should_markup_get_through_all_the_same_it_may_do_nothing(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(rendered(graded()).replace("Your answer", EVERYTHING))
    seen = visited(path.as_uri())
    assert (seen.dialogs, seen.live != []) == ([], True)
    assert {address for address in seen.requests if address.startswith("http")} <= {ELSEWHERE}  # by refresh


def test_what_nobody_sees_is_left_out_or_named():
    assert feedback.readable("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x1b\\") == "red link"
    assert feedback.readable("a\r\nb\tc\x00\x85\x1b") == "a\nb\tc⟨U+0000⟩⟨U+0085⟩⟨U+001B⟩"
    assert feedback.readable("if user != 'x\u202e': \u2066") == "if user != 'x⟨U+202E⟩': ⟨U+2066⟩"
    assert feedback.readable("half \ud800").encode()
    assert feedback.readable("ñ 漢 🙂 e\u0301") == "ñ 漢 🙂 e\u0301"


def test_a_long_text_is_cut_and_says_so():
    page = rendered(graded("x = 1\n" * 100_000, [new_output("stream", text="y" * 50_000)]))
    assert "[Cut here: the first 10,000 of 600,000 characters are shown.]" in page
    assert "[Cut here: the first 10,000 of 50,000 characters are shown.]" in page
    assert len(page) < 150_000


LONG = {
    "terminal codes": "\x1b[31mx" * 400_000,
    "unfinished codes": "\x1b[" + "0;" * 1_000_000,
    "unfinished titles": "\x1b]" * 500_000,
    "one line": "x" * 2_000_000,
    "lines": "\n" * 200_000,
    "blank paragraphs": "x\n\n" * 200_000,
    "backticks": "`x" * 500_000,
    "markup": "<&>" * 500_000,
    "spaces": " " * 1_000_000,
    "sentences": ". " * 500_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_no_text_takes_long(text):
    start = time.process_time()
    rendered([about_the_file(text), *graded(text[:200_000], [new_output("stream", text=text)])])
    assert time.process_time() - start < 1


def seconds_of(function, argument):
    start = time.thread_time()
    function(argument)
    return time.thread_time() - start


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_time_grows_with_length_only_also_without_the_cut(monkeypatch, text):
    monkeypatch.setattr(feedback, "LIMIT", 10_000_000)
    start = time.process_time()
    feedback.with_code(feedback.readable(text))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "source",
    ["(" * 10_000, "@" * 10_000, "a." * 5_000, "f'{" * 3_300, "'''" + "x\n" * 5_000, "'\\" * 5_000, "1_" * 5_000],
)
def test_no_source_takes_long_to_highlight(source):
    assert min(seconds_of(feedback.highlighted, source) for _ in range(3)) < 0.5


# --- what it costs -----------------------------------------------------------------------------------------------


def processor_time(converter, course, tmp_path) -> float:
    """Seconds that a converter takes for the class's pages, which it finds made by nobody before."""
    coursedir = CourseDirectory(
        root=str(course.root), db_url=f"sqlite:///{course.root / 'gradebook.db'}", course_id="layer-by-layer",
        feedback_directory=str(tmp_path), assignment_id=LESSON, student_id="*",
    )  # fmt: skip
    start = time.process_time()
    converter(coursedir=coursedir).start()
    assert len(list(tmp_path.rglob(f"{LESSON}.html"))) == len(CLASS)
    return time.process_time() - start


def test_a_page_costs_less_than_a_tenth_of_nbgraders(course, tmp_path):
    for converter in (converters.GenerateFeedback, feedback.GenerateFeedback):
        processor_time(converter, course, tmp_path / f"{converter.__module__} warm")
    feedback._spans.cache_clear()
    stock = processor_time(converters.GenerateFeedback, course, tmp_path / "stock")
    ours = processor_time(feedback.GenerateFeedback, course, tmp_path / "ours")
    assert ours < stock / 10, f"{1000 * ours / len(CLASS):.1f} ms a page, nbgrader {1000 * stock / len(CLASS):.1f} ms"


# --- formgrader --------------------------------------------------------------------------------------------------


@browser
def test_formgrader_shows_a_hostile_notebook_as_text_and_loads_nothing_from_elsewhere(course, server):
    path = course.root / "autograded" / "hostile" / LESSON / f"{LESSON}.ipynb"
    nb = course.graded("hostile")
    name = 'x" onmouseover="alert(1)'
    nb.cells += [
        new_markdown_cell(EVERYTHING + "\n\n## Kept\n\n<details><summary>Hint</summary>*fine*</details>"),
        new_code_cell(EVERYTHING, outputs=list(STRAY), metadata={"tags": [EVERYTHING], "nbgrader": {"grade_id": name}}),
        new_raw_cell(EVERYTHING, metadata={"raw_mimetype": "text/html"}),
    ]
    nb.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {EVERYTHING: EVERYTHING}}
    nb.metadata.title = EVERYTHING
    os.chmod(path, 0o644)
    path.write_text(json.dumps(nb))
    with course.gradebook() as gradebook:
        student = gradebook.find_student("hostile")
        student.first_name = student.last_name = EVERYTHING
        gradebook.db.commit()
        submission = gradebook.find_submission_notebook(LESSON, LESSON, "hostile").id
    seen = visited(f"{server}/login?token=secret&next=/formgrader/submissions/{submission}/", within="#notebook")
    assert {address for address in seen.requests if not address.startswith(server)} == set()
    assert (seen.dialogs, seen.live, seen.log) == ([], [], [])
    assert "<script>alert('script')</script>" in seen.text
    assert "Hint" in seen.text and "<summary>" not in seen.text
