"""Other right ways to solve the exercises of lesson 17."""

import math

import numpy as np
import torch
from torch import nn


def squash(z):
    """A sigmoid that never overflows."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, small) / (1 + small)


def blocks(many, *arrays):
    """The rows of each array, block by block."""
    return zip(*(np.split(array, many) for array in arrays), strict=True)


# --- LSTM ------------------------------------------------------------------------------------------------------------


def lstm_step_by_gate(x, h, c, w_x, w_h, b):
    i, f, g, o = (x @ u.T + h @ v.T + d for u, v, d in blocks(4, w_x, w_h, b))
    c = squash(f) * c + squash(i) * np.tanh(g)
    return squash(o) * np.tanh(c), c


def lstm_step_joined(x, h, c, w_x, w_h, b):
    """One product with x and h side by side."""
    z = np.hstack([x, h]) @ np.hstack([w_x, w_h]).T + b
    i, f, g, o = z.reshape(len(x), 4, -1).transpose(1, 0, 2)
    c_new = squash(f) * c
    c_new += squash(i) * np.tanh(g)
    return [squash(o) * np.tanh(c_new), c_new]


def lstm_step_back_by_gate(dh, dc, x, h, c, w_x, w_h, b):
    i, f, g, o = (x @ u.T + h @ v.T + d for u, v, d in blocks(4, w_x, w_h, b))
    i, f, g, o = squash(i), squash(f), np.tanh(g), squash(o)
    shown = np.tanh(f * c + i * g)
    dc = dc + dh * o * (1 - shown**2)
    each = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2), dh * shown * o * (1 - o)]
    dx = sum(d @ u for d, u in zip(each, np.split(w_x, 4), strict=True))
    back = sum(d @ v for d, v in zip(each, np.split(w_h, 4), strict=True))
    dw_x, dw_h, db = (np.concatenate(p) for p in zip(*((d.T @ x, d.T @ h, d.sum(0)) for d in each), strict=True))
    return dx, back, dc * f, dw_x, dw_h, db


def lstm_step_back_joined(dh, dc, x, h, c, w_x, w_h, b):
    """One product with x and h side by side; slopes in place."""
    both, hidden = np.hstack([x, h]), h.shape[1]
    z = both @ np.hstack([w_x, w_h]).T + b
    gates = squash(z)
    gates[:, 2 * hidden : 3 * hidden] = np.tanh(z[:, 2 * hidden : 3 * hidden])
    i, f, g, o = np.split(gates, 4, axis=1)
    c_new = f * c + i * g
    dc_new = dc + dh * o / np.cosh(c_new) ** 2
    dz = np.hstack([dc_new * g, dc_new * c, dc_new * i, dh * np.tanh(c_new)])
    slope = gates * (1 - gates)
    slope[:, 2 * hidden : 3 * hidden] = 1 - g * g
    dz *= slope
    dboth, dw = dz @ np.hstack([w_x, w_h]), dz.T @ both
    d = x.shape[1]
    return dboth[:, :d], dboth[:, d:], dc_new * f, dw[:, :d], dw[:, d:], np.ones(len(x)) @ dz


def lstm_filled(x, h0, c0, w_x, w_h, b):
    hs, h, c = np.empty((len(x), x.shape[1], h0.shape[1])), h0, c0
    for t in range(x.shape[1]):
        h, c = lstm_step_by_gate(x[:, t], h, c, w_x, w_h, b)
        hs[:, t] = h
    return hs, c


def lstm_by_example(x, h0, c0, w_x, w_h, b):
    found = []
    for n in range(len(x)):
        h, c, rows = h0[n : n + 1], c0[n : n + 1], []
        for x_t in x[n]:
            h, c = lstm_step_joined(x_t[None], h, c, w_x, w_h, b)
            rows.append(h[0])
        found.append((np.array(rows), c[0]))
    hs, c_n = zip(*found, strict=True)
    return np.array(hs), np.array(c_n)


def lstm_back_listed(dhs, dc_n, x, h0, c0, w_x, w_h, b):
    before, state = [], (h0, c0)
    for t in range(x.shape[1]):
        before.append(state)
        state = lstm_step_by_gate(x[:, t], *state, w_x, w_h, b)
    dw_x, dw_h, db = np.zeros_like(w_x), np.zeros_like(w_h), np.zeros_like(b)
    dh, dc, dxs = np.zeros_like(h0), dc_n, []
    for t, (h, c) in reversed([*enumerate(before)]):
        dx, dh, dc, *more = lstm_step_back_by_gate(dhs[:, t] + dh, dc, x[:, t], h, c, w_x, w_h, b)
        dxs.insert(0, dx)
        for total, part in zip((dw_x, dw_h, db), more, strict=True):
            total += part
    return np.stack(dxs, axis=1), dh, dc, dw_x, dw_h, db


def lstm_back_recursive(dhs, dc_n, x, h0, c0, w_x, w_h, b):
    """The last step's gradients, then those of the sequence without it."""
    if x.shape[1] == 0:
        return np.zeros_like(x), np.zeros_like(h0), dc_n, np.zeros_like(w_x), np.zeros_like(w_h), np.zeros_like(b)
    hs, c = lstm_filled(x[:, :-1], h0, c0, w_x, w_h, b)
    h = hs[:, -1] if x.shape[1] > 1 else h0
    dx, dh, dc, *last = lstm_step_back_joined(dhs[:, -1], dc_n, x[:, -1], h, c, w_x, w_h, b)
    earlier = dhs[:, :-1].copy()
    if x.shape[1] > 1:
        earlier[:, -1] += dh
    dxs, dh0, dc0, *others = lstm_back_recursive(earlier, dc, x[:, :-1], h0, c0, w_x, w_h, b)
    dh0 = dh0 if x.shape[1] > 1 else dh
    return np.concatenate([dxs, dx[:, None]], axis=1), dh0, dc0, *(a + b for a, b in zip(last, others, strict=True))


# --- GRU -------------------------------------------------------------------------------------------------------------


def gru_step_by_gate(x, h, w_x, w_h, b_x, b_h):
    (r, u_r), (z, u_z), (n, u_n) = ((x @ a.T + p, h @ u.T + q) for a, u, p, q in blocks(3, w_x, w_h, b_x, b_h))
    r, z = squash(r + u_r), squash(z + u_z)
    return z * (h - np.tanh(n + r * u_n)) + np.tanh(n + r * u_n)


def gru_step_split(x, h, w_x, w_h, b_x, b_h):
    k = h.shape[1]
    a, u = x @ w_x.T + b_x, h @ w_h.T + b_h
    gates = squash(a[:, : 2 * k] + u[:, : 2 * k])
    n = np.tanh(a[:, 2 * k :] + gates[:, :k] * u[:, 2 * k :])
    return gates[:, k:] * h + (1 - gates[:, k:]) * n


def gru_step_back_by_gate(dh, x, h, w_x, w_h, b_x, b_h):
    pairs = [(x @ a.T + p, h @ u.T + q) for a, u, p, q in blocks(3, w_x, w_h, b_x, b_h)]
    r, z = squash(sum(pairs[0])), squash(sum(pairs[1]))
    a_n, u_n = pairs[2]
    n = np.tanh(a_n + r * u_n)
    d_n = dh * (1 - z) * (1 - n**2)
    d_r, d_z = d_n * u_n * r * (1 - r), dh * (h - n) * z * (1 - z)
    from_x, from_h = (d_r, d_z, d_n), (d_r, d_z, d_n * r)
    dx = sum(d @ a for d, a in zip(from_x, np.split(w_x, 3), strict=True))
    back = dh * z + sum(d @ u for d, u in zip(from_h, np.split(w_h, 3), strict=True))
    rows = [np.concatenate([d.T @ v for d in ds]) for ds, v in ((from_x, x), (from_h, h))]
    return dx, back, *rows, np.concatenate([d.sum(0) for d in from_x]), np.concatenate([d.sum(0) for d in from_h])


def gru_step_back_examples(dh, x, h, w_x, w_h, b_x, b_h):
    """One example after the other; the weights' gradients as sums of outer products."""
    parts = []
    for k in range(len(x)):
        one = [value[k : k + 1] for value in (dh, x, h)]
        parts.append(gru_step_back_by_gate(*one, w_x, w_h, b_x, b_h))
    dx, back, *params = zip(*parts, strict=True)
    return np.concatenate(dx), np.concatenate(back), *(sum(each) for each in params)


def gru_filled(x, h0, *params):
    hs = np.empty((*x.shape[:2], h0.shape[1]))
    for t in range(x.shape[1]):
        hs[:, t] = gru_step_by_gate(x[:, t], hs[:, t - 1] if t else h0, *params)
    return hs


def gru_listed(x, h0, *params):
    states = [h0]
    for x_t in x.swapaxes(0, 1):
        states.append(gru_step_split(x_t, states[-1], *params))
    return np.array(states[1:]).swapaxes(0, 1)


def gru_back_listed(dhs, x, h0, *params):
    hs, dx, totals = [h0, *gru_filled(x, h0, *params).swapaxes(0, 1)], [], [np.zeros_like(p) for p in params]
    dh = np.zeros_like(h0)
    for t in range(x.shape[1] - 1, -1, -1):
        step, dh, *more = gru_step_back_by_gate(dhs[:, t] + dh, x[:, t], hs[t], *params)
        dx.append(step)
        totals = [a + b for a, b in zip(totals, more, strict=True)]
    return np.stack(dx[::-1], axis=1), dh, *totals


def gru_back_examples(dhs, x, h0, *params):
    parts = [gru_back_listed(*(value[k : k + 1] for value in (dhs, x, h0)), *params) for k in range(len(x))]
    dx, dh0, *grads = zip(*parts, strict=True)
    return np.concatenate(dx), np.concatenate(dh0), *(sum(each) for each in grads)


# --- The forget gate's bias, modules ---------------------------------------------------------------------------------


def bias_by_ratio(half_life):
    b = np.zeros(4 * len(half_life))
    b[len(half_life) : 2 * len(half_life)] = -np.log(2 ** (1 / half_life) - 1)
    return b


def bias_by_rows(half_life):
    f = 0.5 ** (1 / half_life)
    return np.concatenate([0 * f, np.log(f / (1 - f)), 0 * f, 0 * f])


class Held(nn.Module):
    """Weights as nn.Linear layers would draw them, under PyTorch's names."""

    many = 4

    def __init__(self, input_size, hidden_size):
        super().__init__()
        rows = self.many * hidden_size
        self.weight_ih_l0 = nn.Parameter(torch.rand(rows, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.rand(rows, hidden_size))
        self.bias_hh_l0, self.bias_ih_l0 = nn.Parameter(torch.rand(rows)), nn.Parameter(torch.rand(rows))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(2).sub_(1).div_(math.sqrt(hidden_size))


class LinearLSTM(Held):
    """All products with x before the loop."""

    def forward(self, x, hx=None):
        n, hidden = len(x), self.weight_hh_l0.shape[1]
        h, c = hx or (torch.zeros(1, n, hidden, dtype=x.dtype, device=x.device),) * 2
        h, c, hs = h.squeeze(0), c.squeeze(0), []
        from_x = nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
        for t in range(x.shape[1]):
            z = from_x[:, t] + nn.functional.linear(h, self.weight_hh_l0)
            i, f, g, o = z.reshape(n, 4, hidden).unbind(1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            hs.append(h.unsqueeze(1))
        return torch.cat(hs, dim=1), (h.unsqueeze(0), c.unsqueeze(0))


class GateLSTM(Held):
    """Gate by gate."""

    def gate(self, k, x, h):
        size = h.shape[1]
        rows = slice(k * size, (k + 1) * size)
        bias = self.bias_ih_l0[rows] + self.bias_hh_l0[rows]
        return x @ self.weight_ih_l0[rows].T + h @ self.weight_hh_l0[rows].T + bias

    def forward(self, x, hx=None):
        size = self.weight_hh_l0.shape[1]
        h, c = [x.new_zeros(len(x), size)] * 2 if hx is None else [state[0] for state in hx]
        output = []
        for t in range(x.size(1)):
            i, f, g, o = (self.gate(k, x[:, t], h) for k in range(4))
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            output.append(h)
        return torch.stack(output, 1), (h[None], c[None])


class LinearGRU(Held):
    many = 3

    def forward(self, x, hx=None):
        n, hidden = len(x), self.weight_hh_l0.shape[1]
        h = x.new_zeros(n, hidden) if hx is None else hx[0]
        from_x, hs = nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0), []
        for a in from_x.unbind(1):
            u = nn.functional.linear(h, self.weight_hh_l0, self.bias_hh_l0)
            r, z = torch.sigmoid(a[:, : 2 * hidden] + u[:, : 2 * hidden]).chunk(2, 1)
            h = torch.lerp(torch.tanh(a[:, 2 * hidden :] + r * u[:, 2 * hidden :]), h, z)
            hs.append(h)
        return torch.stack(hs, dim=1), h.unsqueeze(0)


class GateGRU(Held):
    many = 3

    def forward(self, x, hx=None):
        h = x.new_zeros(len(x), self.weight_hh_l0.shape[1]) if hx is None else hx.squeeze(0)
        hs = []
        for t in range(x.shape[1]):
            a = (x[:, t] @ self.weight_ih_l0.T + self.bias_ih_l0).chunk(3, dim=1)
            u = (h @ self.weight_hh_l0.T + self.bias_hh_l0).chunk(3, dim=1)
            r, z = torch.sigmoid(a[0] + u[0]), torch.sigmoid(a[1] + u[1])
            h = (1 - z) * torch.tanh(a[2] + r * u[2]) + z * h
            hs.append(h[:, None])
        return torch.cat(hs, 1), h[None]


# --- Time series -----------------------------------------------------------------------------------------------------


def windows_sliced(series, length, start, stop, horizon=1):
    return np.array([series[t - horizon - length + 1 : t - horizon + 1] for t in range(start, stop)]), series[
        start:stop
    ]


def windows_indexed(series, length, start, stop, horizon=1):
    at = np.arange(start, stop)
    return series[at[:, None] - horizon + np.arange(1 - length, 1)], series[at]


def seasonal_rounded(series, season, start, stop, horizon=1):
    back = season * math.ceil(horizon / season)
    return series[start - back : stop - back]


def seasonal_searched(series, season, start, stop, horizon=1):
    found = []
    for t in range(start, stop):
        place = t - season
        while place > t - horizon:
            place -= season
        found.append(series[place])
    return found


def data_sliced(series, length, stop):
    series = (series - series[:stop].mean()) / series[:stop].std()
    x, y = windows_sliced(series, length, length, len(series))
    return x[: stop - length], y[: stop - length], x[stop - length :], y[stop - length :]


def data_in_parts(series, length, stop):
    low, spread = np.mean(series[:stop]), np.sqrt(np.var(series[:stop]))
    parts = windows_indexed(series, length, length, stop), windows_indexed(series, length, stop, len(series))
    return [(value - low) / spread for part in parts for value in part]


def parameters_listed(kind, input_size, hidden_size, num_layers=1, bidirectional=False):
    many, ways, total = ["RNN", "", "GRU", "LSTM"].index(kind) + 1, 1 + bidirectional, 0
    for _ in range(num_layers):
        total += ways * many * hidden_size * (input_size + hidden_size + 2)
        input_size = ways * hidden_size
    return total


def parameters_by_shape(kind, input_size, hidden_size, num_layers=1, bidirectional=False):
    rows = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind] * hidden_size
    ways = 2 if bidirectional else 1
    widths = [input_size, *[ways * hidden_size] * (num_layers - 1)]
    shapes = [shape for d in widths for shape in ((rows, d), (rows, hidden_size), (rows,), (rows,))]
    return ways * sum(map(math.prod, shapes))


ALTERNATIVES = {
    "lstm_step_forward": [lstm_step_by_gate, lstm_step_joined],
    "lstm_step_backward": [lstm_step_back_by_gate, lstm_step_back_joined],
    "lstm_forward": [lstm_filled, lstm_by_example],
    "lstm_backward": [lstm_back_listed, lstm_back_recursive],
    "gru_step_forward": [gru_step_by_gate, gru_step_split],
    "gru_step_backward": [gru_step_back_by_gate, gru_step_back_examples],
    "gru_forward": [gru_filled, gru_listed],
    "gru_backward": [gru_back_listed, gru_back_examples],
    "forget_bias": [bias_by_ratio, bias_by_rows],
    "LSTM": [LinearLSTM, GateLSTM],
    "GRU": [LinearGRU, GateGRU],
    "forecast_windows": [windows_sliced, windows_indexed],
    "seasonal_naive": [seasonal_rounded, seasonal_searched],
    "repair_gru_step_forward": [gru_step_by_gate, gru_step_split],
    "repair_forecast_data": [data_sliced, data_in_parts],
    "count_recurrent_parameters": [parameters_listed, parameters_by_shape],
}
