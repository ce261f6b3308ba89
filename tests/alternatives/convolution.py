"""Other right ways to solve the exercises of lesson 09."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from torch import nn

# --- Sizes -----------------------------------------------------------------------------------------------------------


def size_by_starts(size, kernel_size, stride=1, padding=0, dilation=1):
    last = size + padding - dilation * (kernel_size - 1) - 1
    if last < -padding:
        raise ValueError("the kernel is larger than the padded input")
    return len(range(-padding, last + 1, stride))


def size_by_counting(size, kernel_size, stride=1, padding=0, dilation=1):
    count, start = 0, 0
    while start + dilation * (kernel_size - 1) < size + 2 * padding:
        count, start = count + 1, start + stride
    if count == 0:
        raise ValueError
    return count


def size_floored(size, kernel_size, stride=1, padding=0, dilation=1):
    steps = (size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride
    if steps < 0:
        raise ValueError("no window fits")
    return math.floor(steps + 1)


# --- By loops --------------------------------------------------------------------------------------------------------


def forward_seven_loops(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    (n, _, h, width), (o, c, kh, kw) = x.shape, w.shape
    oh, ow = size_by_starts(h, kh, stride, padding, dilation), size_by_starts(width, kw, stride, padding, dilation)
    y = np.zeros((n, o, oh, ow))
    for m, k, i, j in np.ndindex(y.shape):
        total = b[k]
        for a, u, v in np.ndindex(c, kh, kw):
            row, column = i * stride + u * dilation - padding, j * stride + v * dilation - padding
            if 0 <= row < h and 0 <= column < width:
                total += x[m, k // (o // groups) * c + a, row, column] * w[k, a, u, v]
        y[m, k, i, j] = total
    return y


def forward_by_taps(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    around = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    (o, c, kh, kw), rows, columns = w.shape, around.shape[2], around.shape[3]
    oh = (rows - dilation * (kh - 1) - 1) // stride + 1
    ow = (columns - dilation * (kw - 1) - 1) // stride + 1
    y = np.zeros((len(x), o, oh, ow)) + b.reshape(1, -1, 1, 1)
    for g in range(groups):
        ks = slice(g * o // groups, (g + 1) * o // groups)
        for u, v in np.ndindex(kh, kw):
            part = around[:, g * c : (g + 1) * c, u * dilation :: stride, v * dilation :: stride][:, :, :oh, :ow]
            y[:, ks] += np.einsum("ncij,kc->nkij", part, w[ks, :, u, v])
    return y


def backward_seven_loops(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    o, c = w.shape[:2]
    for m, k, i, j in np.ndindex(dy.shape):
        db[k] += dy[m, k, i, j]
        for a, u, v in np.ndindex(w.shape[1:]):
            row, column = i * stride + u * dilation - padding, j * stride + v * dilation - padding
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                channel = k // (o // groups) * c + a
                dw[k, a, u, v] += dy[m, k, i, j] * x[m, channel, row, column]
                dx[m, channel, row, column] += dy[m, k, i, j] * w[k, a, u, v]
    return dx, dw, db


def backward_by_columns(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
    n, (o, i, kh, kw) = len(x), w.shape
    columns = columns_from_views(x, (kh, kw), stride, padding, dilation).reshape(n, groups, i * kh * kw, -1)
    up = dy.reshape(n, groups, o // groups, -1)
    dw = (up @ columns.swapaxes(2, 3)).sum(0).reshape(w.shape)
    dcolumns = w.reshape(groups, o // groups, -1).swapaxes(1, 2) @ up
    dx = image_by_entries(dcolumns.reshape(n, -1, up.shape[-1]), x.shape[2:], (kh, kw), stride, padding, dilation)
    return [dx, dw, dy.sum(axis=(0, 2, 3))]


def backward_full_correlation(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """dx by laying the turned kernels over dy, its rows and columns spread by the stride."""
    (n, c, h, width), (o, i, kh, kw), (oh, ow) = x.shape, w.shape, dy.shape[2:]
    span_h, span_w = dilation * (kh - 1), dilation * (kw - 1)
    spread = np.zeros((n, o, h + 2 * padding + span_h, width + 2 * padding + span_w))
    spread[:, :, span_h : span_h + stride * oh : stride, span_w : span_w + stride * ow : stride] = dy
    kernels = w[:, :, ::-1, ::-1].reshape(groups, o // groups, i, kh, kw).swapaxes(1, 2).reshape(c, o // groups, kh, kw)
    dx = forward_by_taps(spread, kernels, np.zeros(c), dilation=dilation, groups=groups)
    columns = columns_from_views(x, (kh, kw), stride, padding, dilation).reshape(n, groups, i * kh * kw, -1)
    dw = np.einsum("ngkl,ngql->gkq", dy.reshape(n, groups, o // groups, -1), columns).reshape(w.shape)
    return dx[:, :, padding : padding + h, padding : padding + width], dw, np.einsum("nkij->k", dy)


# --- By columns ------------------------------------------------------------------------------------------------------


def columns_from_views(x, kernel_size, stride=1, padding=0, dilation=1):
    around = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    spans = [dilation * (k - 1) + 1 for k in kernel_size]
    views = sliding_window_view(around, spans, axis=(2, 3))[:, :, ::stride, ::stride, ::dilation, ::dilation]
    return views.transpose(0, 1, 4, 5, 2, 3).reshape(len(x), x.shape[1] * kernel_size[0] * kernel_size[1], -1)


def columns_by_windows(x, kernel_size, stride=1, padding=0, dilation=1):
    (n, c, h, w), (kh, kw) = x.shape, kernel_size
    around = np.zeros((n, c, h + 2 * padding, w + 2 * padding))
    around[:, :, padding : padding + h, padding : padding + w] = x
    windows = []
    for i in range(0, around.shape[2] - dilation * (kh - 1), stride):
        for j in range(0, around.shape[3] - dilation * (kw - 1), stride):
            cells = around[:, :, i : i + dilation * kh : dilation, j : j + dilation * kw : dilation]
            windows.append(cells[:, :, :kh, :kw].reshape(n, -1))
    return np.stack(windows, axis=2)


def columns_by_index(x, kernel_size, stride=1, padding=0, dilation=1):
    around = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    oh, ow = (size_floored(s, k, stride, padding, dilation) for s, k in zip(x.shape[2:], kernel_size, strict=True))
    rows = dilation * np.arange(kernel_size[0])[:, None, None, None] + stride * np.arange(oh)[:, None]
    columns = dilation * np.arange(kernel_size[1])[:, None, None] + stride * np.arange(ow)
    return around[:, :, rows, columns].reshape(len(x), -1, oh * ow)


def image_by_entries(columns, size, kernel_size, stride=1, padding=0, dilation=1):
    (h, w), (kh, kw) = size, kernel_size
    ow = size_floored(w, kw, stride, padding, dilation)
    x = np.zeros((len(columns), columns.shape[1] // (kh * kw), h, w))
    for q in range(columns.shape[1]):
        c, u, v = np.unravel_index(q, (x.shape[1], kh, kw))
        for place in range(columns.shape[2]):
            row = place // ow * stride + u * dilation - padding
            column = place % ow * stride + v * dilation - padding
            if 0 <= row < h and 0 <= column < w:
                x[:, c, row, column] += columns[:, q, place]
    return x


def image_add_at(columns, size, kernel_size, stride=1, padding=0, dilation=1):
    (h, w), (kh, kw), n = size, kernel_size, len(columns)
    c = columns.shape[1] // (kh * kw)
    numbers = np.arange(c * h * w, dtype=float).reshape(1, c, h, w) + 1
    cells = columns_from_views(numbers, kernel_size, stride, padding, dilation)[0].astype(int)
    x = np.zeros((n, c * h * w + 1))
    np.add.at(x, (slice(None), cells), columns)
    return x[:, 1:].reshape(n, c, h, w)


def fast_from_columns(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    n, (o, i, kh, kw) = len(x), w.shape
    columns = columns_by_index(x, (kh, kw), stride, padding, dilation)
    y = w.reshape(groups, o // groups, -1) @ columns.reshape(n, groups, i * kh * kw, -1)
    oh = size_floored(x.shape[2], kh, stride, padding, dilation)
    return y.reshape(n, o, oh, -1) + b[:, None, None]


def fast_tensordot(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    around = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    spans = [dilation * (k - 1) + 1 for k in w.shape[2:]]
    views = sliding_window_view(around, spans, axis=(2, 3))[:, :, ::stride, ::stride, ::dilation, ::dilation]
    pairs = zip(np.split(views, groups, axis=1), np.split(w, groups), strict=True)
    parts = [np.tensordot(view, kernels, axes=((1, 4, 5), (1, 2, 3))) for view, kernels in pairs]
    return (np.concatenate(parts, axis=-1) + b).transpose(0, 3, 1, 2)


def fast_strided(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    (n, _, h, width), (o, i, kh, kw) = x.shape, w.shape
    oh, ow = size_floored(h, kh, stride, padding, dilation), size_floored(width, kw, stride, padding, dilation)
    around = np.zeros((n, groups, i, h + 2 * padding, width + 2 * padding))
    around[..., padding : padding + h, padding : padding + width] = x.reshape(n, groups, i, h, width)
    *outer, row, column = around.strides
    strides = (*outer, dilation * row, dilation * column, stride * row, stride * column)
    views = as_strided(around, (n, groups, i, kh, kw, oh, ow), strides)
    kernels = w.reshape(groups, o // groups, i, kh, kw)
    return np.einsum("ngcuvij,gkcuv->ngkij", views, kernels).reshape(n, o, oh, ow) + b.reshape(-1, 1, 1)


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class UnfoldingConv2d(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        self.kernel = tuple(int(k) for k in np.broadcast_to(kernel_size, 2))
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel).uniform_(-0.1, 0.1))
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_channels))
        else:
            self.register_parameter("bias", None)
        self.how, self.groups = dict(stride=stride, padding=padding, dilation=dilation), groups

    def forward(self, x):
        n, o, g = len(x), len(self.weight), self.groups
        columns = F.unfold(x, self.kernel, **self.how).reshape(n, g, -1, F.unfold(x, self.kernel, **self.how).shape[-1])
        y = torch.einsum("gkq,ngql->ngkl", self.weight.reshape(g, o // g, -1), columns).reshape(n, o, -1)
        if self.bias is not None:
            y = y + self.bias.unsqueeze(1)
        return y.unflatten(2, (size_floored(x.shape[2], self.kernel[0], **self.how), -1))


class TapwiseConv2d(nn.Module):
    """Slices and sums, no columns."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        kh, kw = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels // groups, kh, kw) / (kh * kw))
        self.bias = nn.Parameter(torch.randn(out_channels)) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x):
        s, p, d = self.stride, self.padding, self.dilation
        (o, i, kh, kw), around = self.weight.shape, F.pad(x, (p, p, p, p))
        oh, ow = ((around.shape[a] - d * (k - 1) - 1) // s + 1 for a, k in ((2, kh), (3, kw)))
        parts = []
        for g in range(self.groups):
            kernels, y = self.weight[g * o // self.groups : (g + 1) * o // self.groups], 0
            for u in range(kh):
                for v in range(kw):
                    part = around[:, g * i : (g + 1) * i, u * d :: s, v * d :: s][..., :oh, :ow]
                    y = y + torch.einsum("ncij,kc->nkij", part, kernels[:, :, u, v])
            parts.append(y)
        y = torch.cat(parts, dim=1)
        return y if self.bias is None else y + self.bias[:, None, None]


# --- Repair and predict ----------------------------------------------------------------------------------------------


def repaired_stack(x, w, b, stride=1, padding=0):
    return fast_from_columns(x, w, b, stride, padding)


def repaired_rows(x, w, b, stride=1, padding=0):
    """As it stands in the lesson, with windows as rows."""
    kh, kw = w.shape[2:]
    around = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(around, (kh, kw), axis=(2, 3))[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    n, oh, ow = windows.shape[:3]
    rows = windows.reshape(n * oh * ow, -1) @ w.reshape(len(w), -1).T + b
    return rows.reshape(n, oh, ow, -1).transpose(0, 3, 1, 2)


def counts_by_shapes(in_channels, out_channels, kh, kw, groups, h, w):
    outputs = out_channels * len(range(h - kh + 1)) * len(range(w - kw + 1))
    shared = np.prod((out_channels, in_channels // groups, kh, kw)) + out_channels
    return shared, (in_channels * h * w + 1) * outputs


def counts_by_kernel(in_channels, out_channels, kh, kw, groups, h, w):
    per_kernel = in_channels / groups * kh * kw + 1
    oh, ow = size_floored(h, kh), size_floored(w, kw)
    return [per_kernel * out_channels, (out_channels * oh * ow) * (in_channels * h * w) + out_channels * oh * ow]


ALTERNATIVES = {
    "conv_output_size": [size_by_starts, size_by_counting, size_floored],
    "conv2d_forward": [forward_seven_loops, forward_by_taps],
    "conv2d_backward": [backward_seven_loops, backward_by_columns, backward_full_correlation],
    "im2col": [columns_from_views, columns_by_windows, columns_by_index],
    "col2im": [image_by_entries, image_add_at],
    "conv2d_forward_fast": [fast_from_columns, fast_tensordot, fast_strided],
    "Conv2d": [UnfoldingConv2d, TapwiseConv2d],
    "repair_conv2d_forward": [repaired_stack, repaired_rows],
    "count_conv_parameters": [counts_by_shapes, counts_by_kernel],
}
