"""Lesson 04: plays layers, sequences of them, and a tape."""

from contextlib import suppress
from operator import add, matmul, mul

import numpy as np

# --- Layers ----------------------------------------------------------------------------------------------------------


def linear_layer(
    LinearLayer, x: "...", w: "o i", b: "o", dy: "..."
) -> "y: ..., dx: ..., dw: o i, db: o, y after a step: ...":
    layer = LinearLayer(w.copy(), b.copy())
    layer.forward(3 * x)
    layer.backward(2 * dy)
    y, dx = layer.forward(x), layer.backward(dy)
    dw, db = (np.array(gradient) for gradient in layer.gradients())
    for parameter in layer.parameters():
        parameter *= 2
    return y, dx, dw, db, layer.forward(x)


def relu_layer(ReLULayer, x: "...", first: "...", dy: "...") -> "y: ..., dx: ..., how many parameters:":
    layer, another = ReLULayer(), ReLULayer()
    layer.forward(first)
    y = layer.forward(x)
    another.forward(-x)
    return y, layer.backward(dy), len(layer.parameters()) + len(layer.gradients())


class Stretch:
    """Multiplies column j by its own parameter."""

    def __init__(self, scale):
        self.scale, self.gradient = scale, np.zeros_like(scale)

    def forward(self, x):
        self.x = x
        return x * self.scale

    def backward(self, dy):
        self.gradient = (dy * self.x).sum(axis=0)
        return dy * self.scale

    def parameters(self):
        return [self.scale]

    def gradients(self):
        return [self.gradient]


class Fixed:
    """A layer without parameters."""

    def __init__(self, forward, backward):
        self.forward, self.backward = forward, backward

    def parameters(self):
        return []

    gradients = parameters


def roll():
    """Moves every column one to the right, the last to the front."""
    return Fixed(lambda x: np.roll(x, 1, axis=1), lambda dy: np.roll(dy, -1, axis=1))


def pairs():
    """Adds to every column the one on its left: what it does to a stretch before it differs from one behind it."""
    return Fixed(lambda x: x + np.roll(x, 1, axis=1), lambda dy: dy + np.roll(dy, -1, axis=1))


def sequential(
    Sequential, kinds, x: "n d", scales: "k d", dy: "n d"
) -> "y: n d, dx: n d, gradients: k d, y after a step: n d":
    """`kinds` names the layers in order; a list among them is a Sequential within the Sequential."""
    rows = iter(scales.copy())
    make = {"stretch": lambda: Stretch(next(rows)), "roll": roll, "pairs": pairs}

    def build(kinds):
        return Sequential([build(kind) if isinstance(kind, list) else make[kind]() for kind in kinds])

    model = build(kinds)
    model.forward(2 * x)
    model.backward(dy)
    y, dx = model.forward(x), model.backward(dy)
    gradients = np.array([gradient for gradient in model.gradients() if isinstance(gradient, np.ndarray)])
    for k, parameter in enumerate(model.parameters()):
        if isinstance(parameter, np.ndarray):
            parameter *= k + 2
    return y, dx, gradients, model.forward(x)


# --- The tape --------------------------------------------------------------------------------------------------------


class Node:
    """A node of a graph: its parents, and whatever else a play needs."""

    def __init__(self, parents, **fields):
        self.parents = parents
        self.__dict__ |= fields


def node_values(topological_order, parents, start: "k", weights: "k k", depth=3) -> "values: k, deep:":
    """Every node's value is its start plus a weighted sum of its parents' values, worked out along the order.

    A parent that has not had its turn yet still counts 0; a node that comes twice is added to twice.
    """
    nodes = []
    for number, of in enumerate(parents):
        nodes.append(Node(tuple(nodes[k] for k in of), number=number))
    values = np.zeros(len(nodes))
    for node in topological_order(nodes[-1]):
        values[node.number] += start[node.number] + sum(
            weights[node.number, parent.number] * values[parent.number] for parent in node.parents
        )
    chain = Node((), height=0)
    for _ in range(depth):
        chain = Node((chain,), height=0)
    try:
        order = topological_order(chain)
    except RecursionError:
        order = []
    for node in order:
        node.height = 1 + sum(parent.height for parent in node.parents)
    return values, chain.height


class Endless(Exception):
    """Ends a walk along paths, of which there may be more than anyone can wait for."""


def node_gradients(
    backpropagate, parents, shapes, slopes: "k k d"
) -> "grads: ..., grads of leaves after a second run: ..., calls of pullbacks:":
    """Node i sends dy * slopes[i, j] to its parent j; a leaf may be smaller than what arrives."""
    nodes, calls = [], []

    def pullback(slope):
        def pull(dy):
            calls.append(1)
            if len(calls) > 1000:
                raise Endless
            return dy * slope

        return pull

    for i, of in enumerate(parents):
        data = np.zeros(shapes[i] if i < len(shapes) else slopes.shape[-1:])
        pullbacks = tuple(pullback(slopes[i, j]) for j in of)
        nodes.append(Node(tuple(nodes[j] for j in of), data=data, grad=np.zeros_like(data), pullbacks=pullbacks))

    def run():
        calls.clear()
        with suppress(Endless):
            backpropagate(nodes[-1])
        return len(calls)

    count = run()
    grads = np.concatenate([np.ravel(node.grad) for node in nodes])
    run()
    return grads, np.concatenate([np.ravel(node.grad) for node in nodes if not node.parents]), count


OPERATIONS = {
    "add": add,
    "mul": mul,
    "matmul": matmul,
    "relu": lambda node: node.relu(),
    "sum": lambda node: node.sum(),
}


def run_program(Tensor, program, leaves):
    """The nodes of a program, the leaves first: ["mul", 0, 2] multiplies nodes 0 and 2 into the next node."""
    nodes = [Tensor(leaf) for leaf in leaves]
    for operation, *operands in program:
        nodes.append(OPERATIONS[operation](*(nodes[k] for k in operands)))
    return nodes


def tape(
    Tensor, program, a: "...", b: "...", c: "..."
) -> "data: ..., da: ..., db: ..., dc: ..., grads within: ..., da after a second run: ...":
    nodes = run_program(Tensor, program, (a, b, c))
    nodes[-1].backward()
    da, db, dc = (np.array(node.grad) for node in nodes[:3])
    within = np.concatenate([np.ravel(node.grad) for node in nodes[3:]])
    nodes[-1].backward()
    data = np.concatenate([np.ravel(node.data) for node in nodes[3:]])
    return data, da, db, dc, within, nodes[0].grad


def weighted_sum(repair_weighted_sum, xs: "k d", weights, dy: "d") -> "y: d, dxs: k d":
    y, pullbacks = repair_weighted_sum(list(xs), weights)
    return y, np.array([pullback(dy) for pullback in pullbacks])
