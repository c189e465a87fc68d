"""The encoder-decoder Transformer, and how it translates."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from examples.translation.text import END
from examples.translation.text import PAD
from examples.translation.text import START


class Layer(nn.Module):
    """A layer of the encoder, or of the decoder if it has a memory to attend to.

    Attributes:
      heads: attention heads.
      hidden: width inside the feed-forward network.
      dropout: rate, on what each part adds.
      cached: whether tokens arrive one by one, and earlier ones are kept.
      dtype: of the computation.
    """

    heads: int
    hidden: int
    dropout: float
    cached: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        *,
        train: bool,
    ) -> Any:
        """Tokens (batch, length, width) from tokens of that shape."""
        # Normalized before each part, not after it as in Vaswani et al. Gradients then
        # have one size in all layers from the start (Xiong et al. 2020), and neither a
        # short warm-up nor a perturbation of the weights upsets them.
        norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        dense = functools.partial(
            nn.Dense, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype
        )
        drop = nn.Dropout(self.dropout, deterministic=not train)
        attention = functools.partial(
            nn.MultiHeadDotProductAttention,
            self.heads,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            attention_fn=attend,
        )
        y = norm(name="norm_attention")(x)
        y = attention(decode=self.cached, name="attention")(y, mask=mask)
        x = x + drop(y)
        if memory is not None:
            y = norm(name="norm_memory_attention")(x)
            y = attention(name="memory_attention")(y, memory, mask=memory_mask)
            x = x + drop(y)
        y = nn.relu(dense(self.hidden, name="mlp_in")(norm(name="norm_mlp")(x)))
        return x + drop(dense(x.shape[-1], name="mlp_out")(y))


class EncoderDecoder(nn.Module):
    """The Transformer of Vaswani et al. 2017, its base model by default.

    Source, target and softmax share one embedding. Positions are sinusoids. The one
    difference is where layers are normalized: see `Layer`.

    Attributes:
      vocabulary: number of tokens.
      layers: in the encoder, and as many in the decoder.
      width: of the tokens.
      heads: attention heads.
      hidden: width inside the feed-forward networks.
      dropout: rate, with the key "dropout".
      cached: whether the decoder gets tokens one by one, and keeps what it needs of
        them in the collection "cache".
      dtype: of the computation.
    """

    vocabulary: int
    layers: int = 6
    width: int = 512
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.1
    cached: bool = False
    dtype: Any = jnp.float32

    def setup(self):
        """Names the parts."""
        self.embedding = nn.Embed(
            self.vocabulary,
            self.width,
            embedding_init=nn.initializers.normal(self.width**-0.5),
            dtype=self.dtype,
        )
        layer = functools.partial(
            Layer, self.heads, self.hidden, self.dropout, dtype=self.dtype
        )
        self.encoder = [layer(cached=False) for _ in range(self.layers)]
        self.decoder = [layer(cached=self.cached) for _ in range(self.layers)]
        self.encoder_norm = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)
        self.decoder_norm = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, source: jax.Array, target: jax.Array, *, train: bool) -> Any:
        """Logits of each token of a known target.

        Args:
          source: tokens (batch, source length), padded with `PAD`.
          target: tokens (batch, target length).
          train: whether to drop out.

        Returns:
          Logits (batch, target length, vocabulary); those at i follow from the source
          and the target before i.
        """
        memory = self.encode(source, train=train)
        before = jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        return self.decode(before, memory, source, train=train)

    def encode(self, source: jax.Array, *, train: bool = False) -> Any:
        """The memory (batch, length, width) of a source (batch, length)."""
        x = self.embed(source, 0, train=train)
        for layer in self.encoder:
            x = layer(x, source_mask(source), train=train)
        return self.encoder_norm(x)

    def decode(
        self,
        before: jax.Array,
        memory: jax.Array,
        source: jax.Array,
        position: jax.typing.ArrayLike = 0,
        *,
        train: bool = False,
    ) -> Any:
        """Logits of the token after each of the given ones.

        Args:
          before: tokens (batch, length); one for each sentence if `cached`.
          memory: what `encode` made (batch, source length, width).
          source: tokens that it was made of (batch, source length).
          position: of the first of the tokens.
          train: whether to drop out.

        Returns:
          Logits (batch, length, vocabulary), float32.
        """
        # A padded target token needs no mask: only padding after it attends to it.
        mask = None if self.cached else nn.make_causal_mask(before, dtype=bool)
        x = self.embed(before, position, train=train)
        for layer in self.decoder:
            x = layer(x, mask, memory, source_mask(source), train=train)
        return self.embedding.attend(self.decoder_norm(x)).astype(jnp.float32)

    def embed(
        self, tokens: jax.Array, position: jax.typing.ArrayLike, *, train: bool
    ) -> Any:
        """Tokens (batch, length) as vectors, from a position onwards."""
        x = self.embedding(tokens) * self.width**0.5
        places = sinusoids(jnp.arange(tokens.shape[1]) + position, self.width)
        return self.drop(x + places.astype(self.dtype)[None], deterministic=not train)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Attention whose softmax is in float32; Flax's mask for a cache is no boolean."""
    seen = None if mask is None else mask.astype(bool)
    return jax.nn.dot_product_attention(query, key, value, mask=seen)


def source_mask(source: jax.Array) -> jax.Array:
    """Which tokens (batch, length) can be attended to; (batch, 1, 1, length)."""
    return (source != PAD)[:, None, None, :]


def sinusoids(positions: jax.Array, width: int) -> jax.Array:
    """Vectors (n, width) of positions (n,): sines, then cosines, of falling frequency.

    From 1 to 1/10000, as by Vaswani et al. 2017.
    """
    frequencies = 10000.0 ** -jnp.linspace(0, 1, width // 2)
    angles = positions[:, None].astype(jnp.float32) * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def translate(
    model: EncoderDecoder, params: Any, source: jax.Array, length: int
) -> jax.Array:
    """Translates greedily: each token is the most likely one after the previous ones.

    Args:
      model: the network, not `cached`.
      params: its parameters.
      source: tokens (batch, source length).
      length: maximum number of tokens in a translation.

    Returns:
      Tokens (batch, length), with `PAD` after each `END`.
    """
    memory: Any = model.apply({"params": params}, source, method="encode")
    one_by_one = model.clone(cached=True)
    nothing = jnp.full((len(source), length), PAD, jnp.int32)

    def filled():
        key = jax.random.key(0)
        return one_by_one.init(key, nothing, memory, source, method="decode")["cache"]

    empty = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(filled)
    )

    def any_goes_on(carry):
        position, _, _, goes_on, _ = carry
        return (position < length) & jnp.any(goes_on)

    def step(carry):
        position, tokens, last, goes_on, cache = carry
        logits, updated = one_by_one.apply(
            {"params": params, "cache": cache},
            last[:, None],
            memory,
            source,
            position,
            method="decode",
            mutable="cache",
        )
        best = jnp.argmax(logits[:, 0], axis=-1).astype(tokens.dtype)
        best = jnp.where(goes_on, best, PAD)
        tokens = tokens.at[:, position].set(best)
        return position + 1, tokens, best, goes_on & (best != END), updated["cache"]

    first = jnp.full(len(source), START, jnp.int32)
    start = (0, nothing, first, jnp.full(len(source), True), empty)
    return jax.lax.while_loop(any_goes_on, step, start)[1]
