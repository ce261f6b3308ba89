# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 16 · Recurrent networks
#
# A text, a melody, a temperature over the year: such things have no fixed length, and what comes now depends on what
# came before. A **recurrent network** reads them one step at a time and keeps a **state**, a vector into which it
# writes what it has seen and from which it says what it makes of it. At every step it uses the same weights.
#
# You will build the step, the loop and its gradient back through time; cut that gradient where it becomes too long;
# read batches of sequences of unequal lengths, in both directions; and teach a network to write. It writes a language
# whose entropy is known, so for once the best possible loss is known too.
#
# **You need** lessons 02 (tanh), 03 (cross-entropy), 05 (gradients through depth, clipping), 06 (Adam) and 15
# (embeddings). **Time:** about five hours, three and a half of them for the exercises.

# %% setup=true
from collections import Counter, defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from autograder import check, examine, mine, reference
from course import plots, widgets
from course.data import text

# %%
plots.show(
    widgets.rnn.diagram(),
    alt="Left: a box with weights, x comes in from below, h leaves at the top and returns to the box. Right, after an "
    "equals sign: four such boxes in a row, x1 to x4 from below, h1 to h4 at the top, each handing its h to the next.",
    caption="A recurrent layer, and the same layer unrolled over four steps. Pink: the weights, one set for all steps. "
    "Green: the state, which is the output of a step and an input of the next.",
)

# %% [markdown]
# ## Play first

# %%
widgets.rnn.guess_parameters()

# %% [markdown]
# Unrolled, a recurrent network is a deep one: a layer for each step, all with the same weights. You know from lesson 05
# what depth does to gradients.

# %%
widgets.rnn.guess_factor()

# %% [markdown]
# Now eight units instead of one, with random weights. Set `played` to 0 and move it to the right: 24 steps forwards,
# then, from a loss at the last step, 24 steps back. Below stands the norm of the gradient at every step. `spectral
# radius` is the size of the largest eigenvalue of `w_h`, the matrix that carries the state from step to step.
#
# 1. `then` = nothing, so that there is no tanh. Which radius keeps the norm over all 24 steps? What do 0.9 and 1.1
#    make of it?
# 2. Back to tanh, radius 1. Where does the gradient go? Then `input ×` 0: why does it stay now?
# 3. Without tanh, radius 0.8: compare `turns`, `random` and `shears`. All three have the same spectral radius.
# 4. Cut the gradient every 5 steps. What do the first steps learn from the loss?

# %%
widgets.rnn.unrolled()

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - Without tanh, the matrix that `turns` multiplies the gradient by exactly the radius at each step. At 1 it stays, at
#   0.9 less than a tenth is left after 23 steps, at 1.1 it grows ninefold.
# - With tanh there is a second factor at every step, the slope $1 - h^2$, never above 1. States that are far from 0
#   have small slopes: with the radius 1 only 0.002 of the gradient arrives. With input 0 all states are 0, the
#   slopes 1, and nothing is lost.
# - The spectral radius decides the long run and not the first steps. `shears` with radius 0.8 lets the gradient *grow*
#   to twice its size before it shrinks. What can be promised for every step is the largest
#   singular value, pink: the gradient never gets above that line.
# - Cut every 5 steps, the loss at step 24 reaches back to step 21. What came in before is in the state, but nobody is
#   told whether it was of any use.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | what | shape | |
# |---|---|---|
# | $x$ | `(N, T, D)` | N sequences, T steps, D numbers a step; $x_t$ is one step of it, `(N, D)` |
# | $h_t$ | `(N, H)` | the state of H units after step $t$; $h_0$ is given |
# | `hs` | `(N, T, H)` | the states $h_1 \dots h_T$; $h_t$ has seen $x_t$ |
# | $w_x$, $w_h$, $b$ | `(H, D)`, `(H, H)`, `(H,)` | the same at every step |
#
# Batches come first, as in all lessons. Formulas count steps from 1, arrays from 0: $x_1$ is `x[:, 0]`, and
# $h_1$, which has seen it, is `hs[:, 0]`.
#
# ### Forwards
#
# $$h_t = \tanh(z_t), \qquad z_t = x_t\, w_x^\top + h_{t-1}\, w_h^\top + b .$$
# Two linear layers, added, and tanh: Elman's network (1990). $h_T$ depends on all of $x_1 \dots x_T$; a dense layer on
# the concatenated steps would too, but it needs weights of its own for every place, and has no answer when T + 1 steps
# arrive. Using the same weights everywhere is for time what convolution is for space: what has been learned at one
# place is known at all of them.
#
# ### Backwards through time
#
# The state $h_t$ is used twice: as the output at step $t$, and in step $t + 1$. So two gradients arrive and add:
# $dhs_t$, from whatever is made of that output, and what step $t + 1$ sends back. Call the sum $dh_t$. Through the
# step it goes as through any layer:
# $$dz_t = dh_t \odot (1 - h_t^2), \qquad dx_t = dz_t\, w_x, \qquad \text{and back to } h_{t-1}:\; dz_t\, w_h .$$
# Therefore, from the last step to the first, with nothing arriving from behind the last one:
# $$dh_t = dhs_t + dz_{t+1}\, w_h .$$
# The parameters are used at every step, and what is used several times collects several gradients (lesson 04):
# $$dw_x = \sum_t dz_t^\top x_t, \qquad dw_h = \sum_t dz_t^\top h_{t-1}, \qquad db = \sum_t \sum_n dz_t .$$
# In $dw_h$ step $t$ is paired with the state *before* it. This is **backpropagation through time**: nothing but
# backpropagation in the unrolled network (Werbos, 1990).
#
# ### A product of many matrices
#
# Let the loss stand at the last step alone. One step back multiplies by $J_t = \mathrm{diag}(1 - h_t^2)\, w_h$ (for
# one sequence; $dh$ is a row), so
# $$dh_{T-k} = dh_T\, J_T\, J_{T-1} \cdots J_{T-k+1} .$$
# How large is it?
#
# *What can be promised.* A matrix stretches no vector by more than its largest singular value; call that of $w_h$
# $\sigma$. The slopes $1 - h^2$ are at most 1. So
# $$\|dh_{T-k}\| \le \sigma^k\, \|dh_T\| .$$
# If $\sigma < 1$ the gradient vanishes, whatever the input. If it is to explode, $\sigma$ must be above 1, which does
# not say that it will (Pascanu, Mikolov and Bengio, 2013).
#
# *The long run.* Leave tanh away, and $dh_{T-k} = dh_T\, w_h^k$. If $w_h = V \Lambda V^{-1}$ has eigenvalues
# $\lambda_i$, then $w_h^k = V \Lambda^k V^{-1}$: along each eigenvector there is a factor $\lambda_i^k$, and the
# largest $|\lambda_i|$ wins. That is the **spectral radius** $\rho$:
# $$\|dh_{T-k}\| \le \|V\|\, \|V^{-1}\|\; \rho^k\; \|dh_T\| .$$
# For an orthogonal matrix times $\rho$ the first two factors are 1 and $\sigma = \rho$: the figure's `turns`. If the
# eigenvectors are nearly parallel, those factors are huge, and the powers grow for a long time before they
# shrink: `shears`.
#
# *With tanh* each step also multiplies by slopes below 1. So $\rho = 1$ is not the border: with states of ordinary size
# the gradient vanishes at $\rho = 1$ and somewhat above it. You will measure where.
#
# Hochreiter (1991) found this, and Bengio, Simard and Frasconi (1994) showed that it is no accident of the weights: a
# network that keeps something in its state against noise has to have $J$s that shrink, so what it stores safely it can
# hardly learn to store. A gradient that vanishes does not make *all* learning fail. The gradient of a parameter is a
# sum over steps, in which the near ones are as large as ever: what is lost is the voice of the far ones.
#
# ### Truncation
#
# A text of a million characters is one sequence of a million steps; all its states would have to be kept for the
# backward pass. **Truncated backpropagation through time** cuts it into chunks of $k$ steps (Williams and Peng, 1990).
# The state goes on from chunk to chunk. The gradient stops where a chunk begins. So what is computed is not the
# gradient of the loss: whatever took effect across a cut is missing, in every batch, and no averaging brings it back.
#
# ### Sequences of unequal length
#
# Sequences of the lengths 3 and 5 go into one array with T = 5; behind the end of the first there is **padding**, whose
# values mean nothing. Where can they do harm?
#
# - *In the loss*, if its mean counts steps that do not exist. A **mask** `(N, T)` says which steps do.
# - *In the last state*: `hs[:, -1]` of the short sequence has run on over its padding. Its last state is `hs[0, 2]`.
# - *In the backward direction*, if the sequence is read from the end of the padding.
# - *Not* in the states before the end: these have not seen what comes later. And if no loss counts the padding, no
#   gradient comes out of it.
#
# ### The best possible loss
#
# Our network guesses the next character: at each step a softmax over the vocabulary, and the cross-entropy
# of the character that came. Divided by $\ln 2$ it is measured in **bits per character**. Can it become 0? Not if the
# text is not certain. Let $p$ be the true probabilities at some place and $q$ the guessed ones, and let the sums
# run over what is possible there, $p_i > 0$: the $p_i$ add up to 1, the $q_i$ to at most 1. From $\ln u \le u - 1$,
# $$\sum_i p_i \log_2 \frac{q_i}{p_i} \;\le\; \frac{1}{\ln 2} \sum_i p_i \Big(\frac{q_i}{p_i} - 1\Big) \;\le\; 0
# \quad\Rightarrow\quad -\sum_i p_i \log_2 q_i \;\ge\; -\sum_i p_i \log_2 p_i .$$
# On average nobody's loss is below that of the truth itself, the **entropy**; its mean over all places is the **entropy
# rate** of the source (Shannon, 1948). For English it can only be estimated. For the language below it is computed from
# the grammar.

# %% [markdown]
# ## From scratch
#
# Eleven functions. Those on sequences may call those on steps.

# %% [markdown] about="rnn_step_forward"
# ### One step
#
# `rnn_step_forward(x, h, w_x, w_h, b) -> h`: `x (N, D)`, `h (N, H)`, `w_x (H, D)`, `w_h (H, H)`, `b (H,)`; the new
# state `(N, H)`, $\tanh(x\, w_x^\top + h\, w_h^\top + b)$.
#
# By hand, one input, two units: `x = [1]`, `h = [1, −1]`, `w_x = [[1], [2]]`, `w_h = [[1, 2], [0, 1]]`, `b = [0.5,
# −1]`. From x come [1, 2]; from h [1 − 2, −1] = [−1, −1]; with the bias z = [0.5, 0]. The new state is [tanh 0.5, 0] =
# [0.462, 0].

# %%
x, h, b = np.array([[1.0]]), np.array([[1.0, -1]]), np.array([0.5, -1])
w_x, w_h = np.array([[1.0], [2]]), np.array([[1.0, 2], [0, 1]])
np.testing.assert_allclose(reference("rnn_step_forward")(x, h, w_x, w_h, b), [[0.462, 0]], atol=1e-3)


# %% exercise="rnn_step_forward"
def rnn_step_forward(x, h, w_x, w_h, b):
    """x (N, D), h (N, H), w_x (H, D), w_h (H, H), b (H,) -> the new h (N, H)"""
    ### BEGIN SOLUTION
    return np.tanh(x @ w_x.T + h @ w_h.T + b)
    ### END SOLUTION


# %% check="rnn_step_forward"
check(rnn_step_forward)

# %% [markdown] about="rnn_step_backward"
# ### One step, backwards
#
# `rnn_step_backward(dh, x, h, w_x, w_h, b) -> dx, dh, dw_x, dw_h, db`. The `dh` that you are given belongs to the new
# state, the one you return to the state that came in. Both are `(N, H)`.
#
# By hand, the step from before and `dh = [1, 2]`: the slopes are 1 − 0.462² = 0.786 and 1, so dz = [0.786, 2]. `dx` =
# 0.786 · 1 + 2 · 2 = 4.786. Back to h: [0.786 · 1 + 2 · 0, 0.786 · 2 + 2 · 1] = [0.786, 3.573]. `dw_h`, rows for dz and
# columns for the old h: [[0.786, −0.786], [2, −2]].

# %%
dx, dh, dw_x, dw_h, db = reference("rnn_step_backward")(np.array([[1.0, 2]]), x, h, w_x, w_h, b)
np.testing.assert_allclose([*dx[0], *dh[0]], [4.786, 0.786, 3.573], atol=1e-3)
np.testing.assert_allclose(dw_h, [[0.786, -0.786], [2, -2]], atol=1e-3)


# %% exercise="rnn_step_backward"
def rnn_step_backward(dh, x, h, w_x, w_h, b):
    """dh (N, H), x (N, D), h (N, H), w_x (H, D), w_h (H, H), b (H,) -> dx, dh (of the old h), dw_x, dw_h, db"""
    ### BEGIN SOLUTION
    dz = dh * (1 - rnn_step_forward(x, h, w_x, w_h, b) ** 2)
    return dz @ w_x, dz @ w_h, dz.T @ x, dz.T @ h, dz.sum(axis=0)
    ### END SOLUTION


# %% check="rnn_step_backward"
check(rnn_step_backward)

# %% [markdown] about="rnn_forward"
# ### All steps
#
# `rnn_forward(x, h0, w_x, w_h, b) -> hs`: `x (N, T, D)`, `h0 (N, H)`, and `hs (N, T, H)`, the state after each step.
#
# By hand, one unit, `x` = 1, then 0; `h0` = 0, `w_x` = 1, `w_h` = −1, `b` = 0. First step: tanh 1 = 0.762. Second:
# tanh(−0.762) = −0.642. `hs` = 0.762, −0.642.

# %%
two = np.array([1.0, 0]).reshape(1, 2, 1), np.zeros((1, 1)), np.ones((1, 1)), -np.ones((1, 1)), np.zeros(1)
np.testing.assert_allclose(reference("rnn_forward")(*two).ravel(), [0.762, -0.642], atol=1e-3)


# %% exercise="rnn_forward"
def rnn_forward(x, h0, w_x, w_h, b):
    """x (N, T, D), h0 (N, H), w_x (H, D), w_h (H, H), b (H,) -> hs (N, T, H)"""
    ### BEGIN SOLUTION
    hs = np.empty((*x.shape[:2], len(b)))
    h = h0
    for t in range(x.shape[1]):
        h = hs[:, t] = rnn_step_forward(x[:, t], h, w_x, w_h, b)
    return hs
    ### END SOLUTION


# %% check="rnn_forward"
check(rnn_forward)

# %% [markdown] about="rnn_backward"
# ### Backpropagation through time
#
# `rnn_backward(dhs, x, h0, w_x, w_h, b) -> dx, dh0, dw_x, dw_h, db`: `dhs (N, T, H)` holds an upstream gradient for the
# output of every step.
#
# By hand, the two steps from before with `dhs` = 0, then 1. Second step: dz = 1 · (1 − 0.642²) = 0.588, so dx = 0.588,
# its share of `dw_h` is 0.588 · 0.762 = 0.448, and back go 0.588 · (−1) = −0.588. First step: 0 + (−0.588) arrives, dz
# = −0.588 · (1 − 0.762²) = −0.247. `dx` = −0.247, 0.588; `dw_x` = −0.247 · 1 + 0.588 · 0 = −0.247; `dw_h` = 0.448, as
# the first step met $h_0 = 0$; `db` = 0.341; `dh0` = 0.247.

# %%
dhs = np.array([0.0, 1]).reshape(1, 2, 1)
found = [grad.ravel() for grad in reference("rnn_backward")(dhs, *two)]
np.testing.assert_allclose(np.concatenate(found), [-0.247, 0.588, 0.247, -0.247, 0.448, 0.341], atol=1e-3)


# %% exercise="rnn_backward"
def rnn_backward(dhs, x, h0, w_x, w_h, b):
    """dhs (N, T, H), x (N, T, D), h0 (N, H), w_x (H, D), w_h (H, H), b (H,) -> dx, dh0, dw_x, dw_h, db"""
    ### BEGIN SOLUTION
    hs = rnn_forward(x, h0, w_x, w_h, b)
    dx, dh = np.empty_like(x), np.zeros_like(h0)
    sums = np.zeros_like(w_x), np.zeros_like(w_h), np.zeros_like(b)
    for t in reversed(range(x.shape[1])):
        before = hs[:, t - 1] if t > 0 else h0
        dx[:, t], dh, *grads = rnn_step_backward(dhs[:, t] + dh, x[:, t], before, w_x, w_h, b)
        for total, grad in zip(sums, grads, strict=True):
            total += grad
    return dx, dh, *sums
    ### END SOLUTION


# %% check="rnn_backward"
check(rnn_backward)

# %% [markdown]
# Your functions on one sequence of six steps. A pulse comes in at one step, a loss stands at one unit of one step. What
# is the last step at which dx can differ from 0? Move the loss before the pulse: which gradients are left, and why not
# `dw_h`?

# %%
widgets.rnn.pulses(rnn_forward, rnn_backward, reference("rnn_forward"), reference("rnn_backward"))

# %% [markdown] about="truncated_rnn_backward"
# ### Truncated
#
# `truncated_rnn_backward(dhs, x, h0, w_x, w_h, b, k) -> dx, dh0, dw_x, dw_h, db`: as `rnn_backward`, but the gradient
# crosses no border between chunks. The chunks have `k` steps, counted from the first step; the last one may be shorter.
# The states are those of one run over all steps.
#
# By hand, the two steps from before with `k` = 1: the second chunk gives dx = 0.588, `dw_h` = 0.448 and `db` = 0.588;
# the first one, whose own `dhs` is 0, gives nothing. `dx` = 0, 0.588, and `dh0` = 0.

# %%
found = [grad.ravel() for grad in reference("truncated_rnn_backward")(dhs, *two, 1)]
np.testing.assert_allclose(np.concatenate(found), [0, 0.588, 0, 0, 0.448, 0.588], atol=1e-3)


# %% exercise="truncated_rnn_backward"
def truncated_rnn_backward(dhs, x, h0, w_x, w_h, b, k):
    """dhs (N, T, H), x (N, T, D), h0 (N, H), w_x (H, D), w_h (H, H), b (H,), k -> dx, dh0, dw_x, dw_h, db"""
    ### BEGIN SOLUTION
    hs = rnn_forward(x, h0, w_x, w_h, b)
    chunks = []
    for s in range(0, x.shape[1], k):
        start = hs[:, s - 1] if s > 0 else h0
        chunks.append(rnn_backward(dhs[:, s : s + k], x[:, s : s + k], start, w_x, w_h, b))
    dx, dh0, dw_x, dw_h, db = zip(*chunks, strict=True)
    return np.concatenate(dx, axis=1), dh0[0], sum(dw_x), sum(dw_h), sum(db)
    ### END SOLUTION


# %% check="truncated_rnn_backward"
check(truncated_rnn_backward)

# %% [markdown] about="scale_spectral_radius"
# ### A matrix of a chosen spectral radius
#
# `scale_spectral_radius(w_h, radius) -> w`: the matrix `w_h (H, H)` times a number, so that its largest absolute
# eigenvalue is `radius`. `np.linalg.eigvals` gives the eigenvalues.
#
# By hand, `w_h = [[0, 2], [−2, 0]]`: its eigenvalues are 2i and −2i, both of size 2. With `radius` 1: `[[0, 1], [−1,
# 0]]`, a quarter turn.

# %%
turn = np.array([[0.0, 2], [-2, 0]])
np.testing.assert_allclose(reference("scale_spectral_radius")(turn, 1.0), [[0, 1], [-1, 0]])


# %% exercise="scale_spectral_radius"
def scale_spectral_radius(w_h, radius):
    """w_h (H, H), radius -> w (H, H)"""
    ### BEGIN SOLUTION
    return w_h * radius / np.abs(np.linalg.eigvals(w_h)).max()
    ### END SOLUTION


# %% check="scale_spectral_radius"
check(scale_spectral_radius)

# %% [markdown]
# Three functions for batches of unequal lengths, then both directions.

# %% [markdown] about="length_mask"
# ### Which steps exist
#
# `length_mask(lengths, t) -> mask (N, t)`: truth values, True where the sequence has that step. `lengths (N,)` are
# whole numbers; a length may be 0.
#
# By hand, lengths 2 and 3, `t` = 4: `[[True, True, False, False], [True, True, True, False]]`.

# %%
np.testing.assert_array_equal(reference("length_mask")(np.array([2, 3]), 4), [[1, 1, 0, 0], [1, 1, 1, 0]])


# %% exercise="length_mask"
def length_mask(lengths, t):
    """lengths (N,), t -> mask (N, t)"""
    ### BEGIN SOLUTION
    return np.arange(t) < np.asarray(lengths)[:, None]
    ### END SOLUTION


# %% check="length_mask"
check(length_mask)

# %% [markdown] about="masked_cross_entropy_forward"
# ### A loss that leaves the padding out
#
# `masked_cross_entropy_forward(logits, targets, mask) -> loss`: `logits (N, T, V)`, `targets (N, T)` whole numbers
# below V, `mask (N, T)`. The mean of the cross-entropy over all steps at which the mask is True; each of them counts
# the same, wherever it stands. Your `cross_entropy_forward(logits, targets)` of lesson 03 takes `(n, V)` and `(n,)`.
#
# By hand, one sequence of two steps, of which the second is padding; two classes: `logits = [[0, 0], [9, −9]]`,
# `targets = [1, 1]`. The first step costs ln 2 = 0.693. The second would cost 18. The loss is 0.693.

# %%
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
logits, targets, mask = np.array([[[0.0, 0], [9, -9]]]), np.array([[1, 1]]), np.array([[True, False]])
np.testing.assert_allclose(reference("masked_cross_entropy_forward")(logits, targets, mask), np.log(2))


# %% exercise="masked_cross_entropy_forward"
def masked_cross_entropy_forward(logits, targets, mask):
    """logits (N, T, V), targets (N, T), mask (N, T) -> loss ()"""
    ### BEGIN SOLUTION
    return cross_entropy_forward(logits[mask], targets[mask])
    ### END SOLUTION


# %% check="masked_cross_entropy_forward"
check(masked_cross_entropy_forward)

# %% [markdown] about="masked_cross_entropy_backward"
# ### Its gradient
#
# `masked_cross_entropy_backward(dloss, logits, targets, mask) -> dlogits (N, T, V)`, with
# `cross_entropy_backward(dloss, logits, targets)` of lesson 03.
#
# By hand, from before with `dloss` = 1: at the first step p − y = [0.5, −0.5], in the padding [0, 0].

# %%
dlogits = reference("masked_cross_entropy_backward")(1.0, logits, targets, mask)
np.testing.assert_allclose(dlogits, [[[0.5, -0.5], [0, 0]]])


# %% exercise="masked_cross_entropy_backward"
def masked_cross_entropy_backward(dloss, logits, targets, mask):
    """dloss (), logits (N, T, V), targets (N, T), mask (N, T) -> dlogits (N, T, V)"""
    ### BEGIN SOLUTION
    dlogits = np.zeros_like(logits)
    dlogits[mask] = cross_entropy_backward(dloss, logits[mask], targets[mask])
    return dlogits
    ### END SOLUTION


# %% check="masked_cross_entropy_backward"
check(masked_cross_entropy_backward)

# %% [markdown] about="reverse_sequences"
# ### Turned round, each within its length
#
# `reverse_sequences(x, lengths) -> y`: `x (N, T, D)`, `lengths (N,)`. Row n of `y` holds the first `lengths[n]` steps
# of row n in the opposite order, and behind them what stood there.
#
# By hand, D = 1, lengths 2 and 3: `[[1, 2, 9], [3, 4, 5]]` becomes `[[2, 1, 9], [5, 4, 3]]`.

# %%
rows, lengths = np.array([[1.0, 2, 9], [3, 4, 5]])[:, :, None], np.array([2, 3])
np.testing.assert_array_equal(reference("reverse_sequences")(rows, lengths)[..., 0], [[2, 1, 9], [5, 4, 3]])


# %% exercise="reverse_sequences"
def reverse_sequences(x, lengths):
    """x (N, T, D), lengths (N,) -> y (N, T, D)"""
    ### BEGIN SOLUTION
    y = x.copy()
    for n, length in enumerate(lengths):
        y[n, :length] = x[n, :length][::-1]
    return y
    ### END SOLUTION


# %% check="reverse_sequences"
check(reverse_sequences)

# %% [markdown] about="bidirectional_rnn_forward"
# ### Both directions
#
# Whoever may read a sentence to its end before answering can read it from both sides: two recurrent layers with weights
# of their own, one from the left, one from the right, whose states stand side by side (Schuster and Paliwal, 1997). For
# guessing the next character that is of no use: the answer would be in the question.
#
# `bidirectional_rnn_forward(x, lengths, h0, w_x, w_h, b, h0_r, w_x_r, w_h_r, b_r) -> hs (N, T, 2H)`: `x (N, T, D)`,
# `lengths (N,)`, at least 1. `hs[:, t, :H]` is the state of the first layer after step t. `hs[:, t, H:]` that of the
# second one (its parameters end in `_r`, for reverse), which begins at the last step of each sequence, with
# `h0_r`, and has come to step t. Behind the end of a sequence `hs` is 0.
#
# By hand, D = H = 1, all weights 1, biases and starts 0, one sequence of length 2 in three steps: `x` = 1, 0, padding.
# From the left: tanh 1 = 0.762, tanh 0.762 = 0.642. From the right: first step 2, tanh 0 = 0; then step 1, tanh(1 + 0)
# = 0.762. `hs` = [0.762, 0.762], [0.642, 0], [0, 0].

# %%
one = np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1)), np.zeros(1)
row = np.array([1.0, 0, 9]).reshape(1, 3, 1)
both = reference("bidirectional_rnn_forward")(row, np.array([2]), *one, *one)
np.testing.assert_allclose(both[0], [[0.762, 0.762], [0.642, 0], [0, 0]], atol=1e-3)


# %% exercise="bidirectional_rnn_forward"
def bidirectional_rnn_forward(x, lengths, h0, w_x, w_h, b, h0_r, w_x_r, w_h_r, b_r):
    """x (N, T, D), lengths (N,), h0 (N, H), w_x, w_h, b, and the same for the other direction -> hs (N, T, 2H)"""
    ### BEGIN SOLUTION
    first = rnn_forward(x, h0, w_x, w_h, b)
    second = rnn_forward(reverse_sequences(x, lengths), h0_r, w_x_r, w_h_r, b_r)
    hs = np.concatenate([first, reverse_sequences(second, lengths)], axis=2)
    return hs * length_mask(lengths, x.shape[1])[:, :, None]
    ### END SOLUTION


# %% check="bidirectional_rnn_forward"
check(bidirectional_rnn_forward)

# %% [markdown]
# Your function on three sequences. Fill the padding with other numbers: nothing may change. Then shorten the first
# sequence: which of its states change from the left, which from the right?

# %%
widgets.rnn.padded(bidirectional_rnn_forward, reference("bidirectional_rnn_forward"))

# %% [markdown]
# ## Against a reference
#
# Three witnesses for all five gradients: yours, finite differences, PyTorch.

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(16)
given = {
    "x": rng.normal(size=(3, 6, 2)), "h0": rng.normal(size=(3, 4)), "w_x": rng.normal(size=(4, 2)),
    "w_h": scale_spectral_radius(rng.normal(size=(4, 4)), 1.0), "b": rng.normal(size=4),
}
dhs = rng.normal(size=(3, 6, 4))


def loss_at(name):
    """One of the five -> the loss whose upstream gradient is dhs."""
    return lambda value: (dhs * rnn_forward(**(given | {name: value}))).sum()


# %%
yours, right = (f(dhs, *given.values()) for f in (rnn_backward, reference("rnn_backward")))
nudged = [numerical_gradient(loss_at(name), value) for name, value in given.items()]
witnesses = zip(given, yours, nudged, right, strict=True)
plots.gradient_check({f"d{name}": grads for name, *grads in witnesses})

# %% [markdown]
# The truncated gradient is not the gradient of the loss. How far is it from it? 24 steps, half the sum of all squared
# states for a loss (so that the upstream gradient is `hs` itself), chunks of 1 to 24; what is compared is the gradient
# of `w_h`. Then: does anything come out of the padding?

# %% tags=["nbval-check-output"]
longer = rng.normal(size=(16, 24, 2)) / 2, np.zeros((16, 4)), *list(given.values())[2:4], np.zeros(4)
upstream = rnn_forward(*longer)
exact = rnn_backward(upstream, *longer)[3]
for k in (1, 2, 4, 8, 12, 24):
    part = truncated_rnn_backward(upstream, *longer, k)[3]
    print(f"chunks of {k:>2}: off by {np.linalg.norm(part - exact) / np.linalg.norm(exact):.0%} of its norm")

# %% tags=["nbval-check-output"]
mask = length_mask(np.array([6, 2, 4]), 6)[:, :, None]
dx = rnn_backward(dhs * mask, *given.values())[0]
print("gradient at steps that exist:", np.abs(dx * mask).sum(axis=(1, 2)).round(1))
print("gradient in the padding:     ", np.abs(dx * ~mask).sum(axis=(1, 2)))

# %% [markdown]
# And what a check says of the fault that costs the most time, because everything runs and something is learned:

# %% tags=["nbval-check-output"]
def forgetful(dhs, x, h0, w_x, w_h, b):
    before = np.concatenate([h0[:, None], rnn_forward(x, h0, w_x, w_h, b)[:, :-1]], axis=1)
    steps = [rnn_step_backward(dhs[:, t], x[:, t], before[:, t], w_x, w_h, b) for t in range(x.shape[1])]
    dx, dh, dw_x, dw_h, db = zip(*steps, strict=True)
    return np.stack(dx, axis=1), dh[0], sum(dw_x), sum(dw_h), sum(db)


print(examine(forgetful, "rnn_backward").mistake)

# %% [markdown]
# ## In PyTorch
#
# `nn.RNN(D, H, batch_first=True)` differs from yours in three things. Without `batch_first=True` it expects `(T, N,
# D)`. It returns two things, all states and the last one. And it has two biases, `bias_ih` and `bias_hh`, which are
# added, so one of them is superfluous: they come from cuDNN's interface, where other cells need both (lesson 17). All
# its parameters start uniformly between $\pm 1/\sqrt H$. The endings `_l0` count layers: several can be stacked
# (`num_layers`), each reading the states of the one below.

# %% [markdown] about="RNN"
# ### The recurrent layer as a module
#
# `RNN(input_size, hidden_size)`, with the four parameters of `nn.RNN` under its names, so that its `state_dict` fits:
# `weight_ih_l0 (hidden_size, input_size)`, `weight_hh_l0 (hidden_size, hidden_size)`, `bias_ih_l0` and `bias_hh_l0`
# `(hidden_size,)`. Let them start as PyTorch's do (the check does not look: it sets values of its own).
# `forward(x, h0) -> hs`: `x (N, T, input_size)`, `h0 (N, hidden_size)`, `hs (N, T, hidden_size)`.
#
# By hand, all parameters 0: then every state is tanh 0 = 0, whatever comes in.


# %% exercise="RNN"
class RNN(nn.Module):
    """x (N, T, input_size), h0 (N, hidden_size) -> hs (N, T, hidden_size)

    Two methods: __init__ makes weight_ih_l0, weight_hh_l0, bias_ih_l0 and bias_hh_l0, forward(self, x, h0) loops.
    """

    def __init__(self, input_size, hidden_size):
        super().__init__()
        ### BEGIN SOLUTION
        def start(*shape):
            return nn.Parameter(torch.empty(shape).uniform_(-(hidden_size**-0.5), hidden_size**-0.5))

        self.weight_ih_l0, self.weight_hh_l0 = start(hidden_size, input_size), start(hidden_size, hidden_size)
        self.bias_ih_l0, self.bias_hh_l0 = start(hidden_size), start(hidden_size)

    def forward(self, x, h0):
        h, hs = h0, []
        for x_t in x.unbind(dim=1):
            come = F.linear(x_t, self.weight_ih_l0, self.bias_ih_l0)
            h = torch.tanh(come + F.linear(h, self.weight_hh_l0, self.bias_hh_l0))
            hs.append(h)
        return torch.stack(hs, dim=1)
        ### END SOLUTION

# %% check="RNN"
check(RNN)

# %% [markdown]
# Carried over from the built-in: the same numbers; and `.detach()`, which hands on a state without its history, is
# truncation.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
built_in, own = nn.RNN(2, 4, batch_first=True).double(), RNN(2, 4).double()
own.load_state_dict(built_in.state_dict())
x_torch, h0_torch = torch.tensor(given["x"]), torch.tensor(given["h0"])
print("same states: ", torch.allclose(own(x_torch, h0_torch), built_in(x_torch, h0_torch[None])[0]))
h, loss = h0_torch, 0.0
for part, upstream in zip(x_torch.split(2, dim=1), torch.tensor(dhs).split(2, dim=1), strict=True):
    hs = own(part, h)
    loss, h = loss + (hs * upstream).sum(), hs[:, -1].detach()
loss.backward()
w_x, w_h, b_x, b_h = (p.detach().numpy() for p in own.parameters())
cut = truncated_rnn_backward(dhs, given["x"], given["h0"], w_x, w_h, b_x + b_h, 2)
print("detach = cut:", np.allclose(own.weight_hh_l0.grad.numpy(), cut[3]))

# %% [markdown]
# PyTorch leaves out padding by *packing*: `pack_padded_sequence` keeps the steps that exist, and the layer runs on
# fewer and fewer sequences as they end. `enforce_sorted=False` spares you sorting them by length. In both directions
# it gives what yours gives:

# %% tags=["nbval-check-output"]
pair, lengths = nn.RNN(2, 4, batch_first=True, bidirectional=True).double(), np.array([6, 2, 4])
packed = pack_padded_sequence(x_torch, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
hs_torch, _ = pad_packed_sequence(pair(packed)[0], batch_first=True)
weights = [p.detach().numpy() for p in pair.parameters()]
start = np.zeros((3, 4))
ways = [(start, w_x, w_h, b_x + b_h) for w_x, w_h, b_x, b_h in (weights[:4], weights[4:])]
hs_own = bidirectional_rnn_forward(given["x"], lengths, *ways[0], *ways[1])
print("steps in the pack:", len(packed.data), "of", x_torch.shape[0] * x_torch.shape[1])
print("same states:      ", np.allclose(hs_own, hs_torch.detach().numpy()))

# %% [markdown]
# ## At work
#
# ### The gradient on its way
#
# First the claims about the spectral radius. Random matrices of 32 units are scaled to a radius, and the loss stands
# at the last of 40 steps. With `x` and `h0` at 0 all states are 0 and all slopes 1: your `rnn_backward` is then that
# of the network without tanh. With random input it is the real one. `dx` at every step is $dz_t\, w_x$; with $w_x$ the
# identity it is $dz_t$ itself.

# %%
RADII, UNITS, STEPS = (0.8, 1.0, 1.25, 1.6, 2.0), 32, 40


def norms_back(radius, seed, size):
    """The gradient's norm 0, 1, … 39 steps before the loss, for input of this size."""
    rng = np.random.default_rng(seed)
    w_h = scale_spectral_radius(rng.normal(size=(UNITS, UNITS)), radius)
    x, dhs = size * rng.normal(size=(1, STEPS, UNITS)), np.zeros((1, STEPS, UNITS))
    dhs[0, -1] = rng.normal(size=UNITS) / UNITS**0.5
    dx = rnn_backward(dhs, x, np.zeros((1, UNITS)), np.eye(UNITS), w_h, np.zeros(UNITS))[0]
    return np.linalg.norm(dx[0], axis=1)[::-1]


measured = {
    title: {radius: np.array([norms_back(radius, seed, size) for seed in range(10)]) for radius in RADII}
    for title, size in {"slopes 1: no input": 0.0, "tanh: random input": 0.5}.items()
}

# %%
fig, axes = plots.figure(7.5, 2.8, 2)
for ax, (title, norms) in zip(axes, measured.items(), strict=True):
    for k, (radius, runs) in enumerate(norms.items()):
        ax.plot(np.exp(np.log(runs).mean(axis=0)), color=f"C{k}", label=f"radius {radius}")
        ax.plot(radius ** np.arange(STEPS), ":", color=f"C{k}")
    ax.set(yscale="log", title=title, xlabel="steps back", ylim=(1e-9, 1e12))
axes[0].set_ylabel("gradient norm")
axes[1].legend(fontsize=8, loc="upper left", ncols=2)
plots.show(
    fig,
    alt="Norm of the gradient against steps back for five spectral radii, logarithmic. Left, without slopes, the lines "
    "run along the powers of the radius; right, with tanh, four fall, and that of radius 2 stays about level.",
    caption="Ten random matrices each, geometric mean; dotted, the radius to the power of the steps. Left, after a "
    "loss in the first steps, they run beside it. Right, tanh pulls all of them down; at 2.0 the norm about stays.",
)
for title, norms in measured.items():
    slopes = {radius: np.log(runs[:, 39] / runs[:, 19]).mean() / 20 for radius, runs in norms.items()}
    print(f"{title:<19} factor a step:", "  ".join(f"{r}: {np.exp(s):.2f}" for r, s in slopes.items()))

# %% [markdown]
# Without slopes the factor a step is the radius, to within two per cent. With tanh and this input it is 0.73 at radius
# 1, and the border between vanishing and exploding lies between 1.6 and 2. That is no recipe: another size of input,
# other biases, and it lies elsewhere.
#
# ### What truncation costs
#
# A task whose memory is known: signs ±1 come in, and at each step the sign of five steps ago is asked for. Chunks of
# $k$ steps, each network trained by `truncated_rnn_backward` in the same way, three seeds. The state is never cut; it
# is *allowed* to remember.

# %%
widgets.rnn.guess_chunk()

# %%
bce_forward, bce_backward = mine("bce_with_logits_forward"), mine("bce_with_logits_backward")
adam_step, momentum_step, clip_grad_norm = mine("adam_step"), mine("momentum_step"), mine("clip_grad_norm")
LAG, LENGTH, HIDDEN = 5, 16, 12


def lag_network(seed):
    """w_x, w_h, b, w_out, b_out"""
    rng = np.random.default_rng(seed)
    w_h = scale_spectral_radius(rng.normal(size=(HIDDEN, HIDDEN)), 0.9)
    out = rng.normal(0, HIDDEN**-0.5, (1, HIDDEN))
    return [rng.normal(0, 0.5, (HIDDEN, 1)), w_h, np.zeros(HIDDEN), out, np.zeros(1)]


def lag_gradients(params, x, k):
    """The loss on a batch of signs x (N, T, 1) and its gradients, truncated to chunks of k."""
    w_x, w_h, b, w_out, b_out = params
    h0 = np.zeros((len(x), HIDDEN))
    hs = rnn_forward(x, h0, w_x, w_h, b)
    logits, targets = hs[:, LAG:] @ w_out.T + b_out, (x[:, :-LAG] > 0).astype(float)
    dlogits, dhs = bce_backward(1.0, logits, targets), np.zeros_like(hs)
    dhs[:, LAG:] = dlogits @ w_out
    _, _, *grads = truncated_rnn_backward(dhs, x, h0, w_x, w_h, b, k)
    grads += [np.tensordot(dlogits, hs[:, LAG:], axes=((0, 1), (0, 1))), dlogits.sum(axis=(0, 1))]
    return bce_forward(logits, targets), grads


# %%
def train_lag(seed, k, step, steps, max_norm=np.inf):
    """Losses and gradient norms of a training run; `step(params, grads, state, t)` changes params and state."""
    params, rng = lag_network(seed), np.random.default_rng(100 + seed)
    state, history = [[np.zeros_like(p), np.zeros_like(p)] for p in params], []
    for t in range(1, steps + 1):
        loss, grads = lag_gradients(params, rng.choice([-1.0, 1.0], size=(32, LENGTH, 1)), k)
        grads, norm = clip_grad_norm(grads, max_norm)
        step(params, grads, state, t)
        history.append((loss, norm))
    return np.array(history).T


def adam(params, grads, state, t):
    for k, grad in enumerate(grads):
        params[k], *state[k] = adam_step(params[k], grad, *state[k], t, 0.01)


# %%
ks, seeds, steps = (3, 5, 6, 16), range(1 if plots.fast() else 3), 5 if plots.fast() else 200
ends = {}
with plots.Training(len(ks), unit="length of chunk") as run:
    for k in ks:
        ends[k] = [train_lag(seed, k, adam, steps)[0, -20:].mean() for seed in seeds]
        run.log()
for k, losses in ends.items():
    print(f"chunks of {k:>2}: loss", " ".join(f"{loss:.3f}" for loss in losses))

# %% [markdown]
# With chunks of 5 or fewer no run comes below 0.49 (guessing: $\ln 2 = 0.693$), with 6 all are below 0.17, and with 16
# none is above 0.005. That the losses of 5 and 3 are not all those of guessing has another reason: random recurrent
# weights keep a trace of what came in, and the last layer finds it. Networks that live on this alone, their recurrent
# weights never trained, are called echo state networks (Jaeger, 2001).
#
# ### What clipping does
#
# The same task, untruncated, with plain momentum at two learning rates, five seeds. Once the gradients are taken as
# they are, once clipped to a common norm of 0.25 (lesson 05). Which runs would you expect to differ?

# %%
def momentum_at(lr):
    def step(params, grads, state, t):
        for k, grad in enumerate(grads):
            params[k], state[k][0] = momentum_step(params[k], grad, state[k][0], lr)

    return step


rates, seeds, steps = (0.3, 1.0), range(1 if plots.fast() else 5), 5 if plots.fast() else 150
clipped = {}
with plots.Training(2 * len(rates), unit="setting") as run:
    for lr in rates:
        for max_norm in (np.inf, 0.25):
            clipped[lr, max_norm] = [train_lag(seed, LENGTH, momentum_at(lr), steps, max_norm) for seed in seeds]
            run.log()

# %%
fig, axes = plots.figure(7, 2.6, 2)
for ax, lr in zip(axes, rates, strict=True):
    for max_norm, colour in ((np.inf, "C5"), (0.25, "C2")):
        for k, (losses, _) in enumerate(clipped[lr, max_norm]):
            label = ("as they are", "clipped")[max_norm == 0.25] if k == 0 else None
            ax.plot(np.arange(2, len(losses), 5), losses.reshape(-1, 5).mean(axis=1), color=colour, lw=1, label=label)
    ax.set(title=f"learning rate {lr}", xlabel="training step", ylim=(0, 1.5))
axes[0].set_ylabel("loss")
axes[0].legend(fontsize=8)
plots.show(
    fig,
    alt="Loss against training steps at two learning rates. At 0.3 both kinds of runs fall alike. At 1.0 the "
    "unclipped ones jump about and the clipped ones fall.",
    caption="Five seeds each, the mean of every five steps. At the smaller learning rate clipping changes next to "
    "nothing; at 1.0 it decides.",
)
for (lr, max_norm), runs in clipped.items():
    told = " ".join(f"{losses[-20:].mean():.2f}" for losses, _ in runs)
    norms = np.concatenate([norms for _, norms in runs])
    told += f"   above 0.25: {(norms > 0.25).mean():.0%} of the norms, the largest {norms.max():.1f}"
    print(f"lr {lr}, {'clipped  ' if max_norm < 1 else 'unclipped'}: {told}")

# %% [markdown]
# At 0.3 all ten runs solve the task, and clipping hardly matters. At 1.0 no unclipped run does, after gradients of up
# to 92; all clipped ones do. So clipping is not needed here: a smaller learning rate does it as well. What it buys is
# that a rate which is right for ordinary steps survives the extraordinary ones.
#
# ### A language whose entropy is known
#
# `course/data/text.py` writes sentences by a small grammar with given probabilities:

# %% tags=["nbval-check-output"]
train_sentences, test_sentences = text.sentences(4000, seed=0), text.sentences(300, seed=1)
print("".join(train_sentences[:6]))
print(len(text.CHARACTERS), "characters, among them the space, the full stop and the line break")
print(f"entropy rate: {text.ENTROPY_RATE:.3f} bits per character; log2 of 27 is {np.log2(27):.2f}")

# %% [markdown]
# The subject decides over any distance whether the verb ends in *s*, and which pronoun may follow: *two dogs near the
# king sleep*. `text.probabilities` gives, at every place, the true probabilities of the next character. What are
# memories of fixed length worth here? Count, in the training sentences, which character follows the last $k$ ones.

# %%
def counted_bits(k):
    """Bits per character on the test sentences of a table over the last k characters."""
    table = defaultdict(Counter)
    for sentence in train_sentences:
        for t, character in enumerate("\n" * k + sentence):
            if t >= k:
                table[("\n" * k + sentence)[t - k : t]][character] += 1
    bits = []
    for sentence in test_sentences:
        for t, character in enumerate(sentence):
            seen = table[("\n" * k + sentence)[t : t + k]]
            bits.append(-np.log2((seen[character] + 0.01) / (seen.total() + 0.27)))
    return np.mean(bits)


joined = "".join(test_sentences)
true_bits = -np.log2(text.probabilities(joined)[np.arange(len(joined)), text.encode(joined)])
baselines = {k: counted_bits(k) for k in (0, 1, 2, 4, 8)}

# %% tags=["nbval-check-output"]
for k, bits in baselines.items():
    print(f"the last {k} characters known: {bits:.2f} bits per character")
print(f"the truth, on the same sentences: {true_bits.mean():.3f}")

# %% [markdown]
# (With more than a few characters a table has too many rows to fill: at 8 it is hardly better than at 4.)
#
# Now the network: each character becomes a vector (lesson 15), the recurrent layer reads them, a linear layer says what
# comes next. The first guess is made from the line break that ended the sentence before.

# %%
embedding_forward, embedding_backward = mine("embedding_forward"), mine("embedding_backward")
linear_backward = mine("linear_backward_nd")
UNITS = 64


def batch_of(sentences):
    """What is seen x, what is to be guessed y, and the mask of the steps that exist: all (N, T)."""
    lengths = np.array([len(sentence) for sentence in sentences])
    y = np.stack([np.pad(text.encode(s), (0, lengths.max() - len(s))) for s in sentences])
    x = np.pad(y[:, :-1], ((0, 0), (1, 0)))  # character 0 is the line break
    return x, y, length_mask(lengths, lengths.max())


def language_network(seed):
    rng = np.random.default_rng(seed)
    shapes = {"table": (27, 16), "w_x": (UNITS, 16), "w_h": (UNITS, UNITS), "w_out": (27, UNITS)}
    params = {name: rng.normal(0, shape[1] ** -0.5, shape) for name, shape in shapes.items()}
    return params | {"b": np.zeros(UNITS), "b_out": np.zeros(27)}


# %%
def read(p, x):
    """The vectors of the characters, the states, the logits of what comes next."""
    e = embedding_forward(x, p["table"])
    hs = rnn_forward(e, np.zeros((len(x), UNITS)), p["w_x"], p["w_h"], p["b"])
    return e, hs, hs @ p["w_out"].T + p["b_out"]


def language_gradients(p, x, y, mask):
    """The loss and a gradient for each parameter."""
    e, hs, logits = read(p, x)
    dlogits = masked_cross_entropy_backward(1.0, logits, y, mask)
    grads = {}
    dhs, grads["w_out"], grads["b_out"] = linear_backward(dlogits, hs, p["w_out"], p["b_out"])
    de, _, *rest = rnn_backward(dhs, e, np.zeros((len(x), UNITS)), p["w_x"], p["w_h"], p["b"])
    grads |= dict(zip(("w_x", "w_h", "b"), rest, strict=True))
    grads["table"] = embedding_backward(de, x, p["table"])
    return masked_cross_entropy_forward(logits, y, mask), grads


# %% [markdown]
# Sentences of like length go into one batch. How much padding does that spare?

# %% tags=["nbval-check-output"]
def padding(batches):
    masks = [batch_of(batch)[2] for batch in batches]
    return 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)


as_they_come = [train_sentences[k : k + 32] for k in range(0, 4000, 32)]
by_length = sorted(train_sentences, key=len)
by_length = [by_length[k : k + 32] for k in range(0, 4000, 32)]
print(f"padding: {padding(as_they_come):.0%} as they come, {padding(by_length):.1%} sorted by length")

# %%
test_batch = batch_of(test_sentences)


def test_bits(p):
    return masked_cross_entropy_forward(read(p, test_batch[0])[2], *test_batch[1:]) / np.log(2)


params, rng = language_network(0), np.random.default_rng(0)
state = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in params.items()}
steps = 20 if plots.fast() else 400
with plots.Training(10, "training bits", "test bits", "entropy rate in bits", unit="tenth") as run:
    losses = []
    for t in range(1, steps + 1):
        loss, grads = language_gradients(params, *batch_of(by_length[rng.integers(len(by_length))]))
        clipped_grads, _ = clip_grad_norm(list(grads.values()), 1.0)
        lr = 0.01 * min(1, 2 * (1 - t / steps) + 0.02)
        for name, grad in zip(grads, clipped_grads, strict=True):
            params[name], *state[name] = adam_step(params[name], grad, *state[name], t, lr)
        losses.append(loss / np.log(2))
        if t % (steps // 10) == 0:
            run.log(np.mean(losses[-steps // 10 :]), test_bits(params), text.ENTROPY_RATE)

# %%
learned = test_bits(params)
print(f"test sentences: {learned:.3f} bits per character, the truth {true_bits.mean():.3f}")
print(f"above the truth: {learned - true_bits.mean():.3f} bits; the best table above: {min(baselines.values()):.3f}")

# %% [markdown]
# Of the 0.602 bits 0.547 are the language's own and nobody's fault. What is left to learn is the rest, 0.055 bits.
# Where the best possible is not known, nobody can say how much that is.
#
# ### Let it write
#
# Draw a character from what it says, feed it in, and so on until the line break. Since the grammar is known, each
# sentence can be judged: does it belong to the language?

# %%
softmax_forward = mine("softmax_forward")


def write(p, rng):
    """One sentence, character after character."""
    h, written = np.zeros((1, UNITS)), [0]
    while len(written) < 150 and (len(written) == 1 or written[-1] != 0):
        h = rnn_step_forward(embedding_forward(np.array(written[-1:]), p["table"]), h, p["w_x"], p["w_h"], p["b"])
        chances = softmax_forward(h @ p["w_out"].T + p["b_out"])[0]
        written.append(rng.choice(27, p=chances / chances.sum()))
    return text.decode(written[1:])


def belongs(sentence):
    try:
        return sentence.endswith("\n") and len(text.probabilities(sentence)) > 0
    except ValueError:
        return False


rng = np.random.default_rng(7)
own_sentences = [write(params, rng) for _ in range(5 if plots.fast() else 200)]

# %%
right = [belongs(sentence) for sentence in own_sentences]
print(f"{np.mean(right):.0%} of {len(right)} sentences belong to the language")
print("right:", *[s.strip() for s, ok in zip(own_sentences, right, strict=True) if ok][:3], sep="\n   ")
print("wrong:", *[s.strip() for s, ok in zip(own_sentences, right, strict=True) if not ok][:5], sep="\n   ")

# %% [markdown]
# More than half of its sentences are flawless. Look at the wrong ones: some words are blends of two, and now and then
# *two big boys sees* something. That second fault deserves a closer look.

# %% [markdown]
# ## Look inside
#
# ### Reading along
#
# Sentences that it has not seen. Move `place`: what does the model expect next, what does the truth? Colour by the bits
# of either: where is the text expensive, where does the model pay more than it must? Then by units: can you find one
# that knows where a word ends, one that knows how far the sentence is?

# %%
shown = [s for s in test_sentences if 30 < len(s) < 75][:6]
states = [read(params, batch_of([s])[0])[1][0] for s in shown]
guesses = [softmax_forward(hs @ params["w_out"].T + params["b_out"]) for hs in states]
widgets.rnn.reader(shown, states, guesses, [text.probabilities(s) for s in shown], text.CHARACTERS)

# %% [markdown]
# ### Does it remember its subject?
#
# After the stem of a verb the truth is certain: *s* for one, none for several. `text.agreements` names these places
# and says how many characters ago the subject's noun ended. Between them stand other nouns, of either number.
#
# The verbs are sorted by that distance. How often is the right ending the likelier one? And is the number of the
# subject in the state at all? To see that, a linear probe (lesson 11) is fitted on the states of other sentences:
# least squares, +1 for one subject, −1 for several. For each distance the share of the commoner ending is what
# guessing gets. Last, how often the answer agrees with the noun directly before the verb, be it the subject or not.


# %%
def at_the_verbs(p, sentences):
    """For each verb: the state before its ending; subject's number, last noun's, the answer's, as ±1; the distance."""
    x, _, _ = batch_of(sentences)
    _, hs, logits = read(p, x)
    places = [(n, *pair) for n, s in enumerate(sentences) for pair in zip(*text.agreements(s), strict=True)]
    rows, places, distances = np.array(places).T
    ending = text.CHARACTERS.index("s")
    subjects = np.array([sentences[n][t] == "s" for n, t in zip(rows, places, strict=True)])
    nouns = np.array([not sentences[n][:t].split()[-2].endswith("s") for n, t in zip(rows, places, strict=True)])
    answers = softmax_forward(logits[rows, places])[:, ending] > 0.5
    return hs[rows, places], *(np.where(one, 1, -1) for one in (subjects, nouns, answers)), distances


def probed(fitted, tested):
    """The share of subjects' numbers that a probe reads off the states."""
    (states, numbers), (others, truth) = fitted, tested
    w = np.linalg.solve(states.T @ states + 0.1 * np.eye(UNITS), states.T @ numbers)
    return ((others @ w > 0) == (truth > 0)).mean()


# %%
many = 600 if plots.fast() else 2500
fitted, tested = (at_the_verbs(params, text.sentences(many, seed)) for seed in (3, 2))
print("characters ago   verbs   right   read off the state   guessing   as the last noun")
for low, high in ((0, 10), (10, 20), (20, 35), (35, 200)):
    near, (states, subjects, nouns, answers, _) = (
        [value[(given[4] > low) & (given[4] <= high)] for value in given] for given in (fitted, tested)
    )
    right, last = (answers == subjects).mean(), (answers == nouns).mean()
    commoner = max((subjects > 0).mean(), (subjects < 0).mean())
    read_off = probed(near[:2], (states, subjects))
    print(f"{low + 1:>5} to {high:<6} {len(states):>7} {right:>7.0%} {read_off:>15.0%} {commoner:>14.0%} {last:>14.0%}")

# %% [markdown]
# Next to its subject, every verb is right. Beyond, the network is as good as guessing, and not because it fails to use
# what it knows: the probe cannot read the number off the state either. (A linear probe, that is.) What it has learned
# is another rule, *agree with the noun before the verb*. Wherever the subject stands there, and that is at two verbs
# out of three, the two rules say the same. The loss hardly notices the difference: verbs with distant subjects are one
# character in a hundred. Is it a matter of time? Set `steps = 1500` above, and see.
#
# The noun in between is called an *attractor*; people fall for it too (Bock and Miller, 1991). Linzen, Dupoux and
# Goldberg (2016) put this question to LSTMs that read English.

# %% [markdown]
# ### How far back does the verb look?
#
# The loss of one character, the verb's ending, far from its subject: how large is its gradient at the vectors of the
# characters before? In the network as it was at the start, and as it is now.


# %%
def reach(p, sentences, back):
    """The gradient's norm 0 to `back` characters before the last verb's ending, in units of that at distance 0."""
    x, y, _ = batch_of(sentences)
    e, _, logits = read(p, x)
    rows, at = np.arange(len(x)), np.array([text.agreements(s)[0][-1] for s in sentences])
    only = np.zeros(x.shape, bool)
    only[rows, at] = True
    dhs = masked_cross_entropy_backward(1.0, logits, y, only) @ p["w_out"]
    de = rnn_backward(dhs, e, np.zeros((len(x), UNITS)), p["w_x"], p["w_h"], p["b"])[0]
    norms = np.linalg.norm(de, axis=2)
    return np.stack([norms[rows, at - d] / norms[rows, at] for d in range(back + 1)])


far = [s for s in text.sentences(3000, seed=2) if (text.agreements(s)[1] > 30).any()][:60]
fresh = language_network(0)
reaches = {"at the start": reach(fresh, far, 30), "after training": reach(params, far, 30)}

# %%
fig, ax = plots.figure(5.5, 3)
for name, ratios in reaches.items():
    low, middle, high = np.percentile(ratios, (10, 50, 90), axis=1)
    ax.plot(middle, label=name)
    ax.fill_between(range(31), low, high, alpha=0.2)
ax.set(yscale="log", xlabel="characters before the verb's ending", ylabel="gradient norm, relative")
ax.legend()
plots.show(
    fig,
    alt="Gradient norm against the distance back from the verb's ending, logarithmic. Both lines fall; that after "
    "training far more steeply.",
    caption="Median and middle 80 % of 60 sentences. After training, less of the gradient arrives than at the start.",
)
for name, p in {"at the start": fresh, "after training": params}.items():
    radius = np.abs(np.linalg.eigvals(p["w_h"])).max()
    slopes = (1 - read(p, test_batch[0])[1] ** 2)[test_batch[2]].mean()
    left = np.median(reaches[name][30])
    print(f"{name:<15} spectral radius {radius:.2f}, mean slope {slopes:.2f}, left after 30: {left:.5f}")

# %% [markdown]
# At the start a twelfth of the gradient arrived 30 characters back; now it is less than a ten-thousandth. Training has
# raised the spectral radius from 1.13 to 2.00, and all the same the gradient vanishes faster, because the slopes have
# fallen: a unit that decides is near ±1, and a unit near ±1 hands no gradient back. So the network becomes good at
# what is near, and by becoming good loses its ear for what is far. Lesson 17 gives the state a way on which nothing is
# squashed, and asks the same verbs again.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken functions, two numbers to predict.

# %% [markdown] about="repair_last_state"
# ### Repair: a classifier that gets worse in larger batches
#
# A network classifies sequences by their last state. Alone, each sequence gets the right answer; in a batch, the short
# ones do not, and the more so the longer the longest is.
#
# `repair_last_state(hs, lengths) -> h`: `hs (N, T, H)`, `lengths (N,)`, at least 1; `h (N, H)`, for each sequence
# the state after its last step.
#
# By hand, H = 1, `hs` = [[5, 6, 7], [1, 2, 3]] and lengths 2 and 3: `h` = [[6], [3]].


# %% exercise="repair_last_state"
def repair_last_state(hs, lengths):
    """hs (N, T, H), lengths (N,) -> h (N, H)"""
    ### BEGIN SOLUTION
    return hs[np.arange(len(hs)), lengths - 1]
    ### BROKEN
    # return hs[:, -1]
    ### END SOLUTION


# %% check="repair_last_state"
check(repair_last_state)

# %% [markdown] about="repair_rnn_backward"
# ### Repair: a faster backward pass
#
# Only $dz$ has to be computed step by step. All parameters' gradients can then be had at once, in one product over
# batch and time. Somebody has sped `rnn_backward` up in this way; the loss falls, but never as far as before. There are
# two faults.
#
# `repair_rnn_backward(dhs, x, h0, w_x, w_h, b) -> dx, dh0, dw_x, dw_h, db`, as `rnn_backward`. (`np.tensordot(dz, x,
# axes=((0, 1), (0, 1)))` is the sum over batch and time of the products of their last axes. It is right here.)


# %% exercise="repair_rnn_backward"
def repair_rnn_backward(dhs, x, h0, w_x, w_h, b):
    """dhs (N, T, H), x (N, T, D), h0 (N, H), w_x (H, D), w_h (H, H), b (H,) -> dx, dh0, dw_x, dw_h, db"""
    ### BEGIN SOLUTION
    hs = rnn_forward(x, h0, w_x, w_h, b)
    dz, dh = np.empty_like(hs), np.zeros_like(h0)
    for t in reversed(range(x.shape[1])):
        dz[:, t] = (dhs[:, t] + dh) * (1 - hs[:, t] ** 2)
        dh = dz[:, t] @ w_h
    before = np.concatenate([h0[:, None], hs[:, :-1]], axis=1)
    dw_x, dw_h = (np.tensordot(dz, seen, axes=((0, 1), (0, 1))) for seen in (x, before))
    return dz @ w_x, dh, dw_x, dw_h, dz.sum(axis=(0, 1))
    ### BROKEN
    # hs = rnn_forward(x, h0, w_x, w_h, b)
    # dz, dh = np.empty_like(hs), np.zeros_like(h0)
    # for t in reversed(range(x.shape[1])):
    #     dz[:, t] = dhs[:, t] * (1 - hs[:, t] ** 2)
    #     dh = dz[:, t] @ w_h
    # dw_x, dw_h = (np.tensordot(dz, seen, axes=((0, 1), (0, 1))) for seen in (x, hs))
    # return dz @ w_x, dh, dw_x, dw_h, dz.sum(axis=(0, 1))
    ### END SOLUTION


# %% check="repair_rnn_backward"
check(repair_rnn_backward)

# %% [markdown] about="count_rnn_parameters"
# ### Predict: how many parameters?
#
# `count_rnn_parameters(input_size, hidden_size, num_layers=1, bidirectional=False) -> parameters`: the learnable
# numbers of `nn.RNN` with these arguments. In a stack, each layer reads what the one below puts out at each step, of
# both directions where there are two.
#
# By hand, `count_rnn_parameters(3, 2)`: weights 2 · 3 and 2 · 2, and two biases of 2: 14.


# %% exercise="count_rnn_parameters"
def count_rnn_parameters(input_size, hidden_size, num_layers=1, bidirectional=False):
    """input_size, hidden_size, num_layers, bidirectional -> parameters ()"""
    ### BEGIN SOLUTION
    directions, total = 1 + bidirectional, 0
    for layer in range(num_layers):
        width = directions * hidden_size if layer > 0 else input_size
        total += directions * hidden_size * (width + hidden_size + 2)
    return total
    ### END SOLUTION


# %% check="count_rnn_parameters"
check(count_rnn_parameters)

# %% [markdown] about="steps_until"
# ### Predict: how far back is anything left?
#
# `steps_until(radius, share) -> steps`: at each step back a gradient is multiplied by `radius`, between 0 and 1. After
# how many steps is it, for the first time, at most `share` of what it was?
#
# By hand, radius 0.5 and share 0.2: 0.5, 0.25, 0.125; after 3 steps.


# %% exercise="steps_until"
def steps_until(radius, share):
    """radius, share -> steps ()"""
    ### BEGIN SOLUTION
    steps, left = 0, 1.0
    while left > share:
        steps, left = steps + 1, left * radius
    return steps
    ### END SOLUTION


# %% check="steps_until"
check(steps_until)

# %% tags=["nbval-check-output"]
print("until a hundredth is left:", {radius: steps_until(radius, 0.01) for radius in (0.5, 0.8, 0.9, 0.99)})

# %% [markdown]
# ### What people believe, and what is true
#
# - **"A spectral radius of 1 keeps the gradient."** For an orthogonal matrix without tanh. With tanh it vanishes at 1
#   and above, and a matrix with skewed eigenvectors lets it grow first at 0.8.
# - **"Vanishing gradients mean that nothing is learned."** The gradient of a parameter is a sum over steps; its near
#   part is alive, so the loss falls. What is not learned is what takes effect late, and the loss curve does not say
#   so.
# - **"Clipping cures vanishing gradients."** It shortens long ones. Where gradients are too small it does nothing.
# - **"Truncation makes the network forget."** The state goes on. What is cut is the *teaching*: nobody is rewarded for
#   having kept something longer than a chunk. (Nor does a
#   chunk of k steps give every loss k steps: that at its first step reaches no step before it.)
# - **"Fill the padding with zeros and all is well."** Zeros are an input like any other: with a bias, and with a state,
#   the network runs on over them. It takes masks, in the loss, at the last state, and in the backward direction.
# - **"A low loss on the next character means that the grammar was learned."** Most characters of a word follow from its
#   beginning. Whether a distant subject is remembered shows at one character in a hundred.
# - **"Two biases are twice as good."** They are added; only their sum matters.

# %% [markdown]
# ## Where it is used, and what came after
#
# Recurrent networks of this simple kind were how sequences were modelled in the 1990s, and again for language around
# 2010 (Mikolov et al., 2010). Hardly anybody trains them now: gates (lesson 17) let the gradient pass where it is
# needed, and attention (lesson 18) reaches every earlier step in one. What remained of them is everywhere. A state of
# fixed size, read and rewritten at each step, costs the same at step 1000 as at step 1; attention's cost grows with
# the length (lesson 20). That is why state space models and other *linear* recurrences have come back (Gu and Dao,
# 2023; Orvieto et al., 2023): without the tanh between steps all of them can be computed in parallel, and the
# eigenvalues are chosen near 1 on purpose.
#
# What is disputed:
#
# - **Whether exploding gradients need clipping.** You saw that a smaller learning rate did as well, on one task.
#   Clipping permits larger steps; why exactly it speeds up training is still studied (Zhang et al., 2020).
# - **How long a memory training can find.** Unitary (Arjovsky, Shah and Bengio, 2016) or identity starts (Le, Jaitly
#   and Hinton, 2015) reach further than random ones on constructed tasks; how much that helps on language is another
#   question.
# - **What a unit means.** Karpathy, Johnson and Fei-Fei (2015) found units that follow quotes and brackets. Most units
#   mean nothing that has a name, and one that correlates with something need not be used for it.
#
# You can now
#
# - write a recurrent layer forwards and back through time, and say why the states' gradients add and the
#   parameters' are summed;
# - say what the spectral radius promises, what the largest singular value promises, and what tanh does to both;
# - choose a length of truncation by the memory that is needed, and clip for the right reason;
# - batch sequences of unequal length without letting the padding into losses, last states or the backward direction;
# - compare a language model with the best that is possible.
#
# To read:
#
# - J. Elman, *Finding structure in time*, 1990. Small networks, looked into, on generated sentences.
# - Y. Bengio, P. Simard and P. Frasconi, *Learning long-term dependencies with gradient descent is difficult*, 1994.
# - R. Pascanu, T. Mikolov and Y. Bengio, *On the difficulty of training recurrent neural networks*, 2013. Sections 2
#   and 3, with clipping.
# - A. Karpathy, J. Johnson and L. Fei-Fei, *Visualizing and understanding recurrent networks*, 2015.
# - C. Shannon, *Prediction and entropy of printed English*, 1951. Guessing the next letter, by people.
