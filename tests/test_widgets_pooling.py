"""The interactive figures of lesson 10: what they compute, and that every control moves the picture."""

from itertools import product

import numpy as np
import pytest

from autograder import reference
from course.widgets import pooling
from tests.figures import other_value, seconds, unwritten

FORWARD = [reference(name) for name in ("max_pool2d_forward", "avg_pool2d_forward")]
BACKWARD = [reference(name) for name in ("max_pool2d_backward", "avg_pool2d_backward")]
ADAPTIVE, FIELD = reference("adaptive_avg_pool2d_forward"), reference("receptive_field")
IMAGES = np.random.default_rng(0).random((8, 1, 16, 16))
LAYERS = {
    "nothing": (lambda f: f, 1),
    "max": (lambda f: FORWARD[0](f, 2), 2),
    "average": (lambda f: FORWARD[1](f, 2), 2),
}


def measured(layers, pool):
    """The gradient of the first output of windows that all count alike."""
    values = np.zeros((128, 128))
    pixels = pooling.sources(layers)[-1]
    values[np.ix_(pixels, pixels)] = 1 if pool == "average" else np.arange(len(pixels)) % 2 + 0.5
    return values


def test_a_window_reaches_into_the_padding():
    assert pooling.cells(0, 0, 2, None, 1) == [(-1, -1), (-1, 0), (0, -1), (0, 0)]
    assert pooling.cells(1, 2, (1, 2), (2, 3), 0) == [(2, 6), (2, 7)]


def test_a_geometry_that_pytorch_refuses_says_why():
    assert "more than half" in pooling.impossible(3, 2)
    assert not pooling.impossible(2, 1)
    html = figures()["pools"].snapshot(kernel_size=3, padding=2)
    assert "PyTorch refuses it" in html


@pytest.mark.parametrize("numbers", pooling.NUMBERS)
def test_who_wins_gets_what_pytorch_gives(numbers):
    x = pooling.image(numbers)
    for kernel_size, stride, padding in [(2, None, 0), (3, 1, 1), ((2, 3), 2, 0)]:
        y = FORWARD[0](x[None, None], kernel_size, stride, padding)[0, 0]
        dy = pooling.upstream(y.shape)
        first, _ = pooling.winners(x, *y.shape, kernel_size, stride, padding)
        dx = np.zeros(x.shape)
        for spot, windows in first.items():
            dx[spot] = sum(dy[index] for index in windows)
        np.testing.assert_allclose(BACKWARD[0](dy[None, None], x[None, None], kernel_size, stride, padding)[0, 0], dx)


def test_ties_are_found():
    _, tied = pooling.winners(np.zeros((2, 2)), 1, 1, 2, None, 0)
    assert set(tied) == {(0, 1), (1, 0), (1, 1)}


def test_a_moved_output_is_found_again():
    y = IMAGES[:1]
    assert pooling.distance(pooling.moved(y, 3), pooling.best_match(pooling.moved(y, 3), y, 2)) == 0
    assert pooling.distance(y, y) == 0 and pooling.distance(np.ones(2), np.zeros(2)) == 0


@pytest.mark.parametrize(("stack", "depth"), list(product(pooling.STACKS, (1, 3))))
def test_the_tree_of_units_spans_the_receptive_field(stack, depth):
    layers = pooling.STACKS[stack](3, depth)
    size, _ = FIELD(layers)
    assert pooling.sources(layers)[-1][-1] + 1 == size


def test_what_is_measured_is_said():
    said = figures()["field"].alt
    assert "not 0 at 100% of these pixels and at none beyond" in said("convolution, average pool, …", 3, 4)


@pytest.mark.parametrize("question", [pooling.guess_field(reference), pooling.guess_ties(reference)])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_the_overview_shows_one_image_and_four_pools():
    assert pooling.overview(*FORWARD, ADAPTIVE).count("<table") == 5


def figures(change=None):
    """Every figure of the lesson that shows a function of the learner's; `change` spoils these."""
    change = change or (lambda f: f)
    return {
        "pools": pooling.pools([change(f) for f in FORWARD], FORWARD),
        "gradients": pooling.gradients([change(f) for f in BACKWARD], BACKWARD),
        "adaptive": pooling.adaptive(change(ADAPTIVE), ADAPTIVE),
        "field": pooling.field(change(FIELD), FIELD, measured),
    }


def spoiled(function):
    def wrong(*args, **kwargs):
        result = function(*args, **kwargs)
        return (result[0] + 2, result[1]) if isinstance(result, tuple) else result + 1

    return wrong


EVERY = figures() | {"shifts": pooling.shifts(IMAGES, lambda x: x, LAYERS)}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and "cells differ" not in before
    for key, control in explorer.controls.items():
        after = explorer.snapshot(**{key: other_value(control)})
        assert after != before, f"{name}: {key} changes nothing"
        assert "Traceback" not in after


@pytest.mark.parametrize("name", EVERY)
def test_every_setting_is_drawn(name):
    explorer = EVERY[name]
    for key in explorer.controls:
        for value in explorer.settings(key, 4):
            html = explorer.snapshot(**{key: value})
            assert "while drawing this figure" not in html and "nan" not in html


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    wrong = figures(spoiled)[name].snapshot()
    assert "cells differ" in wrong or "(reference " in wrong


def test_a_wrong_shape_is_said():
    shrunk = [lambda x, *geometry, f=f: f(x, *geometry)[:, :, 1:] for f in FORWARD]
    assert "the reference has shape" in pooling.pools(shrunk, FORWARD).snapshot()


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    explorer = EVERY[name]
    assert seconds(explorer.snapshot) < 0.06
