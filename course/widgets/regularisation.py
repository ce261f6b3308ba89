"""Lesson 07: thinned networks, weight decay on a curve and in the plane, smoothed labels, shifts, early stopping."""

from functools import lru_cache

import numpy as np

from course.data import two_moons
from course.widgets import picture
from course.widgets.chart import both, powers, several
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.losses import reliability, softmax
from course.widgets.predict import Predict

COLOURS = picture.COLOURS
TRAIN, TEST = COLOURS["input"], COLOURS["wrong"]  # seen and unseen data keep their colours in every figure


# --- thinned networks ------------------------------------------------------------------------------------------------

WIDTHS = (3, 6, 6, 1)
DRAWS = 400


@lru_cache
def toy():
    """Input and weights of the small network that the figures thin: the same ones always."""
    rng = np.random.default_rng(6)
    shapes = zip(WIDTHS[1:], WIDTHS[:-1], strict=True)
    return np.array([1.0, 0.5, 0.8]), [rng.normal(0.35, 0.5, shape) for shape in shapes]


def answers(x, weights, masks, drop):
    """The values of every layer (draws, width) of the toy network; `drop(h, mask)` is applied to hidden layers."""
    layers = [np.tile(x, (len(masks[0]), 1))]
    for w, mask in zip(weights, [*masks, None], strict=True):
        z = layers[-1] @ w.T
        layers.append(z if mask is None else np.asarray(drop(np.maximum(z, 0), mask), float))
    return layers


def drawn(dropout_mask, p, seed=0):
    """DRAWS masks for each hidden layer."""
    rng = np.random.default_rng(seed)
    return [np.asarray(dropout_mask((DRAWS, width), p, rng), float) for width in WIDTHS[1:-1]]


def network(masks, values=None, width=330, height=210):
    """The toy network as SVG: dropped units crossed out, their edges gone; `values` are written into the units."""
    kept = [np.ones(WIDTHS[0]), *masks, np.ones(1)]
    xs = np.linspace(26, width - 26, len(WIDTHS))
    ys = [height / 2 + (np.arange(n) - (n - 1) / 2) * (height - 34) / (max(WIDTHS) - 1) for n in WIDTHS]
    units = []
    edges = [
        f"M{xs[k]:.0f} {ys[k][j]:.0f}L{xs[k + 1]:.0f} {ys[k + 1][i]:.0f}"
        for k, shape in enumerate(zip(WIDTHS[1:], WIDTHS[:-1], strict=True))
        for i, j in np.ndindex(shape)
        if kept[k][j] and kept[k + 1][i]
    ]
    lines = f'<path d="{"".join(edges)}" stroke="currentColor" stroke-width="1.2" opacity=".55"/>'
    for k, (x, column) in enumerate(zip(xs, ys, strict=True)):
        colour = COLOURS["input"] if k == 0 else COLOURS["output"]
        for j, y in enumerate(column):
            alive = bool(kept[k][j])
            fill = f'fill="{colour}"' if alive else 'fill="none" stroke="currentColor" stroke-dasharray="3 2"'
            text = f'<path d="M{x - 7:.0f} {y - 7:.0f}l14 14m0 -14l-14 14" stroke="{COLOURS["wrong"]}"/>' * (not alive)
            if alive and values is not None:
                said = picture.number(values[k][j], 1)
                text = f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" style="fill:#fff">{said}</text>'
            units.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="14" {fill}/>{text}')
    dropped = sum(int((np.asarray(mask) == 0).sum()) for mask in masks)
    return (
        f'<svg role="img" aria-label="a network of {sum(WIDTHS[1:-1])} hidden units, {dropped} of them dropped" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-size="11">'
        f"{lines}{''.join(units)}</svg>"
    )


def family(dropout_mask, p=0.5):
    """The whole network and three of those that dropout trains."""
    masks = drawn(dropout_mask, p, seed=4)
    pieces = [picture.piece(network([np.ones(n) for n in WIDTHS[1:-1]], width=200, height=190), "inference: all")]
    pieces += [
        picture.piece(network([mask[k] for mask in masks], width=200, height=190), f"training: draw {k + 1}")
        for k in range(3)
    ]
    return picture.row(*pieces)


def thinned(dropout_mask, dropout_forward, reference):
    """One draw of the toy network, and the answers of all draws beside the answer at inference."""
    mask_of, forward = live(dropout_mask), live(dropout_forward)
    want_mask, want_forward = reference("dropout_mask"), reference("dropout_forward")
    x, weights = toy()
    whole = [np.ones((1, width)) for width in WIDTHS[1:-1]]

    def run(masks, p, scaling, function):
        drop = (lambda h, mask: function(h, mask, p)) if scaling == "inverted" else (lambda h, mask: h * mask)
        return answers(x, weights, masks, drop)

    @lru_cache(maxsize=32)
    def wanted(p, scaling):
        return run(drawn(want_mask, p), p, scaling, want_forward)

    def at_inference(p, scaling):
        keep = 1 - p if scaling == "at inference" else 1.0
        return answers(x, weights, whole, lambda h, mask: h * keep)

    def draw(p, k, mode, scaling):
        masks = drawn(mask_of, p)
        layers = run(masks, p, scaling, forward)
        resting = at_inference(p, scaling)
        if mode == "training":
            net = network([mask[k - 1] for mask in masks], [layer[k - 1] for layer in layers])
        else:
            net = network([mask[0] for mask in whole], [layer[0] for layer in resting])
        out, rest = layers[-1][:, 0], resting[-1][0, 0]
        chart = histogram(out, out[k - 1], rest, said(p, k, mode, scaling))
        here = both(out[k - 1], wanted(p, scaling)[-1][k - 1, 0])
        mean = both(out.mean(), wanted(p, scaling)[-1][:, 0].mean())
        line = (
            f"Draw {k} answers {here}. The mean of {DRAWS} draws is {mean}; "
            f"at inference the network answers <b>{picture.number(rest)}</b>."
        )
        pieces = picture.row(picture.piece(net, mode), picture.piece(chart, f"the answers of {DRAWS} draws"))
        return picture.figure(f'{pieces}<div class="lbl-note">{line}</div>', said(p, k, mode, scaling))

    def said(p, k, mode, scaling):
        mean, rest = wanted(p, scaling)[-1].mean(), at_inference(p, scaling)[-1][0, 0]
        ratio = rest / mean if mean else np.inf
        means = f"p = {picture.number(p)}, scaling: {scaling}. "
        if p == 0:
            return means + "Nothing is dropped: all draws are the network itself."
        if scaling == "none":
            return means + f"At inference the answer is {ratio:.1f} times the mean of training: nobody made up for it."
        where = "in training, where survivors grow" if scaling == "inverted" else "at inference, where all shrink"
        return means + f"The lack is made up for {where}: inference over mean of training is {ratio:.2f}."

    return Explorer(
        draw,
        alt=said,
        height=330,
        p=slider("dropped p", 0.0, 0.9, 0.5, 0.1),
        k=slider("draw", 1, 40, 1),
        mode=choice("show", ["training", "inference"]),
        scaling=choice("scaling", ["inverted", "at inference", "none"]),
    )


def histogram(values, here, rest, alt, width=330, height=210, bins=24):
    """Answers as a histogram; this draw's (line), their mean (dashes) and the answer at inference (triangle)."""
    low, high = -6.0, 18.0
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    top = max(int(counts.max()), 1)
    x = np.repeat(edges, 2)
    y = np.r_[0, np.repeat(counts, 2), 0] / top
    mean = float(np.mean(values))
    lines = {
        "draws": (x, y, {"colour": COLOURS["output"]}),
        "this one": ([here, here], [0, 0.5], {"colour": COLOURS["input"]}),
        "mean": ([mean, mean], [0, 1.1], {"colour": "#777777", "dash": True}),
        "inference": ([rest, rest], [0, 1.1], {"colour": COLOURS["wrong"]}),
    }
    return picture.curve(
        lines, alt, x_label="the network's answer", x_range=(low, high), y_range=(0, 1.15), width=width, height=height
    )


# --- weight decay on a curve -----------------------------------------------------------------------------------------

GRID = np.linspace(-1, 1, 101)
DECAYS = np.arange(-7.0, 1.25, 0.25)  # powers of ten; the least stands for none


def truth(x):
    """What the points of the curve figure scatter about."""
    return np.sin(np.pi * x) + 0.5 * np.cos(2 * np.pi * x)


@lru_cache
def scattered(n):
    """n points to learn from."""
    rng = np.random.default_rng(5)
    x = np.sort(rng.uniform(-1, 1, n))
    return x, truth(x) + rng.normal(0, 0.3, n)


def features(x, degree):
    """Legendre polynomials of degree 1 to `degree`: columns of like size (the constant is the bias)."""
    return np.polynomial.legendre.legvander(x, degree)[:, 1:]


@lru_cache(maxsize=4096)
def ridge(n, degree, weight_decay):
    """Weights and bias with the least mean squared error plus half of weight_decay times the squared weights."""
    x, t = scattered(n)
    phi = features(x, degree)
    centred, mean = phi - phi.mean(0), phi.mean(0)
    rows = np.concatenate([centred * np.sqrt(2 / n), np.sqrt(weight_decay) * np.eye(degree)])
    right = np.concatenate([(t - t.mean()) * np.sqrt(2 / n), np.zeros(degree)])
    w = np.linalg.lstsq(rows, right, rcond=None)[0]
    return w, t.mean() - mean @ w


def _error(value):
    """A mean squared error; what rounding leaves of 0 is 0."""
    return picture.number(value if value > 1e-6 else 0.0)


def decay_of(power):
    """The weight decay that the slider means."""
    return 0.0 if power <= DECAYS[0] else float(10.0**power)


@lru_cache
def errors(n, degree):
    """Mean squared error on the points and against the truth (plus its noise), for every weight decay."""
    found = []
    for power in DECAYS:
        w, b = ridge(n, degree, decay_of(power))
        x, t = scattered(n)
        seen = np.mean((features(x, degree) @ w + b - t) ** 2)
        found.append((seen, np.mean((features(GRID, degree) @ w + b - truth(GRID)) ** 2) + 0.09))
    return np.array(found)


def fits(l2_penalty_forward, l2_penalty_backward, reference):
    """A polynomial through noisy points: degree and weight decay move, fit, weights and errors answer."""
    forward, backward = live(l2_penalty_forward), live(l2_penalty_backward)
    want_forward, want_backward = reference("l2_penalty_forward"), reference("l2_penalty_backward")

    def draw(degree, power, n):
        decay = decay_of(power)
        w, b = ridge(n, degree, decay)
        x, t = scattered(n)
        fit = {
            "truth": (GRID, truth(GRID), {"colour": "#777777", "dash": True}),
            "fit": (GRID, features(GRID, degree) @ w + b, {"colour": COLOURS["output"]}),
            "points": (x, t, {"colour": TRAIN, "points": True, "line": False}),
        }
        curve = picture.curve(fit, said(degree, power, n), "fit", x_label="x", y_range=(-3, 3), width=310, height=240)
        bars = np.stack([np.zeros(degree), w, np.full(degree, np.nan)], axis=1).ravel()
        stems = {"": (np.repeat(np.arange(1, degree + 1), 3), bars, {"colour": COLOURS["parameter"]})}
        labels = dict(x_label="degree of the term", x_range=(0, 16), y_range=(-3, 3), width=190, height=240)
        weights = picture.curve(stems, "the weights", "weights", **labels)
        error = errors(n, degree)
        lines = {
            "points": (DECAYS, error[:, 0].clip(0, 2), {"colour": TRAIN}),
            "new points": (DECAYS, error[:, 1].clip(0, 2), {"colour": TEST}),
        }
        labels = dict(x_label="weight decay (left end: none)", y_range=(0, 1.2), width=250, height=240)
        at = int(np.argmin(np.abs(DECAYS - power)))
        mark = [(power, min(error[at, 1], 1.2), "")]
        chart = powers(picture.curve(lines, "errors", "mean squared error", marks=mark, **labels), "middle")
        pulls = backward(1.0, [w.copy()], decay)[0], want_backward(1.0, [w], decay)[0]
        line = (
            f"penalty {both(forward([w.copy()], decay), want_forward([w], decay))}, "
            f"norm of its gradient {both(np.linalg.norm(pulls[0]), np.linalg.norm(pulls[1]))}, "
            f"mean squared error: points {_error(error[at, 0])}, new points {picture.number(error[at, 1])}"
        )
        frame = picture.row(curve, weights, chart) + f'<div class="lbl-note">{line}.</div>'
        return picture.figure(frame, said(degree, power, n))

    def said(degree, power, n):
        w, _ = ridge(n, degree, decay_of(power))
        seen, new = errors(n, degree)[int(np.argmin(np.abs(DECAYS - power)))]
        best = DECAYS[errors(n, degree)[:, 1].argmin()]
        name = "no weight decay" if decay_of(power) == 0 else f"weight decay {decay_of(power):.2g}"
        least = "none" if decay_of(best) == 0 else f"{decay_of(best):.2g}"
        return (
            f"Degree {degree}, {n} points, {name}: error {_error(seen)} on the points, "
            f"{picture.number(new)} on new ones; largest weight {picture.number(np.abs(w).max(), 1)}. "
            f"New points are met best with: {least}."
        )

    return Explorer(
        draw,
        alt=said,
        height=340,
        degree=slider("degree", 1, 15, 15),
        power=slider("weight decay, power of ten", -7.0, 1.0, -7.0, 0.25),
        n=choice("points", [16, 30, 200]),
    )


# --- weight decay in the plane ---------------------------------------------------------------------------------------

HIDDEN, REACH = 32, ((-1.7, 2.7), (-1.3, 1.8))
RATES = {"0": 0.0, "0.0001": 1e-4, "0.001": 1e-3, "0.01": 1e-2, "0.1": 0.1}


@lru_cache
def moons(n):
    """Noisy moons to learn from, and many more to judge by."""
    rng = np.random.default_rng(1)
    return two_moons(n, 0.3, rng), two_moons(1000, 0.3, rng)


def score(parameters, x):
    """The probability of class 1 for each point."""
    w1, b1, w2, b2 = parameters
    return 0.5 * (1 + np.tanh(0.5 * (np.maximum(x @ w1.T + b1, 0) @ w2.T + b2)))[:, 0]


def plane_network(n, weight_decay, penalty_gradient, steps=400, rate=0.3):
    """A network of 32 hidden units trained on moons; the penalty's gradient is the learner's."""
    rng = np.random.default_rng(0)
    (x, t), _ = moons(n)
    p = [rng.normal(0, 1, (HIDDEN, 2)), rng.normal(0, 1, HIDDEN), rng.normal(0, 0.3, (1, HIDDEN)), np.zeros(1)]
    v = [np.zeros_like(value) for value in p]
    for _ in range(steps):
        h = np.maximum(x @ p[0].T + p[1], 0)
        dz = (score(p, x) - t)[:, None] / n
        dh = dz * p[2] * (h > 0)
        g = [dh.T @ x, dh.sum(0), dz.T @ h, dz.sum(0)]
        if weight_decay:
            pulls = penalty_gradient(1.0, [p[0], p[2]], weight_decay)
            g[0], g[2] = g[0] + pulls[0], g[2] + pulls[1]
        for value, velocity, gradient in zip(p, v, g, strict=True):
            velocity *= 0.9
            velocity += gradient
            value -= rate * velocity
    return p


def boundary(l2_penalty_backward, reference):
    """The decision boundary of a network on noisy moons, under more and more weight decay."""
    mine, right = live(l2_penalty_backward), reference("l2_penalty_backward")
    grid, known = picture.plane(*REACH, 60), {}

    def trained(n, decay):
        """Trained anew only where the learner's function has changed: told by what it says of one weight."""
        probe = np.asarray(mine(1.0, [np.array([[2.0]])], 0.5)[0], float).tobytes()
        if (n, decay, probe) not in known:
            known[n, decay, probe] = plane_network(n, decay, mine)
        return known[n, decay, probe]

    def draw(decay, n):
        p = trained(n, decay)
        (x, t), (x_new, t_new) = moons(n)
        seen, new = (((score(p, a) > 0.5) == b).mean() for a, b in ((x, t), (x_new, t_new)))
        map_ = picture.regions(
            score(p, grid).reshape(60, 60), x, t, *REACH, alt=said(decay, n), title="what the network says", width=360
        )
        sizes = np.sort(np.abs(np.concatenate([p[0].ravel(), p[2].ravel()])))[::-2]
        lines = {"": (np.arange(1, 2 * len(sizes), 2), sizes, {"colour": COLOURS["parameter"]})}
        labels = dict(x_label="weight, by size", y_range=(0, 5), width=330, height=250)
        chart = picture.curve(lines, "the sizes of the weights", "|w|", **labels)
        pulls = [np.linalg.norm(f(1.0, [p[0], p[2]], decay)[0]) for f in (mine, right)]
        line = (
            f"right: {seen:.0%} of {n} points, {new:.1%} of 1000 new ones; "
            f"pull of the penalty on the first layer {both(*pulls)}"
        )
        return picture.figure(picture.row(map_, chart) + f'<div class="lbl-note">{line}.</div>', said(decay, n))

    def said(decay, n):
        small = np.mean([(np.abs(p) < 0.01).mean() for p in trained(n, decay)[:3:2]])
        return (
            f"Weight decay {decay:g}, {n} points. The norm of all weights is "
            f"{picture.number(np.sqrt(sum((p**2).sum() for p in trained(n, decay)[:3:2])), 1)}; "
            f"{small:.0%} of them are below 0.01."
        )

    return Explorer(
        draw,
        alt=said,
        height=430,
        decay=choice("weight decay", RATES, 0.0),
        n=choice("points", [30, 100, 400]),
    )


# --- smoothed labels -------------------------------------------------------------------------------------------------

GAPS = np.linspace(-2, 12, 141)


def smoothed_losses(label_smoothing, classes, eps):
    """Cross-entropy against a smoothed target where the right logit is `gap` above all the others."""
    y = np.asarray(label_smoothing(np.array([0]), classes, eps), float)[0]
    z = np.zeros((len(GAPS), classes))
    z[:, 0] = GAPS
    return -(y * np.log(softmax(z))).sum(1)


def best_gap(classes, eps):
    """The gap between the right logit and the others at which p is the smoothed target; infinite for eps = 0."""
    return np.log((1 - eps + eps / classes) / (eps / classes)) if eps else np.inf


def smoothing(label_smoothing, reference):
    """Targets as they are smoothed, and what that does to the loss as the right logit rises."""
    mine, right = live(label_smoothing), reference("label_smoothing")

    def draw(classes, eps):
        targets = np.arange(3) % classes
        rows = picture.compare(
            mine(targets.copy(), classes, eps), right(targets, classes, eps), "y", vmax=1, role="output", digits=3,
            rows=[f"target {t}" for t in targets],
            columns=range(classes),
        )  # fmt: skip
        lines = {
            "hard label": (GAPS, smoothed_losses(right, classes, 0.0), {"colour": "#777777", "dash": True}),
            "smoothed": (GAPS, smoothed_losses(mine, classes, eps), {"colour": COLOURS["output"]}),
        }
        gap = best_gap(classes, eps)
        least = smoothed_losses(right, classes, eps).min()
        marks = [(gap, least, f"{gap:.1f}")] if gap < GAPS[-1] else []
        labels = dict(x_label="right logit above the others", y_range=(0, 3.5), width=520, height=230)
        chart = picture.curve(lines, said(classes, eps), "loss of one example", marks=marks, **labels)
        return picture.figure(rows + '<div style="height:8px"></div>' + chart, said(classes, eps))

    def said(classes, eps):
        if not eps:
            return "A hard label: the loss falls for ever, and the logits are pulled apart without end."
        p, gap = 1 - eps + eps / classes, best_gap(classes, eps)
        return (
            f"Smoothed by {eps:g} over {classes} classes: the right class is to get {p:.3f}, no more. The loss is "
            f"least where its logit is {gap:.2f} above the others; to be surer than that costs."
        )

    return Explorer(
        draw,
        alt=said,
        height=400,
        eps=slider("eps", 0.0, 0.6, 0.1, 0.05),
        classes=slider("classes", 2, 10, 5),
    )


# --- shifted images --------------------------------------------------------------------------------------------------


def shifts(random_shift, reference, images):
    """Digits, and the same digits moved; where they are not moved as asked for, the reference beside them."""
    mine, right = live(random_shift), reference("random_shift")

    def draw(max_shift, seed):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        got, want = mine(images.copy(), max_shift, rngs[0]), right(images, max_shift, rngs[1])
        sheets = {"as they are": images, "moved": got}
        if np.shape(got) != np.shape(want) or picture.differs(got, want).any():
            sheets["reference"] = want
        sheet = [
            picture.piece(
                picture.img(picture.mosaic(batch, 12), title, "ink", 0, 1, width=640), title,
                role="wrong" if title == "reference" else "input",
            )
            for title, batch in sheets.items()
        ]  # fmt: skip
        return picture.figure('<div style="height:8px"></div>'.join(sheet), said(max_shift, seed))

    def said(max_shift, seed):
        kept = right(images, max_shift, np.random.default_rng(seed)).sum() / images.sum()
        if not max_shift:
            return "max_shift = 0: every image stays where it is."
        pixels = f"{max_shift} pixel{'s' * (max_shift > 1)}"
        return f"Up to {pixels} each way: {kept:.0%} of the ink is still inside the frame."

    return Explorer(
        draw,
        alt=said,
        height=260,
        max_shift=slider("max_shift", 0, 4, 1),
        seed=slider("seed", 0, 20, 0),
    )


# --- early stopping --------------------------------------------------------------------------------------------------


def stopped(EarlyStopping, losses, patience, min_delta):
    """Steps until it stops (all of them, if it does not), and which step's parameters it restores."""
    stopper, parameters = EarlyStopping(patience, min_delta), [np.zeros(1)]
    steps = 0
    for loss in np.asarray(losses).tolist():
        steps += 1
        parameters[0] += 1  # in place, as an optimiser does
        if stopper.step(loss, parameters):
            break
    stopper.restore(parameters)
    return steps, int(parameters[0][0])


def stopping(EarlyStopping, reference, history):
    """A finished run, and where early stopping would have ended it; `history` has one column per step and curve."""
    mine, right = live(EarlyStopping), reference("EarlyStopping")
    watched, test, accuracy = (np.asarray(history[name], float) for name in ("validation", "test", "accuracy"))
    steps = np.arange(1, len(watched) + 1)

    def draw(patience, min_delta):
        (end, best), want = (stopped(kind, watched, patience, min_delta) for kind in (mine, right))
        lines = {
            "validation": (steps, watched, {"colour": COLOURS["gradient"]}),
            "test": (steps, test, {"colour": TEST}),
            "training": (steps, history["train"], {"colour": TRAIN}),
            "stops": ([end, end], [0, 3], {"colour": "#777777", "dash": True}),
            "restores": ([best, best], [0, 3], {"colour": COLOURS["right"]}),
        }
        labels = dict(x_label="step", y_range=(0, 3), width=640, height=250)
        chart = picture.curve(lines, said(patience, min_delta), "loss", **labels)
        line = (
            f"stops after step {both(end, want[0])}, restores step {both(best, want[1])}. Test accuracy: restored "
            f"<b>{accuracy[best - 1]:.1%}</b>, without restoring {accuracy[end - 1]:.1%}, at the end of the whole run "
            f"{accuracy[-1]:.1%}; the best step of all, which nobody could know, {accuracy.max():.1%}"
        )
        return picture.figure(f'{chart}<div class="lbl-note">{line}.</div>', said(patience, min_delta))

    def said(patience, min_delta):
        end, best = stopped(right, watched, patience, min_delta)
        return (
            f"Patience {patience}, min_delta {min_delta:g}: the run ends after {end} of {len(watched)} steps, and "
            f"takes back the weights of step {best}."
        )

    return Explorer(
        draw,
        alt=said,
        height=340,
        patience=slider("patience", 1, 60, 10),
        min_delta=slider("min_delta", 0.0, 0.2, 0.0, 0.01),
    )


# --- experiments -----------------------------------------------------------------------------------------------------


def strip(rows, title, x_range, width=430):
    """One line per name, one dot per run, a bar at their mean: {"name": values}."""
    left, top, step = 118, 12, 27
    height = top + step * len(rows) + 38
    low, high = x_range
    at = lambda value: left + (np.clip(value, low, high) - low) / (high - low) * (width - left - 14)  # noqa: E731
    parts = [
        f'<path d="M{at(v):.1f} {top}V{height - 36}" stroke="currentColor" opacity="{0.6 if v == 0 else 0.13}"/>'
        f'<text x="{at(v):.1f}" y="{height - 21}" text-anchor="middle">{picture.number(v)}</text>'
        for v in picture.ticks(low, high, 5)
    ]
    for k, (name, values) in enumerate(rows.items()):
        y, mean = top + step * (k + 0.5), float(np.mean(values))
        parts.append(f'<text x="{left - 10}" y="{y + 4:.0f}" text-anchor="end">{name}</text>')
        parts += [
            f'<circle cx="{at(v):.1f}" cy="{y:.0f}" r="4" fill="{COLOURS["input"]}" opacity=".65"/>' for v in values
        ]
        parts.append(f'<path d="M{at(mean):.1f} {y - 9:.0f}v18" stroke="{COLOURS["wrong"]}" stroke-width="3"/>')
    parts.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 4}" text-anchor="middle">{title}</text>')
    said = "; ".join(f"{name} {picture.number(np.mean(values), 1)}" for name, values in rows.items())
    return (
        f'<svg role="img" aria-label="{title}: {said}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-size="11.5">{"".join(parts)}</svg>'
    )


def remedies(gains, x_range=(-12, 34)):
    """Gains in points of test accuracy (one per seed) of every remedy: {"setting": {"remedy": gains}}."""
    pieces = [
        picture.piece(strip(rows, "points of test accuracy gained over no remedy", x_range), title)
        for title, rows in gains.items()
    ]
    return picture.row(*pieces)


def doses(curves):
    """Test and training accuracy (strengths, seeds) against the strength of a remedy: {"remedy": (x, seen, new)}."""
    charts = []
    for name, (x, seen, new) in curves.items():
        at = np.arange(len(x))
        lines = {
            "training digits": (*several(at, np.asarray(seen).T), {"colour": TRAIN}),
            "test digits": (*several(at, np.asarray(new).T), {"colour": TEST}),
        }
        labels = dict(x_label=name, y_range=(0, 1.02), x_range=(-0.2, len(x) - 0.8), width=400, height=260)
        chart = picture.curve(lines, f"accuracy against {name}", f"accuracy, by {name}", **labels)
        for k, value in enumerate(x):
            chart = chart.replace(f'text-anchor="middle">{k}</text>', f'text-anchor="middle">{value:g} </text>')
        charts.append(chart)
    return picture.row(*charts)


def learning(runs, every=4):
    """Training and test accuracy of runs (seeds, looks, 2), by the labels they were given; a look at each 4th step."""
    charts = []
    colours = (COLOURS["right"], COLOURS["gradient"], COLOURS["wrong"])
    for column, title in enumerate(("training accuracy", "test accuracy")):
        lines = {
            name: (
                *several(every * np.arange(1, np.shape(run)[1] + 1), np.asarray(run)[:, :, column]),
                {"colour": colour},
            )
            for (name, run), colour in zip(runs.items(), colours, strict=True)
        }
        labels = dict(x_label="step", y_range=(0, 1.05), width=400, height=260)
        charts.append(picture.curve(lines, title, title, **labels))
    return picture.row(*charts)


def descent(widths, runs):
    """Test accuracy (seeds, widths) against the number of hidden units, on a logarithmic axis."""
    at = np.log10(widths)
    colours = (COLOURS["wrong"], COLOURS["right"])
    lines = {
        name: (*several(at, values), {"colour": colour})
        for (name, values), colour in zip(runs.items(), colours, strict=True)
    }
    labels = dict(x_label="hidden units", x_range=(0.9, 3.4), y_range=(0, 1), width=620, height=270)
    chart = picture.curve(lines, "test accuracy against the number of hidden units", "test accuracy", **labels)
    return powers(chart, "middle")


def filters(weights):
    """What the units of the first layer look for: their weights as pictures, sorted by size."""
    scale = np.percentile(np.abs(next(iter(weights.values()))), 99)

    def draw(model, page):
        w = weights[model]
        order = np.argsort(-np.linalg.norm(w, axis=1))
        part = w[order][32 * (page - 1) : 32 * page].reshape(-1, 8, 8)
        sheet = picture.img(picture.mosaic(part, 16), said(model, page), "signed", -scale, scale, width=680)
        lines = {
            name: (np.arange(1, len(v) + 1, 4), np.sort(np.linalg.norm(v, axis=1))[::-4]) for name, v in weights.items()
        }
        labels = dict(x_label="unit, by the norm of its weights", width=680, height=190)
        return picture.figure(sheet + picture.curve(lines, "norms of the units", "norm", **labels), said(model, page))

    def said(model, page):
        norms = np.linalg.norm(weights[model], axis=1)
        return (
            f"{model}: units {32 * page - 31} to {32 * page} of {len(norms)}, largest first. Mean norm "
            f"{picture.number(norms.mean())}, {int((norms < 0.1).sum())} units below 0.1."
        )

    return Explorer(
        draw,
        alt=said,
        height=390,
        model=choice("trained with", list(weights)),
        page=slider("page", 1, len(next(iter(weights.values()))) // 32, 1),
    )


def calibration(logits, labels):
    """Reliability of several models' logits (n, classes) on the same examples, at any temperature."""

    def draw(model, temperature):
        z = logits[model] / temperature
        confidence, accuracy, count, _ = reliability(z, labels)
        held = count > 0
        lines = {
            "perfect": ([0, 1], [0, 1], {"colour": "#777777", "dash": True}),
            model: (confidence[held], accuracy[held], {"colour": COLOURS["output"], "points": True}),
        }
        labels_ = dict(x_label="confidence", x_range=(0, 1), y_range=(0, 1.03), width=360, height=300)
        chart = picture.curve(lines, said(model, temperature), "share of right answers", **labels_)
        shares = np.linspace(0, 1, 41)
        many = {"": (np.quantile(softmax(z).max(1), shares), shares, {"colour": COLOURS["input"]})}
        labels_ = dict(x_label="confidence", x_range=(0, 1), y_range=(0, 1.03), width=300, height=300)
        spread = picture.curve(many, "how confidence is distributed", "share of digits below", **labels_)
        return picture.figure(picture.row(chart, spread), said(model, temperature))

    def said(model, temperature):
        z = logits[model] / temperature
        p, error = softmax(z), reliability(z, labels)[3]
        loss = -np.log(p[np.arange(len(labels)), labels]).mean()
        return (
            f"{model}, temperature {picture.number(temperature)}: mean confidence {p.max(1).mean():.1%}, right "
            f"{(p.argmax(1) == labels).mean():.1%}, calibration error {error:.3f}, test loss {loss:.3f}."
        )

    return Explorer(
        draw,
        alt=said,
        height=370,
        model=choice("trained with", list(logits)),
        temperature=slider("temperature", 0.2, 4.0, 1.0, 0.1),
    )


# --- questions -------------------------------------------------------------------------------------------------------


def guess_unscaled():
    """Predict: what forgetting the scale does to two hidden layers."""
    return Predict(
        "A network with two hidden layers is trained with dropout, p = 0.5 in both, and nobody scales anything. "
        "At inference all units are there. How large is its answer, compared with its mean answer in training?",
        answer="about 4 times as large",
        options=["half as large", "the same", "about twice as large", "about 4 times as large"],
        reveal=lambda: (
            "Each hidden layer passes on twice what it passed on in training, on average, and the second doubles what "
            "the first has doubled. Below: scaling “none”, and move p."
        ),
    )


def guess_remedy():
    """Predict: which remedy helps most."""
    return Predict(
        "100 clean digits, a network that knows them all by heart, about 87 % right on new ones. "
        "Which of these gains most test accuracy?",
        answer="300 more digits",
        options=["weight decay", "dropout", "shifted copies", "label smoothing", "300 more digits"],
        reveal=lambda: "Measured below, with five seeds; the others are closer to nothing than their fame suggests.",
    )
