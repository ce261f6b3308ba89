"""Other right ways to solve the exercises of lesson 10."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# --- Max pooling -----------------------------------------------------------------------------------------------------


def pair(value):
    return (value, value) if np.ndim(value) == 0 else tuple(value)


def max_seven_loops(x, kernel_size, stride=None, padding=0):
    """Every window's numbers one by one, and the padding never touched."""
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)
    n, c, h, w = x.shape
    y = np.full((n, c, (h + 2 * padding - kh) // sh + 1, (w + 2 * padding - kw) // sw + 1), -np.inf)
    for b, channel, i, j in np.ndindex(y.shape):
        for a, d in np.ndindex(kh, kw):
            row, column = i * sh + a - padding, j * sw + d - padding
            if 0 <= row < h and 0 <= column < w:
                y[b, channel, i, j] = max(y[b, channel, i, j], x[b, channel, row, column])
    return y


def max_sliding(x, kernel_size, stride=None, padding=0):
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (2, 3))[:, :, ::sh, ::sw].max((-1, -2)).tolist()


def max_by_offset(x, kernel_size, stride=None, padding=0):
    """The maximum of kh · kw strided pictures."""
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=-np.inf)
    oh, ow = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    views = [x[:, :, i : i + sh * oh : sh, j : j + sw * ow : sw][:, :, :oh, :ow] for i, j in np.ndindex(kh, kw)]
    return np.stack(views).max(axis=0)


def max_backward_loops(dy, x, kernel_size, stride=None, padding=0):
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)
    dx, (h, w) = np.zeros_like(x), x.shape[2:]
    for b, channel, i, j in np.ndindex(dy.shape):
        best, where = -math.inf, None
        for row in range(max(0, i * sh - padding), min(h, i * sh - padding + kh)):
            for column in range(max(0, j * sw - padding), min(w, j * sw - padding + kw)):
                if x[b, channel, row, column] > best:
                    best, where = x[b, channel, row, column], (row, column)
        dx[(b, channel, *where)] += dy[b, channel, i, j]
    return dx


def max_backward_add_at(dy, x, kernel_size, stride=None, padding=0):
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)
    wide = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=-np.inf)
    v = np.lib.stride_tricks.sliding_window_view(wide, (kh, kw), (2, 3))[:, :, ::sh, ::sw]
    row, column = np.divmod(v.reshape(*v.shape[:4], -1).argmax(-1), kw)
    b, channel, i, j = np.indices(dy.shape)
    dx = np.zeros(wide.shape)
    np.add.at(dx, (b, channel, i * sh + row, j * sw + column), dy)
    return dx[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]]


# --- Average pooling -------------------------------------------------------------------------------------------------


def avg_clipped(x, kernel_size, stride=None, padding=0, count_include_pad=True):
    """Windows cut off at the border, and divided by what they should have been."""
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)
    n, c, h, w = x.shape
    y = np.zeros((n, c, (h + 2 * padding - kh) // sh + 1, (w + 2 * padding - kw) // sw + 1))
    for i, j in np.ndindex(y.shape[2:]):
        top, left = i * sh - padding, j * sw - padding
        window = x[:, :, max(top, 0) : top + kh, max(left, 0) : left + kw]
        y[:, :, i, j] = window.sum((2, 3)) / (kh * kw if count_include_pad else window[0, 0].size)
    return y


def avg_sliding(x, kernel_size, stride=None, padding=0, count_include_pad=True):
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)

    def sums(image):
        wide = np.pad(image, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
        return np.lib.stride_tricks.sliding_window_view(wide, (kh, kw), (2, 3))[:, :, ::sh, ::sw].sum((-1, -2))

    return sums(x) / (kh * kw if count_include_pad else sums(np.ones_like(x)))


def avg_backward_clipped(dy, x, kernel_size, stride=None, padding=0, count_include_pad=True):
    (kh, kw), (sh, sw) = pair(kernel_size), pair(kernel_size if stride is None else stride)
    dx = np.zeros_like(x)
    for i, j in np.ndindex(dy.shape[2:]):
        top, left = i * sh - padding, j * sw - padding
        window = dx[:, :, max(top, 0) : top + kh, max(left, 0) : left + kw]
        window += dy[:, :, i, j, None, None] / (kh * kw if count_include_pad else window[0, 0].size)
    return dx


def avg_backward_matrix(dy, x, kernel_size, stride=None, padding=0, count_include_pad=True):
    """The pool is linear: its transposed matrix, column by column from pictures with a single 1."""
    h, w = x.shape[2:]
    pixels = np.eye(h * w).reshape(h * w, 1, h, w)
    columns = avg_sliding(pixels, kernel_size, stride, padding, count_include_pad)
    return np.einsum("pij,ncij->ncp", columns[:, 0], dy).reshape(x.shape)


# --- Adaptive pooling ------------------------------------------------------------------------------------------------


def averaging(size, parts):
    """The matrix (parts, size) that averages an axis."""
    matrix = np.zeros((parts, size))
    for i in range(parts):
        start, end = math.floor(i * size / parts), math.ceil((i + 1) * size / parts)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def adaptive_matrices(x, output_size):
    (h, w), (oh, ow) = x.shape[2:], pair(output_size)
    return averaging(h, oh) @ x @ averaging(w, ow).T


def adaptive_loops(x, output_size):
    (n, c, h, w), (oh, ow) = x.shape, pair(output_size)
    y = np.empty((n, c, oh, ow))
    for i, j in np.ndindex(oh, ow):
        rows, columns = slice(i * h // oh, (i * h + h + oh - 1) // oh), slice(j * w // ow, (j * w + w + ow - 1) // ow)
        y[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return y


def adaptive_backward_matrices(dy, x, output_size):
    (h, w), (oh, ow) = x.shape[2:], pair(output_size)
    return np.einsum("ah,ncab,bw->nchw", averaging(h, oh), dy, averaging(w, ow))


def adaptive_backward_loops(dy, x, output_size):
    (h, w), (oh, ow), dx = x.shape[2:], pair(output_size), np.zeros_like(x)
    for i, j in np.ndindex(oh, ow):
        window = dx[:, :, i * h // oh : -(-(i + 1) * h // oh), j * w // ow : -(-(j + 1) * w // ow)]
        window += dy[:, :, i : i + 1, j : j + 1] / window[0, 0].size
    return dx


# --- Sizes and receptive fields --------------------------------------------------------------------------------------


def output_size_by_counting(size, kernel_size, stride=None, padding=0, ceil_mode=False):
    stride, starts = stride or kernel_size, 0
    start = -padding
    while start + kernel_size <= size + padding:
        starts, start = starts + 1, start + stride
    left_over = start - stride + kernel_size < size + padding
    return starts + (ceil_mode and left_over and start < size)


def output_size_formula(size, kernel_size, stride=None, padding=0, ceil_mode=False):
    stride = kernel_size if stride is None else stride
    steps, rest = divmod(size + 2 * padding - kernel_size, stride)
    steps += bool(ceil_mode and rest)
    return steps + 1 if steps * stride < size + padding else steps


def field_by_sets(layers):
    """Which pixels two neighbouring outputs see, layer by layer down to the image."""
    fields = []
    for start in (0, 1):
        seen = {start}
        for kernel_size, stride, *rest in reversed(layers):
            dilation = rest[0] if rest else 1
            seen = {place * stride + tap * dilation for place in seen for tap in range(kernel_size)}
        fields.append(seen)
    return max(fields[0]) - min(fields[0]) + 1, min(fields[1]) - min(fields[0])


def field_from_the_top(layers):
    size = jump = 1
    for layer in layers[::-1]:
        kernel_size, stride, dilation = (*layer, 1)[:3]
        size, jump = (size - 1) * stride + dilation * (kernel_size - 1) + 1, jump * stride
    return size, jump


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class SlidingMaxPool2d(nn.Module):
    """Tensor.unfold, which cuts windows along one axis."""

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel, self.padding = pair(kernel_size), padding
        self.stride = self.kernel if stride is None else pair(stride)

    def forward(self, x):
        x = F.pad(x, [self.padding] * 4, value=float("-inf"))
        for axis in (0, 1):
            x = x.unfold(2 + axis, self.kernel[axis], self.stride[axis])
        return x.flatten(4).max(-1)[0]


class GatheredMaxPool2d(nn.Module):
    """The position of the maximum without a graph, then the number that stands there."""

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel_size, self.padding = pair(kernel_size), padding
        self.stride = pair(stride if stride is not None else kernel_size)

    def forward(self, x):
        p, (kh, kw), (sh, sw) = self.padding, self.kernel_size, self.stride
        wide = F.pad(x, (p, p, p, p), value=-torch.inf)
        rows, columns = (wide.shape[2] - kh) // sh + 1, (wide.shape[3] - kw) // sw + 1
        places = [
            wide[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw].flatten(2)
            for i in range(rows)
            for j in range(columns)
        ]
        stacked = torch.stack(places, 2)
        first = stacked.detach().argmax(-1, keepdim=True)
        return stacked.gather(-1, first)[..., 0].reshape(*x.shape[:2], rows, columns)


class SeparableBlurPool2d(nn.Module):
    """The sum of nine strided pictures."""

    def __init__(self, channels, stride=2):
        super().__init__()
        self.stride = stride
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", (line[:, None] * line).expand(channels, 1, 3, 3).clone())

    def forward(self, x):
        h, w = x.shape[2:]
        wide = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return sum(
            self.kernel[:, 0, i, j, None, None] * wide[:, :, i : i + h : self.stride, j : j + w : self.stride]
            for i in range(3)
            for j in range(3)
        )


class PlaneBlurPool2d(nn.Module):
    """Every channel an image of its own."""

    def __init__(self, channels, stride=2):
        super().__init__()
        self.stride = stride
        square = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        self.register_buffer("kernel", torch.stack([square[None]] * channels))

    def forward(self, x):
        wide = nn.ReflectionPad2d(1)(x)
        planes = [F.conv2d(wide[:, k : k + 1], self.kernel[k : k + 1]) for k in range(x.shape[1])]
        return torch.cat(planes, 1)[:, :, :: self.stride, :: self.stride]


# --- Repair ----------------------------------------------------------------------------------------------------------


def repaired_by_blocks(dy, x, kernel_size):
    n, c, h, w = x.shape
    k = kernel_size
    flat = x.reshape(n, c, h // k, k, w // k, k).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // k, w // k, k * k)
    chosen = np.zeros_like(flat)
    np.put_along_axis(chosen, flat.argmax(-1)[..., None], dy[..., None], -1)
    return chosen.reshape(n, c, h // k, w // k, k, k).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)


def repaired_by_the_general_one(dy, x, kernel_size):
    return max_backward_add_at(dy, x, kernel_size)


ALTERNATIVES = {
    "max_pool2d_forward": [max_seven_loops, max_sliding, max_by_offset],
    "max_pool2d_backward": [max_backward_loops, max_backward_add_at],
    "avg_pool2d_forward": [avg_clipped, avg_sliding],
    "avg_pool2d_backward": [avg_backward_clipped, avg_backward_matrix],
    "adaptive_avg_pool2d_forward": [adaptive_matrices, adaptive_loops],
    "adaptive_avg_pool2d_backward": [adaptive_backward_matrices, adaptive_backward_loops],
    "pool_output_size": [output_size_by_counting, output_size_formula],
    "receptive_field": [field_by_sets, field_from_the_top],
    "MaxPool2d": [SlidingMaxPool2d, GatheredMaxPool2d],
    "BlurPool2d": [SeparableBlurPool2d, PlaneBlurPool2d],
    "repair_max_pool2d_backward": [repaired_by_blocks, repaired_by_the_general_one],
}
