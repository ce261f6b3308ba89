"""Predict, then reveal: the picture appears after a guess that cannot be taken back."""

from html import escape

import ipywidgets as W

from course.widgets import picture
from course.widgets.explorer import bundle, shown


class Predict:
    """A question, a field for the guess, and what is revealed after it.

    answer   a number, or one of `options`
    reveal   () -> HTML, drawn after the guess
    options  the answers to choose from; without them the guess is a number
    """

    def __init__(self, question, answer, reveal, options=None, tolerance=0.0):
        self.question, self.answer, self.reveal, self.tolerance = question, answer, reveal, tolerance
        if options is None:
            self.field = W.Text(
                placeholder="a number",
                description="Your guess",
                style={"description_width": "initial"},
                layout=W.Layout(width="220px"),
            )
        else:
            if answer not in options:
                raise ValueError(f"the answer {answer!r} is none of the options {list(options)}")
            self.field = W.ToggleButtons(options=list(options), value=None, style={"button_width": "max-content"})
        self.button = W.Button(description="Commit and reveal", layout=W.Layout(width="max-content"))
        self.button.on_click(self._commit)
        self.outcome = W.HTML(layout=W.Layout(width="100%"))
        asked = W.HTML(picture.page(f"<b>Predict.</b> {escape(question)}"))
        row = W.HBox(
            [self.field, self.button], layout=W.Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 16px")
        )
        self.widget = W.VBox([asked, row, self.outcome])
        self.widget.add_class("lbl-predict")

    def verdict(self, guess):
        """What to say to this guess; None where it is none."""
        if isinstance(self.answer, str):
            if guess is None:
                return None
            return f"Yes: {self.answer}." if guess == self.answer else f"You said {guess}; it is {self.answer}."
        try:
            value = float(str(guess).strip().replace("−", "-").replace(",", "."))
        except ValueError:
            return None
        gap = abs(value - self.answer)
        said, right = _plain(value), _plain(self.answer)
        if gap <= self.tolerance:
            return f"Yes: {right}." if gap == 0 else f"You said {said}; it is {right}. Close enough."
        return f"You said {said}; it is {right}: off by {_plain(gap)}."

    def _commit(self, _=None):
        said = self.verdict(self.field.value)
        if said is None:
            need = "Choose one first." if isinstance(self.answer, str) else "Type a number first."
            self.outcome.value = picture.page(need)
            return
        self.field.disabled = self.button.disabled = True
        self.outcome.value = picture.page(
            f'<p style="margin:4px 0 8px"><b>{escape(said)}</b></p>{shown(self.reveal)}', said
        )

    def _static(self):
        answer = self.answer if isinstance(self.answer, str) else _plain(self.answer)
        return picture.page(
            f"<p><b>Predict.</b> {escape(self.question)}</p><details><summary>Answer</summary>"
            f"<p><b>{escape(answer)}</b></p>{shown(self.reveal)}</details>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None):
        return bundle(self.widget, self._static(), f"<predict: {self.question}>")


def _plain(value):
    """A number as it would be typed, with a true minus sign."""
    return f"{value:.6g}".replace("-", "−")
