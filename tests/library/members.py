"""The members that tests go through, each under a name."""

from collections.abc import Callable
import functools
from typing import Any

import jax

import lookbehind_optax as lb

# The sharpness-aware ones, as they come.
NAMED: dict[str, Callable[..., Any]] = {
    "sam": lb.sam,
    "asam": lb.asam,
    "multistep_sam": lb.multistep_sam,
    "multistep_asam": lb.multistep_asam,
    "lookbehind_sam": lb.lookbehind_sam,
    "lookbehind_asam": lb.lookbehind_asam,
    "gsam": lb.gsam,
    "wsam": lb.wsam,
    "friendly_sam": lb.friendly_sam,
    "sharpness_aware": functools.partial(
        lb.sharpness_aware, direction=lb.sam_direction(), descent=lb.last_descent()
    ),
}
WITH_K = [name for name in NAMED if name.startswith(("multi", "look", "sharp"))]
WITH_ETA = [name for name in NAMED if name.endswith("asam")]
ALL = {**NAMED, "lookahead": lb.lookahead}


def lookbehind_friendly_sam(base, rho=0.05, sigma=1.0, decay=0.9):
    direction = lb.friendly_direction(sigma, decay)
    return lb.sharpness_aware(base, direction, lb.every_descent(), rho, k=2)


def random(base, rho=0.05):
    direction = lb.random_direction(jax.random.key(0))
    return lb.sharpness_aware(base, direction, lb.last_descent(), rho)


def lookahead_sam(base, **numbers):
    return lb.lookahead(lb.sam(base, **numbers), k=2)


def lookahead_lookbehind_sam(base, **numbers):
    return lb.lookahead(lb.lookbehind_sam(base, **numbers), k=1)


# And what can be made of them.
MEMBERS: dict[str, Callable[..., Any]] = {
    "sam": lb.sam,
    "asam": lb.asam,
    "multistep_sam": lb.multistep_sam,
    "multistep_sam_average": functools.partial(lb.multistep_sam, average=True),
    "multistep_asam": lb.multistep_asam,
    "multistep_asam_average": functools.partial(lb.multistep_asam, average=True),
    "lookbehind_sam": functools.partial(lb.lookbehind_sam, k=3),
    "lookbehind_sam_k0": functools.partial(lb.lookbehind_sam, k=0),
    "lookbehind_sam_adaptive": functools.partial(
        lb.lookbehind_sam, alpha=lb.adaptive_alpha()
    ),
    "lookbehind_sam_2k": functools.partial(
        lb.lookbehind_sam, k=3, alpha=0.3, reuse_gradients=False
    ),
    "lookbehind_sam_pullback": functools.partial(
        lb.lookbehind_sam, k=3, alpha=0.4, pullback="pullback"
    ),
    "lookbehind_sam_reset": functools.partial(lb.lookbehind_sam, pullback="reset"),
    "lookbehind_asam": lb.lookbehind_asam,
    "lookbehind_asam_adaptive": functools.partial(
        lb.lookbehind_asam, alpha=lb.adaptive_alpha()
    ),
    "lookbehind_asam_per_tensor": functools.partial(
        lb.lookbehind_asam, alpha=lb.adaptive_alpha(per_tensor=True)
    ),
    "gsam": lb.gsam,
    "wsam": lb.wsam,
    "friendly_sam": lb.friendly_sam,
    "lookbehind_friendly_sam": lookbehind_friendly_sam,
    "random": random,
    "lookahead": functools.partial(lb.lookahead, alpha=0.5),
    "lookahead_reset": functools.partial(
        lb.lookahead, k=2, alpha=0.5, pullback="reset"
    ),
    "lookahead_pullback": functools.partial(
        lb.lookahead, k=2, alpha=0.5, pullback="pullback"
    ),
    "lookahead_sam": lookahead_sam,
    "lookahead_lookbehind_sam": lookahead_lookbehind_sam,
}
SHARPNESS_AWARE = [name for name in MEMBERS if not name.startswith("lookahead")]

# A few of them, one of each kind, for tests that are slow with many.
FEW = {
    name: MEMBERS[name]
    for name in (
        "sam",
        "asam",
        "multistep_sam",
        "multistep_asam_average",
        "lookbehind_sam",
        "lookbehind_sam_k0",
        "lookbehind_sam_2k",
        "lookbehind_asam_adaptive",
        "lookahead_sam",
        "gsam",
        "wsam",
        "friendly_sam",
        "random",
    )
}
