"""PyTorch's twins of `networks`: the same functions of the same weights."""

# pyright: reportMissingImports=false
# PyTorch is no dependency of anything else here.

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.speed.networks import DECODERS


class Block(nn.Module):
    """Two convolutions of a WRN, pre-activated."""

    def __init__(self, channels: int, width: int, stride: int):
        """From `channels` to `width` channels."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        same = channels == width
        shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
        self.shortcut = None if same else shortcut
        self.first = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.middle_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)

    def forward(self, x):
        """Images of features."""
        y = functional.relu(self.norm(x))
        x = x if self.shortcut is None else self.shortcut(y)
        y = functional.relu(self.middle_norm(self.first(y)))
        return x + self.second(y)


class WideResNet(nn.Module):
    """The twin of `examples.images.models.WideResNet`."""

    def __init__(self, depth: int, width: int, classes: int = 10):
        """WRN-depth-width."""
        super().__init__()
        blocks = (depth - 4) // 6
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        layers, channels = [], 16
        for group, base in enumerate((16, 32, 64)):
            for block in range(blocks):
                stride = 2 if group > 0 and block == 0 else 1
                layers.append(Block(channels, base * width, stride))
                channels = base * width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        """Logits of images (batch, channels, height, width)."""
        x = functional.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(x.mean((2, 3)))


class BasicBlock(nn.Module):
    """Two convolutions of a ResNet."""

    def __init__(self, channels: int, width: int, stride: int):
        """From `channels` to `width` channels."""
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut = None
        if channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False),
                nn.BatchNorm2d(width),
            )

    def forward(self, x):
        """Images of features."""
        y = functional.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """The twin of our `ResNet`, of basic blocks and with its CIFAR stem."""

    def __init__(self, stages: tuple[int, ...], classes: int = 10):
        """ResNet-34 has stages of 3, 4, 6 and 3 blocks."""
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        layers, channels = [], 64
        for stage, blocks in enumerate(stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, 64 * 2**stage, stride))
                channels = 64 * 2**stage
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        """Logits of images (batch, channels, height, width)."""
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class DecoderLayer(nn.Module):
    """Causal attention and MLP, both pre-normalized."""

    def __init__(self, width: int, heads: int):
        """For tokens of `width`."""
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x):
        """Tokens (batch, length, width)."""
        y = self.attention_norm(x)
        q, k, v = (
            project(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = functional.gelu(self.mlp_in(self.norm(x)), approximate="tanh")
        return x + self.mlp_out(y)


class Decoder(nn.Module):
    """The twin of `examples.images.models.Transformer`."""

    def __init__(self, vocabulary, width, heads, layers, length):
        """With learned positions, untied."""
        super().__init__()
        self.positions = nn.Embedding(length, width)
        self.tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(
            *(DecoderLayer(width, heads) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        """Logits (batch, length, vocabulary) of tokens (batch, length)."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.layers(x)))


def classification_loss(model, batch):
    """Mean cross-entropy of (images, labels)."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


def next_token_loss(model, tokens):
    """Mean cross-entropy of each token after the first."""
    logits = model(tokens)[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def twin(name: str) -> tuple[nn.Module, Any]:
    """A network of `benchmarks.speed.networks` by name, and its loss."""
    if name in DECODERS:
        like = DECODERS[name]
        decoder = Decoder(
            like.vocabulary, like.width, like.heads, like.layers, like.length
        )
        return decoder, next_token_loss
    if name == "resnet34":
        return ResNet((3, 4, 6, 3)), classification_loss
    family, depth, width = name.split("-")
    if family != "wrn":
        raise ValueError(f"there is no PyTorch twin of {name}")
    return WideResNet(int(depth), int(width)), classification_loss


def copy_weights(params: Any, model: nn.Module) -> None:
    """Puts Flax's weights into the twin, whose modules are made in the same order."""
    params, counts = params.get("params", params), {}

    def of_next(kind):
        counts[kind] = counts.get(kind, -1) + 1
        return params[f"{kind}_{counts[kind]}"]

    def put(parameter, array):
        with torch.no_grad():
            parameter.copy_(torch.tensor(np.asarray(array)).reshape(parameter.shape))

    def put_dense(linear, dense):
        width = linear.out_features
        put(linear.weight, np.asarray(dense["kernel"]).reshape(-1, width).T)
        put(linear.bias, dense["bias"])

    attended = set()  # linear layers that Flax keeps inside of an attention
    for module in model.modules():
        if isinstance(module, DecoderLayer):
            attention = of_next("MultiHeadDotProductAttention")
            for name in ("query", "key", "value", "out"):
                linear = getattr(module, name)
                put_dense(linear, attention[name])
                attended.add(linear)
        elif isinstance(module, nn.Conv2d):
            kernel = np.asarray(of_next("Conv")["kernel"])
            put(module.weight, kernel.transpose(3, 2, 0, 1))
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            batch = isinstance(module, nn.BatchNorm2d)
            norm = of_next("BatchNorm" if batch else "LayerNorm")
            put(module.weight, norm["scale"])
            put(module.bias, norm["bias"])
        elif isinstance(module, nn.Embedding):
            put(module.weight, of_next("Embed")["embedding"])
        elif isinstance(module, nn.Linear) and module not in attended:
            put_dense(module, of_next("Dense"))
