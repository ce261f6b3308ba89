"""Lesson 07: dropout, the L2 penalty, smoothed labels, early stopping and shifted images."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import Build, exercise

quiet = np.errstate(all="ignore")  # decorates the mistakes that divide by zero, as the learner's own would

# How arguments are drawn.

GENERATOR = dict(rng=lambda rng, sizes: Build("generator", seed=int(rng.integers(2**31))))


def zeros_and_ones(*shape, p=0.5):
    """A mask of that shape."""
    return lambda rng, sizes: (rng.random(shape) >= p).astype(float)


def classes_of(n, classes):
    return lambda rng, sizes: rng.integers(0, classes, n)


# --- Dropout ---------------------------------------------------------------------------------------------------------


def one_row_for_all(shape, p, rng):
    return np.broadcast_to(rng.random(shape[1:]) >= p, shape).astype(float)


@exercise(
    points=2, minutes=8, difficulty=1, draws=GENERATOR,
    cases=[
        dict(shape=(5, 4), p=0.3),
        dict(shape=(1,), p=0.5),
        dict(shape=(40, 30), p=0.8),
        dict(shape=(3, 6), p=0.0),
        dict(shape=(2, 3, 4), p=0.1),
        dict(shape=(30,), p=0.5),
    ],
    hints=(
        "rng.random(shape) is an array of numbers, evenly spread over [0, 1). Which share of them is below p?",
        "Those below p are dropped, so the others are kept: a comparison gives True where a unit is kept.",
        "(rng.random(shape) >= p) is the mask; .astype(float) turns True and False into 1 and 0.",
    ),
    mistakes={
        "mask keeps what it should drop: p is the probability of being dropped. For p = 0.8 only one unit in five "
        "stays.":
            lambda shape, p, rng: (rng.random(shape) < p).astype(float),
        "mask keeps the right share, but not the units asked for. Keep where rng.random(shape) >= p: the numbers are "
        "drawn once, and the small ones are dropped.":
            lambda shape, p, rng: (rng.random(shape) < 1 - p).astype(float),
        "mask keeps the right share, but draws other numbers than rng.random(shape): rng.binomial asks the generator "
        "for something else. Compare rng.random(shape) with p.":
            lambda shape, p, rng: rng.binomial(1, 1 - p, shape).astype(float),
        "mask keeps the right share, but draws other numbers than rng.random(shape): with dtype=np.float32 each number "
        "takes half as many random bits. Leave the dtype out.":
            lambda shape, p, rng: (rng.random(shape, dtype=np.float32) >= p).astype(float),
        "mask drops half of the units whatever p is. Compare with p, not with 0.5.":
            lambda shape, p, rng: (rng.random(shape) >= 0.5).astype(float),
        "mask is already divided by 1 - p. It holds zeros and ones only; dropout_forward does the scaling.":
            lambda shape, p, rng: (rng.random(shape) >= p) / (1 - p),
        "mask holds the random numbers themselves. Compare them with p: what is left is 0 or 1.":
            lambda shape, p, rng: rng.random(shape),
        "mask drops the same units in every row. Each entry is drawn by itself: ask rng for the whole shape.":
            one_row_for_all,
    },
)  # fmt: skip
def dropout_mask(shape, p, rng) -> "mask: ...":
    """Zeros and ones: 1, kept, where rng.random(shape) >= p."""
    return torch.from_numpy(np.asarray(rng.random(shape))).ge(p).double()


MASKED = [
    dict(x=(5, 3), mask=zeros_and_ones(5, 3, p=0.3), p=0.3),
    dict(x=(1,), mask=np.array([1.0]), p=0.2),
    dict(x=(4, 4), mask=zeros_and_ones(4, 4), p=0.5),
    dict(x=(2, 3, 4), mask=zeros_and_ones(2, 3, 4, p=0.75), p=0.75),
    dict(x=(6,), mask=np.ones(6), p=0.0),
    dict(x=(3, 2), mask=np.zeros((3, 2)), p=0.9),
    dict(x=(30, 20), mask=zeros_and_ones(30, 20, p=0.1), p=0.1),
]


@exercise(
    points=2, minutes=6, difficulty=1, cases=MASKED,
    hints=(
        "mask * x switches units off. What is the mean of the result over all masks, for one entry x?",
        "An entry survives with probability 1 - p, so the mean of mask * x is (1 - p) x. By what must the survivors "
        "be multiplied for the mean to be x?",
        "x * mask / (1 - p).",
    ),
    mistakes={
        "y is not scaled: on average only (1 - p) x arrives at the next layer. Inverted dropout makes up for it here, "
        "in training.":
            lambda x, mask, p: x * mask,
        "y is divided by p. An entry survives with probability 1 - p; that is what has to be made up for.":
            quiet(lambda x, mask, p: x * mask / p),
        "y is multiplied by 1 - p, which makes the lack worse: the survivors must grow, not shrink.":
            lambda x, mask, p: x * mask * (1 - p),
        "y keeps what the mask drops: 1 means kept.":
            lambda x, mask, p: x * (1 - mask) / (1 - p),
        "y is divided by the share that this mask happens to keep. The factor belongs to the probability, 1 - p, not "
        "to the draw.":
            quiet(lambda x, mask, p: x * mask / mask.mean()),
        "y scales all of x and ignores the mask.":
            lambda x, mask, p: x / (1 - p),
    },
)  # fmt: skip
def dropout_forward(x: "...", mask: "...", p) -> "y: ...":
    """Inverted dropout: the kept entries grow by 1 / (1 - p), so that the mean over all masks is x."""
    return x * mask / (1 - p)


@exercise(
    points=2, minutes=6, difficulty=1,
    cases=[{"dy": case["x"], "mask": case["mask"], "p": case["p"]} for case in MASKED],
    hints=(
        "Each y is x times a constant: either 0 or 1 / (1 - p). What is the derivative of c · x?",
        "Where the unit was dropped, y does not depend on x: no gradient. Elsewhere the factor of the forward pass "
        "returns.",
        "dy * mask / (1 - p).",
    ),
    mistakes={
        "dx forgets the factor 1 / (1 - p): in the forward pass each kept x was multiplied by it, so its gradient is "
        "too.":
            lambda dy, mask, p: dy * mask,
        "dx lets the gradient of dropped units through. They had no part in y: their gradient is 0.":
            lambda dy, mask, p: dy / (1 - p),
        "dx passes dy on unchanged. Dropout is part of the function: it switches units off on the way back, too.":
            lambda dy, mask, p: dy.copy(),
        "dx undoes the scaling: it multiplies by 1 - p. A gradient is multiplied by the same factor as the forward "
        "pass, not by its inverse.":
            lambda dy, mask, p: dy * mask * (1 - p),
        "dx is divided by (1 - p) twice. The forward pass did it once.":
            lambda dy, mask, p: dy * mask / (1 - p) ** 2,
        "dx is the slope of y alone. Multiply it by what arrives from above, dy.":
            lambda dy, mask, p: mask / (1 - p),
        "dx flows through the dropped units and not through the kept ones: 1 means kept.":
            lambda dy, mask, p: dy * (1 - mask) / (1 - p),
    },
)  # fmt: skip
def dropout_backward(dy: "...", mask: "...", p) -> "dx: ...":
    """The gradient of dropout_forward at x: y is linear in x, so that x itself is not needed."""
    with torch.enable_grad():  # it may be called from a backward pass
        x = torch.zeros_like(dy, requires_grad=True)
        return torch.autograd.grad((dropout_forward(x, mask, p) * dy).sum(), x)[0]


# --- The L2 penalty --------------------------------------------------------------------------------------------------


def both(function):
    """A wrong gradient of one array, for each array of the list."""
    return lambda dloss, weights, weight_decay: [function(dloss, w, weight_decay) for w in weights]


@exercise(
    script="penalty", points=2, minutes=8, difficulty=1,
    cases=[
        dict(w=(4, 3), v=(2, 4), weight_decay=0.3),
        dict(w=(1, 1), v=(3,), weight_decay=2.0),
        dict(w=(5,), v=(2, 3, 4), weight_decay=1e-4),
        dict(w=(4, 3), v=(2, 4), weight_decay=0.0),
    ],
    hints=(
        "One number for the whole list. What does each array add to it?",
        "Each array adds the sum of its squared entries. Sum over the arrays, then multiply once.",
        "0.5 * weight_decay * sum((w**2).sum() for w in weights).",
    ),
    mistakes={
        "penalty is twice as large as asked for. The ½ is there so that the gradient is weight_decay · w.":
            lambda weights, weight_decay: weight_decay * sum((w**2).sum() for w in weights),
        "penalty takes the mean of the squares of each array. It is a sum: every weight pays for itself.":
            lambda weights, weight_decay: 0.5 * weight_decay * sum((w**2).mean() for w in weights),
        "penalty counts the first array only. Sum over all arrays of the list.":
            lambda weights, weight_decay: 0.5 * weight_decay * (weights[0] ** 2).sum(),
        "penalty is the norm, the root of the sum of squares. Leave the root out: it is the square that is penalised.":
            lambda weights, weight_decay: 0.5 * weight_decay * np.sqrt(sum((w**2).sum() for w in weights)),
        "penalty adds up the norms of the arrays. A norm is the root of a sum of squares: square it.":
            lambda weights, weight_decay: 0.5 * weight_decay * sum(np.linalg.norm(w) for w in weights),
        "penalty sums absolute values: that is the L1 penalty, which drives weights to exactly 0. Here they are "
        "squared.":
            lambda weights, weight_decay: weight_decay * sum(np.abs(w).sum() for w in weights),
        "penalty squares weight_decay.":
            lambda weights, weight_decay: 0.5 * sum(((weight_decay * w) ** 2).sum() for w in weights),
    },
)  # fmt: skip
def l2_penalty_forward(weights, weight_decay):
    """Half of weight_decay times the sum of all squared weights."""
    return (0.5 * weight_decay * sum(torch.from_numpy(w).square().sum() for w in weights)).item()


@exercise(
    script="penalty_gradient", points=2, minutes=8, difficulty=1,
    cases=[
        dict(w=(4, 3), v=(2, 4), weight_decay=0.3),
        dict(w=(1, 1), v=(3,), weight_decay=2.0),
        dict(w=(5,), v=(2, 3, 4), weight_decay=1e-2),
        dict(w=(4, 3), v=(2, 4), weight_decay=0.0),
    ],
    hints=(
        "Each weight occurs in one term: ½ · weight_decay · w². Differentiate it.",
        "The 2 of the square cancels the ½. What arrives from above, dloss, multiplies it.",
        "[dloss * weight_decay * w for w in weights].",
    ),
    mistakes={
        "the gradient is twice as large: the 2 that comes down from the square cancels the ½ of the penalty.":
            both(lambda dloss, w, decay: 2 * dloss * decay * w),
        "the gradient is half as large: the ½ of the penalty is used up by the 2 that comes down from the square.":
            both(lambda dloss, w, decay: 0.5 * dloss * decay * w),
        "the gradient ignores dloss. The penalty is one term of a loss; the chain rule multiplies by what arrives "
        "from above.":
            both(lambda dloss, w, decay: decay * w),
        "the gradient forgets weight_decay: it would be right if weight_decay were 1.":
            both(lambda dloss, w, decay: dloss * w),
        "the gradient has the wrong sign. The penalty grows with the size of a weight, so its gradient points away "
        "from 0; the step, minus the gradient, is what leads towards 0.":
            both(lambda dloss, w, decay: -dloss * decay * w),
        "the gradient has the same size for every weight: sign(w) belongs to the L1 penalty. A square pulls the harder "
        "the larger w is.":
            both(lambda dloss, w, decay: dloss * decay * np.sign(w)),
        "the gradient is divided by the number of weights in its array. The penalty is a sum, not a mean.":
            both(lambda dloss, w, decay: dloss * decay * w / w.size),
    },
)  # fmt: skip
def l2_penalty_backward(dloss, weights, weight_decay):
    """One gradient per array, in the order of the list."""
    tensors = [torch.from_numpy(w).requires_grad_() for w in weights]
    penalty = 0.5 * weight_decay * sum(w.square().sum() for w in tensors)
    return [g.numpy() for g in torch.autograd.grad(dloss * penalty, tensors)]


# --- Label smoothing -------------------------------------------------------------------------------------------------


def onehot(targets, classes):
    return np.eye(classes)[targets]


def only_others(targets, classes, eps):
    """eps shared by the wrong classes alone."""
    y = np.full((len(targets), classes), eps / max(classes - 1, 1))
    y[np.arange(len(targets)), targets] = 1 - eps
    return y


def whole_columns(targets, classes, eps):
    y = np.zeros((len(targets), classes))
    y[:, targets] = 1
    return (1 - eps) * y + eps / classes


def short_row(targets, classes, eps):
    y = np.full((len(targets), classes), eps / classes)
    y[np.arange(len(targets)), targets] = 1 - eps
    return y


@exercise(
    points=2, minutes=8, difficulty=1,
    cases=[
        dict(targets=classes_of(5, 4), n=5, classes=4, c=4, eps=0.1),
        dict(targets=np.array([0]), n=1, classes=3, c=3, eps=0.3),
        dict(targets=np.array([1, 0, 1, 1]), n=4, classes=6, c=6, eps=0.2),  # the last classes do not occur
        dict(targets=classes_of(3, 3), n=3, classes=3, c=3, eps=0.0),
        dict(targets=classes_of(4, 5), n=4, classes=5, c=5, eps=1.0),
        dict(targets=classes_of(6, 2), n=6, classes=2, c=2, eps=0.1),
    ],
    hints=(
        "Start from the one-hot rows: np.eye(classes)[targets].",
        "A smoothed row is a mixture: the share 1 - eps of the one-hot row, the share eps of the uniform row. What is "
        "each entry of the uniform row?",
        "(1 - eps) * np.eye(classes)[targets] + eps / classes.",
    ),
    mistakes={
        "y gives eps to the wrong classes alone. Here, as in PyTorch, eps is spread over all classes, the right one "
        "included: it ends at 1 - eps + eps / classes.":
            only_others,
        "y has rows that sum to more than 1: eps was added everywhere and taken from nowhere. Shrink the one-hot part.":
            lambda targets, classes, eps: onehot(targets, classes) + eps / classes,
        "y has rows that sum to less than 1: the right class has its share of the uniform row coming, too.":
            short_row,
        "y adds eps to every class. eps is the total that is spread, so that each class gets eps / classes.":
            lambda targets, classes, eps: (1 - eps) * onehot(targets, classes) + eps,
        "y marks every class of targets in every row: y[:, targets] picks whole columns. One entry per row is "
        "y[np.arange(n), targets].":
            whole_columns,
        "y is one-hot: eps changes nothing yet.":
            lambda targets, classes, eps: onehot(targets, classes),
        "y mixes the other way round: eps is the share of the uniform row, 1 - eps that of the one-hot row.":
            lambda targets, classes, eps: eps * onehot(targets, classes) + (1 - eps) / classes,
        "y has one column for each class that occurs in targets. How many there are in all is said by classes.":
            lambda targets, classes, eps: (1 - eps) * np.eye(targets.max() + 1)[targets] + eps / (targets.max() + 1),
    },
)  # fmt: skip
def label_smoothing(targets: "n", classes, eps) -> "y: n c":
    """Whole-number targets as rows of probabilities: 1 - eps of one-hot, eps of uniform (Szegedy et al., 2016)."""
    return (1 - eps) * F.one_hot(targets, classes).double() + eps / classes


# --- Early stopping ---------------------------------------------------------------------------------------------------

# Wrong ways to stop early.


class Stops:
    """What the wrong classes share: a right one, in parts that each of them can get wrong."""

    def __init__(self, patience, min_delta=0.0):
        self.patience, self.min_delta = patience, min_delta
        self.best_loss, self.best, self.bad = np.inf, [], 0

    def improves(self, loss):
        return loss < self.best_loss - self.min_delta

    def keep(self, parameters):
        self.best = [p.copy() for p in parameters]

    def step(self, loss, parameters):
        if self.improves(loss):
            self.best_loss, self.bad = loss, 0
            self.keep(parameters)
        else:
            self.bad += 1
        return self.bad >= self.patience

    def restore(self, parameters):
        for parameter, best in zip(parameters, self.best, strict=True):
            parameter[...] = best


class KeepsTheArrays(Stops):
    def keep(self, parameters):
        self.best = list(parameters)


class RestoresNames(Stops):
    def restore(self, parameters):
        for parameter, best in zip(parameters, self.best, strict=True):
            parameter = best  # noqa: F841


class NeverForgives(Stops):
    def step(self, loss, parameters):
        if self.improves(loss):
            self.best_loss = loss
            self.keep(parameters)
        else:
            self.bad += 1
        return self.bad >= self.patience


class IgnoresMinDelta(Stops):
    def improves(self, loss):
        return loss < self.best_loss


class AddsMinDelta(Stops):
    def improves(self, loss):
        return loss < self.best_loss + self.min_delta


class TakesTies(Stops):
    def improves(self, loss):
        return loss <= self.best_loss - self.min_delta


class ComparesWithTheLast(Stops):
    last = np.inf

    def step(self, loss, parameters):
        if loss < self.last - self.min_delta:
            self.bad = 0
        else:
            self.bad += 1
        if loss < self.best_loss:
            self.best_loss = loss
            self.keep(parameters)
        self.last = loss
        return self.bad >= self.patience


class OneTooLate(Stops):
    def step(self, loss, parameters):
        return super().step(loss, parameters) and self.bad > self.patience


class TakesNan(Stops):
    def improves(self, loss):
        return not loss >= self.best_loss - self.min_delta


class AsksWhetherItIsWorse(Stops):
    def improves(self, loss):
        return not loss > self.best_loss - self.min_delta


class TakesTheFirst(Stops):
    def improves(self, loss):
        return self.best_loss == np.inf or loss < self.best_loss - self.min_delta


class TwoKindsOfBest(Stops):
    def step(self, loss, parameters):
        self.bad = 0 if self.improves(loss) else self.bad + 1
        if loss < self.best_loss:
            self.best_loss = loss
            self.keep(parameters)
        return self.bad >= self.patience


class LooksForTheLargest(Stops):
    best_loss = -np.inf

    def __init__(self, patience, min_delta=0.0):
        super().__init__(patience, min_delta)
        self.best_loss = -np.inf

    def improves(self, loss):
        return loss > self.best_loss + self.min_delta


@exercise(
    script="early_stopping", points=4, minutes=25, difficulty=3,
    cases=[
        dict(losses=np.array([1.0, 0.5, 0.75, 0.25, 0.5, 0.375, 0.25, 0.3125, 0.125]), t=9, o=3, i=2, patience=3),
        dict(losses=np.array([1.0, 0.9, 0.8, 0.85, 0.7]), t=5, o=2, i=4, patience=1),
        dict(losses=np.array([3.0, 2.0, 1.0]), t=3, o=1, i=1, patience=2),
        # 0.75 is better than 1 by min_delta exactly, 0.5 by more
        dict(losses=np.array([1.0, 0.75, 0.5, 0.4375, 0.375, 0.3125, 0.25]), t=7, o=3, i=3, patience=2, min_delta=0.25),
        dict(losses=np.array([2.0, 1.875, 1.75, 1.625, 1.5, 1.375]), t=6, o=2, i=3, patience=3, min_delta=0.2),
        dict(losses=np.array([2.0, 1.0, 1.125, 1.25, 1.375, 1.5]), t=6, o=3, i=2, patience=2, min_delta=0.25),
        dict(losses=np.array([2.0, np.nan, 1.0, np.nan, np.nan, 0.5]), t=6, o=4, i=2, patience=2),
        dict(losses=np.array([np.nan, 1.0, 0.75, 0.875, 1.0, 1.25]), t=6, o=2, i=3, patience=3),
        dict(losses=np.array([1.0, 1.0, 2.0, 1.0, 1.0, 0.5]), t=6, o=2, i=2, patience=4),
        dict(losses=lambda rng, sizes: rng.random(20), t=20, o=5, i=4, patience=6),
    ],
    hints=(
        "Three things survive between the calls: the best loss so far (before the first call, np.inf), copies of the "
        "weights that had it, and how many calls in a row brought no improvement.",
        "In step: if loss < best_loss - min_delta, keep the loss and copies, and start counting again at 0. Otherwise "
        "(a tie, a nan and too small an improvement included) count one more. Return whether the count has reached "
        "patience.",
        "The optimiser writes into the arrays you are given, so keep [p.copy() for p in parameters]; and restore "
        "writes into the arrays it is given: p[...] = best, not p = best.",
    ),
    mistakes={
        "w and b are those of the last step, not of the best: the optimiser writes into the arrays that you kept. Keep "
        "copies, and only when the loss improves.":
            KeepsTheArrays,
        "restore leaves the arrays as they are: p = best only gives the name p to another array. Write into the array "
        "you were given: p[...] = best.":
            RestoresNames,
        "stops too early: the calls without improvement have to follow each other. An improvement sets the count back "
        "to 0.":
            NeverForgives,
        "min_delta makes no difference. Only a loss that is lower than best_loss by more than min_delta counts.":
            IgnoresMinDelta,
        "counts a loss that is worse than the best by less than min_delta as an improvement. It has to be better by "
        "more than that: subtract min_delta.":
            AddsMinDelta,
        "takes a tie for an improvement. A loss that equals best_loss - min_delta does not count: compare with <.":
            TakesTies,
        "compares with the loss of the step before. An improvement is one over the best so far, or a loss that goes "
        "up and down would never stop.":
            ComparesWithTheLast,
        "stops one call too late: step returns True as soon as patience calls in a row have brought no improvement.":
            OneTooLate,
        "takes nan for an improvement. Every comparison with nan is False, so ask whether the loss is better and let "
        "else do the counting.":
            TakesNan,
        "takes a tie and nan for improvements: not to be worse is not enough. Ask whether loss < best_loss - min_delta "
        "and let else do the counting.":
            AsksWhetherItIsWorse,
        "takes the first loss for the best whatever it is. If that is nan, nothing is ever less: before the first call "
        "best_loss is np.inf.":
            TakesTheFirst,
        "keeps a loss as the best that is lower by less than min_delta: what does not set the count back is not "
        "the new best either.":
            TwoKindsOfBest,
        "looks for the largest loss. Early stopping watches a loss: lower is better.":
            LooksForTheLargest,
    },
)  # fmt: skip
class EarlyStopping:
    """Stops when the loss has not improved for `patience` calls in a row; remembers the best parameters."""

    def __init__(self, patience, min_delta=0.0):
        self.patience, self.min_delta = patience, min_delta
        self.best_loss, self.best, self.bad = float("inf"), [], 0

    def step(self, loss, parameters):
        if loss < self.best_loss - self.min_delta:
            self.best_loss, self.bad = loss, 0
            self.best = [torch.from_numpy(p).clone() for p in parameters]
        else:
            self.bad += 1
        return self.bad >= self.patience

    def restore(self, parameters):
        for parameter, best in zip(parameters, self.best, strict=True):
            torch.from_numpy(parameter).copy_(best)


# --- Shifted images --------------------------------------------------------------------------------------------------


def shifts_of(x, max_shift, rng):
    return rng.integers(-max_shift, max_shift + 1, size=(len(x), 2))


def shifted(x, shifts):
    """Each image moved by its own (down, right); what comes in from outside is 0."""
    y = np.zeros_like(x)
    _, h, w = x.shape
    for image, moved, (dy, dx) in zip(x, y, shifts, strict=True):
        if abs(dy) < h and abs(dx) < w:
            moved[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = image[
                max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)
            ]
    return y


def stretched(x, shifts):
    """Each image moved by its own (down, right); its border is repeated."""
    _, h, w = x.shape
    rows, columns = np.arange(h), np.arange(w)
    return np.array(
        [
            image[np.ix_(np.clip(rows - dy, 0, h - 1), np.clip(columns - dx, 0, w - 1))]
            for image, (dy, dx) in zip(x, shifts, strict=True)
        ]
    )


def rolled(x, max_shift, rng):
    shifts = shifts_of(x, max_shift, rng)
    return np.array([np.roll(image, shift, (0, 1)) for image, shift in zip(x, shifts, strict=True)])


def one_axis_after_the_other(x, max_shift, rng):
    down, right = (rng.integers(-max_shift, max_shift + 1, size=len(x)) for _ in range(2))
    return shifted(x, np.stack([down, right], axis=1))


def image_by_image(x, max_shift, rng):
    return shifted(x, [rng.integers(-max_shift, max_shift + 1, size=2)[::-1] for _ in x])


@exercise(
    points=3, minutes=20, difficulty=2, draws=GENERATOR,
    cases=[
        dict(n=6, h=4, w=5, max_shift=1),
        dict(n=1, h=3, w=3, max_shift=1),
        dict(n=8, h=5, w=5, max_shift=3),
        dict(n=12, h=2, w=6, max_shift=3),  # an image may leave its frame
        dict(n=3, h=4, w=3, max_shift=0),
        dict(n=5, h=8, w=8, max_shift=2),
    ],
    hints=(
        "Start from np.zeros_like(x), and copy into it, for each image, the part that is still inside the frame.",
        "For dy = 2 the rows 0 … h-3 of the image become the rows 2 … h-1 of the result. For dy = -2 it is the other "
        "way round. max(dy, 0) and min(dy, 0) write both cases as one.",
        "y[i, max(dy, 0) : h + min(dy, 0), …] = x[i, max(-dy, 0) : h + min(-dy, 0), …], and the same with dx and w "
        "for the columns. If abs(dy) is h or more, nothing is left to copy. (Another way: pad with max_shift zeros "
        "on each side, then cut a window out.)",
    ),
    mistakes={
        "what leaves on one side comes back on the other: that is np.roll. A digit pushed to the right has nothing of "
        "itself on the left; fill with 0.":
            rolled,
        "every image moves the same way. Draw one pair for each: size=(n, 2).":
            lambda x, max_shift, rng: shifted(x, np.tile(rng.integers(-max_shift, max_shift + 1, size=2), (len(x), 1))),
        "each image moves the opposite way. A positive dy moves it down, a positive dx to the right.":
            lambda x, max_shift, rng: shifted(x, -shifts_of(x, max_shift, rng)),
        "the two axes are swapped: the first column of the drawn numbers moves down, the second to the right.":
            lambda x, max_shift, rng: shifted(x, shifts_of(x, max_shift, rng)[:, ::-1]),
        "no image moves by +max_shift: rng.integers leaves out its upper end. Draw from -max_shift to max_shift + 1.":
            lambda x, max_shift, rng: shifted(x, rng.integers(-max_shift, max(max_shift, 1), size=(len(x), 2))),
        "the images move by other amounts than asked for: all dy were drawn first, then all dx. One call with "
        "size=(n, 2) draws them in pairs.":
            one_axis_after_the_other,
        "the pixels that come in repeat the border. They are empty: 0.":
            lambda x, max_shift, rng: stretched(x, shifts_of(x, max_shift, rng)),
        "the images have not moved.":
            lambda x, max_shift, rng: x.copy(),
    },
)  # fmt: skip
def random_shift(x: "n h w", max_shift, rng) -> "y: n h w":
    """Each image moved by its own whole number of pixels down and right, zeros where nothing was."""
    n, h, w = x.shape
    dy, dx = torch.from_numpy(rng.integers(-max_shift, max_shift + 1, size=(n, 2))).T
    rows = torch.arange(h) + max_shift - dy[:, None]
    columns = torch.arange(w) + max_shift - dx[:, None]
    padded = F.pad(x, (max_shift,) * 4)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


# --- In PyTorch ------------------------------------------------------------------------------------------------------

BUILT_IN = ("torch.nn.functional.dropout", "torch.dropout", "torch.feature_dropout")


class WrongDropout(nn.Module):
    """What the wrong modules share: the constructor."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def mask(self, x):
        return (torch.rand_like(x) >= self.p).to(x)


class Absent(WrongDropout):
    def forward(self, x):
        return x


class NeverResting(WrongDropout):
    def forward(self, x):
        return x * self.mask(x) / (1 - self.p)


class Unscaled(WrongDropout):
    def forward(self, x):
        return x * self.mask(x) if self.training else x


class ScaledLater(WrongDropout):
    def forward(self, x):
        return x * self.mask(x) if self.training else x * (1 - self.p)


class AlwaysHalf(WrongDropout):
    def __init__(self, p=0.5):
        super().__init__(0.5)

    def forward(self, x):
        return x * self.mask(x) / (1 - self.p) if self.training else x


class KeepsWithP(WrongDropout):
    def forward(self, x):
        return x * (torch.rand_like(x) < self.p).to(x) / self.p if self.training and self.p else x


class KeepsTheDropped(WrongDropout):
    def forward(self, x):
        return x * (1 - self.mask(x)) / (1 - self.p) if self.training else x


class NormalNumbers(WrongDropout):
    def mask(self, x):
        return (torch.randn_like(x) >= self.p).to(x)

    def forward(self, x):
        return x * self.mask(x) / (1 - self.p) if self.training else x


class SameForAll(WrongDropout):
    def forward(self, x):
        return x * self.mask(x[:1]) / (1 - self.p) if self.training else x


class WholeRows(WrongDropout):
    def forward(self, x):
        return x * self.mask(x[:, :1]) / (1 - self.p) if self.training else x


class DrawnOnce(WrongDropout):
    kept = None

    def forward(self, x):
        if not self.training:
            return x
        if self.kept is None or self.kept.shape != x.shape:
            self.kept = self.mask(x)
        return x * self.kept / (1 - self.p)


class Detached(WrongDropout):
    def forward(self, x):
        return x.detach() * self.mask(x) / (1 - self.p) + 0 * x if self.training else x


@exercise(
    script="dropout_module", points=3, minutes=12, difficulty=2, forbids=BUILT_IN,
    cases=[
        dict(n=60, d=50, p=0.3, seed=1),
        dict(n=80, d=40, p=0.75, seed=2),
        dict(n=50, d=60, seed=3),
        dict(n=4, d=3, p=0.0, seed=4),
    ],
    hints=(
        "nn.Module already keeps the flag: train() sets self.training to True, eval() to False. forward only asks.",
        "In training: a mask from torch.rand_like(x), then your formula. Otherwise: x itself.",
        "(torch.rand_like(x) >= self.p).to(x) is the mask, in the type and on the device of x.",
    ),
    mistakes={
        "nothing is dropped, in training either. In training, draw a mask.": Absent,
        "the layer still drops in eval mode. Ask self.training, which eval() has set to False, and return x as it is.":
            NeverResting,
        "the kept entries are not scaled in training. In eval mode x passes unchanged, so the two would differ on "
        "average by the factor 1 - p.":
            Unscaled,
        "this is dropout as first published: unscaled in training, times 1 - p in eval. PyTorch inverts it: divide in "
        "training, nothing in eval.":
            ScaledLater,
        "p is always 0.5. Keep the constructor's argument on self.":
            AlwaysHalf,
        "p is taken for the probability of being kept. It is the probability of being dropped.":
            KeepsWithP,
        "the mask keeps what it should drop: the numbers below p are the dropped ones.":
            KeepsTheDropped,
        "the share that is kept is not 1 - p: torch.randn draws from the normal distribution. torch.rand is even over "
        "[0, 1).":
            NormalNumbers,
        "all examples get the same mask. Each entry is drawn by itself: a mask of the shape of x.":
            SameForAll,
        "whole rows are dropped or kept. Each entry is drawn by itself: a mask of the shape of x.":
            WholeRows,
        "the mask is drawn once and kept for ever. A new one belongs to each forward pass.":
            DrawnOnce,
        "no gradient reaches x in training: x was cut off from the graph. Leave detach and no_grad out.":
            Detached,
    },
)  # fmt: skip
class Dropout(nn.Dropout):
    """Inverted dropout that follows train() and eval()."""


# --- Repair ----------------------------------------------------------------------------------------------------------

TWO_MODES = [
    case | dict(training=training)
    for case, training in zip(MASKED, (True, True, False, False, True, True, False), strict=True)
]


@exercise(
    repair=True, points=2, minutes=8, difficulty=1, cases=[*TWO_MODES, MASKED[0] | dict(training=False)],
    hints=(
        "What is the mean of y over all masks in training? What is y at inference? The two should be equal.",
        "Two factors are there to make up for one loss. Which one does inverted dropout need?",
    ),
    mistakes={
        "the mean of y is x in training and (1 - p) x at inference: the loss is made up for twice. Which of the two "
        "lines has no reason?":
            lambda x, mask, p, training: x * mask / (1 - p) if training else x * (1 - p),
        "this is dropout as first published: consistent, but every later prediction pays for it. Repair it so that "
        "inference leaves x alone.":
            lambda x, mask, p, training: x * mask if training else x * (1 - p),
        "neither mode is scaled now, so that the next layer sees larger sums at inference than ever in training.":
            lambda x, mask, p, training: x * mask if training else x,
        "units are dropped at inference, too. There the whole network answers.":
            lambda x, mask, p, training: x * mask / (1 - p),
    },
)  # fmt: skip
def repair_dropout_forward(x: "...", mask: "...", p, training) -> "y: ...":
    """Inverted dropout in training, the identity at inference."""
    return dropout_forward(x, mask, p) if training else x.clone()


class Layer:
    """What the wrong layers share: a right one, in parts that each of them can get wrong."""

    def __init__(self, p, rng):
        self.p, self.rng, self.training = p, rng, True

    def draw(self, shape):
        return (self.rng.random(shape) >= self.p) / (1 - self.p)

    def forward(self, x):
        self.factor = self.draw(x.shape) if self.training else np.ones(x.shape)
        return x * self.factor

    def backward(self, dy):
        return dy * self.factor


class DrawsAnew(Layer):
    def backward(self, dy):
        return dy * (self.draw(dy.shape) if self.training else 1.0)


class StaleMask(Layer):
    def forward(self, x):
        if not self.training:
            return x.copy()
        return super().forward(x)


class DrawsAnewAlways(Layer):
    def forward(self, x):
        return x * self.draw(x.shape) if self.training else x.copy()

    def backward(self, dy):
        return dy * self.draw(dy.shape)


class OneMaskForEver(Layer):
    factor = None

    def forward(self, x):
        if not self.training:
            return x.copy()
        if self.factor is None:
            self.factor = self.draw(x.shape)
        return x * self.factor

    def backward(self, dy):
        return dy * self.factor if self.training else dy.copy()


class AsksAtInference(Layer):
    def forward(self, x):
        self.factor = self.draw(x.shape)
        if not self.training:
            self.factor = np.ones(x.shape)
        return x * self.factor


class NoMaskBack(Layer):
    def backward(self, dy):
        return dy.copy()


@exercise(
    script="dropout_layer", repair=True, points=3, minutes=15, difficulty=2, draws=GENERATOR,
    cases=[dict(n=4, d=6, p=0.3), dict(n=1, d=5, p=0.5), dict(n=3, d=3, p=0.75), dict(n=5, d=4, p=0.0)],
    hints=(
        "Which units were dropped in the forward pass? Which ones does the backward pass drop?",
        "Keep the mask of the forward pass on self, and use it in backward.",
        "Then ask what backward should do after a forward pass at inference.",
    ),
    mistakes={
        "the backward pass draws a mask of its own: the gradient flows through units that had no part in y, and not "
        "through those that had.":
            DrawsAnew,
        "the backward pass after a forward pass at inference uses the mask of an earlier one. What was dropped last "
        "time no longer matters: the layer was the identity.":
            StaleMask,
        "both faults are still there: backward draws a new mask, and does so even after a forward pass at inference.":
            DrawsAnewAlways,
        "the mask is drawn once and used for every batch. A new one belongs to each forward pass.":
            OneMaskForEver,
        "rng is asked at inference, too, where nothing is dropped: the next step of training then gets other numbers.":
            AsksAtInference,
        "the backward pass drops nothing: dy arrives unchanged. What had no part in y gets no gradient.":
            NoMaskBack,
    },
)  # fmt: skip
class RepairDropoutLayer:
    """Dropout as a layer: forward, backward, and a flag that says whether it is training."""

    def __init__(self, p, rng):
        self.p, self.rng, self.training = p, rng, True

    def forward(self, x):
        kept = torch.from_numpy(self.rng.random(x.shape)).ge(self.p) if self.training else None
        self.x = torch.from_numpy(x).requires_grad_()
        self.y = self.x * kept / (1 - self.p) if self.training else self.x.clone()
        return self.y.detach().numpy()

    def backward(self, dy):
        return torch.autograd.grad((self.y * torch.from_numpy(dy)).sum(), self.x)[0].numpy()


# --- Predict ---------------------------------------------------------------------------------------------------------


@exercise(
    points=2, minutes=10, difficulty=2,
    draws=dict(
        x=lambda rng, sizes: float(rng.normal(0, 3)), p=lambda rng, sizes: float(rng.uniform(0.1, 0.9))
    ),
    cases=[dict(x=2.0, p=0.5), dict(x=-3.0, p=0.2), dict(), dict(), dict(x=1.0, p=0.0)],
    hints=(
        "y takes two values only. Which, and with which probabilities?",
        "The mean is 0 · p + x/(1 - p) · (1 - p). For the variance take the mean of y² and subtract the square of the "
        "mean.",
        "The mean of y² is x²/(1 - p)² · (1 - p) = x²/(1 - p). Subtract x².",
    ),
    mistakes={
        "variance is that of the unscaled x · mask. The factor 1 / (1 - p) enters squared.":
            lambda x, p: (x, x**2 * p * (1 - p)),
        "variance is the standard deviation: leave the root out.":
            lambda x, p: (x, abs(x) * np.sqrt(p / (1 - p))),
        "mean is that of dropout without its scaling, (1 - p) x. Inverted dropout is made to have the mean x.":
            lambda x, p: ((1 - p) * x, x**2 * p / (1 - p)),
        "both are those of dropout without its scaling. Inverted dropout divides by 1 - p: the mean once, the variance "
        "twice.":
            lambda x, p: ((1 - p) * x, x**2 * p * (1 - p)),
        "variance is the mean of y². Subtract the square of the mean.":
            lambda x, p: (x, x**2 / (1 - p)),
        "variance grows with x; it should grow with x². Twice the entry, four times the variance.":
            lambda x, p: (x, x * p / (1 - p)),
        "variance is too large at small p and too small at large p: p and 1 - p are swapped.":
            lambda x, p: (x, x**2 * (1 - p) / p if p else 0.0),
    },
)  # fmt: skip
def dropout_moments(x, p) -> "mean:, variance:":
    """Mean and variance of an entry after inverted dropout, from its two values and their probabilities."""
    y = torch.tensor([0.0, x / (1 - p)], dtype=torch.float64)
    chance = torch.tensor([p, 1 - p], dtype=torch.float64)
    mean = (chance * y).sum()
    return mean, (chance * (y - mean) ** 2).sum()


@exercise(
    points=1, minutes=5, difficulty=1,
    draws=dict(widths=lambda rng, sizes: [int(width) for width in rng.integers(2, 12, size=rng.integers(3, 6))]),
    cases=[
        dict(widths=[3, 4, 2]),
        dict(widths=[64, 10, 10]),
        dict(widths=[5, 3, 2, 1]),
        dict(widths=[40, 60, 3, 10]),  # 2 ** 63 is one more than an int64 holds
        dict(),
    ],
    hints=(
        "Every hidden unit is either there or not. How many choices are there for one unit, for two, for three?",
        "The first width is the input, the last the output; neither is dropped here.",
    ),
    mistakes={
        "networks counts the inputs' choices too. Only hidden units are dropped here.":
            lambda widths: 2 ** sum(widths[:-1]),
        "networks counts the outputs' choices too. Only hidden units are dropped here.":
            lambda widths: 2 ** sum(widths[1:]),
        "networks counts the choices of inputs and outputs too. Only hidden units are dropped here.":
            lambda widths: 2 ** sum(widths),
        "networks is 2 · the number of hidden units. The choices multiply: 2 · 2 · 2 …":
            lambda widths: 2 * sum(widths[1:-1]),
        "networks is the number of hidden units. Each is there or not, independently of the others.":
            lambda widths: sum(widths[1:-1]),
        "networks runs over: 2 ** np.sum(…) counts with 64 bits, and 63 hidden units are too many for them. Python's "
        "own sum gives a whole number of any size.":
            lambda widths: 2 ** np.sum(widths[1:-1]),
        "networks adds up the layers. A choice for one layer goes with every choice for the next: multiply.":
            lambda widths: sum(2**width for width in widths[1:-1]),
    },
)  # fmt: skip
def thinned_networks(widths) -> "networks:":
    """How many networks dropout on the hidden layers chooses from."""
    return torch.tensor(2.0, dtype=torch.float64) ** sum(widths[1:-1])


@exercise(
    points=2, minutes=10, difficulty=2,
    draws=dict(
        classes=lambda rng, sizes: int(rng.integers(3, 1000)), eps=lambda rng, sizes: float(rng.uniform(0.05, 0.6))
    ),
    cases=[dict(classes=10, eps=0.1), dict(classes=2, eps=0.2), dict(classes=1000, eps=0.1), dict(), dict()],
    hints=(
        "Cross-entropy with a soft target is smallest where p equals the target (lesson 03). What is left there?",
        "The entropy of the smoothed row. It has one entry 1 - eps + eps/classes and classes - 1 entries eps/classes.",
    ),
    mistakes={
        "loss is 0, which hard targets allow. A smoothed target is uncertain, and a loss cannot be less than its "
        "entropy.":
            lambda classes, eps: 0.0,
        "loss leaves out the wrong classes. Each has probability eps / classes, and its term counts.":
            lambda classes, eps: -(1 - eps + eps / classes) * np.log(1 - eps + eps / classes),
        "loss counts a single wrong class. There are classes - 1 of them.":
            lambda classes, eps: -(1 - eps + eps / classes) * np.log(1 - eps + eps / classes)
            - eps / classes * np.log(eps / classes),
        "loss is -ln of the right class's probability alone. Weigh each logarithm with its target.":
            lambda classes, eps: -np.log(1 - eps + eps / classes),
        "loss is -ln(1 - eps). The right class has eps / classes besides, and every class adds its target times its "
        "logarithm.":
            lambda classes, eps: -np.log(1 - eps),
        "loss is in bits. In nats it has natural logarithms.":
            lambda classes, eps: -(1 - eps + eps / classes) * np.log2(1 - eps + eps / classes)
            - (classes - 1) * eps / classes * np.log2(eps / classes),
        "loss is that of a target with eps on the wrong classes alone. Here eps is spread over all, the right one "
        "included.":
            lambda classes, eps: -(1 - eps) * np.log(1 - eps) - eps * np.log(eps / (classes - 1)),
    },
)  # fmt: skip
def smoothed_floor(classes, eps) -> "loss:":
    """The lowest cross-entropy that any network can reach on smoothed targets."""
    y = label_smoothing(torch.arange(1), classes, eps)
    return F.cross_entropy(y.log(), y)
