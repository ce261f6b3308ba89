"""Handwritten digits, 8 × 8 pixels (Alpaydin and Kaynak, 1998), as scikit-learn ships them: no download."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Inputs in [0, 1] and whole-number labels, for training and for testing."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@lru_cache
def _load():
    from sklearn.datasets import load_digits  # takes a second to import: only for who needs it

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order] / 16.0, y[order].astype(np.int64)


def digits(test=360):
    """1797 digits, always split the same way: x (n, 64) in [0, 1], y (n,) from 0 to 9.

    `x.reshape(-1, 8, 8)` gives the images.
    """
    x, y = _load()
    return Split(x[test:].copy(), y[test:].copy(), x[:test].copy(), y[:test].copy())
