"""Other right ways to solve the exercises of lesson 12."""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def relu(x):
    return x * (x > 0)


def offsets(x, size, stride):
    """For each offset of the kernel: its place, and where the windows of a "same" convolution meet padded x there."""
    p = size // 2
    padded = np.zeros((*x.shape[:2], x.shape[2] + 2 * p, x.shape[3] + 2 * p))
    padded[:, :, p : p + x.shape[2], p : p + x.shape[3]] = x
    oh, ow = (-(-side // stride) for side in x.shape[2:])
    for i in range(size):
        for j in range(size):
            yield i, j, padded[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride], padded


def conv(x, w, b, stride=1):
    y = sum(np.einsum("oc,nchw->nohw", w[:, :, i, j], part) for i, j, part, _ in offsets(x, w.shape[2], stride))
    return y + b.reshape(1, -1, 1, 1)


def conv_back(dy, x, w, stride=1):
    """dx, dw, db: one place of the input after the other."""
    p, dw, dx = w.shape[2] // 2, np.zeros_like(w), np.zeros_like(x)
    for i, j, part, _ in offsets(x, w.shape[2], stride):
        dw[:, :, i, j] = np.tensordot(dy, part, axes=((0, 2, 3), (0, 2, 3)))
    for a, b in np.ndindex(dy.shape[2:]):
        for i, j in np.ndindex(w.shape[2:]):
            row, column = a * stride + i - p, b * stride + j - p
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                dx[:, :, row, column] += dy[:, :, a, b] @ w[:, :, i, j]
    return dx, dw, dy.sum(axis=(0, 2, 3))


# --- Identity and projection -----------------------------------------------------------------------------------------


def residual_where(x, w1, b1, w2, b2):
    y = conv(np.where(conv(x, w1, b1) < 0, 0, conv(x, w1, b1)), w2, b2)
    y += x
    y[y < 0] = 0
    return y


def residual_examples(x, w1, b1, w2, b2):
    rows = [x[k : k + 1] for k in range(len(x))]
    return np.concatenate([np.maximum(row + conv(relu(conv(row, w1, b1)), w2, b2), 0) for row in rows])


def projection_each(x, w1, b1, w2, b2, w_s, b_s, stride=1):
    kept = x[:, :, ::stride, ::stride]
    short = np.einsum("oc,nchw->nohw", w_s[:, :, 0, 0], kept) + b_s[:, None, None]
    return relu(short + conv(relu(conv(x, w1, b1, stride)), w2, b2))


def projection_rows(x, w1, b1, w2, b2, w_s, b_s, stride=1):
    kept = x.transpose(0, 2, 3, 1)[:, ::stride, ::stride]
    short = (kept @ w_s[:, :, 0, 0].T + b_s).transpose(0, 3, 1, 2)
    return np.maximum(0, conv(np.maximum(0, conv(x, w1, b1, stride)), w2, b2) + short)


def residual_backward_steps(dy, x, w1, b1, w2, b2):
    z = conv(x, w1, b1)
    g = np.where(x + conv(relu(z), w2, b2) > 0, dy, 0)
    dh, dw2, db2 = conv_back(g, relu(z), w2)
    dx, dw1, db1 = conv_back(np.where(z > 0, dh, 0), x, w1)
    dx += g
    return [dx, dw1, db1, dw2, db2]


def residual_backward_output(dy, x, w1, b1, w2, b2):
    """The mask of the last relu read off its output."""
    g = dy * (residual_where(x, w1, b1, w2, b2) > 0)
    h = relu(conv(x, w1, b1))
    dh, dw2, db2 = conv_back(g, h, w2)
    through, dw1, db1 = conv_back(dh * np.sign(h), x, w1)
    return g + through, dw1, db1, dw2, db2


def projection_backward_steps(dy, x, w1, b1, w2, b2, w_s, b_s, stride=1):
    z = conv(x, w1, b1, stride)
    g = dy * (projection_each(x, w1, b1, w2, b2, w_s, b_s, stride) > 0)
    dh, dw2, db2 = conv_back(g, relu(z), w2)
    dx, dw1, db1 = conv_back(dh * (z > 0), x, w1, stride)
    along, dw_s, db_s = conv_back(g, x, w_s, stride)
    return dx + along, dw1, db1, dw2, db2, dw_s, db_s


def projection_backward_strided(dy, x, w1, b1, w2, b2, w_s, b_s, stride=1):
    z, kept = conv(x, w1, b1, stride), x[:, :, ::stride, ::stride]
    g = dy * (conv(kept, w_s, b_s) + conv(relu(z), w2, b2) > 0)
    dh, dw2, db2 = conv_back(g, relu(z), w2)
    dx, dw1, db1 = conv_back(dh * (z > 0), x, w1, stride)
    dx[:, :, ::stride, ::stride] += np.einsum("nohw,oc->nchw", g, w_s[:, :, 0, 0])
    dw_s = np.einsum("nohw,nchw->oc", g, kept)[:, :, None, None]
    return dx, dw1, db1, dw2, db2, dw_s, db2.copy()


# --- Pre-activation --------------------------------------------------------------------------------------------------


def preactivation_steps(x, w1, b1, w2, b2):
    h = conv(np.maximum(x, 0), w1, b1)
    np.maximum(h, 0, out=h)
    return x + conv(h, w2, b2)


def preactivation_zeros(x, w1, b1, w2, b2):
    """Over zeros as the start of a sum."""
    y = np.zeros_like(x)
    for part in (x, conv(relu(conv(relu(x), w1, b1)), w2, b2)):
        y += part
    return y


def preactivation_backward_steps(dy, x, w1, b1, w2, b2):
    r = relu(x)
    z = conv(r, w1, b1)
    dh, dw2, db2 = conv_back(dy, relu(z), w2)
    dr, dw1, db1 = conv_back(np.where(z > 0, dh, 0), r, w1)
    return dy + np.where(x > 0, dr, 0), dw1, db1, dw2, db2


def preactivation_backward_added(dy, x, w1, b1, w2, b2):
    z, dx = conv(relu(x), w1, b1), dy.copy()
    dz, dw2, db2 = conv_back(dy, relu(z), w2)
    dz[z <= 0] = 0
    dr, dw1, db1 = conv_back(dz, relu(x), w1)
    dx[x > 0] += dr[x > 0]
    return dx, dw1, db1, dw2, db2


# --- Dense -----------------------------------------------------------------------------------------------------------


def dense_filled(x, w, b):
    (n, c, height, width), g = x.shape, len(b)
    y = np.empty((n, c + g, height, width))
    y[:, :c], y[:, c:] = x, conv(relu(x), w, b)
    return y


def dense_swapped(x, w, b):
    return np.vstack([x.swapaxes(0, 1), conv(relu(x), w, b).swapaxes(0, 1)]).swapaxes(0, 1)


def dense_backward_split(dy, x, w, b):
    kept, new = np.split(dy, [x.shape[1]], axis=1)
    dr, dw, db = conv_back(new, relu(x), w)
    return kept + dr * (x > 0), dw, db


def dense_backward_added(dy, x, w, b):
    dx = dy[:, : -len(b)].copy()
    dr, dw, db = conv_back(dy[:, -len(b) :], np.maximum(x, 0), w)
    dx += np.where(x > 0, dr, 0)
    return dx, dw, db


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class FunctionalBlock(nn.Module):
    """The shortcut is nn.Identity where nothing changes; convolutions called by function."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.shortcut = nn.Identity()
        if in_channels != out_channels or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.bn2, self.bn1 = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, (3, 3), padding=(1, 1), bias=False)
        self.conv1 = nn.Conv2d(in_channels, out_channels, (3, 3), padding=(1, 1), bias=False)
        self.stride = stride

    def forward(self, x):
        y = F.relu(self.bn1(F.conv2d(x, self.conv1.weight, None, self.stride, 1)))
        return torch.clamp(self.shortcut(x) + self.bn2(F.conv2d(y, self.conv2.weight, padding=1)), min=0)


class InPlaceBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        layers = [nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)]
        self.shortcut = nn.Sequential(*(layers if (in_channels, 1) != (out_channels, stride) else []))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class ListedDense(nn.Module):
    """Keeps all features in a list and joins them anew for each layer."""

    def __init__(self, in_channels, growth_rate, num_layers):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(num_layers):
            self.norms.append(nn.BatchNorm2d(in_channels))
            self.convs.append(nn.Conv2d(in_channels, growth_rate, 3, padding=1, bias=False))
            in_channels += growth_rate

    def forward(self, x):
        features = [x]
        for norm, conv_ in zip(self.norms, self.convs, strict=True):
            features.append(conv_(F.relu(norm(torch.cat(features, 1)))))
        return torch.cat(features, 1)


class FilledDense(ListedDense):
    """Writes into one large tensor."""

    def forward(self, x):
        width, growth = x.shape[1], self.convs[0].out_channels
        y = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, growth * len(self.convs)))
        for norm, conv_ in zip(self.norms, self.convs, strict=True):
            new = conv_(F.relu(norm(y[:, :width])))
            y = torch.cat([y[:, :width], new, y[:, width + growth :]], 1)
            width += growth
        return y


# --- Repair and predict ----------------------------------------------------------------------------------------------


def shortcut_filled(x, out_channels, stride=1):
    n, c, h, w = x.shape
    y = np.zeros((n, out_channels, math.ceil(h / stride), math.ceil(w / stride)))
    y[:, :c] = x[:, :, ::stride, ::stride]
    return y


def shortcut_joined(x, out_channels, stride=1):
    kept = x[:, :, range(0, x.shape[2], stride)][..., range(0, x.shape[3], stride)]
    return np.concatenate([kept, np.zeros_like(kept[:, :1]).repeat(out_channels - x.shape[1], axis=1)], axis=1)


def parameters_by_part(in_channels, out_channels, stride):
    norm = 2 * out_channels
    branch = out_channels * 9 * (in_channels + out_channels) + 2 * norm
    same = stride == 1 and in_channels == out_channels
    return branch, 0 if same else out_channels * in_channels + norm


def parameters_listed(in_channels, out_channels, stride):
    shapes = [(out_channels, in_channels, 3, 3), (out_channels, out_channels, 3, 3), *[(out_channels,)] * 4]
    extra = [(out_channels, in_channels), (out_channels,), (out_channels,)]
    needed = stride > 1 or out_channels != in_channels
    return [sum(map(math.prod, shapes)), sum(map(math.prod, extra)) if needed else 0]


def paths_by_triangle(blocks, length):
    row = [1]
    for _ in range(blocks):
        row = [1, *(a + b for a, b in pairwise(row)), 1]
    return row[length]


def channels_by_loop(in_channels, growth_rate, num_layers):
    seen = []
    for _ in range(num_layers):
        seen.append(in_channels)
        in_channels += growth_rate
    return in_channels, seen[-1]


ALTERNATIVES = {
    "residual_forward": [residual_where, residual_examples],
    "residual_backward": [residual_backward_steps, residual_backward_output],
    "residual_projection_forward": [projection_each, projection_rows],
    "residual_projection_backward": [projection_backward_steps, projection_backward_strided],
    "preactivation_forward": [preactivation_steps, preactivation_zeros],
    "preactivation_backward": [preactivation_backward_steps, preactivation_backward_added],
    "dense_layer_forward": [dense_filled, dense_swapped],
    "dense_layer_backward": [dense_backward_split, dense_backward_added],
    "ResidualBlock": [FunctionalBlock, InPlaceBlock],
    "DenseBlock": [ListedDense, FilledDense],
    "repair_preactivation_forward": [preactivation_steps, preactivation_zeros],
    "repair_shortcut_forward": [shortcut_filled, shortcut_joined],
    "count_block_parameters": [parameters_by_part, parameters_listed],
    "count_paths": [paths_by_triangle, math.comb],
    "dense_channels": [
        channels_by_loop,
        lambda i, g, layers: (i + g * layers, i + g * layers - g),
    ],
}
