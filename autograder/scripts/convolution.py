"""Lesson 09: plays a size that may be impossible, and counts the steps of a fast convolution."""

import sys
from pathlib import Path

import numpy as np

NUMPY = str(Path(np.__file__).parent)


def output_size(conv_output_size, size, kernel_size, fits=True, **geometry) -> "size:, (refusals):":
    """A kernel that does not fit has to be refused with a ValueError."""
    try:
        return conv_output_size(size, kernel_size, **geometry), 0
    except ValueError:
        if fits:
            raise
        return 0, 1


def fast_forward(
    conv2d_forward_fast, x: "n c ih iw", w: "o i kh kw", b: "o", larger: "...", **geometry
) -> "y: ..., (loops over the picture):":
    """Whether Python takes more steps for a larger picture than for x: NumPy's own steps do not count."""
    y = conv2d_forward_fast(x, w, b, **geometry)
    few, many = (_steps(conv2d_forward_fast, images, w, b, **geometry) for images in (x, larger))
    return y, many > few


def _steps(function, *args, **kwargs):
    """The lines that one call executes, in every frame that is not NumPy's."""
    steps = 0

    def step(frame, event, arg):
        nonlocal steps
        steps += event == "line"
        return step

    def enter(frame, event, arg):
        return None if frame.f_code.co_filename.startswith(NUMPY) else step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        function(*args, **kwargs)
    finally:
        sys.settrace(before)
    return steps
