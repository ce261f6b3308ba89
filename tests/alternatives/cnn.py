"""Other right ways to solve the exercises of lesson 11."""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# --- Layers ----------------------------------------------------------------------------------------------------------


def slid(x, w, b, stride, padding):
    """A convolution as a sum over the places of the kernel."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kh, kw = w.shape[2:]
    oh, ow = (x.shape[2] - kh) // stride + 1, (x.shape[3] - kw) // stride + 1
    y = np.tile(b[:, None, None], (len(x), 1, oh, ow)).astype(float)
    for i, j in product(range(kh), range(kw)):
        part = x[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride]
        y += np.einsum("nchw,oc->nohw", part, w[:, :, i, j])
    return y


class ConvLayerByShifts:
    def __init__(self, w, b, stride=1, padding=0):
        self.values, self.how = [w, b], (stride, padding)

    def forward(self, x):
        self.x = x.copy()
        return slid(x, *self.values, *self.how)

    def backward(self, dy):
        (w, _), (stride, p) = self.values, self.how
        x = np.pad(self.x, ((0, 0), (0, 0), (p, p), (p, p)))
        dx, dw, (oh, ow) = np.zeros_like(x), np.zeros_like(w), dy.shape[2:]
        for i, j in product(range(w.shape[2]), range(w.shape[3])):
            rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", dy, x[:, :, rows, columns])
            dx[:, :, rows, columns] += np.einsum("nohw,oc->nchw", dy, w[:, :, i, j])
        self.found = [dw, np.einsum("nohw->o", dy)]
        return dx[:, :, p : dx.shape[2] - p, p : dx.shape[3] - p]

    def parameters(self):
        return self.values

    def gradients(self):
        return self.found


class ConvLayerByPixels:
    """Window by window."""

    def __init__(self, w, b, stride=1, padding=0):
        self.w, self.b, self.stride, self.padding = w, b, stride, padding

    def windows(self, x):
        p, s, (kh, kw) = self.padding, self.stride, self.w.shape[2:]
        x = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])
        for i, j in product(range((x.shape[2] - kh) // s + 1), range((x.shape[3] - kw) // s + 1)):
            yield i, j, x[:, :, s * i : s * i + kh, s * j : s * j + kw]

    def forward(self, x):
        self.x, found = x, {(i, j): np.tensordot(cut, self.w, ((1, 2, 3),) * 2) for i, j, cut in self.windows(x)}
        rows, columns = np.max(list(found), axis=0) + 1
        y = np.stack([[found[i, j] for j in range(columns)] for i in range(rows)])
        return y.transpose(2, 3, 0, 1) + self.b.reshape(1, -1, 1, 1)

    def backward(self, dy):
        dx, self.dw, self.db = np.zeros(self.x.shape), np.zeros(self.w.shape), dy.sum((0, 2, 3))
        p = self.padding
        padded = np.pad(dx, [(0, 0), (0, 0), (p, p), (p, p)])
        for i, j, cut in self.windows(self.x):
            at = self.stride * np.array([i, j])
            self.dw += np.tensordot(dy[:, :, i, j], cut, (0, 0))
            padded[:, :, at[0] : at[0] + self.w.shape[2], at[1] : at[1] + self.w.shape[3]] += np.tensordot(
                dy[:, :, i, j], self.w, (1, 0)
            )
        return padded[:, :, p : p + dx.shape[2], p : p + dx.shape[3]]

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]


class MaxPoolLayerByWindows:
    def __init__(self, kernel_size, stride=None):
        self.k, self.s = kernel_size, kernel_size if stride is None else stride

    def places(self, x):
        for n, c, i, j in np.ndindex(*x.shape[:2], *((size - self.k) // self.s + 1 for size in x.shape[2:])):
            cut = x[n, c, self.s * i : self.s * i + self.k, self.s * j : self.s * j + self.k]
            row, column = np.unravel_index(cut.argmax(), cut.shape)
            yield (n, c, i, j), (n, c, self.s * i + row, self.s * j + column)

    def forward(self, x):
        self.routes, self.shape = list(self.places(x)), x.shape
        y = np.zeros(np.max([out for out, _ in self.routes], axis=0) + 1)
        for out, into in self.routes:
            y[out] = x[into]
        return y

    def backward(self, dy):
        dx = np.zeros(self.shape)
        for out, into in self.routes:
            dx[into] += dy[out]
        return dx

    def parameters(self):
        return []

    def gradients(self):
        return []


class MaxPoolLayerByShifts:
    """Keeps which place of the window won."""

    def __init__(self, kernel_size, stride=None):
        self.kernel_size, self.stride = kernel_size, stride or kernel_size

    def cut(self, x, i, j):
        oh, ow = ((size - self.kernel_size) // self.stride + 1 for size in x.shape[2:])
        return x[:, :, i : i + self.stride * oh : self.stride, j : j + self.stride * ow : self.stride]

    def forward(self, x):
        self.x, k = x, self.kernel_size
        places = np.stack([self.cut(x, i, j) for i in range(k) for j in range(k)])
        self.won = places.argmax(axis=0)
        return places.max(axis=0)

    def backward(self, dy):
        dx, k = np.zeros(self.x.shape), self.kernel_size
        for place in range(k * k):
            self.cut(dx, *divmod(place, k))[...] += dy * (self.won == place)
        return dx

    def parameters(self):
        return ()

    def gradients(self):
        return ()


class FlattenLayerByLoop:
    def forward(self, x):
        self.x = x
        return np.stack([image.ravel() for image in x])

    def backward(self, dy):
        dx = np.empty_like(self.x)
        dx.flat[:] = dy.ravel()
        return dx

    def parameters(self):
        return []

    def gradients(self):
        return []


class FlattenLayerByShape:
    def forward(self, x):
        self.inside = x.shape[1:]
        return np.reshape(x, (x.shape[0], np.prod(self.inside)))

    def backward(self, dy):
        return dy.reshape(-1, *self.inside)

    def parameters(self):
        return []

    gradients = parameters


# --- Predict ---------------------------------------------------------------------------------------------------------


def count_by_steps(channels, height, width, layers):
    shape, total, entering = (channels, height, width), 0, 0
    for layer in layers:
        if layer[0] == "conv":
            _, out, k, s, p = layer
            total += out * (shape[0] * k**2 + 1)
            shape = (out, *(1 + (size + 2 * p - k) // s for size in shape[1:]))
        elif layer[0] == "pool":
            shape = (shape[0], *(size // layer[1] for size in shape[1:]))
        else:
            entering = entering or int(np.prod(shape))
            total += (int(np.prod(shape)) + 1) * layer[1]
            shape = (layer[1],)
    return total, entering


def count_by_recursion(channels, height, width, layers):
    if not layers:
        return 0, 0
    kind, *numbers = layers[0]
    if kind == "linear":
        features = channels * height * width
        return (features + 1) * numbers[0] + count_by_recursion(numbers[0], 1, 1, layers[1:])[0], features
    out, k, s, p = (channels, numbers[0], numbers[0], 0) if kind == "pool" else numbers
    parameters = 0 if kind == "pool" else out * (channels * k * k + 1)
    rest = count_by_recursion(out, int((height + 2 * p - k) / s) + 1, int((width + 2 * p - k) / s) + 1, layers[1:])
    return parameters + rest[0], rest[1]


# --- The network -----------------------------------------------------------------------------------------------------


class SceneCNNByFunctions(nn.Module):
    def __init__(self, width=16, classes=8):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 5, padding="same")
        self.conv2, self.conv3, self.conv4 = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(3))
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(F.max_pool2d(conv(x), 2))
        return self.fc(F.relu(self.conv4(x)).mean(dim=(2, 3)))


class SceneCNNByChildren(nn.Module):
    def __init__(self, width=16, classes=8):
        super().__init__()
        for k, (i, size) in enumerate([(1, 5), (width, 3), (width, 3), (width, 3)], start=1):
            setattr(self, f"conv{k}", nn.Conv2d(i, width, size, padding=size // 2))
            setattr(self, f"relu{k}", nn.ReLU(inplace=True))
            setattr(self, f"pool{k}", nn.MaxPool2d(2) if k < 4 else nn.Identity())
        self.gap, self.flatten, self.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)

    def forward(self, x):
        return nn.Sequential(*self.children())(x)


# --- Looking into a model --------------------------------------------------------------------------------------------


def maps_by_dictionary(model, x, layer):
    kept = {}

    def hook(module, inputs, output):
        kept["maps"] = output.detach().clone()

    handle = dict(model.named_modules())[layer].register_forward_hook(hook)
    try:
        model(x)
    finally:
        handle.remove()
    return kept["maps"]


@torch.no_grad()
def maps_as_array(model, x, layer):
    found = []
    with model.get_submodule(layer).register_forward_hook(lambda part, given, y: found.append(y.numpy().copy())):
        model(x)
    return found[-1]


def patches_by_loop(model, images, layer, channel, k):
    maps = maps_by_dictionary(model, images, layer)[:, channel]
    best = sorted(range(len(maps)), key=lambda n: -maps[n].max().item())[:k]
    rows, columns = zip(*(divmod(int(maps[n].argmax()), maps.shape[2]) for n in best), strict=True)
    return best, list(rows), list(columns)


def patches_by_topk(model, images, layer, channel, k):
    maps = maps_by_dictionary(model, images, layer)[:, channel]
    best, index = maps.flatten(1).max(dim=1)
    image = best.topk(k).indices
    return image, index[image] // maps.shape[2], index[image] % maps.shape[2]


def patches_by_unravel(model, images, layer, channel, k):
    maps = maps_as_array(model, images, layer)[:, channel]
    flat = maps.reshape(len(maps), -1)
    image = np.argsort(flat.max(1))[::-1][:k]
    return image, *np.unravel_index(flat[image].argmax(1), maps.shape[1:])


def watched(model, x, layer):
    """What a layer gives, still in the graph."""
    found = []
    handle = model.get_submodule(layer).register_forward_hook(lambda part, given, y: found.append(y))
    model(x)
    handle.remove()
    return found[0]


def picture_by_hand(model, layer, channel, steps, rng, shape=(1, 48, 48), lr=0.05, decay=0.05, jitter=2):
    """Rolls the gradient back itself."""
    picture = torch.as_tensor(rng.normal(0, 0.1, shape), dtype=next(model.parameters()).dtype)
    for _ in range(steps):
        dy, dx = rng.integers(-jitter, jitter + 1, 2)
        moved = picture.roll((int(dy), int(dx)), (-2, -1)).clone().requires_grad_()
        (g,) = torch.autograd.grad(watched(model, moved[None], layer)[0, channel].mean(), [moved])
        g = g.roll((-int(dy), -int(dx)), (-2, -1))
        picture -= decay * picture
        picture += lr * g / ((g**2).mean() ** 0.5 + 1e-8)
    return picture


def picture_of_one(model, layer, channel, steps, rng, shape=(1, 48, 48), lr=0.05, decay=0.05, jitter=2):
    """Keeps a batch of one; sums instead of averaging, which the normalisation takes out (but for 1e-8)."""
    picture = torch.from_numpy(rng.normal(0, 0.1, (1, *shape)))
    for _ in range(steps):
        shift = rng.integers(low=-jitter, high=jitter, size=2, endpoint=True).tolist()
        picture = picture.detach().requires_grad_()
        y = watched(model, torch.roll(picture, shift, (2, 3)), layer)
        (g,) = torch.autograd.grad(y[:, channel].sum(), picture)
        picture = picture * (1 - decay) + lr * g / (g.pow(2).mean().sqrt() + 1e-8)
    return picture[0].detach().numpy()


def saliency_one_by_one(model, x, target):
    found = np.zeros((len(x), *x.shape[2:]))
    for n in range(len(x)):
        image = x[n : n + 1].detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(image)[0, target[n]], image)
        found[n] = slope[0].abs().numpy().max(axis=0)
    return found


def saliency_one_hot(model, x, target):
    leaf = x.detach().clone().requires_grad_()
    logits = model(leaf)
    (g,) = torch.autograd.grad(logits, leaf, grad_outputs=F.one_hot(target, logits.shape[1]).to(x.dtype))
    return torch.maximum(g.amax(1), -g.amin(1))


def ablated_by_mask(model, x, layer, channel):
    def hook(part, given, y):
        shape = [1] * y.ndim
        shape[1] = -1
        return y * (torch.arange(y.shape[1]) != channel).reshape(shape)

    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            return model(x)
    finally:
        handle.remove()


def ablated_in_place(model, x, layer, channel):
    def off(part, given, y):
        y.select(1, channel).zero_()

    with torch.no_grad(), model.get_submodule(layer).register_forward_hook(off):
        return model(x).numpy()


# --- Probes ----------------------------------------------------------------------------------------------------------


def probe_by_augmenting(features, labels, ridge=1.0):
    """Least squares with the ridge as further examples."""
    n, d = features.shape
    x = np.vstack([np.column_stack([features, np.ones(n)]), np.sqrt(ridge) * np.eye(d, d + 1)])
    y = np.vstack([labels[:, None] == np.arange(labels.max() + 1), np.zeros((d, labels.max() + 1))]).astype(float)
    found = np.linalg.lstsq(x, y, rcond=None)[0]
    return found[:-1].T, found[-1]


def probe_by_svd(features, labels, ridge=1.0):
    y, mean = np.eye(labels.max() + 1)[labels], features.mean(axis=0)
    u, s, vt = np.linalg.svd(features - mean, full_matrices=False)
    w = ((y - y.mean(axis=0)).T @ u) * (s / (s**2 + ridge)) @ vt
    return w, y.mean(axis=0) - w @ mean


def probe_dual(features, labels, ridge=1.0):
    """Through the products between examples: quicker where features outnumber them."""
    y, x = np.eye(labels.max() + 1)[labels], features - features.mean(axis=0)
    w = np.linalg.solve(x @ x.T + ridge * np.eye(len(x)), y - y.mean(axis=0)).T @ x
    return w, (y - features @ w.T).mean(axis=0)


# --- Repair ----------------------------------------------------------------------------------------------------------


def effects_by_ablating(model, x, target, layer):
    count, whole = maps_by_dictionary(model, x, layer).shape[1], F.cross_entropy(model(x).detach(), target)
    off = [F.cross_entropy(ablated_by_mask(model, x, layer, channel), target) for channel in range(count)]
    return torch.stack(off) - whole


@torch.no_grad()
def effects_by_one_hook(model, x, target, layer):
    """One hook for all, which looks up what is off."""
    off = [None]

    def hook(part, given, y):
        keep = torch.ones(y.shape[1], dtype=y.dtype)
        if off[0] is not None:
            keep[off[0]] = 0
        return torch.einsum("nc...,c->nc...", y, keep)

    handle = model.get_submodule(layer).register_forward_hook(hook)
    whole, losses = F.cross_entropy(model(x), target), []
    for channel in range(maps_by_dictionary(model, x, layer).shape[1]):
        off[0] = channel
        losses.append(F.cross_entropy(model(x), target).item())
    handle.remove()
    return np.array(losses) - whole.item()


ALTERNATIVES = {
    "ConvLayer": [ConvLayerByShifts, ConvLayerByPixels],
    "MaxPoolLayer": [MaxPoolLayerByWindows, MaxPoolLayerByShifts],
    "FlattenLayer": [FlattenLayerByLoop, FlattenLayerByShape],
    "count_cnn": [count_by_steps, count_by_recursion],
    "SceneCNN": [SceneCNNByFunctions, SceneCNNByChildren],
    "activation_maps": [maps_by_dictionary, maps_as_array],
    "top_patches": [patches_by_loop, patches_by_topk, patches_by_unravel],
    "maximise_activation": [picture_by_hand, picture_of_one],
    "saliency": [saliency_one_by_one, saliency_one_hot],
    "ablate_channel": [ablated_by_mask, ablated_in_place],
    "linear_probe": [probe_by_augmenting, probe_by_svd, probe_dual],
    "repair_channel_effects": [effects_by_ablating, effects_by_one_hook],
}
