"""Five tasks for one layer of attention, of which it is known where each query has to look.

A layer asks with `queries` (N, T_q, F_q) and looks at `keys` (N, T_k, F_k), rows of zeros and ones; for each query it
has to name a class that the keys marked in `right` tell.
"""

from typing import NamedTuple

import numpy as np

LETTERS = "abcdefghij"
LENGTH, SHORTEST = 8, 4  # of sequences of letters
BRACKETS, CLOSE = "([{", "/"
LONGEST, DEEPEST = 12, 4  # of strings of brackets
NAMES = {  # what the classes of each task are called
    "copy": LETTERS,
    "reverse": LETTERS,
    "sort": LETTERS,
    "brackets": BRACKETS,
    "compare": "<>",
}


class Pattern(NamedTuple):
    """A batch of one task."""

    queries: np.ndarray  # (N, T_q, F_q)
    keys: np.ndarray  # (N, T_k, F_k)
    mask: np.ndarray  # (N, T_q, T_k): True where looking is allowed
    targets: np.ndarray  # (N, T_q): the class to name, -1 where nothing is asked
    right: np.ndarray  # (N, T_q, T_k): True at the keys that tell it
    query_labels: list  # N lists of T_q texts
    key_labels: list


def sample(task, n, rng):
    """A batch of a task.

    copy       query i, a position, names letter i. 4 to 8 letters, padded
    reverse    query i, a position, names letter 7 − i. 8 letters
    sort       a query, the letter named last (at the start ^), names the next in the alphabet of 4 to 8, padded
    brackets   a closing bracket names the kind of bracket that it closes. Self-attention, causal and padded
    compare    query i, a position, tells whether letter i comes before (<) or after (>) letter 7 − i
    """
    if task not in NAMES:
        raise ValueError(f"no task is called {task!r}; there are {', '.join(NAMES)}")
    return _brackets(n, rng) if task == "brackets" else _letters(task, n, rng)


def one_hot(ids, size):
    """A further axis of zeros with a one at each id; none where it is -1."""
    return (np.asarray(ids)[..., None] == np.arange(size)).astype(float)


def _letters(task, n, rng):
    places = np.tile(np.arange(LENGTH), (n, 1))
    letters = rng.integers(0, len(LETTERS), (n, LENGTH))
    if task in ("sort", "compare"):  # without repetition
        letters = rng.permuted(np.tile(np.arange(len(LETTERS)), (n, 1)), axis=1)[:, :LENGTH]
    lengths = rng.integers(SHORTEST, LENGTH + 1, n) if task in ("copy", "sort") else np.full(n, LENGTH)
    exists = places < lengths[:, None]
    letters = np.where(exists, letters, -1)
    source = {"copy": places, "reverse": places[:, ::-1], "compare": places[:, ::-1]}.get(task)
    if source is None:
        source = np.argsort(np.where(exists, letters, len(LETTERS)), axis=1, kind="stable")
    targets = np.take_along_axis(letters, source, axis=1)
    right = (source[..., None] == places[:, None]) & (targets >= 0)[..., None]
    queries, query_labels = one_hot(places, LENGTH), [[str(i) for i in range(LENGTH)]] * n
    if task == "sort":
        last = np.where(exists, np.roll(targets, 1, axis=1), -1)
        last[:, 0] = len(LETTERS)
        queries, query_labels = one_hot(last, len(LETTERS) + 1), _labels(last, LETTERS + "^")
    if task == "compare":
        targets, right = (letters > targets).astype(int), right | np.eye(LENGTH, dtype=bool)
    keys = np.concatenate([one_hot(letters, len(LETTERS)), one_hot(places, LENGTH)], axis=2)
    mask = np.repeat(exists[:, None], LENGTH, axis=1)
    return Pattern(queries, keys, mask, targets, right, query_labels, _labels(letters, LETTERS))


def _brackets(n, rng):
    kinds, depths, partners = (np.full((n, LONGEST), -1) for _ in range(3))
    lengths = 2 * rng.integers(2, LONGEST // 2 + 1, n)
    for row, length in enumerate(lengths):
        waiting = []
        for i in range(length):
            full = len(waiting) in (length - i, DEEPEST)
            if waiting and (full or rng.random() < 0.5):
                partners[row, i] = waiting.pop()
                kinds[row, i], depths[row, i] = len(BRACKETS), len(waiting)
            else:
                kinds[row, i], depths[row, i] = rng.integers(len(BRACKETS)), len(waiting)
                waiting.append(i)
    features = one_hot(kinds, len(BRACKETS) + 1), one_hot(depths, DEEPEST), np.tile(np.eye(LONGEST), (n, 1, 1))
    x = np.concatenate(features, axis=2)
    mask = (kinds >= 0)[:, None] & np.tri(LONGEST, dtype=bool)
    targets = np.where(partners < 0, -1, np.take_along_axis(kinds, np.maximum(partners, 0), axis=1))
    labels = _labels(kinds, BRACKETS + CLOSE)
    return Pattern(x, x, mask, targets, one_hot(partners, LONGEST).astype(bool), labels, labels)


def _labels(ids, names):
    """Rows of ids as rows of texts; -1 is none."""
    return [[names[k] if k >= 0 else "" for k in row] for row in ids]
