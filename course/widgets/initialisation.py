"""Lesson 05: signals and gradients through a deep random network, clipping, and units that never part."""

from functools import lru_cache

import numpy as np

from course.widgets import picture
from course.widgets.chart import several
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.predict import Predict

COLOURS = picture.COLOURS

# Each activation and its slope, entry by entry.
ACTIVATIONS = {
    "linear": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (lambda z: 0.5 + 0.5 * np.tanh(0.5 * z), lambda z: 0.25 - 0.25 * np.tanh(0.5 * z) ** 2),
}


# --- signals through depth -------------------------------------------------------------------------------------------


def propagate(weights, activation, x, dy):
    """x (n, d) forwards and dy (n, d) backwards through layers of weights (o, i) without biases.

    Returns the activations (the input first) and the gradients with respect to each of them, as two lists.
    """
    function, slope = ACTIVATIONS[activation]
    hs, slopes = [x], []
    for w in weights:
        z = hs[-1] @ w.T
        slopes.append(slope(z))
        hs.append(function(z))
    dhs = [dy]
    for w, s in zip(reversed(weights), reversed(slopes), strict=True):
        dhs.append((dhs[-1] * s) @ w)
    return hs, dhs[::-1]


def mean_squares(arrays):
    """The mean square of each array."""
    return np.array([np.mean(np.square(array, dtype=float)) for array in arrays])


_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(100)
_SHARES = _SHARES / _SHARES.sum()


def moments(activation, q):
    """The means of f(z)² and of f'(z)² for z from N(0, q), by quadrature."""
    function, slope = ACTIVATIONS[activation]
    z = np.sqrt(q) * _NODES
    return float(_SHARES @ function(z) ** 2), float(_SHARES @ slope(z) ** 2)


def predicted(activation, gain, depth):
    """The mean squares (depth + 1) of activations and of gradients, where those of x and dy are 1.

    The weights have the standard deviation gain / √width; the width is taken to be large.
    """
    signal, factors = [1.0], []
    for _ in range(depth):
        mean_square, slope_square = moments(activation, gain**2 * signal[-1])
        signal.append(mean_square)
        factors.append(gain**2 * slope_square)
    return np.array(signal), np.append(np.cumprod(factors[::-1])[::-1], 1.0)


DEPTH, BATCH = 50, 32
DECADES = (-12.0, 8.0)
BINS = 80


@lru_cache(maxsize=8)
def normals(width, draw):
    """Standard normal weights (DEPTH, width, width) of a network: drawn once, scaled while a slider moves."""
    return np.random.default_rng(draw).standard_normal((DEPTH, width, width), dtype=np.float32)


@lru_cache(maxsize=8)
def rotations(width, draw):
    """Random orthogonal weights (DEPTH, width, width)."""
    q, r = np.linalg.qr(normals(width, draw))
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]


@lru_cache
def ends(width):
    """What goes in at either end: x and dy (BATCH, width), normal, with a mean square of just 1."""
    both = np.random.default_rng(0).standard_normal((2, BATCH, width), dtype=np.float32)
    return both / np.sqrt(np.square(both).mean((1, 2), keepdims=True))


def histograms(arrays, powers):
    """The share (BINS, DEPTH + 1) of each array's numbers in each bin; nan where there is no layer.

    powers   bins of log10 |value| over DECADES, zeros left out; otherwise of the value from -3 to 3, what lies
             outside in the last bin
    """
    low, high = DECADES if powers else (-3.0, 3.0)
    shares = np.full((BINS, DEPTH + 1), np.nan)
    for k, array in enumerate(arrays):
        values = np.ravel(array)
        values = np.log10(np.abs(values[values != 0])) if powers else values
        place = np.clip((values - low) / (high - low) * BINS, 0, BINS - 1).astype(int)
        shares[::-1, k] = np.bincount(place, minlength=BINS) / array.size
    return shares


def strip(shares, title, role, powers, width=380, height=190):
    """The histograms of all layers side by side: one column each, bright where many numbers lie."""
    low, high = DECADES if powers else (-3.0, 3.0)
    uri = picture.data_uri(picture.png8(np.sqrt(shares), "magnitude", 0, 0.5))
    left, column = 42, width / (DEPTH + 1)
    parts = [
        f'<image href="{uri}" x="{left}" width="{width}" height="{height}" preserveAspectRatio="none" '
        'style="image-rendering:pixelated"/>',
        f'<rect x="{left}" width="{width}" height="{height}" fill="none" stroke="currentColor" opacity=".4"/>',
    ]
    for value in range(-12, 9, 4) if powers else range(-3, 4):
        y = (high - value) / (high - low) * height
        text = ("1" if value == 0 else f"1e{value}") if powers else str(value)
        parts.append(
            f'<text x="{left - 5}" y="{min(max(y + 4, 9), height):.1f}" text-anchor="end">'
            f"{text.replace('-', '−')}</text>"
        )
    for layer in range(0, DEPTH + 1, 10):
        x = left + (layer + 0.5) * column
        parts.append(f'<text x="{x:.1f}" y="{height + 14}" text-anchor="middle">{layer}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{height + 29}" text-anchor="middle">layer</text>')
    size = f'width="{left + width + 8}" height="{height + 34}" viewBox="0 0 {left + width + 8} {height + 34}"'
    drawing = f'<svg role="img" aria-label="{title}" {size} font-size="11.5">{"".join(parts)}</svg>'
    return picture.piece(drawing, title, role)


def power(value):
    """A number in at most two digits, however small or large."""
    value = float(value)
    if not np.isfinite(value):
        return "∞"
    if 0.01 <= value < 1e4 or value == 0:
        return picture.number(round(value, 2))
    return f"{value:.0e}".replace("e-0", "e−").replace("e-", "e−").replace("e+0", "e").replace("e+", "e")


STARTS = ("gain", "gain, orthogonal", "Xavier", "He")
GAINS = {"Xavier": 1.0, "He": 2**0.5}  # of layers whose two fans are equal


def flow(xavier_uniform, he_normal, reference, activation="relu", gain=1.0, start="gain"):
    """A deep random network: histograms of its activations and gradients, layer by layer, and the prediction."""
    drawers = {"Xavier": (live(xavier_uniform), "xavier_uniform"), "He": (live(he_normal), "he_normal")}

    def network(start, gain, width, depth, number):
        """The weights, and the gain that a prediction takes them to have."""
        if start == "gain":
            return list(normals(width, number)[:depth] * np.float32(gain / np.sqrt(width))), gain
        if start == "gain, orthogonal":
            return list(rotations(width, number)[:depth] * np.float32(gain)), gain
        rng, (draw_weights, _) = np.random.default_rng(number), drawers[start]
        return [np.asarray(draw_weights((width, width), rng)) for _ in range(depth)], GAINS[start]

    def unlike(start):
        """A sentence where the learner's weights are not the reference's."""
        if start not in drawers:
            return ""
        mine, name = drawers[start]
        shape = (6, 3)
        got, want = (f(shape, np.random.default_rng(3)) for f in (mine, reference(name)))
        if np.shape(got) == shape and not picture.differs(got, want).any():
            return ""
        return (
            f'<div class="lbl-verdict" style="border-color:{COLOURS["wrong"]}">{name} draws other weights than the '
            f"reference for the shape {shape}</div>"
        )

    def draw(depth, width, activation, start, gain, number, values):
        weights, gain = network(start, gain, width, depth, number)
        signal, gradient = predicted(activation, gain, depth)
        hs, dhs = propagate(weights, activation, *ends(width))
        powers = values == "powers of ten"
        strips = picture.row(
            strip(histograms(hs, powers), "activations: histogram of each layer", "output", powers),
            strip(histograms(dhs, powers), "gradients: histogram of each layer", "gradient", powers),
        )
        lines, layers = {}, np.arange(depth + 1)
        for name, arrays, want, role in (
            ("activations", hs, signal, "output"),
            ("gradients", dhs, gradient, "gradient"),
        ):
            root = 0.5 * np.log10(np.maximum(mean_squares(arrays), 1e-300))
            lines[name] = (layers, root, {"colour": COLOURS[role], "points": True, "line": False})
            lines[f"{name}, predicted"] = (layers, 0.5 * np.log10(want), {"colour": COLOURS[role], "dash": True})
        chart = picture.curve(
            lines,
            alt="root mean square of activations and gradients in every layer, and the prediction",
            title="log₁₀ of the root mean square",
            x_label="layer",
            x_range=(-0.5, DEPTH + 0.5),
            y_range=DECADES,
            width=850,
            height=240,
        )
        ends_at = np.sqrt(mean_squares([hs[-1], dhs[0]]))
        found = f" Measured: {power(ends_at[0])} and {power(ends_at[1])}."
        return picture.figure(
            strips + chart + unlike(start), said(depth, width, activation, start, gain, number, values) + found
        )

    def said(depth, width, activation, start, gain, number, values):
        how = f" ({start}'s: the gain slider does nothing here)" if start in GAINS else ""
        gain = GAINS.get(start, gain)
        signal, gradient = predicted(activation, gain, depth)
        signal, gradient = power(np.sqrt(signal[-1])), power(np.sqrt(gradient[0]))
        return (
            f"{depth} {activation} layer{'s' * (depth > 1)} of width {width}, gain {picture.number(gain)}{how}. "
            f"Predicted: the activations' root mean square goes from 1 to {signal}, the gradients', on the way back, "
            f"from 1 to {gradient}."
        )

    return Explorer(
        draw,
        alt=said,
        height=530,
        depth=slider("depth", 1, DEPTH, 30),
        width=choice("width", [16, 64, 128], 64),
        activation=choice("activation", list(ACTIVATIONS), activation),
        start=choice("weights", list(STARTS), start),
        gain=slider("gain g (std = g / √width)", 0.4, 2.6, gain, 0.05),
        number=slider("draw number", 1, 8, 3),
        values=choice("values", ["powers of ten", "as they are"]),
    )


def guess_depth(reference):
    """Predict: what thirty ReLU layers with weights of variance 1 / width leave of a signal."""
    arguments = reference("xavier_uniform"), reference("he_normal"), reference
    return Predict(
        "30 ReLU layers of width 64. Each weight has the variance 1/64, with which a linear layer keeps the size of a "
        "signal. What goes in has a root mean square of 1; what comes out has about …",
        answer="0.00003",
        options=["1", "0.5", "0.03", "0.00003"],
        reveal=lambda: flow(*arguments).snapshot(depth=30, width=64, gain=1.0),
    )


# --- still pictures --------------------------------------------------------------------------------------------------


def levels(networks):
    """Two charts of root mean squares: three networks {"name": (activations, gradients)}, arrays layer by layer."""
    charts, colours = [], (COLOURS["input"], COLOURS["right"], COLOURS["wrong"])
    for k, title in enumerate(("activations, on the way forward", "gradients, on the way back")):
        lines = {}
        for (name, arrays), colour in zip(networks.items(), colours, strict=True):
            sizes = 0.5 * np.log10(mean_squares(arrays[k]))
            lines[name] = (np.arange(len(sizes)), sizes, {"colour": colour})
        labels = dict(x_label="layer", y_label="log₁₀ of the root mean square", width=420, height=250)
        charts.append(picture.piece(picture.curve(lines, title, y_range=(-10.5, 10.5), **labels), title))
    return picture.row(*charts)


def courses(histories):
    """Train loss and test accuracy over the epochs: {"name": [[(loss, accuracy), …] for each seed]}."""
    charts = []
    for k, (title, top) in enumerate((("train loss", 3.0), ("test accuracy", 1.0))):
        lines = {}
        for name, runs in histories.items():
            values = np.asarray(runs, float)[:, :, k]
            lines[name] = several(1 + np.arange(values.shape[1]), values)
        charts.append(
            picture.curve(lines, title, title, x_label="epoch", y_range=(0, top), width=430, height=270),
        )
    return picture.row(*charts)


# --- clipping --------------------------------------------------------------------------------------------------------


def arrow(start, end, colour, dash="", width=3):
    """An SVG arrow between two points."""
    (x0, y0), (x1, y1) = start, end
    length = float(np.hypot(x1 - x0, y1 - y0))
    if length < 2:
        return f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="3.5" fill="{colour}"/>'
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    wings = [(x1 - 9 * ux + side * 5 * uy, y1 - 9 * uy - side * 5 * ux) for side in (-1, 1)]
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in (wings[0], (x1, y1), wings[1]))
    dash = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{colour}" stroke-width="{width}"{dash}/>'
        f'<polygon points="{head}" fill="{colour}"/>'
    )


BY_VALUE = "#56B4E9"


def clipping(clip_grad_norm, reference):
    """A gradient of two parameters, the ball that clipping by norm keeps it in, the box of clipping by value."""
    mine, side, reach = live(clip_grad_norm), 330, 8.0

    def at(point):
        return (side / 2 + point[0] / reach * side / 2, side / 2 - point[1] / reach * side / 2)

    def clipped(function, dw, db, max_norm):
        (w, b), norm = function([np.array([dw]), np.array([db])], max_norm)
        return np.array([np.squeeze(w), np.squeeze(b)], float), float(norm)

    def wanted(dw, db, max_norm):
        norm = float(np.hypot(dw, db))
        return np.array([dw, db]) * min(1.0, max_norm / (norm + 1e-6)), norm

    def draw(dw, db, max_norm):
        (got, norm), (want, _) = clipped(mine, dw, db, max_norm), wanted(dw, db, max_norm)
        by_value = np.clip([dw, db], -max_norm, max_norm)
        radius = max_norm / reach * side / 2
        ball = f'fill="{COLOURS["gradient"]}" opacity=".16"'
        parts = [
            f'<path d="M0 {side / 2}h{side}M{side / 2} 0v{side}" stroke="currentColor" opacity=".3"/>',
            f'<circle cx="{side / 2}" cy="{side / 2}" r="{radius:.1f}" {ball}/>',
            f'<rect x="{side / 2 - radius:.1f}" y="{side / 2 - radius:.1f}" width="{2 * radius:.1f}" '
            f'height="{2 * radius:.1f}" fill="none" stroke="{BY_VALUE}" stroke-dasharray="3 4" opacity=".8"/>',
            arrow(at((0, 0)), at((dw, db)), "#8a8a8a", "6 4", 2),
            arrow(at((0, 0)), at(by_value), BY_VALUE, "2 3", 2.5),
            arrow(at((0, 0)), at(got), COLOURS["gradient"], "", 4),
            f'<text x="{side - 4}" y="{side / 2 - 6}" text-anchor="end">gradient of w</text>',
            f'<text x="{side / 2 + 6}" y="12">gradient of b</text>',
        ]
        note = ""
        if picture.differs(got, want).any():
            parts.append(arrow(at((0, 0)), at(want), COLOURS["wrong"], "4 3", 2))
            note = f'<b style="color:{COLOURS["wrong"]}">the reference gives ({pair(want)}), in orange</b>'
        label = f'role="img" aria-label="{said(dw, db, max_norm)}"'
        size = f'width="{side}" height="{side}" viewBox="0 0 {side} {side}" font-size="11.5"'
        svg = f"<svg {label} {size}>{''.join(parts)}</svg>"
        rows = [
            ("#8a8a8a", "as it is", (dw, db)),
            (COLOURS["gradient"], "clipped by norm, by your function", got),
            (BY_VALUE, "clipped by value", by_value),
        ]
        table = "".join(
            f'<div class="lbl-title" style="border-color:{colour};font-weight:400">{name}: ({pair(v)}), norm '
            f"<b>{picture.number(np.hypot(*v))}</b>, {turn(v, (dw, db))}</div>"
            for colour, name, v in rows
        )
        found = f"<div>norm returned: <b>{picture.number(norm, 3)}</b>, the one before clipping</div>"
        right = picture.piece(f'<div style="display:grid;gap:9px">{table}{found}{note}</div>')
        return picture.figure(picture.row(svg, right), said(dw, db, max_norm))

    def said(dw, db, max_norm):
        want, norm = wanted(dw, db, max_norm)
        if norm < max_norm:
            return f"The norm {picture.number(norm)} is below {picture.number(max_norm)}: nothing is changed."
        return (
            f"The norm {picture.number(norm)} exceeds {picture.number(max_norm)}: clipping by norm shortens the "
            f"gradient to ({pair(want)}) and keeps its direction; clipping by value may turn it."
        )

    return Explorer(
        draw,
        alt=said,
        height=380,
        dw=slider("gradient of w", -8.0, 8.0, 6.0, 0.5),
        db=slider("gradient of b", -8.0, 8.0, 2.0, 0.5),
        max_norm=slider("max_norm", 0.5, 8.0, 3.0, 0.5),
    )


def pair(v):
    return ", ".join(picture.number(value) for value in v)


def turn(v, original):
    """How far a vector was turned away from the original one, in words."""
    lengths = np.hypot(*v) * np.hypot(*original)
    degrees = np.degrees(np.arccos(np.clip(np.dot(v, original) / lengths, -1, 1))) if lengths else 0.0
    return "same direction" if degrees < 0.05 else f"turned by {degrees:.0f}°"


# --- units that never part -------------------------------------------------------------------------------------------


def distinct(w, tolerance=1e-6):
    """How many rows of w (units, inputs) differ from each other."""
    seen = []
    for row in w:
        if not any(np.allclose(row, other, rtol=tolerance, atol=tolerance) for other in seen):
            seen.append(row)
    return len(seen)


def symmetry(runs, start):
    """The incoming weights of every hidden unit as small images, over training.

    runs   {"zeros": [(w (units, 64), test accuracy) after epoch 0, 1, …], …}
    """
    last = min(map(len, runs.values())) - 1
    largest = {name: max(float(np.abs(w).max()) for w, _ in history) or 1.0 for name, history in runs.items()}

    def draw(start, epoch):
        w, accuracy = runs[start][epoch]
        sheet = picture.mosaic(w.reshape(-1, 8, 8), columns=8, gap=1)
        alt = f"{len(w)} units, {distinct(w)} different"
        image = picture.img(sheet, alt, "signed", vmax=largest[start], width=560)
        shares = {name: ([k for k in range(last + 1)], [a for _, a in history]) for name, history in runs.items()}
        chart = picture.curve(
            shares,
            alt="test accuracy of each start over the epochs",
            title="test accuracy",
            x_label="epoch",
            x_range=(0, last),
            y_range=(0, 1),
            width=560,
            height=190,
            marks=[(epoch, accuracy, f"{accuracy:.0%}")],
        )
        return picture.figure(
            picture.piece(image, "incoming weights of the hidden units", "parameter") + chart, said(start, epoch)
        )

    def said(start, epoch):
        w, accuracy = runs[start][epoch]
        different = distinct(w)
        units = (
            f"{different} of {len(w)} hidden units are different" if different > 1 else "all hidden units are the same"
        )
        return f"Start {start}, after epoch {epoch}: {units}; test accuracy {accuracy:.0%}."

    return Explorer(
        draw,
        alt=said,
        height=420,
        start=choice("start", list(runs), start),
        epoch=slider("epoch", 0, last, last),
    )
