"""The interactive figures of lesson 08: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.widgets import normalisation
from tests.figures import each_control_changes, seconds, spoiled, unwritten

NORMS = [reference(name) for name in normalisation.NAMES]
MODES = [reference(name) for name in ("batchnorm_forward", "batchnorm_eval", "layernorm_forward")]
RNG = np.random.default_rng(0)
MOMENTS = {name: RNG.normal(size=(4, 256, 3)) + np.arange(4)[:, None, None] for name in normalisation.NETWORKS}


@pytest.mark.parametrize(
    ("kind", "axes"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("instance", (2, 3)), ("rms", (1, 2, 3))]
)
def test_the_entries_that_answer_are_those_that_share_an_average(kind, axes):
    x, index = normalisation.images(3, 4, 2), (1, 2, 0, 1)
    y, members = normalisation.answering(kind, NORMS, x, 2, index)
    want = np.ones(x.shape, bool)
    for axis in set(range(4)) - set(axes):
        want &= np.indices(x.shape)[axis] == index[axis]
    np.testing.assert_array_equal(members, want)
    if kind != "rms":
        assert y[members].mean() == pytest.approx(0, abs=1e-9) and y[members].std() == pytest.approx(1, abs=1e-3)


def test_a_group_is_a_run_of_channels_of_one_example():
    _, members = normalisation.answering("group", NORMS, normalisation.images(3, 4, 2), 2, (1, 2, 0, 0))
    assert members[1, 2:].all() and members.sum() == 8


def test_group_norm_has_layer_and_instance_norm_at_its_ends():
    x = normalisation.images(2, 4, 3)
    one, four = (normalisation.normalised("group", NORMS, x, groups) for groups in (1, 4))
    np.testing.assert_allclose(one, normalisation.normalised("layer", NORMS, x, 2))
    np.testing.assert_allclose(four, normalisation.normalised("instance", NORMS, x, 2))


def test_every_sheet_marks_its_members():
    html = normalisation.overview(NORMS)
    assert html.count('role="img"') == 5 and "nan" not in html


def test_company_changes_the_answer_in_training_only():
    few, many = (normalisation.three_answers(*MODES, normalisation.company_of(n, 1.0)) for n in (2, 5))
    np.testing.assert_allclose(few[1][0], many[1][0])
    np.testing.assert_allclose(few[2][0], many[2][0])
    assert np.abs(few[0][0] - many[0][0]).max() > 0.1
    alone, _, _ = normalisation.three_answers(*MODES, normalisation.company_of(1, 0.0))
    np.testing.assert_allclose(alone, 0)


def test_running_statistics_start_where_pytorchs_do_and_reach_the_truth():
    kept, seen = normalisation.recorded(reference("batchnorm_running"), 64, 0.1)
    assert tuple(kept[0]) == (0, 1) and seen.shape == (normalisation.BATCHES, 2)
    assert kept[-1, 0] == pytest.approx(normalisation.TRUE_MEAN, abs=0.3)
    assert kept[-1, 1] == pytest.approx(normalisation.TRUE_VAR, abs=0.4)


def test_dx_is_orthogonal_to_the_ones_and_to_xhat():
    found = normalisation.projection(reference("batchnorm_backward"), (2, -1, 0.5), (1, 2, -1), eps=1e-12)
    assert found["ones"] == pytest.approx(0, abs=1e-9) and found["along"] == pytest.approx(0, abs=1e-9)
    assert found["xhat"] @ found["xhat"] == pytest.approx(3)


def test_ten_times_the_weights_have_a_tenth_of_the_gradient():
    (y, dw), (y_ten, dw_ten) = (normalisation.before_batchnorm(reference, scale) for scale in (1.0, 10.0))
    np.testing.assert_allclose(y, y_ten)
    np.testing.assert_allclose(dw, 10 * dw_ten)


@pytest.mark.parametrize("question", [normalisation.guess_alone(reference), normalisation.guess_scale(reference)])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def figures(change=None):
    """Every figure of the lesson; `change` spoils the learner's functions."""
    change = change or (lambda f: f)
    running, backward = reference("batchnorm_running"), reference("batchnorm_backward")
    return {
        "sharing": normalisation.sharing([change(f) for f in NORMS], NORMS),
        "sharing groups": normalisation.sharing([change(f) for f in NORMS], NORMS, kind="group"),
        "company": normalisation.company([change(f) for f in MODES], MODES),
        "running": normalisation.running(change(running), running),
        "circle": normalisation.circle(change(backward), backward),
    }


EVERY = figures() | {"inside": normalisation.inside([0, 10, 20, 30], MOMENTS)}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    start = {"kind": "group"} if name == "sharing" else {}
    before = explorer.snapshot(**start)
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before
    each_control_changes(explorer, before, **start)


@pytest.mark.parametrize("kind", normalisation.KINDS)
def test_every_norm_is_drawn_for_the_smallest_and_the_largest_images(kind):
    for sizes in (dict(n=1, c=2, side=1), dict(n=4, c=6, side=4)):
        html = EVERY["sharing"].snapshot(kind=kind, entry=23, **sizes)
        assert 'class="lbl-error"' not in html and "nan" not in html


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    wrong = figures(spoiled)[name].snapshot()
    assert any(sign in wrong for sign in ("differ from the reference", "PyTorch&#x27;s</text>", 'class="lbl-differs"'))


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    explorer = EVERY[name]
    assert seconds(explorer.snapshot) < 0.06
