"""Time series: the sunspots as statsmodels ships them, and a generated series whose best possible error is known."""

from functools import lru_cache

import numpy as np

NOISE = 0.5  # the standard deviation of what nobody can forecast in `thresholds`


@lru_cache
def _load():
    from statsmodels.datasets import sunspots  # takes a second to import: only for who needs it

    table = sunspots.load_pandas().data
    return table["YEAR"].to_numpy().astype(int), table["SUNACTIVITY"].to_numpy().astype(float)


def sunspots():
    """years (309,) from 1700 to 2008, and the mean number of sunspots of each (National Geophysical Data Center)."""
    years, numbers = _load()
    return years.copy(), numbers.copy()


def thresholds(n, rng):
    """A series (n,): ±0.9 times the value before, plus noise; the sign is that of the value before that.

    Such a series is called a threshold autoregression (Tong and Lim, 1980).
    """
    series, noise = np.zeros(n + 100), NOISE * rng.standard_normal(n + 100)
    for t in range(2, n + 100):
        series[t] = expected(series[t - 2 : t]) + noise[t]
    return series[100:]  # without its start, which was 0


def expected(before):
    """The mean of the next value of `thresholds`, given the two before it on the last axis: the best forecast."""
    return np.where(before[..., -2] > 0, 0.9, -0.9) * before[..., -1]
