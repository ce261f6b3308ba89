"""The figures of lesson 02: right arrays, the learner's own functions, and every control changes something."""

import sys
import time

import numpy as np
import pytest

from course.widgets import activations as figures
from course.widgets.explorer import _settings
from tests.figures import without_style


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def softmax_backward(dy, x, axis=-1):
    p = softmax(x, axis)
    return p * (dy - (dy * p).sum(axis, keepdims=True))


PAIRS = {
    "relu": (lambda x: np.maximum(x, 0), lambda dy, x: dy * (x > 0)),
    "sigmoid": (sigmoid, lambda dy, x: dy * sigmoid(x) * (1 - sigmoid(x))),
    "tanh": (np.tanh, lambda dy, x: dy * (1 - np.tanh(x) ** 2)),
}
FORWARD = {name: pair[0] for name, pair in PAIRS.items()}


def networks(epochs=4):
    rng = np.random.default_rng(0)
    widths = [(12, 8), (12, 12), (3, 12)]
    return [
        [(k * rng.standard_normal(shape), rng.standard_normal(shape[0])) for shape in widths] for k in range(epochs)
    ]


def explorers():
    batch = np.random.default_rng(1).standard_normal((10, 8))
    runs = {"relu": networks(), "sigmoid, small": networks()[::-1]}
    return {
        "folds": figures.folds(FORWARD),
        "gate": figures.gate(PAIRS, PAIRS),
        "temperature": figures.temperature((softmax, softmax_backward), (softmax, softmax_backward)),
        "inside": figures.inside(runs, batch, PAIRS),
    }


def drawn(explorer, **values):
    """The picture without its style sheet."""
    return without_style(explorer.snapshot(**values))


NAMES = ["folds", "gate", "temperature", "inside"]


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_the_picture(name):
    explorer = explorers()[name]
    for control in explorer.controls:
        pictures = {drawn(explorer, **{control: value}) for value in _settings(explorer.controls[control], 9)}
        assert len(pictures) > 1, control


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_drawn_and_described(name):
    explorer = explorers()[name]
    for control in explorer.controls:
        for value in _settings(explorer.controls[control], 5):
            html = drawn(explorer, **{control: value})
            assert "lbl-error" not in html
            assert 'aria-label="' in html
            assert 'alt=""' not in html


@pytest.mark.parametrize("name", NAMES)
def test_a_move_is_drawn_within_60_ms(name):
    explorer = explorers()[name]
    explorer.snapshot()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        explorer.snapshot()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.06


def accuracy(activation, data, units, **where):
    x, y = figures.points(data)
    return figures.fold(activation, x, y, *figures.hidden_layer(units, **where), pixels=x)["accuracy"]


def test_without_an_activation_no_hidden_layer_separates_xor():
    for turn in range(0, 90, 15):
        assert accuracy(figures.identity, "XOR", 12, turn=turn, spread=0.5) < 0.65


def test_four_relus_at_45_degrees_fold_xor_flat():
    assert accuracy(FORWARD["relu"], "XOR", 4, turn=45) > 0.9
    assert accuracy(FORWARD["relu"], "XOR", 4, turn=0) < 0.7


def test_tanh_needs_biases_for_xor():
    assert max(accuracy(np.tanh, "XOR", units, turn=45) for units in range(2, 13)) < 0.7
    assert accuracy(np.tanh, "XOR", 4, turn=45, spread=0.5) > 0.85


def test_the_size_of_the_weights_means_nothing_to_relu():
    assert accuracy(FORWARD["relu"], "XOR", 4, turn=45, sharpness=0.5) == accuracy(
        FORWARD["relu"], "XOR", 4, turn=45, sharpness=8
    )


def test_what_goes_through_a_gate():
    found = figures.through(*PAIRS["relu"], np.array([-1.0, 2.0]), 3.0)
    np.testing.assert_array_equal(found["y"], [0, 2])
    np.testing.assert_array_equal(found["slope"], [0, 1])
    np.testing.assert_array_equal(found["dx"], [0, 3])


def test_the_jacobian_is_softmax_s():
    p = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(figures.jacobian(softmax_backward, np.log(p)), np.diag(p) - np.outer(p, p), atol=1e-12)


def test_dead_and_flat_units_are_counted():
    x = np.array([[1.0], [2.0]])
    layers = [(np.array([[1.0], [-1.0]]), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))]
    (layer,) = figures.layer_state(layers, x, *PAIRS["relu"])
    np.testing.assert_array_equal(layer["dead"], [False, True])
    assert layer["flat"] == 0.5
    assert layer["contrast"] == 0.25


def test_folds_uses_the_notebooks_function_once_it_is_written(monkeypatch):
    def unwritten(x):
        raise NotImplementedError

    explorer = figures.folds(FORWARD)
    monkeypatch.setattr(sys.modules["__main__"], "tanh_forward", unwritten, raising=False)
    assert "PyTorch&#x27;s tanh_forward" in drawn(explorer, activation="tanh")
    monkeypatch.setattr(sys.modules["__main__"], "tanh_forward", np.tanh, raising=False)
    assert "your tanh_forward" in drawn(explorer, activation="tanh")
    monkeypatch.setattr(sys.modules["__main__"], "tanh_forward", np.tan, raising=False)
    assert "differ from PyTorch" in drawn(explorer, activation="tanh")


def test_a_wrong_slope_turns_orange_and_shows_both_curves():
    wrong = PAIRS | {"tanh": (np.tanh, lambda dy, x: dy * (1 - x**2))}
    html = drawn(figures.gate(wrong, PAIRS), activation="tanh", x=2.0)
    assert "lbl-differs" in html
    assert "yours" in html
    assert "lbl-differs" not in drawn(figures.gate(PAIRS, PAIRS), activation="tanh", x=2.0)


def test_a_wrong_shape_is_said_not_raised():
    summed = PAIRS | {"relu": (lambda x: np.maximum(x, 0).sum(), PAIRS["relu"][1])}
    assert "shape" in drawn(figures.gate(summed, PAIRS), activation="relu")


def test_an_unwritten_function_says_so():
    def relu_forward(x):
        raise NotImplementedError

    html = drawn(figures.gate(PAIRS | {"relu": (relu_forward, PAIRS["relu"][1])}, PAIRS), activation="relu")
    assert "relu_forward" in html
    assert "first" in html


def test_a_function_that_overwrites_its_input_spoils_nothing_else():
    def careless(x):
        x[x < 0] = 0
        return x

    html = drawn(figures.gate(PAIRS | {"relu": (careless, PAIRS["relu"][1])}, PAIRS), activation="relu", x=-2.0)
    assert "lbl-differs" not in html


def test_a_softmax_that_forgets_the_coupling_is_outlined():
    def diagonal(dy, x):
        return dy * softmax(x) * (1 - softmax(x))

    html = drawn(figures.temperature((softmax, diagonal), (softmax, softmax_backward)))
    assert html.count("lbl-differs") == 6


def test_an_experiment_runs_every_pair_and_draws_a_table(capsys):
    found = figures.experiment("title", ("relu", "tanh"), (0.1, 1.0), lambda name, rate: np.full((2, 3, 2), rate / 2))
    assert list(found) == ["relu", "tanh"]
    html = figures.results("title", found)
    assert "rate 0.1" in html
    assert "seed by seed: 50.0, 50.0" in html


def test_the_straight_guess_is_the_best_line():
    x, y = figures.points("XOR")
    w, b, accuracy = figures.best_line(x, y)
    assert np.isclose(((x @ w + b > 0) == (y == 1)).mean(), accuracy, atol=0.011)  # a point lies on the line
    assert figures.guess_straight().answer == 100 * accuracy
    for turn in (0, 20, 45):
        assert figures.fold(figures.identity, x, y, *figures.hidden_layer(12, turn, 0.5))["accuracy"] <= accuracy
    assert accuracy < 0.8


def test_the_best_line_separates_what_a_line_can():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    assert figures.best_line(x, np.array([0, 0, 0, 1]))[2] == 1.0


def test_maps_say_how_many_are_right():
    x, y = figures.points("two moons")
    html = figures.maps({"never": lambda x: np.zeros(len(x))}, x, y)
    assert "never: 50 %" in html
