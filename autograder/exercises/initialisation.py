"""Lesson 05: what random weights do to signals and gradients on their way through a deep network."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import init

from autograder.exercise import Build, exercise

GENERATOR = dict(rng=lambda rng, sizes: Build("generator", seed=int(rng.integers(2**31))))


# What the wrong implementations below are made of.


def fans(shape):
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def uniform(bound, shape, rng):
    return rng.uniform(-bound, bound, shape)


def xavier_bound(shape):
    return math.sqrt(6 / sum(fans(shape)))


def he_std(shape):
    return math.sqrt(2 / fans(shape)[0])


def turned(draw):
    """The same numbers in another order: drawn in the transposed shape."""
    return lambda shape, rng: draw(shape[::-1], rng).T


# --- Counting connections --------------------------------------------------------------------------------------------

SHAPES = [
    dict(shape=(5, 3)),
    dict(shape=(1, 7)),
    dict(shape=(4, 4)),
    dict(shape=(1, 1)),
    dict(shape=(8, 4, 3, 3)),
    dict(shape=(6, 1, 5, 5)),  # depthwise: in / groups is 1
    dict(shape=(3, 2, 1, 7)),
    dict(shape=(4, 6, 1, 1)),
    dict(shape=(2, 5, 3)),
    dict(shape=(3, 2, 2, 3, 4)),
]


@exercise(
    points=2, minutes=8, difficulty=1, cases=SHAPES,
    hints=(
        "Stand at one output number. How many products are added up to make it, if the weights are (out, in)? And if "
        "they are (out, in, KH, KW)?",
        "The kernel's area multiplies both fans: it is the product of all sizes after the first two, and 1 where there "
        "are none. math.prod of an empty tuple is 1.",
        "`fan_in = shape[1] * area` and `fan_out = shape[0] * area`.",
    ),
    mistakes={
        "fan_in and fan_out have changed places. PyTorch's weights are (out, in): which size do the inputs have?":
            lambda shape: fans(shape)[::-1],
        "fan_in and fan_out have changed places, and the kernel is left out. PyTorch's weights are (out, in, …): which "
        "size do the inputs have, and what do the sizes after the first two do?":
            lambda shape: (shape[0], shape[1]),
        "fan_in and fan_out leave out the kernel. One output pixel adds up in · KH · KW products; which sizes have you "
        "not used?":
            lambda shape: (shape[1], shape[0]),
        "fan_out leaves out the kernel. An input pixel lies under every position of the kernel, once for each output "
        "channel.":
            lambda shape: (fans(shape)[0], shape[0]),
        "fan_in leaves out the kernel. One output pixel adds up in · KH · KW products.":
            lambda shape: (shape[1], fans(shape)[1]),
        "fan_in and fan_out take the kernel for square: one side was used twice. It is KH · KW.":
            lambda shape: tuple(n * (shape[2] ** 2 if len(shape) > 3 else math.prod(shape[2:])) for n in shape[1::-1]),
        "fan_in and fan_out add up the sides of the kernel. A kernel of 3 by 3 has 9 places, not 6.":
            lambda shape: tuple(n * (sum(shape[2:]) or 1) for n in shape[1::-1]),
        "fan_in and fan_out take only the first side of the kernel. The area is the product of all sizes after the "
        "first two.":
            lambda shape: tuple(n * (shape[2:] or (1,))[0] for n in shape[1::-1]),
        "fan_in counts all weights of the layer. The fan in belongs to one output: leave out the axis of the outputs.":
            lambda shape: (math.prod(shape), fans(shape)[1]),
    },
)  # fmt: skip
def fan_in_fan_out(shape) -> "fan_in:, fan_out:":
    """How many inputs reach one output, and how many outputs one input reaches, for weights of this shape."""
    fan_in, fan_out = init._calculate_fan_in_and_fan_out(torch.empty(tuple(shape)))
    return fan_in, fan_out


# --- Drawing weights -------------------------------------------------------------------------------------------------


@exercise(
    points=2, minutes=10, difficulty=1, cases=SHAPES, draws=GENERATOR,
    hints=(
        "The variance that is wanted is 2 / (fan_in + fan_out). A uniform number between -a and a has the variance "
        "a² / 3. Which a makes the two equal?",
        "a² = 6 / (fan_in + fan_out). Your fan_in_fan_out gives both fans for any shape.",
        "`return rng.uniform(-a, a, shape)`: one call, and the numbers come in the order of the array.",
    ),
    mistakes={
        "w uses the standard deviation as the bound: that leaves a third of the variance. A uniform number between -a "
        "and a has the standard deviation a / √3, not a.":
            lambda shape, rng: uniform(xavier_bound(shape) / math.sqrt(3), shape, rng),
        "w has the right bound without its square root: 6 / (fan_in + fan_out) is the bound squared.":
            lambda shape, rng: uniform(xavier_bound(shape) ** 2, shape, rng),
        "w has the bound √6 / (fan_in + fan_out). The sum of the fans belongs under the root too.":
            lambda shape, rng: uniform(math.sqrt(6) / sum(fans(shape)), shape, rng),
        "w looks at the inputs alone: √(3 / fan_in) holds the variance on the way forward only. Xavier's compromise "
        "counts both fans.":
            lambda shape, rng: uniform(math.sqrt(3 / fans(shape)[0]), shape, rng),
        "w is He's: √(6 / fan_in) has the factor 2 for ReLU and looks at the inputs alone. Xavier counts both fans.":
            lambda shape, rng: uniform(math.sqrt(6 / fans(shape)[0]), shape, rng),
        "w divides by the mean of the fans where their sum belongs: its variance is twice what it should be.":
            lambda shape, rng: uniform(xavier_bound(shape) * math.sqrt(2), shape, rng),
        "w takes the first two sizes for the fans. In a convolution each connection exists once for every place of the "
        "kernel.":
            lambda shape, rng: uniform(math.sqrt(6 / (shape[0] + shape[1])), shape, rng),
        "w is normally distributed with the right variance. Asked was the uniform draw, rng.uniform(-a, a, shape).":
            lambda shape, rng: rng.normal(0, xavier_bound(shape) / math.sqrt(3), shape),
        "w is never negative: rng.uniform(0, a). Weights that all have one sign have a mean, and it adds up over the "
        "inputs. Which interval has the mean 0?":
            lambda shape, rng: rng.uniform(0, xavier_bound(shape), shape),
        "w has the right distribution, but mirrored numbers: they run from a down to -a. To be checkable, the draw is "
        "rng.uniform(-a, a, shape).":
            lambda shape, rng: xavier_bound(shape) * (1 - 2 * rng.random(shape)),
        "w has the right distribution, but its numbers stand in another order: they were drawn in the transposed "
        "shape. Draw them in the shape itself.":
            turned(lambda shape, rng: uniform(xavier_bound(shape), shape, rng)),
        "w has the right distribution, but draws from a generator of its own. Draw from the argument rng: whoever "
        "passes the same one gets the same weights again.":
            lambda shape, rng: uniform(xavier_bound(shape), shape, np.random.default_rng(0)),
    },
)  # fmt: skip
def xavier_uniform(shape, rng) -> "w: ...":
    """Weights drawn by rng.uniform(-a, a, shape), with the bound of Glorot and Bengio (2010)."""
    fan_in, fan_out = init._calculate_fan_in_and_fan_out(torch.empty(tuple(shape)))
    bound = init.calculate_gain("linear") * math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


@exercise(
    points=2, minutes=8, difficulty=1, cases=SHAPES, draws=GENERATOR,
    hints=(
        "ReLU leaves half of the mean square. By how much must a layer's weights raise it, so that nothing is lost?",
        "The variance of a weight is 2 / fan_in. rng.normal wants the standard deviation, its root.",
        "`return rng.normal(0, np.sqrt(2 / fan_in), shape)`.",
    ),
    mistakes={
        "w has the variance where the standard deviation belongs: rng.normal takes the root of 2 / fan_in.":
            lambda shape, rng: rng.normal(0, he_std(shape) ** 2, shape),
        "w lacks the factor 2: √(1 / fan_in) suits a linear layer. What does ReLU do to half of its inputs?":
            lambda shape, rng: rng.normal(0, he_std(shape) / math.sqrt(2), shape),
        "w has 2 / √fan_in for its standard deviation. The 2 belongs under the root.":
            lambda shape, rng: rng.normal(0, he_std(shape) * math.sqrt(2), shape),
        "w has √2 / fan_in for its standard deviation. The fan in belongs under the root too.":
            lambda shape, rng: rng.normal(0, math.sqrt(2) / fans(shape)[0], shape),
        "w has the standard deviation for its mean: rng.normal takes the mean first, which is 0, then the standard "
        "deviation.":
            lambda shape, rng: rng.normal(he_std(shape), 1, shape),
        "w divides by fan_out. That holds the gradient on its way back (PyTorch's mode='fan_out'); asked is the "
        "default, which holds the signal on its way forward.":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / fans(shape)[1]), shape),
        "w is Xavier's: 2 / (fan_in + fan_out) knows nothing of ReLU. He divides 2 by fan_in alone.":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / sum(fans(shape))), shape),
        "w takes shape[1] for the fan in. In a convolution one output adds up in · KH · KW products.":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / shape[1]), shape),
        "w takes the last size for the fan in: that is right for (out, in), but a convolution ends with its kernel's "
        "width.":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / shape[-1]), shape),
        "w is uniform with the right variance. Asked was the normal draw, rng.normal(0, std, shape).":
            lambda shape, rng: uniform(math.sqrt(3) * he_std(shape), shape, rng),
        "w has the right distribution, but its numbers stand in another order: they were drawn in the transposed "
        "shape. Draw them in the shape itself.":
            turned(lambda shape, rng: rng.normal(0, he_std(shape), shape)),
        "w has the right distribution, but draws from a generator of its own. Draw from the argument rng: whoever "
        "passes the same one gets the same weights again.":
            lambda shape, rng: np.random.default_rng(0).normal(0, he_std(shape), shape),
    },
)  # fmt: skip
def he_normal(shape, rng) -> "w: ...":
    """Weights drawn by rng.normal(0, std, shape), with the standard deviation of He et al. (2015)."""
    fan_in, _ = init._calculate_fan_in_and_fan_out(torch.empty(tuple(shape)))
    return rng.normal(0, init.calculate_gain("relu") / math.sqrt(fan_in), shape)


# --- Clipping --------------------------------------------------------------------------------------------------------


def total(grads):
    return math.sqrt(sum((grad**2).sum() for grad in grads))


def scaled(grads, factor):
    return [grad * factor for grad in grads]


def clipped_where(keeps):
    """Clips unless keeps(norm, max_norm)."""

    def clip(grads, max_norm):
        norm = total(grads)
        return ([g.copy() for g in grads] if keeps(norm, max_norm) else scaled(grads, max_norm / (norm + 1e-6))), norm

    return clip


def by_factor(factor):
    """Scales by factor(norm, max_norm), at most by 1."""
    return lambda grads, max_norm: (scaled(grads, min(1.0, factor(total(grads), max_norm))), total(grads))


def each_by_itself(grads, max_norm):
    return [scaled([g], min(1.0, max_norm / (total([g]) + 1e-6)))[0] for g in grads], total(grads)


def with_norm(norm_of):
    """Clips rightly, but with another idea of the norm, which it also returns."""

    def clip(grads, max_norm):
        norm = float(norm_of(grads))
        return scaled(grads, min(1.0, max_norm / (norm + 1e-6))), norm

    return clip


def returns_the_norm_after(grads, max_norm):
    clipped = scaled(grads, min(1.0, max_norm / (total(grads) + 1e-6)))
    return clipped, total(clipped)


def tiny(*shape):
    return lambda rng, sizes: 1e-6 * rng.standard_normal(shape)


@exercise(
    script="clip", points=3, minutes=15, difficulty=2, tolerance=1e-9,
    cases=[
        dict(dw=(4, 3), db=(4,), dv=(2, 4), max_norm=1.0),
        dict(dw=(4, 3), db=(4,), dv=(2, 4), max_norm=100.0),
        dict(dw=np.array([[3.0, 0.0]]), db=np.array([4.0]), dv=np.zeros((2, 2)), max_norm=5.0),
        dict(dw=np.zeros((2, 3)), db=np.zeros(2), dv=np.zeros((3, 2)), max_norm=1.0),
        dict(dw=tiny(3, 3), db=tiny(3), dv=tiny(1, 3), max_norm=1e-6),
        dict(dw=tiny(3, 3), db=tiny(3), dv=tiny(1, 3), max_norm=1.0),
        dict(dw=np.array([[3e-7, 0.0]]), db=np.array([4e-7]), dv=np.zeros((2, 2)), max_norm=2e-7),
        dict(dw=(1, 1), db=(1,), dv=(5, 1), max_norm=0.1),
        dict(dw=(2, 3, 3, 3), db=(2,), dv=(4, 18), max_norm=2),
    ],
    hints=(
        "All gradients together are one long vector. Its squared length is the sum of the squares of all numbers in "
        "all arrays.",
        "One factor for all of them: max_norm / (norm + 1e-6), but never more than 1, so that small gradients are not "
        "made longer.",
        "`scale = min(1.0, max_norm / (norm + 1e-6))`, and a new list: `[scale * grad for grad in grads]`. Return it "
        "with the norm from before.",
    ),
    mistakes={
        "each gradient was clipped by its own norm. That changes their proportions, and so the direction of the step: "
        "one norm for all, one factor for all.":
            each_by_itself,
        "gradients below max_norm were made longer: the factor exceeds 1 there. What holds it at 1?":
            lambda grads, max_norm: (scaled(grads, max_norm / (total(grads) + 1e-6)), total(grads)),
        "the gradients were clipped number by number, which turns their direction (that is clip_grad_value_). Clipping "
        "by norm multiplies all of them by one factor.":
            lambda grads, max_norm: ([np.clip(grad, -max_norm, max_norm) for grad in grads], total(grads)),
        "right but for the 1e-6 that PyTorch adds to the norm, in max_norm / (norm + 1e-6). It shows where the norm is "
        "tiny, or just equal to max_norm.":
            by_factor(lambda norm, max_norm: max_norm / norm if norm else 1.0),
        "right but for a norm of just max_norm: PyTorch does not ask whether the norm is larger, it takes the smaller "
        "of 1 and max_norm / (norm + 1e-6). At equality that is a little below 1.":
            clipped_where(lambda norm, max_norm: norm <= max_norm),
        "right but for the tiny gradients: you took the larger of the norm and 1e-6. PyTorch adds 1e-6 to the norm.":
            by_factor(lambda norm, max_norm: max_norm / max(norm, 1e-6)),
        "norm is the one after clipping. The norm before is worth more: it says how large the gradient was, and "
        "PyTorch returns that.":
            returns_the_norm_after,
        "norm is the sum of the arrays' norms. Lengths of perpendicular parts add up as squares do: √(3² + 4²) is 5, "
        "not 7.":
            with_norm(lambda grads: sum(total([grad]) for grad in grads)),
        "norm is the sum of the squares: the root is missing.":
            with_norm(lambda grads: total(grads) ** 2),
        "norm is the largest number of all (PyTorch's norm_type=inf). The default, norm_type=2, is the Euclidean "
        "length.":
            with_norm(lambda grads: max(np.abs(grad).max() for grad in grads)),
        "norm adds up absolute values. The default is the Euclidean length: squares, their sum, its root.":
            with_norm(lambda grads: sum(np.abs(grad).sum() for grad in grads)),
        "norm is averaged over the numbers. The length of a vector is a sum of squares: nothing is divided.":
            with_norm(lambda grads: total(grads) / math.sqrt(sum(grad.size for grad in grads))),
    },
)  # fmt: skip
def clip_grad_norm(grads, max_norm):
    """All gradients scaled by one factor, so that their common norm is at most max_norm; and the norm before."""
    parameters = [nn.Parameter(torch.from_numpy(grad.copy())) for grad in grads]
    for parameter in parameters:
        parameter.grad = parameter.detach().clone()
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return [parameter.grad.numpy() for parameter in parameters], norm.item()


# --- In PyTorch ------------------------------------------------------------------------------------------------------


def backward_norms(model, x, y, loss=F.cross_entropy, norm=torch.linalg.vector_norm, clear=True, order=list):
    if clear:
        model.zero_grad()
    loss(model(x), y).backward()
    return np.array([norm(p.grad).item() for p in order(model.parameters())])


@torch.no_grad()
def stepped(model):
    for parameter in model.parameters():
        parameter -= 0.1 * parameter.grad


def takes_a_step(model, x, y):
    norms = backward_norms(model, x, y)
    stepped(model)
    return norms


def network(*widths, activation="ReLU"):
    return lambda rng, sizes: Build("mlp", widths=list(widths), seed=int(rng.integers(2**31)), activation=activation)


@exercise(
    script="norms", points=3, minutes=12, difficulty=2,
    draws=dict(y=lambda rng, sizes: rng.integers(3, size=sizes["n"])),
    cases=[
        dict(n=6, i=4, model=network(4, 5, 3)),
        dict(n=1, i=4, model=network(4, 4, 4, 3, activation="Tanh")),
        dict(n=5, i=2, model=network(2, 6, 6, 6, 3)),
        dict(n=3, i=5, model=network(5, 3)),
    ],
    hints=(
        "Three steps: the loss, its backward pass, and one norm for each of model.parameters(). Where does PyTorch put "
        "the gradients?",
        "backward() adds to what stands in .grad. If another backward pass went before, its gradients are still there: "
        "model.zero_grad() first. (torch.autograd.grad, which returns gradients, never touches .grad.)",
        "`F.cross_entropy(model(x), y).backward()`, then np.array([p.grad.norm().item() for p in model.parameters()]).",
    ),
    mistakes={
        "norms contain gradients that were there before: backward() adds to .grad. Clear it before the backward pass.":
            lambda model, x, y: backward_norms(model, x, y, clear=False),
        "norms are those of the parameters themselves. The gradient of p stands in p.grad.":
            lambda model, x, y: np.array([p.detach().norm().item() for p in model.parameters()]),
        "norms are squared: the root of the sum of squares is missing.":
            lambda model, x, y: backward_norms(model, x, y) ** 2,
        "norms are sums of absolute values. Asked is the Euclidean norm, the default of p.grad.norm().":
            lambda model, x, y: backward_norms(model, x, y, norm=lambda g: g.abs().sum()),
        "norms are root mean squares: a norm is not divided by the number of entries.":
            lambda model, x, y: backward_norms(model, x, y, norm=lambda g: g.square().mean().sqrt()),
        "norms are too large by the batch size: that is the gradient of the summed loss. F.cross_entropy averages over "
        "the batch.":
            lambda model, x, y: backward_norms(model, x, y, loss=lambda z, t: F.cross_entropy(z, t, reduction="sum")),
        "norms are of another loss: F.cross_entropy takes logits and contains the softmax (lesson 03). Yours came in "
        "twice.":
            lambda model, x, y: backward_norms(model, x, y, loss=lambda z, t: F.cross_entropy(z.softmax(1), t)),
        "norms come in reverse order, as the backward pass meets the parameters. Asked is the order of "
        "model.parameters().":
            lambda model, x, y: backward_norms(model, x, y, order=lambda ps: list(ps)[::-1]),
        "norms leave out the biases. Every parameter counts, in the order of model.parameters().":
            lambda model, x, y: backward_norms(model, x, y, order=lambda ps: [p for p in ps if p.ndim > 1]),
        "norms is one number, that of all gradients together. Asked is one for each parameter.":
            lambda model, x, y: np.array([np.linalg.norm(backward_norms(model, x, y))]),
        "the parameters are others afterwards: a step of an optimiser was taken. Only look.":
            takes_a_step,
    },
)  # fmt: skip
def gradient_norms(model, x, y):
    """The norm of the cross-entropy's gradient for each parameter of the model."""
    found = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return np.array([torch.linalg.vector_norm(gradient).item() for gradient in found])


class Walk:
    """A wrong way to initialise a model: which linear layers, and what is done to each."""

    def __init__(self, layer, parts=lambda model: model.modules(), other=lambda part: None):
        self.layer, self.parts, self.other = layer, parts, other

    @torch.no_grad()
    def __call__(self, model, generator):
        for part in self.parts(model):
            if isinstance(part, nn.Linear):
                self.layer(part, generator)
            else:
                self.other(part)


def drawn(std):
    """Draws the weight with std(fan_in, fan_out) and clears the bias."""

    def layer(part, generator):
        out, into = part.weight.shape
        part.weight.normal_(0, std(into, out), generator=generator)
        cleared(part)

    return layer


def cleared(part):
    if part.bias is not None:
        part.bias.zero_()


def he(into, out):
    return math.sqrt(2 / into)


def forgets_biases(part, generator):
    part.weight.normal_(0, he(*part.weight.shape[::-1]), generator=generator)


def draws_biases(part, generator):
    forgets_biases(part, generator)
    if part.bias is not None:
        part.bias.normal_(0, he(*part.weight.shape[::-1]), generator=generator)


def draws_uniform(part, generator):
    init.kaiming_uniform_(part.weight, nonlinearity="relu", generator=generator)
    cleared(part)


def replaces(part, generator):
    weight = torch.empty_like(part.weight).normal_(0, he(*part.weight.shape[::-1]), generator=generator)
    part.weight = nn.Parameter(weight)
    if part.bias is not None:
        part.bias = nn.Parameter(torch.zeros_like(part.bias))


def clears_all(part):
    for parameter in part.parameters(recurse=False):
        parameter.zero_()


def freezes(part, generator):
    drawn(he)(part, generator)
    for parameter in part.parameters():
        parameter.requires_grad_(False)


def model_of(*layers):
    return Build("sequential", layers=list(layers))


@exercise(
    script="start", points=3, minutes=15, difficulty=2,
    draws=dict(seed=lambda rng, sizes: int(rng.integers(2**31))),
    cases=[
        dict(model=model_of(["Linear", 5, 4], ["PReLU"], ["Linear", 4, 3])),
        dict(model=model_of(["Linear", 4, 4], [["Linear", 4, 6, {"bias": False}], ["PReLU", 6]], ["Linear", 6, 2])),
        dict(model=model_of(["Linear", 1, 7], ["ReLU"], [["ReLU"], [["Linear", 7, 1]]])),
        dict(model=model_of(["Linear", 3, 3])),
    ],
    hints=(
        "model.modules() yields the model, its parts and their parts, in order. isinstance(part, nn.Linear) picks the "
        "linear layers.",
        "Change the numbers, not the objects: part.weight.normal_(0, std, generator=generator) fills in place, and "
        "part.bias.zero_() too. A bias may be None.",
        "Autograd must not record it: do all of it inside `with torch.no_grad():`. The fan in is part.in_features.",
    ),
    mistakes={
        "weights are as they were, though the model has new ones: part.weight = nn.Parameter(…) puts another object "
        "there, and whoever held the old one (an optimiser) goes on with that. Fill it in place, with normal_.":
            Walk(replaces),
        "biases are as they were. They start at 0: part.bias.zero_(), where there is one.":
            Walk(forgets_biases),
        "biases are random. Nothing needs that: the weights already differ, and biases start at 0.":
            Walk(draws_biases),
        "weights that stand deeper in the model are as they were: model.children() and a loop over the model see its "
        "own parts only. model.modules() also yields the parts of its parts.":
            Walk(drawn(he), parts=lambda model: model.children()),
        "weights have the variance for their standard deviation: normal_ takes the root of 2 / in_features.":
            Walk(drawn(lambda into, out: 2 / into)),
        "weights are scaled by out_features. He's default looks at the inputs: 2 / in_features.":
            Walk(drawn(lambda into, out: math.sqrt(2 / out))),
        "weights lack ReLU's factor 2 under the root.":
            Walk(drawn(lambda into, out: math.sqrt(1 / into))),
        "weights are Xavier's, 2 / (in_features + out_features). Asked are He's.":
            Walk(drawn(lambda into, out: math.sqrt(2 / (into + out)))),
        "weights have the right variance, from a uniform distribution. Asked is normal_(0, std, generator=generator).":
            Walk(draws_uniform),
        "other parameters were set to 0 together with the biases: PReLU's slope is a parameter too, and it starts at "
        "what its own module chose. Touch linear layers only.":
            Walk(drawn(he), other=clears_all),
        "requires_grad is off afterwards, so that nothing will learn. torch.no_grad() around the filling is enough, "
        "and it ends with its block.":
            Walk(freezes),
    },
)  # fmt: skip
def initialise(model, generator):
    """Every nn.Linear of the model gets He's normal weights and zero biases, in place."""
    for part in model.modules():
        if isinstance(part, nn.Linear):
            init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            if part.bias is not None:
                init.zeros_(part.bias)


# --- Repair ----------------------------------------------------------------------------------------------------------


@exercise(
    repair=True, points=2, minutes=8, difficulty=2, cases=SHAPES, draws=GENERATOR,
    hints=(
        "Draw 100 000 weights with the broken function and print their variance. Compare it with 2 / (fan_in + "
        "fan_out).",
        "It is a third of that. The formula for the standard deviation is right; what is it used as?",
        "A uniform number between -a and a has the standard deviation a / √3. So the bound is √3 times the standard "
        "deviation.",
    ),
    mistakes={
        "w still has a third of the variance that is meant: rng.uniform takes bounds, and √(2 / (fan_in + fan_out)) "
        "is a standard deviation. By which factor does a bound exceed it?":
            lambda shape, rng: uniform(xavier_bound(shape) / math.sqrt(3), shape, rng),
        "w has nine times the variance it had: the bound was multiplied by 3, but it is the variance that lacks a "
        "factor of 3.":
            lambda shape, rng: uniform(xavier_bound(shape) * math.sqrt(3), shape, rng),
        "w has the right variance now, from a normal distribution. Keep the uniform draw and mend its bound.":
            lambda shape, rng: rng.normal(0, xavier_bound(shape) / math.sqrt(3), shape),
        "w has twice the broken variance: 2 became 4 under the root. Which factor lies between the variance and the "
        "squared bound of a uniform distribution?":
            lambda shape, rng: uniform(xavier_bound(shape) * math.sqrt(2 / 3), shape, rng),
    },
)  # fmt: skip
def repair_xavier_uniform(shape, rng) -> "w: ...":
    """Xavier's uniform weights, whose bound is not their standard deviation."""
    return xavier_uniform(shape, rng)


@exercise(
    repair=True, points=2, minutes=8, difficulty=2, cases=SHAPES, draws=GENERATOR,
    hints=(
        "It is right for a square layer, (n, n), and for nothing else that the check draws. Which sizes does (n, n) "
        "confuse?",
        "The weights are (out, in, KH, KW). Where does the broken line look for the inputs, and which axes of a "
        "convolution does it leave out?",
        "Two faults: shape[0] is the number of outputs; and the kernel's area is missing. fan_in is shape[1] times the "
        "area.",
    ),
    mistakes={
        "w is still scaled by the number of outputs. PyTorch's weights are (out, in, …): on which axis are the "
        "inputs?":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / shape[0]), shape),
        "w is right for linear layers now, and too large for convolutions. One output of those adds up more than in "
        "products.":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / shape[1]), shape),
        "w takes the last size for the fan in: right for linear layers now, but a convolution ends with its kernel's "
        "width.":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / shape[-1]), shape),
        "w counts the kernel now, but still the outputs: that is fan_out. Which axis holds the inputs?":
            lambda shape, rng: rng.normal(0, math.sqrt(2 / fans(shape)[1]), shape),
        "w has the right fan in, and the factor 2 is gone. It was right: ReLU halves the mean square.":
            lambda shape, rng: rng.normal(0, math.sqrt(1 / fans(shape)[0]), shape),
    },
)  # fmt: skip
def repair_he_normal(shape, rng) -> "w: ...":
    """He's normal weights, for layers that are not square and for convolutions."""
    return he_normal(shape, rng)


# --- Predict ---------------------------------------------------------------------------------------------------------

NETWORKS = dict(
    depth=lambda rng, sizes: int(rng.integers(5, 100)),
    width=lambda rng, sizes: int(rng.integers(20, 1000)),
    weight_std=lambda rng, sizes: float(rng.uniform(0.01, 0.3)),
)


def decades(depth, width, weight_std, activation, half=0.5):
    return depth * math.log10(width * weight_std**2 * (half if activation == "relu" else 1))


@exercise(
    points=2, minutes=10, difficulty=2, draws=NETWORKS,
    cases=[
        dict(depth=50, width=100, weight_std=0.1, activation="relu"),
        dict(depth=1, activation="linear"),
        dict(activation="linear"),
        dict(activation="relu"),
        dict(activation="relu"),
    ],
    hints=(
        "One linear layer first: every output is a sum of `width` products. By which factor does the mean square "
        "grow?",
        "By width · weight_std². A ReLU behind it halves that. Every layer multiplies by the same factor.",
        "The logarithm turns the power into a product: depth · log10(factor).",
    ),
    mistakes={
        "decades leaves out ReLU's half: what is negative is cut off, and half of the mean square with it.":
            lambda depth, width, weight_std, activation: decades(depth, width, weight_std, "linear"),
        "decades takes the half for both activations. A linear layer cuts nothing off.":
            lambda depth, width, weight_std, activation: decades(depth, width, weight_std, "relu"),
        "decades leaves out the width: an output is a sum over all inputs of the layer, and their variances add up.":
            lambda depth, width, weight_std, activation: decades(depth, 1, weight_std, activation),
        "decades is that of the root mean square, half of what is asked. The mean square grows by width · weight_std² "
        "in each layer.":
            lambda depth, width, weight_std, activation: decades(depth, width, weight_std, activation) / 2,
        "decades is counted in powers of e: np.log is the natural logarithm. A decade is a factor of 10.":
            lambda depth, width, weight_std, activation:
                decades(depth, width, weight_std, activation) * math.log(10),
        "decades is the factor itself. Asked is its logarithm to the base 10.":
            lambda depth, width, weight_std, activation: 10 ** decades(depth, width, weight_std, activation),
        "decades counts the ReLU once. It stands behind every layer, and each time half of the mean square is gone.":
            lambda depth, width, weight_std, activation:
                decades(depth - 1, width, weight_std, "linear") + decades(1, width, weight_std, activation),
        "decades leaves out the ReLU behind the last layer: the activation comes after every layer, that one too.":
            lambda depth, width, weight_std, activation:
                decades(depth - 1, width, weight_std, activation) + decades(1, width, weight_std, "linear"),
        "decades counts one layer. They multiply: how many layers does the signal pass?":
            lambda depth, width, weight_std, activation: decades(1, width, weight_std, activation),
        "decades squares neither: the variance of a weight is weight_std².":
            lambda depth, width, weight_std, activation: decades(depth, width, math.sqrt(weight_std), activation),
        "decades lets ReLU take half of the values' size, a quarter of the mean square. Half of the numbers become 0 "
        "and the others stay: what does that leave of the mean square?":
            lambda depth, width, weight_std, activation: decades(depth, width, weight_std, activation, half=0.25),
    },
)  # fmt: skip
def predict_decades(depth, width, weight_std, activation) -> "decades:":
    """By how many powers of ten a network of linear layers changes the mean square of what goes in."""
    kept = {"linear": 1.0, "relu": 1 / init.calculate_gain("relu") ** 2}[activation]
    return depth * torch.log10(torch.tensor(width * weight_std**2 * kept, dtype=torch.float64))


def first_below(smallest, per_layer):
    return float(math.floor(math.log(smallest) / math.log(per_layer)) + 1)


@exercise(
    points=2, minutes=10, difficulty=2,
    draws=NETWORKS | dict(weight_std=lambda rng, sizes: float(rng.uniform(0.001, 0.02))),
    cases=[dict(width=128, weight_std=0.051), dict(width=100, weight_std=0.09), dict(), dict(), dict()],
    hints=(
        "By which factor does one ReLU layer change the root mean square of a gradient? Start from the mean square: "
        "width · weight_std² / 2.",
        "With f the root of that factor, f to the power of L falls below 2**-149. Take logarithms: L · ln f < -149 · "
        "ln 2, and ln f is negative.",
        "Dividing by a negative number turns the sign round: L > 149 · ln 2 / -ln f. The first whole number above is "
        "math.floor(…) + 1.",
    ),
    mistakes={
        "layers comes out too small by half: that is when the mean square falls below 2**-149. The gradient itself is "
        "as large as its root.":
            lambda width, weight_std: first_below(2.0**-149, width * weight_std**2 / 2),
        "layers leaves out ReLU's half: going back, a gradient passes only where the unit was positive.":
            lambda width, weight_std: first_below(2.0**-149, math.sqrt(width * weight_std**2)),
        "layers is one too small: it is rounded down. The last layer whose gradient still lives is not asked, but the "
        "first whose does not.":
            lambda width, weight_std: first_below(2.0**-149, math.sqrt(width * weight_std**2 / 2)) - 1,
        "layers is not a whole number. Up to which one must you go, so that the root mean square is below 2**-149?":
            lambda width, weight_std: math.log(2.0**-149) / math.log(math.sqrt(width * weight_std**2 / 2)),
        "layers is negative: the logarithm of a factor below 1 is. Both sides of the inequality are negative, so that "
        "the signs cancel.":
            lambda width, weight_std: 1 - first_below(2.0**-149, math.sqrt(width * weight_std**2 / 2)),
        "layers lets ReLU halve the root mean square. It halves the mean square: take the root of all of it.":
            lambda width, weight_std: first_below(2.0**-149, math.sqrt(width * weight_std**2) / 2),
        "layers stops at 2**-126, the smallest normal number. Below it float32 still has subnormal numbers, down to "
        "2**-149.":
            lambda width, weight_std: first_below(2.0**-126, math.sqrt(width * weight_std**2 / 2)),
        "layers is that of float64, whose smallest number is 2**-1074. float32 ends at 2**-149.":
            lambda width, weight_std: first_below(2.0**-1074, math.sqrt(width * weight_std**2 / 2)),
        "layers leaves out the width: a gradient is a sum over all outputs of the layer above.":
            lambda width, weight_std: first_below(2.0**-149, math.sqrt(weight_std**2 / 2)),
    },
)  # fmt: skip
def layers_until_zero(width, weight_std) -> "layers:":
    """The first layer, counted from the end, whose gradient is too small for float32, in a network of ReLU layers."""
    smallest = torch.tensor(torch.finfo(torch.float32).smallest_normal, dtype=torch.float64) * 2.0**-23
    per_layer = torch.tensor(width * weight_std**2, dtype=torch.float64).sqrt() / init.calculate_gain("relu")
    return torch.floor(smallest.log() / per_layer.log()) + 1
