# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · Normalisation
#
# Lesson 05 chose the initial weights so that the numbers inside a network start at a sensible size. Nothing keeps them
# there. A **normalisation layer** does: it subtracts a mean, divides by a standard deviation, and then lets two learned
# numbers choose mean and spread anew. You will build five of them (batch, layer, instance, group and RMS norm),
# forwards and backwards, and they turn out to be one formula that averages over different axes.
#
# One of the five is odd. Batch norm lets the examples of a batch look at each other, so that it has to behave
# differently in training and afterwards; half of what goes wrong with it in practice comes from there. And why it helps
# is still argued about: you will measure both sides of the dispute.
#
# **You need** lessons 03 (cross-entropy), 04 (layers with `forward` and `backward`) and 05 (initial scales).
# **Time:** about four and a half hours, three and a half of them for the exercises.

# %% setup=true
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

# %%
names = widgets.normalisation.NAMES
norms = [reference(name) for name in names]
plots.show(
    widgets.normalisation.overview(norms),
    alt="Five times the same three images of four channels. Outlined are the entries that share a mean with the marked "
    "one: its channel in all images, all of its image, its channel in its image, two channels of its image, and again "
    "all of its image.",
    caption="Rows are examples, columns are channels. Each norm subtracts a mean and divides by a spread that the "
    "outlined entries share with the marked one. That choice is the whole difference. (RMS norm only divides.)",
)

# %% [markdown]
# ## Play first
#
# A layer that divides by the spread of a batch meets a batch of one. What comes out?

# %%
widgets.normalisation.guess_alone(reference)

# %% [markdown]
# Now the picture from above, in your hands: PyTorch's functions for now, yours as soon as they are written. The dot is
# the entry that gets nudged; outlined are the outputs that answer. Before you move, say what you expect:
#
# 1. Walk through the five norms. Which of them lets one example change the output of another?
# 2. `group` with 1 group, then with one per channel: which two other norms do you see?
# 3. `batch`, then reduce N to 1. Which norm has it become? And with height and width 1 as well?
# 4. Which norms do not care how many examples there are?

# %%
widgets.normalisation.sharing(norms, norms)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - Only batch norm crosses the rows: an example's output depends on the company it is in.
# - One group is layer norm, as many groups as channels is instance norm.
# - Batch norm of a single image is instance norm: both average over one channel of one image. If the image is one
#   pixel, every entry is its own mean, and the output is 0.
# - All but batch norm.
#
# </details>
#
# The consequence, with numbers: one example, marked, in changing company. Change the batch size, then shift the
# neighbours. In **training** batch norm uses the mean and the variance of the batch at hand. In **evaluation** it uses
# two vectors that it wrote down during training.

# %%
three = [reference(name) for name in ("batchnorm_forward", "batchnorm_eval", "layernorm_forward")]
widgets.normalisation.company(three, three)

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | norm | input | averages over | means in all | gain and bias | in evaluation |
# |---|---|---|---|---|---|
# | batch | `(n, d)` | $n$ | $d$ | `(d,)` | running statistics |
# | batch | `(n, c, h, w)` | $n, h, w$ | $c$ | `(c,)` | running statistics |
# | layer | `(…, d)` | $d$ | one for each row | `(d,)` | the same |
# | instance | `(n, c, h, w)` | $h, w$ | $n\,c$ | `(c,)` | the same |
# | group | `(n, c, h, w)` | $h, w$ and the $c/g$ channels of a group | $n\,g$ | `(c,)` | the same |
# | RMS | `(…, d)` | $d$ | none; one scale for each row | `(d,)`, no bias | the same |
#
# In a sentence of $t$ words, `x (n, t, d)`, layer norm treats each of the $n\,t$ words by itself. For images, *layer
# norm* means in the pictures above what Wu and He (2018) mean: all of $c, h, w$ are one row.
#
# ### One formula
#
# Take the numbers $x_1, \dots, x_m$ that share a mean, however they are arranged: for batch norm $m = n$, the batch.
# With
# $$\mu = \frac{1}{m}\sum_i x_i, \qquad v = \frac{1}{m}\sum_i (x_i - \mu)^2, \qquad s = \sqrt{v + \varepsilon},$$
# every norm but the last is
# $$\hat x_i = \frac{x_i - \mu}{s}, \qquad y_i = \gamma\,\hat x_i + \beta.$$
# $\hat x$ has mean 0 and variance $v / (v + \varepsilon)$, just below 1. The small $\varepsilon$ (PyTorch: $10^{-5}$)
# stands under the root, and earns its place when $v = 0$: a pixel that is black in every digit gives $0 /
# \sqrt\varepsilon = 0$ and not $0 / 0$. The learned **gain** $\gamma$ and **bias** $\beta$ give back what was taken: a
# feature that wants another mean and spread can have them, but now as two parameters of its own, not as the outcome of
# all layers before it. They start at 1 and 0.
#
# The variance divides by $m$ (it is **biased**: it describes these numbers, not others from the same source).
#
# ### Backwards: three paths
#
# Let $dy_i$ arrive. The last line is easy: $\beta$ was added to every $y_i$, $\gamma$ multiplied every $\hat x_i$, so
# $$d\beta = \sum_i dy_i, \qquad d\gamma = \sum_i dy_i\,\hat x_i, \qquad g_i := dy_i\,\gamma,$$
# where $g_i$ is what arrives at $\hat x_i$. Now $\hat x_i$ depends on $x_k$ in three ways.
#
# **Directly**, if $i = k$. The derivative of $(x_k - \mu)/s$ by the $x_k$ that is written there is $\frac{1}{s}$:
# $$\frac{g_k}{s}.$$
#
# **Through the variance.** Each $\hat x_i = (x_i - \mu)\,(v + \varepsilon)^{-1/2}$ depends on $v$, so the gradient at
# $v$ collects from all of them:
# $$dv = \sum_i g_i\,(x_i - \mu) \cdot \big(-\tfrac{1}{2}\big)(v + \varepsilon)^{-3/2}
#      = -\frac{1}{2 s^2}\sum_i g_i\,\hat x_i.$$
# And $\frac{\partial v}{\partial x_k} = \frac{2}{m}(x_k - \mu)$. (The $\mu$ inside $v$ depends on $x_k$ too. It adds
# $\sum_i \frac{2}{m}(x_i - \mu)\cdot\big(-\frac{1}{m}\big)$, and deviations from a mean sum to 0.) Multiply, and use
# $x_k - \mu = s\,\hat x_k$:
# $$-\frac{1}{s}\,\hat x_k \cdot \frac{1}{m}\sum_i g_i\,\hat x_i.$$
#
# **Through the mean.** $d\mu = -\frac{1}{s}\sum_i g_i$, and $\frac{\partial \mu}{\partial x_k} = \frac{1}{m}$:
# $$-\frac{1}{s}\cdot\frac{1}{m}\sum_i g_i.$$
#
# The sum of the three, with a bar for a mean over $i$:
# $$dx_k = \frac{1}{s}\Big(g_k - \overline{g} - \hat x_k\,\overline{g\,\hat x}\Big).$$
#
# The means in it run over the same numbers as $\mu$ does. That is batch norm, and with other axes it is layer, instance
# and group norm. One thing to watch: in batch norm $\gamma$ is the same for all numbers that share a mean, in layer
# norm it differs from one to the next. It has to be multiplied in *before* the means are taken, and in $g$ it is.
#
# **RMS norm** (Zhang and Sennrich, 2019) subtracts nothing: $\hat x_i = x_i / r$ with $r = \sqrt{\overline{x^2} +
# \varepsilon}$. The third path is gone: $dx_k = \frac{1}{r}\big(g_k - \hat x_k\,\overline{g\,\hat x}\big)$.
#
# ### What the formula says
#
# Read $x$ as an arrow with $m$ components. Subtracting $\mu$ removes its part along $(1, \dots, 1)$; dividing by $s$
# puts it on a sphere of radius $\sqrt m$ (for $\varepsilon = 0$). So shifting all $x_i$ together, or stretching them
# about their mean, does not change $\hat x$, and no gradient can point there. Indeed, $\overline{g}$ removes from $g$
# the part along the ones, and $\hat x\,\overline{g\,\hat x}$ the part along $\hat x$: **dx is what is left of $g$ at
# right angles to both**, divided by $s$. Of $m$ directions, $m - 2$ survive. A batch of two has none: $\hat x$ is $(1,
# -1)$ or $(-1, 1)$, whatever the numbers were.
#
# For $m = 3$ this can be drawn. The picture looks along $(1, 1, 1)$, so that every $\hat x$ lies on a circle. Move `dy`
# until it points along $\hat x$, then along the ones (all three equal): what is left of `dx`? Make the three $x$ nearly
# equal: what happens to its length?

# %%
widgets.normalisation.circle(reference("batchnorm_backward"), reference("batchnorm_backward"))

# %% [markdown]
# <details><summary>What is left, and the small number that is not 0</summary>
#
# Nothing, in both cases. With nearly equal $x$ the same gradient is divided by a small $s$: `dx` grows. If all three
# are equal, $s = \sqrt\varepsilon = 0.0032$, and `dx` is the centred `dy` times 316.
#
# `dx · ones` is 0 up to rounding; `dx · x̂` is small, but not that small. It is $\varepsilon$: with it, $\hat x$ falls
# short of the sphere by a hair, $\overline{\hat x^2} = \frac{v}{v + \varepsilon}$, and $dx \cdot \hat x =
# \frac{g \cdot \hat x}{s}\cdot\frac{\varepsilon}{v + \varepsilon}$.
#
# </details>
#
# ### What it does to the weights before it
#
# A linear layer in front of a batch norm: $z = x w^\top + b$. The bias $b$ shifts a whole column of $z$, and the mean
# takes it out again. **The bias does nothing, and its gradient is 0**; leave it away, $\beta$ is there. And if a row
# of $w$ is multiplied by $\alpha > 0$, $z$ is stretched and $\hat z$ stays. So, what happens to the gradient?

# %%
widgets.normalisation.guess_scale(reference)

# %% [markdown]
# For a function with $f(\alpha w) = f(w)$ two things follow by differentiation: by $w$, $\nabla f(\alpha w) =
# \frac{1}{\alpha}\nabla f(w)$; by $\alpha$ (at $\alpha = 1$), $w \cdot \nabla f(w) = 0$. The gradient is at right
# angles to the weights, so by Pythagoras every step of gradient descent makes them *longer*: $|w'|^2 = |w|^2 +
# \mathrm{lr}^2\,|\nabla f|^2$. Only the direction of $w$ matters; a step turns it by an angle of about
# $\mathrm{lr}\,|\nabla f| / |w|$, and since $|\nabla f|$ itself goes like $1/|w|$, the **effective learning rate** is
# $\mathrm{lr} / |w|^2$. It falls as the weights grow. Weight decay (lesson 07) in front of a batch norm does not make
# the function simpler, since the length of $w$ has no say in it: it keeps the effective learning rate up (van
# Laarhoven, 2017).

# %% [markdown]
# ## From scratch
#
# Four functions for batch norm, then a pair for each of the others. All take the gain `gamma`, all but RMS norm the
# bias `beta`, and all have `eps=1e-5`, which is PyTorch's default for four of the five (for RMS norm PyTorch takes the
# smallest relative step of the number type, so its `eps` is always passed here).

# %% [markdown] about="batchnorm_forward"
# ### Batch norm in training
#
# `batchnorm_forward(x, gamma, beta, eps=1e-5) -> y`: `x (n, d)`, `gamma (d,)`, `beta (d,)`, `y (n, d)`. Each *column*
# is standardised, with the biased variance.
#
# By hand, one feature of four examples, `x = [1, 1, 5, 5]`: the mean is 3, the deviations are −2, −2, 2, 2, the
# variance is 4, so `xhat = [−1, −1, 1, 1]`. With `gamma = 2` and `beta = 1`: `y = [−1, −1, 3, 3]`.
#
# With `n = 1` there is nothing to decide: `y = beta`. Columns may be constant, and may lie near ten million.

# %%
x, dy = np.array([[1.0], [1.0], [5.0], [5.0]]), np.array([[1.0], [0.0], [0.0], [3.0]])
gain, shift = np.array([2.0]), np.array([1.0])
np.testing.assert_allclose(reference("batchnorm_forward")(x, gain, shift), [[-1], [-1], [3], [3]], atol=1e-5)


# %% exercise="batchnorm_forward"
def batchnorm_forward(x, gamma, beta, eps=1e-5):
    """x (n, d), gamma (d,), beta (d,) -> y (n, d)"""
    ### BEGIN SOLUTION
    xhat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)
    return gamma * xhat + beta
    ### END SOLUTION


# %% check="batchnorm_forward"
check(batchnorm_forward)

# %% [markdown] about="batchnorm_backward"
# ### Batch norm, backwards
#
# `batchnorm_backward(dy, x, gamma, beta, eps=1e-5) -> dx, dgamma, dbeta`: the shapes of `x`, `gamma` and `beta`.
#
# By hand, the numbers from before ($\hat x = (-1, -1, 1, 1)$, $s = 2$) and `dy = [1, 0, 0, 3]`: `g = dy · 2 = [2, 0, 0,
# 6]`, its mean is 2; `g · xhat = [−2, 0, 0, 6]`, its mean is 1. So `dx = ([2, 0, 0, 6] − 2 − [−1, −1, 1, 1] · 1) / 2 =
# [0.5, −0.5, −1.5, 1.5]`; `dgamma = −1 + 3 = 2` and `dbeta = 4`. Check: `dx` sums to 0, and so does `dx · xhat`.

# %%
dx, dgamma, dbeta = reference("batchnorm_backward")(dy, x, gain, shift)
np.testing.assert_allclose(dx, [[0.5], [-0.5], [-1.5], [1.5]], atol=1e-5)
np.testing.assert_allclose([dgamma, dbeta], [[2], [4]], atol=1e-5)


# %% exercise="batchnorm_backward"
def batchnorm_backward(dy, x, gamma, beta, eps=1e-5):
    """dy (n, d), x (n, d), gamma (d,), beta (d,) -> dx (n, d), dgamma (d,), dbeta (d,)"""
    ### BEGIN SOLUTION
    root = np.sqrt(x.var(axis=0) + eps)
    xhat, g = (x - x.mean(axis=0)) / root, dy * gamma
    dx = (g - g.mean(axis=0) - xhat * (g * xhat).mean(axis=0)) / root
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)
    ### END SOLUTION


# %% check="batchnorm_backward"
check(batchnorm_backward)

# %% [markdown] about="batchnorm_running"
# ### What batch norm writes down
#
# `batchnorm_running(x, running_mean, running_var, momentum=0.1) -> running_mean, running_var`: `x (n, d)` with
# $n \geq 2$, all others `(d,)`. In training, every batch leaves its mark on two **running statistics**: the new value
# is a mixture of the old one and the batch's, and `momentum` is the share of the **batch's**:
# $$\text{running} \leftarrow (1 - \text{momentum}) \cdot \text{running} + \text{momentum} \cdot \text{batch's}.$$
# The variance that goes in here is the **unbiased** one, divided by $n - 1$: in the forward pass it described this
# batch, here it estimates the variance of data that are still to come. Return new arrays and leave the old ones as they
# were.
#
# By hand, `x = [1, 1, 5, 5]` and the start 0 and 1: the mean is 3, and 0.9 · 0 + 0.1 · 3 = 0.3. The sum of squared
# deviations is 16, the unbiased variance 16 / 3 = 5.333, and 0.9 · 1 + 0.1 · 5.333 = 1.433.

# %%
kept = reference("batchnorm_running")(x, np.zeros(1), np.ones(1))
np.testing.assert_allclose(kept, [[0.3], [0.9 + 1.6 / 3]])


# %% exercise="batchnorm_running"
def batchnorm_running(x, running_mean, running_var, momentum=0.1):
    """x (n, d), running_mean (d,), running_var (d,) -> running_mean (d,), running_var (d,)"""
    ### BEGIN SOLUTION
    running_mean = (1 - momentum) * running_mean + momentum * x.mean(axis=0)
    running_var = (1 - momentum) * running_var + momentum * x.var(axis=0, ddof=1)
    return running_mean, running_var
    ### END SOLUTION


# %% check="batchnorm_running"
check(batchnorm_running)

# %% [markdown]
# Sixty batches through your function. The dots are the batches' own means and variances; the dashed pink line is what
# the biased variance would have given. Which batch size needs the unbiased one? What does a momentum of 1 mean, and
# what does one of 0.01 cost?

# %%
widgets.normalisation.running(batchnorm_running, reference("batchnorm_running"))

# %% [markdown]
# <details><summary>Which, and what</summary>
#
# In batches of two, the biased variance aims at half the truth; in batches of 64, the difference is 1.6 %. Momentum 1
# keeps the last batch only. Momentum 0.01 averages best and learns slowest: after 60 batches, $0.99^{60} = 55\,\%$ of
# the start is still in it. A network that is evaluated that early is evaluated with statistics that are half invented.
#
# </details>

# %% [markdown] about="batchnorm_eval"
# ### Batch norm in evaluation
#
# `batchnorm_eval(x, gamma, beta, running_mean, running_var, eps=1e-5) -> y`: `x (n, d)`, the others `(d,)`. Nothing is
# averaged and nothing is learned; every example goes through the same fixed affine map, alone or in company.
#
# By hand, `x = 7`, running mean 3, running variance 4, `gamma = 2`, `beta = 1`: (7 − 3) / 2 = 2, and 2 · 2 + 1 = 5.

# %%
four, three_ = np.array([4.0]), np.array([3.0])
np.testing.assert_allclose(reference("batchnorm_eval")(np.array([[7.0]]), gain, shift, three_, four), [[5]], atol=1e-4)


# %% exercise="batchnorm_eval"
def batchnorm_eval(x, gamma, beta, running_mean, running_var, eps=1e-5):
    """x (n, d), gamma (d,), beta (d,), running_mean (d,), running_var (d,) -> y (n, d)"""
    ### BEGIN SOLUTION
    return gamma * (x - running_mean) / np.sqrt(running_var + eps) + beta
    ### END SOLUTION


# %% check="batchnorm_eval"
check(batchnorm_eval)

# %% [markdown] about="layernorm_forward"
# ### Layer norm
#
# `layernorm_forward(x, gamma, beta, eps=1e-5) -> y`: `x (…, d)` with any axes before the last, `gamma (d,)`,
# `beta (d,)`, `y` like `x`. Each row of $d$ numbers is standardised by itself, in training and ever after.
#
# By hand, the row `x = [1, 1, 5, 5]` gives `xhat = [−1, −1, 1, 1]`. With `gamma = [1, 2, 1, 2]` and `beta = [0, 0, 1,
# 1]`: `y = [−1, −2, 2, 3]`. Gain and bias belong to the features, as in batch norm.

# %%
row, gains, shifts = np.array([[1.0, 1, 5, 5]]), np.array([1.0, 2, 1, 2]), np.array([0.0, 0, 1, 1])
np.testing.assert_allclose(reference("layernorm_forward")(row, gains, shifts), [[-1, -2, 2, 3]], atol=1e-5)


# %% exercise="layernorm_forward"
def layernorm_forward(x, gamma, beta, eps=1e-5):
    """x (..., d), gamma (d,), beta (d,) -> y (..., d)"""
    ### BEGIN SOLUTION
    xhat = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return gamma * xhat + beta
    ### END SOLUTION


# %% check="layernorm_forward"
check(layernorm_forward)

# %% [markdown] about="layernorm_backward"
# ### Layer norm, backwards
#
# `layernorm_backward(dy, x, gamma, beta, eps=1e-5) -> dx, dgamma, dbeta`: the shapes of `x`, `gamma` and `beta`, also
# for `x (n, t, d)`.
#
# By hand, the row from before and `dy = [1, 0, 0, 3]`: `g = dy · gamma = [1, 0, 0, 6]` with mean 1.75; `g · xhat = [−1,
# 0, 0, 6]` with mean 1.25; `dx = (g − 1.75 − 1.25 · xhat) / 2 = [0.25, −0.25, −1.5, 1.5]`. `dgamma = dy · xhat = [−1,
# 0, 0, 3]` and `dbeta = dy`, each summed over the rows; here there is one.

# %%
dx, dgamma, dbeta = reference("layernorm_backward")(np.array([[1.0, 0, 0, 3]]), row, gains, shifts)
np.testing.assert_allclose(dx, [[0.25, -0.25, -1.5, 1.5]], atol=1e-4)
np.testing.assert_allclose(dgamma, [-1, 0, 0, 3], atol=1e-5)


# %% exercise="layernorm_backward"
def layernorm_backward(dy, x, gamma, beta, eps=1e-5):
    """dy (..., d), x (..., d), gamma (d,), beta (d,) -> dx (..., d), dgamma (d,), dbeta (d,)"""
    ### BEGIN SOLUTION
    root = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    xhat, g = (x - x.mean(axis=-1, keepdims=True)) / root, dy * gamma
    dx = (g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True)) / root
    rows = tuple(range(x.ndim - 1))
    return dx, (dy * xhat).sum(axis=rows), dy.sum(axis=rows)
    ### END SOLUTION


# %% check="layernorm_backward"
check(layernorm_backward)

# %% [markdown] about="groupnorm_forward"
# ### Group norm
#
# `groupnorm_forward(x, gamma, beta, num_groups, eps=1e-5) -> y`: `x (n, c, h, w)`, `gamma (c,)`, `beta (c,)`. The
# channels of each example are cut into `num_groups` runs of $c / \text{num\_groups}$ neighbours; the entries of a run
# share mean and variance. `num_groups` divides $c$; 1 is layer norm, $c$ is instance norm.
#
# By hand, one image of one pixel with the channels 1, 5, 2, 6 and two groups: (1, 5) has mean 3 and deviation 2, (2, 6)
# has mean 4 and deviation 2, so `xhat = [−1, 1, −1, 1]`. With one group: mean 3.5, variance 4.25, `xhat = [−1.21, 0.73,
# −0.73, 1.21]`. With four groups: `[0, 0, 0, 0]`.

# %%
pixel, ones, zeros = np.array([1.0, 5, 2, 6]).reshape(1, 4, 1, 1), np.ones(4), np.zeros(4)
groupnorm = reference("groupnorm_forward")
np.testing.assert_allclose(groupnorm(pixel, ones, zeros, 2).ravel(), [-1, 1, -1, 1], atol=1e-5)
np.testing.assert_allclose(groupnorm(pixel, ones, zeros, 1).ravel(), [-1.21, 0.73, -0.73, 1.21], atol=5e-3)


# %% exercise="groupnorm_forward"
def groupnorm_forward(x, gamma, beta, num_groups, eps=1e-5):
    """x (n, c, h, w), gamma (c,), beta (c,), num_groups -> y (n, c, h, w)"""
    ### BEGIN SOLUTION
    n, c, h, w = x.shape
    groups, inside = x.reshape(n, num_groups, c // num_groups, h, w), (2, 3, 4)
    root = np.sqrt(groups.var(axis=inside, keepdims=True) + eps)
    xhat = ((groups - groups.mean(axis=inside, keepdims=True)) / root).reshape(x.shape)
    return gamma[:, None, None] * xhat + beta[:, None, None]
    ### END SOLUTION


# %% check="groupnorm_forward"
check(groupnorm_forward)

# %% [markdown] about="groupnorm_backward"
# ### Group norm, backwards
#
# `groupnorm_backward(dy, x, gamma, beta, num_groups, eps=1e-5) -> dx, dgamma, dbeta`: the shapes of `x`, `gamma` and
# `beta`.
#
# By hand, one image with two channels of 1 × 2 pixels, one group: `x = [[1, 1], [5, 5]]` is the row of layer norm
# again. With `gamma = (1, 2)` and `dy = [[1, 0], [0, 3]]`, `g = [[1, 0], [0, 6]]`, and `dx` has the numbers 0.25,
# −0.25, −1.5, 1.5 from above. New is only where the parameters collect: `dgamma = (−1 + 0, 0 + 3) = (−1, 3)` and `dbeta
# = (1, 3)`, over examples and pixels.

# %%
image, arrives = np.array([1.0, 1, 5, 5]).reshape(1, 2, 1, 2), np.array([1.0, 0, 0, 3]).reshape(1, 2, 1, 2)
dx, dgamma, dbeta = reference("groupnorm_backward")(arrives, image, np.array([1.0, 2]), np.zeros(2), 1)
np.testing.assert_allclose(dx.ravel(), [0.25, -0.25, -1.5, 1.5], atol=1e-4)
np.testing.assert_allclose([dgamma, dbeta], [[-1, 3], [1, 3]], atol=1e-5)


# %% exercise="groupnorm_backward"
def groupnorm_backward(dy, x, gamma, beta, num_groups, eps=1e-5):
    """dy (n, c, h, w), x (n, c, h, w), gamma (c,), beta (c,), num_groups -> dx (n, c, h, w), dgamma (c,), dbeta (c,)"""
    ### BEGIN SOLUTION
    n, c, h, w = x.shape
    shape, inside = (n, num_groups, c // num_groups, h, w), (2, 3, 4)
    groups, g = x.reshape(shape), (dy * gamma[:, None, None]).reshape(shape)
    root = np.sqrt(groups.var(axis=inside, keepdims=True) + eps)
    xhat = (groups - groups.mean(axis=inside, keepdims=True)) / root
    dx = (g - g.mean(axis=inside, keepdims=True) - xhat * (g * xhat).mean(axis=inside, keepdims=True)) / root
    return dx.reshape(x.shape), (dy * xhat.reshape(x.shape)).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))
    ### END SOLUTION


# %% check="groupnorm_backward"
check(groupnorm_backward)

# %% [markdown] about="rmsnorm_forward"
# ### RMS norm
#
# `rmsnorm_forward(x, gamma, eps=1e-5) -> y`: `x (…, d)`, `gamma (d,)`, `y` like `x`. Each row is divided by its root
# mean square, with `eps` added to the mean square under the root. No mean is subtracted, and there is no bias.
#
# By hand, `x = [1, 7]`: the mean square is (1 + 49) / 2 = 25, its root 5, so `xhat = [0.2, 1.4]`; with `gamma = [1,
# 2]`, `y = [0.2, 2.8]`.

# %%
short, two = np.array([[1.0, 7.0]]), np.array([1.0, 2.0])
np.testing.assert_allclose(reference("rmsnorm_forward")(short, two), [[0.2, 2.8]], atol=1e-5)


# %% exercise="rmsnorm_forward"
def rmsnorm_forward(x, gamma, eps=1e-5):
    """x (..., d), gamma (d,) -> y (..., d)"""
    ### BEGIN SOLUTION
    return gamma * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    ### END SOLUTION


# %% check="rmsnorm_forward"
check(rmsnorm_forward)

# %% [markdown] about="rmsnorm_backward"
# ### RMS norm, backwards
#
# `rmsnorm_backward(dy, x, gamma, eps=1e-5) -> dx, dgamma`: the shapes of `x` and `gamma`.
#
# By hand, `x = [1, 7]`, `gamma = [1, 2]` and `dy = [1, 1]`: `g = [1, 2]`; `g · xhat = [0.2, 2.8]` with mean 1.5; `dx =
# ([1, 2] − 1.5 · [0.2, 1.4]) / 5 = [0.14, −0.02]`, and `dgamma = [0.2, 1.4]`. Check: `dx · x = 0.14 − 0.14 = 0`, since
# stretching a row changes nothing.

# %%
dx, dgamma = reference("rmsnorm_backward")(np.ones((1, 2)), short, two)
np.testing.assert_allclose(dx, [[0.14, -0.02]], atol=1e-5)
np.testing.assert_allclose(dgamma, [0.2, 1.4], atol=1e-5)


# %% exercise="rmsnorm_backward"
def rmsnorm_backward(dy, x, gamma, eps=1e-5):
    """dy (..., d), x (..., d), gamma (d,) -> dx (..., d), dgamma (d,)"""
    ### BEGIN SOLUTION
    root = np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    xhat, g = x / root, dy * gamma
    dx = (g - xhat * (g * xhat).mean(axis=-1, keepdims=True)) / root
    return dx, (dy * xhat).sum(axis=tuple(range(x.ndim - 1)))
    ### END SOLUTION


# %% check="rmsnorm_backward"
check(rmsnorm_backward)

# %% [markdown]
# The figure from the start, drawn by your functions. Where one differs from the reference, it says so.

# %%
yours = batchnorm_forward, layernorm_forward, groupnorm_forward, rmsnorm_forward
widgets.normalisation.sharing(yours, norms, kind="group")

# %% [markdown]
# ## Against a reference
#
# Three witnesses for each gradient: your formula, finite differences (your `numerical_gradient` of lesson 01), PyTorch.
# The upstream gradients are random, as they have to be: with `dy = 1`, batch and layer norm with gain 1 give `dx = 0`,
# and zeros would pass.

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(8)
x, gamma, beta = 2 * rng.normal(size=(5, 3)) + 1, rng.normal(size=3), rng.normal(size=3)
dy, image, dimage = rng.normal(size=(5, 3)), rng.normal(size=(2, 4, 2, 2)), rng.normal(size=(2, 4, 2, 2))
gains, shifts = rng.normal(size=4), rng.normal(size=4)
cases = {
    "batch": (batchnorm_forward, batchnorm_backward, dy, (x, gamma, beta)),
    "layer": (layernorm_forward, layernorm_backward, dy, (x, gamma, beta)),
    "group": (groupnorm_forward, groupnorm_backward, dimage, (image, gains, shifts, 2)),
    "rms": (rmsnorm_forward, rmsnorm_backward, dy, (x, gamma)),
}

# %%
gradients = {}
for name, (forward, backward, up, given) in cases.items():
    nudged = numerical_gradient(lambda z, f=forward, up=up, rest=given[1:]: (up * f(z, *rest)).sum(), given[0])
    gradients[f"dx {name}"] = backward(up, *given)[0], nudged, reference(f"{name}norm_backward")(up, *given)[0]
plots.gradient_check(gradients)

# %% [markdown]
# What the formula promised, in numbers: `dx` at right angles to the ones and to $\hat x$; the weights before a batch
# norm at right angles to their gradient, so that a step makes them longer as Pythagoras says; a bias there that gets
# no gradient.

# %% tags=["nbval-check-output"]
w, b, inputs = rng.normal(size=(3, 6)), rng.normal(size=3), rng.normal(size=(5, 6))
z, eps = inputs @ w.T + b, 1e-12
dz, _, _ = batchnorm_backward(dy, z, gamma, beta, eps)
zhat = batchnorm_forward(z, np.ones(3), np.zeros(3), eps)
dw, db = dz.T @ inputs, dz.sum(axis=0)
small = {"dz · ones": dz.sum(0), "dz · zhat": (dz * zhat).sum(0), "w · dw": (w * dw).sum(1), "db": db}
small["|w − lr dw|² − |w|² − lr²|dw|²"] = ((w - 0.1 * dw) ** 2 - w**2 - (0.1 * dw) ** 2).sum(1)
for name, values in small.items():
    print(f"{name:<30} below 1e-9: {np.abs(values).max() < 1e-9}")
print(f"while dw itself reaches {np.abs(dw).max():.1f}")

# %% [markdown]
# What a check says of the classic mistake, mean and variance taken for constants:

# %% tags=["nbval-check-output"]
def constants(dy, x, gamma, beta, eps=1e-5):
    _, dgamma, dbeta = batchnorm_backward(dy, x, gamma, beta, eps)
    return dy * gamma / np.sqrt(x.var(axis=0) + eps), dgamma, dbeta


print(examine(constants, "batchnorm_backward").mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `batchnorm_forward`, `_running`, `_eval` | `F.batch_norm(…, training=)`, `nn.BatchNorm1d`, `2d`, `3d` | changes the buffers **in place**; refuses a batch of one in training |
# | `layernorm_forward` | `F.layer_norm(x, (d,), …)`, `nn.LayerNorm(d)` | takes a *shape*, the last axes; parameters `weight`, `bias` |
# | `groupnorm_forward` | `F.group_norm(x, num_groups, …)`, `nn.GroupNorm(num_groups, c)` | gain and bias per channel, also with one group |
# | … with $c$ groups | `nn.InstanceNorm2d(c)` | without gain and bias unless `affine=True` |
# | `rmsnorm_forward` | `F.rms_norm(x, (d,), …)`, `nn.RMSNorm(d)` | `eps=None` means $2.2 \cdot 10^{-16}$ in float64, $1.2 \cdot 10^{-7}$ in float32 |
#
# `gamma` is called `weight` and `beta` is called `bias`. The running statistics are **buffers**: no gradient, no step
# of an optimiser, but part of `state_dict()`. A third buffer counts the batches. Some claims, verified:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
images = torch.randn(4, 6, 5, 5, dtype=torch.float64) * 3 + 1
bn, rows = nn.BatchNorm2d(6).double(), images.permute(0, 2, 3, 1).reshape(-1, 6)
average = nn.BatchNorm1d(6, momentum=None).double()
for part in rows.split(20):
    average(part)
mean_of_means = torch.stack([part.mean(0) for part in rows.split(20)]).mean(0)
facts = {
    "BatchNorm2d is batch norm of rows of channels": (
        bn(images).permute(0, 2, 3, 1).reshape(-1, 6).detach(),
        torch.tensor(batchnorm_forward(rows.numpy(), np.ones(6), np.zeros(6))),
    ),
    "one group is layer norm over (c, h, w)": (F.group_norm(images, 1), F.layer_norm(images, images.shape[1:])),
    "c groups are instance norm": (F.group_norm(images, 6), F.instance_norm(images)),
    "momentum=None keeps the plain average": (average.running_mean, mean_of_means),
}
for fact, (left, right) in facts.items():
    print("right" if torch.allclose(left, right) else "WRONG", "·", fact)

# %% [markdown]
# And the batch of one. Your function answered `beta`; PyTorch refuses, because such an answer tells nothing about the
# example, and a network trained on it would learn nothing. (The last batch of an epoch is where it happens: 1437
# digits in batches of 359 leave one over. `drop_last=True` in the loader is the usual cure.) In evaluation, and with
# layer norm, one example is as good as many.

# %% tags=["nbval-check-output"]
alone = torch.tensor([[2.0, -1.0, 0.5]])
print("batchnorm_forward:      ", batchnorm_forward(alone.numpy(), np.ones(3), np.zeros(3)).tolist())
try:
    nn.BatchNorm1d(3)(alone)
except ValueError as error:
    print("BatchNorm1d, training:  ", error)
print("BatchNorm1d, evaluation:", [round(v, 3) for v in nn.BatchNorm1d(3).eval()(alone)[0].tolist()])
print("LayerNorm:              ", [round(v, 3) for v in nn.LayerNorm(3)(alone)[0].tolist()])

# %% [markdown] about="BatchNorm1d"
# ### Batch norm as a module
#
# Re-create `nn.BatchNorm1d` for inputs `(n, d)`, with its arguments `num_features`, `eps=1e-5`, `momentum=0.1`, its
# parameters `weight` and `bias`, and its buffers `running_mean`, `running_var` and `num_batches_tracked` (an integer,
# plus 1 for each batch in training). `self.training` is True until somebody calls `.eval()`. Both modes are checked,
# with outputs, gradients and buffers. (A batch of one in training need not be refused.)
#
# A buffer is made by `self.register_buffer("name", tensor)` and then used as `self.name`. It must not become part of
# the graph: `with torch.no_grad():` around the update. Autograd does the backward pass.
#
# By hand, as in `batchnorm_running`: after the one batch `[1, 1, 5, 5]`, the fresh module's buffers are 0.3, 1.433 and
# 1.


# %% exercise="BatchNorm1d"
class BatchNorm1d(nn.Module):
    """x (n, d) -> y (n, d)

    Two methods: __init__ makes parameters and buffers, forward(self, x) normalises and, in training, updates them.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        ### BEGIN SOLUTION
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(dim=0), x.var(dim=0, unbiased=False)
            with torch.no_grad():
                self.running_mean += self.momentum * (mean - self.running_mean)
                self.running_var += self.momentum * (x.var(dim=0) - self.running_var)
                self.num_batches_tracked += 1
        return self.weight * (x - mean) / torch.sqrt(var + self.eps) + self.bias
        ### END SOLUTION

# %% check="BatchNorm1d"
check(BatchNorm1d)

# %% [markdown]
# Twenty batches through your module and through PyTorch's, then an evaluation of one example:

# %% tags=["nbval-check-output"]
own, built_in = BatchNorm1d(4).double(), nn.BatchNorm1d(4).double()
for _ in range(20):
    batch = 2 * torch.randn(6, 4, dtype=torch.float64) + 1
    assert torch.allclose(own(batch), built_in(batch))
for (name, value), (_, right) in zip(own.named_buffers(), built_in.named_buffers(), strict=True):
    print(f"{name:<20} equal: {torch.allclose(value, right)}")
print("evaluation of one    equal:", torch.allclose(own.eval()(batch[:1]), built_in.eval()(batch[:1])))

# %% [markdown] about="LayerNorm"
# ### Layer norm as a module
#
# Re-create `nn.LayerNorm` with the arguments `normalized_shape` (here always one number, the length of the last axis)
# and `eps=1e-5`, and with the parameters `weight` and `bias`. It has no buffers, and evaluation changes nothing.
#
# By hand: a fresh module turns the row `[1, 1, 5, 5]` into `[−1, −1, 1, 1]`.


# %% exercise="LayerNorm"
class LayerNorm(nn.Module):
    """x (..., d) -> y (..., d)

    Two methods: __init__ makes weight and bias, forward(self, x) normalises each row.
    """

    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__()
        ### BEGIN SOLUTION
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))

    def forward(self, x):
        mean, var = x.mean(dim=-1, keepdim=True), x.var(dim=-1, unbiased=False, keepdim=True)
        return self.weight * (x - mean) / torch.sqrt(var + self.eps) + self.bias
        ### END SOLUTION

# %% check="LayerNorm"
check(LayerNorm)

# %% tags=["nbval-check-output"]
words = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
print("gradcheck, batch norm:", torch.autograd.gradcheck(BatchNorm1d(4).double(), words[0]))
print("gradcheck, layer norm:", torch.autograd.gradcheck(LayerNorm(4).double(), words))
own.train()(words[0])
print("buffers outside the graph:", not (own.running_mean.requires_grad or own.running_var.requires_grad))

# %% [markdown]
# ## At work
#
# Your functions behind the layer protocol of lesson 04. New is the flag `training`: batch norm is the first layer that
# has to be told what it is used for.


# %%
class BatchNormLayer:
    """Batch norm with its gain, its bias, its running statistics, and a flag: training or evaluation."""

    def __init__(self, d):
        self.gamma, self.beta, self.running = np.ones(d), np.zeros(d), (np.zeros(d), np.ones(d))
        self.training = True

    def forward(self, x):
        if not self.training:
            return batchnorm_eval(x, self.gamma, self.beta, *self.running)
        self.x, self.running = x, batchnorm_running(x, *self.running)
        return batchnorm_forward(x, self.gamma, self.beta)

    def backward(self, dy):
        dx, self.dgamma, self.dbeta = batchnorm_backward(dy, self.x, self.gamma, self.beta)
        return dx

    def parameters(self):
        return [self.gamma, self.beta]

    def gradients(self):
        return [self.dgamma, self.dbeta]


# %% [markdown]
# A network is a list of layers: three times linear and ReLU, with batch norm between the two or nothing, then a linear
# layer to ten logits. The weights start as He et al. (2015) say (lesson 05), times `scale`, so that we can start well
# and badly.

# %%
Sequential, LinearLayer, ReLULayer = mine("Sequential"), mine("LinearLayer"), mine("ReLULayer")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
digits = data.digits()
between = {"plain": lambda d, rng: [], "batch norm": lambda d, rng: [BatchNormLayer(d)]}


def network(name, seed, scale=1.0):
    rng, layers = np.random.default_rng(seed), []
    for i in (64, 64, 64):
        w = rng.normal(0, scale * np.sqrt(2 / i), (64, i))
        layers += [LinearLayer(w, np.zeros(64)), *between[name](64, rng), ReLULayer()]
    return [*layers, LinearLayer(rng.normal(0, scale * np.sqrt(2 / 64), (10, 64)), np.zeros(10))]


def set_mode(layers, training):
    for layer in layers:
        layer.training = training


# %%
def descend(model, x, t, lr):
    """One step of gradient descent on one batch; the loss before it."""
    logits = model.forward(x)
    model.backward(cross_entropy_backward(1.0, logits, t))
    for param, grad in zip(model.parameters(), model.gradients(), strict=True):
        param -= lr * grad
    return cross_entropy_forward(logits, t)


def accuracy(model, x=digits.x_test, t=digits.y_test):
    return (model.forward(x).argmax(axis=1) == t).mean()


# %%
epochs, models, rng = 2 if plots.fast() else 10, {}, np.random.default_rng(0)
layers = {name: network(name, seed=0) for name in between}
models = {name: Sequential(layers[name]) for name in between}
with plots.Training(epochs, "plain loss", "batch norm loss", "plain accuracy", "batch norm accuracy") as run:
    for _ in range(epochs):
        losses, accuracies = [], []
        batches = np.array_split(rng.permutation(len(digits.x_train)), 23)
        for name, model in models.items():
            set_mode(layers[name], training=True)
            losses.append(np.mean([descend(model, digits.x_train[k], digits.y_train[k], 0.1) for k in batches]))
            set_mode(layers[name], training=False)
            accuracies.append(accuracy(model))
        run.log(*losses, *accuracies)

# %% [markdown]
# The same weights, the same batches, the same learning rate, and after ten epochs hardly a difference: a shallow
# network that starts from He's weights at a well-chosen learning rate does not need a norm. Where it does need one
# comes below. First, the mistake that everybody makes once.
#
# ### Forgetting to switch
#
# The trained network is asked for the test digits in training mode, as if `model.eval()` had been forgotten: in large
# batches, in small ones, in batches sorted by class, one by one. Then it is asked once more, properly. What do you
# expect of one by one? What of the last line: has asking changed the network?

# %% tags=["nbval-check-output"]
order = np.argsort(digits.y_test, kind="stable")
groups = {
    "all 360 at once": [np.arange(360)],
    "batches of 8": np.arange(360).reshape(45, 8),
    "sorted by class, batches of 36": order.reshape(10, 36),
    "one by one": np.arange(360).reshape(360, 1),
}
trained, model = layers["batch norm"], models["batch norm"]
norm_layers = [layer for layer in trained if isinstance(layer, BatchNormLayer)]
kept = [layer.running for layer in norm_layers]
set_mode(trained, training=False)
print(f"evaluation                      {accuracy(model):.2f}")
for name, batches in groups.items():
    set_mode(trained, training=True)
    with warnings.catch_warnings(action="ignore"):  # a batch of one has no unbiased variance
        rights = [accuracy(model, digits.x_test[k], digits.y_test[k]) for k in batches]
    set_mode(trained, training=False)
    afterwards = accuracy(model)
    print(f"{name:<31} {np.mean(rights):.2f}   evaluation afterwards {afterwards:.2f}")
    for layer, running in zip(norm_layers, kept, strict=True):
        layer.running = running

# %% [markdown]
# Asked for everything at once, training mode is as good as evaluation, which is why the mistake lives long: it shows
# when the batches become small, or when they are no fair sample. A batch of one class has that class's own mean, and
# subtracting it takes away what made the class. One by one, $\hat x = 0$ whatever the digit: all 360 get the same
# answer, and 0.11 is how often it happens to be right. The last column is the quiet damage. Asking in training mode has
# moved the running statistics; after the sorted batches, evaluation is a little worse than before, and after the
# batches of one it is ruined: the unbiased variance of one number is 0 / 0, and a running variance of `nan` stays
# `nan`.
#
# ### Does it train faster?
#
# A fair comparison lets each network have its own best learning rate, and starts it well and badly. So: four learning
# rates, weights at 0.3, 1 and 3 times He's scale, three seeds each, 25 steps of 64 digits, the loss on 500 training
# digits in evaluation mode. The line is the mean over the seeds, the band reaches from the best to the worst.

# %%
rates, steps, seeds = [0.01, 0.1, 0.5, 2], 3 if plots.fast() else 25, range(3)


def loss_after(name, scale, lr, seed):
    layers, rng = network(name, seed, scale), np.random.default_rng(seed)
    model = Sequential(layers)
    for _ in range(steps):
        batch = rng.integers(0, len(digits.x_train), 64)
        descend(model, digits.x_train[batch], digits.y_train[batch], lr)
    set_mode(layers, training=False)
    loss = cross_entropy_forward(model.forward(digits.x_train[:500]), digits.y_train[:500])
    return min(loss, 10) if np.isfinite(loss) else 10.0


with np.errstate(all="ignore"):  # some of these runs diverge
    results = {
        (name, scale): np.array([[loss_after(name, scale, lr, seed) for lr in rates] for seed in seeds])
        for name in between
        for scale in (0.3, 1, 3)
    }

# %%
colours = widgets.normalisation.NETWORKS
fig, axes = plots.figure(9.5, 2.5, 3)
for ax, scale in zip(axes, (0.3, 1, 3), strict=True):
    for name in between:
        runs = results[name, scale]
        ax.plot(rates, runs.mean(axis=0), color=colours[name], label=name)
        ax.fill_between(rates, runs.min(axis=0), runs.max(axis=0), color=colours[name], alpha=0.25)
    ax.set(xscale="log", ylim=(0, 4.2), title=f"weights × {scale}", xlabel="learning rate")
axes[0].set_ylabel("training loss")
axes[0].legend()
plots.show(
    fig,
    alt="Training loss against the learning rate for three initial scales. Batch norm's curve falls alike in all "
    "three; the plain network's is no better anywhere, far worse at large learning rates, and flat at 0.3.",
    caption="After 25 steps; bands span three seeds. Batch norm hardly cares how the weights start, and stands large "
    "learning rates. At the smallest there is nothing to gain.",
)
for (name, scale), runs in results.items():
    best = runs.mean(axis=0).argmin()
    spread = f"{runs[:, best].min():.2f} to {runs[:, best].max():.2f}"
    print(f"weights × {scale:<4}{name:<11} best at {rates[best]:<5} loss {runs[:, best].mean():.2f} ({spread})")

# %% [markdown]
# Read it fairly. At the smallest learning rate batch norm gains nothing, from no start. Its gain is that it *stands*
# large ones: at 0.5 and 2, where the plain network learns next to nothing (a loss of 2.3 is $\ln 10$, knowing nothing),
# the normalised one is at its best. And its three panels look alike, whereas the plain network at 0.3 times He's
# weights does not start at all in 25 steps. Lesson 05 says why: its signal shrinks with every layer, and batch norm
# restores it at each. So the answer to "faster?" is: with the learning rates that it makes possible, from starts that
# it makes harmless. Ioffe and Szegedy (2015) report their 14 times fewer steps with higher learning rates, too.

# %% [markdown]
# ## Look inside
#
# ### The claim and the dispute
#
# Ioffe and Szegedy (2015) introduced batch norm with an explanation in the title: *reducing internal covariate shift*.
# While a layer learns, the layers before it learn too, so that the distribution of its inputs keeps moving; a layer
# whose inputs keep mean and variance should learn faster. The method was a success, and the explanation went with it
# into the textbooks.
#
# Santurkar, Tsipras, Ilyas and Mądry (2018) put it to the test. They added noise *after* batch norm, with a mean and a
# scale that change at every step, so that the inputs moved more than without any norm; the network trained nearly as
# well. They also measured the shift as an optimiser would notice it: how far a layer's gradient moves when only the
# layers before it take their step. Batch norm did not make that smaller. What it changed was the **landscape**: along a
# step, loss and gradient vary less, so that the gradient stays right for longer.
#
# The experiment is small enough to repeat. Three networks, among them one with noise behind its batch norms:


# %%
class NoiseLayer:
    """A scale and a shift for every unit, drawn anew with every redraw(), slightly different for each example."""

    def __init__(self, d, rng):
        self.d, self.rng = d, rng
        self.redraw()

    def redraw(self):
        rng, d, many = self.rng, self.d, (256, self.d)
        self.scale = rng.normal(rng.uniform(1, 1.25, d), 0.1, many)
        self.shift = rng.uniform(-0.5, 0.5, d) + rng.uniform(-0.1, 0.1, many)

    def forward(self, x):
        return self.scale[: len(x)] * x + self.shift[: len(x)]

    def backward(self, dy):
        return dy * self.scale[: len(dy)]

    def parameters(self):
        return []

    gradients = parameters


between["batch norm + noise"] = lambda d, rng: [BatchNormLayer(d), NoiseLayer(d, rng)]

# %% [markdown]
# Four numbers will be measured every twenty steps and averaged over the training, for each network and seed:
#
# - the **loss** at the end;
# - the **input shift**: how far the means of the last layer's inputs move in twenty steps, in units of their spread;
# - the **gradient, others moved**: how far the gradient of the third linear layer moves, relative to its length,
#   when only the layers before it take their step (Santurkar's definition of internal covariate shift);
# - the **gradient along step**: how far the whole gradient moves when all parameters go half, once, twice and four
#   times the step (the largest of the four): is the direction that we trust still right where it leads?


# %%
def gradient(model, x, t):
    logits = model.forward(x)
    model.backward(cross_entropy_backward(1.0, logits, t))
    return [grad.copy() for grad in model.gradients()]


def change(old, new):
    """How far a list of gradients has moved, relative to its length."""
    length = np.sqrt(sum((a**2).sum() for a in old))
    return np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(old, new, strict=True))) / length


def after_moving(model, moving, steps, x, t):
    """The gradient after the parameters `moving` have been moved by minus `steps`; they are put back."""
    before = [param.copy() for param in moving]
    for param, step in zip(moving, steps, strict=False):  # the first layers' parameters come first
        param -= step
    found = gradient(model, x, t)
    for param, old in zip(moving, before, strict=True):
        param[:] = old
    return found


# %%
def watched(name, seed, steps, lr=0.1, every=20):
    layers, rng, probe = network(name, seed), np.random.default_rng(seed), digits.x_train[:256]
    model, third = Sequential(layers), [k for k, layer in enumerate(layers) if isinstance(layer, LinearLayer)][2]
    first, number = Sequential(layers[:third]).parameters(), len(Sequential(layers[:third]).parameters())
    found, inputs = {"others": [], "along": []}, []
    for step in range(steps):
        batch = rng.integers(0, len(digits.x_train), 64)
        x, t = digits.x_train[batch], digits.y_train[batch]
        if step % every == 0:
            grads = gradient(model, x, t)
            moved = after_moving(model, first, [lr * g for g in grads], x, t)
            found["others"].append(change(grads[number : number + 1], moved[number : number + 1]))
            ahead = [after_moving(model, model.parameters(), [k * lr * g for g in grads], x, t) for k in (0.5, 1, 2, 4)]
            found["along"].append(max(change(grads, new) for new in ahead))
            inputs.append(Sequential(layers[:-2]).forward(probe))
        loss = descend(model, x, t, lr)
        for layer in layers:
            if isinstance(layer, NoiseLayer):
                layer.redraw()
    inputs = np.array(inputs)
    seen = np.maximum(inputs, 0)
    shift = np.abs(np.diff(seen.mean(axis=1), axis=0)).mean() / seen.std()
    return loss, shift, np.mean(found["others"]), np.mean(found["along"]), inputs[:, :, :3]


# %%
nets, many = (*between,), range(1 if plots.fast() else 3)
runs = {name: [watched(name, seed, 40 if plots.fast() else 80) for seed in many] for name in nets}
measures = ("loss at the end", "input shift", "gradient, others moved", "gradient along step")
fig, axes = plots.figure(9.5, 2.3, 4)
for k, (ax, measure) in enumerate(zip(axes, measures, strict=True)):
    for place, name in enumerate(nets):
        ax.plot([place] * len(many), [run[k] for run in runs[name]], "o", color=colours[name], label=name)
    ax.set(title=measure, xlim=(-0.6, 2.6), xticks=[])
    ax.set_ylim(bottom=0)
axes[0].legend(fontsize=7, loc="lower left")
plots.show(
    fig,
    alt="Four panels, three networks with three seeds each. The input shift is small for batch norm alone; in the "
    "other three panels batch norm with and without noise lie together, below the plain network.",
    caption="A point is one run. Noise brings most of the input shift back, and hardly any of the rest.",
)
for name in nets:
    means = [np.mean([run[k] for run in runs[name]]) for k in range(4)]
    print(f"{name:<19}" + "   ".join(f"{m} {mean:.3f}" for m, mean in zip(measures, means, strict=True)))

# %% [markdown]
# What is found here:
#
# - Batch norm does keep the inputs in place: they shift less than a tenth as much as in the plain network. So far,
#   Ioffe and Szegedy are right.
# - But it is not *why* it trains well. With noise, the inputs shift nine times as much as with batch norm alone, nearly
#   as much as in the plain network, and the loss, the gradients and their steadiness stay those of batch norm. That is
#   Santurkar's finding.
# - Along the step, the plain network's gradient moves by more than three times its own length: four steps ahead it is
#   worth nothing. Batch norm's moves by two thirds. That is the smoother landscape, and it fits with the large learning
#   rates of the experiment above.
# - One thing differs from the paper: by its own measure, the third panel, batch norm *does* reduce the shift here, and
#   equally so with noise. If a layer's inputs may jump about without its gradient moving, this measure sees the
#   landscape, not the inputs.
#
# Three small networks, one learning rate, one data set: this supports one side, and proves nothing in general. The
# dispute has more sides. Larger steps alone explain much of the gain according to Bjorck et al. (2018); the effective
# learning rate of the mathematics above is another part; and that batch norm may also regularise, by the noise of its
# batches, is in the first paper already.
#
# And the inputs themselves: what three units of the last hidden layer receive, for 256 digits, at each of the four
# moments. Walk back and forth through the training.

# %%
snapshots = range(0, 40 if plots.fast() else 80, 20)
widgets.normalisation.inside(list(snapshots), {name: runs[name][0][4] for name in nets})

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken layers, and two numbers to predict.

# %% [markdown] about="repair_batchnorm_layer"
# ### Repair: a network that changes while it is tested
#
# `repair_batchnorm_layer(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5) -> y,
# running_mean, running_var`: one call of a batch norm layer, in training or in evaluation, with the statistics it
# leaves behind. Whoever evaluates with the function below gets a slightly different accuracy every time, and another
# one when the test set is shuffled. There are two faults; the second shows in training, with small batches most.
#
# In evaluation the last two outputs are the given ones, unchanged. There, `x` may hold a single example.


# %% exercise="repair_batchnorm_layer"
def repair_batchnorm_layer(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """x (n, d), gamma, beta, running_mean, running_var (d,), training -> y (n, d), running_mean, running_var (d,)"""
    ### BEGIN SOLUTION
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean(axis=0), x.var(axis=0)
        running_mean = running_mean + momentum * (mean - running_mean)
        running_var = running_var + momentum * (x.var(axis=0, ddof=1) - running_var)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta, running_mean, running_var
    ### BROKEN
    # mean, var = x.mean(axis=0), x.var(axis=0)
    # running_mean = (1 - momentum) * running_mean + momentum * mean
    # running_var = (1 - momentum) * running_var + momentum * var
    # if not training:
    #     mean, var = running_mean, running_var
    # return gamma * (x - mean) / np.sqrt(var + eps) + beta, running_mean, running_var
    ### END SOLUTION


# %% check="repair_batchnorm_layer"
check(repair_batchnorm_layer)

# %% [markdown] about="repair_batchnorm2d_forward"
# ### Repair: images whose channels mix
#
# `repair_batchnorm2d_forward(x, gamma, beta, eps=1e-5) -> y`: batch norm for images `(n, c, h, w)` in training. A
# channel has one mean and one variance, over all examples and pixels; so every pixel of every image is made a row of
# $c$ channels, and the rest is `batchnorm_forward`. No error, the right shape, and right for images of one pixel.


# %% exercise="repair_batchnorm2d_forward"
def repair_batchnorm2d_forward(x, gamma, beta, eps=1e-5):
    """x (n, c, h, w), gamma (c,), beta (c,) -> y (n, c, h, w)"""
    ### BEGIN SOLUTION
    n, c, h, w = x.shape
    flat = x.transpose(0, 2, 3, 1).reshape(-1, c)
    y = gamma * (flat - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + eps) + beta
    return y.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    ### BROKEN
    # n, c, h, w = x.shape
    # flat = x.reshape(-1, c)
    # y = gamma * (flat - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + eps) + beta
    # return y.reshape(n, c, h, w)
    ### END SOLUTION


# %% check="repair_batchnorm2d_forward"
check(repair_batchnorm2d_forward)

# %% [markdown] about="count_statistics"
# ### Predict: how many means?
#
# `count_statistics(kind, n, c, h, w, num_groups) -> means, scales`: images `(n, c, h, w)` go through one norm. How many
# different means are subtracted, and how many different scales divided by? `kind` is `"batch"`, `"layer"`,
# `"instance"`, `"group"` or `"rms"`; layer and RMS norm take all of $c, h, w$ as one row, as in the first picture.
# `num_groups` is given always and matters for `"group"` only. Two whole numbers, from the sizes.
#
# By hand, 2 images of 4 channels, 3 × 3 pixels: batch norm has 4 means and 4 scales, one for each channel.


# %% exercise="count_statistics"
def count_statistics(kind, n, c, h, w, num_groups):
    """kind, n, c, h, w, num_groups -> means (), scales ()"""
    ### BEGIN SOLUTION
    scales = {"batch": c, "layer": n, "instance": n * c, "group": n * num_groups, "rms": n}[kind]
    return (0 if kind == "rms" else scales), scales
    ### END SOLUTION


# %% check="count_statistics"
check(count_statistics)

# %% [markdown] about="start_left"
# ### Predict: what is left of the start?
#
# `start_left(momentum, batches) -> share`: running statistics start at 0 and 1, which nobody measured. Which share of a
# running mean is still the starting value, after that many batches?
#
# By hand, `momentum = 0.5`: after one batch a half, after two a quarter.


# %% exercise="start_left"
def start_left(momentum, batches):
    """momentum, batches -> share ()"""
    ### BEGIN SOLUTION
    return (1 - momentum) ** batches
    ### END SOLUTION


# %% check="start_left"
check(start_left)

# %% [markdown]
# ### What people believe, and what is true
#
# - **"Momentum 0.9 is the usual value."** In most formulas (and in lesson 06) momentum is the share that the *old*
#   value keeps. In PyTorch's norms it is the share of the *new* one: the usual value is 0.1, and 0.9 there means nearly
#   no memory.
# - **"The layer before a batch norm needs its bias."** The mean takes it out, and its gradient is 0: you saw `db`.
#   Hence `bias=False` there.
# - **"model.eval() turns off gradients", "no_grad() switches batch norm."** Neither. `eval()` changes what batch norm
#   (and dropout) do and records the graph all the same; `no_grad()` records nothing and leaves batch norm in training,
#   where it updates its buffers with your test data.
# - **"Frozen layers do not change."** With `requires_grad=False` the weights stay, and the running statistics of a
#   batch norm still follow each batch until the module is in `eval()`.
# - **"A smaller batch only makes training noisier."** Not with batch norm: mean and variance are estimated from it.
#   With 2 examples the output is ±1 whatever the input (before gain and bias). Group norm was made for the small
#   batches of detection (Wu and He, 2018).
# - **"Layer norm is batch norm transposed, take either."** For sentences of different lengths, words that are padding,
#   or a model that produces one word at a time, the batch is no place to measure; hence layer norm, and of late RMS
#   norm, in transformers.
# - **"Evaluation only matters for the score."** A batch norm in training mode lets the answer for one patient depend on
#   who else is in the batch. In some settings that is a leak of information, not only an error.


# %% [markdown]
# ## Where it is used, and what came after
#
# Batch norm stands in nearly every convolutional network since 2015 (lessons 12 to 14), after the convolution and
# before the ReLU; in evaluation it is an affine map and is folded into the weights before it. Instance norm came with
# style transfer, where an image's contrast is style to be thrown away (Ulyanov, Vedaldi and Lempitsky, 2016); group
# norm with detection (Wu and He, 2018). Layer norm (Ba, Kiros and Hinton, 2016) was made for recurrent networks and
# stands in nearly every transformer, today mostly *before* attention and feed-forward layers (*pre-norm*, lesson 19),
# so that the skip connections stay free of it. LLaMA and many language models after it use RMS norm, which is cheaper
# and, as Zhang and Sennrich (2019) report, no worse.
#
# Norms can be done without. Brock et al. (2021) trained networks without any as well as the best with, by scaled
# weights and adaptive clipping of gradients. What a norm does can be done by other means, which take more care.
#
# You can now
#
# - say for each norm which numbers share a mean, and count the means;
# - derive its backward pass by three paths, and see it as a projection;
# - write a layer that behaves differently in training and evaluation, and find the bug when it does not;
# - say what is known, and what is not, of why batch norm helps.
#
# To read:
#
# - S. Ioffe and C. Szegedy, *Batch normalization: accelerating deep network training by reducing internal covariate
#   shift*, 2015. The method, and the explanation that is disputed.
# - J. L. Ba, J. R. Kiros and G. E. Hinton, *Layer normalization*, 2016.
# - Y. Wu and K. He, *Group normalization*, 2018. The picture of axes that the first figure follows.
# - S. Santurkar, D. Tsipras, A. Ilyas and A. Mądry, *How does batch normalization help optimization?*, 2018. The
#   experiment that you repeated.
# - B. Zhang and R. Sennrich, *Root mean square layer normalization*, 2019.
# - A. Brock, S. De, S. L. Smith and K. Simonyan, *High-performance large-scale image recognition without
#   normalization*, 2021. How to do without.
