"""Other right ways to solve the exercises of lesson 14."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# --- Transposed convolution ------------------------------------------------------------------------------------------


def paint_by_pixel(x, w, b, stride=1, padding=0):
    n, _, h, v = x.shape
    _, o, kh, kw = w.shape
    full = np.zeros((n, o, (h - 1) * stride + kh, (v - 1) * stride + kw))
    for i in range(h):
        for j in range(v):
            top, left = i * stride, j * stride
            full[:, :, top : top + kh, left : left + kw] += np.einsum("ni,iokl->nokl", x[:, :, i, j], w)
    return full[:, :, padding : full.shape[2] - padding, padding : full.shape[3] - padding] + b[:, None, None]


def paint_by_gaps(x, w, b, stride=1, padding=0):
    """Zeros between the pixels, then an ordinary convolution with the kernels turned."""
    n, i, h, v = x.shape
    kh, kw = w.shape[2:]
    apart = np.zeros((n, i, (h - 1) * stride + 1, (v - 1) * stride + 1))
    apart[:, :, ::stride, ::stride] = x
    apart = np.pad(apart, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
    seen = np.lib.stride_tricks.sliding_window_view(apart, (kh, kw), axis=(2, 3))
    y = np.einsum("niyxkl,iokl->noyx", seen, w[:, :, ::-1, ::-1])
    return y[:, :, padding : y.shape[2] - padding, padding : y.shape[3] - padding] + b.reshape(1, -1, 1, 1)


def paint_as_list(x, w, b, stride=1, padding=0):
    return paint_by_pixel(x, w, b, stride, padding).tolist()


def gather_by_pixel(dy, x, w, b, stride=1, padding=0):
    kh, kw = w.shape[2:]
    framed = np.pad(dy, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j in np.ndindex(x.shape[2:]):
        window = framed[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
        dx[:, :, i, j] = np.einsum("nokl,iokl->ni", window, w)
        dw += np.einsum("nokl,ni->iokl", window, x[:, :, i, j])
    return dx, dw, dy.sum(axis=(0, 2, 3))


def gather_by_windows(dy, x, w, b, stride=1, padding=0):
    framed = np.pad(dy, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    seen = np.lib.stride_tricks.sliding_window_view(framed, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("noyxkl,iokl->niyx", seen, w), np.einsum("noyxkl,niyx->iokl", seen, x), np.einsum("noyx->o", dy)


def size_by_painting(size, kernel_size, stride=1, padding=0, output_padding=0):
    last = max(start + kernel_size for start in range(0, size * stride, stride))
    return last - 2 * padding + output_padding


def missing_by_floor(size, kernel_size, stride=1, padding=0):
    small = (size + 2 * padding - kernel_size) // stride + 1
    return size - ((small - 1) * stride - 2 * padding + kernel_size)


# --- Interpolation ---------------------------------------------------------------------------------------------------


def nearest_index(x, scale):
    rows, columns = np.arange(x.shape[2] * scale) // scale, np.arange(x.shape[3] * scale) // scale
    return x[:, :, rows[:, None], columns]


def nearest_blocks(x, scale):
    n, c, h, w = x.shape
    return np.broadcast_to(x[:, :, :, None, :, None], (n, c, h, scale, w, scale)).reshape(n, c, h * scale, w * scale)


def nearest_backward_slices(dy, x, scale):
    dx = np.zeros_like(x)
    for a in range(scale):
        for b in range(scale):
            dx += dy[:, :, a::scale, b::scale]
    return dx


def nearest_backward_matrix(dy, x, scale):
    rows, columns = (np.eye(size).repeat(scale, axis=0) for size in x.shape[2:])
    return rows.T @ dy @ columns


def matrix_of_two(size, scale):
    out = np.arange(size * scale)
    position = np.clip((out + 0.5) / scale - 0.5, 0, size - 1)
    low = position.astype(int)
    a = np.zeros((size * scale, size))
    np.add.at(a, (out, low), 1 - (position - low))
    np.add.at(a, (out, np.minimum(low + 1, size - 1)), position - low)
    return a


def matrix_by_tents(size, scale):
    position = np.clip((np.arange(size * scale) + 0.5) / scale - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))


def matrix_by_interp(size, scale):
    position = (np.arange(size * scale) + 0.5) / scale - 0.5
    return np.stack([np.interp(position, np.arange(size), unit) for unit in np.eye(size)], axis=1)


def bilinear_einsum(x, scale):
    return np.einsum("yi,ncij,xj->ncyx", matrix_of_two(x.shape[2], scale), x, matrix_of_two(x.shape[3], scale))


def bilinear_pixels(x, scale):
    n, c, h, w = x.shape
    y = np.zeros((n, c, h * scale, w * scale))
    for i in range(h * scale):
        for j in range(w * scale):
            p, q = (min(max((k + 0.5) / scale - 0.5, 0), size - 1) for k, size in ((i, h), (j, w)))
            top, left = int(p), int(q)
            below, right = min(top + 1, h - 1), min(left + 1, w - 1)
            p, q = p - top, q - left
            upper = (1 - q) * x[:, :, top, left] + q * x[:, :, top, right]
            lower = (1 - q) * x[:, :, below, left] + q * x[:, :, below, right]
            y[:, :, i, j] = (1 - p) * upper + p * lower
    return y


def bilinear_backward_einsum(dy, x, scale):
    return np.einsum("yi,ncyx,xj->ncij", matrix_by_tents(x.shape[2], scale), dy, matrix_by_tents(x.shape[3], scale))


def bilinear_backward_scatter(dy, x, scale):
    dx = np.zeros_like(x)
    sides = []
    for size in x.shape[2:]:
        position = np.clip((np.arange(size * scale) + 0.5) / scale - 0.5, 0, size - 1)
        low = position.astype(int)
        sides.append(((low, 1 - position + low), (np.minimum(low + 1, size - 1), position - low)))
    for rows, down in sides[0]:
        for columns, across in sides[1]:
            np.add.at(dx, (slice(None), slice(None), rows[:, None], columns), dy * down[:, None] * across)
    return dx


def kernel_by_impulse(scale):
    row = matrix_by_tents(7, scale)[:, 3]
    row = row[row > 0]
    return row[:, None] * row


def kernel_by_loops(scale):
    size = 2 * scale - scale % 2
    row = [max(0.0, 1 - abs(k - (size - 1) / 2) / scale) for k in range(size)]
    return np.array([[a * b for b in row] for a in row])


# --- Pixel shuffle ---------------------------------------------------------------------------------------------------


def shuffle_slices(x, r):
    n, k, h, w = x.shape
    y = np.empty((n, k // r**2, h * r, w * r))
    for a in range(r):
        for b in range(r):
            y[:, :, a::r, b::r] = x[:, a * r + b :: r * r]
    return y


def shuffle_einsum(x, r):
    n, k, h, w = x.shape
    return np.einsum("ncabhw->nchawb", x.reshape(n, k // r**2, r, r, h, w)).reshape(n, k // r**2, h * r, w * r)


def unshuffle_slices(x, r):
    n, c, h, w = x.shape
    y = np.empty((n, c * r * r, h // r, w // r))
    for a in range(r):
        for b in range(r):
            y[:, a * r + b :: r * r] = x[:, :, a::r, b::r]
    return y


def unshuffle_stack(x, r):
    parts = [x[:, :, a::r, b::r] for a in range(r) for b in range(r)]
    y = np.stack(parts, axis=2)
    return y.reshape(len(x), -1, *y.shape[3:])


def icnr_index(base, r):
    return base[np.arange(len(base) * r * r) // (r * r)]


def icnr_broadcast(base, r):
    return np.stack([base] * (r * r), axis=1).reshape(-1, *base.shape[1:])


# --- Dice ------------------------------------------------------------------------------------------------------------


def dice_loops(probs, targets, eps=1.0):
    losses = []
    for p, t in zip(probs.reshape(-1, *probs.shape[2:]), targets.reshape(-1, *targets.shape[2:]), strict=True):
        losses.append(1 - (2 * (p * t).sum() + eps) / (p.sum() + t.sum() + eps))
    return np.mean(losses)


def dice_einsum(probs, targets, eps=1.0):
    both, area = np.einsum("ncij,ncij->nc", probs, targets), np.einsum("ncij->nc", probs + targets)
    return float(np.mean((area - 2 * both) / (area + eps)))


def dice_backward_loops(dloss, probs, targets, eps=1.0):
    dprobs = np.zeros_like(probs)
    count = probs.shape[0] * probs.shape[1]
    for i, c in np.ndindex(probs.shape[:2]):
        p, t = probs[i, c], targets[i, c]
        u, v = 2 * (p * t).sum() + eps, p.sum() + t.sum() + eps
        dprobs[i, c] = -dloss / count * (2 * t / v - u / v**2)
    return dprobs


def dice_backward_graph(dloss, probs, targets, eps=1.0):
    axes = (2, 3)
    v = probs.sum(axes) + targets.sum(axes) + eps
    u = 2 * (probs * targets).sum(axes) + eps
    ddice = -dloss / u.size * np.ones_like(u)
    du, dv = ddice / v, -ddice * u / v**2
    return 2 * targets * du[..., None, None] + dv[..., None, None]


def scores_loops(pred, target):
    dice, iou = [], []
    for p, t in zip(pred, target, strict=True):
        both, either = np.logical_and(p, t).sum(), np.logical_or(p, t).sum()
        iou.append(both / either if either else 1.0)
        dice.append(2 * both / (both + either) if either else 1.0)
    return dice, iou


def scores_from_iou(pred, target):
    both, either = (pred & target).sum((1, 2)), (pred | target).sum((1, 2))
    iou = np.where(either == 0, 1.0, both / np.maximum(either, 1))
    return 2 * iou / (1 + iou), iou


# --- U-Net -----------------------------------------------------------------------------------------------------------


class Block(nn.Sequential):
    def __init__(self, i, o):
        first, second = (nn.Conv2d(c, o, 3, padding="same", bias=False) for c in (i, o))
        super().__init__(first, nn.BatchNorm2d(o), nn.ReLU(), second, nn.BatchNorm2d(o), nn.ReLU())


class LoopingUNet(nn.Module):
    def __init__(self, in_channels, out_channels, width, depth):
        super().__init__()
        self.encoder, self.up, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        i, o = in_channels, width
        for _ in range(depth):
            self.encoder.append(Block(i, o))
            self.up.append(nn.ConvTranspose2d(2 * o, o, kernel_size=2, stride=2))
            self.decoder.append(Block(2 * o, o))
            i, o = o, 2 * o
        self.bottom, self.head = Block(i, o), nn.Conv2d(width, out_channels, kernel_size=1)

    def forward(self, x):
        kept = []
        for block in self.encoder:
            x = block(x)
            kept.append(x)
            x = F.max_pool2d(x, kernel_size=2)
        x = self.bottom(x)
        for up, decoder in zip(reversed(self.up), reversed(self.decoder), strict=True):
            skip = kept.pop()
            x = decoder(torch.cat((skip, up(x, output_size=skip.shape)), dim=1))
        return self.head(x)


class RecursiveUNet(nn.Module):
    """Each level calls the one below it; output_padding is worked out by hand."""

    def __init__(self, in_channels, out_channels, width, depth):
        super().__init__()
        c = [width << k for k in range(depth + 1)]
        self.head = nn.Conv2d(c[0], out_channels, 1)
        self.decoder = nn.ModuleList([Block(2 * o, o) for o in c[:-1]])
        self.up = nn.ModuleList([nn.ConvTranspose2d(2 * o, o, 2, 2) for o in c[:-1]])
        self.bottom = Block(c[-2], c[-1])
        self.encoder = nn.ModuleList([Block(in_channels, c[0]), *(Block(a, 2 * a) for a in c[:-2])])

    def below(self, x, k):
        if k == len(self.encoder):
            return self.bottom(x)
        skip = self.encoder[k](x)
        low, up = self.below(F.max_pool2d(skip, 2), k + 1), self.up[k]
        odd = tuple(size % 2 for size in skip.shape[-2:])
        large = F.conv_transpose2d(low, up.weight, up.bias, 2, 0, odd)
        return self.decoder[k](torch.cat([skip, large], 1))

    def forward(self, x):
        return self.head(self.below(x, 0))


ALTERNATIVES = {
    "conv_transpose2d_forward": [paint_by_pixel, paint_by_gaps, paint_as_list],
    "conv_transpose2d_backward": [gather_by_pixel, gather_by_windows],
    "conv_transpose_output_size": [
        size_by_painting,
        lambda size, kernel_size, stride=1, padding=0, output_padding=0: (
            stride * size - stride - 2 * padding + (kernel_size - 1) + output_padding + 1
        ),
    ],
    "output_padding_for": [
        missing_by_floor,
        lambda size, kernel_size, stride=1, padding=0: divmod(size + 2 * padding - kernel_size, stride)[1],
    ],
    "upsample_nearest_forward": [nearest_index, nearest_blocks, lambda x, s: np.kron(x, np.ones((s, s)))],
    "upsample_nearest_backward": [nearest_backward_slices, nearest_backward_matrix],
    "interpolation_matrix": [matrix_of_two, matrix_by_tents, matrix_by_interp],
    "upsample_bilinear_forward": [bilinear_einsum, bilinear_pixels],
    "upsample_bilinear_backward": [bilinear_backward_einsum, bilinear_backward_scatter],
    "bilinear_kernel": [kernel_by_impulse, kernel_by_loops],
    "pixel_shuffle": [shuffle_slices, shuffle_einsum],
    "pixel_unshuffle": [unshuffle_slices, unshuffle_stack],
    "icnr": [icnr_index, icnr_broadcast],
    "dice_loss_forward": [dice_loops, dice_einsum],
    "dice_loss_backward": [dice_backward_loops, dice_backward_graph],
    "overlap_scores": [scores_loops, scores_from_iou],
    "UNet": [LoopingUNet, RecursiveUNet],
    "repair_upsample_bilinear_forward": [bilinear_einsum, bilinear_pixels],
    "repair_dice_loss_forward": [dice_loops, dice_einsum],
}
