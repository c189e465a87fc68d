"""Speed against others: PyTorch's 2k gradients, `optax.contrib.sam`, another SAM.

    pip install -e ".[peers]"
    python -m benchmarks.speed.peers

After a warm-up, each repetition times the steps of the same network on the same batch
in the same precision one after the other, each after a pause. Steps are compared within
each repetition. Each takes the gradients that its method needs: `lookbehind_sam` k + 1;
PyTorch's loop, which is the paper's Algorithm 1, 2k; `multistep_sam` and
`optax.contrib.sam` k + 1; and all SAMs, at k = 1, two.
"""

import dataclasses
import importlib.metadata
import importlib.util
import statistics
from typing import Annotated
from typing import Any

import jax
from matplotlib.figure import Figure
from pydantic import Field
from pydantic import PositiveInt
from tqdm import tqdm

from benchmarks import reports
from benchmarks.speed import networks
from benchmarks.speed.flags import Precisions
from benchmarks.speed.peer_steps import MODELS
from benchmarks.speed.peer_steps import seconds
from benchmarks.speed.peer_steps import ways
from benchmarks.speed.precisions import here
from benchmarks.speed.precisions import Precision
from benchmarks.speed.precisions import PRECISIONS
from examples.trainer import command
from examples.trainer.command import among
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.command import Several

# Whose speed is compared with whose.
PAIRS = {
    "PyTorch, 2k gradients": "lookbehind_sam",
    "PyTorch compiled, 2k gradients": "lookbehind_sam",
    "optax.contrib.sam": "multistep_sam",
    "pytorch_optimizer.SAM": "multistep_sam",
}


Model = Annotated[str, among(MODELS)]


@settings
class Peers(Settings):
    """Compare the speed of a step with that of other implementations.

    They are installed by pip install -e ".[peers]". Two commands:
      python -m benchmarks.speed.peers
      python -m benchmarks.speed.peers --models decoder --ks 2 --precisions fp32

    Attributes:
      models: networks: resnet34, any wrn-DEPTH-WIDTH of examples/images/models.py,
        decoder, or decoder-110m.
      ks: numbers of ascent steps.
      precisions: precisions of the computation; all that the device has if not given.
      batch_size: examples in a batch; each network has its own if not given, a smaller
        one on CPUs.
      compile: whether PyTorch's loop is also measured with torch.compile.
      repetitions: times that each row is timed.
      output: where to write every sample, as JSON, with the table and the picture
        next to it; replaced if it exists. By default
        benchmarks/results/speed/peers_DEVICE.json.
    """

    models: Several[Model] = ("wrn-28-2", "resnet34", "decoder")
    ks: Several[Annotated[int, Field(ge=1, le=1000)]] = (1, 2, 5)
    precisions: Precisions = dataclasses.field(default_factory=here)
    batch_size: PositiveInt | None = None
    compile: bool = dataclasses.field(
        default_factory=lambda: jax.default_backend() == "gpu"
    )
    repetitions: PositiveInt = 7
    output: reports.Output | None = None


def speeds(row: dict[str, Any], peer: str) -> list[float]:
    """How many times as fast ours is, in each repetition."""
    ours = [sample[PAIRS[peer]] for sample in row["samples"]]
    theirs = [sample[peer] for sample in row["samples"]]
    return [peer / our for peer, our in zip(theirs, ours, strict=True)]


def title(results: dict[str, Any]) -> str:
    """What was measured, where, and what a number is."""
    versions = {**results["versions"], **results["peer_versions"]}
    return (
        "Speed beside other implementations: above 1 ours is faster\n"
        f"{results['device']}; {', '.join(f'{k} {v}' for k, v in versions.items())}; "
        "medians, in brackets the range over repetitions"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each peer: medians, and the range of the ratio."""
    head = ["model", "batch", "precision", "k", "peer", "its step (ms)"]
    head += ["ours", "its step (ms)", "ours is as fast, times"]
    rows = []
    for row in results["rows"]:
        for peer, ours in PAIRS.items():
            if peer not in row["samples"][0]:
                continue
            found = speeds(row, peer)
            medians = [
                1000 * statistics.median(sample[way] for sample in row["samples"])
                for way in (peer, ours)
            ]
            rows.append(
                [
                    row["model"],
                    str(row["batch_size"]),
                    row["precision"],
                    str(row["k"]),
                    peer,
                    f"{medians[0]:.1f}",
                    ours,
                    f"{medians[1]:.1f}",
                    f"{statistics.median(found):.2f} "
                    f"({min(found):.2f}–{max(found):.2f})",
                ]
            )
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """A panel for each peer: how many times as fast ours is, over k."""
    peers = [p for p in PAIRS if any(p in r["samples"][0] for r in results["rows"])]
    drawing = Figure(figsize=(3.7 * len(peers), 3.6), layout="constrained")
    axes: Any = drawing.subplots(1, len(peers), squeeze=False)[0]
    for ax, peer in zip(axes, peers, strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in results["rows"]:
            if peer in row["samples"][0]:
                line = lines.setdefault(f"{row['model']}, {row['precision']}", [])
                line.append((row["k"], statistics.median(speeds(row, peer))))
        for name, points in lines.items():
            ax.plot(*zip(*points, strict=True), marker="o", label=name)
        ax.axhline(1, color="gray", linewidth=0.8)
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
        ax.set_xticks(sorted({k for points in lines.values() for k, _ in points}))
        ax.set_xlabel("k")
        ax.set_ylabel("times as fast as the peer")
        ax.set_title(f"{PAIRS[peer]}\nagainst {peer}", fontsize="small")
    axes[0].legend(fontsize="small", frameon=False)
    return drawing


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    benchmark = command.parse(Peers, "benchmarks.speed.peers", arguments)
    output = benchmark.output or reports.default("peers")
    for package in ("torch", "pytorch_optimizer"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                "the peers need PyTorch and pytorch_optimizer: "
                "pip install -e '.[peers]'"
            )
    grid: list[tuple[str, Precision, int]] = [
        (model, precision, k)
        for model in benchmark.models
        for precision in benchmark.precisions
        for k in benchmark.ks
    ]
    rows = []
    for model, precision, k in (progress := tqdm(grid, unit="row")):
        progress.set_description(f"{model}, {precision}, k = {k}")
        with jax.default_matmul_precision(PRECISIONS[precision].multiplication):
            network = networks.make(model, precision, benchmark.batch_size)
            found = ways(model, network, precision, k, benchmark.compile)
            for run in found.values():  # compiles
                run()
            samples = [
                {way: seconds(run) for way, run in found.items()}
                for _ in range(benchmark.repetitions)
            ]
        rows.append(
            {
                "model": model,
                "precision": precision,
                "batch_size": benchmark.batch_size
                or networks.default_batch_size(model),
                "parameters": network.size,
                "k": k,
                "samples": samples,
            }
        )
        jax.clear_caches()
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "pytorch_optimizer")
    }
    reports.save(output, "peers", {"peer_versions": versions, "rows": rows})


if __name__ == "__main__":
    main()
