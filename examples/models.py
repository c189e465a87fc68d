"""The networks of the examples and benchmarks, in Flax linen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class WideResNet(nn.Module):
    """WRN-depth-width for 32×32 images (Zagoruyko & Komodakis 2016), pre-activation.

    Attributes:
      depth: 6n + 4, with n blocks of two convolutions in each of three groups.
      width: factor on the 16, 32 and 64 channels of the groups.
      classes: number of classes.
    """

    depth: int = 16
    width: int = 2
    classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = True) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels)."""

        def normalise(x):
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        def convolve(x, channels, stride=1, size=3):
            init = nn.initializers.kaiming_normal()
            return nn.Conv(
                channels, (size, size), stride, use_bias=False, kernel_init=init
            )(x)

        blocks = (self.depth - 4) // 6
        x = convolve(images, 16)
        for group, channels in enumerate((16, 32, 64)):
            for block in range(blocks):
                stride = 2 if group > 0 and block == 0 else 1
                y = nn.relu(normalise(x))
                if block == 0:  # the shortcut has to change shape
                    x = convolve(y, channels * self.width, stride, size=1)
                y = convolve(y, channels * self.width, stride)
                y = convolve(nn.relu(normalise(y)), channels * self.width)
                x = x + y
        x = jnp.mean(nn.relu(normalise(x)), axis=(1, 2))
        return nn.Dense(self.classes)(x)


class Transformer(nn.Module):
    """A decoder-only transformer with learned positions, pre-normalised, untied.

    Attributes:
      vocabulary: number of tokens.
      width: of the residual stream; the MLP is four times wider.
      heads: attention heads.
      layers: number of blocks.
      length: longest sequence.
    """

    vocabulary: int = 512
    width: int = 128
    heads: int = 4
    layers: int = 2
    length: int = 64

    @nn.compact
    def __call__(self, tokens: jax.Array) -> Any:
        """Logits (batch, length, vocabulary) of tokens (batch, length)."""
        place = nn.Embed(self.length, self.width)(jnp.arange(tokens.shape[1]))
        x = nn.Embed(self.vocabulary, self.width)(tokens) + place[None]
        mask = nn.make_causal_mask(tokens)
        for _ in range(self.layers):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads)(y, mask=mask)
            y = nn.Dense(4 * self.width)(nn.LayerNorm()(x))
            x = x + nn.Dense(self.width)(nn.gelu(y))
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(x))
