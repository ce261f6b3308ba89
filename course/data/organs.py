"""Generated scans: a body with organs and lesions, and masks that are exact because the masks were there first.

A stand-in for medical images, drawn from ellipses, waves and noise: nothing here was measured on anybody, and nothing
learned from it says anything about patients.
"""

from typing import NamedTuple

import numpy as np

CLASSES = ("background", "organ", "lesion")


class Scans(NamedTuple):
    """Images (n, 1, size, size), float32, mostly from 0 to 1, and masks (n, size, size) of the classes 0, 1, 2."""

    images: np.ndarray
    masks: np.ndarray


def organs(n, rng, size=32):
    """`n` scans of `size` × `size` pixels.

    In a grey body lie one or two brighter organs with wavy outlines and stripes inside (class 1). In them are one or
    two lesions (class 2), discs with a radius of 1.2 to 3 pixels at size 32, brighter or darker than the organ; a
    quarter of the scans has none. Vessels, small bright spots, lie in the body outside the organs and are background:
    whether a bright spot is a lesion depends on where it lies. Illumination and noise differ from scan to scan.
    """
    drawn = [_scan(rng, size) for _ in range(n)]
    images, masks = (np.stack(part) for part in zip(*drawn, strict=True))
    return Scans(images[:, None].astype(np.float32), masks.astype(np.int64))


def _scan(rng, size):
    unit = size / 32
    y, x = np.mgrid[:size, :size] + 0.5
    body = _blob(x, y, size / 2, size / 2, rng.uniform(13.5, 15.5) * unit, 0.04, rng)
    organ = np.zeros((size, size), bool)
    for side in rng.permutation((-1, 1))[: rng.integers(1, 3)]:
        across, down = size / 2 + side * rng.uniform(4.5, 6.5) * unit, size / 2 + rng.uniform(-4, 4) * unit
        organ |= _blob(x, y, across, down, rng.uniform(4, 6.5) * unit, 0.2, rng)
    organ &= body
    inner = ~_grown(~organ)
    inner = inner if inner.any() else organ
    lesion, brighter = np.zeros_like(organ), np.zeros((size, size))
    for _ in range(0 if rng.random() < 0.25 else rng.integers(1, 3)):
        spot = _disc(x, y, *_somewhere(inner, rng), rng.uniform(1.2, 3) * unit) & organ
        lesion |= spot
        brighter[spot] = rng.choice((-0.4, 0.4))
    vessel, outside = np.zeros_like(organ), body & ~_grown(organ)
    for _ in range(rng.integers(1, 5) if outside.any() else 0):
        vessel |= _disc(x, y, *_somewhere(outside, rng), rng.uniform(1, 2) * unit) & outside
    turn = rng.uniform(0, np.pi)
    stripes = 0.05 * np.sin((x * np.cos(turn) + y * np.sin(turn)) * 1.3 / unit)
    clean = 0.25 * body + np.where(organ, 0.25 + stripes + brighter, 0) + 0.5 * vessel
    light = 1 + 0.3 * (rng.uniform(-1, 1) * (x / size - 0.5) + rng.uniform(-1, 1) * (y / size - 0.5))
    image = _blurred(clean * light) + rng.uniform(0.02, 0.06) * rng.standard_normal((size, size))
    return image, np.where(lesion, 2, organ.astype(int))


def _blob(x, y, across, down, radius, waves, rng):
    """A filled ellipse whose outline waves."""
    stretch, turn = rng.uniform(0.8, 1.25), rng.uniform(0, np.pi)
    along, beside = x - across, y - down
    u, v = along * np.cos(turn) + beside * np.sin(turn), beside * np.cos(turn) - along * np.sin(turn)
    angle = np.arctan2(v, u)
    outline = 1 + sum(waves / k * rng.uniform(-1, 1) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    return np.hypot(u / stretch, v * stretch) < radius * outline


def _disc(x, y, across, down, radius):
    return np.hypot(x - across, y - down) < radius


def _somewhere(mask, rng):
    """The middle (across, down) of a pixel of the mask."""
    down, across = np.argwhere(mask)[rng.integers(mask.sum())] + 0.5
    return across, down


def _grown(mask):
    """The mask and the pixels within two of it."""
    for _ in range(2):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _blurred(image):
    """Each pixel with a quarter of its neighbours: edges as soft as a scanner makes them."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        image = (padded.take(range(image.shape[axis]), axis) + 2 * image
                 + padded.take(range(2, image.shape[axis] + 2), axis)) / 4  # fmt: skip
    return image
