"""How a success shows: each detector looks at what a run has left behind, and names what one student has won."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

ACTIVE = {
    "script",
    "iframe",
    "object",
    "embed",
    "form",
    "base",
    "frame",
    "link",
    "meta",
    "svg",
    "math",
    "video",
    "audio",
}
ADDRESSES = {"href", "src", "srcset", "action", "formaction", "data", "xlink:href", "poster", "background"}


@dataclass(frozen=True)
class Trace:
    """What a student is worth and has got, and what can be read of that student afterwards."""

    mark: str
    worth: Mapping[str, float]
    points: Mapping[str, float | None]  # nothing at all where there is no row
    expected: frozenset[str]  # what the hidden questions expect, as numbers are printed
    pages: str  # the feedback and the graded notebook, as text
    html: str  # the feedback page
    outputs: tuple[Mapping, ...]  # of the graded notebook
    markdown: tuple[str, ...]  # in the graded notebook, unless the released one has it


@dataclass(frozen=True)
class Aftermath:
    """What a run has left behind."""

    students: Mapping[str, Trace]
    honest: frozenset[str]  # students who deserve full marks and stand between the others
    canaries: Mapping[str, str]  # where a secret lies -> the secret
    heard: str  # by the listeners
    processes: str  # command lines and names of all that run
    files: frozenset[str]  # names outside the grader's own folders
    changed: frozenset[str]  # files that grading has no business to change
    strange_rows: frozenset[str]  # in the gradebook: by nobody of the class, or by hand
    seconds: float
    patience: float  # seconds that the class may take
    log: str = field(repr=False, default="")


Detector = Callable[[Aftermath, str], bool]


def earns_points(after: Aftermath, student: str) -> bool:
    """More points than the answers deserve."""
    trace = after.students[student]
    return any((points or 0) > trace.worth[name] + 1e-9 for name, points in trace.points.items())


def loses_points(after: Aftermath, student: str) -> bool:
    """Fewer points than the answers deserve."""
    trace = after.students[student]
    return any((trace.points.get(name) or 0) < worth - 1e-9 for name, worth in trace.worth.items())


def is_left_out(after: Aftermath, student: str) -> bool:
    """No row, a row without points, or a row that waits for a person."""
    trace = after.students[student]
    return not trace.points or None in trace.points.values() or "could not be graded" in trace.html


def harms_others(after: Aftermath, student: str) -> bool:
    """An honest student has lost points or the row."""
    return any(is_left_out(after, name) or loses_points(after, name) for name in after.honest)


def alters_gradebook(after: Aftermath, student: str) -> bool:
    """The gradebook holds what nbgrader has not written."""
    return bool(after.strange_rows)


def alters_course(after: Aftermath, student: str) -> bool:
    """A file of the course, of another student or of the instructor is another one than before."""
    return bool(after.changed)


def leaves_files(after: Aftermath, student: str) -> bool:
    """A file that the code has made is there after grading."""
    return any(after.students[student].mark in name for name in after.files)


def survives(after: Aftermath, student: str) -> bool:
    """A process that the code has started still runs."""
    return after.students[student].mark in after.processes


def is_heard(after: Aftermath, student: str) -> bool:
    """The code has spoken to a listener outside."""
    return after.students[student].mark in after.heard


def learns_a_secret(after: Aftermath, student: str) -> bool:
    """A secret stands in the student's own feedback or has been sent away."""
    trace = after.students[student]
    readable = trace.pages + (after.heard if trace.mark in after.heard else "")
    return any(canary in readable for canary in after.canaries.values())


def learns_expected_values(after: Aftermath, student: str) -> bool:
    """The feedback shows a number that a hidden question expects."""
    trace = after.students[student]
    return bool(trace.expected & set(re.findall(r"\d+\.\d+", trace.html)))


def takes_too_long(after: Aftermath, student: str) -> bool:
    """The class has taken longer than its students' budgets together."""
    return after.seconds > after.patience


def is_rendered(after: Aftermath, student: str) -> bool:
    """Something the student wrote is more than text in the feedback page, or in what formgrader shows."""
    own, usual = (active_content(after.students[name].html) for name in (student, min(after.honest)))
    trace = after.students[student]
    return bool(own - usual) or bool(trace.markdown) or any(not is_text(output) for output in trace.outputs)


# What shows on the student, and what shows on the class: there nobody can be named but by what the case says.
OWN: tuple[Detector, ...] = (
    earns_points, is_left_out, leaves_files, survives, is_heard, learns_a_secret, learns_expected_values, is_rendered,
)  # fmt: skip
SHARED: tuple[Detector, ...] = (harms_others, alters_gradebook, alters_course, takes_too_long)


def is_text(output: Mapping) -> bool:
    """Whether nbconvert shows an output as text and nothing else."""
    return set(output.get("data", {})) <= {"text/plain"}


def active_content(html: str) -> set[str]:
    """What a browser runs, loads or embeds for a page."""
    parser = _Active()
    parser.feed(html)
    return parser.found


class _Active(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: set[str] = set()
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag if tag in ("script", "style") else ""
        if tag in ACTIVE:
            self.found.add(f"<{tag} {attrs}>")
        for name, value in attrs:
            leads_away = name in ADDRESSES and not (value or "").startswith(("#", "data:image/png"))
            if name.startswith("on") or name in ("srcdoc", "style") or leads_away:
                self.found.add(f"{tag}.{name}={value}")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found.add(data)
