"""Records the update of a step and replays it for Flax's own update methods."""

from typing import Any
from typing import NamedTuple

import jax
import optax


class Recorded(NamedTuple):
    """An optimizer's state with its last update.

    Flax's `TrainState.apply_gradients` and `nnx.Optimizer.update` call an optimizer
    themselves, and subclasses extend them. So the step is taken first, and these
    methods then get an optimizer that replays its result.

    Attributes:
      opt_state: the state of the optimizer.
      grads: the last incoming gradient.
      updates: the update made from it.
    """

    opt_state: Any
    grads: Any
    updates: Any


def start(params, opt_state) -> Recorded:
    """A state with nothing recorded yet."""
    zeros = optax.tree.zeros_like(params)
    return Recorded(opt_state, zeros, zeros)


def recording(optimizer) -> optax.GradientTransformationExtraArgs:
    """The optimizer, with a `Recorded` as its state."""
    optimizer = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra_args):
        u, opt_state = optimizer.update(updates, state.opt_state, params, **extra_args)
        return u, Recorded(opt_state, updates, u)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def replaying(recorded: Recorded) -> optax.GradientTransformationExtraArgs:
    """An optimizer that makes the recorded update of the recorded gradient."""

    def update(updates, state, params=None, **extra_args):
        given, expected = map(jax.tree.leaves, (updates, recorded.grads))
        if [id(x) for x in given] != [id(x) for x in expected]:
            raise ValueError(
                "grads must reach the optimizer as the step made them: an override of "
                "apply_gradients or update changed them, after the optimizer has used "
                "them. Put the change into the optimizer instead, as in "
                "lb.sam(optax.chain(optax.clip_by_global_norm(1.0), base))."
            )
        return recorded.updates, recorded.opt_state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
