"""Lesson 08: who shares a mean with whom, a batch of one, running statistics, batch norm as a circle, moving inputs."""

from functools import lru_cache

import numpy as np

from course.widgets import picture
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.predict import Predict

COLOURS = picture.COLOURS
KINDS = ("batch", "layer", "instance", "group", "rms")
NAMES = ("batchnorm_forward", "layernorm_forward", "groupnorm_forward", "rmsnorm_forward")
NETWORKS = {"plain": "#7A7A7A", "batch norm": "#1B7FBD", "batch norm + noise": "#D55E00"}


# --- which entries share a mean --------------------------------------------------------------------------------------


def images(n, c, side):
    """Images (n, c, side, side) whose examples and channels lie at different heights, so that each norm shows."""
    rng = np.random.default_rng(5)
    heights = np.array([1.2, -0.8, 0.3, -1.4])[:, None] + np.array([0.5, 2.0, -2.2, 1.0, -0.6, -1.2])
    return (0.7 * rng.standard_normal((4, 6, 4, 4)) + heights[:, :, None, None])[:n, :c, :side, :side]


def normalised(kind, functions, x, num_groups):
    """Images x (n, c, h, w) through one norm, without gain and shift: `functions` in the order of NAMES."""
    batchnorm, layernorm, groupnorm, rmsnorm = functions
    n, c, h, w = x.shape
    ones, zeros, flat = np.ones(c * h * w), np.zeros(c * h * w), x.reshape(n, -1).copy()
    if kind == "batch":
        rows = x.transpose(0, 2, 3, 1).reshape(-1, c)
        return np.asarray(batchnorm(rows, ones[:c], zeros[:c]), float).reshape(n, h, w, c).transpose(0, 3, 1, 2)
    if kind == "layer":
        return np.asarray(layernorm(flat, ones, zeros), float).reshape(x.shape)
    if kind == "rms":
        return np.asarray(rmsnorm(flat, ones), float).reshape(x.shape)
    twice = np.concatenate([x, x])  # since PyTorch refuses a batch that is a single entry
    return np.asarray(groupnorm(twice, ones[:c], zeros[:c], c if kind == "instance" else num_groups), float)[:n]


def answering(kind, functions, x, num_groups, index):
    """The output, and which of its entries answer when the input entry at `index` is nudged."""
    y, nudged = normalised(kind, functions, x, num_groups), x.copy()
    nudged[index] += 0.5
    answers = np.abs(normalised(kind, functions, nudged, num_groups) - y) > 1e-9
    answers[index] = True
    return y, answers


def sheet(values, members, picked=None, wrong=None, title="", alt="", role=None, cell=17):
    """Images (n, c, h, w) as coloured blocks: a row for each example, a column for each channel; members stand out."""
    n, c, h, w = values.shape
    gap, left, top, side, dot = 9, 20, 18, cell - 1, ""
    colours = picture.palette_bytes("signed")[picture.indices(values, "signed", vmax=3.5)]
    parts = [
        f'<text x="{left + k * (w * cell + gap) + w * cell / 2}" y="12" text-anchor="middle">c{k}</text>'
        for k in range(c)
    ]
    parts += [f'<text x="0" y="{top + k * (h * cell + gap) + h * cell / 2 + 4}">n{k}</text>' for k in range(n)]
    squares, outlines = {True: [], False: []}, {True: [], False: []}
    for index in np.ndindex(n, c, h, w):
        i, j, a, b = index
        x, y = left + j * (w * cell + gap) + b * cell, top + i * (h * cell + gap) + a * cell
        fill = bytes(colours[index]).hex()
        squares[bool(members[index])].append(f'<path fill="#{fill}" d="M{x} {y}h{side}v{side}h-{side}z"/>')
        if members[index]:
            off = wrong is not None and bool(wrong[index])
            outlines[off].append(f"M{x + 0.7} {y + 0.7}h{side - 1.4:.1f}v{side - 1.4:.1f}h-{side - 1.4:.1f}z")
        if index == picked:
            dot = f'<circle cx="{x + side / 2}" cy="{y + side / 2}" r="4.2" fill="#111" stroke="#fff"/>'
    parts += [f'<g opacity=".28">{"".join(squares[False])}</g>', *squares[True]]
    for off, colour in ((False, "currentColor"), (True, COLOURS["wrong"])):
        parts.append(f'<path d="{"".join(outlines[off])}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    parts.append(dot)
    width, height = left + c * (w * cell + gap), top + n * (h * cell + gap)
    svg = (
        f'<svg role="img" aria-label="{alt or title}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-size="11">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, title, role)


def overview(functions):
    """One picture of all five norms: the entries that share their statistics with the marked one."""
    x = images(3, 4, 2)
    pieces = []
    for kind in KINDS:
        _, members = answering(kind, functions, x, 2, (0, 1, 0, 0))
        name = "group norm (2 groups)" if kind == "group" else "RMS norm" if kind == "rms" else f"{kind} norm"
        alt = f"{name}: {members.sum()} of {x.size} entries share the statistics"
        pieces.append(sheet(x, members, (0, 1, 0, 0), title=name, alt=alt, cell=15))
    return picture.row(*pieces)


def sharing(functions, references, kind="batch"):
    """Choose a norm, the sizes and one entry: which entries share its statistics, before and after."""
    mine = [live(function) for function in functions]

    def draw(kind, num_groups, n, c, side, entry):
        x, groups, index = _place(num_groups, n, c, side, entry)
        y, members = answering(kind, mine, x, groups, index)
        want = normalised(kind, references, x, groups)
        wrong = picture.differs(y, want)
        off = f" {wrong.sum()} of {wrong.size} entries differ from the reference." if wrong.any() else ""
        before = sheet(x, members, index, title=f"before: x {x.shape}", alt="the input", role="input")
        after = sheet(y, members, index, wrong | (wrong.any() & members), f"after: y {y.shape}", "the output", "output")
        return picture.figure(
            picture.row(before, picture.operator("→"), after), said(kind, num_groups, n, c, side, entry) + off
        )

    def said(kind, num_groups, n, c, side, entry):
        x, groups, index = _place(num_groups, n, c, side, entry)
        y, members = answering(kind, references, x, groups, index)
        name = {"rms": "RMS norm", "group": f"Group norm, {_count(groups, 'group')}"}.get(kind, f"{kind} norm")
        sets, who = x.size // members.sum(), f"x[{', '.join(map(str, index))}]"
        if kind == "rms":
            before, after = (np.sqrt((v[members] ** 2).mean()) for v in (x, y))
            how = f"root mean square {before:.2f} before, {after:.2f} after; {_count(sets, 'scale')} in all, no means"
        else:
            how = (
                f"mean {_signed(x[members].mean())} and standard deviation {x[members].std():.2f} before, "
                f"{_signed(y[members].mean())} and {y[members].std():.2f} after; {_count(sets, 'mean')} in all"
            )
        return (
            f"{name[0].upper()}{name[1:]}: {who} = {_signed(x[index])} (the dot) becomes {_signed(y[index])}. Nudging "
            f"it moves the {_count(members.sum(), 'outlined entry', 'outlined entries')}: {how}."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        kind=choice("norm", list(KINDS), kind),
        num_groups=choice("groups", {"1": 1, "2": 2, "one per channel": 0}, 2),
        n=slider("examples N", 1, 4, 3),
        c=choice("channels C", [2, 4, 6], 4),
        side=slider("height and width", 1, 4, 2),
        entry=slider("entry", 0, 23, 4),
    )


def _place(num_groups, n, c, side, entry):
    """The images, the number of groups and the entry that the controls mean: `entry` walks over the first pixels."""
    x = images(n, c, side)
    index = tuple(int(k) for k in np.unravel_index(entry * max(1, x.size // 24) % x.size, x.shape))
    return x, num_groups or c, index


def _count(number, one, many=None):
    return f"{number} {one if number == 1 else many or one + 's'}"


def _signed(value):
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")


# --- training and evaluation -----------------------------------------------------------------------------------------

ALICE = np.array([2.0, -1.0, 0.5])
RUNNING = np.array([1.0, 0.0, -0.5]), np.array([1.5, 0.8, 1.2])  # what training has left in the buffers


def company_of(n, offset):
    """A batch (n, 3): one fixed example and n - 1 neighbours, all shifted by `offset`."""
    others = np.random.default_rng(8).standard_normal((5, 3)) + offset
    return np.concatenate([ALICE[None], others])[:n]


def three_answers(batchnorm, evaluate, layernorm, x):
    """What batch norm in training, batch norm in evaluation and layer norm make of a batch, gain 1 and shift 0."""
    ones, zeros = np.ones(3), np.zeros(3)
    return (
        batchnorm(x.copy(), ones, zeros),
        evaluate(x.copy(), ones, zeros, *(value.copy() for value in RUNNING)),
        layernorm(x.copy(), ones, zeros),
    )


def company(functions, references):
    """One example in changing company: batchnorm_forward, batchnorm_eval, layernorm_forward on the same batch."""
    mine = [live(function) for function in functions]

    def draw(n, offset):
        x = company_of(n, offset)
        got, want = three_answers(*mine, x), three_answers(*references, x)
        labels = ["the example", *(f"neighbour {k}" for k in range(1, n))]
        titles = ("batch norm, training", "batch norm, evaluation", "layer norm")
        marked = [(0, j) for j in range(3)]
        pieces = [picture.heat(x, "x", vmax=4, rows=labels, mark=marked, role="input"), picture.operator("→")]
        pieces += [
            picture.compare(y, right, title, vmax=2.5, mark=marked, role="output")
            for y, right, title in zip(got, want, titles, strict=True)
        ]
        return picture.figure(picture.row(*pieces), said(n, offset))

    def said(n, offset):
        first, alone, row = (y[0] for y in three_answers(*references, company_of(n, offset)))
        texts = ["(" + ", ".join(_signed(v) for v in values) + ")" for values in (first, alone, row)]
        company = "alone" if n == 1 else f"with {_count(n - 1, 'neighbour')}"
        ends = " A batch of one leaves nothing of it: x is its own mean." if n == 1 else ""
        return (
            f"The example {company}: {texts[0]} in training; {texts[1]} in evaluation and {texts[2]} by layer norm, "
            f"whatever the company.{ends}"
        )

    return Explorer(
        draw,
        alt=said,
        height=290,
        n=slider("batch size", 1, 6, 4),
        offset=slider("neighbours shifted by", -3.0, 3.0, 0.0, 0.5),
    )


def guess_alone(reference):
    """Predict: what batch norm in training puts out for a single example."""
    forward = reference("batchnorm_forward")

    def reveal():
        x = ALICE[None]
        y = forward(x, np.ones(3), np.zeros(3))
        return picture.row(
            picture.heat(x, "x", role="input"), picture.operator("→"), picture.heat(y, "y", vmax=2, role="output")
        ) + picture.note(
            "The mean of one number is that number, so x − mean is 0, whatever x was. With gain and shift: y = beta."
        )

    return Predict(
        "A batch of one, (2, −1, 0.5), gain 1 and shift 0, goes through batch norm in training. What comes out?",
        answer="(0, 0, 0)",
        options=["(2, −1, 0.5)", "(0, 0, 0)", "(1.22, −1.22, 0)", "nothing: 0 / 0"],
        reveal=reveal,
    )


def guess_scale(reference):
    """Predict: what a tenfold weight before batch norm does to its gradient."""

    def reveal():
        (y, dw), (y_ten, dw_ten) = (before_batchnorm(reference, scale) for scale in (1.0, 10.0))
        top = np.abs(dw).max()
        return picture.row(
            picture.heat(dw, "dw", vmax=top, digits=4, role="gradient"),
            picture.heat(dw_ten, "dw, weights times ten", vmax=top, digits=4, role="gradient"),
        ) + picture.note(
            f"The outputs differ by {picture.number(np.abs(y - y_ten).max())} at most: the same function, of weights "
            "ten times as large, has a tenth of the slope."
        )

    return Predict(
        "All weights of a linear layer in front of a batch norm are multiplied by 10. Its weight gradient becomes …",
        answer="a tenth",
        options=["ten times as large", "as large as before", "a tenth", "a hundredth"],
        reveal=reveal,
    )


def before_batchnorm(reference, scale):
    """Output and weight gradient of a linear layer, its weights multiplied by `scale`, followed by a batch norm."""
    rng = np.random.default_rng(2)
    x, w, dy = rng.normal(size=(8, 3)), scale * rng.normal(size=(2, 3)), rng.normal(size=(8, 2))
    ones, zeros, z = np.ones(2), np.zeros(2), x @ w.T
    dz, *_ = reference("batchnorm_backward")(dy, z, ones, zeros, 1e-12)
    return reference("batchnorm_forward")(z, ones, zeros, 1e-12), dz.T @ x


# --- running statistics ----------------------------------------------------------------------------------------------

TRUE_MEAN, TRUE_VAR, BATCHES = 2.0, 2.25, 60


def recorded(running, n, momentum, batches=BATCHES):
    """Running mean and variance (batches + 1, 2) of a feature with a known distribution, and each batch's own."""
    rng = np.random.default_rng(4)
    mean, var, kept, seen = np.zeros(1), np.ones(1), [(0.0, 1.0)], []
    for _ in range(batches):
        x = TRUE_MEAN + np.sqrt(TRUE_VAR) * rng.standard_normal((n, 1))
        mean, var = running(x, mean, var, momentum)
        kept.append((float(np.squeeze(mean)), float(np.squeeze(var))))
        seen.append((x.mean(), x.var()))
    return np.array(kept), np.array(seen)


def running(batchnorm_running, reference):
    """Running mean and variance over many batches, against PyTorch's and the truth."""
    mine, steps = live(batchnorm_running), np.arange(BATCHES + 1)

    @lru_cache
    def right(n, momentum):
        return recorded(reference, n, momentum)[0]

    def biased(x, mean, var, momentum):
        return (1 - momentum) * mean + momentum * x.mean(0), (1 - momentum) * var + momentum * x.var(0)

    def draw(momentum, n):
        (got, seen), (low, _) = (recorded(f, n, momentum) for f in (mine, biased))
        want = right(n, momentum)
        charts = []
        for k, (name, truth, top) in enumerate((("mean", TRUE_MEAN, 4.5), ("variance", TRUE_VAR, 6.0))):
            lines = {
                f"of each batch{' (biased)' if k else ''}": (
                    steps[1:], seen[:, k], {"line": False, "points": True, "colour": "#9aa7b0"},
                ),
                "truth": (steps[[0, -1]], [truth, truth], {"colour": "#7A7A7A", "dash": True}),
                f"running {name}": (steps, got[:, k], {"colour": COLOURS["output"]}),
            }  # fmt: skip
            if k:
                lines["with the biased variance"] = steps, low[:, k], {"colour": COLOURS["parameter"], "dash": True}
            if picture.differs(got[:, k], want[:, k]).any():
                lines["PyTorch's"] = steps, want[:, k], {"colour": COLOURS["wrong"], "dash": True}
            charts.append(
                picture.curve(
                    lines,
                    said(momentum, n),
                    f"running {name}",
                    "batches seen",
                    y_range=(-0.3, top),
                    width=390,
                    height=270,
                )
            )
        gap = np.abs(got - want).max()
        same = "the same as PyTorch's" if gap < 1e-9 else f"the reference is PyTorch's; furthest apart {gap:.2g}"
        note = picture.note(f"After {BATCHES} batches: mean {got[-1, 0]:.4f}, variance {got[-1, 1]:.4f}; {same}.")
        return picture.figure(picture.row(*charts) + note, said(momentum, n))

    def said(momentum, n):
        late = right(n, momentum)[BATCHES // 2 :]
        return (
            f"Momentum {momentum:g}, batches of {n}: {(1 - momentum) ** 20:.0%} of the start is left after 20 batches. "
            f"In the second half the running variance moves between {late[:, 1].min():.2f} and {late[:, 1].max():.2f} "
            f"(the truth is {TRUE_VAR}); the biased variance would aim at {TRUE_VAR * (n - 1) / n:.2f}."
        )

    return Explorer(
        draw,
        alt=said,
        height=360,
        momentum=choice("momentum", [0.01, 0.1, 0.5, 1.0], 0.1),
        n=choice("batch size", [2, 4, 16, 64], 4),
    )


# --- the geometry of the backward pass -------------------------------------------------------------------------------

PLANE = np.array([[1.0, -1, 0], [1, 1, -2]]) / np.sqrt([[2.0], [6.0]])  # a basis of what is orthogonal to (1, 1, 1)


def projection(backward, x, dy, eps=1e-5):
    """One feature of three examples: xhat, dx, and the inner products of dx with the ones and with xhat."""
    x, dy = np.asarray(x, float), np.asarray(dy, float)
    root = np.sqrt(x.var() + eps)
    xhat = (x - x.mean()) / root
    dx = np.asarray(backward(dy[:, None].copy(), x[:, None].copy(), np.ones(1), np.zeros(1), eps)[0], float)
    dx = np.broadcast_to(dx, (3, 1))[:, 0]
    return {"xhat": xhat, "dx": dx, "root": root, "ones": float(dx.sum()), "along": float(dx @ xhat)}


def circle(batchnorm_backward, reference):
    """Batch norm backwards as geometry: what dy pushes along the ones and along xhat is taken away."""
    mine = live(batchnorm_backward)

    def draw(x1, x2, x3, dy1, dy2, dy3):
        x, dy = (x1, x2, x3), (dy1, dy2, dy3)
        got, want = projection(mine, x, dy), projection(reference, x, dy)
        side, unit = 300, 38.0
        middle = side / 2

        def at(vector, start=(0.0, 0.0)):
            a, b = PLANE @ vector
            return middle + unit * (a + start[0]), middle - unit * (b + start[1])

        tip = PLANE @ got["xhat"]
        arrows = [
            _arrow((middle, middle), at(got["xhat"]), COLOURS["output"]),
            _arrow(at(got["xhat"]), at(np.array(dy) - np.mean(dy), tip), COLOURS["gradient"], dash=True),
            _arrow(at(got["xhat"]), at(got["dx"] * got["root"], tip), COLOURS["gradient"]),
        ]
        if picture.differs(got["dx"], want["dx"]).any():
            arrows.append(_arrow(at(got["xhat"]), at(want["dx"] * want["root"], tip), COLOURS["wrong"]))
        drawing = (
            f'<svg role="img" aria-label="the plane orthogonal to the ones" viewBox="0 0 {side} {side}" '
            f'width="{side}" height="{side}" font-size="11.5"><circle cx="{middle}" cy="{middle}" '
            f'r="{unit * np.sqrt(3):.1f}" fill="none" stroke="currentColor" opacity=".5"/>{"".join(arrows)}</svg>'
        )
        table = picture.row(
            picture.piece(
                picture.heat(np.array(x), "x", vmax=4, digits=1, role="input")
                + picture.heat(got["xhat"], "x̂", vmax=2, role="output")
                + picture.heat(np.array(dy), "dy", vmax=3, digits=1, role="gradient")
                + picture.compare(got["dx"], want["dx"], "dx", vmax=2, digits=3, role="gradient")
                + picture.note(f"dx · ones = {got['ones']:.1e}   dx · x̂ = {got['along']:.1e}".replace("-", "−"))
            )
        )
        names = (
            ("x̂", COLOURS["output"], False),
            ("dy, its mean removed", COLOURS["gradient"], True),
            ("dx · √(var + eps)", COLOURS["gradient"], False),
            *([("dx of the reference", COLOURS["wrong"], False)] if len(arrows) > 3 else []),
        )
        legend = "".join(
            f'<span style="border-left:14px {"dotted" if dash else "solid"} {colour};padding-left:6px;'
            f'margin-right:14px;white-space:nowrap">{name}</span>'
            for name, colour, dash in names
        )
        left = picture.piece(f'{drawing}<div class="lbl-note">{legend}</div>', "seen along (1, 1, 1)")
        return picture.figure(picture.row(left, table), said(*x, *dy))

    def said(x1, x2, x3, dy1, dy2, dy3):
        found = projection(reference, (x1, x2, x3), (dy1, dy2, dy3))
        dy = np.array([dy1, dy2, dy3])
        if found["root"] < 0.01:
            return (
                f"All three x are equal: x̂ = 0, there is no direction to protect, and dx is the centred dy divided by "
                f"√eps: {1 / found['root']:.0f} times as large."
            )
        length = dy @ dy
        left = ((found["dx"] * found["root"]) ** 2).sum() / length if length else 0.0
        return (
            f"x̂ lies on the circle of radius √3. Of dy's squared length {length:.2f}, {left:.0%} is left in dx: what "
            "pointed along the ones (out of the picture) or along x̂ (the radius) is gone."
        )

    start = {"x1": 2.0, "x2": -1.0, "x3": -0.5, "dy1": 1.5, "dy2": 1.0, "dy3": -2.0}
    names = {"x1": "x₁", "x2": "x₂", "x3": "x₃", "dy1": "dy₁", "dy2": "dy₂", "dy3": "dy₃"}
    sliders = {key: slider(names[key], -3.0, 3.0, value, 0.5) for key, value in start.items()}
    return Explorer(draw, alt=said, height=400, **sliders)


def _arrow(start, end, colour, dash=False):
    """A straight arrow; nothing where it would be shorter than its head."""
    (a, b), (c, d) = start, end
    length = np.hypot(c - a, d - b)
    if length < 1.5:
        return ""
    u, v = (c - a) / length, (d - b) / length
    corners = (c - 9 * u + 4 * v, d - 9 * v - 4 * u, c - 9 * u - 4 * v, d - 9 * v + 4 * u)
    head = "M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}z".format(c, d, *corners)
    dashes = ' stroke-dasharray="5 4"' if dash else ""
    return (
        f'<path d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" stroke="{colour}" stroke-width="2.4"{dashes}/>'
        f'<path d="{head}" fill="{colour}"/>'
    )


# --- what training shows ---------------------------------------------------------------------------------------------


def inside(steps, moments):
    """Inputs of some units on their way through training: {network: (snapshots, examples, units)}."""
    moments_at = {str(step): k for k, step in enumerate(steps)}
    edges = np.linspace(-4, 6, 31)
    centres = (edges[1:] + edges[:-1]) / 2

    def draw(snapshot):
        charts = []
        for name, values in moments.items():
            lines = {f"unit {k}": (centres, _density(values[snapshot, :, k], edges)) for k in range(values.shape[2])}
            charts.append(
                picture.curve(lines, f"{name}: inputs of three units", name, "input of the activation",
                              x_range=(-4, 6), y_range=(0, 1.2), width=300, height=230)
            )  # fmt: skip
        return picture.figure(picture.row(*charts), said(snapshot))

    def said(snapshot):
        told = []
        for name, values in moments.items():
            moved = np.abs(values[snapshot].mean(0) - values[0].mean(0)).mean()
            told.append(f"{name} {moved:.2f}")
        return f"Step {steps[snapshot]}: the means of these units have moved since the start by {', '.join(told)}."

    return Explorer(draw, alt=said, height=290, snapshot=choice("step", moments_at, len(steps) - 1))


def _density(values, edges):
    return np.histogram(values, edges)[0] / len(values) / (edges[1] - edges[0])
