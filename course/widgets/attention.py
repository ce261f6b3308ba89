"""Lesson 18: a query among keys in the plane, why √d, one layer forwards and backwards, what heads look at."""

from functools import lru_cache
from html import escape

import numpy as np

from course.data.patterns import NAMES
from course.widgets import picture
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.losses import softmax
from course.widgets.predict import Predict
from course.widgets.weights import told, weights

COLOURS = picture.COLOURS
PAIRS = ("#1B7FBD", "#CC79A7", "#8C7A00")  # a key and its value share a colour


# --- the picture at the top ------------------------------------------------------------------------------------------


def diagram():
    """One query, four keys, their weights, and the mixture of four values."""
    words, scores = ("the", "cat", "sees", "mice"), np.array([-1.0, 2.2, -0.3, 0.9])
    middle, parts = 92, []
    for i, (word, score, weight) in enumerate(zip(words, scores, softmax(scores), strict=True)):
        y = 38 + 36 * i
        parts += [
            f'<path d="M92 {middle}L150 {y}" stroke="currentColor" opacity=".45"/>',
            _tag(150, y, f"key of “{word}”", COLOURS["input"], 112),
            f'<text x="312" y="{y + 4}" text-anchor="end">{picture.number(score)}</text>',
            f'<path d="M345 {y - 9}h{90 * weight:.1f}v18h-{90 * weight:.1f}z" fill="{COLOURS["input"]}"/>',
            f'<text x="{351 + 90 * weight:.1f}" y="{y + 4}">{told(weight)}</text>',
            _tag(455, y, f"value of “{word}”", COLOURS["input"], 122),
            f'<path d="M577 {y}L640 {middle}" stroke="{COLOURS["output"]}" stroke-width="{0.6 + 8 * weight:.1f}"/>',
        ]
    heads = ((206, "keys"), (295, "scores"), (375, "weights"), (516, "values"))
    titles = "".join(f'<text x="{x}" y="14" text-anchor="middle" opacity=".7">{text}</text>' for x, text in heads)
    parts += [
        _tag(4, middle, "query of “it”", COLOURS["input"], 88),
        _tag(640, middle, "output for “it”", COLOURS["output"], 96),
    ]
    alt = "A query is compared with four keys; the scores become weights; the output is a mixture of the four values"
    return (
        f'<svg role="img" aria-label="{alt}" viewBox="0 0 740 172" width="740" height="172" font-size="12">'
        f"{titles}{''.join(parts)}</svg>"
    )


def _tag(x, y, text, colour, width):
    return (
        f'<rect x="{x}" y="{y - 13}" width="{width}" height="26" rx="4" fill="{colour}" fill-opacity=".18" '
        f'stroke="{colour}"/><text x="{x + width / 2}" y="{y + 4}" text-anchor="middle">{escape(text)}</text>'
    )


# --- a query in the plane --------------------------------------------------------------------------------------------


def polar(length, degrees):
    angle = np.deg2rad(degrees)
    return length * np.array([np.cos(angle), np.sin(angle)])


def plane(angle, length, key, value, seen):
    """One query, three keys and three values in the plane, and which keys may be seen: q (1, 2), k, v (3, 2), mask."""
    k = np.stack([polar(2, key), polar(2, 140), polar(2, 260)])
    v = np.stack([polar(2, value), polar(2, 150), polar(1.6, 290)])
    return polar(length, angle)[None], k, v, np.array(seen)[None]


def vectors(attention_weights, attention_forward):
    """A query that turns among three keys, and the mixture of three values that comes out."""
    looks, attends = live(attention_weights), live(attention_forward)

    def computed(angle, length, key, value, seen):
        q, k, v, mask = plane(angle, length, key, value, seen)
        return q, k, v, q @ k.T / np.sqrt(2), looks(q, k, mask), attends(q, k, v, mask)

    def draw(angle, length, key, value, k0, k1, k2):
        q, k, v, scores, w, y = computed(angle, length, key, value, (k0, k1, k2))
        names, shown = [f"k{i}" for i in range(3)], (k0, k1, k2)
        arrows = [(k[i], names[i], PAIRS[i], 2.5, shown[i]) for i in range(3)]
        left = _plane([*arrows, (q[0], "q", "currentColor", 3.5, True)], "query and keys")
        arrows = [(v[i], f"v{i}", PAIRS[i], 0.6 + 6 * float(w[0, i]), True) for i in range(3)]
        right = _plane([*arrows, (y[0], "y", COLOURS["output"], 3.5, True)], "values and output", v)
        parts = (
            picture.piece(left, "query and keys", "input"),
            picture.piece(_bars(names, scores[0], w[0], shown), "scores and weights"),
            picture.piece(right, "values and output", "output"),
        )
        return picture.figure(picture.row(*parts), said(angle, length, key, value, k0, k1, k2))

    def said(angle, length, key, value, k0, k1, k2):
        *_, w, y = computed(angle, length, key, value, (k0, k1, k2))
        mixture = " + ".join(f"{told(share)} v{i}" for i, share in enumerate(w[0]))
        return f"y = {mixture} = ({picture.number(y[0, 0])}, {picture.number(y[0, 1])})"

    return Explorer(
        draw,
        alt=said,
        height=280,
        angle=slider("query: direction", 0, 360, 60, 10),
        length=slider("query: length", 0.0, 6.0, 1.5, 0.5),
        key=slider("key 0: direction", 0, 360, 20, 10),
        value=slider("value 0: direction", 0, 360, 30, 10),
        k0=toggle("key 0 may be seen", True),
        k1=toggle("key 1 may be seen", True),
        k2=toggle("key 2 may be seen", True),
    )


def _plane(arrows, alt, hull=None):
    """Arrows from the origin: (point, name, colour, width, whether it counts)."""
    half, scale = 120, 32

    def at(point):
        return f"{half + scale * np.clip(point[0], -3.6, 3.6):.1f} {half - scale * np.clip(point[1], -3.6, 3.6):.1f}"

    parts = [f'<path d="M0 {half}h{2 * half}M{half} 0v{2 * half}" stroke="currentColor" opacity=".2"/>']
    if hull is not None:
        parts.append(f'<path d="M{"L".join(map(at, hull))}z" fill="{COLOURS["output"]}" fill-opacity=".12"/>')
    for point, name, colour, width, counts in arrows:
        tip = np.asarray(point, float)
        outwards = tip / max(np.hypot(*tip), 0.3)
        beyond = tip + 0.45 * (outwards if name != "y" else outwards @ [[0, 1], [-1, 0]])  # beside the value it meets
        x, y = at(beyond).split()
        parts.append(
            f'<g opacity="{1 if counts else 0.25}"><path d="M{half} {half}L{at(tip)}" stroke="{colour}" '
            f'stroke-width="{width:.1f}" stroke-linecap="round"/><circle cx="{at(tip).split()[0]}" '
            f'cy="{at(tip).split()[1]}" r="4" fill="{colour}"/><text x="{x}" y="{y}" text-anchor="middle" '
            f'dominant-baseline="middle" font-weight="600">{name}</text></g>'
        )
    return (
        f'<svg role="img" aria-label="{alt}" viewBox="0 0 {2 * half} {2 * half}" width="{2 * half}" '
        f'height="{2 * half}" font-size="13">{"".join(parts)}</svg>'
    )


def _bars(names, scores, w, shown):
    """For each key its score and its weight, as numbers and as a bar."""
    rows = [
        f'<g opacity="{1 if seen else 0.35}"><text x="2" y="{48 + 34 * i}" font-weight="600">{name}</text>'
        f'<text x="78" y="{48 + 34 * i}" text-anchor="end">{picture.number(score) if seen else "−∞"}</text>'
        f'<path d="M92 {33 + 34 * i}h{max(80 * float(share), 1):.1f}v22H92z" fill="{colour}"/>'
        f'<text x="{98 + 80 * float(share):.1f}" y="{48 + 34 * i}">{told(share)}</text></g>'
        for i, (name, score, share, seen, colour) in enumerate(zip(names, scores, w, shown, PAIRS, strict=True))
    ]
    return (
        '<svg role="img" aria-label="scores and weights" viewBox="0 0 215 140" width="215" height="140" font-size="13">'
        '<text x="78" y="16" text-anchor="end" opacity=".7">q·k/√2</text><text x="92" y="16" opacity=".7">weight</text>'
        f"{''.join(rows)}</svg>"
    )


def guess_length(reference):
    """What becomes of the weights when the query grows?"""

    def reveal():
        lengths = 0.0, 1.0, 4.0, 16.0
        parts = []
        for length in lengths:
            q, k, _, mask = plane(60, length, 20, 30, (True, True, True))
            w = reference("attention_weights")(q, k, mask)[0]
            parts.append(
                picture.piece(_bars(("k0", "k1", "k2"), (q @ k.T)[0] / np.sqrt(2), w, [True] * 3), f"length {length:g}")
            )
        return picture.figure(
            picture.row(*parts),
            "The scores grow, their differences, too, and softmax looks at these: a long query decides, a short one "
            "hesitates, and one of length 0 takes the plain mean.",
        )

    return Predict(
        "A query points between two keys, a little nearer to one. It grows, and its direction stays. What do the "
        "weights do?",
        "the largest goes to 1",
        reveal,
        options=["nothing: only the direction counts", "they become equal", "the largest goes to 1"],
    )


# --- why √d ----------------------------------------------------------------------------------------------------------

SIZES = (1, 4, 16, 64, 256, 1024)


@lru_cache
def drawn():
    """400 queries and 16 keys of 1024 numbers with mean 0 and variance 1."""
    rng = np.random.default_rng(18)
    return rng.standard_normal((400, SIZES[-1])), rng.standard_normal((16, SIZES[-1]))


def saturation(size, divided):
    """Scores (400, 16) of queries and keys with `size` numbers, and the weights that they give."""
    queries, keys = drawn()
    scores = queries[:, :size] @ keys[:, :size].T
    scores = scores / np.sqrt(size) if divided else scores
    return scores, softmax(scores)


def slope(w):
    """How much a query's weights answer to its scores: the trace of the softmax's derivative, mean over the queries."""
    return float((w * (1 - w)).sum(-1).mean())


def scaling():
    """Random queries and keys: how their scores spread and what softmax makes of them."""

    def draw(size, divided):
        scores, w = saturation(size, divided)
        edges = np.linspace(-60, 60, 81)
        share, _ = np.histogram(scores, edges)
        left = picture.curve(
            {"scores": ((edges[:-1] + edges[1:]) / 2, share / scores.size, {"colour": COLOURS["input"]})},
            "how often each score occurs",
            x_label="score",
            x_range=(-60, 60),
            y_range=(0, 0.6),
            width=330,
            height=220,
            title="how often each score occurs",
        )
        right = picture.curve(
            {"weight": (np.arange(1, 17), np.sort(w)[:, ::-1].mean(0), {"colour": COLOURS["output"], "points": True})},
            "weights in descending order",
            x_label="largest weight, second, …",
            x_range=(1, 16),
            y_range=(0, 1),
            width=330,
            height=220,
            title="weights of a query, in descending order",
        )
        return picture.figure(picture.row(left, right), said(size, divided))

    def said(size, divided):
        scores, w = saturation(size, divided)
        return (
            f"d_k = {size}: the scores have standard deviation {scores.std():.2f}; a query's largest weight is "
            f"{w.max(-1).mean():.2f} on average, the softmax's slope {slope(w):.3f}."
        )

    return Explorer(
        draw,
        alt=said,
        height=300,
        size=choice("d_k", list(SIZES), 64),
        divided=toggle("divide by √d_k"),
    )


def guess_spread():
    """The standard deviation of a dot product."""

    def reveal():
        measured = [saturation(size, False)[0].std() for size in SIZES]
        powers = np.log10(SIZES)
        chart = picture.curve(
            {
                "measured": (powers, np.log10(measured), {"points": True, "line": False, "colour": COLOURS["input"]}),
                "√d": (powers, 0.5 * powers, {"dash": True, "colour": COLOURS["output"]}),
            },
            "standard deviation of the dot product against d, both as powers of ten",
            x_label="log₁₀ d",
            y_label="log₁₀ of the standard deviation",
            width=420,
            height=230,
        )
        found = ", ".join(f"{spread:.1f} (d = {size})" for size, spread in zip(SIZES, measured, strict=True))
        return picture.figure(chart, f"Measured on 6400 pairs each: {found}.")

    return Predict(
        "q and k are 64 independent random numbers each, with mean 0 and variance 1. Over many draws, what is the "
        "standard deviation of q · k?",
        8,
        reveal,
        tolerance=0.4,
    )


# --- one layer, both ways --------------------------------------------------------------------------------------------

KINDS = ("none", "causal", "padding", "causal and padding", "padding in front, causal", "three queries")


def layer_inputs(kind):
    """Small queries (t, 2), keys (5, 2), values (5, 3), and their mask, None for none."""
    rng = np.random.default_rng(7)
    q, k, v = (rng.integers(-2, 3, (5, width)).astype(float) for width in (2, 2, 3))
    causal, exists = np.tri(5, dtype=bool), np.tile(np.arange(5) < 3, (5, 1))
    mask = {
        "causal": causal,
        "padding": exists,
        "causal and padding": causal & exists,
        "padding in front, causal": causal & exists[:, ::-1],
    }.get(kind)
    return (q[:3] if kind == "three queries" else q), k, v, mask


def _labels(q, k):
    return [f"q{i}" for i in range(len(q))], [f"k{j}" for j in range(len(k))]


def one_layer(attention_weights, attention_forward, want_weights, want_forward):
    """Queries, keys and values of five tokens, the weights, the output, and how one of its rows comes about."""
    looks, attends = live(attention_weights), live(attention_forward)

    def draw(kind, row):
        q, k, v, mask = layer_inputs(kind)
        w, want = looks(q.copy(), k.copy(), mask), want_weights(q, k, mask)
        y, right = attends(q.copy(), k.copy(), v.copy(), mask), want_forward(q, k, v, mask)
        row = min(row, len(q) - 1)
        given = picture.row(
            picture.heat(q, "q", vmax=3, mark=[(row, j) for j in range(2)], role="input"),
            picture.heat(k, "k", vmax=3, role="input"),
            picture.heat(v, "v", vmax=3, role="input"),
        )
        tables = picture.row(
            picture.piece(weights(w, *_labels(q, k), mask=mask, want=want), "weights"),
            picture.operator("v ="),
            picture.compare(y, right, "y", vmax=3, mark=[(row, j) for j in range(3)], role="output"),
        )
        return picture.figure(given + tables, said(kind, row))

    def said(kind, row):
        q, k, v, mask = layer_inputs(kind)
        row = min(row, len(q) - 1)
        w, y = want_weights(q, k, mask)[row], want_forward(q, k, v, mask)[row]
        terms = " + ".join(f"{told(share)} v[{j}]" for j, share in enumerate(w) if share) or "nothing"
        allowed = "all keys" if mask is None else f"{mask[row].sum()} of {len(k)} keys"
        return f"Query {row} may see {allowed}: y[{row}] = {terms} = ({', '.join(map(picture.number, y))})."

    return Explorer(
        draw,
        alt=said,
        height=420,
        kind=choice("mask", KINDS, "causal"),
        row=slider("query", 0, 4, 2),
    )


def one_gradient(attention_backward, want_backward):
    """The gradients of a small layer when the upstream gradient is 1 at one output and 0 elsewhere."""
    mine = live(attention_backward)

    def computed(function, kind, row, column):
        q, k, v, mask = layer_inputs(kind)
        dy = np.zeros((len(q), 3))
        dy[min(row, len(q) - 1), column] = 1.0
        return dy, [np.asarray(part, float) for part in function(dy.copy(), q.copy(), k.copy(), v.copy(), mask)]

    def draw(kind, row, column):
        dy, got = computed(mine, kind, row, column)
        _, want = computed(want_backward, kind, row, column)
        parts = [
            picture.compare(part, right, name, vmax=1, role="gradient")
            for name, part, right in zip(("dq", "dk", "dv"), got, want, strict=True)
        ]
        tables = picture.row(picture.heat(dy, "dy", vmax=1, role="gradient"), picture.operator("→"), *parts)
        return picture.figure(tables, said(kind, row, column))

    def said(kind, row, column):
        dy, want = computed(want_backward, kind, row, column)
        rows = [[str(i) for i in np.flatnonzero(np.abs(part).max(1) > 1e-12)] for part in want]
        reached = "; ".join(
            f"{name} in row{'s' * (len(found) > 1)} {', '.join(found)}" if found else f"{name} nowhere"
            for name, found in zip(("dq", "dk", "dv"), rows, strict=True)
        )
        return f"dy is 1 at query {int(dy.sum(1).argmax())}. Gradient arrives: {reached}."

    return Explorer(
        draw,
        alt=said,
        height=260,
        kind=choice("mask", KINDS),
        row=slider("row of dy", 0, 4, 2),
        column=slider("column of dy", 0, 2, 0),
    )


# --- without positions -----------------------------------------------------------------------------------------------


def guess_shuffled(reference):
    """What becomes of the output when the tokens come in another order?"""

    def reveal():
        rng = np.random.default_rng(3)
        x, order = rng.standard_normal((1, 4, 3)), [2, 0, 3, 1]
        matrices = [rng.standard_normal((3, 3)) for _ in range(4)]
        before, after = (reference("multi_head_attention_forward")(part, *matrices, 1)[0] for part in (x, x[:, order]))
        tables = picture.row(
            picture.heat(before, "output", rows=range(4), role="output"),
            picture.heat(after, "output after shuffling", rows=order, role="output"),
        )
        return picture.figure(tables, "The same four rows, each where its token has gone.")

    return Predict(
        "A self-attention layer without mask gets its tokens in another order. What becomes of its output?",
        "the same rows, in the new order",
        reveal,
        options=["it stays as it was", "the same rows, in the new order", "other rows"],
    )


# --- what heads look at ----------------------------------------------------------------------------------------------


def heads(samples, answer, masses, steps):
    """What two heads look at in five tasks, while they learn, and what is answered without one of them.

    samples  {task: Pattern}
    answer   (task, which of the steps, heads that are on) -> weights (N, heads, T_q, T_k), classes (N, T_q)
    masses   (weights (N, heads, T_q, T_k), Pattern) -> the share of each head's weight on the right keys
    steps    how many training steps each snapshot has seen
    """

    @lru_cache(maxsize=256)
    def found(task, moment, on):
        w, classes = answer(task, moment, list(on))
        pattern = samples[task]
        asked = pattern.targets >= 0
        return w, classes, float((classes == pattern.targets)[asked].mean()), masses(w, pattern)

    def state(task, moment, first, second):
        return found(task, moment, tuple(k for k, on in enumerate((first, second)) if on))

    def draw(task, moment, example, first, second):
        pattern = samples[task]
        w, classes, _, _ = state(task, moment, first, second)
        queries, keys = pattern.query_labels[example], pattern.key_labels[example]
        off = [k for k, on in enumerate((first, second)) if not on]
        html = weights(w[example], queries, keys, right=pattern.right[example], mask=pattern.mask[example], off=off)
        return picture.figure(
            html + _answers(task, queries, pattern.targets[example], classes[example]),
            said(task, moment, example, first, second),
        )

    def said(task, moment, example, first, second):
        _, _, accuracy, shares = state(task, moment, first, second)
        mass = " and ".join(f"{share:.2f}" for share in shares)
        return (
            f"{task}, after {steps[moment]} training steps: {accuracy:.0%} of the answers are right; {mass} of the "
            f"weight lies on the outlined keys."
        )

    return Explorer(
        draw,
        alt=said,
        height=430,
        task=choice("task", list(samples), "sort"),
        moment=slider("snapshot", 0, len(steps) - 1, len(steps) - 1),
        example=slider("example", 0, min(len(pattern.targets) for pattern in samples.values()) - 1, 0),
        first=toggle("head 0 on", True),
        second=toggle("head 1 on", True),
    )


def _answers(task, queries, targets, classes):
    """What was asked, what was answered; wrong answers outlined."""
    names, asked = NAMES[task], np.flatnonzero(targets >= 0)
    cells = ""
    for got, want in zip(classes[asked], targets[asked], strict=True):
        kind, wish = ("", "") if got == want else (" class=lbl-differs", f"<small>want {escape(names[want])}</small>")
        cells += f'<td{kind} style="min-width:22px;background:none">{escape(names[got])}{wish}</td>'
    head = "".join(f"<th scope=col>{escape(queries[i])}</th>" for i in asked)
    rows = f"<tr><th scope=row>query</th>{head}</tr><tr><th scope=row>answer</th>{cells}</tr>"
    return picture.piece(f'<table class="lbl-heat">{rows}</table>')
