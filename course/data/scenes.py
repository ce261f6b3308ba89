"""Scenes with known truth: edges make textures, textures and contours make shapes, shapes objects, objects scenes.

Images are (n, 1, SIZE, SIZE) float32, mid-grey at 0, black near −1 and white near 1. Every drawing has its own place,
size, brightness, contrast, polarity and a little noise, so that no level can be told from how bright an image is.

- *edge*: one step from dark to bright of limited length, in one of four orientations (`horizontal` means that the line
  of the edge is horizontal; give or take 8°); which side is bright is random.
- *texture*: edges that repeat every 4 to 6 pixels over the whole image: `stripes`; `zigzag` (stripes that turn by a
  right angle every period); `checks`; `dots` (on a square grid). Its direction and phase are random, so no texture
  is a single orientation.
- *shape*: a contour, lighter or darker than all around it, with a random texture inside, on a random faint texture.
- *object*: two shapes of equal size, one standing on the other (OBJECTS). House and easel consist of the same shapes,
  and so do tree and cart: only the arrangement tells them apart.
- *scene*: two objects side by side, the one made of triangle and square, the other of circle and square; which two, and
  which of them is on the left, makes the class. Every scene has the same four shapes in its objects. Besides, a scene
  has what does not matter for its class: a shadow's edge and a texture in the background, and a fifth, lone shape.
"""

from itertools import product

import numpy as np

SIZE = 48
LEVELS = ("edge", "texture", "shape", "object", "scene")
OBJECTS = {  # the shape above, the shape below
    "house": ("triangle", "square"),
    "easel": ("square", "triangle"),
    "tree": ("circle", "square"),
    "cart": ("square", "circle"),
}
_PAIRS = [pair for a, b in product(("house", "easel"), ("tree", "cart")) for pair in ((a, b), (b, a))]
CLASSES = {
    "edge": ("horizontal", "falling", "vertical", "rising"),
    "texture": ("stripes", "zigzag", "checks", "dots"),
    "shape": ("circle", "square", "triangle", "cross"),
    "object": tuple(OBJECTS),
    "scene": tuple(f"{left}, {right}" for left, right in _PAIRS),  # left, right
}
_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32)
_CHUNK = 250  # images drawn at a time: their arrays fit the processor's cache
_STACKS = np.array([[CLASSES["shape"].index(shape) for shape in pair] for pair in OBJECTS.values()])
_SCENES = np.array([[CLASSES["object"].index(name) for name in pair] for pair in _PAIRS])


def sample(level, n, seed):
    """Stimuli of one level: images (n, 1, SIZE, SIZE) and labels (n,), indices into CLASSES[level]."""
    if level not in LEVELS:
        raise ValueError(f"no level named {level!r}: there are {', '.join(LEVELS)}")
    if level == "scene":
        images, labels = scenes(n, seed)
        return images, labels["scene"]
    return _drawn(_DRAW[level], level, n, seed)


def scenes(n, seed):
    """Whole scenes (n, 1, SIZE, SIZE) and what is true of them at each level.

    labels  "edge" (n,): orientation of the shadow's edge; "texture" (n,): that of the background; "shape" (n,): the
            lone shape; "object" (n, 4): which objects are there; "scene" (n,): the class
    """
    images, truth = _drawn(_scene, "scene", n, seed)
    scene, edge, texture, lone = truth.T
    present = (_SCENES[scene][:, :, None] == np.arange(len(OBJECTS))).any(1)
    return images, {"edge": edge, "texture": texture, "shape": lone, "object": present, "scene": scene}


def _drawn(draw, level, n, seed):
    """n images of `draw(labels, rng)`, each class of the level as often as every other, in random order."""
    rng = np.random.default_rng([seed, LEVELS.index(level)])
    wanted = rng.permutation(np.arange(n) % len(CLASSES[level]))
    parts = [draw(wanted[k : k + _CHUNK], rng) for k in range(0, n, _CHUNK)]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    images += 0.03 * rng.standard_normal(images.shape, dtype=np.float32)
    return images[:, None], labels


# --- one level each: labels (n,) -> images (n, SIZE, SIZE) and what is known of them ---------------------------------


def _edge(labels, rng):
    n = len(labels)
    x, y = _around(*_between(rng, 12, SIZE - 12, (2, n)))
    step = _step(x, y, labels, rng)
    length = _between(rng, 5, 9, n)
    return _each(_contrast(rng, 0.5, 1.0, n)) * step * np.exp(-(x**2 + y**2) / (2 * _each(length) ** 2)), labels


def _texture(labels, rng):
    n = len(labels)
    return _each(_between(rng, -0.2, 0.2, n)) + _each(_contrast(rng, 0.25, 0.6, n)) * _pattern(labels, rng), labels


def _shape(labels, rng):
    n = len(labels)
    images = _ground(n, rng)[0]
    radius = _between(rng, 4.5, 9, n)
    _put(images, labels, *_inside(rng, radius, radius), radius, _contrast(rng, 0.6, 0.9, n), rng)
    return images, labels


def _object(labels, rng):
    n = len(labels)
    images = _ground(n, rng)[0]
    radius = _between(rng, 4.5, 6, n)
    _stack(images, labels, *_inside(rng, radius, 2 * radius), radius, rng)
    return images, labels


def _scene(labels, rng):
    n = len(labels)
    images, texture = _ground(n, rng)
    edge = rng.integers(0, 4, n)
    images += _each(_contrast(rng, 0.1, 0.2, n)) * _step(*_around(*_between(rng, 16, SIZE - 16, (2, n))), edge, rng)
    below = np.empty((2, n), bool)
    for side, label in enumerate(_SCENES[labels].T):
        radius = _between(rng, 4.5, 6, n)
        x, y = _between(rng, 8, 16, n) + 24 * side, _inside(rng, radius, 2 * radius)[1]
        below[side] = y > SIZE / 2
        _stack(images, label, x, y, radius, rng)
    lone, beside = (
        rng.integers(0, 4, n),
        rng.integers(0, 2, n),
    )  # above or below one of the objects, where there is room
    x, y = _between(rng, 7, 17, n) + 24 * beside, _between(rng, 5.5, 6.5, n)
    y = np.where(below[beside, np.arange(n)], y, SIZE - 1 - y)
    _put(images, lone, x, y, _between(rng, 3.5, 4.5, n), _contrast(rng, 0.6, 0.9, n), rng)
    return images, np.stack([labels, edge, texture, lone], axis=1)


_DRAW = {"edge": _edge, "texture": _texture, "shape": _shape, "object": _object}


# --- what they are made of -------------------------------------------------------------------------------------------


def _ground(n, rng):
    """A faint texture over the whole image."""
    kinds = rng.integers(0, 4, n)
    level, contrast = _between(rng, -0.2, 0.2, n), _contrast(rng, 0.08, 0.16, n)
    return _each(level) + _each(contrast) * _pattern(kinds, rng), kinds


def _step(x, y, labels, rng):
    """From −1 to 1 across a line in one of four orientations."""
    n = len(labels)
    angle = np.pi / 4 * labels + _between(rng, -0.14, 0.14, n)
    return np.clip(_each(-np.sin(angle)) * x + _each(np.cos(angle)) * y, -1, 1)


def _pattern(kinds, rng):
    """A texture over each image, of mean 0 and standard deviation 1."""
    n = len(kinds)
    angle, period = _between(rng, 0, np.pi, n), _between(rng, 4, 6, n)
    phase = _between(rng, 0, 1, (2, n))
    across, along = _each(np.cos(angle) / period), _each(np.sin(angle) / period)
    u, v = _COLUMNS * across + _ROWS * along + _each(phase[0]), _ROWS * across - _COLUMNS * along + _each(phase[1])
    images = np.empty_like(u)
    for kind, name in enumerate(CLASSES["texture"]):
        here = kinds == kind
        if name == "zigzag":
            waves = np.sin(2 * np.pi * (u[here] + np.abs(v[here] % 2 - 1)))
        else:
            waves, other = np.sin(2 * np.pi * u[here]), np.sin(2 * np.pi * v[here]) if name != "stripes" else None
            waves = waves * other if name == "checks" else (waves + other) / 2 - 0.4 if name == "dots" else waves
        images[here] = np.clip(3 * waves, -1, 1)
    images -= images.mean((1, 2), keepdims=True)
    return images / images.std((1, 2), keepdims=True)


def _stack(images, labels, x, y, radius, rng):
    """Two shapes, one standing on the other, in one contrast."""
    contrast = _contrast(rng, 0.6, 0.9, len(labels))
    for label, centre in zip(_STACKS[labels].T, (y - radius, y + radius), strict=True):
        _put(images, label, x, centre, radius, contrast, rng)


def _put(images, labels, x, y, radius, contrast, rng):
    """Draw one shape into each image: a contour and, inside, a texture."""
    n = len(labels)
    distance = _distance(labels, *_around(x, y), _each(radius))
    fill = _each(_between(rng, -0.2, 0.2, n)) + _each(_contrast(rng, 0.15, 0.3, n)) * _pattern(
        rng.integers(0, 4, n), rng
    )
    inside, line = np.clip(0.5 - distance, 0, 1), np.clip(1.1 - np.abs(distance), 0, 1)
    images += inside * (fill - images)
    images += line * (_each(contrast) - images)


def _distance(labels, x, y, r):
    """How far each pixel lies outside the contour (negative inside) of a shape of half-width r about the origin."""
    distance = np.empty_like(x)
    for label, name in enumerate(CLASSES["shape"]):
        here = labels == label
        a, b, size = np.abs(x[here]), y[here], r[here]
        if name == "circle":
            d = np.hypot(a, b) - size
        elif name == "square":
            d = np.maximum(a, np.abs(b)) - 0.9 * size
        elif name == "triangle":
            d = np.maximum((2 * a - b - size) / np.sqrt(5, dtype=np.float32), b - 0.95 * size)
        else:
            b = np.abs(b)
            d = np.maximum(np.maximum(a, b) - size, np.minimum(a, b) - 0.35 * size)
        distance[here] = d
    return distance


# --- randomness ------------------------------------------------------------------------------------------------------


def _between(rng, low, high, shape):
    return rng.uniform(low, high, shape).astype(np.float32)


def _contrast(rng, low, high, n):
    """A contrast between low and high, of either sign."""
    return _between(rng, low, high, n) * rng.choice(np.float32([-1, 1]), n)


def _inside(rng, half_width, half_height):
    """Centres x, y (n,) such that what is drawn lies inside the image."""
    return tuple(
        half + 1 + (SIZE - 3 - 2 * half) * _between(rng, 0, 1, len(half)) for half in (half_width, half_height)
    )


def _around(x, y):
    """Each pixel's coordinates (n, SIZE, SIZE) as seen from the points x, y (n,)."""
    return _COLUMNS - _each(x), _ROWS - _each(y)


def _each(values):
    """One number per image, (n,) -> (n, 1, 1)."""
    return np.asarray(values, np.float32)[:, None, None]
