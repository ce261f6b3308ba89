"""Pictures as HTML strings, made from arrays fast enough to redraw while a slider moves.

Everything here is a pure function. Colours come from a few anchors, text is drawn in the page's own
colour (light and dark themes), and every picture carries its alternative text.
"""

import base64
import re
import struct
import zlib
from functools import lru_cache
from html import escape

import numpy as np

# What a colour means, in every figure of every lesson (after Okabe and Ito, 2008: safe for colour-blind readers).
COLOURS = {
    "input": "#1B7FBD",
    "parameter": "#CC79A7",
    "output": "#009E73",
    "gradient": "#E69F00",
    "right": "#009E73",
    "wrong": "#D55E00",
}
# Series of a line chart, and classes of points.
CYCLE = ("#1B7FBD", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C7A00", "#7A7A7A", "#004B77", "#8A4B00")

_ANCHORS = {
    "signed": ((74, 38, 130), (150, 138, 202), (248, 247, 246), (244, 172, 84), (172, 80, 6)),
    "magnitude": ((48, 16, 92), (44, 92, 142), (30, 150, 138), (122, 202, 86), (250, 232, 62)),
    "ink": ((255, 255, 255), (20, 20, 28)),
}

# A picture carries those rules that it uses: many pictures stand in a notebook.
_RULES = """
.lbl{font:13px/1.45 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;max-width:100%}
.lbl figure{margin:0;position:relative}
.lbl figcaption{margin:8px 0 0;max-width:46em;opacity:.85}
.lbl .lbl-row{display:flex;flex-wrap:wrap;align-items:center;gap:10px 18px}
.lbl .lbl-piece{display:flex;flex-direction:column;align-items:flex-start;gap:4px;max-width:100%}
.lbl .lbl-title{font-weight:600;white-space:nowrap;padding-left:7px;border-left:4px solid transparent;
 line-height:1.25}
.lbl .lbl-title span{font-weight:400;opacity:.7}
.lbl .lbl-op{font-size:22px;opacity:.75}
.lbl .lbl-note{font-size:12px;opacity:.85}
.lbl .lbl-verdict{font-size:12px;padding-left:7px;border-left:4px solid;white-space:nowrap;line-height:1.25;
 margin-top:2px}
.lbl img,.lbl svg{max-width:100%;height:auto;display:block}
.lbl img{image-rendering:pixelated;border-radius:2px}
.lbl svg text{font-family:inherit;fill:currentColor}
.lbl table.lbl-heat{border-collapse:separate;border-spacing:2px;margin:0;border:0;table-layout:auto;font-size:12px;
 width:auto}
.lbl table.lbl-heat tr{background:none!important}
.lbl table.lbl-heat th{font-weight:400;opacity:.7;padding:0 5px;border:0;text-align:center;font-size:11px}
.lbl table.lbl-heat td{min-width:40px;height:28px;padding:2px 4px;border:0;border-radius:3px;text-align:center;
 vertical-align:middle;white-space:nowrap;font-variant-numeric:tabular-nums;line-height:1.15}
.lbl td[tabindex]{cursor:help}
.lbl td[tabindex]:hover,.lbl td:focus{outline:2px solid currentColor;outline-offset:0}
.lbl td.lbl-mark{box-shadow:inset 0 0 0 1.5px #fff,inset 0 0 0 3.5px #111}
.lbl td.lbl-differs{box-shadow:inset 0 0 0 3px #D55E00,inset 0 0 0 4.5px #fff;padding:5px 8px!important}
.lbl td small{display:block;font-size:10.5px;opacity:.9}
.lbl .lbl-reads{padding-bottom:3.4em}
.lbl .lbl-hint,.lbl .lbl-tip{position:absolute;left:0;right:0;bottom:0;height:2.9em;overflow:hidden}
.lbl .lbl-hint{opacity:.6;font-style:italic}
.lbl .lbl-tip{display:none;text-align:left;white-space:normal;font-size:13px;line-height:1.45}
.lbl td:focus .lbl-tip,.lbl td:hover .lbl-tip{display:block}
.lbl figure:has(td[tabindex]:hover) .lbl-hint,.lbl figure:has(td:focus) .lbl-hint,
.lbl figure:has(td[tabindex]:hover) td:focus:not(:hover) .lbl-tip{display:none}
.lbl .lbl-error{border-left:4px solid #D55E00;padding:6px 12px;max-width:60em}
.lbl .lbl-error pre{font-size:12px;margin:6px 0 0;white-space:pre-wrap;background:none;color:inherit}
.lbl .lbl-bar{height:6px;border-radius:3px;background:rgba(128,128,128,.3);max-width:440px;margin:4px 0 8px}
.lbl .lbl-bar div{height:100%;border-radius:3px;background:#1B7FBD}
.lbl summary{cursor:pointer}
"""


# --- numbers and colours ---


def number(value, digits=2):
    """A number as people write it: a true minus sign, no minus zero, no decimals for whole numbers.

    At most `digits` decimals, fewer for large numbers.
    """
    value = float(value)
    if not np.isfinite(value):
        return "nan" if np.isnan(value) else "∞" if value > 0 else "−∞"
    if value.is_integer() and abs(value) < 1e6:
        text = f"{value:.0f}"
    elif abs(value) >= 1e5 or 0 < abs(value) < 0.5 * 10.0**-digits:
        text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    else:
        text = f"{value:.{min(digits, max(0, 4 - len(str(int(abs(value))))))}f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


@lru_cache
def palette_bytes(name):
    """255 colours (255, 3) as uint8. Odd on purpose: the middle of "signed" is exactly zero."""
    return _interpolate(_ANCHORS[name], 255)


def _interpolate(anchors, levels):
    anchors = np.asarray(anchors, float)
    at = np.linspace(0, len(anchors) - 1, levels)
    return (
        np.stack([np.interp(at, range(len(anchors)), channel) for channel in anchors.T], axis=1)
        .round()
        .astype(np.uint8)
    )


def _table(palette):
    table = palette_bytes(palette) if isinstance(palette, str) else np.asarray(palette, np.uint8)
    if len(table) > 255:
        raise ValueError(f"a palette has at most 255 colours, not {len(table)}")
    return table


def limits(array, palette="magnitude", vmin=None, vmax=None):
    """The values that get the first and the last colour; symmetric about zero for the signed palette."""
    finite = np.asarray(array, float)
    finite = finite[np.isfinite(finite)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if isinstance(palette, str) and palette == "signed":
        top = max(abs(low), abs(high)) if vmax is None else abs(vmax)
        low, high = -top if vmin is None else vmin, top
    else:
        low, high = low if vmin is None else vmin, high if vmax is None else vmax
    return (low, high) if high > low else (low - 1.0, low + 1.0)


def indices(array, palette="magnitude", vmin=None, vmax=None):
    """Which colour of the palette each value gets, uint8; 255 (transparent in a picture) stands for NaN."""
    levels = len(_table(palette))
    low, high = limits(array, palette, vmin, vmax)
    with np.errstate(invalid="ignore"):
        level = (np.clip(np.asarray(array, float), low, high) - low) * ((levels - 1) / (high - low))
    return np.where(np.isnan(level), 255, np.rint(np.nan_to_num(level))).astype(np.uint8)


def _hex(rgb):
    return "#" + bytes(int(v) for v in rgb).hex()


def _ink_on(rgb):
    """Black or white, whichever is readable on this colour."""
    r, g, b = (np.asarray(rgb, float) / 255) ** 2.2
    return "#111" if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 else "#fff"


# --- pixels ---


def png8(array, palette="magnitude", vmin=None, vmax=None):
    """A 2-D array as the bytes of a PNG with one byte per pixel: the colour map is the file's own palette."""
    array = np.asarray(array)
    if array.ndim != 2:
        raise ValueError(f"png8 draws a 2-D array, not one of shape {array.shape}")
    table = _table(palette)
    pixels = indices(array, palette, vmin, vmax)
    lines = np.zeros((len(pixels), array.shape[1] + 1), np.uint8)  # each line starts with its filter: 0, none
    lines[:, 1:] = pixels
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(table)] = table

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 8, 3, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", colours.tobytes()),
            chunk(b"tRNS", b"\xff" * 255 + b"\x00"),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)),
            chunk(b"IEND", b""),
        )
    )


def data_uri(png):
    return "data:image/png;base64," + base64.b64encode(png).decode()


def img(array, alt, palette="magnitude", vmin=None, vmax=None, width=200, title="", role=None, shape=None):
    """A 2-D array as pixels, `width` wide on the page; the title shows `shape` where it is not the array's own."""
    array = np.asarray(array)
    picture = (
        f'<img alt="{escape(alt)}" width="{width}" height="{round(width * array.shape[0] / array.shape[1])}" '
        f'src="{data_uri(png8(array, palette, vmin, vmax))}">'
    )
    return piece(picture, title, role, shape or array.shape) if title else picture


def mosaic(images, columns=None, gap=1):
    """Many equal pictures (n, h, w) as one array, side by side, with gaps that a picture leaves transparent."""
    images = np.asarray(images, float)
    n, h, w = images.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap), np.nan)
    for k, image in enumerate(images):
        top, left = (k // columns) * (h + gap), (k % columns) * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


# --- putting pieces together ---


def piece(html, title="", role=None, shape=None):
    """One labelled part of a figure; `role` (input, parameter, output, gradient) gives the label's colour."""
    colour = COLOURS.get(role, role) or "transparent"
    indent = "" if role else ";padding-left:0;border-left-width:0"
    size = f" <span>{_shape(shape)}</span>" if shape is not None else ""
    head = f'<div class="lbl-title" style="border-color:{colour}{indent}">{escape(title)}{size}</div>' if title else ""
    return f'<div class="lbl-piece">{head}{html}</div>'


def row(*pieces):
    """Pieces side by side; they wrap where the page is narrow."""
    return f'<div class="lbl-row">{"".join(pieces)}</div>'


def operator(sign):
    """A sign between pieces: ×, +, =, →."""
    return f'<div class="lbl-op" aria-hidden="true">{escape(sign)}</div>'


def note(text):
    """A small line of text."""
    return f'<div class="lbl-note">{escape(text)}</div>'


def figure(html, caption=""):
    """A figure: pieces, a caption that says the finding and, where cells have something to tell, a line to read it."""
    reads = 'class="lbl-tip"' in html
    hint = (
        '<div class="lbl-hint">Point at a cell, or reach it with Tab, to read how it came about.</div>' if reads else ""
    )
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure{' class=lbl-reads' if reads else ''}>{html}{text}{hint}</figure>"


def page(html, label=""):
    """A picture that stands by itself: with its style, and its alternative text for screen readers."""
    return styled(block(html, label))


def styled(html):
    """Blocks with the style that they use."""
    return style(html) + html


def block(html, label=""):
    """A picture with its alternative text, for a page that has the style."""
    described = f' role="group" aria-label="{escape(label)}"' if label else ""
    return f'<div class="lbl"{described}>{html}</div>'


def style(html):
    """The style sheet of a picture: of all rules those that speak of no class, or of one that it uses."""
    return _style_for(frozenset(re.findall(r"lbl-\w+", html)))


@lru_cache
def _style_for(classes):
    rules = re.findall(r"[^{}]+{[^{}]+}", _RULES.replace("\n", ""))
    needs = [set(re.findall(r"lbl-\w+", rule)) for rule in rules]
    return f"<style>{''.join(rule for rule, of in zip(rules, needs, strict=True) if not of or of & classes)}</style>"


def _shape(shape):
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


# --- numbers to read ---

LARGEST_HEAT = 12  # more rows or columns than this are drawn as pixels


def differs(got, want, tolerance=1e-5):
    """Which elements of `got` are not those of `want` (same shape), as the checks see it."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    finite = np.abs(want[np.isfinite(want)])
    allowed = tolerance * (1 + (finite.max() if finite.size else 0))
    with np.errstate(invalid="ignore"):
        close = np.abs(got - want) <= allowed
    return ~(close | (got == want) | (np.isnan(got) & np.isnan(want)))


def heat(
    array,
    title="",
    alt="",
    palette="signed",
    vmin=None,
    vmax=None,
    want=None,
    tips=None,
    rows=None,
    columns=None,
    mark=(),
    digits=2,
    role=None,
):
    """A small array as coloured cells with their numbers; a larger one as pixels.

    tips     (i, j) -> text shown when the cell is pointed at or focused; for a vector j is the index and i is 0
    want     the reference: cells that differ are outlined in orange and show both values
    mark     cells (i, j) to outline, for instance those that make up one output
    rows, columns   labels
    """
    if want is not None:
        if said := _mismatch(array, want):
            return piece(f'<div class="lbl-error">{escape(said)}</div>', title, role)
    array = np.asarray(array, float)
    shape = array.shape
    cells = array.reshape(1, -1) if array.ndim < 2 else array
    if cells.ndim != 2:
        raise ValueError(f"heat draws at most two axes, not {shape}")
    wanted = None if want is None else np.asarray(want, float).reshape(cells.shape)
    wrong = np.zeros(cells.shape, bool) if want is None else differs(cells, wanted)
    low, high = limits(cells if want is None else np.stack([cells, wanted]), palette, vmin, vmax)
    below = "" if want is None else verdict(wrong, _worst(cells, wanted, wrong))
    if max(cells.shape) > LARGEST_HEAT:
        width = min(320, 12 * cells.shape[1])
        return piece(img(cells, alt or title, palette, low, high, width=width) + below, title, role, shape)

    table, marked = _table(palette), set(mark)
    lines = []
    if columns is not None:
        corner = "<th></th>" if rows is not None else ""
        lines.append(f"<tr>{corner}{''.join(f'<th scope=col>{escape(str(c))}</th>' for c in columns)}</tr>")
    for i, line in enumerate(indices(cells, palette, low, high)):
        line_cells = [f"<th scope=row>{escape(str(rows[i]))}</th>"] if rows is not None else []
        for j, level in enumerate(line):
            rgb = table[level] if level < len(table) else (128, 128, 128)
            text, kind, tip = number(cells[i, j], digits), "", tips(i, j) if tips else ""
            if wrong[i, j]:
                text, tip, kind = _both(cells[i, j], wanted[i, j], digits, tip)
            elif (i, j) in marked:
                kind = ' class="lbl-mark"'
            if tip:
                tip = f'<span class="lbl-tip">{escape(tip)}</span>'
                kind += ' tabindex="0"'
            line_cells.append(
                f'<td{kind} style="background:{_hex(rgb)}"><span style="color:{_ink_on(rgb)}">{text}</span>{tip}</td>'
            )
        lines.append(f"<tr>{''.join(line_cells)}</tr>")
    label = f' aria-label="{escape(alt or title)}"' if alt or title else ""
    return piece(f'<table class="lbl-heat"{label}>{"".join(lines)}</table>{below}', title, role, shape)


def compare(got, want, title="", alt="", **options):
    """What the learner's code gave, with every cell that differs from the reference outlined, both values in it."""
    return heat(got, title, alt, want=want, **options)


def _mismatch(got, want):
    """A sentence where got cannot be laid over want at all."""
    wanted = f"the reference has shape {_shape(np.shape(want))}"
    try:
        shape = None if got is None else np.asarray(got, float).shape
    except (TypeError, ValueError, RuntimeError):
        shape = None
    if shape is None:
        return f"This gave {type(got).__name__}, not an array of numbers; {wanted}."
    return "" if shape == np.shape(want) else f"This gave shape {_shape(shape)}; {wanted}."


def _both(got, want, digits, tip):
    """Cell text, tip and class of a cell that differs: enough digits that the two values look different."""
    mine, theirs, digits = number(got, digits), number(want, digits), 3
    while mine == theirs and digits < 17:
        mine, theirs = (f"{v:.{digits}g}".replace("-", "−") for v in (got, want))
        digits += 1
    tip = f"{mine} here, {theirs} in the reference. {tip}"
    return f"<b>{mine}</b><small>want {theirs}</small>", tip.strip(), ' class="lbl-differs"'


def verdict(wrong, where=""):
    """The line under a comparison: how many cells differ from the reference, and `where`, or that none does."""
    role, said = "right", "same as the reference"
    if wrong.any():
        role, said = "wrong", f"{wrong.sum()} of {wrong.size} {'differs' if wrong.size == 1 else 'cells differ'}{where}"
    return f'<div class="lbl-verdict" style="border-color:{COLOURS[role]}">{said}</div>'


def _worst(got, want, wrong):
    """Where they differ most, for pictures too fine to show numbers."""
    if max(got.shape) <= LARGEST_HEAT or not wrong.any():
        return ""
    with np.errstate(invalid="ignore"):
        gap = np.where(wrong, np.nan_to_num(np.abs(got - want), nan=np.inf), -1)
    i, j = np.unravel_index(gap.argmax(), gap.shape)
    return f"; at [{i}, {j}]: {number(got[i, j], 3)}, want {number(want[i, j], 3)}"


# --- charts ---


def ticks(low, high, about=5):
    """Round positions between low and high: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(s for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    return [float(np.round(k * step, 12)) for k in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def _tick_text(value):
    return number(value) if float(value).is_integer() else f"{value:g}".replace("-", "−")


def _span(values, given, margin):
    if given is not None:
        return tuple(map(float, given))
    finite = np.concatenate([np.ravel(v) for v in values]) if values else np.zeros(0)
    finite = finite[np.isfinite(finite)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    pad = (high - low) * margin if high > low else 0.5
    return low - pad, high + pad


class _Frame:
    """Axes: maps data to the SVG's coordinates and draws what surrounds the plot."""

    def __init__(self, x_range, y_range, width, height, top, left=46, bottom=40, right=12):
        self.x_range, self.y_range = x_range, y_range
        self.width, self.height, self.left, self.top = width, height, left, top
        self.w, self.h = width - left - right, height - top - bottom

    def x(self, value):
        low, high = self.x_range
        return (np.asarray(value, float) - low) / (high - low) * self.w

    def y(self, value):
        low, high = self.y_range
        return (high - np.asarray(value, float)) / (high - low) * self.h

    def axes(self, x_label, y_label):
        parts = []
        for value in ticks(*self.x_range, about=max(2, self.w / 65)):
            x = self.left + float(self.x(value))
            parts.append(
                f'<path d="M{x:.1f} {self.top}v{self.h}" stroke="currentColor" opacity=".13"/>'
                f'<text x="{x:.1f}" y="{self.top + self.h + 14}" text-anchor="middle">{_tick_text(value)}</text>'
            )
        for value in ticks(*self.y_range, about=max(2, self.h / 40)):
            y = self.top + float(self.y(value))
            parts.append(
                f'<path d="M{self.left} {y:.1f}h{self.w}" stroke="currentColor" opacity=".13"/>'
                f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick_text(value)}</text>'
            )
        parts.append(
            f'<path d="M{self.left} {self.top}v{self.h}h{self.w}" fill="none" stroke="currentColor" opacity=".6"/>'
        )
        if x_label:
            middle = self.left + self.w / 2
            parts.append(f'<text x="{middle}" y="{self.height - 6}" text-anchor="middle">{escape(x_label)}</text>')
        if y_label:
            parts.append(
                f'<text transform="translate(11 {self.top + self.h / 2}) rotate(-90)" '
                f'text-anchor="middle">{escape(y_label)}</text>'
            )
        return "".join(parts)

    def inside(self, drawing):
        """The drawing, clipped to the plot (a nested svg clips by itself and needs no id)."""
        return (
            f'<svg x="{self.left}" y="{self.top}" width="{self.w}" height="{self.h}" overflow="hidden">{drawing}</svg>'
        )

    def svg(self, drawing, alt):
        return (
            f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-size="11.5">{drawing}</svg>'
        )


def _path(frame, x, y):
    """A polyline; a gap wherever a value is not finite."""
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    limit = 50 * frame.h  # far outside is far enough: keeps numbers short
    px, py, whole = frame.x(x), np.clip(frame.y(y), -limit, limit), np.isfinite(x) & np.isfinite(y)
    pen, parts = "M", []
    for a, b, ok in zip(px.ravel().tolist(), py.ravel().tolist(), whole.ravel().tolist(), strict=True):
        if ok:
            parts.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L" if ok else "M"
    return "".join(parts)


def curve(
    series,
    alt,
    title="",
    x_label="",
    y_label="",
    x_range=None,
    y_range=None,
    width=420,
    height=250,
    marks=(),
    role=None,
):
    """A line chart as SVG.

    series  {"name": y}, {"name": (x, y)} or {"name": (x, y, style)}, where style has some of
            {"colour": "#…", "dash": True, "points": True, "line": False}
    marks   (x, y, "text") points to single out, drawn as rings with their text
    Keep x_range and y_range fixed while a slider moves: a scale that follows the data hides the effect.
    """
    lines = []
    for k, (name, given) in enumerate(series.items()):
        x, y, *rest = given if isinstance(given, tuple) else (np.arange(len(given)), given)
        style = {"colour": CYCLE[k % len(CYCLE)], "dash": False, "points": False, "line": True} | (
            rest[0] if rest else {}
        )
        lines.append((name, np.asarray(x, float), np.asarray(y, float), style))
    legend, top = _legend([(name, style) for name, *_, style in lines], width)
    frame = _Frame(
        _span([x for _, x, _, _ in lines], x_range, 0.0),
        _span([y for _, _, y, _ in lines], y_range, 0.06),
        width,
        height,
        top,
    )
    drawing = []
    for _, x, y, style in lines:
        if style["line"]:
            dash = ' stroke-dasharray="5 4"' if style["dash"] else ""
            drawing.append(
                f'<path d="{_path(frame, x, y)}" fill="none" stroke="{style["colour"]}" stroke-width="2"'
                f' stroke-linejoin="round"{dash}/>'
            )
        if style["points"]:
            drawing += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{style["colour"]}"/>'
                for a, b in zip(frame.x(x).tolist(), frame.y(y).tolist(), strict=True)
                if np.isfinite(b)
            ]
    zero = ""
    if frame.y_range[0] < 0 < frame.y_range[1]:
        zero = f'<path d="M0 {float(frame.y(0)):.1f}h{frame.w}" stroke="currentColor" opacity=".45"/>'
    rings = ""
    for x, y, text in marks:
        a, b = float(frame.x(x)), float(frame.y(y))
        if np.isfinite(a) and np.isfinite(b):
            a, b = min(max(a, 0), frame.w), min(max(b, 0), frame.h)
            anchor, shift = ("end", -9) if a > 0.6 * frame.w else ("start", 9)
            above = -8 if b > 22 else 18
            rings += (
                f'<circle cx="{frame.left + a:.1f}" cy="{frame.top + b:.1f}" r="5" fill="none" stroke="currentColor" '
                f'stroke-width="2"/><text x="{frame.left + a + shift:.1f}" y="{frame.top + b + above:.1f}" '
                f'text-anchor="{anchor}" font-weight="600">{escape(text)}</text>'
            )
    drawn = frame.axes(x_label, y_label) + frame.inside(zero + "".join(drawing)) + rings + legend
    return piece(frame.svg(drawn, alt), title, role)


def _legend(entries, width):
    """The legend's SVG (in as many lines as it needs) and the height it takes."""
    if len(entries) < 2 and not any(name for name, _ in entries):
        return "", 10
    parts, x, y = [], 46, 13
    for name, style in entries:
        needs = 36 + 7 * len(name)
        if x + needs > width and x > 46:
            x, y = 46, y + 17
        dash = ' stroke-dasharray="5 4"' if style["dash"] else ""
        swatch = (
            f'<path d="M{x} {y - 4}h16" stroke="{style["colour"]}" stroke-width="3"{dash}/>'
            if style["line"]
            else f'<circle cx="{x + 8}" cy="{y - 4}" r="4" fill="{style["colour"]}"/>'
        )
        parts.append(f'{swatch}<text x="{x + 21}" y="{y}">{escape(name)}</text>')
        x += needs
    return "".join(parts), y + 11


# --- decision regions ---


def plane(x_range, y_range, n=80):
    """Points (n * n, 2) over a rectangle, in the order of a picture's pixels: reshape what a model says to (n, n)."""
    half_x, half_y = (x_range[1] - x_range[0]) / n / 2, (y_range[1] - y_range[0]) / n / 2
    across = np.linspace(x_range[0] + half_x, x_range[1] - half_x, n)
    down = np.linspace(y_range[1] - half_y, y_range[0] + half_y, n)
    return np.stack([a.ravel() for a in np.meshgrid(across, down)], axis=1)


@lru_cache
def _two_sided():
    """Class 0's colour, paler towards the boundary, then class 1's: the jump in the middle is the decision boundary."""
    blue = _interpolate(((96, 170, 216), (216, 233, 244)), 127)
    orange = _interpolate(((252, 237, 206), (240, 190, 88)), 127)
    return np.concatenate([blue, orange])


def regions(
    scores,
    points=None,
    labels=None,
    x_range=(-1, 1),
    y_range=(-1, 1),
    alt="",
    title="",
    width=320,
    x_label="",
    y_label="",
    role=None,
):
    """What a model says over the plane (see `plane`), with data points on top.

    scores  (n, n) floats in [0, 1]: probability of class 1; or (n, n) integers: the predicted class
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"regions wants scores of shape (n, n), not {scores.shape}: reshape them")
    if np.issubdtype(scores.dtype, np.integer) or scores.dtype == bool:
        pale = [tuple(round(255 - 0.55 * (255 - int(c[k : k + 2], 16))) for k in (1, 3, 5)) for c in CYCLE]
        png, rendering = png8(scores % len(CYCLE), pale, 0, len(CYCLE) - 1), "pixelated"
    else:
        png, rendering = png8(scores, _two_sided(), 0, 1), "auto"
    frame = _Frame(x_range, y_range, width, width - 6, top=8, left=40, bottom=40 if x_label else 24)
    drawing = (
        f'<image href="{data_uri(png)}" width="{frame.w}" height="{frame.h}" preserveAspectRatio="none" '
        f'style="image-rendering:{rendering}"/>'
    )
    if points is not None:
        points = np.asarray(points, float)
        labels = np.zeros(len(points), int) if labels is None else np.asarray(labels).astype(int)
        for k in np.unique(labels):
            drawing += _dots(frame, points[labels == k], k)
    return piece(frame.svg(frame.inside(drawing) + frame.axes(x_label, y_label), alt), title, role)


# A class has a colour and a shape: a disc, a triangle, a square.
_SHAPES = ("m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0", "m0-4.8l4.4 7.8h-8.8z", "m-3.4-3.4h6.8v6.8h-6.8z")


def _dots(frame, points, k):
    shape = _SHAPES[k % len(_SHAPES)]
    at = zip(frame.x(points[:, 0]).tolist(), frame.y(points[:, 1]).tolist(), strict=True)
    return (
        f'<path fill="{CYCLE[k % len(CYCLE)]}" stroke="#fff" d="{"".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in at)}"/>'
    )
