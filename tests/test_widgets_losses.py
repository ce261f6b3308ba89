"""The interactive figures of lesson 03: what they compute, and that every control moves the picture."""

import re
from functools import partial

import numpy as np
import pytest

from autograder import reference
from course import plots
from course.widgets import chart, losses
from tests.figures import each_control_changes, seconds, unwritten

PAIR = ("mse_forward", "mse_backward", "bce_with_logits_forward", "bce_with_logits_backward")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 200)
SCORES = RNG.normal(size=(200, 10)) * 2 + 3 * np.eye(10)[LABELS]


def test_two_losses_are_those_of_the_formulas():
    z, p = losses.LOGITS, losses.sigmoid(losses.LOGITS)
    both = losses.two_losses(*map(reference, PAIR), target=1)
    np.testing.assert_allclose(both["squared error"][0], (p - 1) ** 2)
    np.testing.assert_allclose(both["squared error"][1], 2 * (p - 1) * p * (1 - p))
    np.testing.assert_allclose(both["cross-entropy"][0], np.log1p(np.exp(-z)))
    np.testing.assert_allclose(both["cross-entropy"][1], p - 1)


def test_a_sum_for_a_mean_and_an_ignored_upstream_show():
    assert losses.entry_losses(lambda p, t: ((p - t) ** 2).sum(), [2.0], 0)[0] == 8
    assert losses.entry_gradients(lambda d, p, t: 2 * (p - t) / p.size, np.array([2.0]), 0)[0] == 4 / losses.UPSTREAM


def test_a_wrong_logit_takes_long_to_learn_with_the_mismatched_loss():
    matched = losses.steps_to_learn(reference("bce_with_logits_backward"), -8.0, 1)
    mismatched = losses.steps_to_learn(reference("mse_backward"), -8.0, 1, behind_sigmoid=True)
    assert matched == 9 and mismatched > 1000


def test_the_matched_loss_leaves_the_plateau_on_which_the_other_stays():
    start = (-6.0, 5.0, 20)
    squared = losses.descent(reference("mse_backward"), True, *start)
    cross = losses.descent(reference("bce_with_logits_backward"), False, *start)
    assert squared.shape == cross.shape == (21, 2)
    assert np.abs(cross[-1] - cross[0]).sum() > 3 * np.abs(squared[-1] - squared[0]).sum()


def test_a_surface_holds_the_loss_at_each_weight_and_bias():
    surface = losses.surface_of(reference("bce_with_logits_forward"), False, 3)
    z = -losses.REACH * losses.POINTS + losses.REACH  # top left: the least weight, the greatest bias
    assert surface[0, 0] == pytest.approx(np.mean(np.logaddexp(0, z) - losses.TRUTH * z))
    assert surface[1, 1] == pytest.approx(np.log(2))


def test_the_plain_formula_breaks_where_the_shifted_one_does_not():
    plain = losses.heights(losses.naive, "float64")
    shifted = losses.heights(reference("logsumexp"), "float64")
    assert not np.isfinite(plain[[0, -1]]).any()
    np.testing.assert_allclose(shifted, np.log(np.exp(losses.OFFSETS).sum()))
    assert np.isfinite(losses.heights(losses.naive, "float32")).sum() < np.isfinite(plain).sum()


def test_descending_brings_the_probabilities_to_the_targets():
    start = [(2.0, 1.0, -1.0), losses.SECOND]
    first = losses.descend(reference("cross_entropy_backward"), start, [1, 2], 1)
    np.testing.assert_allclose(first, np.array(start) - losses.softmax(np.array(start)) + np.eye(3)[[1, 2]])
    last = losses.descend(reference("cross_entropy_backward"), start, [1, 2], 60)
    assert losses.softmax(last)[[0, 1], [1, 2]].min() > 0.95


def test_errors_come_worst_first():
    every, order = losses.worst_first(reference("log_softmax_forward")(SCORES), LABELS)
    assert every.shape == (200,) and (SCORES.argmax(1)[order] != LABELS[order]).all()
    assert (np.diff(every[order]) <= 0).all()


def test_reliability_counts_every_example_once():
    confidence, accuracy, count, error = losses.reliability(SCORES, LABELS)
    assert count.sum() == 200
    assert np.nansum(accuracy * count) == pytest.approx((SCORES.argmax(1) == LABELS).sum())
    assert np.nansum(confidence * count) == pytest.approx(losses.softmax(SCORES).max(1).sum())
    assert losses.reliability(np.eye(10)[LABELS] * 1000, LABELS)[3] == pytest.approx(0, abs=1e-9)
    assert 0 < error < 1


def test_many_runs_are_one_line_with_gaps():
    x, runs = np.array([1.0, 2.0]), np.array([[1.0, 5.0], [3.0, 7.0]])
    np.testing.assert_equal(chart.spread(x, runs)[1], [2, 6, np.nan, 1, 3, np.nan, 5, 7, np.nan])
    np.testing.assert_equal(chart.several(x, runs)[0], [1, 2, np.nan, 1, 2, np.nan])


def test_the_still_pictures_draw_every_line():
    runs = RNG.random((5, 3))
    pictures = {
        losses.claims(): 3,
        losses.rounded(reference("log_softmax_forward")): 1,
        losses.padded(reference("bce_with_logits_forward")): 1,
        losses.learning_rates([0.1, 1, 10], {"small": {"cross-entropy": runs}, "large": {"cross-entropy": runs}}): 2,
        losses.histories({"logits": RNG.random((3, 4, 2)), "softmax twice": RNG.random((3, 4, 2))}, 1.46): 2,
    }
    for html, charts in pictures.items():
        assert html.count('role="img"') == charts and "nan" not in html


def test_ticks_of_a_logarithmic_axis_say_the_numbers():
    drawn = losses.picture.curve({"": ([0, 1], [-4, 0])}, "", y_range=(-4.5, 0.5), x_range=(0, 1))
    ticks = re.findall(r'text-anchor="end">([^<]*)<', chart.powers(drawn, "end"))
    assert {"0.0001", "0.01", "1"} <= set(ticks)
    assert '"middle">0.4<' in chart.powers(drawn, "end")


def test_a_curve_that_ends_is_crossed_out_and_the_rest_shaded():
    html = losses.rounded(reference("log_softmax_forward"))
    assert html.count("✕") == html.count("<rect") == 1
    both = losses.shift(reference("logsumexp"), reference("logsumexp")).snapshot()
    assert both.count("✕") == both.count("<rect") == 2


@pytest.mark.parametrize("log", [False, True])
def test_training_counts_epochs_and_singles_out_the_least_test_loss(log):
    charts = partial(losses.epoch_charts, epochs=100, log=log)
    with plots.Training(100, "train loss", "test loss", "test accuracy", charts=charts) as run:
        assert "epoch 0 of 100" in run.html()
        for epoch in range(1, 101):
            run.log(1 / epoch, 0.2 + abs(epoch - 30) / 100, 0.9)
    assert "epoch 100 of 100" in run.html() and ">step<" not in run.html()
    assert "least test loss 0.200, epoch 30" in run.html()
    assert len(run.html()) < 10_000


@pytest.mark.parametrize("question", [losses.guess_ratio(reference), losses.guess_first_loss()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_p_minus_y_starts_where_it_is_told():
    pair = reference("cross_entropy_forward"), reference("cross_entropy_backward")
    explorer = losses.p_minus_y(*pair, reference, start=(-4.0, 4.0, 0.0), target=0, steps=5)
    assert explorer.values == {"cat": -4, "dog": 4, "fox": 0, "steps": 5, "target": 0}


def figures(change=None):
    """Every figure of the lesson; `change` spoils the learner's functions."""
    change = change or (lambda f: f)
    mine = {
        name: change(reference(name))
        for name in (*PAIR, "logsumexp", "log_softmax_forward", "cross_entropy_forward", "cross_entropy_backward")
    }
    images = RNG.random((200, 8, 8))
    return {
        "mismatch": losses.mismatch(*(mine[name] for name in PAIR), reference),
        "surface": losses.surface(*(mine[name] for name in PAIR), reference),
        "shift": losses.shift(mine["logsumexp"], reference("logsumexp")),
        "p_minus_y": losses.p_minus_y(mine["cross_entropy_forward"], mine["cross_entropy_backward"], reference),
        "confident_errors": losses.confident_errors(
            images, LABELS, SCORES, mine["log_softmax_forward"], reference("log_softmax_forward")
        ),
        "calibration": losses.calibration(
            SCORES, LABELS, mine["cross_entropy_forward"], reference("cross_entropy_forward")
        ),
    }


@pytest.mark.parametrize("name", figures())
def test_every_control_changes_the_picture(name):
    explorer = figures()[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before
    each_control_changes(explorer, before)


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    wrong = figures(lambda f: lambda *a, **k: 1.5 * f(*a, **k))[name].snapshot()
    assert "reference" in wrong.replace("same as the reference", "") or 'class="lbl-differs"' in wrong


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(figures()[name].snapshot) < 0.06
