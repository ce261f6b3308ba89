"""What earlier lessons have built comes along into a graded run, as PyTorch's answers, and nothing else does."""

import time

import numpy as np
import pytest

from autograder import examine, lender, mine, sandbox
from autograder.builders import Build
from autograder.exercise import earlier
from autograder.sandbox import Cell, examine_notebook

ASKS = Cell(None, "import numpy as np\nfrom autograder import mine\nrelu_forward = mine('relu_forward')")
ANSWER = """
class ReLULayer:
    def forward(self, x):
        self.x = x
        {before}
        return relu_forward(x)
    def backward(self, dy):
        return mine("relu_backward")(dy, self.x)
    def parameters(self):
        return []
    def gradients(self):
        return []
"""
SOCKET = 'channel = mine.__globals__["_lenders"][0]'


def graded(before="pass", exercise="ReLULayer", **options):
    cells = [ASKS, Cell(exercise, ANSWER.format(before=before).replace("ReLULayer", exercise))]
    return examine_notebook(cells, [exercise], seed=1, **options)[exercise]


def test_an_answer_may_use_what_earlier_lessons_have_built():
    assert graded().passed


def test_the_answer_itself_may_ask():
    cells = [Cell(None, "from autograder import mine"), Cell("ReLULayer", "relu_forward = mine('relu_forward')")]
    cells[1] = Cell("ReLULayer", cells[1].source + ANSWER.format(before="pass"))
    assert examine_notebook(cells, ["ReLULayer"])["ReLULayer"].passed


@pytest.mark.parametrize("name", ["ReLULayer", "topological_order", "adam_step", "no_such_function"])
def test_nothing_of_this_lesson_or_a_later_one_comes_along(name):
    assert "only what earlier lessons have built comes along" in graded(f"mine({name!r})(x)").text


WITHHELD = """
def online_softmax_attention(q, k, v, block):
    return mine("attention_forward")(q, k, v)
"""


def test_what_would_be_the_answer_does_not_come_along(monkeypatch):
    """Nor at home, where the reference stands in for the learner's own."""
    cells = [Cell(None, "from autograder import mine"), Cell("online_softmax_attention", WITHHELD)]
    there = examine_notebook(cells, ["online_softmax_attention"])["online_softmax_attention"]
    monkeypatch.setenv("LAYER_BY_LAYER", "")
    namespace = {"mine": mine}
    exec(WITHHELD, namespace)
    here = examine(namespace["online_softmax_attention"])
    for result in (there, here):
        assert result.points == 0 and "uses mine('attention_forward'), which is what you are to build" in result.text


def test_a_function_of_functions_is_refused_in_words():
    assert "functions of arrays and numbers come along" in graded("mine('numerical_gradient')(np.sum, x)").text


def test_a_wrong_call_stops_as_the_function_would():
    assert "linear_forward: " in graded("mine('linear_forward')(x, x)").text
    assert "missing 1 required positional argument" in graded("mine('linear_forward')(x, x)").text


@pytest.mark.parametrize(
    "attempt",
    [
        "mine('linear_forward')(np.ones((200_000, 1)), np.ones((200_000, 1)), np.ones(200_000))",  # 320 GB
        f"{SOCKET}; channel.sendall(b'x' * 100_000)",
        f"{SOCKET}; channel.sendall((2**62).to_bytes(8, 'little') + b'x' * 1000)",
        f"{SOCKET}; channel.close()",
    ],
)
def test_who_misuses_it_loses_their_own_points_only(attempt):
    assert not graded(attempt).passed
    assert graded().passed


def test_a_question_without_end_ends_with_the_students_time():
    began = time.monotonic()
    endless = "while True: mine('linear_forward')(*3 * [np.ones((3000, 3000))][:2], np.ones(3000))"
    assert "within 1 seconds" in graded(endless, seconds=1.0).text
    assert time.monotonic() - began < 15
    assert graded().passed


def test_a_lender_that_died_is_started_anew():
    assert graded().passed
    sandbox._lender("bubblewrap").process.kill()
    sandbox._lender("bubblewrap").process.wait()
    assert graded().passed


def test_a_notebook_that_does_not_ask_starts_none():
    sandbox._lender("bubblewrap").end()
    own = Cell(None, "import numpy as np")
    answer = Cell("relu_forward", "def relu_forward(x):\n    return np.maximum(x, 0)")
    assert examine_notebook([own, answer], ["relu_forward"])["relu_forward"].passed
    assert sandbox._lender("bubblewrap").process is None


def test_only_plain_values_are_taken():
    """Whoever speaks the protocol can name a builder; none is made here."""
    names = frozenset(earlier("backprop"))
    told = lender._reply("linear_forward", [[Build("sequential", layers=[["Linear", 9, 9]])]], {}, names)
    assert "arrays and numbers" in told["error"]
    x, w = np.ones((2, 3)), np.ones((4, 3))
    assert lender._reply("linear_forward", [x, w, np.zeros(4)], {}, names)["values"][0].tolist() == [[3.0] * 4] * 2


def test_the_lessons_before_are_those_of_the_course_in_its_order():
    assert set(earlier("linear")) == set()
    assert "relu_forward" in earlier("losses") and "mse_forward" not in earlier("losses")
    assert {"mse_forward", "linear_forward"} < set(earlier("a lesson of somebody's own"))
