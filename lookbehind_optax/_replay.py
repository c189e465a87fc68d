"""One update, recorded in a step and played back to whoever wants to make it."""

from typing import Any
from typing import NamedTuple

import optax


class Recorded(NamedTuple):
    """An optimizer's state with its last update.

    Flax's `TrainState.apply_gradients` and `nnx.Optimizer.update` call an optimizer
    themselves, and subclasses add to them. So the step is taken first, and they get
    what it found as an optimizer that repeats it.

    Attributes:
      opt_state: the state of the optimizer.
      grads: the gradient that came in last.
      updates: the update that was made of it.
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
    """An optimizer that makes the recorded update, whatever comes in."""

    def update(updates, state, params=None, **extra_args):
        return recorded.updates, recorded.opt_state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
