"""Two grids of numbers: pointing at a cell of the second, or reaching it with Tab, shows the cells it is made of."""

from html import escape
from textwrap import wrap

import numpy as np

from course.widgets import picture

_ASK = "Point at a cell on the right, or reach it with Tab, to read how it came about."
# What a cell has to show stands inside it, hidden: a few rules serve all cells, and no script is needed.
_STYLE = (
    "<style>svg.lbl-win>g>text{text-anchor:middle;font-size:11px;fill:#111}"
    ".lbl-win [tabindex]{cursor:help;outline:none}"
    ".lbl-win [tabindex] g,.lbl-win:has([tabindex]:hover) [tabindex]:focus:not(:hover) g,"
    ".lbl-win:has([tabindex]:is(:hover,:focus)) .lbl-ask{display:none}"
    ".lbl-win [tabindex]:is(:hover,:focus) g{display:inline;pointer-events:none}"
    ".lbl-win g g path{fill:none;stroke:#111;stroke-width:3;filter:drop-shadow(0 0 1px #fff)}"
    ".lbl-win .lbl-ask{opacity:.6;font-style:italic}.lbl-win [tabindex]>path+path{fill:none;stroke:#D55E00;"
    "stroke-width:3}.lbl-win .lbl-pale{opacity:.45}.lbl-win .lbl-pale *{fill:currentColor!important}"
    ".lbl-pale path{fill-opacity:0;stroke:currentColor}</style>"
)
_TOP, _GAP, _LINE = 26, 56, 18  # pixels: above the grids, between them, from one line of text to the next


def windows(
    x,
    y,
    reach,
    tell,
    *,
    want=None,
    x_title="input",
    y_title="output",
    x_role="input",
    y_role="output",
    padding=0,
    padding_text="0",
    alt="",
    digits=2,
    x_vmax=None,
    y_vmax=None,
):
    """Grids x (h, w) and y (rows, columns) of up to about 12 × 12 numbers, as one picture.

    reach     (i, j) -> the cells (row, column) of x behind y[i, j]; those outside lie in the padding
    tell      (i, j) -> how y[i, j] came about, in a line or two
    want      the reference: cells of y that differ are outlined in orange and show both values
    padding   rings of pale cells around x, each showing `padding_text`
    x_vmax, y_vmax   the values of the strongest colours, for a scale that stays while a slider moves
    """
    if want is not None and np.shape(y) != np.shape(want):
        left = picture.heat(x, x_title, vmax=x_vmax, role=x_role)
        return picture.row(left, picture.compare(y, want, y_title, role=y_role))
    x, y = np.asarray(x, float), np.asarray(y, float)
    want = y if want is None else np.asarray(want, float)
    wrong = picture.differs(y, want)
    rows, columns = x.shape[0] + 2 * padding, x.shape[1] + 2 * padding
    longest = max(len(picture.number(value, digits)) for value in (*x.flat, *y.flat))
    side = 30 if max(rows, columns, *y.shape) > 8 and longest < 5 and not wrong.any() else 38
    left = 2 + side * columns + _GAP
    width = max(left + side * y.shape[1] + 2, 460)
    below = _TOP + side * max(rows, y.shape[0]) + 24
    told = {}
    for index in np.ndindex(y.shape):
        got, right = (picture.number(value[index], digits) for value in (y, want))
        both = f"{got} here, {right} in the reference. " if wrong[index] else ""
        told[index] = wrap(both + tell(*index), int(width / 6.6))

    start = 2 + side * padding, _TOP + side * padding
    if y_vmax is None:
        y_vmax = picture.limits(np.stack([y, want]), "signed")[1]
    x_colours, y_colours = _colours(x, x_vmax), _colours(y, y_vmax)
    drawn = [_title(x_title, x_role, 2), _title(y_title, y_role, left), _ring(x.shape, padding, padding_text, side)]
    drawn += ["<g>", *(_cell(x, x_colours, index, start, side, digits) for index in np.ndindex(x.shape)), "</g>"]
    for i, j in np.ndindex(y.shape):
        cell = _cell(y, y_colours, (i, j), (left, _TOP), side, digits, want if wrong[i, j] else None)
        lines = "".join(f'<text y="{below + k * _LINE}">{escape(line)}</text>' for k, line in enumerate(told[i, j]))
        spots = [(a, b) for a, b in reach(i, j) if -padding <= a < rows - padding and -padding <= b < columns - padding]
        outlines = _outline(spots, start, side) + _outline([(i, j)], (left, _TOP), side)
        drawn.append(f'<g tabindex="0">{cell}<g><path d="{outlines}"/>{lines}</g></g>')
    drawn.append(f'<text class="lbl-ask" y="{below}">{_ASK}</text>')
    height = below + _LINE * max((len(lines) for lines in told.values()), default=1) - 10
    return (
        f'{_STYLE}<svg class="lbl-win" role="group" aria-label="{escape(alt or f"{x_title} and {y_title}")}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="13">{"".join(drawn)}</svg>'
        f"{_verdict(wrong) if want is not y else ''}"
    )


def _title(text, role, left):
    return (
        f'<path fill="{picture.COLOURS.get(role, role)}" d="M{left} 2h4v15h-4z"/>'
        f'<text x="{left + 11}" y="14" font-weight="600">{escape(text)}</text>'
    )


def _colours(values, vmax):
    """The colour of every cell, and the style of a number on it: white where the colour is dark."""
    table = [
        ("#" + bytes(rgb).hex(), "" if rgb @ (0.3, 0.6, 0.1) > 120 else ' style="fill:#fff"')
        for rgb in picture.palette_bytes("signed")
    ]
    table.append(("#999999", ""))  # for nan
    return [[table[level] for level in row] for row in picture.indices(values, "signed", vmax=vmax)]


def _cell(values, colours, index, start, side, digits, want=None):
    """One cell; with `want`, outlined and with both values."""
    (i, j), (fill, ink) = index, colours[index[0]][index[1]]
    a, b = start[0] + side * j, start[1] + side * i
    square = f'd="M{a} {b}h{side - 1}v{side - 1}h-{side - 1}z"/>'
    middle, line = a + side // 2, b + side // 2 + 4
    text = picture.number(values[i, j], digits)
    if want is None:
        return f'<path fill="{fill}" {square}<text x="{middle}" y="{line}"{ink}>{text}</text>'
    right = picture.number(want[i, j], digits)
    return (
        f'<path fill="{fill}" {square}<path {square}<text x="{middle}" y="{line - 6}"{ink}>{text}</text>'
        f'<text x="{middle}" y="{line + 8}"{ink}>≠ {right}</text>'
    )


def _ring(shape, padding, text, side):
    """The pale cells around x."""
    cells = [
        (2 + side * j, _TOP + side * i)
        for i, j in np.ndindex(shape[0] + 2 * padding, shape[1] + 2 * padding)
        if not (padding <= i < shape[0] + padding and padding <= j < shape[1] + padding)
    ]
    squares = "".join(f"M{a} {b}h{side - 1}v{side - 1}h-{side - 1}z" for a, b in cells)
    texts = "".join(f'<text x="{a + side // 2}" y="{b + side // 2 + 4}">{escape(text)}</text>' for a, b in cells)
    return f'<g class="lbl-pale"><path d="{squares}"/>{texts}</g>'


def _outline(spots, start, side):
    """The cells as rectangles, neighbours joined."""
    return "".join(
        f"M{start[0] + side * j} {start[1] + side * i}h{side * columns - 1}v{side * rows - 1}h-{side * columns - 1}z"
        for i, j, rows, columns in _rectangles(spots)
    )


def _rectangles(spots):
    """Cells as (row, column, rows, columns): runs along the rows, equal runs below each other joined."""
    runs = []
    for i, j in sorted(set(spots)):
        if runs and runs[-1][0] == i and sum(runs[-1][1:]) == j:
            runs[-1][2] += 1
        else:
            runs.append([i, j, 1])
    tall = {}
    for i, j, columns in runs:
        above = next(
            (key for key, rows in tall.items() if key[1:] == (j, columns) and key[0] + rows == i), (i, j, columns)
        )
        tall[above] = tall.get(above, 0) + 1
    return [(i, j, rows, columns) for (i, j, columns), rows in tall.items()]


def _verdict(wrong):
    colour, said = (
        ("wrong", f"{wrong.sum()} of {wrong.size} cells differ") if wrong.any() else ("right", "same as the reference")
    )
    return f'<div class="lbl-verdict" style="border-color:{picture.COLOURS[colour]}">{said}</div>'
