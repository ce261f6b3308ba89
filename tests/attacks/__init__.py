"""Submissions that try to win marks, to harm others or to get out, and honest ones that look suspicious.

`case.py` says what a case is, `answers.py`, `machine.py` and `files.py` are the table, `detectors.py` says how a
success shows, `course.py` grades all of them as one class. `python -m tests.attacks --stock` prints what the same
submissions win against nbgrader as it comes.
"""
