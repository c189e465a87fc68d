"""One training run of a translator: its steps, epochs and evaluation."""

from collections.abc import Callable
from collections.abc import Iterator
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sacrebleu.metrics.bleu import BLEU
from tokenizers import Tokenizer

from examples.images import feeds
from examples.trainer.optimizers import Phase
from examples.trainer.phases import no_sums
from examples.trainer.phases import Phased
from examples.translation import text
from examples.translation.config import TranslationConfig
from examples.translation.transformer import EncoderDecoder
from examples.translation.transformer import translate


class State(NamedTuple):
    """All that a run needs to resume: the content of a checkpoint.

    Attributes:
      step: steps taken.
      params: parameters; the slow weights, except under a Lookahead.
      opt_state: state of the optimizer, of one structure for all phases.
      sums: of the metrics of this epoch's steps, by name.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    sums: dict[str, jax.Array]


class Translation(Phased):
    """The run of a configuration, as pure functions of the `State`.

    Attributes:
      files: what the run keeps in its folder, by name.
      fingerprint: digests of its data, by name.
      kept: number of training pairs that are neither empty nor too long.
      metric: BLEU as sacrebleu computes it by default.
    """

    unit = "sentences"
    goal = "valid_bleu"
    config: TranslationConfig

    def __init__(
        self,
        config: TranslationConfig,
        tokenizer: Tokenizer,
        train: text.Pairs,
        valid: text.Pairs,
    ):
        """Builds network, optimizers and steps; nothing is computed yet."""
        super().__init__(config)
        self.files: dict[str, str] = {}
        self.fingerprint: dict[str, str] = {}
        self.tokenizer, self.valid = tokenizer, valid
        # All of one length, for a single program. Little time is lost on short
        # sentences if the longest ones are left out.
        pairs = text.encode_pairs(tokenizer, train, config.max_length)
        self.kept = len(pairs[0])
        self.plan(self.kept)
        self.feed = feeds.Indexed(pairs, self.batch, config.seed, self.layout)
        if config.width % (2 * config.heads):
            raise ValueError(
                "--width must be a multiple of twice the --heads, "
                f"{2 * config.heads}; got {config.width}"
            )
        self.model = EncoderDecoder(
            vocabulary=text.size(tokenizer),
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            hidden=config.hidden,
            dropout=config.dropout,
            dtype=config.dtype,
        )
        self.metric = BLEU()
        self.scans = jax.default_backend() != "cpu"
        self.place()

    def make_state(self) -> State:
        """The state before the first step."""
        tokens = jnp.zeros((1, self.config.max_length), jnp.int32)
        key = jax.random.key(self.config.seed)
        params = self.model.init(key, tokens, tokens, train=False)["params"]
        opt_state = self.phases[0].optimizer.init(params)
        return State(jnp.int32(0), params, opt_state, no_sums())

    def pure_step(self, phase: Phase) -> Callable[..., State]:
        """One step on a batch of pairs."""
        update = self.update(phase, self.loss)

        def step(state, arrays, batch):
            source, target = self.feed.take(arrays, batch)
            params, opt_state, out = update(
                state.params,
                state.opt_state,
                source,
                target,
                token_weights(target),
                key=jax.random.fold_in(jax.random.key(self.config.seed), state.step),
            )
            return State(state.step + 1, params, opt_state, self.add(state, out))

        return step

    def loss(self, params, source, target, weights, *, key):
        """Mean over the tokens of the cross-entropy with smoothed labels.

        Args:
          params: of the network.
          source: tokens (batch, length).
          target: tokens (batch, length).
          weights: of the target's tokens (batch, length).
          key: of the dropout.

        Returns:
          The loss, and the share of tokens that were the likeliest.
        """
        logits: Any = self.model.apply(
            {"params": params}, source, target, train=True, rngs={"dropout": key}
        )
        losses = smoothed_cross_entropy(logits, target, self.config.label_smoothing)
        right = jnp.argmax(logits, axis=-1) == target
        return jnp.sum(weights * losses, axis=1).mean(), {
            "accuracy": jnp.sum(weights * right, axis=1).mean()
        }

    def evaluate(self, state: State) -> dict[str, float]:
        """Loss by token, not smoothed, and BLEU of the slow weights."""
        params = self.slow_weights(state)
        sums = np.zeros(2)
        for source, target in self.batches(*self.valid):
            sums += np.asarray(self.evaluate_batch(params, source, target), np.float64)
        bleu = self.bleu(self.translations(params, self.valid.source), self.valid)
        return {"valid_loss": float(sums[0] / sums[1]), "valid_bleu": bleu}

    def bleu(self, translations: list[str], pairs: text.Pairs) -> float:
        """BLEU of whole texts, against the targets of pairs."""
        return self.metric.corpus_score(translations, [pairs.target]).score

    def translations(self, params: Any, sentences: list[str]) -> list[str]:
        """Translations of any sentences, by given parameters."""
        tokens = [
            np.asarray(self.translate_batch(params, source))
            for (source,) in self.batches(sentences)
        ]
        known = np.concatenate(tokens)[: len(sentences)]
        return text.decode(self.tokenizer, known)

    def batches(self, *sides: list[str]) -> Iterator[tuple[jax.Array, ...]]:
        """Sentences as tokens, in batches of one size; the last is filled with PAD."""
        length, size = self.config.max_length, feeds.evaluation_batch(self.layout)
        numbers = [text.encode(self.tokenizer, side, length)[0] for side in sides]
        for start in range(0, len(numbers[0]), size):
            parts = [side[start : start + size] for side in numbers]
            yield tuple(
                self.layout.put(
                    np.pad(part, [(0, size - len(part)), (0, 0)]), self.layout.batch()
                )
                for part in parts
            )

    @functools.cached_property
    def evaluate_batch(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """Sum of the losses of tokens, and their number."""

        @functools.partial(jax.jit, out_shardings=self.layout.everywhere)
        def evaluate(params, source, target):
            variables = {"params": params}
            logits: Any = self.model.apply(variables, source, target, train=False)
            losses = smoothed_cross_entropy(logits, target, 0.0)
            known = target != text.PAD
            return jnp.sum(losses, where=known), jnp.sum(known)

        return evaluate

    @functools.cached_property
    def translate_batch(self) -> Callable[..., jax.Array]:
        """Translations of a batch."""

        @functools.partial(jax.jit, out_shardings=self.layout.everywhere)
        def run(params, source):
            return translate(self.model, params, source, self.config.max_length)

        return run


def token_weights(target: jax.Array) -> jax.Array:
    """Weights that make a mean over sentences one over tokens.

    The number of tokens is that of the whole minibatch, so that its parts (groups,
    micro-batches) add up to it.

    Args:
      target: tokens (..., batch, length).

    Returns:
      batch / number of tokens in the minibatch where there is one, and 0 at `PAD`.
    """
    known = (target != text.PAD).astype(jnp.float32)
    tokens = jnp.sum(known, axis=(-2, -1), keepdims=True)
    return known * target.shape[-2] / tokens


def smoothed_cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float
) -> jax.Array:
    """Cross-entropy with a share of each label spread over all classes.

    It is `optax.softmax_cross_entropy` of `optax.smooth_labels`, without an array of
    the labels' distributions, which would be as large as the logits.

    Args:
      logits: (..., classes).
      labels: (...).
      smoothing: the share.

    Returns:
      Losses (...).
    """
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    expected = (1 - smoothing) * chosen + smoothing * jnp.mean(logits, axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - expected
