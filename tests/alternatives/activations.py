"""Other right ways to solve the exercises of lesson 02: every one must be accepted."""

import math

import numpy as np
import torch
from torch import nn

C, A = math.sqrt(2 / math.pi), 0.044715
erf = np.vectorize(math.erf)


def by_entry(f):
    """The function of single floats as a function of arrays, by a loop."""

    def loop(x, *settings):
        y = np.empty_like(x)
        for index in np.ndindex(x.shape):
            y[index] = f(float(x[index]), *settings)
        return y

    return loop


def gradient_by_entry(slope):
    """The same for a gradient: dy times the slope, one entry after another."""

    def loop(dy, x, *settings):
        dx = np.zeros(x.shape)
        for index, value in np.ndenumerate(x):
            dx[index] = dy[index] * slope(float(value), *settings)
        return dx

    return loop


def in_float32(f):
    """The same function, but every array is float32 inside."""

    def single(*values):
        with np.errstate(all="ignore"):
            return f(*[value.astype(np.float32) if isinstance(value, np.ndarray) else value for value in values])

    return single


def as_lists(f):
    """The same function, its result a nested list."""
    return lambda *values: f(*values).tolist()


def sigmoid(x):
    """One exponential that cannot overflow, two branches."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def sigmoid_of_one(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def sigmoid_masked(x):
    y = np.empty_like(x)
    positive = x >= 0
    y[positive] = 1 / (1 + np.exp(-x[positive]))
    e = np.exp(x[~positive])
    y[~positive] = e / (1 + e)
    return y


def sigmoid_that_warns(x):
    """Overflows to infinity in the denominator only: a warning, and the right value."""
    return 1 / (1 + np.exp(-x))


def sigmoid_clipped(x):
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def tanh_from_one_exponential(x):
    e = np.exp(-2 * np.abs(x))
    return np.sign(x) * (1 - e) / (1 + e)


def leaky_relu(x, negative_slope=0.01):
    return np.maximum(x, 0) + negative_slope * np.minimum(x, 0)


def leaky_relu_in_place(x, negative_slope=0.01):
    y = x.copy()
    y[y < 0] *= negative_slope
    return y


def leaky_relu_backward_by_powers(dy, x, negative_slope=0.01):
    return dy * negative_slope ** (x <= 0)


def gelu(x, approximate="tanh"):
    if approximate == "tanh":
        return x * sigmoid(2 * C * (x + A * x * x * x))  # ½ (1 + tanh u) = sigmoid(2u)
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def gelu_of_one(x, approximate="tanh"):
    gate = math.tanh(C * (x + A * x**3)) if approximate == "tanh" else math.erf(x * 2**-0.5)
    return x * (0.5 + 0.5 * gate)


def gelu_slope(x, approximate="tanh"):
    if approximate == "none":
        return 0.5 * math.erfc(-x / math.sqrt(2)) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    t = math.tanh(C * (x + A * x**3))
    return 0.5 * (1 + t + x * (1 - t * t) * (C + 3 * A * C * x * x))


def gelu_backward(dy, x, approximate="tanh"):
    if approximate == "none":
        return dy * (0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))
    s = sigmoid(2 * C * (x + A * x**3))
    return dy * (s + x * s * (1 - s) * 2 * C * (1 + 3 * A * x**2))


def silu_backward_with_output(dy, x):
    s = sigmoid(x)
    y = x * s
    return dy * (y + s * (1 - y))


def softmax(x, axis=-1):
    """Through log-sum-exp."""
    top = x.max(axis=axis, keepdims=True)
    return np.exp(x - top - np.log(np.exp(x - top).sum(axis=axis, keepdims=True)))


def softmax_last_axis(x, axis=-1):
    """Move the axis to the end, flatten the others, loop over rows, move it back."""
    moved = np.moveaxis(x, axis, -1)
    rows = [np.exp(row - max(row)) for row in moved.reshape(-1, moved.shape[-1])]
    return np.moveaxis(np.array([row / sum(row) for row in rows]).reshape(moved.shape), -1, axis)


def softmax_apply(x, axis=-1):
    return np.apply_along_axis(lambda row: np.exp(row - row.max()) / np.exp(row - row.max()).sum(), axis, x)


def softmax_backward_jacobian(dy, x, axis=-1):
    """The whole Jacobian of every row, by einsum."""
    p = np.moveaxis(softmax(x, axis), axis, -1)
    jacobian = np.einsum("...i,ij->...ij", p, np.eye(p.shape[-1])) - np.einsum("...i,...j->...ij", p, p)
    return np.moveaxis(np.einsum("...i,...ij->...j", np.moveaxis(dy, axis, -1), jacobian), -1, axis)


def softmax_backward_rows(dy, x, axis=-1):
    """One Jacobian matrix after another."""
    p, upstream = np.moveaxis(softmax(x, axis), axis, -1), np.moveaxis(dy, axis, -1)
    dx = np.empty(p.shape)
    for index in np.ndindex(p.shape[:-1]):
        dx[index] = (np.diag(p[index]) - np.outer(p[index], p[index])) @ upstream[index]
    return np.moveaxis(dx, -1, axis)


def softmax_backward_expanded(dy, x, axis=-1):
    p = softmax(x, axis)
    g = p * dy
    return g - p * g.sum(axis=axis, keepdims=True)


def relu_backward_copied(dy, x):
    dx = dy.copy()
    dx[x <= 0] = 0
    return dx


class PReLUTwoHalves(nn.Module):
    def __init__(self, num_parameters=1, init=0.25):
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = nn.Parameter(torch.full((num_parameters,), init))

    def forward(self, x):
        shape = (1, self.num_parameters) + (1,) * (x.dim() - 2)
        return x.clamp(min=0) + self.weight.reshape(shape) * x.clamp(max=0)


class PReLUChannelsLast(nn.Module):
    def __init__(self, num_parameters=1, init=0.25):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_parameters))
        nn.init.constant_(self.weight, init)

    def forward(self, x):
        x = x.movedim(1, -1)
        return torch.where(x < 0, self.weight * x, x).movedim(-1, 1)


class SiLUOfInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x / (1 + torch.exp(-x))

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return dy * s * (1 + x * (1 - s))


class SiLUOfSlope(torch.autograd.Function):
    """Keeps the slope instead of the input: the same memory, nothing left to compute."""

    @staticmethod
    def forward(ctx, x):
        s = 0.5 * (1 + torch.tanh(0.5 * x))
        ctx.save_for_backward(s + x * s * (1 - s))
        return x * s

    @staticmethod
    def backward(ctx, dy):
        return ctx.saved_tensors[0] * dy


def count_dead_by_loops(x, w, b):
    dead = 0
    for unit in range(len(b)):
        dead += not any(sum(w[unit] * example) + b[unit] > 0 for example in x)
    return dead


def count_dead_by_maximum(x, w, b):
    return np.sum((np.einsum("ni,oi->no", x, w) + b).max(axis=0) <= 0)


def count_regions_by_walking(w, b):
    """Put a point into every gap between candidate kinks and count the different on/off patterns."""
    kinks = np.sort([-bias / slope for slope, bias in zip(w, b, strict=True) if slope != 0])
    walk = np.concatenate([kinks - 1e-4, kinks + 1e-4, [0.123456]])
    return len({tuple(w * x + b > 0) for x in walk})


def count_regions_by_unique(w, b):
    active = w != 0
    return float(1 + np.unique(np.round(b[active] / w[active], 9)).size)


ALTERNATIVES = {
    "relu_forward": [
        lambda x: x * (x > 0),
        lambda x: (x + np.abs(x)) / 2,
        lambda x: np.clip(x, 0, None),
        by_entry(lambda v: max(v, 0.0)),
        in_float32(lambda x: np.where(x > 0, x, 0)),
    ],
    "relu_backward": [
        lambda dy, x: np.where(x > 0, dy, 0),
        gradient_by_entry(lambda v: v > 0),
        relu_backward_copied,
        lambda dy, x: dy * np.heaviside(x, 0),
        in_float32(lambda dy, x: dy * (x > 0)),
    ],
    "leaky_relu_forward": [
        leaky_relu,
        leaky_relu_in_place,
        in_float32(leaky_relu),
        by_entry(lambda v, slope=0.01: v if v > 0 else slope * v),
    ],
    "leaky_relu_backward": [
        leaky_relu_backward_by_powers,
        gradient_by_entry(lambda v, slope=0.01: 1.0 if v > 0 else slope),
        lambda dy, x, negative_slope=0.01: dy * np.where(x > 0, 1, negative_slope),
    ],
    "sigmoid_forward": [
        sigmoid,
        sigmoid_masked,
        by_entry(sigmoid_of_one),
        sigmoid_that_warns,
        sigmoid_clipped,
        in_float32(sigmoid),
        as_lists(sigmoid),
    ],
    "sigmoid_backward": [
        lambda dy, x: dy * sigmoid(x) * sigmoid(-x),
        lambda dy, x: dy / (4 * np.cosh(np.clip(x, -700, 700) / 2) ** 2),
        gradient_by_entry(lambda v: sigmoid_of_one(v) * sigmoid_of_one(-v)),
        in_float32(lambda dy, x: dy * (sigmoid(x) - sigmoid(x) ** 2)),
    ],
    "tanh_forward": [
        tanh_from_one_exponential,
        lambda x: 2 * sigmoid(2 * x) - 1,
        by_entry(math.tanh),
        in_float32(np.tanh),
    ],
    "tanh_backward": [
        lambda dy, x: dy - dy * np.tanh(x) ** 2,
        gradient_by_entry(lambda v: 1 - math.tanh(v) ** 2),
        lambda dy, x: 4 * dy * sigmoid(2 * x) * sigmoid(-2 * x),
        in_float32(lambda dy, x: dy * (1 - np.tanh(x) ** 2)),
    ],
    "gelu_forward": [gelu, by_entry(gelu_of_one), in_float32(gelu)],
    "gelu_backward": [gelu_backward, gradient_by_entry(gelu_slope), in_float32(gelu_backward)],
    "silu_forward": [
        lambda x: x * sigmoid(x),
        lambda x: x / (1 + np.exp(-x)),
        by_entry(lambda v: v * sigmoid_of_one(v)),
        in_float32(lambda x: 0.5 * x * (1 + np.tanh(x / 2))),
    ],
    "silu_backward": [
        silu_backward_with_output,
        lambda dy, x: dy * sigmoid(x) * (1 + x * sigmoid(-x)),
        gradient_by_entry(lambda v: sigmoid_of_one(v) * (1 + v * sigmoid_of_one(-v))),
        in_float32(silu_backward_with_output),
    ],
    "softmax_forward": [softmax, softmax_last_axis, softmax_apply, in_float32(softmax), as_lists(softmax)],
    "softmax_backward": [
        softmax_backward_jacobian,
        softmax_backward_rows,
        softmax_backward_expanded,
        in_float32(softmax_backward_expanded),
    ],
    "PReLU": [PReLUTwoHalves, PReLUChannelsLast],
    "SiLUFunction": [SiLUOfInput, SiLUOfSlope],
    "repair_softmax_forward": [softmax, softmax_last_axis],
    "repair_relu_backward": [relu_backward_copied, lambda dy, x: np.where(x > 0, dy, 0.0)],
    "count_dead_units": [count_dead_by_loops, count_dead_by_maximum],
    "count_linear_regions": [count_regions_by_walking, count_regions_by_unique],
}
