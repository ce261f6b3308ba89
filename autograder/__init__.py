"""Checks, grades and releases the lessons of Layer by Layer.

What notebooks use is `check`, `examine`, `mine` and `reference`. They are imported on first use, so that a process
that runs a student's code can import `autograder.play` without loading a single reference.
"""

__all__ = ["CheckFailed", "check", "examine", "mine", "reference"]


def __getattr__(name: str):
    if name in __all__:
        from autograder import grade

        return getattr(grade, name)
    raise AttributeError(f"module 'autograder' has no attribute {name!r}")
