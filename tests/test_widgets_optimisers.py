"""The interactive figures of lesson 06: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.widgets import optimisers
from tests.alternatives.optimisers import ALTERNATIVES
from tests.figures import each_control_changes, seconds, unwritten

STEPS = {name: reference(function) for name, function in optimisers.FUNCTIONS.items()}
SCHEDULES = ("step_lr", "cosine_lr", "warmup_cosine_lr")
RNG = np.random.default_rng(0)


def test_a_walk_does_what_the_eigenvalues_predict():
    for condition in (1, 10, 100):
        for lr in (0.05, 0.19, 0.21):
            path = optimisers.walk(STEPS["momentum"], lr, 0.0, condition, True, 20) @ optimisers.axes_of(True)
            for column, value in enumerate((optimisers.STEEP / condition, optimisers.STEEP)):
                wanted = optimisers.ALONG[column] * (1 - lr * value) ** np.arange(21)
                np.testing.assert_allclose(path[:, column], wanted, atol=1e-9)
                assert optimisers.factor(lr, value) == pytest.approx(abs(1 - lr * value))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_limit_is_where_the_factor_passes_one(momentum):
    limit = 2 * (1 + momentum) / optimisers.STEEP
    assert optimisers.factor(0.99 * limit, optimisers.STEEP, momentum) < 1
    assert optimisers.factor(1.01 * limit, optimisers.STEEP, momentum) > 1
    assert reference("stability_limit")(optimisers.hessian_of(10, True), momentum) == pytest.approx(limit)


@pytest.mark.parametrize("surface", optimisers.SURFACES)
def test_gradients_are_those_of_the_surfaces(surface):
    loss, _, start, least = optimisers.SURFACES[surface]
    gradient, h = optimisers.gradient_on(surface), 1e-6
    for point in (np.array(start), *RNG.normal(size=(3, 2))):
        found = [(loss(*(point + h * e))[0] - loss(*(point - h * e))[0]) / (2 * h) for e in np.eye(2)]
        np.testing.assert_allclose(gradient(point), found, rtol=1e-5, atol=1e-5)
    for x, y in least:
        assert loss(x, y)[0] == pytest.approx(0) and np.allclose(gradient(np.array([x, y])), 0)


@pytest.mark.parametrize("surface", optimisers.SURFACES)
def test_the_races_start_at_the_best_learning_rate_of_the_grid(surface):
    found = {name: optimisers.best_rate(name, step, surface) for name, step in STEPS.items()}
    assert found == pytest.approx(optimisers.RATES[surface])


def test_turning_the_valley_changes_rmsprop_and_not_sgd():
    def last(name, surface):
        point = optimisers.run(name, STEPS[name], surface, 0.1)[0][-1]
        return optimisers.SURFACES[surface][0](*point)[0]

    assert last("SGD", "valley, turned") == pytest.approx(last("SGD", "valley"))
    assert last("RMSprop", "valley, turned") > 1e10 * last("RMSprop", "valley")


def test_a_path_ends_where_it_diverges():
    path, kept = optimisers.run("SGD", STEPS["SGD"], "valley", 3.0)
    assert np.isfinite(path[0]).all() and np.isnan(path[-1]).all() and len(kept) < optimisers.ROUND


def test_adams_moves_do_not_depend_on_the_size_of_the_gradients():
    small, large = (optimisers.respond(STEPS["Adam"], optimisers.stream_of("noisy", s), (0.9, 0.999)) for s in (1, 1e3))
    np.testing.assert_allclose(small[:, 0], large[:, 0], atol=1e-6)


def test_decay_beside_the_gradient_is_the_same_for_all_and_in_it_is_not():
    adam, adamw = STEPS["Adam"], reference("adamw_step")
    even = optimisers.decayed(adamw, 0.2, penalty=False, steps=200)
    uneven = optimisers.decayed(adam, 0.2, penalty=True, steps=200)
    assert np.abs(even - (1 - 0.02 * 0.2) ** 200).max() < 0.15
    assert uneven[0] < 0.1 and uneven[-1] > 0.7


def test_the_still_pictures_draw_every_line():
    runs = RNG.random((5, 3))
    pictures = {
        optimisers.four_paths(reference): 2,
        optimisers.tuning([0.1, 1, 10], {"one": {"SGD": runs}, "two": {"Adam": runs, "SGD": runs}}): 2,
        optimisers.transfers((1, 0.5, 0), {"one": runs, "two": runs}): 2,
        optimisers.twice_corrected(STEPS["Adam"]): 1,
    }
    for html, charts in pictures.items():
        assert html.count('role="img"') == charts and "nan" not in html


def test_the_factors_stand_below_their_accuracies():
    html = optimisers.transfers((1, 0.3, 0), {"one": RNG.random((2, 3)), "two": RNG.random((2, 3))})
    assert html.count(">0.3 </text>") == 2


@pytest.mark.parametrize("question", [optimisers.guess_limit(reference), optimisers.guess_first_move()])
def test_a_guess_is_answered(question):
    said = question.verdict(question.answer if isinstance(question.answer, str) else str(question.answer))
    assert said.startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def figures(change=None):
    """Every figure of the lesson that runs functions of the learner, in NumPy; `change` spoils them."""
    names = (*optimisers.FUNCTIONS.values(), "adamw_step", *SCHEDULES)
    mine = {name: (change or (lambda f: f))(ALTERNATIVES[name][-2]) for name in names}
    return {
        "valley": optimisers.valley(mine["momentum_step"], reference),
        "race": optimisers.race(*(mine[name] for name in optimisers.FUNCTIONS.values()), reference),
        "stream": optimisers.stream(mine["adam_step"], reference),
        "schedules": optimisers.schedules(*(mine[name] for name in SCHEDULES), reference),
        "decays": optimisers.decays(mine["adam_step"], mine["adamw_step"], reference),
    }


def inside():
    m, v = RNG.normal(size=(4, 3, 64)), RNG.random((4, 3, 64))
    v[:, :, 0] = 0
    return optimisers.effective(RNG.random((20, 8, 8)), m * np.sqrt(v), v)


@pytest.mark.parametrize("name", [*figures(), "inside"])
def test_every_control_changes_the_picture(name):
    explorer = inside() if name == "inside" else figures()[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and "(reference" not in before
    each_control_changes(explorer, before)


def wronger(function):
    """The same, but for what is returned first: half as much again."""

    def wrong(*args, **kwargs):
        result = function(*args, **kwargs)
        return (1.5 * result[0], *result[1:]) if isinstance(result, tuple | list) else 1.5 * result

    return wrong


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    assert "reference" in figures(wronger)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(figures()[name].snapshot) < 0.06
