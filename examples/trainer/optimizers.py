"""Optimizers as a configuration names them."""

import functools
import inspect
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from examples.trainer.config import RunConfig
import lookbehind_optax as lb

MEMBERS = {
    "sam": lb.sam,
    "asam": lb.asam,
    "multistep_sam": lb.multistep_sam,
    "multistep_asam": lb.multistep_asam,
    "lookbehind_sam": lb.lookbehind_sam,
    "lookbehind_asam": lb.lookbehind_asam,
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
    peak, steps = config.learning_rate, config.epochs * steps_per_epoch
    if config.warmup > config.epochs:
        raise ValueError(
            f"--warmup must be at most the --epochs, {config.epochs}; "
            f"got {config.warmup:g}"
        )
    warmup = round(config.warmup * steps_per_epoch)
    if config.schedule == "constant":
        schedule = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(peak, max(1, steps - warmup))
    elif config.schedule == "step":
        drops = range(config.drop_every, config.epochs, config.drop_every)
        # Epochs are counted from the start, with the warm-up.
        boundaries = {epoch * steps_per_epoch - warmup: 0.1 for epoch in drops}
        schedule = optax.piecewise_constant_schedule(peak, boundaries)
    elif warmup > 0:
        schedule = functools.partial(inverse_sqrt, peak, warmup)
    else:
        raise ValueError("--schedule inverse-sqrt needs a --warmup of some steps")
    if warmup == 0:
        return schedule
    rise = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([rise, schedule], [warmup])


def inverse_sqrt(peak: float, warmup: int, count: jax.typing.ArrayLike) -> jax.Array:
    """Vaswani et al. 2017: as 1/√step, `count` steps after the warm-up."""
    return peak * jax.lax.rsqrt(1.0 + jnp.asarray(count) / warmup)


def make_base(
    config: RunConfig, schedule: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """The base optimizer; sgd and adam decay weights through the gradient."""
    decay, name = config.weight_decay, config.base
    factory: Any = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    parameters = inspect.signature(factory).parameters if callable(factory) else {}
    if "learning_rate" not in parameters:
        raise ValueError(
            f"--base must name an optimizer of Optax, such as sgd, adam or adamw; "
            f"got {name}"
        )
    options: dict[str, Any] = {}
    if config.betas is not None:
        options["b1"], options["b2"] = config.betas
    if config.epsilon is not None:
        options["eps"] = config.epsilon
    if not options.keys() <= parameters.keys():
        raise ValueError(f"--betas and --epsilon are for other optimizers than {name}")
    if config.nesterov and (name != "sgd" or not config.momentum):
        raise ValueError(
            f"--nesterov is for --base sgd with --momentum; got {name} with "
            f"{config.momentum:g}"
        )
    if name == "sgd":
        options |= {"momentum": config.momentum or None, "nesterov": config.nesterov}
    if "weight_decay" in parameters:
        options["weight_decay"] = decay
    base: Any = factory(schedule, **options)
    if name in ("sgd", "adam"):
        base = optax.chain(optax.add_decayed_weights(decay), base)
    return optax.with_extra_args_support(base)


def make_member(
    name: str, config: RunConfig, base: optax.GradientTransformation
) -> tuple[optax.GradientTransformationExtraArgs, int, int]:
    """An optimizer by name, its k, and its gradient evaluations in a step."""
    if name == "base":  # with the state that all of them share
        wrapped, k, gradients = lb.lookbehind_sam(base, k=0), 0, 1
    elif name in MEMBERS:
        alpha: Any = config.alpha
        if isinstance(alpha, str):
            if alpha not in ALPHAS:
                raise ValueError(
                    f"--alpha must be a number or one of {', '.join(ALPHAS)}; "
                    f"got {alpha}"
                )
            alpha = ALPHAS[alpha]
        options = {
            "rho": config.rho,
            "k": config.k,
            "alpha": alpha,
            "eta": config.eta,
            "average": config.average or None,
            "reuse_gradients": config.reuse_gradients,
            "axis_name": None if config.m is None else "group",
        }
        parameters = inspect.signature(MEMBERS[name]).parameters
        options = {
            option: value
            for option, value in options.items()
            if value is not None and option in parameters
        }
        wrapped = MEMBERS[name](base, **options)
        k = options.get("k", parameters["k"].default) if "k" in parameters else 1
        reuses = options.get("reuse_gradients", True)
        gradients = k + 1 if reuses else max(2 * k, 1)
    else:
        raise ValueError(
            f"--optimizer must be base or one of {', '.join(MEMBERS)}; got {name}"
        )
    if config.lookahead:
        wrapped = lb.lookahead(wrapped, config.lookahead, config.lookahead_alpha)
    return wrapped, k, gradients


def make_phases(
    config: RunConfig, base: optax.GradientTransformation, steps_per_epoch: int
) -> list[Phase]:
    """What trains, and until which step; one phase unless told otherwise."""
    steps = config.epochs * steps_per_epoch
    told = config.phases or (f"{config.optimizer} until 1",)
    phases = []
    share = 0.0
    for phase in told:
        name, _, end = phase.partition(" until ")
        try:
            before, share = share, float(end)
        except ValueError:
            share = before = 0.0
        if not before < share <= 1:
            raise ValueError(
                "--phases must look like 'base until 0.8' 'sam until 1', with growing "
                f"shares of all steps; got {' '.join(map(repr, told))}"
            )
        optimizer, k, gradients = make_member(name, config, base)
        phases.append(Phase(name, round(share * steps), optimizer, k, gradients))
    if share != 1:
        raise ValueError(f"the last of --phases must be until 1; got {told[-1]!r}")
    check_options(config, [phase.name for phase in phases])
    return phases


def check_options(config: RunConfig, names: list[str]) -> None:
    """Refuses what none of the optimizers would use."""
    known = {
        option
        for name in names
        if name in MEMBERS
        for option in inspect.signature(MEMBERS[name]).parameters
    }
    for option in ("rho", "k", "alpha", "eta", "average"):
        if getattr(config, option) not in (None, False) and option not in known:
            raise ValueError(
                f"--{option} is for other optimizers than {', '.join(names)}"
            )
