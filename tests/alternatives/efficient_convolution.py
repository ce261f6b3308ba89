"""Other right ways to solve the exercises of lesson 13."""

import math

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

# --- Depthwise -------------------------------------------------------------------------------------------------------


def places(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride + 1


def depthwise_loops(x, w, b, stride=1, padding=0):
    n, c, ih, iw = x.shape
    o, _, kh, kw = w.shape
    padded = np.zeros((n, c, ih + 2 * padding, iw + 2 * padding))
    padded[:, :, padding : padding + ih, padding : padding + iw] = x
    y = np.zeros((n, o, places(ih, kh, stride, padding), places(iw, kw, stride, padding)))
    for e, k, i, j in np.ndindex(y.shape):
        window = padded[e, k // (o // c), i * stride : i * stride + kh, j * stride : j * stride + kw]
        y[e, k, i, j] = (window * w[k, 0]).sum() + b[k]
    return y


def depthwise_windows(x, w, b, stride=1, padding=0):
    c = x.shape[1]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    kernels = w.reshape(c, len(w) // c, *w.shape[2:])
    y = np.einsum("ncyxij,cmij->ncmyx", windows, kernels)
    return y.reshape(len(x), len(w), *y.shape[3:]) + b.reshape(1, -1, 1, 1)


def depthwise_backward_loops(dy, x, w, b, stride=1, padding=0):
    _, c, ih, iw = x.shape
    o, _, kh, kw = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dpadded, dw, db = np.zeros_like(padded), np.zeros_like(w), np.zeros_like(b)
    for e, k, i, j in np.ndindex(dy.shape):
        window = e, k // (o // c), slice(i * stride, i * stride + kh), slice(j * stride, j * stride + kw)
        dpadded[window] += dy[e, k, i, j] * w[k, 0]
        dw[k, 0] += dy[e, k, i, j] * padded[window]
        db[k] += dy[e, k, i, j]
    return dpadded[:, :, padding : padding + ih, padding : padding + iw], dw, db


def depthwise_backward_entries(dy, x, w, b, stride=1, padding=0):
    (n, c, ih, iw), m, (oh, ow) = x.shape, len(w) // x.shape[1], dy.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))).repeat(m, axis=1)
    dpadded, dw = np.zeros_like(padded), np.empty_like(w)
    for i, j in np.ndindex(w.shape[2:]):
        part = np.s_[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride]
        dw[:, 0, i, j] = (dy * padded[part]).sum(axis=(0, 2, 3))
        dpadded[part] += dy * w[:, 0, i, j, None, None]
    dx = dpadded.reshape(n, c, m, *padded.shape[2:]).sum(axis=2)[:, :, padding:, padding:][:, :, :ih, :iw]
    return dx, dw, dy.sum(axis=(0, 2, 3))


# --- Pointwise -------------------------------------------------------------------------------------------------------


def pointwise_rows(x, w, b):
    return (np.moveaxis(x, 1, -1) @ w.reshape(w.shape[:2]).T + b).transpose(0, 3, 1, 2)


def pointwise_columns(x, w, b):
    n, c, ih, iw = x.shape
    return (w[:, :, 0, 0] @ x.reshape(n, c, ih * iw) + b[:, None]).reshape(n, -1, ih, iw)


def pointwise_backward_rows(dy, x, w, b):
    rows, upstream = (np.moveaxis(a, 1, -1).reshape(-1, a.shape[1]) for a in (x, dy))
    dx = (upstream @ w[:, :, 0, 0]).reshape(len(x), *x.shape[2:], x.shape[1])
    return np.moveaxis(dx, -1, 1), (upstream.T @ rows).reshape(w.shape), upstream.sum(0)


def pointwise_backward_columns(dy, x, w, b):
    n, c = x.shape[:2]
    flat, up = x.reshape(n, c, -1), dy.reshape(n, len(w), -1)
    dw = (up @ flat.swapaxes(1, 2)).sum(0)
    return (w[:, :, 0, 0].T @ up).reshape(x.shape), dw[..., None, None], up.sum(axis=(0, 2))


# --- What it costs, and channel shuffle ------------------------------------------------------------------------------


def flops_by_groups(in_channels, out_channels, kernel_size, output_size, groups=1):
    one = (in_channels // groups) * (out_channels // groups) * math.prod(kernel_size)
    macs = groups * one * math.prod(output_size)
    return groups * one + out_channels, macs, macs + macs


def flops_by_output(in_channels, out_channels, kernel_size, output_size, groups=1):
    (kh, kw), (oh, ow) = kernel_size, output_size
    macs = sum(in_channels // groups * kh * kw for _ in range(out_channels * oh * ow))
    return [out_channels * (1 + in_channels * kh * kw / groups), float(macs), 2 * macs]


def shuffle_by_index(x, groups):
    c = x.shape[1]
    return x[:, [k % groups * (c // groups) + k // groups for k in range(c)]]


def shuffle_by_slices(x, groups):
    y, size = np.empty_like(x), x.shape[1] // groups
    for g in range(groups):
        y[:, g::groups] = x[:, g * size : (g + 1) * size]
    return y


def shuffle_backward_by_slices(dy, x, groups):
    return np.concatenate([dy[:, g::groups] for g in range(groups)], axis=1)


def shuffle_backward_by_index(dy, x, groups):
    order = np.arange(x.shape[1]).reshape(groups, -1).T.ravel()
    dx = np.empty_like(dy)
    dx[:, order] = dy
    return dx


# --- Squeeze and excitation ------------------------------------------------------------------------------------------


def excite_einsum(x, w1, b1, w2, b2):
    z = np.maximum(np.einsum("nchw,rc->nr", x, w1) / x[0, 0].size + b1, 0)
    return np.einsum("nchw,nc->nchw", x, 0.5 + 0.5 * np.tanh((z @ w2.T + b2) / 2))


def excite_examples(x, w1, b1, w2, b2):
    y = np.empty_like(x)
    for e, image in enumerate(x):
        z = w1 @ image.reshape(len(image), -1).mean(1) + b1
        y[e] = image / (1 + np.exp(-(w2 @ (z * (z > 0)) + b2)))[:, None, None]
    return y


def excite_backward_steps(dy, x, w1, b1, w2, b2):
    s = x.mean((2, 3))
    u = s @ w1.T + b1
    z = np.where(u > 0, u, 0)
    gate = 1 / (1 + np.exp(-(z @ w2.T + b2)))
    dv = np.einsum("nchw,nchw->nc", dy, x) * gate * (1 - gate)
    du = np.where(u > 0, dv @ w2, 0)
    dx = dy * gate[..., None, None]
    dx += (du @ w1 / x[0, 0].size)[..., None, None]
    return dx, du.T @ s, du.sum(0), dv.T @ z, dv.sum(0)


def excite_backward_examples(dy, x, w1, b1, w2, b2):
    dx = np.empty_like(x)
    dw1, db1, dw2, db2 = (np.zeros_like(a) for a in (w1, b1, w2, b2))
    for e in range(len(x)):
        s = x[e].mean((1, 2))
        u = w1 @ s + b1
        gate = 1 / (1 + np.exp(-(w2 @ np.maximum(u, 0) + b2)))
        dv = (dy[e] * x[e]).sum((1, 2)) * gate * (1 - gate)
        du = (w2.T @ dv) * (u > 0)
        dx[e] = dy[e] * gate[:, None, None] + (w1.T @ du)[:, None, None] / x[e, 0].size
        dw1 += np.outer(du, s)
        db1 += du
        dw2 += np.outer(dv, np.maximum(u, 0))
        db2 += dv
    return dx, dw1, db1, dw2, db2


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class SequentialSqueezeExcite(nn.Module):
    def __init__(self, channels, reduction):
        super().__init__()
        self.expand = nn.Linear(channels // reduction, channels)
        self.reduce = nn.Linear(channels, channels // reduction)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, input):
        gate = self.expand(self.reduce(self.pool(input).flatten(1)).clamp(min=0))
        return torch.einsum("nchw,nc->nchw", input, gate.sigmoid())


class FlatSqueezeExcite(nn.Module):
    def __init__(self, channels, reduction):
        super().__init__()
        hidden = channels // reduction
        self.reduce, self.expand = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.relu = nn.ReLU()

    def forward(self, x):
        n, c = x.shape[:2]
        gate = 1 / (1 + torch.exp(-self.expand(self.relu(self.reduce(x.reshape(n, c, -1).mean(-1))))))
        return x * gate.view(n, c, 1, 1)


class ListedInvertedResidual(nn.Module):
    def __init__(self, in_channels, out_channels, stride, expand_ratio):
        super().__init__()
        inner = in_channels * expand_ratio
        self.expanding = expand_ratio > 1
        self.bn3, self.bn2 = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(inner)
        self.project = nn.Conv2d(inner, out_channels, kernel_size=1, bias=False)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride=stride, padding="same" if stride == 1 else 1,
                                   groups=inner, bias=False)  # fmt: skip
        if self.expanding:
            self.expand, self.bn1 = nn.Conv2d(in_channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.act = nn.ReLU6()
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x):
        layers = [self.expand, self.bn1, self.act] if self.expanding else []
        y = nn.Sequential(*layers, self.depthwise, self.bn2, self.act, self.project, self.bn3)(x)
        return y + x if self.residual else y


class ClampedInvertedResidual(nn.Module):
    def __init__(self, in_channels, out_channels, stride, expand_ratio):
        super().__init__()
        inner = expand_ratio * in_channels
        self.expand = nn.Conv2d(in_channels, inner, 1, bias=False) if expand_ratio != 1 else None
        self.bn1 = nn.BatchNorm2d(inner) if expand_ratio != 1 else None
        self.depthwise = nn.Conv2d(inner, inner, (3, 3), (stride, stride), (1, 1), groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.project = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        y = x
        if self.expand is not None:
            y = self.bn1(self.expand(y)).clamp(0, 6)
        y = self.bn3(self.project(self.bn2(self.depthwise(y)).clamp(0, 6)))
        if x.shape == y.shape and self.depthwise.stride == (1, 1):
            y = y + x
        return y


# --- Repair and predict ----------------------------------------------------------------------------------------------


def separable_windows(x, w_depth, b_depth, w_point, b_point, stride=1):
    y = np.minimum(np.maximum(depthwise_windows(x, w_depth, b_depth, stride, 1), 0), 6)
    return pointwise_rows(y, w_point, b_point)


def separable_loops(x, w_depth, b_depth, w_point, b_point, stride=1):
    return pointwise_columns(depthwise_loops(x, w_depth, b_depth, stride, 1).clip(0, 6), w_point, b_point)


def block_by_layers(in_channels, out_channels, height, width, stride, expand_ratio):
    t = in_channels * expand_ratio
    layers = [(in_channels, t, 1, 1), (t, t, 3, t), (t, out_channels, 1, 1)][expand_ratio == 1 :]
    parameters = macs = 0
    for i, o, k, groups in layers:
        if k == 3:
            height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
        weights, _, _ = flops_by_groups(i, o, (k, k), (1, 1), groups)
        parameters += weights + o
        macs += (weights - o) * height * width
    return parameters, macs


def block_closed_form(in_channels, out_channels, height, width, stride, expand_ratio):
    inner, out = in_channels * expand_ratio, math.ceil(height / stride) * math.ceil(width / stride)
    macs = inner * (9 + out_channels) * out
    parameters = inner * (11 + out_channels) + 2 * out_channels
    if expand_ratio > 1:
        macs += in_channels * inner * height * width
        parameters += inner * (in_channels + 2)
    return [parameters, macs]


def scaling_by_logs(phi, alpha, beta, gamma):
    steps = phi * np.log([alpha, beta, gamma])
    return [*np.exp(steps), math.exp(steps @ [1, 2, 2])]


def scaling_plain(phi, alpha, beta, gamma):
    depth, width, resolution = alpha**phi, beta**phi, gamma**phi
    return depth, width, resolution, depth * width**2 * resolution**2


ALTERNATIVES = {
    "depthwise_conv2d_forward": [depthwise_loops, depthwise_windows],
    "depthwise_conv2d_backward": [depthwise_backward_loops, depthwise_backward_entries],
    "pointwise_conv2d_forward": [pointwise_rows, pointwise_columns],
    "pointwise_conv2d_backward": [pointwise_backward_rows, pointwise_backward_columns],
    "count_flops": [flops_by_groups, flops_by_output],
    "channel_shuffle": [shuffle_by_index, shuffle_by_slices],
    "channel_shuffle_backward": [shuffle_backward_by_slices, shuffle_backward_by_index],
    "squeeze_excite_forward": [excite_einsum, excite_examples],
    "squeeze_excite_backward": [excite_backward_steps, excite_backward_examples],
    "SqueezeExcite": [SequentialSqueezeExcite, FlatSqueezeExcite],
    "InvertedResidual": [ListedInvertedResidual, ClampedInvertedResidual],
    "repair_separable_forward": [separable_windows, separable_loops],
    "count_inverted_residual": [block_by_layers, block_closed_form],
    "compound_scaling": [scaling_by_logs, scaling_plain],
}
