"""Lesson 09: the convolution explorer and its backward twin, a layer as a matrix, columns, shifts, learned kernels."""

from functools import lru_cache
from html import escape

import numpy as np

from course.data.digits import digits
from course.widgets import picture
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.predict import Predict
from course.widgets.windows import windows

INK = 9  # the strongest pixel: a whole number, so that products can be followed
KERNELS = {
    "vertical edges": np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    "blur": np.full((3, 3), 1 / 9),
    "sharpen": np.array([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "outline": np.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
    "identity": np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "shift": np.array([[0.0, 0, 0], [0, 0, 1], [0, 0, 0]]),
    "1 × 2": np.array([[-1.0, 1]]),
    "5 × 5": np.full((5, 5), 1 / 25),
}
TURNS = {
    "as it is": lambda w: w,
    "a quarter": np.rot90,
    "half": lambda w: w[::-1, ::-1],
    "mirrored": lambda w: w[:, ::-1],
}
LAYERS = {"1": (1, 1), "2, one group": (2, 1), "2, two groups": (2, 2), "3, two groups": (3, 2)}


# --- pictures and geometry -------------------------------------------------------------------------------------------


@lru_cache
def image(name):
    """A picture (8, 8) of whole numbers from 0 to 9."""
    rows, columns = np.indices((8, 8))
    patterns = {
        "step": columns >= 4,
        "stripes": columns % 4 < 2,
        "diagonal": rows == columns,
        "dot": (rows == 3) & (columns == 4),
        "square": (abs(rows - 3.5) < 2.5) & (abs(columns - 3.5) < 2.5),
    }
    if name in patterns:
        return INK * patterns[name].astype(float)
    known = digits()
    return np.rint(INK * known.x_test[known.y_test == int(name.removeprefix("digit "))][1].reshape(8, 8))


IMAGES = ("digit 3", "digit 7", "step", "stripes", "diagonal", "dot", "square")


def kernel_of(name, turn, tap=0, add=0.0):
    """A kernel with `add` more on one of its taps, then turned; and the cell where that tap is now."""
    w, there = KERNELS[name].copy(), np.zeros(KERNELS[name].shape, bool)
    tap = min(tap, w.size - 1)
    w.flat[tap] += add
    there.flat[tap] = True
    return TURNS[turn](w), tuple(np.argwhere(TURNS[turn](there))[0].tolist())


def layer_of(x, w, channels, groups):
    """Input (1, c, h, w), weights and bias: channel k is the picture turned k quarters, every other kernel half."""
    inputs = np.stack([np.rot90(x, k) for k in range(channels)])[None]
    kernels = np.stack([[w[:: (-1) ** k, :: (-1) ** k]] * max(1, channels // groups) for k in range(channels)])
    return inputs, kernels, np.zeros(channels)


def spot(i, j, tap, stride, padding, dilation):
    """The cell of x that the output (i, j) takes at one tap."""
    return i * stride + tap[0] * dilation - padding, j * stride + tap[1] * dilation - padding


def why_not(size, kernel_size, padding, dilation, channels=1, groups=1):
    """Why this geometry has no output, in words; nothing where it has one."""
    if channels % groups:
        return (
            f"{channels} channels can't be dealt out to {groups} groups of the same size: `groups` has to divide the "
            "channels, of the input and of the output."
        )
    for name, length, k in zip(("rows", "columns"), size, kernel_size, strict=True):
        span, room = dilation * (k - 1) + 1, length + 2 * padding
        if span > room:
            enough = -(-(span - length) // 2)
            width = f"{dilation} · ({k} − 1) + 1 = {span}" if dilation > 1 else f"{k}"
            return (
                f"The kernel does not fit: it spans {width} {name}, and the picture with its padding has {length} + "
                f"2 · {padding} = {room}. There is not one window, and no output. A padding of {enough} would "
                f"be enough{', or less dilation' if dilation > 1 else ''}."
            )
    return ""


def _refused(reason):
    return picture.figure(f'<div class="lbl-error">{escape(reason)}</div>')


def _product(a, b):
    """A product as one writes it: negative factors in brackets."""
    left, right = picture.number(a), picture.number(b)
    return f"{left}·({right})" if right.startswith("−") else f"{left}·{right}"


def sized(length, k, stride, padding, dilation):
    """How many windows fit along an axis."""
    return (length + 2 * padding - dilation * (k - 1) - 1) // stride + 1


# --- the explorer ----------------------------------------------------------------------------------------------------


def explorer(conv2d_forward, reference, kernel="vertical edges"):
    """A picture, a kernel and a geometry in the reader's hands; every output shows its window and its products."""
    mine = live(conv2d_forward)

    def draw(which, kernel, turn, tap, add, stride, padding, dilation, layer):
        w, marked = kernel_of(kernel, turn, tap, add)
        reason = why_not((8, 8), w.shape, padding, dilation, *layer)
        if reason:
            return _refused(reason)
        x, weights, b = layer_of(image(which), w, *layer)
        geometry = stride, padding, dilation, layer[1]
        got, want = mine(x.copy(), weights.copy(), b.copy(), *geometry), reference(x, weights, b, *geometry)
        if np.shape(got) == want.shape:
            got, want = np.asarray(got)[0], want[0]
        around = np.pad(x[0], ((0, 0), (padding,) * 2, (padding,) * 2))
        seen, taps = weights.shape[1], list(np.ndindex(w.shape))

        def channels_of(k):
            return [k // seen * seen + n for n in range(seen)]

        def reach(k, i, j):
            return [(c, *spot(i, j, at, stride, padding, dilation)) for c in channels_of(k) for at in taps]

        def tell(k, i, j):
            terms = [
                _product(around[c, i * stride + u * dilation, j * stride + v * dilation], weights[k, n, u, v])
                for n, c in enumerate(channels_of(k))
                for u, v in taps
                if weights[k, n, u, v]
            ]
            return f"y[{k}, {i}, {j}] = {' + '.join(terms) or '0'} = {picture.number(want[k, i, j])}"

        values = dict(zip(controls, (which, kernel, turn, tap, add, stride, padding, dilation, layer), strict=True))
        grids = windows(
            x[0],
            got,
            reach,
            tell,
            want=want,
            x_title=f"x {x.shape}",
            y_title=f"y {(1, *want.shape[-3:])}",
            padding=padding,
            alt=said(**values),
            x_vmax=INK,
            y_vmax=INK * max(w[w > 0].sum(), -w[w < 0].sum(), 0.1) * seen,
        )
        kernel_shown = picture.heat(w, "kernel", vmax=2, mark=[marked], role="parameter")
        return picture.figure(picture.row(kernel_shown, picture.piece(grids)), said(**values))

    def said(which, kernel, turn, tap, add, stride, padding, dilation, layer):
        kh, kw = kernel_of(kernel, turn)[0].shape
        rows, columns = (sized(8, k, stride, padding, dilation) for k in (kh, kw))
        seen = layer[0] // layer[1]
        whom = (
            f" Each output channel sees {seen} of {layer[0]} input channels. Each picture is the one above, turned by "
        )
        whom += "a quarter; each kernel is the one before, turned by half."
        return why_not((8, 8), (kh, kw), padding, dilation, *layer) or (
            f"{rows} × {columns} windows of {kh} × {kw} taps on 8 × 8 pixels: each output is {seen * kh * kw} products "
            f"and their sum. (The text leaves out taps of weight 0.){whom * (layer[0] > 1)}"
        )

    controls = dict(
        which=choice("picture", list(IMAGES)),
        kernel=choice("kernel", list(KERNELS), kernel),
        turn=choice("turned", list(TURNS)),
        tap=slider("tap", 0, 8, 4),
        add=slider("add to the tap", -3.0, 3.0, 0.0, 0.5),
        stride=slider("stride", 1, 4),
        padding=slider("padding", 0, 3),
        dilation=slider("dilation", 1, 5),
        layer=choice("channels", LAYERS),
    )
    return Explorer(draw, alt=said, height=480, **controls)


# --- its backward twin -----------------------------------------------------------------------------------------------

SMALL = {name: KERNELS[name] for name in ("vertical edges", "blur", "sharpen", "1 × 2")}
SIDES = {"an output: where does its gradient go?": "output", "an input: what arrives there?": "input"}


def sent(conv2d_backward, dy, x, w, *geometry):
    """What each output sends to each input, (rows, columns, h, w): one picture for every output, dy zero elsewhere."""
    rows, columns = dy.shape
    alone = (np.eye(dy.size) * dy.ravel()).reshape(dy.size, 1, rows, columns)
    dx, *_ = conv2d_backward(alone, np.repeat(x[None, None], dy.size, axis=0), w[None, None], np.zeros(1), *geometry)
    return np.asarray(dx, float).reshape(rows, columns, *x.shape)


def gradients(conv2d_backward, reference):
    """The twin of the explorer: which inputs the gradient of an output reaches, and what arrives at an input."""
    mine, x = live(conv2d_backward), image("digit 3")[1:7, 1:7]
    upstream = np.random.default_rng(9).integers(-2, 4, (8, 8)).astype(float)

    def draw(side, kernel, stride, padding, dilation):
        w, geometry = SMALL[kernel], (stride, padding, dilation)
        reason = why_not(x.shape, w.shape, padding, dilation)
        if reason:
            return _refused(reason)
        dy = upstream[tuple(slice(sized(6, k, *geometry)) for k in w.shape)]
        given = dy[None, None], x[None, None], w[None, None], np.zeros(1)
        got, want = (f(*(a.copy() for a in given), *geometry) for f in (mine, reference))
        shares = sent(mine, dy, x, w, *geometry)
        ways = {"output": _from_output, "input": _to_input}
        grids = ways[side](dy, shares, *(np.asarray(pair[0], float)[0, 0] for pair in (got, want)))
        dw = picture.compare(np.asarray(got[1], float)[0, 0], want[1][0, 0], "dw", vmax=60, role="gradient")
        pieces = picture.piece(picture.heat(w, "w", vmax=2, role="parameter") + dw)
        return picture.figure(picture.row(pieces, picture.piece(grids)), said(side, kernel, stride, padding, dilation))

    def said(side, kernel, stride, padding, dilation):
        w = SMALL[kernel]
        reason = why_not(x.shape, w.shape, padding, dilation)
        if reason:
            return reason
        dy = upstream[tuple(slice(sized(6, k, stride, padding, dilation)) for k in w.shape)]
        times = (sent(reference, dy, x, w, stride, padding, dilation) != 0).sum((0, 1))
        return (
            f"The gradients of {dy.size} outputs on their way to 36 inputs: an input hears from {times.min()} to "
            f"{times.max()} of them. dw collects from every window."
        )

    return Explorer(
        draw,
        alt=said,
        height=420,
        side=choice("point at", SIDES),
        kernel=choice("kernel", list(SMALL)),
        stride=slider("stride", 1, 4),
        padding=slider("padding", 0, 2),
        dilation=slider("dilation", 1, 4),
    )


def _from_output(dy, shares, got, want):
    """Point at dy: the inputs that its gradient reaches."""

    def tell(i, j):
        parts = [f"{picture.number(value)} to dx[{p}, {q}]" for (p, q), value in np.ndenumerate(shares[i, j]) if value]
        return f"dy[{i}, {j}] = {picture.number(dy[i, j])} sends {', '.join(parts) or 'nothing'}."

    return windows(
        got,
        dy,
        lambda i, j: np.argwhere(shares[i, j]).tolist(),
        tell,
        x_title="dx",
        y_title="dy",
        x_role="gradient",
        y_role="gradient",
        x_vmax=12,
        y_vmax=4,
    ) + (picture.compare(got, want, "dx") if picture.differs(got, want).any() else "")


def _to_input(dy, shares, got, want):
    """Point at dx: the outputs whose gradients arrive there."""

    def tell(p, q):
        parts = [f"{picture.number(value)} from dy[{i}, {j}]" for (i, j), value in np.ndenumerate(shares[..., p, q])
                 if value]  # fmt: skip
        return f"dx[{p}, {q}] = {picture.number(want[p, q])}: {', '.join(parts) or 'no gradient arrives'}."

    return windows(
        dy,
        got,
        lambda p, q: np.argwhere(shares[..., p, q]).tolist(),
        tell,
        want=want,
        x_title="dy",
        y_title="dx",
        x_role="gradient",
        y_role="gradient",
        x_vmax=4,
        y_vmax=12,
    )


# --- the layer as a matrix, and its windows as columns ---------------------------------------------------------------


def as_matrix(conv2d_forward, w, side, *geometry):
    """The matrix (outputs, inputs) that multiplies the flattened picture: what the layer makes of single pixels."""
    pixels = np.eye(side * side).reshape(-1, 1, side, side)
    y = np.asarray(conv2d_forward(pixels, w[None, None], np.zeros(1), *geometry), float)
    return y.reshape(len(pixels), -1).T


def matrix(conv2d_forward, reference):
    """The dense layer that does the same as a convolution: mostly zeros, and few different numbers."""
    mine = live(conv2d_forward)

    def draw(kernel, stride, padding, dilation):
        w, geometry = KERNELS[kernel], (stride, padding, dilation)
        reason = why_not((6, 6), w.shape, padding, dilation)
        if reason:
            return _refused(reason)
        got, want = (as_matrix(f, w, 6, *geometry) for f in (mine, reference))
        same = got.shape == want.shape and not picture.differs(got, want).any()
        off = "" if same else " It differs from the reference's."
        shown = picture.img(got, said(kernel, stride, padding, dilation), "signed", vmax=np.abs(w).max(), width=430,
                            title="as a dense layer", role="parameter")  # fmt: skip
        small = picture.heat(w, "kernel", vmax=np.abs(w).max(), role="parameter")
        return picture.figure(picture.row(small, shown), said(kernel, stride, padding, dilation) + off)

    def said(kernel, stride, padding, dilation):
        w = KERNELS[kernel]
        reason = why_not((6, 6), w.shape, padding, dilation)
        if reason:
            return reason
        used = as_matrix(reference, np.ones(w.shape), 6, stride, padding, dilation)
        return (
            f"A row for each of {len(used)} outputs, a column for each of 36 pixels: {used.size:,} weights, "
            f"{int((used == 0).sum()):,} of them 0 because the pixel is not in the window, and the others are the "
            f"kernel's {w.size} numbers over and over."
        )

    return Explorer(
        draw,
        alt=said,
        height=340,
        kernel=choice("kernel", [*SMALL, "5 × 5"]),
        stride=slider("stride", 1, 3),
        padding=slider("padding", 0, 2),
        dilation=slider("dilation", 1, 5),
    )


def columns(im2col, reference):
    """A small picture and its windows as columns."""
    mine = live(im2col)
    x = np.add.outer(10.0 * np.arange(4), np.arange(4))[None, None]

    def draw(kernel_size, stride, padding, dilation):
        reason = why_not((4, 4), kernel_size, padding, dilation)
        if reason:
            return _refused(reason)
        got = mine(x.copy(), kernel_size, stride, padding, dilation)
        want = reference(x, kernel_size, stride, padding, dilation)
        if np.shape(got) == want.shape:
            got, want = np.asarray(got)[0], want[0]
        across = sized(4, kernel_size[1], stride, padding, dilation)

        def place(q, place):
            return spot(*divmod(place, across), divmod(q, kernel_size[1]), stride, padding, dilation)

        def tell(q, column):
            at, window, cell = divmod(q, kernel_size[1]), divmod(column, across), place(q, column)
            inside = min(cell) >= 0 and max(cell) < 4
            whose = f"x[{cell[0]}, {cell[1]}] = {picture.number(x[0, 0][cell])}" if inside else "a zero of the padding"
            return f"Column {column} is window {window}, row {q} its tap {at}: {whose}."

        grids = windows(
            x[0, 0],
            got,
            lambda q, column: [place(q, column)],
            tell,
            want=want,
            x_title="x (1, 1, 4, 4)",
            y_title=f"columns {(1, *want.shape[-2:])}",
            padding=padding,
            alt=said(kernel_size, stride, padding, dilation),
            x_vmax=40,
            y_vmax=40,
        )
        return picture.figure(grids, said(kernel_size, stride, padding, dilation))

    def said(kernel_size, stride, padding, dilation):
        reason = why_not((4, 4), kernel_size, padding, dilation)
        if reason:
            return reason
        want = reference(x, kernel_size, stride, padding, dilation)[0]
        return (
            f"Each pixel shows its row and column. The 16 of them become {want.shape[1]} columns of {want.shape[0]}: "
            f"{want.size} numbers."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        kernel_size=choice("kernel", {"2 × 2": (2, 2), "2 × 3": (2, 3), "3 × 3": (3, 3)}),
        stride=slider("stride", 1, 3),
        padding=slider("padding", 0, 1),
        dilation=slider("dilation", 1, 3),
    )


# --- shifts ----------------------------------------------------------------------------------------------------------


def scene(background, shift):
    """A digit (12, 16) on a background, `shift` pixels further to the right."""
    field = np.full((12, 16), float(background))
    part = field[2:10, shift : shift + 8]
    part[:] = np.maximum(part, image("digit 3")[:, : part.shape[1]])
    return field


def two_orders(conv2d_forward, w, background, shift, stride, padding):
    """Shift, then convolve; convolve, then shift by as many output cells (nan where nothing is known to come in)."""

    def convolved(x):
        return np.asarray(conv2d_forward(x[None, None], w[None, None], np.zeros(1), stride, padding), float)[0, 0]

    first, y = convolved(scene(background, shift)), convolved(scene(background, 0))
    moved, by = np.full_like(y, np.nan), shift // stride
    moved[:, by:] = y[:, : y.shape[1] - by]
    return first, moved


def shifting(conv2d_forward, kernel="vertical edges"):
    """Equivariance, and where it ends: shift first or convolve first."""
    mine = live(conv2d_forward)

    def draw(kernel, shift, stride, padding, background):
        w = SMALL[kernel]
        first, moved = two_orders(mine, w, background, shift, stride, padding)
        top = INK * max(w[w > 0].sum(), -w[w < 0].sum())
        width = 13 * first.shape[1] * stride
        pieces = [picture.img(scene(background, shift), "the shifted picture", "signed", vmax=INK, width=208,
                              title="x, shifted", role="input")]  # fmt: skip
        for values, title in ((first, "shift, then convolve"), (moved, "convolve, then shift"), (first - moved, "gap")):
            pieces.append(
                picture.img(values, title, "signed", vmax=top, width=min(width, 208), title=title, role="output")
            )
        return picture.figure(picture.row(*pieces), said(kernel, shift, stride, padding, background, mine))

    def said(kernel, shift, stride, padding, background, conv=None):
        first, moved = two_orders(conv or mine, SMALL[kernel], background, shift, stride, padding)
        known = ~np.isnan(moved)
        off = int((np.abs(first - moved)[known] > 1e-9).sum())
        found = "agree everywhere" if not off else f"differ in {off} of {known.sum()} cells"
        part = f", which is no whole number of output cells: {shift} / {stride}" if shift % stride else ""
        return f"Shifted by {shift}{part}. The two orders {found} (left out: what has come in from outside)."

    return Explorer(
        draw,
        alt=said,
        height=300,
        kernel=choice("kernel", list(SMALL), kernel),
        shift=slider("shift", 0, 10, 3),
        stride=slider("stride", 1, 3),
        padding=slider("padding", 0, 2),
        background=choice("background", {"0, like the padding": 0, "3": 3}),
    )


# --- what training has found -----------------------------------------------------------------------------------------


def learned(conv2d_forward, steps, kernels, biases, heads, examples, names):
    """Kernels on their way through training, and what one of them makes of a picture.

    kernels (snapshots, o, 1, kh, kw), biases (snapshots, o), heads (snapshots, classes, o), examples (classes, 1, h, w)
    """
    mine, top, side = live(conv2d_forward), np.abs(kernels).max(), kernels.shape[-1]

    def activation(snapshot, k, which):
        x, w, b = examples[which : which + 1], kernels[snapshot, k : k + 1], biases[snapshot, k : k + 1]
        return np.maximum(np.asarray(mine(x, w, b, 1, side // 2), float)[0, 0], 0)

    def draw(snapshot, k, which):
        shown = picture.mosaic(kernels[snapshot, :, 0], columns=len(kernels[0]))
        every = picture.img(shown, f"{len(kernels[0])} kernels", "signed", vmax=top, width=60 * len(kernels[0]),
                            title="all kernels", role="parameter", shape=kernels[snapshot].shape)  # fmt: skip
        one = picture.img(kernels[snapshot, k, 0], f"kernel {k}", "signed", vmax=top, width=120, title=f"kernel {k}",
                          role="parameter")  # fmt: skip
        x = picture.img(examples[which, 0], f"a stroke {names[which]}", "signed", vmax=1.5, width=180, title="x",
                        role="input")  # fmt: skip
        y = picture.img(activation(snapshot, k, which), "feature map", "magnitude", 0, 3, width=180,
                        title="feature map, after ReLU", role="output")  # fmt: skip
        votes = picture.heat(
            heads[snapshot, :, k], "its weights for", columns=names, vmax=np.abs(heads).max(), role="parameter"
        )
        chain = picture.row(x, picture.operator("∗"), one, picture.operator("→"), y, votes)
        return picture.figure(every + chain, said(snapshot, k, which))

    def said(snapshot, k, which):
        y = activation(snapshot, k, which)
        best = names[int(heads[snapshot, :, k].argmax())]
        return (
            f"Step {steps[snapshot]}: kernel {k} answers this “{names[which]}” with {y.max():.2f} at most and "
            f"{y.mean():.2f} on average. The class that it speaks for most is “{best}”."
        )

    moments = {str(step): n for n, step in enumerate(steps)}
    return Explorer(
        draw,
        alt=said,
        height=380,
        snapshot=choice("step", moments, len(steps) - 1),
        k=slider("kernel", 0, len(kernels[0]) - 1, int(np.abs(heads[-1]).max(0).argmax())),
        which=choice("stroke", {name: n for n, name in enumerate(names)}),
    )


# --- predictions -----------------------------------------------------------------------------------------------------


def guess_shift(reference):
    """Predict: where a kernel with its only weight on the right moves the picture."""
    x, w = image("digit 3"), KERNELS["shift"]

    def reveal():
        y = reference("conv2d_forward")(x[None, None], w[None, None], np.zeros(1), 1, 1)[0, 0]
        return picture.row(
            picture.heat(x, "x", role="input"),
            picture.heat(w, "w", vmax=2, role="parameter"),
            picture.heat(y, "y", role="output"),
        ) + picture.note("Every output takes the pixel on its right: what was at column 3 appears at column 2.")

    return Predict(
        "A 3 × 3 kernel is zero but for a 1 to the right of its middle. Where does it move the picture?",
        answer="one pixel to the left",
        options=["one pixel to the left", "one pixel to the right", "nowhere", "it copies it next to itself"],
        reveal=reveal,
    )


def guess_parameters(reference):
    """Predict: how many weights the dense layer between the same pictures has."""
    shared, dense = (int(count) for count in reference("count_conv_parameters")(1, 16, 3, 3, 1, 28, 28))

    def reveal():
        return picture.note(
            f"The convolution has 16 kernels of 9 weights and 16 biases: {shared} parameters. The dense layer has a "
            f"weight from each of 784 pixels to each of 16 · 26 · 26 = 10,816 outputs, and a bias for each: {dense:,}, "
            f"{dense // shared:,} times as many."
        )

    return Predict(
        "A 28 × 28 picture becomes 16 feature maps of 26 × 26 by 3 × 3 kernels: 160 parameters. How many has a dense "
        "layer from the same input to the same output?",
        answer=f"{dense:,}",
        options=["7,840", "108,160", "1,081,600", f"{dense:,}"],
        reveal=reveal,
    )
