"""Lesson 01: the linear layer, its gradients, and counting what it learns."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import Build, autograd_function, exercise, gradient_of, module

BATCHES = [
    dict(n=5, i=4, o=3),
    dict(n=2, i=3, o=6),
    dict(n=4, i=4, o=4),
    dict(n=1, i=3, o=4),
    dict(n=3, i=2, o=1),
    dict(n=1, i=1, o=1),
]


@exercise(
    points=2,
    minutes=5,
    difficulty=1,
    cases=BATCHES,
    hints=(
        "Write the shapes down first: x is (n, i), w is (o, i), y has to be (n, o). Which axis disappears?",
        "The axis i disappears: y[n, o] is row n of x times row o of w, summed over i. A matrix product sums over the "
        "last axis of its left side and the first axis of its right side, so one of the two has to be turned.",
        "`w.T` is (i, o), so `x @ w.T` is (n, o). The bias (o,) is then added to every row: NumPy lines up last axes.",
    ),
    mistakes={
        "y has no bias: every output is off by the same amount in all rows. Where does b enter?": lambda x, w, b: (
            x @ w.T
        ),
        "y used w reshaped to (i, o). Reshaping keeps the numbers in reading order and so mixes up the rows of w; "
        "look for the operation that swaps two axes.": lambda x, w, b: x @ w.reshape(w.shape[::-1]) + b,
        "y is the transpose of what is asked: that is the column convention of textbooks, w @ x + b. Here the batch "
        "comes first, so each example is a row of y.": lambda x, w, b: w @ x.T + b[:, None],
        "y is cut off at zero. A linear layer has no activation; that is a layer of its own (lesson 02).": (
            lambda x, w, b: np.maximum(x @ w.T + b, 0)
        ),
        "y contains b once for every input feature. Look at which loop, or which sum, the bias stands inside.": (
            lambda x, w, b: (x[:, None, :] * w + b[:, None]).sum(axis=2)
        ),
        "y holds only the product of the last input feature: each step of the sum overwrites the one before. "
        "Look at the `=` inside your loop.": lambda x, w, b: x[:, -1:] * w[:, -1] + b,
        "y averages the products over the input features. A dot product adds them up.": (
            lambda x, w, b: (x[:, None, :] * w).mean(axis=2) + b
        ),
        "y has the bias subtracted. It is added: look at the sign in front of b.": lambda x, w, b: x @ w.T - b,
    },
)
def linear_forward(x: "n i", w: "o i", b: "o") -> "y: n o":
    """The linear layer: every output is a weighted sum of all inputs, plus a bias."""
    return F.linear(x, w, b)


gradient_of(
    linear_forward,
    points=6,
    minutes=20,
    difficulty=2,
    hints=(
        "A gradient has the shape of what it belongs to: dx is (n, i), dw is (o, i), db is (o,). Which products of dy "
        "(n, o) with x and w give these shapes?",
        "Follow one number each. x[n, i] feeds all outputs of row n, so dx sums over o. w[o, i] is used by every "
        "example, so dw sums over n. b[o] is also used by every example: over which axis does db sum?",
        "dx = `dy @ w`, without a transpose. dw[o, i] is the sum over n of dy[n, o] * x[n, i]: make o the first axis "
        "of dy. db is dy summed over axis 0.",
    ),
    mistakes={
        "db is averaged over the batch. b is used once per example; what happens to the gradient of a number that is "
        "used several times?": lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.mean(axis=0)),
        "dw is averaged over the batch. Each example pulls on w, and the pulls add up; look at what you divide by.": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x / len(x), dy.sum(axis=0))
        ),
        "dw and db are averaged over the batch. The layer does not know whether its loss is a mean: if it is, the "
        "1/n is already inside dy. Look at how you combine the examples.": lambda dy, x, w, b: (
            dy @ w,
            dy.T @ x / len(x),
            dy.mean(axis=0),
        ),
        "db still has one row per example, but b has the shape (o,). All examples share b: combine their rows.": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x, dy)
        ),
        "dw is transposed: it must have the shape of w, (o, i). Look at the order of the two factors.": (
            lambda dy, x, w, b: (dy @ w, x.T @ dy, dy.sum(axis=0))
        ),
        "db sums over the outputs, axis 1 of dy. There is one bias per output; which axis of dy has to go?": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.sum(axis=1))
        ),
        "db is the sum of all of dy: one number for all biases. Each output has its own; sum over the batch only.": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.sum())
        ),
        "db is multiplied by b. y contains b with the factor 1, whatever b is: what is left to multiply dy by?": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.sum(axis=0) * b)
        ),
        "dw sums dy and x over the batch before it multiplies them, so each example's dy meets every other's x. "
        "Multiply within each example first.": lambda dy, x, w, b: (
            dy @ w,
            np.outer(dy.sum(axis=0), x.sum(axis=0)),
            dy.sum(axis=0),
        ),
        "db counts the examples and ignores dy. Each example contributes its own dy[n, o].": lambda dy, x, w, b: (
            dy @ w,
            dy.T @ x,
            np.full(len(b), float(len(x))),
        ),
        "dx, dw and db ignore dy: this is the gradient of y.sum(), as if all of dy were 1. Each term carries its own "
        "dy[n, o]; look at where dy enters the chain rule.": lambda dy, x, w, b: (
            np.ones_like(dy) @ w,
            np.ones_like(dy).T @ x,
            np.ones_like(dy).sum(axis=0),
        ),
        "dx is the gradient of a single output: it should add up what comes back from all outputs of its row. Look at "
        "the sum over o.": lambda dy, x, w, b: (dy[:, -1:] * w[-1], dy.T @ x, dy.sum(axis=0)),
        "dw holds the last example only: each step of the loop overwrites the one before. Look at the `=` inside the "
        "loop over the batch.": lambda dy, x, w, b: (dy @ w, np.outer(dy[-1], x[-1]), dy.sum(axis=0)),
        "dw and db hold the last example only: each step of the loop overwrites the one before. Look at the `=` inside "
        "the loop over the batch.": lambda dy, x, w, b: (dy @ w, np.outer(dy[-1], x[-1]), dy[-1]),
    },
)


def rows(a):
    """All axes but the last joined into one."""
    return a.reshape(-1, a.shape[-1])


@exercise(
    points=3,
    minutes=10,
    difficulty=2,
    cases=[
        dict(dy=(2, 3, 5), x=(2, 3, 4), o=5, i=4),
        dict(dy=(2, 1, 3, 2), x=(2, 1, 3, 4), o=2, i=4),
        dict(dy=(3, 3, 3), x=(3, 3, 3), o=3, i=3),
        dict(dy=(5, 3), x=(5, 4), o=3, i=4),
        dict(dy=(1, 1, 1), x=(1, 1, 1), o=1, i=1),
    ],
    hints=(
        "However many axes stand in front: each position along them holds one row of i inputs, treated like any other. "
        "You have a function that does everything for a table of rows.",
        "`x.reshape(-1, x.shape[-1])` is that table: the last axis stays, all others become one. dy needs the same. "
        "Then linear_backward gives dw and db as they should be. What is still flat?",
        "`dx, dw, db = linear_backward(dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]), w, b)`, and "
        "`dx.reshape(x.shape)` folds dx back.",
    ),
    mistakes={
        "db still has axes in front. All positions share b, not only those along axis 0: sum over every axis but the "
        "last.": lambda dy, x, w, b: (dy @ w, rows(dy).T @ rows(x), dy.sum(axis=0)),
        "dw still has axes in front: one gradient for each entry of axis 0. All of them share w; add them up.": (
            lambda dy, x, w, b: (dy @ w, np.swapaxes(dy, -1, -2) @ x, rows(dy).sum(axis=0))
        ),
        "dw and db still have axes in front. All positions share w and b: add up over every axis but the last.": (
            lambda dy, x, w, b: (dy @ w, np.swapaxes(dy, -1, -2) @ x, dy.sum(axis=0))
        ),
        "dx is still flat, one row per position. It must have the shape of x: fold it back.": (
            lambda dy, x, w, b: (rows(dy) @ w, rows(dy).T @ rows(x), rows(dy).sum(axis=0))
        ),
        "dx, dw and db ignore dy: this is the gradient of y.sum(), as if all of dy were 1.": lambda dy, x, w, b: (
            np.ones_like(dy) @ w,
            np.ones_like(rows(dy)).T @ rows(x),
            np.ones_like(rows(dy)).sum(axis=0),
        ),
        "dw and db are averaged over the positions. Each one pulls on w and b, and the pulls add up.": (
            lambda dy, x, w, b: (dy @ w, rows(dy).T @ rows(x) / len(rows(x)), rows(dy).mean(axis=0))
        ),
        "dw mixes the positions: dy reshaped to (o, …) keeps its numbers in reading order, so a row holds numbers of "
        "several outputs. Flatten to (…, o) first, then transpose.": lambda dy, x, w, b: (
            dy @ w,
            dy.reshape(len(w), -1) @ rows(x),
            rows(dy).sum(axis=0),
        ),
        "dw mixes the positions: `.T` turns round all axes, those in front too, and so changes their order. Flatten "
        "first, then transpose.": lambda dy, x, w, b: (
            dy @ w,
            dy.T.reshape(len(w), -1) @ rows(x),
            rows(dy).sum(axis=0),
        ),
    },
)
def linear_backward_nd(dy: "... o", x: "... i", w: "o i", b: "o") -> "dx: ... i, dw: o i, db: o":
    """The gradients of a linear layer on x with one or more axes in front of the last."""
    leaves = [value.requires_grad_() for value in (x, w, b)]
    return torch.autograd.grad((F.linear(*leaves) * dy).sum(), leaves)


def central_differences_with_drift(f, x, h=1e-5):
    x, dx = x.copy(), np.zeros_like(x)
    for index in np.ndindex(x.shape):
        x[index] += h
        above = f(x)
        x[index] -= 2 * h
        dx[index] = (above - f(x)) / (2 * h)
    return dx


def differences(above, below, width):
    """A wrong numerical gradient: (f(x + above * h) - f(x + below * h)) / (width * h), one entry at a time."""

    def gradient(f, x, h=1e-5):
        dx = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[index] = h
            dx[index] = (f(x + above * step) - f(x + below * step)) / (width * h)
        return dx

    return gradient


def whole_rows(f, x, h=1e-5):
    dx = np.zeros_like(x)
    for n in range(len(x)):
        step = np.zeros_like(x)
        step[n] = h
        dx[n] = (f(x + step) - f(x - step)) / (2 * h)
    return dx


def never_reset(f, x, h=1e-5):
    dx, step = np.zeros_like(x), np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step[index] = h
        dx[index] = (f(x + step) - f(x - step)) / (2 * h)
    return dx


@exercise(
    points=3,
    minutes=15,
    difficulty=2,
    cases=[
        dict(f=Build("cubic"), x=(3, 4), h=0.5),
        dict(f=Build("bump"), x=(2, 3, 2), h=0.25),
        dict(f=Build("cubic"), x=(5,), h=0.125),
        dict(f=Build("cubic"), x=(2, 3)),
        dict(f=Build("bump"), x=(1, 1)),
    ],
    hints=(
        "One entry of x at a time: move it up by h, move it down by h, and see how much f changes.",
        "`for index in np.ndindex(x.shape)` visits every entry of an array of any shape, and `x[index]` is that entry. "
        "Work on a copy of x and put the entry back before you go on.",
        "With `step = np.zeros_like(x)` and `step[index] = h`, the entry is (f(x + step) - f(x - step)) / (2 * h).",
    ),
    mistakes={
        "dx is a forward difference: f(x + h) against f(x). The centred one takes a step to both sides, and its error "
        "shrinks with h² instead of h.": differences(1, 0, 1),
        "dx is a backward difference: f(x) against f(x - h). The centred one takes a step to both sides.": (
            differences(0, -1, 1)
        ),
        "dx is twice too large: the two points lie 2h apart. Look at what you divide by.": differences(1, -1, 1),
        "dx compares f(x + h) with f(x), although it divides by 2h. After x[index] += h, one step of h back only "
        "returns to the start; how far is it to the other side?": differences(1, 0, 2),
        "dx drifts: an entry is not put back before the next one moves, so f is evaluated beside x. Look at the end "
        "of your loop.": central_differences_with_drift,
        "dx moves all entries at once, so every entry holds the same number: their sum. Move one entry at a time.": (
            lambda f, x, h=1e-5: np.full_like(x, (f(x + h) - f(x - h)) / (2 * h))
        ),
        "dx moves a whole row at a time: x[i] is one entry only if x has one axis. np.ndindex(x.shape) gives indices "
        "that reach single entries of any array.": whole_rows,
        "dx is 0 everywhere: f saw the same point both times, or nothing arrived in dx. (`a = x` is a second name for "
        "x, not a second array, and a step up and a step down cancel in it: x.copy() makes one.)": (
            lambda f, x, h=1e-5: np.zeros_like(x)
        ),
        "dx is multiplied by h where it should be divided: a / 2 * h divides by 2 and multiplies by h. Put brackets "
        "around what stands below the line.": lambda f, x, h=1e-5: differences(1, -1, 2)(f, x, h) * h**2,
        "dx moves more and more entries: those of earlier rounds are still moved when the next one is. Look at where "
        "your array of steps is made, or cleared.": never_reset,
        "dx does not use the h it is given. Look for a step size written into the body.": (
            lambda f, x, h=1e-5: differences(1, -1, 2)(f, x)
        ),
    },
)
def numerical_gradient(f, x: "...", h=1e-5) -> "dx: ...":
    """The gradient of a scalar function by central differences, one entry of x at a time."""
    dx = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = torch.zeros_like(x)
        step[index] = h
        dx[index] = (f((x + step).numpy()) - f((x - step).numpy())) / (2 * h)  # f is the learner's: NumPy
    return dx


@exercise(
    points=2,
    minutes=10,
    difficulty=2,
    cases=[dict(i=4, h=5, o=3), dict(i=2, h=1, o=6), dict(i=3, h=3, o=3), dict(i=1, h=1, o=1)],
    hints=(
        "Write y = (x @ w1.T + b1) @ w2.T + b2 on paper and multiply the bracket out.",
        "The part with x is x @ w1.T @ w2.T. Which single w gives x @ w.T? Remember (A B)ᵀ = Bᵀ Aᵀ.",
        "w = `w2 @ w1`, (o, i). What is left does not contain x: b1 after the second layer's weights, plus b2.",
    ),
    mistakes={
        "b is b2 alone. The first bias does not vanish: it passes through the second layer too.": (
            lambda w1, b1, w2, b2: (w2 @ w1, b2)
        ),
        "b lacks b2: you took the first bias through w2 and stopped. What does the second layer add last?": (
            lambda w1, b1, w2, b2: (w2 @ w1, w2 @ b1)
        ),
        "w is transposed: it must be (o, i), so that y = x @ w.T + b. Look at the order of the two factors.": (
            lambda w1, b1, w2, b2: (w1.T @ w2.T, w2 @ b1 + b2)
        ),
        "b adds up b1 without weights. Every hidden unit's bias reaches the output through its own weight in w2.": (
            lambda w1, b1, w2, b2: (w2 @ w1, b1.sum() + b2)
        ),
    },
)
def compose_linear(w1: "h i", b1: "h", w2: "o h", b2: "o") -> "w: o i, b: o":
    """The one linear layer that does what two stacked linear layers do."""
    return w2 @ w1, w2 @ b1 + b2


def pairs(widths):
    return itertools.pairwise(widths)


@exercise(
    points=2,
    minutes=5,
    difficulty=1,
    draws=dict(widths=lambda rng, sizes: rng.integers(2, 90, size=5).tolist()),
    cases=[{}, dict(widths=[784, 128, 10]), dict(widths=[3, 2]), dict(widths=[7] * 11), dict(widths=[1, 1])],
    hints=(
        "A list of m widths describes m - 1 layers. Between which neighbours do they stand?",
        "A layer from i to o has the weights w (o, i) and the bias b (o,). How many numbers are that?",
        "Add o * i + o over all neighbours: `zip(widths[:-1], widths[1:])` gives the pairs (i, o).",
    ),
    mistakes={
        "count has the weights but not the biases. How many numbers does b hold?": (
            lambda widths: sum(i * o for i, o in pairs(widths))
        ),
        "count has one bias per layer. There is one per output unit.": (
            lambda widths: sum(i * o + 1 for i, o in pairs(widths))
        ),
        "count has one bias per input feature. A bias belongs to an output unit.": (
            lambda widths: sum(i * o + i for i, o in pairs(widths))
        ),
        "count gives biases to the first width too. The first width is the data's: it is no layer and has nothing to "
        "learn.": lambda widths: sum(i * o for i, o in pairs(widths)) + sum(widths),
        "count leaves out the first layer. The first Linear is not the input: it has weights, and they are learned.": (
            lambda widths: sum(i * o + o for i, o in list(pairs(widths))[1:])
        ),
    },
)
def count_parameters(widths) -> "count:":
    """How many numbers a stack of linear layers learns, given the width of the data and of every layer."""
    return sum(i * o + o for i, o in pairs(widths))


TEN_LINEAR = [layer for _ in range(9) for layer in (["Linear", 6, 6], ["ReLU"])] + [["Linear", 6, 6]]
MODELS = [
    TEN_LINEAR,
    [["Flatten"], ["Linear", 12, 7, {"bias": False}], ["Dropout", 0.5], ["Tanh"], ["Linear", 7, 3]],
    [[["Linear", 5, 4], ["ReLU"], [["Linear", 4, 4], ["Sigmoid"]]], [["Linear", 4, 2], ["Softmax", -1]], ["Identity"]],
    [["Embedding", 9, 4], ["LayerNorm", 4], ["Linear", 4, 4], ["LayerNorm", 4, {"elementwise_affine": False}]],
    [["Conv2d", 1, 3, 3], ["BatchNorm2d", 3], ["PReLU"], ["Flatten"], ["Linear", 12, 2]],
    [["GRU", 3, 4], ["BatchNorm1d", 4, {"affine": False}]],
    [["Flatten"], ["ReLU"]],
]


def owns_parameters(layer):
    return any(True for _ in layer.parameters(recurse=False))


def own_names(layer):
    return [name for name, _ in layer.named_parameters(recurse=False)]


@exercise(
    points=2,
    minutes=10,
    difficulty=2,
    cases=[dict(model=Build("sequential", layers=layers)) for layers in MODELS],
    hints=(
        "What makes a layer learnable? It owns at least one parameter. Ask each layer instead of guessing by its name.",
        "`model.modules()` visits every module, also those inside a nested Sequential, and the containers themselves. "
        "A container owns nothing; it only passes on what its children own.",
        "Count the modules for which `list(module.parameters(recurse=False))` is not empty.",
    ),
    mistakes={
        "count leaves out the first learnable layer. There is no 'input layer' to take off: the input is the data, and "
        "the first Linear already learns.": lambda model: max(0, sum(map(owns_parameters, model.modules())) - 1),
        "count includes layers that learn nothing: ReLU, Dropout, Flatten. Ask each one for its parameters.": (
            lambda model: sum(not isinstance(layer, nn.Sequential) for layer in model.modules())
        ),
        "count is len(model): ReLUs count in it and nested layers do not. Look at what each module owns.": len,
        "count is of all modules, the containers among them. Ask each one whether it owns parameters; `parameters()` "
        "is a generator, which counts as true even when it is empty, so make a list of it.": (
            lambda model: len(list(model.modules()))
        ),
        "count is the number of Linear layers. Others learn as well: which modules own parameters?": (
            lambda model: sum(isinstance(layer, nn.Linear) for layer in model.modules())
        ),
        "count takes each nested Sequential for one layer. A container is not a layer: look inside it.": (
            lambda model: sum(any(True for _ in layer.parameters()) for layer in model)
        ),
        "count includes the containers: `parameters()` also lists what the children own. Ask for a module's own "
        "parameters only.": lambda model: sum(any(True for _ in layer.parameters()) for layer in model.modules()),
        "count is the number of parameter tensors. A Linear has two of them, weight and bias, and is one layer.": (
            lambda model: len(list(model.parameters()))
        ),
        "count goes by an attribute called `weight`. It can be there and be None (a BatchNorm with affine=False), and "
        "a layer can learn without it (a GRU has weight_ih_l0). Ask for parameters.": (
            lambda model: sum(hasattr(layer, "weight") for layer in model.modules())
        ),
        "count goes by the name `weight`. A GRU's parameters are called weight_ih_l0 and so on: ask whether a layer "
        "owns parameters, not what they are called.": (
            lambda model: sum("weight" in own_names(layer) for layer in model.modules())
        ),
        "count is the number of parameters with `weight` in their names. A GRU has two of them and is one layer.": (
            lambda model: sum("weight" in name for name, _ in model.named_parameters())
        ),
        "count is half the number of parameter tensors. That holds only while every layer has exactly a weight and a "
        "bias; here some have one. Ask each layer.": lambda model: len(list(model.parameters())) // 2,
    },
)
def count_learnable_layers(model) -> "count:":
    """How many modules of a model own parameters."""
    return sum(map(owns_parameters, model.modules()))


@exercise(
    points=1,
    minutes=5,
    difficulty=1,
    draws=dict(
        n=lambda rng, sizes: int(rng.integers(2, 65)),
        i=lambda rng, sizes: int(rng.integers(2, 900)),
        o=lambda rng, sizes: int(rng.integers(2, 300)),
    ),
    cases=[{}, {}, dict(n=64, i=784, o=128), dict(n=1, i=3, o=2), dict(n=1, i=1, o=1)],
    hints=(
        "Count for a single output number y[n, o] first. It is i products, added up, plus one bias.",
        "i products need i - 1 additions to become one sum, and one more addition brings in the bias.",
        "That is i multiplications and i additions for each of the n * o outputs.",
    ),
    mistakes={
        "flops counts a multiplication and its addition as one. That unit is called a MAC; here each counts.": (
            lambda n, i, o: n * i * o
        ),
        "flops is for one example. The whole batch goes through.": lambda n, i, o: 2 * i * o,
        "flops has one addition too many per output: i products need i - 1 additions, not i, before the bias.": (
            lambda n, i, o: 2 * n * i * o + n * o
        ),
        "flops leaves out adding the bias: one addition per output.": lambda n, i, o: n * o * (2 * i - 1),
        "flops has the products and the bias; the additions inside the sum are missing. How many does it take to add "
        "up i products?": lambda n, i, o: n * o * i + n * o,
    },
)
def linear_flops(n, i, o) -> "flops:":
    """How many multiplications and additions a linear layer with a bias needs for a batch."""
    return 2 * n * i * o


class WrongLinear(nn.Module):
    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.randn(out_features)) if bias else None

    def linear(self, x, weight, bias):
        return x @ weight.mT if bias is None else x @ weight.mT + bias


class BiasForgotten(WrongLinear):
    def forward(self, x):
        return self.linear(x, self.weight, None)


class Detached(WrongLinear):
    def forward(self, x):
        return self.linear(x, self.weight.data, None if self.bias is None else self.bias.data)


class Reshaped(WrongLinear):
    def forward(self, x):
        return self.linear(x, self.weight.reshape(*self.weight.shape[::-1]).mT, self.bias)


class Activated(WrongLinear):
    def forward(self, x):
        return self.linear(x, self.weight, self.bias).relu()


module(
    nn.Linear,
    points=4,
    minutes=15,
    difficulty=2,
    forbids=("torch.nn.Linear", "torch.nn.functional.linear"),
    cases=[
        dict(init=dict(in_features=4, out_features=3), x=(5, 4)),
        dict(init=dict(in_features=4, out_features=3, bias=False), x=(5, 4)),
        dict(init=dict(in_features=2, out_features=6), x=(3, 5, 2)),
        dict(init=dict(in_features=3, out_features=3), x=(2, 3)),
        dict(init=dict(in_features=3, out_features=2), x=(3,)),
        dict(init=dict(in_features=1, out_features=1), x=(1, 1)),
    ],
    hints=(
        "Two methods: `__init__(self, in_features, out_features, bias=True)` creates the parameters, "
        "`forward(self, x)` uses them. Begin `__init__` with `super().__init__()`.",
        "A tensor becomes learnable and part of `state_dict()` when it is wrapped in `nn.Parameter` and assigned to "
        "`self`. The names have to be `weight` (out, in) and `bias` (out,). Without a bias, `self.bias = None`.",
        "`forward` is one line: `y = x @ self.weight.T`, and `+ self.bias` where there is one. The random start: "
        "`nn.init.uniform_(tensor, -bound, bound)` with bound = 1 / in_features ** 0.5.",
    ),
    mistakes={
        "y lacks the bias, so dbias stays empty: the parameter exists, but forward never uses it.": BiasForgotten,
        "dweight and dbias stay empty: no gradient reaches the parameters. `.data`, `.detach()` and `no_grad` cut them "
        "off from the graph. Use the nn.Parameter itself.": Detached,
        "y used weight reshaped, not transposed: the numbers land in the wrong rows. Swap the two axes.": Reshaped,
        "y is cut off at zero. A linear layer has no activation.": Activated,
    },
)


class WrongLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x @ w.T + b


class AveragedFunction(WrongLinearFunction):
    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return dy @ w, dy.T @ x / len(x), dy.mean(0)


class OnesFunction(WrongLinearFunction):
    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return torch.ones_like(dy) @ w, torch.ones_like(dy).T @ x, torch.ones_like(dy).sum(0)


class NoBiasGradientFunction(WrongLinearFunction):
    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return dy @ w, dy.T @ x, None


class NoBiasFunction(WrongLinearFunction):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return dy @ w, dy.T @ x, dy.sum(0)


autograd_function(
    "LinearFunction",
    linear_forward,
    points=4,
    minutes=15,
    difficulty=3,
    forbids=("torch.nn.Linear", "torch.nn.functional.linear"),
    hints=(
        "Two static methods: `forward(ctx, x, w, b)` returns y, `backward(ctx, dy)` returns one gradient per argument "
        "of forward, in the same order.",
        "What backward needs from the forward pass goes through `ctx.save_for_backward(…)` and comes back as "
        "`ctx.saved_tensors`. Which of x, w, b appear in your formulas?",
        "`ctx.save_for_backward(x, w)`, then in backward `x, w = ctx.saved_tensors` and your three formulas from "
        "linear_backward, written for tensors.",
    ),
    mistakes={
        "dw and db are averaged over the batch. They are sums: a mean loss has its 1/n in dy.": AveragedFunction,
        "dx, dw and db ignore dy, as if the loss were y.sum(). The chain rule multiplies by dy.": OnesFunction,
        "db is None, so the bias never learns. None means 'needs no gradient'; return the sum that belongs there.": (
            NoBiasGradientFunction
        ),
        "y has no bias. Whatever backward returns, it cannot add what forward leaves out.": NoBiasFunction,
    },
)

gradient_of(
    linear_forward,
    name="repair_linear_backward",
    repair=True,
    points=2,
    minutes=10,
    difficulty=2,
    hints=(
        "Run it against numerical_gradient with n = 1, then with n = 3. What differs?",
        "With n = 1 all three gradients are right, with n = 3 two are too small, by the same factor. Which two? What "
        "is the factor, and which size equals it?",
        "The factor is n. The loss's mean is the loss's business and reaches the layer inside dy; drop the division.",
    ),
    mistakes={
        "db is still divided by the batch size. Look for every place that divides, not only for the first.": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.mean(axis=0))
        ),
        "dw is still divided by the batch size. Look for every place that divides; there are two.": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x / len(x), dy.sum(axis=0))
        ),
        "dw and db are still divided by the batch size. If the loss is a mean, dy already contains 1/n.": (
            lambda dy, x, w, b: (dy @ w, dy.T @ x / len(x), dy.sum(axis=0) / len(x))
        ),
        "dx was right at the start; now it is multiplied by the batch size. Look at the two that sum over examples.": (
            lambda dy, x, w, b: (len(x) * dy @ w, dy.T @ x, dy.sum(axis=0))
        ),
    },
)


@exercise(
    points=2,
    minutes=10,
    difficulty=2,
    repair=True,
    cases=[
        dict(x=(4, 3, 5), w=(2, 15), b=(2,)),
        dict(x=(6, 8, 8), w=(10, 64), b=(10,)),
        dict(x=(1, 2, 3), w=(4, 6), b=(4,)),
        dict(x=(1, 1, 1), w=(1, 1), b=(1,)),
    ],
    hints=(
        "Every shape is right, so look at the numbers: feed two tiny images, one all 1, one all 2, and print `flat`.",
        "Row 0 of `flat` should be image 0 and nothing else. Which axis of x has to stay in front when you reshape?",
        "`x.reshape(n, -1)` keeps axis 0, one row per image, and joins the others. Then nothing needs turning.",
    ),
    mistakes={
        "y still mixes the images: reshape fills in reading order, so a row of the flattened array holds pixels of "
        "several images. Keep the first axis of x as the first axis.": (
            lambda x, w, b: x.reshape(-1, len(x)).T @ w.T + b
        ),
        "y reads each image column by column. PyTorch's Flatten, and the weights, expect row by row.": (
            lambda x, w, b: x.transpose(0, 2, 1).reshape(len(x), -1) @ w.T + b
        ),
        "y lost its bias in the repair. Only the flattening was broken.": lambda x, w, b: x.reshape(len(x), -1) @ w.T,
    },
)
def repair_flatten_linear(x: "n r c", w: "...", b: "o") -> "y: n o":
    """A linear layer on images: flatten each image to one row, then apply the layer."""
    return F.linear(x.flatten(1), w, b)
