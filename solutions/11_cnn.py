# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Convolutional networks
#
# Convolutions and pools in turn, and a linear layer behind them: that is a **convolutional network**, a CNN. You will
# train one in your own NumPy layers, train another in PyTorch, and then take it apart with six instruments that you
# build: what does each layer see, which pictures excite a channel, which pixels does an answer hang on, what is lost
# when a channel is gone, and what can be read off each layer?
#
# Every textbook says that the first layers of a CNN see edges, later ones textures, then parts, then objects. It is
# usually shown by well-chosen pictures. Here the data come from a generator that knows the truth at each level, so that
# the sentence can be *measured*. One half of it will hold.
#
# **You need** lessons 04 (layers with `forward` and `backward`), 07 (weight decay), 09 (convolution) and 10 (pooling,
# receptive fields). **Time:** about five hours, three of them for the exercises.

# %% setup=true
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets
from course.data import scene_cnn, scenes

# %%
conv2d_forward, conv2d_backward = mine("conv2d_forward_fast"), mine("conv2d_backward")
max_pool2d_forward, max_pool2d_backward = mine("max_pool2d_forward"), mine("max_pool2d_backward")

# %%
plots.show(
    widgets.cnn.levels(),
    alt="Two small grey pictures of each level: single edges; stripes and dots; a circle and a cross on faint "
    "textures; a house and a cart, each of two shapes; scenes of two objects side by side.",
    caption="The five levels of this lesson's data. Edges make textures, textures and contours make shapes, two shapes "
    "make an object, two objects a scene. What is where is known for every picture.",
)

# %% [markdown]
# ## Play first
#
# A CNN has been trained on 8000 scenes, to name the two objects and say which is on the left. House and easel are made
# of the same two shapes, tree and cart likewise, so that no bag of shapes gives the answer away. It gets 99 of 100 new
# scenes right, and nobody ever told it what an edge, a texture, a shape or an object is. Its parts:
#
# | | layers | maps |
# |---|---|---|
# | 1 | 5 × 5 convolution, ReLU, 2 × 2 max pool | 16 of 48 × 48 |
# | 2 | 3 × 3 convolution, ReLU, 2 × 2 max pool | 16 of 24 × 24 |
# | 3 | 3 × 3 convolution, ReLU, 2 × 2 max pool | 16 of 12 × 12 |
# | 4 | 3 × 3 convolution, ReLU | 16 of 6 × 6 |
# | end | the mean of each map, a linear layer | 8 answers |
#
# Before you move anything, say what you expect: in which layer will you still be able to recognise the scene? Where
# does a single bright spot mean *there is a house*?

# %%
network = scene_cnn.load()
widgets.cnn.maps(network, reference("activation_maps"))

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# The maps of `relu1` are the scene, sixteen times filtered: contours light in some, the ground in others. In `relu2`
# the scene is still there, coarser. In `relu3` and `relu4` only blobs are left, and different channels light up at
# different objects. That *looks* like edges first and objects last. But looking is not measuring: keep your impression
# until the last figure of the lesson.
#
# </details>
#
# ## The mathematics
#
# ### Shapes first
#
# | layer | output for images `(n, 1, 48, 48)` | parameters | receptive field | jump |
# |---|---|---|---|---|
# | conv1, relu1 | `(n, 16, 48, 48)` | 16 · (1 · 25) + 16 = 416 | 5 | 1 |
# | pool1 | `(n, 16, 24, 24)` | 0 | 6 | 2 |
# | conv2, relu2 | `(n, 16, 24, 24)` | 16 · (16 · 9) + 16 = 2320 | 10 | 2 |
# | pool2 | `(n, 16, 12, 12)` | 0 | 12 | 4 |
# | conv3, relu3 | `(n, 16, 12, 12)` | 2320 | 20 | 4 |
# | pool3 | `(n, 16, 6, 6)` | 0 | 24 | 8 |
# | conv4, relu4 | `(n, 16, 6, 6)` | 2320 | 40 | 8 |
# | gap, flatten | `(n, 16)` | 0 | all | |
# | fc | `(n, 8)` | 8 · 16 + 8 = 136 | all | |
#
# Together 7512 parameters. The last two columns are lesson 10's `receptive_field`: a number of `relu3` has seen 20 × 20
# pixels, and its neighbour sees a window 4 pixels further on. The shapes in our scenes are 9 to 12 pixels wide, and
# objects 18 to 24 pixels high: a unit of `relu2` sees one shape if it is small, a unit of `relu3` one object if it is
# small, and only `relu4` sees two objects at once. That bounds what a layer *can* know at one place. What it does know
# is another question.
#
# ### Backwards: nothing new
#
# Each layer knows its own gradient (lessons 09 and 10), and the chain rule hands `dy` from one to the next (lesson 04).
# Only the last stage is new, the **global average** of each map, `gap`. Each of its $h\,w$ numbers enters the mean with
# weight $\frac{1}{hw}$, so each gets $\frac{1}{hw}$ of what arrives. A map has no favourite place: *somewhere in the
# picture* is all that `fc` learns of it.
#
# The new thing is to follow the chain **one step further than training does**: to the picture. Write $z_t(x)$ for the
# logit of class $t$ and $a_k(x)$ for the mean of channel $k$'s map. Both are functions of the pixels, and the backward
# pass gives their gradients, with the parameters held still.
#
# ### Saliency: which pixels does an answer hang on?
#
# To first order $z_t(x + \delta) \approx z_t(x) + \sum_p g_p\,\delta_p$ with $g = \partial z_t / \partial x$. So $|g_p|$
# says how much the logit moves per unit of change at pixel $p$; of several colour channels the largest counts (Simonyan
# et al., 2013). For a whole batch, differentiate $\sum_n z_{t_n}(x_n)$. At image $m$ all terms but its own are
# constants, so the gradient there is $\partial z_{t_m}(x_m) / \partial x_m$: one backward pass, and no image gets mixed
# with another. (Unless the network mixes them itself: batch norm in training does.)
#
# ### The picture that a channel likes best
#
# Climb $a_k(x)$ by gradient ascent on the pixels. Without restraint that ends in glaring noise, so one pulls the
# picture back towards grey, with the penalty $\frac{\lambda}{2}\sum_p x_p^2$. A step of ascent on
# $a_k - \frac{\lambda}{2}|x|^2$ is
# $$x \leftarrow x + \eta\,(\hat g - \lambda x) = (1 - \eta\lambda)\,x + \eta\,\hat g = (1 - d)\,x + \eta\,\hat g,$$
# weight decay (lesson 07) for pixels, with decay $d = \eta\lambda$. The gradient is **normalised**, $\hat g = g /
# \mathrm{rms}(g)$ with $\mathrm{rms}(g) = \sqrt{\overline{g^2}}$: gradients at the pixels differ by powers of ten from
# layer to layer, and one step size should do for all. If $\hat g$ kept its direction, the picture would grow as $\eta +
# (1-d)\eta + (1-d)^2\eta + \dots \to \eta / d$: with $\eta = d = 0.05$, to a contrast of 1, which is what the scenes
# have.
#
# The third usual restraint is **jitter**: at each step the picture is rolled by a pixel or two in a random direction,
# differentiated there, and rolled back. A pattern that only works in exact step with the grid of the pools does not
# survive that (Mordvintsev et al., 2015; Olah et al., 2017).
#
# Be clear about what this is not. The result is no picture that the network has seen, and another start gives another
# one. It says what the channel responds to most; it does not say what the channel is *for*.
#
# ### Linear probes: what can be read off a layer?
#
# Take the numbers of a layer as features $x_i \in \mathbb{R}^d$, hold the network still, and fit a *linear* classifier
# for a question of your own: is this a circle? If that succeeds on new pictures, the answer is **readable** at this
# layer (Alain and Bengio, 2016). Ridge regression of the one-hot labels $y_i$ has a closed form, so a probe has no
# learning rate and no luck:
# $$J(W, b) = \sum_i |W x_i + b - y_i|^2 + \rho\,|W|^2.$$
# *By $b$*: $2\sum_i (W x_i + b - y_i) = 0$, so $b = \bar y - W\bar x$. Put that in, and with $\tilde x_i = x_i - \bar
# x$, $\tilde y_i = y_i - \bar y$ as the rows of $X$ and $Y$ the intercept is gone: $J = |X W^\top - Y|^2 + \rho\,|W|^2$.
# *By $W^\top$*: $2 X^\top(X W^\top - Y) + 2\rho\,W^\top = 0$, so
# $$(X^\top X + \rho\,I)\,W^\top = X^\top Y.$$
# For $\rho > 0$ the matrix is positive definite, and there is exactly one solution. The intercept is not penalised:
# how often a class comes is no reason to doubt it.

# %% [markdown]
# ## From scratch
#
# Three layers in NumPy, a count, and the probe. The instruments come in the half on PyTorch, since they are for looking
# into PyTorch's networks.

# %% [markdown] about="ConvLayer"
# ### A convolution as a layer
#
# `ConvLayer(w, b, stride=1, padding=0)` with lesson 04's four methods: `forward(x) -> y`, `backward(dy) -> dx`,
# `parameters() -> [w, b]` (the very arrays that `forward` uses, so that an optimiser may change them in place) and
# `gradients() -> [dw, db]` of the last backward pass. `x (n, c, h, w)`, `w (o, c, kh, kw)`, `b (o,)`. The work is done
# by `conv2d_forward(x, w, b, stride, padding)` and `conv2d_backward(dy, x, w, b, stride, padding) -> dx, dw, db`, which
# were bound above: yours of lesson 09, where they passed their checks. (Lessons 09 and 10 had such a layer ready, for
# stride 1. This one takes any, and is yours.)
#
# By hand, one window: `x = [[1, 2], [3, 4]]`, a 2 × 2 kernel of ones and bias 1 give `y = 11`. With `dy = 1`: `dx` is
# the kernel, `dw` is `x`, `db` is 1.


# %% exercise="ConvLayer"
class ConvLayer:
    """x (n, c, h, w) -> y (n, o, oh, ow), with parameters w (o, c, kh, kw) and b (o,)"""

    ### BEGIN SOLUTION
    def __init__(self, w, b, stride=1, padding=0):
        self.w, self.b, self.stride, self.padding = w, b, stride, padding

    def forward(self, x):
        self.x = x
        return conv2d_forward(x, self.w, self.b, self.stride, self.padding)

    def backward(self, dy):
        dx, self.dw, self.db = conv2d_backward(dy, self.x, self.w, self.b, self.stride, self.padding)
        return dx

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]

    ### END SOLUTION


# %% check="ConvLayer"
check(ConvLayer)

# %% [markdown] about="MaxPoolLayer"
# ### Max pooling as a layer
#
# `MaxPoolLayer(kernel_size, stride=None)`: nothing to learn, but the backward pass needs the input.
# `max_pool2d_forward(x, kernel_size, stride)` and `max_pool2d_backward(dy, x, kernel_size, stride)` know that
# `stride=None` means `kernel_size`.
#
# By hand: `x = [[1, 4], [2, 3]]` with `kernel_size=2` gives 4, and `dy = 5` comes back as `dx = [[0, 5], [0, 0]]`.


# %% exercise="MaxPoolLayer"
class MaxPoolLayer:
    """x (n, c, h, w) -> y (n, c, oh, ow)"""

    ### BEGIN SOLUTION
    def __init__(self, kernel_size, stride=None):
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x):
        self.x = x
        return max_pool2d_forward(x, self.kernel_size, self.stride)

    def backward(self, dy):
        return max_pool2d_backward(dy, self.x, self.kernel_size, self.stride)

    def parameters(self):
        return []

    def gradients(self):
        return []

    ### END SOLUTION


# %% check="MaxPoolLayer"
check(MaxPoolLayer)

# %% [markdown] about="FlattenLayer"
# ### From maps to rows
#
# `FlattenLayer()`: `x (n, …)` becomes `y (n, d)`, in the order in which PyTorch's `nn.Flatten` reads: channel after
# channel, row after row. Backwards the numbers return to their places.
#
# By hand, one image with two channels of 1 × 2 pixels: `[[[1, 2]], [[3, 4]]]` becomes `[1, 2, 3, 4]`.


# %% exercise="FlattenLayer"
class FlattenLayer:
    """x (n, ...) -> y (n, d)"""

    ### BEGIN SOLUTION
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self.shape)

    def parameters(self):
        return []

    def gradients(self):
        return []

    ### END SOLUTION


# %% check="FlattenLayer"
check(FlattenLayer)

# %% [markdown] about="linear_probe"
# ### A linear probe
#
# `linear_probe(features, labels, ridge=1.0) -> w, b`: `features (n, d)`, `labels (n,)` whole numbers from 0,
# `w (k, d)`, `b (k,)` with `k` the largest label plus one. The formula is above; the probe's answer to an example is
# the place of the largest of `features @ w.T + b`.
#
# By hand, two examples with one feature: `features = [[0], [2]]`, `labels = [0, 1]`, `ridge = 2`. The means are 1 and
# (½, ½). Centred: features −1, 1; targets (½, −½), (−½, ½). $X^\top X + \rho = 2 + 2 = 4$ and $X^\top Y = (-1, 1)$, so
# `w = [[−0.25], [0.25]]` and `b = (½, ½) − w · 1 = (0.75, 0.25)`. For the feature 0 the answers are (0.75, 0.25): class
# 0. For 2 they are (0.25, 0.75): class 1.

# %%
w, b = reference("linear_probe")(np.array([[0.0], [2.0]]), np.array([0, 1]), 2.0)
np.testing.assert_allclose(w, [[-0.25], [0.25]])
np.testing.assert_allclose(b, [0.75, 0.25])


# %% exercise="linear_probe"
def linear_probe(features, labels, ridge=1.0):
    """features (n, d), labels (n,), ridge -> w (k, d), b (k,)"""
    ### BEGIN SOLUTION
    targets = np.eye(labels.max() + 1)[labels]
    x, y = features - features.mean(axis=0), targets - targets.mean(axis=0)
    w = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y).T
    return w, targets.mean(axis=0) - w @ features.mean(axis=0)
    ### END SOLUTION


# %% check="linear_probe"
check(linear_probe)

# %% [markdown]
# ## Against a reference
#
# Three witnesses for a whole CNN: your layers' gradient of the loss with respect to the kernels of the first and the
# second convolution and to the linear layer's weights, finite differences, and PyTorch. Six images of 7 × 6 pixels, two
# classes; the upstream gradient is that of the cross-entropy.

# %%
Sequential, LinearLayer, ReLULayer = mine("Sequential"), mine("LinearLayer"), mine("ReLULayer")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(11)
shapes = (2, 1, 3, 3), (2,), (3, 2, 2, 3), (3,), (2, 6), (2,)
values = [rng.normal(size=shape) for shape in shapes]
images, targets = rng.normal(size=(6, 1, 7, 6)), np.array([0, 1, 1, 0, 1, 0])


def small_cnn(w1, b1, w2, b2, w3, b3):
    first = [ConvLayer(w1, b1, padding=1), ReLULayer(), MaxPoolLayer(2)]
    second = [ConvLayer(w2, b2), ReLULayer(), FlattenLayer(), LinearLayer(w3, b3)]
    return Sequential(first + second)


def loss_of(*values):
    return cross_entropy_forward(small_cnn(*values).forward(images), targets)


def torch_loss(w1, b1, w2, b2, w3, b3):
    x = F.max_pool2d(F.relu(F.conv2d(torch.from_numpy(images), w1, b1, padding=1)), 2)
    return F.cross_entropy(F.linear(F.relu(F.conv2d(x, w2, b2)).flatten(1), w3, b3), torch.from_numpy(targets))


# %%
model = small_cnn(*values)
model.backward(cross_entropy_backward(1.0, model.forward(images), targets))
leaves = [torch.from_numpy(value).requires_grad_() for value in values]
by_torch = torch.autograd.grad(torch_loss(*leaves), leaves)
gradients = {}
for k, name in ((0, "dw conv 1"), (2, "dw conv 2"), (4, "dw linear")):
    nudged = numerical_gradient(lambda w, k=k: loss_of(*values[:k], w, *values[k + 1 :]), values[k])
    gradients[name] = model.gradients()[k], nudged, by_torch[k].numpy()
plots.gradient_check(gradients)

# %% [markdown]
# And the probe. At the minimum the gradient of its loss is 0; PyTorch says whether yours is there.

# %% tags=["nbval-check-output"]
features, labels = rng.normal(size=(40, 6)) + 3, rng.integers(4, size=40)
w, b = (torch.from_numpy(value).requires_grad_() for value in linear_probe(features, labels))
residual = torch.from_numpy(features) @ w.T + b - F.one_hot(torch.from_numpy(labels), 4)
for name, slope in zip("wb", torch.autograd.grad(residual.square().sum() + w.square().sum(), (w, b)), strict=True):
    print(f"gradient of the probe's loss at {name}: below 1e-9 {bool(slope.abs().max() < 1e-9)}")

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `ConvLayer(w, b, stride, padding)` | `nn.Conv2d(c, o, kernel_size, stride, padding)` | draws its own parameters, `weight` and `bias` |
# | `MaxPoolLayer(2)` | `nn.MaxPool2d(2)` | the same default stride |
# | `FlattenLayer()` | `nn.Flatten()` | `torch.flatten(x)` without `start_dim=1` takes the batch along |
# | the mean of each map | `nn.AdaptiveAvgPool2d(1)` | gives `(n, c, 1, 1)`: flatten it |
#
# The order of convolution, ReLU and max pool is habit in part: ReLU never changes which of two numbers is larger, so it
# can stand before or after the max pool, as lesson 10 verified. (With average pools the order matters.)

# %% [markdown] about="SceneCNN"
# ### The network for scenes
#
# `SceneCNN(width=16, classes=8)`: the network from the table, `x (n, 1, h, w)` to `logits (n, classes)`. Its attributes
# are, in the order of the forward pass: `conv1`, `relu1`, `pool1`, `conv2`, `relu2`, `pool2`, `conv3`, `relu3`,
# `pool3`, `conv4`, `relu4`, `gap`, `flatten`, `fc`. Each is a module of its own (`nn.ReLU()` too), so that the
# instruments below can find it by its name. `conv1` has 5 × 5 kernels, the other three 3 × 3; all are padded so that
# height and width stay. `width` is the number of channels of all four.
#
# By hand: with `width=1`, every weight 0 and every bias 1, `conv4` gives 1 everywhere, the mean of its map is 1, and
# `fc`, whose weights are 0, answers 1 for every class.


# %% exercise="SceneCNN"
class SceneCNN(nn.Module):
    """x (n, 1, h, w) -> logits (n, classes)"""

    def __init__(self, width=16, classes=8):
        super().__init__()
        ### BEGIN SOLUTION
        self.conv1, self.relu1, self.pool1 = nn.Conv2d(1, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
        self.conv2, self.relu2, self.pool2 = nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.conv3, self.relu3, self.pool3 = nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.conv4, self.relu4 = nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        self.gap, self.flatten, self.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x
        ### END SOLUTION

# %% check="SceneCNN"
check(SceneCNN)

# %% [markdown]
# Your class has the names of the trained network, so it can carry its weights:

# %% tags=["nbval-check-output"]
own = SceneCNN()
own.load_state_dict(network.state_dict())
images, labels = scenes.sample("scene", 500, seed=2)
images, labels = torch.from_numpy(images), torch.from_numpy(labels)
with torch.no_grad():
    print("the same answers:", torch.allclose(own(images), network(images), atol=1e-4))
    print(f"right of 500 new scenes: {(own(images).argmax(dim=1) == labels).float().mean():.0%}")

# %% [markdown] about="activation_maps"
# ### What a layer sees
#
# `activation_maps(model, x, layer) -> maps`: what the module `layer` of the model gives while `model(x)` runs. `x` is a
# tensor `(n, c, h, w)`, `layer` a name out of `model.named_modules()`, such as `"relu2"` or `"stage.0"`; `maps` has the
# shape that this module's output has, `(n, k, h', w')` for a convolution.
#
# The tool for it is a **forward hook**: a function that PyTorch calls with `(module, inputs, output)` whenever the
# module has run. `handle = model.get_submodule(layer).register_forward_hook(hook)` attaches it, `handle.remove()` takes
# it away. Whoever looks must leave no trace: no hook stays, the mode (training or evaluation) is not touched, nobody's
# `.grad` changes, the maps are detached from the graph. And they are a copy, since an in-place ReLU behind the layer
# may write over its output later.
#
# By hand: a convolution with the kernel `[[−1, 1]]` and bias 0 turns the row `[0, 0, 1, 1]` into the map `[0, 1, 0]`.
# That is an edge detector.

# %%
edge = nn.Sequential(nn.Conv2d(1, 1, (1, 2)), nn.ReLU(inplace=True)).double()
edge.load_state_dict({"0.weight": torch.tensor([[[[-1.0, 1.0]]]]), "0.bias": torch.zeros(1)})
rows = torch.tensor([[0.0, 0, 1, 1], [0, 3, 3, 0], [2, 2, 2, 2]], dtype=torch.float64).reshape(3, 1, 1, 4)
print(reference("activation_maps")(edge, rows, "0")[:, 0, 0])


# %% exercise="activation_maps"
def activation_maps(model, x, layer):
    """model, x (n, c, h, w), layer -> maps (n, k, h', w'), detached"""
    ### BEGIN SOLUTION
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: kept.append(output.detach().clone())
    )
    try:
        with torch.no_grad():
            model(x)
    finally:
        handle.remove()
    return kept[0]
    ### END SOLUTION


# %% check="activation_maps"
check(activation_maps)

# %% [markdown] about="top_patches"
# ### What excites a channel
#
# `top_patches(model, images, layer, channel, k) -> image, row, column`: the `k` images in which the channel's map has
# its largest numbers, strongest first, and where in the map each largest number stands. Three arrays (or tensors) of
# `k` whole numbers. An image counts once, by the largest number of its map. The layer gives maps
# `(n, channels, h', w')`; places are places in the *map*, and which pixels belong to them the receptive field says.
#
# By hand, the three rows above and the same kernel: the maps are `[0, 1, 0]`, `[3, 0, −3]` and `[0, 0, 0]`. With
# `k = 2`: image 1 first (3, at row 0, column 0), then image 0 (1, at row 0, column 1).

# %%
print(*reference("top_patches")(edge, rows, "0", 0, 2))


# %% exercise="top_patches"
def top_patches(model, images, layer, channel, k):
    """model, images (n, c, h, w), layer, channel, k -> image (k,), row (k,), column (k,)"""
    ### BEGIN SOLUTION
    maps = activation_maps(model, images, layer)[:, channel].numpy()
    flat = maps.reshape(len(maps), -1)
    image = np.argsort(-flat.max(axis=1), kind="stable")[:k]
    row, column = divmod(flat.argmax(axis=1)[image], maps.shape[2])
    return image, row, column
    ### END SOLUTION


# %% check="top_patches"
check(top_patches)

# %% [markdown] about="ablate_channel"
# ### What is lost without a channel
#
# `ablate_channel(model, x, layer, channel) -> answers`: what the model answers, `(n, classes)`, while the channel's
# output of that layer is 0 for every image. A forward hook that returns something *replaces* the output with it.
# Afterwards the model is as it was.
#
# By hand: one pixel $x = 3$, a 1 × 1 convolution to two channels with weights 2 and −1 and biases 0 and 1, then the sum
# of the two. The channels are 6 and −2, the answer is 4. Without channel 0 it is −2, without channel 1 it is 6. (With
# channel 1's *weights* set to 0, its bias would still be there: 7.)

# %%
two = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 1)).double()
numbers = [2.0, -1.0], [0.0, 1.0], [1.0, 1.0], [0.0]
for parameter, value in zip(two.parameters(), numbers, strict=True):
    parameter.data = torch.tensor(value, dtype=torch.float64).reshape(parameter.shape)
three = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
print([reference("ablate_channel")(two, three, "0", channel).item() for channel in (0, 1)])


# %% exercise="ablate_channel"
def ablate_channel(model, x, layer, channel):
    """model, x (n, c, h, w), layer, channel -> answers (n, classes), detached"""
    ### BEGIN SOLUTION
    def switch_off(module, inputs, output):
        output = output.clone()
        output[:, channel] = 0
        return output

    handle = model.get_submodule(layer).register_forward_hook(switch_off)
    try:
        with torch.no_grad():
            return model(x)
    finally:
        handle.remove()
    ### END SOLUTION


# %% check="ablate_channel"
check(ablate_channel)

# %% [markdown] about="saliency"
# ### Which pixels an answer hangs on
#
# `saliency(model, x, target) -> (n, h, w)`: for each image the absolute gradient of *its own* target's logit with
# respect to its pixels, of the channels the largest. `x (n, c, h, w)`, `target (n,)` whole numbers. Neither `x` (which
# does not ask for gradients, and should not afterwards) nor any parameter's `.grad` may change:
# `torch.autograd.grad(goal, x)` returns the gradient and puts it nowhere.
#
# By hand, an image of two pixels and a linear layer with the weights `[[1, −2], [3, 0.5]]`: for target 0 the saliency
# is `[1, 2]`, for target 1 it is `[3, 0.5]`, whatever the pixels are.

# %%
flat = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double()
flat[1].weight.data = torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64)
print(reference("saliency")(flat, torch.randn(2, 1, 1, 2).double(), torch.tensor([0, 1])))


# %% exercise="saliency"
def saliency(model, x, target):
    """model, x (n, c, h, w), target (n,) -> (n, h, w)"""
    ### BEGIN SOLUTION
    x = x.detach().clone().requires_grad_()
    goal = model(x)[range(len(x)), target].sum()
    (gradient,) = torch.autograd.grad(goal, x)
    return gradient.abs().amax(dim=1)
    ### END SOLUTION


# %% check="saliency"
check(saliency)

# %% [markdown] about="maximise_activation"
# ### The picture that a channel likes best
#
# `maximise_activation(model, layer, channel, steps, rng, shape=(1, 48, 48), lr=0.05, decay=0.05, jitter=2) -> picture`:
# a detached tensor of that shape, from this recipe, so that everybody gets the same picture:
#
# 1. Start: `rng.normal(0, 0.1, shape)`, as a tensor of the parameters' dtype.
# 2. At each step draw `dy, dx = rng.integers(-jitter, jitter + 1, 2)`, and roll the picture by `dy` rows and `dx`
#    columns (`torch.roll`, dims 1 and 2) on its way into the model, as a batch of one.
# 3. The goal is the mean of the channel's map at this layer. $g$ is its gradient with respect to the picture *before*
#    the roll (autograd rolls it back, if the roll is part of what is differentiated).
# 4. $\hat g = g / (\mathrm{rms}(g) + 10^{-8})$, where the small number keeps a silent channel from $0 / 0$.
# 5. `picture = (1 − decay) · picture + lr · ĝ`.
#
# The parameters' `.grad` stay as they are. A layer may also be a linear one; then the channel is a unit and the mean is
# its number. To get at the layer's output with its graph, let a hook keep `output` itself, neither detached nor copied.
#
# By hand, two pixels, a convolution with the 1 × 2 kernel `[3, 4]`, no jitter, one step: $g = (3, 4)$, its root mean
# square is $\sqrt{12.5} = 3.54$, so $\hat g = (0.849, 1.131)$, and the picture is 0.95 times the noise plus (0.042,
# 0.057).

# %%
kernel = nn.Sequential(nn.Conv2d(1, 1, (1, 2))).double()
kernel[0].weight.data = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
noise = np.random.default_rng(0).normal(0, 0.1, (1, 1, 2))
picture = reference("maximise_activation")(kernel, "0", 0, 1, np.random.default_rng(0), (1, 1, 2), jitter=0)
print((picture.numpy() - 0.95 * noise).round(3))


# %% exercise="maximise_activation"
def maximise_activation(model, layer, channel, steps, rng, shape=(1, 48, 48), lr=0.05, decay=0.05, jitter=2):
    """model, layer, channel, steps, rng, shape, lr, decay, jitter -> picture of that shape, detached"""
    ### BEGIN SOLUTION
    picture = torch.tensor(rng.normal(0, 0.1, shape), dtype=next(model.parameters()).dtype)
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        for _ in range(steps):
            shift = rng.integers(-jitter, jitter + 1, 2).tolist()
            picture.requires_grad_()
            model(torch.roll(picture, shift, dims=(1, 2))[None])
            (g,) = torch.autograd.grad(kept.pop()[0, channel].mean(), picture)
            g = g / (g.square().mean().sqrt() + 1e-8)
            picture = (1 - decay) * picture.detach() + lr * g
    finally:
        handle.remove()
    return picture.detach()
    ### END SOLUTION


# %% check="maximise_activation"
check(maximise_activation)

# %% [markdown]
# ## At work
#
# ### Digits: your layers and PyTorch's
#
# Two convolutions, two pools and a linear layer on digits of 8 × 8 pixels, once in your layers and once in PyTorch,
# from the same weights (He's, lesson 05) and over the same batches.


# %%
def he(shape, rng):
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


def digit_cnn(seed):
    rng = np.random.default_rng(seed)
    first = [ConvLayer(he((8, 1, 3, 3), rng), np.zeros(8), padding=1), ReLULayer(), MaxPoolLayer(2)]
    second = [ConvLayer(he((16, 8, 3, 3), rng), np.zeros(16), padding=1), ReLULayer(), MaxPoolLayer(2)]
    return Sequential([*first, *second, FlattenLayer(), LinearLayer(he((10, 64), rng), np.zeros(10))])


def descend(model, x, targets, lr=0.1):
    logits = model.forward(x)
    model.backward(cross_entropy_backward(1.0, logits, targets))
    for parameter, gradient in zip(model.parameters(), model.gradients(), strict=True):
        parameter -= lr * gradient  # in place: these are the layers' own arrays
    return cross_entropy_forward(logits, targets)


# %%
def twin_of(model):
    """PyTorch's network with the same numbers."""
    first = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    twin = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(64, 10)).double()
    for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
        theirs.data = torch.from_numpy(ours.copy())
    return twin


def torch_descend(twin, optimiser, x, targets):
    loss = F.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(targets))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


# %%
digits, rng, epochs = data.digits(), np.random.default_rng(0), 2 if plots.fast() else 8
x_train, x_test = digits.x_train.reshape(-1, 1, 8, 8), digits.x_test.reshape(-1, 1, 8, 8)
model = digit_cnn(0)
twin = twin_of(model)
optimiser, pairs = torch.optim.SGD(twin.parameters(), lr=0.1), []
with plots.Training(epochs, "your loss", "PyTorch's loss", "your accuracy") as run:
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(x_train)), 45):
            batch = x_train[rows], digits.y_train[rows]
            pairs.append((descend(model, *batch), torch_descend(twin, optimiser, *batch)))
        right = (model.forward(x_test).argmax(axis=1) == digits.y_test).mean()
        run.log(*np.mean(pairs[-45:], axis=0), right)

# %% tags=["nbval-check-output"]
yours, theirs = np.array(pairs).T
print("parameters:", sum(parameter.size for parameter in model.parameters()))
print("the first 20 losses differ by less than 1e-9:", bool(np.abs(yours - theirs)[:20].max() < 1e-9))

# %% [markdown]
# One curve hides the other. What differs, if anything does, is the order in which sums are added up.
#
# ### What did the convolution gain?
#
# For a fair answer it needs an opponent: two linear layers with a ReLU between, 26 hidden units, 1960 parameters
# against 1898. And two controls that you know one by one. Lesson 09's digits, whose 64 pixels have all changed places,
# in every picture in the same way: for linear layers nothing has changed, since they know no neighbours. And lesson
# 10's test digits that have moved by one pixel. What happens to digits that have suffered both?


# %%
def digit_mlp(seed):
    rng = np.random.default_rng(seed)
    hidden, out = LinearLayer(he((26, 64), rng), np.zeros(26)), LinearLayer(he((10, 26), rng), np.zeros(10))
    return Sequential([FlattenLayer(), hidden, ReLULayer(), out])


places = {"": np.arange(64), ", pixels in disorder": np.random.default_rng(0).permutation(64)}
steps = [(0, 1), (0, -1), (1, 0), (-1, 0)]
tests = [x_test], [widgets.cnn_training.moved(x_test, *step) for step in steps]


def trained_accuracies(make, order, seed):
    """Test accuracy as they are, and moved by a pixel; the pixels change places last."""
    model, rng = make(seed), np.random.default_rng(seed)
    shuffled = [[x.reshape(-1, 64)[:, order].reshape(-1, 1, 8, 8) for x in group] for group in ([x_train], *tests)]
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(x_train)), 45):
            descend(model, shuffled[0][0][rows], digits.y_train[rows])
    answers = [[model.forward(x).argmax(axis=1) for x in group] for group in shuffled[1:]]
    return [np.mean([found == digits.y_test for found in group]) for group in answers]


# %%
results = {
    name + how: np.array([trained_accuracies(make, order, seed) for seed in range(1 if plots.fast() else 3)])
    for name, make in (("CNN", digit_cnn), ("linear", digit_mlp))
    for how, order in places.items()
}
widgets.cnn_training.guess_moved(results, "CNN")

# %% [markdown]
# <details><summary>What was measured, and why</summary>
#
# Sobering at first, and no news since lesson 09: on the digits as they are, the CNN gains nothing that the spread
# over the seeds would not swallow, 96 against 95 %. These digits have been centred and scaled to fill their 8 × 8
# pixels, and a convolution's gift, to know a thing wherever it stands, is of no use where everything stands in its
# place. Moved by one pixel, it tells: 56 against 42 %. That still is a fall by 40 points. Behind the last pool this
# network *flattens*, so that `LinearLayer` has weights of its own for each place, and learns where things are as
# linear layers do. And with the pixels in disorder the gain is gone, 37 %: neighbours are what a convolution lives
# on. The linear network does not notice.
#
# </details>
#
# ### Scenes
#
# Now the network of the first figure, from the beginning: your `SceneCNN`, from the very weights at which the shipped
# run began, over the same batches, with Adam at a learning rate that rises and falls (lesson 06). The shipped run took
# 1250 steps. This one stops at 375, three times through the 8000 scenes; if you have a minute or two, set `steps =
# scene_cnn.STEPS`, and run what follows again.

# %%
train_images, train_labels = scene_cnn.training_images()
own, losses, steps = SceneCNN(), [], 10 if plots.fast() else 375
own.load_state_dict(scene_cnn.network(0).state_dict())


@torch.no_grad()
def right_of(model):
    return (model(images).argmax(dim=1) == labels).float().mean().item()


def state_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


film, every = [(0, state_of(own))], max(steps // 30, 1)
with plots.Training(steps // every, "train loss", "test accuracy", unit="round") as run:
    for step, loss in scene_cnn.train(own, train_images, train_labels, steps):
        losses.append(loss)
        if step % every == 0:
            film.append((step, state_of(own)))
            run.log(np.mean(losses[-every:]), right_of(own))

# %% [markdown]
# A round is 12 steps. For a good half of them the loss stays at $\ln 8 = 2.08$, which is knowing nothing,
# and then it falls fast, though nothing was changed in between. Such plateaus are common where no single feature helps
# before others are there: here one has to find shapes *and* how they stand before any answer gets better. Seen from
# outside, a run on a plateau looks like a run that will never learn. What happens in the dark the scrubber below will
# show.
#
# From here on `network` and `snapshots` are what you look into: the weights that come with the course, made by
# `course/data/make_scene_cnn.py`, or your own, if you trained to the end.

# %%
snapshots = scene_cnn.snapshots()
if steps == scene_cnn.STEPS:
    scene_cnn.save(own)
    snapshots = film
network = scene_cnn.load()
print(f"right of 500 new scenes: your run {right_of(own):.0%}, this network {right_of(network):.0%}")

# %% [markdown]
# ## Look inside
#
# ### The microscope
#
# Your five instruments behind one figure. Choose a scene, a layer and a channel. You see the channel's map and the unit
# in it that answers most, with the pixels that it sees; the pixels that this unit hangs on; its strongest inputs one
# layer down, which the button follows, from layer to layer down to the pixels; the picture that the channel likes best;
# the patches out of 160 scenes that excite it most; and what the network answers without it.
#
# For the favourite picture three more things are usual, and done here. A small blur stands in front of the network, so
# that no single pixels are rewarded (Yosinski et al., 2015). The goal is the strongest unit, not the mean of the map,
# which would repeat the pattern all over the picture. And the ReLU is left out: behind a silent one the gradient is 0,
# and noise would stay noise.

# %%
instruments = activation_maps, top_patches, maximise_activation, saliency, ablate_channel
functions = {function.__name__: function for function in instruments}
references = {name: reference(name) for name in functions}
gallery, gallery_labels = scenes.sample("scene", 160, seed=9)
widgets.cnn.microscope(network, gallery, functions, references, image=4, channel=9)

# %%
plots.show(
    widgets.cnn.hierarchy(network, gallery, functions, k=2),
    alt="For each of the four layers, two channels: their favourite pictures, and patches of scenes that excite them.",
    caption="The same, side by side: what two channels of each layer like best, and two patches for each. From line to "
    "corner to shape to object, says the eye.",
)

# %% [markdown]
# Take your time; this is what the lesson is for. Look for answers to these, and write them down before you unfold
# anything:
#
# 1. `relu1`: which channel looks for dark horizontal lines? Do its favourite picture and its patches agree?
# 2. `relu2`, channel 5: what have its patches in common? Does it mind whether lines are dark or bright? And what have
#    those of channel 15 in common? Switch both off.
# 3. `relu4`, channel 13: what is it a detector of? Would you have known from its favourite picture?
# 4. `relu4`, channel 8: what is wrong with it?
# 5. Which will hurt the network more: losing channel 13 of `relu4`, or channel 11?
#
# (The numbers are those of the shipped network. In your own, the same things stand under other numbers, if they are
# there at all.)
#
# <details><summary>What there was to see</summary>
#
# 1. Channel 5. All six patches hold a dark bar, and the favourite picture one too: at this depth the instruments agree.
# 2. Channel 5 answers to the tip of a triangle, in bright lines and in dark ones: a part, with its polarity thrown
#    away. In the patches of channel 15 there is nothing that a word would fit, and switching it off changes nothing.
# 3. All six patches show a house. The favourite picture shows a few slanting strokes, and nobody would call it a house:
#    it is what excites the channel most, not what the channel is for.
# 4. It is silent on every scene, a *dead* channel: its ReLU is off for all data, so that no gradient reaches its own
#    weights (lesson 02). Only if the layers before it move its inputs can it come back. Its patches mean nothing.
# 5. Read on.
#
# </details>
#
# ### A detector, and what it is worth
#
# Channel 13 again, now in numbers: the strongest unit of each channel of `relu4`, averaged over 100 pictures of each
# object; which share of the channel's answers to scenes stands in the left half of its map; and the share of scenes
# that the network still gets right without it.

# %%
objects, which = scenes.sample("object", 400, seed=21)
greatest = activation_maps(network, torch.from_numpy(objects), "relu4").amax(dim=(2, 3)).numpy()
maps = activation_maps(network, images, "relu4").sum(dim=(0, 2))  # (16, 6): over the scenes and the rows
left = (maps[:, :3].sum(dim=1) / (maps.sum(dim=1) + 1e-9)).numpy()
print("channel " + "".join(f"{name:>7}" for name in scenes.CLASSES["object"]) + "    left   right without it")
for channel in range(16):
    without = ablate_channel(network, images, "relu4", channel).argmax(dim=1)
    means = "".join(f"{greatest[which == k, channel].mean():7.0f}" for k in range(4))
    print(f"{channel:>7} {means} {left[channel]:>7.0%}   {(without == labels).float().mean():>15.0%}")

# %% [markdown]
# Channel 13 is as clean a house detector as one could wish for: 111 for houses, at most 17 for anything
# else. And it is hardly needed: without it 96 % are right. Channel 11 answers to houses *and* trees, that is, to a
# square below, and without it the network is lost in half of the scenes. Channel 6 is its opposite, a square above.
# Channels 14 and 3 answer to all four objects, but nearly all of the one's answers stand on the left, of the other's
# on the right. What carries the decision are halves of it, *which shape is below* and *on which side*; whoever looks
# for objects finds an object detector, and has not found what the network runs on.
#
# How can it know left from right at all, with a convolution that treats all places alike and a global average behind
# it? From the objects: a unit of `relu4` sees 40 of 48 pixels, and may see what stands beside what. And from the
# border: the zeros of the padding are something to see, too. Put the same scenes in a wide grey frame, and that second
# clue is gone:

# %%
framed = F.pad(images, (24,) * 4)  # gap divides by more units now: sum, and divide by the 36 of before
for name, x in {"as they are": images, "in a wide frame": framed}.items():
    with torch.no_grad():
        found = network.fc(activation_maps(network, x, "relu4").sum(dim=(2, 3)) / 36).argmax(dim=1)
    pair = found // 2 == labels // 2  # classes 2k and 2k + 1 hold the same two objects
    order = (found == labels)[pair].float().mean()
    print(f"{name:<16} the two objects right: {pair.float().mean():.0%}, of these their order: {order:.0%}")

# %% [markdown]
# Chance would be 25 % for the objects and 50 % for the order. So most of the order is in the objects, and partly it did
# hang on the border, though the pixels of the scenes are the same: in the frame a sixth of the orders is lost, and a
# sixth of the pairs as well. That CNNs read their own padding was reported by Islam et al. (2020) and by Kayhan and van
# Gemert (2020).
#
# A warning for this table too: switching off one channel at a time shows what the rest cannot replace. Two channels
# that know the same are worth nothing by this measure, each.

# %% [markdown]
# ### One unit, down to the pixels

# %%
widgets.cnn.trail(network, gallery, functions, channel=13)

# %% [markdown]
# Start with the house detector. Its strongest input is `relu3`'s channel 12, and that one's is channel 8 of `relu2`,
# whose patches are slanting lines: the flank of a roof. The second strongest leads to the other flank. Only the third,
# channel 9 of `relu3`, is a detector of whole houses itself. So a house is a roof here, mostly; no square is asked for
# by name. Then look at what a term in such a list is: weight times activation, summed over the window. It says what
# *this* unit was fed on *this* picture, and leaves out everything negative, by which the other objects are kept away.
#
# ### The training, frame by frame
#
# Thirty-one snapshots of the run: the filters of `conv1`, the maps of a layer, what is answered right. Before you
# scrub: will the filters of `conv1` be finished when the accuracy begins to rise, or do they change to the end? Do the
# lower layers learn first?

# %%
widgets.cnn.scrubber(snapshots, gallery, gallery_labels, activation_maps)

# %% [markdown]
# Nobody can see in a slider who moved first. So measure it: for each layer, how far its weights are from where they will
# end, as a share of the whole way.

# %%
layers, (_, first), (_, last) = ("conv1", "conv2", "conv3", "conv4", "fc"), snapshots[0], snapshots[-1]
print("  step" + "".join(f"{layer:>8}" for layer in layers))
for step, weights in snapshots[:18:3]:
    shares = [(weights[f"{k}.weight"] - last[f"{k}.weight"]).norm() for k in layers]
    whole = [(first[f"{k}.weight"] - last[f"{k}.weight"]).norm() for k in layers]
    print(f"{step:>6}" + "".join(f"{left / way:>8.0%}" for left, way in zip(shares, whole, strict=True)))

# %% [markdown]
# On the plateau hardly anything moves, in any layer. When it breaks, both *ends* go ahead, `conv1` and
# `fc`, and the middle follows; "from below to above" is half the story at best. And the filters of `conv1` are not
# finished when the answers begin to improve: at step 375, with seven of ten answers right, they have more than a
# third of their way before them. Watch `relu4` as well: channels die around the break, and some come back.
#
# ### Can saliency be trusted?
#
# Adebayo et al. (2018) asked for a sanity check: if a map says what a network *learned*, it must change when the
# learning is taken away. So draw new random weights, from the last layer down to the first, and compare the maps with
# those of the trained network by the rank correlation of their pixels (1: the same order, 0: none in common). Add three
# more witnesses: the same network asked about another class, an equally good network trained from another seed, and a
# plain edge detector, which knows no network at all. Pixel for pixel, and smoothed over 7 × 7 pixels, as the eye does.

# %%
def rank_correlation(a, b):
    """The mean over the images of Spearman's rank correlation."""
    ranks = [np.asarray(maps).reshape(len(maps), -1).argsort(axis=1).argsort(axis=1) for maps in (a, b)]
    return np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(*ranks, strict=True)])


def smoothed(maps):
    return F.avg_pool2d(torch.as_tensor(maps)[:, None], 7, stride=1, padding=3)[:, 0]


def edges(x):
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")[:, 0]
    return torch.hypot(x[:, 1:-1, 2:] - x[:, 1:-1, :-2], x[:, 2:, 1:-1] - x[:, :-2, 1:-1])


# %%
x, t = images[:40], labels[:40]
trained, anew, changed = saliency(network, x, t), scene_cnn.network(7).state_dict(), scene_cnn.network(0)
state, others = dict(network.state_dict()), {}
for layer in ("fc", "conv4", "conv3", "conv2", "conv1"):
    state |= {name: value for name, value in anew.items() if name.startswith(layer)}
    changed.load_state_dict(state)
    others[f"{layer} random" if layer == "fc" else f"{layer} to fc random"] = saliency(changed, x, t)
others["another class"] = saliency(network, x, (t + 1) % 8)
others["another network"] = saliency(scene_cnn.load(1), x, t)
others["edge detector"] = edges(x)
agreement = [[rank_correlation(f(trained), f(maps)) for f in (np.asarray, smoothed)] for maps in others.values()]

# %%
shown = {"trained": trained, "all random": others["conv1 to fc random"], **dict([*others.items()][-2:])}
picture = widgets.picture
panels = [picture.img(maps[0].numpy(), f"saliency: {name}", width=110, title=name) for name, maps in shown.items()]
table = picture.heat(
    agreement, "agrees with trained", "", "magnitude", 0, 1, rows=list(others), columns=["by pixel", "smoothed"]
)
plots.show(
    picture.row(*panels, table),
    alt="Four maps of one scene: two trained networks are bright about the objects, in different places, random "
    "weights give noise all over, the edge detector gives contours. A table of rank correlations.",
    caption="Left: what one scene's answer hangs on, by the trained network, by one whose weights are all random, by another "
    "trained one, and the contours alone. Right: rank correlation with the trained network's maps, over 40 scenes.",
)

# %% [markdown]
# Pixel by pixel the check is passed: the more of the network is random, the less is left of the map, from 0.50 down to
# 0.13. Adebayo et al. found the same for plain gradients, while some of the prettier methods failed outright. But read
# the last rows. Another network, which gives nearly the same answers, agrees by 0.25, hardly more than the edge
# detector with its 0.23. And smoothed, as an eye looks at it, randomness does next to no harm: 0.61 without a single
# learned weight, 0.57 for the other trained network, 0.75 for contours. A good part of what is bright in a saliency map
# is the picture's own contrast. Before a map persuades you, ask what it would look like without the learning.
#
# ### The measurement
#
# Now the sentence from the textbooks: *edges, then textures, then parts, then objects*. Zeiler and Fergus (2014) read
# it off the patches that excite the channels of a network, layer by layer. We can do more: there are stimuli for each
# level by itself, with labels, and a linear probe says how well each layer tells them apart.
#
# The plan, so that the numbers mean something:
#
# - Each level has its own new pictures, 500 to fit the probe and 300 to test it. None was used in training.
# - A layer is described by 32 numbers, the mean and the largest number of each of its 16 maps. All four layers have 16
#   channels, so none has more to offer by its size. Each number is standardised (as over the 500).
# - Three trained networks, from three seeds; beside each the *same network before training*. What an untrained network
#   reads off is owed to the convolutions and pools themselves, not to learning.
# - And the pixels, averaged to 24 × 24.
#
# Write down your guess before you run it: for each of the five levels, in which layer will it be most readable?


# %%
def features(model, x):
    """32 numbers per image and layer; each layer starts from the maps of the one before."""
    found, start, names = {}, 0, [name for name, _ in model.named_children()]
    for layer in scene_cnn.LAYERS:
        stop = names.index(layer) + 1
        x = activation_maps(model[start:stop], x, layer)
        found[layer], start = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1), stop
    return found


def probe_accuracy(values, labels, fit=500, ridge=1.0):
    """Fits a probe to the first examples, and asks it about the others."""
    values = np.asarray(values, float)
    values = (values - values[:fit].mean(axis=0)) / (values[:fit].std(axis=0) + 1e-6)
    w, b = linear_probe(values[:fit], labels[:fit], ridge)
    return ((values[fit:] @ w.T + b).argmax(axis=1) == labels[fit:]).mean()


# %%
seeds, count = range(1 if plots.fast() else 3), 800
stimuli = {level: scenes.sample(level, count, seed=100) for level in scenes.LEVELS}
networks = {"trained": [scene_cnn.load(seed) for seed in seeds], "untrained": [scene_cnn.network(s) for s in seeds]}
results = {kind: np.zeros((len(seeds), 4, 5)) for kind in networks}
for kind, models in networks.items():
    for (seed, model), (k, level) in product(enumerate(models), enumerate(scenes.LEVELS)):
        pictures, truth = stimuli[level]
        for j, values in enumerate(features(model, torch.from_numpy(pictures)).values()):
            results[kind][seed, j, k] = probe_accuracy(values, truth)
pixels = [F.avg_pool2d(torch.from_numpy(pictures), 2).flatten(1) for pictures, _ in stimuli.values()]
pairs = zip(pixels, stimuli.values(), strict=True)
results["pixels"] = np.array([probe_accuracy(values, truth, ridge=100.0) for values, (_, truth) in pairs])

# %%
print(f"{'':<20}" + "".join(f"{level:>9}" for level in scenes.LEVELS))
print(f"{'pixels':<20}" + "".join(f"{share:>9.0%}" for share in results["pixels"]))
for kind in networks:
    for layer, shares in zip(scene_cnn.LAYERS, results[kind].mean(axis=0), strict=True):
        print(f"{kind + ', ' + layer:<20}" + "".join(f"{share:>9.0%}" for share in shares))
spread = np.ptp(results["trained"], axis=0).max()
print(f"largest difference between seeds, trained: {spread:.0%}; chance: 25 %, for scenes 12 %")
pictures, truth = stimuli["scene"]
values = features(network, torch.from_numpy(pictures))["relu4"]
print(f"relu4, labels drawn at random: {probe_accuracy(values, np.random.default_rng(0).permutation(truth)):.0%}")

# %%
widgets.cnn.probes(results)

# %% [markdown]
# So, does *edges, textures, shapes, objects* hold?
#
# - **For shapes, objects and scenes: yes.** They become readable one after the other, shapes to the full in `relu3`,
#   objects in `relu3` and `relu4`, scenes in `relu4` only. And learning has made it so: in the untrained networks all
#   of them *fade* with depth.
# - **For edges and textures: no.** Both are most readable right behind the first layer, and there just as well *before*
#   training: random filters with a ReLU do. There is no order between the two, and nothing in it that was learned.
# - **Deeper is not simply more.** Textures are forgotten, from 88 to about 50 %, and not because learning threw them
#   out: the untrained networks lose them just so. Pools and wide windows suffice, where nobody asks to keep a thing.
#   Edges are not asked for either, and stay. A layer keeps what later layers need, and what nothing happens to destroy.
# - The pixels tell a linear probe next to nothing, since brightness is no clue by construction. Readable does not mean
#   *there*: all is in the pixels. It means laid out so that a weighted sum finds it.
#
# The seeds differ, in the worst of the twenty cells by 21 points, so read no meaning into a few per cent. With labels
# drawn at random the probe is at chance, so 32 features and 500 pictures are not enough for it to invent an
# answer (Hewitt and Liang's control). What remains open, and should be said: mean and maximum are one description of a
# map, and another might read more; this is one architecture and one kind of scene; in photographs textures *do* help,
# and networks trained on them lean on textures (Geirhos et al., 2019). And readable is not used: that was the matter of
# the table on channel 13. The honest form of the sentence is: *towards the end, a trained CNN lays out what its task
# needs, and composes it step by step; what comes first, it has from the architecture.*

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# A count, and a broken instrument.

# %% [markdown] about="count_cnn"
# ### Predict: how many parameters, how many features?
#
# `count_cnn(channels, height, width, layers) -> parameters, features`: images `(channels, height, width)` go through
# `layers`, a list of `["conv", out, kernel, stride, padding]`, `["pool", kernel]` (a max pool, whose stride is its
# kernel) and, at the end, one or more `["linear", out]`. In front of the first linear layer the maps are flattened;
# ReLUs are not listed. How many learnable numbers are there in all (weights and biases), and how many numbers enter the
# first linear layer? Kernels are square, images need not be. Sizes as in lessons 09 and 10: what does not fill a window
# is dropped.
#
# By hand, the first half of LeCun's LeNet on 28 × 28 pixels, `["conv", 6, 5, 1, 2], ["pool", 2], ["linear", 10]`: the
# convolution has 6 · 25 + 6 = 156 parameters and keeps 28 × 28, the pool leaves 14 × 14, so 6 · 14 · 14 = 1176 features
# enter the linear layer with its 1176 · 10 + 10 = 11770. In all 11926: nearly all of them in the linear layer.


# %% exercise="count_cnn"
def count_cnn(channels, height, width, layers):
    """channels, height, width, layers -> parameters (), features ()"""
    ### BEGIN SOLUTION
    parameters, features, entering = 0, None, None
    for kind, *numbers in layers:
        if kind == "conv":
            out, kernel, stride, padding = numbers
            parameters += out * channels * kernel**2 + out
            channels = out
            height, width = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
        elif kind == "pool":
            height, width = height // numbers[0], width // numbers[0]
        else:
            entering = channels * height * width if entering is None else entering
            features = features or entering
            parameters += entering * numbers[0] + numbers[0]
            entering = numbers[0]
    return parameters, features
    ### END SOLUTION


# %% check="count_cnn"
check(count_cnn)

# %% [markdown] about="repair_channel_effects"
# ### Repair: a measurement that destroys what it measures
#
# `repair_channel_effects(model, x, target, layer) -> effects (k,)`: by how much the cross-entropy rises when each
# channel of a layer is switched off, one at a time. `x (n, c, h, w)`, `target (n,)`; a detached tensor comes back. The
# function below says that nearly every channel is worth more than the one before, and whoever uses the network after it
# finds it ruined.
#
# By hand, the network of two channels from above, with answers instead of a loss: whole 4, without channel 0 it is −2,
# without channel 1 it is 6. The broken function would find −2, and then 0.


# %% exercise="repair_channel_effects"
def repair_channel_effects(model, x, target, layer):
    """model, x (n, c, h, w), target (n,), layer -> effects (k,)"""
    ### BEGIN SOLUTION
    channels = activation_maps(model, x, layer).shape[1]
    with torch.no_grad():
        whole = F.cross_entropy(model(x), target)
    off = [F.cross_entropy(ablate_channel(model, x, layer, channel), target) for channel in range(channels)]
    return torch.stack(off) - whole
    ### BROKEN
    # module, effects = model.get_submodule(layer), []
    # channels = activation_maps(model, x, layer).shape[1]
    # whole = F.cross_entropy(model(x), target)
    # for channel in range(channels):
    #
    #     def switch_off(module, inputs, output, channel=channel):
    #         output = output.clone()
    #         output[:, channel] = 0
    #         return output
    #
    #     module.register_forward_hook(switch_off)
    #     effects.append(F.cross_entropy(model(x), target) - whole)
    # return torch.stack(effects)
    ### END SOLUTION


# %% check="repair_channel_effects"
check(repair_channel_effects)

# %% [markdown]
# Repaired, it says what each channel of the trained network is worth for its answers:

# %%
for layer in scene_cnn.LAYERS:
    effects = np.asarray(repair_channel_effects(network, images[:100], labels[:100], layer))
    best = ", ".join(f"{effects[k]:.2f} ({k})" for k in np.argsort(-effects)[:3])
    print(f"{layer}: the loss rises most by {best}; by less than 0.05 for {(effects < 0.05).sum()} of 16 channels")

# %% [markdown]
# One by one, nearly all channels of `relu1` can go. All sixteen together cannot, of course: neighbours stand in for each
# other, and a measurement of one at a time does not see what is held twice.
#
# ### What people believe, and what is true
#
# - **"A CNN does not care where things are."** Convolution is *equivariant*: the maps move with the picture, as long as
#   it moves by whole jumps and away from the borders. A network that flattens, like the one for digits, has a weight
#   for every place: you saw what one pixel did to it. A global average forgets where a channel answered, but a channel
#   may answer on one side only, by the padding's help: you saw that, too.
# - **"This channel is the house detector."** The top patches show what excites it *most*. What it does at half that
#   strength, for most pictures, they do not show; and channels that answer to several unlike things are common (Olah et
#   al., 2020).
# - **"The favourite picture shows what the network sees in the data."** It shows an extreme that no data come near, and
#   another start or another restraint gives another one.
# - **"The saliency map shows why."** It is the slope at one point, and slopes say nothing of larger changes. Above, a
#   good part of it was there without any learning.
# - **"A probe reads it, so the network uses it."** A probe measures what is *readable*. Whether it is used, only
#   intervention shows: switch it off. Edges are readable in the last layer here, and nobody asked for them.
# - **"A powerful probe is a better probe."** A powerful enough probe learns the task itself, whatever it is given. Keep
#   it linear, and give it a task that nothing can know, such as labels drawn at random, for comparison (Hewitt and
#   Liang, 2019).
# - **"Max pooling or ReLU first, it matters."** It does not (lesson 10). Batch norm or average pools in between do.


# %% [markdown]
# ## Where it is used, and what came after
#
# Convolutions, subsampling and shared weights are as old as Fukushima's neocognitron (1980); LeCun et al. (1989, 1998)
# trained them with backpropagation, for postal codes and cheques. Krizhevsky, Sutskever and Hinton (2012) won ImageNet
# with one, and for ten years CNNs were how a machine saw: photos, X-rays, roads, the Go board. Since Dosovitskiy et al.
# (2021) transformers (lesson 19) share that place, mostly where there are very many data; Liu et al. (2022) found a
# modernised CNN on a par with them. Small data, small devices and dense outputs (lessons 13 and 14) remain a CNN's home
# ground. How to make one deep is lesson 12's matter.
#
# What a CNN sees is disputed to this day. Zeiler and Fergus (2014) and Olah et al. (2017, 2020) find a hierarchy of
# ever more complex features. Geirhos et al. (2019) found that networks trained on ImageNet go by **texture** where
# people go by shape: a cat with the skin of an elephant is an elephant to them. Both may be so: what a layer *could*
# tell and what the answer *hangs on* are two things, and the second depends on what the training set rewards. In our
# scenes textures are noise by construction, so do not expect this network to have ImageNet's taste.
#
# You can now
#
# - build a CNN of your own layers, and count its parameters before it exists;
# - look into any PyTorch model without leaving a trace;
# - say what each of six instruments shows, and what it does not;
# - measure where something becomes readable, with the controls that such a claim needs.
#
# To read:
#
# - Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, *Gradient-based learning applied to document recognition*, 1998.
# - M. D. Zeiler and R. Fergus, *Visualizing and understanding convolutional networks*, 2014. The hierarchy.
# - G. Alain and Y. Bengio, *Understanding intermediate layers using linear classifier probes*, 2016; J. Hewitt and
#   P. Liang, *Designing and interpreting probes with control tasks*, 2019. The instrument and its limits.
# - J. Adebayo et al., *Sanity checks for saliency maps*, 2018. The experiment that you repeated.
# - R. Geirhos et al., *ImageNet-trained CNNs are biased towards texture*, 2019. The other side.
# - O. S. Kayhan and J. C. van Gemert, *On translation invariance in CNNs*, 2020. What padding gives away.
# - C. Olah, A. Mordvintsev and L. Schubert, *Feature visualization*, 2017. Pictures that channels like, with care.
