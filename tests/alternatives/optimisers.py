"""Other right ways to solve the exercises of lesson 06."""

import math

import numpy as np
import torch

# --- One step, and momentum ------------------------------------------------------------------------------------------


def sgd_copy(param, grad, lr):
    new = np.array(param)
    new -= lr * grad
    return new


def sgd_float32(param, grad, lr):
    return param.astype(np.float32) - np.float32(lr) * grad.astype(np.float32)


def momentum_loop(param, grad, velocity, lr, momentum=0.9):
    param, velocity = param.copy(), velocity.copy()
    for index in np.ndindex(param.shape):
        velocity[index] = momentum * velocity[index] + grad[index]
        param[index] -= lr * velocity[index]
    return param, velocity


def momentum_list(param, grad, velocity, lr, momentum=0.9):
    """Returns a list, and takes the step in two parts."""
    return [param - lr * grad - lr * momentum * velocity, grad + velocity * momentum]


# --- One step size for each number -----------------------------------------------------------------------------------


def rmsprop_hypot(param, grad, sq, lr, alpha=0.99, eps=1e-8):
    root = np.hypot(np.sqrt(alpha * sq), np.sqrt(1 - alpha) * grad)
    return param - lr * grad / (root + eps), root**2


def rmsprop_lerp(param, grad, sq, lr, alpha=0.99, eps=1e-8):
    sq = sq + (1 - alpha) * (grad * grad - sq)
    return param + -lr / (sq**0.5 + eps) * grad, sq


def adam_lerp(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    beta1, beta2 = betas
    m = m + (1 - beta1) * (grad - m)
    v = v + (1 - beta2) * (grad**2 - v)
    size = lr / (1 - math.pow(beta1, t))
    return param - size * m / (np.sqrt(v) / math.sqrt(1 - math.pow(beta2, t)) + eps), m, v


def adam_scaled_eps(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    """The shortcut of the paper, with an eps that makes up for it."""
    m, v = betas[0] * m + (1 - betas[0]) * grad, betas[1] * v + (1 - betas[1]) * np.square(grad)
    root = (1 - betas[1] ** t) ** 0.5
    return [param - lr * root / (1 - betas[0] ** t) * m / (v**0.5 + root * eps), m, v]


def adam_loop(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8):
    param, m, v = param.copy(), m.copy(), v.copy()
    for i, g in enumerate(grad.flat):
        m.flat[i] = betas[0] * m.flat[i] + (1 - betas[0]) * g
        v.flat[i] = betas[1] * v.flat[i] + (1 - betas[1]) * g * g
        m_hat, v_hat = m.flat[i] / (1 - betas[0] ** t), v.flat[i] / (1 - betas[1] ** t)
        param.flat[i] -= lr * m_hat / (math.sqrt(v_hat) + eps)
    return param, m, v


def adamw_from_adam(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    return adam_lerp(param * (1 - lr * weight_decay), grad, m, v, t, lr, betas, eps)


def adamw_one_sum(param, grad, m, v, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    moved, m, v = adam_scaled_eps(0 * param, grad, m, v, t, lr, betas, eps)
    return param - lr * weight_decay * param + moved, m, v


# --- Schedules -------------------------------------------------------------------------------------------------------


def step_lr_loop(step, lr, step_size, gamma=0.1):
    for k in range(1, step + 1):
        if k % step_size == 0:
            lr *= gamma
    return lr


def step_lr_floor(step, lr, step_size, gamma=0.1):
    return lr * gamma ** np.floor(step / step_size)


def cosine_half_angle(step, lr, total_steps, min_lr=0.0):
    """cos²(a / 2) = (1 + cos a) / 2."""
    if step >= total_steps:
        return min_lr
    return min_lr + (lr - min_lr) * math.cos(math.pi * step / total_steps / 2) ** 2


def cosine_mixed(step, lr, total_steps, min_lr=0.0):
    share = (1 - np.cos(np.pi * np.clip(step / total_steps, 0, 1))) / 2
    return (1 - share) * lr + share * min_lr


def warmup_by_cases(step, lr, total_steps, warmup_steps, min_lr=0.0):
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    if step > total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (lr - min_lr)


def warmup_least(step, lr, total_steps, warmup_steps, min_lr=0.0):
    line = np.interp(step, [-1, warmup_steps], [0, lr])
    return line if step < warmup_steps else cosine_mixed(step - warmup_steps, lr, total_steps - warmup_steps, min_lr)


# --- In PyTorch ------------------------------------------------------------------------------------------------------


def groups_backwards(model, lr, factor):
    groups = []
    for layer in reversed(model):
        if any(True for _ in layer.parameters()):
            groups.append({"params": layer.parameters(), "lr": lr})
            lr *= factor
    return groups


def groups_per_parameter(model, lr, factor):
    layers = [layer for layer in model if list(layer.parameters())]
    return [
        {"lr": lr * factor ** (len(layers) - 1 - k), "params": [p]}
        for k, layer in enumerate(layers)
        for p in layer.parameters()
    ]


class AddsInPlace(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if len(state) == 0:
                    state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                state["step"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
                m.lerp_(p.grad, 1 - beta1)
                v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                p.addcdiv_(m, (v / (1 - beta2**t)).sqrt() + group["eps"], value=-group["lr"] / (1 - beta1**t))


class CallsNumPy(torch.optim.Optimizer):
    """Writes into .data what a step function of the NumPy half gives."""

    def __init__(self, params, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def step(self):
        for group in self.param_groups:
            settings = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
            for p in group["params"]:
                if p.grad is None:
                    continue
                zeros = torch.zeros_like(p.data)
                old = self.state[p] or {"m": zeros, "v": zeros, "t": 0}
                arrays = [value.numpy() for value in (p.data, p.grad, old["m"], old["v"])]
                new, m, v = adamw_from_adam(*arrays, old["t"] + 1, **settings)
                self.state[p] = {"m": torch.from_numpy(m), "v": torch.from_numpy(v), "t": old["t"] + 1}
                p.data.copy_(torch.from_numpy(new))


# --- Predict ---------------------------------------------------------------------------------------------------------


def limit_by_power(hessian, momentum=0.0):
    """The largest eigenvalue by power iteration on a high power of the matrix."""
    scale = np.trace(hessian)
    power = hessian / scale
    for _ in range(12):
        power = power @ power
        power /= np.trace(power)
    x = power @ np.linspace(1, 2, len(hessian))
    return (2 + 2 * momentum) / (x @ hessian @ x / (x @ x))


def limit_by_svd(hessian, momentum=0.0):
    return 2 / np.linalg.norm(hessian, 2) * (1 + momentum)


def bytes_of_arrays(parameters, optimiser):
    state = [] if optimiser == "sgd" else ["m", "v"] if optimiser.startswith("adam") else ["one"]
    return len(["param", "grad", *state]) * np.dtype(np.float32).itemsize * parameters


ALTERNATIVES = {
    "sgd_step": [sgd_copy, sgd_float32],
    "momentum_step": [momentum_loop, momentum_list],
    "rmsprop_step": [rmsprop_hypot, rmsprop_lerp],
    "adam_step": [adam_lerp, adam_scaled_eps, adam_loop],
    "adamw_step": [adamw_from_adam, adamw_one_sum],
    "step_lr": [step_lr_loop, step_lr_floor],
    "cosine_lr": [cosine_half_angle, cosine_mixed],
    "warmup_cosine_lr": [warmup_by_cases, warmup_least],
    "layer_groups": [groups_backwards, groups_per_parameter],
    "AdamW": [AddsInPlace, CallsNumPy],
    "repair_adam_step": [adam_lerp, adam_loop],
    "stability_limit": [limit_by_power, limit_by_svd],
    "training_bytes": [
        lambda parameters, optimiser: {"sgd": 8, "momentum": 12, "rmsprop": 12}.get(optimiser, 16) * parameters,
        bytes_of_arrays,
    ],
}
