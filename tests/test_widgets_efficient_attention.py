"""The interactive figures of lesson 20: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.widgets import efficient_attention as efficient
from tests.figures import each_control_changes, seconds, spoiled, unwritten

NAMES = ("local_attention", "multiscale_attention", "linear_attention", "online_softmax_attention")
WANTS = [reference(name) for name in NAMES]
LENGTHS = [128, 256, 512, 1024]


def law(power, factor=1e-6):
    return [factor * t**power for t in LENGTHS]


MEASURED = {"exact": (LENGTHS, law(2), law(2, 8.0)), "local": (LENGTHS, law(1), law(1, 900.0))}


def look(sharp):
    return lambda symbols: efficient.exact(np.eye(len(symbols)), np.eye(len(symbols)), sharp)


# --- who sees whom ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "stride"), [(11, 3), (12, 4), (7, 1), (5, 9)])
def test_the_strided_pattern_is_that_of_the_exercise(t, stride):
    np.testing.assert_array_equal(efficient.seen("strided", t, stride) == 1, reference("strided_mask")(t, stride))


@pytest.mark.parametrize(("t", "window"), [(10, 2), (7, 0), (9, 5)])
def test_local_scores_are_those_that_the_exercise_counts(t, window):
    assert efficient.scores_of("local", t, window) == reference("count_local_pairs")(t, window)


@pytest.mark.parametrize(("t", "block"), [(12, 2), (12, 3), (6, 6), (6, 3), (32, 5)])
def test_an_average_counts_as_one_score(t, block):
    blocks, count = -(-t // block), 0
    for i in range(t):
        near = [b for b in range(blocks) if abs(b - i // block) <= 1]
        count += sum(j // block in near for j in range(t)) + blocks - len(near)
    assert efficient.scores_of("two scales", t, block) == count


def test_strides_reach_the_past_in_two_layers_and_a_window_its_width_in_each():
    for stride in range(1, 9):
        far = efficient.reached(efficient.seen("strided", 32, stride), 2)
        np.testing.assert_array_equal(far, np.tri(32, dtype=bool))
    assert np.flatnonzero(efficient.reached(efficient.seen("local", 32, 3), 4)[20]).tolist() == list(range(8, 32))


# --- the others ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 3, 5, 12])
def test_the_stream_ends_with_the_softmax_average_only_if_it_is_rescaled(block):
    weights = np.exp(efficient.SCORES) / np.exp(efficient.SCORES).sum()
    for shift in (0.0, 1000.0):
        m, total, y = efficient.steps(efficient.SCORES + shift, efficient.VALUES, block)[-1]
        assert m == efficient.SCORES.max() + shift
        assert y / total == pytest.approx(weights @ efficient.VALUES)
    _, total, y = efficient.steps(efficient.SCORES, efficient.VALUES, block, rescale=False)[-1]
    assert (y / total == pytest.approx(weights @ efficient.VALUES)) == (block == 12)


def test_slopes_are_powers():
    for power in (0.5, 1, 2):
        assert efficient.slope(LENGTHS, law(power), 3) == pytest.approx(power)
    assert "slope 2.0" in efficient.loglog({"exact": (LENGTHS, law(2))}, "seconds", 3)


def test_cache_sizes_are_those_of_the_exercise():
    layers, heads, groups, d = efficient.MODELS["Llama 2 70B"]
    want = reference("kv_cache_size")(layers, heads, groups, heads * d, 4096) / 1e9
    assert f"{efficient.amount(want, 2)} GB" in efficient.cache_size().snapshot()


def test_five_patterns_are_drawn():
    assert efficient.overview().count("<img") == 5


def test_recall_is_drawn_over_the_number_of_pairs():
    html = efficient.recall({"exact": (np.array([4, 8, 16, 32]), np.ones((3, 4)))}, 1 / 16)
    assert all(f'text-anchor="middle">{pairs}<' in html for pairs in (4, 8, 16, 32))


@pytest.mark.parametrize("question", [efficient.guess_memory(), efficient.guess_reach(), efficient.guess_slope()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


# --- explorers -------------------------------------------------------------------------------------------------------


def figures(change=lambda function: function):
    """The figures that show the learner's functions; `change` spoils these."""
    return {
        "revealed": efficient.revealed([change(f) for f in WANTS], WANTS),
        "stream": efficient.stream(change(WANTS[3]), WANTS[3]),
    }


EVERY = figures() | {
    "reach": efficient.reach(),
    "costs": efficient.costs(MEASURED),
    "cache": efficient.cache_size(),
    "recalled": efficient.recalled({"exact": look(5.0), "linear": look(0.5)}),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before and "nan" not in before
    each_control_changes(explorer, before)


@pytest.mark.parametrize("kind", ["local", "two scales", "linear", "online softmax"])
def test_all_kinds_reveal_weights_that_sum_to_one(kind):
    html = EVERY["revealed"].snapshot(kind=kind, size=5)
    assert 'class="lbl-error"' not in html and "same as the reference" in html


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    assert "differ" in figures(spoiled)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(lambda: EVERY[name].snapshot()) < 0.05
