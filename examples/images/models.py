"""The networks of the examples and benchmarks, in Flax linen, and `MODELS` by name.

The ResNets, WRNs and ViTs are those of the literature's PyTorch code, to the parameter:
images are padded alike on all sides, which Flax's "SAME" doesn't do at a stride of 2,
and weights are drawn as in PyTorch where that differs from Flax's defaults. BatchNorm's
momentum of 0.9 and ε of 1e-5 are PyTorch's 0.1 and 1e-5; but Flax's running variance
is the mean of the batches' own, where PyTorch corrects them by n / (n - 1).

The networks of `MODELS` take images (batch, height, width, channels), normalized, and
`dtype`, in which they compute; their parameters, the statistics of their norms, the
attention's softmax, the last layer and the logits remain float32.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# PyTorch's default for convolutions and linear layers: uniform within ±1/√fan_in. It
# is called kaiming_uniform(a=√5) there.
TORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Kaiming He's for a ReLU, by the number of outputs or inputs. Flax's is truncated; this
# isn't.
KAIMING_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
KAIMING_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# PyTorch's ViTs truncate their normal at ±2, not at ±2 standard deviations: at 0.02
# that is no truncation, whereas Flax's truncated_normal would lose an eighth of it.
NORMAL = nn.initializers.normal(0.02)


def torch_bias(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for the bias of a linear layer, the same as for its weights."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / fan_in**0.5

    return init


class ResNet(nn.Module):
    """ResNet (He et al. 2016), basic or bottleneck, with its CIFAR or ImageNet stem.

    The CIFAR stem is that of kuangliu/pytorch-cifar, whose ResNets the Lookbehind paper
    trains, with PyTorch's default initialization. The ImageNet stem is torchvision's,
    and so is its initialization. In both, a bottleneck's stride is in its 3×3
    convolution (torchvision's v1.5).

    Attributes:
      stages: number of blocks in each stage; a stage has twice the channels of the one
        before, on half its height and width.
      bottleneck: blocks of 1×1, 3×3 and 1×1 convolutions rather than of two 3×3.
      imagenet: a stem of a 7×7 convolution and a max-pool, both of stride 2, rather
        than of a 3×3 convolution.
      classes: number of classes.
      dtype: of the computation.
    """

    stages: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    imagenet: bool = False
    classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = True) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels)."""

        def convolve(x, channels, size, stride=1):
            x = nn.Conv(
                channels,
                (size, size),
                stride,
                padding=size // 2,
                use_bias=False,
                kernel_init=KAIMING_FAN_OUT if self.imagenet else TORCH_UNIFORM,
                dtype=self.dtype,
            )(x)
            return nn.BatchNorm(
                use_running_average=not train, momentum=0.9, dtype=self.dtype
            )(x)

        if self.imagenet:
            x = nn.relu(convolve(images, 64, size=7, stride=2))
            border: Any = ((1, 1), (1, 1))  # Flax types it as a string
            x = nn.max_pool(x, (3, 3), (2, 2), padding=border)
        else:
            x = nn.relu(convolve(images, 64, size=3))
        for stage, blocks in enumerate(self.stages):
            channels = 64 * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                if self.bottleneck:
                    y = nn.relu(convolve(x, channels, size=1))
                    y = nn.relu(convolve(y, channels, size=3, stride=stride))
                    y = convolve(y, 4 * channels, size=1)
                else:
                    y = nn.relu(convolve(x, channels, size=3, stride=stride))
                    y = convolve(y, channels, size=3)
                if x.shape[-1] != y.shape[-1]:
                    x = convolve(x, y.shape[-1], size=1, stride=stride)
                x = nn.relu(x + y)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        bias = torch_bias(x.shape[-1])
        return nn.Dense(self.classes, kernel_init=TORCH_UNIFORM, bias_init=bias)(x)


class WideResNet(nn.Module):
    """WRN-depth-width for 32×32 images (Zagoruyko & Komodakis 2016), pre-activation.

    Attributes:
      depth: 6n + 4, with n blocks of two convolutions in each of three groups.
      width: factor on the 16, 32 and 64 channels of the groups.
      classes: number of classes.
      dtype: of the computation.
    """

    depth: int = 16
    width: int = 2
    classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = True) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels)."""

        def normalize(x):
            return nn.BatchNorm(
                use_running_average=not train, momentum=0.9, dtype=self.dtype
            )(x)

        def convolve(x, channels, stride=1, size=3):
            return nn.Conv(
                channels,
                (size, size),
                stride,
                padding=size // 2,
                use_bias=False,
                kernel_init=KAIMING_FAN_OUT,
                dtype=self.dtype,
            )(x)

        blocks, remainder = divmod(self.depth - 4, 6)
        if blocks < 1 or remainder:
            raise ValueError(
                f"WideResNet's depth must be 10, 16, 22 or another 6n + 4; "
                f"got {self.depth}"
            )
        x = convolve(images, 16)
        for group, channels in enumerate((16, 32, 64)):
            for block in range(blocks):
                stride = 2 if group > 0 and block == 0 else 1
                y = nn.relu(normalize(x))
                if x.shape[-1] != channels * self.width:
                    x = convolve(y, channels * self.width, stride, size=1)
                y = convolve(y, channels * self.width, stride)
                y = convolve(nn.relu(normalize(y)), channels * self.width)
                x = x + y
        x = jnp.mean(nn.relu(normalize(x)), axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.classes, kernel_init=TORCH_UNIFORM)(x)


class EncoderLayer(nn.Module):
    """A layer of the vision transformer: attention and MLP, both pre-normalized.

    Attributes:
      heads: attention heads.
      dropout: rate.
      dtype: of the computation.
    """

    heads: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Any:
        """Tokens (batch, length, width) from tokens of that shape."""
        width = x.shape[-1]
        norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=NORMAL, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            kernel_init=NORMAL,
            dtype=self.dtype,
            attention_fn=jax.nn.dot_product_attention,  # its softmax is in float32
            name="attention",
        )
        x = x + drop(attention(norm(name="norm_attention")(x)))
        y = dense(4 * width, name="mlp_in")(norm(name="norm_mlp")(x))
        y = drop(nn.gelu(y, approximate=False))
        return x + drop(dense(width, name="mlp_out")(y))


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al. 2021), ViT-B/16 by default, with a class token.

    Weights are drawn, and GELU is exact, as in its PyTorch versions; the norms' ε of
    1e-6 is the original's. There is a position embedding for each patch; for another
    resolution, see `examples.images.pretrained`.

    Attributes:
      patch: height and width of a patch in pixels.
      width: of the tokens; the MLP is four times wider.
      depth: number of layers.
      heads: attention heads.
      dropout: rate, on the embeddings and in the layers, with the key "dropout".
      classes: number of classes.
      dtype: of the computation.
    """

    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    dropout: float = 0.0
    classes: int = 1000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = True) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        batch, height, width, channels = images.shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                "VisionTransformer needs images whose height and width are multiples "
                f"of its patch, {self.patch}; got {height}×{width}"
            )
        # A convolution with the stride and size of a patch, as a matrix product: on
        # CPUs, only networks without convolutions can climb in a loop.
        shape = (batch, height // self.patch, self.patch, -1, self.patch, channels)
        x = images.reshape(shape).swapaxes(2, 3)
        x = nn.DenseGeneral(
            self.width,
            axis=(-3, -2, -1),
            kernel_init=NORMAL,
            dtype=self.dtype,
            name="patches",
        )(x)
        x = x.reshape(batch, -1, self.width)
        token = self.param("class_token", NORMAL, (1, 1, self.width))
        x = jnp.concatenate(
            [jnp.broadcast_to(token.astype(x.dtype), (batch, 1, self.width)), x], axis=1
        )
        positions = self.param("positions", NORMAL, (1, *x.shape[1:]))
        x = x + positions.astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for i in range(self.depth):
            layer = EncoderLayer(
                self.heads, self.dropout, self.dtype, name=f"layer_{i}"
            )
            x = layer(x, train=train)
        # Only the class token is read, and the norm acts on each token separately.
        x = nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32, name="norm")(x[:, 0])
        return nn.Dense(self.classes, kernel_init=NORMAL, name="head")(x)


class MLP(nn.Module):
    """A multilayer perceptron with ReLUs, with Flax's initialization.

    Attributes:
      widths: of the hidden layers.
      classes: number of classes.
      dtype: of the computation.
    """

    widths: tuple[int, ...] = (512, 512)
    classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = True) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        del train  # it makes no difference
        x = images.reshape(len(images), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.classes)(x.astype(jnp.float32))


class ConvNet(nn.Module):
    """Two convolutions and a linear layer, for CPUs, with Flax's initialization.

    Attributes:
      norm: whether a BatchNorm follows each convolution.
      hidden: width of a layer between convolutions and classes; 0 for none.
      classes: number of classes.
      dtype: of the computation.
    """

    norm: bool = False
    hidden: int = 0
    classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = True) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        if min(images.shape[1:3]) < 4:  # pooling would leave nothing
            height, width = images.shape[1:3]
            raise ValueError(f"ConvNet needs 4×4 pixels at least; got {height}×{width}")
        x = images
        for channels in (16, 32):
            x = nn.Conv(channels, (3, 3), dtype=self.dtype)(x)
            if self.norm:
                x = nn.BatchNorm(
                    use_running_average=not train, momentum=0.9, dtype=self.dtype
                )(x)
            x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(len(x), -1)
        if self.hidden:
            x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x))
        return nn.Dense(self.classes)(x.astype(jnp.float32))


def neighborhoods(x: jax.Array) -> jax.Array:
    """The 3×3 neighborhood of every second pixel, with zeros beyond the edges.

    Args:
      x: of shape (batch, height, width, channels).

    Returns:
      Of shape (batch, ⌈height / 2⌉, ⌈width / 2⌉, 9 channels): row by row, as in the
      kernel of a convolution.
    """
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [(i, j) for i in range(3) for j in range(3)]
    return jnp.concatenate(
        [x[:, i : i + height : 2, j : j + width : 2] for i, j in shifts], axis=-1
    )


class StridedConvNet(nn.Module):
    """Convolutions of stride 2 and a perceptron, as in Look-ahead MAML's code.

    Gupta et al. 2020 learn Split-CIFAR100 with three convolutions, Split-TinyImageNet
    with four. The last layer holds the heads of all tasks, one after the other. The
    convolutions are matrix products, which are faster on CPUs, and climb in a loop.

    Attributes:
      layers: number of convolutions.
      channels: of each convolution.
      width: of the two hidden layers behind them.
      classes: number of classes, of all tasks together.
      dtype: of the computation.
    """

    layers: int = 3
    channels: int = 160
    width: int = 320
    classes: int = 100
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = True) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        del train  # it makes no difference
        dense = functools.partial(
            nn.Dense, kernel_init=KAIMING_FAN_IN, dtype=self.dtype
        )
        x = images
        for i in range(self.layers):
            x = neighborhoods(x)
            shape = (*x.shape[:-1], self.channels)
            # XLA for CPUs finds a kernel's gradient faster from a matrix than in 4-D.
            x = x.reshape(-1, x.shape[-1])
            x = nn.relu(dense(self.channels, name=f"Conv_{i}")(x)).reshape(shape)
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(dense(self.width)(x))
        return nn.Dense(self.classes, kernel_init=KAIMING_FAN_IN)(x.astype("float32"))


class Transformer(nn.Module):
    """A decoder-only transformer with learned positions, pre-normalized, untied.

    Attributes:
      vocabulary: number of tokens.
      width: of the residual stream; the MLP is four times wider.
      heads: attention heads.
      layers: number of blocks.
      length: longest sequence.
      dtype: of the computation.
    """

    vocabulary: int = 512
    width: int = 128
    heads: int = 4
    layers: int = 2
    length: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> Any:
        """Logits (batch, length, vocabulary) of tokens (batch, length)."""
        embed = functools.partial(nn.Embed, features=self.width, dtype=self.dtype)
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        norm = functools.partial(nn.LayerNorm, dtype=self.dtype)
        place = embed(self.length)(jnp.arange(tokens.shape[1]))
        x = embed(self.vocabulary)(tokens) + place[None]
        attend = functools.partial(jax.nn.dot_product_attention, is_causal=True)
        for _ in range(self.layers):
            attention = nn.MultiHeadDotProductAttention(
                self.heads, dtype=self.dtype, attention_fn=attend
            )
            x = x + attention(norm()(x))
            y = dense(4 * self.width)(norm()(x))
            x = x + dense(self.width)(nn.gelu(y))
        x = nn.LayerNorm(dtype=jnp.float32)(x)
        return nn.Dense(self.vocabulary)(x)


# Each takes `classes` and `dtype`, and any other attribute of its class.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": functools.partial(ResNet, stages=(2, 2, 2, 2)),
    "resnet34": functools.partial(ResNet, stages=(3, 4, 6, 3)),
    "resnet50": functools.partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True),
    "resnet18-imagenet": functools.partial(
        ResNet, stages=(2, 2, 2, 2), imagenet=True, classes=1000
    ),
    "resnet34-imagenet": functools.partial(
        ResNet, stages=(3, 4, 6, 3), imagenet=True, classes=1000
    ),
    "resnet50-imagenet": functools.partial(
        ResNet, stages=(3, 4, 6, 3), bottleneck=True, imagenet=True, classes=1000
    ),
    "wrn-10-1": functools.partial(WideResNet, depth=10, width=1),
    "wrn-16-2": functools.partial(WideResNet, depth=16, width=2),
    "wrn-16-4": functools.partial(WideResNet, depth=16, width=4),
    "wrn-16-8": functools.partial(WideResNet, depth=16, width=8),
    "wrn-28-2": functools.partial(WideResNet, depth=28, width=2),
    "wrn-28-10": functools.partial(WideResNet, depth=28, width=10),
    "vit-b16": VisionTransformer,
    # The literature's ViT-S, with patches for 32×32 images.
    "vit-small": functools.partial(
        VisionTransformer, patch=4, width=384, heads=6, classes=10
    ),
    # For 32×32 images on a CPU; smaller than what the literature calls ViT-Ti.
    "vit-micro": functools.partial(
        VisionTransformer, patch=4, width=96, depth=4, heads=3, classes=10
    ),
    # Small enough to train from scratch on one core.
    "vit-nano": functools.partial(
        VisionTransformer, patch=8, width=64, depth=4, heads=4, classes=10
    ),
    "mlp": MLP,
    "convnet": ConvNet,
    "convnet-bn": functools.partial(ConvNet, norm=True),
    # Half a million parameters, on 32×32 images.
    "convnet-bn-hidden": functools.partial(ConvNet, norm=True, hidden=256),
    "conv3": StridedConvNet,
    "conv4": functools.partial(StridedConvNet, layers=4, width=640, classes=200),
    # The first of them for CPUs.
    "conv3-narrow": functools.partial(StridedConvNet, channels=32, width=64),
}
