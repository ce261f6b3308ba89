"""Two arrays -> where and how they differ. Numbers only; all wording stands in report.py."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mismatch:
    """How one output differs from what is right."""

    code: str  # "shape", "nan", "inf", "value" or "kind": right but for being numbers, not booleans
    index: tuple[int, ...] | None = None  # of the largest difference, or of the first nan or inf
    expected: float | None = None
    got: float | None = None
    count: int = 0  # wrong entries


def relative_error(want: np.ndarray, got: np.ndarray) -> float | None:
    """max|got - want| / max|want|, or the difference itself where what is right is 0 but for rounding.

    None where the two cannot be subtracted.
    """
    if want.shape != got.shape or not np.all(np.isfinite(got)):
        return None
    largest = float(np.max(np.abs(want), initial=0.0))
    gap = float(np.max(np.abs(got.astype(float) - want), initial=0.0))
    return gap / largest if largest > 1e-12 else gap


def close(want: np.ndarray, got: np.ndarray, tolerance: float) -> bool:
    """Same shape, and |got - want| <= tolerance * (1 + max|want|); nan equals nan, so that mistakes can be matched."""
    if want.shape != got.shape:
        return False
    with np.errstate(all="ignore"):
        want, got = want.astype(float), got.astype(float)
        scale = 1 + np.max(np.abs(want[np.isfinite(want)]), initial=0.0)
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        return bool(np.all(same | (np.abs(got - want) <= tolerance * scale)))


def compare(want: np.ndarray, got: np.ndarray, tolerance: float) -> Mismatch | None:
    """None where `got` is right: the exact shape, finite, within tolerance everywhere, booleans for booleans."""
    if want.shape != got.shape:
        return Mismatch("shape")
    numbers = got.dtype != bool
    got = got.astype(float)
    for code, bad in (("nan", np.isnan(got)), ("inf", np.isinf(got))):
        if bad.any():
            index = _first(bad)
            return Mismatch(code, index, float(want[index]), float(got[index]), int(bad.sum()))
    gap = np.abs(got - want)
    wrong = ~(gap <= tolerance * (1 + np.max(np.abs(want), initial=0.0)))
    if not wrong.any():
        return Mismatch("kind") if want.dtype == bool and numbers else None
    index = tuple(int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
    return Mismatch("value", index, float(want[index]), float(got[index]), int(wrong.sum()))


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
