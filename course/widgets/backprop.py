"""Lesson 04: a tape scrubbed backwards, a pass through trained layers, and what a backward pass keeps in memory."""

from html import escape
from itertools import pairwise

import numpy as np

from course.widgets import picture
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.predict import Predict

COLOURS = picture.COLOURS

# --- programs of single numbers --------------------------------------------------------------------------------------

# Leaves with their values; then operations on earlier lines; and where each stands (column, row) in the drawing.
DOUBLED = ["a", *(f"d{k}" for k in range(1, 8))]
PROGRAMS = {
    "a tree": dict(
        leaves={"x": 2.0, "w": 1.5, "b": -1.0, "v": 3.0},
        steps=[
            ("u = x · w", "mul", 0, 1),
            ("z = u + b", "add", 4, 2),
            ("h = relu(z)", "relu", 5),
            ("L = h · v", "mul", 6, 3),
        ],
        places=[(0, 0), (0, 1), (1, 1.6), (3, 1.6), (1, 0.5), (2, 0.5), (3, 0.5), (4, 1)],
    ),
    "used twice": dict(
        leaves={"a": 2.0, "b": 3.0, "c": -4.0},
        steps=[
            ("s = a · b", "mul", 0, 1),
            ("t = s + c", "add", 3, 2),
            ("q = t · s", "mul", 4, 3),
            ("r = relu(q)", "relu", 5),
            ("L = r + a", "add", 6, 0),
        ],
        places=[(0, 0), (0, 1), (1, 2), (1, 1), (2, 2), (3, 1), (4, 1), (4, 0)],
    ),
    "doubled seven times": dict(
        leaves={"a": 0.5},
        steps=[(f"{new} = {old} + {old}", "add", k, k) for k, (old, new) in enumerate(pairwise(DOUBLED))],
        places=[(0, 0), (1, 0), (2, 0), (3, 0), (3, 1.3), (2, 1.3), (1, 1.3), (0, 1.3)],
    ),
}


def names_of(program):
    """The name of every node, the leaves first."""
    return [*program["leaves"], *(text.split(" = ")[0] for text, *_ in program["steps"])]


def run(program, first):
    """The value of every node, with `first` for the first leaf."""
    values = [round(first, 6), *list(program["leaves"].values())[1:]]  # sliders drift in the last digit
    for _, operation, *of in program["steps"]:
        x = [values[k] for k in of]
        values.append({"add": sum(x), "mul": x[0] * x[-1], "relu": max(x[0], 0.0)}[operation])
    return np.array(values)


def slopes(program, values):
    """For every node its (parent, slope) pairs: how fast the node moves with that parent alone."""
    pairs = [[] for _ in program["leaves"]]
    for _, operation, *of in program["steps"]:
        local = {"add": [1.0, 1.0], "mul": [values[of[-1]], values[of[0]]], "relu": [float(values[of[0]] > 0)]}
        pairs.append(list(zip(of, local[operation], strict=True)))
    return pairs


def parents_first(pairs):
    """A topological order of the nodes by their numbers: they were numbered as they came about."""
    return list(range(len(pairs)))


def sweep(pairs, order):
    """Gradients (steps + 1, nodes): line k after the k-th node from the end of `order` has passed its own on.

    nan where nothing has arrived yet.
    """
    grads = np.full(len(pairs), np.nan)
    grads[order[-1]] = 1.0
    lines = [grads.copy()]
    for node in reversed(order):
        for parent, slope in pairs[node]:
            grads[parent] = np.nansum([grads[parent], slope * np.nan_to_num(grads[node])])
        lines.append(grads.copy())
    return np.array(lines)


def taped(program, first, Tensor):
    """The program run on a tape: every node's data and, after backward(), its gradient; and the nodes themselves."""
    nodes = [Tensor(value) for value in run(program, first)[: len(program["leaves"])]]
    for _, operation, *of in program["steps"]:
        x = [nodes[k] for k in of]
        nodes.append(x[0].relu() if operation == "relu" else x[0] + x[1] if operation == "add" else x[0] * x[1])
    nodes[-1].backward()
    data, grads = (np.array([float(np.squeeze(of(node))) for node in nodes]) for of in (_data, _grad))
    return data, grads, nodes


def _data(node):
    return node.data


def _grad(node):
    return node.grad


STEP_X, STEP_Y, BOX_W, BOX_H = 152, 88, 112, 62


def tape(Tensor=None, topological_order=None):
    """A program as a graph: values forwards, then gradients backwards, node by node.

    With a Tensor (and a topological_order) of the learner's, theirs are drawn: in their order, and with what they
    leave in .grad where that is not right.
    """
    tensor = live(Tensor) if Tensor else None
    ordered = live(topological_order) if topological_order else None

    def state(name, first, step):
        program = PROGRAMS[name]
        values = run(program, first)
        pairs, order, wrong = slopes(program, values), parents_first(values), {}
        if tensor:
            data, grads, nodes = taped(program, first, tensor)
            if ordered:
                numbers = {id(node): k for k, node in enumerate(nodes)}
                order = [numbers[id(node)] for node in ordered(nodes[-1])]
            right = sweep(pairs, parents_first(values))[-1]
            wrong = {k: (grads[k], right[k]) for k in np.flatnonzero(picture.differs(grads, right))}
            values = data
        lines = sweep(pairs, order)
        return program, values, pairs, order, lines, min(step, len(order)), wrong

    def draw(name, first, step):
        program, values, pairs, order, lines, step, wrong = state(name, first, step)
        drawing = graph(program, values, pairs, order, lines, step, wrong)
        walk = " → ".join(
            f"<b>{text}</b>" if k == step else text
            for k, text in enumerate(["start", *(escape(names_of(program)[node]) for node in reversed(order))])
        )
        below = f'<div class="lbl-note">Backwards: {walk}</div>'
        if wrong:
            said = "; ".join(
                f"{names_of(program)[k]} {picture.number(got)}, right is {picture.number(want)}"
                for k, (got, want) in wrong.items()
            )
            below += f'<div class="lbl-error">Your Tensor leaves other gradients: {escape(said)}.</div>'
        return picture.figure(drawing + below, told(program, pairs, order, lines, step))

    def said(name, first, step):
        program, _, pairs, order, lines, step, _ = state(name, first, step)
        return told(program, pairs, order, lines, step)

    return Explorer(
        draw,
        alt=said,
        height=350,
        name=choice("program", list(PROGRAMS), "used twice"),
        first=slider("first leaf", -3.0, 3.0, 2.0, 0.5),
        step=slider("nodes served", 0, 8, 3),
    )


def told(program, pairs, order, lines, step):
    """What the step does, in words."""
    names = names_of(program)
    if step == 0:
        return f"The values are there. The way back starts at the root: {names[order[-1]]} by itself has the slope 1."
    node = order[-step]
    if not pairs[node]:
        return f"{names[node]} is a leaf: its gradient, {picture.number(lines[step][node])}, stays there."
    sent = ", ".join(
        f"to {names[parent]} {picture.number(slope)} · {picture.number(lines[step][node])} = "
        f"{picture.number(slope * lines[step][node])}"
        for parent, slope in pairs[node]
    )
    return f"{names[node]} has gathered all of its gradient, {picture.number(lines[step][node])}, and passes on {sent}."


def graph(program, values, pairs, order, lines, step, wrong=()):
    """The SVG of a program: boxes with values and gradients, and the edges along which the last step sent some."""
    places = np.array(program["places"], float)
    at = places * (STEP_X, STEP_Y) + 4
    width, height = at.max(axis=0) + np.array([BOX_W, BOX_H]) + 4
    serving = order[-step] if step else None
    complete = {order[-k] for k in range(1, min(step, len(order)) + 1)} | {order[-1]}
    below, above, boxes = [], [], []
    for node, sources in enumerate(pairs):
        twins = len(sources) == 2 and sources[0][0] == sources[1][0]
        for k, (parent, slope) in enumerate(sources):
            line, middle = _edge(at[parent], at[node], k if twins else None)
            lit = node == serving
            style = f'stroke="{COLOURS["gradient"]}" stroke-width="3"' if lit else 'stroke="currentColor" opacity=".35"'
            below.append(f'<path d="{line}" fill="none" {style}/>')
            if lit:
                above.append(_chip(middle, picture.number(slope * lines[step][node])))
    texts = [*program["leaves"], *(text for text, *_ in program["steps"])]
    for node, (x, y) in enumerate(at):
        colour = COLOURS["wrong" if node in wrong else "output" if pairs[node] else "parameter"]
        boxes.append(_box(x, y, texts[node], values[node], lines[step][node], node in complete, colour))
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    label = escape(told(program, pairs, order, lines, step))
    return f'<svg role="img" aria-label="{label}" {size} font-size="12">{"".join(below + boxes + above)}</svg>'


def _edge(parent, child, twin):
    """A path from a node to the one made from it, and its middle; twins of one pair of nodes bend apart."""
    half = np.array([BOX_W, BOX_H]) / 2
    a, b = parent + half, child + half
    d = b - a
    across = abs(d[0]) * BOX_H > abs(d[1]) * BOX_W
    reach = np.array([np.sign(d[0]) * BOX_W / 2, 0]) if across else np.array([0, np.sign(d[1]) * BOX_H / 2])
    a, b = a + reach, b - reach
    bend = np.zeros(2) if twin is None else np.array([-d[1], d[0]]) / np.hypot(*d) * (26 if twin else -26)
    control = (a + b) / 2 + bend
    middle = (a + b) / 2 + bend / 2
    return f"M{a[0]:.1f} {a[1]:.1f}Q{control[0]:.1f} {control[1]:.1f} {b[0]:.1f} {b[1]:.1f}", middle


def _chip(middle, text):
    half = 5 + 3.6 * len(text)
    x, y = middle
    return (
        f'<rect x="{x - half:.1f}" y="{y - 9:.1f}" width="{2 * half:.1f}" height="18" rx="9" '
        f'fill="{COLOURS["gradient"]}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" style="fill:#111" font-weight="600">{text}</text>'
    )


def _box(x, y, text, value, grad, complete, colour):
    """A node: what it is, its value, and what has arrived of its gradient."""
    arrived = not np.isnan(grad)
    band = f'fill="{COLOURS["gradient"]}"' if complete else f'fill="{COLOURS["gradient"]}" opacity=".4"'
    if not arrived:
        band = 'fill="none"'
    number = picture.number(grad) if arrived else "–"
    word = "so far" if arrived and not complete else "grad"
    ink = "#111" if complete else "currentColor"
    return (
        f'<rect x="{x}" y="{y}" width="{BOX_W}" height="{BOX_H}" rx="5" fill="none" '
        f'stroke="{colour}" stroke-width="2"/>'
        f'<text x="{x + 7}" y="{y + 16}" font-weight="600">{escape(text)}</text>'
        f'<text x="{x + 7}" y="{y + 34}">value</text>'
        f'<text x="{x + BOX_W - 7}" y="{y + 34}" text-anchor="end">{picture.number(value)}</text>'
        f'<rect x="{x + 2}" y="{y + 41}" width="{BOX_W - 4}" height="19" rx="3" {band}/>'
        f'<text x="{x + 7}" y="{y + 55}" style="fill:{ink if arrived else "currentColor"}">{word}</text>'
        f'<text x="{x + BOX_W - 7}" y="{y + 55}" text-anchor="end" font-weight="600" '
        f'style="fill:{ink if arrived else "currentColor"}">{number}</text>'
    )


def guess_gradient():
    """Predict: the derivative by a leaf that is used near the end and, through others, at the beginning."""
    return Predict(
        "s = a · b, t = s + c, q = t · s, r = relu(q), L = r + a, at a = 2, b = 3, c = −4. What is dL/da?",
        answer=25,
        tolerance=0.001,
        reveal=lambda: tape().snapshot(name="used twice", first=2.0, step=8),
    )


def guess_paths():
    """Predict: how many ways lead through forty doublings."""
    return Predict(
        "x is doubled forty times by x = x + x. Over how many paths does the first x reach the last?",
        answer="about 1 000 000 000 000",
        options=["40", "80", "1600", "about 1 000 000 000 000"],
        reveal=lambda: (
            "Each doubling offers two ways on, so there are 2⁴⁰ = 1 099 511 627 776 paths, over only 80 edges. "
            "A million paths a second would take twelve days; the edges take no time."
        ),
    )


# --- the first picture -----------------------------------------------------------------------------------------------


def passes():
    """The two passes through four layers: values to the right, gradients to the left, and what is kept between."""
    names, step = ["linear", "relu", "linear", "loss"], 158
    arrays, grads = ["x", "z", "h", "logits", "loss"], ["", "dz", "dh", "dlogits", "1"]
    kept = ["x", "z", "h", "logits"]
    parts = []
    for k, name in enumerate(names):
        x = 66 + k * step
        parts.append(
            f'<rect x="{x}" y="34" width="92" height="74" rx="6" fill="none" stroke="currentColor" stroke-width="2"/>'
            f'<text x="{x + 46}" y="64" text-anchor="middle" font-weight="600" font-size="14">{name}</text>'
            f'<rect x="{x + 6}" y="78" width="80" height="20" rx="3" fill="{COLOURS["input"]}" opacity=".25"/>'
            f'<text x="{x + 46}" y="92" text-anchor="middle">keeps {kept[k]}</text>'
        )
    for k, (value, grad) in enumerate(zip(arrays, grads, strict=True)):
        x = 66 + k * step
        parts.append(_arrow(x - 62, x - 4, 46, value, COLOURS["output"]))
        if grad:
            parts.append(_arrow(x - 4, x - 62, 98, grad, COLOURS["gradient"]))
    for k in (0, 2):
        x = 66 + k * step + 46
        parts.append(
            f'<path d="M{x} 108v26m-5-8l5 8l5-8" fill="none" stroke="{COLOURS["gradient"]}" stroke-width="2.5"/>'
            f'<text x="{x}" y="150" text-anchor="middle">dw, db</text>'
        )
    width = 66 + 4 * step
    return (
        f'<svg role="img" aria-label="two passes through four layers" width="{width}" height="158" '
        f'viewBox="0 0 {width} 158" font-size="12.5">{"".join(parts)}</svg>'
    )


def _arrow(start, end, y, text, colour):
    turn = np.sign(end - start)
    return (
        f'<path d="M{start} {y}H{end}m{-7 * turn:g} -5l{7 * turn:g} 5l{-7 * turn:g} 5" fill="none" stroke="{colour}" '
        f'stroke-width="2.5"/><text x="{(start + end) / 2}" y="{y - 7}" text-anchor="middle">{text}</text>'
    )


# --- two training runs that are one ----------------------------------------------------------------------------------


def same_steps(mine, theirs):
    """The losses of two runs over the same steps, one drawn over the other."""
    steps = np.arange(1, len(mine) + 1)
    lines = {
        "PyTorch": (steps, theirs, {"colour": COLOURS["input"]}),
        "your Sequential": (steps, mine, {"colour": COLOURS["output"], "points": True, "line": False}),
    }
    said = "two curves of the training loss, one on the other"
    return picture.curve(lines, said, "loss, step by step", x_label="step", width=480, height=230)


# --- a pass through trained layers -----------------------------------------------------------------------------------


def pass_through(layers, x, target, loss_backward):
    """The arrays between the layers for one example, and the gradient of its loss at each."""
    arrays = [np.asarray(x, float)[None]]
    for layer in layers:
        arrays.append(np.asarray(layer.forward(arrays[-1]), float))
    grads = [np.asarray(loss_backward(1.0, arrays[-1], np.array([target])), float)]
    for layer in reversed(layers):
        grads.append(np.asarray(layer.backward(grads[-1]), float))
    return [array[0] for array in arrays], [grad[0] for grad in reversed(grads)]


def inside(layers, names, images, labels, loss_backward):
    """One digit on its way through layers and its gradient on the way back, as pictures."""

    def shape(array):
        side = int(np.sqrt(len(array)))
        return array.reshape(side, -1) if side * side == len(array) else array.reshape(2, -1)

    def draw(example, target):
        arrays, grads = seen(example, target)
        rows = []
        for title, values, role in (("forwards", arrays, "output"), ("gradient", grads, "gradient")):
            pieces = []
            for k, (name, value) in enumerate(zip(names, values, strict=True)):
                palette = "ink" if role == "output" and k == 0 else "signed"
                top = float(np.abs(value).max()) or 1.0
                low = 0.0 if palette == "ink" else -top
                label = name if role == "output" else f"d{name}"
                pieces.append(
                    picture.img(
                        shape(value),
                        f"{title}: {label}",
                        palette,
                        low,
                        top,
                        width=118,
                        title=label,
                        role="input" if k == 0 and role == "output" else role,
                        shape=value.shape,
                    )
                )
            rows.append(picture.row(*pieces))
        return picture.figure('<div style="height:10px"></div>'.join(rows), said(example, target))

    def seen(example, target):
        wanted = int(labels[example]) if target == "true class" else int(target)
        return pass_through(layers, images[example], wanted, loss_backward)

    def said(example, target):
        arrays, grads = seen(example, target)
        off = sum(int((a <= 0).sum()) for a, name in zip(arrays, names, strict=True) if name.startswith("h"))
        units = sum(len(a) for a, name in zip(arrays, names, strict=True) if name.startswith("h"))
        wanted = int(labels[example]) if target == "true class" else int(target)
        return (
            f"A {labels[example]}, read as {arrays[-1].argmax()}; the loss asks for {wanted}. {off} of {units} hidden "
            f"units are off. Largest |gradient|: {picture.number(np.abs(grads[-1]).max(), 3)} at the logits, "
            f"{picture.number(np.abs(grads[0]).max(), 3)} at the pixels. Each picture has its own scale."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        example=slider("digit", 0, len(images) - 1, 0),
        target=choice("the loss asks for", ["true class", *map(str, range(10))]),
    )


# --- memory ----------------------------------------------------------------------------------------------------------


def held(n, widths, every=1):
    """Numbers of activations in memory at each moment of a forward and a backward pass.

    Of the inputs of the linear layers only those of each `every`-th are kept through the forward pass; on the way back
    the others are worked out again, one stretch at a time.
    """
    sizes = [n * width for width in widths[:-1]]
    kept = [k % every == 0 for k in range(len(sizes))]
    moments, now = [0], 0
    for size, keep in zip(sizes, kept, strict=True):
        moments.append(now + size)
        now += size if keep else 0
    there = set(np.flatnonzero(kept).tolist())
    for k in reversed(range(len(sizes))):
        there |= set(range(k - k % every, k + 1))
        moments.append(sum(sizes[j] for j in there))
        there.discard(k)
    return np.array([*moments, 0])


def spaced(count):
    """A whole number with its thousands apart."""
    return f"{count:,}".replace(",", " ")


def ordinal(k):
    return f"{k}{ {2: 'nd', 3: 'rd'}.get(k, 'th') }"


def memory(saved_activations):
    """What a deep network keeps for its backward pass, moment by moment, with and without checkpoints."""
    mine = live(saved_activations)

    def network(depth):
        return [64] + [100] * (depth - 1) + [10]

    def draw(depth, n, every):
        widths, moments = network(depth), np.arange(2 * depth + 2)
        lines = {"all inputs kept": (moments, held(n, widths) / 1000, {"colour": COLOURS["input"]})}
        if every > 1:
            style = {"colour": COLOURS["gradient"]}
            lines[f"every {ordinal(every)} kept"] = (moments, held(n, widths, every) / 1000, style)
        formula, most = float(mine(n, widths)), float(held(n, widths).max())
        chart = picture.curve(
            lines,
            said(depth, n, every),
            "thousands of numbers held",
            x_label="layers passed: first forwards, then backwards",
            x_range=(0, 2 * depth + 1),
            y_range=(0, 420),
            marks=[(depth, formula / 1000, "saved_activations")],
            width=640,
            height=270,
        )
        note = ""
        if picture.differs(formula, most):
            note = f'<div class="lbl-error">saved_activations says {formula:g}; the curve has {most:g}.</div>'
        return picture.figure(chart + note, said(depth, n, every))

    def said(depth, n, every):
        whole, part = (held(n, network(depth), stride).max() for stride in (1, every))
        text = f"{depth} linear layers, batch {n}: {spaced(whole)} numbers where forward turns into backward"
        if every > 1:
            text += f"; {spaced(part)} at most where only every {ordinal(every)} is kept and the rest worked out again"
        return f"{text}."

    return Explorer(
        draw,
        alt=said,
        height=350,
        depth=slider("linear layers", 2, 32, 24),
        n=slider("batch", 8, 128, 96, 8),
        every=slider("keep one input in", 1, 8, 4),
    )
