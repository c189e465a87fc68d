"""Trains image classifiers: `python -m examples.images --help` says what it can do."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np

from examples.images import data
from examples.images.config import Config
from examples.images.config import RECIPES
from examples.images.training import Training
from examples.trainer import plots
from examples.trainer import runs


def main(arguments: list[str] | None = None) -> None:
    """Trains with every seed, and reports."""
    runs.main(train, Config, RECIPES, "examples.images", arguments)


def train(config: Config) -> None:
    """One run for each seed, in separate folders if there are several."""
    if config.recipe == "vit" and config.pretrained is None:
        raise ValueError("--recipe vit fine-tunes: give the weights as --pretrained")
    dataset = data.find(config.dataset, config.data_dir)
    summaries, logs = [], []
    for seed in range(config.seed, config.seed + config.seeds):
        folder = config.output if config.seeds == 1 else config.output / f"seed-{seed}"
        one = dataclasses.replace(config, seed=seed, seeds=1, output=folder)
        trained: list[runs.Record] = []
        training = Training(one, dataset)
        summaries.append(runs.run(one, training, folder, trained.append))
        if jax.process_index() > 0:
            continue
        if not trained:
            print(f"{folder} holds this run, finished: nothing was trained.")
        lines = (folder / "log.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
        plots.plot_runs(logs[-1:], title(one), folder / "plots.png")
    if jax.process_index() == 0:
        report(config, summaries, logs)


def title(config: Config) -> str:
    """A line that describes a run."""
    optimizer = ", ".join(config.phases) or config.optimizer
    return f"{config.model} on {config.dataset}, {optimizer} over {config.base}"


def report(
    config: Config, summaries: list[dict[str, Any]], logs: list[list[runs.Record]]
) -> None:
    """Prints the results, and draws all seeds together."""
    last = summaries[-1]
    print(
        f"{title(config)}: {last['parameters']:,} parameters, "
        f"{last['gradient_evaluations']:,} gradient evaluations, "
        f"{sum(s['wall_seconds'] for s in summaries):.0f} s on {last['device']}"
    )
    if config.validation:
        said = {
            "validation accuracy": "final_valid_accuracy",
            "at best": "best_valid_accuracy",
            "test accuracy": "test_accuracy",
        }
    else:
        said = {"test accuracy": "final_test_accuracy", "at best": "best_test_accuracy"}
    print(
        ", ".join(
            f"{what} {spread([summary[name] for summary in summaries])}"
            for what, name in said.items()
        )
    )
    if config.seeds > 1:
        plots.plot_runs(logs, title(config), config.output / "plots.png")
        print(f"(mean ± standard deviation over {config.seeds} seeds)")
    print(f"Configuration, log, plots and checkpoints are in {config.output}.")


def spread(shares: list[float]) -> str:
    """A share in percent, or the mean and the standard deviation of several."""
    percent = 100 * np.array(shares)
    if len(percent) == 1:
        return f"{percent[0]:.2f} %"
    return f"{percent.mean():.2f} ± {percent.std(ddof=1):.2f} %"


if __name__ == "__main__":
    main()
