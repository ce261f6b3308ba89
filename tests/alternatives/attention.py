"""Other right ways to solve the exercises of lesson 18."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def triangle_by_loops(t):
    return np.array([[j <= i for j in range(t)] for i in range(t)])


def exists_by_loops(lengths, t):
    mask = np.zeros((len(lengths), t), bool)
    for row, length in zip(mask, lengths, strict=True):
        row[: int(length)] = True
    return mask


# --- Attention -------------------------------------------------------------------------------------------------------


def weights_of_zeroed_exponentials(q, k, mask=None):
    scores = np.einsum("...td,...sd->...ts", q, k) / np.sqrt(q.shape[-1])
    allowed = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    lowest = np.where(allowed, scores, -np.inf).max(-1, keepdims=True)
    e = np.where(allowed, np.exp(np.where(allowed, scores - np.where(lowest > -np.inf, lowest, 0), 0)), 0)
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)


def weights_row_by_row(q, k, mask=None):
    lead, t, s = q.shape[:-2], q.shape[-2], k.shape[-2]
    w, allowed = np.zeros((*lead, t, s)), np.broadcast_to(True if mask is None else mask, (*lead, t, s))
    for index in np.ndindex(*lead, t):
        keys = np.flatnonzero(allowed[index])
        if len(keys):
            scores = k[index[:-1]][keys] @ q[index] / q.shape[-1] ** 0.5
            e = np.exp(scores - scores.max())
            w[index][keys] = e / e.sum()
    return w


def weights_with_a_large_number(q, k, mask=None):
    """Even rows where nothing is allowed, then everything forbidden set to 0."""
    scores = q @ np.moveaxis(k, -1, -2) / np.sqrt(k.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -1e30)
    w = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
    return w if mask is None else w * mask


def attention_row_by_row(q, k, v, mask=None):
    return np.einsum("...ts,...se->...te", weights_row_by_row(q, k, mask), v)


def attention_with_a_large_number(q, k, v, mask=None):
    return weights_with_a_large_number(q, k, mask) @ v


def backward_by_einsum(dy, q, k, v, mask=None):
    w = weights_with_a_large_number(q, k, mask)
    y = w @ v
    dw = np.einsum("...te,...se->...ts", dy, v)
    dz = w * (dw - (dy * y).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])  # the sum of w · dw is that of dy · y
    return (
        np.einsum("...ts,...sd->...td", dz, k),
        np.einsum("...ts,...td->...sd", dz, q),
        np.einsum("...ts,...te->...se", w, dy),
    )


def backward_by_jacobians(dy, q, k, v, mask=None):
    w, scale = weights_row_by_row(q, k, mask), q.shape[-1] ** -0.5
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for index in np.ndindex(w.shape[:-1]):
        lead, row = index[:-1], w[index]
        dz = (np.diag(row) - np.outer(row, row)) @ (v[lead] @ dy[index])
        dq[index] = scale * dz @ k[lead]
        dk[lead] += scale * np.outer(dz, q[index])
        dv[lead] += np.outer(row, dy[index])
    return [dq, dk, dv]


# --- Several heads ---------------------------------------------------------------------------------------------------


def split_by_slices(x, num_heads):
    size = x.shape[2] // num_heads
    return np.stack([x[:, :, h * size : (h + 1) * size] for h in range(num_heads)], axis=1)


def split_at_once(x, num_heads):
    return np.swapaxes(x.reshape(len(x), x.shape[1], num_heads, -1), 1, 2)


def per_head(mask, n, num_heads, t):
    """The mask of each head, (heads, N, T, T), or None for each."""
    if mask is None:
        return [None] * num_heads
    return np.broadcast_to(mask, (n, num_heads, t, t)).transpose(1, 0, 2, 3)


def heads_one_by_one(x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    """The output layer, too, cut into heads: the outputs add."""
    parts = [np.split(w, num_heads, axis) for w, axis in ((w_q, 0), (w_k, 0), (w_v, 0), (w_o, 1))]
    masks = per_head(mask, len(x), num_heads, x.shape[1])
    return sum(
        attention_with_a_large_number(x @ q.T, x @ k.T, x @ v.T, allowed) @ o.T
        for q, k, v, o, allowed in zip(*parts, masks, strict=True)
    )


def heads_by_einsum(x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    q, k, v = (np.einsum("ntd,hed->nhte", x, w.reshape(num_heads, -1, w.shape[1])) for w in (w_q, w_k, w_v))
    y = attention_row_by_row(q, k, v, mask)
    return np.einsum("nhte,ohe->nto", y, w_o.reshape(len(w_o), num_heads, -1))


def heads_backward_one_by_one(dy, x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    parts = [np.split(w, num_heads, axis) for w, axis in ((w_q, 0), (w_k, 0), (w_v, 0), (w_o, 1))]
    dx, dws = np.zeros_like(x), ([], [], [], [])
    for *own, o, allowed in zip(*parts, per_head(mask, len(x), num_heads, x.shape[1]), strict=True):
        projected = [x @ w.T for w in own]
        y = attention_with_a_large_number(*projected, allowed)
        dws[3].append(np.einsum("nto,nte->oe", dy, y))
        for dw, w, part in zip(dws, own, backward_by_einsum(dy @ o, *projected, allowed), strict=False):
            dx += part @ w
            dw.append(np.tensordot(part, x, axes=((0, 1), (0, 1))))
    return dx, *(np.concatenate(dw) for dw in dws[:3]), np.concatenate(dws[3], axis=1)


def heads_backward_at_once(dy, x, w_q, w_k, w_v, w_o, num_heads, mask=None):
    q, k, v = (split_at_once(x @ w.T, num_heads) for w in (w_q, w_k, w_v))
    y = attention_with_a_large_number(q, k, v, mask).swapaxes(1, 2).reshape(*x.shape[:2], -1)
    grads = backward_by_jacobians(split_at_once(dy @ w_o, num_heads), q, k, v, mask)
    flat = [g.swapaxes(1, 2).reshape(*x.shape[:2], -1) for g in grads]
    dws = [np.einsum("nta,ntd->ad", g, x) for g in flat]
    return flat[0] @ w_q + flat[1] @ w_k + flat[2] @ w_v, *dws, np.einsum("nto,nta->oa", dy, y)


# --- What it looks at ------------------------------------------------------------------------------------------------


def mass_by_loops(w, right, mask=None):
    right = np.broadcast_to(right, w.shape)
    mask = np.broadcast_to(True if mask is None else mask, w.shape)
    shares, chances = [], []
    for index in np.ndindex(w.shape[:-1]):
        if right[index].any():
            shares.append(w[index][right[index]].sum())
            chances.append((right[index] & mask[index]).sum() / mask[index].sum())
    return np.mean(shares), np.mean(chances)


def mass_of_even_weights(w, right, mask=None):
    right, even = np.broadcast_to(right, w.shape), np.ones(w.shape) if mask is None else mask * np.ones(w.shape)
    rows = right.any(-1).sum()
    even = even / np.maximum(even.sum(-1, keepdims=True), 1)
    return (w * right).sum() / rows, (even * right).sum() / rows


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class EinsumAttention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.heads, self.out_proj = num_heads, nn.Linear(embed_dim, embed_dim)
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * embed_dim, embed_dim)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj.bias.data.zero_()

    def forward(self, query, key, value, mask=None):
        d = query.shape[-1]
        q, k, v = (
            (x @ self.in_proj_weight[a * d : (a + 1) * d].T + self.in_proj_bias[a * d : (a + 1) * d]).reshape(
                len(x), x.shape[1], self.heads, d // self.heads
            )
            for a, x in enumerate((query, key, value))
        )
        scores = torch.einsum("nthd,nshd->nhts", q, k) / (d // self.heads) ** 0.5
        w = scores.exp() if mask is None else scores.exp() * mask
        w = w / w.sum(-1, keepdim=True).clamp(min=1e-30)
        return self.out_proj(torch.einsum("nhts,nshd->nthd", w, v).flatten(2))


class PartedAttention(nn.Module):
    """One head after the other."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.register_parameter("in_proj_weight", nn.Parameter(torch.randn(3 * embed_dim, embed_dim)))
        self.register_parameter("in_proj_bias", nn.Parameter(torch.zeros(3 * embed_dim)))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        torch.nn.init.constant_(self.out_proj.bias, 0.0)

    def forward(self, query, key, value, mask=None):
        n, t, s = len(query), query.shape[1], key.shape[1]
        mask = torch.ones(t, s, dtype=torch.bool) if mask is None else mask
        mask = mask.expand(n, self.num_heads, t, s)
        weights = (part.chunk(self.num_heads) for part in self.in_proj_weight.chunk(3))
        biases = (part.chunk(self.num_heads) for part in self.in_proj_bias.chunk(3))
        outputs = []
        for h, (w_q, w_k, w_v, b_q, b_k, b_v) in enumerate(zip(*weights, *biases, strict=True)):
            scores = F.linear(query, w_q, b_q) @ F.linear(key, w_k, b_k).transpose(1, 2) / len(b_q) ** 0.5
            w = torch.where(mask[:, h], scores, torch.full_like(scores, -1e30)).softmax(-1)
            outputs.append(torch.where(mask[:, h], w, torch.zeros_like(w)) @ F.linear(value, w_v, b_v))
        return self.out_proj(torch.cat(outputs, dim=-1))


# --- Predict ---------------------------------------------------------------------------------------------------------


def cost_by_head(n, t, embed_dim, num_heads):
    size = embed_dim // num_heads
    one = 3 * t * embed_dim * size + 2 * t * t * size  # a head's three layers, its scores, its mixture
    return 4 * embed_dim**2, n * num_heads * t**2, n * (num_heads * one + t * embed_dim * embed_dim)


def cost_factored(n, t, embed_dim, num_heads):
    return [4 * embed_dim * embed_dim, t * n * t * num_heads, 2 * n * t * embed_dim * (2 * embed_dim + t)]


ALTERNATIVES = {
    "causal_mask": [triangle_by_loops, lambda t: np.arange(t)[:, None] - np.arange(t) >= 0],
    "padding_mask": [exists_by_loops, lambda lengths, t: np.array([[i < n for i in range(t)] for n in lengths])],
    "attention_weights": [weights_of_zeroed_exponentials, weights_row_by_row, weights_with_a_large_number],
    "attention_forward": [attention_row_by_row, attention_with_a_large_number],
    "attention_backward": [backward_by_einsum, backward_by_jacobians],
    "split_heads": [split_by_slices, split_at_once],
    "multi_head_attention_forward": [heads_one_by_one, heads_by_einsum],
    "multi_head_attention_backward": [heads_backward_one_by_one, heads_backward_at_once],
    "attention_mass": [mass_by_loops, mass_of_even_weights],
    "MultiHeadAttention": [EinsumAttention, PartedAttention],
    "repair_attention_forward": [attention_row_by_row, attention_with_a_large_number],
    "count_attention": [cost_by_head, cost_factored],
}
