"""Figures of the notebooks: one style, always alternative text and a caption; the live curve of a training run."""

import io
import os
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display
from matplotlib.figure import Figure

from course.widgets import picture
from course.widgets.picture import COLOURS

__all__ = ["COLOURS", "Training", "fast", "figure", "gradient_check", "show"]

_DPI = 80  # pixels on the page per inch of figure; stored at 1.5 times that, to be sharp on fine screens
plt.rcParams.update(
    {
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "axes.axisbelow": True,
        "axes.prop_cycle": plt.cycler(color=picture.CYCLE),
        "legend.frameon": False,
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
    }
)


def fast():
    """True where a test runs the lessons: train briefly, change nothing else."""
    return bool(os.environ.get("COURSE_FAST"))


def figure(width=6, height=3, columns=1):
    """A figure in the course's style, and its axes (an array of them where columns > 1)."""
    return plt.subplots(1, columns, figsize=(width, height))


def show(fig, alt, caption=""):
    """Display a matplotlib figure (or a picture's HTML) with alternative text and a caption that says the finding."""
    if isinstance(fig, Figure):
        width = round(fig.get_figwidth() * _DPI)
        html = (
            f'<img alt="{escape(alt)}" width="{width}" src="{picture.data_uri(_png(fig))}" '
            f'style="image-rendering:auto;background:#fff;border-radius:4px">'
        )
        plt.close(fig)
        alt = ""
    else:
        html = fig
    display(HTML(picture.page(picture.figure(html, caption), alt)))


def _png(fig):
    """The figure as a PNG of 64 colours: a third of the bytes, and nobody sees it."""
    from PIL import Image

    raw, small = io.BytesIO(), io.BytesIO()
    fig.savefig(raw, format="png", dpi=1.5 * _DPI)
    Image.open(raw).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def gradient_check(gradients, title="Gradient check"):
    """`{"dx": (mine, numerical, torch_), …}`: one printed line and one panel per gradient.

    In each panel a point is one number of the gradient: right ones lie on the diagonal.
    """
    fig, axes = figure(2.5 * len(gradients) + 0.3, 2.7, len(gradients))
    width = max(map(len, gradients))
    findings = []
    for ax, (name, (mine, numerical, torch_)) in zip(np.atleast_1d(axes), gradients.items(), strict=True):
        mine, numerical, torch_ = (np.asarray(a, float) for a in (mine, numerical, torch_))
        if not mine.shape == numerical.shape == torch_.shape:
            raise ValueError(
                f"{name}: yours has shape {mine.shape}, finite differences {numerical.shape}, PyTorch {torch_.shape}"
            )
        by_hand, by_torch = _bound(mine, numerical), _bound(mine, torch_)
        print(f"{name:<{width}}  {mine.shape!s:<10}  from finite differences {by_hand:<8}  from PyTorch {by_torch}")
        right = by_torch.startswith("<") and by_hand.startswith("<")
        findings.append(f"{name} {'agrees' if right else 'does not agree'}")
        _parity(ax, name, mine.ravel(), numerical.ravel(), torch_.ravel(), COLOURS["right" if right else "wrong"])
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    wrong = [finding for finding in findings if finding.endswith("not agree")]
    found = ", ".join(wrong) if wrong else "all agree" if len(findings) > 1 else findings[0]
    show(
        fig,
        alt=f"One panel per gradient, your values and finite differences against PyTorch's: {found}.",
        caption="Each point is one number of a gradient: yours (dots) and by finite differences (rings), against "
        f"PyTorch's. On the diagonal they are equal. Here {found}.",
    )


def _parity(ax, name, mine, numerical, torch_, colour):
    everything = np.concatenate([mine, numerical, torch_])
    everything = everything[np.isfinite(everything)]
    low, high = (everything.min(), everything.max()) if everything.size else (0, 1)
    pad = 0.08 * (high - low) or 0.5
    ends = [low - pad, high + pad]
    ax.plot(ends, ends, color="#bbbbbb", lw=1, zorder=1)
    ax.plot(torch_, numerical, "o", ms=9, mfc="none", mec="#777777", mew=1.2)
    ax.plot(torch_, mine, "o", ms=4.5, color=colour)
    ax.set(xlim=ends, ylim=ends, title=name, xlabel="PyTorch", aspect="equal")
    ax.locator_params(nbins=4)


def _bound(got, want):
    """The relative error as a bound that is the same on every machine."""
    with np.errstate(all="ignore"):
        error = float(np.abs(got - want).max() / (1 + np.abs(want).max())) if got.size else 0.0
    return next((f"< {bound}" for bound in ("1e-12", "1e-6") if error < float(bound)), f"{error:.1g}")


class Training:
    """A progress bar and live curves in one display that is updated in place, and stands still when done.

    with plots.Training(epochs, "train loss", "test accuracy") as run:
        ...
        run.log(loss, accuracy)

    `charts` draws what has been logged, {name: one number per epoch} -> pictures; without it each kind of number,
    told by its last word, gets a chart.
    """

    _UPDATES = 10

    def __init__(self, steps, *names, unit="epoch", charts=None):
        self.steps, self.names, self.unit, self.charts, self.history = steps, names, unit, charts, []
        self._display, self._drawn = None, 0

    def __enter__(self):
        self._display = display(self._bundle(), raw=True, display_id=True)  # None where there is no notebook
        return self

    def log(self, *values):
        """The numbers of one epoch (or another unit), in the order of the names."""
        if len(values) != len(self.names):
            raise ValueError(f"log wants {', '.join(self.names)}: {len(self.names)} numbers, not {len(values)}")
        self.history.append([float(v) for v in values])
        part = self._UPDATES * len(self.history) // max(self.steps, 1)
        if part > self._drawn and len(self.history) < self.steps:
            self._drawn = part
            self._redraw()

    def __exit__(self, kind, error, trace):
        self._redraw(stopped=kind is not None)

    def _redraw(self, stopped=False):
        if self._display:
            self._display.update(self._bundle(stopped), raw=True)

    def __getitem__(self, name):
        """The curve of that name, one number per epoch."""
        return np.array([values[self.names.index(name)] for values in self.history])

    def html(self, stopped=False):
        done = len(self.history)
        share = min(1.0, done / max(self.steps, 1))
        bar = (
            f'<div class="lbl-bar" role="progressbar" aria-label="training" aria-valuemin="0" '
            f'aria-valuemax="{self.steps}" aria-valuenow="{done}"><div style="width:{100 * share:.0f}%"></div></div>'
        )
        return picture.page(f"{picture.note(self._state(stopped, 3))}{bar}{picture.row(*self._pictures())}")

    def _state(self, stopped, digits):
        now = zip(self.names, self.history[-1], strict=True) if self.history else ()
        step = f"{'stopped at ' if stopped else ''}{self.unit} {len(self.history)} of {self.steps}"
        return ", ".join([step, *(f"{name} {picture.number(value, digits)}" for name, value in now)])

    def _pictures(self):
        if self.charts is None:
            return self._charts()
        return self.charts({name: self[name] for name in self.names}) if self.history else ()

    def _charts(self):
        """One chart per kind of number: names that end in the same word share one."""
        kinds = {}
        for name in self.names:
            kinds.setdefault(name.split()[-1], []).append(name)
        steps = np.arange(1, len(self.history) + 1)
        for kind, names in kinds.items():
            lines = {
                name: (steps, self[name] if self.history else np.zeros(0), {"points": len(steps) < 3}) for name in names
            }
            said = (
                "; ".join(
                    f"{name} from {picture.number(self[name][0], 3)} to {picture.number(self[name][-1], 3)}"
                    for name in names
                )
                if self.history
                else f"no {self.unit} yet"
            )
            low = 0.5 if self.history and min(self[name].min() for name in names) > 0.5 else 0.0
            y_range = (low, 1) if kind == "accuracy" else None
            yield picture.curve(
                lines,
                alt=f"{kind} over {self.steps} {self.unit}s: {said}",
                x_label=self.unit,
                x_range=(0, self.steps),
                y_range=y_range,
                width=340,
                height=210,
            )

    def _bundle(self, stopped=False):
        return {"text/html": self.html(stopped), "text/plain": self._state(stopped, 2)}
