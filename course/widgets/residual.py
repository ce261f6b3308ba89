"""Lesson 12: drawings of blocks, signals and gradients through deep chains of them, paths, and what removal does."""

from functools import lru_cache
from html import escape
from math import comb

import numpy as np

from course.widgets import picture
from course.widgets.chart import amount, powers, several
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict

COLOURS = picture.COLOURS
NETWORKS = {
    "plain": "#7A7A7A",
    "residual": "#1B7FBD",
    "plain + norm": "#E69F00",
    "residual + norm": "#009E73",
    "residual, branch from 0": "#CC79A7",
    "residual + norm, gain from 0": "#8A4B00",
}
WIRINGS = ("plain", "identity", "projection", "pre-activation")


# --- drawings of blocks ----------------------------------------------------------------------------------------------

# What stands on the branch and on the skip, from the bottom to the top; "+" and what follows it is the trunk.
BLOCKS = {
    "plain": (["conv", "relu", "conv"], None, ["relu"]),
    "identity": (["conv", "relu", "conv"], [], ["+", "relu"]),
    "projection": (["conv, stride", "relu", "conv"], ["1 × 1, stride"], ["+", "relu"]),
    "pre-activation": (["relu", "conv", "relu", "conv"], [], ["+"]),
    "dense layer": (["relu", "conv"], [], ["concat"]),
}


def diagram(name):
    """One kind of block as a drawing, x at the bottom, y at the top."""
    branch, skip, trunk = BLOCKS[name]
    middle, side, height = 46, 138, 280
    fork = top = height - 34
    parts = [_label(middle, height - 6, "x", COLOURS["input"]), _label(middle, 14, "y", COLOURS["output"])]
    parts.append(_line(middle, height - 20, middle, fork))
    for part in branch + trunk:
        y = top - 24
        parts += [_line(middle, top, middle, y + 11), _box(middle, y, part, part == "+")]
        if skip is not None and part == trunk[0]:
            ends = [fork, y] if not skip else [fork, (fork + y) / 2 + 11, (fork + y) / 2 - 11, y]
            edge = middle + (11 if part == "+" else 42)
            for low, high in zip(ends[::2], ends[1::2], strict=True):
                start = f"M{middle} {fork}H{side}" if low == fork else f"M{side} {low}"
                parts.append(
                    f'<path d="{start}V{high}{f"H{edge}" if high == y else ""}" fill="none" '
                    f'stroke="{COLOURS["right"]}" stroke-width="3"/>'
                )
            parts += [_box(side, (fork + y) / 2, box) for box in skip]
        top = y - 11
    parts.append(_line(middle, top, middle, 20))
    told = f"{name}: x goes through {', '.join(branch)}" + (
        "" if skip is None else f"; a skip {'with a 1 × 1 convolution ' if skip else ''}runs past them to {trunk[0]}"
    )
    svg = (
        f'<svg role="img" aria-label="{escape(told)}" viewBox="0 0 182 {height}" width="150" '
        f'height="{150 * height / 182:.0f}" font-size="12.5">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, name)


def _line(x, y, u, v):
    return f'<path d="M{x} {y}L{u} {v}" stroke="currentColor" stroke-width="1.6"/>'


def _label(x, y, text, colour):
    return f'<text x="{x}" y="{y}" text-anchor="middle" font-weight="600" style="fill:{colour}">{text}</text>'


def _box(x, y, text, round_=False):
    half = 11 if round_ else 42
    colour = COLOURS["parameter"] if "conv" in text or "1 × 1" in text else "#8a949b"
    return (
        f'<rect x="{x - half}" y="{y - 11}" width="{2 * half}" height="22" rx="{11 if round_ else 4}" fill="{colour}" '
        f'fill-opacity=".22" stroke="{colour}"/><text x="{x}" y="{y + 4}" text-anchor="middle">{text}</text>'
    )


def diagrams(*names):
    """Several kinds of block side by side."""
    return picture.row(*map(diagram, names))


# --- questions -------------------------------------------------------------------------------------------------------


def guess_zero(reference):
    """Predict: what a deep chain of blocks does before it has any weights."""

    def reveal():
        x = np.array([2.0, 1.0, 0.5]).reshape(1, 3, 1, 1)
        zeros = np.zeros((3, 3, 3, 3)), np.zeros(3), np.zeros((3, 3, 3, 3)), np.zeros(3)
        y = x
        for _ in range(50):
            y = reference("residual_forward")(y, *zeros)
        return picture.row(
            picture.heat(x.reshape(1, 3), "x", vmax=2, role="input"),
            picture.operator("→"),
            picture.heat(y.reshape(1, 3), "after 50 blocks", vmax=2, role="output"),
        ) + picture.note(
            "Each block adds 0 to x. A plain layer has to learn to hand something on; a residual block does so unless "
            "it learns otherwise."
        )

    return Predict(
        "Fifty residual blocks, y = relu(x + branch(x)), all of whose weights and biases are 0, and x = (2, 1, 0.5). "
        "What comes out?",
        answer="(2, 1, 0.5)",
        options=["(0, 0, 0)", "(2, 1, 0.5)", "(100, 50, 25)", "(0.04, 0.02, 0.01)"],
        reveal=reveal,
    )


def guess_growth():
    """Predict: how large the stream becomes if every branch is as large as what it is added to."""

    def reveal():
        sizes = np.array([root_mean_squares(signals("pre-activation", 10, number=k)[0]) for k in range(6)])
        return picture.row(
            powers(
                picture.curve(
                    {
                        "six random chains": (*several(np.arange(11), np.log10(sizes)), {"colour": COLOURS["output"]}),
                        "predicted": (np.arange(11), np.log10(2) / 2 * np.arange(11), {"dash": True}),
                    },
                    "size of the stream after each of 10 blocks, on a logarithmic scale, about the prediction",
                    x_label="block",
                    x_range=(0, 10),
                    y_range=(-0.2, 2.0),
                    width=340,
                    height=220,
                ),
                "end",
            )
        ) + picture.note(
            "Independent parts add their mean squares: each block doubles it, ten blocks make 2¹⁰ = 1024, the root of "
            f"which is 32. Six random chains reached {sizes[:, -1].min():.0f} to {sizes[:, -1].max():.0f}."
        )

    return Predict(
        "Ten blocks y = x + branch(x). Each branch puts out numbers of the same root mean square as its x, independent "
        "of it. By what factor does the root mean square grow?",
        answer=32,
        reveal=reveal,
        tolerance=2,
    )


# --- signals through a chain of blocks ------------------------------------------------------------------------------

MOST, WIDTH, BATCH = 40, 32, 32


@lru_cache(maxsize=8)
def normals(number):
    """Standard normal weights (MOST, 3, WIDTH, WIDTH): two layers and a projection for each block."""
    return np.random.default_rng(number).standard_normal((MOST, 3, WIDTH, WIDTH), dtype=np.float32)


@lru_cache
def ends():
    """What goes in at either end: x and dy (BATCH, WIDTH) with a mean square of 1."""
    both = np.random.default_rng(1).standard_normal((2, BATCH, WIDTH), dtype=np.float32)
    return both / np.sqrt(np.square(both).mean((1, 2), keepdims=True))


def relu(z):
    return np.maximum(z, 0)


def signals(wiring, blocks, gain=1.0, scale=1.0, number=0, x=None, dy=None):
    """The stream (blocks + 1 arrays) of a random chain of blocks, and the gradient with respect to each of them.

    Linear layers stand for the convolutions, which is what those are for images of one pixel. gain: of the weights,
    in units of He's; scale: what the branch is multiplied by.
    """
    x, dy = ends()[0] if x is None else x, ends()[1] if dy is None else dy
    drawn = normals(number)[:blocks]
    first, second = (
        drawn[:, 0] * np.float32(gain * (2 / WIDTH) ** 0.5),
        drawn[:, 1] * np.float32(gain * scale * (2 / WIDTH) ** 0.5),
    )
    shortcut = drawn[:, 2] * np.float32(WIDTH**-0.5)
    before, after = wiring == "pre-activation", wiring != "pre-activation"
    hs, masks = [x], []
    for w1, w2, w_s in zip(first, second, shortcut, strict=True):
        h = hs[-1]
        z = (relu(h) if before else h) @ w1.T
        total = relu(z) @ w2.T
        total = total + (h @ w_s.T if wiring == "projection" else 0 if wiring == "plain" else h)
        masks.append((h > 0, z > 0, total > 0))
        hs.append(relu(total) if after else total)
    dhs = [dy]
    for w1, w2, w_s, (start, inner, outer) in zip(first[::-1], second[::-1], shortcut[::-1], masks[::-1], strict=True):
        g = dhs[-1] * outer if after else dhs[-1]
        back = (g @ w2 * inner) @ w1
        along = g @ w_s if wiring == "projection" else 0 if wiring == "plain" else g
        dhs.append(along + (back * start if before else back))
    return hs, dhs[::-1]


def root_mean_squares(arrays):
    return np.array([np.sqrt(np.mean(np.square(array, dtype=float))) for array in arrays])


def decades(chart):
    """A chart drawn over logarithms to base 10, far powers of ten written short: there is little room beside it."""
    chart = powers(chart, "end")
    written = {"0.0001": "1e−4", "1e-05": "1e−5", "1e-06": "1e−6", "10000": "1e4", "100000": "1e5", "1e+06": "1e6",
               "1e+08": "1e8"}  # fmt: skip
    for long, short in written.items():
        chart = chart.replace(f">{long}<", f">{short}<")
    return chart


def flow(wiring="identity"):
    """Stream and gradient along a chain of blocks before training, beside a plain chain of the same weights."""

    def draw(wiring, blocks, gain, scale, number):
        charts, at = [], np.arange(blocks + 1)
        chains = [("plain", signals("plain", blocks, gain, 1.0, number))] if wiring != "plain" else []
        chains.append((wiring, signals(wiring, blocks, gain, scale if wiring != "plain" else 1.0, number)))
        for k, (title, role) in enumerate((("stream: size after each block", "output"),
                                           ("gradient: size before each block", "gradient"))):  # fmt: skip
            lines = {}
            for name, both in chains:
                size = np.log10(np.maximum(root_mean_squares(both[k]), 1e-12))
                colour = NETWORKS["plain"] if name == "plain" else COLOURS[role]
                lines[name] = at, size, {"colour": colour, "dash": name == "plain", "points": blocks < 12}
            charts.append(
                decades(
                    picture.curve(
                        lines,
                        f"{title}, blocks 0 to {blocks}",
                        title,
                        "block",
                        x_range=(0, blocks),
                        y_range=(-6, 8),
                        width=360,
                        height=250,
                        role=role,
                    )
                )
            )
        return picture.figure(picture.row(*charts), said(wiring, blocks, gain, scale, number))

    def said(wiring, blocks, gain, scale, number):
        told = []
        for name in dict.fromkeys(("plain", wiring)):
            hs, dhs = signals(name, blocks, gain, scale if name != "plain" else 1.0, number)
            stream, gradient = root_mean_squares(hs)[-1], root_mean_squares(dhs)[0]
            told.append(
                f"{name}: the stream ends at {amount(stream, 2)}, the gradient arrives with {amount(gradient, 2)}"
            )
        return "Both start at 1. " + "; ".join(told).capitalize() + "."

    return Explorer(
        draw,
        alt=said,
        height=350,
        wiring=choice("wiring", list(WIRINGS), wiring),
        blocks=slider("blocks", 1, MOST, 20),
        gain=slider("weights, in units of He's", 0.5, 1.5, 1.0, 0.05),
        scale=slider("branch ×", 0.0, 1.0, 1.0, 0.05),
        number=slider("other weights", 0, 5, 0),
    )


# --- how a gradient varies with the input -----------------------------------------------------------------------------

POINTS = 160


@lru_cache
def circle():
    """Inputs (POINTS, WIDTH) on a circle, and the direction in which it goes at each."""
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    plane, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((WIDTH, 2)))
    plane = (plane * WIDTH**0.5).astype(np.float32).T
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) @ plane
    return angles, x, np.stack([-np.sin(angles), np.cos(angles)], 1).astype(np.float32) @ plane


def along_circle(wiring, blocks, scale, number):
    """The slope of a chain's output, one number, along the circle: in units of its own root mean square."""
    _, x, direction = circle()
    out = np.random.default_rng(9).standard_normal(WIDTH).astype(np.float32)
    _, dhs = signals(wiring, blocks, 1.0, scale, number, x, np.broadcast_to(out, x.shape))
    slope = (dhs[0] * direction).sum(1)
    return slope / max(float(np.sqrt(np.mean(slope**2))), 1e-12)


def alike(slope):
    """How much a slope resembles its neighbour on the circle: 1 for a smooth curve, 0 for noise."""
    centred = slope - slope.mean()
    return float((centred * np.roll(centred, 1)).sum() / max((centred**2).sum(), 1e-12))


def shattered():
    """The slope of a deep random chain while its input goes round a circle: plain and with skips."""

    def draw(blocks, wiring, scale, number):
        angles, charts = circle()[0], []
        for name in ("plain", wiring):
            slope = along_circle(name, blocks, 1.0 if name == "plain" else scale, number)
            charts.append(
                picture.curve(
                    {name: (angles, slope, {"colour": NETWORKS["plain" if name == "plain" else "residual"]})},
                    f"{name}: slope along the circle, resembling its neighbour by {alike(slope):.2f}",
                    f"{name}: alike {alike(slope):.2f}",
                    "place on the circle",
                    x_range=(0, 2 * np.pi),
                    y_range=(-4, 4),
                    width=360,
                    height=220,
                )
            )
        return picture.figure(picture.row(*charts), said(blocks, wiring, scale, number))

    def said(blocks, wiring, scale, number):
        plain, other = (
            alike(along_circle(name, blocks, 1.0 if name == "plain" else scale, number)) for name in ("plain", wiring)
        )
        return (
            (
                f"{blocks} blocks. The slope at one of {POINTS} places resembles that at the next by {plain:.2f} "
                f"(plain) and {other:.2f} ({wiring}); 1 is a smooth curve, 0 is noise."
            )
            .replace("-", "−")
            .replace("pre−activation", "pre-activation")
        )

    return Explorer(
        draw,
        alt=said,
        height=300,
        blocks=slider("blocks", 1, MOST, 25),
        wiring=choice("beside plain", ["identity", "pre-activation"], "pre-activation"),
        scale=slider("branch ×", 0.0, 1.0, 0.3, 0.05),
        number=slider("other weights", 0, 5, 0),
    )


# --- one block, both ways --------------------------------------------------------------------------------------------


def block_inputs(weight, bias):
    """One image of one channel, 4 × 5, and the parameters of a block for it."""
    rng = np.random.default_rng(12)
    x = rng.integers(-2, 4, (1, 1, 4, 5)).astype(float)
    w1, w2 = (rng.integers(-1, 2, (1, 1, 3, 3)) * 0.5 for _ in range(2))
    return x, w1, np.full(1, 0.5), weight * w2, np.full(1, float(bias))


def one_block(forwards, backwards, want_forwards, want_backwards):
    """One small block, its output and how the gradient of its input comes about: skip plus branch.

    Each of the four arguments is a pair: of the identity block, of the pre-activation block.
    """
    mine = [[live(f) for f in pair] for pair in (forwards, backwards)]

    def computed(wiring, weight, bias, row, column, functions):
        k = ("identity", "pre-activation").index(wiring)
        given = block_inputs(weight, bias)
        forward, backward = functions[0][k], functions[1][k]
        y = np.asarray(forward(*(value.copy() for value in given)), float)
        dy = np.zeros_like(y)
        dy[0, 0, row, column] = 1.0
        dx = np.asarray(backward(dy, *(value.copy() for value in given))[0], float)
        return given[0][0, 0], y[0, 0], dx[0, 0]

    def draw(wiring, weight, bias, row, column):
        x, y, dx = computed(wiring, weight, bias, row, column, mine)
        _, y_want, dx_want = computed(wiring, weight, bias, row, column, (want_forwards, want_backwards))
        skip = np.zeros_like(x)
        skip[row, column] = 1.0 if wiring == "pre-activation" else float(y_want[row, column] > 0)
        at = [(row, column)]
        forward = picture.row(
            picture.heat(x, "x", vmax=4, digits=2, mark=at, role="input"),
            picture.operator("→"),
            picture.compare(y, y_want, "y", vmax=4, digits=2, mark=at, role="output"),
        )
        backward = picture.row(
            picture.compare(dx, dx_want, "dx", vmax=1.5, mark=at, role="gradient"),
            picture.operator("="),
            picture.heat(skip, "along the skip", vmax=1.5, mark=at, role="gradient"),
            picture.operator("+"),
            picture.heat(dx - skip, "through the branch", vmax=1.5, mark=at, role="gradient"),
        )
        return picture.figure(forward + backward, said(wiring, weight, bias, row, column))

    def said(wiring, weight, bias, row, column):
        _, y, dx = computed(wiring, weight, bias, row, column, (want_forwards, want_backwards))
        value = y[row, column]
        open_ = wiring == "pre-activation" or value > 0
        how = "passes along the skip untouched" if open_ else "is stopped by the last relu, which put out 0 here"
        return (
            f"dy is 1 at the marked output, y = {picture.number(value)}, and 0 elsewhere. It {how}; "
            f"{np.count_nonzero(np.abs(dx) > 1e-12)} of {dx.size} inputs get a gradient."
        )

    return Explorer(
        draw,
        alt=said,
        height=450,
        wiring=choice("block", ["identity", "pre-activation"]),
        weight=slider("second kernel ×", 0.0, 2.0, 1.0, 0.25),
        bias=slider("second bias", -3.0, 3.0, 0.0, 0.5),
        row=slider("row of dy", 0, 3, 1),
        column=slider("column of dy", 0, 4, 2),
    )


# --- paths -----------------------------------------------------------------------------------------------------------


def by_length(blocks, scale, number=0):
    """The gradient at the start of a pre-activation chain, cut by path: (blocks + 1, BATCH, WIDTH).

    Entry k is the sum over all paths that go through exactly k branches; the sum over k is the whole gradient.
    """
    dy = ends()[1]
    hs, _ = signals("pre-activation", blocks, 1.0, scale, number)
    drawn = normals(number)[:blocks, :2] * np.float32((2 / WIDTH) ** 0.5)
    parts = np.zeros((blocks + 1, BATCH, WIDTH), np.float32)
    parts[0] = dy
    for layer in reversed(range(blocks)):
        w1, w2 = drawn[layer]
        h, done = hs[layer], blocks - layer
        inner = relu(h) @ w1.T > 0
        through = (parts[:done] @ (w2 * np.float32(scale)) * inner) @ w1 * (h > 0)
        parts[1 : done + 1] += through
    return parts


def path_shares(blocks, scale, number=0):
    """For each length: its share of all paths, of the gradient's summed squares, and what a random chain would give."""
    counts = np.array([comb(blocks, k) for k in range(blocks + 1)], float)
    squares = np.square(by_length(blocks, scale, number), dtype=float).sum((1, 2))
    expected = counts * scale ** (2.0 * np.arange(blocks + 1))
    return counts / counts.sum(), squares / squares.sum(), expected / expected.sum()


def paths():
    """How many ways through a chain of blocks have which length, and how much gradient comes along them."""

    def draw(blocks, scale, number):
        counts, squares, expected = path_shares(blocks, scale, number)
        lengths = np.arange(blocks + 1)
        dots = {"points": True, "line": blocks > 1}
        chart = picture.curve(
            {
                "share of the paths": (lengths, counts, dots | {"colour": NETWORKS["plain"]}),
                "share of the gradient": (lengths, squares, dots | {"colour": COLOURS["gradient"]}),
                "share expected": (lengths, expected, {"colour": COLOURS["gradient"], "dash": True}),
            },
            f"shares by path length, 0 to {blocks}",
            x_label="branches on the path",
            x_range=(0, blocks),
            y_range=(0, 1 if blocks < 3 or scale < 0.25 else 0.6),
            width=560,
            height=280,
        )
        return picture.figure(picture.row(chart), said(blocks, scale, number))

    def said(blocks, scale, number):
        counts, squares, _ = path_shares(blocks, scale, number)
        lengths, many = np.arange(blocks + 1), f"{2**blocks:,}".replace(",", " ")
        return (
            f"{many} paths through {blocks} {'block' if blocks == 1 else 'blocks'}. A path goes through "
            f"{counts @ lengths:.1f} branches on average, the gradient through {squares @ lengths:.1f}."
        )

    return Explorer(
        draw,
        alt=said,
        height=350,
        blocks=slider("blocks", 1, 30, 20),
        scale=slider("branch ×", 0.0, 1.0, 0.5, 0.05),
        number=slider("other weights", 0, 5, 0),
    )


# --- what training shows ---------------------------------------------------------------------------------------------


def lesion(answers, labels, blocks):
    """Trained networks with some of their blocks removed: how many digits each still gets right, class by class.

    answers  {network: removed -> logits (n, 10)}, where removed is a list of block numbers
    blocks   how many may be removed
    """

    @lru_cache(maxsize=256)
    def right(name, removed):
        hits = np.asarray(answers[name](list(removed))).argmax(1) == labels
        return np.array([hits[labels == k].mean() for k in range(10)]), float(hits.mean())

    def gone(first, count, rest):
        return tuple(range(first - 1, blocks)) if rest else tuple(range(first - 1, min(first - 1 + count, blocks)))

    def draw(first, count, rest):
        removed, lines = gone(first, count, rest), {}
        for name in answers:
            lines[name] = (
                np.arange(10),
                right(name, removed)[0],
                {
                    "colour": NETWORKS[name],
                    "points": True,
                    "line": False,
                },
            )
        chart = picture.curve(
            lines,
            said(first, count, rest),
            "share of each digit recognised",
            "digit",
            x_range=(-0.5, 9.5),
            y_range=(-0.03, 1.03),
            width=420,
            height=240,
            role="output",
        )
        return picture.figure(picture.row(_chain(blocks, removed), chart), said(first, count, rest))

    def said(first, count, rest):
        removed = gone(first, count, rest)
        which = f"block {first}" if len(removed) == 1 else f"blocks {first} to {removed[-1] + 1}"
        told = (f"{name} {right(name, ())[1]:.0%} whole, {right(name, removed)[1]:.0%} without" for name in answers)
        return f"Without {which} of {blocks}: {'; '.join(told)}."

    return Explorer(
        draw,
        alt=said,
        height=330,
        first=slider("first block removed", 1, blocks, 3),
        count=slider("how many", 1, blocks, 1),
        rest=toggle("and all after it"),
    )


def _chain(blocks, removed):
    """A row of blocks, some of them crossed out."""
    parts = []
    for k in range(blocks):
        x, out = 8 + 26 * k, k in removed
        parts.append(
            f'<rect x="{x}" y="8" width="20" height="30" rx="3" fill="{COLOURS["parameter"]}" '
            f'fill-opacity="{0.06 if out else 0.4}" stroke="currentColor" stroke-opacity="{0.3 if out else 0.8}"/>'
            f'<text x="{x + 10}" y="54" text-anchor="middle" opacity="{0.45 if out else 1}">{k + 1}</text>'
        )
        if out:
            parts.append(f'<path d="M{x} 8l20 30M{x + 20} 8l-20 30" stroke="{COLOURS["wrong"]}" stroke-width="2"/>')
    width = 16 + 26 * blocks
    svg = (
        f'<svg role="img" aria-label="{len(removed)} of {blocks} blocks removed" viewBox="0 0 {width} 60" '
        f'width="{width}" height="60" font-size="11">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, "blocks")


def smooth(curve, over=5):
    """The mean of every `over` steps in a row, along the first axis."""
    cut = np.asarray(curve, float)[: len(curve) // over * over]
    return cut.reshape(-1, over, *cut.shape[1:]).mean(1)


def training(curves, rates):
    """Losses of many training runs: {network: {depth: (steps, seeds, rates)}}, the last axis over learning rates."""
    depths = list(next(iter(curves.values())))

    def best(name, depth):
        """The place of the learning rate whose runs end lowest, the worst seed counted."""
        last = smooth(curves[name][depth])[-1].max(0)
        return int(np.argmin(np.where(np.isfinite(last), last, np.inf)))

    def draw(depth, norm, rate):
        lines = {}
        for name in picked(norm):
            k = best(name, depth) if rate < 0 else rate
            runs = np.minimum(np.nan_to_num(smooth(curves[name][depth])[..., k], nan=9.0), 9.0)
            steps = 5 * np.arange(len(runs)) + 2.5
            lines[name] = *several(steps, runs.T), {"colour": NETWORKS[name], "points": len(runs) < 3}
        chart = picture.curve(
            lines,
            f"training loss of {len(lines)} networks with {depth} layers",
            x_label="step",
            y_label="training loss",
            y_range=(0, 3),
            width=560,
            height=280,
        )
        return picture.figure(picture.row(chart), said(depth, norm, rate))

    def picked(norm):
        return [name for name in curves if ("norm" in name) == norm]

    def said(depth, norm, rate):
        told = []
        for name in picked(norm):
            k = best(name, depth) if rate < 0 else rate
            last = smooth(curves[name][depth])[-1, :, k]
            low, high = (amount(v, 2) for v in (np.min(last), np.max(last)))
            ended = f"{low} to {high}" if np.isfinite(last).all() else "diverged"
            told.append(f"{name} {ended} (learning rate {rates[k]:g})")
        return f"{depth} layers, one line for each seed. At the end: {'; '.join(told)}."

    return Explorer(
        draw,
        alt=said,
        height=370,
        depth=choice("layers", depths, depths[-1]),
        norm=choice("batch norm", {"without": False, "with": True}, True),
        rate=choice("learning rate", {"each one's best": -1, **{f"{r:g}": k for k, r in enumerate(rates)}}),
    )


def sources(before, after, cost):
    """What each layer of a dense block reads: three tables (layers, sources), nan where the source comes later."""
    many = len(after)
    labels = dict(rows=[f"{k}" for k in range(1, many + 1)], columns=["input", *(f"{k}" for k in range(1, many))])
    top = max(np.nanmax(before), np.nanmax(after))
    tables = (
        picture.heat(before, "weights at the start", palette="magnitude", vmin=0, vmax=top, **labels),
        picture.heat(after, "weights after training", palette="magnitude", vmin=0, vmax=top, **labels),
        picture.heat(cost, "% lost if cut", palette="magnitude", vmin=0, vmax=100, digits=1, **labels),
    )
    blank = '<td style="background:#808080"><span style="color:#111">nan</span></td>'  # how a heat map shows nan
    return picture.row(*tables).replace(blank, "<td></td>")
