"""The interactive figures of lesson 14: what they compute, and that every control moves the picture."""

import numpy as np
import pytest
import torch
from torch import nn

from autograder import reference
from autograder.exercises.upsampling import UNet
from course.data.organs import CLASSES, organs
from course.widgets import upsampling
from tests.figures import each_control_changes, seconds, unwritten

PAINT, NEAREST, BILINEAR, SCORES = (
    reference(name)
    for name in ("conv_transpose2d_forward", "upsample_nearest_forward", "upsample_bilinear_forward", "overlap_scores")
)
FUNCTIONS = {
    name: reference(name) for name in ("conv_transpose2d_forward", "upsample_nearest_forward", "pixel_shuffle", "icnr")
} | {"conv2d": reference("conv2d_forward")}
SCANS = organs(24, np.random.default_rng(0))
torch.manual_seed(0)
MODEL = UNet(1, 3, width=8, depth=2).eval()
PROBS = upsampling.predicted(MODEL, SCANS.images)[:, 2]


# --- data ------------------------------------------------------------------------------------------------------------


def test_scans_are_the_same_for_the_same_seed():
    again = organs(24, np.random.default_rng(0))
    np.testing.assert_array_equal(SCANS.images, again.images)
    np.testing.assert_array_equal(SCANS.masks, again.masks)
    assert SCANS.images.shape == (24, 1, 32, 32) and SCANS.images.dtype == np.float32


def test_scans_have_all_classes_and_some_have_no_lesion():
    many = organs(200, np.random.default_rng(1))
    assert set(np.unique(many.masks)) == set(range(len(CLASSES)))
    empty = ~(many.masks == 2).any(axis=(1, 2))
    assert 0.15 < empty.mean() < 0.4
    assert (many.masks == 1).any(axis=(1, 2)).all()


def test_scans_of_another_size_have_the_same_proportions():
    small, large = (organs(60, np.random.default_rng(3), size) for size in (32, 64))
    for k in range(3):
        assert (small.masks == k).mean() == pytest.approx((large.masks == k).mean(), rel=0.3)


# --- what the figures compute ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 2, 0), (4, 2, 1), (2, 3, 0), (3, 1, 2), (1, 1, 0)])
def test_who_paints_whom(kernel_size, stride, padding):
    """The painters of a cell are the pixels without which it changes."""
    w, x = np.ones((1, 1, kernel_size, kernel_size)), np.ones((1, 1, 3, 3))
    y = PAINT(x, w, np.zeros(1), stride, padding)[0, 0]
    for a, b in np.ndindex(y.shape):
        assert len(upsampling.painters(a, b, (3, 3), kernel_size, stride, padding)) == round(y[a, b])


@pytest.mark.parametrize("how", ["nearest", "bilinear", "align_corners=True"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_shares_that_are_told_give_the_picture(how, scale):
    function = {"nearest": NEAREST, "bilinear": BILINEAR}.get(how, upsampling.with_corners)
    _, a = upsampling.shares(3, scale, how)
    np.testing.assert_allclose(
        function(upsampling.SAMPLES[None, None], scale)[0, 0], a @ upsampling.SAMPLES @ a.T, atol=1e-9
    )


@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 2), (6, 2), (3, 3), (6, 3), (4, 4), (5, 1)])
def test_a_stride_that_divides_the_kernel_stays_flat(kernel_size, stride):
    y = upsampling.enlarge(FUNCTIONS, upsampling.METHODS[0], upsampling.flat(), kernel_size, stride)
    assert upsampling.unevenness(y, kernel_size, stride) < 1e-9


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 2), (4, 3), (5, 4)])
def test_a_stride_that_does_not_makes_a_checkerboard(kernel_size, stride):
    y = upsampling.enlarge(FUNCTIONS, upsampling.METHODS[0], upsampling.flat(), kernel_size, stride)
    assert upsampling.unevenness(y, kernel_size, stride) > 0.05


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stride", [2, 3])
def test_only_two_methods_are_flat_for_random_weights(seed, stride):
    def found(method):
        y = upsampling.enlarge(FUNCTIONS, method, upsampling.flat(), 3, stride, equal=False, seed=seed)
        return upsampling.unevenness(y, 3, stride)

    uneven = [found(method) for method in upsampling.METHODS]
    assert uneven[0] > 0.02 and uneven[2] > 0.02
    assert uneven[1] < 1e-9 and uneven[3] < 1e-9


def test_cutting_a_skip_gives_the_decoder_zeros():
    class Skipless(UNet):
        def joined(self, skip, x):
            return torch.cat([torch.zeros_like(skip), x], dim=1)

    other = Skipless(1, 3, width=8, depth=2).eval()
    other.load_state_dict(MODEL.state_dict())
    want = upsampling.predicted(other, SCANS.images[:2])
    np.testing.assert_allclose(upsampling.predicted(MODEL, SCANS.images[:2], (0, 1)), want, atol=1e-6)
    assert np.abs(upsampling.predicted(MODEL, SCANS.images[:2]) - want).max() > 1e-4  # and the hooks are gone


def test_scores_per_class_leave_out_scans_without_it():
    assert upsampling.per_class(SCANS.masks, SCANS.masks, SCORES) == [1, 1]
    assert upsampling.per_class(np.zeros_like(SCANS.masks), SCANS.masks, SCORES) == [0, 0]


def test_the_letter_has_a_skip_for_each_level():
    drawing = upsampling.letter_u(width=4, depth=3, size=48)
    assert drawing.count("encoder[") == 3
    assert "skip 2: 16 channels, 12 × 12" in drawing and "32 channels, 6 × 6" in drawing


def test_pictures_for_the_page_have_words():
    for html in (
        upsampling.overview({**FUNCTIONS, "upsample_bilinear_forward": BILINEAR}, np.eye(8)),
        upsampling.samples(SCANS),
        upsampling.side_by_side(SCANS, {"U-Net": SCANS.masks}, (0, 2)),
    ):
        assert html.count("<img") >= 2 and 'alt=""' not in html


@pytest.mark.parametrize("question", [upsampling.guess_canvas(reference), upsampling.guess_iou()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


# --- the figures -----------------------------------------------------------------------------------------------------


def figures(change=lambda function: function):
    """Every figure that shows the learner's functions; `change` spoils them."""
    return {
        "painting": upsampling.painting(change(PAINT), PAINT),
        "collecting": upsampling.painting(change(PAINT), PAINT, "an output cell"),
        "sampling": upsampling.sampling(change(NEAREST), change(BILINEAR), (NEAREST, BILINEAR)),
        "checkerboard": upsampling.checkerboard({name: change(f) for name, f in FUNCTIONS.items()}, FUNCTIONS),
        "thresholds": upsampling.thresholds(change(SCORES), PROBS, SCANS),
        "inside": upsampling.inside(MODEL, SCANS, SCORES),
    }


def spoiled(function):
    def wrong(*args, **kwargs):
        result = function(*args, **kwargs)
        return tuple(0.5 * part for part in result) if isinstance(result, tuple) else result + 1

    return wrong


EVERY = figures()
SIGNS = "cells differ", "cell differs", "differs from the reference"


def says_so(html):
    """Whether a picture says that the learner's function is not the reference."""
    return any(sign in html for sign in SIGNS)


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and not says_so(before)
    each_control_changes(explorer, before)


@pytest.mark.parametrize("name", ["painting", "collecting"])
def test_every_geometry_is_drawn_or_says_why_not(name):
    for kernel_size in range(1, 5):
        for stride in range(1, 4):
            for padding in range(3):
                html = EVERY[name].snapshot(kernel_size=kernel_size, stride=stride, padding=padding)
                assert 'class="lbl-error"' not in html and "nan" not in html
    assert "nothing would be left" in EVERY[name].snapshot(kernel_size=1, stride=1, padding=2)


@pytest.mark.parametrize("name", ["painting", "collecting", "sampling", "checkerboard"])
def test_wrong_answers_show_beside_the_reference(name):
    assert says_so(figures(spoiled)[name].snapshot())


@pytest.mark.parametrize("name", [name for name in EVERY if name != "inside"])
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_control_is_fast(name):
    explorer = EVERY[name]
    assert seconds(explorer.snapshot) < (0.25 if name == "inside" else 0.06)


def test_the_model_of_the_figure_is_any_module_with_a_decoder():
    """The learner's own network is looked into, whatever its class."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.ModuleList([nn.Conv2d(2, 3, 1)])

        def forward(self, x):
            return self.decoder[0](torch.cat([x, 2 * x], dim=1))

    explorer = upsampling.inside(Halves(), SCANS, SCORES)
    assert explorer.snapshot(skip0=False) != explorer.snapshot()
