"""Trains the scene CNNs whose weights the course ships: `make weights`, some five minutes on one core."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from course.data import scene_cnn, scenes

FOLDER = Path(__file__).parent
FILM = [round(scene_cnn.STEPS * k / 30) for k in range(31)]  # steps after which a snapshot is taken


def main():
    torch.set_num_threads(1)  # the same sums everywhere
    images, labels = scene_cnn.training_images()
    fresh = tuple(map(torch.from_numpy, scenes.sample("scene", 1000, seed=2)))
    for seed in scene_cnn.SEEDS:
        model = scene_cnn.network(seed)
        film = {0: kept(model)}
        for step, loss in scene_cnn.train(model, images, labels, seed=seed):
            if step in FILM:
                film[step] = kept(model)
                print(f"seed {seed}, step {step}: loss {loss:.3f}, right {accuracy(model, *fresh):.3f}", flush=True)
        scene_cnn.save(model, seed, FOLDER)
        if seed == 0:
            stacked = {name: torch.stack([state[name] for state in film.values()]) for name in film[0]}
            save_file(stacked | {"step": torch.tensor(list(film))}, FOLDER / "scene_cnn_snapshots.safetensors")


def kept(model):
    """A copy of a model's weights in half precision: half the bytes, and no answer changes."""
    return {name: value.half() for name, value in model.state_dict().items()}


def accuracy(model, images, labels):
    """The share of scenes that a model gets right."""
    with torch.no_grad():
        right = [
            (model(part).argmax(1) == truth) for part, truth in zip(images.split(100), labels.split(100), strict=True)
        ]
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    main()
