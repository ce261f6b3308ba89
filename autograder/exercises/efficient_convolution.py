"""Lesson 13: depthwise and pointwise convolution, channel shuffle, squeeze-and-excitation, and what they cost."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from autograder.exercise import exercise, gradient_of, module

# --- Depthwise -------------------------------------------------------------------------------------------------------

# What the wrong implementations below are made of.


def own_channel(k, channels, outputs):
    """Which input channel output k reads."""
    return k * channels // outputs


def taken_in_turn(k, channels, outputs):
    """Which one it reads where the m outputs of a channel do not stand side by side."""
    return k % channels


def windows_of(x, w, stride, padding, reads=own_channel):
    """For each output channel the windows that it reads: (n, o, oh, ow, kh, kw)."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    seen = sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return seen[:, [reads(k, x.shape[1], len(w)) for k in range(len(w))]]


def depthwise_with(reads=own_channel, **changes):
    """A depthwise convolution of changed arguments: each change maps the argument's value to another one."""

    def forward(x, w, b, stride=1, padding=0):
        given = dict(x=x, w=w, b=b, stride=stride, padding=padding)
        given |= {name: change(given[name]) for name, change in changes.items()}
        x, w, b, stride, padding = given.values()
        seen = windows_of(x, w, stride, padding, reads)
        return np.einsum("nohwij,oij->nohw", seen, w[:, 0]) + b[:, None, None]

    return forward


def spread(dy, x, w, stride, padding, reads=own_channel, assign=False, step=None):
    """The gradient of the padded images: every output sends dy times its kernel back to its window."""
    (n, c, ih, iw), (oh, ow), step = x.shape, dy.shape[2:], step or stride
    padded = np.zeros((n, c, ih + 2 * padding, iw + 2 * padding))
    for k, i, j in np.ndindex(len(w), *w.shape[2:]):
        place = padded[:, reads(k, c, len(w)), i : i + step * oh : step, j : j + step * ow : step]
        place[:] = dy[:, k] * w[k, 0, i, j] + (0 if assign else place)
    return padded


def cropped(padded, padding):
    return padded[:, :, padding : padded.shape[2] - padding, padding : padded.shape[3] - padding]


def depthwise_backward_with(**changes):
    """The backward pass with some of its gradients changed."""

    def backward(dy, x, w, b, stride=1, padding=0):
        right = dict(
            dx=cropped(spread(dy, x, w, stride, padding), padding),
            dw=np.einsum("nohw,nohwij->oij", dy, windows_of(x, w, stride, padding))[:, None],
            db=dy.sum((0, 2, 3)),
        )
        given = dict(dy=dy, x=x, w=w, stride=stride, padding=padding)
        return tuple((right | {name: change(right[name], **given) for name, change in changes.items()}).values())

    return backward


def summed_over_inputs(x, w, b, stride=1, padding=0):
    """Every output channel reads all input channels with its one kernel."""
    return depthwise_with()(x.sum(1, keepdims=True), w, b, stride, padding)


def summed_over_copies(x, w, b, stride=1, padding=0):
    """The same after the input was made as many channels as the output: each is summed m times."""
    return summed_over_inputs(x * (len(w) // x.shape[1]), w, b, stride, padding)


def side_by_side(x, w, b, stride=1, padding=0):
    """As many windows as the stride leaves, but without a gap between them."""
    oh, ow = ((size + 2 * padding - k) // stride + 1 for size, k in zip(x.shape[2:], w.shape[2:], strict=True))
    return depthwise_with()(x, w, b, 1, padding)[:, :, :oh, :ow]


def sum_over_kernels(dx, copies):
    """(n, c * m, ...) -> (n, c, ...), where each channel has m kernels."""
    return dx.reshape(len(dx), -1, copies, *dx.shape[2:]).sum(2)


def spread_to_copies(dy, x, w, stride, padding, assign=False):
    """The same as `spread`, for an input that has been made as many channels as the output."""
    return spread(dy, np.repeat(x, len(w) // x.shape[1], axis=1), w, stride, padding, assign=assign)


DEPTHWISE = [
    dict(n=2, c=3, ih=5, iw=6, o=3, kh=3, kw=2),
    dict(n=1, c=2, ih=6, iw=5, o=4, kh=2, kw=3, stride=2, padding=1),
    dict(n=2, c=2, ih=6, iw=7, o=6, kh=3, kw=3, stride=2, padding=1),
    dict(n=2, c=4, ih=7, iw=5, o=4, kh=1, kw=3, stride=3, padding=2),
    dict(n=2, c=1, ih=4, iw=3, o=2, kh=2, kw=2, padding=1),
    dict(n=1, c=1, ih=1, iw=1, o=1, kh=1, kw=1),
]


@exercise(
    points=3, minutes=20, difficulty=2, cases=DEPTHWISE,
    hints=(
        "m = len(w) // C kernels belong to each channel. Make the input have as many channels as the output first: "
        "`x.repeat(m, axis=1)` puts the m copies of a channel side by side. Which channel does output k meet then?",
        "Now output k is one plane and one kernel. Pad, and let the kernel's entry (i, j) multiply every stride-th "
        "pixel of the plane at once: `padded[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride]`.",
        "That slice is (N, C·m, oh, ow), and `w[:, 0, i, j]` has one number for each of its channels: two more axes, "
        "`w[:, 0, i, j, None, None]`. Add the KH · KW products up, then the bias in the same way.",
    ),
    mistakes={
        "y takes the input channels in turn: output k reads channel k mod C. In PyTorch the m outputs of a channel "
        "stand side by side: output k reads channel k // m.":
            depthwise_with(taken_in_turn),
        "y sums over the input channels, as a standard convolution does. Here each output channel reads one input "
        "channel and nothing else.":
            summed_over_inputs,
        "y uses the first kernel for all channels. Each output channel has its own: w[k, 0].":
            depthwise_with(w=lambda w: np.broadcast_to(w[:1], w.shape)),
        "y lacks the bias: each output channel adds its own b.":
            depthwise_with(b=np.zeros_like),
        "y has the kernels turned by 180°. What networks call a convolution does not flip: w[k, 0, 0, 0] meets the "
        "top left corner of the window.":
            depthwise_with(w=lambda w: w[:, :, ::-1, ::-1]),
        "y ignores the stride: the window has to move by `stride` pixels from one output to the next.":
            depthwise_with(stride=lambda stride: 1),
        "y ignores the padding: a frame of `padding` zeros goes around every channel first.":
            depthwise_with(padding=lambda padding: 0),
        "y has the kernels transposed, rows for columns: entry (i, j) is row i, column j.":
            lambda x, w, b, stride=1, padding=0: depthwise_with()(x, np.swapaxes(w, 2, 3), b, stride, padding),
        "y is divided by the size of the window: a convolution sums, it does not average.":
            depthwise_with(w=lambda w: w / w[0, 0].size),
        "y sums over the channels of the repeated input. Output k reads one plane of it, the k-th.":
            summed_over_copies,
        "y has as many places as it should, but the windows stand side by side. From one to the next it is `stride` "
        "pixels: a slice needs a step.":
            side_by_side,
        "y has the bias KH · KW times: it is added once, after the loop over the kernel's entries.":
            lambda x, w, b, stride=1, padding=0: depthwise_with()(x, w, b * w[0, 0].size, stride, padding),
    },
)  # fmt: skip
def depthwise_conv2d_forward(x: "n c ih iw", w: "o 1 kh kw", b: "o", stride=1, padding=0) -> "y: ...":
    """Every input channel is convolved by itself, with o / c kernels of its own (Sifre and Mallat, 2014)."""
    return F.conv2d(x, w, b, stride, padding, groups=x.shape[1])


gradient_of(
    depthwise_conv2d_forward, points=5, minutes=35, difficulty=3,
    hints=(
        "Three answers to one question, who was used where? b[k] in every place of plane k: sum dy over the examples "
        "and the places. For dw and dx go through the kernel's entries (i, j) as in the forward pass.",
        "With the same slice as before, dw[k, 0, i, j] is the sum of dy[:, k] · slice over examples and places. And dx "
        "is the way back: into the same slice of a padded array of zeros goes += dy · w[:, 0, i, j].",
        "The m outputs of a channel all read it: add their contributions, "
        "`dpadded.reshape(n, c, m, …).sum(axis=2)`. Last, cut the padding off again: `[:, :, p : p + ih, p : p + iw]`.",
    ),
    mistakes={
        "dx still has the padding around it. What was padded on the way in is cut off on the way back.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: spread(dy, x, w, stride, padding)),
        "dx is cut out of the padded array at the wrong place: it begins `padding` rows and columns in.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                spread(dy, x, w, stride, padding)[:, :, : x.shape[2], : x.shape[3]])),
        "dx keeps only the last contribution to each pixel. Windows overlap, and a channel may have several kernels: "
        "what comes back is added, with +=.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                cropped(spread(dy, x, w, stride, padding, assign=True), padding))),
        "dx keeps, of all entries of the kernel that met a pixel, only what the last one sends back. It is added: +=.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: sum_over_kernels(
                cropped(spread_to_copies(dy, x, w, stride, padding, assign=True), padding), len(w) // x.shape[1])),
        "dx still has C·m channels. The m outputs of a channel all read it: their contributions are added up.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                cropped(spread_to_copies(dy, x, w, stride, padding), padding))),
        "dx has only the first of the m outputs of each channel. All m read it: add their contributions up.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                cropped(spread_to_copies(dy, x, w, stride, padding), padding)[:, :: len(w) // x.shape[1]])),
        "dx is a mean over the m outputs of a channel. Each of them read it: a sum.":
            depthwise_backward_with(dx=lambda dx, x, w, **_: dx / (len(w) // x.shape[1])),
        "dx is empty where the padding is 0, for `p : -p` is then `0 : 0`. Cut with `p : p + ih`.":
            depthwise_backward_with(dx=lambda dx, padding, **_: dx if padding else dx[:, :, :0, :0]),
        "dx sends the gradients to the channels in turn. Output k read channel k // m; that one gets its gradient.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                cropped(spread(dy, x, w, stride, padding, taken_in_turn), padding))),
        "dx ignores the stride: output (i, j) read the window that begins at (i · stride, j · stride).":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                cropped(spread(dy, x, w, stride, padding, step=1), padding))),
        "dx has the kernels turned by 180°. In the scatter form nothing flips: window entry (i, j) gets "
        "dy · w[k, 0, i, j].":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                cropped(spread(dy, x, w[:, :, ::-1, ::-1], stride, padding), padding))),
        "dx ignores the kernels: it counts how much dy each pixel took part in.":
            depthwise_backward_with(dx=lambda _, dy, x, w, stride, padding: (
                cropped(spread(dy, x, np.ones_like(w), stride, padding), padding))),
        "dw is a mean over the batch. A weight collects the gradient of every place and every example where it was "
        "used: a sum.":
            depthwise_backward_with(dw=lambda dw, x, **_: dw / len(x)),
        "dw has the kernels turned by 180°: dw[k, 0, i, j] pairs dy with the window entry (i, j).":
            depthwise_backward_with(dw=lambda dw, **_: dw[:, :, ::-1, ::-1]),
        "dw has lost its axis of length 1. It has the shape of w: (C·m, 1, KH, KW).":
            depthwise_backward_with(dw=lambda dw, **_: dw[:, 0]),
        "dw pairs the outputs with the channels in turn. Output k read channel k // m.":
            depthwise_backward_with(dw=lambda _, dy, x, w, stride, padding: (
                np.einsum("nohw,nohwij->oij", dy, windows_of(x, w, stride, padding, taken_in_turn))[:, None])),
        "db is a mean. Every place of the plane, in every example, had b[k] added to it: a sum.":
            depthwise_backward_with(db=lambda db, dy, **_: dy.mean((0, 2, 3))),
        "db is summed over the places only. The batch has to go as well: its shape is (C·m,).":
            depthwise_backward_with(db=lambda db, dy, **_: dy.sum((2, 3))),
    },
)  # fmt: skip


# --- Pointwise -------------------------------------------------------------------------------------------------------

POINTWISE = [
    dict(n=2, c=3, ih=4, iw=5, o=6),
    dict(n=3, c=5, ih=2, iw=3, o=2),
    dict(n=2, c=3, ih=3, iw=2, o=3),
    dict(n=2, c=4, ih=1, iw=1, o=3),
    dict(n=1, c=1, ih=1, iw=1, o=1),
]


def mixed(w, x):
    """w (o, c) applied to every pixel of x (n, c, h, w)."""
    return np.einsum("oc,nchw->nohw", w, x)


def turned_about(w):
    """The numbers of w (o, c, 1, 1) as (c, o), in the order of the memory."""
    return w.reshape(w.shape[1], w.shape[0])


def rows_reshaped(x, w, b=0):
    """Pixels made rows by reshape alone: nothing is turned."""
    n, c, ih, iw = x.shape
    return (x.reshape(-1, c) @ w.T + b).reshape(n, len(w), ih, iw)


@exercise(
    points=2, minutes=8, difficulty=1, cases=POINTWISE,
    hints=(
        "A pixel is a vector of C channels. What lesson 01's linear layer does to a vector happens here to each pixel: "
        "the kernel has no neighbours to look at.",
        "`w[:, :, 0, 0]` is a matrix (O, C). Sum over the channel axis of x, which stands second: np.einsum with "
        "letters for all axes says exactly that.",
        "`np.einsum(\"oc,nchw->nohw\", w[:, :, 0, 0], x)`, and the bias with two more axes.",
    ),
    mistakes={
        "y lacks the bias: each output channel adds its own b.":
            lambda x, w, b: mixed(w[:, :, 0, 0], x),
        "y uses w as (C, O). Its layout is (O, C, 1, 1): the row w[o] holds the weights of output channel o.":
            lambda x, w, b: np.einsum("co,nchw->nohw", turned_about(w), x) + b[:, None, None],
        "y comes from rows that are no pixels: reshape(-1, C) does not bring the channels to the end, it reads on in "
        "memory order. Transpose first.":
            lambda x, w, b: rows_reshaped(x, w[:, :, 0, 0], b),
        "y was (N, H, W, O) and has been reshaped to (N, O, H, W). That mixes pixels and channels; transpose instead.":
            lambda x, w, b: (x.transpose(0, 2, 3, 1) @ w[:, :, 0, 0].T + b).reshape(
                len(x), len(w), *x.shape[2:]),
        "y averages over the input channels. A convolution sums.":
            lambda x, w, b: mixed(w[:, :, 0, 0], x) / x.shape[1] + b[:, None, None],
        "y has lost the order of its axes: it is (N, H, W, O); the channels stand second.":
            lambda x, w, b: x.transpose(0, 2, 3, 1) @ w[:, :, 0, 0].T + b,
    },
)  # fmt: skip
def pointwise_conv2d_forward(x: "n c ih iw", w: "o c 1 1", b: "o") -> "y: n o ih iw":
    """A 1 × 1 convolution: the same linear layer on every pixel (Lin, Chen and Yan, 2013)."""
    return F.conv2d(x, w, b)


def pointwise_backward_with(**changes):
    """The backward pass with some of its gradients changed."""

    def backward(dy, x, w, b):
        right = dict(
            dx=np.einsum("oc,nohw->nchw", w[:, :, 0, 0], dy),
            dw=np.einsum("nohw,nchw->oc", dy, x)[:, :, None, None],
            db=dy.sum((0, 2, 3)),
        )
        given = dict(dy=dy, x=x, w=w)
        return tuple((right | {name: change(right[name], **given) for name, change in changes.items()}).values())

    return backward


gradient_of(
    pointwise_conv2d_forward, points=3, minutes=12, difficulty=2,
    hints=(
        "It is lesson 01's backward pass with more to sum over: the weights are used at every pixel of every example.",
        "dw[o, c] is the sum of dy[n, o, i, j] · x[n, c, i, j] over n, i, j. For dx, the channels of dy are mixed back "
        "by the same weights: which axis of w is summed over now?",
        "`np.einsum(\"nohw,nchw->oc\", dy, x)` and `np.einsum(\"oc,nohw->nchw\", w[:, :, 0, 0], dy)`; dw needs its two "
        "axes of length 1 again, `[:, :, None, None]`.",
    ),
    mistakes={
        "dx sums over the wrong axis of w: dx[:, c] collects from all outputs o, each with w[o, c].":
            pointwise_backward_with(dx=lambda _, dy, w, **__: np.einsum("co,nohw->nchw", turned_about(w), dy)),
        "dx comes from rows that are no pixels: reshape does not bring the channels to the end. Transpose first.":
            pointwise_backward_with(dx=lambda _, dy, w, **__: rows_reshaped(dy, w[:, :, 0, 0].T)),
        "dw is a mean over the batch. A weight collects from every pixel of every example: a sum.":
            pointwise_backward_with(dw=lambda dw, x, **_: dw / len(x)),
        "dw is a mean over the pixels of an image. A weight collects from every pixel: a sum.":
            pointwise_backward_with(dw=lambda dw, x, **_: dw / (x.shape[2] * x.shape[3])),
        "dw has lost its axes of length 1. It has the shape of w: (O, C, 1, 1).":
            pointwise_backward_with(dw=lambda dw, **_: dw[:, :, 0, 0]),
        "dw is transposed and reshaped into the right shape: dw[o, c] pairs dy[:, o] with x[:, c].":
            pointwise_backward_with(dw=lambda dw, **_: dw[:, :, 0, 0].T.reshape(dw.shape)),
        "dw multiplies two sums. The product of dy and x is taken pixel by pixel, and summed after.":
            pointwise_backward_with(dw=lambda dw, dy, x, **_: np.einsum("nohw,nckl->oc", dy, x)[:, :, None, None]),
        "db is summed over the batch only. All pixels of an output channel share one bias: the shape is (O,).":
            pointwise_backward_with(db=lambda db, dy, **_: dy.sum(0)),
        "db is a mean. Every pixel of every example had b added to it: a sum.":
            pointwise_backward_with(db=lambda db, dy, **_: dy.mean((0, 2, 3))),
    },
)  # fmt: skip


# --- What it costs ---------------------------------------------------------------------------------------------------


def multiple(of, low, high):
    """Draws a multiple of a whole number."""
    return lambda rng, sizes: of * int(rng.integers(low, high))


def pair(low, high):
    """Draws two different whole numbers."""
    return lambda rng, sizes: [int(k) for k in rng.choice(np.arange(low, high), 2, replace=False)]


def counted(**changes):
    """Wrong counts: each change gives one of them from (in, out, kernel entries, places, groups)."""

    def count(in_channels, out_channels, kernel_size, output_size, groups=1):
        given = in_channels, out_channels, int(np.prod(kernel_size)), int(np.prod(output_size)), groups
        i, o, k, places, g = given
        right = dict(
            parameters=lambda i, o, k, places, g: i // g * o * k + o,
            macs=lambda i, o, k, places, g: i // g * o * k * places,
        )
        right |= {name: change for name, change in changes.items() if name != "flops"}
        flops = changes.get("flops", lambda macs: 2 * macs)
        macs = right["macs"](i, o, k, places, g)
        return right["parameters"](i, o, k, places, g), macs, flops(macs)

    return count


def shrunk(in_channels, out_channels, kernel_size, output_size, groups=1):
    """Counts as if output_size were the size of the input."""
    smaller = [size - k + 1 for size, k in zip(output_size, kernel_size, strict=True)]
    return counted()(in_channels, out_channels, kernel_size, smaller, groups)


@exercise(
    points=3, minutes=12, difficulty=1,
    draws=dict(
        in_channels=multiple(12, 1, 4), out_channels=multiple(12, 1, 4), kernel_size=pair(1, 6), output_size=pair(2, 9),
    ),
    cases=[
        dict(),
        dict(groups=2),
        dict(groups=3),
        dict(in_channels=12, groups=12),
        dict(in_channels=6, out_channels=18, groups=6),
        dict(kernel_size=[1, 1]),
        dict(in_channels=1, out_channels=1, kernel_size=[1, 1], output_size=[1, 1]),
    ],
    hints=(
        "One number of the output first: how many weights does it take, if it reads in_channels / groups planes "
        "through a window of KH · KW?",
        "That many weights each of the out_channels kernels has, plus one bias. How often is each weight used in one "
        "image?",
        "Once for every place of the output: macs = weights · OH · OW. The bias takes part in parameters, not in macs.",
    ),
    mistakes={
        "parameters and MACs ignore the groups: a kernel reads in_channels / groups planes, not all.":
            counted(parameters=lambda i, o, k, places, g: i * o * k + o,
                    macs=lambda i, o, k, places, g: i * o * k * places),
        "parameters and MACs are divided by groups². Each group has in / groups times out / groups kernels, but there "
        "are `groups` of them.":
            counted(parameters=lambda i, o, k, places, g: i * o * k // g**2 + o,
                    macs=lambda i, o, k, places, g: i * o * k // g**2 * places),
        "parameters lack the biases: one for every output channel.":
            counted(parameters=lambda i, o, k, places, g: i // g * o * k),
        "parameters have one bias per input channel. A bias belongs to an output channel.":
            counted(parameters=lambda i, o, k, places, g: i // g * o * k + i),
        "parameters have one bias for the whole layer. Every output channel has its own.":
            counted(parameters=lambda i, o, k, places, g: i // g * o * k + 1),
        "parameters and MACs take the kernel for a square one, KH · KH. It is KH · KW.":
            lambda i, o, k, places, g=1: counted()(i, o, (k[0], k[0]), places, g),
        "MACs take the output for a square one, OH · OH. It has OH · OW places.":
            lambda i, o, k, places, g=1: counted()(i, o, k, (places[0], places[0]), g),
        "MACs count each weight once. Every weight is used at every place of the output.":
            counted(macs=lambda i, o, k, places, g: i // g * o * k),
        "MACs count the bias as well. Here a MAC is a weight times an input, added up; the bias is left out.":
            counted(macs=lambda i, o, k, places, g: (i // g * o * k + o) * places),
        "MACs lack the kernel: each output reads KH · KW pixels of every plane.":
            counted(macs=lambda i, o, k, places, g: i // g * o * places),
        "MACs are counted for a smaller output: output_size is the output's already, no kernel has to be taken off.":
            shrunk,
        "FLOPs equal the MACs. A MAC is a multiplication and an addition: two operations.":
            counted(flops=lambda macs: macs),
        "FLOPs are half the MACs. It is the other way round: a MAC is two operations.":
            counted(flops=lambda macs: macs / 2),
    },
)  # fmt: skip
def count_flops(in_channels, out_channels, kernel_size, output_size, groups=1) -> "parameters:, macs:, flops:":
    """What a convolution with bias has to learn, and what it computes for one image."""
    layer = nn.Conv2d(in_channels, out_channels, tuple(kernel_size), groups=groups, dtype=torch.float64)
    parameters = sum(p.numel() for p in layer.parameters())
    size = [k + o - 1 for k, o in zip(kernel_size, output_size, strict=True)]
    ones = torch.ones(1, in_channels, *size, dtype=torch.float64)
    macs = F.conv2d(ones, torch.ones_like(layer.weight), groups=groups).sum().item()  # each product is a 1
    return np.array(parameters), np.array(macs), np.array(2 * macs)


# --- Channel shuffle -------------------------------------------------------------------------------------------------

SHUFFLES = [
    dict(n=2, c=6, ih=2, iw=3, groups=2),
    dict(n=1, c=6, ih=3, iw=2, groups=3),
    dict(n=2, c=12, ih=1, iw=2, groups=3),
    dict(n=3, c=4, ih=2, iw=2, groups=2),
    dict(n=2, c=3, ih=2, iw=1, groups=1),
    dict(n=2, c=4, ih=1, iw=2, groups=4),
    dict(n=1, c=1, ih=1, iw=1, groups=1),
]


def shuffled(x, groups):
    n, c, ih, iw = x.shape
    return x.reshape(n, groups, c // groups, ih, iw).swapaxes(1, 2).reshape(x.shape)


def reversed_groups(x, groups):
    return x.reshape(len(x), groups, -1, *x.shape[2:])[:, ::-1].reshape(x.shape)


def reversed_inside(x, groups):
    return x.reshape(len(x), groups, -1, *x.shape[2:])[:, :, ::-1].reshape(x.shape)


def rolled(x, groups):
    return np.roll(x, x.shape[1] // groups, axis=1)


def over_the_batch(x, groups):
    """The axes of a reshape that forgot the batch."""
    n, c, ih, iw = x.shape
    return x.reshape(groups, n * c // groups, ih, iw).swapaxes(0, 1).reshape(x.shape)


@exercise(
    points=2, minutes=10, difficulty=2, cases=SHUFFLES,
    hints=(
        "Write the six channels of two groups as a table with a row for each group: a0 a1 a2 over b0 b1 b2. In which "
        "order do you have to read it to get a0 b0 a1 b1 a2 b2?",
        "Column by column: the table transposed, then read row by row. The channel axis becomes two axes for that.",
        "reshape to (n, groups, c // groups, h, w), swap axes 1 and 2, reshape back.",
    ),
    mistakes={
        "y is the shuffle backwards: the table has a row for each group, (groups, C / groups), not the other way "
        "round. It is a permutation too, but neighbours come from the same group.":
            lambda x, groups: shuffled(x, x.shape[1] // groups),
        "y has the groups in reverse order, each still in one piece. A shuffle takes one channel from each group in "
        "turn.":
            reversed_groups,
        "y has the channels reversed within each group: no channel has left its group.":
            reversed_inside,
        "y is x, its channels moved on by one group. The groups stay together; a shuffle takes one channel of each in "
        "turn.":
            rolled,
        "y has mixed the examples of the batch: the first axis of x stays as it is, only the channels are arranged "
        "anew.":
            over_the_batch,
    },
)  # fmt: skip
def channel_shuffle(x: "n c ih iw", groups) -> "y: n c ih iw":
    """The channels in a new order: the first of every group, then the second of every group … (Zhang et al., 2018)."""
    return F.channel_shuffle(x, groups)


gradient_of(
    channel_shuffle, points=2, minutes=8, difficulty=2, name="channel_shuffle_backward",
    hints=(
        "A shuffle computes nothing: each number of y is one number of x. So each number of dx is one number of dy. "
        "Which?",
        "The one in the place where it went: dx is dy put back into the old order. The table was read by columns; "
        "dy has to be written back by columns.",
        "reshape dy to (n, c // groups, groups, h, w), swap axes 1 and 2, reshape back: your channel_shuffle with "
        "c // groups groups.",
    ),
    mistakes={
        "dx is dy shuffled once more. Backwards the channels return to where they came from; only for C = groups² is "
        "that the same.":
            lambda dy, x, groups: shuffled(dy, groups),
        "dx has the groups in reverse order. What does the shuffle do to channel 1, and where is its gradient in dy?":
            lambda dy, x, groups: reversed_groups(dy, groups),
        "dx is multiplied by x. The shuffle multiplies nothing; its derivative is 1 where a number went.":
            lambda dy, x, groups: shuffled(dy, x.shape[1] // groups) * x,
        "dx is dy with its channels moved back by one group. The groups were taken apart; put them together again.":
            lambda dy, x, groups: np.roll(dy, -(dy.shape[1] // groups), axis=1),
        "dx has mixed the examples of the batch: only the channels have moved.":
            lambda dy, x, groups: over_the_batch(dy, groups),
    },
)  # fmt: skip


# --- Squeeze and excitation ------------------------------------------------------------------------------------------

EXCITED = [
    dict(n=3, c=4, ih=5, iw=2, r=2),
    dict(n=2, c=3, ih=2, iw=4, r=5),
    dict(n=4, c=6, ih=2, iw=2, r=3),
    dict(n=2, c=5, ih=1, iw=1, r=1),
    dict(n=1, c=1, ih=1, iw=1, r=1),
    dict(n=1, c=1, ih=2, iw=3, r=2),
]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def relu(z):
    return np.maximum(z, 0)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def as_is(z):
    return z


def per_channel(gate):
    """(n, c) -> (n, c, 1, 1)."""
    return gate[:, :, None, None]


def excited(squeeze=lambda x: x.mean((2, 3)), inner=relu, outer=sigmoid, biases=1, use=lambda x, gate: x * gate):
    """Squeeze and excitation with some of its steps changed."""

    def forward(x, w1, b1, w2, b2):
        z = inner(squeeze(x) @ w1.T + biases * b1)
        return use(x, per_channel(outer(z @ w2.T + biases * b2)))

    return forward


@exercise(
    points=3, minutes=15, difficulty=2, cases=EXCITED,
    hints=(
        "Squeeze: one number per channel, the mean of its plane, s (n, c). From there on it is a network of two linear "
        "layers, as in lesson 04.",
        "z = relu(s @ w1.T + b1) is (n, r), gate = sigmoid(z @ w2.T + b2) is (n, c) again. Both biases belong to it.",
        "Excite: each plane of x times its gate, `x * gate[:, :, None, None]`.",
    ),
    mistakes={
        "y is squeezed with the maximum of each plane. Hu et al. take the mean: global average pooling.":
            excited(lambda x: x.max((2, 3))),
        "y is squeezed with the sum of each plane, so that the gate depends on the size of the image. Take the mean.":
            excited(lambda x: x.sum((2, 3))),
        "y is squeezed over the batch as well: every example has gates of its own.":
            excited(lambda x: np.broadcast_to(x.mean((0, 2, 3)), x.shape[:2])),
        "y lacks the ReLU between the two linear layers: without it they are one.":
            excited(inner=as_is),
        "y lacks the sigmoid: a gate lies between 0 and 1.":
            excited(outer=as_is),
        "y has ReLU and sigmoid in each other's places: the ReLU is inside, the gate comes from the sigmoid.":
            excited(inner=sigmoid, outer=relu),
        "y uses a softmax for the gates, so that the channels compete. With a sigmoid each is open or shut by itself.":
            excited(outer=softmax),
        "y has the gate added. A gate multiplies: 0 shuts the channel, 1 lets it pass.":
            excited(use=lambda x, gate: x + gate),
        "y is the gates alone, spread over the planes. They still have to be multiplied with x.":
            excited(use=lambda x, gate: np.broadcast_to(gate, x.shape).copy()),
        "y lacks the biases b1 and b2.":
            excited(biases=0),
    },
)  # fmt: skip
def squeeze_excite_forward(x: "n c ih iw", w1: "r c", b1: "r", w2: "c r", b2: "c") -> "y: n c ih iw":
    """Each channel times a gate in (0, 1) that a small network finds from the means of all (Hu et al., 2018)."""
    squeezed = F.adaptive_avg_pool2d(x, 1).flatten(1)
    gate = torch.sigmoid(F.linear(F.relu(F.linear(squeezed, w1, b1)), w2, b2))
    return x * gate.unflatten(1, (-1, 1, 1))


def excite_backward_with(**changes):
    """The backward pass with some of its intermediate or final gradients changed."""

    def backward(dy, x, w1, b1, w2, b2):
        at = dict(dy=dy, x=x, w1=w1, w2=w2, places=x.shape[2] * x.shape[3])

        def step(name, formula):
            at[name] = formula(**at)
            if name in changes:
                at[name] = changes[name](**at)
            return at[name]

        at["s"] = x.mean((2, 3))
        at["u"] = at["s"] @ w1.T + b1
        at["z"] = relu(at["u"])
        at["gate"] = sigmoid(at["z"] @ w2.T + b2)
        step("dgate", lambda dy, x, **_: (dy * x).sum((2, 3)))
        step("dv", lambda dgate, gate, **_: dgate * gate * (1 - gate))
        step("du", lambda dv, w2, u, **_: dv @ w2 * (u > 0))
        step("ds", lambda du, w1, **_: du @ w1)
        return (
            step("dx", lambda dy, gate, ds, places, **_: dy * per_channel(gate) + per_channel(ds) / places),
            step("dw1", lambda du, s, **_: du.T @ s),
            step("db1", lambda du, **_: du.sum(0)),
            step("dw2", lambda dv, z, **_: dv.T @ z),
            step("db2", lambda dv, **_: dv.sum(0)),
        )

    return backward


gradient_of(
    squeeze_excite_forward, points=5, minutes=35, difficulty=3,
    hints=(
        "y = x · gate, and x is used twice: in the product, and to find the gate. dx has two terms; begin with the "
        "gate: how much dy arrives at the one number that multiplied a whole plane?",
        "dgate = the sum of dy · x over each plane, (n, c). Then back through sigmoid, linear, ReLU, linear as in "
        "lessons 01 and 02, to ds (n, c): dv = dgate · gate · (1 - gate), du = (dv @ w2) · (u > 0), ds = du @ w1.",
        "s is the mean of a plane, so that each of its pixels gets ds / (h · w): dx = dy · gate + ds / (h · w), both "
        "with two more axes.",
    ),
    mistakes={
        "dx takes the gates for constants. x also decides how far they open: a second term is missing.":
            excite_backward_with(dx=lambda dy, gate, **_: dy * per_channel(gate)),
        "dx has only the way through the gates. x stands in the product x · gate as well: that term is dy · gate.":
            excite_backward_with(dx=lambda ds, places, x, **_: per_channel(ds) / places + 0 * x),
        "dx lacks the 1 / (h · w) of the mean: each pixel is one of h · w that the squeeze averages.":
            excite_backward_with(dx=lambda dy, gate, ds, **_: dy * per_channel(gate) + per_channel(ds)),
        "dx has h · w in the wrong place: the direct term dy · gate is not divided by it.":
            excite_backward_with(
                dx=lambda dy, gate, ds, places, **_: (dy * per_channel(gate) + per_channel(ds)) / places),
        "dx, dw1, db1, dw2 and db2 get too little from the gates: one gate multiplied all pixels of a plane, so its "
        "gradient is the sum of dy · x over them, not the mean.":
            excite_backward_with(dgate=lambda dgate, places, **_: dgate / places),
        "dx, dw1, db1, dw2 and db2 lack x in the gradient of the gate: y = x · gate, so it is the sum of dy · x.":
            excite_backward_with(dgate=lambda dy, **_: dy.sum((2, 3))),
        "dx, dw1, db1, dw2 and db2 lack the derivative of the sigmoid, gate · (1 - gate).":
            excite_backward_with(dv=lambda dgate, **_: dgate),
        "dx, dw1, db1, dw2 and db2 have half of the sigmoid's derivative: it is gate · (1 - gate).":
            excite_backward_with(dv=lambda dgate, gate, **_: dgate * gate),
        "dx, dw1 and db1 lack the derivative of the ReLU: where its input was negative, nothing comes back.":
            excite_backward_with(du=lambda dv, w2, **_: dv @ w2),
        "dw1 and dw2 are means over the batch. Weights collect from every example: a sum.":
            excite_backward_with(dw1=lambda dw1, x, **_: dw1 / len(x), dw2=lambda dw2, x, **_: dw2 / len(x)),
        "db1 and db2 are means over the batch. A bias collects from every example: a sum.":
            excite_backward_with(db1=lambda du, **_: du.mean(0), db2=lambda dv, **_: dv.mean(0)),
        "dw1 and dw2 come out transposed: they have the shapes of w1 (r, c) and w2 (c, r).":
            excite_backward_with(dw1=lambda dw1, **_: dw1.T, dw2=lambda dw2, **_: dw2.T),
        "dw2 pairs dv with u, before the ReLU. The second layer saw z = relu(u).":
            excite_backward_with(dw2=lambda dv, u, **_: dv.T @ u),
    },
)  # fmt: skip


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    """Squeeze and excitation with `reduce` and `expand`, two linear layers (Hu et al., 2018)."""

    def __init__(self, channels, reduction):
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, channels)

    def forward(self, x):
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


def gated_with(squeeze=lambda x: x.mean((2, 3)), inner=F.relu, outer=torch.sigmoid, use=lambda gate: gate):
    """The module with some of its steps changed."""

    class Changed(SqueezeExcite):
        def forward(self, x):
            gate = outer(self.expand(inner(self.reduce(squeeze(x)))))
            return x * use(gate)[:, :, None, None]

    return Changed


module(
    SqueezeExcite, points=3, minutes=15, difficulty=2,
    cases=[
        dict(init=dict(channels=4, reduction=2), x=(3, 4, 2, 3)),
        dict(init=dict(channels=6, reduction=3), x=(2, 6, 3, 2)),
        dict(init=dict(channels=3, reduction=1), train=False, x=(2, 3, 1, 1)),
        dict(init=dict(channels=5, reduction=2), x=(1, 5, 2, 2)),
    ],
    hints=(
        "Two linear layers with biases, `self.reduce` from channels to channels // reduction and `self.expand` back. "
        "forward is your squeeze_excite_forward in torch's words.",
        "`x.mean(dim=(2, 3))` squeezes; `torch.relu` comes between the layers, `torch.sigmoid` at the end.",
        "`hidden = torch.relu(self.reduce(means))`, then the sigmoid of `self.expand(hidden)`, then two more axes for "
        "the gate, `[:, :, None, None]`, and times x.",
    ),
    mistakes={
        "y is squeezed with the maximum of each plane. Take the mean.": gated_with(
            squeeze=lambda x: x.amax((2, 3))),
        "y is squeezed over the batch as well: every example has gates of its own.": gated_with(
            squeeze=lambda x: x.mean((0, 2, 3)).expand(x.shape[:2])),
        "y lacks the ReLU between the two linear layers.": gated_with(inner=lambda z: z),
        "y lacks the sigmoid: a gate lies between 0 and 1.": gated_with(outer=lambda z: z),
        "y uses a softmax for the gates, so that the channels compete. Take the sigmoid.": gated_with(
            outer=lambda z: z.softmax(1)),
        "dx takes the gates for constants: .detach() or no_grad has cut them off from the graph.": gated_with(
            use=torch.Tensor.detach),
    },
)  # fmt: skip


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project, and a skip where shapes allow (Sandler et al., 2018).

    The layers are `expand`, `bn1` (both absent for expand_ratio 1), `depthwise`, `bn2`, `project`, `bn3`.
    """

    activations = (F.relu6, F.relu6, nn.Identity())  # after bn1, bn2, bn3

    def __init__(self, in_channels, out_channels, stride, expand_ratio):
        super().__init__()
        inner = in_channels * expand_ratio
        if expand_ratio != 1:
            self.expand = nn.Conv2d(in_channels, inner, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.project = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.fits, self.stride = in_channels == out_channels, stride

    def forward(self, x):
        first, second, last = self.activations
        y = first(self.bn1(self.expand(x))) if hasattr(self, "expand") else x
        y = second(self.bn2(self.depthwise(y)))
        return self.skip(x, last(self.bn3(self.project(y))))

    def skip(self, x, y):
        return x + y if self.fits and self.stride == 1 else y


def inverted_residual_with(**changes):
    return type("InvertedResidual", (InvertedResidual,), changes)


def strided_at(layer):
    """The block with its stride in another of the three convolutions."""

    class Strided(InvertedResidual):
        def __init__(self, in_channels, out_channels, stride, expand_ratio):
            super().__init__(in_channels, out_channels, stride, expand_ratio)
            self.depthwise.stride = (1, 1)
            if hasattr(self, layer):
                getattr(self, layer).stride = (stride, stride)

    return Strided


def thinned(block, x, y):
    """A skip past stride 2, by leaving out every other pixel."""
    return x[:, :, :: block.stride, :: block.stride] + y if block.fits else y


class Unnormalised(InvertedResidual):
    def forward(self, x):
        first, second, _ = self.activations
        y = first(self.bn1(self.expand(x))) if hasattr(self, "expand") else x
        return self.skip(x, self.project(second(self.bn2(self.depthwise(y)))))


def state_of(in_channels, out_channels, expand_ratio):
    """Draws the parameters and buffers of a block; the gains so large that the 6 of ReLU6 is reached."""
    shapes = {
        name: tuple(value.shape)
        for name, value in InvertedResidual(in_channels, out_channels, 1, expand_ratio).state_dict().items()
    }

    def draw(rng, sizes):
        drawn = {name: rng.standard_normal(shape) for name, shape in sorted(shapes.items())}
        for name in drawn:
            if name.endswith("running_var"):
                drawn[name] = rng.uniform(0.2, 3.0, shapes[name])
            elif name.startswith("bn") and name.endswith("weight"):
                drawn[name] = rng.uniform(3.0, 6.0, shapes[name]) * rng.choice([-1, 1], shapes[name])
            elif name.endswith("tracked"):
                drawn[name] = np.array(0)
        return drawn

    return draw


def block_case(in_channels, out_channels, stride, expand_ratio, x):
    state = state_of(in_channels, out_channels, expand_ratio)
    return dict(in_channels=in_channels, out_channels=out_channels, stride=stride, expand_ratio=expand_ratio,
                state=state, x=x)  # fmt: skip


exercise(
    script="block", points=5, minutes=30, difficulty=3,
    draws=dict(seed=lambda rng, sizes: int(rng.integers(2**31))),
    cases=[
        block_case(3, 3, 1, 2, (2, 3, 5, 4)),
        block_case(2, 4, 1, 3, (2, 2, 3, 4)),
        block_case(3, 3, 2, 2, (2, 3, 5, 6)),
        block_case(2, 3, 2, 4, (3, 2, 4, 3)),
        block_case(4, 4, 1, 1, (2, 4, 3, 3)),
        block_case(3, 2, 2, 1, (2, 3, 4, 4)),
    ],
    hints=(
        "Three convolutions without bias, each followed by an nn.BatchNorm2d: `expand` 1 × 1 to in_channels · "
        "expand_ratio channels, `depthwise` 3 × 3 with padding 1 and the stride, `project` 1 × 1 to out_channels.",
        "`depthwise` is an nn.Conv2d with groups equal to its number of channels. For expand_ratio 1 make neither "
        "`expand` nor `bn1`, and start with x itself. ReLU6 (`nn.functional.relu6`) follows bn1 and bn2, nothing "
        "follows bn3.",
        "At the end `x + y`, but only if stride is 1 and in_channels equals out_channels; else y alone. Decide it in "
        "`__init__` and keep the answer as an attribute.",
    ),
    mistakes={
        "y has an activation after the projection, which the narrow layer can't afford: it stays linear.":
            inverted_residual_with(activations=(F.relu6, F.relu6, F.relu6)),
        "y has ReLU where ReLU6 belongs: what exceeds 6 is cut to 6.":
            inverted_residual_with(activations=(F.relu, F.relu, nn.Identity())),
        "y lacks the skip connection: with stride 1 and equal channels x is added at the end.":
            inverted_residual_with(skip=lambda block, x, y: y),
        "y has a skip connection past stride 2, where x was thinned to make the shapes fit. With stride 2 there is "
        "none.":
            inverted_residual_with(skip=thinned),
        "y lacks the activation after the expansion, so that expansion and depthwise convolution are one linear map.":
            inverted_residual_with(activations=(nn.Identity(), F.relu6, nn.Identity())),
        "y lacks the activation after the depthwise convolution.":
            inverted_residual_with(activations=(F.relu6, nn.Identity(), nn.Identity())),
        "y has an activation after the addition. The sum is handed on as it is.":
            inverted_residual_with(skip=lambda block, x, y: F.relu6(InvertedResidual.skip(block, x, y))),
        "y lacks the batch norm after the projection: bn3 exists, but nothing goes through it.":
            Unnormalised,
        "y has the stride in the expansion. It belongs to the depthwise convolution; the expansion reads every pixel.":
            strided_at("expand"),
        "y has the stride in the projection, which throws away what the depthwise convolution found in between. It "
        "belongs to the depthwise convolution.":
            strided_at("project"),
    },
)(InvertedResidual)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


def relu6(z):
    return np.clip(z, 0, 6)


def separable_with(before=as_is, between=relu6, after=as_is):
    """A separable block with its activations elsewhere."""

    def forward(x, w_depth, b_depth, w_point, b_point, stride=1):
        y = between(depthwise_with()(before(x), w_depth, b_depth, stride, 1))
        return after(mixed(w_point[:, :, 0, 0], y) + b_point[:, None, None])

    return forward


def biased_late(x, w_depth, b_depth, w_point, b_point, stride=1):
    """ReLU6 before the bias of the depthwise convolution."""
    y = relu6(depthwise_with()(x, w_depth, np.zeros_like(b_depth), stride, 1)) + b_depth[:, None, None]
    return mixed(w_point[:, :, 0, 0], y) + b_point[:, None, None]


@exercise(
    repair=True, points=3, minutes=12, difficulty=2,
    draws=dict(w_depth=lambda rng, sizes: 3 * rng.standard_normal((sizes["c"], 1, 3, 3))),
    cases=[
        dict(n=2, c=3, ih=4, iw=5, o=4),
        dict(n=2, c=4, ih=5, iw=3, o=2, stride=2),
        dict(n=1, c=2, ih=6, iw=4, o=3, stride=2),
        dict(n=3, c=1, ih=2, iw=2, o=1),
    ],
    hints=(
        "Print the smallest and the largest number of y. Should the output of a block that ends with a projection have "
        "such bounds?",
        "Now look at what stands between the two convolutions. What do you know from lesson 01 about two linear layers "
        "with nothing between?",
        "One line has to move: the clipping belongs after the depthwise convolution's bias, before the pointwise one.",
    ),
    mistakes={
        "y never leaves 0 to 6, and the two convolutions are one linear map: the activation stands after the "
        "projection. It belongs between the two.":
            separable_with(between=as_is, after=relu6),
        "y has no activation at all now: the two convolutions are one linear map. It belongs between them.":
            separable_with(between=as_is),
        "y still never leaves 0 to 6: there is an activation in both places. The projection stays linear.":
            separable_with(after=relu6),
        "y is built on ReLU, without the 6: the activation was cut at 6 from above as well.":
            separable_with(between=relu),
        "y has the activation before the depthwise convolution, on x. It belongs after it.":
            separable_with(before=relu6, between=as_is),
        "y has the activation before the depthwise bias. The bias belongs to the convolution; the activation follows.":
            biased_late,
    },
)  # fmt: skip
def repair_separable_forward(
    x: "n c ih iw", w_depth: "c 1 3 3", b_depth: "c", w_point: "o c 1 1", b_point: "o", stride=1
) -> "y: ...":
    """A depthwise 3 × 3 convolution with padding 1, ReLU6, and a linear pointwise projection."""
    y = F.relu6(F.conv2d(x, w_depth, b_depth, stride, 1, groups=x.shape[1]))
    return F.conv2d(y, w_point, b_point)


# --- Predict ---------------------------------------------------------------------------------------------------------


def block_counts(
    expands=lambda t: t > 1, expand_at="input", project_at="output", depth_at="output", norms=2, biases=0, full=False,
    bn1=lambda t: t > 1, divide=lambda size, stride: -(-size // stride),
):  # fmt: skip
    """Wrong counts of an inverted residual block; the defaults are right."""

    def count(in_channels, out_channels, height, width, stride, expand_ratio):
        inner = in_channels * expand_ratio
        places = {"input": height * width, "output": divide(height, stride) * divide(width, stride)}
        depthwise = 9 * inner * (inner if full else 1)
        weights = {"expand": in_channels * inner * expands(expand_ratio), "depth": depthwise,
                   "project": inner * out_channels}  # fmt: skip
        channels = inner * (expands(expand_ratio) or bn1(expand_ratio)) + inner + out_channels
        at = {"expand": expand_at, "depth": depth_at, "project": project_at}
        macs = sum(weights[name] * places[at[name]] for name in weights)
        return sum(weights.values()) + (norms + biases) * channels, macs

    return count


@exercise(
    points=3, minutes=15, difficulty=2,
    draws=dict(
        in_channels=multiple(4, 2, 6), out_channels=multiple(4, 1, 7),
        height=lambda rng, sizes: int(rng.integers(5, 12)), width=lambda rng, sizes: int(rng.integers(5, 12)),
    ),
    cases=[
        dict(stride=1, expand_ratio=6),
        dict(stride=2, expand_ratio=6),
        dict(stride=2, expand_ratio=3, height=7, width=9),
        dict(stride=1, expand_ratio=1),
        dict(stride=2, expand_ratio=1, height=8, width=5),
    ],
    hints=(
        "Three convolutions in a row. For each: how many weights, and at how many places of its output is each used?",
        "The expansion works on the full image, height · width. The depthwise convolution makes it smaller: with "
        "stride 2, padding 1 and a 3 × 3 kernel, ⌈height / 2⌉ · ⌈width / 2⌉ places are left, the projection's too.",
        "Parameters: the weights, plus a gain and a bias for every channel of each of the three batch norms. For "
        "expand_ratio 1 there is no expansion and no first batch norm.",
    ),
    mistakes={
        "parameters lack those of the batch norms: a gain and a bias for every channel that goes through one.":
            block_counts(norms=0),
        "parameters count one number for each channel of a batch norm. It has two: a gain and a bias.":
            block_counts(norms=1),
        "parameters count the running means and variances as well. A batch norm does not learn them: they are buffers.":
            block_counts(norms=4),
        "parameters count bn1 for expand_ratio 1. Without an expansion there is none.":
            block_counts(bn1=lambda t: True),
        "MACs round the places down where the stride does not divide the size. With padding 1 it is up.":
            block_counts(divide=lambda size, stride: size // stride),
        "MACs are counted with half places where the stride does not divide the size. Round up.":
            block_counts(divide=lambda size, stride: size / stride),
        "parameters count biases of the convolutions as well. A batch norm follows each: bias=False.":
            block_counts(biases=1),
        "parameters and MACs count an expansion for expand_ratio 1. There is none then, and no bn1.":
            block_counts(expands=lambda t: True),
        "parameters and MACs take the middle convolution for a full one. It is depthwise: 9 weights per channel.":
            block_counts(full=True),
        "MACs count the expansion on the small image. The stride is the depthwise convolution's: the expansion comes "
        "before it.":
            block_counts(expand_at="output"),
        "MACs count the projection on the large image. It comes after the stride.":
            block_counts(project_at="input"),
        "MACs ignore the stride: depthwise convolution and projection have ⌈height / stride⌉ · ⌈width / stride⌉ "
        "places.":
            block_counts(depth_at="input", project_at="input"),
        "MACs count the depthwise convolution on the large image. Count the places of its output.":
            block_counts(depth_at="input"),
    },
)  # fmt: skip
def count_inverted_residual(in_channels, out_channels, height, width, stride, expand_ratio) -> "parameters:, macs:":
    """Parameters and MACs of an inverted residual block."""
    block, macs = InvertedResidual(in_channels, out_channels, stride, expand_ratio), []
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, y: macs.append(y.numel() * layer.weight[0].numel()))
    with torch.no_grad():
        block.eval()(torch.zeros(1, in_channels, height, width))
    return np.array(sum(p.numel() for p in block.parameters())), np.array(sum(macs))


@exercise(
    points=2, minutes=10, difficulty=2,
    draws=dict(
        phi=lambda rng, sizes: float(rng.uniform(0.5, 4)), alpha=lambda rng, sizes: float(rng.uniform(1.1, 1.5)),
        beta=lambda rng, sizes: float(rng.uniform(1.05, 1.4)), gamma=lambda rng, sizes: float(rng.uniform(1.02, 1.3)),
    ),
    cases=[dict(), dict(phi=1), dict(phi=0), dict(phi=5), dict(phi=3.0, alpha=1.2, beta=1.1, gamma=1.15)],
    hints=(
        "Each factor is a power: depth grows by alpha for every whole step of phi, so after phi steps …",
        "FLOPs: twice as many layers, twice the cost. Twice the channels: each kernel reads twice as many, and there "
        "are twice as many kernels. Twice the height and width: how many places?",
        "flops = depth · width² · resolution².",
    ),
    mistakes={
        "FLOPs are the product of the three factors. Width counts twice (channels in and out), and so does resolution "
        "(height and width).":
            lambda phi, alpha, beta, gamma: (alpha**phi, beta**phi, gamma**phi, (alpha * beta * gamma) ** phi),
        "FLOPs have a square on every factor. Depth counts once: twice the layers are twice the work.":
            lambda phi, alpha, beta, gamma: (alpha**phi, beta**phi, gamma**phi, (alpha * beta * gamma) ** (2 * phi)),
        "FLOPs are 2 to the power of phi, whatever alpha, beta and gamma. That holds only where alpha · beta² · gamma² "
        "is 2.":
            lambda phi, alpha, beta, gamma: (alpha**phi, beta**phi, gamma**phi, 2.0**phi),
        "FLOPs lack the square of the resolution: an image is resolved in two directions.":
            lambda phi, alpha, beta, gamma: (alpha**phi, beta**phi, gamma**phi, (alpha * beta**2 * gamma) ** phi),
        "FLOPs lack the square of the width: a layer has more channels to read and more to write.":
            lambda phi, alpha, beta, gamma: (alpha**phi, beta**phi, gamma**phi, (alpha * beta * gamma**2) ** phi),
        "depth, width, resolution and FLOPs are multiplied by phi. Each step of phi multiplies by the factor once "
        "more: a power.":
            lambda phi, alpha, beta, gamma: (alpha * phi, beta * phi, gamma * phi, alpha * beta**2 * gamma**2 * phi),
    },
)  # fmt: skip
def compound_scaling(phi, alpha, beta, gamma) -> "depth:, width:, resolution:, flops:":
    """By which factors compound scaling changes a network and what it computes (Tan and Le, 2019)."""
    logarithms = torch.tensor([alpha, beta, gamma], dtype=torch.float64).log() * phi
    cost = torch.tensor([1.0, 2, 2], dtype=torch.float64) @ logarithms
    return tuple(torch.cat([logarithms, cost[None]]).exp())
