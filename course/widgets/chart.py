"""What figures of several lessons draw alike: many runs as one line, powers of ten, a number beside its reference."""

import re

import numpy as np

from course.widgets import picture
from course.widgets.picture import COLOURS


def spread(x, runs):
    """One line for many runs (runs, x): their mean, and at each x a bar from the least to the greatest."""
    runs = np.asarray(runs, float)
    bars = np.stack([runs.min(0), runs.max(0), np.full(len(x), np.nan)], axis=1).ravel()
    return np.concatenate([x, [np.nan], np.repeat(x, 3)]), np.concatenate([runs.mean(0), [np.nan], bars])


def several(x, runs):
    """One line for many runs (runs, x): all of them, with gaps between."""
    runs = np.asarray(runs, float)
    gap = np.full((len(runs), 1), np.nan)
    return np.hstack([np.tile(x, (len(runs), 1)), gap]).ravel(), np.hstack([runs, gap]).ravel()


def powers(chart, anchor):
    """A chart drawn over logarithms to base 10, its ticks as the numbers themselves; x: "middle", y: "end"."""
    ticks = rf'(text-anchor="{anchor}">)(−?[\d.]+)(?=</text>)'

    def written(found):
        power = 10 ** float(found[2].replace("−", "-"))
        return f"{found[1]}{float(f'{power:.2g}'):g}"

    return re.sub(ticks, written, chart)


def with_reference(name, x, got, want, colour):
    """A line of a chart; where it leaves the reference, the reference beside it in orange."""
    lines = {name: (x, got, {"colour": colour})}
    if picture.differs(got, want).any():
        lines[f"{name}: reference"] = (x, want, {"colour": COLOURS["wrong"], "dash": True})
    return lines


def both(got, want, digits=3):
    """A number, and in orange the reference beside it where the two differ."""
    text = amount(got, digits)
    if not picture.differs(got, want).any():
        return f"<b>{text}</b>"
    return f'<b style="color:{COLOURS["wrong"]}">{text}</b> (reference {amount(want, digits)})'


def amount(value, digits=3):
    """A number that may be very small, very large or not a number at all."""
    value = float(value)
    if not np.isfinite(value):
        return {True: "nan"}.get(bool(np.isnan(value)), "∞" if value > 0 else "−∞")
    if value and not 10.0**-digits <= abs(value) < 1e5:
        return f"{value:.1e}".replace("-", "−")
    return picture.number(value, digits)


def cell(html):
    return f'<td style="text-align:left;padding:2px 18px 2px 0;background:none">{html}</td>'
