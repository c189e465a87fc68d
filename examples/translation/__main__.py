"""Trains translators: `python -m examples.translation --help` says what it can do."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from examples.trainer import command
from examples.trainer import folders
from examples.trainer import plots
from examples.trainer import runs
from examples.trainer.provenance import sha256
from examples.translation import text
from examples.translation.config import TRANSLATION_RECIPES
from examples.translation.config import TranslationConfig
from examples.translation.training import Translation

TOKENIZER = "tokenizer.json"


def main(arguments: list[str] | None = None) -> None:
    """Trains with every seed, and reports."""
    runs.main(
        train, TranslationConfig, TRANSLATION_RECIPES, "examples.translation", arguments
    )


def train(config: TranslationConfig) -> None:
    """One run for each seed, in separate folders if there are several."""
    if config.train is None or config.valid is None:
        raise ValueError(
            "--train and --valid must each name two files, a source and its translation"
        )
    pairs = text.read("--train", config.train)
    valid = text.read("--valid", config.valid)
    test = text.read("--test", config.test) if config.test else None
    summaries, logs, sentences = [], [], []
    for seed in range(config.seed, config.seed + config.seeds):
        folder = config.output if config.seeds == 1 else config.output / f"seed-{seed}"
        one = dataclasses.replace(config, seed=seed, seeds=1, output=folder)
        training = prepare(one, folder, pairs, valid)
        trained: list[runs.Record] = []
        summary = runs.run(one, training, folder, trained.append)
        if test is not None:
            sentences = finish(training, folder, summary, test)
        summaries.append(summary)
        if jax.process_index() > 0:
            continue
        if not trained:
            print(f"{folder} holds this run, finished: nothing was trained.")
        lines = (folder / "log.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
        picture = folder / "plots.png"
        plots.plot_runs(logs[-1:], title(one), picture, plots.TRANSLATION)
    if jax.process_index() == 0:
        report(config, summaries, logs)
        if test is not None:
            show(sentences, test)


def prepare(
    config: TranslationConfig, folder: Path, pairs: text.Pairs, valid: text.Pairs
) -> Translation:
    """The run, with the subwords that its folder holds, or else new ones."""
    path = folder / TOKENIZER
    if path.exists():
        tokenizer, saved = text.load(path)
    else:
        tokenizer = text.learn(pairs, config.vocabulary)
        saved = tokenizer.to_str(pretty=True)
    training = Translation(config, tokenizer, pairs, valid)
    training.files = {TOKENIZER: saved}
    texts = (*(config.train or ()), *(config.valid or ()))
    training.fingerprint = {str(path): sha256(path) for path in texts}
    training.fingerprint[TOKENIZER] = hashlib.sha256(saved.encode()).hexdigest()
    if jax.process_index() == 0:
        print(
            f"{training.kept:,} of {len(pairs.source):,} training pairs; the others "
            f"are empty or longer than {config.max_length} subwords (of "
            f"{text.size(tokenizer):,})"
        )
    return training


def finish(
    training: Translation, folder: Path, summary: dict[str, Any], test: text.Pairs
) -> list[str]:
    """Translates the test set with the final weights; adds BLEU to the summary.

    The translations are saved in the folder, one per line.
    """
    state = runs.final_state(training, folder)
    sentences = training.translations(training.slow_weights(state), test.source)
    config = training.config
    summary["config"] |= {"test": command.as_json(config)["test"]}
    summary["test_bleu"] = training.bleu(sentences, test)
    summary["bleu_signature"] = str(training.metric.get_signature())
    if jax.process_index() == 0:
        written = {
            "test.txt": "".join(" ".join(line.split()) + "\n" for line in sentences),
            "summary.json": folders.as_text(summary),
        }
        for name, content in written.items():
            folders.write_text(folder / name, content)
    return sentences


def title(config: TranslationConfig) -> str:
    """A line that describes a run."""
    optimizer = ", ".join(config.phases) or config.optimizer
    layers = f"{config.layers} + {config.layers} layers of width {config.width}"
    return f"{layers}, {optimizer} over {config.base}"


def report(
    config: TranslationConfig,
    summaries: list[dict[str, Any]],
    logs: list[list[runs.Record]],
) -> None:
    """Prints the results, and draws all seeds together."""
    last = summaries[-1]
    print(
        f"{title(config)}: {last['parameters']:,} parameters, "
        f"{last['gradient_evaluations']:,} gradient evaluations, "
        f"{sum(s['wall_seconds'] for s in summaries):.0f} s on {last['device']}"
    )
    if config.seeds > 1:
        picture = config.output / "plots.png"
        plots.plot_runs(logs, title(config), picture, plots.TRANSLATION)
    names = {
        "final_valid_bleu": "validation BLEU",
        "best_valid_bleu": "at best",
        "test_bleu": "test BLEU",
    }
    said = []
    for key, name in names.items():
        if key in last:
            values = np.array([summary[key] for summary in summaries])
            spread = f" ± {values.std(ddof=1):.2f}" if config.seeds > 1 else ""
            said.append(f"{name} {values.mean():.2f}{spread}")
    over = f" (mean ± standard deviation over {config.seeds} seeds)"
    print(", ".join(said) + (over if config.seeds > 1 else ""))
    if "bleu_signature" in last:
        print(f"BLEU is sacrebleu's, {last['bleu_signature']}")
    print(f"Configuration, log, plots and checkpoints are in {config.output}.")


def show(sentences: list[str], test: text.Pairs) -> None:
    """Prints a few translations, spread over the set."""
    for i in np.linspace(0, len(sentences) - 1, 5, dtype=int)[1:-1]:
        print(f"\nsource       {test.source[i]}")
        print(f"translation  {sentences[i]}")
        print(f"reference    {test.target[i]}")


if __name__ == "__main__":
    main()
