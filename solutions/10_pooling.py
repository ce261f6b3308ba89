# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · Pooling
#
# A convolution says at every place how strongly its pattern is there. Often that is more detail than the next layer
# needs. A **pooling layer** summarises: it looks through a window, as the convolution does, and keeps the largest
# number in it, or the mean. It learns nothing. It makes the picture smaller, it lets the layers behind it see further,
# and it forgives small shifts. You will build max, average and adaptive pools, forwards and backwards, and compute how
# far a unit sees.
#
# How much is forgiven is a matter that textbooks assert and this lesson measures. The answer has two sides: a little
# invariance is gained, and something that the convolution had is lost.
#
# **You need** lessons 03 (cross-entropy), 04 (layers with `forward` and `backward`), 06 (Adam), 08 (buffers) and 09
# (convolution, windows, stride, padding). **Time:** about four hours, three of them for the exercises.

# %% setup=true
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

# %%
pools = [reference("max_pool2d_forward"), reference("avg_pool2d_forward")]
plots.show(
    widgets.pooling.overview(*pools, reference("adaptive_avg_pool2d_forward")),
    alt="An image of 6 by 7 whole numbers, and what four pools make of it: the maxima and the means of windows of 2 by "
    "2, each 3 by 3; means of larger windows, 2 by 3; and one number, the mean of all.",
    caption="Windows of 2 × 2 leave the seventh column out: it does not fill a window. Adaptive and global pools look "
    "at all of it.",
)

# %% [markdown]
# ## Play first
#
# Two guesses, to be committed before you read on. How far does a unit see through a few layers? And who gets the
# gradient when nobody is larger than the others?

# %%
widgets.pooling.guess_field(reference)

# %%
widgets.pooling.guess_ties(reference)

# %% [markdown]
# Now the pools themselves: PyTorch's functions for now, yours as soon as they are written. Point at an output to see
# its window. Say first what you expect:
#
# 1. Kernel 2, stride as the kernel: which cells of `x` have no say in any output?
# 2. Kernel 3, stride 1: in how many windows does a cell lie at most? With stride 3?
# 3. All negative, padding 1: what would come out at the border if the padding were zeros?
# 4. Kernel 2, stride 3: what is lost now?

# %%
widgets.pooling.pools(pools, pools)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# 1. The last column. 7 does not divide by 2, and a window that would hang over the edge is left out.
# 2. In nine; with stride 3 in one.
# 3. Zeros: larger than every number of the image, and made up. Hence −∞ for the maximum. The average takes zeros, and
#    counts them.
# 4. What lies between the windows: 16 of 42 cells are looked at. Such a pool is possible, and hardly ever meant.
#
# </details>
#
# ## The mathematics
#
# ### Shapes first
#
# | layer | input | output | learns |
# |---|---|---|---|
# | max, average pool | `(n, c, h, w)` | `(n, c, h', w')`, $h' = \lfloor (h + 2p - k_h) / s_h \rfloor + 1$ | nothing |
# | adaptive pool | `(n, c, h, w)` | `(n, c, h', w')`, as asked for | nothing |
# | global pool | `(n, c, h, w)` | `(n, c, 1, 1)` | nothing |
#
# Each feature map is pooled by itself: the channels never meet. In PyTorch, kernel and stride may be one number for
# both directions or a pair (downwards, to the right). One line reads both: `kh, kw = np.broadcast_to(kernel_size, 2)`.
# And where no stride is given, it is the kernel: the windows tile the picture.
#
# ### Windows
#
# Output $(i, j)$ has the window $W_{ij}$: $k_h$ rows from row $i\,s_h - p$ on, $k_w$ columns from column
# $j\,s_w - p$ on. What lies outside of the picture is padding. Then
# $$\text{max:}\quad y_{ij} = \max_{q \in W_{ij}} x_q, \qquad\qquad
#   \text{average:}\quad y_{ij} = \frac{1}{k_h k_w} \sum_{q \in W_{ij}} x_q .$$
# For a maximum the padding is $-\infty$, which never wins. For a mean it is 0, and it **counts**: a window half outside
# is divided by $k_h k_w$ all the same, so that borders come out paler. (`count_include_pad=False` divides by the cells
# on the image.)
#
# An **adaptive** pool is asked for the size $h'$ of its output and chooses the windows itself:
# $$\text{rows from } \Big\lfloor \frac{i\,h}{h'} \Big\rfloor \text{ up to, not including, }
#   \Big\lceil \frac{(i + 1)\,h}{h'} \Big\rceil .$$
# Five rows in three windows: from 0 to 2, from 1 to 4, from 3 to 5. That is 2, 3 and 2 rows. Where the sizes do not
# divide, windows overlap and differ in length, and every row is seen. One window, $h' = w' = 1$, is the **global**
# pool.
#
# ### Backwards through a mean
#
# $y_{ij}$ is a sum with equal weights, so each cell of its window gets the weight's share of the gradient, and a cell
# in several windows collects from all of them:
# $$dx_q = \sum_{(i, j)\,:\;q \in W_{ij}} \frac{dy_{ij}}{k_h k_w}.$$
#
# ### Backwards through a maximum
#
# Let the window hold 3, 7, 5. Nudge the 7, and $y$ moves by just as much. Nudge the 5 by less than 2, and nothing
# happens. So $y$ is a plain *copy* of one entry, as long as no other overtakes it: the derivative is 1 there and 0
# everywhere else. With $q^*_{ij}$ for the place of the maximum,
# $$dx_q = \sum_{(i, j)\,:\;q^*_{ij} = q} dy_{ij}.$$
# All of the gradient goes to the winner. It may have won several windows, if these overlap; then it gets the sum.
#
# And if two entries are equal, 7 and 7? Nudge one up by a small $h$: $y$ grows by $h$. Nudge it down: the other one
# stays, $y$ does not move. Slope 1 on one side, 0 on the other: **there is no derivative at a tie**, and any rule that
# hands out 1 in all will do. PyTorch gives everything to the *first* maximum in reading order, along the rows. Behind
# a ReLU windows full of zeros are frequent; but there the choice costs nothing, as the ReLU stops what arrives at its
# zeros.
#
# ### How far a unit sees
#
# The **receptive field** of a unit is the set of pixels that it can depend on. Along one axis it is described by two
# numbers: its **size** $r$, and the **jump** $j$, how many pixels further the field of the next unit begins. A pixel
# sees itself: $r = 1$, $j = 1$. Now add a layer with kernel $k$, stride $s$ and dilation $d$. Its unit $v$ reads the
# units $v s,\; v s + d,\; \dots,\; v s + (k - 1)\,d$ below.
#
# - The first of them begins at pixel $v s \cdot j$. For the next unit, $v + 1$, that is $s j$ pixels further: the new
#   jump is $s\,j$.
# - The last of them lies $(k - 1)\,d$ units behind the first, and so $(k - 1)\,d\,j$ pixels: the new size is
#   $r + (k - 1)\,d\,j$.
#
# Convolution 3, pool 2, convolution 3, pool 2: sizes 1, 3, 4, 8, 10 and jumps 1, 1, 2, 2, 4. The same 3 × 3 kernel adds
# 2 pixels in front of the pool and 4 behind it. Strides make fields grow fast, more than kernels do. (Padding changes
# where a field lies, not how large it is.)
#
# ### What a shift does
#
# Write $T_t x$ for the picture $x$ moved by $t$ pixels. Lesson 09 showed that a convolution with stride 1 is
# **equivariant**, borders aside: $f(T_t x) = T_t f(x)$, the answer moves along. **Invariant** is more: $f(T_t x) =
# f(x)$, the answer stays. A global pool of something equivariant is invariant, for a mean does not ask where.
#
# In between stands the stride. With stride 2, the windows begin at even pixels. Move the picture by 2, and each window
# sees what its neighbour saw: the output moves by one cell. Move it by 1, and every window sees something new:
#
# ```
# x       0 0 1 1 0 0 0 0    max pool 2    0 1 0 0
# moved   0 0 0 1 1 0 0 0    max pool 2    0 1 1 0
# ```
#
# The second output is no shifted version of the first: what was one cell wide has become two. So a stride is
# equivariant for shifts by its multiples *only*, and a network for shifts by multiples of its jump. Signal processing
# has known the reason long since (**aliasing**: before one drops every second sample, what varies too fast for the
# coarser grid must be blurred away), and Azulay and Weiss (2019) and Zhang (2019) pointed at it in modern networks. A
# mean of the window is a blur, a weak one; a maximum is none.

# %% [markdown]
# ## From scratch
#
# Three pools, each forwards and backwards, then the field of a unit. Keep to NumPy; a loop over the places of the
# *output* is fine, and all examples and channels can go through it at once.

# %% [markdown] about="max_pool2d_forward"
# ### Max pooling
#
# `max_pool2d_forward(x, kernel_size, stride=None, padding=0) -> y`: `x (n, c, h, w)`, `y (n, c, h', w')` with the
# height and width from the table above. `kernel_size` and `stride` are a number or a pair, `stride=None` means
# `kernel_size`, `padding` is a number. Windows that hang over the edge are left out.
#
# By hand, with kernel 2 and nothing else:
#
# ```
# 1  3  2         window 1 3    so y = 5   (the third column fills no window)
# 5  4  0                5 4
# ```
#
# With `stride=1` a second window, 3 2 / 4 0, follows: `y = [[5, 4]]`. And `[[−3]]` with kernel 2, stride 1 and padding 1
# has four windows, each with the −3 and three cells of padding: `y = [[−3, −3], [−3, −3]]`, no zero anywhere.

# %%
x = np.array([[1.0, 3, 2], [5, 4, 0]]).reshape(1, 1, 2, 3)
assert reference("max_pool2d_forward")(x, 2).ravel().tolist() == [5]
assert reference("max_pool2d_forward")(x, 2, 1).ravel().tolist() == [5, 4]
assert reference("max_pool2d_forward")(np.full((1, 1, 1, 1), -3.0), 2, 1, 1).ravel().tolist() == [-3] * 4


# %% exercise="max_pool2d_forward"
def max_pool2d_forward(x, kernel_size, stride=None, padding=0):
    """x (n, c, h, w) -> y (n, c, (h + 2 padding - kh) // sh + 1, (w + 2 padding - kw) // sw + 1)"""
    ### BEGIN SOLUTION
    kh, kw = np.broadcast_to(kernel_size, 2)
    sh, sw = np.broadcast_to(kernel_size if stride is None else stride, 2)
    frame = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(x, frame, constant_values=-np.inf)
    n, c, h, w = padded.shape
    y = np.empty((n, c, (h - kh) // sh + 1, (w - kw) // sw + 1))
    for i, j in np.ndindex(y.shape[2:]):
        window = padded[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
        y[:, :, i, j] = window.max(axis=(2, 3))
    return y
    ### END SOLUTION


# %% check="max_pool2d_forward"
check(max_pool2d_forward)

# %% [markdown] about="max_pool2d_backward"
# ### Max pooling, backwards
#
# `max_pool2d_backward(dy, x, kernel_size, stride=None, padding=0) -> dx`: `dy` has the shape of the output, `dx` that
# of `x`. Each `dy[n, c, i, j]` goes, whole, to the first maximum of its window in reading order; what arrives at one
# cell from several windows is added.
#
# By hand, the two windows from above with `stride=1` and `dy = [[10, 1]]`: the first is won by the 5, the second by the
# 4. And a tie, one window with `dy = 10`: the 7 at the top is met first.
#
# ```
# x  1 3 2     dx   0 0 0          x  1 7     dx  0 10
#    5 4 0         10 1 0             7 2         0  0
# ```

# %%
dx = reference("max_pool2d_backward")(np.array([10.0, 1]).reshape(1, 1, 1, 2), x, 2, 1)
assert dx[0, 0].tolist() == [[0, 0, 0], [10, 1, 0]]
tie = np.array([[1.0, 7], [7, 2]]).reshape(1, 1, 2, 2)
assert reference("max_pool2d_backward")(np.full((1, 1, 1, 1), 10.0), tie, 2)[0, 0].tolist() == [[0, 10], [0, 0]]


# %% exercise="max_pool2d_backward"
def max_pool2d_backward(dy, x, kernel_size, stride=None, padding=0):
    """dy (n, c, h', w'), x (n, c, h, w) -> dx (n, c, h, w)"""
    ### BEGIN SOLUTION
    kh, kw = np.broadcast_to(kernel_size, 2)
    sh, sw = np.broadcast_to(kernel_size if stride is None else stride, 2)
    n, c, h, w = x.shape
    frame = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(x, frame, constant_values=-np.inf)
    dpadded = np.zeros(padded.shape)
    for i, j in np.ndindex(dy.shape[2:]):
        window = (slice(None), slice(None), slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw))
        flat = padded[window].reshape(n, c, kh * kw)
        chosen = np.arange(kh * kw) == flat.argmax(axis=-1)[..., None]
        dpadded[window] += (chosen * dy[:, :, i, j, None]).reshape(n, c, kh, kw)
    return dpadded[:, :, padding : padding + h, padding : padding + w]
    ### END SOLUTION


# %% check="max_pool2d_backward"
check(max_pool2d_backward)

# %% [markdown] about="avg_pool2d_forward"
# ### Average pooling
#
# `avg_pool2d_forward(x, kernel_size, stride=None, padding=0, count_include_pad=True) -> y`: windows as before, shapes
# as before. The padding is zeros. With `count_include_pad=True` each sum is divided by `kh · kw`; with `False` by the
# number of its cells that lie on the image.
#
# By hand, 1 3 / 5 4 with kernel 2: 13 / 4 = 3.25. And `[[8]]` with kernel 2, stride 1 and padding 1: four windows,
# each with the 8 and three zeros of padding. 8 / 4 = 2 in each, and 8 / 1 = 8 with `count_include_pad=False`.

# %%
eight = np.full((1, 1, 1, 1), 8.0)
assert reference("avg_pool2d_forward")(x, 2).ravel().tolist() == [3.25]
assert reference("avg_pool2d_forward")(eight, 2, 1, 1).ravel().tolist() == [2] * 4
assert reference("avg_pool2d_forward")(eight, 2, 1, 1, False).ravel().tolist() == [8] * 4


# %% exercise="avg_pool2d_forward"
def avg_pool2d_forward(x, kernel_size, stride=None, padding=0, count_include_pad=True):
    """x (n, c, h, w) -> y (n, c, (h + 2 padding - kh) // sh + 1, (w + 2 padding - kw) // sw + 1)"""
    ### BEGIN SOLUTION
    kh, kw = np.broadcast_to(kernel_size, 2)
    sh, sw = np.broadcast_to(kernel_size if stride is None else stride, 2)
    frame = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded, counted = np.pad(x, frame), np.ones_like(x)
    counted = np.pad(counted, frame, constant_values=float(count_include_pad))
    n, c, h, w = padded.shape
    y = np.empty((n, c, (h - kh) // sh + 1, (w - kw) // sw + 1))
    for i, j in np.ndindex(y.shape[2:]):
        window = (slice(None), slice(None), slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw))
        y[:, :, i, j] = padded[window].sum(axis=(2, 3)) / counted[window].sum(axis=(2, 3))
    return y
    ### END SOLUTION


# %% check="avg_pool2d_forward"
check(avg_pool2d_forward)

# %% [markdown] about="avg_pool2d_backward"
# ### Average pooling, backwards
#
# `avg_pool2d_backward(dy, x, kernel_size, stride=None, padding=0, count_include_pad=True) -> dx`: shapes as in
# `max_pool2d_backward`. The values of `x` do not matter, only its shape.
#
# By hand, three columns, kernel 2, stride 1, `dy = [[4, 8]]`: every cell of the first window gets 4 / 4 = 1, of the
# second 8 / 4 = 2, and the middle column lies in both.
#
# ```
# dx  1 3 2
#     1 3 2
# ```

# %%
dx = reference("avg_pool2d_backward")(np.array([4.0, 8]).reshape(1, 1, 1, 2), x, 2, 1)
assert dx[0, 0].tolist() == [[1, 3, 2], [1, 3, 2]]


# %% exercise="avg_pool2d_backward"
def avg_pool2d_backward(dy, x, kernel_size, stride=None, padding=0, count_include_pad=True):
    """dy (n, c, h', w'), x (n, c, h, w) -> dx (n, c, h, w)"""
    ### BEGIN SOLUTION
    kh, kw = np.broadcast_to(kernel_size, 2)
    sh, sw = np.broadcast_to(kernel_size if stride is None else stride, 2)
    h, w = x.shape[2:]
    frame = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    counted = np.pad(np.ones_like(x), frame, constant_values=float(count_include_pad))
    dpadded = np.zeros(counted.shape)
    for i, j in np.ndindex(dy.shape[2:]):
        window = (slice(None), slice(None), slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw))
        dpadded[window] += dy[:, :, i, j, None, None] / counted[window].sum(axis=(2, 3), keepdims=True)
    return dpadded[:, :, padding : padding + h, padding : padding + w]
    ### END SOLUTION


# %% check="avg_pool2d_backward"
check(avg_pool2d_backward)

# %% [markdown]
# The way back in your hands. On the left what came in: first maxima have a solid outline, cells that only equal a
# maximum a dashed one. In the middle what arrives at the outputs. Point at a cell of `dx` to see where its gradient
# comes from.
#
# 1. Where do most gradients end if the kernel is 3 and the stride 1?
# 2. `after a ReLU`: find a cell that equals the maximum of its window and gets nothing.
# 3. When do the sums of `dy` and `dx` agree, and when not?

# %%
backwards = [reference("max_pool2d_backward"), reference("avg_pool2d_backward")]
widgets.pooling.gradients([max_pool2d_backward, avg_pool2d_backward], backwards)

# %% [markdown]
# <details><summary>Where, which, and when</summary>
#
# 1. With overlapping windows a large number wins all windows that it lies in, up to nine, and collects from each.
# 2. Each dashed cell: an equal one before it, in reading order, has taken all.
# 3. A max pool hands on every gradient whole, so the sums always agree. An average pool with padding gives some of the
#    shares to the padding, where they are cut off: the sums differ.
#
# </details>

# %% [markdown] about="adaptive_avg_pool2d_forward"
# ### Adaptive average pooling
#
# `adaptive_avg_pool2d_forward(x, output_size) -> y`: `x (n, c, h, w)`, `output_size` a number or a pair, `y (n, c, h',
# w')`. Window $i$ goes from row $\lfloor i h / h' \rfloor$ up to, not including, row $\lceil (i + 1) h / h' \rceil$,
# and the columns likewise. $h'$ may be larger than $h$; then rows are seen more than once.
#
# By hand, one row `[3, 6, 0, 9, 12]` to three columns: the windows are from 0 to 2, from 1 to 4 and from 3 to 5, so
# `y = [(3 + 6) / 2, (6 + 0 + 9) / 3, (9 + 12) / 2] = [4.5, 5, 10.5]`. To one column: 30 / 5 = 6.

# %%
row = np.array([3.0, 6, 0, 9, 12]).reshape(1, 1, 1, 5)
assert reference("adaptive_avg_pool2d_forward")(row, (1, 3)).ravel().tolist() == [4.5, 5, 10.5]
assert reference("adaptive_avg_pool2d_forward")(row, 1).ravel().tolist() == [6]


# %% exercise="adaptive_avg_pool2d_forward"
def adaptive_avg_pool2d_forward(x, output_size):
    """x (n, c, h, w) -> y (n, c, h', w'), with output_size = (h', w') or one number for both"""
    ### BEGIN SOLUTION
    (n, c, h, w), (oh, ow) = x.shape, np.broadcast_to(output_size, 2)
    y = np.empty((n, c, oh, ow))
    for i, j in np.ndindex(oh, ow):
        rows = slice(i * h // oh, -(-(i + 1) * h // oh))
        columns = slice(j * w // ow, -(-(j + 1) * w // ow))
        y[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return y
    ### END SOLUTION


# %% check="adaptive_avg_pool2d_forward"
check(adaptive_avg_pool2d_forward)

# %% [markdown]
# Which numbers of rows let the windows tile the six rows of the image? What happens from seven on?

# %%
widgets.pooling.adaptive(adaptive_avg_pool2d_forward, reference("adaptive_avg_pool2d_forward"))

# %% [markdown]
# <details><summary>Which, and what</summary>
#
# 1, 2, 3 and 6: those that divide 6. From seven on there are more windows than rows; each is one row or two neighbours,
# and nothing new is seen. It is an enlarged picture, a little blurred.
#
# </details>

# %% [markdown] about="adaptive_avg_pool2d_backward"
# ### Adaptive average pooling, backwards
#
# `adaptive_avg_pool2d_backward(dy, x, output_size) -> dx`: `dy (n, c, h', w')`, `dx` like `x`.
#
# By hand, five columns and three outputs once more, `dy = [2, 3, 4]`: the windows hand out 2 / 2 = 1, 3 / 3 = 1 and
# 4 / 2 = 2. Columns 1 and 3 lie in two windows each: `dx = [1, 1 + 1, 1, 1 + 2, 2] = [1, 2, 1, 3, 2]`.

# %%
dx = reference("adaptive_avg_pool2d_backward")(np.array([2.0, 3, 4]).reshape(1, 1, 1, 3), row, (1, 3))
np.testing.assert_allclose(dx.ravel(), [1, 2, 1, 3, 2])


# %% exercise="adaptive_avg_pool2d_backward"
def adaptive_avg_pool2d_backward(dy, x, output_size):
    """dy (n, c, h', w'), x (n, c, h, w) -> dx (n, c, h, w)"""
    ### BEGIN SOLUTION
    (h, w), (oh, ow) = x.shape[2:], np.broadcast_to(output_size, 2)
    dx = np.zeros_like(x)
    for i, j in np.ndindex(oh, ow):
        top, bottom = i * h // oh, -(-(i + 1) * h // oh)
        left, right = j * w // ow, -(-(j + 1) * w // ow)
        area = (bottom - top) * (right - left)
        dx[:, :, top:bottom, left:right] += dy[:, :, i, j, None, None] / area
    return dx
    ### END SOLUTION


# %% check="adaptive_avg_pool2d_backward"
check(adaptive_avg_pool2d_backward)

# %% [markdown] about="receptive_field"
# ### The receptive field
#
# `receptive_field(layers) -> size, jump`: `layers` is a list, from the image on, of what each layer is along one axis:
# a pair `(kernel_size, stride)`, or `(kernel_size, stride, dilation)` where it is dilated. Convolutions and pools are
# alike here. Two whole numbers come back: how many pixels one output can depend on, and how many pixels its
# neighbour's field lies further. No layers: 1 and 1.
#
# By hand, `[(3, 1), (2, 2), (3, 1)]`: start with size 1, jump 1. The first adds (3 − 1) · 1: size 3. The pool adds
# (2 − 1) · 1: size 4, and the jump becomes 2. The last adds (3 − 1) · 2: size 8, jump 2. (`for kernel_size, stride,
# *rest in layers:` reads pairs and triples alike; `rest` is a list, empty for a pair.)

# %%
assert [int(v) for v in reference("receptive_field")([(3, 1), (2, 2), (3, 1)])] == [8, 2]


# %% exercise="receptive_field"
def receptive_field(layers):
    """layers, a list of (kernel_size, stride) or (kernel_size, stride, dilation) -> size (), jump ()"""
    ### BEGIN SOLUTION
    size, jump = 1, 1
    for kernel_size, stride, *rest in layers:
        dilation = rest[0] if rest else 1
        size += dilation * (kernel_size - 1) * jump
        jump *= stride
    return size, jump
    ### END SOLUTION


# %% check="receptive_field"
check(receptive_field)

# %% [markdown]
# ## Against a reference
#
# Three witnesses for each gradient: your formula, finite differences (your `numerical_gradient` of lesson 01), PyTorch.
# The windows overlap, and there is padding.

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(10)
x, geometry = rng.normal(size=(2, 2, 5, 4)), ((3, 2), (2, 1), 1)
cases = {
    "max": (max_pool2d_forward, max_pool2d_backward, geometry),
    "avg": (avg_pool2d_forward, avg_pool2d_backward, geometry),
    "adaptive_avg": (adaptive_avg_pool2d_forward, adaptive_avg_pool2d_backward, ((3, 2),)),
}

# %%
gradients = {}
for name, (forward, backward, rest) in cases.items():
    dy = rng.normal(size=forward(x, *rest).shape)
    nudged = numerical_gradient(lambda z, f=forward, dy=dy, rest=rest: (dy * f(z, *rest)).sum(), x)
    torchs = reference(f"{name}_pool2d_backward")(dy, x, *rest)
    gradients[f"dx {name}"] = backward(dy, x, *rest), nudged, torchs
plots.gradient_check(gradients)

# %% [markdown]
# Random numbers have no ties, so nothing has been said about them. At a tie the witnesses part: central differences
# take the mean of the slopes 1 and 0 and find a half, which is no derivative, and no rule of ours.

# %% tags=["nbval-check-output"]
tie, one = np.array([[1.0, 7], [7, 2]]).reshape(1, 1, 2, 2), np.ones((1, 1, 1, 1))
print("finite differences", numerical_gradient(lambda z: max_pool2d_forward(z, 2).sum(), tie).round(6).ravel().tolist())
print("yours             ", max_pool2d_backward(one, tie, 2).ravel().tolist())
print("PyTorch           ", reference("max_pool2d_backward")(one, tie, 2).ravel().tolist())

# %% [markdown]
# What a check says of the classic mistake, a frame of zeros:

# %% tags=["nbval-check-output"]
def zero_padded(x, kernel_size, stride=None, padding=0):
    around = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return max_pool2d_forward(np.pad(x, around), kernel_size, stride)


print(examine(zero_padded, "max_pool2d_forward").mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `max_pool2d_forward` | `F.max_pool2d`, `nn.MaxPool2d` | refuses a padding of more than half the kernel; has `dilation`, `ceil_mode` and `return_indices` too |
# | `avg_pool2d_forward` | `F.avg_pool2d`, `nn.AvgPool2d` | `count_include_pad=True`; no dilation |
# | `adaptive_avg_pool2d_forward` | `F.adaptive_avg_pool2d`, `nn.AdaptiveAvgPool2d` | `None` in a pair keeps that size |
# | … with `output_size=1` | the same, or `x.mean((2, 3))` | the first keeps two axes of size 1 |
#
# None of them has parameters. What a max pool keeps for its backward pass is not `x` but the *position* of every
# maximum, one whole number for each output. Some claims, verified:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
y, where = F.max_pool2d(images, 2, return_indices=True)
facts = {
    "ReLU before or after a max pool": (F.relu(y), F.max_pool2d(F.relu(images), 2)),
    "ReLU before or after an average pool": (F.relu(F.avg_pool2d(images, 2)), F.avg_pool2d(F.relu(images), 2)),
    "two max pools of 2 and one of 4": (F.max_pool2d(y, 2), F.max_pool2d(images, 4)),
    "an average pool and a convolution with weights 1/4": (
        F.avg_pool2d(images, 2),
        F.conv2d(images, torch.full((3, 1, 2, 2), 0.25).double(), stride=2, groups=3),
    ),
    "adaptive and average pool where sizes divide": (F.adaptive_avg_pool2d(images, 4), F.avg_pool2d(images, 2)),
    "y and x at the positions of return_indices": (y.flatten(2), images.flatten(2).gather(2, where.flatten(2))),
}
for fact, (left, right) in facts.items():
    print("equal    " if torch.allclose(left, right) else "different", "·", fact)

# %% [markdown]
# The second line: the mean of the positive parts is not the positive part of the mean. The first is worth money: with
# the pool in front, ReLU has a quarter of the work.

# %% [markdown] about="MaxPool2d"
# ### Max pooling as a module
#
# Re-create `nn.MaxPool2d` with the arguments `kernel_size`, `stride=None` and `padding=0` (kernel and stride a number
# or a pair), without PyTorch's pools. Autograd does the backward pass; among equal maxima the first gets the gradient,
# as in your own.
#
# `F.unfold(x, kernel_size, stride=stride)` is the `im2col` of lesson 09: `(n, c, h, w)` becomes `(n, c · kh · kw,
# oh · ow)`, the windows as columns. It takes kernels and strides as numbers or pairs, and pads with zeros if told to pad.
# `F.pad(x, (left, right, top, bottom), value=…)` pads with any number.
#
# By hand: `MaxPool2d(2)` makes 5 of 1 3 / 5 4, and the gradient arrives at the 5.


# %% exercise="MaxPool2d"
class MaxPool2d(nn.Module):
    """x (n, c, h, w) -> y (n, c, h', w')

    Two methods: __init__ keeps the geometry, forward(self, x) pools.
    """

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        ### BEGIN SOLUTION
        self.kernel_size = np.broadcast_to(kernel_size, 2).tolist()
        self.stride = np.broadcast_to(kernel_size if stride is None else stride, 2).tolist()
        self.padding = padding

    def forward(self, x):
        (kh, kw), (sh, sw), p = self.kernel_size, self.stride, self.padding
        padded = F.pad(x, (p, p, p, p), value=-torch.inf)
        n, c, h, w = padded.shape
        windows = F.unfold(padded, self.kernel_size, stride=self.stride).reshape(n, c, kh * kw, -1)
        return windows.max(dim=2).values.reshape(n, c, (h - kh) // sh + 1, (w - kw) // sw + 1)
        ### END SOLUTION

# %% check="MaxPool2d"
check(MaxPool2d)

# %% [markdown] about="BlurPool2d"
# ### A pool that blurs
#
# Aliasing has a cure that is as old as sampling: blur before you drop samples. Zhang (2019) put it into networks. A
# max pool of stride 2 does two things, a maximum over windows and the dropping of every second; so take the maximum
# with stride 1, and let a **blur pool** do the dropping.
#
# `BlurPool2d(channels, stride=2)` blurs each channel by itself with the fixed kernel
# $$\frac{1}{16}\begin{pmatrix}1&2&1\\2&4&2\\1&2&1\end{pmatrix},$$
# the outer product of $(1, 2, 1) / 4$ with itself, and keeps every `stride`-th pixel, beginning with the first. Before
# that the image gets a frame of one pixel, **reflected**: the row above the first is the second row. (With zeros, the
# border would fade.) An image `(n, c, h, w)`, at least 2 × 2, becomes
# $(n, c, \lceil h / s \rceil, \lceil w / s \rceil)$.
#
# The kernel is not learned, so it is a buffer (lesson 08), of the name `kernel` and the shape `(channels, 1, 3, 3)`.
#
# By hand, three equal rows `[0, 4, 0]`, stride 1: downwards nothing changes. Along a row, the middle becomes
# (0 + 2 · 4 + 0) / 4 = 2. The left end has a 4 on its right and, reflected, one on its left: (4 + 0 + 4) / 4 = 2. A
# flat image stays as it is.


# %% exercise="BlurPool2d"
class BlurPool2d(nn.Module):
    """x (n, channels, h, w) -> y (n, channels, ceil(h / stride), ceil(w / stride))

    Two methods: __init__ makes the buffer `kernel`, forward(self, x) reflects, blurs and drops.
    """

    def __init__(self, channels, stride=2):
        super().__init__()
        ### BEGIN SOLUTION
        self.stride = stride
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(line, line).repeat(channels, 1, 1, 1))

    def forward(self, x):
        framed = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(framed, self.kernel, stride=self.stride, groups=x.shape[1])
        ### END SOLUTION

# %% check="BlurPool2d"
check(BlurPool2d)

# %% tags=["nbval-check-output"]
assert BlurPool2d(1, stride=1)(torch.tensor([[[[0.0, 4, 0]] * 3]])).tolist() == [[[[2, 2, 2]] * 3]]
x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
print("gradcheck, max pool: ", torch.autograd.gradcheck(MaxPool2d(3, 2, 1), x))
print("gradcheck, blur pool:", torch.autograd.gradcheck(BlurPool2d(2).double(), x))
print("parameters:", len(list(MaxPool2d(2).parameters())), "and", len(list(BlurPool2d(2).parameters())))
print("a flat image stays flat:", torch.allclose(BlurPool2d(1)(torch.ones(1, 1, 5, 6)), torch.ones(1, 1, 3, 3)))

# %% [markdown]
# ## At work
#
# ### What a shift does, measured
#
# Forty digits on a wide empty ground, four fixed 3 × 3 kernels that respond to edges (lesson 09), ReLU: these are the
# features. Behind them stands one of five layers. "Every second" is what a convolution with stride 2 gives: the
# features, and then every second of them.

# %%
conv2d_forward_fast, conv2d_backward = mine("conv2d_forward_fast"), mine("conv2d_backward")
digits = data.digits()
images = np.zeros((40, 1, 16, 24))
images[:, 0, 4:12, 6:14] = digits.x_test[:40].reshape(-1, 8, 8)
edge, corner = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]), np.array([[0.0, 1, 2], [-1, 0, 1], [-2, -1, 0]])
kernels = np.stack([edge, edge.T, corner, corner[::-1]])[:, None]
blur = BlurPool2d(4).double()


def features(x):
    return np.maximum(conv2d_forward_fast(x, kernels, np.zeros(4), 1, 1), 0)


layers = {
    "nothing": (lambda f: f, 1),
    "every second": (lambda f: f[:, :, ::2, ::2], 2),
    "average 2": (lambda f: avg_pool2d_forward(f, 2), 2),
    "max 2": (lambda f: max_pool2d_forward(f, 2), 2),
    "max, blurred": (lambda f: blur(torch.tensor(max_pool2d_forward(f, 2, 1))).numpy(), 2),
}

# %% [markdown]
# Move an image. Two questions are asked of the output $y$. How much has it changed **in place**? (That is invariance.)
# And if the old output may be moved by whole cells, how near can it be brought? (That is equivariance.) Distances are
# relative to the length of $y$; two pictures that have nothing in common are about 1.4 apart. Look for the shifts at
# which the last picture is empty.

# %%
widgets.pooling.shifts(images, features, layers)

# %% [markdown]
# The same over all forty digits and shifts by 0 to 6 pixels. Lines are means; bars reach from the tenth to the
# ninetieth percentile of the digits.

# %%
distance, moved, best_match = widgets.pooling.distance, widgets.pooling.moved, widgets.pooling.best_match
pixels, in_place, put_back = np.arange(7), {}, {}
for name, (layer, stride) in layers.items():
    start = layer(features(images))
    after = [layer(features(moved(images, t))) for t in pixels]
    in_place[name] = np.array([[distance(y, z) for y, z in zip(ys, start, strict=True)] for ys in after])
    put_back[name] = np.array(
        [
            [distance(y, best_match(y, z, t // stride)) for y, z in zip(ys, start, strict=True)]
            for t, ys in zip(pixels, after, strict=True)
        ]
    )

# %%
fig, axes = plots.figure(9.5, 3.2, 2)
for k, (ax, measured) in enumerate(zip(axes, (in_place, put_back), strict=True)):
    for place, (name, values) in enumerate(measured.items()):
        low, high = np.percentile(values, [10, 90], axis=1)
        mean = values.mean(axis=1)
        ax.errorbar(pixels + 0.06 * (place - 2), mean, [mean - low, high - mean], lw=1.6, elinewidth=0.8, label=name)
    ax.set(title=("changed in place", "left when put back")[k], xlabel="shift in pixels", ylim=(-0.03, 1.75))
axes[0].set_ylabel("relative distance")
axes[1].legend(fontsize=8)
plots.show(
    fig,
    alt="Left: change in place against the shift; all five curves rise, max and blurred max are lowest at one pixel, "
    "and all exceed 1 from about three pixels on. Right: nothing stays at 0; the four with stride 2 zigzag, 0 at even "
    "shifts and far from 0 at odd ones.",
    caption="Left: pooling forgives a shift of a pixel in part, one of three hardly. Right: a stride of 2 keeps "
    "equivariance for even shifts alone.",
)
for name in layers:
    one, odd = in_place[name].mean(axis=1)[1], put_back[name].mean(axis=1)
    print(f"{name:<13} one pixel, in place {one:.2f}   put back: odd shifts {odd[1]:.2f}, even shifts {odd[2]:.2f}")

# %% [markdown]
# Read both panels:
#
# - **In place**, a max pool changes less than its features do, 0.63 against 0.83 for one pixel. That is the famous
#   invariance: real, and small. From three pixels on, the change is longer than the output itself, pool or no pool.
#   Dropping every second pixel gains next to nothing, 0.79; the pool's gain comes from looking at the whole window.
# - **Put back**, the features alone are exact for every shift: the convolution is equivariant. All four layers of
#   stride 2 are exact at even shifts and broken at odd ones, dropping worst, max better than average here, blur best.
#   What Zhang and Azulay and Weiss describe is not a defect of training; it is in the arithmetic.
#
# And a global pool behind it all? The mean of an equivariant map is invariant. Of the others:

# %% tags=["nbval-check-output"]
for name, (layer, _) in layers.items():
    first, second = (adaptive_avg_pool2d_forward(layer(features(x)), 1) for x in (images, moved(images, 1)))
    print(f"{name:<13} the global average moves by {100 * distance(second, first):4.1f} %")

# %% [markdown]
# With average pooling it does not move at all: means of the tiles' means are the mean of everything. Nor with the blur,
# whose nine weights share themselves out evenly among the pixels kept, whichever these are (every pixel's weights add
# up to 1/4). A maximum, or the dropping of pixels, makes even a *global* answer depend on odd and even.
#
# ### A network with your layers
#
# Convolution, ReLU, your max pool, convolution, ReLU, your adaptive pool to 2 × 2, a linear layer to ten logits.
# Behind the layer protocol of lesson 04, trained by Adam (lesson 06).

# %%
linear_forward, linear_backward = mine("linear_forward"), mine("linear_backward")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
Sequential, ReLULayer, adam_step = mine("Sequential"), mine("ReLULayer"), mine("adam_step")


class ConvLayer:
    """A convolution that keeps the size: kernel 3 × 3, padding 1."""

    def __init__(self, w):
        self.w, self.b = w, np.zeros(len(w))

    def forward(self, x):
        self.x = x
        return conv2d_forward_fast(x, self.w, self.b, 1, 1)

    def backward(self, dy):
        dx, self.dw, self.db = conv2d_backward(dy, self.x, self.w, self.b, 1, 1)
        return dx

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]


# %%
class PoolLayer:
    """A pool of yours: its forward and its backward function, and what they are told."""

    def __init__(self, forward, backward, size):
        self.pool, self.pool_backward, self.size = forward, backward, size

    def forward(self, x):
        self.x = x
        return self.pool(x, self.size)

    def backward(self, dy):
        return self.pool_backward(dy, self.x, self.size)

    def parameters(self):
        return []

    gradients = parameters


# %%
class FlatLinearLayer:
    """Feature maps flattened to rows, then a linear layer."""

    def __init__(self, w):
        self.w, self.b = w, np.zeros(len(w))

    def forward(self, x):
        self.shape, self.rows = x.shape, x.reshape(len(x), -1)
        return linear_forward(self.rows, self.w, self.b)

    def backward(self, dy):
        dx, self.dw, self.db = linear_backward(dy, self.rows, self.w, self.b)
        return dx.reshape(self.shape)

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]


# %%
rng = np.random.default_rng(0)
w1, w2 = rng.normal(0, np.sqrt(2 / 9), (8, 1, 3, 3)), rng.normal(0, np.sqrt(2 / 72), (16, 8, 3, 3))
model = Sequential(
    [
        ConvLayer(w1), ReLULayer(), PoolLayer(max_pool2d_forward, max_pool2d_backward, 2),
        ConvLayer(w2), ReLULayer(), PoolLayer(adaptive_avg_pool2d_forward, adaptive_avg_pool2d_backward, 2),
        FlatLinearLayer(rng.normal(0, np.sqrt(1 / 64), (10, 64))),
    ]
)  # fmt: skip
frame = ((0, 0), (0, 0), (1, 1), (1, 1))
x_train, x_test = (np.pad(x.reshape(-1, 1, 8, 8), frame) for x in (digits.x_train, digits.x_test))
twin = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
).double()  # fmt: skip
for parameter, value in zip(twin.parameters(), model.parameters(), strict=True):
    parameter.data = torch.tensor(value)

# %% [markdown]
# Before it learns: does one backward pass through all of it give PyTorch's gradients?

# %% tags=["nbval-check-output"]
batch, targets = x_train[:32], digits.y_train[:32]
model.backward(cross_entropy_backward(1.0, model.forward(batch), targets))
F.cross_entropy(twin(torch.tensor(batch)), torch.tensor(targets)).backward()
for (name, parameter), grad in zip(twin.named_parameters(), model.gradients(), strict=True):
    print(f"{name:<10}{grad.shape!s:<16}equal: {np.allclose(grad, parameter.grad.numpy())}")

# %%
epochs, rng = 1 if plots.fast() else 5, np.random.default_rng(0)
states, t = [(np.zeros_like(p), np.zeros_like(p)) for p in model.parameters()], 0
with plots.Training(epochs, "train loss", "test accuracy") as run:
    for _ in range(epochs):
        losses = []
        for k in np.array_split(rng.permutation(len(x_train)), 23):
            logits, t = model.forward(x_train[k]), t + 1
            losses.append(cross_entropy_forward(logits, digits.y_train[k]))
            model.backward(cross_entropy_backward(1.0, logits, digits.y_train[k]))
            for i, (param, grad) in enumerate(zip(model.parameters(), model.gradients(), strict=True)):
                param[:], *states[i] = adam_step(param, grad, *states[i], t, 0.02)
        run.log(np.mean(losses), (model.forward(x_test).argmax(axis=1) == digits.y_test).mean())

# %% [markdown]
# ### Which way to make it smaller?
#
# The same network four times: nothing between the two convolutions, a first convolution with stride 2, an average pool,
# a max pool. Five seeds each; a seed gives all four the same initial weights and the same batches, so that they can be
# compared in pairs. Three numbers are asked of each: the accuracy on the test digits; on the test digits moved by one
# pixel, up, down, left or right; and how many of the answers stay the same when a digit is moved. No network has seen a
# moved digit in training. In PyTorch, for the speed; first you, though: which of the four will suffer most?

# %%
down = {"nothing": nn.Identity(), "stride 2": nn.Identity(), "average": nn.AvgPool2d(2), "max": nn.MaxPool2d(2)}
tensors = [torch.tensor(a, dtype=torch.float32) for a in (x_train, x_test)]
labels = [torch.tensor(a) for a in (digits.y_train, digits.y_test)]


def network(name, seed):
    torch.manual_seed(seed)
    first = nn.Conv2d(1, 8, 3, padding=1, stride=2 if name == "stride 2" else 1)
    second = nn.Conv2d(8, 16, 3, padding=1)
    last = nn.Linear(64, 10)
    pool = nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(first, nn.ReLU(), down[name], second, nn.ReLU(), pool, nn.Flatten(), last)


def trained(name, seed, epochs):
    model, generator = network(name, seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(epochs):
        for k in torch.randperm(len(x_train), generator=generator).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(tensors[0][k]), labels[0][k]).backward()
            optimiser.step()
    return model


# %%
@torch.no_grad()
def measured(model):
    """Accuracy; accuracy on moved digits; share of answers that a move leaves as they were."""
    answers = model(tensors[1]).argmax(1)
    moves = [model(tensors[1].roll(t, (2, 3))).argmax(1) for t in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    right = [(answer == labels[1]).float().mean() for answer in (answers, *moves)]
    same = [(answer == answers).float().mean() for answer in moves]
    return float(right[0]), float(np.mean(right[1:])), float(np.mean(same))


seeds, epochs = range(1 if plots.fast() else 5), 1 if plots.fast() else 8
results = {name: np.array([measured(trained(name, seed, epochs)) for seed in seeds]) for name in down}

# %%
measures = ("accuracy", "accuracy, moved by one pixel", "answers that stay")
fig, axes = plots.figure(9.5, 2.7, 3)
for k, (ax, measure) in enumerate(zip(axes, measures, strict=True)):
    runs = np.stack([values[:, k] for values in results.values()])
    ax.plot(runs, color="#bbbbbb", lw=0.8)
    for place, values in enumerate(runs):
        ax.plot([place] * len(values), values, "o", color=plots.COLOURS["output"])
    ax.set(title=measure, xticks=range(4), xticklabels=down, ylim=(0.3, 1.02))
plots.show(
    fig,
    alt="Three panels; four networks with five seeds each, lines join the runs of a seed. Accuracy is nearly alike; "
    "for moved digits stride 2 and average lie far below max, nothing in between; the third panel repeats the second.",
    caption="A point is one run, a line one seed. What looks alike on digits in their place differs on digits moved by "
    "a pixel.",
)
for name, values in results.items():
    told = "   ".join(f"{v.mean():.2f} ({v.min():.2f} to {v.max():.2f})" for v in values.T)
    print(f"{name:<10}{told}")
for name in list(down)[:3]:
    gap = 100 * (results["max"] - results[name])[:, :2]
    told = "   ".join(f"{g.mean():+.1f} ({g.min():+.1f} to {g.max():+.1f})" for g in gap.T)
    print(f"max − {name:<10} points: {told}")

# %% [markdown]
# On digits in their place the four are close: means between 0.92 and 0.96. Max leads stride 2 by less than two points
# on average, and in one pair by none. That is what Springenberg et al. (2014) say: a stride can take the place of a
# pool. Moved by one pixel, all of them suffer badly, and now the four are far apart. Max keeps about 0.70, and leads
# stride 2 by 17 points or more in each of the five pairs; average is hardly better than stride 2. Even `nothing`, which
# drops no pixel before its last pool, is behind max for every seed. Taking the largest number of the neighbourhood
# *does* buy tolerance to a pixel, and dropping pixels gives it away.
#
# Read it as one experiment: one small network, digits of 8 × 8 where a pixel is much, no augmentation. What remains of
# the gap when the digits are shifted in training (lesson 07) is one line away: try it.

# %% [markdown]
# ## Look inside
#
# A pool has learned nothing, so there is nothing to see *in* it. What can be seen is what it does to the view of the
# layers behind it.
#
# ### The receptive field, computed and measured
#
# On the left the units behind one output, placed by your `receptive_field`: each level above the pixels that it sees.
# On the right a measurement that knows no formula. Random layers without padding, one output at the corner, and its
# gradient at every pixel of the input, on a scale of three powers of ten; grey is exactly 0. The green square has your
# size. Say first:
#
# 1. Four plain convolutions against four of stride 2: who sees how far?
# 2. Average pools against max pools: same square. Same filling?
# 3. Which stack reaches furthest with five layers and never drops a pixel?


# %%
def gradient_at_the_corner(layers, pool="average"):
    """|gradient| of the first output of random layers, at the pixels of one random image."""
    torch.manual_seed(1)
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    y = x
    for kernel_size, stride, *dilation in layers:
        if (kernel_size, stride) == (2, 2):
            y = F.max_pool2d(y, 2) if pool == "max" else F.avg_pool2d(y, 2)
        else:
            w = torch.randn(1, 1, kernel_size, kernel_size) / kernel_size
            y = F.conv2d(y, w, stride=stride, dilation=dilation[0] if dilation else 1)
    (gradient,) = torch.autograd.grad(y[0, 0, 0, 0], x)
    return gradient[0, 0].abs().numpy()


widgets.pooling.field(receptive_field, reference("receptive_field"), gradient_at_the_corner)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# 1. 9 pixels against 31.
# 2. Average pools fill the square. With max pools a part of it stays grey, about half with four layers and kernel 3: of
#    each window only the winner counts, and who wins depends on the image. The field says what a unit *can* depend on.
# 3. The dilated one: 63 pixels with jump 1. Its first layers see every pixel, and no layer drops any.
#
# </details>
#
# ### What a unit really looks at
#
# The square is an upper bound, and inside it not all pixels are equal. Between a pixel in the corner of the field and
# the output there is one path; between the middle and the output there are very many. Luo et al. (2016) asked how the
# gradient is spread: if $n$ layers of kernel 3 treat their nine cells alike on average, the *squared* gradient is
# spread as the sum of $n$ independent steps of −1, 0 or 1. Such a step has variance $\frac{1 + 0 + 1}{3}$, and
# variances add: the spread is $\sqrt{2n / 3}$ and its shape tends to a Gaussian, while the field grows like $2n + 1$.
# The **effective receptive field** should be an ever smaller part of the receptive field. Is it?


# %%
def squared_gradient(depth, seed, relu, channels=8, side=41):
    """Of the middle output of random 3 x 3 convolutions, by the columns of the input."""
    torch.manual_seed(seed)
    x = torch.randn(1, 1, side, side, requires_grad=True)
    y = x
    for k in range(depth):
        i = 1 if k == 0 else channels
        y = F.conv2d(y, torch.randn(channels, i, 3, 3) * np.sqrt((2 if relu else 1) / (9 * i)), padding=1)
        y = F.relu(y) if relu else y
    (gradient,) = torch.autograd.grad(y[0, :, side // 2, side // 2].sum(), x)
    return (gradient[0, 0] ** 2).sum(0).numpy()


depths, seeds, columns = (1, 2, 4, 8, 16), range(3 if plots.fast() else 30), np.arange(41) - 20
profiles = {}
for relu in (False, True):
    for depth in depths:
        total = np.mean([squared_gradient(depth, seed, relu) for seed in seeds], axis=0)
        profiles[relu, depth] = total / total.sum()

# %%
widths = {key: np.sqrt((profile * columns**2).sum()) for key, profile in profiles.items()}
fig, axes = plots.figure(9.5, 2.8, 2)
for depth in (4, 16):
    spread = np.sqrt(2 * depth / 3)
    axes[0].plot(columns, profiles[False, depth], "o", ms=3, label=f"{depth} layers")
    axes[0].plot(columns, np.exp(-((columns / spread) ** 2) / 2) / spread / np.sqrt(2 * np.pi), color="#777777", lw=1)
    axes[0].axvspan(-depth - 0.5, depth + 0.5, color="#1B7FBD", alpha=0.08, lw=0)
axes[0].set(title="squared gradient, by column", xlabel="column", xlim=(-20, 20))
for relu, label in ((False, "measured"), (True, "measured, with ReLU")):
    axes[1].plot(depths, [4 * widths[relu, depth] for depth in depths], "o-", label=f"{label}: 4 standard deviations")
fields = [receptive_field([(3, 1)] * depth)[0] for depth in depths]
axes[1].plot(depths, fields, color="#777777", label="receptive field")
axes[1].plot(depths, 4 * np.sqrt(2 * np.array(depths) / 3), "k:", label="4 √(2n/3)")
axes[1].set(title="width", xlabel="layers", ylabel="pixels")
for ax in axes:
    ax.legend(fontsize=8)
plots.show(
    fig,
    alt="Left: the squared gradient by column lies on bell curves, that of 16 layers far narrower than its shaded "
    "field of 33 columns. Right: the receptive field grows on a straight line to 33 pixels, four standard deviations "
    "of the gradient, with and without ReLU, on the root curve to 13.",
    caption="Dots and lines are means over 30 random networks; grey bells are Gaussians of the predicted width, not "
    "fitted. The shaded bands are the receptive fields.",
)

# %%
for depth in depths:
    print(f"{depth:>2} layers: field {2 * depth + 1:>2}, spread predicted {np.sqrt(2 * depth / 3):.2f}, "
          f"measured {widths[False, depth]:.2f}, with ReLU {widths[True, depth]:.2f}")

# %% [markdown]
# The prediction holds, without a parameter to fit. After 16 layers, 95 % of the squared gradient lie within about 13
# of the 33 pixels: a unit that "sees" the whole object mostly looks at its middle. This is at random weights; Luo et
# al. found that training widens the effective field, and that strides, pools and dilation widen it at once.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# One broken layer, and one number to predict.

# %% [markdown] about="repair_max_pool2d_backward"
# ### Repair: more comes out than went in
#
# `repair_max_pool2d_backward(dy, x, kernel_size) -> dx`: a max pool backwards, made short for the common case: `x (n,
# c, h, w)` is tiled by windows of `kernel_size` (one number, which divides `h` and `w`), `dy` is `(n, c, h / k, w /
# k)`. No loop, a reshape that cuts the picture into blocks, and right on every random test that its author tried. On
# real pictures, with their areas of equal pixels, the gradients come out too large.


# %% exercise="repair_max_pool2d_backward"
def repair_max_pool2d_backward(dy, x, kernel_size):
    """dy (n, c, h / k, w / k), x (n, c, h, w), kernel_size k -> dx (n, c, h, w)"""
    ### BEGIN SOLUTION
    (n, c, h, w), k = x.shape, kernel_size
    blocks = x.reshape(n, c, h // k, k, w // k, k).transpose(0, 1, 2, 4, 3, 5)
    flat = blocks.reshape(n, c, h // k, w // k, k * k)
    first = np.arange(k * k) == flat.argmax(axis=-1)[..., None]
    dblocks = (first * dy[..., None]).reshape(blocks.shape)
    return dblocks.transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)
    ### BROKEN
    # (n, c, h, w), k = x.shape, kernel_size
    # blocks = x.reshape(n, c, h // k, k, w // k, k)
    # y = blocks.max(axis=(3, 5), keepdims=True)
    # return ((blocks == y) * dy[:, :, :, None, :, None]).reshape(x.shape)
    ### END SOLUTION


# %% check="repair_max_pool2d_backward"
check(repair_max_pool2d_backward)

# %% [markdown]
# Does it matter? It depends on what stands before the pool. The digits have whole areas of 0 and of full ink:

# %% tags=["nbval-check-output"]
pictures = digits.x_test.reshape(-1, 1, 8, 8)
blocks = pictures.reshape(-1, 4, 2, 4, 2)
ties = (blocks == blocks.max(axis=(2, 4), keepdims=True)).sum(axis=(2, 4))
hidden = features(pictures).reshape(-1, 4, 2, 4, 2)
zeros = (hidden == 0).all(axis=(2, 4)).mean()
print(f"windows of the digits with more than one maximum: {np.mean(ties > 1):.0%}; maxima per window {ties.mean():.2f}")
print(f"windows of edge features behind a ReLU that are all 0: {zeros:.0%}, where the ReLU stops the gradient anyway")

# %% [markdown] about="pool_output_size"
# ### Predict: how many windows?
#
# `pool_output_size(size, kernel_size, stride=None, padding=0, ceil_mode=False) -> size`: along one axis, all numbers
# whole. PyTorch's pools have an option that you have not built: with `ceil_mode=True` a last window may hang over the
# end, so that no pixel is left out: the number of steps is rounded up. One exception, which has led many a hand-written
# formula astray: a window that would *start* behind the image, in the padding or beyond it, is left out after all.
#
# By hand, size 6, kernel 3, stride 2: (6 − 3) / 2 = 1.5 steps. Rounded down there are 2 windows, with `ceil_mode` 3:
# the last starts at 4 and hangs over by one. Size 6, kernel 2, stride 3, padding 1: (6 + 2 − 2) / 3 = 2 steps, 3
# windows, with starts at −1, 2 and 5. Size 5, kernel 1, stride 3: (5 − 1) / 3 = 1.33 steps, rounded up to 2, so starts
# at 0, 3 and 6. But 6 is behind the image: 2 windows.


# %% exercise="pool_output_size"
def pool_output_size(size, kernel_size, stride=None, padding=0, ceil_mode=False):
    """size, kernel_size, stride, padding, ceil_mode -> size ()"""
    ### BEGIN SOLUTION
    stride = kernel_size if stride is None else stride
    room = size + 2 * padding - kernel_size
    steps = -(-room // stride) if ceil_mode else room // stride
    if steps * stride >= size + padding:
        steps -= 1
    return steps + 1
    ### END SOLUTION


# %% check="pool_output_size"
check(pool_output_size)

# %% [markdown]
# ### What people believe, and what is true
#
# - **"Max pooling makes a network invariant to shifts."** To a part of a shift by a pixel. You measured 0.63 instead of
#   0.83 in place, and equivariance lost at every odd shift. What makes classifiers tolerant is mostly the data and
#   their augmentation (lesson 07), and the global pool at the end.
# - **"Zero padding is harmless for a max pool."** Behind a ReLU it is, since nothing is below 0. Elsewhere zeros win
#   against every negative number.
# - **"The size is (h − k) / s + 1."** Rounded down, and the rest of the picture is thrown away without a word. With
#   `ceil_mode` rounded up, with an exception.
# - **"A pool has no parameters, so it has no backward pass."** It has no gradient for parameters. It passes on that of
#   its input, and for that a max pool must remember its winners.
# - **"A unit sees its receptive field."** At most. Most of its gradient comes from the middle, and behind max pools
#   many a pixel has no say at all for the image at hand.
# - **"Adaptive pooling makes all sizes of image alike."** The shapes, yes. A window of 7 pixels and one of 14 mean
#   different things to the weights behind them.
# - **"Average pooling is the same as max, only weaker."** A mean asks *how much* of a pattern there is, a maximum
#   *whether*. For rare, strong responses the maximum keeps what the mean dilutes; for a texture, the mean is the better
#   estimate (Boureau, Ponce and LeCun, 2010).

# %% [markdown]
# ## Where it is used, and what came after
#
# The idea comes from the visual cortex: cells that respond to a pattern wherever it lies in a small region (Hubel and
# Wiesel, 1962), built into Fukushima's neocognitron (1980) as layers of their own. LeNet-5 (LeCun et al., 1998)
# averaged; the networks that won from 2012 on took maxima, often of overlapping windows.
#
# Three things came after. **Global average pooling** (Lin, Chen and Yan, 2013) replaced the large dense layers at the
# end: one number per feature map, far fewer parameters, any size of image. Most convolutional classifiers have it
# today. **Strides** replaced pools in the middle: Springenberg et al. (2014) put convolutions of stride 2 in the place
# of every max pool of a network for small photographs, and it was no worse. Residual networks for large photographs
# (lesson 12) keep a single max pool near the start. And **blur before dropping** brought back part of the lost
# equivariance, and some accuracy with it (Zhang, 2019).
#
# What is disputed is how much pooling matters for invariance at all. Azulay and Weiss (2019) found modern networks
# changing their answer with a shift of one pixel, the newer and deeper ones more often than the old. Ruderman et al.
# (2018) found networks with and without pooling equally stable against small deformations *after* training: the
# smoothness of the learned filters decides, and pooling is neither necessary nor sufficient. Hinton (2014) called
# pooling a big mistake, and its success a disaster, since it throws away where things are; capsules (Sabour, Frosst and
# Hinton, 2017, lesson 30) keep positions as part of what is computed. They have not taken over: at scale, nobody has
# yet shown them to do better than what they criticise.
#
# You can now
#
# - pool with any window, stride and padding, and send the gradient back, ties and overlaps included;
# - choose windows for any output size;
# - compute the receptive field and the jump of a network, and say why a unit looks at less;
# - tell equivariance from invariance, and say what a stride does to both.
#
# To read:
#
# - R. Zhang, *Making convolutional networks shift-invariant again*, 2019. The blur pool.
# - A. Azulay and Y. Weiss, *Why do deep convolutional networks generalize so poorly to small image transformations?*,
#   2019.
# - W. Luo, Y. Li, R. Urtasun and R. Zemel, *Understanding the effective receptive field in deep convolutional neural
#   networks*, 2016.
# - J. T. Springenberg, A. Dosovitskiy, T. Brox and M. Riedmiller, *Striving for simplicity: the all convolutional net*,
#   2014.
# - M. Lin, Q. Chen and S. Yan, *Network in network*, 2013. Global average pooling.
