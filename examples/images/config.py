"""Settings of the trainer of image classifiers, and recipes of the literature."""

from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import Field

from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.config import RunConfig
from examples.trainer.config import Share
from examples.trainer.paths import DataFolder
from examples.trainer.paths import InputFile

Recipe = Literal[
    "digits", "cifar", "official", "table-8", "asam", "late", "imagenet", "vit"
]


@settings
class Images(Settings):
    """The recipe, the images and the network.

    Attributes:
      recipe: named defaults for all other flags; their sources are in
        examples/images/config.py. `--recipe NAME --help` shows them.
      dataset: digits (needs no network); your own, as folder:PATH (PATH/train/CLASS and
        PATH/test/CLASS with JPEGs and PNGs), PATH.npz (x_train, y_train, x_test and
        y_test) or hf:PATH (saved by Hugging Face's datasets); or one of TFDS: cifar10,
        cifar100, fashion_mnist, imagenet2012, ...
      data_dir: folder of datasets that TFDS has prepared; missing ones are prepared
        there, which needs TensorFlow. TFDS's own folder by default.
      validation: share of the training examples, drawn by seed 0, to evaluate on after
        each epoch; the test set is then used only at the end. 0 evaluates on the test
        set after each epoch.
      label_noise: share of the training examples whose label is replaced by another
        one, drawn uniformly by seed. The log then has flipped_accuracy, the share of
        these wrong labels that the network predicts.
      clean_validation: whether examples that are held out for validation keep their
        labels. Otherwise they are as noisy as the rest.
      augment: random crops of the images, padded by 4, and horizontal flips; if they
        are streamed, crops of 8 to 100 % and flips. "auto" is "yes" for color images.
      image_size: height and width to which images are resized (or, if they differ in
        size, to which crops of them are; 224 if not given).
      model: network, a name in examples/images/models.py; or package.module:Factory,
        which is called with classes and dtype, and gives a Flax linen module.
      pretrained: file of a pretrained ViT, in Hugging Face's names and the safetensors
        format. Images are then normalized as it expects them, by 0.5.
    """

    recipe: Recipe = "digits"
    dataset: str = "digits"
    data_dir: DataFolder | None = None
    validation: Share = 0.0
    label_noise: Share = 0.0
    clean_validation: bool = False
    augment: Literal["auto", "yes", "no"] = "auto"
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    model: str = "convnet"
    pretrained: InputFile | None = None


@settings
class Config(Images, RunConfig):
    """Train an image classifier with any optimizer of this library.

    Without arguments, a small network is trained on scikit-learn's digits. The folder
    of the run gets its configuration, log, plots, summary and checkpoints; an existing
    run is resumed.

    Two commands:
      python -m examples.images --recipe cifar --output runs/cifar
      python -m examples.images --optimizer sam --rho 0.1 --seeds 5 --output runs/sam
    """

    def of_recipe(self) -> dict[str, Any]:
        """The ρ for dataset and optimizers, and the paper's adaptive α."""
        if self.recipe == "digits":
            return {}
        found: dict[str, Any] = {"rho": radius(self.dataset, self.optimizers)}
        if self.looks_behind and self.recipe in MORDIDO:
            found["alpha"] = "adaptive"
        return found


# Mordido et al. 2024, Appendix A.4: the default ρ of SAM's and of ASAM's variants.
# Those for CIFAR are also Kwon et al.'s (2021, Section 5).
RADII = {
    "cifar10": {"sam": 0.05, "asam": 0.5},
    "cifar100": {"sam": 0.1, "asam": 1.0},
    "imagenet2012": {"sam": 0.05, "asam": 1.0},
}


def radius(dataset: str, optimizers: tuple[str, ...]) -> float | None:
    """The default ρ, if they have one in common."""
    climbing = [name for name in optimizers if name != "base"]
    kin = {"asam" if name.endswith("asam") else "sam" for name in climbing}
    return RADII.get(dataset, {}).get(kin.pop()) if len(kin) == 1 else None


# Recipes of the paper, with the adaptive α; for a fixed one, Appendix A.4 searches α in
# {0.2, 0.5, 0.8} together with k.
MORDIDO = ("cifar", "official", "table-8", "imagenet", "vit")

# Each overrides defaults of Config, and `Config.of_recipe` adds ρ and α. Flags override
# both.
RECIPES: dict[str, dict[str, Any]] = {
    # Seconds on two CPU cores.
    "digits": {},
    # Mordido et al. 2024, Section 4.2: SGD, learning rate divided by 10 every 50
    # epochs, weight decay 1e-4.
    "cifar": {
        "dataset": "cifar10",
        "model": "resnet34",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "step",
        "drop_every": 50,
        "weight_decay": 1e-4,
    },
    # example_cifar.py of the official code, whose weight decay isn't the paper's.
    "official": {
        "dataset": "cifar10",
        "model": "resnet34",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "step",
        "drop_every": 50,
        "weight_decay": 5e-4,
    },
    # Mordido et al. 2024, Table 8: cosine schedule, label smoothing and 5 seeds. The
    # rest is as in "asam".
    "table-8": {
        "dataset": "cifar100",
        "model": "wrn-28-10",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "seeds": 5,
    },
    # Kwon et al. 2021 (ASAM), Section 5: cosine schedule, label smoothing 0.1, weight
    # decay 5e-4.
    "asam": {
        "dataset": "cifar10",
        "model": "wrn-16-8",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "optimizer": "asam",
    },
    # SGD, with SAM only late in training: as good as throughout, at a fraction of the
    # gradients (Zhou et al. 2025, on this network), if the late phase has an anneal of
    # its own (Temperon 2026; docs/evidence/late-phases.md).
    "late": {
        "dataset": "cifar10",
        "model": "wrn-16-8",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "phases": ("base until 0.7", "sam until 1"),
        "anneal": "each",
    },
    # Mordido et al. 2024, Section 4.2: SGD, learning rate divided by 10 every 30
    # epochs.
    "imagenet": {
        "dataset": "imagenet2012",
        "model": "resnet18-imagenet",
        "epochs": 90,
        "batch_size": 400,
        "learning_rate": 0.1,
        "schedule": "step",
        "drop_every": 30,
        "weight_decay": 1e-4,
    },
    # Mordido et al. 2024, Section 4.2: a ViT-B/16 fine-tuned by SGD. Schedule and
    # weight decay are those of Dosovitskiy et al. 2021 (ViT), Appendix B.1.1. Needs
    # --pretrained.
    "vit": {
        "dataset": "imagenet2012",
        "model": "vit-b16",
        "epochs": 15,
        "batch_size": 450,
        "learning_rate": 0.001,
        "schedule": "cosine",
        "weight_decay": 0.0,
    },
}
