"""The interactive figures of lesson 05: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.widgets import initialisation as lesson
from tests.figures import other_value, seconds

RNG = np.random.default_rng(0)


def weights(depth, width, gain):
    return [RNG.normal(0, gain / np.sqrt(width), (width, width)) for _ in range(depth)]


@pytest.mark.parametrize("activation", lesson.ACTIVATIONS)
def test_gradients_are_those_of_finite_differences(activation):
    layers, x, dy = weights(3, 4, 1.3), RNG.normal(size=(2, 4)), RNG.normal(size=(2, 4))
    _, dhs = lesson.propagate(layers, activation, x, dy)

    def loss(x):
        return (lesson.propagate(layers, activation, x, dy)[0][-1] * dy).sum()

    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        assert (loss(x + step) - loss(x - step)) / 2e-6 == pytest.approx(dhs[0][index], rel=1e-4, abs=1e-8)


def test_moments_are_those_of_the_derivation():
    assert lesson.moments("linear", 3.0) == pytest.approx((3.0, 1.0))
    assert lesson.moments("relu", 3.0) == pytest.approx((1.5, 0.5))
    q = 1e-3
    assert lesson.moments("tanh", q)[0] == pytest.approx(q - 2 * q**2, rel=1e-4)
    drawn = np.tanh(1.5 * RNG.normal(size=10**6))
    assert lesson.moments("tanh", 1.5**2) == pytest.approx((np.mean(drawn**2), np.mean((1 - drawn**2) ** 2)), rel=0.01)


def test_he_and_xavier_are_level_and_others_are_powers():
    for activation, gain in (("relu", 2**0.5), ("linear", 1.0)):
        np.testing.assert_allclose(lesson.predicted(activation, gain, 20), 1.0)
    signal, gradient = lesson.predicted("relu", 1.0, 30)
    assert signal[-1] == pytest.approx(2.0**-30) and gradient[0] == pytest.approx(2.0**-30)
    assert signal[0] == gradient[-1] == 1


@pytest.mark.parametrize(("activation", "gain"), [("linear", 0.9), ("relu", 1.2), ("tanh", 1.7), ("sigmoid", 2.0)])
def test_a_wide_network_does_what_is_predicted(activation, gain):
    x, dy = RNG.normal(size=(2, 50, 300))
    found = [lesson.mean_squares(a) for a in lesson.propagate(weights(6, 300, gain), activation, x, dy)]
    np.testing.assert_allclose(found, lesson.predicted(activation, gain, 6), rtol=0.3)


def test_a_histogram_counts_every_number_that_is_not_left_out():
    h = np.array([[0.0, 1.0, -10.0, 1e-20]])
    assert np.nansum(lesson.histograms([h], powers=False)) == 1
    assert np.nansum(lesson.histograms([h], powers=True)) == 0.75
    assert np.isnan(lesson.histograms([h], powers=True)[:, 1:]).all()


def test_rotations_keep_lengths():
    for w in lesson.rotations(16, 1)[:3]:
        np.testing.assert_allclose(w @ w.T, np.eye(16), atol=1e-5)


def test_units_are_told_apart():
    assert lesson.distinct(np.zeros((5, 3))) == 1
    assert lesson.distinct(np.array([[1.0, 2], [1, 2], [2, 1]])) == 2


def test_small_and_large_numbers_are_written_short():
    assert [lesson.power(v) for v in (0, 1, 0.5, 3e-5, 2e7, np.inf)] == ["0", "1", "0.50", "3e−5", "2e7", "∞"]


def test_a_turned_vector_says_by_how_much():
    assert lesson.turn((1, 1), (8, 1)) == "turned by 38°"
    assert lesson.turn((1, 1), (5, 5)) == lesson.turn((0, 0), (0, 0)) == "same direction"


def test_the_still_pictures_draw_both_charts():
    signals = lesson.propagate(weights(3, 4, 1.0), "relu", *RNG.normal(size=(2, 5, 4)))
    diverged = [[(2.3, 0.1), (np.nan, 0.1)], [(2.0, 0.2), (1.0, 0.5)]]
    for html in (
        lesson.levels({"one": signals, "two": signals, "three": signals}),
        lesson.courses({"one": diverged, "two": diverged}),
    ):
        assert html.count('role="img"') == 2 and "nan" not in html


def test_the_guess_is_answered_and_revealed():
    question = lesson.guess_depth(reference)
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def figures(change=None):
    """Every figure of the lesson; `change` spoils the learner's functions."""
    change = change or (lambda f: f)
    names = "xavier_uniform", "he_normal", "clip_grad_norm"
    mine = {name: change(reference(name)) for name in names}
    histories = {name: [(RNG.normal(size=(16, 64)), 0.1 * k) for k in range(4)] for name in ("zeros", "He")}
    return {
        "flow": lesson.flow(mine["xavier_uniform"], mine["he_normal"], reference, start="He"),
        "gain": lesson.flow(mine["xavier_uniform"], mine["he_normal"], reference),
        "clipping": lesson.clipping(mine["clip_grad_norm"], reference),
        "symmetry": lesson.symmetry(histories, "He"),
    }


LEARNERS = ("flow", "clipping")  # the figures that draw a function of the learner's from the start


@pytest.mark.parametrize("name", figures())
def test_every_control_changes_the_picture(name):
    explorer = figures()[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and "other weights" not in before
    for key, control in explorer.controls.items():
        if (name, key) == ("flow", "gain"):
            continue  # He's weights bring their own
        after = explorer.snapshot(**{key: other_value(control)})
        assert 'class="lbl-error"' not in after
        assert after != before, f"{name}: {key} changes nothing"


def scaled(value):
    if isinstance(value, tuple):
        return scaled(value[0]), value[1]
    return [scaled(item) for item in value] if isinstance(value, list) else 1.5 * value


@pytest.mark.parametrize("name", LEARNERS)
def test_wrong_answers_are_told(name):
    wrong = figures(lambda f: lambda *a: scaled(f(*a)))[name].snapshot()
    assert "reference" in wrong


@pytest.mark.parametrize("name", LEARNERS)
def test_an_unwritten_function_is_said_and_not_raised(name):
    def unwritten(f):
        def stub(*args):
            raise NotImplementedError

        return stub

    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(figures()[name].snapshot) < 0.06
