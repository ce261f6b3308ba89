"""Lesson 02: seven activations forwards and backwards, two PyTorch halves, two repairs, two predictions."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import autograd_function, exercise, gradient_of, module

SHAPES = [dict(x=(4, 3)), dict(x=(6,)), dict(x=(2, 3, 4)), dict(x=(1, 1))]
KINK = dict(x=np.array([[-2.0, 0.0, 3.0], [0.0, -0.5, 12.0]]))
EXTREME = dict(x=np.array([[-1000.0, -30.0, 0.0], [1000.0, 30.0, 0.5]]))


# Pieces of the wrong implementations below; wrong ones may overflow, and then do so in silence.
def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def _quiet(f):
    def silent(*arguments, **settings):
        with np.errstate(all="ignore"):
            return f(*arguments, **settings)

    return silent


# -- ReLU --------------------------------------------------------------------------------------------------------------


@exercise(
    points=1, minutes=3, difficulty=1, cases=[*SHAPES, KINK],
    hints=(
        "Two of NumPy's functions have “max” in their name. One looks for the largest entry of an array, the other "
        "compares two arrays entry by entry. Which one keeps the shape?",
        "`np.maximum` broadcasts: the second argument may be a plain number.",
    ),
    mistakes={
        "y keeps the negative entries and loses the positive ones: it is the mirror image. Try your line on x = 3.":
            lambda x: np.minimum(x, 0.0),
        "y is |x|: negative entries came out positive. ReLU does not flip them; what does it put in their place?":
            lambda x: np.abs(x),
        "y holds only zeros and ones: that is the slope of ReLU. Where x is positive, what value should pass?":
            lambda x: (x > 0).astype(float),
        "y has lost an axis: np.max(x, 0) looks for the largest entry along axis 0. You want to compare each entry "
        "with 0, which is another function.":
            lambda x: np.max(x, 0),
        "y lets one hundredth of each negative entry through: that is leaky ReLU, the next pair. Here the left "
        "side is flat.":
            lambda x: np.where(x > 0, x, 0.01 * x),
    },
)  # fmt: skip
def relu_forward(x: "...") -> "y: ...":
    """Keep what is positive, replace the rest by zero."""
    return F.relu(x)


gradient_of(
    relu_forward, points=2, minutes=5, difficulty=1,
    hints=(
        "Take one entry. If x = 3, what happens to y when x grows a little? And if x = −2?",
        "The slope is 1 where x > 0 and 0 elsewhere, so a mask does it. The mask is made from x, and it multiplies dy.",
        "A comparison such as `x > 0` is an array of True and False; multiplied by numbers it counts as 1 and 0.",
    ),
    mistakes={
        "dx holds only zeros and ones: that is the slope alone. The chain rule has a second factor, what arrives "
        "from above.":
            lambda dy, x: (x > 0).astype(float),
        "dx was masked by the sign of dy. What decides whether a gradient passes is the sign of the number that "
        "went in.":
            lambda dy, x: np.maximum(dy, 0.0),
        "dx is dy times the output y. The chain rule asks for the slope of y at x, not for y itself.":
            lambda dy, x: dy * np.maximum(x, 0.0),
        "dx is wrong only where x is exactly 0: PyTorch takes the slope 0 there, yours is 1. Look at your comparison.":
            lambda dy, x: dy * (x >= 0),
        "dx is open on the wrong side: gradient passes where x is negative. Turn the comparison round.":
            lambda dy, x: dy * (x < 0),
        "dx is masked twice: where x is positive the negative gradients are missing. Only x decides what passes.":
            lambda dy, x: np.maximum(dy, 0.0) * (x > 0),
    },
)  # fmt: skip


# -- leaky ReLU --------------------------------------------------------------------------------------------------------


@exercise(
    points=1, minutes=4, difficulty=1,
    cases=[dict(x=(4, 3), negative_slope=0.3), dict(x=(2, 3, 4)), dict(x=(6,), negative_slope=0.2),
           dict(x=(1, 1), negative_slope=0.5), KINK | dict(negative_slope=0.25), dict(x=(3, 4), negative_slope=1.5)],
    hints=(
        "Two rules, one for each side of zero. NumPy has a function that takes a condition and two answers.",
        "`np.where(condition, where_true, where_false)`: on the negative side the answer is a line through 0, "
        "so x has to appear in it.",
    ),
    mistakes={
        "y is flat on the negative side: that is plain ReLU. A leaky unit lets a little of x through there.":
            lambda x, negative_slope=0.01: np.maximum(x, 0.0),
        "y is right for negative_slope = 0.01 only: that number stands fixed in your code. Use the argument.":
            lambda x, negative_slope=0.01: np.where(x > 0, x, 0.01 * x),
        "y has the slopes swapped: the positive side was made small and the negative side kept whole.":
            lambda x, negative_slope=0.01: np.where(x > 0, negative_slope * x, x),
        "y is the larger of x and negative_slope · x. That is the same only while the slope is below 1; ask for the "
        "sign of x instead.":
            lambda x, negative_slope=0.01: np.maximum(x, negative_slope * x),
        "y is one constant for every negative x. A slope has to multiply something before it becomes a line.":
            lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope),
        "y turns upwards on the negative side: there it has the wrong sign. A negative x should leave a small "
        "negative y.":
            lambda x, negative_slope=0.01: np.where(x > 0, x, -negative_slope * x),
    },
)  # fmt: skip
def leaky_relu_forward(x: "...", negative_slope=0.01) -> "y: ...":
    """Keep what is positive, shrink what is negative."""
    return F.leaky_relu(x, negative_slope)


gradient_of(
    leaky_relu_forward, points=2, minutes=5, difficulty=1,
    hints=(
        "Draw the curve: two straight pieces. What is the slope of each?",
        "ReLU's mask was 1 or 0. Here it is 1 or negative_slope, still decided by x, still multiplied by dy.",
        "At x = 0 PyTorch counts the entry to the leaky side.",
    ),
    mistakes={
        "dx is the slope alone, the same for every dy. Multiply it by what arrives from above.":
            lambda dy, x, negative_slope=0.01: np.where(x > 0, 1.0, negative_slope),
        "dx is 0 on the negative side: that is ReLU's gradient. The leak exists so that something gets through there.":
            lambda dy, x, negative_slope=0.01: dy * (x > 0),
        "dx has the slopes swapped: the gradient is shrunk where x is positive.":
            lambda dy, x, negative_slope=0.01: np.where(x > 0, negative_slope * dy, dy),
        "dx is wrong only where x is exactly 0: PyTorch takes negative_slope there, yours is 1. Look at your "
        "comparison.":
            lambda dy, x, negative_slope=0.01: np.where(x >= 0, dy, negative_slope * dy),
        "dx is right where x is positive, but on the negative side dy is missing: the same number stands there for "
        "every dy.":
            lambda dy, x, negative_slope=0.01: np.where(x > 0, dy, negative_slope),
        "dx is right for negative_slope = 0.01 only: that number stands fixed in your code. Use the argument.":
            lambda dy, x, negative_slope=0.01: np.where(x > 0, dy, 0.01 * dy),
        "dx was leaked by the sign of dy: negative gradients are shrunk, whatever went in. What decides is the sign "
        "of x.":
            lambda dy, x, negative_slope=0.01: np.where(dy > 0, dy, negative_slope * dy),
        "dx is dy times the output y. The chain rule asks for the slope of y at x, not for y itself.":
            lambda dy, x, negative_slope=0.01: dy * np.where(x > 0, x, negative_slope * x),
    },
)  # fmt: skip


# -- sigmoid -----------------------------------------------------------------------------------------------------------


@exercise(
    points=2, minutes=8, difficulty=2, cases=[*SHAPES, EXTREME],
    hints=(
        "There are several ways to write it: 1 / (1 + e^−x) and e^x / (1 + e^x) are equal on paper. "
        "Put x = 1000 into each and watch what the computer makes of numerator and denominator.",
        "Infinity in a denominator gives 0, which is harmless. Infinity over infinity gives NaN, which is not.",
        "For an answer without any overflow: sigmoid is tanh, squeezed and lifted. sigmoid(x) = (1 + tanh(x / 2)) / 2.",
    ),
    mistakes={
        "y is NaN where x is large: e^x overflows to infinity, above and below the fraction bar. Which of the two "
        "forms of sigmoid never divides infinity by infinity?":
            _quiet(lambda x: np.exp(x) / (1 + np.exp(x))),
        "y falls where it should rise: a large x has to give almost 1. Look at the sign in the exponent.":
            _quiet(lambda x: 1 / (1 + np.exp(x))),
        "y reaches down to −1: that is tanh. Sigmoid lives between 0 and 1, and is ½ at x = 0.":
            lambda x: np.tanh(x),
        "y is larger than 1: Python read 1 / 1 first and added the exponential afterwards. Look at the brackets.":
            _quiet(lambda x: 1 / 1 + np.exp(-x)),
        "y depends on the other entries: a maximum was subtracted first. In softmax such a shift cancels; a sigmoid "
        "has nothing to cancel it.":
            _quiet(lambda x: 1 / (1 + np.exp(-(x - x.max())))),
        "y is sigmoid(2x): the curve is twice too steep. Which argument does tanh need in this formula?":
            lambda x: 0.5 * (1 + np.tanh(x)),
    },
)  # fmt: skip
def sigmoid_forward(x: "...") -> "y: ...":
    """Squash every number into (0, 1), without NaN at ±1000."""
    return torch.sigmoid(x)


gradient_of(
    sigmoid_forward, points=2, minutes=7, difficulty=2,
    hints=(
        "The derivation above ends in a formula that needs nothing but the output y. You have x, so make y first.",
        "The slope is y (1 − y). It is at most ¼, and it is 0 far out on both sides.",
        "Use a form of y that is stable, then multiply slope and dy entry by entry.",
    ),
    mistakes={
        "dx puts x into y (1 − y). That formula wants the output: run the forward pass first.":
            lambda dy, x: dy * x * (1 - x),
        "dx is the slope alone, the same for every dy. Multiply it by what arrives from above.":
            lambda dy, x: _sigmoid(x) * (1 - _sigmoid(x)),
        "dx is dy · y: half of the slope is missing. Far to the right your gradient does not vanish; should it?":
            lambda dy, x: dy * _sigmoid(x),
        "dx uses 1 − y²: that is the slope of tanh. Differentiate 1 / (1 + e^−x) again.":
            lambda dy, x: dy * (1 - _sigmoid(x) ** 2),
        "dx is NaN where x is far below zero: e^−x overflows above and below the fraction bar. "
        "Can you write the slope with the output y only?":
            _quiet(lambda dy, x: dy * np.exp(-x) / (1 + np.exp(-x)) ** 2),
        "dx is NaN where x is far above zero: e^x overflows above and below the fraction bar. "
        "Can you write the slope with the output y only?":
            _quiet(lambda dy, x: dy * np.exp(x) / (1 + np.exp(x)) ** 2),
        "dx has the wrong sign: sigmoid rises everywhere. How many minus signs do the quotient rule and e^−x bring in?":
            _quiet(lambda dy, x: -dy * np.exp(-x) / (1 + np.exp(-x)) ** 2),
        "dx is dy · (1 − y): half of the slope is missing. Far to the left your gradient does not vanish; should it?":
            lambda dy, x: dy * (1 - _sigmoid(x)),
    },
)  # fmt: skip


# -- tanh --------------------------------------------------------------------------------------------------------------


@exercise(
    points=1, minutes=3, difficulty=1, cases=[*SHAPES, EXTREME],
    hints=(
        "The quotient of exponentials breaks at x = 1000. You may use what NumPy has.",
        "`np.tanh` does it in one call. From a stable sigmoid: tanh(x) = 2 sigmoid(2x) − 1.",
    ),
    mistakes={
        "y is NaN where |x| is large: numerator and denominator both overflow. NumPy has this function ready-made.":
            _quiet(lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))),
        "y is NaN where x is large: e^(2x) overflows above and below the fraction bar. NumPy has this function "
        "ready-made.":
            _quiet(lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1)),
        "y is tan(x), the tangent: one letter is missing.":
            lambda x: np.tan(x),
        "y is too flat by a factor 2 near zero: it is tanh(x / 2). Which argument does sigmoid need in this formula?":
            lambda x: 2 * _sigmoid(x) - 1,
        "y lies between 0 and 1: it is a sigmoid. tanh is 0 at x = 0 and reaches down to −1.":
            lambda x: _sigmoid(2 * x),
    },
)  # fmt: skip
def tanh_forward(x: "...") -> "y: ...":
    """Squash every number into (−1, 1), without NaN at ±1000."""
    return torch.tanh(x)


gradient_of(
    tanh_forward, points=2, minutes=5, difficulty=1,
    hints=(
        "As with sigmoid, the slope can be written with the output y alone.",
        "The slope is 1 − y²: 1 at the origin, 0 far out.",
    ),
    mistakes={
        "dx puts x into 1 − y². That formula wants the output: run the forward pass first.":
            lambda dy, x: dy * (1 - x**2),
        "dx is the slope alone, the same for every dy. Multiply it by what arrives from above.":
            lambda dy, x: 1 - np.tanh(x) ** 2,
        "dx uses 1 − y: the square is missing. Your slope comes out near 2 far to the left, where the curve is flat.":
            lambda dy, x: dy * (1 - np.tanh(x)),
        "dx uses y (1 − y): that is the slope of sigmoid. At x = 0 the slope of tanh is 1; what is yours?":
            lambda dy, x: dy * np.tanh(x) * (1 - np.tanh(x)),
        "dx uses (1 − y)²: only y is squared in the derivation, and your slope is near 4 far to the left.":
            lambda dy, x: dy * (1 - np.tanh(x)) ** 2,
        "dx uses 1 + y²: the slope grows far out, where the curve is flat. Look at the sign.":
            lambda dy, x: dy * (1 + np.tanh(x) ** 2),
    },
)  # fmt: skip


# -- GELU --------------------------------------------------------------------------------------------------------------

C, A = math.sqrt(2 / math.pi), 0.044715  # of the tanh formula
ROOT, BELL = math.sqrt(2), 1 / math.sqrt(2 * math.pi)  # of the exact one
GELU_CASES = [
    dict(x=(4, 3)), dict(x=(4, 3), approximate="none"), dict(x=(6,)), dict(x=(2, 3, 4), approximate="none"),
    dict(x=(1, 1)), EXTREME, EXTREME | dict(approximate="none"),
]  # fmt: skip


_erf = np.vectorize(math.erf)


def _gelu(x, approximate="tanh", half=0.5, power=3, c=C, root=ROOT):
    inner = np.tanh(c * (x + A * x**power)) if approximate == "tanh" else _erf(x / root)
    return half * x * (1 + inner)


def _gelu_slope(x, approximate="tanh", first=1.0, second=1.0, three=3.0, inner=True, density=BELL, c=C, times_x=True):
    """The two terms of the product rule, each of which a mistake may spoil."""
    front = x if times_x else 1.0
    if approximate == "none":
        return first * 0.5 * (1 + _erf(x / ROOT)) + second * front * density * np.exp(-(x**2) / 2)
    t = np.tanh(C * (x + A * x**3))
    du = c * (1 + three * A * x**2) if inner else 1.0
    return first * 0.5 * (1 + t) + second * 0.5 * front * (1 - t**2) * du


@exercise(
    points=2, minutes=10, difficulty=2, cases=GELU_CASES,
    hints=(
        "Two formulas, chosen by `approximate`. Write one, check it, then write the other: "
        "the message says which case fails.",
        "In the tanh form build it from the inside: first u = √(2/π) · (x + 0.044715 · x³), then ½ · x · (1 + tanh u).",
        "In the exact form Φ(x) = ½ · (1 + erf(x / √2)), and y = x · Φ(x).",
    ),
    mistakes={
        'y is the exact GELU in every case: with approximate="tanh" the tanh formula is asked for. They differ in the '
        "fourth digit only, which is enough to tell them apart.":
            lambda x, approximate="tanh": _gelu(x, "none"),
        'y is the tanh formula in every case: with approximate="none" the exact GELU is asked for.':
            lambda x, approximate="tanh": _gelu(x, "tanh"),
        "y is right near zero and drifts off further out: in the inner polynomial one x has lost its cube.":
            lambda x, approximate="tanh": _gelu(x, approximate, power=1),
        "y is twice too large: far to the right it should approach x.":
            lambda x, approximate="tanh": _gelu(x, approximate, half=1.0),
        "y is slightly too steep with the tanh formula: the polynomial has lost its factor √(2/π).":
            lambda x, approximate="tanh": _gelu(x, approximate, c=1.0),
        "y is slightly too flat with the tanh formula: in √(2/π) the root covers the whole fraction, π included.":
            lambda x, approximate="tanh": _gelu(x, approximate, c=math.sqrt(2) / math.pi),
        "y is slightly off with the tanh formula: √(2/π) multiplies the whole polynomial, the cube too. Look at the "
        "brackets.":
            lambda x, approximate="tanh": (0.5 * x * (1 + np.tanh(C * x + A * x**3)) if approximate == "tanh"
                                           else _gelu(x, "none")),
        'y is too small on the right with approximate="none": erf runs from −1 to 1, a probability from 0 to 1. How '
        "does Φ come from erf?":
            lambda x, approximate="tanh": _gelu(x, "tanh") if approximate == "tanh" else x * _erf(x / ROOT),
        "y has the two versions exchanged: what belongs to one value of approximate comes out for the other.":
            lambda x, approximate="tanh": _gelu(x, "none" if approximate == "tanh" else "tanh"),
        "y is x · sigmoid(1.702 x): a coarser approximation of GELU. The two asked for here are written in the task.":
            lambda x, approximate="tanh": x * _sigmoid(1.702 * x),
        "y lies between 0 and 1: it is the gate Φ(x). What does the gate multiply?":
            lambda x, approximate="tanh": 0.5 * (1 + (np.tanh(C * (x + A * x**3)) if approximate == "tanh"
                                                      else _erf(x / ROOT))),
        'y is too steep with approximate="none": in Φ(x), erf does not get x itself. Look at its argument.':
            lambda x, approximate="tanh": _gelu(x, approximate, root=1.0),
    },
)  # fmt: skip
def gelu_forward(x: "...", approximate="tanh") -> "y: ...":
    """x times the probability that a standard normal number is below x; by tanh, or exact ("none")."""
    return F.gelu(x, approximate=approximate)


gradient_of(
    gelu_forward, points=4, minutes=15, difficulty=3,
    hints=(
        "y is a product, x times a gate. The product rule has two terms: the gate, plus x times the slope of the gate.",
        'With "none" the gate is Φ(x) and its slope is the bell curve e^(−x²/2) / √(2π).',
        "With \"tanh\" the gate is ½ (1 + tanh u). Its slope is ½ (1 − tanh² u) times du/dx, "
        "and du/dx = √(2/π) · (1 + 3 · 0.044715 · x²).",
    ),
    mistakes={
        "dx has only the first term of the product rule: the gate. The gate depends on x too; how fast does it move?":
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, approximate, second=0.0),
        "dx has only the second term of the product rule. While the gate moves, x is let through by the gate as it "
        "stands.":
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, approximate, first=0.0),
        "dx has both terms of the product rule, but the second has lost its x: the slope of the gate is multiplied by "
        "what?":
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, approximate, times_x=False),
        "dx stops at tanh: the chain rule goes one step further inwards, to du/dx.":
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, approximate, inner=False),
        "dx is slightly off away from zero with the tanh formula: differentiate 0.044715 · x³ once more.":
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, approximate, three=1.0),
        "dx is the slope alone, the same for every dy. Multiply it by what arrives from above.":
            lambda dy, x, approximate="tanh": _gelu_slope(x, approximate),
        'dx is the gradient of the exact GELU in every case: approximate="tanh" has its own curve, and its own slope.':
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, "none"),
        'dx is the gradient of the tanh formula in every case: approximate="none" asks for the exact one.':
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, "tanh"),
        'dx is too far from the gate with approximate="none": the bell curve has lost its factor 1 / √(2π).':
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, approximate, density=1.0),
        "dx multiplies only the first term by dy. The whole slope meets dy: look at the brackets.":
            lambda dy, x, approximate="tanh": (_gelu_slope(x, approximate, first=0.0)
                                               + dy * _gelu_slope(x, approximate, second=0.0)),
        "dx is too large in its second term with the tanh formula: du/dx has lost a factor that u has.":
            lambda dy, x, approximate="tanh": dy * _gelu_slope(x, approximate, c=1.0),
    },
)  # fmt: skip


# -- SiLU --------------------------------------------------------------------------------------------------------------


@exercise(
    points=1, minutes=4, difficulty=1, cases=[*SHAPES, EXTREME],
    hints=(
        "x times a gate; the gate is a sigmoid.",
        "Write the sigmoid in a form that survives x = 1000, as in `sigmoid_forward`.",
    ),
    mistakes={
        "y lies between 0 and 1: it is the gate alone. What does the gate multiply?":
            lambda x: _sigmoid(x),
        "y is x · tanh(x), which is never negative. The gate of SiLU opens from 0 to 1.":
            lambda x: x * np.tanh(x),
        "y is NaN where x is large: e^x overflows, above and below the fraction bar. Use a stable sigmoid.":
            _quiet(lambda x: x * np.exp(x) / (1 + np.exp(x))),
        "y lets negative numbers through and shuts on the positive side. Look at the sign in the exponent.":
            _quiet(lambda x: x / (1 + np.exp(x))),
        "y is x · sigmoid(1.702 x): that is an approximation of GELU. SiLU's gate gets x itself.":
            lambda x: x * _sigmoid(1.702 * x),
    },
)  # fmt: skip
def silu_forward(x: "...") -> "y: ...":
    """x times its own sigmoid, without NaN at ±1000."""
    return F.silu(x)


gradient_of(
    silu_forward, points=3, minutes=8, difficulty=2,
    hints=(
        "Product rule: (x · s)′ = s + x · s′, and you know s′.",
        "With s = sigmoid(x) the slope of the gate is s (1 − s).",
        "The slope is s + x · s · (1 − s); multiply by dy.",
    ),
    mistakes={
        "dx has only the first term of the product rule, the gate. The gate moves with x too.":
            lambda dy, x: dy * _sigmoid(x),
        "dx has only the second term of the product rule. While the gate moves, x is let through by the gate as it "
        "stands.":
            lambda dy, x: dy * x * _sigmoid(x) * (1 - _sigmoid(x)),
        "dx is the gradient of the sigmoid alone. y is a product: which rule differentiates it?":
            lambda dy, x: dy * _sigmoid(x) * (1 - _sigmoid(x)),
        "dx is the slope alone, the same for every dy. Multiply it by what arrives from above.":
            lambda dy, x: _sigmoid(x) + x * _sigmoid(x) * (1 - _sigmoid(x)),
        "dx has both terms of the product rule, but the second has lost a factor: the slope of the gate is "
        "multiplied by what?":
            lambda dy, x: dy * (_sigmoid(x) + _sigmoid(x) * (1 - _sigmoid(x))),
        "dx multiplies only the first term by dy. The whole slope meets dy: look at the brackets.":
            lambda dy, x: dy * _sigmoid(x) + x * _sigmoid(x) * (1 - _sigmoid(x)),
        "dx takes the gate s itself for the slope of the gate. What is the derivative of a sigmoid?":
            lambda dy, x: dy * (_sigmoid(x) + x * _sigmoid(x)),
        "dx takes 1 − s for the slope of the gate: one factor of the sigmoid's derivative is missing.":
            lambda dy, x: dy * (_sigmoid(x) + x * (1 - _sigmoid(x))),
        "dx uses y (1 − y) for the slope of the gate. The gate is s, not y = x · s.":
            _quiet(lambda dy, x: dy * (_sigmoid(x) + x * x * _sigmoid(x) * (1 - x * _sigmoid(x)))),
        "dx is NaN far from zero: an exponential overflows above and below the fraction bar. Use a stable sigmoid.":
            _quiet(lambda dy, x: dy * (np.exp(x) * (1 + np.exp(x) + x)) / (1 + np.exp(x)) ** 2),
    },
)  # fmt: skip


# -- softmax -----------------------------------------------------------------------------------------------------------

ROWS = np.array(
    [[1000.0, 999, -1000, 998], [-1000, -1001, -999, -1000], [2, 2, 2, 2], [1000, -1000, -1000, -1000], [3, 3, 0, -1]]
)
SOFTMAX_CASES = [
    dict(x=(4, 4)), dict(x=(4, 4), axis=0), dict(x=(5,)), dict(x=(4, 3)), dict(x=(3, 4), axis=0),
    dict(x=(2, 3, 4), axis=1), dict(x=(2, 5, 3), axis=-2), dict(x=(3, 2, 4), axis=0), dict(x=(2, 3), axis=1),
    dict(x=(1, 1)), dict(x=ROWS), dict(x=ROWS.T, axis=0),
]  # fmt: skip


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _softmax_flat_sums(x, axis=-1):
    """Sums without keepdims: wrong in silence for square inputs; where NumPy would refuse, the right answer."""
    e = np.exp(x - x.max(axis, keepdims=True))
    try:
        return e / e.sum(axis)
    except ValueError:
        return _softmax(x, axis)


@_quiet
def _softmax_naive(x, axis=-1):
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


@_quiet
def _softmax_half_shifted(x, axis=-1):
    return np.exp(x - x.max(axis, keepdims=True)) / np.exp(x).sum(axis, keepdims=True)


@_quiet
def _softmax_last_maximum(x, axis=-1):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@_quiet
def _softmax_one_maximum(x, axis=-1):
    e = np.exp(x - x.max())
    return e / e.sum(axis, keepdims=True)


@_quiet
def _softmax_mean_shift(x, axis=-1):
    e = np.exp(x - x.mean(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


SOFTMAX_MISTAKES = {
    "y is NaN where x is large: e^1000 is more than a float can hold. Adding a constant to all scores of a row does "
    "not change its softmax; which constant keeps every exponent at or below 0?":
        _softmax_naive,
    "y is divided by the sum of the whole array, and NaN where x is large. First let each slice along axis sum to 1 by "
    "itself (axis, keepdims); then keep the exponents small.":
        _quiet(lambda x, axis=-1: np.exp(x) / np.exp(x).sum()),
    "y ignores axis: it normalises along the last one every time.":
        lambda x, axis=-1: _softmax(x, -1),
    "y sums to 1 over the whole array. Each slice along axis should sum to 1 by itself: over which axis do you sum?":
        lambda x, axis=-1: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
    "y is NaN in a row that lies far below the others: you subtract the largest entry of the whole array. "
    "Each slice needs its own.":
        _softmax_one_maximum,
    "y is NaN where one score towers over its slice: you subtract the mean, which leaves that score's exponent large. "
    "Which constant keeps every exponent at or below 0?":
        _softmax_mean_shift,
    "y sums to 1 along axis, but its entries were shifted along another: the maximum has an axis too.":
        _softmax_last_maximum,
}  # fmt: skip


@exercise(
    points=3, minutes=12, difficulty=2, cases=SOFTMAX_CASES,
    hints=(
        "First only the formula, for one row: exponentials, divided by their sum. Then make it stable, then general.",
        "`keepdims=True` in `.max` and `.sum` keeps the reduced axis with size 1, so that broadcasting pairs each "
        "row with its own sum.",
        "Subtract the maximum along axis before the exponential: the largest exponent is then 0, and the quotient "
        "is the same.",
    ),
    mistakes=SOFTMAX_MISTAKES | {
        "y is divided by the sums of the wrong slices: without keepdims, broadcasting pairs column j with the sum "
        "of row j.":
            _softmax_flat_sums,
        "y treats every entry alone (it is a sigmoid), so its slices do not sum to 1. What do the entries share?":
            lambda x, axis=-1: _sigmoid(x),
        "y does not sum to 1: the maximum was subtracted above the fraction bar and not below, and no longer cancels.":
            _softmax_half_shifted,
        "y has lost the division: the largest entry of each slice is 1. A distribution sums to 1.":
            lambda x, axis=-1: np.exp(x - x.max(axis, keepdims=True)),
    },
)  # fmt: skip
def softmax_forward(x: "...", axis=-1) -> "y: ...":
    """Turn scores into positive numbers that sum to 1 along axis, without NaN at ±1000."""
    return F.softmax(x, dim=axis)


def _softmax_vjp(dy, x, axis, p):
    return p * (dy - (dy * p).sum(axis, keepdims=True))


gradient_of(
    softmax_forward, points=5, minutes=20, difficulty=3,
    hints=(
        "Every output depends on every score of its slice. So dx_j collects a contribution from every dy_i: "
        "the Jacobian has entries off the diagonal.",
        "The Jacobian has p_i (1 − p_i) on its diagonal and −p_i p_j off it. Multiply dy from the left and sort the "
        "sum into two parts.",
        "dx = p · (dy − s), where s is the sum of dy · p along axis, one number for each slice (keepdims!).",
    ),
    mistakes={
        "dx uses the diagonal of the Jacobian only, p (1 − p). Raising one score also lowers the other probabilities.":
            lambda dy, x, axis=-1: dy * _softmax(x, axis) * (1 - _softmax(x, axis)),
        "dx puts the scores x where the derivation has the probabilities p: run the forward pass first.":
            lambda dy, x, axis=-1: x * (dy - (dy * x).sum(axis, keepdims=True)),
        "dx is p · dy: the part that couples the entries of a slice is missing. Sum a slice of the right dx: it "
        "gives 0.":
            lambda dy, x, axis=-1: dy * _softmax(x, axis),
        "dx subtracts the plain sum of dy. In the derivation each dy_i comes with a weight.":
            lambda dy, x, axis=-1: _softmax(x, axis) * (dy - dy.sum(axis, keepdims=True)),
        "dx subtracts a mean over the slice where the derivation has a sum: p already are weights that sum to 1.":
            lambda dy, x, axis=-1: _softmax(x, axis) * (dy - (dy * _softmax(x, axis)).mean(axis, keepdims=True)),
        "dx ignores axis: it works along the last one every time.":
            lambda dy, x, axis=-1: _softmax_vjp(dy, x, -1, _softmax(x, -1)),
        "dx sums dy · p over the whole array. Slices know nothing of each other: sum along axis only.":
            lambda dy, x, axis=-1: _softmax(x, axis) * (dy - (dy * _softmax(x, axis)).sum()),
        "dx is dy minus its weighted mean: right so far, but the derivation has one more factor in front.":
            lambda dy, x, axis=-1: dy - (dy * _softmax(x, axis)).sum(axis, keepdims=True),
        "dx multiplies only dy by p, and the sum s stands outside. Where do the brackets stand in the derivation?":
            lambda dy, x, axis=-1: (dy * _softmax(x, axis)) - (dy * _softmax(x, axis)).sum(axis, keepdims=True),
        "dx has its probabilities along axis, but sums dy · p along the last one.":
            lambda dy, x, axis=-1: _softmax(x, axis) * (dy - (dy * _softmax(x, axis)).sum(-1, keepdims=True)),
        "dx adds the weighted sum where the Jacobian has a minus: −p_i p_j.":
            lambda dy, x, axis=-1: _softmax(x, axis) * (dy + (dy * _softmax(x, axis)).sum(axis, keepdims=True)),
        "dx is NaN where x is large: the softmax inside overflows. Shift each slice by its maximum, as in the "
        "forward pass.":
            _quiet(lambda dy, x, axis=-1: _softmax_vjp(dy, x, axis, _softmax_naive(x, axis))),
        "dx is p − dy: that is a shortcut for softmax followed by cross-entropy (next lesson). Here dy can be "
        "anything.":
            lambda dy, x, axis=-1: _softmax(x, axis) - dy,
    },
)  # fmt: skip


# -- in PyTorch --------------------------------------------------------------------------------------------------------


def _prelu(formula):
    """A module with PReLU's parameter and some other formula."""

    class Wrong(nn.Module):
        def __init__(self, num_parameters=1, init=0.25):
            super().__init__()
            self.weight = nn.Parameter(torch.full((num_parameters,), init))

        def forward(self, x):
            return formula(x, self.weight.view(-1, *[1] * (x.ndim - 2)))

    return Wrong


module(
    nn.PReLU, points=3, minutes=12, difficulty=2,
    cases=[dict(init=dict(num_parameters=3), x=(5, 3)), dict(init=dict(num_parameters=4), x=(2, 4, 3)),
           dict(init=dict(), x=(3, 2, 2)), dict(init=dict(), x=(1, 1)),
           dict(init=dict(num_parameters=60), x=(4, 60))],  # so many that some slopes lie above 1 and some below 0
    forbids=("torch.nn.PReLU", "torch.nn.functional.prelu", "torch.prelu"),
    hints=(
        "The parameter must be called `weight`, as in PyTorch, and be an `nn.Parameter` of shape (num_parameters,): "
        "then it appears in state_dict and gets a gradient.",
        "`torch.where(x > 0, x, slope * x)` works on tensors as np.where does on arrays, and autograd follows it.",
        "Channels are axis 1. For x (n, c, length) the slope must have shape (c, 1) to broadcast: "
        "`weight.view(-1, *[1] * (x.ndim - 2))`.",
    ),
    mistakes={
        "y has the slopes swapped: the learned slope belongs to the negative side.":
            _prelu(lambda x, slope: torch.where(x > 0, slope * x, x)),
        "y never uses the parameter: it is flat on the negative side. Then no gradient can reach weight either.":
            _prelu(lambda x, slope: torch.where(x > 0, x, 0.0 * slope * x)),
        "y has the wrong sign on the negative side: a positive slope and a negative x give a negative y.":
            _prelu(lambda x, slope: torch.where(x > 0, x, -slope * x)),
        "y uses one slope for all channels: the mean of weight. Each channel (axis 1) has its own.":
            _prelu(lambda x, slope: torch.where(x > 0, x, slope.mean() * x)),
        "y is the larger of x and slope · x. That is the same only while the slope is below 1; a learned one may grow.":
            _prelu(lambda x, slope: torch.maximum(x, slope * x)),
        "y takes the slope's absolute value. A learned slope may become negative; let it.":
            _prelu(lambda x, slope: torch.where(x > 0, x, slope.abs() * x)),
    },
)  # fmt: skip


def _silu_function(backward, save=lambda x: x, y=lambda x: x * torch.sigmoid(x)):
    """An autograd.Function with some other backward than SiLU's, or some other forward."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(save(x))
            return y(x)

        @staticmethod
        def backward(ctx, dy):
            (saved,) = ctx.saved_tensors
            return backward(dy, saved, torch.sigmoid(saved))

    return Wrong


autograd_function(
    "SiLUFunction", silu_forward, points=3, minutes=12, difficulty=2,
    forbids=("torch.nn.SiLU", "torch.nn.functional.silu"),
    hints=(
        "`forward(ctx, x)` computes y and puts what backward will need into `ctx.save_for_backward(…)`. One tensor "
        "is enough.",
        "`backward(ctx, dy)` begins with `(x,) = ctx.saved_tensors` and returns one gradient for each input of "
        "forward.",
        "The formula is silu_backward's, with torch in place of np; `torch.sigmoid` is stable.",
    ),
    mistakes={
        "dx has only the first term of the product rule, the gate. Your NumPy backward pass has two.":
            _silu_function(lambda dy, x, s: dy * s),
        "dx has only the second term of the product rule, x times the slope of the gate. Your NumPy backward pass has "
        "two.":
            _silu_function(lambda dy, x, s: dy * x * s * (1 - s)),
        "y lies between 0 and 1: it is the gate alone. What does the gate multiply?":
            _silu_function(lambda dy, x, s: dy * (s + x * s * (1 - s)), y=lambda x: torch.sigmoid(x)),
        "dx is the slope alone: backward never uses dy.":
            _silu_function(lambda dy, x, s: s + x * s * (1 - s)),
        "dx is the gradient of the sigmoid alone. y is a product: which rule differentiates it?":
            _silu_function(lambda dy, x, s: dy * s * (1 - s)),
        "dx is computed from the saved output as if it were the input. Which tensor does your formula want?":
            _silu_function(lambda dy, x, s: dy * (s + x * s * (1 - s)), save=lambda x: x * torch.sigmoid(x)),
    },
)  # fmt: skip


# -- repair ------------------------------------------------------------------------------------------------------------


@exercise(
    points=2, minutes=8, difficulty=2, cases=SOFTMAX_CASES, repair=True,
    hints=(
        "Run it on [[1000, 1000], [0, 0]]. Which row goes wrong, and what has it to do with the other row?",
        "There are two faults: one in the line that shifts, one in the line that divides. Both are about which entries "
        "belong together.",
    ),
    mistakes=SOFTMAX_MISTAKES | {
        "y is NaN in some rows and sums to 1 along the wrong axis: both faults are still there. Which line uses axis?":
            _quiet(lambda x, axis=-1: np.exp(x - x.max()) / np.exp(x - x.max()).sum(-1, keepdims=True)),
        "y is free of NaN, but does not sum to 1 along axis. One fault mended, one left.":
            lambda x, axis=-1: (np.exp(x - x.max(axis, keepdims=True))
                                / np.exp(x - x.max(axis, keepdims=True)).sum(-1, keepdims=True)),
    },
)  # fmt: skip
def repair_softmax_forward(x: "...", axis=-1) -> "y: ...":
    """Find and mend what is wrong with this softmax."""
    return F.softmax(x, dim=axis)


gradient_of(
    relu_forward, name="repair_relu_backward", points=2, minutes=8, difficulty=2, repair=True,
    hints=(
        "Print dy before and after the call. Who else may still need it?",
        "`dx = dy` makes a second name, not a second array. And what happens where x is exactly 0?",
    ),
    mistakes={
        "dx is wrong only where x is exactly 0: PyTorch takes the slope 0 there. One fault mended, one left.":
            lambda dy, x: np.where(x < 0, 0.0, dy),
        "dx was masked by the sign of dy. What decides is the sign of the number that went in.":
            lambda dy, x: np.where(dy <= 0, 0.0, dy),
        "dx is open on the wrong side: gradient passes where x is negative.":
            lambda dy, x: np.where(x >= 0, 0.0, dy),
        "dx holds only zeros and ones: the slope without dy.":
            lambda dy, x: np.where(x > 0, 1.0, 0.0),
    },
)  # fmt: skip


# -- predict -----------------------------------------------------------------------------------------------------------


def _before(x, w, b):
    return x @ w.T + b


def _every_other_row_zero(rng, sizes):
    return rng.normal(size=(sizes["o"], sizes["i"])) * (np.arange(sizes["o"]) % 2)[:, None]


@exercise(
    points=2, minutes=8, difficulty=2,
    cases=[dict(n=4, i=3, o=30), dict(n=6, i=2, o=20), dict(n=1, i=1, o=1),
           dict(n=3, i=2, o=12, w=_every_other_row_zero, b=np.zeros(12))],
    hints=(
        "The layer computes y = relu(x wᵀ + b), of shape (n, o): one row for each example, one column for each unit.",
        "A unit is dead when its whole column is zero. First make a column's verdict with `.all(axis=…)`, then count.",
    ),
    mistakes={
        "count is the number of zeros in y. One zero makes no dead unit: it has to be silent for every example.":
            lambda x, w, b: int((_before(x, w, b) <= 0).sum()),
        "count is of units that are silent for at least one example. Dead means silent for all of them.":
            lambda x, w, b: int((_before(x, w, b) <= 0).any(axis=0).sum()),
        "count is of examples for which the whole layer is silent. Reduce over the other axis.":
            lambda x, w, b: int((_before(x, w, b) <= 0).all(axis=1).sum()),
        "count is of the units that are alive for at least one example: the complement.":
            lambda x, w, b: int((_before(x, w, b) > 0).any(axis=0).sum()),
        "count judges a unit by the sum of its pre-activations. One positive entry keeps it alive, however negative "
        "the others.":
            lambda x, w, b: int((_before(x, w, b).sum(axis=0) <= 0).sum()),
        "count is without the bias: a strongly negative b is the usual cause of death.":
            lambda x, w, b: int((x @ w.T <= 0).all(axis=0).sum()),
        "count misses units whose pre-activation is exactly 0: ReLU gives 0 there too, and its slope is 0.":
            lambda x, w, b: int((_before(x, w, b) < 0).all(axis=0).sum()),
    },
)  # fmt: skip
def count_dead_units(x: "n i", w: "o i", b: "o") -> "count:":
    """How many units of relu(x wᵀ + b) are zero for every example of the batch?"""
    return (F.relu(F.linear(x, w, b)) == 0).all(dim=0).sum()


def _kinks(w, b):
    return (-b[w != 0] / w[w != 0]).tolist()


def _whole_numbers(rng, sizes):
    return rng.integers(-3, 4, size=sizes["o"]).astype(float)


@exercise(
    points=2, minutes=10, difficulty=2,
    cases=[dict(o=7), dict(o=12), dict(o=1),
           dict(o=4, w=np.array([1.0, 2.0, 0.0, -1.0]), b=np.array([1.0, 2.0, 3.0, 2.0])),
           dict(o=3, w=np.array([2.0, -1.0, 3.0]), b=np.zeros(3)), dict(o=2, w=np.zeros(2)),
           dict(o=3, w=np.array([0.0, 0.0, 1.0]), b=np.array([1.0, -1.0, 2.0]))],
    draws=dict(w=_whole_numbers, b=_whole_numbers),
    hints=(
        "A unit relu(w x + b) switches on or off at one place. Where?",
        "A kink at x = −b / w cuts the line in one place more; two units with the same kink cut it only once, "
        "and a unit with w = 0 never.",
    ),
    mistakes={
        "count is the number of units plus one: some of these kinks coincide, or do not exist.":
            lambda w, b: len(w) + 1,
        "count is the number of kinks. How many pieces do three cuts make of a line?":
            lambda w, b: len(set(_kinks(w, b))),
        "count treats equal kinks as different: two cuts at one place make one more piece, not two.":
            lambda w, b: len(_kinks(w, b)) + 1,
        "count is 2 to the power of the number of units: on a line most on/off patterns never occur.":
            lambda w, b: 2 ** len(w),
        "count gives a unit with w = 0 a kink. Its input does not depend on x, so it never switches.":
            lambda w, b: len(set(_kinks(w, b))) + 1 + int((w == 0).any()),
        "count has cuts at infinity: −b / w divides by 0 for some units. Do these switch anywhere?":
            _quiet(lambda w, b: len(np.unique(-b / w)) + 1),
    },
)  # fmt: skip
def count_linear_regions(w: "o", b: "o") -> "count:":
    """Into how many pieces do the units relu(w_k x + b_k) cut the line of all x, by switching on and off?"""
    return torch.unique(b[w != 0] / w[w != 0]).numel() + 1
