"""Lesson 15: lookup and its gradient, a tug of war in the plane, a map of word vectors, neighbours, turned factors."""

from functools import lru_cache
from html import escape

import numpy as np

from course.widgets import picture
from course.widgets.chart import with_reference
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict

COLOURS = picture.COLOURS

# --- lookup and scatter ----------------------------------------------------------------------------------------------

WORDS = ("the", "cat", "sees", "dog", "sleeps")
TABLE = np.array([[0.1, -0.2, 0.0], [1.0, 0.5, -1.0], [-0.6, 2.0, 0.3], [0.9, 0.4, -1.2], [-0.5, 1.7, 0.8]])
DY = np.array([[1.0, 0.0, -2.0], [0.5, 1.0, 0.0], [-1.0, 1.0, 1.0], [2.0, -1.0, 0.5], [0.0, 0.5, -0.5]])
SENTENCES = ("the cat sees the dog", "the dog sleeps", "cat sees cat", "dog dog dog dog")


def ids_of(sentence):
    """The ids of a sentence's words."""
    return np.array([WORDS.index(word) for word in sentence.split()])


def contributions(ids, row):
    """The places of a sentence whose gradient goes to this row of the table."""
    return np.flatnonzero(ids == row).tolist()


def overview(forward):
    """A sentence looked up in a table, and the same as a product with one-hot rows."""
    sentence = SENTENCES[0]
    ids, labels = ids_of(sentence), sentence.split()
    y = picture.heat(forward(ids, TABLE), "y", vmax=2, digits=1, role="output")
    table = picture.heat(TABLE, "table", vmax=2, rows=WORDS, digits=1, role="parameter")
    asked = picture.heat(ids.reshape(-1, 1), "ids", palette=[(226, 232, 236)] * 2, rows=labels, role="input")
    hot = picture.heat(np.eye(len(WORDS))[ids], "one-hot rows", palette="ink", vmax=2, rows=labels, role="input")
    arrow, times, equal = (picture.operator(sign) for sign in "→×=")
    return picture.row(asked, arrow, table, arrow, y) + picture.row(hot, times, table, equal, y)


def lookup(forward, backward, right_forward, right_backward):
    """A sentence looked up in a table of five words, and the gradient on its way back into the table."""
    forward, backward = live(forward), live(backward)

    def draw(sentence, place):
        ids, labels = ids_of(sentence), sentence.split()
        k, dy = min(place, len(ids) - 1), DY[: len(ids)]
        here, there = [(k, j) for j in range(3)], [(ids[k], j) for j in range(3)]
        rows = [f"{i} {word}" for i, word in enumerate(WORDS)]
        places = [f"{i} {word}" for i, word in enumerate(labels)]
        tips = {(i, j): _sum_of(ids, dy, i, j) for i in range(len(WORDS)) for j in range(3)}
        table = picture.heat(TABLE, "table", vmax=2, rows=rows, mark=there, digits=1, role="parameter")
        y = picture.compare(
            forward(ids, TABLE), right_forward(ids, TABLE), "y", vmax=2, rows=places, mark=here, digits=1, role="output"
        )
        up = picture.heat(dy, "dy", vmax=4, rows=places, mark=here, digits=1, role="gradient")
        down = picture.compare(
            backward(dy, ids, TABLE), right_backward(dy, ids, TABLE), "dtable", vmax=4, rows=rows, mark=there,
            tips=lambda i, j: tips[i, j], digits=1, role="gradient",
        )  # fmt: skip
        asked = picture.heat(ids.reshape(-1, 1), "ids", palette=[(226, 232, 236)] * 2, mark=[(k, 0)], role="input")
        arrow = picture.operator("→")
        return picture.figure(
            picture.row(asked, arrow, table, arrow, y) + picture.row(up, arrow, down), said(sentence, place)
        )

    def said(sentence, place):
        ids = ids_of(sentence)
        k = min(place, len(ids) - 1)
        from_places = contributions(ids, ids[k])
        word, unused = WORDS[ids[k]], [w for i, w in enumerate(WORDS) if i not in ids]
        told = f"Place {k} asks for row {ids[k]}, “{word}”. "
        told += (
            f"It comes {len(from_places)} times: its row of dtable is the sum of as many rows of dy."
            if len(from_places) > 1
            else "It comes once: its row of dtable is one row of dy."
        )
        return told + f" Nobody asked for {', '.join(unused)}: gradient 0."

    return Explorer(
        draw,
        alt=said,
        height=410,
        sentence=choice("sentence", list(SENTENCES)),
        place=slider("place", 0, 4, 0),
    )


def _sum_of(ids, dy, row, column):
    """How an entry of dtable came about, in words."""
    places = contributions(ids, row)
    if not places:
        return f"No place of the sentence asks for “{WORDS[row]}”: 0."
    terms = " + ".join(f"dy[{k}, {column}]" for k in places)
    values = " + ".join(f"({picture.number(dy[k, column])})" for k in places)
    return f"“{WORDS[row]}”: {terms} = {values} = {picture.number(dy[places, column].sum())}"


def guess_repeat(reference):
    """Predict: what a row that is asked for three times gets."""
    ids, table = np.array([2, 0, 2, 2]), np.zeros((4, 2))

    def reveal():
        dtable = reference("embedding_backward")(np.ones((4, 2)), ids, table)
        wrong = np.zeros_like(table)
        wrong[ids] += 1
        rows = [f"row {k}" for k in range(4)]
        return picture.row(
            picture.heat(dtable, "dtable", vmax=3, rows=rows, role="gradient"),
            picture.heat(wrong, "dtable[ids] += dy", vmax=3, rows=rows, role="wrong"),
        ) + picture.note(
            "Row 2 is used three times, so three gradients arrive and add. NumPy's += with an array of ids writes each "
            "row once: two of the three are lost, and no error tells."
        )

    return Predict(
        "A table of 4 rows, ids = [2, 0, 2, 2], and an upstream gradient dy whose entries are all 1. What stands in "
        "row 2 of dtable?",
        answer=3,
        reveal=reveal,
    )


# --- a tug of war in the plane ---------------------------------------------------------------------------------------

TOPICS = (("sun", "rain", "wind"), ("fork", "spoon", "knife"))
_PAIRS = np.array([(i, j) for i in range(6) for j in range(6) if i != j and i // 3 == j // 3])
_PULL, MOST = 3.0, 40  # learning rate; steps


def tug(forward, backward, negatives, steps):
    """Six words in the plane, pairs within a topic: tables (steps + 1, 2, 6, 2) and the loss before each step."""
    rng = np.random.default_rng(4)
    table_in, table_out = 0.7 * rng.standard_normal((2, 6, 2))
    drawn = rng.integers(0, 6, (MOST, len(_PAIRS), 4))[:, :, :negatives]
    tables, losses = [np.stack([table_in, table_out])], []
    for step in range(steps):
        given = _PAIRS[:, 0], _PAIRS[:, 1], drawn[step], *tables[-1]
        losses.append(forward(*given))
        tables.append(tables[-1] - _PULL * np.stack(backward(1.0, *given)))
    return np.array(tables), np.array(losses, float)


def believed(tables):
    """The mean probability σ(score) of the true pairs, and of the pairs of words of different topics."""
    table_in, table_out = tables
    chance = 1 / (1 + np.exp(-table_in @ table_out.T))
    topic = np.arange(6) // 3
    same = (topic[:, None] == topic) & ~np.eye(6, dtype=bool)
    return chance[same].mean(), chance[topic[:, None] != topic].mean()


def tug_of_war(forward, backward, right_forward, right_backward):
    """True pairs pull, negatives push: word vectors of two topics in the plane, step by step."""
    forward, backward = live(forward), live(backward)

    @lru_cache
    def right(negatives):
        return tug(right_forward, right_backward, negatives, MOST)

    def draw(negatives, steps):
        tables, losses = tug(forward, backward, negatives, steps)
        series = {}
        if steps:
            series = with_reference("loss", np.arange(steps), losses, right(negatives)[1][:steps], COLOURS["output"])
        chart = picture.curve(
            series or {"loss": (np.zeros(0), np.zeros(0), {"colour": COLOURS["output"]})},
            f"loss over {steps} steps",
            "loss",
            "step",
            x_range=(0, MOST),
            y_range=(0, 5),
            width=330,
            height=240,
        )
        return picture.figure(picture.row(_arrows(tables[-1, 0]), chart), said(negatives, steps))

    def said(negatives, steps):
        true, other = believed(right(negatives)[0][steps])
        return (
            f"After {steps} steps with {negatives} negatives per pair: true pairs are believed with a probability of "
            f"{picture.number(true)}, pairs across the topics with {picture.number(other)}."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        negatives=slider("negatives per pair", 0, 4, 2),
        steps=slider("steps", 0, MOST, 0),
    )


def _arrows(vectors):
    """Six arrows from the middle, a colour for each topic."""
    size, reach = 280, 2.8
    scale = size / 2 / reach
    parts = [
        f'<path d="M0 {size / 2}h{size}M{size / 2} 0v{size}" stroke="currentColor" opacity=".25"/>',
        f'<rect width="{size}" height="{size}" fill="none" stroke="currentColor" opacity=".4"/>',
    ]
    words = []
    for k, (x, y) in enumerate(np.clip(np.nan_to_num(vectors), -1e3, 1e3).tolist()):
        colour, a, b = picture.CYCLE[k // 3], size / 2 + scale * x, size / 2 - scale * y
        words.append((a, b, TOPICS[k // 3][k % 3], x < 0))
        parts.append(
            f'<path d="M{size / 2} {size / 2}L{a:.1f} {b:.1f}" stroke="{colour}" stroke-width="2.5"/>'
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>'
        )
    parts += _labels(words)
    svg = (
        f'<svg role="img" aria-label="six word vectors in the plane" viewBox="0 0 {size} {size}" width="{size}" '
        f'height="{size}" font-size="11.5">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, "vectors of the centres", "parameter")


def guess_no_negatives(reference):
    """Predict: what training without negatives would do."""

    def reveal():
        tables, losses = tug(reference("skipgram_loss_forward"), reference("skipgram_loss_backward"), 0, MOST)
        true, other = believed(tables[-1])
        return _arrows(tables[-1, 0]) + picture.note(
            f"After {MOST} steps the loss is {losses[-1]:.3f} and still falling. True pairs are believed with a "
            f"probability of {true:.2f}, pairs across the topics with {other:.2f}: who may say yes to everything does."
        )

    return Predict(
        "Six words of two topics. Training only raises the scores of true pairs, and there are no negatives. What "
        "happens?",
        answer="the loss goes to 0, and every pair scores high, true or not",
        options=[
            "the loss goes to 0, and the topics part",
            "the loss goes to 0, and every pair scores high, true or not",
            "the loss cannot fall",
        ],
        reveal=reveal,
    )


# --- a map of word vectors -------------------------------------------------------------------------------------------


class Scrubber(Explorer):
    """An explorer that, where no kernel answers, is a slider over ready pictures of one of its controls."""

    def __init__(self, draw, *, scrub, pictures=7, **options):
        self._scrub, self._pictures = scrub, pictures
        super().__init__(draw, **options)

    def _static(self):
        return self.frames(self._scrub, self._pictures).data


GENDER_COLOURS = {"male": picture.CYCLE[0], "female": picture.CYCLE[1], "": picture.CYCLE[7]}
AXES = ("gender and number", "two widest directions")


def axes_of(vectors, nouns, which):
    """Two orthonormal directions (2, d) in the space of the nouns' vectors (n, d)."""
    if which == AXES[1]:
        return np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[2][:2]
    gender = _difference(vectors, nouns, "gender", "female", "male")
    number = _difference(vectors, nouns, "number", "singular", "plural")
    gender /= np.linalg.norm(gender)
    number -= number @ gender * gender
    return np.stack([gender, number / np.linalg.norm(number)])


def _difference(vectors, nouns, key, low, high):
    """The mean vector of the nouns with one value of a property, less that of those with the other."""
    values = np.array([getattr(noun, key) for noun in nouns])
    return vectors[values == high].mean(0) - vectors[values == low].mean(0)


def map_points(snapshot, last, nouns, which):
    """Where the nouns' vectors (n, d) of one moment stand on a map whose directions come from the last moment."""
    return (snapshot - snapshot.mean(0)) @ axes_of(last, nouns, which).T


def word_map(snapshots, every, words, nouns, groups):
    """The nouns' vectors while they are trained.

    snapshots  (moments, v, d): the table after 0, every, 2 · every, … steps
    words      all words; nouns: those on the map, {word: its meaning}; groups: {kind: group}
    """
    snapshots, listed = np.asarray(snapshots), list(nouns.values())
    moving = snapshots[:, [words.index(word) for word in nouns]]
    place = {meaning: k for k, meaning in enumerate(listed)}
    shown = {"all": set(groups)} | {g: {k for k in groups if groups[k] == g} for g in dict.fromkeys(groups.values())}

    def points(step, axes):
        return map_points(moving[round(step / every)], moving[-1], listed, axes)

    def draw(step, axes, group, lines):
        at, reach = points(step, axes), 1.3 * np.abs(points(every * (len(moving) - 1), axes)).max(0)
        width, height = 640, 400
        x, y = (at / reach * (1, -1) + 1).T * np.array([[width / 2], [height / 2]])
        chosen = [noun.kind in shown[group] for noun in listed]
        parts = [f'<rect width="{width}" height="{height}" fill="none" stroke="currentColor" opacity=".4"/>']
        parts.append(_links(x, y, listed, place, lines, chosen))
        for colour, full in {(GENDER_COLOURS[n.gender], n.number == "plural") for n in listed}:
            ring = "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0"
            path = "".join(
                f"M{a:.0f} {b:.0f}{ring}"
                for a, b, n, on in zip(x, y, listed, chosen, strict=True)
                if on and (GENDER_COLOURS[n.gender], n.number == "plural") == (colour, full)
            )
            parts.append(f'<path fill="{colour if full else "none"}" stroke="{colour}" stroke-width="2" d="{path}"/>')
        named = [k for k, word in enumerate(nouns) if chosen[k] and (group != "all" or nouns[word].number == "plural")]
        parts += _labels([(x[k], y[k], list(nouns)[k], listed[k].gender == "female") for k in named])
        svg = (
            f'<svg role="img" aria-label="{escape(said(step, axes, group, lines))}" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-size="11" overflow="hidden">{"".join(parts)}</svg>'
        )
        return picture.figure(_key() + svg, said(step, axes, group, lines))

    def said(step, axes, group, lines):
        shares = parallel(moving[round(step / every)], listed)
        told = ", ".join(f"{key} {picture.number(value)}" for key, value in shares.items())
        return (
            f"Step {step}. How parallel are the differences between the two forms of a word, as mean cosine between "
            f"those of different kinds: {told}."
        )

    last = every * (len(moving) - 1)
    return Scrubber(
        draw,
        scrub="step",
        alt=said,
        height=470,
        step=slider("step", 0, last, last, every),
        axes=choice("map", list(AXES)),
        group=choice("words", list(shown)),
        lines=choice("lines", {"male – female": "gender", "one – many": "number", "none": ""}),
    )


def _links(x, y, listed, place, key, chosen):
    """Lines between the two forms of a word that differ in one property alone."""
    other = {"gender": {"male": "female"}, "number": {"singular": "plural"}}.get(key, {})
    path = ""
    for k, noun in enumerate(listed):
        turned = other.get(getattr(noun, key)) if key else None
        if turned and chosen[k]:
            m = place[noun._replace(**{key: turned})]
            path += f"M{x[k]:.0f} {y[k]:.0f}L{x[m]:.0f} {y[m]:.0f}"
    return f'<path d="{path}" stroke="currentColor" opacity=".35"/>'


def _labels(points):
    """The words (x, y, word, whether to the left) beside their dots; those that find no free place are left out."""
    taken, drawn = [], []
    for x, y, word, to_left in points:
        for left in (to_left, not to_left):
            start = x - 6 - 6.2 * len(word) if left else x + 6
            box = start, start + 6.2 * len(word), y
            if all(box[1] < low or high < box[0] or abs(y - at) > 10 for low, high, at in taken):
                taken.append(box)
                anchor = ' text-anchor="end"' if left else ""
                drawn.append(f'<text x="{x + (-6 if left else 6):.0f}" y="{y + 4:.0f}"{anchor}>{word}</text>')
                break
    return drawn


def _key():
    """What the colours and the fillings of the dots mean."""
    told = {"male": "male", "female": "female", "": "no gender of its own"}
    entries = [f'<span style="color:{GENDER_COLOURS[gender]}">●</span> {text}' for gender, text in told.items()]
    joined = " &nbsp; ".join([*entries, "○ one", "● many", "same axes throughout"])
    return f'<div class="lbl-note" aria-hidden="true">{joined}</div>'


def parallel(vectors, nouns):
    """For gender and number: the mean cosine between the differences of different kinds' forms."""
    place, found = {noun: k for k, noun in enumerate(nouns)}, {}
    for key, low, high in (("gender", "female", "male"), ("number", "singular", "plural")):
        pairs = [(k, place[n._replace(**{key: high})]) for n, k in place.items() if n.gender and getattr(n, key) == low]
        kinds = np.array([nouns[low_].kind for low_, _ in pairs])
        gaps = np.array([vectors[b] - vectors[a] for a, b in pairs])
        gaps /= np.maximum(np.linalg.norm(gaps, axis=1, keepdims=True), 1e-12)
        found[key] = float((gaps @ gaps.T)[kinds[:, None] != kinds].mean())
    return found


# --- neighbours ------------------------------------------------------------------------------------------------------


def nearest(vectors, word, measure, k=8):
    """The ids and the similarities of the k words nearest to one, itself left out."""
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if measure == "cosine" else vectors
    similarity = rows @ rows[word]
    order = [i for i in np.argsort(-similarity, kind="stable") if i != word][:k]
    return np.array(order), similarity[order]


def neighbours(vectors, words, counts, start):
    """The nearest words of any word, by cosine and by dot product, and how frequent they are."""
    vectors = np.asarray(vectors)

    def draw(word, measure):
        order, similarity = nearest(vectors, words.index(word), measure)
        top = max(similarity.max(), 1e-9)
        lines = []
        for k, (i, s) in enumerate(zip(order, similarity, strict=True)):
            end = 104 + max(0, 235 * s / top)
            lines.append(
                f'<g transform="translate(0 {24 * k})"><text x="96" y="15" text-anchor="end">{words[i]}</text>'
                f'<rect x="104" y="3" width="{end - 104:.0f}" height="16" fill="{COLOURS["output"]}"/>'
                f'<text x="{end + 8:.0f}" y="15">{picture.number(s)}</text>'
                f'<text x="470" y="15" text-anchor="end" opacity=".75">{counts[i]} times</text></g>'
            )
        svg = (
            f'<svg role="img" aria-label="{escape(said(word, measure))}" viewBox="0 0 480 200" width="480" '
            f'height="200" font-size="12.5">{"".join(lines)}</svg>'
        )
        return picture.figure(picture.piece(svg, f"nearest to “{word}” by {measure}"), said(word, measure))

    def said(word, measure):
        order, _ = nearest(vectors, words.index(word), measure)
        return f"“{word}” ({counts[words.index(word)]} times in the corpus). By {measure}: " + ", ".join(
            words[i] for i in order
        )

    return Explorer(
        draw,
        alt=said,
        height=290,
        word=choice("word", sorted(words), start),
        measure=choice("measure", ["cosine", "dot product"]),
    )


def guess_inputs(share):
    """Predict: how often the answer to an analogy is one of its three words, if they are not excluded."""
    return Predict(
        "After 100 of 2000 steps: a is to b as c is to …? The nearest word to b − a + c is sought among all words, a, "
        "b and c included. In how many per cent of the valid quadruples is one of these three the nearest?",
        answer=round(100 * share),
        reveal=lambda: picture.note(
            f"In {100 * share:.0f} % of them. Most published results leave the three out before they look."
        ),
        tolerance=10,
    )


# --- factors, up to a rotation ---------------------------------------------------------------------------------------


def turn_by(degrees, mirrored):
    """An orthogonal matrix (2, 2): a rotation, after a mirror if asked for."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.diag([1.0, -1.0 if mirrored else 1.0]) @ rotation


def distance(found, true):
    """The root mean square distance between points and where they should be."""
    return float(np.sqrt(((found - true) ** 2).sum(1).mean()))


def turned(found, true, procrustes, right_procrustes):
    """Found factors (p, q) under a rotation of the reader's choice, beside the true ones."""
    (p, q), (p_true, q_true), procrustes = found, true, live(procrustes)
    reach = 1.15 * max(np.abs(q).max(), np.abs(q_true).max())

    def draw(degrees, mirrored, best):
        mine, right = procrustes(p, p_true), right_procrustes(p, p_true)
        r = np.asarray(mine, float) if best else turn_by(degrees, mirrored)
        size = 320
        at, goal = (((z / reach * (1, -1)) + 1) * size / 2 for z in (q @ r, q_true))
        lines = "".join(f"M{a:.0f} {b:.0f}L{c:.0f} {d:.0f}" for (a, b), (c, d) in zip(at, goal, strict=True))
        rings = "".join(f"M{a:.0f} {b:.0f}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0" for a, b in goal)
        dots = "".join(f"M{a:.0f} {b:.0f}m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0" for a, b in at)
        svg = (
            f'<svg role="img" aria-label="{escape(said(degrees, mirrored, best))}" viewBox="0 0 {size} {size}" '
            f'width="{size}" height="{size}"><rect width="{size}" height="{size}" fill="none" stroke="currentColor" '
            f'opacity=".4"/><path d="{lines}" stroke="currentColor" opacity=".3"/><path d="{rings}" fill="none" '
            f'stroke="{COLOURS["right"]}" stroke-width="1.6"/><path d="{dots}" fill="{COLOURS["parameter"]}"/></svg>'
        )
        matrix = picture.heat(r, "r, by hand", vmax=1, role="parameter")
        if best:
            matrix = picture.compare(mine, right, "r = procrustes(p, true p)", vmax=1, role="parameter")
        return picture.figure(
            picture.row(picture.piece(svg, "items: found (dots), true (rings)"), matrix), said(degrees, mirrored, best)
        )

    def said(degrees, mirrored, best):
        r = right_procrustes(p, p_true) if best else turn_by(degrees, mirrored)
        changed = np.abs((p @ r) @ (q @ r).T - p @ q.T).max()
        return (
            f"Distance between found and true factors: users {distance(p @ r, p_true):.2f}, items "
            f"{distance(q @ r, q_true):.2f}. Predictions have changed by {picture.number(round(changed, 9))}."
        )

    return Explorer(
        draw,
        alt=said,
        height=400,
        degrees=slider("turn by degrees", -180, 180, 0, 5),
        mirrored=toggle("mirror first"),
        best=toggle("let procrustes choose"),
    )
