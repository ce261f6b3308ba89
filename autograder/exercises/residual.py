"""Lesson 12: residual blocks with identity and projection, pre-activation, dense layers."""

from math import comb, perm

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of, module

# What the wrong implementations below are made of.


def relu(x):
    return np.maximum(x, 0)


def conv(x, w, b, stride=1):
    """A convolution whose padding keeps the size, if the stride is 1."""
    p = w.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, w) + b[:, None, None]


def conv_backward(dy, x, w, stride=1):
    """dx, dw, db of the convolution above."""
    p, (oh, ow) = w.shape[-1] // 2, dy.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i, j in np.ndindex(*w.shape[2:]):
        at = ..., slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
        dw[:, :, i, j] = np.einsum("nohw,nchw->oc", dy, padded[at])
        dpadded[at] += np.einsum("nohw,oc->nchw", dy, w[:, :, i, j])
    return dpadded[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw, dy.sum((0, 2, 3))


def small(*letters):
    """Weights small enough for the branch to be of the size of the skip."""
    return lambda rng, sizes: 0.3 * rng.standard_normal([int(k) if k.isdigit() else sizes[k] for k in letters])


def very_negative(letter):
    return lambda rng, sizes: rng.uniform(-30, -20, sizes[letter])


SQUARE = [
    dict(n=2, c=3, m=4, h=5, w=4),
    dict(n=3, c=2, m=2, h=3, w=6),
    dict(n=2, c=2, m=5, h=1, w=4),
    dict(n=1, c=1, m=1, h=1, w=1),
    dict(n=2, c=2, m=3, h=4, w=2, b2=very_negative("c")),
]
KERNELS = dict(w1=small("m", "c", "3", "3"), w2=small("c", "m", "3", "3"))


# --- Identity --------------------------------------------------------------------------------------------------------


def residual(inner=relu, combine=lambda x, f: relu(x + f), zero=()):
    """A residual block with some of its pieces changed; `zero` names biases that are left out."""

    def forward(x, w1, b1, w2, b2):
        b1, b2 = (np.zeros_like(b) if name in zero else b for name, b in (("b1", b1), ("b2", b2)))
        return combine(x, conv(inner(conv(x, w1, b1)), w2, b2))

    return forward


@exercise(
    points=3, minutes=12, difficulty=1, cases=SQUARE, draws=KERNELS,
    hints=(
        "Follow the drawing from bottom to top: convolve, relu, convolve, add x, relu. What is the shape of each?",
        "Both convolutions have padding 1 and stride 1, so that height and width stay and x can be added: "
        "`conv2d_forward(x, w1, b1, padding=1)`.",
        "h = relu(conv(x, w1, b1)); y = relu(x + conv(h, w2, b2)), where relu is `np.maximum(…, 0)`.",
    ),
    mistakes={
        "y lacks the skip connection: x is never added to what the branch computes.":
            residual(combine=lambda x, f: relu(f)),
        "y lacks the last relu, the one after the sum.":
            residual(combine=lambda x, f: x + f),
        "y has its second relu inside the branch, before the sum. In this block it comes after x has been added.":
            residual(combine=lambda x, f: x + relu(f)),
        "y has a relu before the sum as well as after it. Then the branch can only add, never take away.":
            residual(combine=lambda x, f: relu(x + relu(f))),
        "y lacks the relu between the convolutions: two convolutions in a row are one linear map.":
            residual(inner=lambda z: z),
        "y has relu(x) on the skip. The skip carries x as it came.":
            residual(combine=lambda x, f: relu(relu(x) + f)),
        "y lacks both biases.":
            residual(zero=("b1", "b2")),
        "y lacks b1, the bias of the first convolution.":
            residual(zero=("b1",)),
        "y lacks b2, the bias of the second convolution.":
            residual(zero=("b2",)),
        "y is only what the branch computes. Add x, then take the relu.":
            residual(combine=lambda x, f: f),
    },
)  # fmt: skip
def residual_forward(x: "n c h w", w1: "m c 3 3", b1: "m", w2: "c m 3 3", b2: "c") -> "y: n c h w":
    """Two 3 × 3 convolutions with a ReLU between, added to what came in, then a ReLU (He et al., 2015)."""
    return F.relu(x + F.conv2d(F.relu(F.conv2d(x, w1, b1, padding=1)), w2, b2, padding=1))


def residual_grads(
    skip=lambda dy, g: g, branch=1.0, outer=lambda x, f: x + f > 0, inner=lambda z: z > 0, seen=relu, only=""
):
    """The backward pass of a residual block with some of its pieces changed."""

    def backward(dy, x, w1, b1, w2, b2):
        z = conv(x, w1, b1)
        h = relu(z)
        g = dy * outer(x, conv(h, w2, b2))
        dh, dw2, db2 = conv_backward(g, h, w2)
        dw2 = conv_backward(g, seen(z), w2)[1]
        dx, dw1, db1 = conv_backward(dh * inner(z), x, w1)
        if only == "biases":
            db1, db2 = ((dh * inner(z)).mean((0, 2, 3)), g.mean((0, 2, 3)))
        return skip(dy, g) + branch * dx, dw1, db1, dw2, db2

    return backward


gradient_of(
    residual_forward, points=5, minutes=25, difficulty=2,
    hints=(
        "Compute the forward pass again and keep z = conv(x, w1, b1), h = relu(z) and s = x + conv(h, w2, b2). Then go "
        "back through the steps in the opposite order. Which step comes first?",
        "The last relu: g = dy where s > 0, else 0. It arrives at both summands, unchanged: at the branch and at the "
        "skip.",
        "Through the branch: `dh, dw2, db2 = conv2d_backward(g, h, w2, b2, padding=1)`, then dz = dh where z > 0, then "
        "the first convolution, which gives dw1, db1 and the branch's share of dx.",
        "x went two ways, so its gradients add: dx = g + (what comes back through the branch).",
    ),
    mistakes={
        "dx lacks the path through the skip connection. x goes two ways into y; its two gradients add.":
            residual_grads(skip=lambda dy, g: 0),
        "dx gets dy itself through the skip. Before it reaches the sum, dy passes the last relu: where the sum was "
        "negative, nothing comes back.":
            residual_grads(skip=lambda dy, g: dy),
        "dx is only what comes back along the skip. The branch also depends on x.":
            residual_grads(branch=0.0),
        "dx, dw1, db1, dw2 and db2 ignore the last relu: where the sum was negative, no gradient may pass.":
            residual_grads(outer=lambda x, f: True),
        "dx, dw1, db1, dw2 and db2 let the last relu look at the branch alone. It acts on the sum x + branch: what "
        "counts is the sign of that.":
            residual_grads(outer=lambda x, f: f > 0),
        "dx, dw1, db1, dw2 and db2 let the last relu look at x alone. It acts on the sum x + branch: what counts is "
        "the sign of that.":
            residual_grads(outer=lambda x, f: x > 0),
        "dx, dw1 and db1 ignore the relu between the convolutions: where z was negative, no gradient may pass.":
            residual_grads(inner=lambda z: True),
        "dw2 is computed from what enters the inner relu. The second convolution saw relu(z), not z.":
            residual_grads(seen=lambda z: z),
        "dx adds the skip twice.":
            residual_grads(skip=lambda dy, g: 2 * g),
        "dx is the mean of the two paths. Gradients of a number that is used twice add.":
            residual_grads(skip=lambda dy, g: 0.5 * g, branch=0.5),
        "db1 and db2 are means. A bias collects the gradient of every place it was added to: a sum.":
            residual_grads(only="biases"),
    },
)  # fmt: skip


# --- Projection ------------------------------------------------------------------------------------------------------

STRIDED = [
    dict(n=2, c=3, m=4, o=5, h=5, w=4, stride=2),
    dict(n=2, c=2, m=3, o=3, h=6, w=3, stride=2),
    dict(n=2, c=3, m=2, o=2, h=3, w=5),
    dict(n=2, c=2, m=3, o=4, h=7, w=5, stride=3),
    dict(n=1, c=1, m=1, o=1, h=1, w=1, stride=2),
    dict(n=2, c=2, m=2, o=3, h=4, w=3, stride=1, b2=very_negative("o")),
]
PROJECTED = dict(w1=small("m", "c", "3", "3"), w2=small("o", "m", "3", "3"))


def shortened(x, w_s, b_s, stride):
    """The shortcut's 1 × 1 convolution."""
    return conv(x, w_s, b_s, stride)


def cropped(x, w_s, b_s, stride):
    """The shortcut over the first rows and columns instead of every stride-th."""
    h, w = (-(-size // stride) for size in x.shape[2:])
    return conv(x[:, :, :h, :w], w_s, b_s)


def projection(shortcut=shortened, inner=relu, combine=lambda s, f: relu(s + f), strides=lambda s: (s, 1), zero=()):
    """A residual block with a projection, some of its pieces changed."""

    def forward(x, w1, b1, w2, b2, w_s, b_s, stride=1):
        b_s = np.zeros_like(b_s) if "b_s" in zero else b_s
        first, second = strides(stride)
        return combine(shortcut(x, w_s, b_s, stride), conv(inner(conv(x, w1, b1, first)), w2, b2, second))

    return forward


@exercise(
    points=3, minutes=12, difficulty=2, cases=STRIDED, draws=PROJECTED,
    hints=(
        "x has other sizes than what the branch puts out, so x itself cannot be added. What does the shortcut do to x?",
        "A 1 × 1 convolution with the same stride: `conv2d_forward(x, w_s, b_s, stride=stride)`, no padding. It has no "
        "relu of its own.",
        "Only the first convolution of the branch has the stride: `conv2d_forward(x, w1, b1, stride=stride, "
        "padding=1)`; the second one has stride 1. Then the sum, then relu.",
    ),
    mistakes={
        "y lacks the shortcut: its 1 × 1 convolution of x has to be added before the last relu.":
            projection(combine=lambda s, f: relu(f)),
        "y lacks the last relu, the one after the sum.":
            projection(combine=lambda s, f: s + f),
        "y has a relu on the shortcut. The projection is linear.":
            projection(combine=lambda s, f: relu(relu(s) + f)),
        "y has a relu at the end of the branch as well as after the sum. Then the branch can only add, never take "
        "away.":
            projection(combine=lambda s, f: relu(s + relu(f))),
        "y lacks the relu between the convolutions of the branch.":
            projection(inner=lambda z: z),
        "y has the stride in the second convolution. The shapes agree, but in this block the first one takes the "
        "steps.":
            projection(strides=lambda s: (1, s)),
        "y takes the shortcut from the first rows and columns of x. With stride 2 it needs every second one: "
        "`[:, :, ::stride, ::stride]`.":
            projection(shortcut=cropped),
        "y lacks b_s, the bias of the shortcut.":
            projection(zero=("b_s",)),
        "y ignores the stride: it has the height and the width of x.":
            lambda x, w1, b1, w2, b2, w_s, b_s, stride=1: projection()(x, w1, b1, w2, b2, w_s, b_s, 1),
    },
)  # fmt: skip
def residual_projection_forward(
    x: "n c h w", w1: "m c 3 3", b1: "m", w2: "o m 3 3", b2: "o", w_s: "o c 1 1", b_s: "o", stride=1
) -> "y: ...":
    """A residual block that changes channels or size: a 1 × 1 convolution takes the place of the skip."""
    branch = F.conv2d(F.relu(F.conv2d(x, w1, b1, stride, padding=1)), w2, b2, padding=1)
    return F.relu(F.conv2d(x, w_s, b_s, stride) + branch)


def shortened_backward(g, x, w_s, stride):
    return conv_backward(g, x, w_s, stride)


def cropped_backward(g, x, w_s, stride):
    """The gradient of the shortcut, put into the first rows and columns instead of every stride-th."""
    dx, (h, w) = np.zeros_like(x), g.shape[2:]
    dx[:, :, :h, :w], dw, db = conv_backward(g, x[:, :, :h, :w], w_s)
    return dx, dw, db


def projection_grads(
    shortcut=shortened_backward, arrives=lambda dy, g: g, outer=lambda s, f: s + f > 0, inner=lambda z: z > 0,
    take=lambda along, through: along + through, seen=relu,
):  # fmt: skip
    """The backward pass of a block with a projection, some of its pieces changed."""

    def backward(dy, x, w1, b1, w2, b2, w_s, b_s, stride=1):
        z, s = conv(x, w1, b1, stride), conv(x, w_s, b_s, stride)
        h = relu(z)
        g = dy * outer(s, conv(h, w2, b2))
        dh, _, db2 = conv_backward(g, h, w2)
        _, dw2, _ = conv_backward(g, seen(z), w2)
        through, dw1, db1 = conv_backward(dh * inner(z), x, w1, stride)
        along, dw_s, db_s = shortcut(arrives(dy, g), x, w_s, stride)
        return take(along, through), dw1, db1, dw2, db2, dw_s, db_s

    return backward


gradient_of(
    residual_projection_forward, points=5, minutes=25, difficulty=3,
    hints=(
        "As in residual_backward, but the skip is now a convolution with parameters of its own. What arrives at its "
        "output?",
        "g, what has passed the last relu, arrives at both summands. `conv2d_backward(g, x, w_s, b_s, stride=stride)` "
        "gives the shortcut's share of dx, and dw_s, db_s.",
        "The relu mask needs the sum: the shortcut's output plus the branch's, so both have to be computed again.",
        "dx = (what comes back through the branch) + (what comes back through the shortcut). Mind the stride of the "
        "first convolution, and padding 0 at the 1 × 1 one.",
    ),
    mistakes={
        "dx lacks the path through the shortcut. x goes two ways into y; its two gradients add.":
            projection_grads(take=lambda along, through: through),
        "dx is only what comes back through the shortcut. The branch also depends on x.":
            projection_grads(take=lambda along, through: along),
        "dx, dw_s and db_s let dy into the shortcut as it is. Before it reaches the sum, it passes the last relu.":
            projection_grads(arrives=lambda dy, g: dy),
        "dx, dw1, db1, dw2, db2, dw_s and db_s ignore the last relu: where the sum was negative, no gradient may pass.":
            projection_grads(outer=lambda s, f: True),
        "dx, dw1, db1, dw2, db2, dw_s and db_s let the last relu look at the branch alone. It acts on the sum of "
        "branch and shortcut.":
            projection_grads(outer=lambda s, f: f > 0),
        "dx, dw1, db1, dw2, db2, dw_s and db_s let the last relu look at the shortcut alone. It acts on the sum of "
        "branch and shortcut.":
            projection_grads(outer=lambda s, f: s > 0),
        "dx, dw1 and db1 ignore the relu between the convolutions: where z was negative, no gradient may pass.":
            projection_grads(inner=lambda z: True),
        "dx and dw_s pair the shortcut's outputs with the first rows and columns of x. With stride 2, output (i, j) "
        "came from x at (2i, 2j).":
            projection_grads(shortcut=cropped_backward),
        "dw2 is computed from what enters the inner relu. The second convolution saw relu(z), not z.":
            projection_grads(seen=lambda z: z),
    },
)  # fmt: skip


# --- Pre-activation --------------------------------------------------------------------------------------------------


def preactivated(first=relu, inner=relu, combine=lambda x, f: x + f, zero=()):
    """A pre-activation block with some of its pieces changed."""

    def forward(x, w1, b1, w2, b2):
        b1, b2 = (np.zeros_like(b) if name in zero else b for name, b in (("b1", b1), ("b2", b2)))
        return combine(x, conv(inner(conv(first(x), w1, b1)), w2, b2))

    return forward


SKIP_IS_RELU = preactivated(combine=lambda x, f: relu(x) + f)


@exercise(
    points=2, minutes=8, difficulty=1, cases=SQUARE, draws=KERNELS,
    hints=(
        "The branch is relu, convolution, relu, convolution. The skip starts before the first relu and ends after the "
        "last convolution.",
        "Nothing happens to x on the skip, and nothing to the sum.",
        "y = x + conv(relu(conv(relu(x), w1, b1)), w2, b2), both convolutions with padding=1.",
    ),
    mistakes={
        "y has relu(x) on the skip. The skip starts before the first relu: x arrives untouched.":
            SKIP_IS_RELU,
        "y has a relu after the sum, as in residual_forward. Here the sum is left alone: the relus stand before the "
        "convolutions.":
            preactivated(combine=lambda x, f: relu(x + f)),
        "y lacks the first relu, the one before the first convolution.":
            preactivated(first=lambda x: x),
        "y lacks the second relu, the one between the convolutions.":
            preactivated(inner=lambda z: z),
        "y lacks the skip connection: x is never added.":
            preactivated(combine=lambda x, f: f),
        "y has a relu at the end of the branch. Then the branch can only add, never take away.":
            preactivated(combine=lambda x, f: x + relu(f)),
        "y has each relu after its convolution. Pre-activation means before.":
            preactivated(first=lambda x: x, combine=lambda x, f: x + relu(f)),
        "y lacks both biases.":
            preactivated(zero=("b1", "b2")),
    },
)  # fmt: skip
def preactivation_forward(x: "n c h w", w1: "m c 3 3", b1: "m", w2: "c m 3 3", b2: "c") -> "y: n c h w":
    """ReLU, convolution, ReLU, convolution, added to what came in; nothing else (He et al., 2016)."""
    return x + F.conv2d(F.relu(F.conv2d(F.relu(x), w1, b1, padding=1)), w2, b2, padding=1)


def preactivation_grads(
    first=lambda x: x > 0, inner=lambda z: z > 0, seen=(relu, relu), take=lambda dy, through, x: dy + through,
    outer=lambda s: True,
):  # fmt: skip
    """The backward pass of a pre-activation block with some of its pieces changed."""

    def backward(dy, x, w1, b1, w2, b2):
        z = conv(relu(x), w1, b1)
        dy = dy * outer(x + conv(relu(z), w2, b2))
        dh, _, db2 = conv_backward(dy, relu(z), w2)
        _, dw2, _ = conv_backward(dy, seen[1](z), w2)
        dz = dh * inner(z)
        dr, _, db1 = conv_backward(dz, relu(x), w1)
        _, dw1, _ = conv_backward(dz, seen[0](x), w1)
        return take(dy, dr * first(x), x), dw1, db1, dw2, db2

    return backward


gradient_of(
    preactivation_forward, points=4, minutes=18, difficulty=2,
    hints=(
        "There is no relu after the sum: dy arrives at the skip and at the branch as it is.",
        "Through the branch, in the opposite order: second convolution (which saw relu(z)), relu at z, first "
        "convolution (which saw relu(x)), relu at x.",
        "dx = dy + (what comes back through the branch, where x > 0). The mask belongs to the branch alone.",
    ),
    mistakes={
        "dx lacks the path along the skip: dy itself has to be added.":
            preactivation_grads(take=lambda dy, through, x: through),
        "dx is masked where x is negative on the skip too. Only the branch has a relu; along the skip dy passes "
        "untouched.":
            preactivation_grads(take=lambda dy, through, x: dy * (x > 0) + through),
        "dx ignores the first relu: where x was negative, nothing comes back through the branch.":
            preactivation_grads(first=lambda x: True),
        "dx, dw1 and db1 ignore the second relu: where z was negative, no gradient may pass.":
            preactivation_grads(inner=lambda z: True),
        "dw1 is computed from x. The first convolution saw relu(x).":
            preactivation_grads(seen=(lambda x: x, relu)),
        "dw2 is computed from what enters the second relu. The second convolution saw relu(z).":
            preactivation_grads(seen=(relu, lambda z: z)),
        "dw1 and dw2 are computed from what enters the relus. The convolutions saw what came out of them.":
            preactivation_grads(seen=(lambda x: x, lambda z: z)),
        "dx, dw1, db1, dw2 and db2 pass a last relu, as in residual_backward. Here nothing follows the sum: dy arrives "
        "as it is.":
            preactivation_grads(outer=lambda s: s > 0),
        "dx is dy alone: the branch also depends on x.":
            preactivation_grads(take=lambda dy, through, x: dy),
    },
)  # fmt: skip


# --- Dense layers ----------------------------------------------------------------------------------------------------


def dense(inner=relu, join=lambda x, new: (x, new), bias=1.0):
    """A layer of a dense block with some of its pieces changed."""
    return lambda x, w, b: np.concatenate(join(x, conv(inner(x), w, bias * b)), axis=1)


@exercise(
    points=2, minutes=8, difficulty=1, draws=dict(w=small("g", "c", "3", "3")),
    cases=[
        dict(n=2, c=3, g=2, ih=5, iw=4),
        dict(n=3, c=2, g=4, ih=3, iw=6),
        dict(n=2, c=3, g=3, ih=4, iw=2),
        dict(n=2, c=1, g=2, ih=1, iw=3),
        dict(n=1, c=1, g=1, ih=1, iw=1),
    ],
    hints=(
        "The layer makes g new channels out of relu(x), and hands on the c old ones as well: c + g in all.",
        "`np.concatenate([…, …], axis=1)` puts channels one after the other. Which come first?",
        "new = conv(relu(x), w, b) with padding=1; y = np.concatenate([x, new], axis=1). The old channels are x "
        "itself, without relu.",
    ),
    mistakes={
        "y has the new channels first. The old ones stay where they were; the new ones come after them.":
            dense(join=lambda x, new: (new, x)),
        "y hands on relu(x). The old channels pass as they came; only the convolution sees them through the relu.":
            dense(join=lambda x, new: (relu(x), new)),
        "y lacks the relu: the convolution sees relu(x).":
            dense(inner=lambda x: x),
        "y has the relu after the convolution. In this layer it comes before.":
            dense(inner=lambda x: x, join=lambda x, new: (x, relu(new))),
        "y has a relu after the convolution too. The next layer begins with one, so none is needed here.":
            dense(join=lambda x, new: (x, relu(new))),
        "y lacks the bias of the convolution.":
            dense(bias=0.0),
        "y holds the new channels only. The old ones are handed on too: concatenate along axis 1.":
            dense(join=lambda x, new: (new,)),
        "y adds the input to the new channels instead of standing beside them. That is a residual block; this one "
        "concatenates.":
            dense(join=lambda x, new: (x, new + x.mean(axis=1, keepdims=True))),
    },
)  # fmt: skip
def dense_layer_forward(x: "n c ih iw", w: "g c 3 3", b: "g") -> "y: ...":
    """The input's channels, followed by g new ones that a convolution makes of its ReLU (Huang et al., 2017)."""
    return torch.cat([x, F.conv2d(F.relu(x), w, b, padding=1)], dim=1)


def dense_grads(
    split=lambda dy, c: (dy[:, :c], dy[:, c:]), mask=lambda x: x > 0, seen=relu,
    take=lambda kept, through, x: kept + through,
):  # fmt: skip
    """The backward pass of a layer of a dense block with some of its pieces changed."""

    def backward(dy, x, w, b):
        kept, new = split(dy, x.shape[1])
        through, _, db = conv_backward(new, relu(x), w)
        _, dw, _ = conv_backward(new, seen(x), w)
        return take(kept, through * mask(x), x), dw, db

    return backward


gradient_of(
    dense_layer_forward, points=4, minutes=15, difficulty=2,
    hints=(
        "Concatenation moves numbers to other places and changes none. So its gradient cuts dy apart: which channels "
        "of dy belong to x, which to the new ones?",
        "`dy[:, :c]` belongs to x, `dy[:, c:]` to the convolution, with c = x.shape[1].",
        "The convolution's part goes back through conv2d_backward, whose input was relu(x), and then through the relu. "
        "That share of dx and `dy[:, :c]` add.",
    ),
    mistakes={
        "dx lacks what comes straight back through the concatenation: the first c channels of dy.":
            dense_grads(take=lambda kept, through, x: through),
        "dx is only what comes straight back through the concatenation. The new channels also depend on x.":
            dense_grads(take=lambda kept, through, x: kept),
        "dx, dw and db cut dy apart in the wrong order: the old channels come first, the new ones last.":
            dense_grads(split=lambda dy, c: (dy[:, -c:], dy[:, :-c])),
        "dx ignores the relu: where x was negative, nothing comes back through the convolution.":
            dense_grads(mask=lambda x: True),
        "dx is masked where x is negative on the direct way too. The old channels were handed on without a relu.":
            dense_grads(take=lambda kept, through, x: kept * (x > 0) + through),
        "dw is computed from x. The convolution saw relu(x).":
            dense_grads(seen=lambda x: x),
        "dw is computed from x, and dx ignores the relu. The convolution saw relu(x), and its gradient passes that "
        "relu on the way back.":
            dense_grads(mask=lambda x: True, seen=lambda x: x),
        "dx takes the mean of the two ways. Gradients of a number that is used twice add.":
            dense_grads(take=lambda kept, through, x: (kept + through) / 2),
    },
)  # fmt: skip


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """conv, norm, ReLU, conv, norm, plus the shortcut, ReLU (He et al., 2015)."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            skip = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(skip, nn.BatchNorm2d(out_channels))

    def inner(self, x):
        return self.bn1(self.conv1(x)).relu()

    def branch(self, x):
        return self.bn2(self.conv2(self.inner(x)))

    def forward(self, x):
        return (self.branch(x) + self.shortcut(x)).relu()


class NoSkip(ResidualBlock):
    def forward(self, x):
        self.shortcut(x)
        return self.branch(x).relu()


class NoLastReLU(ResidualBlock):
    def forward(self, x):
        return self.branch(x) + self.shortcut(x)


class EarlyReLU(ResidualBlock):
    def forward(self, x):
        return self.branch(x).relu() + self.shortcut(x)


class BothReLU(ResidualBlock):
    def forward(self, x):
        return (self.branch(x).relu() + self.shortcut(x)).relu()


class NoInnerReLU(ResidualBlock):
    def inner(self, x):
        return self.bn1(self.conv1(x))


class ReLUBeforeNorm(ResidualBlock):
    def inner(self, x):
        return self.bn1(self.conv1(x).relu())


class NormAfterSum(ResidualBlock):
    def forward(self, x):
        return self.bn2(self.conv2(self.inner(x)) + self.shortcut(x)).relu()


class OneNorm(ResidualBlock):
    def branch(self, x):
        return self.bn1(self.conv2(self.inner(x)))


class SkipAfterReLU(ResidualBlock):
    def forward(self, x):
        return (self.branch(x) + self.shortcut(x.relu())).relu()


class ReLUOnShortcut(ResidualBlock):
    def forward(self, x):
        return (self.branch(x) + self.shortcut(x).relu()).relu()


class StrideInSecond(ResidualBlock):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.conv1.stride, self.conv2.stride = (1, 1), (stride, stride)


class LastGainZero(ResidualBlock):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        nn.init.zeros_(self.bn2.weight)


def running(key):
    """A drawn running statistic of as many channels as the block puts out."""
    if key.endswith("var"):
        return lambda rng, init: rng.uniform(0.3, 2.0, init["out_channels"])
    return lambda rng, init: rng.standard_normal(init["out_channels"])


module(
    ResidualBlock, points=6, minutes=25, difficulty=2,
    draws={
        key: running(key)
        for norm in ("bn1", "bn2", "shortcut.1")
        for key in (f"{norm}.running_mean", f"{norm}.running_var")
    },
    cases=[
        dict(init=dict(in_channels=2, out_channels=3, stride=2), x=(2, 2, 5, 4)),
        dict(init=dict(in_channels=3, out_channels=3), x=(2, 3, 3, 4)),
        dict(init=dict(in_channels=3, out_channels=2), x=(2, 3, 4, 3)),
        dict(init=dict(in_channels=2, out_channels=2, stride=2), x=(3, 2, 5, 7)),
        dict(init=dict(in_channels=2, out_channels=3, stride=2), train=False, x=(2, 2, 3, 5)),
        dict(init=dict(in_channels=2, out_channels=2), train=False, x=(1, 2, 4, 3)),
        dict(init=dict(in_channels=1, out_channels=1, stride=3), train=False, x=(1, 1, 1, 1)),
    ],
    hints=(
        "Five attributes: `conv1`, `bn1`, `conv2`, `bn2` and `shortcut`. Each convolution is followed by a batch norm, "
        "so it needs no bias: `bias=False`.",
        "`shortcut` is an empty `nn.Sequential()`, which hands on its input, if neither the channels nor the size "
        "change. Otherwise it holds a 1 × 1 convolution with the stride, and a batch norm.",
        "The condition: `stride != 1 or in_channels != out_channels`. Both parts matter.",
        "forward: h = relu(bn1(conv1(x))), then relu(bn2(conv2(h)) + shortcut(x)). Only conv1 and the shortcut have "
        "the stride; both 3 × 3 convolutions have padding=1.",
    ),
    mistakes={
        "y lacks the skip connection: self.shortcut(x) has to be added.": NoSkip,
        "y lacks the last relu, the one after the sum.": NoLastReLU,
        "y has its last relu before the sum. It comes after the shortcut has been added.": EarlyReLU,
        "y has a relu before the sum as well as after it. Then the branch can only add, never take away.": BothReLU,
        "y lacks the relu between bn1 and conv2.": NoInnerReLU,
        "y has the inner relu before bn1. The order is conv1, bn1, relu.": ReLUBeforeNorm,
        "y is normalised after the sum. bn2 belongs to the branch: the shortcut is added to what it puts out.":
            NormAfterSum,
        "y goes through bn1 twice and never through bn2.": OneNorm,
        "y has relu(x) at the start of the skip, perhaps by a relu that works in place. The skip takes x as it came.":
            SkipAfterReLU,
        "y has a relu on the shortcut. Nothing stands between the shortcut and the sum.": ReLUOnShortcut,
        "y has the stride in conv2. The shapes agree, but in this block conv1 takes the steps.": StrideInSecond,
        "bn2.weight starts at 0. That is a good idea, and comes below; here it starts at 1, as PyTorch's does.":
            LastGainZero,
    },
)  # fmt: skip


class DenseBlock(nn.Module):
    """num_layers times norm, ReLU, conv, whose channels are appended (Huang et al., 2017)."""

    def __init__(self, in_channels, growth_rate, num_layers):
        super().__init__()
        widths = [in_channels + k * growth_rate for k in range(num_layers)]
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in widths])
        self.convs = nn.ModuleList([nn.Conv2d(width, growth_rate, 3, padding=1, bias=False) for width in widths])

    def new(self, norm, conv, x):
        return conv(norm(x).relu())

    def join(self, x, new):
        return torch.cat([x, new], dim=1)

    def forward(self, x):
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = self.join(x, self.new(norm, conv, x))
        return x


class NewFirst(DenseBlock):
    def join(self, x, new):
        return torch.cat([new, x], dim=1)


class NoReLU(DenseBlock):
    def new(self, norm, conv, x):
        return conv(norm(x))


class ReLUFirst(DenseBlock):
    def new(self, norm, conv, x):
        return conv(norm(x.relu()))


class ReLULast(DenseBlock):
    def new(self, norm, conv, x):
        return conv(norm(x)).relu()


class ReLUTwice(DenseBlock):
    def new(self, norm, conv, x):
        return super().new(norm, conv, x).relu()


class NoNorm(DenseBlock):
    def new(self, norm, conv, x):
        norm(x)
        return conv(x.relu())


class HandsOnNormed(DenseBlock):
    def forward(self, x):
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = norm(x).relu()
            x = self.join(x, conv(x))
        return x


class OnlyNew(DenseBlock):
    def forward(self, x):
        return super().forward(x)[:, x.shape[1] :]


class OnlyLast(DenseBlock):
    def forward(self, x):
        return super().forward(x)[:, -self.convs[0].out_channels :]


def dense_running(layer, kind):
    """A drawn running statistic of the norm of one layer."""

    def draw(rng, init):
        width = init["in_channels"] + layer * init["growth_rate"]
        return rng.uniform(0.3, 2.0, width) if kind == "var" else rng.standard_normal(width)

    return draw


module(
    DenseBlock, points=5, minutes=20, difficulty=2,
    draws={
        f"norms.{layer}.running_{kind}": dense_running(layer, kind) for layer in range(3) for kind in ("mean", "var")
    },
    cases=[
        dict(init=dict(in_channels=2, growth_rate=3, num_layers=3), x=(2, 2, 3, 4)),
        dict(init=dict(in_channels=3, growth_rate=2, num_layers=2), x=(2, 3, 5, 2)),
        dict(init=dict(in_channels=2, growth_rate=3, num_layers=3), train=False, x=(2, 2, 2, 3)),
        dict(init=dict(in_channels=1, growth_rate=1, num_layers=1), train=False, x=(1, 1, 1, 1)),
    ],
    hints=(
        "Layer k sees in_channels + k · growth_rate channels, counted from 0, and makes growth_rate new ones.",
        "`self.norms` and `self.convs` are two `nn.ModuleList`s with num_layers entries each: "
        "`nn.BatchNorm2d(width)` and `nn.Conv2d(width, growth_rate, 3, padding=1, bias=False)`.",
        "forward: for each pair, new = conv(relu(norm(x))), then x = torch.cat([x, new], dim=1). After the last layer, "
        "x is the output.",
    ),
    mistakes={
        "y has the new channels before the old ones. The old ones come first.": NewFirst,
        "y lacks the relu between norm and convolution.": NoReLU,
        "y has the relu before the norm. The order is norm, relu, convolution.": ReLUFirst,
        "y has the relu after the convolution. The order is norm, relu, convolution.": ReLULast,
        "y has a relu after the convolution too. The next layer begins with norm and relu, so none is needed here.":
            ReLUTwice,
        "y never goes through the norms. The order is norm, relu, convolution.": NoNorm,
        "y hands on what norm and relu have made of the old channels. They pass as they came.": HandsOnNormed,
        "y lacks the channels that came in. A dense block hands on all of them.": OnlyNew,
        "y holds the channels of the last layer only. A dense block hands on those of all layers, and the input's.":
            OnlyLast,
    },
)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


@exercise(
    repair=True, points=2, minutes=10, difficulty=2, cases=SQUARE, draws=KERNELS,
    hints=(
        "Give it an x that is negative everywhere and weights of 0. What should come out, and what does?",
        "`stream` and `branch`: are these two arrays, or two names of one? Look at `stream` after the first relu.",
        "`np.maximum(…, out=branch)` overwrites the array that `stream` is, too. Let the relu make a new array.",
    ),
    mistakes={
        "y has relu(x) on the skip: the first relu works in place, on the very array that is added in the end.":
            SKIP_IS_RELU,
        "y lacks the first relu. It has to stay, only not in place.":
            preactivated(first=lambda x: x),
        "y lacks the second relu. It was right: what it overwrites is not needed any more.":
            preactivated(inner=lambda z: z),
        "y lacks both relus. They have to stay, only the first one not in place.":
            preactivated(first=lambda x: x, inner=lambda z: z),
        "y lacks the skip connection. It was right to add x; only, not after the relu.":
            preactivated(combine=lambda x, f: f),
        "y has a relu after the sum. The fault is before it: what is added is no longer x.":
            preactivated(combine=lambda x, f: relu(x + f)),
    },
)  # fmt: skip
def repair_preactivation_forward(x: "n c h w", w1: "m c 3 3", b1: "m", w2: "c m 3 3", b2: "c") -> "y: n c h w":
    """A pre-activation block that saves memory."""
    return preactivation_forward(x, w1, b1, w2, b2)


def free_shortcut(rows=lambda x, s: x[:, :, ::s, ::s], fill=lambda kept, o: padded_channels(kept, 0, o)):
    """A shortcut without parameters, with some of its pieces changed."""
    return lambda x, out_channels, stride=1: fill(rows(x, stride), out_channels)


def padded_channels(x, before, o):
    """Channels of zeros before and after those of x, so that there are o."""
    return np.pad(x, ((0, 0), (before, o - x.shape[1] - before), (0, 0), (0, 0)))


def first_rows(x, stride):
    return x[:, :, : -(-x.shape[2] // stride), : -(-x.shape[3] // stride)]


def repeated_channels(x, o):
    return np.stack([x[:, k % x.shape[1]] for k in range(o)], axis=1)


@exercise(
    repair=True, points=3, minutes=12, difficulty=2,
    cases=[
        dict(n=2, c=2, h=5, w=4, out_channels=5, stride=2),
        dict(n=2, c=3, h=4, w=6, out_channels=6, stride=2),
        dict(n=2, c=3, h=3, w=5, out_channels=3, stride=2),
        dict(n=3, c=2, h=3, w=2, out_channels=5),
        dict(n=1, c=2, h=7, w=5, out_channels=4, stride=3),
        dict(n=1, c=1, h=1, w=1, out_channels=2, stride=2),
    ],
    hints=(
        "Feed it an image whose entries are their own column numbers, 0 to 5, with stride 2. Which columns should the "
        "shortcut keep, and which does it keep?",
        "The branch with stride 2 looks at rows 0, 2, 4, …: the shortcut has to keep the same ones, "
        "`x[:, :, ::stride, ::stride]`.",
        "The second fault is in the channels that are too many: they are to be 0, and are copies instead. Make an "
        "array of zeros with out_channels channels and write the kept ones into the first c.",
    ),
    mistakes={
        "y keeps the first rows and columns and fills the other channels with copies: two faults. Every stride-th row "
        "and column belongs there, and zeros.":
            free_shortcut(first_rows, repeated_channels),
        "y still keeps the first rows and columns: the upper left corner. Every stride-th one belongs there.":
            free_shortcut(first_rows),
        "y still fills the channels after the first c with copies. They are to be 0.":
            free_shortcut(fill=repeated_channels),
        "y has the zeros in front. The channels of x come first.":
            free_shortcut(fill=lambda kept, o: padded_channels(kept, o - kept.shape[1], o)),
        "y starts at the wrong row: row 0 is the first to be kept.":
            free_shortcut(rows=lambda x, s: np.roll(x, (-s + 1, -s + 1), (2, 3))[:, :, ::s, ::s]),
    },
)  # fmt: skip
def repair_shortcut_forward(x: "n c h w", out_channels, stride=1) -> "y: ...":
    """A shortcut without parameters: every stride-th row and column, then channels of zeros (He et al., 2015)."""
    return F.pad(F.max_pool2d(x, 1, stride), (0, 0, 0, 0, 0, out_channels - x.shape[1]))


# --- Predict ---------------------------------------------------------------------------------------------------------


def counted(branch=lambda i, o: 9 * i * o + 9 * o * o + 4 * o, shortcut=lambda i, o: i * o + 2 * o,
            needed=lambda i, o, s: s != 1 or i != o):  # fmt: skip
    """The count of a block's parameters with some of its pieces changed."""
    return lambda in_channels, out_channels, stride: (
        branch(in_channels, out_channels),
        shortcut(in_channels, out_channels) if needed(in_channels, out_channels, stride) else 0,
    )


def some(low, high):
    return lambda rng, sizes: int(rng.integers(low, high))


@exercise(
    points=2, minutes=10, difficulty=1,
    cases=[
        dict(in_channels=some(3, 30), out_channels=some(31, 60), stride=2),
        dict(in_channels=16, out_channels=16, stride=1),
        dict(in_channels=24, out_channels=24, stride=2),
        dict(in_channels=some(3, 30), out_channels=some(31, 60), stride=1),
        dict(in_channels=some(31, 60), out_channels=some(3, 30), stride=1),
    ],
    hints=(
        "A convolution without bias has out · in · 3 · 3 weights. The branch has two; what are their channels?",
        "A batch norm has a gain and a bias for each channel: 2 · out_channels. Its running statistics are buffers and "
        "no parameters.",
        "The shortcut has parameters only if the stride is not 1 or the channels change: out · in · 1 · 1, and the "
        "2 · out of its norm.",
    ),
    mistakes={
        "branch lacks the norms: each has 2 · out_channels parameters.":
            counted(branch=lambda i, o: 9 * i * o + 9 * o * o),
        "branch counts one parameter for each channel of a norm. There are two, a gain and a bias.":
            counted(branch=lambda i, o: 9 * i * o + 9 * o * o + 2 * o),
        "branch counts the running statistics. They are buffers: no gradient ever reaches them.":
            counted(branch=lambda i, o: 9 * i * o + 9 * o * o + 8 * o),
        "branch counts biases for its convolutions. The norms after them make them useless, so there are none.":
            counted(branch=lambda i, o: 9 * i * o + 9 * o * o + 6 * o),
        "branch takes in_channels for the second convolution too. What does the second convolution see?":
            counted(branch=lambda i, o: 18 * i * o + 4 * o),
        "shortcut is counted where it is the identity. If neither channels nor size change, it has no parameters.":
            counted(needed=lambda i, o, s: True),
        "shortcut is 0 where only the stride changes. x is too large to be added there: it needs a projection.":
            counted(needed=lambda i, o, s: i != o),
        "shortcut is 0 where only the channels change. x has too many or too few to be added: it needs a projection.":
            counted(needed=lambda i, o, s: s != 1),
        "shortcut is counted as a 3 × 3 convolution. It is 1 × 1: it mixes channels and looks at no neighbours.":
            counted(shortcut=lambda i, o: 9 * i * o + 2 * o),
        "shortcut lacks its norm: 2 · out_channels.":
            counted(shortcut=lambda i, o: i * o),
    },
)  # fmt: skip
def count_block_parameters(in_channels, out_channels, stride) -> "branch:, shortcut:":
    """The learnable numbers of a ResidualBlock."""
    block = ResidualBlock(in_channels, out_channels, stride)
    shortcut = sum(value.numel() for value in block.shortcut.parameters())
    return np.array(sum(value.numel() for value in block.parameters()) - shortcut), np.array(shortcut)


@exercise(
    points=2, minutes=8, difficulty=2,
    cases=[
        dict(blocks=3, length=1),
        dict(blocks=some(5, 9), length=2),
        dict(blocks=some(10, 14), length=some(4, 7)),
        dict(blocks=5, length=0),
        dict(blocks=6, length=6),
        dict(blocks=54, length=27),
    ],
    hints=(
        "Write the paths through three blocks as words of three letters, s for skip and b for branch: sss, ssb, sbs, … "
        "How many have exactly one b?",
        "Choose the blocks whose branch is taken; the order of choosing does not matter.",
        "The number of ways to choose `length` of `blocks` things: `math.comb(blocks, length)`.",
    ),
    mistakes={
        "paths counts those of every length, 2 to the power of the blocks. Asked are those through exactly `length` "
        "branches.":
            lambda blocks, length: 2**blocks,
        "paths counts the same choice of branches once for every order. The order is fixed: choose, don't arrange.":
            lambda blocks, length: perm(blocks, length),
        "paths is blocks to the power of length, as if the same branch could be taken twice.":
            lambda blocks, length: blocks**length,
        "paths is blocks times length. Write them out for three blocks and length 2.":
            lambda blocks, length: blocks * length,
        "paths counts all up to that length. Asked are those of exactly that length.":
            lambda blocks, length: sum(comb(blocks, k) for k in range(length + 1)),
        "paths is 2 to the power of length, as if the first `length` blocks alone had a choice.":
            lambda blocks, length: 2**length,
    },
)  # fmt: skip
def count_paths(blocks, length) -> "paths:":
    """How many ways through a chain of residual blocks take exactly `length` of their branches (Veit et al., 2016)."""
    ways = torch.zeros(blocks + 1, dtype=torch.float64)
    ways[0] = 1
    for _ in range(blocks):  # every way goes on twice: along the skip, and one longer through the branch
        ways = ways + torch.cat([ways.new_zeros(1), ways[:-1]])
    return ways[length]


@exercise(
    points=1, minutes=6, difficulty=1,
    cases=[
        dict(in_channels=some(3, 30), growth_rate=some(2, 9), num_layers=some(2, 7)),
        dict(in_channels=64, growth_rate=32, num_layers=6),
        dict(in_channels=some(3, 30), growth_rate=some(10, 13), num_layers=1),
    ],
    hints=(
        "Each layer adds growth_rate channels to those that are there.",
        "The last layer sees what the input and all layers before it have made.",
        "out = in_channels + num_layers · growth_rate; the last layer sees growth_rate fewer.",
    ),
    mistakes={
        "out lacks the channels that came in. A dense block hands them on.":
            lambda i, g, layers: (layers * g, i + (layers - 1) * g),
        "out is what the last layer sees: its own channels are missing.":
            lambda i, g, layers: (i + (layers - 1) * g, i + (layers - 1) * g),
        "seen counts the channels that the last layer makes itself.":
            lambda i, g, layers: (i + layers * g, i + layers * g),
        "seen lacks the channels that came in: every layer sees them.":
            lambda i, g, layers: (i + layers * g, (layers - 1) * g),
        "seen is what one layer makes. Every layer sees the input, and what all layers before it have made.":
            lambda i, g, layers: (i + layers * g, g),
        "out is the growth rate: that is what one layer adds.":
            lambda i, g, layers: (g, i + (layers - 1) * g),
    },
)  # fmt: skip
def dense_channels(in_channels, growth_rate, num_layers) -> "out:, seen:":
    """The channels that a dense block puts out, and those that its last layer sees."""
    block = DenseBlock(in_channels, growth_rate, num_layers)
    out = block.eval()(torch.zeros(1, in_channels, 1, 1))
    return np.array(out.shape[1]), np.array(block.convs[-1].in_channels)
