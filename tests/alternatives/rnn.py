"""Other right ways to solve the exercises of lesson 16."""

import math

import numpy as np
import torch
from torch import nn

# --- One step --------------------------------------------------------------------------------------------------------


def step_joined(x, h, w_x, w_h, b):
    """One linear layer on input and state side by side."""
    return np.tanh(np.concatenate([x, h], axis=1) @ np.concatenate([w_x, w_h], axis=1).T + b)


def step_einsum(x, h, w_x, w_h, b):
    z = b + np.einsum("nd,hd->nh", x, w_x) + np.einsum("nk,hk->nh", h, w_h)
    return 1 - 2 / (np.exp(2 * z) + 1)


def step_backward_joined(dh, x, h, w_x, w_h, b):
    both, w = np.concatenate([x, h], axis=1), np.concatenate([w_x, w_h], axis=1)
    dz = dh / np.cosh(both @ w.T + b) ** 2
    dboth, dw = dz @ w, dz.T @ both
    d = x.shape[1]
    return dboth[:, :d], dboth[:, d:], dw[:, :d], dw[:, d:], dz.sum(axis=0)


def step_backward_examples(dh, x, h, w_x, w_h, b):
    dz = dh - dh * step_joined(x, h, w_x, w_h, b) ** 2
    dw_x = sum(np.outer(dz[n], x[n]) for n in range(len(x)))
    dw_h = sum(np.outer(dz[n], h[n]) for n in range(len(x)))
    return [np.einsum("nh,hd->nd", dz, w_x), np.einsum("nh,hk->nk", dz, w_h), dw_x, dw_h, np.ones(len(x)) @ dz]


# --- All steps -------------------------------------------------------------------------------------------------------


def forward_at_once(x, h0, w_x, w_h, b):
    """What comes in is multiplied for all steps at once."""
    z = x @ w_x.T + b
    hs = np.empty_like(z)
    for t in range(x.shape[1]):
        hs[:, t] = np.tanh(z[:, t] + (hs[:, t - 1] if t else h0) @ w_h.T)
    return hs


def forward_list(x, h0, w_x, w_h, b):
    kept = [h0]
    for x_t in x.swapaxes(0, 1):
        kept.append(step_joined(x_t, kept[-1], w_x, w_h, b))
    return np.array(kept[1:]).transpose(1, 0, 2)


def backward_at_once(dhs, x, h0, w_x, w_h, b):
    """All gradients of parameters in one product, after the loop."""
    hs = forward_at_once(x, h0, w_x, w_h, b)
    dz, dh = np.empty_like(hs), 0
    for t in range(x.shape[1] - 1, -1, -1):
        dz[:, t] = (dhs[:, t] + dh) * (1 - hs[:, t] ** 2)
        dh = dz[:, t] @ w_h
    before = np.concatenate([h0[:, None], hs[:, :-1]], axis=1)
    dw_x, dw_h = (np.einsum("nth,ntd->hd", dz, seen) for seen in (x, before))
    return dz @ w_x, dh, dw_x, dw_h, dz.sum(axis=(0, 1))


def backward_stepwise(dhs, x, h0, w_x, w_h, b):
    kept = [h0, *forward_list(x, h0, w_x, w_h, b).swapaxes(0, 1)]
    dx, grads, dh = [], None, np.zeros_like(h0)
    for t in reversed(range(len(kept) - 1)):
        dx_t, dh, *parts = step_backward_examples(dh + dhs[:, t], x[:, t], kept[t], w_x, w_h, b)
        dx.insert(0, dx_t)
        grads = parts if grads is None else [g + p for g, p in zip(grads, parts, strict=True)]
    return np.stack(dx, axis=1), dh, *grads


def truncated_by_mask(dhs, x, h0, w_x, w_h, b, k):
    """One loop, in which nothing is handed on at the first step of a chunk."""
    hs = forward_at_once(x, h0, w_x, w_h, b)
    dx, carried, dh0 = np.zeros_like(x), np.zeros_like(h0), None
    sums = [np.zeros_like(w_x), np.zeros_like(w_h), np.zeros_like(b)]
    for t in reversed(range(x.shape[1])):
        before = hs[:, t - 1] if t > 0 else h0
        dx[:, t], dh, *parts = step_backward_joined(dhs[:, t] + carried, x[:, t], before, w_x, w_h, b)
        carried, dh0 = (np.zeros_like(dh) if t % k == 0 else dh), dh
        for total, part in zip(sums, parts, strict=True):
            total += part
    return dx, dh0, *sums


def truncated_forwards(dhs, x, h0, w_x, w_h, b, k):
    """Chunk by chunk from the start, the state handed on."""
    h, found = h0, []
    for s in range(0, x.shape[1], k):
        found.append(backward_at_once(dhs[:, s : s + k], x[:, s : s + k], h, w_x, w_h, b))
        h = forward_at_once(x[:, s : s + k], h, w_x, w_h, b)[:, -1]
    sums = [sum(part[place] for part in found) for place in (2, 3, 4)]
    return [np.hstack([part[0] for part in found]), found[0][1], *sums]


def scaled_by_loop(w_h, radius):
    largest = 0.0
    for value in np.linalg.eig(w_h)[0]:
        largest = max(largest, math.hypot(value.real, value.imag))
    return radius / largest * w_h


def scaled_by_transpose(w_h, radius):
    return np.multiply(w_h, radius) / abs(np.linalg.eigvals(w_h.T)).max()


# --- Unequal lengths -------------------------------------------------------------------------------------------------


def mask_by_rows(lengths, t):
    mask = np.zeros((len(lengths), t), bool)
    for row, length in enumerate(lengths):
        mask[row, :length] = True
    return mask


def loss_by_steps(logits, targets, mask):
    total = 0.0
    for n, t in np.argwhere(mask):
        row = logits[n, t] - logits[n, t].max()
        total += np.log(np.exp(row).sum()) - row[targets[n, t]]
    return total / np.count_nonzero(mask)


def loss_weighted(logits, targets, mask):
    shifted = logits - logits.max(axis=2, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    one_hot = np.eye(logits.shape[2])[targets]
    return -(logs * one_hot * mask[:, :, None]).sum() / mask.sum()


def loss_backward_steps(dloss, logits, targets, mask):
    grads = np.zeros_like(logits)
    for n, t in np.argwhere(mask):
        p = np.exp(logits[n, t] - logits[n, t].max())
        grads[n, t] = p / p.sum()
        grads[n, t, targets[n, t]] -= 1
    return dloss * grads / mask.sum()


def loss_backward_weighted(dloss, logits, targets, mask):
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    return (p - np.eye(logits.shape[2])[targets]) * np.where(mask, dloss / np.count_nonzero(mask), 0)[..., None]


def reversed_by_index(x, lengths):
    steps = np.arange(x.shape[1])
    mirrored = lengths[:, None] - 1 - steps
    return np.take_along_axis(x, np.where(mirrored < 0, steps, mirrored)[:, :, None], axis=1)


def reversed_by_parts(x, lengths):
    rows = [np.concatenate([row[:length][::-1], row[length:]]) for row, length in zip(x, lengths, strict=True)]
    return np.stack(rows)


def both_by_rows(x, lengths, h0, w_x, w_h, b, h0_r, w_x_r, w_h_r, b_r):
    """One sequence after the other, without its padding."""
    hs = np.zeros((*x.shape[:2], 2 * len(b)))
    for n, length in enumerate(lengths):
        row = x[n : n + 1, :length]
        hs[n, :length, : len(b)] = forward_at_once(row, h0[n : n + 1], w_x, w_h, b)[0]
        hs[n, :length, len(b) :] = forward_at_once(row[:, ::-1], h0_r[n : n + 1], w_x_r, w_h_r, b_r)[0, ::-1]
    return hs


def both_frozen(x, lengths, h0, w_x, w_h, b, h0_r, w_x_r, w_h_r, b_r):
    """The second one runs from the end of the padding, and stays at its start until its sequence begins."""
    mask = mask_by_rows(lengths, x.shape[1])[:, :, None]
    one, two = forward_at_once(x, h0, w_x, w_h, b), np.zeros((*x.shape[:2], len(b_r)))
    h = h0_r
    for t in range(x.shape[1] - 1, -1, -1):
        h = np.where(mask[:, t], step_joined(x[:, t], h, w_x_r, w_h_r, b_r), h)
        two[:, t] = h
    return np.concatenate([one, two], axis=2) * mask


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class JoinedRNN(nn.Module):
    """The products with the inputs all at once."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.randn(hidden_size, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.randn(hidden_size, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(hidden_size).uniform_(-1, 1))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(hidden_size).uniform_(-1, 1))

    def forward(self, x, h0):
        z = x @ self.weight_ih_l0.T + self.bias_ih_l0 + self.bias_hh_l0
        hs = []
        for z_t in z.unbind(dim=1):
            h0 = (z_t + h0 @ self.weight_hh_l0.T).tanh()
            hs.append(h0[:, None])
        return torch.cat(hs, dim=1)


class CountedRNN(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        shapes = {"ih": (hidden_size, input_size), "hh": (hidden_size, hidden_size)}
        for name, shape in shapes.items():
            self.register_parameter(f"weight_{name}_l0", nn.Parameter(torch.empty(shape).uniform_(-0.1, 0.1)))
            self.register_parameter(f"bias_{name}_l0", nn.Parameter(torch.empty(hidden_size).uniform_(-0.1, 0.1)))

    def forward(self, x, h0):
        states = [h0]
        for t in range(x.size(1)):
            come = torch.addmm(self.bias_ih_l0, x[:, t], self.weight_ih_l0.t())
            states.append(torch.tanh(come + torch.addmm(self.bias_hh_l0, states[t], self.weight_hh_l0.t())))
        return torch.stack(states[1:]).transpose(0, 1)


# --- Repair and predict ----------------------------------------------------------------------------------------------


def last_by_rows(hs, lengths):
    return np.stack([row[length - 1] for row, length in zip(hs, lengths, strict=True)])


def last_by_mask(hs, lengths):
    last = np.arange(hs.shape[1]) == lengths[:, None] - 1
    return hs[last]


def counted_by_shapes(input_size, hidden_size, num_layers=1, bidirectional=False):
    total, directions = 0, 2 if bidirectional else 1
    for layer in range(num_layers):
        width = input_size if layer == 0 else directions * hidden_size
        for shape in [(hidden_size, width), (hidden_size, hidden_size), (hidden_size,), (hidden_size,)] * directions:
            total += math.prod(shape)
    return total


def counted_by_formula(input_size, hidden_size, num_layers=1, bidirectional=False):
    ways = 1 + bidirectional
    upper = (num_layers - 1) * (ways * hidden_size + hidden_size + 2)
    return ways * hidden_size * (input_size + hidden_size + 2 + upper)


def steps_by_loop(radius, share):
    left, steps = 1.0, 0
    while left > share:
        left, steps = left * radius, steps + 1
    return steps


ALTERNATIVES = {
    "rnn_step_forward": [step_joined, step_einsum],
    "rnn_step_backward": [step_backward_joined, step_backward_examples],
    "rnn_forward": [forward_at_once, forward_list],
    "rnn_backward": [backward_at_once, backward_stepwise],
    "truncated_rnn_backward": [truncated_by_mask, truncated_forwards],
    "scale_spectral_radius": [scaled_by_loop, scaled_by_transpose],
    "length_mask": [mask_by_rows, lambda lengths, t: np.greater.outer(lengths, np.arange(t))],
    "masked_cross_entropy_forward": [loss_by_steps, loss_weighted],
    "masked_cross_entropy_backward": [loss_backward_steps, loss_backward_weighted],
    "reverse_sequences": [reversed_by_index, reversed_by_parts],
    "bidirectional_rnn_forward": [both_by_rows, both_frozen],
    "RNN": [JoinedRNN, CountedRNN],
    "repair_last_state": [last_by_rows, last_by_mask],
    "repair_rnn_backward": [backward_at_once, backward_stepwise],
    "count_rnn_parameters": [counted_by_shapes, counted_by_formula],
    "steps_until": [steps_by_loop, lambda radius, share: int(np.ceil(np.log(share) / np.log(radius)))],
}
