"""Times the image trainer against its bare step."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from examples.images import data
from examples.images.config import Config
from examples.images.training import Training


def measure(
    config: Config, dataset: data.Dataset, steps: int, repetitions: int
) -> dict[str, Any]:
    """Seconds of both ways, of as many steps each.

    Args:
      config: of the training, which has as many epochs as there are repetitions, and
        one more.
      dataset: to train on.
      steps: that are timed together; an epoch, if that has fewer.
      repetitions: times that both are timed.
    """
    training = Training(config, dataset)
    steps = min(steps, training.steps_per_epoch)
    state = training.init()
    (phase,) = training.phases
    # Copies, since both ways donate what they get.
    held = jax.tree.map(jnp.copy, (state.params, state.opt_state, state.batch_stats))
    step = bare_steps(training, steps)

    def train(state, repetition):
        epoch = repetition * training.steps_per_epoch
        state = training.advance(state, epoch, epoch + steps)
        float(state.sums["loss"])
        return state

    state, held = train(state, 0), step(held)
    samples = []
    for repetition in tqdm(range(1, repetitions + 1), desc=config.model):
        begun = time.perf_counter()
        state = train(state, repetition)
        between = time.perf_counter()
        held = step(held)
        ended = time.perf_counter()
        samples.append({"trainer_s": between - begun, "step_s": ended - between})
    return {
        "images": steps * training.examples_per_step,
        "gradients": steps * phase.gradients,
        "samples": samples,
    }


def bare_steps(training: Training, steps: int) -> Any:
    """The library's step on one prepared batch, repeated.

    Returns:
      From (parameters, optimizer's state, BatchNorm's statistics) to these.
    """
    (phase,) = training.phases
    step = jax.jit(training.update(phase, training.loss), donate_argnums=(0, 1))
    (batch,) = training.feed.batches(0, 1)
    images, labels = training.feed.take(training.feed.arrays, batch)
    images, key = training.prepare(images), jax.random.key(0)

    def take(held: Any) -> Any:
        for _ in range(steps):
            params, opt_state, batch_stats = held
            params, opt_state, out = step(
                params, opt_state, images, labels, batch_stats=batch_stats, key=key
            )
            held = params, opt_state, out.aux["batch_stats"]
        return jax.block_until_ready(held)

    return take
