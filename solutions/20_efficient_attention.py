# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 20 · Efficient attention
#
# In lesson 18 every query met every key. Twice the text, four times the scores: that square is what long texts, high
# resolutions and long conversations run into. There are three ways out. Compute **fewer** scores (local, sparse, two
# scales). Compute **something else** that needs none (linear attention). Or compute exactly the same, but **never hold
# it all at once** (online softmax) and **never twice** (the key-value cache).
#
# You will build all of them in NumPy, some with their backward pass, and measure time and memory against length. The
# checks count what your functions make on the way, so that cheap is not a matter of a clock.
#
# **You need** lesson 18 (attention, masks, heads), lesson 16 (recurrent networks) and lesson 02 (softmax). **Time:**
# about eight hours, six of them for the exercises.

# %% setup=true
import time
import tracemalloc

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits
from torch import nn

from autograder import check, examine, mine, reference
from course import plots, widgets

# %%
plots.show(
    widgets.efficient_attention.overview(),
    alt="Five square pictures, a row for each of 48 queries, a column for each key. Exact is full; local is a band about "
    "the diagonal; strided is a band and parallel lines below the diagonal; two scales is a band of blocks in blue with "
    "the rest in pink; linear is evenly pale.",
    caption="Who sees whom, 48 tokens. Blue: one by one. Pink: as part of an average. Pale: through a sum of all keys.",
)

# %% [markdown]
# ## Play first
#
# First, what is at stake.

# %%
widgets.efficient_attention.guess_memory()

# %% [markdown]
# A query that sees only its neighbours needs few scores. What about everything else?

# %%
widgets.efficient_attention.guess_reach()

# %% [markdown]
# Left: the keys that each query sees in one layer. Right: what it can have heard of after several layers (orange: the
# chosen token's row).
#
# 1. `local`, window 3. How many layers until token 20 has heard of all 32 tokens? And with window 6?
# 2. `strided`, stride 6. How many layers does it take? Is there a stride for which it takes more?
# 3. `two scales`: at which block is the number of scores smallest?

# %%
widgets.efficient_attention.reach()

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - A window of 3 carries 3 places a layer: seven layers for the 20 places to token 0. With window 6, four. It is the
#   receptive field of lesson 10.
# - Strides reach the whole past in two layers at most, whatever the stride: one jump, then one short step. The proof follows.
# - Two scales: a small block has few near keys and many averages, a large one the reverse. In between lies the least,
#   here at 4; the mathematics says where.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | | $q$ | $k$ | $v$ | $y$ | scores held | work |
# |---|---|---|---|---|---|---|
# | exact | `(…, t, d)` | `(…, s, d)` | `(…, s, e)` | `(…, t, e)` | $t\,s$ | $t\,s$ |
# | local, window $w$ | `(…, t, d)` | `(…, t, d)` | `(…, t, e)` | `(…, t, e)` | $t\,(2w + 1)$ | $t\,(2w + 1)$ |
# | two scales, block $B$ | `(…, t, d)` | `(…, t, d)` | `(…, t, e)` | `(…, t, e)` | $B\,(3B + t/B)$ | $t\,(3B + t/B)$ |
# | linear | `(…, t, d)` | `(…, s, d)` | `(…, s, e)` | `(…, t, e)` | none; a state of $d\,e$ | $(t + s)\,d/2$ |
# | online, block $B$ | `(…, t, d)` | `(…, s, d)` | `(…, s, e)` | `(…, t, e)` | $t\,B$ | $t\,s$ |
# | one step with a cache | `(n, h, 1, d)` | `(n, h, t, d)` | `(n, h, t, e)` | `(n, h, 1, e)` | $t$ | $t$ |
#
# Work is in score-sized steps: each costs $2d$ floating point operations to compute and $2e$ to use. (For linear attention with
# $e = d$: a key costs $2de$ operations to add to the state, a query as many to read it.)
#
# ### Fewer scores
#
# **Local.** Query $i$ sees the keys with $|i - j| \le w$. In the middle that is $2w + 1$ of them; the ends lack $w + (w -
# 1) + \dots + 1 = w(w + 1)/2$ on each side: together $t(2w + 1) - w(w + 1)$ scores. (In a causal model only $0 \le i - j
# \le w$.)
#
# **Strided.** Query $i$ sees the keys less than $s$ back, and every $s$-th one (Child et al., 2019). That is about $s +
# i/s$ keys, smallest for $s = \sqrt i$. Two layers reach everything: any distance $i - j$ is $a\,s + b$ with $0 \le b <
# s$ (division with remainder). So $j$ is $a$ whole strides back from $j + a\,s$, and $j + a\,s = i - b$ is near $i$: one
# layer carries $j$ to $j + a\,s$, the next to $i$.
#
# **Two scales.** Near keys one by one, far ones as averages. Let a far block $C$ have $B$ keys with scores $s_j$. Exactly,
# it adds $\sum_{j \in C} e^{s_j} v_j$ to the numerator and $\sum_{j \in C} e^{s_j}$ to the denominator. With the averages
# $\bar k$ and $\bar v$, whose score is $\bar s = q \cdot \bar k/\sqrt d$, we put
# $$B\,e^{\bar s}\,\bar v \qquad\text{and}\qquad B\,e^{\bar s} = e^{\bar s + \log B}$$
# instead: one key with the score $\bar s + \log B$. If all keys of the block are equal, that is no approximation. If not,
# $\bar s$ is the mean of the $s_j$ (a score is linear in the key), and since the exponential is convex, $e^{\bar s} \le
# \frac1B \sum e^{s_j}$: an average is underrated. A single key that stands out in a far block is lost in it.
#
# A query needs about $3B$ near scores and $t/B$ averages. $f(B) = 3B + t/B$ has the slope $3 - t/B^2$, which is 0 at $B =
# \sqrt{t/3}$. The work is then $2\sqrt3\; t\sqrt t$: between $t$ and $t^2$.
#
# ### No scores
#
# Let the weight be a product instead of an exponential: $\varphi(q_i) \cdot \varphi(k_j)$ with $\varphi(x) = \mathrm{elu}(x) +
# 1$, number by number: $x + 1$ for $x > 0$, $e^x$ below. It is positive, so the weights are. Then (Katharopoulos et al.,
# 2020)
# $$y_i = \frac{\sum_j \big(\varphi(q_i) \cdot \varphi(k_j)\big)\,v_j}{\sum_j \varphi(q_i) \cdot \varphi(k_j)}
#  = \frac{\varphi(q_i)^\top S}{\varphi(q_i) \cdot z},\qquad S = \sum_j \varphi(k_j)\,v_j^\top,\quad z = \sum_j \varphi(k_j).$$
# All that changed is where the brackets stand: $(a\,b^\top)\,v = a\,(b^\top v)$. $S$ is $d \times e$ however many keys there are.
# With the exponential of the sum $q \cdot k$ no such thing is possible: it is not a product of something of $q$ and
# something of $k$ of finite length.
#
# Causal: query $i$ has the sums over $j \le i$. $S_i = S_{i-1} + \varphi(k_i)\,v_i^\top$ and $z_i = z_{i-1} + \varphi(k_i)$: a
# recurrent network (lesson 16) whose hidden state is a matrix and whose recurrence is a plain sum.
#
# **Backwards.** With $a = \varphi(q)$, $b = \varphi(k)$, $n = aS$, $w = a z$ (one number per query) and $y = n/w$:
#
# - the quotient: $dn = dy/w$, and $dw_i = -\sum_e dy_{ie}\,n_{ie}/w_i^2 = -\sum_e dn_{ie}\,y_{ie}$;
# - $n = aS$ and $w = az$: $da = dn\,S^\top + dw\,z^\top$, $dS = a^\top dn$, $dz = a^\top dw$;
# - $S = b^\top v$ and $z = \sum_j b_j$: $db = v\,dS^\top + dz^\top$ (the same $dz$ for every key), $dv = b\,dS$;
# - through $\varphi$: $dq = da \cdot \varphi'(q)$, $dk = db \cdot \varphi'(k)$, with $\varphi'(x) = 1$ for $x > 0$, else $e^x$.
#
# Nothing here has a size of $t \times s$.
#
# ### All scores, never at once
#
# A softmax needs the largest score and the sum of all exponentials before it can give the first weight, or so it seems.
# Cut the keys into blocks and carry three things for each query (Milakov and Gimelshein, 2018; Rabe and Staats, 2021):
# the largest score so far $m$, and, measured with it,
# $$l = \sum_{j\ \text{so far}} e^{s_j - m},\qquad y = \sum_{j\ \text{so far}} e^{s_j - m}\,v_j.$$
# A new block has a larger score, perhaps: $m' = \max(m, \max_{j \in \text{block}} s_j)$. What is in $l$ and $y$ was measured
# with $m$, and $e^{s_j - m'} = e^{s_j - m}\,e^{m - m'}$. So both are multiplied by $e^{m - m'}$, and the block is added:
# $$l' = l\,e^{m - m'} + \sum_{j \in \text{block}} e^{s_j - m'},\qquad y' = y\,e^{m - m'} + \sum_{j \in \text{block}} e^{s_j -
# m'}\,v_j.$$
# After the last block $y/l$ is the softmax average. Nothing was approximated; and since $s_j \le m'$ always, no
# exponential is ever above 1.
#
# **Backwards.** Lesson 18: with weights $p$ and $dp_{ij} = dy_i \cdot v_j$, the scores get $ds_{ij} = p_{ij}\,(dp_{ij} -
# \sum_{j'} p_{ij'}\,dp_{ij'})$. Two things run over the whole row. The weights: keep one number per query, $L_i = m_i + \log
# l_i$, the log-sum-exp of the row, and any block's weights come back as $p_{ij} = e^{s_{ij} - L_i}$. The sum: pull $dy_i$
# out,
# $$\sum_j p_{ij}\,(dy_i \cdot v_j) = dy_i \cdot \sum_j p_{ij}\,v_j = dy_i \cdot y_i = D_i,$$
# known before the first block. So the backward pass computes the scores once more, block by block, instead of keeping
# them. That is the idea of FlashAttention (Dao et al., 2022): *more* arithmetic, much less memory traffic, and on a GPU
# it is the traffic that takes the time.
#
# ### Never twice
#
# A causal model writes a text token by token. Token $t + 1$ comes; what changes for the tokens before it? Nothing: in the
# first layer $k_j$ and $v_j$ depend on token $j$ alone, and causal outputs on the tokens up to $j$, so layer by layer
# everything that was computed stays valid. Keep all keys and values, the **key-value cache**, and a new token costs its own
# projections and one row of $t + 1$ scores. (Without the causal mask every output would change, and nothing could be kept.)
#
# What is kept: for each layer, each token and each key-value head $2d$ numbers. With 80 layers, 64 heads of size 128 and 2
# bytes per number that is $80 \cdot 64 \cdot 2 \cdot 128 \cdot 2 \approx 2.6$ MB *per token*. To shrink it, let neighbouring query
# heads share a key-value head: **grouped queries** (Ainslie et al., 2023), with one group for all of them **multi-query
# attention** (Shazeer, 2019). A key that several heads use collects a gradient from each of them: their sum.

# %% [markdown]
# ## From scratch
#
# Eleven functions. As in lesson 18, the attentions work on any axes in front of the last two.


# %%
def column(*numbers):
    """Numbers as tokens of one feature."""
    return np.array(numbers, float)[:, None]


# %% [markdown] about="strided_mask"
# ### A sparse pattern
#
# `strided_mask(t, stride) -> allowed`: `allowed (t, t)`, True where query $i$ (row) may see key $j$ (column): $j \le i$, and
# either $i - j <$ `stride` or $i - j$ a multiple of `stride`.
#
# By hand, query 6 with stride 3: near are 4, 5, 6; whole strides back are 6, 3, 0. Row 6 allows 0, 3, 4, 5, 6.

# %%
np.testing.assert_array_equal(np.flatnonzero(reference("strided_mask")(7, 3)[6]), [0, 3, 4, 5, 6])


# %% exercise="strided_mask"
def strided_mask(t, stride):
    """t, stride -> allowed (t, t)"""
    ### BEGIN SOLUTION
    back = np.arange(t)[:, None] - np.arange(t)
    return (back >= 0) & ((back < stride) | (back % stride == 0))
    ### END SOLUTION


# %% check="strided_mask"
check(strided_mask)

# %% [markdown]
# Two layers reach the whole past, one does not. And what does such a mask save, if it goes into lesson 18's attention? Here
# is that one once more, in plain NumPy, so that its memory can be measured: `peak` is what a call holds at most. (Both are there to measure with. An answer that calls
# `exact_attention` passes here and fails when it is graded: there are only your own cells, the imports and what `mine` gave.)


# %%
def exact_attention(q, k, v, mask=True):
    """All scores first; then those that are not allowed are struck out."""
    scores = np.where(mask, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ v


def peak(function, *args):
    """The most memory that a call holds at a time, in bytes."""
    tracemalloc.start()
    function(*args)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


# %% tags=["nbval-check-output"]
allowed = strided_mask(100, 10)
steps = allowed.astype(int)
print("one layer reaches the whole past: ", np.array_equal(allowed, np.tri(100, dtype=bool)))
print("two layers do:                    ", np.array_equal(steps @ steps > 0, np.tri(100, dtype=bool)))
rng = np.random.default_rng(20)
q, k, v = rng.standard_normal((3, 512, 16))
allowed = strided_mask(512, 22)
masked, whole = peak(exact_attention, q, k, v, allowed), peak(exact_attention, q, k, v)
print(f"the mask allows {allowed.mean():.0%} of the scores; memory with and without it: {masked / whole:.1f} to 1")

# %% [markdown]
# A mask saves nothing: all scores are computed, and then most are thrown away. To be cheaper, a sparse pattern must
# never multiply what it does not need. That is easy for a window, harder for strides (Child et al. wrote GPU programs for
# it).

# %% [markdown] about="local_attention"
# ### Local attention
#
# `local_attention(q, k, v, window) -> y`: `q, k (…, t, d)`, `v (…, t, e)`, `y (…, t, e)`. Query $i$ sees the keys $j$ with
# $|i - j| \le$ `window` (Beltagy et al., 2020): scores divided by $\sqrt d$ and a softmax over these keys. At the ends
# the window is shorter. **Work and memory have to grow like** $t \cdot$ `window`. The check measures that,
# too, in its first case (`metered=True` in the report): it counts the bytes that your function makes on the way, with 128
# and with 512 tokens. The next exercises are measured in the same way; the last line of the report's table says how it went.
#
# By hand, three tokens, window 1, all queries 0 (so all weights of a window are equal), `v = [3, 6, 12]`: `y = [4.5, 7, 9]`.
#
# A loop over the queries is right. If you want none: `sliding_window_view(x, 2 * window + 1, axis=-2)` shows all windows of
# an array, `(…, t', d, 2 * window + 1)`, without copying it.

# %%
zeros, values = column(0, 0, 0), column(3, 6, 12)
np.testing.assert_allclose(reference("local_attention")(zeros, zeros, values, 1), column(4.5, 7, 9))


# %% exercise="local_attention"
def local_attention(q, k, v, window):
    """q, k (…, t, d), v (…, t, e), window -> y (…, t, e)"""
    ### BEGIN SOLUTION
    t, d = q.shape[-2:]
    around = [(0, 0)] * (q.ndim - 2) + [(window, window), (0, 0)]
    keys, values = (sliding_window_view(np.pad(x, around), 2 * window + 1, axis=-2) for x in (k, v))
    place = np.arange(t)[:, None] + np.arange(-window, window + 1)
    scores = np.einsum("...td,...tdw->...tw", q, keys) / np.sqrt(d)
    scores = np.where((place >= 0) & (place < t), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("...tw,...tew->...te", e / e.sum(axis=-1, keepdims=True), values)
    ### END SOLUTION


# %% check="local_attention"
check(local_attention)

# %% [markdown] about="multiscale_attention"
# ### Two scales
#
# `multiscale_attention(q, k, v, block) -> y`: shapes as before, `block` divides `t`. The tokens are cut into blocks of
# `block` neighbours. A query sees the keys of its own block and of the blocks next to it one by one, and every other block as
# one average key with one average value, whose score gets $+\log$ `block`. One softmax over all of it.
# Like local attention it is to be cheap: nothing of the size $t \times t$.
#
# By hand, six tokens, block 2, all queries 0, `v = [0, 0, 0, 0, 6, 12]`. Query 0 sees tokens 0 to 3 with score 0, and the
# last block as one key with score $0 + \log 2$, value 9. Weights 1, 1, 1, 1, 2, over 6: $y_0 = 18/6 = 3$, which is the mean
# of all six, as it has to be where all scores are equal.

# %%
zeros, values = column(*[0] * 6), column(0, 0, 0, 0, 6, 12)
np.testing.assert_allclose(reference("multiscale_attention")(zeros, zeros, values, 2), np.full((6, 1), 3.0))


# %% exercise="multiscale_attention"
def multiscale_attention(q, k, v, block):
    """q, k (…, t, d), v (…, t, e), block -> y (…, t, e)"""
    ### BEGIN SOLUTION
    (t, d), y = q.shape[-2:], np.empty_like(v)
    count = np.arange(t // block)
    far_k, far_v = (x.reshape(*x.shape[:-2], len(count), block, x.shape[-1]).mean(axis=-2) for x in (k, v))
    for b in count:
        rows, near = slice(b * block, (b + 1) * block), slice(max(0, b - 1) * block, (b + 2) * block)
        far = abs(count - b) > 1
        near_scores, far_scores = (
            q[..., rows, :] @ keys.swapaxes(-1, -2) / np.sqrt(d) for keys in (k[..., near, :], far_k[..., far, :])
        )
        scores = np.concatenate([near_scores, far_scores + np.log(block)], axis=-1)
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = e @ np.concatenate([v[..., near, :], far_v[..., far, :]], axis=-2)
        y[..., rows, :] = mixed / e.sum(axis=-1, keepdims=True)
    return y
    ### END SOLUTION


# %% check="multiscale_attention"
check(multiscale_attention)

# %% [markdown] about="linear_attention"
# ### Linear attention
#
# `linear_attention(q, k, v) -> y`: `q (…, t, d)`, `k (…, s, d)`, `v (…, s, e)`, `y (…, t, e)`, with $\varphi = \mathrm{elu} + 1$
# and no $\sqrt d$. No array may have the size $t \times s$.
#
# By hand, one query (0, 1), so $\varphi(q) = (1, 2)$; keys (0, 0) and (1, 0), so $\varphi(k)$ = (1, 1) and (2, 1); values 3 and 10.
# $S = 3 \cdot (1, 1) + 10 \cdot (2, 1) = (23, 13)$ and $z = (3, 2)$. Then $y = (23 + 26)/(3 + 4) = 7$. (The weights were 3 and
# 4, of 7.)

# %%
q, k, v = np.array([[0.0, 1]]), np.array([[0.0, 0], [1, 0]]), column(3, 10)
np.testing.assert_allclose(reference("linear_attention")(q, k, v), [[7]])


# %% exercise="linear_attention"
def linear_attention(q, k, v):
    """q (…, t, d), k (…, s, d), v (…, s, e) -> y (…, t, e)"""
    ### BEGIN SOLUTION
    a, b = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    state, total = b.swapaxes(-1, -2) @ v, b.sum(axis=-2)
    return a @ state / (a @ total[..., None])
    ### END SOLUTION


# %% check="linear_attention"
check(linear_attention)

# %% [markdown] about="causal_linear_attention"
# ### Causal linear attention
#
# `causal_linear_attention(q, k, v) -> y`: the same number of queries and keys, query $i$ sees the keys $0 \dots i$. Again
# without any array of $t \times t$.
#
# By hand, the keys and values from before and the query (0, 1) at both places: the first sees one key, $y_0 = 3$; the second
# both, $y_1 = 7$.

# %%
np.testing.assert_allclose(reference("causal_linear_attention")(np.vstack([q, q]), k, v), column(3, 7))


# %% exercise="causal_linear_attention"
def causal_linear_attention(q, k, v):
    """q, k (…, t, d), v (…, t, e) -> y (…, t, e)"""
    ### BEGIN SOLUTION
    a, b = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    states = np.cumsum(b[..., :, None] * v[..., None, :], axis=-3)  # (…, t, d, e)
    totals = np.cumsum(b, axis=-2)
    return np.einsum("...td,...tde->...te", a, states) / (a * totals).sum(axis=-1, keepdims=True)
    ### END SOLUTION


# %% check="causal_linear_attention"
check(causal_linear_attention)

# %% [markdown] about="linear_attention_backward"
# ### Linear attention, backwards
#
# `linear_attention_backward(dy, q, k, v) -> dq, dk, dv`, of the non-causal one, and as cheap as the forward pass.
#
# By hand, from before, `dy = 7`: $w = 7$, so $dn = 1$ and $dw = -1 \cdot 7 = -7$. $da = 1 \cdot (23, 13) - 7 \cdot (3, 2) = (2, -1)$.
# $dS = (1, 2)$, $dz = (-7, -14)$. $db_0 = 3 \cdot (1, 2) + dz = (-4, -8)$, $db_1 = 10 \cdot (1, 2) + dz = (3, 6)$. $dv_0 = (1, 1) \cdot
# (1, 2) = 3$, $dv_1 = (2, 1) \cdot (1, 2) = 4$. All slopes of $\varphi$ are 1 here ($e^0$ at 0), so `dq = (2, −1)` and `dk = (−4,
# −8), (3, 6)`.

# %%
dq, dk, dv = reference("linear_attention_backward")(np.array([[7.0]]), q, k, v)
np.testing.assert_allclose(np.vstack([dq, dk]), [[2, -1], [-4, -8], [3, 6]])
np.testing.assert_allclose(dv, column(3, 4))


# %% exercise="linear_attention_backward"
def linear_attention_backward(dy, q, k, v):
    """dy (…, t, e), q (…, t, d), k (…, s, d), v (…, s, e) -> dq, dk, dv"""
    ### BEGIN SOLUTION
    a, b = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    state, total = b.swapaxes(-1, -2) @ v, b.sum(axis=-2)[..., None, :]
    w = (a * total).sum(axis=-1, keepdims=True)
    dn = dy / w
    dw = -(dn * (a @ state) / w).sum(axis=-1, keepdims=True)
    da = dn @ state.swapaxes(-1, -2) + dw * total
    dstate, dtotal = a.swapaxes(-1, -2) @ dn, (a * dw).sum(axis=-2, keepdims=True)
    db = v @ dstate.swapaxes(-1, -2) + dtotal
    return da * np.minimum(a, 1), db * np.minimum(b, 1), b @ dstate  # φ' is φ below 0, and 1 above
    ### END SOLUTION


# %% check="linear_attention_backward"
check(linear_attention_backward)

# %% [markdown] about="online_softmax_attention"
# ### Online softmax
#
# `online_softmax_attention(q, k, v, block) -> y`: exact attention, `q (…, t, d)`, `k (…, s, d)`, `v (…, s, e)`, with the keys
# in blocks of `block` (the last one may be shorter), and never more than one block's scores `(…, t, block)` in memory. It
# has to agree with exact attention to $10^{-12}$, also for scores of ±1000.
#
# By hand, one query, scores $0, \log 2 \mid \log 4$ in blocks of two, `v = [4, 1, 2]`. First block: $m = \log 2$, $l =
# \frac12 + 1 = 1.5$, $y = \frac12 \cdot 4 + 1 = 3$. Second block: $m' = \log 4$, $e^{m - m'} = \frac12$, $l = 0.75 + 1 = 1.75$, $y
# = 1.5 + 2 = 3.5$. And $3.5/1.75 = 2$: the weights are 1, 2, 4, of 7, and $(4 + 2 + 8)/7 = 2$.

# %%
one, keys, values = column(1), column(0, np.log(2), np.log(4)), column(4, 1, 2)
np.testing.assert_allclose(reference("online_softmax_attention")(one, keys, values, 2), [[2]])


# %% exercise="online_softmax_attention"
def online_softmax_attention(q, k, v, block):
    """q (…, t, d), k (…, s, d), v (…, s, e), block -> y (…, t, e)"""
    ### BEGIN SOLUTION
    m = np.full((*q.shape[:-1], 1), -np.inf)
    total, y = np.zeros_like(m), np.zeros((*q.shape[:-1], v.shape[-1]))
    for low in range(0, k.shape[-2], block):
        scores = q @ k[..., low : low + block, :].swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        now = np.maximum(m, scores.max(axis=-1, keepdims=True))
        p, shrink = np.exp(scores - now), np.exp(m - now)
        total = total * shrink + p.sum(axis=-1, keepdims=True)
        y = y * shrink + p @ v[..., low : low + block, :]
        m = now
    return y / total
    ### END SOLUTION


# %% check="online_softmax_attention"
check(online_softmax_attention)

# %% [markdown]
# The same, block after block, on twelve scores. Let `blocks done` run and watch $y/l$. Take away the tick: after which
# block does it go wrong, and why not before? Then add 1000 to all scores.

# %%
widgets.efficient_attention.stream(online_softmax_attention, reference("online_softmax_attention"))

# %% [markdown] about="online_softmax_attention_backward"
# ### Online softmax, backwards
#
# `online_softmax_attention_backward(dy, q, k, v, block) -> dq, dk, dv`, again without ever holding the score matrix. First
# pass: `y` and the log-sum-exp $L$ of each row. Then $D$. Second pass: for each block the weights again, and the gradients.
#
# By hand, from before, `dy = 7`: weights 1/7, 2/7, 4/7 and $y = 2$, so $D = 14$. $dp = 7v = (28, 7, 14)$, and $ds = p\,(dp - 14)
# = (2, -2, 0)$. With $d = 1$ and $q = 1$: `dk = (2, −2, 0)`, `dv = 7p = (1, 2, 4)`, and `dq` $= 2 \cdot 0 - 2 \log 2 + 0 = -2 \log
# 2$.

# %%
dq, dk, dv = reference("online_softmax_attention_backward")(column(7), one, keys, values, 2)
np.testing.assert_allclose(np.hstack([dk, dv]), [[2, 1], [-2, 2], [0, 4]], atol=1e-12)
np.testing.assert_allclose(dq, [[-2 * np.log(2)]])


# %% exercise="online_softmax_attention_backward"
def online_softmax_attention_backward(dy, q, k, v, block):
    """dy (…, t, e), q (…, t, d), k (…, s, d), v (…, s, e), block -> dq, dk, dv"""
    ### BEGIN SOLUTION
    root, blocks = np.sqrt(q.shape[-1]), [slice(low, low + block) for low in range(0, k.shape[-2], block)]
    lse = np.full((*q.shape[:-1], 1), -np.inf)
    for part in blocks:
        scores = q @ k[..., part, :].swapaxes(-1, -2) / root
        lse = np.logaddexp(lse, np.logaddexp.reduce(scores, axis=-1, keepdims=True))
    row = (dy * online_softmax_attention(q, k, v, block)).sum(axis=-1, keepdims=True)
    dq, dk, dv = np.zeros_like(q), np.empty_like(k), np.empty_like(v)
    for part in blocks:
        keys, values = k[..., part, :], v[..., part, :]
        p = np.exp(q @ keys.swapaxes(-1, -2) / root - lse)
        ds = p * (dy @ values.swapaxes(-1, -2) - row) / root
        dq += ds @ keys
        dk[..., part, :], dv[..., part, :] = ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy
    return dq, dk, dv
    ### END SOLUTION


# %% check="online_softmax_attention_backward"
check(online_softmax_attention_backward)

# %% [markdown]
# From here on, lesson 18's functions are of use.

# %%
attention_forward, attention_backward = mine("attention_forward"), mine("attention_backward")

# %% [markdown] about="kv_cache_step"
# ### One step with a cache
#
# `kv_cache_step(x, keys, values, w_q, w_k, w_v, w_o, num_heads) -> y, keys, values`: `x (n, 1, m)` is the new token, `keys
# (n, h, t, d)` and `values (n, h, t, e)` are those of the $t$ tokens before it ($t$ may be 0), `h = num_heads`. The weights are
# `(out, in)`, as in lesson 18: `w_q, w_k (h · d, m)`, `w_v (h · e, m)`, `w_o (m, h · e)`; head 0 has the first $d$ numbers of a
# projection. What comes back: `y (n, 1, m)` and both caches with one token more, behind the others.
#
# By hand, one head, one feature, cache keys [5], values [2], x = 4, $w_q = 0$ (so both scores are 0), $w_k = w_v = 1$, $w_o =
# 2$: keys [5, 4], values [2, 4], and $y = 2 \cdot (2 + 4)/2 = 6$.

# %%
cache, ones = (np.array([5.0]).reshape(1, 1, 1, 1), np.array([2.0]).reshape(1, 1, 1, 1)), np.ones((1, 1))
y, keys, values = reference("kv_cache_step")(np.full((1, 1, 1), 4.0), *cache, 0 * ones, ones, ones, 2 * ones, 1)
np.testing.assert_allclose([y.item(), *keys.ravel(), *values.ravel()], [6, 5, 4, 2, 4])


# %% exercise="kv_cache_step"
def kv_cache_step(x, keys, values, w_q, w_k, w_v, w_o, num_heads):
    """x (n, 1, m), keys (n, h, t, d), values (n, h, t, e), w_q, w_k, w_v, w_o, num_heads -> y, keys, values"""
    ### BEGIN SOLUTION
    n = len(x)
    q, key, value = ((x @ w.T).reshape(n, 1, num_heads, -1).swapaxes(1, 2) for w in (w_q, w_k, w_v))
    keys, values = np.concatenate([keys, key], axis=2), np.concatenate([values, value], axis=2)
    y = attention_forward(q, keys, values)
    return y.swapaxes(1, 2).reshape(n, 1, -1) @ w_o.T, keys, values
    ### END SOLUTION


# %% check="kv_cache_step"
check(kv_cache_step)

# %% [markdown] about="grouped_query_attention"
# ### Grouped queries
#
# `grouped_query_attention(q, k, v, mask=None) -> y`: `q (n, h, t, d)` has `h` heads, `k (n, g, s, d)` and `v (n, g, s, e)` have
# only `g`, a divisor of `h`; `y (n, h, t, e)`. The first `h // g` query heads use the first key-value head, the next ones the
# second, and so on. The mask broadcasts to `(n, h, t, s)`; as in lesson 18 a query that may see nothing gets 0.
#
# By hand, four heads, two groups, one key (whose weight is 1), values 10 and 20: `y = 10, 10, 20, 20`.

# %%
ones, values = np.ones((1, 4, 1, 1)), np.array([10.0, 20]).reshape(1, 2, 1, 1)
y = reference("grouped_query_attention")(ones, ones[:, :2], values)
np.testing.assert_allclose(y.ravel(), [10, 10, 20, 20])


# %% exercise="grouped_query_attention"
def grouped_query_attention(q, k, v, mask=None):
    """q (n, h, t, d), k (n, g, s, d), v (n, g, s, e), mask -> y (n, h, t, e)"""
    ### BEGIN SOLUTION
    share = q.shape[1] // k.shape[1]
    return attention_forward(q, np.repeat(k, share, axis=1), np.repeat(v, share, axis=1), mask)
    ### END SOLUTION


# %% check="grouped_query_attention"
check(grouped_query_attention)

# %% [markdown] about="grouped_query_attention_backward"
# ### Grouped queries, backwards
#
# `grouped_query_attention_backward(dy, q, k, v, mask=None) -> dq, dk, dv`: the shapes of q, k and v.
#
# By hand, from before, `dy = 1, 2, 3, 4`: the first value was used by heads 0 and 1, the second by 2 and 3: `dv = 3, 7`.

# %%
dy = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
dv = reference("grouped_query_attention_backward")(dy, ones, ones[:, :2], values)[2]
np.testing.assert_allclose(dv.ravel(), [3, 7])


# %% exercise="grouped_query_attention_backward"
def grouped_query_attention_backward(dy, q, k, v, mask=None):
    """dy (n, h, t, e), q (n, h, t, d), k (n, g, s, d), v (n, g, s, e), mask -> dq, dk, dv"""
    ### BEGIN SOLUTION
    g, share = k.shape[1], q.shape[1] // k.shape[1]
    dq, dk, dv = attention_backward(dy, q, np.repeat(k, share, axis=1), np.repeat(v, share, axis=1), mask)
    dk, dv = (x.reshape(len(x), g, share, *x.shape[2:]).sum(axis=2) for x in (dk, dv))
    return dq, dk, dv
    ### END SOLUTION


# %% check="grouped_query_attention_backward"
check(grouped_query_attention_backward)

# %% [markdown]
# ### What your functions look at
#
# A function that mixes values can be asked for its weights: give it the identity for `v`. Row $i$ of $y$ is then the sum
# of the rows of the identity with the weights of query $i$, which is those weights. That is how these pictures are made,
# from your own functions; cells that differ from the reference are outlined.
#
# 1. `local`: what becomes of a weight that exact attention puts outside the window?
# 2. `linear`: raise `queries ×`. Exact attention gets sharper. Does linear?
# 3. `two scales` with large `queries ×`: where does a far key that stands out go?
# 4. `online softmax`: find a difference.

# %%
own = local_attention, multiscale_attention, linear_attention, online_softmax_attention
widgets.efficient_attention.revealed(own, [reference(function.__name__) for function in own])

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - What a local query may not see, its neighbours get: the weights in the window are those of exact attention, divided by
#   their sum.
# - Linear attention stays soft. Its weights are sums of $d$ products of positive numbers: a key that matters in one feature
#   is never struck out by another, as it would be in an exponential. A larger query makes all of its weights larger, and
#   the division takes that back.
# - A far key's weight is spread evenly over its block, and the block as a whole is underrated.
# - There is none.
#
# </details>

# %% [markdown]
# ## Against a reference
#
# Three backward passes: yours, finite differences, PyTorch.

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(3)
q, k, v = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 2))
heads = rng.normal(size=(1, 4, 3, 2)), rng.normal(size=(1, 2, 5, 2)), rng.normal(size=(1, 2, 5, 3))
cases = {
    "linear": (linear_attention, linear_attention_backward, (q, k, v)),
    "online softmax": (online_softmax_attention, online_softmax_attention_backward, (q, k, v, 2)),
    "grouped queries": (grouped_query_attention, grouped_query_attention_backward, heads),
}
gradients = {}
for name, (forward, backward, given) in cases.items():
    dy = rng.normal(size=forward(*given).shape)
    q0, k0, *rest = given
    nudged = numerical_gradient(lambda k, f=forward, q=q0, rest=rest, dy=dy: (dy * f(q, k, *rest)).sum(), k0)
    right = reference(backward.__name__)(dy, *given)[1]
    gradients[f"dk, {name}"] = backward(dy, *given)[1], nudged, right
plots.gradient_check(gradients)

# %% [markdown]
# Exact means exact: online softmax against all scores at once, for several blocks, and for scores of several hundred. And the
# memory: with $t = s = 1024$, one block of 64 keys.

# %% tags=["nbval-check-output"]
q, k, v = rng.standard_normal((3, 1024, 16))
for scale in (1, 100):
    want = exact_attention(scale * q, k, v)
    gaps = [abs(online_softmax_attention(scale * q, k, v, block) - want).max() for block in (1, 7, 64, 1024)]
    largest = abs(scale * q @ k.T).max() / 4
    print(f"scores up to {largest:5.0f}: blocks of 1, 7, 64 and 1024 differ by less than 1e-12: {max(gaps) < 1e-12}")
held = {"all at once": peak(exact_attention, q, k, v)}
held["in blocks of 64"] = peak(online_softmax_attention, q, k, v, 64)
held["backwards, in blocks of 64"] = peak(online_softmax_attention_backward, v, q, k, v, 64)
for name, size in held.items():
    print(f"{name:<27} {size / 1e6:3.0f} MB")

# %% [markdown]
# Generation with a cache against computing everything anew, for a text of 24 tokens: the last row of causal multi-head
# attention (lesson 18) must be what `kv_cache_step` gives, at every length.

# %% tags=["nbval-check-output"]
multi_head_attention_forward, causal_mask = mine("multi_head_attention_forward"), mine("causal_mask")
text = rng.standard_normal((2, 24, 12))
params = [rng.standard_normal((12, 12)) / 12**0.5 for _ in range(4)]
keys = values = np.zeros((2, 3, 0, 4))
gaps = []
for t in range(24):
    y, keys, values = kv_cache_step(text[:, t : t + 1], keys, values, *params, 3)
    anew = multi_head_attention_forward(text[:, : t + 1], *params, 3, causal_mask(t + 1))
    gaps.append(abs(y[:, 0] - anew[:, -1]).max())
print("cached and computed anew differ by less than 1e-12 at every length:", max(gaps) < 1e-12)

# %% [markdown]
# And what a check says of the first idea that many have, a softmax in each block:


# %% tags=["nbval-check-output"]
def averaged(q, k, v, block):
    parts = [slice(low, low + block) for low in range(0, k.shape[-2], block)]
    return np.mean([exact_attention(q, k[..., part, :], v[..., part, :]) for part in parts], axis=0)


print(examine(averaged, "online_softmax_attention").mistake)

# %% [markdown]
# ## In PyTorch
#
# `F.scaled_dot_product_attention` is online softmax on the inside: on a GPU it chooses among several programs, one of which is
# FlashAttention; on the CPU there is a blockwise one, too. You call it as in lesson 18. With `enable_gqa=True` (torch 2.5 and
# later) it takes fewer key-value heads than query heads.
#
# It has a trap. `is_causal=True` aligns the triangle with the *upper left* corner. For equal lengths that is the causal mask.
# With a cache, where one new query meets many keys, it hides all of them but the first:

# %% tags=["nbval-check-output"]
new, old = torch.zeros(1, 1, 1), torch.zeros(1, 5, 1)
numbers = torch.arange(5.0).reshape(1, 5, 1)
print("one new query, five keys, values 0 to 4, all scores equal: the mean is 2")
print("without a mask:      ", F.scaled_dot_product_attention(new, old, numbers).item())
print("with is_causal=True: ", F.scaled_dot_product_attention(new, old, numbers, is_causal=True).item())

# %% [markdown] about="GroupedQueryAttention"
# ### Grouped queries and a cache, as a module
#
# `GroupedQueryAttention(embed_dim, num_heads, num_kv_heads)`, the attention layer of most language models of today: causal,
# with a cache. Four `nn.Linear` without bias: `q_proj` and `o_proj` from `embed_dim` to `embed_dim`, `k_proj` and `v_proj` from
# `embed_dim` to `num_kv_heads · d`, where `d = embed_dim // num_heads`.
#
# `forward(x, cache=None) -> y, (keys, values)`: `x (n, t, embed_dim)` are the new tokens, one or several; `cache` is the pair that
# the last call returned, for the tokens before them. `keys` and `values` are those of *all* tokens up to now, `(n, num_kv_heads,
# s, d)`. New token $i$ sees all old tokens, and the new ones up to itself. You may use `F.scaled_dot_product_attention`.
# The check sends `x` through at once (`y`), then in pieces that end at the places `cuts`, each with the cache of those before
# it (`y in pieces`): both have to be the same.
#
# By hand, `GroupedQueryAttention(8, 4, 2)`: $d = 2$; `q_proj` and `o_proj` have 64 weights each, `k_proj` and `v_proj` 32; the
# cache takes 2 · 2 · 2 = 8 numbers per token, where four key-value heads would take 16.


# %% exercise="GroupedQueryAttention"
class GroupedQueryAttention(nn.Module):
    """x (n, t, embed_dim), cache None or (keys, values) -> y (n, t, embed_dim), (keys, values)

    Two methods: __init__ makes q_proj, k_proj, v_proj and o_proj, forward(self, x, cache=None) uses them.
    """

    def __init__(self, embed_dim, num_heads, num_kv_heads):
        super().__init__()
        ### BEGIN SOLUTION
        self.d, self.share = embed_dim // num_heads, num_heads // num_kv_heads
        self.q_proj, self.o_proj = (nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(embed_dim, num_kv_heads * self.d, bias=False) for _ in range(2))

    def forward(self, x, cache=None):
        projected = (proj(x) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (part.unflatten(-1, (-1, self.d)).transpose(1, 2) for part in projected)
        if cache is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(cache, (k, v), strict=True))
        t, s = x.shape[1], k.shape[2]
        mask = torch.ones(t, s, dtype=torch.bool, device=x.device).tril(s - t)
        spread = (part.repeat_interleave(self.share, dim=1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, *spread, attn_mask=mask)
        return self.o_proj(y.transpose(1, 2).flatten(2)), (k, v)
        ### END SOLUTION

# %% check="GroupedQueryAttention"
check(GroupedQueryAttention)

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
layer = GroupedQueryAttention(16, 8, 2).double()
tokens = torch.randn(2, 10, 16, dtype=torch.float64, requires_grad=True)
whole, cache = layer(tokens)
first, cache = layer(tokens[:, :7])
second, cache = layer(tokens[:, 7:], cache)
print("gradcheck                     ", torch.autograd.gradcheck(lambda x: layer(x)[0], tokens))
print("whole = seven tokens and three", torch.allclose(whole, torch.cat([first, second], dim=1), atol=1e-12))
print("the cache                     ", [tuple(part.shape) for part in cache])

# %% [markdown]
# ## At work
#
# ### What it costs
#
# First commit yourself.

# %%
widgets.efficient_attention.guess_slope()

# %% [markdown]
# Then measure: five kinds of attention, 16 features, from 128 tokens up to 2048 (exact and online) and 16 384 (the others). Time
# is the best of several runs, memory what is held at most. A power law $c \cdot t^p$ is a line of slope $p$ when both axes are logarithmic: $\log(c\,t^p) = \log c + p
# \log t$.


# %%
def fastest(function, *args, runs=3):
    """Seconds of one thread for the quickest of several runs: what else the machine does can only add."""
    spent = []
    for _ in range(runs):
        start = time.thread_time()
        function(*args)
        spent.append(time.thread_time() - start)
    return min(spent)


attentions = {
    "exact": exact_attention,
    "online softmax": lambda q, k, v: online_softmax_attention(q, k, v, 64),
    "two scales": lambda q, k, v: multiscale_attention(q, k, v, 2 ** round(np.log2(len(q) / 3) / 2)),
    "local": lambda q, k, v: local_attention(q, k, v, 16),
    "linear": linear_attention,
}

# %%
def measured(attend, longest):
    """Lengths, seconds and bytes."""
    lengths = [2**power for power in range(7, longest + 1)]
    inputs = [np.random.default_rng(t).standard_normal((3, t, 16)) for t in lengths]
    return lengths, [fastest(attend, *given) for given in inputs], [peak(attend, *given) for given in inputs]


longest = {"exact": 11, "online softmax": 11}
with threadpool_limits(1):
    costs = {name: measured(attend, longest.get(name, 14)) for name, attend in attentions.items()}
widgets.efficient_attention.costs(costs)

# %% [markdown]
# Clocks differ from machine to machine and from run to run. With all points fitted, slopes come out too small: every call
# has a fixed cost, which short sequences feel most. Over the last three points expect about 2 for online softmax, 2 to 2.5 for
# exact attention, 1.2 to 1.5 for two scales, 1 to 1.3 for local and linear. That exact attention can grow *faster* than
# its square has a reason: from some length on the scores no longer fit into the processor's fast memory, and moving numbers
# costs more than computing with them. Online softmax, which computes the same scores, has no such bend. The slopes of
# memory are sharper, because memory is counted, not timed: 2 for exact, 1 for all others.
#
# One more thing to read off: for a few hundred tokens exact attention is as quick as most. Efficient methods pay off from some
# length on. On a GPU that length is far larger, since FlashAttention keeps each block in the small fast memory next to the
# arithmetic (Dao et al., 2022).

# %% tags=["nbval-check-output"]
for name, (lengths, _, sizes) in costs.items():
    power = np.polyfit(np.log(lengths[-3:]), np.log(sizes[-3:]), 1)[0]
    print(f"{name:<15} memory grows with the power {power:.1f} of the length")

# %% [markdown]
# ### Time per token
#
# Now generation. One layer with 4 heads and 64 features, and $t$ tokens already written: what does the next one cost, computed
# anew and with the cache?


# %%
rng = np.random.default_rng(0)
params = [rng.standard_normal((64, 64)) / 8 for _ in range(4)]


def anew(t):
    """The next token by computing all outputs again, as a stack of layers would have to."""
    with threadpool_limits(1):
        return fastest(multi_head_attention_forward, rng.standard_normal((1, t, 64)), *params, 4, causal_mask(t))


def with_cache(t):
    cache = rng.standard_normal((2, 1, 4, t, 16))
    with threadpool_limits(1):
        return fastest(kv_cache_step, rng.standard_normal((1, 1, 64)), *cache, *params, 4, runs=9)


# %%
short, long = [64, 128, 256, 512, 1024], [256, 512, 1024, 2048, 4096]
per_token = {
    "computed anew": (short, [anew(t) for t in short]),
    "with the cache": (long, [with_cache(t) for t in long]),
}
plots.show(
    widgets.efficient_attention.loglog(per_token, "seconds per token", 3),
    alt="Seconds for one token against the number of tokens before it, both axes logarithmic: computed anew the line is "
    "steep, with the cache it is far lower and flatter.",
    caption="The next token, computed anew and with the cache, one layer. Fitted to the last three lengths of each.",
)

# %% [markdown]
# The cache saves one power of the length, and no more: slopes of about 2 and about 1. A token still costs more the later it
# comes, for all the keys it has to meet, and a text of $T$ tokens costs about $T^2/2$ scores; computed anew each token costs
# $t^2$ and the text $T^3/3$. (For short texts the cost of each call and of the four projections, which do not depend on $t$,
# hides some of the growth.)

# %% [markdown]
# ### What linear attention forgets
#
# Linear attention keeps $d \cdot e$ numbers, however much it reads. What does that mean for a task that needs one thing of many?
# **Associative recall**: $P$ pairs (key symbol, value symbol) are shown, then one of the keys; the answer is its value. There are
# 64 key symbols and 16 value symbols, drawn anew for every example, so that only attention can answer: chance is 1/16.
#
# One layer is enough: $q$, $k$ and $v$ are looked up (lesson 15), and logits $= y\,W^\top$. Everything that is learned stands in
# one array of 160 rows: those of the 64 symbols as queries, as keys, of the 16 values, and the 16 rows of $W$. Your functions,
# forwards and backwards, in NumPy.

# %%
embedding_backward, adam_step = mine("embedding_backward"), mine("adam_step")
cross_entropy_backward = mine("cross_entropy_backward")
KEYS, VALUES, OUT = 64, 128, 144  # where the rows of keys, of values and of W begin


def pairs_to_recall(rng, n, pairs):
    """ids (n, 1 + 2 pairs): the row of the query, of the keys, of the values; answer (n,)"""
    keys = np.argsort(rng.random((n, 64)), axis=1)[:, :pairs]
    values, at = rng.integers(0, 16, (n, pairs)), (np.arange(n), rng.integers(0, pairs, n))
    return np.hstack([keys[at][:, None], KEYS + keys, VALUES + values]), values[at]


def looked_up(rows, ids):
    """q (n, 1, d), k (n, pairs, d), v (n, pairs, d)"""
    pairs = ids.shape[1] // 2
    return np.split(rows[ids], [1, 1 + pairs], axis=1)


# %%
def recall_gradient(rows, functions, ids, answer):
    """The gradient of all rows."""
    forward, backward = functions
    given = looked_up(rows, ids)
    y = forward(*given)[:, 0]
    dlogits = cross_entropy_backward(1.0, y @ rows[OUT:].T, answer)
    grads = backward((dlogits @ rows[OUT:])[:, None], *given)
    grad = embedding_backward(np.concatenate(grads, axis=1), ids, rows)
    grad[OUT:] += dlogits.T @ y
    return grad


def train_recall(functions, pairs, d, seed, steps):
    """A network that was trained on `pairs` pairs, and its accuracy on 1000 new examples."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (160, d))
    rows[OUT:] /= d**0.5
    m, sq = np.zeros_like(rows), np.zeros_like(rows)
    for t in range(1, steps + 1):
        lr = 0.4 / d**0.5 * min(1, t / 20) * (1 - t / (steps + 1))
        grad = recall_gradient(rows, functions, *pairs_to_recall(rng, 48, pairs))
        rows, m, sq = adam_step(rows, grad, m, sq, t, lr)
    ids, answer = pairs_to_recall(np.random.default_rng(99), 1000, pairs)
    logits = functions[0](*looked_up(rows, ids))[:, 0] @ rows[OUT:].T
    return rows, (logits.argmax(axis=1) == answer).mean()


# %%
exact, linear = (attention_forward, attention_backward), (linear_attention, linear_attention_backward)
networks = {"exact, d = 8": (exact, 8)} | {f"linear, d = {d}": (linear, d) for d in (4, 8, 16)}
counts, seeds = np.array([4, 8, 16, 32]), range(1 if plots.fast() else 3)
results = {name: (counts, np.full((len(seeds), len(counts)), np.nan)) for name in networks}
trained = {}


def chart_so_far(_):
    return [widgets.efficient_attention.recall(results, 1 / 16)]


with plots.Training(len(networks) * len(counts), "accuracy", unit="setting", charts=chart_so_far) as run:
    for name, (functions, d) in networks.items():
        accuracies = results[name][1]
        for place, pairs in enumerate(counts):
            for seed in seeds:
                steps = 20 if plots.fast() else 200
                trained[name, pairs, seed], accuracies[seed, place] = train_recall(functions, pairs, d, seed, steps)
            run.log(accuracies[:, place].mean())

# %%
print("pairs            " + "".join(f"{pairs:>6}" for pairs in counts))
for name, (_, accuracies) in results.items():
    print(f"{name:<17}" + "".join(f"{accuracy:6.2f}" for accuracy in accuracies.mean(axis=0)))

# %% [markdown]
# Three seeds each; the bars in the figure go from the least to the greatest, and most are too short to see. Is it the training?
# The hardest case once more, one seed, with five times the steps:

# %%
_, accuracy = train_recall(linear, 32, 8, 0, 20 if plots.fast() else 1000)
print(f"linear, d = 8, 32 pairs, 1000 steps: {accuracy:.2f}")

# %% [markdown]
# Hardly: five times the steps bring little. Exact attention with 8 features recalls one of 32 pairs with next to no mistake. Linear attention with 8 features does well with
# 4 pairs and badly with 32, and needs more features for more pairs. $S$ is a sum of $P$ products $\varphi(k_j)\,v_j^\top$, and as soon
# as there are more keys than directions, they overlap. Exact attention keeps all keys, which is what the cache costs. Arora et
# al. (2023) found the same trade in language models: most of the gap between models with and without attention lies in this kind of
# recall. Jelassi et al. (2024) prove for copying that a state of fixed size cannot keep up.

# %% [markdown]
# ## Look inside
#
# ### What the trained networks look at
#
# The networks that were trained on 16 pairs, asked for each of some keys in turn; the weights again by `v` = identity. Outlined
# is the key that should get all of it. Compare exact and linear with 4 pairs, then with 16.


# %%
def weights_of(name, functions):
    """(key symbols) -> the weights on them when each is asked for in turn."""
    rows = trained[name, 16, 0]
    return lambda symbols: functions[0](rows[symbols], rows[KEYS + symbols], np.eye(len(symbols)))


shown = {name: weights_of(name, functions) for name, (functions, _) in networks.items()}
widgets.efficient_attention.recalled(shown)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# Exact attention has learned large queries and keys: nearly all weight is on the right key, with 16 keys as with 4. The linear
# networks always leave something on every key. With few keys the right one still wins; with many, the little that each wrong
# one gets adds up to more than the right one has, and the answer drowns. More features make the right one stand out more.
#
# </details>
#
# ### What a cache takes
#
# Three known models, each as it was built (GPT-3 and Llama 7B have a key-value head for every query head). How many texts of
# 4096 tokens at once could each of them have in the 80 GB of one GPU, even if its weights took no room there?

# %%
widgets.efficient_attention.cache_size()

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# 4 texts, 37 texts, 59 texts. A cache grows with the tokens and with the texts that are served at once; the weights of a model
# are shared by all texts, the cache is not. Llama 2 70B with a key-value head for each of its 64 query heads would take 10.7 GB for
# one text of 4096 tokens; with its 8 it is 1.3 GB. With a single one it would be another 8 times less, at some loss of quality (Ainslie et al., 2023).
#
# </details>

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken functions, three numbers to predict.

# %% [markdown] about="repair_online_logsumexp"
# ### Repair: a sum in two currencies
#
# `repair_online_logsumexp(x, block) -> lse`: $\log \sum_j e^{x_{ij}}$ for each row of `x (n, t)`, one block of columns at a time, `lse
# (n,)`. It is right for many inputs, for instance for numbers between 0 and 5 in a single block. There are two faults.
#
# By hand, `x = [0, log 3]`: `lse` = log 4.


# %% exercise="repair_online_logsumexp"
def repair_online_logsumexp(x, block):
    """x (n, t), block -> lse (n,)"""
    ### BEGIN SOLUTION
    m, total = np.full(len(x), -np.inf), np.zeros(len(x))
    for low in range(0, x.shape[1], block):
        part = x[:, low : low + block]
        now = np.maximum(m, part.max(axis=1))
        total = total * np.exp(m - now) + np.exp(part - now[:, None]).sum(axis=1)
        m = now
    return m + np.log(total)
    ### BROKEN
    # m, total = np.zeros(len(x)), np.zeros(len(x))
    # for low in range(0, x.shape[1], block):
    #     part = x[:, low : low + block]
    #     m = np.maximum(m, part.max(axis=1))
    #     total = total + np.exp(part - m[:, None]).sum(axis=1)
    # return m + np.log(total)
    ### END SOLUTION


# %% check="repair_online_logsumexp"
check(repair_online_logsumexp)

# %% [markdown] about="repair_cached_mask"
# ### Repair: a mask that forgot the cache
#
# `repair_cached_mask(t, s) -> allowed`: `t` new tokens, `s` keys in all, the last `t` of which are the new tokens' own; `allowed (t,
# s)`. It is right when there is no cache.
#
# By hand, two new tokens, three keys: the first new token stands at place 1 and sees 0 and 1, the second sees all three.


# %% exercise="repair_cached_mask"
def repair_cached_mask(t, s):
    """t, s -> allowed (t, s)"""
    ### BEGIN SOLUTION
    return np.arange(s) <= s - t + np.arange(t)[:, None]
    ### BROKEN
    # return np.tri(t, s, dtype=bool)
    ### END SOLUTION


# %% check="repair_cached_mask"
check(repair_cached_mask)

# %% [markdown] about="count_local_pairs"
# ### Predict: how many scores?
#
# `count_local_pairs(t, window) -> pairs`: the scores that local attention needs for `t` tokens, with `window` < `t`.
#
# By hand, 4 tokens, window 1: 2 + 3 + 3 + 2 = 10.


# %% exercise="count_local_pairs"
def count_local_pairs(t, window):
    """t, window -> pairs ()"""
    ### BEGIN SOLUTION
    return t * (2 * window + 1) - window * (window + 1)
    ### END SOLUTION


# %% check="count_local_pairs"
check(count_local_pairs)

# %% [markdown] about="attention_cost"
# ### Predict: FLOPs and bytes
#
# `attention_cost(n, num_heads, t, s, d) -> flops, score_bytes`: the floating point operations of the two matrix products of exact
# attention, `q (n, num_heads, t, d)`, `k` and `v (n, num_heads, s, d)`, an addition and a multiplication counted as two, softmax not
# counted; and the bytes of its scores in float32.
#
# By hand, one example, two heads, $t = 3$, $s = 5$, $d = 4$: 30 scores, each 4 multiplications and 4 additions to compute and as
# many to use: 480 FLOPs, and 120 bytes.


# %% exercise="attention_cost"
def attention_cost(n, num_heads, t, s, d):
    """n, num_heads, t, s, d -> flops (), score_bytes ()"""
    ### BEGIN SOLUTION
    scores = n * num_heads * t * s
    return 4 * d * scores, 4 * scores
    ### END SOLUTION


# %% check="attention_cost"
check(attention_cost)

# %% [markdown] about="kv_cache_size"
# ### Predict: the size of a cache
#
# `kv_cache_size(layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2) -> size`: the bytes of all keys and values
# of one text. A head has `embed_dim // num_heads` numbers.
#
# By hand, 2 layers, 4 heads, 2 key-value heads, `embed_dim` 12, 5 tokens: a head has 3 numbers, so a token takes 2 · 2 · 2 · 3 = 24
# numbers in all layers; five tokens 120, which are 240 bytes.


# %% exercise="kv_cache_size"
def kv_cache_size(layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2):
    """layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number -> size ()"""
    ### BEGIN SOLUTION
    return 2 * layers * num_kv_heads * (embed_dim // num_heads) * tokens * bytes_per_number
    ### END SOLUTION


# %% check="kv_cache_size"
check(kv_cache_size)

# %% [markdown]
# When is attention's square the problem at all? A layer of width $D$ also has four projections, $8D^2$ FLOPs per token, and a
# feed-forward part of twice that (lesson 19), $16D^2$. The scores take $4TD$ per token. They are equal at $T = 6D$.

# %% tags=["nbval-check-output"]
for tokens in (1024, 4096, 16384, 65536):
    scores, _ = attention_cost(1, 32, tokens, tokens, 128)
    others = 24 * 4096**2 * tokens
    print(f"width 4096, {tokens:>6} tokens: {scores / (scores + others):4.0%} of a layer's FLOPs are attention's square")

# %% [markdown]
# ### What people believe, and what is true
#
# - **"FlashAttention is an approximation."** It is the exact result, to rounding. You wrote its core and measured the
#   difference.
# - **"FlashAttention does less work."** It does more: the backward pass computes all scores again. What it does less is moving
#   numbers between the GPU's memory and its arithmetic.
# - **"A sparse mask makes attention cheaper."** You measured the same memory with it and without. Only a program that never
#   computes the masked scores is cheaper.
# - **"Linear attention is softmax attention, only faster."** It is another function, with a state of fixed size, and recall is
#   where it shows.
# - **"Attention is slow because it is quadratic."** Not for short texts: at width 4096 and 1024 tokens the square is 4 % of a
#   layer's FLOPs.
# - **"With a cache, generation is linear."** Each token still meets all before it. What is gone is computing them again.
# - **"The cache is there for training, too."** In training all tokens are known: one pass with a causal mask does all at once.
# - **"Grouped queries save FLOPs."** The scores are as many as before. What shrinks is the cache, the time to read it, and the two
#   projections that fill it.
# - **"Twelve layers with a window of 512 see 6144 tokens back."** They *can*. Whether they do is another question: what has to
#   pass through many averages is faint when it arrives.


# %% [markdown]
# ## Where it is used, and what came after
#
# Online softmax in blocks is how nearly every large model computes its attention today, in training and in use, since
# FlashAttention (Dao et al., 2022) made exact attention cheap enough that many approximations lost their reason. The key-value cache
# is in every program that serves language models; Kwon et al. (2023) manage its memory in pages, like an operating system.
# Grouped queries are in Llama 2 70B and most of its successors. Windows are in every layer of Mistral 7B (Jiang et al.,
# 2023) and in every other layer of GPT-3 (Brown et al., 2020). Longformer (Beltagy et al., 2020) and BigBird (Zaheer et al., 2020) add a few tokens
# that see, and are seen by, all. Two scales is the simplest of a family: the fast multipole method of physics, brought to attention
# as H-Transformer-1D (Zhu and Soricut, 2021) and FMMformer (Nguyen et al., 2021).
#
# Linear attention has a second life as a recurrent network with a matrix for a state. Schlag et al. (2021) read the sum $\varphi(k)
# v^\top$ as *writing* into a memory, and let a new value replace the old one instead of being added to it; Mamba (Gu and Dao,
# 2023) lets the input decide what is forgotten. Performers (Choromanski et al., 2021) choose random features $\varphi$ so that the
# product approximates the exponential itself.
#
# What is disputed:
#
# - **Whether approximations of attention are worth it.** Tay et al. (2020) compared ten on one benchmark and found none best
#   throughout. With exact attention as cheap as it has become, the question has moved to lengths of hundreds of thousands.
# - **Whether a state of fixed size can be enough.** For recall it cannot (you saw it); for much of language it seems to be. Many
#   recent models mix a few exact layers with many recurrent ones.
# - **Whether long contexts are used.** Models that accept long texts may still find what is in their middle badly (Liu et al.,
#   2023).
#
# You can now
#
# - say of any attention what it computes, what it holds and what it skips, and check it by counting;
# - carry a softmax along a stream, forwards and backwards, and explain the factor $e^{m - m'}$;
# - turn linear attention into a recurrent network, and say what that costs;
# - work out the size of a cache, and what sharing keys and values saves.
#
# To read:
#
# - T. Dao, D. Fu, S. Ermon, A. Rudra and C. Ré, *FlashAttention: fast and memory-efficient exact attention with
#   IO-awareness*, 2022. You have what you need for Algorithm 1.
# - A. Katharopoulos, A. Vyas, N. Pappas and F. Fleuret, *Transformers are RNNs*, 2020.
# - R. Child, S. Gray, A. Radford and I. Sutskever, *Generating long sequences with sparse transformers*, 2019.
# - J. Ainslie et al., *GQA: training generalized multi-query transformer models from multi-head checkpoints*, 2023.
# - S. Arora et al., *Zoology: measuring and improving recall in efficient language models*, 2023.
