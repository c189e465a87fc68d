"""The members that tests go through, each under a name."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import optax
import pytest

import lookbehind_optax as lb
from tests.library import reference

# What most tests wrap.
SGD = optax.sgd(0.1, momentum=0.9)

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

# And one of each way through the code, for what `make test` runs of them.
QUICK = {
    "lookbehind_sam_2k",
    "lookbehind_asam_adaptive",
    "friendly_sam",
    "lookahead_sam",
}
# Further cases, beside the quick ones, of steps that pass every member to `make_step`.
OTHERS = set(FEW) - QUICK - {"sam"}


def each(cases, quick=QUICK, slow=()):
    """All the cases for `parametrize`; thorough, unless they are quick or slow."""

    def marked(case):
        values = case if isinstance(case, tuple) else (case,)
        mark = pytest.mark.slow if case in slow else pytest.mark.thorough
        return pytest.param(*values, marks=mark)

    return [case if case in quick else marked(case) for case in cases]


class Grouped(NamedTuple):
    """A member of m-SAM, as ours of a base, ρ, k and an axis, and as the reference's.

    `reference(k)` has the direction, number of ascents, α and use of the gradients that
    `reference.grouped` takes.
    """

    make: Callable[..., Any]
    reference: Callable[[int], tuple[Any, int, Any, Any]]


def friendly_lookbehind(base, rho, k, **axis):
    direction = lb.friendly_direction(0.9, 0.6)
    return lb.sharpness_aware(base, direction, lb.every_descent(0.4), rho, k, **axis)


ADAPTIVE = lb.adaptive_alpha()
GROUPED = {
    "sam": Grouped(
        lambda base, rho, k, **axis: lb.sam(base, rho, **axis),
        lambda k: (reference.sam, 1, 1.0, reference.last),
    ),
    "asam": Grouped(
        lambda base, rho, k, **axis: lb.asam(base, rho, **axis),
        lambda k: (reference.asam(0.01), 1, 1.0, reference.last),
    ),
    "multistep_sam": Grouped(
        lb.multistep_sam, lambda k: (reference.sam, k, 1.0, reference.last)
    ),
    "multistep_asam_average": Grouped(
        functools.partial(lb.multistep_asam, average=True),
        lambda k: (reference.asam(0.01), k, 1.0, reference.mean),
    ),
    "lookbehind_sam": Grouped(
        functools.partial(lb.lookbehind_sam, alpha=0.4),
        lambda k: (reference.sam, k, 0.4, "every"),
    ),
    "lookbehind_asam_adaptive": Grouped(
        functools.partial(lb.lookbehind_asam, alpha=ADAPTIVE),
        lambda k: (reference.asam(0.01), k, "global", "every"),
    ),
    "lookbehind_sam_2k": Grouped(
        functools.partial(lb.lookbehind_sam, alpha=0.4, reuse_gradients=False),
        lambda k: (reference.sam, k, 0.4, "every"),
    ),
    "gsam": Grouped(
        lambda base, rho, k, **axis: lb.gsam(base, rho, 0.7, **axis),
        lambda k: (reference.sam, 1, 1.0, reference.surrogate_gap(0.7)),
    ),
    "wsam": Grouped(
        lambda base, rho, k, **axis: lb.wsam(base, rho, 0.8, **axis),
        lambda k: (reference.sam, 1, 1.0, reference.weighted(0.8)),
    ),
    "friendly_sam": Grouped(
        lambda base, rho, k, **axis: lb.friendly_sam(base, rho, 0.9, 0.6, **axis),
        lambda k: (reference.Friendly(0.9, 0.6), 1, 1.0, reference.last),
    ),
    "lookbehind_friendly_sam": Grouped(
        friendly_lookbehind,
        lambda k: (reference.Friendly(0.9, 0.6), k, 0.4, "every"),
    ),
}
