"""A wrong answer -> the likely mistake: first the declared mistakes, then general patterns; never a guess.

A diagnosis must explain a wrong output in every case, not in one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from autograder import play
from autograder.cases import Question, with_upstream
from autograder.compare import close, compare
from autograder.exercise import AT_THE_START


@dataclass(frozen=True)
class Attempt:
    """A question and what came back for each output: an array, or None and the code of what it is instead."""

    question: Question
    got: tuple[np.ndarray | None, ...]
    refused: tuple[str | None, ...]

    @classmethod
    def of(cls, question: Question, reply: Mapping) -> "Attempt":
        """From the reply to a question."""
        values = reply["values"]
        return cls(question, tuple(v.get("array") for v in values), tuple(v.get("refused") for v in values))

    def pair(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """(want, got) of one output."""
        position = self.question.names.index(name)
        return self.question.want[position], self.got[position]


@dataclass(frozen=True)
class Diagnosis:
    """`sentence` of a declared mistake, or the `pattern` found and what report.py needs to word it."""

    output: str
    sentence: str | None = None
    pattern: str | None = None
    details: dict = field(default_factory=dict)


def diagnose(attempts: Sequence[Attempt], wrong: Sequence[str]) -> Diagnosis | None:
    """The likely mistake behind the wrong outputs, which are named in order; None if none fits."""
    return _declared(attempts, wrong) or _general(attempts, wrong[0])


# --- declared mistakes -------------------------------------------------------------------------------------------


def _declared(attempts: Sequence[Attempt], wrong: Sequence[str]) -> Diagnosis | None:
    """The declared mistake that agrees with the student in most outputs, and in a wrong one, the earliest possible.

    It must be right where the student is: its sentence may name every output that it gets wrong.
    """
    found: list[tuple[int, int, Diagnosis]] = []
    right = {name for attempt in attempts for name in attempt.question.names} - set(wrong)
    telling = [name for name in wrong if any(_is_wrong_array(attempt, name) for attempt in attempts)] or list(wrong)
    for sentence, implementation in attempts[0].question.exercise.mistakes:
        matched = _matched(attempts, implementation, right)
        explained = [name for name in telling if name in matched]
        if explained:
            found.append((len(matched), -wrong.index(explained[0]), Diagnosis(explained[0], sentence=sentence)))
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def _matched(attempts: Sequence[Attempt], implementation: Callable, right: Set[str]) -> Set[str]:
    """The outputs for which the student's answer is, in every case, just what the mistaken implementation gives.

    None where those that are `right` are not among them.
    """
    matched = {name for attempt in attempts for name in attempt.question.names}
    for attempt in attempts:
        reply = play.perform(implementation, attempt.question.request())
        if len(reply.get("values", ())) != len(attempt.question.want):
            return set()
        mistaken = Attempt.of(attempt.question, reply)
        matched -= {name for name in attempt.question.names if not _agree(attempt, mistaken, name)}
        if not right < matched:
            return set()
    return matched


def _is_wrong_array(attempt: Attempt, name: str) -> bool:
    """Whether an output came, and is wrong. That two lack one says little: a wrong y takes its gradients along."""
    if name not in attempt.question.names:
        return False
    want, got = attempt.pair(name)
    return got is not None and compare(want, got, attempt.question.exercise.tolerance) is not None


def _agree(one: Attempt, other: Attempt, name: str) -> bool:
    position = one.question.names.index(name)
    got, mistaken = one.got[position], other.got[position]
    if got is None or mistaken is None:
        return one.refused[position] is not None and one.refused[position] == other.refused[position]
    return close(mistaken, got, one.question.exercise.tolerance)


# --- general patterns --------------------------------------------------------------------------------------------


def _general(attempts: Sequence[Attempt], name: str) -> Diagnosis | None:
    """The first pattern that holds for the output `name` wherever it is wrong."""
    if name.endswith(AT_THE_START):
        return None  # not the work of a formula
    everywhere, concerned = [], []
    for attempt in attempts:
        question = attempt.question
        if name not in question.names:
            continue
        want, got = attempt.pair(name)
        if got is None:
            return None
        want, got = (array.astype(float) if array.dtype == bool else array for array in (want, got))
        everywhere.append((question, want, got))
        if compare(want, got, question.exercise.tolerance) is not None:
            concerned.append((question, want, got))
    if sum(want.size for _, want, _ in concerned) < 2:
        return None  # any number is some multiple of another
    for pattern in PATTERNS:
        claimed = everywhere if pattern is _factor else concerned
        answers = [pattern(question, name, want, got) for question, want, got in claimed]
        found = [answer for answer in answers if answer is not None]
        shared = next(_shared(found), None) if found and all(found) else None
        if shared is not None:
            return Diagnosis(name, pattern=pattern.__name__.strip("_"), details=dict(shared))
    return None


# The details that fit in one case, best first; none at all if the pattern does not hold; None if the case can't tell.
Fits = list[tuple] | None


def _shared(found: Sequence[Sequence]) -> Iterator:
    """The details that fit in every case: each pattern gives a list of the details that fit in one."""
    return (details for details in found[0] if all(details in others for others in found[1:]))


def _inputs(question: Question) -> Mapping[str, np.ndarray]:
    given = question.inputs["inputs"] if question.exercise.kind in ("module", "autograd") else question.inputs
    return {key: value for key, value in given.items() if isinstance(value, np.ndarray) and value.size}


def _zeros(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    return [()] if got.size and not got.any() else []


def _ones(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    return [()] if got.size and np.all(got == 1) else []


def _an_input(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    return [(("input", key),) for key, value in _inputs(question).items() if close(value, got, 1e-12)]


def _another_output(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    others = [(other, right) for other, right in zip(question.names, question.want, strict=True) if other != name]
    return [(("other", other),) for other, right in others if close(right, got, question.exercise.tolerance)]


def _transposed(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    return [()] if got.ndim >= 2 and close(want, np.swapaxes(got, -1, -2), 1e-5) and got.size > 1 else []


def _extra_axis(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    return [()] if want.shape != got.shape and close(want.squeeze(), got.squeeze(), 1e-5) else []


def _sum_missing(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    """The right answer is a sum or a mean of this one over an axis."""
    if got.ndim != want.ndim + 1:
        return []
    fits = []
    for axis in range(got.ndim):
        fits += [(("how", "sum"), ("axis", axis))] if close(want, got.sum(axis), 1e-5) else []
        fits += [(("how", "mean"), ("axis", axis))] if close(want, got.mean(axis), 1e-5) else []
    return fits


def _sign(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    return [()] if close(want, -got, question.exercise.tolerance) else []


def _upstream_ignored(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    ones = with_upstream(question, 1.0)
    if ones is None:
        return []
    right_for_ones = ones[question.names.index(name)]
    return [()] if close(right_for_ones, got, question.exercise.tolerance) else []


def _factor(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    """Every entry is the same multiple of the right one: the names which that multiple has in this case."""
    if want.shape != got.shape or not np.all(np.isfinite(got)) or not want.any() or want.dtype.kind in "iu":
        return []
    factor = float(np.vdot(want, got) / np.vdot(want, want))
    if not close(factor * want, got, question.exercise.tolerance) or abs(factor) < 1e-9:
        return []
    named = [(("name", text),) for text, value in _factors(question) if math.isclose(factor, value, rel_tol=1e-4)]
    return [*named, (("name", f"{factor:.4g}"),)]


def _factors(question: Question) -> Iterator[tuple[str, float]]:
    yield from (("2", 2.0), ("1/2", 0.5), ("-2", -2.0), ("-1/2", -0.5), ("3", 3.0), ("1/3", 1 / 3))
    counted = {letter: size for letter, size in question.sizes.items() if size}
    for letter, size in counted.items():
        yield from ((letter, size), (f"1/{letter}", 1 / size), (f"√{letter}", size**0.5), (f"1/√{letter}", size**-0.5))
    plain = ((key, value) for key, value in question.inputs.items() if type(value) in (int, float) and value)
    for key, value in plain:
        yield from ((key, value), (f"{key}²", value**2), (f"1/{key}", 1 / value))
    sizes = list(counted.items())
    for first, (a, size_a) in enumerate(sizes):
        yield from ((f"{a}·{b}", size_a * size_b) for b, size_b in sizes[first + 1 :])
        yield from ((f"1/({a}·{b})", 1 / (size_a * size_b)) for b, size_b in sizes[first + 1 :])


def _constant(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    if want.shape != got.shape or not np.all(np.isfinite(got)):
        return []
    if want.size < 2:
        return None
    gap = got - want
    return [()] if np.ptp(gap) <= 1e-6 * (1 + np.abs(gap).max()) else []


def _every_row(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    """Off by an amount that is the same in every row, but not the same everywhere."""
    if want.shape != got.shape or want.ndim < 2 or not np.all(np.isfinite(got)):
        return []
    if len(want) < 2:
        return None
    gap = got - want
    return [()] if np.ptp(gap, axis=0).max() <= 1e-6 * (1 + np.abs(gap).max()) else []


def _one_side(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    """Wrong on one side of zero of some input of the same shape, all over that side, and right on the other."""
    if want.shape != got.shape or not np.all(np.isfinite(got)):
        return []
    wrong = ~(np.abs(got - want) <= question.exercise.tolerance * (1 + np.abs(want).max(initial=0)))
    fits: list[tuple] = []
    for key, value in _inputs(question).items():
        if value.shape == wrong.shape and not key.startswith("d"):
            sides = (("x = 0", value == 0), ("x < 0", value < 0), ("x > 0", value > 0), ("x <= 0", value <= 0))
            fits += [(("input", key), ("where", side.replace("x", key)))
                     for side, mask in sides if np.all(mask[wrong]) and wrong.sum() > 0.7 * mask.sum()]  # fmt: skip
    return fits


def _borders(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    if want.shape != got.shape or want.ndim < 4 or min(want.shape[-2:]) < 3:
        return []
    inside = (..., slice(1, -1), slice(1, -1))
    return [()] if close(want[inside], got[inside], question.exercise.tolerance) else []


def _rounded(question: Question, name: str, want: np.ndarray, got: np.ndarray) -> Fits:
    return [()] if close(want, got, 1e-3) and np.all(np.isfinite(got)) else []


PATTERNS: tuple[Callable[[Question, str, np.ndarray, np.ndarray], Fits], ...] = (
    _zeros, _ones, _an_input, _another_output, _transposed, _extra_axis, _sum_missing, _sign, _upstream_ignored,
    _factor, _one_side, _borders, _constant, _every_row, _rounded,
)  # fmt: skip
