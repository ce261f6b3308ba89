# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Losses
#
# A network's last layer puts out numbers. A **loss** turns them, and what really happened, into one number to make
# small. You will build the three losses that most of deep learning lives on (mean squared error, binary
# cross-entropy, cross-entropy), forwards and backwards, so that they survive logits of ±1000; and you will see why
# each belongs to one output layer and learns badly with another.
#
# One idea carries the whole lesson: **a loss is surprise.** The output layer claims how probable every possible
# outcome is; the loss is minus the logarithm of the probability it gave to the outcome that came. The picture below
# shows the three claims. Three losses, one idea.
#
# **You need** lesson 01 (gradients) and lesson 02 (sigmoid, softmax). **Time:** about four hours, three of them for the
# exercises.

# %% setup=true
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

# %%
plots.show(
    widgets.losses.claims(),
    alt="Three output layers as claims: a bell over numbers, two columns for yes and no, three columns for classes. "
    "In each, the outcome that came is marked; the loss is minus the logarithm of its probability.",
    caption="Three kinds of answer, one loss: minus the logarithm of the probability given to what came (orange). "
    "For a number it is a density, which may exceed 1, so that this surprise may be negative.",
)

# %% [markdown]
# ## Play first
#
# Before any formula: a network has to say whether a mail is spam. It is. But the network's logit is $z = -8$, so that
# its output is $p = \mathrm{sigmoid}(-8) = 0.03\,\%$: very wrong, and very sure. Two losses are at hand, the squared
# error $(p - 1)^2$ and the cross-entropy $-\ln p$. Both say "raise the logit". How loudly?

# %%
widgets.losses.guess_ratio(reference)

# %% [markdown]
# Now move the logit yourself (click a slider, then use the arrow keys).
#
# - Where is the squared error's gradient largest? Where is it smallest, and is the network right or wrong there?
# - Slide from −10 to 10 with truth 1. On which side does cross-entropy's gradient fade, and why is that welcome?
# - Change the truth to 0. What is mirrored?

# %%
names = ("mse_forward", "mse_backward", "bce_with_logits_forward", "bce_with_logits_backward")
widgets.losses.mismatch(*map(reference, names), reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - With truth 1, the squared error's gradient $2\,(p - 1)\,p\,(1 - p)$ is largest in size at $z = -\ln 2 = -0.69$,
#   where $p = \frac{1}{3}$: there it is $\frac{8}{27} = 0.296$. It is smallest at both ends: on the right because the
#   answer is right, on the left although it is as wrong as can be.
# - Cross-entropy's gradient fades on the right only, where nothing is left to learn.
# - Truth 0 mirrors everything at $z = 0$: the losses keep their sign, the gradients change theirs.
#
# </details>

# %% [markdown]
# The squared error is a fine loss. It was only put behind the wrong output layer: the sigmoid is flat where $|z|$ is
# large, and its slope $p\,(1 - p)$ multiplies whatever the loss says. Cross-entropy's logarithm is exactly what
# cancels this factor. How slow is "slow"? One logit, starting at −8, gradient descent with learning rate 1:

# %% tags=["nbval-check-output"]
matched = widgets.losses.steps_to_learn(reference("bce_with_logits_backward"), -8.0, target=1)
squared = widgets.losses.steps_to_learn(reference("mse_backward"), -8.0, target=1, behind_sigmoid=True)
print(f"steps until the answer is right: cross-entropy {matched}, squared error {squared}")

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | task | output layer | target | loss | gradient at the output layer's input | says the outcome is |
# |---|---|---|---|---|---|
# | regression | none (identity), `pred (n, d)` | `target (n, d)` | mean squared error | $\frac{2}{nd}(\text{pred} - \text{target})$ | Gaussian around `pred` |
# | yes or no | sigmoid, `logits (n,)` | `(n,)` in [0, 1] | binary cross-entropy | $\frac{1}{n}(p - t)$ | Bernoulli, one coin |
# | several labels at once | sigmoid, `logits (n, c)` | `(n, c)` in [0, 1] | binary cross-entropy | $\frac{1}{nc}(p - t)$ | $c$ independent coins |
# | one of $c$ classes | softmax, `logits (n, c)` | `(n,)` integers $0 \dots c-1$ | cross-entropy | $\frac{1}{n}(p - y)$ | categorical, one die with $c$ sides |
#
# Read the fifth column downwards: *what was claimed, minus what came, divided by what the mean divides by* (the 2 is
# the ½ that was dropped, below). That is no accident, and it is the result this section is after. The last column names
# distributions: *Gaussian* is the bell, *Bernoulli* one toss of a coin that shows heads with probability $p$.
# **Logits** are the numbers before the sigmoid or softmax: any real number is allowed. $y$ is the target as a one-hot
# row: 1 in the column of the right class, 0 elsewhere.
#
# ### From a claim to a loss
#
# If the examples are independent, the probability of all that happened is a product, $\prod_r p(\text{outcome}_r)$,
# over the $n$ examples $r$. The best claim makes it large. Products of many small numbers underflow, so take the
# logarithm (a sum), flip the sign (a loss is made small) and divide by $n$ (so that the batch size does not matter):
# $$\text{loss} = -\frac{1}{n}\sum_r \ln p(\text{outcome}_r).$$
# The unit of a natural logarithm is the **nat**: a loss of 1 nat is the surprise at something of probability
# $\frac{1}{e} = 0.37$.
#
# *Why "cross-entropy"?* If outcomes come with probabilities $t_k$ and you claim $p_k$, your average surprise is
# $H(t, p) = -\sum_k t_k \ln p_k$: taken under $t$, measured with $p$, hence "cross". It splits into
# $H(t) + \mathrm{KL}(t\,\|\,p)$: the **entropy** $H(t) = -\sum_k t_k \ln t_k$, which no claim can avoid, and the
# **Kullback-Leibler divergence**, the surplus that a claim $p \neq t$ costs, which is 0 only at $p = t$.
#
# **A number.** Claim a bell of width 1 around `pred`: $p(t) = \frac{1}{\sqrt{2\pi}}\,e^{-(\text{pred} - t)^2/2}$.
# Then $-\ln p(t) = \frac{1}{2}(\text{pred} - t)^2 + \text{constant}$. A density is no
# probability: it may exceed 1, and its surprise may be negative. The constant, $\frac{1}{2}\ln 2\pi = 0.919$, has no
# gradient; drop it, drop the ½ (as PyTorch does: the 2.04 of the first figure becomes $2\,(2.044 - 0.919) = 2.25 =
# (0.5 - 2)^2$), and average over all $M$ entries: the **mean squared error**
# $$\text{loss} = \frac{1}{M}\sum_m (\text{pred}_m - t_m)^2, \qquad
# \frac{\partial\,\text{loss}}{\partial\,\text{pred}_m} = \frac{2}{M}(\text{pred}_m - t_m).$$
#
# **Yes or no.** Claim $p = \sigma(z)$, the sigmoid, for yes ($t = 1$), $1 - p$ for no ($t = 0$). One formula covers
# both: $-\ln p(t) = -t\ln p - (1 - t)\ln(1 - p)$. Since $p = \frac{e^z}{1 + e^z}$ and $1 - p = \frac{1}{1 + e^z}$, we have $\ln p
# = z - \ln(1 + e^z)$ and $\ln(1 - p) = -\ln(1 + e^z)$. Put both in:
# $$-t\,(z - \ln(1 + e^z)) + (1 - t)\ln(1 + e^z) = \ln(1 + e^z) - t\,z.$$
# The derivative of $\ln(1 + e^z)$ is $\frac{e^z}{1 + e^z} = p$. So the gradient of one entry is $p - t$, and with the
# mean over $M$ entries $\frac{1}{M}(p_m - t_m)$. Nothing was assumed about $t$ being 0 or 1: a **soft target** such as
# 0.3 ("three of ten annotators said yes") is fine. The loss is then the average surprise, and its minimum, at $p = t$,
# is not 0 but the entropy of the target: 0.61 for $t = 0.3$.
#
# ### Log-sum-exp
#
# The same tidying for $c$ classes needs one function. Softmax claims $p_j = \frac{e^{z_j}}{\sum_k e^{z_k}}$, so
# $$\ln p_j = z_j - \operatorname{logsumexp}(z), \qquad \operatorname{logsumexp}(z) = \ln \sum_k e^{z_k}.$$
# It is a soft maximum: with $m = \max_k z_k$ it lies between $m$ and $m + \ln c$. In float64, $e^{z}$ overflows
# beyond $z \approx 709.8$ and is rounded to 0 below about $-745.1$. But a factor may be pulled out of the sum:
# $$\ln \sum_k e^{z_k} = \ln\Big(e^m \sum_k e^{z_k - m}\Big) = m + \ln \sum_k e^{z_k - m}.$$
# Exact, for every $m$. With $m$ the maximum, the largest term is $e^0 = 1$: nothing overflows, and the sum is at
# least 1, so that its logarithm is safe. Note $\ln(1 + e^z) = \operatorname{logsumexp}(0, z)$: two classes, one logit
# held at 0.
#
# Its derivative: $\frac{\partial}{\partial z_k}\ln\sum_j e^{z_j} = \frac{e^{z_k}}{\sum_j e^{z_j}} = p_k$. **The
# gradient of logsumexp is softmax.**
#
# ### Log-softmax backwards
#
# Let $y_j = z_j - \operatorname{logsumexp}(z)$, and let $dy_j$ arrive from above. An input $z_k$ reaches $y_j$ in two
# ways: directly if $j = k$, and through the logsumexp always. So $\frac{\partial y_j}{\partial z_k} = [j = k] - p_k$,
# where $[\,\cdot\,]$ is 1 if true and 0 if not. Sum over all outputs:
# $$dz_k = \sum_j dy_j\,\big([j = k] - p_k\big) = dy_k - p_k \sum_j dy_j.$$
#
# ### Softmax with cross-entropy: $p - y$
#
# For one example with class $t$, the loss is $-\ln p_t = \operatorname{logsumexp}(z) - z_t$. Differentiate by each
# logit:
#
# - $k = t$: $\;p_t - 1$. The right logit is pushed up, by what is missing to certainty.
# - $k \neq t$: $\;p_k - 0$. Every other logit is pushed down, by the probability it wrongly holds.
#
# Both at once: $p_k - y_k$. The batch's loss is the mean of $n$ such terms, so with indices $r$ (example) and $k$
# (class)
# $$\frac{\partial\,\text{loss}}{\partial z_{rk}} = \frac{1}{n}\,(p_{rk} - y_{rk}).$$
# Each row sums to $1 - 1 = 0$: raising all logits of an example together changes nothing, so no gradient points that
# way.
#
# ### What a mismatch costs
#
# Squared error behind a sigmoid: $(p - t)^2$ with $p = \sigma(z)$. The chain rule gives $2\,(p - t)\cdot p\,(1 - p)$.
# At $z = -8$, $t = 1$ the first factor is $-2$, the second $0.00034$. As $z \to -\infty$ the answer becomes perfectly
# wrong and the gradient goes to 0. The logarithm in the cross-entropy has slope $-\frac{1}{p}$ instead, and
# $-\frac{1}{p} \cdot p\,(1 - p) = -(1 - p) = p - 1$: nothing is left that could fade. That is what "the loss belongs to
# the output layer" means.

# %% [markdown]
# ## From scratch
#
# Five functions forwards, four backwards, in NumPy. Two rules hold throughout: `dloss` is the gradient that arrives
# from above (a number, and not always 1: the loss may be one term of a larger sum), and every function must survive
# ±1000.

# %% [markdown] about="logsumexp"
# ### The logarithm of a sum of exponentials
#
# `logsumexp(x, axis=-1) -> y`: $\ln \sum e^{x}$ along one axis, which the result no longer has: `x (2, 3, 4)` with
# `axis=1` gives `y (2, 4)`. The entries are finite.
#
# By hand, `x = [1000, 1001, 1002]`: the maximum is 1002; $e^{-2} + e^{-1} + e^{0} = 0.1353 + 0.3679 + 1 = 1.5032$;
# $\ln 1.5032 = 0.4076$; so $y = 1002.4076$. The plain formula says `inf`.
#
# Below is what a right answer draws: the result for $(s, s + 1, s + 2)$, less $s$, which should be the same
# everywhere. Move $s$ to where the plain formula breaks, then change the precision to float32, PyTorch's default.

# %%
np.testing.assert_allclose(reference("logsumexp")(np.array([1000.0, 1001, 1002])), 1002.4076, atol=1e-4)
widgets.losses.shift(reference("logsumexp"), reference("logsumexp"))


# %% exercise="logsumexp"
def logsumexp(x, axis=-1):
    """x (...), axis -> y (...): x without that axis."""
    ### BEGIN SOLUTION
    m = x.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - m).sum(axis=axis)) + m.squeeze(axis)
    ### END SOLUTION


# %% check="logsumexp"
check(logsumexp)

# %% [markdown] about="log_softmax_forward"
# ### Log-softmax
#
# `log_softmax_forward(x, axis=-1) -> y`: the logarithm of the softmax along an axis; `y` has the shape of `x`.
#
# By hand, `x = [0, ln 2, ln 5]`: the exponentials are 1, 2, 5 with sum 8, so the probabilities are 1/8, 2/8, 5/8 and
# `y = [−2.079, −1.386, −0.470]`. Check: `exp(y)` sums to 1.
#
# Taking the logarithm *after* the softmax is not good enough. A probability of $e^{-800}$ is rounded to 0, and its
# logarithm is then $-\infty$ where $-800$ was meant. In the picture, the logits are 0 and $-s$.

# %%
plots.show(
    widgets.losses.rounded(reference("log_softmax_forward")),
    alt="Log-softmax falls as −s all the way; the logarithm of softmax ends at s = 745.",
    caption="The logarithm of a rounded probability ends at s = 745 (✕). Log-softmax knows no such limit.",
)


# %% exercise="log_softmax_forward"
def log_softmax_forward(x, axis=-1):
    """x (...), axis -> y (...): the shape of x."""
    ### BEGIN SOLUTION
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    ### END SOLUTION


# %% check="log_softmax_forward"
check(log_softmax_forward)

# %% [markdown] about="log_softmax_backward"
# ### Log-softmax, backwards
#
# `log_softmax_backward(dy, x, axis=-1) -> dx`: all of `dy`, `x`, `dx` have the same shape.
#
# By hand, with the `x` from before ($p$ = 1/8, 2/8, 5/8) and `dy = [1, 0, −2]`: the sum of `dy` is −1, and `dx = dy −
# p · (−1) = [1.125, 0.25, −1.375]`. Check: `dx` sums to 0, for any `dy`. (Why must it? What happens to the output
# when all inputs rise together?)

# %%
x, dy = np.log([1.0, 2.0, 5.0]), np.array([1.0, 0.0, -2.0])
np.testing.assert_allclose(reference("log_softmax_forward")(x), [-2.0794, -1.3863, -0.4700], atol=1e-4)
np.testing.assert_allclose(reference("log_softmax_backward")(dy, x), [1.125, 0.25, -1.375])


# %% exercise="log_softmax_backward"
def log_softmax_backward(dy, x, axis=-1):
    """dy (...), x (...), axis -> dx (...): the shape of x."""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    p = e / e.sum(axis=axis, keepdims=True)
    return dy - p * dy.sum(axis=axis, keepdims=True)
    ### END SOLUTION


# %% check="log_softmax_backward"
check(log_softmax_backward)

# %% [markdown] about="mse_forward"
# ### Mean squared error
#
# `mse_forward(pred, target) -> loss`: two arrays of one shape, any shape, to one number. The mean runs over **all**
# entries.
#
# By hand: `pred = [[1, 2], [3, 5]]`, `target = [[1, 0], [4, 5]]`. Errors 0, 2, −1, 0; squares 0, 4, 1, 0; their mean
# is 5 / 4 = 1.25.


# %% exercise="mse_forward"
def mse_forward(pred, target):
    """pred (...), target (...) -> loss ()"""
    ### BEGIN SOLUTION
    return np.mean((pred - target) ** 2)
    ### END SOLUTION


# %% check="mse_forward"
check(mse_forward)

# %% [markdown] about="mse_backward"
# ### Mean squared error, backwards
#
# `mse_backward(dloss, pred, target) -> dpred`: `dloss` is a number, `dpred` has the shape of `pred`. The target is
# data; it gets no gradient.
#
# By hand, the arrays from before and `dloss = 3`: each entry is $3 \cdot \frac{2}{4} \cdot \text{error}$, so `dpred =
# [[0, 3], [−1.5, 0]]`.

# %%
pred, target = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.0, 0.0], [4.0, 5.0]])
assert reference("mse_forward")(pred, target) == 1.25
np.testing.assert_allclose(reference("mse_backward")(3.0, pred, target), [[0, 3], [-1.5, 0]])


# %% exercise="mse_backward"
def mse_backward(dloss, pred, target):
    """dloss (), pred (...), target (...) -> dpred (...): the shape of pred."""
    ### BEGIN SOLUTION
    return dloss * 2 * (pred - target) / pred.size
    ### END SOLUTION


# %% check="mse_backward"
check(mse_backward)

# %% [markdown] about="bce_with_logits_forward"
# ### Binary cross-entropy on logits
#
# `bce_with_logits_forward(logits, targets) -> loss`: two arrays of one shape; targets lie in [0, 1]; the mean runs
# over all entries. *With logits* means that the sigmoid is inside.
#
# By hand, `logits = [ln 3, ln 3]`, so $p = \frac{3}{1 + 3} = 0.75$ twice, and `targets = [1, 0]`: the losses are
# $-\ln 0.75 = 0.288$ and $-\ln 0.25 = 1.386$; their mean is 0.837.
#
# At $z = 1000$ and $t = 0$ the loss is 1000 (draw the line: for a large wrong $|z|$ the loss *is* $|z|$). `inf` is
# wrong, and so is the 27.6 that `log(p + 1e-12)` gives.

# %%
plots.show(
    widgets.losses.padded(reference("bce_with_logits_forward")),
    alt="Right answers cost nearly nothing, wrong ones |z|; the padded logarithm goes flat below z = −28.",
    caption="Wrong answers cost |z|. The padded logarithm goes flat below z = −28: no slope, no learning.",
)


# %% exercise="bce_with_logits_forward"
def bce_with_logits_forward(logits, targets):
    """logits (...), targets (...) -> loss ()"""
    ### BEGIN SOLUTION
    softplus = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    return np.mean(softplus - targets * logits)
    ### END SOLUTION


# %% check="bce_with_logits_forward"
check(bce_with_logits_forward)

# %% [markdown] about="bce_with_logits_backward"
# ### Binary cross-entropy, backwards
#
# `bce_with_logits_backward(dloss, logits, targets) -> dlogits`: the shape of `logits`.
#
# By hand, `logits = [ln 3, ln 3]`, `targets = [1, 0]`, `dloss = 4`: $p - t$ is `[−0.25, 0.75]`, times 4, divided by 2
# entries: `[−0.5, 1.5]`.

# %%
logits, targets = np.log([3.0, 3.0]), np.array([1.0, 0.0])
np.testing.assert_allclose(reference("bce_with_logits_forward")(logits, targets), 0.8370, atol=1e-4)
np.testing.assert_allclose(reference("bce_with_logits_backward")(4.0, logits, targets), [-0.5, 1.5])


# %% exercise="bce_with_logits_backward"
def bce_with_logits_backward(dloss, logits, targets):
    """dloss (), logits (...), targets (...) -> dlogits (...): the shape of logits."""
    ### BEGIN SOLUTION
    p = 0.5 * (1 + np.tanh(0.5 * logits))  # the sigmoid, without an exponential that could overflow
    return dloss * (p - targets) / logits.size
    ### END SOLUTION


# %% check="bce_with_logits_backward"
check(bce_with_logits_backward)

# %% [markdown]
# The figure from the start, drawn by four functions of yours now. Where one differed from the reference, the
# reference would stand beside it in orange.

# %%
yours = mse_forward, mse_backward, bce_with_logits_forward, bce_with_logits_backward
widgets.losses.mismatch(*yours, reference)

# %% [markdown]
# And the same two losses as landscapes: ten points on a line, $p = \sigma(w x + b)$, the loss over every weight and
# bias. Both figures hold the same network and the same data. Choose a start that is sure and wrong (weight −6) and
# take steps; then a start near 0. Where is the difference between the losses large, and where is there hardly any?

# %%
widgets.losses.surface(*yours, reference)

# %% [markdown]
# <details><summary>Where</summary>
#
# From weight −6, bias 0, cross-entropy is at weight 2.0 after 20 steps and has 8 of the 10 points right, all that one
# threshold can get. The squared error has moved by 0.16 and has 2 right: its plateau. From weight 0 both walk the same
# way and have 8 right; cross-entropy has come somewhat further. Near 0 the sigmoid is nearly straight, and the
# mismatch costs a factor, not the answer.
#
# </details>

# %% [markdown] about="cross_entropy_forward"
# ### Cross-entropy on logits
#
# `cross_entropy_forward(logits, targets) -> loss`: `logits (n, c)`, `targets (n,)` whole numbers from 0 to $c - 1$,
# the mean over the $n$ examples. The targets are *indices*: no one-hot array is needed.
#
# By hand, two examples and three classes: `logits = [[0, ln 2, ln 5], [ln 6, 0, ln 3]]`, so $p$ is `[[0.125, 0.25,
# 0.625], [0.6, 0.1, 0.3]]`. With `targets = [2, 0]` the picked probabilities are 0.625 and 0.6; the losses are 0.470
# and 0.511; their mean is 0.490.


# %% exercise="cross_entropy_forward"
def cross_entropy_forward(logits, targets):
    """logits (n, c), targets (n,) -> loss ()"""
    ### BEGIN SOLUTION
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(targets)), targets].mean()
    ### END SOLUTION


# %% check="cross_entropy_forward"
check(cross_entropy_forward)

# %% [markdown] about="cross_entropy_backward"
# ### Cross-entropy, backwards
#
# `cross_entropy_backward(dloss, logits, targets) -> dlogits`: the shape of `logits`.
#
# By hand, the two examples from before and `dloss = 1`: $p - y$ is `[[0.125, 0.25, −0.375], [−0.4, 0.1, 0.3]]`, and
# the mean over two examples halves it: `[[0.0625, 0.125, −0.1875], [−0.2, 0.05, 0.15]]`. Each row sums to 0.
#
# Below is what a right answer draws. Move the three logits, change the class, then let gradient descent move the
# logits: the arrows are the gradient, and it dies out as $p$ reaches $y$.

# %%
logits, targets = np.log([[1.0, 2.0, 5.0], [6.0, 1.0, 3.0]]), np.array([2, 0])
by_hand = [[0.0625, 0.125, -0.1875], [-0.2, 0.05, 0.15]]
forward, backward = reference("cross_entropy_forward"), reference("cross_entropy_backward")
np.testing.assert_allclose(forward(logits, targets), 0.4904, atol=1e-4)
np.testing.assert_allclose(backward(1.0, logits, targets), by_hand)
widgets.losses.p_minus_y(forward, backward, reference)


# %% exercise="cross_entropy_backward"
def cross_entropy_backward(dloss, logits, targets):
    """dloss (), logits (n, c), targets (n,) -> dlogits (n, c)"""
    ### BEGIN SOLUTION
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    dlogits = e / e.sum(axis=1, keepdims=True)
    dlogits[np.arange(len(targets)), targets] -= 1
    return dloss * dlogits / len(targets)
    ### END SOLUTION


# %% check="cross_entropy_backward"
check(cross_entropy_backward)

# %% [markdown]
# And with your own two functions, from a start that is sure of the wrong class, after five steps:

# %%
yours = cross_entropy_forward, cross_entropy_backward
widgets.losses.p_minus_y(*yours, reference, start=(-4.0, 4.0, 0.0), target=0, steps=5)

# %% [markdown]
# ## Against a reference
#
# The two witnesses once more. The upstream gradient `dloss` is $-0.7$. With 1 instead, would it show if it were
# forgotten?


# %% tags=["nbval-check-output"]
numerical_gradient = mine("numerical_gradient")

rng, d = np.random.default_rng(3), -0.7
z, t, dy = rng.normal(size=(4, 3)), rng.integers(0, 3, size=4), rng.normal(size=(4, 3))
soft = rng.random((4, 3))
yours = {
    "log_softmax": log_softmax_backward(dy, z),
    "mse": mse_backward(d, z, soft),
    "bce_with_logits": bce_with_logits_backward(d, z, soft),
    "cross_entropy": cross_entropy_backward(d, z, t),
}
nudged = {
    "log_softmax": numerical_gradient(lambda x: (dy * log_softmax_forward(x)).sum(), z),
    "mse": numerical_gradient(lambda x: d * mse_forward(x, soft), z),
    "bce_with_logits": numerical_gradient(lambda x: d * bce_with_logits_forward(x, soft), z),
    "cross_entropy": numerical_gradient(lambda x: d * cross_entropy_forward(x, t), z),
}
print("rows of log-softmax's dx sum to 0:", np.allclose(yours["log_softmax"].sum(axis=1), 0))
print("rows of cross-entropy's dlogits sum to 0:", np.allclose(yours["cross_entropy"].sum(axis=1), 0))

# %%
given = {
    "log_softmax": (dy, z),
    "mse": (d, z, soft),
    "bce_with_logits": (d, z, soft),
    "cross_entropy": (d, z, t),
}
torch_ = {name: reference(f"{name}_backward")(*arguments) for name, arguments in given.items()}
plots.gradient_check({name: (yours[name], nudged[name], torch_[name]) for name in given})

# %% [markdown]
# <details><summary>Would it show?</summary>
#
# No. With an upstream gradient of 1, a backward pass that ignores `dloss` returns the right numbers. Ones are
# treacherous in lesson 02 too: softmax's outputs always sum to 1, so that its gradient for `dy = 1` is exactly 0, and
# a `softmax_backward` that returns zeros passes. Check gradients with random upstream numbers; the checks of this
# course do.
#
# </details>
#
# What a check says of a backward pass that takes `dloss` for 1:

# %% tags=["nbval-check-output"]
forgets = examine(lambda dloss, logits, targets: cross_entropy_backward(1.0, logits, targets), "cross_entropy_backward")
print(forgets.mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | it expects | mind |
# |---|---|---|---|
# | `logsumexp` | `torch.logsumexp(x, dim)` | anything | gives $-\infty$, not nan, where all entries are $-\infty$ |
# | `log_softmax_forward` | `F.log_softmax(x, dim)` | logits | name the `dim`; without it PyTorch guesses, and warns |
# | `mse_forward` | `F.mse_loss`, `nn.MSELoss` | equal shapes | broadcasts with a warning where they are not equal |
# | `bce_with_logits_forward` | `F.binary_cross_entropy_with_logits` | logits, float targets | `pos_weight` weighs the rare yes |
# | – | `F.binary_cross_entropy`, `nn.BCELoss` | **probabilities** | cuts logarithms off at −100 |
# | `cross_entropy_forward` | `F.cross_entropy`, `nn.CrossEntropyLoss` | **logits**, integer targets | classes on axis 1, also for images `(n, c, h, w)` |
# | – | `F.nll_loss`, `nn.NLLLoss` | **log-probabilities** | takes no logarithm, whatever the name says |
#
# Mixing up the third column is the classic loss bug: `F.cross_entropy` and `F.nll_loss` take each other's numbers
# without complaint (`nn.BCELoss` at least refuses what lies outside [0, 1]). One mix-up is harmless: log-probabilities
# into `F.cross_entropy`, since the log-softmax of log-probabilities is the identity. *Probabilities* are the bug. Some
# claims of the table and the defaults of `F.cross_entropy`, verified:

# %% tags=["nbval-check-output"]
z = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.5, 3.0], [1.0, 1.0, 1.0]])
t, w, rows = torch.tensor([1, 2, 0]), torch.tensor([1.0, 2.0, 5.0]), torch.arange(3)
log_p = z.log_softmax(1)
losses = -log_p[rows, t]
smooth = 0.9 * F.one_hot(t, 3) + 0.1 / 3
facts = {
    "cross_entropy is nll_loss of log_softmax": (F.cross_entropy(z, t), F.nll_loss(log_p, t)),
    "reduction='mean' is the default": (F.cross_entropy(z, t), losses.mean()),
    "weight= divides by the sum of the targets' weights, not by n": (
        F.cross_entropy(z, t, weight=w),
        (w[t] * losses).sum() / w[t].sum(),
    ),
    "label_smoothing=0.1 mixes 0.9 of one-hot with 0.1 of uniform": (
        F.cross_entropy(z, t, label_smoothing=0.1),
        -(smooth * log_p).sum(1).mean(),
    ),
    "probabilities as targets": (F.cross_entropy(z, smooth), -(smooth * log_p).sum(1).mean()),
    "BCELoss cuts logarithms off at -100": (
        F.binary_cross_entropy(torch.zeros(1), torch.ones(1)),
        torch.tensor(100.0),
    ),
    "log_softmax twice is log_softmax once": (log_p.log_softmax(1), log_p),
}
for fact, (left, right) in facts.items():
    print("right" if torch.allclose(left, right) else "WRONG", "·", fact)

# %% [markdown] about="CrossEntropyLoss"
# ### Cross-entropy as a module
#
# Re-create `nn.CrossEntropyLoss` as an `nn.Module` with its argument `ignore_index=-100`: examples whose target
# equals it **do not count**. They add nothing to the loss, get no gradient, and the mean divides by the number of the
# others. Language models need this in every batch, for padding. At least one example counts.
#
# `forward(input, target)`: `input (n, c)` logits, `target (n,)` integers, to a scalar tensor. There are no
# parameters, and autograd does the backward pass, as long as you stay with tensor operations.
#
# By hand: losses 0.5, 2.0, 1.0 of three examples, the second to be ignored: the loss is (0.5 + 1.0) / 2 = 0.75, not
# 0.5.


# %% exercise="CrossEntropyLoss"
class CrossEntropyLoss(nn.Module):
    """input (n, c), target (n,) -> loss ()

    Two methods: __init__ keeps ignore_index, forward(self, input, target) returns the loss.
    """

    def __init__(self, ignore_index=-100):
        super().__init__()
        ### BEGIN SOLUTION
        self.ignore_index = ignore_index

    def forward(self, input, target):
        kept = target != self.ignore_index
        logits, target = input[kept], target[kept]
        picked = logits[torch.arange(len(target), device=logits.device), target]
        return (logits.logsumexp(dim=1) - picked).mean()
        ### END SOLUTION

# %% check="CrossEntropyLoss"
check(CrossEntropyLoss)

# %% [markdown] about="BCEWithLogitsFunction"
# ### Binary cross-entropy as an autograd function
#
# This time you write the backward pass and PyTorch only calls it. `forward(ctx, logits, targets)` returns the loss (a
# tensor with no axes) and keeps what `backward` needs; `backward(ctx, dloss)` returns one gradient **for each
# argument of forward**, in order, `None` for what needs none. It is called through
# `BCEWithLogitsFunction.apply(logits, targets)`.
#
# The numbers are those of `bce_with_logits_forward` and `_backward`: logits `[ln 3, ln 3]`, targets `[1, 0]` give
# 0.837 and, for `dloss = 4`, `[−0.5, 1.5]`.


# %% exercise="BCEWithLogitsFunction"
class BCEWithLogitsFunction(torch.autograd.Function):
    """logits (...), targets (...) -> loss ()

    Two static methods: forward(ctx, logits, targets) returns the loss, backward(ctx, dloss) returns dlogits, None.
    """

    @staticmethod
    def forward(ctx, logits, targets):
        ### BEGIN SOLUTION
        ctx.save_for_backward(logits, targets)
        softplus = logits.clamp(min=0) + torch.log1p(torch.exp(-logits.abs()))
        return (softplus - targets * logits).mean()

    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return dloss * (torch.sigmoid(logits) - targets) / logits.numel(), None
        ### END SOLUTION

# %% check="BCEWithLogitsFunction"
check(BCEWithLogitsFunction)

# %% tags=["nbval-check-output"]
z, t = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.rand(4, 3, dtype=torch.float64)
print("gradcheck:", torch.autograd.gradcheck(BCEWithLogitsFunction.apply, (z, t)))

# %% [markdown]
# The built-ins are no different. `F.cross_entropy` records two steps, log-softmax and `nll_loss`, each with a backward
# pass that somebody wrote by hand from the formulas above (the last line is `z` itself, which collects its gradient):

# %% tags=["nbval-check-output"]
step = F.cross_entropy(z, t.argmax(1)).grad_fn
while step is not None:
    print(step.name())
    step = step.next_functions[0][0] if step.next_functions else None

# %% [markdown]
# ## At work
#
# Softmax regression: one linear layer from 64 pixels to 10 logits, then your cross-entropy. 1437 handwritten digits
# to learn from, 360 to be tested on. The whole backward pass is your `dlogits` and two lines of lesson 01.
#
# Before you train, a number to know by heart:

# %%
widgets.losses.guess_first_loss()

# %%
digits = data.digits()
rng = np.random.default_rng(0)
w, b = rng.normal(0, 0.01, (10, 64)), np.zeros(10)
first = cross_entropy_forward(digits.x_train @ w.T + b, digits.y_train)
epochs, rate = 3 if plots.fast() else 40, 1.0

charts = partial(widgets.losses.epoch_charts, epochs=epochs)
with plots.Training(epochs, "train loss", "test loss", "test accuracy", charts=charts) as run:
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(digits.x_train)), 23):
            x, t = digits.x_train[batch], digits.y_train[batch]
            dlogits = cross_entropy_backward(1.0, x @ w.T + b, t)
            w, b = w - rate * dlogits.T @ x, b - rate * dlogits.sum(axis=0)
        train, test = digits.x_train @ w.T + b, digits.x_test @ w.T + b
        losses = cross_entropy_forward(train, digits.y_train), cross_entropy_forward(test, digits.y_test)
        run.log(*losses, (test.argmax(1) == digits.y_test).mean())

# %% tags=["nbval-check-output"]
print(f"first loss {first:.1f}, ln 10 = {np.log(10):.1f}")

# %% [markdown]
# ### The experiment: right and wrong partners
#
# Three ways to train the same softmax regression: your **cross-entropy** on the logits; the **squared error** between
# softmax and one-hot target; and **softmax twice**, cross-entropy that is given probabilities where it expects
# logits. A fair comparison gives each its own best learning rate, so nine from 0.1 to 1000 are tried, each with five
# seeds, 200 steps of 64 digits. And the weights start either small, or so large that the untrained network is sure of its
# nonsense (as after a bad initialisation, or when a trained network meets new classes).


# %%
def through_softmax(dp, z):
    """From the gradient at p = softmax(z) to the gradient at z (lesson 02)."""
    p = np.exp(log_softmax_forward(z))
    return p * (dp - (dp * p).sum(axis=1, keepdims=True))


def squared_error(z, t):
    return through_softmax(mse_backward(1.0, np.exp(log_softmax_forward(z)), np.eye(10)[t]), z)


def softmax_twice(z, t):
    return through_softmax(cross_entropy_backward(1.0, np.exp(log_softmax_forward(z)), t), z)


gradients = {
    "cross-entropy": lambda z, t: cross_entropy_backward(1.0, z, t),
    "squared error": squared_error,
    "softmax twice": softmax_twice,
}

# %%
steps = 20 if plots.fast() else 200


def accuracy_after(gradient, rate, scale, seed):
    rng = np.random.default_rng(seed)
    w, b = rng.normal(0, scale, (10, 64)), np.zeros(10)
    for _ in range(steps):
        batch = rng.integers(0, len(digits.x_train), 64)
        dz = gradient(digits.x_train[batch] @ w.T + b, digits.y_train[batch])
        w, b = w - rate * dz.T @ digits.x_train[batch], b - rate * dz.sum(axis=0)
    return ((digits.x_test @ w.T + b).argmax(1) == digits.y_test).mean()


# %%
rates = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]
results = {"small": {}, "large": {}}
for start, scale in (("small", 0.01), ("large", 3.0)):
    for name, gradient in gradients.items():
        runs = [[accuracy_after(gradient, rate, scale, seed) for rate in rates] for seed in range(5)]
        results[start][name] = np.array(runs)
        best = results[start][name][:, np.mean(runs, axis=0).argmax()]
        print(f"{start} weights, {name:<13} {best.mean():.3f} ({best.min():.3f} to {best.max():.3f})")

plots.show(
    widgets.losses.learning_rates(rates, results),
    alt="From small weights each loss gets far at some learning rate, cross-entropy over the widest range. "
    "From large weights only cross-entropy recovers.",
    caption="After 200 steps; bars span five seeds. Well started and well tuned, all three get far; "
    "sure and wrong, only the matched pair recovers.",
)

# %% [markdown]
# Read it fairly. From small weights the squared error behind a softmax, and even softmax twice, reach about the same
# accuracy, at a larger learning rate; cross-entropy does so over a far wider range. From large weights the softmax is
# saturated, the mismatched gradients are multiplied by nearly 0, and none of the nine learning rates makes up for it in
# 200 steps (in 2000, the best of them brings either loss to about 70 %, still far behind). Glorot and Bengio
# (2010) saw the plateaus of the squared error in deep networks; Hui and Belkin (2021) trained modern networks with the
# squared error on the *raw outputs*, without a softmax, and it kept up with cross-entropy on most tasks. Their pair is
# matched too: identity and squared error. What fails is not a loss, but a loss behind a layer that switches off its
# gradient.

# %% [markdown]
# ## Look inside
#
# ### Sure and wrong
#
# The mean hides who pays. Here are the digits that your softmax regression gets wrong, the most expensive first. Step
# through them: which would you have got wrong yourself?

# %%
images, logits = digits.x_test.reshape(-1, 8, 8), digits.x_test @ w.T + b
both = log_softmax_forward, reference("log_softmax_forward")
widgets.losses.confident_errors(images, digits.y_test, logits, *both)

# %% [markdown]
# ### Right, and still getting worse
#
# Cross-entropy judges the *probabilities*, not only the answers. To see the difference, a network of 128 hidden units
# is trained on only 297 digits, for long, with your `CrossEntropyLoss`, by **Adam**: gradient descent in which every
# weight has its own learning rate, adapted to the gradients it has seen (lesson 06). Watch the test loss against the test
# accuracy. The axis of the losses counts in powers of ten.

# %%
few = data.digits(test=1500)
x, t, x_test, t_test = (torch.tensor(array) for array in few)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double()
loss_of, optimiser = CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-2)
epochs = 4 if plots.fast() else 200
charts = partial(widgets.losses.epoch_charts, epochs=epochs, log=True)
with plots.Training(epochs, "train loss", "test loss", "test accuracy", charts=charts) as run:
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            loss_of(model(x[batch]), t[batch]).backward()
            optimiser.step()
        with torch.no_grad():
            test = model(x_test)
            run.log(loss_of(model(x), t), loss_of(test, t_test), (test.argmax(1) == t_test).double().mean())

# %% [markdown]
# The accuracy stands still while the test loss climbs: the answers stay what they were, and the network grows ever
# surer of all of them, the wrong ones included. Every training digit is right by now, so that the easiest way to lower
# the training loss further is to scale the logits up.
#
# Whether confidence is earned can be seen. Sort the test digits by confidence; among those answered with 80 %, eight
# in ten should be right. The gap between the two, averaged over the digits, is the **calibration error**. Then divide
# all logits by a **temperature**: no answer changes, only the confidence does. Guo et al. (2017) found that this one
# number, chosen on held-out data, repairs most of it. Which temperature makes the loss smallest here?

# %%
both = cross_entropy_forward, reference("cross_entropy_forward")
widgets.losses.calibration(test.numpy(), few.y_test, *both)

# %% [markdown]
# <details><summary>The best temperature</summary>
#
# $T = 2$: the loss falls from 0.26 to 0.18, the calibration error from 0.028 to 0.010. But the slider lets you tune on
# the very digits you judge by, which flatters. Chosen on half of them (2.2), the temperature takes the loss of the
# *other* half from 0.23 to 0.17, an honest gain; that half's calibration error, 0.02 before, stays 0.02.
#
# </details>

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken losses of kinds that real code has (all points or none), and two numbers to predict.

# %% [markdown] about="repair_cross_entropy_backward"
# ### Repair: a gradient that is right for one example
#
# `repair_cross_entropy_backward(dloss, logits, targets) -> dlogits`. The function below passed the test its author
# wrote, with a batch of one. With batches of four, a network learns badly; with batches of 64, hardly (in 200 steps,
# the softmax regression above gets fewer than half of the digits right with fours, and one in eight with 64; repaired,
# nine in ten). Find the one line at fault; the rest is right.


# %% exercise="repair_cross_entropy_backward"
def repair_cross_entropy_backward(dloss, logits, targets):
    """dloss (), logits (n, c), targets (n,) -> dlogits (n, c)"""
    ### BEGIN SOLUTION
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    dlogits = e / e.sum(axis=1, keepdims=True)
    dlogits[np.arange(len(targets)), targets] -= 1
    return dloss * dlogits / len(targets)
    ### BROKEN
    # e = np.exp(logits - logits.max(axis=1, keepdims=True))
    # dlogits = e / e.sum(axis=1, keepdims=True)
    # dlogits[:, targets] -= 1
    # return dloss * dlogits / len(targets)
    ### END SOLUTION


# %% check="repair_cross_entropy_backward"
check(repair_cross_entropy_backward)

# %% [markdown] about="repair_mse_forward"
# ### Repair: a regression that learns the mean
#
# `repair_mse_forward(pred, target) -> loss`: `pred (n, 1)` as `nn.Linear(…, 1)` gives it, `target (n,)` as it comes
# from a table. No error (`F.mse_loss` would at least warn), a plausible loss, and a network that ends up answering
# the same number to everything: the mean of the targets. The figure shows a straight line fitted with the broken loss
# and with the right one.

# %%
x = torch.linspace(-1, 1, 40)[:, None]
target = 2 * x[:, 0] + 1 + 0.2 * torch.randn(40, generator=torch.Generator().manual_seed(0))
lines = {"data": (x[:, 0], target, {"points": True, "line": False})}
for name, shape, colour in (("(n, 1) and (n,)", (-1,), "wrong"), ("(n, 1) and (n, 1)", (-1, 1), "right")):
    line = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(line.parameters(), lr=0.3)
    for _ in range(100):
        optimiser.zero_grad()
        ((line(x) - target.reshape(shape)) ** 2).mean().backward()
        optimiser.step()
    lines[f"fit with {name}"] = (x[:, 0], line(x).detach()[:, 0], {"colour": plots.COLOURS[colour]})
plots.show(
    widgets.picture.curve(lines, "two fits", x_label="x", y_label="y", width=560, height=250),
    alt="The data rise along a line. The fit with mismatched shapes is flat, at the mean of the targets.",
    caption="With shapes (n, 1) and (n,) each prediction meets every target, and the best answer to all is their mean.",
)


# %% exercise="repair_mse_forward"
def repair_mse_forward(pred, target):
    """pred (n, 1), target (n,) -> loss ()"""
    ### BEGIN SOLUTION
    return ((pred[:, 0] - target) ** 2).mean()
    ### BROKEN
    # return ((pred - target) ** 2).mean()
    ### END SOLUTION


# %% check="repair_mse_forward"
check(repair_mse_forward)

# %% [markdown] about="initial_loss"
# ### Predict: the loss before training
#
# `initial_loss(classes) -> loss`: the cross-entropy of a network that gives each of `classes` classes the same
# probability, whatever the example. A number, from a formula; no arrays are needed. (`classes` is drawn anew for each
# check, 2 and 10 among them.)
#
# Use: print the first loss of every training run. A GPT-2 with 50 257 tokens starts near 10.8. If yours starts at 40,
# the initial weights are too large; if it starts far *below*, the answer leaks into the input.


# %% exercise="initial_loss"
def initial_loss(classes):
    """classes -> loss ()"""
    ### BEGIN SOLUTION
    return np.log(classes)
    ### END SOLUTION


# %% check="initial_loss"
check(initial_loss)

# %% [markdown] about="softmax_twice_floor"
# ### Predict: how low can softmax twice go?
#
# A frequent bug in PyTorch: the model ends with `nn.Softmax`, and `F.cross_entropy` takes its probabilities for
# logits, so that softmax is applied twice. Nothing complains. The loss goes down, but it never gets below a certain
# number, with any model and any data.
#
# `softmax_twice_floor(classes) -> loss`: that number, the loss of a network whose (first) softmax is perfect: 1 for
# the right class, 0 for the others. By hand for 2 classes: the "logits" are (1, 0); $\operatorname{logsumexp}(1, 0) =
# \ln(e + 1) = 1.313$; minus the right logit, 1: the loss is 0.313.


# %% exercise="softmax_twice_floor"
def softmax_twice_floor(classes):
    """classes -> loss ()"""
    ### BEGIN SOLUTION
    return np.log(np.e + classes - 1) - 1
    ### END SOLUTION


# %% check="softmax_twice_floor"
check(softmax_twice_floor)

# %% [markdown]
# ### Softmax twice, measured
#
# The same small network on the 1437 digits, with and without a softmax at its end, Adam, three seeds each.

# %%
x, t, x_test, t_test = (torch.tensor(array) for array in digits)
epochs = 3 if plots.fast() else 25
histories = {"logits": [], "softmax twice": []}  # per seed: (loss, accuracy) of each epoch
for (name, history), seed in [(item, seed) for item in histories.items() for seed in range(3)]:
    torch.manual_seed(seed)
    end = [nn.Softmax(dim=1)] if name == "softmax twice" else []
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), *end).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    history.append([])
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(x[batch]), t[batch]).backward()
            optimiser.step()
        with torch.no_grad():
            right = (model(x_test).argmax(1) == t_test).double().mean()
            history[-1].append((F.cross_entropy(model(x), t).item(), right.item()))

# %%
plots.show(
    widgets.losses.histories(histories, floor=softmax_twice_floor(10)),
    alt="With logits the training loss nears 0. With softmax twice it stays above 1.46; accuracy rises later.",
    caption="Three seeds each. Softmax twice: the loss cannot pass your floor, and the accuracy comes later. "
    "It does come, which is why the bug lives long.",
)

# %% [markdown]
# ### What people believe, and what is true
#
# - **"The loss stopped at 1.46, so the model has converged."** With ten classes, 1.4612 is the floor of softmax
#   twice. Know the marks of the loss that is meant: its floor is 0 for hard targets and the targets' entropy for soft
#   ones; $\ln c$ is what knowing nothing costs; a ceiling there is not, since being sure and wrong costs any amount.
# - **"Add 1e-9 inside the logarithm and it is stable."** It is finite, and wrong, and flat: below $10^{-9}$ there is
#   no gradient left, just where the network is most wrong. Work on logits.
# - **"A lower loss means more right answers."** The loss counts confidence. You saw the test loss rise by nearly
#   half, from 0.181 to 0.264, while accuracy stood still.
# - **"Mean or sum, it is only a constant."** That constant multiplies the learning rate. A sum over the batch ties
#   the best learning rate to the batch size; and `F.kl_div(reduction="mean")` divides by all $n \cdot c$ entries, so that it
#   is no KL divergence (`"batchmean"` is).
# - **"Several labels can be right, so let softmax share the probability."** Softmax makes the labels compete: two
#   true ones can never both reach 1. Several labels are several yes-or-no questions: sigmoids, with binary
#   cross-entropy.
# - **"Use the squared error for numbers, always."** It claims a bell with thin tails, so that one outlier, squared,
#   can outweigh a hundred good points. With heavy tails the absolute error (which claims a Laplace distribution) or
#   Huber's mixture of both is the honest claim.

# %% [markdown]
# ## Where it is used, and what came after
#
# Cross-entropy on logits is the loss of nearly every classifier, and of every language model: next-token prediction
# is classification with 50 000 classes and more, and its reported *perplexity* is $e^{\text{loss}}$. Soft targets
# became a tool of their own: label smoothing (Szegedy et al., 2016; lesson 07) and distillation, where a small
# network learns a large one's probabilities (Hinton, Vinyals and Dean, 2015; lesson 27). The focal loss multiplies
# cross-entropy by $(1 - p)^\gamma$, so that the many easy examples of a detector do not drown the few hard ones (Lin
# et al., 2017). Contrastive learning is cross-entropy in disguise: which of $n$ candidates is the partner of this
# one? (van den Oord, Li and Vinyals, 2018; lesson 23.)
#
# You can now
#
# - read a loss as minus the logarithm of what was claimed for what came, and name the claim;
# - derive $p - t$, and see at a glance which output layer a loss belongs to;
# - write losses that survive logits of ±1000, and say what a floor of 1e-9 breaks;
# - tell from the first loss, and from a floor that is never passed, that something is wrong;
# - distinguish a network that is right from one that is sure.
#
# To read:
#
# - J. S. Bridle (1990), *Probabilistic interpretation of feedforward classification network outputs, with relationships
#   to statistical pattern recognition*, Neurocomputing. Where softmax got its name, and its loss.
# - X. Glorot and Y. Bengio (2010), *Understanding the difficulty of training deep feedforward neural networks*, AISTATS.
#   The plateaus of the squared error, seen in deep networks.
# - C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger (2017), *On calibration of modern neural networks*, ICML. Reliability
#   diagrams and temperature.
# - P. Blanchard, D. J. Higham and N. J. Higham (2021), *Accurately computing the log-sum-exp and softmax functions*, IMA
#   Journal of Numerical Analysis. What the shift costs and saves, proved.
# - L. Hui and M. Belkin (2021), *Evaluation of neural architectures trained with square loss vs cross-entropy in
#   classification tasks*, ICLR. The case for the other side.
