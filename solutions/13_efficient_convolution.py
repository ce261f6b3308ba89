# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 13 · Efficient convolution
#
# A convolution looks in two directions at once: across the image, through its window, and across the channels. A
# **separable** convolution does one after the other, first a small kernel for each channel by itself (*depthwise*),
# then a mixture of the channels at each pixel (*pointwise*), and needs a small part of the multiplications. You will
# build both halves, forwards and backwards, and what grew around them: channel shuffle, squeeze-and-excitation, the
# inverted residual block that runs in telephones.
#
# And you will count. The counts are exact and easily predicted; then a stopwatch is held to them, and it does not
# agree: eight times fewer multiplications are seldom eight times less time. Why not is half of the lesson.
#
# **You need** lessons 08 (batch norm), 09 (convolution, groups), 10 (global average) and 12 (skip connections).
# **Time:** about five hours, four of them for the exercises.

# %% setup=true
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

# %%
torch.set_num_threads(1)  # one thread: what is timed here can be compared, and small nets train faster
figures = widgets.efficient_convolution
plots.show(
    figures.overview(),
    alt="Four square tables, a row for each of 8 outputs, a column for each of 8 inputs. Standard: a 3 by 3 kernel in "
    "every cell. Four groups: blocks of two along the diagonal. Depthwise: the diagonal. Pointwise: a single weight in "
    "every cell.",
    caption="From 8 channels (columns) to 8 (rows): which output reads which input, and with what kernel. Depthwise "
    "and pointwise together reach everything that the standard layer reaches, with 136 weights in place of 576.",
)

# %% [markdown]
# ## Play first
#
# First a guess, before any formula:

# %%
figures.guess_cost()

# %% [markdown]
# Now the picture from above, in your hands. The two separable halves are PyTorch's functions for now, yours as soon as
# they are written; nobody has told the picture what they read, it changes one input channel after the other and looks
# which outputs answer. Before you move, say what you expect:
#
# 1. `2 groups`, then `4 groups`: how many weights are left of 576?
# 2. `m = 2` is depthwise with two kernels for each channel: which channel does output 5 read?
# 3. `separable`, depthwise and then pointwise: how many channels does one output see, and through what window?
# 4. For which kernel size is the separable pair *more* expensive than the standard layer?

# %%
halves = [reference(name) for name in ("depthwise_conv2d_forward", "pointwise_conv2d_forward")]
figures.reads(halves, halves)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - A half and a quarter: with $g$ groups a kernel reads only one $g$-th of the channels.
# - Channel 2. The two outputs of a channel stand side by side: output $k$ reads channel $k$ // 2.
# - All of them, through the full window: everything that the standard layer sees. But it sees it through far fewer
#   weights.
# - 1 × 1: there the standard layer is the pointwise half already, and the depthwise half comes on top.
#
# </details>
#
# ### What groups cannot see
#
# Grouped layers are cheap as well, and they have a flaw that shows when two of them follow each other. Take three
# groups, look at what output 5 hears of, and then shuffle. With six groups, is one shuffle enough?

# %%
figures.wires(reference("channel_shuffle"), reference("channel_shuffle"))

# %% [markdown]
# <details><summary>Is it?</summary>
#
# Without a shuffle, the network falls into $g$ networks that never meet. With it, each group of the second layer gets
# its channels from different groups of the first: all of them, if it has at least as many channels as there are groups.
# With six groups of two it has not: output 5 hears of 4 inputs, and it takes another layer to hear of the rest.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | layer | `groups` | weights | an output reads | MACs for one image |
# |---|---|---|---|---|
# | standard | 1 | `(O, C, KH, KW)` | all $C$ channels | $O\,C\,K_HK_W \cdot H'W'$ |
# | grouped | $g$ | `(O, C / g, KH, KW)` | the $C/g$ of its group | $\frac{1}{g}\,O\,C\,K_HK_W \cdot H'W'$ |
# | depthwise | $C$ | `(C·m, 1, KH, KW)` | one channel | $C\,m\,K_HK_W \cdot H'W'$ |
# | pointwise | 1 | `(O, C, 1, 1)` | all channels, one pixel | $O\,C \cdot H'W'$ |
#
# A channel of one image is a plane of numbers, its feature map; $H' \times W'$ are the **places** of the output's
# planes. A **MAC** is a multiply–accumulate: a weight times an input, added to a sum. That is two floating-point
# operations, so **FLOPs = 2 × MACs**. (Beware when you read papers: many write FLOPs and count MACs.)
#
# Depthwise and pointwise together, with $m = 1$, against a standard layer with $K \times K$ kernels:
# $$\frac{C K^2 + O\,C}{O\,C K^2} = \frac{1}{O} + \frac{1}{K^2}.$$
# With 3 × 3 kernels it is more than a ninth, however many channels there are. What $1/O$ adds to that soon stops
# mattering.
#
# ### What is given up
#
# Nothing is free. Put the two halves together, without an activation between, and they are a standard convolution. Its
# kernel from channel $c$ to output $o$ is
# $$w_{oc}[a, b] = p_{oc}\; d_c[a, b],$$
# the pointwise weight times the depthwise kernel. So all $O$ kernels that look at channel $c$ are one and the same
# kernel, larger or smaller: $O\,K^2$ free numbers have become $O + K^2$. What a standard layer could do in addition, to
# look for an edge in channel 3 for one output and for a spot in channel 3 for another, is gone. In the words of linear
# algebra: the $O$ kernels of a channel, as the rows of an $O \times K^2$ matrix, have rank 1; with $m$ kernels for each
# channel they have rank $m$. What that costs a network is a question for an experiment.
#
# ### Depthwise, backwards
#
# With stride $s$, padding $p$, and $m$ outputs for each channel, output $k$ reads channel $\lfloor k/m \rfloor$:
# $$y_k[i, j] = b_k + \sum_{a, b} w_k[a, b]\; x_{\lfloor k/m \rfloor}[is + a - p,\; js + b - p].$$
# Compare with lesson 09: the sum over channels is missing, nothing else. Every number has the gradient of all places
# that used it, so
# $$db_k = \sum_{n, i, j} dy_k[i, j], \qquad
#   dw_k[a, b] = \sum_{n, i, j} dy_k[i, j]\; x_{\lfloor k/m \rfloor}[is + a - p,\; js + b - p].$$
# The pixel $x_c[u, v]$ was used by the outputs $k = cm, \dots, cm + m - 1$, in each of them by every place $(i, j)$ and
# entry $(a, b)$ that meet there, $is + a - p = u$ and $js + b - p = v$:
# $$dx_c[u, v] = \sum_{k = cm}^{cm + m - 1} \;\; \sum_{a, b, i, j \text{ that meet at } u, v} dy_k[i, j]\, w_k[a, b].$$
# In code it is easier the other way round: walk over $(a, b)$, and let every $dy_k[i, j]\,w_k[a, b]$ go *to* the pixel
# where it belongs. What arrives there is added.
#
# ### Pointwise, backwards
#
# $y_o = b_o + \sum_c w_{oc}\,x_c$ at each pixel: lesson 01's layer, with $N \cdot H \cdot W$ rows. Hence $dx_c =
# \sum_o w_{oc}\,dy_o$ at each pixel, $dw_{oc} = \sum dy_o\,x_c$ and $db_o = \sum dy_o$ over all pixels of all examples.
#
# ### Channel shuffle
#
# Write the channels as a table with a row for each group, and read it by columns: $(g, C/g)$ becomes $(C/g, g)$,
# transposed. The inverse writes by columns and reads by rows: the same operation with $C/g$ in place of $g$. It moves
# numbers and computes nothing, so its gradient moves them back.
#
# ### Squeeze-and-excitation
#
# A convolution treats every image alike. Hu, Shen and Sun (2018) let the image turn its own channels up and down:
# **squeeze** each plane to its mean $s_c = \frac{1}{HW}\sum_{i,j} x_c[i, j]$, send the means through two small linear
# layers, and **excite**, that is, multiply each plane by what comes out, a **gate** between 0 and 1 ($\sigma$ is the
# sigmoid):
# $$u = W_1 s + b_1, \qquad z = \max(u, 0), \qquad v = W_2 z + b_2, \qquad g = \sigma(v), \qquad
#   y_c[i, j] = g_c\, x_c[i, j].$$
#
# Backwards from the end. The one number $g_c$ multiplied a whole plane:
# $$dg_c = \sum_{i, j} dy_c[i, j]\, x_c[i, j], \qquad dv = dg \cdot g\,(1 - g), \qquad du = (W_2^\top dv) \cdot [u > 0],
#   \qquad ds = W_1^\top du,$$
# with the usual $dW_2 = dv\,z^\top$, $db_2 = dv$, $dW_1 = du\,s^\top$, $db_1 = du$, each summed over the batch. And $x$
# was used twice, in the product and in the mean:
# $$dx_c[i, j] = g_c\, dy_c[i, j] + \frac{1}{HW}\, ds_c.$$
# The second term is the same for all pixels of a plane: through it, every pixel is answerable for all channels.
#
# ### The inverted residual, and why it ends without an activation
#
# Depthwise filters are cheap, and pointwise mixing costs most. MobileNetV2 (Sandler et al., 2018) therefore filters in
# *many* channels and carries *few* from block to block: **expand** with a pointwise convolution to $t$ times as many
# channels, filter them depthwise, **project** back to few, and add the input (lesson 12), if the shapes are the same. A
# classical residual block is wide outside and narrow inside; this one is the other way round, hence *inverted*. Batch
# norm follows each convolution; ReLU6, $\min(\max(z, 0), 6)$, follows the first two (its bound of 6 suits the small
# number formats of telephones). No activation follows the projection. Why not?
#
# Take something that needs two numbers, points on a spiral. Spread it at random over $d$ dimensions, apply a ReLU, and
# let the best linear map read the two numbers back. In 2 dimensions, what do you expect? In 30? And without the ReLU?

# %%
figures.lossy()

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# In two dimensions a ReLU crushes whole sectors of the plane to a line or a point, and no linear map behind it brings
# them back. In thirty, what one direction loses others keep: nearly everything can be read. So an activation belongs
# where the channels are many, and not where they are few. The experiment is Sandler's; the reader, the best linear map,
# is ours.
#
# </details>
#
# ### What a stopwatch measures
#
# A processor has a greatest rate of arithmetic (the *peak*, FLOPs per second) and a greatest rate at which memory
# delivers numbers (the *bandwidth*, bytes per second). A layer that does $F$ FLOPs and moves $B$ bytes takes at least
# $$\max\Big(\frac{F}{\text{peak}},\; \frac{B}{\text{bandwidth}}\Big).$$
# Its **arithmetic intensity** $F / B$ says which of the two counts. Plot the greatest possible FLOPs per second over
# it: a slope, $\text{bandwidth} \cdot F/B$, that ends in a flat ceiling, the peak. This is the **roofline** (Williams,
# Waterman and Patterson, 2009).
#
# Now the layers, with $C$ channels in and out, $P$ places, numbers of 4 bytes, each moved once. Input and output are
# $8\,C P$ bytes. A standard 3 × 3 layer does $9\,C^2 P$ MACs: for many places that is $\frac{8}{9C}$ bytes per MAC, and
# the more channels, the fewer. A pointwise layer: $\frac{8}{C}$. A depthwise layer does $9\,C P$ MACs: $\frac{8}{9}$
# bytes per MAC, *however many channels there are*. Its intensity is $2 \cdot \frac{9}{8} = 2.25$ FLOPs per byte. Most
# processors' roofs bend well to the right of that (you will measure where yours does), and left of the bend a layer
# spends its time waiting for numbers.

# %% [markdown]
# ## From scratch
#
# Nine functions. In all of them the batch comes first and the channels second; `b` is always given.

# %% [markdown] about="depthwise_conv2d_forward"
# ### Depthwise convolution
#
# `depthwise_conv2d_forward(x, w, b, stride=1, padding=0) -> y`: `x (N, C, H, W)`, `w (C·m, 1, KH, KW)`, `b (C·m,)`,
# `y (N, C·m, H', W')`. The number of kernels for each channel, $m$, follows from the shapes. Output channel $k$ reads
# input channel $k$ // $m$, as PyTorch has it with `groups=C`. Stride and padding (zeros) are the same in both
# directions; the sizes need not divide: $H' = \lfloor (H + 2\,\text{padding} - K_H) / \text{stride} \rfloor + 1$.
#
# By hand, two channels of 1 × 3 pixels, `[1, 2, 3]` and `[10, 20, 30]`, kernels of 1 × 2, `[1, 1]` and `[1, −1]`, `b =
# [0, 1]`. Channel 0: `[1 + 2, 2 + 3] = [3, 5]`. Channel 1: `[10 − 20 + 1, 20 − 30 + 1] = [−9, −9]`. With $m = 2$, the
# kernels `[1, 1], [1, −1], [1, 1], [1, −1]` and no bias, there are four outputs: `[3, 5]` and `[−1, −1]` from channel
# 0, `[30, 50]` and `[−10, −10]` from channel 1.

# %%
x = np.array([[1.0, 2, 3], [10, 20, 30]]).reshape(1, 2, 1, 3)
sum_and_difference = np.array([[1.0, 1], [1, -1]]).reshape(2, 1, 1, 2)
y = reference("depthwise_conv2d_forward")(x, sum_and_difference, np.array([0.0, 1]))
np.testing.assert_allclose(y.reshape(2, 2), [[3, 5], [-9, -9]])
twice = np.concatenate([sum_and_difference, sum_and_difference])
y = reference("depthwise_conv2d_forward")(x, twice, np.zeros(4))
np.testing.assert_allclose(y.reshape(4, 2), [[3, 5], [-1, -1], [30, 50], [-10, -10]])


# %% exercise="depthwise_conv2d_forward"
def depthwise_conv2d_forward(x, w, b, stride=1, padding=0):
    """x (N, C, H, W), w (C·m, 1, KH, KW), b (C·m,) -> y (N, C·m, H', W')"""
    ### BEGIN SOLUTION
    (kh, kw), m = w.shape[2:], len(w) // x.shape[1]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))).repeat(m, axis=1)
    oh, ow = (padded.shape[2] - kh) // stride + 1, (padded.shape[3] - kw) // stride + 1
    y = np.zeros((len(x), len(w), oh, ow)) + b[:, None, None]
    for i, j in np.ndindex(kh, kw):
        y += w[:, 0, i, j, None, None] * padded[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride]
    return y
    ### END SOLUTION


# %% check="depthwise_conv2d_forward"
check(depthwise_conv2d_forward)

# %% [markdown]
# Your function on two channels with two kernels each. Point at an output, or reach it with Tab.

# %%
figures.planes(depthwise_conv2d_forward, reference("depthwise_conv2d_forward"))

# %% [markdown] about="depthwise_conv2d_backward"
# ### Depthwise convolution, backwards
#
# `depthwise_conv2d_backward(dy, x, w, b, stride=1, padding=0) -> dx, dw, db`: `dy` like `y`; the gradients like `x`,
# `w` and `b`.
#
# By hand, the example with $m = 1$ and `dy = [1, 0]` for channel 0, `[0, 2]` for channel 1. `db = [1, 2]`. The window
# of the one that counts is `[1, 2]` in channel 0 and `[20, 30]` in channel 1: `dw = [1, 2]` and `2 · [20, 30] = [40,
# 60]`. Backwards, each sends `dy` times its kernel to its window: `dx = [1, 1, 0]` and `[0, 2, −2]`.

# %%
dy = np.array([[1.0, 0], [0, 2]]).reshape(1, 2, 1, 2)
dx, dw, db = reference("depthwise_conv2d_backward")(dy, x, sum_and_difference, np.array([0.0, 1]))
np.testing.assert_allclose(dx.reshape(2, 3), [[1, 1, 0], [0, 2, -2]])
np.testing.assert_allclose(dw.reshape(2, 2), [[1, 2], [40, 60]])
np.testing.assert_allclose(db, [1, 2])


# %% exercise="depthwise_conv2d_backward"
def depthwise_conv2d_backward(dy, x, w, b, stride=1, padding=0):
    """dy (N, C·m, H', W'), x (N, C, H, W), w (C·m, 1, KH, KW), b (C·m,) -> dx, dw, db, each like its namesake"""
    ### BEGIN SOLUTION
    (n, c, h, wide), m, (oh, ow) = x.shape, len(w) // x.shape[1], dy.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))).repeat(m, axis=1)
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i, j in np.ndindex(w.shape[2:]):
        rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
        dw[:, 0, i, j] = (dy * padded[:, :, rows, columns]).sum(axis=(0, 2, 3))
        dpadded[:, :, rows, columns] += dy * w[:, 0, i, j, None, None]
    dx = dpadded.reshape(n, c, m, *padded.shape[2:]).sum(axis=2)
    return dx[:, :, padding : padding + h, padding : padding + wide], dw, dy.sum(axis=(0, 2, 3))
    ### END SOLUTION


# %% check="depthwise_conv2d_backward"
check(depthwise_conv2d_backward)

# %% [markdown] about="pointwise_conv2d_forward"
# ### Pointwise convolution
#
# `pointwise_conv2d_forward(x, w, b) -> y`: `x (N, C, H, W)`, `w (O, C, 1, 1)`, `b (O,)`, `y (N, O, H, W)`.
#
# By hand, an image of 1 × 2 pixels with the channels `[1, 2]` and `[3, 4]`, weights `[1, 10]`, `[0, 1]`, `[1, −1]` and
# `b = [0, 0, 5]`. The first pixel is the vector (1, 3): it becomes (1 + 30, 3, 1 − 3 + 5) = (31, 3, 3). The second,
# (2, 4), becomes (42, 4, 3). As channels: `[31, 42]`, `[3, 4]`, `[3, 3]`.

# %%
x, b = np.array([[1.0, 2], [3, 4]]).reshape(1, 2, 1, 2), np.array([0.0, 0, 5])
w = np.array([[1.0, 10], [0, 1], [1, -1]]).reshape(3, 2, 1, 1)
np.testing.assert_allclose(reference("pointwise_conv2d_forward")(x, w, b).reshape(3, 2), [[31, 42], [3, 4], [3, 3]])


# %% exercise="pointwise_conv2d_forward"
def pointwise_conv2d_forward(x, w, b):
    """x (N, C, H, W), w (O, C, 1, 1), b (O,) -> y (N, O, H, W)"""
    ### BEGIN SOLUTION
    return np.einsum("oc,nchw->nohw", w[:, :, 0, 0], x) + b[:, None, None]
    ### END SOLUTION


# %% check="pointwise_conv2d_forward"
check(pointwise_conv2d_forward)

# %% [markdown] about="pointwise_conv2d_backward"
# ### Pointwise convolution, backwards
#
# `pointwise_conv2d_backward(dy, x, w, b) -> dx, dw, db`: like `x`, `w` and `b`.
#
# By hand, the same image, and `dy` is 1 for output 0 at the first pixel and for output 1 at the second, else 0. First
# pixel: `dx = 1 · (1, 10)`; second: `dx = 1 · (0, 1)`; as channels `[1, 0]` and `[10, 1]`. Output 0 was paired with the
# pixel (1, 3), output 1 with (2, 4): `dw = [1, 3], [2, 4], [0, 0]`, and `db = [1, 1, 0]`.

# %%
dy = np.array([[1.0, 0], [0, 1], [0, 0]]).reshape(1, 3, 1, 2)
dx, dw, db = reference("pointwise_conv2d_backward")(dy, x, w, b)
np.testing.assert_allclose(dx.reshape(2, 2), [[1, 0], [10, 1]])
np.testing.assert_allclose(dw.reshape(3, 2), [[1, 3], [2, 4], [0, 0]])
np.testing.assert_allclose(db, [1, 1, 0])


# %% exercise="pointwise_conv2d_backward"
def pointwise_conv2d_backward(dy, x, w, b):
    """dy (N, O, H, W), x (N, C, H, W), w (O, C, 1, 1), b (O,) -> dx (N, C, H, W), dw (O, C, 1, 1), db (O,)"""
    ### BEGIN SOLUTION
    dx = np.einsum("oc,nohw->nchw", w[:, :, 0, 0], dy)
    dw = np.einsum("nohw,nchw->oc", dy, x)[:, :, None, None]
    return dx, dw, dy.sum(axis=(0, 2, 3))
    ### END SOLUTION


# %% check="pointwise_conv2d_backward"
check(pointwise_conv2d_backward)

# %% [markdown]
# The first figure, now drawn by your two functions. Where they read what they should not, it is outlined.

# %%
figures.reads([depthwise_conv2d_forward, pointwise_conv2d_forward], halves, kind="separable")

# %% [markdown] about="count_flops"
# ### Predict: what it costs
#
# `count_flops(in_channels, out_channels, kernel_size, output_size, groups=1) -> parameters, macs, flops`: for a
# convolution **with bias**, for **one** image. `kernel_size` is the pair (KH, KW), `output_size` the pair of the
# output's height and width. Parameters include the bias; macs count weights times inputs and leave the bias out, as
# papers do; flops are 2 × macs. Both numbers of channels are multiples of `groups`. Three whole numbers.
#
# By hand, 4 channels to 8, 3 × 3, 2 groups, 5 × 5 places: a kernel reads 4 / 2 = 2 planes through 9 pixels, 18 weights;
# 8 kernels have 144, and 8 biases: 152 parameters. Each weight is used at 25 places: 3600 MACs, 7200 FLOPs.

# %%
np.testing.assert_allclose(reference("count_flops")(4, 8, (3, 3), (5, 5), 2), [152, 3600, 7200])


# %% exercise="count_flops"
def count_flops(in_channels, out_channels, kernel_size, output_size, groups=1):
    """in_channels, out_channels, kernel_size (2), output_size (2), groups -> parameters (), macs (), flops ()"""
    ### BEGIN SOLUTION
    (kh, kw), (oh, ow) = kernel_size, output_size
    weights = out_channels * (in_channels // groups) * kh * kw
    macs = weights * oh * ow
    return weights + out_channels, macs, 2 * macs
    ### END SOLUTION


# %% check="count_flops"
check(count_flops)

# %% [markdown]
# Three layers by your count. How does the share of the pointwise part (blue) change with the channels? With 7 × 7
# kernels, what is left of the standard layer's cost? And from how many groups on is the grouped layer the cheapest?

# %%
figures.costs(count_flops, reference("count_flops"))

# %% [markdown] about="channel_shuffle"
# ### Channel shuffle
#
# `channel_shuffle(x, groups) -> y`: `x (N, C, H, W)`, `y` of the same shape; `groups` divides $C$. First come the first
# channels of all groups, then the second channels of all groups, and so on.
#
# By hand, six channels in two groups, 0 1 2 | 3 4 5: `y` has them in the order 0 3 1 4 2 5.

# %%
six = np.arange(6.0).reshape(1, 6, 1, 1)
np.testing.assert_allclose(reference("channel_shuffle")(six, 2).ravel(), [0, 3, 1, 4, 2, 5])


# %% exercise="channel_shuffle"
def channel_shuffle(x, groups):
    """x (N, C, H, W), groups -> y (N, C, H, W)"""
    ### BEGIN SOLUTION
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).swapaxes(1, 2).reshape(n, c, h, w)
    ### END SOLUTION


# %% check="channel_shuffle"
check(channel_shuffle)

# %% [markdown] about="channel_shuffle_backward"
# ### Channel shuffle, backwards
#
# `channel_shuffle_backward(dy, x, groups) -> dx`: like `x`. (`x` itself is not needed; it is given since a backward
# pass is given all that the forward pass saw.)
#
# By hand, `dy = [10, 11, 12, 13, 14, 15]` belongs to the channels 0 3 1 4 2 5. So channel 1 gets 12, channel 2 gets 14:
# `dx = [10, 12, 14, 11, 13, 15]`.

# %%
up = np.arange(10.0, 16).reshape(1, 6, 1, 1)
np.testing.assert_allclose(reference("channel_shuffle_backward")(up, six, 2).ravel(), [10, 12, 14, 11, 13, 15])


# %% exercise="channel_shuffle_backward"
def channel_shuffle_backward(dy, x, groups):
    """dy (N, C, H, W), x (N, C, H, W), groups -> dx (N, C, H, W)"""
    ### BEGIN SOLUTION
    n, c, h, w = dy.shape
    return dy.reshape(n, c // groups, groups, h, w).swapaxes(1, 2).reshape(n, c, h, w)
    ### END SOLUTION


# %% check="channel_shuffle_backward"
check(channel_shuffle_backward)

# %% [markdown]
# The wires once more, laid by your shuffle; a wrong one is orange.

# %%
figures.wires(channel_shuffle, reference("channel_shuffle"))

# %% [markdown] about="squeeze_excite_forward"
# ### Squeeze-and-excitation
#
# `squeeze_excite_forward(x, w1, b1, w2, b2) -> y`: `x (N, C, H, W)`, `w1 (r, C)`, `b1 (r,)`, `w2 (C, r)`, `b2 (C,)`,
# `y` like `x`. Means, linear layer, ReLU, linear layer, sigmoid: a gate for each channel of each example, multiplied
# onto its plane.
#
# By hand, one image with the channels `[1, 3]` and `[0, 2]`: the means are `s = (2, 1)`. With `w1 = [[1, −1]]`, `b1 =
# [0]`: `u = 2 − 1 = 1`, `z = 1`. With `w2 = [[0], [1.0986]]` ($\ln 3$) and `b2 = [0, 0]`: `v = (0, 1.0986)`, the gates
# are (0.5, 0.75), and `y` is `[0.5, 1.5]` and `[0, 1.5]`.

# %%
x = np.array([[1.0, 3], [0, 2]]).reshape(1, 2, 1, 2)
small = np.array([[1.0, -1]]), np.zeros(1), np.array([[0], [np.log(3)]]), np.zeros(2)
y = reference("squeeze_excite_forward")(x, *small)
np.testing.assert_allclose(y.reshape(2, 2), [[0.5, 1.5], [0, 1.5]])


# %% exercise="squeeze_excite_forward"
def squeeze_excite_forward(x, w1, b1, w2, b2):
    """x (N, C, H, W), w1 (r, C), b1 (r,), w2 (C, r), b2 (C,) -> y (N, C, H, W)"""
    ### BEGIN SOLUTION
    z = np.maximum(x.mean(axis=(2, 3)) @ w1.T + b1, 0)
    gate = 1 / (1 + np.exp(-(z @ w2.T + b2)))
    return x * gate[:, :, None, None]
    ### END SOLUTION


# %% check="squeeze_excite_forward"
check(squeeze_excite_forward)

# %% [markdown] about="squeeze_excite_backward"
# ### Squeeze-and-excitation, backwards
#
# `squeeze_excite_backward(dy, x, w1, b1, w2, b2) -> dx, dw1, db1, dw2, db2`: each like its namesake.
#
# By hand, the example from before and `dy` all ones. `dg = (1 + 3, 0 + 2) = (4, 2)`; times $g(1-g)$ = (0.25, 0.1875):
# `dv = (1, 0.375)`. So `db2 = [1, 0.375]` and, since `z = 1`, `dw2 = [[1], [0.375]]`. `du = 1 · 0 + 0.375 · 1.0986 =
# 0.412`, as `u` was positive: `db1 = [0.412]`, `dw1 = 0.412 · (2, 1) = [[0.824, 0.412]]`. `ds = 0.412 · (1, −1)`,
# halved (two pixels) and added to the gates: `dx = [0.706, 0.706]` and `[0.544, 0.544]`.

# %%
dx, dw1, db1, dw2, db2 = reference("squeeze_excite_backward")(np.ones_like(x), x, *small)
np.testing.assert_allclose(dx.reshape(2, 2), [[0.706, 0.706], [0.544, 0.544]], atol=1e-3)
np.testing.assert_allclose(dw1, [[0.824, 0.412]], atol=1e-3)
np.testing.assert_allclose(dw2, [[1], [0.375]])


# %% exercise="squeeze_excite_backward"
def squeeze_excite_backward(dy, x, w1, b1, w2, b2):
    """dy (N, C, H, W), x (N, C, H, W), w1 (r, C), b1 (r,), w2 (C, r), b2 (C,) -> dx, dw1, db1, dw2, db2"""
    ### BEGIN SOLUTION
    s = x.mean(axis=(2, 3))
    u = s @ w1.T + b1
    z = np.maximum(u, 0)
    gate = 1 / (1 + np.exp(-(z @ w2.T + b2)))
    dv = (dy * x).sum(axis=(2, 3)) * gate * (1 - gate)
    du = dv @ w2 * (u > 0)
    ds = du @ w1 / (x.shape[2] * x.shape[3])
    dx = dy * gate[:, :, None, None] + ds[:, :, None, None]
    return dx, du.T @ s, du.sum(axis=0), dv.T @ z, dv.sum(axis=0)
    ### END SOLUTION


# %% check="squeeze_excite_backward"
check(squeeze_excite_backward)

# %% [markdown]
# ## Against a reference
#
# Your formulas, finite differences (your `numerical_gradient` of lesson 01) and PyTorch, with random upstream
# gradients; the depthwise layer with two kernels for each channel, stride 2 and padding.

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(13)


def normal(*shape):
    return rng.normal(size=shape)


image, wide, point = normal(2, 3, 4, 5), (normal(6, 1, 3, 2), normal(6)), (normal(4, 3, 1, 1), normal(4))
inner = normal(2, 3), normal(2), normal(3, 2), normal(3)
pairs = {
    "depthwise": (depthwise_conv2d_forward, depthwise_conv2d_backward, normal(2, 6, 2, 3), (image, *wide, 2, 1)),
    "pointwise": (pointwise_conv2d_forward, pointwise_conv2d_backward, normal(2, 4, 4, 5), (image, *point)),
    "squeeze-excite": (squeeze_excite_forward, squeeze_excite_backward, normal(2, 3, 4, 5), (image, *inner)),
}

# %%
gradients = {}
for name, place in (("depthwise", 0), ("depthwise", 1), ("pointwise", 0), ("squeeze-excite", 0)):
    forward, backward, up, given = pairs[name]

    def loss(z, forward=forward, up=up, given=given, place=place):
        return (up * forward(*given[:place], z, *given[place + 1 :])).sum()

    got, want = (f(up, *given)[place] for f in (backward, reference(backward.__name__)))
    gradients[f"{('dx', 'dw')[place]} {name}"] = got, numerical_gradient(loss, given[place]), want
plots.gradient_check(gradients)

# %% [markdown]
# What the mathematics promised, in numbers. The two halves are one convolution with the kernels $p_{oc}\,d_c$; a matrix
# whose rows are the kernels of one input channel has rank 1 for it, and full rank for a standard layer; shuffling with
# $g$ groups and then with $C/g$ gives the channels back.

# %% tags=["nbval-check-output"]
d, p, zeros = rng.normal(size=(4, 1, 3, 3)), rng.normal(size=(6, 4, 1, 1)), np.zeros(6)
x = rng.normal(size=(2, 4, 5, 6))
halves_of_it = pointwise_conv2d_forward(depthwise_conv2d_forward(x, d, np.zeros(4), 1, 1), p, zeros)
whole = p * d[:, 0]  # (6, 4, 3, 3): every kernel of channel c is a multiple of d[c]
standard = F.conv2d(torch.tensor(x), torch.tensor(whole), padding=1).numpy()
print("two halves are one convolution:  ", np.allclose(halves_of_it, standard))
print("ranks, kernels of each channel:  ", [int(np.linalg.matrix_rank(whole[:, c].reshape(6, 9))) for c in range(4)])
free = rng.normal(size=(6, 4, 3, 3))
print("ranks in a standard convolution: ", [int(np.linalg.matrix_rank(free[:, c].reshape(6, 9))) for c in range(4)])
twelve = rng.normal(size=(1, 12, 2, 2))
print("shuffled by 3, then by 4:        ", np.array_equal(channel_shuffle(channel_shuffle(twelve, 3), 4), twelve))

# %% [markdown]
# And what a check says of the commonest slip with squeeze-and-excitation, a gate taken for a constant:

# %% tags=["nbval-check-output"]
def constant_gates(dy, x, w1, b1, w2, b2):
    gate = squeeze_excite_forward(x, w1, b1, w2, b2) / x
    return dy * gate, *squeeze_excite_backward(dy, x, w1, b1, w2, b2)[1:]


print(examine(constant_gates, "squeeze_excite_backward").mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `depthwise_conv2d_forward` | `nn.Conv2d(c, c * m, k, groups=c)` | `groups` is the only sign that it is depthwise; weights `(c·m, 1, k, k)` |
# | `pointwise_conv2d_forward` | `nn.Conv2d(c, o, 1)` | the same as `nn.Linear` with the channels last |
# | `channel_shuffle` | `F.channel_shuffle(x, groups)`, `nn.ChannelShuffle(groups)` | the groups of the layer *before* |
# | ReLU6 | `F.relu6`, `nn.ReLU6()` | $\min(\max(z, 0), 6)$ |
# | separable, SE, inverted residual | not in `torch.nn` | torchvision has them inside its MobileNets and EfficientNets |
#
# Verified:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
images = torch.randn(2, 6, 5, 4, dtype=torch.float64)
wide, point = nn.Conv2d(6, 12, 3, groups=6).double(), nn.Conv2d(6, 4, 1).double()
linear = nn.Linear(6, 4).double()
linear.load_state_dict({"weight": point.weight.flatten(1).detach(), "bias": point.bias.detach()})
by_hand = depthwise_conv2d_forward(images.numpy(), wide.weight.detach().numpy(), wide.bias.detach().numpy())
facts = {
    "groups=6 is your depthwise convolution, m = 2": (wide(images), torch.tensor(by_hand)),
    "a 1 × 1 convolution is nn.Linear, channels last": (
        point(images).permute(0, 2, 3, 1), linear(images.permute(0, 2, 3, 1))),
    "F.channel_shuffle is your shuffle": (
        F.channel_shuffle(images, 3), torch.tensor(channel_shuffle(images.numpy(), 3))),
}  # fmt: skip
for fact, (left, right) in facts.items():
    print("right" if torch.allclose(left, right) else "WRONG", "·", fact)

# %% [markdown] about="SqueezeExcite"
# ### Squeeze-and-excitation as a module
#
# `SqueezeExcite(channels, reduction)`: two linear layers with biases, `self.reduce` from `channels` to `channels //
# reduction` and `self.expand` back to `channels` (these names, so that weights can be loaded). `forward(self, x)` takes
# `x (N, C, H, W)` and is your `squeeze_excite_forward` in torch's words. Autograd does the rest.
#
# By hand: with `channels=4, reduction=2`, `reduce.weight` is (2, 4) and `expand.weight` is (4, 2). If all parameters
# are 0, each gate is $\sigma(0) = 0.5$ and `y = x / 2`.


# %% exercise="SqueezeExcite"
class SqueezeExcite(nn.Module):
    """x (N, C, H, W) -> y (N, C, H, W)

    Two methods: __init__ makes the layers reduce and expand, forward(self, x) finds the gates and applies them.
    """

    def __init__(self, channels, reduction):
        super().__init__()
        ### BEGIN SOLUTION
        self.reduce = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, channels)

    def forward(self, x):
        gate = torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]
        ### END SOLUTION

# %% check="SqueezeExcite"
check(SqueezeExcite)

# %% [markdown] about="InvertedResidual"
# ### The inverted residual block
#
# `InvertedResidual(in_channels, out_channels, stride, expand_ratio)`, MobileNetV2's block, in this order:
#
# | attribute | what it is |
# |---|---|
# | `expand`, `bn1` | 1 × 1 convolution to `in_channels * expand_ratio` channels; `nn.BatchNorm2d`; then ReLU6 |
# | `depthwise`, `bn2` | depthwise 3 × 3 convolution, padding 1, with the `stride`; `nn.BatchNorm2d`; then ReLU6 |
# | `project`, `bn3` | 1 × 1 convolution to `out_channels`; `nn.BatchNorm2d`; **no activation** |
#
# No convolution has a bias (lesson 08 says why). With `expand_ratio` 1 there is nothing to expand: `expand` and `bn1`
# do not exist then, and the block begins with `depthwise`. The input is added to the result if, and only if, the stride
# is 1 and `in_channels` equals `out_channels`. You may use `nn.Conv2d`, `nn.BatchNorm2d` and `F.relu6`. It is checked
# in training and in evaluation.
#
# By hand, the shapes for `InvertedResidual(3, 3, 1, 2)`: `expand.weight` (6, 3, 1, 1), `depthwise.weight` (6, 1, 3, 3),
# `project.weight` (3, 6, 1, 1); and there is a skip.


# %% exercise="InvertedResidual"
class InvertedResidual(nn.Module):
    """x (N, in_channels, H, W) -> y (N, out_channels, ⌈H / stride⌉, ⌈W / stride⌉)

    Two methods: __init__ makes the layers, forward(self, x) runs them.
    """

    def __init__(self, in_channels, out_channels, stride, expand_ratio):
        super().__init__()
        ### BEGIN SOLUTION
        inner = in_channels * expand_ratio
        self.expands, self.skips = expand_ratio != 1, stride == 1 and in_channels == out_channels
        if self.expands:
            self.expand, self.bn1 = nn.Conv2d(in_channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.project, self.bn3 = nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)

    def forward(self, x):
        y = F.relu6(self.bn1(self.expand(x))) if self.expands else x
        y = F.relu6(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(y))
        return x + y if self.skips else y
        ### END SOLUTION

# %% check="InvertedResidual"
check(InvertedResidual)

# %% tags=["nbval-check-output"]
small_images = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
for module in (SqueezeExcite(3, 1), InvertedResidual(3, 3, 1, 2), InvertedResidual(3, 4, 2, 2)):
    shape = tuple(module.double()(small_images).shape)
    print(f"{type(module).__name__:<17} -> {shape!s:<13} gradcheck:", torch.autograd.gradcheck(module, small_images))

# %% [markdown]
# ## At work
#
# ### Counted, then timed
#
# Six layers for the same job, 64 channels in and out on 56 × 56 places. First your counts, then the stopwatch: PyTorch
# on one thread, without gradients, the quickest of 25 runs after two that warm it up. (Not the mean: what else the
# machine does in the meantime can only add to a time.)


# %%
def seconds(runs, rounds=25):
    """The least time of each run. They take turns, so that whatever else the machine does meets all of them."""
    spent = np.zeros((2 + rounds, len(runs)))  # two to warm up
    for row in spent:
        for k, run in enumerate(runs.values()):
            start = time.perf_counter()
            run()
            row[k] = time.perf_counter() - start
    return dict(zip(runs, spent[2:].min(axis=0), strict=True))


# %%
c, size = 64, 56
convs = {"standard": (c, c, 3, 1), "4 groups": (c, c, 3, 4), "16 groups": (c, c, 3, 16)}
convs |= {"depthwise": (c, c, 3, c), "pointwise": (c, c, 1, 1)}
layers = {name: nn.Conv2d(i, o, k, padding=k // 2, groups=g) for name, (i, o, k, g) in convs.items()}
counts = {name: count_flops(i, o, (k, k), (size, size), g)[:2] for name, (i, o, k, g) in convs.items()}
layers["separable"] = nn.Sequential(layers["depthwise"], layers["pointwise"])
counts["separable"] = tuple(map(sum, zip(counts["depthwise"], counts["pointwise"], strict=True)))
for name, layer in layers.items():
    assert sum(p.numel() for p in layer.parameters()) == counts[name][0]
planes = torch.randn(1, c, size, size)
with torch.inference_mode():
    times = seconds({name: lambda layer=layer: layer(planes) for name, layer in layers.items()})

# %% [markdown]
# Commit yourself before you look at the table.

# %%
faster = {name: times["standard"] / spent for name, spent in times.items()}
fewer = {name: counts["standard"][1] / macs for name, (_, macs) in counts.items()}
figures.guess_time((fewer["separable"], faster["separable"]))

# %%
print("            parameters   million MACs   million FLOPs   times fewer   times quicker")
for name, (parameters, macs) in counts.items():
    millions = f"{macs / 1e6:>15.1f}{2 * macs / 1e6:>16.1f}"
    print(f"{name:<12}{parameters:>10}{millions}{fewer[name]:>14.1f}{faster[name]:>16.1f}")

# %% [markdown]
# The last two columns compare with the standard layer. All but the last are the same on every machine in the world; the
# last is yours. Where the two agree, fewer multiplications are less time. Look for
#
# - the **pointwise** layer: one large matrix product, which is what processors and their libraries are best at;
# - the **depthwise** layer: by far the fewest MACs. Is it as many times quicker?
# - the **groups**: 16 groups have a quarter of the MACs of 4 groups. Do they take a quarter of the time?
# - the **separable** pair: what you save in the end.
#
# ### Why: the roofline
#
# The machine's two limits, measured here: the peak as the best rate of three matrix products, the bandwidth as the rate
# of copying an array that is larger than the caches close to the core. Then each layer's FLOPs, its least possible
# traffic (input, weights and output, once each), and what it reached.

# %%
with torch.inference_mode():
    squares, long = {n: torch.randn(n, n) for n in (256, 384, 512)}, torch.randn(2**23)
    copy, three = torch.empty_like(long), ("standard", "depthwise", "pointwise")
    runs = {n: lambda a=a: a @ a for n, a in squares.items()} | {"copy": lambda: copy.copy_(long)}
    again = seconds(runs | {name: lambda name=name: layers[name](planes) for name in three})
peak, bandwidth = max(2 * n**3 / again[n] for n in squares), 2 * long.nbytes / again["copy"]
measured = {name: (*figures.traffic(name, c, size), again[name]) for name in three}
print(f"this machine: bends at {peak / bandwidth:.0f} FLOPs per byte\n")
print("            bytes per MAC   FLOPs per byte   share of the peak   share of its roof")
for name, (flops, moved, spent) in measured.items():
    reached, bound = flops / spent, min(peak, bandwidth * flops / moved)
    print(f"{name:<12}{2 * moved / flops:>13.3f}{flops / moved:>17.1f}{reached / peak:>20.0%}{reached / bound:>20.0%}")

# %%
figures.roof(peak, bandwidth, measured)

# %% [markdown]
# Dots are measured, the ring is where the layer that you choose may at best be. Walk the depthwise layer through the
# channels: does its ring move? Walk the pointwise one. And the standard layer with 512 channels on 7 × 7 places: why is
# its intensity so much lower than on 56 × 56?
#
# <details><summary>What to make of it</summary>
#
# - Bytes per MAC are arithmetic, not measurement: a depthwise layer moves about one byte for each MAC, whatever its
#   channels; the standard one of the table sixty times less. A pointwise layer's ring climbs the slope with its
#   channels until arithmetic is the limit. With 512 channels on 7 × 7 places nearly all traffic is weights.
# - The roof is a bound, and no more. A layer below it loses for other reasons: loops too short to fill the vector
#   units, rearranging of the data, starting costs. A dot *above* the roof is no miracle either: its data were still in
#   a cache from the run before, and did not come from memory; and a matrix product may be less than the true peak.
# - The layer with the fewest MACs has the least arithmetic per byte. On any machine whose roof bends to the right of
#   2.25, and most do, memory governs its time and not its MACs.
#
# </details>
#
# ### Same MACs, different shapes
#
# Ma et al. (2018), the authors of ShuffleNet V2, measured networks on telephones and graphics cards and drew four
# guidelines: (1) layers with as many inputs as outputs move the least, (2) many groups cost time, (3) many small
# branches cost time, (4) element-wise operations (ReLU, addition) cost time, though they have hardly any FLOPs. (They
# write MAC for *memory access cost*; here it is a multiply–accumulate.) Two of the four are quickly tried, with
# pointwise layers that all have the same MACs on 28 × 28 places:

# %%
shapes = {"128 → 128": (128, 128, 1), "64 → 256": (64, 256, 1), "32 → 512": (32, 512, 1)}
shapes |= {"256 → 256, 4 groups": (256, 256, 4), "512 → 512, 16 groups": (512, 512, 16)}
runs = {}
for name, (i, o, g) in shapes.items():
    layer, given = nn.Conv2d(i, o, 1, groups=g), torch.randn(1, i, 28, 28)
    runs[name] = lambda layer=layer, given=given: layer(given)
with torch.inference_mode():
    spent = seconds(runs)
print("                       million MACs   million numbers moved   time, against the first")
for name, (i, o, g) in shapes.items():
    parameters, macs, _ = count_flops(i, o, (1, 1), (28, 28), g)
    moved = (i + o) * 28**2 + parameters
    print(f"{name:<23}{macs / 1e6:>12.2f}{moved / 1e6:>24.3f}{spent[name] / spent['128 → 128']:>26.1f}")

# %% [markdown]
# The numbers moved are certain: for the same product $i \cdot o$, the sum $i + o$ is least when both are equal, and
# with groups the planes grow while the work does not. The last column says what your machine makes of it. So the number
# of MACs is a good thing to know of a network, and a bad thing to optimise alone.
#
# ### In NumPy
#
# Your layers in a network, behind the layer protocol of lesson 04. One class serves all convolutions. The **stem**, the
# first layer before the blocks, from 1 channel to 8, is depthwise too: with a single input channel and $m = 8$ that is
# a standard convolution.


# %%
class ConvLayer:
    """A convolution, given its forward and its backward function."""

    def __init__(self, forward, backward, w, **options):
        self.functions, self.options, self.w, self.b = (forward, backward), options, w, np.zeros(len(w))

    def forward(self, x):
        self.x = x
        return self.functions[0](x, self.w, self.b, **self.options)

    def backward(self, dy):
        dx, self.dw, self.db = self.functions[1](dy, self.x, self.w, self.b, **self.options)
        return dx

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]


# %%
class GlobalAverage:
    """The mean of each plane: (N, C, H, W) -> (N, C)."""

    def forward(self, x):
        self.size = x.shape[2:]
        return x.mean(axis=(2, 3))

    def backward(self, dy):
        return dy[:, :, None, None] * np.full(self.size, 1 / np.prod(self.size))

    def parameters(self):
        return []

    gradients = parameters


# %%
Sequential, LinearLayer, ReLULayer = mine("Sequential"), mine("LinearLayer"), mine("ReLULayer")
momentum_step = mine("momentum_step")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
digits = data.digits()
rng = np.random.default_rng(0)


def depthwise(outputs, stride):
    w = rng.normal(0, np.sqrt(2 / 9), (outputs, 1, 3, 3))
    return ConvLayer(depthwise_conv2d_forward, depthwise_conv2d_backward, w, stride=stride, padding=1)


def pointwise(i, o):
    return ConvLayer(pointwise_conv2d_forward, pointwise_conv2d_backward, rng.normal(0, np.sqrt(2 / i), (o, i, 1, 1)))


layers = [depthwise(8, 1), ReLULayer(), depthwise(8, 2), pointwise(8, 24), ReLULayer()]
layers += [depthwise(24, 1), pointwise(24, 32), ReLULayer(), GlobalAverage()]
model = Sequential([*layers, LinearLayer(rng.normal(0, np.sqrt(1 / 32), (10, 32)), np.zeros(10))])
print(sum(p.size for p in model.parameters()), "parameters")

# %%
epochs = 2 if plots.fast() else 8
x_train, x_test = (x.reshape(-1, 1, 8, 8) for x in (digits.x_train, digits.x_test))
velocities = [np.zeros_like(param) for param in model.parameters()]
with plots.Training(epochs, "train loss", "test accuracy") as run:
    for epoch in range(epochs):
        losses, lr = [], 0.1 * (1 - epoch / epochs)
        for k in np.array_split(rng.permutation(len(digits.x_train)), 23):
            logits = model.forward(x_train[k])
            losses.append(cross_entropy_forward(logits, digits.y_train[k]))
            model.backward(cross_entropy_backward(1.0, logits, digits.y_train[k]))
            for param, grad, velocity in zip(model.parameters(), model.gradients(), velocities, strict=True):
                param[:], velocity[:] = momentum_step(param, grad, velocity, lr)
        run.log(np.mean(losses), (model.forward(x_test).argmax(axis=1) == digits.y_test).mean())

# %% [markdown]
# ### The same MACs, spent in three ways
#
# What is the saving good for? For width. Three small networks in PyTorch with about the same MACs: the same stem (3 ×
# 3, stride 2, so that 4 × 4 places are left), three blocks, global average, a linear layer. The blocks are standard
# convolutions with 8 channels, separable ones with 20, or inverted residuals with 7 that are expanded fourfold. And for
# comparison the separable ones with only 8 channels, a quarter of the MACs. Each is trained from five seeds; within a
# seed, all see the same batches in the same order.


# %%
def conv(i, o, k, stride=1, groups=1):
    return [nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU6()]


blocks = {
    "standard": lambda c: conv(c, c, 3),
    "separable": lambda c: conv(c, c, 3, groups=c) + conv(c, c, 1),
    "inverted": lambda c: [InvertedResidual(c, c, 1, 4)],
}


def network(kind, c, excite=False):
    layers = conv(1, c, 3, stride=2)
    for _ in range(3):
        layers += blocks[kind](c) + [SqueezeExcite(c, 4)] * excite
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


# %%
def macs_of(model):
    """MACs for one digit: each convolution's weights times the places of its output."""
    found = []
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(lambda layer, _, y: found.append(y.numel() * layer.weight[0].numel()))
    model.eval()(torch.zeros(1, 1, 8, 8))
    return sum(found)


# %%
x_train, x_test = (torch.tensor(x, dtype=torch.float32) for x in (x_train, x_test))
y_train, y_test = torch.tensor(digits.y_train), torch.tensor(digits.y_test)
epochs, seeds = (1, range(2)) if plots.fast() else (4, range(5))


def trained(seed, *options):
    torch.manual_seed(seed)
    model, order = network(*options), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 23 * epochs)
    for _ in range(epochs):
        for k in torch.randperm(len(x_train), generator=order).tensor_split(23):
            loss = F.cross_entropy(model(x_train[k]), y_train[k])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return model, (model.eval()(x_test).argmax(dim=1) == y_test).float().mean().item()


# %%
choices = {"standard, 8": ("standard", 8), "separable, 20": ("separable", 20), "inverted, 7": ("inverted", 7)}
choices["separable, 8"] = ("separable", 8)
models, accuracies = {}, {}
print("               parameters    MACs   test accuracy, mean (least to greatest)")
for name, options in choices.items():
    models[name], found = zip(*(trained(seed, *options) for seed in seeds), strict=True)
    found = accuracies[name] = np.array(found)
    numbers = f"{sum(p.numel() for p in models[name][0].parameters()):>10}{macs_of(network(*options)):>8}"
    print(f"{name:<15}{numbers}   {found.mean():.3f} ({found.min():.3f} to {found.max():.3f})")

# %%
fig, ax = plots.figure(6, 2.6)
for place, (name, found) in enumerate(accuracies.items()):
    colour = figures.NETWORKS[choices[name][0]]
    ax.plot([place] * len(found), found, "o", color=colour, alpha=0.7)
    ax.plot([place - 0.2, place + 0.2], [found.mean()] * 2, color=colour, lw=2.5)
ax.set(xticks=range(4), xticklabels=accuracies, ylabel="test accuracy", ylim=(None, 1))
plots.show(
    fig,
    alt="Test accuracy of four networks, five seeds each: separable with 20 channels and inverted lie above standard "
    "with 8 channels; separable with 8 channels lies far below.",
    caption="A point is one seed, a bar the mean. The first three have about the same MACs, the last a quarter.",
)

# %% [markdown]
# At the same MACs, the separable and the inverted network are ahead on average, and steadier: the standard network's
# best run is about as good, one of its five is far behind. At the same *width*, the separable network is much
# worse: it has given up what the rank says. So separability does not make a layer better. It makes it cheap, and what
# pays is what the savings buy, 20 channels instead of 8. These are small networks, small digits, four epochs and five
# seeds. On ImageNet, and at full width, Howard et al. (2017) report a loss of 1.1 points of accuracy for less than an
# eighth of the MACs.
#
# ### Does squeeze-and-excitation help?
#
# The same two networks with your SqueezeExcite behind each block, paired by seed.

# %%
excited, gains = {}, {}
for name in ("separable, 20", "inverted, 7"):
    excited[name], found = zip(*(trained(seed, *choices[name], True) for seed in seeds), strict=True)
    gains[name] = 100 * (np.array(found) - accuracies[name])
    each = ", ".join(f"{gain:+.1f}" for gain in gains[name])
    print(f"{name:<14} with gates: {gains[name].mean():+.1f} points of accuracy on average ({each})")

# %% [markdown]
# Mixed. The separable network gains 0.6 points and loses in no seed; the inverted one loses 1.3, two of its seeds a
# great deal. One of the 360 test digits is 0.28 points, and without any gates the seeds differ by about two: nothing to
# rely on, in either direction. (Hu et al. report 1.5 points for ResNet-50 on ImageNet, with a thousand classes and
# hundreds of channels to choose from. Where you use it, measure it.) What are the gates doing?
#
# ## Look inside
#
# ### What the gates do
#
# Every digit goes through the separable network with gates. What does each block's small network make of it? The rows
# of the left picture are the ten classes, the columns channels; a gate that is alike for all classes is a constant, and
# could be a part of the weights.


# %%
def gates_of(model):
    """The gates of all SqueezeExcite blocks for the test digits: {block: (examples, channels)}."""
    found = {}
    for layer in model.modules():
        if isinstance(layer, SqueezeExcite):
            name = f"block {len(found) + 1}"
            found[name] = None
            layer.expand.register_forward_hook(
                lambda _, __, v, name=name: found.__setitem__(name, torch.sigmoid(v).detach().numpy())
            )
    model.eval()(x_test)
    return found


gates = [gates_of(model) for model in excited["separable, 20"]]
figures.gates(gates[0], digits.y_test)

# %%
print("         mean gate (over the seeds)   spread over digits   of the classes' means")
for name in gates[0]:
    found = np.array([g[name] for g in gates])  # (seeds, digits, channels)
    means = np.array([found[:, digits.y_test == k].mean(axis=1) for k in range(10)])
    level, spread, between = found.mean(axis=(1, 2)), found.std(axis=1).mean(), means.std(axis=0).mean()
    print(f"{name}  {level.mean():.2f} ({level.min():.2f} to {level.max():.2f}){spread:>26.2f}{between:>23.2f}")

# %% [markdown]
# In the first two blocks the gates stand about half open and hardly move. What moves, moves with the class: they *know*
# something of it and make little use of it. A gate that is the same for all digits is a factor on its channel; the next
# depthwise kernel has only this channel, a batch norm follows it, and lesson 08 has shown what a batch norm does to a
# factor: it takes it out. So nearly all that these gates say is unsaid one layer later. The third block has learned to
# leave its gates open, in all five networks. Hu et al. saw both in ResNet-50: gates that differ little between classes
# in early blocks, and near the end of the network one block that is saturated with most gates close to 1.
#
# ### What the depthwise kernels have learned
#
# A depthwise kernel has one plane to look at and nine numbers to do it with, so it can be read. Below are those of the
# separable network without gates, each block's twenty, and what one of them makes of its plane for a digit.

# %%
def depthwise_layers(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]


def kernels_of(model):
    named = enumerate(depthwise_layers(model), 1)
    return {f"block {k}": layer.weight[:, 0].detach().numpy() for k, layer in named}


plain, before, after = models["separable, 20"][0], {}, {}
for k, layer in enumerate(depthwise_layers(plain), 1):

    def keep(_, given, y, name=f"block {k}"):
        before[name], after[name] = given[0].detach().numpy(), y.detach().numpy()

    layer.register_forward_hook(keep)
first_of_each = [int(np.flatnonzero(digits.y_test == digit)[0]) for digit in range(10)]
plain.eval()(x_test[first_of_each])
figures.kernels(kernels_of(plain), before, after)

# %% [markdown]
# A kernel whose weights have nearly all one sign smooths; one whose weights cancel answers to edges and is blind to
# even grey. Counted, in all five networks, and beside it in networks that have not been trained:

# %%
def balance(models):
    """|sum of the weights| / sum of their sizes, for the kernels of each block: (blocks, kernels)."""
    blocks = [np.concatenate(of) for of in zip(*(kernels_of(model).values() for model in models), strict=True)]
    return np.array([np.abs(w.sum(axis=(1, 2))) / np.abs(w).sum(axis=(1, 2)) for w in blocks])


untrained = [network("separable", 20) for _ in range(20)]
print("           smooth, untrained     edges, untrained")
for k, (found, start) in enumerate(zip(balance(models["separable, 20"]), balance(untrained), strict=True), 1):
    smooth, edges = f"{(found > 0.7).mean():>10.0%}{(start > 0.7).mean():>11.0%}", (found < 0.3).mean()
    print(f"block {k}{smooth}{edges:>10.0%}{(start < 0.3).mean():>11.0%}")

# %% [markdown]
# In the first block the shares are nearly those of untrained kernels, and the second has a few more that smooth: nine
# random numbers answer to edges more often than not. So a sheet of kernels full of edges proves nothing, unless one has
# looked at an untrained sheet as well. The third block is different. Its kernels have become smooth, and a likely
# reason stands behind it: the global average asks how much there is of something, not where, and a kernel whose weights
# cancel finds nothing in an even plane.
#
# ## Repair, predict, and what goes wrong
#
# A broken block, and two more counts.

# %% [markdown] about="repair_separable_forward"
# ### Repair: a block that is too linear
#
# `repair_separable_forward(x, w_depth, b_depth, w_point, b_point, stride=1) -> y`: the second half of an inverted
# residual without its batch norms: a depthwise 3 × 3 convolution with padding 1, ReLU6, then a pointwise projection,
# which stays linear. `x (N, C, H, W)`, `w_depth (C, 1, 3, 3)`, `b_depth (C,)`, `w_point (O, C, 1, 1)`, `b_point (O,)`.
# The version below runs, and all shapes are right. But the next block never sees a negative number, and just before the
# last line $y$ is still a linear function of $x$ (but for the biases).


# %% exercise="repair_separable_forward"
def repair_separable_forward(x, w_depth, b_depth, w_point, b_point, stride=1):
    """x (N, C, H, W), w_depth (C, 1, 3, 3), b_depth (C,), w_point (O, C, 1, 1), b_point (O,) -> y (N, O, H', W')"""
    ### BEGIN SOLUTION
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    y = np.einsum("nchwij,cij->nchw", windows, w_depth[:, 0]) + b_depth[:, None, None]
    y = np.clip(y, 0, 6)
    return np.einsum("nchw,oc->nohw", y, w_point[:, :, 0, 0]) + b_point[:, None, None]
    ### BROKEN
    # padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    # windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    # y = np.einsum("nchwij,cij->nchw", windows, w_depth[:, 0]) + b_depth[:, None, None]
    # y = np.einsum("nchw,oc->nohw", y, w_point[:, :, 0, 0]) + b_point[:, None, None]
    # return np.clip(y, 0, 6)
    ### END SOLUTION


# %% check="repair_separable_forward"
check(repair_separable_forward)

# %% [markdown] about="count_inverted_residual"
# ### Predict: a whole block
#
# `count_inverted_residual(in_channels, out_channels, height, width, stride, expand_ratio) -> parameters, macs`: for the
# block that you built, on one image of `height` × `width`. Parameters: the convolutions' weights (no biases) and each
# batch norm's gains and biases. MACs: the convolutions' only. The depthwise convolution's output has $\lceil
# \text{height} / \text{stride} \rceil \times \lceil \text{width} / \text{stride} \rceil$ places.
#
# By hand, 4 channels to 6, 5 × 5 pixels, stride 2, `expand_ratio` 2. Inside are 8 channels. `expand`: 4 · 8 = 32
# weights at 25 places, 800 MACs. `depthwise`: 72 weights at 3 · 3 = 9 places, 648. `project`: 48 weights at 9 places,
# 432. Together 152 weights and 1880 MACs; the batch norms add 2 · (8 + 8 + 6) = 44 parameters: 196.

# %%
np.testing.assert_allclose(reference("count_inverted_residual")(4, 6, 5, 5, 2, 2), [196, 1880])


# %% exercise="count_inverted_residual"
def count_inverted_residual(in_channels, out_channels, height, width, stride, expand_ratio):
    """in_channels, out_channels, height, width, stride, expand_ratio -> parameters (), macs ()"""
    ### BEGIN SOLUTION
    inner = in_channels * expand_ratio
    places = -(-height // stride) * -(-width // stride)
    weights = 9 * inner + inner * out_channels
    parameters, macs = weights + 2 * (inner + out_channels), weights * places
    if expand_ratio > 1:
        parameters += in_channels * inner + 2 * inner
        macs += in_channels * inner * height * width
    return parameters, macs
    ### END SOLUTION


# %% check="count_inverted_residual"
check(count_inverted_residual)

# %% [markdown] about="compound_scaling"
# ### Predict: a larger network
#
# A network can be made larger in three ways: more layers (**depth**), more channels (**width**), larger images
# (**resolution**). Tan and Le (2019) grow all three together: for one number $\varphi$, depth by $\alpha^\varphi$,
# width by $\beta^\varphi$, resolution (height and width of the image each) by $\gamma^\varphi$.
#
# `compound_scaling(phi, alpha, beta, gamma) -> depth, width, resolution, flops`: the three factors, and the factor by
# which the FLOPs of a network of ordinary convolutions grow. How does each of the three enter there? `phi` need not be
# whole.
#
# By hand, EfficientNet's $\alpha = 1.2$, $\beta = 1.1$, $\gamma = 1.15$ and $\varphi = 2$: depth 1.44, width 1.21,
# resolution 1.3225. One step multiplies the FLOPs by 1.92, two steps by 3.69.

# %%
np.testing.assert_allclose(reference("compound_scaling")(2, 1.2, 1.1, 1.15), [1.44, 1.21, 1.3225, 3.6875], rtol=1e-4)


# %% exercise="compound_scaling"
def compound_scaling(phi, alpha, beta, gamma):
    """phi, alpha, beta, gamma -> depth (), width (), resolution (), flops ()"""
    ### BEGIN SOLUTION
    depth, width, resolution = alpha**phi, beta**phi, gamma**phi
    return depth, width, resolution, depth * width**2 * resolution**2
    ### END SOLUTION


# %% check="compound_scaling"
check(compound_scaling)

# %% [markdown]
# Your factors at work: a network of 8 equal layers, grown in one direction or in all three, with the same FLOPs each
# time. The last column is what rounding to whole layers, channels and pixels leaves of it. Which way gives the most
# layers? Which adds no parameters at all?

# %%
figures.growth(compound_scaling, reference("compound_scaling"))

# %% [markdown]
# <details><summary>What there was to see, and what is claimed</summary>
#
# Depth alone adds the most layers. Depth alone and width alone add the same parameters, as many times as FLOPs (but for
# rounding); resolution adds none. That growing all three is *better* than one alone, at equal FLOPs, is Tan and Le's finding on ImageNet; the
# factors came from a small search there ($\alpha\beta^2\gamma^2 \approx 2$ was demanded, so that $\varphi$ counts
# doublings). Nothing in the formula says so, and with other blocks, other data or time in place of FLOPs other factors
# win.
#
# </details>
#
# ### What people believe, and what is true
#
# - **"Eight times fewer FLOPs, so eight times faster."** You have measured it. FLOPs count arithmetic; time is also
#   memory, and how well a layer's loops fit the machine. Compare networks by time on the machine that will run them.
# - **"FLOPs are FLOPs."** Many papers count a multiply–accumulate as one. A factor of 2 between two tables is often
#   nothing else.
# - **"Depthwise convolutions are what makes MobileNet cheap to run."** They make it possible; what is left to compute
#   is pointwise: 95 % of the multiplications of the first MobileNet, as Howard et al. (2017) report.
# - **"A depthwise layer is a convolution with one kernel."** It has as many kernels as channels (or $m$ times as
#   many), and no two channels ever meet in it. Forget the pointwise layer, and the network falls into $C$ networks.
# - **"`groups` only changes the speed."** It changes the weights' shape, what is connected with what, and the function.
# - **"More groups are always cheaper."** In MACs. Many tiny matrix products may take longer than a few large ones.
# - **"An activation after every layer."** Not after the projection: with few channels a ReLU destroys what it cuts off.
#   (Between depthwise and pointwise, MobileNet has one and Xception none: Chollet found his network better without.)
# - **"If shapes agree, add the skip."** With stride 2 they do not agree, and thinning the input to make them agree is
#   not what MobileNetV2 does: it leaves the skip out.
# - **"Squeeze-and-excitation is attention to places."** It has one number per channel and image; all places get the
#   same gate. (Attention proper comes in lesson 18.)

# %% [markdown]
# ## Where it is used, and what came after
#
# Separable filters are old in image processing; separable in space and channels they came into networks with Laurent
# Sifre's work on scattering with Stéphane Mallat (2014). François Chollet built *Xception* on them (2017), and Howard
# et al. the first MobileNet (2017), for telephones. ShuffleNet (Zhang et al., 2018) made the pointwise layers grouped
# as well, since they had become the bulk, and needed the shuffle for it; its second version (Ma et al., 2018) counted
# time instead of FLOPs and gave groups up again. Squeeze-and-excitation won the ImageNet classification of 2017 and was
# built into MobileNetV3 (Howard et al., 2019), which was found partly by search (lesson 32), and into EfficientNet (Tan
# and Le, 2019). ConvNeXt (Liu et al., 2022) brought depthwise layers with large 7 × 7 kernels into large networks,
# where they stand for what attention does in a transformer: mixing places; the pointwise layers mix channels. That
# division of labour, one layer across places and one across channels, is the transformer block's as well (lesson 19).
#
# You can now
#
# - write depthwise and pointwise convolutions, forwards and backwards, and say what the pair can't express;
# - count parameters and MACs of a layer, a block, a network that grows, without running it;
# - say why the count is not the time, with bytes per MAC and a roofline;
# - build an inverted residual block with gates, and measure whether the gates were worth it.
#
# To read:
#
# - F. Chollet, *Xception: deep learning with depthwise separable convolutions*, 2017.
# - M. Sandler, A. Howard, M. Zhu, A. Zhmoginov and L.-C. Chen, *MobileNetV2: inverted residuals and linear
#   bottlenecks*, 2018. The block, and the spiral.
# - N. Ma, X. Zhang, H.-T. Zheng and J. Sun, *ShuffleNet V2: practical guidelines for efficient CNN architecture
#   design*, 2018. Time against FLOPs.
# - J. Hu, L. Shen and G. Sun, *Squeeze-and-excitation networks*, 2018.
# - M. Tan and Q. V. Le, *EfficientNet: rethinking model scaling for convolutional neural networks*, 2019.
