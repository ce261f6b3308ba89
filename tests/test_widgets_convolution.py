"""The interactive figures of lesson 09: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.data.strokes import DIRECTIONS, strokes
from course.widgets import convolution
from tests.figures import other_value, seconds, spoiled, unwritten

FORWARD, BACKWARD, COLUMNS = (reference(name) for name in ("conv2d_forward", "conv2d_backward", "im2col"))
RNG = np.random.default_rng(0)
LEARNED = [RNG.normal(size=size) for size in ((3, 4, 1, 5, 5), (3, 4), (3, 4, 4), (4, 1, 12, 12))]


def test_a_tap_keeps_its_place_in_a_kernel_that_is_turned():
    w, at = convolution.kernel_of("identity", "a quarter", 3, -1.0)
    assert w[at] == -1 and at == (2, 1) and w[1, 1] == 1
    assert convolution.KERNELS["identity"].sum() == 1


@pytest.mark.parametrize(("layer", "shape"), [((1, 1), (1, 1, 3, 3)), ((2, 1), (2, 2, 3, 3)), ((2, 2), (2, 1, 3, 3))])
def test_channels_and_groups_give_a_layer_that_runs(layer, shape):
    x, w, b = convolution.layer_of(convolution.image("digit 3"), convolution.KERNELS["vertical edges"], *layer)
    assert w.shape == shape and x.shape == (1, layer[0], 8, 8)
    assert FORWARD(x, w, b, 1, 0, 1, layer[1]).shape == (1, layer[0], 6, 6)


@pytest.mark.parametrize("kernel", convolution.KERNELS)
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_what_has_no_output_is_said_and_nothing_else(kernel, dilation, padding):
    w = convolution.KERNELS[kernel]
    reason = convolution.why_not((8, 8), w.shape, padding, dilation)
    try:
        y = FORWARD(np.zeros((1, 1, 8, 8)), w[None, None], np.zeros(1), 1, padding, dilation)
    except RuntimeError:
        assert "does not fit" in reason
    else:
        assert not reason
        assert y.shape[2:] == tuple(convolution.sized(8, k, 1, padding, dilation) for k in w.shape)


def test_the_padding_that_is_said_to_be_enough_is_enough_and_no_more():
    reason = convolution.why_not((8, 8), (3, 3), 0, 5)
    assert "padding of 2 would" in reason and "5 · (3 − 1) + 1 = 11" in reason
    assert convolution.why_not((8, 8), (3, 3), 1, 5) and not convolution.why_not((8, 8), (3, 3), 2, 5)
    assert "groups" in convolution.why_not((8, 8), (3, 3), 0, 1, 3, 2)


def test_what_all_outputs_send_is_the_gradient():
    x, w, dy = RNG.normal(size=(6, 6)), RNG.normal(size=(3, 3)), RNG.normal(size=(3, 3))
    shares = convolution.sent(BACKWARD, dy, x, w, 2, 1)
    want, *_ = BACKWARD(dy[None, None], x[None, None], w[None, None], np.zeros(1), 2, 1)
    np.testing.assert_allclose(shares.sum((0, 1)), want[0, 0])
    assert (shares[1, 1] != 0).sum() == 9 and (shares[0, 0] != 0).sum() == 4


def test_the_matrix_does_what_the_layer_does():
    x, w = RNG.normal(size=(6, 6)), RNG.normal(size=(3, 2))
    y = FORWARD(x[None, None], w[None, None], np.zeros(1), 2, 1)
    np.testing.assert_allclose(convolution.as_matrix(FORWARD, w, 6, 2, 1) @ x.ravel(), y.ravel())


@pytest.mark.parametrize(
    ("background", "shift", "stride", "padding", "same"),
    [
        (0, 3, 1, 1, True),
        (0, 4, 2, 0, True),
        (0, 3, 2, 0, False),
        (3, 3, 1, 1, False),
        (0, 10, 1, 0, True),
        (0, 10, 1, 1, False),
    ],
)
def test_equivariance_and_its_limits(background, shift, stride, padding, same):
    first, moved = convolution.two_orders(
        FORWARD, convolution.KERNELS["vertical edges"], background, shift, stride, padding
    )
    known = ~np.isnan(moved)
    assert known.sum() > 20 and np.allclose(first[known], moved[known]) == same


def test_strokes_lie_in_their_half_and_in_their_direction():
    for half, other in (("left", np.s_[..., 6:]), ("right", np.s_[..., :6])):
        x, t = strokes(300, np.random.default_rng(1), half)
        assert x.shape == (300, 1, 12, 12) and set(t) == {0, 1, 2, 3}
        assert abs(x[other].mean()) < 0.01 and x.sum((1, 2, 3)).mean() == pytest.approx(4, abs=0.5)
    flat = strokes(300, np.random.default_rng(1))
    rows = flat[0][flat[1] == list(DIRECTIONS).index("—"), 0].sum(2)
    assert (rows.argmax(1) == (rows > 2).argmax(1)).all()


@pytest.mark.parametrize("question", [convolution.guess_shift(reference), convolution.guess_parameters(reference)])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def figures(change=None):
    """Every figure of the lesson; `change` spoils the learner's functions."""
    change = change or (lambda f: f)
    return {
        "explorer": convolution.explorer(change(FORWARD), FORWARD),
        "gradients": convolution.gradients(change(BACKWARD), BACKWARD),
        "matrix": convolution.matrix(change(FORWARD), FORWARD),
        "columns": convolution.columns(change(COLUMNS), COLUMNS),
        "shifting": convolution.shifting(change(FORWARD)),
        "learned": convolution.learned(change(FORWARD), [1, 2, 5], *LEARNED, list(DIRECTIONS)),
    }


def other_shape(function):
    def wrong(*args, **kwargs):
        result = function(*args, **kwargs)
        return tuple(part[..., :-1] for part in result) if isinstance(result, tuple) else result[..., :-1]

    return wrong


EVERY = figures()


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    start = {"shifting": {"shift": 2, "padding": 1}}.get(name, {})
    before = explorer.snapshot(**start)
    assert 'class="lbl-error"' not in before and "≠" not in before
    for key, control in explorer.controls.items():
        after = explorer.snapshot(**start | {key: other_value(control)})
        assert after != before, f"{name}: {key} changes nothing"


@pytest.mark.parametrize("name", EVERY)
def test_every_setting_is_drawn_or_refused_in_words(name):
    explorer = EVERY[name]
    for key in explorer.controls:
        for value in explorer.settings(key):
            html = explorer.snapshot(**{key: value})
            assert "while drawing this figure" not in html and ">nan<" not in html


def test_impossible_geometries_say_why_in_the_pictures_place():
    assert "does not fit: it spans 5 · (3 − 1) + 1 = 11 rows" in EVERY["explorer"].snapshot(dilation=5)
    assert "dealt out to 2 groups" in EVERY["explorer"].snapshot(layer=(3, 2))
    assert "does not fit" in EVERY["columns"].snapshot(kernel_size=(3, 3), dilation=3)


def test_the_explorer_tells_products_and_their_sum():
    html = EVERY["explorer"].snapshot(which="step", kernel="1 × 2")
    assert "y[0, 0, 3] = 0·(−1) + 9·1 = 9" in html
    assert "y[0, 0, 0] = 0·(−1) + 0·1 = 0" in html


@pytest.mark.parametrize("name", ["explorer", "gradients", "matrix", "columns"])
def test_wrong_answers_show_beside_the_reference(name):
    wrong = figures(spoiled)[name].snapshot()
    assert "differ" in wrong and (name == "matrix" or "≠" in wrong or "lbl-differs" in wrong)


@pytest.mark.parametrize("side", convolution.SIDES.values())
def test_a_wrong_dx_is_outlined_whichever_way_one_looks(side):
    wrong = figures(lambda f: lambda *given: (2 * f(*given)[0], *f(*given)[1:]))["gradients"].snapshot(side=side)
    assert "≠" in wrong if side == "input" else "lbl-differs" in wrong


@pytest.mark.parametrize("name", ["explorer", "columns"])
def test_another_shape_is_said(name):
    assert "This gave shape" in figures(other_shape)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    explorer = EVERY[name]
    slowest = {"explorer": dict(layer=(2, 1), padding=3, kernel="5 × 5")}.get(name, {})
    assert seconds(lambda: explorer.snapshot(**slowest)) < 0.1
