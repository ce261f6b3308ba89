"""Lesson 06: descent in a valley of known curvature, a race, Adam's view of a gradient, schedules, and two decays."""

from functools import lru_cache

import numpy as np

from course.widgets import picture
from course.widgets.chart import both, cell, powers, spread
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict

COLOURS = picture.COLOURS
# An optimiser keeps its colour in every figure of the lesson.
INK = {"SGD": "#1B7FBD", "momentum": "#E69F00", "RMSprop": "#009E73", "Adam": "#CC79A7", "AdamW": "#8C7A00"}
FUNCTIONS = {"SGD": "sgd_step", "momentum": "momentum_step", "RMSprop": "rmsprop_step", "Adam": "adam_step"}
STATE = {"SGD": (), "momentum": ("velocity",), "RMSprop": ("sq",), "Adam": ("m", "v")}
FAR = 1e6  # a path that has come this far has diverged


def advance(name, function, lr, beta):
    """An optimiser's step as (param, grad, state, t) -> (param, *state); beta is momentum, or Adam's first beta."""
    if name == "SGD":
        return lambda param, grad, state, t: (function(param, grad, lr),)
    if name == "momentum":
        return lambda param, grad, state, t: function(param, grad, *state, lr, momentum=beta)
    if name == "RMSprop":
        return lambda param, grad, state, t: function(param, grad, *state, lr)
    return lambda param, grad, state, t: function(param, grad, *state, t, lr, betas=(beta, 0.999))


def travel(step, gradient, start, steps, states=0):
    """The path (steps + 1, d) from `start`, and the state before each step; nan from where it has diverged."""
    param, state = np.array(start, float), [np.zeros(np.shape(start)) for _ in range(states)]
    path, kept = np.full((steps + 1, param.size), np.nan), []
    path[0] = param
    for t in range(1, steps + 1):
        kept.append(state)
        param, *state = step(param.copy(), gradient(param), [part.copy() for part in state], t)
        param = np.asarray(param, float)
        if not np.all(np.abs(param) < FAR):
            break
        path[t] = param
    return path, kept


def strays(got, want):
    """A line of orange that names those of the learner's paths that are not the reference's."""
    wrong = [name for name in got if picture.differs(np.nan_to_num(got[name]), np.nan_to_num(want[name])).any()]
    if not wrong:
        return ""
    said = f"not the path of the reference: {', '.join(wrong)}"
    return f'<div class="lbl-verdict" style="border-color:{COLOURS["wrong"]}">{said}</div>'


# --- a landscape and the paths on it ---------------------------------------------------------------------------------

PAPER = np.array([np.linspace(246, 148, 13), np.linspace(248, 164, 13), np.linspace(250, 182, 13)]).T.round()


def landscape(loss, reach, paths, title, alt, labels=("first parameter", "second parameter"), side=300, least=None):
    """Bands of equal loss (dark is high), and over them paths {name: (k, 2)}; a ring marks where each one stands.

    reach   ((x low, x high), (y low, y high));   least   points to mark with a cross
    """
    (left, right), (bottom, top) = reach
    at = picture.plane(*reach, n=100)
    height = np.log1p(loss(at[:, 0], at[:, 1]).reshape(100, 100) * 4)
    bands = np.floor(13 * (height - height.min()) / (np.ptp(height) * 1.0001)) / 12
    uri = picture.data_uri(picture.png8(bands, PAPER, 0, 1))

    def spots(path):
        where = (np.asarray(path, float) - [left, bottom]) / [right - left, top - bottom]
        return np.clip(where, -3, 4) * [side, -side] + [0, side]

    drawn = [f'<image href="{uri}" width="{side}" height="{side}" preserveAspectRatio="none"/>']
    for x, y in spots(least) if least is not None else ():
        drawn.append(f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0-10l-10 10" stroke="#333" stroke-width="2"/>')
    for name, path in paths.items():
        here = spots(path[np.isfinite(path).all(1)])
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in here)
        drawn.append(
            f'<polyline points="{line}" fill="none" stroke="#fff" stroke-width="4.5" stroke-linejoin="round"/>'
            f'<polyline points="{line}" fill="none" stroke="{INK[name]}" stroke-width="2.4" stroke-linejoin="round"/>'
        )
    for name, path in paths.items():
        x, y = spots(path[np.isfinite(path).all(1)])[-1]
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{INK[name]}" stroke="#fff" stroke-width="2"/>')
    ticks = "".join(
        f'<text x="{float(spots([(v, bottom)])[0, 0]):.1f}" y="{side + 15}" text-anchor="middle">{v:g}</text>'
        for v in picture.ticks(left, right, 4)
    ) + "".join(
        f'<text x="-6" y="{float(spots([(left, v)])[0, 1]) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in picture.ticks(bottom, top, 4)
    )
    ticks = ticks.replace(">-", ">−")
    return picture.piece(
        f'<svg role="img" aria-label="{alt}" width="{side + 46}" height="{side + 42}" font-size="11.5" '
        f'viewBox="-38 -8 {side + 46} {side + 42}"><svg width="{side}" height="{side}" overflow="hidden">'
        f"{''.join(drawn)}</svg>{ticks}"
        f'<text x="{side / 2}" y="{side + 30}" text-anchor="middle">{labels[0]}</text>'
        f'<text transform="translate(-28 {side / 2}) rotate(-90)" text-anchor="middle">{labels[1]}</text></svg>',
        title,
    )


# --- a valley whose curvature is known -------------------------------------------------------------------------------

STEEP, LAST = 10.0, 80  # the largest eigenvalue; the longest walk
SPAN = ((-2.0, 2.0), (-2.0, 2.0))
ALONG = np.array([-1.5, 0.9])  # the start, in the valley's own directions: flat, steep


def axes_of(turned):
    """The valley's directions as columns: flat, steep."""
    angle = np.pi / 6 if turned else 0.0
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def hessian_of(condition, turned):
    """A symmetric matrix with the eigenvalues STEEP / condition and STEEP."""
    axes = axes_of(turned)
    return axes @ np.diag([STEEP / condition, STEEP]) @ axes.T


def walk(momentum_step, lr, momentum, condition, turned, steps=LAST):
    """The path (steps + 1, 2) of momentum descent on the quadratic with that Hessian."""
    matrix = hessian_of(condition, turned)
    step = advance("momentum", momentum_step, lr, momentum)
    return travel(step, lambda x: matrix @ x, axes_of(turned) @ ALONG, steps, 1)[0]


def factor(lr, eigenvalue, momentum=0.0):
    """By what each step multiplies the error along an eigenvector, in the long run: |1 - lr λ| without momentum."""
    step = np.array([[1 - lr * eigenvalue, -lr * momentum], [eigenvalue, momentum]])
    return float(np.abs(np.linalg.eigvals(step)).max())


def valley(momentum_step, reference, lr=0.05, momentum=0.0, condition=10, steps=30):
    """One quadratic, one optimiser: what learning rate, momentum and curvature make of the descent."""
    mine, right = live(momentum_step), reference("momentum_step")

    def draw(lr, momentum, condition, turned, steps):
        path, wanted = (walk(f, lr, momentum, condition, turned, steps) for f in (mine, right))
        matrix = hessian_of(condition, turned)
        name = "momentum" if momentum else "SGD"
        place = landscape(
            lambda x, y: 0.5 * (matrix[0, 0] * x * x + 2 * matrix[0, 1] * x * y + matrix[1, 1] * y * y),
            SPAN, {name: path}, f"{name}, {steps} steps", said(lr, momentum, condition, turned, steps), least=[(0, 0)],
        )  # fmt: skip
        away, k = np.abs(path @ axes_of(turned)), np.arange(len(path))
        lines, predicted = {}, []
        for column, (direction, value, colour) in enumerate(
            (("flat", STEEP / condition, "#56B4E9"), ("steep", STEEP, COLOURS["wrong"]))
        ):
            with np.errstate(divide="ignore"):
                lines[f"{direction}, λ = {value:g}"] = (k, np.log10(away[:, column]), {"colour": colour})
            rate = np.log10(max(factor(lr, value, momentum), 1e-9))
            predicted.append((np.r_[k, np.nan], np.r_[np.log10(away[0, column]) + k * rate, np.nan]))
        lines["predicted"] = (*np.hstack(predicted), {"colour": "#7A7A7A", "dash": True})
        chart = powers(
            picture.curve(
                lines, "distance from the bottom along each direction", "distance along each direction",
                x_label="step", x_range=(0, LAST), y_range=(-6.5, 2.5), width=430, height=330,
            ),
            "end",
        )  # fmt: skip
        limit = 2 * (1 + momentum) / STEEP
        rates = ", ".join(
            f"{word} {picture.number(factor(lr, value, momentum), 3)}"
            for word, value in (("flat", STEEP / condition), ("steep", STEEP))
        )
        line = (
            f"Limit of the learning rate: 2 (1 + μ) / λ_max = {picture.number(limit, 3)}; here {lr:g}. "
            f"Predicted factor per step: {rates}."
        )
        note = f'<div class="lbl-note">{line}</div>'
        note += strays({name: path}, {name: wanted})
        return picture.figure(picture.row(place, chart) + note, said(lr, momentum, condition, turned, steps))

    def said(lr, momentum, condition, turned, steps):
        steep, flat = factor(lr, STEEP, momentum), factor(lr, STEEP / condition, momentum)
        if steep > 1 + 1e-9:
            return (
                f"Beyond the limit: along the steep direction every step makes the error "
                f"{picture.number(steep, 3)} times as large, from side to side and out of the picture."
            )
        if steep > 1 - 1e-9:
            return "Exactly at the limit: along the steep direction the error neither grows nor shrinks."
        if flat > 0.97:
            return (
                f"The steep direction is under control, the flat one hardly moves: {picture.number(flat, 3)} of its "
                "error is left after each step."
            )
        slower = "steep" if steep > flat else "flat"
        left = picture.number(max(steep, flat), 3)
        return f"Both directions shrink; the {slower} one is the slower: {left} of its error is left after each step."

    return Explorer(
        draw,
        alt=said,
        height=400,
        lr=slider("learning rate", 0.01, 0.4, lr, 0.01),
        momentum=slider("momentum μ", 0.0, 0.95, momentum, 0.05),
        condition=choice("condition number", [1, 10, 100], condition),
        turned=toggle("turned by 30°"),
        steps=slider("steps", 0, LAST, steps),
    )


def guess_limit(reference):
    """Predict: where a learning rate becomes too large."""
    return Predict(
        "Along the steep direction the loss is 5 y² (second derivative λ = 10), so its gradient is 10 y. Above which "
        "learning rate does y ← y − lr · 10 y run away?",
        answer=0.2,
        tolerance=0.0,
        reveal=lambda: valley(reference("momentum_step"), reference).snapshot(lr=0.21, steps=60),
    )


# --- a race on four surfaces -----------------------------------------------------------------------------------------


def _turned(x, y, angle=np.pi / 4):
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _valley(x, y):
    return 0.1 * x * x + 5 * y * y, (0.2 * x, 10 * y)


def _askew(x, y):
    c = np.cos(np.pi / 4)
    u, v = _turned(x, y)
    loss, (du, dv) = _valley(u, v)
    return loss, (c * (du - dv), c * (du + dv))


def _saddle(x, y):
    return 0.5 * x * x - 0.5 * y * y + 0.25 * y**4 + 0.25, (x, y**3 - y)


def _rosenbrock(x, y):
    gap = y - x * x
    return (1 - x) ** 2 + 100 * gap * gap, (-2 * (1 - x) - 400 * x * gap, 200 * gap)


# (x, y) -> loss, gradient; what is drawn; the start; where the loss is least
SURFACES = {
    "valley": (_valley, SPAN, (-1.7, 0.9), [(0, 0)]),
    "valley, turned": (_askew, SPAN, tuple(np.array([[1, -1], [1, 1]]) @ [-1.7, 0.9] / np.sqrt(2)), [(0, 0)]),
    "saddle": (_saddle, SPAN, (-1.6, 1e-3), [(0, 1), (0, -1)]),
    "Rosenbrock": (_rosenbrock, ((-2.0, 2.0), (-1.0, 3.0)), (-1.2, 1.0), [(1, 1)]),
}
ROUND = 100  # steps of a race
GRID = 10.0 ** np.arange(-4, 0.6, 0.25)  # the learning rates among which each optimiser's best was looked for


def gradient_on(surface):
    """The gradient of a surface as a function of a point (2,)."""
    function = SURFACES[surface][0]
    return lambda point: np.array(function(*point)[1])


def run(name, function, surface, lr, beta=0.9, steps=ROUND):
    """The path of one optimiser over a surface, and the state before each step."""
    return travel(
        advance(name, function, lr, beta), gradient_on(surface), SURFACES[surface][2], steps, len(STATE[name])
    )


def best_rate(name, function, surface):
    """The learning rate of the grid for which the logarithm of the loss, averaged over the race, is least."""

    def average(lr):
        path = run(name, function, surface, lr)[0]
        if not np.isfinite(path).all():
            return np.inf
        return float(np.log10(SURFACES[surface][0](*path.T)[0] + 1e-6).mean())

    return float(min(GRID, key=average))


RATES = {  # best_rate of each, which takes too long to work out anew
    surface: dict(zip(FUNCTIONS, 10.0 ** np.array(powers_of_ten), strict=True))
    for surface, powers_of_ten in {
        "valley": (-0.75, -1.5, -1.0, -0.5),
        "valley, turned": (-0.75, -1.5, -1.0, -0.25),
        "saddle": (-0.25, -0.5, -1.0, -0.5),
        "Rosenbrock": (-2.25, -2.75, -0.75, -0.25),
    }.items()
}


def race(sgd_step, momentum_step, rmsprop_step, adam_step, reference, surface="valley", steps=40):
    """Four optimisers on one surface, each at its own best learning rate; one of them traced number by number."""
    mine = dict(zip(FUNCTIONS, map(live, (sgd_step, momentum_step, rmsprop_step, adam_step)), strict=True))
    right = {name: reference(function) for name, function in FUNCTIONS.items()}

    def rates(surface, times):
        return {name: lr * 2.0**times for name, lr in RATES[surface].items()}

    @lru_cache(8)
    def wanted(surface, times, beta):
        lr = rates(surface, times)
        return {name: run(name, f, surface, lr[name], beta)[0] for name, f in right.items()}

    def draw(surface, times, beta, steps, traced):
        function, reach, _, least = SURFACES[surface]
        lr = rates(surface, times)
        runs = {name: run(name, f, surface, lr[name], beta) for name, f in mine.items()}
        paths = {name: path for name, (path, _) in runs.items()}
        walked = {name: path[: steps + 1] for name, path in paths.items()}
        place = landscape(
            lambda x, y: function(x, y)[0], reach, walked, f"{surface}: {steps} steps",
            f"the paths of {', '.join(walked)} over the surface", least=least,
        )  # fmt: skip
        lines = {}
        for name, path in paths.items():
            with np.errstate(all="ignore"):
                loss = np.log10(np.maximum(function(*path.T)[0], 1e-12))
            lines[f"{name}, lr = {lr[name]:.2g}"] = (np.arange(len(path)), loss, {"colour": INK[name]})
        chart = picture.curve(
            lines, "loss against the step, logarithmic", "loss", x_label="step", x_range=(0, ROUND), y_range=(-8.3, 3),
            marks=[(steps, lines[f"{traced}, lr = {lr[traced]:.2g}"][1][steps], "")], width=440, height=340,
        )  # fmt: skip
        below = strays(paths, wanted(surface, times, beta)) + trace(
            traced, *runs[traced], lr[traced], beta, steps, surface
        )
        text = said(surface, times, beta, steps, traced)
        return picture.figure(picture.row(place, powers(chart, "end")) + below, text)

    def trace(name, path, kept, lr, beta, steps, surface):
        """The step that led to where the optimiser stands: parameter, gradient, state, all that comes out."""
        if steps > len(kept) or not np.isfinite(path[steps]).all():
            return picture.note(f"{name} has left the picture: there is no step to trace.")
        if not steps:
            return picture.note("Move to step 1 to trace a step.")
        old, state = path[steps - 1], kept[steps - 1]
        grad = gradient_on(surface)(old)
        got, want = (advance(name, f[name], lr, beta)(old, grad, state, steps) for f in (mine, right))
        rows = {"param before": (old, old), "grad": (grad, grad)}
        rows |= {part: (g, w) for part, g, w in zip((*STATE[name], "param after"), (*got[1:], got[0]),
                                                    (*want[1:], want[0]), strict=True)}  # fmt: skip
        move = (np.asarray(got[0]) - old) / lr
        rows["the move / lr"] = (move, move)
        lines = "".join(
            f"<tr>{cell(what)}{''.join(cell(both(g, w, 3)) for g, w in zip(*values, strict=True))}</tr>"
            for what, values in rows.items()
        )
        return (
            f'<div style="margin-top:6px"><b>{name}, step {steps}</b>, number by number:</div>'
            f'<table style="font-size:13px;border-collapse:collapse">{lines}</table>'
        )

    def said(surface, times, beta, steps, traced):
        function = SURFACES[surface][0]
        ends = {name: path[steps] for name, path in wanted(surface, times, beta).items()}
        lost = [name for name, end in ends.items() if not np.isfinite(end).all()]
        losses = {name: function(*end)[0] for name, end in ends.items() if name not in lost}
        order = ", ".join(f"{name} {_short(losses[name])}" for name in sorted(losses, key=losses.get))
        gone = f" Diverged: {', '.join(lost)}." if lost else ""
        return f"Loss after {steps} steps, least first: {order}.{gone}"

    return Explorer(
        draw,
        alt=said,
        height=560,
        surface=choice("surface", list(SURFACES), surface),
        times=slider("learning rates × 2 to the power", -4, 4, 0),
        beta=slider("momentum and β1", 0.0, 0.95, 0.9, 0.05),
        steps=slider("step", 0, ROUND, steps),
        traced=choice("trace", list(FUNCTIONS), "Adam"),
    )


def _short(value):
    return f"{float(value):.2g}".replace("-", "−")


# --- what Adam makes of a stream of gradients ------------------------------------------------------------------------

STREAM = 120  # steps


def stream_of(kind, scale):
    """The gradients (STREAM,) that one parameter gets: four kinds of life."""
    t, rng = np.arange(STREAM), np.random.default_rng(6)
    kinds = {
        "constant": np.ones(STREAM),
        "noisy": 0.3 + rng.standard_normal(STREAM),
        "alternating": (-1.0) ** t,
        "rare": (t % 30 == 10) * 1.0,
    }
    return kinds[kind] * scale


def respond(adam_step, grads, betas):
    """Adam's moves in units of lr, its m and its v, at every step; one parameter."""
    param, m, v = np.zeros(1), np.zeros(1), np.zeros(1)
    moves = np.zeros((len(grads), 3))
    for t, grad in enumerate(grads, 1):
        new, m, v = adam_step(param, np.array([grad]), m, v, t, 1.0, betas=betas)
        moves[t - 1] = (param - new)[0], m[0], v[0]
        param = new
    return moves


def stream(adam_step, reference):
    """One parameter and the gradients it gets: the running means, and the moves that Adam makes of them."""
    mine, right = live(adam_step), reference("adam_step")

    @lru_cache(8)
    def wanted(kind, power, beta1, beta2):
        return respond(right, stream_of(kind, 10.0**power), (beta1, beta2))

    def draw(kind, power, beta1, beta2):
        scale, betas, t = 10.0**power, (beta1, beta2), np.arange(1, STREAM + 1)
        grads = stream_of(kind, scale)
        got, want = respond(mine, grads, betas), wanted(kind, power, beta1, beta2)
        inside = picture.curve(
            {
                "gradient": (t, grads / scale, {"colour": COLOURS["gradient"]}),
                "m, corrected": (t, got[:, 1] / (1 - beta1**t) / scale, {"colour": "#56B4E9"}),
                "√v, corrected": (t, np.sqrt(np.maximum(got[:, 2], 0) / (1 - beta2**t)) / scale, {"colour": "#8C7A00"}),
            },
            "the gradient and its two running means", f"what Adam remembers, in units of {scale:g}",
            x_label="step", x_range=(0, STREAM), y_range=(-2.6, 2.6), width=400, height=290,
        )  # fmt: skip
        bare = want[:, 1] / (np.sqrt(want[:, 2]) + 1e-8)
        lines = {
            "Adam's move / lr": (t, got[:, 0], {"colour": INK["Adam"]}),
            "without bias correction": (t, bare, {"colour": "#7A7A7A", "dash": True}),
        }
        if picture.differs(got[:, 0], want[:, 0]).any():
            lines["reference"] = (t, want[:, 0], {"colour": COLOURS["wrong"], "dash": True})
        moves = picture.curve(
            lines, "Adam's moves", "the move, in units of lr",
            x_label="step", x_range=(0, STREAM), y_range=(-2.2, 4.2), width=400, height=290,
        )  # fmt: skip
        return picture.figure(picture.row(inside, moves), said(kind, power, beta1, beta2))

    def said(kind, power, beta1, beta2):
        moves = wanted(kind, power, beta1, beta2)[:, 0]
        late = np.abs(moves[STREAM // 2 :])
        size = f"the first step moves {_short(np.abs(moves[0]))} lr, the later ones {_short(late.mean())} lr on average"
        return {
            "constant": f"Always the same gradient: {size}, whatever the gradient's size.",
            "noisy": f"Much noise, a little drift: {size}. The less the gradients agree, the shorter the move.",
            "alternating": f"Gradients that cancel: {size}.",
            "rare": f"A gradient in one step of thirty: the largest move is {_short(np.abs(moves).max())} lr, and m "
            "goes on moving the parameter after the gradient is gone.",
        }[kind]

    return Explorer(
        draw,
        alt=said,
        height=330,
        kind=choice("gradients", ["constant", "noisy", "alternating", "rare"], "noisy"),
        power=slider("size: 10 to the power", -9, 3, 0),
        beta1=slider("β1", 0.0, 0.99, 0.9, 0.01),
        beta2=slider("β2", 0.9, 0.999, 0.999, 0.001),
    )


def guess_first_move():
    """Predict: the length of Adam's first step."""
    return Predict(
        "Adam, lr = 0.1, first step. One parameter has the gradient 500, another 0.002. How far does each move?",
        answer="0.1 and 0.1",
        options=["50 and 0.0002", "0.1 and 0.1", "0.1 and 0.0000004", "it depends on β1 and β2"],
        reveal=lambda: (
            "In the first step the corrected means are g and g², so that the move is lr · g / √g²: one learning rate, "
            "with the sign of g. The betas cancel, and so does the size."
        ),
    )


# --- schedules -------------------------------------------------------------------------------------------------------

PEAK = 0.1  # the learning rate that the schedules are given


def schedules(step_lr, cosine_lr, warmup_cosine_lr, reference):
    """Three schedules over the steps of a run, and the learning rate of one step."""
    names = ("step_lr", "cosine_lr", "warmup_cosine_lr")
    mine, right = [live(f) for f in (step_lr, cosine_lr, warmup_cosine_lr)], [reference(name) for name in names]

    def three(functions, step, total, warmup, low, size):
        stairs, cosine, warm = functions
        return (
            float(stairs(step, PEAK, size, gamma=0.5)),
            float(cosine(step, PEAK, total, min_lr=low)),
            float(warm(step, PEAK, total, warmup, min_lr=low)),
        )

    def draw(step, total, warmup, low, size):
        warmup = min(warmup, total - 1)
        at = np.arange(121)
        got, want = (np.array([three(f, k, total, warmup, low, size) for k in at.tolist()]) for f in (mine, right))
        lines = {}
        for column, name in enumerate(names):
            lines[name] = (at, got[:, column], {"colour": picture.CYCLE[column]})
            if picture.differs(got[:, column], want[:, column]).any():
                lines[f"{name}: reference"] = (at, want[:, column], {"colour": COLOURS["wrong"], "dash": True})
        chart = picture.curve(
            lines, "learning rate against the step", "learning rate", x_label="step", x_range=(0, 120),
            y_range=(-0.004, 0.108), marks=[(step, value, "") for value in got[step]], width=680, height=280,
        )  # fmt: skip
        here = ", ".join(f"{name} {picture.number(value, 4)}" for name, value in zip(names, got[step], strict=True))
        return picture.figure(
            f'{chart}<div class="lbl-note">At step {step}: {here}.</div>', said(step, total, warmup, low, size)
        )

    def said(step, total, warmup, low, size):
        warmup = min(warmup, total - 1)
        where = (
            f"after the end, where the cosines stay at {picture.number(low, 3)}"
            if step >= total
            else f"in the warm-up, {step + 1} of {warmup + 1} parts of the way up"
            if step < warmup
            else "on the way down"
        )
        return f"Step {step} of {total} is {where}; falls of the staircase so far: {step // size}."

    return Explorer(
        draw,
        alt=said,
        height=340,
        step=slider("step", 0, 120, 30),
        total=slider("total_steps", 20, 120, 100, 10),
        warmup=slider("warmup_steps", 0, 40, 10),
        low=slider("min_lr", 0.0, 0.05, 0.0, 0.005),
        size=slider("step_size", 5, 60, 30, 5),
    )


# --- decay: in the gradient, or beside it ----------------------------------------------------------------------------

SIZES = 10.0 ** np.arange(-3, 1.01, 0.25)  # of the gradient's noise, one parameter each
NOISE = np.random.default_rng(0).standard_normal((200, 20, len(SIZES)))  # 20 copies of each, to average over


def decayed(step, weight_decay, penalty, steps, lr=0.02):
    """What is left (sizes,) of parameters that start at 1 and get nothing but noise, each of its own size.

    penalty   adds weight_decay · param to the gradient; else the step function is given weight_decay
    """
    param = np.ones(NOISE.shape[1:])
    m, v = np.zeros_like(param), np.zeros_like(param)
    more = {} if penalty else {"weight_decay": weight_decay}
    for t, noise in enumerate(NOISE[:steps], 1):
        grad = noise * SIZES + (weight_decay * param if penalty else 0)
        param, m, v = step(param, grad, m, v, t, lr, **more)
    return param.mean(0)


def decays(adam_step, adamw_step, reference):
    """A penalty in Adam's gradient and the decay of AdamW, on parameters whose gradients differ in size."""
    pair = live(adam_step), live(adamw_step)
    right = reference("adam_step"), reference("adamw_step")

    def left(functions, weight_decay, steps):
        adam, adamw = functions
        return decayed(adam, weight_decay, True, steps), decayed(adamw, weight_decay, False, steps)

    @lru_cache(8)
    def wanted(weight_decay, steps):
        return left(right, weight_decay, steps)

    def draw(weight_decay, steps):
        got, x = left(pair, weight_decay, steps), np.log10(SIZES)
        exact = (1 - 0.02 * weight_decay) ** steps
        lines = {
            "Adam, decay in the gradient (L2)": (x, got[0], {"colour": INK["Adam"], "points": True}),
            "AdamW": (x, got[1], {"colour": INK["AdamW"], "points": True}),
            "(1 − lr · weight_decay) to the power of the steps": (
                x[[0, -1]], [exact, exact], {"colour": "#7A7A7A", "dash": True},
            ),
        }  # fmt: skip
        chart = picture.curve(
            lines, "what is left of a parameter against the size of its gradients", "what is left of a parameter",
            x_label="size of its gradient's noise", x_range=(-3.15, 1.15), y_range=(-0.1, 1.3), width=640, height=300,
        )  # fmt: skip
        names = "Adam", "AdamW"
        note = strays(dict(zip(names, got, strict=True)), dict(zip(names, wanted(weight_decay, steps), strict=True)))
        return picture.figure(powers(chart, "middle") + note, said(weight_decay, steps))

    def said(weight_decay, steps):
        (small, *_, large), even = wanted(weight_decay, steps)
        return (
            f"After {steps} steps AdamW leaves {_short(even.mean())} of every parameter. With the decay in the "
            f"gradient, {_short(small)} is left where gradients are small and {_short(large)} where they are large."
        )

    return Explorer(
        draw,
        alt=said,
        height=350,
        weight_decay=slider("weight_decay", 0.0, 0.5, 0.2, 0.05),
        steps=slider("steps", 20, 200, 200, 20),
    )


# --- at work ---------------------------------------------------------------------------------------------------------


def tuning(rates, results):
    """One chart per problem, one line per optimiser: accuracy (seeds, rates) against the learning rate."""
    charts = []
    for title, runs in results.items():
        lines = {name: (*spread(np.log10(rates), values), {"colour": INK[name]}) for name, values in runs.items()}
        labels = dict(x_label="learning rate", x_range=(-3.7, 0.7), y_range=(0, 1), width=390, height=290)
        charts.append(powers(picture.curve(lines, title, title, **labels), "middle"))
    return picture.row(*charts)


def transfers(factors, results):
    """For each new task, the accuracy (seeds, factors) after tuning with that factor from layer to layer."""
    charts = []
    for (task, runs), colour in zip(results.items(), picture.CYCLE, strict=False):
        at = np.arange(len(factors))
        said = f"{task}: test accuracy"
        chart = picture.curve(
            {"": (*spread(at, runs), {"colour": colour})}, said, said,
            x_label="factor from layer to layer", x_range=(-0.4, len(factors) - 0.6), y_range=(0, 1),
            width=390, height=240,
        )  # fmt: skip
        for k, factor in enumerate(factors):
            chart = chart.replace(f'text-anchor="middle">{k}</text>', f'text-anchor="middle">{factor:g} </text>')
        charts.append(chart)
    return picture.row(*charts)


def twice_corrected(adam_step):
    """The moves for a gradient of 1 in every step: Adam's, and those of an Adam that keeps the corrected means."""

    def keeps_hats(param, grad, m, v, t, lr, betas):
        param, m, v = adam_step(param, grad, m, v, t, lr, betas=betas)
        return param, m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)

    t = np.arange(1, 11)
    lines = {
        name: (t, respond(step, np.ones(10), (0.9, 0.999))[:, 0], {"colour": COLOURS[role], "points": True})
        for name, step, role in (("Adam", adam_step, "right"), ("the function below", keeps_hats, "wrong"))
    }
    title = "the move in units of lr, for a gradient of 1 in every step"
    return picture.curve(lines, title, title, x_label="step", x_range=(0.5, 10.5), y_range=(-0.1, 1.2), width=560)


# --- look inside -----------------------------------------------------------------------------------------------------


def effective(images, m, v):
    """Adam on a first layer: which pixels have large gradients, and what step size each of them gets.

    images   (n, 8, 8);   m, v   the corrected running means (epochs, units, 64), one for each epoch
    """
    m, v = np.asarray(m, float), np.asarray(v, float)

    def maps(epoch):
        size = np.sqrt(v[epoch - 1].mean(0))  # of the gradients that a pixel's weights get
        seen = v[epoch - 1] > 0
        agree = np.abs(m[epoch - 1]) / np.where(seen, np.sqrt(v[epoch - 1]), 1)
        with np.errstate(divide="ignore"):
            per = np.where(size > 0, 1 / size, np.nan)
        return size.reshape(8, 8), per.reshape(8, 8), agree.mean(0).reshape(8, 8)

    first, last = maps(1), maps(len(v))
    top = [max(np.nanmax(a), np.nanmax(b)) for a, b in zip(first, last, strict=True)]

    def draw(epoch):
        size, per, agree = maps(epoch)
        look = dict(width=150, vmin=0)
        said_ = said(epoch)
        return picture.figure(
            picture.row(
                picture.img(images.mean(0), "the mean digit", title="mean digit", role="input", **look),
                picture.img(size, said_, title="√v: size of the gradients", role="gradient", vmax=top[0], **look),
                picture.img(np.log10(per), said_, title="log₁₀ of 1 / √v", width=150, vmin=0, vmax=np.log10(top[1])),
                picture.img(agree, said_, title="|m| / √v: the move / lr", vmax=top[2], **look),
            ),
            said_,
        )

    def said(epoch):
        size, per, agree = maps(epoch)
        return (
            f"After epoch {epoch}: 1 / √v, by which Adam multiplies a pixel's m, runs from {np.nanmin(per):.0f} to "
            f"{np.nanmax(per):.0f}; {np.isnan(per).sum()} pixels (left out) are 0 in every digit and never had a "
            f"gradient. The average weight moves {_short(agree[size > 0].mean())} lr in a step."
        )

    return Explorer(draw, alt=said, height=260, epoch=slider("epoch", 1, len(v), len(v)))


def four_paths(reference, surface="valley, turned", steps=60):
    """The picture at the top: four optimisers on one surface."""
    function, reach, _, least = SURFACES[surface]
    paths = {name: run(name, reference(f), surface, RATES[surface][name])[0] for name, f in FUNCTIONS.items()}
    walked = {name: path[: steps + 1] for name, path in paths.items()}
    k = np.arange(steps + 1)
    lines = {name: (k, np.log10(function(*path.T)[0]), {"colour": INK[name]}) for name, path in walked.items()}
    chart = picture.curve(lines, "the loss of the four", "loss", x_label="step", x_range=(0, steps), height=340)
    alt = "Four paths down a narrow valley that lies askew."
    return picture.row(
        landscape(lambda x, y: function(x, y)[0], reach, walked, "", alt, least=least), powers(chart, "end")
    )
