"""Sequences that can only be answered by remembering: x (n, t, 2) holds a value and a flag that says "write this down".

All values but the flagged ones are noise. What should be remembered, and from which step, is known.
"""

import numpy as np


def notepad(n, t, rng, share=0.15):
    """x (n, t, 2), y (n, t): at every step y is the value that was flagged last, 0 before the first flag."""
    x = np.stack([rng.choice([-1.0, 1.0], (n, t)), (rng.random((n, t)) < share).astype(float)], axis=2)
    latest = np.maximum.accumulate(np.where(x[:, :, 1] > 0, np.arange(t), -1), axis=1)
    return x, np.where(latest < 0, 0.0, np.take_along_axis(x[:, :, 0], np.maximum(latest, 0), axis=1))


def recall(n, lag, rng, writes=1):
    """x (n, t, 2), y (n,): the value flagged last, asked for at the end, at least `lag` steps after it.

    With one write the flag is at the first step, and t = lag + 1. With two, a second one follows within the next
    lag // 2 steps and overrules the first: t = lag // 2 + lag + 1.
    """
    room = 0 if writes == 1 else lag // 2
    x = np.zeros((n, room + lag + 1, 2))
    x[:, :, 0] = rng.choice([-1.0, 1.0], x.shape[:2])
    last = np.zeros(n, int) if writes == 1 else rng.integers(1, room + 1, n)
    x[:, 0, 1] = x[np.arange(n), last, 1] = 1
    return x, x[np.arange(n), last, 0]
