"""The commands, as one types them."""

import json
import shutil
from pathlib import Path

import pytest

from autograder import build as builder
from autograder import cli
from autograder.exercise import load_registry

ROOT = Path(__file__).parents[1]
LINEAR = ROOT / "course" / "01_linear" / "01_linear.ipynb"
SOLVED = ROOT / "solutions" / "01_linear" / "01_linear.ipynb"


def answer(nb: dict, name: str, source: str) -> dict:
    """The notebook with another text in one exercise cell."""
    for cell in nb["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == f"{name}_answer":
            cell["source"] = source
    return nb


@pytest.fixture
def write(tmp_path):
    def write(nb) -> str:
        path = tmp_path / "mine.ipynb"
        path.write_text(nb if isinstance(nb, str) else json.dumps(nb), encoding="utf-8")
        return str(path)

    return write


class TestCheck:
    def test_a_solved_notebook_passes(self, capsys):
        assert cli.main(["check", str(SOLVED)]) == 0
        printed = capsys.readouterr().out
        points = sum(entry.points for entry in load_registry().values() if entry.lesson == "linear")
        assert printed.endswith(f"\nTotal: {points} of {points} points\n")
        assert "linear_backward: 6 of 6 points" in printed

    def test_an_unsolved_notebook_has_no_points_and_every_exercise_is_named(self, capsys):
        assert cli.main(["check", str(LINEAR)]) == 1
        printed = capsys.readouterr().out
        assert "linear_forward is not written yet" in printed and "\nTotal: 0 of " in printed

    def test_a_mistake_is_named_as_in_the_notebook(self, capsys, write):
        wrong = "def linear_forward(x, w, b):\n    return x @ w.T"
        assert cli.main(["check", write(answer(json.loads(SOLVED.read_text()), "linear_forward", wrong))]) == 1
        printed = capsys.readouterr().out
        assert "linear_forward: 0 of 2 points" in printed and "y has no bias" in printed
        assert "linear_backward: 6 of 6 points" in printed

    def test_a_cell_of_one_s_own_is_used(self, capsys, write):
        nb = answer(
            json.loads(SOLVED.read_text()), "linear_forward", "def linear_forward(x, w, b):\n    return mine(x, w, b)"
        )
        helper = {
            "cell_type": "code",
            "id": "a1b2",
            "metadata": {},
            "source": "def mine(x, w, b):\n    return x @ w.T + b",
        }
        nb["cells"].insert(2, helper)
        assert cli.main(["check", write(nb)]) == 0

    def test_a_missing_cell_is_said_before_the_reports(self, capsys, write):
        nb = json.loads(SOLVED.read_text())
        nb["cells"] = [cell for cell in nb["cells"] if cell["id"] != "linear_backward_answer"]
        assert cli.main(["check", write(nb)]) == 1
        assert capsys.readouterr().out.startswith("`linear_backward`: the exercise cell is missing")

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("no notebook at all", "The file is no notebook: broken JSON in line 1"),
            ('{"cells": [],\n', "The file is no notebook: broken JSON in line"),
            ("[1, 2]", "The file is JSON but no notebook"),
            ('{"cells": []}', "none of this course's exercise cells: is it the right file?"),
        ],
    )
    def test_a_file_that_is_no_lesson(self, capsys, write, content, sentence):
        path = write(content)
        assert cli.main(["check", path]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith(f"{path}: ") and sentence in said.err

    def test_a_file_that_is_not_there(self, capsys, tmp_path):
        assert cli.main(["check", str(tmp_path / "gone.ipynb")]) == 2
        assert "No such file or directory" in capsys.readouterr().err


class TestSyncAndBuild:
    @pytest.fixture
    def course(self, tmp_path, monkeypatch):
        """A copy of lesson 01 as it is committed."""
        for path in [SOLVED, LINEAR, ROOT / "solutions" / "01_linear.py", ROOT / "solutions" / "start.py"]:
            (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / path.relative_to(ROOT))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "course" / "start.ipynb").write_text(builder.start_page(tmp_path), encoding="utf-8")
        return tmp_path

    def test_one_line_for_a_lesson_in_step(self, course, capsys):
        assert cli.main(["sync", "01_linear"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        exercises = sum(entry.lesson == "linear" for entry in load_registry().values())
        assert line.split()[:5] == ["01_linear", str(exercises), "exercises,", "in", "step,"]
        assert line.endswith("older outputs"), "what the notebook imports is missing in this copy"

    def test_a_difference_is_shown_and_fails(self, course, capsys):
        path = course / "course" / "01_linear" / "01_linear.ipynb"
        path.write_text(path.read_text(encoding="utf-8").replace("raises-exception", "raises_exception"))
        assert cli.main(["sync", "01_linear"]) == 1
        printed = capsys.readouterr().out
        assert "01_linear" in printed and "differs" in printed
        assert '+     "raises-exception"' in printed and "Run `make build`" in printed

    def test_all_lessons_are_asked_for_their_strays(self, course, capsys):
        assert cli.main(["sync"]) == 1
        assert "autograder/exercises/losses.py: no lesson solutions/NN_losses.py" in capsys.readouterr().out

    def test_a_stale_first_page(self, course, capsys):
        (course / "course" / "start.ipynb").write_text("{}")
        assert cli.main(["sync", "01_linear"]) == 1
        assert "course/start.ipynb: not what solutions/start.py gives" in capsys.readouterr().out

    def test_an_error_in_a_text_fails_the_build_and_says_where(self, course, capsys):
        text = course / "solutions" / "01_linear.py"
        text.write_text(text.read_text(encoding="utf-8").replace("setup=true", "set_up=true"), encoding="utf-8")
        assert cli.main(["build", "01_linear"]) == 1
        assert "solutions/01_linear.py:" in capsys.readouterr().out

    def test_an_unknown_lesson(self, course):
        with pytest.raises(SystemExit, match=r"no lesson 04_backprop in .*; there are 01_linear"):
            cli.main(["build", "04_backprop"])


def test_list_shows_every_exercise(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in load_registry())


def test_every_command_has_help(capsys):
    for name, (function, _) in cli.COMMANDS.items():
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        assert function.__doc__.split(".")[0].split()[0] in capsys.readouterr().out


def test_the_commands_are_those_of_the_readme():
    assert {"build", "sync", "check", "list"} <= set(cli.COMMANDS)
