"""The figures of lesson 01: right arrays, the learner's own function, and every control changes something."""

import time

import numpy as np
import pytest
from torch import nn

from course import data
from course.widgets import linear as figures
from course.widgets.explorer import _settings


def forward(x, w, b):
    return x @ w.T + b


def backward(dy, x, w, b):
    return dy @ w, dy.T @ x, dy.sum(axis=0)


def central(f, x, h=1e-5):
    return np.array([(f(x + h) - f(x - h)) / (2 * h)])


def compose(w1, b1, w2, b2):
    return w2 @ w1, w2 @ b1 + b2


def flatten(x, w, b):
    return x.reshape(len(x), -1) @ w.T + b


def snapshots(epochs=3):
    rng = np.random.default_rng(0)
    return [(k * rng.standard_normal((10, 64)), rng.standard_normal(10)) for k in range(1, epochs + 1)]


def explorers():
    digits = data.digits()
    return {
        "anatomy": figures.anatomy(forward, forward),
        "backward": figures.backward(backward, backward, forward),
        "slopes": figures.slopes(central),
        "boundary": figures.boundary(forward),
        "layers": figures.layers(forward, compose),
        "flattening": figures.flattening(flatten, digits.x_test[:5].reshape(-1, 8, 8)),
        "templates": figures.templates(snapshots(), digits.x_test, digits.y_test, forward),
    }


NAMES = ["anatomy", "backward", "slopes", "boundary", "layers", "flattening", "templates"]


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_the_picture_and_its_words(name):
    explorer = explorers()[name]
    for control in explorer.controls:
        pictures = {explorer.snapshot(**{control: value}) for value in _settings(explorer.controls[control], 9)}
        assert len(pictures) > 1, control
        assert not any('class="lbl-error"' in picture for picture in pictures), control


@pytest.mark.parametrize("name", NAMES)
def test_a_move_is_drawn_within_60_ms(name):
    explorer = explorers()[name]
    times = []
    for _ in range(9):
        start = time.perf_counter()
        explorer._update()
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.06


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_has_an_alternative_text(name):
    explorer = explorers()[name]
    said = explorer.alt(**explorer.values)
    assert len(said) > 40 and "aria-label" in explorer.snapshot()


def test_terms_add_up_to_the_output():
    y = forward(figures.X, figures.W, figures.B)
    for n, o in np.ndindex(y.shape):
        assert figures.terms(figures.X, figures.W, figures.B, n, o)[1] == pytest.approx(y[n, o])


def test_traced_terms_and_finite_differences_are_the_gradient():
    for name, gradient in zip(("dx", "dw", "db"), backward(figures.DY, figures.X, figures.W, figures.B), strict=True):
        for index, value in np.ndenumerate(gradient):
            pairs, _ = figures.trace(name, index[0], index[-1])
            assert sum(a * b for a, b in pairs) == pytest.approx(value)
            assert figures.nudge(forward, name, index) == pytest.approx(value, abs=1e-5)


def test_the_sliders_of_the_backward_figure_reach_the_numbers_of_the_chosen_gradient_and_no_others():
    explorer = figures.backward(backward, backward, forward)
    name, row, column = explorer.controls.values()
    for gradient, shape in {"dx": (3, 4), "dw": (2, 4), "db": (2,)}.items():
        name.value = gradient
        assert row.disabled == (len(shape) == 1) and column.max + 1 == shape[-1]
        texts = set()
        for i in range(1 if row.disabled else row.max + 1):
            for j in range(column.max + 1):
                texts.add(explorer.alt(name=gradient, row=i, column=j).split(" = ")[0])
        assert len(texts) == np.prod(shape)
    row.value, column.value, name.value = 0, 0, "dx"
    row.value = 2
    name.value = "dw"
    assert row.value == 1 and "dw[1, 0]" in explorer.snapshot()


def test_the_traced_number_is_pointed_at_even_where_it_is_wrong():
    explorer = figures.backward(lambda dy, x, w, b: (dy @ w, -dy.T @ x, dy.sum(0)), backward, forward)
    html = explorer.snapshot(name="dw", row=1, column=2)
    assert "o = 1 →" in html and "i = 2 ↓" in html


def test_the_guesses_know_their_answers():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    guess = figures.guess_layers(model, 4)
    assert guess.answer == 2 and "2 nn.Linear with 1 nn.ReLU" in guess.question
    assert figures.guess_bias(forward).answer == "the bias b[0]"


def test_the_slope_figure_tells_the_three_slopes_apart():
    said = figures.slopes(central).alt(at=1.0, h=0.5)
    assert "slope is 1." in said and "one side gives 2.75" in said and "gives 1.25" in said


def test_the_wires_show_every_weight_and_the_outputs():
    svg = figures.wires()
    assert svg.count("<circle") == 6 and svg.count("<path") == figures.W.size
    assert all(f">{text}</text>" in svg for text in ("5", "−4"))


def test_a_wrong_function_is_outlined_with_both_values():
    html = figures.anatomy(lambda x, w, b: x @ w.T, forward).snapshot()
    assert html.count('class="lbl-differs"') == 6 and "want 5" in html
    html = figures.backward(lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.mean(0)), backward, forward).snapshot()
    assert html.count('class="lbl-differs"') == 2


def test_the_learners_function_cannot_spoil_the_figures_own_arrays():
    def spoils(x, w, b):
        x[:], w[:] = 0, 0
        return np.zeros((len(x), len(w)))

    before = figures.X.copy(), figures.W.copy()
    figures.anatomy(spoils, forward).snapshot()
    assert np.array_equal(before[0], figures.X) and np.array_equal(before[1], figures.W)


def test_an_unwritten_function_says_so():
    def linear_forward(x, w, b):
        raise NotImplementedError

    assert "linear_forward" in figures.anatomy(linear_forward, forward).snapshot()


def test_a_line_separates_the_clouds_but_not_xor():
    sets = figures.clouds()
    best = {
        name: max(
            figures.accuracy(x @ w + b, labels)
            for w in np.random.default_rng(0).standard_normal((300, 2))
            for b in (-1.0, -0.5, 0.0, 0.5, 1.0)
        )
        for name, (x, labels) in sets.items()
    }
    assert best["two clouds"] > 0.95
    assert best["XOR"] < 0.8


def test_shifted_shows_one_plane_per_bias():
    html = figures.shifted(forward)
    assert html.count("<image") == 2 and "b[0] = −1" in html and "b[0] = 1" in html


def test_two_layers_are_one_until_a_relu_stands_between():
    explorer = figures.layers(forward, compose)
    assert "exactly" in explorer.alt(factor=0.5, bend=False)
    assert "fold" in explorer.alt(factor=0.5, bend=True)


def test_the_census_counts_ten_layers():
    layers = [layer for _ in range(9) for layer in (nn.Linear(4, 4), nn.ReLU())] + [nn.Linear(4, 4)]
    model = nn.Sequential(nn.Sequential(*layers[:5]), *layers[5:])
    found = figures.census(model)
    assert len(found) == 19 and sum(size > 0 for _, size in found) == 10
    assert "no. 10" in figures.lineup(model, 4) and "no. 11" not in figures.lineup(model, 4)


def test_a_broken_flattening_shows_for_several_images_only():
    def broken(x, w, b):
        return x.reshape(-1, len(x)).T @ w.T + b

    images = np.random.default_rng(0).random((3, 2, 2))
    explorer = figures.flattening(broken, images)
    assert "as it is" in explorer.alt(n=1) and "several images" in explorer.alt(n=2)
    assert np.array_equal(figures.passed_through(flatten, images), images)


def test_the_evidence_of_all_pixels_is_the_score():
    (w, b), x = snapshots(1)[0], np.random.default_rng(1).random(64)
    assert np.allclose(figures.evidence(x, w).sum(axis=(1, 2)) + b, forward(x[None], w, b)[0])


def test_the_opponents_are_the_digit_said_and_the_true_one_or_the_runner_up():
    scores = np.array([0.1, 0.9, 0.5, 0.2])
    assert figures.opponents(scores, 1) == (1, 2) and figures.opponents(scores, 3) == (1, 3)


def test_the_score_of_a_digit_is_told_with_its_bias():
    digits, snaps = data.digits(), snapshots()
    said = figures.templates(snaps, digits.x_test, digits.y_test, forward).alt(epoch=1, image=0, digit=4, learned=True)
    score = forward(digits.x_test[:1], *snaps[1])[0, 4]
    assert f"from the bias make {figures.picture.number(score, 2)}" in said


def test_the_followed_image_tells_both_readings():
    w, b = np.eye(10, 64), np.zeros(10)
    path = [np.eye(64)[[6]], np.eye(64)[[0]]]
    html, said = figures.followed(path, w, b, forward, (6, 0))
    assert "reads a 0 where it read a 6" in said and html.count("<img") == 3
