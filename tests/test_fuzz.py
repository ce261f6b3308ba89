"""Damaged notebooks: a few seconds of what `python -m tests.fuzz` does for as long as one likes."""

import pytest

from tests import fuzz
from tests.test_nbgrader import FULL, NONE


def test_damaged_files_are_read_and_graded_fairly():
    counts, failures = fuzz.fuzz(range(200), every=100)
    assert failures == []
    assert counts["read"] > 80 and counts["unreadable"] > 30 and counts["graded"] > 30


def test_every_damaged_file_gets_its_row(tmp_path):
    seeds = range(1000, 1030)
    counts, failures = fuzz.fuzz_class(seeds, tmp_path / "class")
    assert failures == []
    assert counts["rows"] == len(seeds)


def test_a_seed_is_always_the_same_file():
    assert fuzz.mutant(7) == fuzz.mutant(7)
    assert len({fuzz.mutant(seed).data for seed in range(100)}) > 90


def test_the_judge_sees_an_unfair_point_a_lost_point_and_a_missing_row():
    (right, _), _, (wrong, _), _ = fuzz.starts()
    fuzz.judge(fuzz.Mutant(0, right, True, ""), FULL)
    with pytest.raises(fuzz.Broken, match="no such answer"):
        fuzz.judge(fuzz.Mutant(0, wrong, False, ""), FULL)
    with pytest.raises(fuzz.Broken, match="are lost"):
        fuzz.judge(fuzz.Mutant(0, right, True, ""), NONE)
    with pytest.raises(fuzz.Broken, match="no row"):
        fuzz.judge(fuzz.Mutant(0, right, True, ""), {})
    assert fuzz.deserved(right[: len(right) // 2], "linear_forward") == 0.0
