"""General patterns: named when they explain every wrong case, silent otherwise."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autograder.grade import examine


def right(dy, x, w, b):
    return dy @ w, dy.T @ x, dy.sum(0)


def spoilt(output, change):
    """The right gradients of the linear layer, one of them changed."""
    position = ["dx", "dw", "db"].index(output)

    def answer(dy, x, w, b):
        values = list(right(dy, x, w, b))
        values[position] = change(values[position], dy, x, w, b)
        return tuple(values)

    return answer


@pytest.mark.parametrize(
    ("output", "change", "sentence"),
    [
        ("dx", lambda v, *a: np.zeros_like(v), "dx is all zeros"),
        ("dx", lambda v, *a: np.ones_like(v), "dx is all ones"),
        ("dx", lambda v, dy, x, w, b: x, "dx is x itself, unchanged"),
        ("dw", lambda v, dy, x, w, b: w, "dw is w itself, unchanged"),
        ("dx", lambda v, *a: -v, "dx has the wrong sign"),
        ("dx", lambda v, *a: v / 2, "dx is 1/2 times what it should be"),
        ("dx", lambda v, dy, x, w, b: v * len(x), "dx is n times what it should be"),
        ("dx", lambda v, dy, x, w, b: v / np.sqrt(x.shape[1]), "dx is 1/√i times what it should be"),
        ("dw", lambda v, *a: v * 1.7, "dw is 1.7 times what it should be"),
        ("db", lambda v, *a: v[None], "db holds the right numbers in the shape (1, 3), expected (o,) = (3,)"),
        ("dw", lambda v, dy, x, w, b: dy[:, :, None] * x[:, None], "dw lacks a sum over axis 0"),
        ("dx", lambda v, *a: v + 1e-3 * np.abs(v).max() * 0.5 * np.sign(v), "dx is nearly right"),
        ("dx", lambda v, *a: v + np.arange(v.shape[1]), "dx is off by the same amounts in every row"),
        ("dx", lambda v, *a: v + 3, "dx is off by the same amount everywhere"),
        ("dx", lambda v, dy, x, w, b: np.where(x > 0, v, 7 * v), "dx is wrong only where x < 0"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_general_pattern_is_named(output, change, sentence, seed):
    result = examine(spoilt(output, change), "linear_backward", seed)
    assert result.mistake is not None, result.text
    assert sentence in result.mistake


def test_outputs_in_the_wrong_order_are_named():
    def swapped(w1, b1, w2, b2):
        return b1 @ w2.T + b2, w2 @ w1

    assert "Check the order of what you return" in examine(swapped, "compose_linear", 0).mistake


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_said_rather_than_guessed(seed):
    rng = np.random.default_rng(99)
    noise = rng.standard_normal((40, 40))
    answer = spoilt("dx", lambda v, *a: v * (1 + noise[: v.shape[0], : v.shape[1]] ** 2) + noise[0, 0])
    assert examine(answer, "linear_backward", seed).mistake is None


def test_a_factor_that_changes_from_case_to_case_without_reason_is_not_named():
    factors = iter(np.linspace(1.1, 9.3, 50))
    memory = {}

    def steady_factor(v, *arguments):
        return v * memory.setdefault(v.tobytes(), next(factors))

    assert examine(spoilt("dx", steady_factor), "linear_backward", 0).mistake is None


def test_one_wrong_number_is_no_factor():
    """Any number is some multiple of any other: a single wrong scalar gets no such diagnosis."""

    def clipped(logits, targets):
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return -np.log(np.clip(p[np.arange(len(targets)), targets], 3e-4, 1)).mean()

    mistake = examine(clipped, "cross_entropy_forward", 0).mistake
    assert mistake is None or "times what it should be" not in mistake


def test_a_declared_mistake_speaks_only_of_outputs_that_are_wrong():
    """dw and db averaged has a sentence of its own; with db alone averaged, that of db is shown."""

    def only_db(dy, x, w, b):
        return dy @ w, dy.T @ x, dy.mean(0)

    def only_dx(dy, x, w, b):
        return np.ones_like(dy) @ w, dy.T @ x, dy.sum(0)

    assert examine(only_db, "linear_backward", 0).mistake.startswith("db is averaged")
    assert not examine(only_dx, "linear_backward", 0).mistake.startswith("dx, dw and db")


def test_one_wrong_number_shows_no_side():
    """It lies on some side of zero, as every number does."""
    answer = spoilt("dx", lambda v, *a: 1.7 * v if v.size == 1 else v)
    assert examine(answer, "linear_backward", 0).mistake is None


def test_two_answers_that_lack_the_same_gradients_need_not_share_a_mistake():
    """Where y has the wrong shape there is no dx: that alone says nothing about y."""

    class FirstDropped(nn.Module):
        def __init__(self, channels, stride=2):
            super().__init__()
            self.stride = stride
            line = torch.tensor([1.0, 2.0, 1.0]) / 4
            self.register_buffer("kernel", torch.outer(line, line).repeat(channels, 1, 1, 1))

        def forward(self, x):
            framed = F.pad(x, (1, 1, 1, 1), mode="reflect")
            y = F.conv2d(framed, self.kernel, groups=x.shape[1])
            return y[:, :, self.stride - 1 :: self.stride, self.stride - 1 :: self.stride]

    result = examine(FirstDropped, "BlurPool2d", seed=0)
    assert result.points < result.max_points
    assert "not subsampled" not in result.text
