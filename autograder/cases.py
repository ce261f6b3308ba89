"""Questions: a declared case and a seed -> the inputs a student gets and the outputs that are right.

The reference runs here, in float64, and upstream gradients are drawn at random: with an upstream gradient of
ones, returning zeros would pass for softmax.
"""

import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np

from autograder.builders import Build
from autograder.exercise import REQUIRED, Argument, Exercise, at_the_start, constant_start, find, sizes_of
from autograder.play import as_given, lent, script_of


@dataclass(frozen=True)
class Question:
    """One case of one exercise, drawn."""

    exercise: Exercise
    number: int  # which case, from 0
    case: Mapping
    inputs: Mapping  # what the request carries: the function's arguments, or what play needs for a class
    want: tuple[np.ndarray, ...]  # the right outputs
    names: tuple[str, ...]  # their names: an output may be absent in a case (a module without its bias)

    @property
    def sizes(self) -> dict[str, int]:
        """The named sizes of this case, for messages."""
        return sizes_of(self.exercise, self.case)

    def described(self, graded: bool) -> dict:
        """The case in plain values, for messages; what was drawn is left out of a graded run's."""
        omitted = [a for a in self.exercise.arguments if a.shape is None and not callable(self.case.get(a.name))]
        plain = {a.name: a.default for a in omitted if a.default is not REQUIRED}
        case = plain | {key: value for key, value in self.case.items() if not callable(value) and key != "init"}
        arrays = {key: value for key, value in case.items() if isinstance(value, np.ndarray)}
        case |= {key: value.tolist() if value.size <= 12 else value.shape for key, value in arrays.items()}
        drawn = {key: value for key, value in self.inputs.items() if isinstance(value, (bool, int, float, list, Build))}
        init = self.case.get("init", {})
        told = self.exercise.kind in ("function", "gradient", "script") and not graded
        return init | case | (drawn if told else {})

    def request(self) -> dict:
        """The question as play.perform takes it."""
        kind, script = self.exercise.kind, self.exercise.script
        return {
            "kind": "function" if kind == "gradient" else kind,
            "inputs": self.inputs,
            "outputs": len(self.want),
            "forbids": [name for name in self.exercise.forbids if "." in name],
            "withheld": [name for name in self.exercise.forbids if "." not in name],
        } | ({"script": script, "torch": needs_torch(self.exercise.name)} if script else {})


@lru_cache(maxsize=64)  # the exercises of a lesson: a wrong answer is asked twice
def questions(entry: Exercise, seed: int) -> tuple[Question, ...]:
    """Every case of an exercise, drawn from a seed."""
    return tuple(question(entry, number, seed) for number in range(len(entry.cases)))


@cache
def needs_torch(name: str) -> bool:
    """Whether the student's side of an exercise is about torch: a class of theirs, or an argument out of torch."""
    entry = find(name)
    bases = entry.reference.__mro__ if isinstance(entry.reference, type) else ()
    if entry.kind in ("module", "autograd") or any(base.__module__.startswith("torch") for base in bases):
        return True
    given = question(entry, 0, seed=0).inputs.values()
    return any(isinstance(value, Build) and type(value.make()).__module__.startswith("torch") for value in given)


def question(entry: Exercise, number: int, seed: int) -> Question:
    """One case, drawn from a seed: the same numbers for the same seed, case and exercise, always."""
    rng = np.random.default_rng([seed, number, zlib.crc32(entry.name.encode())])
    draw = {
        "function": _function, "gradient": _gradient, "script": _script, "module": _module, "autograd": _autograd,
    }[entry.kind]  # fmt: skip
    return draw(entry, number, entry.cases[number], rng)


def with_upstream(question: Question, value: float) -> tuple[np.ndarray, ...] | None:
    """What would be right if every upstream gradient were `value`; None where there is none."""
    if question.exercise.kind != "gradient":
        return None
    upstream = [argument.name for argument in _upstream(question.exercise)]
    inputs = {key: np.full_like(item, value) if key in upstream else item for key, item in question.inputs.items()}
    return _gradients(question.exercise, inputs)


@dataclass(frozen=True)
class Reference:
    """PyTorch's answer to an exercise on a function: NumPy arrays in, NumPy arrays out.

    One that is `lent` stands in for the learner's own, also inside an answer that must not use torch.
    """

    entry: Exercise
    lent: bool = False

    @property
    def __name__(self) -> str:
        return self.entry.name

    def __call__(self, *args, **kwargs):
        with lent(self.entry.name) if self.lent else nullcontext():
            return self._answer(args, kwargs)

    def _answer(self, args: tuple, kwargs: dict):
        entry = self.entry
        if entry.kind == "script":
            return entry.reference(*args, **kwargs)
        arguments = _upstream(entry) + entry.arguments if entry.kind == "gradient" else entry.arguments
        arrays = {argument.name for argument in arguments if argument.shape is not None}
        values = dict(zip([argument.name for argument in arguments], args, strict=False)) | kwargs
        values = {key: _as_array(item) if key in arrays else item for key, item in values.items()}
        results = _gradients(entry, values) if entry.kind == "gradient" else _forward(entry, values)
        return results[0] if len(results) == 1 else results

    def __reduce__(self):  # a function that is kept with this in it finds it again by name
        return _reference_of, (self.entry.name, self.lent)


def _reference_of(name: str, lent: bool) -> Reference:
    return Reference(find(name), lent)


def _as_array(value):
    return np.asarray(value, float) if isinstance(value, float) else value


# --- one function per kind ---------------------------------------------------------------------------------------


def _function(entry: Exercise, number: int, case: Mapping, rng) -> Question:
    inputs = _draw(entry, case, rng)
    return _question(entry, number, case, inputs, _forward(entry, inputs))


def _gradient(entry: Exercise, number: int, case: Mapping, rng) -> Question:
    arguments, _, upstream = _draw_pass(entry, case, rng)
    inputs = upstream | arguments
    return _question(entry, number, case, inputs, _gradients(entry, inputs))


def _script(entry: Exercise, number: int, case: Mapping, rng) -> Question:
    known = {argument.name for argument in entry.arguments} | sizes_of(entry, case).keys()
    options = {name: value for name, value in case.items() if name not in known}  # which the script hands on
    inputs = _draw(entry, case, rng) | options
    result = script_of(entry.script)(entry.reference, **{name: as_given(value) for name, value in inputs.items()})
    want = tuple(_array(value) for value in (result if isinstance(result, tuple) else (result,)))
    return _question(entry, number, case, inputs, want)


def _autograd(entry: Exercise, number: int, case: Mapping, rng) -> Question:
    arguments, outputs, upstream = _draw_pass(entry, case, rng)
    inputs = {"inputs": arguments, "wrt": list(entry.wrt), "upstream": list(upstream.values())}
    return _question(entry, number, case, inputs, outputs + _gradients(entry, upstream | arguments))


def _module(entry: Exercise, number: int, case: Mapping, rng) -> Question:
    import torch

    model = entry.reference(**case["init"]).double().train(case.get("train", True))
    parameters = {name: rng.standard_normal(tuple(value.shape)) for name, value in model.named_parameters()}
    drawn = {name: entry.draws[name](rng, case["init"]) for name, _ in model.named_buffers() if name in entry.draws}
    loaded = {name: torch.from_numpy(np.asarray(value)) for name, value in (parameters | drawn).items()}
    model.load_state_dict(loaded, strict=False)
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    arguments = _draw(entry, case, rng)
    tensors = {name: _tensor(value, name in entry.wrt) for name, value in arguments.items()}
    y = model(*tensors.values())
    upstream = np.asarray(rng.standard_normal(tuple(y.shape)))
    leaves = [tensors[name] for name in entry.wrt] + list(model.parameters())
    gradients = torch.autograd.grad(_loss([y], [torch.from_numpy(upstream)]), leaves) if leaves else ()
    buffers = dict(model.named_buffers())
    start = constant_start(entry.reference, case["init"])
    want = tuple(_array(value) for value in (y, *gradients, *buffers.values(), *start.values()))
    names = (entry.outputs[0].name, *(f"d{name}" for name in (*entry.wrt, *parameters)), *buffers)
    names += tuple(map(at_the_start, start))
    inputs = {
        "init": dict(case["init"]), "train": model.training, "state": state, "inputs": arguments,
        "wrt": list(entry.wrt), "parameters": list(parameters), "buffers": list(buffers), "start": list(start),
        "upstream": [upstream],
    }  # fmt: skip
    return replace(_question(entry, number, case, inputs, want), names=names)


def _question(entry: Exercise, number: int, case: Mapping, inputs: Mapping, want: tuple) -> Question:
    return Question(entry, number, case, inputs, want, tuple(output.name for output in entry.outputs))


# --- drawing and the reference -----------------------------------------------------------------------------------


def _draw(entry: Exercise, case: Mapping, rng) -> dict:
    """Every argument's value: as the case says, as the declaration says, else N(0, 1) of the named shape."""
    sizes = sizes_of(entry, case)
    drawn: dict = {}
    omitted: dict = {}
    for argument in entry.arguments:
        value = case.get(argument.name, entry.draws.get(argument.name, REQUIRED))
        if value is REQUIRED and entry.kind == "module":
            continue  # forward has a default for it
        if value is REQUIRED and argument.shape is None:
            if argument.default is REQUIRED:
                raise ValueError(f"{entry.name}: case {dict(case)} gives no {argument.name}")
            omitted[argument.name] = argument.default  # the student's own default is part of the exercise
            continue
        drawn |= omitted if entry.kind != "script" else {}  # a function's arguments go by place: none is left out
        omitted = {}
        drawn[argument.name] = _value(argument, value, sizes, rng)
    return drawn


def _draw_pass(entry: Exercise, case: Mapping, rng) -> tuple[dict, tuple[np.ndarray, ...], dict]:
    """A forward pass: its arguments, its outputs, and an upstream gradient for each output."""
    arguments = _draw(entry, case, rng)
    outputs = _forward(entry, arguments)
    upstream = {
        argument.name: np.asarray(rng.standard_normal(y.shape))
        for argument, y in zip(_upstream(entry), outputs, strict=True)
    }
    return arguments, outputs, upstream


def _value(argument: Argument, value, sizes: Mapping, rng):
    if value is not REQUIRED and callable(value):
        value = value(rng, sizes)
    elif argument.shape is not None and (value is REQUIRED or isinstance(value, tuple)):
        shape = value if isinstance(value, tuple) else tuple(_size(letter, sizes) for letter in argument.letters)
        value = np.asarray(rng.standard_normal(shape))
    if argument.shape is not None and not isinstance(value, Build):
        value = np.asarray(value)
        return value.astype(float) if value.dtype.kind == "f" else value
    return value


def _size(letter: str, sizes: Mapping) -> int:
    return int(letter) if letter.isdigit() else sizes[letter]


def _upstream(entry: Exercise) -> tuple[Argument, ...]:
    """The upstream gradients dy, dloss… of a gradient exercise: one for each output of its forward."""
    forward = entry.reference.exercise  # type: ignore[attr-defined]
    return tuple(Argument(f"d{output.name}", output.shape) for output in forward.outputs)


def _forward(entry: Exercise, arguments: Mapping) -> tuple[np.ndarray, ...]:
    result = entry.reference(**{name: _tensor(value) for name, value in arguments.items()})
    return tuple(_array(value) for value in (result if isinstance(result, tuple) else (result,)))


def _gradients(entry: Exercise, inputs: Mapping) -> tuple[np.ndarray, ...]:
    """Autograd's gradients for a mapping that holds the upstream gradients and the forward's arguments."""
    import torch

    upstream_names = [argument.name for argument in _upstream(entry)]
    tensors = {name: _tensor(value, name in entry.wrt) for name, value in inputs.items() if name not in upstream_names}
    upstream = [_tensor(inputs[name]) for name in upstream_names]
    leaves = [tensors[name] for name in entry.wrt]
    with torch.enable_grad():  # also where it is asked for within another backward pass, or under no_grad
        result = entry.reference(**tensors)
        loss = _loss(result if isinstance(result, tuple) else (result,), upstream)
        found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return tuple(_array(value) for value in found)


def _loss(outputs: Sequence, upstream: Sequence):
    """The scalar whose gradient with respect to the outputs is `upstream`.

    The same numbers as grad_outputs= gives, which makes torch import sympy, for a third of a second.
    """
    return sum((y * dy).sum() for y, dy in zip(outputs, upstream, strict=True))


def _tensor(value, requires_grad: bool = False):
    """An argument as the reference gets it: arrays as fresh tensors, Builds made, plain values as they are."""
    import torch

    if isinstance(value, Build):
        return value.make()
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(np.array(value)).requires_grad_(requires_grad)


def _array(value) -> np.ndarray:
    array = value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)
    return np.array(array)
