"""One exercise on one function -> a result; check() for notebooks."""

import _thread
import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from autograder import kept, play, report
from autograder.cases import Question, Reference, questions
from autograder.compare import compare, relative_error
from autograder.diagnose import Attempt, Diagnosis, diagnose
from autograder.exercise import AT_THE_START, Exercise, find
from autograder.report import Output, Result, Wrong

SECONDS = 10.0  # for all questions of one exercise
Ask = Callable[[Sequence[Question]], Iterable[Mapping]]  # questions -> the replies of play.perform, wherever that runs

_failed_checks: Counter[str] = Counter()  # in this session: each failed check shows the next hint


class CheckFailed(AssertionError):
    """A check in a notebook did not give all points. The report stands above it."""

    def _render_traceback_(self) -> list[str]:
        return [f"CheckFailed: {self}"]


def check(target, exercise: str | None = None) -> float | None:
    """Check a function or class of a lesson: prints the report, and raises CheckFailed unless all of it is right.

    In a graded run it returns the points instead, as a plain float, which is what nbgrader records.

    >>> check(linear_forward)
    """
    if _is_graded():
        result = _examine(target, exercise, seed=None, graded=True)
        print(result.text)
        return float(result.points)
    name = _name(target, exercise)
    result = _examine(target, exercise, seed=None, hint=_failed_checks[name])
    print(result.text)
    if result.passed:
        _keep(name, target)
        return None
    _failed_checks[name] += result.wrong is not None
    _display(result.picture)
    raise CheckFailed(f"{report.head(result)}; see above.")


def examine(target, exercise: str | None = None, seed: int | None = None) -> Result:
    """Check a function or class without raising for anything it does.

    `exercise` is its name in the course (default: the function's own name); the same `seed` draws the same inputs.
    Raises KeyError, naming the nearest, where no exercise has that name.
    """
    return _examine(target, exercise, seed)


def reference(name: str) -> Callable:
    """PyTorch's answer to an exercise from scratch: NumPy arrays in, NumPy arrays out. For figures and comparisons."""
    return _reference(name, lent=False)


def mine(name: str) -> Callable:
    """The learner's own latest version of an exercise that passed its check, else the reference; prints which.

    Arrays in, arrays out: the exercises from scratch. In a graded run it is always the reference, so that an early
    mistake never costs points twice. Raises KeyError, naming the nearest, where no exercise has that name.
    """
    answer: Any = _reference(name, lent=True)
    whose = "the course's reference (PyTorch). Yours takes its place once it has passed its check."
    if not _is_graded():
        try:
            if found := kept.kept(name):
                answer, when = found
                whose = f"yours, which passed its check on {when.day} {when:%B %Y at %H:%M}."
        except ValueError as error:
            whose = f"the course's reference (PyTorch), since yours is damaged: {error}. Run its check again."
    print(f"{name}: {whose}")
    return answer


def _reference(name: str, lent: bool) -> Callable:
    entry = find(name)
    if entry.kind in ("module", "autograd"):
        raise ValueError(f"{name} is a class of PyTorch's kind; its reference is PyTorch's own: use torch.nn")
    return entry.reference if isinstance(entry.reference, type) else Reference(entry, lent)


def _keep(name: str, target) -> None:
    """Keeps an answer for `mine`, where it can be kept and its kind can be asked for."""
    if find(name).kind in ("function", "gradient", "script") and (problem := kept.keep(name, target)):
        print(f"It can't be kept for later lessons, which will take the reference: {problem}.")


def _is_graded() -> bool:
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


def _examine(target, exercise: str | None, seed: int | None, graded: bool = False, hint: int = 0) -> Result:
    entry = find(_name(target, exercise))
    if seed is None:
        seed = secrets.randbits(32)

    def ask(questions: Sequence[Question]) -> Iterable[Mapping]:
        return (play.perform(target, question.request()) for question in questions)

    try:
        with _time_limit(SECONDS):
            return judge(entry, ask, seed, graded, hint)
    except TimeUp:
        return failed(entry, {"failure": "time", "seconds": f"{SECONDS:g}"}, seed, graded, hint)


def _name(target, exercise: str | None) -> str:
    name = exercise or getattr(target, "__name__", None)
    if name is None or name == "<lambda>":
        raise KeyError(f"which exercise is this {type(target).__name__}? Give its name: check(f, 'linear_forward')")
    return name


def judge(entry: Exercise, ask: Ask, seed: int, graded: bool = False, hint: int = 0, why: bool = True) -> Result:
    """All questions of an exercise, asked and compared. `hint` is the number of hints already seen.

    Without `why`, nobody looks for what is wrong with a wrong answer, which takes longest.
    """
    asked = questions(entry, seed)
    replies: list[Mapping] = []
    for question, reply in zip([*asked, asked[0]], ask([*asked, asked[0]]), strict=False):  # a failure ends the replies
        if "failure" in reply and len(replies) < len(asked):
            known = {"case": question.described(graded), "number": question.number}
            stopped = failed(entry, {**reply, **known}, seed, graded, hint)
            if not replies:
                return stopped
            return _with_wrong(stopped, _verdict(entry, asked[: len(replies)], replies, seed, graded, hint, why))
        replies.append(reply)
    *replies, once_more = replies
    modified = sorted({name for reply in replies for name in reply.get("modified", ())})
    if modified:
        return failed(entry, {"failure": "modified", "arguments": " and ".join(modified)}, seed, graded, hint)
    if not _steady(asked[0].names, replies[0], once_more):
        return failed(entry, {"failure": "unsteady"}, seed, graded, hint)
    return _verdict(entry, asked, replies, seed, graded, hint, why)


def failed(entry: Exercise, reply: Mapping, seed: int | None = None, graded: bool = False, hint: int = 0) -> Result:
    """The result of an exercise in which nothing could be compared."""
    problem = report.failure(entry, reply)
    stuck = reply["failure"] in ("raised", "time")  # else the problem is not what the hints are about
    return Result(entry.name, 0.0, entry.points, (), problem=problem, seed=seed, graded=graded,
                  hint=_hint(entry, hint) if stuck else None)  # fmt: skip


def _with_wrong(stopped: Result, before: Result) -> Result:
    """The result of an answer that stopped, with what was wrong in the cases before."""
    if before.wrong is None:
        return stopped
    return replace(stopped, mistake=before.mistake, wrong=before.wrong, hint=before.hint)


def _hint(entry: Exercise, seen: int) -> str | None:
    """The next hint. The last one, almost the answer, is never shown unasked: it can be unfolded above the exercise."""
    asked = entry.hints[:-1] or entry.hints
    return asked[min(seen, len(asked) - 1)] if asked else None


def _steady(names: Sequence[str], first: Mapping, second: Mapping) -> bool:
    """Whether the same question got the same answer twice, but for what a layer starts from: that may be drawn."""
    if "failure" in second:
        return False
    answers = zip(names, first["values"], second["values"], strict=True)
    return all(_bytes(a) == _bytes(b) for name, a, b in answers if not name.endswith(AT_THE_START))


def _bytes(value: Mapping):
    return value["array"].tobytes() if "array" in value else value["refused"]


# --- comparing ---------------------------------------------------------------------------------------------------


def _verdict(
    entry: Exercise, asked: Sequence[Question], replies: Sequence[Mapping], seed: int, graded: bool, hint: int,
    why: bool,
) -> Result:  # fmt: skip
    attempts = [Attempt.of(question, reply) for question, reply in zip(asked, replies, strict=True)]
    first_wrong = {name: _first_wrong(attempts, name) for name in _names(asked)}
    wrong = [name for name, position in first_wrong.items() if position is not None]
    guards = {output.name for output in entry.outputs if output.guards}
    share = entry.points / len(first_wrong.keys() - guards)
    nothing = (entry.repair and wrong) or guards.intersection(wrong)
    scored = {name: 0.0 if nothing or name in guards or name in wrong else share for name in first_wrong}
    outputs = tuple(_output(attempts, replies, name, position, scored[name]) for name, position in first_wrong.items())
    total = float(entry.points) if not wrong else float(sum(scored.values()))
    notes = _notes(replies)
    if not wrong or not why:
        return Result(entry.name, total, entry.points, outputs, notes=notes, seed=seed, graded=graded)
    diagnosis = diagnose(attempts, wrong)
    name = diagnosis.output if diagnosis else wrong[0]
    position = first_wrong[name]
    assert position is not None
    explained = _explain(entry, attempts, replies, name, position, graded)
    mistake = None if diagnosis is None else diagnosis.sentence or _pattern(entry, diagnosis, explained)
    return Result(
        entry.name, total, entry.points, outputs, mistake=mistake, wrong=explained, hint=_hint(entry, hint),
        notes=notes, seed=seed, graded=graded,
    )  # fmt: skip


def _names(asked: Iterable[Question]) -> list[str]:
    return list(dict.fromkeys(name for question in asked for name in question.names))


def _first_wrong(attempts: Sequence[Attempt], name: str) -> int | None:
    """The first case in which an output is wrong."""
    return next((i for i, a in enumerate(attempts) if name in a.question.names and not _is_right(a, name)), None)


def _is_right(attempt: Attempt, name: str) -> bool:
    want, got = attempt.pair(name)
    return got is not None and compare(want, got, attempt.question.exercise.tolerance) is None


def _output(attempts, replies, name: str, position: int | None, score: float) -> Output:
    pairs = [attempt.pair(name) for attempt in attempts if name in attempt.question.names]
    errors = [None if got is None else relative_error(want, got) for want, got in pairs]
    error = None if any(e is None for e in errors) else max(errors)  # type: ignore[type-var]
    if position is None:
        return Output(name, pairs[0][0].shape, "right", error, score)
    attempt = attempts[position]
    want, got = attempt.pair(name)
    if got is None:
        value = replies[position]["values"][attempt.question.names.index(name)]
        return Output(name, None, report.refusal(name, value)[0], None, score)
    mismatch = compare(want, got, attempt.question.exercise.tolerance)
    assert mismatch is not None
    verdict = {"shape": "wrong shape", "kind": "not booleans", "value": "wrong"}.get(mismatch.code, mismatch.code)
    return Output(name, got.shape, verdict, error, score)


def _explain(entry: Exercise, attempts, replies, name: str, position: int, graded: bool) -> Wrong:
    attempt = attempts[position]
    want, got = attempt.pair(name)
    if got is None:
        mismatch = None
        value = replies[position]["values"][attempt.question.names.index(name)]
        sentence = report.refusal(name, value)[1]
    else:
        mismatch = compare(want, got, entry.tolerance)
        assert mismatch is not None
        sentence = report.explain(entry, name, want, got, mismatch, attempt.question.described(graded))
    concerned = [a for a in attempts if name in a.question.names]
    return Wrong(
        name, position, attempt.question.described(graded), want, got, mismatch, sentence,
        right_cases=tuple(a.question.described(graded) for a in concerned if _is_right(a, name)),
        wrong_cases=tuple(a.question.described(graded) for a in concerned if not _is_right(a, name)),
        inputs=attempt.question.inputs, sizes=_sizes(attempt.question),
    )  # fmt: skip


def _sizes(question: Question) -> frozenset[str]:
    """Which keys of a case are sizes, or arrays told by their shapes."""
    return frozenset(question.sizes) | {argument.name for argument in question.exercise.arguments if argument.shape}


def _pattern(entry: Exercise, diagnosis: Diagnosis, wrong: Wrong) -> str:
    assert wrong.got is not None
    return report.pattern(entry, diagnosis, wrong.want, wrong.got, wrong.case)


def _notes(replies: Sequence[Mapping]) -> tuple[str, ...]:
    warned = dict.fromkeys(text for reply in replies for text in reply.get("warnings", ()))
    return tuple(f"your code warned: {text} (a warning costs no points)" for text in list(warned)[:2])


# --- the notebook ------------------------------------------------------------------------------------------------


def _display(picture: str) -> None:
    """Shows HTML where there is a notebook to show it in."""
    try:
        from IPython import get_ipython
        from IPython.display import HTML, display
    except ImportError:
        return
    if picture and get_ipython() is not None:
        display(HTML(picture))


class TimeUp(BaseException):
    """The student's code ran out of time; no `except Exception` of theirs catches it."""


@contextmanager
def _time_limit(seconds: float):
    """Raises TimeUp in the main thread after `seconds`; elsewhere there is no limit.

    A timer sends the main thread the interrupt that Ctrl-C would, which works on every system.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    lock, state = threading.Lock(), {"done": False, "fired": False}

    def fire() -> None:
        with lock:
            if not state["done"]:
                state["fired"] = True
                _thread.interrupt_main()

    def interrupted(number, frame):
        if state["fired"]:
            raise TimeUp
        raise KeyboardInterrupt

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    before = signal.signal(signal.SIGINT, interrupted)
    timer.start()
    try:
        yield
    finally:
        with lock:
            state["done"] = True
        timer.cancel()
        signal.signal(signal.SIGINT, before)
