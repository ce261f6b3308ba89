"""Other right ways to solve the exercises of lesson 04."""

from itertools import chain, pairwise

import numpy as np
import torch

# --- The chain rule through two layers -------------------------------------------------------------------------------


def block_where(x, w, b):
    z = np.einsum("ni,oi->no", x, w) + b
    return np.where(z > 0, z, 0.0)


def block_transposed(x, w, b):
    return (w @ x.T + b[:, None]).clip(min=0).T


def block_backward_masked(dy, x, w, b):
    dz = dy.copy()
    dz[x @ w.T + b <= 0] = 0
    return dz @ w, dz.T @ x, dz.sum(axis=0)


def block_backward_from_y(dy, x, w, b):
    """Through the output alone, and with einsum."""
    dz = dy * np.sign(block_where(x, w, b))
    return np.einsum("no,oi->ni", dz, w), np.einsum("no,ni->oi", dz, x), np.einsum("no->o", dz)


# --- Layers ----------------------------------------------------------------------------------------------------------


class LinearLazily:
    """Keeps what it was given, and works its gradients out only when it is asked for them."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.x = x.copy()
        return np.einsum("...i,oi->...o", x, self.w) + self.b

    def backward(self, dy):
        self.dy = dy.copy()
        return dy @ self.w

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        o, i = self.w.shape
        dy, x = self.dy.reshape(-1, o), self.x.reshape(-1, i)
        return [dy.T @ x, dy.sum(0)]


class LinearInPlace:
    """Holds its gradients in arrays that are written over."""

    def __init__(self, w, b):
        self.own = [w, b]
        self.found = [np.zeros_like(w), np.zeros_like(b)]

    def forward(self, x):
        self.x = x
        return x @ self.own[0].T + self.own[1]

    def backward(self, dy):
        axes = list(range(dy.ndim - 1))
        self.found[0][...] = np.tensordot(dy, self.x, axes=(axes, axes))
        self.found[1][...] = dy.sum(axis=tuple(axes))
        return dy @ self.own[0]

    def parameters(self):
        return self.own

    def gradients(self):
        return self.found


class ReLUByMask:
    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, dy):
        return np.where(self.mask, dy, 0.0)

    def parameters(self):
        return []

    def gradients(self):
        return []


class ReLUByOutput:
    def forward(self, x):
        self.y = np.maximum(x, 0.0)
        return self.y.copy()

    def backward(self, dy):
        dx = np.array(dy)
        dx[self.y == 0] = 0
        return dx

    def parameters(self):
        return []

    gradients = parameters


class SequentialByRecursion:
    def __init__(self, layers):
        self.first, self.rest = (layers[0], type(self)(layers[1:])) if layers else (None, None)

    def forward(self, x):
        return self.rest.forward(self.first.forward(x)) if self.first else x

    def backward(self, dy):
        return self.first.backward(self.rest.backward(dy)) if self.first else dy

    def parameters(self):
        return self.first.parameters() + self.rest.parameters() if self.first else []

    def gradients(self):
        return [*self.first.gradients(), *self.rest.gradients()] if self.first else []


class SequentialByIndex:
    def __init__(self, layers):
        self.layers = list(layers)

    def forward(self, x):
        self.between = [x]
        for layer in self.layers:
            self.between.append(layer.forward(self.between[-1]))
        return self.between[-1]

    def backward(self, dy):
        for k in range(len(self.layers) - 1, -1, -1):
            dy = self.layers[k].backward(dy)
        return dy

    def parameters(self):
        return list(chain.from_iterable(layer.parameters() for layer in self.layers))

    def gradients(self):
        found = []
        for layer in self.layers:
            found.extend(layer.gradients())
        return found


# --- The tape --------------------------------------------------------------------------------------------------------


def order_by_counting(node):
    """Kahn, 1962: from the root, take a node when all that use it have been taken; then turn round."""
    uses, found, seen = {}, [node], {node}
    for each in found:
        for parent in each.parents:
            uses[parent] = uses.get(parent, 0) + 1
            if parent not in seen:
                seen.add(parent)
                found.append(parent)
    order, free = [], [node]
    while free:
        each = free.pop()
        order.append(each)
        for parent in each.parents:
            uses[parent] -= 1
            if not uses[parent]:
                free.append(parent)
    return order[::-1]


def order_by_generators(node):
    """Depth first, each waiting node with an iterator over its parents."""
    order, met, waiting = [], {id(node)}, [(node, iter(node.parents))]
    while waiting:
        each, parents = waiting[-1]
        for parent in parents:
            if id(parent) not in met:
                met.add(id(parent))
                waiting.append((parent, iter(parent.parents)))
                break
        else:
            waiting.pop()
            order.append(each)
    return tuple(order)


def order_by_height(node):
    """Sorted by the longest way up from a leaf."""
    height = {}
    waiting = [node]
    while waiting:
        each = waiting[-1]
        missing = [parent for parent in each.parents if parent not in height]
        waiting += missing
        if not missing:
            height[waiting.pop()] = 1 + max((height[parent] for parent in each.parents), default=0)
    return sorted(height, key=height.get)


def unbroadcast_at_once(dy, shape):
    front = dy.ndim - len(shape)
    axes = (*range(front), *(front + k for k, size in enumerate(shape) if size == 1))
    return dy.sum(axis=axes).reshape(shape)


def unbroadcast_by_counting(dy, shape):
    """Adds every entry of dy to the entry of x that it was copied from."""
    source = np.broadcast_to(np.arange(int(np.prod(shape))).reshape(shape), dy.shape)
    return np.bincount(source.ravel(), weights=dy.ravel(), minlength=int(np.prod(shape))).reshape(shape)


def unbroadcast_float32(dy, shape):
    dy = dy.astype(np.float32)
    while dy.ndim > len(shape):
        dy = dy.sum(0)
    for axis in range(len(shape)):
        if shape[axis] == 1 and dy.shape[axis] != 1:
            dy = dy.sum(axis, keepdims=True)
    return dy


def backpropagate_in_a_dictionary(root):
    """Gathers this run's gradients apart, then hands them over."""
    arrived = {root: np.ones_like(root.data)}
    for node in order_by_counting(root)[::-1]:
        for parent, pullback in zip(node.parents, node.pullbacks, strict=True):
            sent = unbroadcast_at_once(np.asarray(pullback(arrived[node])), parent.data.shape)
            arrived[parent] = arrived.get(parent, 0) + sent
    for node, gradient in arrived.items():
        node.grad = gradient if node.parents else node.grad + gradient


def backpropagate_in_place(root):
    order = order_by_height(root)
    for node in order:
        if node.parents:
            node.grad = np.zeros_like(node.data)
    root.grad = root.grad + 1.0
    for node in order[::-1]:
        for k, parent in enumerate(node.parents):
            parent.grad += unbroadcast_at_once(node.pullbacks[k](node.grad), parent.grad.shape)


class Variable:
    """In the manner of micrograd: every operation leaves a function that knows how to pass its gradient on."""

    def __init__(self, data, parents=()):
        self.data = np.array(data, dtype=float)
        self.grad = np.zeros(self.data.shape)
        self.parents = parents
        self.pass_on = lambda: None

    def __add__(self, other):
        out = Variable(self.data + other.data, (self, other))

        def pass_on():
            self.grad += unbroadcast_at_once(out.grad, self.grad.shape)
            other.grad += unbroadcast_at_once(out.grad, other.grad.shape)

        out.pass_on = pass_on
        return out

    def __mul__(self, other):
        out = Variable(self.data * other.data, (self, other))

        def pass_on():
            self.grad += unbroadcast_at_once(out.grad * other.data, self.grad.shape)
            other.grad += unbroadcast_at_once(out.grad * self.data, other.grad.shape)

        out.pass_on = pass_on
        return out

    def __matmul__(self, other):
        out = Variable(self.data @ other.data, (self, other))

        def pass_on():
            self.grad += np.einsum("no,io->ni", out.grad, other.data)
            other.grad += np.einsum("no,ni->io", out.grad, self.data)

        out.pass_on = pass_on
        return out

    def relu(self):
        out = Variable(self.data.clip(min=0), (self,))

        def pass_on():
            self.grad += np.where(self.data > 0, out.grad, 0)

        out.pass_on = pass_on
        return out

    def sum(self):
        out = Variable(np.sum(self.data), (self,))

        def pass_on():
            self.grad += out.grad

        out.pass_on = pass_on
        return out

    def backward(self):
        order = order_by_counting(self)
        for node in order:
            if node.parents:
                node.grad = np.zeros(node.data.shape)
        self.grad = self.grad + 1
        for node in order[::-1]:
            node.pass_on()


class Taped:
    """A tape in the word's own sense: one list of all that happened, which the backward pass reads from its end."""

    tape: list = []  # noqa: RUF012

    def __init__(self, data, parents=(), back=None):
        self.data, self.parents, self.back = np.asarray(data, dtype=float), parents, back
        self.grad = np.zeros_like(self.data)
        Taped.tape.append(self)

    def __add__(self, other):
        return type(self)(self.data + other.data, (self, other), lambda dy: (dy, dy))

    def __mul__(self, other):
        return type(self)(self.data * other.data, (self, other), lambda dy: (dy * other.data, dy * self.data))

    def __matmul__(self, other):
        return type(self)(self.data @ other.data, (self, other), lambda dy: (dy @ other.data.T, self.data.T @ dy))

    def relu(self):
        return type(self)(np.maximum(self.data, 0), (self,), lambda dy: (dy * (self.data > 0),))

    def sum(self):
        return type(self)(self.data.sum(), (self,), lambda dy: (np.broadcast_to(dy, self.data.shape),))

    def backward(self):
        found = {self: np.ones_like(self.data)}
        for node in Taped.tape[::-1]:
            if node in found and node.back:
                for parent, dx in zip(node.parents, node.back(found[node]), strict=True):
                    found[parent] = found.get(parent, 0) + unbroadcast_at_once(dx, parent.data.shape)
        for node, gradient in found.items():
            node.grad = gradient if node.back else node.grad + gradient


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class KeepsMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        z = torch.einsum("ni,oi->no", x, w) + b
        ctx.save_for_backward(x, w, z > 0)
        return torch.where(z > 0, z, torch.zeros_like(z))

    @staticmethod
    def backward(ctx, dy):
        x, w, on = ctx.saved_tensors
        dz = dy * on
        return dz.mm(w), dz.t().mm(x), dz.sum(dim=0)


class WorksItOutAgain(torch.autograd.Function):
    """Keeps no activations but its inputs."""

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w, b)
        return torch.relu(torch.nn.functional.linear(x, w, b))

    @staticmethod
    def backward(ctx, dy):
        x, w, b = ctx.saved_tensors
        dz = dy.masked_fill(torch.nn.functional.linear(x, w, b) <= 0, 0)
        return dz @ w, dz.T @ x, dz.sum(0)


# --- Repair and predict ----------------------------------------------------------------------------------------------


def weighted_by_default(xs, weights):
    pullbacks = [lambda dy, weight=weight: weight * dy for weight in weights]
    return sum(weight * x for x, weight in zip(xs, weights, strict=True)), pullbacks


def weighted_by_factory(xs, weights):
    def times(weight):
        return lambda dy: dy * weight

    return np.tensordot(weights, np.stack(xs), axes=1), tuple(map(times, weights))


def saved_by_walking(n, widths):
    total = 0
    for width in widths[:-1]:
        total += n * width
    return total


def products_by_layer(n, widths):
    total = 0
    for k, (i, o) in enumerate(pairwise(widths)):
        total += n * i * o
        if k > 0:
            total += n * i * o
    return total


ALTERNATIVES = {
    "linear_relu_forward": [block_where, block_transposed],
    "linear_relu_backward": [block_backward_masked, block_backward_from_y],
    "LinearLayer": [LinearLazily, LinearInPlace],
    "ReLULayer": [ReLUByMask, ReLUByOutput],
    "Sequential": [SequentialByRecursion, SequentialByIndex],
    "topological_order": [order_by_counting, order_by_generators, order_by_height],
    "unbroadcast": [unbroadcast_at_once, unbroadcast_by_counting, unbroadcast_float32],
    "backpropagate": [backpropagate_in_a_dictionary, backpropagate_in_place],
    "Tensor": [Variable, Taped],
    "LinearReLUFunction": [KeepsMask, WorksItOutAgain],
    "repair_weighted_sum": [weighted_by_default, weighted_by_factory],
    "saved_activations": [saved_by_walking, lambda n, widths: n * (sum(widths) - widths[-1])],
    "backward_multiplications": [
        products_by_layer,
        lambda n, widths: n * (2 * int(np.dot(widths[:-1], widths[1:])) - widths[0] * widths[1]),
    ],
}
