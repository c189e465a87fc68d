"""A question, and results of it that a test makes up."""

from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from examples.images.config import Config

ROWS = (Row("SGD", {}), Row("SAM", {}, line="a line", x=1), Row("ASAM", {}))

CLAIMS = (Claim("It pays.", "SAM", "SGD"),)


def question(rows=ROWS, **options):
    return Question("Which?", Config(), 100, rows, "SGD", CLAIMS, **options)


def results(**accuracies):
    rows = {
        label: {
            "trials": {},
            "seeds": {
                str(seed): {
                    "params": {"learning_rate": 0.123, "k": 2},
                    "test_accuracy": accuracy,
                    "best_test_accuracy": accuracy + 0.1,
                    "test_ece": 0.05,
                    "gradients": 100 * (1 + (label == "SAM")),
                    "seconds": 7.0,
                }
                for seed, accuracy in enumerate(found)
            },
        }
        for label, found in accuracies.items()
    }
    return {"question": "asked", "rows": rows}
