"""Lesson 09: convolution forwards and backwards, by loops, by columns, and fast."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from autograder.exercise import exercise, gradient_of, module

# What the wrong implementations below are made of.


def taps(x, kernel_size, stride=1, padding=0, dilation=1, mode="constant"):
    """The window of every output (n, c, oh, ow, kh, kw)."""
    kh, kw = kernel_size
    around = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode=mode)
    views = sliding_window_view(around, (dilation * (kh - 1) + 1, dilation * (kw - 1) + 1), axis=(2, 3))
    return views[:, :, ::stride, ::stride, ::dilation, ::dilation]


def contracted(views, w, b, groups=1):
    """The windows (n, c, oh, ow, kh, kw) against the weights, group by group."""
    parts = zip(np.split(views, groups, axis=1), np.split(w, groups), strict=True)
    y = [np.einsum("ncijuv,ocuv->noij", part, kernels, optimize=True) for part, kernels in parts]
    return np.concatenate(y, axis=1) + b[:, None, None]


def convolved(x, w, b, stride=1, padding=0, dilation=1, groups=1, mode="constant"):
    return contracted(taps(x, w.shape[2:], stride, padding, dilation, mode), w, b, groups)


def below(x, rows):
    """More rows of zeros below, and as many columns on the right."""
    return np.pad(x, ((0, 0), (0, 0), (0, rows), (0, rows)))


def close_taps(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """As many windows as a dilated kernel has, but their taps stand side by side."""
    kh, kw = w.shape[2:]
    views = taps(x, (dilation * (kh - 1) + 1, dilation * (kw - 1) + 1), stride, padding)
    return contracted(views[..., :kh, :kw], w, b, groups)


def too_wide(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """A kernel of k taps taken to be dilation · k wide."""
    kh, kw = w.shape[2:]
    views = taps(x, (dilation * kh, dilation * kw), stride, padding)
    return contracted(views[..., ::dilation, ::dilation], w, b, groups)


def far_starts(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """Windows that start at multiples of stride · dilation."""
    return convolved(x, w, b, stride * dilation, padding, dilation, groups)


def one_way(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """The stride in the rows alone."""
    views = taps(x, w.shape[2:], 1, padding, dilation)[:, :, ::stride]
    return contracted(views, w, b, groups)


def near_starts(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """As many windows as the stride leaves, each one cell after the last."""
    rows, columns = convolved(x, w, b, stride, padding, dilation, groups).shape[2:]
    return convolved(x, w, b, 1, padding, dilation, groups)[:, :, :rows, :columns]


def padded_everywhere(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """Pictures and channels of zeros before the others, which fall out at the end."""
    around = np.pad(x, padding)[: x.shape[0], : x.shape[1]]
    return convolved(around, w, b, stride, 0, dilation, groups)


def rounded_up(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """One more window where the last step does not fit."""
    lacking = [-(size + 2 * padding - dilation * (k - 1) - 1) % stride for size, k in
               zip(x.shape[2:], w.shape[2:], strict=True)]  # fmt: skip
    p = padding
    around = np.pad(x, ((0, 0), (0, 0), (p, p + lacking[0]), (p, p + lacking[1])))
    return convolved(around, w, b, stride, 0, dilation, groups)


def first_channels(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """Every group looks at the first group's channels."""
    return convolved(np.tile(x[:, : w.shape[1]], (1, groups, 1, 1)), w, b, stride, padding, dilation, groups)


def interleaved(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """Output channel o belongs to group o mod groups."""
    order = np.argsort(np.arange(len(w)) % groups, kind="stable")
    y = np.empty_like(at := convolved(x, w[order], b[order], stride, padding, dilation, groups))
    y[:, order] = at
    return y


def dealt_channels(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """Group g looks at the channels g, g + groups, …"""
    order = np.argsort(np.arange(x.shape[1]) % groups, kind="stable")
    return convolved(x[:, order], w, b, stride, padding, dilation, groups)


def mixed_batch(y):
    """The numbers of y (n, o, h, w) as they come when (o, n, h, w) is taken for (n, o, h, w)."""
    return y.swapaxes(0, 1).reshape(y.shape)


# --- Sizes -----------------------------------------------------------------------------------------------------------


def sized(formula, refuses=lambda size, kernel_size, stride, padding, dilation: (
    size + 2 * padding < dilation * (kernel_size - 1) + 1
)):  # fmt: skip
    """conv_output_size by another formula."""

    def conv_output_size(size, kernel_size, stride=1, padding=0, dilation=1):
        if refuses(size, kernel_size, stride, padding, dilation):
            raise ValueError
        return formula(size, kernel_size, stride, padding, dilation)

    return conv_output_size


def right_size(size, kernel_size, stride, padding, dilation):
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def between(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


@exercise(
    script="output_size", points=2, minutes=12, difficulty=1,
    cases=[
        dict(size=between(20, 40), kernel_size=5),
        dict(size=between(20, 40), kernel_size=4, stride=2),
        dict(size=21, kernel_size=3, stride=2, padding=1),
        dict(size=22, kernel_size=3, stride=2, padding=1),
        dict(size=24, kernel_size=3, stride=2, padding=1),
        dict(size=21, kernel_size=4, stride=3),
        dict(size=between(20, 40), kernel_size=3, padding=2, dilation=2),
        dict(size=between(20, 40), kernel_size=4, stride=3, padding=1, dilation=3),
        dict(size=7, kernel_size=7),
        dict(size=3, kernel_size=7, padding=2),
        dict(size=4, kernel_size=3, dilation=2, padding=1, stride=5),
        dict(size=1, kernel_size=1, stride=4),
        dict(size=between(2, 6), kernel_size=7, fits=False),
        dict(size=4, kernel_size=3, dilation=2, fits=False),
        dict(size=5, kernel_size=8, padding=1, stride=2, fits=False),
        dict(size=3, kernel_size=4, stride=2, fits=False),
    ],
    hints=(
        "How many places can the left end of the kernel take? Draw 7 cells and a kernel of 3, and count; then padding "
        "on both sides, then a stride of 2.",
        "A kernel of k taps with dilation d is d · (k - 1) + 1 cells wide. Within size + 2 · padding cells it can be "
        "moved to the right by what is left over.",
        "What is left over, divided by the stride and rounded down, is the number of steps; the first place makes one "
        "more. Where less than nothing is left over, raise ValueError(\"…\") instead.",
    ),
    mistakes={
        "size is one too small: it counts the steps between the windows. The first window needs no step.":
            sized(lambda *geometry: right_size(*geometry) - 1),
        "size counts the padding once. It is added at both ends.":
            sized(lambda s, k, stride, p, d: right_size(s + p, k, stride, 0, d)),
        "size ignores the padding.":
            sized(lambda s, k, stride, p, d: right_size(s, k, stride, 0, d)),
        "size ignores the stride.":
            sized(lambda s, k, stride, p, d: right_size(s, k, 1, p, d)),
        "size ignores the dilation: the taps stand dilation cells apart, so that the kernel is wider than it has taps.":
            sized(lambda s, k, stride, p, d: right_size(s, k, stride, p, 1)),
        "size takes the kernel to be dilation · kernel_size cells wide. Between k taps there are k - 1 gaps.":
            sized(lambda s, k, stride, p, d: right_size(s, d * k, stride, p, 1)),
        "size is rounded up: a last window that would stick out does not count.":
            sized(lambda s, k, stride, p, d: -((d * (k - 1) + 1 - s - 2 * p) // stride) + 1),
        "size is rounded to the nearest whole number. A window that sticks out by little does not count either: round "
        "down.":
            sized(lambda s, k, stride, p, d: round((s + 2 * p - d * (k - 1) - 1) / stride + 1)),
        "size has its steps rounded to the nearest whole number. Half a step is no step: round down.":
            sized(lambda s, k, stride, p, d: round((s + 2 * p - d * (k - 1) - 1) / stride) + 1),
        "size has the 1 added before the division. The steps are rounded down first; one more is for the first place.":
            sized(lambda s, k, stride, p, d: (s + 2 * p - d * (k - 1)) // stride),
        "size is not rounded at all. A number of windows is a whole number: // instead of /.":
            sized(lambda s, k, stride, p, d: (s + 2 * p - d * (k - 1) - 1) / stride + 1),
        "refusals: a kernel that does not fit gets a size. There is no such output: raise ValueError instead.":
            sized(right_size, lambda *geometry: False),
        "refusals: a kernel that is too large by less than a stride gets through: -1 / 2 + 1 is more than 0, and "
        "int(-1 / 2) is 0. Ask whether the kernel fits before you divide.":
            sized(right_size, lambda s, k, stride, p, d: int((s + 2 * p - d * (k - 1) - 1) / stride) + 1 < 1),
        "refusals: a size of 0 gets through. An output without a window is none: raise ValueError there, too.":
            sized(right_size, lambda *geometry: right_size(*geometry) < 0),
        "refusals: the taps of a dilated kernel are counted, not the cells that it spans. It needs dilation · "
        "(kernel_size - 1) + 1 of them.":
            sized(right_size, lambda s, k, stride, p, d: s + 2 * p < k),
    },
)  # fmt: skip
def conv_output_size(size, kernel_size, stride=1, padding=0, dilation=1):
    """The length of a convolution's output along one axis; ValueError where the kernel does not fit."""
    line, kernel = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel_size)
    try:
        return F.conv1d(line, kernel, None, stride, padding, dilation).shape[-1]
    except RuntimeError as error:
        raise ValueError(f"{error}") from None


# --- By loops --------------------------------------------------------------------------------------------------------

CASES = [
    dict(n=2, c=3, ih=6, iw=7, o=5, i=3, kh=4, kw=2),
    dict(n=1, c=2, ih=6, iw=5, o=3, i=2, kh=3, kw=3, stride=2, padding=1),
    dict(n=2, c=1, ih=7, iw=8, o=2, i=1, kh=2, kw=3, stride=3, padding=2),
    dict(n=1, c=2, ih=7, iw=5, o=2, i=2, kh=3, kw=2, dilation=2, padding=1),
    dict(n=2, c=4, ih=6, iw=7, o=6, i=2, kh=2, kw=3, stride=2, padding=2, dilation=2, groups=2),
    dict(n=1, c=3, ih=4, iw=3, o=6, i=1, kh=3, kw=1, groups=3),
    dict(n=1, c=1, ih=1, iw=1, o=1, i=1, kh=1, kw=1),
    dict(n=2, c=3, ih=3, iw=4, o=2, i=3, kh=3, kw=4),
    dict(n=3, c=4, ih=2, iw=3, o=2, i=2, kh=1, kw=1, padding=1, groups=2),
]


def scaled_bias(x, w, b, *geometry):
    """The bias added with every product."""
    return convolved(x, w, b * w[0].size, *geometry)


@exercise(
    points=5, minutes=30, difficulty=2, cases=CASES,
    hints=(
        "Begin with one picture, one output channel, stride 1, nothing else: two loops over the output's rows and "
        "columns, and in each turn `(x[0, :, i : i + kh, j : j + kw] * w[0]).sum() + b[0]`.",
        "Padding: put x into the middle of an array of zeros first, and forget it. Stride and dilation: the window of "
        "y[…, i, j] starts at row i · stride and takes every dilation-th row, `i * stride : i * stride + dilation * "
        "(kh - 1) + 1 : dilation`.",
        "Groups: the c channels are cut into `groups` runs of c // groups neighbours, the output channels into as many "
        "runs of o // groups. Output channel k belongs to group k // (o // groups), and sees that group's channels "
        "only.",
        "`g = k // (o // groups)`, `window = padded[m, g * i : (g + 1) * i, rows, columns]` with i = w.shape[1], and "
        "`y[m, k, row, column] = (window * w[k]).sum() + b[k]`.",
    ),
    mistakes={
        "y has every kernel turned by 180 degrees: that is the convolution of mathematics. Layers lay the kernel on "
        "the picture as it is.":
            lambda x, w, *rest: convolved(x, w[..., ::-1, ::-1], *rest),
        "y lacks the bias: b[k] is added to every number of channel k.":
            lambda x, w, b, *geometry: convolved(x, w, 0 * b, *geometry),
        "y has the bias as often as there are products. It is added once, after the sum.": scaled_bias,
        "y ignores the stride.":
            lambda x, w, b, stride=1, *rest: convolved(x, w, b, 1, *rest),
        "y has the right number of windows, but each starts one cell after the last: window i starts at i · stride.":
            near_starts,
        "y has the stride in its rows only. Columns make the same steps.": one_way,
        "y ignores the padding.":
            lambda x, w, b, stride=1, padding=0, *rest: convolved(x, w, b, stride, 0, *rest),
        "y has padding along all four axes: np.pad(x, padding) also puts pictures and channels of zeros before yours. "
        "Give it a pair of numbers for each axis.": padded_everywhere,
        "y has all its padding below and on the right: the zeros go around x, `padding` of them on each side.":
            lambda x, w, b, stride=1, padding=0, *rest: convolved(below(x, 2 * padding), w, b, stride, 0, *rest),
        "y has padding above and on the left, none below and on the right.":
            lambda x, w, b, stride=1, padding=0, *rest: convolved(
                np.pad(x, ((0, 0), (0, 0), (padding, 0), (padding, 0))), w, b, stride, 0, *rest),
        "y is padded with copies of the border. The padding consists of zeros.":
            lambda x, w, b, stride=1, padding=0, dilation=1, groups=1: convolved(
                x, w, b, stride, padding, dilation, groups, mode="edge"),
        "y ignores the dilation.":
            lambda x, w, b, stride=1, padding=0, dilation=1, groups=1: convolved(x, w, b, stride, padding, 1, groups),
        "y has the right number of windows, but their cells are neighbours: between two taps lie dilation - 1 cells "
        "that are left out.": close_taps,
        "y is too small where dilation is above 1: a kernel of k taps spans dilation · (k - 1) + 1 cells, not dilation "
        "· k.": too_wide,
        "y has windows that start at multiples of stride · dilation. Dilation spreads the taps of one window; only the "
        "stride moves the window.": far_starts,
        "y has one window too many where the last step does not fit: round the size down.": rounded_up,
        "y sees the channels of the first group in every group. Group g has the channels from g · (c // groups) on.":
            first_channels,
        "y deals the channels to the groups in turn, like cards. A group is a run of neighbouring channels.":
            dealt_channels,
        "y gives the kernels to the groups in turn, like cards: output channel k belongs to group k // (o // groups).":
            interleaved,
        "y uses one kernel, w[0], for all output channels.":
            lambda x, w, *rest: convolved(x, np.repeat(w[:1], len(w), axis=0), *rest),
        "y uses one channel of each kernel for all channels. w[k] has a slice of its own for every channel it sees.":
            lambda x, w, *rest: convolved(x, np.repeat(w[:, :1], w.shape[1], axis=1), *rest),
        "y is the mean of the products. It is their sum.":
            lambda x, w, *rest: convolved(x, w / w[0].size, *rest),
        "y has the first picture of the batch everywhere.":
            lambda x, *rest: convolved(np.repeat(x[:1], len(x), axis=0), *rest),
    },
)  # fmt: skip
def conv2d_forward(x: "n c ih iw", w: "o i kh kw", b: "o", stride=1, padding=0, dilation=1, groups=1) -> "y: ...":
    """Each number of y is one window of x, times one kernel, summed up, plus the kernel's bias."""
    return F.conv2d(x, w, b, stride, padding, dilation, groups)


def conv_backward(cut="middle", collect=True, every=True, **changes):
    """A backward pass of conv2d_forward; `changes` replaces gradients by functions of the arguments and the right ones.

    cut      which part of the padded gradient becomes dx
    collect  whether overlapping windows add up
    every    whether the weights collect from all pictures
    """

    def backward(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
        (n, c, h, width), (o, i, kh, kw), (oh, ow) = x.shape, w.shape, dy.shape[2:]
        s, p, d = stride, padding, dilation
        views = taps(x, (kh, kw), s, p, d).reshape(n, groups, i, oh, ow, kh, kw)
        dys, ws = dy.reshape(n, groups, o // groups, oh, ow), w.reshape(groups, o // groups, i, kh, kw)
        dw = np.einsum("ngkij,ngcijuv->ngkcuv", dys, views, optimize=True).reshape(n, *w.shape)
        around = np.zeros((n, c, h + 2 * p, width + 2 * p))
        for u, v in np.ndindex(kh, kw):
            part = around[:, :, u * d : u * d + s * oh : s, v * d : v * d + s * ow : s]
            arriving = np.einsum("ngkij,gkc->ngcij", dys, ws[..., u, v]).reshape(n, c, oh, ow)
            part[:] = part + arriving if collect else arriving
        at = {"middle": p, "start": 0, "end": 2 * p}[cut]
        dx = around[:, :, at : at + h, at : at + width]
        right = dict(dx=dx, dw=dw.sum(0) if every else dw[-1], db=dy.sum((0, 2, 3)))
        given = dict(dy=dy, x=x, w=w, b=b, stride=s, padding=p, dilation=d, groups=groups, **right)
        return tuple((right | {name: change(**given) for name, change in changes.items()}).values())

    return backward


def overwritten(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """The gradients by loops that keep the last product instead of adding up."""
    (n, o, oh, ow), (_, i, kh, kw), (h, width) = dy.shape, w.shape, x.shape[2:]
    around, dpadded = (np.pad(a, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2)) for a in (x, 0 * x))
    dw, db = np.zeros_like(w), np.zeros_like(b)
    for m, k, row, column in np.ndindex(n, o, oh, ow):
        first, up, left = k // (o // groups) * i, row * stride, column * stride
        rows = slice(up, up + dilation * (kh - 1) + 1, dilation)
        columns = slice(left, left + dilation * (kw - 1) + 1, dilation)
        db[k] = dy[m, k, row, column]
        dw[k] = db[k] * around[m, first : first + i, rows, columns]
        dpadded[m, first : first + i, rows, columns] = db[k] * w[k]
    return dpadded[:, :, padding : padding + h, padding : padding + width], dw, db


def interleaved_kernels(dy, x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """The gradients of `interleaved`."""
    order = np.argsort(np.arange(len(w)) % groups, kind="stable")
    dx, dealt, _ = conv_backward()(dy[:, order], x, w[order], b, stride, padding, dilation, groups)
    dw = np.empty_like(w)
    dw[order] = dealt
    return dx, dw, dy.sum((0, 2, 3))


def last(name):
    """The gradient `name` of `overwritten`."""
    names, place = ("dy", "x", "w", "b", "stride", "padding", "dilation", "groups"), ("dx", "dw", "db").index(name)
    return lambda **given: overwritten(*(given[key] for key in names))[place]


def other(name, **changed):
    """The gradient `name` of other arguments: {argument: (right ones) -> another}."""
    place = ("dx", "dw", "db").index(name)
    names = ("dy", "x", "w", "b", "stride", "padding", "dilation", "groups")

    def change(**given):
        given = {key: given[key] for key in names}
        return conv_backward()(**given | {key: f(given) for key, f in changed.items()})[place]

    return change


def turned(given):
    return given["w"][..., ::-1, ::-1]


gradient_of(
    conv2d_forward, points=7, minutes=45, difficulty=3,
    cases=[
        dict(n=2, c=3, ih=5, iw=6, o=5, i=3, kh=4, kw=2),
        dict(n=2, c=2, ih=6, iw=5, o=3, i=2, kh=3, kw=3, stride=2, padding=1),
        dict(n=1, c=1, ih=7, iw=8, o=2, i=1, kh=2, kw=3, stride=3, padding=2),
        dict(n=1, c=2, ih=6, iw=5, o=2, i=2, kh=3, kw=2, dilation=2, padding=1),
        dict(n=2, c=4, ih=5, iw=6, o=6, i=2, kh=2, kw=3, stride=2, padding=2, dilation=2, groups=2),
        dict(n=1, c=3, ih=4, iw=3, o=6, i=1, kh=3, kw=1, groups=3),
        dict(n=1, c=1, ih=1, iw=1, o=1, i=1, kh=1, kw=1),
        dict(n=3, c=4, ih=2, iw=3, o=2, i=2, kh=1, kw=1, padding=1, groups=2),
    ],
    hints=(
        "Take the loops of conv2d_forward and walk through them once more. In each turn one number dy[m, k, row, "
        "column] has come out of one window and one kernel: what do those get from it?",
        "db[k] collects the number itself, dw[k] the number times the window, and the window in dx the number times "
        "w[k]: `+=`, since windows overlap, and since a kernel is used everywhere.",
        "Collect dx in an array as large as the padded x, and cut the padding off at the end.",
        "In the innermost turn: `db[k] += g`, `dw[k] += g * padded[m, channels, rows, columns]`, `dpadded[m, channels, "
        "rows, columns] += g * w[k]`, with g = dy[m, k, row, column] and the slices of the forward pass. At the end "
        "`dx = dpadded[:, :, padding : padding + h, padding : padding + width]`.",
    ),
    mistakes={
        "dx lets each window overwrite the one before it. Where windows overlap, a pixel went into several outputs, "
        "and collects from all of them: += instead of =.":
            conv_backward(collect=False),
        "dx keeps what came last: what other windows and other kernels sent to the same pixel is overwritten. They all "
        "count: += instead of =.":
            conv_backward(dx=last("dx")),
        "dx is cut out at the wrong place: the first `padding` rows and columns belong to the zeros, too.":
            conv_backward(cut="start"),
        "dx is cut out too far below: `padding` rows and columns come off at each side.":
            conv_backward(cut="end"),
        "dx still has the padding around it. The zeros were no input: cut them off.":
            conv_backward(dx=other("dx", x=lambda given: np.pad(
                given["x"], ((0, 0), (0, 0), (given["padding"],) * 2, (given["padding"],) * 2)),
                padding=lambda given: 0)),
        "dx uses kernels turned by 180 degrees. Where the forward pass took x times w[k], the same tap of w[k] sends "
        "the gradient back; turning is for another formula, which reads dy through windows.":
            conv_backward(dx=other("dx", w=turned)),
        "dx lets all kernels send back what the first one weighs: w[0] instead of w[k].":
            conv_backward(dx=other("dx", w=lambda given: np.repeat(given["w"][:1], len(given["w"]), axis=0))),
        "dw keeps the last product only. Every window of every picture met the kernel, and dw[k] collects from all of "
        "them: += instead of =.":
            conv_backward(dw=last("dw")),
        "dw is turned by 180 degrees.":
            conv_backward(dw=lambda dw, **_: dw[..., ::-1, ::-1]),
        "dw comes from the last picture alone: every picture used the kernel, so that the sum runs over the batch too.":
            conv_backward(every=False),
        "dw and db are means over the batch. A parameter collects from every use: a sum.":
            conv_backward(dw=lambda dw, x, **_: dw / len(x), db=lambda db, x, **_: db / len(x)),
        "dw ignores dy: it adds up the windows. The chain rule multiplies each by the number that arrives for it.":
            conv_backward(dw=other("dw", dy=lambda given: np.ones_like(given["dy"]))),
        "dw leaves out what the padding shifts: the windows start `padding` rows and columns further up and left.":
            conv_backward(dw=other("dw", x=lambda given: below(given["x"], 2 * given["padding"]),
                                   padding=lambda given: 0)),
        "dx and dw give the kernels to the groups in turn, like cards: kernel k belongs to group k // (o // groups).":
            interleaved_kernels,
        "dw has the first group's channels in every group.":
            conv_backward(dw=other("dw", x=lambda given: np.tile(
                given["x"][:, : given["w"].shape[1]], (1, given["groups"], 1, 1)))),
        "db keeps the last number only. db[k] collects from every position of every picture: += instead of =.":
            conv_backward(db=last("db")),
        "db ignores dy: it counts the outputs.":
            conv_backward(db=lambda dy, **_: np.ones_like(dy).sum((0, 2, 3))),
        "db is summed over the batch only. The bias was added to every number of its channel: sum over rows and "
        "columns, too.":
            conv_backward(db=lambda dy, **_: dy.sum(0)),
        "db has one sum for all channels.":
            conv_backward(db=lambda dy, b, **_: np.full(b.shape, dy.sum())),
        "db is the mean over the positions. It is a sum.":
            conv_backward(db=lambda dy, **_: dy.mean((2, 3)).sum(0)),
    },
)  # fmt: skip


# --- By columns ------------------------------------------------------------------------------------------------------

PATCHES = [
    dict(n=2, c=3, h=5, w=6, kernel_size=(3, 2)),
    dict(n=2, c=2, h=6, w=5, kernel_size=(3, 3), stride=2, padding=1),
    dict(n=1, c=1, h=7, w=8, kernel_size=(2, 3), stride=3, padding=2),
    dict(n=1, c=2, h=7, w=5, kernel_size=(3, 2), dilation=2, padding=1),
    dict(n=2, c=2, h=6, w=7, kernel_size=(2, 3), stride=2, padding=2, dilation=2),
    dict(n=1, c=1, h=1, w=1, kernel_size=(1, 1)),
    dict(n=2, c=3, h=3, w=4, kernel_size=(3, 4)),
]


def in_columns(order="ncuvij", of=taps):
    """im2col with its axes n, c, (u, v) within and (i, j) of the windows in another order."""

    def columns(x, kernel_size, stride=1, padding=0, dilation=1):
        views = np.einsum(f"ncijuv->{order}", of(x, kernel_size, stride, padding, dilation))
        if order == "ncuvij":
            return views.reshape(len(x), x.shape[1] * kernel_size[0] * kernel_size[1], -1)
        a, b, c, d, e = views.shape[1:]
        return views.reshape(len(x), a * b * c, d * e) if order[3] in "uvc" else views.reshape(len(x), a * b, c * d * e)

    return columns


def windows_as_rows(x, kernel_size, stride=1, padding=0, dilation=1):
    """Each window a row, and the rows' numbers poured into the shape of the columns."""
    rows = np.einsum("ncijuv->nijcuv", taps(x, kernel_size, stride, padding, dilation))
    return rows.reshape(len(x), x.shape[1] * kernel_size[0] * kernel_size[1], -1)


@exercise(
    points=4, minutes=25, difficulty=2, cases=PATCHES,
    hints=(
        "Forget the order at first: an array `columns` of shape (n, c, kh, kw, oh, ow), where columns[…, u, v, i, j] "
        "is the cell in row u, column v of the window (i, j).",
        "For one tap (u, v), all windows at once: their cells lie in the padded x in rows u · dilation, u · dilation + "
        "stride, … That is a slice with a step. How many cells does it take?",
        "`columns[:, :, u, v] = padded[:, :, u * dilation : u * dilation + stride * oh : stride, …]`, two loops over "
        "the taps, and a reshape to (n, c * kh * kw, oh * ow) at the end.",
    ),
    mistakes={
        "columns has its last two axes in each other's places: a column, the last axis fixed, is one window.":
            in_columns("nijcuv"),
        "columns has windows that were laid out as rows, then reshaped. reshape never reorders numbers: swap the two "
        "axes instead.": windows_as_rows,
        "columns has the channels innermost. A window is laid out channel by channel: (c, kh, kw).":
            in_columns("nuvcij"),
        "columns lays each window out column by column. Rows come first, as everywhere in NumPy: (kh, kw).":
            in_columns("ncvuij"),
        "columns has the windows in the wrong order: along a row first, then the next row.":
            in_columns("ncuvji"),
        "columns ignores the stride.":
            in_columns(of=lambda x, k, s, p, d: taps(x, k, 1, p, d)),
        "columns ignores the padding.":
            in_columns(of=lambda x, k, s, p, d: taps(x, k, s, 0, d)),
        "columns has all its padding below and on the right.":
            in_columns(of=lambda x, k, s, p, d: taps(below(x, 2 * p), k, s, 0, d)),
        "columns ignores the dilation.":
            in_columns(of=lambda x, k, s, p, d: taps(x, k, s, p, 1)),
        "columns has as many windows as it should, but their cells are neighbours in spite of the dilation.":
            in_columns(of=lambda x, k, s, p, d: taps(
                x, (d * (k[0] - 1) + 1, d * (k[1] - 1) + 1), s, p)[..., : k[0], : k[1]]),
        "columns has windows turned by 180 degrees.":
            in_columns(of=lambda *given: taps(*given)[..., ::-1, ::-1]),
    },
)  # fmt: skip
def im2col(x: "n c h w", kernel_size, stride=1, padding=0, dilation=1) -> "columns: ...":
    """Every window of x as a column."""
    return F.unfold(x, kernel_size, dilation, padding, stride)


def folded(collect=True, cut="middle", turn=lambda views: views, share=False, at=None):
    """col2im with one thing changed."""

    def image(columns, size, kernel_size, stride=1, padding=0, dilation=1):
        (h, w), (kh, kw), s, p, d = size, kernel_size, stride, padding, dilation
        oh, ow = ((length + 2 * p - d * (k - 1) - 1) // s + 1 for length, k in ((h, kh), (w, kw)))
        views = turn(columns.reshape(len(columns), -1, kh, kw, oh, ow))
        around = np.zeros((*views.shape[:2], h + 2 * p, w + 2 * p))
        times = np.zeros_like(around)
        if at is not None:
            s, d = at(s, d)
        for u, v in np.ndindex(kh, kw):
            part = around[:, :, u * d : u * d + s * oh : s, v * d : v * d + s * ow : s]
            arriving = views[:, :, u, v][:, :, : part.shape[2], : part.shape[3]]
            part[:] = part + arriving if collect else arriving
            times[:, :, u * d : u * d + s * oh : s, v * d : v * d + s * ow : s] += 1
        if share:
            around = around / np.maximum(times, 1)
        start = {"middle": p, "start": 0}.get(cut)
        return around if start is None else around[:, :, start : start + h, start : start + w]

    return image


@exercise(
    points=3, minutes=20, difficulty=2,
    cases=[
        dict(columns=(2, 18, 12), size=(5, 5), kernel_size=(3, 2)),
        dict(columns=(2, 18, 9), size=(6, 5), kernel_size=(3, 3), stride=2, padding=1),
        dict(columns=(1, 6, 16), size=(7, 8), kernel_size=(2, 3), stride=3, padding=2),
        dict(columns=(1, 12, 25), size=(7, 5), kernel_size=(3, 2), dilation=2, padding=1),
        dict(columns=(2, 12, 16), size=(6, 7), kernel_size=(2, 3), stride=2, padding=2, dilation=2),
        dict(columns=(1, 1, 1), size=(1, 1), kernel_size=(1, 1)),
        dict(columns=(2, 8, 6), size=(4, 6), kernel_size=(2, 2), stride=2),
    ],
    hints=(
        "It is im2col run backwards: start from zeros as large as the padded picture, and let every entry of the "
        "columns go back to the cell it would have come from.",
        "`columns.reshape(n, c, kh, kw, oh, ow)` undoes the last step of im2col. c is what is left: columns.shape[1] "
        "// (kh * kw).",
        "`padded[:, :, (the slices of im2col)] += columns[:, :, u, v]` for every tap, and at the end the padding is "
        "cut off.",
    ),
    mistakes={
        "x lets each tap overwrite the one before. A cell that lies in several windows collects from all of them: +=.":
            folded(collect=False),
        "x is divided by how often a cell was met. A gradient is a sum of everything that arrives, not its mean.":
            folded(share=True),
        "x still has its padding.": folded(cut="nothing"),
        "x has the padding cut off at one side: `padding` rows and columns come off at every side.":
            folded(cut="start"),
        "x has the columns laid out as (kh, kw, c). im2col wrote (c, kh, kw).":
            folded(turn=lambda v: v.reshape(len(v), *v.shape[2:4], -1, *v.shape[4:]).transpose(0, 3, 1, 2, 4, 5)),
        "x has every window turned by 180 degrees.":
            folded(turn=lambda v: v[:, :, ::-1, ::-1]),
        "x ignores the dilation.":
            folded(at=lambda s, d: (s, 1)),
        "x has the columns' windows side by side as if the stride were 1.":
            folded(at=lambda s, d: (1, d)),
    },
)  # fmt: skip
def col2im(columns: "...", size, kernel_size, stride=1, padding=0, dilation=1) -> "x: ...":
    """The sum of all columns, each laid back to where its window was: the gradient of im2col."""
    return F.fold(columns, size, kernel_size, dilation, padding, stride)


def joined_pictures(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """Each group's part of y put behind the last one along the wrong axis."""
    y = convolved(x, w, 0 * b, stride, padding, dilation, groups)
    return np.concatenate(np.split(y, groups, axis=1), axis=0).reshape(y.shape) + b[:, None, None]


def over_pixels(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """One product for every position."""
    views = taps(x, w.shape[2:], stride, padding, dilation)
    oh, ow = views.shape[2:4]
    y = np.empty((len(x), len(w), oh, ow))
    for i in range(oh):
        for j in range(ow):
            y[:, :, i : i + 1, j : j + 1] = contracted(views[:, :, i : i + 1, j : j + 1], w, b, groups)
    return y


@exercise(
    script="fast_forward", points=4, minutes=30, difficulty=3,
    cases=[
        dict(n=2, c=3, ih=5, iw=6, o=4, i=3, kh=3, kw=2, larger=(2, 3, 9, 8)),
        dict(n=2, c=4, ih=6, iw=7, o=6, i=2, kh=2, kw=3, larger=(2, 4, 12, 15),
             stride=2, padding=2, dilation=2, groups=2),
        dict(n=1, c=2, ih=6, iw=5, o=3, i=2, kh=3, kw=3, larger=(1, 2, 16, 15), stride=2, padding=1),
        dict(n=1, c=1, ih=1, iw=1, o=1, i=1, kh=1, kw=1, larger=(1, 1, 4, 4)),
        dict(n=1, c=3, ih=4, iw=3, o=6, i=1, kh=3, kw=1, larger=(1, 3, 8, 9), groups=3),
    ],
    hints=(
        "im2col makes every window a column. A kernel, laid out as a row in the same order, times a column is one "
        "number of y: all of y is one matrix product.",
        "`w.reshape(o, -1) @ columns` multiplies (o, c · kh · kw) by (n, c · kh · kw, oh · ow): NumPy's @ takes the "
        "first axis of the columns as a stack of matrices. Then the bias, and a reshape to (n, o, oh, ow).",
        "Groups: give columns and kernels an axis for the groups, (n, groups, i · kh · kw, oh · ow) and (groups, "
        "o // groups, i · kh · kw). @ multiplies the last two axes, the others broadcast.",
    ),
    mistakes={
        "Python takes more steps the larger the picture is: somewhere, here or in a function called from here, a loop "
        "runs over its pixels or rows. Let each step take all positions at once; loops over the kernel's taps, over "
        "groups or over pictures are short.": over_pixels,
        "y lacks the bias.":
            lambda x, w, b, **geometry: convolved(x, w, 0 * b, **geometry),
        "y has its pictures and its channels mixed up: reshape never reorders axes. A product (o, n · oh · ow) becomes "
        "(o, n, oh, ow) first, and is transposed then.":
            lambda x, w, b, **geometry: mixed_batch(convolved(x, w, b, **geometry)),
        "y mixes pictures with channels before it adds the bias: reshape never reorders axes. A product (o, n · oh · "
        "ow) becomes (o, n, oh, ow) first, and is transposed then.":
            lambda x, w, b, **geometry: mixed_batch(convolved(x, w, 0 * b, **geometry)) + b[:, None, None],
        "y has its groups joined along the pictures: np.concatenate takes axis 0 unless it is told another. The output "
        "channels are axis 1.": joined_pictures,
        "y sees the channels of the first group in every group.": first_channels,
        "y ignores the dilation.":
            lambda x, w, b, stride=1, padding=0, dilation=1, groups=1: convolved(x, w, b, stride, padding, 1, groups),
        "y has every kernel turned by 180 degrees.":
            lambda x, w, b, **geometry: convolved(x, w[..., ::-1, ::-1], b, **geometry),
    },
)  # fmt: skip
def conv2d_forward_fast(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    """The convolution of conv2d_forward in a number of steps that does not grow with the picture."""
    tensors = [torch.from_numpy(np.array(array)) for array in (x, w, b)]
    return F.conv2d(*tensors, stride, padding, dilation, groups).numpy()


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class WrongConv2d(nn.Module):
    """Right as it stands; each mistake changes one method."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels // groups, kh, kw))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def geometry(self):
        return self.stride, self.padding, self.dilation

    def kernels(self):
        return self.weight

    def channels(self, x):
        return x

    def shift(self):
        return 0 if self.bias is None else self.bias[:, None]

    def forward(self, x):
        stride, padding, dilation = self.geometry()
        (o, i, kh, kw), g, w = self.weight.shape, self.groups, self.kernels()
        columns = F.unfold(self.channels(x), (kh, kw), dilation, padding, stride)
        y = w.reshape(g, o // g, -1) @ columns.reshape(len(x), g, i * kh * kw, -1)
        rows = (x.shape[2] + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
        return (y.reshape(len(x), o, -1) + self.shift()).reshape(len(x), o, rows, -1)


class Turned(WrongConv2d):
    def kernels(self):
        return self.weight.flip(2, 3)


class NoShift(WrongConv2d):
    def shift(self):
        return 0 if self.bias is None else 0 * self.bias[:, None]


class NoStride(WrongConv2d):
    def geometry(self):
        return 1, self.padding, self.dilation


class NoPadding(WrongConv2d):
    def geometry(self):
        return self.stride, 0, self.dilation


class NoDilation(WrongConv2d):
    def geometry(self):
        return self.stride, self.padding, 1


class FirstGroup(WrongConv2d):
    def channels(self, x):
        return x[:, : self.weight.shape[1]].repeat(1, self.groups, 1, 1)


class Detached(WrongConv2d):
    def kernels(self):
        return self.weight.detach() + 0 * self.weight


class FixedInput(WrongConv2d):
    def channels(self, x):
        return x.detach() + 0 * x


module(
    nn.Conv2d, points=4, minutes=25, difficulty=2,
    forbids=("torch.conv2d", "torch.conv1d", "torch.conv3d", "torch.convolution", "torch.conv_transpose2d"),
    cases=[
        dict(init=dict(in_channels=3, out_channels=4, kernel_size=3), x=(2, 3, 5, 6)),
        dict(init=dict(in_channels=2, out_channels=3, kernel_size=(3, 2), stride=2, padding=1), x=(2, 2, 6, 5)),
        dict(init=dict(in_channels=2, out_channels=2, kernel_size=(1, 3), dilation=2, padding=2, bias=False),
             x=(1, 2, 3, 4)),
        dict(init=dict(in_channels=4, out_channels=6, kernel_size=(2, 3), stride=2, padding=2, dilation=2, groups=2),
             x=(2, 4, 5, 6)),
        dict(init=dict(in_channels=3, out_channels=3, kernel_size=2, stride=3, groups=3, bias=False), x=(1, 3, 5, 7)),
        dict(init=dict(in_channels=1, out_channels=1, kernel_size=1), x=(1, 1, 1, 1)),
    ],
    hints=(
        "`weight` has the shape (out_channels, in_channels // groups, kh, kw), `bias` (out_channels,); with bias=False "
        "it is no parameter: `self.bias = None`. kernel_size may be a number: `kh, kw = np.broadcast_to(kernel_size, "
        "2)`, each as an int.",
        "`F.unfold(x, (kh, kw), dilation=…, padding=…, stride=…)` is your im2col, and autograd knows its gradient. The "
        "rest is conv2d_forward_fast with torch's names.",
        "columns as (n, groups, i · kh · kw, oh · ow), weight as (groups, out_channels // groups, i · kh · kw), then @ "
        "and a reshape to (n, out_channels, oh, ow): conv_output_size gives oh; -1 finds ow.",
    ),
    mistakes={
        "y has every kernel turned by 180 degrees.": Turned,
        "y lacks the bias, so that it never learns.": NoShift,
        "y ignores the stride.": NoStride,
        "y ignores the padding.": NoPadding,
        "y ignores the dilation.": NoDilation,
        "y sees the channels of the first group in every group.": FirstGroup,
        "dweight is 0: the weight is cut off from the graph, by .detach(), .data or a detour through NumPy.": Detached,
        "dx is 0: the input is cut off from the graph, by .detach(), .data or a detour through NumPy.": FixedInput,
    },
)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


def channels_last(w):
    """The kernels that w's numbers make when they are read as (kh, kw, c)."""
    return w.reshape(len(w), *w.shape[2:], -1).transpose(0, 3, 1, 2)


@exercise(
    repair=True, points=3, minutes=15, difficulty=2,
    cases=[
        dict(n=2, c=3, ih=6, iw=5, o=5, i=3, kh=4, kw=2),
        dict(n=1, c=2, ih=5, iw=4, o=3, i=2, kh=2, kw=2, stride=2, padding=1),
        dict(n=2, c=1, ih=6, iw=4, o=3, i=1, kh=1, kw=3, padding=1),
        dict(n=2, c=3, ih=4, iw=4, o=2, i=3, kh=3, kw=3, stride=2, padding=2),
        dict(n=2, c=1, ih=2, iw=3, o=1, i=1, kh=1, kw=1),
    ],
    hints=(
        "Give it two pictures, the second one all zeros, a 1 × 1 kernel and two output channels. Where does the second "
        "picture turn up in y?",
        "The product has the axes (output channel, picture, position). Which order does y want, and does reshape ever "
        "reorder anything?",
        "That was one fault. For the other, compare the order of the axes in which `columns` is laid out with the "
        "order of the numbers in w.reshape(o, -1): give it two channels and a 1 × 2 kernel.",
    ),
    mistakes={
        "y mixes pictures with channels, and taps with channels: two lines are at fault, both of them a reshape before "
        "which an axis should have moved.":
            lambda x, w, b, *geometry: mixed_batch(
                convolved(x, channels_last(w), 0 * b, *geometry)) + b[:, None, None],
        "y still mixes pictures with channels: (o, n · oh · ow) is not (n, o, oh, ow).":
            lambda x, w, b, *geometry: mixed_batch(convolved(x, w, 0 * b, *geometry)) + b[:, None, None],
        "y still mixes taps with channels: the columns are laid out as (kh, kw, c), the kernels as (c, kh, kw).":
            lambda x, w, *rest: convolved(x, channels_last(w), *rest),
        "y has every kernel turned by 180 degrees now.":
            lambda x, w, b, *geometry: convolved(x, w[..., ::-1, ::-1], b, *geometry),
        "y lacks the bias now.":
            lambda x, w, b, *geometry: convolved(x, w, 0 * b, *geometry),
    },
)  # fmt: skip
def repair_conv2d_forward(x: "n c ih iw", w: "o i kh kw", b: "o", stride=1, padding=0) -> "y: ...":
    """A convolution by one matrix product."""
    return F.conv2d(x, w, b, stride, padding)


# --- Predict ---------------------------------------------------------------------------------------------------------


def counting(shared, dense):
    """Another count of parameters; the arguments as in count_conv_parameters."""
    return lambda *sizes: (shared(*sizes), dense(*sizes))


def right_shared(c, o, kh, kw, groups, h, w):
    return o * (c // groups) * kh * kw + o


def right_dense(c, o, kh, kw, groups, h, w):
    out = o * (h - kh + 1) * (w - kw + 1)
    return c * h * w * out + out


@exercise(
    points=2, minutes=12, difficulty=2,
    draws=dict(h=between(9, 33), w=between(9, 33)),
    cases=[
        dict(in_channels=3, out_channels=16, kh=5, kw=3, groups=1),
        dict(in_channels=8, out_channels=12, kh=3, kw=3, groups=4),
        dict(in_channels=6, out_channels=6, kh=2, kw=7, groups=6),
        dict(in_channels=1, out_channels=1, kh=1, kw=1, groups=1, h=1, w=1),
        dict(in_channels=2, out_channels=5, kh=8, kw=9, groups=1, h=8, w=9),
    ],
    hints=(
        "A convolution has one kernel and one bias per output channel, however large the picture is.",
        "A dense layer from D to K numbers has K · D weights and K biases. Here D counts the numbers of one picture, K "
        "those of one output: with stride 1 and no padding, how many rows and columns does it have?",
        "D = in_channels · h · w and K = out_channels · (h - kh + 1) · (w - kw + 1). A kernel has in_channels / groups "
        "· kh · kw weights.",
    ),
    mistakes={
        "shared grows with the picture. A kernel is used at every position, and counted once.":
            counting(lambda *s: right_shared(*s) * (s[5] - s[2] + 1) * (s[6] - s[3] + 1), right_dense),
        "shared lacks the biases: one for each output channel.":
            counting(lambda *s: right_shared(*s) - s[1], right_dense),
        "shared has a bias for each number of the output. Its numbers in one channel share theirs.":
            counting(lambda *s: right_shared(*s) - s[1] + s[1] * (s[5] - s[2] + 1) * (s[6] - s[3] + 1), right_dense),
        "shared has one bias for the whole layer. Every kernel has its own.":
            counting(lambda *s: right_shared(*s) - s[1] + 1, right_dense),
        "shared has fewer kernels the more groups there are. There are out_channels in all; each sees fewer channels.":
            counting(lambda *s: right_shared(*s) // s[4], right_dense),
        "shared ignores the groups: a kernel sees in_channels / groups channels.":
            counting(lambda *s: right_shared(*s[:4], 1, *s[5:]), right_dense),
        "shared lacks the input channels: a kernel has a slice for each channel it sees.":
            counting(lambda *s: s[1] * s[2] * s[3] + s[1], right_dense),
        "dense lacks the biases: one for each of its outputs.":
            counting(right_shared, lambda *s: right_dense(*s) - s[1] * (s[5] - s[2] + 1) * (s[6] - s[3] + 1)),
        "dense has one bias for each output channel. In a dense layer each of the outputs has its own.":
            counting(right_shared, lambda *s: right_dense(*s) + s[1] - s[1] * (s[5] - s[2] + 1) * (s[6] - s[3] + 1)),
        "dense puts out pictures as large as the input. Without padding the output is smaller by kernel - 1.":
            counting(right_shared, lambda *s: right_dense(*s[:2], 1, 1, *s[4:])),
        "dense connects each output with its window only. That would be locality without sharing; a dense layer has "
        "neither.":
            counting(right_shared, lambda c, o, kh, kw, groups, h, w: (
                o * (h - kh + 1) * (w - kw + 1) * (c * kh * kw + 1))),
    },
)  # fmt: skip
def count_conv_parameters(in_channels, out_channels, kh, kw, groups, h, w) -> "shared:, dense:":
    """The parameters of a convolution (stride 1, no padding), and of a dense layer between the same pictures."""
    x, layer = torch.zeros(1, in_channels, h, w), nn.Conv2d(in_channels, out_channels, (kh, kw), groups=groups)
    shared, outputs = sum(parameter.numel() for parameter in layer.parameters()), layer(x).numel()
    return np.array(shared), np.array(outputs * (x.numel() + 1))
