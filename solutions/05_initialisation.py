# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Initialisation
#
# A network must start somewhere, and it starts from dice. How large the random weights are decides whether a signal
# still exists after thirty layers, and whether a gradient finds the way back: every layer multiplies both by a factor,
# and factors multiplied thirty times go to nothing or beyond all bounds unless they are 1. The picture below is one
# network with three sizes of weights, before a single step of training.
#
# You will derive the one size that works, for linear layers, for ReLU and for tanh, and build the two initialisations
# that most networks start from (Xavier's and He's), for dense and for convolutional weights; then clipping, which
# catches the gradients that explode all the same. Every claim of the derivation is measured.
#
# **You need** lessons 01 (a linear layer), 02 (the slopes of activations) and 04 (layers in a row). **Time:** about
# three and a half hours, two of them for the exercises.

# %% setup=true
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, mine, reference
from course import data, plots, widgets

# %%
rng, networks = np.random.default_rng(0), {}
for factor in (0.5, 1.0, 2.0):
    weights = [factor * reference("he_normal")((64, 64), rng) for _ in range(30)]
    signals = widgets.initialisation.propagate(weights, "relu", *rng.normal(size=(2, 100, 64)))
    networks[f"He's weights × {factor:g}"] = signals
plots.show(
    widgets.initialisation.levels(networks),
    alt="Root mean square per layer of 30 ReLU layers, logarithmic. With half of He's weights activations fall to 1e-9 "
    "and gradients fall as much towards layer 0, with twice the weights both rise to 1e9, with He's they stay level.",
    caption="30 ReLU layers, three sizes of random weights. Half as large: signal and gradient vanish. "
    "Twice as large: both explode. In between lies a size that keeps them, and this lesson derives it.",
)

# %% [markdown]
# ## Play first
#
# One number before you touch anything. The size of a signal is its **root mean square**: square all its numbers, take
# the mean, take the root.

# %%
widgets.initialisation.guess_depth(reference)

# %% [markdown]
# Now the network is yours. Each column of the two pictures is one layer's histogram, bright where many of its numbers
# lie; below are the sizes of activations and gradients, dots measured, dashes predicted by the derivation that
# follows. The **gain** $g$ sets the standard deviation of the weights, $g / \sqrt{\text{width}}$.
#
# All of it at depth 50:
#
# 1. `relu`: between which two steps of the gain do both stay level?
# 2. `linear`: which gain is level now? What do 5 % more or less do over 50 layers?
# 3. `tanh`, gain 2.5, values *as they are*: where are the activations? And the gradients?
# 4. `sigmoid`: is there a gain on the slider at which the gradients survive?
# 5. `relu`, weights *He*: step through the draws (each is another network) with width 128, then with 16. When does one
#    network stray from the prediction?

# %%
drawers = reference("xavier_uniform"), reference("he_normal")
widgets.initialisation.flow(*drawers, reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# 1. The dashes lie below level at 1.40 and above it at 1.45: level is $\sqrt 2 = 1.414$, and not 1.
# 2. The gain 1. After 50 layers, $1.05^{50} = 11.5$ and $0.95^{50} = 0.08$: five per cent are a factor of ten.
# 3. At the edges: about half of them lie beyond ±0.9, where tanh is flat. They cannot leave [−1, 1], so that nothing
#    *looks* wrong on the left. But the gradients grow by a factor of 100 000: nothing cuts them off.
# 4. No. Even at 2.6 they shrink to about $4 \cdot 10^{-16}$: a sigmoid's slope is at most ¼. (Far off the
#    slider, near 11, the prediction is level: there the weights are so large that a sigmoid is almost a step.)
# 5. At width 128 the eight networks end between 0.35 and 2.2; at width 16 between 0.0005 and 0.5, all of them below the
#    predicted 1. The derivation takes means over all networks, and a narrow, deep one may lie far from the mean.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes
#
# | | shape | |
# |---|---|---|
# | x | (n, fan_in) | what goes into a layer |
# | w | (fan_out, fan_in) | random, independent of each other, mean 0, variance $\sigma^2$ |
# | z = x wᵀ | (n, fan_out) | before the activation; biases start at 0 and play no part |
# | h = f(z) | (n, fan_out) | after it; the next layer's x |
# | dh, dz, dx | as h, z, x | gradients, on the way back |
#
# The **fan in** of a layer is how many inputs reach one output; the **fan out** is how many outputs one input
# reaches. Everything below is one question: by which factor does a layer change the *mean square* $E[\,\cdot\,^2]$ of
# what passes?
#
# ### One output, in numbers
#
# 100 inputs, each +1 or −1, each times a random weight of variance 1, added up. The sum is a random walk of 100
# steps: on average it ends near 0, and its typical distance from there is $\sqrt{100} = 10$. One layer has made the
# signal ten times as large; six such layers make it a million times as large. To keep it, weights of standard
# deviation $\frac{1}{10}$ are needed.
#
# ### Forward
#
# $z_o = \sum_i w_{oi}\,x_i$. Square it and take the mean over the random weights:
# $$E[z_o^2] = \sum_i \sum_k E[w_{oi}\,w_{ok}]\;E[x_i\,x_k].$$
# Weights and inputs are independent, so that the mean of a product is the product of the means. For $i \neq k$,
# $E[w_{oi}\,w_{ok}] = E[w_{oi}]\,E[w_{ok}] = 0$; for $i = k$ it is $\sigma^2$. What is left is
# $$E[z^2] = \text{fan\_in} \cdot \sigma^2 \cdot E[x^2].$$
# Note that it is the mean *square* of $x$ and not its variance: behind a ReLU, $x$ has a mean, and it counts.
#
# ### Backward
#
# $dx_i = \sum_o dz_o\,w_{oi}$ (lesson 01), a sum over the *outputs*. The same four lines give
# $$E[dx^2] = \text{fan\_out} \cdot \sigma^2 \cdot E[dz^2].$$
# One step is bolder here. $dz$ came back through layers whose signals had passed through these very weights; it is
# *taken* to be independent of them. Whether that does harm is a matter of measurement (it hardly does).
#
# ### Xavier: a compromise
#
# Forward wants $\sigma^2 = \frac{1}{\text{fan\_in}}$, backward wants $\frac{1}{\text{fan\_out}}$. Both can be had only
# in a square layer. Glorot and Bengio (2010) take the mean of the two fans:
# $$\sigma^2 = \frac{2}{\text{fan\_in} + \text{fan\_out}}.$$
# (Xavier is Glorot's first name; both names are in use.) They drew from a uniform distribution, whose variance needs
# an integral: for numbers between $-a$ and $a$, $\frac{1}{2a}\int_{-a}^{a} u^2\,du = \frac{a^2}{3}$. So the bound is
# not the standard deviation, but $\sqrt 3$ times it: $a = \sqrt{\frac{6}{\text{fan\_in} + \text{fan\_out}}}$.
#
# ### ReLU: half is lost
#
# $z$ is a sum with random signs, so it is as often $+v$ as $-v$. ReLU keeps the one and makes the other 0: half of
# the mean square is gone, $E[h^2] = \frac12 E[z^2]$. On the way back it lets $dh$ through where $z > 0$, in half of
# the places: $E[dz^2] = \frac12 E[dh^2]$. The same factor in both directions. He, Zhang, Ren and Sun (2015) put it
# back:
# $$\tfrac12 \cdot \text{fan\_in} \cdot \sigma^2 = 1 \quad\Rightarrow\quad \sigma^2 = \frac{2}{\text{fan\_in}}.$$
# And backwards? With this $\sigma^2$ a layer multiplies by $\frac12 \cdot \text{fan\_out} \cdot \sigma^2 =
# \frac{\text{fan\_out}}{\text{fan\_in}}$. One layer's fan out is the next one's fan in, so that over a whole network
# everything cancels but the first and the last: a constant, and no power of the depth. One direction is enough.
#
# ### tanh: nearly linear, until it is not
#
# Near 0, $\tanh z = z - \frac{z^3}{3} + \dots$: the slope is 1, and a layer of small signals behaves like a linear
# one. Level is therefore gain 1, that is $\sigma^2 = \frac{1}{\text{fan\_in}}$. The next term says what happens there
# in the long run. With $z$ normal and $q = E[z^2]$, $E[\tanh^2 z] \approx E[z^2] - \frac23 E[z^4] = q - 2q^2$, since
# $E[z^4] = 3q^2$ for a normal number. So $\frac1q$ grows by about 2 in every layer, and $q \approx
# \frac{1}{2\,\text{layer}}$: the signal fades like $\frac{1}{\sqrt{2\,\text{layer}}}$, to a tenth after 50 layers,
# which is slow: a power of the depth, not a power with the depth in the exponent.
#
# ### Any activation
#
# Write $\sigma^2 = \frac{g^2}{\text{fan\_in}}$ with the gain $g$. With many inputs $z$ is nearly normal (it is a sum
# of many small independent terms), $z \sim N(0, q)$, and a layer with equal fans multiplies
#
# - forward: $q$ becomes $g^2\,E[f(z)^2]$;
# - backward: $E[dh^2]$ is multiplied by $g^2\,E[f'(z)^2]$.
#
# Linear: $g^2$ both ways. ReLU: $\frac{g^2}{2}$ both ways. Sigmoid: $f' \leq \frac14$, so that backwards at most
# $\frac{g^2}{16}$ is left. For tanh the two means have no closed form, but a sum over a hundred points gives them to
# many digits; the dashes of the figure come from there (the method is Poole et al.'s, 2016, and Schoenholz et al.'s,
# 2017).
#
# ### Depth is an exponent
#
# A factor $c$ for the mean square becomes $c^{L}$ after $L$ layers. ReLU with $\sigma^2 = \frac{1}{\text{fan\_in}}$
# has $c = \frac12$: after 30 layers $2^{-30} = 10^{-9}$, and the size, its root, is $3 \cdot 10^{-5}$. That was the
# first question above. And a weight's gradient is a product of both signals, $dw = dz^{\mathsf T} x$: it suffers from
# either.

# %% [markdown]
# ## From scratch
#
# Three functions that draw weights (or count what they need), and one that catches what explodes.

# %% [markdown] about="fan_in_fan_out"
# ### Fan in and fan out
#
# `fan_in_fan_out(shape) -> fan_in, fan_out`: two whole numbers for the shape of a weight array, which is a tuple:
#
# - a linear layer's weights are `(out, in)`;
# - a **convolution** (lesson 09) slides a small window over its input, the *kernel*, KH pixels high and KW wide; its
#   weights are `(out, in, KH, KW)`. Its inputs and outputs are stacks of images, called *channels* (red, green and
#   blue, say): `in` and `out` count those. Each output number is a sum over all input channels *and* all pixels of
#   the window; and each input pixel lies, as the window slides by, once under every place of it, for every output
#   channel. In one dimension the shape is `(out, in, K)`, in three it has five sizes.
#
# By hand: `(5, 3)` gives 3 and 5. `(8, 4, 3, 3)`: one output is a sum of 4 · 9 = 36 products, one input reaches 8 · 9
# = 72 places, so 36 and 72; `(6, 1, 5, 5)` gives 25 and 150. Only the shape counts. (A convolution may split its
# channels into groups that know nothing of each other; its second size is then in / groups. PyTorch counts by the same
# rule: if the last example has six groups, its fan out is still 150, although one input reaches 25 places only.)


# %% exercise="fan_in_fan_out"
def fan_in_fan_out(shape):
    """shape (a tuple of sizes) -> fan_in (), fan_out ()"""
    ### BEGIN SOLUTION
    out, into, *kernel = shape
    area = int(np.prod(kernel))
    return into * area, out * area
    ### END SOLUTION


# %% check="fan_in_fan_out"
check(fan_in_fan_out)

# %% [markdown] about="xavier_uniform"
# ### Xavier, uniform
#
# `xavier_uniform(shape, rng) -> w`: weights of that shape, drawn by **one call**, `rng.uniform(-a, a, shape)`, with
# the bound $a = \sqrt{6 / (\text{fan\_in} + \text{fan\_out})}$. `rng` is a `np.random.Generator`; whoever passes one
# in the same state gets the same weights, and so the check can compare numbers.
#
# By hand: `(2, 4)` has the fans 4 and 2, so $a = \sqrt{6/6} = 1$. The variance is then $\frac13$, and a signal of
# mean square 1 leaves the layer with $4 \cdot \frac13 = 1.33$, a gradient with $2 \cdot \frac13 = 0.67$: a compromise
# pleases nobody quite.


# %% exercise="xavier_uniform"
def xavier_uniform(shape, rng):
    """shape (a tuple of sizes), rng -> w (of that shape)"""
    ### BEGIN SOLUTION
    a = np.sqrt(6 / sum(fan_in_fan_out(shape)))
    return rng.uniform(-a, a, shape)
    ### END SOLUTION


# %% check="xavier_uniform"
check(xavier_uniform)

# %% [markdown] about="he_normal"
# ### He, normal
#
# `he_normal(shape, rng) -> w`: drawn by one call, `rng.normal(0, std, shape)`, with $\text{std} = \sqrt{2 /
# \text{fan\_in}}$. (Kaiming is He's first name; PyTorch calls it `kaiming_normal_`.)
#
# By hand: `(10, 50)` has std $= \sqrt{2/50} = 0.2$. `(16, 8, 3, 3)`: the fan in is 72, std $= \sqrt{2/72} = \frac16$.


# %% exercise="he_normal"
def he_normal(shape, rng):
    """shape (a tuple of sizes), rng -> w (of that shape)"""
    ### BEGIN SOLUTION
    fan_in, _ = fan_in_fan_out(shape)
    return rng.normal(0, np.sqrt(2 / fan_in), shape)
    ### END SOLUTION


# %% check="he_normal"
check(he_normal)

# %% [markdown]
# What you have built, for a layer with 300 inputs and 100 outputs:

# %%
rng = np.random.default_rng(0)
drawn = {"xavier_uniform": xavier_uniform((100, 300), rng), "he_normal": he_normal((100, 300), rng)}
fig, axes = plots.figure(8, 2.5, 2)
for ax, (name, w) in zip(axes, drawn.items(), strict=True):
    ax.hist(w.ravel(), bins=np.linspace(-0.3, 0.3, 61), color=plots.COLOURS["parameter"])
    for side in (-1, 1):
        ax.axvline(side * w.std(), color="#333333", ls="--")
    ax.set(title=f"{name}: standard deviation {w.std():.4f}", xlabel="weight", yticks=[])
plots.show(
    fig,
    alt="Two histograms of 30 000 weights. Xavier's is a box from −0.12 to 0.12 with its standard deviation at 0.07; "
    "He's is a bell with standard deviation 0.08.",
    caption="30 000 weights each; the dashes are one standard deviation. A box ends at √3 = 1.73 times its standard "
    "deviation, here at √(6/400) = 0.1225; a bell has no end.",
)

# %% [markdown]
# And the figure from the start, with weights of yours. *Xavier* and *He* call your two functions.

# %%
widgets.initialisation.flow(xavier_uniform, he_normal, reference, activation="tanh", start="Xavier")

# %% [markdown] about="clip_grad_norm"
# ### Clipping by norm
#
# A good start does not keep gradients from exploding later: one odd batch, one cliff in the loss, and a single step
# throws the network far off. Pascanu, Mikolov and Bengio (2013) limit the step. Put all gradients of the network into
# one long vector. If it is longer than `max_norm`, shorten it to that length; its direction stays.
#
# `clip_grad_norm(grads, max_norm) -> grads, norm`: `grads` is a list of arrays of any shapes, one for each parameter.
# Returned is a **new** list of arrays of the same shapes (those given stay as they are), and the norm *before*
# clipping, a number. PyTorch's rule, to the letter: every gradient is multiplied by
# $$\min\Big(1,\ \frac{\text{max\_norm}}{\text{norm} + 10^{-6}}\Big), \qquad
# \text{norm} = \sqrt{\textstyle\sum \text{of the squares of all numbers in all arrays}}.$$
# The $10^{-6}$ guards against a division by 0. The check looks closely, in float64: at gradients of 0, at tiny ones,
# and at a norm that just equals `max_norm`.
#
# By hand: `grads = [[[3, 0]], [4]]`, norm $\sqrt{9 + 0 + 16} = 5$. With `max_norm = 10` nothing changes. With
# `max_norm = 1` all are multiplied by $\frac{1}{5.000001}$: `[[[0.6, 0]], [0.8]]` to six digits, and the norm
# returned is 5.


# %% exercise="clip_grad_norm"
def clip_grad_norm(grads, max_norm):
    """grads (a list of arrays), max_norm () -> grads (a new list), norm ()"""
    ### BEGIN SOLUTION
    norm = np.sqrt(sum(np.sum(grad**2) for grad in grads))
    scale = min(1.0, max_norm / (norm + 1e-6))
    return [scale * grad for grad in grads], norm
    ### END SOLUTION


# %% check="clip_grad_norm"
check(clip_grad_norm)

# %% [markdown]
# Your function at work on two parameters. Clipping *by value*, number by number, is the other custom. Find a gradient
# that it turns by 30 degrees or more. Is there one that it does not turn at all, though it clips it?

# %%
widgets.initialisation.clipping(clip_grad_norm, reference)

# %% [markdown]
# <details><summary>Where</summary>
#
# (8, 1) with `max_norm` 1 becomes (1, 1): turned by 38 degrees. Only gradients on an axis or a diagonal keep their
# direction, such as (5, 5). In a network with a million parameters hardly anything lies on a diagonal.
#
# </details>

# %% [markdown]
# ## Against a reference
#
# ### Prediction and measurement
#
# The derivation took means over random weights and assumed that gradients are independent of them. So: 40 layers of
# width 100, ten networks with ten seeds, 100 random inputs each. The dashes know nothing of these networks.


# %%
def measured(activation, gain, seed, width=100, depth=40):
    """Mean squares per layer, of activations and of gradients, in one random network."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, gain / np.sqrt(width), (width, width)) for _ in range(depth)]
    signals = widgets.initialisation.propagate(weights, activation, *rng.normal(size=(2, 100, width)))
    return [widgets.initialisation.mean_squares(arrays) for arrays in signals]


settings = [("linear", 0.9), ("relu", 1.0), ("relu", 2**0.5), ("tanh", 1.0), ("tanh", 2.0)]
runs = {setting: np.array([measured(*setting, seed) for seed in range(10)]) for setting in settings}

# %%
fig, axes = plots.figure(12, 2.9, 5)
layers = np.arange(0, 41, 4)
for ax, (setting, found) in zip(axes, runs.items(), strict=True):
    wanted = widgets.initialisation.predicted(*setting, 40)
    for k, (name, role) in enumerate((("activations", "output"), ("gradients", "gradient"))):
        root = np.sqrt(found[:, k, layers])
        middle = np.median(root, axis=0)
        spread = np.abs(np.array([root.min(axis=0), root.max(axis=0)]) - middle)
        ax.errorbar(layers, middle, spread, fmt="o", ms=4, color=plots.COLOURS[role], label=name)
        ax.plot(np.sqrt(wanted[k]), "--", color=plots.COLOURS[role])
    ax.set(title=f"{setting[0]}, gain {setting[1]:.3g}", yscale="log", ylim=(1e-7, 1e4), xlabel="layer")
axes[0].legend(loc="lower center")
plots.show(
    fig,
    alt="Five panels of root mean squares per layer. The measured points lie along the predicted lines: linear with "
    "gain 0.9 and ReLU with gain 1 fall, ReLU with 1.41 stays, tanh with 1 falls slowly, with 2 its gradients grow.",
    caption="Predicted (dashes) and measured (median of ten networks; bars from the least to the greatest). "
    "ReLU's points spread more the further a signal has come.",
)

# %% tags=["nbval-check-output"]
print("decades that the root mean square changes over 40 layers: activations forward, gradients back")
for setting, found in runs.items():
    wanted = widgets.initialisation.predicted(*setting, 40)
    ends = [(0.5 * np.log10(found[:, 0, -1]), wanted[0][-1]), (0.5 * np.log10(found[:, 1, 0]), wanted[1][0])]
    said = [f"{0.5 * np.log10(w) + 1e-9:6.2f}, measured {m.min():6.2f} to {m.max():6.2f}" for m, w in ends]
    print(f"{setting[0]:<6} gain {setting[1]:.2f}   predicted {said[0]}   predicted {said[1]}")

# %% [markdown]
# The assumption about gradients does no visible harm. What the prediction does not tell is the spread: a mean over
# all networks is not what *one* network does. For deep ReLU networks Hanin and Nica (2018) worked it out: the
# logarithm of the mean square is nearly normal, with variance $\beta = \frac{5\,\text{depth}}{\text{width}}$ and mean
# $-\frac{\beta}{2}$. The mean of the *logarithm* lies below the logarithm of the mean: rare large networks hold the
# average up, and a typical one fades. Their formula, measured on one input through 40 layers with He's gain:

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(0)
for width in (20, 40, 80):
    logs = []
    for _ in range(200):
        h = np.ones(width)
        for _ in range(40):
            h = np.maximum(rng.normal(0, np.sqrt(2 / width), (width, width)) @ h, 0)
        logs.append(np.log(max(np.mean(h**2), 1e-300)))
    beta = 5 * 40 / width
    print(f"width {width}: mean of ln {np.mean(logs):5.1f} (formula {-beta / 2:5.1f}), "
          f"standard deviation {np.std(logs):.1f} (formula {beta**0.5:.1f})")

# %% [markdown]
# So what has to be small is not the depth, but depth over width.
#
# ### Your draws and PyTorch's
#
# The same distributions? Both draw a million weights for a convolution of shape (250, 160, 5, 5). Then clipping:
# fifty random lists of gradients, and the cases in which an implementation goes wrong.

# %% tags=["nbval-check-output"]
shape, rng = (250, 160, 5, 5), np.random.default_rng(1)
torch.manual_seed(1)
theirs = {"xavier_uniform": nn.init.xavier_uniform_, "he_normal": nn.init.kaiming_normal_}
for name, draw in (("xavier_uniform", xavier_uniform), ("he_normal", he_normal)):
    ours, other = draw(shape, rng), theirs[name](torch.empty(shape)).numpy()
    stds, largest = ([f(np.abs(w) if f is np.max else w) for w in (ours, other)] for f in (np.std, np.max))
    print(f"{name:<15} std {stds[0]:.5f} and {stds[1]:.5f}   largest {largest[0]:.4f} and {largest[1]:.4f}")


# %% tags=["nbval-check-output"]
def both(grads, max_norm):
    """Clipped gradients and the norm as one vector: yours, PyTorch's."""
    parameters = [nn.Parameter(torch.zeros(grad.shape, dtype=torch.float64)) for grad in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    clipped, own = clip_grad_norm(grads, max_norm)
    theirs = [parameter.grad.numpy() for parameter in parameters]
    return [np.concatenate([*map(np.ravel, arrays), [n]]) for arrays, n in ((clipped, own), (theirs, norm.item()))]


rng = np.random.default_rng(2)
cases = {"50 random lists": [([rng.normal(size=s) for s in ((4, 3), (4,))], rng.uniform(0.1, 8)) for _ in range(50)]}
cases["the norm is just max_norm"] = [([np.array([3.0]), np.array([4.0])], 5.0)]
cases["all gradients 0"] = [([np.zeros((2, 2)), np.zeros(2)], 1.0)]
cases["gradients of 1e-7"] = [([np.full((2, 2), 1e-7), np.full(2, 1e-7)], 1e-7)]
for name, lists in cases.items():
    largest = max(np.abs(np.subtract(*both(*given))).max() for given in lists)
    print(f"{name:<26} largest difference {'below 1e-15' if largest < 1e-15 else f'{largest:.0e}'}")

# %%
norms = np.linspace(0, 10, 41)
results = [[both([np.array([n, 0.0])], 3.0)[who][0] for n in norms] for who in (0, 1)]
lines = {
    "your clip_grad_norm": (norms, results[0], {"colour": plots.COLOURS["gradient"]}),
    "PyTorch's clip_grad_norm_": (norms[::4], results[1][::4], {"colour": "#777777", "points": True, "line": False}),
}
labels = dict(x_label="norm before", y_label="norm after", y_range=(0, 4), width=560, height=230)
plots.show(
    widgets.picture.curve(lines, "norm after clipping against the norm before", **labels),
    alt="The norm after clipping rises with the norm before up to 3 and stays there; PyTorch's points lie on the line.",
    caption="max_norm = 3: short gradients pass, long ones are cut to 3. PyTorch's points lie on your line.",
)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `xavier_uniform` | `nn.init.xavier_uniform_(w, gain=1.0)` | in place: the `_` at the end says so |
# | `he_normal` | `nn.init.kaiming_normal_(w, mode="fan_in")` | its default gain is √2, ReLU's |
# | `clip_grad_norm` | `nn.utils.clip_grad_norm_(parameters, max_norm)` | in place, in `.grad`; gives the norm before |
# | – | `nn.init.calculate_gain(name)` | 1 for linear, √2 for ReLU, 5/3 for tanh |
# | – | `nn.init.orthogonal_(w)` | rows (or columns) of length 1 at right angles |
#
# And if you call none of them? `nn.Linear` draws its weights *and* biases uniformly from $\pm
# 1/\sqrt{\text{fan\_in}}$: a third of the variance that a linear layer needs, a sixth of what ReLU needs. Lesson 01
# left the question open whether that is good for depth. Some facts first:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
layer, w = nn.Linear(400, 300), torch.empty(300, 400)
facts = {
    "nn.Linear: variance of the weights times fan_in is 1/3": (layer.weight.var() * 400, 1 / 3),
    "nn.Linear: its largest weight is 1/√fan_in": (layer.weight.abs().max(), 400**-0.5),
    "kaiming_uniform_(a=√5) has that bound": (nn.init.kaiming_uniform_(w, a=5**0.5).abs().max(), 400**-0.5),
    "kaiming_normal_ by default: variance 2/fan_in": (nn.init.kaiming_normal_(w).var(), 2 / 400),
    "mode='fan_out': variance 2/fan_out": (nn.init.kaiming_normal_(w, mode="fan_out").var(), 2 / 300),
    "the gain of tanh is 5/3": (torch.tensor(nn.init.calculate_gain("tanh")), 5 / 3),
    "orthogonal_: w wᵀ is the identity": (nn.init.orthogonal_(w) @ w.T, torch.eye(300)),
}
for fact, (value, wanted) in facts.items():
    right = torch.allclose(value, torch.as_tensor(wanted, dtype=value.dtype), rtol=0.02, atol=1e-5)
    print("right" if right else "WRONG", "·", fact)

# %% [markdown] about="gradient_norms"
# ### The norms of a model's gradients
#
# The first thing to look at when a deep network does not learn. `gradient_norms(model, x, y) -> norms`: `model` is an
# `nn.Sequential`, `x (n, i)` a tensor, `y (n,)` a tensor of integer classes. Returned is a NumPy array with one
# number for each parameter, in the order of `model.parameters()`: the Euclidean norm of the gradient of
# `F.cross_entropy(model(x), y)`.
#
# Only look: the parameters stay as they are. And what a backward pass before yours has left in `.grad` must not get
# into your numbers: `backward()` *adds* (lesson 04).
#
# By hand: if a parameter's gradient is `[[3, 0], [0, 4]]`, its number is 5.


# %% exercise="gradient_norms"
def gradient_norms(model, x, y):
    """model (an nn.Sequential), x (n, i), y (n) -> norms (k): one for each parameter"""
    ### BEGIN SOLUTION
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return np.array([gradient.norm().item() for gradient in gradients])
    ### END SOLUTION


# %% check="gradient_norms"
check(gradient_norms)

# %% [markdown]
# Against two witnesses, on a network of two layers: central differences of the loss, number by number, and PyTorch's
# `.grad`.

# %%
torch.manual_seed(0)
small = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
x, y, h = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2]), 1e-5
numerical = []
for parameter in small.parameters():
    slopes = []
    for index in np.ndindex(*parameter.shape):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[index] += sign * h
                losses.append(F.cross_entropy(small(x), y).item())
                parameter[index] -= sign * h
        slopes.append((losses[0] - losses[1]) / (2 * h))
    numerical.append(np.linalg.norm(slopes))
F.cross_entropy(small(x), y).backward()
from_torch = [parameter.grad.norm().item() for parameter in small.parameters()]
plots.gradient_check({"norms": (gradient_norms(small, x, y), numerical, from_torch)})

# %% [markdown] about="initialise"
# ### Initialising a model in place
#
# `initialise(model, generator)` gives every `nn.Linear` of a model, wherever it stands, He's normal weights and a
# bias of 0. It returns nothing: the model is changed.
#
# - In the order of `model.modules()`, one call for each layer: `weight.normal_(0, std, generator=generator)`, with
#   $\text{std} = \sqrt{2 / \text{in\_features}}$. A `torch.Generator` is to PyTorch what `rng` is to NumPy.
# - A layer may have no bias. Parameters of other modules (PReLU's slope, lesson 02) are none of your business.
# - **In place**: an optimiser, or another module, may already hold these parameters. So fill them, don't replace
#   them; and since autograd refuses to record a change of a parameter, do it `with torch.no_grad():`.
#
# By hand: `nn.Linear(8, 5)` gets 40 numbers of standard deviation $\sqrt{2/8} = 0.5$, and five zeros.


# %% exercise="initialise"
def initialise(model, generator):
    """model (an nn.Module), generator (a torch.Generator) -> nothing: the model is changed"""
    ### BEGIN SOLUTION
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear):
                part.weight.normal_(0, (2 / part.in_features) ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()
    ### END SOLUTION


# %% check="initialise"
check(initialise)

# %% [markdown]
# Now the open question. A ReLU network of 30 layers of 64, once as PyTorch leaves it, once after your `initialise`.
# Two numbers for the last hidden layer: the size of its activations, and how much of that size distinguishes one
# digit from another (the standard deviation over the digits, against the root mean square).

# %% tags=["nbval-check-output"]
digits = data.digits()
x, y = torch.tensor(digits.x_train[:200]), torch.tensor(digits.y_train[:200])


def deep_model(depth, width=64):
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 10)).double()


torch.manual_seed(0)
default, started = deep_model(30), deep_model(30)
initialise(started, torch.Generator().manual_seed(0))
norms = {}
for name, model in (("PyTorch's default", default), ("after initialise", started)):
    with torch.no_grad():
        h = model[:-1](x)
    size, differs = h.square().mean().sqrt(), h.var(0).mean().sqrt()
    norms[name] = gradient_norms(model, x, y)[::2]
    print(f"{name:<18} size {size:.3f}, of which differs between digits {differs / size:.0e}; "
          f"gradient norm of the first weights {norms[name][0]:.0e}")

# %%
lines = {name: (np.arange(1, 32), np.log10(values)) for name, values in norms.items()}
labels = dict(x_label="layer", y_label="log₁₀ of the norm", width=600, height=250)
plots.show(
    widgets.picture.curve(lines, "norm of each weight's gradient, layer by layer", **labels),
    alt="With PyTorch's default the gradient norms fall from the last layer to the first by many decades; after "
    "initialise they stay within about one decade.",
    caption="The gradient of each layer's weights before training, by your gradient_norms. Left is the first layer.",
)

# %% [markdown]
# By default nothing of the digit is left after 30 layers: the activations do not even vanish, since the random biases
# refill them in every layer, but all digits give the same ones. PyTorch inherited this default from its predecessor,
# Torch, and kept it; it does little harm where layers are few or normalised (lesson 08). If you stack plain ReLU
# layers, initialise.

# %% [markdown]
# ## At work
#
# A deep network of your own parts: the layers of lesson 04, the loss of lesson 03, the weights of this lesson, 64
# pixels → 8 hidden layers of 32 → 10 digits. Whichever of these you have not passed yet comes from the reference.

# %%
LinearLayer, ReLULayer, Sequential = mine("LinearLayer"), mine("ReLULayer"), mine("Sequential")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")

# %%
starts = {
    "zeros": lambda shape, rng: np.zeros(shape),
    "small": lambda shape, rng: rng.normal(0, 0.01, shape),
    "Xavier": xavier_uniform,
    "He": he_normal,
    "large": lambda shape, rng: 2 * he_normal(shape, rng),
}


def network(widths, draw, rng):
    """A Sequential of linear layers with ReLU between, weights by draw, biases 0."""
    layers = []
    for i, o in pairwise(widths):
        layers += [LinearLayer(draw((o, i), rng), np.zeros(o)), ReLULayer()]
    return Sequential(layers[:-1])


# %%
def train(model, lr, epochs, rng):
    """Gradient descent with batches of 64; yields train loss and test accuracy after every epoch."""
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(digits.x_train)), 22):
            logits = model.forward(digits.x_train[batch])
            model.backward(cross_entropy_backward(1.0, logits, digits.y_train[batch]))
            for parameter, gradient in zip(model.parameters(), model.gradients(), strict=True):
                parameter -= lr * gradient
        loss = cross_entropy_forward(model.forward(digits.x_train), digits.y_train)
        yield float(loss), float((model.forward(digits.x_test).argmax(axis=1) == digits.y_test).mean())


# %% [markdown]
# One run to watch, from He's weights:

# %%
widths, epochs = [64, *[32] * 8, 10], 2 if plots.fast() else 8
with plots.Training(epochs, "train loss", "test accuracy") as run:
    rng = np.random.default_rng(0)
    for values in train(network(widths, he_normal, rng), 0.1, epochs, rng):
        run.log(*values)

# %% [markdown]
# Then all five starts, three seeds each, the same learning rate. Before you look: which of them will learn, and to
# which will the seed make hardly any difference?

# %%
histories = {name: [] for name in starts}
with np.errstate(all="ignore"):  # large weights overflow
    for name, draw in starts.items():
        for seed in range(3):
            rng = np.random.default_rng(seed)
            histories[name].append(list(train(network(widths, draw, rng), 0.1, epochs, rng)))

# %%
plots.show(
    widgets.initialisation.courses(histories),
    alt="Train loss and test accuracy of five starts, three seeds each. Only Xavier and He leave the plateau at loss "
    "2.30 and ten per cent; He is faster.",
    caption="Eight hidden layers, learning rate 0.1, three seeds each. Zeros and small weights stay at ln 10 = 2.30, "
    "whatever the seed (zeros draw nothing: it only shuffles their batches); large ones overflow at once, so that "
    "their loss is not a number and no line is drawn.",
)

# %%
for name, runs in histories.items():
    print(f"{name:<7} test accuracy after {epochs} epochs:", "  ".join(f"{history[-1][1]:.2f}" for history in runs))

# %% [markdown]
# ### But is that fair?
#
# One learning rate for all flatters the start that it happens to suit. Large weights make large gradients and so may
# want smaller steps. So: six learning rates for each start, three seeds, in one batch of networks (NumPy multiplies
# stacks of matrices). And one more row: large weights, their gradients clipped to norm 1.


# %%
def forward_all(layers, x):
    """Many networks at once: w (runs, o, i), b (runs, 1, o), x (n, i) -> what goes into each layer, and the logits."""
    hs = [np.broadcast_to(x, (len(layers[0][0]), *x.shape))]
    for w, b in layers:
        hs.append(np.maximum(hs[-1] @ w.swapaxes(1, 2) + b, 0))
    hs[-1] = hs[-2] @ layers[-1][0].swapaxes(1, 2) + layers[-1][1]  # no ReLU at the end
    return hs


def gradients_all(layers, x, t):
    *hs, logits = forward_all(layers, x)
    e = np.exp(logits - logits.max(axis=2, keepdims=True))
    dz = (e / e.sum(axis=2, keepdims=True) - np.eye(10, dtype=x.dtype)[t]) / len(t)
    grads = []
    for (w, _), h in zip(reversed(layers), reversed(hs), strict=True):
        grads.append((dz.swapaxes(1, 2) @ h, dz.sum(axis=1, keepdims=True)))
        dz = (dz @ w) * (h > 0)
    return grads[::-1]


# %%
def accuracies(draw, rates, max_norm=np.inf, seeds=3):
    """Test accuracies (seeds, rates) after training."""
    x_train, x_test = digits.x_train.astype(np.float32), digits.x_test.astype(np.float32)
    rngs = [np.random.default_rng(seed) for seed in range(seeds)]
    drawn = [np.stack([draw((o, i), rng) for rng in rngs]).astype(np.float32) for i, o in pairwise(widths)]
    ws = [np.repeat(w, len(rates), axis=0) for w in drawn]
    layers = [(w, np.zeros((len(w), 1, w.shape[1]), np.float32)) for w in ws]
    lr, rng = np.tile(np.float32(rates), seeds)[:, None, None], np.random.default_rng(0)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(x_train)), 22):
            grads = gradients_all(layers, x_train[batch], digits.y_train[batch])
            norm = np.sqrt(sum((g**2).sum(axis=(1, 2), keepdims=True) for pair in grads for g in pair))
            step = lr * np.minimum(1, max_norm / (norm + 1e-6))
            layers = [(w - step * dw, b - step * db) for (w, b), (dw, db) in zip(layers, grads, strict=True)]
    right = forward_all(layers, x_test)[-1].argmax(axis=2) == digits.y_test
    return right.mean(axis=1).reshape(seeds, len(rates))


# %%
rates, epochs = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3], 2 if plots.fast() else 12
with np.errstate(all="ignore"):
    swept = {name: accuracies(draw, rates) for name, draw in starts.items() if name != "zeros"}
    swept["large, clipped"] = accuracies(starts["large"], rates, max_norm=1.0)
fig, ax = plots.figure(7, 3.2)
for number, (name, found) in enumerate(swept.items(), 1):
    middle = np.median(found, axis=0)
    bars = np.abs(np.array([found.min(axis=0), found.max(axis=0)]) - middle)
    at = np.array(rates) * 1.03 ** (number - 3)  # side by side
    ax.errorbar(at, middle, bars, fmt="o-", ms=4, color=f"C{number}", label=name, capsize=2)
ax.set(xscale="log", xlabel="learning rate", ylabel="test accuracy", ylim=(0, 1))
ax.legend(loc="upper left")
plots.show(
    fig,
    alt="Test accuracy against the learning rate for small, Xavier, He and large weights, and large ones with "
    "clipping. He's curve is highest; small weights stay at ten per cent at every rate.",
    caption="Median of three seeds, bars from the least to the greatest. No learning rate makes up for a start from "
    "which no gradient arrives; clipping lets large weights take larger steps.",
)

# %%
for name, found in swept.items():
    best = np.median(found, axis=0).argmax()
    print(f"{name:<15} best at {rates[best]:<6} {' '.join(f'{value:.2f}' for value in sorted(found[:, best]))}")

# %% [markdown]
# Read it fairly, and against the derivation. A layer of 32 ReLU units multiplies the mean square by $16\,\sigma^2$:
#
# - *Small* weights, $\sigma = 0.01$: by 0.0016, eight times in a row $10^{-22}$, in size $10^{-11}$. No learning rate
#   makes up for that.
# - *Xavier*, $\sigma^2 = \frac{1}{32}$: by ½, in size $\frac{1}{16}$ after eight layers. That is no wall, only a slow
#   start. At twice the depth it would be $\frac{1}{256}$.
# - *He*: by 1, and the highest accuracy of the five at its best rate. A factor $\sqrt 2$ per weight is all the
#   difference.
# - *Large*, twice He's: by 4, in size 256 after eight layers. The first logits are off by hundreds, the first gradients
#   by far more, and only steps a hundred times smaller keep the network in one piece.
# - *Clipped*, those large weights can take large steps again. But the bars are long: clipping limits how far a bad
#   start throws the network, and leaves it a bad start.

# %% [markdown]
# ## Look inside
#
# ### Units that never part
#
# Why not simply start at zero, or at any one number? Two hidden units with equal weights compute equal outputs. If
# the next layer also weighs them equally, they receive equal gradients, take equal steps, and are equal again: by
# induction, for ever. A layer of sixteen such units is one unit, sixteen times. The random start is there to make
# them *different*; that its size must also be right is the second task.
#
# One hidden layer of 16 units, four starts. Each small image is the 64 incoming weights of one unit. Step through the
# epochs. Which start with zeros in it works, and why?

# %%
def special(first, last):
    """Draws the hidden layer's weights by `first`, the output layer's by `last`."""
    return lambda shape, rng: (first if shape[1] == 64 else last)(shape, rng)


choices = {
    "zeros": starts["zeros"],
    "all equal": lambda shape, rng: np.full(shape, 0.05),
    "last layer zero": special(he_normal, starts["zeros"]),
    "He": he_normal,
}
inside, epochs = {}, 2 if plots.fast() else 12
for name, draw in choices.items():
    rng = np.random.default_rng(0)
    model = network([64, 16, 10], draw, rng)
    accuracy = float((model.forward(digits.x_test).argmax(axis=1) == digits.y_test).mean())
    inside[name] = [(model.parameters()[0].copy(), accuracy)]
    for _, accuracy in train(model, 0.3, epochs, rng):
        inside[name].append((model.parameters()[0].copy(), accuracy))
widgets.initialisation.symmetry(inside, "all equal")

# %% [markdown]
# <details><summary>Which, and why</summary>
#
# *Last layer zero* learns as well as He. Its first gradient for the hidden layer is 0, since $dh = dz\,w$ with $w =
# 0$; but the output layer's own gradient is $dz^{\mathsf T} h$, and $h$ differs from unit to unit. After one step the
# output weights differ, and from the second step on the hidden layer learns too. What must not be is symmetry between
# units; zeros as such are harmless where the other side breaks it. Deep residual networks use that on purpose (lesson
# 12; Zhang, Dauphin and Ma, 2019).
#
# *Zeros* in both layers: $h = 0$ and the ReLU's slope is 0 too, so that only the output biases learn: how frequent
# each digit is. *All equal*: the units learn, in step, and remain one.
#
# </details>

# %%
for name, history in inside.items():
    w, accuracy = history[-1]
    print(f"{name:<16} different units: {widgets.initialisation.distinct(w):>2} of 16   test accuracy {accuracy:.2f}")

# %% [markdown]
# ### What survives is not only size
#
# He's weights keep the size of a signal. Do they keep its content? Two random inputs at right angles, through ReLU
# layers of width 200 with He's weights, and through linear layers with Xavier's: the cosine of the angle between
# them.

# %%
def angles(activation, draw, seed, depth=40, width=200):
    rng = np.random.default_rng(seed)
    weights = [draw((width, width), rng) for _ in range(depth)]
    x, _ = np.linalg.qr(rng.normal(size=(width, 2)))
    hs, _ = widgets.initialisation.propagate(weights, activation, x.T * np.sqrt(width), x.T)
    return [float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in hs]


lines = {}
for name, draw in (("relu", he_normal), ("tanh", xavier_uniform), ("linear", xavier_uniform)):
    runs = [angles(name, draw, seed) for seed in range(5)]
    lines[f"{name}, {draw.__name__}"] = widgets.chart.several(range(41), runs)
labels = dict(x_label="layer", y_range=(-0.75, 1.05), width=640, height=260)
plots.show(
    widgets.picture.curve(lines, "two inputs at right angles, on their way", "cosine of the angle", **labels),
    alt="Five seeds each. Under ReLU the cosine rises from 0 to nearly 1 within 40 layers; under tanh and linear "
    "layers it wanders around 0.",
    caption="Five networks each. ReLU layers turn any two inputs towards each other, until the deep layers can hardly "
    "tell them apart; linear and tanh layers do not.",
)

# %% [markdown]
# This is the reason why a plain ReLU network of 40 layers is hard to train even from He's weights. The remedies are
# not better dice, but other architectures: normalisation (lesson 08) and, where a network is as deep as this one, skip
# connections (lesson 12).

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# Two broken draws of kinds that real code has, and two numbers to predict.

# %% [markdown] about="repair_xavier_uniform"
# ### Repair: the bound that is a standard deviation
#
# `repair_xavier_uniform(shape, rng) -> w`: asked is what `xavier_uniform` gives. The author looked up "Xavier: the
# standard deviation is √(2 / (fan_in + fan_out))", which is true, and drew a uniform distribution. No error, weights
# of a plausible size; twenty linear layers shrink a signal to 0.00002 of its size. Find out by how much
# the variance is off before you mend it. By hand: for the shape `(2, 4)` the bound is 1, and the broken one 0.577.


# %% exercise="repair_xavier_uniform"
def repair_xavier_uniform(shape, rng):
    """shape (a tuple of sizes), rng -> w (of that shape)"""
    ### BEGIN SOLUTION
    area = int(np.prod(shape[2:]))
    std = np.sqrt(2 / (shape[1] * area + shape[0] * area))
    return rng.uniform(-np.sqrt(3) * std, np.sqrt(3) * std, shape)
    ### BROKEN
    # area = int(np.prod(shape[2:]))
    # std = np.sqrt(2 / (shape[1] * area + shape[0] * area))
    # return rng.uniform(-std, std, shape)
    ### END SOLUTION


# %% check="repair_xavier_uniform"
check(repair_xavier_uniform)

# %% [markdown] about="repair_he_normal"
# ### Repair: right for square layers
#
# `repair_he_normal(shape, rng) -> w`: asked is what `he_normal` gives. It passed its author's test, which looked at a
# layer of shape `(64, 64)`. Then the network got a first layer from 784 pixels to 64, and convolutions. There are two
# faults. By hand: `(64, 784)` should have the standard deviation
# $\sqrt{2/784} = 0.05$; the broken one gives it $\sqrt{2/64} = 0.18$.


# %% exercise="repair_he_normal"
def repair_he_normal(shape, rng):
    """shape (a tuple of sizes), rng -> w (of that shape)"""
    ### BEGIN SOLUTION
    fan_in = shape[1] * int(np.prod(shape[2:]))
    return rng.normal(0, np.sqrt(2 / fan_in), shape)
    ### BROKEN
    # fan_in = shape[0]
    # return rng.normal(0, np.sqrt(2 / fan_in), shape)
    ### END SOLUTION


# %% check="repair_he_normal"
check(repair_he_normal)

# %% [markdown] about="predict_decades"
# ### Predict: how much is left
#
# `predict_decades(depth, width, weight_std, activation) -> decades`: a network of `depth` layers without biases, all
# of `width` units, weights from $N(0, \text{weight\_std}^2)$, and after **every** layer the activation, `"linear"`
# (nothing) or `"relu"`. What goes in has a mean square of 1. Return log₁₀ of the mean square that the derivation
# predicts for what comes out: −6 for a millionth, 0 for level, 6 for a million.
#
# By hand: 10 ReLU layers of width 200 with weight_std 0.1. One layer: $200 \cdot 0.01 = 2$, ReLU halves it:
# factor 1, so 0 decades. The same layers without ReLU: $2^{10} = 1024$, so 3.01.


# %% exercise="predict_decades"
def predict_decades(depth, width, weight_std, activation):
    """depth (), width (), weight_std (), activation ("linear" or "relu") -> decades ()"""
    ### BEGIN SOLUTION
    factor = width * weight_std**2
    if activation == "relu":
        factor /= 2
    return depth * np.log10(factor)
    ### END SOLUTION


# %% check="predict_decades"
check(predict_decades)

# %% [markdown] about="layers_until_zero"
# ### Predict: when does float32 give up
#
# The smallest positive number of float32 is $2^{-149} \approx 1.4 \cdot 10^{-45}$; what is much smaller is rounded to
# 0, and a gradient of 0 is no gradient. A network of ReLU layers, all of `width` units, weights from $N(0,
# \text{weight\_std}^2)$; at its end the gradients have a root mean square of 1, and by the prediction every layer
# back multiplies it by the same factor.
#
# `layers_until_zero(width, weight_std) -> layers`: after how many layers is the root mean square for the first time
# *below* $2^{-149}$? The factor is always less than 1 here.
#
# By hand: width 200 and weight_std 0.05. The mean square is multiplied by $200 \cdot 0.0025 / 2 = \frac14$, its root
# by $\frac12$. After 149 layers it is just $2^{-149}$, after 150 it is below: 150.


# %% exercise="layers_until_zero"
def layers_until_zero(width, weight_std):
    """width (), weight_std () -> layers ()"""
    ### BEGIN SOLUTION
    factor = np.sqrt(width * weight_std**2 / 2)
    return np.floor(149 * np.log(2) / -np.log(factor)) + 1
    ### END SOLUTION


# %% check="layers_until_zero"
check(layers_until_zero)

# %% [markdown]
# For PyTorch's default weights, $\text{weight\_std}^2 = \frac{1}{3\,\text{width}}$, the factor is $\sqrt{1/6} = 0.41$
# for every width. The prediction, and the truth in float32, with one network for each of five seeds:

# %% tags=["nbval-check-output"]
def last_gradient(width, seed):
    """Layers that a gradient in float32 passes back through until all of it is 0."""
    rng = np.random.default_rng(seed)
    bound, dh, layers = 1 / np.sqrt(width), rng.normal(size=(20, width)).astype(np.float32), 0
    while dh.any():
        w = rng.uniform(-bound, bound, (width, width)).astype(np.float32)
        dh = (dh * (rng.random(dh.shape) < 0.5)) @ w  # half of the units let it pass
        layers += 1
    return layers


print("predicted:", int(layers_until_zero(128, 1 / np.sqrt(3 * 128))))
print("measured: ", [last_gradient(128, seed) for seed in range(5)])

# %% [markdown]
# ### What people believe, and what is true
#
# - **"He is always better than Xavier."** He's factor 2 makes up for ReLU's loss. In front of a tanh there is no such
#   loss: set the first figure to tanh, gain 1.4, depth 50, and it predicts gradients 7 times as large. Match the gain
#   to the activation.
# - **"Weights must not be zero."** Units must not be *equal*. A last layer of zeros learned above; PyTorch's biases
#   could be zero, and He's are.
# - **"Biases must be random too."** The weights already make units differ. In PyTorch's default network of 30 layers,
#   random biases were all that was left at the end.
# - **"A uniform distribution is worse than a normal one."** Only the variance enters the derivation. The shape
#   matters little once a few dozen inputs are added up.
# - **"tanh needs the gain 5/3."** PyTorch's `calculate_gain` says so, with little justification: the derivation gives
#   1 for small signals. A gain above 1 keeps the size of a signal from fading, and in return gradients grow with
#   depth. Which is better depends on the depth.
# - **"With a good start, gradients stay good."** The derivation holds at step 0. What happens later is up to the
#   loss, the learning rate and the data; hence clipping.
# - **"Clipping makes training stable, so it cannot hurt."** It makes a too large learning rate survivable, and hides
#   it. Watch the norm that the function returns: if most steps are clipped, the real learning rate is no longer the
#   one you set.
#
# What is *disputed*: how much it matters. With normalisation after each layer the size of the weights cancels (lesson
# 08), and skip connections keep a path open whatever the weights; so modern networks train from many starts. On the
# other side, Fixup (Zhang, Dauphin and Ma, 2019) trains very deep residual networks without any normalisation, from
# the start alone. Neither side says that it does not matter.

# %% [markdown]
# ## Where it is used, and what came after
#
# Every network starts from one of these draws. GPT draws its weights from a normal distribution of standard
# deviation 0.02 (Radford et al., 2018), and GPT-2 divides those that end a residual branch by the square root of the
# number of branches (Radford et al., 2019): the derivation again, for sums instead of products. **Orthogonal** weights
# keep every vector's length, not only the average one's: Saxe, McClelland and Ganguli (2014) solved the learning of
# deep *linear* networks exactly and found that from an orthogonal start its speed does not depend on the depth.
# **LSUV** (Mishkin and Matas, 2016) does not derive but measures: it passes one batch through and rescales every layer
# to unit variance. Recurrent networks multiply by the *same* weights at every time step, so that nothing averages out;
# clipping was invented for them (lesson 16).
#
# You can now
#
# - say by which factor a layer changes signals and gradients, and choose weights that make it 1;
# - predict, from depth, width and the size of the weights, what arrives, and how far a single network may stray from
#   that;
# - initialise any PyTorch model in place, and read its gradient norms before the first step;
# - clip gradients as PyTorch does, and say what clipping cannot repair;
# - tell the two tasks of a random start apart: units that differ, and a size that lasts.
#
# To read:
#
# - X. Glorot and Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*, 2010. Short,
#   and full of histograms per layer.
# - R. Pascanu, T. Mikolov and Y. Bengio, *On the difficulty of training recurrent neural networks*, 2013. Cliffs, and
#   clipping.
# - A. M. Saxe, J. L. McClelland and S. Ganguli, *Exact solutions to the nonlinear dynamics of learning in deep linear
#   neural networks*, 2014.
# - K. He, X. Zhang, S. Ren and J. Sun, *Delving deep into rectifiers: surpassing human-level performance on ImageNet
#   classification*, 2015. Section 2.2 is the derivation.
# - S. S. Schoenholz, J. Gilmer, S. Ganguli and J. Sohl-Dickstein, *Deep information propagation*, 2017. When content
#   survives, not only size.
