"""Attacks that stand in the file or the folder that is handed in, and what tries to run in the feedback page."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell

from tests.attacks.case import Arrange, Case, Edit, answers, forward
from tests.attacks.detectors import harms_others, is_left_out, is_rendered, learns_a_secret
from tests.test_nbgrader import (
    FULL,
    LESSON,
    NO_BIAS,
    NONE,
    adds,
    cell_of,
    copies_answer,
    copies_check,
    deletes,
    pads_every_cell,
    part,
    retypes,
)

WRONG = answers(linear_forward=NO_BIAS)


def damaged(damage: Callable[[bytes], bytes]) -> Arrange:
    """The file holds something else."""
    return lambda path, data: path.write_bytes(damage(data))


def changed(change: Callable[[Any], Any]) -> Arrange:
    """The file holds other JSON: what `change` returns, or what it has made of the notebook in place."""

    def arrange(path: Path, data: bytes) -> None:
        nb = json.loads(data)
        path.write_text(json.dumps(change(nb) or nb))

    return arrange


def every_cell(**fields: Any) -> Arrange:
    """All cells with these fields."""
    return changed(lambda nb: [cell.update(fields) for cell in nb["cells"]] and None)


def beside(name: str, text: str) -> Arrange:
    """Another file in the same folder."""

    def arrange(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        (path.parent / name).write_text(text)

    return arrange


def link(target: str) -> Arrange:
    return lambda path, data: path.symlink_to(Path(os.path.normpath(path.parents[3] / target)))


def hard_link(path: Path, data: bytes) -> None:
    """A file of the course under a name of one's own."""
    os.link(path.parents[3] / "solutions" / LESSON / path.name, path)


def folder_link(path: Path, data: bytes) -> None:
    path.parent.rmdir()
    path.parent.symlink_to(neighbour(path).parent)


def neighbour(path: Path) -> Path:
    return path.parents[2] / "a_honest" / LESSON / path.name


def pipe_beside(name: str) -> Arrange:
    def arrange(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        os.mkfifo(path.parent / name)

    return arrange


def swapped(nb: NotebookNode) -> None:
    """Each answer in the cell of the next exercise."""
    answers()(nb)
    cells = [cell_of(nb, f"{name}_answer") for name in FULL]
    sources = [cell.source for cell in cells]
    for cell, source in zip(cells, sources[1:] + sources[:1], strict=True):
        cell.source = source


def many_cells(nb: NotebookNode) -> None:
    answers()(nb)
    nb.cells += [new_markdown_cell("", id=f"n{number}") for number in range(60_000)]


def copies_all(nb: NotebookNode) -> None:
    answers()(nb)
    nb.cells += deepcopy(nb.cells)


def duplicate_keys(data: bytes) -> bytes:
    """Two lists of cells: which one counts depends on the parser."""
    return data.replace(b'{"cells"', b'{"cells": [], "cells"', 1)


STRUCTURE = [
    Case(
        "schema_1",
        "nbgrader's metadata say that they are too old.",
        pads_every_cell(schema_version=1),
        harms_others,
        FULL,
    ),
    Case(
        "schema_99",
        "nbgrader's metadata say that they are too new.",
        pads_every_cell(schema_version=99),
        harms_others,
        FULL,
    ),
    Case("one_name", "All cells have one name.", pads_every_cell(grade_id="linear_forward"), harms_others, NONE),
    Case("copied_answer", "The exercise cell stands there twice.", copies_answer, harms_others, FULL),
    Case("copied_check", "The check cell stands there twice.", copies_check, harms_others, FULL),
    Case("copied_all", "All cells stand there twice.", copies_all, harms_others, FULL),
    Case("no_check", "The check cell is deleted.", deletes("linear_forward"), is_left_out, FULL),
    Case("no_answer", "The exercise cell is deleted.", deletes("linear_forward_answer"), worth=part("linear_forward")),
    Case("markdown_check", "The check cell is text.", retypes("linear_forward", "markdown"), is_left_out, FULL),
    Case("raw_answer", "The exercise cell is raw.", retypes("linear_forward_answer", "raw"), is_left_out, FULL),
    Case(
        "unknown_cells",
        "The cells are of a kind that does not exist.",
        answers(),
        is_left_out,
        FULL,
        every_cell(cell_type="fortran"),
    ),
    Case("swapped", "The answers stand in each other's cells.", swapped, worth=FULL),
    Case("many_cells", "60,000 cells.", many_cells, harms_others, FULL),
    Case(
        "odd_sources", "Sources are numbers and objects.", answers(), is_left_out, FULL, every_cell(source={"a": [1]})
    ),
    Case("odd_metadata", "Metadata are lists.", answers(), is_left_out, FULL, every_cell(metadata=[1, None])),
    Case(
        "no_cells",
        "The cells are an object.",
        answers(),
        is_left_out,
        NONE,
        changed(lambda nb: nb | {"cells": {"0": {}}}),
    ),
    Case(
        "null_cells",
        "There are no cells but nulls.",
        answers(),
        is_left_out,
        NONE,
        changed(lambda nb: nb | {"cells": [None] * 9}),
    ),
    Case(
        "future_format",
        "The notebook says that its format is number 10**9.",
        answers(),
        is_left_out,
        FULL,
        changed(lambda nb: nb | {"nbformat": 10**9, "nbformat_minor": "x"}),
    ),
    Case(
        "no_format",
        "The notebook does not say what it is.",
        answers(),
        is_left_out,
        FULL,
        changed(lambda nb: {"cells": nb["cells"]}),
    ),
    Case(
        "other_kernel",
        "The kernel is one that does not exist.",
        answers(),
        is_left_out,
        FULL,
        changed(lambda nb: nb["metadata"].update(kernelspec={"name": "../../x", "display_name": "?", "language": "?"})),
    ),
    Case("broken_json", "Half a file.", answers(), is_left_out, NONE, damaged(lambda data: data[: len(data) // 2])),
    Case("empty_file", "An empty file.", answers(), is_left_out, NONE, damaged(lambda data: b"")),
    Case(
        "utf_16", "Text in UTF-16.", answers(), is_left_out, NONE, damaged(lambda data: data.decode().encode("utf-16"))
    ),
    Case(
        "nul",
        "NULs between the letters.",
        answers(),
        is_left_out,
        FULL,
        damaged(lambda data: data.replace(b" ", b"\0")),
    ),
    Case(
        "surrogates",
        "Half of a surrogate pair in every cell.",
        answers(),
        is_left_out,
        FULL,
        damaged(lambda data: data.replace(b'"source": "', b'"source": "#\\ud800\\n')),
    ),
    Case(
        "nested",
        "JSON nested 100,000 deep.",
        answers(),
        harms_others,
        NONE,
        damaged(lambda data: b'{"cells":' + b"[" * 100_000),
    ),
    Case(
        "nested_metadata",
        "Metadata nested 900 deep.",
        answers(),
        is_left_out,
        FULL,
        damaged(
            lambda data: data.replace(b'"metadata": {', b'"metadata": {"a": ' + b"[" * 900 + b"]" * 900 + b", ", 1)
        ),
    ),
    Case(
        "long_number",
        "A number of 10,000 digits.",
        answers(),
        is_left_out,
        FULL,
        damaged(lambda data: data.replace(b'{"cells"', b'{"n": ' + b"9" * 10_000 + b', "cells"', 1)),
    ),
    Case(
        "duplicate_keys",
        "Two lists of cells in one object.",
        WRONG,
        worth=part("linear_forward"),
        arrange=damaged(duplicate_keys),
    ),
    Case(
        "large_file",
        "A file of 65 MB.",
        answers(),
        harms_others,
        FULL,
        damaged(lambda data: data.replace(b'{"cells"', b'{"x": "' + b"x" * 65_000_000 + b'", "cells"', 1)),
    ),
    Case("missing", "An empty folder.", answers(), is_left_out, NONE, lambda path, data: None),
    Case(
        "renamed",
        "The file has another name.",
        answers(),
        is_left_out,
        NONE,
        lambda path, data: (path.parent / "a (2).ipynb").write_bytes(data),
    ),
    Case(
        "a_folder", "A folder of the notebook's name.", answers(), harms_others, NONE, lambda path, data: path.mkdir()
    ),
    Case(
        "a_pipe",
        "A named pipe: who opens it waits for ever.",
        answers(),
        harms_others,
        NONE,
        lambda path, data: os.mkfifo(path),
    ),
    Case("pipe_beside", "A named pipe beside the notebook.", answers(), harms_others, FULL, pipe_beside("notes.txt")),
    Case(
        "pipe_of_time",
        "A named pipe in place of the time stamp.",
        answers(),
        harms_others,
        FULL,
        pipe_beside("timestamp.txt"),
    ),
    Case(
        "no_time",
        "The time stamp is no time.",
        answers(),
        harms_others,
        FULL,
        beside("timestamp.txt", "tomorrow, I hope"),
    ),
    Case(
        "strange_time",
        "The time stamp is a time that no calendar has.",
        answers(),
        is_left_out,
        FULL,
        beside("timestamp.txt", "99999-99-99 99:99:99 UTC"),
    ),
    Case(
        "link_to_neighbour",
        "A link to another student's notebook.",
        answers(),
        arrange=link(f"submitted/a_honest/{LESSON}/{LESSON}.ipynb"),
        worth=NONE,
    ),
    Case(
        "link_to_solution",
        "A link to the model solution.",
        answers(),
        arrange=link(f"solutions/{LESSON}/{LESSON}.ipynb"),
        worth=NONE,
    ),
    Case(
        "link_to_zeros",
        "A link to a file without an end.",
        answers(),
        harms_others,
        NONE,
        link("../../../../../../dev/zero"),
    ),
    Case("hard_link", "The model solution's file under a second name.", answers(), arrange=hard_link, worth=NONE),
    Case("folder_link", "The folder is a link to another student's.", answers(), arrange=folder_link, worth=NONE),
    Case(
        "secret_link",
        "A link beside the notebook to a secret file.",
        answers(),
        learns_a_secret,
        FULL,
        lambda path, data: (
            path.write_bytes(data),
            (path.parent / "notes.txt").symlink_to(path.parents[4] / "secret.txt"),
        ),
    ),
    Case(
        "own_numpy",
        "A module of one's own that is called numpy.",
        WRONG,
        arrange=beside("numpy.py", "abs = lambda *a: 0\nallclose = lambda *a, **k: True\n"),
        worth=part("linear_forward"),
    ),
    Case(
        "own_torch",
        "A module of one's own that is called torch.",
        WRONG,
        worth=part("linear_forward"),
        arrange=beside(
            "torch.py",
            "class nn:\n    class functional:\n        linear = lambda x, w, b: x @ w.T\n"
            "tensor = lambda v: type('T', (), {'numpy': lambda self: v})()\n",
        ),
    ),
    Case(
        "own_autograder",
        "A module of one's own that is called autograder.",
        WRONG,
        worth=part("linear_forward"),
        arrange=beside("autograder.py", "check = lambda f: 2.0\n"),
    ),
    Case(
        "own_customize",
        "A sitecustomize.py and a configuration of nbgrader in the folder.",
        answers(),
        harms_others,
        FULL,
        beside("nbgrader_config.py", "raise SystemExit('stopped')"),
    ),
    Case(
        "second_notebook",
        "A second notebook in the folder.",
        answers(),
        is_left_out,
        FULL,
        beside("02_more.ipynb", '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'),
    ),
]

ALARM = "document.title='@MARK@'"
IMAGE = f'<img src=x onerror="{ALARM}">'
SCRIPT = f"<script>{ALARM}</script>"
PAYLOAD = f"</pre></script></style></title>{SCRIPT}{IMAGE}<iframe srcdoc='{SCRIPT}'></iframe>"


def displays(source: str) -> Edit:
    """A cell of the student's own that shows something, and the output of it as saved."""

    def edit(nb: NotebookNode) -> None:
        adds(f"from IPython.display import *\n{source}")(nb)
        html = new_output("display_data", data={"text/html": PAYLOAD, "text/plain": PAYLOAD})
        nb.cells[1].outputs = [html]
        nb.cells[-1].outputs = [html]

    return edit


def adds_cells(*cells: NotebookNode) -> Edit:
    def edit(nb: NotebookNode) -> None:
        answers()(nb)
        nb.cells[1:1] = deepcopy(list(cells))

    return edit


def says(source: str) -> Edit:
    return forward(f"message = {PAYLOAD!r}\n{source}")


def titled(nb: dict[str, Any]) -> None:
    nb["metadata"].update(title=PAYLOAD, authors=[{"name": PAYLOAD}])
    nb["metadata"]["language_info"] = {"name": PAYLOAD, "pygments_lexer": PAYLOAD, "mimetype": PAYLOAD}


XSS = [
    Case("html", "A cell shows HTML.", displays(f"display(HTML({PAYLOAD!r}))"), is_rendered, FULL),
    Case("javascript", "A cell shows JavaScript.", displays(f"display(Javascript({ALARM!r}))"), is_rendered, FULL),
    Case(
        "svg",
        "A cell shows SVG with a script in it.",
        displays(f"display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\">{SCRIPT}</svg>'))"),
        is_rendered,
        FULL,
    ),
    Case(
        "iframe",
        "A cell shows a frame.",
        displays("display(IFrame('http://127.0.0.1:@PORT@/@MARK@', 9, 9))"),
        is_rendered,
        FULL,
    ),
    Case(
        "latex",
        "A cell shows LaTeX with a link that is a program.",
        displays(f"display(Latex(r'$\\href{{javascript:{ALARM}}}{{x}}$'), Markdown({PAYLOAD!r}))"),
        is_rendered,
        FULL,
    ),
    Case(
        "image_metadata",
        "A picture's size is markup.",
        adds_cells(
            new_code_cell(
                "0",
                id="own",
                outputs=[
                    new_output(
                        "display_data",
                        data={"image/png": f'"{IMAGE}'},
                        metadata={"image/png": {"width": f'1" {ALARM}', "alt": f'">{SCRIPT}'}},
                    )
                ],
            )
        ),
        is_rendered,
        FULL,
    ),
    Case(
        "widget",
        "A saved widget state is markup.",
        answers(),
        is_rendered,
        FULL,
        changed(
            lambda nb: nb["metadata"].update(
                widgets={
                    "application/vnd.jupyter.widget-state+json": {
                        "state": {"a": {"model_name": "HTMLModel", "state": {"value": PAYLOAD}}},
                        "x": PAYLOAD,
                    }
                }
            )
        ),
    ),
    Case(
        "markdown",
        "A text cell holds markup.",
        adds_cells(new_markdown_cell(PAYLOAD + f"\n[x](javascript:{ALARM})", id="own")),
        is_rendered,
        FULL,
    ),
    Case(
        "raw",
        "A raw cell holds HTML.",
        adds_cells(new_raw_cell(PAYLOAD, id="own", metadata={"raw_mimetype": "text/html", "format": "text/html"})),
        is_rendered,
        FULL,
    ),
    Case("source", "The code itself holds markup.", adds(f"'''{PAYLOAD}'''"), is_rendered, FULL),
    Case("message", "The message of an error is markup.", says("raise ValueError(message)"), is_rendered),
    Case(
        "type_name",
        "The name of an error's class is markup.",
        says("raise type(message, (Exception,), {})(message)"),
        is_rendered,
    ),
    Case(
        "return_type",
        "The name of the answer's class is markup.",
        says("return type(message, (), {'__repr__': lambda self: message})()"),
        is_rendered,
    ),
    Case(
        "warning",
        "A warning is markup.",
        says("import warnings; warnings.warn(message)\nreturn x @ w.T + b"),
        is_rendered,
        FULL,
    ),
    Case(
        "printed",
        "What is printed is markup, with colour codes in it.",
        says("print('\\x1b[31m' + message)\nreturn x @ w.T + b"),
        is_rendered,
        FULL,
    ),
    Case(
        "cell_name", "A cell's name is markup.", pads_every_cell(grade_id=PAYLOAD), is_rendered, part("linear_forward")
    ),
    Case("titles", "The notebook's title and language are markup.", answers(), is_rendered, FULL, changed(titled)),
    Case(
        "file_name",
        "Another file's name is markup.",
        answers(),
        is_rendered,
        NONE,
        lambda path, data: (path.parent / "<img src=x onerror=alert(1)>.ipynb").write_bytes(data),
    ),
    Case(
        "attachment",
        "An attachment holds a page.",
        adds_cells(
            new_markdown_cell("![x](attachment:x.svg)", id="own", attachments={"x.svg": {"image/svg+xml": PAYLOAD}})
        ),
        is_rendered,
        FULL,
    ),
]

CLASSES = {"structure": STRUCTURE, "cross_site_scripting": XSS}


# --- controls: honest work that looks suspicious -----------------------------------------------------------------


def right(name: str, body: str, before: str = "") -> Edit:
    return answers(**{name: f"{before}\n{body}"})


def saved_by_vs_code(nb: dict[str, Any]) -> None:
    nb["metadata"]["vscode"] = {"interpreter": {"hash": "0"}}
    for number, cell in enumerate(nb["cells"]):
        cell["metadata"]["vscode"] = {"languageId": "python"}
        cell["id"] = f"#W{number}sZmlsZQ=="


def saved_by_colab(nb: dict[str, Any]) -> None:
    """Ids move into the metadata, of which nothing else stays."""
    nb["metadata"] = {"colab": {"provenance": []}, "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nb["nbformat_minor"] = 0
    for cell in nb["cells"]:
        cell["metadata"] = {"id": cell.pop("id"), "outputId": "8a7b", "colab": {"base_uri": "https://localhost:8080/"}}


def in_lines(nb: dict[str, Any]) -> None:
    for cell in nb["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)


def copied_cells(nb: NotebookNode) -> None:
    """An exercise copied below, unsolved, as one does to try again."""
    released = nbformat.from_dict(deepcopy(cell_of(nb, "linear_forward_answer")) | {"id": "again"})
    answers()(nb)
    nb.cells.append(released)


FORWARD = "    return x @ w.T + b"
CONTROLS = [
    Case("prints", "It prints what it computes.", forward("print(x, w, b)\nreturn x @ w.T + b")),
    Case(
        "warns",
        "It warns and writes to stderr.",
        forward("warnings.warn('old'); print('!', file=sys.stderr)\nreturn x @ w.T + b", "import sys, warnings"),
    ),
    Case(
        "plots",
        "It draws a figure.",
        forward("plt.plot(b); plt.show(); plt.close()\nreturn x @ w.T + b", "import matplotlib.pyplot as plt"),
    ),
    Case("sleeps", "It waits a little.", forward("time.sleep(0.05); return x @ w.T + b", "import time")),
    Case(
        "helpers",
        "Helpers stand in cells of its own.",
        adds(
            "def times(a, b):\n    return a @ b.T",
            "SHIFT = 0",
            linear_forward="def linear_forward(x, w, b):\n    return times(x, w) + b + SHIFT",
        ),
    ),
    Case("failing_scratch", "Scratch cells fail.", adds("1 / 0", "assert False, 'not yet'", "undefined_name")),
    Case("slow_scratch", "A scratch cell takes a second and a half.", adds("import time; time.sleep(1.5)")),
    Case("broken_scratch", "A scratch cell is no Python.", adds("def f(:\n  what", "for x in")),
    Case(
        "prints_much",
        "It prints a million letters.",
        adds(
            "print('x' * 1_000_000)",
            linear_forward="def linear_forward(x, w, b):\n    print('y' * 100_000)\n" + FORWARD,
        ),
    ),
    Case(
        "magics",
        "It uses magics and shell lines.",
        adds("%matplotlib inline\n%timeit -n1 -r1 1 + 1", "%%time\ny = 2", "!ls", "?print"),
    ),
    Case(
        "own_torch_cell",
        "A cell of its own compares with PyTorch; the answer does not use it.",
        adds("import torch\nprint(torch.ones(2) @ torch.ones(2))"),
    ),
    Case("unicode", "Names and comments in other scripts.", forward("β = b  # смещение ≈ 偏置 🙂\nreturn x @ w.T + β")),
    Case(
        "crlf",
        "Lines end as on Windows.",
        answers(),
        arrange=changed(
            lambda nb: [cell.update(source=cell["source"].replace("\n", "\r\n")) for cell in nb["cells"]] and None
        ),
    ),
    Case(
        "windows_file",
        "The whole file was saved on Windows, with a byte order mark.",
        answers(),
        arrange=damaged(
            lambda data: b"\xef\xbb\xbf" + json.dumps(json.loads(data), indent=1).replace("\n", "\r\n").encode()
        ),
    ),
    Case("vs_code", "Saved by VS Code.", answers(), arrange=changed(saved_by_vs_code)),
    Case("colab", "Saved by Colab.", answers(), arrange=changed(saved_by_colab)),
    Case("lines", "Sources are lists of lines, as nbformat writes them.", answers(), arrange=changed(in_lines)),
    Case("copied", "An exercise is copied below, unsolved.", copied_cells),
    Case(
        "annotations",
        "Type hints and a long docstring.",
        answers(
            linear_forward=(
                "from numpy.typing import NDArray as A\n\ndef linear_forward(x: A, w: A, b: A) -> A:\n"
                '    """' + "Words. " * 300 + '"""\n' + FORWARD
            )
        ),
    ),
    Case(
        "nested",
        "Functions in functions.",
        forward(
            "def row(v):\n    def entry(u, c):\n        return sum(p * q for p, q in zip(u, v)) + c\n"
            "    return [entry(u, c) for u, c in zip(w, b)]\nreturn np.array([row(v) for v in x])"
        ),
    ),
    Case(
        "classes",
        "A class of its own does the work.",
        forward(
            "return Layer(w, b)(x)",
            (
                "from dataclasses import dataclass\n\n@dataclass\nclass Layer:\n    w: object\n    b: object\n"
                "    def __call__(self, x):\n        return x @ self.w.T + self.b"
            ),
        ),
    ),
    Case(
        "constants",
        "Constants at the top of the cell.",
        forward("return AXES(x, w) + b", "AXES = lambda x, w: np.einsum('ni,oi->no', x, w)"),
    ),
    Case(
        "decorated",
        "A decorator around the answer.",
        answers(
            linear_forward=(
                "from functools import wraps\n\n"
                "def logged(f):\n    @wraps(f)\n    def g(*a):\n        print(f.__name__)\n        return f(*a)\n"
                "    return g\n\n@logged\ndef linear_forward(x, w, b):\n" + FORWARD
            )
        ),
    ),
    Case("in_place", "It works in place on copies of its own.", forward("y = x.copy() @ w.T\ny += b\nreturn y")),
    Case("lists", "It returns nested lists.", forward("return (x @ w.T + b).tolist()")),
    Case(
        "loops",
        "It is written with loops.",
        forward(
            "y = np.zeros((len(x), len(w)))\nfor n in range(len(x)):\n    for o in range(len(w)):\n"
            "        y[n, o] = b[o]\n        for i in range(x.shape[1]):\n"
            "            y[n, o] += x[n, i] * w[o, i]\nreturn y"
        ),
    ),
    Case(
        "one_calls_another",
        "One answer uses another.",
        answers(
            linear_backward=(
                "def linear_backward(dy, x, w, b):\n"
                "    zero = np.zeros(x.shape[1])\n"
                "    return linear_forward(dy, w.T, zero), linear_forward(dy.T, x.T, zero), dy.sum(axis=0)"
            )
        ),
    ),
    Case(
        "random",
        "It draws random numbers that do not matter.",
        forward("np.random.seed(1); np.random.rand(3)\nreturn x @ w.T + b"),
    ),
    Case(
        "catches_errors",
        "It catches errors of its own.",
        forward("try:\n    return x @ w.T + b\nexcept ValueError:\n    return None"),
    ),
    Case(
        "extra_files",
        "Pictures and notes lie beside the notebook.",
        answers(),
        arrange=beside("notes.txt", "remember the bias"),
    ),
]
CONTROLS = [Case(c.name, c.sentence, c.edit, c.by, FULL, c.arrange) for c in CONTROLS]
