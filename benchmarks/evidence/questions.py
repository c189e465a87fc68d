"""All questions by name; docs/protocol.md has them in words."""

from benchmarks.evidence import budget
from benchmarks.evidence import cifar
from benchmarks.evidence import epochs
from benchmarks.evidence import lifelong
from benchmarks.evidence import noise
from benchmarks.evidence import price
from benchmarks.evidence import radius
from benchmarks.evidence import transformer
from benchmarks.evidence.question import Question

QUESTIONS: dict[str, Question] = {
    **{f"noise-{percent}": noise.question(percent) for percent in noise.LEVELS},
    "noise-40-convnet": noise.CONVNET,
    **{f"price-{percent}": price.question(percent) for percent in price.LEVELS},
    "budget-40": budget.QUESTION,
    **{f"epochs-{percent}": epochs.question(percent) for percent in epochs.LEVELS},
    "epochs-40-again": epochs.AGAIN,
    "searches-40": epochs.SEARCHES,
    "searches-0": epochs.CLEAN_TRAINING,
    "searches-40-clean": epochs.CLEAN,
    "searches-40-convnet": epochs.CONVNET,
    "range": radius.QUESTION,
    "rates": radius.OVER_RATES,
    "rates-best": radius.BEST_OF_RATES,
    **{f"cifar-{length}": cifar.question(length) for length in cifar.LENGTHS},
    "vit": transformer.QUESTION,
    "split-cifar100": lifelong.QUESTION,
}
