"""Generated ratings whose factors are known: what is found in them can be compared with what made them."""

from typing import NamedTuple

import numpy as np


class Ratings(NamedTuple):
    """Who rated what with how many stars above the average, and the factors p (users, k), q (items, k) behind it."""

    users: np.ndarray
    items: np.ndarray
    stars: np.ndarray
    p: np.ndarray
    q: np.ndarray


def ratings(rng, users=150, items=80, k=2, each=20, noise=0.5):
    """`each` user rates about so many items, drawn evenly, by p · q plus normal noise.

    The factors are balanced: pᵀp = qᵀq is diagonal, the first entry the larger. Every rating matrix of rank k has such
    factors, and only one pair of them up to signs. Without noise a rating has a standard deviation of 1. The number
    of a user's ratings varies between each / 4 and 7 each / 4: some are known well and some hardly.
    """
    u, s, vt = np.linalg.svd(rng.standard_normal((users, k)) @ rng.standard_normal((k, items)), full_matrices=False)
    s = s[:k] * np.sqrt(users * items / (s[:k] ** 2).sum())
    p, q = u[:, :k] * np.sqrt(s), vt[:k].T * np.sqrt(s)
    rated = [rng.choice(items, m, replace=False) for m in rng.integers(each // 4, 7 * each // 4 + 1, users)]
    who, what = np.repeat(np.arange(users), [len(some) for some in rated]), np.concatenate(rated)
    stars = (p[who] * q[what]).sum(1) + noise * rng.standard_normal(len(who))
    return Ratings(who, what, stars, p, q)
