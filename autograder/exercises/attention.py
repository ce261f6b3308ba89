"""Lesson 18: attention with masks, several heads, and what it looks at."""

from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of, module

# What the wrong implementations below are made of.


def swapped(x):
    """The transpose of each matrix in a stack."""
    return np.swapaxes(x, -1, -2)


def scored(q, k, scale=None):
    return q @ swapped(k) * (q.shape[-1] ** -0.5 if scale is None else scale)


def plain_softmax(z, axis=-1):
    """Without a defined answer where nothing is allowed."""
    with np.errstate(all="ignore"):
        e = np.exp(z - z.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)


def unshifted_softmax(z, mask):
    with np.errstate(all="ignore"):
        e = np.exp(z) * mask
        total = e.sum(-1, keepdims=True)
        return np.divide(e, total, out=np.zeros_like(e), where=total != 0)


def weighed(z, mask, axis=-1):
    """Softmax over what is allowed; 0 where nothing is."""
    top = np.max(z, axis, keepdims=True, initial=-1e300, where=mask)
    e = np.exp(np.where(mask, z, -np.inf) - top)  # z − top overflows where nothing is allowed
    total = e.sum(axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


def one_maximum(z, mask):
    """That of all scores is subtracted; a row far below it underflows."""
    e = np.exp(np.where(mask, z, -np.inf) - z[mask].max())
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def over_queries(z, mask):
    return weighed(z, mask, axis=-2)


def afterwards(z, mask):
    return plain_softmax(z) * mask


def by_zero(z, mask):
    return plain_softmax(np.where(mask, z, 0))


def by_large(z, mask):
    return plain_softmax(np.where(mask, z, -1e9))


def by_infinity(z, mask):
    return plain_softmax(np.where(mask, z, -np.inf))


def inverted(z, mask):
    return weighed(z, mask if mask.all() else ~mask)


def unmasked(z, mask):
    return plain_softmax(z)


def looked(soft=weighed, scale=None):
    """The weights of attention with some of its pieces changed; `scale` takes q and k."""

    def answer(q, k, mask=None):
        z = scored(q, k, scale and scale(q, k))
        return soft(z, np.ones_like(z, bool) if mask is None else np.broadcast_to(mask, z.shape))

    return answer


def attended(soft=weighed, scale=None):
    """Attention with some of its pieces changed."""
    return lambda q, k, v, mask=None: looked(soft, scale)(q, k, mask) @ v


def attended_back(
    soft=weighed, through=lambda w, dw: w * (dw - (w * dw).sum(-1, keepdims=True)), scale=None, seen=lambda w: w
):
    """The backward pass of attention with some of its pieces changed."""

    def backward(dy, q, k, v, mask=None):
        w = looked(soft)(q, k, mask)
        dz = through(w, dy @ swapped(v)) * (q.shape[-1] ** -0.5 if scale is None else scale(q, k))
        return dz @ k, swapped(dz) @ q, swapped(seen(w)) @ dy

    return backward


# How arguments are drawn.


def far(*signs):
    """Queries or keys of size 4, one for each sign: between them all scores of a row are near 1000, or near −1000."""
    return lambda rng, sizes: rng.standard_normal((len(signs), 4)) + np.outer(signs, [45, 0, 0, 0])


def lengths_mask(*lengths, t, axes=1):
    """Which tokens exist, with axes of size 1 before the last."""
    exists = np.arange(t) < np.array(lengths)[:, None]
    return exists.reshape(len(lengths), *[1] * axes, t)


EMPTY_ROWS = np.array([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1]], bool)
TRIANGLE = np.tri(4, dtype=bool)

LOOKS = [
    dict(t=3, s=4, d=5, e=2),
    dict(t=3, s=5, d=2, e=4, mask=EMPTY_ROWS),
    dict(t=3, s=4, d=2, e=3, q=(2, 3, 2), k=(2, 4, 2), v=(2, 4, 3), mask=lengths_mask(4, 2, t=4)),
    dict(
        t=4, s=4, d=3, e=2, q=(2, 2, 4, 3), k=(2, 2, 4, 3), v=(2, 2, 4, 2),
        mask=TRIANGLE & ~lengths_mask(1, 0, t=4, axes=2),  # what comes first is padding: a row may look at nothing
    ),
    dict(t=2, s=3, d=4, e=2, q=far(1, -1), k=far(1, 1, 1)),
    dict(t=1, s=1, d=1, e=1),
]  # fmt: skip
WITHOUT_VALUES = [{name: value for name, value in case.items() if name not in ("v", "e")} for case in LOOKS]


# --- Masks -----------------------------------------------------------------------------------------------------------


@exercise(
    points=1, minutes=4, difficulty=1, cases=[dict(t=5), dict(t=3), dict(t=1)],
    hints=(
        "Row i is a query at step i, column j a key at step j. For which j is j no later than i?",
        "Compare a column of numbers with a row of numbers: broadcasting gives the table.",
        "`np.arange(t)[:, None] >= np.arange(t)`, or `np.tri(t, dtype=bool)`.",
    ),
    mistakes={
        "mask forbids the diagonal. A step may look at itself: step 0 would have nothing to look at.":
            lambda t: np.tri(t, k=-1, dtype=bool),
        "mask is transposed: it lets every step look at itself and at what comes later.":
            lambda t: np.tri(t, dtype=bool).T,
        "mask is True where looking is forbidden. Here True means allowed.":
            lambda t: ~np.tri(t, dtype=bool),
        "mask allows everything.":
            lambda t: np.ones((t, t), bool),
    },
)  # fmt: skip
def causal_mask(t) -> "mask: t t":
    """True where key j is no later than query i."""
    return torch.ones(t, t, dtype=torch.bool).tril()


def some_lengths(rng, sizes):
    return rng.integers(0, sizes["t"] + 1, sizes["n"])


@exercise(
    points=1, minutes=4, difficulty=1,
    cases=[
        dict(n=3, t=5, lengths=lambda rng, sizes: rng.permutation([5, 2, 0])),
        dict(n=4, t=6, lengths=some_lengths),
        dict(n=1, t=4, lengths=np.array([1])),
        dict(n=2, t=1, lengths=np.array([1, 0])),
    ],
    hints=(
        "A sequence of length 2 has the tokens 0 and 1. Which comparison of positions and lengths says so?",
        "Positions stand in a row, lengths in a column: broadcasting gives the table `(N, t)`.",
        "`np.arange(t) < np.asarray(lengths)[:, None]`.",
    ),
    mistakes={
        "mask lets one token too many exist: a sequence of length 2 has the tokens 0 and 1.":
            lambda lengths, t: np.arange(t) <= lengths[:, None],
        "mask is True at the padding. It is True where the token exists.":
            lambda lengths, t: np.arange(t) >= lengths[:, None],
        "mask has the tokens at the end. Padding stands after them.":
            lambda lengths, t: (np.arange(t) < lengths[:, None])[:, ::-1],
        "mask lacks the last token of each sequence.":
            lambda lengths, t: np.arange(t) < lengths[:, None] - 1,
    },
)  # fmt: skip
def padding_mask(lengths: "n", t) -> "mask: n t":
    """True where the token exists."""
    return torch.arange(t).expand(len(lengths), t).lt(lengths.unsqueeze(-1))


# --- Attention -------------------------------------------------------------------------------------------------------

SOFT = {
    "w comes from scores divided by the square root of the number of keys. It is that of their size, d_k.":
        dict(scale=lambda q, k: k.shape[-2] ** -0.5),
    "w comes from scores that are not divided by √d_k.":
        dict(scale=lambda q, k: 1.0),
    "w comes from scores divided by d_k. It is its square root.":
        dict(scale=lambda q, k: 1 / q.shape[-1]),
    "w is a softmax over the queries. Every query distributes a weight of 1 over the keys: the softmax runs along the "
    "last axis.":
        dict(soft=over_queries),
    "w is masked after the softmax: the rows do not sum to 1, and what is forbidden still takes its share. Mask the "
    "scores.":
        dict(soft=afterwards),
    "w has forbidden scores of 0, and e⁰ = 1 is a weight like others. A forbidden score is −∞.":
        dict(soft=by_zero),
    "w ignores the mask.":
        dict(soft=unmasked),
    "w has the mask the wrong way round: True means that looking is allowed.":
        dict(soft=inverted),
    "w spreads evenly where nothing is allowed: a row of equal scores, however low, is a softmax of 1/T_k each. Such a "
    "row is 0.":
        dict(soft=by_large),
    "w is nan where nothing is allowed: −∞ − (−∞), or 0/0. Such a row is 0.":
        dict(soft=by_infinity),
    "w overflows for large scores: e^1000 is more than a float holds. Subtract each row's maximum first.":
        dict(soft=unshifted_softmax),
    "w comes from scores of which the maximum of the whole array was subtracted: of a row far below it, e^−1000 leaves "
    "nothing. Each row has its own maximum.":
        dict(soft=one_maximum),
}  # fmt: skip


@exercise(
    points=3, minutes=15, difficulty=2, cases=WITHOUT_VALUES,
    hints=(
        "The score of query i and key j is their dot product over √d_k. All of them at once: q times k with its last "
        "two axes exchanged, `np.swapaxes(k, -1, -2)`.",
        "Forbidden scores become −∞, so that e to the power of them is 0: `np.where(mask, scores, -np.inf)`. Then of "
        "each row: subtract its maximum, take e to the power of it, divide by the row's sum.",
        "In a row without any allowed key the maximum is −∞ and the sum is 0. Put 0 in the place of such a maximum and "
        "1 in the place of such a sum: the row becomes 0 / 1.",
        "top = scores.max(-1, keepdims=True); top = `np.where(np.isfinite(top), top, 0)`; e = `np.exp(scores - top)`; "
        "total = e.sum(-1, keepdims=True); w = `e / np.where(total == 0, 1, total)`.",
    ),
    mistakes={sentence: looked(**pieces) for sentence, pieces in SOFT.items()},
)  # fmt: skip
def attention_weights(q: "... t d", k: "... s d", mask=None) -> "w: ...":
    """How much each query looks at each key: softmax(q kᵀ / √d_k) over the allowed keys (Vaswani et al., 2017)."""
    return attention(q, k, torch.eye(k.shape[-2], dtype=k.dtype).expand(*k.shape[:-1], -1), mask)


def attention(q, k, v, mask):
    """PyTorch's, which gives 0 where nothing is allowed."""
    if mask is not None:
        mask = mask.expand(*q.shape[:-1], k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@exercise(
    points=2, minutes=6, difficulty=1, cases=LOOKS,
    hints=(
        "The weights are those of attention_weights. What does a row of them do to the rows of v?",
        "Output i is the sum over j of w[i, j] · v[j]: a matrix product.",
        "`attention_weights(q, k, mask) @ v`.",
    ),
    mistakes={"y" + sentence[1:]: attended(**pieces) for sentence, pieces in SOFT.items()} | {
        "y is the plain mean of the values: no query has a say in it.":
            lambda q, k, v, mask=None: attended()(np.zeros_like(q), k, v, mask),
    },
)  # fmt: skip
def attention_forward(q: "... t d", k: "... s d", v: "... s e", mask=None) -> "y: ...":
    """Each query's mixture of the values (Vaswani et al., 2017)."""
    return attention(q, k, v, mask)


gradient_of(
    attention_forward, points=5, minutes=25, difficulty=3,
    hints=(
        "y = w v with w = softmax(z) and z = q kᵀ / √d_k. Go back through the three steps. The matrix product y = w v "
        "gives dw = dy vᵀ and dv = wᵀ dy.",
        "Through the softmax, row by row (lesson 02): dz = w · (dw − the sum of w · dw along the row). Where nothing "
        "is allowed, w is 0, and so is dz: no further care is needed.",
        "Divide dz by √d_k; then dq = dz k and dk = dzᵀ q.",
        "dw = `dy @ swapped(v)`; dz = `w * (dw - (w * dw).sum(-1, keepdims=True)) / np.sqrt(d_k)`; return `dz @ k`, "
        "`swapped(dz) @ q`, `swapped(w) @ dy`, where swapped exchanges the last two axes.",
    ),
    mistakes={
        "dq and dk lack the factor 1/√d_k: z was divided by it, so its gradient is, too.":
            attended_back(scale=lambda q, k: 1.0),
        "dq and dk are divided by d_k. It is its square root.":
            attended_back(scale=lambda q, k: 1 / q.shape[-1]),
        "dq and dk go through no softmax: the gradient of the weights is not that of the scores.":
            attended_back(through=lambda w, dw: dw),
        "dq and dk lack the second part of the softmax: raising one score lowers all other weights of its row.":
            attended_back(through=lambda w, dw: w * dw),
        "dq and dk take the diagonal of the softmax's derivative alone, w (1 − w). Each weight depends on all scores "
        "of its row.":
            attended_back(through=lambda w, dw: w * (1 - w) * dw),
        "dq and dk sum over the queries in the softmax's gradient. The sum runs along a row, over the keys.":
            attended_back(through=lambda w, dw: w * (dw - (w * dw).sum(-2, keepdims=True))),
        "dq, dk and dv ignore the mask.":
            attended_back(soft=unmasked),
        "dq, dk and dv are masked after the softmax. The scores are masked, before it.":
            attended_back(soft=afterwards),
        "dq, dk and dv are nan: a row without any allowed key has weights of 0, and so have its gradients.":
            attended_back(soft=by_infinity),
        "dq, dk and dv have the mask the wrong way round: True means that looking is allowed.":
            attended_back(soft=inverted),
    },
)  # fmt: skip


# --- Several heads ---------------------------------------------------------------------------------------------------


def into_heads(x, num_heads):
    """(n, t, d) -> (n, h, t, d / h)."""
    return x.reshape(*x.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)


def cut_across(x, num_heads):
    return x.reshape(len(x), num_heads, x.shape[1], -1)


def dealt_out(x, num_heads):
    return x.reshape(*x.shape[:2], -1, num_heads).transpose(0, 3, 1, 2)


def from_heads(y):
    """(n, h, t, d) -> (n, t, h d)."""
    return y.transpose(0, 2, 1, 3).reshape(len(y), y.shape[2], -1)


def joined_across(y):
    return y.reshape(len(y), y.shape[2], -1)


def turned(x, num_heads):
    """The steps of each head back to front."""
    return into_heads(x, num_heads)[:, ::-1]


@exercise(
    points=2, minutes=8, difficulty=1,
    cases=[
        dict(n=2, t=3, d=8, num_heads=4),
        dict(n=3, t=4, d=6, num_heads=2),
        dict(n=2, t=3, d=5, num_heads=1),
        dict(n=1, t=1, d=6, num_heads=3),
        dict(n=1, t=1, d=1, num_heads=1),
    ],
    hints=(
        "Head 0 gets the first D/heads numbers of every token, head 1 the next ones. Which axis is cut in two?",
        "Cut the last axis: `x.reshape(n, t, num_heads, d // num_heads)`. Now the axes are in the wrong order: heads "
        "come before steps.",
        "`x.reshape(n, t, num_heads, d // num_heads).transpose(0, 2, 1, 3)`. A reshape to the final shape alone would "
        "cut through time.",
    ),
    mistakes={
        "y has the right shape and the wrong numbers: a reshape alone keeps the order in memory and cuts through time. "
        "Cut the last axis first, then exchange two axes.":
            cut_across,
        "y deals the features out to the heads like cards. Head 0 gets the first D/heads of them, in a row.":
            dealt_out,
        "y has the heads in the opposite order.":
            turned,
        "y has its axes in the order N, T, heads. Heads come before steps, so that the last two axes are a matrix.":
            lambda x, num_heads: into_heads(x, num_heads).transpose(0, 2, 1, 3),
    },
)  # fmt: skip
def split_heads(x: "n t d", num_heads) -> "y: ...":
    """The features of every token, shared out among the heads."""
    return torch.stack(x.chunk(num_heads, dim=-1), dim=1)


def multi(split=into_heads, merge=from_heads, soft=weighed, scale=None, order="qkv"):
    """Multi-head attention with some of its pieces changed."""

    def forward(x, w_q, w_k, w_v, w_o, num_heads, mask=None):
        named = dict(q=w_q, k=w_k, v=w_v)
        q, k, v = (split(x @ named[name].T, num_heads) for name in order)
        y = attended(soft, scale and (lambda q, k: scale(num_heads, q)))(q, k, v, mask)
        return merge(y) @ w_o.T

    return forward


def one_head(x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    mask = None if mask is None else mask[..., :1, :, :] if mask.ndim == 4 else mask
    return multi()(x, w_q, w_k, w_v, w_o, 1, mask)


HEADS = [
    dict(n=2, t=3, d=5, a=4, b=6, o=7, num_heads=2),
    dict(n=2, t=4, d=3, a=6, b=3, o=2, num_heads=3, mask=TRIANGLE),
    dict(n=2, t=3, d=4, a=4, b=4, o=4, num_heads=2, mask=lengths_mask(2, 0, t=3, axes=2)),
    dict(n=1, t=4, d=2, a=3, b=2, o=3, num_heads=1, mask=TRIANGLE & lengths_mask(3, t=4, axes=2)),
    dict(n=2, t=1, d=1, a=2, b=2, o=1, num_heads=2),
]


@exercise(
    points=4, minutes=20, difficulty=2, cases=HEADS,
    hints=(
        "Three linear layers without bias make queries, keys and values out of x: `x @ w_q.T` and so on. What is the "
        "shape of each?",
        "Split each of the three into heads: `(N, heads, T, …)`. attention_forward takes leading axes, so that one "
        "call does all heads, and mask broadcasts by itself.",
        "What comes out, `(N, heads, T, d_v)`, has to become `(N, T, heads · d_v)`: first exchange the two axes in the "
        "middle, then reshape.",
        "q, k, v = `split_heads(x @ w.T, num_heads)` for each w; y = `attention_forward(q, k, v, mask)`; return "
        "`y.transpose(0, 2, 1, 3).reshape(n, t, -1) @ w_o.T`.",
    ),
    mistakes={
        "y comes from heads that were split by a reshape alone, which cuts through time. split_heads has it right.":
            multi(split=cut_across),
        "y comes from heads that were joined by a reshape alone. Exchange the axes of heads and steps first.":
            multi(merge=joined_across),
        "y comes from heads that are neither split nor joined along the features, but by reshapes alone.":
            multi(split=cut_across, merge=joined_across),
        "y comes from heads that take every num_heads-th feature. Head 0 gets the first ones, in a row.":
            multi(split=dealt_out),
        "y comes from scores divided by the square root of the whole width. Each head's keys have size d_k = width / "
        "heads.":
            multi(scale=lambda heads, q: (heads * q.shape[-1]) ** -0.5),
        "y comes from scores that are not divided by √d_k.":
            multi(scale=lambda heads, q: 1.0),
        "y comes from a single head as wide as all together: each head has a softmax of its own.":
            one_head,
        "y ignores the mask.":
            multi(soft=unmasked),
        "y has the mask the wrong way round: True means that looking is allowed.":
            multi(soft=inverted),
        "y has queries and keys exchanged: w_q makes the queries, w_k the keys.":
            multi(order="kqv"),
    },
)  # fmt: skip
def multi_head_attention_forward(
    x: "n t d", w_q: "a d", w_k: "a d", w_v: "b d", w_o: "o b", num_heads, mask=None
) -> "y: n t o":
    """Several attentions side by side, each on its share of the features (Vaswani et al., 2017)."""
    parts = zip(w_q.chunk(num_heads), w_k.chunk(num_heads), w_v.chunk(num_heads), w_o.chunk(num_heads, 1), strict=True)
    if mask is not None:
        mask = mask.expand(len(x), num_heads, x.shape[1], x.shape[1])
    return sum(
        F.linear(attention(F.linear(x, q), F.linear(x, k), F.linear(x, v), None if mask is None else mask[:, h]), o)
        for h, (q, k, v, o) in enumerate(parts)
    )


def multi_back(
    paths=(1, 1, 1), pieces=MappingProxyType({}), split=into_heads, merge=from_heads, upstream=lambda dy, w_o: dy @ w_o,
    exchanged=False,
):  # fmt: skip
    """The backward pass of multi-head attention with some of its pieces changed."""

    def backward(dy, x, w_q, w_k, w_v, w_o, num_heads, mask=None):
        q, k, v = (into_heads(x @ w.T, num_heads) for w in (w_q, w_k, w_v))
        y = merge(attended(pieces.get("soft", weighed))(q, k, v, mask))
        dheads = split(upstream(dy, w_o), num_heads)
        parts = [merge(part) for part in attended_back(**pieces)(dheads, q, k, v, mask)]
        if exchanged:
            parts[:2] = parts[1::-1]
        dx = sum(share * part @ w for share, part, w in zip(paths, parts, (w_q, w_k, w_v), strict=True))
        flat = x.reshape(-1, x.shape[-1])
        dws = [part.reshape(len(flat), -1).T @ flat for part in parts]
        return dx, *dws, dy.reshape(len(flat), -1).T @ y.reshape(len(flat), -1)

    return backward


def one_head_back(dy, x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    mask = None if mask is None else mask[..., :1, :, :] if mask.ndim == 4 else mask
    return multi_back()(dy, x, w_q, w_k, w_v, w_o, 1, mask)


gradient_of(
    multi_head_attention_forward, points=6, minutes=30, difficulty=3,
    hints=(
        "Compute the forward pass again up to the joined heads, call them y. Then go back: the output layer, the "
        "splitting, attention_backward on all heads at once, the joining, three linear layers.",
        "The output layer is linear on every token: dw_o sums dy[n, t, :] times y[n, t, :] over n and t, "
        "`np.einsum('nto,ntb->ob', dy, y)`, and back goes `dy @ w_o`.",
        "Splitting and joining only move numbers: the gradient of a split is a join and the other way round. So "
        "`split_heads(dy @ w_o, num_heads)` goes into attention_backward, and its three results are joined.",
        "x went three ways, as queries, keys and values: dx = dq @ w_q + dk @ w_k + dv @ w_v, and dw_q is "
        "`np.einsum('nta,ntd->ad', dq, x)`.",
    ),
    mistakes={
        "dx lacks the path through the queries. x goes three ways into y; its three gradients add.":
            multi_back(paths=(0, 1, 1)),
        "dx lacks the path through the keys. x goes three ways into y; its three gradients add.":
            multi_back(paths=(1, 0, 1)),
        "dx lacks the path through the values. x goes three ways into y; its three gradients add.":
            multi_back(paths=(1, 1, 0)),
        "dx has the path through the values alone. x goes three ways into y; its three gradients add.":
            multi_back(paths=(0, 0, 1)),
        "dx is the mean of the three paths. Gradients of a number that is used three times add.":
            multi_back(paths=(1 / 3, 1 / 3, 1 / 3)),
        "dx, dw_q, dw_k and dw_v come from an upstream gradient split by a reshape alone, which cuts through time.":
            multi_back(split=cut_across),
        "dx, dw_q, dw_k, dw_v and dw_o come from heads joined by a reshape alone.":
            multi_back(merge=joined_across),
        "dw_q and dw_k are exchanged, and in dx, too.":
            multi_back(exchanged=True),
        "dx, dw_q and dw_k lack the factor 1/√d_k.":
            multi_back(pieces=dict(scale=lambda q, k: 1.0)),
        "dx, dw_q and dw_k go through no softmax.":
            multi_back(pieces=dict(through=lambda w, dw: dw)),
        "dx, dw_q, dw_k, dw_v and dw_o ignore the mask.":
            multi_back(pieces=dict(soft=unmasked)),
        "dx, dw_q, dw_k, dw_v and dw_o come from a single head as wide as all together: split into num_heads.":
            one_head_back,
    },
)  # fmt: skip


# --- What it looks at ------------------------------------------------------------------------------------------------


def measured(counted=lambda right: right.any(-1), share=lambda w, right: (w * right).sum(-1),
             chance=lambda right, mask: (right & mask).sum(-1) / mask.sum(-1), everywhere=False):  # fmt: skip
    """The share of the weight on the right keys, with some of its pieces changed."""

    def answer(w, right, mask=None):
        right = np.broadcast_to(right, w.shape)
        mask = np.ones(w.shape, bool) if mask is None or everywhere else np.broadcast_to(mask, w.shape)
        rows = counted(right)
        with np.errstate(all="ignore"):
            return share(w, right)[rows].mean(), chance(right, mask)[rows].mean()

    return answer


def rows_of_weights(*shape, mask=True):
    """Random weights, 0 where the mask forbids, whose rows sum to 1."""

    def draw(rng, sizes):
        w = rng.uniform(0.1, 1, shape) * mask
        return w / w.sum(-1, keepdims=True)

    return draw


PAIRS = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]], bool)
FIRST_TWO = lengths_mask(2, 3, t=4)


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(t=3, s=4, w=rows_of_weights(2, 3, 4), right=np.eye(3, 4, dtype=bool)),
        dict(t=4, s=4, w=rows_of_weights(4, 4, mask=TRIANGLE), right=PAIRS & TRIANGLE, mask=TRIANGLE),
        dict(t=4, s=4, w=rows_of_weights(2, 3, 4, 4, mask=FIRST_TWO[:, None]),
             right=np.stack([PAIRS[[0, 1, 2, 1]] & FIRST_TWO[0], np.eye(4, dtype=bool) & FIRST_TWO[1]])[:, None],
             mask=FIRST_TWO[:, None]),
        dict(t=1, s=1, w=np.ones((1, 1, 1)), right=np.ones((1, 1), bool)),
    ],
    hints=(
        "For each query: the sum of its weights on the right keys. Then the mean over those queries that have a right "
        "key at all.",
        "right and mask may lack leading axes: `np.broadcast_to(right, w.shape)`. The queries that count: "
        "`right.any(-1)`.",
        "Chance is what equal weights on all allowed keys would get: for each query the number of right keys over the "
        "number of allowed keys, then the mean over the same queries.",
    ),
    mistakes={
        "share takes the mean over all queries. One without a right key cannot look at it: it does not count.":
            measured(counted=lambda right: np.ones(right.shape[:-1], bool)),
        "share takes the mean of the right weights. A query's weights on its right keys add up.":
            measured(share=lambda w, right: (w * right).sum(-1) / np.maximum(right.sum(-1), 1)),
        "share is the mean over the right keys. A query's weights on its right keys add up; the mean is over queries.":
            lambda w, right, mask=None: (w[np.broadcast_to(right, w.shape)].mean(), measured()(w, right, mask)[1]),
        "share counts the queries whose largest weight is on a right key. Asked is how much of the weight lies there.":
            measured(share=lambda w, right: np.take_along_axis(right, w.argmax(-1)[..., None], -1)[..., 0] * 1.0),
        "chance divides by all keys. A key that is forbidden cannot be hit by chance.":
            measured(everywhere=True),
        "chance is that of one right key. Where several are right, chance is larger.":
            measured(chance=lambda right, mask: 1 / mask.sum(-1)),
    },
)  # fmt: skip
def attention_mass(w: "... t s", right: "...", mask=None) -> "share:, chance:":
    """How much of the attention lies on the keys known to be right, and how much would by chance."""
    right = right.expand_as(w)
    allowed = torch.ones_like(right) if mask is None else mask.expand_as(w)
    rows = right.any(-1)
    even = allowed.to(w.dtype) / allowed.sum(-1, keepdim=True).clamp(min=1)
    return tuple(weights.masked_fill(~right, 0).sum(-1)[rows].mean() for weights in (w, even))


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class MultiHeadAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention with the course's mask: True where attention is allowed, (…, T_q, T_k) over N, heads."""

    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads, batch_first=True)

    def forward(self, query, key, value, mask=None):
        forbidden = None
        if mask is not None:
            forbidden = ~mask.expand(len(query), self.num_heads, query.shape[1], key.shape[1]).flatten(0, 1)
        return super().forward(query, key, value, attn_mask=forbidden, need_weights=False)[0]


class Written(nn.Module):
    """The same by hand, for its mistakes."""

    order, inner_bias, outer_bias = (0, 1, 2), True, True

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def split(self, x):
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def merge(self, y):
        return y.transpose(1, 2).flatten(2)

    def scale(self, q):
        return q.shape[-1] ** -0.5

    def soften(self, scores, mask):
        return scores.masked_fill(~mask, -1e300).softmax(-1) * mask.any(-1, keepdim=True)

    def forward(self, query, key, value, mask=None):
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            self.split(F.linear(x, weights[part], biases[part] if self.inner_bias else None))
            for x, part in zip((query, key, value), self.order, strict=True)
        )
        scores = self.scale(q) * q @ k.mT
        y = self.merge(self.soften(scores, mask.expand_as(scores)) @ v)
        return F.linear(y, self.out_proj.weight, self.out_proj.bias if self.outer_bias else None)


class KeyFirst(Written):
    order = (1, 0, 2)


class NoInnerBias(Written):
    inner_bias = False


class NoOuterBias(Written):
    outer_bias = False


class CutAcross(Written):
    def split(self, x):
        return x.reshape(len(x), self.num_heads, x.shape[1], -1)


class JoinedAcross(Written):
    def merge(self, y):
        return y.reshape(len(y), y.shape[2], -1)


class WholeWidth(Written):
    def scale(self, q):
        return (self.num_heads * q.shape[-1]) ** -0.5


class Infinite(Written):
    def soften(self, scores, mask):
        return scores.masked_fill(~mask, -torch.inf).softmax(-1)


class Evenly(Written):
    def soften(self, scores, mask):
        return scores.masked_fill(~mask, -1e300).softmax(-1)


class Inverted(Written):
    def soften(self, scores, mask):
        return super().soften(scores, ~mask)


class Afterwards(Written):
    def soften(self, scores, mask):
        return scores.softmax(-1) * mask


class ValuesFromKeys(Written):
    def forward(self, query, key, value, mask=None):
        return super().forward(query, key, key, mask)


module(
    MultiHeadAttention, points=5, minutes=25, difficulty=3,
    forbids=(
        "torch.nn.MultiheadAttention", "torch.nn.functional.multi_head_attention_forward",
        "torch.nn.functional.scaled_dot_product_attention",
    ),
    cases=[
        dict(init=dict(embed_dim=6, num_heads=2), query=(2, 3, 6), key=(2, 4, 6), value=(2, 4, 6),
             mask=lengths_mask(4, 2, t=4, axes=2)),
        dict(init=dict(embed_dim=4, num_heads=4), query=(2, 4, 4), key=(2, 4, 4), value=(2, 4, 4), mask=TRIANGLE),
        dict(init=dict(embed_dim=6, num_heads=3), query=(1, 3, 6), key=(1, 5, 6), value=(1, 5, 6), mask=EMPTY_ROWS),
        dict(init=dict(embed_dim=2, num_heads=1), query=(1, 1, 2), key=(1, 1, 2), value=(1, 1, 2),
             mask=np.ones((1, 1), bool)),
        dict(init=dict(embed_dim=4, num_heads=2), query=(2, 3, 4), key=(2, 2, 4), value=(2, 2, 4)),
    ],
    hints=(
        "Four things to learn: `in_proj_weight` (3D, D) and `in_proj_bias` (3D,), both `nn.Parameter`, and `out_proj`, "
        "an `nn.Linear(D, D)`. The first D rows make the queries, the next D the keys, the last D the values.",
        "`self.in_proj_weight.chunk(3)` gives the three matrices, and so with the bias. `F.linear(query, w_q, b_q)`, "
        "then into heads: `x.unflatten(-1, (heads, -1)).transpose(1, 2)`.",
        "Forbidden scores: `scores.masked_fill(~mask, torch.finfo(scores.dtype).min)`. With −∞ a row without any "
        "allowed key would be nan. After the softmax multiply by mask, and such a row is 0.",
        "Both biases start at 0, `in_proj_weight` from `nn.init.xavier_uniform_`. Back from the heads: "
        "`y.transpose(1, 2).flatten(2)`, then `self.out_proj`.",
    ),
    mistakes={
        "y has queries and keys exchanged: the first D rows of in_proj_weight make the queries.": KeyFirst,
        "y lacks in_proj_bias.": NoInnerBias,
        "y lacks the bias of out_proj.": NoOuterBias,
        "y comes from heads split by a reshape alone, which cuts through time. Cut the last axis, then exchange two.":
            CutAcross,
        "y comes from heads joined by a reshape alone. Exchange the axes of heads and steps first.": JoinedAcross,
        "y comes from scores divided by the square root of embed_dim. Each head's keys have size d_k = embed_dim / "
        "num_heads.": WholeWidth,
        "y is nan where nothing is allowed: a softmax of −∞ alone. The weights of such a row are 0.": Infinite,
        "y spreads evenly where nothing is allowed: equal scores, however low, give equal weights. Multiply the "
        "weights by the mask.": Evenly,
        "y has the mask the wrong way round. In this course True means that looking is allowed; the attn_mask of "
        "nn.MultiheadAttention means the opposite.": Inverted,
        "y is masked after the softmax: its rows do not sum to 1. Mask the scores.": Afterwards,
        "y never sees value: the values are made of key.": ValuesFromKeys,
    },
)  # fmt: skip


# --- Repair and predict ----------------------------------------------------------------------------------------------


def late_over_queries(z, mask):
    return plain_softmax(z, axis=-2) * mask


@exercise(
    repair=True, points=3, minutes=12, difficulty=2, cases=LOOKS,
    hints=(
        "Print the sums of the rows of `w`, once without a mask and once with one. What should they be?",
        "Without a mask the columns sum to 1, not the rows. Every query has a weight of 1 to distribute over the keys: "
        "which axis is that?",
        "With a mask the rows still do not sum to 1: what is forbidden takes its share before it is set to 0. Forbid "
        "it before the softmax, with a score of −∞; and mind the rows in which nothing is allowed. attention_weights "
        "does all of it.",
    ),
    mistakes={
        "y has its softmax over the queries and its mask after the softmax: two faults. Each row of weights is to sum "
        "to 1 over the keys that are allowed.":
            attended(late_over_queries),
        "y still comes from weights that are masked after the softmax: they do not sum to 1.":
            attended(afterwards),
        "y still comes from a softmax over the queries.":
            attended(over_queries),
        "y still comes from a softmax over the queries; a key that nobody may look at is nan there.":
            attended(lambda z, mask: plain_softmax(np.where(mask, z, -np.inf), axis=-2)),
        "y still comes from a softmax over the queries; a key that nobody may look at is dealt out to all there.":
            attended(lambda z, mask: plain_softmax(np.where(mask, z, -1e9), axis=-2)),
        "y spreads evenly where nothing is allowed. Such a row is 0.":
            attended(by_large),
        "y is nan where nothing is allowed. Such a row is 0.":
            attended(by_infinity),
        "y ignores the mask.":
            attended(unmasked),
    },
)  # fmt: skip
def repair_attention_forward(q: "... t d", k: "... s d", v: "... s e", mask=None) -> "y: ...":
    """Attention with a mask."""
    return attention(q, k, v, mask)


def some(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


def costed(parameters=lambda d, h: 4 * d * d, scores=lambda n, t, d, h: n * h * t * t,
           products=lambda n, t, d, h: 4 * n * t * d * d + 2 * n * t * t * d):  # fmt: skip
    """The cost of attention with some of its pieces changed."""
    return lambda n, t, embed_dim, num_heads: (
        parameters(embed_dim, num_heads), scores(n, t, embed_dim, num_heads), products(n, t, embed_dim, num_heads),
    )  # fmt: skip


@exercise(
    points=3, minutes=12, difficulty=2,
    cases=[
        dict(n=2, t=some(20, 30), embed_dim=12, num_heads=3),
        dict(n=some(3, 6), t=some(5, 9), embed_dim=16, num_heads=8),
        dict(n=1, t=some(30, 50), embed_dim=10, num_heads=1),
        dict(n=3, t=1, embed_dim=6, num_heads=2),
    ],
    hints=(
        "Four weight matrices, each (D, D), however many heads share them.",
        "Each head of each example has a table of T × T scores.",
        "Every token goes through four matrices: 4 · D² multiplications. Each of a head's T² scores takes D/heads of "
        "them, so all heads of an example take T² · D. Mixing the values takes as many again.",
    ),
    mistakes={
        "parameters lacks the output matrix w_o.":
            costed(parameters=lambda d, h: 3 * d * d),
        "parameters counts whole matrices for each head. The heads share them: each has D/heads rows of its own.":
            costed(parameters=lambda d, h: (3 * h + 1) * d * d),
        "parameters counts four whole matrices for each head. The heads share them: each has D/heads rows of its own.":
            costed(parameters=lambda d, h: 4 * h * d * d),
        "scores counts one head. Each has its own table.":
            costed(scores=lambda n, t, d, h: n * t * t),
        "scores counts one example.":
            costed(scores=lambda n, t, d, h: h * t * t),
        "scores counts D numbers for each pair. A score is one number.":
            costed(scores=lambda n, t, d, h: n * t * t * d),
        "multiplications lacks the four linear layers.":
            costed(products=lambda n, t, d, h: 2 * n * t * t * d),
        "multiplications counts three linear layers. The output's is the fourth.":
            costed(products=lambda n, t, d, h: 3 * n * t * d * d + 2 * n * t * t * d),
        "multiplications counts one example.":
            costed(products=lambda n, t, d, h: 4 * t * d * d + 2 * t * t * d),
        "multiplications lacks the mixing of the values: it costs as much as the scores.":
            costed(products=lambda n, t, d, h: 4 * n * t * d * d + n * t * t * d),
        "multiplications counts the width D for each head. A head has D/heads features.":
            costed(products=lambda n, t, d, h: 4 * n * t * d * d + 2 * n * h * t * t * d),
        "multiplications counts the linear layers once for each example, not for each token.":
            costed(products=lambda n, t, d, h: 4 * n * d * d + 2 * n * t * t * d),
    },
)  # fmt: skip
def count_attention(n, t, embed_dim, num_heads) -> "parameters:, scores:, multiplications:":
    """What multi-head self-attention without biases holds and does."""
    own = sum(value.numel() for value in nn.MultiheadAttention(embed_dim, num_heads, bias=False).parameters())
    x, w = torch.empty(n, t, embed_dim, device="meta"), torch.empty(embed_dim, embed_dim, device="meta")
    q = torch.empty(n, num_heads, t, embed_dim // num_heads, device="meta")
    scores = q @ q.mT

    def products(a, b):
        """How many numbers are multiplied in a @ b: the size of the table that the product sums over."""
        return (a.unsqueeze(-1) * b.unsqueeze(-3)).numel()

    return tuple(
        np.array(count) for count in (own, scores.numel(), 4 * products(x, w) + products(q, q.mT) + products(scores, q))
    )
