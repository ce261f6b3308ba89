"""Lesson 13: who reads whom, planes on their own, shuffled wires, what layers cost, a lossy ReLU, grown networks."""

from functools import cache
from html import escape

import numpy as np

from course.widgets import chart, picture
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict
from course.widgets.windows import windows

COLOURS = picture.COLOURS
NETWORKS = {"standard": "#7A7A7A", "separable": "#009E73", "inverted": "#1B7FBD"}


# --- which inputs an output reads ------------------------------------------------------------------------------------

KINDS = {
    "standard": "standard",
    "2 groups": "2 groups",
    "4 groups": "4 groups",
    "depthwise": "depthwise",
    "m = 2": "twice",
    "pointwise": "pointwise",
    "separable": "separable",
}


def read_by(layer, channels):
    """Which input channels each output of a layer answers to: (o, c), found by changing one channel after another."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, channels, 3, 3))
    before, answers = np.asarray(layer(x.copy()), float), []
    for j in range(channels):
        changed = x.copy()
        changed[0, j] += rng.uniform(1, 2, (3, 3))
        answers.append(np.abs(np.asarray(layer(changed), float) - before).max(axis=(0, 2, 3)) > 1e-9)
    return np.array(answers).T


def stages(kind, depthwise, pointwise, channels, kernel):
    """The layers of one kind as (name, who reads whom (o, c), side of the kernel)."""
    rng = np.random.default_rng(1)
    both = {
        "depthwise": lambda m: _depthwise_stage(depthwise, rng, channels, kernel, m),
        "pointwise": lambda: _pointwise_stage(pointwise, rng, channels),
    }
    return {
        "standard": lambda: [("standard", np.ones((channels, channels), bool), kernel)],
        "2 groups": lambda: [("2 groups", blocks(channels, 2), kernel)],
        "4 groups": lambda: [("4 groups", blocks(channels, 4), kernel)],
        "depthwise": lambda: [both["depthwise"](1)],
        "twice": lambda: [both["depthwise"](2)],
        "pointwise": lambda: [both["pointwise"]()],
        "separable": lambda: [both["depthwise"](1), both["pointwise"]()],
    }[kind]()


def blocks(channels, groups):
    """Who reads whom in a grouped layer: the channels of its own group."""
    side = channels // groups
    return np.kron(np.eye(groups, dtype=bool), np.ones((side, side), bool)) > 0


def _depthwise_stage(depthwise, rng, channels, kernel, m):
    w, b = rng.uniform(1, 2, (channels * m, 1, kernel, kernel)), np.zeros(channels * m)
    return "depthwise", read_by(lambda x: depthwise(x, w.copy(), b.copy(), 1, kernel // 2), channels), kernel


def _pointwise_stage(pointwise, rng, channels):
    w, b = rng.uniform(1, 2, (channels, channels, 1, 1)), np.zeros(channels)
    return "pointwise", read_by(lambda x: pointwise(x, w.copy(), b.copy()), channels), 1


def matrix(reads, kernel, picked=(), wrong=None, title="", alt=""):
    """Who reads whom: a row for each output, a column for each input, in each cell the kernel's entries."""
    outputs, inputs = reads.shape
    step = {1: 20, 3: 7, 5: 4}[kernel]  # whole pixels, so that the picture stays small
    left, top, side = 26, 16, step * kernel + 2
    picked = set(picked)
    cells = {True: [], False: []}
    for o, c in zip(*np.nonzero(reads), strict=True):
        x, y = left + c * side, top + o * side
        for i, j in np.ndindex(kernel, kernel):
            a, b, size = x + 1 + j * step, y + 1 + i * step, max(step - 1, 3)
            cells[o in picked].append(f"M{a} {b}h{size}v{size}h-{size}z")
    colour = COLOURS["parameter"]
    parts = [
        f'<path d="{"".join(cells[False])}" fill="{colour}" opacity="{0.35 if picked else 1}"/>',
        f'<path d="{"".join(cells[True])}" fill="{colour}"/>',
        f'<path d="M{left} {top}h{inputs * side}v{outputs * side}h-{inputs * side}z" fill="none" '
        'stroke="currentColor" opacity=".5"/>',
    ]
    for o, c in zip(*np.nonzero(wrong), strict=True) if wrong is not None else ():
        parts.append(
            f'<path d="M{left + c * side} {top + o * side}h{side}v{side}h-{side}z" fill="none" '
            f'stroke="{COLOURS["wrong"]}" stroke-width="2"/>'
        )
    for o in picked:
        parts.append(
            f'<path d="M{left} {top + o * side}h{inputs * side}v{side}h-{inputs * side}z" fill="none" '
            f'stroke="{COLOURS["output"]}" stroke-width="2.5"/>'
        )
    parts += [f'<text x="{left + (c + 0.5) * side}" y="11" text-anchor="middle">{c}</text>' for c in range(inputs)]
    parts += [
        f'<text x="{left - 6}" y="{top + (o + 0.5) * side + 4}" text-anchor="end">{o}</text>' for o in range(outputs)
    ]
    width, height = left + inputs * side + 3, top + outputs * side + 3
    svg = (
        f'<svg role="img" aria-label="{escape(alt or title)}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-size="11">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, title)


def overview():
    """Four layers from 8 channels to 8 as matrices of kernels."""
    named = {
        "standard, 576 weights": (np.ones((8, 8), bool), 3),
        "4 groups, 144": (blocks(8, 4), 3),
        "depthwise, 72": (np.eye(8, dtype=bool), 3),
        "pointwise, 64": (np.ones((8, 8), bool), 1),
    }
    drawn = [
        matrix(reads, k, title=title, alt=f"{title}: {reads.sum()} kernels") for title, (reads, k) in named.items()
    ]
    return picture.row(*drawn)


def reads(functions, references, kind="2 groups"):
    """Choose a layer and one of its outputs: which input channels it reads, and how many weights that takes."""
    mine = [live(function) for function in functions]

    def draw(kind, channels, kernel, output):
        got = stages(kind, *mine, channels, kernel)
        want = stages(kind, *references, channels, kernel)
        picked, pieces, off = [output % len(want[-1][1])], [], 0
        for (name, found, k), (_, right, _) in zip(got[::-1], want[::-1], strict=True):
            if found.shape != right.shape:
                raise ValueError(f"{name}: {len(found)} output channels came; {len(right)} are right")
            wrong = found != right
            off += wrong.sum()
            title = f"{name}, kernels {k} × {k}"
            pieces.insert(0, matrix(found, k, picked, wrong, title, f"{title}: {found.sum()} kernels"))
            picked = np.nonzero(found[picked].any(axis=0))[0].tolist()
        joined = [pieces[0]] + [part for piece in pieces[1:] for part in (picture.operator("→"), piece)]
        note = f" {off} connections differ from the reference." if off else ""
        return picture.figure(picture.row(*joined), said(kind, channels, kernel, output) + note)

    def said(kind, channels, kernel, output):
        layers = stages(kind, *references, channels, kernel)
        picked = output % len(layers[-1][1])
        seen, width = layers[-1][1][[picked]].any(axis=0), layers[-1][2]
        for _, before, k in layers[-2::-1]:
            seen, width = before[seen].any(axis=0), width + k - 1
        weights = [int(found.sum()) * k * k for _, found, k in layers]
        total = f"{' + '.join(map(str, weights))} = {sum(weights)}" if len(weights) > 1 else f"{weights[0]}"
        full = channels * len(layers[-1][1]) * kernel * kernel
        return (
            f"Output {picked} sees {seen.sum()} of {channels} channels through a window of {width} × {width}. The "
            f"layer has {total} weights; a standard one of its size has {full}."
        )

    return Explorer(
        draw,
        alt=said,
        height=300,
        kind=choice("layer", KINDS, kind),
        channels=choice("channels", [4, 8], 8),
        kernel=choice("kernel", {"1 × 1": 1, "3 × 3": 3, "5 × 5": 5}, 3),
        output=slider("output", 0, 15, 5),
    )


def guess_cost():
    """Predict: how many times cheaper a separable layer is."""

    def reveal():
        lines = (
            "standard: 128 · 128 · 9 = 147 456 per place",
            "depthwise 128 · 9 = 1 152, pointwise 128 · 128 = 16 384, together 17 536",
        )
        return "".join(map(picture.note, lines)) + picture.note(
            "Nearly all that is left is the pointwise part: 93 %. With ever more channels the ratio goes to 9."
        )

    return Predict(
        "A 3 × 3 convolution from 128 channels to 128 is replaced by a depthwise 3 × 3 and a pointwise one. How many "
        "times fewer multiplications?",
        answer=round(147456 / 17536, 1),
        tolerance=0.5,
        reveal=reveal,
    )


# --- planes on their own ---------------------------------------------------------------------------------------------


def planes_of(size):
    """Two channels (1, 2, size, size + 1) of small whole numbers, and four kernels 3 × 3 with their biases."""
    rng = np.random.default_rng(3)
    x = rng.integers(-3, 4, (1, 2, size, size + 1)).astype(float)
    w = np.array(
        [
            [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],
            [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
            [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
            [[-1, -1, -1], [0, 0, 0], [1, 1, 1]],
        ],
        float,
    )[:, None]
    return x, w, np.array([0.0, 1.0, 0.0, -1.0])


def planes(depthwise, reference):
    """A depthwise convolution with two kernels for each channel: point at an output to see its window and its sum."""
    mine = live(depthwise)

    def draw(output, stride, padding):
        x, w, b = planes_of(5)
        got, want = (np.asarray(f(x.copy(), w.copy(), b.copy(), stride, padding), float) for f in (mine, reference))
        if got.shape != want.shape:
            raise ValueError(f"the output has shape {got.shape}, not {want.shape}")
        plane = x[0, output // 2]

        def reach(i, j):
            return [(i * stride + a - padding, j * stride + c - padding) for a, c in np.ndindex(3, 3)]

        def tell(i, j):
            padded = np.pad(plane, padding)[i * stride :, j * stride :][:3, :3]
            terms = " + ".join(
                f"{picture.number(k)} · {picture.number(v)}"
                for k, v in zip(w[output, 0].ravel(), padded.ravel(), strict=True)
                if k
            )
            bias = f" + {picture.number(b[output])}" if b[output] else ""
            return f"{terms}{bias} = {picture.number(want[0, output, i, j])}"

        grids = windows(
            plane,
            got[0, output],
            reach,
            tell,
            want=want[0, output],
            padding=padding,
            x_title=f"channel {output // 2}",
            y_title=f"output {output}",
            x_vmax=4,
            y_vmax=16,
            alt=said(output, stride, padding),
        )
        kernel = picture.heat(w[output, 0], f"kernel {output}, bias {picture.number(b[output])}", role="parameter")
        return picture.figure(picture.row(kernel, picture.piece(grids)), said(output, stride, padding))

    def said(output, stride, padding):
        return (
            f"Two channels, two kernels for each: outputs 0 and 1 read channel 0, outputs 2 and 3 read channel 1. "
            f"Output {output} reads channel {output // 2}, stride {stride}, padding {padding}."
        )

    return Explorer(
        draw,
        alt=said,
        height=380,
        output=slider("output channel", 0, 3, 2),
        stride=choice("stride", [1, 2]),
        padding=choice("padding", [0, 1], 1),
    )


# --- shuffled wires --------------------------------------------------------------------------------------------------

WIRES = 12


def order_of(shuffle, groups, channels=WIRES):
    """Which channel stands at each place after a shuffle: (channels,) whole numbers."""
    x = np.arange(channels, dtype=float).reshape(1, channels, 1, 1)
    y = np.asarray(shuffle(x, groups), float)
    if y.shape != x.shape:
        raise ValueError(f"the shuffle turned shape {x.shape} into {y.shape}")
    return y.ravel().round().astype(int)


def reached(order, groups, output):
    """Two grouped layers, `order` between: the places, middle channels and inputs that an output reads."""
    size = len(order) // groups
    places = [p for p in range(len(order)) if p // size == output // size]
    middles = sorted({int(order[p]) for p in places})
    inputs = [c for c in range(len(order)) if c // size in {m // size for m in middles}]
    return places, middles, inputs


def wires(shuffle, reference):
    """Two grouped pointwise layers, with or without a channel shuffle between: which inputs reach an output?"""
    mine = live(shuffle)

    def orders(groups, shuffled):
        if not shuffled:
            return [np.arange(WIRES)] * 2
        return [order_of(f, groups) for f in (mine, reference)]

    def draw(groups, output, shuffled):
        order, want = orders(groups, shuffled)
        off = int((order != want).sum())
        note = f" {off} of {WIRES} wires differ from the reference." if off else ""
        drawing = _wiring(order, want, groups, output, said(groups, output, shuffled))
        return picture.figure(drawing, said(groups, output, shuffled) + note)

    def said(groups, output, shuffled):
        _, _, inputs = reached(orders(groups, shuffled)[1], groups, output)
        size = WIRES // groups
        between = "a channel shuffle between" if shuffled else "nothing between"
        return (
            f"{groups} groups of {size}, {between}: output {output} hears of {len(inputs)} of {WIRES} inputs. Two "
            f"grouped layers have {2 * WIRES * size} weights, two full ones {2 * WIRES**2}."
        )

    return Explorer(
        draw,
        alt=said,
        height=350,
        groups=choice("groups", [2, 3, 4, 6], 3),
        output=slider("output", 0, WIRES - 1, 5),
        shuffled=toggle("shuffle between the layers", False),
    )


def _wiring(order, want, groups, output, alt):
    step, top, across = 24, 26, (60, 230, 370, 540)
    size, y = WIRES // groups, [top + step * k + 6 for k in range(WIRES)]
    places, middles, inputs = reached(order, groups, output)

    def line(a, k, b, to):
        return f"M{across[a] + 7} {y[k]}L{across[b] - 7} {y[to]}"

    faint, strong = [], {}
    for k, to in np.ndindex(WIRES, WIRES):
        if k // size == to // size:
            for a, on, channel in ((0, to in middles, k), (2, to == output, int(order[k]))):
                wire = line(a, k, a + 1, to)
                (strong.setdefault(_group_colour(channel // size), []) if on else faint).append(wire)
    for place, channel in enumerate(order.tolist()):
        wrong = channel != want[place]
        colour = COLOURS["wrong"] if wrong else _group_colour(channel // size)
        wire = line(1, channel, 2, place)
        (strong.setdefault(colour, []) if wrong or place in places else faint).append(wire)
    parts = [f'<path d="{"".join(faint)}" stroke="currentColor" opacity=".14"/>']
    parts += [f'<path d="{"".join(d)}" stroke="{colour}" stroke-width="1.8"/>' for colour, d in strong.items()]
    columns = (
        ("inputs", range(WIRES), set(inputs)),
        ("after the first layer", range(WIRES), set(middles)),
        ("in front of the second", order, set(places)),
        ("outputs", range(WIRES), {output}),
    )
    for a, (title, channels, on) in enumerate(columns):
        parts.append(f'<text x="{across[a]}" y="14" text-anchor="middle">{title}</text>')
        for k, channel in enumerate(channels):
            colour = COLOURS["output"] if a == 3 else _group_colour(int(channel) // size)
            parts.append(
                f'<circle cx="{across[a]}" cy="{y[k]}" r="6.5" fill="{colour}" opacity="{1 if k in on else 0.3}"/>'
            )
            if a in (0, 3):
                x, anchor = (across[a] - 12, "end") if a == 0 else (across[a] + 12, "start")
                parts.append(f'<text x="{x}" y="{y[k] + 4}" text-anchor="{anchor}">{k}</text>')
    width, height = 620, top + step * WIRES + 6
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-size="11.5">{"".join(parts)}</svg>'
    )


def _group_colour(group):
    return picture.CYCLE[(0, 3, 6, 4, 7, 8)[group]]  # green is the output's, orange is for what is wrong


# --- what layers cost ------------------------------------------------------------------------------------------------


def costs_of(count, channels, outputs, kernel, size, groups):
    """Parameters and MACs of a standard, a grouped and a separable layer, the last as its two parts."""
    window, places = (kernel, kernel), (size, size)
    return {
        "standard": [count(channels, outputs, window, places)],
        f"{groups} groups": [count(channels, outputs, window, places, groups)],
        "separable": [
            count(channels, channels, window, places, channels),
            count(channels, outputs, (1, 1), places),
        ],
    }


def costs(count_flops, reference):
    """Parameters and MACs of three layers with the same inputs and outputs."""
    mine = live(count_flops)

    def draw(channels, outputs, kernel, size, groups):
        got, want = (costs_of(f, channels, outputs, kernel, size, groups) for f in (mine, reference))
        rows = ["<tr><th></th><th style='text-align:left'>parameters</th><th style='text-align:left'>MACs</th></tr>"]
        top = sum(float(part[1]) for part in want["standard"])
        for name in want:
            cells = [chart.cell(f"<b>{name}</b>")]
            for k in (0, 1):
                pairs = zip(got[name], want[name], strict=True)
                cells.append(chart.cell(" + ".join(_both(a[k], b[k]) for a, b in pairs)))
            shares = [float(part[1]) / top for part in want[name]]
            cells.append(chart.cell(_bar(shares)))
            rows.append(f"<tr>{''.join(cells)}</tr>")
        table = f'<table style="border:0;font-size:13px">{"".join(rows)}</table>'
        return picture.figure(table, said(channels, outputs, kernel, size, groups))

    def said(channels, outputs, kernel, size, groups):
        found = costs_of(reference, channels, outputs, kernel, size, groups)
        standard = float(found["standard"][0][1])
        depth, point = (float(part[1]) for part in found["separable"])
        return (
            f"{channels} → {outputs} channels, {kernel} × {kernel}, {size} × {size} places: the separable layer needs "
            f"1/{outputs} + 1/{kernel * kernel} = {(depth + point) / standard:.3f} of the standard one's MACs, "
            f"{point / (depth + point):.0%} of them in its pointwise part. Groups: 1/{groups}."
        )

    return Explorer(
        draw,
        alt=said,
        height=200,
        channels=choice("in", [16, 32, 64, 128, 256], 64),
        outputs=choice("out", [16, 32, 64, 128, 256], 128),
        kernel=choice("kernel", {"1 × 1": 1, "3 × 3": 3, "5 × 5": 5, "7 × 7": 7}, 3),
        size=choice("places", {"7 × 7": 7, "14 × 14": 14, "28 × 28": 28, "56 × 56": 56}, 28),
        groups=choice("groups", [2, 4, 8, 16], 4),
    )


def _both(got, want):
    text = f"{float(got):,.0f}".replace(",", " ")
    if not picture.differs(got, want).any():
        return text
    right = f"{float(want):,.0f}".replace(",", " ")
    return f'<b style="color:{COLOURS["wrong"]}">{text}</b> (reference {right})'


def _bar(shares):
    """A bar of one or two parts, a whole one 220 pixels long."""
    parts, x = [], 0.0
    for share, colour in zip(shares, (COLOURS["parameter"], COLOURS["input"]), strict=False):
        parts.append(f'<rect x="{x:.1f}" width="{max(220 * share, 0.5):.1f}" height="14" fill="{colour}"/>')
        x += 220 * share
    total = f'<text x="{x + 6:.1f}" y="11.5" font-size="12">{sum(shares):.1%}</text>'
    width = max(290, x + 60)
    return (
        f'<svg role="img" aria-label="{sum(shares):.1%} of the standard MACs" viewBox="0 0 {width:.0f} 14" '
        f'width="{width:.0f}" height="14">{"".join(parts)}{total}</svg>'
    )


# --- time, and what bounds it ----------------------------------------------------------------------------------------


def traffic(kind, channels, size, kernel=3):
    """FLOPs and bytes of one layer on one image, each number of input, weights and output moved once, as float32."""
    weights = {
        "standard": channels * channels * kernel**2,
        "depthwise": channels * kernel**2,
        "pointwise": channels * channels,
    }[kind]
    return 2 * weights * size**2, 4 * (2 * channels * size**2 + weights)


def guess_time(ratios):
    """Predict: how many times quicker a separable layer runs here; `ratios` are those of MACs and of time."""
    macs, time = ratios

    def reveal():
        return picture.note(
            f"MACs: {macs:.1f} times fewer. Time, measured in this notebook: {time:.1f} times less. The tables below "
            "say where the rest has gone."
        )

    return Predict(
        f"The separable layer of the table has {macs:.1f} times fewer MACs than the standard one. How many times "
        "quicker is it on this machine, on one thread?",
        answer=round(time, 1),
        tolerance=0.5,
        reveal=reveal,
    )


def roof(peak, bandwidth, measured):
    """The roofline of this machine: peak in FLOP/s, bandwidth in byte/s, measured {name: (FLOPs, bytes, seconds)}."""
    x = np.geomspace(0.25, 512, 60)
    ridge = peak / bandwidth

    def draw(kind, channels, size):
        flops, moved = traffic(kind, channels, size)
        bound = min(peak, bandwidth * flops / moved)
        points = {
            name: (np.log10([work / of]), np.log10([work / spent / 1e9]), {"line": False, "points": True})
            for name, (work, of, spent) in measured.items()
        }
        lines = {"roof": (np.log10(x), np.log10(np.minimum(peak, bandwidth * x) / 1e9), {"colour": "#7A7A7A"})}
        figure = picture.curve(
            lines | points,
            said(kind, channels, size),
            "how fast may it be?",
            "FLOPs per byte moved",
            "10⁹ FLOPs per second",
            x_range=(-0.6, 2.7),
            y_range=(-0.3, max(2.4, np.log10(peak / 1e9) + 0.2)),
            width=560,
            height=330,
            marks=[(np.log10(flops / moved), np.log10(bound / 1e9), f"{kind}, {channels} channels")],
        )
        return picture.figure(_as_powers(figure), said(kind, channels, size))

    def said(kind, channels, size):
        flops, moved = traffic(kind, channels, size)
        intensity = flops / moved
        limit = "the memory" if intensity < ridge else "the arithmetic"
        return (
            f"{kind}, {channels} channels, {size} × {size}: {flops / 2e6:.3g} million MACs, {moved / 1e6:.3g} MB moved "
            f"at least, {moved / (flops / 2):.2g} bytes per MAC, {intensity:.3g} FLOPs per byte. The roof bends at "
            f"{ridge:.0f}: {limit} is the limit."
        )

    return Explorer(
        draw,
        alt=said,
        height=400,
        kind=choice("layer", ["standard", "depthwise", "pointwise"], "depthwise"),
        channels=choice("channels", [8, 16, 32, 64, 128, 256, 512], 64),
        size=choice("height and width", [7, 14, 28, 56, 112], 56),
    )


def _as_powers(figure):
    return chart.powers(chart.powers(figure, "middle"), "end")


# --- what a ReLU loses -----------------------------------------------------------------------------------------------


def through_relu(dimensions, seed, relu=True):
    """A spiral (n, 2), and what the best linear map recovers of it from random directions after a ReLU there."""
    t = np.linspace(0, 1, 160)
    spiral = t[:, None] * np.stack([np.cos(9 * t), np.sin(9 * t)], axis=1)
    inner = spiral @ np.random.default_rng(seed).standard_normal((2, dimensions))
    rows = np.column_stack([np.maximum(inner, 0) if relu else inner, np.ones(len(t))])
    return spiral, rows @ np.linalg.lstsq(rows, spiral, rcond=None)[0]


@cache
def lost(dimensions, seed, relu):
    """The share of the spiral's size that is not recovered."""
    spiral, back = through_relu(dimensions, seed, relu)
    return np.sqrt(((back - spiral) ** 2).sum() / (spiral**2).sum())


def lossy(dimensions=2):
    """A spiral is put into some dimensions at random, goes through a ReLU, and is brought back to the plane."""
    many = np.arange(2, 31)

    def draw(dimensions, seed, relu):
        spiral, back = through_relu(dimensions, seed, relu)
        span = dict(x_range=(-1.1, 1.1), y_range=(-1.1, 1.1), width=240, height=250)
        words, colour = said(dimensions, seed, relu), COLOURS["output"]
        before = picture.curve({"": (*spiral.T, {"colour": COLOURS["input"]})}, "the spiral", "before", **span)
        after = picture.curve({"": (*back.T, {"colour": colour})}, words, "recovered", **span)
        curve = picture.curve(
            {"mean of six draws": (many, [np.mean([lost(d, k, relu) for k in range(6)]) for d in many.tolist()])},
            words,
            "what is lost",
            "dimensions",
            "relative error",
            y_range=(0, 1),
            width=290,
            height=250,
            marks=[(dimensions, lost(dimensions, seed, relu), "this draw")],
        )
        return picture.figure(picture.row(before, picture.operator("→"), after, curve), words)

    def said(dimensions, seed, relu):
        how = "through a ReLU" if relu else "without a ReLU"
        return (
            f"Two numbers, spread over {dimensions} dimensions and read back by the best linear map, {how}: "
            f"{lost(dimensions, seed, relu):.0%} of the spiral's size is lost."
        )

    return Explorer(
        draw,
        alt=said,
        height=310,
        dimensions=slider("dimensions", 2, 30, dimensions),
        seed=slider("draw", 0, 5, 0),
        relu=toggle("ReLU in the middle", True),
    )


# --- compound scaling ------------------------------------------------------------------------------------------------

BASE = {"layers": 8, "channels": 16, "size": 32}
FACTORS = 1.2, 1.1, 1.15  # EfficientNet's alpha, beta, gamma (Tan and Le, 2019)
WAYS = {"depth alone": "depth", "width alone": "width", "resolution alone": "resolution", "all three": "compound"}


def scaled(way, phi, scaling):
    """Factors of depth, width, resolution and FLOPs. Alone, one factor takes all of alpha · beta² · gamma²."""
    if way == "compound":
        return tuple(float(np.squeeze(value)) for value in scaling(float(phi), *FACTORS))
    cost = (FACTORS[0] * FACTORS[1] ** 2 * FACTORS[2] ** 2) ** phi
    root = cost**0.5
    depth, width, resolution = {"depth": (cost, 1, 1), "width": (1, root, 1), "resolution": (1, 1, root)}[way]
    return float(depth), float(width), float(resolution), float(cost)


def built(depth, width, resolution):
    """Layers, channels and size of the base network times the factors, rounded, and its MACs over the base's."""
    layers, channels, size = (
        round(BASE[key] * factor) for key, factor in zip(BASE, (depth, width, resolution), strict=True)
    )
    base = BASE["layers"] * BASE["channels"] ** 2 * BASE["size"] ** 2
    return layers, channels, size, layers * channels**2 * size**2 / base


def _bars(layers, channels, size, middle, colour, opacity=0.85):
    """A network seen from the side: a bar for each layer, its height the image's, its breadth the channels."""
    step, top = channels / 4 + 2.5, middle - size / 2
    bars = "".join(f"M{4 + k * step:.1f} {top}h{channels / 4}v{size}h-{channels / 4}z" for k in range(layers))
    return f'<path d="{bars}" fill="{colour}" opacity="{opacity}"/>'


def growth(compound_scaling, reference):
    """A network of equal layers grown in one direction or in all three, drawn to scale."""
    mine = live(compound_scaling)

    def draw(way, phi):
        got, want = scaled(way, phi, mine), scaled(way, phi, reference)
        layers, channels, size, macs = built(*got[:3])
        before, now = (
            _bars(*BASE.values(), 16, "currentColor", 0.4),
            _bars(layers, channels, size, 84, COLOURS["output"]),
        )
        drawing = (
            f'<svg role="img" aria-label="{escape(said(way, phi))}" viewBox="0 0 400 132" width="640" height="211">'
            f"{before}{now}</svg>"
        )
        made = f"{layers} layers", f"{channels} channels", f"{size} × {size}", f"{macs:.2f} times the base"
        rows = [
            f"<tr>{chart.cell(name)}{chart.cell(chart.both(value, right))}{chart.cell(text)}</tr>"
            for name, value, right, text in zip(("depth", "width", "resolution", "MACs"), got, want, made, strict=True)
        ]
        grown = layers * channels**2 / (BASE["layers"] * BASE["channels"] ** 2)
        rows.append(f"<tr>{chart.cell('parameters')}{chart.cell('')}{chart.cell(f'{grown:.2f} times the base')}</tr>")
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("", "factor", "built"))
        table = f'<table style="border:0;font-size:13px"><tr>{head}</tr>{"".join(rows)}</table>'
        return picture.figure(picture.row(picture.piece(drawing), table), said(way, phi))

    def said(way, phi):
        depth, width, resolution, cost = scaled(way, phi, reference)
        return (
            f"φ = {phi:g}: {cost:.2f} times the MACs, as depth × {depth:.2f}, width × {width:.2f}, resolution × "
            f"{resolution:.2f}. Each bar is a layer, as high as the image, as broad as its channels; grey: the base."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        way=choice("grow", WAYS, "compound"),
        phi=slider("φ", 0.0, 3.0, 2.0, 0.25),
    )


# --- what was learned ------------------------------------------------------------------------------------------------


def gates(found, labels):
    """Gates of squeeze-and-excitation blocks: {block: (examples, channels)}; which channels open for which class?"""
    classes = np.unique(labels)
    means = {name: np.stack([g[labels == k].mean(axis=0) for k in classes]) for name, g in found.items()}

    def draw(block, one, other):
        table, spread = means[block], found[block].std(axis=0)
        channels = np.arange(table.shape[1])
        sheet = picture.img(
            table,
            f"mean gates of {block}",
            "magnitude",
            0,
            1,
            width=14 * table.shape[1],
            title=f"{block}: classes × channels",
        )
        lines = {f"digit {k}": (channels, table[k], {"points": True, "line": False, "colour": c})
                 for k, c in ((one, COLOURS["input"]), (other, COLOURS["gradient"]))}  # fmt: skip
        lines["spread over all digits"] = (channels, spread, {"points": True, "line": False, "colour": "#9aa7b0"})
        curves = picture.curve(
            lines,
            said(block, one, other),
            "mean gate",
            "channel",
            x_range=(-0.5, len(channels) - 0.5),
            y_range=(0, 1.05),
            width=460,
            height=260,
        )
        return picture.figure(picture.row(sheet, curves), said(block, one, other))

    def said(block, one, other):
        table = means[block]
        gap = np.abs(table[one] - table[other])
        return (
            f"{block}: gates from {table.min():.2f} to {table.max():.2f}. Between digits {one} and {other} they differ "
            f"by {gap.mean():.2f} on average, most in channel {gap.argmax()} ({table[one][gap.argmax()]:.2f} and "
            f"{table[other][gap.argmax()]:.2f})."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        block=choice("block", list(found)),
        one=slider("digit", 0, 9, 0),
        other=slider("compared with", 0, 9, 1),
    )


def kernels(weights, inputs, outputs):
    """Trained depthwise kernels: {block: (c, 3, 3)}, and what they make of some images: {block: (images, c, h, w)}."""
    images = len(next(iter(inputs.values())))

    def draw(block, channel, image):
        w = weights[block]
        channel %= len(w)
        sheet = picture.mosaic(w / np.abs(w).max(axis=(1, 2), keepdims=True), columns=10)
        every = picture.img(
            sheet,
            f"all kernels of {block}",
            "signed",
            -1,
            1,
            width=330,
            title="all kernels, each to scale",
            shape=w.shape,
        )
        before, after = inputs[block][image, channel], outputs[block][image, channel]
        steps = [
            picture.heat(w[channel], f"kernel {channel}", role="parameter"),
            picture.img(before, "before", "signed", vmax=np.abs(inputs[block]).max(), width=130, title="plane before"),
            picture.operator("→"),
            picture.img(after, "after", "signed", vmax=np.abs(outputs[block]).max(), width=130, title="plane after"),
        ]
        return picture.figure(picture.row(every, *steps), said(block, channel, image))

    def said(block, channel, image):
        w = weights[block]
        w = w[channel % len(w)]
        total, size = w.sum(), np.abs(w).sum()
        kind = (
            "mostly smooths" if abs(total) > 0.7 * size else "answers to edges" if abs(total) < 0.3 * size else "mixes"
        )
        return (
            f"{block}, kernel {channel % len(w)} {kind}: its weights sum to {picture.number(total)}, their sizes to "
            f"{picture.number(size)}. Image {image}."
        )

    return Explorer(
        draw,
        alt=said,
        height=210,
        block=choice("block", list(weights)),
        channel=slider("channel", 0, max(map(len, weights.values())) - 1, 0),
        image=slider("image", 0, images - 1, 0),
    )
