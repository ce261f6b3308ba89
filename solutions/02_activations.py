# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Activations
#
# A linear layer can turn, stretch and shift its input, and so can a hundred of them in a row: together they are one
# linear layer again. What makes a network more than that is the bend between two layers. It has no weights, it is one
# line of NumPy, and it decides what the network can express and how much of a gradient comes back.
#
# You will build seven such bends, forwards and backwards: ReLU, leaky ReLU, sigmoid, tanh, GELU, SiLU and softmax; then
# a bend that learns its own slope; and with your functions you will train networks in NumPy, watch gradients fade, kill
# units on purpose and count the dead.
#
# **You need** lesson 01 (the linear layer and its gradients). **Time:** about four hours, three of them for the
# exercises.

# %% setup=true
from itertools import pairwise

import numpy as np
import torch
from scipy.special import erf
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets
from course.widgets import picture

# %% [markdown]
# The picture of this lesson, drawn by PyTorch for now. Every green curve is a function you will write; its dashed orange
# companion is its slope, and the slope is what your backward functions multiply gradients by. Where the dashed curve lies
# on zero, nothing is learned.

# %%
names = ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"]
x = np.linspace(-4, 4, 161)
fig, axes = plots.figure(11, 2.2, 6)
for ax, name in zip(axes, names, strict=True):
    ax.plot(x, reference(f"{name}_forward")(x), color=plots.COLOURS["output"])
    ax.plot(x, reference(f"{name}_backward")(np.ones_like(x), x), "--", color=plots.COLOURS["gradient"])
    ax.set(title=name, ylim=(-1.3, 2.6), xlabel="x")
plots.show(
    fig,
    alt="Six curves with their slopes. ReLU, leaky ReLU, GELU and SiLU rise without limit to the right, "
    "sigmoid and tanh level off on both sides; on the left all but leaky ReLU become flat.",
    caption="What you will build: y in green, its slope dashed in orange. "
    "Leaky ReLU's left side is there, but thin: its slope is 0.01.",
)

# %% [markdown]
# ## Play first
#
# XOR is the smallest problem that a straight line cannot solve: class 1 where the two coordinates have different signs.
# Minsky and Papert (1969) made it famous, as something a perceptron without a hidden layer cannot do. So give it a
# *hidden layer*, one between the data and the output, at first without a bend.

# %%
widgets.activations.guess_straight()

# %% [markdown]
# Now with a bend, and you hold the hidden layer. Each small picture on the left is one hidden unit: its value at every
# point of the plane. On the right, an output layer, fitted by least squares, mixes them into a decision. The bends are
# PyTorch's for now; once you have written `relu_forward` and the others, this figure uses yours. Say what will happen
# before you move:
#
# 1. `identity`: does the number of units change the shape of the boundary? Does the turn?
# 2. `relu`, 4 units, turn from 0 to 45 degrees. Which of the two suits XOR, and why?
# 3. `tanh`, turn 45, spread of the biases 0: do more units help? Then raise the spread by one step.
# 4. Spread 0.5, 4 units, turn 45: which of `tanh` and `relu` cares about the size of the weights?

# %%
widgets.activations.folds({name: reference(f"{name}_forward") for name in names})

# %% [markdown]
# <details><summary>After you have tried all four</summary>
#
# - **1:** The boundary stays one straight line, whatever you do.
# - **2:** At 45 degrees the four units are, but for a common factor, relu of ±(x₁ − x₂) and ±(x₁ + x₂). Added in pairs
#   they give |x₁ − x₂| and |x₁ + x₂|, and XOR is exactly where the first is larger. (95 % and not 100: least squares
#   fits the labels −1 and 1, and not the boundary.)
# - **3:** Without biases tanh is odd, f(−x) = −f(x), and so is every mix of such units (but for a constant). XOR has the
#   same label at x and at −x, so 12 units do hardly better than 4. A spread of 0.1 is enough to break the symmetry.
# - **4:** relu(a x) = a relu(x) for every a > 0, so the output layer undoes any size. tanh is nearly a straight line near
#   zero and nearly a step further out: the size decides which part is used. At 0.25 the small pictures are almost plain
#   ramps, and the output layer has to magnify what little bend is left.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes
#
# | | shape | |
# |---|---|---|
# | x | any | what goes in; in a network (n, o), the output of a linear layer |
# | y | as x | what comes out, entry by entry (softmax: slice by slice) |
# | dy | as y | the upstream gradient: that of the loss with respect to y, from the layer above |
# | dx | as x | what your backward function returns |
#
# No weights, so no other gradients. (One exception comes at the end: PReLU.)
#
# ### Two linear layers are one
#
# Numbers first: y = 3 (2x + 1) + 4 is 6x + 7. Two layers, one line; `compose_linear` of lesson 01 finds it for matrices.
# Put a ReLU between and it breaks, as it should: at x = −1, 3 · relu(2x + 1) + 4 is 3 · relu(−1) + 4 = 4, where the line
# says 1. The same with ten layers. (`mine(name)` brings a function of an earlier lesson along: yours, once it has passed
# its check, else PyTorch's.)

# %% tags=["nbval-check-output"]
linear_forward, compose_linear = mine("linear_forward"), mine("compose_linear")
relu = reference("relu_forward")

rng = np.random.default_rng(0)
first, *others = [(rng.normal(size=(8, 8)) / 3, rng.normal(size=8)) for _ in range(10)]
x = rng.normal(size=(5, 8))
one, deep, bent = first, linear_forward(x, *first), linear_forward(x, *first)
for w, b in others:
    one = compose_linear(*one, w, b)
    deep, bent = linear_forward(deep, w, b), linear_forward(relu(bent), w, b)
print("ten linear layers equal one:          ", np.allclose(deep, linear_forward(x, *one)))
print("ten layers with ReLU between equal it:", np.allclose(bent, linear_forward(x, *one)))
del x, w, b  # so that no function of yours finds them by accident

# %% [markdown]
# ### Backwards through a function of one number
#
# In y = f(x), applied entry by entry, y₁ depends on x₁ only. The chain rule for a loss L has one term:
#
# $$dx_i = \frac{\partial L}{\partial x_i} = \frac{\partial L}{\partial y_i}\cdot\frac{\partial y_i}{\partial x_i}
# = dy_i \cdot f'(x_i)$$
#
# Both factors are needed. f′(x) alone says how much the layer passes on; dy says what there is to pass on. Everything in
# the next six pairs is this line with another f′.
#
# **ReLU**, max(x, 0): slope 1 where x > 0, slope 0 where x < 0. At x = 0 there is a kink and no slope; any number from 0
# to 1 would do (a *subgradient*). PyTorch takes 0, and for leaky ReLU the leak, and so does this course.
#
# **Sigmoid**, y = 1 / (1 + e⁻ˣ). With the quotient rule, the derivative of the denominator being −e⁻ˣ:
#
# $$y' = \frac{e^{-x}}{(1+e^{-x})^2} = \frac{1}{1+e^{-x}}\cdot\frac{e^{-x}}{1+e^{-x}} = y\,(1-y)$$
#
# The last step: e⁻ˣ / (1 + e⁻ˣ) is what is missing from y to 1. At x = 0, y = ½ and the slope is ¼, its largest value.
#
# **tanh**, y = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ). Call numerator s and denominator c; then s′ = c and c′ = s, so
# y′ = (c · c − s · s) / c² = 1 − y². At x = 0 that is 1.
#
# **Gates.** SiLU and GELU are products, y = x · g(x), with a gate g between 0 and 1. The product rule gives two terms:
#
# $$y' = g(x) + x\,g'(x)$$
#
# The first: x is let through as far as the gate stands open. The second: x also moves the gate. For SiLU the gate is a
# sigmoid s, and g′ = s (1 − s). For GELU (Hendrycks and Gimpel, 2016) the gate is Φ(x), the probability that a standard
# normal number is smaller than x. The slope of a probability is a density: Φ′(x) = e^(−x²/2) / √(2π), the bell curve.
# GELU also has an approximation without Φ, and its chain rule goes one level deeper. With u = √(2/π) (x + 0.044715 x³):
#
# $$g = \tfrac12(1+\tanh u),\qquad g' = \tfrac12\,(1-\tanh^2 u)\cdot\frac{du}{dx},\qquad
# \frac{du}{dx} = \sqrt{2/\pi}\,(1 + 3\cdot 0.044715\,x^2)$$

# %% tags=["nbval-check-output"]
at = np.array([-5.0, -1.0, 0.0, 1.0, 5.0])
print("slope at      " + "".join(f"{value:>9.0f}" for value in at) + "    ten layers, all at x = 1")
for name in names:
    slopes = reference(f"{name}_backward")(np.ones_like(at), at)
    cells = "".join(f"{round(value, 4) + 0.0:>9.4f}" for value in slopes)
    print(f"{name:<14}{cells}    {slopes[3] ** 10:.1e}")

# %% [markdown]
# ### Saturation
#
# Where a curve is flat, a gradient ends. Read the column of 5: sigmoid passes 0.7 % of dy, tanh 0.02 %. A unit that sits
# there is *saturated*: whatever the loss says, its weights hardly move. Sigmoid has a second problem, in the last column:
# its slope is never above ¼, so ten of them in a row leave at most 0.25¹⁰ ≈ 0.000001 of a gradient, even with every unit
# at its best. (Weights multiply the gradient too and can make up for it, or make it worse: lesson 05.) Glorot and Bengio
# (2010) watched whole layers saturate in deep sigmoid networks, and advised against sigmoids there.
#
# (The minus at GELU's −1 is no error: coming from the left its curve first falls a little, until about x = −0.75, and then
# rises. SiLU's does so too.)
#
# ReLU passes everything or nothing. Nothing is the risk: a unit whose input is negative for *every* example gets no
# gradient from any of them, and stays as it is. It is *dead*.
#
# ### Softmax: every output depends on every input
#
# Softmax turns scores x into positive numbers p that sum to 1: $p_i = e^{x_i} / \sum_k e^{x_k}$.
# Take x = (ln 5, ln 3, ln 2): the exponentials are 5, 3, 2, their sum is 10, so p = (0.5, 0.3, 0.2).
#
# Now raise x₁ a little. p₁ rises, and since the sum stays 1, p₂ and p₃ must fall: the derivative is a table, the Jacobian
# $J_{ij} = \partial p_i / \partial x_j$. Call the sum Z and use the quotient rule on eˣⁱ / Z, where ∂Z/∂xⱼ = eˣʲ:
#
# - i = j: $(e^{x_i} Z - e^{x_i} e^{x_i}) / Z^2 = p_i - p_i p_i = p_i (1 - p_i)$
# - i ≠ j: $(0 - e^{x_i} e^{x_j}) / Z^2 = -p_i p_j$
#
# For our p, by hand:
#
# | | x₁ | x₂ | x₃ |
# |---|---|---|---|
# | **p₁** | 0.5 · 0.5 = 0.25 | −0.5 · 0.3 = −0.15 | −0.5 · 0.2 = −0.10 |
# | **p₂** | −0.15 | 0.3 · 0.7 = 0.21 | −0.06 |
# | **p₃** | −0.10 | −0.06 | 0.2 · 0.8 = 0.16 |
#
# Each row and each column sums to 0. Backwards, score j collects what it did to every output:
#
# $$dx_j = \sum_i dy_i\,J_{ij} = dy_j\,p_j - p_j \sum_i dy_i\,p_i = p_j\,\bigl(dy_j - s\bigr), \qquad s = \sum_i dy_i\,p_i$$
#
# The whole table has shrunk to one number s per slice: the average of dy, weighted by p. The gradient of a score is
# positive where its dy is above that average, and negative where it is below. With dy = (1, 0, 2): s = 0.5 + 0 + 0.4 = 0.9 and
# dx = (0.5 · 0.1, 0.3 · (−0.9), 0.2 · 1.1) = (0.05, −0.27, 0.22), which sums to 0 as well. The computer agrees:

# %%
p = np.array([5.0, 3.0, 2.0]) / 10
dy = np.array([1.0, 0.0, 2.0])
jacobian = np.diag(p) - np.outer(p, p)
by_hand = np.array([0.05, -0.27, 0.22])

assert np.allclose(jacobian, [[0.25, -0.15, -0.10], [-0.15, 0.21, -0.06], [-0.10, -0.06, 0.16]])
assert np.allclose(dy @ jacobian, by_hand)
assert np.allclose(p * (dy - dy @ p), by_hand)
assert np.allclose(reference("softmax_backward")(dy, np.log([5.0, 3.0, 2.0])), by_hand)
del p, dy, jacobian

# %% [markdown]
# ### Numbers too large for a float
#
# A float64 ends near 1.8 · 10³⁰⁸, and e⁷¹⁰ is beyond it: `np.exp(1000)` is `inf`. That alone is harmless if it stands
# below the fraction bar: 1 / inf = 0. Above and below at once it is not: inf / inf = `nan`, and a single `nan` turns a
# whole network into `nan` within one step. Two cures: choose a form whose exponentials stand in the denominator only, or
# make the exponent small. Softmax allows the second, because a constant added to all scores cancels:
# $e^{x_i - m} / \sum_k e^{x_k - m} = e^{x_i} / \sum_k e^{x_k}$. With m the largest score, no exponent is above 0.

# %% [markdown]
# ## From scratch
#
# Seven pairs. The first two take minutes; GELU backwards and softmax backwards are the hard ones. All functions work for
# any shape, since nothing in them depends on it: no loops are needed. NumPy only; `erf` is imported above for GELU.

# %% [markdown] about="relu_forward"
# ### ReLU
#
# `relu_forward(x)` keeps what is positive and replaces the rest by 0. The shape stays.
#
# By hand: x = [−2, 0, 3] gives y = [0, 0, 3]. (Nair and Hinton, 2010, brought it into use in deep networks.)

# %% exercise="relu_forward"
def relu_forward(x):
    """x (...) -> y (...)"""
    ### BEGIN SOLUTION
    return np.maximum(x, 0.0)
    ### END SOLUTION


# %% check="relu_forward"
check(relu_forward)

# %% [markdown] about="relu_backward"
# ### ReLU, backwards
#
# `relu_backward(dy, x)` returns dx: dy where x is positive, 0 elsewhere; at x = 0 the slope is 0.
#
# By hand: x = [−2, 0, 3] and dy = [5, 5, −7] give dx = [0, 0, −7]. A negative gradient passes like any other.

# %% exercise="relu_backward"
def relu_backward(dy, x):
    """dy (...), x (...) -> dx (...)"""
    ### BEGIN SOLUTION
    return dy * (x > 0)
    ### END SOLUTION


# %% check="relu_backward"
check(relu_backward)

# %% [markdown] about="leaky_relu_forward"
# ### Leaky ReLU
#
# A leak keeps the left side alive (Maas, Hannun and Ng, 2013): y = x where x > 0, and `negative_slope` · x elsewhere.
#
# By hand, with negative_slope = 0.1: x = [−2, 0, 3] gives y = [−0.2, 0, 3]. (`negative_slope` may be any number.)

# %% exercise="leaky_relu_forward"
def leaky_relu_forward(x, negative_slope=0.01):
    """x (...) -> y (...)"""
    ### BEGIN SOLUTION
    return np.where(x > 0, x, negative_slope * x)
    ### END SOLUTION


# %% check="leaky_relu_forward"
check(leaky_relu_forward)

# %% [markdown] about="leaky_relu_backward"
# ### Leaky ReLU, backwards
#
# Two slopes instead of one and none. At x = 0 the slope is `negative_slope`.
#
# By hand, with negative_slope = 0.1: x = [−2, 0, 3] and dy = [5, 5, −7] give dx = [0.5, 0.5, −7].

# %% exercise="leaky_relu_backward"
def leaky_relu_backward(dy, x, negative_slope=0.01):
    """dy (...), x (...) -> dx (...)"""
    ### BEGIN SOLUTION
    return np.where(x > 0, dy, negative_slope * dy)
    ### END SOLUTION


# %% check="leaky_relu_backward"
check(leaky_relu_backward)

# %% [markdown] about="sigmoid_forward"
# ### Sigmoid
#
# y = 1 / (1 + e⁻ˣ), between 0 and 1. It must give no `nan` at x = ±1000; a warning of NumPy about overflow costs nothing.
#
# By hand: x = ln 3 gives e⁻ˣ = 1/3 and y = 1 / (4/3) = 0.75. x = −ln 3 gives 0.25, and x = 0 gives 0.5.

# %% exercise="sigmoid_forward"
def sigmoid_forward(x):
    """x (...) -> y (...)"""
    ### BEGIN SOLUTION
    return 0.5 * (1 + np.tanh(0.5 * x))  # equal to 1 / (1 + e^-x), and nothing can overflow
    ### END SOLUTION


# %% check="sigmoid_forward"
check(sigmoid_forward)

# %% [markdown] about="sigmoid_backward"
# ### Sigmoid, backwards
#
# dx = dy · y (1 − y), where y is the *output*. You are given x: a gradient here is a function of what the forward pass saw.
#
# By hand: x = ln 3 and dy = 2 give y = 0.75 and dx = 2 · 0.75 · 0.25 = 0.375.

# %% exercise="sigmoid_backward"
def sigmoid_backward(dy, x):
    """dy (...), x (...) -> dx (...)"""
    ### BEGIN SOLUTION
    y = 0.5 * (1 + np.tanh(0.5 * x))
    return dy * y * (1 - y)
    ### END SOLUTION


# %% check="sigmoid_backward"
check(sigmoid_backward)

# %% [markdown] about="tanh_forward"
# ### tanh
#
# y = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), between −1 and 1, without `nan` at ±1000. You may use what NumPy has.
#
# By hand: x = ln 2 gives (2 − 0.5) / (2 + 0.5) = 0.6, and x = −ln 2 gives −0.6.

# %% exercise="tanh_forward"
def tanh_forward(x):
    """x (...) -> y (...)"""
    ### BEGIN SOLUTION
    return np.tanh(x)
    ### END SOLUTION


# %% check="tanh_forward"
check(tanh_forward)

# %% [markdown] about="tanh_backward"
# ### tanh, backwards
#
# The slope is 1 − y².
#
# By hand: x = ln 2 and dy = 2 give y = 0.6 and dx = 2 · (1 − 0.36) = 1.28.

# %% exercise="tanh_backward"
def tanh_backward(dy, x):
    """dy (...), x (...) -> dx (...)"""
    ### BEGIN SOLUTION
    return dy * (1 - np.tanh(x) ** 2)
    ### END SOLUTION


# %% check="tanh_backward"
check(tanh_backward)

# %% [markdown] about="silu_forward"
# ### SiLU
#
# A number that is its own gate: y = x · sigmoid(x). Also called Swish (Ramachandran, Zoph and Le, 2017); the name SiLU is
# from Elfwing, Uchibe and Doya (2018). No `nan` at ±1000.
#
# By hand: x = ln 3 ≈ 1.0986 gives y = 1.0986 · 0.75 ≈ 0.824. x = −ln 3 gives −1.0986 · 0.25 ≈ −0.275: the curve dips below 0.

# %% exercise="silu_forward"
def silu_forward(x):
    """x (...) -> y (...)"""
    ### BEGIN SOLUTION
    return x * 0.5 * (1 + np.tanh(0.5 * x))
    ### END SOLUTION


# %% check="silu_forward"
check(silu_forward)

# %% [markdown] about="silu_backward"
# ### SiLU, backwards
#
# The product rule, with both terms: the gate, and x times the slope of the gate.
#
# By hand: x = ln 3 and dy = 1 give s = 0.75 and dx = 0.75 + 1.0986 · 0.75 · 0.25 ≈ 0.956.

# %% exercise="silu_backward"
def silu_backward(dy, x):
    """dy (...), x (...) -> dx (...)"""
    ### BEGIN SOLUTION
    s = 0.5 * (1 + np.tanh(0.5 * x))
    return dy * (s + x * s * (1 - s))
    ### END SOLUTION


# %% check="silu_backward"
check(silu_backward)

# %% [markdown] about="gelu_forward"
# ### GELU
#
# x times the gate Φ(x), in two versions:
#
# - `approximate="tanh"`: y = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
# - `approximate="none"`, exact: y = x Φ(x) with Φ(x) = ½ (1 + erf(x / √2))
#
# `erf`, the error function, is how libraries offer Φ; SciPy's works on arrays. At x = 1: Φ(1) ≈ 0.8413, so y ≈ 0.8413; the tanh version gives 0.8412. At x = −1:
# y ≈ −0.1587.

# %% exercise="gelu_forward"
def gelu_forward(x, approximate="tanh"):
    """x (...) -> y (...), approximate is "tanh" or "none" """
    ### BEGIN SOLUTION
    if approximate == "none":
        return 0.5 * x * (1 + erf(x / np.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    ### END SOLUTION


# %% check="gelu_forward"
check(gelu_forward)

# %% [markdown] about="gelu_backward"
# ### GELU, backwards
#
# The longest of the seven: product rule, then for the tanh version the chain rule through tanh and through the
# polynomial, as derived above. Build it from named pieces (u, tanh u, du/dx), not in one line.
#
# By hand, exact, x = 1 and dy = 1: Φ(1) = 0.8413, bell curve at 1 = 0.2420, so dx = 0.8413 + 1 · 0.2420 = 1.0833. More
# than 1: to the right of 0 the slope overshoots before it settles.

# %% exercise="gelu_backward"
def gelu_backward(dy, x, approximate="tanh"):
    """dy (...), x (...) -> dx (...), approximate is "tanh" or "none" """
    ### BEGIN SOLUTION
    if approximate == "none":
        gate = 0.5 * (1 + erf(x / np.sqrt(2)))
        gate_slope = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    else:
        t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        gate = 0.5 * (1 + t)
        gate_slope = 0.5 * (1 - t**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return dy * (gate + x * gate_slope)
    ### END SOLUTION


# %% check="gelu_backward"
check(gelu_backward)

# %% [markdown]
# ### Your six, at work on one number
#
# Both curves and all numbers below come from your functions; where they differ from PyTorch, the cell or the curve turns
# orange and shows both. Choose an activation, walk x from −8 to 8, and watch how much of dy arrives. Sigmoid at −3, ReLU at
# −3, leaky ReLU at −3: which would you rather be, as a gradient?

# %%
bends = {
    "relu": (relu_forward, relu_backward),
    "leaky_relu": (leaky_relu_forward, leaky_relu_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "tanh": (tanh_forward, tanh_backward),
    "gelu": (gelu_forward, gelu_backward),
    "silu": (silu_forward, silu_backward),
}
wanted = {name: (reference(f"{name}_forward"), reference(f"{name}_backward")) for name in bends}
widgets.activations.gate(bends, wanted)

# %% [markdown]
# Softmax is the seventh, and different: it looks at a whole slice at once, a row or a column. What a right answer draws, for one 3 × 3 table of
# scores: along `axis=-1` every row sums to 1, along `axis=0` every column. The shapes are equal, so a wrong axis raises
# no error; it just gives other numbers.

# %%
scores = np.log([[5.0, 3.0, 2.0], [1.0, 1.0, 2.0], [4.0, 4.0, 8.0]])
wanted_softmax = reference("softmax_forward")
look = dict(role="output", palette="magnitude", vmin=0, vmax=1)
plots.show(
    picture.row(
        picture.heat(scores, "x", role="input"),
        picture.heat(wanted_softmax(scores), "axis=-1: rows sum to 1", **look),
        picture.heat(wanted_softmax(scores, axis=0), "axis=0: columns sum to 1", **look),
    ),
    alt="Scores and their softmax along rows and along columns: the same shape, different numbers.",
    caption="Rows two and three differ by the constant ln 4: along axis −1 they get the same probabilities.",
)

# %% [markdown] about="softmax_forward"
# ### Softmax
#
# `softmax_forward(x, axis=-1)`: exponentials divided by their sum along `axis`, each slice by itself. Same shape as x, no
# `nan` at ±1000: shift first.
#
# By hand: x = [[ln 5, ln 3, ln 2]] gives [[0.5, 0.3, 0.2]]. And [[1000, 1000]] gives [[0.5, 0.5]], not `nan`.

# %% exercise="softmax_forward"
def softmax_forward(x, axis=-1):
    """x (...) -> y (...), positive, summing to 1 along axis"""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
    ### END SOLUTION


# %% check="softmax_forward"
check(softmax_forward)

# %% [markdown] about="softmax_backward"
# ### Softmax, backwards
#
# `softmax_backward(dy, x, axis=-1)`: the last line of the derivation, for every slice along `axis`. The Jacobian itself
# never needs to be built.
#
# By hand, from above: x = [ln 5, ln 3, ln 2] and dy = [1, 0, 2] give dx = [0.05, −0.27, 0.22]. And for dy = [1, 1, 1],
# dx = [0, 0, 0]: raising all probabilities at once is impossible, so nothing is pushed. (This is why the checks never use
# a dy of ones.)

# %% exercise="softmax_backward"
def softmax_backward(dy, x, axis=-1):
    """dy (...), x (...) -> dx (...)"""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    p = e / e.sum(axis=axis, keepdims=True)
    return p * (dy - (dy * p).sum(axis=axis, keepdims=True))
    ### END SOLUTION


# %% check="softmax_backward"
check(softmax_backward)

# %% [markdown]
# The Jacobian in this figure is drawn by your backward function: row i is what it returns for a dy with a single 1 at i.
# Point at a cell to see its product. Lower the temperature (scores are divided by it) until one probability is 1, and
# look at the Jacobian: softmax saturates too.

# %%
widgets.activations.temperature(
    (softmax_forward, softmax_backward), (reference("softmax_forward"), reference("softmax_backward"))
)

# %% [markdown]
# ## Against a reference
#
# The two witnesses of lesson 01: central differences of the loss L = Σ y · dy, by the `numerical_gradient` you wrote
# there, and PyTorch's autograd.

# %%
numerical_gradient = mine("numerical_gradient")


def witnesses(name, forward, backward, x, dy, **settings):
    """(yours, finite differences, PyTorch) for one activation."""
    numerical = numerical_gradient(lambda x: (forward(x, **settings) * dy).sum(), x)
    return backward(dy, x, **settings), numerical, reference(f"{name}_backward")(dy, x, **settings)


# %% tags=["nbval-check-output"]
rng = np.random.default_rng(3)
x, dy = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
found = {name: witnesses(name, *pair, x, dy) for name, pair in bends.items()}
pair = softmax_forward, softmax_backward
for axis in (-1, 0):
    found[f"softmax, axis {axis}"] = witnesses("softmax", *pair, x, dy, axis=axis)
for name, (yours, numerical, from_torch) in found.items():
    near, nearer = np.abs(yours - numerical).max() < 1e-6, np.abs(yours - from_torch).max() < 1e-12
    print(f"{name:<17} within 1e-6 of finite differences: {near}   within 1e-12 of PyTorch: {nearer}")

# %% [markdown]
# The same as a picture, with a ninth gradient beside your eight to show what a wrong one looks like: sigmoid with x (1 − x).

# %%
found["sigmoid, wrong"] = dy * x * (1 - x), *found["sigmoid"][1:]
gaps = {"finite differences": [np.abs(yours - other).max() for yours, other, _ in found.values()],
        "PyTorch": [max(1e-17, np.abs(yours - other).max()) for yours, _, other in found.values()]}
fig, ax = plots.figure(7, 2.4)
for (name, gap), marker, role in zip(gaps.items(), "oD", ("gradient", "output"), strict=True):
    ax.plot(gap, marker, color=plots.COLOURS[role], label=name)
ax.set(yscale="log", ylim=(1e-18, 100), ylabel="largest gap to yours", xticks=range(len(found)))
ax.set_xticklabels([name.replace(", ", ",\n") for name in found], fontsize=9)
ax.legend(loc="upper left")
plots.show(
    fig,
    alt="Largest gap per activation on a logarithmic scale: about 1e-11 to finite differences, at most "
    "1e-15 to PyTorch; the wrong sigmoid gradient is off by more than 1.",
    caption="Your gradients differ from PyTorch's in the last digit at most, and from finite differences by "
    "the error of these, about 10⁻¹¹. A wrong formula is ten orders of magnitude further off.",
)

# %% [markdown]
# And what a check says to that ninth gradient:

# %%
print(examine(lambda dy, x: dy * x * (1 - x), "sigmoid_backward", seed=0))

# %% [markdown]
# One place where the two witnesses disagree with each other: a kink. At x = 0 central differences see half of each side.
# Neither is wrong; there is no slope to be right about, and PyTorch's 0 is a convention. A gradient check on a ReLU network
# therefore fails now and then for an entry that happens to lie within h of a kink: shrink h or move x, and look again.

# %% tags=["nbval-check-output"]
zero = np.zeros(1)
print("central differences at the kink:", numerical_gradient(lambda x: relu_forward(x).sum(), zero)[0])
print("yours, and PyTorch's           :", relu_backward(np.ones(1), zero)[0] + 0.0)

# %% [markdown]
# ## In PyTorch
#
# Every activation exists twice, as a function and as a module: `torch.nn.functional.silu(x)`, which most code writes
# `F.silu(x)`, and `nn.SiLU()(x)`. The module holds nothing; it is there so that it can stand in an `nn.Sequential`.
# One of the family does hold something.

# %% [markdown] about="PReLU"
# ### A ReLU that learns its leak
#
# PReLU (He, Zhang, Ren and Sun, 2015) is leaky ReLU whose slope is a parameter. Write `class PReLU(nn.Module)` with
# `__init__(self, num_parameters=1, init=0.25)` and `forward(self, x)`, without `nn.PReLU` and `F.prelu`. Autograd does the
# backward pass.
#
# - One parameter, `weight (num_parameters,)`, which starts filled with `init`. As in lesson 01: `super().__init__()`
#   first, then an `nn.Parameter` assigned to `self.weight`.
# - With `num_parameters=1` its one number is used for all entries. Otherwise there is one slope for each channel, and
#   channels are axis 1: x is (n, c) or (n, c, length).
#
# By hand: weight = [0.1, 0.5] and x = [[−2, −2], [3, −4]] give y = [[−0.2, −1], [3, −2]].

# %% exercise="PReLU"
class PReLU(nn.Module):
    """x (n, c, ...) -> y (n, c, ...)"""

    def __init__(self, num_parameters=1, init=0.25):
        super().__init__()
        ### BEGIN SOLUTION
        self.weight = nn.Parameter(torch.full((num_parameters,), init))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        slope = self.weight.view(-1, *[1] * (x.ndim - 2))
        return torch.where(x > 0, x, slope * x)
        ### END SOLUTION


# %% check="PReLU"
check(PReLU)

# %% [markdown]
# The check puts weights of its own into your module and cannot see where yours start. You can:

# %% tags=["nbval-check-output"]
for module in (PReLU(3), nn.PReLU(3)):
    print({name: value.tolist() for name, value in module.state_dict().items()})

# %% [markdown] about="SiLUFunction"
# ### SiLU with its gradient by hand
#
# Left to autograd, `x * torch.sigmoid(x)` keeps every intermediate result until the backward pass. A
# `torch.autograd.Function` decides itself what to keep. Write `class SiLUFunction(torch.autograd.Function)` with two static methods: `forward(ctx, x)`
# returns y and keeps x alone, by `ctx.save_for_backward(x)`; `backward(ctx, dy)` finds it in the tuple
# `ctx.saved_tensors` (as in lesson 01), computes the gate again and returns dx.
# It is called as `SiLUFunction.apply(x)`. `nn.SiLU` and `F.silu` are not allowed; `torch.sigmoid` is.
#
# The numbers are those of `silu_backward`: x = ln 3 and dy = 1 give dx ≈ 0.956.

# %% exercise="SiLUFunction"
class SiLUFunction(torch.autograd.Function):
    """x (...) -> y (...); dy (...) -> dx (...)"""

    @staticmethod
    def forward(ctx, x):
        ### BEGIN SOLUTION
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)
        ### END SOLUTION

    @staticmethod
    def backward(ctx, dy):
        ### BEGIN SOLUTION
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return dy * (s + x * s * (1 - s))
        ### END SOLUTION


# %% check="SiLUFunction"
check(SiLUFunction)

# %% [markdown]
# What that buys, counted: the distinct tensors that autograd holds for the backward pass, in numbers per number of x.
# Training memory is mostly such tensors, so real code recomputes cheap functions in just this way.

# %% tags=["nbval-check-output"]
def kept(f, x):
    """How many numbers autograd keeps for the backward pass, for each number of x."""
    held = {}

    def pack(tensor):
        held[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = f(x)
    assert y.shape == x.shape
    return sum(held.values()) / x.numel()


x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
for title, f in {
    "x * torch.sigmoid(x)": lambda x: x * torch.sigmoid(x),
    "0.5 * x * (1 + tanh(0.5 * x))": lambda x: 0.5 * x * (1 + torch.tanh(0.5 * x)),
    "SiLUFunction.apply(x)": SiLUFunction.apply,
    "torch.nn.functional.silu(x)": nn.functional.silu,
}.items():
    print(f"{title:<31} keeps {kept(f, x):.0f}")

# %% [markdown]
# Where the built-ins differ from yours:
#
# - **`nn.GELU()` is exact by default** (`approximate="none"`). Your default is "tanh", which is what GPT-2 was trained with.
#   Weights trained with one and run with the other give slightly different outputs, and no error.
# - **`nn.ReLU(inplace=True)`** overwrites its input to save memory. That is allowed only if nobody needs the input for the
#   backward pass. Autograd notices, and says so, but only when you call backward.
# - **`nn.Softmax()` without `dim`** guesses: axis 0 for inputs with 0, 1 or 3 axes, axis 1 otherwise. Always give `dim`.
# - **`nn.LogSoftmax`** is not log of softmax in the computer: where a probability underflows to 0, its log is −∞, while
#   log-softmax is computed from the scores and stays finite. Lesson 03 builds it.

# %% tags=["nbval-check-output"]
x = torch.tensor([1.0, -1000.0, 2.0])
print("nn.GELU at 1:", *[f"{kind} {nn.GELU(approximate=kind)(x[0]):.5f}" for kind in ("none", "tanh")])
print("log of softmax:", *[f"{value:.3f}" for value in torch.softmax(x, dim=0).log().tolist()])
print("log-softmax   :", *[f"{value:.3f}" for value in torch.log_softmax(x, dim=0).tolist()])

gate = torch.sigmoid(torch.randn(3, requires_grad=True))  # keeps its output for the backward pass …
nn.ReLU(inplace=True)(gate)  # … and ReLU has just written over it
try:
    gate.sum().backward()
except RuntimeError as error:
    print("inplace:", str(error)[:88], "…")

# %% [markdown]
# ## At work
#
# A network of any depth in NumPy, with your activations in it. The linear layers are lesson 01's. The last layer's
# gradient is borrowed from lesson 03: for softmax followed by cross-entropy it is p − (1 at the right class), divided by the
# batch size. Why it is that simple is that lesson's story; your `softmax_forward` makes p.

# %%
def forward_pass(x, layers, forward):
    """x (n, i) -> hs: what goes into each layer; zs: what comes out of it before the activation"""
    hs, zs = [x], []
    for w, b in layers:
        zs.append(hs[-1] @ w.T + b)
        hs.append(forward(zs[-1]))
    return hs, zs


def backward_pass(dz, hs, zs, layers, backward):
    """dz (n, c), the gradient of the last zs -> (dw, db) of every layer"""
    gradients = []
    for k in reversed(range(len(layers))):
        gradients.append((dz.T @ hs[k], dz.sum(axis=0)))
        if k:
            dz = backward(dz @ layers[k][0], zs[k - 1])
    return gradients[::-1]


# %%
def train(split, widths, pair, lr, epochs, seed, batch=32):
    """Gradient descent; yields train loss, test accuracy and layers, at the start and after every epoch."""
    forward, backward = pair
    rng, one_hot = np.random.default_rng(seed), np.eye(widths[-1])
    layers = [(rng.normal(size=(o, i)) / np.sqrt(i), np.zeros(o)) for i, o in pairwise(widths)]
    for epoch in range(epochs + 1):
        p = softmax_forward(forward_pass(split.x_train, layers, forward)[1][-1])
        loss = -np.log(np.maximum(p[np.arange(len(p)), split.y_train], 1e-12)).mean()
        guess = forward_pass(split.x_test, layers, forward)[1][-1].argmax(axis=1)
        yield loss, (guess == split.y_test).mean(), [(w.copy(), b.copy()) for w, b in layers]
        if epoch == epochs:
            return
        for rows in np.array_split(rng.permutation(len(p)), len(p) // batch):
            hs, zs = forward_pass(split.x_train[rows], layers, forward)
            dz = (softmax_forward(zs[-1]) - one_hot[split.y_train[rows]]) / len(rows)
            gradients = backward_pass(dz, hs, zs, layers, backward)
            for (w, b), (dw, db) in zip(layers, gradients, strict=True):
                w -= lr * dw
                b -= lr * db


# %% [markdown]
# ### Two moons
#
# First the plane, where one can see. The same network, 2 → 16 → 2, the same start, the same 100 epochs; only the bend
# differs. What line will each draw between the moons: identity, ReLU, tanh, SiLU?

# %%
places, labels = data.two_moons(260, noise=0.12, rng=1)
moons = data.Split(places[:200], labels[:200], places[200:], labels[200:])
bends["identity"] = lambda x: x, lambda dy, x: dy
epochs, predictors = 2 if plots.fast() else 100, {}


def predictor(layers, forward):
    """A trained network as a function x (n, 2) -> the probability of class 1 (n,)"""
    return lambda x: softmax_forward(forward_pass(x, layers, forward)[1][-1])[:, 1]


for name in ("identity", "relu", "tanh", "silu"):
    *_, (_, _, layers) = train(moons, [2, 16, 2], bends[name], lr=1.0, epochs=epochs, seed=0)
    predictors[name] = predictor(layers, bends[name][0])
plots.show(
    widgets.activations.maps(predictors, moons.x_test, moons.y_test),
    alt="Four decision regions on two moons: identity draws a straight line, ReLU a line with corners, tanh "
    "and SiLU smooth curves.",
    caption="Test points, and what each network says about the plane. Without a bend, 16 hidden units draw "
    "one straight line.",
)

# %% [markdown]
# ### Digits
#
# Then real data: scikit-learn's 1797 handwritten digits, 8 × 8 pixels (Alpaydin and Kaynak, 1998). One run to watch,
# 64 → 32 → 10 with your ReLU. The first epoch on the bar is the network before training:

# %%
digits = data.digits()
epochs = 2 if plots.fast() else 20
with plots.Training(epochs + 1, "train loss", "test accuracy") as run:
    for loss, accuracy, _ in train(digits, [64, 32, 10], bends["relu"], lr=0.3, epochs=epochs, seed=0):
        run.log(loss, accuracy)

# %% [markdown]
# ### Does ReLU train faster than sigmoid?
#
# So it is often said; Krizhevsky, Sutskever and Hinton (2012) reported that a small convolutional network reached 25 %
# training error on CIFAR-10 six times faster with ReLU than with tanh. Such a comparison needs two things that are easily left out: several
# seeds, and a learning rate chosen for *each* activation. So: five activations at four learning rates, every cell the mean of
# several seeds, for one hidden layer and for four. Predict before you run it: which row will have the lowest best cell
# in the shallow network, and which in the deep one?

# %%
def compare(title, widths, seeds):
    """{name: {rate: (seeds, epochs + 1, 2)}}: train loss and test accuracy after every epoch"""
    epochs = 2 if plots.fast() else 10

    def one(name, rate, seed):
        with np.errstate(all="ignore"):
            return [epoch[:2] for epoch in train(digits, widths, bends[name], rate, epochs, seed)]

    def run(name, rate):
        return np.array([one(name, rate, seed) for seed in range(seeds)])

    names, rates = ("identity", "relu", "tanh", "sigmoid", "silu"), (0.1, 0.3, 1.0, 3.0)
    return widgets.activations.experiment(title, names, rates, run)


shallow = compare("one hidden layer: 64 → 32 → 10", [64, 32, 10], seeds=4)

# %%
deep = compare("four hidden layers: 64 → 32 → 32 → 32 → 32 → 10", [64, *[32] * 4, 10], seeds=3)

# %% [markdown]
# The same runs over time: train loss, first with one learning rate for all, then with each activation's own best rate.

# %%
def best(found):
    """The learning rate with the lowest mean train loss at the end, for each activation."""
    return {name: min(runs, key=lambda rate: np.nan_to_num(runs[rate][:, -1, 0].mean(), nan=9))
            for name, runs in found.items()}


fig, axes = plots.figure(8, 2.5, 3)
panels = {"one layer, all at 0.1": (shallow, dict.fromkeys(shallow, 0.1)),
          "one layer, own rates": (shallow, best(shallow)), "four layers, own rates": (deep, best(deep))}
for ax, (title, (found, rates)) in zip(axes, panels.items(), strict=True):
    for colour, (name, runs) in zip(picture.CYCLE, found.items(), strict=False):
        losses = runs[rates[name]][:, :, 0]
        epochs = range(losses.shape[1])
        ax.plot(epochs, losses.mean(axis=0), color=colour, label=f"{name} {rates[name]:g}")
        ax.fill_between(epochs, losses.min(axis=0), losses.max(axis=0), color=colour, alpha=0.2, lw=0)
    ax.set(title=title, xlabel="epoch", ylim=(0, 3.6), xticks=epochs[::2])
    ax.legend(fontsize=7.5, ncols=2, loc="upper center", columnspacing=0.8, handlelength=1.2)
plots.show(
    fig,
    alt="Train loss over ten epochs. At one common rate sigmoid is far behind; at its own rate it keeps up in "
    "the shallow network, and it does not move at all in the deep one.",
    caption="Lines are means over seeds, bands reach from the best to the worst; numbers are learning rates.",
)

# %% [markdown]
# What this shows:
#
# - At one common learning rate of 0.1, sigmoid is far behind: 82 % where ReLU has 96 %. At its own rate, thirty times
#   larger, it reaches 97 %. In a *shallow* network the claim is mostly about learning rates: sigmoid's slope is at most ¼, so its
#   gradients are small, and a large step makes up for that. At that rate all the others have long blown up.
# - With four hidden layers the same cure fails. Within ten epochs sigmoid does not leave chance at any rate tried: the quarter
#   is multiplied four times, and a rate large enough for the first layer is far too large for the last.
# - tanh, which LeCun, Bottou, Orr and Müller (1998) recommended over sigmoid, is the quickest bend in the deep network. Far out it is as flat as sigmoid; its slope at 0
#   is 1, and small numbers pass it unchanged, as they pass identity.
# - ReLU is fine at 0.1 and falls apart at large rates. Further down you count what it dies of.
# - Identity is not the worst row at all. These digits are almost linearly separable, so they cannot show why non-linearity is
#   needed. The moons can. A data set decides what an experiment is able to see.
#
# What it does not show: that any of these is best. Ten epochs, one small data set, one start (variance 1 / inputs, which
# suits tanh; lesson 05 gives ReLU its own), no normalisation (lesson 08 changes the deep picture again), and differences of a
# percent in test accuracy are within the spread of seeds.

# %% [markdown]
# ## Look inside
#
# Networks with three hidden layers of 32 units on the digits, epoch by epoch. Every picture is one layer's output for 32 test
# digits: a row is a digit, a column a unit, white is 0. "Nearly flat" is the share of slopes below 0.05, by your backward
# function. Three questions:
#
# 1. `relu`: roughly what share of the numbers is 0? Is a unit that is dead (0 for all 32) after epoch 0 dead for good?
# 2. `relu, rate 1` against `leaky_relu, rate 1`: does the leak save the network?
# 3. `sigmoid`: nothing is dead, at first nothing is flat, and yet for four epochs hardly anything is learned. Look at how the rows of layer 3
#    differ from each other, and at which epoch they begin to.

# %%
settings = {"relu": 0.1, "relu, rate 1": 1.0, "leaky_relu, rate 1": 1.0, "tanh": 0.1, "sigmoid": 1.0}
epochs, runs = 2 if plots.fast() else 12, {}
with np.errstate(all="ignore"):
    for name, rate in settings.items():
        history = train(digits, [64, 32, 32, 32, 10], bends[name.split(",")[0]], rate, epochs, seed=1)
        runs[name] = [layers for _, _, layers in history]
widgets.activations.inside(runs, digits.x_test[:32], bends)

# %% [markdown]
# <details><summary>After you have looked</summary>
#
# - **1:** Just under a third in layer 1, half in layers 2 and 3; each example uses its own. Glorot, Bordes and Bengio
#   (2011) counted this *sparsity* among the advantages of ReLU. Some units that start out dead in layers 2 and 3 come
#   back: their own weights cannot move, but the layer below can, and it changes what they are given.
# - **2:** No. Nothing is dead, since the slope is never 0, but nearly every slope is 0.01, and three of those in a row
#   leave a millionth. A leak buys the chance of coming back, not a good learning rate.
# - **3:** This is not saturation. All 32 digits look the same to layer 3: at the start each sigmoid layer shrinks the
#   differences between examples to about a quarter, forwards, just as it shrinks gradients backwards. The last layer
#   sees one and the same input and can only learn how frequent the digits are. In epoch 5 the rows begin to differ, and
#   learning begins with them.
#
# </details>

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two layers that look right, run without an error, and are wrong. Each cell starts from the broken version: find out what
# is wrong by trying it on small inputs, then mend it (all points or none). Then two numbers to predict.

# %% [markdown] about="repair_softmax_forward"
# ### Repair: a softmax
#
# It passed its author's test, one row of scores. In production it gives `nan` now and then, and a colleague who uses
# `axis=0` swears that the columns do not sum to 1. There are two faults.

# %% exercise="repair_softmax_forward"
def repair_softmax_forward(x, axis=-1):
    """x (...) -> y (...), positive, summing to 1 along axis"""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
    ### BROKEN
    # e = np.exp(x - x.max())
    # return e / e.sum(axis=-1, keepdims=True)
    ### END SOLUTION


# %% check="repair_softmax_forward"
check(repair_softmax_forward)

# %% [markdown] about="repair_relu_backward"
# ### Repair: a ReLU gradient
#
# In a plain chain of layers this one trains as it should, almost always. In a network with a skip connection, where the same dy is
# also sent along a second path, training goes astray. There are two faults; the skip connection shows only one of them.

# %% exercise="repair_relu_backward"
def repair_relu_backward(dy, x):
    """dy (...), x (...) -> dx (...)"""
    ### BEGIN SOLUTION
    return np.where(x > 0, dy, 0.0)
    ### BROKEN
    # dx = dy
    # dx[x < 0] = 0
    # return dx
    ### END SOLUTION


# %% check="repair_relu_backward"
check(repair_relu_backward)

# %% [markdown] about="count_dead_units"
# ### Predict: dead units
#
# A layer computes y = relu(x wᵀ + b) on a batch x (n, i), with w (o, i) and b (o,). A unit (a column of y) is dead on this
# batch if it is 0 for every example. Return their number.
#
# By hand: x wᵀ + b = [[1, −1, 0], [−2, −3, 0]] for two examples and three units. Unit 1 is alive (for the first example),
# units 2 and 3 are dead: 2.

# %% exercise="count_dead_units"
def count_dead_units(x, w, b):
    """x (n, i), w (o, i), b (o,) -> how many of the o units are 0 for every example"""
    ### BEGIN SOLUTION
    return int((x @ w.T + b <= 0).all(axis=0).sum())
    ### END SOLUTION


# %% check="count_dead_units"
check(count_dead_units)

# %% [markdown]
# ### Killing units on purpose
#
# Now the collapse at large learning rates can be explained. Train 64 → 32 → 10 at rising rates, and count the units that give 0
# (ReLU) or only their leak (leaky ReLU) for all 1437 training digits. One step that is too long throws a unit to where every
# digit gives it a negative input. In the first layer that is final for ReLU: its inputs are the data, and they do not change.

# %%
epochs, dead = 2 if plots.fast() else 8, {}
lines = ["rate   relu: dead of 32, right   leaky_relu: only leaking, right"]
for rate in (0.1, 0.5, 1.0, 2.0, 4.0):
    lines.append(f"{rate:<7}")
    for name in ("relu", "leaky_relu"):
        with np.errstate(all="ignore"):
            *_, (_, accuracy, layers) = train(digits, [64, 32, 10], bends[name], rate, epochs, seed=0)
        dead[name, rate] = int(count_dead_units(digits.x_train, *layers[0])), f"{accuracy:.0%}"
        lines[-1] += "{:>15} {:>9}".format(*dead[name, rate])
count, right = dead["relu", 1.0]
widgets.predict.Predict(
    f"Trained at rate 1, the ReLU network gets {right} of the test digits right. How many of its 32 units are dead?",
    answer=count,
    tolerance=3,
    reveal=lambda: "<pre>" + "\n".join(lines) + "</pre>",
)

# %% [markdown]
# <details><summary>After your guess: three things to see</summary>
#
# A third of a layer can be dead and the accuracy says nothing about it: counting is worth a line in your own training
# code. With *all* units dead, every digit gets the same scores, and the network guesses. And leaky units get thrown just
# as far, but the network goes on learning through the leaks.
#
# </details>

# %% [markdown] about="count_linear_regions"
# ### Predict: linear pieces
#
# A ReLU network is made of straight pieces. Take the smallest: one input x, o hidden units relu(wₖ x + bₖ), a sum on top.
# Each unit switches on or off at one place. Into how many pieces do the units cut the line of all x? Count two pieces as
# different if they have different sets of active units. (w and b hold small whole numbers, so that equal kinks occur.)
#
# By hand: w = [1, 2, 0, −1] and b = [1, 2, 3, 2]. Kinks at x = −1, −1, none, and 2. Two different cuts: 3 pieces.

# %% exercise="count_linear_regions"
def count_linear_regions(w, b):
    """w (o,), b (o,) -> the number of pieces of the line"""
    ### BEGIN SOLUTION
    bends = w != 0
    return len(set((b[bends] / w[bends]).tolist())) + 1
    ### END SOLUTION


# %% check="count_linear_regions"
check(count_linear_regions)

# %% [markdown]
# The example above, drawn. One unit more adds one piece at most; on a line, depth is what multiplies. A second ReLU layer
# bends every piece of the first again, and Montúfar, Pascanu, Cho and Bengio (2014) count how pieces can grow with depth.

# %%
w, b = np.array([1.0, 2.0, 0.0, -1.0]), np.array([1.0, 2.0, 3.0, 2.0])
x = np.linspace(-4, 5, 91)
line = relu_forward(np.outer(x, w) + b).sum(axis=1)
alt = "A line with two kinks, at −1 and at 2: three straight pieces."
plots.show(
    picture.curve({"": (x, line)}, alt, f"{count_linear_regions(w, b)} pieces", "x", "sum of four ReLUs",
                  marks=[(-1, 6, "two units"), (2, 12, "one unit")]),
    alt="",
    caption="Four units, two different kinks, three pieces: two units share a kink and one has none.",
)

# %% [markdown]
# ### What people get wrong
#
# - **"Non-linear means curved."** ReLU has no curve anywhere. One kink is enough: what counts is that f(a + b) is not
#   f(a) + f(b).
# - **"The derivative of sigmoid is x (1 − x)."** It is y (1 − y). Many code bases write `sigmoid_derivative(a)` and mean the
#   output a; call it with x and nothing complains.
# - **"ReLU is not differentiable, so it cannot be trained by gradient descent."** It has no slope at one point. PyTorch
#   picks 0 there, and drawn numbers almost never hit it. Zeros that are no accident do: an empty image corner with a zero bias.
# - **"A zero gradient means the network has learned all it can."** Or that every unit on the way is saturated or dead. Look at
#   activations before you believe in convergence.
# - **"A dead unit needs a lower learning rate to recover."** Its gradient is exactly 0, and 0 times any rate is 0. A lower rate,
#   a better start (lesson 05) or a leak *prevents* death. What can wake a dead unit is somebody else: a change in the
#   layers below, or weight decay (lesson 06), if it shrinks the weights and spares a positive bias.
# - **"It does not learn, so it is saturated."** Measure it. When the sigmoid network above stood still, it had not one flat slope:
#   all were near ¼, and it was their product that vanished.
# - **"Sigmoid is obsolete."** As a bend between layers, mostly. As a gate (SiLU above, LSTM in lesson 17) and as an output for
#   probabilities (lesson 03) it is everywhere.
# - **"Softmax is an activation like the others."** Its outputs are coupled. Between layers it is used where things compete for a
#   share: attention (lesson 18). As an output layer, the loss should take the scores, not the probabilities (lesson 03).
# - **"The larger the score, the more certain the network."** Softmax at another temperature says something else about the same
#   scores. Its numbers sum to 1; whether they are right that often is a question of calibration.

# %% [markdown]
# ## Where it is used, and what came after
#
# ReLU is the default of convolutional networks (lessons 09 to 12), SiLU sits in EfficientNet (lesson 13), GELU in BERT and
# the GPT family (lesson 19), and a gated form, SiLU(x W) multiplied by a second linear layer x V, in many newer language models
# (Shazeer, 2020, calls it SwiGLU). Softmax is the heart of attention and of nearly every classifier. Which bend is chosen is
# largely a matter of experiment: Ramachandran and colleagues searched through many formulas by machine, and what came out was
# x · sigmoid(βx), within a hair of what Hendrycks and Gimpel had written down by hand.
#
# That *some* bend suffices has a theorem: one hidden layer with enough units approximates any continuous function on a bounded
# region, for sigmoids (Cybenko, 1989) and, it turned out, for any continuous activation that is not a polynomial (Leshno, Lin,
# Pinkus and Schocken, 1993). It does not say how many units, nor that gradient descent will find them.
#
# You can now
#
# - write seven activations forwards and backwards, and find the slope of a new one by product and chain rule;
# - send a gradient through softmax, where every output depends on every input, without its Jacobian;
# - keep exponentials from overflowing, and say why one form gives `nan` and another does not;
# - give PyTorch an activation with a parameter, or with a backward pass of your own;
# - tell saturated units, dead units and shrinking gradients apart, by measuring.
#
# To read:
#
# - X. Glorot and Y. Bengio (2010), *Understanding the difficulty of training deep feedforward neural networks*, AISTATS.
#   Saturation, layer by layer.
# - V. Nair and G. Hinton (2010), *Rectified linear units improve restricted Boltzmann machines*, ICML. ReLU arrives.
# - A. Maas, A. Hannun and A. Ng (2013), *Rectifier nonlinearities improve neural network acoustic models*, ICML workshop.
#   The leak.
# - D. Hendrycks and K. Gimpel (2016), *Gaussian error linear units (GELUs)*, arXiv:1606.08415.
# - P. Ramachandran, B. Zoph and Q. Le (2017), *Searching for activation functions*, arXiv:1710.05941. Found by machine.
