"""Lesson 11: the feature microscope, a walk down to the pixels, a film of the training, probes, the hierarchy."""

import re
from collections import OrderedDict
from functools import lru_cache
from html import escape
from itertools import pairwise

import ipywidgets as W
import numpy as np
import torch
from torch import nn

from course.data import scene_cnn, scenes
from course.widgets import picture
from course.widgets.chart import spread
from course.widgets.explorer import Explorer, choice, live, slider

COLOURS, LAYERS, WIDTH = picture.COLOURS, scene_cnn.LAYERS, scene_cnn.WIDTH
GREY = np.repeat(np.linspace(0, 255, 21).round().astype(np.uint8)[:, None], 3, axis=1)  # few greys: small pictures
STEPS = 40  # of gradient ascent: with more, the pictures change little
LEVEL_COLOURS = dict(zip(scenes.LEVELS, ("#E69F00", "#8C7A00", "#009E73", "#1B7FBD", "#CC79A7"), strict=True))


# --- where a unit looks ----------------------------------------------------------------------------------------------


@lru_cache
def geometry(layer):
    """Size, jump and start of a layer's receptive fields: unit i sees `size` pixels from start + i * jump on."""
    size, jump, start = 1, 1, 0
    for name, part in scene_cnn.network().named_children():
        if isinstance(part, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (int(np.ravel(v)[0]) for v in (part.kernel_size, part.stride, part.padding))
            size, jump, start = size + (kernel - 1) * jump, jump * stride, start - padding * jump
        if name == layer:
            return size, jump, start
    raise ValueError(f"no layer named {layer!r}")


def field(layer, row, column):
    """The pixels that a unit sees: top, left, size (top and left are negative where it looks over the border)."""
    size, jump, start = geometry(layer)
    return start + row * jump, start + column * jump, size


def patch(image, layer, row, column):
    """The part of an image (SIZE, SIZE) that a unit sees; mid-grey where it looks over the border."""
    top, left, size = field(layer, row, column)
    padded = np.pad(np.asarray(image, float), size)
    return padded[top + size : top + 2 * size, left + size : left + 2 * size]


def peak(maps):
    """Row and column of the strongest unit of a map."""
    return tuple(int(v) for v in np.unravel_index(np.argmax(maps), np.shape(maps)))


# --- what feeds a unit -----------------------------------------------------------------------------------------------


def below(layer):
    """The layer that a layer's convolution reads: the pooled maps of the one before, or the pixels."""
    k = LAYERS.index(layer)
    return f"pool{k}" if k else "pixels"


def read(model, activation_maps, x, layer):
    """What a layer puts out for one image x (1, 1, SIZE, SIZE), as an array (channels, rows, columns)."""
    return np.asarray((x if layer == "pixels" else activation_maps(model, x, layer))[0], float)


def contributions(weight, maps, row, column):
    """The terms that a convolution adds up for one unit: weights (C, K, K) times the window of maps (C, H, W)."""
    size = weight.shape[-1]
    padded = np.pad(maps, ((0, 0), (size // 2,) * 2, (size // 2,) * 2))
    return weight * padded[:, row : row + size, column : column + size]


def feeding(model, activation_maps, x, layer, channel, row, column):
    """The terms (C, K, K) of one unit: what each input of each channel one layer down adds to it."""
    weight = dict(model.named_modules())[layer.replace("relu", "conv")].weight[channel].detach().numpy()
    return contributions(weight, read(model, activation_maps, x, below(layer)), row, column)


def strongest_inputs(terms):
    """The channels one layer down in the order of what they add to a unit, greatest first."""
    return np.argsort(-terms.sum((1, 2)), kind="stable")


def step_down(model, activation_maps, x, layer, channel, row, column, rank=0):
    """The unit one layer down that adds most to a unit, in its strongest input channel: layer, channel, row, column."""
    terms = feeding(model, activation_maps, x, layer, channel, row, column)
    source = int(strongest_inputs(terms)[rank])
    at = np.array([row, column]) + np.array(peak(terms[source])) - terms.shape[-1] // 2
    lower = LAYERS[LAYERS.index(layer) - 1]
    block = read(model, activation_maps, x, lower)[source, 2 * at[0] : 2 * at[0] + 2, 2 * at[1] : 2 * at[1] + 2]
    return lower, source, *(int(v) for v in 2 * at + peak(block))  # a pool passes on the greatest of two by two


def walk(model, activation_maps, x, layer, channel, rank=0):
    """From a channel's strongest unit down to the first layer: a list of (layer, channel, row, column)."""
    unit = layer, channel, *peak(read(model, activation_maps, x, layer)[channel])
    units = [unit]
    while unit[0] != LAYERS[0]:
        unit = step_down(model, activation_maps, x, *unit, rank)
        units.append(unit)
    return units


# --- the parts of a network as functions of their own ----------------------------------------------------------------


def upto(model, layer, before=()):
    """The model up to a layer, then the greatest value of each channel, (N, channels); `before` come other parts."""
    parts, names = dict(model.named_children()), [name for name, _ in scene_cnn.network().named_children()]
    chain = [parts[name] for name in names[: names.index(layer) + 1]]
    return nn.Sequential(*before, *chain, nn.AdaptiveMaxPool2d(1), nn.Flatten())


class Blur(nn.Module):
    """Each pixel becomes a mean of its neighbourhood: weights 1, 2, 1 downwards and across."""

    kernel = (torch.tensor([1.0, 2, 1])[:, None] * torch.tensor([1.0, 2, 1]) / 16)[None, None]

    def forward(self, x):
        return nn.functional.conv2d(x, self.kernel, padding=1)


class _Said(nn.Module):
    """A layer that says again what it said once."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, _):
        return self.maps


def recorded(model, images):
    """A model whose layers repeat what `model` answers to these images: top patches then need no forward pass."""
    said, parts, x = {}, dict(model.named_children()), images
    with torch.no_grad():
        for name, _ in scene_cnn.network().named_children():
            x = parts[name](x)
            said[name] = _Said(x)
    return nn.Sequential(OrderedDict((name, said[name]) for name in LAYERS))


class Looks:
    """The learner's functions at work on one model and one set of images; what was looked for once is kept."""

    def __init__(self, model, images, functions):
        self.model, self.images = model, torch.as_tensor(images)
        self.functions = {name: live(function) for name, function in functions.items()}
        self.recording, self.kept = recorded(model, self.images), {}

    def image(self, number):
        return self.images[number : number + 1]

    def maps(self, number, layer):
        return read(self.model, self.functions["activation_maps"], self.image(number), layer)

    def greatest(self, layer):
        """The greatest activation of each channel over all images."""
        return self.recording.get_submodule(layer).maps.amax((0, 2, 3)).numpy()

    def dead(self, layer, channel):
        """Whether no unit of a channel answers on any image."""
        return self.greatest(layer)[channel] <= 0

    def patches(self, layer, channel, k):
        """The patches (k, size, size) that excite a channel most, each from another image."""
        return self._once("top_patches", self._patches, layer, channel, k)

    def _patches(self, layer, channel, k):
        found = zip(*self.found(layer, channel, k), strict=True)
        return np.stack([patch(self.images[n, 0], layer, row, column) for n, row, column in found])

    def found(self, layer, channel, k):
        """Image, row and column of the k units of a channel that answer most, as the learner finds them."""
        return self.functions["top_patches"](self.recording, self.images, layer, channel, k)

    def preferred(self, layer, channel):
        """What excites one unit of a channel most: what it sees of a blurred picture found by gradient ascent."""
        return self._once("maximise_activation", self._preferred, layer, channel)

    def _preferred(self, layer, channel):
        blur, conv = Blur(), layer.replace("relu", "conv")  # a silent ReLU would pass no gradient back
        model = upto(self.model, conv, before=[blur])
        last = str(len(model) - 1)
        found = self.functions["maximise_activation"](model, last, channel, STEPS, np.random.default_rng(channel))
        with torch.no_grad():
            image = blur(torch.as_tensor(found, dtype=torch.float32).reshape(1, 1, scenes.SIZE, scenes.SIZE))
            maps = model[1:-2](image)[0, channel].numpy()  # without the blur before and the maximum behind
        return patch(image[0, 0], layer, *peak(maps))

    def saliency(self, number, layer, channel):
        """How much each pixel matters to the strongest unit of a channel."""
        cut = upto(self.model, layer)
        return np.asarray(self.functions["saliency"](cut, self.image(number), torch.tensor([channel])), float)[0]

    def answers(self, number, layer=None, channel=None):
        """The probability of each scene class; with a channel switched off where one is named."""
        x = self.image(number)
        with torch.no_grad():
            logits = self.model(x) if layer is None else self.functions["ablate_channel"](self.model, x, layer, channel)
        return torch.as_tensor(logits).softmax(1)[0].numpy()

    def _once(self, name, look, *which):
        if (name, *which) not in self.kept:
            self.kept[name, *which] = look(*which)
        return self.kept[name, *which]


# --- pieces ----------------------------------------------------------------------------------------------------------


def grey(image, alt, title="", width=150, role=None, span=1.2):
    """A picture in greys, mid-grey at 0."""
    return picture.piece(picture.img(image, alt, GREY, -span, span, width), title, role)


def rows(*lines):
    """Rows of pieces, their tops aligned."""
    style = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:10px 22px;margin-bottom:12px"
    return "".join(f'<div style="{style}">{"".join(pieces)}</div>' for pieces in lines)


def framed(array, boxes, alt, title="", palette=GREY, vmin=-1.2, vmax=1.2, width=150, role=None, shape=None):
    """An array as pixels with squares drawn on it: boxes {colour: (top, left, size)}."""
    side = array.shape[0]
    line = 2 * side / width
    squares = "".join(
        f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="{colour}" '
        f'stroke-width="{line:.2f}"/>'
        for colour, (top, left, size) in boxes.items()
    )
    svg = (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {side} {side}" width="{width}" height="{width}">'
        f'<image href="{picture.data_uri(picture.png8(array, palette, vmin, vmax))}" width="{side}" height="{side}" '
        f'style="image-rendering:pixelated"/>{squares}</svg>'
    )
    return picture.piece(svg, title, role, shape)


def bars(names, series, alt, title, width=270):
    """Shares between 0 and 1 as bars: series {"name": shares}; with two, both are named and stand below each other."""
    left, row, scale = 76, 21, width - 180
    top, parts = (18, []) if len(series) > 1 else (0, [])
    for j, (name, shares) in enumerate(series.items()):
        colour, high = picture.CYCLE[j], 14 // len(series)
        if top:
            parts.append(
                f'<path fill="{colour}" d="M{left + 82 * j} 3h9v9h-9z"/>'
                f'<text x="{left + 82 * j + 13}" y="12">{escape(name)}</text>'
            )
        for k, share in enumerate(shares):
            y = top + k * row + 3 + j * high
            parts.append(f'<path fill="{colour}" d="M{left} {y}h{max(0.5, share * scale):.1f}v{high}H{left}z"/>')
    for k, name in enumerate(names):
        y, said = top + k * row + 14, [percent(shares[k]) for shares in series.values()]
        parts.append(
            f'<text x="{left - 6}" y="{y}" text-anchor="end">{escape(name)}</text>'
            f'<text x="{left + scale + 5}" y="{y}">{" → ".join(dict.fromkeys(said))}</text>'
        )
    height = top + row * len(names)
    svg = (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-size="11.5">{"".join(parts)}</svg>'
    )
    return picture.piece(svg, title)


def percent(share):
    """A share as a whole percentage that says 0 or 100 only where it is nothing or all."""
    return "< 1 %" if 0 < share < 0.005 else "> 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def signed(value):
    return f"{value:+.2f}".replace("-", "−")


# --- the stimuli, and all maps of a layer ----------------------------------------------------------------------------


def levels():
    """Two stimuli of each level, from edges to scenes."""
    pieces = []
    for level in scenes.LEVELS:
        images, labels = scenes.sample(level, 8, seed=2)
        chosen = [int(np.flatnonzero(labels == k)[0]) for k in (0, 3)]
        names = " and ".join(scenes.CLASSES[level][labels[k]] for k in chosen)
        sheet = grey(picture.mosaic(images[chosen, 0], 1, 2), f"two {level}s: {names}", width=120)
        pieces.append(picture.piece(sheet, level))
    return picture.row(*pieces)


def maps(model, activation_maps, images=None):
    """Choose a scene and a layer: all of the layer's maps at once."""
    images = scenes.sample("scene", 4, seed=5)[0] if images is None else images
    look = Looks(model, images, {"activation_maps": activation_maps})

    def draw(image, layer):
        shown = grey(images[image, 0], "the scene", "the scene", 190, "input")
        if layer == "pixels":
            return picture.figure(shown, said(image, layer))
        values = look.maps(image, layer)
        sheet = picture.img(
            picture.mosaic(values, 4, 1 + values.shape[-1] // 24),
            f"the {len(values)} maps of {layer}",
            vmin=0,
            vmax=values.max(),
            width=330,
            title=layer,
            role="output",
            shape=values.shape,
        )
        return picture.figure(rows((shown, sheet)), said(image, layer))

    def said(image, layer):
        if layer == "pixels":
            return "The pixels: one plane of 48 × 48 numbers, mid-grey at 0."
        values, size = look.maps(image, layer), geometry(layer)[0]
        silent = int((values.max((1, 2)) == 0).sum())
        return (
            f"{layer}: {len(values)} maps of {values.shape[1]} × {values.shape[2]} units, each of which sees "
            f"{size} × {size} pixels. {percent((values > 0).mean())} of the units answer; "
            f"{silent or 'none'} of the maps {'is' if silent == 1 else 'are'} silent on this scene."
        )

    return Explorer(
        draw,
        alt=said,
        height=430,
        image=choice("scene", {str(k + 1): k for k in range(len(images))}),
        layer=choice("layer", ["pixels", *LAYERS], "relu2"),
    )


# --- the microscope --------------------------------------------------------------------------------------------------


def microscope(model, images, functions, references=None, image=0, layer="relu3", channel=9):
    """Choose image, layer and channel: what the channel sees, likes, is made of, and does for the answer.

    functions   {"activation_maps": …, "top_patches": …, "maximise_activation": …, "saliency": …, "ablate_channel": …}
    references  the same, of which the figure tells where the learner's differ
    """
    look, right = Looks(model, images, functions), Looks(model, images, references or functions)

    def draw(image, layer, channel):
        values, pixels = look.maps(image, layer)[channel], np.asarray(look.images[image, 0])
        row, column = peak(values)
        matters = look.saliency(image, layer, channel)
        first = (
            framed(
                pixels,
                {COLOURS["wrong"]: field(layer, row, column)},
                "the image; a square marks what the unit sees",
                "the image",
                role="input",
            ),
            framed(
                values,
                {COLOURS["wrong"]: (row, column, 1)},
                "the channel's map; a square marks its strongest unit",
                "its map",
                "magnitude",
                0,
                max(look.greatest(layer)[channel], 1e-9),
                role="output",
                shape=values.shape,
            ),
            picture.piece(
                picture.img(matters, "saliency of the unit", vmin=0, vmax=max(matters.max(), 1e-9), width=150),
                "its saliency",
                "gradient",
            ),
            _inputs(look, image, layer, channel, row, column),
        )
        second = (
            _preferred(look, layer, channel, 150, "the picture it likes"),
            _patches(look, layer, channel),
            bars(
                scenes.CLASSES["scene"],
                {"with it": look.answers(image), "without it": look.answers(image, layer, channel)},
                "the probability of each class with the channel and without it",
                "the network's answer",
            ),
        )
        return picture.figure(rows(first, second), said(image, layer, channel)) + _differences(
            look, right, image, layer, channel
        )

    def said(image, layer, channel):
        values = right.maps(image, layer)[channel]
        unit, size = peak(values), geometry(layer)[0]
        if look.dead(layer, channel):
            return f"Channel {channel} of {layer} is dead: no unit of it answers on any of {len(images)} images."
        if values.max() == 0:
            return f"Channel {channel} of {layer} is silent on this image; to switch it off changes nothing."
        terms = feeding(model, right.functions["activation_maps"], right.image(image), layer, channel, *unit)
        source = int(strongest_inputs(terms)[0])
        before, after = right.answers(image), right.answers(image, layer, channel)
        first = int(before.argmax())
        shares = percent(before[first]), percent(after[first])
        change = f"stays at {shares[0]}" if shares[0] == shares[1] else f"goes from {shares[0]} to {shares[1]}"
        greatest = (
            ""
            if layer == LAYERS[0]
            else f" Its greatest input is channel {source} of relu{below(layer)[-1]}, which adds "
            f"{signed(terms[source].sum())}."
        )
        return (
            f"Channel {channel} of {layer}: its strongest unit, {unit}, sees {size} × {size} pixels and answers "
            f"{values.max():.2f}.{greatest} Without the channel the probability of "
            f"“{scenes.CLASSES['scene'][first]}” {change}."
        )

    figure = Explorer(
        draw,
        alt=said,
        height=480,
        image=slider("image", 0, min(len(images), 40) - 1, image),
        layer=choice("layer", list(LAYERS), layer),
        channel=slider("channel", 0, WIDTH - 1, channel),
    )
    figure.widget.children[0].children += (_descend(figure, look),)
    return figure


def _preferred(look, layer, channel, width, title=""):
    """The picture that excites a channel most, scaled so that its own contrast shows."""
    image = look.preferred(layer, channel)
    span = max(np.abs(image).max(), 1e-9)
    return grey(image, f"the picture that excites channel {channel} of {layer} most", title, width, "input", span)


def _patches(look, layer, channel):
    """The patches that excite a channel most; of a dead channel there are none."""
    title = "the patches it likes best"
    if look.dead(layer, channel):
        return picture.piece(picture.note("none: it is dead"), title, "input")
    sheet = picture.mosaic(look.patches(layer, channel, 6), 3, max(1, geometry(layer)[0] // 12))
    return grey(sheet, f"the six patches that excite channel {channel} of {layer} most", title, 228, "input")


def _inputs(look, image, layer, channel, row, column):
    """The strongest inputs of a unit: the maps one layer down with its window, and what each adds."""
    activation_maps, x = look.functions["activation_maps"], look.image(image)
    terms = feeding(look.model, activation_maps, x, layer, channel, row, column)
    size = terms.shape[-1]
    if layer == LAYERS[0]:
        window = patch(x[0, 0], layer, row, column)
        pieces = [
            grey(window, "the pixels that it sees", "pixels", 94),
            picture.piece(picture.img(terms[0], "times the weights", "signed", width=94), "× weights"),
        ]
        title = f"they add up to {signed(terms.sum())}"
    else:
        values = read(look.model, activation_maps, x, below(layer))
        window, top = (row - size // 2, column - size // 2, size), max(values.max(), 1e-9)
        pieces = []
        for k in strongest_inputs(terms)[:3]:
            said = f"{k} adds {signed(terms[k].sum())}"
            map_ = framed(values[k], {COLOURS["wrong"]: window}, f"channel {said}", "", "magnitude", 0, top, 94)
            pieces.append(picture.piece(map_ + picture.note(said)))
        title = f"its inputs from {below(layer)}"
    grid = f'<div style="display:flex;flex-wrap:wrap;gap:4px 12px;max-width:330px">{"".join(pieces)}</div>'
    return picture.piece(grid, title, "output")


def _descend(figure, look):
    """A button that goes on to the strongest input of the unit in view."""
    button = W.Button(description="go to its strongest input ↓", layout=W.Layout(width="max-content"))

    def follow(_):
        image, layer, channel = figure.values.values()
        if layer == LAYERS[0]:
            return
        unit = peak(look.maps(image, layer)[channel])
        terms = feeding(look.model, look.functions["activation_maps"], look.image(image), layer, channel, *unit)
        figure.controls["layer"].value = LAYERS[LAYERS.index(layer) - 1]
        figure.controls["channel"].value = int(strongest_inputs(terms)[0])

    button.on_click(follow)
    return button


def _differences(look, right, image, layer, channel):
    """A line for each function of the learner's that answers differently from the reference."""
    pairs = {
        "activation_maps": (look.maps(image, layer), right.maps(image, layer)),
        "saliency": (look.saliency(image, layer, channel), right.saliency(image, layer, channel)),
        "top_patches": (look.patches(layer, channel, 8), right.patches(layer, channel, 8)),
        "ablate_channel": (look.answers(image, layer, channel), right.answers(image, layer, channel)),
    }
    off = [
        name
        for name, (got, want) in pairs.items()
        if got.shape != want.shape or picture.differs(np.nan_to_num(got), np.nan_to_num(want)).any()
    ]
    lines = [f"<code>{name}</code> differs from the reference here." for name in off]
    return "".join(f'<div class="lbl-verdict" style="border-color:{COLOURS["wrong"]}">{line}</div>' for line in lines)


# --- a walk down to the pixels ---------------------------------------------------------------------------------------


def trail(model, images, functions, channel=13):
    """From the unit of the last layer that a channel's favourite image excites to its strongest input, and on down."""
    look = Looks(model, images, functions)
    activation_maps = look.functions["activation_maps"]

    def units_of(channel, place, rank):
        image = int(look.found(LAYERS[-1], channel, 3)[0][place])
        return image, walk(model, activation_maps, look.image(image), LAYERS[-1], channel, rank)

    def draw(channel, place, rank):
        if look.dead(LAYERS[-1], channel):
            return picture.figure("", said(channel, place, rank))
        image, units = units_of(channel, place, rank)
        pixels = np.asarray(look.images[image, 0])
        boxes = {picture.CYCLE[k]: field(layer, *unit) for k, (layer, _, *unit) in enumerate(units)}
        pieces = [framed(pixels, boxes, "the image and what each unit sees", "the image", width=224, role="input")]
        for k, (layer, source, *unit) in enumerate(units):
            here = grey(patch(pixels, layer, *unit), "what the unit sees here", "", 112)
            liked = grey(picture.mosaic(look.patches(layer, source, 4), 2, 1), "what its channel likes best", "", 112)
            pieces.append(picture.piece(here + liked, f"{layer}, {source}", picture.CYCLE[k]))
        return picture.figure(rows(pieces), said(channel, place, rank))

    def said(channel, place, rank):
        if look.dead(LAYERS[-1], channel):
            return f"Channel {channel} of {LAYERS[-1]} is dead: no unit of it answers on any of {len(images)} images."
        image, units = units_of(channel, place, rank)
        answer = look.maps(image, LAYERS[-1])[channel].max()
        steps = [f"Channel {channel} of {LAYERS[-1]} answers {answer:.2f} on image {image}"]
        for unit, (layer, source, *_) in pairwise(units):
            terms = feeding(model, activation_maps, look.image(image), *unit)
            steps.append(f"channel {source} of {layer} adds {signed(terms[source].sum())}")
        size = geometry(LAYERS[0])[0]
        return (
            f"{' ← '.join(steps)} ← {size} × {size} pixels. Above: what each unit sees; below: the patches that its "
            "channel likes best."
        )

    ranks = {"strongest": 0, "second": 1, "third": 2}
    return Explorer(
        draw,
        alt=said,
        height=330,
        channel=slider(f"channel of {LAYERS[-1]}", 0, WIDTH - 1, channel),
        place=choice("on the image it likes", {"best": 0, "second": 1, "third": 2}),
        rank=choice("follow its input", ranks),
    )


def hierarchy(model, images, functions, k=3):
    """Per layer the channels that answer most: the picture that each likes, and two patches that excite it most."""
    look, lines = Looks(model, images, functions), []
    for layer in LAYERS:
        channels = np.argsort(-look.recording.get_submodule(layer).maps.mean((0, 2, 3)).numpy())[:k]
        pieces = []
        for channel in map(int, channels):
            patches = look.patches(layer, channel, 2)
            liked = look.preferred(layer, channel)
            sheet = np.concatenate([liked[None] / max(np.abs(liked).max(), 1e-9) * 1.2, patches])
            alt = f"channel {channel} of {layer}: the picture it likes and two patches that excite it most"
            pieces.append(grey(picture.mosaic(sheet, 3, max(1, len(liked) // 12)), alt, f"{layer}, {channel}", 240))
        lines.append(pieces)
    return rows(*lines)


# --- the film of the training ----------------------------------------------------------------------------------------


def film(snapshots, images, labels):
    """Per snapshot: the share of each class answered right (S, classes), channels that answer (S, layers, WIDTH)."""
    model, shares, alive = scene_cnn.network(), [], []
    labels = np.asarray(labels)
    for _, state in snapshots:
        model.load_state_dict(state)
        x, answers = torch.as_tensor(images), []
        for name, part in model.named_children():
            with torch.no_grad():
                x = part(x)
            if name in LAYERS:
                answers.append((x.amax((0, 2, 3)) > 0).numpy())
        right = x.argmax(1).numpy() == labels
        shares.append([right[labels == k].mean() for k in range(x.shape[1])])
        alive.append(answers)
    return np.array(shares), np.array(alive)


def scrubber(snapshots, images, labels, activation_maps, at=None):
    """Scrub through the training: conv1's filters, the maps of a layer, the accuracy, what each class is answered."""
    shares, alive = film(snapshots, images, labels)
    steps, accuracy = [step for step, _ in snapshots], shares.mean(1)
    model, activation_maps = scene_cnn.network(), live(activation_maps)
    images = torch.as_tensor(images)
    top = max(state["conv1.weight"].abs().max().item() for _, state in snapshots)

    def draw(snapshot, layer, image):
        model.load_state_dict(snapshots[snapshot][1])
        filters = picture.mosaic(model.conv1.weight.detach()[:, 0], 4)
        values = read(model, activation_maps, images[image : image + 1], layer)
        values[~alive[snapshot, LAYERS.index(layer)]] = np.nan
        curve = picture.curve(
            {"": (steps, accuracy)},
            alt="accuracy over the steps of the training",
            title="accuracy",
            x_label="step",
            y_range=(0, 1),
            width=300,
            height=190,
            marks=[(steps[snapshot], accuracy[snapshot], percent(accuracy[snapshot]))],
        )
        right = {"right": shares[snapshot]}
        scale = np.nanmax(values) if np.isfinite(values).any() else 0
        sheet = picture.mosaic(values, 4, 1 + values.shape[-1] // 24)
        first = (
            curve,
            bars(scenes.CLASSES["scene"], right, "share of each class answered right", "answered right, per class"),
        )
        second = (
            picture.piece(
                picture.img(filters, "the filters of conv1", "signed", vmax=top, width=230),
                "conv1's filters",
                "parameter",
            ),
            picture.piece(
                picture.img(sheet, f"the maps of {layer}", vmin=0, vmax=max(scale, 1e-9), width=230),
                f"maps of {layer}",
                "output",
            ),
            grey(images[image, 0], "the image", "the image", 150, "input"),
        )
        return picture.figure(rows(first, second), said(snapshot, layer, image))

    def said(snapshot, layer, image):
        dead = np.flatnonzero(~alive[snapshot, LAYERS.index(layer)])
        names = ", ".join(map(str, dead))
        silent = (
            f" Silent on every scene (blank): channel {names}." if len(dead) else f" No channel of {layer} is dead."
        )
        best, worst = int(shares[snapshot].argmax()), int(shares[snapshot].argmin())
        return (
            f"Step {steps[snapshot]}: {percent(accuracy[snapshot])} of {len(images)} scenes answered right, most of "
            f"“{scenes.CLASSES['scene'][best]}” ({percent(shares[snapshot, best])}), fewest of "
            f"“{scenes.CLASSES['scene'][worst]}” ({percent(shares[snapshot, worst])}).{silent}"
        )

    return Explorer(
        draw,
        alt=said,
        height=500,
        snapshot=slider("snapshot", 0, len(snapshots) - 1, len(snapshots) - 1 if at is None else at),
        layer=choice("layer", list(LAYERS), "relu2"),
        image=slider("image", 0, min(len(images), 40) - 1),
    )


# --- probes ----------------------------------------------------------------------------------------------------------


def probes(results):
    """What a linear probe reads per layer and level: mean and spread over seeds, before and after training.

    results  {"trained": (seeds, layers, levels), "untrained": the same, "pixels": (levels,)}: accuracies
    """
    results = {name: np.asarray(values, float) for name, values in results.items()}

    def runs(network, level):
        """Accuracies (seeds, 1 + layers) of a level: the pixels first."""
        k, values = scenes.LEVELS.index(level), results[network]
        return np.concatenate([np.full((len(values), 1), results["pixels"][k]), values[:, :, k]], axis=1)

    def draw(level, network):
        shown = scenes.LEVELS if level == "all" else (level,)
        networks = ("trained", "untrained") if network == "both" else (network,)
        lines = {}
        for name in shown:
            for kind in networks:
                label = name if network != "both" else f"{name}, {kind}"
                style = {"colour": LEVEL_COLOURS[name], "dash": network == "both" and kind == "untrained"}
                lines[label] = (*spread(range(5), runs(kind, name)), style)
        for chance in sorted({1 / len(scenes.CLASSES[name]) for name in shown}):
            lines[f"chance {100 * chance:.3g} %"] = ([0, 4], [chance, chance], {"colour": "#7A7A7A", "dash": True})
        chart = picture.curve(
            lines,
            alt=said(level, network),
            title="accuracy of a linear probe",
            x_range=(-0.15, 4.15),
            y_range=(0, 1.03),
            width=430,
            height=300,
        )
        tables = "".join(_table(np.stack([runs(kind, name) for name in shown]), shown, kind) for kind in networks)
        return picture.figure(rows((_named(chart), picture.piece(tables))), said(level, network))

    def said(level, network):
        kind = "untrained" if network == "untrained" else "trained"
        shown, found = scenes.LEVELS if level == "all" else (level,), []
        for name in shown:
            values = runs(kind, name)
            best, chance = int(values.mean(0).argmax()), 1 / len(scenes.CLASSES[name])
            share, where = values.mean(0)[best], ("pixels", *LAYERS)[best]
            found.append(
                f"{name} at {where} ({100 * share:.0f} %)" if share > chance + 0.05 else f"{name} nowhere above chance"
            )
        return f"Most readable in the {kind} networks ({len(results[kind])} seeds): {'; '.join(found)}."

    return Explorer(
        draw,
        alt=said,
        height=370,
        level=choice("level", ["all", *scenes.LEVELS]),
        network=choice("networks", ["trained", "untrained", "both"]),
    )


def _named(chart):
    """A chart over 0 … 4 with the layers' names instead."""
    for k, name in enumerate(("pixels", *LAYERS)):
        chart = re.sub(rf'(text-anchor="middle">){k}(?=</text>)', rf"\g<1>{name}", chart)
    return chart


def _table(values, shown, kind):
    """Mean accuracy in percent of values (levels, seeds, 5)."""
    return picture.heat(
        100 * values.mean(1),
        f"{kind}, mean in %",
        f"accuracy per level and layer, {kind}",
        "magnitude",
        0,
        100,
        rows=shown,
        columns=("pixels", *LAYERS),
        digits=0,
    )
