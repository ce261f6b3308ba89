# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 19 · Transformers
#
# Take attention (lesson 18), a feed-forward layer that every token goes through by itself, a norm before each (08) and
# a skip around each (12). That is a **transformer block**. Nothing in it was new in 2017 but that it was *all*: no
# recurrence, no convolution. Stack such blocks, tell the tokens where they stand, and the same thing translates,
# calculates, fills gaps, writes and reads images. What differs between a translator, a GPT, a BERT and a vision
# transformer is a mask, an objective, and what is called a token.
#
# You will build the block forwards and backwards on your own attention, three kinds of positions, decoder, GPT and
# patches in PyTorch; then train one of each, on tasks whose right answers are known: every accuracy below is exact.
#
# **You need** lessons 08 (layer norm), 12 (residual connections), 15 (embeddings) and 18 (attention). **Time:** about
# six hours, four and a half of them for the exercises.

# %% setup=true
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets
from course.data import text, translation

# %%
plots.show(
    widgets.transformer.diagrams("post-norm (2017)", "pre-norm", "decoder, pre-norm"),
    alt="Three drawings of blocks, from x at the bottom to y at the top. Post-norm: attention, sum, norm, feed-forward, "
    "sum, norm. Pre-norm: norm, attention, sum, norm, feed-forward, sum. The decoder has norm, cross-attention and a sum "
    "more in between, and cross-attention also gets memory.",
    caption="Boxes in pink have weights; the green lines are skips. In post-norm every norm stands on the stream; in "
    "pre-norm a line runs from x to y that no norm touches. All three appear below.",
)

# %% [markdown]
# ## Play first
#
# Is the order of the words known to any part of it?

# %%
widgets.transformer.guess_order(reference)

# %% [markdown]
# Below is one block with random weights. Cells that are not what they were in “dog bites man” are outlined.
#
# 1. Leave both boxes unticked and try all orders. What is a sentence to this block?
# 2. Tick `positions added`: each place now has a vector of its own, added to the word that stands there.
# 3. Untick it, tick `causal mask`: each word sees only itself and what stands to its left. No positions, and yet?

# %%
widgets.transformer.order(reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - Without positions and mask a sentence is a *set* of words: whatever the order, each word gets the same output.
# - With positions, every output changes, also that of “bites”, which stands in the middle both times: its neighbours
#   have moved.
# - A causal mask makes the order matter without any positions: the first word sees one word, the last sees three.
#   “A transformer without positions is blind to order” is true of encoders, and of a GPT it is not (Haviv et al.,
#   2022, trained such GPTs; they learn to tell where they are, with effort). You will measure how far that carries.
#
# </details>
#
# ## The mathematics
#
# ### Shapes first
#
# | what | input | parameters | output |
# |---|---|---|---|
# | sinusoidal positions | `t`, `d` | none | `(t, d)` |
# | rotary positions | `x (…, T, D)`, `positions (T,)` | none | `(…, T, D)` |
# | feed-forward | `x (N, T, D)` | `w1 (M, D)`, `b1`, `w2 (D, M)`, `b2` | `(N, T, D)` |
# | block | `x (N, T, D)`, a mask `(T, T)` or none | two norms, `w_q, w_k, w_v, w_o (D, D)`, feed-forward | `(N, T, D)` |
# | decoder block | besides: `memory (N, S, D)` | a norm and four matrices more | `(N, T, D)` |
# | patches | images `(N, C, H, W)`, patch $p$ | none | `(N, HW / p², C p²)` |
# | GPT | `ids (N, T)`, whole numbers | two embeddings, blocks, a norm, a linear layer | logits `(N, T, V)` |
#
# ### Where am I? Three answers
#
# **Sinusoidal** (Vaswani et al., 2017): add to the token at position $m$ a fixed vector. For each of $d/2$ frequencies
# $\omega_i = 10000^{-2i/d}$ it holds a pair
# $$p_m = (\sin \omega_0 m,\ \cos \omega_0 m,\ \sin \omega_1 m,\ \cos \omega_1 m,\ \dots),$$
# the hands of $d/2$ clocks, the first of which turns by one radian per token and the last almost not at all. Multiply
# two of them. From $\sin a \sin b + \cos a \cos b = \cos(a - b)$,
# $$p_m \cdot p_n = \sum_i \cos \omega_i (m - n):$$
# it depends on the *distance* alone. Yet it is the sum $x_m + p_m$ that attention multiplies, so the score also has
# terms that mix words and places.
#
# **Learned**: a table `(context, d)`, one row for each position, trained like any embedding (lesson 15). Nothing is
# assumed, and nothing is known about a position that no training text had.
#
# **Rotary** (RoPE; Su et al., 2021): add nothing. In every attention layer, *turn* each query and key by its position.
# Take the numbers of a vector in pairs $(x_{2i}, x_{2i+1})$ and turn pair $i$ by the angle $\omega_i m$:
# $$R_m: \quad \begin{pmatrix} x_{2i} \\ x_{2i+1} \end{pmatrix} \mapsto
# \begin{pmatrix} \cos \omega_i m & -\sin \omega_i m \\ \sin \omega_i m & \cos \omega_i m \end{pmatrix}
# \begin{pmatrix} x_{2i} \\ x_{2i+1} \end{pmatrix}.$$
# A rotation's transpose turns back, $R_m^\top = R_{-m}$, and two turns add up. So the score of a query at $m$ with a
# key at $n$ is
# $$(R_m q) \cdot (R_n k) = q^\top R_m^\top R_n\, k = q^\top R_{n-m}\, k:$$
# positions go in one by one, and what comes out knows their difference only. Values are not turned.
#
# And backwards: $y = R_m x$ is linear in $x$, so $dx = R_m^\top dy = R_{-m}\, dy$, the rotation by the opposite angle.
#
# ### The block, backwards
#
# $$a = \mathrm{norm}_1(x), \quad h = x + \mathrm{attention}(a), \quad b = \mathrm{norm}_2(h), \quad y = h +
# \mathrm{feed}(b).$$
# Two residual blocks in a row (lesson 12), so walk back through them in turn. $dy$ reaches $h$ along the skip as it is,
# and through the branch as $\mathrm{norm}_2'(\mathrm{feed}'(dy))$, where $f'(\cdot)$ stands for the backward pass of
# $f$:
# $$dh = dy + \mathrm{norm}_2'\big(\mathrm{feed}'(dy)\big), \qquad
# dx = dh + \mathrm{norm}_1'\big(\mathrm{attention}'(dh)\big).$$
# What enters the attention branch is $dh$, not $dy$. Each step also yields the gradients of its own parameters.
#
# ### Norm before or after?
#
# In 2017 the norm stood behind the sum: $\mathrm{norm}(x + F(x))$, **post-norm**. If $x$ and $F(x)$ are about equally
# large and independent, the sum has mean square 2, and the norm divides by $\sqrt 2$: on the way back, every layer
# halves the square of what comes along the skip, and the branch brings the other half. Size is kept, but after $L$
# blocks only $2^{-2L}$ of the square has come along skips alone. No clean way leads back.
#
# In **pre-norm**, $x + F(\mathrm{norm}(x))$, the branches add about equal amounts to a stream that nobody shrinks: its
# mean square grows like the number of blocks. A last norm, before the output, divides by its root. So the gradient that
# reaches the last block is about $1/\sqrt L$ of what it would be in a shallow stack (Xiong et al., 2020). On the way
# back the branches add to it, that of block $l$ about a share $1/l$ of its square, since its own norm divides by about
# $\sqrt l$: early blocks get more, late blocks of a deep stack start with small gradients. You will measure both.
#
# ### One block, three uses
#
# | | reads | mask | is trained to say | so it can |
# |---|---|---|---|---|
# | **encoder** (BERT) | one text | none | tokens that were hidden from it | understand |
# | **decoder** (GPT) | one text | causal | the next token, at every place | write |
# | **encoder–decoder** | a source; its own words so far | none; causal | the next word of the translation | translate |
#
# In the last one every decoder block has a third branch, **cross-attention**: queries from the decoder, keys and values
# from what the encoder has made of the source, the *memory*. There $T_q \neq T_k$, and no mask is needed: the source is
# all there. A **vision transformer** (ViT) is an encoder whose tokens are squares cut out of an image.
#
# ### From logits to a token
#
# A GPT gives logits $z$, and the next token is drawn. Dividing by a **temperature** $\tau$ first changes how freely:
# $$p_i = \frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}, \qquad \frac{p_i}{p_j} = \left(\frac{e^{z_i}}{e^{z_j}}
# \right)^{1/\tau}:$$
# odds are raised to the power $1/\tau$. As $\tau \to 0$ the largest logit takes all, as $\tau \to \infty$ all tokens
# become equally likely. **Top-k** (Fan, Lewis and Dauphin, 2018) keeps the $k$ largest logits and
# gives the others probability 0 *before* the softmax, so that what is kept sums to 1.
#
# ## From scratch
#
# Ten functions. What earlier lessons built is taken from there.

# %%
layernorm_forward, layernorm_backward = mine("layernorm_forward"), mine("layernorm_backward")
gelu_forward, gelu_backward = mine("gelu_forward"), mine("gelu_backward")
multi_head_attention_forward = mine("multi_head_attention_forward")
multi_head_attention_backward = mine("multi_head_attention_backward")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")

# %% [markdown] about="sinusoidal_positions"
# ### Sinusoidal positions
#
# `sinusoidal_positions(t, d) -> p (t, d)`, `d` even: row $m$ is $p_m$, columns $2i$ and $2i + 1$ are $\sin \omega_i m$
# and $\cos \omega_i m$ with $\omega_i = 10000^{-2i/d}$; the first row is position 0.
#
# By hand, `t=2`, `d=4`: $\omega_0 = 1$ and $\omega_1 = 10000^{-1/2} = 0.01$. Row 0 is `[0, 1, 0, 1]`, row 1 is `[sin 1,
# cos 1, sin 0.01, cos 0.01]`, about `[0.84, 0.54, 0.01, 1]`.

# %%
np.testing.assert_allclose(
    reference("sinusoidal_positions")(2, 4), [[0, 1, 0, 1], [0.8415, 0.5403, 0.01, 1]], atol=1e-4
)


# %% exercise="sinusoidal_positions"
def sinusoidal_positions(t, d):
    """t, d -> p (t, d)"""
    ### BEGIN SOLUTION
    angles = np.arange(t)[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)
    p = np.empty((t, d))
    p[:, 0::2], p[:, 1::2] = np.sin(angles), np.cos(angles)
    return p
    ### END SOLUTION


# %% check="sinusoidal_positions"
check(sinusoidal_positions)

# %% [markdown]
# Your table, and one row times every row. Move `position`: does the hill keep its shape? At which distance could a
# model no longer tell from this number alone how far away a token is? Then lower `d`.

# %%
widgets.transformer.positions(sinusoidal_positions, reference("sinusoidal_positions"))

# %% [markdown] about="rope_forward"
# ### Rotary positions
#
# `rope_forward(x, positions) -> y`: `x (…, T, D)` with any axes in front (examples, heads), `positions (T,)` whole
# numbers, not always 0, 1, 2, …; `y` like `x`: pair $i$, the features $2i$ and $2i + 1$, of the token at position $m$
# turned by $\omega_i m$, with $\omega_i = 10000^{-2i/D}$.
#
# By hand, one token, $D = 4$, position 2, `x = [1, 0, 0, 1]`. Pair 0 turns by 2: (1, 0) becomes (cos 2, sin 2) ≈
# (−0.42, 0.91). Pair 1 turns by 0.02: (0, 1) becomes (−sin 0.02, cos 0.02) ≈ (−0.02, 1).
#
# Which numbers are a pair is a convention. Su et al. (2021) pair neighbours, and so do we; many codes (GPT-NeoX,
# Hugging Face's LLaMA) pair feature $i$ with feature $i + D/2$. Trained weights fit one convention and fail silently
# with the other.

# %%
turned = reference("rope_forward")(np.array([[1.0, 0, 0, 1]]), np.array([2]))
np.testing.assert_allclose(turned, [[-0.4161, 0.9093, -0.02, 0.9998]], atol=1e-4)


# %% exercise="rope_forward"
def rope_forward(x, positions):
    """x (..., T, D), positions (T,) -> y (..., T, D)"""
    ### BEGIN SOLUTION
    d = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)
    y, a, b = np.empty(x.shape), x[..., 0::2], x[..., 1::2]
    y[..., 0::2] = a * np.cos(angles) - b * np.sin(angles)
    y[..., 1::2] = a * np.sin(angles) + b * np.cos(angles)
    return y
    ### END SOLUTION


# %% check="rope_forward"
check(rope_forward)

# %% [markdown] about="rope_backward"
# ### Rotary positions, backwards
#
# `rope_backward(dy, x, positions) -> dx`. The positions are whole numbers and get no gradient.
#
# By hand, position 2 again and `dy = [−0.4161, 0.9093, 0, 0]`: pair 0 turned back by 2 is (1, 0), so `dx = [1, 0, 0,
# 0]`.

# %%
back = reference("rope_backward")(np.array([[-0.4161, 0.9093, 0, 0]]), np.ones((1, 4)), np.array([2]))
np.testing.assert_allclose(back, [[1, 0, 0, 0]], atol=1e-4)


# %% exercise="rope_backward"
def rope_backward(dy, x, positions):
    """dy, x (..., T, D), positions (T,) -> dx (..., T, D)"""
    ### BEGIN SOLUTION
    return rope_forward(dy, -positions)
    ### END SOLUTION


# %% check="rope_backward"
check(rope_backward)

# %% [markdown]
# A query and a key of eight features, turned by your function: pale before, full after, one pair at a time. Move `m`
# and `n` by the same amount: what happens to the hands, and what to the score? Then look at the pairs: which of them
# tells neighbours apart, and which would know far from near?

# %%
widgets.transformer.rope(rope_forward, reference("rope_forward"))

# %% [markdown] about="feed_forward_forward"
# ### The feed-forward layer
#
# `feed_forward_forward(x, w1, b1, w2, b2) -> y`: `x (N, T, D)`, `w1 (M, D)`, `b1 (M,)`, `w2 (D, M)`, `b2 (D,)`:
# $$y = \mathrm{gelu}(x\, w_1^\top + b_1)\, w_2^\top + b_2,$$
# with the tanh formula of lesson 02, `gelu_forward(z)`. Every token goes through it alone; usually $M = 4D$. Two thirds
# of a block's weights are here.
#
# By hand, one token, `x = [1, 2]`, `w1 = [[1, 0]]`, `b1 = [−1]`, `w2 = [[5], [7]]`, `b2 = [3, 4]`: the hidden number is
# 1 − 1 = 0, gelu(0) = 0, and `y = [3, 4]`.

# %%
token, hidden = np.array([[[1.0, 2]]]), (np.array([[1.0, 0]]), np.array([-1.0]), np.array([[5.0], [7]]), np.array([3.0, 4]))
np.testing.assert_allclose(reference("feed_forward_forward")(token, *hidden), [[[3, 4]]])


# %% exercise="feed_forward_forward"
def feed_forward_forward(x, w1, b1, w2, b2):
    """x (N, T, D), w1 (M, D), b1 (M,), w2 (D, M), b2 (D,) -> y (N, T, D)"""
    ### BEGIN SOLUTION
    return gelu_forward(x @ w1.T + b1) @ w2.T + b2
    ### END SOLUTION


# %% check="feed_forward_forward"
check(feed_forward_forward)

# %% [markdown] about="feed_forward_backward"
# ### The feed-forward layer, backwards
#
# `feed_forward_backward(dy, x, w1, b1, w2, b2) -> dx, dw1, db1, dw2, db2`. The linear layers of lesson 01, with one
# axis more: the $N \cdot T$ tokens are the batch. `gelu_backward(dy, z)` is lesson 02's.
#
# By hand, from before, `dy = [[[1, 2]]]`: `db2 = [1, 2]`; the second layer saw 0, so `dw2 = [[0], [0]]`. Back goes
# 1 · 5 + 2 · 7 = 19; gelu has the slope ½ at 0, so dz = 9.5: `db1 = [9.5]`, `dw1 = 9.5 · [1, 2] = [[9.5, 19]]`, `dx =
# 9.5 · [1, 0] = [[[9.5, 0]]]`.

# %%
dx, dw1, db1, dw2, db2 = reference("feed_forward_backward")(np.array([[[1.0, 2]]]), token, *hidden)
for got, want in ((dx, [[[9.5, 0]]]), (dw1, [[9.5, 19]]), (db1, [9.5]), (dw2, [[0], [0]]), (db2, [1, 2])):
    np.testing.assert_allclose(got, want)


# %% exercise="feed_forward_backward"
def feed_forward_backward(dy, x, w1, b1, w2, b2):
    """dy, x (N, T, D), w1 (M, D), b1 (M,), w2 (D, M), b2 (D,) -> dx, dw1, db1, dw2, db2"""
    ### BEGIN SOLUTION
    z = x @ w1.T + b1
    dz = gelu_backward(dy @ w2, z)
    tokens, (d, m) = x.reshape(-1, x.shape[-1]), w2.shape
    dw1 = dz.reshape(-1, m).T @ tokens
    dw2 = dy.reshape(-1, d).T @ gelu_forward(z).reshape(-1, m)
    return dz @ w1, dw1, dz.sum(axis=(0, 1)), dw2, dy.sum(axis=(0, 1))
    ### END SOLUTION


# %% check="feed_forward_backward"
check(feed_forward_backward)

# %% [markdown] about="transformer_block_forward"
# ### The transformer block
#
# `transformer_block_forward(x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None)
# -> y`: pre-norm, as in the mathematics. `x (N, T, D)`, the norms' gains and biases `(D,)`, attention's four matrices
# `(D, D)`, the feed-forward layer's as above. `mask (T, T)`, True where attention is allowed, or None. Your
# `layernorm_forward(x, gamma, beta)` and `multi_head_attention_forward(x, w_q, w_k, w_v, w_o, num_heads, mask)` are
# at hand.
#
# By hand, one token, `x = [1, 3]`, one head. The norm makes it `a = [−1, 1]`. A token alone attends to itself: with
# identities for all four matrices, attention gives a, and h = [1, 3] + [−1, 1] = [0, 4]. Its norm is b = [−1, 1] again.
# With the feed-forward layer of before but `b1 = [1]`: 1 · (−1) + 1 = 0, gelu 0, so it gives `[3, 4]`, and `y = [0, 4]
# + [3, 4] = [3, 8]`.

# %%
one, none, eye = np.ones(2), np.zeros(2), np.eye(2)
simple = one, none, eye, eye, eye, eye, one, none, hidden[0], np.array([1.0]), *hidden[2:], 1
np.testing.assert_allclose(
    reference("transformer_block_forward")(np.array([[[1.0, 3]]]), *simple), [[[3, 8]]], atol=1e-3
)


# %% exercise="transformer_block_forward"
def transformer_block_forward(
    x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None
):
    """x (N, T, D), norm 1, w_q, w_k, w_v, w_o (D, D), norm 2, w1, b1, w2, b2, num_heads, mask -> y (N, T, D)"""
    ### BEGIN SOLUTION
    a = layernorm_forward(x, gamma1, beta1)
    h = x + multi_head_attention_forward(a, w_q, w_k, w_v, w_o, num_heads, mask)
    return h + feed_forward_forward(layernorm_forward(h, gamma2, beta2), w1, b1, w2, b2)
    ### END SOLUTION


# %% check="transformer_block_forward"
check(transformer_block_forward)

# %% [markdown] about="transformer_block_backward"
# ### The transformer block, backwards
#
# `transformer_block_backward(dy, x, gamma1, …, b2, num_heads, mask=None) -> dx, dgamma1, dbeta1, dw_q, dw_k, dw_v,
# dw_o, dgamma2, dbeta2, dw1, db1, dw2, db2`: thirteen gradients, in the order of the arguments. Each of your backward
# functions wants what its forward saw.
#
# By hand, from before, `dy = [1, 2]`: at the feed-forward layer, as above, dz = 9.5, so `db2 = [1, 2]`, `db1 = [9.5]`,
# and back to the norm go 9.5 · [1, 0] = [9.5, 0]. On two features, a layer norm gives ±1 whatever it gets, so (but for
# its tiny eps) no gradient comes back through it: `dh = dy = [1, 2]`. Through the first norm neither: `dx = [1, 2]`.
# With one token, the weight is 1 whatever the scores: `dw_q` and `dw_k` are 0. Both norms put out [−1, 1], so `dgamma2
# = [9.5, 0] · [−1, 1] = [−9.5, 0]`.

# %%
grads = reference("transformer_block_backward")(np.array([[[1.0, 2]]]), np.array([[[1.0, 3]]]), *simple)
dx, dw_q, dgamma2, db1 = grads[0], grads[3], grads[7], grads[10]
for got, want in ((dx, [[[1, 2]]]), (dw_q, np.zeros((2, 2))), (dgamma2, [-9.5, 0]), (db1, [9.5])):
    np.testing.assert_allclose(got, want, atol=1e-3)


# %% exercise="transformer_block_backward"
def transformer_block_backward(
    dy, x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None
):
    """dy, x (N, T, D), the forward's parameters, num_heads, mask -> dx and the gradients of the twelve parameters"""
    ### BEGIN SOLUTION
    a = layernorm_forward(x, gamma1, beta1)
    h = x + multi_head_attention_forward(a, w_q, w_k, w_v, w_o, num_heads, mask)
    b = layernorm_forward(h, gamma2, beta2)
    db, dw1, db1, dw2, db2 = feed_forward_backward(dy, b, w1, b1, w2, b2)
    back, dgamma2, dbeta2 = layernorm_backward(db, h, gamma2, beta2)
    dh = dy + back
    da, dw_q, dw_k, dw_v, dw_o = multi_head_attention_backward(dh, a, w_q, w_k, w_v, w_o, num_heads, mask)
    back, dgamma1, dbeta1 = layernorm_backward(da, x, gamma1, beta1)
    return dh + back, dgamma1, dbeta1, dw_q, dw_k, dw_v, dw_o, dgamma2, dbeta2, dw1, db1, dw2, db2
    ### END SOLUTION


# %% check="transformer_block_backward"
check(transformer_block_backward)

# %% [markdown]
# dy is 1 at one number of one token, and 0 elsewhere; dx is yours. Which tokens can the gradient reach? Move the token,
# take the mask away, then set `attention ×` to 0: what is left of the block?

# %%
widgets.transformer.block_gradient(transformer_block_backward, reference("transformer_block_backward"))

# %% [markdown] about="patchify"
# ### An image as tokens
#
# `patchify(x, patch) -> y`: images `x (N, C, H, W)`, `patch` divides $H$ and $W$; `y (N, H/patch · W/patch, C · patch ·
# patch)`. The patches are read like a text, row by row; within a patch come the channels, and within a channel its
# rows.
#
# By hand, one channel, `patch=2`: the image `[[1, 2, 3, 4], [5, 6, 7, 8]]` becomes `[[1, 2, 5, 6], [3, 4, 7, 8]]`.

# %%
strip = np.arange(1.0, 9).reshape(1, 1, 2, 4)
np.testing.assert_array_equal(reference("patchify")(strip, 2), [[[1, 2, 5, 6], [3, 4, 7, 8]]])


# %% exercise="patchify"
def patchify(x, patch):
    """x (N, C, H, W), patch -> y (N, H/patch * W/patch, C * patch * patch)"""
    ### BEGIN SOLUTION
    n, c, h, w = x.shape
    cut = x.reshape(n, c, h // patch, patch, w // patch, patch)  # (n, c, row of patches, row, column of patches, column)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(n, -1, c * patch * patch)
    ### END SOLUTION


# %% check="patchify"
check(patchify)

# %% [markdown] about="mask_tokens"
# ### Hiding tokens
#
# Masked modelling (BERT; Devlin et al., 2019): choose 15 % of the tokens; of these, hide 80 % behind a special token,
# replace 10 % by a random one, leave 10 % as they are; and ask for the original at all chosen places. (The last fifth
# is there since no text outside training contains the special token.)
#
# `mask_tokens(ids, select, action, random_ids, mask_id, p=0.15) -> inputs, targets`: all arrays `(N, T)`. A place is
# chosen where `select < p`. A chosen place becomes `mask_id` where `action < 0.8`, its number in `random_ids` where
# `0.8 <= action < 0.9`, and stays elsewhere. `targets` hold the original ids where chosen and −100 elsewhere, which
# PyTorch's cross-entropy ignores.
#
# By hand, `ids = [[5, 6, 7, 8]]`, `select = [[0.1, 0.1, 0.9, 0.1]]`, `action = [[0.2, 0.85, 0.2, 0.95]]`, `random_ids =
# [[1, 2, 3, 4]]`, `mask_id=9`: inputs `[[9, 2, 7, 8]]`, targets `[[5, 6, −100, 8]]`.

# %%
four = np.array([[5, 6, 7, 8]]), np.array([[0.1, 0.1, 0.9, 0.1]]), np.array([[0.2, 0.85, 0.2, 0.95]])
inputs, targets = reference("mask_tokens")(*four, np.array([[1, 2, 3, 4]]), 9)
np.testing.assert_array_equal([*inputs, *targets], [[9, 2, 7, 8], [5, 6, -100, 8]])


# %% exercise="mask_tokens"
def mask_tokens(ids, select, action, random_ids, mask_id, p=0.15):
    """ids, select, action, random_ids (N, T), mask_id, p -> inputs, targets (N, T)"""
    ### BEGIN SOLUTION
    chosen = select < p
    inputs = np.where(chosen & (action < 0.8), mask_id, ids)
    inputs = np.where(chosen & (action >= 0.8) & (action < 0.9), random_ids, inputs)
    return inputs, np.where(chosen, ids, -100)
    ### END SOLUTION


# %% check="mask_tokens"
check(mask_tokens)

# %% [markdown]
# Before the last function, a guess.

# %%
widgets.transformer.guess_temperature()

# %% [markdown] about="top_k_probabilities"
# ### The next token
#
# `top_k_probabilities(logits, temperature=1.0, k=None) -> p`: `logits (N, V)`, `p` alike, rows that sum to 1. All but
# the `k` largest logits of a row get probability 0 (None, or a `k` larger than $V$, keeps all); the others are divided
# by the temperature and go through a softmax. Temperature 0 is the limit: 1 for the largest logit, 0 elsewhere. (No two
# logits of a row are equal.) Logits may be ±1000.
#
# By hand, `logits = [[0, ln 4, ln 2]]`, `k=2`: the 0 goes; the other two have e^z = 4 and 2, so `p = [[0, 2/3, 1/3]]`.
# With temperature 0.5 odds are squared, 16 to 4: `[[0, 0.8, 0.2]]`. With temperature 0: `[[0, 1, 0]]`.

# %%
three = np.log([[1.0, 4, 2]])
for temperature, want in ((1.0, [0, 2 / 3, 1 / 3]), (0.5, [0, 0.8, 0.2]), (0, [0, 1, 0])):
    np.testing.assert_allclose(reference("top_k_probabilities")(three, temperature, 2), [want], atol=1e-12)


# %% exercise="top_k_probabilities"
def top_k_probabilities(logits, temperature=1.0, k=None):
    """logits (N, V), temperature, k -> p (N, V)"""
    ### BEGIN SOLUTION
    count = logits.shape[-1]
    if temperature == 0:
        temperature, k = 1.0, 1
    least = np.sort(logits, axis=-1)[:, [-min(k or count, count)]]
    e = np.where(logits >= least, np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature), 0)
    return e / e.sum(axis=-1, keepdims=True)
    ### END SOLUTION


# %% check="top_k_probabilities"
check(top_k_probabilities)

# %% [markdown]
# ## Against a reference
#
# Three witnesses for each gradient of $x$, as always: yours, finite differences, PyTorch. The block has a causal mask
# and two heads.

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(19)
x = rng.normal(size=(2, 3, 4))
feed = rng.normal(size=(5, 4)), rng.normal(size=5), rng.normal(size=(4, 5)), rng.normal(size=4)
norms = [(1 + 0.3 * rng.normal(size=4), rng.normal(size=4)) for _ in range(2)]
matrices = [rng.normal(size=(4, 4)) for _ in range(4)]
causal = np.tri(3, dtype=bool)
cases = {
    "rope": (rope_forward, rope_backward, (x, np.array([0, 1, 7]))),
    "feed_forward": (feed_forward_forward, feed_forward_backward, (x, *feed)),
    "transformer_block": (
        transformer_block_forward, transformer_block_backward, (x, *norms[0], *matrices, *norms[1], *feed, 2, causal)
    ),
}

# %%
gradients = {}
for name, (forward, backward, given) in cases.items():
    dy, rest = rng.normal(size=x.shape), given[1:]
    nudged = numerical_gradient(lambda v, f=forward, dy=dy, rest=rest: (dy * f(v, *rest)).sum(), x)
    got, right = backward(dy, *given), reference(f"{name}_backward")(dy, *given)
    gradients[name] = *((got, nudged, right) if name == "rope" else (got[0], nudged, right[0])),
plots.gradient_check(gradients)

# %% [markdown]
# What the derivations promised, in numbers:

# %% tags=["nbval-check-output"]
q, k = rng.normal(size=(2, 1, 8))


def score(m, n):
    return (rope_forward(q, np.array([m])) * rope_forward(k, np.array([n]))).sum()


print("rotary scores of (5, 3), (105, 103), (3, 5):", *(f"{score(m, n):.4f}" for m, n in ((5, 3), (105, 103), (3, 5))))
table = sinusoidal_positions(200, 8)
print("sinusoidal products, rows (5, 3), (105, 103):", *(f"{table[m] @ table[n]:.4f}" for m, n in ((5, 3), (105, 103))))
swapped, parameters = [2, 0, 1], cases["transformer_block"][2][1:-1]
for name, mask in (("no mask:    ", None), ("causal mask:", causal)):
    one, two = (transformer_block_forward(v, *parameters, mask) for v in (x[:, swapped], x))
    print(f"{name} swapping tokens swaps outputs and nothing else:", np.allclose(one, two[:, swapped]))

# %% [markdown]
# Rotary scores know the difference, and its sign: (5, 3) and (3, 5) differ. Sinusoidal products know the distance only;
# which of two tokens is the left one has to be found by the matrices $w_q$ and $w_k$ in between.
#
# And what a check says of the other convention:

# %% tags=["nbval-check-output"]
def halves(x, positions):
    d = x.shape[-1]
    angles, (a, b) = positions[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d), np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)], axis=-1)


print(examine(halves, "rope_forward").mistake)

# %% [markdown]
# ## In PyTorch
#
# The built-in block is `nn.TransformerEncoderLayer`. Its defaults are those of 2017: post-norm, ReLU, dropout 0.1, time
# before batch. And its masks mean the opposite of ours, as in `nn.MultiheadAttention` (lesson 18).

# %% [markdown] about="TransformerBlock"
# ### The block as a module
#
# `TransformerBlock(d_model, nhead, dim_feedforward)`: what `nn.TransformerEncoderLayer(…, dropout=0.0,
# activation="gelu", batch_first=True, norm_first=True)` computes, with its `state_dict`. You may use
# `nn.MultiheadAttention(d_model, nhead, batch_first=True)`, `nn.Linear` and `nn.LayerNorm`. The attributes:
#
# | name | what |
# |---|---|
# | `self_attn` | multi-head attention, here with biases |
# | `linear1`, `linear2` | the feed-forward layer, to `dim_feedforward` and back |
# | `norm1`, `norm2` | the norms before attention and before the feed-forward layer |
#
# `forward(x, mask=None)`: `mask (T, T)` with True where attention is *allowed*, or None. (Encoders, below, hand in
# none.) The GELU is the exact one, `F.gelu`: the built-in's "gelu" is, where your NumPy layer has the tanh formula.
# `self_attn(q, k, v, …)` returns a pair, output and weights.
#
# By hand: with all weights and biases of `self_attn.out_proj` and `linear2` at 0, the block hands on x.


# %% exercise="TransformerBlock"
class TransformerBlock(nn.Module):
    """x (N, T, d_model), mask (T, T) or None -> y (N, T, d_model)

    Two methods: __init__ makes self_attn, linear1, linear2, norm1 and norm2, forward(self, x, mask=None) connects them.
    """

    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__()
        ### BEGIN SOLUTION
        self.self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d_model, dim_feedforward), nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)

    def forward(self, x, mask=None):
        a = self.norm1(x)
        x = x + self.self_attn(a, a, a, attn_mask=None if mask is None else ~mask, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        ### END SOLUTION

# %% check="TransformerBlock"
check(TransformerBlock)

# %% [markdown] about="DecoderBlock"
# ### The decoder block
#
# `DecoderBlock(d_model, nhead, dim_feedforward)`: `nn.TransformerDecoderLayer` with the same options and its
# `state_dict`. Besides `self_attn`, `linear1`, `linear2`, `norm1`, `norm2` there are `multihead_attn`, the
# cross-attention, and `norm3`. The order: self-attention (`norm1`), cross-attention (`norm2`), feed-forward (`norm3`),
# each as a pre-norm branch.
#
# `forward(x, memory, mask=None)`: `x (N, T, d_model)`, `memory (N, S, d_model)`; the mask is for self-attention.
# Queries of the cross-attention come from x, keys and values are memory as it is.
#
# By hand: with `multihead_attn.out_proj` at 0, the block is a `TransformerBlock`, whatever memory says.


# %% exercise="DecoderBlock"
class DecoderBlock(nn.Module):
    """x (N, T, d_model), memory (N, S, d_model), mask (T, T) or None -> y (N, T, d_model)

    Two methods: __init__ makes the two attentions, two linear layers and three norms, forward(self, x, memory,
    mask=None) connects them.
    """

    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__()
        ### BEGIN SOLUTION
        self.self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d_model, dim_feedforward), nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d_model) for _ in range(3))

    def forward(self, x, memory, mask=None):
        a = self.norm1(x)
        x = x + self.self_attn(a, a, a, attn_mask=None if mask is None else ~mask, need_weights=False)[0]
        x = x + self.multihead_attn(self.norm2(x), memory, memory, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm3(x))))
        ### END SOLUTION

# %% check="DecoderBlock"
check(DecoderBlock)

# %% [markdown] about="GPT"
# ### A GPT
#
# `GPT(vocab, context, d_model, nhead, num_layers, dim_feedforward)`; its attributes:
#
# | name | what |
# |---|---|
# | `tokens` | `nn.Embedding`, a vector for each of `vocab` tokens |
# | `positions` | `nn.Embedding`, a learned vector for each of `context` positions |
# | `blocks` | `nn.ModuleList` of `num_layers` blocks: yours |
# | `norm`, `head` | a last `nn.LayerNorm`; `nn.Linear` from `d_model` to `vocab` |
#
# `forward(ids) -> logits`: `ids (N, T)` whole numbers, `T` at most `context`; `logits (N, T, vocab)`, of which those at
# place $t$ may depend on tokens 0 to $t$ alone: each block gets a causal mask.
#
# By hand: change the last token of a text. All logits stay the same but those at the last place. (Make positions and
# mask on `ids.device`, and the model also runs on a GPU.)


# %% exercise="GPT"
class GPT(nn.Module):
    """ids (N, T) -> logits (N, T, vocab)

    Two methods: __init__ makes tokens, positions, blocks, norm and head, forward(self, ids) connects them.
    """

    def __init__(self, vocab, context, d_model, nhead, num_layers, dim_feedforward):
        super().__init__()
        ### BEGIN SOLUTION
        self.tokens, self.positions = nn.Embedding(vocab, d_model), nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList([TransformerBlock(d_model, nhead, dim_feedforward) for _ in range(num_layers)])
        self.norm, self.head = nn.LayerNorm(d_model), nn.Linear(d_model, vocab)

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        h = self.tokens(ids) + self.positions(places)
        for block in self.blocks:
            h = block(h, places[:, None] >= places)
        return self.head(self.norm(h))
        ### END SOLUTION

# %% check="GPT"
check(GPT)

# %% [markdown]
# Your classes beside the built-ins, with the same weights:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
options = dict(dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
x_torch, memory = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
past = torch.ones(5, 5, dtype=torch.bool).tril()
for mine_, builtin, others in (
    (TransformerBlock(8, 2, 16), nn.TransformerEncoderLayer(8, 2, 16, **options), {}),
    (DecoderBlock(8, 2, 16), nn.TransformerDecoderLayer(8, 2, 16, **options), {"memory": memory}),
):
    builtin.load_state_dict(mine_.state_dict())
    mask = {"src_mask" if not others else "tgt_mask": ~past}
    same = torch.allclose(mine_(x_torch, *others.values(), past), builtin(x_torch, **others, **mask), atol=1e-6)
    print(f"{type(builtin).__name__:<24} same outputs: {same}")
tiny = TransformerBlock(4, 2, 3).double()
print("gradcheck:", torch.autograd.gradcheck(tiny, torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)))

# %% [markdown]
# ## At work
#
# ### All your own, in NumPy
#
# One language model in which nothing is PyTorch's: sentences of an invented language (the target language below), your
# embedding of lesson 15, your sinusoidal positions, one of your blocks with a causal mask, a linear layer, your
# cross-entropy, your Adam. The language is generated, so the loss of a perfect model is known: 1.61 nats per word.

# %%
embedding_forward, embedding_backward, adam_step = mine("embedding_forward"), mine("embedding_backward"), mine("adam_step")
sentences = translation.sample(4000, seed=1)
V, T, D, M = len(translation.TARGET), translation.LENGTH, 16, 32
begun = np.column_stack([np.full(4000, V - 1), sentences.target])  # a start token before each sentence
rng, causal, places = np.random.default_rng(0), np.tri(T, dtype=bool), 0.3 * sinusoidal_positions(T, D)


def weight(o, i):
    return rng.normal(0, 1 / np.sqrt(i), (o, i))


params = [
    rng.normal(0, 0.3, (V, D)), np.ones(D), np.zeros(D), *(weight(D, D) for _ in range(4)), np.ones(D), np.zeros(D),
    weight(M, D), np.zeros(M), weight(D, M), np.zeros(D), weight(V, D),
]  # fmt: skip


# %%
def loss_and_gradients(ids, params):
    """The mean cross-entropy of the next word, and its gradient for each of the parameters."""
    table, *block, head = params
    x = embedding_forward(ids[:, :-1], table) + places
    y = transformer_block_forward(x, *block, 2, causal)
    logits, targets = (y @ head.T).reshape(-1, V), ids[:, 1:].ravel()
    dlogits = cross_entropy_backward(1.0, logits, targets)
    dy = (dlogits @ head).reshape(y.shape)
    dx, *dblock = transformer_block_backward(dy, x, *block, 2, causal)
    dtable = embedding_backward(dx, ids[:, :-1], table)
    return cross_entropy_forward(logits, targets), [dtable, *dblock, dlogits.T @ y.reshape(-1, D)]


# %%
steps = 10 if plots.fast() else 200
states = [(np.zeros_like(param), np.zeros_like(param)) for param in params]
losses = []
with plots.Training(steps // 10, "loss", unit="ten steps") as run:
    for step in range(steps):
        loss, grads = loss_and_gradients(begun[rng.integers(0, 4000, 32)], params)
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            params[i], *states[i] = adam_step(param, grad, *states[i], step + 1, lr=0.02)
        losses.append(loss)
        if len(losses) % 10 == 0:
            run.log(np.mean(losses[-10:]))
print(f"mean of the last 20 steps {np.mean(losses[-20:]):.2f}; a perfect model {translation.ENTROPY:.2f}")

# %% [markdown]
# All that follows is larger and in PyTorch, on your `TransformerBlock`. One function trains everything: Adam, whose
# learning rate rises over the first steps (warm-up, lesson 06) and then falls to 0.

# %%
torch.set_num_threads(1)  # tensors this small are computed faster by one thread than by several


def fresh(make, seed):
    """A model from a seed, its embeddings drawn with spread 0.3: PyTorch's 1 makes these small models slower."""
    torch.manual_seed(seed)
    model = make()
    for part in model.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.3)
    return model


# %%
def train(model, loss, steps, lr, warm_up=30, run=None):
    """Lower loss(model) by Adam, logging every tenth step; the model itself, trained."""
    optimiser, losses = torch.optim.Adam(model.parameters()), []
    for step in range(3 if plots.fast() else steps):
        optimiser.param_groups[0]["lr"] = lr * min(1, (step + 1) / max(warm_up, 1)) * (1 - step / steps)
        value = loss(model)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
        if run and len(losses) % 10 == 0:
            run.log(np.mean(losses[-10:]))
    return model


# %% [markdown]
# ### Positions compared
#
# A task where only the place counts: say the token that stood three places back. One causal block, trained on texts of
# 16 tokens, tested on texts of 64. Four models differ in nothing but their positions.


# %%
def turned(x):
    """rope_forward in PyTorch, at positions 0, 1, 2, …"""
    d = x.shape[-1]
    angles = torch.outer(torch.arange(x.shape[-2]), 10000.0 ** (-torch.arange(0, d, 2) / d))
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).flatten(-2)


numbers = np.random.default_rng(0).normal(size=(2, 6, 8))
np.testing.assert_allclose(turned(torch.tensor(numbers)), rope_forward(numbers, np.arange(6)), atol=1e-5)


# %%
class Placed(nn.Module):
    """One causal block with two heads that says which of ten tokens comes; kind: how it knows positions."""

    def __init__(self, kind, d=32):
        super().__init__()
        self.kind, self.tokens, self.positions = kind, nn.Embedding(10, d), nn.Embedding(64, d)
        self.qkv, self.out, self.head = nn.Linear(d, 3 * d), nn.Linear(d, d), nn.Linear(d, 10)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d) for _ in range(3))
        self.feed = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, ids):
        h = self.tokens(ids)
        t, d = h.shape[1:]
        if self.kind == "learned":
            h = h + self.positions.weight[:t]
        if self.kind == "sinusoidal":
            h = h + torch.tensor(sinusoidal_positions(t, d), dtype=torch.float32)
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm1(h)).chunk(3, -1))
        if self.kind == "rotary":
            q, k = turned(q), turned(k)
        h = h + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return self.head(self.norm3(h + self.feed(self.norm2(h))))


# %%
def three_back(model):
    ids = torch.randint(10, (32, 16))
    return F.cross_entropy(model(ids)[:, 3:].flatten(0, 1), ids[:, :-3].flatten())


right, said = {}, []
long_texts = torch.randint(10, (300, 64), generator=torch.Generator().manual_seed(0))
with plots.Training(12, unit="model") as run:
    for kind in widgets.transformer.KINDS:
        right[kind] = []
        for seed in range(3):
            model = train(fresh(lambda kind=kind: Placed(kind), seed), three_back, steps=200, lr=5e-3)
            with torch.no_grad():
                answer = model(long_texts).argmax(-1)
            right[kind].append((answer[:, 3:] == long_texts[:, :-3]).float().mean(0).numpy())
            said.append(answer)  # those of the rotary models come last
            run.log()

# %%
at, colours = np.arange(3, 64), widgets.transformer.KINDS
lines = {kind: (at, np.mean(runs, axis=0), {"colour": colours[kind]}) for kind, runs in right.items()}
lines["end of training texts"] = np.array([15.5, 15.5]), np.array([0, 1]), {"colour": "#777777", "dash": True}
plots.show(
    widgets.picture.curve(
        lines, "right answers against the position", "share of right answers", "position", x_range=(0, 63),
        y_range=(0, 1.05), width=520, height=250,
    ),
    alt="Share of right answers against the position, means of three seeds. Up to position 15 all but the model without "
    "positions are at 1. Beyond, learned and sinusoidal fall at once; rotary falls in steps, at about 22 and 41.",
    caption="Chance is 0.1. Beyond the training texts' end nobody is safe; rotary positions last longest, learned ones "
    "not at all.",
)
for kind, runs in right.items():
    parts = [np.mean(np.array(runs)[:, low:high], axis=1) for low, high in ((0, 13), (13, 29), (29, 61))]
    print(f"{kind:<11}" + "   ".join(f"{name} {part.mean():.2f} ({part.min():.2f} to {part.max():.2f})" for name, part in
          zip(("up to 15:", "16 to 31:", "32 to 63:"), parts, strict=True)))

# %% [markdown]
# - **None** is at 0.31 on average where it was trained: the causal mask tells something. It is no substitute.
# - **Learned** is perfect where it was trained and knows nothing of position 16: that row of its table is as it was
#   drawn.
# - **Sinusoidal** codes exist for every position, and yet the model does not know what to do with those it never saw.
# - **Rotary** makes the score depend on the distance alone, so “three back” is the same thing everywhere, and it lasts
#   longest. But there are cliffs, at 22 and 41. What do the rotary models say beyond them? Is it a token of the text?

# %%
print("at positions 60 to 63, the answer is the token that stood")
for back in (3, 10, 22, 41, 60):
    shares = [(answer[:, 60:] == long_texts[:, 60 - back : 64 - back]).float().mean().item() for answer in said[-3:]]
    print(f"   {back:>2} places back: " + ", ".join(f"{share:.2f}" for share in shares))

# %% [markdown]
# Mostly the token 41 or 60 places back, with one seed also 22; the right one still at times; one 10 places back no more
# than by chance. And $22 \approx 3 + 3 \cdot
# 2\pi$, $41 \approx 3 + 6 \cdot 2\pi$, $60 \approx 3 + 9 \cdot 2\pi$: there the fastest hand, one radian per place,
# points as it does three places back. Slower hands could tell these places apart, but within 16 tokens they never had to.
#
# So “relative positions generalise to any length” promises too much. In practice long contexts are trained for, with
# frequencies changed for the purpose (Chen et al., 2023).
#
# ### Pre-norm or post-norm
#
# First the gradient at initialisation: stacks of 2 to 24 blocks of width 32, from PyTorch's own class in both its
# forms, random inputs, ten classes; the norm of the gradient of `linear2.weight` in each block.


# %%
def stack(layers, norm_first, d=32):
    """Blocks with weights by Xavier and Bengio, as in 2017, and the last norm that pre-norm needs."""
    options = dict(dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first)
    blocks = nn.ModuleList([nn.TransformerEncoderLayer(d, 4, 4 * d, **options) for _ in range(layers)])
    for param in blocks.parameters():
        if param.dim() > 1:
            nn.init.xavier_uniform_(param)
    return blocks, nn.LayerNorm(d) if norm_first else nn.Identity()


def gradients_at_start(layers, norm_first, seed):
    torch.manual_seed(seed)
    blocks, norm = stack(layers, norm_first)
    h, head, labels = torch.randn(16, 12, 32), nn.Linear(32, 10), torch.randint(10, (16 * 12,))
    for block in blocks:
        h = block(h)
    F.cross_entropy(head(norm(h)).flatten(0, 1), labels).backward()
    return [block.linear2.weight.grad.norm().item() for block in blocks]


# %%
charts = []
for name, first in {"post-norm": False, "pre-norm": True}.items():
    lines = {}
    for layers in (2, 6, 12, 24):
        norms_ = np.array([gradients_at_start(layers, first, seed) for seed in range(5)])
        lines[f"{layers} blocks"] = np.arange(1, layers + 1), norms_.mean(axis=0), {"points": True}
        print(f"{name:<9} {layers:>2} blocks: first {norms_[:, 0].mean():.2f}, last {norms_[:, -1].mean():.2f} "
              f"({norms_[:, -1].min():.2f} to {norms_[:, -1].max():.2f})")
    said = f"{name}: gradient norms of the blocks of stacks of 2 to 24"
    charts.append(
        widgets.picture.curve(lines, said, name, "block", x_range=(0, 24), y_range=(0, 0.6), width=380, height=220)
    )
plots.show(
    widgets.picture.row(*charts),
    alt="Two charts of gradient norms against the block. In post-norm, stacks lie about level, 12 and 24 blocks higher. "
    "In pre-norm the gradient falls from the first to the last block, to less than half with 24 blocks.",
    caption="Means of five seeds, before training. In post-norm the last block's gradient is no smaller in deep stacks; "
    "in pre-norm it shrinks with depth.",
)

# %% [markdown]
# In the last block it is as Xiong et al. (2020) derived: with depth it shrinks in pre-norm, if more slowly than
# $1/\sqrt L$, and does not in post-norm. And in pre-norm early blocks get more than late ones. But *nothing vanishes* here: 24 post-norm blocks pass the gradient on to the
# first one undiminished, as the halves above predict. What depth costs shows in training. Twelve blocks learn to
# predict words, with a high learning rate of 0.01:


# %%
class Stack(nn.Module):
    """A small language model on a stack of 12 blocks."""

    def __init__(self, norm_first):
        super().__init__()
        self.tokens, self.positions, self.head = nn.Embedding(V, 32), nn.Embedding(T, 32), nn.Linear(32, V)
        self.blocks, self.norm = stack(12, norm_first)

    def forward(self, ids):
        h = self.tokens(ids) + self.positions.weight
        for block in self.blocks:
            h = block(h, src_mask=torch.ones(T, T, dtype=torch.bool).triu(1))
        return self.head(self.norm(h))


all_words = torch.tensor(begun)


def next_word(model):
    ids = all_words[torch.randint(len(all_words), (32,))]
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


# %%
for name, first, warm_up in (("pre-norm", True, 0), ("post-norm", False, 0), ("post-norm, warm-up", False, 40)):
    ends = []
    for seed in range(2):
        model = train(fresh(lambda first=first: Stack(first), seed), next_word, 60, 0.01, warm_up)
        with torch.no_grad():
            ends.append(np.mean([next_word(model).item() for _ in range(10)]))
    print(f"{name:<19} loss after 60 steps: " + ", ".join(f"{end:.2f}" for end in ends))

# %% [markdown]
# In these 60 steps pre-norm learns without further ado, post-norm hardly at all; a warm-up helps it, which is why
# transformers came with one. (One depth, one high rate, two seeds: this shows the trouble, not where it begins.) It is
# why nearly all large models are pre-norm. The price is paid elsewhere: late pre-norm blocks change a large stream
# little, and some report that post-norm, *where it trains*, ends better (Liu et al., 2020).
#
# ### A GPT learns to add
#
# `47+38=085`: two numbers of two digits, and their sum. There are 10 000 such texts. A GPT with two blocks of width 32
# learns from 8000 of them, or from 500; asked are only the three digits after `=`, and the score is exact: all three
# right, on sums that it never saw.

# %%
SIGNS = "0123456789+="
a, b = np.divmod(np.arange(10_000), 100)
sums = torch.tensor([[SIGNS.index(sign) for sign in f"{x:02}+{y:02}={x + y:03}"] for x, y in zip(a, b, strict=True)])
order = torch.tensor(np.random.default_rng(0).permutation(10_000))


def sum_loss(part):
    """The loss over the digits behind the equals sign, for batches out of this part of the sums."""

    def loss(model):
        ids = sums[part[torch.randint(len(part), (128,))]]
        return F.cross_entropy(model(ids[:, :-1])[:, 5:].flatten(0, 1), ids[:, 6:].flatten())

    return loss


@torch.no_grad()
def answers(model, ids):
    """The most likely three digits after the six signs of each text."""
    written = ids[:, :6]
    for _ in range(3):
        written = torch.cat([written, model(written)[:, -1:].argmax(-1)], dim=1)
    return written


# %%
adders = {}
for count in (500, 8000):
    with plots.Training(50, f"{count} sums: loss", unit="ten steps") as run:
        model = fresh(lambda: GPT(12, 8, 32, 4, 2, 64), seed=0)
        adders[count] = train(model, sum_loss(order[:count]), 500, 5e-3, run=run)
for count, model in adders.items():
    seen, unseen = (sums[part] for part in (order[:count][:2000], order[8000:]))
    exact = [(answers(model, ids) == ids).all(dim=1).float().mean() for ids in (seen, unseen)]
    digits_right = (answers(model, unseen) == unseen)[:, 6:].float().mean(dim=0)
    print(f"trained on {count:>4} sums: exact on those {exact[0]:.3f}, on 2000 unseen ones {exact[1]:.3f}; "
          "digit by digit " + " ".join(f"{share:.2f}" for share in digits_right))

# %% [markdown]
# From 8000 sums it has learnt to add, carries included. From 500 it has learnt 500 answers and a rule of thumb for the
# others: the hundreds are nearly always right, the units less than half of the time. The same network, the same
# steps, and both know what they have seen: whether a model *computes* or
# *remembers*, only unseen problems tell. (And it adds numbers of two digits, no others: it has seen no others.)
#
# %% [markdown]
# ### Translation
#
# Two invented languages. The source says `[time] subject verb object`, adjectives *behind* their nouns; the target says
# `subject object verb [time]`, adjectives *before* them, with the ending -a or -o that the noun's class asks for:
#
# | | | | | | | |
# |---|---|---|---|---|---|---|
# | source | wai | kulo | ebi | brat | mira | oxo |
# | | today | dog | old | sees | cat | red |
# | target | karma | binep | lisko | sotul | zilfe | quon |
# | | old | dog | red | cat | sees | today |
#
# So each target word comes from one source word that is known, at another place; and an adjective needs a second one,
# its noun. A sixth of the pairs of noun and adjective never occurs in training: a table of pairs would not do.

# %% tags=["nbval-check-output"]
for words in ("wai kulo ebi brat mira oxo", "mira ebi grun dran"):
    words = words.split()
    print(translation.english(words), "->", " ".join(translation.translate(words)), translation.alignment(words))

# %%
class Translator(nn.Module):
    """An encoder block on the source, a decoder block on the target so far: logits of the next target word."""

    def __init__(self, d=32, heads=4):
        super().__init__()
        self.source, self.target = nn.Embedding(len(translation.SOURCE), d), nn.Embedding(V, d)
        self.positions = nn.Embedding(T, d)
        self.encoder, self.decoder = TransformerBlock(d, heads, 2 * d), DecoderBlock(d, heads, 2 * d)
        self.norm1, self.norm2, self.head = nn.LayerNorm(d), nn.LayerNorm(d), nn.Linear(d, V)

    def encode(self, source):
        return self.norm1(self.encoder(self.source(source) + self.positions.weight))

    def start(self, written):
        return self.target(written) + self.positions.weight[: written.shape[1]]

    def forward(self, source, written):
        t = written.shape[1]
        h = self.decoder(self.start(written), self.encode(source), torch.ones(t, t, dtype=torch.bool).tril())
        return self.head(self.norm2(h))


# %%
pairs = [torch.tensor(part) for part in sentences]
tests = {name: translation.sample(500, 2 + unseen, unseen) for name, unseen in (("new sentences", False), ("new pairs", True))}


def with_start(target):
    return torch.cat([torch.full((len(target), 1), V - 1), target], dim=1)


def word_loss(model):
    at = torch.randint(len(pairs[0]), (64,))
    written = with_start(pairs[1][at])
    return F.cross_entropy(model(pairs[0][at], written[:, :-1]).flatten(0, 1), written[:, 1:].flatten())


@torch.no_grad()
def translated(model, source):
    """The most likely next word, seven times: (n, T)."""
    written = torch.full((len(source), 1), V - 1)
    for _ in range(T):
        written = torch.cat([written, model(source, written)[:, -1:].argmax(-1)], dim=1)
    return written[:, 1:].numpy()


# %%
translators = []
with plots.Training(3, unit="model") as run:
    for seed in range(3):
        translators.append(train(fresh(Translator, seed), word_loss, 300, 5e-3))
        run.log()
for name, test in tests.items():
    exact = [(translated(model, torch.tensor(test.source)) == test.target).all(axis=1).mean() for model in translators]
    print(f"{name:<14} whole sentence right: " + ", ".join(f"{share:.3f}" for share in exact))

# %% [markdown]
# New sentences are translated to the last word. Pairs of noun and adjective that no training sentence had are nearly as
# good, with one seed noticeably behind the others: the ending is computed from the noun, not looked up for the pair,
# and how cleanly it is computed depends on the seed. *Where* it looks comes below.
#
# ### From both sides
#
# The same target sentences, twice the same network, one block of width 32. One is a GPT. The other is a BERT: the mask
# is dropped, and what is asked for are words that your `mask_tokens` has hidden. (More than 15 % here, since the
# sentences are short.)


# %%
class BERT(GPT):
    """A GPT without its mask."""

    def forward(self, ids):
        h = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


HIDDEN = V  # the number of the special token


def hidden_word(model):
    ids = sentences.target[rng.integers(0, 4000, 128)]
    inputs, targets = mask_tokens(
        ids, rng.random(ids.shape), rng.random(ids.shape), rng.integers(0, V - 1, ids.shape), HIDDEN, p=0.3
    )
    return F.cross_entropy(model(torch.tensor(inputs)).flatten(0, 1), torch.tensor(targets).flatten())


def following_word(model):
    ids = torch.tensor(begun[rng.integers(0, 4000, 128)])
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


# %%
@torch.no_grad()
def guesses(model, target):
    """The probability (n, T, V) of each word at each place: from the left, or with that one word hidden."""
    if not isinstance(model, BERT):
        return model(with_start(target)[:, :-1]).softmax(-1)[..., :V].numpy()
    rows = []
    for place in range(T):
        inputs = target.clone()
        inputs[:, place] = HIDDEN
        rows.append(model(inputs)[:, place].softmax(-1)[:, :V])
    return torch.stack(rows, dim=1).numpy()


def endings_right(p, target):
    """Of all adjectives: how often the likeliest adjective has the right ending."""
    adjective = (target >= 13) & (target < 25)  # words 13 to 24: those in -a have odd numbers, those in -o even ones
    return ((13 + p[adjective][:, 13:25].argmax(-1)) % 2 == target[adjective] % 2).mean()


# %%
test_words, both_ways = tests["new sentences"].target, {}
with plots.Training(4, unit="model") as run:
    for kind, loss in ((GPT, following_word), (BERT, hidden_word)):
        for seed in range(2):
            rng = np.random.default_rng(seed)
            model = train(fresh(lambda kind=kind: kind(V + 1, T + 1, 32, 4, 1, 64), seed), loss, 350, 1e-2)
            both_ways.setdefault(kind.__name__, []).append(guesses(model, torch.tensor(test_words)))
            run.log()
for name, found in both_ways.items():
    print(f"{name:<5} right endings of adjectives: " + ", ".join(f"{endings_right(p, test_words):.2f}" for p in found))

# %% [markdown]
# An adjective's ending depends on the noun that *follows*. From the left nobody can know it, and the GPT is right half
# of the time; from both sides it is certain. That is all that “BERT understands, GPT writes” comes to: one line of
# code, the mask, and the question asked. The price: BERT gives no probability to a whole sentence and has no order in
# which to write one.
#
# ### Images as tokens
#
# A vision transformer (Dosovitskiy et al., 2021) on the digits: your `patchify` cuts 8 × 8 pixels into 16 patches of
# 2 × 2, a linear layer makes a token of each, one block without a mask, the mean over the tokens, ten logits. Beside it
# a CNN of lesson 11's kind with about as many parameters, the same steps, the same learning rate, and two sizes of training
# set. What does each know about images *before* it has seen one?


# %%
digits = data.digits()
images, test_images = ((part.reshape(-1, 1, 8, 8) - digits.x_train.mean()) / digits.x_train.std()
                       for part in (digits.x_train, digits.x_test))
labels, test_labels = torch.tensor(digits.y_train), torch.tensor(digits.y_test)


class ViT(nn.Module):
    """Patches (N, 16, 4) -> logits (N, 10)"""

    def __init__(self, d=32):
        super().__init__()
        self.patches, self.positions, self.block = nn.Linear(4, d), nn.Embedding(16, d), TransformerBlock(d, 4, 2 * d)
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 10)

    def forward(self, x):
        h = self.block(self.patches(x) + self.positions.weight)
        return self.head(self.norm(h).mean(dim=1))


def cnn(c=18):
    """Images (N, 1, 8, 8) -> logits (N, 10)"""
    first = [nn.Conv2d(1, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    last = [nn.Conv2d(c, 2 * c, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * c, 10)]
    return nn.Sequential(*first, *last)


# %%
views = {ViT: [patchify(part, 2) for part in (images, test_images)], cnn: [images, test_images]}
views = {make: [torch.tensor(part, dtype=torch.float32) for part in parts] for make, parts in views.items()}


def digit_accuracy(make, count, seed):
    """Test accuracy after training on `count` digits."""
    x, x_test = views[make]
    some = torch.tensor(np.random.default_rng(seed).permutation(len(x))[:count])

    def loss(model):
        batch = some[torch.randint(count, (32,))]
        return F.cross_entropy(model(x[batch]), labels[batch])

    model = train(fresh(make, seed), loss, 300, 1e-2)
    with torch.no_grad():
        return (model(x_test).argmax(dim=1) == test_labels).float().mean().item()


# %%
scores = {}
with plots.Training(12, unit="model") as run:
    for make in (ViT, cnn):
        for count in (100, 1437):
            scores[make, count] = np.zeros(3)
            for seed in range(3):
                scores[make, count][seed] = digit_accuracy(make, count, seed)
                run.log()
for make in (ViT, cnn):
    size = sum(param.numel() for param in make().parameters())
    print(f"{make.__name__:<4} {size} parameters   " + "   ".join(
        f"{count} digits: {s.mean():.3f} ({s.min():.3f} to {s.max():.3f})" for (m, count), s in scores.items() if m is make))

# %% [markdown]
# With about as many parameters and equal steps the CNN is ahead both times, and far more so with 100 digits. It *has* what the
# ViT has to learn: that neighbouring pixels belong together, and that a stroke is the same stroke elsewhere.
# Dosovitskiy et al. (2021) found their ViT behind a ResNet when trained on a million images, and ahead when trained on
# 300 million. A built-in assumption is worth data; with enough data it is worth less. (One learning rate, one block,
# tiny images: this shows the direction, not the distance.)
#
# ### A GPT that writes
#
# The text of lesson 16, character by character: “the young queen near two dogs sees herself.” Its true entropy rate is
# known, 0.55 bits per character, and so is the true probability of every next character.

# %%
CONTEXT = 48


def as_ids(lines):
    """Each line behind a line break, up to CONTEXT characters in all; -100, which is not asked for, where there are none."""
    ids = np.full((len(lines), CONTEXT), -100)
    for row, line in zip(ids, lines, strict=True):
        known = text.encode("\n" + line)[:CONTEXT]
        row[: len(known)] = known
    return torch.tensor(ids)


def letter_loss(model, ids):
    return F.cross_entropy(model(ids[:, :-1].clamp(min=0)).flatten(0, 1), ids[:, 1:].flatten())


lines_read = as_ids(text.sentences(4000, seed=1))
writer = fresh(lambda: GPT(27, CONTEXT, 48, 4, 2, 96), seed=0)
with plots.Training(60, "loss", unit="ten steps") as run:
    train(writer, lambda model: letter_loss(model, lines_read[torch.randint(4000, (16,))]), 600, 5e-3, run=run)


# %%
@torch.no_grad()
def next_logits(texts):
    """Logits (n, 27) of the character after each of these equally long texts, which begin a sentence."""
    ids = torch.tensor(np.array([text.encode("\n" + written) for written in texts]))
    return writer(ids[:, -CONTEXT:])[:, -1].numpy()


new_lines, true_bits = text.sentences(500, seed=2), []
for line in new_lines:
    ids = text.encode(line[: CONTEXT - 1])
    true_bits += list(-np.log2(text.probabilities(line[: CONTEXT - 1])[np.arange(len(ids)), ids]))
with torch.no_grad():
    model_bits = letter_loss(writer, as_ids(new_lines)).item() / np.log(2)
print(f"new sentences, bits per character: the writer {model_bits:.2f}, the true probabilities {np.mean(true_bits):.2f}")

# %% [markdown]
# Close to the best. Now the verb has to agree with a subject that may be far away: “the king near the girls see**s**”.
# Lesson 16's network got this right up to some ten characters and guessed beyond.

# %%
known = []
for line in text.sentences(1200, seed=3):
    for place, distance in zip(*text.agreements(line), strict=True):
        if place < CONTEXT - 1:
            right_one = text.encode(line[place])[0]
            known.append((distance, next_logits([line[:place]])[0].argmax() == right_one))
known = np.array(known)
for low, high in ((0, 10), (10, 20), (20, 48)):
    part = known[(known[:, 0] > low) & (known[:, 0] <= high), 1]
    print(f"subject {low + 1:>2} to {high:>2} characters back: {part.mean():.2f} right of {len(part)}")

# %% [markdown]
# Attention reaches back over any distance in one step, so no gradient has to survive dozens of them. The network had to
# *learn* to reach back, though: most of its errors are still where the subject is far, and rare.
#
# ## Look inside
#
# ### Temperature and top-k, in your hands
#
# What the writer gives to each next character, what your `top_k_probabilities` makes of it, and the truth.
#
# 1. Begin with `a dog`. Do the green marks agree with the model's frames?
# 2. `temperature` to 0, then move the seed. Then 0.5, 1, 2. When do the first words appear that are none?
# 3. `temperature` 2, `top k` 2: what does top-k rescue, and what not?
# 4. The last two starts: which of the two nouns does the model follow?

# %%
widgets.transformer.next_token(next_logits, top_k_probabilities, reference("top_k_probabilities"))

# %%
for temperature, k in ((0.0, None), (0.5, None), (1.0, None), (1.5, None), (1.5, 3)):
    count = 10 if plots.fast() else 100
    lines = widgets.transformer.continued(next_logits, top_k_probabilities, "the ", temperature, k, 0, count)
    valid = np.mean([widgets.transformer.inside(line) == len(line) for line in lines])
    print(f"temperature {temperature}, top k {k or 'all':>3}: {valid:.2f} grammatical, {len(set(lines))} different of {count}")

# %% [markdown]
# Temperature trades variety against safety, and neither end is “more creative” or “more correct” in itself: at 0 the
# model writes *one* sentence, the same every time; at 1 it draws from what it believes, mistakes included; above, from
# something it does not believe. Top-k cuts off the tail where many of its mistakes are, and true but rare continuations
# with it; within the k it makes nothing better.
#
# ### Where a translator looks
#
# Cross-attention of the first translator while it writes test sentences: row by row the target words, and how much of
# each source word goes into them. Outlined in green is what is *known* to decide. Is attention where it should be? Look
# at the mean of the heads first, then for a head that looks at the noun when an adjective is written.


# %%
@torch.no_grad()
def cross_attention(model, test, heads=4):
    """Weights (n, heads, T, T) of the decoder: computed in PyTorch's own block, which takes your state_dict."""
    options = dict(dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    twin, seen = nn.TransformerDecoderLayer(32, heads, 64, **options), []
    twin.load_state_dict(model.decoder.state_dict())
    twin.multihead_attn.register_forward_pre_hook(lambda layer, inputs: seen.extend(inputs))
    memory = model.encode(torch.tensor(test.source))
    twin(model.start(with_start(torch.tensor(test.target))[:, :-1]), memory, tgt_mask=torch.ones(T, T).triu(1).bool())
    return twin.multihead_attn(*seen[:3], average_attn_weights=False)[1].numpy()


test = tests["new sentences"]
first_weights, long = cross_attention(translators[0], test), np.flatnonzero(test.source[:, 5])[:12]  # six words or more
widgets.transformer.alignments(first_weights[long], translation.Sentences(*(part[long] for part in test)))

# %%
def looked(w, test):
    """How often the largest weight is on the word itself, and for adjectives on their noun: for each head, and their mean."""
    hits, nouns = [], []
    for found, source in zip(np.concatenate([w, w.mean(1, keepdims=True)], axis=1), test.source, strict=True):
        words = [translation.SOURCE[j] for j in source if j]
        for row, places in enumerate(translation.alignment(words)):
            best = found[:, row].argmax(-1)
            hits.append(best == places[0])
            nouns += [best == places[1]] if len(places) > 1 else []
    return np.mean(hits, axis=0), np.mean(nouns, axis=0)


for seed, model in enumerate(translators):
    own, noun = looked(cross_attention(model, test), test)
    print(f"seed {seed}: own word, heads " + " ".join(f"{v:.2f}" for v in own[:-1]) + f", mean {own[-1]:.2f};  noun, heads "
          + " ".join(f"{v:.2f}" for v in noun[:-1]))

# %% [markdown]
# The mean of the heads points at the right word 94 times of 100 or more. For the noun one head may specialise, in other
# seeds it is another one, or two share the work. And a weight that is *not* on the noun proves nothing: the encoder has
# already mixed noun and adjective, so the ending *can* be read off the adjective's place. Attention weights say from
# which place something was taken, not what was stored there.
#
# ### Which word is missing?
#
# Hide a word of a test sentence and see what the GPT expects from its left and the BERT from both sides. Hide a noun,
# then its adjective, then the verb. Where does knowing the rest help, and where not at all?

# %%
begun_by_adjective = np.flatnonzero((test_words[:, 0] >= 13) & (test_words[:, 4] > 0))[:12]
shown = [part[begun_by_adjective] for part in (test_words, both_ways["GPT"][0], both_ways["BERT"][0])]
widgets.transformer.fill_in(*shown)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# The stem of an adjective is free, six are possible, so on average neither can do better than 1/6; but its ending is
# certain from both sides only. A noun is free among twelve, and if an adjective stands before it, among those of its
# class: the GPT knows that as well, since the adjective stands to the left. And whether a noun or an adjective comes is
# a guess from the left and plain from both sides.
#
# </details>
#
# ## Repair, predict, and what goes wrong

# %% [markdown] about="repair_block_forward"
# ### Repair: a block that forgets its input
#
# `repair_block_forward(x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None) ->
# y`: meant to be pre-norm, as `transformer_block_forward`. It trains, and in a shallow stack nobody notices
# anything; in a deep one the clean way from x to y is missing, as in post-norm.


# %% exercise="repair_block_forward"
def repair_block_forward(
    x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None
):
    """x (N, T, D), norm 1, w_q, w_k, w_v, w_o (D, D), norm 2, w1, b1, w2, b2, num_heads, mask -> y (N, T, D)"""
    ### BEGIN SOLUTION
    a = layernorm_forward(x, gamma1, beta1)
    x = x + multi_head_attention_forward(a, w_q, w_k, w_v, w_o, num_heads, mask)
    b = layernorm_forward(x, gamma2, beta2)
    return x + feed_forward_forward(b, w1, b1, w2, b2)
    ### BROKEN
    # x = layernorm_forward(x, gamma1, beta1)
    # x = x + multi_head_attention_forward(x, w_q, w_k, w_v, w_o, num_heads, mask)
    # x = layernorm_forward(x, gamma2, beta2)
    # return x + feed_forward_forward(x, w1, b1, w2, b2)
    ### END SOLUTION


# %% check="repair_block_forward"
check(repair_block_forward)

# %% [markdown] about="repair_next_token_loss"
# ### Repair: too good a loss
#
# `repair_next_token_loss(logits, ids) -> loss`: `logits (N, T, V)` of a GPT that has read `ids (N, T)`; the mean
# cross-entropy of the *next* tokens. With the function below the loss goes to 0 on any text,
# and what the model then writes is one token over and over.


# %% exercise="repair_next_token_loss"
def repair_next_token_loss(logits, ids):
    """logits (N, T, V), ids (N, T) -> loss ()"""
    ### BEGIN SOLUTION
    v = logits.shape[-1]
    return cross_entropy_forward(logits[:, :-1].reshape(-1, v), ids[:, 1:].reshape(-1))
    ### BROKEN
    # v = logits.shape[-1]
    # return cross_entropy_forward(logits.reshape(-1, v), ids.reshape(-1))
    ### END SOLUTION


# %% check="repair_next_token_loss"
check(repair_next_token_loss)

# %% [markdown] about="count_gpt_parameters"
# ### Predict: how many parameters?
#
# `count_gpt_parameters(vocab, context, d_model, nhead, num_layers, dim_feedforward) -> embeddings, blocks, head`: the
# learnable numbers of your `GPT`: in the two embeddings, in all blocks, in the last norm and the linear layer.
#
# By hand, `GPT(vocab=5, context=3, d_model=2, nhead=1, num_layers=1, dim_feedforward=4)`: embeddings 5 · 2 + 3 · 2 =
# 16. The block: attention 4 · (2 · 2 + 2) = 24, feed-forward 2 · 4 + 4 + 4 · 2 + 2 = 22, norms 2 · 4 = 8, together 54.
# The end: 4 + 2 · 5 + 5 = 19.


# %% exercise="count_gpt_parameters"
def count_gpt_parameters(vocab, context, d_model, nhead, num_layers, dim_feedforward):
    """vocab, context, d_model, nhead, num_layers, dim_feedforward -> embeddings (), blocks (), head ()"""
    ### BEGIN SOLUTION
    d, m = d_model, dim_feedforward
    attention, feed, norms = 4 * (d * d + d), 2 * d * m + d + m, 4 * d
    return (vocab + context) * d, num_layers * (attention + feed + norms), 2 * d + d * vocab + vocab
    ### END SOLUTION


# %% check="count_gpt_parameters"
check(count_gpt_parameters)

# %% [markdown]
# With `dim_feedforward` = 4 `d_model` a block has about $12 d^2$ weights: 4 in attention, 8 in the feed-forward layer.
# Try it on the sizes that Radford et al. (2019) give for the smallest GPT-2:

# %% tags=["nbval-check-output"]
embeddings, blocks, head = count_gpt_parameters(50257, 1024, 768, 12, 12, 3072)
print(f"embeddings {embeddings / 1e6:.1f}, blocks {blocks / 1e6:.1f}, head {head / 1e6:.1f} million")
print(f"12 d² per block: {12 * 12 * 768**2 / 1e6:.1f} million; GPT-2 shares the head with the embedding: "
      f"{(embeddings + blocks + 2 * 768) / 1e6:.0f} million")

# %% [markdown]
# ### What people believe, and what is true
#
# - **“BERT and GPT are different architectures.”** They differ by a mask and an objective. Above it was one overridden
#   method.
# - **“A transformer without positions cannot know the order.”** True of an encoder, exactly: it is a function of sets. A
#   causal decoder can tell, from how much it sees: the model without positions was right more often than by chance.
# - **“Rotary positions are absolute, since each token is turned by its own position.”** Each is, and the score depends on
#   the difference only: you saw it to four digits. *Relative* does not mean *any length*: see the measurement.
# - **“Temperature 0 divides by 0.”** It is the limit: the largest logit. And it does not make a model right, only
#   repeatable, and even that is up to rounding when two logits nearly tie.
# - **“More heads, more parameters.”** Heads share the features. `nhead` does not occur in your count.
# - **“Attention is the transformer.”** Two thirds of the weights of a block are in its feed-forward layer.
# - **“Attention weights explain the answer.”** They pointed at the right word here, on average. But where no head looked
#   most at the noun, as for over a third of the adjectives with the last seed, the ending was right all the same.
# - **“Transformers need less built in, so they need less data.”** The other way round: your ViT needed more.
# - **“The loss is near 0, so it has understood.”** 500 sums remembered; or the targets not shifted.
#
# ## Where it is used, and what came after
#
# Translation was the first use (Vaswani et al., 2017). Encoders alone (BERT, 2019) took over classification and search,
# decoders alone (GPT, 2018 to 2020) took over writing, and then nearly everything, as what one does with text came to
# be written as text. With patches for tokens it is an image model (2021), with spectrograms a speech model, with
# residues a model of proteins. A block of today differs from yours in details: RMS norm instead of layer norm (08),
# rotary positions, a gated feed-forward layer (SwiGLU; Shazeer, 2020), no biases, several queries to one key (lesson
# 20). The cost of $T^2$ scores, and what can be done about it, is lesson 20.
#
# What is disputed:
#
# - **What attention heads do.** Some have a role that can be named and tested, as on your translation; most have not.
# - **Whether a GPT has learnt a rule or a table.** On a task of known truth, held-out problems decide, as above. On the
#   web, nobody knows what was held out.
# - **Why it scales.** That loss falls as a power of size and data is measured (Kaplan et al., 2020; Hoffmann et al.,
#   2022); why, and how far, is open.
#
# You can now
#
# - write a transformer block forwards and backwards, and say what norm placement does to its gradients;
# - give tokens a position in three ways, and say what each knows beyond the training length;
# - turn the same block into an encoder, a decoder, a translator, a GPT, a BERT and a ViT;
# - draw from a model with temperature and top-k, and test what it has learnt on what it has not seen.
#
# To read:
#
# - A. Vaswani, N. Shazeer, N. Parmar et al., *Attention is all you need*, 2017.
# - R. Xiong, Y. Yang, D. He et al., *On layer normalization in the transformer architecture*, 2020.
# - J. Su, Y. Lu, S. Pan, A. Murtadha, B. Wen and Y. Liu, *RoFormer: enhanced transformer with rotary position embedding*,
#   2021.
# - J. Devlin, M.-W. Chang, K. Lee and K. Toutanova, *BERT: pre-training of deep bidirectional transformers for language
#   understanding*, 2019.
# - A. Dosovitskiy, L. Beyer, A. Kolesnikov et al., *An image is worth 16x16 words: transformers for image recognition at
#   scale*, 2021.
