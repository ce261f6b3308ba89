# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · Convolution
#
# A dense layer that looks at a picture has a weight of its own for every pixel. It does not know that two pixels are
# neighbours, and what it learns about an edge in one corner it has to learn again for every other corner. A
# **convolution** is built on two guesses about pictures. What matters is *local*: each output looks at a small window.
# And what matters here matters there: every window meets the *same* few weights, a **kernel**.
#
# You will build it three times: by loops, which say what it is; by columns, which turn it into one matrix product; and
# fast enough to stand beside PyTorch's own. Then a layer of your making is asked to find strokes in places where it has
# never seen one.
#
# **You need** lessons 01 (dense layers, `numerical_gradient`), 03 (cross-entropy), 04 (layers with `forward` and
# `backward`) and 06 (momentum).
# **Time:** about four and a half hours, three and a half of them for the exercises.

# %% setup=true
import time

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import convolve2d
from threadpoolctl import threadpool_limits
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets
from course.data.strokes import DIRECTIONS, strokes
from course.widgets import picture

# %%
x, w = widgets.convolution.image("digit 3")[:, 1:7], widgets.convolution.KERNELS["vertical edges"]
y = reference("conv2d_forward")(x[None, None], w[None, None], np.zeros(1))[0, 0]
plots.show(
    picture.row(
        picture.heat(x, "picture", vmax=9, role="input", mark=[(r, c) for r in (1, 2, 3) for c in (2, 3, 4)]),
        picture.operator("∗"),
        picture.heat(w, "kernel", vmax=2, role="parameter"),
        picture.operator("="),
        picture.heat(y, "feature map", vmax=36, role="output", mark=[(1, 2)]),
    ),
    alt="A digit of 8 × 6 numbers, a kernel of 3 × 3, and 6 × 4 results. A window of the digit and the result that "
    "belongs to it are outlined.",
    caption="Lay the kernel on the outlined window, multiply cell by cell, add up: 15, outlined on the right. Then "
    "move on. Where the digit's brightness grows from left to right the results are orange, where it falls, purple.",
)

# %% [markdown]
# ## Play first
#
# One question before anything moves:

# %%
widgets.convolution.guess_shift(reference)

# %% [markdown]
# Now everything is in your hands: the picture, the kernel, its nine numbers (choose a `tap`, then add to it), and how
# it moves. For now PyTorch computes; further down this is your own function. **Point at an output, or reach it with
# Tab**, to see the window it looks at, its products, and their sum. Before you move, say what you expect:
#
# 1. `identity`, then add −1 to tap 3, the one on the left of the middle. What does this kernel answer? Turn it.
# 2. `blur` with padding 1: what happens at the border, and why there?
# 3. Stride 2, then 3. Which pixels does the last window leave out?
# 4. Dilation 2, then 3: which cells does a window take? Go on until there is no output.
# 5. Channels: two pictures, each in a group of its own, then both in one group. What does an output see? Then three in
#    two groups.

# %%
widgets.convolution.explorer(reference("conv2d_forward"), reference("conv2d_forward"))

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - The difference between a pixel and its left neighbour. Turned by a quarter it looks at the pixel below, turned by
#   half at the one on the right: a kernel looks in a direction.
# - It gets darker: a corner window holds four pixels and five zeros of padding. The border is a place of its own.
# - With stride 2, eight pixels hold three windows of three, and one row and one column are never looked at. With stride
#   3, two windows, and two of each.
# - Taps dilation cells apart. At dilation 4 the kernel spans nine cells, one more than there are.
# - With two groups, output 0 sees picture 0 only, output 1 picture 1 only. In one group, each output adds up products
#   from both pictures. Three channels can't be shared out evenly to two groups.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | | shape | |
# |---|---|---|
# | input `x` | `(n, c, h, w)` | `n` pictures of `c` **channels** |
# | weights `w` | `(o, c / groups, kh, kw)` | `o` **kernels**, each with a slice for each channel it sees |
# | bias `b` | `(o,)` | one for each kernel |
# | output `y` | `(n, o, oh, ow)` | one **feature map** for each kernel |
#
# The four numbers that say how a kernel moves are each the same for rows and columns here: `stride` (how far from one
# window to the next), `padding` (rings of zeros around the picture), `dilation` (how far from one tap to the next) and
# `groups`.
#
# ### How many windows?
#
# A kernel of $k$ taps with dilation $d$ spans $d\,(k - 1) + 1$ cells: $k$ taps and $k - 1$ gaps of $d - 1$ cells. On a
# line of $s + 2p$ cells, its first cell can move over what is left, $s + 2p - d\,(k - 1) - 1$ steps of one cell. With
# stride $t$ there are $\lfloor\,\cdot / t\,\rfloor$ steps, and one more window than steps:
# $$\text{out} = \Big\lfloor \frac{s + 2p - d\,(k - 1) - 1}{t} \Big\rfloor + 1.$$
# The floor is where pixels get lost: what is left over at the right and at the bottom is looked at by nobody. If the
# numerator is negative, the kernel fits nowhere and there is no output.
#
# ### One output
#
# Number the taps $(u, v)$ from the kernel's upper left corner. For one group,
# $$y_{n,o,i,j} = b_o + \sum_{c}\sum_{u,v} w_{o,c,u,v}\; x_{n,\,c,\;i t + u d - p,\;j t + v d - p},$$
# with $x = 0$ where the indices point into the padding. In words: a window, a kernel, products, a sum, a bias. It is
# the dot product of lesson 01 between the window and the kernel, at every place anew.
#
# **Groups** cut the input channels into $g$ runs of $c/g$ neighbours and the kernels into $g$ runs of $o/g$; the
# kernels of a run see the channels of the run of the same number. With $g = 1$ everybody sees everything, with $g = c$
# every channel is on its own (*depthwise*, lesson 13).
#
# ### It is not the convolution of mathematics
#
# Mathematics' convolution turns the kernel by 180° first: $x_{i - u}$ where ours says $x_{i + u}$. What layers compute
# is called **cross-correlation**. The turn makes the operation commute, which signal processing needs; a layer *learns*
# its kernels and would learn them turned. Deep learning says convolution all the same. You will see the difference
# once, with SciPy, and it matters when you carry weights from one library to another.
#
# ### Two guesses, counted
#
# A convolution is a dense layer with most of its weights tied. Write the picture as one long row of pixels: below, the
# matrix that takes it to the flattened output. Its zeros are **locality**: the pixel is not in the window. Its stripes
# are **parameter sharing**: the same numbers in every row, each time moved on.

# %%
widgets.convolution.matrix(reference("conv2d_forward"), reference("conv2d_forward"))

# %% [markdown]
# What the two guesses save:

# %%
widgets.convolution.guess_parameters(reference)

# %% [markdown]
# ### Equivariance
#
# Moving the picture moves the feature map. For stride 1, a shift by $a$ rows, and away from the borders,
# $$\text{conv}(\text{shift}_a\, x)_i = b + \sum_u w_u\, x_{i - a + u} = \text{conv}(x)_{i - a}.$$
# That is all of the proof: $i$ stands in the sum only inside $x$'s index, and every place has the same $w$. Such an
# operation is **equivariant** under shifts. It has two limits, and both are in the formula. With stride $t$ the window
# of $y_i$ starts at $i t$: a shift by $a$ is a shift of $y$ by $a/t$, and if that is no whole number, the windows fall
# differently on the picture and see other things. And at the border the zeros do not move along.
#
# Move the digit; then make one thing worse at a time: a shift of 10 with padding 1; a stride of 2, with an even and an
# odd shift; a grey background with padding 1.

# %%
widgets.convolution.shifting(reference("conv2d_forward"))

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - Stride 1 without padding: the same, wherever the two can be compared. With padding 1 and a shift of 10 the digit
#   sticks out of the picture, and the windows at the border see zeros where the rest of it was.
# - Stride 2: the same for even shifts. For odd ones nearly every cell of the digit differs.
# - With a grey background the zeros of the padding are an edge, and that edge stays at the border when the picture
#   moves. Two columns differ: the one where the left edge has been shifted to, and the last, out of which the right
#   edge has been shifted.
#
# Equivariant does not mean **invariant**: the output moves, it does not stay. Invariance needs something that forgets
# the place, such as a mean over it, and lesson 10 is about that.
#
# </details>
#
# ### Backwards
#
# Let $dy$ arrive. Every output is a dot product plus a bias, so the gradients are those of lesson 01, collected from
# every place where something was used.
#
# **The bias** was added to every number of its channel: $db_o = \sum_{n,i,j} dy_{n,o,i,j}$.
#
# **The kernel** met every window. In the term of one output, the factor of $w_{o,c,u,v}$ is the pixel it met:
# $$dw_{o,c,u,v} = \sum_{n,i,j} dy_{n,o,i,j}\; x_{n,\,c,\;i t + u d - p,\;j t + v d - p}.$$
#
# **A pixel** was in several windows, at another tap each time, and in each kernel's. In one term its factor is the
# weight it met, so the gradient goes back the way the number came, with the same weight:
# $$dx_{n,c,r,s} = \sum_{o} \sum_{(i,j,u,v)\,:\; i t + u d - p = r,\; j t + v d - p = s} dy_{n,o,i,j}\; w_{o,c,u,v}.$$
#
# The condition under the sum looks worse than it is. Don't ask a pixel which windows it was in. Walk through the
# outputs as the forward pass did, and let each *add* $dy \cdot w$ to its window in $dx$. (For stride 1 the sum can be
# solved for $(i, j)$: with $r + p = i + u d$ it is $\sum_{u,v} dy_{r + p - u d,\,\dots}\, w_{u,v}$, and the minus sign
# before $u$ is the turned kernel. The gradient by the input is a convolution in the sense of mathematics.)
#
# The twin of the explorer: one kernel, one picture of 6 × 6, a `dy`. Point at an output to see where its gradient goes;
# then switch, and point at an input to see what arrives. Where does stride 2 leave inputs without any gradient? With a
# stride as large as the kernel, from how many outputs does an input hear?

# %%
widgets.convolution.gradients(reference("conv2d_backward"), reference("conv2d_backward"))

# %% [markdown]
# <details><summary>Where, and from how many</summary>
#
# With stride 2 two windows fit, over rows and columns 0 to 4: row 5 and column 5 are in no window and have a
# gradient of 0. So has a pixel which only ever met weights of 0, and there are such columns with `vertical edges`. With
# stride 3 the windows of a 3 × 3 kernel lie side by side: every input hears from one output at most.
#
# </details>
#
# ## From scratch
#
# First the size, then the layer by loops, forwards and backwards. Don't make them fast; make them plain. Then columns.

# %% [markdown] about="conv_output_size"
# ### How many windows
#
# `conv_output_size(size, kernel_size, stride=1, padding=0, dilation=1) -> size`: whole numbers, for one axis. If the
# kernel fits nowhere, raise a `ValueError` that says so: a layer that answers −1 or 0 rows makes trouble far from where
# the mistake is.
#
# By hand, 7 cells and 3 taps: 5 windows; with stride 2, starting at 0, 2 and 4: 3; with stride 3, at 0 and 3: 2, and
# the last cell is left over. With dilation 3 the three taps span 7 cells: 1 window. With dilation 4 they span 9: none.

# %%
out = reference("conv_output_size")
assert [out(7, 3), out(7, 3, stride=2), out(7, 3, stride=3), out(7, 3, dilation=3)] == [5, 3, 2, 1]


# %% exercise="conv_output_size"
def conv_output_size(size, kernel_size, stride=1, padding=0, dilation=1):
    """whole numbers -> how many windows there are along one axis; ValueError if none"""
    ### BEGIN SOLUTION
    span, room = dilation * (kernel_size - 1) + 1, size + 2 * padding
    if span > room:
        raise ValueError(f"a kernel that spans {span} cells does not fit into {room}")
    return (room - span) // stride + 1
    ### END SOLUTION


# %% check="conv_output_size"
check(conv_output_size)

# %% [markdown] about="conv2d_forward"
# ### Convolution by loops
#
# `conv2d_forward(x, w, b, stride=1, padding=0, dilation=1, groups=1) -> y`: `x (n, c, h, w)`, `w (o, c / groups, kh,
# kw)`, `b (o,)`, `y (n, o, oh, ow)`. Pictures and kernels need not be square. `groups` divides both c and o, and the
# kernel fits. (The last size of `x` is written w like the weights. In code give it another name: `n, c, h, w = x.shape`
# would overwrite them.)
#
# By hand, a 3 × 3 picture and a 2 × 2 kernel, with bias 10:
# $$\begin{pmatrix}1&2&0\\0&1&3\\2&0&1\end{pmatrix} \ast \begin{pmatrix}1&0\\-1&2\end{pmatrix}: \qquad
# y_{0,0} = 1\cdot1 + 2\cdot0 + 0\cdot(-1) + 1\cdot2 + 10 = 13,$$
# then $y_{0,1} = 2 + 0 - 1 + 6 + 10 = 17$, $y_{1,0} = 0 + 0 - 2 + 0 + 10 = 8$ and $y_{1,1} = 1 + 0 - 0 + 2 + 10 = 13$.
# With stride 2 and padding 1 there are four windows too, one at each corner: $y_{0,0} = 2\cdot1 + 10 = 12$, since three
# of its four taps lie in the padding.

# %%
small = np.array([[1.0, 2, 0], [0, 1, 3], [2, 0, 1]])[None, None]
taps, ten = np.array([[1.0, 0], [-1, 2]])[None, None], np.array([10.0])
np.testing.assert_allclose(reference("conv2d_forward")(small, taps, ten)[0, 0], [[13, 17], [8, 13]])
np.testing.assert_allclose(reference("conv2d_forward")(small, taps, ten, 2, 1)[0, 0], [[12, 8], [14, 13]])


# %% exercise="conv2d_forward"
def conv2d_forward(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """x (n, c, h, w), w (o, c / groups, kh, kw), b (o,) -> y (n, o, oh, ow)"""
    ### BEGIN SOLUTION
    (n, _, height, width), (o, i, kh, kw) = x.shape, w.shape
    oh = conv_output_size(height, kh, stride, padding, dilation)
    ow = conv_output_size(width, kw, stride, padding, dilation)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y = np.empty((n, o, oh, ow))
    for m, k, row, column in np.ndindex(y.shape):
        top, left, g = row * stride, column * stride, k // (o // groups)
        rows = slice(top, top + dilation * (kh - 1) + 1, dilation)
        columns = slice(left, left + dilation * (kw - 1) + 1, dilation)
        window = padded[m, g * i : (g + 1) * i, rows, columns]
        y[m, k, row, column] = (window * w[k]).sum() + b[k]
    return y
    ### END SOLUTION


# %% check="conv2d_forward"
check(conv2d_forward)

# %% [markdown]
# The explorer again, drawn by your function. Leave out something on purpose, the dilation say, run the cell, and move:
# cells that are wrong are outlined, with both values.

# %%
widgets.convolution.explorer(conv2d_forward, reference("conv2d_forward"), kernel="shift")

# %% [markdown] about="conv2d_backward"
# ### Convolution by loops, backwards
#
# `conv2d_backward(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1) -> dx, dw, db`: the shapes of `x`, `w` and
# `b`. The value of `b` is not needed; it is there because every backward pass here takes what its forward pass saw.
#
# By hand, picture and kernel from above and `dy = [[1, 0], [0, 2]]`. The first output sends 1 · kernel to the upper
# left window of `dx`, the last one 2 · kernel to the lower right:
# $$dx = \begin{pmatrix}1&0&0\\-1&2&0\\0&0&0\end{pmatrix} + \begin{pmatrix}0&0&0\\0&2&0\\0&-2&4\end{pmatrix} =
# \begin{pmatrix}1&0&0\\-1&4&0\\0&-2&4\end{pmatrix},$$
# $$dw =
# \begin{pmatrix}1&2\\0&1\end{pmatrix} + 2\begin{pmatrix}1&3\\0&1\end{pmatrix} = \begin{pmatrix}3&8\\0&3\end{pmatrix},$$
# and $db = 1 + 2 = 3$. The pixel in the middle was in both windows: 2 + 2.

# %%
arrives = np.array([[1.0, 0], [0, 2]])[None, None]
dx, dw, db = reference("conv2d_backward")(arrives, small, taps, ten)
np.testing.assert_allclose(dx[0, 0], [[1, 0, 0], [-1, 4, 0], [0, -2, 4]])
np.testing.assert_allclose([*dw.ravel(), *db], [3, 8, 0, 3, 3])


# %% exercise="conv2d_backward"
def conv2d_backward(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """dy (n, o, oh, ow), x (n, c, h, w), w (o, c / groups, kh, kw), b (o,) -> dx, dw, db: shapes of x, w, b"""
    ### BEGIN SOLUTION
    (_, _, height, width), (o, i, kh, kw) = x.shape, w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for m, k, row, column in np.ndindex(dy.shape):
        top, left, g = row * stride, column * stride, k // (o // groups)
        rows = slice(top, top + dilation * (kh - 1) + 1, dilation)
        columns = slice(left, left + dilation * (kw - 1) + 1, dilation)
        window = m, slice(g * i, (g + 1) * i), rows, columns
        dpadded[window] += dy[m, k, row, column] * w[k]
        dw[k] += dy[m, k, row, column] * padded[window]
    dx = dpadded[:, :, padding : padding + height, padding : padding + width]
    return dx, dw, dy.sum(axis=(0, 2, 3))
    ### END SOLUTION


# %% check="conv2d_backward"
check(conv2d_backward)

# %% [markdown]
# The twin, with your function:

# %%
widgets.convolution.gradients(conv2d_backward, reference("conv2d_backward"))

# %% [markdown]
# ### From windows to columns
#
# Loops in Python are slow because Python takes a step for every number. NumPy takes many numbers in one step if they
# are laid out as an array, and its fastest step is the matrix product. So lay the windows out: write each of them as a
# **column**, channel by channel, row by row. A kernel, written as a row in the same order, times a column is one
# output. All kernels as rows, times all columns, is the whole layer. This layout is called *im2col*, image to columns
# (Chellapilla, Puri and Simard, 2006).
#
# Point at a number on the right to see which window and which tap it is. A number that stands in several columns is a
# pixel in several windows.

# %%
widgets.convolution.columns(reference("im2col"), reference("im2col"))

# %% [markdown] about="im2col"
# ### Image to columns
#
# `im2col(x, kernel_size, stride=1, padding=0, dilation=1) -> columns`: `x (n, c, h, w)`, `kernel_size` the pair `(kh,
# kw)`, `columns (n, c · kh · kw, oh · ow)`. Within a column: channel by channel, in each the kernel's rows, in each row
# its columns. The windows: row by row. This is what `F.unfold` gives.
#
# By hand, the picture from above and 2 × 2 windows:
# $$\begin{pmatrix}1&2&0\\0&1&3\\2&0&1\end{pmatrix} \;\to\;
# \begin{pmatrix}1&2&0&1\\2&0&1&3\\0&1&2&0\\1&3&0&1\end{pmatrix},$$
# the first column is the upper left window, the second the one on its right. And (1, 0, −1, 2) times this matrix is (3,
# 7, −2, 3): `y` from above without its bias.
#
# The next exercise but one wants no loop over windows. Write this one without it at once: loop over the `kh · kw` taps,
# and take each tap's cells, of all windows, by one slice with a step.

# %%
np.testing.assert_allclose(
    reference("im2col")(small, (2, 2))[0], [[1, 2, 0, 1], [2, 0, 1, 3], [0, 1, 2, 0], [1, 3, 0, 1]]
)


# %% exercise="im2col"
def im2col(x, kernel_size, stride=1, padding=0, dilation=1):
    """x (n, c, h, w), kernel_size (kh, kw) -> columns (n, c * kh * kw, oh * ow)"""
    ### BEGIN SOLUTION
    (n, c, height, width), (kh, kw) = x.shape, kernel_size
    oh = conv_output_size(height, kh, stride, padding, dilation)
    ow = conv_output_size(width, kw, stride, padding, dilation)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    columns = np.empty((n, c, kh, kw, oh, ow), x.dtype)
    for u, v in np.ndindex(kh, kw):
        top, left = u * dilation, v * dilation
        columns[:, :, u, v] = padded[:, :, top : top + stride * oh : stride, left : left + stride * ow : stride]
    return columns.reshape(n, c * kh * kw, oh * ow)
    ### END SOLUTION


# %% check="im2col"
check(im2col)

# %% [markdown] about="col2im"
# ### Columns to image
#
# `col2im(columns, size, kernel_size, stride=1, padding=0, dilation=1) -> x`: `columns (n, c · kh · kw, oh · ow)`,
# `size` the pair `(h, w)`, `x (n, c, h, w)`. Every number goes back to the cell it would have come from, and where
# several arrive, they are **added**. So it is not the inverse of `im2col`: it is its *gradient*. `im2col` copies a
# pixel into several columns, and the gradient of a copy is the sum of what comes back. (`F.fold`.)
#
# By hand, 2 × 2 windows of a 3 × 3 picture, all numbers of the columns 1: each pixel gets 1 from each window it lies
# in,
# $$\begin{pmatrix}1&2&1\\2&4&2\\1&2&1\end{pmatrix}.$$

# %%
counts = reference("col2im")(np.ones((1, 4, 4)), (3, 3), (2, 2))
np.testing.assert_allclose(counts[0, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


# %% exercise="col2im"
def col2im(columns, size, kernel_size, stride=1, padding=0, dilation=1):
    """columns (n, c * kh * kw, oh * ow), size (h, w), kernel_size (kh, kw) -> x (n, c, h, w)"""
    ### BEGIN SOLUTION
    (height, width), (kh, kw) = size, kernel_size
    oh = conv_output_size(height, kh, stride, padding, dilation)
    ow = conv_output_size(width, kw, stride, padding, dilation)
    taps = columns.reshape(len(columns), -1, kh, kw, oh, ow)
    padded = np.zeros((*taps.shape[:2], height + 2 * padding, width + 2 * padding), columns.dtype)
    for u, v in np.ndindex(kh, kw):
        top, left = u * dilation, v * dilation
        padded[:, :, top : top + stride * oh : stride, left : left + stride * ow : stride] += taps[:, :, u, v]
    return padded[:, :, padding : padding + height, padding : padding + width]
    ### END SOLUTION


# %% check="col2im"
check(col2im)

# %% [markdown] about="conv2d_forward_fast"
# ### Fast
#
# `conv2d_forward_fast(x, w, b, stride=1, padding=0, dilation=1, groups=1) -> y`: the same numbers as `conv2d_forward`,
# by matrix products. What counts as fast here is checked without a clock: the check counts the lines that Python
# executes, in your function and in those that it calls, for a small picture and for a larger one. The count must not
# grow. Loops over the kernel's taps, over groups or over the pictures of the batch are fine; a loop over pixels or rows
# is not, wherever it stands.
#
# The matrix product with groups: `@` multiplies the last two axes and lets those before them broadcast, as `+` would.
# So `(groups, o // groups, q) @ (n, groups, q, l)` gives `(n, groups, o // groups, l)`, with q = i · kh · kw.
#
# By hand: above, (1, 0, −1, 2) times the columns gave (3, 7, −2, 3). Plus 10, as 2 × 2: [[13, 17], [8, 13]].


# %% exercise="conv2d_forward_fast"
def conv2d_forward_fast(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """x (n, c, h, w), w (o, c / groups, kh, kw), b (o,) -> y (n, o, oh, ow)"""
    ### BEGIN SOLUTION
    (n, c, height, width), (o, i, kh, kw) = x.shape, w.shape
    oh = conv_output_size(height, kh, stride, padding, dilation)
    ow = conv_output_size(width, kw, stride, padding, dilation)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    columns = np.empty((c, kh, kw, oh, ow), x.dtype)
    y = np.empty((n, groups, o // groups, oh * ow), x.dtype)
    kernels = w.reshape(groups, o // groups, i * kh * kw)
    for image, feature_maps in zip(padded, y, strict=True):  # one by one: the columns stay in the cache
        for u, v in np.ndindex(kh, kw):
            top, left = u * dilation, v * dilation
            columns[:, u, v] = image[:, top : top + stride * oh : stride, left : left + stride * ow : stride]
        np.matmul(kernels, columns.reshape(groups, i * kh * kw, -1), out=feature_maps)
    y += b.reshape(groups, -1, 1)
    return y.reshape(n, o, oh, ow)
    ### END SOLUTION


# %% check="conv2d_forward_fast"
check(conv2d_forward_fast)

# %% [markdown]
# ### What makes it fast
#
# Now with a clock: 16 pictures of 16 channels, 32 × 32, through 32 kernels of 3 × 3, in float32, on one thread for
# NumPy and for PyTorch. That is 75 million products and sums, whichever way they are done. Six ways; these are new:


# %%
def einsum_of_windows(x, w, b):
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), w.shape[2:], axis=(2, 3))
    return np.einsum("ncijuv,ocuv->noij", windows, w) + b[:, None, None]


def product_per_tap(x, w, b):
    (n, c, height, width), padded = x.shape, np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((n, len(w), height * width), x.dtype)
    for u, v in np.ndindex(3, 3):
        y += w[:, :, u, v] @ padded[:, :, u : u + height, v : v + width].reshape(n, c, -1)
    return y.reshape(n, -1, height, width) + b[:, None, None]


def all_columns_at_once(x, w, b):
    y = w.reshape(len(w), -1) @ im2col(x, (3, 3), 1, 1)
    return y.reshape(len(x), len(w), *x.shape[2:]) + b[:, None, None]


# %%
def seconds(run, times=9):
    """Of this thread, the quickest of several runs: what else the machine does is not the function's."""
    spent = []
    for _ in range(times):
        start = time.thread_time()
        run()
        spent.append(time.thread_time() - start)
    return min(spent)


rng = np.random.default_rng(0)
x, w, b = (rng.normal(size=size).astype(np.float32) for size in ((16, 16, 32, 32), (32, 16, 3, 3), (32,)))
tensors = [torch.from_numpy(array) for array in (x, w, b)]

# %%
torch.set_num_threads(1)
with threadpool_limits(1):
    spent = {
        "loops": 16 * seconds(lambda: conv2d_forward(x[:1], w, b, 1, 1), 1),
        "einsum over windows": seconds(lambda: einsum_of_windows(x, w, b), 2),
        "a product for each tap": seconds(lambda: product_per_tap(x, w, b)),
        "all columns at once": seconds(lambda: all_columns_at_once(x, w, b)),
        "conv2d_forward_fast": seconds(lambda: conv2d_forward_fast(x, w, b, 1, 1)),
        "PyTorch": seconds(lambda: F.conv2d(*tensors, padding=1)),
    }
products = 16 * 32 * 32 * 32 * 16 * 9
for way, took in spent.items():
    speed, ratio = products / took / 1e9, took / spent["PyTorch"]
    print(f"{way:<24}{1000 * took:9.1f} ms {speed:8.2f} billion products a second {ratio:9.1f} × PyTorch")

# %% [markdown]
# (The clock's answers differ from machine to machine and from run to run; the first line is one picture's time, sixteen
# times.) What the steps show:
#
# - **Loops**: 524,288 turns of some microseconds. In each, NumPy is called for 144 products, which take it a small part
#   of that; the rest is Python finding out what to do.
# - **einsum** has no Python loop left, and is still dozens of times slower than a matrix product. Its windows are a
#   *view*: an array whose strides jump about in the memory of x, nothing copied. NumPy's einsum walks through them with
#   a plain loop in C, one product after the other, and does so for every kernel anew. (With `optimize=True` it finds
#   out by itself that this is a matrix product, copies the windows and hands them on. Then it is fast, for the next
#   reason.)
# - **A product for each tap** hands the work to a BLAS library. That cuts both matrices into blocks which stay in the
#   processor's cache while each number is used many times, and does 8 or 16 products in one instruction. But it copies
#   nine slices, and goes over all of y nine times to add.
# - **All columns at once** writes y once. The longer the rows of the product, the better BLAS does. But every pixel is
#   copied nine times: 1 MB of pictures becomes 9 MB of columns, more than fits in a core's cache, so that they go out
#   to memory and come back; and memory that is new has first to be given and cleared by the operating system.
# - **conv2d_forward_fast** as it stands in the solution does the same picture by picture. The columns of one picture
#   are 0.6 MB: they are read again while they are still in the cache, and their memory is used sixteen times over. A
#   Python loop of sixteen turns costs no more than that saves. (If yours takes the whole batch at once, it is as fast
#   as the line above, and that is fast enough.)
# - **PyTorch** calls a library that never writes the columns out; it gathers them block by block, as it needs them.
#
# So speed came from the layout in memory. The number of products was the same in all six.
#
# The backward pass is two matrix products and a `col2im`. With `y = w @ columns` lesson 01 says `dw = dy @ columns.T`,
# summed over the pictures, and `dcolumns = w.T @ dy`; then `dx = col2im(dcolumns, …)`. The layer further down is
# written so. Lessons 10 to 12 train with the `conv2d_backward` that passed its check here, and lesson 14 proves
# something by it; if yours has loops over pixels, it will do, slowly: in lesson 11 minutes in place of seconds. Writing
# it anew by columns pays, and checking it again is enough: your latest version is kept.

# %% [markdown]
# ## Against a reference
#
# Three witnesses for each gradient: your formula, finite differences (your `numerical_gradient`), PyTorch. Stride 2,
# padding 1, dilation 2 and two groups at once, a picture of 6 × 7 and a kernel of 3 × 2.

# %%
numerical_gradient = mine("numerical_gradient")
rng, how = np.random.default_rng(9), (2, 1, 2, 2)
x, w, b = rng.normal(size=(2, 4, 6, 7)), rng.normal(size=(4, 2, 3, 2)), rng.normal(size=4)
dy = rng.normal(size=conv2d_forward_fast(x, w, b, *how).shape)
found = {}
pairs = zip(*(f(dy, x, w, b, *how) for f in (conv2d_backward, reference("conv2d_backward"))), strict=True)
for k, (yours, torch_) in enumerate(pairs):

    def loss(value, k=k):
        given = [value if place == k else array for place, array in enumerate((x, w, b))]
        return (dy * conv2d_forward_fast(*given, *how)).sum()

    found[f"d{'xwb'[k]}"] = yours, numerical_gradient(loss, (x, w, b)[k]), torch_
plots.gradient_check(found)

# %% [markdown]
# And the claims of the mathematics, each by an experiment with your own functions. `col2im` is the gradient of `im2col`
# if $\langle a, \text{im2col}(x)\rangle = \langle \text{col2im}(a), x\rangle$ for all $a$ and $x$: both sides are the
# scalar whose gradient by $x$ it should be.

# %% tags=["nbval-check-output"]
image, kernel, zero = rng.normal(size=(1, 1, 9, 9)), rng.normal(size=(1, 1, 3, 3)), np.zeros(1)
columns = im2col(image, (3, 3), 2, 1)
weights = rng.normal(size=columns.shape)
square = widgets.convolution.as_matrix(conv2d_forward_fast, kernel[0, 0], 9)
up = rng.normal(size=(1, 1, 7, 7))
dx = conv2d_backward(up, image, kernel, zero)[0]
facts = {
    "loops and columns agree": tuple(f(image, kernel, zero, 2, 1) for f in (conv2d_forward, conv2d_forward_fast)),
    "col2im is the gradient of im2col": (
        (weights * columns).sum(),
        (col2im(weights, (9, 9), (3, 3), 2, 1) * image).sum(),
    ),
    "the layer is its matrix": (conv2d_forward_fast(image, kernel, zero).ravel(), square @ image.ravel()),
    "dx is the matrix's transpose times dy": (dx.ravel(), square.T @ up.ravel()),
    "SciPy's convolution is ours with the kernel turned": (
        convolve2d(image[0, 0], kernel[0, 0], mode="valid"),
        conv2d_forward_fast(image, kernel[:, :, ::-1, ::-1], zero)[0, 0],
    ),
    "dx is SciPy's convolution of dy, kernel as it is": (dx[0, 0], convolve2d(up[0, 0], kernel[0, 0])),
}
for fact, (left, right) in facts.items():
    print("right" if np.allclose(left, right) else "WRONG", "·", fact)

# %% [markdown]
# What a check says of a classic, windows that overwrite each other in `dx`:


# %% tags=["nbval-check-output"]
def overwriting(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
    _, dw, db = conv2d_backward(dy, x, w, b, stride, padding, dilation, groups)
    (height, width), (kh, kw) = x.shape[2:], w.shape[2:]
    around = np.zeros((*x.shape[:2], height + 2 * padding, width + 2 * padding))
    for u, v in np.ndindex(kh, kw):
        rows = slice(u * dilation, u * dilation + stride * dy.shape[2], stride)
        columns = slice(v * dilation, v * dilation + stride * dy.shape[3], stride)
        parts = zip(np.split(dy, groups, axis=1), np.split(w[..., u, v], groups), strict=True)
        around[:, :, rows, columns] = np.concatenate([np.einsum("nkij,kc->ncij", d, k) for d, k in parts], axis=1)
    return around[:, :, padding : padding + height, padding : padding + width], dw, db


print(examine(overwriting, "conv2d_backward").mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `conv2d_forward` | `F.conv2d`, `nn.Conv2d` | all four numbers may be pairs, one for rows and one for columns |
# | `im2col`, `col2im` | `F.unfold`, `F.fold` | `fold` adds; it is not the inverse |
# | padding by zeros | `padding="same"`, `padding_mode="reflect"`, … | `"same"` keeps the size and refuses a stride |
# | `conv_output_size` | a `RuntimeError` in words | it names the sizes *with* padding |
#
# `nn.Conv2d` draws its weights and biases uniformly from $\pm 1 / \sqrt{\text{fan in}}$, where the fan in is the number
# of weights in one kernel, $c/g \cdot k_h k_w$ (lesson 05 says why this is small for ReLU). Some facts:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
layer = nn.Conv2d(8, 64, (3, 5), groups=2)
print({name: tuple(value.shape) for name, value in layer.state_dict().items()})
bound = 1 / np.sqrt(8 / 2 * 3 * 5)
print(f"largest weight {layer.weight.abs().max():.4f}, largest bias {layer.bias.abs().max():.4f}, bound {bound:.4f}")
print("same:", tuple(nn.Conv2d(1, 1, 5, padding="same")(torch.zeros(1, 1, 9, 9)).shape[2:]))
try:
    nn.Conv2d(1, 1, 5, dilation=3)(torch.zeros(1, 1, 9, 9))
except RuntimeError as error:
    print(error)

# %% [markdown] about="Conv2d"
# ### Convolution as a module
#
# Re-create `nn.Conv2d` with its arguments `in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1,
# groups=1, bias=True` and its parameters `weight (out_channels, in_channels / groups, kh, kw)` and `bias
# (out_channels,)`. `kernel_size` is a number or a pair; the others are numbers. With `bias=False` there is no parameter
# `bias`. How the weights start is up to you, and the check puts in its own. (For training they must be random: lesson
# 05.)
#
# `F.conv2d` is what you re-create and is refused; `F.unfold` and `@` do it, and autograd does the backward pass.
#
# By hand: with the weights (1, 0, −1, 2) and the bias 10 from above, the 3 × 3 picture becomes [[13, 17], [8, 13]].


# %% exercise="Conv2d"
class Conv2d(nn.Module):
    """x (n, in_channels, h, w) -> y (n, out_channels, oh, ow)

    Two methods: __init__ makes weight and bias, forward(self, x) convolves.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        ### BEGIN SOLUTION
        kh, kw = (int(k) for k in np.broadcast_to(kernel_size, 2))
        bound = 1 / np.sqrt(in_channels // groups * kh * kw)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kh, kw).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x):
        n, (o, i, kh, kw), groups = len(x), self.weight.shape, self.groups
        columns = F.unfold(x, (kh, kw), self.dilation, self.padding, self.stride)
        y = self.weight.reshape(groups, o // groups, -1) @ columns.reshape(n, groups, i * kh * kw, -1)
        oh = conv_output_size(x.shape[2], kh, self.stride, self.padding, self.dilation)
        y = y.reshape(n, o, oh, -1)
        return y if self.bias is None else y + self.bias[:, None, None]
        ### END SOLUTION

# %% check="Conv2d"
check(Conv2d)

# %% tags=["nbval-check-output"]
own = Conv2d(4, 6, (2, 3), stride=2, padding=2, dilation=2, groups=2).double()
built_in = nn.Conv2d(4, 6, (2, 3), stride=2, padding=2, dilation=2, groups=2).double()
own.load_state_dict(built_in.state_dict())
batch = torch.randn(2, 4, 6, 7, dtype=torch.float64, requires_grad=True)
print("equal:", torch.allclose(own(batch), built_in(batch)), " gradcheck:", torch.autograd.gradcheck(own, batch))

# %% [markdown]
# ## At work
#
# Your functions behind the layer protocol of lesson 04: forward by `im2col` and a matrix product, backward by two more
# and `col2im`. The forward pass keeps its columns, since `dw` needs them.


# %%
class ConvLayer:
    """Stride 1, one group."""

    def __init__(self, w, b, padding):
        self.w, self.b, self.padding = w, b, padding

    def forward(self, x):
        self.size, self.columns = x.shape[2:], im2col(x, self.w.shape[2:], 1, self.padding)
        oh = conv_output_size(x.shape[2], self.w.shape[2], 1, self.padding)
        y = self.w.reshape(len(self.w), -1) @ self.columns
        return y.reshape(len(x), len(self.w), oh, -1) + self.b[:, None, None]

    def backward(self, dy):
        up = dy.reshape(*dy.shape[:2], -1)
        self.dw = np.einsum("nol,nql->oq", up, self.columns, optimize=True).reshape(self.w.shape)
        self.db = dy.sum(axis=(0, 2, 3))
        return col2im(self.w.reshape(len(self.w), -1).T @ up, self.size, self.w.shape[2:], 1, self.padding)

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]


# %% [markdown]
# Two layers without parameters: one makes rows of the feature maps, for a dense layer; the other takes the mean of each
# feature map, which forgets *where* and keeps *how much*.


# %%
class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self.shape)

    def parameters(self):
        return []

    gradients = parameters


class Mean(Flatten):
    def forward(self, x):
        self.shape = x.shape
        return x.mean(axis=(2, 3))

    def backward(self, dy):
        return np.broadcast_to(dy[:, :, None, None] / np.prod(self.shape[2:]), self.shape)


# %%
Sequential, LinearLayer, ReLULayer = mine("Sequential"), mine("LinearLayer"), mine("ReLULayer")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
momentum_step = mine("momentum_step")


def he(rng, *shape):
    """Weights as lesson 05 draws them for ReLU."""
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


# %%
def train(model, x, t, rng, epochs, lr, batch=32):
    """Momentum; yields the loss of each epoch."""
    velocities = [np.zeros_like(param) for param in model.parameters()]
    for _ in range(epochs):
        losses = []
        for k in np.array_split(rng.permutation(len(x)), len(x) // batch):
            logits = model.forward(x[k])
            losses.append(cross_entropy_forward(logits, t[k]))
            model.backward(cross_entropy_backward(1.0, logits, t[k]))
            for n, (param, grad) in enumerate(zip(model.parameters(), model.gradients(), strict=True)):
                param[:], velocities[n] = momentum_step(param, grad, velocities[n], lr)
        yield np.mean(losses)


def accuracy(model, x, t):
    return (model.forward(x).argmax(axis=1) == t).mean()


# %% [markdown]
# ### Digits
#
# A convolution with 8 kernels of 3 × 3, ReLU, and a dense layer on its 8 × 6 × 6 numbers: 2,970 parameters. Beside it a
# dense network with nearly as many: 64, 39 and 10 units, 2,935. And a control: the same two networks on digits whose
# pixels have been shuffled, all pictures in the same way. A dense layer can't notice. A convolution now sees windows of
# pixels that have nothing to do with each other. How much will it lose?

# %%
digits, shuffled = data.digits(), np.random.default_rng(0).permutation(64)


def conv_digits(rng):
    return [ConvLayer(he(rng, 8, 1, 3, 3), np.zeros(8), 0), ReLULayer(), Flatten(),
            LinearLayer(he(rng, 10, 288), np.zeros(10))]  # fmt: skip


def dense_digits(rng):
    return [Flatten(), LinearLayer(he(rng, 39, 64), np.zeros(39)), ReLULayer(),
            LinearLayer(he(rng, 10, 39), np.zeros(10))]  # fmt: skip


def score(build, order, seed, epochs):
    rng = np.random.default_rng(seed)
    seen, unseen = (part[:, order].reshape(-1, 1, 8, 8) for part in (digits.x_train, digits.x_test))
    model = Sequential(build(rng))
    for _ in train(model, seen, digits.y_train, rng, epochs, lr=0.1, batch=64):
        pass
    return accuracy(model, unseen, digits.y_test)


# %% tags=["nbval-check-output"]
epochs, seeds = (1, 1) if plots.fast() else (8, 3)
for name, build in {"convolution": conv_digits, "dense": dense_digits}.items():
    size = sum(param.size for param in Sequential(build(np.random.default_rng(0))).parameters())
    print(f"{name}, {size:,} parameters")
    for what, order in {"digits": np.arange(64), "shuffled": shuffled}.items():
        runs = [score(build, order, seed, epochs) for seed in range(seeds)]
        print(f"    {what:<10} test accuracy {np.mean(runs):.3f}  (from {min(runs):.3f} to {max(runs):.3f})")

# %% [markdown]
# An honest answer: next to nothing. The four lines lie within one point of each other, and the seeds differ by as much.
# The digits are small and centred, the dense layer on top has a weight for every place of every feature map, and can
# make sense of any 8 fixed mixtures of 9 pixels. Locality alone is no magic. What a convolution is *for* shows where
# things move.
#
# ### Strokes
#
# The second data set is generated, so that the truth is known: 12 × 12 pixels of noise with one stroke of four pixels,
# and the question which way it lies. In training every stroke is in the **left** half. Then the test asks for strokes
# in the left half, and in the right.

# %%
rng = np.random.default_rng(3)
x, t = strokes(12, rng, "left")
signs = list(DIRECTIONS)
plots.show(
    picture.row(
        *(
            picture.piece(picture.img(x[k, 0], f"a stroke {signs[t[k]]}", "ink", -0.5, 1.5, 110), signs[t[k]], "input")
            for k in range(6)
        )
    ),
    alt="Six pictures of noise with a short stroke each, all in the left half.",
    caption="Six training examples and their classes.",
)

# %% [markdown]
# The convolutional network: 8 kernels of 5 × 5, ReLU, the mean of each feature map, and a dense layer from these 8
# numbers to 4 classes. It has 244 parameters. (The means are small numbers, as most places hold no stroke; a factor of
# ten in front of the dense layer lets it learn at the same rate as the rest.) The dense network has 32 hidden units and
# 4,772 parameters.


# %%
class Tenfold(Mean):
    def forward(self, x):
        return 10 * super().forward(x)

    def backward(self, dy):
        return 10 * super().backward(dy)


def conv_strokes(rng):
    return [ConvLayer(he(rng, 8, 1, 5, 5), np.zeros(8), 2), ReLULayer(), Tenfold(),
            LinearLayer(he(rng, 4, 8), np.zeros(4))]  # fmt: skip


def dense_strokes(rng):
    return [Flatten(), LinearLayer(he(rng, 32, 144), np.zeros(32)), ReLULayer(),
            LinearLayer(he(rng, 4, 32), np.zeros(4))]  # fmt: skip


# %% [markdown]
# One run of the convolutional network as it happens, with a copy of its parameters now and then, for later. Then
# three seeds of both.

# %%
epochs, rng, moments = 2 if plots.fast() else 20, np.random.default_rng(0), []
seen, tests = strokes(400, rng, "left"), [strokes(500, rng, half) for half in ("left", "right")]
model = Sequential(conv_strokes(rng))
with plots.Training(epochs, "train loss", "left accuracy", "right accuracy") as run:
    for epoch, loss in enumerate(train(model, *seen, rng, epochs, 0.05)):
        run.log(loss, *(accuracy(model, *test) for test in tests))
        if epoch in (0, 1, 2, 4, 7, 11, epochs - 1):
            moments.append((epoch + 1, *(param.copy() for param in model.parameters()[:3])))

# %%
results = {}
for seed in range(1 if plots.fast() else 3):
    for name, build in (("convolution", conv_strokes), ("dense", dense_strokes)):
        rng = np.random.default_rng(seed)
        seen, tests = strokes(400, rng, "left"), [strokes(500, rng, half) for half in ("left", "right")]
        fresh = Sequential(build(rng))
        for _ in train(fresh, *seen, rng, epochs, 0.05):
            pass
        results.setdefault(name, []).append([accuracy(fresh, *part) for part in (seen, *tests)])

# %% tags=["nbval-check-output"]
for name, runs in results.items():
    runs = np.array(runs)
    told = zip(("training", "left", "right"), runs.mean(0), runs.min(0), runs.max(0), strict=True)
    print(f"{name:<12}" + "   ".join(f"{what} {mean:.3f} ({low:.3f} to {high:.3f})" for what, mean, low, high in told))

# %% [markdown]
# The dense network learns its 400 pictures by heart, is right on about half of the new ones in the half that it knows,
# and in the other half it guesses among four: a pixel there has weights that no stroke has ever reached. The
# convolution does on the right nearly what it does on the left, with a twentieth of the parameters. It has never seen a
# stroke there and need not: *what is learned about one window is learned about all*. That is what parameter sharing
# buys, and why the guess "what matters here matters there" pays where it is true.
#
# ## Look inside
#
# What have eight kernels learned from 400 pictures? Walk through the training, from kernel to kernel, and through the
# four strokes. The feature map is drawn by your `conv2d_forward_fast`; on its right stand the kernel's weights in the
# dense layer, one for each class. Which kernels speak for one direction, which for two, and which for none?

# %%
steps, *learned = (np.array(values) for values in zip(*moments, strict=True))
rng, examples = np.random.default_rng(5), []
for direction in range(4):
    x, t = strokes(40, rng)
    examples.append(x[t == direction][0])
widgets.convolution.learned(conv2d_forward_fast, steps.tolist(), *learned, np.array(examples), signs)

# %% [markdown]
# Which kernel answers which stroke? For 200 new strokes of each direction, anywhere in the picture: the mean of each
# feature map, times ten, as the dense layer gets it.

# %%
rng = np.random.default_rng(6)
x, t = strokes(800, rng)
w, b, v, _ = model.parameters()
maps = 10 * np.maximum(conv2d_forward_fast(x, w, b, 1, 2), 0).mean(axis=(2, 3))
answers = np.array([maps[t == direction].mean(axis=0) for direction in range(4)]).T
labels = [f"kernel {k}" for k in range(8)]
plots.show(
    picture.row(
        picture.heat(answers, "mean answer", palette="magnitude", rows=labels, columns=signs, role="output"),
        picture.heat(v.T, "weights in the dense layer", rows=labels, columns=signs, role="parameter"),
    ),
    alt="Two tables of 8 kernels by 4 directions: how strongly each kernel answers, and for which class it counts.",
    caption="Left, how strongly each kernel answers each stroke; right, for which class its answer counts.",
)

# %% [markdown]
# Read the rows. Kernel 6 answers `—` most, and looks like one: a bright line, dark above. Kernel 5 does the same with
# less conviction, and kernel 3 is for `/`. Kernel 1 answers `\` and `|`, kernel 7 both diagonals, and the dense layer
# puts the answers together: 1 and 7 make a `\`, 1 without 7 a `|`, 7 without much of 1 a `/`. Kernels 0 and 2 answer
# nothing at all (dead units, lesson 02), kernel 4 hardly. So "one kernel, one feature" is half of the truth. The loss
# asks for right classes, not for tidy kernels.
#
# Nobody told them about lines. Kernels like these stand in the first layer of nearly every network trained on
# photographs (Krizhevsky, Sutskever and Hinton, 2012, show 96 of them), and cells that answer lines of one direction in
# one small part of the picture are what Hubel and Wiesel (1962) found in the visual cortex of cats.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# A broken layer and two numbers.

# %% [markdown] about="repair_conv2d_forward"
# ### Repair: right for one picture and one channel
#
# `repair_conv2d_forward(x, w, b, stride=1, padding=0) -> y`: a convolution by one matrix product, without dilation and
# groups. Its author tried it on one grey picture, where it is right, and went on. With several channels, or with
# several pictures, the shape is right and the numbers are wrong. There are two faults.


# %% exercise="repair_conv2d_forward"
def repair_conv2d_forward(x, w, b, stride=1, padding=0):
    """x (n, c, h, w), w (o, c, kh, kw), b (o,) -> y (n, o, oh, ow)"""
    ### BEGIN SOLUTION
    (n, c, height, width), (o, _, kh, kw) = x.shape, w.shape
    oh, ow = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    around = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2)).swapaxes(0, 1)
    columns = np.empty((c, kh, kw, n, oh, ow))
    for u, v in np.ndindex(kh, kw):
        columns[:, u, v] = around[:, :, u : u + stride * oh : stride, v : v + stride * ow : stride]
    y = w.reshape(o, -1) @ columns.reshape(c * kh * kw, n * oh * ow)
    return y.reshape(o, n, oh, ow).swapaxes(0, 1) + b[:, None, None]
    ### BROKEN
    # (n, c, height, width), (o, _, kh, kw) = x.shape, w.shape
    # oh, ow = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    # around = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2)).swapaxes(0, 1)
    # columns = np.empty((kh, kw, c, n, oh, ow))
    # for u, v in np.ndindex(kh, kw):
    #     columns[u, v] = around[:, :, u : u + stride * oh : stride, v : v + stride * ow : stride]
    # y = w.reshape(o, -1) @ columns.reshape(kh * kw * c, n * oh * ow)
    # return y.reshape(n, o, oh, ow) + b[:, None, None]
    ### END SOLUTION


# %% check="repair_conv2d_forward"
check(repair_conv2d_forward)

# %% [markdown] about="count_conv_parameters"
# ### Predict: how many parameters?
#
# `count_conv_parameters(in_channels, out_channels, kh, kw, groups, h, w) -> shared, dense`: a convolution with bias,
# stride 1 and no padding, on pictures of `h × w`; how many parameters has it, and how many a dense layer with bias
# between the same input and the same output, both flattened? Two whole numbers, from the sizes.
#
# By hand, one channel to two, 2 × 2 kernels, pictures of 3 × 3: 2 · 4 + 2 = 10. The dense layer goes from 9 numbers to
# 2 · 2 · 2 = 8: 9 · 8 + 8 = 80.

# %%
assert [int(count) for count in reference("count_conv_parameters")(1, 2, 2, 2, 1, 3, 3)] == [10, 80]


# %% exercise="count_conv_parameters"
def count_conv_parameters(in_channels, out_channels, kh, kw, groups, h, w):
    """in_channels, out_channels, kh, kw, groups, h, w -> shared (), dense ()"""
    ### BEGIN SOLUTION
    shared = out_channels * (in_channels // groups * kh * kw + 1)
    outputs = out_channels * (h - kh + 1) * (w - kw + 1)
    return shared, outputs * (in_channels * h * w + 1)
    ### END SOLUTION


# %% check="count_conv_parameters"
check(count_conv_parameters)

# %% [markdown]
# ### What people believe, and what is true
#
# - **"Convolutions are invariant to shifts."** Equivariant: the output moves along, and only for whole multiples of the
#   stride, away from borders. You saw both limits. Azulay and Weiss (2019) found networks whose answer changes when a
#   photograph moves by one pixel.
# - **"A kernel of 3 × 3 has nine weights."** For every channel it sees. On 64 channels it has 576 and a bias.
# - **"Fewer parameters, so less work."** A convolution has few parameters and uses each at every place. The layer that
#   was timed above has 4,640, and did 75 million products with them for 16 pictures.
# - **"Padding is harmless."** It invents dark pixels, and a network can read off them where the border is. That breaks
#   the equality of places, and networks do use it (Kayhan and van Gemert, 2020).
# - **"1 × 1 kernels do nothing."** At every pixel they are a dense layer across the channels. A convolution with a
#   kernel as large as the picture is a dense layer, too: one window.
# - **"The gradient of a stride is something special."** It isn't: each output sends its gradient back the way the
#   numbers came. Pixels that were in no window get 0.
# - **"Convolution fits all data."** It fits where neighbours belong together and places are alike: pictures, sound,
#   time series. Columns of a table have no neighbours; a shuffled picture has none either, and if the network on top
#   has a weight for every place it may not even matter, as you saw.
# - **"Frameworks agree on what a convolution is."** They agree on the correlation, not on layouts: weights are `(o, c,
#   kh, kw)` in PyTorch and `(kh, kw, c, o)` in TensorFlow, whose "same" padding with stride 2 puts the odd zero below
#   and on the right.

# %% [markdown]
# ## Where it is used, and what came after
#
# Fukushima's neocognitron (1980) had local windows and shared kernels, without backpropagation; LeCun et al. (1989)
# trained them by it, on handwritten postcodes. Convolution and pooling (lesson 10) in turn, then dense layers, is LeNet
# (LeCun et al., 1998) and AlexNet (Krizhevsky et al., 2012). From there networks grew deep, with skip connections
# (lesson 12) and cheaper convolutions (lesson 13); the same layer backwards draws pictures and segments them (lesson
# 14). In one dimension it hears speech, in three it reads scans and films. Vision transformers (lesson 19) do without
# its two guesses, given enough data, and begin with one convolution all the same: cutting a picture into patches is a
# stride as large as the kernel.
#
# How it is computed is a field of its own: by columns, as here; by Fourier transforms, where a convolution is a
# product, for large kernels; by Winograd's algorithm, which does a 3 × 3 kernel with fewer products (Lavin and Gray,
# 2016).
#
# You can now
#
# - say which pixels an output sees, and how many outputs there are, for any stride, padding and dilation;
# - write a convolution and its gradients, by loops and by columns, and derive the one from the other;
# - say what makes it fast, and measure it;
# - say what sharing buys, and when equivariance holds.
#
# To read:
#
# - Y. LeCun, B. Boser, J. S. Denker et al., *Backpropagation applied to handwritten zip code recognition*, 1989. Both
#   guesses, and why.
# - V. Dumoulin and F. Visin, *A guide to convolution arithmetic for deep learning*, 2016. Every geometry as a picture.
# - K. Chellapilla, S. Puri and P. Simard, *High performance convolutional neural networks for document processing*,
#   2006. Columns and matrix products.
# - A. Azulay and Y. Weiss, *Why do deep convolutional networks generalize so poorly to small image transformations?*,
#   2019. Where equivariance ends.
# - O. S. Kayhan and J. C. van Gemert, *On translation invariance in CNNs: convolutional layers can exploit absolute
#   spatial location*, 2020. What borders give away.
