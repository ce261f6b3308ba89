"""Two grids of numbers whose cells show, by style sheet alone, what they are made of."""

import re

import numpy as np
import pytest

from course.widgets.windows import _rectangles, windows
from tests.figures import seconds

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 12)), RNG.normal(size=(12, 12))


def three(i, j):
    return [(i + a - 1, j + b - 1) for a in range(3) for b in range(3)]


def nine_products(i, j):
    return f"y[{i}, {j}] = " + " + ".join("1.5·(−2)" for _ in range(9))


def drawn(**options):
    return windows(X[:4, :5], Y[:3, :4], three, nine_products, **options)


def test_every_output_can_be_reached_by_keyboard_and_says_what_it_is_made_of():
    html = drawn()
    assert html.count('tabindex="0"') == 12
    told = re.sub(r"<[^>]+>", " ", html)
    assert "y[2, 3] =" in told and "<script" not in html


def test_neighbours_are_outlined_together_and_spread_cells_one_by_one():
    assert _rectangles(three(4, 4)) == [(3, 3, 3, 3)]
    assert len(_rectangles([(2 * a, 2 * b) for a in range(2) for b in range(3)])) == 6
    assert _rectangles([(0, 0), (0, 1), (1, 0)]) == [(0, 0, 1, 2), (1, 0, 1, 1)]
    assert _rectangles([]) == []


def test_padding_is_drawn_pale_and_cells_beyond_it_are_not_outlined():
    html = drawn(padding=1, padding_text="−∞")
    assert html.count(">−∞<") == 6 * 7 - 4 * 5
    spots = lambda i, j: [(-5, 0), (0, 0)]  # noqa: E731
    near = windows(X, Y, lambda i, j: [(0, 0)], nine_products)
    assert windows(X, Y, spots, nine_products) == near


def test_what_differs_from_the_reference_is_outlined_with_both_values():
    want = Y[:3, :4].copy()
    assert "same as the reference" in drawn(want=want)
    want[1, 2] = 7
    html = drawn(want=want)
    assert html.count("≠ 7<") == 1 and "1 of 12 cells differ" in html and "7 in the reference." in html


def test_another_shape_than_the_reference_is_said():
    assert "This gave shape (3, 4); the reference has shape (2, 2)." in drawn(want=np.zeros((2, 2)))
    assert "This gave NoneType" in windows(np.ones((2, 3, 3)), None, three, nine_products, want=np.zeros((2, 2)))


def test_numbers_that_are_none_do_not_stop_the_picture():
    html = windows(np.array([[np.nan, np.inf]]), np.array([[np.nan]]), lambda i, j: [(0, 1)], lambda i, j: "<b>")
    assert ">nan<" in html and ">∞<" in html and "&lt;b&gt;" in html


def test_the_largest_grids_stay_small_and_quick():
    html = windows(X, Y, three, nine_products)
    assert len(html.encode()) < 60_000
    assert seconds(lambda: windows(X, Y, three, nine_products)) < 0.06


@pytest.mark.parametrize("sizes", [(1, 1), (14, 3)])
def test_smallest_and_tallest(sizes):
    values = np.ones(sizes)
    assert windows(values, values, lambda i, j: [(i, j)], lambda i, j: "").count("tabindex") >= values.size


def test_channels_stand_below_each_other():
    x, y = X[:8, :4].reshape(2, 4, 4), Y[:6, :3].reshape(2, 3, 3)
    html = windows(
        x, y, lambda k, i, j: [(0, i, j), (1, i, j)], lambda k, i, j: f"channel {k}", want=y + (y == y[1, 0, 0])
    )
    assert html.count('tabindex="0"') == 18 and html.count("channel 1<") == 9
    assert "1 of 18 cells differ" in html
    assert re.search(r'd="M2 26h37v37h-37zM2 190h37v37h-37zM210 26', html)
