"""Small data sets: real digits, and generators whose truth is known."""

from course.data.digits import Split, digits
from course.data.plane import blobs, spirals, two_moons, xor

__all__ = ["Split", "blobs", "digits", "spirals", "two_moons", "xor"]
