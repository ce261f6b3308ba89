# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14 · Upsampling
#
# The networks of the last lessons make an image smaller and smaller until one answer is left. Many tasks want an answer
# *for every pixel*: which organ is this, how far away is that, which colour was here. Then the maps have to become
# large again. You will build four ways of enlarging (transposed convolution, nearest and bilinear interpolation, pixel
# shuffle) and see what each does to an image. Below, the first of them has painted a grid into the
# image that nobody asked for.
#
# Then you put them to use: a **U-Net** that outlines organs and small lesions in generated scans, with the **Dice**
# loss for classes of a few pixels. What its skip connections carry, you will measure by cutting them.
#
# **You need** lessons 01 (linear layers), 03 (cross-entropy), 08 (batch norm), 09 (convolution and its gradient), 10
# (max pooling) and 12 (skip connections).
# **Time:** about six hours, four and a half of them for the exercises.

# %% setup=true
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets
from course.data.organs import organs

# %%
figures = widgets.upsampling
NAMES = "conv_transpose2d_forward", "upsample_nearest_forward", "upsample_bilinear_forward", "pixel_shuffle", "icnr"
references = {name: reference(name) for name in NAMES} | {"conv2d": reference("conv2d_forward")}
plots.show(
    figures.overview(references, data.digits().x_train[5].reshape(8, 8)),
    alt="A digit of 8 by 8 pixels, enlarged four times: by transposed convolution with a grid of bright lines, by "
    "nearest with square blocks, by bilinear smoothly.",
    caption="Four times as large. The transposed convolution has a kernel of equal weights, size 5 with stride 4: its "
    "patches overlap in lines. Nearest copies, bilinear mixes.",
)

# %% [markdown]
# ## Play first
#
# A convolution reads: each output looks at a window of the input. A **transposed convolution** paints: each input
# pixel puts a patch, the kernel times its own value, on the output, and where patches overlap they are added.

# %%
figures.guess_canvas(reference)

# %% [markdown]
# Now with numbers: PyTorch's function for now, yours as soon as it is written. Point at a pixel of the input to see
# the cells it paints, or switch and point at an output cell to see who painted it. Before you move, say what you
# expect:
#
# 1. Stride 1, 2, 3 with kernel 3: when do patches stop overlapping? And with kernel 2 at stride 3?
# 2. In an ordinary convolution, padding makes the output larger. Raise it here.
# 3. Kernel 4, stride 2: how many pixels paint an output cell in the middle? And with kernel 3?

# %%
paint = reference("conv_transpose2d_forward")
figures.painting(paint, paint)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - At stride 3 the patches of size 3 lie side by side. With kernel 2 cells are left that nobody paints: they stay 0.
# - Padding *crops*: one row and one column at each side for each unit. It is the padding of the convolution that goes
#   the other way.
# - With kernel 4 and stride 2 each cell in the middle has four painters. With kernel 3 it has one, two or four, in a
#   regular pattern.
#
# </details>
#
# The other way to enlarge has no weights at all: look up, for each output pixel, what stands at its place in the
# input. That place mostly lies *between* pixels. Point at outputs; compare nearest with bilinear; then find out what
# `align_corners=True` does to the places.

# %%
lookups = reference("upsample_nearest_forward"), reference("upsample_bilinear_forward")
figures.sampling(*lookups, lookups)

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | layer | input | parameters | output |
# |---|---|---|---|
# | transposed convolution | `(n, C_in, h, w)` | `w (C_in, C_out, kh, kw)`, `b (C_out,)` | `(n, C_out, (h − 1)·s + kh − 2p, (w − 1)·s + kw − 2p)` |
# | nearest, bilinear | `(n, c, h, w)` | none | `(n, c, scale·h, scale·w)` |
# | pixel shuffle | `(n, c·r², h, w)` | none | `(n, c, r·h, r·w)` |
# | Dice loss | `probs (n, c, h, w)`, `targets (n, c, h, w)` | none | a number |
#
# $s$ is the stride, $p$ the padding.
#
# ### A convolution is a matrix
#
# Take one axis: five inputs, the kernel $(a, b, c)$, stride 2, no padding. The two outputs are
# $$\begin{pmatrix} y_0 \\ y_1 \end{pmatrix} =
# \begin{pmatrix} a & b & c & 0 & 0 \\ 0 & 0 & a & b & c \end{pmatrix} x = C x.$$
# Each *row* of $C$ is the kernel, moved on by the stride. The gradient of any $y = C x$ is $dx = C^\top dy$ (lesson 01:
# a linear layer without bias), so the backward pass of this convolution is
# $$C^\top \begin{pmatrix} y_0 \\ y_1 \end{pmatrix} =
# \begin{pmatrix} a\,y_0 \\ b\,y_0 \\ c\,y_0 + a\,y_1 \\ b\,y_1 \\ c\,y_1 \end{pmatrix}.$$
# Each *column* of $C^\top$ is the kernel. So $y_0$ paints $y_0 \cdot (a, b, c)$, $y_1$ paints the same patch two cells
# further on, and where they overlap they are added. Multiplying by $C^\top$ is the **transposed convolution**, and
# it is what you wrote in lesson 09 as `dx` of `conv2d_backward`. As a layer of its own it has weights, learns them, and
# makes images larger by its stride.
#
# Which array are the weights? A convolution from $C_{out}$ to $C_{in}$ channels has weights `(C_in, C_out, kh, kw)`.
# Its transpose goes from $C_{in}$ to $C_{out}$ channels *with the same array*. Hence PyTorch's layout, in which the
# input channels come first.
#
# It is called *deconvolution* in older papers, as if it undid a convolution. It does not: $C^\top C \neq 1$. What it
# inherits from $C$ is the pattern of who is connected to whom, not the values. The one equation that defines a
# transpose is, for all $x$ and $y$,
# $$\langle C x,\, y \rangle = \langle x,\, C^\top y \rangle .$$
#
# ### Its size, and a size that is lost
#
# The last of $h$ patches starts at $(h - 1)\,s$ and is $k$ long; padding crops $p$ cells at both ends:
# $$\text{size} = (h - 1)\,s + k - 2p.$$
# Going down, the size is $\lfloor (\text{size} + 2p - k) / s \rfloor + 1$, and the floor forgets: with $k = 3$, $s =
# 2$, $p = 1$, both 7 and 8 pixels become 4. From 4 the formula above leads to 7. Who wants 8 has to say so: PyTorch's
# `output_padding` adds cells at the end, which only few patches reach or none.
#
# ### Backwards
#
# $y = C^\top x$ plus a bias, so $dx = C\,dy$: **the gradient of a transposed convolution is the convolution** of $dy$
# with the same weights, stride and padding. For the weights, follow one of them: $w_{c,o,k,l}$ multiplies $x_{n,c,i,j}$
# and lands in output channel $o$ at row $i s + k - p$, column $j s + l - p$. Its gradient collects from every such use,
# $$dw_{c,o,k,l} = \sum_{n,i,j} x_{n,c,i,j}\; dy_{n,\,o,\;i s + k - p,\;j s + l - p},$$
# where cells that were cropped bring 0. The bias $b_o$ was added to every pixel of its channel: $db_o$ sums $dy$ over
# examples and pixels.
#
# ### Between the pixels
#
# A pixel is an area: pixel $j$ reaches from $j$ to $j + 1$, its middle lies at $j + \frac12$. Enlarged $s$ times,
# output pixel $i$ has its middle at $(i + \frac12) / s$ of the input. Counted in pixel numbers, where the middle of
# pixel $j$ is $j$ itself, it is read at the position
# $$p_i = \frac{i + \frac12}{s} - \frac12, \quad \text{clamped to } [0,\, h - 1].$$
# Linear interpolation gives pixel $j$ the weight $A_{ij} = \max(0,\, 1 - |p_i - j|)$, a *tent*: 1 at the pixel itself,
# 0 one pixel further. For $h = 2$, $s = 2$ the positions are $-0.25$ (clamped to 0), $0.25$, $0.75$, $1.25$ (clamped
# to 1), and
# $$A = \begin{pmatrix} 1 & 0 \\ 0.75 & 0.25 \\ 0.25 & 0.75 \\ 0 & 1 \end{pmatrix}.$$
# *Bilinear* is linear along the columns, then along the rows: $Y = A\,X B^\top$ for every channel, with $B$ for the
# width. Written out, $Y_{ij} = \sum_{kl} A_{ik} X_{kl} B_{jl}$, so $\partial Y_{ij} / \partial X_{kl} = A_{ik} B_{jl}$
# and
# $$dX_{kl} = \sum_{ij} dY_{ij}\, A_{ik} B_{jl}, \qquad dX = A^\top dY\, B.$$
# The transpose again. *Nearest* is the same with another $A$: one 1 in each row.
#
# **Pixel shuffle** computes nothing. It takes $r^2$ channels and lays them out as blocks of $r \times r$ pixels; a
# permutation, whose transpose is its inverse. Its backward pass is `pixel_unshuffle(dy)`.
#
# ### Overlap as a loss
#
# How well does a predicted mask $P$ agree with the true $T$? Counting right pixels says little where the class is
# small: in the scans below lesions fill fewer than two pixels of a hundred, and who predicts none is right on more than
# 98 %. Two numbers look at the class alone:
# $$\text{Dice} = \frac{2\,|P \cap T|}{|P| + |T|}, \qquad \text{IoU} = \frac{|P \cap T|}{|P \cup T|}.$$
# With $m = |P \cap T|$ and $S = |P| + |T|$, Dice is $D = 2m / S$, and the union has $S - m$ pixels, so
# $$\text{IoU} = \frac{m}{S - m} = \frac{D / 2}{1 - D / 2} = \frac{D}{2 - D}.$$
# One is a growing function of the other: for a single mask, they never disagree about which is better.

# %%
figures.guess_iou()

# %% [markdown]
# Masks of 0 and 1 have no gradient. The **soft Dice** puts probabilities $p_i$ in their place, with a small
# $\varepsilon$ that decides what an empty mask is worth: for each channel of each example
# $$D = \frac{u}{v}, \qquad u = 2\sum_i p_i t_i + \varepsilon, \qquad v = \sum_i p_i + \sum_i t_i + \varepsilon,$$
# and the loss is $1 - D$, averaged over examples and channels (Milletari, Navab and Ahmadi, 2016, with squares in the
# denominator). A pixel's probability stands above and below, so by the quotient rule
# $$\frac{\partial D}{\partial p_i} = \frac{2 t_i\, v - u}{v^2}.$$
# Two things to read from it. The gradient is divided by the area $v$: a class of few pixels pulls as hard as one of
# many, which is what Dice is for. And if there is nothing to find ($t = 0$), it is $-\varepsilon / v^2$: how strongly
# false alarms are pushed down depends on $\varepsilon$ alone. Keep that in mind.

# %% [markdown]
# ## From scratch
#
# Sixteen short functions; the network comes later. `scale` and `r` are whole numbers, the same for both directions; so
# are stride and padding, as in lesson 09. Images and kernels need not be square.

# %% [markdown] about="conv_transpose2d_forward"
# ### Transposed convolution
#
# `conv_transpose2d_forward(x, w, b, stride=1, padding=0) -> y`: `x (n, C_in, h, w)`, `w (C_in, C_out, kh, kw)`, `b
# (C_out,)`; the size of `y` stands in the table above. Every pixel paints its patches on a canvas of zeros, one for
# each output channel; patches add; `padding` crops the canvas; the bias comes last.
#
# By hand, one row of two pixels `x = [1, 2]`, kernel `[1, 3, 1]`, stride 2: pixel 0 paints `[1, 3, 1]` from cell 0 on,
# pixel 1 paints `[2, 6, 2]` from cell 2 on. Together `[1, 3, 1 + 2, 6, 2] = [1, 3, 3, 6, 2]`; along
# this axis, `padding=1` would leave `[3, 3, 6]`. A bias of 10 gives `[11, 13, 13, 16, 12]`.

# %%
x, w = np.array([1.0, 2]).reshape(1, 1, 1, 2), np.array([1.0, 3, 1]).reshape(1, 1, 1, 3)
y = reference("conv_transpose2d_forward")(x, w, np.array([10.0]), 2)
np.testing.assert_allclose(y.ravel(), [11, 13, 13, 16, 12])


# %% exercise="conv_transpose2d_forward"
def conv_transpose2d_forward(x, w, b, stride=1, padding=0):
    """x (n, C_in, h, w), w (C_in, C_out, kh, kw), b (C_out,) -> y (n, C_out, oh, ow)"""
    ### BEGIN SOLUTION
    (n, c, height, width), (_, o, kh, kw) = x.shape, w.shape
    full = np.zeros((n, o, (height - 1) * stride + kh, (width - 1) * stride + kw))
    for i, j in np.ndindex(height, width):
        patches = (x[:, :, i, j] @ w.reshape(c, -1)).reshape(n, o, kh, kw)
        full[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw] += patches
    _, _, rows, columns = full.shape
    return full[:, :, padding : rows - padding, padding : columns - padding] + b[:, None, None]
    ### END SOLUTION


# %% check="conv_transpose2d_forward"
check(conv_transpose2d_forward)

# %% [markdown] about="conv_transpose2d_backward"
# ### Transposed convolution, backwards
#
# `conv_transpose2d_backward(dy, x, w, b, stride=1, padding=0) -> dx, dw, db`: the shapes of `x`, `w` and `b`. You may
# call your convolution of lesson 09; it is as short to follow the patches back.
#
# By hand, the row from above and `dy = [1, 0, 2, 0, 1]`: pixel 0 painted cells 0 to 2, whose gradients are `[1, 0, 2]`;
# weighed with the kernel, `dx[0] = 1·1 + 0·3 + 2·1 = 3`, and `dx[1]` = `[2, 0, 1]` · `[1, 3, 1]` = 3. The kernel
# collects `1·[1, 0, 2] + 2·[2, 0, 1]`: `dw = [5, 0, 4]`. And `db = 4`.

# %%
dy = np.array([1.0, 0, 2, 0, 1]).reshape(1, 1, 1, 5)
dx, dw, db = reference("conv_transpose2d_backward")(dy, x, w, np.array([10.0]), 2)
np.testing.assert_allclose([*dx.ravel(), *dw.ravel(), *db], [3, 3, 5, 0, 4, 4])


# %% exercise="conv_transpose2d_backward"
def conv_transpose2d_backward(dy, x, w, b, stride=1, padding=0):
    """dy (n, C_out, oh, ow), x (n, C_in, h, w), w (C_in, C_out, kh, kw), b (C_out,) -> dx, dw, db"""
    ### BEGIN SOLUTION
    (n, c, height, width), (_, _, kh, kw) = x.shape, w.shape
    framed = np.pad(dy, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j in np.ndindex(height, width):
        window = framed[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw].reshape(n, -1)
        dx[:, :, i, j] = window @ w.reshape(c, -1).T
        dw += (x[:, :, i, j].T @ window).reshape(w.shape)
    return dx, dw, dy.sum(axis=(0, 2, 3))
    ### END SOLUTION


# %% check="conv_transpose2d_backward"
check(conv_transpose2d_backward)

# %% [markdown]
# Your painter in the figure from the start. Cells that differ from the reference are outlined.

# %%
figures.painting(conv_transpose2d_forward, paint, point_at="an output cell")

# %% [markdown] about="conv_transpose_output_size"
# ### Predict: the size of the canvas
#
# `conv_transpose_output_size(size, kernel_size, stride=1, padding=0, output_padding=0) -> size`: along one axis.
# `output_padding` adds that many cells at the end.
#
# By hand: 3 pixels, kernel 3, stride 2 gave 7. With `padding=1` it is 5, with `output_padding=1` besides 6.


# %% exercise="conv_transpose_output_size"
def conv_transpose_output_size(size, kernel_size, stride=1, padding=0, output_padding=0):
    """size, kernel_size, stride, padding, output_padding -> size ()"""
    ### BEGIN SOLUTION
    return (size - 1) * stride + kernel_size - 2 * padding + output_padding
    ### END SOLUTION


# %% check="conv_transpose_output_size"
check(conv_transpose_output_size)

# %% [markdown] about="output_padding_for"
# ### Predict: what the floor has thrown away
#
# `output_padding_for(size, kernel_size, stride=1, padding=0) -> output_padding`: a convolution with these numbers makes
# something smaller of `size` pixels. Which `output_padding` lets the transposed convolution with the same kernel size,
# stride and padding come back to exactly `size`?
#
# By hand, kernel 3, stride 2, padding 1: 7 becomes 4 becomes 7, so 0; 8 becomes 4 becomes 7, so 1.


# %% exercise="output_padding_for"
def output_padding_for(size, kernel_size, stride=1, padding=0):
    """size, kernel_size, stride, padding -> output_padding ()"""
    ### BEGIN SOLUTION
    return (size + 2 * padding - kernel_size) % stride
    ### END SOLUTION


# %% check="output_padding_for"
check(output_padding_for)

# %% [markdown] about="upsample_nearest_forward"
# ### Nearest
#
# `upsample_nearest_forward(x, scale) -> y`: `x (n, c, h, w)`, `y (n, c, scale·h, scale·w)`. Every pixel becomes a block
# of scale × scale equal ones.
#
# By hand, `[[1, 2]]` with scale 2 is `[[1, 1, 2, 2], [1, 1, 2, 2]]`.


# %% exercise="upsample_nearest_forward"
def upsample_nearest_forward(x, scale):
    """x (n, c, h, w), scale -> y (n, c, scale * h, scale * w)"""
    ### BEGIN SOLUTION
    return x.repeat(scale, axis=2).repeat(scale, axis=3)
    ### END SOLUTION


# %% check="upsample_nearest_forward"
check(upsample_nearest_forward)

# %% [markdown] about="upsample_nearest_backward"
# ### Nearest, backwards
#
# `upsample_nearest_backward(dy, x, scale) -> dx`: the shape of `x`. The matrix of nearest has scale² ones in each
# column (for both axes together), and its transpose adds them up.
#
# By hand, `x = [[1, 2]]`, scale 2, `dy = [[1, 2, 3, 4], [5, 6, 7, 8]]`: `dx = [[1 + 2 + 5 + 6, 3 + 4 + 7 + 8]] = [[14,
# 22]]`.


# %% exercise="upsample_nearest_backward"
def upsample_nearest_backward(dy, x, scale):
    """dy (n, c, scale * h, scale * w), x (n, c, h, w), scale -> dx (n, c, h, w)"""
    ### BEGIN SOLUTION
    n, c, h, w = x.shape
    return dy.reshape(n, c, h, scale, w, scale).sum(axis=(3, 5))
    ### END SOLUTION


# %% check="upsample_nearest_backward"
check(upsample_nearest_backward)

# %% [markdown] about="interpolation_matrix"
# ### The matrix of linear interpolation
#
# `interpolation_matrix(size, scale) -> a`: the matrix $A$ `(scale·size, size)` from the mathematics, for one axis.
#
# By hand, size 2 and scale 2, it stands there. Size 1: a single column of ones. Every row sums to 1.

# %%
quarter = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
np.testing.assert_allclose(reference("interpolation_matrix")(2, 2), quarter)


# %% exercise="interpolation_matrix"
def interpolation_matrix(size, scale):
    """size, scale -> a (scale * size, size)"""
    ### BEGIN SOLUTION
    position = ((np.arange(scale * size) + 0.5) / scale - 0.5).clip(0, size - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))
    ### END SOLUTION


# %% check="interpolation_matrix"
check(interpolation_matrix)

# %% [markdown] about="upsample_bilinear_forward"
# ### Bilinear
#
# `upsample_bilinear_forward(x, scale) -> y`: shapes as for nearest. This is PyTorch's default, `align_corners=False`.
#
# By hand, `x = [[0, 4]]` with scale 2: each of the two rows is $B\,(0, 4)^\top$ = `[0, 1, 3, 4]`.

# %%
pair = np.array([0.0, 4]).reshape(1, 1, 1, 2)
np.testing.assert_allclose(reference("upsample_bilinear_forward")(pair, 2)[0, 0], [[0, 1, 3, 4]] * 2)


# %% exercise="upsample_bilinear_forward"
def upsample_bilinear_forward(x, scale):
    """x (n, c, h, w), scale -> y (n, c, scale * h, scale * w)"""
    ### BEGIN SOLUTION
    a, b = (interpolation_matrix(size, scale) for size in x.shape[2:])
    return a @ x @ b.T
    ### END SOLUTION


# %% check="upsample_bilinear_forward"
check(upsample_bilinear_forward)

# %% [markdown] about="upsample_bilinear_backward"
# ### Bilinear, backwards
#
# `upsample_bilinear_backward(dy, x, scale) -> dx`: the shape of `x`.
#
# By hand, `x = [[0, 4]]`, scale 2, and `dy` two equal rows `[1, 0, 0, 8]`. Both rows of `dy` reach the one row of `x`
# in full: `[2, 0, 0, 16]`. Then $B^\top$: the first pixel had the weights 1, 0.75, 0.25, 0 in it, so `dx = [[2, 16]]`.

# %%
rows = np.array([[1.0, 0, 0, 8]] * 2)[None, None]
np.testing.assert_allclose(reference("upsample_bilinear_backward")(rows, pair, 2).ravel(), [2, 16])


# %% exercise="upsample_bilinear_backward"
def upsample_bilinear_backward(dy, x, scale):
    """dy (n, c, scale * h, scale * w), x (n, c, h, w), scale -> dx (n, c, h, w)"""
    ### BEGIN SOLUTION
    a, b = (interpolation_matrix(size, scale) for size in x.shape[2:])
    return a.T @ dy @ b
    ### END SOLUTION


# %% check="upsample_bilinear_backward"
check(upsample_bilinear_backward)

# %% [markdown]
# The figure from the start, sampled by your functions:

# %%
figures.sampling(upsample_nearest_forward, upsample_bilinear_forward, lookups)

# %% [markdown] about="bilinear_kernel"
# ### Bilinear as a transposed convolution
#
# `bilinear_kernel(scale) -> w`: away from the borders, bilinear enlarging paints every pixel with the same patch,
# `scale` cells apart. So it *is* a transposed convolution with stride `scale` and one fixed kernel. Which? A square
# array, `2 · scale` cells a side if `scale` is even, `2 · scale − 1` if it is odd.
#
# By hand, scale 2: pixel 1 of a long row has the weights 0.25, 0.75, 0.75, 0.25 in the outputs around it. The kernel is
# their outer product; its corner is 0.0625, its middle 0.5625.


# %% exercise="bilinear_kernel"
def bilinear_kernel(scale):
    """scale -> w (k, k)"""
    ### BEGIN SOLUTION
    size = 2 * scale - scale % 2
    tent = 1 - np.abs(np.arange(size) - (size - 1) / 2) / scale
    return np.outer(tent, tent)
    ### END SOLUTION


# %% check="bilinear_kernel"
check(bilinear_kernel)

# %% [markdown]
# Your painter with your kernel, beside your matrices: equal, up to the border, where the one clamps and the other finds
# nobody painting from outside. Long, Shelhamer and Darrell (2015) start their transposed convolutions from these
# weights and let them be learned.

# %% tags=["nbval-check-output"]
image = np.random.default_rng(0).normal(size=(1, 1, 5, 6))
for scale in (2, 3, 4):
    kernel, border = bilinear_kernel(scale)[None, None], scale // 2
    painted = conv_transpose2d_forward(image, kernel, np.zeros(1), scale, border)
    gap = np.abs(painted - upsample_bilinear_forward(image, scale))[0, 0]
    inside = gap[scale:-scale, scale:-scale].max()
    print(f"scale {scale}: equal inside to 1e-12: {inside < 1e-12}, at the border off by {gap.max():.2f}")

# %% [markdown] about="pixel_shuffle"
# ### Pixel shuffle
#
# `pixel_shuffle(x, r) -> y`: `x (n, c·r², h, w)`, `y (n, c, r·h, r·w)`. Channel $c\,r^2 + a\,r + b$ of pixel $(i, j)$
# becomes pixel $(i r + a,\; j r + b)$ of channel $c$ (Shi et al., 2016). A convolution that makes $r^2$ times as many
# channels, then a shuffle: an enlarging layer that computes on the small image only.
#
# By hand, one pixel with the four channels 1, 2, 3, 4 and `r = 2` becomes the image `[[1, 2], [3, 4]]`.


# %% exercise="pixel_shuffle"
def pixel_shuffle(x, r):
    """x (n, c * r * r, h, w), r -> y (n, c, r * h, r * w)"""
    ### BEGIN SOLUTION
    n, _, h, w = x.shape
    return x.reshape(n, -1, r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, r * h, r * w)
    ### END SOLUTION


# %% check="pixel_shuffle"
check(pixel_shuffle)

# %% [markdown] about="pixel_unshuffle"
# ### Pixel shuffle, backwards
#
# `pixel_unshuffle(x, r) -> y`: the inverse, `x (n, c, h, w)` with `r` dividing `h` and `w`, `y (n, c·r², h/r, w/r)`. As
# `pixel_unshuffle(dy, r)` it is the backward pass of pixel shuffle: each number goes back where it came from.
#
# By hand, the image `[[1, 2], [3, 4]]` becomes one pixel with the channels 1, 2, 3, 4.


# %% exercise="pixel_unshuffle"
def pixel_unshuffle(x, r):
    """x (n, c, h, w), r -> y (n, c * r * r, h // r, w // r)"""
    ### BEGIN SOLUTION
    n, c, h, w = x.shape
    return x.reshape(n, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, h // r, w // r)
    ### END SOLUTION


# %% check="pixel_unshuffle"
check(pixel_unshuffle)

# %% [markdown] about="icnr"
# ### A start without a checkerboard
#
# `icnr(base, r) -> w`: `base (o, i, kh, kw)`, `w (o·r², i, kh, kw)`. The weights of the convolution *before* a pixel
# shuffle. Drawn at random, the $r^2$ channels of a block know nothing of each other, and an untrained network shows
# blocks full of noise. Aitken et al. (2017) start them equal: after the shuffle, all pixels of a block are the same, as
# in nearest.
#
# By hand, `base` with two kernels A and B and `r = 2`: `w` holds A, A, A, A, B, B, B, B.


# %% exercise="icnr"
def icnr(base, r):
    """base (o, i, kh, kw), r -> w (o * r * r, i, kh, kw)"""
    ### BEGIN SOLUTION
    return base.repeat(r * r, axis=0)
    ### END SOLUTION


# %% check="icnr"
check(icnr)

# %% [markdown] about="dice_loss_forward"
# ### The Dice loss
#
# `dice_loss_forward(probs, targets, eps=1.0) -> loss`: `probs (n, c, h, w)` probabilities, `targets (n, c, h, w)` zeros
# and ones, the loss a number. One Dice for each channel of each example, `eps` above and below; the loss is 1 minus
# their mean.
#
# By hand, one example, one channel, `probs = [[0.5, 1]]`, `targets = [[0, 1]]`, `eps = 1`: the overlap is 1, the areas
# are 1.5 and 1, so $D = (2 + 1) / (2.5 + 1) = 0.857$ and the loss is 0.143. An empty mask, found empty: $D = 1 / 1 =
# 1$.

# %%
half, one = np.array([0.5, 1.0]).reshape(1, 1, 1, 2), np.array([0, 1]).reshape(1, 1, 1, 2)
np.testing.assert_allclose(reference("dice_loss_forward")(half, one), 1 - 3 / 3.5)


# %% exercise="dice_loss_forward"
def dice_loss_forward(probs, targets, eps=1.0):
    """probs (n, c, h, w), targets (n, c, h, w) of 0 and 1 -> loss ()"""
    ### BEGIN SOLUTION
    u = 2 * (probs * targets).sum(axis=(2, 3)) + eps
    v = probs.sum(axis=(2, 3)) + targets.sum(axis=(2, 3)) + eps
    return 1 - (u / v).mean()
    ### END SOLUTION


# %% check="dice_loss_forward"
check(dice_loss_forward)

# %% [markdown] about="dice_loss_backward"
# ### The Dice loss, backwards
#
# `dice_loss_backward(dloss, probs, targets, eps=1.0) -> dprobs`: `dloss` is a number, `dprobs` has the shape of
# `probs`.
#
# By hand, the numbers from above: $u = 3$, $v = 3.5$, $v^2 = 12.25$. For the first pixel ($t = 0$) the Dice has the
# slope $-3 / 12.25 = -0.245$, for the second $(2 \cdot 3.5 - 3) / 12.25 = 0.327$. The loss has the opposite signs:
# `dprobs = [[0.245, −0.327]]` for `dloss = 1`.

# %%
dprobs = reference("dice_loss_backward")(1.0, half, one)
np.testing.assert_allclose(dprobs.ravel(), [3 / 12.25, -4 / 12.25])


# %% exercise="dice_loss_backward"
def dice_loss_backward(dloss, probs, targets, eps=1.0):
    """dloss (), probs (n, c, h, w), targets (n, c, h, w) -> dprobs (n, c, h, w)"""
    ### BEGIN SOLUTION
    u = 2 * (probs * targets).sum(axis=(2, 3), keepdims=True) + eps
    v = probs.sum(axis=(2, 3), keepdims=True) + targets.sum(axis=(2, 3), keepdims=True) + eps
    return -dloss / u.size * (2 * targets * v - u) / v**2
    ### END SOLUTION


# %% check="dice_loss_backward"
check(dice_loss_backward)

# %% [markdown] about="overlap_scores"
# ### Scores
#
# `overlap_scores(pred, target) -> dice, iou`: masks `(n, h, w)` of True and False, two scores `(n,)`, one for each
# example. If both masks are empty, nothing was to be found and nothing was claimed: both scores are 1. If only one is
# empty, both are 0, by the formulas.
#
# By hand, `pred = [[1, 1, 0]]`, `target = [[0, 1, 1]]`: one pixel in both, two in each, three in the union: Dice 2 / 4
# = 0.5, IoU 1 / 3.


# %% exercise="overlap_scores"
def overlap_scores(pred, target):
    """pred (n, h, w), target (n, h, w) -> dice (n,), iou (n,)"""
    ### BEGIN SOLUTION
    both = (pred & target).sum(axis=(1, 2))
    areas = pred.sum(axis=(1, 2)) + target.sum(axis=(1, 2))
    dice = np.where(areas > 0, 2 * both / np.maximum(areas, 1), 1.0)
    return dice, dice / (2 - dice)
    ### END SOLUTION


# %% check="overlap_scores"
check(overlap_scores)

# %% [markdown]
# ## Against a reference
#
# ### The proof by your own functions
#
# The claim was: a transposed convolution is the gradient of a convolution with the same weights. You have written both.
# `conv2d_backward` (lesson 09) takes the gradient `dy` of a convolution's output and the `x` that went in; of `x`, its
# `dx` needs the shape only. So give it our image as `dy`, and zeros as `x`. And the other way round: `dx` of the
# transposed convolution should be a convolution, and its `dw` that of the convolution with the two images exchanged.

# %%
conv2d_forward, conv2d_backward = mine("conv2d_forward_fast"), mine("conv2d_backward")
rng = np.random.default_rng(14)
x, w, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(3, 2, 3, 4)), rng.normal(size=2)
none, to_x = np.zeros(2), np.zeros(3)

# %% tags=["nbval-check-output"]
for stride, padding in ((1, 0), (2, 1), (3, 1)):
    y = conv_transpose2d_forward(x, w, none, stride, padding)
    as_gradient, _, _ = conv2d_backward(x, np.zeros_like(y), w, to_x, stride, padding)
    dy = rng.normal(size=y.shape)
    dx, dw, _ = conv_transpose2d_backward(dy, x, w, none, stride, padding)
    as_convolution = conv2d_forward(dy, w, to_x, stride, padding)
    _, as_dw, _ = conv2d_backward(x, dy, w, to_x, stride, padding)
    gaps = {"y": y - as_gradient, "dx": dx - as_convolution, "dw": dw - as_dw}
    told = "   ".join(f"{name} equal: {np.abs(gap).max() < 1e-12}" for name, gap in gaps.items())
    print(f"stride {stride}, padding {padding}:   {told}")

# %% [markdown]
# As matrices: feed each layer all unit images, one after the other, and collect what comes out as columns. The two
# matrices are each other's transpose, to the last bit, and the inner products agree.

# %% tags=["nbval-check-output"]
def matrix_of(layer, size):
    units = np.eye(size[0] * size[1]).reshape(-1, 1, *size)
    return np.stack([layer(unit[None]).ravel() for unit in units], axis=1)


kernel = rng.normal(size=(1, 1, 3, 2))
down = matrix_of(lambda image: conv2d_forward(image, kernel, np.zeros(1), 2, 1), (7, 6))
up = matrix_of(lambda image: conv_transpose2d_forward(image, kernel, np.zeros(1), 2, 1), (4, 4))
big, small = rng.normal(size=down.shape[1]), rng.normal(size=down.shape[0])
print("convolution:", down.shape, "  transposed:", up.shape, "  up = down transposed:", np.array_equal(up, down.T))
print(f"<C x, y> = {down @ big @ small:.6f}   <x, C' y> = {big @ (up @ small):.6f}")
print("they agree to 1e-12:", abs(down @ big @ small - big @ (up @ small)) < 1e-12)
print(f"but going down and up again is not the identity: off by {np.abs(up @ down - np.eye(42)).max():.1f}")

# %%
plots.show(
    widgets.picture.row(
        widgets.picture.img(down, "a wide matrix with a slanted band", "signed", vmax=2, width=340, title="C"),
        widgets.picture.img(up, "the same matrix, transposed", "signed", vmax=2, width=130, title="C transposed"),
    ),
    alt="Two matrices, 16 by 42 and 42 by 16: the same slanted bands, one lying, one standing.",
    caption="The convolution from 7 × 6 to 4 × 4 pixels and your transposed convolution back. A row of the left one is "
    "a window; a column of the right one is a patch.",
)

# %% [markdown]
# And the gradients: your formulas, finite differences (your `numerical_gradient` of lesson 01), PyTorch.

# %%
numerical_gradient = mine("numerical_gradient")
x, w, b = rng.normal(size=(2, 2, 3, 2)), rng.normal(size=(2, 3, 3, 2)), rng.normal(size=3)
dy = rng.normal(size=conv_transpose2d_forward(x, w, b, 2, 1).shape)
probs, targets = rng.uniform(0.1, 0.9, (2, 3, 3, 4)), rng.integers(0, 2, (2, 3, 3, 4))
dlarge = rng.normal(size=(2, 2, 6, 4))


def witnesses(forward, backward, name, up, given, which):
    at = numerical_gradient(lambda z: (up * forward(*given[:which], z, *given[which + 1 :])).sum(), given[which])
    found = [f(up, *given) for f in (backward, reference(name))]
    return [values[which] if isinstance(values, tuple) else values for values in (found[0], at, found[1])]


# %%
painting = conv_transpose2d_forward, conv_transpose2d_backward, "conv_transpose2d_backward", dy, (x, w, b, 2, 1)
mixing = upsample_bilinear_forward, upsample_bilinear_backward, "upsample_bilinear_backward", dlarge, (x, 2)
scoring = dice_loss_forward, dice_loss_backward, "dice_loss_backward", 0.7, (probs, targets)
gradients = {"dx painted": witnesses(*painting, 0), "dw": witnesses(*painting, 1)}
gradients |= {"dx bilinear": witnesses(*mixing, 0), "dprobs": witnesses(*scoring, 0)}
plots.gradient_check(gradients)

# %% [markdown]
# What a check says of the commonest mistake in this lesson, a patch that overwrites in place of adding:

# %% tags=["nbval-check-output"]
def overwriting(x, w, b, stride=1, padding=0):
    (n, _, height, width), (_, o, kh, kw) = x.shape, w.shape
    y = np.zeros((n, o, (height - 1) * stride + kh, (width - 1) * stride + kw))
    for i, j in np.ndindex(height, width):
        at = slice(i * stride, i * stride + kh), slice(j * stride, j * stride + kw)
        y[:, :, *at] = np.tensordot(x[:, :, i, j], w, axes=1)  # = where += belongs
    return y[:, :, padding : y.shape[2] - padding, padding : y.shape[3] - padding] + b[:, None, None]


print(examine(overwriting, "conv_transpose2d_forward").mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `conv_transpose2d_forward` | `F.conv_transpose2d`, `nn.ConvTranspose2d(C_in, C_out, k, stride)` | weights `(C_in, C_out, kh, kw)`; `output_padding`, or `output_size` in the call |
# | `upsample_nearest_forward` | `F.interpolate(x, scale_factor=s)`, `nn.Upsample` | `mode="nearest"` is the default |
# | `upsample_bilinear_forward` | `F.interpolate(x, scale_factor=s, mode="bilinear")` | `align_corners=False` is the default, and was not before version 0.4 |
# | `pixel_shuffle`, `pixel_unshuffle` | `F.pixel_shuffle`, `nn.PixelShuffle(r)` | TensorFlow's `depth_to_space` orders the channels as (r, r, c) |
# | `dice_loss_forward` | none | each library has its own `eps`, its own squares, its own mean |
#
# A module that is asked for a size works out `output_padding` by itself, and refuses what no convolution could have
# come from:

# %% tags=["nbval-check-output"]
layer, small = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1), torch.zeros(1, 1, 4, 4)
for size in (7, 8, 9):
    try:
        y = layer(small, output_size=(size, size))
        print(size, tuple(y.shape), "with output_padding", output_padding_for(size, 3, 2, 1))
    except ValueError as error:
        print(size, "refused:", str(error).partition(" (for")[0])

# %% [markdown]
# ### U-Net
#
# A network that answers for every pixel needs two things at once. *What* is here takes context: a bright spot is a
# lesion only if an organ lies around it, and to see that far, maps have to become small. *Where exactly* takes the fine
# image, and small maps have forgotten it. U-Net (Ronneberger, Fischer and Brox, 2015) goes down, up again, and at each
# size hands the map from the way down across to the way up: a **skip connection** that is concatenated, not added as in
# lesson 12.

# %%
plots.show(
    figures.letter_u(width=8, depth=2, size=32),
    alt="The letter U: two encoders lead down to the bottom, two decoders up to the head; at each level an arrow leads "
    "across from encoder to decoder, labelled skip 0 with 8 channels of 32 by 32 and skip 1 with 16 of 16 by 16.",
    caption="U-Net with width 8 and depth 2 for images of 32 × 32 pixels. Down: half the size, twice the channels. Up: "
    "the other way. Across: the skips.",
)

# %% [markdown] about="UNet"
# ### U-Net as a module
#
# `UNet(in_channels, out_channels, width, depth)`, for `x (n, in_channels, h, w)` -> logits `(n, out_channels, h, w)`.
# The block `double_conv(i, o)` is given: twice a 3 × 3 convolution, batch norm and ReLU. With $c_k = \text{width} \cdot
# 2^k$, the attributes are
#
# - `encoder`: an `nn.ModuleList` of `depth` blocks. Block 0 leads from `in_channels` to $c_0$, block $k$ from $c_{k-1}$
#   to $c_k$;
# - `bottom`: a block from $c_{depth-1}$ to $2\,c_{depth-1}$;
# - `up`: an `nn.ModuleList` of `nn.ConvTranspose2d`, kernel 2, stride 2, with bias; `up[k]` leads from $2\,c_k$ to
#   $c_k$;
# - `decoder`: an `nn.ModuleList` of blocks; `decoder[k]` leads from $2\,c_k$ to $c_k$;
# - `head`: a 1 × 1 convolution (with bias) from $c_0$ to `out_channels`.
#
# Down: the output of `encoder[k]` is kept as skip $k$ and halved by max pooling. Then the bottom. Up, from the last
# level to level 0: `up[k]`, the skip and this map concatenated along the channels, **the skip first**, then
# `decoder[k]`.
#
# Odd sizes: pooling makes 3 of 7, and kernel 2 with stride 2 makes 6 of 3. You know what is missing; `up[k]` takes it
# as `output_size=`, the last two numbers of the skip's shape. So every size from $2^{depth}$ on works.
#
# By hand, 32 × 32 with width 8 and depth 2: the drawing above. Channels going into `decoder[1]`: 16 + 16.


# %% exercise="UNet"
def double_conv(i, o):
    pairs = ((nn.Conv2d(c, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()) for c in (i, o))
    return nn.Sequential(*(layer for three in pairs for layer in three))

class UNet(nn.Module):
    """x (n, in_channels, h, w) -> logits (n, out_channels, h, w)"""
    def __init__(self, in_channels, out_channels, width, depth):
        super().__init__()
        ### BEGIN SOLUTION
        c = [width * 2**k for k in range(depth)]
        self.encoder = nn.ModuleList(double_conv(i, o) for i, o in zip([in_channels, *c], c, strict=False))
        self.bottom, self.head = double_conv(c[-1], 2 * c[-1]), nn.Conv2d(width, out_channels, 1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * k, k, 2, stride=2) for k in c)
        self.decoder = nn.ModuleList(double_conv(2 * k, k) for k in c)

    def forward(self, x):
        skips = []
        for block in self.encoder:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for k in reversed(range(len(skips))):
            x = self.decoder[k](torch.cat([skips[k], self.up[k](x, output_size=skips[k].shape[-2:])], dim=1))
        return self.head(x)
        ### END SOLUTION

# %% check="UNet"
check(UNet)

# %% [markdown]
# ## At work
#
# ### Checkerboards, and how to lose them
#
# A flat image should stay flat when it is enlarged. Move kernel size and stride, first with equal weights, then with
# random ones. Look for: which kernel sizes leave the flat image flat at stride 2, at stride 3? Which of the four
# methods stays flat whatever the weights are?

# %%
built = {
    "conv_transpose2d_forward": conv_transpose2d_forward,
    "upsample_nearest_forward": upsample_nearest_forward,
    "pixel_shuffle": pixel_shuffle,
    "icnr": icnr,
    "conv2d": conv2d_forward,
}
figures.checkerboard(built, references)

# %% [markdown]
# How much the inside of the flat image varies, relative to its mean; with random weights, the mean of ten draws (least
# to greatest):

# %% tags=["nbval-check-output"]
print(f"{'':<28}kernel stride   equal weights   random weights")
cases = [(figures.METHODS[0], k, s) for k, s in ((3, 2), (4, 2), (5, 2), (3, 3), (5, 3), (6, 3))]
cases += [(method, 3, 2) for method in figures.METHODS[1:]]
for method, k, s in cases:
    equal = figures.unevenness(figures.enlarge(built, method, figures.flat(), k, s), k, s)
    drawn = [figures.enlarge(built, method, figures.flat(), k, s, False, seed) for seed in range(10)]
    uneven = [figures.unevenness(y, k, s) for y in drawn]
    told = f"{np.mean(uneven):.2f} ({min(uneven):.2f} to {max(uneven):.2f})"
    print(f"{method:<28}{k:^7}{s:^6}   {equal:^14.2f}   {told}")

# %% [markdown]
# Three remedies, each of another kind.
#
# - **A kernel size that the stride divides** (4 with 2, 6 with 3): every cell is painted equally often. Odena, Dumoulin
#   and Olah (2016) showed the pattern in the images of generative networks, and this cure. It makes flatness
#   *possible*, not certain: with random weights the cells of a block still differ, and training has to make them agree.
# - **Enlarge, then convolve** (theirs as well): nearest makes the image large, an ordinary convolution follows. All
#   cells get the same kernel, so nothing can make them differ.
# - **Pixel shuffle with ICNR**: random channels give a checkerboard (0.20 in the table), equal ones give none. That is
#   a start; training may unlearn it.
#
# ### Scans with exact masks
#
# `course/data/organs.py` generates what follows: bodies with one or two organs, in them up to two lesions, beside them
# bright vessels that look like lesions and are none. **This is synthetic.** It has what makes medical segmentation hard
# (small classes, noise, look-alikes), and masks that are exact because they were drawn first. Nothing found here is a
# statement about medicine.

# %%
train, test = organs(300, np.random.default_rng(1)), organs(100, np.random.default_rng(2))
shares = [(train.masks == k).mean() for k in range(3)]
plots.show(
    figures.samples(test),
    alt="Six scans and their masks: grey bodies, brighter organs with stripes, small bright or dark lesions inside, "
    "bright vessels outside.",
    caption=f"Above the scans, below the truth: organ blue, lesion orange. Of all pixels {shares[0]:.1%} are "
    f"background, {shares[1]:.1%} organ and {shares[2]:.1%} lesion; some scans have no lesion.",
)

# %% [markdown]
# Your Dice loss, forwards and backwards, becomes a loss for PyTorch in the way of lesson 01:


# %%
class DiceLoss(torch.autograd.Function):
    """dice_loss_forward and dice_loss_backward inside PyTorch's graph."""

    @staticmethod
    def forward(ctx, probs, targets, eps):
        ctx.given = probs.detach().double().numpy(), targets.numpy(), eps
        return probs.new_tensor(dice_loss_forward(*ctx.given))

    @staticmethod
    def backward(ctx, dloss):
        dprobs = dice_loss_backward(dloss.item(), *ctx.given)
        return torch.from_numpy(dprobs).to(dloss.dtype), None, None


# %% [markdown]
# Five losses to compare. *Weighted* cross-entropy lets every lesion pixel count as five (PyTorch divides by the sum of
# the weights). Dice comes with two values of `eps`, once with cross-entropy added.


# %%
def dice_of(logits, masks, eps):
    targets = F.one_hot(masks, 3).movedim(-1, 1)
    return DiceLoss.apply(logits.softmax(dim=1), targets, eps)


weights = torch.tensor([1.0, 1.0, 5.0])
losses = {
    "cross-entropy": F.cross_entropy,
    "weighted cross-entropy": lambda logits, masks: F.cross_entropy(logits, masks, weights),
    "Dice, eps 1": lambda logits, masks: dice_of(logits, masks, 1.0),
    "Dice, eps 0.01": lambda logits, masks: dice_of(logits, masks, 0.01),
    "cross-entropy + Dice, eps 0.01": lambda *given: F.cross_entropy(*given) + dice_of(*given, 0.01),
}

# %% [markdown]
# And the network that U-Net is compared with: the same, from the same initial weights, but its skips carry zeros. A
# plain **encoder-decoder**. Each decoder's input has the skip in its first half; a hook (lesson
# 11), of the kind that PyTorch calls before the module runs, sets that half to 0.


# %%
def without_skips(model):
    def cut(decoder, args):
        skip, upsampled = args[0].chunk(2, dim=1)
        return torch.cat([torch.zeros_like(skip), upsampled], dim=1)

    for decoder in model.decoder:
        decoder.register_forward_pre_hook(cut)
    return model


def trained(loss, seed, skips=True, log=lambda value: None):
    steps, rng = 6 if plots.fast() else 120, np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = UNet(1, 3, width=8, depth=2) if skips else without_skips(UNet(1, 3, width=8, depth=2))
    optimiser = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.03, total_steps=steps)
    for _ in range(steps):
        batch = rng.integers(0, len(train.images), 8)
        value = loss(model(torch.from_numpy(train.images[batch])), torch.from_numpy(train.masks[batch]))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        log(value.item())
    return model.eval()


# %% [markdown]
# The schedule warms up and then falls like a cosine (lesson 06). First U-Net against the encoder-decoder, seed by seed
# with the same initial weights and the same batches.

# %%
seeds, chosen = range(1 if plots.fast() else 3), losses["weighted cross-entropy"]
with plots.Training(6 if plots.fast() else 120, "U-Net loss", unit="step") as run:
    nets = {"U-Net": [trained(chosen, 0, log=run.log)]}
nets["U-Net"] += [trained(chosen, seed) for seed in seeds if seed]
nets["encoder-decoder"] = [trained(chosen, seed, skips=False) for seed in seeds]


# %%
def labels_of(model, images=test.images):
    with torch.no_grad():
        return model(torch.from_numpy(images)).argmax(dim=1).numpy()


def scores_of(model):
    """Dice and IoU of organ and lesion, each a mean over the scans that have one."""
    labels, found = labels_of(model), []
    for k in (1, 2):
        there = (test.masks == k).any(axis=(1, 2))
        found += [score[there].mean() for score in overlap_scores(labels == k, test.masks == k)]
    return found


def table(nets):
    print(f"{'':<31}organ Dice            organ IoU             lesion Dice           lesion IoU")
    for name, models in nets.items():
        columns = np.array([scores_of(model) for model in models]).T
        print(f"{name:<31}" + "   ".join(f"{c.mean():.2f} ({c.min():.2f} to {c.max():.2f})" for c in columns))


table(nets)

# %%
predictions = {name: labels_of(models[0]) for name, models in nets.items()}
plots.show(
    figures.side_by_side(test, predictions, (0, 1, 4)),
    alt="Three scans, each with its true mask and the masks of both networks: U-Net's outlines follow the truth, "
    "it misses the smallest lesion; the encoder-decoder's are rounder, with a lesion in the middle of every organ.",
    caption="The encoder-decoder knows where the organs are, but hardly their outlines, and sees a lesion in each. "
    "U-Net misses the smallest one.",
)

# %% [markdown]
# The ranges do not overlap: U-Net is ahead on every seed, in the organs and, by far, in the lesions. Both networks have
# the same parameters, the same start and the same batches; they differ in what the decoder gets to see. All that the
# encoder-decoder knows of an outline has gone through maps of 8 × 8, where one cell stands for 4 × 4 pixels. Many a
# lesion is smaller than that.
#
# ### Which loss finds small things?

# %%
by_loss = {"weighted cross-entropy": nets["U-Net"]}
by_loss |= {name: [trained(loss, seed) for seed in seeds] for name, loss in losses.items() if name not in by_loss}
table(by_loss)

# %% [markdown]
# All five find the organs, which are large enough for any loss. The lesions tell the losses apart.
#
# - **Plain cross-entropy** is a mean over pixels, of which one in seventy is a lesion. Within 120 steps one network
#   learns them well and another not at all. With **weight 5** all three do.
# - **Dice with eps 1**, a common choice, never finds one. A likely reason stands in its gradient: in a scan without
#   lesions every pixel is pushed down with $\varepsilon / v^2$. Where the network has claimed one pixel's worth of
#   lesion ($\sum p = 1$), that is $1 / 4$ for $\varepsilon = 1$ and $0.01 / 1.01^2 = 0.0098$ for $\varepsilon = 0.01$:
#   a quarter of the scans says *claim nothing*, 25 times as loudly.
# - **Dice with eps 0.01** finds lesions on every seed, and **cross-entropy + Dice** does better on average than
#   either of its parts, about as well as the weights: the usual choice in practice (Isensee et al., 2021).
#
# How far can these numbers be trusted? The setting (the generator of the scans, the network's width, the learning rate,
# the number of steps, the weight 5) was chosen by looking at scores on the same 100 test scans that the tables report.
# So the absolute scores are optimistic, in both tables, and the ranking of the losses belongs to this setting. With 70
# steps, or with batches of 4, three things stayed: U-Net was ahead of the encoder-decoder on every seed, weight 5 found
# lesions on every seed, Dice with eps 1 on none. But each of the other three losses then scored 0.00 for the lesions on
# at least one seed, and Dice with eps 0.01 after 70 steps on all three. Change the numbers in `trained` and see.
#
# Three seeds, one small data set, 120 steps. This does not show which loss is best. It shows that a number as
# inconspicuous as `eps` can decide between something and nothing.
#
# How bad is nothing? That depends on how it is averaged.

# %% tags=["nbval-check-output"]
nothing = np.zeros_like(test.masks, bool)
dice, _ = overlap_scores(nothing, test.masks == 2)
print(f"pixels right for who never predicts a lesion: {(test.masks != 2).mean():.3f}")
print(f"mean lesion Dice for the same:                {dice.mean():.2f}")
print(f"share of scans without a lesion:              {1 - (test.masks == 2).any(axis=(1, 2)).mean():.2f}")

# %% [markdown]
# Whoever writes down "Dice 0.27" for a network that has never found a lesion is not lying: empty masks score 1, and a
# mean over all scans has them in. So say over what a score was averaged. The first network of each loss, three ways:

# %%
truth = test.masks == 2
there = truth.any(axis=(1, 2))


def three_averages(pred):
    """Lesion Dice: mean over all scans, mean over those with a lesion, and of all pixels as one large mask."""
    dice, _ = overlap_scores(pred, truth)
    pooled, _ = overlap_scores(pred.reshape(1, -1, 32), truth.reshape(1, -1, 32))
    return dice.mean(), dice[there].mean(), pooled[0]


masks = {name: labels_of(models[0]) == 2 for name, models in by_loss.items()}
print(f"{'':<31}all scans   with a lesion   all pixels as one mask")
for name, pred in masks.items():
    print(f"{name:<31}{{:6.2f}}{{:14.2f}}{{:16.2f}}".format(*three_averages(pred)))
dice, iou = (score[there] for score in overlap_scores(masks["weighted cross-entropy"], truth))
mean = dice.mean()
print(f"first line: mean Dice {mean:.3f}, its IoU {mean / (2 - mean):.3f}; mean of the IoUs {iou.mean():.3f}")

# %% [markdown]
# The last column lets a large lesion count as much as several small ones. And in the last line IoU and Dice part
# company, although one is a function of the other: a mean of a function is not the function of the mean. For a single
# mask the two rank alike; for *averages* over several masks they can disagree about which network is better.
#
# ## Look inside
#
# ### Where to cut
#
# Taking the most probable class is one choice. The probability of a lesion can be cut at any threshold: lower finds
# more and claims more. Move it; the curve is the mean over the scans that have a lesion.

# %%
model = nets["U-Net"][0]
with_lesion = figures.chosen(test, (test.masks == 2).any(axis=(1, 2)))
lesion = figures.predicted(model, with_lesion.images)[:, 2]
figures.thresholds(overlap_scores, lesion, with_lesion)

# %%
means = {t: overlap_scores(lesion > t, with_lesion.masks == 2)[0].mean() for t in figures.THRESHOLDS}
best = max(means, key=means.get)
print(f"mean Dice at 0.5: {means[0.5]:.3f}   best at {best:g}: {means[best]:.3f}")

# %% [markdown]
# This network was trained with weight 5 on the lesions and claims too much, so that a higher threshold does better. Who
# chooses a threshold on the test scans, as this figure does, has used them for training: in earnest it takes a third
# set of scans.

# %% [markdown]
# ### What the skips carry
#
# Now cut them one at a time *in the trained network*, and see what it can still do. Before you look: which of the two
# matters more for the organs' outlines, which for the lesions?

# %%
figures.inside(model, test, overlap_scores)

# %%
cuts = {"none": (), "skip 0 (32 × 32)": (0,), "skip 1 (16 × 16)": (1,), "both": (0, 1)}
print(f"{'cut':<20}organ Dice              lesion Dice")
for name, cut in cuts.items():
    found = []
    for unet in nets["U-Net"]:
        labels = figures.predicted(unet, test.images, cut).argmax(axis=1)
        found.append(figures.per_class(labels, test.masks, overlap_scores))
    print(f"{name:<20}" + "     ".join(f"{c.mean():.2f} ({c.min():.2f} to {c.max():.2f})" for c in np.array(found).T))

# %% [markdown]
# Skip 0 carries the fine picture: without it little is left of organs and lesions. Without skip 1 the organs stay
# nearly as good as they were, and a good part of the lesions is lost; how much differs from seed to seed. With both
# cut, the network is left with the 8 × 8 cells of its bottom: two of the three find hardly any organ with them, and
# none gets beyond 0.05 in the lesions.
#
# Careful with the conclusion. The encoder-decoder above, which learned *without* skips, scores far better than this
# U-Net with both cut. Cutting measures how much a trained network **relies** on a part, not what could be done without
# it: its decoder has never seen zeros there. Lesson 11 switches channels off, and the same caution holds.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# You have predicted two sizes above. Here are two broken functions.

# %% [markdown] about="repair_upsample_bilinear_forward"
# ### Repair: masks that do not lie on their image
#
# `repair_upsample_bilinear_forward(x, scale) -> y`: bilinear enlarging as in `upsample_bilinear_forward`. The pictures
# it makes look right. But a mask that was predicted on small images and enlarged by it lies up to half a small pixel
# beside what it should cover, at the borders most.


# %% exercise="repair_upsample_bilinear_forward"
def repair_upsample_bilinear_forward(x, scale):
    """x (n, c, h, w), scale -> y (n, c, scale * h, scale * w)"""
    ### BEGIN SOLUTION
    tents = []
    for size in x.shape[2:]:
        at = ((np.arange(scale * size) + 0.5) / scale - 0.5).clip(0, size - 1)
        tents.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size))))
    return tents[0] @ x @ tents[1].T
    ### BROKEN
    # tents = []
    # for size in x.shape[2:]:
    #     at = np.linspace(0, size - 1, scale * size)
    #     tents.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size))))
    # return tents[0] @ x @ tents[1].T
    ### END SOLUTION


# %% check="repair_upsample_bilinear_forward"
check(repair_upsample_bilinear_forward)

# %% [markdown] about="repair_dice_loss_forward"
# ### Repair: a loss that forgets the small ones
#
# `repair_dice_loss_forward(probs, targets, eps=1.0) -> loss`: the Dice loss. With one example in the batch and
# something to find in each channel it is nearly right; in a batch, an example with a large mask drowns one with a small
# mask, and a mask that is empty and found empty costs as much as a total miss. Two faults.


# %% exercise="repair_dice_loss_forward"
def repair_dice_loss_forward(probs, targets, eps=1.0):
    """probs (n, c, h, w), targets (n, c, h, w) of 0 and 1 -> loss ()"""
    ### BEGIN SOLUTION
    axes = (2, 3)
    both, areas = (probs * targets).sum(axes), (probs + targets).sum(axes)
    return 1 - ((2 * both + eps) / (areas + eps)).mean()
    ### BROKEN
    # axes = (0, 2, 3)
    # both, areas = (probs * targets).sum(axes), (probs + targets).sum(axes)
    # return 1 - (2 * both / (areas + eps)).mean()
    ### END SOLUTION


# %% check="repair_dice_loss_forward"
check(repair_dice_loss_forward)

# %% [markdown]
# ### What people believe, and what is true
#
# - **"A deconvolution undoes a convolution."** It has the shape of the way back, and its own weights. You saw $C^\top C
#   \neq 1$. In signal processing *deconvolution* means the real inverse, which is why this course avoids the word.
# - **"Padding makes the output larger."** Of a convolution. In a transposed one it crops, and `output_padding` adds
#   rows at one side, which is not the opposite of `padding`.
# - **"Checkerboards come from too little training."** They come from geometry. Training can fight them if the stride
#   divides the kernel size; else some cells have more painters than others, for every input.
# - **"Bilinear is bilinear."** Two definitions are in use, and they differ by up to half a pixel. A network that was
#   trained with one and is run with the other gets slightly moved masks, and no error.
# - **"98 % of the pixels are right."** So they are for a network that has never found a lesion.
# - **"Dice 0.27 is better than nothing."** It may be nothing. Ask over which images and classes the mean runs, and what
#   an empty mask scores.
# - **"Dice is the loss for small classes."** It weighs by area, which helps. Its gradient can also vanish: see above
#   what `eps` did. Which loss is best is a question to be measured, task by task.
# - **"Skip connections of U-Net and ResNet are the same."** Lesson 12 adds, so that the gradient gets through; here
#   maps are concatenated, so that fine detail does. U-Net's decoder learns what to do with both halves.
#
# ## Where it is used, and what came after
#
# U-Net was made for cell images and is still what medical segmentation is measured against: Isensee et al. (2021)
# report that a plain U-Net with carefully chosen settings (*nnU-Net*) did better than most specialised designs on 23
# data sets. It is also the network inside many diffusion models, which denoise an image at all scales at once (Ho, Jain
# and Abbeel, 2020). Semantic segmentation in photographs came from fully convolutional networks (Long, Shelhamer and
# Darrell, 2015). Transposed convolutions are the generators of lesson 22; pixel shuffle comes from super-resolution
# (Shi et al., 2016), and its inverse cuts images into patches, as vision transformers need them (lesson 19).
#
# You can now
#
# - say why the gradient of a convolution is a transposed convolution, and show it with your own functions;
# - work out its output size, and the size that the floor has lost;
# - see a checkerboard in kernel size and stride before it is painted;
# - write a loss for small classes and its gradient, and say what an empty mask is worth;
# - build a U-Net, and find out what each skip carries.
#
# To read:
#
# - O. Ronneberger, P. Fischer and T. Brox, *U-Net: convolutional networks for biomedical image segmentation*, 2015.
# - J. Long, E. Shelhamer and T. Darrell, *Fully convolutional networks for semantic segmentation*, 2015.
# - A. Odena, V. Dumoulin and C. Olah, *Deconvolution and checkerboard artifacts*, 2016.
# - W. Shi et al., *Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
#   network*, 2016; A. Aitken et al., *Checkerboard artifact free sub-pixel convolution*, 2017.
# - F. Milletari, N. Navab and S.-A. Ahmadi, *V-Net*, 2016. The Dice loss.
# - V. Dumoulin and F. Visin, *A guide to convolution arithmetic for deep learning*, 2016. Every size, drawn.
