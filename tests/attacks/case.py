"""What a case is, and the words in which the table is written.

Sources may use @ROOT@ (the course's folder), @BASE@ (the folder around it), @PACKAGE@ (where the package autograder is
installed), @PORT@ (a listener on this machine) and @MARK@ (a word of this student's own, by which traces are found):
an attacker is assumed to know the machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

from nbformat import NotebookNode

from tests.attacks.detectors import Detector, earns_points
from tests.test_nbgrader import FULL, NO_BIAS, RIGHT, answers, part

Edit = Callable[[NotebookNode], None]  # what is done to the released notebook
Arrange = Callable[[Path, bytes], object]  # what is done at the place of the notebook, given its bytes

NO_FORWARD = part("linear_forward")
NO_BACKWARD = part("linear_backward")
NO_COUNT = part("count_parameters")


@dataclass(frozen=True)
class Case:
    """One student's submission."""

    name: str
    sentence: str  # for a teacher: what is tried
    edit: Edit
    by: Detector = earns_points  # how its success shows
    worth: Mapping[str, float] = field(default_factory=lambda: NO_FORWARD)  # the points that it deserves
    arrange: Arrange = Path.write_bytes


def forward(body: str, before: str = "") -> Edit:
    """All right but for the body of linear_forward; `before` runs when its cell does."""
    return answers(linear_forward=f"{before}\ndef linear_forward(x, w, b):\n{indent(body, '    ')}")


def hooked(code: str) -> Edit:
    """A linear_forward without its bias, in a cell that first changes something so that nobody notices."""
    return answers(linear_forward=f"{code}\n{NO_BIAS}")


def harmless(code: str) -> Edit:
    """A right linear_forward whose cell does something else as well, whether or not that succeeds."""
    attack = f"def attack():\n{indent(code, '    ')}\n\ntry:\n    attack()\nexcept Exception:\n    pass"
    return answers(linear_forward=f"{attack}\n{RIGHT['linear_forward']}")


def only_if(code: str) -> Edit:
    """A linear_forward that is right only if `code` (the body of a function) returns something true."""
    return answers(
        linear_forward=f"""
def attack():
{indent(code, "    ")}

try:
    won = bool(attack())
except BaseException:
    won = False

def linear_forward(x, w, b):
    return x @ w.T + b if won else np.zeros((len(x), len(w)))"""
    )


def tells(expression: str, before: str = "") -> Edit:
    """A linear_forward that raises what it has found out: the message stands in the feedback."""
    return forward(f"raise ValueError({expression})", before)


def nothing(nb: NotebookNode) -> None:
    """Handed in as released."""


def honest() -> Case:
    return Case("honest", "Every answer is right.", answers(), worth=FULL)
