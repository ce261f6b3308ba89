"""nbgrader's configuration; the code stands in the package, where it is tested."""

from pathlib import Path

from autograder import nbgrader, release

c = get_config()  # noqa: F821
release.configure(c, root=Path(__file__).parent.resolve())
nbgrader.configure(c)
