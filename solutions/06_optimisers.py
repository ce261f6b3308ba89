# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · Optimisers
#
# Backpropagation says which way is down. An **optimiser** decides how far to go. You will build the five that most
# networks are trained with (SGD, momentum, RMSprop, Adam, AdamW) and the three schedules that steer their learning
# rate; derive how large a learning rate may be before training runs away, and see it happen one notch later; and
# compare optimisers so that the comparison means something.
#
# The picture shows four of them in a narrow valley that lies askew, each with the learning rate that suits it best.
# They get the same gradients, and make different paths of them.
#
# **You need** lessons 03 (cross-entropy), 04 (layers, `backward`), 05 (He's initialisation). **Time:** about four
# hours, two and a half of them for the exercises.

# %% setup=true
import numpy as np
import torch
from torch import nn

from autograder import check, examine, mine, reference
from course import data, plots, widgets

torch.set_num_threads(1)  # matrices as small as ours are slower on several threads

# %%
plots.show(
    widgets.optimisers.four_paths(reference),
    alt="Four optimisers start at the same point of a valley. SGD jumps from wall to wall, momentum and Adam swing in "
    "wide curves, RMSprop takes a corner.",
    caption="A valley 50 times as steep across as along (dark is high, the cross is the bottom), 60 steps of each "
    "optimiser at its own best learning rate. All four come close; none of them the same way.",
)

# %% [markdown]
# ## Play first
#
# Gradient descent on a bowl is the one case that can be computed to the end, and every network looks like a bowl close
# to a minimum. Take the simplest: one parameter $y$, loss $5y^2$, gradient $10y$. Each step replaces $y$ by
# $y - \mathrm{lr}\cdot 10y$. A small learning rate crawls. A large one overshoots to the other side of the bowl. How
# large is too large?

# %%
widgets.optimisers.guess_limit(reference)

# %% [markdown]
# Now two parameters: a valley that is steep across and flat along. The right-hand chart shows how far the walker is
# from the bottom in each of these two directions, on an axis of powers of ten. Click a slider, then use the arrow keys.
#
# - Set the condition number (how many times as steep across as along) to 1, 10, 100. What happens to the blue line?
# - Raise the learning rate from 0.05. Which direction gets faster, which one starts to swing, and at which learning
#   rate does it run away?
# - With condition number 100 and learning rate 0.1, raise the momentum to 0.8. And how far can you raise the learning
#   rate *now*?
# - Turn the valley by 30°. What changes in the right-hand chart?

# %%
widgets.optimisers.valley(reference("momentum_step"), reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - The flat direction suffers: its error shrinks by $1 - \mathrm{lr}\cdot\lambda$ per step, and its $\lambda$ becomes
#   10, 1, 0.1. At 0.1 and lr 0.05 it is 0.995: some 460 steps for a factor of ten.
# - The flat direction always gets faster. The steep one is solved in a single step at 0.1, swings beyond it, neither
#   shrinks nor grows at 0.2, and runs away at 0.21, exactly where $|1 - 10\,\mathrm{lr}|$ passes 1.
# - Momentum 0.8 brings the flat direction from 0.99 to 0.927 per step (seven times as fast), and the limit rises to
#   0.36.
# - Nothing. Gradient descent does not know what is called the first parameter and what the second.
#
# </details>

# %% [markdown]
# ## The mathematics
#
# ### Shapes first
#
# A parameter, its gradient, and everything an optimiser remembers about it have **one shape**, and every formula below
# works entry by entry. So it is enough to follow one number $\theta$ with gradient $g_t$ in step $t = 1, 2, \dots$;
# $\eta$ is the learning rate.
#
# | step | remembers | the step, entry by entry | unit of the step |
# |---|---|---|---|
# | SGD | – | $\theta \leftarrow \theta - \eta\,g$ | $\eta$ × gradient |
# | momentum | velocity $u$ | $u \leftarrow \mu u + g$, $\;\theta \leftarrow \theta - \eta\,u$ | $\eta$ × gradient |
# | RMSprop | mean square $s$ | $s \leftarrow \alpha s + (1-\alpha)\,g^2$, $\;\theta \leftarrow \theta - \eta\,\frac{g}{\sqrt{s} + \epsilon}$ | $\eta$ |
# | Adam | means $m$, $v$ | $m \leftarrow \beta_1 m + (1-\beta_1)\,g$, $\;v \leftarrow \beta_2 v + (1-\beta_2)\,g^2$, $\;\theta \leftarrow \theta - \eta\,\frac{\hat m}{\sqrt{\hat v} + \epsilon}$ | $\eta$ |
# | AdamW | means $m$, $v$ | $\theta \leftarrow (1 - \eta\,\omega)\,\theta$, then Adam's step | $\eta$ |
#
# ($\hat m$ and $\hat v$ are $m$ and $v$ corrected for their start at 0; derived below.)
#
# The last column tells the two families apart. SGD's step is long where the gradient is large. RMSprop and Adam divide
# the gradient by its own typical size, so that $\eta$ is, roughly, *how far a parameter moves in one step*.
#
# ### How large may the learning rate be?
#
# Near a minimum at 0 the loss is $\frac12 x^\top H x$, with a symmetric matrix $H$, the **Hessian** (the second
# derivatives), and the gradient is $Hx$. Write $x$ in the directions of $H$'s eigenvectors: $H$ only multiplies each of
# them by its eigenvalue $\lambda$, so that the directions no longer know of each other. Along one of them, with error
# $e$, gradient descent does
# $$e \leftarrow e - \eta\lambda e = (1 - \eta\lambda)\,e.$$
# After $k$ steps $e$ has been multiplied by $(1-\eta\lambda)^k$. It shrinks if $|1 - \eta\lambda| < 1$, that is for
# $$0 < \eta < \frac{2}{\lambda}.$$
# All directions share one $\eta$, so the steepest sets the limit: $\eta < \frac{2}{\lambda_{\max}}$. The flattest
# then pays for it: with $\eta = \frac{1}{\lambda_{\max}}$ its factor is $1 - \frac{\lambda_{\min}}{\lambda_{\max}} =
# 1 - \frac{1}{\kappa}$. The quotient $\kappa = \frac{\lambda_{\max}}{\lambda_{\min}}$ is the **condition number**; to
# shrink the error by a factor of $e$ takes about $\kappa$ steps, since $(1 - \frac1\kappa)^\kappa \approx \frac1e$.
#
# ### Momentum
#
# $u_t = g_t + \mu\,g_{t-1} + \mu^2 g_{t-2} + \dots$: a sum of all gradients so far, the older the fainter. Two extremes
# say what it does. If all gradients are equal to $g$, the sum is $\frac{g}{1-\mu}$ (a geometric series): with
# $\mu = 0.9$ the step is **ten times** as long. If they alternate, $g, -g, g, \dots$, it is $\frac{g}{1+\mu}$ in size:
# about half. Long steps where gradients agree, short ones where they quarrel.
#
# The limit moves too. Along one eigenvector a step takes $(e, u)$ to $u' = \mu u + \lambda e$ and $e' = e - \eta u'$.
# Eliminate $u$: since $\eta u = e_{\text{before}} - e$,
# $$e' = (1 + \mu - \eta\lambda)\,e - \mu\,e_{\text{before}}.$$
# Try $e = z^k$: $z^2 - (1 + \mu - \eta\lambda)\,z + \mu = 0$. As $\eta$ grows, the first root to leave the unit
# circle does so at $z = -1$, swinging from side to side: the product of the roots is $\mu < 1$, so that a complex
# pair stays inside, and $z = 1$ would need $\eta\lambda = 0$. Put $z = -1$ in: $1 + (1 + \mu - \eta\lambda) + \mu =
# 0$, so the limit is
# $$\eta = \frac{2\,(1 + \mu)}{\lambda_{\max}}.$$
# With $\eta$ and $\mu$ at their best, the factor is $\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}$ per step where plain
# descent has $\frac{\kappa - 1}{\kappa + 1}$ (Polyak, 1964): some $\sqrt\kappa$ steps do what took $\kappa$. That is
# for a bowl and exact gradients; with noisy ones less is gained.
#
# *Two conventions.* Textbooks often write $u \leftarrow \mu u - \eta g$, $\theta \leftarrow \theta + u$. With a
# constant $\eta$ the path is the same. But there $u$ holds old learning rates: after a drop of $\eta$ the textbook
# form coasts on at the old speed, PyTorch's slows at once.
#
# ### A running mean, and its bias
#
# $m \leftarrow \beta m + (1-\beta)\,g$ is a running mean of the last $\frac{1}{1-\beta}$ gradients or so. Unroll it
# from $m_0 = 0$:
# $$m_t = (1-\beta)\sum_{k=1}^{t}\beta^{\,t-k} g_k.$$
# The weights sum to $(1-\beta)(1 + \beta + \dots + \beta^{t-1}) = 1 - \beta^t$. A mean's weights should sum to 1. So
# $m_t$ is too small by the factor $1 - \beta^t$: at $t = 1$ by 10 for $\beta = 0.9$, by 1000 for $\beta = 0.999$.
# Dividing by it repairs this exactly:
# $$\hat m_t = \frac{m_t}{1 - \beta_1^t}, \qquad \hat v_t = \frac{v_t}{1 - \beta_2^t}.$$
# Left alone, $m$ is too small by 10 and $\sqrt v$ by $\sqrt{1000} = 32$, so that the first step is 3.2 times too long.
#
# ### What Adam does with a gradient's size
#
# Multiply the loss by $c$. All gradients become $c$ times as large, $\hat m$ too, and $\sqrt{\hat v}$ too: the quotient
# stays. **Adam's path does not depend on the scale of the loss** (but for $\epsilon$), SGD's does. In the very first
# step $\hat m = g$ and $\hat v = g^2$: every parameter moves by $\eta$, whatever its gradient. Later the quotient is a
# measure of agreement: 1 if all gradients were equal, small if they cancel.
#
# What is gained in one sense is lost in another. SGD and momentum do not care how the axes are turned; RMSprop and Adam
# treat each parameter by itself, so that a valley along an axis and the same valley askew are different problems.
#
# ### Decay: in the gradient or beside it?
#
# A penalty $\frac{\omega}{2}\theta^2$ on the loss (an *L2 penalty*) adds $\omega\theta$ to the gradient. For SGD that is
# the same as shrinking: $\theta - \eta\,(g + \omega\theta) = (1 - \eta\omega)\,\theta - \eta g$. For Adam it is not:
# $\omega\theta$ goes into $\hat m$ and is divided by $\sqrt{\hat v}$, so that parameters with large gradients hardly
# decay. AdamW shrinks $\theta$ itself, and leaves $m$ and $v$ alone (Loshchilov and Hutter, 2019).
#
# ### Why a schedule?
#
# The gradient of a batch is the true one plus noise $\xi$ with variance $\sigma^2$. Along one eigenvector $e \leftarrow
# (1-\eta\lambda)\,e - \eta\,\xi$, so the variance $V$ of $e$ becomes $(1-\eta\lambda)^2 V + \eta^2\sigma^2$. It stands
# still where $V\,\big(1 - (1-\eta\lambda)^2\big) = \eta^2\sigma^2$, that is at
# $$V = \frac{\eta\,\sigma^2}{\lambda\,(2 - \eta\lambda)}.$$
# A constant learning rate does not converge: it ends up jittering, with a variance proportional to $\eta$ when $\eta$
# is small. A large $\eta$ at first (to get there), a small one at last (to stand still): that is a schedule.
# Measured:

# %% tags=["nbval-check-output"]
rng, curvature = np.random.default_rng(0), 10.0
for lr in (0.1, 0.01, 0.001):
    e, late = np.ones(2000), []  # 2000 walkers on the bowl 5 e²
    for k in range(2000):
        e = e - lr * (curvature * e + rng.standard_normal(2000))
        if k >= 1000:
            late.append((e**2).mean())
    predicted = lr / (curvature * (2 - lr * curvature))
    print(f"lr {lr}: predicted variance {predicted:.2g}, measured {np.mean(late):.2g}")

# %% [markdown]
# ## From scratch
#
# Five steps and three schedules. A rule for all the steps: **nothing is changed in place.** A step function gets the
# old parameter and the old state and returns new arrays; whoever calls it decides what to do with them. The checks play
# your function for up to 50 steps, each from the state that the one before it returned, and compare with what
# `torch.optim` makes of the same gradients, state included.

# %% [markdown] about="sgd_step"
# ### SGD
#
# `sgd_step(param, grad, lr) -> param`: arrays of one shape, any shape; `lr` a number.
#
# By hand: `param = [1, −2]`, `grad = [0.5, −4]`, `lr = 0.1`: `[1 − 0.05, −2 + 0.4] = [0.95, −1.6]`.
#
# ("S" is for *stochastic*: the gradient comes from a random batch. The step does not know.)

# %%
np.testing.assert_allclose(reference("sgd_step")(np.array([1.0, -2.0]), np.array([0.5, -4.0]), 0.1), [0.95, -1.6])


# %% exercise="sgd_step"
def sgd_step(param, grad, lr):
    """param (...), grad (...), lr -> param (...)"""
    ### BEGIN SOLUTION
    return param - lr * grad
    ### END SOLUTION


# %% check="sgd_step"
check(sgd_step)

# %% [markdown] about="momentum_step"
# ### Momentum
#
# `momentum_step(param, grad, velocity, lr, momentum=0.9) -> param, velocity`: PyTorch's convention, in which the
# velocity knows no learning rate. Before the first step it is zeros.
#
# By hand: `param = [1, −2]`, `grad = [0.5, −4]`, `velocity = [2, 0]`, `lr = 0.1`. The new velocity is `[0.9 · 2 + 0.5,
# 0 − 4] = [2.3, −4]`, and the new parameter `[1 − 0.23, −2 + 0.4] = [0.77, −1.6]`. The first entry goes further than
# its gradient says, since it was on its way already.

# %%
param, grad = np.array([1.0, -2.0]), np.array([0.5, -4.0])
moved, velocity = reference("momentum_step")(param, grad, np.array([2.0, 0.0]), 0.1)
np.testing.assert_allclose(moved, [0.77, -1.6])
np.testing.assert_allclose(velocity, [2.3, -4.0])


# %% exercise="momentum_step"
def momentum_step(param, grad, velocity, lr, momentum=0.9):
    """param (...), grad (...), velocity (...), lr, momentum -> param (...), velocity (...)"""
    ### BEGIN SOLUTION
    velocity = momentum * velocity + grad
    return param - lr * velocity, velocity
    ### END SOLUTION


# %% check="momentum_step"
check(momentum_step)

# %% [markdown]
# The two conventions, side by side, on $\frac12\theta^2$ from $\theta = 1$: six steps with lr 0.1, then the learning
# rate drops to 0.001. The textbook form runs on.


# %% tags=["nbval-check-output"]
def textbook_step(param, grad, velocity, lr, momentum=0.9):
    velocity = momentum * velocity - lr * grad
    return param + velocity, velocity


for k, lr in enumerate([0.1] * 6 + [0.001] * 3):
    if k == 0:
        (p, v), (q, u) = [(1.0, 0.0)] * 2
    (p, v), (q, u) = momentum_step(p, p, v, lr), textbook_step(q, q, u, lr)
    if k in (0, 4, 5, 6, 7, 8):
        print(f"step {k + 1}, lr {lr}: PyTorch's form {p:.4f}, the textbook's {q:.4f}")

# %% [markdown]
# The figure from the start, walked by your function. Find the limit for momentum 0.5 and for 0.9: is it
# $2\,(1+\mu)/\lambda_{\max}$?

# %%
widgets.optimisers.valley(momentum_step, reference, lr=0.1, momentum=0.8, condition=100, steps=60)

# %% [markdown] about="rmsprop_step"
# ### RMSprop
#
# `rmsprop_step(param, grad, sq, lr, alpha=0.99, eps=1e-8) -> param, sq`: `sq` is the running mean of the squared
# gradient, zeros before the first step. `eps` is added **after** the root, as in PyTorch.
#
# By hand: `param = [1, 1]`, `grad = [1, 10]`, `sq = [4, 0]`, `lr = 0.1`. New `sq`: `[0.99 · 4 + 0.01 · 1, 0.01 · 100] =
# [3.97, 1]`, its roots `[1.992, 1]`, the steps `0.1 · [1/1.992, 10/1] = [0.050, 1]`, so `param = [0.950, 0]`.
#
# Look at the second entry: it had no history, so that the root was 10 times too small and the step 10 times too long.
# There is no bias correction in RMSprop.

# %%
moved, sq = reference("rmsprop_step")(np.ones(2), np.array([1.0, 10.0]), np.array([4.0, 0.0]), 0.1)
np.testing.assert_allclose(moved, [0.9498, 0.0], atol=1e-4)
np.testing.assert_allclose(sq, [3.97, 1.0])


# %% exercise="rmsprop_step"
def rmsprop_step(param, grad, sq, lr, alpha=0.99, eps=1e-8):
    """param (...), grad (...), sq (...), lr, alpha, eps -> param (...), sq (...)"""
    ### BEGIN SOLUTION
    sq = alpha * sq + (1 - alpha) * grad**2
    return param - lr * grad / (np.sqrt(sq) + eps), sq
    ### END SOLUTION


# %% check="rmsprop_step"
check(rmsprop_step)

# %% [markdown]
# ### Before you write Adam

# %%
widgets.optimisers.guess_first_move()

# %% [markdown] about="adam_step"
# ### Adam
#
# `adam_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8) -> param, m, v`: `t` is the number of this step,
# **1 for the first**; `m` and `v` are zeros before it. What is returned are the plain running means, not the corrected
# ones. `eps` is added to the root of the *corrected* $\hat v$.
#
# By hand, first step: `param = [1, 1]`, `grad = [4, −0.01]`, `lr = 0.1`. `m = [0.4, −0.001]`, `v = [0.016, 1e-7]`.
# Corrected, `m̂ = m / 0.1 = [4, −0.01]` and `v̂ = v / 0.001 = [16, 0.0001]`. The quotients are `[1, −1]`: `param =
# [0.9, 1.1]`.
#
# Second step, `grad = [4, 0.01]`: `m = [0.76, 0.0001]`, over $1 - 0.9^2 = 0.19$: `[4, 0.00053]`. `v̂` is `[16, 0.0001]`
# again. The quotients are `[1, 0.053]`, `param = [0.8, 1.0947]`: gradients that agree make a full step, gradients that
# cancel make none.

# %%
param, m, v = np.ones(2), np.zeros(2), np.zeros(2)
for t, grad in enumerate(([4.0, -0.01], [4.0, 0.01]), 1):
    param, m, v = reference("adam_step")(param, np.array(grad), m, v, t, 0.1)
np.testing.assert_allclose(param, [0.8, 1.0947], atol=1e-4)
np.testing.assert_allclose(m, [0.76, 0.0001], atol=1e-8)


# %% exercise="adam_step"
def adam_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    """param (...), grad (...), m (...), v (...), t, lr, betas, eps -> param (...), m (...), v (...)"""
    ### BEGIN SOLUTION
    m = betas[0] * m + (1 - betas[0]) * grad
    v = betas[1] * v + (1 - betas[1]) * grad**2
    m_hat = m / (1 - betas[0] ** t)
    v_hat = v / (1 - betas[1] ** t)
    return param - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    ### END SOLUTION


# %% check="adam_step"
check(adam_step)

# %% [markdown]
# One parameter and the gradients it gets, seen through your Adam. Which of the four lives makes the longest moves? Does
# the size of the gradients matter, and from which power of ten on does it? What does $\beta_2 = 0.9$ do to a *rare*
# gradient?

# %%
widgets.optimisers.stream(adam_step, reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - *Constant* gradients: one learning rate per step, always. *Noisy* ones: less, and the less they agree the less.
#   *Alternating* ones: hardly any.
# - The size does not matter, until it comes near $\epsilon = 10^{-8}$: at $10^{-7}$ the move is 0.91, at $10^{-8}$ half
#   a learning rate. Whoever has a very small loss, or a larger `eps`, meets this.
# - A parameter with a gradient in one step of thirty (the row of a rare word) moves by half a learning rate when it
#   comes, and goes on moving while $m$ fades. With $\beta_2 = 0.9$ the moves start lower, 0.38, but fade more slowly:
#   $\sqrt{\hat v}$ now fades beside $\hat m$.
# - Without bias correction (dashed) the first moves are several times too long.
#
# </details>

# %% [markdown] about="adamw_step"
# ### AdamW
#
# `adamw_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01) -> param, m, v`: first the
# parameter shrinks by the share `lr · weight_decay`, then Adam's step is taken from there. `m` and `v` are Adam's, to
# the last digit.
#
# By hand, first step: `param = 2`, `grad = 7`, `lr = 0.1`, `weight_decay = 0.5`. Shrink: `2 · (1 − 0.05) = 1.9`. Adam's
# first step is `lr`: `1.9 − 0.1 = 1.8`.

# %%
start = np.array([2.0]), np.array([7.0]), np.zeros(1), np.zeros(1)
np.testing.assert_allclose(reference("adamw_step")(*start, 1, 0.1, weight_decay=0.5)[0], [1.8])


# %% exercise="adamw_step"
def adamw_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    """param (...), grad (...), m (...), v (...), t, lr, betas, eps, weight_decay -> param (...), m (...), v (...)"""
    ### BEGIN SOLUTION
    m = betas[0] * m + (1 - betas[0]) * grad
    v = betas[1] * v + (1 - betas[1]) * grad**2
    m_hat = m / (1 - betas[0] ** t)
    v_hat = v / (1 - betas[1] ** t)
    return (1 - lr * weight_decay) * param - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    ### END SOLUTION


# %% check="adamw_step"
check(adamw_step)

# %% [markdown]
# ### The race
#
# Your four functions, on surfaces whose shape is known. Each optimiser starts with the learning rate that was best for
# it on that surface (the smallest average logarithm of the loss over 100 steps, among 19 from 0.0001 to 3.2; momentum
# and β1 0.9). *Rosenbrock* (1960) is a valley that bends; at its bottom it is 2500 times as steep across as along. Move
# the steps with the arrow keys. The table traces one optimiser, number by number.
#
# - *Valley*, then *valley, turned*. Whose curve stays the same to the last digit, whose does not?
# - Double all learning rates, once and twice. Who diverges first?
# - Trace Adam on *Rosenbrock*, steps 1, 2, 3: how long are its moves, in units of lr?

# %%
widgets.optimisers.race(sgd_step, momentum_step, rmsprop_step, adam_step, reference)

# %% [markdown]
# <details><summary>What there was to see</summary>
#
# - SGD and momentum: the same loss at every step, only the picture turns. RMSprop is unbeatable in the straight valley
#   (after 40 steps $10^{-32}$: dividing each direction by the size of its own gradients removes the condition number)
#   and ordinary in the turned one. A test problem that lies along the axes flatters RMSprop and Adam.
# - SGD: in the valley its best learning rate, 0.18, is just below the limit of 0.2, and twice that is beyond it. The
#   optimisers that divide by the gradient's size cannot run away like this: their moves are of the order of lr.
# - 1 lr in the first step, in both entries; then less where the gradients disagree.
# - RMSprop's first move, with $\alpha = 0.99$, is 10 lr: on Rosenbrock a leap across the picture. That it lands well is
#   luck: with half or twice the learning rate the loss after 100 steps is more than a thousand times as large.
#
# </details>

# %% [markdown] about="step_lr"
# ### Schedules: a staircase
#
# A schedule gives the learning rate of each step; steps count from 0. `step_lr(step, lr, step_size, gamma=0.1) -> lr`:
# the first `step_size` steps get `lr`, the next `step_size` get `lr · gamma`, and so on.
#
# By hand, `lr = 0.1`, `step_size = 30`: steps 0 to 29 get 0.1, steps 30 to 59 get 0.01, step 65 gets 0.001.


# %% exercise="step_lr"
def step_lr(step, lr, step_size, gamma=0.1):
    """step, lr, step_size, gamma -> lr"""
    ### BEGIN SOLUTION
    return lr * gamma ** (step // step_size)
    ### END SOLUTION


# %% check="step_lr"
check(step_lr)

# %% [markdown] about="cosine_lr"
# ### Schedules: half a cosine wave
#
# `cosine_lr(step, lr, total_steps, min_lr=0.0) -> lr`: `lr` at step 0, `min_lr` at step `total_steps`, and half a wave
# of the cosine between the two, flat at both ends. **From `total_steps` on it stays at `min_lr`.**
#
# By hand, `lr = 0.1`, `total_steps = 100`, `min_lr = 0.02`: step 25 is an eighth of a turn, $\cos 45° = 0.707$, so
# $0.02 + 0.08 \cdot \frac{1 + 0.707}{2} = 0.0883$. Step 50: halfway, 0.06. Step 100: 0.02. Step 300: 0.02.

# %%
by_hand = {0: 0.1, 25: 0.0883, 50: 0.06, 100: 0.02, 300: 0.02}
for step, lr in by_hand.items():
    np.testing.assert_allclose(reference("cosine_lr")(step, 0.1, 100, min_lr=0.02), lr, atol=1e-4)


# %% exercise="cosine_lr"
def cosine_lr(step, lr, total_steps, min_lr=0.0):
    """step, lr, total_steps, min_lr -> lr"""
    ### BEGIN SOLUTION
    done = min(step / total_steps, 1)
    return min_lr + (lr - min_lr) * (1 + np.cos(np.pi * done)) / 2
    ### END SOLUTION


# %% check="cosine_lr"
check(cosine_lr)

# %% [markdown] about="warmup_cosine_lr"
# ### Schedules: warm-up, then the cosine
#
# `warmup_cosine_lr(step, lr, total_steps, warmup_steps, min_lr=0.0) -> lr`: for the first `warmup_steps` steps a
# straight line upwards, `lr · (step + 1) / (warmup_steps + 1)`; the full `lr` comes at step `warmup_steps`, where the
# cosine begins. It ends at `min_lr` at step `total_steps` and stays there. A warm-up of 0 steps is the cosine alone.
# `warmup_steps` is less than `total_steps`.
#
# By hand, `lr = 0.1`, `total_steps = 100`, `warmup_steps = 4`: steps 0 to 3 get 0.02, 0.04, 0.06, 0.08; step 4 gets
# 0.1; the cosine takes the remaining 96 steps, so that step 52 is halfway: 0.05. With `warmup_steps = 1`, step 0 gets
# 0.05.

# %%
by_hand = {0: 0.02, 3: 0.08, 4: 0.1, 52: 0.05, 100: 0.0}
for step, lr in by_hand.items():
    np.testing.assert_allclose(reference("warmup_cosine_lr")(step, 0.1, 100, 4), lr, atol=1e-9)


# %% exercise="warmup_cosine_lr"
def warmup_cosine_lr(step, lr, total_steps, warmup_steps, min_lr=0.0):
    """step, lr, total_steps, warmup_steps, min_lr -> lr"""
    ### BEGIN SOLUTION
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    return cosine_lr(step - warmup_steps, lr, total_steps - warmup_steps, min_lr)
    ### END SOLUTION


# %% check="warmup_cosine_lr"
check(warmup_cosine_lr)

# %% [markdown]
# Your three schedules, drawn. (The staircase halves here: `gamma=0.5`.) What do a warm-up of 0 and one of 40 do to the
# green curve's end?

# %%
widgets.optimisers.schedules(step_lr, cosine_lr, warmup_cosine_lr, reference)

# %% [markdown]
# ## Against a reference
#
# Fifty steps of the real `torch.optim`, from the same start, with the same gradients; and fifty of yours. Not only the
# parameters must agree, the state must too. Half of the gradients are made a million times smaller, so that a misplaced
# `eps` would show.

# %%
rng = np.random.default_rng(0)
start, grads = rng.normal(size=(3, 4)), rng.normal(size=(50, 3, 4))
grads[:, :, ::2] *= 1e-6
mine_and_torch = {
    "SGD": (torch.optim.SGD, {"lr": 0.05}, (), lambda p, g, s, t: (sgd_step(p, g, 0.05),)),
    "momentum": (
        torch.optim.SGD,
        {"lr": 0.02, "momentum": 0.9},
        ("momentum_buffer",),
        lambda p, g, s, t: momentum_step(p, g, *s, 0.02),
    ),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.03}, ("square_avg",), lambda p, g, s, t: rmsprop_step(p, g, *s, 0.03)),
    "Adam": (torch.optim.Adam, {"lr": 0.1}, ("exp_avg", "exp_avg_sq"), lambda p, g, s, t: adam_step(p, g, *s, t, 0.1)),
    "AdamW": (
        torch.optim.AdamW,
        {"lr": 0.1, "weight_decay": 0.1},
        ("exp_avg", "exp_avg_sq"),
        lambda p, g, s, t: adamw_step(p, g, *s, t, 0.1, weight_decay=0.1),
    ),
}


# %%
def side_by_side(kind, settings, names, step):
    """50 steps of PyTorch's optimiser and of yours: both paths (51, 3, 4), and the final states."""
    theirs = nn.Parameter(torch.tensor(start))
    optimiser = kind([theirs], **settings)
    ours, state = start, [np.zeros_like(start) for _ in names]
    paths = [(start, start)]
    for t, grad in enumerate(grads, 1):
        theirs.grad = torch.tensor(grad)
        optimiser.step()
        ours, *state = step(ours, grad, state, t)
        paths.append((ours, theirs.detach().numpy().copy()))
    kept = [optimiser.state[theirs][name].numpy() for name in names]
    return np.array([path[0] for path in paths]), np.array([path[1] for path in paths]), state, kept


# %% tags=["nbval-check-output"]
paths = {}
for name, setting in mine_and_torch.items():
    ours, theirs, state, kept = side_by_side(*setting)
    paths[name] = ours, theirs
    gap = max(np.abs(a - b).max() for a, b in [(ours, theirs), *zip(state, kept, strict=True)])
    print(f"{name:<8} largest difference over 50 steps, state included: {'< 1e-12' if gap < 1e-12 else gap}")

# %%
fig, axes = plots.figure(8, 2.4, 3)
for ax, name in zip(axes, ("momentum", "RMSprop", "Adam"), strict=True):
    ours, theirs = paths[name]
    ax.plot(theirs[:, 0], color="#bbbbbb", lw=4)
    ax.plot(ours[:, 0], lw=1.2, color=widgets.optimisers.INK[name])
    ax.set(title=name, xlabel="step", ylim=(-3, 3))
plots.show(
    fig,
    alt="Three panels, four parameters each over 50 steps: your thin line runs inside PyTorch's thick one in all.",
    caption="Yours (thin) inside PyTorch's (thick grey). Two of the four parameters get gradients a million times "
    "smaller: under momentum they stand still, under RMSprop and Adam they move like the others.",
)

# %% [markdown]
# A second witness knows no PyTorch: the derivation. It says at which learning rate momentum descent stops converging.
# Halve the interval between a learning rate that converges and one that does not, twelve times, with your function:


# %% tags=["nbval-check-output"]
def converges(lr, momentum, hessian):
    x, velocity = np.ones(len(hessian)), np.zeros(len(hessian))
    for _ in range(4000):
        x, velocity = momentum_step(x, hessian @ x, velocity, lr, momentum)
        if not np.abs(x).max() < 1e6:
            return False
    return np.abs(x).max() < 1


hessian = np.array([[3.0, 1.0], [1.0, 3.0]])  # eigenvalues 4 and 2
for momentum in (0.0, 0.5, 0.9):
    low, high = 0.01, 10.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if converges(middle, momentum, hessian) else (low, middle)
    print(f"momentum {momentum}: predicted {2 * (1 + momentum) / 4:.3f}, measured {low:.2f}")

# %% [markdown]
# What a check says of an Adam whose decay went into the gradient:


# %% tags=["nbval-check-output"]
def penalised_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    return adam_step(param, grad + weight_decay * param, m, v, t, lr, betas, eps)


print(examine(penalised_step, "adamw_step").mistake)

# %% [markdown]
# ## In PyTorch
#
# | you built | PyTorch | mind |
# |---|---|---|
# | `sgd_step`, `momentum_step` | `torch.optim.SGD(params, lr, momentum=0)` | the first velocity is the first gradient: the same as starting from zeros, unless `dampening` is set |
# | `rmsprop_step` | `torch.optim.RMSprop` | `alpha=0.99`; Keras calls it `rho` and takes 0.9 |
# | `adam_step` | `torch.optim.Adam` | its `weight_decay` is the L2 penalty in the gradient |
# | `adamw_step` | `torch.optim.AdamW` | decays by `lr · weight_decay`, so that a schedule moves the decay too |
# | `step_lr` | `lr_scheduler.StepLR` | call `scheduler.step()` after `optimizer.step()` |
# | `cosine_lr` | `lr_scheduler.CosineAnnealingLR` | climbs again after `T_max` |
# | `warmup_cosine_lr` | `LinearLR`, then `CosineAnnealingLR`, in a `SequentialLR` | – |
#
# PyTorch's optimisers change the parameters **in place**, because the layers hold those very tensors; a new tensor
# would be a new tensor, and the network would keep the old one. Some claims of the table, verified:

# %%
scheduler_of = torch.optim.lr_scheduler


def rates_of(build, steps):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, found = build(optimiser), []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return np.array(found)


def warm(optimiser):
    line = scheduler_of.LinearLR(optimiser, start_factor=1 / 11, total_iters=10)
    wave = scheduler_of.CosineAnnealingLR(optimiser, T_max=90)
    return scheduler_of.SequentialLR(optimiser, [line, wave], milestones=[10])


# %% tags=["nbval-check-output"]
cosine = rates_of(lambda optimiser: scheduler_of.CosineAnnealingLR(optimiser, T_max=100), 201)
facts = {
    "step_lr is StepLR": (
        rates_of(lambda optimiser: scheduler_of.StepLR(optimiser, 30), 200),
        [step_lr(k, 0.1, 30) for k in range(200)],
    ),
    "cosine_lr is CosineAnnealingLR up to T_max": (cosine[:101], [cosine_lr(k, 0.1, 100) for k in range(101)]),
    "which is back at the full rate after 2 T_max": (cosine[200], 0.1),
    "warmup_cosine_lr is LinearLR, then CosineAnnealingLR": (
        rates_of(warm, 100),
        [warmup_cosine_lr(k, 0.1, 100, 10) for k in range(100)],
    ),
}
for fact, (left, right) in facts.items():
    print("right" if np.allclose(left, right, atol=1e-9) else "WRONG", "·", fact)

# %% [markdown] about="layer_groups"
# ### Learning rates per layer
#
# An optimiser takes, in place of a list of parameters, a list of **parameter groups**: dictionaries with the key
# `"params"` and settings of their own. When a trained network is tuned to a new task, the first layers (edges, strokes)
# are often worth keeping and the last one is not, so that the first layers get smaller learning rates (*discriminative
# fine-tuning*: Howard and Ruder, 2018).
#
# `layer_groups(model, lr, factor) -> groups`: `model` is an `nn.Sequential` of plain layers, some of which (ReLU) have
# no parameters. The last layer **that has parameters** gets `lr`, the one before it `lr · factor`, the one before that
# `lr · factor²`, and so on. Each dictionary holds a layer's parameters, weight and bias, as a list, and its `"lr"`; the
# order of the groups does not matter.
#
# By hand: `nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))` with `lr = 0.1`,
# `factor = 0.5`: three groups, with learning rates 0.025, 0.05 and 0.1.


# %% exercise="layer_groups"
def layer_groups(model, lr, factor):
    """model, lr, factor -> groups: a list of {"params": [...], "lr": ...}"""
    ### BEGIN SOLUTION
    layers = [layer for layer in model if list(layer.parameters())]
    return [
        {"params": list(layer.parameters()), "lr": lr * factor ** (len(layers) - 1 - k)}
        for k, layer in enumerate(layers)
    ]
    ### END SOLUTION


# %% check="layer_groups"
check(layer_groups)

# %% [markdown] about="AdamW"
# ### AdamW as a torch.optim.Optimizer
#
# The base class keeps the groups (`self.param_groups`), a dictionary of state for each parameter (`self.state[p]`), and
# knows `zero_grad`, `state_dict` and `load_state_dict`. You write two methods:
#
# - `__init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)` calls
#   `super().__init__(params, defaults)` with a dictionary of the four settings;
# - `step(self)` moves every parameter whose `.grad` is not `None`, in place and under `@torch.no_grad()`, with the
#   settings of its group *as they are now*. A parameter without a gradient is left alone, decay included. `t` counts
#   the steps of each parameter for itself, and lives in `self.state[p]` beside `m` and `v`.
#
# The numbers are those of `adamw_step`: a parameter 2 with gradient 7, `lr=0.1`, `weight_decay=0.5` is 1.8 after one
# step. Extending `torch.optim.AdamW` would defeat the purpose.


# %% exercise="AdamW"
class AdamW(torch.optim.Optimizer):
    """params, lr, betas, eps, weight_decay

    Two methods: __init__ hands parameters and defaults to the base class, step(self) moves the parameters.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        ### BEGIN SOLUTION
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p] or {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
                t = state["t"] + 1
                m = beta1 * state["m"] + (1 - beta1) * p.grad
                v = beta2 * state["v"] + (1 - beta2) * p.grad**2
                self.state[p] = {"t": t, "m": m, "v": v}
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + group["eps"]))
        ### END SOLUTION

# %% check="AdamW"
check(AdamW)

# %% [markdown]
# ### Your groups and your optimiser at work
#
# A network is trained on 1437 digits, then given a new task with only 60 labelled examples. Two kinds of new task: in
# one the **names** change (every digit gets another label; the pictures are the same), in the other the **pictures**
# change (they are turned by 90°; the names are the same). Which wants the first layers left alone?

# %%
digits = data.digits()
turned = [np.rot90(x.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64).copy() for x in (digits.x_train, digits.x_test)]
names = np.array([3, 7, 0, 9, 1, 8, 2, 5, 6, 4])  # the new name of each digit
tasks = {
    "new names": (digits.x_train, names[digits.y_train], digits.x_test, names[digits.y_test]),
    "turned pictures": (turned[0], digits.y_train, turned[1], digits.y_test),
}


def tune(model, x, t, groups, steps, batch):
    optimiser = AdamW(groups, weight_decay=0.0)
    for _ in range(3 if plots.fast() else steps):
        rows = torch.randint(len(x), (batch,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), t[rows]).backward()
        optimiser.step()
    return model


# %%
factors, lrs, seeds = (1, 0.3, 0.1, 0), (0.01, 0.03, 0.1), range(3)
results = {task: np.zeros((len(seeds), len(factors), len(lrs))) for task in tasks}
for seed in seeds:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)).double()
    old = torch.tensor(digits.x_train), torch.tensor(digits.y_train)
    learned = {k: v.clone() for k, v in tune(model, *old, layer_groups(model, 0.01, 1), 200, 64).state_dict().items()}
    for task, arrays in tasks.items():
        x, t, x_test, t_test = (torch.tensor(array) for array in arrays)
        for k, j in np.ndindex(len(factors), len(lrs)):
            torch.manual_seed(seed)
            model.load_state_dict(learned)
            tune(model, x[:60], t[:60], layer_groups(model, lrs[j], factors[k]), 100, 32)
            results[task][seed, k, j] = (model(x_test).argmax(1) == t_test).double().mean()
best = {}  # each factor with the learning rate that is best for it
for task, found in results.items():
    at = found.mean(axis=0).argmax(axis=1)
    best[task] = found[:, range(len(factors)), at]
    said = ", ".join(f"{f} {right:.2f}" for f, right in zip(factors, best[task].mean(axis=0), strict=True))
    print(f"{task}: accuracy for factor {said}")

# %%
plots.show(
    widgets.optimisers.transfers(factors, best),
    alt="New names: accuracy is high for small factors. Turned pictures: it falls as the factor gets smaller.",
    caption="Test accuracy after 100 steps on 60 examples, each factor with the best of three learning rates; bars "
    "span three seeds. Factor 1: one learning rate for all layers. Factor 0: only the last layer learns.",
)

# %% [markdown]
# New names: the first layers' work is still right, 60 examples are too few to improve it, and the smaller the factor
# the better. Turned pictures: the strokes lie in other pixels, and whoever holds the first layers back is left with
# features that do not fit. A factor below 1 is no trick that always helps; it says *I believe the early layers are
# right*.

# %% [markdown]
# ## At work
#
# Your optimisers train your layers from lesson 04. The step functions return new arrays; the layers hold their own. So
# the loop writes into them: `p[...] = new`.

# %%
LinearLayer, ReLULayer, Sequential = map(mine, ("LinearLayer", "ReLULayer", "Sequential"))
cross_entropy_forward, cross_entropy_backward = mine("cross_entropy_forward"), mine("cross_entropy_backward")
he_normal = mine("he_normal")


def network(rng):
    """64 → 32 → 10."""
    w1, w2 = he_normal((32, 64), rng), he_normal((10, 32), rng)
    return Sequential([LinearLayer(w1, np.zeros(32)), ReLULayer(), LinearLayer(w2, np.zeros(10))])


# %%
rng = np.random.default_rng(0)
model, epochs = network(rng), 3 if plots.fast() else 20
total, t = 23 * epochs, 0
state = [(np.zeros_like(p), np.zeros_like(p)) for p in model.parameters()]
means = []  # of the first layer's gradients, one pair for each epoch: looked at below
with plots.Training(epochs, "train loss", "test accuracy") as run:
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(digits.x_train)), 23):
            logits = model.forward(digits.x_train[batch])
            model.backward(cross_entropy_backward(1.0, logits, digits.y_train[batch]))
            lr, t = warmup_cosine_lr(t, 0.03, total, warmup_steps=23), t + 1
            for k, (p, grad) in enumerate(zip(model.parameters(), model.gradients(), strict=True)):
                p[...], *state[k] = adamw_step(p, grad, *state[k], t, lr)
        means.append((state[0][0] / (1 - 0.9**t), state[0][1] / (1 - 0.999**t)))
        loss = cross_entropy_forward(model.forward(digits.x_train), digits.y_train)
        run.log(loss, (model.forward(digits.x_test).argmax(1) == digits.y_test).mean())

# %% [markdown]
# ### A fair comparison
#
# "Adam is better than SGD" means nothing until the learning rates are named: each optimiser has its own scale, and at
# the other's best rate either one fails. So: the same eight learning rates for each, five seeds for each, the same
# budget (100 steps of 64 digits), and for one seed the same initial weights and the same batches. The network above
# is trained 160 times now and therefore written flat.


# %%
def flat(params, x):
    w1, b1, w2, b2 = params
    h = np.maximum(x @ w1.T + b1, 0)
    return h, h @ w2.T + b2


def gradients(params, x, t):
    h, logits = flat(params, x)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    dlogits = (p / p.sum(axis=1, keepdims=True) - np.eye(10)[t]) / len(t)  # lesson 03
    dh = dlogits @ params[2] * (h > 0)
    return dh.T @ x, dh.sum(axis=0), dlogits.T @ h, dlogits.sum(axis=0)


model.backward(cross_entropy_backward(1.0, model.forward(digits.x_test), digits.y_test))
written_flat = gradients(model.parameters(), digits.x_test, digits.y_test)
for one, other in zip(written_flat, model.gradients(), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-12)

# %%
optimisers = {  # how many arrays of state each keeps; its step
    "SGD": (0, lambda p, g, s, t, lr: (sgd_step(p, g, lr),)),
    "momentum": (1, lambda p, g, s, t, lr: momentum_step(p, g, *s, lr)),
    "RMSprop": (1, lambda p, g, s, t, lr: rmsprop_step(p, g, *s, lr)),
    "Adam": (2, lambda p, g, s, t, lr: adam_step(p, g, *s, t, lr)),
}


def trained(name, rate_of, seed, x, steps=100, batch=64):
    """Test accuracy and training loss of the network after `steps`; rate_of(step) is the learning rate."""
    rng, (kept, step) = np.random.default_rng(seed), optimisers[name]
    params = [p.copy() for p in network(rng).parameters()]
    state = [[np.zeros_like(p) for _ in range(kept)] for p in params]
    for k in range(5 if plots.fast() else steps):
        rows = rng.integers(0, len(digits.x_train), batch)
        for i, grad in enumerate(gradients(params, x[0][rows], digits.y_train[rows])):
            params[i], *state[i] = step(params[i], grad, state[i], k + 1, rate_of(k))
    loss = cross_entropy_forward(flat(params, x[0])[1], digits.y_train)
    return (flat(params, x[1])[1].argmax(axis=1) == digits.y_test).mean(), loss


# %%
def grid_of(names, x):
    """Every optimiser at every learning rate: test accuracies (5 seeds, rates)."""
    with np.errstate(all="ignore"):  # some will diverge, and are meant to
        return {
            name: np.array([[trained(name, lambda k, lr=lr: lr, seed, x)[0] for lr in rates] for seed in range(5)])
            for name in names
        }


rates = 10.0 ** np.arange(-3, 0.6, 0.5)
plain = grid_of(optimisers, (digits.x_train, digits.x_test))


# %%
def tell(results):
    for name, found in results.items():
        at = found.mean(axis=0).argmax()
        least, mean, most = (f(found[:, at]) for f in (np.min, np.mean, np.max))
        print(f"{name:<8} best at lr {rates[at]:<6.2g} test accuracy {mean:.3f} ({least:.3f} to {most:.3f})")


tell(plain)

# %% [markdown]
# And once more on a problem that is the same, but scaled badly: every pixel is measured in a unit of its own, between
# 0.01 and 1 (a table of age in years and income in euros is no better).

# %%
units = 10.0 ** np.random.default_rng(1).uniform(-2, 0, 64)
scaled = grid_of(("SGD", "Adam"), (digits.x_train * units, digits.x_test * units))
tell(scaled)

plots.show(
    widgets.optimisers.tuning(
        rates, {"the digits: test accuracy": plain, "each pixel in a unit of its own: test accuracy": scaled}
    ),
    alt="Left, four curves of equal height, whose peaks lie at different learning rates. Right, Adam's curve is "
    "much higher than that of SGD.",
    caption="After 100 steps; bars span five seeds. Tuned, the four are close on the digits, with peaks up to 300 "
    "times apart. Where the pixels come in different units, SGD is left behind.",
)

# %% [markdown]
# Read it fairly. On the digits as they are, the best of each lie within two points of one another, and the seeds of
# momentum, RMSprop and Adam overlap: this experiment does not rank these three. Plain SGD is a little behind after
# 100 steps. What differs is *where* the peak is. Momentum's is at a tenth of SGD's learning rate, as $\frac{1}{1-\mu} =
# 10$ says. Whoever compares at lr 0.003 alone will report that RMSprop beats SGD by far; whoever compares at 1, the
# reverse.
#
# With pixels in units of their own, the best learning rate for the brightest input is far too small for the dimmest.
# Adam hardly notices, since each weight has its own $\sqrt{\hat v}$. This is what adaptive steps are good for: layers,
# rows and inputs whose gradients differ in size. (Scaling the inputs would have done it too. Lesson
# 08 scales inside the network.)
#
# And what it does not show: one small network, one set of data, 100 steps; a grid in steps of $\sqrt{10}$; and the best
# learning rate was chosen on the very digits that are reported, which flatters everybody.

# %% [markdown]
# ### Schedules at work
#
# The variance $V$ of the derivation, in a network: batches of 4 digits, so that the gradients are noisy, plain SGD, 400
# steps, five seeds.


# %%
def report(rates_of, steps, batch):
    for name, rate_of in rates_of.items():
        found = np.array([trained("SGD", rate_of, k, (digits.x_train, digits.x_test), steps, batch) for k in range(5)])
        (right, loss), worst = found.mean(axis=0), found[:, 0].min()
        print(f"{name:<20} train loss {loss:.2f}   test accuracy {right:.3f} on average, {worst:.3f} at worst")


schedules = {
    "constant 0.3": lambda k: 0.3,
    "constant 0.03": lambda k: 0.03,
    "0.3, staircase": lambda k: step_lr(k, 0.3, 200),
    "0.3, cosine": lambda k: cosine_lr(k, 0.3, 400),
    "0.3, warm-up, cosine": lambda k: warmup_cosine_lr(k, 0.3, 400, 80),
}
report(schedules, 400, batch=4)

# %% [markdown]
# A rate of 0.3 gets there and jitters; a tenth of it does not jitter and is not there yet. Every schedule beats both,
# with the same peak and the same number of steps. The three schedules themselves are not told apart by five seeds,
# and the warm-up does nothing for this run.
#
# What the warm-up is for shows where the learning rate is too large for the start: batches of 64, and a peak of 2.

# %%
schedules = {
    "0.2, cosine": lambda k: cosine_lr(k, 0.2, 400),
    "2, cosine": lambda k: cosine_lr(k, 2.0, 400),
    "2, warm-up, cosine": lambda k: warmup_cosine_lr(k, 2.0, 400, 80),
}
report(schedules, 400, batch=64)
# %% [markdown]
# At a peak of 2 the cosine alone learns next to nothing (guessing gives 0.1): the first steps throw the network to
# where it learns no more. With a warm-up the runs learn, though some of them little. But at a peak of 0.2 no warm-up
# is needed, and the result is better than either. Warm-up widens the range of learning rates that work; by itself it
# is no gain.

# %% [markdown]
# ## Look inside
#
# ### A learning rate for every pixel
#
# The run of AdamW above kept $\hat m$ and $\hat v$ of the first layer after each epoch. Averaged over the 32 units,
# they have one value per pixel: how large its gradients are, what Adam multiplies them by, and how much they agree.
# Move the epoch. Why do the moves get shorter although $1 / \sqrt{\hat v}$ grows?

# %%
m, v = (np.array([pair[k] for pair in means]) for k in (0, 1))
widgets.optimisers.effective(digits.x_train.reshape(-1, 8, 8), m, v)

# %% [markdown]
# The gradients shrink as the loss falls, so that $1/\sqrt{\hat v}$ grows, to more than twice what it was. But what is
# left of them is mostly noise, which $\hat m$ averages away: $|\hat m| / \sqrt{\hat v}$ falls from 0.31 after the
# first epoch to 0.03 after the last. Adam slows down by itself where gradients no longer agree. From pixel to pixel
# the factor differs several hundred times: pixels at the rim, which few digits touch, get the largest.

# %% [markdown]
# ### Blind to scale
#
# Multiply the loss by 1000 (a sum in place of a mean does that): 100 steps on *Rosenbrock*, with the learning rates of
# the race. Whose path changes?

# %% tags=["nbval-check-output"]
gradient = widgets.optimisers.gradient_on("Rosenbrock")
for name, (kept, step) in optimisers.items():
    ends = []
    for scale in (1, 1000):
        point, state = np.array([-1.2, 1.0]), [np.zeros(2)] * kept
        lr = widgets.optimisers.RATES["Rosenbrock"][name]
        with np.errstate(all="ignore"):
            for t in range(1, 101):
                point, *state = step(point, scale * gradient(point), state, t, lr)
        ends.append(point)
    gap = np.abs(ends[0] - ends[1]).max()
    print(f"{name:<8} loss times 1000:", "the same end to 6 digits" if gap < 1e-6 else "another path, or none")

# %% [markdown]
# ### Two decays
#
# Seventeen kinds of parameters, all starting at 1, get nothing but noise for a gradient, from 0.001 to 10 in size. All
# are meant to decay alike. Your `adam_step` gets `grad + weight_decay · param`; your `adamw_step` gets the plain
# gradient and decays by itself.

# %%
widgets.optimisers.decays(adam_step, adamw_step, reference)

# %% [markdown]
# With the decay in the gradient, small-gradient parameters are pulled to 0 at 0.02 per step, the learning rate (there
# the penalty *is* the gradient, and Adam gives it a full step of lr), and large-gradient parameters hardly decay: the
# penalty is divided by their $\sqrt{\hat v}$. AdamW shrinks all alike, as the dashed line says. Loshchilov and Hutter
# (2019) found that this made Adam generalise better on image classification, and that learning rate and decay could
# then be tuned separately. The name is a trap: PyTorch's `Adam(weight_decay=…)` is the L2 penalty,
# `AdamW(weight_decay=…)` the decay.

# %% [markdown]
# ## Repair, predict, and what goes wrong
#
# One broken optimiser of a kind that real code has, and two numbers to predict.

# %% [markdown] about="repair_adam_step"
# ### Repair: an Adam that falls asleep
#
# `repair_adam_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8) -> param, m, v`. The formulas are those of
# Adam, in their order, and the first step from zeros is right to the last digit. Then the moves get shorter and
# shorter. Find out why.

# %%
plots.show(
    widgets.optimisers.twice_corrected(adam_step),
    alt="Adam moves by one learning rate in every step. The function below does so once, then moves less and less.",
    caption="A gradient of 1 in every step. Adam moves by lr each time; the function below does so once.",
)


# %% exercise="repair_adam_step"
def repair_adam_step(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    """param (...), grad (...), m (...), v (...), t, lr, betas, eps -> param (...), m (...), v (...)"""
    ### BEGIN SOLUTION
    m = betas[0] * m + (1 - betas[0]) * grad
    v = betas[1] * v + (1 - betas[1]) * grad**2
    m_hat = m / (1 - betas[0] ** t)
    v_hat = v / (1 - betas[1] ** t)
    return param - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    ### BROKEN
    # m = betas[0] * m + (1 - betas[0]) * grad
    # v = betas[1] * v + (1 - betas[1]) * grad**2
    # m = m / (1 - betas[0] ** t)
    # v = v / (1 - betas[1] ** t)
    # return param - lr * m / (np.sqrt(v) + eps), m, v
    ### END SOLUTION


# %% check="repair_adam_step"
check(repair_adam_step)

# %% [markdown] about="stability_limit"
# ### Predict: the largest learning rate
#
# `stability_limit(hessian, momentum=0.0) -> lr`: the learning rate at which (momentum) gradient descent on the
# quadratic with that Hessian stops converging. `hessian (n, n)` is symmetric, its eigenvalues are positive, its
# valleys may lie askew.
#
# By hand, `[[3, 1], [1, 3]]`: the eigenvectors are (1, 1) and (1, −1), the eigenvalues 4 and 2. The limit is 2 / 4 =
# 0.5 without momentum, 0.95 with momentum 0.9.
#
# Use: in a network, nobody tells you the Hessian. But its largest eigenvalue can be measured, and in full-batch
# training it has been seen to climb until it hovers about $2/\eta$: training runs *at* the limit, the "edge of
# stability" (Cohen et al., 2021).


# %% exercise="stability_limit"
def stability_limit(hessian, momentum=0.0):
    """hessian (n, n), momentum -> lr"""
    ### BEGIN SOLUTION
    return 2 * (1 + momentum) / np.linalg.eigvalsh(hessian)[-1]
    ### END SOLUTION


# %% check="stability_limit"
check(stability_limit)

# %% [markdown] about="training_bytes"
# ### Predict: what an optimiser costs
#
# `training_bytes(parameters, optimiser) -> bytes`: how many bytes a step needs for the parameters, their gradients and
# the optimiser's state, everything in float32 (4 bytes each). `parameters` is a whole number, `optimiser` one of
# `"sgd"`, `"momentum"`, `"rmsprop"`, `"adam"`, `"adamw"`. (Activations come on top: lesson 04 counted them. The few
# bytes of Adam's step count do not matter.)
#
# By hand: 1000 parameters and plain SGD: 4000 bytes of parameters, 4000 of gradients: 8000.
#
# Use: a language model of 7 billion parameters takes 28 GB in float32. How much does it take to train it with Adam?


# %% exercise="training_bytes"
def training_bytes(parameters, optimiser):
    """parameters, optimiser -> bytes"""
    ### BEGIN SOLUTION
    state = {"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2, "adamw": 2}
    return 4 * parameters * (2 + state[optimiser])
    ### END SOLUTION


# %% check="training_bytes"
check(training_bytes)

# %% tags=["nbval-check-output"]
print(f"7 billion parameters with Adam: {training_bytes(7_000_000_000, 'adam') / 1e9:.0f} GB")

# %% [markdown]
# ### What people believe, and what is true
#
# - **"Adam needs no tuning."** Its best learning rate varies less from problem to problem than SGD's, because its moves
#   do not depend on the gradient's size. But at ten times the best rate it failed here like the others.
# - **"Adam generalises worse than SGD."** Disputed. Wilson et al. (2017) found it so on several tasks. Choi et al.
#   (2019) showed that such rankings turn with the tuning: momentum and RMSprop are, but for the bias correction,
#   special cases of Adam (large $\epsilon$; $\beta_1 = 0$), so that Adam, tuned over *all* its settings, should never
#   be worse, and in their experiments it was not. Transformers are mostly trained with Adam's family; why SGD does
#   badly there is still being worked out (Zhang et al., 2020, blame gradients with heavy tails).
# - **"Adam always converges."** Not even on convex problems: Reddi, Kale and Kumar (2018) built one on which it walks
#   to the worst point, since a small $\beta_2$ forgets the rare gradient that matters. Their repair, `amsgrad=True`,
#   keeps the largest $v$ so far.
# - **"eps only prevents a division by zero."** It is the size of gradients below which Adam turns into SGD with
#   momentum. Inception-v3 was trained by RMSprop with $\epsilon = 1$ (Szegedy et al., 2016), which makes another
#   optimiser of it.
# - **"Momentum 0.9 only smooths."** It also makes the steps ten times as long. Whoever changes $\mu$ without changing
#   the learning rate has changed both.
# - **"The loss is stuck, so lower the learning rate."** If it jitters, yes. If it crawls in a flat valley, that is the
#   wrong way: raise it, or give it momentum.
# - **"Warm-up is for Adam's early $\hat v$."** That is one explanation (Liu et al., 2020: the first $\hat v$ rest on
#   few gradients and vary wildly). Another is that the curvature is largest at the start, so that the limit
#   $2/\lambda_{\max}$ is lowest there; it would hold for SGD too, and warm-up helped SGD above. Both have evidence;
#   the matter is open.

# %% [markdown]
# ## Where it is used, and what came after
#
# AdamW with warm-up and a cosine is the standard of language models and vision transformers; SGD with momentum and a
# staircase or a cosine that of convolutional networks since 2012. Adam's memory is what hurts at scale: Adafactor
# keeps only the row and column sums of $v$ (Shazeer and Stern, 2018), 8-bit optimisers store $m$ and $v$ in a byte
# each (Dettmers et al., 2022), and sharding spreads the state over machines (ZeRO: Rajbhandari et al., 2020). Lion
# steps by the sign of a momentum and keeps one mean (Chen et al., 2023). Shampoo (Gupta, Koren and Singer, 2018) and
# Muon (Jordan et al., 2024) treat a weight matrix as a matrix, not as a bag of numbers, and so are no longer at the
# mercy of the axes. Which of them is best is an open race, and its referees, such as AlgoPerf (Dahl et al., 2023),
# spend most of their pages on how to tune fairly.
#
# You can now
#
# - compute how large a learning rate may be, and recognise the swing before it runs away;
# - say what momentum does to gradients that agree and to those that alternate, and what Adam does to their size;
# - write five optimisers that agree with PyTorch's to the last digit, state included;
# - steer a learning rate over time and from layer to layer;
# - tell a fair comparison of optimisers from an unfair one.
#
# To read:
#
# - B. T. Polyak, *Some methods of speeding up the convergence of iteration methods*, 1964. Momentum, and its
#   $\sqrt\kappa$.
# - D. P. Kingma and J. Ba, *Adam: a method for stochastic optimization*, 2015. Two pages of it are the algorithm.
# - I. Loshchilov and F. Hutter, *Decoupled weight decay regularization*, 2019. AdamW, and why the decay moved out.
# - A. C. Wilson et al., *The marginal value of adaptive gradient methods in machine learning*, 2017, and D. Choi et
#   al., *On empirical comparisons of optimizers for deep learning*, 2019. A dispute to read side by side.
# - S. J. Reddi, S. Kale and S. Kumar, *On the convergence of Adam and beyond*, 2018. Where it does not converge.
# - J. Cohen et al., *Gradient descent on neural networks typically occurs at the edge of stability*, 2021.
