# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · The linear layer
#
# A linear layer takes some numbers and returns others, each a weighted sum of all the inputs plus a constant. You will
# write it in NumPy, forward and backward, test it in two independent ways, write it again in PyTorch, and teach
# it to read handwritten digits.
#
# It exists because it is the plainest way to let every output depend on every input, with strengths that can be
# learned. It is also called a *dense*, *fully connected* or *affine* layer; a language model is mostly made of it.
#
# **You need** NumPy's matrix product and broadcasting, and the chain rule. **Time:** about three hours, two of them for
# the twelve exercises. Every exercise has three hints that unfold one by one, and a check that says what is wrong.

# %% setup=true
import numpy as np
import torch
from torch import nn

from autograder import check, examine, reference
from course import data, plots, widgets

# %%
plots.show(
    widgets.linear.wires(),
    alt="A linear layer as a drawing: four inputs, two outputs, one wire for each of eight weights.",
    caption="8 weights (orange positive, purple negative, dashed zero) and 2 biases. "
    "The upper output: 0.5·1 + (−1)·0 + 2·2 + 0·(−1) + 0.5 = 5.",
)

# %% [markdown]
# ## Play first
#
# Take the smallest interesting layer: two inputs, one output, so two weights and one bias. Every point of the plane is
# an input $(x_0, x_1)$; its colour says whether the output is above zero (orange) or below (blue). Somewhere the colour
# changes: that is the layer's *decision boundary*.
#
# Commit to a guess before you move anything. (`reference(name)` is PyTorch's own answer to an exercise, with NumPy
# arrays in and out. It draws the figures until you have written yours.)

# %%
widgets.linear.guess_bias(reference("linear_forward"))

# %% [markdown]
# Now move them. Three things to try:
#
# 1. Bring the two clouds to 100 %. At the start the line lies well, but nearly all points are on the wrong side of it.
#    What turns the sides round and leaves the line where it is?
# 2. Move the bias a little, then double all three numbers. What changes, and what does not?
# 3. Switch to XOR and get as far as you can.

# %%
widgets.linear.boundary(reference("linear_forward"))

# %% [markdown]
# The boundary is always straight. The weights turn it, the bias shifts it. All three numbers with the other sign swap
# the sides; all three doubled draw the same line with a sharper change of colour. Seen as an arrow, $(w_{00}, w_{01})$
# stands at a right angle to the line and points to the orange side, and a point with the output $y$ lies
# $|y| / \|w\|$ away from it. For XOR the best of all lines gets 75 %, and no patience helps: one output of a linear
# layer draws one line. Lesson 02 is about the way out.
#
# One more guess, about a question that is often answered wrongly. (`nn.Sequential` calls its layers one after the
# other; an `nn.ReLU` replaces negative numbers by 0.)

# %%
layers = [nn.Linear(64, 16), nn.ReLU()]
layers += [layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.ReLU())]
ten_linear = nn.Sequential(*layers, nn.Linear(16, 10))
widgets.linear.guess_layers(ten_linear, 64)

# %% [markdown]
# <details><summary>After your guess</summary>
#
# "Nine, because the first is the input layer" is a common answer. The *input layer* of the drawings is the data itself:
# it owns no numbers, nothing in it is computed, and no module of the model stands for it. The first `nn.Linear` already
# multiplies and learns. You will count this by program further down.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | name | shape | what it is |
# |---|---|---|
# | `x` | `(n, i)` | a batch of `n` examples, one per **row**, each with `i` inputs |
# | `w` | `(o, i)` | the weights: one **row** for each of the `o` outputs (PyTorch's layout) |
# | `b` | `(o,)` | the biases: one for each output |
# | `y` | `(n, o)` | the outputs: one row per example |
#
# The letters serve twice: in a shape, $n$, $i$ and $o$ are sizes; below a symbol, as in $y_{no}$, they count from 0.
#
# ### One number of y
#
# Output $o$ of example $n$ multiplies row $n$ of $x$ with row $o$ of $w$ entry by entry, adds up, and adds the bias:
#
# $$y_{no} = \sum_i x_{ni}\, w_{oi} + b_o \qquad\text{or, for all of them at once,}\qquad y = x\,w^\top + b$$
#
# The sum runs over $i$, the one index that $y$ does not have. In $x\,w^\top$ the transpose is there because a matrix
# product sums over the last axis of its left factor and the *first* of its right one. The bias $b$, with shape `(o,)`,
# is added to every row.
#
# Below, three examples with four inputs each go through a layer with two outputs. Read one cell of `y`, then another:
# point at it, or walk there with the Tab key.

# %%
widgets.linear.anatomy(reference("linear_forward"), reference("linear_forward"))

# %% [markdown]
# ### From the loss back: one number first
#
# A network ends in one number, the loss $L$: how badly it does. Training asks of every number $z$ in the network: if I
# raise $z$ a little, by how much does $L$ rise? That ratio is the gradient $dz = \partial L / \partial z$. The gradients
# of all numbers of an array fill an array of **the same shape**, always.
#
# The layer does not know the loss. It is handed the *upstream gradient* $dy$, with $dy_{no} = \partial L/\partial y_{no}$,
# by whatever stands behind it, and has to work out $dx$, $dw$ and $db$. Take the numbers above and suppose that this
# comes back:
#
# $$dy = \begin{pmatrix} 1 & -2 \\ 0.5 & 0 \\ -1 & 1 \end{pmatrix}$$
#
# Raise the single weight $w_{00}$ (now 0.5) by 0.01. Who notices? Output 0 of *every* example, in proportion to its
# input 0, which is 1, 0 and 2:
#
# - $y_{00}$ rises by $0.01 \cdot 1$, and $dy_{00} = 1$, so $L$ rises by about $0.01$;
# - $y_{10}$ rises by $0.01 \cdot 0$: no change;
# - $y_{20}$ rises by $0.01 \cdot 2$, and $dy_{20} = -1$, so $L$ falls by about $0.02$.
#
# Together $L$ changes by $-0.01$, that is by $-1$ per unit of $w_{00}$:
# $dw_{00} = 1\cdot 1 + 0.5\cdot 0 + (-1)\cdot 2 = -1$. One weight is used by all examples, so its gradient is a
# **sum over the batch**.
#
# ### The same with letters
#
# The chain rule adds up every path from the number to the loss. All paths lead through $y$:
#
# $$\frac{\partial L}{\partial z} = \sum_{n}\sum_{p} dy_{np}\, \frac{\partial y_{np}}{\partial z},
# \qquad y_{np} = \sum_j x_{nj}\, w_{pj} + b_p$$
#
# ($p$ runs over outputs and $j$ over inputs, so that $o$ and $i$ are free to name the number we ask about.)
#
# **Weights**, $z = w_{oi}$. In $y_{np}$ this weight occurs only if $p = o$, and there it is multiplied by $x_{ni}$. So
# $\partial y_{np}/\partial w_{oi}$ is $x_{ni}$ for $p = o$ and zero otherwise. The sum over $p$ keeps one term:
#
# $$dw_{oi} = \sum_n dy_{no}\, x_{ni} \qquad\Longrightarrow\qquad dw = dy^\top x \quad (o, n)\cdot(n, i) = (o, i)$$
#
# **Inputs**, $z = x_{mi}$. It occurs in row $n = m$ only, but there in *every* output $p$, multiplied by $w_{pi}$. Now
# the sum over $n$ keeps one term and the sum over $p$ stays:
#
# $$dx_{mi} = \sum_p dy_{mp}\, w_{pi} \qquad\Longrightarrow\qquad dx = dy\, w \quad (n, o)\cdot(o, i) = (n, i)$$
#
# **Biases**, $z = b_o$. It is added to output $o$ of every example, with factor 1:
#
# $$db_o = \sum_n dy_{no} \qquad (o,)$$
#
# Forward, $w$ stands transposed; backward, in $dx$, it does not. A number that fans out on the way forward gathers a
# sum on the way back: an input fans out to all outputs (sum over $o$), a weight or bias is used by all examples (sum
# over $n$).
#
# Pick any number of `dw`, `dx` or `db` and see which cells it is made of. The caption also nudges the number itself and
# watches the loss, as we did by hand.

# %%
right_forward, right_backward = reference("linear_forward"), reference("linear_backward")
widgets.linear.backward(right_backward, right_backward, right_forward)

# %% [markdown]
# The hand calculation above is a claim like any other. Let PyTorch differentiate the same layer and compare.
# `y.backward(dy)` hands `dy` to `y` and leaves in each tensor's `.grad` the gradient that comes out:

# %% tags=["nbval-check-output"]
x, w, b, dy = widgets.linear.miniature()
tensors = [torch.tensor(array, requires_grad=True) for array in (x, w, b)]
y = tensors[0] @ tensors[1].T + tensors[2]
y.backward(torch.tensor(dy))

assert y[0, 0] == 1 * 0.5 + 0 * -1 + 2 * 2 + -1 * 0 + 0.5 == 5
assert tensors[1].grad[0, 0] == 1 * 1 + 0.5 * 0 + -1 * 2 == -1
for name, tensor in zip(("x", "w", "b"), tensors, strict=True):
    grad = tensor.grad
    print(f"{name} {tuple(tensor.shape)!s:<7}  d{name} {tuple(grad.shape)!s:<7} {grad.tolist()}")

# %% [markdown]
# ## From scratch
#
# NumPy only in this part. A function gets arrays and returns new ones; it never changes what it was given. It may call
# functions that you have written further up, but then their mistakes are its own.
#
# `check` runs your function on random inputs of several shapes and compares it with PyTorch. `examine` gives the same
# report without an error; name the exercise, and it takes any function. Here is what it says to one that returns zeros:

# %%
def only_zeros(x, w, b):
    return np.zeros((len(x), len(w)))

examine(only_zeros, "linear_forward", seed=0)

# %% [markdown] about="linear_forward"
# ### The forward pass
#
# Write `linear_forward(x, w, b) -> y`.
#
# `x (n, i)`, `w (o, i)`, `b (o,)` give `y (n, o)`: $y_{no} = \sum_i x_{ni} w_{oi} + b_o$.
#
# By hand: row 0 of `x` is `[1, 0, 2, −1]`, row 1 of `w` is `[1, 0, −0.5, 3]` and `b[1]` is −1, so
# `y[0, 1]` = 1·1 + 0·0 + 2·(−0.5) + (−1)·3 − 1 = −4.

# %% exercise="linear_forward"
def linear_forward(x, w, b):
    """x (n, i), w (o, i), b (o,) -> y (n, o)"""
    ### BEGIN SOLUTION
    return x @ w.T + b
    ### END SOLUTION

# %% [markdown]
# This is the figure from above again, now with *your* function in it. Where it differs from the reference, the cell is
# outlined and shows both values. It follows you: change your function, run its cell, move a slider.

# %%
widgets.linear.anatomy(linear_forward, reference("linear_forward"))

# %% check="linear_forward"
check(linear_forward)

# %% [markdown] about="numerical_gradient"
# ### A gradient without calculus
#
# Before the backward pass, build the instrument that will test it. Write `numerical_gradient(f, x, h=1e-5) -> dx`.
#
# `f` takes an array and returns one number. `x` is an array of **any** shape, and `dx` has the same shape: each entry
# says how fast `f` changes when that entry of `x` moves and all others stay. Measure it by a *central difference*, a
# step of `h` to each side:
#
# $$dx_k = \frac{f(x + h\,e_k) - f(x - h\,e_k)}{2h}$$
#
# where $e_k$ is 1 at entry $k$ and 0 elsewhere. Afterwards `x` must hold what it held before.
#
# By hand: for $f(x) = x_0 x_1^2$ at $(2, 3)$ with $h = 0.1$, the first entry is $(2.1\cdot 9 - 1.9 \cdot 9)/0.2 = 9$
# and the second is $(2\cdot 3.1^2 - 2\cdot 2.9^2)/0.2 = (19.22 - 16.82)/0.2 = 12$. Calculus says $(9, 12)$. A step to
# one side only would have given $(19.22 - 18)/0.1 = 12.2$ for the second. (To try it, write
# `np.array([2.0, 3.0])`: an array of whole numbers would cut 2.1 down to 2.)

# %% exercise="numerical_gradient"
def numerical_gradient(f, x, h=1e-5):
    """x (any shape), f(x) one number -> dx (the shape of x)"""
    ### BEGIN SOLUTION
    dx = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        dx[index] = (f(x + step) - f(x - step)) / (2 * h)
    return dx
    ### END SOLUTION

# %% [markdown]
# Here your function measures the slope of a curve at one point. Make `h` large and compare a step to one side with a
# step to both: which straight line is nearer to the tangent, and how does the gap shrink when you halve `h`?

# %%
widgets.linear.slopes(numerical_gradient)

# %% check="numerical_gradient"
check(numerical_gradient)

# %% [markdown] about="linear_backward"
# ### The backward pass
#
# Write `linear_backward(dy, x, w, b) -> dx, dw, db`.
#
# `dy (n, o)` is the gradient of the loss with respect to `y`. Return a tuple of three arrays: `dx (n, i)`, `dw (o, i)`,
# `db (o,)`, the gradients with respect to `x`, `w` and `b`. (`b` itself is not needed for any of them. It is among the
# arguments because every backward function of this course takes `dy` and then all that the forward pass took.)
#
# By hand, with the numbers of the figure: `dx[0, 0]` = 1·0.5 + (−2)·1 = −1.5, `dw[0, 0]` = 1·1 + 0.5·0 + (−1)·2 = −1,
# `db[0]` = 1 + 0.5 − 1 = 0.5.

# %% exercise="linear_backward"
def linear_backward(dy, x, w, b):
    """dy (n, o), x (n, i), w (o, i), b (o,) -> dx (n, i), dw (o, i), db (o,)"""
    ### BEGIN SOLUTION
    dx = dy @ w
    dw = dy.T @ x
    db = dy.sum(axis=0)
    return dx, dw, db
    ### END SOLUTION

# %%
widgets.linear.backward(linear_backward, reference("linear_backward"), linear_forward)

# %% check="linear_backward"
check(linear_backward)

# %% [markdown] about="linear_backward_nd"
# ### More axes in front
#
# A batch of sentences is an array `x (n, t, i)`: `n` sentences of `t` words, each word a row of `i` numbers. The layer
# treats every row alike, so both axes in front count examples. Forward nothing changes: in `x @ w.T + b` NumPy works
# row by row, however many axes stand in front of the last. Backward, `dy.T` would turn round all of them.
#
# Write `linear_backward_nd(dy, x, w, b) -> dx, dw, db` for `dy (…, o)` and `x (…, i)`, with one or more axes in
# front. `dx` has the shape of `x`; `dw (o, i)` and `db (o,)` are as before. It may call your
# `linear_backward`.
#
# By hand, with `i = o = 1`: `x` = [[[1], [2]], [[3], [4]]] and `dy` = [[[1], [0]], [[−1], [2]]], both `(2, 2, 1)`, `w` = [[3]].
# Then `dw` = [[1·1 + 0·2 + (−1)·3 + 2·4]] = [[6]], `db` = [1 + 0 − 1 + 2] = [2], and `dx` = [[[3], [0]], [[−3], [6]]].

# %% exercise="linear_backward_nd"
def linear_backward_nd(dy, x, w, b):
    """dy (..., o), x (..., i), w (o, i), b (o,) -> dx (..., i), dw (o, i), db (o,)"""
    ### BEGIN SOLUTION
    rows, upstream = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ w, upstream.T @ rows, upstream.sum(axis=0)
    ### END SOLUTION

# %% check="linear_backward_nd"
check(linear_backward_nd)

# %% [markdown] about="compose_linear"
# ### Two layers in one
#
# Send `x (n, i)` through a first layer with `w1 (h, i)`, `b1 (h,)` and the result through a second with `w2 (o, h)`,
# `b2 (o,)`, with nothing between them. There is a *single* layer that does the same for every `x`. Write
# `compose_linear(w1, b1, w2, b2) -> w, b` with `w (o, i)` and `b (o,)` so that
# `linear_forward(x, w, b)` equals `linear_forward(linear_forward(x, w1, b1), w2, b2)`.
#
# By hand: `w1` = [[1, 2]], `b1` = [3] makes $a = x_0 + 2x_1 + 3$. `w2` = [[2], [−1]], `b2` = [0, 1] makes
# $y_0 = 2a = 2x_0 + 4x_1 + 6$ and $y_1 = -a + 1 = -x_0 - 2x_1 - 2$. So `w` = [[2, 4], [−1, −2]] and `b` = [6, −2].

# %% exercise="compose_linear"
def compose_linear(w1, b1, w2, b2):
    """w1 (h, i), b1 (h,), w2 (o, h), b2 (o,) -> w (o, i), b (o,)"""
    ### BEGIN SOLUTION
    return w2 @ w1, w2 @ b1 + b2
    ### END SOLUTION

# %% [markdown]
# A square grid goes through two of your layers (lines) and through the one your `compose_linear` makes of them (dots).
# The slider multiplies row 1 of `w1`, so one of the two hidden numbers: stretch the grid, flatten it (0), turn it into
# a mirror image (negative). Then put a ReLU, $\max(0, \cdot)$, between the two layers.

# %%
widgets.linear.layers(linear_forward, compose_linear)

# %% check="compose_linear"
check(compose_linear)

# %% [markdown]
# What holds for two holds for ten: compose again and again. Here ten random layers without anything between them become
# one. The narrowest of them is 3 wide, and what has been squeezed through three numbers cannot be unsqueezed: the
# *rank* of the whole `w`, the number of independent directions among its outputs, is 3.

# %% tags=["nbval-check-output"]
from itertools import pairwise

rng = np.random.default_rng(0)
widths = [8, 16, 16, 16, 3, 16, 16, 16, 16, 16, 5]
stack = [(rng.normal(0, i**-0.5, (o, i)), rng.normal(0, 1, o)) for i, o in pairwise(widths)]

x = rng.standard_normal((100, 8))
y, (w, b) = linear_forward(x, *stack[0]), stack[0]
for w_next, b_next in stack[1:]:
    y = linear_forward(y, w_next, b_next)
    w, b = compose_linear(w, b, w_next, b_next)

gap = np.abs(y - linear_forward(x, w, b)).max()
numbers = sum(weights.size + biases.size for weights, biases in stack)
print(f"{len(stack)} layers, {numbers} numbers -> 1 layer, {w.size + b.size} numbers")
print(f"largest difference < 1e-12: {gap < 1e-12}; rank of w {w.shape}: {np.linalg.matrix_rank(w)}")

# %% [markdown]
# ## Against a reference
#
# Two witnesses, neither of which knows your formulas. *Finite differences* know only your forward pass: nudge an input,
# watch a loss. *PyTorch's autograd* has its own forward and its own chain rule. To get one number from `y`, weigh it
# with a random `dy` and add up: for $L = \sum_{no} dy_{no}\, y_{no}$ the gradient that arrives at the layer is exactly
# `dy`. Why random? With `dy` all ones, a backward pass that forgets `dy` altogether would pass.

# %%
rng = np.random.default_rng(1)
x, w, b = rng.standard_normal((5, 4)), rng.standard_normal((3, 4)), rng.standard_normal(3)
dy = rng.standard_normal((5, 3))

def loss(x, w, b):
    return np.sum(dy * linear_forward(x, w, b))

dx, dw, db = linear_backward(dy, x, w, b)
torch_dx, torch_dw, torch_db = reference("linear_backward")(dy, x, w, b)
plots.gradient_check({
    "dx": (dx, numerical_gradient(lambda a: loss(a, w, b), x), torch_dx),
    "dw": (dw, numerical_gradient(lambda a: loss(x, a, b), w), torch_dw),
    "db": (db, numerical_gradient(lambda a: loss(x, w, a), b), torch_db),
})

# %% [markdown]
# Why `h=1e-5`, and not smaller? Below, the error of your `numerical_gradient` for $f(x) = \sum \sin x$, whose
# gradient $\cos x$ we know. A one-sided step errs in proportion to $h$, a central one to $h^2$: from right to left
# the curves fall with slopes 1 and 2. Then rounding takes over: float64 keeps 16 digits, the two values of `f` agree
# in ever more of them, and their difference has ever fewer left.

# %%
x = np.linspace(-2, 2, 9)
steps = 10.0 ** np.arange(-12, 0)

def f(a):
    return np.sin(a).sum()

def one_sided(f, a, h):
    return np.array([(f(a + h * e) - f(a)) / h for e in np.eye(len(a))])

ways = {"one side": one_sided, "both sides (yours)": numerical_gradient}
errors = {
    name: [np.abs(way(f, x, h) - np.cos(x)).max() for h in steps] for name, way in ways.items()
}

# %%
fig, ax = plots.figure(6, 3)
for name, error in errors.items():
    ax.loglog(steps, error, "o-", label=name)
ax.set(xlabel="step h", ylabel="largest error")
ax.legend()
one, both = (steps[np.argmin(error)] for error in errors.values())
plots.show(
    fig,
    alt="Error against step size: both fall with h, then rise again; the central one gets far lower.",
    caption=f"One-sided differences are best near h = {one:.0e}, central ones near {both:.0e}.",
)

# %% [markdown]
# ## In PyTorch
#
# Twice the same layer: first as a module that leaves the backward pass to autograd, then with your own backward pass
# inside autograd.
#
# A module is a class with a `forward`. A tensor wrapped in `nn.Parameter` and assigned to `self` is found by
# `parameters()` and `state_dict()`, and learns. `super().__init__()` has to come first: it makes the place where
# they are kept. A layer with a single number, to show the form:

# %% tags=["nbval-check-output"]
class Scale(nn.Module):
    """x (any shape) -> factor · x"""

    def __init__(self, start):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(start))

    def forward(self, x):
        return self.factor * x

scale = Scale(2.0)
y = scale(torch.tensor([1.0, 3.0]))
y.sum().backward()
print("y:", y.tolist(), " state_dict:", dict(scale.state_dict()), " dfactor:", scale.factor.grad.item())

# %% [markdown] about="Linear"
# ### The layer as a module
#
# Write `class Linear(nn.Module)` with `__init__(self, in_features, out_features, bias=True)` and `forward(self, x)`,
# without `nn.Linear` and `F.linear`.
#
# - Parameters `weight (out_features, in_features)` and `bias (out_features,)`; with `bias=False`, `self.bias` is
#   `None`. The names matter: then your layer can load a `state_dict` of the built-in one.
# - Start values: uniform between $-1/\sqrt{i}$ and $+1/\sqrt{i}$ with $i$ = `in_features`, as the built-in
#   has them. (The check replaces them by its own.)
# - `forward` maps `x (…, in_features)` to `y (…, out_features)`: any number of axes in front, also none.
#
# By hand: `Linear(4, 2)` holds 4·2 + 2 = 10 numbers. With the weights of the figure, the input `[1, 0, 2, −1]` alone,
# of shape `(4,)`, gives `[5, −4]`, of shape `(2,)`.

# %% exercise="Linear"
class Linear(nn.Module):
    """x (…, in_features) -> y (…, out_features)"""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        ### BEGIN SOLUTION
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias
        ### END SOLUTION

# %% check="Linear"
check(Linear)

# %% [markdown]
# Your start values are the one thing that the check cannot see, so look at them beside the built-in's. A layer that
# loads the built-in's numbers and gives the built-in's outputs can take its place in any model, on the CPU or on a GPU:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
builtin, yours = nn.Linear(64, 10).to(device), Linear(64, 10).to(device)
for name, layer in (("yours", yours), ("built-in", builtin)):
    print(f"{name:<9} largest start value · sqrt(in): {8 * layer.weight.abs().max().item():.1f}")
print("bias=False leaves None:", Linear(64, 10, bias=False).bias is None)
print("state_dict:", yours.load_state_dict(builtin.state_dict()))
x = torch.rand(2, 7, 64, device=device)
print("same output:", torch.allclose(yours(x), builtin(x), atol=1e-6), tuple(yours(x).shape))

# %% [markdown]
# The second way: a `torch.autograd.Function` brings its own backward pass. Its two methods are static and meet in
# `ctx`, the context of one call: `forward` leaves there what `backward` will need. Squaring, to show the form:

# %% tags=["nbval-check-output"]
class Square(torch.autograd.Function):
    """x (any shape) -> x²"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return 2 * x * dy

x = torch.tensor([1.0, -3.0], requires_grad=True)
Square.apply(x).backward(torch.tensor([1.0, 10.0]))
print("dx:", x.grad.tolist())

# %% [markdown] about="LinearFunction"
# ### Your gradient inside autograd
#
# Write `class LinearFunction(torch.autograd.Function)` with two static methods, without `nn.Linear` and `F.linear`:
#
# - `forward(ctx, x, w, b)` returns `y`, and keeps in `ctx` what the backward pass will need;
# - `backward(ctx, dy)` returns `dx, dw, db`, one gradient for each argument of `forward`, in order.
#
# It is called as `LinearFunction.apply(x, w, b)` with `x (n, i)`, `w (o, i)`, `b (o,)`. When a loss behind it calls
# `.backward()`, autograd calls your `backward` with the `dy` that arrives.
#
# By hand: the three formulas are those of `linear_backward`; `dx[0, 0]` = 1·0.5 + (−2)·1 = −1.5 as before.

# %% exercise="LinearFunction"
class LinearFunction(torch.autograd.Function):
    """x (n, i), w (o, i), b (o,) -> y (n, o); dy (n, o) -> dx, dw, db"""

    @staticmethod
    def forward(ctx, x, w, b):
        ### BEGIN SOLUTION
        ctx.save_for_backward(x, w)
        return x @ w.T + b
        ### END SOLUTION

    @staticmethod
    def backward(ctx, dy):
        ### BEGIN SOLUTION
        x, w = ctx.saved_tensors
        return dy @ w, dy.T @ x, dy.sum(dim=0)
        ### END SOLUTION

# %% check="LinearFunction"
check(LinearFunction)

# %% [markdown]
# PyTorch brings its own finite differences, `gradcheck`. It wants float64: in float32 a step small enough to be
# accurate drowns in rounding.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
shapes = [(5, 4), (3, 4), (3,)]
inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
print("gradcheck:", torch.autograd.gradcheck(LinearFunction.apply, inputs))

# %% [markdown]
# **Under the hood.** The built-in does what yours does, with product and bias fused into one call (`addmm`). Like
# yours, it works in float32 unless told otherwise, and keeps `x` until the backward pass: such stored inputs are a
# large part of what fills a GPU's memory during training. PyTorch's source writes its start values as
# `kaiming_uniform_(weight, a=sqrt(5))`, which comes out as the plain $\pm 1/\sqrt{i}$ above. Lesson 05 asks whether that
# is a good choice.

# %% [markdown] about="count_learnable_layers"
# ### How many layers learn?
#
# Back to the puzzle. Write `count_learnable_layers(model) -> count`, where `model` is an `nn.Sequential`, possibly with
# other `Sequential`s inside. A layer is *learnable* if it owns at least one parameter itself. Containers only pass on
# what their children own, so they do not count.
#
# Two methods that every module has: `model.modules()` visits the model itself and all modules inside it, however deep;
# `module.parameters()` lists the parameters of a module and of everything inside it, and
# `module.parameters(recurse=False)` only those that it owns itself.
#
# By hand: `Sequential(Linear(4, 3), ReLU(), Sequential(Linear(3, 3, bias=False), Dropout()))` has 2: the two
# `Linear`. A `ReLU` owns nothing, nor does `Dropout`, and the inner `Sequential` is a container. Other layers than
# `Linear` may own parameters too: do not go by names.

# %% exercise="count_learnable_layers"
def count_learnable_layers(model):
    """model (an nn.Sequential, possibly nested) -> how many of its modules own parameters"""
    ### BEGIN SOLUTION
    return sum(1 for module in model.modules() if list(module.parameters(recurse=False)))
    ### END SOLUTION

# %% check="count_learnable_layers"
check(count_learnable_layers)

# %% [markdown]
# Ten, and PyTorch names them. There is no `weight` before `0.weight`, the first `Linear`; what stands in front of it is
# the data. (The odd numbers are missing because the ReLUs at 1, 3, … own nothing.)

# %% tags=["nbval-check-output"]
print("learnable layers:", count_learnable_layers(ten_linear), "of", len(ten_linear), "modules")
shapes = {name: tuple(p.shape) for name, p in ten_linear.named_parameters() if "weight" in name}
for name in ("0.weight", "2.weight", "18.weight"):
    print(f"{name:<10} {shapes[name]}")
print("all of them:", ", ".join(name.removesuffix(".weight") for name in shapes))
print("numbers to learn:", sum(p.numel() for p in ten_linear.parameters()))

# %% [markdown]
# ## At work
#
# Your layer, nothing else, reads digits: 8 × 8 pixels in, 10 scores out, the highest score wins. 1437 images are for
# training and 360 for testing.
#
# The target of an image is a row `t` with 1 at its digit and 0 elsewhere, and the loss is half the squared distance,
# averaged over the batch. Its gradient is one line: $L = \frac{1}{2n}\sum (y - t)^2$, so $dy = (y - t)/n$. (Lesson 03
# has a loss made for classes.)
#
# Gradients say which way the loss rises, so training goes the other way: $w \leftarrow w - \mathrm{lr}\cdot dw$, and
# the same for $b$. That is **gradient descent**, and the **learning rate** `lr` says how long the steps are. Each step
# looks at a batch of 32 images or so; after 45 steps all 1437 have had their turn: one **epoch**. (`plots.fast()` is true
# only where the course tests itself; here and in all lessons it makes training shorter, and nothing else.)

# %%
digits = data.digits()
targets = np.eye(10)[digits.y_train]

def loss_and_gradient(y, t):
    return 0.5 * np.sum((y - t) ** 2) / len(y), (y - t) / len(y)

def accuracy(w, b):
    return np.mean(linear_forward(digits.x_test, w, b).argmax(axis=1) == digits.y_test)

# %%
rng = np.random.default_rng(0)
w, b = rng.uniform(-0.125, 0.125, (10, 64)), rng.uniform(-0.125, 0.125, 10)  # ±1/√64
snapshots, epochs, lr = [(w, b)], 2 if plots.fast() else 30, 0.05

with plots.Training(epochs, "train loss", "test accuracy") as run:
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(targets)), 45):
            x = digits.x_train[rows]
            _, dy = loss_and_gradient(linear_forward(x, w, b), targets[rows])
            _, dw, db = linear_backward(dy, x, w, b)
            w, b = w - lr * dw, b - lr * db
        snapshots.append((w, b))
        loss_now, _ = loss_and_gradient(linear_forward(digits.x_train, w, b), targets)
        run.log(loss_now, accuracy(w, b))

# %% [markdown]
# About 94 of 100 unseen images right, with 650 numbers and three formulas. (Unseen images, not unseen writers: the split
# is random, so the same hands wrote both parts.) Whose fault are the missing 6 %, the training's or the layer's?
# Here we can know: as a function of the weights, squared distance behind a linear layer is a bowl, without side
# valleys to get stuck in, and linear algebra finds its bottom directly (*least squares*), without a single step. The
# column of ones makes the bias one more weight, of an input that is always 1.

# %% tags=["nbval-check-output"]
with_ones = np.hstack([digits.x_train, np.ones((len(targets), 1))])
best = np.linalg.lstsq(with_ones, targets, rcond=None)[0]
lowest, _ = loss_and_gradient(with_ones @ best, targets)
print(f"lowest possible training loss {lowest:.3f}")
print(f"test accuracy down there {accuracy(best[:-1].T, best[-1]):.2f}")

# %% [markdown]
# Training has come close to that bottom, and the bottom itself reads no better: more steps would not help. The loss and
# the layer set the limit. Lesson 03 changes the loss; lessons 02 and 04 put a second layer behind, with something in
# between.

# %% [markdown]
# ## Look inside
#
# Row 3 of `w` has 64 numbers, one per pixel, so it can be looked at as a picture: the layer lays it over the image,
# multiplies pixel by pixel and adds up. Orange pixels speak for the digit if they are dark, purple ones against it.
#
# The bottom line of pictures shows $w - w_{\text{start}}$, what training has added. Go back to epoch 1: the 0 has a purple
# hole in its middle, where a 0 has no ink. Later epochs add contrast rather than likeness. The rows are no drawings of
# digits; they weigh pixel against pixel. Then take the tick away: the rows themselves look like noise even after thirty
# epochs, because the random start is nearly as large as what was added to it.
#
# Of the thirty images that the slider reaches, two are read wrongly: 7, a 2 read as a 3, and 21, a 9 read as a 1. One
# row cannot show what misled the layer, since only *differences* of scores decide. The picture at the upper right is
# x · (w[said] − w[true]): its orange pixels spoke for the wrong digit. (Where the layer is right, the runner-up stands
# in for the true one.)

# %%
widgets.linear.templates(snapshots, digits.x_test, digits.y_test, linear_forward)

# %% [markdown]
# Two things in these pictures deserve a test.
#
# **Some pixels stay noise for ever.** $dw_{oi} = \sum_n dy_{no}\, x_{ni}$: where a pixel is 0 in every training
# image, its weights have the gradient 0 and keep their random start.

# %% tags=["nbval-check-output"]
never = np.flatnonzero((digits.x_train == 0).all(axis=0))
moved = np.abs(snapshots[-1][0] - snapshots[0][0]).max(axis=0)
print("pixels that are 0 in all training images:", never.tolist())
print(f"largest change of a weight there: {moved[never].max()}")
print(f"largest change at any other pixel: at least {np.delete(moved, never).min():.4f}")

# %% [markdown]
# **A row of `w` is not an average digit.** The averages themselves can serve as weights: with
# $b_o = -\frac12\|w_o\|^2$ the highest score belongs to the nearest average. It reads digits too, but the trained rows
# do better. Why? Not because averages count the ink that all digits share: take the common mean away from all ten
# rows, and each image's ten scores fall by the same number, so nothing is decided otherwise. But an average counts
# every pixel as if it were independent of its neighbours. Ink comes in strokes: pixels darken together, and ten dark
# pixels of one stroke are hardly more evidence than one. Multiplying the averages by the inverse of the pixels'
# covariance counts shared evidence once (Fisher, 1936). Trained rows have learned something of that: they resemble
# these weights more than the averages.

# %%
averages = np.stack([digits.x_train[digits.y_train == digit].mean(axis=0) for digit in range(10)])
b = -0.5 * (averages**2).sum(axis=1)
less = averages - averages.mean(axis=0)
fall = linear_forward(digits.x_test, averages, b) - linear_forward(digits.x_test, less, b)
covariance = np.cov((digits.x_train - averages[digits.y_train]).T) + 1e-3 * np.eye(64)
once = averages @ np.linalg.inv(covariance)
print(f"averages as weights           {accuracy(averages, b):.3f}")
print(f"without their common mean     {accuracy(less, b):.3f}  all scores fall alike: {np.ptp(fall, axis=1).max() < 1e-9}")
print(f"trained rows                  {accuracy(*snapshots[-1]):.3f}")
print(f"averages, covariance removed  {accuracy(once, -0.5 * (once * averages).sum(axis=1)):.3f}")

trained = snapshots[-1][0] - snapshots[-1][0].mean(axis=0)
for name, rows in (("averages", less), ("averages, covariance removed", once - once.mean(axis=0))):
    print(f"correlation of the trained rows with {name}: {np.corrcoef(trained.ravel(), rows.ravel())[0, 1]:.2f}")

# %% [markdown]
# Do not read much into a single pixel, though: among pixels that darken together, which one gets the credit is partly
# chance.
#
# **What is `dx` good for?** Training used `dw` and `db` only. Between layers, `dx` is what the layer in front receives
# as its `dy`. In front of the first layer it belongs to the image: it says which pixels to darken or lighten for the
# loss to rise. So keep the weights, set the target to 0, and let a 6 walk along $-dx$ until it is read as a 0.

# %%
w, b = snapshots[-1]
path = [digits.x_test[digits.y_test == 6][:1]]
for _ in range(100):
    y = linear_forward(path[-1], w, b)
    if y.argmax() == 0:
        break
    _, dy = loss_and_gradient(y, np.eye(10)[[0]])
    dx, _, _ = linear_backward(dy, path[-1], w, b)
    path.append(path[-1] - 0.1 * dx)

html, said = widgets.linear.followed(path, w, b, linear_forward, (6, 0))
plots.show(
    html,
    alt="A 6, a pattern, and their sum, which still looks like a 6; two scores that meet.",
    caption=said,
)

# %% [markdown]
# To us it is still a 6. (Some pixels went below 0; the picture cannot be whiter than white.) The change is spread over
# many pixels, each in the direction that counts for this layer. Large networks can be fooled the same way; lesson 26
# is about that, and about defences.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken layers to mend (all points or none), two numbers to predict.

# %% [markdown] about="repair_linear_backward"
# ### Repair: right for one, wrong for many
#
# A colleague's backward pass. It passed its gradient check with a single example (`n = 1`). In training with batches
# of 32 it takes thirty epochs to read 74 % of the digits, where your layer was after one. Find out why, and repair
# `repair_linear_backward(dy, x, w, b) -> dx, dw, db`; shapes and meaning as in `linear_backward`.
#
# By hand, with the figure's numbers (`n = 3`): `dw[0, 0]` should be 1·1 + 0.5·0 + (−1)·2 = −1 and `db[0]` 0.5.

# %% exercise="repair_linear_backward"
def repair_linear_backward(dy, x, w, b):
    """dy (n, o), x (n, i), w (o, i), b (o,) -> dx (n, i), dw (o, i), db (o,)"""
    ### BEGIN SOLUTION
    dx = dy @ w
    dw = dy.T @ x
    db = dy.sum(axis=0)
    return dx, dw, db
    ### BROKEN
    # n = len(x)
    # dx = dy @ w
    # dw = dy.T @ x / n
    # db = dy.sum(axis=0) / n
    # return dx, dw, db
    ### END SOLUTION

# %% [markdown]
# The instrument for the diagnosis is the one you built. Here it measures `db`, with the first example alone and
# with all three; the ratio is 1 where your `repair_linear_backward` agrees. Then do the same for `dx` and `dw`.

# %%
x, w, b, dy = widgets.linear.miniature()
for n in (1, 3):
    measured = numerical_gradient(lambda a, n=n: np.sum(dy[:n] * linear_forward(x[:n], w, a)), b)
    print(f"n = {n}: db / measured = {repair_linear_backward(dy[:n], x[:n], w, b)[2] / measured}")

# %% check="repair_linear_backward"
check(repair_linear_backward)

# %% [markdown] about="repair_flatten_linear"
# ### Repair: every shape is right
#
# `repair_flatten_linear(x, w, b) -> y` applies a linear layer to images: `x (n, r, c)` has `n` images of `r` rows and
# `c` columns, `w (o, r·c)`, `b (o,)`, `y (n, o)`. Each image becomes one row, read line by line. The function runs,
# all its shapes are right, and for a single image so are its numbers. Trained on batches of digits, it stays
# near chance.
#
# By hand: two images of 1 × 2 pixels, `[[1, 2]]` and `[[3, 4]]`, must become the rows `[1, 2]` and `[3, 4]`. What
# does the broken line make of them?

# %% exercise="repair_flatten_linear"
def repair_flatten_linear(x, w, b):
    """x (n, r, c), w (o, r·c), b (o,) -> y (n, o)"""
    n = len(x)
    ### BEGIN SOLUTION
    flat = x.reshape(n, -1)
    ### BROKEN
    # flat = x.reshape(-1, n).T  # (n, r·c)
    ### END SOLUTION
    return flat @ w.T + b

# %% [markdown]
# To see what your version feeds to the layer, let the layer pass everything through: with `w` the identity and `b`
# zero, `y` *is* the flattened image. Put back into 8 × 8, it should look like the image. Start with one image.

# %%
first_of_each = [np.flatnonzero(digits.y_test == digit)[0] for digit in range(1, 7)]
widgets.linear.flattening(repair_flatten_linear, digits.x_test[first_of_each].reshape(-1, 8, 8))

# %% check="repair_flatten_linear"
check(repair_flatten_linear)

# %% [markdown] about="count_parameters"
# ### Predict: how many numbers?
#
# Write `count_parameters(widths) -> count`. `widths` is a list: first the width of the data, then the number of outputs
# of each linear layer, all with a bias. The result is how many numbers are learned.
#
# By hand: `[4, 3, 2]` has two layers. From 4 to 3: 3·4 weights and 3 biases. From 3 to 2: 2·3 and 2. Together 23.

# %% exercise="count_parameters"
def count_parameters(widths):
    """widths (a list: data, layer, layer, …) -> the number of learned numbers"""
    ### BEGIN SOLUTION
    return sum((widths[k] + 1) * widths[k + 1] for k in range(len(widths) - 1))
    ### END SOLUTION

# %% check="count_parameters"
check(count_parameters)

# %% [markdown] about="linear_flops"
# ### Predict: how much work?
#
# Write `linear_flops(n, i, o) -> flops`: how many multiplications and additions, counted alike, the formula for `y`
# takes for a batch of `n` examples, `i` inputs and `o` outputs, the bias included.
#
# By hand: `n = 1`, `i = 3`, `o = 2`. One output is $x_0w_0 + x_1w_1 + x_2w_2 + b$: 3 multiplications, 3 additions.
# Two outputs: 12.

# %% exercise="linear_flops"
def linear_flops(n, i, o):
    """n examples, i inputs, o outputs -> multiplications plus additions"""
    ### BEGIN SOLUTION
    return 2 * n * i * o
    ### END SOLUTION

# %% check="linear_flops"
check(linear_flops)

# %% [markdown]
# With that number you can say how fast a layer runs, not only how long it takes. Three ways to write the same sums,
# the first of them both on arrays and on plain lists:

# %%
import timeit
from operator import mul


def loop(x, w, b):
    return [[sum(map(mul, xn, wo), bo) for wo, bo in zip(w, b, strict=True)] for xn in x]

def broadcast(x, w, b):
    return (x[:, None, :] * w).sum(axis=2) + b

arrays = np.ones((32, 64)), np.ones((10, 64)), np.ones(10)
lists = [array.tolist() for array in arrays]
ways = {
    "loop, arrays": (loop, arrays), "loop, lists": (loop, lists),
    "broadcast and sum": (broadcast, arrays), "matrix product": (linear_forward, arrays),
}
for name, (way, given) in ways.items():
    seconds = min(timeit.repeat(lambda way=way, given=given: way(*given), number=1, repeat=5))
    speed = linear_flops(32, 64, 10) / seconds / 1e9
    print(f"{name:<18} {1e6 * seconds:6.0f} µs  {speed:6.2f} billion operations a second")

# %% [markdown]
# Most of the first loop's time goes into unpacking: each number taken out of an array is first wrapped into a Python
# object, and multiplying such objects is slow; on plain lists the same loop is several times faster. Broadcasting
# loops in compiled code, but writes all $n \cdot o \cdot i$ products to memory and reads them again. The matrix product
# never makes that array: it works through blocks small enough for the processor's cache, several numbers at a time.

# %% [markdown]
# ### What goes wrong in practice
#
# **"The layer is linear."** With a bias it is *affine*. Linear would mean $f(a + c) = f(a) + f(c)$; here the right side
# contains the bias twice.

# %% tags=["nbval-check-output"]
_, w, b, _ = widgets.linear.miniature()
a, c = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[-2.0, 0.0, 1.0, 5.0]])
for name, bias in (("without bias", 0 * b), ("with bias", b)):
    gap = linear_forward(a, w, bias) + linear_forward(c, w, bias) - linear_forward(a + c, w, bias)
    print(f"{name:<12} f(a) + f(c) - f(a + c) = {gap.tolist()}")

# %% [markdown]
# **"The gradient should be averaged over the batch."** The mean belongs to the loss and arrives in `dy`. A layer that
# divides again has a learning rate that shrinks with the batch size.
#
# **"More linear layers make a stronger model."** Not without something between them: what they can compute is what one
# layer can. How they *learn* does change (Saxe, McClelland and Ganguli, 2014): the loss is then no bowl any more.
#
# **"`weight` is (in, out)."** In PyTorch it is (out, in); in Keras, JAX's Flax and many textbooks it is (in, out). When
# porting weights, transpose; for square matrices no error will remind you.
#
# **Two errors that everyone meets in PyTorch.** The first is a shape: the last axis of `x` has to be `in_features`. The
# second is a type: NumPy makes float64, layers hold float32; `torch.tensor(array, dtype=torch.float32)` helps.

# %%
layer = nn.Linear(64, 10)
for x in (torch.rand(64, 5), torch.tensor(np.zeros((5, 64)))):
    try:
        layer(x)
    except RuntimeError as error:
        print(error)

# %% [markdown]
# **"It diverges, so the gradient must be wrong."** Perhaps only the step is too long. On a bowl, gradient descent is
# stable up to a learning rate of 2 / (largest curvature). *Curvature* is how fast the slope changes on the way; a bowl
# has one direction where it bends most. For squared distance it is known: the largest eigenvalue of
# $\frac1n X^\top X$, where $X$ is `x` with a column of ones. (An *eigenvalue* is the factor by which a matrix stretches
# a direction that it does not turn.) Just below the limit the loss falls, just above it explodes.

# %%
limit = 2 / np.linalg.eigvalsh(with_ones.T @ with_ones / len(targets)).max()
fig, ax = plots.figure(6, 2.8)
for factor in (0.5, 0.95, 1.05):
    w, b, losses = *snapshots[0], []
    for _ in range(60):
        loss_now, dy = loss_and_gradient(linear_forward(digits.x_train, w, b), targets)
        _, dw, db = linear_backward(dy, digits.x_train, w, b)
        w, b = w - factor * limit * dw, b - factor * limit * db
        losses.append(loss_now)
    ax.semilogy(losses, label=f"lr = {factor:.2f} × {limit:.3f}")
ax.set(xlabel="step", ylabel="training loss", ylim=(0.1, 1e3))
ax.legend()
plots.show(
    fig,
    alt="Training loss for three learning rates: two fall, the one above the limit explodes.",
    caption=f"The limit is {limit:.3f}: at 95 % of it the loss falls, at 105 % it explodes.",
)

# %% [markdown]
# ## Where it is used, and what came after
#
# Everywhere. The last layer of nearly every classifier is linear. In a transformer the queries, keys, values and both
# halves of the feed-forward block are linear layers, applied to each position (lessons 18 and 19). An embedding is a
# linear layer whose input has a single 1 (lesson 15), and a 1 × 1 convolution is one applied at every pixel (lesson
# 13). LoRA fine-tunes large models by adding to each weight matrix a product of two narrow ones: your
# `compose_linear`, with a bottleneck on purpose (lesson 24).
#
# You can now
#
# - write a linear layer and its three gradients, and say why each sum runs over the axis it does;
# - test any gradient with finite differences;
# - make a module, and an autograd function with a backward pass of your own, in PyTorch;
# - count layers, numbers and operations;
# - train a layer, look at what it learned, and say what it cannot do.
#
# To read:
#
# - R. A. Fisher (1936), *The use of multiple measurements in taxonomic problems*, Annals of Eugenics. Averages, with
#   the covariance taken into account.
# - F. Rosenblatt (1958), *The perceptron: a probabilistic model for information storage and organization in the brain*,
#   Psychological Review. Weighted sums with a threshold, learned from examples.
# - B. Widrow and M. E. Hoff (1960), *Adaptive switching circuits*, IRE WESCON Convention Record. Squared error and
#   gradient steps on a linear unit: what you ran on the digits.
# - M. Minsky and S. Papert (1969), *Perceptrons*, MIT Press. What a single layer cannot do.
# - D. E. Rumelhart, G. E. Hinton and R. J. Williams (1986), *Learning representations by back-propagating errors*,
#   Nature. The backward pass through many layers.
# - A. M. Saxe, J. L. McClelland and S. Ganguli (2014), *Exact solutions to the nonlinear dynamics of learning in deep
#   linear neural networks*, ICLR.
# - E. J. Hu et al. (2022), *LoRA: low-rank adaptation of large language models*, ICLR.
#
# The digits were collected by E. Alpaydin and C. Kaynak (1998) and come with scikit-learn.
