"""The pictures of README.md, photographed in JupyterLab: `make pictures`."""

import tempfile
from pathlib import Path

from nbformat import v4, write

from tests.lab import _RUN, ROOT, Lab

SETUP = """import numpy as np
from autograder import check, examine, reference
from course import widgets
from course.data import scene_cnn, scenes

network, (gallery, _) = scene_cnn.load(), scenes.sample("scene", 160, seed=9)
instruments = "activation_maps", "top_patches", "maximise_activation", "saliency", "ablate_channel"
functions = {name: reference(name) for name in instruments}
"""
CELLS = {
    "lesson": """def linear_backward(dy, x, w, b):
    return dy @ w, dy.T @ x, dy.mean(axis=0)

widgets.linear.backward(linear_backward, reference("linear_backward"), reference("linear_forward"))""",
    "check": """def linear_backward(dy, x, w, b):
    return dy @ w, dy.T @ x, dy.mean(axis=0)

check(linear_backward)""",
    "attention": """widgets.attention.vectors(reference("attention_weights"), reference("attention_forward"))""",
    "microscope": """widgets.cnn.microscope(network, gallery, functions, functions, image=4, channel=9)""",
}


def photograph(lab: Lab, name: str, source: str) -> None:
    """Runs one cell in JupyterLab and keeps a picture of it and its output."""
    cells = [v4.new_code_cell(SETUP), v4.new_code_cell(source, metadata={"tags": ["raises-exception"]})]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nb = v4.new_notebook(cells=cells, metadata=kernel)
    path = Path(tempfile.mkdtemp()) / "picture.ipynb"
    write(nb, path)
    with lab.open(path, width=900) as (page, _):
        page.evaluate(_RUN, False)
        page.wait_for_timeout(1500)
        page.evaluate("jupyterapp.shell.collapseLeft(); jupyterapp.shell.collapseRight()")
        page.set_viewport_size({"width": 900, "height": 1400})
        page.wait_for_timeout(500)
        page.locator(".jp-CodeCell").nth(1).screenshot(path=ROOT / ".readme" / f"{name}.png")


if __name__ == "__main__":
    (ROOT / ".readme").mkdir(exist_ok=True)
    with Lab() as lab:
        for name, source in CELLS.items():
            photograph(lab, name, source)
