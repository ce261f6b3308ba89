"""Lesson 19: positions, the transformer block, encoder and decoder, GPT, masked modelling, patches, sampling."""

from math import erf

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of, module

# What the wrong implementations below are made of.


def normed(x, gamma, beta, eps=1e-5):
    return gamma * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) + beta


def normed_backward(dy, x, gamma, eps=1e-5):
    """dx, dgamma, dbeta of layer norm on (n, t, d)."""
    s = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    xhat, g = (x - x.mean(-1, keepdims=True)) * s, dy * gamma
    dx = s * (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True))
    return dx, (dy * xhat).sum((0, 1)), dy.sum((0, 1))


def split(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join(x):
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def attend(x, ws, heads, mask):
    """What multi-head attention goes through: q, k, v, the weights, what the heads have found side by side."""
    q, k, v = (split(x @ w.T, heads) for w in ws[:3])
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores = scores if mask is None else np.where(mask, scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return q, k, v, p, join(p @ v)


def attention(x, ws, heads, mask):
    return attend(x, ws, heads, mask)[-1] @ ws[3].T


def attention_backward(dy, x, ws, heads, mask):
    """dx and the list of the four weights' gradients."""
    q, k, v, p, found = attend(x, ws, heads, mask)
    dv = p.swapaxes(-1, -2) @ (df := split(dy @ ws[3], heads))
    dp = df @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    parts = [join(ds @ k), join(ds.swapaxes(-1, -2) @ q), join(dv)]
    dws = [np.einsum("nto,nti->oi", part, x) for part in parts] + [np.einsum("nto,nti->oi", dy, found)]
    return sum(part @ w for part, w in zip(parts, ws, strict=False)), dws


BEND = np.sqrt(2 / np.pi)


def gelu(z):
    return 0.5 * z * (1 + np.tanh(BEND * (z + 0.044715 * z**3)))


def gelu_slope(z):
    t = np.tanh(BEND * (z + 0.044715 * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * BEND * (1 + 3 * 0.044715 * z**2)


def causal(letter="t"):
    return lambda rng, sizes: np.tri(sizes[letter], dtype=bool)


# --- Positions -------------------------------------------------------------------------------------------------------


def waves(exponent=lambda i, d: 2 * i / d, first=np.sin, second=np.cos, start=0, together=True, grow=-1):
    """Sinusoidal positions with some of their pieces changed."""

    def positions(t, d):
        angles = np.arange(start, start + t)[:, None] * 10000.0 ** (grow * exponent(np.arange(d // 2), d))
        pair = first(angles), second(angles)
        return np.stack(pair, -1).reshape(t, d) if together else np.concatenate(pair, 1)

    return positions


def each_its_own(t, d):
    """Every column its own frequency, sine and cosine in turn."""
    angles = np.arange(t)[:, None] * 10000.0 ** (-np.arange(d) / d)
    return np.where(np.arange(d) % 2, np.cos(angles), np.sin(angles))


@exercise(
    points=2, minutes=12, difficulty=1,
    cases=[dict(t=5, d=6), dict(t=3, d=8), dict(t=1, d=4), dict(t=7, d=2)],
    hints=(
        "There are d / 2 frequencies. Each makes two columns: a sine and, to its right, a cosine of the same angle.",
        "The angles are a table (t, d / 2): position times frequency, `np.arange(t)[:, None] * frequencies`, with "
        "`frequencies = 10000.0 ** (-2 * np.arange(d // 2) / d)`.",
        "Fill in by steps of two: `p[:, 0::2] = np.sin(angles)` and `p[:, 1::2] = np.cos(angles)`.",
    ),
    mistakes={
        "p has all sines first and then all cosines. Here they take turns: columns 2i and 2i + 1 belong together.":
            waves(together=False),
        "p has the sines and the cosines exchanged: column 0 is a sine.": waves(first=np.cos, second=np.sin),
        "p counts positions from 1. The first row is position 0.": waves(start=1),
        "p lacks the 2 in the exponent: pair i has the frequency 10000 to the power of −2i / d.":
            waves(exponent=lambda i, d: i / d),
        "p has the 2 in the exponent twice: the numbers 0, 2, 4, … are 2i already.":
            waves(exponent=lambda i, d: 4 * i / d),
        "p turns the wrong way round: the frequencies must fall from 1, not rise.": waves(grow=1),
        "p has another frequency in every column. Two neighbours, 2i and 2i + 1, share one.": each_its_own,
    },
)  # fmt: skip
def sinusoidal_positions(t, d) -> "p: t d":
    """Sines and cosines of falling frequency, in turn (Vaswani et al., 2017)."""
    frequencies = torch.logspace(0, 2 / d - 1, d // 2, base=10000.0, dtype=torch.float64)
    angles = torch.outer(torch.arange(t, dtype=torch.float64), frequencies)
    return torch.view_as_real(torch.polar(torch.ones_like(angles), angles)).flip(-1).flatten(1)


def rotation(turn=1, halves=False, exponent=lambda i, d: 2 * i / d, places=lambda p: p, crossed=1.0):
    """The rotation of pairs with some of its pieces changed; `turn` −1 goes back."""

    def rotate(x, positions):
        d = x.shape[-1]
        angles = turn * np.asarray(places(positions))[:, None] * 10000.0 ** -exponent(np.arange(d // 2), d)
        at = (slice(0, d // 2), slice(d // 2, d)) if halves else (slice(0, d, 2), slice(1, d, 2))
        y, (a, b) = np.empty_like(x), (x[..., part] for part in at)
        y[..., at[0]] = a * np.cos(angles) - crossed * b * np.sin(angles)
        y[..., at[1]] = crossed * a * np.sin(angles) + b * np.cos(angles)
        return y

    return rotate


def added(x, positions):
    """The sinusoidal code of each position added."""
    d = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)
    return x + np.stack([np.sin(angles), np.cos(angles)], -1).reshape(len(positions), d)


def drawn_positions(rng, sizes):
    return rng.integers(-20, 40, sizes["t"])


ROPE_CASES = [
    dict(x=(2, 5, 6), t=5),
    dict(x=(3, 2, 4, 8), t=4),
    dict(x=(7, 4), t=7, positions=lambda rng, sizes: np.arange(3, 10)),
    dict(x=(1, 1, 2), t=1, positions=lambda rng, sizes: np.array([5])),
    dict(x=(2, 3, 4), t=3, positions=lambda rng, sizes: np.array([0, 0, 900])),
]


@exercise(
    points=3, minutes=18, difficulty=2, cases=ROPE_CASES, draws=dict(positions=drawn_positions),
    hints=(
        "A pair (a, b) turned by the angle α is (a cos α − b sin α, a sin α + b cos α).",
        "`x[..., 0::2]` holds the first number of every pair, `x[..., 1::2]` the second: both have the shape "
        "(…, T, D / 2).",
        "The angles are a table (T, D / 2), `positions[:, None] * 10000.0 ** (-2 * np.arange(D // 2) / D)`, as in "
        "sinusoidal_positions. Make `y = np.empty_like(x)` and fill `y[..., 0::2]` and `y[..., 1::2]`.",
    ),
    mistakes={
        "y pairs the first half of the features with the second. Here neighbours are a pair: 2i and 2i + 1.":
            rotation(halves=True),
        "y is turned backwards: look at the two signs of the sines.": rotation(turn=-1),
        "y turns by the row's number. The angle comes from `positions`, which need not be 0, 1, 2, …":
            rotation(places=lambda p: range(len(p))),
        "y turns every pair equally fast. Pair i has the frequency 10000 to the power of −2i / D.":
            rotation(exponent=lambda i, d: 0 * i),
        "y lacks the 2 in the exponent: pair i has the frequency 10000 to the power of −2i / D.":
            rotation(exponent=lambda i, d: i / d),
        "y has the 2 in the exponent twice: the numbers 0, 2, 4, … are 2i already.":
            rotation(exponent=lambda i, d: 4 * i / d),
        "y is x plus a code for the position. Rotary positions add nothing: they turn the pairs.": added,
        "y has only the cosines: each number of a pair also gets a share of the other.": rotation(crossed=0.0),
    },
)  # fmt: skip
def rope_forward(x: "...", positions: "t") -> "y: ...":
    """Each pair of neighbours turned by an angle that grows with the position (Su et al., 2021)."""
    d = x.shape[-1]
    frequencies = torch.logspace(0, 2 / d - 1, d // 2, base=10000.0, dtype=torch.float64)
    angles = torch.outer(positions.double(), frequencies)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def with_dy(rotate):
    return lambda dy, x, positions: rotate(dy, positions)


gradient_of(
    rope_forward, points=2, minutes=10, difficulty=2, wrt="x",
    hints=(
        "y is x multiplied by a matrix that depends on the positions alone. What does a linear map do to a gradient?",
        "The gradient goes back through the transposed matrix. Of a rotation, that is the rotation by the opposite "
        "angle.",
        "dx has no x in it: `rope_forward(dy, -positions)`.",
    ),
    mistakes={
        "dx is dy turned forwards once more. Back goes the transposed rotation: the opposite angle.":
            with_dy(rotation()),
        "dx pairs the first half of the features with the second. Neighbours are a pair.":
            with_dy(rotation(turn=-1, halves=True)),
        "dx is dy unturned: the pairs were turned on the way forwards.": lambda dy, x, positions: dy.copy(),
        "dx is computed from x: a linear map's gradient depends on dy alone.":
            lambda dy, x, positions: rotation(turn=-1)(x, positions),
        "dx turns by the row's number. The angle comes from `positions`.":
            with_dy(rotation(turn=-1, places=lambda p: range(len(p)))),
    },
)  # fmt: skip


# --- Feed-forward ----------------------------------------------------------------------------------------------------


def feeding(bend=gelu, zero=(), last=lambda y: y):
    """The feed-forward layer with some of its pieces changed."""

    def forward(x, w1, b1, w2, b2):
        b1, b2 = (0 * b if name in zero else b for name, b in (("b1", b1), ("b2", b2)))
        return last(bend(x @ w1.T + b1) @ w2.T + b2)

    return forward


def exact_gelu(z):
    return z * (1 + np.vectorize(erf)(z / np.sqrt(2))) / 2


FEED_CASES = [
    dict(n=2, t=3, d=4, m=5),
    dict(n=3, t=2, d=2, m=6),
    dict(n=1, t=1, d=3, m=1),
]


@exercise(
    points=2, minutes=8, difficulty=1, cases=FEED_CASES,
    hints=(
        "A linear layer to m features, GELU, a linear layer back to d. Every token goes through it by itself.",
        "`x @ w1.T + b1` works on (N, T, D) as it does on (N, D): the matrix product acts on the last axis.",
        "`gelu_forward(x @ w1.T + b1) @ w2.T + b2`.",
    ),
    mistakes={
        "y lacks the GELU: two linear layers in a row are one.": feeding(bend=lambda z: z),
        "y has a ReLU. Here it is a GELU, by the tanh formula.": feeding(bend=lambda z: np.maximum(z, 0)),
        "y has the exact GELU. Here it is the tanh formula, `gelu_forward`'s default; they differ in the fourth digit.":
            feeding(bend=exact_gelu),
        "y has a GELU behind the second layer as well.": feeding(last=gelu),
        "y has its GELU behind the second layer instead of between the two.": feeding(bend=lambda z: z, last=gelu),
        "y has x added to it. The skip belongs to the block, not to this layer.":
            lambda x, *rest: x + feeding()(x, *rest),
        "y lacks b1, the bias of the first layer.": feeding(zero=("b1",)),
        "y lacks b2, the bias of the second layer.": feeding(zero=("b2",)),
    },
)  # fmt: skip
def feed_forward_forward(x: "n t d", w1: "m d", b1: "m", w2: "d m", b2: "d") -> "y: n t d":
    """Two linear layers with a GELU between, for every token by itself (Vaswani et al., 2017, with their ReLU)."""
    return F.linear(F.gelu(F.linear(x, w1, b1), approximate="tanh"), w2, b2)


def feeding_backward(dy, x, w1, b1, w2):
    z = x @ w1.T + b1
    dz = dy @ w2 * gelu_slope(z)
    dw1, dw2 = np.einsum("ntm,ntd->md", dz, x), np.einsum("ntd,ntm->dm", dy, gelu(z))
    return dz @ w1, dw1, dz.sum((0, 1)), dw2, dy.sum((0, 1))


def feeding_grads(slope=gelu_slope, seen=gelu, biases=lambda g: g.sum((0, 1)), last=None):
    """The backward pass of the feed-forward layer with some of its pieces changed."""

    def backward(dy, x, w1, b1, w2, b2):
        z = x @ w1.T + b1
        dz = dy @ w2 * slope(z)
        dw1 = np.einsum("ntm,ntd->md", dz[-1:] if last == "n" else dz, x[-1:] if last == "n" else x)
        dw2 = np.einsum("ntd,ntm->dm", dy[-1:] if last == "n" else dy, seen(z[-1:] if last == "n" else z))
        return dz @ w1, dw1, biases(dz), dw2, biases(dy)

    return backward


gradient_of(
    feed_forward_forward, points=4, minutes=20, difficulty=2,
    hints=(
        "Compute z = x w1ᵀ + b1 and h = gelu(z) again. Then back: second layer, GELU, first layer.",
        "`dh = dy @ w2`, then `dz = gelu_backward(dh, z)`, then `dx = dz @ w1`.",
        "All tokens of all examples use the same weights, so their gradients add up. Make one long table of tokens: "
        "`dz.reshape(-1, m).T @ x.reshape(-1, d)` is dw1.",
        "dw2 is `dy.reshape(-1, d).T @ h.reshape(-1, m)`; the biases are `dz.sum((0, 1))` and `dy.sum((0, 1))`.",
    ),
    mistakes={
        "dx, dw1 and db1 ignore the GELU: its slope multiplies what comes back.": feeding_grads(slope=lambda z: 1.0),
        "dx, dw1 and db1 have the slope of a ReLU. A GELU lets a little pass below 0, and more than all above.":
            feeding_grads(slope=lambda z: z > 0),
        "dx, dw1 and db1 multiply by gelu(z). It is the slope that multiplies: gelu_backward.":
            feeding_grads(slope=gelu),
        "dw2 is computed from z. The second layer saw gelu(z).": feeding_grads(seen=lambda z: z),
        "db1 and db2 are means over the tokens. A bias collects from all of them: a sum.":
            feeding_grads(biases=lambda g: g.mean((0, 1))),
        "dw1 and dw2 come from the last example alone. Sum over all examples and all tokens.":
            feeding_grads(last="n"),
    },
)  # fmt: skip


# --- The block -------------------------------------------------------------------------------------------------------


def scaled(scale, *letters):
    return lambda rng, sizes: scale * rng.standard_normal([sizes[k] for k in letters])


BLOCK_CASES = [
    dict(n=2, t=3, d=4, m=5, num_heads=2, mask=causal()),
    dict(n=2, t=4, d=6, m=3, num_heads=3),
    dict(n=1, t=5, d=4, m=2, num_heads=1, mask=causal()),
    dict(n=1, t=1, d=2, m=1, num_heads=1, mask=causal()),
]
BLOCK_DRAWS = {f"w_{k}": scaled(0.6, "d", "d") for k in "qkvo"} | {
    "w1": scaled(0.5, "m", "d"), "w2": scaled(0.5, "d", "m")
}  # fmt: skip


def blocked(
    first=normed, second=normed, skip1=lambda x, a: x, skip2=lambda h, b: h, after=None, rows=lambda mask: mask,
    reads=lambda x, h: h, one_norm=False,
):  # fmt: skip
    """A transformer block with some of its pieces changed; `after` normalises each sum."""

    def forward(x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None):
        norm1 = gamma1, beta1
        norm2 = norm1 if one_norm else (gamma2, beta2)
        a = first(x, *norm1)
        h = skip1(x, a) + attention(a, (w_q, w_k, w_v, w_o), num_heads, rows(mask))
        h = after(h, *norm1) if after else h
        b = second(reads(x, h), *norm2)
        y = skip2(h, b) + gelu(b @ w1.T + b1) @ w2.T + b2
        return after(y, *norm2) if after else y

    return forward


def plain(x, gamma, beta):
    return x


def strictly(mask):
    """The causal mask without its diagonal, but for the first row."""
    return mask if mask is None else np.tri(len(mask), k=-1, dtype=bool) | (np.arange(len(mask)) == 0)[:, None]


BLOCK_MISTAKES = {
    "y has its norms behind the sums: that is post-norm. Here each branch begins with its norm, and the sum is left "
    "alone.":
        blocked(first=plain, second=plain, after=normed),
    "y has norm1(x) on the first skip. The skip carries x as it came.": blocked(skip1=lambda x, a: a),
    "y has norm2(h) on the second skip. The skip carries h, the sum so far.": blocked(skip2=lambda h, b: b),
    "y has normalised numbers on both skips. Only the branches see them; the skips carry x and h as they came.":
        blocked(skip1=lambda x, a: a, skip2=lambda h, b: b),
    "y lacks the first skip: x is added to what attention has found.": blocked(skip1=lambda x, a: 0),
    "y lacks the second skip: h is added to what the feed-forward layer makes.": blocked(skip2=lambda h, b: 0),
    "y ignores the mask: tokens see the future.": blocked(rows=lambda mask: None),
    "y lets the feed-forward branch read x. It comes second, and reads h = x + attention.":
        blocked(reads=lambda x, h: x),
    "y uses the first norm's gain and bias in both norms.": blocked(one_norm=True),
    "y lacks the norms: each branch begins with one.": blocked(first=plain, second=plain),
}  # fmt: skip


@exercise(
    points=4, minutes=15, difficulty=2, cases=BLOCK_CASES, draws=BLOCK_DRAWS,
    hints=(
        "Two branches, one after the other: h = x + (first branch of x), y = h + (second branch of h).",
        "Each branch begins with its own layer norm. The skips carry what came in, not what the norm has made of it.",
        "`a = layernorm_forward(x, gamma1, beta1)`; h is x plus `multi_head_attention_forward` of a, with the four "
        "matrices, num_heads and mask; then the same with norm 2 and `feed_forward_forward`, on h.",
    ),
    mistakes=BLOCK_MISTAKES,
)  # fmt: skip
def transformer_block_forward(
    x: "n t d", gamma1: "d", beta1: "d", w_q: "d d", w_k: "d d", w_v: "d d", w_o: "d d", gamma2: "d", beta2: "d",
    w1: "m d", b1: "m", w2: "d m", b2: "d", num_heads, mask=None,
) -> "y: n t d":  # fmt: skip
    """Pre-norm: x plus attention on its norm, then that plus a feed-forward layer on its norm (Xiong et al., 2020)."""
    a = F.layer_norm(x, gamma1.shape, gamma1, beta1)
    q, k, v = (F.linear(a, w).unflatten(-1, (num_heads, -1)).transpose(1, 2) for w in (w_q, w_k, w_v))
    h = x + F.linear(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2), w_o)
    return h + feed_forward_forward(F.layer_norm(h, gamma2.shape, gamma2, beta2), w1, b1, w2, b2)


def blocked_grads(
    skip2=lambda dy: dy, skip1=lambda dy, dh: dh, through1=True, through2=True, norm2=normed_backward,
    norm1=normed_backward, rows=lambda mask: mask, rows_back=lambda mask: mask, arrives=lambda dy, dh: dh,
    reads=lambda h, b: b, seen=lambda x, a: a, normalised=lambda x, h: h,
):  # fmt: skip
    """The backward pass of a transformer block with some of its pieces changed."""

    def backward(dy, x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None):
        ws, mask = (w_q, w_k, w_v, w_o), rows(mask)
        a = normed(x, gamma1, beta1)
        h = x + attention(a, ws, num_heads, mask)
        db, dw1, db1, dw2, db2 = feeding_backward(dy, reads(h, normed(h, gamma2, beta2)), w1, b1, w2)
        back, dgamma2, dbeta2 = norm2(db, normalised(x, h), gamma2)
        dh = skip2(dy) + (back if through2 else 0)
        da, dws = attention_backward(arrives(dy, dh), seen(x, a), ws, num_heads, rows_back(mask))
        back, dgamma1, dbeta1 = norm1(da, x, gamma1)
        dx = skip1(dy, dh) + (back if through1 else 0)
        return dx, dgamma1, dbeta1, *dws, dgamma2, dbeta2, dw1, db1, dw2, db2

    return backward


def norm_passed_by(dy, x, gamma):
    """The gradient of the norm's parameters, and dy handed on as it is."""
    return dy, *normed_backward(dy, x, gamma)[1:]


gradient_of(
    transformer_block_forward, points=8, minutes=35, difficulty=3,
    hints=(
        "Compute a, h = x + attention(a) and b = norm2(h) again. Then go back: first the feed-forward branch with its "
        "norm, then the attention branch with its norm.",
        "dy arrives at the second skip and at the feed-forward branch. `feed_forward_backward(dy, b, …)` gives db and "
        "the four gradients of that layer; `layernorm_backward(db, h, …)` gives what comes back to h, dgamma2 and "
        "dbeta2.",
        "h went two ways: dh = dy + back. This dh, not dy, arrives at the attention branch.",
        "`multi_head_attention_backward(dh, a, …)` gives da and the gradients of the four matrices. Then the first "
        "norm, at x, and dx = dh + what comes back through it. Return all thirteen in the forward's order.",
    ),
    mistakes={
        "dx, dgamma1, dbeta1, dw_q, dw_k, dw_v and dw_o lack the second skip: h reaches y directly as well, so dh = dy "
        "+ what comes back through the feed-forward branch.":
            blocked_grads(skip2=lambda dy: 0),
        "dx lacks the first skip: x reaches h directly as well, so dh itself is added.":
            blocked_grads(skip1=lambda dy, dh: 0),
        "dx adds dy at the first skip. What arrives there is dh, which also holds what came back through the "
        "feed-forward branch.":
            blocked_grads(skip1=lambda dy, dh: dy),
        "dx is dh alone: x also went into the attention branch.": blocked_grads(through1=False),
        "dx, dgamma1, dbeta1, dw_q, dw_k, dw_v and dw_o lack what comes back through the feed-forward branch: h went "
        "into it too.":
            blocked_grads(through2=False),
        "dgamma1, dbeta1, dw_q, dw_k, dw_v, dw_o and dx let dy into the attention branch. What arrives there is dh, "
        "which also holds what came back through the feed-forward branch.":
            blocked_grads(arrives=lambda dy, dh: dy),
        "dx passes the first norm as if it were not there. It has a gradient of its own: layernorm_backward.":
            blocked_grads(norm1=norm_passed_by),
        "dx, dgamma1, dbeta1, dw_q, dw_k, dw_v and dw_o pass the second norm as if it were not there. It has a "
        "gradient of its own: layernorm_backward.":
            blocked_grads(norm2=norm_passed_by),
        "the gradients ignore the mask: on the way forwards tokens did not see the future.":
            blocked_grads(rows=lambda mask: None),
        "dx, dgamma1, dbeta1, dw_q, dw_k, dw_v and dw_o ignore the mask on the way back alone: hand it to "
        "multi_head_attention_backward too.":
            blocked_grads(rows_back=lambda mask: None),
        "dx, dgamma1, dbeta1, dw_q, dw_k, dw_v and dw_o go back through attention as if it had read x. It read "
        "a = norm1(x).":
            blocked_grads(seen=lambda x, a: x),
        "dx, dgamma1, dbeta1, dw_q, dw_k, dw_v, dw_o and dgamma2 go back through the second norm as if it had read x. "
        "It read h = x + attention(a).":
            blocked_grads(normalised=lambda x, h: x),
        "all gradients but db2 go back through the feed-forward layer as if it had read h. It read b = norm2(h).":
            blocked_grads(reads=lambda h, b: h),
    },
)  # fmt: skip


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class TransformerBlock(nn.Module):
    """nn.TransformerEncoderLayer with norm_first=True and without dropout; in its mask True means allowed."""

    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d_model, dim_feedforward), nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)

    def attend(self, x, mask):
        return self.self_attn(x, x, x, attn_mask=mask if mask is None else ~mask, need_weights=False)[0]

    def feed(self, x):
        return self.linear2(F.gelu(self.linear1(x)))

    def forward(self, x, mask=None):
        x = x + self.attend(self.norm1(x), mask)
        return x + self.feed(self.norm2(x))


class PostNorm(TransformerBlock):
    def forward(self, x, mask=None):
        x = self.norm1(x + self.attend(x, mask))
        return self.norm2(x + self.feed(x))


class NormedSkips(TransformerBlock):
    def forward(self, x, mask=None):
        x = self.norm1(x)
        x = self.norm2(x + self.attend(x, mask))
        return x + self.feed(x)


class OppositeMask(TransformerBlock):
    def attend(self, x, mask):
        return super().attend(x, ~mask | torch.eye(len(mask), dtype=bool))


class MaskAsItIs(TransformerBlock):
    def attend(self, x, mask):
        return super().attend(x, ~mask)


class NoMask(TransformerBlock):
    def attend(self, x, mask):
        return super().attend(x, None)


class TanhGELU(TransformerBlock):
    def feed(self, x):
        return self.linear2(F.gelu(self.linear1(x), approximate="tanh"))


class ReLUFeed(TransformerBlock):
    def feed(self, x):
        return self.linear2(self.linear1(x).relu())


class OneNorm(TransformerBlock):
    def forward(self, x, mask=None):
        x = x + self.attend(self.norm1(x), mask)
        return x + self.feed(self.norm1(x))


class NoSkips(TransformerBlock):
    def forward(self, x, mask=None):
        return self.feed(self.norm2(self.attend(self.norm1(x), mask)))


module(
    TransformerBlock, points=5, minutes=25, difficulty=2,
    cases=[
        dict(init=dict(d_model=4, nhead=2, dim_feedforward=5), x=(2, 3, 4), mask=lambda rng, s: np.tri(3, dtype=bool)),
        dict(init=dict(d_model=3, nhead=1, dim_feedforward=4), x=(3, 2, 3), mask=lambda rng, s: np.ones((2, 2), bool)),
        dict(init=dict(d_model=3, nhead=3, dim_feedforward=2), x=(1, 5, 3),
             mask=lambda rng, s: np.abs(np.subtract.outer(range(5), range(5))) < 2),
        dict(init=dict(d_model=2, nhead=1, dim_feedforward=1), x=(1, 1, 2), mask=lambda rng, s: np.ones((1, 1), bool)),
        dict(init=dict(d_model=4, nhead=2, dim_feedforward=3), x=(2, 3, 4)),
    ],
    forbids=("torch.nn.TransformerEncoderLayer", "torch.nn.TransformerEncoder"),
    hints=(
        "Five attributes with PyTorch's names: `self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)`, "
        "`linear1`, `linear2` (nn.Linear), `norm1`, `norm2` (nn.LayerNorm).",
        "nn.MultiheadAttention returns a pair, the output and the weights: take `[0]`. Its attn_mask says True where "
        "attention is forbidden: hand it `~mask`, and None where mask is None.",
        "h = x + self_attn(a, a, a, …)[0] with a = norm1(x); then h + linear2(F.gelu(linear1(norm2(h)))). "
        "Add `need_weights=False`, which is quicker.",
    ),
    mistakes={
        "y has its norms behind the sums: that is post-norm, PyTorch's default. Here norm_first=True.": PostNorm,
        "y has normalised numbers on the skips. The skips carry what came in.": NormedSkips,
        "y has the mask the wrong way round: in this course True is allowed, in nn.MultiheadAttention True is "
        "forbidden.": OppositeMask,
        "y is nan where a row of the mask is all True: to nn.MultiheadAttention, True is forbidden. Hand it `~mask`.":
            MaskAsItIs,
        "y ignores the mask.": NoMask,
        "y has the tanh formula of GELU. The built-in's \"gelu\" is the exact one: F.gelu without further arguments.":
            TanhGELU,
        "y has a ReLU. That is PyTorch's default; here the activation is \"gelu\".": ReLUFeed,
        "y goes through norm1 twice and never through norm2.": OneNorm,
        "y lacks both skips.": NoSkips,
    },
)  # fmt: skip


class DecoderBlock(TransformerBlock):
    """nn.TransformerDecoderLayer with norm_first=True and without dropout; in its mask True means allowed."""

    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__(d_model, nhead, dim_feedforward)
        self.norm3 = nn.LayerNorm(d_model)
        self.multihead_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)

    def cross(self, x, memory):
        return self.multihead_attn(x, memory, memory, need_weights=False)[0]

    def forward(self, x, memory, mask=None):
        x = x + self.attend(self.norm1(x), mask)
        x = x + self.cross(self.norm2(x), memory)
        return x + self.feed(self.norm3(x))


class NoMemory(DecoderBlock):
    def forward(self, x, memory, mask=None):
        x = x + self.attend(self.norm1(x), mask)
        return x + self.feed(self.norm3(x))


class CrossFirst(DecoderBlock):
    def forward(self, x, memory, mask=None):
        x = x + self.cross(self.norm2(x), memory)
        x = x + self.attend(self.norm1(x), mask)
        return x + self.feed(self.norm3(x))


class NormedMemory(DecoderBlock):
    def cross(self, x, memory):
        return super().cross(x, self.norm2(memory))


class ExchangedNorms(DecoderBlock):
    def forward(self, x, memory, mask=None):
        x = x + self.attend(self.norm1(x), mask)
        x = x + self.cross(self.norm3(x), memory)
        return x + self.feed(self.norm2(x))


class KeysFromX(DecoderBlock):
    def cross(self, x, memory):
        return self.multihead_attn(x, x, x, need_weights=False)[0]


class SharedAttention(DecoderBlock):
    def cross(self, x, memory):
        return self.self_attn(x, memory, memory, need_weights=False)[0]


class UnmaskedDecoder(DecoderBlock):
    def attend(self, x, mask):
        return super().attend(x, None)


class DecoderPostNorm(DecoderBlock):
    def forward(self, x, memory, mask=None):
        x = self.norm1(x + self.attend(x, mask))
        x = self.norm2(x + self.cross(x, memory))
        return self.norm3(x + self.feed(x))


module(
    DecoderBlock, points=4, minutes=18, difficulty=2,
    cases=[
        dict(init=dict(d_model=4, nhead=2, dim_feedforward=5), x=(2, 3, 4), memory=(2, 2, 4),
             mask=lambda rng, s: np.tri(3, dtype=bool)),
        dict(init=dict(d_model=3, nhead=1, dim_feedforward=2), x=(1, 2, 3), memory=(1, 4, 3),
             mask=lambda rng, s: np.tri(2, dtype=bool)),
        dict(init=dict(d_model=2, nhead=1, dim_feedforward=1), x=(1, 1, 2), memory=(1, 1, 2),
             mask=lambda rng, s: np.ones((1, 1), bool)),
        dict(init=dict(d_model=4, nhead=2, dim_feedforward=3), x=(2, 3, 4), memory=(2, 2, 4)),
    ],
    forbids=("torch.nn.TransformerDecoderLayer", "torch.nn.TransformerDecoder"),
    hints=(
        "As TransformerBlock, with one branch more between the two: `multihead_attn` and its norm. The norms are "
        "numbered in order: norm1 self-attention, norm2 cross-attention, norm3 feed-forward.",
        "In cross-attention the queries come from the decoder, `norm2(x)`; keys and values are `memory`, as it came, "
        "without a norm.",
        "The second branch adds `self.multihead_attn(self.norm2(x), memory, memory)[0]`. No mask there: the whole "
        "source sentence is known.",
    ),
    mistakes={
        "y never looks at memory: cross-attention is missing.": NoMemory,
        "y has cross-attention before self-attention. Self-attention comes first.": CrossFirst,
        "y normalises memory with norm2. That norm belongs to the queries; memory is used as it came.": NormedMemory,
        "y has norm2 and norm3 exchanged: norm2 stands before cross-attention, norm3 before the feed-forward layer.":
            ExchangedNorms,
        "y takes the keys and values of cross-attention from x. They come from memory.": KeysFromX,
        "y uses self_attn for both attentions. The second one is multihead_attn, with weights of its own.":
            SharedAttention,
        "y ignores the mask in self-attention.": UnmaskedDecoder,
        "y has its norms behind the sums: that is post-norm. Here norm_first=True.": DecoderPostNorm,
    },
)  # fmt: skip


class GPT(nn.Module):
    """Token and position embeddings, causal pre-norm blocks, a last norm, a linear layer (Radford et al., 2019)."""

    def __init__(self, vocab, context, d_model, nhead, num_layers, dim_feedforward):
        super().__init__()
        self.tokens = nn.Embedding(vocab, d_model)
        self.positions = nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList([TransformerBlock(d_model, nhead, dim_feedforward) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab)

    def start(self, ids):
        return self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))

    def allowed(self, t):
        return torch.ones(t, t, dtype=torch.bool).tril()

    def end(self, h):
        return self.head(self.norm(h))

    def forward(self, ids):
        h = self.start(ids)
        for block in self.blocks:
            h = block(h, self.allowed(ids.shape[1]))
        return self.end(h)


class SeesFuture(GPT):
    def allowed(self, t):
        return None


class SeesNext(GPT):
    def allowed(self, t):
        return torch.ones(t, t, dtype=torch.bool).tril(1)


class WrongTriangle(GPT):
    def allowed(self, t):
        return torch.ones(t, t, dtype=torch.bool).triu()


class NoPositions(GPT):
    def start(self, ids):
        return self.tokens(ids)


class LastPositions(GPT):
    def start(self, ids):
        return self.tokens(ids) + self.positions.weight[-ids.shape[1] :]


class NoLastNorm(GPT):
    def end(self, h):
        return self.head(h)


class FirstBlockOnly(GPT):
    def forward(self, ids):
        return self.end(self.blocks[0](self.start(ids), self.allowed(ids.shape[1])))


class Probabilities(GPT):
    def end(self, h):
        return super().end(h).softmax(-1)


def some_ids(n, t, vocab):
    return lambda rng, sizes: rng.integers(0, vocab, (n, t))


module(
    GPT, points=6, minutes=25, difficulty=2, output="logits",
    cases=[
        dict(init=dict(vocab=5, context=6, d_model=4, nhead=2, num_layers=2, dim_feedforward=3), ids=some_ids(2, 3, 5)),
        dict(init=dict(vocab=3, context=5, d_model=3, nhead=1, num_layers=1, dim_feedforward=2), ids=some_ids(2, 4, 3)),
        dict(init=dict(vocab=2, context=3, d_model=2, nhead=1, num_layers=1, dim_feedforward=1), ids=some_ids(1, 1, 2)),
    ],
    hints=(
        "`tokens` and `positions` are two nn.Embedding, `blocks` an nn.ModuleList, `norm` an nn.LayerNorm, `head` an "
        "nn.Linear from d_model to vocab.",
        "Start with `self.tokens(ids) + self.positions(torch.arange(t))`: (n, t, d) plus (t, d). t may be less than "
        "context.",
        "Each block gets the same causal mask, True on and below the diagonal: `torch.ones(t, t, "
        "dtype=torch.bool).tril()`. After the blocks: `self.head(self.norm(h))`.",
    ),
    mistakes={
        "logits let tokens see the future: hand every block the causal mask.": SeesFuture,
        "logits let every token see the next one, the very thing it has to predict: the mask is off by one.": SeesNext,
        "logits see the future and not the past: the mask is the wrong triangle. True means allowed.": WrongTriangle,
        "logits lack the positions: add self.positions of 0, 1, 2, … to the tokens.": NoPositions,
        "logits use the last rows of the positions. A short text stands at the beginning: positions 0 to t − 1.":
            LastPositions,
        "logits lack the last norm, between the blocks and the head.": NoLastNorm,
        "logits come from the first block alone. Go through all of them.": FirstBlockOnly,
        "logits have gone through a softmax. The loss does that itself.": Probabilities,
    },
)  # fmt: skip


# --- Patches, sampling, masking --------------------------------------------------------------------------------------


def patches(order="nhwcij", by_column=False):
    """Patches with the numbers of each in another order."""

    def cut(x, patch):
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // patch, patch, w // patch, patch)
        axes = dict(n=0, c=1, h=2, i=3, w=4, j=5)
        letters = order.replace("hw", "wh") if by_column else order
        return parts.transpose([axes[letter] for letter in letters]).reshape(n, -1, c * patch * patch)

    return cut


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(n=2, c=3, h=4, w=6, patch=2),
        dict(n=3, c=2, h=6, w=9, patch=3),
        dict(n=1, c=1, h=2, w=2, patch=1),
        dict(n=2, c=2, h=4, w=4, patch=4),
    ],
    hints=(
        "Cut height into (rows of patches, rows within a patch) and width likewise: one reshape to six axes.",
        "`x.reshape(n, c, h // patch, patch, w // patch, patch)`. Which of the six axes count the patches, and which "
        "the numbers within one?",
        "Bring the axes into the order n, row of patches, column of patches, c, row, column: `.transpose(0, 2, 4, 1, "
        "3, 5)`, and reshape to (n, patches, c · patch · patch).",
    ),
    mistakes={
        "y is a reshape without a transpose: its rows are stripes of the image, not squares.":
            lambda x, patch: x.reshape(len(x), -1, x.shape[1] * patch * patch),
        "y lists the patches column by column. They are read like a text: row by row.": patches(by_column=True),
        "y has the channels last within a patch. Channels come first: all of channel 0, then all of channel 1.":
            patches("nhwijc"),
        "y has rows and columns exchanged within each patch.": patches("nhwcji"),
    },
)  # fmt: skip
def patchify(x: "n c h w", patch) -> "y: ...":
    """Images cut into squares, each a row of numbers (Dosovitskiy et al., 2021)."""
    return F.unfold(x, patch, stride=patch).transpose(1, 2)


def sampled(
    heat=lambda z, temperature: z / temperature, keep="largest", when="before", again=True, stable=True, cold=True
):
    """Probabilities with some of the steps changed."""

    @np.errstate(all="ignore")
    def probabilities(logits, temperature=1.0, k=None):
        z, count = logits, logits.shape[-1]
        least = np.sort(z, -1)[..., [-min(k or count, count)]]
        most = np.sort(z, -1)[..., [min(k or count, count) - 1]]
        kept = z >= least if keep == "largest" else z <= most if keep == "smallest" else np.ones_like(z, bool)
        if temperature == 0 and cold:
            return (z == z.max(-1, keepdims=True)).astype(float)
        z = heat(z, temperature)
        if when == "before":
            z = np.where(kept, z, -np.inf if again else 0.0)
        p = np.exp(z - z.max(-1, keepdims=True) if stable else z)
        p /= p.sum(-1, keepdims=True)
        return np.where(kept, p, 0.0) if when == "after" else p

    return probabilities


def far_apart(rng, sizes):
    return np.stack([rng.permutation([-1000.0, 990.0, 1000.0]) for _ in range(sizes["n"])])


SAMPLING_CASES = [
    dict(n=3, v=5, temperature=0.7, k=2),
    dict(n=2, v=6),
    dict(n=2, v=4, temperature=2.5, k=3),
    dict(n=3, v=2, temperature=0.0, k=2),
    dict(n=1, v=1, temperature=1.5, k=1),
    dict(n=2, v=3, temperature=0.5, k=7, logits=far_apart),
]


@exercise(
    points=3, minutes=15, difficulty=2, cases=SAMPLING_CASES,
    hints=(
        "Three steps: throw away all but the k largest logits, divide by the temperature, softmax.",
        "Thrown away means probability 0, so the logit becomes −∞: `np.where(logits >= kth, logits, -np.inf)`, where "
        "kth is the k-th largest of each row.",
        "`kth = np.sort(logits, axis=-1)[..., [-k]]`, with k at most the number of tokens. For temperature 0 put 1 at "
        "the largest logit and 0 elsewhere, since dividing by 0 gives no number.",
        "Subtract the largest logit before exp, or use `softmax_forward`, which does.",
    ),
    mistakes={
        "p multiplies by the temperature. It divides: a high temperature makes the choice more even.":
            sampled(heat=lambda z, temperature: z * temperature),
        "p ignores the temperature.": sampled(heat=lambda z, temperature: z),
        "p ignores k: all tokens have a chance.": sampled(keep="all"),
        "p keeps the k least likely tokens.": sampled(keep="smallest"),
        "p does not sum to 1: after the small ones are thrown away, the others share all of the probability.":
            sampled(when="after"),
        "p gives the logit 0 to what was thrown away. exp(0) is 1: to have no chance, the logit must be −∞.":
            sampled(again=False),
        "p is nan where logits are large: subtract the largest logit before exp.": sampled(stable=False),
        "p is nan at temperature 0, where it is asked to be 1 for the largest logit and 0 for the others.":
            sampled(cold=False),
    },
)  # fmt: skip
def top_k_probabilities(logits: "n v", temperature=1.0, k=None) -> "p: n v":
    """The probabilities that the next token is drawn with; temperature 0 takes the largest logit."""
    count = logits.shape[-1]
    values, at = logits.topk(min(k or count, count), dim=-1)
    if temperature == 0:
        return F.one_hot(at[..., 0], count).double()
    return torch.zeros_like(logits).scatter(-1, at, torch.softmax(values / temperature, -1))


def masking(chosen=lambda u, p: u < p, limits=(0.8, 0.9), ignored=-100, shown="ids", swap=False):
    """Masking with some of the steps changed."""

    def mask(ids, select, action, random_ids, mask_id, p=0.15):
        chosen_here = chosen(select, p)
        as_mask, as_random = action < limits[0], (action >= limits[0]) & (action < limits[1])
        if swap:
            as_mask, as_random = as_random, as_mask
        inputs = np.where(chosen_here & as_mask, mask_id, np.where(chosen_here & as_random, random_ids, ids))
        answers = {"ids": ids, "inputs": inputs}[shown]
        return inputs, np.where(chosen_here, answers, ignored) if ignored is not None else answers

    return mask


def asked_where_changed(ids, inputs):
    return inputs, np.where(inputs != ids, ids, -100)


def uniform(rng, sizes):
    return rng.uniform(size=(sizes["n"], sizes["t"]))


def few(count):
    return lambda rng, sizes: rng.integers(1, count, (sizes["n"], sizes["t"]))


@exercise(
    points=2, minutes=12, difficulty=1,
    draws=dict(ids=few(9), random_ids=few(9), select=uniform, action=uniform),
    cases=[
        dict(n=6, t=20, mask_id=9),
        dict(n=8, t=5, mask_id=0, p=0.6),
        dict(n=1, t=30, mask_id=12, p=0.9),
        dict(n=3, t=4, mask_id=9, p=0.0),
    ],
    hints=(
        "Which places are chosen: `chosen = select < p`. Only these can change, and only these have a target.",
        "Of the chosen ones, `action < 0.8` become mask_id, `0.8 <= action < 0.9` become random_ids, the others stay.",
        "`inputs = np.where(chosen & (action < 0.8), mask_id, ids)`, one np.where more for the random ones; `targets = "
        "np.where(chosen, ids, -100)`.",
    ),
    mistakes={
        "inputs hide every chosen token. Of the chosen, a tenth becomes a random token and a tenth stays.":
            masking(limits=(1.1, 1.2)),
        "inputs have no random tokens: where action is from 0.8 to 0.9, the token of random_ids stands.":
            masking(limits=(0.8, 0.8)),
        "inputs have random tokens wherever action is 0.8 or more. From 0.9 on the token stays as it is.":
            masking(limits=(0.8, 1.1)),
        "inputs change tokens that were not chosen: first select < p, then what action says.":
            lambda ids, select, *rest, **options: (
                masking()(ids, 0 * select - 1, *rest, **options)[0], masking()(ids, select, *rest, **options)[1]
            ),
        "inputs choose the wrong places: those where select is below p.": masking(chosen=lambda u, p: u >= p),
        "targets are the inputs' tokens at the chosen places. What has to be predicted is the token that stood there "
        "before.": masking(shown="inputs"),
        "targets are there for every token. Only the chosen ones are asked for; the others are −100.":
            masking(ignored=None),
        "targets are only where the input has changed. A chosen token that stays as it is is asked for as well.":
            lambda ids, *rest, **options: asked_where_changed(ids, masking()(ids, *rest, **options)[0]),
        "targets are 0 where nothing is asked for. 0 is a token too; cross-entropy ignores −100.":
            masking(ignored=0),
    },
)  # fmt: skip
def mask_tokens(
    ids: "n t", select: "n t", action: "n t", random_ids: "n t", mask_id, p=0.15
) -> "inputs: n t, targets: n t":
    """Hides some tokens, to be predicted from the others (Devlin et al., 2019)."""
    chosen = select.lt(p)
    inputs = ids.masked_fill(chosen & action.lt(0.8), mask_id)
    inputs[chosen & action.ge(0.8) & action.lt(0.9)] = random_ids[chosen & action.ge(0.8) & action.lt(0.9)]
    return inputs, ids.masked_fill(~chosen, -100)


# --- Repair and predict ----------------------------------------------------------------------------------------------


@exercise(
    points=3, minutes=15, difficulty=2, repair=True, cases=BLOCK_CASES, draws=BLOCK_DRAWS,
    hints=(
        "Give it an x of large numbers, say 100 times larger. Then y should be large too, for a skip carries x to the "
        "end. Is it?",
        "Follow x line by line: where is the name of what came in given to something else?",
        "Both sums must start from what the norm was given. Keep the normalised numbers under another name.",
    ),
    mistakes={sentence: wrong for sentence, wrong in BLOCK_MISTAKES.items() if "mask" not in sentence},
)  # fmt: skip
def repair_block_forward(
    x: "n t d", gamma1: "d", beta1: "d", w_q: "d d", w_k: "d d", w_v: "d d", w_o: "d d", gamma2: "d", beta2: "d",
    w1: "m d", b1: "m", w2: "d m", b2: "d", num_heads, mask=None,
) -> "y: n t d":  # fmt: skip
    """A pre-norm block."""
    return transformer_block_forward(
        x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask
    )


def next_loss(pair=lambda z, ids: (z[:, :-1], ids[:, 1:]), take=np.mean):
    """Cross-entropy of some logits with some ids."""

    def loss(logits, ids):
        z, targets = pair(logits, ids)
        z = z - z.max(-1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
        return -take(np.take_along_axis(log_p, targets[..., None], -1))

    return loss


@exercise(
    points=2, minutes=10, difficulty=1, repair=True,
    draws=dict(ids=lambda rng, sizes: rng.integers(0, sizes["v"], (sizes["n"], sizes["t"]))),
    cases=[dict(n=2, t=5, v=4), dict(n=3, t=2, v=6), dict(n=1, t=3, v=2)],
    hints=(
        "What has the model seen when it makes logits[:, 0]? What should it predict there?",
        "logits[:, i] has seen the tokens 0 to i, token i among them. Its target is token i + 1. Which logits have no "
        "target, and which token is never one?",
        "Leave out the last logits and the first token: `logits[:, :-1]` and `ids[:, 1:]`, both reshaped to one long "
        "list.",
    ),
    mistakes={
        "loss asks every logit for the token that it has already seen: copying the input is enough. The target is the "
        "next token.": next_loss(lambda z, ids: (z, ids)),
        "loss is shifted the wrong way: it asks for the token before.":
            next_loss(lambda z, ids: (z[:, 1:], ids[:, :-1])),
        "loss asks the last logits for the first token, as if the text were a ring. The last ones have no target.":
            next_loss(lambda z, ids: (z, np.roll(ids, -1, 1))),
        "loss is the sum over the tokens. It is the mean.": next_loss(take=np.sum),
        "loss skips one token: the target is the one right after.":
            next_loss(lambda z, ids: (z[:, :-2], ids[:, 2:]) if ids.shape[1] > 2 else (z[:, :-1], ids[:, :-1])),
    },
)  # fmt: skip
def repair_next_token_loss(logits: "n t v", ids: "n t") -> "loss:":
    """The mean cross-entropy of each token's logits with the token that follows."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def counting(
    embeddings=lambda v, c, d: (v + c) * d, attention_=lambda d, h: 4 * d * d + 4 * d,
    feed=lambda d, m: 2 * d * m + d + m, norms=lambda d: 4 * d, head=lambda v, d: 2 * d + d * v + v, once=False,
):  # fmt: skip
    """A count with some of its parts changed."""

    def count(vocab, context, d_model, nhead, num_layers, dim_feedforward):
        block = attention_(d_model, nhead) + feed(d_model, dim_feedforward) + norms(d_model)
        return embeddings(vocab, context, d_model), block * (1 if once else num_layers), head(vocab, d_model)

    return count


def some(low, high, step=1):
    return lambda rng, sizes: int(rng.integers(low, high) * step)


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(vocab=some(10, 90), context=some(8, 40), d_model=some(2, 6, 4), nhead=2, num_layers=some(2, 5),
             dim_feedforward=some(9, 50)),
        dict(vocab=13, context=12, d_model=32, nhead=4, num_layers=2, dim_feedforward=64),
        dict(vocab=some(3, 9), context=1, d_model=some(1, 4, 4), nhead=4, num_layers=1, dim_feedforward=some(1, 9)),
    ],
    hints=(
        "embeddings: one vector of d_model numbers for each token and one for each position.",
        "A block has four d × d matrices with biases (queries, keys, values, output), two layers of the feed-forward "
        "part with biases, and two norms of 2 d each.",
        "The number of heads changes nothing: heads share the d features among them. At the end: a norm with 2 d, and "
        "a linear layer with vocab · d + vocab.",
    ),
    mistakes={
        "blocks lacks 4 d numbers in each block: the four biases of attention, or the gains and biases of the two "
        "norms.":
            counting(attention_=lambda d, h: 4 * d * d),
        "blocks counts three matrices in attention. There is a fourth, which mixes what the heads have found.":
            counting(attention_=lambda d, h: 3 * d * d + 3 * d),
        "blocks has four matrices for every head. Heads share the features: more heads are narrower heads.":
            counting(attention_=lambda d, h: h * (4 * d * d + 4 * d)),
        "blocks lacks 2 d numbers in each block: there are two norms, and each has a gain and a bias.":
            counting(norms=lambda d: 2 * d),
        "blocks lacks the biases of the feed-forward layer.": counting(feed=lambda d, m: 2 * d * m),
        "blocks is a single block's count.": counting(once=True),
        "embeddings lacks the positions: a vector for each place up to context.":
            counting(embeddings=lambda v, c, d: v * d),
        "head lacks the last norm.": counting(head=lambda v, d: d * v + v),
        "head lacks the bias of the last linear layer.": counting(head=lambda v, d: 2 * d + d * v),
    },
)  # fmt: skip
def count_gpt_parameters(vocab, context, d_model, nhead, num_layers, dim_feedforward) -> "embeddings:, blocks:, head:":
    """The learnable numbers of a GPT: in its two embeddings, in its blocks, in the norm and the layer at the end."""
    model = GPT(vocab, context, d_model, nhead, num_layers, dim_feedforward)

    def count(*parts):
        return np.array(sum(p.numel() for part in parts for p in part.parameters()))

    return count(model.tokens, model.positions), count(model.blocks), count(model.norm, model.head)
