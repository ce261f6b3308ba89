"""Lesson 01: the anatomy of a linear layer, its gradients traced, its straight boundary, what its weights look like."""

from html import escape

import numpy as np
from torch import nn

from course.data import blobs, xor
from course.widgets import picture
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict

# The miniature example of the lesson: 3 examples, 4 inputs, 2 outputs.
X = np.array([[1.0, 0.0, 2.0, -1.0], [0.0, 3.0, -1.0, 1.0], [2.0, 1.0, 0.0, 0.5]])
W = np.array([[0.5, -1.0, 2.0, 0.0], [1.0, 0.0, -0.5, 3.0]])
B = np.array([0.5, -1.0])
DY = np.array([[1.0, -2.0], [0.5, 0.0], [-1.0, 1.0]])

GAP = '<div style="height:14px"></div>'


def _signed(value):
    """A number as a factor: brackets around a negative one."""
    text = picture.number(value, 2)
    return f"({text})" if value < 0 else text


def _sum(pairs, last=None):
    """ "1·0.5 + 0·(−1) + 0.5 = 1": the products of the pairs, and a summand at the end."""
    terms = [f"{_signed(a)}·{_signed(c)}" for a, c in pairs] + ([] if last is None else [_signed(last)])
    total = sum(a * c for a, c in pairs) + (0 if last is None else last)
    return f"{' + '.join(terms)} = {picture.number(total, 2)}"


def miniature():
    """x (3, 4), w (2, 4), b (2,), dy (3, 2): the numbers that the lesson computes by hand."""
    return X.copy(), W.copy(), B.copy(), DY.copy()


def wires(example=0):
    """The layer as the drawing everybody knows: a circle per number, a wire per weight."""
    x, y = X[example], W @ X[example] + B
    left, right = [(70, 34 + 52 * i) for i in range(4)], [(330, 86 + 52 * o) for o in range(2)]
    parts = []
    for (o, i), weight in np.ndenumerate(W):
        (x0, y0), (x1, y1) = left[i], right[o]
        if weight:
            colour = "#c8680e" if weight > 0 else "#7d5fc4"
            parts.append(
                f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{colour}" stroke-width="{1 + 1.5 * abs(weight):.1f}"/>'
            )
            at = 0.3 if o == 0 else 0.55
            parts.append(_label(x0 + at * (x1 - x0), y0 + at * (y1 - y0) - 5, picture.number(weight, 1)))
        else:
            parts.append(f'<path d="M{x0} {y0}L{x1} {y1}" stroke="currentColor" opacity=".3" stroke-dasharray="3 4"/>')
    parts += [
        _node(*at, value, "input") + _label(at[0] - 46, at[1] + 4, f"x{i}")
        for i, (at, value) in enumerate(zip(left, x, strict=True))
    ]
    parts += [
        _node(*at, value, "output")
        + _label(at[0] + 52, at[1] - 4, f"y{o}")
        + _label(at[0] + 52, at[1] + 13, f"b{o} = {picture.number(B[o], 1)}")
        for o, (at, value) in enumerate(zip(right, y, strict=True))
    ]
    said = "Four inputs on the left, two outputs on the right, a wire for each of the eight weights; thicker is larger."
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 0 450 224" width="450" font-size="12">{"".join(parts)}</svg>'
    )


def _node(x, y, value, role):
    return (
        f'<circle cx="{x}" cy="{y}" r="21" fill="{picture.COLOURS[role]}"/><text x="{x}" y="{y + 4}" '
        f'text-anchor="middle" style="fill:#fff" font-weight="600">{picture.number(value, 1)}</text>'
    )


def _label(x, y, text):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{text}</text>'


# --- forward: one output, term by term ---------------------------------------------------------------------------


def terms(x, w, b, n, o):
    """The products that make up y[n, o], and their sum with the bias."""
    products = x[n] * w[o]
    return products, products.sum() + b[o]


def anatomy(linear_forward, reference):
    """x on the left, w and b in the middle, y on the right; one output is traced to what it is made of."""
    forward = live(linear_forward)
    heads = [f"i = {i}" for i in range(4)]

    def moved(example, change):
        x = X.copy()
        x[example, 0] += change
        return x

    def draw(example, unit, change):
        x = moved(example, change)
        want = reference(x, W, B)
        products, total = terms(x, W, B, example, unit)
        line = [(example, i) for i in range(4)]
        frame = picture.row(
            picture.heat(x, "x", "the input", vmax=4, rows=_names("n", 3), columns=heads, mark=line, role="input"),
            picture.operator("→"),
            '<div class="lbl-piece">'
            + picture.heat(
                W,
                "w",
                "the weights",
                vmax=4,
                rows=_names("o", 2),
                columns=heads,
                mark=[(unit, i) for i in range(4)],
                role="parameter",
            )
            + picture.heat(B, "b", "the biases", vmax=4, columns=_names("o", 2), mark=[(0, unit)], role="parameter")
            + "</div>",
            picture.operator("→"),
            picture.compare(
                forward(x.copy(), W.copy(), B.copy()),
                want,
                "y",
                "the output",
                vmax=8,
                rows=_names("n", 3),
                columns=_names("o", 2),
                mark=[(example, unit)],
                role="output",
                tips=lambda n, o: f"y[{n}, {o}] = {_sum(list(zip(x[n], W[o], strict=True)), B[o])}",
            ),
        )
        steps = picture.row(
            picture.heat(products, f"x[{example}] · w[{unit}], product by product", vmax=8, columns=heads),
            picture.operator("+"),
            picture.heat(B[unit : unit + 1], f"b[{unit}]", vmax=4),
            picture.operator("="),
            picture.heat(np.array([total]), f"y[{example}, {unit}]", vmax=8, role="output"),
        )
        return picture.figure(frame + GAP + steps, said(example, unit, change))

    def said(example, unit, change):
        x = moved(example, change)
        text = _sum(list(zip(x[example], W[unit], strict=True)), B[unit])
        return (
            f"Row {example} of x meets row {unit} of w: y[{example}, {unit}] = {text}. "
            f"Moving x[{example}, 0] changes row {example} of y and no other."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        example=slider("example n", 0, 2),
        unit=slider("output o", 0, 1),
        change=slider("add to x[n, 0]", -3.0, 3.0, 0.0, 0.5),
    )


def _names(letter, count):
    return [f"{letter} = {k}" for k in range(count)]


# --- backward: one gradient, term by term ------------------------------------------------------------------------


def trace(name, i, j, dy=DY, x=X, w=W):
    """Where one number of dx, dw or db comes from: pairs of factors, and the cells of dy, x and w that hold them."""
    if name == "dx":
        pairs = [(dy[i, o], w[o, j]) for o in range(len(w))]
        return pairs, {"dy": [(i, o) for o in range(len(w))], "w": [(o, j) for o in range(len(w))]}
    if name == "dw":
        pairs = [(dy[n, i], x[n, j]) for n in range(len(x))]
        return pairs, {"dy": [(n, i) for n in range(len(x))], "x": [(n, j) for n in range(len(x))]}
    return [(dy[n, i], 1.0) for n in range(len(x))], {"dy": [(n, i) for n in range(len(x))]}


def nudge(forward, name, index, h=1e-4):
    """The same number by finite differences: nudge one entry, watch the loss sum(dy * y)."""
    losses = []
    for sign in (1, -1):
        arrays = {"dx": X.copy(), "dw": W.copy(), "db": B.copy()}
        arrays[name][index] += sign * h
        losses.append((DY * forward(*arrays.values())).sum())
    return round(float(losses[0] - losses[1]) / (2 * h), 6)


def backward(linear_backward, reference, forward):
    """dy comes in on the right; dx, dw and db go out, in the shapes of x, w and b; one number is traced."""
    mine = live(linear_backward)
    shapes = {"dx": X.shape, "dw": W.shape, "db": B.shape}
    names, rows, columns = choice("gradient", ["dw", "dx", "db"]), slider("row", 0, 2), slider("column", 0, 3)

    def where(name, row, column):
        """The number that the sliders point at, as near as the gradient's shape allows."""
        shape = shapes[name]
        return tuple(min(k, size - 1) for k, size in zip((row, column)[-len(shape) :], shape, strict=True))

    def fit(change=None):
        """The sliders reach just the numbers that the chosen gradient has; db has one row."""
        shape = shapes[names.value]
        rows.max, columns.max, rows.disabled = shape[0] - 1, shape[-1] - 1, len(shape) == 1

    names.observe(fit, names="value")
    fit()

    def parts(name, row, column):
        index = where(name, row, column)
        pairs, cells = trace(name, index[0], index[-1])
        return index, pairs, cells, nudge(forward, name, index)

    def draw(name, row, column):
        index, _, cells, _ = parts(name, row, column)
        heads = [f"i = {i}" for i in range(4)]
        saw = {"x": (X, "n", "input"), "w": (W, "o", "parameter")}
        top = [
            picture.heat(a, key, vmax=4, rows=_names(letter, len(a)), columns=heads, mark=cells.get(key, ()), role=role)
            for key, (a, letter, role) in saw.items()
        ]
        top.append(
            picture.heat(
                DY,
                "dy",
                "the gradient that comes back",
                vmax=4,
                rows=_names("n", 3),
                columns=_names("o", 2),
                mark=cells["dy"],
                role="gradient",
            )
        )
        got = mine(DY.copy(), X.copy(), W.copy(), B.copy())
        below = [
            _gradient(key, value, want, index if key == name else None)
            for key, value, want in zip(shapes, got, reference(DY, X, W, B), strict=True)
        ]
        return picture.figure(picture.row(*top) + GAP + picture.row(*below), said(name, row, column))

    def said(name, row, column):
        index, pairs, _, numerical = parts(name, row, column)
        place = ", ".join(map(str, index))
        text = (
            _sum(pairs)
            if name != "db"
            else " + ".join(_signed(a) for a, _ in pairs) + f" = {picture.number(sum(a for a, _ in pairs), 2)}"
        )
        return (
            f"{name}[{place}] = {text}. Nudging {name[1:]}[{place}] itself and watching the loss gives "
            f"{picture.number(numerical, 2)}."
        )

    return Explorer(
        draw,
        alt=said,
        height=380,
        name=names,
        row=rows,
        column=columns,
    )


def _gradient(name, value, want, index):
    """One gradient beside the reference; `index` is the number being traced, arrows lead to it even if it is wrong."""
    letter, matrix = {"dx": ("n", True), "dw": ("o", True), "db": ("o", False)}[name]
    rows, heads = (_names(letter, len(want)), _names("i", 4)) if matrix else (None, _names("o", len(want)))
    mark = []
    if index is not None:
        mark = [index if matrix else (0, *index)]
        heads[index[-1]] += " ↓"
        if matrix:
            rows[index[0]] += " →"
    return picture.compare(
        value,
        want,
        name,
        f"the gradient of {name[1:]}",
        vmax=6,
        rows=rows,
        columns=heads,
        mark=mark,
        role="gradient",
        tips=lambda i, j: f"{name}: {_sum(trace(name, i if matrix else j, j)[0])}",
    )


# --- finite differences ------------------------------------------------------------------------------------------


def bend(x):
    """The function of the finite-difference figure; its slope is 3x² − 2."""
    return (x**3 - 2 * x).sum()


def slopes(numerical_gradient):
    """A curve, its tangent, and the slopes that a step to one side and a step to both sides give."""
    mine = live(numerical_gradient)
    along = np.linspace(-2, 2, 121)

    def values(at, h):
        here = np.array([at])
        return 3 * at**2 - 2, (bend(here + h) - bend(here)) / h, float(np.asarray(mine(bend, here, h)).item())

    def draw(at, h):
        true, forward, yours = values(at, h)
        here = bend(np.array([at]))
        near = np.array([at - 1.2, at + 1.2])
        colours = picture.COLOURS
        series = {
            "f": (along, along**3 - 2 * along, {"colour": "#7A7A7A"}),
            "tangent": (near, here + true * (near - at), {"colour": colours["right"]}),
            "one side": (near, here + forward * (near - at), {"colour": colours["wrong"], "dash": True}),
            "yours": (near, here + yours * (near - at), {"colour": colours["input"], "dash": True}),
            "f(x ± h)": (
                np.array([at - h, at, at + h]),
                np.array([bend(np.array([at + s])) for s in (-h, 0, h)]),
                {"colour": colours["gradient"], "points": True, "line": False},
            ),
        }
        said = say(at, h)
        return picture.figure(
            picture.curve(series, said, x_label="x", x_range=(-2, 2), y_range=(-4, 4), width=520, height=320), said
        )

    def say(at, h):
        true, forward, yours = (picture.number(round(v, 6), 3) for v in values(at, h))
        return (
            f"At x = {picture.number(at, 1)} the slope is {true}. With h = {picture.number(h, 2)}, a step to one side "
            f"gives {forward}; your numerical_gradient gives {yours}."
        )

    return Explorer(
        draw, alt=say, height=370, at=slider("x", -1.5, 1.5, 1.0, 0.25), h=slider("h", 0.05, 1.0, 0.5, 0.05)
    )


# --- one unit in the plane ---------------------------------------------------------------------------------------

SPAN = (-2.0, 2.0)


def clouds():
    """Two clouds that a line separates, and the four corners of XOR, which no line does."""
    rng = np.random.default_rng(1)
    x, y = blobs(60, 0.35, rng, classes=2)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    return {"two clouds": (x @ turn.T + [0.3, 0.5], y), "XOR": xor(60, 0.1, np.random.default_rng(2))}


def accuracy(scores, labels):
    """The share of points on their own side of the boundary, where the score is zero."""
    return float(np.mean((scores > 0) == (labels == 1)))


def unit(forward, x, w1, w2, b):
    """The one output of a layer with two inputs, for points x (n, 2)."""
    return np.asarray(forward(x.copy(), np.array([[w1, w2]]), np.array([b])), float)[:, 0]


AROUND = picture.plane(SPAN, SPAN, 60)


def sides(forward, points, w1, w2, b, alt, title=""):
    """The plane in two colours: the side where the output is above zero, and the other."""
    field = 1 / (1 + np.exp(-2 * unit(forward, AROUND, w1, w2, b)))
    labels = {"width": 340, "x_label": "x[:, 0]", "y_label": "x[:, 1]"}
    return picture.regions(field.reshape(60, 60), *points, SPAN, SPAN, alt=alt, title=title, **labels)


def shifted(forward, biases=(-1.0, 1.0)):
    """The same weights with two biases, side by side."""
    points, said = clouds()["two clouds"], "The same line, shifted: the weights are equal, only the bias differs."
    pieces = [sides(forward, points, 1.0, 1.0, b, said, f"b[0] = {picture.number(b, 1)}") for b in biases]
    return picture.figure(picture.row(*pieces), said)


def guess_bias(linear_forward):
    """Which number shifts the boundary; answered by two pictures."""
    numbers = ["the weight w[0, 0]", "the weight w[0, 1]", "the bias b[0]"]
    return Predict(
        "Which of the three numbers moves the boundary without turning it?",
        answer=numbers[2],
        options=numbers,
        reveal=lambda: shifted(linear_forward),
    )


def boundary(linear_forward):
    """A layer with two inputs and one output cuts the plane along the straight line where y = 0."""
    forward, sets = live(linear_forward), clouds()

    def draw(points, w1, w2, b):
        said = say(points, w1, w2, b)
        return picture.figure(sides(forward, sets[points], w1, w2, b, said), said)

    def say(points, w1, w2, b):
        x, labels = sets[points]
        right = round(100 * accuracy(unit(forward, x, w1, w2, b), labels))
        w1, w2, b = (picture.number(v, 1) for v in (w1, w2, b))
        return (
            f"y = {w1} · x0 + {w2} · x1 + {b} is above zero on the orange side. The colour changes along a "
            f"straight line; {right} % of the points lie on their own side."
        ).replace("+ −", "− ")

    return Explorer(
        draw,
        alt=say,
        height=400,
        points=choice("data", list(sets)),
        w1=slider("w[0, 0]", -2.0, 2.0, 1.0, 0.1),
        w2=slider("w[0, 1]", -2.0, 2.0, 1.0, 0.1),
        b=slider("b[0]", -2.0, 2.0, 0.0, 0.1),
    )


# --- two layers are one ------------------------------------------------------------------------------------------

W1, B1 = np.array([[1.0, 0.6], [-0.5, 1.0]]), np.array([0.2, -0.1])
W2, B2 = np.array([[0.9, -0.4], [0.5, 0.8]]), np.array([-0.3, 0.2])


def grid(lines=7, points=25):
    """The lines of a square grid over the plane: (2 * lines, points, 2)."""
    at, along = np.linspace(-1.5, 1.5, lines), np.linspace(-1.5, 1.5, points)
    upright = np.stack(np.broadcast_arrays(at[:, None], along), axis=2)
    return np.concatenate([upright, upright[..., ::-1]])


def stretch(factor):
    """The first layer's weights with its second output scaled."""
    return W1 * np.array([[1.0], [factor]])


def layers(linear_forward, compose_linear):
    """A grid sent through two linear layers, and, as dots, through the one that compose_linear makes of them."""
    forward, compose = live(linear_forward), live(compose_linear)
    lines = grid()
    flat = lines.reshape(-1, 2)

    def through(factor, bend):
        w1 = stretch(factor)
        hidden = forward(flat.copy(), w1, B1)
        two = np.asarray(forward(np.maximum(hidden, 0) if bend else hidden, W2, B2), float)
        one = np.asarray(forward(flat.copy(), *compose(w1, B1, W2, B2)), float)
        return two.reshape(lines.shape), one.reshape(lines.shape)

    def draw(factor, bend):
        two, one = through(factor, bend)
        breaks = np.full((len(lines), 1, 2), np.nan)
        path = np.concatenate([two, breaks], axis=1).reshape(-1, 2)
        dots = one[:, ::4].reshape(-1, 2)
        before = np.concatenate([lines[:, [0, -1]], breaks], axis=1).reshape(-1, 2)
        options = dict(x_range=(-3, 3), y_range=(-3, 3), width=330, height=330)
        given = {"x": (*before.T, {"colour": picture.COLOURS["input"]})}
        after = {
            "two layers": (*path.T, {"colour": picture.COLOURS["output"]}),
            "one layer": (*dots.T, {"colour": picture.COLOURS["parameter"], "points": True, "line": False}),
        }
        said = say(factor, bend)
        return picture.figure(
            picture.row(
                picture.curve(given, "a square grid", **options),
                picture.operator("→"),
                picture.curve(after, said, **options),
            ),
            said,
        )

    def say(factor, bend):
        two, one = through(factor, bend)
        gap = np.abs(two - one).max()
        if gap < 1e-9:
            return "Straight lines stay straight, and one layer (dots) does exactly what the two did (lines)."
        why = "With a ReLU between them the lines fold" if bend else "The two do not agree"
        return f"{why}: the single layer (dots) is off by up to {picture.number(gap, 2)}."

    return Explorer(
        draw,
        alt=say,
        height=400,
        factor=slider("stretch w1[1]", -2.0, 2.0, 1.0, 0.25),
        bend=toggle("a ReLU between the two layers"),
    )


# --- the puzzle: ten linear layers and nine ReLUs ----------------------------------------------------------------


def census(model):
    """(name, own parameters) of every module of a Sequential that is not itself a container."""
    leaves = [layer for layer in model.modules() if not isinstance(layer, nn.Sequential)]
    return [(type(layer).__name__, sum(p.numel() for p in layer.parameters(recurse=False))) for layer in leaves]


def guess_layers(model, width):
    """How many modules of a Sequential learn; answered by all of them in a row."""
    kinds = [name for name, _ in census(model)]
    return Predict(
        f"A Sequential of {kinds.count('Linear')} nn.Linear with {kinds.count('ReLU')} nn.ReLU between them: "
        "how many layers learn?",
        answer=sum(size > 0 for _, size in census(model)),
        reveal=lambda: lineup(model, width),
    )


def lineup(model, width):
    """The model as a row of boxes: the data first, then every module; those that own parameters are numbered."""
    found = census(model)
    boxes = [_box("data", f"(n, {width})", picture.COLOURS["input"], "not a layer")]
    count = 0
    for name, size in found:
        count += size > 0
        boxes.append(
            _box(
                name,
                f"{size} numbers" if size else "nothing",
                picture.COLOURS["parameter"] if size else None,
                f"no. {count}" if size else "",
            )
        )
    total = sum(size for _, size in found)
    said = (
        f"{len(found)} modules; {count} own parameters, {total} numbers in all. The data in front of them is the "
        "input, and it owns none."
    )
    html = f'<div style="display:flex;flex-wrap:wrap;gap:6px;max-width:860px">{"".join(boxes)}</div>'
    return picture.page(picture.figure(html, said), said)


def _box(name, learns, colour, number):
    edge = f"2px solid {colour}" if colour else "1px dashed rgba(128,128,128,.7)"
    return (
        f'<div style="border:{edge};border-radius:6px;padding:4px 8px;min-width:64px;text-align:center">'
        f'<b>{escape(name)}</b><div class="lbl-note">{escape(learns)}</div>'
        f'<div class="lbl-note"><b>{escape(number)}</b>&nbsp;</div></div>'
    )


# --- a layer on images -------------------------------------------------------------------------------------------


def passed_through(layer, images):
    """What a flattening layer sees: with w the identity and b zero, y is the flattened image, here back in shape."""
    pixels = images[0].size
    return np.asarray(layer(images.copy(), np.eye(pixels), np.zeros(pixels)), float).reshape(images.shape)


def flattening(layer, images):
    """The images of a batch and, below, what a layer that flattens them gets to see."""
    layer = live(layer)

    def draw(n):
        pairs = {"x": images[:n], "what the layer sees": passed_through(layer, images[:n])}
        rows = [
            picture.piece(_framed(part, name), name, role)
            for (name, part), role in zip(pairs.items(), ("input", "output"), strict=True)
        ]
        return picture.figure(GAP.join(rows), say(n))

    def say(n):
        same = np.array_equal(images[:n], passed_through(layer, images[:n]))
        verdict = (
            "the layer sees each image as it is" if same else "each row the layer sees holds pixels of several images"
        )
        return f"With {n} image{'s' * (n > 1)} in the batch, {verdict}."

    return Explorer(draw, alt=say, height=330, n=slider("images in the batch n", 1, len(images), 1))


def _framed(images, alt, width=110):
    """Pictures in ink side by side, each in a thin frame: white paper has no edge of its own."""
    frame = '<div style="border:1px solid rgba(128,128,128,.6)">'
    drawn = (picture.img(image, f"{alt}, image {k}", "ink", 0, 1, width) for k, image in enumerate(images))
    return picture.row(*(f"{frame}{one}</div>" for one in drawn))


# --- look inside: the weights of a digit classifier --------------------------------------------------------------


def evidence(x, w):
    """What each pixel adds to each score, (classes, 8, 8): with the bias they sum to the scores."""
    return (w * x).reshape(-1, 8, 8)


def opponents(scores, label):
    """The digit that the layer says, and the one to hold against it: the true one or, where that is it, the next."""
    said, second = np.argsort(scores)[:-3:-1]
    return int(said), int(second if said == label else label)


def templates(snapshots, x, labels, linear_forward):
    """The ten rows of w as pictures while they are learned, and how an image's score comes about pixel by pixel.

    snapshots   [(w, b), …], one per epoch, the first before training
    """
    forward = live(linear_forward)
    start = snapshots[0][0]
    top = max(np.abs(w).max() for w, _ in snapshots)
    most = max(np.abs(evidence(image, snapshots[-1][0])).max() for image in x[:30])

    def state(epoch, image):
        w, b = snapshots[epoch]
        scores = np.asarray(forward(x[image : image + 1].copy(), w, b), float)[0]
        return w, b, scores, opponents(scores, labels[image])

    def weights(row, title):
        drawn = row.reshape(8, 8)
        return picture.img(drawn, title, "signed", vmax=top, width=130, title=title, role="parameter")

    def adds(w, image, title):
        return picture.img(evidence(x[image], w)[0], title, "signed", vmax=most, width=130, title=title, role="output")

    def draw(epoch, image, digit, learned):
        w, _, scores, (said, rival) = state(epoch, image)
        seen = picture.img(x[image].reshape(8, 8), f"test image {image}", "ink", 0, 1, 130, "x", "input")
        one, two = f"w[{digit}]", f"w[{said}] − w[{rival}]"
        times, makes = picture.operator("·"), picture.operator("=")
        score = picture.row(seen, times, weights(w[digit], one), makes, adds(w[[digit]], image, f"x · {one}"))
        duel = w[[said]] - w[[rival]]
        contest = picture.row(weights(duel[0], two), picture.operator("→"), adds(duel, image, f"x · ({two})"))
        rows = picture.piece(
            _numbered(w - start if learned else w, top),
            f"all rows of {'w − w at the start' if learned else 'w'}",
            "parameter",
            w.shape,
        )
        bars = picture.heat(
            scores, "y, one score per digit", vmax=1.5, columns=list(range(10)), mark=[(0, said)], role="output"
        )
        frame = picture.row(score, contest) + GAP + bars + GAP + rows
        return picture.figure(frame, say(epoch, image, digit, learned))

    def say(epoch, image, digit, learned):
        w, b, scores, (said, rival) = state(epoch, image)
        pixels, right = evidence(x[image], w)[digit], said == labels[image]
        speak, against = (picture.number(part.sum(), 2) for part in (pixels[pixels > 0], pixels[pixels < 0]))
        return (
            f"After {epoch} epochs, the score of {digit}: {speak} from orange pixels, {against} from purple ones and "
            f"{picture.number(b[digit], 2)} from the bias make {picture.number(scores[digit], 2)}. The highest score "
            f"is that of {said}: {'right' if right else f'wrong, it is a {labels[image]}'}. In the last picture orange "
            f"speaks for {said} and purple for {rival}{', the runner-up' if right else ''}."
        )

    last = len(snapshots) - 1
    return Explorer(
        draw,
        alt=say,
        height=470,
        epoch=slider("epoch", 0, last, last),
        image=slider("test image", 0, 29, 0),
        digit=slider("digit", 0, 9, int(labels[0])),
        learned=toggle("rows without their random start", True),
    )


def _numbered(w, top):
    """The ten rows of w as pictures in a line, each under its digit."""
    sheet = picture.img(
        picture.mosaic(w.reshape(-1, 8, 8), columns=len(w)), "ten small pictures", "signed", vmax=top, width=780
    )
    heads = "".join(f'<div style="flex:1;text-align:center">{digit}</div>' for digit in range(len(w)))
    return f'<div style="max-width:788px"><div style="display:flex">{heads}</div>{sheet}</div>'


def followed(path, w, b, linear_forward, digits):
    """An image before and after it was moved along −dx, what was added, and its scores on the way."""
    first, last = path[0].reshape(8, 8), path[-1].reshape(8, 8)
    scores = np.asarray(linear_forward(np.concatenate(path), w, b), float)
    most = np.abs(last - first).max()
    said = (
        f"After {len(path) - 1} steps the layer reads a {scores[-1].argmax()} where it read a {scores[0].argmax()}. "
        f"No pixel (0 white, 1 black) has changed by more than {picture.number(most, 2)}."
    )
    lines = {f"score of {digit}": scores[:, digit] for digit in digits}
    html = picture.row(
        picture.piece(_framed([first], "the image"), "x", "input"),
        picture.operator("+"),
        picture.img(
            last - first, "what was added", "signed", vmax=1, width=110, title="added, along −dx", role="gradient"
        ),
        picture.operator("="),
        picture.piece(_framed([last.clip(0, 1)], "the moved image"), "x moved", "input"),
        picture.curve(lines, said, x_label="step", width=300, height=190),
    )
    return html, said
