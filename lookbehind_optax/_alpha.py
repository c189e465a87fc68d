"""The step of the slow weights: α fixed, scheduled, or set by the alignment."""

import dataclasses
from typing import Any

import jax

from lookbehind_optax import _numbers
from lookbehind_optax import _precision


@dataclasses.dataclass(frozen=True)
class AdaptiveAlpha:
    """A marker passed as α in place of a number; made by `adaptive_alpha`."""

    # Neither callable nor a number: `optax.inject_hyperparams` would take a callable
    # for a schedule, and would trace a number.
    per_tensor: bool


def adaptive_alpha(*, per_tensor: bool = False) -> AdaptiveAlpha:
    r"""Sets α from the alignment of the climb's gradients.

    .. math::
        \alpha^* = \frac{\cos\theta + 1}{2}, \qquad
        \theta = \angle(u_1,\; f_k - \phi)

    where :math:`u_1` is the first update of the fast weights and :math:`f_k - \phi`
    their total displacement after k updates. If the gradients keep their direction,
    :math:`\alpha^*` is 1 and the slow weights follow all the way; if they oppose each
    other, it is 0. At k = 1 it is always 1, and Lookbehind is SAM. With `per_tensor`, a
    tensor that doesn't move, such as a frozen one, has an :math:`\alpha^*` of ½, which
    is included in the mean that a step reports.

    Args:
      per_tensor: whether each leaf of the parameters has its own angle and α, as in
        the paper's official code, or all leaves share one, as in the paper's text.
        Either way, the norms in the cosine are clamped at 1e-8, as in that code.

    Returns:
      A marker to pass as α.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> optimizer = lb.lookbehind_sam(optax.sgd(0.1), alpha=lb.adaptive_alpha())

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024, Equations 7 and 8
    """
    return AdaptiveAlpha(per_tensor)


def check(alpha: Any) -> None:
    """Checks that α is a number, a schedule, or made by `adaptive_alpha`."""
    if isinstance(alpha, AdaptiveAlpha):
        return
    if isinstance(alpha, str) or alpha is adaptive_alpha:
        raise TypeError(
            "alpha must be a non-negative number, an optax schedule or "
            f"adaptive_alpha(); got {_numbers.describe(alpha)}."
        )
    _numbers.check_number("alpha", alpha)


def aligned(first, displacement, *, per_tensor):
    """α*: one number, or with `per_tensor` a tree with one for each leaf."""

    def from_angle(u, s):
        return (_precision.cosine(u, s) + 1) / 2

    if per_tensor:
        return jax.tree.map(from_angle, first, displacement)
    return from_angle(first, displacement)
