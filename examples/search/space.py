"""The search space: parameters of the trainer, and their possible values."""

from collections.abc import Iterator
import dataclasses
import itertools
import json
import math
from typing import Any
from typing import get_args
from typing import get_type_hints
from typing import NamedTuple

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import Trial

from examples.images.config import Config
from examples.search.config import Search
from examples.search.config import shared
from examples.trainer import config as configuration
from examples.trainer.command import Invalid
from examples.trainer.optimizers import make_base
from examples.trainer.optimizers import make_phases
from examples.trainer.optimizers import make_schedule
from examples.trainer.optimizers import MEMBERS
from examples.trainer.optimizers import OPTIONS
from examples.trainer.optimizers import options_of

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Distribution]

PARAMETERS = {
    field.name
    for group in (configuration.Training, configuration.Base, configuration.Optimizer)
    for field in dataclasses.fields(group)
} - {"seed", "seeds", "optimizer", "phases"}


class Method(NamedTuple):
    """A method that one study searches.

    Attributes:
      name: of the method, and of its study.
      config: settings of all trials.
      space: what differs between them.
    """

    name: str
    config: Config
    space: Space


def make_methods(search: Search, others: list[str]) -> list[Method]:
    """The methods of a search, each with its space.

    Raises:
      Invalid: with a line for each thing that is wrong.
      ValueError: if the settings that all trials share are wrong.
    """
    unknown = [name for name in search.methods if name not in ("base", *MEMBERS)]
    if unknown or len(set(search.methods)) < len(search.methods):
        raise ValueError(
            f"--methods must be different ones of base, {', '.join(MEMBERS)}; "
            f"got {', '.join(search.methods)}"
        )
    space = parse(search.space)
    methods = []
    for name in search.methods or (None,):
        config = shared(search, others, name)
        known = PARAMETERS - OPTIONS.keys()
        known |= set().union(*map(options_of, config.optimizers))
        own = {name: it for name, it in space.items() if name in known}
        methods.append(Method(name or "-".join(config.optimizers), config, own))
    unused = space.keys() - set().union(*(method.space for method in methods))
    if unused and search.space != Search.space:
        raise ValueError(
            f"--space {', '.join(sorted(unused))} doesn't apply to "
            f"{', '.join(method.name for method in methods)}"
        )
    check(methods, search.sampler == "grid")
    return methods


def parse(texts: tuple[str, ...]) -> Space:
    """Parses `--space`.

    Raises:
      Invalid: with a line for each text that is wrong.
    """
    space: Space = {}
    wrong = [] if texts else ["--space must name a parameter, as in rho=log:0.01:0.5"]
    for text in texts:
        flag, _, values = text.partition("=")
        name = flag.replace("-", "_")
        try:
            if name not in PARAMETERS:
                known = ", ".join(sorted(PARAMETERS)).replace("_", "-")
                raise ValueError(f"must name one of {known}")
            if name in space:
                raise ValueError(f"names {flag} twice")
            space[name] = distribution(name, values)
        except ValueError as error:
            wrong.append(f"--space {text}: {error}")
    if wrong:
        raise Invalid("\n".join(wrong))
    return space


def distribution(name: str, values: str) -> Distribution:
    """Parses `a,b,c`, `low:high` or `log:low:high`."""
    if ":" not in values:
        choices = [read(value) for value in values.split(",") if value]
        if not choices or len(set(choices)) < len(choices):
            raise ValueError("must list different values, as in k=2,5")
        return CategoricalDistribution(choices)
    log = values.startswith("log:")
    try:
        low, high = map(float, values.removeprefix("log:").split(":"))
    except ValueError:
        low = high = math.nan
    if not math.isfinite(high - low):
        raise ValueError("must be a range of two numbers, as in 0.8:0.99 or log:0.01:1")
    if low >= high:
        raise ValueError("must be a range that ends above its start")
    if log and low <= 0:
        raise ValueError("must start above 0 on a logarithmic scale")
    hint = get_type_hints(Config)[name]
    kinds = (hint, *get_args(hint))
    if float in kinds:
        return FloatDistribution(low, high, log=log)
    if int not in kinds:
        raise ValueError("must list choices, as in base=sgd,adam")
    if not low.is_integer() or not high.is_integer():
        raise ValueError("must be a range of whole numbers")
    return IntDistribution(int(low), int(high), log=log)


def read(text: str) -> Any:
    """A number, true, false or null as in JSON, otherwise the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, list | dict) else value


def check(methods: list[Method], grid: bool) -> None:
    """Builds every value of the space once, or its ends.

    Raises:
      Invalid: with a line for each of them that the trainer refuses.
    """
    wrong: dict[str, None] = {}  # a set in order
    for method in methods:
        extremes = {name: ends(values) for name, values in method.space.items()}
        first = {name: values[0] for name, values in extremes.items()}
        tries = [{**first, name: value} for name in first for value in extremes[name]]
        for params in tries or [{}]:
            try:
                config = dataclasses.replace(method.config, **params)
                make_phases(config, make_base(config, 1.0), 1)
                make_schedule(config, 1000)
            except (Invalid, ValueError) as error:
                wrong |= dict.fromkeys(str(error).splitlines())
        ranges = [
            name
            for name, values in method.space.items()
            if grid and not isinstance(values, CategoricalDistribution)
        ]
        wrong |= dict.fromkeys(
            f"--sampler grid needs choices, as in k=2,5; --space {name} is a range"
            for name in ranges
        )
    if wrong:
        raise Invalid("\n".join(wrong))


def ends(values: Distribution) -> list[Any]:
    """All choices, or the ends of a range."""
    if isinstance(values, CategoricalDistribution):
        return list(values.choices)
    return [values.low, values.high]


def points(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of the choices."""
    for point in itertools.product(*map(ends, space.values())):
        yield dict(zip(space, point, strict=True))


def at(values: Distribution, share: float) -> Any:
    """The value that a share of the distribution, in [0, 1), lies below."""
    if isinstance(values, CategoricalDistribution):
        return values.choices[int(share * len(values.choices))]
    low, high = values.low, values.high
    value = low * (high / low) ** share if values.log else low + (high - low) * share
    return round(value) if isinstance(values, IntDistribution) else value


def suggest(trial: Trial, name: str, values: Distribution) -> Any:
    """The value of a parameter, drawn by the study's sampler unless it was before."""
    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(name, values.choices)
    if isinstance(values, IntDistribution):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)
