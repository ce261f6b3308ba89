"""How long a check takes. `make bench` prints the table."""

import statistics
from functools import partial
from pathlib import Path

import numpy as np
import torch

from autograder import build as builder
from autograder.exercise import load_registry
from autograder.grade import examine
from tests.figures import seconds
from tests.test_exercises import ALTERNATIVES

ROOT = Path(__file__).parents[1]


def test_a_check_answers_in_under_three_tenths_of_a_second(capsys):
    examine(ALTERNATIVES["Linear"][0], "Linear", seed=0)  # torch's imports are not the check's
    times = {name: seconds(slowest(name, entry), times=3) for name, entry in load_registry().items()}
    median = statistics.median(times.values())
    with capsys.disabled():
        worst = sorted(times.items(), key=lambda pair: -pair[1])[:3]
        print(f"\nslowest way of each of {len(times)} exercises: median {median * 1000:.1f} ms, worst", end=" ")
        print(", ".join(f"{name} {t * 1000:.0f} ms" for name, t in worst))
    assert median < 0.3
    assert max(times.values()) < 1


def slowest(name, entry):
    """The check of the answer, right or wrong, that took longest when each was checked once."""
    ways = [*ALTERNATIVES[name], *(implementation for _, implementation in entry.mistakes)]
    return max((partial(examine, way, name, seed=0) for way in ways), key=partial(seconds, times=1))


def solved(lesson: str, *names: str) -> dict:
    """Functions as the solved notebook of a lesson has them."""
    cells = builder.source_cells((ROOT / "solutions" / f"{lesson}.py").read_text(encoding="utf-8"))
    namespace = {"np": np}
    for cell in cells:
        if cell.exercise in [("exercise", name) for name in names]:
            exec(cell.source, namespace)
    return namespace


def test_the_fast_convolution_takes_at_most_four_times_as_long_as_pytorch(capsys):
    """On one thread; x (16, 16, 32, 32) and w (32, 16, 3, 3), padding 1, of 64-bit and of 32-bit floats."""
    torch.set_num_threads(1)
    fast = solved("09_convolution", "conv_output_size", "conv2d_forward_fast")["conv2d_forward_fast"]
    rng, ratios = np.random.default_rng(0), {}
    for kind in (np.float64, np.float32):
        x, w, b = (rng.standard_normal(shape).astype(kind) for shape in ((16, 16, 32, 32), (32, 16, 3, 3), (32,)))
        given = [torch.from_numpy(array) for array in (x, w, b)]
        ratios[kind.__name__] = seconds(partial(fast, x, w, b, 1, 1), times=7) / seconds(
            partial(torch.nn.functional.conv2d, *given, 1, 1), times=7
        )
    with capsys.disabled():
        told = ", ".join(f"{ratio:.1f} ({kind})" for kind, ratio in ratios.items())
        print(f"\nconv2d_forward_fast / torch's conv2d, one thread: {told}")
    assert max(ratios.values()) < 4
