"""The interactive figures of lesson 04: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.widgets import backprop
from tests.alternatives.backprop import Taped, order_by_counting
from tests.figures import seconds

Tensor, topological_order = reference("Tensor"), reference("topological_order")
RNG = np.random.default_rng(0)


class Overwrites(Taped):
    """Right on trees; what is used twice keeps the last gradient only."""

    def backward(self):
        self.grad = np.ones(())
        for node in order_by_counting(self)[::-1]:
            for parent, gradient in zip(node.parents, node.back(node.grad) if node.back else (), strict=True):
                parent.grad = gradient


@pytest.mark.parametrize("name", backprop.PROGRAMS)
def test_a_sweep_ends_with_the_derivatives(name):
    program, h = backprop.PROGRAMS[name], 1e-6
    first = next(iter(program["leaves"].values()))
    pairs = backprop.slopes(program, backprop.run(program, first))
    lines = backprop.sweep(pairs, backprop.parents_first(pairs))
    assert lines.shape == (9, 8) and np.isnan(lines[0, :-1]).all() and not np.isnan(lines[-1]).any()
    nudged = backprop.run(program, first + h)[-1] - backprop.run(program, first - h)[-1]
    assert lines[-1, 0] == pytest.approx(nudged / (2 * h))


def test_the_example_of_the_text():
    program = backprop.PROGRAMS["used twice"]
    values = backprop.run(program, 2.0)
    np.testing.assert_array_equal(values, [2, 3, -4, 6, 2, 12, 12, 14])
    lines = backprop.sweep(backprop.slopes(program, values), range(8))
    np.testing.assert_array_equal(lines[-1], [25, 16, 6, 8, 6, 1, 1, 1])
    assert lines[3, 3] == 2  # what had arrived at s before t was served
    assert backprop.guess_gradient().verdict("25") == "Yes: 25."


@pytest.mark.parametrize("tape", [Tensor, Taped])
def test_a_right_tape_is_drawn_without_complaint(tape):
    explorer = backprop.tape(tape, topological_order)
    for name in backprop.PROGRAMS:
        assert 'class="lbl-error"' not in explorer.snapshot(name=name, step=8)


def test_a_tape_that_overwrites_is_told_so():
    explorer = backprop.tape(Overwrites, topological_order)
    assert 'class="lbl-error"' not in explorer.snapshot(name="a tree")
    assert "a 18, right is 25" in explorer.snapshot(name="used twice")


def test_nodes_are_served_in_the_learners_order():
    other = backprop.tape(Tensor, order_by_counting).snapshot(name="a tree", step=1)
    assert other != backprop.tape().snapshot(name="a tree", step=1)
    early = backprop.tape(Tensor, lambda node: topological_order(node)[::-1]).snapshot(name="a tree", step=1)
    assert 'class="lbl-error"' not in early and "x is a leaf" not in early


def test_what_is_held_rises_to_the_sum_of_the_inputs_and_falls_to_nothing():
    held = backprop.held(2, [4, 3, 2])
    np.testing.assert_array_equal(held, [0, 8, 14, 14, 8, 0])
    assert held.max() == reference("saved_activations")(2, [4, 3, 2])


def test_checkpoints_need_least_near_the_root_of_the_depth():
    most = [backprop.held(1, [100] * 33, every).max() for every in range(1, 17)]
    assert most[0] == 3200 and np.argmin(most) + 1 in (5, 6)


def network():
    linear, relu = reference("LinearLayer"), reference("ReLULayer")
    return [
        linear(RNG.normal(size=(16, 64)), RNG.normal(size=16)),
        relu(),
        linear(RNG.normal(size=(10, 16)), RNG.normal(size=10)),
    ]


def test_a_pass_through_layers_gives_every_array_and_its_gradient():
    backward = reference("cross_entropy_backward")
    x = RNG.random(64)
    arrays, grads = backprop.pass_through(network(), x, 3, backward)
    assert [a.shape for a in arrays] == [g.shape for g in grads] == [(64,), (16,), (16,), (10,)]
    np.testing.assert_allclose(grads[-1].sum(), 0, atol=1e-12)
    np.testing.assert_array_equal(grads[1][arrays[1] <= 0], 0)
    np.testing.assert_array_equal(arrays[0], x)


def figures():
    return {
        "tape": backprop.tape(),
        "taped": backprop.tape(Tensor, topological_order),
        "memory": backprop.memory(lambda n, widths: n * sum(widths[:-1])),
        "inside": backprop.inside(
            network(),
            ["x", "z1", "h1", "logits"],
            RNG.random((5, 64)),
            np.arange(5),
            reference("cross_entropy_backward"),
        ),
    }


@pytest.mark.parametrize("name", figures())
def test_every_control_moves_the_picture(name):
    explorer = figures()[name]
    for control in explorer.controls:
        pictures = {explorer.snapshot(**{control: value}) for value in explorer.settings(control, 5)}
        assert len(pictures) > 1, control
        assert not any('class="lbl-error"' in html or ">nan<" in html for html in pictures)


@pytest.mark.parametrize("name", figures())
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(figures()[name].snapshot) < 0.06


def test_a_wrong_formula_is_told_so():
    assert 'class="lbl-error"' in backprop.memory(lambda n, widths: n * sum(widths)).snapshot()


@pytest.mark.parametrize("question", [backprop.guess_gradient(), backprop.guess_paths()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_the_still_pictures_draw_every_line():
    assert backprop.passes().count("<rect") == 8
    assert backprop.same_steps([2.0, 1.0], [2.0, 1.0]).count("<circle") >= 2
