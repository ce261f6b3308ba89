# ruff: noqa: F722, F821
"""A lesson's declarations, as small as they can be: what the tests of building and grading work on.

Importing this registers its exercises, so only the fixture `sample` does it.
"""

from autograder.exercise import exercise, gradient_of

SIZES = [dict(n=5), dict(n=1)]


@exercise(points=2, minutes=3, difficulty=1, cases=SIZES, hints=("Look at *one* number.", "Twice $x$.", "`2 * x`"))
def double_forward(x: "n") -> "y: n":
    """Twice as much."""
    return 2 * x


gradient_of(double_forward, points=4, minutes=10, difficulty=3)


@exercise(points=1, minutes=5, difficulty=2, cases=SIZES, repair=True)
def repair_triple(x: "n") -> "y: n":
    """Three times as much."""
    return 3 * x
