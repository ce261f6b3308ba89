import numpy as np
import pytest

from autograder.compare import Mismatch, close, compare, relative_error

WANT = np.array([[1.0, -2.0], [3.0, 4.0]])


def test_equal_arrays_are_right():
    assert compare(WANT, WANT.copy(), 1e-5) is None
    assert relative_error(WANT, WANT) == 0


def test_the_tolerance_is_relative_to_the_largest_entry():
    assert compare(WANT, WANT + 4.9e-5, 1e-5) is None
    assert compare(WANT, WANT + 5.1e-5, 1e-5).code == "value"


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2), (2, 2, 1), (4, 1)])
def test_a_shape_must_be_exact_even_where_it_would_broadcast(shape):
    assert compare(WANT, WANT.reshape(shape), 1e-5) == Mismatch("shape")
    assert compare(np.zeros(3), np.zeros((1, 3)), 1e-5).code == "shape"
    assert compare(np.array(1.0), np.array([1.0]), 1e-5).code == "shape"
    assert compare(WANT, np.zeros((0, 2)), 1e-5).code == "shape"


@pytest.mark.parametrize(("value", "code"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf")])
def test_nan_and_inf_are_never_right(value, code):
    got = WANT.copy()
    got[1, 0] = value
    found = compare(WANT, got, 1e-5)
    assert (found.code, found.index, found.count) == (code, (1, 0), 1)
    assert relative_error(WANT, got) is None


def test_the_largest_difference_is_reported():
    found = compare(WANT, WANT + np.array([[0.1, 0], [0, -0.5]]), 1e-5)
    assert found == Mismatch("value", (1, 1), 4.0, 3.5, 2)


def test_close_matches_mistakes_that_are_nan():
    broken = np.array([np.nan, 1.0, np.inf])
    assert close(broken, broken.copy(), 1e-5)
    assert not close(broken, np.array([0.0, 1.0, np.inf]), 1e-5)
    assert not close(np.ones(2), np.array([1.0, np.inf]), 1e-5)
