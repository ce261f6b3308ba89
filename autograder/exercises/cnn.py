"""Lesson 11: layers for images, a network of them, and ways to look into it."""

from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from autograder.exercise import Build, exercise, module

# --- Layers ----------------------------------------------------------------------------------------------------------


def detached(array):
    """A tensor of an array's numbers, which it shares."""
    return torch.from_numpy(np.asarray(array, dtype=float))


def pull(y, leaves, dy):
    """Autograd's gradients at the leaves, for an upstream gradient dy; also from within a backward pass."""
    with torch.enable_grad():
        return [found.numpy() for found in torch.autograd.grad((y * detached(dy)).sum(), leaves, retain_graph=True)]


# What the wrong layers below are made of.


def windows(x, kh, kw, stride):
    return sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::stride, ::stride]


def spread(parts, shape, stride):
    """Adds parts (n, c, oh, ow, kh, kw) up where their windows lie in an image of this shape."""
    image, (oh, ow, kh, kw) = np.zeros(shape), parts.shape[2:]
    for i, j in np.ndindex(kh, kw):
        image[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride] += parts[..., i, j]
    return image


class PlainConv:
    """A convolution as a layer as a learner would write it, for the mistakes to change."""

    def __init__(self, w, b, stride=1, padding=0):
        self.w, self.b, self.stride, self.padding = w, b, stride, padding

    def cut(self, x):
        rim = (self.padding, self.padding)
        return windows(np.pad(x, ((0, 0), (0, 0), rim, rim)), *self.w.shape[2:], self.stride)

    def forward(self, x):
        self.x = x
        return np.einsum("ncyxij,ocij->noyx", self.cut(x), self.w) + self.b[:, None, None]

    def backward(self, dy):
        self.dw, self.db = np.einsum("noyx,ncyxij->ocij", dy, self.cut(self.x)), dy.sum(axis=(0, 2, 3))
        n, c, h, w = self.x.shape
        p = self.padding
        dx = spread(np.einsum("noyx,ocij->ncyxij", dy, self.w), (n, c, h + 2 * p, w + 2 * p), self.stride)
        return dx[:, :, p : p + h, p : p + w]

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]


class AccumulatesConv(PlainConv):
    dw = db = 0

    def backward(self, dy):
        before = self.dw, self.db
        dx = super().backward(dy)
        self.dw, self.db = self.dw + before[0], self.db + before[1]
        return dx


class FirstInputConv(PlainConv):
    def forward(self, x):
        first = getattr(self, "x", x)
        y = super().forward(x)
        self.x = first
        return y


class CopiesConv(PlainConv):
    def __init__(self, w, b, stride=1, padding=0):
        super().__init__(w, b, stride, padding)
        self.handed = [w.copy(), b.copy()]

    def parameters(self):
        return self.handed


class NoBiasConv(PlainConv):
    def parameters(self):
        return [self.w]


class AveragesConv(PlainConv):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dw, self.db = self.dw / len(dy), self.db / len(dy)
        return dx


class UnpaddedConv(PlainConv):
    """forward forgets the padding, backward does not."""

    def forward(self, x):
        self.x = x
        return PlainConv(self.w, self.b, self.stride).forward(x)


class PaddedGradientConv(PlainConv):
    def backward(self, dy):
        dx, p = super().backward(dy), self.padding
        return np.pad(dx, ((0, 0), (0, 0), (p, p), (p, p)))


@exercise(
    script="conv_layer", points=3, minutes=12, difficulty=1,
    cases=[
        dict(x=(3, 2, 6, 5), w=(4, 2, 3, 2), b=(4,), dy=(3, 4, 4, 4)),
        dict(x=(2, 3, 7, 6), w=(5, 3, 3, 3), b=(5,), dy=(2, 5, 4, 3), stride=2, padding=1),
        dict(x=(2, 2, 4, 4), w=(2, 2, 3, 3), b=(2,), dy=(2, 2, 4, 4), padding=1),
        dict(x=(1, 1, 3, 3), w=(1, 1, 1, 1), b=(1,), dy=(1, 1, 3, 3)),
        dict(x=(2, 1, 8, 5), w=(3, 1, 2, 3), b=(3,), dy=(2, 3, 3, 1), stride=3),
    ],
    hints=(
        "Lesson 04's LinearLayer, with another pair of functions inside. What does conv2d_backward ask for besides dy? "
        "All of it the layer has met by then.",
        "`__init__` keeps w, b, stride and padding in self; forward keeps x and calls conv2d_forward; backward hands "
        "the same stride and padding to conv2d_backward.",
        "`dx, self.dw, self.db = conv2d_backward(…)`, called with dy, then with what forward and `__init__` kept, in "
        "the order of its arguments. Return dx. parameters() is [self.w, self.b], the arrays themselves.",
    ),
    mistakes={
        "dw and db hold the sum of all backward passes. gradients() are those of the last one: overwrite them.":
            AccumulatesConv,
        "The gradients belong to the first batch that the layer ever saw. forward must keep its x each time.":
            FirstInputConv,
        "A step changed nothing: parameters() hands out copies. Return the arrays that forward computes with.":
            CopiesConv,
        "A step moved w but not b: b is missing from parameters(), and would never be learned.": NoBiasConv,
        "dw and db are averaged over the batch. They are sums (lesson 01); the loss has averaged already.":
            AveragesConv,
        "y lacks the padding. forward hands it on as backward does, behind the stride.": UnpaddedConv,
        "dx still has the padding around it. The gradient has the shape of x.": PaddedGradientConv,
    },
)  # fmt: skip
class ConvLayer:
    """A convolution that keeps its parameters and what its backward pass needs."""

    def __init__(self, w, b, stride=1, padding=0):
        self.w, self.b, self.how = w, b, dict(stride=stride, padding=padding)

    def forward(self, x):
        self.leaves = [detached(value).clone().requires_grad_() for value in (x, self.w, self.b)]
        self.y = F.conv2d(*self.leaves, **self.how)
        return self.y.detach().numpy()

    def backward(self, dy):
        dx, *self.found = pull(self.y, self.leaves, dy)
        return dx

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return list(self.found)


class PlainPool:
    """Max pooling as a layer as a learner would write it, for the mistakes to change."""

    def __init__(self, kernel_size, stride=None):
        self.kernel_size, self.stride = kernel_size, stride or kernel_size

    def cut(self, x):
        return windows(x, self.kernel_size, self.kernel_size, self.stride)

    def forward(self, x):
        self.x = x
        return self.cut(x).max(axis=(-2, -1))

    def chosen(self):
        """1 at the first of the largest numbers of each window."""
        cut = self.cut(self.x)
        flat = cut.reshape(*cut.shape[:4], -1)
        return (np.arange(flat.shape[-1]) == flat.argmax(axis=-1)[..., None]).reshape(cut.shape)

    def backward(self, dy):
        return spread(dy[..., None, None] * self.chosen(), self.x.shape, self.stride)

    def parameters(self):
        return []

    def gradients(self):
        return []


class FirstInputPool(PlainPool):
    """Routes by the first batch's largest numbers."""

    def forward(self, x):
        y = super().forward(x)
        self.first = self.x = getattr(self, "first", x)
        self.x = np.broadcast_to(self.x, x.shape)
        return y


class SharedPool(PlainPool):
    def forward(self, x):
        SharedPool.x = x
        return self.cut(x).max(axis=(-2, -1))


class SharesPool(PlainPool):
    def chosen(self):
        chosen = super().chosen()
        return np.full(chosen.shape, 1 / self.kernel_size**2)


class CountsPool(PlainPool):
    def parameters(self):
        return [np.ones(1)]

    gradients = parameters


TIED = np.array([[[[-1.0, -1, -3, -3], [-2, -1, -3, -3], [0, 0, -5, 2], [0, 0, 2, 2]]]])


@exercise(
    script="layer_without_parameters", points=2, minutes=6, difficulty=1,
    cases=[
        dict(x=(3, 2, 6, 4), dy=(3, 2, 3, 2), kernel_size=2),
        dict(x=(2, 3, 7, 5), dy=(2, 3, 3, 2), kernel_size=3, stride=2),
        dict(x=TIED, dy=(1, 1, 2, 2), kernel_size=2),
        dict(x=(2, 1, 5, 7), dy=(2, 1, 2, 3), kernel_size=2),
        dict(x=(1, 1, 1, 1), dy=(1, 1, 1, 1), kernel_size=1),
        dict(x=(2, 2, 6, 5), dy=(2, 2, 2, 2), kernel_size=2, stride=3),
    ],
    hints=(
        "ReLULayer's plan (lesson 04): nothing to learn, and the backward pass needs the input of the last forward.",
        "Keep kernel_size and stride in `__init__`, x in forward; hand all three to the functions of lesson 10, which "
        "know what stride=None means.",
        "backward returns what max_pool2d_backward gives for dy and these three, in that order; parameters() and "
        "gradients() are empty lists.",
    ),
    mistakes={
        "dx goes to the places that won in the first batch. forward must keep its x each time it is called.":
            FirstInputPool,
        "dx is routed by another layer's input: what the class keeps is shared by all its layers. Keep it in self.":
            SharedPool,
        "dx is shared out evenly over the window, as behind an average. Only the number that won passes its gradient "
        "on.": SharesPool,
        "Pooling has nothing to learn: parameters() and gradients() are empty lists.": CountsPool,
    },
)  # fmt: skip
class MaxPoolLayer:
    """Max pooling as a layer: nothing to learn, but its backward pass needs its input."""

    def __init__(self, kernel_size, stride=None):
        self.how = kernel_size, stride

    def forward(self, x):
        self.x = detached(x).clone().requires_grad_()
        self.y = F.max_pool2d(self.x, *self.how)
        return self.y.detach().numpy()

    def backward(self, dy):
        return pull(self.y, [self.x], dy)[0]

    def parameters(self):
        return []

    def gradients(self):
        return []


class PlainFlatten:
    """Flattening as a layer as a learner would write it, for the mistakes to change."""

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self.shape)

    def parameters(self):
        return []

    def gradients(self):
        return []


class ChannelsLast(PlainFlatten):
    def forward(self, x):
        self.shape = x.shape
        return np.moveaxis(x, 1, -1).reshape(len(x), -1)


class ColumnByColumn(PlainFlatten):
    def forward(self, x):
        self.shape = x.shape
        return np.swapaxes(x, -1, -2).reshape(len(x), -1)

    def backward(self, dy):
        *rest, h, w = self.shape
        return np.swapaxes(dy.reshape(*rest, w, h), -1, -2)


class WholeBatch(PlainFlatten):
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(-1)


class StaysFlat(PlainFlatten):
    def backward(self, dy):
        return dy


class TurnsBack(PlainFlatten):
    def backward(self, dy):
        n, *rest = self.shape
        return dy.T.reshape(*rest, n).transpose(-1, *range(len(rest)))[..., ::-1]


@exercise(
    script="layer_without_parameters", points=1, minutes=4, difficulty=1,
    cases=[
        dict(x=(3, 2, 4, 5), dy=(3, 40)),
        dict(x=(1, 3, 1, 2), dy=(1, 6)),
        dict(x=(4, 1, 3, 3), dy=(4, 9)),
        dict(x=(2, 3, 2, 2), dy=(2, 12)),
    ],
    hints=(
        "reshape in NumPy's own order does it: channel after channel, row after row. Which axis must not be touched?",
        "backward has to give dy the shape that x had: keep x.shape in forward.",
        "`self.shape = x.shape`, `x.reshape(len(x), -1)`, and backwards `dy.reshape(self.shape)`.",
    ),
    mistakes={
        "y has the channels of a pixel side by side. PyTorch's flatten goes channel after channel, as reshape does by "
        "itself; a linear layer with PyTorch's weights would read the wrong numbers.": ChannelsLast,
        "y goes down the columns of each map. Rows first, as reshape does by itself.": ColumnByColumn,
        "y has lost the batch: each example stays a row of its own.": WholeBatch,
        "dx is still flat. It has the shape of x.": StaysFlat,
        "dx has the shape of x, but its numbers are in other places. Undo the reshape, and nothing else.": TurnsBack,
    },
)  # fmt: skip
class FlattenLayer:
    """Images to rows of numbers, and their gradients back."""

    def forward(self, x):
        self.x = detached(x).clone().requires_grad_()
        self.y = torch.flatten(self.x, start_dim=1)
        return self.y.detach().numpy()

    def backward(self, dy):
        return pull(self.y, [self.x], dy)[0]

    def parameters(self):
        return []

    def gradients(self):
        return []


# --- Predict ---------------------------------------------------------------------------------------------------------

LENET = [["conv", 6, 5, 1, 2], ["pool", 2], ["conv", 16, 5, 1, 0], ["pool", 2], ["linear", 120], ["linear", 10]]


def drawn_layers(rng, sizes):
    """Two convolutions with or without a pool, then one or two linear layers."""
    layers = []
    for _ in range(2):
        kernel, stride, padding = int(rng.integers(1, 5)), int(rng.integers(1, 3)), int(rng.integers(0, 2))
        layers += [["conv", int(rng.integers(2, 9)), kernel, stride, padding], ["pool", 2]][: int(rng.integers(1, 3))]
    return layers + [["linear", int(rng.integers(2, 20))] for _ in range(int(rng.integers(1, 3)))]


def counted(per_conv=None, pooled=None, moved=None, features=None, per_linear=None, chained=True):
    """A count with some of its rules changed; the defaults are right."""
    per_conv = per_conv or (lambda c, o, k: o * c * k * k + o)
    moved = moved or (lambda size, k, s, p: (size + 2 * p - k) // s + 1)
    pooled = pooled or (lambda size, k: size // k)
    features = features or (lambda c, h, w: c * h * w)
    per_linear = per_linear or (lambda i, o: i * o + o)

    def count(channels, height, width, layers):
        c, h, w, parameters, entering, i = channels, height, width, 0, None, None
        for kind, *numbers in layers:
            if kind == "conv":
                o, k, s, p = numbers
                parameters, c, h, w = parameters + per_conv(c, o, k), o, moved(h, k, s, p), moved(w, k, s, p)
            elif kind == "pool":
                h, w = pooled(h, *numbers), pooled(w, *numbers)
            else:
                i = features(c, h, w) if i is None else i
                entering = i if entering is None else entering
                parameters, i = parameters + per_linear(i, *numbers), numbers[0] if chained else i
        return parameters, entering

    return count


@exercise(
    points=3, minutes=12, difficulty=2,
    draws=dict(
        channels=lambda rng, sizes: int(rng.integers(1, 4)),
        height=lambda rng, sizes: int(rng.integers(16, 31)),
        width=lambda rng, sizes: int(rng.integers(31, 45)),
        layers=drawn_layers,
    ),
    cases=[
        dict(channels=1, height=28, width=28, layers=LENET),
        dict(channels=3, height=17, width=23, layers=[["conv", 4, 3, 2, 1], ["pool", 2], ["linear", 5]]),
        dict(channels=2, height=5, width=6, layers=[["conv", 3, 5, 1, 0], ["linear", 7], ["linear", 2]]),
        dict(channels=1, height=1, width=1, layers=[["conv", 1, 1, 1, 0], ["linear", 1]]),
        dict(), dict(), dict(),
    ],
    hints=(
        "Walk through the layers with three numbers in hand: how many channels, how high, how wide. A convolution "
        "changes all three, a pool the last two. What does the first linear layer receive?",
        "A convolution with o kernels over c channels has o · c · k · k weights and o biases, however large the image "
        "is. Height and width become (size + 2 padding - k) // stride + 1, a pool's size // k.",
        "At the first linear layer, features = c · h · w. A linear layer from i to o adds i · o + o, and the next one "
        "receives o.",
    ),
    mistakes={
        "parameters leave out the biases: one for each kernel of a convolution, one for each unit of a linear layer.":
            counted(per_conv=lambda c, o, k: o * c * k * k, per_linear=lambda i, o: i * o),
        "parameters leave out the convolutions' biases: one for each kernel.":
            counted(per_conv=lambda c, o, k: o * c * k * k),
        "parameters leave out the linear layers' biases: one for each unit.": counted(per_linear=lambda i, o: i * o),
        "parameters of a convolution count k weights for a kernel's slice. A square slice has k · k.":
            counted(per_conv=lambda c, o, k: o * c * k + o),
        "parameters let every linear layer read the flattened maps. The second one reads what the first gives.":
            counted(chained=False),
        "parameters of a convolution lack the input channels: each kernel has a slice of weights for each of them.":
            counted(per_conv=lambda c, o, k: o * k * k + o),
        "parameters of a convolution have one bias per weight slice. A kernel has one bias, whatever it reads.":
            counted(per_conv=lambda c, o, k: o * c * (k * k + 1)),
        "features lack the channels: flattened are c maps, each h · w large. (Without flattening, a global average "
        "would leave c numbers.)": counted(features=lambda c, h, w: h * w),
        "features are the channels alone, as after a global average pool. Here the maps are flattened: c · h · w.":
            counted(features=lambda c, h, w: c),
        "features take the last window, which does not fit, for a whole one. PyTorch's sizes are rounded down.":
            counted(moved=lambda size, k, s, p: -((size + 2 * p - k) // -s) + 1, pooled=lambda size, k: -(size // -k)),
        "features count the padding once. It is added on both sides of the image.":
            counted(moved=lambda size, k, s, p: (size + p - k) // s + 1),
        "features ignore the padding of the convolutions.": counted(moved=lambda size, k, s, p: (size - k) // s + 1),
        "features ignore the stride of the convolutions.":
            counted(moved=lambda size, k, s, p: size + 2 * p - k + 1),
    },
)  # fmt: skip
def count_cnn(channels, height, width, layers) -> "parameters:, features:":
    """Parameters of a CNN, and the numbers that enter its first linear layer: counted on PyTorch's."""
    x, total, features = torch.zeros(1, channels, height, width), 0, 0
    for kind, *numbers in layers:
        if kind == "linear" and x.ndim == 4:
            x = x.flatten(1)
            features = x.shape[1]
        if kind == "conv":
            out, kernel, stride, padding = numbers
            layer = nn.Conv2d(x.shape[1], out, kernel, stride, padding)
        else:
            layer = nn.MaxPool2d(*numbers) if kind == "pool" else nn.Linear(x.shape[1], *numbers)
        total += sum(parameter.numel() for parameter in layer.parameters())
        with torch.no_grad():
            x = layer(x)
    return np.array(total), np.array(features)


# --- The network -----------------------------------------------------------------------------------------------------


class SceneCNN(nn.Sequential):
    """Four convolutions, each with a ReLU, the first three with a pool; the mean of each map; a linear layer.

    The wrong ones below say what stands in a layer's place, or behind the last.
    """

    instead = MappingProxyType({})

    def __init__(self, width=16, classes=8):
        super().__init__()
        for k in range(1, 5):
            size = 5 if k == 1 else 3
            self.put(f"conv{k}", nn.Conv2d(1 if k == 1 else width, width, size, padding=size // 2))
            self.put(f"relu{k}", nn.ReLU())
            if k < 4:
                self.put(f"pool{k}", nn.MaxPool2d(2))
        self.put("gap", nn.AdaptiveAvgPool2d(1))
        self.put("flatten", nn.Flatten())
        self.put("fc", nn.Linear(width, classes))
        if "last" in self.instead:
            self.put("last", None)

    def put(self, name, layer):
        self.add_module(name, self.instead[name]() if name in self.instead else layer)


def scene_cnn_with(**instead):
    """SceneCNN with other layers in the place of its own, or a last one behind them."""
    return type("SceneCNN", (SceneCNN,), dict(instead=instead))


class NarrowPadding(SceneCNN):
    """conv1 is padded as the others are."""

    def __init__(self, width=16, classes=8):
        super().__init__(width, classes)
        self.conv1.padding = (1, 1)


POOLS = ("pool1", "pool2", "pool3")

module(
    SceneCNN, points=4, minutes=15, difficulty=1, output="logits",
    cases=[
        dict(init=dict(width=2, classes=3), x=(3, 1, 16, 12)),
        dict(init=dict(width=3, classes=2), x=(2, 1, 11, 13)),
        dict(init={}, x=(1, 1, 10, 10)),
        dict(init=dict(width=1, classes=1), x=(2, 1, 10, 16)),
        dict(init=dict(width=2, classes=4), train=False, x=(2, 1, 16, 17)),
    ],
    hints=(
        "Fourteen attributes in `__init__`, used in their order in forward. Only conv1 … conv4 and fc have parameters; "
        "what do the others need to know?",
        "A convolution keeps the size of its input with padding = kernel_size // 2: 2 for conv1, 1 for the others. "
        "conv1 reads one channel, the others `width`.",
        "`nn.MaxPool2d(2)`, `nn.AdaptiveAvgPool2d(1)`, `nn.Flatten()`, `nn.Linear(width, classes)`; forward may pass x "
        "through `self.children()`, which come in the order in which they were set.",
    ),
    mistakes={
        "logits lack the ReLU behind conv4: the mean of a convolution is taken, which a linear layer could do alone.":
            scene_cnn_with(relu4=nn.Identity),
        "logits come out of average pools. pool1 to pool3 keep the largest number of each window.":
            scene_cnn_with(**{name: lambda: nn.AvgPool2d(2) for name in POOLS}),
        "logits come from the largest number of each map: gap is the *mean* over the map.":
            scene_cnn_with(gap=lambda: nn.AdaptiveMaxPool2d(1)),
        "logits went through a softmax. The loss does that (lesson 03); fc is the last layer.":
            scene_cnn_with(last=lambda: nn.Softmax(1)),
        "logits are never negative: there is a ReLU behind fc. No activation stands behind the last layer.":
            scene_cnn_with(last=nn.ReLU),
        "logits come from windows rounded up: the pools drop what does not fill a window (ceil_mode is False).":
            scene_cnn_with(**{name: lambda: nn.MaxPool2d(2, ceil_mode=True) for name in POOLS}),
        "logits come from a conv1 with padding 1. Its kernels are 5 × 5: the size stays with padding 2.": NarrowPadding,
        "logits lack the ReLUs: four convolutions in a row, with pools as the only bend.":
            scene_cnn_with(**{f"relu{k}": nn.Identity for k in range(1, 5)}),
    },
)  # fmt: skip


# --- Looking into a model --------------------------------------------------------------------------------------------


def cnn(channels=1, classes=3, seed=0, inplace=False, **between):
    """Two convolutions and a linear layer; `between` stands behind the first convolution."""
    layers = {
        "conv1": ["Conv2d", channels, 4, 3, {"padding": 1}], **between, "relu1": ["ReLU", {"inplace": inplace}],
        "pool1": ["MaxPool2d", 2], "conv2": ["Conv2d", 4, 5, [2, 3]], "relu2": ["ReLU", {"inplace": inplace}],
        "pool2": ["AdaptiveAvgPool2d", 1], "flatten": ["Flatten"], "head": ["Linear", 5, classes],
    }  # fmt: skip
    return Build("named_layers", layers=layers, seed=seed)


NESTED = Build(
    "named_layers",
    layers={"stem": [["Conv2d", 2, 3, 3], ["ReLU"]], "stage": [["Conv2d", 3, 4, 3], ["ReLU"]],
            "pool": ["AdaptiveAvgPool2d", 1], "flatten": ["Flatten"], "head": ["Linear", 4, 3]},
    seed=5,
)  # fmt: skip
NORMED = dict(bn1=["BatchNorm2d", 4])


def parts(model):
    """The layers of a Sequential of Sequentials by their full names, in the order of the forward pass."""
    return [(name, part) for name, part in model.named_modules() if not list(part.children())]


def through(model, x, layer=None, change=None):
    """x through the layers one by one, up to and with `layer`; or to the end, where change(y) takes its place."""
    for name, part in parts(model):
        x = part(x.clone())
        if name == layer and change is None:
            return x
        x = change(x) if name == layer else x
    return x


def hooked(model, x, layer, hook, remove=True):
    """The model's answer while a forward hook sits on a layer, as a learner would write it."""
    handle = model.get_submodule(layer).register_forward_hook(hook)
    y = model(x)
    if remove:
        handle.remove()
    return y


def maps_with(keep=lambda inputs, output: output.detach().clone(), remove=True, before=None, after=lambda maps: maps):
    """activation_maps with something changed; the defaults are right."""

    def answer(model, x, layer):
        kept = []
        if before:
            before(model)
        hooked(model, x, layer, lambda part, inputs, output: kept.append(keep(inputs, output)), remove)
        return after(kept[0])

    return answer


@exercise(
    script="maps", points=4, minutes=20, difficulty=2,
    cases=[
        dict(model=cnn(), x=(3, 1, 8, 7), layer="conv2"),
        dict(model=cnn(seed=1, inplace=True), x=(2, 1, 6, 8), layer="conv1"),
        dict(model=NESTED, x=(2, 2, 7, 8), layer="stage.0"),
        dict(model=cnn(channels=2, seed=2, **NORMED), x=(4, 2, 6, 6), layer="relu1"),
        dict(model=cnn(channels=2, seed=3, **NORMED), x=(4, 2, 6, 9), layer="bn1", train=True),
        dict(model=cnn(seed=4), x=(1, 1, 4, 7), layer="head"),
    ],
    hints=(
        "A forward hook is a function that PyTorch calls with (module, inputs, output) each time the module has run. "
        "Where can yours put the output, so that you find it afterwards?",
        "`handle = model.get_submodule(layer).register_forward_hook(hook)` attaches it, `handle.remove()` takes it "
        "away. In between, call model(x) once, inside torch.no_grad().",
        "Keep `output.detach().clone()`: detach cuts it off from the graph, and the clone is safe from an in-place "
        "ReLU that comes next and writes over the output.",
    ),
    mistakes={
        "maps are cut off at 0 by an in-place ReLU behind the layer: the hook kept the very tensor that the ReLU then "
        "wrote over. Keep a clone.":
            maps_with(keep=lambda inputs, output: output.detach()),
        "The hook is still on the model, and will be called for ever: handle.remove().":
            maps_with(remove=False),
        "maps drag the graph of the whole forward pass along (requires_grad is True). Detach them.":
            maps_with(keep=lambda inputs, output: output.clone()),
        "maps are what the layer received. Asked is what it gives: the hook's third argument.":
            maps_with(keep=lambda inputs, output: inputs[0].detach().clone()),
        "The model is in evaluation mode afterwards, which it was not before. Its mode is the caller's business.":
            maps_with(before=lambda model: model.eval()),
        "maps are those of the first image alone. All images of the batch are asked for.":
            maps_with(after=lambda maps: maps[0]),
        "maps are the answers of the whole model. Asked is what the named layer gives on the way.":
            lambda model, x, layer: model(x).detach(),
        "maps are cut off at 0, though nobody asked for a ReLU: show what the layer gives.":
            maps_with(keep=lambda inputs, output: output.detach().clone().clamp(min=0)),
    },
)  # fmt: skip
def activation_maps(model, x, layer):
    """What the named layer gives for each image: (n, k, h, w)."""
    return through(model, x, layer).detach()


def patches_with(score=lambda maps: maps.flatten(1), order=-1, place=lambda index, h, w: (index // w, index % w)):
    """top_patches with something changed; the defaults are right."""

    def answer(model, images, layer, channel, k):
        with torch.no_grad():
            maps = through(model, images, layer)[:, channel]
        h, w = maps.shape[1:]
        best, index = score(maps).max(dim=1)
        image = np.argsort(order * best.numpy(), kind="stable")[:k]
        row, column = place(index.numpy()[image], h, w)
        return image, row, column

    return answer


def repeated_images(model, images, layer, channel, k):
    """The k largest numbers, wherever they stand."""
    maps = through(model, images, layer).detach().numpy()[:, channel]
    return np.unravel_index(np.argsort(-maps.ravel(), kind="stable")[:k], maps.shape)


def by_mean(model, images, layer, channel, k):
    maps = through(model, images, layer).detach().numpy()[:, channel]
    image = np.argsort(-maps.mean(axis=(1, 2)), kind="stable")[:k]
    index = maps.reshape(len(maps), -1).argmax(axis=1)[image]
    return image, index // maps.shape[2], index % maps.shape[2]


def channels_of_one_image(model, images, layer, channel, k):
    maps = through(model, images, layer).detach()[channel % len(images)]
    index = maps.flatten(1).argmax(1).numpy()
    image = np.argsort(-maps.amax((1, 2)).numpy(), kind="stable")[:k]
    return image, index[image] // maps.shape[2], index[image] % maps.shape[2]


def first_images(model, images, layer, channel, k):
    maps = through(model, images, layer).detach().numpy()[:, channel]
    index = maps.reshape(len(maps), -1).argmax(axis=1)[:k]
    return np.arange(k), index // maps.shape[2], index % maps.shape[2]


@exercise(
    script="patches", points=4, minutes=18, difficulty=2,
    cases=[
        dict(model=cnn(), images=(7, 1, 8, 6), layer="conv1", channel=2, k=3),
        dict(model=cnn(seed=1), images=(6, 1, 9, 12), layer="conv2", channel=4, k=6),
        dict(model=NESTED, images=(9, 2, 9, 8), layer="stage.0", channel=0, k=4),
        dict(model=cnn(channels=3, seed=2), images=(5, 3, 6, 7), layer="conv1", channel=0, k=1),
        dict(model=cnn(seed=3), images=(1, 1, 5, 9), layer="conv1", channel=3, k=1),
        dict(model=cnn(seed=4), images=(8, 1, 8, 10), layer="conv2", channel=1, k=5),
    ],
    hints=(
        "activation_maps(…)[:, channel] is one map for each image, (n, h, w). What is the strongest number of each, "
        "and which images have the strongest of these?",
        "Flatten each map: `flat = maps.reshape(n, -1)`. flat.max(1) ranks the images, flat.argmax(1) says where; the "
        "place in a map of width w is divided into row and column by divmod(index, w).",
        "`image = np.argsort(-flat.max(axis=1))[:k]`, then `row, column = divmod(flat.argmax(axis=1)[image], w)`: "
        "columns count fastest, so w divides, not h.",
    ),
    mistakes={
        "image holds the same image more than once: the k largest numbers were taken wherever they stand. Take the "
        "largest of each image first.": repeated_images,
        "image starts with the weakest. np.argsort sorts upwards; turn it round.": patches_with(order=1),
        "row and column are in each other's places. In a flat map the columns count fastest.":
            patches_with(place=lambda index, h, w: (index % w, index // w)),
        "row and column were found with the height of the map. A row holds w numbers: divide by the width.":
            patches_with(place=lambda index, h, w: (index // h, index % h)),
        "image is ranked by absolute value. A strongly negative unit is silent, not excited.":
            patches_with(score=lambda maps: maps.flatten(1).abs()),
        "image is ranked by the mean over the map. A patch is one place: rank by the largest number.": by_mean,
        "image ranks the channels of a single image: [channel] counts along the first axis. Asked is [:, channel].":
            channels_of_one_image,
        "image is 0, 1, 2, …: the images have still to be ranked by their strongest number.": first_images,
    },
)  # fmt: skip
def top_patches(model, images, layer, channel, k):
    """Where a channel is excited most, in the k images that excite it most, strongest first."""
    maps = through(model, images, layer).detach()[:, channel]
    strongest = torch.tensor([plane.max() for plane in maps]).sort(descending=True).indices[:k]
    places = [(maps[n] == maps[n].max()).nonzero()[0] for n in strongest]
    row, column = torch.stack(places).T
    return strongest.numpy(), row.numpy(), column.numpy()


def rms(g):
    return g.square().mean().sqrt()


def picture_with(
    start=0.1, aim=lambda unit: unit.mean(), length=lambda g: rms(g) + 1e-8, swap=False, undo=True, sign=1,
    after=False, kept=lambda decay, lr: 1 - decay, drawn=lambda jitter: jitter + 1, jittered=True, fills=False,
    tracked=False,
):  # fmt: skip
    """maximise_activation with something changed; the defaults are right."""

    def answer(model, layer, channel, steps, rng, shape=(1, 48, 48), lr=0.05, decay=0.05, jitter=2):
        picture = torch.from_numpy(rng.normal(0, start, shape)).to(next(model.parameters()).dtype)
        keep = kept(decay, lr)
        for _ in range(steps):
            shift = tuple(rng.integers(-jitter, drawn(jitter), 2).tolist())
            shift = shift[::-1] if swap else shift
            shift = shift if jittered else (0, 0)
            moved = torch.roll(picture, shift, dims=(1, 2)).detach().requires_grad_()
            goal = aim(through(model, moved[None], layer)[0, channel])
            if fills:
                goal.backward()
            (g,) = (moved.grad,) if fills else torch.autograd.grad(goal, moved)
            if undo:
                g = torch.roll(g, (-shift[0], -shift[1]), dims=(1, 2))
            step = sign * lr * g / length(g)
            base = moved.detach() if undo is None else picture
            picture = keep * (base + step) if after else keep * base + step
        return picture.requires_grad_() if tracked else picture

    return answer


def unjittered_maximum(model, layer, channel, steps, rng, shape=(1, 48, 48), lr=0.05, decay=0.05, jitter=2):
    return torch.from_numpy(rng.normal(0, 0.1, shape))


def hooked_maximum(model, layer, *settings, **more):
    """The right picture, and a hook that stays."""
    model.get_submodule(layer).register_forward_hook(lambda part, inputs, output: None)
    return picture_with()(model, layer, *settings, **more)


SILENT = dict(off=["Threshold", 1e6, 0.0])  # no number comes this far: what follows is 0, and so is the gradient


def generated(seed):
    return Build("generator", seed=seed)


@exercise(
    script="picture", points=6, minutes=35, difficulty=3,
    cases=[
        dict(model=cnn(), layer="conv2", channel=3, steps=3, rng=generated(0)),
        dict(model=cnn(channels=2, seed=1), layer="conv1", channel=1, steps=4, rng=generated(1),
             shape=(2, 9, 7), lr=0.2, decay=0.3, jitter=1),
        dict(model=NESTED, layer="stage.1", channel=2, steps=2, rng=generated(2), shape=(2, 8, 11), jitter=3),
        dict(model=cnn(seed=3), layer="head", channel=2, steps=3, rng=generated(3), shape=(1, 8, 8), jitter=0),
        dict(model=cnn(seed=4, **SILENT), layer="off", channel=0, steps=2, rng=generated(4), shape=(1, 5, 6)),
        dict(model=cnn(seed=5), layer="conv1", channel=0, steps=0, rng=generated(5), shape=(1, 4, 6)),
    ],
    hints=(
        "Write one step without jitter first: from the picture to the layer's output (a hook that keeps it without "
        "detaching), the mean of the channel, and torch.autograd.grad(goal, picture).",
        "The hook must let the graph through: keep `output` itself. The roll can be part of the graph: "
        "torch.roll(picture, (dy, dx), dims=(1, 2)) goes into the model, and autograd rolls the gradient back.",
        "Per step: two draws, `dy, dx = rng.integers(-jitter, jitter + 1, 2)`; the gradient g; "
        "`g = g / (g.square().mean().sqrt() + 1e-8)`; `picture = (1 - decay) * picture.detach() + lr * g`.",
    ),
    mistakes={
        "picture goes downhill: it makes the channel quiet. Ascent adds the gradient.": picture_with(sign=-1),
        "picture takes steps of the raw gradient's size. Divide it by its root mean square, so that a step is lr in "
        "size wherever the picture is.": picture_with(length=lambda g: 1.0),
        "picture divides the gradient by its norm, not by its root mean square: the steps shrink with the number of "
        "pixels.": picture_with(length=lambda g: g.norm() + 1e-8),
        "picture decays after the step was added, so that the step shrinks too. Decay the old picture, then add.":
            picture_with(after=True),
        "picture lacks the decay: each step multiplies the old picture by 1 - decay.":
            picture_with(kept=lambda decay, lr: 1),
        "picture decays by lr · decay. The decay of the recipe is the product already: d = ηλ.":
            picture_with(kept=lambda decay, lr: 1 - lr * decay),
        "picture never moves by +jitter: rng.integers leaves out its upper end. Draw up to jitter + 1.":
            picture_with(drawn=lambda jitter: max(jitter, 1)),
        "picture was updated at its jittered place: it wanders off with every step. The gradient belongs to the "
        "picture *before* the roll.": picture_with(undo=None),
        "picture adds the gradient as it lies in the jittered picture. Roll it back, or let autograd do it, by making "
        "the roll part of what is differentiated.": picture_with(undo=False),
        "picture lacks the jitter: the numbers are drawn, and nothing is rolled.": picture_with(jittered=False),
        "picture rolls rows by the second number and columns by the first. The order is dy, dx.":
            picture_with(swap=True),
        "picture pursues the largest number of the map. Asked is the mean over the map.":
            picture_with(aim=lambda unit: unit.max()),
        "picture starts from noise of standard deviation 1. Asked is rng.normal(0, 0.1, shape).":
            picture_with(start=1.0),
        "picture is nan where nothing responds: the gradient is 0, and 0 / 0 spreads. Where does the 1e-8 go?":
            picture_with(length=rms),
        "The parameters' .grad have changed: goal.backward() leaves gradients in the whole model. "
        "torch.autograd.grad(goal, picture) asks for one and leaves nothing.": picture_with(fills=True),
        "picture is right, but still tracked by autograd (requires_grad is True). Return it detached.":
            picture_with(tracked=True),
        "The hook is still on the model, and keeps what every later call gives: handle.remove().": hooked_maximum,
        "picture is the noise that it started from.": unjittered_maximum,
    },
)  # fmt: skip
def maximise_activation(model, layer, channel, steps, rng, shape=(1, 48, 48), lr=0.05, decay=0.05, jitter=2):
    """A picture that excites a channel, by gradient ascent with decay and jitter."""
    picture = torch.tensor(rng.normal(0, 0.1, shape), dtype=next(model.parameters()).dtype)
    for _ in range(steps):
        down, right = rng.integers(-jitter, jitter + 1, 2).tolist()
        picture.requires_grad_()
        goal = through(model, picture.roll((down, right), (-2, -1)).unsqueeze(0), layer)[:, channel].mean()
        (g,) = torch.autograd.grad(goal, picture)
        picture = torch.lerp(picture.detach(), torch.zeros_like(picture), decay) + lr * g / (rms(g) + 1e-8)
    return picture.detach()


def saliency_with(
    goal=lambda logits, target: logits.gather(1, target[:, None]).sum(), reduce=lambda g, x: g.abs().amax(1),
    fills=False, marks=False, before=None,
):  # fmt: skip
    """saliency with something changed; the defaults are right."""

    def answer(model, x, target):
        if before:
            before(model)
        x = x if marks else x.clone()
        x.requires_grad_()
        score = goal(model(x), target)
        if fills:
            score.backward()
        g = x.grad if fills else torch.autograd.grad(score, x)[0]
        return reduce(g, x.detach())

    return answer


@exercise(
    script="pixels", points=4, minutes=18, difficulty=2,
    draws=dict(target=lambda rng, sizes: rng.integers(3, size=sizes["n"])),
    cases=[
        dict(n=4, model=cnn(channels=3), x=(4, 3, 6, 7)),
        dict(n=3, model=cnn(channels=2, seed=1, **NORMED), x=(3, 2, 7, 8)),
        dict(n=2, model=NESTED, x=(2, 2, 8, 7)),
        dict(n=1, model=cnn(seed=3), x=(1, 1, 5, 6)),
        dict(n=5, model=cnn(channels=2, seed=4), x=(5, 2, 4, 6), target=np.array([0, 1, 2, 1, 0]), train=True),
    ],
    hints=(
        "One number per image is differentiated: the logit of its own target, logits[n, target[n]]. How do you pick "
        "one number out of each row?",
        "The sum of these logits has, at image n, the gradient of image n's logit alone: the images do not meet in the "
        "network. So one backward pass serves the whole batch.",
        "`x = x.clone().requires_grad_()`, `goal = model(x)[range(n), target].sum()`, `(g,) = "
        "torch.autograd.grad(goal, x)`, then g.abs().amax(dim=1).",
    ),
    mistakes={
        "saliency differentiates the sum of all logits. Asked is the target's alone, for each image its own.":
            saliency_with(goal=lambda logits, target: logits.sum()),
        "saliency differentiates the largest logit, whatever the target says.":
            saliency_with(goal=lambda logits, target: logits.amax(1).sum()),
        "saliency differentiates the target's probability. Through the softmax all classes come in; take the logit.":
            saliency_with(goal=lambda logits, target: logits.softmax(1).gather(1, target[:, None]).sum()),
        "saliency differentiates the loss. Its gradient fades where the network is sure; take the logit itself.":
            saliency_with(goal=lambda logits, target: F.cross_entropy(logits, target, reduction="sum")),
        "saliency is too small by the number of images: a mean was differentiated. Sum the targets' logits, so that "
        "each image gets its own gradient in full.":
            saliency_with(goal=lambda logits, target: logits.gather(1, target[:, None]).mean()),
        "saliency differentiates the first image's class in every row. Each image has its own target.":
            saliency_with(goal=lambda logits, target: logits[:, target[0]].sum()),
        "saliency differentiates more than one logit of each image: [:, target] takes whole columns, one for each "
        "target. One number from each row: [range(n), target].":
            saliency_with(goal=lambda logits, target: logits[:, target].sum()),
        "saliency keeps the sign. A pixel that lowers the logit matters too: absolute values, then the largest.":
            saliency_with(reduce=lambda g, x: g.amax(1)),
        "saliency takes the largest over the channels before the absolute value. A large negative slope is lost so.":
            saliency_with(reduce=lambda g, x: g.amax(1).abs()),
        "saliency averages over the channels. Asked is the largest of their absolute values.":
            saliency_with(reduce=lambda g, x: g.abs().mean(1)),
        "saliency adds the channels up. Asked is the largest of their absolute values.":
            saliency_with(reduce=lambda g, x: g.abs().sum(1)),
        "saliency is multiplied by the picture. That is another method (gradient times input).":
            saliency_with(reduce=lambda g, x: (g * x).abs().amax(1)),
        "x itself asks for gradients afterwards: requires_grad_() works in place. Take x.clone() first.":
            saliency_with(marks=True),
        "The parameters' .grad have changed: backward() leaves gradients in the whole model. torch.autograd.grad asks "
        "for x's and leaves nothing.": saliency_with(fills=True),
        "The model is in evaluation mode afterwards, which it was not before. Its mode is the caller's business.":
            saliency_with(before=lambda model: model.eval()),
    },
)  # fmt: skip
def saliency(model, x, target):
    """How strongly each pixel pulls on the logit of its image's target: (n, h, w)."""
    found = []
    for image, label in zip(x, target, strict=True):
        leaf = image[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(through(model, leaf)[0, label], leaf)
        found.append(slope[0].abs().max(dim=0).values)
    return torch.stack(found)


def switched_off(output, channel):
    output = output.clone()
    output[:, channel] = 0
    return output


def ablated_with(change=switched_off, remove=True, detach=True, before=None):
    """ablate_channel with something changed; the defaults are right."""

    def answer(model, x, layer, channel):
        if before:
            before(model)
        y = hooked(model, x, layer, lambda part, inputs, output: change(output, channel), remove)
        return y.detach() if detach else y

    return answer


def only_this(output, channel):
    kept = torch.zeros_like(output)
    kept[:, channel] = output[:, channel]
    return kept


def first_image_off(output, channel):
    output = output.clone()
    output[0, channel] = 0
    return output


def kernel_zeroed(model, x, layer, channel):
    """Sets the weights that make the channel to 0; the bias is still there."""
    part = model.get_submodule(layer)
    if not hasattr(part, "weight"):
        return ablated_with()(model, x, layer, channel)
    with torch.no_grad():
        before = part.weight[channel].clone()
        part.weight[channel] = 0
        y = model(x)
        part.weight[channel] = before
    return y


def kernel_lost(model, x, layer, channel):
    """Sets all that makes the channel to 0, for good."""
    part = model.get_submodule(layer)
    if not hasattr(part, "weight"):
        return ablated_with()(model, x, layer, channel)
    with torch.no_grad():
        part.weight[channel] = part.bias[channel] = 0
        return model(x)


@exercise(
    script="ablated", points=3, minutes=12, difficulty=2,
    cases=[
        dict(model=cnn(), x=(3, 1, 8, 7), layer="conv2", channel=4),
        dict(model=cnn(seed=1, inplace=True), x=(2, 1, 6, 8), layer="conv1", channel=0),
        dict(model=NESTED, x=(4, 2, 8, 7), layer="stem.1", channel=2),
        dict(model=cnn(channels=2, seed=2, **NORMED), x=(4, 2, 6, 7), layer="bn1", channel=1),
        dict(model=cnn(seed=3), x=(2, 1, 7, 7), layer="flatten", channel=4),
        dict(model=cnn(seed=4), x=(1, 1, 4, 7), layer="conv2", channel=1, train=True),
        dict(model=cnn(seed=5), x=(3, 1, 5, 6), layer="head", channel=2),
    ],
    hints=(
        "A forward hook that returns something replaces the layer's output with it. What should yours return?",
        "Clone the output, set [:, channel] of the clone to 0, return it. The first axis counts the images.",
        "As in activation_maps: register, run the model inside torch.no_grad(), remove. This time what the model "
        "returns is the result.",
    ),
    mistakes={
        "answers are those of the whole model: nothing was switched off. A hook must *return* what is to take the "
        "output's place.":
            lambda model, x, layer, channel: model(x).detach(),
        "The hook is still on the model: the channel stays off for whoever uses the model next. handle.remove().":
            ablated_with(remove=False),
        "answers come from the named channel alone, with all others off. It is the other way round.":
            ablated_with(change=only_this),
        "answers lack the channel in the first image only. [:, channel] reaches it in all images.":
            ablated_with(change=first_image_off),
        "answers still contain the channel's bias: its weights were set to 0, not its output.": kernel_zeroed,
        "The model's parameters are others afterwards. Change what the layer gives, not what it has learned.":
            kernel_lost,
        "answers drag the graph along (requires_grad is True). Only the numbers are wanted.":
            ablated_with(detach=False),
        "The model is in evaluation mode afterwards, which it was not before. Its mode is the caller's business.":
            ablated_with(before=lambda model: model.eval()),
        "answers come from a channel at its average, not at 0.":
            ablated_with(change=lambda output, channel: torch.where(
                torch.arange(output.shape[1]).reshape(-1, *[1] * (output.ndim - 2)) == channel,
                output.mean(dim=tuple(k for k in range(output.ndim) if k != 1), keepdim=True), output)),
    },
)  # fmt: skip
def ablate_channel(model, x, layer, channel):
    """The model's answers with one channel of one layer switched off."""

    def change(y):
        mask = torch.ones(y.shape[1], dtype=y.dtype)
        mask[channel] = 0
        return y * mask.reshape(1, -1, *[1] * (y.ndim - 2))

    return through(model, x, layer, change).detach()


# --- Probes ----------------------------------------------------------------------------------------------------------


def probe_with(
    targets=lambda labels: np.eye(labels.max() + 1)[labels], penalty=lambda ridge, d, n: ridge * np.eye(d), centre=True,
    intercept=lambda y_mean, wx: y_mean - wx, transposed=False,
):  # fmt: skip
    """linear_probe with something changed; the defaults are right."""

    def answer(features, labels, ridge=1.0):
        y = targets(labels)
        x_mean, y_mean = centre * features.mean(0), centre * y.mean(0)
        x = features - x_mean
        gram = x.T @ x + penalty(ridge, *x.shape[::-1])
        w = np.linalg.solve(gram, x.T @ (y - y_mean)).T
        b = intercept(y_mean, w @ x_mean) if centre else np.zeros(len(w))
        return (w.T if transposed else w), b

    return answer


def probe_penalised_intercept(features, labels, ridge=1.0):
    x = np.column_stack([features, np.ones(len(features))])
    w = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ np.eye(labels.max() + 1)[labels]).T
    return w[:, :-1], w[:, -1]


def some_labels(k):
    """Labels below k, the largest of them among them."""
    return lambda rng, sizes: np.append(rng.integers(k, size=sizes["n"] - 1), k - 1)


def shifted(*shape):
    return lambda rng, sizes: 5 + rng.standard_normal(shape)


@exercise(
    points=4, minutes=20, difficulty=2,
    cases=[
        dict(n=12, d=4, k=3, labels=some_labels(3)),
        dict(n=9, d=2, k=4, labels=some_labels(4), ridge=0.1, features=shifted(9, 2)),
        dict(n=5, d=8, k=2, labels=some_labels(2), ridge=10.0),
        dict(n=6, d=3, k=4, labels=np.array([0, 3, 3, 0, 1, 3]), features=shifted(6, 3)),
        dict(n=4, d=1, k=2, labels=np.array([0, 1, 1, 1])),
    ],
    hints=(
        "Turn the labels into one-hot rows (n, k), and it is a regression: `np.eye(k)[labels]`. Then take the mean out "
        "of the features and out of the targets, and the intercept is gone from the problem.",
        "For centred x and y, setting the gradient of |x wᵀ - y|² + ridge · |w|² to 0 gives (xᵀx + ridge · I) wᵀ = "
        "xᵀy. np.linalg.solve solves it.",
        "`w = np.linalg.solve(x.T @ x + ridge * np.eye(d), x.T @ y).T`, and the intercept makes the mean come out "
        "right: b = mean of y - w @ mean of the features.",
    ),
    mistakes={
        "w and b come from a penalised intercept: a column of ones was added to the features, and the ridge pulls on "
        "it too. Take the means out instead.": probe_penalised_intercept,
        "w and b lack the centring: without an intercept the line is forced through the origin.":
            probe_with(centre=False),
        "b is 0. It is what makes the means come out right: mean of the targets - w @ mean of the features.":
            probe_with(intercept=lambda y_mean, wx: 0 * wx),
        "b is the mean of the targets alone. Take w @ mean of the features from it.":
            probe_with(intercept=lambda y_mean, wx: y_mean),
        "b adds w @ mean of the features. Subtract it: b is what is left of the targets' mean.":
            probe_with(intercept=lambda y_mean, wx: y_mean + wx),
        "w and b do not depend on ridge: it is 1 in them, whatever is asked for.":
            probe_with(penalty=lambda ridge, d, n: np.eye(d)),
        "w and b have the ridge added to every number of the matrix. It belongs on the diagonal: ridge · I.":
            probe_with(penalty=lambda ridge, d, n: ridge),
        "w and b lack the ridge: without it, features that repeat each other have no unique answer.":
            probe_with(penalty=lambda ridge, d, n: 1e-9 * np.eye(d)),
        "w and b have the ridge multiplied by the number of examples. The sum of squares is not averaged here.":
            probe_with(penalty=lambda ridge, d, n: ridge * n * np.eye(d)),
        "w and b aim at −1 and 1. One-hot targets are 0 and 1.":
            probe_with(targets=lambda labels: 2 * np.eye(labels.max() + 1)[labels] - 1),
        "w is transposed: as in a linear layer, its shape is (classes, features).": probe_with(transposed=True),
        "w and b aim at the labels as numbers, as if class 3 were three times class 1. One column per class.":
            probe_with(targets=lambda labels: labels[:, None] * np.ones(labels.max() + 1)),
    },
)  # fmt: skip
def linear_probe(features: "n d", labels: "n", ridge=1.0) -> "w: k d, b: k":
    """Ridge regression of one-hot labels on features, with an intercept that is not penalised."""
    d, classes = features.shape[1], int(labels.max()) + 1
    rows = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
    pull_to_zero = torch.cat([ridge**0.5 * torch.eye(d), torch.zeros(d, 1)], dim=1).to(features.dtype)
    targets = F.one_hot(labels.long(), classes).to(features.dtype)
    system, wanted = torch.cat([rows, pull_to_zero]), torch.cat([targets, targets.new_zeros(d, classes)])
    found = torch.linalg.lstsq(system, wanted).solution
    return found[:d].T, found[d]


# --- Repair ----------------------------------------------------------------------------------------------------------


def effects_with(remove=True, loss=F.cross_entropy, sign=1, detach=True, stay=False, subtract=True):
    """repair_channel_effects with some of its choices changed; the defaults are right."""

    def answer(model, x, target, layer):
        part, found, handles = model.get_submodule(layer), [], []
        whole = loss(model(x), target)
        for channel in range(len(through(model, x, layer)[0])):
            handles.append(part.register_forward_hook(lambda part, x, y, channel=channel: switched_off(y, channel)))
            off = loss(model(x), target)
            found.append(sign * (off - whole) if subtract else off)
            if remove:
                handles.pop().remove()
        if not stay:
            for handle in handles:
                handle.remove()
        effects = torch.stack(found)
        return effects.detach() if detach else effects

    return answer


@exercise(
    script="effects", repair=True, points=3, minutes=15, difficulty=2,
    draws=dict(target=lambda rng, sizes: rng.integers(3, size=sizes["n"])),
    cases=[
        dict(n=4, model=cnn(), x=(4, 1, 8, 7), layer="relu1"),
        dict(n=3, model=NESTED, x=(3, 2, 8, 7), layer="stage.1"),
        dict(n=1, model=cnn(channels=2, seed=2), x=(1, 2, 5, 7), layer="conv2"),
        dict(n=5, model=cnn(seed=3, **NORMED), x=(5, 1, 6, 9), layer="bn1"),
    ],
    hints=(
        "Only the first effect is right. What is different about the model when the second channel's turn comes?",
        "Count the hooks on the layer after the loop: `len(module._forward_hooks)`. What should it be, and when should "
        "each of them have gone?",
        "`handle = module.register_forward_hook(…)` returns what removes it: handle.remove(), right after the loss. "
        "And nothing here needs a graph: torch.no_grad() around the whole.",
    ),
    mistakes={
        "effects are right for the first channel only, and the model is broken afterwards: no hook is ever removed, so "
        "that the channels go out one after the other.":
            effects_with(remove=False, stay=True, detach=False),
        "effects still add up: the hooks are removed, but only after the loop. Each has to go before the next comes.":
            effects_with(remove=False),
        "effects are right by now, but drag a graph along (requires_grad is True): torch.no_grad() around the "
        "forward passes.": effects_with(detach=False),
        "effects have the wrong sign: a channel that matters makes the loss *rise* when it goes.":
            effects_with(sign=-1),
        "effects are the losses themselves. Subtract the loss of the whole model.": effects_with(subtract=False),
        "effects are too large by the number of images: F.cross_entropy averages by itself.":
            effects_with(loss=lambda logits, target: F.cross_entropy(logits, target, reduction="sum")),
    },
)  # fmt: skip
def repair_channel_effects(model, x, target, layer):
    """By how much the loss rises when each channel of a layer is switched off, one at a time: (k,)."""
    channels = through(model, x, layer).shape[1]
    losses = torch.stack([F.cross_entropy(ablate_channel(model, x, layer, k), target) for k in range(channels)])
    return losses - F.cross_entropy(through(model, x).detach(), target)
