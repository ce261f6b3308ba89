"""Lesson 08: batch, layer, group and RMS norm; training and evaluation."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import exercise, gradient_of, module

quiet = np.errstate(all="ignore")  # decorates the mistakes that divide by zero, as the learner's own would


# What the wrong implementations below are made of.


def inverse(x, axes, eps, ddof=0):
    """1 / sqrt(var + eps) over the axes, which stay with size 1."""
    with np.errstate(all="ignore"):
        return 1 / np.sqrt(x.var(axis=axes, keepdims=True, ddof=ddof) + eps)


def centred(x, axes):
    return x - x.mean(axis=axes, keepdims=True)


def standard(x, axes, eps, ddof=0):
    return centred(x, axes) * inverse(x, axes, eps, ddof)


def projected(g, x, axes, eps):
    """The gradient through the standardisation: three paths."""
    xhat = standard(x, axes, eps)
    g = centred(g, axes) - xhat * (g * xhat).mean(axis=axes, keepdims=True)
    return g * inverse(x, axes, eps)


def rms(x, eps):
    """1 / root mean square along the last axis."""
    with np.errstate(all="ignore"):
        return 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def leading(x):
    """All axes but the last."""
    return tuple(range(x.ndim - 1))


def cancelling(x, axes, eps):
    """The mean of the squares less the square of the mean, which loses its digits far from zero."""
    with np.errstate(all="ignore"):
        var = (x**2).mean(axis=axes, keepdims=True) - x.mean(axis=axes, keepdims=True) ** 2
        return centred(x, axes) / np.sqrt(var + eps)


# How arguments are drawn.


def far(*shape):
    return lambda rng, sizes: 1e7 + rng.standard_normal(shape)


def tiny(*shape):
    return lambda rng, sizes: 1e-2 * rng.standard_normal(shape)


def positive(letter):
    return lambda rng, sizes: rng.uniform(0.2, 3.0, sizes[letter])


# A column, or a row, without any spread: only eps keeps it from 0 / 0.
FLAT = np.array([[3.0, 1, -2], [3, 4, -2], [3, 0, -2], [3, -1, -2]])
ZERO_ROWS = np.array([[0.0, 0, 0, 0], [1, -2, 0, 4], [0, 0, 0, 0]])
EQUAL_ROWS = np.array([[5.0, 5, 5, 5], [1, -2, 0, 4], [-1, -1, -1, -1]])

BATCHES = [
    dict(n=6, d=4),
    dict(n=3, d=3, eps=0.1),
    dict(n=2, d=5),
    dict(n=5, d=1),
    dict(n=1, d=3),
    dict(n=4, d=3, x=FLAT),
    dict(n=5, d=2, x=tiny(5, 2)),
]
ROWS = [
    dict(d=4, x=(6, 4)),
    dict(d=3, x=(3, 3), eps=0.1),
    dict(d=5, x=(2, 3, 5)),
    dict(d=2, x=(4, 2, 2)),
    dict(d=1, x=(3, 1)),
    dict(d=6, x=(1, 6)),
    dict(d=4, x=ZERO_ROWS),
    dict(d=4, x=EQUAL_ROWS),
    dict(d=3, x=tiny(2, 2, 3)),
]
IMAGES = [
    dict(n=3, c=6, h=2, w=4, num_groups=3),
    dict(n=2, c=4, h=3, w=3, num_groups=2, eps=0.1),
    dict(n=2, c=4, h=2, w=3, num_groups=4),
    dict(n=2, c=4, h=2, w=3, num_groups=1),
    dict(n=1, c=6, h=3, w=2, num_groups=2),
    dict(n=3, c=6, h=1, w=1, num_groups=2),
    dict(n=2, c=2, h=1, w=1, num_groups=2),
    dict(n=2, c=4, h=2, w=2, num_groups=2, x=tiny(2, 4, 2, 2)),
]


# --- Batch norm ------------------------------------------------------------------------------------------------------


@exercise(
    points=3, minutes=12, difficulty=1, cases=[*BATCHES, dict(n=4, d=3, x=far(4, 3))],
    hints=(
        "One mean and one variance per feature: arrays of shape (d,). Which axis of x (n, d) has to go?",
        "xhat = (x - mean) / sqrt(var + eps), with the biased variance, the mean of the squared deviations: "
        "`x.var(axis=0)`.",
        "y = gamma · xhat + beta. All four of mean, var, gamma, beta have shape (d,) and broadcast over the examples.",
    ),
    mistakes={
        "y averages over the features of each example: that is layer norm. Batch norm has one mean per feature; which "
        "axis counts the examples?":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, 1, eps) + beta,
        "y is scaled with the unbiased variance, which divides by n - 1. In the forward pass batch norm divides by n, "
        "so that the batch itself has variance 1.":
            quiet(lambda x, gamma, beta, eps=1e-5: gamma * standard(x, 0, eps, ddof=1) + beta),
        "y lacks eps, and is nan where a feature is constant: 0 / 0. Where does eps stand?":
            quiet(lambda x, gamma, beta, eps=1e-5: gamma * standard(x, 0, 0) + beta),
        "y has eps outside the root. It is added to the variance, under the root: sqrt(var + eps).":
            lambda x, gamma, beta, eps=1e-5: gamma * centred(x, 0) / (x.std(0) + eps) + beta,
        "y is divided by the variance. Only its root has the unit of x, so that the quotient has none.":
            lambda x, gamma, beta, eps=1e-5: gamma * centred(x, 0) / (x.var(0) + eps) + beta,
        "y lacks the shift: after gamma comes + beta.":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, 0, eps),
        "y lacks the gain: each feature of xhat is multiplied by its gamma.":
            lambda x, gamma, beta, eps=1e-5: standard(x, 0, eps) + beta,
        "y is xhat itself. Gamma and beta have still to be applied, feature by feature.":
            lambda x, gamma, beta, eps=1e-5: standard(x, 0, eps),
        "y has gamma and beta in each other's places: gamma multiplies, beta is added.":
            lambda x, gamma, beta, eps=1e-5: beta * standard(x, 0, eps) + gamma,
        "y adds beta before the gain, so that beta is multiplied by gamma too. The order is gamma · xhat + beta.":
            lambda x, gamma, beta, eps=1e-5: gamma * (standard(x, 0, eps) + beta),
        "y has one mean and one variance for the whole array. Every feature has its own; give .mean and .var an axis.":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, (0, 1), eps) + beta,
        "y lost its digits where x is near ten million: the mean of the squares less the square of the mean cancels. "
        "Subtract the mean first, square after.":
            quiet(lambda x, gamma, beta, eps=1e-5: gamma * cancelling(x, 0, eps) + beta),
        "y ignores the argument eps and always takes 1e-5.":
            lambda x, gamma, beta, eps=None: gamma * standard(x, 0, 1e-5) + beta,
        "y is centred but not scaled: divide by the standard deviation of each feature.":
            lambda x, gamma, beta, eps=1e-5: gamma * centred(x, 0) + beta,
        "y is scaled but not centred: subtract each feature's mean before you divide.":
            lambda x, gamma, beta, eps=1e-5: gamma * x * inverse(x, 0, eps) + beta,
    },
)  # fmt: skip
def batchnorm_forward(x: "n d", gamma: "d", beta: "d", eps=1e-5) -> "y: n d":
    """Each feature standardised over the batch, then scaled and shifted: batch norm in training."""
    # F.batch_norm refuses a batch of one, for which the formula still has a value; this is what it calls.
    return torch.batch_norm(x, gamma, beta, None, None, True, 0.1, eps, False)


def norm_backward(axes=0, of=None, **changes):
    """A backward pass of y = gamma · xhat + beta with some of its pieces changed."""

    def backward(dy, x, gamma, beta, eps=1e-5):
        over = leading(x) if axes == -1 else 0
        xhat = standard(x, axes, eps)
        right = dict(dx=projected(dy * gamma, x, axes, eps), dgamma=(dy * xhat).sum(over), dbeta=dy.sum(over))
        given = dict(dy=dy, x=x, gamma=gamma, eps=eps, xhat=xhat, axes=axes, over=over)
        return tuple((right | {name: change(**given) for name, change in changes.items()}).values())

    return quiet(backward)


DX_MISTAKES = {
    "dx treats mean and variance as constants. Every entry of x moves both, and through them every other entry: two "
    "paths are missing.":
        dict(dx=lambda dy, x, gamma, eps, axes, **_: dy * gamma * inverse(x, axes, eps)),
    "dx lacks the path through the variance: subtract xhat times the mean of (gradient at xhat) · xhat as well.":
        dict(dx=lambda dy, x, gamma, eps, axes, **_: centred(dy * gamma, axes) * inverse(x, axes, eps)),
    "dx lacks the path through the mean: the mean of the gradient at xhat has to be subtracted.":
        dict(dx=lambda dy, x, gamma, eps, xhat, axes, **_: inverse(x, axes, eps)
             * (dy * gamma - xhat * (dy * gamma * xhat).mean(axes, keepdims=True))),
    "dx subtracts sums where means belong: each of the two statistics is a mean, and its 1/n is a factor of its "
    "gradient.":
        dict(dx=lambda dy, x, gamma, eps, xhat, axes, **_: inverse(x, axes, eps) * (
            dy * gamma - (dy * gamma).sum(axes, keepdims=True)
            - xhat * (dy * gamma * xhat).sum(axes, keepdims=True))),
    "dx subtracts a sum in the path through the variance. The variance is a mean as well, of squares: its 1/n is a "
    "factor of its gradient.":
        dict(dx=lambda dy, x, gamma, eps, xhat, axes, **_: inverse(x, axes, eps) * (
            centred(dy * gamma, axes) - xhat * (dy * gamma * xhat).sum(axes, keepdims=True))),
    "dx has half of the path through the variance: the derivative of (x - mean)² is 2 (x - mean).":
        dict(dx=lambda dy, x, gamma, eps, xhat, axes, **_: inverse(x, axes, eps) * (
            centred(dy * gamma, axes) - xhat * (dy * gamma * xhat).mean(axes, keepdims=True) / 2)),
    "dx adds the path through the variance. A larger variance makes y smaller: which sign does that path get?":
        dict(dx=lambda dy, x, gamma, eps, xhat, axes, **_: inverse(x, axes, eps) * (
            centred(dy * gamma, axes) + xhat * (dy * gamma * xhat).mean(axes, keepdims=True))),
    "dx lacks gamma: what arrives at xhat is dy · gamma.":
        dict(dx=lambda dy, x, eps, axes, **_: projected(dy, x, axes, eps)),
    "dx lacks the division by the standard deviation: xhat is x in units of it, so that each path ends with "
    "1 / sqrt(var + eps).":
        dict(dx=lambda dy, x, gamma, eps, axes, **_: projected(dy * gamma, x, axes, eps) / inverse(x, axes, eps)),
    "dx divides by the variance where it should divide by its root.":
        dict(dx=lambda dy, x, gamma, eps, axes, **_: projected(dy * gamma, x, axes, eps) * inverse(x, axes, eps)),
    "dx is nan where the variance is 0: eps belongs into the backward pass too, where the forward pass has it.":
        dict(dx=lambda dy, x, gamma, axes, **_: projected(dy * gamma, x, axes, 0)),
}  # fmt: skip
GAIN_MISTAKES = {
    "dgamma uses x where xhat belongs: gamma multiplied the standardised numbers.":
        dict(dgamma=lambda dy, x, over, **_: (dy * x).sum(over)),
    "dgamma and dbeta are means. A parameter collects the gradient of every entry it was used for: a sum.":
        dict(dgamma=lambda dy, xhat, over, **_: (dy * xhat).mean(over), dbeta=lambda dy, over, **_: dy.mean(over)),
    "dgamma and dbeta keep the summed axes with size 1. They have the shape of gamma and beta: (d,).":
        dict(dgamma=lambda dy, xhat, over, **_: (dy * xhat).sum(over, keepdims=True),
             dbeta=lambda dy, over, **_: dy.sum(over, keepdims=True)),
    "dgamma is multiplied by gamma. The derivative of gamma · xhat by gamma is xhat alone.":
        dict(dgamma=lambda dy, xhat, gamma, over, **_: (dy * xhat * gamma).sum(over)),
    "dbeta ignores dy: it counts the entries. Beta was added to each of them; what arrives from each?":
        dict(dbeta=lambda dy, over, **_: np.ones_like(dy).sum(over)),
    "dgamma ignores dy: the chain rule multiplies xhat by what arrives from above, entry by entry.":
        dict(dgamma=lambda xhat, over, **_: xhat.sum(over)),
}  # fmt: skip

gradient_of(
    batchnorm_forward, points=6, minutes=35, difficulty=3, cases=BATCHES,
    hints=(
        "Work backwards through y = gamma · xhat + beta first. It gives dbeta, dgamma, and what arrives at xhat: "
        "g = dy · gamma.",
        "x reaches xhat directly, through the mean and through the variance. dvar = -½ (var + eps)^(-3/2) · the sum of "
        "g · (x - mean) over the batch; what is the gradient at the mean?",
        "Together: dx = (g - g.mean(axis=0) - xhat · (g · xhat).mean(axis=0)) / sqrt(var + eps).",
    ),
    mistakes={
        sentence: norm_backward(**changes) for sentence, changes in (DX_MISTAKES | GAIN_MISTAKES).items()
    } | {
        "dx is divided by n once too often. In the formula with 1/n in front, the direct path stands as n · g.":
            norm_backward(dx=lambda dy, x, gamma, eps, axes, **_: projected(dy * gamma, x, axes, eps) / len(x)),
        "dx works along the features of each example: that is layer norm's gradient. The batch is axis 0.":
            norm_backward(dx=lambda dy, x, gamma, eps, **_: projected(dy * gamma, x, 1, eps)),
        "dx, dgamma and dbeta belong to layer norm, which averages over the features. Here the batch is averaged over: "
        "axis 0.":
            quiet(lambda dy, x, gamma, beta, eps=1e-5: (
                projected(dy * gamma, x, 1, eps), (dy * standard(x, 1, eps)).sum(0), dy.sum(1))),
    },
)  # fmt: skip


@exercise(
    points=3, minutes=12, difficulty=2,
    draws=dict(running_var=positive("d")),
    cases=[
        dict(n=6, d=4),
        dict(n=3, d=3, momentum=0.3),
        dict(n=2, d=5),
        dict(n=4, d=1),
        dict(n=4, d=3, x=FLAT),
        dict(n=5, d=2, momentum=1.0),
        dict(n=5, d=2, running_mean=np.zeros(2), running_var=np.ones(2)),
    ],
    hints=(
        "Both running statistics are mixtures: a share of the old value and a share of the new batch's. In PyTorch "
        "`momentum` is the share of the new one.",
        "running_mean = (1 - momentum) · running_mean + momentum · mean of the batch. The variance is mixed in the "
        "same way, but which variance?",
        "The unbiased one, `x.var(axis=0, ddof=1)`, which divides by n - 1: it is an estimate for data that are not in "
        "the batch. And `running_mean *= …` would change the caller's array; make a new one.",
    ),
    mistakes={
        "running_mean and running_var give the share `momentum` to the old value. PyTorch's momentum is the share of "
        "the new batch.":
            lambda x, running_mean, running_var, momentum=0.1: (
                momentum * running_mean + (1 - momentum) * x.mean(0),
                momentum * running_var + (1 - momentum) * x.var(0, ddof=1)),
        "running_var mixes in the biased variance. Here, unlike in the forward pass, the sum of squares is divided by "
        "n - 1.":
            lambda x, running_mean, running_var, momentum=0.1: (
                (1 - momentum) * running_mean + momentum * x.mean(0),
                (1 - momentum) * running_var + momentum * x.var(0)),
        "running_var mixes in the standard deviation. The buffer holds variances; the root is taken when it is used.":
            lambda x, running_mean, running_var, momentum=0.1: (
                (1 - momentum) * running_mean + momentum * x.mean(0),
                (1 - momentum) * running_var + momentum * x.std(0, ddof=1)),
        "running_mean and running_var forget everything but this batch. What of their old values, and with which "
        "share?":
            lambda x, running_mean, running_var, momentum=0.1: (x.mean(0), x.var(0, ddof=1)),
        "running_mean and running_var only grow: the old value keeps its full weight. The two shares must add up to 1.":
            lambda x, running_mean, running_var, momentum=0.1: (
                running_mean + momentum * x.mean(0), running_var + momentum * x.var(0, ddof=1)),
        "running_var is measured around the running mean. The batch's variance is measured around the batch's own "
        "mean.":
            lambda x, running_mean, running_var, momentum=0.1: (
                (1 - momentum) * running_mean + momentum * x.mean(0),
                (1 - momentum) * running_var + momentum * ((x - running_mean) ** 2).sum(0) / (len(x) - 1)),
        "running_mean and running_var have shape (1, d): without keepdims they have that of the buffers, (d,).":
            lambda x, running_mean, running_var, momentum=0.1: (
                (1 - momentum) * running_mean + momentum * x.mean(0, keepdims=True),
                (1 - momentum) * running_var + momentum * x.var(0, ddof=1, keepdims=True)),
        "running_mean and running_var ignore the argument momentum and always take 0.1.":
            lambda x, running_mean, running_var, momentum=0.1: (
                0.9 * running_mean + 0.1 * x.mean(0), 0.9 * running_var + 0.1 * x.var(0, ddof=1)),
    },
)  # fmt: skip
def batchnorm_running(x: "n d", running_mean: "d", running_var: "d", momentum=0.1) -> "running_mean: d, running_var: d":
    """The running statistics after one more batch."""
    mean, var = running_mean.clone(), running_var.clone()
    F.batch_norm(x, mean, var, training=True, momentum=momentum)
    return mean, var


def evaluating(of):
    """The wrong evaluation that of(x, mean, var, eps) gives, gamma and beta applied."""
    return quiet(
        lambda x, gamma, beta, running_mean, running_var, eps=1e-5: gamma * of(x, running_mean, running_var, eps) + beta
    )


def at_rest(x, mean, var, eps):
    return (x - mean) / np.sqrt(var + eps)


@exercise(
    points=2, minutes=6, difficulty=1,
    draws=dict(running_var=positive("d")),
    cases=[
        dict(n=5, d=3),
        dict(n=1, d=4),
        dict(n=3, d=3, eps=0.1),
        dict(n=4, d=1),
        dict(n=3, d=2, running_var=np.array([1e-6, 4e-6])),
        dict(n=2, d=3, running_var=np.array([0.0, 1, 2])),
    ],
    hints=(
        "The formula is that of the forward pass; only the two statistics come from elsewhere. What would the variance "
        "of a single example be?",
        "running_var is a variance. What has to be done to it before it divides, and where does eps stand? Gamma and "
        "beta follow as in training.",
        "y = gamma · (x - running_mean) / sqrt(running_var + eps) + beta. Nothing about x is averaged.",
    ),
    mistakes={
        "y uses the mean and the variance of x. In evaluation the running statistics take their place, so that no "
        "example's answer depends on its neighbours.":
            evaluating(lambda x, mean, var, eps: at_rest(x, x.mean(0), x.var(0), eps)),
        "y takes running_var for a standard deviation. It is a variance: take the root.":
            evaluating(lambda x, mean, var, eps: (x - mean) / (var + eps)),
        "y has eps outside the root. It is added to the variance, under the root, as in training.":
            evaluating(lambda x, mean, var, eps: (x - mean) / (np.sqrt(var) + eps)),
        "y lacks eps, and is inf where running_var is 0. Where does eps stand?":
            evaluating(lambda x, mean, var, eps: at_rest(x, mean, var, 0)),
        "y lacks gamma and beta. They stay what they were learned to be.":
            lambda x, gamma, beta, running_mean, running_var, eps=1e-5: at_rest(x, running_mean, running_var, eps),
        "y lacks the shift beta.":
            lambda x, gamma, beta, running_mean, running_var, eps=1e-5: (
                gamma * at_rest(x, running_mean, running_var, eps)),
        "y uses the batch's mean and the running variance. Both statistics are the running ones.":
            evaluating(lambda x, mean, var, eps: at_rest(x, x.mean(0), var, eps)),
        "y uses the running mean and the batch's variance. Both statistics are the running ones.":
            evaluating(lambda x, mean, var, eps: at_rest(x, mean, x.var(0), eps)),
        "y mixes this batch into the running statistics before it uses them. Evaluation looks, and learns nothing.":
            evaluating(lambda x, mean, var, eps: at_rest(
                x, 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0, ddof=min(1, len(x) - 1)), eps)),
        "y ignores the argument eps and always takes 1e-5.":
            evaluating(lambda x, mean, var, eps: at_rest(x, mean, var, 1e-5)),
    },
)  # fmt: skip
def batchnorm_eval(x: "n d", gamma: "d", beta: "d", running_mean: "d", running_var: "d", eps=1e-5) -> "y: n d":
    """Batch norm in evaluation: a fixed affine map of each feature."""
    return F.batch_norm(x, running_mean, running_var, gamma, beta, training=False, eps=eps)


# --- Layer norm ------------------------------------------------------------------------------------------------------


@exercise(
    points=2, minutes=8, difficulty=1, cases=[*ROWS, dict(d=3, x=far(2, 2, 3))],
    hints=(
        "Each row of d numbers is standardised by itself, whatever axes stand before: axis=-1.",
        "The statistics need `keepdims=True`, so that they have shape (…, 1) and broadcast along the row.",
        "`xhat = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)`, then gamma and beta, "
        "which are (d,) and broadcast over the rows.",
    ),
    mistakes={
        "y averages over the batch: that is batch norm. Layer norm looks at one row at a time; which axis runs along "
        "the row?":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, 0, eps) + beta,
        "y is right for two axes and wrong for three: axis=1 is the last axis only there. Use -1.":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, 1, eps) + beta,
        "y averages over every axis but the first. With x (n, t, d), each of the n · t rows has its own mean.":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, tuple(range(1, x.ndim)), eps) + beta,
        "y is scaled with the unbiased variance, which divides by d - 1. Layer norm divides by d.":
            quiet(lambda x, gamma, beta, eps=1e-5: gamma * standard(x, -1, eps, ddof=1) + beta),
        "y lacks eps, and is nan where a row is constant: 0 / 0. Where does eps stand?":
            quiet(lambda x, gamma, beta, eps=1e-5: gamma * standard(x, -1, 0) + beta),
        "y has eps outside the root. It is added to the variance, under the root: sqrt(var + eps).":
            lambda x, gamma, beta, eps=1e-5: gamma * centred(x, -1) / (x.std(-1, keepdims=True) + eps) + beta,
        "y is divided by the variance. Take its root.":
            lambda x, gamma, beta, eps=1e-5: gamma * centred(x, -1) / (x.var(-1, keepdims=True) + eps) + beta,
        "y lacks the shift beta.":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, -1, eps),
        "y lacks the gain gamma.":
            lambda x, gamma, beta, eps=1e-5: standard(x, -1, eps) + beta,
        "y is xhat itself: gamma and beta have still to be applied, feature by feature.":
            lambda x, gamma, beta, eps=1e-5: standard(x, -1, eps),
        "y has one mean and one variance for the whole array. Every row has its own.":
            lambda x, gamma, beta, eps=1e-5: gamma * standard(x, None, eps) + beta,
        "y is not centred: dividing by the root mean square is RMS norm. Layer norm subtracts the row's mean first.":
            lambda x, gamma, beta, eps=1e-5: gamma * x * rms(x, eps) + beta,
        "y lost its digits where x is near ten million: the mean of the squares less the square of the mean cancels. "
        "Subtract the mean first, square after.":
            quiet(lambda x, gamma, beta, eps=1e-5: gamma * cancelling(x, -1, eps) + beta),
        "y ignores the argument eps and always takes 1e-5.":
            lambda x, gamma, beta, eps=None: gamma * standard(x, -1, 1e-5) + beta,
    },
)  # fmt: skip
def layernorm_forward(x: "... d", gamma: "d", beta: "d", eps=1e-5) -> "y: ... d":
    """Each row standardised by itself, then scaled and shifted."""
    return F.layer_norm(x, gamma.shape, gamma, beta, eps)


gradient_of(
    layernorm_forward, points=4, minutes=15, difficulty=2, cases=ROWS,
    hints=(
        "For one row, the derivation is that of batch norm with d in the place of n. So which axis do the two means in "
        "dx run along?",
        "gamma stands inside those means now: g = dy · gamma varies along the row. Work out g first, then only use g.",
        "dx = (g - mean of g - xhat · mean of g · xhat) / sqrt(var + eps), means along axis -1 with keepdims. dgamma "
        "and dbeta sum over all axes but the last.",
    ),
    mistakes={
        sentence.replace("1/n", "1/d"): norm_backward(-1, **changes)
        for sentence, changes in (DX_MISTAKES | GAIN_MISTAKES).items()
    } | {
        "dx takes gamma out of the means: gamma · projection(dy). In layer norm gamma differs along the row, so that "
        "it has to be multiplied in first.":
            norm_backward(-1, dx=lambda dy, x, gamma, eps, axes, **_: gamma * projected(dy, x, axes, eps)),
        "dx averages over the batch: that is batch norm's gradient. The row is the last axis.":
            norm_backward(-1, dx=lambda dy, x, gamma, eps, **_: projected(dy * gamma, x, 0, eps)),
        "dx has the right xhat, but takes the means of g and of g · xhat over the batch. They run along the row, like "
        "the mean of x.":
            norm_backward(-1, dx=lambda dy, x, gamma, eps, xhat, **_: inverse(x, -1, eps) * (
                centred(dy * gamma, 0) - xhat * (dy * gamma * xhat).mean(0))),
        "dgamma and dbeta are summed over axis 0 only. With x (n, t, d) they were used n · t times: sum over all axes "
        "but the last.":
            norm_backward(-1, dgamma=lambda dy, xhat, **_: (dy * xhat).sum(0), dbeta=lambda dy, **_: dy.sum(0)),
        "dgamma and dbeta are summed along the row. They have one entry per feature, each used in every row.":
            norm_backward(-1, dgamma=lambda dy, xhat, **_: (dy * xhat).sum(-1), dbeta=lambda dy, **_: dy.sum(-1)),
    },
)  # fmt: skip


# --- Group norm ------------------------------------------------------------------------------------------------------


def per_channel(v):
    return v[:, None, None]


def in_groups(x, num_groups):
    n, c, h, w = x.shape
    return x.reshape(n, num_groups, c // num_groups, h, w)


def strided(x, num_groups):
    """Channels 0, g, 2g … as the first group: the other way round."""
    n, c, h, w = x.shape
    return x.reshape(n, c // num_groups, num_groups, h, w)


def group_standard(x, num_groups, eps, axes=(2, 3, 4), ddof=0):
    return standard(in_groups(x, num_groups), axes, eps, ddof).reshape(x.shape)


def group_eps_outside(x, num_groups, eps):
    grouped = in_groups(x, num_groups)
    return (centred(grouped, (2, 3, 4)) / (grouped.std((2, 3, 4), keepdims=True) + eps)).reshape(x.shape)


def affine(of):
    """The wrong forward pass whose xhat is of(x, num_groups, eps)."""
    return quiet(
        lambda x, gamma, beta, num_groups, eps=1e-5: per_channel(gamma) * of(x, num_groups, eps) + per_channel(beta)
    )


@exercise(
    points=3, minutes=15, difficulty=2, cases=IMAGES,
    hints=(
        "Give the groups an axis of their own: (n, c, h, w) becomes (n, num_groups, c // num_groups, h, w). Which of "
        "these five axes share a mean?",
        "The last three: `axis=(2, 3, 4)`, `keepdims=True`. Standardise, then go back to (n, c, h, w).",
        "gamma and beta have one entry per channel, (c,). To broadcast along axis 1 of (n, c, h, w) they need the "
        "shape (c, 1, 1): `gamma[:, None, None]`.",
    ),
    mistakes={
        "y averages over the batch as well. In group norm, as in layer norm, no example knows of the others.":
            affine(lambda x, g, eps: group_standard(x, g, eps, (0, 2, 3, 4))),
        "y is instance norm: every channel has its own mean. num_groups says how many groups of neighbouring channels "
        "share one.":
            affine(lambda x, g, eps: standard(x, (2, 3), eps)),
        "y is layer norm: all channels of an example share one mean. num_groups says how many groups there are.":
            affine(lambda x, g, eps: standard(x, (1, 2, 3), eps)),
        "y is batch norm: one mean per channel, over all examples. Group norm stays inside one example.":
            affine(lambda x, g, eps: standard(x, (0, 2, 3), eps)),
        "y groups every num_groups-th channel. A group is a run of neighbours: the group axis comes before the axis of "
        "the channels inside it.":
            affine(lambda x, g, eps: standard(strided(x, g), (1, 3, 4), eps).reshape(x.shape)),
        "y has groups of num_groups channels. num_groups is how many groups there are, not how many channels each has.":
            affine(lambda x, g, eps: group_standard(x, x.shape[1] // g, eps)),
        "y averages over the channels of a group at each pixel. The group's pixels share the mean too: axes (2, 3, 4).":
            affine(lambda x, g, eps: group_standard(x, g, eps, 2)),
        "y is scaled with the unbiased variance. Group norm divides by the number of entries of the group.":
            affine(lambda x, g, eps: group_standard(x, g, eps, ddof=1)),
        "y lacks eps, and is nan where a group has no spread: 0 / 0. Where does eps stand?":
            affine(lambda x, g, eps: group_standard(x, g, 0)),
        "y has eps outside the root. It is added to the variance, under the root.":
            affine(group_eps_outside),
        "y lacks the shift beta.":
            lambda x, gamma, beta, num_groups, eps=1e-5: per_channel(gamma) * group_standard(x, num_groups, eps),
        "y lacks the gain gamma.":
            lambda x, gamma, beta, num_groups, eps=1e-5: group_standard(x, num_groups, eps) + per_channel(beta),
        "y is xhat itself: gamma and beta have still to be applied, channel by channel.":
            lambda x, gamma, beta, num_groups, eps=1e-5: group_standard(x, num_groups, eps),
        "y ignores the argument eps and always takes 1e-5.":
            lambda x, gamma, beta, num_groups, eps=None: per_channel(gamma) * group_standard(x, num_groups, 1e-5)
            + per_channel(beta),
    },
)  # fmt: skip
def groupnorm_forward(x: "n c h w", gamma: "c", beta: "c", num_groups, eps=1e-5) -> "y: n c h w":
    """Each group of neighbouring channels of each example standardised by itself, then scaled and shifted."""
    return F.group_norm(x, num_groups, gamma, beta, eps)


def group_backward(**changes):
    """A backward pass of group norm with some of its pieces changed."""
    over = (0, 2, 3)

    def backward(dy, x, gamma, beta, num_groups, eps=1e-5):
        xhat, g = group_standard(x, num_groups, eps), dy * per_channel(gamma)
        given = dict(dy=dy, x=x, gamma=gamma, eps=eps, xhat=xhat, num_groups=num_groups, g=g)
        given |= dict(grouped=in_groups(x, num_groups), groups=in_groups(g, num_groups))
        right = dict(
            dx=projected(given["groups"], given["grouped"], (2, 3, 4), eps).reshape(x.shape),
            dgamma=(dy * xhat).sum(over),
            dbeta=dy.sum(over),
        )
        return tuple((right | {name: change(**given) for name, change in changes.items()}).values())

    return quiet(backward)


def without_variance(g, x, axes, eps):
    return centred(g, axes) * inverse(x, axes, eps)


def without_mean(g, x, axes, eps):
    xhat = standard(x, axes, eps)
    return (g - xhat * (g * xhat).mean(axes, keepdims=True)) * inverse(x, axes, eps)


gradient_of(
    groupnorm_forward, points=4, minutes=20, difficulty=3,
    hints=(
        "Nothing new has to be derived: a group is a row of layer norm that happens to be folded into three axes.",
        "Start with g = dy · gamma, gamma as (c, 1, 1). Reshape g and x to (n, num_groups, c // num_groups, h, w), and "
        "use the formula of dx with means over axes (2, 3, 4).",
        "dgamma and dbeta have nothing to do with the groups: sum dy · xhat and dy over axes (0, 2, 3) of "
        "(n, c, h, w).",
    ),
    mistakes={
        "dx treats mean and variance as constants. Every entry of a group moves both: two paths are missing.":
            group_backward(dx=lambda groups, grouped, x, eps, **_: (
                groups * inverse(grouped, (2, 3, 4), eps)).reshape(x.shape)),
        "dx lacks the path through the variance.":
            group_backward(dx=lambda groups, grouped, x, eps, **_: without_variance(
                groups, grouped, (2, 3, 4), eps).reshape(x.shape)),
        "dx lacks the path through the mean.":
            group_backward(dx=lambda groups, grouped, x, eps, **_: without_mean(
                groups, grouped, (2, 3, 4), eps).reshape(x.shape)),
        "dx takes gamma out of the means. The channels of a group have different gammas: multiply dy by gamma first.":
            group_backward(dx=lambda dy, grouped, x, gamma, num_groups, eps, **_: per_channel(gamma) * projected(
                in_groups(dy, num_groups), grouped, (2, 3, 4), eps).reshape(x.shape)),
        "dx lacks gamma: what arrives at xhat is dy · gamma.":
            group_backward(dx=lambda dy, grouped, x, num_groups, eps, **_: projected(
                in_groups(dy, num_groups), grouped, (2, 3, 4), eps).reshape(x.shape)),
        "dx is that of instance norm: the means run over each channel alone. The channels of a group share them.":
            group_backward(dx=lambda g, x, eps, **_: projected(g, x, (2, 3), eps)),
        "dx is that of layer norm: the means run over all channels. Each group has its own.":
            group_backward(dx=lambda g, x, eps, **_: projected(g, x, (1, 2, 3), eps)),
        "dx is that of batch norm: the means run over the examples. Each group of each example has its own.":
            group_backward(dx=lambda g, x, eps, **_: projected(g, x, (0, 2, 3), eps)),
        "dx is nan where a group has no spread: eps belongs into the backward pass too.":
            group_backward(dx=lambda groups, grouped, x, **_: projected(
                groups, grouped, (2, 3, 4), 0).reshape(x.shape)),
        "dgamma uses x where xhat belongs.":
            group_backward(dgamma=lambda dy, x, **_: (dy * x).sum((0, 2, 3))),
        "dgamma and dbeta are means. A parameter collects the gradient of every entry it was used for: a sum.":
            group_backward(dgamma=lambda dy, xhat, **_: (dy * xhat).mean((0, 2, 3)),
                           dbeta=lambda dy, **_: dy.mean((0, 2, 3))),
        "dgamma and dbeta are summed over the batch only. A channel's gamma is used at every pixel too.":
            group_backward(dgamma=lambda dy, xhat, **_: (dy * xhat).sum(0), dbeta=lambda dy, **_: dy.sum(0)),
        "dgamma and dbeta keep the summed axes with size 1. They have the shape of gamma and beta: (c,).":
            group_backward(dgamma=lambda dy, xhat, **_: (dy * xhat).sum((0, 2, 3), keepdims=True),
                           dbeta=lambda dy, **_: dy.sum((0, 2, 3), keepdims=True)),
    },
)  # fmt: skip


# --- RMS norm --------------------------------------------------------------------------------------------------------


@exercise(
    points=2, minutes=6, difficulty=1, cases=ROWS,
    hints=(
        "Read the name from the back: square, mean, root. Nothing is subtracted, and there is no beta.",
        "Square x, take the mean along each row (`keepdims=True`, as in layer norm), add eps, take the root: one "
        "number for each row. What is divided by it?",
        "y = gamma · x / sqrt(mean of x² + eps), the mean along the last axis, with keepdims=True.",
    ),
    mistakes={
        "y is layer norm without its shift: the mean was subtracted. RMS norm leaves it in.":
            lambda x, gamma, eps=1e-5: gamma * standard(x, -1, eps),
        "y is divided by the right number, but centred first. RMS norm leaves the mean in.":
            lambda x, gamma, eps=1e-5: gamma * centred(x, -1) * rms(x, eps),
        "y subtracts nothing, but is scaled by the standard deviation, which does. The root mean square is measured "
        "from zero.":
            lambda x, gamma, eps=1e-5: gamma * x * inverse(x, -1, eps),
        "y is divided by the length of the row, the root of the *sum* of squares. The mean divides that by d.":
            lambda x, gamma, eps=1e-5: gamma * x / np.sqrt((x * x).sum(-1, keepdims=True) + eps),
        "y is divided by the mean square. Take its root.":
            lambda x, gamma, eps=1e-5: gamma * x * rms(x, eps) ** 2,
        "y lacks eps, and is nan where a row is zero: 0 / 0. Where does eps stand?":
            quiet(lambda x, gamma, eps=1e-5: gamma * x * rms(x, 0)),
        "y has eps outside the root. It is added to the mean square, under the root.":
            lambda x, gamma, eps=1e-5: gamma * x / (np.sqrt((x * x).mean(-1, keepdims=True)) + eps),
        "y lacks the gain gamma.":
            lambda x, gamma, eps=1e-5: x * rms(x, eps),
        "y averages over the batch. Each row has its own root mean square: axis=-1.":
            lambda x, gamma, eps=1e-5: gamma * x / np.sqrt((x * x).mean(0) + eps),
        "y is right for two axes and wrong for three: axis=1 is the last axis only there. Use -1.":
            lambda x, gamma, eps=1e-5: gamma * x / np.sqrt((x * x).mean(1, keepdims=True) + eps),
        "y averages over every axis but the first. With x (n, t, d), each of the n · t rows has its own root mean "
        "square.":
            lambda x, gamma, eps=1e-5: gamma * x / np.sqrt((x * x).mean(tuple(range(1, x.ndim)), keepdims=True) + eps),
        "y is divided by the mean of |x|. Square, average, then take the root.":
            lambda x, gamma, eps=1e-5: gamma * x / (np.abs(x).mean(-1, keepdims=True) + eps),
        "y ignores the argument eps and always takes 1e-5.":
            lambda x, gamma, eps=None: gamma * x * rms(x, 1e-5),
    },
)  # fmt: skip
def rmsnorm_forward(x: "... d", gamma: "d", eps=1e-5) -> "y: ... d":
    """Each row divided by its root mean square, then scaled."""
    return F.rms_norm(x, gamma.shape, gamma, eps)


def rms_backward(**changes):
    """A backward pass of RMS norm with some of its pieces changed."""

    def backward(dy, x, gamma, eps=1e-5):
        r, g = rms(x, eps), dy * gamma
        given = dict(dy=dy, x=x, gamma=gamma, eps=eps, r=r, g=g, over=leading(x))
        right = dict(
            dx=r * (g - x * r * (g * x * r).mean(-1, keepdims=True)),
            dgamma=(dy * x * r).sum(leading(x)),
        )
        return tuple((right | {name: change(**given) for name, change in changes.items()}).values())

    return quiet(backward)


gradient_of(
    rmsnorm_forward, points=3, minutes=15, difficulty=2,
    hints=(
        "Two paths: x reaches xhat directly and through the root mean square. There is no mean that could make a "
        "third.",
        "Layer norm's formula with one term crossed out. Which of its two subtracted terms came from the mean?",
        "With xhat = x / sqrt(mean x² + eps) and g = dy · gamma: dx = (g - xhat · mean of g · xhat) / sqrt(mean x² + "
        "eps). dgamma sums dy · xhat over all axes but the last.",
    ),
    mistakes={
        "dx treats the root mean square as a constant. Every entry of the row moves it: one path is missing.":
            rms_backward(dx=lambda g, r, **_: g * r),
        "dx subtracts the mean of the gradient, as layer norm does. RMS norm subtracts no mean, so that this path does "
        "not exist.":
            rms_backward(dx=lambda g, x, r, **_: r * (centred(g, -1) - x * r * (g * x * r).mean(-1, keepdims=True))),
        "dx is the gradient of layer norm. Here xhat is x / sqrt(mean x² + eps), and nothing was centred.":
            rms_backward(dx=lambda g, x, eps, **_: projected(g, x, -1, eps)),
        "dx subtracts a sum where a mean belongs: the mean square has a factor 1/d.":
            rms_backward(dx=lambda g, x, r, **_: r * (g - x * r * (g * x * r).sum(-1, keepdims=True))),
        "dx has x where the normalised x belongs in the second term: two of the three factors 1 / rms are missing.":
            rms_backward(dx=lambda g, x, r, **_: r * (g - x * (g * x).mean(-1, keepdims=True))),
        "dx adds the second path. A larger root mean square makes y smaller: which sign does it get?":
            rms_backward(dx=lambda g, x, r, **_: r * (g + x * r * (g * x * r).mean(-1, keepdims=True))),
        "dx lacks gamma: what arrives at the normalised x is dy · gamma.":
            rms_backward(dx=lambda dy, x, r, **_: r * (dy - x * r * (dy * x * r).mean(-1, keepdims=True))),
        "dx takes gamma out of the mean. Gamma differs along the row: multiply dy by it first.":
            rms_backward(dx=lambda dy, x, r, gamma, **_: gamma * r * (
                dy - x * r * (dy * x * r).mean(-1, keepdims=True))),
        "dx is nan where a row is zero: eps belongs into the backward pass too.":
            rms_backward(dx=lambda g, x, **_: rms(x, 0) * (
                g - x * rms(x, 0) ** 2 * (g * x).mean(-1, keepdims=True))),
        "dgamma uses x where the normalised x belongs.":
            rms_backward(dgamma=lambda dy, x, over, **_: (dy * x).sum(over)),
        "dgamma is a mean. A parameter collects the gradient of every entry it was used for: a sum.":
            rms_backward(dgamma=lambda dy, x, r, over, **_: (dy * x * r).mean(over)),
        "dgamma is summed over axis 0 only. With x (n, t, d), gamma was used n · t times: sum over all axes but the "
        "last.":
            rms_backward(dgamma=lambda dy, x, r, **_: (dy * x * r).sum(0)),
        "dgamma keeps the summed axes with size 1. It has the shape of gamma: (d,).":
            rms_backward(dgamma=lambda dy, x, r, over, **_: (dy * x * r).sum(over, keepdims=True)),
    },
)  # fmt: skip


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class WrongBatchNorm(nn.Module):
    """Right as it stands; each mistake changes one method."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def statistics(self, x):
        return x.mean(0), x.var(0, unbiased=False)

    def share(self):
        return self.momentum

    def update(self, x):
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.share() * (x.mean(0) - self.running_mean)
            self.running_var += self.share() * (x.var(0) - self.running_var)

    def used(self, x):
        if not self.training:
            return self.running_mean, self.running_var
        self.update(x)
        return self.statistics(x)

    def forward(self, x):
        mean, var = self.used(x)
        return self.weight * (x - mean) / torch.sqrt(var + self.eps) + self.bias


class AlwaysTraining(WrongBatchNorm):
    def used(self, x):
        self.update(x)
        return self.statistics(x)


class NoEvaluation(WrongBatchNorm):
    def used(self, x):
        if self.training:
            self.update(x)
        return self.statistics(x)


class LearnsInEvaluation(WrongBatchNorm):
    def used(self, x):
        mean, var = self.running_mean.clone(), self.running_var.clone()
        self.update(x)
        return self.statistics(x) if self.training else (mean, var)


class BiasedBuffer(WrongBatchNorm):
    def update(self, x):
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.momentum * (x.mean(0) - self.running_mean)
            self.running_var += self.momentum * (x.var(0, unbiased=False) - self.running_var)


class OtherShare(WrongBatchNorm):
    def share(self):
        return 1 - self.momentum


class NotCounted(WrongBatchNorm):
    def update(self, x):
        super().update(x)
        self.num_batches_tracked -= 1


class Unbiased(WrongBatchNorm):
    def statistics(self, x):
        return x.mean(0), x.var(0)


class RunningInTraining(WrongBatchNorm):
    def used(self, x):
        if self.training:
            self.update(x)
        return self.running_mean.clone(), self.running_var.clone()


class ConstantStatistics(WrongBatchNorm):
    def statistics(self, x):
        return x.mean(0).detach(), x.var(0, unbiased=False).detach()


class NoUpdate(WrongBatchNorm):
    def update(self, x):
        pass


class SameEps(WrongBatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, momentum=momentum)


class SameMomentum(WrongBatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps=eps)


class GainZero(WrongBatchNorm):
    def __init__(self, num_features, **options):
        super().__init__(num_features, **options)
        nn.init.zeros_(self.weight)


module(
    nn.BatchNorm1d, points=5, minutes=25, difficulty=3,
    forbids=(
        "torch.nn.BatchNorm1d", "torch.nn.BatchNorm2d", "torch.nn.SyncBatchNorm", "torch.nn.functional.batch_norm",
        "torch.batch_norm", "torch.native_batch_norm", "torch.nn.functional.instance_norm",
    ),
    draws=dict(
        running_mean=lambda rng, init: rng.standard_normal(init["num_features"]),
        running_var=lambda rng, init: rng.uniform(0.2, 3.0, init["num_features"]),
    ),
    cases=[
        dict(init=dict(num_features=3), x=(5, 3)),
        dict(init=dict(num_features=3), train=False, x=(5, 3)),
        dict(init=dict(num_features=4, eps=0.1, momentum=0.4), x=(4, 4)),
        dict(init=dict(num_features=4, eps=0.1, momentum=0.4), train=False, x=(2, 4)),
        dict(init=dict(num_features=2), train=False, x=(1, 2)),
        dict(init=dict(num_features=1), x=(2, 1)),
    ],
    hints=(
        "Two parameters, `weight` (ones) and `bias` (zeros), and three buffers, each made by "
        "`self.register_buffer(name, tensor)`: `running_mean` (zeros), `running_var` (ones) and `num_batches_tracked`, "
        "which is `torch.tensor(0)`. The names have to be these.",
        "`self.training` says which mode the module is in. In training: batch statistics, with gradients, and an "
        "update of the buffers. In evaluation: the buffers, unchanged.",
        "No gradient may flow into the buffers: update them inside `with torch.no_grad():`. `x.var(0)` is the "
        "unbiased variance in torch, `x.var(0, unbiased=False)` the one that normalises. `num_batches_tracked += 1` "
        "in training.",
    ),
    mistakes={
        "y is normalised by the batch in evaluation too, and the buffers go on learning: forward never looks at "
        "self.training.": AlwaysTraining,
        "y is normalised by the batch in evaluation too. There the buffers give mean and variance, so that an answer "
        "does not depend on its neighbours.": NoEvaluation,
        "running_mean, running_var and num_batches_tracked change in evaluation. Only training may update them.":
            LearnsInEvaluation,
        "running_var takes in the biased variance. The buffer gets the unbiased one, divided by n - 1.": BiasedBuffer,
        "running_mean and running_var give the share `momentum` to their old value. In PyTorch it is the share of the "
        "new batch.": OtherShare,
        "num_batches_tracked does not count: add 1 for every batch in training.": NotCounted,
        "y is scaled with the unbiased variance in training: torch's .var() divides by n - 1 unless told otherwise, "
        "NumPy's by n.": Unbiased,
        "y is normalised with the running statistics in training. There the batch's own are used, and the running ones "
        "only kept.": RunningInTraining,
        "dx treats mean and variance as constants: they were computed without gradient. Only the buffers are updated "
        "inside no_grad.": ConstantStatistics,
        "running_mean, running_var and num_batches_tracked stay as they were. In training each batch updates them.":
            NoUpdate,
        "y ignores the argument eps and always takes 1e-5.": SameEps,
        "running_mean and running_var ignore the argument momentum and always take 0.1.": SameMomentum,
        "weight starts at 0, so that the untrained layer puts out nothing but its bias. It starts at 1.": GainZero,
    },
)  # fmt: skip


class WrongLayerNorm(nn.Module):
    """Right as it stands; each mistake changes one method."""

    axes = (-1,)

    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(normalized_shape)), nn.Parameter(torch.zeros(normalized_shape))

    def statistics(self, x):
        return x.mean(self.axes, keepdim=True), x.var(self.axes, unbiased=False, keepdim=True)

    def forward(self, x):
        mean, var = self.statistics(x)
        return self.weight * (x - mean) / torch.sqrt(var + self.eps) + self.bias


class OverTheBatch(WrongLayerNorm):
    axes = (0,)


class OverAllButFirst(WrongLayerNorm):
    def statistics(self, x):
        axes = tuple(range(min(1, x.ndim - 1), x.ndim))
        return x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)


class UnbiasedRow(WrongLayerNorm):
    def statistics(self, x):
        return x.mean(-1, keepdim=True), x.var(-1, keepdim=True)


class ConstantRow(WrongLayerNorm):
    def statistics(self, x):
        return tuple(value.detach() for value in super().statistics(x))


class EpsOutside(WrongLayerNorm):
    def forward(self, x):
        mean, var = self.statistics(x)
        return self.weight * (x - mean) / (torch.sqrt(var) + self.eps) + self.bias


class BiasForgotten(WrongLayerNorm):
    def forward(self, x):
        mean, var = self.statistics(x)
        return self.weight * (x - mean) / torch.sqrt(var + self.eps)


class Bare(WrongLayerNorm):
    def forward(self, x):
        mean, var = self.statistics(x)
        return (x - mean) / torch.sqrt(var + self.eps)


class RowGainZero(WrongLayerNorm):
    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__(normalized_shape, eps)
        nn.init.zeros_(self.weight)


module(
    nn.LayerNorm, points=3, minutes=12, difficulty=2,
    forbids=(
        "torch.nn.LayerNorm", "torch.nn.functional.layer_norm", "torch.layer_norm", "torch.native_layer_norm",
        "torch.nn.GroupNorm", "torch.nn.functional.group_norm",
    ),
    cases=[
        dict(init=dict(normalized_shape=4), x=(5, 4)),
        dict(init=dict(normalized_shape=5, eps=0.1), x=(2, 3, 5)),
        dict(init=dict(normalized_shape=4), train=False, x=(3, 4)),
        dict(init=dict(normalized_shape=6), x=(6,)),
        dict(init=dict(normalized_shape=3, eps=0.1), x=lambda rng, sizes: 0.1 * rng.standard_normal((2, 3))),
    ],
    hints=(
        "`__init__(self, normalized_shape, eps=1e-5)`: here normalized_shape is one number, the length of the last "
        "axis. Two parameters, `weight` (ones) and `bias` (zeros); no buffers, nothing to keep.",
        "`forward` never asks for self.training: an example's statistics are its own, in training and afterwards.",
        "`mean = x.mean(-1, keepdim=True)`, `var = x.var(-1, keepdim=True, unbiased=False)` (torch says keepdim, "
        "without s), then the formula of layernorm_forward.",
    ),
    mistakes={
        "y averages over the batch: that is batch norm. Layer norm reduces the last axis.": OverTheBatch,
        "y averages over all axes but the first. With x (n, t, d), each of the n · t rows has its own mean.":
            OverAllButFirst,
        "y is scaled with the unbiased variance: torch's .var() divides by d - 1 unless told otherwise, NumPy's by d.":
            UnbiasedRow,
        "dx treats mean and variance as constants: .detach() or no_grad cut them off from the graph.": ConstantRow,
        "y has eps outside the root. It is added to the variance, under the root.": EpsOutside,
        "y lacks the bias, so that it never learns.": BiasForgotten,
        "y is xhat itself: weight and bias have still to be applied.": Bare,
        "weight starts at 0, so that the untrained layer puts out nothing but its bias. It starts at 1.": RowGainZero,
    },
)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


def layer_step(normalise_with="own", update="training", ddof=1, order="before", own_ddof=0):
    """A batch norm layer with some of its choices changed; the defaults are right."""

    def step(x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5):
        mean, var = x.mean(0), x.var(0, ddof=own_ddof)
        new_mean = (1 - momentum) * running_mean + momentum * mean
        new_var = (1 - momentum) * running_var + momentum * x.var(0, ddof=ddof)
        if not (training or update == "always"):
            new_mean, new_var = running_mean, running_var
        if normalise_with == "running" or (normalise_with == "own" and not training):
            mean, var = (running_mean, running_var) if order == "before" else (new_mean, new_var)
        return gamma * (x - mean) / np.sqrt(var + eps) + beta, new_mean, new_var

    return quiet(step)


def moved_then_restored(*args, **options):
    """y with the running statistics that the test batch has moved; the old ones are returned."""
    y, *_ = layer_step(update="always", order="after")(*args, **options)
    return y, *layer_step()(*args, **options)[1:]


@exercise(
    repair=True, points=3, minutes=15, difficulty=2,
    draws=dict(running_var=positive("d")),
    cases=[
        dict(n=5, d=3, training=True),
        dict(n=5, d=3, training=False),
        dict(n=1, d=4, training=False),
        dict(n=4, d=4, training=True, momentum=0.5, eps=0.1),
        dict(n=4, d=4, training=False, momentum=0.5, eps=0.1),
        dict(n=2, d=1, training=True),
        dict(n=4, d=3, training=False, x=FLAT),
    ],
    hints=(
        "Feed it one batch twice with training=False and print y. Should the second answer differ from the first?",
        "Which lines should run only in training? And which statistics should be returned when nothing was learned?",
        "There is a second fault, in training alone: compare running_var with batchnorm_running's. Which of the two "
        "variances goes into it?",
    ),
    mistakes={
        "y, running_mean and running_var change in evaluation: the running statistics are updated whatever `training` "
        "says, and in training the biased variance goes into them. Two lines are at fault.":
            layer_step(update="always", ddof=0, order="after"),
        "y, running_mean and running_var still change in evaluation: the running statistics are updated whatever "
        "`training` says. Only training may update them.":
            layer_step(update="always", order="after"),
        "running_mean and running_var are returned changed in evaluation, though y is right by now. Nothing may be "
        "learned from a test batch.":
            layer_step(update="always"),
        "running_var is off by (n - 1) / n of the batch's share: evaluation is repaired, but the biased variance still "
        "goes into the running one.":
            layer_step(ddof=0),
        "y is scaled with the unbiased variance in training. That one belongs into running_var alone; y takes the "
        "biased one.":
            layer_step(own_ddof=1),
        "y is still computed from statistics that the test batch has moved, though the old ones are returned. "
        "Evaluation takes the given ones.":
            moved_then_restored,
        "y is normalised with the batch's own statistics in evaluation. The running ones take their place there.":
            layer_step(normalise_with="batch"),
        "y is normalised with the running statistics in training. There the batch's own are used.":
            layer_step(normalise_with="running", order="after"),
        "running_mean and running_var never change. In training they take in each batch.":
            lambda x, gamma, beta, running_mean, running_var, training, momentum=0.1, eps=1e-5: (
                layer_step()(x, gamma, beta, running_mean, running_var, training, momentum, eps)[0],
                running_mean, running_var),
    },
)  # fmt: skip
def repair_batchnorm_layer(
    x: "n d", gamma: "d", beta: "d", running_mean: "d", running_var: "d", training, momentum=0.1, eps=1e-5
) -> "y: n d, running_mean: d, running_var: d":
    """One call of a batch norm layer, in training or evaluation, and its buffers afterwards."""
    mean, var = running_mean.clone(), running_var.clone()
    return F.batch_norm(x, mean, var, gamma, beta, training, momentum, eps), mean, var


def image_norm(flatten):
    """A batch norm of images whose rows of channels are made by flatten(x), and put back as by the right one."""

    def forward(x, gamma, beta, eps=1e-5):
        flat, back = flatten(x)
        return back(gamma * standard(flat, 0, eps) + beta)

    return quiet(forward)


def plainly_reshaped(x):
    return x.reshape(-1, x.shape[1]), lambda y: y.reshape(x.shape)


def turned_one_way(x):
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1]), lambda y: y.reshape(x.shape)


@exercise(
    repair=True, points=2, minutes=10, difficulty=2,
    cases=[
        dict(n=3, c=4, h=2, w=5),
        dict(n=2, c=3, h=3, w=3, eps=0.1),
        dict(n=1, c=2, h=4, w=2),
        dict(n=4, c=3, h=1, w=1),
    ],
    hints=(
        "Every shape is right, so look at the numbers: give channel 0 the value 0 everywhere and channel 1 the value "
        "1, and print the first rows of `flat`.",
        "A column of `flat` should hold one channel and nothing else. reshape never reorders: which axis has to be "
        "last before it is called?",
        "`flat = x.transpose(0, 2, 3, 1).reshape(-1, c)`. On the way back the same two steps are undone in the "
        "opposite order: reshape to (n, h, w, c), then transpose(0, 3, 1, 2).",
    ),
    mistakes={
        "y is right where an image is one pixel, and wrong elsewhere: each column of `flat` holds pixels of several "
        "channels. reshape reads in memory order and turns nothing.":
            image_norm(plainly_reshaped),
        "y has the channels scattered over the picture: turned on the way in, but not on the way back.":
            image_norm(turned_one_way),
        "y is instance norm now: every image has its own mean. Batch norm's channel has one over all images.":
            lambda x, gamma, beta, eps=1e-5: per_channel(gamma) * standard(x, (2, 3), eps) + per_channel(beta),
        "y has one mean for every pixel of every channel. A channel's pixels share theirs: axes (0, 2, 3).":
            lambda x, gamma, beta, eps=1e-5: per_channel(gamma) * standard(x, 0, eps) + per_channel(beta),
        "y is layer norm now: all channels of an image share a mean.":
            lambda x, gamma, beta, eps=1e-5: per_channel(gamma) * standard(x, (1, 2, 3), eps) + per_channel(beta),
    },
)  # fmt: skip
def repair_batchnorm2d_forward(x: "n c h w", gamma: "c", beta: "c", eps=1e-5) -> "y: n c h w":
    """Batch norm of images in training: one mean and one variance for each channel."""
    return torch.batch_norm(x, gamma, beta, None, None, True, 0.1, eps, False)


# --- Predict ---------------------------------------------------------------------------------------------------------

KINDS = ("batch", "layer", "instance", "group", "rms")


def counted(by_kind):
    """The wrong count that by_kind(n, c, h, w, num_groups) -> {kind: (means, scales)} gives."""
    right = {
        "batch": lambda n, c, h, w, g: (c, c),
        "layer": lambda n, c, h, w, g: (n, n),
        "instance": lambda n, c, h, w, g: (n * c, n * c),
        "group": lambda n, c, h, w, g: (n * g, n * g),
        "rms": lambda n, c, h, w, g: (0, n),
    } | by_kind
    return lambda kind, n, c, h, w, num_groups: right[kind](n, c, h, w, num_groups)


@exercise(
    points=2, minutes=10, difficulty=1,
    draws=dict(
        n=lambda rng, sizes: int(rng.integers(3, 20)),
        c=lambda rng, sizes: 12 * int(rng.integers(1, 5)),
        h=lambda rng, sizes: int(rng.integers(2, 9)),
        w=lambda rng, sizes: int(rng.integers(2, 9)),
        num_groups=lambda rng, sizes: int(rng.choice([2, 3, 4, 6])),
    ),
    cases=[dict(kind=kind) for kind in KINDS] + [dict(kind=kind, n=1, h=1, w=1) for kind in ("batch", "group")],
    hints=(
        "Cross out the sizes of the axes that are averaged over. The product of the others is the count.",
        "Batch norm averages over n, h, w; instance norm over h, w. A group is an axis of its own: "
        "(n, num_groups, c / num_groups, h, w).",
        "RMS norm has a scale for each example, as layer norm has, and subtracts no mean at all: means = 0.",
    ),
    mistakes={
        "means and scales count the entries that are averaged, for every norm. Multiply the sizes of the axes that are "
        "*not* averaged over.":
            counted(dict(
                batch=lambda n, c, h, w, g: (n * h * w, n * h * w),
                layer=lambda n, c, h, w, g: (c * h * w, c * h * w),
                instance=lambda n, c, h, w, g: (h * w, h * w),
                group=lambda n, c, h, w, g: (c // g * h * w, c // g * h * w),
                rms=lambda n, c, h, w, g: (0, c * h * w),
            )),
        "means and scales of batch norm count the entries that share a mean. How many *different* means are there: one "
        "per what?":
            counted(dict(batch=lambda n, c, h, w, g: (n * h * w, n * h * w))),
        "means and scales of batch norm have one entry per pixel of a channel. All pixels of a channel share one, as "
        "all examples do.":
            counted(dict(batch=lambda n, c, h, w, g: (c * h * w, c * h * w))),
        "means and scales of batch norm and of layer norm have changed places: which of the two asks the other "
        "examples?":
            counted(dict(batch=lambda n, c, h, w, g: (n, n), layer=lambda n, c, h, w, g: (c, c))),
        "means of RMS norm are not 0. It divides, and subtracts nothing.":
            counted(dict(rms=lambda n, c, h, w, g: (n, n))),
        "means and scales of group norm lack the batch: each example has its own groups.":
            counted(dict(group=lambda n, c, h, w, g: (g, g))),
        "means and scales of group norm count the channels of a group. num_groups is how many groups each example has.":
            counted(dict(group=lambda n, c, h, w, g: (n * c // g, n * c // g))),
        "means and scales of instance norm lack the batch: every channel of every example has its own.":
            counted(dict(instance=lambda n, c, h, w, g: (c, c))),
        "means and scales of layer norm have one entry per pixel of an example. Here c, h and w are averaged together.":
            counted(dict(layer=lambda n, c, h, w, g: (n * h * w, n * h * w), rms=lambda n, c, h, w, g: (0, n * h * w))),
    },
)  # fmt: skip
def count_statistics(kind, n, c, h, w, num_groups) -> "means:, scales:":
    """How many means are subtracted and how many scales divided by when a norm meets images (n, c, h, w)."""
    x = torch.zeros(n, num_groups, c // num_groups, h, w)
    averaged = {"batch": (0, 3, 4), "layer": (1, 2, 3, 4), "instance": (3, 4), "group": (2, 3, 4), "rms": (1, 2, 3, 4)}
    scales = x.mean(averaged[kind]).numel()
    return np.array(0 if kind == "rms" else scales), np.array(scales)


@exercise(
    points=1, minutes=6, difficulty=2,
    draws=dict(batches=lambda rng, sizes: int(rng.integers(3, 40))),
    cases=[
        dict(momentum=0.1),
        dict(momentum=0.01),
        dict(momentum=0.3, batches=1),
        dict(momentum=0.1, batches=22),
        dict(momentum=0.1, batches=0),
    ],
    hints=(
        "Let running_mean start at 1 and every batch have mean 0. What is left of the 1 after one batch? After two?",
        "After one batch it is (1 - momentum) · 1 + momentum · 0. That number is the old value for the second batch: "
        "what comes out then, and what after the third?",
        "Each batch multiplies what is left by 1 - momentum.",
    ),
    mistakes={
        "share is momentum to the power of the batches. In PyTorch momentum is the share of the new batch; what keeps "
        "the old value?":
            lambda momentum, batches: momentum**batches,
        "share falls by the same amount with every batch, below zero in the end. It falls by the same *factor*.":
            lambda momentum, batches: 1 - momentum * batches,
        "share is what the batches have brought in. What is left of the start is the rest.":
            lambda momentum, batches: 1 - (1 - momentum) ** batches,
        "share is 1 - momentum *times* the batches. Each batch multiplies by 1 - momentum once more: that is a power.":
            lambda momentum, batches: (1 - momentum) * batches,
        "share is off by one batch: after the first batch one factor has been applied, not none.":
            lambda momentum, batches: (1 - momentum) ** (batches - 1),
    },
)  # fmt: skip
def start_left(momentum, batches) -> "share:":
    """The share that the starting value still has in a running statistic after so many batches."""
    mean, var = torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for _ in range(batches):
        F.batch_norm(torch.zeros(2, 1, dtype=torch.float64), mean, var, training=True, momentum=momentum)
    return mean[0]
