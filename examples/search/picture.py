"""The picture of a search: accuracy over the trials, and over each parameter."""

from collections.abc import Callable
import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib.ticker import MaxNLocator
from matplotlib.ticker import NullFormatter
import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from examples.search.space import Distribution
from examples.search.study import parameters
from examples.search.study import Shared
from examples.trainer import command
from lookbehind_optax import measure

ACCURACY = "validation accuracy (%)"


def figure(studies: list[Shared]) -> Figure:
    """A panel for the trials, and one for each parameter."""
    space = parameters(studies)
    columns = min(3, 1 + len(space))
    rows = math.ceil((1 + len(space)) / columns)
    size = (3.6 * columns + 0.6, 3 * rows + 0.8)
    drawn = Figure(figsize=size, layout="constrained")
    panels = list(drawn.subplots(rows, columns, sharey=True, squeeze=False).flat)
    names = [shared.method.name for shared in studies]
    for style, shared in zip(measure.styles(names), studies, strict=True):
        draw(panels[0], shared, lambda trial: trial.number, style)
        draw_best(panels[0], shared, style["color"])
        for axes, (name, values) in zip(panels[1:], space.items(), strict=False):
            of_name = [it for it in studies if name in it.method.space]
            if shared in of_name:  # side by side with the others at a choice
                shift = 0.15 * (of_name.index(shared) - (len(of_name) - 1) / 2)
                draw(axes, shared, position(name, values, shift), style)
    label(panels, space)
    for axes in panels[::columns]:
        axes.set_ylabel(ACCURACY)
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    return drawn


def label(panels: list[Axes], space: dict[str, Distribution]) -> None:
    """Names the axes, and removes panels without a parameter."""
    panels[0].set_xlabel("trial (line: best so far)")
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, (name, values) in zip(panels[1:], space.items(), strict=False):
        axes.set_xlabel(command.flag(name))
        if isinstance(values, CategoricalDistribution):
            axes.set_xticks(range(len(values.choices)), map(str, values.choices))
            axes.set_xlim(-0.5, len(values.choices) - 0.5)
        elif values.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    for axes in panels[: 1 + len(space)]:
        axes.grid(alpha=0.3)
    for axes in panels[1 + len(space) :]:
        axes.remove()


def position(
    name: str, values: Distribution, shift: float
) -> Callable[[FrozenTrial], float]:
    """Where a trial is along the axis of a parameter."""
    if not isinstance(values, CategoricalDistribution):
        return lambda trial: trial.params[name]
    choices = list(values.choices)
    return lambda trial: choices.index(trial.params[name]) + shift


def draw(
    axes: Axes,
    shared: Shared,
    x: Callable[[FrozenTrial], float],
    style: dict[str, Any],
) -> None:
    """Complete trials, with hollow markers if pruned and crosses if failed."""
    style = style | {"linestyle": ""}
    kinds: list[tuple[TrialState, dict[str, Any]]] = [
        (TrialState.COMPLETE, style | {"label": shared.method.name}),
        (TrialState.PRUNED, style | {"markerfacecolor": "none"}),
        (TrialState.FAIL, style | {"marker": "x"}),
    ]
    for state, look in kinds:
        trials = shared.of_state(state)
        failed = state == TrialState.FAIL
        heights = [0.02 if failed else 100 * (trial.value or 0.0) for trial in trials]
        if failed:  # above the axis, whatever the accuracies are
            look["transform"] = axes.get_xaxis_transform()
        axes.plot(list(map(x, trials)), heights, **look)


def draw_best(axes: Axes, shared: Shared, color: str) -> None:
    """The best accuracy so far, over the trials."""
    complete = shared.of_state(TrialState.COMPLETE)
    best = np.maximum.accumulate([100 * (trial.value or 0.0) for trial in complete])
    numbers = [trial.number for trial in complete]
    axes.step(numbers, best, where="post", color=color, alpha=0.6)
