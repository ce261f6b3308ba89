"""Other right ways to solve the exercises of lesson 19."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = math.sqrt(2 / math.pi)


def gelu(z):
    return z / (1 + np.exp(-2 * ROOT * (z + 0.044715 * z**3)))


def gelu_slope(z):
    gate = 1 / (1 + np.exp(-2 * ROOT * (z + 0.044715 * z**3)))
    return gate + z * gate * (1 - gate) * 2 * ROOT * (1 + 3 * 0.044715 * z**2)


# --- Positions -------------------------------------------------------------------------------------------------------


def positions_by_loop(t, d):
    p = np.zeros((t, d))
    for row in range(t):
        for i in range(d // 2):
            angle = row / 10000 ** (2 * i / d)
            p[row, 2 * i], p[row, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return p


def positions_by_shift(t, d):
    """A cosine is a sine a quarter of a turn ahead."""
    column = np.arange(d)
    angles = np.outer(np.arange(t), np.exp(-np.log(10000.0) * (column - column % 2) / d))
    return np.sin(angles + (column % 2) * np.pi / 2)


def rope_complex(x, positions):
    d = x.shape[-1]
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    turned = pairs * np.exp(1j * np.outer(positions, 1e4 ** (-np.arange(0, d, 2) / d)))
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def rope_matrices(x, positions):
    """A matrix for every position."""
    d, y = x.shape[-1], np.zeros(x.shape)
    for row, position in enumerate(positions):
        matrix = np.zeros((d, d))
        for i in range(0, d, 2):
            c, s = math.cos(position / 10000 ** (i / d)), math.sin(position / 10000 ** (i / d))
            matrix[i : i + 2, i : i + 2] = [[c, -s], [s, c]]
        y[..., row, :] = x[..., row, :] @ matrix.T
    return y


def rope_backward_opposite(dy, x, positions):
    return rope_complex(dy, -positions)


def rope_backward_matrices(dy, x, positions):
    return rope_matrices(dy, [-p for p in positions.tolist()])


# --- Feed-forward and block ------------------------------------------------------------------------------------------


def feed_einsum(x, w1, b1, w2, b2):
    return np.einsum("ntm,dm->ntd", gelu(np.einsum("ntd,md->ntm", x, w1) + b1), w2) + b2


def feed_flat(x, w1, b1, w2, b2):
    rows = x.reshape(-1, x.shape[-1])
    return (gelu(rows @ w1.T + b1) @ w2.T + b2).reshape(x.shape)


def feed_backward_flat(dy, x, w1, b1, w2, b2):
    rows, up = x.reshape(-1, x.shape[-1]), dy.reshape(-1, x.shape[-1])
    z = rows @ w1.T + b1
    dz = up @ w2 * gelu_slope(z)
    return (dz @ w1).reshape(x.shape), dz.T @ rows, dz.sum(0), up.T @ gelu(z), up.sum(0)


def feed_backward_examples(dy, x, w1, b1, w2, b2):
    found = [feed_backward_flat(dy[k], x[k], w1, b1, w2, b2) for k in range(len(x))]
    dx, *others = zip(*found, strict=True)
    return [np.stack(dx), *(sum(part) for part in others)]


def norm(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta


def norm_backward(dy, x, gamma):
    centred = x - x.mean(-1, keepdims=True)
    s = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    xhat, g = centred / s, dy * gamma
    dx = (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True)) / s
    return dx, (dy * xhat).sum((0, 1)), dy.sum((0, 1))


def weights(a, w_q, w_k, heads, mask):
    """The attention weights (n, heads, t, t), and q and k as heads (n, t, heads, size)."""
    n, t, d = a.shape
    q, k = ((a @ w.T).reshape(n, t, heads, d // heads) for w in (w_q, w_k))
    scores = np.einsum("nihc,njhc->nhij", q, k) / math.sqrt(d // heads)
    if mask is not None:
        scores = scores + np.where(mask, 0.0, -1e30)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True), q, k


def heads_of(a, w_v, heads):
    return (a @ w_v.T).reshape(*a.shape[:2], heads, -1)


def attention(a, w_q, w_k, w_v, w_o, heads, mask):
    p, _, _ = weights(a, w_q, w_k, heads, mask)
    return np.einsum("nhij,njhc->nihc", p, heads_of(a, w_v, heads)).reshape(a.shape) @ w_o.T


def attention_backward(dy, a, w_q, w_k, w_v, w_o, heads, mask):
    p, q, k = weights(a, w_q, w_k, heads, mask)
    v = heads_of(a, w_v, heads)
    df = (dy @ w_o).reshape(v.shape)
    dp = np.einsum("nihc,njhc->nhij", df, v)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / math.sqrt(v.shape[-1])
    dq, dk, dv = (
        part.reshape(a.shape)
        for part in (
            np.einsum("nhij,njhc->nihc", ds, k),
            np.einsum("nhij,nihc->njhc", ds, q),
            np.einsum("nhij,nihc->njhc", p, df),
        )
    )
    found = np.einsum("nhij,njhc->nihc", p, v).reshape(a.shape)
    dws = [np.tensordot(part, a, axes=((0, 1), (0, 1))) for part in (dq, dk, dv)]
    return dq @ w_q + dk @ w_k + dv @ w_v, *dws, np.tensordot(dy, found, axes=((0, 1), (0, 1)))


def block_steps(x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None):
    y = x.copy()
    y += attention(norm(y, gamma1, beta1), w_q, w_k, w_v, w_o, num_heads, mask)
    y += feed_flat(norm(y, gamma2, beta2), w1, b1, w2, b2)
    return y


def block_examples(x, *parameters):
    return np.concatenate([block_steps(x[k : k + 1], *parameters) for k in range(len(x))])


def block_backward_steps(dy, x, gamma1, beta1, w_q, w_k, w_v, w_o, gamma2, beta2, w1, b1, w2, b2, num_heads, mask=None):
    a = norm(x, gamma1, beta1)
    h = x + attention(a, w_q, w_k, w_v, w_o, num_heads, mask)
    db, dw1, db1, dw2, db2 = feed_backward_flat(dy, norm(h, gamma2, beta2), w1, b1, w2, b2)
    dh, dgamma2, dbeta2 = norm_backward(db, h, gamma2)
    dh += dy
    da, *dws = attention_backward(dh, a, w_q, w_k, w_v, w_o, num_heads, mask)
    dx, dgamma1, dbeta1 = norm_backward(da, x, gamma1)
    return dh + dx, dgamma1, dbeta1, *dws, dgamma2, dbeta2, dw1, db1, dw2, db2


def block_backward_examples(dy, x, *parameters):
    found = [block_backward_steps(dy[k : k + 1], x[k : k + 1], *parameters) for k in range(len(x))]
    dx, *others = zip(*found, strict=True)
    return [np.concatenate(dx), *map(sum, others)]


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class Projections(nn.Module):
    """nn.MultiheadAttention's parameters, used by hand."""

    def __init__(self, d, heads):
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = nn.Parameter(torch.randn(3 * d, d)), nn.Parameter(torch.zeros(3 * d))
        self.out_proj, self.heads = nn.Linear(d, d), heads
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x, memory, mask=None):
        parts = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), (x, memory, memory), strict=True)
        q, k, v = (F.linear(h, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2) for w, b, h in parts)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class BlockByHand(nn.Module):
    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__()
        self.self_attn = Projections(d_model, nhead)
        self.linear1, self.linear2 = nn.Linear(d_model, dim_feedforward), nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)

    def forward(self, x, mask=None):
        a = self.norm1(x)
        x = x + self.self_attn(a, a, mask)
        return x + self.linear2(nn.functional.gelu(self.linear1(self.norm2(x))))


class BlockBuiltIn(nn.Module):
    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d_model, dim_feedforward), nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.gelu = nn.LayerNorm(d_model), nn.LayerNorm(d_model), nn.GELU()

    def forward(self, x, mask=None):
        a = self.norm1(x)
        forbidden = torch.logical_not(mask) if mask is not None else None
        found, _ = self.self_attn(a, a, a, attn_mask=forbidden)
        h = x + found
        return h + self.linear2(self.gelu(self.linear1(self.norm2(h))))


class DecoderByHand(BlockByHand):
    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__(d_model, nhead, dim_feedforward)
        self.norm3, self.multihead_attn = nn.LayerNorm(d_model), Projections(d_model, nhead)

    def forward(self, x, memory, mask=None):
        a = self.norm1(x)
        x = x + self.self_attn(a, a, mask)
        x = x + self.multihead_attn(self.norm2(x), memory)
        return x + self.linear2(F.gelu(self.linear1(self.norm3(x))))


class DecoderBuiltIn(BlockBuiltIn):
    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__(d_model, nhead, dim_feedforward)
        self.norm3 = nn.LayerNorm(d_model)
        self.multihead_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)

    def forward(self, x, memory, mask=None):
        a = self.norm1(x)
        h = x + self.self_attn(a, a, a, attn_mask=None if mask is None else mask == 0)[0]
        h = h + self.multihead_attn(self.norm2(h), memory, memory)[0]
        return h + self.linear2(self.gelu(self.linear1(self.norm3(h))))


class GPTByHand(nn.Module):
    block = BlockByHand

    def __init__(self, vocab, context, d_model, nhead, num_layers, dim_feedforward):
        super().__init__()
        self.head, self.norm = nn.Linear(d_model, vocab), nn.LayerNorm(d_model)
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(self.block(d_model, nhead, dim_feedforward))
        self.tokens, self.positions = nn.Embedding(vocab, d_model), nn.Embedding(context, d_model)

    def forward(self, ids):
        t = ids.shape[1]
        x = self.tokens(ids) + self.positions.weight[:t]
        places = torch.arange(t)
        for block in self.blocks:
            x = block(x, places[:, None] >= places)
        return self.head(self.norm(x))


class GPTBuiltIn(GPTByHand):
    """On PyTorch's own encoder layers, whose mask is the other way round."""

    @staticmethod
    def block(d, heads, m):
        return nn.TransformerEncoderLayer(d, heads, m, 0, "gelu", batch_first=True, norm_first=True)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        future = torch.triu(torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool), diagonal=1)
        for block in self.blocks:
            x = block(x, src_mask=future)
        return self.head(self.norm(x))


# --- Patches, sampling, masking --------------------------------------------------------------------------------------


def patches_by_loop(x, patch):
    n, _, h, w = x.shape
    squares = [
        x[:, :, i : i + patch, j : j + patch].reshape(n, -1) for i in range(0, h, patch) for j in range(0, w, patch)
    ]
    return np.stack(squares, axis=1)


def patches_swapped(x, patch):
    n, c, h, w = x.shape
    rows = x.reshape(n, c, h // patch, patch, w // patch, patch).swapaxes(3, 4)
    return np.moveaxis(rows, 1, 3).reshape(n, h * w // patch**2, -1)


def sample_rows(logits, temperature=1.0, k=None):
    p = np.zeros_like(logits)
    for row, z in zip(p, logits, strict=True):
        best = np.argsort(-z)[: 1 if temperature == 0 else k]
        share = np.exp((z[best] - z.max()) / (temperature or 1.0))
        row[best] = share / share.sum()
    return p


def sample_masked(logits, temperature=1.0, k=None):
    count = logits.shape[-1]
    rank = np.argsort(np.argsort(-logits, axis=-1), axis=-1)
    if temperature == 0:
        temperature, k = 1.0, 1
    z = np.where(rank < (count if k is None else k), logits / temperature, -np.inf)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def mask_by_loop(ids, select, action, random_ids, mask_id, p=0.15):
    inputs, targets = ids.tolist(), np.full(ids.shape, -100)
    for i, j in np.ndindex(ids.shape):
        if select[i, j] < p:
            targets[i, j] = ids[i, j]
            if action[i, j] < 0.9:
                inputs[i][j] = mask_id if action[i, j] < 0.8 else int(random_ids[i, j])
    return np.array(inputs), targets


def mask_in_place(ids, select, action, random_ids, mask_id, p=0.15):
    inputs, targets, chosen = ids.copy(), ids.copy(), select < p
    inputs[chosen & (action < 0.9)] = random_ids[chosen & (action < 0.9)]
    inputs[chosen & (action < 0.8)] = mask_id
    targets[~chosen] = -100
    return inputs, targets


# --- Repair and predict ----------------------------------------------------------------------------------------------


def loss_by_loop(logits, ids):
    total, count = 0.0, 0
    for z, row in zip(logits, ids, strict=True):
        for place, target in enumerate(row[1:]):
            total += math.log(np.exp(z[place]).sum()) - z[place, target]
            count += 1
    return total / count


def loss_gathered(logits, ids):
    z = logits[:, :-1] - logits[:, :-1].max(-1, keepdims=True)
    right = np.take_along_axis(z, ids[:, 1:, None], -1)[..., 0]
    return (np.log(np.exp(z).sum(-1)) - right).mean()


def count_listed(vocab, context, d_model, nhead, num_layers, dim_feedforward):
    d, m = d_model, dim_feedforward
    shapes = [(3 * d, d), (3 * d,), (d, d), (d,), (m, d), (m,), (d, m), (d,), (d,), (d,), (d,), (d,)]
    return [vocab * d + context * d, num_layers * sum(map(math.prod, shapes)), 2 * d + (d + 1) * vocab]


def count_formula(vocab, context, d_model, nhead, num_layers, dim_feedforward):
    d, m = d_model, dim_feedforward
    return d * (vocab + context), num_layers * (4 * d * (d + 1) + m * (2 * d + 1) + 5 * d), d * (vocab + 2) + vocab


ALTERNATIVES = {
    "sinusoidal_positions": [positions_by_loop, positions_by_shift],
    "rope_forward": [rope_complex, rope_matrices],
    "rope_backward": [rope_backward_opposite, rope_backward_matrices],
    "feed_forward_forward": [feed_einsum, feed_flat],
    "feed_forward_backward": [feed_backward_flat, feed_backward_examples],
    "transformer_block_forward": [block_steps, block_examples],
    "transformer_block_backward": [block_backward_steps, block_backward_examples],
    "TransformerBlock": [BlockByHand, BlockBuiltIn],
    "DecoderBlock": [DecoderByHand, DecoderBuiltIn],
    "GPT": [GPTByHand, GPTBuiltIn],
    "patchify": [patches_by_loop, patches_swapped],
    "top_k_probabilities": [sample_rows, sample_masked],
    "mask_tokens": [mask_by_loop, mask_in_place],
    "repair_block_forward": [block_steps, block_examples],
    "repair_next_token_loss": [loss_by_loop, loss_gathered],
    "count_gpt_parameters": [count_listed, count_formula],
}
