"""From the solved notebook to the released one, with nbgrader's own preprocessors.

`configure` is what nbgrader_config.py calls, so `nbgrader generate_assignment`, formgrader's button and
`autograder build` are one and the same pipeline.
"""

import os
import re
from pathlib import Path

from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader import preprocessors
from nbgrader.converters import GenerateAssignment
from nbgrader.utils import is_grade, is_solution
from traitlets.config import Config

REGION = re.compile(
    r"[ \t]*### BEGIN SOLUTION\n.*?^[ \t]*### BROKEN\n(?P<broken>.*?)^[ \t]*### END SOLUTION", re.M | re.S
)
METADATA = "layer_by_layer"  # what the builder remembers in a solved notebook


def broken(source: str) -> str | None:
    """The start of a repair: the comments under ### BROKEN in place of the solution; None where there are none."""
    region = REGION.search(source)
    if region is None:
        return None
    lines = [re.sub(r"^([ \t]*)# ?", r"\1", line).rstrip() for line in region["broken"].splitlines()]
    return source[: region.start()] + "\n".join(lines) + source[region.end() :]


class ClearSolutions(preprocessors.ClearSolutions):
    """nbgrader's, and: a repair starts from the broken layer, an unsolved check does not stop "run all"."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        nb.metadata.pop(METADATA, None)
        return super().preprocess(nb, resources)

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        if is_grade(cell):
            cell.metadata.tags = [*cell.metadata.get("tags", []), "raises-exception"]
        start = broken(cell.source) if is_solution(cell) else None
        if start is None:
            return super().preprocess_cell(cell, resources, index)
        cell.source = start
        return cell, resources


def configure(c: Config, root: Path) -> None:
    """nbgrader's folders, exchange and release pipeline for the course in `root`."""
    c.CourseDirectory.root = str(root)
    c.CourseDirectory.course_id = "layer-by-layer"
    c.CourseDirectory.source_directory = "solutions"
    c.CourseDirectory.release_directory = "course"
    c.Exchange.root = os.environ.get("NBGRADER_EXCHANGE") or _own_exchange(root)
    c.GenerateAssignment.preprocessors = steps()


def steps() -> list[type]:
    """nbgrader's own list, with one step replaced by ours."""
    stock = GenerateAssignment.class_traits()["preprocessors"].default()
    return [ClearSolutions if step is preprocessors.ClearSolutions else step for step in stock]


def _own_exchange(root: Path) -> str:
    """An exchange for one machine; a class on a shared server names its own in NBGRADER_EXCHANGE."""
    exchange = root / "exchange"
    exchange.mkdir(exist_ok=True)
    return str(exchange)


def release(solved: NotebookNode) -> str:
    """The released notebook's text: what nbgrader's generate_assignment writes, without a gradebook."""
    config = Config()
    config.Exporter.default_preprocessors = []
    config.SaveCells.enabled = False
    exporter = NotebookExporter(config=config)
    for step in steps():
        exporter.register_preprocessor(step)
    text, _ = exporter.from_notebook_node(solved, resources={"nbgrader": {}})
    return text
