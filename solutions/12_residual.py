# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Residual connections
#
# More layers can compute more, so a deeper network should at least not be worse. In 2015 it was: past some depth, plain
# networks got worse *on the data they were trained on*. The cure is one plus sign. A **residual block** computes $y =
# x + F(x)$: what came in, plus a correction that is learned. Within a year networks went from 20 layers to 1000, and
# there is hardly a large network today without that plus sign.
#
# You will build residual blocks with identity and with projection, the pre-activation block and the dense layer,
# forwards and backwards, on your own convolutions; then measure what the skip does to signals, to gradients and to
# training, and what it does not. Some of what is said about it does not survive the measurement.
#
# **You need** lessons 05 (signals through depth), 08 (batch norm) and 09 (convolution). **Time:** about five hours,
# three and a half of them for the exercises.

# %% setup=true
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

# %%
plots.show(
    widgets.residual.diagrams("plain", "identity", "projection", "pre-activation", "dense layer"),
    alt="Five drawings of blocks. In the plain one x passes convolution, relu, convolution, relu. In the others a line "
    "runs past the convolutions and joins behind them: by addition in three of them, by concatenation in the last.",
    caption="From x at the bottom to y at the top. Boxes in pink have weights. The green line is the skip connection: a "
    "way from x to y past the convolutions. All five are yours to build.",
)

# %% [markdown]
# ## Play first
#
# Three words first. What a block learns is its **branch** $F$; the way past it is the **skip connection**; and the sum
# that runs through all blocks of a network, to which each of them adds, is the **stream**.

# %%
widgets.residual.guess_zero(reference)

# %% [markdown]
# So a chain of blocks starts from handing on, where a plain chain has to learn it. But adding has its price.

# %%
widgets.residual.guess_growth()

# %% [markdown]
# Now a chain of up to 40 blocks, two layers each, with random weights and before any training: the size (root mean
# square) of the stream after each block, and of the gradient on its way back. Dashed is a plain chain with the very
# same weights.
#
# 1. `plain`, 40 blocks. Find the weights that keep its gradient within a factor of 10. Then try `other weights`.
# 2. `identity`, weights at 1. Is the gradient saved? What has happened to it?
# 3. Lower `branch ×`. At which value does nothing explode any more, with 40 blocks? And at 0?
# 4. `projection` with a small branch: what is missing?

# %%
widgets.residual.flow()

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - A plain chain is a product of factors. With He's weights their squares are 1 on average, and yet 40 of them multiply
#   to 0.07 here, to 3 with weights 5 % larger, and with `other weights` to something else again.
# - A skip does not keep the gradient at its size: with a full-sized branch it *explodes*, and so does the stream. What
#   a skip does is to keep both from vanishing.
# - With a branch of about 0.2 ($\approx 1/\sqrt{40}$) identity and pre-activation stay level; with 0 every block hands
#   on what it got (in `identity` the first relu cuts off what is negative). So at depth the skip wants small branches.
#   Batch norm, or a branch that starts at 0, provides them: you will measure both.
# - A projection is one more random layer on the way. With a small branch, a chain of them is a plain chain: it loses
#   half of the mean square at every relu. Hence projections stand only where sizes change.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | block | $x$ | parameters | $y$ |
# |---|---|---|---|
# | identity | `(n, c, h, w)` | `w1 (m, c, 3, 3)`, `b1 (m,)`, `w2 (c, m, 3, 3)`, `b2 (c,)` | `(n, c, h, w)` |
# | projection | `(n, c, h, w)` | the same with `w2 (o, m, 3, 3)`, and `w_s (o, c, 1, 1)`, `b_s (o,)` | `(n, o, h', w')` |
# | pre-activation | `(n, c, h, w)` | as identity | `(n, c, h, w)` |
# | dense layer | `(n, c, h, w)` | `w (g, c, 3, 3)`, `b (g,)` | `(n, c + g, h, w)` |
#
# To add, shapes must agree. A 3 × 3 convolution with padding 1 and stride 1 keeps height and width, and the branch ends
# with as many channels as it began. Where a network halves the image or changes the channels, $x$ does not fit, and a
# 1 × 1 convolution with the same stride makes it fit: the **projection**. Do the sizes agree if the stride does not
# divide? By lesson 09, with stride $s$: $\lfloor (h + 2 - 3)/s \rfloor + 1$ on the branch and $\lfloor (h - 1)/s
# \rfloor + 1$ on the shortcut. The same number for every $h$.
#
# ### One block, backwards
#
# $y = \mathrm{relu}(s)$ with $s = x + F(x)$. First the relu: $g = dy$ where $s > 0$, and 0 elsewhere. Then the sum. In
# it $x$ is used twice, and a number that is used twice collects two gradients (lesson 04). Along the skip,
# $\partial s/\partial x$ is the identity: $g$ arrives as it is. Through the branch, $g$ goes back step by step; call
# what arrives $J^\top g$, with $J$ the matrix of the derivatives of $F$. Together
# $$dx = g + J^\top g = (I + J)^\top g.$$
# The convolutions get what they get in any network, with $g$ as the upstream gradient of the second one.
#
# In the pre-activation block nothing follows the sum, so $g = dy$ and $dx = dy + J^\top dy$.
#
# ### Many blocks
#
# In a plain chain, $dx = J_1^\top J_2^\top \cdots J_n^\top\, dy$. One factor that is small in some direction makes that
# direction small for good. In a chain of pre-activation blocks
# $$dx = (I + J_1)^\top (I + J_2)^\top \cdots (I + J_n)^\top\, dy.$$
# Multiply out, as with brackets of numbers. From each bracket take either $I$ or $J_l^\top$: for two blocks $dy +
# J_1^\top dy + J_2^\top dy + J_1^\top J_2^\top dy$. Every choice is a **path** through the network, by the skip or
# through the branch at each block: $2^n$ paths, of which $\binom{n}{k}$ go through exactly $k$ branches. One of them, of
# length 0, is $dy$ itself: a part of the gradient reaches every block undiminished, whatever the weights. (That the
# *sum* does not vanish does not follow: the other parts could cancel $dy$. They would have to work at it.)
#
# The same forwards: the stream after $n$ blocks is $x_0 + F_1(x_0) + F_2(x_1) + \dots$, a sum of what all blocks have
# said, each of which any later block can read.
#
# ### How large the stream becomes
#
# If branch and stream are uncorrelated, mean squares add. With $q_l$ for the stream's mean square after $l$ blocks and
# branches that keep the mean square of what they get, times $\alpha$:
# $$q_{l+1} = q_l + \alpha^2 q_l \quad\Rightarrow\quad q_n = (1 + \alpha^2)^n\, q_0.$$
# With $\alpha = 1$ it doubles at each block: $2^{40} \approx 10^{12}$, a root mean square of a million, which is what
# the figure showed. With $\alpha = 1/\sqrt n$ it is $(1 + 1/n)^n < e$: harmless at any depth.
#
# A batch norm at the end of the branch does something else: it fixes the *branch* at mean square 1, whatever the stream
# is. Then $q_{l+1} = q_l + 1$, so $q_l = q_0 + l$, and the mean square of branch $l$ is about $1/l$ of the
# stream's (De and Smith, 2020): the deeper a block, the less it changes. In this sense batch norm makes deep residual networks start close to
# the identity.
#
# ### Paths, weighed
#
# If each branch multiplies squared gradients by $\alpha^2$ on average, and different paths are uncorrelated, the paths
# of length $k$ together carry $\binom{n}{k}\alpha^{2k}$ of $(1 + \alpha^2)^n$: a binomial distribution with
# $p = \alpha^2/(1 + \alpha^2)$. Below, the dashes are this formula and the orange dots are measured: the gradient at
# the first block, taken apart by path length. Where does most of the gradient come from, when the branches are small?

# %%
widgets.residual.paths()

# %% [markdown]
# <details><summary>From short paths</summary>
#
# With `branch ×` 0.5 and 20 blocks the average path is 10 branches long, and the gradient comes along paths of about
# 4. The long paths are many and carry next to nothing. Veit, Wilber and Belongie (2016) measured this in a trained
# network of 54 blocks: nearly all of the gradient came through paths of 5 to 17 branches. A network of 110 layers whose
# gradient goes through a dozen: they called it an *ensemble of relatively shallow networks*. More on that word below.
#
# </details>
#
# ### Noise
#
# That gradients keep their size is not the whole story: they also have to *point* somewhere sensible a step further
# on. Let the input of a random chain go round a circle, and look at the slope of one output along it. For a plain chain
# of many layers it is close to white noise; Balduzzi et al. (2017) call such gradients **shattered**. How alike is the
# slope at one place to that at the next?

# %%
widgets.residual.shattered()

# %% [markdown]
# <details><summary>How alike</summary>
#
# One layer more, and a plain chain has more kinks; at 25 blocks the slope at one place says little about the next, in
# four of the six draws (try `other weights`). With skips it decays far more slowly, and with small branches it stays
# smooth, at 40 blocks nearly as at 5. With `branch ×` at 1 the skips help less, in pre-activation much less: again it
# is the *small* branch.
#
# </details>

# %% [markdown]
# ## From scratch
#
# Eight functions on images `(n, c, h, w)`, built from your convolutions of lesson 09. A 3 × 3 convolution has
# padding 1 throughout. The functions have no batch norm, so that the skip stands alone; it joins in the PyTorch half.

# %%
conv2d_forward, conv2d_backward = mine("conv2d_forward_fast"), mine("conv2d_backward")


def pixel(*values):
    """One example of one pixel, with these channels."""
    return np.array(values, float).reshape(1, -1, 1, 1)


def centre(*rows):
    """3 × 3 kernels that are 0 but in the middle: one row of numbers for each output channel."""
    w = np.zeros((len(rows), len(rows[0]), 3, 3))
    w[:, :, 1, 1] = rows
    return w


# %% [markdown]
# The miniatures use images of one pixel. Of a 3 × 3 kernel only the middle meets it, and the convolution is a linear
# layer.

# %% [markdown] about="residual_forward"
# ### The residual block
#
# `residual_forward(x, w1, b1, w2, b2) -> y`: `x (n, c, h, w)`, `w1 (m, c, 3, 3)`, `b1 (m,)`, `w2 (c, m, 3, 3)`,
# `b2 (c,)`, `y` like `x`:
# $$y = \mathrm{relu}\big(x + \mathrm{conv}(\mathrm{relu}(\mathrm{conv}(x, w_1, b_1)), w_2, b_2)\big).$$
# This is the block of He et al. (2015), without its norms. The last relu comes *after* the sum.
#
# By hand, one pixel, one channel, $x = 2$, $w_1 = 1$, $b_1 = 1$, $w_2 = -0.5$, $b_2 = 0$: the first convolution gives 3,
# relu 3, the second −1.5, the sum 2 − 1.5 = 0.5, and $y = 0.5$.

# %%
block = centre([1]), np.array([1.0]), centre([-0.5]), np.array([0.0])
np.testing.assert_allclose(reference("residual_forward")(pixel(2), *block), pixel(0.5))


# %% exercise="residual_forward"
def residual_forward(x, w1, b1, w2, b2):
    """x (n, c, h, w), w1 (m, c, 3, 3), b1 (m,), w2 (c, m, 3, 3), b2 (c,) -> y (n, c, h, w)"""
    ### BEGIN SOLUTION
    h = np.maximum(conv2d_forward(x, w1, b1, padding=1), 0)
    return np.maximum(x + conv2d_forward(h, w2, b2, padding=1), 0)
    ### END SOLUTION


# %% check="residual_forward"
check(residual_forward)

# %% [markdown] about="residual_backward"
# ### The residual block, backwards
#
# `residual_backward(dy, x, w1, b1, w2, b2) -> dx, dw1, db1, dw2, db2`: the shapes of what they belong to.
# `conv2d_backward(dy, x, w, b, padding=1)` returns `dx, dw, db` of one convolution; its `x` is what that convolution
# saw.
#
# By hand, the numbers from before and `dy = 4`. The sum was 0.5 > 0, so g = 4. Second convolution, which saw 3:
# `dw2` = 4 · 3 = 12, `db2` = 4, and back goes 4 · (−0.5) = −2. The inner relu was open. First convolution, which saw 2:
# `dw1` = −2 · 2 = −4, `db1` = −2, and back goes −2 · 1 = −2. Along the skip comes 4: `dx` = 4 − 2 = 2. (Indeed $y = x -
# 0.5\,(x + 1)$ near there, with slope 0.5.)

# %%
dx, dw1, db1, dw2, db2 = reference("residual_backward")(pixel(4), pixel(2), *block)
np.testing.assert_allclose([dx.item(), dw1[0, 0, 1, 1], db1[0], dw2[0, 0, 1, 1], db2[0]], [2, -4, -2, 12, 4])


# %% exercise="residual_backward"
def residual_backward(dy, x, w1, b1, w2, b2):
    """dy, x (n, c, h, w), w1 (m, c, 3, 3), b1 (m,), w2 (c, m, 3, 3), b2 (c,) -> dx, dw1, db1, dw2, db2"""
    ### BEGIN SOLUTION
    z = conv2d_forward(x, w1, b1, padding=1)
    h = np.maximum(z, 0)
    g = dy * (x + conv2d_forward(h, w2, b2, padding=1) > 0)
    dh, dw2, db2 = conv2d_backward(g, h, w2, b2, padding=1)
    dx, dw1, db1 = conv2d_backward(dh * (z > 0), x, w1, b1, padding=1)
    return g + dx, dw1, db1, dw2, db2
    ### END SOLUTION


# %% check="residual_backward"
check(residual_backward)

# %% [markdown] about="residual_projection_forward"
# ### With a projection
#
# `residual_projection_forward(x, w1, b1, w2, b2, w_s, b_s, stride=1) -> y`: the first convolution takes the steps, and
# so does the shortcut, a 1 × 1 convolution without padding:
# $$y = \mathrm{relu}\big(\mathrm{conv}(x, w_s, b_s, s) + \mathrm{conv}(\mathrm{relu}(\mathrm{conv}(x, w_1, b_1, s)),
# w_2, b_2)\big),$$
# with `w2 (o, m, 3, 3)`, `w_s (o, c, 1, 1)`, `b_s (o,)` and `y (n, o, h', w')`, where $h' = \lfloor (h - 1)/s \rfloor
# + 1$.
#
# By hand, one row of three pixels, `x = [1, 2, 3]`, stride 2, $w_s = 2$, $b_s = 1$: the shortcut sees the pixels 1 and 3
# and gives [3, 7]. Let the branch have weights 0 and $b_2 = -4$, so that it gives [−4, −4]. The sum is [−1, 3], and
# `y = [0, 3]`.

# %%
strip, nothing = np.array([1.0, 2, 3]).reshape(1, 1, 1, 3), np.zeros((1, 1, 3, 3))
projected = nothing, np.zeros(1), nothing, np.array([-4.0]), np.full((1, 1, 1, 1), 2.0), np.array([1.0]), 2
np.testing.assert_allclose(reference("residual_projection_forward")(strip, *projected).ravel(), [0, 3])


# %% exercise="residual_projection_forward"
def residual_projection_forward(x, w1, b1, w2, b2, w_s, b_s, stride=1):
    """x (n, c, h, w), w1 (m, c, 3, 3), b1, w2 (o, m, 3, 3), b2, w_s (o, c, 1, 1), b_s, stride -> y (n, o, h', w')"""
    ### BEGIN SOLUTION
    h = np.maximum(conv2d_forward(x, w1, b1, stride=stride, padding=1), 0)
    return np.maximum(conv2d_forward(x, w_s, b_s, stride=stride) + conv2d_forward(h, w2, b2, padding=1), 0)
    ### END SOLUTION


# %% check="residual_projection_forward"
check(residual_projection_forward)

# %% [markdown] about="residual_projection_backward"
# ### With a projection, backwards
#
# `residual_projection_backward(dy, x, w1, b1, w2, b2, w_s, b_s, stride=1) -> dx, dw1, db1, dw2, db2, dw_s, db_s`.
#
# By hand, the row from before and `dy = [5, 5]`: the first sum was negative, so g = [0, 5]. The shortcut saw [1, 3]:
# `dw_s` = 0 · 1 + 5 · 3 = 15 and `db_s` = 5. What it sends back, 2 · g, goes to the pixels that it saw: `dx = [0, 0,
# 10]`; the middle one was seen by the branch alone, whose weights are 0. And `db2` = 5 = `db_s`: both biases are added
# at the same place.

# %%
grads = reference("residual_projection_backward")(np.full((1, 1, 1, 2), 5.0), strip, *projected)
dx, dw_s, db_s, db2 = grads[0], grads[5], grads[6], grads[4]
np.testing.assert_allclose(dx.ravel(), [0, 0, 10])
np.testing.assert_allclose([dw_s.item(), db_s.item(), db2.item()], [15, 5, 5])


# %% exercise="residual_projection_backward"
def residual_projection_backward(dy, x, w1, b1, w2, b2, w_s, b_s, stride=1):
    """dy (n, o, h', w'), x (n, c, h, w), w1, b1, w2, b2, w_s, b_s, stride -> dx, dw1, db1, dw2, db2, dw_s, db_s"""
    ### BEGIN SOLUTION
    z = conv2d_forward(x, w1, b1, stride=stride, padding=1)
    h, s = np.maximum(z, 0), conv2d_forward(x, w_s, b_s, stride=stride)
    g = dy * (s + conv2d_forward(h, w2, b2, padding=1) > 0)
    dh, dw2, db2 = conv2d_backward(g, h, w2, b2, padding=1)
    through, dw1, db1 = conv2d_backward(dh * (z > 0), x, w1, b1, stride=stride, padding=1)
    along, dw_s, db_s = conv2d_backward(g, x, w_s, b_s, stride=stride)
    return along + through, dw1, db1, dw2, db2, dw_s, db_s
    ### END SOLUTION


# %% check="residual_projection_backward"
check(residual_projection_backward)

# %% [markdown] about="preactivation_forward"
# ### Pre-activation
#
# A chain of these blocks has a relu on the stream after every sum: whatever a block writes, the stream is cut off at 0,
# and its gradient with it. He et al. (2016) moved the relus (and norms) to the beginning of the branch:
#
# `preactivation_forward(x, w1, b1, w2, b2) -> y`, shapes as in `residual_forward`:
# $$y = x + \mathrm{conv}\big(\mathrm{relu}(\mathrm{conv}(\mathrm{relu}(x), w_1, b_1)), w_2, b_2\big).$$
#
# By hand, the block of before ($w_1 = 1$, $b_1 = 1$, $w_2 = -0.5$, $b_2 = 0$) and $x = -2$: relu(−2) = 0, the first
# convolution gives 0 + 1 = 1, relu 1, the second −0.5, and $y = -2 - 0.5 = -2.5$. The stream may be negative.

# %%
np.testing.assert_allclose(reference("preactivation_forward")(pixel(-2), *block), pixel(-2.5))


# %% exercise="preactivation_forward"
def preactivation_forward(x, w1, b1, w2, b2):
    """x (n, c, h, w), w1 (m, c, 3, 3), b1 (m,), w2 (c, m, 3, 3), b2 (c,) -> y (n, c, h, w)"""
    ### BEGIN SOLUTION
    h = np.maximum(conv2d_forward(np.maximum(x, 0), w1, b1, padding=1), 0)
    return x + conv2d_forward(h, w2, b2, padding=1)
    ### END SOLUTION


# %% check="preactivation_forward"
check(preactivation_forward)

# %% [markdown] about="preactivation_backward"
# ### Pre-activation, backwards
#
# `preactivation_backward(dy, x, w1, b1, w2, b2) -> dx, dw1, db1, dw2, db2`.
#
# By hand, from before, `dy = 4`: the second convolution saw 1: `dw2` = 4, `db2` = 4, and back goes −2, through an open
# relu. The first convolution saw relu(−2) = 0: `dw1` = 0, `db1` = −2, and back goes −2 · 1 = −2, which the closed relu
# stops. Along the skip comes 4, untouched: `dx` = 4.

# %%
dx, dw1, db1, dw2, db2 = reference("preactivation_backward")(pixel(4), pixel(-2), *block)
np.testing.assert_allclose([dx.item(), dw1[0, 0, 1, 1], db1[0], dw2[0, 0, 1, 1], db2[0]], [4, 0, -2, 4, 4])


# %% exercise="preactivation_backward"
def preactivation_backward(dy, x, w1, b1, w2, b2):
    """dy, x (n, c, h, w), w1 (m, c, 3, 3), b1 (m,), w2 (c, m, 3, 3), b2 (c,) -> dx, dw1, db1, dw2, db2"""
    ### BEGIN SOLUTION
    r = np.maximum(x, 0)
    z = conv2d_forward(r, w1, b1, padding=1)
    dh, dw2, db2 = conv2d_backward(dy, np.maximum(z, 0), w2, b2, padding=1)
    dr, dw1, db1 = conv2d_backward(dh * (z > 0), r, w1, b1, padding=1)
    return dy + dr * (x > 0), dw1, db1, dw2, db2
    ### END SOLUTION


# %% check="preactivation_backward"
check(preactivation_backward)

# %% [markdown]
# Your blocks on a small image. dy is 1 at one output and 0 elsewhere; dx is drawn with its two parts. Move dy over the
# image. Switch between the two kinds at an output that is 0. Then set the second kernel to 0: what is left of dx?

# %%
blocks = residual_forward, preactivation_forward
backwards = residual_backward, preactivation_backward
names = ("residual_forward", "preactivation_forward"), ("residual_backward", "preactivation_backward")
widgets.residual.one_block(blocks, backwards, *(tuple(map(reference, pair)) for pair in names))

# %% [markdown] about="dense_layer_forward"
# ### The dense layer
#
# Adding mixes what came in with what is new. Huang et al. (2017) keep both: the new channels are put *beside* the old
# ones.
#
# `dense_layer_forward(x, w, b) -> y`: `x (n, c, h, w)`, `w (g, c, 3, 3)`, `b (g,)`, `y (n, c + g, h, w)`: first the $c$
# channels of $x$, then $\mathrm{conv}(\mathrm{relu}(x), w, b)$. The number $g$ of new channels is the **growth rate**.
# Several such layers in a row are a **dense block**, in which each layer sees what all earlier ones have made.
#
# By hand, one pixel with the channels −1 and 2, $w = (3, 4)$, $b = 1$: relu gives 0 and 2, so the new channel is
# 3 · 0 + 4 · 2 + 1 = 9, and `y = [−1, 2, 9]`.

# %%
layer = centre([3, 4]), np.array([1.0])
np.testing.assert_allclose(reference("dense_layer_forward")(pixel(-1, 2), *layer), pixel(-1, 2, 9))


# %% exercise="dense_layer_forward"
def dense_layer_forward(x, w, b):
    """x (n, c, h, w), w (g, c, 3, 3), b (g,) -> y (n, c + g, h, w)"""
    ### BEGIN SOLUTION
    return np.concatenate([x, conv2d_forward(np.maximum(x, 0), w, b, padding=1)], axis=1)
    ### END SOLUTION


# %% check="dense_layer_forward"
check(dense_layer_forward)

# %% [markdown] about="dense_layer_backward"
# ### The dense layer, backwards
#
# `dense_layer_backward(dy, x, w, b) -> dx, dw, db`. Concatenation changes no number, so backwards it is a cut: some
# channels of dy belong to $x$ directly, the others to what the convolution made. Both reach $x$, and add.
#
# By hand, from before, `dy = [1, 1, 2]`: straight back goes [1, 1]. The convolution gets 2: `db` = 2, `dw` = 2 · [0, 2]
# = [0, 4] in the middle of the kernels, and back go 2 · [3, 4] = [6, 8], of which the relu lets pass [0, 8]. Together
# `dx = [1, 9]`.

# %%
dx, dw, db = reference("dense_layer_backward")(pixel(1, 1, 2), pixel(-1, 2), *layer)
np.testing.assert_allclose(dx, pixel(1, 9))
np.testing.assert_allclose([*dw[0, :, 1, 1], *db], [0, 4, 2])


# %% exercise="dense_layer_backward"
def dense_layer_backward(dy, x, w, b):
    """dy (n, c + g, h, w), x (n, c, h, w), w (g, c, 3, 3), b (g,) -> dx, dw, db"""
    ### BEGIN SOLUTION
    c = x.shape[1]
    dr, dw, db = conv2d_backward(dy[:, c:], np.maximum(x, 0), w, b, padding=1)
    return dy[:, :c] + dr * (x > 0), dw, db
    ### END SOLUTION


# %% check="dense_layer_backward"
check(dense_layer_backward)

# %% [markdown]
# ## Against a reference
#
# Three witnesses for each gradient of $x$: yours, finite differences, PyTorch. Then a chain of your functions, end to
# end.

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(12)
x = rng.normal(size=(2, 3, 4, 3))
w1, b1, w2, b2 = (0.3 * rng.normal(size=size) for size in ((4, 3, 3, 3), 4, (3, 4, 3, 3), 3))
w_s, b_s, w2_o, b2_o = (0.3 * rng.normal(size=size) for size in ((2, 3, 1, 1), 2, (2, 4, 3, 3), 2))
cases = {
    "residual": (residual_forward, residual_backward, (x, w1, b1, w2, b2)),
    "residual_projection": (
        residual_projection_forward, residual_projection_backward, (x, w1, b1, w2_o, b2_o, w_s, b_s, 2)
    ),
    "preactivation": (preactivation_forward, preactivation_backward, (x, w1, b1, w2, b2)),
    "dense_layer": (dense_layer_forward, dense_layer_backward, (x, w1, b1)),
}

# %%
gradients = {}
for name, (forward, backward, given) in cases.items():
    dy = rng.normal(size=forward(*given).shape)
    nudged = numerical_gradient(lambda v, f=forward, dy=dy, rest=given[1:]: (dy * f(v, *rest)).sum(), x)
    right = reference(f"{name}_backward")(dy, *given)[0]
    gradients[name] = backward(dy, *given)[0], nudged, right
plots.gradient_check(gradients)

# %% [markdown]
# The expansion into paths, in numbers. Take three pre-activation blocks and cut the gradient by the number of branches
# that it went through: at each block, what came along $k$ branches goes on along $k$ (skip) and becomes part of those
# along $k + 1$ (branch). Your `preactivation_backward` minus `dy` *is* the branch's part.

# %% tags=["nbval-check-output"]
chain = [tuple(0.3 * rng.normal(size=size) for size in ((4, 3, 3, 3), 4, (3, 4, 3, 3), 3)) for _ in range(3)]
inputs = [x]
for params in chain[:-1]:
    inputs.append(preactivation_forward(inputs[-1], *params))
dy = rng.normal(size=x.shape)
whole, parts = dy, [dy]
for h, params in zip(inputs[::-1], chain[::-1], strict=True):
    through = [preactivation_backward(part, h, *params)[0] - part for part in parts]
    parts = [a + b for a, b in zip([*parts, 0], [0, *through], strict=True)]
    whole = preactivation_backward(whole, h, *params)[0]
print("paths of length 0 carry dy itself:     ", np.array_equal(parts[0], dy))
print("all lengths together are the gradient: ", np.allclose(sum(parts), whole))

# %% [markdown]
# And what a check says of the mistake that everybody makes first:

# %% tags=["nbval-check-output"]
def unmasked(dy, x, w1, b1, w2, b2):
    dx, *others = residual_backward(dy, x, w1, b1, w2, b2)
    g = dy * (residual_forward(x, w1, b1, w2, b2) > 0)
    return dx - g + dy, *others


print(examine(unmasked, "residual_backward").mistake)

# %% [markdown]
# ## In PyTorch
#
# Autograd adds the two gradients by itself; a residual block is the one line `out + self.shortcut(x)`. What can go wrong
# is the order, and in-place operations: `nn.ReLU(inplace=True)` overwrites what it is given, and if that is what the
# skip still needs, the skip carries another thing. PyTorch notices only if the overwritten values are needed for a
# gradient, which those of a sum are not.

# %% tags=["nbval-check-output"]
x_torch = torch.tensor([-2.0, 3.0])
apart = x_torch + nn.ReLU()(x_torch)
kept = x_torch.clone()
together = nn.ReLU(inplace=True)(kept) + kept
print("x + relu(x):         ", apart.tolist())
print("with inplace=True:   ", together.tolist())

# %% [markdown] about="ResidualBlock"
# ### The residual block as a module
#
# `ResidualBlock(in_channels, out_channels, stride=1)`, with batch norm, as in He et al. (2015). You may use `nn.Conv2d`
# and `nn.BatchNorm2d`. Its attributes, and so the names in its `state_dict`:
#
# | name | what |
# |---|---|
# | `conv1`, `bn1` | 3 × 3, with the stride, padding 1, no bias, to `out_channels`; its batch norm |
# | `conv2`, `bn2` | 3 × 3, stride 1, padding 1, no bias; its batch norm |
# | `shortcut` | an empty `nn.Sequential()` if neither stride nor channels change, else 1 × 1 convolution with the stride, no bias, and batch norm |
#
# $y = \mathrm{relu}\big(\mathrm{bn}_2(\mathrm{conv}_2(\mathrm{relu}(\mathrm{bn}_1(\mathrm{conv}_1(x))))) +
# \mathrm{shortcut}(x)\big)$. An empty `nn.Sequential` hands on what it gets. (torchvision calls the shortcut
# `downsample` and gives it the value `None` where it is the identity. Here it is a module in either case: later cells
# call it.)
#
# By hand: `ResidualBlock(2, 2)` with all weights of `bn2` at 0 is the function relu.


# %% exercise="ResidualBlock"
class ResidualBlock(nn.Module):
    """x (n, in_channels, h, w) -> y (n, out_channels, h', w')

    Two methods: __init__ makes conv1, bn1, conv2, bn2 and shortcut, forward(self, x) connects them.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        ### BEGIN SOLUTION
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))
        ### END SOLUTION

# %% check="ResidualBlock"
check(ResidualBlock)

# %% [markdown] about="DenseBlock"
# ### The dense block as a module
#
# `DenseBlock(in_channels, growth_rate, num_layers)`: `num_layers` dense layers in a row, each in the order of Huang et
# al. (2017): batch norm, relu, 3 × 3 convolution (padding 1, no bias) to `growth_rate` channels, which are put after
# those that were there. Its attributes are two lists, `norms` and `convs`, each an `nn.ModuleList` with one module per
# layer. (A Python list would hide its modules from `parameters()` and `state_dict()`.)
#
# By hand, `DenseBlock(4, 3, 2)`: the first layer sees 4 channels, the second 7, and 10 come out.


# %% exercise="DenseBlock"
class DenseBlock(nn.Module):
    """x (n, in_channels, h, w) -> y (n, in_channels + num_layers * growth_rate, h, w)

    Two methods: __init__ makes the ModuleLists norms and convs, forward(self, x) appends channels, layer by layer.
    """

    def __init__(self, in_channels, growth_rate, num_layers):
        super().__init__()
        ### BEGIN SOLUTION
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        for k in range(num_layers):
            width = in_channels + k * growth_rate
            self.norms.append(nn.BatchNorm2d(width))
            self.convs.append(nn.Conv2d(width, growth_rate, 3, padding=1, bias=False))

    def forward(self, x):
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], dim=1)
        return x
        ### END SOLUTION

# %% check="DenseBlock"
check(DenseBlock)

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
images = torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True)
modules = ResidualBlock(2, 2), ResidualBlock(2, 3, stride=2), DenseBlock(2, 3, 2)
for module in modules:
    agrees = torch.autograd.gradcheck(module.double(), images)
    print(f"{type(module).__name__:<14} {tuple(images.shape)} -> {tuple(module(images).shape)}   gradcheck {agrees}")

# %% [markdown]
# Why not compute the gradients at the start of a real network, then? Twenty of your blocks on real digits, and the same
# twenty without their skips, from the same seed: `PlainBlock` inherits everything from yours and leaves away the sum.


# %%
class PlainBlock(ResidualBlock):
    """The same layers without the skip."""

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


digits = data.digits()
x_train, x_test = (torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) for x in (digits.x_train, digits.x_test))
y_train, y_test = torch.tensor(digits.y_train), torch.tensor(digits.y_test)


def block_gradients(Block, seed):
    """The norm of the gradient of conv1 in each of 20 blocks, at the start."""
    torch.manual_seed(seed)
    body = [Block(8, 8) for _ in range(20)]
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *body, nn.Flatten(), nn.Linear(512, 10))
    F.cross_entropy(model(x_train[:64]), y_train[:64]).backward()
    return [block.conv1.weight.grad.norm().item() for block in body]


# %%
found = {"residual + norm": ResidualBlock, "plain + norm": PlainBlock}
found = {name: np.array([block_gradients(Block, seed) for seed in range(3)]) for name, Block in found.items()}
colours = widgets.residual.NETWORKS
fig, ax = plots.figure(6.5, 2.6)
for name, norms in found.items():
    ax.plot(range(1, 21), norms.mean(axis=0), color=colours[name], label=name)
    ax.fill_between(range(1, 21), norms.min(axis=0), norms.max(axis=0), color=colours[name], alpha=0.25)
ax.set(yscale="log", xlabel="block", ylabel="gradient norm", xticks=[1, 5, 10, 15, 20])
ax.legend()
plots.show(
    fig,
    alt="Gradient norms of 20 blocks on a logarithmic scale. Both curves fall from the first block to the last; the "
    "one with skips by a factor of about 10, the one without by several hundred.",
    caption="Batch norm in both, three seeds. On its way back to block 1 the gradient grows: with skips some tenfold over "
    "the 40 layers, without skips several hundredfold. It vanishes in neither.",
)
for name, norms in found.items():
    print(f"{name:<16} first block / last block: " + ", ".join(f"{first / last:.1f}" for first, last in norms[:, [0, -1]]))

# %% [markdown]
# "Skips cure vanishing gradients" is half of the truth at best. He et al. (2015) point out themselves that with batch
# norm the gradients of their plain networks did not vanish. Here they *explode* towards the first layer; Yang et al.
# (2019) derive that in a plain chain with batch norm they grow by a factor at every layer. With skips the growth is much
# slower: by the mathematics above, block $l$ adds only about $1/l$ of the stream, so its factor is close to 1.

# %% [markdown]
# ## At work
#
# ### In NumPy
#
# Your functions as layers in the protocol of lesson 04: a first convolution, a block with projection (stride 2, to
# 4 × 4 pixels), two identity blocks, the mean over the pixels, a linear layer.


# %%
class BlockLayer:
    """A layer made of a forward and a backward function and their parameters."""

    def __init__(self, forward, backward, params, **options):
        self.functions, self.params, self.options = (forward, backward), params, options

    def forward(self, x):
        self.x = x
        return self.functions[0](x, *self.params, **self.options)

    def backward(self, dy):
        dx, *self.grads = self.functions[1](dy, self.x, *self.params, **self.options)
        return dx

    def parameters(self):
        return self.params

    def gradients(self):
        return self.grads


# %% [markdown]
# Two small layers more: from digits to images of a sensible scale, and the mean over the pixels, whose gradient spreads
# over all of them evenly (a global average pool, lesson 10).


# %%
class ImageLayer:
    """(n, 64) -> (n, 1, 8, 8), shifted and scaled to mean 0 and spread 1 over the training digits"""

    def forward(self, x):
        return (x.reshape(-1, 1, 8, 8) - digits.x_train.mean()) / digits.x_train.std()

    def backward(self, dy):
        return dy.reshape(len(dy), 64) / digits.x_train.std()

    def parameters(self):
        return []

    gradients = parameters


class MeanLayer(ImageLayer):
    """(n, c, h, w) -> (n, c)"""

    def forward(self, x):
        self.size = x.shape[2:]
        return x.mean(axis=(2, 3))

    def backward(self, dy):
        h, w = self.size
        return np.broadcast_to(dy[:, :, None, None], (*dy.shape, h, w)) / (h * w)


# %%
Sequential, LinearLayer, momentum_step = mine("Sequential"), mine("LinearLayer"), mine("momentum_step")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
rng = np.random.default_rng(0)


def kernel(o, c, size=3, scale=1.0):
    """Weights as He et al. say, and biases of 0."""
    return rng.normal(0, scale * np.sqrt(2 / (c * size**2)), (o, c, size, size)), np.zeros(o)


identity, projection = (residual_forward, residual_backward), (residual_projection_forward, residual_projection_backward)
layers = [
    ImageLayer(),
    BlockLayer(conv2d_forward, conv2d_backward, kernel(8, 1), padding=1),
    BlockLayer(*projection, [*kernel(12, 8), *kernel(12, 12), *kernel(12, 8, 1)], stride=2),
    *[BlockLayer(*identity, [*kernel(12, 12), *kernel(12, 12, scale=0.5)]) for _ in range(2)],
    MeanLayer(),
    LinearLayer(rng.normal(0, np.sqrt(1 / 12), (10, 12)), np.zeros(10)),
]
model = Sequential(layers)

# %%
epochs = 1 if plots.fast() else 6
velocities = [np.zeros_like(param) for param in model.parameters()]
with plots.Training(epochs, "train loss", "test accuracy") as run:
    for _ in range(epochs):
        losses = []
        for batch in np.array_split(rng.permutation(len(digits.x_train)), 45):
            logits = model.forward(digits.x_train[batch])
            losses.append(cross_entropy_forward(logits, digits.y_train[batch]))
            model.backward(cross_entropy_backward(1.0, logits, digits.y_train[batch]))
            for param, grad, velocity in zip(model.parameters(), model.gradients(), velocities, strict=True):
                param[:], velocity[:] = momentum_step(param, grad, velocity, lr=0.02)
        run.log(np.mean(losses), (model.forward(digits.x_test).argmax(axis=1) == digits.y_test).mean())

# %% [markdown]
# Eight layers with weights on the main way learn well enough. What is asked is what happens at *depth*, with many
# networks; for that we need something quicker.
#
# ### Does depth hurt?
#
# On an image of one pixel a convolution is a linear layer, and that is what the blocks below have: 64 pixels → 32 →
# blocks of two 32 × 32 layers → 10 digits, with 4 to 40 layers inside the blocks. Six networks:
#
# - **plain** and **residual**, without and with batch norm: the same weights, the same batches;
# - **residual, branch from 0**: without norm, each branch multiplied by one learned number $\alpha$ that starts at 0
#   (SkipInit: De and Smith, 2020); all others have it too, starting at 1;
# - **residual + norm, gain from 0**: the same number behind the last norm (for a whole channel's gain: Goyal et al.,
#   2017).
#
# A fair comparison gives each its own best learning rate. So every network is trained at four of them, from three seeds,
# all twelve at once: the weights have an axis more, and `@` multiplies the twelve matrices side by side.

# %%
rates, seeds, steps, depths = [0.003, 0.01, 0.03, 0.1], 3, 10 if plots.fast() else 100, (4, 10, 20, 40)
runs = seeds * len(rates)
lr = torch.tensor(rates).repeat(seeds).reshape(-1, 1, 1)


def start(layers, gain):
    """He's weights (runs, i, o) of all layers, a seed's the same for each learning rate, and the branches' gains."""
    shapes, drawn = [(64, 32), *[(32, 32)] * layers, (32, 10)], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        drawn.append([rng.normal(0, np.sqrt(2 / i), (i, o)) for i, o in shapes])
    weights = [np.repeat(np.stack(same), len(rates), axis=0) for same in zip(*drawn, strict=True)]
    gains = [np.full((runs, 1, 1), gain)] * (layers // 2)
    return [torch.tensor(value, dtype=torch.float32, requires_grad=True) for value in (*weights, *gains)]


# %%
def standardised(z):
    """Batch norm without gain and bias of z (runs, n, d): the networks side by side, as columns of one batch."""
    n, d = z.shape[1:]
    columns = z.transpose(0, 1).reshape(n, runs * d)
    return F.batch_norm(columns, None, None, training=True).reshape(n, runs, d).transpose(0, 1)


def loss(params, x, y, layers, skip, norm):
    """The mean loss (runs,) of all networks on one batch x (n, 64)."""
    first, *weights, last = params[: layers + 2]
    norm = standardised if norm else lambda z: z
    h = F.relu(x @ first)
    for w1, w2, gain in zip(weights[::2], weights[1::2], params[layers + 2 :], strict=True):
        branch = gain * norm(F.relu(norm(h @ w1)) @ w2)
        h = F.relu(h + branch if skip else branch)
    logits = (h @ last).reshape(-1, 10)
    return F.cross_entropy(logits, y.repeat(runs), reduction="none").reshape(runs, -1).mean(1)


# %%
pixels = [torch.tensor((x - digits.x_train.mean()) / digits.x_train.std(), dtype=torch.float32) for x in (digits.x_train, digits.x_test)]


def train(layers, skip, norm, gain):
    """Training losses (steps, seeds, rates), and the loss at the end on training and on test digits."""
    params, rng, curve = start(layers, gain), np.random.default_rng(0), []
    velocity = [torch.zeros_like(param) for param in params]
    for _ in range(steps):
        batch = torch.tensor(rng.integers(0, len(y_train), 32))
        losses = loss(params, pixels[0][batch], y_train[batch], layers, skip, norm)
        grads = torch.autograd.grad(losses.sum(), params)
        with torch.no_grad():
            for param, v, grad in zip(params, velocity, grads, strict=True):
                v.mul_(0.9).add_(grad)
                param -= lr * v
        curve.append(losses.detach())
    with torch.no_grad():
        ends = [loss(params, x[:360], y[:360], layers, skip, norm) for x, y in zip(pixels, (y_train, y_test), strict=True)]
    return [torch.stack(v).reshape(-1, seeds, len(rates)).numpy() for v in (curve, ends)]


# %%
networks = {
    "plain": dict(skip=False, norm=False, gain=1.0),
    "residual": dict(skip=True, norm=False, gain=1.0),
    "residual, branch from 0": dict(skip=True, norm=False, gain=0.0),
    "plain + norm": dict(skip=False, norm=True, gain=1.0),
    "residual + norm": dict(skip=True, norm=True, gain=1.0),
    "residual + norm, gain from 0": dict(skip=True, norm=True, gain=0.0),
}
curves, ends = {name: {} for name in networks}, {name: {} for name in networks}
with plots.Training(len(depths) * len(networks), unit="network") as run:
    for depth in depths:
        for name, options in networks.items():
            curves[name][depth], ends[name][depth] = train(depth, **options)
            run.log()

# %% [markdown]
# Predict before you look: 40 layers, batch norm, each network at its best learning rate. Does the plain one learn more
# slowly, or not at all? Then go to 4 layers. Then without batch norm: which network is the worst of the three at 40?

# %%
widgets.residual.training(curves, rates)

# %%
def best(name, depth):
    """Training and test loss (2, seeds) at the learning rate whose worst seed ends lowest on the training digits."""
    worst = ends[name][depth][0].max(axis=0)
    return ends[name][depth][:, :, np.where(np.isfinite(worst), worst, np.inf).argmin()]


fig, axes = plots.figure(9.5, 2.7, 2)
for name in networks:
    means = np.stack([np.minimum(np.nan_to_num(best(name, depth)[0], nan=9), 9) for depth in depths])
    ax = axes[int("norm" in name)]
    ax.plot(depths, means.mean(axis=1), "o-", color=colours[name], label=name)
    ax.fill_between(depths, means.min(axis=1), means.max(axis=1), color=colours[name], alpha=0.25)
for ax, title in zip(axes, ("without norm", "with batch norm"), strict=True):
    ax.set(title=title, xlabel="layers", xticks=depths, ylim=(0, 3), ylabel="training loss")
    ax.legend(fontsize=8, loc="upper left")
plots.show(
    fig,
    alt="Training loss against depth, best learning rate each, three seeds. The plain networks rise from below 0.5 at 4 "
    "layers to above 2 at 40. The residual one without norm leaves the picture. The other three residual ones stay low.",
    caption="After 100 steps, each at its best learning rate; bands span three seeds. Deeper plain networks fit their "
    "training digits worse. A skip alone does not help; a skip with a branch that is kept small does.",
)

# %%
for depth in (4, 40):
    print(f"{depth:>2} layers{'':<23}training loss (seeds)      test loss")
    for name in networks:
        train_loss, test_loss = best(name, depth)
        told = f"{train_loss.mean():.2f} ({train_loss.min():.2f} to {train_loss.max():.2f})      {test_loss.mean():.2f}"
        print(f"   {name:<29}" + (told if np.isfinite(train_loss).all() else "diverged"))

# %% [markdown]
# What is found here:
#
# - **Depth hurts the plain networks, and it is not overfitting.** With 4 layers they learn, if less well than the others.
#   With 40, both end with a *training* loss above 2.1, where $\ln 10 = 2.30$ is knowing nothing, and their test loss is
#   the same: there is nothing to overfit. Batch norm, which rescued the badly started networks of lesson 08, does not
#   rescue these. He et al. (2015) met the milder form, 56 layers worse than 20 on the training set. (Would more
#   time help? Set `steps = 1000`, and wait.)
# - **The skip alone does not help.** Without norm, the residual network is fine at 4 layers and diverges at 40 with
#   every learning rate. Twenty full-sized branches make the stream a thousand times too large.
# - **The skip with a small branch does.** Batch norm keeps the branch small beside a growing stream: 0.31 with 40
#   layers. $\alpha = 0$ does it without any norm: 0.19.
# - **Why start the last gain at 0?** With norm and gain from 0, 40 layers end at 0.13 (0.12 to 0.14), as low as 4
#   layers; with gain 1 at 0.31 (0.29 to 0.35). Every block begins as the identity, so that the deep network begins as a
#   shallow one. At 4 layers the trick gains nothing to speak of.
#
# One data set, linear layers, 100 steps, three seeds. A plain network of 20 *convolutions* does train, given more
# time: it comes next.

# %% [markdown]
# ## Look inside
#
# Two networks of images, made of your `ResidualBlock`: a convolution to 8 channels, four blocks, a block with projection
# to 16 channels on 4 × 4 pixels, four more blocks, the mean over the pixels, ten logits. 20 layers with weights on the
# main way, and the same without skips. To be fair to the plain one, it is trained for longer.


# %%
def images_network(Block):
    """Conv, norm and relu, 4 blocks, one that halves the image, 4 blocks, pool and classify."""
    first = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    body = [*(Block(8, 8) for _ in range(4)), Block(8, 16, 2), *(Block(16, 16) for _ in range(4))]
    return nn.Sequential(*first, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def accuracy(model):
    model.eval()
    with torch.no_grad():
        return (model(x_test).argmax(1) == y_test).float().mean().item()


# %%
def epoch(model, optimiser):
    """One epoch in batches of 64; the mean loss."""
    model.train()
    losses = []
    for batch in torch.randperm(len(x_train)).split(64):
        value = F.cross_entropy(model(x_train[batch]), y_train[batch])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return np.mean(losses)


# %%
trained = {}
for name, Block, epochs in (("residual", ResidualBlock, 5), ("plain", PlainBlock, 10)):
    epochs = 1 if plots.fast() else epochs
    torch.manual_seed(0)
    trained[name] = images_network(Block)
    optimiser = torch.optim.SGD(trained[name].parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    with plots.Training(epochs, f"{name} loss", f"{name} accuracy") as run:
        for _ in range(epochs):
            run.log(epoch(trained[name], optimiser), accuracy(trained[name]))
            schedule.step()

# %% [markdown]
# ### Take a block away
#
# Now remove a whole block from a trained network, and train nothing afterwards: what it got is handed on to the block
# behind it. Each block can go but number 5, the one that changes the shape, so there are eight of them; they are
# numbered without it. In a plain network, what do you expect of removing two layers of twenty? And in the residual one?

# %%
def without(model):
    """removed -> logits of the test digits, the given ones of the eight blocks that keep the shape left out."""
    keeps = [k for k, part in enumerate(model) if isinstance(part, ResidualBlock) and not [*part.shortcut.parameters()]]

    def logits(removed):
        gone = {keeps[number] for number in removed}
        with torch.no_grad():
            return nn.Sequential(*(part for k, part in enumerate(model) if k not in gone)).eval()(x_test).numpy()

    return logits


answers = {name: without(model) for name, model in trained.items()}
widgets.residual.lesion(answers, digits.y_test, 8)

# %%
def share_right(logits):
    return (logits.argmax(axis=1) == digits.y_test).mean()


for name, logits in answers.items():
    print(f"{name:<9} whole {share_right(logits([])):.2f}")
    for told, removed in (("block k", lambda k: [k]), ("blocks k to 8", lambda k: range(k, 8))):
        rights = (share_right(logits(removed(k))) for k in range(8))
        print(f"   without {told:<14} k = 1 … 8: " + " ".join(f"{right:.2f}" for right in rights))

# %% [markdown]
# In the plain network *any* missing block brings the answer down to chance (0.10) or below: each layer expects just the
# numbers that the one before it made. The residual network hardly notices the loss of block 6, 7 or 8, and gets 0.93
# without block 4. But its blocks are not equal. Without the first or the second, it is lost too, and number 5, the first
# after the projection, matters more than its neighbours. Veit et al. (2016) saw the same contrast on CIFAR-10, with 54
# blocks: only those that halve the image were missed much. With eight blocks each has more to say. (One network each,
# from one seed: change `torch.manual_seed(0)` above and see what stays.)
#
# The lines `blocks k to 8` leave out everything *from* block k on, the projection excepted, so that the pool and the
# last layer read the stream where it stands (tick `and all after it` in the figure). From k = 3 on, the residual
# network's answer improves with every block that stays, up to the last but one: 0.19, 0.48, 0.77, 0.95, 0.98, 0.99. That
# is what is meant by refinement, and it is not what a vote among independent members looks like.

# %% [markdown]
# ### How much does each block change?
#
# The size of what each branch adds, against the size of the stream it adds it to (both on the test digits), at the
# start and after training.


# %%
def branch_shares(model):
    """For each block: the norm of its branch over the norm of what it is added to."""
    shares, h = [], x_test
    model.eval()
    with torch.no_grad():
        for part in model:
            if isinstance(part, ResidualBlock):
                branch = part.bn2(part.conv2(F.relu(part.bn1(part.conv1(h)))))
                shares.append((branch.norm() / part.shortcut(h).norm()).item())
            h = part(h)
    return shares


torch.manual_seed(0)
fresh = images_network(ResidualBlock).train()
with torch.no_grad():
    for _ in range(60):  # until the running statistics are those of the digits
        fresh(x_train[:256])
for name, model in {"at the start": fresh, "after training": trained["residual"]}.items():
    print(f"{name:<15}" + " ".join(f"{share:.2f}" for share in branch_shares(model)))

# %% [markdown]
# At the start the shares fall as the mathematics says. The mean square of branch $l$ is about $1/l$ of the stream's, its
# size therefore about $1/\sqrt l$: the first stage goes from 1.44 to 0.61 (it begins above 1, since the first relu has
# left the stream half of its mean square), and with the projection, the fifth number, it begins anew. After training the
# shares still fall along each stage, and the late blocks change less than at the start: 0.37 for the last. Yet blocks 6,
# 7 and 8, whose removal cost next to nothing, add 0.60, 0.46 and 0.37 of the stream's size. A branch of half the stream's
# size, taken away at next to no cost, points where the later layers do not look.

# %% [markdown]
# ### What a dense block reads
#
# In a dense block every layer sees all earlier ones. Does it use them? A network with one dense block of six layers (8
# channels come in, each layer adds 4) is trained on the digits; then, for each layer and each earlier source, the mean
# size of the weights with which the one reads the other. Huang et al. (2017) drew this picture of their networks.

# %%
dense_nets = []
for seed in range(1 if plots.fast() else 3):
    torch.manual_seed(seed)
    first, dense_block = nn.Conv2d(1, 8, 3, padding=1), DenseBlock(8, 4, 6)
    head = nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    model = nn.Sequential(first, dense_block, *head)
    epochs = 1 if plots.fast() else 5
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        epoch(model, optimiser)
        schedule.step()
    dense_nets.append(model)
    print(f"seed {seed}: test accuracy {accuracy(model):.2f}")


# %%
EDGES = [0, *range(8, 8 + 4 * 6, 4)]  # where the channels of each source begin


def reading(block):
    """How strongly layer l (row) reads source s (column): mean |gain · weight|; nan where it comes later."""
    strengths = np.full((6, 6), np.nan)
    for k, (norm, conv) in enumerate(zip(block.norms, block.convs, strict=True)):
        size = (conv.weight * norm.weight[:, None, None]).abs().mean(dim=(0, 2, 3)).detach().numpy()
        for s, (low, high) in enumerate(pairwise(EDGES[: k + 2])):
            strengths[k, s] = size[low:high].mean()
    return strengths


def cut(model):
    """What cutting layer l (row) off from source s (column) costs, in per cent of the test digits."""
    costs, whole = np.full((6, 6), np.nan), accuracy(model)
    for k, conv in enumerate(model[1].convs):
        for s, (low, high) in enumerate(pairwise(EDGES[: k + 2])):
            kept = conv.weight.detach().clone()
            conv.weight.data[:, low:high] = 0
            costs[k, s] = 100 * (whole - accuracy(model))
            conv.weight.data = kept
    return costs


# %%
before = np.mean([reading(DenseBlock(8, 4, 6)) for _ in range(3)], axis=0)
after, cost = (np.mean([of(net) for net in dense_nets], axis=0) for of in (lambda net: reading(net[1]), cut))
plots.show(
    widgets.residual.sources(before, after, cost),
    alt="Three triangular tables: rows are layers 1 to 6, columns are the sources input and layers 1 to 5. After "
    "training, weights and costs are largest near the diagonal.",
    caption="Rows read, columns are read; means over three networks. Layers read their nearest sources most.",
)

# %% [markdown]
# Each layer reads its nearest sources most: near the diagonal the weights have about doubled, in the lower left corner
# they are as at the start. The last table is the better witness. Cutting layer 1 or 2 off from its nearest source ruins
# the network, cutting layer 6 off from the input costs a third of a per cent. So concatenation *permits* every layer to
# use all earlier ones; here distant features are reused little, if not nowhere: cutting layer 5 off from the input
# costs 10 %. Huang et al. (2017) found weights spread over all sources within a block, in larger networks.
#
# The tables also warn: a weight's size is not its use. Layer 5 has smaller weights on the input than on layer 3, and yet
# it misses the input more. So it is with layer 3 and its two layers: the larger weights are on layer 2, the larger loss
# is layer 1's.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken functions, three numbers to predict.

# %% [markdown] about="repair_preactivation_forward"
# ### Repair: a skip that is not x
#
# `repair_preactivation_forward(x, w1, b1, w2, b2) -> y`: a pre-activation block, as in `preactivation_forward`, by
# somebody who wanted to save memory and knew that the caller's `x` must not change. The shapes are right, the caller's
# `x` is safe, and for $x \geq 0$ everything is right.


# %% exercise="repair_preactivation_forward"
def repair_preactivation_forward(x, w1, b1, w2, b2):
    """x (n, c, h, w), w1 (m, c, 3, 3), b1 (m,), w2 (c, m, 3, 3), b2 (c,) -> y (n, c, h, w)"""
    ### BEGIN SOLUTION
    branch = conv2d_forward(np.maximum(x, 0), w1, b1, padding=1)
    np.maximum(branch, 0, out=branch)
    return x + conv2d_forward(branch, w2, b2, padding=1)
    ### BROKEN
    # stream = x.copy()
    # branch = stream
    # np.maximum(branch, 0, out=branch)
    # branch = conv2d_forward(branch, w1, b1, padding=1)
    # np.maximum(branch, 0, out=branch)
    # return stream + conv2d_forward(branch, w2, b2, padding=1)
    ### END SOLUTION


# %% check="repair_preactivation_forward"
check(repair_preactivation_forward)

# %% [markdown] about="repair_shortcut_forward"
# ### Repair: a shortcut without parameters
#
# Before the projection, He et al. (2015) list a cheaper shortcut, their *option A*: keep every `stride`-th row and
# column of $x$, starting with the first, and where more channels are needed, append channels of zeros.
#
# `repair_shortcut_forward(x, out_channels, stride=1) -> y`: `x (n, c, h, w)`, `out_channels` $\geq c$, `y (n,
# out_channels, h', w')`. The function below gives the right shape every time, and networks with it train, only not as
# well. There are two faults.
#
# By hand, the row `[1, 2, 3]` with one channel, `out_channels=2` and stride 2: `[1, 3]` in the first channel, `[0, 0]`
# in the second.


# %% exercise="repair_shortcut_forward"
def repair_shortcut_forward(x, out_channels, stride=1):
    """x (n, c, h, w), out_channels, stride -> y (n, out_channels, h', w')"""
    ### BEGIN SOLUTION
    kept = x[:, :, ::stride, ::stride]
    return np.pad(kept, ((0, 0), (0, out_channels - x.shape[1]), (0, 0), (0, 0)))
    ### BROKEN
    # n, c, h, w = x.shape
    # kept = x[:, :, : (h - 1) // stride + 1, : (w - 1) // stride + 1]
    # return kept[:, np.arange(out_channels) % c]
    ### END SOLUTION


# %% check="repair_shortcut_forward"
check(repair_shortcut_forward)

# %% [markdown] about="count_block_parameters"
# ### Predict: how many parameters?
#
# `count_block_parameters(in_channels, out_channels, stride) -> branch, shortcut`: the learnable numbers in the branch
# and in the shortcut of a `ResidualBlock`.
#
# By hand, `ResidualBlock(2, 2)`: two convolutions with 2 · 2 · 9 = 36 each and two norms with 4 each, so 80 in the
# branch, and 0 in the shortcut.


# %% exercise="count_block_parameters"
def count_block_parameters(in_channels, out_channels, stride):
    """in_channels, out_channels, stride -> branch (), shortcut ()"""
    ### BEGIN SOLUTION
    norm = 2 * out_channels
    branch = 9 * out_channels * (in_channels + out_channels) + 2 * norm
    changes = stride != 1 or in_channels != out_channels
    return branch, out_channels * in_channels + norm if changes else 0
    ### END SOLUTION


# %% check="count_block_parameters"
check(count_block_parameters)

# %% [markdown] about="count_paths"
# ### Predict: how many paths?
#
# `count_paths(blocks, length) -> paths`: how many ways through a chain of residual blocks go through exactly `length`
# branches (and past all the others)?
#
# By hand, 2 blocks: one way of length 0, two of length 1, one of length 2.


# %% exercise="count_paths"
def count_paths(blocks, length):
    """blocks, length -> paths ()"""
    ### BEGIN SOLUTION
    paths = 1
    for k in range(length):
        paths = paths * (blocks - k) // (k + 1)
    return paths
    ### END SOLUTION


# %% check="count_paths"
check(count_paths)

# %% [markdown]
# With it, the claim of Veit et al. (2016) can be weighed: in their network of 54 blocks, nearly all of the gradient came
# through paths of 5 to 17 branches.

# %% tags=["nbval-check-output"]
short = sum(count_paths(54, length) for length in range(5, 18))
print(f"paths through 54 blocks: {2**54:.1e}; of length 5 to 17: {short / 2**54:.2%}")

# %% [markdown] about="dense_channels"
# ### Predict: how many channels?
#
# `dense_channels(in_channels, growth_rate, num_layers) -> out, seen`: the channels that a dense block puts out, and
# those that its *last* layer sees.
#
# By hand, 4 channels, growth rate 3, 2 layers: 10 come out, and the second layer sees 7.


# %% exercise="dense_channels"
def dense_channels(in_channels, growth_rate, num_layers):
    """in_channels, growth_rate, num_layers -> out (), seen ()"""
    ### BEGIN SOLUTION
    out = in_channels + num_layers * growth_rate
    return out, out - growth_rate
    ### END SOLUTION


# %% check="dense_channels"
check(dense_channels)

# %% [markdown]
# ### What people believe, and what is true
#
# - **"Skip connections cure vanishing gradients."** They keep gradients from vanishing, and let them explode if the
#   branches are not kept small: you saw both. And the plain networks that motivated them had batch norm and gradients
#   that did not vanish.
# - **"Deep plain networks overfit."** Their *training* loss is higher. That is failed optimisation, and no amount of
#   data or dropout mends it.
# - **"A residual block learns the residual, because we tell it to."** Nothing in the loss says so. The sum makes "change
#   nothing" the default, and what is learned is the difference to it.
# - **"Put the projection everywhere, more parameters are better."** A skip with weights is a layer: it multiplies, and a
#   chain of them vanishes or explodes. Projections belong where shapes change (He et al., 2016, tried the others).
# - **"Relu before or after the sum, no matter."** A relu at the end of the branch lets a block only ever add. A relu on
#   the stream cuts it off at each block. Hence pre-activation for the deepest networks.
# - **"The identity costs nothing."** No weights, but memory: $x$ has to be kept until the sum, and in a dense block all
#   channels of all layers are.
# - **"A residual network is an ensemble."** See above: it survives the loss of single blocks as an ensemble of votes
#   would. But blocks are trained together, and the later ones refine what the earlier ones wrote: remove several, or
#   the first, and see.


# %% [markdown]
# ## Where it is used, and what came after
#
# ResNets won most of what there was to win in 2015 and are still the first thing to try on images. The skip has gone
# nearly everywhere: into U-Nets (lesson 14), where it crosses the whole network; into the inverted residual of small
# networks (lesson 13); into LSTMs, which had it first, as a cell state to which gates add (lesson 17); and into every
# transformer (lesson 19), where attention and feed-forward layers are branches in pre-activation order, and people who
# study such models speak of a *residual stream* that layers read from and write to.
#
# It had a forerunner: highway networks (Srivastava, Greff and Schmidhuber, 2015) mix $T \cdot F(x) + (1 - T) \cdot x$,
# where $T$ is a learned gate between 0 and 1. The residual block is what is left when the gates are thrown away.
#
# What is disputed:
#
# - **Why it helps.** Short paths (Veit et al., 2016), gradients that are not shattered (Balduzzi et al., 2017), a
#   smoother loss surface: Li et al. (2018) drew pictures of it that are shown everywhere; they are slices along two
#   random directions out of millions. These are views of one thing rather than rivals, and none is the whole of it.
# - **Ensemble or refinement.** Greff et al. (2017) and Jastrzębski et al. (2018) read a residual network as one that
#   improves one estimate step by step, and show that blocks of a stage can be exchanged at little cost.
# - **Whether norms are needed with it.** Fixup (Zhang, Dauphin and Ma, 2019) and SkipInit (De and Smith, 2020) train
#   very deep ones without, by branches that start at or near 0; you did too. Norms help with other things.
#
# You can now
#
# - write a block forwards and backwards, with identity, projection and concatenation, and say where its relus belong;
# - say what a skip does to stream and gradient at depth, and why it needs small branches;
# - tell a failure of optimisation from overfitting by looking at the training loss;
# - test what a block is for, by taking it away.
#
# To read:
#
# - K. He, X. Zhang, S. Ren and J. Sun, *Deep residual learning for image recognition*, 2015. Section 4.2 on the plain
#   networks is the part to read.
# - K. He, X. Zhang, S. Ren and J. Sun, *Identity mappings in deep residual networks*, 2016. Pre-activation, and why.
# - A. Veit, M. Wilber and S. Belongie, *Residual networks behave like ensembles of relatively shallow networks*, 2016.
# - G. Huang, Z. Liu, L. van der Maaten and K. Weinberger, *Densely connected convolutional networks*, 2017.
# - S. De and S. Smith, *Batch normalization biases residual blocks towards the identity function in deep networks*,
#   2020.
