"""Declarations: what follows from one, and which are refused."""

import numpy as np
import pytest

from autograder import exercise as declarations
from autograder.exercise import autograd_function, exercise, find, gradient_of, load_registry

COMMON = dict(points=1, minutes=1, difficulty=1)


@pytest.fixture(autouse=True)
def scratch_registry(monkeypatch):
    """Declarations made here are gone afterwards."""
    load_registry()
    monkeypatch.setattr(declarations, "_registry", dict(declarations._registry))


def declared(name="scale_forward", **options):
    def function(x: "n i", s: "i", labels: "n", power=2) -> "y: n i":  # noqa: F722, F821
        return x * s**power

    function.__name__ = name
    draws = dict(labels=lambda rng, sizes: rng.integers(3, size=sizes["n"]))
    return exercise(**COMMON | dict(cases=[dict(n=3, i=2)], draws=draws) | options)(function)


def test_names_shapes_and_outputs_follow_from_the_function():
    entry = declared().exercise
    assert entry.name == "scale_forward"
    assert [(a.name, a.shape) for a in entry.arguments] == [
        ("x", "n i"), ("s", "i"), ("labels", "n"), ("power", None),
    ]  # fmt: skip
    assert [(o.name, o.letters) for o in entry.outputs] == [("y", ("n", "i"))]


def test_the_backward_exercise_follows_from_the_forward():
    entry = gradient_of(declared(), **COMMON)
    assert entry.name == "scale_backward"
    assert entry.wrt == ("x", "s"), "integers have no gradient"
    assert [(o.name, o.shape) for o in entry.outputs] == [("dx", "n i"), ("ds", "i")]


def test_gradients_may_be_asked_for_some_arguments_only():
    assert [o.name for o in gradient_of(declared(), **COMMON, wrt="s").outputs] == ["ds"]


def test_an_autograd_function_is_asked_for_outputs_and_gradients():
    entry = autograd_function("ScaleFunction", declared(), **COMMON)
    assert [o.name for o in entry.outputs] == ["y", "dx", "ds"]


def test_several_outputs_and_scalars_are_named_in_the_annotation():
    def pair(x: "n") -> "total:, twice: n":  # noqa: F722, F821
        return x.sum(), 2 * x

    exercise(**COMMON, cases=[dict(n=3)])(pair)
    assert [(o.name, o.letters) for o in pair.exercise.outputs] == [("total", ()), ("twice", ("n",))]


def test_a_name_is_declared_once_in_the_whole_course():
    taken = find("linear_forward")
    assert taken.lesson == "linear"
    with pytest.raises(ValueError, match="two declarations of 'linear_forward'"):
        declared(name="linear_forward")


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(difficulty=4), "difficulty is 1, 2 or 3, not 4"), (dict(cases=[]), "at least one case is needed")],
)
def test_an_impossible_declaration_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        declared(**options)


def test_a_case_that_leaves_a_plain_value_open_is_refused():
    from autograder import cases

    def power(x: "n", exponent) -> "y: n":  # noqa: F722, F821
        return x**exponent

    exercise(**COMMON, cases=[dict(n=3)])(power)
    with pytest.raises(ValueError, match="gives no exponent"):
        cases.question(power.exercise, 0, 0)


def test_the_students_own_default_is_part_of_the_exercise():
    from autograder.grade import examine

    declared()
    right = examine(lambda x, s, labels, power=2: x * s**power, "scale_forward", 0)
    wrong = examine(lambda x, s, labels, power=3: x * s**power, "scale_forward", 0)
    assert right.passed and not wrong.passed


def test_a_declaration_and_its_lesson_share_a_name():
    assert {entry.lesson for entry in load_registry().values()} >= {"linear", "activations", "losses"}
    assert np.all([entry.name == name for name, entry in load_registry().items()])
