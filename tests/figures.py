"""What the tests of all lessons' figures share, and a stopwatch."""

import re
import time


def unwritten(function):
    """The function as a learner finds it."""

    def stub(*args, **kwargs):
        raise NotImplementedError

    return stub


def spoiled(function):
    """The function with all that it returns half as large again."""

    def wrong(*args, **kwargs):
        result = function(*args, **kwargs)
        return tuple(1.5 * part for part in result) if isinstance(result, tuple) else 1.5 * result

    return wrong


def other_value(control):
    """A value that the control does not have now."""
    if hasattr(control, "options"):
        return next(value for _, value in control.options if value != control.value)
    if isinstance(control.value, bool):
        return not control.value
    return control.max if control.value != control.max else control.min


def each_control_changes(explorer, before, **start):
    """Each control, moved by itself from the values of the picture `before`, gives another one, and none an error."""
    for key, control in explorer.controls.items():
        after = explorer.snapshot(**start | {key: other_value(control)})
        assert 'class="lbl-error"' not in after
        assert after != before, f"{key} changes nothing"


def seconds(run, times=5):
    """Seconds of this thread for one run, of several the quickest: what else the machine does is not the code's."""
    spent = []
    for _ in range(times):
        start = time.thread_time()
        run()
        spent.append(time.thread_time() - start)
    return min(spent)


def without_style(html):
    """A picture without its style sheet."""
    return re.sub(r"^<style>.*?</style>", "", html)
