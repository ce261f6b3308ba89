"""What an exercise is, and the registry of all of them.

A declaration is a decorated torch function in `autograder/exercises/`: its name is the student's function, the
cell and the gradebook's key; its annotations are the shapes; from it follow cases, expected gradients, messages
and points.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np

from autograder.builders import Build
from autograder.play import script_of

__all__ = [
    "Build",
    "Exercise",
    "autograd_function",
    "earlier",
    "exercise",
    "find",
    "gradient_of",
    "load_registry",
    "module",
]

REQUIRED = inspect.Parameter.empty
AT_THE_START = " at the start"


@dataclass(frozen=True)
class Argument:
    """An argument or an output: `shape` names its sizes ("n i"), is "..." for any shape, None for a plain value."""

    name: str
    shape: str | None = None
    default: object = REQUIRED
    guards: bool = False  # an output that earns nothing: it has to be right for any other to count

    @property
    def letters(self) -> tuple[str, ...]:
        """The named sizes, in order; none where the shape is open."""
        return tuple(part for part in (self.shape or "").split() if part != "...")


@dataclass(frozen=True, eq=False)  # there is one of each
class Exercise:
    """One exercise: everything that is known about it stands here, once."""

    name: str  # the student's function or class; also the cell's grade_id and the gradebook's key
    kind: str  # "function", "gradient", "script", "module" or "autograd": who calls what (cases.py, play.py)
    lesson: str  # the module of its declaration
    points: int
    minutes: int  # what a prepared student needs
    difficulty: int  # 1 to 3
    reference: Callable  # torch, float64: the forward pass; for a module the built-in class; what a script plays
    arguments: tuple[Argument, ...]  # of the reference, in order
    outputs: tuple[Argument, ...]  # of the student's function, in order
    wrt: tuple[str, ...]  # the arguments that gradients are asked for
    cases: tuple[Mapping, ...]  # sizes, hyperparameters, arguments drawn otherwise
    draws: Mapping[str, Callable]  # argument -> (rng, sizes) -> value, for all cases
    tolerance: float  # |got - want| <= tolerance * (1 + max|want|)
    hints: tuple[str, ...]  # from a nudge to almost the answer
    mistakes: tuple[tuple[str, Callable], ...]  # (what the learner reads, a wrong implementation)
    forbids: tuple[str, ...]  # what would be the answer: dotted torch names, and exercises that `mine` is to withhold
    repair: bool  # its cell starts from a broken layer: all points or none
    doc: str
    script: str = ""  # "backprop.linear_layer": what plays the answer, and the reference, in autograder/scripts/


_registry: dict[str, Exercise] = {}


def _register(**fields) -> Exercise:
    entry = Exercise(**fields)
    if entry.name in _registry and _registry[entry.name].lesson != entry.lesson:
        raise ValueError(f"two declarations of {entry.name!r}: {_registry[entry.name].lesson} and {entry.lesson}")
    if not 1 <= entry.difficulty <= 3:
        raise ValueError(f"{entry.name}: difficulty is 1, 2 or 3, not {entry.difficulty}")
    if not entry.cases:
        raise ValueError(f"{entry.name}: at least one case is needed")
    _registry[entry.name] = entry
    return entry


def _common(lesson, points, minutes, difficulty, cases, draws, tolerance, hints, mistakes, forbids, repair) -> dict:
    """The fields that mean the same for every kind."""
    return dict(
        lesson=lesson.rpartition(".")[2],
        points=points,
        minutes=minutes,
        difficulty=difficulty,
        cases=tuple(MappingProxyType(dict(case)) for case in cases),
        draws=MappingProxyType(dict(draws)),
        tolerance=tolerance,
        hints=tuple(hints),
        mistakes=tuple(dict(mistakes).items()),
        forbids=tuple(forbids),
        repair=repair,
    )


def exercise(
    *,
    points: int,
    minutes: int,
    difficulty: int,
    cases: Sequence[Mapping],
    draws: Mapping[str, Callable] = MappingProxyType({}),
    tolerance: float = 1e-5,
    hints: Sequence[str] = (),
    mistakes: Mapping[str, Callable] = MappingProxyType({}),
    repair: bool = False,
    forbids: Sequence[str] = (),
    script: str = "",
):
    """Declares the decorated torch function as an exercise and returns it unchanged, its declaration attached.

    With a `script` of the lesson's module in autograder/scripts/, the decorated function or class has the interface
    that the learner's has, arrays in, arrays out, and the script plays both: what it takes, after the function or
    class, are the inputs, what it returns are the outputs.
    """

    def declare(answer: Callable) -> Callable:
        named = f"{answer.__module__.rpartition('.')[2]}.{script}" if script else ""
        answer.exercise = _register(  # type: ignore[attr-defined]
            name=answer.__name__,
            kind="script" if script else "function",
            reference=answer,
            arguments=_arguments(script_of(named))[1:] if script else _arguments(answer),
            outputs=_outputs(script_of(named) if script else answer),
            wrt=(),
            doc=inspect.getdoc(answer) or "",
            script=named,
            **_common(
                answer.__module__, points, minutes, difficulty, cases, draws,
                tolerance, hints, mistakes, forbids, repair,
            ),
        )  # fmt: skip
        return answer

    return declare


def gradient_of(
    forward: Callable,
    *,
    points: int,
    minutes: int,
    difficulty: int,
    name: str | None = None,
    wrt: str | None = None,
    cases: Sequence[Mapping] | None = None,
    tolerance: float | None = None,
    hints: Sequence[str] = (),
    mistakes: Mapping[str, Callable] = MappingProxyType({}),
    repair: bool = False,
) -> Exercise:
    """Declares the backward pass of a declared forward: its reference is autograd with a random upstream gradient.

    Its signature is (d-outputs…, *the forward's arguments); it returns a gradient for each argument in `wrt`
    (default: all those with a shape), in the forward's order.
    """
    of: Exercise = forward.exercise  # type: ignore[attr-defined]
    wanted = tuple(wrt.split()) if wrt else _differentiable(of)
    return _register(
        name=name or of.name.removesuffix("_forward") + "_backward",
        kind="gradient",
        reference=forward,
        arguments=of.arguments,
        outputs=_gradients(of, wanted),
        wrt=wanted,
        doc=f"The gradient of {of.name}.",
        **_common(
            forward.__module__, points, minutes, difficulty, of.cases if cases is None else cases, of.draws,
            of.tolerance if tolerance is None else tolerance, hints, mistakes, (), repair,
        ),
    )  # fmt: skip


def autograd_function(
    name: str,
    forward: Callable,
    *,
    points: int,
    minutes: int,
    difficulty: int,
    wrt: str | None = None,
    cases: Sequence[Mapping] | None = None,
    forbids: Sequence[str] = (),
    hints: Sequence[str] = (),
    mistakes: Mapping[str, Callable] = MappingProxyType({}),
) -> Exercise:
    """Declares a torch.autograd.Function that computes a declared forward and its gradient by hand."""
    of: Exercise = forward.exercise  # type: ignore[attr-defined]
    wanted = tuple(wrt.split()) if wrt else _differentiable(of)
    return _register(
        name=name,
        kind="autograd",
        reference=forward,
        arguments=of.arguments,
        outputs=of.outputs + _gradients(of, wanted),
        wrt=wanted,
        doc=f"{of.name} and its gradient as a torch.autograd.Function.",
        **_common(
            forward.__module__, points, minutes, difficulty, of.cases if cases is None else cases, of.draws,
            of.tolerance, hints, mistakes, forbids, False,
        ),
    )  # fmt: skip


def module(
    builtin: type,
    *,
    points: int,
    minutes: int,
    difficulty: int,
    cases: Sequence[Mapping],
    name: str | None = None,
    output: str = "y",
    draws: Mapping[str, Callable] = MappingProxyType({}),
    wrt: str | None = None,
    tolerance: float = 1e-5,
    forbids: Sequence[str] = (),
    hints: Sequence[str] = (),
    mistakes: Mapping[str, Callable] = MappingProxyType({}),
) -> Exercise:
    """Declares a re-creation of a torch.nn class: same constructor, same state_dict, same outputs and gradients.

    `output` names what forward returns. A case gives `init` (the constructor's arguments), `train=False` for
    evaluation mode, and, in order, the inputs of forward as shapes or draws, the first case all of them, another
    without those that forward has defaults for; `wrt` names those that gradients are asked for (default: those drawn
    from N(0, 1)). `draws` may also name a buffer: (rng, init) -> its value before.
    """
    inputs = tuple(key for key in cases[0] if key not in ("init", "train"))
    wanted = tuple(wrt.split()) if wrt else tuple(k for k in inputs if isinstance(cases[0][k], tuple))
    model = builtin(**cases[0]["init"])
    parameters = [f"d{key}" for key, _ in model.named_parameters()]
    buffers = [key for key, _ in model.named_buffers()]
    start = [at_the_start(key) for key in constant_start(builtin, cases[0]["init"])]
    caller = inspect.currentframe().f_back  # type: ignore[union-attr]
    return _register(
        name=name or builtin.__name__,
        kind="module",
        reference=builtin,
        arguments=tuple(Argument(key, "...") for key in inputs),
        outputs=tuple(
            Argument(key, "...") for key in (output, *(f"d{key}" for key in wanted), *parameters, *buffers, *start)
        ),
        wrt=wanted,
        doc=f"torch.nn.{builtin.__name__}, built from scratch.",
        **_common(
            caller.f_globals["__name__"], points, minutes, difficulty, cases, draws,  # type: ignore[union-attr]
            tolerance, hints, mistakes, forbids, False,
        ),
    )  # fmt: skip


def constant_start(builtin: Callable, init: Mapping) -> dict[str, np.ndarray]:
    """The parameters and buffers that a built-in module starts from, if always the same: drawn ones are left out."""
    one, two = (builtin(**init).double() for _ in range(2))
    first, second = ({**dict(model.named_parameters()), **dict(model.named_buffers())} for model in (one, two))
    return {key: first[key].detach().numpy() for key in first if bool((first[key] == second[key]).all())}


def at_the_start(name: str) -> str:
    """What messages call the starting value of a parameter."""
    return name + AT_THE_START


def _arguments(function: Callable) -> tuple[Argument, ...]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(
        Argument(p.name, None if p.annotation is REQUIRED else str(p.annotation), p.default)
        for p in parameters
        if p.kind is not p.VAR_KEYWORD
    )


def _outputs(function: Callable) -> tuple[Argument, ...]:
    """ "w: o i, (b): o" -> the output w, and b, which guards it; a missing annotation is an output y of any shape."""
    annotation = inspect.signature(function).return_annotation
    pieces = ["y: ..."] if annotation is REQUIRED else str(annotation).split(",")
    named = [piece.partition(":") for piece in pieces]
    return tuple(
        Argument(name.strip(" ()"), shape.strip(), guards=name.strip().startswith("(")) for name, _, shape in named
    )


def sizes_of(entry: Exercise, case: Mapping) -> dict[str, int]:
    """The named sizes that a case gives. An argument may have the name of a size (w, a width and the weights)."""
    letters = {letter for part in (*entry.arguments, *entry.outputs) for letter in part.letters}
    return {key: value for key, value in case.items() if key in letters and isinstance(value, int)}


def _differentiable(of: Exercise) -> tuple[str, ...]:
    """The arguments with a shape, less those drawn as integers or booleans."""
    case = of.cases[0]

    def is_float(argument: Argument) -> bool:
        drawn = case.get(argument.name, of.draws.get(argument.name))
        if isinstance(drawn, tuple) or drawn is None:
            return True
        value = drawn(np.random.default_rng(0), sizes_of(of, case)) if callable(drawn) else drawn
        return np.asarray(value).dtype.kind == "f"

    return tuple(a.name for a in of.arguments if a.shape is not None and is_float(a))


def _gradients(of: Exercise, wrt: Sequence[str]) -> tuple[Argument, ...]:
    shapes = {argument.name: argument.shape for argument in of.arguments}
    return tuple(Argument(f"d{name}", shapes[name]) for name in wrt)


@cache
def _import_declarations() -> None:
    package = importlib.import_module("autograder.exercises")
    for lesson in sorted((entry.name for entry in pkgutil.iter_modules(package.__path__)), key=package.LESSONS.index):
        importlib.import_module(f"autograder.exercises.{lesson}")


def load_registry() -> Mapping[str, Exercise]:
    """Every declared exercise by name, in the order of the course."""
    _import_declarations()
    return MappingProxyType(_registry)


def earlier(lesson: str) -> list[str]:
    """The exercises of the lessons before this one; of all lessons, where it is none of the course's."""
    lessons = importlib.import_module("autograder.exercises").LESSONS
    before = lessons[: lessons.index(lesson)] if lesson in lessons else lessons
    return [name for name, entry in load_registry().items() if entry.lesson in before]


def find(name: str) -> Exercise:
    """The exercise of that name; a KeyError that names the nearest otherwise."""
    registry = load_registry()
    if name in registry:
        return registry[name]
    near = difflib.get_close_matches(name, registry, n=1, cutoff=0)
    raise KeyError(f"no exercise is called {name!r}; the nearest is {near[0]!r}" if near else "no exercise is declared")
