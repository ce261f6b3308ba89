"""The figures of lesson 07: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.widgets import picture
from course.widgets import regularisation as regular
from tests.figures import each_control_changes, seconds, unwritten

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 200)
IMAGES = RNG.random((24, 8, 8))
HISTORY = {
    "validation": [1.0, 0.8, 0.6, 0.7, 0.65, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "test": [1.0, 0.8, 0.7, 0.7, 0.6, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "train": [1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1],
    "accuracy": [0.5, 0.6, 0.7, 0.7, 0.8, 0.7, 0.7, 0.7, 0.6, 0.6, 0.6, 0.6],
}


def test_without_masks_the_toy_network_is_itself():
    x, weights = regular.toy()
    layers = regular.answers(x, weights, [np.ones((2, width)) for width in (6, 6)], lambda h, mask: h * mask)
    h = np.maximum(np.maximum(x @ weights[0].T, 0) @ weights[1].T, 0)
    np.testing.assert_allclose(layers[-1], np.tile(h @ weights[2].T, (2, 1)))


def test_unscaled_dropout_in_two_layers_halves_the_mean_twice():
    x, weights = regular.toy()
    masks = regular.drawn(reference("dropout_mask"), 0.5)
    whole = regular.answers(x, weights, [np.ones((1, 6))] * 2, lambda h, mask: h)[-1].mean()
    thin = regular.answers(x, weights, masks, lambda h, mask: h * mask)[-1].mean()
    inverted = regular.answers(x, weights, masks, lambda h, mask: h * mask * 2)[-1].mean()
    assert whole / thin == pytest.approx(4, rel=0.15)
    assert whole / inverted == pytest.approx(1, rel=0.15)


def test_a_dropped_unit_is_crossed_out_and_has_no_edges():
    whole = regular.network([np.ones(6), np.ones(6)])
    one_less = regular.network([np.array([1, 1, 1, 1, 1, 0]), np.ones(6)])
    assert whole.count("m0 -14") == 0 and one_less.count("m0 -14") == 1
    assert whole.count("L") - one_less.count("L") == 3 + 6


def test_ridge_is_where_the_gradients_of_loss_and_penalty_balance():
    for decay in (1e-3, 0.1, 10.0):
        w, b = regular.ridge(30, 9, decay)
        x, t = regular.scattered(30)
        phi = regular.features(x, 9)
        error = phi @ w + b - t
        pull = reference("l2_penalty_backward")(1.0, [w], decay)[0]
        np.testing.assert_allclose(2 / 30 * phi.T @ error + pull, 0, atol=1e-10)
        assert error.mean() == pytest.approx(0, abs=1e-12)


def test_as_many_weights_as_points_pass_through_all_of_them():
    seen, new = regular.errors(16, 15)[0]
    assert seen < 1e-12 and new > 100
    assert regular.errors(200, 15)[0, 1] < regular.errors(16, 15)[:, 1].min()


def test_weight_decay_shrinks_the_network_in_the_plane():
    pull = reference("l2_penalty_backward")
    free, held = (regular.plane_network(30, decay, pull, steps=100) for decay in (0.0, 0.1))
    assert np.linalg.norm(held[0]) < 0.5 * np.linalg.norm(free[0])


def test_the_smoothed_loss_is_least_where_p_is_the_target():
    losses = regular.smoothed_losses(reference("label_smoothing"), 10, 0.1)
    gap = regular.best_gap(10, 0.1)
    assert gap == pytest.approx(np.log(0.91 / 0.01))
    assert regular.GAPS[losses.argmin()] == pytest.approx(gap, abs=0.06)
    assert losses.min() == pytest.approx(0.500, abs=1e-3)
    assert regular.best_gap(10, 0) == np.inf


def test_stopping_says_when_and_what_is_restored():
    stop = reference("EarlyStopping")
    assert regular.stopped(stop, HISTORY["validation"], 2, 0.0) == (5, 3)
    assert regular.stopped(stop, HISTORY["validation"], 100, 0.0) == (12, 3)
    assert regular.stopped(stop, HISTORY["validation"], 3, 0.5) == (4, 1)


def test_the_still_pictures_draw_every_run():
    runs = RNG.random((3, 5, 2))
    gains = {"labels right": {"dropout": [1.0, 2.0], "weight decay": [0.0, -1.0]}}
    pictures = {
        regular.family(reference("dropout_mask")): 4,
        regular.remedies(gains): 1,
        regular.doses({"p": ([0, 0.5], RNG.random((2, 3)), RNG.random((2, 3)))}): 1,
        regular.learning({"right": runs, "some wrong": runs, "random": runs}): 2,
        regular.descent([10, 100, 1000], {"without": RNG.random((2, 3)), "with": RNG.random((2, 3))}): 1,
    }
    for html, charts in pictures.items():
        assert html.count('role="img"') == charts and "nan" not in html
    assert regular.remedies(gains).count("<circle") == 4


@pytest.mark.parametrize("question", [regular.guess_unscaled(), regular.guess_remedy()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert question.reveal()


def figures(change=None):
    """Every figure of the lesson; `change` spoils the learner's functions."""
    change = change or (lambda f: f)
    names = (
        "dropout_mask", "dropout_forward", "l2_penalty_forward", "l2_penalty_backward", "label_smoothing",
        "random_shift", "EarlyStopping",
    )  # fmt: skip
    mine = {name: change(reference(name)) for name in names}
    scores = {name: RNG.normal(size=(200, 10)) + 3 * np.eye(10)[LABELS] for name in ("plain", "smoothed")}
    return {
        "thinned": regular.thinned(mine["dropout_mask"], mine["dropout_forward"], reference),
        "fits": regular.fits(mine["l2_penalty_forward"], mine["l2_penalty_backward"], reference),
        "boundary": regular.boundary(mine["l2_penalty_backward"], reference),
        "smoothing": regular.smoothing(mine["label_smoothing"], reference),
        "shifts": regular.shifts(mine["random_shift"], reference, IMAGES),
        "stopping": regular.stopping(mine["EarlyStopping"], reference, HISTORY),
        "filters": regular.filters({"plain": RNG.normal(size=(64, 64)), "dropout": RNG.normal(size=(64, 64))}),
        "calibration": regular.calibration(scores, LABELS),
    }


OF_THE_LEARNER = ("thinned", "fits", "boundary", "smoothing", "shifts", "stopping")
# Where the penalty is not 0, and the run long enough to be stopped.
STARTS = {"fits": dict(power=0.0), "boundary": dict(decay=0.01), "stopping": dict(patience=3)}


@pytest.mark.parametrize("name", figures())
def test_every_control_changes_the_picture(name):
    explorer = figures()[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before
    each_control_changes(explorer, before)


def spoilt(answer):
    """One and a half times the right numbers; a class that stops a step too late."""
    if isinstance(answer, type):
        return lambda patience, min_delta: answer(patience + 1, min_delta)

    def wrong(*args, **kwargs):
        result = answer(*args, **kwargs)
        return [1.5 * part for part in result] if isinstance(result, (list, tuple)) else 1.5 * result

    return wrong


@pytest.mark.parametrize("name", OF_THE_LEARNER)
def test_wrong_answers_show_beside_the_reference(name):
    wrong = figures(spoilt)[name].snapshot(**STARTS.get(name, {}))
    assert 'class="lbl-error"' not in wrong
    assert "reference" in wrong.replace("same as the reference", "") or 'class="lbl-differs"' in wrong


@pytest.mark.parametrize("name", OF_THE_LEARNER)
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(figures()[name].snapshot) < 0.06


def test_strip_marks_every_run_and_its_mean():
    html = regular.strip({"dropout": [1.0, 3.0]}, "gain", (-5, 5))
    assert html.count("<circle") == 2 and "gain: dropout 2" in html


def test_weights_are_drawn_largest_first():
    w = np.zeros((64, 64))
    w[40] = 1.0
    explorer = regular.filters({"one": w, "two": w})
    sheet = explorer.snapshot(page=1)
    assert picture.img(picture.mosaic(np.zeros((32, 8, 8)), 16), "", "signed", -1, 1, width=680) not in sheet
    assert "Mean norm 0.12" in sheet and "63 units below 0.1" in sheet
