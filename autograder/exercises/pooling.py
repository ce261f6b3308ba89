"""Lesson 10: max, average and adaptive pools, blurred pools, and receptive fields."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of, module

quiet = np.errstate(all="ignore")  # decorates the mistakes that divide by zero, as the learner's own would

# What the wrong implementations below are made of.


def pair(value):
    return tuple(int(v) for v in np.broadcast_to(value, 2))


def framed(x, padding, fill):
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)


def views(x, kernel_size, stride):
    """All windows that fit, if any: (n, c, rows, columns, kh, kw)."""
    (kh, kw), (sh, sw) = pair(kernel_size), pair(stride)
    if kh > x.shape[2] or kw > x.shape[3]:
        rows, columns = (
            max(0, (size - k) // s + 1) for size, k, s in zip(x.shape[2:], (kh, kw), (sh, sw), strict=True)
        )
        return np.zeros((*x.shape[:2], rows, columns, kh, kw))
    return np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::sh, ::sw]


def spread(shares, x, kernel_size, stride, padding, start=None, put=lambda old, new: old + new, keep=False):
    """The way back: every window's shares (n, c, rows, columns, kh, kw) are added where the window lies."""
    (kh, kw), (sh, sw) = pair(kernel_size), pair(stride)
    h, w = x.shape[2:]
    room = np.zeros((*x.shape[:2], h + 2 * padding + kh, w + 2 * padding + kw))
    for i, j in np.ndindex(shares.shape[2:4]):
        window = room[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
        window[...] = put(window, shares[:, :, i, j])
    start = padding if start is None else start
    return (
        room[:, :, : h + 2 * padding, : w + 2 * padding] if keep else room[:, :, start : start + h, start : start + w]
    )


def empty_without_padding(backward):
    """Cut with [padding:-padding], which is empty where padding is 0."""

    def cut(dy, x, kernel_size, stride=None, padding=0, *rest):
        dx = backward(dy, x, kernel_size, stride, padding, *rest)
        return dx if padding else dx[:, :, :0, :0]

    return cut


def too_far(x, kernel_size, stride, fill):
    """Rows and columns added below and to the right, so that the last window is never cut off."""
    ends = [
        (math.ceil((size - k) / s) * s + k) - size
        for size, k, s in zip(x.shape[2:], pair(kernel_size), pair(stride), strict=True)
    ]
    return np.pad(x, ((0, 0), (0, 0), *((0, end) for end in ends)), constant_values=fill)


# How arguments are drawn.


def negative(*shape):
    return lambda rng, sizes: -1 - np.abs(rng.standard_normal(shape))


def few_values(*shape):
    """Whole numbers with many ties."""
    return lambda rng, sizes: rng.integers(0, 3, shape).astype(float)


def zero_in_the_corner(*shape):
    return lambda rng, sizes: np.where(np.indices(shape)[2:].any(axis=0), rng.standard_normal(shape), 0)


# Equal maxima in every block, of which the first along the rows is not the first down the columns.
CROSSED = np.array([[0.0, 2, 1, 3, -1, 0], [2, 0, 3, 1, 0, -2]]).reshape(1, 1, 2, 6)


POOLS = [
    dict(n=2, c=3, h=7, w=8, kernel_size=2),
    dict(n=1, c=2, h=6, w=8, kernel_size=(2, 3), stride=(1, 2)),
    dict(n=2, c=2, h=7, w=5, kernel_size=3, stride=2, padding=1, x=negative(2, 2, 7, 5)),
    dict(n=2, c=1, h=7, w=6, kernel_size=(3, 2), padding=1),
    dict(n=1, c=2, h=5, w=6, kernel_size=2, stride=3),
    dict(n=2, c=2, h=5, w=6, kernel_size=3, stride=1, x=few_values(2, 2, 5, 6)),
    dict(n=1, c=2, h=4, w=5, kernel_size=2, x=negative(1, 2, 4, 5)),
    dict(n=2, c=2, h=3, w=4, kernel_size=(3, 4)),
    dict(n=1, c=1, h=1, w=1, kernel_size=1),
    dict(n=1, c=2, h=6, w=7, kernel_size=(3, 2), stride=(2, 1), padding=1, x=few_values(1, 2, 6, 7)),
    dict(n=1, c=1, h=2, w=6, kernel_size=2, x=CROSSED),
]


# --- Max pooling -----------------------------------------------------------------------------------------------------


def wrong_max(reduce=lambda v: v.max((4, 5)), fill=-np.inf, kernel=lambda k: k, step=lambda s, k: s, frame=lambda p: p,
              grow=False, end=None):  # fmt: skip
    """A max pool with some of its choices changed; the defaults are right."""

    def forward(x, kernel_size, stride=None, padding=0):
        stride = step(kernel_size if stride is None else stride, kernel_size)
        kernel_size, x = kernel(kernel_size), framed(x, frame(padding), fill)
        if grow:
            x = too_far(x, kernel_size, stride, fill)
        return reduce(views(x, kernel_size, stride))[:, :, :end, :end]

    return quiet(forward)


@exercise(
    points=3, minutes=20, difficulty=2, cases=POOLS,
    hints=(
        "Two loops, over the output's rows i and columns j: the window of y[:, :, i, j] starts at row i · sh and at "
        "column j · sw, with kh rows and kw columns. How many rows has y? Lesson 09's formula counts any windows.",
        "Before the loops: `kh, kw = np.broadcast_to(kernel_size, 2)`, the same for the stride after None has become "
        "kernel_size, and `np.pad` with constant_values=-np.inf, so that no padding ever wins.",
        "`y[:, :, i, j] = padded[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw].max(axis=(2, 3))`, for all examples "
        "and channels at once; y has (h + 2 · padding - kh) // sh + 1 rows.",
    ),
    mistakes={
        "y has 0 where a window of negative numbers reaches into the padding. A frame of zeros can win there: pad with "
        "-inf, which never does.":
            wrong_max(fill=0.0),
        "y has 0 where all numbers of a window are negative, padding or not: a running maximum must not start at 0.":
            wrong_max(reduce=lambda v: np.maximum(v.max((4, 5)), 0)),
        "y has a window at every pixel where no stride is given. stride=None means stride = kernel_size.":
            lambda x, kernel_size, stride=None, padding=0: (
                wrong_max()(x, kernel_size, 1 if stride is None else stride, padding)),
        "y ignores the argument stride and always moves by the size of the window.":
            wrong_max(step=lambda s, k: k),
        "y ignores the padding.":
            wrong_max(frame=lambda p: 0),
        "y has rows and columns of the kernel in each other's places: in a pair the height comes first.":
            wrong_max(kernel=lambda k: pair(k)[::-1]),
        "y has rows and columns of the stride in each other's places: in a pair the step downwards comes first.":
            wrong_max(step=lambda s, k: pair(s)[::-1]),
        "y has rows and columns of kernel and stride in each other's places: in a pair the one downwards comes first.":
            wrong_max(kernel=lambda k: pair(k)[::-1], step=lambda s, k: pair(s)[::-1]),
        "y takes square windows, as if the kernel were kernel_size[0] in both directions.":
            wrong_max(kernel=lambda k: pair(k)[0]),
        "y has a last row or column of windows that hang over the edge. A window that does not fit is left out: the "
        "division rounds down.":
            wrong_max(grow=True),
        "y lacks its last row and column: (h + 2 · padding - kh) // stride counts the steps, and there is one window "
        "more than steps.":
            wrong_max(end=-1),
        "y is the mean of each window; its maximum is asked for.":
            wrong_max(reduce=lambda v: v.mean((4, 5))),
        "y holds the number of the largest magnitude of each window, so that -3 beats 2. The largest number is asked "
        "for.":
            wrong_max(reduce=lambda v: np.take_along_axis(
                v.reshape(*v.shape[:4], -1), np.abs(np.where(np.isinf(v), 0, v)).reshape(*v.shape[:4], -1)
                .argmax(-1)[..., None], -1)[..., 0]),
        "y holds where the maximum is, not the maximum: argmax gives a position.":
            wrong_max(reduce=lambda v: v.reshape(*v.shape[:4], -1).argmax(-1)),
        "y takes the maximum over the channels as well. Every channel is pooled by itself.":
            wrong_max(reduce=lambda v: v.max((1, 4, 5), keepdims=True)[..., 0, 0]),
        "y has more examples and channels than x: np.pad with one number pads all four axes. Give it four pairs, "
        "(0, 0) for the first two.":
            lambda x, kernel_size, stride=None, padding=0: (
                wrong_max()(np.pad(x, padding, constant_values=-np.inf), kernel_size, stride)),
        "y takes the maximum over the examples of the batch as well.":
            wrong_max(reduce=lambda v: v.max((0, 4, 5), keepdims=True)[..., 0, 0]),
        "y takes one maximum for all examples and channels: .max() without an axis. The window's rows and columns are "
        "axes 2 and 3.":
            wrong_max(reduce=lambda v: np.broadcast_to(v.max((0, 1, 4, 5)), v.shape[:4])),
    },
)  # fmt: skip
def max_pool2d_forward(x: "n c h w", kernel_size, stride=None, padding=0) -> "y: ...":
    """The largest number of every window, in each channel by itself."""
    return F.max_pool2d(x, kernel_size, stride, padding)


def ranked(v):
    return v.reshape(*v.shape[:4], -1)


def first_maximum(v, order=lambda v: v, back=lambda m: m):
    """Windows -> 1 at the first maximum in row-major order, or in the order of `order`."""
    turned = order(v)
    flat = ranked(turned)
    return back((np.arange(flat.shape[-1]) == flat.argmax(-1)[..., None]).reshape(turned.shape))


def at_every_maximum(v):
    return v == v.max((4, 5), keepdims=True)


def shared(v):
    mask = at_every_maximum(v)
    return mask / mask.sum((4, 5), keepdims=True)


def last_maximum(v):
    return first_maximum(v, lambda v: v[..., ::-1, ::-1], lambda m: m[..., ::-1, ::-1])


def down_the_columns(v):
    return first_maximum(v, lambda v: np.swapaxes(v, 4, 5), lambda m: np.swapaxes(m, 4, 5))


def wrong_max_backward(who=first_maximum, fill=-np.inf, step=lambda s: s, weight=None, **where):
    """A max pool backwards with some of its choices changed; the defaults are right."""

    def backward(dy, x, kernel_size, stride=None, padding=0):
        stride = step(kernel_size if stride is None else stride)
        v = views(framed(x, padding, fill), kernel_size, stride)[:, :, : dy.shape[2], : dy.shape[3]]
        mask = who(v)
        if v.shape[2:4] != dy.shape[2:]:
            raise ValueError("the windows are not those of dy")
        weight_of = dy if weight is None else weight(dy, v)
        return spread(mask * weight_of[..., None, None], x, kernel_size, stride, padding, **where)

    return quiet(backward)


gradient_of(
    max_pool2d_forward, points=5, minutes=30, difficulty=3,
    hints=(
        "y[n, c, i, j] is a copy of one number of x. Nudge that one and y follows; nudge any other of the window and "
        "nothing happens. So where does dy[n, c, i, j] go, and what does every other entry get?",
        "Go through the windows of the forward pass again. Flattened to (n, c, kh · kw), `argmax(axis=-1)` finds the "
        "first maximum in row-major order, ties included. An entry may win in several windows: `+=`.",
        "With `flat = window.reshape(n, c, -1)`, `chosen = np.arange(kh * kw) == flat.argmax(-1)[..., None]` is True "
        "once per window; add `(chosen * dy[:, :, i, j, None]).reshape(n, c, kh, kw)` into the same slice of a padded "
        "dx, and cut the padding off at the end.",
    ),
    mistakes={
        "dx gives the whole gradient to every maximum of a window. Where several are equal the first one alone gets "
        "it, or their sum would be more than what arrived.":
            wrong_max_backward(at_every_maximum),
        "dx shares the gradient among equal maxima. That is a possible convention; PyTorch's pool gives it to the "
        "first one alone.":
            wrong_max_backward(shared),
        "dx gives the gradient to the last of several equal maxima; it belongs to the first, in reading order.":
            wrong_max_backward(last_maximum),
        "dx looks for the first of several equal maxima down the columns; reading order goes along the rows.":
            wrong_max_backward(down_the_columns),
        "dx keeps what the last window says of an entry. Where windows overlap, an entry may win in several: their "
        "gradients add, with +=.":
            wrong_max_backward(put=lambda old, new: new),
        "dx gives an entry that wins several windows the gradient of the last one alone. Add them, with +=.":
            wrong_max_backward(put=lambda old, new: np.where(new, new, old)),
        "dx is empty where padding is 0: a slice from padding to -padding ends before it begins, for -0 is 0. End it "
        "at padding + h.":
            empty_without_padding(wrong_max_backward()),
        "dx loses gradients to the padding: with a frame of zeros, windows of negative numbers find their maximum "
        "outside the image. Pad with -inf, as in the forward pass.":
            wrong_max_backward(fill=0.0),
        "dx still has the padding around it; cut it off at the end.":
            wrong_max_backward(keep=True),
        "dx is cut out of the padded array at the wrong place: the image begins `padding` rows and columns in.":
            wrong_max_backward(start=0),
        "dx spreads every gradient evenly over its window: that is average pooling. Here one entry gets all of it.":
            wrong_max_backward(lambda v: np.full(v.shape, 1 / (v.shape[4] * v.shape[5]))),
        "dx gives every entry of a window the whole gradient. Only the maximum had a say in y.":
            wrong_max_backward(lambda v: np.ones(v.shape)),
        "dx ignores dy: it counts how often an entry was the maximum. What arrives at y goes on to it.":
            wrong_max_backward(weight=lambda dy, v: np.ones_like(dy)),
        "dx is multiplied by the maximum itself. y is a plain copy of it, and the derivative of a copy is 1.":
            wrong_max_backward(weight=lambda dy, v: dy * v.max((4, 5))),
        "dx has a window at every pixel where no stride is given. stride=None means stride = kernel_size.":
            lambda dy, x, kernel_size, stride=None, padding=0: (
                wrong_max_backward()(dy, x, kernel_size, 1 if stride is None else stride, padding)),
        "dx compares each window with the largest number of all examples and channels: every plane has a maximum of "
        "its own in every window.":
            wrong_max_backward(lambda v: v == v.max((0, 1, 4, 5), keepdims=True)),
        "dx gives the gradient to the smallest entry of each window: argmin for argmax.":
            wrong_max_backward(lambda v: first_maximum(-v), fill=np.inf),
    },
)  # fmt: skip


# --- Average pooling -------------------------------------------------------------------------------------------------


def real_cells(x, kernel_size, stride, padding):
    """How many cells of each window lie on the image."""
    return views(framed(np.ones_like(x), padding, 0.0), kernel_size, stride).sum((4, 5))


def wrong_avg(divide=None, mode=None, kernel=lambda k: k, step=lambda s, k: s, frame=lambda p: p, grow=False,
              counting=lambda include: include):  # fmt: skip
    """An average pool with some of its choices changed; the defaults are right."""

    def forward(x, kernel_size, stride=None, padding=0, count_include_pad=True):
        stride = step(kernel_size if stride is None else stride, kernel_size)
        kernel_size, padding = kernel(kernel_size), frame(padding)
        around = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        wide = np.pad(x, around, mode=mode) if mode else framed(x, padding, 0.0)
        if grow:
            wide = too_far(wide, kernel_size, stride, 0.0)
        v = views(wide, kernel_size, stride)
        if divide:
            return divide(v)
        if grow or counting(count_include_pad):
            return v.mean((4, 5))
        return v.sum((4, 5)) / real_cells(x, kernel_size, stride, padding)

    return quiet(forward)


AVERAGES = [
    *POOLS,
    dict(n=2, c=2, h=7, w=5, kernel_size=3, stride=2, padding=1, count_include_pad=False),
    dict(n=1, c=2, h=5, w=6, kernel_size=(2, 3), stride=(1, 2), padding=1, count_include_pad=False,
         x=zero_in_the_corner(1, 2, 5, 6)),
]  # fmt: skip


@exercise(
    points=2, minutes=12, difficulty=1, cases=AVERAGES,
    hints=(
        "The windows are those of the max pool. Which value in the padding adds nothing to a sum?",
        "With count_include_pad=True every sum is divided by kh · kw, however much of the window is padding. With "
        "False, by the number of cells that lie on the image: what is the sum of a window if the image is all ones?",
        "Pad x with 0. The window's sum is divided by `kh * kw`, or by the sum of the same window of "
        "`np.pad(np.ones((h, w)), padding)`.",
    ),
    mistakes={
        "y divides by the cells on the image only, whatever count_include_pad says. Its default is True: the padding "
        "counts, as zeros.":
            wrong_avg(counting=lambda include: False),
        "y ignores count_include_pad=False: there, a sum is divided by the number of its cells on the image.":
            wrong_avg(counting=lambda include: True),
        "y divides by the number of cells that are not 0. A cell on the image counts even where it holds a 0: count in "
        "an image of ones.":
            lambda x, kernel_size, stride=None, padding=0, count_include_pad=True: (
                wrong_avg()(x, kernel_size, stride, padding) if count_include_pad else
                wrong_avg(divide=lambda v: v.sum((4, 5)) / (v != 0).sum((4, 5)))(x, kernel_size, stride, padding)),
        "y is the sum of each window; divide by kh · kw.":
            wrong_avg(divide=lambda v: v.sum((4, 5))),
        "y is divided by kh · kh. The window has kh · kw cells.":
            wrong_avg(divide=lambda v: v.sum((4, 5)) / v.shape[4] ** 2),
        "y is the maximum of each window; its mean is asked for.":
            wrong_avg(divide=lambda v: v.max((4, 5))),
        "y has a window at every pixel where no stride is given. stride=None means stride = kernel_size.":
            lambda x, kernel_size, stride=None, padding=0, count_include_pad=True: (
                wrong_avg()(x, kernel_size, 1 if stride is None else stride, padding, count_include_pad)),
        "y ignores the argument stride and always moves by the size of the window.":
            wrong_avg(step=lambda s, k: k),
        "y ignores the padding.":
            wrong_avg(frame=lambda p: 0),
        "y has rows and columns of the kernel in each other's places: in a pair the height comes first.":
            wrong_avg(kernel=lambda k: pair(k)[::-1]),
        "y has rows and columns of kernel and stride in each other's places: in a pair the one downwards comes first.":
            wrong_avg(kernel=lambda k: pair(k)[::-1], step=lambda s, k: pair(s)[::-1]),
        "y repeats the image's border in the padding. An average pool pads with zeros.":
            wrong_avg(mode="edge"),
        "y is -inf in windows that reach into the padding. Minus infinity is right for a maximum; a sum wants 0.":
            lambda x, kernel_size, stride=None, padding=0, count_include_pad=True: quiet(
                lambda: views(framed(x, padding, -np.inf), kernel_size, kernel_size if stride is None else stride)
                .mean((4, 5)))(),
        "y has a last row or column of windows that hang over the edge. A window that does not fit is left out.":
            wrong_avg(grow=True),
        "y is averaged over the channels as well. Every channel is pooled by itself.":
            wrong_avg(divide=lambda v: v.mean((1, 4, 5), keepdims=True)[..., 0, 0]),
    },
)  # fmt: skip
def avg_pool2d_forward(x: "n c h w", kernel_size, stride=None, padding=0, count_include_pad=True) -> "y: ...":
    """The mean of every window, in each channel by itself."""
    return F.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=count_include_pad)


def wrong_avg_backward(share=None, counting=lambda include: include, step=lambda s: s, weight=lambda dy: dy, **where):
    """An average pool backwards with some of its choices changed; the defaults are right."""

    def backward(dy, x, kernel_size, stride=None, padding=0, count_include_pad=True):
        stride = step(kernel_size if stride is None else stride)
        kh, kw = pair(kernel_size)
        if share:
            count = share(kh, kw)
        elif counting(count_include_pad):
            count = kh * kw
        else:
            rows, columns = dy.shape[2:]
            count = real_cells(x, kernel_size, stride, padding)[:, :, :rows, :columns]
        shares = np.broadcast_to((weight(dy) / count)[..., None, None], (*dy.shape, kh, kw))
        return spread(shares, x, kernel_size, stride, padding, **where)

    return quiet(backward)


gradient_of(
    avg_pool2d_forward, points=3, minutes=15, difficulty=2,
    hints=(
        "y is a weighted sum of its window, all weights equal: 1 / (kh · kw). What does every cell of the window get "
        "of dy[n, c, i, j]?",
        "Into the window's slice of a padded array of zeros goes `+= dy[:, :, i, j, None, None] / (kh * kw)`. An entry "
        "that lies in several windows collects from all of them.",
        "With count_include_pad=False divide by the count of the forward pass instead. At the end cut the padding off: "
        "`[:, :, padding : padding + h, padding : padding + w]`.",
    ),
    mistakes={
        "dx gives every cell of a window the whole gradient. Each had a share of 1 / (kh · kw) in the mean, and gets "
        "that share back.":
            wrong_avg_backward(share=lambda kh, kw: 1),
        "dx keeps what the last window says of an entry. Where windows overlap, their gradients add, with +=.":
            wrong_avg_backward(put=lambda old, new: new),
        "dx is empty where padding is 0: a slice from padding to -padding ends before it begins, for -0 is 0. End it "
        "at padding + h.":
            empty_without_padding(wrong_avg_backward()),
        "dx still has the padding around it; cut it off at the end.":
            wrong_avg_backward(keep=True),
        "dx is cut out of the padded array at the wrong place: the image begins `padding` rows and columns in.":
            wrong_avg_backward(start=0),
        "dx lies `padding` rows and columns too far down and to the right, and ignores count_include_pad=False. Add "
        "into a padded array, cut the padding off at the end, and divide as the forward pass does.":
            wrong_avg_backward(counting=lambda include: True, start=0),
        "dx ignores count_include_pad=False: a window that reaches into the padding divided by fewer cells.":
            wrong_avg_backward(counting=lambda include: True),
        "dx divides by the cells on the image only, whatever count_include_pad says. Its default is True.":
            wrong_avg_backward(counting=lambda include: False),
        "dx is divided by kh · kh. The window has kh · kw cells.":
            wrong_avg_backward(share=lambda kh, kw: kh * kh),
        "dx ignores dy: every window hands out 1. What arrives at y is what is shared out.":
            wrong_avg_backward(weight=np.ones_like),
        "dx has a window at every pixel where no stride is given. stride=None means stride = kernel_size.":
            lambda dy, x, kernel_size, stride=None, padding=0, count_include_pad=True: (
                wrong_avg_backward()(dy, x, kernel_size, 1 if stride is None else stride, padding, count_include_pad)),
    },
)  # fmt: skip


# --- Adaptive pooling ------------------------------------------------------------------------------------------------


def bounds(size, parts):
    """Where the windows of an adaptive pool start and end along one axis."""
    return [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


def equal_parts(size, parts):
    step = size // parts
    return [(i * step, (i + 1) * step) for i in range(parts)]


def last_takes_the_rest(size, parts):
    return [(i * (size // parts), size if i == parts - 1 else (i + 1) * (size // parts)) for i in range(parts)]


def one_stride(size, parts):
    """Windows of one size and one stride that just cover the axis."""
    step = size // parts
    return [(i * step, i * step + size - (parts - 1) * step) for i in range(parts)]


def split_as_numpy(size, parts):
    ends = np.cumsum([size // parts + (i < size % parts) for i in range(parts)]).tolist()
    return list(zip([0, *ends], ends, strict=False))


def rounded_up(size, parts):
    step = -(-size // parts)
    return [(i * step, (i + 1) * step) for i in range(parts)]


def both_floored(size, parts):
    return [(i * size // parts, (i + 1) * size // parts) for i in range(parts)]


def both_ceiled(size, parts):
    return [(-(-i * size // parts), -(-(i + 1) * size // parts)) for i in range(parts)]


def floor_plus_one(size, parts):
    return [(i * size // parts, (i + 1) * size // parts + 1) for i in range(parts)]


def end_included(size, parts):
    return [(start, end + 1) for start, end in bounds(size, parts)]


def adaptive(cut=bounds, pick=lambda size: size, reduce=lambda window: window.mean((2, 3))):
    """An adaptive pool with some of its choices changed; the defaults are right."""

    def forward(x, output_size):
        rows, columns = (cut(size, parts) for size, parts in zip(x.shape[2:], pick(pair(output_size)), strict=True))
        return np.stack([np.stack([reduce(x[:, :, a:b, c:d]) for c, d in columns], -1) for a, b in rows], 2)

    def quietly(x, output_size):
        import warnings

        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            return forward(x, output_size)

    return quietly


ADAPTIVE = [
    dict(n=2, c=3, h=5, w=7, output_size=(3, 2)),
    dict(n=2, c=2, h=6, w=4, output_size=1),
    dict(n=1, c=2, h=6, w=8, output_size=(3, 4)),
    dict(n=1, c=2, h=7, w=5, output_size=3),
    dict(n=2, c=1, h=2, w=3, output_size=(3, 5)),
    dict(n=1, c=2, h=8, w=11, output_size=(5, 4)),
    dict(n=1, c=1, h=1, w=1, output_size=1),
    dict(n=2, c=2, h=3, w=4, output_size=(3, 1)),
]


@exercise(
    points=3, minutes=20, difficulty=2, cases=ADAPTIVE,
    hints=(
        "Write down where the three windows of a row of five pixels start and end: floor(i · 5 / 3) and "
        "ceil((i + 1) · 5 / 3). They overlap, and they need not be equally long.",
        "In whole numbers: `start = i * h // oh` and `end = -(-(i + 1) * h // oh)`, since minus, floor, minus makes a "
        "ceiling. The columns go the same way with w and ow.",
        "Two loops, and in them `y[:, :, i, j] = x[:, :, top:bottom, left:right].mean(axis=(2, 3))`.",
    ),
    mistakes={
        "y has windows of h // oh rows and leaves the rest of the image out. They go from floor(i · h / oh) to "
        "ceil((i + 1) · h / oh), so that every pixel is seen.":
            adaptive(equal_parts),
        "y has windows of ceil(h / oh) rows one after the other, so that the last are cut short or empty. They go from "
        "floor(i · h / oh) to ceil((i + 1) · h / oh) instead, and overlap.":
            adaptive(rounded_up),
        "y gives the last window all that is left over. The windows go from floor(i · h / oh) to "
        "ceil((i + 1) · h / oh) instead.":
            adaptive(last_takes_the_rest),
        "y has windows of one size and one stride that just cover the image. In PyTorch their sizes differ: from "
        "floor(i · h / oh) to ceil((i + 1) · h / oh).":
            adaptive(one_stride),
        "y cuts the image as np.array_split does, the longer parts first, without overlap. The windows go from "
        "floor(i · h / oh) to ceil((i + 1) · h / oh).":
            adaptive(split_as_numpy),
        "y rounds the ends of the windows down. The start is rounded down, the end up: where the sizes do not divide, "
        "neighbours share a row.":
            adaptive(both_floored),
        "y rounds the starts of the windows up. The start is rounded down, the end up: where the sizes do not divide, "
        "neighbours share a row.":
            adaptive(both_ceiled),
        "y takes floor + 1 for the end of a window. Where (i + 1) · h / oh is whole, that is a row too many: a ceiling "
        "leaves it as it is.":
            adaptive(floor_plus_one),
        "y has windows of one row and one column too many: they go up to ceil((i + 1) · h / oh), not including it, and "
        "so does a slice.":
            adaptive(end_included),
        "y has rows and columns of output_size in each other's places.":
            adaptive(pick=lambda size: size[::-1]),
        "y is square, as if output_size were output_size[0] in both directions.":
            adaptive(pick=lambda size: (size[0], size[0])),
        "y holds sums; divide each by the number of cells in its own window.":
            adaptive(reduce=lambda window: window.sum((2, 3))),
        "y is the maximum of each window; its mean is asked for.":
            adaptive(reduce=lambda window: window.max((2, 3), initial=-9)),
        "y is averaged over the channels as well: each channel has its own average.":
            adaptive(reduce=lambda window: window.mean((1, 2, 3))[:, None]),
    },
)  # fmt: skip
def adaptive_avg_pool2d_forward(x: "n c h w", output_size) -> "y: ...":
    """Means of as many windows as asked for, whatever the size of the image."""
    return F.adaptive_avg_pool2d(x, output_size)


def adaptive_backward(cut=bounds, pick=lambda size: size, count=lambda h, w, rows, columns: h * w, assign=False,
                      weight=lambda dy: dy):  # fmt: skip
    """An adaptive pool backwards with some of its choices changed; the defaults are right."""

    def backward(dy, x, output_size):
        dx, arrived, sizes = np.zeros_like(x), weight(dy), pick(pair(output_size))
        rows, columns = (cut(size, parts) for size, parts in zip(x.shape[2:], sizes, strict=True))
        even = [size / parts for size, parts in zip(x.shape[2:], sizes, strict=True)]
        for i, j in np.ndindex(len(rows), len(columns)):
            (a, b), (c, d) = rows[i], columns[j]
            share = arrived[:, :, i, j, None, None] / count(b - a, d - c, *even)
            dx[:, :, a:b, c:d] = share + (0 if assign else dx[:, :, a:b, c:d])
        return dx

    return quiet(backward)


gradient_of(
    adaptive_avg_pool2d_forward, points=2, minutes=12, difficulty=2,
    hints=(
        "The same windows once more. Every cell of a window gets an equal share of what arrives at its mean.",
        "The windows differ in size: divide by (bottom - top) · (right - left), each window by its own. They also "
        "overlap: add.",
        "`dx[:, :, top:bottom, left:right] += dy[:, :, i, j, None, None] / ((bottom - top) * (right - left))`.",
    ),
    mistakes={
        "dx gives every cell of a window the whole gradient. Divide by the number of cells in the window.":
            adaptive_backward(count=lambda h, w, rows, columns: 1),
        "dx keeps what the last window says of a pixel. Where windows overlap, their gradients add, with +=.":
            adaptive_backward(assign=True),
        "dx divides all windows by the same h / oh · w / ow. They differ in size, and each divides by its own.":
            adaptive_backward(count=lambda h, w, rows, columns: rows * columns),
        "dx is divided by the height of a window and multiplied by its width: a / b * c is (a / b) · c. The product "
        "needs brackets.":
            adaptive_backward(count=lambda h, w, rows, columns: h / w),
        "dx rounds the ends of the windows down: the end is rounded up, as in the forward pass.":
            adaptive_backward(both_floored),
        "dx has windows of h // oh rows, so that the last pixels get nothing where the sizes do not divide.":
            adaptive_backward(equal_parts),
        "dx ignores dy: every window hands out 1. What arrives at y is what is shared out.":
            adaptive_backward(weight=np.ones_like),
    },
)  # fmt: skip


# --- Sizes and receptive fields --------------------------------------------------------------------------------------


def whole(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


def pooled_size(size, kernel_size, stride, padding, ceil_mode):
    """Windows are placed one by one, for as long as they may be."""
    stride, starts = stride or kernel_size, [-padding]
    fits = (lambda start: start < size) if ceil_mode else (lambda start: start + kernel_size <= size + padding)
    while fits(starts[-1] + stride) and (not ceil_mode or starts[-1] + kernel_size < size + padding):
        starts.append(starts[-1] + stride)
    return len(starts)


def last_window_dropped(late, rounded=math.ceil):
    """The formula: a number of steps, rounded, and with ceil_mode one less if the last window is too late."""

    def answer(size, kernel_size, stride=None, padding=0, ceil_mode=False):
        stride = stride or kernel_size
        steps = (size + 2 * padding - kernel_size) / stride
        steps = int(rounded(steps) if ceil_mode else steps // 1)
        return steps + 1 - int(ceil_mode and late(steps * stride, size, padding))

    return answer


@exercise(
    points=2, minutes=10, difficulty=2,
    draws=dict(size=whole(20, 60)),
    cases=[
        dict(kernel_size=2),
        dict(kernel_size=3, stride=2),
        dict(size=20, kernel_size=3),
        dict(size=57, kernel_size=3, stride=2, padding=1, ceil_mode=False),
        dict(size=32, kernel_size=3, stride=2, padding=1),
        dict(size=24, kernel_size=3, stride=2, padding=0, ceil_mode=True),
        dict(size=25, kernel_size=5, stride=3, padding=2, ceil_mode=True),
        dict(size=6, kernel_size=2, stride=3, padding=1, ceil_mode=True),
        dict(size=5, kernel_size=1, stride=3, padding=0, ceil_mode=True),
        dict(size=4, kernel_size=1, stride=2, ceil_mode=True),
        dict(size=5, kernel_size=2, stride=3, padding=1, ceil_mode=True),
        dict(size=7, kernel_size=3, stride=2, ceil_mode=True),
        dict(size=8, kernel_size=3, ceil_mode=True),
        dict(size=1, kernel_size=1),
    ],
    hints=(
        "Lesson 09's count of windows with dilation 1, and stride = kernel_size where it is None. What changes when a "
        "window may hang over the end?",
        "ceil_mode rounds the number of steps, (size + 2 · padding - kernel_size) / stride, up instead of down. Then "
        "look at the last window: where does it start?",
        "The last window starts at (windows - 1) · stride, counted with the padding. If that is size + padding or "
        "more, it would see nothing of the image, and is left out.",
    ),
    mistakes={
        "size ignores ceil_mode: there the division rounds up.":
            lambda size, kernel_size, stride=None, padding=0, ceil_mode=False: (
                (size + 2 * padding - kernel_size) // (stride or kernel_size) + 1),
        "size counts a last window that starts in the padding behind the image, or beyond it. ceil_mode keeps a window "
        "only if it starts on the image or in the padding before it.":
            lambda size, kernel_size, stride=None, padding=0, ceil_mode=False: (
                (math.ceil if ceil_mode else math.floor)((size + 2 * padding - kernel_size) / (stride or kernel_size))
                + 1),
        "size keeps a last window that starts right behind the image. Counted with the padding, the image ends "
        "before size + padding: a start there is behind it, so >=, not >.":
            last_window_dropped(lambda start, size, padding: start > size + padding),
        "size leaves a last window out only where it starts behind the padding as well. In the padding is too late "
        "already: at size + padding or more.":
            last_window_dropped(lambda start, size, padding: start >= size + 2 * padding),
        "size leaves out a window that still sees the image. Starts counted with the padding are compared with size + "
        "padding, not with size.":
            last_window_dropped(lambda start, size, padding: start >= size),
        "size has a window more with ceil_mode even where the number of steps is whole. Rounding up changes a fraction "
        "only.":
            lambda size, kernel_size, stride=None, padding=0, ceil_mode=False: (
                (size + 2 * padding - kernel_size) // (stride or kernel_size) + 1 + ceil_mode),
        "size has a window too many with ceil_mode where the windows before it end with the image: nothing is left "
        "over, the number of steps is whole, and rounding up does not change it.":
            last_window_dropped(lambda start, size, padding: start >= size + padding, lambda steps: steps // 1 + 1),
        "size always rounds up. Without ceil_mode a window that does not fit is left out.":
            lambda size, kernel_size, stride=None, padding=0, ceil_mode=False: (
                pooled_size(size, kernel_size, stride, padding, True)),
        "size takes a stride of 1 where none is given. stride=None means stride = kernel_size.":
            lambda size, kernel_size, stride=None, padding=0, ceil_mode=False: (
                pooled_size(size, kernel_size, stride or 1, padding, ceil_mode)),
        "size counts the steps from window to window. There is one window more than steps.":
            lambda size, kernel_size, stride=None, padding=0, ceil_mode=False: (
                pooled_size(size, kernel_size, stride, padding, ceil_mode) - 1),
        "size counts the padding once. It stands on both sides.":
            lambda size, kernel_size, stride=None, padding=0, ceil_mode=False: (
                (math.ceil if ceil_mode else math.floor)((size + padding - kernel_size) / (stride or kernel_size)) + 1),
    },
)  # fmt: skip
def pool_output_size(size, kernel_size, stride=None, padding=0, ceil_mode=False) -> "size:":
    """How many windows a pool has along one axis."""
    line = torch.zeros(1, 1, size)
    return torch.tensor(F.max_pool1d(line, kernel_size, stride, padding, ceil_mode=ceil_mode).shape[-1])


def drawn_layers(rng, sizes):
    """Convolutions and pools in some order, one of them dilated."""
    layers = [(int(rng.integers(2, 6)), int(rng.integers(1, 4))) for _ in range(4)]
    return [*layers[:2], (3, 1, int(rng.integers(2, 4))), *layers[2:]]


def walked(grow=lambda size, jump, k, s, d: size + d * (k - 1) * jump, leap=lambda jump, s, d: jump * s,
           size=1, order=1):  # fmt: skip
    """Receptive field and jump, layer by layer, with a step changed."""

    def answer(layers):
        field, jump = size, 1
        for kernel_size, stride, *rest in layers[::order]:
            dilation = rest[0] if rest else 1
            field = grow(field, jump, kernel_size, stride, dilation)
            jump = leap(jump, stride, dilation)
        return field, jump

    return answer


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(layers=[(3, 1), (2, 2), (3, 1), (2, 2)]),
        dict(layers=drawn_layers),
        dict(layers=[(5, 2), (3, 2, 2), (3, 1)]),
        dict(layers=[(3, 1), (3, 1), (3, 1)]),
        dict(layers=[(7, 2)]),
        dict(layers=[(1, 3), (1, 1)]),
        dict(layers=[(3, 1, 1), (3, 1, 2), (3, 1, 4)]),
        dict(layers=[]),
    ],
    hints=(
        "Two numbers walk through the layers, from the input on: size = 1 and jump = 1, since a pixel sees itself and "
        "its neighbour is one pixel away. What does a kernel of 3 do to size where neighbours are jump pixels apart?",
        "A kernel of k cells has k - 1 steps from its first to its last cell. Each step is `dilation` cells of the "
        "layer below, and each of those is `jump` pixels of the input.",
        "For each layer `size += dilation * (kernel_size - 1) * jump`, and only then `jump *= stride`: the stride of a "
        "layer spreads its outputs, not its inputs.",
    ),
    mistakes={
        "size adds kernel_size - 1 for every layer, as if neighbours were always one pixel apart. Behind a stride they "
        "are `jump` pixels apart.":
            walked(lambda size, jump, k, s, d: size + d * (k - 1)),
        "size uses the stride of a layer for its own kernel. A kernel reads the layer below, whose cells are the old "
        "jump apart: change jump after size.":
            walked(lambda size, jump, k, s, d: size + d * (k - 1) * jump * s),
        "size adds kernel_size · jump for every layer. From the first to the last of k cells it is k - 1 steps.":
            walked(lambda size, jump, k, s, d: size + d * k * jump),
        "size ignores the dilation: the cells that a dilated kernel reads are `dilation` apart.":
            walked(lambda size, jump, k, s, d: size + (k - 1) * jump),
        "size takes dilation · kernel_size for the reach of a kernel. It has k - 1 gaps of `dilation`: "
        "dilation · (k - 1) + 1 cells.":
            walked(lambda size, jump, k, s, d: size + (d * k - 1) * jump),
        "size multiplies the kernel sizes. Each layer adds to the field; only the strides multiply.":
            walked(lambda size, jump, k, s, d: size * k),
        "jump adds the strides. Two strides of 3 leave neighbours 9 pixels apart, not 6.":
            walked(leap=lambda jump, s, d: jump + s),
        "jump is the stride of the last layer. All strides before it stretch it: their product.":
            walked(leap=lambda jump, s, d: s),
        "jump is multiplied by the dilation as well. Dilation spreads the cells that one output reads; how far two "
        "outputs are apart, the stride alone says.":
            walked(leap=lambda jump, s, d: jump * s * d),
        "size walks through the layers from the output. The first layer of the list is the one that reads the image.":
            walked(order=-1),
        "size is one too small: before any layer a pixel sees one pixel, itself.":
            walked(size=0),
    },
)  # fmt: skip
def receptive_field(layers) -> "size:, jump:":
    """How many pixels one output depends on along an axis, and how many lie between two neighbouring outputs."""
    spans = []
    for outputs in (1, 2):  # what one output, and two neighbouring ones, reach when they are sent back to the input
        line = torch.ones(1, 1, outputs)
        for kernel_size, stride, *dilation in reversed(layers):
            line = F.conv_transpose1d(line, torch.ones(1, 1, kernel_size), None, stride, dilation=dilation or 1)
        spans.append(line.shape[-1])
    return torch.tensor(spans[0]), torch.tensor(spans[1] - spans[0])


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class WrongMaxPool(nn.Module):
    """Right as it stands; each mistake changes one method."""

    fill = -torch.inf

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel = pair(kernel_size)
        self.stride = self.step(stride, kernel_size)
        self.padding = padding

    def step(self, stride, kernel_size):
        return pair(kernel_size if stride is None else stride)

    def windows(self, x):
        """(n, c, cells, places)"""
        wide = F.pad(x, (self.padding,) * 4, value=self.fill)
        return F.unfold(wide, self.kernel, stride=self.stride).reshape(*x.shape[:2], -1, self.places(x))

    def places(self, x):
        rows, columns = self.grid(x)
        return rows * columns

    def grid(self, x):
        sizes = zip(x.shape[2:], self.kernel, self.stride, strict=True)
        return [(size + 2 * self.padding - k) // s + 1 for size, k, s in sizes]

    def best(self, windows):
        return windows.max(dim=2).values

    def forward(self, x):
        return self.best(self.windows(x)).reshape(*x.shape[:2], *self.grid(x))


class ZeroPadded(WrongMaxPool):
    fill = 0.0


class EqualShares(WrongMaxPool):
    def best(self, windows):
        return windows.amax(dim=2)


class StrideOne(WrongMaxPool):
    def step(self, stride, kernel_size):
        return pair(1 if stride is None else stride)


class StrideIgnored(WrongMaxPool):
    def step(self, stride, kernel_size):
        return pair(kernel_size)


class MixedChannels(WrongMaxPool):
    def windows(self, x):
        wide = F.pad(x, (self.padding,) * 4, value=self.fill)
        columns = F.unfold(wide, self.kernel, stride=self.stride)
        return columns.reshape(len(x), -1, x.shape[1], self.places(x)).transpose(1, 2)


class TurnedGrid(WrongMaxPool):
    def forward(self, x):
        return self.best(self.windows(x)).reshape(*x.shape[:2], *self.grid(x)[::-1])


class MeanPool(WrongMaxPool):
    fill = 0.0

    def best(self, windows):
        return windows.mean(dim=2)


class PaddingIgnored(WrongMaxPool):
    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__(kernel_size, stride)


module(
    nn.MaxPool2d, points=3, minutes=20, difficulty=2,
    forbids=(
        "torch.nn.MaxPool2d", "torch.nn.functional.max_pool2d", "torch.max_pool2d",
        "torch.nn.functional.max_pool2d_with_indices", "torch.nn.functional.max_pool1d", "torch.max_pool1d",
        "torch.nn.functional.max_pool3d", "torch.max_pool3d", "torch.nn.functional.adaptive_max_pool2d",
        "torch.nn.AdaptiveMaxPool2d", "torch.nn.functional.fractional_max_pool2d",
    ),
    cases=[
        dict(init=dict(kernel_size=2), x=(2, 3, 7, 6)),
        dict(init=dict(kernel_size=3, stride=2, padding=1), x=negative(2, 2, 7, 6)),
        dict(init=dict(kernel_size=(3, 2), stride=(1, 2)), x=(1, 2, 5, 7)),
        dict(init=dict(kernel_size=3, stride=1, padding=1), x=few_values(2, 2, 4, 5)),
        dict(init=dict(kernel_size=2, stride=3), train=False, x=(1, 2, 8, 5)),
        dict(init=dict(kernel_size=1), x=(1, 1, 1, 1)),
    ],
    hints=(
        "No parameters, nothing to register: `__init__` keeps kernel_size, stride and padding, and stride=None becomes "
        "kernel_size there. Autograd does the backward pass.",
        "`F.unfold(x, kernel_size, stride=stride)` gives (n, c · kh · kw, oh · ow), a column for each window, the "
        "channels one after the other. Its own padding is zeros; `F.pad(x, (p, p, p, p), value=-torch.inf)` comes "
        "before it.",
        "Reshape to (n, c, kh · kw, oh · ow), take `.max(dim=2).values`, reshape to (n, c, rows, columns). Not "
        "`.amax`: among equal maxima `.max(dim)` sends the gradient to the first, `.amax` shares it.",
    ),
    mistakes={
        "y has 0 where a window of negative numbers reaches into the padding: unfold pads with zeros. F.pad with "
        "value=-torch.inf comes first.": ZeroPadded,
        "dx shares the gradient among equal maxima, as .amax does. .max(dim=…) gives it to the first one.": EqualShares,
        "y has a window at every pixel where no stride is given. stride=None means stride = kernel_size.": StrideOne,
        "y ignores the argument stride and always moves by the size of the window.": StrideIgnored,
        "y mixes the channels: unfold's rows are channel by channel, so the reshape is to (n, c, kh · kw, oh · ow), in "
        "this order.": MixedChannels,
        "y has as many rows as there should be columns: the windows are numbered along the rows, so that the last "
        "reshape is to (n, c, rows, columns).":
            TurnedGrid,
        "y is the mean of each window; its maximum is asked for.": MeanPool,
        "y ignores the padding.": PaddingIgnored,
    },
)  # fmt: skip


class BlurPool2d(nn.Module):
    """A fixed blur before the stride, channel by channel (Zhang, 2019)."""

    def __init__(self, channels, stride=2):
        super().__init__()
        self.stride = stride
        line = torch.distributions.Binomial(2, torch.tensor(0.5)).log_prob(torch.arange(3.0)).exp()
        self.register_buffer("kernel", self.weights(line).repeat(channels, 1, 1, 1))

    def weights(self, line):
        return torch.outer(line, line)

    def around(self, x):
        return F.pad(x, (1, 1, 1, 1), mode="reflect")

    def forward(self, x):
        return F.conv2d(self.around(x), self.kernel, stride=self.stride, groups=x.shape[1])


class ZeroFrame(BlurPool2d):
    def around(self, x):
        return F.pad(x, (1, 1, 1, 1))


class EdgeFrame(BlurPool2d):
    def around(self, x):
        return F.pad(x, (1, 1, 1, 1), mode="replicate")


class NoFrame(BlurPool2d):
    def around(self, x):
        return x


class AlwaysTwo(BlurPool2d):
    def __init__(self, channels, stride=2):
        super().__init__(channels)


class TooLate(BlurPool2d):
    def forward(self, x):
        return F.conv2d(self.around(x[:, :, :: self.stride, :: self.stride]), self.kernel, groups=x.shape[1])


class SubsampledTwice(BlurPool2d):
    def forward(self, x):
        return super().forward(x)[:, :, :: self.stride, :: self.stride]


class NoStride(BlurPool2d):
    def forward(self, x):
        return F.conv2d(self.around(x), self.kernel, groups=x.shape[1])


class BoxKernel(BlurPool2d):
    def weights(self, line):
        return torch.full((3, 3), 1 / 9)


class HeavyKernel(BlurPool2d):
    def weights(self, line):
        return 16 * torch.outer(line, line)


class FourthKernel(BlurPool2d):
    def weights(self, line):
        return 4 * torch.outer(line, line)


class ChannelsSummed(BlurPool2d):
    def forward(self, x):
        y = F.conv2d(self.around(x), self.kernel, stride=self.stride, groups=x.shape[1])
        return y.sum(1, keepdim=True).expand(y.shape)


module(
    BlurPool2d, name="BlurPool2d", points=3, minutes=20, difficulty=2,
    cases=[
        dict(init=dict(channels=3), x=(2, 3, 7, 6)),
        dict(init=dict(channels=2, stride=1), x=(1, 2, 4, 5)),
        dict(init=dict(channels=1, stride=3), train=False, x=(2, 1, 8, 5)),
        dict(init=dict(channels=2), x=(1, 2, 2, 3)),
    ],
    hints=(
        "The kernel is not learned: a buffer, made by `self.register_buffer(\"kernel\", tensor)` with the shape "
        "(channels, 1, 3, 3), one 3 × 3 kernel for each channel. `torch.outer(line, line)` makes a square of a line.",
        "One kernel per channel is a convolution with groups=channels: `F.conv2d(…, stride=self.stride, groups=…)`. "
        "The stride of the convolution does the subsampling, after the blur.",
        "`F.pad(x, (1, 1, 1, 1), mode=\"reflect\")` before it. The line is (1, 2, 1) / 4, and `.repeat(channels, 1, 1, "
        "1)` gives every channel its copy of the square.",
    ),
    mistakes={
        "y fades at the border: the frame is zeros. Reflecting the image keeps a flat area flat.": ZeroFrame,
        "y repeats the border in the frame. mode=\"reflect\" mirrors the image at its border pixel, which is not "
        "doubled.": EdgeFrame,
        "y has no frame: with one pixel all around, reflected, it gets ceil(h / stride) rows.": NoFrame,
        "y ignores the argument stride and always takes every second pixel.": AlwaysTwo,
        "y is subsampled before it is blurred. What is folded into wrong places by then, no blur takes out again: blur "
        "first.": TooLate,
        "y is blurred but not subsampled: give the convolution its stride.": NoStride,
        "y is subsampled twice: the convolution's stride has dropped the pixels before the slice drops more.":
            SubsampledTwice,
        "kernel starts as a box, 1/9 everywhere. The line is (1, 2, 1) / 4, and the square its outer product with "
        "itself.": BoxKernel,
        "kernel starts with a sum of 16: without the division every pool makes the picture 16 times as bright.":
            HeavyKernel,
        "kernel starts with a sum of 4: the line (1, 2, 1) is divided by 4, and the square, so, by 16.": FourthKernel,
        "y adds up the channels: each is blurred by itself, with groups=channels.": ChannelsSummed,
    },
)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


def blocks(x, k):
    """Blocks (n, c, rows, columns, k, k) of an image that they divide."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // k, k, w // k, k).transpose(0, 1, 2, 4, 3, 5)


def from_blocks(parts):
    n, c, rows, columns, k, _ = parts.shape
    return parts.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, rows * k, columns * k)


def block_backward(who):
    return lambda dy, x, kernel_size: from_blocks(who(blocks(x, kernel_size)) * dy[..., None, None])


def rectified(*shape):
    return lambda rng, sizes: np.maximum(rng.standard_normal(shape) - 0.3, 0)


@exercise(
    repair=True, points=2, minutes=12, difficulty=2,
    cases=[
        dict(n=2, c=2, h=6, w=4, a=3, b=2, kernel_size=2),
        dict(n=1, c=2, h=6, w=8, a=3, b=4, kernel_size=2, x=rectified(1, 2, 6, 8)),
        dict(n=2, c=1, h=3, w=9, a=1, b=3, kernel_size=3, x=few_values(2, 1, 3, 9)),
        dict(n=1, c=2, h=4, w=4, a=2, b=2, kernel_size=2, x=np.zeros((1, 2, 4, 4))),
        dict(n=2, c=2, h=2, w=3, a=2, b=3, kernel_size=1),
        dict(n=1, c=1, h=2, w=6, a=1, b=3, kernel_size=2, x=CROSSED),
    ],
    hints=(
        "Feed it one window of four zeros and dy = 1, and add up dx. How much arrived, and how much left?",
        "`blocks == y` is True for every maximum. Which one does PyTorch choose, and which function finds it?",
        "argmax finds the first, but on one axis: bring the two axes of a block together, "
        "`blocks.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // k, w // k, k * k)`, compare np.arange(k * k) with the "
        "argmax, and go the same way back.",
    ),
    mistakes={
        "dx gives the whole gradient to every maximum of a window: where a ReLU has left four zeros, four times the "
        "gradient comes out.":
            block_backward(at_every_maximum),
        "dx shares the gradient among equal maxima. Its sum is right now; PyTorch gives all of it to the first.":
            block_backward(shared),
        "dx gives the gradient to the last of several equal maxima; it belongs to the first.":
            block_backward(last_maximum),
        "dx finds the first maximum down the columns of a block; reading order goes along its rows.":
            block_backward(down_the_columns),
        "dx gives nothing to windows with equal maxima. The first of them gets the gradient.":
            block_backward(lambda v: at_every_maximum(v) * (at_every_maximum(v).sum((4, 5), keepdims=True) == 1)),
        "dx takes k · k numbers that follow each other for a block. A block's rows lie a whole row of the picture "
        "apart: bring its two axes together with transpose, then reshape.":
            lambda dy, x, kernel_size: (
                first_maximum(x.reshape(*dy.shape, kernel_size, kernel_size)) * dy[..., None, None]).reshape(x.shape),
        "dx holds the right numbers block after block. The way back needs a transpose before the reshape, as the way "
        "there did.":
            lambda dy, x, kernel_size: (
                first_maximum(blocks(x, kernel_size)) * dy[..., None, None]).reshape(x.shape),
    },
)  # fmt: skip
def repair_max_pool2d_backward(dy: "n c a b", x: "n c h w", kernel_size) -> "dx: n c h w":
    """The gradient of a max pool whose windows tile the image."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad((F.max_pool2d(x, kernel_size) * dy).sum(), x)[0]
