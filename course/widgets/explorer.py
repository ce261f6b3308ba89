"""The shell of an interactive figure: controls, one picture, and what to do when drawing fails."""

import sys
import traceback
from html import escape
from pathlib import Path

import ipywidgets as W
import numpy as np
from IPython.display import HTML

from course.widgets import picture

_HERE = str(Path(__file__).resolve().parent.parent)
_LABEL = {"description_width": "initial"}


def slider(label, low, high, value=None, step=None):
    """A slider; whole numbers where low, high, value and step are whole."""
    value = low if value is None else value
    whole = all(isinstance(v, (int, np.integer)) for v in (low, high, value, 1 if step is None else step))
    kind, step = (W.IntSlider, step or 1) if whole else (W.FloatSlider, step or (high - low) / 40)
    options = {} if whole else {"readout_format": f".{_decimals(step)}f"}
    return kind(
        value=value,
        min=low,
        max=high,
        step=step,
        description=label,
        style=_LABEL,
        layout=W.Layout(width="330px", max_width="100%"),
        **options,
    )


def choice(label, options, value=None):
    """A row of buttons, or a drop-down list where they would be too many. `options` is a list, or {"text": value}.

    Buttons, since JupyterLab takes the arrow keys away from lists and radio buttons; Tab and Space work everywhere.
    """
    pairs = list(options.items()) if isinstance(options, dict) else [(str(o), o) for o in options]
    if any(option is None for _, option in pairs):
        raise ValueError(f"{label}: None means that nothing is chosen; give that option another value")
    value = pairs[0][1] if value is None else value
    if sum(len(text) + 4 for text, _ in pairs) > 90:
        return W.Dropdown(
            options=pairs,
            value=value,
            description=label,
            style=_LABEL,
            layout=W.Layout(width="max-content", max_width="100%"),
        )
    return W.ToggleButtons(
        options=pairs,
        value=value,
        description=label,
        style=_LABEL | {"button_width": "max-content"},
        layout=W.Layout(display="flex", align_items="center", grid_gap="0 8px", width="max-content", max_width="100%"),
    )


def toggle(label, value=False):
    """A check box."""
    return W.Checkbox(value=value, description=label, indent=False, layout=W.Layout(width="max-content"))


def _decimals(step):
    return next((k for k in range(6) if abs(round(step, k) - step) < 1e-9), 6)


def live(function):
    """Calls the newest definition of a function or class of the notebook.

    A learner who rewrites `linear_forward` and runs its cell again makes a new object of that name; a figure
    that was given the old one shows the new one from the next move of a control on.
    """
    if getattr(function, "__module__", None) != "__main__":
        return function
    names, name = vars(sys.modules["__main__"]), function.__name__
    return lambda *args, **kwargs: names.get(name, function)(*args, **kwargs)


def trouble(error):
    """An exception as HTML, to stand in the picture's place."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, NotImplementedError):
        name = _unwritten(error)
        what = f"Write <code>{escape(name)}</code> first" if name else "A function of yours is still to be written"
        return f'<div class="lbl-error">{what}; run its cell, then move a control.</div>'
    theirs = [f for f in frames if not f.filename.startswith(_HERE)] or list(frames)
    trace = "".join(traceback.format_list(theirs[-4:]) + traceback.format_exception_only(error))
    return (
        f'<div class="lbl-error"><b>{escape(type(error).__name__)}</b> while drawing this figure: '
        f"{escape(str(error))}<pre>{escape(trace)}</pre></div>"
    )


def _unwritten(error):
    """The function that raised, if its code is the learner's."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or step.tb_frame.f_code.co_filename.startswith(_HERE):
        return None
    return step.tb_frame.f_code.co_qualname.rsplit("<locals>.", 1)[-1]


def shown(draw):
    """What draw() returns, or its exception as HTML."""
    try:
        with np.errstate(all="ignore"):
            return draw()
    except Exception as error:  # whatever a learner's function raises is shown to them
        return trouble(error)


class Explorer:
    """An interactive figure: `draw(**values) -> HTML` and one control per argument.

    alt     what the picture shows, in words: a text, or a function of the same values
    height  pixels kept for the picture, so that the page does not jump
    """

    def __init__(self, draw, *, alt, height=320, **controls):
        self.draw, self.alt, self.height, self.controls = draw, alt, height, controls
        self.picture = W.HTML(layout=W.Layout(width="100%", margin="6px 0 0"))
        bar = W.HBox(
            list(controls.values()), layout=W.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 22px")
        )
        self.widget = W.VBox([bar, self.picture])
        self.widget.add_class("lbl-explorer")
        for control in controls.values():
            control.observe(self._update, names="value")
        self._update()

    @property
    def values(self):
        """What the controls say now."""
        return {name: control.value for name, control in self.controls.items()}

    def snapshot(self, **values):
        """The picture as HTML for these values; controls not named keep theirs."""
        return picture.styled(self._block(values, self.height))

    def _block(self, values, height):
        unknown = values.keys() - self.controls.keys()
        if unknown:
            raise KeyError(f"no control named {', '.join(sorted(unknown))}; there are {', '.join(self.controls)}")
        values = self.values | values
        html = shown(lambda: self.draw(**values))
        label = shown(lambda: self.alt(**values)) if callable(self.alt) else self.alt
        return picture.block(f'<div style="min-height:{height}px">{html}</div>', label)

    def settings(self, name, steps=13):
        """The values that a control can take; of a slider's at most `steps`, evenly spread."""
        return _settings(self.controls[name], steps)

    def frames(self, name, steps=13, **values):
        """A slider over ready pictures of one control, for pages where no kernel answers."""
        control, settings = self.controls[name], self.settings(name, steps)
        pictures = [self._block(values | {name: value}, self.height) for value in settings]
        start = min(range(len(settings)), key=lambda k: settings[k] != (values | self.values)[name])
        labels = [escape(_setting_text(control, value)) for value in settings]
        panes = "".join(
            f'<div class="lbl-frame"{"" if k == start else " hidden"}>{html}</div>' for k, html in enumerate(pictures)
        )
        script = (
            "this.nextElementSibling.value=this.dataset.labels.split('|')[this.value];"
            "this.closest('.lbl-frames').querySelectorAll('.lbl-frame').forEach((pane,k)=>pane.hidden=k!=this.value)"
        )
        html = (
            f'<div class="lbl lbl-frames"><label>{escape(control.description)} '
            f'<input type="range" min="0" max="{len(settings) - 1}" value="{start}" data-labels="{"|".join(labels)}" '
            f'oninput="{script}"> <output>{labels[start]}</output></label>{panes}</div>'
        )
        return HTML(picture.styled(html))

    def _update(self, change=None):
        self.picture.value = self.snapshot()

    def _static(self):
        """The picture with the settings it was drawn for, where no kernel answers."""
        said = " · ".join(f"{c.description}: {_setting_text(c, c.value)}" for c in self.controls.values())
        return picture.styled(self._block({}, 0) + picture.block(picture.note(f"{said} (run the cell to change it)")))

    def _repr_mimebundle_(self, include=None, exclude=None):
        names = ", ".join(control.description for control in self.controls.values())
        return bundle(self.widget, self._static(), f"<interactive figure: {names}>")


def bundle(widget, static, text):
    """What a notebook shows: the widget where a kernel answers, a static page elsewhere, some words in a terminal."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": view, "text/html": static, "text/plain": text}


def _settings(control, steps):
    """The values a control can take, at most `steps` of a slider's."""
    if isinstance(control, W.Checkbox):
        return [False, True]
    if hasattr(control, "options"):
        return [value for _, value in control.options]
    count = round((control.max - control.min) / control.step) + 1
    picked = np.unique(np.linspace(0, count - 1, min(steps, count)).round().astype(int)).tolist()
    return [type(control.value)(round(control.min + k * control.step, 10)) for k in picked]


def _setting_text(control, value):
    if isinstance(control, W.Checkbox):
        return "yes" if value else "no"
    if hasattr(control, "options"):
        return next(text for text, option in control.options if option == value)
    return f"{value:g}".replace("-", "−")
