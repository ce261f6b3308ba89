"""Lesson 11: what two networks make of digits that have moved by a pixel."""

import numpy as np

from course.widgets import picture
from course.widgets.predict import Predict


def moved(images, rows, columns):
    """Images (n, c, h, w) moved down and right by whole pixels; what comes in is 0."""
    h, w = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (abs(rows),) * 2, (abs(columns),) * 2))
    top, left = abs(rows) - rows, abs(columns) - columns
    return padded[:, :, top : top + h, left : left + w]


def table(results):
    """Mean accuracies (in %) of {name: (seeds, 2)}, on digits as they are and moved, with the spread as a tip."""
    runs = 100 * np.array(list(results.values()))
    return picture.heat(
        runs.mean(axis=1),
        alt="mean accuracy in percent",
        palette="magnitude",
        vmin=0,
        vmax=100,
        rows=list(results),
        columns=["as they are", "moved by a pixel"],
        tips=lambda i, j: f"the seeds: {', '.join(f'{run:.0f}' for run in np.sort(runs[i, :, j]))} %",
        digits=0,
    )


def guess_moved(results, name):
    """Predict: how many test digits the network `name` still gets right when they have moved by one pixel."""
    mean = 100 * np.mean(results[name], axis=0)
    return Predict(
        f"The CNN gets {mean[0]:.0f} % of the test digits right. Now each is moved by one pixel, up, down, left "
        "or right. How many per cent does it still get right?",
        answer=float(round(mean[1])),
        tolerance=5,
        reveal=lambda: (
            table(results)
            + picture.note("Test digits right, in %, the mean over the seeds; point at a cell to see each of them.")
        ),
    )
