"""Lesson 03: matched and mismatched losses, log-sum-exp at its limits, p − y, confident errors and calibration."""

import numpy as np

from course.widgets import picture
from course.widgets.chart import amount, both, cell, powers, several, spread, with_reference
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.predict import Predict

COLOURS = picture.COLOURS
SQUARED, CROSS = "#CC79A7", "#0072B2"  # the two losses keep their colours in every figure of the lesson


def sigmoid(z):
    """1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(z, float)))


def softmax(z):
    """Along the last axis, without overflow."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ended(chart, at, height, spans, words):
    """A chart with a cross where a curve ends, and the parts beyond shaded: all in shares of the plot's size."""
    parts = []
    for x, (low, high), word in zip(at, spans, words, strict=True):
        parts.append(
            f'<rect x="{low:.1%}" width="{high - low:.1%}" height="100%" fill="{COLOURS["wrong"]}" opacity=".12"/>'
            f'<text x="{x:.1%}" y="{height(x):.1%}" dy="5" text-anchor="middle" font-size="17" font-weight="700" '
            f'style="fill:{COLOURS["wrong"]}">✕</text>'
            f'<text x="{(low + high) / 2:.1%}" y="25%" text-anchor="middle" font-weight="600">{word}</text>'
        )
    return chart.replace('overflow="hidden">', f'overflow="hidden">{"".join(parts)}', 1)


# --- a loss is surprise ----------------------------------------------------------------------------------------------


def claims():
    """Three output layers as claims about what will come, and what each loses when something comes."""
    y = np.linspace(-3, 5, 81)
    density = np.exp(-((y - 0.5) ** 2) / 2) / np.sqrt(2 * np.pi)
    bell = picture.curve(
        {
            "claimed density": (y, density, {"colour": COLOURS["output"]}),
            "2 came: −ln 0.13 = 2.04": ([2, 2], [0, 0.13], {"colour": COLOURS["wrong"]}),
        },
        alt="a bell around 0.5; 2 came, where it is 0.13 high",
        y_range=(0, 0.5),
        marks=[(2, 0.13, "")],
        width=300,
        height=190,
    )
    return picture.row(
        picture.piece(bell, "a number: a bell around pred = 0.5"),
        picture.piece(columns(("no", "yes"), (0.7, 0.3), 1), "yes or no: sigmoid"),
        picture.piece(columns(("cat", "dog", "fox"), (0.71, 0.26, 0.03), 0), "one of several: softmax"),
    )


def columns(names, p, came):
    """Probabilities as columns; the one of the outcome that came in orange, with what it costs."""
    step, base, tall = 66, 160, 130
    parts = [f'<path d="M0 {base}h{step * len(p)}" stroke="currentColor" opacity=".6"/>']
    for k, (name, share) in enumerate(zip(names, p, strict=True)):
        x, h = k * step + 12, share * tall
        parts.append(
            f'<rect x="{x}" y="{base - h:.1f}" width="42" height="{h:.1f}" '
            f'fill="{COLOURS["wrong" if k == came else "output"]}"/>'
            f'<text x="{x + 21}" y="{base + 16}" text-anchor="middle">{name}</text>'
            f'<text x="{x + 21}" y="{base - h - 6:.1f}" text-anchor="middle">{share}</text>'
        )
    parts.append(
        f'<text x="4" y="14" font-weight="600">{names[came]} came: −ln {p[came]} = {-np.log(p[came]):.2f}</text>'
    )
    size = f'width="{max(step * len(p), 190)}" height="190" viewBox="0 0 {max(step * len(p), 190)} 190"'
    return f'<svg role="img" aria-label="{names[came]} came" {size} font-size="11.5">{"".join(parts)}</svg>'


# --- pictures of what a right answer draws, and of experiments -------------------------------------------------------


def rounded(log_softmax_forward):
    """Log-softmax of (0, -s), and the logarithm of its softmax, which ends where the probability is rounded to 0."""
    s = np.unique(np.r_[np.linspace(0, 1000, 41), 745])
    z = np.stack([np.zeros_like(s), -s], axis=1)
    p = softmax(z)[:, 1]
    held = p > 0
    lines = {
        "log-softmax": (s, log_softmax_forward(z)[:, 1], {"colour": COLOURS["output"]}),
        "log(softmax(x))": (s[held], np.log(p[held]), {"colour": COLOURS["wrong"], "dash": True}),
    }
    title, end = "log-probability of the second class", s[held][-1] / 1050
    chart = picture.curve(
        lines, title, title, x_label="s", x_range=(0, 1050), y_range=(-1050, 0), width=520, height=220
    )
    return ended(chart, [end], lambda x: x, [(end, 1)], ["log(0) = −inf"])


def padded(bce_with_logits_forward):
    """Binary cross-entropy of single logits, hard and soft targets, and a logarithm padded with 1e-12."""
    z = np.unique(np.r_[-40, np.linspace(-31, -24, 15), np.linspace(-6, 6, 25), 40])  # close where a line bends
    lines = {}
    for target in (1.0, 0.3, 0.0):
        losses = [float(bce_with_logits_forward(np.array([v]), np.array([target]))) for v in z]
        lines[f"target {target:g}"] = (z, losses, {"dash": target == 0.3})
    lines["target 1, log(p + 1e-12)"] = (z, -np.log(sigmoid(z) + 1e-12), {"colour": COLOURS["wrong"], "dash": True})
    return picture.curve(lines, "loss against the logit", "loss", x_label="logit z", width=560, height=250)


def learning_rates(rates, results):
    """One chart per start, one line per loss: accuracy (seeds, rates) against the learning rate."""
    colours, charts = {"cross-entropy": CROSS, "squared error": SQUARED}, []
    for start, losses in results.items():
        lines = {
            name: (*spread(np.log10(rates), runs), {"colour": colours.get(name, COLOURS["wrong"])})
            for name, runs in losses.items()
        }
        title = f"{start} initial weights: test accuracy"
        labels = dict(x_label="learning rate", x_range=(-1.2, 3.2), y_range=(0, 1))
        charts.append(powers(picture.curve(lines, title, title, **labels, width=390, height=280), "middle"))
    return picture.row(*charts)


def histories(runs, floor):
    """Training loss and test accuracy (seeds, epochs, 2) of each way to train, and the floor of the loss."""
    charts = []
    for column, (title, top) in enumerate((("training loss", 2.4), ("test accuracy", 1.0))):
        lines = {}
        for (name, values), colour in zip(runs.items(), (COLOURS["right"], COLOURS["wrong"]), strict=True):
            epochs = np.arange(1, np.shape(values)[1] + 1)
            lines[name] = (*several(epochs, np.asarray(values)[:, :, column]), {"colour": colour})
        if column == 0:
            lines[f"your floor, {floor:.4f}"] = (epochs[[0, -1]], [floor, floor], {"colour": "#777777", "dash": True})
        charts.append(picture.curve(lines, title, title, x_label="epoch", y_range=(0, top), width=390, height=270))
    return picture.row(*charts)


def epoch_charts(history, epochs, log=False):
    """The losses of a run so far, the least test loss singled out, and the accuracy: {name: a number per epoch}."""
    losses, accuracy = {name: history[name] for name in history if name.endswith("loss")}, history["test accuracy"]
    least, done = int(losses["test loss"].argmin()), len(accuracy)
    shown = np.unique(np.r_[: min(20, done), least, np.linspace(0, done - 1, 60).astype(int)])
    scale = np.log10 if log else np.asarray
    labels = dict(x_label="epoch", x_range=(0, epochs), width=340, height=230)
    said = f"least test loss {picture.number(losses['test loss'][least], 3)}, epoch {least + 1}"
    chart = picture.curve(
        {name: (shown + 1, scale(values[shown])) for name, values in losses.items()},
        said,
        said,
        marks=[(least + 1, float(scale(losses["test loss"][least])), "")],
        y_range=(-4.5, 0.5) if log else None,
        **labels,
    )
    right = {"test accuracy": (shown + 1, accuracy[shown], {"colour": COLOURS["output"]})}
    return [
        powers(chart, "end") if log else chart,
        picture.curve(right, "test accuracy", "test accuracy", y_range=(0.8, 1), **labels),
    ]


def guess_first_loss():
    """Predict: the loss of ten classes before anything is learned."""
    return Predict(
        "Ten classes, weights near 0, nothing learned. What is the cross-entropy (in nats, two decimals)?",
        answer=2.30,
        tolerance=0.006,
        reveal=lambda: (
            "Every class gets 1/10, and −ln(1/10) = ln 10 = 2.303. "
            "A first loss far from ln C means a bug, or weights too large."
        ),
    )


# --- the loss that fits the output, and one that does not ------------------------------------------------------------

LOGITS = np.linspace(-10, 10, 41)
PAIR = ("mse_forward", "mse_backward", "bce_with_logits_forward", "bce_with_logits_backward")
UPSTREAM = 0.5  # not 1, so that a backward pass that ignores dloss shows


def entry_losses(forward, outputs, target):
    """The loss of each output by itself: given twice, so that a sum is not mistaken for a mean."""
    pairs = np.repeat(np.asarray(outputs, float)[:, None], 2, axis=1)
    return np.array([float(forward(pair, np.full(2, float(target)))) for pair in pairs])


def entry_gradients(backward, outputs, target):
    """The gradient of each entry's own loss."""
    outputs = np.asarray(outputs, float)
    got = np.asarray(backward(UPSTREAM, outputs.copy(), np.full(outputs.shape, float(target))), float)
    return np.broadcast_to(got, outputs.shape) * outputs.size / UPSTREAM


def two_losses(mse_forward, mse_backward, bce_forward, bce_backward, target, z=LOGITS):
    """Loss and gradient at the logits: squared error through a sigmoid, and cross-entropy on the logits."""
    p = sigmoid(z)
    return {
        "squared error": (entry_losses(mse_forward, p, target), entry_gradients(mse_backward, p, target) * p * (1 - p)),
        "cross-entropy": (entry_losses(bce_forward, z, target), entry_gradients(bce_backward, z, target)),
    }


def steps_to_learn(backward, z, target, rate=1.0, behind_sigmoid=False, limit=20000):
    """Steps of gradient descent on one logit until the output is on the right side of 1/2."""
    for step in range(limit):
        if (z > 0) == (target > 0.5):
            return step
        p = float(sigmoid(z))
        given, slope = (p, p * (1 - p)) if behind_sigmoid else (z, 1.0)
        z = z - rate * slope * float(np.squeeze(backward(1.0, np.array([given]), np.array([float(target)]))))
    return limit


def mismatch(mse_forward, mse_backward, bce_forward, bce_backward, reference):
    """One example, one logit: what two losses say about it, and how hard each pushes."""
    mine = [live(f) for f in (mse_forward, mse_backward, bce_forward, bce_backward)]
    right = [reference(name) for name in PAIR]
    wanted = {target: two_losses(*right, target) for target in (0, 1)}
    colours = {"squared error": SQUARED, "cross-entropy": CROSS}

    def draw(z, target):
        got = two_losses(*mine, target)
        here, there = (two_losses(*functions, target, np.array([z])) for functions in (mine, right))
        charts = []
        for part, title, y_range in ((0, "loss", (-0.3, 8)), (1, "gradient at the logit", (-1.1, 1.1))):
            lines, marks = {}, []
            for name in got:
                lines |= with_reference(name, LOGITS, got[name][part], wanted[target][name][part], colours[name])
                marks.append((z, here[name][part][0], ""))
            charts.append(
                picture.curve(
                    lines,
                    title=title,
                    alt=said(z, target),
                    x_label="logit z",
                    x_range=(-10, 10),
                    y_range=y_range,
                    marks=marks,
                    width=390,
                    height=250,
                )
            )
        said_of = [
            f"{name}: loss {both(here[name][0][0], there[name][0][0])}, "
            f"gradient {both(here[name][1][0], there[name][1][0], 4)}"
            for name in got
        ]
        line = f"z = {picture.number(z)}, so p = {amount(sigmoid(z), 4)}; the truth is {target}. {'. '.join(said_of)}."
        return picture.figure(picture.row(*charts) + f'<div class="lbl-note">{line}</div>', said(z, target))

    def said(z, target):
        p = float(sigmoid(z))
        squared, cross = abs(2 * (p - target) * p * (1 - p)), abs(p - target)
        if cross < 0.5:
            return "Here the output is on the right side, and both losses push little, the more sure the less."
        times = f"{cross / squared:.{0 if cross > 10 * squared else 1}f}"
        return (
            f"The output is wrong ({amount(p)} where {target} is true). Cross-entropy pushes {times} times as hard as "
            "the squared error, whose gradient fades the more wrong the output is."
        )

    return Explorer(
        draw, alt=said, height=340, z=slider("logit z", -10.0, 10.0, -6.0, 0.25), target=choice("truth", [1, 0])
    )


def guess_ratio(reference):
    """Predict: how much harder one loss pushes than the other at a logit of -8."""
    return Predict(
        "At z = −8, how many times as large is the gradient of cross-entropy as that of the squared error?",
        answer="about 1500 times",
        options=["they are about equal", "about 10 times", "about 100 times", "about 1500 times"],
        reveal=lambda: mismatch(*map(reference, PAIR), reference).snapshot(z=-8.0, target=1),
    )


# --- the same two losses as surfaces over a weight and a bias --------------------------------------------------------

POINTS = np.array([-2.0, -1.5, -1.0, -0.6, -0.2, 0.1, 0.4, 0.8, 1.3, 1.9])
TRUTH = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1.0])  # two points lie on the wrong side, as in life
REACH = 8.0  # of both axes


def surface_of(forward, behind_sigmoid, n=17):
    """The loss (n, n) of p = sigmoid(w x + b) for all ten points: b from REACH down to -REACH, w from left to right."""
    axis = np.linspace(-REACH, REACH, n)
    z = axis[:, None] * POINTS + axis[::-1, None, None]
    outputs = sigmoid(z) if behind_sigmoid else z
    return np.array([[float(forward(cell.copy(), TRUTH.copy())) for cell in line] for line in outputs])


def descent(backward, behind_sigmoid, w, b, steps, rate=1.0):
    """The path (steps + 1, 2) of gradient descent from (w, b)."""
    path = [(w, b)]
    for _ in range(steps):
        z = w * POINTS + b
        p = sigmoid(z)
        given, slope = (p, p * (1 - p)) if behind_sigmoid else (z, 1.0)
        dz = np.asarray(backward(1.0, given, TRUTH.copy()), float) * slope
        w, b = w - rate * float((dz * POINTS).sum()), b - rate * float(dz.sum())
        path.append((w, b))
    return np.array(path)


def contours(surface, path, title, colour, side=300):
    """A surface in bands of colour, with a path over it."""
    n = len(surface)
    at = np.linspace(0, n - 1, 120)
    wide = np.array([np.interp(at, np.arange(n), line) for line in surface])
    smooth = np.array([np.interp(at, np.arange(n), line) for line in wide.T]).T
    finite = smooth[np.isfinite(smooth)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    bands = np.floor(12 * (smooth - low) / ((high - low) or 1.0)) / 12
    uri = picture.data_uri(picture.png8(bands, "magnitude", 0, 1.2))
    spots = (np.clip(path, -REACH, REACH) * [1, -1] + REACH) / (2 * REACH) * side
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    ends = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{fill}" stroke="#fff" stroke-width="2"/>'
        for (x, y), fill in ((spots[0], "#111"), (spots[-1], colour))
    )
    ticks = "".join(
        f'<text x="{at}" y="{side + 15}" text-anchor="middle">{name}</text>'
        f'<text x="-6" y="{side - at + 4}" text-anchor="end">{name}</text>'
        for at, name in zip(range(0, side + 1, side // 4), ("−8", "−4", "0", "4", "8"), strict=True)
    )
    drawing = (
        f'<svg role="img" aria-label="{title}" width="{side + 46}" height="{side + 42}" font-size="11.5" '
        f'viewBox="-38 -8 {side + 46} {side + 42}"><image href="{uri}" width="{side}" height="{side}"/>'
        f'<polyline points="{line}" fill="none" stroke="#fff" stroke-width="4.5"/>'
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>{ends}{ticks}'
        f'<text x="{side / 2}" y="{side + 30}" text-anchor="middle">weight</text>'
        f'<text transform="translate(-26 {side / 2}) rotate(-90)" text-anchor="middle">bias</text></svg>'
    )
    return picture.piece(drawing, title)


def surface(mse_forward, mse_backward, bce_forward, bce_backward, reference):
    """One weight, one bias, ten points: the landscape that each loss makes of them, and the way down."""
    kinds = {
        "squared error": (live(mse_forward), live(mse_backward), True, "mse", SQUARED),
        "cross-entropy": (live(bce_forward), live(bce_backward), False, "bce_with_logits", CROSS),
    }
    wanted = {name: surface_of(reference(f"{kind[3]}_forward"), kind[2]) for name, kind in kinds.items()}
    known = {}

    def surveyed(name, forward, behind):
        """The landscape, measured anew only where a look at nine places shows another function."""
        probe = surface_of(forward, behind, 3).tobytes()
        if name not in known or known[name][0] != probe:
            known[name] = probe, surface_of(forward, behind)
        return known[name][1]

    def draw(w, b, steps):
        pieces, lines, x = [], [], np.linspace(-2.2, 2.2, 34)
        fits = {"the ten points": (POINTS, TRUTH, {"points": True, "line": False, "colour": "#777777"})}
        for name, (forward, backward, behind, stem, colour) in kinds.items():
            path, landscape = descent(backward, behind, w, b, steps), surveyed(name, forward, behind)
            pieces.append(contours(landscape, path, f"sigmoid and {name}", colour))
            z = path[-1][0] * POINTS + path[-1][1]
            fits[f"p after {steps} steps, {name}"] = x, sigmoid(path[-1][0] * x + path[-1][1]), {"colour": colour}
            end = sigmoid(z) if behind else z
            loss, want = (float(f(end.copy(), TRUTH.copy())) for f in (forward, reference(f"{stem}_forward")))
            right = int(((z > 0) == (TRUTH > 0.5)).sum())
            lines.append(f"{name}: loss {both(loss, want)}, {right} of {len(TRUTH)} right")
            if picture.differs(landscape, wanted[name]).any():
                lines.append(f'<b style="color:{COLOURS["wrong"]}">this landscape is not the reference\'s</b>')
        end = f'<div class="lbl-note">After {steps} steps. {" · ".join(lines)}.</div>'
        labels = dict(x_label="x", y_label="p", y_range=(-0.08, 1.08), width=690, height=150)
        below = picture.curve(fits, "the ten points and what the two networks say of them", **labels)
        return picture.figure(picture.row(*pieces) + below + end, said(w, b, steps))

    def said(w, b, steps):
        slopes = (lambda d, p, t: 2 * (p - t) / t.size, True), (lambda d, z, t: (sigmoid(z) - t) / t.size, False)
        paths = [descent(backward, behind, w, b, steps) for backward, behind in slopes]
        moved = [float(np.hypot(*np.diff(path, axis=0).T).sum()) for path in paths]
        return (
            f"From weight {amount(w)}, bias {amount(b)}, {steps} steps travel {amount(moved[0], 2)} on the left and "
            f"{amount(moved[1], 2)} on the right. Dark is low. "
            "Left: plateaus, where little moves. Right: a bowl, steep wherever it is wrong."
        )

    return Explorer(
        draw,
        alt=said,
        height=570,
        w=slider("start: weight", -8.0, 8.0, -6.0, 1.0),
        b=slider("start: bias", -8.0, 8.0, 5.0, 1.0),
        steps=slider("steps", 0, 60, 20, 5),
    )


# --- log-sum-exp -----------------------------------------------------------------------------------------------------

HEIGHTS = np.arange(-1000.0, 1001.0, 20.0)
OFFSETS = np.array([0.0, 1.0, 2.0])


def naive(x):
    """log(sum(exp(x))) as the formula says it."""
    with np.errstate(all="ignore"):
        return np.log(np.exp(x).sum(-1))


def heights(logsumexp, dtype, centres=HEIGHTS):
    """logsumexp of (s, s + 1, s + 2), less s: 2.41 for every s, if all goes well."""
    x = (np.asarray(centres)[:, None] + OFFSETS).astype(dtype)
    return np.asarray(logsumexp(x), float) - centres


def shift(logsumexp, reference):
    """Three numbers at any height: where the plain formula leaves the range of floats, and what the shift saves."""
    mine, want = live(logsumexp), float(reference(OFFSETS[None])[0])

    def table(x, dtype):
        x, m = x.astype(dtype), x.astype(dtype).max()
        with np.errstate(all="ignore"):
            plain, shifted = np.exp(x), np.exp(x - m)
            lines = [
                ("plain", "exp(x)", plain, plain.sum(), naive(x)),
                ("shifted by m = " + amount(m), "exp(x − m)", shifted, shifted.sum(), np.log(shifted.sum()) + m),
            ]
        cells = "".join(
            f"<tr>{cell(name)}{cell(what)}{cell(' &nbsp; '.join(map(amount, terms)))}{cell(amount(total))}"
            f"{cell(f'<b{_orange(result)}>{amount(result)}</b>')}</tr>"
            for name, what, terms, total, result in lines
        )
        heads = "".join(cell(f"<b>{head}</b>") for head in ("", "terms", "the three terms", "their sum", "logsumexp"))
        return (
            f'<table style="font-size:13px;border-collapse:collapse;margin:2px 0 6px"><tr>{heads}</tr>{cells}</table>'
        )

    def draw(s, precision):
        x = (s + OFFSETS).astype(precision)
        got = np.asarray(heights(mine, precision), float).reshape(-1)
        here = float(np.asarray(heights(mine, precision, np.array([s]))).reshape(-1)[0]) + s
        chart = picture.curve(
            {
                "the truth": ([-1000, 1000], [want, want], {"colour": "#8a8a8a"}),
                "logsumexp": (HEIGHTS, got, {"colour": COLOURS["output"]}),
                "plain formula": (HEIGHTS, heights(naive, precision), {"colour": COLOURS["wrong"], "dash": True}),
            },
            title="logsumexp(s, s + 1, s + 2) − s",
            alt=said(s, precision),
            x_label="s",
            x_range=(-1130, 1130),
            y_range=(-1, 5),
            width=640,
            height=210,
            marks=[(s, here - s, "")],
        )
        alive = HEIGHTS[np.isfinite(heights(naive, precision))][[0, -1]]
        low, high = (alive + 1130) / 2260
        chart = ended(chart, (low, high), lambda x: (5 - want) / 6, ((0, low), (high, 1)), ("−inf", "inf"))
        line = f"x = ({', '.join(amount(v) for v in x)}): logsumexp gives {both(here, want + s)}."
        return picture.figure(chart + table(x, precision) + f'<div class="lbl-note">{line}</div>', said(s, precision))

    def said(s, precision):
        result = float(naive((s + OFFSETS).astype(precision)))
        if np.isfinite(result):
            return f"Near {amount(s)} {precision} still holds the exponentials, so that the plain formula survives."
        what = "too large for" if result > 0 else "rounded to 0 in"
        return f"Near {amount(s)} the exponentials are {what} {precision}: the plain formula gives {amount(result)}."

    return Explorer(
        draw,
        alt=said,
        height=400,
        s=slider("height s", -1000, 1000, 0, 10),
        precision=choice("precision", ["float64", "float32"]),
    )


def _orange(value):
    return "" if np.isfinite(value) else f' style="color:{COLOURS["wrong"]}"'


# --- softmax and cross-entropy: p − y --------------------------------------------------------------------------------

SECOND, SECOND_TARGET = (1.0, -1.0, 0.5), 2  # the second example of the batch stays where it is
NAMES = ("cat", "dog", "fox")


def descend(backward, logits, targets, steps):
    """The logits after steps of gradient descent on themselves; the rate is n, so that each row moves by y - p."""
    logits = np.array(logits, float)
    for _ in range(steps):
        logits = logits - len(logits) * np.asarray(backward(1.0, logits.copy(), np.array(targets)), float)
    return logits


def bars(p, target, z):
    """Each class's probability as a bar, its target as a frame, and between the two the arrow that a step follows."""
    width, height, top, base = 112, 176, 22, 150
    parts = [f'<path d="M0 {base}h{3 * width}" stroke="currentColor" opacity=".6"/>']
    for k, (share, score) in enumerate(zip(p, z, strict=True)):
        x, y = k * width + 22, base - share * (base - top)
        goal = top if k == target else base
        head = 6 if goal > y else -6
        parts.append(
            f'<rect x="{x}" y="{y:.1f}" width="46" height="{base - y:.1f}" fill="{COLOURS["output"]}"/>'
            f'<text x="{x + 23}" y="{y - 5:.1f}" text-anchor="middle" font-weight="600">{share:.3f}</text>'
            f'<text x="{x + 23}" y="{base + 16}" text-anchor="middle">{NAMES[k]}, z = {amount(score, 2)}</text>'
        )
        if k == target:
            parts.append(
                f'<rect x="{x}" y="{top}" width="46" height="{base - top}" fill="none" stroke="currentColor" '
                'stroke-dasharray="4 3"/>'
            )
        if abs(goal - y) > 7:
            parts.append(
                f'<path d="M{x + 60} {y:.1f}V{goal - head:.1f}m-5 {-head:.1f}l5 {head:.1f}l5 {-head:.1f}" fill="none" '
                f'stroke="{COLOURS["gradient"]}" stroke-width="3"/>'
            )
    alt = ", ".join(f"{name} {share:.2f}" for name, share in zip(NAMES, p, strict=True))
    size = f'width="{3 * width}" height="{height}" viewBox="0 0 {3 * width} {height}" font-size="11.5"'
    label = f"probabilities: {alt}; the class is {NAMES[target]}"
    return f'<svg role="img" aria-label="{label}" {size}>{"".join(parts)}</svg>'


def p_minus_y(cross_entropy_forward, cross_entropy_backward, reference, start=(2.0, 1.0, -1.0), target=1, steps=0):
    """Two examples, three classes: logits in, probabilities, loss, and the gradient that comes back."""
    forward, backward = live(cross_entropy_forward), live(cross_entropy_backward)
    want_forward, want_backward = reference("cross_entropy_forward"), reference("cross_entropy_backward")

    def state(cat, dog, fox, target, steps):
        targets = np.array([target, SECOND_TARGET])
        return descend(backward, [(cat, dog, fox), SECOND], targets, steps), targets

    def draw(**values):
        z, targets = state(**values)
        p, y = softmax(z), np.eye(3)[targets]
        loss, want = forward(z.copy(), targets.copy()), want_forward(z, targets)
        frame = picture.row(
            picture.heat(z, "logits", vmax=6, role="input", rows=("r = 0", "r = 1"), columns=NAMES),
            picture.operator("→"),
            picture.heat(p, "p = softmax", vmax=1, columns=NAMES),
            picture.operator("−"),
            picture.heat(y, "y", vmax=1, columns=NAMES),
            picture.operator("/ n →"),
            picture.compare(
                backward(1.0, z.copy(), targets.copy()),
                want_backward(1.0, z, targets),
                "dlogits",
                vmax=0.5,
                role="gradient",
                digits=3,
                tips=lambda n, c: (
                    f"({p[n, c]:.4f} − {y[n, c]:.0f}) / 2 = "
                    f"{picture.number((p[n, c] - y[n, c]) / 2, 4)}: {NAMES[c]} of example {n}"
                ),
                columns=NAMES,
            ),
        )
        first = picture.piece(bars(p[0], targets[0], z[0]), "example 0: from p to its target, the way a step goes")
        second = picture.piece(
            f"<div>loss of the batch: {both(loss, want, 4)}<br>example 0: −ln {p[0, targets[0]]:.4f} = "
            f"{amount(-np.log(max(p[0, targets[0]], 1e-300)))}<br>example 1: −ln {p[1, 2]:.4f} = "
            f"{amount(-np.log(max(p[1, 2], 1e-300)))}</div>",
            "loss",
            role="output",
        )
        return picture.figure(frame + '<div style="height:12px"></div>' + picture.row(first, second), said(**values))

    def said(**values):
        z, targets = state(**values)
        p, t = softmax(z)[0], int(targets[0])
        pulled = ", ".join(
            f"{name} is pushed {'up' if k == t else 'down'} by {amount(abs(p[k] - (k == t)))}"
            for k, name in enumerate(NAMES)
        )
        return f"Example 0 is a {NAMES[t]}: {pulled}. The pushes add up to 0."

    logits = {name: slider(f"z {name}", -6.0, 6.0, value, 0.5) for name, value in zip(NAMES, start, strict=True)}
    return Explorer(
        draw,
        alt=said,
        height=430,
        **logits,
        steps=slider("gradient steps", 0, 30, steps),
        target=choice("example 0 is a", {name: k for k, name in enumerate(NAMES)}, target),
    )


# --- look inside: errors made with confidence, and calibration -------------------------------------------------------


def worst_first(log_p, labels):
    """The losses of all examples, and the misclassified ones from the largest loss down."""
    losses = -log_p[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(log_p.argmax(1) != labels)
    return losses, wrong[np.argsort(-losses[wrong])]


def confident_errors(images, labels, logits, log_softmax_forward, reference):
    """The test digits that cost most: picture, probabilities, and the share of the loss that each one makes up."""
    mine, logits = live(log_softmax_forward), np.asarray(logits, float)
    want = reference(logits)
    losses, order = worst_first(want, labels)

    def draw(rank):
        k = order[rank - 1]
        log_p = np.asarray(mine(logits.copy()), float)
        frame = picture.row(
            picture.img(
                images[k], f"a handwritten {labels[k]}", palette="ink", width=150, title=f"test digit {k}", role="input"
            ),
            picture.piece(
                picture.compare(
                    np.exp(log_p[k : k + 1]),
                    np.exp(want[k : k + 1]),
                    "p",
                    vmax=1,
                    columns=range(10),
                    mark=[(0, labels[k])],
                    digits=3,
                    role="output",
                )
                + picture.compare(
                    log_p[k : k + 1],
                    want[k : k + 1],
                    "ln p",
                    vmax=8,
                    columns=range(10),
                    mark=[(0, labels[k])],
                    digits=1,
                    role="output",
                )
            ),
        )
        return picture.figure(frame, said(rank))

    def said(rank):
        k = order[rank - 1]
        p, share = np.exp(want[k]), losses[order[:rank]].sum() / losses.sum()
        return (
            f"Number {rank} of {len(order)} errors among {len(labels)}: read as {p.argmax()} with {p.max():.0%}, "
            f"written as {labels[k]} ({p[labels[k]]:.2%}). Its loss {losses[k]:.2f} is {losses[k] / losses.sum():.1%} "
            + "of "
            + ("the test loss." if rank == 1 else f"the test loss; the {rank} worst make up {share:.0%}.")
        )

    return Explorer(draw, alt=said, height=250, rank=slider("rank", 1, len(order)))


def reliability(logits, labels, bins=10):
    """Per bin of confidence: mean confidence, share of right answers, how many; and the expected calibration error."""
    p = softmax(np.asarray(logits, float))
    sure, right = p.max(1), p.argmax(1) == labels
    which = np.minimum((sure * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(which, sure, bins) / count
        accuracy = np.bincount(which, right, bins) / count
    error = np.nansum(np.abs(accuracy - confidence) * count) / len(labels)
    return confidence, accuracy, count, float(error)


def calibration(logits, labels, cross_entropy_forward, reference):
    """Divide the logits by a temperature: the answers stay, the confidence moves, and so does the loss."""
    forward, logits = live(cross_entropy_forward), np.asarray(logits, float)
    every = np.arange(0.5, 6.1, 0.25)
    wanted = np.array([float(reference(logits / t, labels)) for t in every])

    def draw(temperature):
        confidence, accuracy, count, error = reliability(logits / temperature, labels)
        some = count >= 5  # fewer say nothing
        diagram = picture.curve(
            {
                "right as often as it claims": ([0, 1], [0, 1], {"colour": "#8a8a8a", "dash": True}),
                "this network": (confidence[some], accuracy[some], {"colour": COLOURS["output"], "points": True}),
            },
            title="reliability",
            alt=said(temperature),
            x_label="confidence",
            y_label="share right",
            x_range=(0, 1),
            y_range=(0, 1.02),
            width=330,
            height=290,
        )
        loss, want = float(forward(logits / temperature, labels.copy())), float(reference(logits / temperature, labels))
        losses = np.array([float(forward(logits / t, labels.copy())) for t in every])
        valley = picture.curve(
            with_reference("test loss", every, losses, wanted, CROSS),
            title="cross-entropy on the test set",
            alt=said(temperature),
            x_label="temperature T",
            x_range=(0, 6),
            marks=[(temperature, loss, "")],
            width=330,
            height=290,
        )
        few = "bins with fewer than 5 digits are left out"
        numbers = f'<div class="lbl-note">loss {both(loss, want)} · calibration error {error:.3f} · {few}</div>'
        return picture.figure(picture.row(diagram, valley) + numbers, said(temperature))

    def said(temperature):
        scaled = logits / temperature
        sure, right = softmax(scaled).max(1).mean(), (scaled.argmax(1) == labels).mean()
        how = "about as sure as it is right"
        if abs(sure - right) > 0.01:
            how = "too sure of itself" if sure > right else "not sure enough"
        return (
            f"Temperature {amount(temperature, 2)}: mean confidence {sure:.1%}, right in {right:.1%} of cases: {how}."
        )

    return Explorer(draw, alt=said, height=360, temperature=slider("temperature T", 0.5, 6.0, 1.0, 0.25))
