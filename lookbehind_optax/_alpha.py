"""The step of the slow weights: α fixed, scheduled, or set by the alignment."""

import dataclasses

import jax

from lookbehind_optax import _precision


@dataclasses.dataclass(frozen=True)
class AdaptiveAlpha:
    """Takes the place of a number where α goes; made by `adaptive_alpha`."""

    # Not callable, and not a number: `optax.inject_hyperparams` would take the one for
    # a schedule and trace the other.
    per_tensor: bool


def adaptive_alpha(*, per_tensor: bool = False) -> AdaptiveAlpha:
    r"""Sets α from the alignment of the climb's gradients.

    .. math::
        \alpha^* = \frac{\cos\theta + 1}{2}, \qquad
        \theta = \angle(u_1,\; f_k - \phi)

    with :math:`u_1` the first update of the fast weights and :math:`f_k - \phi` their
    whole displacement after k of them. Gradients that keep their direction give
    :math:`\alpha^* = 1` and the slow weights follow all the way; opposed ones give 0.
    At k = 1 it is 1, and Lookbehind is SAM.

    Args:
      per_tensor: one angle and one α for each leaf of the parameters, as in the
        paper's official code, instead of one over all of them, as its text reads. The
        norms in the cosine are clamped at 1e-8 either way, as in that code.

    Returns:
      A marker that goes where α goes.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> optimizer = lb.lookbehind_sam(optax.sgd(0.1), alpha=lb.adaptive_alpha())

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024, Equations 7 and 8
    """
    return AdaptiveAlpha(per_tensor)


def aligned(first, displacement, *, per_tensor):
    """α*: one number, or a tree of them, one for each leaf, with `per_tensor`."""

    def from_angle(u, s):
        return (_precision.cosine(u, s) + 1) / 2

    if per_tensor:
        return jax.tree.map(from_angle, first, displacement)
    return from_angle(first, displacement)
