"""Lesson 04: the chain rule layer by layer, a protocol for layers, and a tape that applies it to any program."""

from graphlib import TopologicalSorter
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder.exercise import autograd_function, exercise, gradient_of

# What the wrong implementations below are made of.


def positive(x):
    return (x > 0).astype(float)


def linear(x, w, b):
    return x @ w.T + b


def linear_gradients(dy, x, w):
    rows, upstream = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ w, upstream.T @ rows, upstream.sum(axis=0)


def detached(array):
    """A tensor of an array's numbers, which it shares."""
    return torch.from_numpy(np.asarray(array, dtype=float))


def pull(y, leaves, dy):
    """Autograd's gradients at the leaves, for an upstream gradient dy; also from within a backward pass."""
    with torch.enable_grad():
        return torch.autograd.grad((y * detached(dy)).sum(), leaves, retain_graph=True)


# --- The chain rule through two layers -------------------------------------------------------------------------------

# Whole numbers with zeros among them: w x + b is 0 in several places.
AT_THE_KINK = dict(
    x=np.array([[1.0, 0, 2], [0, -1, 1]]),
    w=np.array([[2.0, 1, -1], [0, 1, 1], [1, 1, 1]]),
    b=np.array([0.0, 0, -2]),
)
BLOCKS = [dict(n=5, i=4, o=3), dict(n=4, i=4, o=4), dict(n=1, i=3, o=1), AT_THE_KINK]


@exercise(
    points=1, minutes=5, difficulty=1, cases=BLOCKS,
    hints=(
        "Two layers, one after the other: what the first returns is what the second takes.",
        "`linear_forward(x, w, b)` gives (n, o). Hand that to `relu_forward`.",
    ),
    mistakes={
        "y is that of the linear layer alone: no entry was cut off at 0. What takes its result?": linear,
        "y cuts off x, not the linear layer's result. The linear layer comes first.":
            lambda x, w, b: linear(np.maximum(x, 0), w, b),
        "y cuts off before the bias is added. The bias belongs to the linear layer, and ReLU sees its whole result.":
            lambda x, w, b: np.maximum(x @ w.T, 0) + b,
        "y is 1 or 0: which units are on, not how much they give.": lambda x, w, b: positive(linear(x, w, b)),
    },
)  # fmt: skip
def linear_relu_forward(x: "n i", w: "o i", b: "o") -> "y: n o":
    """A linear layer and the ReLU behind it."""
    return F.relu(F.linear(x, w, b))


gradient_of(
    linear_relu_forward, points=3, minutes=12, difficulty=2,
    hints=(
        "Name what lies between the layers: z = linear_forward(x, w, b). You need z and dz. On the way forward "
        "the ReLU comes last. Which layer does dy meet first on the way back?",
        "dz = relu_backward(dy, z): ReLU's backward pass wants ReLU's own input, which is z and not x.",
        "Then dz is the upstream gradient of the linear layer, and linear_backward(dz, x, w, b) is the answer.",
    ),
    mistakes={
        "All three gradients are those of the linear layer alone. dy has to pass the ReLU first: units that were off "
        "let nothing through.": lambda dy, x, w, b: linear_gradients(dy, x, w),
        "The gate looks at the sign of dy. It was set on the way forward, by the sign of z = x wᵀ + b.":
            lambda dy, x, w, b: linear_gradients(dy * positive(dy), x, w),
        "The gradient takes ReLU's value for its slope: dy is multiplied by max(z, 0). The slope is 1 or 0.":
            lambda dy, x, w, b: linear_gradients(dy * np.maximum(linear(x, w, b), 0), x, w),
        "The gate leaves out the bias: z is x wᵀ + b, so that the bias decides which units are on.":
            lambda dy, x, w, b: linear_gradients(dy * positive(x @ w.T), x, w),
        "The gate is open where z is exactly 0. The course (like PyTorch) takes 0 for ReLU's slope there.":
            lambda dy, x, w, b: linear_gradients(dy * (linear(x, w, b) >= 0), x, w),
        "dx is right, but dw and db were given dy as it arrived. All three leave the linear layer, so all three are "
        "worked out from dz.":
            lambda dy, x, w, b: (linear_gradients(dy * positive(linear(x, w, b)), x, w)[0],
                                 *linear_gradients(dy, x, w)[1:]),
        "dw and db are right, but dx was worked out from dy as it arrived. All three leave the linear layer, so all "
        "three are worked out from dz.":
            lambda dy, x, w, b: (dy @ w, *linear_gradients(dy * positive(linear(x, w, b)), x, w)[1:]),
        "dx and dw are right, but db was given dy as it arrived. The bias stands in front of the ReLU, so its gradient "
        "has to pass the gate too.":
            lambda dy, x, w, b: (*linear_gradients(dy * positive(linear(x, w, b)), x, w)[:2], dy.sum(axis=0)),
        "The arguments of relu_backward are the wrong way round: first the upstream gradient, then ReLU's input.":
            lambda dy, x, w, b: linear_gradients(linear(x, w, b) * positive(dy), x, w),
    },
)  # fmt: skip


# --- Layers ----------------------------------------------------------------------------------------------------------


class Plain:
    """A linear layer as a learner would write it, for the mistakes to change."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.x = x
        return linear(x, self.w, self.b)

    def backward(self, dy):
        dx, self.dw, self.db = linear_gradients(dy, self.x, self.w)
        return dx

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]


class Accumulates(Plain):
    dw = db = 0

    def backward(self, dy):
        dx, dw, db = linear_gradients(dy, self.x, self.w)
        self.dw, self.db = self.dw + dw, self.db + db
        return dx


class KeepsFirst(Plain):
    x = None

    def forward(self, x):
        self.x = x if self.x is None else self.x
        return linear(x, self.w, self.b)


class FirstGradients(Plain):
    dw = None

    def backward(self, dy):
        dx, dw, db = linear_gradients(dy, self.x, self.w)
        if self.dw is None:
            self.dw, self.db = dw, db
        return dx


class HandsOutCopies(Plain):
    def parameters(self):
        return [self.w.copy(), self.b.copy()]


class LeavesOutBias(Plain):
    def parameters(self):
        return [self.w]


class LastAxisOnly(Plain):
    """Sums db over the first axis only, and multiplies the last two axes of dw: right for two axes."""

    def backward(self, dy):
        dx, self.dw, self.db = linear_gradients(dy, self.x, self.w)
        if dy.ndim > 2:
            self.dw, self.db = np.swapaxes(dy, -1, -2) @ self.x, dy.sum(axis=0)
        return dx


class FirstAxisOnly(Plain):
    """Right for two axes."""

    def backward(self, dy):
        dx, self.dw, _ = linear_gradients(dy, self.x, self.w)
        self.db = dy.sum(axis=0)
        return dx


class LeavesFlat(Plain):
    def backward(self, dy):
        dx = super().backward(dy)
        return dx.reshape(-1, dx.shape[-1])


class KeepsOutput(Plain):
    def forward(self, x):
        self.x = x
        self.y = linear(x, self.w, self.b)
        return self.y

    def backward(self, dy):
        dx, self.dw, self.db = linear_gradients(dy * (self.y != 0) * self.y, self.x, self.w)
        return dx


class Averages(Plain):
    def backward(self, dy):
        dx, dw, db = linear_gradients(dy, self.x, self.w)
        n = dy.size // dy.shape[-1]
        self.dw, self.db = dw / n, db / n
        return dx


LINEAR_LAYERS = [
    dict(o=3, i=4, x=(5, 4), dy=(5, 3)),
    dict(o=4, i=4, x=(4, 4), dy=(4, 4)),
    dict(o=1, i=6, x=(1, 6), dy=(1, 1)),
    dict(o=2, i=3, x=(2, 5, 3), dy=(2, 5, 2)),
]


@exercise(
    script="linear_layer", points=4, minutes=15, difficulty=2, cases=LINEAR_LAYERS,
    hints=(
        "backward gets only dy, but linear_backward_nd wants dy, x, w and b. Three of them the layer can keep in self; "
        "when does it meet x?",
        "forward: `self.x = x`, then (for a table) return linear_forward(x, self.w, self.b). backward: unpack what "
        "linear_backward_nd returns into dx, self.dw and self.db, and return dx alone.",
        "More axes: linear_forward gets `x.reshape(-1, x.shape[-1])`, and its result the shape "
        "`(*x.shape[:-1], len(self.b))`; backward calls linear_backward_nd, which needs none of this. parameters() "
        "returns [self.w, self.b], the arrays themselves.",
    ),
    mistakes={
        "dw and db hold the sum of all backward passes. In this protocol gradients() are those of the last one: "
        "overwrite them.": Accumulates,
        "The gradients belong to the first x that the layer ever saw. forward must keep its x each time it is called.":
            KeepsFirst,
        "dw and db are those of the first backward pass. Each call of backward works them out afresh.": FirstGradients,
        "A step changed nothing: parameters() hands out copies. The optimiser writes into these very arrays, so "
        "return the ones that forward computes with.": HandsOutCopies,
        "A step moved w but not b: b is missing from parameters(), and would never be learned.": LeavesOutBias,
        "dw and db are right for x (n, i) and not for x (n, t, i): both must sum over all batch axes. Flatten them to "
        "one first.": LastAxisOnly,
        "dw is right, but db was summed over the first axis alone. With more axes in front of the last, db sums over "
        "all of them.": FirstAxisOnly,
        "dx is still the flattened table. It has the shape of x.": LeavesFlat,
        "The gradient is multiplied by the layer's output, as if something behind it were squared. A linear layer's "
        "backward needs x and w; of y it needs nothing.": KeepsOutput,
        "dw and db are averaged over the batch. Each example pulls on w and b, and the pulls add up (lesson 01).":
            Averages,
    },
)  # fmt: skip
class LinearLayer:
    """A linear layer that keeps its parameters and what its backward pass needs."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.leaves = [detached(value).clone().requires_grad_() for value in (x, self.w, self.b)]
        self.y = F.linear(*self.leaves)
        return self.y.detach().numpy()

    def backward(self, dy):
        dx, *self.found = (found.numpy() for found in pull(self.y, self.leaves, dy))
        return dx

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return list(self.found)


class Gate:
    """ReLU as a layer as a learner would write it, for the mistakes to change."""

    def forward(self, x):
        self.x = x
        return np.maximum(x, 0)

    def backward(self, dy):
        return dy * (self.x > 0)

    def parameters(self):
        return []

    def gradients(self):
        return []


class GateOfGradient(Gate):
    def backward(self, dy):
        return np.maximum(dy, 0)


class OpenAtZero(Gate):
    def backward(self, dy):
        return dy * (self.x >= 0)


class GateForAll(Gate):
    """Its mask is one for all layers: a class attribute."""

    def forward(self, x):
        GateForAll.x = x
        return np.maximum(x, 0)


class ValueForSlope(Gate):
    def backward(self, dy):
        return dy * np.maximum(self.x, 0)


class NoGate(Gate):
    def backward(self, dy):
        return dy.copy()


class FirstMask(Gate):
    mask = None

    def forward(self, x):
        self.mask = x > 0 if self.mask is None else self.mask
        return np.maximum(x, 0)

    def backward(self, dy):
        return dy * self.mask


class GateAlone(Gate):
    def backward(self, dy):
        return positive(self.x)


class SwappedArguments(Gate):
    def backward(self, dy):
        return self.x * (dy > 0)


class HandsOutItsGradient(Gate):
    def backward(self, dy):
        self.dx = super().backward(dy)
        return self.dx

    def gradients(self):
        return [self.dx]


class CountsItsInput(Gate):
    def parameters(self):
        return [self.x]

    gradients = parameters


@exercise(
    script="relu_layer", points=2, minutes=6, difficulty=1,
    cases=[
        dict(x=(5, 4), first=(5, 4), dy=(5, 4)),
        dict(x=np.array([[0.0, -1, 2], [-0.0, 1e-300, -1e-300]]), first=(2, 3), dy=(2, 3)),
        dict(x=(1, 1), first=(1, 1), dy=(1, 1)),
        dict(x=(2, 3, 4), first=(2, 3, 4), dy=(2, 3, 4)),
    ],
    hints=(
        "The same two steps as before: forward keeps what backward will need. What does relu_backward ask for, apart "
        "from dy?",
        "Keep x in self.x. There is nothing to learn here, so parameters() and gradients() return empty lists.",
    ),
    mistakes={
        "dx cuts off dy where dy is negative. The gate was set on the way forward, by the sign of x.": GateOfGradient,
        "dx lets dy through where x is exactly 0. The course (like PyTorch) takes 0 for the slope there.": OpenAtZero,
        "dx uses the mask of another layer: what the class keeps is shared by all its layers. Keep it in self.":
            GateForAll,
        "dx multiplies dy by ReLU's value. Its slope is 1 where x is positive, whatever x is.": ValueForSlope,
        "dx is dy unchanged: nothing was stopped by the units that were off.": NoGate,
        "dx is the gate alone, 1 or 0. Where it is open, dy goes through.": GateAlone,
        "The arguments of relu_backward are the wrong way round: first the upstream gradient, then x.":
            SwappedArguments,
        "gradients() holds dx. It is for the gradients of parameters, and ReLU has none; dx is what backward returns.":
            HandsOutItsGradient,
        "dx uses the mask of the first forward pass. The state is that of the last one.": FirstMask,
        "ReLU has no parameters, so parameters() and gradients() are empty lists. An optimiser would change whatever "
        "they hold.": CountsItsInput,
    },
)  # fmt: skip
class ReLULayer:
    """ReLU as a layer: nothing to learn, but its backward pass needs its input."""

    def forward(self, x):
        self.x = detached(x).clone().requires_grad_()
        self.y = F.relu(self.x)
        return self.y.detach().numpy()

    def backward(self, dy):
        (dx,) = pull(self.y, [self.x], dy)
        return dx.numpy()

    def parameters(self):
        return []

    def gradients(self):
        return []


class Asked(torch.autograd.Function):
    """Lets autograd decide when the backward pass of an object is asked for, and add up what comes back."""

    @staticmethod
    def forward(ctx, run, back, *tensors):
        ctx.back = back
        with torch.enable_grad():  # what runs may record a tape of its own
            return detached(run(*(tensor.detach().numpy() for tensor in tensors))).clone()

    @staticmethod
    def backward(ctx, dy):
        found = ctx.back(dy.numpy().copy())
        found = found if isinstance(found, tuple) else (found,)
        return None, None, *(detached(gradient) for gradient in found)


class Chain:
    """Layers in a row as a learner would write it, for the mistakes to change."""

    def __init__(self, layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy):
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def parameters(self):
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def gradients(self):
        return [gradient for layer in self.layers for gradient in layer.gradients()]


class WalksForwards(Chain):
    def backward(self, dy):
        for layer in self.layers:
            dy = layer.backward(dy)
        return dy


class TurnsForGood(Chain):
    def backward(self, dy):
        self.layers.reverse()
        return WalksForwards.backward(self, dy)


class SameForAll(Chain):
    def backward(self, dy):
        for layer in reversed(self.layers):
            dx = layer.backward(dy)
        return dx if self.layers else dy


class SameInput(Chain):
    def forward(self, x):
        y = x
        for layer in self.layers:
            y = layer.forward(x)
        return y


class NestedLists(Chain):
    def parameters(self):
        return [layer.parameters() for layer in self.layers]

    def gradients(self):
        return [layer.gradients() for layer in self.layers]


class GradientsBackwards(Chain):
    def gradients(self):
        return [gradient for layer in reversed(self.layers) for gradient in layer.gradients()]


class CopiedParameters(Chain):
    def parameters(self):
        return [parameter.copy() for parameter in super().parameters()]


class SkipsFirst(Chain):
    def backward(self, dy):
        for layer in self.layers[:0:-1]:
            dy = layer.backward(dy)
        return dy


class FirstParametersOnly(Chain):
    def parameters(self):
        return super().parameters()[:1]


@exercise(
    script="sequential", points=4, minutes=15, difficulty=2,
    cases=[
        dict(kinds=["stretch", "pairs", "stretch", "roll"], n=3, d=4, k=2),
        dict(kinds=["pairs", "stretch", ["stretch", "pairs"], "roll", "stretch"], n=4, d=4, k=3),
        dict(kinds=["stretch"], n=1, d=3, k=1),
        dict(kinds=[], n=2, d=3, k=0),
    ],
    hints=(
        "forward is a loop: what a layer returns, the next one takes. backward is the same loop with two changes.",
        "The changes: the order is `reversed(self.layers)`, and each layer's dx is the dy of the layer before it.",
        "parameters() is one flat list: for each layer in order, each of its parameters. `total += layer.parameters()` "
        "or a comprehension with two `for`.",
    ),
    mistakes={
        "backward walks forwards. Each layer needs the gradient at its own output, which only the layer behind it can "
        "give.": WalksForwards,
        "The list of layers is turned round for good, so that the next forward starts at the end: `.reverse()` changes "
        "the list itself. `reversed(self.layers)` leaves it as it is.": TurnsForGood,
        "Every layer was given the dy that arrived at the end. What one layer's backward returns is the next one's dy.":
            SameForAll,
        "Every layer was given the first x. What one layer's forward returns is the next one's x.": SameInput,
        "parameters() and gradients() are lists of lists. One flat list of arrays is asked for, so that a step can go "
        "over both side by side.": NestedLists,
        "gradients() come in the order of the backward pass, parameters() in that of the forward pass: a step would "
        "add each gradient to the wrong array.": GradientsBackwards,
        "A step changed nothing: parameters() holds copies. Pass on the very arrays that the layers hand out.":
            CopiedParameters,
        "backward stops before the first layer, which then has no gradients, and the dx returned is not that of x.":
            SkipsFirst,
        "Only the first parameter was moved by the step: parameters() must hold those of all layers.":
            FirstParametersOnly,
    },
)  # fmt: skip
class Sequential:
    """Layers in a row. PyTorch's tape decides in which order their backward passes are called."""

    def __init__(self, layers):
        self.layers = layers

    def forward(self, x):
        y = self.x = detached(x).clone().requires_grad_()
        for layer in self.layers:
            y = Asked.apply(layer.forward, layer.backward, y)
        self.y = y
        return y.detach().numpy()

    def backward(self, dy):
        (dx,) = pull(self.y, [self.x], dy)
        return dx.numpy()

    def parameters(self):
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def gradients(self):
        return [gradient for layer in self.layers for gradient in layer.gradients()]


# --- The tape --------------------------------------------------------------------------------------------------------


def in_order(node):
    """Every node once, parents first, with a stack of its own."""
    order, seen, stack = [], set(), [(node, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]
    return order


def breadth_first(node):
    order = {node: None}  # keeps the order of insertion
    queue = [node]
    for each in queue:
        new = [parent for parent in dict.fromkeys(each.parents) if parent not in order]
        order |= dict.fromkeys(new)
        queue += new
    return queue


def depth_first(node, seen):
    seen.append(node)
    for parent in node.parents:
        if parent not in seen:
            depth_first(parent, seen)
    return seen


def as_met(node):
    """The order in which a stack meets the nodes."""
    order, waiting = {}, [node]  # keeps the order of insertion
    while waiting:
        node = waiting.pop()
        if node not in order:
            order[node] = None
            waiting += node.parents
    return list(order)


def marked_early(node):
    """A stack on which no node is put twice."""
    order, met, stack = [], {node}, [(node, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
            continue
        stack.append((node, True))
        for parent in node.parents:
            if parent not in met:
                met.add(parent)
                stack.append((parent, False))
    return order


def along_the_first(node):
    """Only the first parent of each node."""
    order = [node]
    while order[-1].parents:
        order.append(order[-1].parents[0])
    return order[::-1]


def recursive(node):
    order, seen = [], set()

    def visit(node):
        if node not in seen:
            seen.add(node)
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(node)
    return order


def capped(walk, most=300):
    """For the mistakes that take too long on a deep graph: those give up on it as recursion does."""

    def walked(node):
        depth, probe = 0, node
        while probe.parents and depth <= most:
            probe, depth = probe.parents[0], depth + 1
        if depth > most:
            raise RecursionError
        return walk(node)

    return walked


def every_path(node):
    """A node once for each path that leads to it."""
    return [found for parent in node.parents for found in every_path(parent)] + [node]


# Graphs as lists: for every node those that it was made from. The last node is the root.
DIAMOND = [[], [0], [0], [1, 2]]
SHORT_AND_LONG = [[], [0], [1], [2, 0], [3, 1], [0, 4], [5, 2]]  # each node is reached on a short and on a long way
WIDE = [[], [], [], [0, 1], [1, 2], [3, 4], [2, 5], [6, 3], [4, 7, 0]]
TWICE = [[], [0, 0], [1, 1], [2, 0, 2]]  # x * x: a parent may be named twice


@exercise(
    script="node_values", points=4, minutes=25, difficulty=3,
    cases=[
        dict(parents=DIAMOND, k=4),
        dict(parents=SHORT_AND_LONG, k=7),
        dict(parents=WIDE, k=9),
        dict(parents=TWICE, k=4),
        dict(parents=[[]], k=1),
        dict(parents=[[], [0], [1]], k=3, depth=5000),
    ],
    hints=(
        "A node may be appended when all its parents have been. So: deal with the parents first, then append the "
        "node; and remember in a set which nodes you have met, so that none comes twice.",
        "As recursion: visit(node) returns at once if the node is in the set; else it adds it, visits each parent and "
        "then appends the node. That is right, until the graph is deeper than Python's stack of calls.",
        "With a stack of your own: push (node, False). Popping (node, False) for a node not met yet, push (node, "
        "True) and then (parent, False) for each parent. Popping (node, True), append it: all that was pushed above "
        "it has been dealt with by then.",
    ),
    mistakes={
        "deep is 0: on a chain of 5000 nodes Python stops your recursion at about 1000 calls. Keep the nodes that wait "
        "on a list of your own.": recursive,
        "Children come before their parents: this is the order of the backward pass. Here the root comes last; turn it "
        "round.": lambda node: in_order(node)[::-1],
        "Some node comes before one of its parents. Breadth first, turned round, places a node by its shortest way "
        "from the root; it has to wait for the longest.": lambda node: breadth_first(node)[::-1],
        "Some node comes before one of its parents. Depth first, turned round, places a node where it is first met. "
        "Append it when all its parents have been appended.": capped(lambda node: depth_first(node, [])[::-1]),
        "Some node comes before one of its parents: this is the order in which a stack meets the nodes, turned round. "
        "A node is appended after its parents, so it has to come up a second time.": lambda node: as_met(node)[::-1],
        "Some node comes before one of its parents, which still waits on the stack: a node that is marked as met when "
        "it is pushed is not put on top again. Mark it when it is popped.": marked_early,
        "Some nodes come more than once: one that several others use is met on several ways. Remember which you have "
        "met.": capped(every_path),
        "The root is missing: its parents come, but it belongs to the order too, at the end.":
            lambda node: in_order(node)[:-1],
        "The leaves are missing. A node without parents belongs to the order as well; it is where gradients end.":
            lambda node: [each for each in in_order(node) if each.parents or each is node],
        "Only the first parent of each node was followed. A node may have several.": along_the_first,
    },
)  # fmt: skip
def topological_order(node):
    """Every node that `node` was made from, each once, after its parents; `node` itself is the last."""
    graph, waiting = {}, [node]
    while waiting:
        each = waiting.pop()
        if each not in graph:
            graph[each] = each.parents
            waiting += each.parents
    return list(TopologicalSorter(graph).static_order())


@exercise(
    points=3, minutes=12, difficulty=2,
    cases=[
        dict(dy=(4, 3), shape=[3]),
        dict(dy=(4, 3), shape=[4, 1]),
        dict(dy=(3, 3), shape=[1, 3]),
        dict(dy=(3, 3), shape=[3]),
        dict(dy=(3, 3), shape=[3, 3]),
        dict(dy=(2, 4, 3), shape=[4, 1]),
        dict(dy=(2, 4, 3), shape=[]),
        dict(dy=(2, 1, 3), shape=[1, 3]),
        dict(dy=(1,), shape=[]),
    ],
    hints=(
        "Broadcasting copies: an entry of x that was copied five times gets the sum of five gradients. There are two "
        "ways of copying: axes put in front, and axes of size 1 that were stretched.",
        "Axes in front: while dy has more axes than shape, sum over axis 0. Then go through shape: wherever it says "
        "1, sum over that axis and keep it.",
        "`dy = dy.sum(axis=axis, keepdims=True)` for each axis with `shape[axis] == 1`.",
    ),
    mistakes={
        "dx averages over the copies. Each copy had its own effect on the loss, and the effects add up.":
            lambda dy, shape: summed(dy, shape, np.mean),
        "dx still has the shape of dy where shape has an axis of size 1: axes that were stretched must be summed too, "
        "not only those put in front.":
            lambda dy, shape: dy.sum(axis=tuple(range(dy.ndim - len(shape)))),
        "dx has lost its axes of size 1: (4, 1) is not (4,). Sum with keepdims=True, or reshape to shape at the end.":
            lambda dy, shape: np.squeeze(summed(dy, shape)),
        "dx is dy as it came: nothing was summed. Every entry of x that was copied gets the sum over its copies.":
            lambda dy, shape: dy.copy(),
        "dx is one of the copies, the first: all the others were forgotten.":
            lambda dy, shape: summed(dy, shape, lambda a, axis, keepdims: np.take(a, [0], axis)),
        "The axes of shape were lined up from the left. Broadcasting lines shapes up from the right: (3,) goes with "
        "the last axis of (4, 3).":
            lambda dy, shape: from_the_left(dy, shape),
        "dx holds dy's sum everywhere. Only the axes along which x was copied are summed.":
            lambda dy, shape: np.full(shape, dy.sum()),
    },
)  # fmt: skip
def unbroadcast(dy: "...", shape) -> "dx: ...":
    """The gradient of an array of the given shape that broadcasting has brought to the shape of dy."""
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad((x.expand(dy.shape) * dy).sum(), x)[0]


def summed(dy, shape, how=np.sum):
    """dy brought to a shape by summing over whatever broadcasting added."""
    front = dy.ndim - len(shape)
    axes = tuple(range(front)) + tuple(front + k for k, size in enumerate(shape) if size == 1)
    for axis in axes:
        dy = how(dy, axis=axis, keepdims=True)
    return np.reshape(dy, shape)


def from_the_left(dy, shape):
    """Sums the axes behind, as if shapes were lined up from the left, where that fits."""
    while dy.ndim > len(shape):
        dy = dy.sum(axis=-1)
    for axis, size in enumerate(shape):
        if size == 1:
            dy = dy.sum(axis=axis, keepdims=True)
    return dy


def cleared(order):
    """Gradients of all that are no leaves back to zero."""
    for node in order:
        if node.parents:
            node.grad = np.zeros_like(node.data)


def sweep(root, order=in_order, clear=cleared, add=True, seed=1.0, turn=True, shrink=summed):
    """The backward pass over a graph as a learner would write it, with a switch for each mistake."""
    nodes = order(root)
    clear(nodes)
    root.grad = np.full_like(root.data, seed)
    for node in reversed(nodes) if turn else nodes:
        for parent, pullback in zip(node.parents, node.pullbacks, strict=True):
            sent = shrink(pullback(node.grad), parent.data.shape)
            parent.grad = parent.grad + sent if add else sent


def from_scratch(order):
    for node in order:
        node.grad = np.zeros_like(node.data)


def nothing(order):
    pass


def recursing(root, pass_on):
    """Serves the parents of each node, then theirs, by recursion; `pass_on` says with which gradient."""

    def visit(node, arrived):
        for parent, pullback in zip(node.parents, node.pullbacks, strict=True):
            sent = summed(pullback(pass_on(node, arrived)), parent.data.shape)
            parent.grad = parent.grad + sent
            visit(parent, sent)

    cleared(in_order(root))
    root.grad = root.grad + 1.0
    visit(root, np.ones_like(root.data))


def number_at_root(root):
    sweep(root)
    root.grad = 1.0


def unshrunk(sent, shape):
    return sent


def once_for_each_parent(root):
    """A parent that is named twice is served once."""
    order = in_order(root)
    cleared(order)
    root.grad = np.ones_like(root.data)
    for node in reversed(order):
        for parent, pullback in dict(zip(node.parents, node.pullbacks, strict=True)).items():
            parent.grad = parent.grad + summed(pullback(node.grad), parent.data.shape)


def sharing(root):
    """The first gradient that arrives is kept itself, not a copy: adding to it later changes whose it was."""
    order = in_order(root)
    arrived = {root: np.ones_like(root.data)}
    for node in reversed(order):
        for parent, pullback in zip(node.parents, node.pullbacks, strict=True):
            sent = pullback(arrived[node])
            sent = sent if np.shape(sent) == parent.data.shape else summed(sent, parent.data.shape)
            if parent in arrived:
                arrived[parent] += sent
            else:
                arrived[parent] = sent
    for node in order:
        node.grad = arrived[node] if node.parents else node.grad + arrived[node]


LADDER = [[]] + [[k, k] for k in range(40)]  # forty nodes, each its parent twice: 2**40 paths


@exercise(
    script="node_gradients", points=4, minutes=15, difficulty=2,
    cases=[
        dict(parents=DIAMOND, shapes=[], k=4, d=3),
        dict(parents=SHORT_AND_LONG, shapes=[[1]], k=7, d=2),
        dict(parents=WIDE, shapes=[[1], [], [3]], k=9, d=3),
        dict(parents=TWICE, shapes=[[]], k=4, d=3),
        dict(parents=LADDER, shapes=[], k=41, d=1),
    ],
    hints=(
        "Three parts: set the gradients of all nodes that have parents to zero, the root's to one; walk the "
        "topological order backwards; at each node serve each of its parents.",
        "Serving a parent: `pullback(node.grad)` is what comes back to it through this node. It may have been "
        "broadcast, so give it the parent's shape; another node may have sent something too, so add it.",
        "For each node in `reversed(topological_order(root))`, and each parent with its pullback (zip the two): add "
        "`unbroadcast(…, parent.data.shape)` of what the pullback makes of node.grad to parent.grad.",
    ),
    mistakes={
        "A gradient was overwritten: a node that is used twice keeps only what came by the last way. The chain rule "
        "adds up all ways.": lambda root: sweep(root, add=False),
        "A leaf's gradient started from zero again. Leaves gather over several runs, until somebody clears them; only "
        "what lies between starts afresh.": lambda root: sweep(root, clear=from_scratch),
        "The second run is too large: nodes between root and leaves still held the gradient of the first run, and sent "
        "it down once more. Clear them before you start.": lambda root: sweep(root, clear=nothing),
        "The walk went from the leaves to the root. A node may pass its gradient on only when it is complete: after "
        "all nodes that use it.": lambda root: sweep(root, turn=False),
        "A gradient of zero was sent down from the root. The derivative of the root by itself is 1.":
            lambda root: sweep(root, seed=0.0),
        "The gradient of the root is a single number. It has the shape of the root's data, with a 1 in every entry.":
            number_at_root,
        "A parent that is named twice, as in x * x, was served once. Each place in `parents` has its own pullback.":
            once_for_each_parent,
        "Some node passed its gradient on before all of it had arrived. The order from the root must be that of your "
        "topological_order, turned round, not breadth first.":
            lambda root: sweep(root, order=lambda node: breadth_first(node)[::-1]),
        "A leaf's gradient has the shape of what arrived, not the leaf's. Broadcasting copied the leaf; sum over the "
        "copies.": lambda root: sweep(root, shrink=unshrunk),
        "A node that several others use was visited once for each, and passed on, each time, all that had arrived so "
        "far: the first part went down again and again. Serve each node once, when all has arrived.":
            lambda root: recursing(root, lambda node, arrived: node.grad),
        "Pullbacks were called again and again: your walk follows paths, and forty doublings have 2⁴⁰ of them. In "
        "topological order each edge is used once.": lambda root: recursing(root, lambda node, arrived: arrived),
    },
)  # fmt: skip
def backpropagate(root):
    """Adds the gradient of the root to .grad of every leaf, and puts it into .grad of all nodes between.

    The graph is rebuilt as PyTorch's own, whose tape then decides the order and adds up.
    """
    order = topological_order(root)
    tensors = {}
    for node in order:
        below = [tensors[parent] for parent in node.parents]
        if not below:
            tensors[node] = torch.tensor(node.data, requires_grad=True)
            continue
        tensors[node] = Asked.apply(lambda *data, node=node: node.data, all_of(node.pullbacks), *below)
    found = torch.autograd.grad(tensors[root].sum(), [tensors[node] for node in order])
    for node, gradient in zip(order, found, strict=True):
        node.grad = gradient.numpy() if node.parents else node.grad + gradient.numpy()


def all_of(pullbacks):
    return lambda dy: tuple(pullback(dy) for pullback in pullbacks)


class Recorded:
    """A tape as a learner would write it, for the mistakes to change."""

    sweep = staticmethod(sweep)

    def __init__(self, data, parents=(), pullbacks=()):
        self.data = np.asarray(data, dtype=float)
        self.grad = np.zeros_like(self.data)
        self.parents, self.pullbacks = parents, pullbacks

    def made(self, data, *sources):
        parents, pullbacks = zip(*sources, strict=True)
        return type(self)(data, parents, pullbacks)

    def __add__(self, other):
        return self.made(self.data + other.data, (self, lambda dy: dy), (other, lambda dy: dy))

    def __mul__(self, other):
        return self.made(self.data * other.data, (self, lambda dy: dy * other.data), (other, lambda dy: dy * self.data))

    def __matmul__(self, other):
        return self.made(
            self.data @ other.data, (self, lambda dy: dy @ other.data.T), (other, lambda dy: self.data.T @ dy)
        )

    def relu(self):
        return self.made(np.maximum(self.data, 0), (self, lambda dy: dy * (self.data > 0)))

    def sum(self):
        return self.made(self.data.sum(), (self, lambda dy: dy * np.ones_like(self.data)))

    def backward(self):
        self.sweep(self)


class Overwrites(Recorded):
    def backward(self):
        sweep(self, add=False)


class KeepsBetween(Recorded):
    def backward(self):
        sweep(self, clear=nothing)


class ClearsLeaves(Recorded):
    def backward(self):
        sweep(self, clear=from_scratch)


class NotSummed(Recorded):
    def backward(self):
        sweep(self, shrink=unshrunk)


class Shares(Recorded):
    def backward(self):
        sharing(self)


class PassesOnEarly(Recorded):
    def backward(self):
        sweep(self, order=lambda node: breadth_first(node)[::-1])


class ProductKeepsOwn(Recorded):
    """Each factor is multiplied by itself, not by the other."""

    def __mul__(self, other):
        return self.made(self.data * other.data, (self, lambda dy: dy * self.data), (other, lambda dy: dy * other.data))


class GateOfWhatArrives(Recorded):
    def relu(self):
        return self.made(np.maximum(self.data, 0), (self, lambda dy: np.maximum(dy, 0)))


class OpenAtTheKink(Recorded):
    def relu(self):
        return self.made(np.maximum(self.data, 0), (self, lambda dy: dy * (self.data >= 0)))


class ReluForgets(Recorded):
    def relu(self):
        return type(self)(np.maximum(self.data, 0))


class SumOfRows(Recorded):
    def sum(self):
        return self.made(self.data.sum(axis=0), (self, lambda dy: dy * np.ones_like(self.data)))


class SumOfOnes(Recorded):
    def sum(self):
        return self.made(self.data.sum(), (self, lambda dy: np.ones_like(self.data)))


class SumAsMean(Recorded):
    def sum(self):
        return self.made(self.data.sum(), (self, lambda dy: dy * np.ones_like(self.data) / self.data.size))


LAYER = [["matmul", 0, 1], ["add", 3, 2], ["relu", 4], ["mul", 5, 5], ["sum", 6]]
SHARED = [["add", 0, 1], ["mul", 3, 0], ["add", 4, 3], ["mul", 5, 2], ["relu", 6], ["add", 7, 0], ["sum", 8]]
SHORT_WAY = [["mul", 0, 1], ["mul", 3, 2], ["mul", 4, 3], ["add", 5, 4], ["add", 0, 6], ["mul", 7, 3], ["sum", 8]]
STRETCHED = [["mul", 0, 1], ["add", 3, 2], ["mul", 4, 0], ["sum", 5]]
SUMS = [["sum", 0], ["mul", 1, 3], ["add", 4, 2], ["mul", 5, 5], ["sum", 6]]
KINKS = [["mul", 0, 1], ["relu", 3], ["relu", 0], ["add", 4, 5], ["mul", 6, 2], ["sum", 7]]


@exercise(
    script="tape", points=6, minutes=30, difficulty=3,
    cases=[
        dict(program=LAYER, a=(4, 3), b=(3, 2), c=(2,)),
        dict(program=SHARED, a=(3,), b=(3,), c=(3,)),
        dict(program=SHORT_WAY, a=(2, 2), b=(2, 2), c=(2, 2)),
        dict(program=STRETCHED, a=(4, 1), b=(3,), c=()),
        dict(program=SUMS, a=(3, 2), b=(3, 1), c=(2,)),
        dict(program=LAYER, a=(3, 3), b=(3, 3), c=(1, 3)),
        dict(program=KINKS, a=np.array([0.0, -1, 2, -0.0]), b=np.array([1.0, 0, 3, -2]), c=(4,)),
        dict(program=[["add", 0, 0], *(["add", k, k] for k in range(3, 42)), ["sum", 42]], a=(2,), b=(1,), c=()),
    ],
    hints=(
        "Every operation returns a new Tensor of three things: its data, its parents in a tuple, and a tuple with one "
        "pullback for each parent. Addition is given; multiplication differs only in the pullbacks.",
        "The pullbacks you know: the factor of one side is the data of the other; for A @ B they are dy @ B.T and "
        "A.T @ dy; relu lets dy through where the data is positive.",
        "sum made one number of many, so its pullback makes many of one: dy at every place of the data, "
        "`dy * np.ones_like(self.data)`.",
    ),
    mistakes={
        "Gradients are overwritten: a tensor that is used twice keeps only what came by the last way. Add to what is "
        "there.": Overwrites,
        "The second backward() is too large: tensors between still held the gradient of the first one. Clear those "
        "(not the leaves) before each run.": KeepsBetween,
        "A leaf's gradient starts from zero at each backward(). Leaves gather, as in PyTorch, until somebody clears "
        "them.": ClearsLeaves,
        "A gradient has the shape of the result, not of the tensor it belongs to: broadcasting copied that tensor, and "
        "the gradients of the copies must be summed.": NotSummed,
        "Two tensors hold one and the same array as their gradient: what is added to one shows in the other. `a + b` "
        "sends dy to both; write grad = grad + …, which makes a new array, not grad += ….": Shares,
        "Some tensor passed its gradient on before all of it had arrived: it is used by tensors at different depths. "
        "Only a topological order waits for all.": PassesOnEarly,
        "Each factor of a product gets its own data as slope. The slope of a · b by a is b.": ProductKeepsOwn,
        "relu's gate looks at the sign of what arrives. It was set on the way forward, by the sign of the data.":
            GateOfWhatArrives,
        "relu lets the gradient through where the data is exactly 0. The course (like PyTorch) takes 0 for the slope "
        "there.": OpenAtTheKink,
        "sum shares its gradient out, as a mean would. Each entry counts once in a sum: all of dy goes to each.":
            SumAsMean,
        "sum adds up along the first axis. It is the sum of all entries, with no axis left.": SumOfRows,
        "sum's pullback gives ones, whatever arrives. Each entry gets dy.": SumOfOnes,
        "What relu returns does not know its parent, so that no gradient gets past it.": ReluForgets,
    },
)  # fmt: skip
class Tensor:
    """An array that remembers how it was made: PyTorch's tensor, seen through arrays."""

    def __init__(self, data, parents=()):
        self.tensor = data if isinstance(data, torch.Tensor) else torch.tensor(np.array(data, dtype=float))
        if self.tensor.is_leaf:
            self.tensor.requires_grad_()
        self.tensor.retain_grad()
        self.parents = parents

    @property
    def data(self):
        return self.tensor.detach().numpy()

    @property
    def grad(self):
        return np.zeros(self.tensor.shape) if self.tensor.grad is None else self.tensor.grad.numpy().copy()

    @grad.setter
    def grad(self, value):
        self.tensor.grad = detached(value).clone()

    def __add__(self, other):
        return Tensor(self.tensor + other.tensor, (self, other))

    def __mul__(self, other):
        return Tensor(self.tensor * other.tensor, (self, other))

    def __matmul__(self, other):
        return Tensor(self.tensor @ other.tensor, (self, other))

    def relu(self):
        return Tensor(self.tensor.relu(), (self,))

    def sum(self):
        return Tensor(self.tensor.sum(), (self,))

    def backward(self):
        for node in topological_order(self):
            if node.parents:
                node.tensor.grad = None
        self.tensor.sum().backward(retain_graph=True)


# --- In PyTorch ------------------------------------------------------------------------------------------------------


class NoGateBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        y = (x @ w.T + b).clamp(min=0)
        ctx.save_for_backward(x, w, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, _ = ctx.saved_tensors
        return dy @ w, dy.T @ x, dy.sum(0)


class NoReluForwards(NoGateBackwards):
    @staticmethod
    def forward(ctx, x, w, b):
        y = x @ w.T + b
        ctx.save_for_backward(x, w, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, y = ctx.saved_tensors
        dz = dy * (y > 0)
        return dz @ w, dz.T @ x, dz.sum(0)


class GateIsOutput(NoGateBackwards):
    @staticmethod
    def backward(ctx, dy):
        x, w, y = ctx.saved_tensors
        dz = dy * y
        return dz @ w, dz.T @ x, dz.sum(0)


class MeanForBias(NoGateBackwards):
    @staticmethod
    def backward(ctx, dy):
        x, w, y = ctx.saved_tensors
        dz = dy * (y > 0)
        return dz @ w, dz.T @ x, dz.mean(0)


class BiasFromWhatArrives(NoGateBackwards):
    @staticmethod
    def backward(ctx, dy):
        x, w, y = ctx.saved_tensors
        dz = dy * (y > 0)
        return dz @ w, dz.T @ x, dy.sum(0)


autograd_function(
    "LinearReLUFunction", linear_relu_forward, points=3, minutes=15, difficulty=2,
    hints=(
        "forward gets three tensors and returns y = max(x wᵀ + b, 0); `.clamp(min=0)` is the maximum with 0. Which of "
        "x, w, b, z, y does the backward pass need?",
        "x for dw, w for dx, and for the gate the sign of z. But where z > 0, also y > 0, and only there: y will do, "
        "and z need not be kept.",
        "`ctx.save_for_backward(x, w, y)`; in backward `dz = dy * (y > 0)`, and then the three gradients of the "
        "linear layer from dz.",
    ),
    mistakes={
        "dy goes into the linear layer without passing ReLU's gate: right only where every unit was on. (y >= 0 is "
        "no gate: y is never negative.)": NoGateBackwards,
        "y has negative entries: the linear layer is there, the ReLU is not.": NoReluForwards,
        "dy was multiplied by y itself. The gate is 1 or 0: whether y is positive.": GateIsOutput,
        "db is averaged over the batch. It is a sum, like dw.": MeanForBias,
        "db was given dy as it arrived. The bias stands in front of the ReLU, so its gradient has to pass the gate "
        "too.": BiasFromWhatArrives,
    },
)  # fmt: skip


# --- Repair ----------------------------------------------------------------------------------------------------------


def with_slopes(slopes):
    """A weighted sum whose pullbacks have other slopes than the weights."""

    def answer(xs, weights):
        y = sum(weight * x for weight, x in zip(weights, xs, strict=True))
        found = slopes(weights)
        return y, [lambda dy, slope=slope: slope * dy for slope in found]

    return answer


@exercise(
    script="weighted_sum", repair=True, points=2, minutes=12, difficulty=2,
    cases=[
        dict(k=3, d=4, weights=[2.0, -1.0, 0.5]),
        dict(k=4, d=2, weights=[1.0, 3.0, -2.0, 5.0]),
        dict(k=1, d=3, weights=[4.0]),
        dict(k=2, d=1, weights=[0.0, 7.0]),
    ],
    hints=(
        "y is right. Call each pullback with dy = 1 and compare what comes back with the weights. Which weight do you "
        "see?",
        "A lambda does not copy the variables it names; it looks them up when it is called. When are the pullbacks "
        "called, and what is in `weight` by then?",
        "Give each lambda a value of its own: a default argument is worked out when the lambda is made.",
    ),
    mistakes={
        "All pullbacks answer with the last weight. They are called after the loop, and what do they find in `weight` "
        "then?": with_slopes(lambda weights: [weights[-1]] * len(weights)),
        "All pullbacks answer with the first weight. Each needs its own.":
            with_slopes(lambda weights: [weights[0]] * len(weights)),
        "The pullbacks pass dy on as it is: now no weight is left in them.":
            with_slopes(lambda weights: [1.0] * len(weights)),
        "The pullbacks come in reverse order: the first belongs to the first x.":
            with_slopes(lambda weights: weights[::-1]),
        "The pullbacks multiply dy by x. That would be the gradient at the weight; the slope of weight · x by x is the "
        "weight.": lambda xs, weights: (with_slopes(list)(xs, weights)[0], [lambda dy, x=x: x * dy for x in xs]),
    },
)  # fmt: skip
def repair_weighted_sum(xs, weights):
    """The sum of weight * x, and for each x what sends a gradient back to it."""
    leaves = [detached(x).clone().requires_grad_() for x in xs]
    y = sum(weight * x for weight, x in zip(weights, leaves, strict=True))

    def pullback(leaf):
        return lambda dy: pull(y, [leaf], dy)[0].numpy()

    return y.detach().numpy(), [pullback(leaf) for leaf in leaves]


# --- Predict ---------------------------------------------------------------------------------------------------------


def some_widths(rng, sizes):
    return [int(width) for width in rng.integers(2, 30, size=rng.integers(2, 6))]


NETWORKS = [dict(n=2, widths=[4, 3, 2]), dict(n=1, widths=[5, 3]), dict(n=7, widths=[3, 9, 2, 6]), dict(), dict()]
DRAWN = dict(n=lambda rng, sizes: int(rng.integers(2, 20)), widths=some_widths)


def products(n, widths):
    return n * sum(i * o for i, o in pairwise(widths))


@exercise(
    points=2, minutes=10, difficulty=2, draws=DRAWN, cases=NETWORKS,
    hints=(
        "Which array does a linear layer need for dw? And what could tell a ReLU which units were on?",
        "A linear layer keeps its input. A ReLU keeps its output, which is the input of the next linear layer: the "
        "same array, so it counts once.",
        "So the data and every hidden layer count, n numbers for each unit; the last layer's output is needed by no "
        "linear layer or ReLU.",
    ),
    mistakes={
        "The network's outputs are counted. No layer's gradient needs them: a linear layer needs its input.":
            lambda n, widths: n * sum(widths),
        "Hidden layers are counted twice, in front of the ReLU and behind it. What comes out is enough to tell which "
        "units were on.":
            lambda n, widths: n * (widths[0] + 2 * sum(widths[1:-1])),
        "All that was computed is counted. Only what the backward pass needs is kept: of a linear layer its input, of "
        "a ReLU its output.":
            lambda n, widths: n * (sum(widths) + sum(widths[1:-1])),
        "What the linear layers give is counted. They need what they were given.":
            lambda n, widths: n * sum(widths[1:]),
        "The batch is missing: every example has activations of its own.": lambda n, widths: sum(widths[:-1]),
        "The parameters are counted. They exist with or without a backward pass, and do not grow with the batch.":
            lambda n, widths: sum((i + 1) * o for i, o in pairwise(widths)),
        "The data is missing: the first linear layer needs it for its dw.": lambda n, widths: n * sum(widths[1:-1]),
        "Only the widest array is counted, as if each could be thrown away when the next is there. The backward pass "
        "needs all of them.": lambda n, widths: n * max(widths[:-1]),
    },
)  # fmt: skip
def saved_activations(n, widths) -> "count:":
    """How many numbers PyTorch keeps for the backward pass of Linear, ReLU, …, Linear: counted while it keeps them."""
    layers = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())][:-1]
    model = nn.Sequential(*layers)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = model(torch.zeros(n, widths[0]))
    assert y.requires_grad
    return float(sum(kept.values()))


@exercise(
    points=2, minutes=10, difficulty=2, draws=DRAWN, cases=NETWORKS,
    hints=(
        "A matrix product of (n, i) and (i, o) takes n · i · o multiplications. The backward pass of a linear layer "
        "has two matrix products: which shapes do they have?",
        "dw is (o, n) times (n, i) and dx is (n, o) times (o, i): each as much work as the forward pass. Of which "
        "layer does nobody need dx?",
    ),
    mistakes={
        "This is the forward pass. Backwards there are two products for each layer, one for dw and one for dx.":
            products,
        "The first layer's dx is counted. It would be the gradient with respect to the data, and nobody asked for it.":
            lambda n, widths: 2 * products(n, widths),
        "dx is counted for no layer but the last. Every layer except the first has to pass a gradient down.":
            lambda n, widths: products(n, widths) + n * widths[-2] * widths[-1] * (len(widths) > 2),
        "The first layer is left out altogether. Nobody needs its dx, but its w is learned, so there is a dw.":
            lambda n, widths: 2 * products(n, widths[1:]),
        "The forward pass is counted along. The question is about the backward pass alone.":
            lambda n, widths: 3 * products(n, widths) - n * widths[0] * widths[1],
        "The batch is missing: every example has its own products.":
            lambda n, widths: 2 * products(1, widths) - widths[0] * widths[1],
        "Only dx is counted. dw is a matrix product of the same size, for every layer.":
            lambda n, widths: products(n, widths) - n * widths[0] * widths[1],
    },
)  # fmt: skip
def backward_multiplications(n, widths) -> "count:":
    """Multiplications in the matrix products of a backward pass, where nobody asks for the gradient of the data."""
    return float(sum(n * i * o * (1 if first else 2) for first, (i, o) in numbered(widths)))


def numbered(widths):
    """The layers' sizes, each with whether it is the first."""
    return [(k == 0, pair) for k, pair in enumerate(pairwise(widths))]
