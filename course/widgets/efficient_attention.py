"""Lesson 20: who sees whom and how far, weights revealed by values, softmax as a stream, costs, caches, recall."""

import re
from functools import lru_cache

import numpy as np

from course.widgets import picture
from course.widgets.chart import amount, cell, powers, spread
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict
from course.widgets.weights import weights

COLOURS = picture.COLOURS
KINDS = {
    "exact": "#7A7A7A",
    "online softmax": "#1B7FBD",
    "two scales": "#CC79A7",
    "local": "#E69F00",
    "linear": "#009E73",
}


# --- who sees whom ---------------------------------------------------------------------------------------------------


def seen(pattern, t, size):
    """How query i (row) sees key j: 1 one by one, 0.5 as part of an average, 0 not at all.

    `size` is the window of "local" and "local, causal", the stride of "strided", the block of "two scales".
    """
    i, j = np.indices((t, t))
    rules = {
        "exact": lambda: i == i,
        "causal": lambda: j <= i,
        "local": lambda: np.abs(i - j) <= size,
        "local, causal": lambda: (j <= i) & (i - j <= size),
        "strided": lambda: (j <= i) & ((i - j < size) | ((i - j) % size == 0)),
        "two scales": lambda: np.where(np.abs(i // size - j // size) <= 1, 1.0, 0.5),
    }
    return rules[pattern]().astype(float)


def scores_of(pattern, t, size):
    """How many scores a pattern needs: an average counts as one."""
    matrix = seen(pattern, t, size)
    averages = matrix[:, ::size] == 0.5 if pattern == "two scales" else 0  # each block once, at its first key
    return int((matrix == 1).sum() + np.sum(averages))


def reached(matrix, layers):
    """Which tokens a token's output can depend on after so many layers."""
    step, far = matrix > 0, np.eye(len(matrix), dtype=bool)
    for _ in range(layers):
        far = far.astype(np.float32) @ step.astype(np.float32) > 0
    return far


_INKS = ((244, 243, 241), (196, 221, 237), (27, 127, 189), (232, 196, 216), (214, 120, 30), (240, 205, 160))


def _grid(levels, alt, title, width=200):
    """Small whole numbers as a picture in a few colours."""
    return picture.piece(picture.img(levels, alt, _INKS, 0, len(_INKS) - 1, width=width), title)


def overview(t=48):
    """Five ways to attend, as pictures: who sees whom, and how many scores that takes."""
    pieces = []
    for pattern, title, size in (
        ("exact", "exact", 1), ("local", "local: 4 each side", 4), ("strided", "strided, causal: 7", 7),
        ("two scales", "two scales: blocks of 6", 6),
    ):  # fmt: skip
        matrix, count = seen(pattern, t, size), scores_of(pattern, t, size)
        html = _grid(np.select([matrix == 1, matrix > 0], [2, 3], 0), f"{title}: {count} scores", title, 128)
        pieces.append(f"<div>{html}{picture.note(f'{count} scores')}</div>")
    through = _grid(np.full((t, t), 1), "linear: every query sees a sum", "linear", 128)
    pieces.append(f"<div>{through}{picture.note('no scores: d · e sums')}</div>")
    return picture.row(*pieces)


def reach():
    """A pattern of attention, and how far a stack of layers carries it."""
    t = 32

    def draw(pattern, size, layers, query):
        matrix = seen(pattern, t, size)
        far = reached(matrix, layers)
        direct = np.select([matrix == 1, matrix > 0], [2, 3], 0)
        stacked = np.where(far, 1, 0)
        stacked[query] = np.where(far[query], 4, 5)
        return picture.figure(
            picture.row(
                _grid(direct, f"{pattern}: which keys a query sees", "one layer", 256),
                _grid(stacked, f"{pattern}: what {layers} layers reach", f"{layers} layer{'s' * (layers > 1)}", 256),
            ),
            said(pattern, size, layers, query),
        )

    def said(pattern, size, layers, query):
        matrix = seen(pattern, t, size)
        count, far = scores_of(pattern, t, size), reached(matrix, layers)[query]
        return (
            f"{pattern}: {count} scores in one layer, {count / t**2:.0%} of {t} × {t}. After {layers} layer"
            f"{'s' * (layers > 1)} token {query} has heard of {far.sum()} of {t} tokens, the farthest "
            f"{np.abs(np.flatnonzero(far) - query).max()} places away."
        )

    return Explorer(
        draw,
        alt=said,
        height=340,
        pattern=choice("pattern", ["local", "local, causal", "strided", "two scales", "causal"]),
        size=slider("window, stride or block", 1, 8, 3),
        layers=slider("layers", 1, 12, 1),
        query=slider("token", 0, t - 1, 20),
    )


# --- questions -------------------------------------------------------------------------------------------------------


def guess_memory():
    """Predict: what the scores of a long text take."""
    lengths = 10.0 ** np.arange(3, 7)

    def reveal():
        chart = picture.curve(
            {
                "scores of one head": (np.log10(lengths), 2 * np.log10(lengths) + np.log10(4e-9), {"points": True}),
                "memory of a large GPU": (np.log10(lengths), np.full(4, np.log10(80)), {"dash": True}),
            },
            "gigabytes of scores against length, both axes logarithmic: a line of slope 2",
            x_label="tokens",
            title="gigabytes",
            x_range=(3, 6),
            y_range=(-3, 4),
            width=360,
            height=220,
        )
        return powers(powers(chart, "middle"), "end") + picture.note(
            "A hundred times the length, ten thousand times the scores: 10 000 · 4 MB = 40 GB, for one head of one "
            "layer of one text."
        )

    return Predict(
        "The scores of 1000 tokens, for one head in float32, take 4 megabytes. How many gigabytes do those of 100 000 "
        "tokens take?",
        answer=40,
        reveal=reveal,
        tolerance=1,
    )


def guess_reach():
    """Predict: how many layers a narrow window needs."""

    def reveal():
        layers = np.arange(0, 25)
        return picture.curve(
            {"window 3 to each side": (layers, 3 * layers, {"points": True})},
            "how far a token hears after each layer: a line of slope 3",
            x_label="layers",
            y_label="places",
            x_range=(0, 24),
            y_range=(0, 72),
            width=340,
            height=200,
            marks=[(20, 60, "60 places")],
        ) + picture.note("3 places a layer. The same law as for stacked 7-wide convolutions in lesson 10.")

    return Predict(
        "Every token sees 3 places to each side. After how many layers can a token's output depend on one that is 60 "
        "places away?",
        answer=20,
        reveal=reveal,
    )


def guess_slope():
    """Predict: the slope of the time that online softmax takes."""

    def reveal():
        rows = {
            "exact": (2, 2), "online softmax": (2, 1), "two scales, blocks of √T": (1.5, 1), "local": (1, 1),
            "linear": (1, 1),
        }  # fmt: skip
        lines = "".join(
            f"<tr>{cell(name)}{cell(picture.number(time, 1))}{cell(picture.number(memory, 1))}</tr>"
            for name, (time, memory) in rows.items()
        )
        head = "".join(map(cell, ("", "<b>slope of time</b>", "<b>slope of memory</b>")))
        return f"<table><tr>{head}</tr>{lines}</table>" + picture.note(
            "Online softmax computes every score that exact attention computes. It only never has them all at once."
        )

    return Predict(
        "Time against length, both axes logarithmic: exact attention is a line of slope 2. What slope will online "
        "softmax have, for long sequences?",
        answer="2",
        options=["0", "1", "1.5", "2"],
        reveal=reveal,
    )


# --- weights revealed by values --------------------------------------------------------------------------------------

TOKENS = 10


@lru_cache
def drawn(number):
    """Queries and keys (TOKENS, 4) that resemble each other where they are near."""
    rng = np.random.default_rng(number)
    noise = rng.standard_normal((TOKENS + 2, 4))
    alike = (noise[2:] + noise[1:-1] + noise[:-2]) / 3**0.5
    return alike, alike + 0.3 * rng.standard_normal((TOKENS, 4))


def revealed(functions, wants):
    """The weights of four kinds of attention, by the learner's functions: with v = identity, y *is* the weights."""
    names = ("local", "two scales", "linear", "online softmax")
    own, right = (dict(zip(names, fs, strict=True)) for fs in (map(live, functions), wants))

    def found(kind, size, sharpness, number, functions):
        q, k = drawn(number)
        size = size if kind == "local" or kind == "linear" else (1, 2, 3, 4, 6)[size - 1]
        more = () if kind == "linear" else (size,)
        return np.asarray(functions[kind](sharpness * q, k.copy(), np.eye(TOKENS), *more))

    def draw(kind, size, sharpness, number):
        given = kind, size, sharpness, number
        tokens, beside = range(TOKENS), exact(*drawn(number), sharpness)
        own_weights = weights(
            found(*given, own), tokens, tokens, names=[f"yours: {kind}"], want=found(*given, right), alt=kind
        )
        exact_weights = weights(beside, tokens, tokens, names=["exact"], alt="exact attention")
        return picture.figure(picture.row(f"<div>{own_weights}</div>", exact_weights), said(*given))

    def said(kind, size, sharpness, number):
        got, whole = found(kind, size, sharpness, number, right), exact(*drawn(number), sharpness)
        return (
            f"{kind}, queries × {sharpness:g}. The largest weight is {got.max():.2f}, in exact attention "
            f"{whole.max():.2f}. The two share {np.minimum(got, whole).sum(1).mean():.0%} of their weight."
        )

    return Explorer(
        draw,
        alt=said,
        height=430,
        kind=choice("attention", names),
        size=slider("window or block", 1, 5, 2),
        sharpness=slider("queries ×", 0.25, 4.0, 1.0, 0.25),
        number=slider("other tokens", 0, 5, 0),
    )


def exact(q, k, sharpness=1.0):
    """The weights of exact attention."""
    scores = sharpness * q @ k.T / q.shape[1] ** 0.5
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- softmax as a stream ---------------------------------------------------------------------------------------------

SCORES = np.array([1.0, 0.5, 2.0, 1.5, 3.0, 0.0, 2.5, 4.0, 1.0, 3.5, 0.5, 2.0])
VALUES = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])


def steps(scores, values, block, rescale=True):
    """What is carried after each block: rows (maximum, sum, weighted sum)."""
    m, total, y, rows = -np.inf, 0.0, 0.0, []
    for low in range(0, len(scores), block):
        part = scores[low : low + block]
        now = max(m, part.max())
        shrink = np.exp(m - now) if rescale or not rows else 1.0
        p = np.exp(part - now)
        m, total, y = now, total * shrink + p.sum(), y * shrink + p @ values[low : low + block]
        rows.append((m, total, y))
    return np.array(rows)


def stream(online, want):
    """Online softmax, block after block: what is carried, and what comes out if the maximum changes unnoticed."""
    online = live(online)

    def draw(block, done, shift, rescale):
        scores, rows = SCORES + shift, steps(SCORES + shift, VALUES, block, rescale)
        done = min(done, len(rows))
        low, high = (done - 1) * block, min(done * block, len(scores))
        chart = picture.curve(
            {
                "still to come": (np.arange(high, 12), SCORES[high:], {"line": False, "points": True,
                                                                       "colour": "#9A9A9A"}),
                "seen before": (np.arange(low), SCORES[:low], {"line": False, "points": True}),
                "this block": (np.arange(low, high), SCORES[low:high], {"line": False, "points": True,
                                                                        "colour": COLOURS["wrong"]}),
                "maximum so far": (np.arange(high), np.repeat(rows[:done, 0], block)[:high] - shift, {
                    "colour": COLOURS["parameter"]}),
            },
            f"twelve scores; block {done} of {len(rows)}", "scores" + (f" − {shift}" if shift else ""), "key",
            x_range=(-0.5, 11.5), y_range=(-0.5, 4.5), width=400, height=220,
        )  # fmt: skip
        head = "".join(f"<th scope=col>{text}</th>" for text in ("block", "m", "l", "y", "y / l"))
        lines = "".join(
            f"<tr><th scope=row>{n + 1}</th>{_number(m)}{_number(total)}{_number(y)}{_number(y / total)}</tr>"
            for n, (m, total, y) in enumerate(rows[:done])
        )
        table = picture.piece(f'<table class="lbl-heat"><tr>{head}</tr>{lines}</table>', "carried", "output")
        return picture.figure(picture.row(chart, table) + whole(scores, block), said(block, done, shift, rescale))

    def whole(scores, block):
        given = np.ones((1, 1)), scores[:, None], VALUES[:, None], block
        got, right = (np.asarray(f(*given)) for f in (online, want))
        return picture.compare(got, right, "your online_softmax_attention, all blocks", digits=4, role="output")

    def said(block, done, shift, rescale):
        rows = steps(SCORES + shift, VALUES, block, rescale)
        done = min(done, len(rows))
        e = np.exp(SCORES - SCORES.max())
        answer, now = e @ VALUES / e.sum(), rows[done - 1, 2] / rows[done - 1, 1]
        seen_so_far = min(done * block, 12)
        e = np.exp(SCORES[:seen_so_far] - SCORES[:seen_so_far].max())
        agrees = abs(now - e @ VALUES[:seen_so_far] / e.sum()) < 1e-9
        return (
            f"After {seen_so_far} of 12 keys y / l is {amount(now)}, "
            f"{'the exact softmax average of those keys' if agrees else 'which is wrong for those keys'}. All 12 give "
            f"{amount(answer)}."
        )

    return Explorer(
        draw,
        alt=said,
        height=420,
        block=slider("block", 1, 6, 3),
        done=slider("blocks done", 1, 12, 2),
        shift=slider("add to all scores", 0, 1000, 0, 100),
        rescale=toggle("rescale when the maximum changes", True),
    )


def _number(value):
    return f"<td>{amount(value)}</td>"


def _doubled(chart):
    """A chart drawn over logarithms to base 2, its ticks along x as the numbers themselves."""
    return re.sub(r'(text-anchor="middle">)(\d+)(?=<)', lambda found: f"{found[1]}{2 ** int(found[2])}", chart)


# --- measured costs --------------------------------------------------------------------------------------------------


def slope(x, y, last):
    """The power of x that y grows with: the slope of a line through the logarithms of the last points."""
    return float(np.polyfit(np.log(x[-last:]), np.log(y[-last:]), 1)[0])


def loglog(measured, title, last, x_range=None, y_range=None, width=430, height=280):
    """A chart of {name: (x, y)} over two logarithmic axes, with lines fitted to the last points."""
    points, fits = {}, []
    for number, (name, (x, y)) in enumerate(measured.items()):
        style = {"colour": KINDS.get(name, picture.CYCLE[number]), "points": True, "line": False}
        power, x, y = slope(x, y, last), np.log2(x), np.log10(y)
        points[f"{name}, slope {power:.1f}"] = x, y, style
        fits += [(x[-last:], np.polyval(np.polyfit(x[-last:], y[-last:], 1), x[-last:])), ([np.nan], [np.nan])]
    fitted = [np.concatenate(part) for part in zip(*fits, strict=True)]
    chart = picture.curve(
        points | {"fitted": (*fitted, {"colour": "#8a949b", "dash": True})},
        f"{title} against length, both axes logarithmic: {'; '.join(points)}",
        title,
        "tokens",
        x_range=x_range or _around([x for x, _, _ in points.values()]),
        y_range=y_range or _around([y for _, y, _ in points.values()]),
        width=width,
        height=height,
    )
    return powers(_doubled(chart), "end")


def _around(values):
    """From a little below the least to a little above the greatest."""
    return min(map(min, values)) - 0.15, max(map(max, values)) + 0.15


def costs(measured):
    """Time and memory against length, {name: (lengths, seconds, bytes)}, with fitted slopes."""
    tables = {
        what: (unit, {name: (found[0], found[place]) for name, found in measured.items()})
        for what, unit, place in (("time", "seconds", 1), ("memory", "bytes", 2))
    }
    x_range = _around([np.log2(x) for x, *_ in measured.values()])
    y_ranges = {what: _around([np.log10(y) for _, y in table.values()]) for what, (_, table) in tables.items()}

    def chosen(what, kinds):
        return {name: line for name, line in tables[what][1].items() if kinds in ("all", name)}

    def draw(what, kinds, last):
        chart = loglog(chosen(what, kinds), tables[what][0], last, x_range, y_ranges[what], width=540, height=340)
        return picture.figure(chart, said(what, kinds, last))

    def said(what, kinds, last):
        found = ", ".join(f"{name} {slope(*line, last):.1f}" for name, line in chosen(what, kinds).items())
        return f"Slopes of {what} over the last {last} lengths: {found}."

    return Explorer(
        draw,
        alt=said,
        height=410,
        what=choice("what", list(tables)),
        kinds=choice("which", ["all", *measured]),
        last=slider("points fitted", 2, min(len(lengths) for lengths, *_ in measured.values()), 3),
    )


# --- the cache -------------------------------------------------------------------------------------------------------

# name: layers, query heads, key-value heads, size of a head (Brown et al., 2020; Touvron et al., 2023, twice).
MODELS = {"GPT-3": (96, 96, 96, 128), "Llama 7B": (32, 32, 32, 128), "Llama 2 70B": (80, 64, 8, 128)}


def cache_size():
    """The size of a key-value cache, for known models and other numbers of key-value heads."""

    def gigabytes(model, share, tokens, number_bytes):
        layers, heads, _, d = MODELS[model]
        return 2 * layers * max(1, heads // share) * d * tokens * number_bytes / 1e9

    def draw(model, share, tokens, texts, number_bytes):
        lengths = 2.0 ** np.arange(8, 18)
        lines = {}
        for label, parts, colour in (
            ("a key-value head for every query head", 1, "#7A7A7A"), ("as chosen", share, COLOURS["output"]),
            ("one for all", 10**6, "#56B4E9"),
        ):  # fmt: skip
            sizes = gigabytes(model, parts, lengths, number_bytes) * texts
            lines[label] = np.log2(lengths), np.log10(sizes), {"colour": colour, "dash": label != "as chosen"}
        lines["a GPU of 80 GB"] = np.log2(lengths), np.full(10, np.log10(80)), {"colour": COLOURS["wrong"],
                                                                                 "dash": True}  # fmt: skip
        size = gigabytes(model, share, 2.0**tokens, number_bytes) * texts
        chart = picture.curve(
            lines,
            said(model, share, tokens, texts, number_bytes),
            "gigabytes",
            "tokens",
            x_range=(7.8, 17.2),
            y_range=(-3, 4),
            width=520,
            height=290,
            marks=[(tokens, np.log10(size), f"{amount(size, 2)} GB")],
        )
        return picture.figure(powers(_doubled(chart), "end"), said(model, share, tokens, texts, number_bytes))

    def said(model, share, tokens, texts, number_bytes):
        layers, heads, own, d = MODELS[model]
        size = gigabytes(model, share, 2**tokens, number_bytes) * texts
        return (
            f"{model}: {layers} layers, {heads} query heads of size {d}; it was built with {own} key-value heads. With "
            f"{max(1, heads // share)}, {texts} text{'s' * (texts > 1)} of {2**tokens} tokens: {amount(size, 2)} GB of "
            "keys and values."
        )

    return Explorer(
        draw,
        alt=said,
        height=360,
        model=choice("model", list(MODELS), "Llama 2 70B"),
        share=choice("query heads per key-value head", {"1": 1, "2": 2, "4": 4, "8": 8, "all": 10**6}, 8),
        tokens=slider("tokens: 2 to the power", 8, 17, 12),
        texts=slider("texts at once", 1, 64, 1),
        number_bytes=choice("bytes per number", [4, 2, 1], 2),
    )


# --- recall ----------------------------------------------------------------------------------------------------------


def recall(results, chance):
    """Accuracy of recall against the number of pairs: {name: (pairs, runs (seeds, pairs))}."""
    palette = (KINDS["exact"], "#56B4E9", KINDS["linear"], "#E69F00")
    lines = {
        name: (*spread(np.log2(pairs), runs), {"colour": colour, "points": True})
        for (name, (pairs, runs)), colour in zip(results.items(), palette, strict=False)
    }
    pairs = next(iter(results.values()))[0]
    lines["chance"] = np.log2(pairs), np.full(len(pairs), chance), {"colour": "#9A9A9A", "dash": True}
    told = "; ".join(
        f"{name} {amount(runs.mean(0)[0], 2)} with {pairs[0]} pairs, {amount(runs.mean(0)[-1], 2)} with {pairs[-1]}"
        for name, (pairs, runs) in results.items()
    )
    chart = picture.curve(
        lines, f"accuracy of recall: {told}", x_label="pairs", y_label="accuracy",
        x_range=(np.log2(pairs[0]) - 0.1, np.log2(pairs[-1]) + 0.1), y_range=(0, 1.03), width=440, height=290,
    )  # fmt: skip
    return _doubled(chart)


def recalled(models):
    """What trained networks look at when they are asked for each of some pairs in turn.

    `models`: {name: function}, which gives the weights (pairs, pairs) for the numbers of some key symbols.
    """
    names = list(models)

    def symbols(pairs, number):
        return np.random.default_rng(number).permutation(64)[:pairs]

    def draw(name, pairs, number):
        asked = symbols(pairs, number)
        return picture.figure(
            weights(models[name](asked), asked, asked, names=[name], right=np.eye(pairs, dtype=bool), alt=name),
            said(name, pairs, number),
        )

    def said(name, pairs, number):
        w = np.asarray(models[name](symbols(pairs, number)))
        return (
            f"{name}, {pairs} pairs. Rows: the key that is asked for; columns: the keys that are there; outlined: the "
            f"right one. It gets {np.diag(w).mean():.2f} of the weight on average, at least {np.diag(w).min():.2f}."
        )

    return Explorer(
        draw,
        alt=said,
        height=420,
        name=choice("network", names),
        pairs=slider("pairs", 2, 16, 8),
        number=slider("other keys", 0, 9, 0),
    )
