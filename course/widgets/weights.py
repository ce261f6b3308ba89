"""Attention weights as labelled matrices: pointing at a row, or reaching it with Tab, shows its numbers."""

from html import escape

import numpy as np

from course.widgets import picture

_ASK = "Point at a row, or Tab to it: its weights."
# What a row has to show stands inside it, hidden. The cells of a row stand in the order of the columns, so that one
# rule for each column finds them by number.
_STYLE = (
    "<style>.lbl-attn text{text-anchor:middle}.lbl-attn [tabindex]{cursor:help;outline:none}"
    ".lbl-attn [tabindex] g,.lbl-attn:has([tabindex]:hover) [tabindex]:focus:not(:hover) g,"
    ".lbl-attn:has([tabindex]:is(:hover,:focus)) .lbl-ask,.lbl-key path{display:none}"
    ".lbl-attn [tabindex]:is(:hover,:focus) g{display:inline;pointer-events:none}"
    ".lbl-attn [tabindex]:is(:hover,:focus)>text{font-weight:700}.lbl-attn g g text{font-size:10px}"
    ".lbl-attn [tabindex]>path{fill:#1B7FBD}.lbl-attn g g path,.lbl-key path{fill:none;stroke:currentColor;"
    "stroke-width:1.5;pointer-events:none}.lbl-attn .lbl-line{text-anchor:start;font-size:12px}"
    ".lbl-attn .lbl-ask{opacity:.6;font-style:italic}.lbl-attn.lbl-off{opacity:.3}%s</style>"
)
_COLUMN = (
    ".lbl-attn:has([tabindex]>path:nth-of-type({0}):hover) .lbl-key:nth-of-type({0})>path{{display:inline}}"
    ".lbl-attn:has([tabindex]>path:nth-of-type({0}):hover) .lbl-key:nth-of-type({0})>text{{font-weight:700}}"
)


def weights(w, queries, keys, *, names=(), right=None, mask=None, want=None, off=(), alt=""):
    """Attention weights w (T_q, T_k), or (heads, T_q, T_k) side by side: a row for each query, a column for each key.

    queries, keys   their labels, T_q and T_k of them
    names    a title for each head
    right    the cells known to be right, True in a mask that broadcasts to w: outlined in green
    mask     True where attention is allowed, broadcasts to w: the other cells are struck through
    want     the reference: cells of w that differ are outlined in orange
    off      numbers of heads that are switched off: drawn pale
    """
    if want is not None and np.shape(w) != np.shape(want):
        return picture.compare(w, want, "weights")
    w, queries, keys = np.asarray(w, float), [str(label) for label in queries], [str(label) for label in keys]
    if w.ndim not in (2, 3) or w.shape[-2:] != (len(queries), len(keys)):
        raise ValueError(
            f"weights wants (…, {len(queries)}, {len(keys)}), a row per query and a column per key, not {w.shape}"
        )
    right, allowed = (
        np.broadcast_to(missing if given is None else given, w.shape)
        for given, missing in ((right, False), (mask, True))
    )
    wrong = np.zeros(w.shape, bool) if want is None else picture.differs(w, want)
    parts = [part.reshape(-1, *w.shape[-2:]) for part in (w, right, allowed, wrong)]
    names = names or ([f"head {k}" for k in range(len(w))] if w.ndim == 3 else [""])
    pieces = [
        picture.piece(_matrix(*part, queries, keys, alt or f"attention weights {name}".strip(), k in off), name)
        for k, (*part, name) in enumerate(zip(*parts, names, strict=True))
    ]
    style = _STYLE % "".join(_COLUMN.format(j + 1) for j in range(len(keys)))
    return style + picture.row(*pieces) + ("" if want is None else picture.verdict(wrong))


def told(value):
    """A weight with two decimals and no more signs than it needs: .83, 1, 0."""
    text = "nan" if np.isnan(value) else f"{value:.2f}"
    return {"0.00": "0", "1.00": "1"}.get(text, text.removeprefix("0"))


def _matrix(w, right, allowed, wrong, queries, keys, alt, off):
    """One matrix as SVG."""
    side, longest = 26 if max(w.shape) <= 12 else 21, max(map(len, keys))
    left, top = 14 + 7 * max(map(len, queries)), 22 + (7 * longest if longest > 3 else 12)
    width, bottom = max(left + side * len(keys) + 4, 240), top + side * len(queries)
    xs, ys = left + side * np.arange(len(keys)), top + side * np.arange(len(queries))

    def squares(which, inset=0):
        edge = side - 1 - 2 * inset
        cells = zip(*np.nonzero(which), strict=True)
        return "".join(f"M{xs[j] + inset} {ys[i] + inset}h{edge}v{edge}h-{edge}z" for i, j in cells)

    def line(i, middle, said):
        shades = "".join(
            f'<path d="M{x} {ys[i]}h{side - 1}v{side - 1}h-{side - 1}z" fill-opacity="{_shade(value)}"/>'
            for x, value in zip(xs, w[i], strict=True)
        )
        numbers = "".join(
            f'<text x="{x + side // 2}" y="{middle}">{told(value)}</text>'
            for x, value, may in zip(xs, w[i], allowed[i], strict=True)
            if may or value  # a weight where none may be is to be seen
        )
        return (
            f'<g tabindex="0" role="img" aria-label="{said}"><text x="{left / 2}" y="{middle}">{escape(queries[i])}'
            f"</text>{shades}<g>{_box(left, ys[i], side * len(keys), side)}{numbers}"
            f'<text class="lbl-line" x="2" y="{bottom + 18}">{said}</text></g></g>'
        )

    tall = side * len(queries)
    columns = (
        f'<g class="lbl-key">{_box(x, top, side, tall)}{_label(key, x + side // 2, top - 6, longest)}</g>'
        for x, key in zip(xs, keys, strict=True)
    )
    rows = (line(i, ys[i] + side // 2 + 4, escape(_said(query, w[i], keys))) for i, query in enumerate(queries))
    struck = "".join(f"M{xs[j] + 6} {ys[i] + side - 7}l{side - 13} {13 - side}" for i, j in np.argwhere(~allowed))
    outlines = "".join(
        f'<path d="{squares(which, inset)}" fill="none" stroke="{picture.COLOURS[role]}" stroke-width="2.5" '
        'pointer-events="none"/>'
        for which, inset, role in ((right, 1, "right"), (wrong, 3, "wrong"))
        if which.any()
    )
    return (
        f'<svg class="lbl-attn{" lbl-off" if off else ""}" role="group" aria-label="{escape(alt)}" '
        f'viewBox="0 0 {width} {bottom + 24}" width="{width}" height="{bottom + 24}" font-size="12">{"".join(columns)}'
        f'<text x="{left + side * len(keys) / 2}" y="12" opacity=".7">keys</text>'
        f'<path d="{squares(np.ones(w.shape))}" fill="currentColor" opacity=".07"/>{"".join(rows)}'
        f'<path d="{struck}" stroke="currentColor" opacity=".4" pointer-events="none"/>{outlines}'
        f'<text class="lbl-line lbl-ask" x="2" y="{bottom + 18}">{_ASK}</text></svg>'
    )


def _box(x, y, width, height):
    return f'<path d="M{x - 1} {y - 1}h{width + 1}v{height + 1}h-{width + 1}z"/>'


def _label(text, x, y, longest):
    """The label of a column: upright where they are long."""
    if longest > 3:
        return f'<text transform="translate({x + 4} {y}) rotate(-90)" style="text-anchor:start">{escape(text)}</text>'
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'


def _shade(value):
    return f"{np.clip(np.nan_to_num(value), 0, 1):.2f}"


def _said(query, row, keys):
    """The largest weights of a row in words."""
    largest = sorted(range(len(keys)), key=lambda j: -np.nan_to_num(row[j]))[:3]
    parts = [f"{told(row[j])} on {keys[j]}" for j in largest if not row[j] < 0.005]
    return f"{query}: {', '.join(parts) or 'nothing'}"
