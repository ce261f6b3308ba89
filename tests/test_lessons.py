"""The rules that every lesson keeps: its anatomy, its length, what nbval and the reader need."""

import ast
import html
import re
import statistics
from pathlib import Path

import nbformat
import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from autograder import build as builder
from autograder.exercise import load_registry

ROOT = Path(__file__).parents[1]
LESSONS = builder.lessons(ROOT)
ANATOMY = [
    "Play first",
    "The mathematics",
    "From scratch",
    "Against a reference",
    "In PyTorch",
    "At work",
    "Look inside",
    "Repair, predict, and what goes wrong",
    "Where it is used, and what came after",
]


class Text:
    """A lesson's cells and its solved notebook."""

    def __init__(self, lesson: builder.Lesson):
        self.lesson = lesson
        self.cells = builder.source_cells(lesson.source.read_text(encoding="utf-8"))
        self.code = [cell for cell in self.cells if cell.kind == "code"]
        self.prose = "\n\n".join(cell.source for cell in self.cells if cell.kind == "markdown")
        self.solved = nbformat.read(lesson.solved, as_version=4)

    def outputs(self):
        return [(cell, output) for cell in self.solved.cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module", params=LESSONS, ids=lambda lesson: lesson.name)
def text(request) -> Text:
    return Text(request.param)


def test_the_anatomy_from_top_to_bottom(text):
    number = text.lesson.name[:2]
    assert re.match(rf"# {number} · \w", text.cells[0].source)
    assert re.findall(r"^## (.+)$", text.prose, re.M) == ANATOMY


def test_the_first_code_cell_is_the_set_up(text):
    assert text.code[0].keys.get("setup") is True
    assert [cell.line for cell in text.code if "setup" in cell.keys] == [text.code[0].line]


def test_code_cells_are_short(text):
    """The hard limit of 25 lines is the builder's; the middle one is for the reader."""
    lengths = [
        len(builder._shown(cell.source)) for cell in text.code if cell.exercise is None or cell.exercise[0] != "check"
    ]
    assert statistics.median(lengths) <= 10


def test_nbval_compares_at_least_three_outputs(text):
    tagged = [cell for cell in text.solved.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(tagged) >= 3
    for cell in tagged:
        kinds = {output.output_type for output in cell.outputs}
        assert kinds == {"stream"}, f"{cell.id}: nbval compares text; tag a cell that prints"


def test_no_tag_hides_a_failing_cell_from_nbval(text):
    tags = {tag for cell in text.cells for tag in cell.keys.get("tags", [])}
    assert tags <= {"nbval-check-output", "raises-exception"}
    failing = [cell for cell in text.cells if "raises-exception" in cell.keys.get("tags", [])]
    assert not [cell.line for cell in failing if cell.exercise]


def test_at_least_two_interactive_figures_and_one_prediction(text):
    """An Explorer or a Predict is known by what stands in its place where no kernel answers."""
    shown = "".join("".join(output.get("data", {}).get("text/plain", "")) for _, output in text.outputs())
    assert len(re.findall(r"<interactive figure: ", shown)) >= 2
    assert len(re.findall(r"<predict: ", shown)) >= 1


def test_every_widget_has_a_static_picture(text):
    for cell, output in text.outputs():
        data = output.get("data", {})
        assert "application/vnd.jupyter.widget-view+json" not in data, f"{cell.id}: a widget without a static picture"


def test_every_picture_has_words(text):
    for cell, output in text.outputs():
        data = output.get("data", {})
        assert not {"image/png", "image/jpeg", "image/svg+xml"} & set(data), f"{cell.id}: use plots.show(fig, alt=…)"
        images = re.findall(r"<img\b[^>]*>", "".join(data.get("text/html", "")))
        assert all(re.search(r'\balt="[^"]+"', image) for image in images), f"{cell.id}: an image without alt text"


def test_nothing_was_written_to_stderr(text):
    assert not [cell.id for cell, output in text.outputs() if output.get("name") == "stderr"]


def test_the_solved_notebook_is_small(text):
    assert text.lesson.solved.stat().st_size <= builder.MAX_BYTES


def test_docstrings_state_the_contract_of_the_declaration(text):
    """The first line of an exercise names the arguments and outputs of its declaration, in order."""
    for cell in text.cells:
        key, name = cell.exercise or ("", "")
        entry = text.lesson.exercises.get(name)
        if key != "exercise" or entry is None or entry.kind not in ("function", "gradient"):
            continue
        function = next(n for n in ast.parse(cell.source).body if getattr(n, "name", None) == name)
        assert isinstance(function, ast.FunctionDef)
        assert ast.get_docstring(function), f"line {cell.line}: {name} has no docstring"
        upstream = [f"d{output.name}" for output in _forward_outputs(entry)] if entry.kind == "gradient" else []
        wanted = upstream + [argument.name for argument in entry.arguments]
        assert [argument.arg for argument in function.args.args] == wanted, f"line {cell.line}: {name}"


def _forward_outputs(entry):
    return entry.reference.exercise.outputs


def test_no_emoji_and_no_filler(text):
    assert not re.search("[\U0001f300-\U0001faff\u2705\u274c\u2b50]", text.lesson.source.read_text(encoding="utf-8"))
    assert not re.search(r"as mentioned above|it can be shown", text.prose, re.I)


@pytest.mark.parametrize("entry", load_registry().values(), ids=lambda entry: entry.name)
def test_a_hint_says_the_same_as_plain_text_and_as_markdown(entry):
    """A failed check prints it, the notebook renders it: no stray star, underscore or angle bracket may vanish."""
    for hint in entry.hints:
        rendered = html.unescape(re.sub(r"</?(p|code|em|strong|details|summary)>", "", markdown2html_mistune(hint)))
        assert rendered.split() == re.sub(r"`", "", hint).split()


def test_hints_are_nested_in_the_page_too(text):
    """As nbconvert's pages show them; the other renderers read the same CommonMark."""
    for cell in text.solved.cells:
        if cell.cell_type == "markdown" and "<details><summary>Hint 1" in cell.source:
            page = markdown2html_mistune(cell.source)
            steps = re.findall(r"<details>|</details>|(?<=<summary>)Hint \d", page)
            count = page.count("<details>")
            opened = [step for n in range(1, count + 1) for step in ("<details>", f"Hint {n}")]
            assert steps == opened + ["</details>"] * count, cell.id
