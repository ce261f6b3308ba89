"""Lesson 10: windows and what pools make of them, where gradients go, adaptive windows, shifts, receptive fields."""

from functools import lru_cache

import numpy as np

from course.widgets import picture
from course.widgets.chart import both
from course.widgets.explorer import Explorer, choice, live, slider
from course.widgets.picture import COLOURS
from course.widgets.predict import Predict
from course.widgets.windows import windows

KERNELS = {"2": 2, "3": 3, "2 × 3": (2, 3)}
STRIDES = {"as the kernel": 0, "1": 1, "2": 2, "3": 3}  # a row of buttons takes None for no choice
NUMBERS = ("mixed", "all negative", "after a ReLU")


# --- windows ---------------------------------------------------------------------------------------------------------


def image(numbers="mixed"):
    """Whole numbers (6, 7): of both signs, all negative, or as a ReLU leaves them, with many zeros."""
    x = np.random.default_rng(3).integers(-9, 10, (6, 7)).astype(float)
    return {"mixed": x, "all negative": -1 - np.abs(x), "after a ReLU": np.maximum(x, 0)}[numbers]


def pair(value):
    return tuple(int(v) for v in np.broadcast_to(value, 2))


def cells(i, j, kernel_size, stride, padding):
    """The window of output (i, j), in coordinates of the image: some of it may lie in the padding."""
    (kh, kw), (sh, sw) = pair(kernel_size), pair(stride or kernel_size)
    return [(i * sh - padding + a, j * sw - padding + b) for a in range(kh) for b in range(kw)]


def on_image(spots, x):
    return [(a, b) for a, b in spots if 0 <= a < x.shape[0] and 0 <= b < x.shape[1]]


def impossible(kernel_size, padding):
    """Why PyTorch refuses this geometry; nothing where it does not."""
    if 2 * padding <= min(pair(kernel_size)):
        return ""
    return (
        f"A padding of {padding} is more than half of a kernel of {min(pair(kernel_size))}: some windows would lie in "
        "the padding altogether, and the maximum of nothing is −∞. PyTorch refuses it."
    )


def pooled(function, x, *geometry):
    return np.asarray(function(x[None, None].copy(), *geometry), float)[0, 0]


def _refusal(text):
    return f'<div class="lbl-error">{text}</div>'


def _listed(values):
    return ", ".join(picture.number(v) for v in values)


def pools(functions, references):
    """Max and average pooling: `functions` are max_pool2d_forward and avg_pool2d_forward."""
    mine = dict(zip(("max", "average"), map(live, functions), strict=True))
    right = dict(zip(("max", "average"), references, strict=True))

    def draw(kind, numbers, kernel_size, stride, padding):
        if reason := impossible(kernel_size, padding):
            return picture.figure(_refusal(reason))
        x, geometry = image(numbers), (kernel_size, stride or None, padding)
        want = pooled(right[kind], x, *geometry)
        y = np.asarray(mine[kind](x[None, None].copy(), *geometry), float)
        y = y[0, 0] if y.ndim == 4 else y

        def tell(i, j):
            spots = on_image(cells(i, j, *geometry), x)
            inside, outside = [x[spot] for spot in spots], len(cells(i, j, *geometry)) - len(spots)
            if kind == "max":
                rim = f", and {outside} × −∞" if outside else ""
                return f"y[{i}, {j}] = max({_listed(inside)}{rim}) = {picture.number(want[i, j])}"
            rim = f" + {outside} × 0" if outside else ""
            total = picture.number(sum(inside))
            terms = " + ".join(picture.number(v) if v >= 0 else f"({picture.number(v)})" for v in inside)
            size = len(inside) + outside
            return f"y[{i}, {j}] = ({terms}{rim}) / {size} = {total} / {size} = {picture.number(want[i, j])}"

        grid = windows(
            x, y, lambda i, j: cells(i, j, *geometry), tell, want=want, padding=padding,
            padding_text="−∞" if kind == "max" else "0", x_vmax=10, y_vmax=10,
            x_title=f"x {x.shape}", y_title=f"y {y.shape}", alt=said(kind, numbers, *geometry),
        )  # fmt: skip
        return picture.figure(grid, said(kind, numbers, *geometry))

    def said(kind, numbers, kernel_size, stride, padding):
        if reason := impossible(kernel_size, padding):
            return reason
        x, (kh, kw) = image(numbers), pair(kernel_size)
        (sh, sw), geometry = pair(stride or kernel_size), (kernel_size, stride or None, padding)
        want, seen = pooled(right[kind], x, *geometry), np.zeros(x.shape, int)
        for index in np.ndindex(want.shape):
            for spot in on_image(cells(*index, *geometry), x):
                seen[spot] += 1
        told = [f"{kind.capitalize()} of windows {kh} × {kw}, stride {sh} × {sw}: {x.shape} becomes {want.shape}."]
        if (seen == 0).any():
            told.append(f"{(seen == 0).sum()} cells of x lie in no window.")
        if seen.max() > 1:
            told.append(f"Windows overlap: a cell lies in up to {seen.max()} of them.")
        return " ".join(told)

    return Explorer(
        draw,
        alt=said,
        height=330,
        kind=choice("pool", ["max", "average"]),
        numbers=choice("numbers", list(NUMBERS)),
        kernel_size=choice("kernel", KERNELS, 2),
        stride=choice("stride", STRIDES, 0),
        padding=choice("padding", [0, 1, 2], 0),
    )


def overview(maximum, average, adaptive):
    """One image and what four pools make of it."""
    x = image()
    made = {
        "max, 2 × 2": pooled(maximum, x, 2),
        "average, 2 × 2": pooled(average, x, 2),
        "adaptive, to 2 × 3": pooled(adaptive, x, (2, 3)),
        "global": pooled(adaptive, x, 1),
    }
    pieces = [picture.heat(y, title, vmax=10, digits=1, role="output") for title, y in made.items()]
    return picture.row(picture.heat(x, "x", vmax=10, role="input"), picture.operator("→"), *pieces)


def adaptive(function, reference):
    """Adaptive average pooling: windows that fit any image, and overlap where the sizes do not divide."""
    mine, x = live(function), image()

    def spots(rows, columns, i, j):
        (h, w) = x.shape
        return [
            (a, b)
            for a in range(i * h // rows, -(-(i + 1) * h // rows))
            for b in range(j * w // columns, -(-(j + 1) * w // columns))
        ]

    def draw(rows, columns):
        want = pooled(reference, x, (rows, columns))
        y = np.asarray(mine(x[None, None].copy(), (rows, columns)), float)
        y = y[0, 0] if y.ndim == 4 else y

        def tell(i, j):
            inside = spots(rows, columns, i, j)
            (top, left), (bottom, right) = inside[0], inside[-1]
            total = picture.number(sum(x[spot] for spot in inside))
            return (
                f"rows {top} to {bottom}, columns {left} to {right}: the sum {total} of {_count(len(inside), 'cell')} "
                f"/ {len(inside)} = {picture.number(want[i, j])}"
            )

        grid = windows(
            x, y, lambda i, j: spots(rows, columns, i, j), tell, want=want, x_vmax=10, y_vmax=10, digits=1,
            x_title=f"x {x.shape}", y_title=f"y {y.shape}", alt=said(rows, columns),
        )  # fmt: skip
        return picture.figure(grid, said(rows, columns))

    def said(rows, columns):
        heights, widths = (
            [-(-(i + 1) * size // parts) - i * size // parts for i in range(parts)]
            for size, parts in zip(x.shape, (rows, columns), strict=True)
        )
        return (
            f"{x.shape} becomes ({rows}, {columns}). Windows of {_listed(heights)} rows, {sum(heights)} in all, of the "
            f"image's {x.shape[0]}; and of {_listed(widths)} columns, {sum(widths)} in all, of {x.shape[1]}."
        )

    return Explorer(
        draw, alt=said, height=300, rows=slider("output rows", 1, 8, 4), columns=slider("output columns", 1, 8, 3)
    )


def _count(number, one):
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


# --- where gradients go ----------------------------------------------------------------------------------------------


def winners(x, rows, columns, *geometry):
    """For each cell of x: the windows whose first maximum it is, and those where it only equals the maximum."""
    first, tied = {}, {}
    for index in np.ndindex(rows, columns):
        spots = on_image(cells(*index, *geometry), x)
        best = max(x[spot] for spot in spots)
        equal = [spot for spot in spots if x[spot] == best]
        first.setdefault(equal[0], []).append(index)
        for spot in equal[1:]:
            tied.setdefault(spot, []).append(index)
    return first, tied


def upstream(shape):
    """A gradient of small whole numbers, none of them 0."""
    values = np.random.default_rng(5).integers(1, 5, shape) * np.random.default_rng(6).choice([-1, 1], shape)
    return values.astype(float)


def ties(x, first, tied, side=30):
    """The numbers of x; first maxima have a solid outline, cells that only equal a maximum a dashed one."""
    colours = picture.palette_bytes("signed")[picture.indices(x, "signed", vmax=10)]
    squares = {
        (i, j): f"M{2 + side * j} {26 + side * i}h{side - 1}v{side - 1}h-{side - 1}z" for i, j in np.ndindex(x.shape)
    }
    drawn = [
        f'<path d="{path}" fill="#{bytes(colours[spot]).hex()}"/><text x="{side * spot[1] + 2 + side // 2}" '
        f'y="{side * spot[0] + 45}" style="fill:{"#fff" if colours[spot] @ (0.3, 0.6, 0.1) < 120 else "#111"}">'
        f"{picture.number(x[spot])}</text>"
        for spot, path in squares.items()
    ]
    for spots, dash in ((first, ""), (tied.keys() - first.keys(), ' stroke-dasharray="4 3"')):
        path = "".join(squares[spot] for spot in spots)
        drawn.append(f'<path d="{path}" fill="none" stroke="#111" stroke-width="2.4"{dash}/>')
    width, height = side * x.shape[1] + 4, 26 + side * x.shape[0] + 2
    return (
        f'<svg role="img" aria-label="x, its maxima outlined" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-size="11" text-anchor="middle"><path fill="{COLOURS["input"]}" d="M2 2h4v15h-4z"/>'
        f'<text x="13" y="14" font-size="13" font-weight="600" text-anchor="start">x {x.shape}</text>'
        f"{''.join(drawn)}</svg>"
    )


def gradients(functions, references):
    """The way back: `functions` are max_pool2d_backward and avg_pool2d_backward."""
    mine = dict(zip(("max", "average"), map(live, functions), strict=True))
    right = dict(zip(("max", "average"), references, strict=True))

    def place(kernel_size, stride, padding, numbers):
        x, size = image(numbers), pair(kernel_size)
        step = pair(stride or kernel_size)
        rows, columns = ((n + 2 * padding - k) // s + 1 for n, k, s in zip(x.shape, size, step, strict=True))
        return x, upstream((rows, columns))

    def draw(kind, numbers, kernel_size, stride, padding):
        if reason := impossible(kernel_size, padding):
            return picture.figure(_refusal(reason))
        geometry = kernel_size, stride or None, padding
        x, dy = place(*geometry, numbers)
        given = dy[None, None].copy(), x[None, None].copy(), *geometry
        want = np.asarray(right[kind](*given), float)[0, 0]
        dx = np.asarray(mine[kind](*given), float)
        dx = dx[0, 0] if dx.ndim == 4 else dx
        first, tied = winners(x, *dy.shape, *geometry)
        over = {spot: [] for spot in np.ndindex(x.shape)}
        for index in np.ndindex(dy.shape):
            for spot in on_image(cells(*index, *geometry), x):
                over[spot].append(index)
        size = np.prod(pair(kernel_size))

        def reach(i, j):
            return first.get((i, j), []) if kind == "max" else over[i, j]

        def tell(i, j):
            from_, name = reach(i, j), f"dx[{i}, {j}]"
            terms = " + ".join(f"dy[{a}, {b}]" for a, b in from_)
            result = picture.number(want[i, j])
            if kind == "average":
                return f"{name} = ({terms}) / {size} = {result}" if from_ else f"{name} = 0: it lies in no window"
            ties = tied.get((i, j), [])
            late = (
                f" It equals the maximum of {_count(len(ties), 'more window')}, but is not the first." if ties else ""
            )
            if from_:
                return f"{name} = {terms} = {result}: the maximum of {_count(len(from_), 'window')}.{late}"
            if ties:
                return f"{name} = 0: it equals the maximum of {_count(len(ties), 'window')}, but is not the first."
            return f"{name} = 0: it lies in {_count(len(over[i, j]), 'window')}, and is the maximum of none."

        grid = windows(
            dy, dx, reach, tell, want=want, x_vmax=5, y_vmax=5, x_title=f"dy {dy.shape}", y_title=f"dx {dx.shape}",
            x_role="gradient", y_role="gradient", alt=said(kind, numbers, *geometry),
        )  # fmt: skip
        left = picture.piece(ties(x, first, tied) if kind == "max" else ties(x, {}, {}))
        return picture.figure(picture.row(left, picture.piece(grid)), said(kind, numbers, *geometry))

    def said(kind, numbers, kernel_size, stride, padding):
        if reason := impossible(kernel_size, padding):
            return reason
        geometry = kernel_size, stride or None, padding
        x, dy = place(*geometry, numbers)
        dx = np.asarray(right[kind](dy[None, None], x[None, None], *geometry), float)
        total = f"dy sums to {picture.number(dy.sum())}, dx to {picture.number(dx.sum())}."
        first, tied = winners(x, *dy.shape, *geometry)
        if kind == "average":
            return f"Every cell of a window gets the same share of its gradient. {total}"
        times = max(map(len, first.values()))
        most = f" One cell wins {times} windows, and adds their gradients up." if times > 1 else ""
        late = len(tied.keys() - first.keys())
        return (
            f"{len(first)} of {x.size} cells get all of the gradient (solid outline). {_count(late, 'cell')} "
            f"{'equals' if late == 1 else 'equal'} a maximum and get nothing (dashed).{most} {total}"
        )

    return Explorer(
        draw,
        alt=said,
        height=400,
        kind=choice("pool", ["max", "average"]),
        numbers=choice("numbers", list(NUMBERS), "after a ReLU"),
        kernel_size=choice("kernel", KERNELS, 2),
        stride=choice("stride", STRIDES, 0),
        padding=choice("padding", [0, 1, 2], 0),
    )


# --- shifted images --------------------------------------------------------------------------------------------------


def distance(y, z):
    """|y - z| / |z|: 0 where nothing changed, about 1.4 for two pictures that have nothing in common."""
    length = np.sqrt((z**2).sum())
    return float(np.sqrt(((y - z) ** 2).sum()) / length) if length else 0.0


def moved(images, pixels):
    """Images whose content goes to the right by so many pixels; what leaves comes in on the other side."""
    return np.roll(images, pixels, axis=-1)


def best_match(y, start, steps):
    """The start's output, moved by the whole number of cells, `steps` or one more, that comes nearest to y."""
    return min((moved(start, k) for k in (steps, steps + 1)), key=lambda z: distance(y, z))


def shifts(images, features, layers):
    """An image is moved: what its features, and a layer behind them, make of that.

    features  images (n, 1, h, w) -> feature maps (n, c, h, w)
    layers    {name: (function of the feature maps, its stride)}
    """

    def made(name, digit, pixels):
        function, stride = layers[name]
        x = moved(images[digit : digit + 1], pixels)
        start = np.asarray(function(features(images[digit : digit + 1])), float)
        y = start if pixels == 0 else np.asarray(function(features(x)), float)
        return x, y, start, best_match(y, start, pixels // stride)

    def draw(layer, digit, pixels):
        x, y, start, match = made(layer, digit, pixels)
        top = np.abs(start).max()

        def shown(values, title, palette="magnitude", role="output"):
            low = {"vmin": 0} if palette == "magnitude" else {}
            return picture.img(
                values[0, 0], title, palette, vmax=top, width=150, title=title, role=role, shape=values.shape[2:], **low
            )

        pieces = [
            picture.img(x[0, 0], "the image", "ink", 0, 1, 150, "x", "input"),
            picture.operator("→"),
            shown(y, "y"),
            shown(y - start, "y − y of the unmoved", "signed"),
            shown(y - match, "y − the nearest moved y", "signed"),
        ]
        return picture.figure(picture.row(*pieces), said(layer, digit, pixels))

    def said(layer, digit, pixels):
        _, y, start, match = made(layer, digit, pixels)
        back = distance(y, match)
        end = "nothing is left" if back < 1e-9 else f"{back:.0%} are left"
        return (
            f"{layer[0].upper()}{layer[1:]}, moved by {_count(pixels, 'pixel')}: in place the output has changed by "
            f"{distance(y, start):.0%} of its length; put back by whole cells as well as possible, {end}."
        )

    return Explorer(
        draw,
        alt=said,
        height=200,
        layer=choice("layer", list(layers), list(layers)[1]),
        digit=slider("image", 0, len(images) - 1, 0),
        pixels=slider("moved to the right by", 0, 6, 1),
    )


# --- receptive fields ------------------------------------------------------------------------------------------------

STACKS = {
    "convolutions": lambda k, n: [(k, 1)] * n,
    "convolution, average pool, …": lambda k, n: [(2, 2) if i % 2 else (k, 1) for i in range(n)],
    "convolution, max pool, …": lambda k, n: [(2, 2) if i % 2 else (k, 1) for i in range(n)],
    "stride 2": lambda k, n: [(k, 2)] * n,
    "dilated 1, 2, 4, …": lambda k, n: [(k, 1, 2**i) for i in range(n)],
}


def sources(layers):
    """For each level from the top down: the units that the one output unit depends on, and at last the pixels."""
    levels = [[0]]
    for kernel_size, stride, *dilation in reversed(layers):
        step = dilation[0] if dilation else 1
        levels.append(sorted({u * stride + tap * step for u in levels[-1] for tap in range(kernel_size)}))
    return levels


def pyramid(layers, field, width=430):
    """The tree of units behind one output, each drawn above the middle of the pixels that it sees."""
    levels, fields = sources(layers), [field(layers[:k]) for k in range(len(layers), -1, -1)]
    pixels, row, label = levels[-1][-1] + 1, 40, 92
    cell = (width - label) / max(pixels, 12)
    parts, centres = [], []
    for depth, (units, (size, jump)) in enumerate(zip(levels, fields, strict=True)):
        y = 14 + row * depth
        spots = {u: label + cell * (u * jump + size / 2) for u in units}
        centres.append(spots)
        side = min(16.0, max(2.5, 0.75 * cell * jump))
        colour = COLOURS["output"] if depth == 0 else COLOURS["input"] if depth == len(layers) else "#8a8a8a"
        squares = "".join(
            f"M{x - side / 2:.1f} {y - side / 2:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z" for x in spots.values()
        )
        name = "input" if depth == len(layers) else f"layer {len(layers) - depth}"
        parts.append(f'<path d="{squares}" fill="{colour}"/><text x="0" y="{y + 4}">{name}: {int(size)}</text>')
    lines = []
    for depth, (kernel_size, stride, *dilation) in enumerate(reversed(layers)):
        step, y = dilation[0] if dilation else 1, 14 + row * depth
        for u, x in centres[depth].items():
            for tap in {0, kernel_size - 1}:
                lines.append(f"M{x:.1f} {y}L{centres[depth + 1][u * stride + tap * step]:.1f} {y + row}")
    height = 14 + row * len(layers) + 14
    return (
        f'<svg role="img" aria-label="the units behind one output" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-size="11.5"><path d="{"".join(lines)}" stroke="currentColor" opacity=".25" '
        f'fill="none"/>{"".join(parts)}</svg>'
    )


def laid_over(values, size, want, side=230):
    """|gradient| of the first output at the pixels, and the square of `size` pixels that it should fill."""
    reach, rim = max(want, int(size)) + 4, 2
    part = np.full((reach, reach), np.nan)
    inside = values[: reach - rim, : reach - rim]
    with np.errstate(divide="ignore"):
        logarithms = np.log10(inside / values.max())
    part[rim : rim + len(inside), rim : rim + inside.shape[1]] = np.where(inside > 0, logarithms, np.nan)
    unit = side / reach
    squares = [(want, COLOURS["wrong"])] * (int(size) != want) + [(int(size), COLOURS["output"])]
    drawn = "".join(
        f'<rect x="{rim * unit:.1f}" y="{rim * unit:.1f}" width="{n * unit:.1f}" height="{n * unit:.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="3"/>'
        for n, colour in squares
    )
    return (
        f'<svg role="img" aria-label="size of the gradient at each pixel" viewBox="0 0 {side} {side}" width="{side}" '
        f'height="{side}"><rect width="{side}" height="{side}" fill="#8884"/><image width="{side}" height="{side}" '
        f'href="{picture.data_uri(picture.png8(part, "magnitude", -3, 0))}" style="image-rendering:pixelated"/>'
        f"{drawn}</svg>"
    )


def field(receptive_field, reference, measured):
    """The receptive field of one output: computed, and measured by its gradient.

    measured  (layers, pool) -> |gradient| (h, w) of the first output at the pixels; pool is "max" or "average"
    """
    mine = live(receptive_field)

    @lru_cache
    def found(stack, kernel_size, depth):
        return measured(STACKS[stack](kernel_size, depth), "max" if "max" in stack else "average")

    def draw(stack, kernel_size, depth):
        layers = STACKS[stack](kernel_size, depth)
        (size, jump), (right, leap) = mine(layers), (int(v) for v in reference(layers))
        numbers = picture.piece(f'<div class="lbl-note">size {both(size, right, 0)}, jump {both(jump, leap, 0)}</div>')
        values = found(stack, kernel_size, depth)
        left = picture.piece(pyramid(layers, mine), "the units behind one output, and how many pixels each sees")
        seen = picture.piece(laid_over(values, size, right), "its gradient, and the computed square")
        return picture.figure(picture.row(left, seen) + numbers, said(stack, kernel_size, depth))

    def said(stack, kernel_size, depth):
        layers = STACKS[stack](kernel_size, depth)
        size, jump = (int(v) for v in reference(layers))
        values = found(stack, kernel_size, depth)
        inside = values[:size, :size]
        beyond = (values > 0).sum() - (inside > 0).sum()
        return (
            f"{_count(depth, 'layer')}: one output can depend on {size} × {size} pixels, the next one lies {jump} "
            f"further. Measured: the gradient is not 0 at {np.mean(inside > 0):.0%} of these pixels and at "
            f"{beyond or 'none'} beyond; the strongest tenth of them hold {_share_of_strongest(inside):.0%} of it."
        )

    return Explorer(
        draw,
        alt=said,
        height=330,
        stack=choice("layers", list(STACKS), "convolution, average pool, …"),
        kernel_size=choice("kernel", [3, 5], 3),
        depth=slider("number of layers", 1, 5, 4),
    )


def _share_of_strongest(values):
    ordered = np.sort(values, axis=None)[::-1]
    return ordered[: max(1, ordered.size // 10)].sum() / ordered.sum()


# --- predictions -----------------------------------------------------------------------------------------------------


def guess_field(reference):
    """Predict: how far one output sees through two convolutions and two pools."""
    layers = [(3, 1), (2, 2), (3, 1), (2, 2)]
    field = reference("receptive_field")
    size, jump = (int(v) for v in field(layers))
    return Predict(
        "A 3 × 3 convolution, a 2 × 2 pool (stride 2), a 3 × 3 convolution, a 2 × 2 pool. How many pixels, along one "
        "axis, can one output at the end depend on?",
        answer=size,
        reveal=lambda: (
            pyramid(layers, field)
            + picture.note(f"Its neighbour sees {size} pixels as well, {jump} further on: they share {size - jump}.")
        ),
    )


def guess_ties(reference):
    """Predict: who gets the gradient of a window of zeros."""
    backward = reference("max_pool2d_backward")

    def reveal():
        x, dy = np.zeros((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
        dx = backward(dy, x, 2)[0, 0]
        return picture.row(
            picture.heat(x[0, 0], "x", vmax=1, role="input"), picture.heat(dy[0, 0], "dy", vmax=1, role="gradient"),
            picture.operator("→"), picture.heat(dx, "dx", vmax=1, role="gradient"),
        ) + picture.note("PyTorch's pool remembers the position of one maximum, the first that it met.")  # fmt: skip

    return Predict(
        "A ReLU has left four zeros in the window of a max pool. All four are the maximum. The gradient 1 arrives: who "
        "gets it?",
        answer="the first, all of it",
        options=["all four, 1 each", "all four, 1/4 each", "the first, all of it", "nobody: they are zeros"],
        reveal=reveal,
    )
