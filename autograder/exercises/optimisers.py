"""Lesson 06: from a gradient to the next parameters, and from the step's number to its learning rate."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.adam import adam as torch_adam
from torch.optim.adamw import adamw as torch_adamw
from torch.optim.rmsprop import rmsprop as torch_rmsprop
from torch.optim.sgd import sgd as torch_sgd

from autograder.exercise import Build, exercise

quiet = np.errstate(all="ignore")  # decorates the mistakes that divide by zero, as the learner's own would


# How arguments are drawn. A case of 50 steps gives 50 gradients, the first axis of `grads`.

STEPS = 50


def zeros(*shape):
    return lambda rng, sizes: np.zeros(shape)


def positive(*shape):
    return lambda rng, sizes: rng.uniform(0.1, 2, shape)


def scaled(size, *shape):
    """Gradients of one size, drawn from N(0, size²)."""
    return lambda rng, sizes: size * rng.standard_normal(shape)


def mixed(*shape):
    """From 1e-6 to 100, and one in three is 0: what the rare words of an embedding get."""
    return lambda rng, sizes: (
        rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 2, shape) * (rng.random(shape) > 1 / 3)
    )


def half_zero(*shape):
    """The first entry never gets a gradient, the others always do."""
    return lambda rng, sizes: rng.standard_normal(shape) * (np.arange(shape[-1]) > 0)


def numbers(*values):
    return lambda rng, sizes: values[int(rng.integers(len(values)))]


# What the references share: tensors of arrays, which torch.optim's own functions then change in place.


def tensors(*arrays):
    return [torch.tensor(np.asarray(array, float)) for array in arrays]


# --- One step, and momentum ------------------------------------------------------------------------------------------


@exercise(
    script="sgd", points=1, minutes=4, difficulty=1,
    cases=[
        dict(param=(3, 4), grads=(1, 3, 4), lr=0.1),
        dict(param=(3, 4), grads=(STEPS, 3, 4), lr=0.03),
        dict(param=(1,), grads=(STEPS, 1), lr=2.0),
        dict(param=(2, 3, 2), grads=mixed(STEPS, 2, 3, 2), lr=0.5),
    ],
    hints=(
        "The gradient points to where the loss grows. Which way does the step go?",
        "One multiplication and one subtraction, in an expression: param -= … would change the caller's array.",
        "param minus lr times grad.",
    ),
    mistakes={
        "param goes uphill: the gradient points to where the loss grows, and you added it.":
            lambda param, grad, lr: param + lr * grad,
        "param moved by the whole gradient. The learning rate scales the step: lr · grad.":
            lambda param, grad, lr: param - grad,
        "param is the step alone, lr · grad. Return the place it leads to from the old param.":
            lambda param, grad, lr: -lr * grad,
        "param moved by lr in every entry, whatever the size of the gradient: you took its sign. SGD takes the "
        "gradient itself.":
            lambda param, grad, lr: param - lr * np.sign(grad),
        "param is scaled by 1 - lr · grad: the step was multiplied by param. A step is added, whatever param is.":
            lambda param, grad, lr: param * (1 - lr * grad),
    },
)  # fmt: skip
def sgd_step(param, grad, lr):
    """One step of gradient descent (torch.optim.SGD): the new parameter."""
    p, g = tensors(param, grad)
    plain = dict(weight_decay=0, momentum=0, dampening=0, nesterov=False, maximize=False, foreach=False)
    torch_sgd([p], [g], [None], lr=lr, **plain)
    return p.numpy()


def dampened(param, grad, velocity, lr, momentum=0.9):
    velocity = momentum * velocity + (1 - momentum) * grad
    return param - lr * velocity, velocity


def textbook(param, grad, velocity, lr, momentum=0.9):
    velocity = momentum * velocity - lr * grad
    return param + velocity, velocity


def textbook_downhill(param, grad, velocity, lr, momentum=0.9):
    velocity = momentum * velocity + lr * grad
    return param - velocity, velocity


def moves_by(step, velocity=lambda velocity, grad, momentum: momentum * velocity + grad):
    """A momentum step that subtracts lr · step(old velocity, new velocity, grad, momentum)."""

    def momentum_step(param, grad, old, lr, momentum=0.9):
        new = velocity(old, grad, momentum)
        return param - lr * step(old, new, grad, momentum), new

    return momentum_step


@exercise(
    script="momentum", points=2, minutes=10, difficulty=1,
    cases=[
        dict(param=(3, 4), grads=(1, 3, 4), velocity=zeros(3, 4), lr=0.1),
        dict(param=(3, 4), grads=(1, 3, 4), velocity=(3, 4), lr=0.1),
        dict(param=(3, 4), grads=(STEPS, 3, 4), velocity=zeros(3, 4), lr=0.03),
        dict(param=(1,), grads=(STEPS, 1), velocity=(1,), lr=0.3, momentum=0.5),
        dict(param=(2, 3, 2), grads=(STEPS, 2, 3, 2), velocity=(2, 3, 2), lr=0.2, momentum=0.99),
        dict(param=(5,), grads=half_zero(STEPS, 5), velocity=zeros(5), lr=0.4, momentum=0.25),
    ],
    hints=(
        "Two lines: first the new velocity from the old one and the gradient, then the new parameter from the new "
        "velocity.",
        "In PyTorch's convention the learning rate is not part of the velocity: it stands in the second line only, "
        "and the gradient enters the first line unscaled.",
        "velocity = momentum · velocity + grad, then param - lr · velocity. Return both, as new arrays.",
    ),
    mistakes={
        "velocity holds the learning rate, and points downhill: that is the textbook form, v = μ v - lr · g. PyTorch "
        "keeps v = μ v + g, and lr stands in the step only. The two part ways as soon as lr changes.":
            textbook,
        "velocity holds the learning rate: v = μ v + lr · g. PyTorch keeps v = μ v + g and multiplies by lr in the "
        "step only.":
            textbook_downhill,
        "velocity is an average: its gradient got the factor 1 - momentum, as in Adam. Here the gradient enters in "
        "full, and the velocity sums up to 1 / (1 - momentum) times as much.":
            dampened,
        "param took the step with the old velocity. Renew the velocity first, then step with the new one.":
            moves_by(lambda old, new, grad, momentum: old),
        "param took Nesterov's step, which looks ahead by grad + μ v. Plain momentum steps with v itself.":
            moves_by(lambda old, new, grad, momentum: grad + momentum * new),
        "param took the plain step, lr · grad: the velocity is kept but not used.":
            moves_by(lambda old, new, grad, momentum: grad),
        "velocity came back as it went in. It is the state: the new one has to be returned.":
            lambda param, grad, velocity, lr, momentum=0.9: (param - lr * (momentum * velocity + grad), velocity),
        "velocity counts the gradient and momentum the wrong way round: momentum belongs to the old velocity, the "
        "gradient enters in full.":
            moves_by(lambda old, new, grad, momentum: new, lambda velocity, grad, momentum: velocity + momentum * grad),
        "param and velocity came back in the other order: param first, then the state.":
            lambda param, grad, velocity, lr, momentum=0.9: moves_by(lambda old, new, *_: new)(
                param, grad, velocity, lr, momentum
            )[::-1],
        "velocity decays by 0.9 whatever momentum says. Use the argument.":
            lambda param, grad, velocity, lr, momentum=0.9: moves_by(lambda old, new, *_: new)(
                param, grad, velocity, lr
            ),
    },
)  # fmt: skip
def momentum_step(param, grad, velocity, lr, momentum=0.9):
    """One step of torch.optim.SGD with momentum (Polyak, 1964): the new parameter and velocity."""
    p, g, v = tensors(param, grad, velocity)
    plain = dict(weight_decay=0, dampening=0, nesterov=False, maximize=False, foreach=False)
    torch_sgd([p], [g], [v], lr=lr, momentum=momentum, **plain)
    return p.numpy(), v.numpy()


# --- One step size for each number -----------------------------------------------------------------------------------


def then(result, change):
    """The same step, its first value changed afterwards."""
    first, *others = result
    return change(first), *others


def rmsprop(step, sq=lambda sq, grad, alpha: alpha * sq + (1 - alpha) * grad**2):
    """An RMSprop step that subtracts lr · step(grad, old sq, new sq, eps)."""

    def rmsprop_step(param, grad, old, lr, alpha=0.99, eps=1e-8):
        new = sq(old, grad, alpha)
        return param - lr * step(grad, old, new, eps), new

    return rmsprop_step


def usual(grad, old, new, eps):
    return grad / (np.sqrt(new) + eps)


@exercise(
    script="rmsprop", points=2, minutes=12, difficulty=2,
    cases=[
        dict(param=(3, 4), grads=(1, 3, 4), sq=zeros(3, 4), lr=0.01),
        dict(param=(3, 4), grads=(1, 3, 4), sq=positive(3, 4), lr=0.1),
        dict(param=(3, 4), grads=(STEPS, 3, 4), sq=zeros(3, 4), lr=0.01),
        dict(param=(1,), grads=(STEPS, 1), sq=positive(1), lr=0.1, alpha=0.9),
        dict(param=(6,), grads=scaled(1e-10, STEPS, 6), sq=zeros(6), lr=0.1),
        dict(param=(2, 6), grads=mixed(STEPS, 2, 6), sq=zeros(2, 6), lr=0.05, alpha=0.5, eps=1e-3),
        dict(param=(5,), grads=half_zero(STEPS, 5), sq=zeros(5), lr=0.1),
    ],
    hints=(
        "sq is a running mean of the squared gradient, entry by entry: a share alpha of the old one, the rest of the "
        "new square.",
        "The step divides the gradient by the root of the new sq. eps keeps the division from failing where sq is 0; "
        "PyTorch adds it after the root.",
        "sq = alpha · sq + (1 - alpha) · grad², then param - lr · grad / (√sq + eps).",
    ),
    mistakes={
        "param has eps inside the root: √(sq + eps). With eps = 1e-8 that is a floor of 1e-4 under the root, which "
        "small gradients feel. PyTorch adds eps after the root.":
            rmsprop(lambda grad, old, new, eps: grad / np.sqrt(new + eps)),
        "sq sums the squares, or nearly so: the new square must get the weight 1 - alpha, so that sq is a mean.":
            rmsprop(usual, lambda sq, grad, alpha: alpha * sq + grad**2),
        "sq never forgets: the old value keeps its full weight. That is Adagrad, whose steps shrink for ever.":
            rmsprop(usual, lambda sq, grad, alpha: sq + grad**2),
        "sq has its two weights swapped: alpha belongs to the old value, 1 - alpha to the new square.":
            rmsprop(usual, lambda sq, grad, alpha: (1 - alpha) * sq + alpha * grad**2),
        "sq averages the gradients, not their squares: it may become negative, and its root is nan.":
            quiet(rmsprop(usual, lambda sq, grad, alpha: alpha * sq + (1 - alpha) * grad)),
        "sq averages the sizes |grad|. Square first, average then, and take the root last: that is what root mean "
        "square says.":
            rmsprop(usual, lambda sq, grad, alpha: alpha * sq + (1 - alpha) * np.abs(grad)),
        "param is divided by sq itself. Without the root the step has the wrong unit: 1 / gradient.":
            rmsprop(lambda grad, old, new, eps: grad / (new + eps)),
        "param is divided by the old sq, which may still be 0. Renew it first, then step.":
            rmsprop(lambda grad, old, new, eps: grad / (np.sqrt(old) + eps)),
        "param is divided by one number for the whole array, the root of the mean of sq. Every entry has a root of "
        "its own.":
            rmsprop(lambda grad, old, new, eps: grad / (np.sqrt(new.mean()) + eps)),
        "sq came back as it went in. It is the state: the new one has to be returned.":
            lambda param, grad, sq, lr, alpha=0.99, eps=1e-8: (rmsprop(usual)(param, grad, sq, lr, alpha, eps)[0], sq),
        "param and sq came back in the other order: param first, then the state.":
            quiet(lambda param, grad, sq, lr, alpha=0.99, eps=1e-8: rmsprop(usual)(
                param, grad, sq, lr, alpha, eps
            )[::-1]),
        "sq came back as its root. Return the running mean itself: the next step takes the root anew.":
            lambda param, grad, sq, lr, alpha=0.99, eps=1e-8: then(
                rmsprop(usual)(param, grad, sq, lr, alpha, eps)[::-1], np.sqrt
            )[::-1],
        "sq keeps 0.99 of its old value whatever alpha says. Use the argument.":
            lambda param, grad, sq, lr, alpha=0.99, eps=1e-8: rmsprop(usual)(param, grad, sq, lr, eps=eps),
        "sq is right when alpha is given, not when it is left out: the default is 0.99.":
            lambda param, grad, sq, lr, alpha=0.9, eps=1e-8: rmsprop(usual)(param, grad, sq, lr, alpha, eps),
        "param holds nan: 0 / 0, where an entry never got a gradient. That is what eps is for.":
            quiet(rmsprop(lambda grad, old, new, eps: grad / np.sqrt(new))),
    },
)  # fmt: skip
def rmsprop_step(param, grad, sq, lr, alpha=0.99, eps=1e-8):
    """One step of torch.optim.RMSprop (Tieleman and Hinton, 2012): the new parameter and mean square."""
    p, g, s, steps = tensors(param, grad, sq, 0)
    plain = dict(weight_decay=0, momentum=0, centered=False, foreach=False)
    torch_rmsprop([p], [g], [s], [], [], [steps], lr=lr, alpha=alpha, eps=eps, **plain)
    return p.numpy(), s.numpy()


def running(m, v, grad, betas):
    return betas[0] * m + (1 - betas[0]) * grad, betas[1] * v + (1 - betas[1]) * grad**2


def unbiased(m, v, t, betas):
    return m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)


def adam(step, moments=running):
    """An Adam step that subtracts lr · step(new m, new v, grad, t, betas, eps)."""

    def adam_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
        m, v = moments(m, v, grad, betas)
        return param - lr * step(m, v, grad, t, betas, eps), m, v

    return adam_step


def adams(m, v, grad, t, betas, eps):
    m, v = unbiased(m, v, t, betas)
    return m / (np.sqrt(v) + eps)


def with_hats(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    param, m, v = adam(adams)(param, grad, m, v, t, lr, betas, eps)
    return param, *unbiased(m, v, t, betas)


ADAM = [
    dict(param=(3, 4), grads=(1, 3, 4), m=zeros(3, 4), v=zeros(3, 4), t=1, lr=0.1),
    dict(param=(3, 4), grads=(1, 3, 4), m=(3, 4), v=positive(3, 4), t=7, lr=0.1),
    dict(param=(3, 4), grads=(STEPS, 3, 4), m=zeros(3, 4), v=zeros(3, 4), t=1, lr=0.03),
    dict(param=(1,), grads=(STEPS, 1), m=(1,), v=positive(1), t=3, lr=0.1, betas=(0.5, 0.9)),
    dict(param=(6,), grads=scaled(1e-10, STEPS, 6), m=zeros(6), v=zeros(6), t=1, lr=0.1),
    dict(
        param=(2, 6), grads=mixed(STEPS, 2, 6), m=zeros(2, 6), v=zeros(2, 6), t=1, lr=0.05,
        betas=(0.8, 0.95), eps=1e-3,
    ),
    dict(param=(5,), grads=half_zero(STEPS, 5), m=zeros(5), v=zeros(5), t=1, lr=0.1),
]  # fmt: skip


@exercise(
    script="adam", points=4, minutes=25, difficulty=3, cases=ADAM,
    hints=(
        "Four lines: renew m, renew v, correct both, step. Only the corrected ones are used in the step, only the "
        "uncorrected ones are returned.",
        "m = β1 · m + (1 - β1) · grad and v = β2 · v + (1 - β2) · grad². At step t their weights add up to 1 - β1^t "
        "and 1 - β2^t: divide by that.",
        "With m_hat = m / (1 - β1^t) and v_hat = v / (1 - β2^t): param - lr · m_hat / (√v_hat + eps). t is 1 at the "
        "first step.",
    ),
    mistakes={
        "param lacks the bias correction. m and v start at 0 and are too small at first, v more so, which makes the "
        "first steps too long; divide each by 1 - β^t.":
            adam(lambda m, v, grad, t, betas, eps: m / (np.sqrt(v) + eps)),
        "param uses m as it is: it needs its bias correction too, 1 / (1 - β1^t).":
            adam(lambda m, v, grad, t, betas, eps: m / (np.sqrt(unbiased(m, v, t, betas)[1]) + eps)),
        "param uses v as it is: it needs its bias correction too, 1 / (1 - β2^t).":
            adam(lambda m, v, grad, t, betas, eps: unbiased(m, v, t, betas)[0] / (np.sqrt(v) + eps)),
        "m and v came back with their bias correction, which the next step would apply again. Correct copies for the "
        "step, return the plain running means.":
            with_hats,
        "param corrects as if t were one larger: t counts from 1 already.":
            adam(lambda m, v, grad, t, betas, eps: adams(m, v, grad, t + 1, betas, eps)),
        "param holds nan or inf: with t - 1 the correction divides by 1 - β^0 = 0 in the first step. t counts from 1 "
        "already.":
            quiet(adam(lambda m, v, grad, t, betas, eps: adams(m, v, grad, t - 1, betas, eps))),
        "param corrects with 1 - β · t where 1 - β to the power t is meant: β ** t. From the second step on the root "
        "is that of a negative number.":
            quiet(adam(lambda m, v, grad, t, betas, eps: m / (1 - betas[0] * t)
                       / (np.sqrt(v / (1 - betas[1] * t)) + eps))),
        "param has eps inside the root: √(v_hat + eps). With eps = 1e-8 that is a floor of 1e-4, which small gradients "
        "feel. PyTorch adds eps after the root.":
            adam(lambda m, v, grad, t, betas, eps: unbiased(m, v, t, betas)[0]
                 / np.sqrt(unbiased(m, v, t, betas)[1] + eps)),
        "param adds eps to √v before the correction: the shortcut of the Adam paper, where the correction moves into "
        "lr and eps is another one. In PyTorch v is corrected first, and eps added to the root of that.":
            adam(lambda m, v, grad, t, betas, eps: unbiased(m, v, t, betas)[0]
                 * np.sqrt(1 - betas[1] ** t) / (np.sqrt(v) + eps)),
        "param divides by v_hat itself. Take its root, so that the step no longer depends on the gradient's size.":
            adam(lambda m, v, grad, t, betas, eps: unbiased(m, v, t, betas)[0]
                 / (unbiased(m, v, t, betas)[1] + eps)),
        "param holds nan: 0 / 0, where an entry never got a gradient. That is what eps is for.":
            quiet(adam(lambda m, v, grad, t, betas, eps: adams(m, v, grad, t, betas, 0.0))),
        "param is right with the usual eps, 1e-8, and uses it whatever eps says. Use the argument.":
            adam(lambda m, v, grad, t, betas, eps: adams(m, v, grad, t, betas, 1e-8)),
        "m and v forget at the rates 0.9 and 0.999 whatever betas says. Use the argument.":
            lambda param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8: adam(adams)(
                param, grad, m, v, t, lr, eps=eps
            ),
        "param steps with the gradient of this step in place of its running mean m_hat.":
            adam(lambda m, v, grad, t, betas, eps: grad / (np.sqrt(unbiased(m, v, t, betas)[1]) + eps)),
        "m and v have their betas swapped: betas[0] belongs to m, betas[1] to v.":
            lambda param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8: adam(adams)(
                param, grad, m, v, t, lr, betas[::-1], eps
            ),
        "m is right, v is not: it averages the gradient, not its square, and its root may be nan.":
            quiet(adam(adams, lambda m, v, grad, betas: (
                running(m, v, grad, betas)[0], betas[1] * v + (1 - betas[1]) * grad))),
        "v squares the running mean m. It is the mean of the squares: square the gradient, then average.":
            adam(adams, lambda m, v, grad, betas: (
                running(m, v, grad, betas)[0],
                betas[1] * v + (1 - betas[1]) * running(m, v, grad, betas)[0] ** 2)),
        "m counts the gradient in full, as momentum does. In Adam both m and v are means: their gradient gets the "
        "weight 1 - β.":
            adam(adams, lambda m, v, grad, betas: (betas[0] * m + grad, running(m, v, grad, betas)[1])),
        "v is right when betas is given, not when it is left out: the default is (0.9, 0.999).":
            lambda param, grad, m, v, t, lr, betas=(0.9, 0.99), eps=1e-8: adam(adams)(
                param, grad, m, v, t, lr, betas, eps
            ),
    },
)  # fmt: skip
def adam_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    """Step number t (from 1) of torch.optim.Adam (Kingma and Ba, 2015): the new parameter and running means."""
    p, g, m, v, before = tensors(param, grad, m, v, t - 1)  # torch counts the steps that are done
    plain = dict(weight_decay=0, amsgrad=False, maximize=False, foreach=False)
    torch_adam([p], [g], [m], [v], [], [before], beta1=betas[0], beta2=betas[1], lr=lr, eps=eps, **plain)
    return p.numpy(), m.numpy(), v.numpy()


def decaying(step, weight_decay=0.01):
    """An AdamW step made of Adam's: step(param, weight_decay, lr, adam), where adam(param, more) adds more to grad."""
    default = weight_decay

    def adamw_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=default):
        def plain(param, more=0.0):
            return adam(adams)(param, grad + more, m, v, t, lr, betas, eps)

        return step(param, weight_decay, lr, plain)

    return adamw_step


@exercise(
    script="adam", points=2, minutes=12, difficulty=2,
    cases=[
        *(case for case in ADAM if not {"betas", "eps"} & case.keys()),
        dict(param=(4, 4), grads=(STEPS, 4, 4), m=zeros(4, 4), v=zeros(4, 4), t=1, lr=0.1,
             weight_decay=0.3),
        dict(param=(1,), grads=(STEPS, 1), m=(1,), v=positive(1), t=3, lr=0.1,
             betas=(0.5, 0.9), weight_decay=0.5),
        dict(param=(2, 6), grads=mixed(STEPS, 2, 6), m=zeros(2, 6), v=zeros(2, 6), t=1, lr=0.05,
             betas=(0.8, 0.95), eps=1e-3, weight_decay=1.0),
        dict(param=(3,), grads=zeros(STEPS, 3), m=zeros(3), v=zeros(3), t=1, lr=0.5, weight_decay=0.1),
        dict(param=(3,), grads=(STEPS, 3), m=zeros(3), v=zeros(3), t=1, lr=0.1, weight_decay=0.0),
    ],
    hints=(
        "The gradient, m and v know nothing of the decay: they are those of Adam, to the last digit.",
        "Decoupled means: the parameter itself shrinks by the factor 1 - lr · weight_decay, and then Adam's step is "
        "taken from there.",
        "Adam's step is computed from grad, m and v as before; the new param is (1 - lr · weight_decay) · param minus "
        "that step.",
    ),
    mistakes={
        "m and v hold the decay: it was added to the gradient. That is Adam with an L2 penalty, where √v divides the "
        "decay away; AdamW shrinks param itself and leaves the gradient alone.":
            decaying(lambda param, weight_decay, lr, adam: adam(param, weight_decay * param)),
        "param does not decay at all: this is Adam. Shrink param by lr · weight_decay of itself.":
            decaying(lambda param, weight_decay, lr, adam: adam(param)),
        "param shrinks by weight_decay, not by lr · weight_decay: in PyTorch the decay follows the learning rate.":
            decaying(lambda param, weight_decay, lr, adam: adam(param * (1 - weight_decay))),
        "param decays after the step, the step with it. In PyTorch the old param decays, then the step is taken.":
            decaying(lambda param, weight_decay, lr, adam: then(adam(param), lambda p: p * (1 - lr * weight_decay))),
        "param grows: the decay has the wrong sign.":
            decaying(lambda param, weight_decay, lr, adam: adam(param * (1 + lr * weight_decay))),
        "param decays twice as much as it should: the factor is 1 - lr · weight_decay, with no 2 from the derivative "
        "of a square.":
            decaying(lambda param, weight_decay, lr, adam: adam(param * (1 - 2 * lr * weight_decay))),
        "param shrinks by the same amount everywhere: lr · weight_decay times the sign of param. That is the decay of "
        "an L1 penalty; here each entry shrinks in proportion to itself.":
            decaying(lambda param, weight_decay, lr, adam: adam(param - lr * weight_decay * np.sign(param))),
        "m and v are those of betas = (0.9, 0.999), and eps that of the default, whatever is given: hand both on to "
        "Adam's step.":
            lambda param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01: adam(adams)(
                (1 - lr * weight_decay) * param, grad, m, v, t, lr
            ),
        "param is right with the usual eps, 1e-8, and uses it whatever eps says: hand it on to Adam's step.":
            lambda param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01: adam(adams)(
                (1 - lr * weight_decay) * param, grad, m, v, t, lr, betas
            ),
        "param is right when weight_decay is given, not when it is left out: the default is 0.01.":
            decaying(lambda param, weight_decay, lr, adam: adam(param * (1 - lr * weight_decay)), 0.0),
    },
)  # fmt: skip
def adamw_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    """Step number t of torch.optim.AdamW (Loshchilov and Hutter, 2019): the new parameter and running means."""
    p, g, m, v, before = tensors(param, grad, m, v, t - 1)
    plain = dict(amsgrad=False, maximize=False, foreach=False)
    betas = dict(beta1=betas[0], beta2=betas[1])
    torch_adamw([p], [g], [m], [v], [], [before], lr=lr, eps=eps, weight_decay=weight_decay, **betas, **plain)
    return p.numpy(), m.numpy(), v.numpy()


# --- Schedules -------------------------------------------------------------------------------------------------------
# The formulas are those of the schedulers themselves; each needs only these few of their attributes.


def scheduled(scheduler, step, lr, **attributes):
    known = SimpleNamespace(base_lrs=[lr], last_epoch=step, **attributes)
    return torch.tensor(scheduler._get_closed_form_lr(known)[0], dtype=torch.float64)


def rate(low=0.01, high=1.0):
    return lambda rng, sizes: float(rng.uniform(low, high))


def whole(low, high):
    return lambda rng, sizes: int(rng.integers(low, high + 1))


@exercise(
    points=1, minutes=6, difficulty=1, draws=dict(lr=rate()),
    cases=[
        dict(step=0, step_size=10),
        dict(step=9, step_size=10),
        dict(step=10, step_size=10),
        dict(step=whole(31, 39), step_size=10, gamma=0.5),
        dict(step=4, step_size=1, gamma=0.9),
        dict(step=whole(1, 60), step_size=7, gamma=0.8),
        dict(step=25, step_size=10),
    ],
    hints=(
        "How often has the rate fallen by step 25, if it falls at 10, 20, 30, …?",
        "Whole-number division counts it: step // step_size. Each fall multiplies by gamma.",
        "lr · gamma to the power of step // step_size.",
    ),
    mistakes={
        "lr falls at every step: the power must count how many step sizes are over, a whole number.":
            lambda step, lr, step_size, gamma=0.1: lr * gamma**step,
        "lr falls smoothly: the division keeps its fraction. StepLR is a staircase; use //.":
            lambda step, lr, step_size, gamma=0.1: lr * gamma ** (step / step_size),
        "lr falls one step late: at step = step_size it has to be lower already.":
            lambda step, lr, step_size, gamma=0.1: lr * gamma ** ((step - 1) // step_size),
        "lr falls one step early: steps count from 0, and step_size of them come at the full rate.":
            lambda step, lr, step_size, gamma=0.1: lr * gamma ** ((step + 1) // step_size),
        "lr falls once and never again. It falls at every multiple of step_size.":
            lambda step, lr, step_size, gamma=0.1: lr * gamma if step >= step_size else lr,
        "lr falls halfway through each stair: the quotient was rounded to the nearest whole number. Round it down.":
            lambda step, lr, step_size, gamma=0.1: lr * gamma ** int(step / step_size + 0.5),
        "lr is multiplied by gamma once, and by how often it fell. Each fall multiplies by gamma anew: a power.":
            lambda step, lr, step_size, gamma=0.1: lr * gamma * (step // step_size),
        "lr falls to a tenth whatever gamma says. Use the argument.":
            lambda step, lr, step_size, gamma=0.1: lr * 0.1 ** (step // step_size),
        "lr is right when gamma is given, not when it is left out: the default is 0.1.":
            lambda step, lr, step_size, gamma=0.5: lr * gamma ** (step // step_size),
    },
)  # fmt: skip
def step_lr(step, lr, step_size, gamma=0.1) -> "lr:":
    """The learning rate of step 0, 1, …: a staircase that falls by gamma every step_size steps."""
    return scheduled(lr_scheduler.StepLR, step, lr, step_size=step_size, gamma=gamma)


def half_wave(step, lr, total_steps, min_lr=0.0):
    return min_lr + (lr - min_lr) * (1 + np.cos(np.pi * step / total_steps)) / 2


def ending(curve):
    """A schedule that stays where it is after the last step."""
    return lambda step, lr, total_steps, min_lr=0.0: curve(min(step, total_steps), lr, total_steps, min_lr)


@exercise(
    points=2, minutes=10, difficulty=2, draws=dict(lr=rate(0.5, 2.0), min_lr=rate(0.01, 0.2)),
    cases=[
        dict(step=0, total_steps=100),
        dict(step=50, total_steps=100),
        dict(step=whole(5, 45), total_steps=100),
        dict(step=whole(55, 95), total_steps=100),
        dict(step=100, total_steps=100),
        dict(step=whole(110, 190), total_steps=100),
        dict(step=whole(1, 6), total_steps=7, min_lr=0.0),
        dict(step=1, total_steps=1),
        dict(step=30, total_steps=7, min_lr=0.0),
    ],
    hints=(
        "cos runs from 1 to -1 as its angle goes from 0 to π. What must you do to it so that it runs from 1 to 0?",
        "(1 + cos(π · step / total_steps)) / 2 is the share of the way that is still to go, from lr down to min_lr.",
        "min_lr + (lr - min_lr) · share. After the last step the share stays 0: replace step by min(step, "
        "total_steps).",
    ),
    mistakes={
        "lr climbs again after total_steps, since the cosine does. PyTorch's CosineAnnealingLR does the same; here the "
        "rate stays at min_lr.":
            half_wave,
        "lr ignores min_lr: it ends at 0.":
            lambda step, lr, total_steps, min_lr=0.0: ending(half_wave)(step, lr, total_steps),
        "lr has min_lr added on top, so that it starts above lr. Only the part above min_lr falls: lr - min_lr.":
            ending(lambda step, lr, total_steps, min_lr: min_lr + half_wave(step, lr, total_steps)),
        "lr is cut off at min_lr instead of running towards it: a flat end. Scale the wave to the part above min_lr.":
            ending(lambda step, lr, total_steps, min_lr: max(half_wave(step, lr, total_steps), min_lr)),
        "lr swings through to the negative side: cos itself goes from 1 to -1. Add 1 and halve.":
            ending(lambda step, lr, total_steps, min_lr: min_lr + (lr - min_lr) * np.cos(np.pi * step / total_steps)),
        "lr follows a quarter of a wave, π / 2: it ends steep. Half a wave ends flat; the angle runs to π.":
            ending(lambda step, lr, total_steps, min_lr:
                   min_lr + (lr - min_lr) * np.cos(np.pi / 2 * step / total_steps)),
        "lr comes back up in the second half: the angle runs through a whole turn, 2π. Half a wave ends at π.":
            ending(lambda step, lr, total_steps, min_lr:
                   min_lr + (lr - min_lr) * (1 + np.cos(2 * np.pi * step / total_steps)) / 2),
        "lr starts too high: 1 + cos goes from 2 to 0. Halve it.":
            ending(lambda step, lr, total_steps, min_lr:
                   min_lr + (lr - min_lr) * (1 + np.cos(np.pi * step / total_steps))),
        "lr takes the angle in degrees, 180. np.cos wants it in radians: π.":
            ending(lambda step, lr, total_steps, min_lr:
                   min_lr + (lr - min_lr) * (1 + np.cos(180 * step / total_steps)) / 2),
        "lr falls along a straight line. It should fall slowly at first and at last, as the cosine does.":
            ending(lambda step, lr, total_steps, min_lr: min_lr + (lr - min_lr) * (1 - step / total_steps)),
        "lr rises from min_lr to lr: the wave is upside down. Which sign has the cosine?":
            ending(lambda step, lr, total_steps, min_lr:
                   min_lr + (lr - min_lr) * (1 - np.cos(np.pi * step / total_steps)) / 2),
        "lr reaches its end one step early: the angle is step / (total_steps - 1). PyTorch divides by total_steps.":
            lambda step, lr, total_steps, min_lr=0.0: half_wave(
                min(step, max(total_steps - 1, 1)), lr, max(total_steps - 1, 1), min_lr
            ),
        "lr is 0 after total_steps. It stays at min_lr.":
            lambda step, lr, total_steps, min_lr=0.0: (
                half_wave(step, lr, total_steps, min_lr) if step <= total_steps else 0.0
            ),
    },
)  # fmt: skip
def cosine_lr(step, lr, total_steps, min_lr=0.0) -> "lr:":
    """The learning rate of step 0, 1, …: half a cosine wave from lr to min_lr, then flat (after CosineAnnealingLR)."""
    return scheduled(lr_scheduler.CosineAnnealingLR, min(step, total_steps), lr, T_max=total_steps, eta_min=min_lr)


to_the_end = ending(half_wave)


def warmed(rising, falling=to_the_end):
    """Warm-up by rising(step, warmup_steps), a share of lr; then falling, in its own time."""

    def warmup_cosine_lr(step, lr, total_steps, warmup_steps, min_lr=0.0):
        if step < warmup_steps:
            return lr * rising(step, warmup_steps)
        return falling(step - warmup_steps, lr, total_steps - warmup_steps, min_lr)

    return warmup_cosine_lr


def upwards(step, warmup_steps):
    return (step + 1) / (warmup_steps + 1)


def out_of_step(start, length):
    """The cosine after a right warm-up, begun or timed wrongly: it counts from `start` and takes `length`."""

    def warmup_cosine_lr(step, lr, total_steps, warmup_steps, min_lr=0.0):
        if step < warmup_steps:
            return lr * upwards(step, warmup_steps)
        return to_the_end(start(step, warmup_steps), lr, length(total_steps, warmup_steps), min_lr)

    return warmup_cosine_lr


@exercise(
    points=2, minutes=12, difficulty=2, draws=dict(lr=rate(0.5, 2.0), min_lr=rate(0.01, 0.2)),
    cases=[
        dict(step=0, total_steps=100, warmup_steps=10),
        dict(step=9, total_steps=100, warmup_steps=10),
        dict(step=10, total_steps=100, warmup_steps=10),
        dict(step=whole(1, 8), total_steps=100, warmup_steps=10),
        dict(step=whole(15, 95), total_steps=100, warmup_steps=10),
        dict(step=100, total_steps=100, warmup_steps=10),
        dict(step=whole(101, 180), total_steps=100, warmup_steps=10),
        dict(step=0, total_steps=20, warmup_steps=0),
        dict(step=0, total_steps=20, warmup_steps=1),
        dict(step=1, total_steps=20, warmup_steps=1),
        dict(step=whole(26, 44), total_steps=50, warmup_steps=25, min_lr=0.0),
    ],
    hints=(
        "Two schedules, one after the other: below warmup_steps a straight line, from there on your cosine_lr. Which "
        "step number does the cosine start from?",
        "The line rises in equal steps: lr / (warmup_steps + 1) at step 0, lr itself only when the cosine takes over.",
        "The cosine gets step - warmup_steps as its step and total_steps - warmup_steps as its length.",
    ),
    mistakes={
        "lr is 0 at step 0, so that the first batch is thrown away. The line starts at lr / (warmup_steps + 1): count "
        "the steps from 1 on both sides.":
            warmed(lambda step, warmup: step / warmup),
        "lr is reached one step before the warm-up ends: (step + 1) / warmup_steps. Divide by warmup_steps + 1, so "
        "that the full rate comes first at step = warmup_steps.":
            warmed(lambda step, warmup: (step + 1) / warmup),
        "lr jumps down where the cosine takes over: it has been running since step 0. It starts when the warm-up ends: "
        "step - warmup_steps.":
            out_of_step(lambda step, warmup: step, lambda total, warmup: total),
        "lr does not reach min_lr by total_steps: the cosine is as long as all steps together. The warm-up takes its "
        "share: total_steps - warmup_steps.":
            out_of_step(lambda step, warmup: step - warmup, lambda total, warmup: total),
        "lr has no warm-up: it is the cosine alone.":
            lambda step, lr, total_steps, warmup_steps, min_lr=0.0: to_the_end(step, lr, total_steps, min_lr),
        "lr climbs again after total_steps, since the cosine does. It stays at min_lr.":
            warmed(upwards, half_wave),
        "lr stays at its peak after the warm-up: the cosine is missing.":
            warmed(upwards, lambda step, lr, total_steps, min_lr: lr),
        "lr rises from min_lr in the warm-up. The line starts at lr / (warmup_steps + 1), whatever min_lr is.":
            lambda step, lr, total_steps, warmup_steps, min_lr=0.0: (
                min_lr + (lr - min_lr) * upwards(step, warmup_steps) if step < warmup_steps
                else to_the_end(step - warmup_steps, lr, total_steps - warmup_steps, min_lr)
            ),
        "lr ends at 0: min_lr did not arrive in the cosine.":
            warmed(upwards, lambda step, lr, total_steps, min_lr: to_the_end(step, lr, total_steps)),
    },
)  # fmt: skip
def warmup_cosine_lr(step, lr, total_steps, warmup_steps, min_lr=0.0) -> "lr:":
    """A straight line up to lr (LinearLR), then half a cosine wave down to min_lr, then flat."""
    if step < warmup_steps:
        line = dict(start_factor=1 / (warmup_steps + 1), end_factor=1, total_iters=warmup_steps)
        return scheduled(lr_scheduler.LinearLR, step, lr, **line)
    return cosine_lr(step - warmup_steps, lr, total_steps - warmup_steps, min_lr)


# --- In PyTorch ------------------------------------------------------------------------------------------------------


def layers_of(model):
    """The layers that have parameters of their own, from the first to the last."""
    return [layer for layer in model.modules() if list(layer.parameters(recurse=False))]


def groups_of(layers, rate):
    """One group per layer; rate(depth) where depth is 0 for the last."""
    return [{"params": list(layer.parameters()), "lr": rate(len(layers) - 1 - k)} for k, layer in enumerate(layers)]


def perceptron(*widths):
    """Linear layers with ReLUs between them."""
    return [piece for i, o in pairwise(widths) for piece in (["Linear", i, o], ["ReLU"])][:-1]


@exercise(
    script="rates", points=3, minutes=15, difficulty=2, draws=dict(lr=rate()),
    cases=[
        dict(model=Build("sequential", layers=perceptron(3, 4, 5, 2)), factor=0.5),
        dict(model=Build("sequential", layers=perceptron(2, 2)), factor=0.5),
        dict(model=Build("sequential", layers=perceptron(3, 3, 3, 3, 3)), factor=0.8),
        dict(
            model=Build("sequential", layers=[
                ["Linear", 4, 3, {"bias": False}], ["Tanh"], ["Linear", 3, 3], ["ReLU"], ["Linear", 3, 2]
            ]),
            factor=0.1,
        ),
        dict(model=Build("sequential", layers=perceptron(3, 4, 2)), factor=1.5),
        dict(
            model=Build("sequential", layers=[
                ["Linear", 3, 4], ["PReLU"], ["Linear", 4, 3], ["ReLU"], ["Linear", 3, 2]
            ]),
            factor=0.5,
        ),
    ],
    hints=(
        "A parameter group is a dictionary: \"params\" holds a list of parameters, \"lr\" their learning rate. The "
        "function returns a list of those; no optimiser is made in it.",
        "Which layers have parameters? list(layer.parameters()) is empty for a ReLU. Collect the others first, then "
        "count from the end.",
        "With n such layers, layer k from the front gets lr · factor to the power of n - 1 - k.",
    ),
    mistakes={
        "the rates are upside down: the first layer got lr. The last layer, nearest to the task, gets lr; every layer "
        "before it a factor more.":
            lambda model, lr, factor: groups_of(
                layers_of(model), lambda depth: lr * factor ** (len(layers_of(model)) - 1 - depth)
            ),
        "the rates count layers without parameters too: a ReLU between two linear layers costs a factor of its own. "
        "Collect the layers that have parameters first.":
            lambda model, lr, factor: [
                {"params": list(layer.parameters()), "lr": lr * factor ** (len(model) - 1 - k)}
                for k, layer in enumerate(model)
            ],
        "ReLUs are skipped by name, but a Tanh has no parameters either. Ask each layer: is list(layer.parameters()) "
        "empty?":
            lambda model, lr, factor: groups_of(
                [layer for layer in model if not isinstance(layer, nn.ReLU)], lambda depth: lr * factor**depth
            ),
        "the linear layers are picked by name, but others have parameters too: a PReLU (lesson 02). Ask each layer: is "
        "list(layer.parameters()) empty?":
            lambda model, lr, factor: groups_of(
                [layer for layer in model if isinstance(layer, nn.Linear)], lambda depth: lr * factor**depth
            ),
        "the rates fall from parameter to parameter: weight and bias of one layer belong together.":
            lambda model, lr, factor: [
                {"params": [p], "lr": lr * factor ** (len(list(model.parameters())) - 1 - k)}
                for k, p in enumerate(model.parameters())
            ],
        "the last layer is multiplied by the factor already. It keeps lr; the power starts at 0.":
            lambda model, lr, factor: groups_of(layers_of(model), lambda depth: lr * factor ** (depth + 1)),
        "all layers before the last have the same rate. Each layer further from the end gets one factor more.":
            lambda model, lr, factor: groups_of(layers_of(model), lambda depth: lr * factor ** min(depth, 1)),
        "every layer has the same rate: factor is not used.":
            lambda model, lr, factor: groups_of(layers_of(model), lambda depth: lr),
        "some parameters are in no group and would never learn: the biases. layer.parameters() gives all of a layer.":
            lambda model, lr, factor: [
                group | {"params": group["params"][:1]}
                for group in groups_of(layers_of(model), lambda depth: lr * factor**depth)
            ],
    },
)  # fmt: skip
def layer_groups(model, lr, factor):
    """Parameter groups for torch.optim, a learning rate per layer (Howard and Ruder, 2018)."""
    return groups_of(layers_of(model), lambda depth: lr * factor**depth)


class Decoupled(torch.optim.Optimizer):
    """What the wrong optimisers share: a right AdamW, in pieces that each of them replaces."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, p.grad, self.kept(p), self.settings(group))

    def settings(self, group):
        return group

    def kept(self, p):
        state = self.state[p]
        if not state:
            state |= {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
        return state

    def move(self, p, grad, state, group):
        state["t"] += 1
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(group["lr"] * self.direction(grad, state, group))

    def direction(self, grad, state, group):
        state["m"], state["v"] = running(state["m"], state["v"], grad, group["betas"])
        return adams(state["m"], state["v"], grad, state["t"], group["betas"], group["eps"])


class Penalised(Decoupled):
    def move(self, p, grad, state, group):
        state["t"] += 1
        p.sub_(group["lr"] * self.direction(grad + group["weight_decay"] * p, state, group))


class NeverDecays(Decoupled):
    def settings(self, group):
        return group | {"weight_decay": 0.0}


class DecaysWithoutRate(Decoupled):
    def move(self, p, grad, state, group):
        p.mul_(1 - group["weight_decay"])
        super().move(p, grad, state, group | {"weight_decay": 0.0})


class FirstGroupForAll(Decoupled):
    def settings(self, group):
        return self.param_groups[0]


class DefaultsForAll(Decoupled):
    def settings(self, group):
        return self.defaults


class RememberedRates(Decoupled):
    def settings(self, group):
        group.setdefault("first", group["lr"])
        return group | {"lr": group["first"]}


class OneClock(Decoupled):
    def move(self, p, grad, state, group):
        self.clock = getattr(self, "clock", 0) + (p is self.param_groups[0]["params"][0])
        state["t"] = self.clock - 1
        super().move(p, grad, state, group)


class ZeroForMissing(Decoupled):
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                grad = torch.zeros_like(p) if p.grad is None else p.grad
                self.move(p, grad, self.kept(p), group)


class Forgetful(Decoupled):
    """Keeps its state where state_dict does not look."""

    def kept(self, p):
        self.own = getattr(self, "own", {})
        return self.own.setdefault(p, {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)})


class Unmoved(Decoupled):
    def move(self, p, grad, state, group):
        super().move(p.clone(), grad, state, group)


class DecaysAfter(Decoupled):
    def move(self, p, grad, state, group):
        super().move(p, grad, state, group | {"weight_decay": 0.0})
        p.mul_(1 - group["lr"] * group["weight_decay"])


class DecaysBeforeTheQuestion(Decoupled):
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
        super().step()


class RateOfTheConstructor(Decoupled):
    def settings(self, group):
        return group | {"lr": self.defaults["lr"]}


class FixedBetas(Decoupled):
    def settings(self, group):
        return group | {"betas": (0.9, 0.999)}


class EpsInTheRoot(Decoupled):
    def direction(self, grad, state, group):
        super().direction(grad, state, group)
        m, v = unbiased(state["m"], state["v"], state["t"], group["betas"])
        return m / (v + group["eps"]).sqrt()


class KeepsTheHats(Decoupled):
    def direction(self, grad, state, group):
        direction = super().direction(grad, state, group)
        state["m"], state["v"] = unbiased(state["m"], state["v"], state["t"], group["betas"])
        return direction


class OneStepAhead(Decoupled):
    def direction(self, grad, state, group):
        state["t"] += 1
        direction = super().direction(grad, state, group)
        state["t"] -= 1
        return direction


class Uncorrected(Decoupled):
    def direction(self, grad, state, group):
        super().direction(grad, state, group)
        return state["m"] / (state["v"].sqrt() + group["eps"])


TWO = dict(first={}, second={})


@exercise(
    script="optimiser", points=4, minutes=25, difficulty=3, forbids=("torch.optim.AdamW", "torch.optim.Adam"),
    cases=[
        dict(n=3, i=4, s=STEPS, **TWO),
        dict(n=1, i=1, s=1, **TWO, lr=0.1),
        dict(n=3, i=2, s=STEPS, first=dict(lr=0.1, weight_decay=0.2), second=dict(lr=0.02, weight_decay=0.0)),
        dict(n=2, i=3, s=20, **TWO, lr=0.1, betas=(0.5, 0.9), eps=1e-2, weight_decay=0.5),
        dict(n=2, i=3, s=20, **TWO, lr=0.1, weight_decay=0.5, late=5),
        dict(n=2, i=3, s=20, **TWO, lr=0.1, halved=10),
        dict(n=2, i=3, s=20, **TWO, lr=0.1, resumed=10),
    ],
    hints=(
        "`super().__init__(params, defaults)` takes a dictionary of the four settings. After it, self.param_groups is "
        "a list of dictionaries: each has its \"params\" and a value of its own for every setting.",
        "step() runs over the groups, and over the parameters of each; one whose .grad is None is skipped. "
        "self.state[p] is a dictionary, empty at first: put t, m and v in it, and state_dict() saves them.",
        "Write under @torch.no_grad() and change p in place: p.mul_(1 - lr · weight_decay), then p.sub_(lr · m_hat / "
        "(√v_hat + eps)), with group[\"lr\"] and so on read anew in each step.",
    ),
    mistakes={
        "the decay was added to the gradient: that is Adam with an L2 penalty. AdamW shrinks p itself and leaves the "
        "gradient alone.":
            Penalised,
        "nothing decays: this is Adam. Before its step, p shrinks by the factor 1 - lr · weight_decay.":
            NeverDecays,
        "p shrinks by weight_decay in each step, not by lr · weight_decay.":
            DecaysWithoutRate,
        "the settings of the first group are used for all. Read them from the group whose parameters you are moving.":
            FirstGroupForAll,
        "the settings given to the constructor are used for all groups: a group may have its own. Read group[\"lr\"], "
        "group[\"weight_decay\"] and so on.":
            DefaultsForAll,
        "the learning rate of the start is used throughout. A schedule changes group[\"lr\"] between steps: read it "
        "in each.":
            RememberedRates,
        "one t is shared by all parameters. A parameter that got its first gradient later has made fewer steps: keep t "
        "in self.state[p].":
            OneClock,
        "a parameter whose .grad is None moved or aged. It had no part in the loss: skip it, decay included.":
            ZeroForMissing,
        "after load_state_dict the run goes on as if it were new: m, v and t were kept outside self.state, where "
        "state_dict() does not look.":
            Forgetful,
        "the bias correction is missing: divide m and v by 1 - β^t.":
            Uncorrected,
        "the parameters stand still: p = p - … hangs the name p on a new tensor, and the network keeps the old one. "
        "Change p in place: p.mul_(…), p.sub_(…).":
            Unmoved,
        "p decays after the step, the step with it. The old p decays, then the step is taken.":
            DecaysAfter,
        "a parameter whose .grad is None decayed all the same. Ask for the gradient first; without one, p is left "
        "alone.":
            DecaysBeforeTheQuestion,
        "the learning rate given to the constructor is used for all groups and for ever: a group has its own, and a "
        "schedule changes it. Read group[\"lr\"] in each step.":
            RateOfTheConstructor,
        "the betas are (0.9, 0.999) whatever is given. Read group[\"betas\"].":
            FixedBetas,
        "eps is inside the root: √(v_hat + eps). It is added after the root.":
            EpsInTheRoot,
        "the corrected means were stored, and the next step corrects them again. Keep the plain m and v in "
        "self.state[p].":
            KeepsTheHats,
        "t is one too large in the correction: it is 1 in a parameter's first step.":
            OneStepAhead,
    },
)  # fmt: skip
class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW, built from scratch."""


# --- Repair ----------------------------------------------------------------------------------------------------------


@exercise(
    script="adam", repair=True, points=2, minutes=10, difficulty=2, cases=ADAM,
    hints=(
        "It is right for one step that starts from zeros, and wrong from the second on. What does the second step get "
        "that the first did not?",
        "Follow m through two steps by hand, with grad = 1: it should be 0.1, then 0.19. Which line writes over it?",
        "The corrected means need names of their own.",
    ),
    mistakes={
        "param is right in the first step only: what is handed to the second is not the running mean. Which two names "
        "are written over?":
            with_hats,
        "param lost its bias correction in the repair. It is needed; only the running means must survive it.":
            adam(lambda m, v, grad, t, betas, eps: m / (np.sqrt(v) + eps)),
        "param lost the correction of m in the repair: both means need theirs.":
            adam(lambda m, v, grad, t, betas, eps: m / (np.sqrt(unbiased(m, v, t, betas)[1]) + eps)),
        "param lost the correction of v in the repair: both means need theirs.":
            adam(lambda m, v, grad, t, betas, eps: unbiased(m, v, t, betas)[0] / (np.sqrt(v) + eps)),
        "m is a running mean now, v still comes back corrected.":
            lambda param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8: (
                *adam(adams)(param, grad, m, v, t, lr, betas, eps)[:2],
                with_hats(param, grad, m, v, t, lr, betas, eps)[2],
            ),
        "v is a running mean now, m still comes back corrected.":
            lambda param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8: (
                adam(adams)(param, grad, m, v, t, lr, betas, eps)[0],
                with_hats(param, grad, m, v, t, lr, betas, eps)[1],
                adam(adams)(param, grad, m, v, t, lr, betas, eps)[2],
            ),
    },
)  # fmt: skip
def repair_adam_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    """Step number t of Adam: the new parameter and running means."""
    return adam_step(param, grad, m, v, t, lr, betas, eps)


# --- Predict ---------------------------------------------------------------------------------------------------------


def hessian(*eigenvalues):
    """A symmetric matrix with these eigenvalues, turned at random."""

    def draw(rng, sizes):
        turn, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues), len(eigenvalues))))
        matrix = turn @ np.diag(eigenvalues) @ turn.T
        return (matrix + matrix.T) / 2

    return draw


def limit(of, factor=lambda momentum: 2 * (1 + momentum)):
    return lambda hessian, momentum=0.0: factor(momentum) / of(hessian)


def steepest(hessian):
    return np.linalg.eigvalsh(hessian)[-1]


@exercise(
    points=2, minutes=12, difficulty=2,
    cases=[
        dict(n=2, hessian=hessian(10.0, 1.0)),
        dict(n=1, hessian=np.array([[4.0]])),
        dict(n=3, hessian=hessian(0.5, 3.0, 20.0)),
        dict(n=3, hessian=np.diag([2.0, 8.0, 5.0])),
        dict(n=2, hessian=hessian(10.0, 1.0), momentum=0.9),
        dict(n=4, hessian=hessian(0.1, 0.2, 0.3, 0.4), momentum=0.5),
    ],
    hints=(
        "Along each eigenvector the error is multiplied by 1 - lr · eigenvalue in every step. For which lr does its "
        "size stay below 1?",
        "The steepest direction decides: the largest eigenvalue. np.linalg.eigvalsh gives those of a symmetric matrix, "
        "in ascending order.",
        "2 · (1 + momentum) divided by the largest eigenvalue.",
    ),
    mistakes={
        "lr is half of the limit: at 1 / λ the steepest direction is solved in a single step. How much further may it "
        "overshoot and still come closer?":
            limit(steepest, lambda momentum: 1 + momentum),
        "lr is the limit of the flattest direction: the steepest, with the largest eigenvalue, fails first.":
            limit(lambda hessian: np.linalg.eigvalsh(hessian)[0]),
        "lr looks at the diagonal only. A valley that lies askew has its curvature in the other entries too: take the "
        "eigenvalues.":
            limit(lambda hessian: np.diag(hessian).max()),
        "lr is right without momentum. With it the limit is larger, by the factor 1 + momentum.":
            limit(steepest, lambda momentum: 2.0),
        "lr shrinks with momentum. Against the steepest direction, which makes the step swing from side to side, "
        "the velocity helps: the limit grows, by the factor 1 + momentum.":
            limit(steepest, lambda momentum: 2 * (1 - momentum)),
        "lr grows by 1 / (1 - momentum), as the effective step does where gradients agree. At the limit they "
        "alternate: the factor is 1 + momentum.":
            limit(steepest, lambda momentum: 2 / (1 - momentum)),
        "lr is divided by the sum of all eigenvalues, the trace. Each direction lives by itself; the steepest decides.":
            limit(np.trace),
        "lr is divided by the norm of all entries of the matrix. The largest eigenvalue alone decides.":
            limit(np.linalg.norm),
    },
)  # fmt: skip
def stability_limit(hessian: "n n", momentum=0.0) -> "lr:":
    """The learning rate below which (momentum) gradient descent on a quadratic converges, above which it diverges."""
    return 2 * (1 + momentum) / torch.linalg.eigvalsh(hessian)[-1]


# How many numbers an optimiser remembers for each parameter.
KEPT = {"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2, "adamw": 2}


def bytes_of(kept, size=4, besides=2):
    return lambda parameters, optimiser: size * parameters * (besides + kept(optimiser))


@exercise(
    points=1, minutes=5, difficulty=1,
    draws=dict(parameters=whole(1_000, 10_000_000), optimiser=numbers(*KEPT)),
    cases=[
        *(dict(parameters=1_000_000, optimiser=name) for name in KEPT),
        dict(parameters=7_000_000_000, optimiser="adam"),
        dict(),
        dict(),
    ],
    hints=(
        "A float32 takes 4 bytes. Which arrays as long as the parameters are alive when a step is taken?",
        "The parameters, their gradients, and what the optimiser keeps from step to step: look at what your step "
        "functions return besides param.",
        "4 · parameters · (2 + k), with k = 0 for SGD, 1 for momentum and RMSprop, 2 for Adam and AdamW.",
    ),
    mistakes={
        "the gradients are missing: they are as many as the parameters, and alive when the step is taken.":
            bytes_of(KEPT.get, besides=1),
        "the optimiser's state is missing: it keeps one or two numbers for each parameter.":
            bytes_of(lambda optimiser: 0),
        "this is the optimiser's state alone; parameters and gradients take memory too.":
            bytes_of(KEPT.get, besides=0),
        "these are numbers, not bytes: a float32 takes 4.":
            bytes_of(KEPT.get, size=1),
        "a float64 takes 8 bytes; networks are trained in float32, which takes 4.":
            bytes_of(KEPT.get, size=8),
        "Adam keeps one number per parameter here. It keeps two running means: of the gradient and of its square.":
            bytes_of(lambda optimiser: min(KEPT[optimiser], 1)),
        "AdamW keeps three numbers here. Its decay needs no memory: it keeps what Adam keeps.":
            bytes_of(lambda optimiser: KEPT[optimiser] + (optimiser == "adamw")),
        "RMSprop keeps nothing here. Look at what rmsprop_step returns besides param: the mean square.":
            bytes_of(lambda optimiser: 0 if optimiser == "rmsprop" else KEPT[optimiser]),
        "momentum keeps nothing here. Look at what momentum_step returns besides param: the velocity.":
            bytes_of(lambda optimiser: 0 if optimiser == "momentum" else KEPT[optimiser]),
        "momentum and RMSprop keep two numbers here. One each: the velocity, the mean square.":
            bytes_of(lambda optimiser: KEPT[optimiser] and 2),
    },
)  # fmt: skip
def training_bytes(parameters, optimiser) -> "bytes:":
    """The bytes of parameters, gradients and optimiser state in float32."""
    return torch.tensor(4 * parameters * (2 + KEPT[optimiser]))
