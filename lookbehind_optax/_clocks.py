"""Schedules inside the base optimizer tick once a step, however often it is called.

The base optimizer is updated k times a step. Momentum and moments should advance each
time, because each time brings a new gradient; a learning-rate schedule should not,
because it counts minibatches.
"""

import jax
import optax

# Optax keeps the clock of a scheduled weight decay in a tuple that it does not export.
# Only its shape is computed: an array would start JAX's backend at import, too early
# for `jax.distributed.initialize`.
_WeightDecaySchedule = type(
    jax.eval_shape(optax.add_decayed_weights(optax.constant_schedule(0.0)).init, ())
)

_CLOCKS = (
    optax.ScaleByScheduleState,
    optax.contrib.ReduceLROnPlateauState,
    _WeightDecaySchedule,
)


def rewind(state, start):
    """Returns `state` with every schedule's clock set back to its value in `start`.

    Rewinding before each inner update lets all k of them see the same point of the
    schedule, and leaves the clock one tick further after the last. Adam's `count` isn't
    the clock of a schedule: it belongs to the moments and advances with them.

    Args:
      state: a state of the base optimizer.
      start: the base optimizer's state at the beginning of the step.

    Returns:
      A state with the structure of `state`.
    """

    def is_clock(node):
        return isinstance(node, (optax.InjectStatefulHyperparamsState, *_CLOCKS))

    def rewind_node(now, then):
        if isinstance(now, optax.InjectStatefulHyperparamsState):
            return then._replace(inner_state=rewind(now.inner_state, then.inner_state))
        return then if isinstance(now, _CLOCKS) else now

    return jax.tree.map(rewind_node, state, start, is_leaf=is_clock)
