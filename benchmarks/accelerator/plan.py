"""The jobs, the most valuable first, and how long each should take.

A job's estimate is the FLOPs of its gradients over an assumed share of the device's
peak, and what its host needs to start and to compile. Nothing here needs a package.
"""

from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

from benchmarks.accelerator.limits import Limits

START_S = 25  # Python, JAX, the device, and weights for a network
KS = (0, 1, 2, 5, 10)
PEER_KS = (2, 5)
REPETITIONS, PEER_REPETITIONS = 10, 7
PRECISIONS = ("bf16", "fp32", "tf32")  # the fastest first
CPU_S = 35  # for a tiny job, on a CPU
TRAIN, TEST = 50_000, 10_000  # images of CIFAR-10


class Network(NamedTuple):
    """What a network costs.

    Attributes:
      gflops: of a gradient, for each example; XLA's count, as a test checks.
      share: of the device's peak that a gradient is assumed to reach.
      compile_s: seconds in which a host compiles a gradient, assumed.
      batch: examples in a step.
    """

    gflops: float
    share: float
    compile_s: float
    batch: int


NETWORKS = {
    "wrn-28-2": Network(1.18, 0.05, 20, 128),
    "resnet34": Network(6.01, 0.15, 25, 128),
    "vit-small": Network(8.63, 0.2, 15, 128),
    "decoder-110m": Network(719, 0.2, 20, 8),
    "wrn-16-4": Network(2.16, 0.1, 15, 128),
}
# Whose twins PyTorch has.
TWINS = ("wrn-28-2", "resnet34", "decoder-110m")


class Job(NamedTuple):
    """Something to measure, in its own process.

    Attributes:
      name: of its files.
      kind: the module of this package that measures it.
      options: what that module's `measure` takes, as JSON can hold it.
      flops: of all the gradients that it takes.
      precision: in which most of them are.
      share: of the device's peak that they are assumed to reach.
      host_s: seconds in which the device waits for compilation, tests or PyTorch.
      needs: packages besides jax, optax and flax.
      resumes: whether it saves its work and ends on SIGTERM.
    """

    name: str
    kind: str
    options: dict[str, Any]
    flops: float = 0.0
    precision: str = "fp32"
    share: float = 1.0
    host_s: float = 0.0
    needs: tuple[str, ...] = ()
    resumes: bool = False

    def estimate(self, limits: Limits) -> float:
        """Seconds on such a device."""
        peak = getattr(limits, self.precision)
        return START_S + self.host_s + self.flops / (self.share * peak)

    def limit(self, limits: Limits) -> float:
        """Seconds after which it is stopped, even if there is more time."""
        return 60 + 3 * self.estimate(limits)


TRAINER = ("pydantic", "tqdm", "filelock", "orbax")


def jobs() -> Iterator[Job]:
    """All jobs of an accelerator."""
    for tests, seconds in (
        ("trajectories", 60),
        ("precisions", 60),
        ("devices", 40),
        ("loops", 60),
        ("flax", 240),
    ):
        yield correct(tests, seconds)
    for precision in PRECISIONS:
        for network in ("wrn-28-2", "resnet34", "vit-small", "decoder-110m"):
            yield step(network, precision)
    for precision in PRECISIONS:
        for network in TWINS:
            for k in PEER_KS:
                yield peers(network, precision, k)
    for network in ("wrn-28-2", "resnet34"):
        yield training(network)
    yield training("wrn-28-2", m=32)
    yield from evidence()


def correct(tests: str, seconds: float) -> Job:
    """Tests of one module."""
    options = {"files": [f"tests/accelerator/test_{tests}.py"], "chosen": ""}
    return Job(
        f"correct-{tests}",
        "correct",
        options,
        host_s=seconds,
        needs=("pytest", "chex"),
    )


def step(network: str, precision: str) -> Job:
    """Lookbehind-SAM's step over its gradients."""
    own = NETWORKS[network]
    gradients = 2 * (REPETITIONS + 1) * sum(k + 1 for k in KS)
    return Job(
        f"step-{network}-{precision}",
        "step",
        {
            "model": network,
            "precision": precision,
            "batch_size": own.batch,
            "ks": KS,
            "repetitions": REPETITIONS,
        },
        flops=1e9 * own.gflops * own.batch * gradients,
        precision=precision,
        share=own.share,
        host_s=own.compile_s * (1 + 1.5 * len(KS)),
    )


def peers(network: str, precision: str, k: int) -> Job:
    """Ours against PyTorch's loop, eager and compiled, and against Optax's SAM."""
    own = NETWORKS[network]
    # Two of PyTorch, with 2k gradients, and three with k + 1.
    gradients = (PEER_REPETITIONS + 1) * (4 * k + 3 * (k + 1))
    return Job(
        f"peers-{network}-{precision}-k{k}",
        "peers",
        {
            "model": network,
            "precision": precision,
            "batch_size": own.batch,
            "ks": (k,),
            "repetitions": PEER_REPETITIONS,
            "compiles": True,
        },
        flops=1e9 * own.gflops * own.batch * gradients,
        precision=precision,
        share=own.share / 2,  # eager PyTorch
        host_s=3 * 1.5 * own.compile_s + 30,
        needs=("torch",),
    )


def training(network: str, m: int | None = None) -> Job:
    """The trainer's epochs of Lookbehind-SAM, k = 2, against the bare step."""
    own, epochs, k = NETWORKS[network], 3, 2
    return Job(
        f"training-{network}" + ("" if m is None else f"-m{m}"),
        "training",
        {"model": network, "batch_size": own.batch, "m": m, "repetitions": epochs},
        flops=1e9 * own.gflops * TRAIN * (k + 1) * 2 * (epochs + 1),
        precision="bf16",
        share=own.share,
        host_s=4 * own.compile_s + 15,  # with the images to be unpacked
        needs=TRAINER,
    )


# Rows of `cifar-30` and `cifar-200` in benchmarks/evidence/cifar.py: gradients in a
# step, on average, and times the epochs.
ROWS = {
    "SGD": (1.0, 1),
    "SAM": (2.0, 1),
    "Lookbehind-SAM, k = 2": (3.0, 1),
    "Lookbehind-SAM, pullback, k = 2": (3.0, 1),
    "Lookbehind-SAM, late, k = 2": (1.6, 1),
    "Lookbehind-SAM, k = 5": (6.0, 1),
    "Lookbehind-SAM, pullback, k = 5": (6.0, 1),
    "SGD, 2 × the epochs": (1.0, 2),
    "SGD, 3 × the epochs": (1.0, 3),
    "SGD, 6 × the epochs": (1.0, 6),
}


def evidence() -> Iterator[Job]:
    """The cells of the protocol's question 5: short ones first, then seed by seed."""
    own = NETWORKS["wrn-16-4"]
    for epochs in (30, 200):
        for seed in range(3):
            for row, (gradients, times) in ROWS.items():
                # A third of a gradient for each image of an evaluation.
                images = TRAIN * gradients + TEST / 3
                yield Job(
                    f"evidence-{epochs}-{file_name(row)}-{seed}",
                    "evidence",
                    {"question": f"cifar-{epochs}", "row": row, "seed": seed},
                    flops=1e9 * own.gflops * images * epochs * times,
                    precision="bf16",
                    share=own.share,
                    host_s=3 * own.compile_s + 15,
                    needs=TRAINER,
                    resumes=True,
                )


def file_name(label: str) -> str:
    """A file name from a row's label."""
    kept = label.lower().replace("×", "x").replace(",", "").replace("= ", "")
    return "-".join(kept.split())


def smoke() -> Iterator[Job]:
    """One job of each kind, tiny, for a CPU."""
    yield correct("trajectories", CPU_S)._replace(
        options={
            "files": ["tests/accelerator"],
            "chosen": "(official and asam_k2) or (linen and gsam) or fsdp-asam",
        }
    )
    tiny = {"model": "decoder", "batch_size": 2, "precision": "fp32", "repetitions": 1}
    yield Job("step-decoder-fp32", "step", {**tiny, "ks": (1,)}, host_s=CPU_S)
    beside = {**tiny, "ks": (2,), "compiles": False}
    yield Job("peers-decoder-fp32", "peers", beside, host_s=CPU_S, needs=("torch",))
    train = {"model": "mlp", "batch_size": 16, "repetitions": 1}
    for name, m in (("training-mlp", None), ("training-mlp-m8", 8)):
        options = {**train, "m": m}
        yield Job(name, "training", options, host_s=CPU_S, needs=TRAINER)
    cell = {"question": "cifar-30", "row": "Lookbehind-SAM, late, k = 2", "seed": 0}
    smaller = {"model": "mlp", "epochs": 4, "batch_size": 16}
    yield Job(
        "evidence-mlp",
        "evidence",
        {**cell, "smaller": smaller},
        host_s=CPU_S,
        needs=TRAINER,
        resumes=True,
    )
