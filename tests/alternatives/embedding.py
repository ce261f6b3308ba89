"""Other right ways to solve the exercises of lesson 15."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# --- Lookup and bags -------------------------------------------------------------------------------------------------


def one_hot(ids, v):
    return np.eye(v)[ids]


def lookup_product(ids, table):
    return one_hot(ids, len(table)) @ table


def lookup_each(ids, table):
    return np.array([table[k] for k in np.ravel(ids)]).reshape(*np.shape(ids), table.shape[1])


def scatter_loop(dy, ids, table):
    dtable = np.zeros_like(table)
    for k, row in zip(np.ravel(ids), dy.reshape(-1, table.shape[1]), strict=True):
        dtable[k] += row
    return dtable


def scatter_product(dy, ids, table):
    return one_hot(np.ravel(ids), len(table)).T @ dy.reshape(-1, table.shape[1])


def scatter_bincount(dy, ids, table):
    rows, flat = dy.reshape(-1, table.shape[1]), np.ravel(ids)
    return np.stack([np.bincount(flat, column, minlength=len(table)) for column in rows.T], axis=1)


def bag_rows(ids, table, padding_idx=0):
    y = np.zeros((len(ids), table.shape[1]))
    for row, bag in zip(y, ids, strict=True):
        words = bag[bag != padding_idx]
        if len(words):
            row[:] = table[words].mean(axis=0)
    return y


def bag_counts(ids, table, padding_idx=0):
    counts = one_hot(ids, len(table)).sum(1)
    counts[:, padding_idx] = 0
    return counts @ table / np.maximum(1, counts.sum(1, keepdims=True))


def bag_backward_rows(dy, ids, table, padding_idx=0):
    dtable = np.zeros_like(table)
    for row, bag in zip(dy, ids, strict=True):
        words = bag[bag != padding_idx]
        for word in words:
            dtable[word] += row / len(words)
    return dtable


def bag_backward_counts(dy, ids, table, padding_idx=0):
    counts = one_hot(ids, len(table)).sum(1)
    counts[:, padding_idx] = 0
    return (counts / np.maximum(counts.sum(1, keepdims=True), 1)).T @ dy


# --- Word vectors ----------------------------------------------------------------------------------------------------


def pairs_loop(ids, window):
    found = []
    for i in range(len(ids)):
        for j in range(max(0, i - window), min(len(ids), i + window + 1)):
            if i != j:
                found.append((ids[i], ids[j]))
    return np.array([a for a, _ in found]), np.array([b for _, b in found])


def pairs_table(ids, window):
    at = np.arange(len(ids))
    gap = np.abs(np.subtract.outer(at, at))
    i, j = np.where((0 < gap) & (gap <= window))
    return ids[i], ids[j]


def chances_steps(counts, power=0.75):
    weights = np.power(counts, power)
    weights /= weights.sum()
    return weights


def chances_list(counts, power=0.75):
    weights = [float(count) ** power for count in counts]
    return np.array([weight / sum(weights) for weight in weights])


def log_sigmoid(s):
    return np.minimum(s, 0) - np.log1p(np.exp(-np.abs(s)))


def sigmoid(s):
    return np.exp(log_sigmoid(s))


def skipgram_parts(centre, context, negatives, table_in, table_out):
    v = table_in[centre]
    true = (v * table_out[context]).sum(axis=1)
    drawn = (table_out[negatives] @ v[:, :, None])[..., 0]
    return -(log_sigmoid(true).sum() + log_sigmoid(-drawn).sum()) / len(centre)


def skipgram_loop(centre, context, negatives, table_in, table_out):
    loss = 0.0
    for i, j, others in zip(centre, context, negatives, strict=True):
        loss += np.logaddexp(0, -table_in[i] @ table_out[j])
        loss += sum(np.logaddexp(0, table_in[i] @ table_out[k]) for k in others)
    return loss / len(centre)


def skipgram_backward_loop(dloss, centre, context, negatives, table_in, table_out):
    din, dout, n = np.zeros_like(table_in), np.zeros_like(table_out), len(centre)
    for i, j, others in zip(centre, context, negatives, strict=True):
        for word, target in [(j, 1), *((k, 0) for k in others)]:
            ds = dloss / n * (sigmoid(table_in[i] @ table_out[word]) - target)
            din[i] += ds * table_out[word]
            dout[word] += ds * table_in[i]
    return din, dout


def skipgram_backward_dense(dloss, centre, context, negatives, table_in, table_out):
    """By way of all v · v scores: how often each pair of words came, as true pair and as negative."""
    v, every = len(table_in), table_in @ table_out.T
    true, drawn = np.zeros((v, v)), np.zeros((v, v))
    np.add.at(true, (centre, context), 1)
    np.add.at(drawn, (centre[:, None], negatives), 1)
    ds = dloss / len(centre) * (drawn * sigmoid(every) - true * sigmoid(-every))
    return ds @ table_out, ds.T @ table_in


def analogy_loop(a, b, c, table, exclude=True):
    rows = table / np.sqrt((table**2).sum(1, keepdims=True))
    answers = []
    for i, j, k in zip(a, b, c, strict=True):
        cosines = rows @ (rows[j] - rows[i] + rows[k])
        order = [word for word in np.argsort(-cosines) if not (exclude and word in (i, j, k))]
        answers.append(order[0])
    return np.array(answers)


def analogy_cosines(a, b, c, table, exclude=True):
    """By the cosines between the words alone (Levy and Goldberg, 2014)."""
    rows = table / np.linalg.norm(table, axis=1)[:, None]
    cosines = rows @ rows.T
    found = cosines[b] - cosines[a] + cosines[c]
    if exclude:
        np.put_along_axis(found, np.stack([a, b, c], axis=1), -9.0, axis=1)
    return np.argmax(found, axis=1)


# --- Recommenders ----------------------------------------------------------------------------------------------------


def factor_loop(p, q, users, items, ratings, lr, weight_decay=0.0):
    dp, dq = weight_decay * p, weight_decay * q
    for user, item, rating in zip(users, items, ratings, strict=True):
        e = 2 / len(ratings) * (p[user] @ q[item] - rating)
        dp[user] += e * q[item]
        dq[item] += e * p[user]
    return p - lr * dp, q - lr * dq


def factor_dense(p, q, users, items, ratings, lr, weight_decay=0.0):
    errors = np.zeros((len(p), len(q)))
    np.add.at(errors, (users, items), (p @ q.T)[users, items] - ratings)
    shrink, scale = 1 - lr * weight_decay, 2 * lr / len(ratings)
    return shrink * p - scale * errors @ q, shrink * q - scale * errors.T @ p


def procrustes_polar(a, b):
    """The orthogonal part of aᵀb."""
    _, s, vt = np.linalg.svd(np.einsum("nk,nl->kl", a, b))
    return (a.T @ b) @ vt.T @ np.diag(1 / s) @ vt


def procrustes_swapped(a, b):
    u, _, vt = np.linalg.svd(b.T @ a)
    return (u @ vt).T


# --- In PyTorch, and predict -----------------------------------------------------------------------------------------


class MaskedEmbedding(nn.Module):
    def __init__(self, num_embeddings, embedding_dim, padding_idx=None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        nn.init.normal_(self.weight)
        self.padding_idx = padding_idx
        if padding_idx is not None:
            self.weight.data[padding_idx] = 0

    def forward(self, ids):
        weight = self.weight
        if self.padding_idx is not None:
            learns = torch.ones_like(weight)
            learns[self.padding_idx] = 0
            weight = weight * learns + (weight * (1 - learns)).detach()
        return weight[ids]


class OneHotEmbedding(nn.Module):
    def __init__(self, num_embeddings, embedding_dim, padding_idx=None):
        super().__init__()
        self.padding_idx, start = padding_idx, torch.randn(num_embeddings, embedding_dim)
        if padding_idx is not None:
            start[padding_idx] = 0
        self.weight = nn.Parameter(start)

    def forward(self, ids):
        hot = F.one_hot(ids, len(self.weight)).to(self.weight.dtype)
        if self.padding_idx is None:
            return hot @ self.weight
        learns = hot.clone()
        learns[..., self.padding_idx] = 0
        return learns @ self.weight + (hot - learns) @ self.weight.detach()


def rows_by_step(v, n):
    rows = 0.0
    for _ in range(n):
        rows += 1 - rows / v
    return rows


ALTERNATIVES = {
    "embedding_forward": [lookup_product, lookup_each, lambda ids, table: np.take(table, ids, axis=0)],
    "embedding_backward": [scatter_loop, scatter_product, scatter_bincount],
    "embedding_bag_forward": [bag_rows, bag_counts],
    "repair_embedding_bag_backward": [bag_backward_rows, bag_backward_counts],
    "skipgram_pairs": [pairs_loop, pairs_table],
    "negative_distribution": [chances_steps, chances_list],
    "skipgram_loss_forward": [skipgram_parts, skipgram_loop],
    "skipgram_loss_backward": [skipgram_backward_loop, skipgram_backward_dense],
    "analogy": [analogy_loop, analogy_cosines],
    "matrix_factorisation_step": [factor_loop, factor_dense],
    "procrustes": [procrustes_polar, procrustes_swapped],
    "Embedding": [MaskedEmbedding, OneHotEmbedding],
    "count_word_vectors": [
        lambda v, d, n, k: (d * (v + v), (np.minimum(n, v) + np.minimum(n + n * k, v)) * d),
        lambda v, d, n, k: [2 * v * d, d * (sorted((n, v))[0] + sorted((n * k + n, v))[0])],
    ],
    "expected_rows": [rows_by_step, lambda v, n: -v * math.expm1(n * math.log1p(-1 / v)) if v > 1 else 1.0],
}
