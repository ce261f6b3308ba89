"""Figures of the notebooks: alternative text, the gradient check's lines and panels, a training run's one display."""

import base64
import io
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from course import plots

RNG = np.random.default_rng(5)


@pytest.fixture
def shown(monkeypatch):
    """The HTML of everything that is displayed."""
    pages = []
    monkeypatch.setattr(plots, "display", lambda html: pages.append(html.data))
    return pages


class Handle:
    """Stands for the notebook's display: keeps every state of it."""

    def __init__(self, first):
        self.states = [first]

    def update(self, bundle, raw):
        self.states.append(bundle)


@pytest.fixture
def screen(monkeypatch):
    """What display(..., display_id=True) gives in a notebook."""
    handles = []
    monkeypatch.setattr(plots, "display", lambda bundle, **_: handles.append(Handle(bundle)) or handles[-1])
    return handles


# --- show --------------------------------------------------------------------------------------------------------


def test_show_keeps_alternative_text_and_caption_and_closes_the_figure(shown):
    fig, ax = plots.figure(4, 2)
    ax.plot([1, 2])
    plots.show(fig, alt='rises from "1" to 2', caption="a < b")
    (html,) = shown
    assert re.search(
        r'<figure>.*<img alt="rises from &quot;1&quot; to 2" width="320".*<figcaption>a &lt; b</figcaption>', html
    )
    assert not plt.fignum_exists(fig.number)


def test_a_shown_figure_is_small_opaque_and_a_picture(shown):
    fig, axes = plots.figure(7, 2.8, columns=2)
    for k in range(4):
        axes[0].plot(np.cumsum(RNG.normal(size=200)), label=f"run {k}")
    axes[0].legend()
    plots.show(fig, alt="walks")
    png = base64.b64decode(re.search(r"base64,([^\"]+)", shown[0])[1])
    image = Image.open(io.BytesIO(png))
    assert image.size == (840, 336) and len(png) < 30_000 and len(image.getcolors()) <= 64
    assert "A" not in image.convert("RGB").mode and image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_the_same_figure_is_the_same_bytes(shown):
    for _ in range(2):
        fig, ax = plots.figure()
        ax.plot([1, 3, 2])
        plots.show(fig, alt="a line")
    assert shown[0] == shown[1]


def test_show_takes_a_picture_of_the_widgets_too(shown):
    plots.show("<b>cells</b>", alt="two cells", caption="They differ.")
    assert 'aria-label="two cells"' in shown[0] and "<b>cells</b><figcaption>They differ." in shown[0]


def test_columns_are_axes():
    fig, axes = plots.figure(6, 2, columns=3)
    assert axes.shape == (3,)
    plt.close(fig)


def test_the_roles_have_colours():
    assert {"input", "parameter", "output", "gradient", "right", "wrong"} <= plots.COLOURS.keys()


# --- gradient_check ----------------------------------------------------------------------------------------------


def test_a_right_gradient_is_bounded_alike_on_every_machine(shown, capsys):
    dx, db = RNG.normal(size=(5, 4)), RNG.normal(size=3)
    plots.gradient_check({"dx": (dx, dx + 1e-9, dx + 1e-15), "db": (db, db, db)})
    assert capsys.readouterr().out.splitlines() == [
        "dx  (5, 4)      from finite differences < 1e-6    from PyTorch < 1e-12",
        "db  (3,)        from finite differences < 1e-12   from PyTorch < 1e-12",
    ]
    assert "all agree" in re.search('alt="([^"]*)"', shown[0])[1]


@pytest.mark.parametrize(
    "wrong", [lambda d: 2 * d, lambda d: -d, np.zeros_like, lambda d: d + 1e-4, lambda d: d * np.nan]
)
def test_a_wrong_gradient_is_said_to_be_wrong(shown, capsys, wrong):
    dw = RNG.normal(size=(3, 2))
    plots.gradient_check({"dw": (wrong(dw), dw, dw)}, "Check")
    assert "from PyTorch <" not in capsys.readouterr().out
    assert "dw does not agree" in shown[0] and "dw agrees" not in shown[0]


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match=r"dw: yours has shape \(2, 3\)"):
        plots.gradient_check({"dw": (np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((3, 2)))})


# --- Training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 23, 1000])
def test_one_display_is_updated_about_ten_times(screen, steps):
    with plots.Training(steps, "train loss", "test accuracy") as run:
        for k in range(steps):
            run.log(1 / (k + 1), k / steps)
    (handle,) = screen
    assert len(handle.states) <= 12
    assert (
        f"epoch {steps} of {steps}" in handle.states[-1]["text/html"] and "width:100%" in handle.states[-1]["text/html"]
    )


def test_progress_never_goes_back(screen):
    with plots.Training(40, "loss") as run:
        for _ in range(40):
            run.log(1.0)
    done = [int(re.search('aria-valuenow="(\\d+)"', state["text/html"])[1]) for state in screen[0].states]
    assert done[0] == 0 and done[-1] == 40 and done == sorted(done) and max(np.diff(done)) <= 4


def test_names_of_one_kind_share_a_chart(screen):
    with plots.Training(2, "train loss", "test loss", "test accuracy") as run:
        run.log(1, 2, 0.5)
    assert screen[0].states[-1]["text/html"].count("<svg role") == 2


def test_the_text_form_is_short_and_rounded(screen):
    with plots.Training(2, "loss", "accuracy") as run:
        run.log(0.123456, 0.5)
        run.log(0.0987, 0.75)
    assert screen[0].states[-1]["text/plain"] == "epoch 2 of 2, loss 0.10, accuracy 0.75"


def test_a_stopped_run_says_where(screen):
    def diverge():
        with plots.Training(9, "loss") as run:
            run.log(1.0)
            run.log(1 / 0)

    with pytest.raises(ZeroDivisionError):
        diverge()
    assert "stopped at epoch 1 of 9" in screen[0].states[-1]["text/html"]


def test_a_diverging_run_is_drawn(screen):
    with plots.Training(4, "loss") as run:
        for value in (1.0, 1e30, np.inf, np.nan):
            run.log(value)
    assert "loss nan" in screen[0].states[-1]["text/html"]


def test_the_history_is_kept_by_name(screen):
    with plots.Training(2, "train loss", "accuracy") as run:
        run.log(1.0, 0.25)
        run.log(0.5, 0.75)
    assert run["train loss"].tolist() == [1.0, 0.5] and run["accuracy"].tolist() == [0.25, 0.75]
    with pytest.raises(ValueError, match="2 numbers, not 1"):
        run.log(1.0)


def test_outside_a_notebook_training_just_runs(monkeypatch):
    monkeypatch.setattr(plots, "display", lambda *_, **__: None)
    with plots.Training(3, "loss") as run:
        run.log(1.0)
    assert len(run.history) == 1


def test_fast_follows_the_environment(monkeypatch):
    monkeypatch.delenv("COURSE_FAST", raising=False)
    assert not plots.fast()
    monkeypatch.setenv("COURSE_FAST", "1")
    assert plots.fast()


# --- in a kernel -------------------------------------------------------------------------------------------------

NOTEBOOK = """
from course import plots
import numpy as np
fig, ax = plots.figure(); ax.plot([1, 2]); plots.show(fig, alt="a line", caption="It rises.")
---
with plots.Training(25, "loss") as run:
    for k in range(25):
        run.log(1 / (k + 1))
---
from course.widgets.explorer import Explorer, slider
from course.widgets.picture import heat
Explorer(lambda k: heat(np.arange(3.0) * k, "y"), alt="three numbers", k=slider("k", 1, 5))
"""


def test_a_notebook_keeps_one_static_output_per_figure():
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in NOTEBOOK.split("---")]
    notebook = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60, kernel_name="python3").execute()
    figure, training, explorer = ([o for o in cell.outputs if "data" in o] for cell in notebook.cells)
    assert 'alt="a line"' in figure[0].data["text/html"]
    assert len(training) == 1 and "epoch 25 of 25" in training[0].data["text/html"]
    (explorer,) = explorer
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} == explorer.data.keys()
    assert "<td" in explorer.data["text/html"]
