"""The interactive figures of lesson 12: what they compute, and that every control moves the picture."""

from math import comb

import numpy as np
import pytest

from autograder import reference
from course.widgets import residual
from tests.figures import each_control_changes, seconds, spoiled, unwritten

FORWARDS = [reference(name) for name in ("residual_forward", "preactivation_forward")]
BACKWARDS = [reference(name) for name in ("residual_backward", "preactivation_backward")]
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 60)


def answer(trust):
    """A made-up network that loses `trust` of its certainty with each removed block."""
    right, noise = np.eye(10)[LABELS], RNG.normal(size=(60, 10))
    return lambda removed: right + trust * len(removed) * noise


CURVES = {
    name: {depth: 2 + 0.1 * RNG.normal(size=(100, 3, 2)).cumsum(0) for depth in (4, 40)} for name in residual.NETWORKS
}
CURVES["residual"][40][20:] = np.nan


@pytest.mark.parametrize("wiring", residual.WIRINGS)
def test_signals_go_back_as_finite_differences_say(wiring):
    x, dy = (end[:2].astype(float) for end in residual.ends())
    direction = RNG.normal(size=x.shape)
    ends = [residual.signals(wiring, 4, 1.0, 0.7, 1, x + h * direction, dy)[0][-1] for h in (1e-6, -1e-6)]
    slope = (dy * (ends[0] - ends[1])).sum() / 2e-6
    _, dhs = residual.signals(wiring, 4, 1.0, 0.7, 1, x, dy)
    assert slope == pytest.approx((dhs[0] * direction).sum(), rel=1e-4)


def test_a_chain_of_empty_branches_hands_on_what_it_got():
    hs, dhs = residual.signals("pre-activation", 10, 1.0, 0.0)
    np.testing.assert_array_equal(hs[-1], hs[0])
    np.testing.assert_array_equal(dhs[0], dhs[-1])


def test_full_branches_double_the_mean_square_at_every_block():
    sizes = [residual.root_mean_squares(residual.signals("pre-activation", 10, number=k)[0])[-1] for k in range(6)]
    assert 16 < np.median(sizes) < 64


def test_the_parts_by_path_length_make_up_the_gradient():
    parts = residual.by_length(8, 0.7, 2)
    _, dhs = residual.signals("pre-activation", 8, 1.0, 0.7, 2)
    np.testing.assert_allclose(parts.sum(0), dhs[0], atol=1e-4)
    np.testing.assert_array_equal(parts[0], residual.ends()[1])


def test_shares_by_path_length_sum_to_one_and_count_the_paths():
    counts, squares, expected = residual.path_shares(12, 0.5)
    for shares in (counts, squares, expected):
        assert shares.sum() == pytest.approx(1)
    assert counts[3] == pytest.approx(comb(12, 3) / 2**12)
    assert squares @ np.arange(13) == pytest.approx(expected @ np.arange(13), abs=1.0)


def test_likeness_knows_a_smooth_curve_from_noise():
    turn = np.linspace(0, 2 * np.pi, residual.POINTS, endpoint=False)
    assert residual.alike(np.sin(turn)) > 0.99
    assert abs(residual.alike(RNG.normal(size=residual.POINTS))) < 0.3


def test_the_slope_along_the_circle_is_that_of_the_output():
    angles, x, direction = residual.circle()
    assert np.abs((x * direction).sum(1)).max() < 1e-3
    np.testing.assert_allclose((x[1] - x[-1]) / (angles[2] - angles[0]), direction[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("question", [residual.guess_zero(reference), residual.guess_growth()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_every_kind_of_block_is_drawn():
    html = residual.diagrams(*residual.BLOCKS)
    assert html.count('role="img"') == len(residual.BLOCKS)
    assert html.count('stroke-width="3"') == 5  # all but the plain one have a skip, the projection's in two pieces


def test_what_a_source_cannot_give_is_left_blank():
    table = np.where(np.tri(6, dtype=bool), 0.5, np.nan)
    html = residual.sources(table, table, 100 * table)
    assert "nan" not in html and html.count(">50<") == 21 and html.count("<td></td>") == 45


def figures(change=None):
    """The figures that show the learner's functions; `change` spoils these."""
    change = change or (lambda f: f)
    return {
        "one block": residual.one_block(
            *([change(f) for f in pair] for pair in (FORWARDS, BACKWARDS)), FORWARDS, BACKWARDS
        )
    }


EVERY = figures() | {
    "flow": residual.flow(),
    "shattered": residual.shattered(),
    "paths": residual.paths(),
    "training": residual.training(CURVES, [0.01, 0.1]),
    "lesion": residual.lesion({"plain": answer(2.0), "residual": answer(0.3)}, LABELS, 8),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before and "nan" not in before
    each_control_changes(explorer, before)


@pytest.mark.parametrize("values", [dict(depth=40, norm=False, rate=-1), dict(depth=40, norm=False, rate=1)])
def test_a_run_that_diverged_is_said(values):
    assert "residual diverged" in EVERY["training"].snapshot(**values)


@pytest.mark.parametrize("wiring", residual.WIRINGS)
@pytest.mark.parametrize("blocks", [1, residual.MOST])
def test_chains_of_all_lengths_are_drawn(wiring, blocks):
    for scale in (0.0, 1.0):
        html = EVERY["flow"].snapshot(wiring=wiring, blocks=blocks, scale=scale, gain=1.5)
        assert 'class="lbl-error"' not in html and "nan" not in html


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    assert 'class="lbl-differs"' in figures(spoiled)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    largest = {"blocks": 30} if name == "paths" else {"blocks": residual.MOST} if name in ("flow", "shattered") else {}
    assert seconds(lambda: EVERY[name].snapshot(**largest)) < 0.06
