"""A table of each kind of job: what was measured, and whether targets are reached."""

import statistics
from typing import Any

import numpy as np

from benchmarks.accelerator import limits
from benchmarks.accelerator import records
from benchmarks.accelerator import targets
from benchmarks.evidence import answers
from benchmarks.speed.networks import DECODERS
from benchmarks.speed.peers import speeds

EAGER = "PyTorch, 2k gradients"
PEERS = (EAGER, "PyTorch compiled, 2k gradients", "optax.contrib.sam")


def of_kind(results: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The results of the finished jobs of a kind."""
    return [
        job["results"]
        for job in results["jobs"]
        if job["kind"] == kind and job["status"] == records.DONE
    ]


def device_limits(results: dict[str, Any]) -> limits.Limits | None:
    """Limits of the measured device."""
    devices = of_kind(results, "device")
    return limits.find(devices[0]["kind"]) if devices else None


def verdict(reached: bool) -> str:
    """Whether a target is reached."""
    return "yes" if reached else "no"


def correct(results: dict[str, Any]) -> list[list[str]]:
    """A row for each file of tests, and for each test that failed."""
    rows = [["tests", "passed", "skipped", "failed", "largest measured"]]
    for found in of_kind(results, "correct"):
        tests = found["tests"]
        outcomes = [test["outcome"] for test in tests.values()]
        measured = [v for test in tests.values() for v in test["measured"].values()]
        failed = [
            name.rpartition("::")[2] for name, test in tests.items() if "wrong" in test
        ]
        rows.append(
            [
                next(iter(tests)).partition("::")[0],
                str(outcomes.count("passed")),
                str(outcomes.count("skipped")),
                ", ".join(failed) or "0",
                f"{max(measured):.3g}" if measured else "",
            ]
        )
    return rows if len(rows) > 1 else []


def step(results: dict[str, Any]) -> list[list[str]]:
    """A row for each network, precision and k, with the targets."""
    head = ["model", "batch", "precision", "k", "step (ms)", "over k + 1 gradients"]
    head += [
        f"at most {targets.OVERHEAD}",
        "extra copies",
        f"at most {targets.COPIES:g}",
    ]
    head += ["peak (GB)", "compile (s)", "profile"]
    rows = []
    for found in of_kind(results, "step"):
        for row in found["rows"]:
            taken = statistics.median(it["step_s"] for it in row["samples"])
            over = overhead(row)
            copies = row["temporary_parameter_copies"]
            rows.append(
                [
                    found["model"],
                    str(found["batch_size"]),
                    found["precision"],
                    str(row["k"]),
                    f"{1000 * taken:.2f}",
                    f"{over:.3f}",
                    verdict(over <= targets.OVERHEAD),
                    f"{copies:.2f}",
                    verdict(copies <= targets.COPIES),
                    f"{row['planned_bytes'] / 1e9:.2f}",
                    f"{row['compile_s']:.1f}",
                    row["profile"] or "",
                ]
            )
    return [head, *rows] if rows else []


def overhead(row: dict[str, Any]) -> float:
    """Median of a step's time over that of its gradients."""
    return statistics.median(it["step_s"] / it["gradients_s"] for it in row["samples"])


def shares(results: dict[str, Any]) -> list[list[str]]:
    """A row for each network and precision: how close a gradient is to the limits."""
    found = device_limits(results)
    head = ["model", "precision", "gradient (ms)", "TFLOP/s", "of the peak", "TB/s"]
    head += ["of the bandwidth", "compile time, k = 10 over 2", "flat within 20 %"]
    rows = []
    for job in of_kind(results, "step"):
        row = job["rows"][-1]
        gradient = statistics.median(
            it["gradients_s"] / (row["k"] + 1) for it in row["samples"]
        )
        rates = [
            (job[key] or 0) / gradient for key in ("gradient_flops", "gradient_bytes")
        ]
        most = (
            [1.0, 1.0]
            if found is None
            else [getattr(found, job["precision"]), found.bandwidth]
        )
        of_limits = [
            f"{100 * a / b:.0f} %" if found else ""
            for a, b in zip(rates, most, strict=True)
        ]
        compiling = {it["k"]: it["compile_s"] for it in job["rows"]}
        ratio = compiling[10] / compiling[2] if {2, 10} <= compiling.keys() else None
        rows.append(
            [
                job["model"],
                job["precision"],
                f"{1000 * gradient:.2f}",
                f"{rates[0] / 1e12:.2f}",
                of_limits[0],
                f"{rates[1] / 1e12:.2f}",
                of_limits[1],
                "" if ratio is None else f"{ratio:.2f}",
                "" if ratio is None else verdict(abs(ratio - 1) <= targets.FLAT),
            ]
        )
    return [head, *rows] if rows else []


def outside(results: dict[str, Any]) -> list[list[str]]:
    """The work of the step with the largest k outside its gradients, largest first."""
    rows = []
    for job in of_kind(results, "step"):
        row = job["rows"][-1]
        rows += [
            [
                f"{job['model']}, {job['precision']}, k = {row['k']}",
                it["kind"],
                f"`{it['name']}`" if it["name"] else "(XLA's own)",
                str(it["count"]),
                f"{it['bytes'] / 1e6:.1f}",
            ]
            for it in row["outside"][:10]
        ]
    head = ["step", "kind", "name", "instructions", "MB"]
    return [head, *rows] if rows else []


def peers(results: dict[str, Any]) -> list[list[str]]:
    """A row for each peer, and ours in bfloat16 against PyTorch's default."""
    found = [row for job in of_kind(results, "peers") for row in job["rows"]]
    head = ["model", "precision", "k", "peer", "its step (ms)"]
    head += ["ours is as fast, times", "target", "reached"]
    rows = []
    for row in found:
        for peer in (way for way in row["samples"][0] if way in PEERS):
            times = statistics.median(speeds(row, peer))
            target = targets.FASTER.get(row["k"]) if peer == EAGER else None
            rows.append([*shape(row, peer), *against(times, target)])
        default = default_of(row, found)
        if row["precision"] == "bf16" and default is not None:
            ours = median_of(row, "lookbehind_sam")
            times = median_of(default, EAGER) / ours
            peer = f"{EAGER}, in {default['precision']}, its default"
            target = targets.FASTER_BF16
            said = shape(default, EAGER)
            rows.append(
                [*said[:1], "bf16", said[2], peer, said[4], *against(times, target)]
            )
    return [head, *rows] if rows else []


def median_of(row: dict[str, Any], way: str) -> float:
    """Seconds of a step."""
    return statistics.median(sample[way] for sample in row["samples"])


def shape(row: dict[str, Any], peer: str) -> list[str]:
    """The first cells of a row."""
    taken = 1000 * median_of(row, peer)
    return [row["model"], row["precision"], str(row["k"]), peer, f"{taken:.2f}"]


def against(times: float, target: float | None) -> list[str]:
    """The last cells of a row."""
    if target is None:
        return [f"{times:.2f}", "", ""]
    return [f"{times:.2f}", f"{target:g}", verdict(times >= target)]


def default_of(
    row: dict[str, Any], found: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """The same in PyTorch's default: TF32 in convolutions, float32 in products."""
    precision = "fp32" if row["model"] in DECODERS else "tf32"
    same = (row["model"], row["k"], precision)
    names = ("model", "k", "precision")
    alike = [one for one in found if tuple(one[name] for name in names) == same]
    return alike[0] if alike else None


def training(results: dict[str, Any]) -> list[list[str]]:
    """A row for each training, with the projection."""
    head = ["model", "m", "images", "images/s", "gradients/s", "over the bare step"]
    head += [
        f"at least {targets.SHARE:g}",
        "200 epochs (min)",
        f"under {targets.MINUTES}",
    ]
    rows = []
    for found in of_kind(results, "training"):
        taken = statistics.median(it["trainer_s"] for it in found["samples"])
        share = statistics.median(
            it["step_s"] / it["trainer_s"] for it in found["samples"]
        )
        projected = found["projected_s"] / 60
        rows.append(
            [
                found["model"],
                str(found["m"] or ""),
                found["dataset"],
                f"{found['images'] / taken:,.0f}",
                f"{found['gradients'] / taken:,.0f}",
                f"{share:.3f}",
                verdict(share >= targets.SHARE),
                f"{projected:.1f}",
                verdict(projected < targets.MINUTES),
            ]
        )
    return [head, *rows] if rows else []


def evidence(results: dict[str, Any]) -> list[list[str]]:
    """A row for each question and row of it: the cells that are done."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in of_kind(results, "evidence"):
        key = cell["question"], cell["row"], cell["dataset"]
        found.setdefault(key, []).append(cell)
    rows = [
        [
            *key,
            answers.percent(np.array([it["test_accuracy"] for it in done])),
            f"{statistics.mean(it['seconds'] for it in done):.0f}",
            str(len(done)),
        ]
        for key, done in found.items()
    ]
    head = ["question", "row", "images", "test accuracy (%)", "seconds", "n"]
    return [head, *rows] if rows else []


def unfinished(results: dict[str, Any]) -> list[list[str]]:
    """A row for each unfinished job, with the reason."""
    rows = [
        [job["name"], job["status"], job["reason"]]
        for job in results["jobs"]
        if job["status"] != records.DONE
    ]
    return [["job", "state", "why"], *rows] if rows else []


TABLES = {
    "Correct": correct,
    "Step": step,
    "What a gradient has of the limits": shares,
    "Beside the gradients": outside,
    "Peers": peers,
    "Training by Lookbehind-SAM, k = 2": training,
    "Evidence": evidence,
    "Not done": unfinished,
}
