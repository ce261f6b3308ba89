from dataclasses import replace

import numpy as np
import pytest
import torch

from autograder import cases, exercise
from autograder.exercise import find, load_registry


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.want, b.want, strict=True))


@pytest.mark.parametrize("entry", load_registry().values(), ids=lambda entry: entry.name)
def test_the_same_seed_draws_the_same_question(entry):
    for one, two in zip(cases.questions(entry, 7), cases.questions(entry, 7), strict=True):
        assert same(one, two)


def test_another_seed_draws_another_question():
    entry = find("linear_backward")
    assert not same(cases.question(entry, 0, 1), cases.question(entry, 0, 2))
    assert not same(cases.question(entry, 0, 1), cases.question(find("linear_forward"), 0, 1))


def test_upstream_gradients_are_random():
    question = cases.question(find("softmax_backward"), 0, 0)
    assert np.ptp(question.inputs["dy"]) > 0.1


def test_shapes_follow_the_declaration():
    question = cases.question(find("linear_backward"), 0, 0)
    n, i, o = (question.sizes[letter] for letter in "nio")
    assert [question.inputs[name].shape for name in ("dy", "x", "w", "b")] == [(n, o), (n, i), (o, i), (o,)]
    assert [want.shape for want in question.want] == [(n, i), (o, i), (o,)]


@pytest.mark.parametrize("entry", load_registry().values(), ids=lambda entry: entry.name)
def test_layers_meet_a_case_that_tells_axes_apart_and_a_case_of_ones(entry):
    asked = [question.sizes for question in cases.questions(entry, 0)]
    arrays = [part.letters for part in (*entry.arguments, *entry.outputs)]

    def apart(sizes):
        """Whether no two axes of an array have the same size, but those that always have."""
        known = [{letter: sizes[letter] for letter in letters if letter in sizes} for letters in arrays]
        return all(len(set(array.values())) == len(array) for array in known)

    if entry.kind in ("function", "gradient") and len(asked[0]) > 1:
        assert any(map(apart, asked)), "no case has all sizes of an array different"
        assert any(1 in sizes.values() for sizes in asked), "no case has a size of 1"


def test_a_parameter_of_a_module_is_never_at_its_default():
    state = cases.question(find("Linear"), 0, 0).inputs["state"]
    assert np.abs(state["bias"]).min() > 0


def test_the_reference_takes_and_gives_numpy():
    forward = cases.Reference(find("linear_forward"))
    backward = cases.Reference(find("linear_backward"))
    x, w, b = np.ones((2, 3)), np.ones((4, 3)), np.zeros(4)
    np.testing.assert_array_equal(forward(x, w, b), np.full((2, 4), 3.0))
    dx, dw, db = backward(np.ones((2, 4)), x, w, b)
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, b.shape)


def test_a_default_that_a_case_omits_keeps_its_place_before_one_that_it_gives():
    entry = find("batchnorm_running")
    assert [argument.default for argument in entry.arguments][-1] == 0.1
    later = exercise.Argument("scale", None, 1.0)
    longer = replace(entry, arguments=(*entry.arguments, later))
    drawn = cases._draw(longer, {**entry.cases[0], "scale": 2.0}, np.random.default_rng(0))
    assert list(drawn)[-2:] == ["momentum", "scale"] and drawn["momentum"] == 0.1
    assert "scale" not in cases._draw(longer, entry.cases[0], np.random.default_rng(0))


def test_the_reference_gives_gradients_where_torch_records_none():
    dy, x, w, b = np.ones((2, 4)), np.ones((2, 3)), np.ones((4, 3)), np.zeros(4)
    with torch.no_grad():
        dx, _, _ = cases.Reference(find("linear_backward"))(dy, x, w, b)
    np.testing.assert_array_equal(dx, np.full((2, 3), 4.0))


def test_a_drawn_argument_is_not_told_by_its_default():
    drawn = [q for q in cases.questions(find("transformer_block_forward"), seed=0) if callable(q.case.get("mask"))]
    assert drawn and all("mask" not in question.described(graded=False) for question in drawn)


def test_what_forward_has_a_default_for_may_be_left_out():
    *masked, last = cases.questions(find("TransformerBlock"), seed=0)
    assert all("mask" in question.inputs["inputs"] for question in masked)
    assert list(last.inputs["inputs"]) == ["x"]
