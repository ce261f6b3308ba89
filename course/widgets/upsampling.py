"""Lesson 14: painting with kernels, sampling between pixels, checkerboards, thresholds, and U-Net without its skips."""

from functools import lru_cache

import numpy as np

from course.widgets import picture
from course.widgets.explorer import Explorer, choice, live, slider, toggle
from course.widgets.predict import Predict
from course.widgets.windows import windows

COLOURS = picture.COLOURS
CLASSES = ("background", "organ", "lesion")
GREY = np.repeat(np.arange(255, dtype=np.uint8)[:, None], 3, axis=1)  # bright is high, as scans are shown
MASK = ((34, 34, 42), (86, 180, 233), (230, 159, 0))  # background, organ, lesion


def overview(functions, image):
    """A small image (h, w) enlarged four times by transposed convolution, nearest and bilinear; functions by name."""
    x, ones = image[None, None], np.full((1, 1, 5, 5), 0.6)
    large = {
        "transposed convolution": functions["conv_transpose2d_forward"](x, ones, np.zeros(1), 4, 0),
        "nearest": functions["upsample_nearest_forward"](x, 4),
        "bilinear": functions["upsample_bilinear_forward"](x, 4),
    }
    pieces = [picture.img(image, "a small image", GREY, 0, 1, width=60, title="x", role="input"), picture.operator("→")]
    pieces += [
        picture.img(y[0, 0], f"enlarged: {name}", GREY, 0, 1, width=190, title=name, role="output")
        for name, y in large.items()
    ]
    return picture.row(*pieces)


# --- transposed convolution ------------------------------------------------------------------------------------------

PAINT = np.array([[1.0, 2, 0], [0, 3, 1], [2, 0, 1]])
KERNEL = np.array([[1.0, 2, 1, 0], [0, 1, -1, 1], [2, 1, 1, 0], [1, 0, 1, 1]])


def reached(i, j, kernel_size, stride, padding):
    """The output cells that input pixel (i, j) paints; negative ones, and those beyond the end, are cropped."""
    rows, columns = (range(k * stride - padding, k * stride - padding + kernel_size) for k in (i, j))
    return [(a, b) for a in rows for b in columns]


def painters(a, b, shape, kernel_size, stride, padding):
    """The input pixels that paint output cell (a, b), each with the kernel entry that it brings there."""
    return [
        ((i, j), (a + padding - i * stride, b + padding - j * stride))
        for i, j in np.ndindex(shape)
        if (a, b) in reached(i, j, kernel_size, stride, padding)
    ]


def painting(conv_transpose2d_forward, reference, point_at="an input pixel"):
    """Point at an input pixel to see what it paints, or at an output cell to see who painted it."""
    mine, x = live(conv_transpose2d_forward), PAINT

    def of(function, kernel_size, stride, padding):
        w = KERNEL[:kernel_size, :kernel_size]
        return np.asarray(function(x[None, None].copy(), w[None, None].copy(), np.zeros(1), stride, padding))[0, 0]

    def draw(point_at, kernel_size, stride, padding):
        size = (len(x) - 1) * stride + kernel_size - 2 * padding
        if size < 1:
            return picture.note(impossible(kernel_size, stride, padding))
        y, want = (of(f, kernel_size, stride, padding) for f in (mine, reference))
        w = KERNEL[:kernel_size, :kernel_size]

        def paints(i, j):
            top, left = i * stride - padding, j * stride - padding
            lost = sum(not (0 <= a < size and 0 <= b < size) for a, b in reached(i, j, kernel_size, stride, padding))
            cropped = f"; {lost} of its cells are cropped" if lost else ""
            return (
                f"x[{i}, {j}] = {picture.number(x[i, j])} adds {picture.number(x[i, j])} times the kernel, its upper "
                f"left corner at row {picture.number(top)}, column {picture.number(left)}{cropped}."
            )

        def collects(a, b):
            terms = painters(a, b, x.shape, kernel_size, stride, padding)
            products = " + ".join(f"{picture.number(x[at])} · {picture.number(w[entry])}" for at, entry in terms)
            return f"y[{a}, {b}] = {products or 'nothing: no patch reaches it, so 0'}" + (
                f" = {picture.number(y[a, b])}" if products else "."
            )

        if point_at == "an input pixel":
            grids = windows(
                y, x, lambda i, j: reached(i, j, kernel_size, stride, padding), paints, padding=padding,
                padding_text="✂", x_title="output y", y_title="input x", x_role="output", y_role="input", x_vmax=9,
                y_vmax=9, alt="the output, and the input whose pixels paint it",
            )  # fmt: skip
            if picture.differs(y, want).any() if y.shape == want.shape else True:
                grids += picture.compare(y, want, "output y, cell by cell", vmax=9, role="output")
        else:
            grids = windows(
                x, y, lambda a, b: [at for at, _ in painters(a, b, x.shape, kernel_size, stride, padding)], collects,
                want=want, x_title="input x", y_title="output y", x_vmax=9, y_vmax=9,
                alt="the input, and the output whose cells collect from it",
            )  # fmt: skip
        kernel = picture.heat(w, "kernel w", vmax=9, role="parameter")
        return picture.figure(picture.row(kernel, picture.piece(grids)), said(point_at, kernel_size, stride, padding))

    def said(point_at, kernel_size, stride, padding):
        size = (len(x) - 1) * stride + kernel_size - 2 * padding
        if size < 1:
            return impossible(kernel_size, stride, padding)
        counts = {len(painters(a, b, x.shape, kernel_size, stride, padding)) for a, b in np.ndindex(size, size)}
        many = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{min(counts)}"
        return (
            f"3 pixels, stride {stride}, kernel {kernel_size}, padding {padding}: (3 − 1) · {stride} + {kernel_size} − "
            f"2 · {padding} = {size} cells a side. Each is painted by {many} pixels."
        )

    def impossible(kernel_size, stride, padding):
        canvas = (len(x) - 1) * stride + kernel_size
        return (
            f"The canvas has {canvas} cells a side, and padding {padding} crops {2 * padding} of them: nothing would "
            "be left."
        )

    return Explorer(
        draw,
        alt=said,
        height=430,
        point_at=choice("point at", ["an input pixel", "an output cell"], point_at),
        kernel_size=slider("kernel size", 1, 4, 3),
        stride=slider("stride", 1, 3, 2),
        padding=slider("padding", 0, 2, 0),
    )


def guess_canvas(reference):
    """Predict: how large a transposed convolution's output is."""

    def reveal():
        y = reference("conv_transpose2d_forward")(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), np.zeros(1), 2)
        return picture.row(
            picture.heat(np.ones((3, 3)), "x", vmax=4, role="input"),
            picture.operator("→"),
            picture.heat(y[0, 0], "y", vmax=4, role="output"),
        ) + picture.note(
            "The last patch starts at 2 · 2 = 4 and is 3 wide: 7 cells. All pixels and all weights are 1 here, so y "
            "counts how many patches lie on each cell: 1, 2 or 4. Remember that pattern."
        )

    return Predict(
        "Three pixels in a row, each paints a patch 3 cells wide, and the patches start 2 cells apart. How many cells "
        "does the row of the output have?",
        answer=7,
        reveal=reveal,
    )


# --- interpolation ---------------------------------------------------------------------------------------------------

SAMPLES = np.array([[0.0, 4, 8], [4, 0, 4], [8, 8, 0]])


def shares(size, scale, how):
    """The matrix (scale · size, size) of interpolation along one axis, for explanations: nearest, linear, corners."""
    out = np.arange(size * scale)
    if how == "nearest":
        position = (out // scale).astype(float)
    elif how == "bilinear":
        position = np.clip((out + 0.5) / scale - 0.5, 0, size - 1)
    else:
        position = out * (size - 1) / max(size * scale - 1, 1)
    return position, np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))


def with_corners(x, scale):
    """What align_corners=True gives."""
    import torch

    y = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=scale, mode="bilinear", align_corners=True)
    return y.numpy()


def sampling(nearest, bilinear, references, how="bilinear"):
    """Where each output pixel is sampled, and from which input pixels it is mixed."""
    functions = {"nearest": (live(nearest), references[0]), "bilinear": (live(bilinear), references[1])}
    functions["align_corners=True"] = with_corners, with_corners

    def draw(how, scale):
        x = SAMPLES
        y, want = (np.asarray(f(x[None, None].copy(), scale))[0, 0] for f in functions[how])
        position, a = shares(len(x), scale, how)

        def sources(i, j):
            return [(p, q) for p, q in np.ndindex(x.shape) if a[i, p] * a[j, q] > 1e-9]

        def tell(i, j):
            terms = " + ".join(
                f"{picture.number(a[i, p] * a[j, q], 3)} · {picture.number(x[p, q])}" for p, q in sources(i, j)
            )
            at = f"row {picture.number(position[i])}, column {picture.number(position[j])}"
            return f"y[{i}, {j}] is read at {at} of the input: {terms} = {picture.number(want[i, j], 2)}."

        grids = windows(
            x, y, sources, tell, want=want, x_vmax=8, y_vmax=8, alt="the input, and the enlarged output"
        )  # fmt: skip
        return picture.figure(grids, said(how, scale))

    def said(how, scale):
        position, _ = shares(3, scale, how)
        places = ", ".join(picture.number(p) for p in position)
        edge = {
            "nearest": "Each pixel becomes a block.",
            "bilinear": "Samples are 1 / scale apart; what would lie outside is clamped to the border.",
            "align_corners=True": "First and last sample lie on first and last pixel, and the distance between samples "
            "is no longer 1 / scale.",
        }[how]
        return f"{how}, scale {scale}: the rows are read at {places}. {edge}"

    return Explorer(
        draw,
        alt=said,
        height=460,
        how=choice("how", list(functions), how),
        scale=slider("scale", 1, 4, 2),
    )


# --- checkerboards ---------------------------------------------------------------------------------------------------

METHODS = ("transposed convolution", "nearest, then convolution", "pixel shuffle", "pixel shuffle, ICNR")


def flat(size=8):
    """An image without anything in it."""
    return np.ones((1, 1, size, size))


def hill(size=8):
    """A smooth image."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.exp(-(x**2 + y**2) / 8)[None, None]


def kernels(shape, equal, seed):
    """All weights equal, or random ones with a mean of that size; the sum of a kernel is 1 on average."""
    if equal:
        return np.full(shape, 1 / np.prod(shape[-2:]))
    return np.random.default_rng(seed).normal(1, 0.6, shape) / np.prod(shape[-2:])


def enlarge(functions, method, x, kernel_size, stride, equal=True, seed=0):
    """x (1, 1, h, w) enlarged `stride` times by one of METHODS; `functions` by name, the learner's or the reference's.

    The convolutions have odd kernels, so that the output is in the middle: an even kernel_size counts as the next.
    """
    if method == METHODS[0]:
        w = kernels((1, 1, kernel_size, kernel_size), equal, seed) * stride**2
        return functions["conv_transpose2d_forward"](x, w, np.zeros(1), stride, 0)
    side = kernel_size + 1 - kernel_size % 2
    if method == METHODS[1]:
        w = kernels((1, 1, side, side), equal, seed)
        return functions["conv2d"](functions["upsample_nearest_forward"](x, stride), w, np.zeros(1), 1, side // 2)
    if method == METHODS[2]:
        w = kernels((stride**2, 1, side, side), equal, seed)
    else:
        w = functions["icnr"](kernels((1, 1, side, side), equal, seed), stride)
    y = functions["conv2d"](x, w, np.zeros(stride**2), 1, side // 2)
    return functions["pixel_shuffle"](y, stride)


def inside_of(y, kernel_size, stride):
    """The part of an enlarged image that no border reaches."""
    edge = max(kernel_size, stride * (1 + kernel_size // 2))
    return y[..., edge:-edge, edge:-edge]


def unevenness(y, kernel_size, stride):
    """How much a flat image's enlargement varies inside, relative to its mean: 0 where there is no checkerboard."""
    inner = inside_of(np.asarray(y, float), kernel_size, stride)
    return float(inner.std() / np.abs(inner).mean())


def checkerboard(functions, references, method=METHODS[0]):
    """A flat and a smooth image enlarged by four methods, kernel and stride in the reader's hands."""
    mine = {name: live(function) for name, function in functions.items()}

    def draw(method, kernel_size, stride, equal):
        pieces, off = [], False
        for title, x in (("a flat image, enlarged", flat()), ("a smooth image, enlarged", hill())):
            y, want = (
                np.asarray(enlarge(f, method, x, kernel_size, stride, equal == "equal"), float)[0, 0]
                for f in (mine, references)
            )
            off |= y.shape != want.shape or picture.differs(y, want).any()
            alt = f"{title} by {method}"
            pieces.append(picture.img(y, alt, GREY, 0, 1.6, width=250, title=title, role="output"))
        if method == METHODS[0]:
            ones = np.ones((1, 1, kernel_size, kernel_size))
            counts = np.asarray(mine["conv_transpose2d_forward"](flat(3), ones, np.zeros(1), stride, 0))[0, 0]
            pieces.append(picture.heat(counts[:12, :12], "patches on each cell", vmax=9, digits=0, role="parameter"))
        note = picture.note("An output differs from the reference.") if off else ""
        return picture.figure(picture.row(*pieces) + note, said(method, kernel_size, stride, equal))

    def said(method, kernel_size, stride, equal):
        y = enlarge(references, method, flat(), kernel_size, stride, equal == "equal")
        uneven = unevenness(y, kernel_size, stride)
        found = f"varies by {uneven:.0%} of its mean" if uneven > 1e-9 else "stays flat"
        why = ""
        if method == METHODS[0] and stride > 1:
            divides = kernel_size % stride == 0
            why = f" {kernel_size} is {'' if divides else 'not '}divisible by {stride}, so cells get " + (
                "equally many patches." if divides else "different numbers of patches."
            )
        return f"{method}, kernel {kernel_size}, stride {stride}, {equal} weights: inside, the flat image {found}.{why}"

    return Explorer(
        draw,
        alt=said,
        height=360,
        method=choice("method", list(METHODS), method),
        kernel_size=slider("kernel size", 2, 6, 3),
        stride=slider("stride", 1, 4, 2),
        equal=choice("weights", ["equal", "random"], "equal"),
    )


# --- scores ----------------------------------------------------------------------------------------------------------


def guess_iou():
    """Predict: the IoU that belongs to a Dice of 0.8."""

    def reveal():
        dice = np.linspace(0, 1, 41)
        return picture.curve(
            {"IoU": (dice, dice / (2 - dice)), "Dice": (dice, dice, {"dash": True, "colour": "#7A7A7A"})},
            "IoU against Dice: below the diagonal, equal to it at 0 and 1",
            x_label="Dice",
            x_range=(0, 1),
            y_range=(0, 1),
            marks=[(0.8, 2 / 3, "0.8 → 0.667")],
            width=330,
        ) + picture.note("IoU = Dice / (2 − Dice): never the larger of the two, and it ranks masks in the same order.")

    return Predict("A mask has a Dice of 0.8. What is its IoU?", answer=0.667, tolerance=0.01, reveal=reveal)


def scan(image, title="scan", alt="a generated scan"):
    return picture.img(image, alt, GREY, 0, 1, width=200, title=title, role="input")


def mask(labels, title, alt, role="output"):
    return picture.img(labels, alt, MASK, 0, 2, width=200, title=title, role=role)


def strip(images, title, alt, palette=GREY, vmax=1, role=None, across=False, wide=110):
    """Several images (n, h, w) as one picture, below each other or side by side."""
    columns = len(images) if across else 1
    sheet = picture.mosaic(images, columns, gap=2)
    return picture.img(sheet, alt, palette, 0, vmax, wide * columns, title, role, images.shape)


def samples(scans, count=6):
    """The first scans above their masks."""
    told = "; ".join(
        f"scan {k}: {(scans.masks[k] == 1).sum()} pixels of organ, {(scans.masks[k] == 2).sum()} of lesion"
        for k in range(count)
    )
    above = strip(scans.images[:count, 0], "scans", f"{count} generated scans", role="input", across=True)
    below = strip(scans.masks[:count], "masks", told, MASK, 2, role="output", across=True)
    return picture.row(above, below)


def side_by_side(scans, predictions, which):
    """Some scans, their masks, and the labels (n, h, w) that each network predicts, as columns."""
    which = list(which)
    columns = [
        strip(scans.images[which, 0], "scan", "generated scans", role="input"),
        strip(scans.masks[which], "truth", "their true masks", MASK, 2, role="parameter"),
    ]
    columns += [
        strip(labels[which], name, f"masks of {name}", MASK, 2, "output") for name, labels in predictions.items()
    ]
    return picture.row(*columns)


def chosen(scans, which):
    """The scans at these places."""
    return type(scans)(scans.images[which], scans.masks[which])


THRESHOLDS = np.round(np.linspace(0.05, 0.95, 19), 2)


def thresholds(overlap_scores, probs, scans):
    """The lesion's probability (n, h, w) cut at a threshold: one mask, and the mean scores over all scans."""
    mine, target = live(overlap_scores), scans.masks == 2
    curves = {}

    def score(pred, truth):
        dice, iou = (np.asarray(value, float) for value in mine(pred, truth))
        return dice, iou

    def draw(threshold, image):
        if not curves:  # once: the learner's function may be slow
            curves["all"] = np.array([[v.mean() for v in score(probs > t, target)] for t in THRESHOLDS])
        pred = probs[image] > threshold
        dice, iou = (float(v[0]) for v in score(pred[None], target[image][None]))
        chart = picture.curve(
            {"mean Dice": (THRESHOLDS, curves["all"][:, 0]), "mean IoU": (THRESHOLDS, curves["all"][:, 1])},
            "mean Dice and IoU of the lesions against the threshold",
            x_label="threshold",
            x_range=(0, 1),
            y_range=(0, 1),
            marks=[(threshold, float(np.interp(threshold, THRESHOLDS, curves["all"][:, 0])), "")],
            width=330,
            height=230,
        )
        shown = np.where(pred, 2, 0)
        pieces = (
            scan(scans.images[image, 0]),
            mask(np.where(target[image], 2, 0), "true lesions", "the true lesions", "parameter"),
            picture.img(probs[image], "probability of a lesion", "magnitude", 0, 1, 200, "probability", "output"),
            mask(shown, f"above {threshold:g}", f"{pred.sum()} pixels above the threshold"),
            chart,
        )
        return picture.figure(
            picture.row(*pieces),
            f"Scan {image}: {target[image].sum()} pixels of lesion, {pred.sum()} predicted at {threshold:g}: Dice "
            f"{dice:.2f}, IoU {iou:.2f}. Over all scans: Dice {_at(curves['all'][:, 0], threshold)}, IoU "
            f"{_at(curves['all'][:, 1], threshold)}.",
        )

    return Explorer(
        draw,
        alt="A scan, its true lesions, the predicted probability, the mask above the threshold, and mean scores "
        "against the threshold",
        height=500,
        threshold=slider("threshold", 0.05, 0.95, 0.5, 0.05),
        image=slider("scan", 0, min(len(probs), 20) - 1, 0),
    )


def _at(curve, threshold):
    return f"{np.interp(threshold, THRESHOLDS, curve):.2f}"


# --- the shape of U-Net ----------------------------------------------------------------------------------------------


def letter_u(width=8, depth=2, size=32, in_channels=1, out_channels=3):
    """U-Net as a drawing: encoders down the left, decoders up the right, skips across."""
    step, left = 62, 52
    right = left + 176 * depth + 330
    parts = []
    for k in range(depth):
        y, x, u = 28 + k * step, left + 88 * k + 44, right - 88 * k - 44
        skip = f"skip {k}: {width * 2**k} channels, {size // 2**k} × {size // 2**k}"
        parts += [_box(x, y, 84, f"encoder[{k}]", "input"), _box(u, y, 84, f"decoder[{k}]", "output")]
        parts += [_arrow(x + 43, y, u - 43, y, COLOURS["parameter"]), _text((x + u) / 2, y - 7, skip)]
        parts += [_arrow(x, y + 15, x + 70, y + step - 15), _arrow(u - 70, y + step - 15, u, y + 15)]
        parts += [_text(x + 4, y + 40, "pool"), _text(u - 2, y + 40, f"up[{k}]")]
    y, middle = 28 + depth * step, (left + right) / 2
    floor = f"bottom: {width * 2**depth} channels, {size // 2**depth} × {size // 2**depth}"
    parts += [_box(middle, y, right - left - 176 * depth - 4, floor, "gradient")]
    parts += [_arrow(left - 22, 28, left + 2, 28), _text(left - 30, 32, "x")]
    parts += [_arrow(right - 2, 28, right + 22, 28), _text(right + 68, 32, f"head: {out_channels} logits")]
    alt = f"U-Net: {depth} encoders, a bottom, {depth} decoders; a skip joins the two of each level"
    return (
        f'<svg role="img" aria-label="{alt}" viewBox="0 0 {right + 120} {y + 20}" width="{right + 120}" '
        f'height="{y + 20}" font-size="12">{"".join(parts)}</svg>'
    )


def _text(x, y, text):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{text}</text>'


def _box(x, y, wide, text, role):
    colour = COLOURS[role]
    return (
        f'<rect x="{x - wide / 2:.0f}" y="{y - 15}" width="{wide}" height="30" rx="4" fill="{colour}" '
        f'fill-opacity=".2" stroke="{colour}"/>{_text(x, y + 4, text)}'
    )


def _arrow(x, y, u, v, colour="currentColor"):
    a, b = np.array([u - x, v - y]) / np.hypot(u - x, v - y)
    head = f"M{u:.1f} {v:.1f}L{u - 8 * a + 4 * b:.1f} {v - 8 * b - 4 * a:.1f}"
    return (
        f'<path d="M{x} {y}L{u - 6 * a:.1f} {v - 6 * b:.1f}" stroke="{colour}" stroke-width="1.6"/>'
        f'<path d="{head}L{u - 8 * a - 4 * b:.1f} {v - 8 * b + 4 * a:.1f}z" fill="{colour}"/>'
    )


# --- U-Net without its skips -----------------------------------------------------------------------------------------


def predicted(model, images, cut=()):
    """Class probabilities (n, 3, h, w) of a U-Net whose skips at the levels `cut` carry zeros."""
    import torch

    def zeros(module, args):
        joined = args[0].clone()
        joined[:, : joined.shape[1] // 2] = 0  # the skip is the first half
        return (joined,)

    hooks = [model.decoder[level].register_forward_pre_hook(zeros) for level in cut]
    try:
        with torch.no_grad():
            return model.eval()(torch.as_tensor(images)).softmax(dim=1).numpy()
    finally:
        for hook in hooks:
            hook.remove()


def per_class(labels, masks, overlap_scores):
    """Mean Dice of organ and lesion over the examples that have one."""
    found = []
    for k in (1, 2):
        dice = np.asarray(overlap_scores(labels == k, masks == k)[0], float)
        found.append(float(dice[(masks == k).any(axis=(1, 2))].mean()))
    return found


def inside(model, scans, overlap_scores, images=12):
    """Switch skip connections off and see what the trained network still finds."""
    levels = range(len(model.decoder))

    @lru_cache
    def everywhere(cut):
        labels = predicted(model, scans.images, cut).argmax(axis=1)
        return per_class(labels, scans.masks, overlap_scores)

    def draw(image, **skips):
        cut = tuple(level for level in levels if not skips[f"skip{level}"])
        probs = predicted(model, scans.images[image : image + 1], cut)[0]
        labels = probs.argmax(axis=0)
        pieces = (
            scan(scans.images[image, 0]),
            mask(scans.masks[image], "truth", "the true mask", "parameter"),
            mask(labels, "prediction", "the predicted mask"),
            picture.img(probs[2], "probability of a lesion", "magnitude", 0, 1, 200, "P(lesion)", "output"),
        )
        return picture.figure(picture.row(*pieces), said(image, **skips))

    def said(image, **skips):
        cut = tuple(level for level in levels if not skips[f"skip{level}"])
        organ, lesion = everywhere(cut)
        what = " and ".join(f"skip {level}" for level in cut)
        return (
            f"{'Cut: ' + what if cut else 'All skips on'}. Dice over {len(scans.masks)} scans: organ {organ:.2f}, "
            f"lesion {lesion:.2f} (where there is one)."
        )

    size = scans.images.shape[-1]
    boxes = {f"skip{k}": toggle(f"skip {k} ({size // 2**k} × {size // 2**k})", True) for k in levels}
    return Explorer(draw, alt=said, height=290, image=slider("scan", 0, images - 1, 0), **boxes)
