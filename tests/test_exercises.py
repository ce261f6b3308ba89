"""What must hold for every declared exercise: whoever adds one gets these tests for nothing."""

import importlib
import pkgutil
from functools import partial

import numpy as np
import pytest
import torch._dynamo  # noqa: F401  torch.optim imports it at its first step: seconds that are not the check's

import tests.alternatives
from autograder import cases
from autograder.exercise import load_registry
from autograder.grade import examine

REGISTRY = load_registry()
SEEDS = (0, 1, 2)
ALTERNATIVES = {
    name: implementations
    for entry in pkgutil.iter_modules(tests.alternatives.__path__)
    for name, implementations in importlib.import_module(f"tests.alternatives.{entry.name}").ALTERNATIVES.items()
}
FUNCTIONS = [entry for entry in REGISTRY.values() if entry.kind in ("function", "gradient")]
GRADIENTS = [entry for entry in REGISTRY.values() if entry.kind in ("gradient", "module", "autograd")]
SCRIPTS = [entry for entry in REGISTRY.values() if entry.kind == "script"]


def names(entries):
    return [entry.name for entry in entries]


def mistakes():
    for entry in REGISTRY.values():
        for number, (sentence, implementation) in enumerate(entry.mistakes):
            yield pytest.param(entry, sentence, implementation, id=f"{entry.name}-{number}")


@pytest.mark.parametrize(("entry", "sentence", "implementation"), list(mistakes()))
@pytest.mark.parametrize("seed", SEEDS)
def test_every_declared_mistake_is_refused_with_its_own_sentence(entry, sentence, implementation, seed):
    result = examine(implementation, entry.name, seed)
    assert not result.passed
    assert result.mistake == sentence
    assert sentence in result.text


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=names(REGISTRY.values()))
@pytest.mark.parametrize("seed", SEEDS)
def test_other_right_ways_get_all_points(entry, seed):
    ways = ALTERNATIVES[entry.name]
    assert len(ways) >= 2, f"tests/alternatives: {entry.name} needs at least two other right implementations"
    for way in ways:
        result = examine(way, entry.name, seed)
        assert result.passed, result.text


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=names(REGISTRY.values()))
def test_enough_is_declared(entry):
    needed = 4 if entry.name.endswith(("_forward", "_backward")) else 3
    assert len(entry.mistakes) >= needed
    assert len(entry.hints) >= 2
    assert entry.minutes > 0 and entry.points > 0


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=names(REGISTRY.values()))
def test_right_answers_are_finite_in_every_case(entry):
    for question in cases.questions(entry, seed=0):
        assert all(np.isfinite(want).all() for want in question.want)


def returning(value):
    def answer(*args, **kwargs):
        return value(*args, **kwargs) if callable(value) else value

    return answer


def raising(*args, **kwargs):
    raise NotImplementedError


@pytest.mark.parametrize("entry", FUNCTIONS, ids=names(FUNCTIONS))
def test_answers_that_are_none_score_nothing(entry):
    """None, text, nan, the input, one value too many, an exception: no points, and a sentence of its own for each."""
    many = len(entry.outputs)
    wrong = {
        "unwritten": raising,
        "none": returning(None),
        "text": returning("hello"),
        "too many": returning(tuple([np.zeros(3)] * (many + 1))),
        "complex": returning(lambda *a, **k: _each(many, np.array(1j))),
        "nan": returning(lambda *a, **k: _each(many, np.array(np.nan))),
        "exception": returning(lambda *a, **k: 1 / 0),
        "a dictionary": returning(lambda *a, **k: _each(many, {})),
    }
    texts = {}
    for name, answer in wrong.items():
        result = examine(answer, entry.name, seed=0)
        assert result.points == 0, f"{name}: {result.text}"
        texts[name] = result.text
    assert len(set(texts.values())) == len(texts)


@pytest.mark.parametrize("entry", SCRIPTS, ids=names(SCRIPTS))
def test_classes_and_functions_that_are_none_score_nothing(entry):
    class Empty:
        pass

    class Unwritten:
        def __init__(self, *args, **kwargs):
            raise NotImplementedError

    wrong = [Empty, Unwritten] if isinstance(entry.reference, type) else [raising, returning(None), returning("hello")]
    for answer in [*wrong, None, 3, np.ones(2)]:
        result = examine(answer, entry.name, seed=0)
        assert result.points == 0, result.text
        assert result.problem or result.wrong


def _each(count, value):
    return value if count == 1 else tuple([value] * count)


@pytest.mark.parametrize("entry", FUNCTIONS, ids=names(FUNCTIONS))
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_zeros_and_ones_of_the_right_shape_score_nothing(entry, fill):
    shapes = iter([])

    def constant(*args, **kwargs):
        question = next(shapes)
        values = tuple(np.full(want.shape, fill) for want in question.want)
        return values[0] if len(values) == 1 else values

    asked = cases.questions(entry, seed=0)
    shapes = iter([*asked, asked[0]])
    assert examine(constant, entry.name, seed=0).points == 0


@pytest.mark.parametrize("entry", FUNCTIONS, ids=names(FUNCTIONS))
def test_returning_the_input_scores_nothing(entry):
    def first_argument(*args, **kwargs):
        first = next((value for value in (*args, *kwargs.values()) if isinstance(value, np.ndarray)), 0.0)
        return _each(len(entry.outputs), first)

    assert examine(first_argument, entry.name, seed=0).points == 0


@pytest.mark.parametrize("entry", GRADIENTS, ids=names(GRADIENTS))
def test_finite_differences_agree_with_the_reference(entry):
    """The oracle itself is verified by a witness that knows no derivative.

    At a kink (relu at 0, ties of a pool) both sides are right and PyTorch's convention decides: nothing to witness.
    """
    witnessed = 0
    for question in cases.questions(entry, seed=0):
        values, upstream, forward = _scalar_loss(entry, question)
        for name in values:
            want = question.want[question.names.index(f"d{name}")]
            right, left = _one_sided_differences(partial(_loss_at, forward, upstream, values, name), values[name])
            smooth = np.abs(right - left) <= 1e-3 * (1 + np.abs(want).max(initial=0))
            found = (right + left) / 2
            tolerance = 1e-6 * (1 + np.abs(want).max(initial=0))
            np.testing.assert_allclose(found[smooth], want[smooth], rtol=1e-5, atol=tolerance)
            witnessed += smooth.sum()
    assert witnessed


def _scalar_loss(entry, question):
    """The arrays to vary, the upstream gradients and the forward pass of a question that asks for gradients."""
    import torch

    if entry.kind == "module":
        given = question.inputs

        def run(**arrays):
            model = entry.reference(**given["init"]).double().train(given["train"])
            state = {n: torch.from_numpy(np.array(arrays.get(n, v))) for n, v in given["state"].items()}
            model.load_state_dict(state)
            inputs = [torch.from_numpy(np.array(arrays.get(n, v))) for n, v in given["inputs"].items()]
            return model(*inputs)

        values = {n: given["inputs"][n] for n in given["wrt"]} | {n: given["state"][n] for n in given["parameters"]}
        return values, given["upstream"], run
    if entry.kind == "autograd":
        arguments, upstream = question.inputs["inputs"], question.inputs["upstream"]
    else:
        heads = [f"d{output.name}" for output in entry.reference.exercise.outputs]
        arguments = {n: v for n, v in question.inputs.items() if n not in heads}
        upstream = [question.inputs[n] for n in heads]

    def run(**arrays):
        given = arguments | arrays
        return entry.reference(**{n: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v
                                  for n, v in given.items()})  # fmt: skip

    return {n: arguments[n] for n in entry.wrt}, upstream, run


def _loss_at(forward, upstream, values, name, x):
    """The scalar sum(y * dy), with one of the values replaced by x."""
    result = forward(**values | {name: x})
    outputs = result if isinstance(result, tuple) else (result,)
    return float(sum((y.detach().numpy() * dy).sum() for y, dy in zip(outputs, upstream, strict=True)))


def _one_sided_differences(f, x, h=1e-5):
    right, left, here = np.zeros_like(x), np.zeros_like(x), f(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        right[index], left[index] = (f(up) - here) / h, (here - f(down)) / h
    return right, left
