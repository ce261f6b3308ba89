"""Lesson 14: transposed convolution, interpolation, pixel shuffle, the Dice loss and U-Net."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of

# --- Transposed convolution ------------------------------------------------------------------------------------------

PAINTED = [
    dict(n=2, i=3, o=4, ih=5, iw=6, kh=5, kw=2),
    dict(n=2, i=2, o=3, ih=4, iw=3, kh=3, kw=4, stride=2, padding=1),
    dict(n=2, i=3, o=2, ih=3, iw=2, kh=2, kw=1, stride=3),
    dict(n=3, i=3, o=3, ih=2, iw=4, kh=5, kw=4, padding=1),
    dict(n=1, i=2, o=2, ih=1, iw=1, kh=4, kw=3, stride=2, padding=1),
    dict(n=2, i=2, o=1, ih=3, iw=4, kh=4, kw=5, stride=3, padding=1),
    dict(n=1, i=1, o=1, ih=1, iw=1, kh=1, kw=1, stride=2),
]


# What the wrong implementations below are made of.


def flipped(w):
    return w[:, :, ::-1, ::-1]


def canvas(x, w, stride):
    n, _, h, v = x.shape
    _, o, kh, kw = w.shape
    return np.zeros((n, o, (h - 1) * stride + kh, (v - 1) * stride + kw))


def cropped(full, padding, end=None):
    """Without `padding` rows and columns at the start, and `end` at the end."""
    end = padding if end is None else end
    return full[:, :, padding : full.shape[2] - end, padding : full.shape[3] - end]


def painted(x, w, stride, patch=np.add, extra=0.0):
    """The canvas with every pixel's patch on it, put there by `patch`."""
    full, (kh, kw) = canvas(x, w, stride), w.shape[2:]
    for i, j in np.ndindex(x.shape[2:]):
        at = (..., slice(i * stride, i * stride + kh), slice(j * stride, j * stride + kw))
        full[at] = patch(full[at], np.einsum("ni,iokl->nokl", x[:, :, i, j], w) + extra)
    return full


def last(old, new):
    return new


def overwritten_by_offset(x, w, stride):
    """One kernel entry after the other, each written over what was there."""
    full, (h, v) = canvas(x, w, stride), x.shape[2:]
    for k, m in np.ndindex(w.shape[2:]):
        at = (..., slice(k, k + stride * h, stride), slice(m, m + stride * v, stride))
        full[at] = np.einsum("niyx,io->noyx", x, w[:, :, k, m])
    return full


def with_zeros_at_the_end(x, w, stride):
    """Zeros are put after every pixel, the last one included."""
    full = painted(x, w, stride)
    return np.pad(full, ((0, 0), (0, 0), (0, stride - 1), (0, stride - 1)))


def crowded(x, w, stride):
    """The patches one cell apart, in the corner of a canvas of the right size."""
    full, near = canvas(x, w, stride), painted(x, w, 1)
    full[:, :, : near.shape[2], : near.shape[3]] = near
    return full


def with_bias(y, b):
    return y + b[:, None, None]


@exercise(
    points=4, minutes=20, difficulty=2, cases=PAINTED,
    hints=(
        "Start from a canvas of zeros of the full size, (h - 1) · stride + kh by (w - 1) · stride + kw. Where on it is "
        "the upper left corner of the patch that pixel (i, j) paints?",
        "At (i · stride, j · stride). The patches of pixel (i, j), one for each example and output channel, are a "
        "linear layer of its C_in numbers: `x[:, :, i, j] @ w.reshape(c, -1)`, reshaped to (n, C_out, kh, kw).",
        "Patches overlap: add each to the canvas with +=. When all are painted, padding crops that many rows and "
        "columns from each side: `full[:, :, p : full.shape[2] - p, p : full.shape[3] - p]`. Then add the bias, once.",
    ),
    mistakes={
        "y lacks the bias: after the last patch every pixel of output channel o gets b[o].":
            lambda x, w, b, stride=1, padding=0: cropped(painted(x, w, stride), padding),
        "y ignores stride: neighbouring pixels paint their patches `stride` apart.":
            lambda x, w, b, stride=1, padding=0: with_bias(cropped(painted(x, w, 1), padding), b),
        "y has a canvas of the right size, but its patches start one cell apart. That of pixel (i, j) starts at "
        "(i · stride, j · stride).":
            lambda x, w, b, stride=1, padding=0: with_bias(cropped(crowded(x, w, stride), padding), b),
        "y ignores padding. Here padding takes rows and columns away: it crops the canvas at each side.":
            lambda x, w, b, stride=1, padding=0: with_bias(painted(x, w, stride), b),
        "y has padding added around it. In a transposed convolution padding means the padding of the convolution that "
        "is undone: it crops.":
            lambda x, w, b, stride=1, padding=0: with_bias(
                np.pad(painted(x, w, stride), ((0, 0), (0, 0), (padding, padding), (padding, padding))), b),
        "y is cropped at the end only. Padding takes as many rows and columns away at the start.":
            lambda x, w, b, stride=1, padding=0: with_bias(cropped(painted(x, w, stride), 0, 2 * padding), b),
        "y keeps only the last patch where patches overlap. They are added: += in place of =.":
            lambda x, w, b, stride=1, padding=0: with_bias(cropped(painted(x, w, stride, last), padding), b),
        "y keeps only what the last kernel entry brought to a pixel. All that reach it are added: += in place of =.":
            lambda x, w, b, stride=1, padding=0: with_bias(cropped(overwritten_by_offset(x, w, stride), padding), b),
        "y has its kernels turned by 180 degrees. A pixel paints w as it stands.":
            lambda x, w, b, stride=1, padding=0: with_bias(cropped(painted(x, flipped(w), stride), padding), b),
        "y gets the bias with every patch, so that it counts as often as patches overlap. Add it once, at the end.":
            lambda x, w, b, stride=1, padding=0: cropped(
                painted(x, w, stride, extra=b[:, None, None]), padding),
        "y has stride - 1 rows and columns too many: the gaps lie between the pixels, none comes after the last.":
            lambda x, w, b, stride=1, padding=0: with_bias(cropped(with_zeros_at_the_end(x, w, stride), padding), b),
    },
)  # fmt: skip
def conv_transpose2d_forward(x: "n i ih iw", w: "i o kh kw", b: "o", stride=1, padding=0) -> "y: ...":
    """Every pixel paints its multiple of the kernel; what overlaps is added."""
    return F.conv_transpose2d(x, w, b, stride, padding)


def painted_backward(**changes):
    """The gradients of a transposed convolution with some of its pieces changed."""

    def backward(dy, x, w, b, stride=1, padding=0):
        given = dict(dy=dy, x=x, w=w, stride=stride, padding=padding)
        right = dict(dx=gathered(dy, w, x, stride, padding), dw=collected(dy, w, x, stride, padding),
                     db=dy.sum((0, 2, 3)))  # fmt: skip
        return tuple((right | {name: change(**given) for name, change in changes.items()}).values())

    return backward


def views(dy, w, x, stride, before, after, step=None):
    """For each kernel entry (k, m) the part of the padded dy that it has painted, one number for each pixel of x."""
    step = step or stride
    framed = np.pad(dy, ((0, 0), (0, 0), (before, after), (before, after)))
    h, v = x.shape[2:]
    for k, m in np.ndindex(w.shape[2:]):
        yield k, m, framed[:, :, k : k + step * (h - 1) + 1 : step, m : m + step * (v - 1) + 1 : step]


def gathered(dy, w, x, stride, before, after=None, step=None):
    """dx: what each pixel's patch brings back."""
    dx = np.zeros_like(x)
    for k, m, seen in views(dy, w, x, stride, before, before if after is None else after, step):
        dx += np.einsum("noyx,io->niyx", seen, w[:, :, k, m])
    return dx


def collected(dy, w, x, stride, before, after=None, step=None):
    """dw: what each kernel entry brings back."""
    dw = np.zeros_like(w)
    for k, m, seen in views(dy, w, x, stride, before, before if after is None else after, step):
        dw[:, :, k, m] = np.einsum("noyx,niyx->io", seen, x)
    return dw


def last_pixel(x):
    """x, with zeros everywhere but in the last pixel."""
    alone = np.zeros_like(x)
    alone[:, :, -1, -1] = x[:, :, -1, -1]
    return alone


gradient_of(
    conv_transpose2d_forward, points=5, minutes=25, difficulty=3,
    hints=(
        "First undo the crop: pad dy by `padding` zeros at each side, so that it has the size of the canvas. What was "
        "cropped away had no effect, so its gradient is 0.",
        "Pixel (i, j) painted the window of the canvas that starts at (i · stride, j · stride). Its gradient collects "
        "that window: dx[:, c, i, j] is the sum of window · w[c] over output channels and kernel. That is an ordinary "
        "convolution of dy with w.",
        "With the window as rows, `window.reshape(n, -1)`, these are lesson 01's gradients: rows @ w.reshape(c, -1).T "
        "is dx[:, :, i, j], and x[:, :, i, j].T @ rows, in the shape of w, is that pixel's share of dw. db sums dy "
        "over examples and pixels.",
    ),
    mistakes={
        "dx has its kernels turned by 180 degrees. The pixel painted w as it stands, and collects with it as it "
        "stands.":
            painted_backward(dx=lambda dy, x, w, stride, padding: gathered(dy, flipped(w), x, stride, padding)),
        "dx and dw read dy without the stride: the window of pixel (i, j) starts at (i · stride, j · stride).":
            painted_backward(
                dx=lambda dy, x, w, stride, padding: gathered(dy, w, x, stride, padding, step=1),
                dw=lambda dy, x, w, stride, padding: collected(dy, w, x, stride, padding, step=1)),
        "dx and dw are shifted: dy was padded at the end only. The crop took rows and columns at each side.":
            painted_backward(
                dx=lambda dy, x, w, stride, padding: gathered(dy, w, x, stride, 0, 2 * padding),
                dw=lambda dy, x, w, stride, padding: collected(dy, w, x, stride, 0, 2 * padding)),
        "dw is turned by 180 degrees in its kernels: entry (k, l) belongs to the offset (k, l) in the window.":
            painted_backward(dw=lambda dy, x, w, stride, padding: flipped(collected(dy, w, x, stride, padding))),
        "dw keeps only what the last pixel brought. Every pixel has used the kernel: += in place of =.":
            painted_backward(dw=lambda dy, x, w, stride, padding: collected(dy, w, last_pixel(x), stride, padding)),
        "dw is a mean over the examples. The loss has its mean already in dy: sum.":
            painted_backward(dw=lambda dy, x, w, stride, padding: collected(dy, w, x, stride, padding) / len(x)),
        "dw has its two channel axes in the order of an ordinary convolution. Here w is (C_in, C_out, kh, kw).":
            painted_backward(
                dw=lambda dy, x, w, stride, padding: collected(dy, w, x, stride, padding).swapaxes(0, 1)),
        "dw ignores dy: it sums x. What arrives at the patch is multiplied by the pixel that painted it.":
            painted_backward(dw=lambda dy, x, w, stride, padding: collected(
                np.ones_like(dy), w, x, stride, padding)),
        "db is a mean. The bias was added at every pixel of every example, and collects the sum.":
            painted_backward(db=lambda dy, **_: dy.mean((0, 2, 3))),
        "db keeps the examples apart, with shape (n, C_out). One bias serves them all: sum over axis 0 too.":
            painted_backward(db=lambda dy, **_: dy.sum((2, 3))),
        "db ignores dy: it counts pixels.":
            painted_backward(db=lambda dy, **_: np.ones_like(dy).sum((0, 2, 3))),
    },
)  # fmt: skip


@exercise(
    points=2, minutes=10, difficulty=1,
    cases=[
        dict(size=5, kernel_size=3),
        dict(size=4, kernel_size=3, stride=2, padding=1),
        dict(size=4, kernel_size=3, stride=2, padding=1, output_padding=1),
        dict(size=7, kernel_size=2, stride=3, output_padding=2),
        dict(size=1, kernel_size=4, stride=2),
        dict(size=16, kernel_size=5, stride=4, padding=2, output_padding=3),
        dict(size=9, kernel_size=1),
    ],
    hints=(
        "Draw it: where does the first pixel's patch start, and where does the last one's start? `stride` cells lie "
        "between two starts.",
        "The last patch starts at (size - 1) · stride and is kernel_size long: that is the canvas.",
        "canvas - 2 · padding + output_padding: padding crops both sides, output_padding is one number of extra cells "
        "at the end.",
    ),
    mistakes={
        "size is that of an ordinary convolution. A transposed convolution goes the other way: from its output to its "
        "input.":
            lambda size, kernel_size, stride=1, padding=0, output_padding=0: (
                size + 2 * padding - kernel_size) // stride + 1,
        "size counts `stride` cells for every pixel and the kernel on top. The last patch *starts* at (size - 1) · "
        "stride.":
            lambda size, kernel_size, stride=1, padding=0, output_padding=0: (
                size * stride + kernel_size - 2 * padding + output_padding),
        "size is size · stride, whatever the kernel. True only if kernel_size - 2 · padding + output_padding = stride.":
            lambda size, kernel_size, stride=1, padding=0, output_padding=0: size * stride,
        "size adds the padding. It crops, at both sides.":
            lambda size, kernel_size, stride=1, padding=0, output_padding=0: (
                (size - 1) * stride + kernel_size + 2 * padding + output_padding),
        "size takes the padding off once. It crops at both sides.":
            lambda size, kernel_size, stride=1, padding=0, output_padding=0: (
                (size - 1) * stride + kernel_size - padding + output_padding),
        "size adds output_padding twice. Unlike padding it is added at one side only.":
            lambda size, kernel_size, stride=1, padding=0, output_padding=0: (
                (size - 1) * stride + kernel_size - 2 * padding + 2 * output_padding),
        "size ignores output_padding.":
            lambda size, kernel_size, stride=1, padding=0, output_padding=0: (
                (size - 1) * stride + kernel_size - 2 * padding),
    },
)  # fmt: skip
def conv_transpose_output_size(size, kernel_size, stride=1, padding=0, output_padding=0) -> "size:":
    """How many cells a transposed convolution makes of `size`, along one axis."""
    x, w = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel_size)
    return torch.tensor(F.conv_transpose1d(x, w, None, stride, padding, output_padding).shape[-1])


@exercise(
    points=2, minutes=10, difficulty=2,
    cases=[
        dict(size=7, kernel_size=3),
        dict(size=7, kernel_size=3, stride=2, padding=1),
        dict(size=8, kernel_size=3, stride=2, padding=1),
        dict(size=11, kernel_size=2, stride=4),
        dict(size=9, kernel_size=2, stride=4),
        dict(size=5, kernel_size=5, stride=3, padding=2),
        dict(size=10, kernel_size=4, stride=3, padding=1),
        dict(size=13, kernel_size=1, stride=5),
    ],
    hints=(
        "A convolution with a stride rounds down: floor((size + 2 · padding - kernel_size) / stride) + 1. Which part "
        "of size does the floor throw away?",
        "Put the convolution's output size into the size of the transposed convolution, with output_padding = 0. How "
        "much is missing to `size`?",
        "What is missing is the remainder of the division that the floor rounded: the numerator `% stride`.",
    ),
    mistakes={
        "output_padding is the remainder of size itself. What the convolution divides by stride is size + 2 · padding "
        "- kernel_size.":
            lambda size, kernel_size, stride=1, padding=0: size % stride,
        "output_padding forgets the padding, which the convolution adds on both sides before it divides.":
            lambda size, kernel_size, stride=1, padding=0: (size - kernel_size) % stride,
        "output_padding counts the padding once. The convolution adds it on both sides.":
            lambda size, kernel_size, stride=1, padding=0: (size + padding - kernel_size) % stride,
        "output_padding is the quotient: how often stride fits. What the floor throws away is the remainder, %.":
            lambda size, kernel_size, stride=1, padding=0: (size + 2 * padding - kernel_size) // stride,
        "output_padding is stride minus what the floor has thrown away. What was thrown away is what is missing.":
            lambda size, kernel_size, stride=1, padding=0: stride - (size + 2 * padding - kernel_size) % stride,
        "output_padding is always stride - 1: right for some sizes, too much for the others.":
            lambda size, kernel_size, stride=1, padding=0: stride - 1,
        "output_padding is always 0: right for some sizes, too little for the others.":
            lambda size, kernel_size, stride=1, padding=0: 0,
        "output_padding has the kernel with the wrong sign: it is subtracted before the division.":
            lambda size, kernel_size, stride=1, padding=0: (size + 2 * padding + kernel_size) % stride,
        "output_padding is the other way round: how much is missing to the next multiple of stride, not how much is "
        "left over.":
            lambda size, kernel_size, stride=1, padding=0: -(size + 2 * padding - kernel_size) % stride,
    },
)  # fmt: skip
def output_padding_for(size, kernel_size, stride=1, padding=0) -> "output_padding:":
    """The output_padding with which a transposed convolution brings the convolution's output back to `size`."""
    w = torch.zeros(1, 1, kernel_size)
    small = F.conv1d(torch.zeros(1, 1, size), w, None, stride, padding)
    return torch.tensor(size - F.conv_transpose1d(small, w, None, stride, padding).shape[-1])


# --- Interpolation ---------------------------------------------------------------------------------------------------

ENLARGED = [
    dict(n=2, c=3, h=4, w=5, scale=2),
    dict(n=2, c=1, h=3, w=2, scale=3),
    dict(n=1, c=2, h=2, w=3, scale=4),
    dict(n=3, c=2, h=3, w=4, scale=1),
    dict(n=1, c=1, h=1, w=1, scale=2),
    dict(n=2, c=2, h=1, w=3, scale=2),
]


def repeated(x, scale):
    return x.repeat(scale, axis=2).repeat(scale, axis=3)


def blocks(dy, x, scale):
    """dy as (n, c, h, scale, w, scale)."""
    n, c, h, w = x.shape
    return dy.reshape(n, c, h, scale, w, scale)


def bed_of_nails(x, scale):
    y = np.zeros((*x.shape[:2], x.shape[2] * scale, x.shape[3] * scale))
    y[:, :, ::scale, ::scale] = x
    return y


@exercise(
    points=1, minutes=6, difficulty=1, cases=ENLARGED,
    hints=(
        "Every pixel becomes a block of scale × scale equal pixels: y[…, i, j] = x[…, i // scale, j // scale].",
        "`np.repeat(array, times, axis)` repeats each entry along one axis. Which two axes of (n, c, h, w) are the "
        "image's?",
        "Repeat along axis 2, then repeat the result along axis 3.",
    ),
    mistakes={
        "y shows the whole image several times. Repeat every pixel, not the image: np.repeat, not np.tile.":
            lambda x, scale: np.tile(x, (1, 1, scale, scale)),
        "y is enlarged along the rows only. Both axes of the image grow.":
            lambda x, scale: x.repeat(scale, axis=2),
        "y has the pixels in place and zeros between them. Every pixel of the block gets the value.":
            bed_of_nails,
        "y is divided by scale². Enlarging leaves the values as they are.":
            lambda x, scale: repeated(x, scale) / scale**2,
        "y is enlarged along batch or channels. The image's axes are 2 and 3.":
            lambda x, scale: x.repeat(scale, axis=1).repeat(scale, axis=2),
    },
)  # fmt: skip
def upsample_nearest_forward(x: "n c h w", scale) -> "y: ...":
    """Every pixel becomes a block of equal pixels."""
    return F.interpolate(x, scale_factor=scale, mode="nearest")


gradient_of(
    upsample_nearest_forward, points=2, minutes=8, difficulty=1,
    hints=(
        "The pixel x[…, i, j] was used scale² times. What does the chain rule do with what comes back from all of its "
        "uses?",
        "It sums them: each block of dy is summed. Give the block's axes names of their own by a reshape, to (n, c, h, "
        "scale, w, scale).",
        "Then sum over the two axes of length `scale`: axes 3 and 5.",
    ),
    mistakes={
        "dx averages the block. The pixel was copied scale² times, and each copy's gradient counts in full: sum.":
            lambda dy, x, scale: blocks(dy, x, scale).mean((3, 5)),
        "dx takes the gradient of one pixel of each block. All of them were copies of x[…, i, j].":
            lambda dy, x, scale: dy[:, :, ::scale, ::scale].copy(),
        "dx sums the wrong pixels: those that are h rows and w columns apart, as if the image had been tiled. After "
        "the reshape the axis of the block comes last of the two.":
            lambda dy, x, scale: dy.reshape(
                *x.shape[:2], scale, x.shape[2], scale, x.shape[3]).sum((2, 4)),
        "dx is summed over the rows of the blocks only.":
            lambda dy, x, scale: blocks(dy, x, scale).sum(3).reshape(*x.shape[:3], -1),
        "dx takes the largest gradient of the block, as max pooling would.":
            lambda dy, x, scale: blocks(dy, x, scale).max((3, 5)),
    },
)  # fmt: skip


def tent_matrix(size, scale, at="half", edge="clamp"):
    """Interpolation along one axis (scale · size, size), sampled somewhere else or treated otherwise at the edges."""
    out = size * scale
    position = {
        "half": (np.arange(out) + 0.5) / scale - 0.5,
        "corners": np.arange(out) * (size - 1) / max(out - 1, 1),
        "start": np.arange(out) / scale,
        "middle": (np.arange(out) + 0.5) / scale,
    }[at]
    if edge == "clamp":
        position = position.clip(0, size - 1)
    low = np.floor(position).astype(int)
    if edge == "extrapolate":
        low = low.clip(0, max(size - 2, 0))
    if edge == "truncate":
        low = np.trunc(position).astype(int)
    share, weights = position - low, np.zeros((out, size))
    for index, part in ((low, 1 - share), (low + 1, share)):
        held = index.clip(0, size - 1) if edge != "wrap" else np.minimum(index, size - 1)
        inside = (index >= 0) & (index < size) if edge == "zero" else np.ones(out, bool)
        np.add.at(weights, (np.arange(out)[inside], held[inside]), part[inside])
    return weights


def nearest_matrix(size, scale):
    return np.eye(size).repeat(scale, axis=0)


def unbounded_tent(size, scale):
    """1 - |position - j| for every input, however far away."""
    position = ((np.arange(size * scale) + 0.5) / scale - 0.5).clip(0, size - 1)
    return 1 - np.abs(np.subtract.outer(position, np.arange(size)))


def swapped_shares(size, scale):
    """The nearer neighbour gets the smaller share."""
    position = ((np.arange(size * scale) + 0.5) / scale - 0.5).clip(0, size - 1)
    low = np.floor(position).astype(int)
    weights, rows = np.zeros((size * scale, size)), np.arange(size * scale)
    np.add.at(weights, (rows, low), position - low)
    np.add.at(weights, (rows, np.minimum(low + 1, size - 1)), 1 - (position - low))
    return weights


MATRICES = {
    "align_corners": lambda size, scale: tent_matrix(size, scale, "corners"),
    "start": lambda size, scale: tent_matrix(size, scale, "start"),
    "middle": lambda size, scale: tent_matrix(size, scale, "middle"),
    "unbounded": unbounded_tent,
    "zero": lambda size, scale: tent_matrix(size, scale, edge="zero"),
    "extrapolate": lambda size, scale: tent_matrix(size, scale, edge="extrapolate"),
    "truncate": lambda size, scale: tent_matrix(size, scale, edge="truncate"),
    "wrap": lambda size, scale: tent_matrix(size, scale, edge="wrap"),
    "swapped": swapped_shares,
    "nearest": nearest_matrix,
}
SAMPLED = {
    "align_corners": "the first and the last output lie on the first and the last input: that is align_corners=True. "
    "Here pixels are areas, and output i is sampled at (i + 0.5) / scale - 0.5.",
    "start": "is sampled at i / scale, half a pixel off: the middle of output pixel i lies at (i + 0.5) / scale, and "
    "the middle of input pixel j at j + 0.5.",
    "middle": "is sampled at (i + 0.5) / scale, where the middle of input pixel j lies at j + 0.5. Counted in pixel "
    "numbers, where it is j, 0.5 has to be taken off.",
    "unbounded": "gives far pixels a negative weight: 1 - |position - j| goes on falling below 0. The tent ends there: "
    "max(0, …).",
    "zero": "fades out at the borders, as if zeros lay outside. Positions outside are clamped: the border's value goes "
    "on.",
    "extrapolate": "goes on rising or falling beyond the outermost pixels, with a negative weight. Clamp the position "
    "to [0, size - 1] before it is split.",
    "truncate": "is wrong at the start only: int() and astype(int) cut towards 0, so that position -0.25 is split with "
    "a negative share. Clamp the position first.",
    "wrap": "mixes the last pixel into the first ones: index -1 is Python's last. Clamp the position to [0, size - 1] "
    "before it is split.",
    "swapped": "gives the nearer neighbour the smaller share. At position 1.25 pixel 1 counts 0.75 and pixel 2 0.25.",
    "nearest": "copies the nearest pixel. Linear interpolation mixes the two neighbours.",
}


@exercise(
    points=3, minutes=15, difficulty=2,
    cases=[
        dict(size=4, scale=2), dict(size=3, scale=3), dict(size=5, scale=4), dict(size=4, scale=1),
        dict(size=1, scale=3), dict(size=2, scale=5),
    ],
    hints=(
        "Row i says how output i is mixed from the inputs. Where is its middle, counted in input pixels? Output pixels "
        "are 1 / scale wide, and pixel j's middle stands at j.",
        "`position = (np.arange(scale * size) + 0.5) / scale - 0.5`, clamped to [0, size - 1] by np.clip. The whole "
        "part says between which two inputs it lies, the rest how far it is from the left one.",
        "The weight of input j is max(0, 1 - |position - j|): a tent of width 2. As a table: `position[:, None] - "
        "np.arange(size)`.",
    ),
    mistakes={
        "a, by rows: " + SAMPLED[name]: matrix
        for name, matrix in MATRICES.items()
    } | {
        "a is transposed: it has a row for each output and a column for each input.":
            lambda size, scale: tent_matrix(size, scale).T,
    },
)  # fmt: skip
def interpolation_matrix(size, scale) -> "a: ...":
    """The weights (scale · size, size) of linear interpolation along one axis."""
    inputs = torch.eye(size, dtype=torch.float64)[None]
    return F.interpolate(inputs, scale_factor=scale, mode="linear", align_corners=False)[0].T


def enlarged_by(matrix):
    def forward(x, scale):
        return np.einsum("yi,ncij,xj->ncyx", matrix(x.shape[2], scale), x, matrix(x.shape[3], scale))

    return forward


def gathered_by(matrix):
    def backward(dy, x, scale):
        return np.einsum("yi,ncyx,xj->ncij", matrix(x.shape[2], scale), dy, matrix(x.shape[3], scale))

    return backward


def added_once(size, scale):
    """What dx[low] += … adds: of several outputs with the same neighbour, the last one's share only."""
    position = ((np.arange(size * scale) + 0.5) / scale - 0.5).clip(0, size - 1)
    low = np.floor(position).astype(int)
    weights, share = np.zeros((size * scale, size)), position - low
    for index, part in ((low, 1 - share), (np.minimum(low + 1, size - 1), share)):
        for j in range(size):
            rows = np.flatnonzero(index == j)
            if rows.size:
                weights[rows[-1], j] += part[rows[-1]]
    return weights


@exercise(
    points=2, minutes=12, difficulty=2, cases=ENLARGED,
    hints=(
        "Bilinear is linear twice: along the rows with the matrix for h, along the columns with the matrix for w.",
        "With A of shape (scale · h, h) and B of shape (scale · w, w), one image is A x Bᵀ. Does `@` care about the "
        "axes before the last two?",
        "It does not: `A @ x @ B.T`.",
    ),
    mistakes={
        "y: " + SAMPLED[name]: enlarged_by(matrix) for name, matrix in MATRICES.items()
    } | {
        "y is interpolated along the columns only, and copied along the rows.":
            lambda x, scale: np.einsum(
                "yi,ncij,xj->ncyx", nearest_matrix(x.shape[2], scale), x, tent_matrix(x.shape[3], scale)),
    },
)  # fmt: skip
def upsample_bilinear_forward(x: "n c h w", scale) -> "y: ...":
    """Every output pixel is mixed from the four nearest input pixels."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


gradient_of(
    upsample_bilinear_forward, points=2, minutes=12, difficulty=2,
    hints=(
        "y = A x Bᵀ is linear in x. Look at one axis: y = A x. What is dx, if dy arrives? (A pixel collects from all "
        "outputs that it was mixed into, with the weight that it had there.)",
        "dx = Aᵀ dy for one axis: the transposed matrix again. And for both axes?",
        "`A.T @ dy @ B`, with the same two matrices as in the forward pass.",
    ),
    mistakes={
        "dx adds once where it should add several times: `dx[index] += …` with repeated indices keeps the last. Use "
        "np.add.at, or the transposed matrix.":
            gathered_by(added_once),
        "dx is divided by scale². Each output's gradient counts in full, with the weight that the pixel had in it.":
            lambda dy, x, scale: gathered_by(tent_matrix)(dy, x, scale) / scale**2,
        "dx sums each block of dy: that is the gradient of nearest. Here a pixel also reached its neighbours' blocks.":
            gathered_by(nearest_matrix),
        "dx belongs to align_corners=True. Output i was sampled at (i + 0.5) / scale - 0.5.":
            gathered_by(MATRICES["align_corners"]),
        "dx belongs to samples at i / scale, half a pixel off.":
            gathered_by(MATRICES["start"]),
        "dx loses what came from outside. A position beyond the border was clamped: its whole gradient goes to the "
        "border pixel.":
            gathered_by(MATRICES["zero"]),
        "dx averages each block of dy. That makes an image smaller; the gradient of a mixture is a sum.":
            lambda dy, x, scale: blocks(dy, x, scale).mean((3, 5)),
    },
)  # fmt: skip


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[dict(scale=2), dict(scale=3), dict(scale=1), dict(scale=4), dict(scale=5)],
    hints=(
        "Which outputs does one input pixel reach, and with which weight? A column of your interpolation_matrix, away "
        "from the borders, says it for one axis.",
        "Its entries are the tent 1 - |position| at positions that are 1 / scale apart: for scale 2 they are 0.25, "
        "0.75, 0.75, 0.25, for scale 3 1/3, 2/3, 1, 2/3, 1/3. Only those that are not 0 count: 2 · scale of them for "
        "an even scale, 2 · scale - 1 for an odd one.",
        "`size = 2 * scale - scale % 2`, and the middle is (size - 1) / 2: "
        "`tent = 1 - np.abs(np.arange(size) - (size - 1) / 2) / scale`. The kernel of the image is the product of two: "
        "`np.outer`.",
    ),
    mistakes={
        "w is one axis only. The kernel of an image is the outer product of two tents.":
            lambda scale: 1 - np.abs(np.arange(2 * scale - scale % 2) - (2 * scale - scale % 2 - 1) / 2) / scale,
        "w has its peak on a pixel for even scales too: size 2 · scale - 1. There the middle falls between two pixels.":
            lambda scale: np.outer(*[1 - np.abs(np.arange(2 * scale - 1) - (scale - 1)) / scale] * 2),
        "w has its middle at size / 2. Of `size` entries, counted from 0, it is (size - 1) / 2.":
            lambda scale: np.outer(*[_tent(scale, lambda size: size / 2)] * 2),
        "w has its middle at size // 2, which for an even size is an entry. There it lies between two: (size - 1) / 2.":
            lambda scale: np.outer(*[_tent(scale, lambda size: size // 2)] * 2),
        "w is divided by its sum. It sums to scale², since one pixel is spread over an area of that size.":
            lambda scale: np.outer(*[_tent(scale)] * 2) / _tent(scale).sum() ** 2,
        "w is constant: that is the kernel of nearest.":
            lambda scale: np.ones((scale, scale)),
        "w sinks to the wrong level: the tent falls by 1 / scale from one entry to the next.":
            lambda scale: np.outer(*[1 - np.abs(
                np.arange(2 * scale - scale % 2) - (2 * scale - scale % 2 - 1) / 2) / (scale + 1)] * 2),
    },
)  # fmt: skip
def bilinear_kernel(scale) -> "w: ...":
    """The kernel with which a transposed convolution of that stride interpolates."""
    image = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    image[0, 0, 2, 2] = 1
    spread = F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)[0, 0]
    reached = spread.sum(0) > 0
    return spread[reached][:, reached]


def _tent(scale, middle=lambda size: (size - 1) / 2):
    size = 2 * scale - scale % 2
    return 1 - np.abs(np.arange(size) - middle(size)) / scale


# --- Pixel shuffle ---------------------------------------------------------------------------------------------------


def spread_out(x, r, split, order):
    """Channels split into three axes named by `split` (c: channel, a: row, b: column), then laid out in `order`."""
    n, k, h, w = x.shape
    sizes = {"c": k // r**2, "a": r, "b": r, "h": h, "w": w}
    axes = split + "hw"
    apart = x.reshape(n, *(sizes[letter] for letter in axes))
    return apart.transpose(0, *(1 + axes.index(letter) for letter in order)).reshape(n, k // r**2, h * r, w * r)


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(n=2, k=12, h=3, w=5, r=2),
        dict(n=1, k=9, h=2, w=4, r=3),
        dict(n=2, k=18, h=3, w=2, r=3),
        dict(n=3, k=8, h=1, w=1, r=2),
        dict(n=2, k=3, h=4, w=2, r=1),
        dict(n=1, k=16, h=1, w=3, r=4),
    ],
    hints=(
        "Split the channel axis: (n, c · r², h, w) becomes (n, c, r, r, h, w). The first r counts the rows inside a "
        "block, the second its columns.",
        "Row i · r + a of the output is row a of block i: the axis of the rows inside a block has to stand right "
        "behind that of h, and likewise for the columns. Which `transpose` does that?",
        "`.transpose(0, 1, 4, 2, 5, 3)`, to (n, c, h, r, w, r); then reshape to (n, c, h · r, w · r).",
    ),
    mistakes={
        "y has the block's pixels in the outer place of the channel axis. Channel c · r² + a · r + b belongs to output "
        "channel c: split into (c, r, r), not (r, r, c).":
            lambda x, r: spread_out(x, r, "abc", "chawb"),
        "y has rows and columns of each block exchanged: channel c · r² + a · r + b is row a, column b.":
            lambda x, r: spread_out(x, r, "cba", "chawb"),
        "y shows r × r small images side by side. Row a of block i is row i · r + a of the output: the block's axis "
        "comes after that of h.":
            lambda x, r: spread_out(x, r, "cab", "cahbw"),
        "y has the right shape and no order: a reshape alone moves no entry. Split, transpose, then reshape.":
            lambda x, r: spread_out(x, r, "cab", "cabhw"),
        "y is transposed in the image: rows come from w and columns from h.":
            lambda x, r: spread_out(x, r, "cab", "cwbha").reshape(
                len(x), x.shape[1] // r**2, x.shape[3] * r, x.shape[2] * r),
    },
)  # fmt: skip
def pixel_shuffle(x: "n k h w", r) -> "y: ...":
    """Each group of r² channels becomes one image, r times as high and as wide."""
    return F.pixel_shuffle(x, r)


def gathered_in(x, r, split, order):
    """The image's axes split as in "chawb", then laid out in `order` as channels."""
    n, c, h, w = x.shape
    sizes = {"c": c, "h": h // r, "a": r, "w": w // r, "b": r}
    apart = x.reshape(n, *(sizes[letter] for letter in split))
    return apart.transpose(0, *(1 + split.index(letter) for letter in order)).reshape(n, c * r * r, h // r, w // r)


@exercise(
    points=1, minutes=10, difficulty=2,
    cases=[
        dict(n=2, c=3, h=6, w=10, r=2),
        dict(n=1, c=1, h=6, w=12, r=3),
        dict(n=2, c=2, h=9, w=6, r=3),
        dict(n=3, c=2, h=2, w=2, r=2),
        dict(n=2, c=3, h=4, w=2, r=1),
        dict(n=1, c=1, h=4, w=12, r=4),
    ],
    hints=(
        "Walk pixel_shuffle backwards: its last step was a reshape from (n, c, h, r, w, r).",
        "So reshape x to (n, c, h // r, r, w // r, r) and move the two axes of length r next to c. If the forward used "
        "the permutation (0, 1, 4, 2, 5, 3), which one undoes it? `np.argsort` of it.",
        "`.transpose(0, 1, 3, 5, 2, 4)`, then reshape to (n, c · r², h // r, w // r).",
    ),
    mistakes={
        "y has the block's pixels in the outer place of the channel axis: (r, r, c) in place of (c, r, r).":
            lambda x, r: gathered_in(x, r, "chawb", "abchw"),
        "y has its axes in the order of pixel_shuffle, once more. The way back takes the inverse permutation, which "
        "np.argsort finds.":
            lambda x, r: gathered_in(x, r, "chawb", "cwhba"),
        "y has rows and columns of each block exchanged.":
            lambda x, r: gathered_in(x, r, "chawb", "cbahw"),
        "y takes its channels from r × r parts of the image, not from the pixels inside each block.":
            lambda x, r: gathered_in(x, r, "cahbw", "cabhw"),
        "y has the right shape and no order: a reshape alone moves no entry.":
            lambda x, r: x.reshape(len(x), x.shape[1] * r * r, x.shape[2] // r, x.shape[3] // r),
    },
)  # fmt: skip
def pixel_unshuffle(x: "n c h w", r) -> "y: ...":
    """The inverse of pixel_shuffle."""
    return F.pixel_unshuffle(x, r)


@exercise(
    points=1, minutes=8, difficulty=1,
    cases=[
        dict(o=3, i=2, kh=4, kw=1, r=2),
        dict(o=2, i=1, kh=1, kw=4, r=3),
        dict(o=1, i=3, kh=3, kw=3, r=2),
        dict(o=4, i=2, kh=1, kw=1, r=1),
    ],
    hints=(
        "After pixel_shuffle, the r² pixels of a block come from r² neighbouring channels. When are they equal, "
        "whatever the input is?",
        "When those channels have the same kernel. So each kernel of `base` is needed r² times, in channels that "
        "follow each other.",
        "`np.repeat` along axis 0.",
    ),
    mistakes={
        "w repeats the whole of base r² times over (np.tile). The copies of *one* kernel have to follow each other: "
        "np.repeat.":
            lambda base, r: np.tile(base, (r * r, 1, 1, 1)),
        "w has each kernel r times. A block has r · r pixels.":
            lambda base, r: base.repeat(r, axis=0),
        "w is divided by r². Each pixel of the block should get the full value.":
            lambda base, r: base.repeat(r * r, axis=0) / r**2,
        "w repeats the input channels. Pixel shuffle takes the *output* channels apart: axis 0.":
            lambda base, r: base.repeat(r * r, axis=1),
    },
)  # fmt: skip
def icnr(base: "o i kh kw", r) -> "w: ...":
    """Convolution weights after which pixel_shuffle enlarges like nearest (Aitken et al., 2017)."""
    large = F.interpolate(base.transpose(0, 1), scale_factor=r, mode="nearest")
    return F.pixel_unshuffle(large, r).transpose(0, 1)


# --- Dice ------------------------------------------------------------------------------------------------------------


def probabilities(rng, sizes):
    probs = rng.uniform(0.02, 0.98, [sizes[letter] for letter in "nchw"])
    if probs.size > 1:
        probs[-1, -1, -1, -1] = 0
    return probs


def masks(*letters, share=0.4):
    return lambda rng, sizes: (rng.random([sizes[letter] for letter in letters]) < share).astype(np.int64)


def some_empty(rng, sizes):
    """The first example has nothing in its first channel, the last has everything in its last."""
    targets = masks("n", "c", "h", "w")(rng, sizes)
    targets[0, 0], targets[-1, -1] = 0, 1
    return targets


PROBABLE = [
    dict(n=3, c=2, h=4, w=5),
    dict(n=2, c=3, h=3, w=4, targets=some_empty),
    dict(n=4, c=2, h=3, w=2, eps=0.1),
    dict(n=2, c=2, h=3, w=3, eps=1e-3, targets=masks("n", "c", "h", "w", share=0.1)),
    dict(n=1, c=1, h=1, w=1),
    dict(n=3, c=1, h=2, w=5, targets=masks("n", "c", "h", "w", share=0.8)),
]
SPACE = (2, 3)


def dice_of(probs, targets, eps, axes=SPACE, two=2.0, above=None, power=1):
    """The soft Dice with some of its choices changed."""
    both = (probs * targets).sum(axes)
    sizes = (probs**power).sum(axes) + targets.sum(axes)
    return (two * both + (eps if above is None else above)) / (sizes + eps)


def dice_mistake(**changes):
    return lambda probs, targets, eps=1.0: 1 - dice_of(probs, targets, eps, **changes).mean()


DICE_MISTAKES = {
    "loss sums over the examples before it divides: one Dice for the whole batch. Each example has its own; the mean "
    "comes last.":
        dice_mistake(axes=(0, 2, 3)),
    "loss has one Dice for everything. Each channel of each example has its own; the mean comes last.":
        dice_mistake(axes=(0, 1, 2, 3)),
    "loss mixes the channels: one Dice per example. Each channel has its own, so that a small class counts as much as "
    "a large one.":
        dice_mistake(axes=(1, 2, 3)),
    "loss has eps in the denominator only, so that an empty mask found empty costs 1. With eps above too it costs 0.":
        dice_mistake(above=0.0),
    "loss lacks eps. It stands above and below, so that an empty mask found empty costs 0.":
        lambda probs, targets, eps=1.0: 1 - dice_of(probs, targets, 1e-12).mean(),
    "loss is 1 minus the sum of n · c Dice coefficients. Take their mean.":
        lambda probs, targets, eps=1.0: 1 - dice_of(probs, targets, eps).sum(),
    "loss lacks the factor 2 of the overlap: a perfect prediction would have Dice 1/2.":
        dice_mistake(two=1.0),
    "loss has squares in the denominator, as Milletari et al. (2016) have it. Here it is the plain sum of "
    "probabilities.":
        dice_mistake(power=2),
    "loss is the Dice itself, which grows as the prediction gets better. The loss is 1 - Dice.":
        lambda probs, targets, eps=1.0: dice_of(probs, targets, eps).mean(),
    "loss is summed over examples and channels. Take the mean, so that it does not depend on how many there are.":
        lambda probs, targets, eps=1.0: (1 - dice_of(probs, targets, eps)).sum(),
    "loss is that of the IoU: the overlap was taken out of the denominator. Dice keeps the sum of both areas.":
        lambda probs, targets, eps=1.0: 1 - (((probs * targets).sum(SPACE) + eps) / (
            (probs + targets - probs * targets).sum(SPACE) + eps)).mean(),
    "loss thresholds the probabilities first. Then it has no gradient; soft Dice multiplies them as they are.":
        lambda probs, targets, eps=1.0: 1 - dice_of((probs > 0.5).astype(float), targets, eps).mean(),
    "loss ignores the argument eps and always takes 1.":
        lambda probs, targets, eps=None: 1 - dice_of(probs, targets, 1.0).mean(),
}  # fmt: skip


@exercise(
    points=3, minutes=15, difficulty=2, cases=PROBABLE,
    draws=dict(probs=probabilities, targets=masks("n", "c", "h", "w")),
    hints=(
        "First three arrays of shape (n, c), each a sum over the pixels (axes 2 and 3): the overlap Σ p · t, and the "
        "two areas Σ p and Σ t.",
        "dice = (2 · overlap + eps) / (area of p + area of t + eps), for each example and channel by itself.",
        "The loss is 1 minus the mean of these n · c numbers.",
    ),
    mistakes=DICE_MISTAKES,
)  # fmt: skip
def dice_loss_forward(probs: "n c h w", targets: "n c h w", eps=1.0) -> "loss:":
    """One minus the soft Dice of each channel of each example, averaged."""
    p, t = probs.flatten(2), targets.flatten(2).to(probs.dtype)
    overlap = torch.linalg.vecdot(p, t)
    return 1 - ((overlap + overlap + eps) / (p + t).sum(-1).add(eps)).mean()


def dice_gradient(probs, targets, eps, axes=SPACE, numerator=2.0, share=1.0, above=None):
    """The gradient of a mean of Dice coefficients, some of its terms changed; `share` weighs the denominator's."""
    area = (probs.sum(axes, keepdims=True) + targets.sum(axes, keepdims=True)) + eps
    both = numerator * (probs * targets).sum(axes, keepdims=True) + (eps if above is None else above)
    return -(numerator * targets / area - share * both / area**2) / area.size


gradient_of(
    dice_loss_forward, points=4, minutes=20, difficulty=3,
    hints=(
        "For one mask, dice = u / v with u = 2 Σ p · t + eps and v = Σ p + Σ t + eps. Both depend on the pixel p_i: "
        "what are ∂u/∂p_i and ∂v/∂p_i?",
        "2 t_i and 1. The quotient rule gives ∂dice/∂p_i = (2 t_i · v - u) / v².",
        "The loss is 1 minus the mean of n · c such quotients: multiply by -dloss / (n · c). Keep u and v with "
        "`keepdims=True`, so that they have shape (n, c, 1, 1).",
    ),
    mistakes={
        "dprobs treats the denominator as a constant. Σ p stands there too: a pixel that is raised enlarges the area "
        "it is divided by.":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps, share=0.0),
        "dprobs is that of one Dice for the whole batch. Each example has its own quotient.":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps, (0, 2, 3)),
        "dprobs is that of one Dice for all channels of an example. Each channel has its own quotient.":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps, (1, 2, 3)),
        "dprobs lacks the mean: the loss averages n · c quotients, so that each counts 1 / (n · c).":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps) * (
                probs.shape[0] * probs.shape[1]),
        "dprobs is divided by the number of pixels too. A Dice is no mean over pixels; only n · c quotients are "
        "averaged.":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps) / (
                probs.shape[2] * probs.shape[3]),
        "dprobs is divided by v where the quotient rule has v².":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps) * (
                probs.sum(SPACE, keepdims=True) + targets.sum(SPACE, keepdims=True) + eps),
        "dprobs has the sign of the Dice. The loss is 1 - Dice: its gradient points the other way.":
            lambda dloss, probs, targets, eps=1.0: -dloss * dice_gradient(probs, targets, eps),
        "dprobs ignores dloss, what arrives from above.":
            lambda dloss, probs, targets, eps=1.0: dice_gradient(probs, targets, eps),
        "dprobs lacks the factor 2 of the overlap.":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps, numerator=1.0),
        "dprobs lacks eps in the numerator of the quotient: u = 2 Σ p · t + eps.":
            lambda dloss, probs, targets, eps=1.0: dloss * dice_gradient(probs, targets, eps, above=0.0),
    },
)  # fmt: skip


def scores(dice, iou):
    """Two scores of each example from counts: of both masks together, of each, and of all pixels."""

    def of(pred, target):
        both, p, t = (a.sum((1, 2)) for a in (pred & target, pred, target))
        with np.errstate(all="ignore"):
            return dice(both, p, t), iou(both, p, t)

    return of


def ratio(above, below, empty=1.0):
    return np.where(below > 0, above / np.where(below > 0, below, 1), empty)


def right_dice(both, p, t):
    return ratio(2 * both, p + t)


def right_iou(both, p, t):
    return ratio(both, p + t - both)


def no_pixels(rng, sizes):
    """Masks of which the first is empty."""
    mask = rng.random([sizes[letter] for letter in "nhw"]) < 0.5
    mask[0] = False
    return mask


def some_pixels(rng, sizes):
    return rng.random([sizes[letter] for letter in "nhw"]) < 0.5


@exercise(
    points=2, minutes=12, difficulty=1,
    draws=dict(pred=some_pixels, target=some_pixels),
    cases=[
        dict(n=3, h=4, w=5),
        dict(n=4, h=3, w=3, pred=no_pixels, target=no_pixels),
        dict(n=3, h=2, w=4, pred=no_pixels),
        dict(n=3, h=3, w=5, target=no_pixels),
        dict(n=1, h=1, w=1, pred=no_pixels, target=no_pixels),
    ],
    hints=(
        "Three counts for each example, sums over axes 1 and 2: pixels in both masks (`pred & target`), pixels of "
        "pred, pixels of target.",
        "Dice = 2 · both / (pred + target). IoU = both / union, and the union has pred + target - both pixels.",
        "Where both masks are empty this is 0 / 0. Divide by `np.maximum(count, 1)` and put 1 there by `np.where`.",
    ),
    mistakes={
        "dice and iou are nan where both masks are empty: 0 / 0. Nothing was to be found and nothing was said: score "
        "1.":
            scores(lambda both, p, t: ratio(2 * both, p + t, np.nan),
                   lambda both, p, t: ratio(both, p + t - both, np.nan)),
        "dice and iou are 0 where both masks are empty. Nothing was to be found and nothing was said: score 1.":
            scores(lambda both, p, t: ratio(2 * both, p + t, 0.0), lambda both, p, t: ratio(both, p + t - both, 0.0)),
        "dice and iou are 1 where one of the masks is empty. That is the score where both are: one alone means 0.":
            scores(lambda both, p, t: ratio(2 * both, (p + t) * (p * t > 0)),
                   lambda both, p, t: ratio(both, (p + t - both) * (p * t > 0))),
        "dice and iou have 1 added above and below. That smooths a loss; a score is the bare ratio.":
            scores(lambda both, p, t: (2 * both + 1) / (p + t + 1), lambda both, p, t: (both + 1) / (p + t - both + 1)),
        "dice and iou are one number for all examples together. Each example has its own.":
            lambda pred, target: tuple(
                np.full(len(pred), score(*(a.sum() for a in (pred & target, pred, target))))
                for score in (right_dice, right_iou)),
        "dice lacks the factor 2: two equal masks would score 1/2.":
            scores(lambda both, p, t: ratio(both, p + t), right_iou),
        "iou counts the overlap twice in the union: |A| + |B| - |A and B|.":
            scores(right_dice, lambda both, p, t: ratio(both, p + t)),
        "iou is the share of the target that was found (the recall). A prediction that is too large has to lose too.":
            scores(right_dice, lambda both, p, t: ratio(both, t)),
        "dice and iou are the share of pixels that agree. Background that both leave out would count as success.":
            lambda pred, target: ((pred == target).mean((1, 2)),) * 2,
        "dice and iou are exchanged.":
            scores(right_iou, right_dice),
    },
)  # fmt: skip
def overlap_scores(pred: "n h w", target: "n h w") -> "dice: n, iou: n":
    """Dice coefficient and intersection over union of each example; 1 where both masks are empty."""
    seen = (pred.double() + 2 * target.double()).flatten(1)
    only_pred, only_target, both = (seen.eq(k).sum(1).double() for k in (1, 2, 3))
    wrong = only_pred + only_target
    empty = both.add(wrong).eq(0)
    return tuple(torch.where(empty, 1.0, both / (both + half).clamp(min=0.5)) for half in (wrong / 2, wrong))


# --- U-Net -----------------------------------------------------------------------------------------------------------


def double_conv(i, o, middle=nn.ReLU, end=nn.ReLU):
    """The block that the lesson gives, or one with other activations."""
    layers = []
    for channels, activation in ((i, middle), (o, end)):
        layers += [nn.Conv2d(channels, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), activation()]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """A small U-Net (Ronneberger et al., 2015), padded, so that the output is as large as the input."""

    def __init__(self, in_channels, out_channels, width, depth):
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.encoder = nn.ModuleList(map(self.block, [in_channels, *widths], widths))
        self.bottom = self.block(widths[-1], 2 * widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in widths)
        self.decoder = nn.ModuleList(self.block(2 * c, c) for c in widths)
        self.head = nn.Conv2d(width, out_channels, 1)

    # What the wrong ones below change.

    def block(self, i, o):
        return double_conv(i, o)

    def smaller(self, x):
        return F.max_pool2d(x, 2)

    def joined(self, skip, x):
        return torch.cat([skip, x], dim=1)

    def level(self, x, skips, k):
        x = self.up[k](x, output_size=skips[k].shape[-2:])
        return self.decoder[k](self.joined(skips[k], x))

    def forward(self, x):
        skips = []
        for block in self.encoder:
            skips.append(block(x))
            x = self.smaller(skips[-1])
        x = self.bottom(x)
        for k in reversed(range(len(skips))):
            x = self.level(x, skips, k)
        return self.head(x)


class UpsampledFirst(PlainUNet):
    def joined(self, skip, x):
        return torch.cat([x, skip], dim=1)


class NoSkips(PlainUNet):
    def joined(self, skip, x):
        return torch.cat([torch.zeros_like(skip), x], dim=1)


class TwiceUpsampled(PlainUNet):
    def joined(self, skip, x):
        return torch.cat([x, x], dim=1)


class DetachedSkips(PlainUNet):
    def joined(self, skip, x):
        return torch.cat([skip.detach(), x], dim=1)


class Averaging(PlainUNet):
    def smaller(self, x):
        return F.avg_pool2d(x, 2)


class CroppedSkips(PlainUNet):
    def level(self, x, skips, k):
        x = self.up[k](x)
        return self.decoder[k](self.joined(skips[k][..., : x.shape[-2], : x.shape[-1]], x))


class StretchedToFit(PlainUNet):
    def level(self, x, skips, k):
        x = F.interpolate(self.up[k](x), size=skips[k].shape[-2:], mode="nearest")
        return self.decoder[k](self.joined(skips[k], x))


class PaddedToFit(PlainUNet):
    def level(self, x, skips, k):
        x, (h, w) = self.up[k](x), skips[k].shape[-2:]
        return self.decoder[k](self.joined(skips[k], F.pad(x, (0, w - x.shape[-1], 0, h - x.shape[-2]))))


class LinearUp(PlainUNet):
    def level(self, x, skips, k):
        x = F.relu(self.up[k](x, output_size=skips[k].shape[-2:]))
        return self.decoder[k](self.joined(skips[k], x))


class Probabilities(PlainUNet):
    def forward(self, x):
        return super().forward(x).softmax(dim=1)


class PositiveLogits(PlainUNet):
    def forward(self, x):
        return F.relu(super().forward(x))


class OneReLU(PlainUNet):
    def block(self, i, o):
        return double_conv(i, o, middle=nn.Identity)


class NoLastReLU(PlainUNet):
    def block(self, i, o):
        return double_conv(i, o, end=nn.Identity)


def names_of(in_channels, out_channels, width, depth):
    state = PlainUNet(in_channels, out_channels, width, depth).state_dict()
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def unet_case(*init, shape, train=True):
    sizes = dict(zip(("in_channels", "out_channels", "width", "depth"), init, strict=True))
    return sizes | dict(names=names_of(*init), x=shape, train=train)


@exercise(
    script="unet", points=6, minutes=35, difficulty=3,
    cases=[
        unet_case(2, 3, 2, 1, shape=(2, 2, 4, 6)),
        unet_case(1, 2, 2, 2, shape=(2, 1, 7, 10)),
        unet_case(1, 1, 1, 1, shape=(1, 1, 5, 4), train=False),
        unet_case(3, 2, 2, 3, shape=(2, 3, 13, 9)),
    ],
    hints=(
        "Three loops. In the constructor: for every level k from 0 to depth - 1, with c = width · 2^k channels, one "
        "encoder block, one `nn.ConvTranspose2d(2 * c, c, 2, stride=2)`, one decoder block from 2c to c. Collect them "
        "in `nn.ModuleList`s. The bottom goes from c to 2c of the last level.",
        "Down: run encoder[k], keep its output in a list, halve it with `F.max_pool2d(x, 2)`. Then the bottom. Up: for "
        "k from depth - 1 down to 0, up[k], join with the output kept at level k, decoder[k]. At last the head.",
        "`x = self.up[k](x, output_size=skips[k].shape[-2:])` brings odd sizes back, and `torch.cat([skips[k], x], "
        "dim=1)` puts the skip first. No ReLU after up[k], none after the head.",
    ),
    mistakes={
        "y is computed with the two halves in the wrong order: the skip comes first, the upsampled map second.":
            UpsampledFirst,
        "y does not use the skips: zeros stand in their place.": NoSkips,
        "y joins the upsampled map with itself. The first half is what the encoder put out at this level.":
            TwiceUpsampled,
        "dx and the encoder's gradients lack what comes back through the skips: they were detached from the graph.":
            DetachedSkips,
        "y comes from averages: between two levels stands max pooling.": Averaging,
        "y is smaller than x where a size is odd: the skip was cut to the size of the upsampled map. Ask the "
        "transposed convolution for the skip's size: up[k](x, output_size=…).": CroppedSkips,
        "y is wrong where a size is odd: the map was stretched to the skip's size. Ask the transposed convolution for "
        "it: up[k](x, output_size=…).": StretchedToFit,
        "y is wrong where a size is odd: zeros were added to the upsampled map. up[k](x, output_size=…) leaves its "
        "bias there.": PaddedToFit,
        "y has a ReLU after the transposed convolution. The only ReLUs are those inside the double convolutions.":
            LinearUp,
        "y are probabilities. The network puts out logits: the loss takes their softmax.": Probabilities,
        "y has a ReLU after the head: logits may be negative.": PositiveLogits,
        "y lacks the first ReLU of the blocks: without it two convolutions are one.": OneReLU,
        "y lacks the second ReLU of the blocks.": NoLastReLU,
    },
)  # fmt: skip
class UNet(PlainUNet):
    __doc__ = PlainUNet.__doc__


# --- Repair ----------------------------------------------------------------------------------------------------------


@exercise(
    repair=True, points=2, minutes=12, difficulty=2, cases=ENLARGED,
    hints=(
        "Enlarge the row 0, 1 by 2 on paper, as upsample_bilinear_forward does: 0, 0.25, 0.75, 1. What does this "
        "function make of it, and at which positions did it look?",
        "It spreads its samples evenly from the middle of the first pixel to the middle of the last. That is "
        "`align_corners=True`: the distance between samples depends on the size, and is never exactly 1 / scale.",
        "Only the line with the positions is wrong: `((np.arange(scale * size) + 0.5) / scale - 0.5).clip(0, size - "
        "1)`.",
    ),
    mistakes={
        "y: " + SAMPLED[name]: enlarged_by(MATRICES[name])
        for name in ("align_corners", "start", "zero", "extrapolate", "truncate", "wrap")
    },
)  # fmt: skip
def repair_upsample_bilinear_forward(x: "n c h w", scale) -> "y: ...":
    """Bilinear upsampling that treats pixels as areas."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


@exercise(
    repair=True, points=2, minutes=12, difficulty=2, cases=PROBABLE,
    draws=dict(probs=probabilities, targets=masks("n", "c", "h", "w")),
    hints=(
        "Give it a batch of one and it differs in one thing only. Which case would make that visible: a mask that is "
        "empty, and found empty?",
        "Then a batch of two, one example perfect, one all wrong: which loss should it be, and what is it? Over which "
        "axes may be summed before the division?",
        "Over the pixels only, axes (2, 3); and eps stands in the numerator and in the denominator.",
    ),
    mistakes=DICE_MISTAKES | {
        "loss still has both faults: one Dice for the whole batch, and an empty mask that is found empty costs 1. "
        "Look at the axes of the sums, and at where eps stands.":
            dice_mistake(axes=(0, 2, 3), above=0.0),
    },
)  # fmt: skip
def repair_dice_loss_forward(probs: "n c h w", targets: "n c h w", eps=1.0) -> "loss:":
    """One minus the soft Dice of each channel of each example, averaged."""
    return dice_loss_forward(probs, targets, eps)
