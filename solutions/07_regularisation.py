# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · Regularisation
#
# A network with more weights than examples can learn its examples by heart, wrong answers and all. **Regularisation**
# is whatever makes it do less well on the examples it has seen, in order to do better on those it has not. You will
# build the five customary remedies (dropout, weight decay, label smoothing, early stopping, shifted copies), make a
# network overfit on purpose, and measure each remedy on it: what it gains, how much that varies, and where it does
# nothing.
#
# One idea carries the lesson: **each remedy is a bet about the world.** Weight decay bets that small weights say it
# better; dropout, that no unit should rely on one other; shifted copies, that a digit stays itself when it moves. A
# bet can be lost. The picture shows the strangest of them: dropout trains a different network at every step.
#
# **You need** lesson 03 (cross-entropy, calibration), lesson 04 (layers), lesson 06 (momentum, weight decay in
# AdamW). **Time:** about four hours, two and a half of them for the exercises.

# %% setup=true
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

# %%
Sequential, LinearLayer, ReLULayer = mine("Sequential"), mine("LinearLayer"), mine("ReLULayer")
momentum_step, sgd_step, adam_step = mine("momentum_step"), mine("sgd_step"), mine("adam_step")
cross_entropy_forward, log_softmax_forward = mine("cross_entropy_forward"), mine("log_softmax_forward")
numerical_gradient = mine("numerical_gradient")
torch.set_num_threads(1)  # arrays this small are computed faster by one thread than by several

# %%
plots.show(
    widgets.regularisation.family(reference("dropout_mask")),
    alt="Four drawings of one small network: whole at inference, and with about half of its hidden units crossed out, "
    "differently each time, in three training steps.",
    caption="Dropout with p = 0.5: in each training step every hidden unit is left out with probability ½, with all "
    "its connections (crosses). At inference the whole network answers.",
)

# %% [markdown]
# ## Play first
#
# ### A network that is never the same
#
# A question before you move anything:

# %%
widgets.regularisation.guess_unscaled()

# %% [markdown]
# Now look at single draws (click a slider, then use the arrow keys).
#
# - Step through the draws. Which numbers inside the network grow when others are dropped?
# - Set the scaling to *none* and show *inference*. Why does the answer lie so far from the mean of the draws?
# - With *inverted*, move p from 0 to 0.9. What happens to the mean, and what to the spread?

# %%
names = ("dropout_mask", "dropout_forward")
widgets.regularisation.thinned(*map(reference, names), reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - With *inverted*, the survivors are divided by $1 - p$: at p = 0.5 each hidden number that is left counts double.
# - With *none*, the two hidden layers pass on all their units at inference, half of them in training: about
#   2 · 2 = 4 times the mean answer.
# - The mean stays near the answer at inference, whatever p is (not exactly: the ReLU in between bends it). The spread
#   grows and grows: at p = 0.9 the few that are left count ten times.
#
# </details>

# %% [markdown]
# ### A curve that learns its points by heart
#
# The second figure needs no network. A polynomial of degree 15 has as many numbers to choose as there are points, 16,
# so that it can pass through every one of them. **Weight decay** charges it for large weights.
#
# - Start at the left end (no weight decay). What do the weights look like?
# - Raise the weight decay until the curve is calm. Where is the error on *new* points least? What does the error on
#   the points themselves do meanwhile?
# - Go back to none and take 200 points instead of 16. Which of the two is the better remedy?

# %%
names = ("l2_penalty_forward", "l2_penalty_backward")
widgets.regularisation.fits(*map(reference, names), reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - Without weight decay the error on the points is 0, that on new points about 1000; neighbouring weights are huge
#   and of opposite sign, and only their difference is held in check by the points.
# - From left to right the error on the points only rises. The error on new points falls, is least near a weight
#   decay of 0.03, and rises again: too much charge, and the curve is too stiff to follow the truth.
# - 200 points do what weight decay does, and better: 0.10, of which 0.09 is noise that no curve could foresee. More
#   data is the remedy against which all others have to be measured; they are for when there is none.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | remedy | takes | gives | changes | in training | at inference |
# |---|---|---|---|---|---|
# | dropout | `x (…)`, `mask (…)`, p | `y (…)` | the layer | random | the identity |
# | L2 penalty | list of weights, $\lambda$ | one number | the loss | added | – |
# | label smoothing | `targets (n,)`, eps | `y (n, c)` | the targets | once | – |
# | early stopping | a loss per step, the weights | stop or go on | the number of steps | watches | – |
# | random shift | `x (n, h, w)` | `y (n, h, w)` | the data | random | – |
#
# ### What is measured
#
# The loss on the examples that the weights were fitted to is the **training loss**; the loss on examples that nothing
# was fitted to is the **test loss**; the difference is the **generalisation gap**. Choices made along the way (when to
# stop, how strong a remedy to take) are fitted too, in a way, so that they need examples of their own: the
# **validation** set. **Overfitting** is the part of training in which the training loss still falls while the loss on
# new examples rises.
#
# ### Dropout: mean and variance
#
# Let $m$ be 1 with probability $q = 1 - p$ and 0 with probability $p$, drawn anew for each entry of $x$ and in each
# step. The next layer sees $z = \sum_j w_j m_j x_j$, so that
# $$\operatorname{E}[z] = \sum_j w_j\,\operatorname{E}[m_j]\,x_j = q \sum_j w_j x_j .$$
# At inference nothing is dropped, and $z = \sum_j w_j x_j$: larger by the factor $\frac{1}{q}$ than anything the next
# layer was trained on, on average. Something has to make up for it, once:
#
# - **As first published** (Srivastava et al., 2014): train with $m x$, and multiply by $q$ at inference.
# - **Inverted**, as everybody does it now: train with $\frac{m x}{q}$, and leave $x$ alone at inference.
#
# Both have equal means in training and at inference. The second leaves the network that is deployed without a trace
# of dropout, p may even change during training, and whoever runs the network need not know. So the scaling stands where
# the randomness stands: in the training branch.
#
# *A number.* $x = 6$ and $p = 0.25$, so $q = 0.75$. Then $\frac{m x}{q}$ is $8$ in three of four draws and $0$ in
# one. Mean: $0.75 \cdot 8 = 6$. Mean of the square: $0.75 \cdot 64 = 48$. Variance: $48 - 36 = 12$. With letters:
# $$\operatorname{E}\Big[\frac{m x}{q}\Big] = x, \qquad
# \operatorname{Var}\Big[\frac{m x}{q}\Big] = q\,\frac{x^2}{q^2} - x^2 = \frac{x^2}{q} - x^2 = \frac{p}{1 - p}\,x^2 .$$
# Dropout is multiplicative noise: the larger an entry, the more it is shaken.
#
# The equality of means holds for one linear layer. Behind a non-linearity $f$ the mean of $f(z)$ is not $f$ of the
# mean of $z$; that the whole network at inference comes near the mean of all thinned ones is then an approximation
# (in the figure above, 3.65 against 3.5), which works, and which is one reason for averaging over draws at inference
# instead (Gal and Ghahramani, 2016).
#
# ### Dropout, backwards
#
# $y_j = \frac{m_j}{1 - p}\,x_j$ is $x_j$ times a constant (the mask was drawn *before*, and is no function of $x$).
# So $dx_j = \frac{m_j}{1 - p}\,dy_j$, with **the mask of the forward pass**. A gradient for $p$? There is none: $p$ is
# chosen, not learned.
#
# ### What dropout charges for
#
# Why should noise help? For one linear unit with squared error the sum over all masks can be done on paper. Let
# $z = \sum_j w_j \frac{m_j}{q} x_j$. The mean of a square is the square of the mean plus the variance, and the
# variances of independent terms add up:
# $$\operatorname{E}\big[(z - t)^2\big] = \Big(\sum_j w_j x_j - t\Big)^2 + \frac{p}{1 - p}\sum_j w_j^2 x_j^2 .$$
# On average, dropout on the inputs is a squared error *without* dropout plus a penalty on squared weights, each
# weighted by how large its input is (Srivastava et al., 2014, section 9.1; Wager, Wang and Liang, 2013, for other
# losses). It will be verified below over all masks, without drawing any.
#
# ### The L2 penalty, and why it is called decay
#
# Add to the loss
# $$\text{penalty} = \frac{\lambda}{2}\sum_{\text{weights}} w^2, \qquad
# \frac{\partial\,\text{penalty}}{\partial w} = \lambda w .$$
# The ½ is there for the second formula. A step of gradient descent on both together is
# $$w \leftarrow w - \eta\,(g + \lambda w) = (1 - \eta\lambda)\,w - \eta\,g :$$
# each step first shrinks every weight by the same *factor*, then follows the gradient $g$ of the loss. Hence **weight
# decay** (where lesson 06 wrote $\omega$ for $\lambda$). With $\eta = 0.1$ and $\lambda = 0.5$ a weight that no example
# needs is at $0.95$ of itself after one step and at $0.95^{100} = 0.6\,\%$ after a hundred. It comes to rest where pull
# and gradient balance, $g = -\lambda w$: a weight is as large as the loss still pays for.
#
# For plain gradient descent penalty and decay are the same thing, and with momentum nearly. For Adam they are not: it
# divides $g + \lambda w$ by the root of the squared gradients, so that a weight with large gradients is hardly decayed
# (lesson 06: AdamW takes the decay out of the division).
#
# **How much it shrinks.** Near a minimum $w^*$ the loss along one direction is $\frac{h}{2}(w - w^*)^2$ with curvature
# $h$. With the penalty its minimum is where $h\,(w - w^*) + \lambda w = 0$:
# $$w = \frac{h}{h + \lambda}\,w^* .$$
# Directions that the data insist on ($h \gg \lambda$) stay; those that hardly matter to the training loss
# ($h \ll \lambda$), which is where noise is learned, go to 0.
#
# ### Early stopping is a penalty in disguise
#
# Start at 0 and take $s$ steps of gradient descent on the same $\frac{h}{2}(w - w^*)^2$. Each step multiplies the
# distance to $w^*$ by $1 - \eta h$, so
# $$w_s = \big(1 - (1 - \eta h)^s\big)\,w^* .$$
# Again a factor near 1 where $h$ is large and near 0 where $h$ is small (for small $\eta h s$ it is $\eta h s$,
# compared with $\frac{h}{\lambda}$ above): $s$ steps act like a weight decay of about $\lambda = \frac{1}{\eta s}$
# (Bishop, 1995). Fewer steps, stronger decay. For $h = 1$, $\eta = 0.1$, $s = 10$: early stopping keeps
# $1 - 0.9^{10} = 0.65$ of $w^*$, weight decay with $\lambda = 1$ keeps $0.5$: alike, not equal.
#
# ### Label smoothing
#
# A hard label says that every other class is impossible, and cross-entropy believes it: the loss is 0 only where the
# right logit is infinitely far above the others. Szegedy et al. (2016) mix the one-hot row with the uniform one:
# $$y_k = (1 - \varepsilon)\,[k = t] + \frac{\varepsilon}{c} .$$
# The row still sums to 1, and lesson 03 holds for soft targets: the gradient at the logits is $\frac{1}{n}(p - y)$, 0
# at $p = y$. There the right logit lies above the others by
# $$\ln\frac{1 - \varepsilon + \varepsilon/c}{\varepsilon/c},$$
# 4.51 for ten classes and $\varepsilon = 0.1$. A finite number: nothing pulls the weights to infinity any more.
#
# ### Augmentation is not a penalty
#
# A penalty prefers some functions for being simple. Shifting the training images says something about the *data*: the
# image moved by a pixel has the same label. It is the strongest bet of all. Where it is true it is worth as much as
# data; where it is false (turn a 6 upside down) it teaches errors.

# %% [markdown]
# ## From scratch
#
# Seven functions and a class, in NumPy. Where something is random, the generator `rng` (a `np.random.Generator`) is an
# argument, and the text says exactly what to ask of it: with the same generator everybody gets the same numbers.

# %% [markdown] about="dropout_mask"
# ### Which units stay
#
# `dropout_mask(shape, p, rng) -> mask`: zeros and ones (floats) of the given shape. An entry is **kept (1) where
# `rng.random(shape) >= p`**, dropped (0) elsewhere. `rng` is asked once, for the whole shape
# (one argument, a tuple); $0 \le p < 1$.
#
# By hand: `shape = (2, 3)`, p = 0.4, and `rng.random((2, 3))` gives `[[0.64, 0.27, 0.04], [0.02, 0.81, 0.91]]`; the
# mask is `[[1, 0, 0], [0, 1, 1]]`. With p = 0 everything is kept.

# %%
rng = np.random.default_rng(0)
np.testing.assert_array_equal(reference("dropout_mask")((2, 3), 0.4, rng), [[1, 0, 0], [0, 1, 1]])


# %% exercise="dropout_mask"
def dropout_mask(shape, p, rng):
    """shape, p, rng -> mask (shape): zeros and ones"""
    ### BEGIN SOLUTION
    return (rng.random(shape) >= p).astype(float)
    ### END SOLUTION


# %% check="dropout_mask"
check(dropout_mask)

# %% [markdown] about="dropout_forward"
# ### Dropout, inverted
#
# `dropout_forward(x, mask, p) -> y`: all of `x`, `mask`, `y` have the same shape. What the mask drops becomes 0; what
# it keeps is divided by $1 - p$, **the probability, not the share that this mask happens to keep**.
#
# By hand: `x = [3, −1, 4, 8]`, `mask = [1, 0, 1, 1]`, p = 0.2. The survivors are divided by 0.8:
# `y = [3.75, 0, 5, 10]`.


# %% exercise="dropout_forward"
def dropout_forward(x, mask, p):
    """x (...), mask (...), p -> y (...)"""
    ### BEGIN SOLUTION
    return x * mask / (1 - p)
    ### END SOLUTION


# %% check="dropout_forward"
check(dropout_forward)

# %% [markdown] about="dropout_backward"
# ### Dropout, backwards
#
# `dropout_backward(dy, mask, p) -> dx`: the shape of `dy`. There is no `x` among the arguments. Why is it not needed?
#
# By hand, the mask and p from before and `dy = [0.4, 2, −8, 0]`: `dx = [0.5, 0, −10, 0]`.

# %%
x, mask, dy = np.array([3.0, -1, 4, 8]), np.array([1.0, 0, 1, 1]), np.array([0.4, 2, -8, 0])
np.testing.assert_allclose(reference("dropout_forward")(x, mask, 0.2), [3.75, 0, 5, 10])
np.testing.assert_allclose(reference("dropout_backward")(dy, mask, 0.2), [0.5, 0, -10, 0])


# %% exercise="dropout_backward"
def dropout_backward(dy, mask, p):
    """dy (...), mask (...), p -> dx (...)"""
    ### BEGIN SOLUTION
    return dy * mask / (1 - p)
    ### END SOLUTION


# %% check="dropout_backward"
check(dropout_backward)

# %% [markdown]
# The network from the start, thinned by your functions now. Where a number differed from the reference's, the
# reference would stand beside it in orange.

# %%
widgets.regularisation.thinned(dropout_mask, dropout_forward, reference)

# %% [markdown] about="l2_penalty_forward"
# ### The L2 penalty
#
# `l2_penalty_forward(weights, weight_decay) -> penalty`: `weights` is a **list** of arrays of any shapes, the result
# one number: **half of** `weight_decay` times the sum of the squares of all their entries.
#
# By hand: `weights = [[[1, −2], [0, 3]], [2]]` (a 2 × 2 matrix and a vector of one), `weight_decay = 0.5`: the squares
# are 1, 4, 0, 9 and 4, their sum 18; half of 0.5 · 18 is 4.5.


# %% exercise="l2_penalty_forward"
def l2_penalty_forward(weights, weight_decay):
    """weights: list of arrays, weight_decay -> penalty ()"""
    ### BEGIN SOLUTION
    return 0.5 * weight_decay * sum((w**2).sum() for w in weights)
    ### END SOLUTION


# %% check="l2_penalty_forward"
check(l2_penalty_forward)

# %% [markdown] about="l2_penalty_backward"
# ### The L2 penalty, backwards
#
# `l2_penalty_backward(dloss, weights, weight_decay) -> list of gradients`, one for each array, in order and of its
# shape. `dloss` is the number that arrives from above.
#
# By hand, the weights from before, `weight_decay = 0.5`, `dloss = 2`: the gradients are
# `[[[1, −2], [0, 3]], [2]]`, since 2 · 0.5 = 1.
#
# PyTorch's optimisers call exactly this factor `weight_decay`: they add `weight_decay * w` to the gradient.

# %%
weights = [np.array([[1.0, -2], [0, 3]]), np.array([2.0])]
assert reference("l2_penalty_forward")(weights, 0.5) == 4.5
np.testing.assert_allclose(reference("l2_penalty_backward")(2.0, weights, 0.5)[0], [[1, -2], [0, 3]])


# %% exercise="l2_penalty_backward"
def l2_penalty_backward(dloss, weights, weight_decay):
    """dloss (), weights: list of arrays, weight_decay -> list of gradients"""
    ### BEGIN SOLUTION
    return [dloss * weight_decay * w for w in weights]
    ### END SOLUTION


# %% check="l2_penalty_backward"
check(l2_penalty_backward)

# %% [markdown] about="label_smoothing"
# ### Smoothed labels
#
# `label_smoothing(targets, classes, eps) -> y`: `targets (n,)` whole numbers from 0 to `classes − 1`, `y (n, classes)`.
# Each row is $1 - \varepsilon$ times the one-hot row plus $\varepsilon$ times the uniform one. So eps is spread over
# **all** classes, the right one included, as PyTorch does it.
#
# By hand: `targets = [2, 0]`, 4 classes, eps = 0.2. Every class gets 0.2 / 4 = 0.05, the right one 0.8 besides:
# `y = [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]`.
#
# Below is what a right answer draws. Raise eps: where does the loss of one example have its minimum now?

# %%
targets, by_hand = np.array([2, 0]), [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]
np.testing.assert_allclose(reference("label_smoothing")(targets, 4, 0.2), by_hand)
widgets.regularisation.smoothing(reference("label_smoothing"), reference)


# %% exercise="label_smoothing"
def label_smoothing(targets, classes, eps):
    """targets (n,), classes, eps -> y (n, classes)"""
    ### BEGIN SOLUTION
    return (1 - eps) * np.eye(classes)[targets] + eps / classes
    ### END SOLUTION


# %% check="label_smoothing"
check(label_smoothing)

# %% [markdown] about="EarlyStopping"
# ### Early stopping, with the best weights
#
# A class of three methods and one attribute:
#
# - `EarlyStopping(patience, min_delta=0.0)`, with `patience` at least 1.
# - `step(loss, parameters) -> bool` is called after every training step (or epoch) with the validation loss and the
#   list of the network's parameter arrays. It **improves** if `loss < best_loss - min_delta`; then the loss and
#   **copies** of the parameters are kept. A tie is no improvement, nor is nan. It returns True, *stop*, as soon as
#   `patience` calls in a row have brought no improvement.
# - `restore(parameters)` writes the best parameters **into** the arrays of the list.
# - `best_loss` is the best loss so far, `np.inf` before the first call.
#
# By hand, `patience = 2`, `min_delta = 0`, losses 0.9, 0.7, 0.8, 0.6, 0.6, 0.65: the calls return False, False, False
# (one without improvement), False (0.6 improves: the count is 0 again), False (a tie: one), True (two). `best_loss` is
# 0.6, and `restore` brings back the weights of the fourth call.
#
# What is compared, after a run in which the weights change in place at every step: `steps`, the number of calls up to
# the first True (or all of them), `best_loss`, and two arrays `w` and `b` that `restore` was asked to write into.
#
# Two traps, both about the same fact, that an optimiser may write into the arrays it is given: what you keep must not
# change with them, and what you restore must reach the layers that hold them. `p.copy()` is the one,
# `p[...] = best` the other.


# %% exercise="EarlyStopping"
class EarlyStopping:
    """Three methods: __init__, step(loss, parameters) -> bool, restore(parameters); and the attribute best_loss."""

    def __init__(self, patience, min_delta=0.0):
        ### BEGIN SOLUTION
        self.patience, self.min_delta = patience, min_delta
        self.best_loss, self.best, self.waited = np.inf, [], 0

    def step(self, loss, parameters):
        if loss < self.best_loss - self.min_delta:
            self.best_loss, self.waited = loss, 0
            self.best = [p.copy() for p in parameters]
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, parameters):
        for p, best in zip(parameters, self.best, strict=True):
            p[...] = best
        ### END SOLUTION


# %% check="EarlyStopping"
check(EarlyStopping)

# %% [markdown] about="random_shift"
# ### Shifted images
#
# `random_shift(x, max_shift, rng) -> y`: images `x (n, h, w)`, each moved by its own whole number of pixels. The moves
# are drawn in one call, **`rng.integers(-max_shift, max_shift + 1, size=(n, 2))`**: row $i$ is $(dy, dx)$ of image
# $i$, positive $dy$ **down**, positive $dx$ **to the right**. (`integers` leaves out its upper end, hence the + 1.) What
# leaves the frame is lost, what comes in is 0; an image may leave it altogether.
#
# By hand, one image `[[1, 2, 3], [4, 5, 6]]` and $(dy, dx) = (1, -1)$: everything goes one row down and one column to
# the left, so that the result is `[[0, 0, 0], [2, 3, 0]]`.
#
# Below: digits, and the same digits as a right answer moves them.

# %%
images = data.digits().x_train[:24].reshape(-1, 8, 8)
widgets.regularisation.shifts(reference("random_shift"), reference, images)


# %% exercise="random_shift"
def random_shift(x, max_shift, rng):
    """x (n, h, w), max_shift, rng -> y (n, h, w)"""
    ### BEGIN SOLUTION
    n, h, w = x.shape
    y = np.zeros_like(x)
    for k, (dy, dx) in enumerate(rng.integers(-max_shift, max_shift + 1, size=(n, 2))):
        if abs(dy) < h and abs(dx) < w:
            part = x[k, max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)]
            y[k, max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = part
    return y
    ### END SOLUTION


# %% check="random_shift"
check(random_shift)

# %%
widgets.regularisation.shifts(random_shift, reference, images)

# %% [markdown]
# ## Against a reference
#
# The two backward passes, and the gradient of cross-entropy with smoothed labels, $\frac{1}{n}(p - y)$, by finite
# differences (your `numerical_gradient` of lesson 01) and by PyTorch.


# %%
def smoothed_cross_entropy(z, t, eps):
    return -(label_smoothing(t, z.shape[1], eps) * log_softmax_forward(z)).sum() / len(z)


rng = np.random.default_rng(3)
x, dy, w, z, t = *(rng.normal(size=(4, 5)) for _ in range(4)), np.array([3, 0, 1, 1])
mask = dropout_mask(x.shape, 0.3, rng)
logits = torch.tensor(z, requires_grad=True)
F.cross_entropy(logits, torch.tensor(t), label_smoothing=0.2).backward()
plots.gradient_check({
    "dropout": (dropout_backward(dy, mask, 0.3),
                numerical_gradient(lambda x: (dy * dropout_forward(x, mask, 0.3)).sum(), x),
                reference("dropout_backward")(dy, mask, 0.3)),
    "L2 penalty": (l2_penalty_backward(-0.7, [w], 0.4)[0],
                   numerical_gradient(lambda w: -0.7 * l2_penalty_forward([w], 0.4), w),
                   reference("l2_penalty_backward")(-0.7, [w], 0.4)[0]),
    "smoothed": ((np.exp(log_softmax_forward(z)) - label_smoothing(t, 5, 0.2)) / 4,
                 numerical_gradient(lambda z: smoothed_cross_entropy(z, t, 0.2), z), logits.grad),
})  # fmt: skip

# %% [markdown]
# **The penalty that dropout charges**, over *all* masks: six inputs have $2^6 = 64$ masks, each with probability
# $q^{\text{kept}}\,p^{\text{dropped}}$. No drawing, no approximation:

# %% tags=["nbval-check-output"]
rng, p = np.random.default_rng(1), 0.3
x, w, t = rng.normal(size=6), rng.normal(size=6), 0.5
masks = np.array(list(np.ndindex(*[2] * 6)), dtype=float)
chance = np.prod(np.where(masks == 1, 1 - p, p), axis=1)
errors = np.array([(w @ dropout_forward(x, mask, p) - t) ** 2 for mask in masks])
print(f"probabilities of {len(masks)} masks sum to {chance.sum():.6f}")
print(f"mean squared error over all masks    {chance @ errors:.6f}")
print(f"squared error + p/(1-p) sum w² x²    {(w @ x - t) ** 2 + p / (1 - p) * (w**2 * x**2).sum():.6f}")

# %% [markdown]
# **Decay is the penalty's gradient**, for gradient descent; not for Adam. The same weights, a gradient $g$ and one
# step each. What does a decay of 0.1 take from every weight?

# %% tags=["nbval-check-output"]
w, g, rate, decay = np.array([1.0, 1.0, 1.0]), np.array([0.01, 1.0, 100.0]), 0.1, 0.1
pulled = g + l2_penalty_backward(1.0, [w], decay)[0]
print("SGD, gradient of the penalty ", np.round(sgd_step(w, g, rate) - sgd_step(w, pulled, rate), 4))
print("SGD, decay by rate · decay   ", np.round(rate * decay * w, 4))
steps = [adam_step(w, gradient, np.zeros(3), np.zeros(3), 1, rate)[0] for gradient in (g, pulled)]
print("Adam, gradient of the penalty", np.round(steps[0] - steps[1], 4))

# %% [markdown]
# In Adam's first step the size of the gradient cancels, so that a penalty added to it takes nothing at all from these
# weights; in later steps it takes the less, the larger the gradients were. Nothing is wrong with the penalty's
# gradient. It is what Adam does to gradients; hence AdamW.
#
# What a check says of a mask drawn by another call:

# %% tags=["nbval-check-output"]
other = examine(lambda shape, p, rng: rng.binomial(1, 1 - p, shape).astype(float), "dropout_mask")
print(other.mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `dropout_forward` | `F.dropout(x, p, training=True)`, `nn.Dropout(p)` | `F.dropout` knows nothing of `model.eval()`: pass `self.training` |
# | – | `nn.Dropout2d` | drops whole channels of images: neighbouring pixels are too alike for one to be missed |
# | `l2_penalty_backward` | `weight_decay=` of every optimiser | acts on all parameters it is given, biases and gains too, unless you make groups (lesson 06) |
# | – | `torch.optim.AdamW` | decay outside of Adam's division |
# | `label_smoothing` | `F.cross_entropy(…, label_smoothing=eps)` | the same mixture over all classes |
# | `EarlyStopping` | – | not in PyTorch; libraries around it have one |
# | `random_shift` | `torchvision.transforms.RandomAffine(0, translate=…)` | its shifts are shares of the image, not pixels |
#
# Claims, verified:

# %%
torch.manual_seed(0)
x = torch.randn(50, 40, dtype=torch.float64)
y = F.dropout(x, 0.3)
z, t = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0])
smooth = torch.tensor(label_smoothing(t.numpy(), 4, 0.1))
w = torch.ones(3, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.SGD([w], lr=0.1, weight_decay=0.5)
(w * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
optimiser.step()
by_hand = 1 - 0.1 * (np.array([1.0, 2.0, 3.0]) + l2_penalty_backward(1.0, [np.ones(3)], 0.5)[0])
facts = {
    "F.dropout is yours, with the mask that it drew": np.allclose(
        y, dropout_forward(x.numpy(), (y != 0).double().numpy(), 0.3)
    ),
    "F.dropout(training=False) is the identity": torch.equal(F.dropout(x, 0.3, training=False), x),
    "F.dropout ignores model.eval()": not torch.equal(F.dropout(x, 0.3), x),
    "label_smoothing=0.1 is cross-entropy with your rows": torch.allclose(
        F.cross_entropy(z, t, label_smoothing=0.1), F.cross_entropy(z, smooth)
    ),
    "SGD's weight_decay is your penalty's gradient": np.allclose(w.detach(), by_hand),
}

# %% tags=["nbval-check-output"]
for fact, holds in facts.items():
    print("right" if holds else "WRONG", "·", fact)

# %% [markdown] about="Dropout"
# ### Dropout as a module
#
# Re-create `nn.Dropout` as `Dropout(p=0.5)`. `forward(x)` drops and scales while the module is in training mode, and
# returns `x` otherwise; `nn.Module` keeps the flag, `self.training`, and `train()` and `eval()` set it. The mask has
# the shape of `x`, each entry drawn by itself, anew for each call. Any of PyTorch's random functions will do: the
# check looks at what all right masks have in common, not at single numbers. (`nn.Dropout` and `F.dropout` are not
# allowed.)
#
# What is compared, for `x` and a random upstream gradient: `factors`, the values that $y / x$ takes, in training and
# in evaluation (for p = 0.3: 0 and 1.4286; 1); `slopes`, the values that $dx / dy$ takes, likewise; and `mask`,
# five answers (1 for yes): are about $1 - p$ of all entries kept, do the rows differ, do the columns, do two calls,
# and is $dx$ dropped where $y$ is?


# %% exercise="Dropout"
class Dropout(nn.Module):
    """x (...) -> y (...)

    Two methods: __init__ keeps p, forward(self, x) drops in training mode only.
    """

    def __init__(self, p=0.5):
        super().__init__()
        ### BEGIN SOLUTION
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand_like(x) >= self.p).to(x) / (1 - self.p)
        ### END SOLUTION


# %% check="Dropout"
check(Dropout)

# %% [markdown]
# `model.train()` and `model.eval()` reach your module through `nn.Module`. Forgetting `eval()` is the classic bug; how
# much does it cost? A network with your module, trained for a moment, asked three times in each mode:

# %%
digits = data.digits(test=1000)
x, t, x_test, t_test = (torch.tensor(array) for array in digits)
torch.manual_seed(0)
model = nn.Sequential(Dropout(0.2), nn.Linear(64, 128), nn.ReLU(), Dropout(0.5), nn.Linear(128, 10)).double()
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(20 if plots.fast() else 200):
    optimiser.zero_grad()
    F.cross_entropy(model(x), t).backward()
    optimiser.step()

for mode in (model.train, model.eval):
    mode()
    right = [(model(x_test).argmax(1) == t_test).double().mean().item() for _ in range(3)]
    print(f"{mode.__name__}(): test accuracy", *(f"{value:.3f}" for value in right))

# %% [markdown]
# In `train()` mode the answers are worse, and no two are alike. If your evaluation gives another number each time you
# run it, look for a missing `eval()` first.

# %% [markdown]
# ## At work
#
# Now on purpose. The layers of lesson 04 get a new companion, three functions of yours with a flag that says whether
# training is on. One flag serves all dropout layers of the notebook.


# %%
class DropoutLayer:
    """Your three functions in the protocol of lesson 04. It has no parameters; `training` is one flag for all."""

    training = True

    def __init__(self, p, rng):
        self.p, self.rng = p, rng

    def forward(self, x):
        self.mask = dropout_mask(x.shape, self.p, self.rng) if self.training else None
        return x if self.mask is None else dropout_forward(x, self.mask, self.p)

    def backward(self, dy):
        return dy if self.mask is None else dropout_backward(dy, self.mask, self.p)

    def parameters(self):
        return []

    gradients = parameters


# %% [markdown]
# 100 digits to learn from. 150 others are for watching while we learn (validation), 300 more are kept for later, 1000
# are for the test. The seed decides which digits fall where, so that several seeds tell how much depends on the luck
# of the draw. And `wrong` is the share of labels that a careless annotator got wrong: the 1000 of the test are always
# right.


# %%
def draw(seed, wrong=0.0):
    """(x, t) to learn from, (x, t) to watch, (x, t) in reserve; a share of their labels is wrong."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.x_train))
    x, t = digits.x_train[order], digits.y_train[order]
    t = np.where(rng.random(len(t)) < wrong, (t + rng.integers(1, 10, len(t))) % 10, t)
    return [(x[part], t[part]) for part in (slice(0, 100), slice(100, 250), slice(250, 550))]


def network(rng, p=0.0):
    """64 inputs, 128 hidden units, 10 outputs; with p, dropout of 0.2 on the inputs and of p on the hidden units."""
    w1, w2 = rng.normal(0, (2 / 64) ** 0.5, (128, 64)), rng.normal(0, (2 / 128) ** 0.5, (10, 128))
    first, relu, second = LinearLayer(w1, np.zeros(128)), ReLULayer(), LinearLayer(w2, np.zeros(10))
    if not p:
        return Sequential([first, relu, second])
    return Sequential([DropoutLayer(0.2, rng), first, relu, DropoutLayer(p, rng), second])


# %% [markdown]
# Every remedy in one training loop. All 100 digits are one batch, momentum as in lesson 06. The function hands back
# control after every step (`yield`), so that whoever calls it can look, and stop.


# %%
def train(model, x, t, rng, steps=60, weight_decay=0.0, max_shift=0, eps=0.0):
    """Trains the model in place; pauses after every step."""
    y = label_smoothing(t, 10, eps)
    velocities = [np.zeros_like(p) for p in model.parameters()]
    for _ in range(8 if plots.fast() else steps):
        batch = random_shift(x.reshape(-1, 8, 8), max_shift, rng).reshape(x.shape) if max_shift else x
        z = model.forward(batch)
        model.backward((np.exp(log_softmax_forward(z)) - y) / len(t))
        parameters, gradients = model.parameters(), list(model.gradients())
        if weight_decay:  # of the two matrices; biases stay free
            pulls = l2_penalty_backward(1.0, parameters[::2], weight_decay)
            gradients[::2] = [g + pull for g, pull in zip(gradients[::2], pulls, strict=True)]
        for k, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            p[...], velocities[k] = momentum_step(p, g, velocities[k], lr=0.3)
        yield


def answers(model, x):
    """Logits at inference."""
    DropoutLayer.training = False
    z = model.forward(x)
    DropoutLayer.training = True
    return z


# %%
def accuracy(model, x, t):
    return (answers(model, x).argmax(axis=1) == t).mean()


def loss(model, x, t):
    return cross_entropy_forward(answers(model, x), t)


# %% [markdown]
# ### By heart
#
# One in five labels is wrong. What does the network do about those?

# %%
seen, watched, _ = draw(0, wrong=0.2)
test = digits.x_test, digits.y_test
rng = np.random.default_rng(0)
model = network(rng)
names = "train loss", "validation loss", "test loss", "train accuracy", "test accuracy"
with plots.Training(60, *names, unit="step") as run:
    for _ in train(model, *seen, rng):
        losses = [loss(model, *part) for part in (seen, watched, test)]
        run.log(*losses, accuracy(model, *seen), accuracy(model, *test))

# %% [markdown]
# It learns them. The training accuracy reaches 100 %, wrong labels included; the loss on new digits falls for about
# ten steps (on the test digits for 14), then climbs; the test accuracy is best early, near 78 %, and ends at 69 %. (The
# validation loss lies higher than the test loss: its labels come from the same annotator.)
#
# How much can a network learn by heart? Zhang et al. (2017) put the question with labels drawn at random. Three seeds
# each:

# %%
curves = {"labels right": 0.0, "20 % wrong": 0.2, "90 % wrong": 0.9}
for name, wrong in curves.items():
    runs = []
    for seed in range(3):
        seen, rng = draw(seed, wrong)[0], np.random.default_rng(seed)
        model = network(rng)
        steps = train(model, *seen, rng, steps=100)
        runs.append([(accuracy(model, *seen), accuracy(model, *test)) for k, _ in enumerate(steps) if k % 4 == 3])
    curves[name] = runs

plots.show(
    widgets.regularisation.learning(curves),
    alt="Training accuracy reaches 1 for right, partly wrong and random labels; test accuracy is near 0.9, 0.7 and 0.1.",
    caption="Three seeds each. All labels are learned, the random ones as well, only later. With 90 % wrong the label "
    "says nothing about the digit, and the test accuracy is that of guessing.",
)

# %% [markdown]
# With nine labels in ten wrong, drawn from the nine other classes, every class is equally likely: nothing is left to
# *understand*, and the network gets to 100 % all the same. So the network is large enough to learn any labels by
# heart, and the training accuracy alone says nothing about whether it did. What kept it from doing so with the right
# labels? Nothing in the number of its weights. That is the puzzle Zhang et al. posed, and it is not settled.

# %% [markdown]
# ### The remedies, measured
#
# Predict first.

# %%
widgets.regularisation.guess_remedy()

# %% [markdown]
# Each remedy alone, at one customary strength that was fixed before looking: weight decay 0.02, dropout 0.2 on the
# inputs and 0.5 on the hidden units, eps 0.1, patience 15, shifts of up to one pixel (with three times the
# steps, since no copy comes twice). The comparison is **paired**:
# with the same seed every remedy gets the same digits and the same initial weights as the network without one, and
# what is plotted is its gain over that network. Five seeds, right labels and 20 % wrong ones.

# %%
recipes = {
    "no remedy": {},
    "weight decay": dict(weight_decay=0.02),
    "dropout": dict(p=0.5),
    "label smoothing": dict(eps=0.1),
    "early stopping": dict(patience=15),
    "shifted copies": dict(max_shift=1, steps=180),
    "300 more digits": dict(more=True),
}


def trained(seed, wrong, p=0.0, patience=None, more=False, **settings):
    seen, watched, reserve = draw(seed, wrong)
    if more:
        seen = [np.concatenate(pair) for pair in zip(seen, reserve, strict=True)]
    rng = np.random.default_rng(seed)
    model, stopper = network(rng, p), EarlyStopping(patience or 10**9)
    for _ in train(model, *seen, rng, **settings):
        if patience and stopper.step(loss(model, *watched), model.parameters()):
            break
    if patience:
        stopper.restore(model.parameters())
    return model


# %%
models = {
    (name, wrong, seed): trained(seed, wrong, **recipe)
    for wrong in (0.0, 0.2)
    for name, recipe in recipes.items()
    for seed in range(5)
}
scores = {key: 100 * accuracy(model, *test) for key, model in models.items()}
gains = {"labels right": {}, "20 % of the labels wrong": {}}
for wrong, rows in zip((0.0, 0.2), gains.values(), strict=True):
    for name in recipes:
        found = np.array([scores[name, wrong, seed] for seed in range(5)])
        gain = found - [scores["no remedy", wrong, seed] for seed in range(5)]
        rows[name] = gain
        spread = f"{gain.mean():+5.1f} ({gain.min():+.1f} to {gain.max():+.1f})" if name != "no remedy" else ""
        print(f"{wrong:.0%} wrong, {name:<18} {found.mean():.1f} %  {spread}")
    del rows["no remedy"]

# %%
plots.show(
    widgets.regularisation.remedies(gains),
    alt="Gains in test accuracy per remedy, a dot per seed. Right labels: near zero for all but more digits. "
    "Wrong labels: weight decay, dropout and, less surely, early stopping gain; more digits gain most.",
    caption="Points of test accuracy gained over the same network without a remedy; a dot per seed, a bar at the mean.",
)

# %% [markdown]
# Read it fairly.
#
# - **With right labels hardly anything helps.** The network knows its 100 digits by heart and is right on 87 in a
#   hundred new ones. The gains of all remedies but more data are smaller than their spread over the seeds: from these
#   five runs nobody can say whether there is a gain at all. Learning by heart is not the same as generalising badly.
#   (Srivastava et al., 2014, section 7.4, saw the same: on their smallest data sets dropout gained nothing.)
# - **With wrong labels weight decay and dropout gain 8 to 9 points on average, and in every seed**, since they make it
#   hard to learn the wrong ones. Early stopping gains 5, but not in every seed: it trusts a validation set with wrong
#   labels of its own. Shifted copies gain little: with three times the steps the network learns most wrong labels all
#   the same. Label smoothing gains next to nothing: it makes the network less sure of the wrong labels, and lets it
#   learn them.
# - **Data beats them all**, even data of the same carelessness.
# - One strength, one network, 8 × 8 pixels, five seeds. With larger networks on more data dropout was worth more
#   than here; with data in abundance less: large language models that see nearly everything only once are mostly
#   trained without it.
#
# ### How strong?
#
# A remedy has a dose. Weight decay and dropout on the 20 % wrong labels, three seeds:

# %%
decays, rates = [0, 0.01, 0.03, 0.1], [0, 0.3, 0.6, 0.9]
doses = {}
for name, argument, values in (("weight decay", "weight_decay", decays), ("dropout p", "p", rates)):
    found = np.array([
        [(accuracy(model, *draw(seed, 0.2)[0]), accuracy(model, *test)) for seed in range(3)
         for model in [trained(seed, 0.2, **{argument: value})]]
        for value in values
    ])  # fmt: skip
    doses[name] = values, found[:, :, 0], found[:, :, 1]
plots.show(
    widgets.regularisation.doses(doses),
    alt="Accuracy against strength. Training accuracy falls as weight decay or dropout get stronger; test accuracy "
    "first rises, then falls.",
    caption="Each line is a seed. The stronger the remedy, the fewer of the wrong labels are learned; too strong, and "
    "the right ones are not learned either.",
)

# %% [markdown]
# Both times the test accuracy is best, on average, at the third dose, where the training accuracy has come down to
# nearly 90 %, on its way to the 80 % of labels that are right. In practice the dose is chosen on validation data. (We
# have just read it off the test digits. As a picture that is fine; a number chosen this way would flatter itself.)
#
# ### What a bet is worth where it holds
#
# Shifted copies gained little on these test digits, for a reason: all of them are centred, so that nothing like a
# shifted digit ever comes. Let the test digits move by up to a pixel, too:

# %%
moved = random_shift(digits.x_test.reshape(-1, 8, 8), 1, np.random.default_rng(0)).reshape(-1, 64)
for name in ("no remedy", "dropout", "shifted copies"):
    found = [100 * accuracy(models[name, 0.0, seed], moved, digits.y_test) for seed in range(5)]
    print(f"moved test digits, {name:<18} {np.mean(found):.0f} % ({min(found):.0f} to {max(found):.0f})")

# %% [markdown]
# One pixel, which you would hardly notice, and a network that has never seen it is right on little more than a third.
# Trained on shifted copies it does not care. No penalty could have given it that: it is knowledge about the world, and
# it came in through the data. (Convolutions, in lesson 09, build a part of it into the
# layer; lessons 10 and 11 measure how much is left to the data.)

# %% [markdown]
# ## Look inside
#
# ### When to stop
#
# The run from *By heart*, and your `EarlyStopping` on its validation loss. What does a patience of 1 cost? What does
# it gain to restore the best weights, for a long patience?

# %%
history = {"train": "train loss", "validation": "validation loss", "test": "test loss", "accuracy": "test accuracy"}
history = {key: run[name] for key, name in history.items()}
widgets.regularisation.stopping(EarlyStopping, reference, history)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - This validation loss falls without a stumble to step 9, so that even a patience of 1 finds the least. Most do
#   stumble: with few validation examples, patience has to outlast the noise.
# - A long patience costs steps, and without restoring also accuracy: patience 30 stops at step 39, where 70.1 % are
#   right; restored, 72.8 %. With the best weights kept, being patient costs nothing but time.
# - The most accurate weights were those of step 13, with 77.8 %. The validation *loss* did not know: it had begun to
#   rise, while the accuracy still did, too (lesson 03: the loss counts confidence).
#
# </details>
#
# ### What weight decay does to a boundary
#
# Two noisy moons and a network of 32 hidden units that can wind around single points. Raise the weight decay: the
# boundary straightens, at last too far; the weights shrink, and half of them go to 0 altogether. Then take 400 points
# and no decay: the boundary is calm by itself. The pull on the weights is your function.
#
# Does the calmer boundary meet new points better? Compare the numbers for 30 points with those for 100.

# %%
widgets.regularisation.boundary(l2_penalty_backward, reference)

# %% [markdown]
# <details><summary>Does it?</summary>
#
# With 100 points, a little: 91.0 % for a decay of 0.001, 89.9 % without. With 30 points, not at all: the boundary looks
# better from step to step, and the share of right answers falls from 89.7 %. What looks simple need not be true.
#
# </details>
#
# ### What the first layer looks for
#
# The first layer's weights as pictures, one for each hidden unit, from the networks that were given 20 % wrong labels.
# Srivastava et al. (2014, section 7.1) found that with dropout single units look for something on their own, where
# otherwise they are intelligible only together. Do you see it here?

# %%
shown = ("no remedy", "weight decay", "dropout", "300 more digits")
widgets.regularisation.filters({name: models[name, 0.2, 0].parameters()[0] for name in shown})

# %% [markdown]
# <details><summary>What can be said</summary>
#
# Weight decay shows: the mean norm of a unit falls from 1.7 to 0.4, and 29 of 128 units have hardly any weights left.
# The rest no longer resemble the random numbers they started from. Of single units that have become intelligible under
# dropout there is little to be seen: 100 digits and 60 steps leave the pictures close to where they started. A negative
# result of a small experiment, not a refutation.
#
# </details>
#
# ### Sure, and how sure
#
# Lesson 03 asked whether confidence is earned. Here are the networks trained on right labels, judged on the 1000 test
# digits. Compare no remedy with label smoothing at temperature 1. Then look for the temperature at which the smoothed
# one is calibrated best.

# %%
shown = ("no remedy", "dropout", "label smoothing", "300 more digits")
logits = {name: answers(models[name, 0.0, 0], digits.x_test) for name in shown}
widgets.regularisation.calibration(logits, digits.y_test)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - No remedy: 95 % sure on average, 87 % right. Too sure; a temperature of 2 mends it, as in lesson 03.
# - Label smoothing at temperature 1: 72 % sure, 87 % right. *Less* sure than it has reason to be: with few digits the
#   dose of 0.1 overshoots, and its calibration error, 0.15, is twice that of no remedy. It is calibrated best near
#   temperature 0.6. On large data sets label smoothing was found to calibrate well by itself (Müller, Kornblith and
#   Hinton, 2019). Neither finding carries over without being measured.
# - Dropout is 84 % sure and 88 % right; 300 more digits do best in everything.
#
# </details>
#
# ### Is a smaller network a remedy?
#
# The old advice: if it overfits, take fewer weights. An experiment without any training loop: a layer of random ReLU
# units, and on top a linear layer with the *least-squares* weights (of all that fit equally well the smallest, which is
# what gradient descent from 0 would find). 100 digits, 20 % wrong labels, five seeds, and the number of hidden units
# from 10 to 2000; with and without an L2 penalty.

# %%
widths, found = [10, 20, 40, 60, 80, 100, 120, 150, 200, 400, 1000, 2000], {0: [], 10: []}
for penalty, runs in found.items():
    for seed in range(2 if plots.fast() else 5):
        (x, t), rng, row = draw(seed, 0.2)[0], np.random.default_rng(seed), []
        for width in widths:
            w = rng.normal(0, 64**-0.5, (width, 64))
            h, h_test = np.maximum(x @ w.T, 0), np.maximum(digits.x_test @ w.T, 0)
            inverse = np.linalg.pinv(h) if not penalty else h.T @ np.linalg.inv(h @ h.T + penalty / 2 * np.eye(100))
            row.append((h_test @ inverse @ (np.eye(10)[t] - 0.1)).argmax(1) == digits.y_test)
        runs.append(np.mean(row, axis=1))
plots.show(
    widgets.regularisation.descent(widths, {"no penalty": found[0], "with a penalty": found[10]}),
    alt="Test accuracy against the number of hidden units. Without a penalty it rises, collapses at 100, and rises "
    "again beyond its first peak. With one it rises and stays.",
    caption="Without a penalty the worst network is the one that has just enough units, 100, to learn 100 digits by "
    "heart. Beyond, it gets better again: double descent. An L2 penalty removes the collapse.",
)

# %% [markdown]
# Belkin et al. (2019) called this **double descent** (of the error; the accuracy drawn here goes up, down and up).
# At 100 units exactly one set of weights fits all 100 labels, the wrong ones too, and it is wild. With more units many
# fit, and the smallest among them is tame. So "too many weights" is not what makes a network overfit; and a well-chosen
# penalty takes the collapse away (Nakkiran et al., 2021). How far this carries over to deep networks trained for one
# pass through much data is an open question.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken versions of dropout, as they stand in real code, and three numbers to predict.

# %% [markdown] about="repair_dropout_forward"
# ### Repair: a network that is timid at inference
#
# `repair_dropout_forward(x, mask, p, training) -> y`: `training` is True or False; at inference the mask is ignored and
# `x` comes back unchanged. The author has read two explanations of dropout and followed both. The network trains well,
# and at inference its logits are too small: the deeper the network, the closer its probabilities are to $1/c$.


# %% exercise="repair_dropout_forward"
def repair_dropout_forward(x, mask, p, training):
    """x (...), mask (...), p, training -> y (...)"""
    ### BEGIN SOLUTION
    if training:
        return x * mask / (1 - p)
    return x
    ### BROKEN
    # if training:
    #     return x * mask / (1 - p)
    # return x * (1 - p)
    ### END SOLUTION


# %% check="repair_dropout_forward"
check(repair_dropout_forward)

# %% [markdown] about="RepairDropoutLayer"
# ### Repair: a layer whose gradients are wrong half of the time
#
# `RepairDropoutLayer(p, rng)` has `forward(x)`, `backward(dy)` and an attribute `training`. The forward pass is right:
# in training it keeps where `rng.random(x.shape) >= p` and scales, at inference it returns `x`. But finite differences
# disagree with the backward pass, after a forward pass in training as well as after one at inference. A network with
# this layer even learns, slowly; that is why nobody noticed.
#
# `rng` may be asked once for each forward pass in training, and not otherwise.


# %% exercise="RepairDropoutLayer"
class RepairDropoutLayer:
    """Dropout as a layer: forward(x) -> y, backward(dy) -> dx; training is True or False."""

    def __init__(self, p, rng):
        self.p, self.rng, self.training = p, rng, True

    ### BEGIN SOLUTION
    def forward(self, x):
        self.mask = self.rng.random(x.shape) >= self.p if self.training else None
        return x * self.mask / (1 - self.p) if self.training else x

    def backward(self, dy):
        return dy if self.mask is None else dy * self.mask / (1 - self.p)
    ### BROKEN
    # def forward(self, x):
    #     mask = self.rng.random(x.shape) >= self.p if self.training else None
    #     return x * mask / (1 - self.p) if self.training else x
    #
    # def backward(self, dy):
    #     mask = self.rng.random(dy.shape) >= self.p
    #     return dy * mask / (1 - self.p)
    ### END SOLUTION


# %% check="RepairDropoutLayer"
check(RepairDropoutLayer)

# %% [markdown] about="dropout_moments"
# ### Predict: mean and variance
#
# `dropout_moments(x, p) -> mean, variance` of one entry `x` (a number) after inverted dropout: over the draw of its
# mask, from a formula, without drawing. By hand: $x = 6$, $p = 0.25$ gave 6 and 12.


# %% exercise="dropout_moments"
def dropout_moments(x, p):
    """x, p -> mean (), variance ()"""
    ### BEGIN SOLUTION
    return x, x**2 * p / (1 - p)
    ### END SOLUTION


# %% check="dropout_moments"
check(dropout_moments)

# %% [markdown] about="thinned_networks"
# ### Predict: how many networks?
#
# `thinned_networks(widths) -> networks`: dropout is applied to all **hidden** layers of a network whose layers have
# the given widths, input first, output last. From how many different thinned networks does each step draw one? By
# hand: widths `[3, 2, 1]` have two hidden units; both, the first, the second, none: 4.


# %% exercise="thinned_networks"
def thinned_networks(widths):
    """widths -> networks ()"""
    ### BEGIN SOLUTION
    return 2 ** sum(widths[1:-1])
    ### END SOLUTION


# %% check="thinned_networks"
check(thinned_networks)

# %% [markdown]
# For the network of this lesson, 64, 128, 10, that is $3.4 \cdot 10^{38}$. Since every digit of a batch draws its own
# mask, 60 steps with 100 digits visit 6000 of them, hardly any twice. They share their weights; that is why dropout is
# *like* training an ensemble, and why it is not one.

# %% [markdown] about="smoothed_floor"
# ### Predict: the floor of a smoothed loss
#
# `smoothed_floor(classes, eps) -> loss`: the least cross-entropy (in nats) that any network can reach on labels smoothed
# by eps > 0. By hand for 2 classes and eps = 0.2: the target is (0.9, 0.1); the loss is least where $p$ equals it, and
# is then $-0.9 \ln 0.9 - 0.1 \ln 0.1 = 0.325$.
#
# Use: with smoothing, a training loss that stands still at 0.5 may be a network that knows everything.


# %% exercise="smoothed_floor"
def smoothed_floor(classes, eps):
    """classes, eps -> loss ()"""
    ### BEGIN SOLUTION
    right, wrong = 1 - eps + eps / classes, eps / classes
    return -right * np.log(right) - (classes - 1) * wrong * np.log(wrong)
    ### END SOLUTION


# %% check="smoothed_floor"
check(smoothed_floor)

# %% tags=["nbval-check-output"]
print(f"floor with 10 classes, eps = 0.1: {smoothed_floor(10, 0.1):.3f}")
wide = [loss(models["label smoothing", 0.0, seed], *draw(seed)[0]) for seed in range(5)]
print(f"training loss of the smoothed networks, on hard labels: {np.mean(wide):.2f}")
print(f"thinned networks of 64-128-10: {thinned_networks([64, 128, 10]):.1e}")

# %% [markdown]
# ### What people believe, and what is true
#
# - **"Training accuracy 100 %: it overfits."** It has learned its examples by heart. Whether that hurts is said by new
#   examples only; with right labels, above, it hardly did.
# - **"Dropout halves the activations."** Not the inverted kind: their mean stays. Their variance grows by
#   $\frac{p}{1-p}x^2$, which is why dropout *before* batch normalisation gives it other statistics in training than at
#   inference (Li et al., 2019; lesson 08).
# - **"The training loss is above the validation loss: a bug."** With dropout, augmentation or smoothing the training
#   loss is measured on a harder task. Compare like with like: both at inference, both with hard labels.
# - **"L2 and weight decay are the same."** For SGD. Not for Adam.
# - **"Weight decay keeps the function simple because small weights are simple."** A ReLU network followed by
#   normalisation computes the same function with all weights halved. There, weight decay acts through the *effective
#   learning rate* (van Laarhoven, 2017; lesson 08). Even without, it is disputed how much of its use is regularisation
#   at all (G. Zhang et al., 2019).
# - **"Early stopping is free."** It spends the validation digits, here more of them than there were training digits:
#   training on them might have gained more. And a validation loss is a noisy number; its minimum is partly luck.
# - **"More regularisation is safer."** Each of the doses above had a right side on which everything gets worse.
# - **"Test-time noise means that dropout is still on by design."** Leaving it on and averaging is a method of its own
#   (Monte-Carlo dropout: Gal and Ghahramani, 2016). If you did not ask for it, it is a missing `eval()`.

# %% [markdown]
# ## Where it is used, and what came after
#
# Dropout kept the large fully connected layers of AlexNet from overfitting (Krizhevsky, Sutskever and Hinton, 2012). In
# convolutional networks batch normalisation and augmentation took its place; in transformers it sits behind attention
# and in the feed-forward part (Vaswani et al., 2017: p = 0.1, together with label smoothing of 0.1), and leaves again
# where the data are plentiful. Variants drop weights (DropConnect: Wan et al., 2013), channels (Tompson et al., 2015),
# whole residual branches (stochastic depth: Huang et al., 2016; lesson 12). Weight decay is in nearly every recipe, as
# AdamW. Augmentation grew into policies and mixtures of images (mixup: Zhang et al., 2018), and into the objective
# itself in self-supervised learning (lesson 23). Label smoothing helps calibration and hurts distillation: it wipes
# out what the teacher knows about which classes are alike (Müller, Kornblith and Hinton, 2019; lesson 27).
#
# You can now
#
# - say why dropout scales, where, and what goes wrong if it scales twice, or never;
# - tell weight decay from an L2 penalty, and when the difference matters;
# - stop a run at the right moment, and get the right weights back;
# - measure a remedy: paired, over several seeds, against the remedy of having more data;
# - doubt, with reasons, that a network overfits because it is large.
#
# To read:
#
# - N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, *Dropout: a simple way to prevent neural
#   networks from overfitting*, 2014. Readable throughout; section 9.1 is the penalty of this lesson.
# - C. Zhang, S. Bengio, M. Hardt, B. Recht and O. Vinyals, *Understanding deep learning requires rethinking
#   generalization*, 2017. The random labels.
# - I. Loshchilov and F. Hutter, *Decoupled weight decay regularization*, 2019. AdamW.
# - M. Belkin, D. Hsu, S. Ma and S. Mandal, *Reconciling modern machine-learning practice and the classical
#   bias-variance trade-off*, 2019. Double descent.
# - R. Müller, S. Kornblith and G. Hinton, *When does label smoothing help?*, 2019. What smoothing does to the layer
#   below.
