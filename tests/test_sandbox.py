"""A student's code in its child process: what it may do, what it costs, and what it can't reach."""

import os
import socket
import time

import numpy as np
import pytest

from autograder import wire
from autograder.cases import question
from autograder.exercise import find
from autograder.sandbox import _WARM, Cell, _Student, examine_notebook

IMPORTS = Cell(None, "import numpy as np\nimport torch\nfrom torch import nn\nfrom autograder import check, reference")
RIGHT = "def linear_forward(x, w, b):\n    return x @ w.T + b"


def graded(source, name="linear_forward", *more, seconds=10.0):
    return examine_notebook([IMPORTS, *more, Cell(name, source)], [name], seed=1, seconds=seconds)[name]


def body(code):
    return f"def linear_forward(x, w, b):\n    {code}\n    return x @ w.T + b"


def test_a_right_answer_gets_its_points():
    assert graded(RIGHT).points == 2.0


@pytest.mark.parametrize(
    "code",
    [
        "print('noise' * 1000)",
        "import warnings, sys; warnings.warn('careful'); print('to stderr', file=sys.stderr)",
        "import time; time.sleep(0.05)",
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
        "check(linear_forward) if 0 else None",
    ],
)
def test_honest_noise_costs_nothing(code):
    assert graded(body(code)).passed


def test_own_cells_count_and_may_fail():
    helper = Cell(None, "def product(a, b):\n    return a @ b.T")
    scratch = Cell(None, "%timeit 1 + 1\n!ls\n1 / 0")
    assert graded(
        "def linear_forward(x, w, b):\n    return product(x, w) + b", "linear_forward", scratch, helper
    ).passed


def test_one_wrong_cell_does_not_cost_another_exercise_its_points():
    cells = [IMPORTS, Cell("linear_backward", "def linear_backward(:\n"), Cell("linear_forward", RIGHT)]
    results = examine_notebook(cells, ["linear_backward", "linear_forward"], seed=1)
    assert (results["linear_backward"].points, results["linear_forward"].points) == (0, 2)
    assert "SyntaxError: invalid syntax (line 1)" in results["linear_backward"].text


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (body("import os; os._exit(0)"), "ended before it answered"),
        (body("import os; os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"), "ended before it answered"),
        (body("import os; os.kill(os.getpid(), 9)"), "ended before it answered"),
        (body("return np.ones((40_000, 40_000))"), "asked for more memory than it gets"),
        (body("return np.zeros((3000, 3000))"), "far more than any right answer"),
        ("def another(x): pass", "There is no linear_forward"),
        ("linear_forward = 3", "should be a function; it is a int"),
        ("raise KeyError('x')", "KeyError"),
        (body("raise NotImplementedError()"), "not written yet"),
        (body("open('/tmp/x', 'wb').write(b'0' * 10**8)"), "OSError"),
    ],
)
def test_each_failure_has_its_own_sentence_and_no_points(source, sentence):
    result = graded(source, seconds=10.0)
    assert result.points == 0
    assert sentence in result.text


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (body("while True: pass"), "did not come back within 1 seconds"),
        ("while True: pass", "a loop: it did not end within 1 seconds"),
    ],
)
def test_an_endless_loop_ends_with_its_own_sentence(source, sentence):
    assert sentence in graded(source, seconds=1.0).text


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "from autograder.exercises import linear; return linear.linear_forward(x, w, b)",
            "'autograder' is not a package",
        ),
        ("from autograder import reference; return reference('linear_forward')(x, w, b)", "'NoneType' object is not"),
        ("import gc; [o for o in gc.get_objects() if type(o).__name__ == 'Exercise'][0]", "IndexError"),
    ],
)
def test_the_references_are_not_where_the_students_code_is(code, sentence):
    result = graded(body(code))
    assert result.points == 0
    assert sentence in result.text


@pytest.mark.parametrize(
    "code",
    [
        "np.allclose = lambda *a, **k: True; return np.zeros(1)",
        "import sys; sys.displayhook('fine'); return np.zeros(1)",
        "import autograder.play as play; play.perform = lambda *a: {'passed': True}; return np.zeros(1)",
        "return float('nan')",
    ],
)
def test_patching_awards_nothing(code):
    assert graded(body(code)).points == 0


def test_a_child_that_speaks_for_itself_is_not_believed():
    """It finds the channel and answers with what it likes: what is no array of the right shape is no answer."""
    forge = (
        "import os, struct\n"
        "for fd in range(3, 64):\n"
        "    try: os.write(fd, struct.pack('<Q', 20) + struct.pack('<QQ', 4, 0) + b'true')\n"
        "    except OSError: pass\n"
    )
    result = graded(forge + RIGHT)
    assert result.points == 0
    assert graded(RIGHT).passed


def test_the_students_environment_holds_nothing_of_ours(monkeypatch):
    _WARM.end()
    monkeypatch.setenv("AUTOGRADER_SEED", "12345")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    try:
        leak = "import os\nif any('SEED' in k or 'SECRET' in k or 'NBGRADER' in k for k in os.environ): return 0"
        assert graded(body(leak.replace("\n", "\n    "))).passed
    finally:
        _WARM.end()


def test_what_the_code_starts_is_ended_with_it(tmp_path):
    mark = tmp_path / "alive"
    spawn = (
        f"import subprocess; subprocess.Popen(['sh', '-c', 'while true; do touch {mark}; sleep 0.05; done'], "
        "stdin=-3, stdout=-3, stderr=-3)"
    )
    assert graded(body(spawn)).passed
    time.sleep(0.2)
    if mark.exists():
        before = os.stat(mark).st_mtime
        time.sleep(0.3)
        assert os.stat(mark).st_mtime == before


def test_no_expected_value_is_revealed():
    text = graded("def linear_forward(x, w, b):\n    return x @ w.T").text
    assert "expected" not in text and "seed" not in text and "y has no bias" in text


def test_the_same_seed_gives_the_same_result():
    wrong = "def linear_forward(x, w, b):\n    return x @ w.T * 1.5"
    assert graded(wrong).text == graded(wrong).text


def test_a_dead_warm_process_is_replaced():
    assert graded(RIGHT).passed
    _WARM.process.kill()
    _WARM.process.wait()
    assert graded(RIGHT).passed


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        {"failure": "invented"},
        {"failure": "arity"},
        {"failure": ["list"]},
        {"values": []},
        {"values": [{"refused": "invented"}]},
        {"values": [{"array": 3}]},
        {"values": [3]},
        {"values": [{"array": np.zeros((5, 3))}], "modified": [3]},
        {"values": [{"array": np.zeros((5, 3))}] * 2},
        {"passed": True, "points": 100},
    ],
    ids=str,
)
def test_a_reply_that_play_would_not_give_is_no_answer(reply):
    ours, theirs = socket.socketpair()
    entry = find("linear_forward")
    with ours, theirs:
        wire.send(theirs, reply)
        answer = _Student(ours, entry, 5.0).ask(question(entry, 0, 0))
    assert answer == {"failure": "died"}


def test_a_reply_as_long_as_a_book_is_cut():
    ours, theirs = socket.socketpair()
    entry = find("linear_forward")
    long = {"failure": "raised", "type": "E" * 10**4, "message": "m" * 10**4, "line": "l" * 10**4}
    with ours, theirs:
        wire.send(theirs, long)
        answer = _Student(ours, entry, 5.0).ask(question(entry, 0, 0))
    assert max(map(len, answer.values())) <= 2_000
