"""A result -> text and HTML. Every word that a student reads about a check stands here or in a declaration."""

import html as escape
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autograder.compare import Mismatch
from autograder.diagnose import Diagnosis
from autograder.exercise import AT_THE_START, Exercise

LONG_STATE = 8  # parameters
MOST_LISTED = 15  # outputs: a block of layers has dozens of parameters and buffers


@dataclass(frozen=True)
class Output:
    """One output of the student's function, over all cases."""

    name: str
    shape: tuple[int, ...] | None  # as it came, in the case that is reported; None where no array came
    verdict: str  # "right", or what is wrong with it in a few words
    error: float | None  # largest relative error over all cases; None where it cannot be measured
    points: float


@dataclass(frozen=True)
class Wrong:
    """The first wrong output where it is first wrong: what the report explains."""

    name: str
    number: int  # which case, from 0
    case: Mapping
    want: np.ndarray
    got: np.ndarray | None
    mismatch: Mismatch | None  # None where no array came
    explanation: str  # one sentence
    right_cases: tuple[Mapping, ...]  # the cases in which this output is right
    wrong_cases: tuple[Mapping, ...]  # and the others
    inputs: Mapping  # the arguments of this case, to look at
    sizes: frozenset[str] = frozenset()  # which keys of a case are sizes, or arrays


@dataclass(frozen=True, repr=False)
class Result:
    """What one check found. `text` and `html` are the report; `graded` ones reveal no expected value and no seed."""

    exercise: str
    points: float
    max_points: int
    outputs: tuple[Output, ...]
    mistake: str | None = None  # the sentence of the declared mistake or general pattern that fits
    problem: str | None = None  # why nothing could be compared: one or two sentences
    wrong: Wrong | None = None
    hint: str | None = None
    notes: tuple[str, ...] = ()  # cost no points
    seed: int | None = None
    graded: bool = False

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html

    @property
    def passed(self) -> bool:
        """All points."""
        return self.points == self.max_points

    @property
    def text(self) -> str:
        """The report in plain text."""
        return _text(self)

    @property
    def html(self) -> str:
        """The report as a self-contained piece of HTML, everything of the student's escaped."""
        return f'<div class="lbl-report" style="{_STYLE}">{_html(self)}</div>'

    @property
    def picture(self) -> str:
        """Expected, got and difference of the first wrong output as HTML; empty where it would not help."""
        return "" if self.graded or self.wrong is None else _picture(self.wrong)


# --- failures: why nothing could be compared ---------------------------------------------------------------------


def failure(entry: Exercise, reply: Mapping) -> str:
    """A reply without values, in the student's words."""
    name, code = entry.name, reply["failure"]
    if code == "unwritten":
        return f"{name} is not written yet: it raises NotImplementedError. Replace the line that raises with your code."
    if code == "raised":
        line = f" in the line `{reply['line']}`" if reply.get("line") else ""
        message = f": {reply['message'].rstrip('.')}" if reply.get("message") else ""
        return (
            f"{name} stopped with {reply['type']}{message}{line}. {_advice(reply['type'], message)}{_happened(reply)}"
        )
    if code == "arity":
        return f"{name} returned {reply['got']}; it should return {_signature(entry, reply['want'])}."
    if code == "state":
        return _state(entry, reply)
    if code == "parameters":
        got = ", ".join(reply["got"]) or "none"
        return (
            f"{name} learns these parameters: {got}; it should learn {', '.join(reply['want']) or 'none'}. "
            "Only an nn.Parameter that is an attribute of the module is trained."
        )
    details = {key: value for key, value in reply.items() if key != "name"}
    return _FAILURES[code].format(name=name, used=reply.get("name"), **details)


_FAILURES = {
    "method": "{name} has no method `{method}` of its own. Is it spelt right, and indented as a part of the class?",
    "misfit": (
        "{name} does not fit its use: `{line}` stopped with {type}: {message}. Compare the arguments, the methods and "
        "what they return with the exercise's text."
    ),
    "missing": "There is no {name}: no function or class of that name was defined. Was its cell deleted or renamed?",
    "not_callable": "{name} should be a function; it is a {type}.",
    "not_a_class": "{name} should be a class derived from {want}; it is {type}.",
    "not_a_tensor": "{name} returned a {type} where a torch.Tensor is expected.",
    "detached": (
        "{name} returned a result without a gradient: it is cut off from its inputs. Look for .detach(), .item(), "
        ".numpy(), torch.no_grad() or torch.tensor(…) on the way from the inputs to the result."
    ),
    "forbidden": (
        "{name} uses {used}, which is what you are to build. Build it from simpler operations: products, sums and "
        "element-wise functions."
    ),
    "uses_torch": (
        "{name} calls torch ({used}). This exercise is from scratch: NumPy only. PyTorch has its turn further down."
    ),
    "memory": "{name} asked for more memory than it gets. Look at the shapes: which intermediate array is that large?",
    "time": (
        "{name} did not come back within {seconds} seconds. Look for a loop that never ends (what changes its "
        "condition?) or a loop over every number where an array operation would do."
    ),
    "budget": (
        "{name} was not reached: the cells and answers before it used up the {seconds} seconds that a whole notebook "
        "gets. Is there a loop that does not end?"
    ),
    "died": "The process that ran {name} ended before it answered (exit, a crash, or its memory was used up).",
    "unsteady": (
        "{name} gave two different answers to the same question. A layer may depend on its arguments only: look for "
        "random numbers, or for a variable outside the function that it changes."
    ),
    "modified": (
        "{name} changed its argument {arguments}. Callers still need it: work on a copy, and look for +=, -=, *= or an "
        "assignment to an element or a slice."
    ),
    "not_loaded": "The cell that defines {name} stopped with {error}. Until the cell runs, there is nothing to check.",
}


def _state(entry: Exercise, reply: Mapping) -> str:
    """What is wrong with the names and shapes of a module's parameters."""
    got, want = reply["got"], reply["want"]
    where = " the parameters"
    if len(want) > LONG_STATE:  # of a network, only what differs
        where = " among its parameters"
        differ = {key for key in (*got, *want) if got.get(key) != want.get(key)}
        got, want = ({key: shape for key, shape in names.items() if key in differ} for names in (got, want))
    head = f"{entry.name}({_case(reply['case'])}) has{where} {_shapes(got)}; it should have {_shapes(want)}. "
    reshaped = [key for key in want if key in got and got[key] != want[key]]
    if missing := [key for key in want if key not in got]:
        if f"d{missing[0]}" not in {output.name for output in entry.outputs}:
            return (
                head + f'{missing[0]} is missing: it is not learned but kept, self.register_buffer("{missing[0]}", …).'
            )
        owner, _, rest = missing[0].rpartition(".")
        if owner:
            return head + f"{missing[0]} is missing: is there a layer kept as self.{owner}, and has it a {rest}?"
        return head + (
            f"{missing[0]} is missing: a plain tensor is not learned, and another name can't be loaded. Is it an "
            f"nn.Parameter, kept as self.{missing[0]}?"
        )
    if extra := [key for key in got if key not in want]:
        return head + f"{extra[0]} should not be there with these arguments."
    if got[reshaped[0]] == want[reshaped[0]][::-1]:
        return head + f"{reshaped[0]} is turned round: PyTorch keeps what comes out first, then what goes in."
    return head + f"Look at the shape of {reshaped[0]}."


def _happened(reply: Mapping) -> str:
    """In which case, when it was not the first: the earlier ones went well."""
    return f" (It happened in case {reply['number'] + 1}: {_case(reply['case'])}.)" if reply.get("number") else ""


def _advice(kind: str, message: str = "") -> str:
    if "truth value of an array" in message:
        return "`if`, `and` and max(…) want one truth value, an array has many: use np.where, & or np.maximum."
    if "unpack" in message:
        return "Count the names on the left and the values on the right."
    if kind == "ValueError" and re.search("shape|broadcast|dimension|align|size", message):
        return "Print the shapes on that line: do the sizes that meet agree?"
    return {
        "TypeError": "Check the arguments: their order, number and names, and what each of them is.",
        "NameError": "That name is unknown where the function stands: is it spelt right, is its import above?",
        "IndexError": "Print the shape of what is indexed and the index.",
        "AttributeError": "Check what that object is, with type(…), and how the method is spelt.",
        "UnboundLocalError": "A variable is used before it gets its first value.",
        "AxisError": "Print the shape: how many axes does the array have?",
        "RecursionError": "The function calls itself without end.",
    }.get(kind, "Run the function on a small example in a cell of your own to see where.")


def _signature(entry: Exercise, count: int) -> str:
    names = [output.name for output in entry.outputs]
    if entry.kind in ("module", "autograd"):
        return f"{count} tensor{'s' if count > 1 else ''}"
    return f"one array, {names[0]}" if count == 1 else f"{count} arrays, {', '.join(names)}, as a tuple"


def _shapes(state: Mapping) -> str:
    return ", ".join(f"{name} {_tuple(shape)}" for name, shape in state.items()) or "nothing"


# --- refusals: an output that is no plain array ------------------------------------------------------------------


def refusal(name: str, value: Mapping) -> tuple[str, str]:
    """(verdict, what is wrong and what to do) for the output `name`, which is no plain array."""
    verdict, advice = _REFUSALS[value["refused"]]
    return verdict.format(**value), f"{name} {advice.format(**value)}"


_REFUSALS = {
    "none": ("None", "is None. Is there a `return` in every branch?"),
    "no_gradient": (
        "no gradient",
        "stays empty: no gradient arrives there. Is it used in the result, and does nothing on the way cut the graph "
        "(.data, .detach(), no_grad, a None from backward)?",
    ),
    "tensor": ("a torch tensor", "is a torch tensor. This half is NumPy only: return a NumPy array."),
    "tensors": ("a list of tensors", "is a list of tensors. Return one array of plain numbers (.item() gives one)."),
    "graph": (
        "in the graph",
        "has become part of the graph, whose history then grows with every batch. Update it inside "
        "`with torch.no_grad():`.",
    ),
    "masked": ("a masked array", "is a masked array. Return a plain NumPy array: a hidden entry is no answer."),
    "subclass": ("a {type}", "is a {type}, which multiplies and compares in its own way. Return np.asarray(…)."),
    "type": ("a {type}", "is a {type}. Return a NumPy array."),
    "ragged": ("a ragged list", "is a list whose rows have different lengths. Return one NumPy array."),
    "complex": ("complex numbers", "holds complex numbers. Every number here is real: where does the i come from?"),
    "dtype": ("dtype {dtype}", "has the dtype {dtype}. Return an array of numbers."),
    "size": ("too large", "has the shape {shape}, far more than any right answer here. Look for a broadcast too many."),
}


# --- wrong values ------------------------------------------------------------------------------------------------


def explain(entry: Exercise, name: str, want: np.ndarray, got: np.ndarray, mismatch: Mismatch, case: Mapping) -> str:
    """One sentence on a wrong array, where no declared mistake and no pattern fits."""
    if mismatch.code == "shape":
        return f"{name} has the shape {_named(got.shape, case)}, expected {_contract(entry, name, want.shape)}."
    if mismatch.code == "kind":
        return (
            f"{name} holds numbers ({got.dtype}), expected booleans: of 0 and 1, `~` and indexing make something else. "
            "Comparisons give booleans, and so does dtype=bool."
        )
    if mismatch.code in ("nan", "inf"):
        what = "nan (not a number)" if mismatch.code == "nan" else "infinite"
        return (
            f"{name} is {what}{_share(mismatch, got)}. Look for a division by zero, the logarithm "
            "of zero, or the exponential of a large number."
        )
    if name.endswith(AT_THE_START):
        return f"{name} is not what PyTorch starts from: look at how it is filled and at the constructor's defaults."
    share = "every entry" if mismatch.count == got.size else f"{mismatch.count} of {got.size} entries"
    if got.size == 1:
        return f"{name} has another value. Work one small case by hand and compare, step by step."
    advice = (
        "Take the smallest case and write this one entry out as a sum; compare the terms with your code."
        if mismatch.count == got.size
        else "What do the wrong entries have in common, that the right ones do not?"
    )
    return f"{name} is wrong in {share}. {advice}"


def _share(mismatch: Mismatch, got: np.ndarray) -> str:
    return "" if got.size == 1 else f" in {mismatch.count} of {got.size} entries"


def pattern(entry: Exercise, diagnosis: Diagnosis, want: np.ndarray, got: np.ndarray, case: Mapping) -> str:
    """The sentence of a general pattern."""
    details = dict(diagnosis.details)
    if diagnosis.pattern == "sum_missing":
        details["axis_name"] = _axis_name(entry, got, details["axis"], case)
    if diagnosis.pattern == "extra_axis":
        details |= {"got": _tuple(got.shape), "want": _contract(entry, diagnosis.output, want.shape)}
    if diagnosis.pattern == "factor":
        return f"{diagnosis.output} is {details['name']} times what it should be, everywhere. " + _factor_advice(
            details["name"]
        )
    return f"{diagnosis.output} " + _PATTERNS[diagnosis.pattern or ""].format(**details)


_PATTERNS = {
    "zeros": "is all zeros. Is the array that you fill the one that you return?",
    "ones": "is all ones. Is the array that you fill the one that you return?",
    "an_input": "is {input} itself, unchanged. What does the layer do to it?",
    "another_output": "holds the values that belong to {other}. Check the order of what you return.",
    "transposed": "is transposed: its last two axes are swapped. Check the order of the factors and each .T.",
    "extra_axis": "holds the right numbers in the shape {got}, expected {want}. Look at keepdims, reshape and [None].",
    "sum_missing": "lacks a {how} over {axis_name}: one axis too many is left.",
    "sign": "has the wrong sign, everywhere.",
    "upstream_ignored": "is right only for an upstream gradient of ones: the incoming gradient is not used.",
    "one_side": "is wrong only where {where}.",
    "borders": "is right inside and wrong at the borders. Look at the padding.",
    "every_row": "is off by the same amounts in every row. What is added to all rows alike, or forgotten?",
    "constant": "is off by the same amount everywhere. What is added, or forgotten, that does not depend on position?",
    "rounded": (
        "is nearly right: right to about three digits. Look for a small term left out, a rounded constant, or "
        "numbers of low precision."
    ),
}  # fmt: skip


def _factor_advice(name: str) -> str:
    plain = name.replace("1/", "").replace("√", "").strip("()")
    if plain.isalpha() and len(plain) <= 2:
        return f"The factor changes with the size {plain}: look for a mean where a sum belongs, or the reverse."
    if "·" in name:
        return "The factor is a product of two sizes: look for a mean over too many axes, or for one too few."
    return "Look for a constant that got lost, or came in twice."


def _axis_name(entry: Exercise, got: np.ndarray, axis: int, case: Mapping) -> str:
    """By the letters of an argument or output that has just these sizes; by its number where there is none."""
    parts = [part.letters for part in (*entry.outputs, *entry.arguments)]
    letters = next((some for some in parts if [case.get(letter) for letter in some] == list(got.shape)), ())
    return f"the axis {letters[axis]}" if letters else f"axis {axis}"


def _contract(entry: Exercise, name: str, shape: tuple) -> str:
    letters = next((output.letters for output in entry.outputs if output.name == name), ())
    return f"{_tuple(letters)} = {_tuple(shape)}" if letters else _tuple(shape)


def _named(shape: tuple, case: Mapping) -> str:
    """A shape, and which named sizes these are where that is beyond doubt: (5,) = (n,)."""
    names = [[key for key, value in case.items() if type(value) is int and value == size] for size in shape]
    return (
        f"{_tuple(shape)} = {_tuple([key for (key,) in names])}" if all(len(n) == 1 for n in names) else _tuple(shape)
    )


def _tuple(shape) -> str:
    return f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"


# --- text --------------------------------------------------------------------------------------------------------


def points(value: float) -> str:
    """1.0 -> "1", 1.3333 -> "1.33"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def head(result: Result) -> str:
    """The first line of a report."""
    return f"{result.exercise}: {points(result.points)} of {result.max_points} point{_s(result.max_points)}"


def _text(result: Result) -> str:
    blocks = [head(result)]
    if result.outputs:
        blocks.append(_table(result.outputs))
    blocks += _explanations(result)
    return "\n\n".join(blocks)


def _s(count: float) -> str:
    return "" if count == 1 else "s"


def _table(outputs: tuple[Output, ...]) -> str:
    listed, left = _listed(outputs)
    rows = [(o.name, "" if o.shape is None else _tuple(o.shape), o.verdict, _error(o.error)) for o in listed]
    rows = [("output", "shape", "verdict", "largest relative error"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *([f"  {left}"] if left else [])])


def _listed(outputs: tuple[Output, ...]) -> tuple[tuple[Output, ...], str]:
    """The outputs that a report lists, and what it says of the rest: of very many, those that are wrong come first."""
    if len(outputs) <= MOST_LISTED:
        return outputs, ""
    listed = sorted(outputs, key=lambda output: output.verdict == "right")[:MOST_LISTED]
    left = [output for output in outputs if output not in listed]
    wrong = sum(output.verdict != "right" for output in left)
    return tuple(listed), f"and {len(left)} more, {f'{wrong} of them' if wrong else 'none'} wrong"


def _error(error: float | None) -> str:
    if error is None:
        return ""
    return "0" if error == 0 else f"{error:.1e}"


def _explanations(result: Result) -> list[str]:
    """The paragraphs under the table."""
    blocks = [result.problem] if result.problem else []
    if result.wrong is not None:
        before = "In a case before that one, the answer was wrong already. " if result.problem else ""
        blocks.append(before + (result.mistake or result.wrong.explanation))
        blocks += _where(result)
    if result.hint and not result.passed:
        blocks.append(f"Hint: {result.hint}")
    blocks += [f"Note: {note}" for note in result.notes]
    return blocks


def _where(result: Result) -> list[str]:
    """Where it shows, and how to see it again."""
    wrong = result.wrong
    assert wrong is not None
    lines = []
    if wrong.mismatch is not None and wrong.mismatch.code == "shape" and wrong.got is not None:
        if result.mistake:  # else the explanation has said it
            shapes = f"{_named(wrong.got.shape, wrong.case)}, expected {_tuple(wrong.want.shape)}"
            lines.append(f"Where: {wrong.name} has the shape {shapes}.")
    elif wrong.mismatch is not None and wrong.mismatch.index is not None and not result.graded:
        place = f"{wrong.name}[{', '.join(map(str, wrong.mismatch.index))}]" if wrong.want.ndim else wrong.name
        lines.append(f"Where: {place} is {_number(wrong.mismatch.got)}, expected {_number(wrong.mismatch.expected)}.")
    lines.append(f"Case {wrong.number + 1}: {_case(wrong.case)}." + _contrast(wrong))
    if not result.graded:
        lines.append(f"Again: examine({result.exercise}, seed={result.seed}), and its .wrong.inputs are the arguments.")
    return ["\n".join(lines)]


def _contrast(wrong: Wrong) -> str:
    """What tells the cases in which the output is right from the others; how many they are, if nothing does.

    Sizes are named last, and only where a size of 1 does: other sizes differ from case to case by chance.
    """
    for key in sorted(wrong.case, key=wrong.sizes.__contains__) if wrong.right_cases else ():
        if not all(key in case for case in (*wrong.right_cases, *wrong.wrong_cases)):
            continue
        bad, good = ({str(case[key]) for case in cases} for cases in (wrong.wrong_cases, wrong.right_cases))
        if bad & good or (key in wrong.sizes and {"1"} not in (bad, good)):
            continue
        if len(bad) + len(good) <= 4:
            return f" (Right where {key} is {' or '.join(sorted(good))}; wrong where it is {' or '.join(sorted(bad))}.)"
        for verdict, few in (("Right", good), ("Wrong", bad)):
            if len(few) <= 2:
                return f" ({verdict} only where {key} is {' or '.join(sorted(few))}.)"
    others = len(wrong.right_cases)
    return f" (Right in {others} other case{_s(others)}.)" if others else ""


def _number(value: float | None) -> str:
    """Whole numbers in full, others to six digits."""
    if value is None:
        return ""
    value = value + 0.0  # no -0
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _case(case: Mapping) -> str:
    return ", ".join(f"{key}={value}" for key, value in case.items()) or "with all arguments drawn at random"


# --- HTML --------------------------------------------------------------------------------------------------------

_STYLE = "font-family:system-ui,sans-serif;line-height:1.45;max-width:46em"
_RIGHT, _WRONG = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion: told apart by every eye


def _html(result: Result) -> str:
    colour = _RIGHT if result.passed else _WRONG
    head = (
        f'<p style="margin:.3em 0;border-left:.4em solid {colour};padding-left:.6em">'
        f"<b>{escape.escape(result.exercise)}</b>: {points(result.points)} of {result.max_points} "
        f"point{_s(result.max_points)}</p>"
    )
    listed, left = _listed(result.outputs)
    rows = "".join(_row(output) for output in listed)
    titles = "".join(f'<th style="text-align:left">{t}</th>' for t in ("output", "shape", "verdict", "relative error"))
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    table += f"<p>{left}</p>" if left else ""
    paragraphs = "".join(f"<p>{escape.escape(block)}</p>".replace("\n", "<br>") for block in _explanations(result))
    return head + table + paragraphs + result.picture


def _row(output: Output) -> str:
    colour = _RIGHT if output.verdict == "right" else _WRONG
    verdict = f'<b style="color:{colour}">{escape.escape(output.verdict)}</b>'
    shape = "" if output.shape is None else _tuple(output.shape)
    cells = (escape.escape(output.name), shape, verdict, _error(output.error))
    return f'<tr style="text-align:left">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _picture(wrong: Wrong) -> str:
    """Expected, got and difference side by side, as tables of coloured numbers: for small arrays of equal shape.

    Of more than two axes, the plane of the last two in which the worst value lies.
    """
    if wrong.got is None or wrong.got.shape != wrong.want.shape or wrong.mismatch is None:
        return ""
    plane = (wrong.mismatch.index or ())[:-2]
    want, got = np.atleast_2d(wrong.want[plane]).astype(float), np.atleast_2d(wrong.got[plane]).astype(float)
    if not 2 <= want.size <= 144:
        return ""
    name = f"{wrong.name}[{', '.join(map(str, plane))}]" if plane else wrong.name
    scale = float(np.max(np.abs(want), initial=0.0)) or 1.0
    gap = got - want
    pieces = [(f"{name} expected", want), (f"{name} got", got), ("got − expected", gap)]
    tables = "".join(_grid(title, values, scale) for title, values in pieces)
    return f'<div style="display:flex;flex-wrap:wrap;gap:1.2em" role="group">{tables}</div>'


def _grid(title: str, values: np.ndarray, scale: float) -> str:
    rows = "".join("<tr>" + "".join(_cell(value, scale) for value in row) + "</tr>" for row in values)
    return (
        f'<table style="border-collapse:collapse;font-size:85%"><caption style="caption-side:top;text-align:left">'
        f"{escape.escape(title)}</caption><tbody>{rows}</tbody></table>"
    )


def _cell(value: float, scale: float) -> str:
    """A number on the figures' colours, from purple (negative) over white to orange (positive)."""
    if not np.isfinite(value):
        return f'<td style="background:#444;color:#fff;padding:.15em .4em">{value}</td>'
    strength = min(abs(value) / scale, 1.0)
    full = (224, 130, 20) if value > 0 else (128, 115, 172)
    colour = ",".join(str(round(255 + (channel - 255) * strength * 0.75)) for channel in full)
    return f'<td style="background:rgb({colour});color:#111;padding:.15em .4em;text-align:right">{value + 0.0:.3g}</td>'
