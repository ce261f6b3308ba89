"""Other right ways to solve the exercises of lesson 07."""

import math

import numpy as np
import torch
from torch import nn

# --- Dropout ---------------------------------------------------------------------------------------------------------


def mask_where(shape, p, rng):
    return np.where(rng.uniform(size=shape) < p, 0, 1)


def mask_boolean(shape, p, rng):
    return rng.random(shape) >= p


def mask_one_by_one(shape, p, rng):
    flat = [0.0 if rng.random() < p else 1.0 for _ in range(math.prod(shape))]
    return np.array(flat).reshape(shape)


def forward_indexed(x, mask, p):
    y = np.zeros_like(x)
    y[mask == 1] = x[mask == 1] / (1 - p)
    return y


def forward_float32(x, mask, p):
    return np.where(mask > 0, x, 0).astype(np.float32) / (1 - p)


def backward_indexed(dy, mask, p):
    dx = dy / (1 - p)
    dx[mask == 0] = 0
    return dx


def backward_is_forward(dy, mask, p):
    return forward_float32(dy, mask, p)


# --- The L2 penalty --------------------------------------------------------------------------------------------------


def penalty_flat(weights, weight_decay):
    flat = np.concatenate([w.ravel() for w in weights])
    return weight_decay / 2 * flat @ flat


def penalty_loop(weights, weight_decay):
    total = 0.0
    for w in weights:
        total += np.linalg.norm(w) ** 2
    return float(weight_decay * total / 2)


def gradient_tuple(dloss, weights, weight_decay):
    return tuple(dloss * weight_decay * w for w in weights)


def gradient_loop(dloss, weights, weight_decay):
    gradients = []
    for w in weights:
        g = np.zeros_like(w)
        g += w
        g *= weight_decay
        gradients.append(g * dloss)
    return gradients


# --- Label smoothing -------------------------------------------------------------------------------------------------


def smoothing_in_place(targets, classes, eps):
    y = np.full((len(targets), classes), eps / classes)
    y[np.arange(len(targets)), targets] += 1 - eps
    return y


def smoothing_lists(targets, classes, eps):
    return [[(1 - eps) * (k == t) + eps / classes for k in range(classes)] for t in targets]


# --- Early stopping --------------------------------------------------------------------------------------------------


class StopsByHistory:
    """Remembers every loss; the best is looked up."""

    def __init__(self, patience, min_delta=0.0):
        self.patience, self.min_delta = patience, min_delta
        self.calls, self.best_call, self.best_loss, self.kept = 0, 0, math.inf, None

    def step(self, loss, parameters):
        self.calls += 1
        if self.best_loss - loss > self.min_delta:
            self.best_call, self.best_loss = self.calls, loss
            self.kept = [np.array(p) for p in parameters]
        return self.calls - self.best_call >= self.patience

    def restore(self, parameters):
        for k, best in enumerate(self.kept):
            np.copyto(parameters[k], best)


class StopsByCountdown:
    best_loss = np.inf

    def __init__(self, patience, min_delta=0.0):
        self.patience = self.left = patience
        self.min_delta = min_delta

    def step(self, loss, parameters):
        better = bool(loss < self.best_loss - self.min_delta)
        self.left = self.patience if better else self.left - 1
        if better:
            self.best_loss = loss
            self.best = tuple(map(np.copy, parameters))
        return np.bool_(self.left <= 0)

    def restore(self, parameters):
        for p, best in zip(parameters, self.best, strict=True):
            p -= p
            p += best


# --- Shifted images --------------------------------------------------------------------------------------------------


def shift_rolled_and_blanked(x, max_shift, rng):
    y = np.empty_like(x)
    for k, (dy, dx) in enumerate(rng.integers(-max_shift, max_shift + 1, size=(len(x), 2))):
        image = np.pad(x[k], max_shift)
        y[k] = np.roll(image, (dy, dx), axis=(0, 1))[
            max_shift : max_shift + x.shape[1], max_shift : max_shift + x.shape[2]
        ]
    return y


def shift_by_pixels(x, max_shift, rng):
    n, h, w = x.shape
    shifts = rng.integers(-max_shift, max_shift + 1, size=(n, 2))
    y = np.zeros(x.shape)
    for k in range(n):
        for i in range(h):
            for j in range(w):
                a, b = i - shifts[k, 0], j - shifts[k, 1]
                if 0 <= a < h and 0 <= b < w:
                    y[k, i, j] = x[k, a, b]
    return y


def shift_by_indices(x, max_shift, rng):
    n, h, w = x.shape
    down, right = rng.integers(-max_shift, max_shift, size=(n, 2), endpoint=True).T
    rows = np.arange(h) - down[:, None] + max_shift
    columns = np.arange(w) - right[:, None] + max_shift
    padded = np.pad(x, ((0, 0), (max_shift, max_shift), (max_shift, max_shift)))
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class BernoulliDropout(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.keep = 1 - p

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.bernoulli(torch.full_like(x, self.keep)) / self.keep


class WhereDropout(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if self.training and self.p > 0:
            dropped = torch.rand(x.shape) < self.p
            x = (x / (1 - self.p)).masked_fill(dropped, 0)
        return x


# --- Repair and predict ----------------------------------------------------------------------------------------------


def two_modes(x, mask, p, training):
    if not training:
        return x
    return mask * (x / (1 - p))


class KeepsFactor:
    def __init__(self, p, rng):
        self.p, self.rng, self.training = p, rng, True

    def forward(self, x):
        self.factor = (self.rng.random(x.shape) >= self.p) / (1 - self.p) if self.training else 1
        return x * self.factor

    def backward(self, dy):
        return dy * self.factor


class KeepsMask:
    def __init__(self, p, rng):
        self.p, self.rng = p, rng
        self.training = True

    def forward(self, x):
        if not self.training:
            return x
        self.mask = mask_one_by_one(x.shape, self.p, self.rng)
        return forward_indexed(x, self.mask, self.p)

    def backward(self, dy):
        return backward_indexed(dy, self.mask, self.p) if self.training else dy


def moments_by_definition(x, p):
    y = x / (1 - p)
    return x, p * (0 - x) ** 2 + (1 - p) * (y - x) ** 2


def floor_summed(classes, eps):
    y = np.full(classes, eps / classes)
    y[0] += 1 - eps
    return -(y * np.log(y)).sum()


def floor_in_two_terms(classes, eps):
    right, wrong = 1 - eps + eps / classes, eps / classes
    return right * math.log(1 / right) + (classes - 1) * wrong * math.log(1 / wrong)


ALTERNATIVES = {
    "dropout_mask": [mask_where, mask_boolean, mask_one_by_one],
    "dropout_forward": [forward_indexed, forward_float32],
    "dropout_backward": [backward_indexed, backward_is_forward],
    "l2_penalty_forward": [penalty_flat, penalty_loop],
    "l2_penalty_backward": [gradient_tuple, gradient_loop],
    "label_smoothing": [smoothing_in_place, smoothing_lists],
    "EarlyStopping": [StopsByHistory, StopsByCountdown],
    "random_shift": [shift_rolled_and_blanked, shift_by_pixels, shift_by_indices],
    "Dropout": [BernoulliDropout, WhereDropout],
    "repair_dropout_forward": [two_modes, lambda x, mask, p, training: x * (mask / (1 - p) if training else 1)],
    "RepairDropoutLayer": [KeepsFactor, KeepsMask],
    "dropout_moments": [moments_by_definition, lambda x, p: (float(x), x * x * p / (1 - p))],
    "thinned_networks": [lambda widths: 2 ** sum(widths[1:-1]), lambda widths: math.prod(2**w for w in widths[1:-1])],
    "smoothed_floor": [floor_summed, floor_in_two_terms],
}
