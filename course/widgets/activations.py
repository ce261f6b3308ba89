"""Lesson 02: bend a plane, push a number through a curve and a gradient back, turn up softmax, look inside a network.

The functions above the line are pure (state -> arrays) and are tested without a browser; those below it return
interactive figures.
"""

import sys
from functools import lru_cache
from html import escape
from itertools import product

import numpy as np
from IPython.display import HTML, display

from course.data import two_moons, xor
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.picture import (
    COLOURS,
    curve,
    differs,
    figure,
    heat,
    img,
    mosaic,
    note,
    number,
    operator,
    page,
    piece,
    plane,
    regions,
    row,
)
from course.widgets.predict import Predict

SPAN = (-8.0, 8.0)  # of x in the pictures of one activation
SIDE = 48  # pixels of a decision region
WINDOW = (-1.5, 1.5)  # of the plane


def identity(x):
    """No activation at all."""
    return x


@lru_cache
def points(name, n=100):
    """The two data sets, centred so that both fit WINDOW: x (n, 2), y (n,)."""
    rng = np.random.default_rng(2)
    if name == "XOR":
        return xor(n, noise=0.0, rng=rng)
    x, y = two_moons(n, noise=0.1, rng=rng)
    return (x - [0.5, 0.25]) / 1.1, y


def hidden_layer(units, turn=0.0, spread=0.0, sharpness=2.0):
    """Weights (units, 2) pointing evenly all round, the first `turn` degrees from the x axis, and biases (units,)."""
    angle = np.deg2rad(turn) + 2 * np.pi * np.arange(units) / units
    offset = np.resize([0.0, -1.0, 1.0, -0.5, 0.5], units)
    return sharpness * np.stack([np.cos(angle), np.sin(angle)], axis=1), sharpness * spread * offset


def readout(h, y):
    """The output layer that fits labels −1 and 1 best by least squares: v (units,), c."""
    design = np.column_stack([h, np.ones(len(h))])
    ridge = 1e-3 * np.eye(design.shape[1])
    solution = np.linalg.solve(design.T @ design + ridge, design.T @ (2.0 * y - 1))
    return solution[:-1], solution[-1]


def fold(activation, x, y, w, b, pixels=None):
    """A network of one hidden layer: what its units say over the plane, its scores there, its accuracy on (x, y)."""
    pixels = plane(WINDOW, WINDOW, SIDE) if pixels is None else pixels
    v, c = readout(activation(x @ w.T + b), y)
    h = activation(pixels @ w.T + b)
    right = ((activation(x @ w.T + b) @ v + c > 0) == (y == 1)).mean()
    return {"hidden": h, "scores": h @ v + c, "accuracy": float(right), "readout": (v, c)}


def through(forward, backward, x, dy):
    """One activation at the points x (n,): y, its slope, and the gradient dx that is left of dy."""
    x = np.asarray(x, float)
    slope, dx = backward(np.ones_like(x), x.copy()), backward(np.full_like(x, dy), x.copy())
    return {"y": forward(x.copy()), "slope": slope, "dx": dx}


def jacobian(backward, x):
    """All slopes of a function of a vector: row i is the gradient of output i, found by sending back a one at i."""
    return np.stack([backward(dy, x.copy()) for dy in np.eye(len(x))])


def layer_state(layers, x, forward, backward, nearly_flat=0.05):
    """Each hidden layer of a network on a batch: activations, and which units are dead or nearly flat.

    dead: the slope is 0 for every example. flat: the share of (example, unit) pairs with |slope| < nearly_flat.
    contrast: by how much a unit's output differs from example to example (standard deviation, mean over units).
    """
    found = []
    for w, b in layers[:-1]:
        z = x @ w.T + b
        x = forward(z.copy())
        slope = np.abs(backward(np.ones_like(z), z))
        found.append(
            {
                "h": x,
                "dead": (slope == 0).all(axis=0),
                "flat": float((slope < nearly_flat).mean()),
                "contrast": float(x.std(axis=0).mean()),
            }
        )
    return found


# ------------------------------------------------------------------------------------------------ interactive figures


def yours(name, reference):
    """The function `name` of the notebook as soon as it is written, the reference until then; and whose it was."""

    def call(x):
        own = vars(sys.modules["__main__"]).get(name)
        if own is not None:
            try:
                value = own(x.copy())
                call.whose = "your"
                return value
            except NotImplementedError:
                pass
        call.whose = "PyTorch's"
        return reference(x)

    return call


def folds(reference):
    """Decision regions of a two-layer network whose hidden units the reader turns, moves and sharpens.

    The output layer is solved, so that what is seen is what this hidden layer makes possible. `reference` is
    {"relu": forward}; a function relu_forward of the notebook is used in its place once it is written.
    """
    mine = {"identity": identity} | {name: yours(f"{name}_forward", f) for name, f in reference.items()}

    def state(data, activation, units, turn, spread, sharpness, functions=mine):
        x, y = points(data)
        return fold(functions[activation], x, y, *hidden_layer(units, turn, spread, sharpness))

    def finding(data, activation, units, **rest):
        share = state(data, activation, units, **rest)["accuracy"]
        straight = ": without a bend, the boundary stays one straight line" if activation == "identity" else ""
        some = "1 unit" if units == 1 else f"{units} units"
        return f"{some}, {activation}: {100 * share:.0f} % of the points are on the right side{straight}."

    def draw(**values):
        got = state(**values)
        x, y = points(values["data"])
        activation, units = values["activation"], values["units"]
        score = got["scores"].reshape(SIDE, SIDE)
        maps = got["hidden"].T.reshape(units, SIDE, SIDE)
        top = max(1e-9, float(np.abs(maps).max()))
        sheet = mosaic(maps, columns=4 if units > 4 else 2, gap=3)
        seen = img(sheet, f"what each of the {units} hidden units says over the plane", "signed", vmax=top, width=220)
        left = piece(seen, "hidden units", role="parameter")
        right = regions(
            0.5 + 0.5 * np.tanh(2 * score),
            x,
            y,
            WINDOW,
            WINDOW,
            width=300,
            role="output",
            alt=finding(**values),
            title="decision: colour jumps where the score is 0",
        )
        below = ""
        if activation != "identity":
            wrong = differs(got["hidden"], state(**values, functions=reference)["hidden"])
            below = note(f"The bend is {mine[activation].whose} {activation}_forward.")
            if wrong.any():
                below = _orange(
                    f"{100 * wrong.mean():.0f} % of your {activation}_forward's values differ from PyTorch's."
                )
        return figure(row(left, operator("→"), right) + below, finding(**values))

    return Explorer(
        draw,
        alt=finding,
        height=380,
        data=choice("data", ["XOR", "two moons"]),
        activation=choice("activation", list(mine), "tanh" if "tanh" in mine else None),
        units=slider("hidden units", 1, 12, 4),
        turn=slider("turn (degrees)", 0, 90, 0, 5),
        spread=slider("spread of the biases", 0.0, 1.2, 0.0, 0.1),
        sharpness=slider("size of the weights", 0.25, 8.0, 2.0, 0.25),
    )


def gate(mine, reference):
    """A number goes through an activation and a gradient comes back: value, slope, what is left of dy."""
    mine = {name: tuple(live(f) for f in pair) for name, pair in mine.items()}
    grid = np.linspace(*SPAN, 161)

    def states(activation, x, dy):
        at = [through(*functions[activation], np.array([x]), dy) for functions in (mine, reference)]
        lines = [through(*functions[activation], grid, dy) for functions in (mine, reference)]
        return at, lines

    def finding(activation, x, dy):
        slope = float(reference[activation][1](np.ones(1), np.array([x]))[0])
        share = "nothing" if slope == 0 else "all" if slope == 1 else f"{100 * slope:.3g} %".replace("-", "−")
        left = number(slope**10) if slope in (0, 1) else f"{slope**10:.1e}"
        return f"{activation} at x = {number(x)}: {share} of dy gets back; ten such in a row leave dy times {left}."

    def draw(activation, x, dy):
        (at, at_want), (line, line_want) = states(activation, x, dy)
        numbers = level(
            heat(np.array([x]), "x", role="input", vmax=SPAN[1]),
            operator("→"),
            heat(at["y"], f"y = {activation}(x)", role="output", want=at_want["y"], vmax=SPAN[1], digits=3),
            operator(""),
            heat(at["dx"], "dx = dy × slope", role="gradient", want=at_want["dx"], vmax=2, digits=4),
            operator("←"),
            heat(np.array([dy]), "dy", role="gradient", vmax=2),
        )
        values = _line(
            line["y"], line_want["y"], grid, COLOURS["output"], f"y = {activation}(x)", "y", (-2, 4), (x, at["y"], "y")
        )
        slopes = _line(
            line["slope"],
            line_want["slope"],
            grid,
            COLOURS["gradient"],
            f"slope of {activation}",
            "dx for dy = 1",
            (-0.3, 1.3),
            (x, at["slope"], "slope"),
        )
        strip = survivors(line["slope"])
        return figure(row(values, slopes) + strip + numbers, finding(activation, x, dy))

    return Explorer(
        draw,
        alt=finding,
        height=400,
        activation=choice("activation", list(mine), "sigmoid" if "sigmoid" in mine else None),
        x=slider("x", *SPAN, -3.0, 0.25),
        dy=slider("dy", -2.0, 2.0, 1.0, 0.25),
    )


def _line(got, want, grid, colour, title, label, y_range, mark):
    """The learner's curve; where it is not the reference's, the reference dashed and the difference in orange."""
    series = {"": (grid, _as_line(got, grid), {"colour": colour})}
    if np.shape(got) != np.shape(want):
        series = {"PyTorch": (grid, want, {"colour": COLOURS["right"], "dash": True})}
        return piece(
            curve(series, alt=f"{title}: yours has another shape", title=title, y_range=y_range, width=340, height=220)
            + _orange(f"yours has shape {np.shape(got)}, the input has {grid.shape}")
        )
    wrong = differs(got, want)
    if wrong.any():
        series = {
            "yours": (grid, got, {"colour": COLOURS["wrong"]}),
            "PyTorch": (grid, want, {"colour": COLOURS["right"], "dash": True}),
        }
    x, y, text = mark
    value = float(np.ravel(y)[0])
    return curve(
        series,
        alt=f"{title}, {value:.3g} at x = {x:g}",
        title=title,
        x_label="x",
        y_label=label,
        x_range=SPAN,
        y_range=y_range,
        width=340,
        height=220,
        marks=[(x, value, f"{text} {number(value, 3)}")],
    )


def _as_line(values, grid):
    values = np.asarray(values, float)
    return values if values.shape == grid.shape else np.full_like(grid, np.nan)


def level(*pieces):
    """Pieces side by side with their titles in one line, whatever stands below them."""
    shifted = [f'<div style="padding-top:18px">{part}</div>' if "lbl-op" in part else part for part in pieces]
    return f'<div class="lbl-row" style="align-items:flex-start;margin-top:8px">{"".join(shifted)}</div>'


def survivors(slope):
    """How much of a gradient survives at each x: one line of pixels as wide as the two charts."""
    slope = np.abs(np.asarray(slope, float)).reshape(1, -1)
    open_ = float((slope >= 0.05).mean())
    said = f"from x = −8 to 8, at least a twentieth of dy survives on {100 * open_:.0f} % of the line"
    return piece(
        img(np.repeat(slope, 6, axis=0), said, "magnitude", 0.0, 1.0, width=680), f"what survives of dy: {said}"
    )


def _orange(text):
    return f'<div class="lbl-note" style="color:{COLOURS["wrong"]};font-weight:600">{escape(text)}</div>'


def temperature(mine, reference):
    """Softmax of three scores: probabilities, their Jacobian by the learner's backward pass, and a temperature."""
    forward, backward = (live(f) for f in mine)
    forward_want, backward_want = reference
    temperatures = np.linspace(0.1, 5, 99)

    def finding(a, b, c, t):
        p = forward_want(np.array([a, b, c]) / t)
        return (
            f"Scores {number(a)}, {number(b)}, {number(c)} at temperature {number(t)}: the largest probability is "
            f"{p.max():.2f}, the slopes on the Jacobian's diagonal are at most {(p * (1 - p)).max():.2f}."
        )

    def draw(a, b, c, t):
        x = np.array([a, b, c])
        z = x / t
        p, names = forward(z.copy()), ["p₁", "p₂", "p₃"]
        want = forward_want(z)

        def term(i, j):
            gate, plain = f"{want[i]:.3f} · (1 − {want[j]:.3f})", f"−{want[i]:.3f} · {want[j]:.3f}"
            return f"d{names[i]}/dx{'₁₂₃'[j]} = {gate if i == j else plain}"

        scores = heat(z, "x / temperature", role="input", vmax=10)
        share = heat(p, "p, their softmax", role="output", want=want, vmax=1, digits=3)
        table = heat(
            jacobian(backward, z),
            "Jacobian: row i is the gradient of pᵢ",
            role="gradient",
            vmax=0.25,
            digits=3,
            want=jacobian(backward_want, z),
            rows=names,
            columns=["x₁", "x₂", "x₃"],
            tips=term,
        )
        over = forward(x / temperatures[:, None])
        lines = {name: (temperatures, over[:, k]) for k, name in enumerate(names)}
        chart = curve(
            lines,
            alt="the three probabilities against temperature: one and two zeros when cold, thirds when hot",
            title="the same scores at other temperatures",
            x_label="temperature",
            y_range=(0, 1),
            x_range=(0, 5),
            width=330,
            height=230,
            marks=[(t, float(np.max(want)), "now")],
        )
        return figure(level(scores, operator("→"), share) + level(table, chart), finding(a, b, c, t))

    return Explorer(
        draw,
        alt=finding,
        height=420,
        a=slider("x₁", -5.0, 5.0, 2.0, 0.5),
        b=slider("x₂", -5.0, 5.0, 1.0, 0.5),
        c=slider("x₃", -5.0, 5.0, 0.0, 0.5),
        t=slider("temperature", 0.1, 5.0, 1.0, 0.1),
    )


def inside(runs, x, functions):
    """The hidden layers of trained networks: every unit on every example, over the course of training.

    runs       {"relu": [layers after epoch 0, layers after epoch 1, …]}, layers a list of (w, b)
    functions  {"relu": (forward, backward)}; a run is named after one of them: "relu", "relu, rate 1"
    """
    functions = {name: tuple(live(f) for f in pair) for name, pair in functions.items()}
    last = min(map(len, runs.values())) - 1

    def state(run, epoch):
        return layer_state(runs[run][epoch], x, *functions[run.split(",")[0]])

    @lru_cache
    def order(run):
        """Every layer's units, those dead in the most epochs last: a column keeps its place as epochs go by."""
        deaths = [[layer["dead"] for layer in state(run, epoch)] for epoch in range(last + 1)]
        return [np.argsort(np.sum(epochs, axis=0), kind="stable") for epochs in zip(*deaths, strict=True)]

    def finding(run, epoch):
        said = "; ".join(
            f"layer {k} has {int(s['dead'].sum())} of {s['h'].shape[1]} units dead, {100 * s['flat']:.0f} % of "
            f"slopes nearly 0"
            for k, s in enumerate(state(run, epoch), 1)
        )
        return f"{run}, after epoch {epoch}: {said}."

    def draw(run, epoch):
        pieces = []
        for k, (layer, columns) in enumerate(zip(state(run, epoch), order(run), strict=True), 1):
            h = layer["h"][:, columns]
            seen = img(
                h,
                f"layer {k}: {h.shape[0]} examples by {h.shape[1]} units",
                "signed",
                vmax=float(np.abs(h).max()) or 1.0,
                width=6 * h.shape[1],
            )
            pieces.append(
                piece(
                    seen
                    + note(f"{int(layer['dead'].sum())} dead · {100 * layer['flat']:.0f} % nearly flat")
                    + note(f"examples differ by {layer['contrast']:.4f}"),
                    f"layer {k}",
                    "output",
                )
            )
        return figure(row(*pieces), finding(run, epoch) + " Rows are examples, columns are units.")

    return Explorer(
        draw,
        alt=finding,
        height=330,
        run=choice("network", list(runs)),
        epoch=slider("epoch", 0, last, max(0, last - 1)),
    )


def experiment(title, names, rates, run):
    """{name: {rate: run(name, rate)}}, each (seeds, epochs, 2), while a table of the last accuracies fills in."""
    found, total = {name: {} for name in names}, len(names) * len(rates)
    place = display(HTML(""), display_id=True)
    for done, (name, rate) in enumerate(product(names, rates), 1):
        found[name][rate] = run(name, rate)
        if place and len(found[name]) == len(rates):
            place.update(
                HTML(
                    page(
                        results(title, {n: runs for n, runs in found.items() if len(runs) == len(rates)}, done / total)
                    )
                )
            )
    return found


def results(title, found, share=1.0):
    """A table of test accuracy in percent, activation by learning rate, from {name: {rate: (seeds, epochs, 2)}}."""
    names, rates = list(found), list(next(iter(found.values())))
    last = [[100 * found[name][rate][:, -1, 1] for rate in rates] for name in names]

    def tip(i, j):
        return f"{names[i]} at {rates[j]:g}, seed by seed: " + ", ".join(f"{value:.1f}" for value in sorted(last[i][j]))

    mean = np.mean(last, axis=2)
    best = "; ".join(f"{name} at most {value:.0f}" for name, value in zip(names, mean.max(axis=1), strict=True))
    table = heat(
        mean,
        title,
        f"test accuracy in percent: {best}",
        "magnitude",
        0,
        100,
        rows=names,
        tips=tip,
        digits=0,
        columns=[f"rate {rate:g}" for rate in rates],
    )
    bar = f'<div class="lbl-bar"><div style="width:{100 * share:.0f}%"></div></div>' if share < 1 else ""
    return bar + figure(table, "Test accuracy in percent, mean over seeds; 10 is guessing.")


def maps(networks, x, y, window=((-1.7, 2.7), (-1.4, 1.9))):
    """Decision regions of trained networks side by side: {"relu": predict}, predict (n, 2) -> score of class 1 (n,)."""
    grid = plane(*window, 40)
    pieces = []
    for name, predict in networks.items():
        right = 100 * ((predict(x) > 0.5) == (y == 1)).mean()
        pieces.append(
            regions(
                predict(grid).reshape(40, 40),
                x,
                y,
                *window,
                width=215,
                title=f"{name}: {right:.0f} %",
                alt=f"{name}: {right:.0f} % of the points on the right side",
            )
        )
    return row(*pieces)


def best_line(x, y, turns=180):
    """The straight line that gets most of (x, y) right, found by trying: w (2,), b, its accuracy."""
    angle = np.linspace(0, 2 * np.pi, turns, endpoint=False)
    directions = np.stack([np.cos(angle), np.sin(angle)])
    along = x @ directions
    right = (along[None] > along[:, None]) == (y == 1)[None, :, None]  # (cut, point, direction)
    cut, k = np.unravel_index(right.mean(axis=1).argmax(), right.shape[::2])
    return directions[:, k], -along[cut, k], float(right[cut, :, k].mean())


def guess_straight():
    """Predict: how many of XOR's points can two layers without an activation get right?"""
    x, y = points("XOR")
    w, b, accuracy = best_line(x, y)

    def reveal():
        scores = plane(WINDOW, WINDOW, SIDE) @ w + b
        picture = regions(
            0.5 + 0.5 * np.tanh(4 * scores.reshape(SIDE, SIDE)),
            x,
            y,
            WINDOW,
            WINDOW,
            width=280,
            alt="XOR's points and one straight line, which cuts off one of the four corners",
        )
        return figure(
            picture,
            f"Twelve hidden units, and still one straight line. The best of all lines cuts off one corner and gets "
            f"{100 * accuracy:.0f} % of these points; a coin would get half.",
        )

    return Predict(
        "A network with 12 hidden units and no activation, with whatever weights you like. What percentage of XOR's "
        "points can it get right at most?",
        100 * accuracy,
        reveal,
        tolerance=5,
    )
