"""Settings of the translator, and recipes of the literature."""

from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import Field
from pydantic import NonNegativeFloat
from pydantic import PositiveFloat
from pydantic import PositiveInt

from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.config import RunConfig
from examples.trainer.config import Schedule
from examples.trainer.config import Share
from examples.trainer.paths import InputFile

Width = Annotated[int, Field(ge=1, le=65_536)]


@settings
class Texts(Settings):
    """The recipe, the texts and the network.

    Attributes:
      recipe: named defaults for all other flags; their sources are in
        examples/translation/config.py.
      train: source and target to learn from.
      valid: source and target that are translated after each epoch.
      test: source and target that are translated at the end.
      vocabulary: number of subwords, of both languages together.
      max_length: maximum number of subwords in a sentence. Longer pairs aren't trained
        on, and longer sources are truncated.
      layers: number of layers of the encoder, and of the decoder.
      width: size of the vector of a token.
      heads: number of attention heads.
      hidden: size of the hidden layer of the feed-forward networks.
      dropout: dropout rate.
    """

    recipe: Literal["small", "paper"] = "small"
    train: tuple[InputFile, InputFile] | None = None
    valid: tuple[InputFile, InputFile] | None = None
    test: tuple[InputFile, InputFile] | None = None
    vocabulary: Annotated[int, Field(ge=8, le=1_000_000)] = 4000
    max_length: Annotated[int, Field(ge=2, le=10_000)] = 32
    layers: Annotated[int, Field(ge=1, le=1000)] = 2
    width: Width = 128
    heads: Width = 4
    hidden: Width = 512
    dropout: Share = 0.1


@settings
class TranslationConfig(Texts, RunConfig):
    """Train a Transformer to translate, with any optimizer of this library.

    It trains on one pair of text files and is validated on another. Files are plain or
    compressed (.gz), with one sentence per line: line i of one is the translation of
    line i of the other. The folder of the run gets its configuration, subwords, log,
    plots, summary, translations and checkpoints; an existing run is resumed.

    Two commands:
      python -m examples.translation --train train.de train.en --valid val.de val.en
      python -m examples.translation --config FILE --optimizer sam --output runs/sam
    """

    epochs: PositiveInt = 5
    batch_size: PositiveInt = 32
    label_smoothing: Share = 0.1
    base: str = "adam"
    betas: tuple[Share, Share] | None = (0.9, 0.98)
    epsilon: PositiveFloat | None = 1e-9
    learning_rate: NonNegativeFloat = 2e-3
    schedule: Schedule = "inverse-sqrt"
    warmup: NonNegativeFloat = 1.0
    weight_decay: NonNegativeFloat = 0.0
    switch_minibatches: bool = True

    def of_recipe(self) -> dict[str, Any]:
        """The paper's adaptive α, with two gradients in each inner step."""
        if self.recipe == "paper" and self.looks_behind:
            return {"alpha": "adaptive", "reuse_gradients": False}
        return {}


# Each overrides defaults of TranslationConfig, and `TranslationConfig.of_recipe` adds
# what is Lookbehind's. Flags override both.
TRANSLATION_RECIPES: dict[str, dict[str, Any]] = {
    # Multi30k's 29,000 pairs take 21 minutes of CPU time.
    "small": {},
    # Mordido et al. 2024, Section 6.2: 12 layers, Adam, label smoothing, inverse-sqrt
    # schedule after a warm-up, a minibatch for each inner step and two gradients of it.
    # Sizes, dropout, smoothing, Adam's β and ε, and the peak of the learning rate,
    # which is 1/√(512·4000), are those of the base model of Vaswani et al. 2017,
    # Table 3 and Section 5. They warm up over 4000 steps, which is about 6 epochs of
    # 160,000 pairs; set --warmup for texts of other sizes.
    "paper": {
        "vocabulary": 10_000,
        "max_length": 128,
        "layers": 6,
        "width": 512,
        "heads": 8,
        "hidden": 2048,
        "epochs": 50,
        "batch_size": 128,
        "learning_rate": 7e-4,
        "warmup": 6.0,
    },
}
