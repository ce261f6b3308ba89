"""Matrices of attention weights whose rows show their numbers by style sheet alone."""

import re

import numpy as np
import pytest

from course.widgets.weights import told, weights
from tests.figures import seconds

RNG = np.random.default_rng(0)


def drawn(shape=(2, 3, 4), **options):
    w = RNG.dirichlet(np.ones(shape[-1]), shape[:-1])
    return w, weights(w, [f"q{i}" for i in range(shape[-2])], [f"k{j}" for j in range(shape[-1])], **options)


def test_every_row_can_be_reached_by_keyboard_and_shows_its_numbers():
    w, html = drawn()
    rows = re.findall(r'<g tabindex="0".*?</g></g>', html)
    assert len(rows) == 6 and "<script" not in html
    for row, line in zip(rows, w.reshape(6, 4), strict=True):
        assert [text for text in re.findall(r">([^<]+)</text>", row)[1:5]] == [told(value) for value in line]
        assert f"{told(line.max())} on k{line.argmax()}" in row


def test_a_rule_marks_every_column():
    _, html = drawn()
    assert html.count('class="lbl-key"') == 2 * 4
    assert all(f"path:nth-of-type({j}):hover" in html for j in (1, 2, 3, 4)) and "nth-of-type(5)" not in html


def test_known_right_cells_are_outlined_and_forbidden_ones_struck_through():
    mask, right, labels = np.tri(3, 4, dtype=bool), np.eye(3, 4, dtype=bool), (list("abc"), list("wxyz"))
    w = np.where(mask, 1 / mask.sum(-1, keepdims=True), 0)
    plain, html = weights(w, *labels), weights(w, *labels, right=right, mask=mask)
    assert plain.count('stroke="#009E73"') == 0 and html.count('stroke="#009E73"') == 1
    assert re.findall(r'<path d="([^"]*)" stroke="currentColor"', html)[0].count("M") == 6
    assert plain.count(">0</text>") == 6 and html.count(">0</text>") == 0
    assert ">.07</text>" in weights(w + 0.07, *labels, mask=mask)


def test_what_differs_from_the_reference_is_outlined():
    w, html = drawn(shape=(3, 4))
    labels = [list("abc"), list("wxyz")]
    assert "same as the reference" in weights(w, *labels, want=w)
    html = weights(w, *labels, want=w + 0.1 * np.eye(3, 4))
    assert "3 of 12 cells differ" in html and html.count('stroke="#D55E00"') == 1
    assert "This gave shape (3, 4)" in weights(w, *labels, want=w.T)


def test_a_head_that_is_off_is_pale_and_labels_are_escaped():
    w, html = drawn(off=[1])
    assert html.count("lbl-off") == 2 and "head 1" in html
    assert "&lt;s&gt;" in weights(w[0], ["<s>", "b", "c"], list("wxyz"))


def test_numbers_are_short_and_odd_ones_stop_nothing():
    assert [told(value) for value in (0.834, 1.0, 0.001, np.nan, 1.25)] == [".83", "1", "0", "nan", "1.25"]
    assert ">nan<" in weights([[np.nan, 1.0]], ["a"], ["b", "c"])
    assert "a: nothing" in weights([[0.0, 0.0]], ["a"], ["b", "c"])
    assert ">.50<" in weights([[1.0], [0.5]], ["a", "b"], ["long label"])


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(…, 2, 2\).*not \(1, 2\)"):
        weights(np.ones((1, 2)), "ab", "cd")


def test_four_heads_stay_small_and_quick():
    w, html = drawn((4, 10, 10))
    assert len(html.encode()) < 90_000
    assert seconds(lambda: weights(w, range(10), range(10))) < 0.05
