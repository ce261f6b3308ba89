"""Other right ways to solve the exercises of lesson 08."""

import math

import numpy as np
import torch
from torch import nn

# --- Batch norm ------------------------------------------------------------------------------------------------------


def batchnorm_einsum(x, gamma, beta, eps=1e-5):
    n = len(x)
    mean = np.einsum("nd->d", x) / n
    c = x - mean
    return np.einsum("nd,d->nd", c, gamma / np.sqrt(np.einsum("nd,nd->d", c, c) / n + eps)) + beta


def batchnorm_columns(x, gamma, beta, eps=1e-5):
    y = np.empty_like(x)
    for j, column in enumerate(x.T):
        y[:, j] = gamma[j] * (column - column.mean()) * (column.var() + eps) ** -0.5 + beta[j]
    return y


def batchnorm_list(x, gamma, beta, eps=1e-5):
    return (gamma * ((x - np.average(x, axis=0)) / np.sqrt(np.var(x, axis=0) + eps)) + beta).tolist()


def batchnorm_backward_graph(dy, x, gamma, beta, eps=1e-5):
    """One step of the graph after the other, nothing simplified."""
    n = len(x)
    c = x - x.mean(0)
    var = (c**2).mean(0)
    root = np.sqrt(var + eps)
    dxhat = dy * gamma
    dvar = (dxhat * c).sum(0) * -0.5 * root**-3
    dc = dxhat / root + dvar * 2 * c / n
    dmean = -dc.sum(0)
    return dc + dmean / n, (dy * c / root).sum(0), dy.sum(0)


def batchnorm_backward_jacobian(dy, x, gamma, beta, eps=1e-5):
    n, d = x.shape
    dx, dgamma = np.empty_like(x), np.empty(d)
    for j in range(d):
        root = np.sqrt(x[:, j].var() + eps)
        xhat = (x[:, j] - x[:, j].mean()) / root
        jacobian = (np.eye(n) - np.full((n, n), 1 / n) - np.outer(xhat, xhat) / n) / root
        dx[:, j], dgamma[j] = gamma[j] * jacobian @ dy[:, j], xhat @ dy[:, j]
    return dx, dgamma, np.ones(n) @ dy


def batchnorm_backward_sums(dy, x, gamma, beta, eps=1e-5):
    n = len(x)
    inverse = 1 / np.sqrt(x.var(0) + eps)
    xhat = (x - x.mean(0)) * inverse
    dgamma, dbeta = (dy * xhat).sum(0), dy.sum(0)
    return gamma * inverse / n * (n * dy - dbeta - xhat * dgamma), dgamma, dbeta


def running_by_steps(x, running_mean, running_var, momentum=0.1):
    mean, var = x.mean(0), np.cov(x, rowvar=False, ddof=1).reshape(x.shape[1], -1).diagonal()
    return running_mean + momentum * (mean - running_mean), running_var + momentum * (var - running_var)


def running_from_biased(x, running_mean, running_var, momentum=0.1):
    n, new = len(x), [running_mean.copy(), running_var.copy()]
    for kept, seen in zip(new, (x.mean(0), x.var(0) * n / (n - 1)), strict=True):
        kept *= 1 - momentum
        kept += momentum * seen
    return new


def eval_affine(x, gamma, beta, running_mean, running_var, eps=1e-5):
    scale = gamma / np.sqrt(running_var + eps)
    return x * scale + (beta - running_mean * scale)


def eval_rows(x, gamma, beta, running_mean, running_var, eps=1e-5):
    return np.stack([gamma * (row - running_mean) / np.sqrt(running_var + eps) + beta for row in x])


# --- Layer norm ------------------------------------------------------------------------------------------------------


def layernorm_transposed(x, gamma, beta, eps=1e-5):
    rows = x.reshape(-1, x.shape[-1]).T
    return ((rows - rows.mean(0)) / np.sqrt(rows.var(0) + eps)).T.reshape(x.shape) * gamma + beta


def layernorm_rows(x, gamma, beta, eps=1e-5):
    y = np.zeros_like(x)
    for index in np.ndindex(x.shape[:-1]):
        row = x[index] - x[index].mean()
        y[index] = gamma * row / math.sqrt(row @ row / len(row) + eps) + beta
    return y


def layernorm_backward_rows(dy, x, gamma, beta, eps=1e-5):
    dx, dgamma, dbeta = np.zeros_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    d = x.shape[-1]
    for index in np.ndindex(x.shape[:-1]):
        root = np.sqrt(x[index].var() + eps)
        xhat, g = (x[index] - x[index].mean()) / root, dy[index] * gamma
        dx[index] = (d * g - g.sum() - xhat * (xhat @ g)) / d / root
        dgamma += dy[index] * xhat
        dbeta += dy[index]
    return dx, dgamma, dbeta


def layernorm_backward_graph(dy, x, gamma, beta, eps=1e-5):
    d, axes = x.shape[-1], tuple(range(x.ndim - 1))
    c = x - x.mean(-1, keepdims=True)
    root = np.sqrt((c**2).mean(-1, keepdims=True) + eps)
    g = dy * gamma
    dc = g / root - c * (g * c).sum(-1, keepdims=True) / root**3 / d
    return dc - dc.mean(-1, keepdims=True), (dy * c / root).sum(axes), dy.sum(axes)


# --- Group norm ------------------------------------------------------------------------------------------------------


def groupnorm_flat(x, gamma, beta, num_groups, eps=1e-5):
    rows = x.reshape(len(x) * num_groups, -1)
    xhat = (rows - rows.mean(1)[:, None]) / np.sqrt(rows.var(1)[:, None] + eps)
    return xhat.reshape(x.shape) * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)


def groupnorm_slices(x, gamma, beta, num_groups, eps=1e-5):
    y, step = np.empty_like(x), x.shape[1] // num_groups
    for i in range(len(x)):
        for start in range(0, x.shape[1], step):
            part = slice(start, start + step)
            xhat = (x[i, part] - x[i, part].mean()) / np.sqrt(x[i, part].var() + eps)
            y[i, part] = gamma[part, None, None] * xhat + beta[part, None, None]
    return y


def groupnorm_backward_flat(dy, x, gamma, beta, num_groups, eps=1e-5):
    rows, g = (a.reshape(len(x) * num_groups, -1) for a in (x, dy * gamma.reshape(1, -1, 1, 1)))
    root = np.sqrt(rows.var(1, keepdims=True) + eps)
    xhat = (rows - rows.mean(1, keepdims=True)) / root
    dx = (g - g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True)) / root
    dgamma = np.einsum("nchw,nchw->c", dy, xhat.reshape(x.shape))
    return dx.reshape(x.shape), dgamma, np.einsum("nchw->c", dy)


def groupnorm_backward_slices(dy, x, gamma, beta, num_groups, eps=1e-5):
    dx, dgamma, step = np.empty_like(x), np.zeros_like(gamma), x.shape[1] // num_groups
    for i in range(len(x)):
        for start in range(0, x.shape[1], step):
            part = slice(start, start + step)
            root = np.sqrt(x[i, part].var() + eps)
            xhat, g = (x[i, part] - x[i, part].mean()) / root, dy[i, part] * gamma[part, None, None]
            dx[i, part] = (g - g.mean() - xhat * (g * xhat).mean()) / root
            dgamma[part] += (dy[i, part] * xhat).sum((1, 2))
    return dx, dgamma, dy.sum((0, 2, 3))


# --- RMS norm --------------------------------------------------------------------------------------------------------


def rmsnorm_length(x, gamma, eps=1e-5):
    d = x.shape[-1]
    length = np.sqrt(np.einsum("...d,...d->...", x, x) + d * eps)
    return np.sqrt(d) * x / length[..., None] * gamma


def rmsnorm_rows(x, gamma, eps=1e-5):
    y = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        y[index] = gamma * x[index] / math.sqrt(np.mean(x[index] ** 2) + eps)
    return y


def rmsnorm_backward_graph(dy, x, gamma, eps=1e-5):
    square = (x**2).mean(-1, keepdims=True) + eps
    g = dy * gamma
    dsquare = -0.5 * (g * x).sum(-1, keepdims=True) * square**-1.5
    dgamma = (dy * x / np.sqrt(square)).reshape(-1, x.shape[-1]).sum(0)
    return g / np.sqrt(square) + dsquare * 2 * x / x.shape[-1], dgamma


def rmsnorm_backward_jacobian(dy, x, gamma, eps=1e-5):
    r = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    xhat, d = x * r, x.shape[-1]
    jacobian = (np.eye(d) - xhat[..., :, None] * xhat[..., None, :] / d) * r[..., None]
    return np.einsum("...j,...jk->...k", dy * gamma, jacobian), (dy * xhat).reshape(-1, d).sum(0)


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class LerpingBatchNorm(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        self.eps, self.momentum = eps, momentum

    def forward(self, input):
        if self.training:
            var, mean = torch.var_mean(input, dim=0, unbiased=False)
            n = len(input)
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(var.detach() * n / (n - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        else:
            mean, var = self.running_mean, self.running_var
        return torch.addcmul(self.bias, self.weight, (input - mean) * torch.rsqrt(var + self.eps))


class ReassigningBatchNorm(nn.Module):
    """Gives the buffers new tensors, and lists what state_dict lists in another order."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.weight = nn.Parameter(torch.ones(num_features))
        self.eps, self.m = eps, momentum

    def forward(self, x):
        if not self.training:
            scale = self.weight / (self.running_var + self.eps) ** 0.5
            return x * scale + self.bias - self.running_mean * scale
        mean = x.mean(0)
        centred = x - mean
        with torch.no_grad():
            self.running_mean = (1 - self.m) * self.running_mean + self.m * mean
            self.running_var = (1 - self.m) * self.running_var + self.m * (centred**2).sum(0) / (len(x) - 1)
            self.num_batches_tracked = self.num_batches_tracked + 1
        return self.weight * centred / (centred.square().mean(0) + self.eps).sqrt() + self.bias


class FusedLayerNorm(nn.Module):
    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps

    def forward(self, x):
        c = x - x.mean(dim=-1, keepdim=True)
        return torch.addcmul(self.bias, self.weight, c * torch.rsqrt(c.pow(2).mean(-1, True) + self.eps))


class MomentsLayerNorm(nn.Module):
    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.d, self.eps = normalized_shape, eps

    def forward(self, x):
        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return self.weight * ((x - mean) / (var + self.eps).sqrt()) + self.bias


# --- Repair and predict ----------------------------------------------------------------------------------------------


def layer_early_return(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    if not training:
        return eval_affine(x, gamma, beta, running_mean, running_var, eps), running_mean, running_var
    return batchnorm_einsum(x, gamma, beta, eps), *running_by_steps(x, running_mean, running_var, momentum)


def layer_one_exit(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    mean, var = (x.mean(0), x.var(0)) if training else (running_mean, running_var)
    y = gamma * (x - mean) / np.sqrt(var + eps) + beta
    if training:
        n = len(x)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * var * n / (n - 1)
    return y, running_mean.copy(), running_var.copy()


def batchnorm2d_axes(x, gamma, beta, eps=1e-5):
    xhat = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + eps)
    return gamma[:, None, None] * xhat + beta[:, None, None]


def batchnorm2d_channels(x, gamma, beta, eps=1e-5):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        y[:, c] = gamma[c] * (x[:, c] - x[:, c].mean()) / np.sqrt(x[:, c].var() + eps) + beta[c]
    return y


def counts_by_table(kind, n, c, h, w, num_groups):
    means = {"batch": c, "layer": n, "instance": n * c, "group": n * num_groups, "rms": 0}[kind]
    return means, n if kind == "rms" else means


def counts_by_division(kind, n, c, h, w, num_groups):
    share = {"batch": n * h * w, "instance": h * w, "group": c // num_groups * h * w}.get(kind, c * h * w)
    scales = n * c * h * w // share
    return [0 if kind == "rms" else scales, scales]


def start_left_loop(momentum, batches):
    share = 1.0
    for _ in range(batches):
        share -= momentum * share
    return share


ALTERNATIVES = {
    "batchnorm_forward": [batchnorm_einsum, batchnorm_columns, batchnorm_list],
    "batchnorm_backward": [batchnorm_backward_graph, batchnorm_backward_jacobian, batchnorm_backward_sums],
    "batchnorm_running": [running_by_steps, running_from_biased],
    "batchnorm_eval": [eval_affine, eval_rows],
    "layernorm_forward": [layernorm_transposed, layernorm_rows],
    "layernorm_backward": [layernorm_backward_rows, layernorm_backward_graph],
    "groupnorm_forward": [groupnorm_flat, groupnorm_slices],
    "groupnorm_backward": [groupnorm_backward_flat, groupnorm_backward_slices],
    "rmsnorm_forward": [rmsnorm_length, rmsnorm_rows],
    "rmsnorm_backward": [rmsnorm_backward_graph, rmsnorm_backward_jacobian],
    "BatchNorm1d": [LerpingBatchNorm, ReassigningBatchNorm],
    "LayerNorm": [FusedLayerNorm, MomentsLayerNorm],
    "repair_batchnorm_layer": [layer_early_return, layer_one_exit],
    "repair_batchnorm2d_forward": [batchnorm2d_axes, batchnorm2d_channels],
    "count_statistics": [counts_by_table, counts_by_division],
    "start_left": [start_left_loop, lambda momentum, batches: math.exp(batches * math.log1p(-momentum))],
}
