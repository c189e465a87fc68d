"""The ways to learn a stream that are compared.

C-MAML is a loss, not an optimizer (`examples.lifelong.maml`). So "C-MAML with
Lookahead" is Lookahead around the SGD that follows the meta-gradient. Lookbehind takes
its place, as it does elsewhere: it climbs the meta-loss, and every gradient is a
meta-gradient.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import optax

import lookbehind_optax as lb


class Method(NamedTuple):
    """A way to learn a stream.

    Attributes:
      title: in table and plot.
      wrap: from the configuration, a `Lifelong`, and the base optimizer to the
        optimizer.
      gradients: gradients of its objective in a step, given k.
      replay: whether it has a memory.
      meta: whether its objective is C-MAML's.
    """

    title: str
    wrap: Callable[[Any, Any], optax.GradientTransformationExtraArgs]
    gradients: Callable[[int], int]
    replay: bool = False
    meta: bool = False


SGD = Method("SGD", lambda config, base: base, lambda k: 1)

LOOKBEHIND = Method(
    "Lookbehind-SAM",
    lambda config, base: lb.lookbehind_sam(base, config.rho, config.k, config.alpha),
    lambda k: k + 1,
)

BASELINES = {
    "sgd": SGD,
    "sam": Method(
        "SAM",
        lambda config, base: lb.sam(base, config.rho),
        lambda k: 2,
    ),
    "multistep_sam": Method(
        "Multistep-SAM",
        lambda config, base: lb.multistep_sam(base, config.rho, config.k),
        lambda k: k + 1,
    ),
    "lookbehind_sam": LOOKBEHIND,
}

META = {
    "cmaml": SGD._replace(title="C-MAML"),
    "cmaml_lookahead": Method(
        "C-MAML, Lookahead",
        lambda config, base: lb.lookahead(base, config.k, config.alpha),
        lambda k: 1,
    ),
    "cmaml_lookbehind": LOOKBEHIND._replace(title="C-MAML, Lookbehind"),
}

METHODS = {
    **BASELINES,
    **{f"{name}+replay": it._replace(replay=True) for name, it in BASELINES.items()},
    **{
        f"{name}+replay": it._replace(replay=True, meta=True)
        for name, it in META.items()
    },
}
