"""From a lesson's text to its notebooks, on a lesson as small as it can be (sample.py, sample_lesson.py)."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from autograder import build as builder
from autograder import exercise
from autograder.build import Lesson, LessonError, assemble, build, differences, notebook, scores, unfair, unfolding
from autograder.release import broken

HERE = Path(__file__).parent
TEXT = (HERE / "sample_lesson.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def registered():
    """The sample's exercises, known as long as these tests run."""
    exercise.load_registry()
    before = dict(exercise._registry)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv("PYTHONPATH", str(HERE))
        patch.delitem(sys.modules, "sample", raising=False)
        import sample  # noqa: F401

        yield
    exercise._registry.clear()
    exercise._registry.update(before)


def course(folder: Path, text: str = TEXT) -> Lesson:
    """A course of this one lesson."""
    source = folder / "solutions" / "98_sample.py"
    source.parent.mkdir(parents=True)
    source.write_text(text, encoding="utf-8")
    shutil.copy(HERE.parent / "nbgrader_config.py", folder)
    return Lesson(source)


@pytest.fixture(scope="module")
def built(registered, tmp_path_factory) -> Lesson:
    lesson = course(tmp_path_factory.mktemp("course"))
    build(lesson)
    return lesson


@pytest.fixture(scope="module")
def solved(built):
    return nbformat.read(built.solved, as_version=4)


@pytest.fixture(scope="module")
def released(built):
    return nbformat.read(built.released, as_version=4)


def by_id(nb) -> dict:
    return {cell.id: cell for cell in nb.cells}


class TestTheNotebook:
    def test_ids_are_the_grade_ids_and_otherwise_the_place(self, solved, released):
        ids = [cell.id for cell in solved.cells]
        assert ids[:5] == ["cell-01", "cell-02", "cell-03", "double_forward_answer", "double_forward"]
        assert [cell.id for cell in released.cells] == ids

    def test_metadata_is_nbgrader_s_and_nothing_else(self, registered, built):
        cells = by_id(notebook(built))
        common = {"task": False, "schema_version": 3}
        assert cells["double_forward_answer"].metadata == {
            "nbgrader": {"grade_id": "double_forward_answer", "grade": False, "locked": False, "solution": True}
            | common
        }
        assert cells["double_forward"].metadata == {
            "nbgrader": {
                "grade_id": "double_forward",
                "grade": True,
                "locked": True,
                "solution": False,
                "points": 2,
                **common,
            }
        }
        assert cells["cell-02"].metadata == {}
        assert cells["cell-12"].metadata == {"tags": ["nbval-check-output"]}

    def test_points_difficulty_and_minutes_come_from_the_declaration(self, solved):
        assert by_id(solved)["cell-03"].source.splitlines()[:3] == [
            "### Double", "", "*2 points · difficulty ●○○ · about 3 minutes*"
        ]  # fmt: skip
        assert "*1 point · difficulty ●●○" in by_id(solved)["cell-09"].source

    def test_nothing_that_changes_from_build_to_build(self, solved, released):
        assert set(solved.metadata) == {"kernelspec", "language_info", "layer_by_layer"}
        assert set(released.metadata) == {"kernelspec", "language_info"}
        assert released.metadata.kernelspec.name == "python3"
        assert {key for cell in solved.cells for key in cell.metadata} == {"nbgrader", "tags"}

    def test_the_same_text_gives_the_same_bytes(self, built):
        assert builder.text_of(notebook(built)) == builder.text_of(notebook(built))

    def test_text_and_code_arrive_unchanged(self, solved):
        assert solved.cells[0].source == "# 98 · Sample\n\nAs short as a lesson can be."
        assert solved.cells[3].source.startswith('def double_forward(x):\n    """x (n,) -> y (n,)"""')


class TestHints:
    def test_each_hint_stands_inside_the_one_before(self, solved):
        text = by_id(solved)["cell-03"].source
        unfolded = ("Hint 1", "Look at *one* number.", "Hint 2", "Twice $x$.", "Hint 3", "`2 * x`")
        order = [text.index(part) for part in unfolded]
        assert order == sorted(order)
        assert text.count("<details>") == text.count("</details>") == 3
        assert "</details>" not in text[: order[-1]]

    def test_markdown_inside_them_is_rendered(self):
        mistune = pytest.importorskip("nbconvert.filters.markdown_mistune")
        page = mistune.markdown2html_mistune(unfolding(["use `x.T`", "and *then* $a_b$"]))
        assert "<code>x.T</code>" in page and "<em>then</em>" in page and "$a_b$" in page

    def test_blank_lines_let_every_renderer_see_markdown(self):
        html_lines = [i for i, line in enumerate(unfolding("abc").splitlines()) if line.startswith("<")]
        lines = unfolding("abc").splitlines()
        assert all(i + 1 == len(lines) or lines[i + 1] in ("", "</details>") for i in html_lines)

    def test_no_hints_no_fold(self):
        assert unfolding([]) == ""


class TestTheSolvedNotebook:
    def test_it_is_executed_with_outputs(self, solved):
        assert by_id(solved)["cell-12"].outputs[0].text == "42\n"
        assert all(cell.execution_count for cell in solved.cells if cell.cell_type == "code")

    def test_the_static_picture_stands_where_the_widget_was(self, solved):
        (output,) = by_id(solved)["cell-13"].outputs
        assert output.data["text/html"] == "<b>a static picture</b>"
        assert not [mime for mime in output.data if "widget" in mime]
        assert "widgets" not in solved.metadata

    def test_it_runs_in_this_interpreter_and_never_in_short(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COURSE_FAST", "1")
        code = "import os, sys\nprint(sys.executable, os.environ.get('COURSE_FAST'))"
        done = builder.execute(assemble([nbformat.v4.new_code_cell(code)]), tmp_path)
        assert done.cells[0].outputs[0].text == f"{sys.executable} None\n"

    def test_it_is_not_executed_again_until_something_it_depends_on_changes(self, registered, tmp_path):
        lesson = course(tmp_path)
        assert build(lesson).startswith("executed")
        written = lesson.solved.read_bytes(), lesson.released.read_bytes()
        assert build(lesson).startswith("unchanged")
        assert (lesson.solved.read_bytes(), lesson.released.read_bytes()) == written
        (tmp_path / "course" / "plots.py").write_text("x = 1\n")
        assert build(lesson).startswith("executed")
        assert build(lesson, force=True).startswith("executed")

    def test_a_cell_that_fails_is_shown(self, registered, tmp_path):
        lesson = course(tmp_path, TEXT.replace("print(f", "1 / 0; print(f"))
        with pytest.raises(LessonError, match=r"98_sample: the solved notebook does not run(?s:.*)ZeroDivisionError"):
            build(lesson)

    def test_it_stays_small(self, registered, tmp_path):
        lesson = course(tmp_path, TEXT + "\n# %%\nprint(('x' * 99 + '\\n') * 4_000)\n")
        with pytest.raises(LessonError, match=r"98_sample.ipynb: \d+ kB with its outputs; at most 300 kB"):
            build(lesson)


class TestTheReleasedNotebook:
    def test_no_solutions_and_no_outputs(self, released):
        text = "\n".join(cell.source for cell in released.cells)
        assert "SOLUTION" not in text and "BROKEN" not in text and "2 * dy" not in text and "3 * x" not in text
        code = [cell for cell in released.cells if cell.cell_type == "code"]
        assert all(cell.outputs == [] and cell.execution_count is None for cell in code)

    def test_an_exercise_starts_from_nbgrader_s_stub(self, released):
        assert by_id(released)["double_forward_answer"].source == (
            'def double_forward(x):\n    """x (n,) -> y (n,)"""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
        )

    def test_a_repair_starts_from_the_broken_layer(self, released):
        assert by_id(released)["repair_triple_answer"].source == (
            'def repair_triple(x):\n    """x (n,) -> y (n,)"""\n'
            "    for _ in range(2):\n        x = x + x  # one too many\n\n    return x"
        )
        assert broken("def f():\n    ### BEGIN SOLUTION\n    pass\n    ### END SOLUTION") is None

    def test_an_unsolved_check_does_not_stop_run_all(self, solved, released):
        assert by_id(released)["double_forward"].metadata.tags == ["raises-exception"]
        assert "tags" not in by_id(solved)["double_forward"].metadata, "nbval would pass a failing check"

    def test_answers_cannot_be_deleted_and_checks_not_edited(self, released):
        assert by_id(released)["double_forward_answer"].metadata.deletable is False
        assert by_id(released)["double_forward"].metadata.editable is False

    def test_nbgrader_s_own_command_writes_the_same_bytes(self, built):
        written = built.released.read_bytes()
        nbgrader = Path(sys.executable).with_name("nbgrader")
        done = subprocess.run(
            [nbgrader, "generate_assignment", built.name, "--force"],
            cwd=built.root, env={"PATH": f"{nbgrader.parent}:/usr/bin:/bin", "HOME": str(built.root)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Writing" in done.stderr and (built.root / "gradebook.db").exists()
        assert built.released.read_bytes() == written


class TestProof:
    def test_what_was_just_built_is_in_step(self, built):
        assert differences(built) == []

    def test_the_solved_notebook_scores_everything_and_the_released_one_nothing(self, built):
        assert scores(built, built.solved) == {"double_forward": 2, "double_backward": 4, "repair_triple": 1}
        assert scores(built, built.released) == {"double_forward": 0, "double_backward": 0, "repair_triple": 0}
        assert unfair(built) == []

    @pytest.fixture
    def copy(self, built, tmp_path) -> Lesson:
        shutil.copytree(built.root, tmp_path / "copy")
        return Lesson(tmp_path / "copy" / "solutions" / "98_sample.py")

    def change(self, path: Path, old: str, new: str) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def test_outputs_older_than_what_they_depend_on(self, copy):
        assert not builder.is_stale(copy)
        (copy.root / "course" / "plots.py").write_text("x = 1\n")
        assert builder.is_stale(copy)

    def test_other_lessons_figures_are_none_of_them_unless_they_are_drawn(self, copy):
        (copy.root / "solutions" / "97_other.py").write_text("")
        figures = copy.root / "course" / "widgets"
        figures.mkdir()

        def moved_by_a_change_of_the_others() -> bool:
            before = builder.digest(copy)
            with (figures / "other.py").open("a") as file:
                file.write("x = 1\n")
            return builder.digest(copy) != before

        assert not moved_by_a_change_of_the_others()
        (figures / "sample.py").write_text("from course.widgets import other, picture\n")
        assert moved_by_a_change_of_the_others()
        (figures / "sample.py").write_text("from course.widgets.other import x\n")
        assert moved_by_a_change_of_the_others()
        (figures / "sample.py").write_text("")
        assert not moved_by_a_change_of_the_others()
        self.change(copy.source, "As short as", "`widgets.other` is as short as")
        assert moved_by_a_change_of_the_others()

    def test_a_text_changed_after_the_build(self, copy):
        self.change(copy.source, "As short as", "As long as")
        (difference,) = differences(copy)
        assert difference.startswith("--- solutions/98_sample/98_sample.ipynb (committed)")
        assert '-    "As short as a lesson can be."' in difference
        assert '+    "As long as a lesson can be."' in difference

    def test_an_edited_released_notebook(self, copy):
        self.change(copy.released, '"points": 2', '"points": 20')
        (difference,) = differences(copy)
        assert difference.startswith("--- course/98_sample/98_sample.ipynb (committed)")
        assert '+     "points": 2' in difference

    def test_points_changed_in_the_declaration(self, copy, monkeypatch):
        dearer = replace(exercise.find("double_forward"), points=3)
        monkeypatch.setitem(exercise._registry, "double_forward", dearer)
        assert any('+     "points": 3' in difference for difference in differences(copy))

    def test_outputs_in_the_released_notebook(self, copy):
        nb = json.loads(copy.released.read_text())
        nb["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "42"}]
        copy.released.write_text(json.dumps(nb))
        assert "course/98_sample/98_sample.ipynb: cell cell-02 has outputs" in differences(copy)

    def test_a_solved_notebook_that_was_not_run_or_failed(self, copy):
        nb = nbformat.read(copy.solved, as_version=4)
        nb.cells[1].execution_count = None
        nb.cells[3].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])]
        copy.solved.write_text(builder.text_of(nb))
        assert differences(copy) == [
            "solutions/98_sample/98_sample.ipynb: cell cell-02 was not executed",
            "solutions/98_sample/98_sample.ipynb: cell double_forward_answer ended in ValueError",
        ]

    def test_not_built(self, copy):
        copy.released.unlink()
        assert differences(copy) == ["98_sample: not built yet"]

    def test_a_solution_that_the_checks_refuse(self, copy):
        self.change(copy.solved, "return 2 * dy", "return dy")
        assert unfair(copy) == [
            "solutions/98_sample/98_sample.ipynb: `double_backward` scores 0 where it should score 4"
        ]

    def test_a_released_notebook_that_earns_points(self, copy):
        self.change(copy.released, "x = x + x  # one too many", "x = 1.5 ** 0.5 * x")
        self.change(copy.released, "    return x", "    return 2 * x")
        assert unfair(copy) == ["course/98_sample/98_sample.ipynb: `repair_triple` scores 1 where it should score 0"]

    def test_a_folder_or_a_declaration_without_a_text(self, copy):
        (copy.root / "course" / "97_gone").mkdir()
        said = builder.strays(copy.root)
        assert "course/97_gone: no text solutions/97_gone.py" in said
        assert "autograder/exercises/sample.py: no lesson solutions/NN_sample.py" not in said


class TestErrors:
    """What is wrong with a text is said with file and line, all of it at once."""

    FORWARD = TEXT[TEXT.index('# %% exercise="double_forward"') : TEXT.index('# %% check="double_forward"')]

    @pytest.mark.parametrize(
        ("old", "new", "where", "sentence"),
        [
            ('check="double_forward"', 'check="dubble_forward"', 'check="double_forward"',
             'check="dubble_forward": no such exercise is declared; the nearest is `double_forward`'),
            ('about="double_forward"', 'about="linear_forward"', 'about="double_forward"',
             'about="linear_forward": this exercise is declared in another lesson, linear'),
            ('# %% check="double_forward"\ncheck(double_forward)\n', "", 'about="double_forward"',
             '`double_forward` has no cell with check="double_forward"'),
            (FORWARD, "", 'about="double_forward"', '`double_forward` has no cell with exercise="double_forward"'),
            (TEXT[TEXT.index('# %% [markdown] about="repair') : TEXT.index("# %% tags")], "", "# ---",
             "the declared exercise `repair_triple` is missing from the lesson"),
            ("# %% tags", FORWARD + "# %% tags", "tags=",
             'a second cell with exercise="double_forward"; the first is in line '),
            ("    ### BEGIN SOLUTION\n    return 2 * x", "    return 2 * x", 'exercise="double_forward"',
             "`double_forward` needs the lines ### BEGIN SOLUTION, ### END SOLUTION in this order; found: ### END"),
            ("    return 2 * x\n    ### END SOLUTION", "    return 2 * x", 'exercise="double_forward"',
             "`double_forward` needs the lines ### BEGIN SOLUTION, ### END SOLUTION in this order; found: ### BEGIN"),
            ("    ### BROKEN\n", "", 'exercise="repair_triple"',
             "`repair_triple` needs the lines ### BEGIN SOLUTION, ### BROKEN, ### END SOLUTION"),
            ("#     x = x + x", "#   x = (x + x", 'exercise="repair_triple"',
             "`repair_triple`: its solution, or the broken lines it starts from, is no Python"),
            ("def double_forward(x)", "def double(x)", 'exercise="double_forward"',
             "the exercise cell of `double_forward` defines no double_forward"),
            ("check(double_forward)", "check(double_forward)\nprint(1)", 'check="double_forward"',
             "the check cell of `double_forward` contains check(double_forward) and nothing else"),
            ("# ### Double", "# Double", 'about="double_forward"',
             "the text about `double_forward` is a markdown cell that starts with a line `### Title`"),
            ("print(f", "### BEGIN SOLUTION\nprint(f", "tags=", "a solution outside a cell with exercise="),
            ("print(f", "x = 1\n" * 25 + "print(f", "tags=",
             "a code cell of 26 lines; at most 25 are read at one glance"),
            ("setup=true", "set_up=true", "setup=true",
             "unknown key `set_up`; the keys are about, exercise, check, setup and tags"),
            ('check="repair_triple"', 'check="repair_triple" exercise="repair_triple"', 'check="repair_triple"',
             "one cell cannot be two of about, exercise and check"),
        ],
    )  # fmt: skip
    def test_every_error_names_its_line(self, registered, tmp_path, old, new, where, sentence):
        assert old in TEXT
        line = next(number for number, text in enumerate(TEXT.splitlines(), 1) if where in text)
        with pytest.raises(LessonError) as caught:
            notebook(course(tmp_path, TEXT.replace(old, new, 1)))
        assert any(
            said.startswith(f"solutions/98_sample.py:{line}: {sentence}") for said in str(caught.value).splitlines()
        ), caught.value

    def test_cells_in_another_order(self, registered, tmp_path):
        text = TEXT.replace(self.FORWARD, "").replace("# %% tags", self.FORWARD + "# %% tags")
        with pytest.raises(LessonError, match="its cells stand in another order than about, exercise, check"):
            notebook(course(tmp_path, text))

    def test_all_errors_at_once(self, registered, tmp_path):
        text = TEXT.replace("setup=true", "set_up=true").replace("check(double_forward)", "pass")
        with pytest.raises(LessonError) as caught:
            notebook(course(tmp_path, text))
        assert len(re.findall(r"^solutions/98_sample.py:\d+: ", str(caught.value), re.M)) == 2

    def test_a_text_that_starts_without_a_cell(self, registered, tmp_path):
        with pytest.raises(LessonError, match="does not start with a `# %%` cell"):
            notebook(course(tmp_path, TEXT.replace("# %% [markdown]\n", "", 1)))
