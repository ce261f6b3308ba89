"""`python -m tests.attacks [--stock] [CLASS ...]`: what the attacks win, class by class, against our grader.

With --stock also against nbgrader as it comes, one run for each case; that takes about half an hour.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.attacks import answers
from tests.attacks.case import Case
from tests.attacks.course import CLASSES, CONTROLS, our_run, stock_run, stock_template
from tests.attacks.detectors import OWN, SHARED, Aftermath, loses_points

TOGETHER = {*answers.CLASSES, "leaks", "egress"} - {"forged_results"}


def wins(after: Aftermath, student: str, case: Case) -> list[str]:
    """Everything that a submission has won, in words."""
    return [str(detector.__doc__) for detector in dict.fromkeys([*OWN, case.by]) if detector(after, student)]


def against_us(chosen: dict[str, list[Case]]) -> dict[str, list[str]]:
    """Student -> what is won in one run of our grader; for a control: what is lost."""
    with tempfile.TemporaryDirectory(prefix="class-", ignore_cleanup_errors=True) as folder:
        after, cases, _ = our_run(Path(folder), chosen | {"control": CONTROLS})
    print(f"{len(cases)} submissions in {after.seconds:.0f} s, {len(after.honest)} of them honest\n")
    controls = [student for student in cases if student.startswith("control_") or student in after.honest]
    lost = {student: ["Fewer points than deserved."] for student in controls if loses_points(after, student)}
    attackers = [student for student in cases if student not in controls]
    harm = [str(detector.__doc__) for detector in SHARED if detector(after, "")]
    return {student: wins(after, student, cases[student]) for student in attackers} | lost | {"the class": harm}


def against_stock(chosen: dict[str, list[Case]]) -> Iterator[tuple[str, bool]]:
    """Whether each submission succeeds, by the detector that its case names.

    What harms nobody else is graded class by class; what may end the run, each in a run of its own.
    """
    with tempfile.TemporaryDirectory(prefix="stock-", ignore_cleanup_errors=True) as folder:
        template = stock_template(Path(folder) / "template")
        for kind, cases in chosen.items():
            students = {f"{kind}_{case.name}": case for case in cases}
            groups = [students] if kind in TOGETHER else [{name: case} for name, case in students.items()]
            for number, group in enumerate(groups):
                after = stock_run(template, Path(folder) / f"{kind}_{number}", group)
                for student, case in group.items():
                    won = case.by(after, student)
                    print(f"  {student:45}{'succeeds' if won else '-'}", flush=True)
                    yield student, won


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("--stock", action="store_true", help="also against nbgrader as it comes")
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"default: all of {', '.join(CLASSES)}")
    args = parser.parse_args()
    chosen = {kind: list(CLASSES[kind]) for kind in args.classes or CLASSES}
    ours = against_us(chosen)
    stock = dict(against_stock(chosen)) if args.stock else {}
    print(f"\n{'class':24}{'cases':>6}{'stock':>8}{'ours':>6}")
    for kind, cases in chosen.items():
        students = [f"{kind}_{case.name}" for case in cases]
        beaten = str(sum(stock[student] for student in students)) if stock else "not run"
        print(f"{kind:24}{len(cases):>6}{beaten:>8}{sum(bool(ours[student]) for student in students):>6}")
    for student, won in ours.items():
        if won:
            print(f"\n{student}: {' '.join(won)}")
    return int(any(ours.values()))


if __name__ == "__main__":
    sys.exit(main())
