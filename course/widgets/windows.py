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

    Either may have channels before its rows; they are drawn below each other, and stand before row and column in cells.

    reach     (i, j) -> the cells (row, column) of x behind y[i, j]; those outside lie in the padding
    tell      (i, j) -> how y[i, j] came about, in a line or two
    want      the reference: cells of y that differ are outlined in orange and show both values
    padding   rings of pale cells around x, each showing `padding_text`
    x_vmax, y_vmax   the values of the strongest colours, for a scale that stays while a slider moves
    """
    if want is not None and np.shape(y) != np.shape(want):
        left = picture.heat(np.reshape(x, (-1, np.shape(x)[-1])), x_title, vmax=x_vmax, role=x_role)
        return picture.row(left, picture.compare(y, want, y_title, role=y_role))
    x, y = np.asarray(x, float), np.asarray(y, float)
    want = y if want is None else np.asarray(want, float)
    wrong = picture.differs(y, want)
    ringed = x.shape[-2] + 2 * padding, x.shape[-1] + 2 * padding
    longest = max(len(picture.number(value, digits)) for value in (*x.flat, *y.flat))
    side = 30 if max(*ringed, *y.shape[-2:]) > 8 and longest < 5 and not wrong.any() else 38
    left = 2 + side * ringed[1] + _GAP
    x_starts = _starts(x.shape[:-2], 2 + side * padding, side * ringed[0], side * padding)
    y_starts = _starts(y.shape[:-2], left, side * y.shape[-2])
    width = max(left + side * y.shape[-1] + 2, 500)
    below = max(
        max(b for _, b in x_starts.values()) + side * (ringed[0] - padding),
        max(b for _, b in y_starts.values()) + side * y.shape[-2],
    )
    below += 24

    told = {}
    for index in np.ndindex(y.shape):
        got, right = (picture.number(value[index], digits) for value in (y, want))
        both = f"{got} here, {right} in the reference. " if wrong[index] else ""
        told[index] = wrap(both + tell(*index), int(width / 6.6))

    if y_vmax is None:
        y_vmax = picture.limits(np.stack([y, want]), "signed")[1]
    x_colours, y_colours = _colours(x, x_vmax), _colours(y, y_vmax)
    drawn = [_title(x_title, x_role, 2), _title(y_title, y_role, left)]
    drawn += [_ring(x.shape[-2:], padding, padding_text, side, start) for start in x_starts.values()]
    drawn += ["<g>", *(_cell(x, x_colours, index, x_starts, side, digits) for index in np.ndindex(x.shape)), "</g>"]
    for index in np.ndindex(y.shape):
        cell = _cell(y, y_colours, index, y_starts, side, digits, want if wrong[index] else None)
        lines = "".join(f'<text y="{below + k * _LINE}">{escape(line)}</text>' for k, line in enumerate(told[index]))
        spots = [spot for spot in reach(*index) if _is_drawn(spot[-2:], x.shape[-2:], padding)]
        outlines = _outline(spots, x_starts, side) + _outline([index], y_starts, side)
        drawn.append(f'<g tabindex="0">{cell}<g><path d="{outlines}"/>{lines}</g></g>')
    drawn.append(f'<text class="lbl-ask" y="{below}">{_ASK}</text>')
    height = below + _LINE * max((len(lines) for lines in told.values()), default=1) - 10
    return (
        f'{_STYLE}<svg class="lbl-win" role="group" aria-label="{escape(alt or f"{x_title} and {y_title}")}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="13">{"".join(drawn)}</svg>'
        f"{picture.verdict(wrong) if want is not y else ''}"
    )


def _starts(channels, left, height, ring=0):
    """Where the first cell of every channel stands: {its index: (x, y)}."""
    return {index: (left, _TOP + ring + k * (height + 12)) for k, index in enumerate(np.ndindex(channels))}


def _is_drawn(cell, shape, padding):
    return all(-padding <= k < size + padding for k, size in zip(cell, shape, strict=True))


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
    levels = picture.indices(values, "signed", vmax=vmax)
    return {index: table[level] for index, level in np.ndenumerate(levels)}


def _cell(values, colours, index, starts, side, digits, want=None):
    """One cell; with `want`, outlined and with both values."""
    fill, ink = colours[index]
    *channel, i, j = index
    a, b = starts[tuple(channel)]
    a, b = a + side * j, b + side * i
    square = f'd="M{a} {b}h{side - 1}v{side - 1}h-{side - 1}z"/>'
    middle, line = a + side // 2, b + side // 2 + 4
    text = picture.number(values[index], digits)
    if want is None:
        return f'<path fill="{fill}" {square}<text x="{middle}" y="{line}"{ink}>{text}</text>'
    right = picture.number(want[index], digits)
    return (
        f'<path fill="{fill}" {square}<path {square}<text x="{middle}" y="{line - 6}"{ink}>{text}</text>'
        f'<text x="{middle}" y="{line + 8}"{ink}>≠ {right}</text>'
    )


def _ring(shape, padding, text, side, start):
    """The pale cells around x."""
    cells = [
        (start[0] + side * j, start[1] + side * i)
        for i in range(-padding, shape[0] + padding)
        for j in range(-padding, shape[1] + padding)
        if not (0 <= i < shape[0] and 0 <= j < shape[1])
    ]
    squares = "".join(f"M{a} {b}h{side - 1}v{side - 1}h-{side - 1}z" for a, b in cells)
    texts = "".join(f'<text x="{a + side // 2}" y="{b + side // 2 + 4}">{escape(text)}</text>' for a, b in cells)
    return f'<g class="lbl-pale"><path d="{squares}"/>{texts}</g>' if cells else ""


def _outline(spots, starts, side):
    """The cells as rectangles, neighbours joined."""
    path = ""
    for channel, (a, b) in starts.items():
        for i, j, rows, columns in _rectangles(spot[-2:] for spot in spots if spot[:-2] == channel):
            path += f"M{a + side * j} {b + side * i}h{side * columns - 1}v{side * rows - 1}h-{side * columns - 1}z"
    return path


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
