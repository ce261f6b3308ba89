"""The interactive figures of lesson 16: what they compute, and that every control moves the picture."""

import numpy as np
import pytest

from autograder import reference
from course.data import text
from course.widgets import rnn
from tests.figures import each_control_changes, seconds, spoiled, unwritten

OWN = [reference(name) for name in ("rnn_forward", "rnn_backward")]
BOTH = reference("bidirectional_rnn_forward")
RNG = np.random.default_rng(0)
SENTENCES = text.sentences(3, seed=5)
STATES = [np.tanh(RNG.normal(size=(len(sentence), 6))) for sentence in SENTENCES]
TRUTHS = [text.probabilities(sentence) for sentence in SENTENCES]
GUESSES = [0.8 * truth + 0.2 / len(text.CHARACTERS) for truth in TRUTHS]


@pytest.mark.parametrize("kind", rnn.MATRICES)
def test_matrices_have_the_spectral_radius_1(kind):
    assert np.abs(np.linalg.eigvals(rnn.matrix(kind))).max() == pytest.approx(1)


@pytest.mark.parametrize("tanh", [True, False])
def test_the_gradient_is_that_of_finite_differences(tanh):
    """The input weights are nudged: their gradient is the sum of every step's dz times its input."""
    x, w_x, last = rnn.drawn()
    hs, dhs = rnn.run("random", 1.1, tanh, 0.7)
    slopes = 1 - hs**2 if tanh else np.ones_like(hs)
    direction, w = RNG.normal(size=rnn.UNITS), 1.1 * rnn.matrix("random")

    def loss(weights):
        h = np.zeros(rnn.UNITS)
        for value in x:
            h = w @ h + 0.7 * value * weights
            h = np.tanh(h) if tanh else h
        return last @ h

    found = (loss(w_x + 1e-6 * direction) - loss(w_x - 1e-6 * direction)) / 2e-6
    assert ((dhs * slopes) @ direction * 0.7 * x).sum() == pytest.approx(found, rel=1e-4)


def test_without_slopes_a_turning_matrix_multiplies_by_the_radius():
    _, dhs = rnn.run("turns", 0.9, tanh=False)
    np.testing.assert_allclose(np.linalg.norm(dhs, axis=1), rnn.bounds("turns", 0.9)[0])


@pytest.mark.parametrize("kind", rnn.MATRICES)
def test_no_gradient_is_above_the_largest_singular_value_to_the_power_of_the_steps(kind):
    for tanh in (True, False):
        _, dhs = rnn.run(kind, 0.8, tanh)
        assert (np.linalg.norm(dhs, axis=1) <= rnn.bounds(kind, 0.8)[1] * (1 + 1e-9)).all()


def test_a_cut_stops_the_gradient_where_its_chunk_begins():
    whole, cut = (rnn.run("turns", 1.0, cut=cut)[1] for cut in (0, 5))
    begins = (rnn.STEPS - 1) // 5 * 5
    np.testing.assert_array_equal(cut[begins:], whole[begins:])
    assert not cut[:begins].any()


@pytest.mark.parametrize("question", [rnn.guess_parameters(), rnn.guess_factor(), rnn.guess_chunk()])
def test_a_guess_is_answered(question):
    assert question.verdict(question.answer).startswith("Yes")
    assert 'class="lbl-error"' not in question.reveal()


def test_the_drawing_names_every_step():
    html = rnn.diagram(3)
    assert all(f">{name}<" in html for name in ("h₀", "x₁", "h₁", "x₃", "h₃")) and "x₄" not in html


def figures(change=None):
    """The figures that show the learner's functions; `change` spoils these."""
    change = change or (lambda f: f)
    return {"pulses": rnn.pulses(*map(change, OWN), *OWN), "padded": rnn.padded(change(BOTH), BOTH)}


EVERY = figures() | {
    "unrolled": rnn.unrolled(),
    "reader": rnn.reader(SENTENCES, STATES, GUESSES, TRUTHS, text.CHARACTERS),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_control_changes_the_picture(name):
    explorer = EVERY[name]
    before = explorer.snapshot()
    assert 'class="lbl-error"' not in before and 'class="lbl-differs"' not in before and "nan" not in before
    each_control_changes(explorer, before)


@pytest.mark.parametrize("played", range(0, 2 * rnn.STEPS + 1, 3))
@pytest.mark.parametrize("kind", rnn.MATRICES)
def test_every_moment_is_drawn(played, kind):
    for cut in (0, 5):
        html = EVERY["unrolled"].snapshot(played=played, kind=kind, cut=cut, radius=1.5, bend="nothing")
        assert 'class="lbl-error"' not in html and "nan" not in html


def test_a_gradient_that_was_cut_is_said():
    assert "it was cut on its way" in EVERY["unrolled"].snapshot(cut=5)


def test_what_fills_the_padding_changes_no_state():
    given = rnn.batch(2, 4, -3)
    np.testing.assert_array_equal(BOTH(*rnn.batch(2, 4, 0)), BOTH(*given))
    assert (given[0][0, 2:] == -3).all() and (given[0][2] == rnn.batch(2, 4, 0)[0][2]).all()


def test_the_reader_shows_the_true_and_the_guessed_chance_of_the_next_character():
    place, text_ = 4, SENTENCES[0]
    html = EVERY["reader"].snapshot(place=place)
    k = int(TRUTHS[0][place].argmax())
    assert f">{GUESSES[0][place, k]:.2f} · {TRUTHS[0][place, k]:.2f}<" in html
    assert len(EVERY["reader"].snapshot(place=0)) > 1000 and f"“{text_[place]}”" in html


def test_places_behind_the_end_of_a_sentence_are_its_last():
    reader = EVERY["reader"]
    assert reader.snapshot(place=reader.controls["place"].max)
    assert "the end of the line" in reader.snapshot(sentence=1, place=reader.controls["place"].max)


@pytest.mark.parametrize("name", figures())
def test_wrong_answers_show_beside_the_reference(name):
    assert 'class="lbl-differs"' in figures(spoiled)[name].snapshot()


@pytest.mark.parametrize("name", figures())
def test_an_unwritten_function_is_said_and_not_raised(name):
    assert 'class="lbl-error"' in figures(unwritten)[name].snapshot()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_of_a_slider_is_fast(name):
    assert seconds(lambda: EVERY[name].snapshot()) < 0.05
