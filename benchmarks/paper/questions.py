"""What the paper asks of its methods: for each table and figure, the runs to compare.

Numbers of tables, figures and sections are those of Mordido et al. 2024.
"""

from collections.abc import Callable
import dataclasses
from typing import Any
from typing import Literal
from typing import NamedTuple

from benchmarks.paper.sizes import Setting
from benchmarks.paper.trained import METHODS
from examples.images.config import Config

Options = dict[str, Any]


class Row(NamedTuple):
    """One way to train, and its place in the table and the picture.

    Attributes:
      label: of the row.
      options: options of the trainer, beyond the setting's.
      times: the setting's epochs, times this.
      line: in a picture over a number, the line that the row belongs to.
      x: the number.
    """

    label: str
    options: Options
    times: float = 1.0
    line: str = ""
    x: float = 0.0


class Question(NamedTuple):
    """A table or figure.

    Attributes:
      about: what is asked.
      rows: the ways to train that answer it, in a setting.
      x: what the number of a picture's rows is; a table's have none.
      shows: what the picture is of: final accuracies, or α over training.
      counts: whether gradients are counted until Multistep-SAM's accuracy is reached.
      options: what changes in the setting.
    """

    about: str
    rows: Callable[[Setting], list[Row]]
    x: str = ""
    shows: Literal["accuracy", "alpha"] = "accuracy"
    counts: bool = False
    options: Options = {}  # noqa: RUF012 nobody changes it


def lookbehind(k: int = 2, **options: Any) -> Options:
    """Lookbehind-SAM, with α = 1/k by default."""
    return {"optimizer": "lookbehind_sam", "k": k, "alpha": 1 / k, **options}


def multistep(k: int = 2, **options: Any) -> Options:
    """Multistep-SAM."""
    return {"optimizer": "multistep_sam", "k": k, **options}


def asam(options: Options) -> Options:
    """A row with ASAM's direction in place of SAM's."""
    return {**options, "optimizer": options["optimizer"].replace("_sam", "_asam")}


SGD, SAM = METHODS["SGD"], METHODS["SAM"]
ASAM = {"optimizer": "asam"}
# Zhang et al. 2019 synchronize every 5 steps with α = 0.5.
LOOKAHEAD = {"lookahead": 5, "lookahead_alpha": 0.5}
BASELINE = Row("SAM", SAM)
# As many gradients as methods of k = 2 take. Every question has it or `as_many`.
LONGER_SGD = Row("SGD, three times the epochs", SGD, times=3.0)


def as_many(k: int) -> Row:
    """SGD for as many gradients as methods of k take, in a picture over k."""
    line = "SGD, as many gradients"
    return Row(f"{line}, k = {k}", SGD, times=k + 1.0, line=line, x=k)


def generalization(setting: Setting) -> list[Row]:
    """Table 1."""
    del setting
    average = {"average": True}
    return [
        Row("SGD", SGD),
        LONGER_SGD,
        Row("Lookahead-SGD", {**SGD, **LOOKAHEAD}),
        BASELINE,
        Row("Multistep-SAM", multistep()),
        Row("Multistep-SAM, average", multistep() | average),
        Row("Lookahead-SAM", {**SAM, **LOOKAHEAD}),
        Row("Lookbehind-SAM", lookbehind()),
        Row("ASAM", ASAM),
        Row("Multistep-ASAM", asam(multistep())),
        Row("Multistep-ASAM, average", asam(multistep()) | average),
        Row("Lookahead-ASAM", {**ASAM, **LOOKAHEAD}),
        Row("Lookbehind-ASAM", asam(lookbehind())),
    ]


def adaptive(setting: Setting) -> list[Row]:
    """Table 3 and Figure 10."""
    del setting
    alphas = {
        "α = 0.5": 0.5,
        "adaptive α": "adaptive",
        "adaptive α per tensor": "adaptive-per-tensor",
    }
    rows = [LONGER_SGD, BASELINE, Row("ASAM", ASAM)]
    for label, alpha in alphas.items():
        options = lookbehind(alpha=alpha)
        rows.append(Row(f"Lookbehind-SAM, {label}", options))
        rows.append(Row(f"Lookbehind-ASAM, {label}", asam(options)))
    return rows


def switched(setting: Setting) -> list[Row]:
    """Table 4. A step that switches takes k minibatches, so an epoch has 1/k steps."""
    del setting
    switch = {"switch_minibatches": True}
    paper = {**switch, "reuse_gradients": False}
    return [
        LONGER_SGD,
        BASELINE,
        Row("Multistep-SAM", multistep()),
        Row("Multistep-SAM, switched", multistep() | switch, times=2.0),
        Row("Lookbehind-SAM", lookbehind()),
        Row("Lookbehind-SAM, switched", lookbehind() | paper, times=2.0),
        Row("Lookbehind-SAM, switched, reusing", lookbehind() | switch, times=2.0),
    ]


def stronger(setting: Setting) -> list[Row]:
    """Table 8."""
    wanted = ("SGD", LONGER_SGD.label, "SAM", "Multistep-SAM", "Lookbehind-SAM")
    wanted += ("ASAM", "Multistep-ASAM", "Lookbehind-ASAM")
    return [row for row in generalization(setting) if row.label in wanted]


def groups(setting: Setting) -> list[Row]:
    """Table 9."""
    methods = {
        "SAM": SAM,
        "Multistep-SAM": multistep(),
        "Lookbehind-SAM": lookbehind(),
    }
    batch = setting.config.batch_size
    sizes = {f", m = {m}": {"m": m} for m in (batch // 2, batch // 4)}
    return [LONGER_SGD] + [
        Row(f"{name}{suffix}", options | group)
        for name, options in methods.items()
        for suffix, group in {"": {}, **sizes}.items()
    ]


def gradients_needed(setting: Setting) -> list[Row]:
    """Table 10: the same runs as Table 1's."""
    wanted = (LONGER_SGD.label, "SAM", "Multistep-SAM", "Lookahead-SAM")
    wanted += ("Lookbehind-SAM",)
    return [row for row in generalization(setting) if row.label in wanted]


def over_k(setting: Setting) -> list[Row]:
    """Figure 5."""
    rows = [BASELINE]
    for k in setting.ks:
        for line, options in (
            ("Multistep-SAM", multistep(k)),
            ("Lookbehind-SAM, α = 1/k", lookbehind(k)),
        ):
            rows.append(Row(f"{line}, k = {k}", options, line=line, x=k))
        rows.append(as_many(k))
    return rows


def over_rho(setting: Setting) -> list[Row]:
    """Figure 6."""
    methods = {
        "SAM": SAM,
        "Multistep-SAM, k = 2": multistep(),
        "Lookbehind-SAM, k = 2": lookbehind(),
    }
    rows = [LONGER_SGD, BASELINE]
    for rho in setting.rhos:
        for line, options in methods.items():
            rows.append(
                Row(f"{line}, ρ = {rho:g}", options | {"rho": rho}, line=line, x=rho)
            )
    return rows


def over_alpha(setting: Setting) -> list[Row]:
    """Figure 7."""
    rows = [*(as_many(k)._replace(line="", x=0) for k in setting.ks), BASELINE]
    for k in setting.ks:
        line = f"Lookbehind-SAM, k = {k}"
        for alpha in (0.2, 0.5, 0.8):
            options = lookbehind(k, alpha=alpha)
            rows.append(Row(f"{line}, α = {alpha}", options, line=line, x=alpha))
    return rows


def stages(setting: Setting) -> list[Row]:
    """Figure 8: the share of the training after which the second method takes over."""
    del setting
    pairs = {
        "SGD, then SAM": ("base", "sam"),
        "SGD, then Lookbehind-SAM": ("base", "lookbehind_sam"),
        "SAM, then Lookbehind-SAM": ("sam", "lookbehind_sam"),
    }
    rows = [Row("SGD", SGD), LONGER_SGD, BASELINE]
    rows.append(Row("Lookbehind-SAM", lookbehind()))
    for line, (first, second) in pairs.items():
        options = {"k": 2, "alpha": 0.5} if second == "lookbehind_sam" else {}
        for share in (0.25, 0.5, 0.75):
            phases = f"{first} until {share}", f"{second} until 1"
            rows.append(
                Row(
                    f"{line} at {share}",
                    options | {"phases": phases},
                    line=line,
                    x=share,
                )
            )
    return rows


def divided(setting: Setting) -> list[Row]:
    """Figure 9 and Appendix A.1.2."""
    rate, rho, rows = setting.config.learning_rate, setting.rho or 0.05, [BASELINE]
    for k in setting.ks:
        smaller = {"rho": rho / k, "learning_rate": rate / k, "alpha": 1.0}
        for line, options in (
            ("ρ, α = 1/k", lookbehind(k)),
            ("ρ/k, η/k, α = 1", lookbehind(k) | smaller),
        ):
            rows.append(Row(f"{line}, k = {k}", options, line=line, x=k))
        rows.append(as_many(k))
    return rows


def price(setting: Setting) -> list[Row]:
    """Lookbehind on the k parts of a minibatch, for 1 + 1/k gradients of the whole.

    All rows but the first take as many gradients, counted as of whole minibatches.
    """
    rows = [
        Row("SGD", SGD),
        LONGER_SGD,
        Row("SAM", SAM, times=1.5),
        Row("Lookbehind-SAM, k = 2", lookbehind()),
    ]
    for k in (2, 4):
        parts = {
            "switch_minibatches": True,
            "batch_size": setting.config.batch_size // k,
        }
        rows.append(
            Row(
                f"Lookbehind-SAM on {k} parts",
                lookbehind(k) | parts,
                times=3 / (1 + 1 / k),
            )
        )
    return rows


QUESTIONS = {
    "table-1": Question("Which method generalizes best?", generalization),
    "table-3": Question("Is an adaptive α as good as a tuned one?", adaptive),
    "table-4": Question("Do switched minibatches help?", switched),
    "table-8": Question(
        "What remains with a stronger recipe?",
        stronger,
        options={
            "schedule": "cosine",
            "label_smoothing": 0.1,
            "weight_decay": 5e-4,
        },
    ),
    "table-9": Question("What do smaller groups (m-SAM) change?", groups),
    "table-10": Question(
        "After how many gradients is Multistep-SAM's accuracy reached?",
        gradients_needed,
        counts=True,
    ),
    "figure-5": Question("How many ascent steps?", over_k, x="k"),
    "figure-6": Question("Which radius?", over_rho, x="ρ"),
    "figure-7": Question("Which α?", over_alpha, x="α"),
    "figure-8": Question(
        "When in the training?", stages, x="share of the training before the change"
    ),
    "figure-9": Question("Steps of ρ, or of ρ/k?", divided, x="k"),
    "figure-10": Question(
        "How does the adaptive α go over training?", adaptive, shows="alpha"
    ),
    "price": Question("Does Lookbehind pay at the price of SGD?", price),
}
Name = Literal[
    "table-1",
    "table-3",
    "table-4",
    "table-8",
    "table-9",
    "table-10",
    "figure-5",
    "figure-6",
    "figure-7",
    "figure-8",
    "figure-9",
    "figure-10",
    "price",
]


def configure(setting: Setting, question: Question, row: Row) -> Config:
    """The configuration of a row, but for seed and folder."""
    config = dataclasses.replace(setting.config, **question.options)
    optimizer = row.options.get("optimizer", "")  # phases have none
    if optimizer != "base":
        rho = setting.rho_asam if optimizer.endswith("asam") else setting.rho
        config = dataclasses.replace(config, rho=rho)
    longer = {
        "epochs": round(row.times * config.epochs),
        "drop_every": round(row.times * config.drop_every),
    }
    return dataclasses.replace(config, **longer, **row.options)
