"""Labelled points in the plane: x (n, 2), y (n,) whole numbers. Each generator draws from the `rng` it is given."""

import numpy as np


def two_moons(n=200, noise=0.1, rng=None):
    """Two interleaved half circles, one class each."""
    rng = _rng(rng)
    y = np.arange(n) % 2
    angle = rng.uniform(0, np.pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return np.where(y[:, None] == 0, upper, lower) + rng.normal(0, noise, (n, 2)), y


def xor(n=200, noise=0.1, rng=None):
    """Class 1 where the two coordinates have different signs: no straight line separates it."""
    rng = _rng(rng)
    x = rng.uniform(-1, 1, (n, 2))
    y = (x[:, 0] * x[:, 1] < 0).astype(np.int64)
    return x + rng.normal(0, noise, (n, 2)), y


def blobs(n=200, noise=0.3, rng=None, classes=3):
    """One round cloud per class, their centres evenly spaced on the unit circle."""
    rng = _rng(rng)
    y = np.arange(n) % classes
    angle = 2 * np.pi * y / classes
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, noise, (n, 2)), y


def spirals(n=200, noise=0.05, rng=None, classes=2):
    """One spiral arm per class, wound about the origin."""
    rng = _rng(rng)
    y = np.arange(n) % classes
    radius = rng.uniform(0.1, 1, n)
    angle = 4 * radius + 2 * np.pi * y / classes
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, noise, (n, 2)), y


def _rng(rng):
    return np.random.default_rng(0) if rng is None else np.random.default_rng(rng)
