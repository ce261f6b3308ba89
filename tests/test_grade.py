"""check() and examine() as a learner meets them."""

import sys
import threading
import time

import numpy as np
import pytest
from torch import nn

from autograder import grade
from autograder.exercise import load_registry
from autograder.exercises.cnn import PlainConv
from autograder.grade import CheckFailed, check, examine, reference


def linear_forward(x, w, b):
    return x @ w.T + b


def backward(dx=lambda dy, x, w, b: dy @ w, dw=lambda dy, x, w, b: dy.T @ x, db=lambda dy, x, w, b: dy.sum(0)):
    return lambda *arguments: (dx(*arguments), dw(*arguments), db(*arguments))


def said(f, name="linear_backward"):
    result = examine(f, name, seed=0)
    return result.text


# --- check in a notebook -----------------------------------------------------------------------------------------


def test_a_right_answer_is_told_so_and_returns_nothing(capsys):
    assert check(linear_forward) is None
    printed = capsys.readouterr().out
    assert printed.startswith("linear_forward: 2 of 2 points")
    assert "right" in printed


def test_a_wrong_answer_raises_after_the_report(capsys):
    with pytest.raises(CheckFailed, match="0 of 2 points"):
        check(lambda x, w, b: x @ w.T, "linear_forward")
    assert "y has no bias" in capsys.readouterr().out


def test_each_failed_check_shows_the_next_hint(capsys):
    grade._failed_checks.clear()
    entry = load_registry()["linear_forward"]
    *shown, last = entry.hints
    for expected in [*shown, shown[-1]]:
        with pytest.raises(CheckFailed):
            check(lambda x, w, b: x @ w.T, "linear_forward")
        printed = capsys.readouterr().out
        assert f"Hint: {expected}" in printed
        assert last not in printed, "the last hint is never shown unasked"


def test_a_graded_run_ends_with_a_plain_float_and_reveals_nothing(capsys, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    points = check(backward(db=lambda dy, x, w, b: 2 * dy.sum(0)), "linear_backward")
    assert type(points) is float and points == 4.0
    printed = capsys.readouterr().out
    assert "expected" not in printed and "seed" not in printed and "2 times" in printed


def test_the_traceback_of_a_failed_check_is_one_line():
    assert CheckFailed("x has 0 of 1 points")._render_traceback_() == ["CheckFailed: x has 0 of 1 points"]


# --- examine -----------------------------------------------------------------------------------------------------


def test_an_unknown_exercise_is_a_key_error_that_names_the_nearest():
    with pytest.raises(KeyError, match="linear_forward"):
        examine(linear_forward, "linear_foward")


def test_the_name_of_the_function_is_the_name_of_the_exercise():
    assert examine(linear_forward).exercise == "linear_forward"


def test_points_are_shared_by_the_outputs():
    result = examine(backward(dw=lambda dy, x, w, b: x.T @ dy), "linear_backward", seed=0)
    assert (result.points, result.max_points) == (4.0, 6)
    assert [(o.name, o.verdict, o.points) for o in result.outputs] == [
        ("dx", "right", 2.0), ("dw", "wrong shape", 0.0), ("db", "right", 2.0),
    ]  # fmt: skip


def test_a_repair_gives_all_points_or_none():
    result = examine(backward(db=lambda dy, x, w, b: dy.mean(0)), "repair_linear_backward", seed=0)
    assert result.points == 0


def test_the_first_wrong_output_is_explained_first():
    two = backward(dw=lambda dy, x, w, b: x.T @ dy, db=lambda dy, x, w, b: dy.mean(0))
    assert examine(two, "linear_backward", seed=0).mistake.startswith("dw is transposed")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda dy, x, w, b: None, "returned nothing (None); it should return 3 arrays, dx, dw, db, as a tuple"),
        (lambda dy, x, w, b: (dy @ w, dy.T @ x), "returned 2 values"),
        (lambda dy, x, w, b: np.zeros(3), "returned one ndarray"),
        (lambda dy, x: None, "stopped with TypeError"),
        (lambda dy, x, w, b: undefined, "stopped with NameError"),  # noqa: F821
        (lambda dy, x, w, b: sys.exit(), "stopped with SystemExit"),
        (backward(dx=lambda dy, x, w, b: "text"), "dx is a str"),
        (backward(dx=lambda dy, x, w, b: None), "dx is None"),
        (backward(dx=lambda dy, x, w, b: dy @ w + 0j), "dx holds complex numbers"),
        (backward(dx=lambda dy, x, w, b: np.ma.masked_array(dy @ w)), "masked"),
        (backward(dx=lambda dy, x, w, b: np.matrix(dy @ w)), "matrix"),
        (backward(dx=lambda dy, x, w, b: [[1], [1, 2]]), "rows have different lengths"),
        (backward(dx=lambda dy, x, w, b: np.array(["a"])), "dtype <U1"),
        (backward(dx=lambda dy, x, w, b: (dy @ w).astype(object)), "dtype object"),
        (backward(dx=lambda dy, x, w, b: dy @ w * np.nan), "dx is nan"),
        (backward(dx=lambda dy, x, w, b: dy @ w + np.inf), "dx is infinite"),
        (
            backward(dx=lambda dy, x, w, b: dy @ w + np.random.default_rng().random()),
            "two different answers to the same question",
        ),
        (backward(dx=lambda dy, x, w, b: x @ w.T), "dx has the shape (5, 3) = (n, o), expected (n, i) = (5, 4)"),
        (backward(dx=lambda dy, x, w, b: np.zeros((3000, 3000))), "far more than any right answer"),
    ],
)
def test_each_way_to_be_no_answer_has_its_own_sentence(answer, sentence):
    assert sentence in said(answer)


def test_changing_an_argument_is_noticed():
    def in_place(dy, x, w, b):
        right = dy @ w, dy.T @ x, dy.sum(0)
        x += 1
        return right

    assert "changed its argument x" in said(in_place)


def test_torch_in_a_numpy_exercise_is_noticed_and_named():
    import torch

    def with_torch(x, w, b):
        return torch.nn.functional.linear(*map(torch.from_numpy, (x, w, b))).numpy()

    assert "calls torch (from_numpy)" in said(with_torch, "linear_forward") or "NumPy only" in said(
        with_torch, "linear_forward"
    )


def test_a_torch_tensor_is_no_numpy_array():
    import torch

    ready = torch.zeros(5, 3)
    assert "y is a torch tensor. This half is NumPy only" in said(lambda x, w, b: ready, "linear_forward")


def test_warnings_and_prints_cost_nothing(capfd):
    def noisy(x, w, b):
        import warnings

        warnings.warn("careful", stacklevel=1)
        print("to stderr", file=sys.stderr)
        np.log(np.zeros(1))
        return x @ w.T + b

    result = examine(noisy, "linear_forward", seed=0)
    assert result.passed
    assert "UserWarning: careful (a warning costs no points)" in result.text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "convert", [lambda y: y.tolist(), lambda y: y.astype(np.float32), lambda y: np.asfortranarray(y), lambda y: y[::1]]
)
def test_lists_float32_and_other_memory_orders_are_accepted(convert):
    assert examine(lambda x, w, b: convert(x @ w.T + b), "linear_forward", seed=0).passed


def test_an_endless_loop_ends_with_its_own_sentence(monkeypatch):
    monkeypatch.setattr(grade, "SECONDS", 0.3)

    def endless(x, w, b):
        while True:
            pass

    start = time.monotonic()
    assert "did not come back within 0.3 seconds" in said(endless, "linear_forward")
    assert time.monotonic() - start < 3


def test_an_endless_loop_that_catches_exceptions_ends_too(monkeypatch):
    monkeypatch.setattr(grade, "SECONDS", 0.3)

    def stubborn(x, w, b):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass

    assert "did not come back" in said(stubborn, "linear_forward")


def test_checks_work_outside_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(examine(linear_forward, seed=0)))
    thread.start()
    thread.join()
    assert results[0].passed


def test_the_reference_of_a_class_is_pytorchs_own():
    with pytest.raises(ValueError, match=r"torch\.nn"):
        reference("Linear")


# --- classes -----------------------------------------------------------------------------------------------------


def linear_class(forward, names=("weight", "bias"), base=None):
    import torch
    from torch import nn

    class Linear(base or nn.Module):
        def __init__(self, in_features, out_features, bias=True):
            nn.Module.__init__(self)
            setattr(self, names[0], nn.Parameter(torch.zeros(out_features, in_features)))
            setattr(self, names[1], nn.Parameter(torch.zeros(out_features)) if bias else None)

    Linear.forward = forward
    return Linear


def test_a_module_is_compared_with_the_built_in_parameter_by_parameter():
    right = linear_class(lambda self, x: x @ self.weight.T + (0 if self.bias is None else self.bias))
    result = examine(right, "Linear", seed=0)
    assert result.passed
    assert [o.name for o in result.outputs] == ["y", "dx", "dweight", "dbias"]


@pytest.mark.parametrize(
    ("forward", "options", "sentence"),
    [
        ("builtin", {}, "uses torch.nn.functional.linear"),
        ("right", {"names": ("kernel", "bias")}, "weight is missing: a plain tensor is not learned"),
        ("constant", {}, "without a gradient"),
        ("text", {}, "returned a str where a torch.Tensor is expected"),
    ],
)
def test_each_way_to_be_no_module_has_its_own_sentence(forward, options, sentence):
    import torch

    forwards = {
        "builtin": lambda self, x: torch.nn.functional.linear(x, self.weight, self.bias),
        "right": lambda self, x: x @ self.kernel.T,
        "constant": lambda self, x: torch.zeros(len(x), len(self.weight), dtype=x.dtype),
        "text": lambda self, x: "y",
    }
    assert sentence in said(linear_class(forwards[forward], **options), "Linear")


def test_deriving_from_the_built_in_is_no_answer():
    from torch import nn

    assert "uses torch.nn.Linear" in said(type("Linear", (nn.Linear,), {}), "Linear")
    assert "should be a class derived from nn.Module" in said(linear_forward, "Linear")


def test_a_class_without_its_forward_is_told_so():
    from torch import nn

    assert "has no method `forward` of its own" in said(linear_class(nn.Module().forward), "Linear")


class ConvLayer:
    """Its y is wrong, and it keeps nothing for the backward pass."""

    def __init__(self, w, b, stride=1, padding=0):
        self.w, self.b, self.stride, self.padding = w, b, stride, padding

    def forward(self, x):
        return np.zeros((1, 1, 1, 1))

    def backward(self, dy):
        return self.x

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [2 * self.w, 2 * self.b]


def test_a_name_that_the_learners_own_code_lacks_is_no_missing_method():
    text = said(ConvLayer, "ConvLayer")
    assert "has no method" not in text and "no attribute 'x'" in text


def test_an_argument_with_the_name_of_a_size_is_no_size():
    class ConvLayer(PlainConv):
        def forward(self, x):
            return 1.7 * super().forward(x)

    assert "y is 1.7 times" in said(ConvLayer, "ConvLayer")


def test_what_rounding_leaves_in_an_argument_is_no_change():
    def step_and_back(f, x, h=1e-5):
        dx = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            x[index] += h
            above = f(x)
            x[index] -= 2 * h
            dx[index] = (above - f(x)) / (2 * h)
            x[index] += h
        return dx

    assert examine(step_and_back, "numerical_gradient", seed=0).passed


def test_a_learner_sees_the_drawn_values_of_the_case_and_a_graded_run_does_not(capsys, monkeypatch):
    assert "Case 1: widths=[" in examine(lambda widths: 7, "count_parameters", seed=1).text
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    check(lambda widths: 7, "count_parameters")
    assert "widths=" not in capsys.readouterr().out


def test_parameters_start_where_the_built_ins_do():
    import torch
    from torch import nn

    class PReLU(nn.Module):
        def __init__(self, num_parameters=1, init=1.0):
            super().__init__()
            self.weight = nn.Parameter(torch.full((num_parameters,), init))

        def forward(self, x):
            slope = self.weight.view(-1, *[1] * (x.ndim - 2))
            return torch.where(x > 0, x, slope * x)

    result = examine(PReLU, seed=0)
    assert [(o.name, o.verdict) for o in result.outputs][-1] == ("weight at the start", "wrong")
    assert "weight at the start is not what PyTorch starts from" in result.text


def test_a_start_that_is_drawn_where_it_should_be_constant_costs_that_output_alone():
    import torch
    from torch import nn

    class PReLU(nn.Module):
        def __init__(self, num_parameters=1, init=0.25):
            super().__init__()
            self.weight = nn.Parameter(init + torch.rand(num_parameters))

        def forward(self, x):
            slope = self.weight.view(-1, *[1] * (x.ndim - 2))
            return torch.where(x > 0, x, slope * x)

    verdicts = {output.name: output.verdict for output in examine(PReLU, seed=0).outputs}
    assert verdicts.pop("weight at the start") == "wrong"
    assert set(verdicts.values()) == {"right"}


def test_wrong_booleans_are_a_wrong_answer_like_any_other():
    result = examine(lambda lengths, t: np.arange(t) == lengths[:, None] - 1, "length_mask", seed=0)
    assert result.points == 0 and "mask is wrong in " in result.text


def test_a_size_of_0_is_no_factor():
    def newest_only(x, keys, values, *weights_and_heads):
        y, keys, values = reference("kv_cache_step")(x, keys, values, *weights_and_heads)
        return y, keys[:, :, -1:], values[:, :, -1:]

    assert examine(newest_only, "kv_cache_step", seed=0).points < 4


@pytest.mark.parametrize("kind", [float, int])
def test_numbers_are_not_booleans(kind):
    result = examine(lambda t: np.tri(t, dtype=kind), "causal_mask", seed=0)
    assert result.points == 0 and "expected booleans" in result.text and "Where:" not in result.text


def test_of_a_block_only_the_names_that_differ_are_told():
    class ResidualBlock(nn.Module):
        def __init__(self, in_channels, out_channels, stride=1):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out_channels)
            self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(out_channels)
            self.shortcut = nn.Sequential()

    text = examine(ResidualBlock, seed=0).text
    assert "among its parameters norm2.weight (3,), norm2.bias (3,)" in text
    assert "it should have bn2.weight (3,), bn2.bias (3,)" in text and "conv1" not in text.partition("Hint:")[0]
    assert "bn2.weight is missing: is there a layer kept as self.bn2, and has it a weight?" in text
