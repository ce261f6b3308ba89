"""A small CNN that tells scenes apart: the network, its training, its trained weights (see make_scene_cnn.py)."""

import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from course.data import scenes

WIDTH = 16  # channels of every layer: so a probe sees equally many numbers wherever it looks
LAYERS = ("relu1", "relu2", "relu3", "relu4")
SEEDS = range(5)  # of the runs whose weights are shipped
STEPS, BATCH, IMAGES = 1250, 64, 8000  # of such a run
_SHIPPED = Path(__file__).parent


def network(seed=0):
    """Four convolutions with max pooling between them, the mean over the image, and one answer per scene class.

    Weights are drawn as He et al. (2015) do, biases are 0; PyTorch's own random numbers are left alone.
    """
    with torch.random.fork_rng(devices=[]):  # PyTorch's layers draw weights of their own
        model = nn.Sequential(_parts())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            else:
                parameter.zero_()
    return model.eval()


def _parts():
    parts, channels = OrderedDict(), 1
    for k in range(1, 5):
        size = 5 if k == 1 else 3
        parts[f"conv{k}"] = nn.Conv2d(channels, WIDTH, size, padding=size // 2)
        parts[f"relu{k}"] = nn.ReLU()
        if k < 4:
            parts[f"pool{k}"] = nn.MaxPool2d(2)
        channels = WIDTH
    parts |= {"gap": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    parts["fc"] = nn.Linear(WIDTH, len(scenes.CLASSES["scene"]))
    return parts


def training_images():
    """The scenes that the shipped networks were trained on: tensors (IMAGES, 1, 48, 48) and (IMAGES,)."""
    images, labels = scenes.sample("scene", IMAGES, seed=1)
    return torch.from_numpy(images), torch.from_numpy(labels)


def learning_rate(step):
    """Of step 0, 1, …: rises over the first 125 steps, then falls along a cosine that reaches 0 at STEPS.

    It does not depend on how many steps one takes: fewer are the beginning of a run of STEPS.
    """
    return 6e-3 * min(1, (step + 1) / 125) * (1 + math.cos(math.pi * min(1, step / STEPS))) / 2


def train(model, images, labels, steps=STEPS, seed=0):
    """Train a model with Adam, step by step: a generator of (step, loss), to be walked through with `for`."""
    rng, order = np.random.default_rng(seed), np.zeros(0, int)
    optimiser = torch.optim.Adam(model.parameters())
    for step in range(steps):
        if len(order) < BATCH:
            order = rng.permutation(len(images))
        batch, order = torch.from_numpy(order[:BATCH]), order[BATCH:]
        optimiser.param_groups[0]["lr"] = learning_rate(step)
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield step + 1, loss.item()


def save(model, seed=0, folder="weights"):
    """Keep a trained model's weights where `load` looks for them."""
    path = Path(folder) / f"scene_cnn_{seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().half() for name, value in model.state_dict().items()}, path)


def load(seed=0, folder="weights"):
    """The trained network of a seed: the learner's own where `save` kept one in the folder, else the shipped one."""
    own = Path(folder) / f"scene_cnn_{seed}.safetensors"
    path = own if own.exists() else _SHIPPED / own.name
    whose = f"your own weights, {own}" if path is own else "the weights shipped with the course"
    print(f"Scene CNN, seed {seed}: {whose}.")
    model = network(seed)
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model


def snapshots():
    """The shipped run of seed 0 as a film: [(step, state_dict), …], from before the first step to after the last."""
    film = load_file(_SHIPPED / "scene_cnn_snapshots.safetensors")
    steps = film.pop("step").tolist()
    return [(step, {name: values[k].float() for name, values in film.items()}) for k, step in enumerate(steps)]
