# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Backpropagation
#
# You have layers and losses, each with a backward pass of its own. **Backpropagation** joins them: one walk backwards
# through everything that was computed gives the gradient of the loss by every number that took part. You will build it
# twice. First for layers in a row, in NumPy: with it a network with two hidden layers learns to read digits, step for
# step as PyTorch does. Then for any program: a **tape**, which is what PyTorch's autograd is, in some forty lines.
#
# The picture shows all of it: values flow to the right, and each layer keeps what it will need; then gradients flow to
# the left, and each layer turns the gradient at its output into those at its input and its parameters.
#
# **You need** lessons 01 to 03 (a linear layer, ReLU, cross-entropy, each forwards and backwards). **Time:** about
# five hours, three of them for the exercises.

# %% setup=true
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

# %%
plots.show(
    widgets.backprop.passes(),
    alt="Four boxes in a row: linear, relu, linear, loss. Green arrows to the right carry x, z, h, logits and the loss; "
    "orange arrows to the left carry 1, dlogits, dh and dz. The linear boxes also send dw and db down.",
    caption="Forwards, every layer keeps its input. Backwards, it uses it once. "
    "No gradient leaves the first layer to the left: nobody asked for the gradient of the data.",
)

# %% [markdown]
# ## Play first
#
# No layers yet, only numbers. Here is a program of five lines, with $a = 2$, $b = 3$, $c = -4$:
#
# ```
# s = a · b          6
# t = s + c          2
# q = t · s         12
# r = relu(q)       12
# L = r + a         14
# ```
#
# If $a$ grows by a tiny bit, how many times as fast does $L$ grow? Mind that $a$ occurs twice, and $s$ too. Commit
# before you go on.

# %%
widgets.backprop.guess_gradient()

# %% [markdown]
# The same program as a graph. A box is a number, named after the line that made it. Move *nodes served* from 0
# upwards, one step at a time (click the slider, then the arrow keys): at each step one node hands its gradient on to
# those it was made from, times the slope that stands between them.
#
# - After three steps $q$ has been served, and 2 has arrived at $s$ "so far". What would $s$ pass on to $a$ if it came
#   next, before $t$?
# - Where do two gradients meet, and what happens to them?
# - Serve all nodes, then set the first leaf to 1. Most gradients are 0 now. Which are not, and why?
# - In the program *doubled seven times*: how many paths lead from $a$ to the end, and how many steps did you need?

# %%
widgets.backprop.tape()

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - $s$ has two users, $q$ and $t$; the other 6 come through $t$. Served too early, $s$ would pass on 2 · 3 = 6 to $a$
#   instead of 8 · 3 = 24.
# - At $s$ (2 + 6 = 8) and at $a$ (1 + 24 = 25). They are **added**.
# - $a = 1$ makes $q = -3$: relu lets nothing through, to none of the nodes before it. What is left is $L$ itself, $r$,
#   and $a$ with the 1 of its direct way.
# - $2^7 = 128$ paths, and 8 steps.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# The gradient of the loss by an array has the shape of that array: always, for every array. A network with one hidden
# layer, $n$ examples, widths $i$, $k$, $c$:
#
# | forwards | shape | made from | backwards | shape | needs besides the upstream gradient |
# |---|---|---|---|---|---|
# | $z = x w_1^\top + b_1$ | `(n, k)` | $x, w_1, b_1$ | $dw_1, db_1$ (and $dx$) | `(k, i)`, `(k,)` | $x$ (and $w_1$) |
# | $h = \max(z, 0)$ | `(n, k)` | $z$ | $dz$ | `(n, k)` | where $z > 0$ |
# | $\text{logits} = h w_2^\top + b_2$ | `(n, c)` | $h, w_2, b_2$ | $dh, dw_2, db_2$ | `(n, k)`, `(c, k)`, `(c,)` | $h$, $w_2$ |
# | $L = \text{cross-entropy}$ | `()` | logits, targets | $d\text{logits}$ | `(n, c)` | logits, targets |
#
# Read the table downwards for the forward pass, the right half **upwards** for the backward pass. Each line of it you
# have written already; what is new is that they are chained, and that the last column has to be remembered.
#
# ### One path: multiply. Several paths: add
#
# In the program above, nudge $a$ by a tiny $\varepsilon$. Along one path, slopes multiply: $s$ moves by $b\,\varepsilon
# = 3\,\varepsilon$, so $q = t \cdot s$ moves by $t \cdot 3\,\varepsilon = 6\,\varepsilon$ *through this factor*. But
# $a$ reaches $L$ on three paths:
#
# | path | slopes | product |
# |---|---|---|
# | $a \to L$ | 1 | 1 |
# | $a \to s \to q \to r \to L$ | $b \cdot t \cdot 1 \cdot 1 = 3 \cdot 2$ | 6 |
# | $a \to s \to t \to q \to r \to L$ | $b \cdot 1 \cdot s \cdot 1 \cdot 1 = 3 \cdot 6$ | 18 |
#
# For tiny nudges the effects add up, $1 + 6 + 18 = 25$. That is the chain rule in full: **the derivative of $L$ by $a$
# is the sum, over all paths from $a$ to $L$, of the products of the slopes along each path.**
#
# Nobody computes it like that. Two paths split at $s$ and run together again: the sum over paths factors. Let $\bar v$
# be the derivative of $L$ by a node $v$. Whatever $v$ does to $L$, it does through the nodes that *use* it, so
# $$\bar v = \sum_{u \text{ uses } v} \bar u \cdot \frac{\partial u}{\partial v}, \qquad \bar L = 1.$$
# Here $\partial u / \partial v$ is the slope of one line of the program, all its other arguments held still. With
# $\bar q = 1$: $\bar t = \bar q \cdot s = 6$, then $\bar s = \bar q \cdot t + \bar t \cdot 1 = 2 + 6 = 8$, then $\bar
# a = \bar s \cdot b + \bar L \cdot 1 = 24 + 1 = 25$. Each edge of the graph is used once, however many paths run over
# it.

# %%
widgets.backprop.guess_paths()

# %% [markdown]
# ### Why backwards
#
# The recursion can also be run forwards: how fast does each node move with $a$? Start with 1 at $a$, go through the
# program once. That is *forward mode*, and it answers for **one** input and all outputs. For another input, start
# again. *Reverse mode*, from $L$ back, answers for **one** output and all inputs. Training has one output, the loss, and
# as many inputs as there are parameters: the network of this lesson has 8970 of them, so that forward mode
# would need 8970 passes (finite differences no fewer) and reverse mode needs one. What it costs instead is memory: the
# slopes are needed in the reverse order of their making, so what they are made of has to be kept.
#
# ### In which order
#
# The sum for $\bar v$ is complete when all users of $v$ have been served. So every node has to come after all that use
# it; read from the end, every node comes **after all that it was made from**, its *parents*. An order of that kind is
# called **topological**. A graph has one if it has no cycle, and the graph of a program has none: a line can use only
# what exists already. It is not unique: in the figure, $b$ and $c$ may trade places.
#
# ### A layer is a node
#
# With arrays nothing changes but the slopes. For a layer $y = f(x)$ with arrays $x$ and $y$, one entry of $x$ reaches the
# loss through every entry of $y$: $dx_j = \sum_k dy_k\,\frac{\partial y_k}{\partial x_j}$. The table of all these slopes,
# the Jacobian of lesson 02, is never written down: for `x (100, 64)` and `y (100, 100)` it would have $6400 \cdot 10\,000$
# entries. A layer only has to know the *function* that takes $dy$ to $dx$, which is its backward pass. On a tape it is
# called a **pullback**: it pulls a gradient back from the output to one input.
#
# ### Broadcasting is copying
#
# In $z = x w^\top + b$ with `b (k,)`, NumPy adds the same $b$ to each of the $n$ rows: as if $n$ copies had been made.
# A copied number reaches the loss on as many paths as there are copies, and gradients of several paths add up. So the
# gradient of a broadcast array is **summed over the axes along which it was copied**. That is the whole reason why
# $db$ is a sum over the batch. By numbers: `b = [1, 2]` and `dy = [[1, 2], [3, 4], [5, 6]]` give `db = [9, 12]`.

# %% [markdown]
# ## From scratch
#
# The parts were built in lessons 01 to 03; `mine(name)` brings them back, as it did single functions before: your own
# version, as it was when it last passed its check, or the course's reference where there is none yet. From here on whole
# lessons stand on what you have built.

# %%
linear_forward, linear_backward = mine("linear_forward"), mine("linear_backward")
linear_backward_nd = mine("linear_backward_nd")
relu_forward, relu_backward = mine("relu_forward"), mine("relu_backward")
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
torch.set_num_threads(1)  # arrays as small as ours are slower on several threads

# %% [markdown] about="linear_relu_forward"
# ### Two layers, one function
#
# `linear_relu_forward(x, w, b) -> y`: a linear layer and the ReLU behind it. `x (n, i)`, `w (o, i)`, `b (o,)` give `y
# (n, o)`. Use `linear_forward` and `relu_forward`.
#
# By hand: `x = [[1, 2]]`, `w = [[3, −1], [0, −1]]`, `b = [0, 1]`. Then $z$ is `[[3 − 2 + 0, 0 − 2 + 1]] = [[1, −1]]`,
# and `y = [[1, 0]]`.


# %% exercise="linear_relu_forward"
def linear_relu_forward(x, w, b):
    """x (n, i), w (o, i), b (o,) -> y (n, o)"""
    ### BEGIN SOLUTION
    return relu_forward(linear_forward(x, w, b))
    ### END SOLUTION


# %% check="linear_relu_forward"
check(linear_relu_forward)

# %% [markdown] about="linear_relu_backward"
# ### Two layers, backwards
#
# `linear_relu_backward(dy, x, w, b) -> dx, dw, db`: from `dy (n, o)` to the gradients of all three, through both
# layers, in the right order. Use `relu_backward(dy, x)` and `linear_backward(dy, x, w, b)`, and be careful what each of
# them calls `x`.
#
# By hand, with the numbers from before and `dy = [[5, 7]]`: the second unit is off, so $dz$ = `[[5, 0]]`. Then `dx =
# dz w = [[15, −5]]`, `dw = dzᵀ x = [[5, 10], [0, 0]]`, `db = [5, 0]`.

# %%
x, w, b = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0], [0.0, -1.0]]), np.array([0.0, 1.0])
dx, dw, db = reference("linear_relu_backward")(np.array([[5.0, 7.0]]), x, w, b)
assert (dx == [[15, -5]]).all() and (dw == [[5, 10], [0, 0]]).all() and (db == [5, 0]).all()


# %% exercise="linear_relu_backward"
def linear_relu_backward(dy, x, w, b):
    """dy (n, o), x (n, i), w (o, i), b (o,) -> dx (n, i), dw (o, i), db (o,)"""
    ### BEGIN SOLUTION
    z = linear_forward(x, w, b)
    dz = relu_backward(dy, z)
    return linear_backward(dz, x, w, b)
    ### END SOLUTION


# %% check="linear_relu_backward"
check(linear_relu_backward)

# %% [markdown]
# ### From functions to layers
#
# The backward pass had to work $z$ out again, which the forward pass had already known. For two layers that is one
# product too many; for twenty, the last layer's backward pass would begin with nineteen layers forwards. So layers
# now become objects with a memory: forward **keeps** what backward will need. The price: an object has a state, and a
# state may be out of date.
#
# All layers of this course, from here on, keep one protocol:
#
# | method | takes | gives |
# |---|---|---|
# | `forward(x)` | the input | the output; keeps what `backward` will need |
# | `backward(dy)` | the gradient at the output of the **last** `forward` | the gradient at its input; keeps those of the parameters |
# | `parameters()` | – | a list of the arrays that are learned: the very arrays, so that writing into them changes the layer |
# | `gradients()` | – | a list of their gradients from the **last** `backward`, in the same order |

# %% [markdown] about="LinearLayer"
# ### A linear layer that remembers
#
# `LinearLayer(w, b)` with `w (o, i)`, `b (o,)`: keeps the two arrays it is given (no copies) as `self.w` and `self.b`,
# and has the four methods. `x` may have any number of axes in front of the last: `x (…, i)` gives `y (…, o)`.
#
# You have all the parts: `linear_forward` takes a table `(n, i)`, so flatten `x` to one and fold the result back;
# lesson 01's `linear_backward_nd(dy, x, w, b)` takes any number of axes as it is.
#
# By hand, `w = [[2]]`, `b = [1]`: `forward([[3]])` gives `[[7]]`; then `backward([[10]])` gives `[[20]]` and
# `gradients()` are `[[30]]` and `[10]`. After `layer.parameters()[0] *= 2`, `forward([[3]])` gives `[[13]]`.


# %% exercise="LinearLayer"
class LinearLayer:
    """w (o, i), b (o,). Methods: forward(x) -> y, backward(dy) -> dx, parameters() and gradients(), two lists."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        ### BEGIN SOLUTION
        self.x = x
        y = linear_forward(x.reshape(-1, x.shape[-1]), self.w, self.b)
        return y.reshape(*x.shape[:-1], len(self.b))

    def backward(self, dy):
        dx, self.dw, self.db = linear_backward_nd(dy, self.x, self.w, self.b)
        return dx

    def parameters(self):
        return [self.w, self.b]

    def gradients(self):
        return [self.dw, self.db]
        ### END SOLUTION


# %% check="LinearLayer"
check(LinearLayer)

# %% [markdown] about="ReLULayer"
# ### ReLU as a layer
#
# `ReLULayer()`, the same four methods. It learns nothing: `parameters()` and `gradients()` are empty lists. At exactly
# 0 its slope is 0, as in lesson 02. (There is no `__init__` to write: there is nothing to keep before the first
# `forward`.)
#
# By hand: `forward([−1, 0, 2])` gives `[0, 0, 2]`; then `backward([5, 6, 7])` gives `[0, 0, 7]`.


# %% exercise="ReLULayer"
class ReLULayer:
    """Methods: forward(x) -> y, backward(dy) -> dx, parameters() and gradients(), two empty lists."""

    def forward(self, x):
        ### BEGIN SOLUTION
        self.x = x
        return relu_forward(x)

    def backward(self, dy):
        return relu_backward(dy, self.x)

    def parameters(self):
        return []

    def gradients(self):
        return []
        ### END SOLUTION


# %% check="ReLULayer"
check(ReLULayer)

# %% [markdown] about="Sequential"
# ### Layers in a row
#
# `Sequential(layers)`: a list of layers as one layer. It keeps the same protocol, so that a `Sequential` may stand in
# the list of another. `parameters()` and `gradients()` are the layers' lists joined, in the order of the layers: flat,
# with no lists inside. An empty list of layers is allowed and changes nothing.
#
# By hand, a layer that doubles, then one that squares: `forward` of 3 gives 6, then 36. `backward` of 1 asks the squaring
# layer first, whose slope at 6 is 12: it returns 12. The doubling layer makes 24 of it. (Asked in the wrong order, the
# doubling layer would be told 1, as if nothing came after it.)
#
# The check puts in small layers of its own, and a report names them by `kinds`: `stretch` multiplies every column by a
# parameter of its own; `pairs` and `roll` add and move columns, and learn nothing; a list is a `Sequential` within.


# %% exercise="Sequential"
class Sequential:
    """layers (a list). Methods: forward(x) -> y, backward(dy) -> dx, parameters() and gradients(), two flat lists."""

    def __init__(self, layers):
        self.layers = layers

    def forward(self, x):
        ### BEGIN SOLUTION
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
        ### END SOLUTION


# %% check="Sequential"
check(Sequential)

# %% [markdown]
# ### Where a row of layers ends
#
# Your `Sequential` trains real networks (below, *At work*). But it is a row: every output goes to one place, the next
# layer. Put the *same* layer into it twice, so that both places share their weights, and the figure's lesson comes
# back: a number that is used twice gets gradients on two paths, which have to be **added**. The layer's memory holds one
# `x`, and its `gradients()` hold one `dw`: the second call of `backward` overwrites the first, and uses the wrong `x`
# besides.

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(0)
w, x, dy = rng.normal(size=(3, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
shared = LinearLayer(w, np.zeros(3))
row = Sequential([shared, ReLULayer(), shared])
row.forward(x)
row.backward(dy)

weight = torch.tensor(w, requires_grad=True)
((torch.tensor(x) @ weight.T).relu() @ weight.T * torch.tensor(dy)).sum().backward()
print("dw of the row of layers\n", row.gradients()[0].round(2))
print("dw of PyTorch\n", weight.grad.numpy().round(2))

# %% [markdown]
# Sharing is no oddity: a recurrent network uses one layer at each moment of time (lesson 16), a convolution one set of
# weights at each place (lesson 09). What is needed is not a row but a **graph**, with one node for each *use*. Nobody
# should have to draw it, either: the program that computes the values can record it while it runs. That record is the
# tape, and its four parts are the next four exercises.

# %% [markdown] about="topological_order"
# ### An order for any graph
#
# `topological_order(node) -> order`: a list of all nodes that `node` was made from, directly or through others, and
# `node` itself. Each comes once, and after all its parents; so `node` is the last. A node has an attribute `parents`,
# a tuple of nodes; a leaf's is empty. A parent may be named twice, as in $x \cdot x$. Any order that keeps the rule is
# right.
#
# By hand, the program of *Play first*: the parents of $L$ are $(r, a)$, of $r$ $(q,)$, of $q$ $(t, s)$, of $t$ $(s,
# c)$, of $s$ $(a, b)$. Right: $a, b, c, s, t, q, r, L$, and also $b, a, s, c, t, q, r, L$. Wrong: $a, b, c, t, s, \dots$,
# since $t$ is made from $s$.
#
# Graphs get deep: a loop that adds up 5000 numbers makes a chain of 5000 nodes. Python allows about 1000 calls within
# calls before it raises a `RecursionError`, so that a function that calls itself for each parent gives up there. It is
# worth half of the points here. For all of them, keep the nodes that wait on a list of your own. (Nodes can be put into
# sets and dictionaries.)
#
# A report gives the graph by numbers: `parents=[[], [0], [0], [1, 2]]` is a leaf 0, nodes 1 and 2 made from it, and node
# 3 made from both, the root. `values` are what a program on this graph computes if it runs its lines in your order, and
# `deep` is the number of nodes of a chain, counted along your order.


# %% exercise="topological_order"
def topological_order(node):
    """node (with .parents, a tuple of nodes) -> order (a list of nodes, parents first)"""
    ### BEGIN SOLUTION
    order, met, waiting = [], set(), [(node, False)]
    while waiting:
        node, parents_done = waiting.pop()
        if parents_done:
            order.append(node)
        elif node not in met:
            met.add(node)
            waiting.append((node, True))  # comes up again when all that is put above it is done
            waiting.extend((parent, False) for parent in node.parents)
    return order
    ### END SOLUTION


# %% check="topological_order"
check(topological_order)

# %% [markdown] about="unbroadcast"
# ### Undoing a broadcast
#
# `unbroadcast(dy, shape) -> dx`: an array `x` of this `shape` (a list or tuple of sizes) was broadcast to the shape of
# `dy`; `dx` is its gradient, so it has that `shape` again: every entry is the sum over the copies that were made of it.
#
# Broadcasting lines shapes up from the right and copies in two ways: along axes that `shape` does not have (they are in
# front), and along axes where `shape` has a 1 and `dy` has more.
#
# By hand, `dy = [[1, 2, 3], [4, 5, 6]]`: for `shape` (3,) it is `[5, 7, 9]`; for (2, 1) it is `[[6], [15]]`; for () it
# is 21; for (1, 3) it is `[[5, 7, 9]]`, which is not the same as (3,); for (2, 3) nothing was copied.


# %% exercise="unbroadcast"
def unbroadcast(dy, shape):
    """dy (...), shape (a list or tuple) -> dx (of that shape)"""
    ### BEGIN SOLUTION
    while dy.ndim > len(shape):
        dy = dy.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1:
            dy = dy.sum(axis=axis, keepdims=True)
    return dy
    ### END SOLUTION


# %% check="unbroadcast"
check(unbroadcast)

# %% [markdown] about="backpropagate"
# ### The walk backwards
#
# `backpropagate(root)` returns nothing; it fills in gradients. A node has `data` (an array), `grad` (an array of the
# same shape), `parents`, and `pullbacks`: one function for each parent, in the same order, that takes the gradient at the
# node to the gradient at that parent. What a pullback returns may still be broadcast; bring it to the parent's shape
# with your `unbroadcast`.
#
# Two kinds of nodes, two rules, both PyTorch's. **Leaves gather**: the gradient of this run is added to what is in
# `grad` already, until somebody clears it. **Nodes with parents start afresh**: their `grad` is that of this run alone.
# The gradient of the root by itself is 1 (in every entry).
#
# By hand: leaf $x = 3$ with `grad` 0, and $y = x \cdot x$, so `y.parents = (x, x)` and both pullbacks are `dy ↦ 3 dy`.
# After `backpropagate(y)`: `y.grad` is 1, `x.grad` is 3 + 3 = 6. After a second run: `y.grad` is 1, `x.grad` is 12.
# Each pullback was called once in each run; the check counts the calls.
#
# One trap: addition hands the same array `dy` to both its parents. If they keep it and one of them later adds to it in
# place, the other's gradient changes as well. `grad = grad + …` makes a new array, `grad += …` does not.
#
# In a report, `parents` is the graph by numbers again, `shapes` are those of its first leaves where they are smaller than
# what arrives, and `grads` holds the gradients of all nodes, one behind the other.


# %% exercise="backpropagate"
def backpropagate(root):
    """root (with .data, .grad, .parents, .pullbacks) -> None; fills in .grad of all nodes"""
    ### BEGIN SOLUTION
    order = topological_order(root)
    for node in order:
        if node.parents:
            node.grad = np.zeros_like(node.data)
    root.grad = root.grad + 1.0
    for node in reversed(order):
        for parent, pullback in zip(node.parents, node.pullbacks, strict=True):
            parent.grad = parent.grad + unbroadcast(pullback(node.grad), parent.data.shape)
    ### END SOLUTION


# %% check="backpropagate"
check(backpropagate)

# %% [markdown] about="Tensor"
# ### The tape
#
# `Tensor(data)`: an array that remembers how it was made. `data` is kept as a float array, `grad` starts as zeros of the
# same shape, `parents` and `pullbacks` are empty for a leaf. Every operation returns a new `Tensor` that knows its
# parents and one pullback for each; a tuple of one is written with a comma, `(self,)`. Both sides of an operation are
# Tensors. `__init__` and addition are given; write
#
# | operation | data | remember |
# |---|---|---|
# | `a * b`, Python's `__mul__` | entry by entry, with broadcasting | lesson 01: $w$ is the slope of $w x$ by $x$ |
# | `a @ b`, Python's `__matmul__` | matrix product of `(n, i)` and `(i, o)` | $A B$ with upstream $dy$: $dA = dy\,B^\top$, $dB = A^\top dy$ |
# | `a.relu()` | $\max(a, 0)$ | 0 at the kink |
# | `a.sum()` | the sum of all entries, no axes left | every entry counts once |
# | `a.backward()` | – | one call of your `backpropagate` |
#
# Pullbacks need not undo broadcasting: `backpropagate` does. By hand: `a = Tensor([1, 2])`, `b = Tensor(3)`, `y = (a * b
# + a).sum()` is 3 + 6 + 1 + 2 = 12. `y.backward()` gives `a.grad` = `[3 + 1, 3 + 1] = [4, 4]` and `b.grad` = 1 + 2 = 3.
#
# The check runs small programs on your class, such as $\text{sum}(\text{relu}(a\,b + c)^2)$, or a sum of forty
# doublings; it looks at all values, all gradients, and at a second `backward()`. In a report, `["mul", 3, 0]` is a line
# of such a program: it multiplies nodes 3 and 0 into the next node. Nodes 0, 1 and 2 are `a`, `b` and `c`.


# %% exercise="Tensor"
class Tensor:
    """data (any shape). Has data, grad, parents, pullbacks; a + b, a * b, a @ b, a.relu(), a.sum(), a.backward()."""
    def __init__(self, data, parents=(), pullbacks=()):
        self.data = np.asarray(data, dtype=float)
        self.grad, self.parents, self.pullbacks = np.zeros_like(self.data), parents, pullbacks

    def __add__(self, other):
        return Tensor(self.data + other.data, (self, other), (lambda dy: dy, lambda dy: dy))

    def __mul__(self, other):
        ### BEGIN SOLUTION
        return Tensor(self.data * other.data, (self, other), (lambda dy: dy * other.data, lambda dy: dy * self.data))

    def __matmul__(self, other):
        return Tensor(self.data @ other.data, (self, other), (lambda dy: dy @ other.data.T, lambda dy: self.data.T @ dy))

    def relu(self):
        return Tensor(np.maximum(self.data, 0), (self,), (lambda dy: dy * (self.data > 0),))

    def sum(self):
        return Tensor(self.data.sum(), (self,), (lambda dy: dy * np.ones_like(self.data),))

    def backward(self):
        backpropagate(self)
        ### END SOLUTION


# %% check="Tensor"
check(Tensor)

# %% [markdown]
# That is an automatic differentiator in reverse mode: four exercises, some forty lines. The figure from the beginning,
# now run by it: your `Tensor` holds the numbers, your `topological_order` decides who is served when. If your gradients
# were wrong, the figure would say so.

# %%
widgets.backprop.tape(Tensor, topological_order)

# %% [markdown]
# And the layer used twice, which a row of layers got wrong. The tape has two nodes for the two products, and one leaf:

# %% tags=["nbval-check-output"]
leaf = Tensor(w.T)
((((Tensor(x) @ leaf).relu() @ leaf) * Tensor(dy)).sum()).backward()
print("dw of the tape\n", leaf.grad.T.round(2))
print("equal to PyTorch's:", np.allclose(leaf.grad.T, weight.grad.numpy()))

# %% [markdown]
# ## Against a reference
#
# Two witnesses against both of your machines, on a network with one hidden layer and cross-entropy behind it. The row
# of layers, finite differences (your `numerical_gradient` of lesson 01) and PyTorch:

# %%
numerical_gradient = mine("numerical_gradient")
rng = np.random.default_rng(1)
x, targets = rng.normal(size=(6, 4)), rng.integers(0, 3, size=6)
parameters = [rng.normal(size=shape) for shape in ((5, 4), (5,), (3, 5), (3,))]
w1, b1, w2, b2 = parameters
network = Sequential([LinearLayer(w1, b1), ReLULayer(), LinearLayer(w2, b2)])
logits = network.forward(x)
network.backward(cross_entropy_backward(1.0, logits, targets))


def loss_with(position, value):
    w1, b1, w2, b2 = [*parameters[:position], value, *parameters[position + 1 :]]
    return cross_entropy_forward(linear_forward(linear_relu_forward(x, w1, b1), w2, b2), targets)


# %%
leaves = [torch.tensor(parameter, requires_grad=True) for parameter in parameters]
hidden = F.relu(F.linear(torch.tensor(x), leaves[0], leaves[1]))
loss = F.cross_entropy(F.linear(hidden, leaves[2], leaves[3]), torch.tensor(targets))
theirs = [gradient.numpy() for gradient in torch.autograd.grad(loss, leaves)]
nudged = [numerical_gradient(lambda v, k=k: loss_with(k, v), p) for k, p in enumerate(parameters)]
names, found = ("dw1", "db1", "dw2", "db2"), network.gradients()
plots.gradient_check({name: triple for name, *triple in zip(names, found, nudged, theirs, strict=True)})

# %% [markdown]
# The tape has no logarithm yet, so it gets the squared error: the same network, recorded. It has to agree with the row
# of layers too, given $d\text{pred} = 2\,\text{pred}$ for the sum of squares.

# %% tags=["nbval-check-output"]
leaves = [Tensor(parameter.T) for parameter in parameters]
pred = (Tensor(x) @ leaves[0] + leaves[1]).relu() @ leaves[2] + leaves[3]
(pred * pred).sum().backward()

network.backward(2 * network.forward(x))
for name, leaf, gradient in zip(names, leaves, network.gradients(), strict=True):
    print(f"{name} {gradient.shape!s:<7} the tape and the layers agree: {np.allclose(leaf.grad.T, gradient)}")

# %% [markdown]
# What a check says of a walk that tidies up too well, and clears the leaves as well:


# %% tags=["nbval-check-output"]
def clears_everything(root):
    for node in topological_order(root):
        node.grad = np.zeros_like(node.data)
    backpropagate(root)


print(examine(clears_everything, "backpropagate").mistake)

# %% [markdown]
# It is right on every first run, and a test with one run would have passed it. That leaves gather has a use, too: the
# gradients of several small batches, added up before one step, are the gradient of one large batch that would not have
# fitted into memory.

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `Sequential`, its `forward` | `nn.Sequential`, called | it has no `backward`: the tape does that |
# | `parameters()` | `model.parameters()` | the very tensors, as in yours |
# | `gradients()` | `parameter.grad` | accumulated, hence `optimiser.zero_grad()` |
# | `Tensor(data)` | `torch.tensor(data, requires_grad=True)` | without it nothing is recorded |
# | `parents` and `pullbacks` | `tensor.grad_fn`, its `next_functions` | the parents' *functions*, not their values |
# | `backpropagate` | `loss.backward()` | frees what was kept; a second run needs `retain_graph=True` |
# | `.grad` of nodes between | `None`, unless `retain_grad()` | kept only while it is needed |
# | a pullback | `backward` of a `torch.autograd.Function` | below |
#
# Its tape is yours: here is the graph that PyTorch recorded for the program of *Play first*, walked from the root by
# `next_functions`. `AccumulateGrad` is what stands at a leaf and adds. Then some claims of the table, verified:

# %% tags=["nbval-check-output"]
a, b, c = (torch.tensor(value, requires_grad=True) for value in (2.0, 3.0, -4.0))
s = a * b
L = torch.relu((s + c) * s) + a


def show_graph(node, depth=0):
    print("   " * depth + node.name())
    for parent, _ in node.next_functions:
        show_graph(parent, depth + 1)


show_graph(L.grad_fn)

# %% tags=["nbval-check-output"]
L.backward(retain_graph=True)
first = a.grad.item()
L.backward(retain_graph=True)
facts = {
    "the derivative by a is 25": first == 25,
    "a second backward adds to the leaves": a.grad.item() == 50,
    "s keeps no gradient": not s.retains_grad,
    "detach() cuts the graph": s.detach().grad_fn is None,
}
with torch.no_grad():
    facts["under no_grad nothing is recorded"] = (a * b).grad_fn is None
L.backward()
try:
    L.backward()
except RuntimeError:
    facts["without retain_graph a backward pass frees what was kept"] = True
for fact, holds in facts.items():
    print("right" if holds else "WRONG", "·", fact)

# %% [markdown]
# (In the first listing the product $s = a \cdot b$, a `MulBackward0` above two leaves, occurs twice, since the printing
# walks all paths. The backward pass walks edges.)

# %% [markdown] about="LinearReLUFunction"
# ### A node of your own on PyTorch's tape
#
# Every operation on PyTorch's tape is a pair of forward and pullback; a `torch.autograd.Function` adds yours. Fuse the
# linear layer and its ReLU into **one** node: `forward(ctx, x, w, b)` returns `y (n, o)`, `backward(ctx, dy)` returns
# `dx, dw, db`. `x (n, i)`, `w (o, i)`, `b (o,)`, all tensors.
#
# A fused node can keep less. Two nodes keep $x$, $w$ and ReLU's input or output; which *one* array of shape `(n, o)` do
# you need, of $z$ and $y$, and could you return it and keep it at once? The numbers are those of
# `linear_relu_forward` and `linear_relu_backward`.


# %% exercise="LinearReLUFunction"
class LinearReLUFunction(torch.autograd.Function):
    """x (n, i), w (o, i), b (o,) -> y (n, o)

    Two static methods: forward(ctx, x, w, b) returns y, backward(ctx, dy) returns dx, dw, db.
    """

    @staticmethod
    def forward(ctx, x, w, b):
        ### BEGIN SOLUTION
        y = (x @ w.T + b).clamp(min=0)
        ctx.save_for_backward(x, w, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, y = ctx.saved_tensors
        dz = dy * (y > 0)
        return dz @ w, dz.T @ x, dz.sum(dim=0)
        ### END SOLUTION


# %% check="LinearReLUFunction"
check(LinearReLUFunction)

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 4), (3, 4), (3,))]
print("gradcheck:", torch.autograd.gradcheck(LinearReLUFunction.apply, given))
y = LinearReLUFunction.apply(*given)
print("one node for two layers:", y.grad_fn.name())

# %% [markdown]
# ## At work
#
# ### Step for step as PyTorch
#
# Your `Sequential` with two hidden layers of 64 units, 1437 digits, batches of 32, cross-entropy. The weights start
# uniform within $\pm 1/\sqrt{i}$, as in lesson 01 (why just so is the matter of lesson 05). PyTorch gets a model with
# the same weights, and the same batches.


# %%
def start(widths, rng):
    layers = []
    for i, o in zip(widths[:-1], widths[1:], strict=True):
        bound = 1 / np.sqrt(i)
        layers += [LinearLayer(rng.uniform(-bound, bound, (o, i)), rng.uniform(-bound, bound, o)), ReLULayer()]
    return Sequential(layers[:-1])  # no ReLU behind the logits


def step(model, x, targets, lr):
    logits = model.forward(x)
    model.backward(cross_entropy_backward(1.0, logits, targets))
    for parameter, gradient in zip(model.parameters(), model.gradients(), strict=True):
        parameter -= lr * gradient  # in place: these are the layers' own arrays
    return cross_entropy_forward(logits, targets)


# %%
digits, lr = data.digits(), 0.5
rng = np.random.default_rng(0)
model = start([64, 64, 64, 10], rng)
twin = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).double()
with torch.no_grad():
    for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
        theirs.copy_(torch.from_numpy(ours))


def torch_step(model, x, targets, lr):
    loss = F.cross_entropy(model(torch.tensor(x)), torch.tensor(targets))
    model.zero_grad()  # the leaves gather
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= lr * parameter.grad
    return loss.item()


# %%
yours, theirs = [], []
for batch in rng.permutation(len(digits.x_train))[: 20 * 32].reshape(20, 32):
    x, targets = digits.x_train[batch], digits.y_train[batch]
    yours.append(step(model, x, targets, lr))
    theirs.append(torch_step(twin, x, targets, lr))

# %% tags=["nbval-check-output"]
assert np.abs(np.subtract(yours, theirs)).max() < 1e-9
print("parameters:", sum(parameter.size for parameter in model.parameters()))
print(f"20 steps, the loss from {yours[0]:.2f} to {yours[-1]:.2f}; largest difference below 1e-9")

# %%
plots.show(
    widgets.backprop.same_steps(yours, theirs),
    alt="The training loss over twenty steps: PyTorch's as a line, that of your Sequential as dots upon it.",
    caption="Twenty steps from the same weights. The dots are yours, the line is PyTorch's; "
    "they differ by rounding only, in the sixteenth digit or so.",
)

# %% [markdown]
# What differs is the order in which some sums are added up, and floating-point sums depend on it. Now train it to the end.

# %%
epochs = 2 if plots.fast() else 20
with plots.Training(epochs, "train loss", "test loss", "test accuracy") as run:
    for _ in range(epochs):
        batches = np.array_split(rng.permutation(len(digits.x_train)), 45)
        train = np.mean([step(model, digits.x_train[rows], digits.y_train[rows], lr) for rows in batches])
        logits = model.forward(digits.x_test)
        right = (logits.argmax(axis=1) == digits.y_test).mean()
        run.log(train, cross_entropy_forward(logits, digits.y_test), right)

# %% tags=["nbval-check-output"]
assert plots.fast() or right >= 0.96
print("at least 96 % of the test digits are right:", plots.fast() or bool(right >= 0.96))

# %% [markdown]
# One linear layer came to 94 % with the squared error (lesson 01) and to 97 % with cross-entropy (lesson 03), so on
# digits as easy as these two hidden layers have little left to gain. What is new is how they were trained: the layers,
# the loss, the gradient of every number are yours, and nothing in the walk backwards knows how many layers there are.
#
# ### The tape, at work
#
# The tape knows no layers and no batches; it takes any program. Here is one for the two moons of lesson 02: two inputs,
# 16 hidden units, one output that should be 1 for one moon and −1 for the other, squared error. The forward pass is
# written as on paper, and there is no backward pass to write.

# %%
points, labels = data.two_moons(200, noise=0.12, rng=1)
inputs, wanted = Tensor(points), Tensor(1.0 - 2.0 * labels[:, None])
rng = np.random.default_rng(0)
weights = [Tensor(rng.normal(size=shape)) for shape in ((2, 16), (16,), (16, 1), (1,))]


def predict(x):
    w1, b1, w2, b2 = weights
    return (x @ w1 + b1).relu() @ w2 + b2


# %%
steps = 30 if plots.fast() else 600
with plots.Training(steps, "loss", "train accuracy", unit="step") as run:
    for _ in range(steps):
        pred = predict(inputs)
        error = pred + wanted
        loss = (error * error).sum() * Tensor(1 / len(points))
        loss.backward()
        for leaf in weights:
            leaf.data -= 0.05 * leaf.grad
            leaf.grad = np.zeros_like(leaf.data)  # leaves gather: clear them
        run.log(loss.data, ((pred.data < 0) == (wanted.data > 0)).mean())

# %% [markdown]
# (There is no minus on the tape, so `wanted` holds the targets with their sign turned: −1 for label 1 and 1 for label 0,
# and `error` is a sum.)

# %%
ranges = dict(x_range=(-2, 3), y_range=(-1.5, 2))
plane = predict(Tensor(widgets.picture.plane(*ranges.values(), n=80))).data.reshape(80, 80)
scores = 0.5 + 0.5 * np.clip(plane, -1, 1)
drawn = widgets.picture.regions(scores, points, labels, **ranges, alt="two moons told apart")
plots.show(
    drawn,
    alt="The plane in two colours: the boundary winds between the two moons.",
    caption="What 65 numbers learned on your tape: the boundary between the colours winds between the moons.",
)

# %% [markdown]
# ## Look inside
#
# A trained network with its gradients laid open. Above, a digit on its way through your layers; below, the gradient of
# its loss on the way back, at every place. (The logits stand in two lines: 0 to 4, then 5 to 9.) Things to look for:
#
# - Compare $h$ and $dz$: wherever a hidden unit is off, no gradient passes to its $z$.
# - Choose a digit that is read rightly. How large is the gradient? Then tell the loss that it should have been another.
# - $dx$ is a picture: raise the orange pixels, and the loss grows. For a digit with the *wrong* class asked for, what do
#   the purple ones look like?

# %%
names = ["x", "z1", "h1", "z2", "h2", "logits"]
widgets.backprop.inside(model.layers, names, digits.x_test[:40], digits.y_test[:40], cross_entropy_backward)

# %% [markdown]
# A digit that is read rightly and surely has a gradient of almost nothing, everywhere: cross-entropy's $p - y$ is where
# all of it begins (lesson 03), and every step backwards only multiplies. So late in training most examples teach hardly
# anything, and a few hard ones do nearly all the pulling. Counted over the training digits:

# %%
logits = model.forward(digits.x_train)
pull = np.abs(cross_entropy_backward(float(len(logits)), logits, digits.y_train)).sum(axis=1)
share = np.cumsum(np.sort(pull)[::-1]) / pull.sum()
print(f"the hardest tenth of the digits makes {100 * share[len(share) // 10]:.0f} % of all that flows back")

# %% [markdown]
# ## Repair, predict, and what goes wrong

# %% [markdown] about="repair_weighted_sum"
# ### Repair: every gradient is that of the last
#
# `repair_weighted_sum(xs, weights) -> y, pullbacks`: `xs` is a list of arrays of one shape, `weights` a list of numbers.
# `y` is the weighted sum $\sum_k \text{weights}_k\,\text{xs}_k$, and `pullbacks` a list with one function for each `x`,
# which takes `dy` to the gradient at that `x`. An operation for your tape, then, with any number of parents.
#
# The values are right. Training with it goes wrong all the same. By hand: weights `[2, −1]`, so the pullbacks of `dy =
# 1` should say 2 and −1. They say −1 and −1.


# %% exercise="repair_weighted_sum"
def repair_weighted_sum(xs, weights):
    """xs (a list of arrays), weights (a list of numbers) -> y, pullbacks (a list of functions of dy)"""
    ### BEGIN SOLUTION
    y, pullbacks = 0.0, []
    for x, weight in zip(xs, weights, strict=True):
        y = y + weight * x
        pullbacks.append(lambda dy, weight=weight: weight * dy)
    return y, pullbacks
    ### BROKEN
    # y, pullbacks = 0.0, []
    # for x, weight in zip(xs, weights, strict=True):
    #     y = y + weight * x
    #     pullbacks.append(lambda dy: weight * dy)
    # return y, pullbacks
    ### END SOLUTION


# %% check="repair_weighted_sum"
check(repair_weighted_sum)

# %% [markdown] about="saved_activations"
# ### Predict: what has to be kept?
#
# `saved_activations(n, widths) -> count`: how many numbers PyTorch keeps between the forward and the backward pass of
# `nn.Linear, nn.ReLU, nn.Linear, …, nn.Linear` (no ReLU behind the last), for a batch of `n` and a list of `widths`: the
# data's, then each linear layer's. Parameters do not count, since they are there anyway. An array that two layers need
# counts once.
#
# Two facts decide it. A linear layer needs its input. A ReLU in PyTorch keeps its *output*, since that shows as well as
# the input which units were on; and whose input is that? By hand, `n = 2`, `widths = [4, 3, 2]`: the data 2 · 4, the
# ReLU's output 2 · 3, together 14. (The check does not compute: it lets PyTorch record, and counts what it keeps.)


# %% exercise="saved_activations"
def saved_activations(n, widths):
    """n examples, widths (a list: data, layer, layer, …) -> count of numbers kept"""
    ### BEGIN SOLUTION
    return n * sum(widths[:-1])
    ### END SOLUTION


# %% check="saved_activations"
check(saved_activations)

# %% [markdown]
# Below, a deep network from the first forward step to the last backward one: memory fills up as layers are passed, and
# empties on the way back. The ring is what your formula says. Now keep only some of the inputs and work the others out
# again when they are needed, one stretch at a time (**checkpointing**; Chen et al., 2016): about twice the forward work,
# for much less memory. With 32 layers, which spacing needs least? Why is both less and more worse?

# %%
widgets.backprop.memory(saved_activations)

# %% [markdown]
# <details><summary>Which spacing</summary>
#
# 5, 6 or 7, near $\sqrt{32} = 5.7$. Keeping one input in $m$ costs $32/m$ arrays for the whole pass and $m$ more for
# the stretch that is being worked out again; $32/m + m$ is smallest where both are equal, at $m = \sqrt{32}$. (Only
# whole arrays count, so that three spacings come out alike.)
#
# </details>

# %% [markdown] about="backward_multiplications"
# ### Predict: how much work is the way back?
#
# `backward_multiplications(n, widths) -> count`: the multiplications in the matrix products of the backward pass of
# the same network, for a batch of `n`. Entrywise work (ReLU, biases) does not count. Nobody asks for the gradient of the
# data, so it is not computed.
#
# By hand, `n = 2`, `widths = [4, 3, 2]`. Forwards: 2 · 4 · 3 + 2 · 3 · 2 = 36. Backwards: second layer, $dw$ 12 and $dh$
# 12; first layer, $dw$ 24 and no $dx$. Together 48.


# %% exercise="backward_multiplications"
def backward_multiplications(n, widths):
    """n examples, widths (a list: data, layer, layer, …) -> count of multiplications"""
    ### BEGIN SOLUTION
    products = [n * i * o for i, o in zip(widths[:-1], widths[1:], strict=True)]
    return 2 * sum(products) - products[0]
    ### END SOLUTION


# %% check="backward_multiplications"
check(backward_multiplications)

# %% [markdown]
# PyTorch can count for itself: a `FlopCounterMode` watches every matrix product (and counts a multiplication and its
# addition as two).

# %% tags=["nbval-check-output"]
from torch.utils.flop_counter import FlopCounterMode

widths, n = [64, 64, 64, 10], 32
with FlopCounterMode(display=False) as counter:
    loss = twin(torch.zeros(n, 64, dtype=torch.float64)).sum()
    forward = counter.get_total_flops() // 2
    loss.backward()
backward = counter.get_total_flops() // 2 - forward
print(f"multiplications forwards {forward}, backwards {backward}: {backward / forward:.2f} times as many")
print("your formula:", backward_multiplications(n, widths))

# %% [markdown]
# Twice the forward pass, less the first layer's share. For deep networks it nears 2, so a training step costs about
# three forward passes. With one multiplication and one addition for each of $N$ parameters and each of $D$ tokens, that
# is $2ND$ forwards and $4ND$ backwards: the $6ND$ by which the cost of training a language model is estimated (Kaplan et
# al., 2020).
#
# ### What goes wrong in practice
#
# - **"The loss falls for a while, then jumps about."** Gradients were not cleared: leaves gather, so that each step
#   moves along the sum of all gradients so far. On your tape, with the two moons, forty steps each way:

# %% tags=["nbval-check-output"]
for clears in (True, False):
    rng = np.random.default_rng(0)
    weights = [Tensor(rng.normal(size=shape)) for shape in ((2, 16), (16,), (16, 1), (1,))]
    for _ in range(40):
        error = predict(inputs) + wanted
        loss = (error * error).sum() * Tensor(1 / len(points))
        loss.backward()
        for leaf in weights:
            leaf.data -= 0.05 * leaf.grad
            leaf.grad = np.zeros_like(leaf.data) if clears else leaf.grad
    print(f"gradients {'cleared' if clears else 'gathered'}: loss {loss.data:.2f}")

# %% [markdown]
# - **"backward() twice, to be safe."** The leaves then hold twice the gradient: a doubled learning rate that no
#   configuration mentions. If nodes between keep their gradient as well, it is worse: on a chain of two operations the
#   second run adds 2 instead of 1, and the deeper the graph the more. That is why yours are cleared.
# - **"Recursion is the natural way: each node calls its parents."** It is, if each call passes on *its own* contribution;
#   but that walks paths, and forty doublings have 2⁴⁰. If each call passes on all that has arrived so far, shared nodes
#   send the same gradient down again and again. Edges, in topological order, once.
# - **"Change the array in place, it saves memory."** It changes what a layer has kept, too. `x` in your `LinearLayer` is
#   the caller's own array, not a copy: if the caller overwrites it between forward and backward, `dw` is silently wrong.
#   PyTorch counts the versions of each tensor and refuses:

# %%
y = torch.ones(3, requires_grad=True).exp()
y.mul_(2)  # exp's pullback needs what exp gave
try:
    y.sum().backward()
except RuntimeError as error:
    print(str(error).split(";")[0])

# %% [markdown]
# - **"Backpropagation is how a network learns."** It computes a gradient, no more; learning is what an optimiser makes
#   of it (lesson 06). And it is not the chain rule as such, but the order in which the chain rule's sum is worked out.
# - **"Autograd differentiates my formula."** It differentiates the program that ran, on the branch that it took.
#   $\max(z, 0)$ at $z = 0$ has no derivative; the tape gives the one that somebody wrote into the pullback.

# %% [markdown]
# ## Where it is used, and what came after
#
# Everywhere that something is trained by gradients. The recursion was published as a way to estimate rounding errors of
# programs (Linnainmaa, 1970), proposed by Werbos (1974; for neural networks, 1982) and made known by Rumelhart, Hinton and
# Williams (1986), who showed what hidden layers come to represent. Tapes that record any program are older than deep
# learning's libraries, too; *automatic differentiation* is the name to search for. What came after widens the same idea:
# pullbacks of pullbacks give second derivatives, checkpointing trades time for memory, and reversible layers (Gomez et
# al., 2017) keep nothing, since they work their inputs out of their outputs. Where the graph is a loop over time, the walk
# backwards is called backpropagation through time (lesson 16); where slopes multiply over many layers, they vanish or
# explode, and lesson 05 is about that.
#
# Does the brain do it? Nobody knows. Backpropagation needs the forward weights again on the way back, which is hard to
# picture with neurons (the *weight transport* problem); Lillicrap et al. (2016) found that networks also learn with fixed
# random weights on the way back; on large tasks, such ways have stayed behind (Bartunov et al., 2018).
#
# You can now
#
# - draw the graph of a program and work out all gradients by hand, each edge once;
# - say what a layer has to keep, why, and what it costs;
# - write layers to a protocol, chain them, and train with them;
# - write an automatic differentiator, and name its four classic bugs: gradients overwritten, gradients left over from
#   the run before, copies not summed, nodes served too early;
# - put an operation of your own on PyTorch's tape.
#
# To read:
#
# - D. E. Rumelhart, G. E. Hinton and R. J. Williams, *Learning representations by back-propagating errors*, 1986. Four
#   pages.
# - A. Griewank and A. Walther, *Evaluating Derivatives*, 2nd edition, 2008. The book on the subject: costs, memory,
#   checkpoints, with proofs.
# - A. G. Baydin, B. A. Pearlmutter, A. A. Radul and J. M. Siskind, *Automatic differentiation in machine learning: a
#   survey*, 2018. Forward, reverse, and what is often confused with them.
# - T. Chen, B. Xu, C. Zhang and C. Guestrin, *Training deep nets with sublinear memory cost*, 2016. The $\sqrt{n}$ of
#   the figure above.
# - T. P. Lillicrap, D. Cownden, D. B. Tweed and C. J. Akerman, *Random synaptic feedback weights support error
#   backpropagation for deep learning*, 2016. The other way back.
