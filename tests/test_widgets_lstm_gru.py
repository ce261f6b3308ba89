"""The figures of lesson 17: a memory set by hand, gradients through time, gates over time; and its data."""

import numpy as np
import pytest

from autograder import reference
from course.data import memory, series
from course.widgets import lstm_gru
from tests.figures import each_control_changes, seconds, spoiled, unwritten

RNG = np.random.default_rng(17)
STEP, STEP_BACK = reference("lstm_step_forward"), reference("lstm_step_backward")
PARAMS = [0.5 * RNG.normal(size=size) for size in ((16, 2), (16, 4), 16, (1, 4), 1)]
CURVES = {
    task: {name: RNG.uniform(0.1, 0.7, (20, 5)) for name in lstm_gru.NETWORKS} for task in ("one value", "two values")
}
RIGHTS = {task: {name: RNG.uniform(0.4, 1, 5) for name in runs} for task, runs in CURVES.items()}


# --- data ------------------------------------------------------------------------------------------------------------


def test_the_notepad_holds_what_was_flagged_last():
    x, y = memory.notepad(20, 30, np.random.default_rng(1))
    assert x.shape == (20, 30, 2) and set(np.unique(x[..., 0])) == {-1, 1}
    for values, held in zip(x, y, strict=True):
        now = 0
        for (value, flag), wanted in zip(values, held, strict=True):
            now = value if flag else now
            assert wanted == now


@pytest.mark.parametrize(("writes", "steps"), [(1, 11), (2, 16)])
def test_recall_asks_for_the_last_flag_after_the_lag(writes, steps):
    x, y = memory.recall(50, 10, np.random.default_rng(2), writes)
    assert x.shape == (50, steps, 2) and (x[..., 1].sum(axis=1) == writes).all()
    for values, wanted in zip(x, y, strict=True):
        last = np.flatnonzero(values[:, 1])[-1]
        assert values[last, 0] == wanted
        assert steps - 1 - last >= 10


def test_the_best_forecast_of_the_made_up_series_leaves_its_noise_alone():
    values = series.thresholds(5000, np.random.default_rng(3))
    before = np.stack([values[:-2], values[1:-1]], axis=1)
    errors = values[2:] - series.expected(before)
    assert errors.std() == pytest.approx(series.NOISE, rel=0.05)
    assert np.abs(np.corrcoef(errors, before.T)[0, 1:]).max() < 0.05


def test_the_sunspots_are_yearly_and_whole():
    years, numbers = series.sunspots()
    assert (years[0], years[-1], len(years)) == (1700, 2008, 309)
    assert (np.diff(years) == 1).all() and np.isfinite(numbers).all() and numbers.min() >= 0


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_the_solution_by_hand_holds_every_value():
    for number in range(6):
        _, y, _, c = lstm_gru.remembered(number, 6.0, 12.0, -6.0, 12.0)
        assert np.sqrt(np.mean((c - y) ** 2)) < 0.05


def test_gates_by_hand_make_the_cell_of_the_reference():
    x, _ = lstm_gru.page(0)
    settings = 2.0, 3.0, -1.0, 4.0
    _, c_n = reference("lstm_forward")(x, np.zeros((1, 1)), np.zeros((1, 1)), *lstm_gru.hand_set(*settings))
    assert lstm_gru.remembered(0, *settings)[3][-1] == pytest.approx(c_n.item())


def test_without_recurrent_weights_the_forget_gates_are_everything():
    whole, direct = lstm_gru.lstm_gradients(1.0, 0.0, 0, 10, STEP_BACK)
    np.testing.assert_allclose(whole, direct)
    whole, direct = lstm_gru.lstm_gradients(1.0, 2.0, 0, 10, STEP_BACK)
    assert whole[-1] != pytest.approx(direct[-1], rel=0.1)


def test_an_lstm_can_explode_with_every_forget_gate_below_one():
    whole, direct = lstm_gru.lstm_gradients(6.0, 8.0, 3, 40, STEP_BACK)
    assert whole[-1] > 1e4 and (direct < 1.0001).all()


def test_a_run_that_is_left_alone_is_the_references():
    w_x, w_h, b, w_out, b_out = PARAMS
    x, _ = lstm_gru.page(2)
    hs, c_n = reference("lstm_forward")(x, np.zeros((1, 4)), np.zeros((1, 4)), w_x, w_h, b)
    _, _, answer, gates, c = lstm_gru.trained_run(PARAMS, 2)
    np.testing.assert_allclose(answer, hs[0] @ w_out[0] + b_out[0])
    np.testing.assert_allclose(c[-1], c_n[0])
    assert gates.shape == (4, lstm_gru.STEPS, 4)


def test_a_held_gate_is_held_in_all_units_or_in_one():
    gates = lstm_gru.trained_run(PARAMS, 0, "all f = 1")[3]
    assert (gates[1] == 1).all() and not (gates[0] == 1).any()
    gates = lstm_gru.trained_run(PARAMS, 0, "unit silent", unit=2)[3]
    assert (gates[3][:, 2] == 0).all() and (gates[3][:, 1] > 0).all()


def test_the_guess_is_answered():
    question = lstm_gru.guess_decay()
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_both_cells_are_drawn():
    html = lstm_gru.cells()
    assert html.count('role="img"') == 2 and "aria-label" in html


def figures(change=None):
    """The figures that show the learner's functions; `change` spoils these."""
    change = change or (lambda f: f)
    return {
        "one step": lstm_gru.one_step(change(STEP), STEP),
        "flow": lstm_gru.flow(change(STEP_BACK), STEP_BACK),
    }


EVERY = figures() | {
    "by hand": lstm_gru.by_hand(),
    "gates": lstm_gru.gates_over_time(PARAMS),
    "training": lstm_gru.training(CURVES, RIGHTS),
    "forecasts": lstm_gru.forecasts(
        np.arange(1950, 2000), RNG.uniform(0, 9, 50), {name: RNG.uniform(0, 9, 50) for name in ("one", "other")}
    ),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and "reference</text>" not in before and "nan" not in before
    each_control_changes(explorer, before)


@pytest.mark.parametrize(("name", "shows"), [("one step", 'class="lbl-differs"'), ("flow", "LSTM: reference")])
def test_wrong_answers_show_beside_the_reference(name, shows):
    assert shows in figures(spoiled)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(lambda: EVERY[name].snapshot()) < 0.06
