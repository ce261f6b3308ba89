"""Lesson 17: cells as drawings, a memory set by hand, gradients through time, gates over time, runs and forecasts."""

from functools import lru_cache

import numpy as np

from course.data.memory import notepad
from course.widgets import picture
from course.widgets.chart import amount, powers, several
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.predict import Predict

COLOURS = picture.COLOURS
GATES = {"input i": "#1B7FBD", "forget f": "#CC79A7", "output o": "#009E73"}
NETWORKS = {
    "RNN": "#7A7A7A",
    "RNN, orthogonal": "#56B4E9",
    "LSTM": "#E69F00",
    "LSTM, forget bias": "#CC79A7",
    "GRU, update bias": "#009E73",
}


def sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(z, float)))


# --- drawings --------------------------------------------------------------------------------------------------------


def cells():
    """An LSTM step and a GRU step as drawings, the old state on the left, the new one on the right."""
    return picture.row(_lstm_cell(), _gru_cell())


def _lstm_cell():
    parts = [
        _arrow("M34 50H350", COLOURS["output"], 3),
        _text(20, 54, "c"),
        _text(368, 54, "c'"),
        '<path d="M34 210H60" stroke="currentColor" stroke-width="1.6"/>',
        _text(20, 214, "h"),
        _arrow("M60 262V212", "currentColor"),
        _text(60, 280, "x", COLOURS["input"]),
        '<path d="M60 210H266" stroke="currentColor" stroke-width="1.6"/>',
    ]
    for x, name in ((88, "f"), (146, "i"), (206, "g"), (266, "o")):
        parts += [_arrow(f"M{x} 210V184", "currentColor"), _gate(x, 170, name, "tanh" if name == "g" else "σ")]
    parts += [
        _arrow("M88 156V64", "currentColor"),
        _circle(88, 50, "×"),
        _arrow("M146 156V124H163", "currentColor"),
        _arrow("M206 156V124H189", "currentColor"),
        _circle(176, 124, "×"),
        _arrow("M176 111V64", "currentColor"),
        _circle(176, 50, "+"),
        _arrow("M322 50V91", "currentColor"),
        _box(322, 104, "tanh"),
        _arrow("M322 116V157", "currentColor"),
        _arrow("M288 170H309", "currentColor"),
        _circle(322, 170, "×"),
        _arrow("M335 170H354", "currentColor"),
        _text(368, 174, "h'"),
    ]
    return _drawing(parts, "LSTM: two states", "The cell state c runs straight through, times f, plus i times g. "
                    "h' is o times tanh of it. All four gates see x and h.")  # fmt: skip


def _gru_cell():
    parts = [
        _arrow("M34 50H350", COLOURS["output"], 3),
        _text(20, 54, "h"),
        _text(368, 54, "h'"),
        _arrow("M60 262V212", "currentColor"),
        _text(60, 280, "x", COLOURS["input"]),
        '<path d="M46 50V210H60" fill="none" stroke="currentColor" stroke-width="1.6"/>',
        '<path d="M60 210H266" stroke="currentColor" stroke-width="1.6"/>',
    ]
    for x, name in ((110, "z"), (182, "r"), (266, "n")):
        parts += [_arrow(f"M{x} 210V184", "currentColor"), _gate(x, 170, name, "tanh" if name == "n" else "σ")]
    parts += [
        _arrow("M110 156V64", "currentColor"),
        _circle(110, 50, "×"),
        _arrow("M205 170H235", "currentColor"),
        _text(219, 163, "×"),
        _arrow("M266 156V116", "currentColor"),
        _circle(266, 103, "×"),
        _arrow("M122 103H253", "currentColor"),
        _text(186, 97, "1 − z"),
        '<path d="M110 103H124" stroke="currentColor" stroke-width="1.6"/>',
        _arrow("M266 90V64", "currentColor"),
        _circle(266, 50, "+"),
    ]
    return _drawing(parts, "GRU: one state", "The state h runs straight through, times z, plus 1 − z times n. The "
                    "reset gate r decides how much of the old state n gets to see.")  # fmt: skip


def _drawing(parts, title, alt):
    svg = (
        f'<svg role="img" aria-label="{alt}" viewBox="0 0 390 290" width="370" height="275" font-size="14">'
        f'<defs><marker id="lbl-tip17" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>{"".join(parts)}</svg>'
    )
    return picture.piece(svg, title)


def _arrow(path, colour, width=1.6):
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" marker-end="url(#lbl-tip17)"/>'


def _text(x, y, text, colour="currentColor"):
    return f'<text x="{x}" y="{y}" text-anchor="middle" font-weight="600" style="fill:{colour}">{text}</text>'


def _gate(x, y, name, squash):
    colour, half = COLOURS["parameter"], 30 if squash == "tanh" else 22
    return (
        f'<rect x="{x - half}" y="{y - 14}" width="{2 * half}" height="28" rx="4" fill="{colour}" fill-opacity=".22" '
        f'stroke="{colour}"/><text x="{x}" y="{y + 5}" text-anchor="middle"><tspan font-weight="600">{name}</tspan> '
        f'<tspan font-size="11">{squash}</tspan></text>'
    )


def _box(x, y, text):
    return (
        f'<rect x="{x - 22}" y="{y - 12}" width="44" height="24" rx="4" fill="none" stroke="#8a949b"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-size="12">{text}</text>'
    )


def _circle(x, y, text):
    return (
        f'<circle cx="{x}" cy="{y}" r="12" fill="#fff" stroke="#555"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle" style="fill:#111" font-size="16">{text}</text>'
    )


# --- a question ------------------------------------------------------------------------------------------------------


def guess_decay():
    """Predict: what a forget gate that looks nearly open leaves after a hundred steps."""

    def reveal():
        steps = np.arange(101)
        lines = {f"f = {f:g}": (steps, steps * np.log10(f)) for f in (0.5, 0.9, 0.99, 0.999)}
        chart = picture.curve(
            lines,
            "what is left of a memory over 100 steps for four forget gates, on a logarithmic scale",
            x_label="steps",
            x_range=(0, 100),
            y_range=(-6, 0.3),
            width=420,
            height=230,
        )
        return picture.row(powers(chart, "end")) + picture.note(
            "0.9 to the power of 100 is 0.000027. To keep one half over 100 steps, f has to be 0.993."
        )

    return Predict(
        "A cell multiplies what it remembers by f = 0.9 at every step, and adds nothing. What is left after 100 steps?",
        answer="0.003 %",
        options=["90 %", "10 %", "1 %", "0.003 %"],
        reveal=reveal,
    )


# --- a memory set by hand --------------------------------------------------------------------------------------------

STEPS = 24


@lru_cache(maxsize=16)
def page(number):
    """One sequence of the notepad: x (1, STEPS, 2), y (STEPS,)."""
    x, y = notepad(1, STEPS, np.random.default_rng([17, number]))
    return x, y[0]


def hand_set(keep, flag_forgets, write, flag_writes):
    """The weights of an LSTM of one unit: i, f, g, o from the value and the flag."""
    w_x = np.array([[0.0, flag_writes], [0.0, -flag_forgets], [3.0, 0.0], [0.0, 0.0]])
    return w_x, np.zeros((4, 1)), np.array([write, keep, 0.0, 6.0])


def gates_of(x, hs, w_x, w_h, b):
    """i, f, g, o (4, T, H) of one sequence x (1, T, D) whose hidden states before each step were hs (1, T, H)."""
    z = x[0] @ w_x.T + hs[0] @ w_h.T + b
    i, f, g, o = np.split(z, 4, axis=1)
    return np.stack([sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)])


def cell_states(gates, c=0.0):
    """c (T, H) from the gates (4, T, H): what is kept, plus what is written."""
    states = []
    for i, f, g, _ in gates.swapaxes(0, 1):
        c = f * c + i * g
        states.append(c)
    return np.array(states)


def remembered(number, *settings):
    """For a unit set by hand: the sequence, what it should hold, its gates (4, STEPS), its cell state (STEPS,)."""
    x, y = page(number)
    w_x, w_h, b = hand_set(*settings)
    gates = gates_of(x, np.zeros((1, STEPS, 1)), w_x, w_h, b)
    return x[0], y, gates[..., 0], cell_states(gates)[:, 0]


def by_hand():
    """One LSTM unit whose gates are set by sliders: it should hold the value that was flagged last."""

    def draw(keep, flag_forgets, write, flag_writes, number):
        x, y, gates, c = remembered(number, keep, flag_forgets, write, flag_writes)
        charts = memory_chart(x, y, {"c": (c, COLOURS["output"])}, (-2.2, 2.2)), gate_chart(gates)
        return picture.figure(picture.row(*charts), said(keep, flag_forgets, write, flag_writes, number))

    def said(keep, flag_forgets, write, flag_writes, number):
        x, y, gates, c = remembered(number, keep, flag_forgets, write, flag_writes)
        noise = x[:, 1] == 0
        error = np.sqrt(np.mean(np.square(c - y)))
        return (
            f"Forget gate {gates[1][noise].mean():.2f} without a flag, {gates[1][~noise].mean():.2f} at a flag; input "
            f"gate {gates[0][noise].mean():.2f} and {gates[0][~noise].mean():.2f}. The cell is off by {error:.2f} "
            "(root mean square; always 0 would be off by about 1)."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        keep=slider("forget bias", -6.0, 6.0, 0.0, 1.0),
        flag_forgets=slider("a flag lowers f by", 0.0, 12.0, 0.0, 1.0),
        write=slider("input bias", -6.0, 6.0, 0.0, 1.0),
        flag_writes=slider("a flag raises i by", 0.0, 12.0, 0.0, 1.0),
        number=slider("another sequence", 0, 5, 0),
    )


def memory_chart(x, y, lines, y_range, width=400):
    """What is to be remembered, as steps, the values that come in, the flagged ones as rings, and some lines more."""
    at = np.arange(len(y))
    edge = np.repeat(at, 2)[1:], np.repeat(y, 2)[:-1]
    flagged = x[:, 1] > 0
    series = {
        "noise": (at[~flagged], x[~flagged, 0], {"colour": "#9a9a9a", "line": False, "points": True}),
        "written": (at[flagged], x[flagged, 0], {"colour": COLOURS["wrong"], "line": False, "points": True}),
        "to be held": (*edge, {"colour": "#7A7A7A", "dash": True}),
    }
    series |= {name: (at, value, {"colour": colour}) for name, (value, colour) in lines.items()}
    return picture.curve(
        series,
        "the values that come in, what should be held, and what is held",
        x_label="step",
        x_range=(-0.5, len(y) - 0.5),
        y_range=y_range,
        width=width,
        height=240,
    )


def gate_chart(gates, width=400):
    """The three gates over time."""
    at = np.arange(gates.shape[1])
    lines = {
        name: (at, gate, {"colour": colour})
        for (name, colour), gate in zip(GATES.items(), (gates[0], gates[1], gates[3]), strict=True)
    }
    return picture.curve(
        lines,
        "the gates over time, 0 is shut and 1 is open",
        x_label="step",
        x_range=(-0.5, len(at) - 0.5),
        y_range=(-0.05, 1.05),
        width=width,
        height=240,
    )


# --- one step --------------------------------------------------------------------------------------------------------


@lru_cache
def step_inputs():
    """x (1, 2), h and c (1, 3) and the parameters of a small LSTM."""
    rng = np.random.default_rng(5)
    return [rng.normal(size=size).round(1) for size in ((1, 2), (1, 3), (1, 3), (12, 2), (12, 3), 12)]


def one_step(forward, want):
    """One LSTM step in numbers: four gates for each of three units, and the two states they make."""
    mine = live(forward)

    def given(first, bias, scale):
        x, h, c, w_x, w_h, b = (value.copy() for value in step_inputs())
        x[0, 0], h = first, scale * h
        b[3:6] += bias
        return x, h, c, w_x, w_h, b

    def draw(first, bias, scale):
        inputs = given(first, bias, scale)
        x, h, c, w_x, w_h, b = inputs
        gates = gates_of(x[None], h[None], w_x, w_h, b)[:, 0]
        got = mine(*(value.copy() for value in inputs))
        new = [np.asarray(part, float) for part in want(*inputs)]
        units = dict(columns=["unit 0", "unit 1", "unit 2"])
        states = picture.row(
            picture.heat(c, "c", vmax=2, role="output", **units),
            picture.operator("→"),
            picture.compare(got[1], new[1], "c' = f c + i g", vmax=2, role="output", **units),
            picture.operator("→"),
            picture.compare(got[0], new[0], "h' = o tanh c'", vmax=1, role="output", **units),
        )
        inside = picture.row(
            picture.heat(x, "x", vmax=2, role="input"),
            picture.heat(h, "h", vmax=2, role="output"),
            picture.operator("→"),
            picture.heat(gates, "gates", vmax=1, rows=["i", "f", "g", "o"], tips=tips(gates), **units),
        )
        gap = '<div style="height:14px"></div>'
        return picture.figure(inside + gap + states, said(first, bias, scale))

    def tips(gates):
        names = "input gate: how much of g is written", "forget gate: how much of c stays", "candidate: what is written"
        names += ("output gate: how much of tanh c' is shown",)
        return lambda i, j: f"unit {j}, {names[i]}: {picture.number(gates[i, j], 3)}"

    def said(first, bias, scale):
        x, h, c, *params = given(first, bias, scale)
        gates = gates_of(x[None], h[None], *params)[:, 0]
        kept = "; ".join(f"unit {k} keeps {f:.0%} of {picture.number(old)}" for k, (f, old) in enumerate(
            zip(gates[1], c[0], strict=True)))  # fmt: skip
        return f"{kept}."

    return Explorer(
        draw,
        alt=said,
        height=390,
        first=slider("x[0]", -2.0, 2.0, 0.5, 0.25),
        bias=slider("forget bias +", -6.0, 6.0, 0.0, 0.5),
        scale=slider("h ×", 0.0, 2.0, 1.0, 0.25),
    )


# --- gradients through time ------------------------------------------------------------------------------------------

WIDTH, LONGEST = 12, 40


@lru_cache(maxsize=4)
def chain(number):
    """Standard normal numbers for a recurrent layer of WIDTH units, an input for LONGEST steps, a last gradient."""
    rng = np.random.default_rng([3, number])
    w_h, w_x = rng.standard_normal((4 * WIDTH, WIDTH)), rng.standard_normal((4 * WIDTH, 2))
    x, last = rng.standard_normal((1, LONGEST, 2)), rng.standard_normal((1, WIDTH))
    return w_x, w_h, x, last / np.linalg.norm(last)


def lstm_gradients(bias, scale, number, steps, backward):
    """|dc| after 0 … steps steps back from the last cell state, and the same along the cell state alone.

    The second is the product of the forget gates, times the gradient at the end.
    """
    w_x, w_h, x, last = chain(number)
    w_h, b = scale / WIDTH**0.5 * w_h, np.repeat([0.0, bias, 0.0, 0.0], WIDTH)
    h = c = np.zeros((1, WIDTH))
    before, forget = [], []
    for t in range(steps):
        i, f, g, o = gates_of(x[:, t : t + 1], h[:, None], w_x, w_h, b)[:, 0]
        before.append((h, c))
        c = f * c + i * g
        h = o * np.tanh(c)
        forget.append(f)
    dh, dc, product = np.zeros((1, WIDTH)), last, last[0]
    whole, direct = [1.0], [1.0]
    for t in range(steps - 1, -1, -1):
        _, dh, dc, *_ = backward(dh, dc, x[:, t], *before[t], w_x, w_h, b)
        product = product * forget[t]
        whole.append(float(np.linalg.norm(dc)))
        direct.append(float(np.linalg.norm(product)))
    return np.array(whole), np.array(direct)


def rnn_gradients(scale, number, steps):
    """|dh| after 0 … steps steps back through tanh(x w_xᵀ + h w_hᵀ) with weights of the same size."""
    w_x, w_h, x, dh = chain(number)
    w_x, w_h, h, slopes = w_x[:WIDTH], scale / WIDTH**0.5 * w_h[:WIDTH], np.zeros((1, WIDTH)), []
    for t in range(steps):
        h = np.tanh(x[:, t] @ w_x.T + h @ w_h.T)
        slopes.append(1 - h**2)
    sizes = [1.0]
    for slope in slopes[::-1]:
        dh = dh * slope @ w_h
        sizes.append(float(np.linalg.norm(dh)))
    return np.array(sizes)


def decades(chart):
    """A chart drawn over logarithms to base 10; far powers of ten are written short, since there is little room."""
    chart = powers(chart, "end")
    for long, short in {"1e-05": "1e−5", "1e-10": "1e−10", "100000": "1e5"}.items():
        chart = chart.replace(f">{long}<", f">{short}<")
    return chart


def flow(backward, want):
    """How a gradient shrinks or grows on its way back: an LSTM's cell state, its forget gates alone, and an RNN."""
    mine = live(backward)

    @lru_cache(maxsize=32)
    def right(*values):
        return lstm_gradients(*values, want)

    def draw(bias, scale, steps, number):
        whole, direct = lstm_gradients(bias, scale, number, steps, mine)
        wanted, _ = right(bias, scale, number, steps)
        at = np.arange(steps + 1)
        lines = {
            "LSTM": (whole, {"colour": COLOURS["gradient"]}),
            "its forget gates alone": (direct, {"colour": "#CC79A7", "dash": True}),
            "RNN": (rnn_gradients(scale, number, steps), {"colour": NETWORKS["RNN"]}),
        }
        if picture.differs(whole, wanted).any():
            lines["LSTM: reference"] = wanted, {"colour": COLOURS["wrong"], "dash": True}
        chart = picture.curve(
            {name: (at, np.log10(np.maximum(size, 1e-12)), style) for name, (size, style) in lines.items()},
            said(bias, scale, steps, number),
            x_label="steps back",
            x_range=(0, steps),
            y_range=(-10, 5),
            width=580,
            height=290,
            role="gradient",
        )
        return picture.figure(picture.row(decades(chart)), said(bias, scale, steps, number))

    def said(bias, scale, steps, number):
        whole, direct = right(bias, scale, number, steps)
        return (
            f"A gradient of size 1 at the last state; {steps} steps earlier the LSTM's cell state gets "
            f"{amount(whole[-1], 2)}, along the forget gates alone {amount(direct[-1], 2)}, the RNN's state "
            f"{amount(rnn_gradients(scale, number, steps)[-1], 2)}."
        )

    return Explorer(
        draw,
        alt=said,
        height=380,
        bias=slider("forget bias", -2.0, 6.0, 0.0, 0.5),
        scale=slider("recurrent weights ×", 0.0, 8.0, 0.5, 0.5),
        steps=slider("steps", 5, LONGEST, LONGEST, 5),
        number=slider("other weights", 0, 5, 0),
    )


# --- a trained network -----------------------------------------------------------------------------------------------

# What is done to which gate of a trained network: the gate's number, its value, whether in all units or in one.
HELD = {
    "as trained": None,
    "all f = 1": (1, 1.0, True),
    "all f = 0": (1, 0.0, True),
    "all i = 1": (0, 1.0, True),
    "unit silent": (3, 0.0, False),
}


def trained_run(params, number, held="as trained", unit=0):
    """A sequence of the notepad through a trained LSTM, some gates held: x, y, answer (STEPS,), gates, c (STEPS, H).

    params  w_x (4H, 2), w_h (4H, H), b (4H,), and the readout's weights (1, H) and bias (1,)
    """
    w_x, w_h, b, w_out, b_out = params
    x, y = page(number)
    h = c = np.zeros((1, w_h.shape[1]))
    gates, states, shown = [], [], []
    for t in range(STEPS):
        now = gates_of(x[:, t : t + 1], h[:, None], w_x, w_h, b)[:, 0]
        if HELD[held]:
            gate, value, everywhere = HELD[held]
            now[gate, slice(None) if everywhere else unit] = value
        i, f, g, o = now
        c = f * c + i * g
        h = o * np.tanh(c)
        gates.append(now)
        states.append(c[0])
        shown.append(h[0])
    answer = np.array(shown) @ w_out[0] + b_out[0]
    return x[0], y, answer, np.array(gates).swapaxes(0, 1), np.array(states)


def gates_over_time(params):
    """What a trained LSTM answers, and the gates of one of its units, step by step; a gate may be held."""
    params = [np.asarray(value, float) for value in params]
    width = params[1].shape[1]
    usual = np.max([np.abs(trained_run(params, number)[4]).max(axis=0) for number in range(6)], axis=0)

    def draw(number, unit, held):
        x, y, answer, gates, c = trained_run(params, number, held, unit)
        top = 1.1 * max(usual[unit], np.abs(c[:, unit]).max())
        charts = (
            memory_chart(x, y, {"answer": (answer, COLOURS["input"])}, (-1.9, 1.9)),
            gate_chart(gates[:, :, unit]),
            picture.curve(
                {f"cell state of unit {unit}": (np.arange(STEPS), c[:, unit], {"colour": COLOURS["output"]})},
                f"the cell state of unit {unit}",
                x_label="step",
                x_range=(-0.5, STEPS - 0.5),
                y_range=(-top, top),
                width=400,
                height=190,
            ),
        )
        return picture.figure(picture.row(*charts), said(number, unit, held))

    def said(number, unit, held):
        x, y, answer, gates, _ = trained_run(params, number, held, unit)
        flag = x[:, 1] > 0
        told = [f"{name} {gates[k, flag, unit].mean():.2f} at flags, {gates[k, ~flag, unit].mean():.2f} elsewhere"
                for k, name in ((0, "i"), (1, "f"))]  # fmt: skip
        return (
            f"Gates: {held}. The answer is off by {np.sqrt(np.mean(np.square(answer - y))):.2f} (root mean "
            f"square). Unit {unit}: {'; '.join(told)}."
        )

    return Explorer(
        draw,
        alt=said,
        height=490,
        number=slider("sequence", 0, 5, 0),
        unit=slider("unit", 0, width - 1, 0),
        held=choice("gates", list(HELD)),
    )


# --- runs ------------------------------------------------------------------------------------------------------------


def training(curves, rights):
    """Many runs: their losses {task: {network: (steps, seeds)}}, their right answers {task: {network: (seeds,)}}."""

    def smooth(runs):
        cut = np.asarray(runs, float)[: len(runs) // 5 * 5]
        return cut.reshape(-1, 5, cut.shape[1]).mean(1)

    def draw(task, network):
        lines = {}
        for name, runs in curves[task].items():
            if network in ("all", name):
                means = smooth(runs)
                lines[name] = (
                    *several(5 * np.arange(len(means)) + 2.5, means.T),
                    {"colour": NETWORKS[name], "points": len(means) < 3},
                )
        chart = picture.curve(
            lines,
            f"training loss of {len(lines)} networks, one line for each seed",
            x_label="training step",
            y_label="loss",
            y_range=(0, 1),
            width=580,
            height=290,
        )
        return picture.figure(picture.row(chart), said(task, network))

    def said(task, network):
        told = []
        for name, right in rights[task].items():
            if network in ("all", name):
                solved = int((np.asarray(right) > 0.9).sum())
                told.append(f"{name} {solved} of {len(right)}")
        return (
            f"{task}. Seeds that end with more than 90 % right: {'; '.join(told)}. A loss of 0.69 is knowing nothing."
        )

    names = ["all", *next(iter(curves.values()))]
    return Explorer(
        draw,
        alt=said,
        height=380,
        task=choice("task", list(curves), list(curves)[-1]),
        network=choice("network", names),
    )


# --- forecasts -------------------------------------------------------------------------------------------------------


def split(times, series, spans):
    """A series in its parts {name: (start, stop)}, told apart by colour."""
    colours = (NETWORKS["RNN"], COLOURS["gradient"], COLOURS["input"])
    lines = {
        name: (times[start - 1 : stop], series[start - 1 : stop], {"colour": colour})
        for (name, (start, stop)), colour in zip(spans.items(), colours, strict=True)
    }
    return picture.curve(lines, f"a series from {times[0]} to {times[-1]}, split by time", width=680, height=190)


def forecasts(times, series, made):
    """A series and what several models forecast of it, each value one step before it came: {model: (T,)}."""
    span = min(40, len(times))
    top = 1.1 * max(np.max(series), *(np.max(value) for value in made.values()))
    low = min(0.0, 1.1 * np.min(series))

    def draw(model, beside, first):
        part = slice(first, first + span)
        lines = {"observed": (times[part], series[part], {"colour": "#7A7A7A", "points": True})}
        for name, colour in ((model, COLOURS["input"]), (beside, COLOURS["gradient"])):
            if name in made:
                lines[name] = times[part], made[name][part], {"colour": colour}
        chart = picture.curve(
            lines,
            said(model, beside, first),
            x_range=(times[first], times[part][-1] + 2),
            y_range=(low, top),
            width=620,
            height=270,
        )
        return picture.figure(picture.row(chart), said(model, beside, first))

    def said(model, beside, first):
        part = slice(first, first + span)
        told = []
        for name in dict.fromkeys((model, beside)):
            if name in made:
                error = np.sqrt(np.mean(np.square(made[name][part] - series[part])))
                told.append(f"{name} off by {error:.1f}")
        return f"{times[first]} to {times[part][-1]}: {', '.join(told)} (root mean square)."

    return Explorer(
        draw,
        alt=said,
        height=340,
        model=choice("forecast", list(made)),
        beside=choice("beside", ["nothing", *list(made)[1:]], "nothing"),
        first=slider("from place", 0, len(times) - span, 0),
    )
