"""Optimizers as a configuration names them."""

import functools
import inspect
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from examples.trainer.command import flag
from examples.trainer.config import RunConfig
import lookbehind_optax as lb


def random_sam(
    base: optax.GradientTransformation, rho: float = 0.05, *, seed: int
) -> optax.GradientTransformationExtraArgs:
    """SAM in a random direction instead of uphill: the control for every climb."""
    direction = lb.random_direction(jax.random.key(seed))
    return lb.sharpness_aware(base, direction, lb.last_descent(), rho)


MEMBERS: dict[str, Any] = {
    "sam": lb.sam,
    "asam": lb.asam,
    "multistep_sam": lb.multistep_sam,
    "multistep_asam": lb.multistep_asam,
    "lookbehind_sam": lb.lookbehind_sam,
    "lookbehind_asam": lb.lookbehind_asam,
    "gsam": lb.gsam,
    "wsam": lb.wsam,
    "friendly_sam": lb.friendly_sam,
    "random_sam": random_sam,
}
# Unlike the others, their direction has a state.
STATEFUL = ("friendly_sam", "random_sam")
# Options that an optimizer gets if its signature has them, and the flags' defaults.
OPTIONS: dict[str, Any] = {
    "rho": None,
    "k": None,
    "alpha": None,
    "eta": None,
    "gamma": None,
    "sigma": None,
    "decay": None,
    "average": False,
    "pullback": "none",
    "reuse_gradients": True,
}
ALPHAS = {
    "adaptive": lb.adaptive_alpha(),
    "adaptive-per-tensor": lb.adaptive_alpha(per_tensor=True),
}


class Phase(NamedTuple):
    """A stretch of training with one optimizer.

    Attributes:
      name: of the optimizer.
      until: the step before which it ends.
      optimizer: the transformation; those of all phases share one state.
      k: its number of ascent steps.
      gradients: gradient evaluations in a step.
    """

    name: str
    until: int
    optimizer: optax.GradientTransformationExtraArgs
    k: int
    gradients: int


def make_schedule(config: RunConfig, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the step."""
    steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup * steps_per_epoch)
    ends = [steps]
    if config.anneal == "each":
        ends = [round(share * steps) for _, share in stretches(config)]
        if len(ends) == 1 or config.schedule == "constant":
            raise ValueError(
                "--anneal each needs two or more --phases and a --schedule that falls; "
                f"got {len(ends)} and {config.schedule}"
            )
    if config.schedule == "inverse-sqrt" and warmup == 0:
        raise ValueError("--schedule inverse-sqrt needs a --warmup of one step or more")
    if warmup > ends[0]:
        within = "--epochs" if ends == [steps] else "the first of --phases"
        raise ValueError(
            f"--warmup must end within {within}, of {ends[0] / steps_per_epoch:g} "
            f"epochs; got {config.warmup:g}"
        )
    starts = [warmup, *ends[:-1]]
    pieces = [
        anneal(config, steps_per_epoch, start, end)
        for start, end in zip(starts, ends, strict=True)
    ]
    if warmup == 0:
        return optax.join_schedules(pieces, starts[1:])
    rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
    return optax.join_schedules([rise, *pieces], starts)


def anneal(
    config: RunConfig, steps_per_epoch: int, start: int, end: int
) -> optax.Schedule:
    """The learning rate from its peak at step `start` on, by steps after it."""
    peak = config.learning_rate
    warmup = round(config.warmup * steps_per_epoch)
    if config.schedule == "constant":
        return optax.constant_schedule(peak)
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(peak, max(1, end - start))
    if config.schedule == "inverse-sqrt":
        return functools.partial(inverse_sqrt, peak, warmup)
    drops = range(config.drop_every, config.epochs, config.drop_every)
    # Epochs are counted from the start of a phase, with the warm-up.
    risen = start if start == warmup else 0
    return optax.piecewise_constant_schedule(
        peak, {epoch * steps_per_epoch - risen: 0.1 for epoch in drops}
    )


def inverse_sqrt(peak: float, warmup: int, count: jax.typing.ArrayLike) -> jax.Array:
    """Vaswani et al. 2017: as 1/√step, `count` steps after the warm-up."""
    return peak * jax.lax.rsqrt(1.0 + jnp.asarray(count) / warmup)


def make_base(
    config: RunConfig, schedule: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """The base optimizer, which decays weights by itself or through the gradient."""
    decay, name = config.weight_decay, config.base
    factory: Any = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    parameters = inspect.signature(factory).parameters if callable(factory) else {}
    if "learning_rate" not in parameters:
        raise ValueError(
            f"--base must name an optimizer of Optax, such as sgd, adam or adamw; "
            f"got {name}"
        )
    if name.startswith("schedule_free"):
        raise ValueError(
            "--base must train the weights that are evaluated; "
            f"{name} would evaluate an average, which the trainer doesn't compute"
        )
    if name != "sgd" and config.momentum != RunConfig.momentum:
        raise ValueError(f"--momentum applies only to sgd; got {name}")
    options: dict[str, Any] = {}
    if config.betas is not None:
        options["b1"], options["b2"] = config.betas
    if config.epsilon is not None:
        options["eps"] = config.epsilon
    if not options.keys() <= parameters.keys():
        raise ValueError(f"--betas and --epsilon don't apply to {name}")
    if config.nesterov and (name != "sgd" or not config.momentum):
        raise ValueError(
            f"--nesterov needs --base sgd with --momentum; got {name} with "
            f"{config.momentum:g}"
        )
    if name == "sgd":
        options |= {"momentum": config.momentum or None, "nesterov": config.nesterov}
    own = "weight_decay" in parameters
    if own:
        options["weight_decay"] = decay
    base: Any = factory(schedule, **options)
    if not own:
        base = optax.chain(optax.add_decayed_weights(decay), base)
    return optax.with_extra_args_support(base)


def make_member(
    name: str, config: RunConfig, base: optax.GradientTransformation
) -> tuple[optax.GradientTransformationExtraArgs, int, int]:
    """An optimizer by name, its k, and its gradient evaluations in a step."""
    if name == "base":  # with the state that all of them share
        wrapped, k, gradients = lb.lookbehind_sam(base, k=0), 0, 1
    elif name in MEMBERS:
        known, options = options_of(name), given(config)
        options = {option: options[option] for option in known & options.keys()}
        if isinstance(config.alpha, str) and "alpha" in options:
            if name == "gsam":
                raise ValueError(
                    f"--alpha must be a number for gsam; got {config.alpha}"
                )
            options["alpha"] = ALPHAS[config.alpha]
        if config.m is not None:
            options["axis_name"] = "group"
        parameters = inspect.signature(MEMBERS[name]).parameters
        if "seed" in parameters:
            options["seed"] = config.seed
        wrapped = MEMBERS[name](base, **options)
        k = options.get("k", parameters["k"].default) if "k" in known else 1
        reuses = options.get("reuse_gradients", True)
        gradients = k + 1 if reuses else max(2 * k, 1)
    else:
        raise ValueError(
            f"--optimizer must be base or one of {', '.join(MEMBERS)}; got {name}"
        )
    if config.lookahead:
        wrapped = lb.lookahead(wrapped, config.lookahead, config.lookahead_alpha)
    return wrapped, k, gradients


def options_of(name: str) -> set[str]:
    """The options that an optimizer has."""
    if name not in MEMBERS:
        return set()
    return OPTIONS.keys() & inspect.signature(MEMBERS[name]).parameters.keys()


def given(config: RunConfig) -> dict[str, Any]:
    """Options of the optimizers that differ from their defaults."""
    return {
        option: getattr(config, option)
        for option, default in OPTIONS.items()
        if getattr(config, option) != default
    }


def stretches(config: RunConfig) -> list[tuple[str, float]]:
    """The optimizers, and the share of all steps at which each ends."""
    if not config.phases:
        return [(config.optimizer, 1.0)]
    found: list[tuple[str, float]] = []
    share = 0.0
    for phase in config.phases:
        name, _, end = phase.partition(" until ")
        try:
            before, share = share, float(end)
        except ValueError:
            share = before = 0.0
        if not before < share <= 1:
            raise ValueError(
                "--phases must look like 'base until 0.8' 'sam until 1', with growing "
                f"shares of all steps; got {' '.join(map(repr, config.phases))}"
            )
        found.append((name, share))
    if share != 1:
        raise ValueError(
            f"the last of --phases must be until 1; got {config.phases[-1]!r}"
        )
    return found


def make_phases(
    config: RunConfig, base: optax.GradientTransformation, steps_per_epoch: int
) -> list[Phase]:
    """The phases, with their last steps; a single one unless `phases` is given."""
    steps = config.epochs * steps_per_epoch
    # Phases of one optimizer share it, and so share its compiled step.
    parts = stretches(config)
    members = {name: make_member(name, config, base) for name, _ in parts}
    phases = []
    for name, share in parts:
        optimizer, k, gradients = members[name]
        phases.append(Phase(name, round(share * steps), optimizer, k, gradients))
    check_options(config)
    # The state of a direction, which the base optimizer passes on.
    init = next(
        (phase.optimizer.init for phase in phases if phase.name in STATEFUL),
        phases[0].optimizer.init,
    )
    return [
        phase._replace(optimizer=phase.optimizer._replace(init=init))
        for phase in phases
    ]


def check_options(config: RunConfig) -> None:
    """Refuses options that none of the optimizers would use."""
    names = config.optimizers
    known = set().union(*map(options_of, names))
    for option in given(config):
        if option not in known:
            raise ValueError(f"{flag(option)} doesn't apply to {', '.join(names)}")
    if config.phases and config.optimizer != RunConfig.optimizer:
        raise ValueError(
            f"--phases take the place of --optimizer; got both, {config.optimizer} and "
            f"{' '.join(map(repr, config.phases))}"
        )
    for name in STATEFUL:
        if name in names and not {name, "base"}.issuperset(names):
            raise ValueError(
                f"--phases can combine {name} only with base, since its direction has "
                f"a state; got {', '.join(names)}"
            )
    if config.lookahead == 0 and config.lookahead_alpha != RunConfig.lookahead_alpha:
        raise ValueError("--lookahead-alpha needs a --lookahead of one step or more")
