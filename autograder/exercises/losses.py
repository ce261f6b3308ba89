"""Lesson 03: output layers and the loss that belongs to each."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import autograd_function, exercise, gradient_of, module

quiet = np.errstate(all="ignore")  # decorates the mistakes that overflow, as the learner's own would


# What the wrong implementations below are made of.


def log_softmax(x, axis=-1):
    return x - np.logaddexp.reduce(x, axis=axis, keepdims=True)


def softmax(x, axis=-1):
    return np.exp(log_softmax(x, axis))


def naive_softmax(x, axis=-1):
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def sigmoid(z):
    return np.exp(-np.logaddexp(0, -z))


def naive_sigmoid(z):
    return 1 / (1 + np.exp(-z))


def bce(logits, targets):
    return np.logaddexp(0, logits) - targets * logits


def onehot(logits, targets):
    return np.eye(logits.shape[1])[targets]


def picked(table, targets):
    return table[np.arange(len(targets)), targets]


def p_minus_y(logits, targets):
    return softmax(logits) - onehot(logits, targets)


# A floor under a probability caps its loss; each of the usual ones is told by the ceiling that it makes.
FLOORS = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-5)


def ceiling(floor, name="loss"):
    written, most = f"{floor:.0e}".replace("e-0", "e-"), f"{-np.log(floor):.1f}"
    stops = {"loss": f"loss never exceeds {most} = -ln {written}", "y": f"y never falls below -{most} = ln {written}"}
    return (
        f"{stops[name]} for one entry: a floor of {written} under the probability holds it there, and beyond it "
        "nothing is learned. Simplify the formula until no logarithm of a probability is left."
    )


def floored(p, floor):
    return np.log(np.clip(p, floor, 1 - floor))


# How arguments are drawn.


def hard(*shape):
    return lambda rng, sizes: rng.integers(0, 2, size=shape).astype(float)


def soft(*shape):
    return lambda rng, sizes: rng.random(shape)


# Rows at very different heights: one at -1000 beside one at +1000, and one that spans both.
FAR = np.array([[1000.0, -1000, 0], [-1000, -1001, -1002], [1000, 1001, 1002], [-1000, 1000, 0]])
# Rows so far apart that no one shift suits both, though each alone is within the range of np.exp.
APART = np.array([[-300.0, -301, -302], [500, 501, 502]])
TIES = np.array([[2.0, 2, -1], [0, 0, 0], [-3, -3, -3]])
ALONG_AN_AXIS = [
    dict(x=(4, 3)),
    dict(x=(1, 1)),
    dict(x=(5,)),
    dict(x=(3, 3), axis=0),
    dict(x=(2, 3, 4), axis=1),
    dict(x=(2, 5, 3), axis=-2),
    dict(x=(3, 2, 4), axis=0),
    dict(x=(2, 3), axis=1),
    dict(x=(4, 4)),
    dict(x=TIES),
    dict(x=(3, 50)),
    dict(x=FAR),
    dict(x=FAR.T, axis=0),
    dict(x=APART),
]


# --- Log-sum-exp and log-softmax -------------------------------------------------------------------------------------


def one_maximum(x, axis=-1):
    m = x.max(axis, keepdims=True)
    return np.log1p(np.where(x == m, 0, np.exp(x - m)).sum(axis)) + m.squeeze(axis)


@exercise(
    points=2, minutes=10, difficulty=1, cases=ALONG_AN_AXIS,
    hints=(
        "np.exp(1000) is inf in float64. Which number could you take away from every entry first, so that the "
        "largest exponent is 0?",
        "With m the maximum along the axis: sum exp(x) = exp(m) · sum exp(x - m). Take the logarithm of the "
        "right-hand side.",
        "Keep m as an array of size 1 along the axis (keepdims=True) for the subtraction, and drop that axis "
        "before you add m to the result.",
    ),
    mistakes={
        "y is inf where x is near 1000 and -inf where it is near -1000: np.exp has left the range of float64. "
        "Shift x before you exponentiate.":
            quiet(lambda x, axis=-1: np.log(np.exp(x).sum(axis))),
        "y is too small by the maximum that you subtracted. What has the shift done to the logarithm, and what "
        "undoes it?":
            lambda x, axis=-1: np.log(np.exp(x - x.max(axis, keepdims=True)).sum(axis)),
        "y is right until the rows lie at different heights: one shift for the whole array leaves nothing of the "
        "low rows. Which maximum does each row need?":
            quiet(lambda x, axis=-1: np.log(np.exp(x - x.max()).sum(axis)) + x.max()),
        "y is -inf for the row that is low and negative: your shift is the largest |x|, not the largest entry of its "
        "row. Which number makes the largest exponent 0?":
            quiet(lambda x, axis=-1: np.log(np.exp(x - np.abs(x).max(axis, keepdims=True)).sum(axis))
                  + np.abs(x).max(axis)),
        "y always reduces the last axis. The argument axis says which one to reduce; look at each call that takes "
        "an axis.":
            lambda x, axis=-1: np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1)) + x.max(-1),
        "y has an axis too many: the sums have lost theirs and the maxima kept it (keepdims), so that every sum meets "
        "every maximum. Take the maxima without keepdims when you add them back.":
            lambda x, axis=-1: np.log(np.exp(x - x.max(axis, keepdims=True)).sum(axis)) + x.max(axis, keepdims=True),
        "y counts the largest entry once, however often it occurs: each of several equal entries brings its own "
        "exponential.":
            one_maximum,
        "y is the maximum itself. That is close when one entry towers over the rest, but the others count too: add "
        "up their exponentials.":
            lambda x, axis=-1: x.max(axis),
        "y is too small by ln of the length of the axis: you averaged the exponentials. The name says sum.":
            lambda x, axis=-1: np.log(np.exp(x - x.max(axis, keepdims=True)).mean(axis)) + x.max(axis),
        "y still has the reduced axis, with size 1. keepdims=True is needed inside, for the subtraction; the "
        "result has one axis fewer.":
            lambda x, axis=-1: np.logaddexp.reduce(x, axis=axis, keepdims=True),
    },
)  # fmt: skip
def logsumexp(x: "...", axis=-1) -> "y: ...":
    """The logarithm of the sum of exp(x) along an axis, right for entries as large as ±1000."""
    return torch.logsumexp(x, dim=axis)


@exercise(
    points=2, minutes=8, difficulty=1, cases=ALONG_AN_AXIS,
    hints=(
        "Take the logarithm of exp(x_j) / sum exp(x_k) on paper before you write code. What becomes of the "
        "quotient?",
        "log softmax(x) = x - logsumexp(x). No division is left, and no logarithm of something that may have "
        "become 0.",
        "logsumexp lost an axis. Put it back with np.expand_dims(…, axis), so that the subtraction broadcasts "
        "along the right one.",
    ),
    mistakes={
        "y holds nan or inf: np.exp overflowed before the division could tame it. Subtract the maximum along the "
        "axis first.":
            quiet(lambda x, axis=-1: np.log(naive_softmax(x, axis))),
        "y is -inf where a probability was rounded to 0. Do not take the logarithm of the softmax: simplify the "
        "formula until no division is left.":
            quiet(lambda x, axis=-1: np.log(softmax(x, axis))),
        **{ceiling(floor, "y"): lambda x, axis=-1, floor=floor: np.log(softmax(x, axis) + floor) for floor in FLOORS},
        "y holds the probabilities themselves. Their logarithms were asked for; can you get those without "
        "computing the probabilities?":
            lambda x, axis=-1: softmax(x, axis),
        "y is right until the rows lie at different heights: the maximum of the whole array is too far above the "
        "low rows. Which maximum does each row need?":
            quiet(lambda x, axis=-1: x - x.max() - np.log(np.exp(x - x.max()).sum(axis, keepdims=True))),
        "y is inf for the row that is low and negative: your shift is the largest |x|, not the largest entry of its "
        "row. Which number makes the largest exponent 0?":
            quiet(lambda x, axis=-1: x - np.abs(x).max(axis, keepdims=True)
                  - np.log(np.exp(x - np.abs(x).max(axis, keepdims=True)).sum(axis, keepdims=True))),
        "y always normalises over the last axis. The argument axis says over which; look at each call that takes "
        "an axis.":
            lambda x, axis=-1: log_softmax(x, -1),
        "y is too large by the maximum that you subtracted inside: shift x outside of the logarithm too, or add the "
        "maximum to the logarithm.":
            lambda x, axis=-1: x - np.log(np.exp(x - x.max(axis, keepdims=True)).sum(axis, keepdims=True)),
        "y has the wrong sign: log-probabilities are at most 0. Which of the two terms is subtracted from which?":
            lambda x, axis=-1: -log_softmax(x, axis),
        "exp(y) sums to 1 over the whole array, not along the axis: the sum inside ran over every entry. Give it "
        "the axis.":
            lambda x, axis=-1: x - np.logaddexp.reduce(x.ravel()),
        "y is only x shifted to a maximum of 0: the logarithm of the sum is not subtracted yet. What does exp(y) "
        "sum to?":
            lambda x, axis=-1: x - x.max(axis, keepdims=True),
    },
)  # fmt: skip
def log_softmax_forward(x: "...", axis=-1) -> "y: ...":
    """The logarithm of the softmax along an axis, right for entries as large as ±1000."""
    return F.log_softmax(x, dim=axis)


gradient_of(
    log_softmax_forward, points=4, minutes=20, difficulty=3,
    hints=(
        "y_j = x_j - logsumexp(x). Every x_k reaches every y_j through the second term. What is the derivative of "
        "logsumexp(x) by x_k?",
        "It is softmax(x)_k. So dy_j reaches dx_k as dy_j · (1 if j is k else 0) - dy_j · p_k. Now sum over j.",
        "Only one of the two terms keeps a sum: the sum of dy along the axis (keepdims=True), times p_k.",
    ),
    mistakes={
        "dx uses only the diagonal of the Jacobian: dy · (1 - p). But every output depends on every input; which "
        "sum over the outputs is missing?":
            lambda dy, x, axis=-1: dy * (1 - softmax(x, axis)),
        "dx is the gradient of softmax, not of its logarithm. Differentiate y_j = x_j - logsumexp(x) afresh: it "
        "comes out simpler.":
            lambda dy, x, axis=-1: softmax(x, axis) * (dy - (dy * softmax(x, axis)).sum(axis, keepdims=True)),
        "dx is dy - p: right only when dy happens to sum to 1 along the axis. By what must p be multiplied for any "
        "dy?":
            lambda dy, x, axis=-1: dy - softmax(x, axis),
        "dx mixes the rows: dy was summed over the whole array. Along which axis do outputs share their inputs?":
            lambda dy, x, axis=-1: dy - softmax(x, axis) * dy.sum(),
        "dx is worked out along the last axis whatever axis says. Pass axis to the softmax and to the sum.":
            lambda dy, x, axis=-1: dy - softmax(x, -1) * dy.sum(-1, keepdims=True),
        "dx holds nan: the softmax inside overflowed at ±1000. Subtract the maximum before np.exp, or take exp of "
        "the log-softmax.":
            quiet(lambda dy, x, axis=-1: dy - naive_softmax(x, axis) * dy.sum(axis, keepdims=True)),
        "dx averages dy along the axis where it should sum: the gradient of every output arrives in full.":
            lambda dy, x, axis=-1: dy - softmax(x, axis) * dy.mean(axis, keepdims=True),
        "dx multiplies by log-probabilities where probabilities belong. The derivative of logsumexp(x) by x_k is "
        "which of the two?":
            lambda dy, x, axis=-1: dy - log_softmax(x, axis) * dy.sum(axis, keepdims=True),
        "dx has only the direct path, dy. Every x_k also moves the logsumexp that is subtracted from all outputs; "
        "what does that path add?":
            lambda dy, x, axis=-1: dy.copy(),
        "dx takes the same number from every entry of a row: the sum of p · dy. Which of the two factors belongs to "
        "the sum over the outputs, and which to the one input?":
            lambda dy, x, axis=-1: dy - (softmax(x, axis) * dy).sum(axis, keepdims=True),
        "dx adds the second path. Logsumexp is subtracted in y, so which sign does its gradient get?":
            lambda dy, x, axis=-1: dy + softmax(x, axis) * dy.sum(axis, keepdims=True),
        "dx is divided by the number of rows. There is no mean in log-softmax: every entry of dy arrives in full.":
            lambda dy, x, axis=-1: (dy - softmax(x, axis) * dy.sum(axis, keepdims=True)) / len(x),
    },
)  # fmt: skip


# --- Regression: the mean squared error ------------------------------------------------------------------------------


@exercise(
    points=1, minutes=4, difficulty=1,
    cases=[
        dict(pred=(5, 3), target=(5, 3)),
        dict(pred=(1,), target=(1,)),
        dict(pred=(7,), target=(7,)),
        dict(pred=(4, 4), target=(4, 4)),
        dict(pred=(2, 3, 4), target=(2, 3, 4)),
        dict(pred=np.array([1000.0, -1000, 0]), target=(3,)),
    ],
    hints=(
        "One difference for each entry, squared; then one number for all of them.",
        "PyTorch's mean runs over all entries, batch and features alike: .mean() without an axis.",
    ),
    mistakes={
        "loss is the sum of the squared errors. A mean does not grow when the batch does; divide by how many "
        "entries?":
            lambda pred, target: ((pred - target) ** 2).sum(),
        "loss is half of what it should be. Some books put 1/2 in front so that the gradient loses its 2; PyTorch "
        "does not.":
            lambda pred, target: ((pred - target) ** 2).mean() / 2,
        "loss divides by the batch size alone. PyTorch's mean runs over all entries: how many are there in an "
        "array of shape (5, 3)?":
            lambda pred, target: ((pred - target) ** 2).sum() / pred.shape[0],
        "loss averages absolute errors. That is L1; here each error is squared before the mean.":
            lambda pred, target: np.abs(pred - target).mean(),
        "loss is the root of the mean squared error. The root makes it readable in the target's unit, but it is "
        "not part of this loss.":
            lambda pred, target: np.sqrt(((pred - target) ** 2).mean()),
        "loss lets errors of opposite sign cancel: it squares the mean where it should take the mean of the "
        "squares. Which comes first?":
            lambda pred, target: (pred - target).mean() ** 2,
        "loss still has one value for each entry. A loss is a single number, so that it has a gradient; average "
        "over everything.":
            lambda pred, target: (pred - target) ** 2,
    },
)  # fmt: skip
def mse_forward(pred: "...", target: "...") -> "loss:":
    """The mean squared error over all entries."""
    return F.mse_loss(pred, target)


gradient_of(
    mse_forward, wrt="pred", points=2, minutes=8, difficulty=1,
    hints=(
        "loss = (1/M) · sum of (pred - target)², with M entries. One entry of pred occurs in one term of the sum "
        "only.",
        "The derivative of that term is 2 · (pred - target) / M, and the chain rule multiplies it by dloss.",
    ),
    mistakes={
        "dpred lost the factor 2 that comes down from the square. Differentiate (pred - target)² once more.":
            lambda dloss, pred, target: dloss * (pred - target) / pred.size,
        "dpred ignores dloss: it would be right if the loss were the last thing computed. The chain rule "
        "multiplies by what arrives from above.":
            lambda dloss, pred, target: 2 * (pred - target) / pred.size,
        "dpred is the derivative of one term alone: two factors are missing, the 1/M of the mean and dloss.":
            lambda dloss, pred, target: 2 * (pred - target),
        "dpred still has the square. What is the derivative of e²?":
            lambda dloss, pred, target: dloss * 2 * (pred - target) ** 2 / pred.size,
        "dpred is too large by the number of entries: the 1/M of the mean is a factor of the gradient too.":
            lambda dloss, pred, target: dloss * 2 * (pred - target),
        "dpred divides by the batch size alone. The forward pass averaged over all entries; so which number stands "
        "in the gradient?":
            lambda dloss, pred, target: dloss * 2 * (pred - target) / pred.shape[0],
        "dpred has the wrong sign: where pred is too large, the loss must grow with it. Which is subtracted from "
        "which?":
            lambda dloss, pred, target: dloss * 2 * (target - pred) / pred.size,
        "dpred depends only on the sign of the error, so it belongs to the absolute error. How does a square's "
        "slope change with the error?":
            lambda dloss, pred, target: dloss * np.sign(pred - target) / pred.size,
        "dpred is one averaged number for all entries. Each entry of pred has a gradient of its own, with the "
        "shape of pred.":
            lambda dloss, pred, target: np.full_like(pred, (dloss * 2 * (pred - target) / pred.size).mean()),
    },
)  # fmt: skip


# --- Two classes, or several labels: binary cross-entropy on logits --------------------------------------------------


@exercise(
    points=3, minutes=15, difficulty=2,
    cases=[
        dict(logits=(5, 3), targets=hard(5, 3)),
        dict(logits=(1,), targets=hard(1)),
        dict(logits=(7,), targets=soft(7)),
        dict(logits=(4, 4), targets=soft(4, 4)),
        dict(logits=(2, 3, 4), targets=hard(2, 3, 4)),
        dict(logits=np.array([1000.0, 1000, 0, 0]), targets=np.array([0.0, 1.0, 0.0, 1.0])),
        dict(logits=np.array([-1000.0, -1000, 0, 0]), targets=np.array([0.0, 1.0, 0.0, 1.0])),
        dict(logits=np.array([[1000.0, -1000, 3]]), targets=soft(1, 3)),
    ],
    hints=(
        "For one entry, with p = sigmoid(z): -t · log p - (1 - t) · log(1 - p). Put p = 1 / (1 + exp(-z)) in and "
        "simplify before you code.",
        "It simplifies to log(1 + exp(z)) - t · z. At z = 1000 the exponential overflows. log(1 + exp(z)) = "
        "logsumexp of which two numbers?",
        "log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|)): the exponent is never positive. Then subtract t · z and "
        "average over all entries.",
    ),
    mistakes={
        "loss is nan or inf: sigmoid gave exactly 0 or 1, and log(0) is -inf. Put the formula of the sigmoid into "
        "the logarithm and simplify on paper.":
            quiet(lambda logits, targets: -(targets * np.log(naive_sigmoid(logits))
                                            + (1 - targets) * np.log(1 - naive_sigmoid(logits))).mean()),
        **{ceiling(floor): lambda logits, targets, floor=floor: -(
               targets * floored(sigmoid(logits), floor) + (1 - targets) * floored(sigmoid(-logits), floor)).mean()
           for floor in FLOORS},
        "loss never exceeds 30 for one entry: the logits were cut off at ±30. The true loss at z = 1000 and t = 0 is "
        "1000; which form of log(1 + exp(z)) needs no cutting?":
            lambda logits, targets: -(targets * np.log(naive_sigmoid(np.clip(logits, -30, 30)))
                                      + (1 - targets) * np.log(1 - naive_sigmoid(np.clip(logits, -30, 30)))).mean(),
        "loss is right for targets 0 and 1, wrong in between: yours were rounded to one or the other. A soft target of "
        "0.3 counts for both outcomes.":
            lambda logits, targets: bce(logits, (targets > 0.5).astype(float)).mean(),
        "loss counts only the entries whose target is 1. A target of 0 asks for a small p: which second term "
        "punishes a large one?":
            lambda logits, targets: (targets * np.logaddexp(0, -logits)).mean(),
        "loss is the sum over the entries. PyTorch averages: divide by how many entries there are.":
            lambda logits, targets: bce(logits, targets).sum(),
        "loss divides by the batch size alone. The mean runs over all entries, every label of every example.":
            lambda logits, targets: bce(logits, targets).sum() / logits.shape[0],
        "loss has the wrong sign: it is never negative. The logarithm of a probability is; which sign turns it "
        "into a loss?":
            lambda logits, targets: -bce(logits, targets).mean(),
        "loss is inf near z = 1000: log(1 + exp(z)) is the right formula, but the exponential overflows. Pull the "
        "larger of 0 and z out, as logsumexp does.":
            quiet(lambda logits, targets: (np.log(1 + np.exp(logits)) - targets * logits).mean()),
        "loss lacks max(z, 0): log(1 + exp(z)) is that maximum plus log1p(exp(-|z|)); yours has the second part only.":
            lambda logits, targets: (np.log1p(np.exp(-np.abs(logits))) - targets * logits).mean(),
        "loss is inf near z = -1000: your formula is safe on one side only. Let the exponent be -|z|, which is "
        "never positive.":
            quiet(lambda logits, targets: (np.log1p(np.exp(-logits)) + (1 - targets) * logits).mean()),
        "loss rewards the wrong class: targets and 1 - targets have changed places. Which of p and 1 - p should be "
        "near 1 when t = 1?":
            lambda logits, targets: bce(logits, 1 - targets).mean(),
        "loss takes the logarithm of the logits. Logits are any real numbers, so that many are negative: where "
        "does the sigmoid go?":
            quiet(lambda logits, targets: -(targets * np.log(logits) + (1 - targets) * np.log(1 - logits)).mean()),
        "loss applies the sigmoid twice. The arguments are logits, so one sigmoid (hidden in the simplified "
        "formula) is all there is.":
            lambda logits, targets: bce(sigmoid(logits), targets).mean(),
    },
)  # fmt: skip
def bce_with_logits_forward(logits: "...", targets: "...") -> "loss:":
    """The mean binary cross-entropy of sigmoid(logits) against targets in [0, 1], right for logits of ±1000."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def divides_out(dloss, logits, targets):
    p = sigmoid(logits)
    dp = dloss * (p - targets) / (p * (1 - p)) / logits.size
    return dp * p * (1 - p)


gradient_of(
    bce_with_logits_forward, wrt="logits", points=3, minutes=12, difficulty=2,
    hints=(
        "Start from the simplified loss of one entry, log(1 + exp(z)) - t · z. Both terms are quick to "
        "differentiate.",
        "The derivative of log(1 + exp(z)) is exp(z) / (1 + exp(z)). You know that function by another name.",
        "Per entry: sigmoid(z) - t. What is left are the mean's 1/M and dloss; and write the sigmoid so that ±1000 "
        "does it no harm.",
    ),
    mistakes={
        "dlogits ignores dloss. The chain rule multiplies by what arrives from above.":
            lambda dloss, logits, targets: (sigmoid(logits) - targets) / logits.size,
        "dlogits is too large by the number of entries: the forward pass is a mean, and its 1/M is a factor of the "
        "gradient.":
            lambda dloss, logits, targets: dloss * (sigmoid(logits) - targets),
        "dlogits is p - t alone: two factors are missing, the 1/M of the mean and dloss.":
            lambda dloss, logits, targets: sigmoid(logits) - targets,
        "dlogits divides by the batch size alone. The mean runs over all entries, every label of every example.":
            lambda dloss, logits, targets: dloss * (sigmoid(logits) - targets) / logits.shape[0],
        "dlogits has the wrong sign: where p is above the target, a larger logit makes the loss larger.":
            lambda dloss, logits, targets: dloss * (targets - sigmoid(logits)) / logits.size,
        "dlogits lacks the target: it would push every logit down. From what is p subtracted, or what from p?":
            lambda dloss, logits, targets: dloss * sigmoid(logits) / logits.size,
        "dlogits is nan where p is exactly 0 or 1: p (1 - p) was divided out in numbers. Cancel it on paper and "
        "only the difference is left.":
            quiet(divides_out),
        "dlogits carries an extra p (1 - p). That factor belongs to the squared error; the logarithm cancels it. "
        "Differentiate the simplified loss.":
            lambda dloss, logits, targets: dloss * (sigmoid(logits) - targets)
            * sigmoid(logits) * sigmoid(-logits) / logits.size,
        "dlogits is the gradient by the probability, not by the logit: one link of the chain is missing, the "
        "derivative of the sigmoid.":
            quiet(lambda dloss, logits, targets: dloss * (sigmoid(logits) - targets)
                  / (sigmoid(logits) * sigmoid(-logits)) / logits.size),
        "dlogits is nan where z is large: exp(z) / (1 + exp(z)) is inf / inf there. Write the sigmoid with an exponent "
        "that is never positive, or with np.tanh.":
            quiet(lambda dloss, logits, targets: dloss * (np.exp(logits) / (1 + np.exp(logits)) - targets)
                  / logits.size),
        "dlogits is right for targets 0 and 1, wrong in between: yours were rounded to one or the other. A soft target "
        "of 0.3 counts for both outcomes.":
            lambda dloss, logits, targets: dloss * (sigmoid(logits) - (targets > 0.5)) / logits.size,
        "dlogits subtracts the target from the logit itself. Which function turns the logit into a probability "
        "first?":
            lambda dloss, logits, targets: dloss * (logits - targets) / logits.size,
    },
)  # fmt: skip


# --- Several classes: cross-entropy on logits ------------------------------------------------------------------------

CLASSES = dict(targets=lambda rng, sizes: rng.integers(sizes["c"], size=sizes["n"]))


@exercise(
    points=3, minutes=12, difficulty=2, draws=CLASSES,
    cases=[
        dict(n=5, c=3),
        dict(n=1, c=1),
        dict(n=1, c=2),
        dict(n=4, c=4),
        dict(n=6, c=4, targets=np.array([2, 2, 2, 0, 2, 0])),
        dict(n=3, c=50),
        dict(n=4, c=3, logits=FAR, targets=np.array([1, 2, 0, 0])),
        dict(n=2, c=3, logits=APART, targets=np.array([0, 2])),
        dict(n=1, c=3, logits=np.array([[0.0, -800, -1]]), targets=np.array([0])),
        dict(n=3, c=3, logits=TIES, targets=np.array([1, 2, 0])),
    ],
    hints=(
        "The loss of one example is minus the log-probability of its own class. You have a function that gives all "
        "log-probabilities safely.",
        "From each row one entry is wanted, in the column that targets names. Index with two integer arrays: "
        "log_p[rows, columns].",
        "rows is np.arange(n) and columns is targets. Then the mean over the n picked entries, and a minus sign.",
    ),
    mistakes={
        "loss is the sum over the examples; the mean over the batch was asked for.":
            lambda logits, targets: -picked(log_softmax(logits), targets).sum(),
        "loss is too small by the number of classes: you averaged over all n · c entries, but only one entry of "
        "each row is not 0. Divide by n.":
            lambda logits, targets: -(onehot(logits, targets) * log_softmax(logits)).mean(),
        "loss is nan: np.exp overflowed in the softmax. Work with log-probabilities from start to end, through a "
        "shifted logsumexp.":
            quiet(lambda logits, targets: -np.log(picked(naive_softmax(logits), targets)).mean()),
        "loss is inf: the probability of the right class was rounded to 0 before the logarithm saw it. Use "
        "log-softmax, not the log of softmax.":
            quiet(lambda logits, targets: -np.log(picked(softmax(logits), targets)).mean()),
        "loss is nan where a probability was rounded to 0, even that of a wrong class: its logarithm is -inf, and 0 "
        "times -inf is nan. Use log-softmax, and pick entries instead of multiplying by one-hot.":
            quiet(lambda logits, targets: -(onehot(logits, targets) * np.log(softmax(logits))).sum(1).mean()),
        **{ceiling(floor): lambda logits, targets, floor=floor: -floored(picked(softmax(logits), targets), floor).mean()
           for floor in FLOORS},
        "loss is nan as soon as the rows lie at different heights: the maximum of the whole array is too far above the "
        "low rows. Which maximum does each row need?":
            quiet(lambda logits, targets: -np.log(picked(naive_softmax(logits - logits.max()), targets)).mean()),
        "loss is -inf as soon as the rows lie at different heights: the maximum of the whole array is too far above "
        "the low rows. Which maximum does each row need?":
            quiet(lambda logits, targets: -picked(
                logits - logits.max() - np.log(np.exp(logits - logits.max()).sum(1, keepdims=True)), targets).mean()),
        "loss is the logarithm of the mean probability. Each example has its own surprise: the logarithm comes first, "
        "then the mean.":
            quiet(lambda logits, targets: -np.log(picked(softmax(logits), targets).mean())),
        "loss normalises over the whole array: all n · c probabilities sum to 1. Each row must; which axis does the "
        "sum need?":
            lambda logits, targets: -picked(logits - np.logaddexp.reduce(logits.ravel()), targets).mean(),
        "loss is negative: log-probabilities are at most 0. Which sign makes a small probability a large loss?":
            lambda logits, targets: picked(log_softmax(logits), targets).mean(),
        "loss does not look at the targets: it averages all log-probabilities. Only that of each example's own class "
        "counts.":
            lambda logits, targets: -log_softmax(logits).mean(),
        "loss averages the probabilities of the right classes; the logarithm is missing. (Its size is below 1; "
        "a network that is sure and wrong must be able to lose far more.)":
            lambda logits, targets: -picked(softmax(logits), targets).mean(),
        "loss normalises over the batch (axis 0). Each example has its own probabilities, so each row must sum to "
        "1.":
            lambda logits, targets: -picked(log_softmax(logits, 0), targets).mean(),
        "loss picks whole columns: log_p[:, targets] has shape (n, n), every example with everyone's class. One "
        "entry from each row is wanted.":
            lambda logits, targets: -log_softmax(logits)[:, targets].mean(),
        "loss applies softmax twice: the arguments are logits, and log-softmax contains the one softmax there is.":
            lambda logits, targets: -picked(log_softmax(softmax(logits)), targets).mean(),
        "loss is minus the logit of the right class. Without logsumexp(logits) the network could win by raising "
        "all its logits together.":
            lambda logits, targets: -picked(logits, targets).mean(),
    },
)  # fmt: skip
def cross_entropy_forward(logits: "n c", targets: "n") -> "loss:":
    """The mean over the batch of minus the log-probability of each example's class, right for logits of ±1000."""
    return F.cross_entropy(logits, targets)


def columns_of_all(dloss, logits, targets):
    p = softmax(logits)
    p[:, targets] -= 1
    return dloss * p / len(targets)


gradient_of(
    cross_entropy_forward, points=4, minutes=20, difficulty=2,
    hints=(
        "For one example: loss = logsumexp(z) - z_t. Differentiate by z_k, once for k = t and once for k ≠ t.",
        "Both cases together: p_k - [k = t], where [k = t] is 1 if true and 0 if not. So the whole row is the softmax "
        "with 1 taken away in one column.",
        "Take the softmax of each row (shifted), subtract 1 at [np.arange(n), targets], and remember the mean's "
        "1/n and dloss.",
    ),
    mistakes={
        "dlogits ignores dloss. The chain rule multiplies by what arrives from above.":
            lambda dloss, logits, targets: p_minus_y(logits, targets) / len(targets),
        "dlogits is too large by the batch size: the loss is a mean over the batch, and its 1/n is a factor of the "
        "gradient.":
            lambda dloss, logits, targets: dloss * p_minus_y(logits, targets),
        "dlogits is p - y alone: two factors are missing, the 1/n of the mean and dloss.":
            lambda dloss, logits, targets: p_minus_y(logits, targets),
        "dlogits subtracts the number of the class from a whole row. The target is an index: 1 is taken away in that "
        "one column.":
            lambda dloss, logits, targets: dloss * (softmax(logits) - targets[:, None]) / len(targets),
        "dlogits subtracts 1 in every column. Only the column of the right class loses 1.":
            lambda dloss, logits, targets: dloss * (softmax(logits) - 1) / len(targets),
        "dlogits subtracts the one-hot target from the logits themselves. Which function turns them into probabilities "
        "first?":
            lambda dloss, logits, targets: dloss * (logits - onehot(logits, targets)) / len(targets),
        "dlogits is divided by n · c. The loss averages over the n examples only; look at what the forward pass "
        "divides by.":
            lambda dloss, logits, targets: dloss * p_minus_y(logits, targets) / logits.size,
        "dlogits is p without the one-hot target: it pushes every logit down, the right one too. Each row of the "
        "gradient must sum to 0.":
            lambda dloss, logits, targets: dloss * softmax(logits) / len(targets),
        "dlogits has the wrong sign: a step against it would make the right class less likely. Which is "
        "subtracted, p or the one-hot target?":
            lambda dloss, logits, targets: -dloss * p_minus_y(logits, targets) / len(targets),
        "dlogits lost 1 in every column that any example names: p[:, targets] reaches into all rows. One entry of "
        "each row is meant.":
            columns_of_all,
        "dlogits normalises over the batch (axis 0). Each example has its own probabilities, so each row must sum "
        "to 1.":
            lambda dloss, logits, targets: dloss * (softmax(logits, 0) - onehot(logits, targets)) / len(targets),
        "dlogits is nan: the softmax inside overflowed. Subtract each row's maximum before np.exp.":
            quiet(lambda dloss, logits, targets: dloss * (naive_softmax(logits) - onehot(logits, targets))
                  / len(targets)),
        "dlogits is the gradient by the log-probabilities: only the picked entries. One link is missing, the way "
        "back through log-softmax.":
            lambda dloss, logits, targets: -dloss * onehot(logits, targets) / len(targets),
        "dlogits is the gradient by the probabilities, -1/p. One link is missing: the way back through the "
        "softmax.":
            quiet(lambda dloss, logits, targets: -dloss * onehot(logits, targets) / softmax(logits) / len(targets)),
        "dlogits is nan in the low rows: the maximum of the whole array is too far above them and leaves 0 / 0. Which "
        "maximum does each row need?":
            quiet(lambda dloss, logits, targets: dloss
                  * (naive_softmax(logits - logits.max()) - onehot(logits, targets)) / len(targets)),
        "dlogits carries an extra p (1 - p). The logarithm in the loss cancels that factor: p minus the one-hot target "
        "is already the gradient by the logits.":
            lambda dloss, logits, targets: dloss * p_minus_y(logits, targets)
            * softmax(logits) * (1 - softmax(logits)) / len(targets),
        "dlogits subtracts the one-hot target from log-probabilities. The derivative of logsumexp is made of "
        "probabilities.":
            lambda dloss, logits, targets: dloss * (log_softmax(logits) - onehot(logits, targets)) / len(targets),
    },
)  # fmt: skip


# --- In PyTorch ------------------------------------------------------------------------------------------------------

BUILT_IN = (
    "torch.nn.CrossEntropyLoss",
    "torch.nn.NLLLoss",
    "torch.nn.BCELoss",
    "torch.nn.BCEWithLogitsLoss",
    "torch.nn.functional.cross_entropy",
    "torch.nn.functional.nll_loss",
    "torch.nn.functional.binary_cross_entropy",
    "torch.nn.functional.binary_cross_entropy_with_logits",
)


class Loss(nn.Module):
    """What the wrong modules share: keeps the index that marks examples to leave out."""

    def __init__(self, ignore_index=-100):
        super().__init__()
        self.ignore_index = ignore_index

    def losses(self, logits, targets):
        kept = targets != self.ignore_index
        return -logits.log_softmax(1)[kept, targets[kept]]


class CountsIgnored(Loss):
    def forward(self, logits, targets):
        return self.losses(logits, targets).sum() / len(targets)


class KeepsIgnored(Loss):
    def forward(self, logits, targets):
        return -logits.log_softmax(1)[torch.arange(len(targets)), targets.clamp(min=0)].mean()


class ZeroesIgnored(Loss):
    def forward(self, logits, targets):
        kept = targets != self.ignore_index
        return -(logits * kept[:, None]).log_softmax(1)[torch.arange(len(targets)), targets * kept].mean()


def padding(floor):
    class Pads(Loss):
        def forward(self, logits, targets):
            kept = targets != self.ignore_index
            return -(logits.softmax(1)[kept, targets[kept]] + floor).log().mean()

    return Pads


class Sums(Loss):
    def forward(self, logits, targets):
        return self.losses(logits, targets).sum()


class SoftmaxTwice(Loss):
    def forward(self, logits, targets):
        return self.losses(logits.softmax(1), targets).mean()


class OverTheBatch(Loss):
    def forward(self, logits, targets):
        return self.losses(logits.T.log_softmax(1).T, targets).mean()


class IgnoresMinusHundred(Loss):
    def forward(self, logits, targets):
        self.ignore_index = -100
        return self.losses(logits, targets).mean()


module(
    nn.CrossEntropyLoss, output="loss", points=3, minutes=15, difficulty=2, forbids=BUILT_IN,
    cases=[
        dict(init=dict(), input=(5, 3), target=np.array([2, 0, 1, 1, 2])),
        dict(init=dict(), input=(1, 1), target=np.array([0])),
        dict(init=dict(), input=(6, 4), target=np.array([3, -100, 0, 0, -100, 1])),
        dict(init=dict(ignore_index=2), input=(4, 4), target=np.array([2, 3, 0, 1])),
        dict(init=dict(ignore_index=0), input=(5, 3), target=np.array([0, 2, 1, 0, 1])),
        dict(init=dict(), input=FAR, target=np.array([1, 2, 0, 0])),
    ],
    hints=(
        "input.logsumexp(1) and input.log_softmax(1) are allowed: they are layers, not losses. Tensors index as "
        "arrays do.",
        "kept = targets != self.ignore_index is a mask of booleans. input[kept] and target[kept] are the "
        "examples that count.",
        "After the mask it is your NumPy function again, and the mean divides by the number of examples kept.",
    ),
    mistakes={
        "loss divides by all examples, the ignored ones too. PyTorch's mean is over the examples that count; "
        "how many are left after the mask?":
            CountsIgnored,
        "loss counts the examples whose target is ignore_index. They must add nothing to the loss and get no "
        "gradient: leave them out first.":
            KeepsIgnored,
        "loss still counts the ignored examples: with logits of 0, each of them costs ln c. Leave their rows out, do "
        "not zero them.":
            ZeroesIgnored,
        "loss is inf where the probability of the right class was rounded to 0 before its logarithm was taken, and the "
        "gradient is nan. Use log_softmax, or logsumexp.":
            padding(0),
        "loss has a ceiling, and dinput is 0 where it is reached: a small constant under the probability holds it "
        "there, and nothing is learned. Use log_softmax, or logsumexp.":
            padding(1e-9),
        "loss is the sum over the examples. The default reduction is the mean.":
            Sums,
        "loss applies softmax before log-softmax: the input already consists of logits.":
            SoftmaxTwice,
        "loss normalises over the batch. In an input of shape (n, c) the classes are on axis 1.":
            OverTheBatch,
        "loss compares the targets with -100 whatever ignore_index was given to the constructor. Keep the "
        "argument on self.":
            IgnoresMinusHundred,
    },
)  # fmt: skip


class BCEFunction(torch.autograd.Function):
    """What the wrong functions share: a right forward pass that saves what backward needs."""

    @staticmethod
    def forward(ctx, logits, targets):
        ctx.save_for_backward(logits, targets)
        return (F.softplus(logits) - targets * logits).mean()


class IgnoresUpstream(BCEFunction):
    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return (torch.sigmoid(logits) - targets) / logits.numel(), None


class ForgetsMean(BCEFunction):
    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return dloss * (torch.sigmoid(logits) - targets), None


class WrongSign(BCEFunction):
    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return dloss * (targets - torch.sigmoid(logits)) / logits.numel(), None


class DividesByBatch(BCEFunction):
    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return dloss * (torch.sigmoid(logits) - targets) / len(logits), None


class ExtraSlope(BCEFunction):
    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        p = torch.sigmoid(logits)
        return dloss * (p - targets) * p * (1 - p) / logits.numel(), None


class OverflowingSigmoid(BCEFunction):
    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return dloss * (logits.exp() / (1 + logits.exp()) - targets) / logits.numel(), None


class Hardens(BCEFunction):
    @staticmethod
    def forward(ctx, logits, targets):
        return BCEFunction.forward(ctx, logits, (targets > 0.5).to(targets))

    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return dloss * (torch.sigmoid(logits) - targets) / logits.numel(), None


def clamping(floor):
    class Clamps(BCEFunction):
        @staticmethod
        def forward(ctx, logits, targets):
            ctx.save_for_backward(logits, targets)
            p = torch.sigmoid(logits).clamp(floor, 1 - floor)
            return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()

        @staticmethod
        def backward(ctx, dloss):
            logits, targets = ctx.saved_tensors
            return dloss * (torch.sigmoid(logits) - targets) / logits.numel(), None

    return Clamps


class TakesLogs(BCEFunction):
    @staticmethod
    def forward(ctx, logits, targets):
        ctx.save_for_backward(logits, targets)
        p = torch.sigmoid(logits)
        return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()

    @staticmethod
    def backward(ctx, dloss):
        logits, targets = ctx.saved_tensors
        return dloss * (torch.sigmoid(logits) - targets) / logits.numel(), None


autograd_function(
    "BCEWithLogitsFunction", bce_with_logits_forward, wrt="logits", points=4, minutes=15, difficulty=2,
    forbids=BUILT_IN,
    hints=(
        "forward and backward are your two NumPy functions with torch in place of np; between them, "
        "ctx.save_for_backward carries what backward needs.",
        "backward returns one gradient for each argument of forward, in order. targets are data, so that their "
        "place holds None.",
        "torch.clamp(z, min=0), torch.log1p, torch.exp and torch.sigmoid are all you need; z.numel() counts the "
        "entries.",
    ),
    mistakes={
        "dlogits ignores the incoming gradient: multiply by the argument of backward.":
            IgnoresUpstream,
        "dlogits is too large by the number of entries: the mean's 1/M is missing. logits.numel() counts them.":
            ForgetsMean,
        "dlogits has the wrong sign: where p is above the target, a larger logit makes the loss larger.":
            WrongSign,
        "dlogits divides by len(logits), the batch alone. The mean runs over all entries.":
            DividesByBatch,
        "dlogits carries an extra p (1 - p). The logarithm in the loss cancels that factor; differentiate the "
        "simplified formula.":
            ExtraSlope,
        "loss is nan or inf for logits near ±1000: it takes the logarithm of a rounded probability. Use the "
        "simplified formula of the NumPy half.":
            TakesLogs,
        **{ceiling(floor): clamping(floor) for floor in FLOORS},
        "dlogits is nan where z is large: exp(z) / (1 + exp(z)) is inf / inf there. torch.sigmoid is safe.":
            OverflowingSigmoid,
        "loss and dlogits are right for targets 0 and 1, wrong in between: yours were rounded to one or the other. A "
        "soft target of 0.3 counts for both outcomes.":
            Hardens,
    },
)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------

gradient_of(
    cross_entropy_forward, name="repair_cross_entropy_backward", repair=True, points=2, minutes=10, difficulty=2,
    hints=(
        "It is right for a batch of one and wrong for every larger one. Which line treats the examples together?",
        "Print the rows of dlogits for three examples: each row should sum to 0. How many entries of each row lost "
        "1?",
    ),
    mistakes={
        "dlogits is right for one example alone and wrong as soon as there are two: entries of a row depend on the "
        "targets of other rows. Which line lets the examples reach into each other's rows?":
            columns_of_all,
        "dlogits is now right in direction but too large by the batch size. The division was there for a reason.":
            lambda dloss, logits, targets: dloss * p_minus_y(logits, targets),
        "dlogits no longer depends on dloss. Repair the indexing and leave the rest as it was.":
            lambda dloss, logits, targets: p_minus_y(logits, targets) / len(targets),
        "dlogits is p without any target: the faulty line is gone, and with it the target. Each row must sum to 0.":
            lambda dloss, logits, targets: dloss * softmax(logits) / len(targets),
    },
)  # fmt: skip


@exercise(
    repair=True, points=2, minutes=8, difficulty=1,
    cases=[
        dict(n=5),
        dict(n=1),
        dict(n=2),
        dict(n=30),
    ],
    hints=(
        "Print (pred - target).shape. How many differences are there, and how many should there be?",
        "NumPy lines shapes up from the right: (n, 1) against (n,) becomes (n, n). Make both arrays "
        "one-dimensional first.",
    ),
    mistakes={
        "loss is right for one example and wrong for several, though every step looks right. How many differences "
        "does pred - target hold? Print its shape.":
            lambda pred, target: ((pred - target) ** 2).mean(),
        "loss compares every prediction with the mean of the targets: the n · n differences were averaged, not "
        "avoided. Make the shapes equal before subtracting.":
            lambda pred, target: ((pred - target).mean(1) ** 2).mean(),
        "loss sums over the examples now. It should still be a mean.":
            lambda pred, target: ((pred[:, 0] - target) ** 2).sum(),
        "loss looks at the first prediction only: pred[0] drops the batch, not the column.":
            lambda pred, target: ((pred[0] - target) ** 2).mean(),
    },
)  # fmt: skip
def repair_mse_forward(pred: "n 1", target: "n") -> "loss:":
    """The mean squared error of a network's column of predictions against a flat array of targets."""
    return F.mse_loss(pred[:, 0], target)


# --- Predict ---------------------------------------------------------------------------------------------------------


@exercise(
    points=1, minutes=5, difficulty=1,
    draws=dict(classes=lambda rng, sizes: int(rng.integers(2, 2000))),
    cases=[dict(classes=10), dict(classes=2), dict(classes=1000), dict(), dict()],
    hints=(
        "Before training, the network cannot tell the classes apart. Which probability does it give to each, the "
        "right one among them?",
        "The loss of every example is minus the natural logarithm of that probability, and so is their mean.",
    ),
    mistakes={
        "loss is in bits: np.log2. Deep learning counts in nats, with the natural logarithm.":
            lambda classes: float(np.log2(classes)),
        "loss is the probability of the right class, 1 / classes. What does cross-entropy do with it?":
            lambda classes: 1 / classes,
        "loss is negative: that is the log-probability. What sign does the loss give it?":
            lambda classes: float(-np.log(classes)),
        "loss is the chance of being wrong. Cross-entropy does not count errors; it takes the logarithm of the "
        "right class's probability.":
            lambda classes: 1 - 1 / classes,
        "loss is summed over the classes. Only one class of each example is the right one.":
            lambda classes: float(classes * np.log(classes)),
    },
)  # fmt: skip
def initial_loss(classes) -> "loss:":
    """The cross-entropy of a network that gives every class the same probability."""
    return F.cross_entropy(torch.zeros(classes, classes, dtype=torch.float64), torch.arange(classes))


@exercise(
    points=2, minutes=10, difficulty=2,
    draws=dict(classes=lambda rng, sizes: int(rng.integers(3, 2000))),
    cases=[dict(classes=10), dict(classes=2), dict(classes=1000), dict(), dict()],
    hints=(
        "The network is perfect: its first softmax gives 1 to the right class and 0 to the others. Those numbers "
        "are now taken for logits.",
        "Put the logits (1, 0, …, 0) into logsumexp(z) - z_t. How many exponentials are e, and how many are 1?",
    ),
    mistakes={
        "loss is 0, which one softmax could reach. The second softmax sees logits between 0 and 1 only; how sure "
        "can it get?":
            lambda classes: 0.0,
        "loss is ln C, that of a network that knows nothing. This one is perfect, and a logit of 1 against 0 does "
        "say something.":
            lambda classes: float(np.log(classes)),
        "loss is the logsumexp alone. The loss also subtracts the logit of the right class.":
            lambda classes: float(np.log(np.e + classes - 1)),
        "loss counts C wrong classes beside the right one. How many zeros does (1, 0, …, 0) have?":
            lambda classes: float(np.log(np.e + classes) - 1),
        "loss takes exp(0) for 0, so that only the right class is left in the sum. What is exp(0)?":
            lambda classes: -1.0,
        "loss is a probability: e / (e + C - 1) is what the second softmax gives the right class. What does "
        "cross-entropy do with it?":
            lambda classes: float(np.e / (np.e + classes - 1)),
    },
)  # fmt: skip
def softmax_twice_floor(classes) -> "loss:":
    """The lowest cross-entropy a network can reach whose softmax outputs are taken for logits."""
    return F.cross_entropy(torch.eye(classes, dtype=torch.float64), torch.arange(classes))
