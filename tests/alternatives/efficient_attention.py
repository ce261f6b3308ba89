"""Other right ways to solve the exercises of lesson 20."""

import math

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q, k, v):
    return softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])) @ v


# --- Patterns --------------------------------------------------------------------------------------------------------


def local_by_query(q, k, v, window):
    y = np.empty_like(v)
    for i in range(q.shape[-2]):
        near = slice(max(0, i - window), i + window + 1)
        y[..., i : i + 1, :] = attend(q[..., i : i + 1, :], k[..., near, :], v[..., near, :])
    return y


def local_by_view(q, k, v, window):
    """All windows at once, as views into padded keys and values."""
    t, d = q.shape[-2:]
    around = [(0, 0)] * (q.ndim - 2) + [(window, window), (0, 0)]
    keys, values = (sliding_window_view(np.pad(x, around), 2 * window + 1, axis=-2) for x in (k, v))
    place = np.arange(t)[:, None] + np.arange(-window, window + 1)
    scores = np.einsum("...td,...tdw->...tw", q, keys) / math.sqrt(d)
    weights = softmax(np.where((place >= 0) & (place < t), scores, -np.inf))
    return np.einsum("...tw,...tew->...te", weights, values)


def local_by_block(q, k, v, window):
    """Blocks of queries, each with a stretch of keys that is three times as long."""
    t, size, parts = q.shape[-2], max(window, 1), []
    for low in range(0, t, size):
        first, last = max(0, low - window), min(t, low + size + window)
        i, j = np.arange(low, min(t, low + size))[:, None], np.arange(first, last)
        scores = q[..., low : low + size, :] @ k[..., first:last, :].swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        parts.append(softmax(np.where(abs(i - j) <= window, scores, -np.inf)) @ v[..., first:last, :])
    return np.concatenate(parts, axis=-2)


def strided_loop(t, stride):
    allowed = np.zeros((t, t), bool)
    for i in range(t):
        allowed[i, max(0, i - stride + 1) : i + 1] = True
        allowed[i, i::-stride] = True
    return allowed


def strided_differences(t, stride):
    back = np.subtract.outer(np.arange(t), np.arange(t))
    return np.where(back < 0, False, (back < stride) | (back % stride == 0))


# --- Linear attention ------------------------------------------------------------------------------------------------


def phi(x):
    return np.maximum(x, 0) + np.exp(np.minimum(x, 0))


def linear_einsum(q, k, v):
    state = np.einsum("...sd,...se->...de", phi(k), v)
    return np.einsum("...td,...de->...te", phi(q), state) / np.einsum("...td,...sd->...t", phi(q), phi(k))[..., None]


def linear_with_ones(q, k, v):
    """A column of ones among the values sums up the weights."""
    more = np.concatenate([v, np.ones_like(v[..., :1])], axis=-1)
    y = phi(q) @ (phi(k).swapaxes(-1, -2) @ more)
    return y[..., :-1] / y[..., -1:]


def causal_steps(q, k, v):
    state, total, y = 0, 0, np.zeros_like(v)
    for i in range(q.shape[-2]):
        query, key = phi(q[..., i, :]), phi(k[..., i, :])
        state = state + key[..., :, None] * v[..., i, None, :]
        total = total + key
        y[..., i, :] = (query[..., None] * state).sum(-2) / (query * total).sum(-1, keepdims=True)
    return y


def causal_sums(q, k, v):
    states = np.cumsum(np.einsum("...td,...te->...tde", phi(k), v), axis=-3)
    totals = np.cumsum(phi(k), axis=-2)
    return np.einsum("...td,...tde->...te", phi(q), states) / np.einsum("...td,...td->...t", phi(q), totals)[..., None]


def linear_backward_pieces(dy, q, k, v):
    a, b = phi(q), phi(k)
    state, total = np.einsum("...sd,...se->...de", b, v), b.sum(-2)
    w = np.einsum("...td,...d->...t", a, total)[..., None]
    dn = dy / w
    dw = -(dn * (a @ state / w)).sum(-1)
    da = np.einsum("...te,...de->...td", dn, state) + dw[..., None] * total[..., None, :]
    dstate, dtotal = np.einsum("...td,...te->...de", a, dn), np.einsum("...td,...t->...d", a, dw)
    db = np.einsum("...se,...de->...sd", v, dstate) + dtotal[..., None, :]
    return da * np.minimum(a, 1), db * np.minimum(b, 1), b @ dstate


def linear_backward_ones(dy, q, k, v):
    """The denominator as one more value, 1 for every key."""
    a, b = phi(q), phi(k)
    more = np.concatenate([v, np.ones_like(v[..., :1])], axis=-1)
    state = b.swapaxes(-1, -2) @ more
    out = a @ state
    n, w = out[..., :-1], out[..., -1:]
    dout = np.concatenate([dy / w, -(dy * n).sum(-1, keepdims=True) / w**2], axis=-1)
    dstate = a.swapaxes(-1, -2) @ dout
    slopes = [np.where(x > 0, 1, np.exp(np.minimum(x, 0))) for x in (q, k)]
    return dout @ state.swapaxes(-1, -2) * slopes[0], more @ dstate.swapaxes(-1, -2) * slopes[1], (b @ dstate)[..., :-1]


# --- Two scales ------------------------------------------------------------------------------------------------------


def scales_by_block(q, k, v, block):
    t, root, y = q.shape[-2], np.sqrt(q.shape[-1]), np.empty_like(v)
    blocks = t // block
    far_k, far_v = (x.reshape(*x.shape[:-2], blocks, block, x.shape[-1]).mean(-2) for x in (k, v))
    for b in range(blocks):
        rows, close = slice(b * block, (b + 1) * block), slice(max(0, (b - 1) * block), (b + 2) * block)
        far = np.abs(np.arange(blocks) - b) > 1
        keys = np.concatenate([k[..., close, :], far_k[..., far, :]], axis=-2)
        values = np.concatenate([v[..., close, :], far_v[..., far, :]], axis=-2)
        counts = np.concatenate([np.zeros(keys.shape[-2] - far.sum()), np.full(far.sum(), np.log(block))])
        y[..., rows, :] = softmax(q[..., rows, :] @ keys.swapaxes(-1, -2) / root + counts) @ values
    return y


def scales_by_sums(q, k, v, block):
    """Near and far apart, each with its own maximum, joined by their sums of exponentials."""
    t, root, parts = q.shape[-2], math.sqrt(q.shape[-1]), []
    far_k, far_v = (np.add.reduceat(x, np.arange(0, t, block), axis=-2) / block for x in (k, v))
    for low in range(0, t, block):
        b, query = low // block, q[..., low : low + block, :] / root
        first, last = max(0, b - 1), b + 2
        found = []
        for keys, values, times in (
            (k[..., first * block : last * block, :], v[..., first * block : last * block, :], 1),
            (far_k[..., :first, :], far_v[..., :first, :], block),
            (far_k[..., last:, :], far_v[..., last:, :], block),
        ):
            if keys.shape[-2]:
                scores = query @ keys.swapaxes(-1, -2)
                top = scores.max(-1, keepdims=True)
                e = times * np.exp(scores - top)
                found.append((top, e.sum(-1, keepdims=True), e @ values))
        top = np.max([m for m, _, _ in found], axis=0)
        total = sum(np.exp(m - top) * s for m, s, _ in found)
        parts.append(sum(np.exp(m - top) * y for m, _, y in found) / total)
    return np.concatenate(parts, axis=-2)


# --- Block by block --------------------------------------------------------------------------------------------------


def online_divided(q, k, v, block):
    """y divided at every step, so that it is an average of what has been seen."""
    y, lse = np.zeros((*q.shape[:-1], v.shape[-1])), np.full((*q.shape[:-1], 1), -np.inf)
    for low in range(0, k.shape[-2], block):
        scores = q @ k[..., low : low + block, :].swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        top = scores.max(-1, keepdims=True)
        here = top + np.log(np.exp(scores - top).sum(-1, keepdims=True))
        now = np.logaddexp(lse, here)
        y = y * np.exp(lse - now) + np.exp(scores - now) @ v[..., low : low + block, :]
        lse = now
    return y


def online_two_passes(q, k, v, block):
    """The maximum first, then the sums."""
    starts, root = range(0, k.shape[-2], block), math.sqrt(q.shape[-1])

    def scores(low):
        return q @ k[..., low : low + block, :].swapaxes(-1, -2) / root

    m = -np.inf
    for low in starts:
        m = np.maximum(m, scores(low).max(-1, keepdims=True))
    total, y = 0.0, 0.0
    for low in starts:
        p = np.exp(scores(low) - m)
        total, y = total + p.sum(-1, keepdims=True), y + p @ v[..., low : low + block, :]
    return y / total


def online_by_tile(q, k, v, block):
    """Queries in blocks, too."""
    tiles = [online_divided(q[..., low : low + 4, :], k, v, block) for low in range(0, q.shape[-2], 4)]
    return np.concatenate(tiles, axis=-2)


def row_lse(q, k, block):
    lse = np.full((*q.shape[:-1], 1), -np.inf)
    for low in range(0, k.shape[-2], block):
        scores = q @ k[..., low : low + block, :].swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        top = scores.max(-1, keepdims=True)
        lse = np.logaddexp(lse, top + np.log(np.exp(scores - top).sum(-1, keepdims=True)))
    return lse


def online_backward_slices(dy, q, k, v, block):
    root = q.shape[-1] ** 0.5
    lse, d = row_lse(q, k, block), (dy * online_divided(q, k, v, block)).sum(-1, keepdims=True)
    dq, dks, dvs = np.zeros_like(q), [], []
    for low in range(0, k.shape[-2], block):
        key, value = k[..., low : low + block, :], v[..., low : low + block, :]
        p = np.exp(q @ key.swapaxes(-1, -2) / root - lse)
        ds = p * (dy @ value.swapaxes(-1, -2) - d) / root
        dq += ds @ key
        dks.append(ds.swapaxes(-1, -2) @ q)
        dvs.append(p.swapaxes(-1, -2) @ dy)
    return dq, np.concatenate(dks, -2), np.concatenate(dvs, -2)


def online_backward_three(dy, q, k, v, block):
    """The row sums of p · dp collected in a pass of their own."""
    root, starts, lse = q.shape[-1] ** 0.5, range(0, k.shape[-2], block), row_lse(q, k, block)

    def weights(low):
        p = np.exp(q @ k[..., low : low + block, :].swapaxes(-1, -2) / root - lse)
        return p, dy @ v[..., low : low + block, :].swapaxes(-1, -2)

    row = sum((p * dp).sum(-1, keepdims=True) for p, dp in map(weights, starts))
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for low in starts:
        p, dp = weights(low)
        ds = p * (dp - row) / root
        dq += ds @ k[..., low : low + block, :]
        dk[..., low : low + block, :] = np.einsum("...ts,...td->...sd", ds, q)
        dv[..., low : low + block, :] = np.einsum("...ts,...te->...se", p, dy)
    return dq, dk, dv


# --- The cache -------------------------------------------------------------------------------------------------------


def cache_by_head(x, keys, values, w_q, w_k, w_v, w_o, num_heads):
    n, t = len(x), keys.shape[2]
    more_k, more_v = (np.empty((n, num_heads, t + 1, old.shape[3])) for old in (keys, values))
    more_k[:, :, :t], more_v[:, :, :t] = keys, values
    heads = []
    for h, (rows_q, rows_k, rows_v) in enumerate(
        zip(*(np.split(w, num_heads) for w in (w_q, w_k, w_v)), strict=True)
    ):  # fmt: skip
        more_k[:, h, t], more_v[:, h, t] = x[:, 0] @ rows_k.T, x[:, 0] @ rows_v.T
        heads.append(attend(x @ rows_q.T, more_k[:, h], more_v[:, h]))
    return np.concatenate(heads, axis=-1) @ w_o.T, more_k, more_v


def cache_einsum(x, keys, values, w_q, w_k, w_v, w_o, num_heads):
    q, k, v = (np.einsum("ntm,hdm->nhtd", x, w.reshape(num_heads, -1, w.shape[1])) for w in (w_q, w_k, w_v))
    keys, values = np.append(keys, k, axis=2), np.append(values, v, axis=2)
    y = attend(q, keys, values)
    return np.einsum("nhte,mhe->ntm", y, w_o.reshape(len(w_o), num_heads, -1)), keys, values


# --- Grouped queries -------------------------------------------------------------------------------------------------


def masked_weights(scores, mask):
    allowed = np.broadcast_to(True if mask is None else mask, scores.shape)
    top = np.where(allowed, scores, -1e300).max(-1, keepdims=True)
    e = np.where(allowed, np.exp(np.where(allowed, scores - top, 0)), 0)
    return e / np.where(allowed.any(-1, keepdims=True), e.sum(-1, keepdims=True), 1)


def grouped_by_head(q, k, v, mask=None):
    share = q.shape[1] // k.shape[1]
    whole = None if mask is None else np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))
    heads = []
    for h in range(q.shape[1]):
        scores = q[:, h] @ k[:, h // share].swapaxes(1, 2) / np.sqrt(q.shape[-1])
        heads.append(masked_weights(scores, None if whole is None else whole[:, h]) @ v[:, h // share])
    return np.stack(heads, axis=1)


def grouped_reshaped(q, k, v, mask=None):
    (n, h, t, d), g = q.shape, k.shape[1]
    scores = q.reshape(n, g, h // g, t, d) @ k[:, :, None].swapaxes(-1, -2) / np.sqrt(d)
    weights = masked_weights(scores.reshape(n, h, t, -1), mask)
    return (weights.reshape(scores.shape) @ v[:, :, None]).reshape(n, h, t, -1)


def grouped_backward_repeated(dy, q, k, v, mask=None):
    g, share = k.shape[1], q.shape[1] // k.shape[1]
    ks, vs = (np.repeat(x, share, axis=1) for x in (k, v))
    p = masked_weights(q @ ks.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), mask)
    dp = dy @ vs.swapaxes(-1, -2)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    dks, dvs = ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy
    return ds @ ks, *(x.reshape(len(x), g, share, *x.shape[2:]).sum(2) for x in (dks, dvs))


def grouped_backward_added(dy, q, k, v, mask=None):
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    share, root = q.shape[1] // k.shape[1], np.sqrt(q.shape[-1])
    whole = np.broadcast_to(True if mask is None else mask, (*q.shape[:3], k.shape[2]))
    for h in range(q.shape[1]):
        key, value = k[:, h // share], v[:, h // share]
        p = masked_weights(q[:, h] @ key.swapaxes(1, 2) / root, whole[:, h])
        dp = dy[:, h] @ value.swapaxes(1, 2)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / root
        dq[:, h] = ds @ key
        dk[:, h // share] += ds.swapaxes(1, 2) @ q[:, h]
        dv[:, h // share] += p.swapaxes(1, 2) @ dy[:, h]
    return dq, dk, dv


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class ReshapedGroups(nn.Module):
    """Without copies: an axis more for the heads of a group."""

    def __init__(self, embed_dim, num_heads, num_kv_heads):
        super().__init__()
        self.groups, self.size = num_kv_heads, embed_dim // num_heads
        widths = {"q_proj": embed_dim, "k_proj": num_kv_heads * self.size, "v_proj": num_kv_heads * self.size}
        for name, width in (widths | {"o_proj": embed_dim}).items():
            self.add_module(name, nn.Linear(embed_dim, width, bias=False))

    def forward(self, x, cache=None):
        n, t, m = x.shape
        q = self.q_proj(x).view(n, t, self.groups, -1, self.size).permute(0, 2, 3, 1, 4)
        k, v = (proj(x).view(n, t, self.groups, self.size).transpose(1, 2) for proj in (self.k_proj, self.v_proj))
        if cache:
            k, v = (torch.cat(pair, dim=2) for pair in zip(cache, (k, v), strict=True))
        scores = q @ k[:, :, None].mT / self.size**0.5
        ahead = torch.ones(t, k.shape[2], dtype=torch.bool).triu(k.shape[2] - t + 1)
        y = scores.masked_fill(ahead, -torch.inf).softmax(-1) @ v[:, :, None]
        return self.o_proj(y.permute(0, 3, 1, 2, 4).reshape(n, t, m)), (k, v)


class IndexedGroups(nn.Module):
    """The group of every head by its number."""

    def __init__(self, embed_dim, num_heads, num_kv_heads):
        super().__init__()
        d = embed_dim // num_heads
        self.of = torch.arange(num_heads) // (num_heads // num_kv_heads)
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, num_kv_heads * d, bias=False)
        self.v_proj = nn.Linear(embed_dim, num_kv_heads * d, bias=False)
        self.o_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.d = d

    def forward(self, x, cache=None):
        q, k, v = (
            proj(x).reshape(*x.shape[:2], -1, self.d).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        old = 0 if cache is None else cache[0].shape[2]
        if old:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        i, j = torch.arange(x.shape[1])[:, None], torch.arange(k.shape[2])
        y = nn.functional.scaled_dot_product_attention(q, k[:, self.of], v[:, self.of], attn_mask=j <= old + i)
        return self.o_proj(y.transpose(1, 2).reshape(x.shape)), (k, v)


# --- Repair and predict ----------------------------------------------------------------------------------------------


def lse_pairs(x, block):
    lse = np.full(len(x), -np.inf)
    for low in range(0, x.shape[1], block):
        lse = np.logaddexp(lse, np.logaddexp.reduce(x[:, low : low + block], axis=1))
    return lse


def lse_rescaled(x, block):
    m, total = x[:, :block].max(1), 0.0
    for low in range(0, x.shape[1], block):
        part = x[:, low : low + block]
        now = np.maximum(m, part.max(1))
        total, m = total * np.exp(m - now) + np.exp(part - now[:, None]).sum(1), now
    return np.log(total) + m


def cached_mask_rows(t, s):
    return np.tri(s, dtype=bool)[s - t :]


def cached_mask_loop(t, s):
    return np.array([[j <= s - t + i for j in range(s)] for i in range(t)])


def pairs_listed(t, window):
    return sum(min(t - 1, i + window) - max(0, i - window) + 1 for i in range(t))


def pairs_by_diagonal(t, window):
    return t + 2 * sum(t - offset for offset in range(1, window + 1))


def cost_by_product(n, num_heads, t, s, d):
    each = t * s * (d + d)
    return n * num_heads * 2 * each, 4 * t * s * num_heads * n


def cost_by_loop(n, num_heads, t, s, d):
    scores = sum(t * s for _ in range(n * num_heads))
    return 4 * d * scores, 4 * scores


def cache_by_token(layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2):
    head = embed_dim // num_heads
    return tokens * layers * (num_kv_heads * head + num_kv_heads * head) * bytes_per_number


def cache_by_share(layers, num_heads, num_kv_heads, embed_dim, tokens, bytes_per_number=2):
    return 2 * layers * embed_dim * tokens * bytes_per_number * num_kv_heads / num_heads


ALTERNATIVES = {
    "local_attention": [local_by_query, local_by_view, local_by_block],
    "strided_mask": [strided_loop, strided_differences],
    "linear_attention": [linear_einsum, linear_with_ones],
    "causal_linear_attention": [causal_steps, causal_sums],
    "linear_attention_backward": [linear_backward_pieces, linear_backward_ones],
    "multiscale_attention": [scales_by_block, scales_by_sums],
    "online_softmax_attention": [online_divided, online_two_passes, online_by_tile],
    "online_softmax_attention_backward": [online_backward_slices, online_backward_three],
    "kv_cache_step": [cache_by_head, cache_einsum],
    "grouped_query_attention": [grouped_by_head, grouped_reshaped],
    "grouped_query_attention_backward": [grouped_backward_repeated, grouped_backward_added],
    "GroupedQueryAttention": [ReshapedGroups, IndexedGroups],
    "repair_online_logsumexp": [lse_pairs, lse_rescaled],
    "repair_cached_mask": [cached_mask_rows, cached_mask_loop],
    "count_local_pairs": [pairs_listed, pairs_by_diagonal],
    "attention_cost": [cost_by_product, cost_by_loop],
    "kv_cache_size": [cache_by_token, cache_by_share],
}
