"""Lesson 16: a network unrolled in time, both ways; sequences of unequal length; what a text model reads."""

from functools import lru_cache
from html import escape

import numpy as np

from course.widgets import picture
from course.widgets.chart import amount, powers
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.predict import Predict

COLOURS = picture.COLOURS

# --- a drawing -------------------------------------------------------------------------------------------------------


def diagram(steps=4):
    """The same layer as a loop, and unrolled over a few steps."""
    parts = [_cell(70, "h", "x"), _loop(70), _text(165, 78, "=", 'font-size="22" opacity=".75"')]
    for t in range(steps):
        x = 270 + 110 * t
        parts += [_cell(x, f"h{_sub(t + 1)}", f"x{_sub(t + 1)}"), _arrow(x - 84, 72, x - 28, 72, COLOURS["output"])]
        parts.append(_text(x - 56, 62, f"h{_sub(t)}", f'style="fill:{COLOURS["output"]}"'))
    end = 270 + 110 * (steps - 1)
    parts.append(_arrow(end + 26, 72, end + 70, 72, COLOURS["output"]))
    told = f"A box whose output returns to it, and {steps} copies of it in a row, each handing its state on."
    svg = (
        f'<svg role="img" aria-label="{told}" viewBox="0 0 {end + 80} 150" width="{end + 80}" height="150" '
        f'font-size="13">{"".join(parts)}</svg>'
    )
    return picture.piece(svg)


def _cell(x, state, given):
    box = (
        f'<rect x="{x - 26}" y="54" width="52" height="36" rx="6" fill="{COLOURS["parameter"]}" fill-opacity=".22" '
        f'stroke="{COLOURS["parameter"]}"/>'
    )
    return (
        box
        + _text(x, 77, "w, b", "")
        + _arrow(x, 122, x, 93, COLOURS["input"])
        + _text(x, 138, given, f'style="fill:{COLOURS["input"]}" font-weight="600"')
        + _arrow(x, 54, x, 26, COLOURS["output"])
        + _text(x, 18, state, f'style="fill:{COLOURS["output"]}" font-weight="600"')
    )


def _loop(x):
    return (
        f'<path d="M{x} 40h-50v32h14" fill="none" stroke="{COLOURS["output"]}" stroke-width="2"/>'
        f'<path d="M{x - 36} 67.5L{x - 27} 72L{x - 36} 76.5z" fill="{COLOURS["output"]}"/>'
    )


def _sub(t):
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(t))


def _text(x, y, text, style):
    return f'<text x="{x}" y="{y}" text-anchor="middle" {style}>{escape(text)}</text>'


def _arrow(x, y, u, v, colour):
    """An arrow to the right or upwards."""
    back = f"L{u - 8} {v + 4.5}V{v - 4.5}z" if y == v else f"L{u - 4.5} {v + 8}H{u + 4.5}z"
    return f'<path d="M{x} {y}L{u} {v}" stroke="{colour}" stroke-width="2"/><path d="M{u} {v}{back}" fill="{colour}"/>'


# --- questions -------------------------------------------------------------------------------------------------------


def guess_parameters():
    """Predict: what a longer sequence costs in parameters."""

    def reveal():
        return picture.note(
            "As many: the same w_x, w_h and b are used at every step. What grows is the work, and what the backward "
            "pass has to keep: the states of all steps."
        )

    return Predict(
        "A recurrent network with 100 units reads texts of 10 characters. It is to read texts of 1000 characters. How "
        "many times as many parameters does it need?",
        answer=1,
        reveal=reveal,
    )


def guess_factor():
    """Predict: what is left of a gradient after twenty steps."""

    def reveal():
        back = np.arange(21)
        chart = picture.curve(
            {f"{factor} a step": (back, back * np.log10(factor), {"points": True}) for factor in (0.5, 0.9, 1.1)},
            "what is left of a gradient after 0 to 20 steps for factors 0.5, 0.9 and 1.1, on a logarithmic scale",
            x_label="steps back",
            x_range=(0, 20),
            y_range=(-6.5, 1.2),
            width=380,
            height=220,
        )
        return picture.row(decades(chart)) + picture.note(
            "0.5²⁰ is about a millionth. The factor is the same at every step, because the weight is: what is a little "
            "below 1 vanishes, what is a little above 1 explodes."
        )

    return Predict(
        "One unit without tanh: h' = 0.5 · h + x. By what is the gradient of the last state multiplied on its way back "
        "over twenty steps?",
        answer="about 0.000001",
        options=["about 0.000001", "about 0.025", "0.5", "1"],
        reveal=reveal,
    )


def guess_chunk():
    """Predict: how long a chunk has to be for a memory of five steps."""

    def reveal():
        pieces = [picture.piece(_chunks(k), f"chunks of {k}") for k in (5, 6)]
        return picture.row(*pieces) + picture.note(
            "The step that is asked and the one five before it have to stand in the same chunk. With 5 they never do; "
            "with 6 they do at every sixth step, with longer chunks more often."
        )

    return Predict(
        "At every step the sign of five steps ago is asked for. Gradients do not cross from one chunk into the one "
        "before it. How many steps must a chunk have, so that anybody is ever taught to remember for five steps?",
        answer=6,
        reveal=reveal,
    )


def _chunks(k, steps=12, lag=5):
    """Steps in chunks of k; from each the way to the one `lag` before it, green where it stays within its chunk."""
    parts = []
    for t in range(steps):
        x, shade = 4 + 34 * t, (0.15, 0.45)[t // k % 2]
        parts.append(
            f'<rect x="{x}" y="60" width="32" height="24" rx="3" fill="{COLOURS["input"]}" fill-opacity="{shade}"/>'
            + _text(x + 16, 77, str(t + 1), "")
        )
        if t >= lag:
            whole = t // k == (t - lag) // k
            look = f'stroke="{COLOURS["right"]}" stroke-width="3"' if whole else 'stroke="#888" stroke-dasharray="3 4"'
            a, b = x + 16, x + 16 - 34 * lag
            parts.append(f'<path d="M{a} 58C{a} 8 {b} 8 {b} 58" fill="none" {look}/>')
    told = f"{steps} steps in chunks of {k}, and the ways {lag} steps back that stay within one"
    width = 8 + 34 * steps
    return (
        f'<svg role="img" aria-label="{told}" viewBox="0 0 {width} 90" width="{width}" height="90" font-size="12">'
        f"{''.join(parts)}</svg>"
    )


# --- unrolled, forwards and backwards --------------------------------------------------------------------------------

STEPS, UNITS = 24, 8
MATRICES = ("turns", "random", "shears")


@lru_cache
def matrix(kind):
    """A square matrix of spectral radius 1: orthogonal, random, or one that stretches more than its eigenvalues say."""
    rng = np.random.default_rng(16)
    if kind == "turns":
        return np.linalg.qr(rng.standard_normal((UNITS, UNITS)))[0]
    w = rng.standard_normal((UNITS, UNITS)) / UNITS**0.5
    if kind == "shears":
        w = 2 * np.triu(w, 1) + np.diag(np.linspace(1, 0.7, UNITS) * (-1) ** np.arange(UNITS))
    return w / np.abs(np.linalg.eigvals(w)).max()


@lru_cache
def drawn():
    """What comes in (STEPS,), its weights (UNITS,), and the gradient (UNITS,) at the last state, of norm 1."""
    rng = np.random.default_rng(4)
    x, w_x, dh = rng.standard_normal(STEPS), rng.standard_normal(UNITS) / 2, rng.standard_normal(UNITS)
    return x, w_x, dh / np.linalg.norm(dh)


def run(kind="random", radius=1.0, tanh=True, scale=1.0, cut=0):
    """States (STEPS, UNITS) of a random network, and the gradient (STEPS, UNITS) of a loss at the last state alone.

    cut   gradients stop at each multiple of this many steps; 0: never
    """
    w, (x, w_x, last) = radius * matrix(kind), drawn()
    hs, h = np.zeros((STEPS, UNITS)), np.zeros(UNITS)
    for t in range(STEPS):
        h = w @ h + scale * x[t] * w_x
        hs[t] = h = np.tanh(h) if tanh else h
    dhs, dh = np.zeros((STEPS, UNITS)), last
    for t in reversed(range(STEPS)):
        dhs[t] = dh
        dh = w.T @ (dh * (1 - hs[t] ** 2 if tanh else 1)) if not cut or t % cut else np.zeros(UNITS)
    return hs, dhs


def bounds(kind, radius):
    """Powers of the spectral radius and of the largest singular value (STEPS,), for steps 1 to STEPS."""
    back = STEPS - 1 - np.arange(STEPS)
    return radius**back, (radius * np.linalg.norm(matrix(kind), 2)) ** back


def decades(chart):
    """A chart drawn over logarithms to base 10, its far ticks written short: there is little room beside it."""
    return powers(chart, "end").replace(">0.0001<", ">1e−4<").replace(">10000<", ">1e4<").replace(">1e-06<", ">1e−6<")


def unrolled():
    """A random network, played step by step: the states forwards, then the gradient backwards, with its norm."""
    width, left, right = 640, 46, 12  # as the chart below has them: steps stand above each other
    side = (width - left - right) / STEPS

    def strip(values, top, title, colour, vmax, now):
        height = 14 * len(values) if len(values) == 1 else 10 * len(values)
        uri = picture.data_uri(picture.png8(values, "signed", vmax=vmax))
        frame = "" if now is None else "".join(
            f'<rect x="{left + side * now:.1f}" y="{top}" width="{side:.1f}" height="{height}" fill="none" '
            f'stroke="{ink}" stroke-width="{thick}"/>'
            for ink, thick in (("#fff", 5), ("#111", 2.5))  # readable in light and dark
        )  # fmt: skip
        return (
            f'<path fill="{colour}" d="M{left} {top - 17}h4v13h-4z"/><text x="{left + 10}" y="{top - 6}" '
            f'font-weight="600">{title}</text><rect x="{left}" y="{top}" width="{width - left - right}" '
            f'height="{height}" fill="#888" opacity=".12"/><image href="{uri}" x="{left}" y="{top}" '
            f'width="{width - left - right}" height="{height}" preserveAspectRatio="none" '
            f'style="image-rendering:pixelated"/>{frame}',
            top + height,
        )

    def draw(played, kind, radius, bend, scale, cut):
        hs, dhs = run(kind, radius, bend == "tanh", scale, cut)
        x = scale * drawn()[0][None]
        steps = np.arange(STEPS)
        seen, back = steps < played, steps >= 2 * STEPS - played
        now = played - 1 if played <= STEPS else 2 * STEPS - played
        parts, top = [], 20
        for values, title, role, vmax in (
            (np.where(seen, x, np.nan), "input x", "input", 2),
            (np.where(seen, hs.T, np.nan), "state h, 8 units", "output", 1),
            (
                np.where(back, dhs.T, np.nan),
                "gradient with respect to h, of a loss at the last step",
                "gradient",
                0.6,
            ),
        ):
            here = now if played and (role == "gradient") == (played > STEPS) else None
            html, top = strip(values, top, title, COLOURS[role], vmax, here)
            parts.append(html)
            top += 26
        alt = said(played, kind, radius, bend, scale, cut)
        svg = (
            f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {top - 20}" width="{width}" '
            f'height="{top - 20}" font-size="12">{"".join(parts)}</svg>'
        )
        norms = np.linalg.norm(dhs, axis=1)
        norms = np.where(back & (norms > 0), np.log10(np.maximum(norms, 1e-300)), np.nan)
        by_radius, by_singular = (np.log10(values) for values in bounds(kind, radius))
        chart = picture.curve(
            {
                "norm of the gradient": (steps + 1, norms, {"colour": COLOURS["gradient"], "points": True}),
                "radius to the power of the steps": (steps + 1, by_radius, {"colour": "#7A7A7A", "dash": True}),
                "largest singular value to that power": (steps + 1, by_singular, {"colour": "#CC79A7", "dash": True}),
            },
            alt,
            x_label="step",
            x_range=(0.5, STEPS + 0.5),
            y_range=(-4, 4),
            width=width,
            height=256,
        )
        return picture.figure(svg + decades(chart), alt)

    def said(played, kind, radius, bend, scale, cut):
        _, dhs = run(kind, radius, bend == "tanh", scale, cut)
        if played <= STEPS:
            return f"Forwards, step {played} of {STEPS}." if played else "Not yet begun: move `played` to the right."
        t = 2 * STEPS - played
        norm = np.linalg.norm(dhs[t])
        told = f"Backwards, from the loss at step {STEPS}. At the state of step {t + 1} the gradient has the norm "
        if not norm:
            return f"{told}0: it was cut on its way."
        return f"{told}{amount(norm)}; radius to the power of {STEPS - 1 - t} is {amount(bounds(kind, radius)[0][t])}."

    return Explorer(
        draw,
        alt=said,
        height=520,
        played=slider("played", 0, 2 * STEPS, 2 * STEPS),
        radius=slider("spectral radius", 0.5, 1.5, 1.0, 0.05),
        kind=choice("w_h", list(MATRICES), "turns"),
        bend=choice("then", ["tanh", "nothing"]),
        scale=slider("input ×", 0.0, 2.0, 1.0, 0.1),
        cut=choice("gradient cut", {"never": 0, "every 12 steps": 12, "every 5": 5}),
    )


# --- the learner's own steps -----------------------------------------------------------------------------------------


def own_inputs():
    """One sequence of 6 steps, one number each, for three units: x, h0, w_x, w_h, b."""
    rng = np.random.default_rng(2)
    w_h = rng.integers(-4, 5, (3, 3)) / 4
    return np.zeros((1, 6, 1)), np.zeros((1, 3)), np.array([[1.0], [-0.5], [0.5]]), w_h, np.zeros(3)


def pulses(forward, backward, want_forward, want_backward):
    """A pulse at one step of x, a loss at one step of one unit: what the learner's functions make of them."""
    mine = live(forward), live(backward)

    def computed(functions, pulse, size, at, unit):
        x, *rest = own_inputs()
        x[0, pulse - 1, 0] = size
        hs = functions[0](*(value.copy() for value in (x, *rest)))
        dhs = np.zeros((1, 6, 3))
        dhs[0, at - 1, unit - 1] = 1.0
        dx, _, _, dw_h, _ = functions[1](dhs.copy(), *(value.copy() for value in (x, *rest)))
        return x[0].T, np.asarray(hs)[0].T, dhs[0].T, np.asarray(dx)[0].T, np.asarray(dw_h)

    def draw(pulse, size, at, unit):
        x, hs, dhs, dx, dw_h = computed(mine, pulse, size, at, unit)
        _, hs_want, _, dx_want, dw_want = computed((want_forward, want_backward), pulse, size, at, unit)
        columns = [f"step {t}" for t in range(1, 7)]
        units = dict(rows=["unit 1", "unit 2", "unit 3"], columns=columns)
        forwards = picture.row(
            picture.heat(x, "x", vmax=2, columns=columns, rows=["x"], role="input"),
            picture.compare(hs, hs_want, "hs", vmax=1, role="output", **units),
        )
        backwards = picture.row(
            picture.heat(dhs, "dhs", vmax=1, role="gradient", mark=[(unit - 1, at - 1)], **units),
            picture.compare(dx, dx_want, "dx", vmax=1, columns=columns, rows=["dx"], role="gradient"),
            picture.compare(dw_h, dw_want, "dw_h", vmax=1, role="gradient"),
        )
        return picture.figure(forwards + backwards, said(pulse, size, at, unit))

    def said(pulse, size, at, unit):
        _, hs, _, dx, dw_h = computed((want_forward, want_backward), pulse, size, at, unit)
        reached = int((np.abs(hs).max(0) > 0).sum())
        before = "nothing has come in before the loss, so dw_h is 0"
        if np.abs(dw_h).max() > 0:
            before = f"dw_h adds up the steps up to step {at}"
        return (
            f"The pulse at step {pulse} reaches {reached} of 6 states, none of them earlier. The loss at step {at} "
            f"reaches {int((np.abs(dx) > 0).sum())} of 6 inputs, none of them later; {before}."
        )

    return Explorer(
        draw,
        alt=said,
        height=390,
        pulse=slider("pulse at step", 1, 6, 2),
        size=slider("its size", -2.0, 2.0, 1.0, 0.25),
        at=slider("loss at step", 1, 6, 5),
        unit=slider("loss at unit", 1, 3, 1),
    )


# --- unequal lengths -------------------------------------------------------------------------------------------------

LONGEST = 7


def batch(first, second, filling):
    """Three sequences of the lengths first, second and LONGEST, padded with `filling`; lengths; both parameter sets."""
    x = np.array([[1, -2, 2, 0, -1, 1, 2], [-1, 2, 0, -2, 1, 1, -2], [2, 0, -1, 1, -2, 2, -1]], float)[:, :, None]
    lengths = np.array([first, second, LONGEST])
    x[np.arange(LONGEST) >= lengths[:, None]] = filling
    one = np.zeros((3, 1)), np.array([[0.6]]), np.array([[0.8]]), np.array([0.1])
    two = np.full((3, 1), 0.5), np.array([[-0.7]]), np.array([[0.6]]), np.array([0.0])
    return x, lengths, *one, *two


def padded(bidirectional, want):
    """A batch of three sequences and the states of both directions; what stands in the padding can be chosen."""
    mine = live(bidirectional)

    def draw(first, second, filling):
        given = batch(first, second, filling)
        got, right = (np.asarray(f(*(v.copy() for v in given)), float) for f in (mine, want))
        columns = list(range(1, LONGEST + 1))
        rows = [f"length {length}" for length in given[1]]
        named = dict(rows=rows, columns=columns)
        behind = [(n, t) for n, length in enumerate(given[1]) for t in range(length, LONGEST)]
        if got.shape != right.shape:
            return picture.compare(got, right, "hs", role="output")
        pieces = [
            picture.heat(given[0][..., 0], "x, the padding outlined", vmax=3, mark=behind, role="input", **named),
            picture.compare(got[..., 0], right[..., 0], "hs: read from the left", vmax=1, role="output", **named),
            picture.compare(got[..., 1], right[..., 1], "hs: read from the right", vmax=1, role="output", **named),
        ]
        return picture.figure(picture.row(*pieces), said(first, second, filling))

    def said(first, second, filling):
        count = first + second + LONGEST
        reads = want(*batch(first, second, filling))[0, first - 1, 1]
        return (
            f"{count} of {3 * LONGEST} steps exist, {1 - count / (3 * LONGEST):.0%} is padding. The one who reads from "
            f"the right starts the first sequence at step {first}: {picture.number(reads)}, whatever the padding holds."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        first=slider("length of the first", 1, LONGEST, 3),
        second=slider("length of the second", 1, LONGEST, 5),
        filling=slider("what fills the padding", -3, 3, 0),
    )


# --- what a text model reads -----------------------------------------------------------------------------------------


def reader(texts, states, guesses, truths, characters):
    """A trained text model at every place of some sentences: its units, its guesses and the true probabilities.

    texts     sentences
    states    for each (T, H): the state from which character t was guessed
    guesses, truths   for each (T, V): what the model said of character t, and the true probabilities
    """
    most, units = max(map(len, texts)) - 1, states[0].shape[1]

    def bits(table, text):
        chosen = [characters.index(character) for character in text]
        return -np.log2(np.maximum(table[np.arange(len(text)), chosen], 1e-12))

    def draw(sentence, place, unit, shown):
        text, place = texts[sentence - 1], min(place, len(texts[sentence - 1]) - 1)
        if shown == "unit":
            colours = np.append(states[sentence - 1][1:, unit - 1], np.nan), "signed", -1, 1
        else:
            table = guesses if shown == "bits: model" else truths
            colours = bits(table[sentence - 1], text), "magnitude", 0, 4
        written = _written(text, place, *colours)
        bars = _bars(guesses[sentence - 1][place], truths[sentence - 1][place], characters)
        return picture.figure(written + bars, said(sentence, place, unit, shown))

    def said(sentence, place, unit, shown):
        text, place = texts[sentence - 1], min(place, len(texts[sentence - 1]) - 1)
        model, true = (bits(table[sentence - 1], text) for table in (guesses, truths))
        told = (
            f"Comes next: {_name(text[place])}. It costs the model {amount(model[place], 2)} bits, and whoever knows "
            f"the language {amount(true[place], 2)}. The whole sentence: {model.sum():.1f} bits and {true.sum():.1f}."
        )
        if shown != "unit" or not place:
            return told
        value = picture.number(states[sentence - 1][place, unit - 1])
        return f"{told} Unit {unit} after {_name(text[place - 1])}: {value}."

    return Explorer(
        draw,
        alt=said,
        height=300,
        sentence=slider("sentence", 1, len(texts), 1),
        place=slider("place", 0, most, 6),
        shown=choice("colour", ["unit", "bits: model", "bits: truth"]),
        unit=slider("unit", 1, units, 1),
    )


def _name(character):
    return {"\n": "the end of the line", " ": "a space"}.get(character, f"“{character}”")


def _written(text, place, values, palette, low, high):
    """The text, each character on its colour; what has not been read yet is pale, the next character framed."""
    table, levels = picture.palette_bytes(palette), picture.indices(values, palette, low, high)
    spans = []
    for k, (character, level) in enumerate(zip(text, levels, strict=True)):
        rgb = table[level] if level < len(table) else (128, 128, 128)
        ink = "#111" if rgb @ np.array([0.3, 0.6, 0.1]) > 120 else "#fff"
        style = f"background:#{bytes(rgb).hex()};color:{ink}" if level < len(table) else ""
        extra = ";outline:2px solid currentColor" if k == place else ";opacity:.45" if k > place else ""
        sign = {"\n": "↵", " ": "&nbsp;"}.get(character, character)
        spans.append(f'<span style="{style}{extra}">{sign}</span>')
    return f'<div style="font:17px/1.9 monospace;overflow-wrap:anywhere;max-width:44em">{"".join(spans)}</div>'


def _bars(guess, truth, characters, count=6):
    """The likeliest next characters: the model's probability and the true one."""
    order = np.argsort(-np.maximum(guess, truth), kind="stable")[:count]
    parts = []
    for row, k in enumerate(order):
        y = 20 + 24 * row
        parts.append(
            f'<text x="34" y="{y + 13}" text-anchor="end" font-family="monospace" font-size="14">'
            f"{ {chr(10): '↵', ' ': '␣'}.get(characters[k], characters[k]) }</text>"
            f'<rect x="42" y="{y}" width="{260 * guess[k]:.1f}" height="9" fill="{COLOURS["output"]}"/>'
            f'<rect x="42" y="{y + 10}" width="{260 * truth[k]:.1f}" height="7" fill="#7A7A7A"/>'
            f'<text x="{50 + 260 * max(guess[k], truth[k]):.1f}" y="{y + 13}">{guess[k]:.2f} · {truth[k]:.2f}</text>'
        )
    legend = (
        f'<rect x="42" y="3" width="12" height="8" fill="{COLOURS["output"]}"/><text x="59" y="11">the model</text>'
        '<rect x="132" y="3" width="12" height="8" fill="#7A7A7A"/><text x="149" y="11">the truth</text>'
    )
    height = 24 * count + 24
    return (
        f'<svg role="img" aria-label="the likeliest next characters" viewBox="0 0 400 {height}" width="400" '
        f'height="{height}" font-size="12">{legend}{"".join(parts)}</svg>'
    )
