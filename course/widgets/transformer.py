"""Lesson 19: blocks as drawings, word order, positions as waves and as turning hands, one block's gradient, sampling,
two ways to guess a word, and the alignment of a translation."""

from functools import lru_cache
from html import escape

import numpy as np

from course.data import text, translation
from course.widgets import picture
from course.widgets.chart import with_reference
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict
from course.widgets.weights import weights

COLOURS = picture.COLOURS
KINDS = {"none": "#7A7A7A", "learned": "#E69F00", "sinusoidal": "#1B7FBD", "rotary": "#009E73"}


# --- drawings of blocks ----------------------------------------------------------------------------------------------

# From the bottom to the top. A skip starts at "fork" and ends at the next "+".
BLOCKS = {
    "post-norm (2017)": ("fork", "attention", "+", "norm", "fork", "feed-forward", "+", "norm"),
    "pre-norm": ("fork", "norm", "attention", "+", "fork", "norm", "feed-forward", "+"),
    "decoder, pre-norm": ("fork", "norm", "attention", "+", "fork", "norm", "cross-attention", "+",
                          "fork", "norm", "feed-forward", "+"),
}  # fmt: skip


def diagram(name):
    """One kind of block as a drawing, x at the bottom, y at the top."""
    parts, middle, side, y, fork = [], 66, 140, 372, 0
    left = -62 if "cross-attention" in BLOCKS[name] else 0  # room for what comes in from the side
    parts.append(_label(middle, 388, "x", COLOURS["input"]))
    for part in BLOCKS[name]:
        if part == "fork":
            parts.append(_line(middle, y, middle, y - 8))
            fork = y = y - 8
            continue
        parts.append(_line(middle, y, middle, y - 13))
        y -= 24
        if part == "+":
            parts.append(
                f'<path d="M{middle} {fork}H{side}V{y}H{middle + 10}" fill="none" stroke="{COLOURS["right"]}" '
                'stroke-width="3"/>'
            )
        if part == "cross-attention":
            parts.append(_line(-4, y, middle - 52, y) + f'<text x="-58" y="{y + 4}">memory</text>')
        parts.append(_box(middle, y, part))
        y -= 11
    parts += [_line(middle, y, middle, y - 10), _label(middle, y - 14, "y", COLOURS["output"])]
    top = y - 28
    told = f"{name}: from x to y through {', '.join(part for part in BLOCKS[name] if part != 'fork')}"
    svg = (
        f'<svg role="img" aria-label="{escape(told)}" viewBox="{left} {top} {152 - left} {394 - top}" '
        f'width="{152 - left}" height="{394 - top}" font-size="12.5">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, name)


def _line(x, y, u, v):
    return f'<path d="M{x} {y}L{u} {v}" stroke="currentColor" stroke-width="1.6"/>'


def _label(x, y, said, colour):
    return f'<text x="{x}" y="{y}" text-anchor="middle" font-weight="600" style="fill:{colour}">{said}</text>'


def _box(x, y, part):
    half = 10 if part == "+" else 52
    colour = COLOURS["parameter"] if part not in ("+", "norm") else "#8a949b"
    return (
        f'<rect x="{x - half}" y="{y - 11}" width="{2 * half}" height="22" rx="{11 if part == "+" else 4}" '
        f'fill="{colour}" fill-opacity=".22" stroke="{colour}"/>'
        f'<text x="{x}" y="{y + 4}" text-anchor="middle">{part}</text>'
    )


def diagrams(*names):
    """Several kinds of block side by side."""
    return picture.row(*map(diagram, names))


# --- word order ------------------------------------------------------------------------------------------------------

WORDS = ("dog", "bites", "man")
ORDERS = {"dog bites man": (0, 1, 2), "man bites dog": (2, 1, 0), "dog man bites": (0, 2, 1)}
D = 4


@lru_cache
def small_block():
    """Vectors for the three words (3, D), and the parameters of a block with two heads."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(3, D))
    matrices = [rng.normal(0, 0.8, (D, D)) for _ in range(4)]
    w1, w2 = rng.normal(0, 0.5, (2 * D, D)), rng.normal(0, 0.5, (D, 2 * D))
    ones, zeros = np.ones(D), np.zeros(D)
    return vectors, (ones, zeros, *matrices, ones, zeros, w1, np.zeros(2 * D), w2, zeros)


def meanings(reference, order, positions, masked):
    """What the block makes of each word (3, D), in the order of WORDS, when they stand in this order."""
    vectors, parameters = small_block()
    x = vectors[list(order)]
    if positions:
        x = x + reference("sinusoidal_positions")(len(order), D)
    mask = np.tri(len(order), dtype=bool) if masked else None
    y = np.empty_like(x)
    y[list(order)] = reference("transformer_block_forward")(x[None], *parameters, 2, mask)[0]
    return y


def order(reference):
    """The same three words in another order: which outputs change?"""

    def draw(said, positions, masked):
        first, now = (meanings(reference, ORDERS[order], positions, masked) for order in ("dog bites man", said))
        moved = [tuple(cell) for cell in np.argwhere(np.abs(first - now) > 1e-9)]
        tables = picture.row(
            picture.heat(first, "outputs in “dog bites man”", vmax=4, rows=WORDS, role="output"),
            picture.heat(now, f"outputs in “{said}”", vmax=4, rows=WORDS, mark=moved, role="output"),
        )
        return picture.figure(tables, told(said, positions, masked))

    def told(said, positions, masked):
        first, now = (meanings(reference, ORDERS[order], positions, masked) for order in ("dog bites man", said))
        changed = [word for word, one, two in zip(WORDS, first, now, strict=True) if np.abs(one - two).max() > 1e-9]
        how = f"{'With' if positions else 'Without'} positions, {'with' if masked else 'without'} a causal mask"
        what = f"the output changes for {', '.join(changed)}" if changed else "no output changes"
        return f"{how}, in “{said}” instead of “dog bites man”: {what}."

    return Explorer(
        draw,
        alt=told,
        height=210,
        said=choice("order", list(ORDERS), "man bites dog"),
        positions=toggle("positions added"),
        masked=toggle("causal mask"),
    )


def guess_order(reference):
    """Predict: what a block without positions makes of a sentence turned round."""

    def reveal():
        first, now = (meanings(reference, ORDERS[said], False, False) for said in ("dog bites man", "man bites dog"))
        return picture.row(
            picture.heat(first, "outputs in “dog bites man”", vmax=4, rows=WORDS, role="output"),
            picture.heat(now, "outputs in “man bites dog”", vmax=4, rows=WORDS, role="output"),
        ) + picture.note(
            "Attention is a weighted sum over the other tokens, and a sum has no order. Norms and feed-forward layers "
            "see one token at a time. Nothing knows where a token stands."
        )

    return Predict(
        "A transformer block, no mask, reads “dog bites man”, then “man bites dog”. What happens to the output of "
        "“bites”, and to that of “dog”?",
        answer="nothing",
        options=["nothing", "dog and man exchange theirs", "bites stays, dog and man change", "all change"],
        reveal=reveal,
    )


# --- positions as waves ----------------------------------------------------------------------------------------------

LONGEST = 64


def positions(sinusoidal_positions, reference):
    """The table of sinusoidal positions, and how alike one row is to all others."""
    mine = live(sinusoidal_positions)

    def draw(d, place):
        got, want = (np.asarray(function(LONGEST, d), float) for function in (mine, reference))
        if got.shape != want.shape:
            return picture.compare(got, want, "positions")
        wrong = int(picture.differs(got, want).sum())
        at = np.arange(LONGEST)
        table = picture.img(
            np.where(at == place, np.nan, got.T),
            told(d, place),
            "signed",
            -1,
            1,
            width=320,
            title="features (rows) × positions",
            role="parameter",
            shape=(LONGEST, d),
        )
        lines = with_reference("dot product", at, got @ got[place], want @ want[place], COLOURS["output"])
        chart = picture.curve(
            lines, told(d, place), f"row {place} times every row", "position", x_range=(0, LONGEST - 1),
            y_range=(-0.2 * d, 0.55 * d), width=340, height=230, marks=[(place, d / 2, "itself")],
        )  # fmt: skip
        return picture.figure(picture.row(table, chart) + _verdict(wrong, "numbers differ"), told(d, place))

    def told(d, place):
        return (
            f"{d} features are {d // 2} sines and {d // 2} cosines, the slowest with a period of "
            f"{2 * np.pi * 1e4 ** (1 - 2 / d):.0f} positions. The dot product of row {place} with another row depends "
            "on the distance alone."
        )

    return Explorer(
        draw, alt=told, height=330, d=slider("features d", 4, 64, 32, 4), place=slider("position", 0, 63, 20)
    )


def _verdict(count, what):
    """A line in orange where the learner's numbers are not the reference's."""
    style = f'class="lbl-verdict" style="border-color:{COLOURS["wrong"]}"'
    return f"<div {style}>{count} {what} from the reference</div>" if count else ""


# --- positions as turning hands --------------------------------------------------------------------------------------

PAIRS, FAR = 4, 24


@lru_cache
def query_and_key():
    """A query and a key (2 * PAIRS,) whose pairs are hands of length 2, the key's a little ahead of the query's."""
    q, ahead = np.array([[0.4, 2.0, 3.5, 5.0], [0.5, 0.4, -0.3, 0.2]])
    return [2 * np.stack([np.cos(angles), np.sin(angles)], -1).ravel() for angles in (q, q + ahead)]


def rotary_score(rope, m, n):
    """The dot product of the query at position m with the key at n; both may be arrays of positions."""
    q, k = query_and_key()
    m, n = np.atleast_1d(m), np.atleast_1d(n)
    turned = [np.asarray(rope(np.tile(v, (len(at), 1)), at), float) for v, at in ((q, m), (k, n))]
    return (turned[0] * turned[1]).sum(-1)


def rope(rope_forward, reference):
    """A query and a key, turned by their positions: the hands of one pair, and the score against the distance."""
    mine = live(rope_forward)

    def draw(m, n, pair):
        q, k = query_and_key()
        hands = [np.asarray(mine(v[None], np.array([at])), float)[0] for v, at in ((q, m), (k, n))]
        distances = np.arange(-FAR, FAR + 1)
        start, ahead = np.maximum(distances, 0), np.maximum(-distances, 0)
        got, want = (rotary_score(function, start, ahead) for function in (mine, reference))
        lines = with_reference("score", distances, got, want, COLOURS["output"])
        chart = picture.curve(
            lines, told(m, n, pair), "score q · k of all four pairs", "m − n", x_range=(-FAR, FAR), y_range=(-4, 18),
            width=350, height=240, marks=[(m - n, float(rotary_score(mine, m, n)[0]), f"m = {m}, n = {n}")],
        )  # fmt: skip
        title = f"pair {pair}: features {2 * pair} and {2 * pair + 1}"
        clock = picture.piece(_clock(q, k, *hands, 2 * pair, told(m, n, pair)), title)
        wrong = int(picture.differs(got, want).sum())
        return picture.figure(picture.row(clock, chart) + _verdict(wrong, "scores differ"), told(m, n, pair))

    def told(m, n, pair):
        score = float(rotary_score(reference, m, n)[0])
        turned = 1e4 ** (-pair / PAIRS)
        return (
            f"Pair {pair} turns by {turned:.3g} per position. Query at {m}, key at {n}: score "
            f"{picture.number(score)}. Both one position further: the same score."
        ).replace("-", "−")

    return Explorer(
        draw,
        alt=told,
        height=350,
        m=slider("query's position m", 0, FAR, 6),
        n=slider("key's position n", 0, FAR, 3),
        pair=slider("pair", 0, PAIRS - 1, 0),
    )


def _clock(q, k, turned_q, turned_k, at, alt):
    """The hands of one pair: pale before, full after turning."""
    middle, scale = 115, 46
    parts = ['<circle cx="115" cy="115" r="100" fill="none" stroke="currentColor" opacity=".3"/>']
    for name, before, after, colour in (("q", q, turned_q, COLOURS["input"]), ("k", k, turned_k, COLOURS["gradient"])):
        for hand, opacity, width in ((before, 0.35, 2), (after, 1, 4)):
            x, y = middle + scale * hand[at], middle - scale * hand[at + 1]
            parts.append(
                f'<path d="M{middle} {middle}L{x:.1f} {y:.1f}" stroke="{colour}" stroke-width="{width}" '
                f'opacity="{opacity}"/>'
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width}" fill="{colour}" opacity="{opacity}"/>'
            )
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" font-weight="600" style="fill:{colour}">{name}</text>')
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 230 230" width="230" height="230" '
        f'font-size="14">{"".join(parts)}</svg>'
    )


# --- one block, backwards --------------------------------------------------------------------------------------------

T = 6


@lru_cache
def one_example():
    """x (1, T, D) and the parameters of the small block."""
    return np.random.default_rng(7).normal(size=(1, T, D)), small_block()[1]


def block_gradient(backward, reference):
    """Where the gradient of one output goes: dx for a dy that is 1 at one number of one token."""
    mine = live(backward)

    def found(function, token, scale, masked):
        x, parameters = one_example()
        parameters = (*parameters[:5], scale * parameters[5], *parameters[6:])
        dy = np.zeros((1, T, D))
        dy[0, token, 0] = 1
        return function(dy, x, *parameters, 2, np.tri(T, dtype=bool) if masked else None)[0]

    def draw(token, scale, masked):
        got, want = (found(function, token, scale, masked) for function in (mine, reference))
        dy = np.zeros((T, D))
        dy[token, 0] = 1
        names = [f"token {k}" for k in range(T)]
        got = np.asarray(got, float)
        got = got[0] if got.shape == np.shape(want) else got
        tables = picture.row(
            picture.heat(dy, "dy", vmax=1.5, rows=names, role="gradient"),
            picture.operator("→"),
            picture.compare(got, want[0], "dx", vmax=1.5, rows=names, role="gradient"),
        )
        return picture.figure(tables, told(token, scale, masked))

    def told(token, scale, masked):
        sizes = np.abs(found(reference, token, scale, masked)[0]).max(1)
        reached = [str(k) for k in range(T) if sizes[k] > 1e-12]
        return (
            f"dy is 1 at feature 0 of token {token}. {'With' if masked else 'Without'} a causal mask, and attention's "
            f"output times {scale:g}, the gradient reaches token{'s' * (len(reached) > 1)} {', '.join(reached)}."
        )

    return Explorer(
        draw,
        alt=told,
        height=300,
        token=slider("token of dy", 0, T - 1, 3),
        scale=slider("attention ×", 0.0, 2.0, 1.0, 0.25),
        masked=toggle("causal mask", True),
    )


# --- the next token --------------------------------------------------------------------------------------------------

STARTS = ("the ", "a dog ", "two girls near the ki", "the girls near the king see", "the king near the girls see")
SHOWN = {" ": "␣", "\n": "⏎"}
LENGTH, SAMPLES = 44, 4


def guess_temperature():
    """Predict: what halving the temperature does to four to one."""

    def reveal():
        lines = {}
        temperatures = np.linspace(0.05, 3, 60)
        shares = 1 / (1 + np.exp(-np.log(4) / temperatures))
        lines["the likelier token"] = temperatures, shares
        lines["the other"] = temperatures, 1 - shares
        return picture.row(
            picture.curve(lines, "Two probabilities against the temperature: certain at 0, level far to the right",
                          x_label="temperature", x_range=(0, 3), y_range=(0, 1), width=360, height=220,
                          marks=[(0.5, 16 / 17, "0.94")])
        ) + picture.note(
            "Dividing the logits by ½ doubles them, which squares the odds: 4 to 1 becomes 16 to 1, and 16/17 = 0.94."
        )  # fmt: skip

    return Predict(
        "Two tokens have the probabilities 0.8 and 0.2. The logits are divided by a temperature of 0.5. What is the "
        "larger probability now?",
        answer=0.94,
        reveal=reveal,
        tolerance=0.015,
    )


@lru_cache(maxsize=64)
def truth(start):
    """The true probabilities (27,) of the character after this one; None outside the language."""
    for character in text.CHARACTERS:
        try:
            return text.probabilities(start + character)[-1]
        except ValueError:
            continue
    return None


def inside(string):
    """How many of the first characters a sentence of the language begins with."""
    low, high = 0, len(string)
    while low < high:
        middle = (low + high + 1) // 2
        try:
            text.probabilities(string[:middle])
            low = middle
        except ValueError:
            high = middle - 1
    return low


def continued(next_logits, choose, start, temperature, k, seed, count=SAMPLES):
    """`count` continuations of a start, drawn character by character, each up to its line break."""
    rng, texts = np.random.default_rng(seed), [start] * count
    while len(texts[0]) < LENGTH and not all("\n" in written for written in texts):
        p = np.asarray(choose(next_logits(texts), temperature, k), float)
        drawn = np.minimum((p.cumsum(-1) < rng.random((count, 1))).sum(-1), p.shape[-1] - 1)
        texts = [written + text.CHARACTERS[j] for written, j in zip(texts, drawn, strict=True)]
    return [written.partition("\n")[0] for written in texts]


def next_token(next_logits, top_k_probabilities, reference):
    """The next character's probabilities for a temperature and a k, and sentences drawn with them.

    next_logits   equally long texts -> logits (n, 27) of the character after each
    """
    mine = live(top_k_probabilities)

    def chances(start, temperature, k):
        logits = np.asarray(next_logits([start]), float)
        got = np.asarray(mine(logits, temperature, k), float)
        return got, reference(logits, temperature, k), reference(logits, 1.0, None)[0]

    def draw(start, temperature, k, seed):
        got, want, plain = chances(start, temperature, k)
        if got.shape != want.shape:
            return picture.compare(got, want, "probabilities")
        wrong = picture.differs(got, want)[0]
        caption = told(start, temperature, k, seed)
        bars = picture.piece(_bars(got[0], plain, truth(start), wrong, caption), f"after “{start}”", "output")
        key = picture.note("Filled: what is drawn from. Pale frame: at temperature 1 without top-k. Green: the truth.")
        drawn = continued(next_logits, mine, start, temperature, k, seed)
        rows = "".join(f"<li>{_written(start, line)}</li>" for line in drawn)
        listed = f'<ul style="margin:4px 0;padding-left:1.2em;font-family:monospace">{rows}</ul>'
        return picture.figure(bars + key + _verdict(wrong.sum(), "probabilities differ") + listed, caption)

    def told(start, temperature, k, seed):
        _, p, _ = chances(start, temperature, k)
        best = int(p[0].argmax())
        name = SHOWN.get(text.CHARACTERS[best], text.CHARACTERS[best])
        kept = int((p[0] > 0).sum())
        return (
            f"After “{start}”, temperature {temperature:g}, top {k}: {kept} character{'s' * (kept > 1)} can follow, "
            f"the likeliest is {name} with {picture.number(p[0, best])}. Below, {SAMPLES} continuations, seed {seed}; "
            "what leaves the language is struck through."
        )

    return Explorer(
        draw,
        alt=told,
        height=430,
        start=choice("start", {start.strip(): start for start in STARTS}, STARTS[1]),
        temperature=slider("temperature", 0.0, 3.0, 1.0, 0.1),
        k=slider("top k", 1, len(text.CHARACTERS), len(text.CHARACTERS)),
        seed=slider("seed", 0, 20, 0),
    )


def _bars(p, plain, true, wrong, alt):
    """A column for each character: filled p, framed `plain`, and a green tick at the truth."""
    step, high, base = 21, 120, 140
    parts = [f'<path d="M0 {base}h{step * len(p)}" stroke="currentColor" opacity=".6"/>']
    for j, character in enumerate(text.CHARACTERS):
        x, tall = step * j + 2, high * float(np.clip(np.nan_to_num(p[j]), 0, 1))
        parts.append(
            f'<rect x="{x}" y="{base - tall:.1f}" width="16" height="{tall:.1f}" fill="{COLOURS["input"]}"/>'
            f'<rect x="{x}" y="{base - high * plain[j]:.1f}" width="16" height="{high * plain[j]:.1f}" fill="none" '
            'stroke="currentColor" opacity=".5"/>'
            f'<text x="{x + 8}" y="{base + 15}" text-anchor="middle">{escape(SHOWN.get(character, character))}</text>'
        )
        if wrong[j]:
            parts.append(f'<path d="M{x - 2} {base + 2}h20" stroke="{COLOURS["wrong"]}" stroke-width="4"/>')
        if true is not None and true[j] > 0:
            y = base - high * true[j]
            parts.append(f'<path d="M{x - 2} {y:.1f}h20" stroke="{COLOURS["right"]}" stroke-width="3"/>')
        if p[j] >= 0.005:
            parts.append(
                f'<text x="{x + 8}" y="12" text-anchor="middle" font-size="10">{f"{p[j]:.2f}".removeprefix("0")}</text>'
            )
    width = step * len(p)
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} 162" width="{width}" height="162" '
        f'font-size="12">{"".join(parts)}</svg>'
    )


def _written(start, drawn):
    """A continuation, its start pale; what no sentence of the language goes on with is struck through."""
    good = max(inside(drawn), len(start))
    return (
        f'<span style="opacity:.55">{escape(start)}</span>{escape(drawn[len(start) : good])}'
        f'<s style="color:{COLOURS["wrong"]}">{escape(drawn[good:])}</s>'
    )


# --- one word from the left, or from both sides ----------------------------------------------------------------------


def fill_in(sentences, left, both):
    """A word of a sentence, guessed from what stands before it, and from all the others.

    sentences (n, LENGTH) numbers of words; left, both (n, LENGTH, words) the probabilities of each word at each place
    """

    def draw(number, place):
        words = [translation.TARGET[j] for j in sentences[number]]
        right = int(sentences[number, place])
        hidden = [f"<b>[{escape(word)}]</b>" if k == place else escape(word) for k, word in enumerate(words)]
        line = f'<p style="margin:2px 0 8px">{" ".join(hidden)}</p>'
        charts = picture.row(
            _guesses(left[number, place], right, "from the left (GPT)", told(number, place)),
            _guesses(both[number, place], right, "from both sides (BERT)", told(number, place)),
        )
        return picture.figure(line + charts, told(number, place))

    def told(number, place):
        right = int(sentences[number, place])
        one, two = (float(p[number, place, right]) for p in (left, both))
        return (
            f"The word in brackets, {translation.TARGET[right]}, is hidden. From the left it gets {one:.2f}, from both "
            f"sides {two:.2f}."
        )

    return Explorer(
        draw,
        alt=told,
        height=290,
        number=slider("sentence", 0, len(sentences) - 1, 0),
        place=slider("hidden place", 0, sentences.shape[1] - 1, 0),
    )


def _guesses(p, right, title, alt, count=8):
    """The likeliest words as bars; the right one in green."""
    best = np.argsort(-p, kind="stable")[:count]
    parts = []
    for row, j in enumerate(best):
        colour = COLOURS["right"] if j == right else COLOURS["input"]
        parts.append(
            f'<text x="70" y="{14 + 20 * row}" text-anchor="end">{escape(translation.TARGET[j])}</text>'
            f'<path d="M78 {3 + 20 * row}h{max(0.5, 150 * p[j]):.1f}v14H78z" fill="{colour}"/>'
            f'<text x="{84 + 150 * p[j]:.1f}" y="{14 + 20 * row}">{p[j]:.2f}</text>'
        )
    svg = (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 270 {20 * count}" width="270" height="{20 * count}" '
        f'font-size="12">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, title, "output")


# --- a translation's alignment ---------------------------------------------------------------------------------------


def alignments(w, pairs):
    """Cross-attention while translating: which source words each target word is made of, the known ones outlined.

    w (n, heads, LENGTH, LENGTH) attention weights of n pairs of sentences
    """

    def lines(number):
        words = [translation.SOURCE[j] for j in pairs.source[number] if j]
        return words, translation.alignment(words)

    def draw(number, shown):
        words, places = lines(number)
        right = np.zeros((len(words), len(words)), bool)
        for row, found in enumerate(places):
            right[row, list(found)] = True
        made = [translation.TARGET[j] for j in pairs.target[number][: len(words)]]
        cells = w[number][:, : len(words), : len(words)]
        one = cells.mean(0) if shown < 0 else cells[shown]
        table = weights(one, made, words, right=right, alt=told(number, shown))
        return picture.figure(table, told(number, shown))

    def told(number, shown):
        words, places = lines(number)
        cells = w[number].mean(0) if shown < 0 else w[number, shown]
        hits = sum(int(cells[row].argmax()) == found[0] for row, found in enumerate(places))
        which = "Mean of the heads" if shown < 0 else f"Head {shown}"
        return (
            f"“{translation.english(words)}”. {which}: at {hits} of {len(places)} target words (rows) the largest "
            "weight is on the source word it translates. Green: the source words that decide it."
        )

    heads = {"mean": -1} | {f"head {k}": k for k in range(w.shape[1])}
    return Explorer(
        draw,
        alt=told,
        height=330,
        number=slider("sentence", 0, len(w) - 1, 0),
        shown=choice("weights of", heads, -1),
    )
