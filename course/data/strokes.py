"""Short strokes in noise, anywhere in a picture: what a kernel should find is known."""

import numpy as np

SIZE, LENGTH, NOISE = 12, 4, 0.2
DIRECTIONS = {"—": (0, 1), "\\": (1, 1), "|": (1, 0), "/": (1, -1)}  # a step along the stroke: rows, columns


def strokes(n, rng, half=None):
    """Pictures x (n, 1, 12, 12) with one stroke each, and its direction t (n,), a number from 0 to 3.

    half   "left" or "right": the stroke lies in that half; None: anywhere
    """
    x, t = NOISE * rng.standard_normal((n, 1, SIZE, SIZE)), rng.integers(0, len(DIRECTIONS), n)
    first, last = {None: (0, SIZE), "left": (0, SIZE // 2), "right": (SIZE // 2, SIZE)}[half]
    along, steps = np.array(list(DIRECTIONS.values()))[t], np.arange(LENGTH)
    reach = (LENGTH - 1) * along
    top = rng.integers(0, SIZE - reach[:, 0])
    left = rng.integers(first - np.minimum(reach[:, 1], 0), last - np.maximum(reach[:, 1], 0))
    rows, columns = top[:, None] + steps * along[:, :1], left[:, None] + steps * along[:, 1:]
    x[np.arange(n)[:, None], 0, rows, columns] += 1
    return x, t
