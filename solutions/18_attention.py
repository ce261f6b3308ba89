# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 18 · Attention
#
# A recurrent network carries what it has read in one state, step by step. **Attention** does without the carrying: a
# position that needs something sends out a *query*, every position offers a *key* that says what it has and a *value*
# that is handed over, and what comes back is a mixture of the values, most of it from where key and query agree. One
# step, whatever the distance.
#
# You will build attention, its masks and its heads, forwards and backwards, and the `nn.Module` that carries PyTorch's
# weights; then train it on tasks where it is known where to look, and measure whether it looks there. It often does.
# That this explains the answer is another matter, and you will see it fail.
#
# **You need** lessons 02 (softmax and its gradient), 03 (cross-entropy), 06 (Adam) and 16 (sequences, padding).
# **Time:** about five hours, three of them for the exercises.

# %% setup=true
from itertools import count, product

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import plots, widgets
from course.data import patterns
from course.widgets.weights import weights

# %%
plots.show(
    widgets.attention.diagram(),
    alt="A query is compared with four keys. The scores become weights, .03, .72, .06 and .20, with which four values "
    "are mixed into one output.",
    caption="What does “it” stand for in “the cat sees mice; it …”? Its query is compared with the key of every word. "
    "The scores become weights that sum to 1, and the output is the mixture of the values. (The scores are made up.)",
)

# %% [markdown]
# ## Play first
#
# The **score** of a query and a key is their dot product: large where both point the same way. A softmax turns the
# scores of one query into **weights**.

# %%
widgets.attention.guess_length(reference)

# %% [markdown]
# Now turn the query yourself. On the left, the query (thick) among three keys; in the middle, scores and weights; on
# the right, the three values, as thick as their weights, and the output `y`.
#
# 1. Turn the query (`query: direction`) until key 2 gets nearly everything. Then shorten it to 0. Where is `y` now?
# 2. Can you bring `y` out of the shaded triangle, by any means?
# 3. Turn key 0. What moves, and what does not? Then turn value 0.
# 4. Forbid keys, one after the other. What is `y` when nothing may be seen?

# %%
widgets.attention.vectors(reference("attention_weights"), reference("attention_forward"))

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - With a query of length 0 all scores are 0, all weights 1/3, and `y` is the plain mean of the values: a query that
#   asks for nothing gets a bit of everything.
# - `y` never leaves the triangle: weights are not negative and sum to 1. Attention *selects and mixes*, it makes
#   nothing up. In particular it cannot answer "none of these": something must get the weight.
# - A key decides how much, a value decides what. Turning key 0 changes all three weights (they share a sum of 1), and
#   no value; turning value 0 changes no weight.
# - Where nothing may be seen, `y` is 0. That is a definition, and one that needs care in the code.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# | | shape | |
# |---|---|---|
# | queries $q$ | `(…, T_q, d_k)` | one for each position that asks |
# | keys $k$ | `(…, T_k, d_k)` | one for each position that can be looked at |
# | values $v$ | `(…, T_k, d_v)` | what is handed over there |
# | scores $z$, weights $w$ | `(…, T_q, T_k)` | a row for each query, a column for each key |
# | mask | broadcasts to `(…, T_q, T_k)` | True where looking is allowed |
# | output $y$ | `(…, T_q, d_v)` | a mixture of values for each query |
#
# The dots are any leading axes: examples, heads, both or none. In **self-attention** queries, keys and values are made
# of the same sequence, so that $T_q = T_k$; in **cross-attention** the queries come from another one, and $T_q \neq
# T_k$. Only two sizes must agree: queries and keys have $d_k$ numbers, keys and values come in pairs.
#
# ### Forwards
#
# $$z_{ij} = \frac{q_i \cdot k_j}{\sqrt{d_k}}, \qquad w_{ij} = \frac{e^{z_{ij}}}{\sum_l e^{z_{il}}}, \qquad
# y_i = \sum_j w_{ij}\, v_j .$$
# The sum in the middle runs over the keys that query $i$ may see, and $w_{ij} = 0$ for the others. In matrices, $y =
# \mathrm{softmax}(q k^\top / \sqrt{d_k})\, v$ (Vaswani et al., 2017).
#
# ### Why divide by √d?

# %%
widgets.attention.guess_spread()

# %% [markdown]
# Let the numbers of $q$ and $k$ be independent, with mean 0 and variance 1. Each product $q_c k_c$ has mean 0 and
# variance $E[q_c^2]\,E[k_c^2] = 1$. The dot product is a sum of $d$ such products, uncorrelated, so variances add: $d$
# altogether, and a standard deviation of $\sqrt d$. Divided by it, scores have a spread of 1 whatever $d$ is.
#
# Why would a large spread be bad? Go through the sizes below, without and with the division.

# %%
widgets.attention.scaling()

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# The largest of 16 scores stands out by more, the more they spread. Without division, at $d_k = 1024$, a random query
# gives 0.96 of its weight to a single key: before anything is learned, attention has decided. And it is hard to change
# its mind, since the derivative of a softmax, $w_j(1 - w_j)$ for a score's own weight, is 0 where a weight is 0 or 1.
# The *slope* in the caption is the sum of these over the keys, the mean over the queries. With the division it stays
# near 0.87 from $d_k = 4$ on; without, it falls to 0.05.
#
# The argument is about the start, when queries and keys are random. In a trained network they are not independent, and
# scores may grow as they like.
#
# </details>
#
# ### Where nothing is allowed
#
# A mask may leave a query without any key: an example of length 0, padding in front under a causal mask. Then the
# softmax is $0/0$. Three things are done about it:
#
# - **nothing.** The row is nan. Even if that row's output is thrown away, its gradient is not: $0 \cdot \mathrm{nan} =
#   \mathrm{nan}$, and after a step or two every weight of the network is nan.
# - **a large negative score** such as $-10^9$ instead of $-\infty$. All scores of the row are equal, and so all weights
#   are $1/T_k$: the query looks evenly at what it must not see.
# - **0.** No key, no weight, no value: $y_i = 0$, and no gradient. That is what `F.scaled_dot_product_attention` gives
#   since PyTorch 2.5 (before, it gave nan), and what is asked here.
#
# ### Backwards
#
# The loss is $L$, and $dy$ is given. From $y_i = \sum_j w_{ij} v_j$: value $j$ goes into every output, with weight
# $w_{ij}$, and weight $w_{ij}$ multiplies $v_j$. So
# $$dv_j = \sum_i w_{ij}\, dy_i, \qquad dw_{ij} = dy_i \cdot v_j .$$
# In matrices $dv = w^\top dy$ and $dw = dy\, v^\top$. Through the softmax of row $i$, by lesson 02:
# $$dz_{ij} = w_{ij}\Big(dw_{ij} - \sum_l w_{il}\, dw_{il}\Big).$$
# Read it: $dw_{ij}$ says how useful value $j$ would be, the sum says how useful the present mixture is, and the score
# rises where a value is more useful than the mixture. Each row of $dz$ sums to 0. Where $w_{ij} = 0$, in particular
# where looking is forbidden, $dz_{ij} = 0$; so a masked backward pass needs no mask once it has $w$.
#
# Last, $z_{ij} = q_i \cdot k_j / \sqrt{d_k}$. A query meets all keys, a key meets all queries:
# $$dq_i = \frac{1}{\sqrt{d_k}} \sum_j dz_{ij}\, k_j, \qquad dk_j = \frac{1}{\sqrt{d_k}} \sum_i dz_{ij}\, q_i .$$
#
# ### Several heads
#
# One query gives one set of weights. To look at two places for two different reasons takes two, hence **heads**: with
# $H$ of them, the features of $q$, $k$ and $v$ are cut into $H$ pieces, each piece has an attention of its own, and the
# outputs are put beside each other and mixed by a last matrix. From a sequence $x$ `(N, T, D)`
# $$q = x w_q^\top, \quad k = x w_k^\top, \quad v = x w_v^\top, \qquad y = \mathrm{join}_h\big(\mathrm{attention}(q_h,
# k_h, v_h)\big)\, w_o^\top ,$$
# where $q_h$ are the features that belong to head $h$. With $w_o$ cut in the same way the last product is a sum, $\sum_h
# y_h\, w_{o,h}^\top$: each head writes its own contribution, and heads can be switched off one at a time.
#
# Backwards there is nothing new: $x$ goes three ways into $y$, so its gradients add, $dx = dq\, w_q + dk\, w_k + dv\,
# w_v$; and cutting into heads moves numbers without changing them, so that its gradient is the joining, and the other
# way round.

# %% [markdown]
# ## From scratch
#
# Masks, attention, heads; eight functions. None of them changes what it is given.

# %% [markdown] about="causal_mask"
# ### The causal mask
#
# Who writes a sequence from left to right must not look at what is still to come. `causal_mask(t) -> mask`, `(t, t)`,
# booleans (`&` and `~`, which join masks and turn them round, do not take floats): row i is the query at step i, column
# j the key at step j, True where j ≤ i.
#
# By hand, t = 3: `[[True, False, False], [True, True, False], [True, True, True]]`.


# %% exercise="causal_mask"
def causal_mask(t):
    """t -> mask (t, t), True where looking is allowed"""
    ### BEGIN SOLUTION
    return np.tri(t, dtype=bool)
    ### END SOLUTION


# %% check="causal_mask"
check(causal_mask)

# %% [markdown] about="padding_mask"
# ### The padding mask
#
# `padding_mask(lengths, t) -> mask`: `lengths (n,)`, whole numbers from 0 to t, `mask (n, t)`, True where the token
# exists. (The values are those of `length_mask` in lesson 16.) It speaks of keys; `mask[:, None, :]` broadcasts over
# the queries, `mask[:, None, None, :]` over heads and queries, and `&` joins it with a causal mask.
#
# By hand, lengths 2 and 0 and t = 3: `[[True, True, False], [False, False, False]]`.


# %% exercise="padding_mask"
def padding_mask(lengths, t):
    """lengths (n,), t -> mask (n, t), True where the token exists"""
    ### BEGIN SOLUTION
    return np.arange(t) < np.asarray(lengths)[:, None]
    ### END SOLUTION


# %% check="padding_mask"
check(padding_mask)

# %% [markdown] about="attention_weights"
# ### The weights
#
# `attention_weights(q, k, mask=None) -> w`: `q (…, T_q, d_k)`, `k (…, T_k, d_k)`, `mask` None or broadcasting to `(…,
# T_q, T_k)`, `w (…, T_q, T_k)`. Each row sums to 1 over its allowed keys and is 0 elsewhere; a row without any is 0
# throughout. Scores of ±1000 must not overflow (lesson 02: subtract each row's maximum).
#
# By hand, $d_k = 4$, one query $q = (2, 0, 0, 0)$, three keys: $(0, 0, 0, 0)$, $(\ln 3, 0, 0, 0)$ and $(9, 0, 0, 0)$,
# the last of them forbidden. Dot products 0 and $2 \ln 3$, divided by $\sqrt 4$: scores 0 and $\ln 3$. Then $e^0 = 1$,
# $e^{\ln 3} = 3$, and `w = [[1/4, 3/4, 0]]`.

# %%
q = np.array([[2.0, 0, 0, 0]])
k = np.array([[0.0, 0, 0, 0], [np.log(3), 0, 0, 0], [9, 0, 0, 0]])
mask = np.array([[True, True, False]])
np.testing.assert_allclose(reference("attention_weights")(q, k, mask), [[0.25, 0.75, 0]])


# %% exercise="attention_weights"
def attention_weights(q, k, mask=None):
    """q (…, T_q, d_k), k (…, T_k, d_k), mask (broadcasts to (…, T_q, T_k)) or None -> w (…, T_q, T_k)"""
    ### BEGIN SOLUTION
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total)
    ### END SOLUTION


# %% check="attention_weights"
check(attention_weights)

# %% [markdown] about="attention_forward"
# ### Attention
#
# `attention_forward(q, k, v, mask=None) -> y`: `v (…, T_k, d_v)`, `y (…, T_q, d_v)`, all else as before.
#
# By hand, with values $(4, 0)$, $(0, 8)$ and $(100, 100)$ to those keys: $y = \tfrac14 (4, 0) + \tfrac34 (0, 8) = (1,
# 6)$. The third value does not matter, however large.

# %%
v = np.array([[4.0, 0], [0, 8], [100, 100]])
np.testing.assert_allclose(reference("attention_forward")(q, k, v, mask), [[1, 6]])


# %% exercise="attention_forward"
def attention_forward(q, k, v, mask=None):
    """q (…, T_q, d_k), k (…, T_k, d_k), v (…, T_k, d_v), mask or None -> y (…, T_q, d_v)"""
    ### BEGIN SOLUTION
    return attention_weights(q, k, mask) @ v
    ### END SOLUTION


# %% check="attention_forward"
check(attention_forward)

# %% [markdown]
# Your functions on five tokens. Cells that may not be seen are struck through. Go through the masks; in `padding in
# front, causal`, look at the first two rows.

# %%
mine_and_theirs = attention_weights, attention_forward, reference("attention_weights"), reference("attention_forward")
widgets.attention.one_layer(*mine_and_theirs)

# %% [markdown] about="attention_backward"
# ### Attention, backwards
#
# `attention_backward(dy, q, k, v, mask=None) -> dq, dk, dv`, each of the shape of what it belongs to.
#
# By hand, the numbers from before and $dy = (1, 0)$. $dv$: $\tfrac14 dy = (0.25, 0)$, $\tfrac34 dy = (0.75, 0)$ and 0.
# $dw$: $dy \cdot v_j$, that is 4, 0 and 100. The mixture is worth $\tfrac14 \cdot 4 + \tfrac34 \cdot 0 + 0 \cdot 100 =
# 1$. $dz$: $\tfrac14 (4 - 1) = 0.75$, $\tfrac34 (0 - 1) = -0.75$, and $0 \cdot 99 = 0$: the forbidden value would have
# been most useful, and is still not asked for. Last, divide by $\sqrt 4 = 2$: $dk_0 = 0.75\, q / 2 = (0.75, 0, 0, 0)$,
# $dk_1 = -dk_0$, $dk_2 = 0$, and $dq = (-0.75 \ln 3 / 2, 0, 0, 0) = (-0.412, 0, 0, 0)$: away from key 1.

# %%
dq, dk, dv = reference("attention_backward")(np.array([[1.0, 0]]), q, k, v, mask)
np.testing.assert_allclose(dq[0, 0], -0.75 * np.log(3) / 2)
np.testing.assert_allclose(dk[:, 0], [0.75, -0.75, 0])
np.testing.assert_allclose(dv[:, 0], [0.25, 0.75, 0])


# %% exercise="attention_backward"
def attention_backward(dy, q, k, v, mask=None):
    """dy (…, T_q, d_v), q (…, T_q, d_k), k (…, T_k, d_k), v (…, T_k, d_v), mask or None -> dq, dk, dv"""
    ### BEGIN SOLUTION
    w = attention_weights(q, k, mask)
    dw = dy @ np.swapaxes(v, -1, -2)
    dz = w * (dw - (w * dw).sum(axis=-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return dz @ k, np.swapaxes(dz, -1, -2) @ q, np.swapaxes(w, -1, -2) @ dy
    ### END SOLUTION


# %% check="attention_backward"
check(attention_backward)

# %% [markdown]
# The gradient of one number of the output, with your function. Which rows of `dq`, `dk` and `dv` can be other than 0?
# Say it before you move `row of dy`, for each mask.

# %%
widgets.attention.one_gradient(attention_backward, reference("attention_backward"))

# %% [markdown] about="split_heads"
# ### Into heads
#
# `split_heads(x, num_heads) -> y`: `x (n, t, d)`, `y (n, num_heads, t, d / num_heads)`: head 0 gets the first
# $d$/heads features of every token, head 1 the next ones.
#
# By hand, one example, two tokens `[1, 2, 3, 4]` and `[5, 6, 7, 8]`, two heads: head 0 sees the tokens `[1, 2]` and
# `[5, 6]`, head 1 `[3, 4]` and `[7, 8]`. (A mere `x.reshape(1, 2, 2, 2)` has the same shape and gives head 0 the whole
# first token.)

# %%
tokens = np.arange(1.0, 9).reshape(1, 2, 4)
np.testing.assert_array_equal(reference("split_heads")(tokens, 2)[0], [[[1, 2], [5, 6]], [[3, 4], [7, 8]]])


# %% exercise="split_heads"
def split_heads(x, num_heads):
    """x (n, t, d), num_heads -> y (n, num_heads, t, d / num_heads)"""
    ### BEGIN SOLUTION
    n, t, d = x.shape
    return x.reshape(n, t, num_heads, d // num_heads).transpose(0, 2, 1, 3)
    ### END SOLUTION


# %% check="split_heads"
check(split_heads)

# %% [markdown] about="multi_head_attention_forward"
# ### Several heads
#
# `multi_head_attention_forward(x, w_q, w_k, w_v, w_o, num_heads, mask=None) -> y`: self-attention. `x (n, t, d)`, `w_q`
# and `w_k (a, d)`, `w_v (b, d)`, `w_o (o, b)`, `mask` None or broadcasting to `(n, num_heads, t, t)`, `y (n, t, o)`.
# The a and b features are cut into heads: $d_k = a / H$ and $d_v = b / H$. No biases. (Mostly $a = b = o = d$. Where
# they differ, a forgotten transpose is noticed.)
#
# By hand, two tokens $x = (1, 0), (0, 1)$, two heads, all four matrices the identity. Head 0 sees the first feature, 1
# and 0, as queries, keys and values: its first query has the scores 1 and 0, the weights 0.73 and 0.27, and the output
# 0.73; its second query, 0, has equal weights and the output 0.5. Head 1 sees 0 and 1: 0.5, then 0.73. Joined, $y =
# (0.73, 0.5), (0.5, 0.73)$.

# %%
share = np.e / (np.e + 1)
two = reference("multi_head_attention_forward")(np.eye(2)[None], *[np.eye(2)] * 4, 2)
np.testing.assert_allclose(two[0], [[share, 0.5], [0.5, share]])


# %% exercise="multi_head_attention_forward"
def multi_head_attention_forward(x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    """x (n, t, d), w_q, w_k (a, d), w_v (b, d), w_o (o, b), num_heads, mask or None -> y (n, t, o)"""
    ### BEGIN SOLUTION
    q, k, v = (split_heads(x @ w.T, num_heads) for w in (w_q, w_k, w_v))
    y = attention_forward(q, k, v, mask)
    return y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1) @ w_o.T
    ### END SOLUTION


# %% check="multi_head_attention_forward"
check(multi_head_attention_forward)

# %% [markdown] about="multi_head_attention_backward"
# ### Several heads, backwards
#
# `multi_head_attention_backward(dy, x, w_q, w_k, w_v, w_o, num_heads, mask=None) -> dx, dw_q, dw_k, dw_v, dw_o`.
#
# By hand, one token, one head, one feature: $x = 2$, $w_q = w_k = 1$, $w_v = 3$, $w_o = 5$. With one key the weight is
# 1 whatever the score, so $y = 5 \cdot 3 \cdot 2 = 30$, and nothing depends on $w_q$ and $w_k$: `dw_q` = `dw_k` = 0.
# With `dy = 1`: `dw_o` = 3 · 2 = 6, `dw_v` = 5 · 2 = 10, `dx` = 5 · 3 = 15.

# %%
one = [np.array([[value]]) for value in (1.0, 1.0, 3.0, 5.0)]
found = reference("multi_head_attention_backward")(np.ones((1, 1, 1)), np.full((1, 1, 1), 2.0), *one, 1)
np.testing.assert_allclose([part.item() for part in found], [15, 0, 0, 10, 6])


# %% exercise="multi_head_attention_backward"
def multi_head_attention_backward(dy, x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    """dy (n, t, o), x (n, t, d), w_q, w_k, w_v, w_o, num_heads, mask or None -> dx, dw_q, dw_k, dw_v, dw_o"""
    ### BEGIN SOLUTION
    def join(heads):
        return heads.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)

    q, k, v = (split_heads(x @ w.T, num_heads) for w in (w_q, w_k, w_v))
    y = join(attention_forward(q, k, v, mask))
    dq, dk, dv = map(join, attention_backward(split_heads(dy @ w_o, num_heads), q, k, v, mask))
    dw_q, dw_k, dw_v = (np.einsum("nta,ntd->ad", part, x) for part in (dq, dk, dv))
    return dq @ w_q + dk @ w_k + dv @ w_v, dw_q, dw_k, dw_v, np.einsum("nto,ntb->ob", dy, y)
    ### END SOLUTION


# %% check="multi_head_attention_backward"
check(multi_head_attention_backward)

# %% [markdown]
# ## Against a reference
#
# Cross-attention of 3 queries and 5 keys, two examples, in one of which the last two keys are padding, and one query
# that may see nothing at all: yours, finite differences, PyTorch.

# %%
numerical_gradient, softmax_forward = mine("numerical_gradient"), mine("softmax_forward")
rng = np.random.default_rng(18)
q, k, v = (rng.normal(size=size) for size in ((2, 3, 4), (2, 5, 4), (2, 5, 2)))
mask = np.repeat(padding_mask(np.array([5, 3]), 5)[:, None], 3, axis=1)
mask[1, 2] = False
dy = rng.normal(size=(2, 3, 2))
by_hand, by_torch = (f(dy, q, k, v, mask) for f in (attention_backward, reference("attention_backward")))
numbers = [
    numerical_gradient(lambda z: (dy * attention_forward(z, k, v, mask)).sum(), q),
    numerical_gradient(lambda z: (dy * attention_forward(q, z, v, mask)).sum(), k),
    numerical_gradient(lambda z: (dy * attention_forward(q, k, z, mask)).sum(), v),
]
triples = zip(by_hand, numbers, by_torch, strict=True)
plots.gradient_check(dict(zip(("dq", "dk", "dv"), triples, strict=True)))

# %% [markdown]
# And the promises, one by one:

# %% tags=["nbval-check-output"]
y = attention_forward(q, k, v, mask)
print("where nothing is allowed, y is       ", y[1, 2], "and dq is", attention_backward(dy, q, k, v, mask)[0][1, 2])
high = attention_weights(np.array([[1000.0], [-1000.0]]), np.array([[1.0], [-1.0], [0.5]]))
print("weights at scores of ±1000           ", high.round(3).tolist())
v_other = np.where(padding_mask(np.array([5, 3]), 5)[..., None], v, 1e6)
print("other values in the padding change y?", not np.array_equal(y, attention_forward(q, k, v_other, mask)))
x, params = rng.normal(size=(1, 6, 4)), [rng.normal(size=(4, 4)) for _ in range(4)]
later = x.copy()
later[:, 4:] = rng.normal(size=(1, 2, 4))
before, after = (multi_head_attention_forward(part, *params, 2, causal_mask(6)) for part in (x, later))
print("causal: new tokens 4 and 5 change y at steps", np.flatnonzero(np.abs(before - after)[0].max(axis=1) > 1e-12))

# %% [markdown]
# What a check says of the mistake that runs without a complaint:

# %% tags=["nbval-check-output"]
def large_negative(q, k, mask=None):
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    return softmax_forward(scores if mask is None else np.where(mask, scores, -1e9))


print(examine(large_negative, "attention_weights").mistake)

# %% [markdown]
# ## In PyTorch
#
# `F.scaled_dot_product_attention(query, key, value, attn_mask)` is your `attention_forward`, with the same meaning of a
# boolean mask; a mask of floats is *added* to the scores. `nn.MultiheadAttention` is older and differs: its boolean
# masks are True where looking is **forbidden**, it returns weights as well, by default their *mean over the heads*, and
# where nothing is allowed that of PyTorch 2.13 says

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
builtin = nn.MultiheadAttention(4, 2, batch_first=True)
x_torch = torch.randn(1, 3, 4)
allowed = torch.tensor([[True, False, False], [True, True, False], [False, False, False]])
for need_weights in (True, False):
    y_torch, _ = builtin(x_torch, x_torch, x_torch, attn_mask=~allowed, need_weights=need_weights)
    print(f"need_weights={need_weights!s:<5}  output at the query that may see nothing:", y_torch[0, 2].tolist())

# %% [markdown]
# one thing or another, depending on whether it has been asked for the weights. (0 is right here: its output bias is
# still 0.)
#
# Why bother about a row that nobody needs? Below, the loss uses row 0 alone, and row 1 is nan. Scores of −∞ are filled
# in or added; the output of row 1 is thrown away, or its weights are set to 0 by `torch.where`. Which gradients are
# safe?

# %% tags=["nbval-check-output"]
allowed = torch.tensor([[True, True, False], [False, False, False]])
never = torch.zeros(2, 3).masked_fill(~allowed, -torch.inf)
ways = {"filled": lambda z: z.masked_fill(~allowed, -torch.inf), "added": lambda z: z + never}
cures = {"thrown away": lambda w: w, "set to 0": lambda w: torch.where(allowed, w, 0.0)}
for (way, forbid), (told, cure) in product(ways.items(), cures.items()):
    z, v_torch = torch.ones(2, 3, requires_grad=True), torch.ones(3, 1, requires_grad=True)
    y_torch = cure(forbid(z).softmax(-1)) @ v_torch
    y_torch[0].sum().backward()
    dz, dv = ("nan" if part.grad.isnan().any() else "fine" for part in (z, v_torch))
    print(f"−∞ {way + ',':<8}row 1 {told:<12} dz: {dz:<5} dv: {dv}")

# %% [markdown]
# Only filling *and* setting to 0 is safe. Added, the nan goes back through the sum into the scores, and from there into
# all queries and keys; thrown away, it has still multiplied the values. A large negative number in the place of −∞, and
# weights that are set to 0 afterwards, avoid the nan from the start.

# %% [markdown] about="MultiHeadAttention"
# ### Attention as a module
#
# `MultiHeadAttention(embed_dim, num_heads)` with `forward(query, key, value, mask=None) -> y`: `query (N, T_q, D)`,
# `key` and `value (N, T_k, D)`, `mask` as everywhere in this course, True where looking is allowed, broadcasting to
# `(N, num_heads, T_q, T_k)`; a query that may see nothing gets weights of 0. It carries the `state_dict` of
# `nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)`:
#
# | name | shape | at the start |
# |---|---|---|
# | `in_proj_weight` | (3D, D): the rows of $w_q$, then $w_k$, then $w_v$ | `nn.init.xavier_uniform_` |
# | `in_proj_bias` | (3D,): likewise | 0 |
# | `out_proj.weight`, `out_proj.bias` | an `nn.Linear(D, D)` | as `nn.Linear` draws it; 0, which it does not |
#
# You may not use the two built-ins above.
#
# By hand, D = 1, one head, `in_proj_weight` = (1, 1, 3), `in_proj_bias` = 0, `out_proj` 5 with bias 7, and one token
# 2: $y = 5 \cdot 3 \cdot 2 + 7 = 37$; with `mask` False, $y = 7$.


# %% exercise="MultiHeadAttention"
class MultiHeadAttention(nn.Module):
    """query (N, T_q, D), key and value (N, T_k, D), mask (broadcasts to (N, heads, T_q, T_k)) or None -> y (N, T_q, D)

    Two methods: __init__ makes in_proj_weight, in_proj_bias and out_proj, forward(self, query, key, value, mask=None).
    """

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        ### BEGIN SOLUTION
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query, key, value, mask=None):
        layers = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (F.linear(*layer).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in layers)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
        w = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask
        return self.out_proj((w @ v).transpose(1, 2).flatten(2))
        ### END SOLUTION

# %% check="MultiHeadAttention"
check(MultiHeadAttention)

# %% tags=["nbval-check-output"]
layer, builtin = MultiHeadAttention(8, 2).double(), nn.MultiheadAttention(8, 2, batch_first=True).double()
print("state_dict carried over:", layer.load_state_dict(builtin.state_dict()))
query, key = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
exists = torch.from_numpy(padding_mask(np.array([5, 2]), 5))
theirs, _ = builtin(query, key, key, key_padding_mask=~exists)
print("as the built-in, padded:", torch.allclose(layer(query, key, key, exists[:, None, None]), theirs))
theirs, _ = builtin(query, query, query)
print("as the built-in, no mask:", torch.allclose(layer(query, query, query), theirs))
inputs = [part.requires_grad_() for part in (query, key, key.clone())]
print("gradcheck:", torch.autograd.gradcheck(lambda *args: layer(*args, exists[:, None, None]), inputs))

# %% [markdown]
# ## At work
#
# ### Where is the right place to look?
#
# Five tasks for a single layer of attention, generated so that it is known which key holds the answer:
#
# | task | what a query knows | what it has to name | where it has to look |
# |---|---|---|---|
# | copy | its position i | letter i | position i |
# | reverse | its position i, of 8 | letter 7 − i | position 7 − i |
# | sort | the letter named last | the next in the alphabet of those that are there | wherever that letter is |
# | brackets | it is a closing bracket `/`, its depth, its position | the kind, ( [ or {, of the bracket that it closes | that bracket |
# | compare | its position i, of 8 | whether letter i comes before (<) or after (>) letter 7 − i | both |
#
# Letters, depths and positions are given as rows with a single one. Copy and sort come with 4 to 8 letters, so their
# keys are padded; brackets are self-attention under a causal and a padding mask. (The depth is given since one layer
# could not find it: counting brackets takes another.)

# %%
shown = {task: patterns.sample(task, 1, np.random.default_rng(4)) for task in ("sort", "brackets")}
tables = [
    weights(0 * b.mask, b.query_labels[0], b.key_labels[0], right=b.right, mask=b.mask, names=[task])
    for task, b in shown.items()
]
plots.show(
    widgets.picture.row(*tables),
    alt="Two empty tables of weights, for sort and brackets; the keys that hold the answers are outlined.",
    caption="One example of two tasks. A row asks, a column can be looked at; outlined is where the answer is, struck "
    "through what may not be seen.",
)

# %% [markdown] about="attention_mass"
# ### How much lies there?
#
# `attention_mass(w, right, mask=None) -> share, chance`: `w (…, t, s)` weights, `right` booleans that broadcast to it,
# True at the right keys. For each query with at least one right key, the sum of its weights on right keys; `share` is
# their mean over these queries. `chance` is what equal weights on all allowed keys would get, averaged over the same
# queries. (Queries that are asked nothing have no right key, and do not count.)
#
# By hand, `w = [[0.7, 0.3], [0.4, 0.6]]`, and only key 0 of query 0 is right: share 0.7, chance 0.5. If query 0 may see
# nothing but key 0, chance is 1.

# %%
w, right = np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([[True, False], [False, False]])
np.testing.assert_allclose(reference("attention_mass")(w, right), (0.7, 0.5))


# %% exercise="attention_mass"
def attention_mass(w, right, mask=None):
    """w (…, t, s), right (broadcasts to w), mask (broadcasts to w) or None -> share (), chance ()"""
    ### BEGIN SOLUTION
    right = np.broadcast_to(right, w.shape)
    allowed = np.broadcast_to(True if mask is None else mask, w.shape)
    rows = right.any(axis=-1)
    chance = (right & allowed)[rows].sum(axis=-1) / allowed[rows].sum(axis=-1)
    return (w * right)[rows].sum(axis=-1).mean(), chance.mean()
    ### END SOLUTION


# %% check="attention_mass"
check(attention_mass)

# %% [markdown]
# ### A layer that learns
#
# The layer is yours, with two heads of 8 numbers each. Five networks train at once, each from random weights and
# examples of its own, as from five seeds: everything has a first axis more, and your functions take any. The matrices
# are kept apart for each head, so that the heads' contributions to the answer are a sum.

# %%
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
adam_step = mine("adam_step")
NETWORKS, BATCH, WIDTH = 5, 32, 16


def swapped(x):
    return np.swapaxes(x, -1, -2)


def answers(params, queries, keys, mask):
    """q, k, v, what each head puts out, and what it says to each class (networks, N, heads, T_q, classes)."""
    q, k, v = (x[:, :, None] @ swapped(w)[:, None] for x, w in zip((queries, keys, keys), params, strict=False))
    y = attention_forward(q, k, v, mask[:, :, None])
    return q, k, v, y, y @ swapped(params[3])[:, None]


# %%
def gradients(params, queries, keys, mask, targets):
    """The loss of a batch (networks, N, …), the mean over the queries that are asked something; and its gradients."""
    q, k, v, y, said = answers(params, queries, keys, mask)
    logits, asked = said.sum(axis=2), targets >= 0
    dlogits = np.zeros_like(logits)
    # the mean of each network, not of all of them
    dlogits[asked] = NETWORKS * cross_entropy_backward(1.0, logits[asked], targets[asked])
    dsaid = dlogits[:, :, None]  # a sum hands its gradient to every head
    back = attention_backward(dsaid @ params[3][:, None], q, k, v, mask[:, :, None])
    grads = [(swapped(d) @ x[:, :, None]).sum(axis=1) for d, x in zip(back, (queries, keys, keys), strict=True)]
    grads.append((swapped(dsaid) @ y).sum(axis=1))
    return cross_entropy_forward(logits[asked], targets[asked]), grads


# %%
def training(task, heads=2, change=lambda batch: batch):
    """Endless training: each step gives its loss and the parameters (networks, heads, out, in) before it."""
    rng = np.random.default_rng(0)
    first = change(patterns.sample(task, 1, rng))
    f_q, f_k = first.queries.shape[-1], first.keys.shape[-1]
    size = WIDTH // heads
    shapes = (size, f_q), (size, f_k), (size, f_k), (len(patterns.NAMES[task]), size)
    params = [rng.normal(size=(NETWORKS, heads, *shape)) / np.sqrt(shape[1]) for shape in shapes]
    states = [(np.zeros_like(param), np.zeros_like(param)) for param in params]
    for t in count(1):
        batch = change(patterns.sample(task, NETWORKS * BATCH, rng))[:4]  # queries, keys, mask, targets
        loss, grads = gradients(params, *(x.reshape(NETWORKS, BATCH, *x.shape[1:]) for x in batch))
        yield loss, params
        moved = [adam_step(p, g, *s, t, lr=0.03) for p, g, s in zip(params, grads, states, strict=True)]
        params, states = [p for p, *_ in moved], [s for _, *s in moved]


# %%
def trained(runs, keep):
    """Trains all runs side by side, in rounds of ten steps; their parameters before the steps in `keep`."""
    kept = {name: [] for name in runs}
    with plots.Training(keep[-1] // 10, *(f"{name} loss" for name in runs), unit="round") as live:
        for step in range(keep[-1] + 1):
            losses = []
            for name, run in runs.items():
                loss, params = next(run)
                losses.append(loss)
                if step in keep:
                    kept[name].append(params)
            if step % 10 == 9:
                live.log(*losses)
    return kept


# %%
steps = [0, 10, 20] if plots.fast() else [0, 25, 50, 100, 300]
kept = trained({task: training(task) for task in ("copy", "reverse", "sort", "brackets")}, steps)

# %% [markdown]
# New examples, the same for all; accuracy, and how much weight lies on the right key, for each head, over the five
# networks.


# %%
def fresh(task, params, change=lambda batch: batch):
    """200 new examples, the weights (networks, n, heads, T_q, T_k), what each head says to each class."""
    batch = change(patterns.sample(task, 200, np.random.default_rng(1)))
    arrays = [x[None] for x in batch[:3]]
    q, k, _, _, said = answers(params, *arrays)
    return batch, attention_weights(q, k, batch.mask[:, None]), said


def accuracy(batch, said):
    """For each network the share of right answers, of (networks, n, T_q, classes)."""
    asked = batch.targets >= 0
    return (said.argmax(axis=-1) == batch.targets)[:, asked].mean(axis=1)


def shares(w, batch, right=None):
    """The share of the weight on the right keys, (networks, heads), and by chance."""
    right = batch.right if right is None else right
    found = [[attention_mass(w[s, :, h], right, batch.mask) for h in range(w.shape[2])] for s in range(len(w))]
    return np.array(found)[..., 0], found[0][0][1]


def span(values, digits=2):
    return f"{np.min(values):.{digits}f} to {np.max(values):.{digits}f}"


# %%
print(f"{'':<10}{'accuracy':<16}{'weight on the right key':<26}by chance")
for task, params in kept.items():
    batch, w, said = fresh(task, params[-1])
    share, chance = shares(w, batch)
    print(f"{task:<10}{span(accuracy(batch, said.sum(axis=2))):<16}{span(share):<26}{chance:.2f}")

# %% [markdown]
# All four are solved by all five networks, and most of the weight of copy, reverse and brackets lies where it has to:
# four to seven times as much as by chance. So "this head looks at the matching bracket" is, here, a measured statement.
# Sort is the exception: every answer is right, and only half of the weight, more or less, is on the right letter.
#
# Is this still the layer from above? Brackets are self-attention; put the first network's matrices together, and your
# `multi_head_attention_forward` says the same:

# %% tags=["nbval-check-output"]
batch, _, said = fresh("brackets", kept["brackets"][-1])
w_q, w_k, w_v, w_o = (param[0] for param in kept["brackets"][-1])
matrices = *(w.reshape(WIDTH, -1) for w in (w_q, w_k, w_v)), w_o.transpose(1, 0, 2).reshape(-1, WIDTH)
logits = multi_head_attention_forward(batch.keys, *matrices, 2, batch.mask[:, None])
print("the same answers:", np.allclose(logits, said[0].sum(axis=1)))

# %% [markdown]
# ### One head or two?
#
# The fifth task needs two letters at once, and which is which. One head of 16 numbers against two heads of 8:

# %%
duel = trained({f"{heads} head{'s'[: heads - 1]}": training("compare", heads) for heads in (1, 2)}, steps)

# %%
own = np.eye(patterns.LENGTH, dtype=bool)
for name, params in duel.items():
    batch, w, said = fresh("compare", params[-1])
    print(f"{name:<8} accuracy of each network", *(f"{value:.2f}" for value in accuracy(batch, said.sum(axis=2))))
    for h in range(w.shape[2]):
        found = (shares(w, batch, right)[0][:, h] for right in (own, own[::-1]))
        near, far = (" ".join(f"{share:.2f}" for share in each) for each in found)
        print(f"   head {h}: weight on letter i {near}   on letter 7 − i {far}")

# %% [markdown]
# One head does not get there. What it puts out is a sum: so much of the value of letter i, so much of that of letter 7
# − i. A comparison needs *plus* the one and *minus* the other, and the same head reads both with the same matrix; all
# it can do is to weigh them differently. (Letter i alone is worth 0.78: with r of the other nine letters before it,
# guess the larger part, which is right in max(r, 9 − r) of 9 cases.) Two heads solve it in all five networks above,
# mostly one for each letter. Which head takes which is left to chance, and in the last two networks the roles are not
# clean: head 1 looks at both.
#
# ### Solved, but by looking elsewhere
#
# The first four tasks are answered without a fault. What do the weights say about *how*? Three interventions on the
# trained networks, none of which trains anything anew: give every allowed key the same weight (a baseline that
# Wiegreffe and Pinter, 2019, ask for), and switch off one head or the other.


# %%
def spoken(params, batch, w):
    """What the heads say to each class if their weights are w."""
    values = batch.keys[None, :, None] @ swapped(params[2])[:, None]
    return w @ values @ swapped(params[3])[:, None]


print(f"{'accuracy':<10}{'as it is':<15}{'equal weights':<15}{'without head 0':<17}without head 1")
for task, params in kept.items():
    batch, w, said = fresh(task, params[-1])
    allowed = batch.mask[:, None] + 0 * w
    equal = spoken(params[-1], batch, allowed / np.maximum(allowed.sum(axis=-1, keepdims=True), 1))
    cases = said.sum(axis=2), equal.sum(axis=2), said[:, :, 1], said[:, :, 0]
    first, second, third, last = (span(accuracy(batch, case)) for case in cases)
    print(f"{task:<10}{first:<15}{second:<15}{third:<17}{last}")

# %% [markdown]
# With equal weights everything falls: what the heads look at is needed. Sort is left with 0.17, brackets with 0.64 to
# 0.67 (knowing which kinds there are is worth something). Now the heads. In copy, reverse and brackets *either* can go,
# and the worst of the five networks still gets 0.95 right: each head looks at the right place, and neither is needed.
# Heads are redundant here, as Michel, Levy and Neubig (2019) found in large networks. In sort, where each has about
# half of its weight elsewhere, both are needed.
#
# Next, a counterfactual. Some letters of `reverse` occur twice. For a query whose letter has one twin, exchange the
# weight on the right key with that on the twin:

# %%
params = kept["reverse"][-1]
batch, w, said = fresh("reverse", params)
letters = batch.keys[:, :, : len(patterns.LETTERS)].argmax(axis=-1)
twin = (letters[:, None, :] == batch.targets[:, :, None]) & ~batch.right
rows = twin.sum(axis=-1) == 1
on_right, on_twin = ((w * there[:, None]).sum(axis=-1, keepdims=True) for there in (batch.right, twin))
exchanged = np.where(batch.right[:, None], on_twin, np.where(twin[:, None], on_right, w))
same = np.equal(*(spoken(params, batch, each).sum(axis=2).argmax(axis=-1)[:, rows] for each in (w, exchanged)))
shown = batch.right & rows[..., None]
print(f"{rows.sum()} queries of 1600, weight on the right key {span(shares(w, batch, shown)[0])}")
print(f"after the exchange {span(shares(exchanged, batch, shown)[0])}, same answer {span(same.mean(axis=1), 3)}")

# %% [markdown]
# Nearly all of the weight has moved to another position, and not one answer changes: equal letters have nearly equal
# values. Two sets of weights as different as can be, the same output; which of the two the network has cannot be told
# from its answers.
#
# Last, a layer that is not the first. What stands at position j of a deeper layer has passed through other layers,
# which move things. In the extreme: let an earlier layer have handed every position the letter of its right neighbour.


# %%
def moved(batch):
    """Position j holds the letter of position j + 1, the last one that of position 0."""
    letters, places = np.split(batch.keys, [len(patterns.LETTERS)], axis=2)
    return batch._replace(keys=np.concatenate([np.roll(letters, -1, axis=1), places], axis=2))


deep = trained({"reverse": training("reverse", change=moved)}, steps[-1:])
batch, w, said = fresh("reverse", deep["reverse"][-1], moved)
share, chance = shares(w, batch)
print(f"accuracy {span(accuracy(batch, said.sum(axis=2)))}")
print(f"weight on the right position {span(share)}, by chance {chance:.2f}")
print(f"weight on the position before it {span(shares(w, batch, np.roll(batch.right, -1, axis=2))[0])}")

# %% [markdown]
# The weights were *on the wrong position* throughout, less than by chance, and the network is always right: it looks at
# the position before, where the letter now is. Positions of a deep layer are not the tokens that stand above them.
# Whoever draws a late layer's weights as arrows between words draws something that nobody has measured.
#
# ### Is attention an explanation?
#
# It is disputed. Jain and Wallace (2019) trained classifiers of text with attention over a recurrent network. The
# weights agreed poorly with other measures of importance, such as gradients, and for most texts they found quite other
# weights with nearly the same output. Their title is their conclusion: *Attention is not explanation*. Wiegreffe and
# Pinter (2019) answered with *Attention is not not explanation*: other weights, found for one text at a time with all
# else kept, belong to no network that anybody has trained; that others are possible does not say that these mean
# nothing; on some of the data equal weights did as well, so that attention had nothing to explain there; and much
# depends on whether an explanation has to be faithful to the computation or only plausible to a reader.
#
# What you have measured fits into neither title. Right place, and needed (both heads together). Right place, and not
# needed (each alone). Another place, same answer (twins). Wrong position, right answers (a moved letter). Weights are a
# true statement about what is mixed at this place of the network. What an answer *depends on* takes an intervention.
#
# ### Without positions
#
# `copy` and `reverse` were given the positions as part of the keys. What if they were not?

# %%
widgets.attention.guess_shuffled(reference)

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(0)
x, params, order = rng.normal(size=(2, 6, 8)), [rng.normal(size=(8, 8)) for _ in range(4)], rng.permutation(6)
for name, mask in (("no mask", None), ("causal mask", causal_mask(6))):
    shuffled = multi_head_attention_forward(x[:, order], *params, 2, mask)
    gap = np.abs(shuffled - multi_head_attention_forward(x, *params, 2, mask)[:, order]).max()
    print(f"{name:<12} output of the shuffled tokens = the shuffled output: {gap < 1e-12}")

# %% [markdown]
# Attention is a function of a *set*: it is **equivariant** to permutations, as a convolution is to shifts (lesson 09).
# It has to be: in $z_{ij} = q_i \cdot k_j/\sqrt{d_k}$ stands nothing of where i and j are. A causal mask breaks the
# symmetry, and can be used to find out where one is; without one, positions must be put into the tokens. What this
# costs, task by task:


# %%
def bare(batch):
    """Keys without positions."""
    return batch._replace(keys=batch.keys[:, :, : len(patterns.LETTERS)])


lost = trained({task: training(task, change=bare) for task in ("reverse", "sort")}, steps[-1:])
for task, params in lost.items():
    batch, w, said = fresh(task, params[-1], bare)
    share, chance = shares(w, batch)
    print(f"{task:<8} accuracy {span(accuracy(batch, said.sum(axis=2)))}, weight {span(share)}, by chance {chance:.2f}")

# %% [markdown]
# Reverse is lost: it has the weights of chance, and its answers are right as often as those of somebody who always
# names the most frequent of the eight letters (0.30). Sort does not notice: it asks by content. Lesson 19 puts
# positions in, in three ways.

# %% [markdown]
# ## Look inside
#
# The first network of each task, while it learns. Outlined is the right key; a row shows its numbers under the pointer
# or on Tab.
#
# 1. `sort`, last snapshot: where does the weight go that is not on the right letter? Try several examples.
# 2. Switch head 0 off, then head 1 instead. In which tasks do the answers stay? In `compare`, which head looks where?
# 3. Pull `snapshot` back to 0 and forth again. Which task finds its pattern first?

# %%
nets = kept | {"compare": duel["2 heads"]}
gallery = {task: patterns.sample(task, 8, np.random.default_rng(2)) for task in nets}


def answer(task, moment, on):
    """Weights (n, heads, T_q, T_k) and answers (n, T_q) of the first network with only these heads on."""
    params = [param[:1] for param in nets[task][moment]]
    batch = gallery[task]
    q, k, _, _, said = answers(params, *(x[None] for x in batch[:3]))
    return attention_weights(q, k, batch.mask[:, None])[0], said[0][:, on].sum(axis=1).argmax(axis=-1)


widgets.attention.heads(gallery, answer, lambda w, batch: shares(w[None], batch)[0][0], steps)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - In `sort`, most of what is not on the right letter is on those that come next in the alphabet. (The cell below
#   counts.)
# - In `copy`, `reverse` and `brackets` the answers stay with either head off. In `compare` they do not: head 0 looks at
#   letter 7 − i, head 1 at letter i.
# - All patterns are there at step 100, `brackets` and `copy` before `compare`. After that the accuracy is at its end,
#   and the weights go on getting sharper, slowly.
#
# </details>

# %%
batch, w, said = fresh("sort", kept["sort"][-1])
letters = batch.keys[:, :, : len(patterns.LETTERS)].argmax(axis=-1) + 100 * ~batch.mask[:, 0]  # padding is far off
ranks = (letters[:, None, :] < letters[:, :, None]).sum(axis=-1)[:, None]
steps_on = ranks - (ranks * batch.right).sum(axis=-1, keepdims=True)
for ahead in range(-2, 4):
    there = (steps_on == ahead) & batch.right.any(axis=-1, keepdims=True) & batch.mask
    print(f"{ahead:+d} letters from the right one: {attention_mass(w, there[:, None], batch.mask[:, None])[0]:.2f}")

# %% [markdown]
# From the right letter on the weight falls off along the alphabet, and those before it, which have been named already,
# get little. The right one is ahead of the others, and being ahead is enough to be named. The answers are those of a
# sharp rule; the weights are not.

# %% [markdown]
# ## Repair, predict, and what goes wrong

# %% [markdown] about="repair_attention_forward"
# ### Repair: a mask that comes too late
#
# `repair_attention_forward(q, k, v, mask=None) -> y`, as `attention_forward`. All shapes are right, nothing is nan,
# what is forbidden has a weight of 0, and networks with it train. There are two faults.


# %% exercise="repair_attention_forward"
def repair_attention_forward(q, k, v, mask=None):
    """q (…, T_q, d_k), k (…, T_k, d_k), v (…, T_k, d_v), mask or None -> y (…, T_q, d_v)"""
    ### BEGIN SOLUTION
    return attention_weights(q, k, mask) @ v
    ### BROKEN
    # scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    # e = np.exp(scores - scores.max(axis=-2, keepdims=True))
    # w = e / e.sum(axis=-2, keepdims=True)
    # if mask is not None:
    #     w = w * mask
    # return w @ v
    ### END SOLUTION


# %% check="repair_attention_forward"
check(repair_attention_forward)

# %% [markdown] about="count_attention"
# ### Predict: what does it cost?
#
# `count_attention(n, t, embed_dim, num_heads) -> parameters, scores, multiplications` of multi-head self-attention
# without biases, all of whose matrices are `(embed_dim, embed_dim)`: the learnable numbers; the scores of a whole
# batch; and the multiplications of its matrix products in one forward pass: four linear layers, the scores, the mixing.
#
# By hand, n = 1, t = 3, embed_dim = 2, one head: 4 · 4 = 16 parameters, 9 scores, and 4 · 3 · 4 = 48 multiplications in
# the linear layers, 9 · 2 for the scores, 9 · 2 for the mixing: 84.


# %% exercise="count_attention"
def count_attention(n, t, embed_dim, num_heads):
    """n, t, embed_dim, num_heads -> parameters (), scores (), multiplications ()"""
    ### BEGIN SOLUTION
    parameters = 4 * embed_dim**2
    scores = n * num_heads * t * t
    return parameters, scores, n * t * parameters + 2 * n * t * t * embed_dim
    ### END SOLUTION


# %% check="count_attention"
check(count_attention)

# %% [markdown]
# Where does the work go? Before you run it: a model of width 512 with 8 heads; from which length on do scores and
# mixing cost more than the linear layers?

# %% tags=["nbval-check-output"]
for t in (128, 1024, 8192):
    parameters, scores, products = count_attention(1, t, 512, 8)
    print(f"T = {t:<5} scores {scores / 1e6:7.1f} million, multiplications {products / 1e9:6.2f} billion, "
          f"of which scores and mixing {1 - t * parameters / products:.0%}")

# %% [markdown]
# $4TD^2$ against $2T^2D$: equal at $T = 2D$, here 1024. Below, attention is four linear layers with a little extra;
# above, the square of the length decides. The number of heads changes the number of scores to be kept, and no
# multiplication.
#
# ### What people believe, and what is true
#
# - **"The weights tell why the network answers so."** They tell which positions were mixed, in one head of one layer.
#   What stands at a position may have come from elsewhere; what a head reads may not be needed; what the answer depends
#   on may come past the head. You measured the first two.
# - **"A query can find nothing."** Weights sum to 1, so something is always mixed in. Trained transformers often park
#   the weight of a head with nothing to do on the first token (Xiao et al., 2023, call it an *attention sink*). Only a
#   mask can say "nothing", and then y must be defined.
# - **"−10⁹ is as good as −∞."** Not in a row where all is forbidden. And in 16-bit floats, which end at 65504, −10⁹
#   *is* −∞.
# - **"True in a mask means masked."** In `nn.MultiheadAttention` yes, in `F.scaled_dot_product_attention`, and here,
#   no. A mask the wrong way round raises no error. Test with a token that must not matter, as above.
# - **"Masking the keys is enough."** Padded *queries* still give rows, sums over which end up in the loss. They have to
#   be left out there, too.
# - **"More heads, more computation."** Heads share the width: the same parameters and multiplications.
# - **"√d keeps the weights soft."** At the start. Trained scores may be as large as they like.
# - **"Attention knows the order of its tokens."** Only if the tokens or the mask say it.

# %% [markdown]
# ## Where it is used, and what came after
#
# Attention came up in translation: Bahdanau, Cho and Bengio (2014) let a recurrent decoder look back at all states of
# the encoder, with scores from a small network instead of a dot product; Luong et al. (2015) tried the dot product.
# Vaswani et al. (2017) threw the recurrence out. Since then it is the layer of language models, and of much in vision,
# speech and biology. Lesson 19 stacks it with feed-forward layers, norms and positions into transformers; lesson 20
# fights the square of the length.
#
# What is disputed, or open:
#
# - **Whether attention explains.** See above; the debate has moved from "are the weights an explanation" to which
#   interventions would show it.
# - **How many heads are needed.** In trained translators nearly any single head can be switched off at little cost, and
#   in many layers all but one (Michel, Levy and Neubig, 2019). Voita et al. (2019) pruned most heads of the encoder and
#   found that those which stay have clear roles. Redundant heads may still help while learning.
# - **What heads do.** Clark et al. (2019) found heads of BERT that follow syntactic relations; Olsson et al. (2022)
#   describe *induction heads* that continue repeated sequences, in pairs across two layers: a case where looking at one
#   layer alone shows nothing.
#
# You can now
#
# - write attention with masks and heads, forwards and backwards, and say what it gives where nothing is allowed;
# - say why the scores are divided by √d, and what it costs not to;
# - carry weights into and out of PyTorch's layer, masks the right way round;
# - measure what a head looks at, against chance, and test by intervention whether it matters.
#
# To read:
#
# - D. Bahdanau, K. Cho and Y. Bengio, *Neural machine translation by jointly learning to align and translate*, 2014.
#   Where it began.
# - A. Vaswani et al., *Attention is all you need*, 2017. Section 3.2 is this lesson.
# - S. Jain and B. Wallace, *Attention is not explanation*, 2019, and
# - S. Wiegreffe and Y. Pinter, *Attention is not not explanation*, 2019. Read them together.
# - P. Michel, O. Levy and G. Neubig, *Are sixteen heads really better than one?*, 2019.
