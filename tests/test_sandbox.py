"""A student's code in its child process: what it may do, what it costs, and what it can't reach."""

import socket
import time

import numpy as np
import pytest

from autograder import sandbox, wire
from autograder.cases import question
from autograder.exercise import find
from autograder.sandbox import Cell, _Student, _Submission, _warm, examine_notebook

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
        (body("return torch.relu(torch.from_numpy(x @ w.T + b)).numpy()"), "calls torch (from_numpy)"),
        (body("return np.zeros((3000, 3000))"), "far more than any right answer"),
        ("def another(x): pass", "There is no linear_forward"),
        ("linear_forward = 3", "should be a function; it is a int"),
        ("raise KeyError('x')", "KeyError"),
        (body("raise NotImplementedError()"), "not written yet"),
        (body("open('x', 'wb').write(b'0' * 10**8)"), "OSError"),
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


def test_no_expected_value_is_revealed():
    text = graded("def linear_forward(x, w, b):\n    return x @ w.T").text
    assert "expected" not in text and "seed" not in text and "y has no bias" in text


def test_the_same_seed_gives_the_same_result():
    wrong = "def linear_forward(x, w, b):\n    return x @ w.T * 1.5"
    assert graded(wrong).text == graded(wrong).text


def test_a_dead_warm_process_is_replaced():
    assert graded(RIGHT).passed
    _warm(False, "bubblewrap").process.kill()
    _warm(False, "bubblewrap").process.wait()
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
        answers = list(_Student(ours, _Submission([], [], 5.0, "bubblewrap")).ask([question(entry, 0, 0)]))
    assert answers == [{"failure": "died"}]


def test_a_reply_as_long_as_a_book_is_cut():
    ours, theirs = socket.socketpair()
    entry = find("linear_forward")
    long = {"failure": "raised", "type": "E" * 10**4, "message": "m" * 10**4, "line": "l" * 10**4}
    with ours, theirs:
        wire.send(theirs, long)
        (answer,) = _Student(ours, _Submission([], [], 5.0, "bubblewrap")).ask([question(entry, 0, 0)])
    assert max(map(len, answer.values())) <= 2_000


# --- a budget for the whole notebook -----------------------------------------------------------------------------


def test_a_whole_notebook_has_a_budget_which_no_number_of_loops_exceeds():
    names = ["linear_forward", "compose_linear", "linear_backward", "count_parameters", "linear_flops"] * 3
    loops = [Cell(name, f"def {name}(*arguments):\n    while True:\n        pass") for name in dict.fromkeys(names)]
    start = time.monotonic()
    results = examine_notebook([IMPORTS, *loops], names, seed=1, seconds=0.2)
    assert time.monotonic() - start < 6 * 0.2 + 3
    assert all(result.points == 0 for result in results.values())


def test_who_comes_after_the_budget_is_told_so():
    submission = _Submission([Cell("linear_forward", RIGHT)], ["linear_forward"], 1.0, "bubblewrap")
    submission.left = 0.0
    ours, theirs = socket.socketpair()
    with ours, theirs:
        (reply,) = _Student(ours, submission).ask([question(find("linear_forward"), 0, 0)])
    assert reply == {"failure": "budget", "seconds": "6"}


def test_scratch_that_takes_long_is_run_once_and_costs_no_points():
    """Two seconds of one's own experiments, in a lesson of many exercises."""
    names = ["linear_forward", "linear_backward", "count_parameters"] * 10
    right = {
        "linear_forward": RIGHT,
        "linear_backward": "def linear_backward(dy, x, w, b):\n    return dy @ w, dy.T @ x, dy.sum(axis=0)",
        "count_parameters": "def count_parameters(w):\n    return sum(i * o + o for i, o in zip(w, w[1:]))",
    }
    scratch = Cell(None, "import time\nfor step in range(20):\n    time.sleep(0.1)\nlosses = [1, 2]")
    start = time.monotonic()
    results = examine_notebook([IMPORTS, scratch, *(Cell(*pair) for pair in right.items())], names, seed=1)
    assert all(result.passed for result in results.values())
    assert time.monotonic() - start < 2 * 2.0 + 3


def test_a_table_that_takes_long_to_make_is_still_there_when_an_answer_needs_it():
    table = Cell(None, "import time\ntable = {}\nfor i in range(3):\n    time.sleep(0.1); table[i] = i")
    first = Cell("count_parameters", "def count_parameters(widths):\n    return 0")
    answer = Cell("linear_forward", "def linear_forward(x, w, b):\n    return (x @ w.T + b) * table[1]")
    results = examine_notebook([IMPORTS, table, first, answer], ["count_parameters", "linear_forward"], seed=1)
    assert results["linear_forward"].passed


def test_an_endless_scratch_cell_is_cut_and_costs_no_points():
    assert graded(RIGHT, "linear_forward", Cell(None, "while True:\n    pass"), seconds=10.0).passed


def test_what_a_cell_defines_after_it_failed_counts():
    assert graded("1 / 0\n" + RIGHT).passed


def test_definitions_hold_in_their_order_when_a_name_is_bound_twice():
    wrong = Cell(None, "def scale(y):\n    return 2 * y")
    right = Cell(None, "def scale(y):\n    return y")
    answer = "def linear_forward(x, w, b):\n    return scale(x @ w.T + b)"
    assert graded(answer, "linear_forward", wrong, right).passed
    assert not graded(answer, "linear_forward", right, wrong).passed


def test_replies_have_a_budget_of_bytes(monkeypatch):
    monkeypatch.setattr(sandbox, "REPLIES", 50)
    assert "ended before it answered" in graded(RIGHT).text


# --- one child for what is right, one each for what is not -------------------------------------------------------


def test_what_an_exercise_leaves_behind_costs_the_next_no_points():
    sabotage = "def count_parameters(w):\n    np.dot = None\n    return sum(i * o + o for i, o in zip(w, w[1:]))"
    answer = "def linear_forward(x, w, b):\n    return np.dot(x, w.T) + b"
    names = ["count_parameters", "linear_forward"]
    results = examine_notebook([IMPORTS, Cell(names[0], sabotage), Cell(names[1], answer)], names, seed=1)
    assert [result.passed for result in results.values()] == [True, True]


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "raise SystemExit", "return None", "x[:] = 0"])
def test_an_answer_that_fails_takes_no_other_with_it(code):
    right = "def count_parameters(widths):\n    return sum(i * o + o for i, o in zip(widths, widths[1:]))"
    cells = [IMPORTS, Cell("linear_forward", body(code)), Cell("count_parameters", right)]
    for names in (["linear_forward", "count_parameters"], ["count_parameters", "linear_forward"]):
        results = examine_notebook(cells, names, seed=1)
        assert (results["linear_forward"].points, results["count_parameters"].passed) == (0, True)
