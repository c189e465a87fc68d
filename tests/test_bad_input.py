"""Bad input ends every program with a clear line, before it trains or writes anything.

Cases are generated from the settings of each program, so that a new flag has its own;
what depends on several flags, or on what a file holds, is listed.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import gzip
from pathlib import Path
import shlex
import typing
from typing import Any
from typing import Literal
from typing import NamedTuple

import pytest
import tyro

from benchmarks import reports
from benchmarks.paper import comparisons
from benchmarks.paper import flatness
from benchmarks.paper import lifelong as lifelong_benchmark
from benchmarks.speed import networks
from benchmarks.speed import peers
from benchmarks.speed import scaling
from benchmarks.speed import step_time
from benchmarks.speed import train_throughput
from examples import multihost
from examples import quickstart
from examples.federated import __main__ as federated
from examples.federated.config import Config as Federated
from examples.images import __main__ as images
from examples.images import data
from examples.images.config import Config as Images
from examples.images.training import Training
from examples.lifelong import __main__ as lifelong
from examples.lifelong import learning
from examples.lifelong.config import Lifelong
from examples.search import __main__ as search
from examples.search.config import Search
from examples.trainer import command
from examples.trainer import paths
from examples.trainer import runs
from examples.translation import __main__ as translation
from examples.translation.config import TranslationConfig

# Files that a translator can learn from.
TEXTS = (
    *("--train", "{files}/source.txt", "{files}/target.txt"),
    *("--valid", "{files}/source.txt", "{files}/target.txt"),
)


class Program(NamedTuple):
    """A program.

    Attributes:
      main: what it does with arguments.
      settings: the class of them; None if another parser reads them.
      needed: arguments without which all others are refused.
    """

    main: Callable[..., None]
    settings: Any = None
    needed: tuple[str, ...] = ()


PROGRAMS = {
    "examples.images": Program(images.main, Images),
    "examples.translation": Program(translation.main, TranslationConfig, TEXTS),
    "examples.search": Program(search.main, Search),
    "examples.lifelong": Program(lifelong.main, Lifelong),
    "examples.federated": Program(federated.main, Federated),
    "examples.quickstart": Program(quickstart.main),
    "examples.multihost": Program(multihost.main),
    "benchmarks.speed.step_time": Program(step_time.main, step_time.StepTime),
    "benchmarks.speed.peers": Program(peers.main, peers.Peers),
    "benchmarks.speed.scaling": Program(scaling.main, scaling.Scaling, ("examples",)),
    "benchmarks.speed.train_throughput": Program(
        train_throughput.main, train_throughput.Throughput, ("--dataset", "digits")
    ),
    "benchmarks.paper.comparisons": Program(comparisons.main, comparisons.Comparison),
    "benchmarks.paper.flatness": Program(flatness.main, flatness.Flatness),
    "benchmarks.paper.lifelong": Program(
        lifelong_benchmark.main, lifelong_benchmark.Streams
    ),
    "benchmarks.reports": Program(reports.main, reports.Reports),
}


class Case(NamedTuple):
    """What a program gets, and what it has to say.

    Attributes:
      program: its name.
      arguments: of the command line, where {files} is the folder of `files`.
      said: words that the message has, such as the flag and the value.
    """

    program: str
    arguments: tuple[str, ...]
    said: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.program.rpartition(".")[2], *self.arguments))


# What a flag refuses, by its type.

# Where zero is a value.
MAY_BE_0 = {
    *("seed", "k", "ks", "rho", "alpha", "eta", "lookahead", "lookahead_alpha"),
    *("learning_rate", "meta_learning_rate", "warmup", "momentum", "betas"),
    *("weight_decay", "label_smoothing", "label_noise", "validation", "dropout"),
    *("gamma", "sigma", "decay"),
}
PLANS_ALONE = ("benchmarks.speed.scaling", "repetitions")  # may be 0, too
CHECKED = {
    paths.InputFile: ("{files}/missing", "{files}/folder"),
    paths.DataFolder: ("{files}/file", "{files}/file/inside"),
    paths.OutputFolder: ("{files}/file", "{files}/file/inside"),
    reports.Output: ("{files}/a.md", "{files}/a", "{files}/folder.json"),
}


def leaves(annotation: Any) -> Iterator[Any]:
    """The types that a type consists of; constraints are kept of texts and paths."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated and arguments[0] not in (str, Path):
        yield from leaves(arguments[0])
    elif origin in (typing.Annotated, Literal) or not arguments:
        yield annotation
    else:
        for argument in arguments:
            yield from leaves(argument)


def how_many(annotation: Any) -> int:
    """The values that a flag takes, at least."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        return 1 if ... in arguments else len(arguments)
    if typing.get_origin(annotation) is Literal:
        return 1
    return max(map(how_many, arguments), default=1)


def refused(program: str, name: str, annotation: Any) -> Iterator[str]:
    """Values that a flag refuses."""
    kinds = [kind for kind in dict.fromkeys(leaves(annotation)) if kind is not ...]
    if int in kinds or float in kinds:
        yield from ("many", "nan", "inf", "-inf", "-1")
        yield "1e39" if float in kinds else str(2**31)
        if float not in kinds:
            yield "1.5"
        if name not in MAY_BE_0 and (program, name) != PLANS_ALONE:
            yield "0"
    elif bool in kinds:
        yield "perhaps"
    for kind in kinds:
        if kind not in (int, float, bool, type(None)):
            yield from CHECKED.get(kind, ("nonsense",))


def of_flags(program: str) -> Iterator[Case]:
    """A case for each flag and each value that it refuses."""
    _, kind, needed = PROGRAMS[program]
    if kind is None:
        return
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if tyro.conf.Positional in typing.get_args(hints[field.name]):
            continue
        flag = command.flag(field.name)
        for value in refused(program, field.name, hints[field.name]):
            values = (value,) * how_many(hints[field.name])
            # A word behind a switch belongs to no flag, and a dataset has its own line.
            alone = value == "perhaps" or flag == "--dataset"
            said = (flag.strip("-") if flag == "--dataset" else flag, value)
            yield Case(program, (*needed, flag, *values), said[alone:])


def of_every_program(program: str) -> Iterator[Case]:
    """What no program takes."""
    _, kind, needed = PROGRAMS[program]
    yield Case(program, (*needed, "--nonsense", "1"), ("--nonsense",))
    yield Case(program, (*needed, "surplus"), ("surplus",))
    if hasattr(kind, "output") or program == "examples.quickstart":
        yield Case(program, (*needed, "--outpu", "x"), ("--outpu",))
        yield Case(program, (*needed, "--output"), ("--output",))


# What several flags refuse together, and what a type doesn't tell: lines of a shell,
# and what is said.


def for_each(flag: str, *values: str) -> dict[str, str]:
    """The flag with each of the values, which are both said."""
    return {f"{flag} {value}": f"{flag} {value}" for value in values}


LINE = " ".join(TEXTS) + " "
CONFIGS = ("missing", "folder", "empty", "broken", "binary", "deep", "list")
LISTED: dict[str, dict[str, str]] = {
    "examples.images": {
        "--recipe vit": "--pretrained",
        **for_each("--base", "chain", "contrib", "''"),
        **for_each("--optimizer", "''"),
        "--batch-size 100000": "--batch-size 100000",
        "--batch-size 63 --mesh data=8": "--batch-size 63",
        "--epochs 2147483647": "--epochs 2147483647",
        "--warmup 21": "--warmup 21",
        "--schedule inverse-sqrt": "--schedule --warmup",
        "--betas 0.9 0.99": "--betas sgd",
        "--betas 0.9": "--betas",
        "--epsilon 1e-3": "--epsilon sgd",
        "--nesterov --base adam": "--nesterov adam",
        "--nesterov --momentum 0": "--nesterov --momentum",
        "--k 2 --optimizer sam": "--k sam",
        "--alpha 0.5 --optimizer multistep_sam": "--alpha multistep_sam",
        "--eta 0.1 --optimizer sam": "--eta sam",
        "--average --optimizer sam": "--average sam",
        "--rho 0.1 --optimizer base": "--rho base",
        **for_each("--m", "7", "128"),
        **for_each("--micro-batches", "3"),
        "--m 16 --micro-batches 32": "--micro-batches 32",
        **for_each("--k", "1001"),
        **for_each("--seeds", "1001"),
        **for_each("--seed", "2000000001"),
        **for_each("--image-size", "5000"),
        "--image-size 3": "ConvNet 3×3",
        "--model vit-b16": "VisionTransformer 8×8",
        **for_each("--momentum", "1"),
        **for_each("--label-smoothing", "1"),
        **for_each("--lookahead-alpha", "1.5"),
        **for_each(
            "--mesh",
            *("data=2 data=4", "data=2 data=8", "fsdp=8 fsdp=8", "data=0 fsdp=8"),
            *("data=-1", "data=many", "data", "=8", "tensor=8", "data=3", "8"),
            *("data=1.5", "data=8 fsdp=8", "data=2147483648"),
        ),
        **for_each(
            "--phases",
            *("base", "'base until'", "'until 1'", "'base until many'"),
            *("'base until 2'", "'base until 0'", "'base until -1'"),
            *("'base until nan'", "'base until inf'", "'base until 0.5'"),
            *("'base until 0.8' 'sam until 0.5'", "'base until 1' 'sam until 1'"),
            *("'base until 0.5' 'sam until 0.5'",),
        ),
        "--phases 'nonsense until 1'": "nonsense",
        "--switch-minibatches --phases 'sam until 0.5' 'lookbehind_sam until 1'": (
            "--switch-minibatches --phases"
        ),
        # Files of settings.
        **for_each("--config", *(f"{{files}}/{name}.json" for name in CONFIGS)),
        "--config {files}/unknown.json": "--config epoch",
        "--config {files}/text.json": "--epochs many",
        "--config {files}/null.json": "--epochs None",
        "--config {files}/infinite.json": "--learning-rate inf",
        "--config {files}/not_a_number.json": "--learning-rate nan",
        "--config {files}/negative.json": "--epochs -3",
        "--config {files}/huge.json": "--epochs 1e+300",
        "--config {files}/pair.json": "--betas",
    },
    "examples.translation": {
        "": "--train --valid",
        "--train {files}/source.txt": "--train",
        **{
            f"{LINE} --train {{files}}/source.txt {{files}}/{name}": f"--train {name}"
            for name in (
                *("empty.txt", "short.txt", "latin.txt"),
                *("truncated.gz", "damaged.gz", "empty.gz", "plain.gz"),
            )
        },
        LINE + "--test {files}/source.txt {files}/short.txt": "--test short.txt",
        LINE + "--vocabulary 8": "--vocabulary 8",
        LINE + "--vocabulary 1000001": "--vocabulary 1000001",
        LINE + "--width 100 --heads 3": "--width --heads 100",
        LINE + "--max-length 2": "--max-length 2",
        LINE + "--max-length 10001": "--max-length 10001",
        LINE + "--layers 1001": "--layers 1001",
        LINE + "--batch-size 500": "--batch-size 200",
        LINE + "--warmup 0": "--warmup",
        LINE + "--warmup 6": "--warmup 6",
    },
    "examples.lifelong": {
        **for_each("--classes-per-task", "3", "10", "20"),
        **for_each("--batch-size", "10000"),
        "--images-per-task 7": "--batch-size 7",
        **for_each("--inner-steps", "3"),
        **for_each("--memory", "5", "10000000"),
        **for_each("--model", "resnet18"),
        "--methods sgd nonsense": "--methods nonsense",
        **for_each("--seeds", "1", "1001"),
        **for_each("--k", "1001"),
    },
    "examples.federated": {
        **for_each("--sampled", "21"),
        **for_each("--rounds", "3", "10000000"),
        **for_each("--gradients", "8"),
        **for_each("--batch-size", "66"),
        **for_each("--clients", "1298"),
        **for_each("--seeds", "1", "1001"),
        **for_each(
            "--output",
            *("{files}/a.jpg", "{files}/folder.png", "{files}/file/a.png"),
        ),
    },
    "examples.quickstart": {
        **for_each("--seeds", "1", "0", "-1", "many", "1.5", "nan", "1001"),
        **for_each("--gradients", "0", "-60", "100", "nan", "1e3", "6000000000"),
        **for_each(
            "--output",
            *("{files}/a.jpg", "{files}/folder.png", "{files}/missing/a.png"),
        ),
    },
    "examples.multihost": {
        "--processes 2": "--processes",
        "--coordinator localhost:1 --processes 2 --process-id 2": "--process-id 2",
        "--coordinator localhost:1 --processes 0 --process-id 0": "--processes 0",
        **for_each("--save-every", "0", "-1", "many", "nan", "2147483648"),
        **for_each("--steps", "0", "-1", "many", "nan", "2147483648"),
        **for_each("--heartbeat", "0", "-1", "many", "nan", "2147483648"),
        **for_each("--cpu-devices", "0", "-1", "many", "nan", "2147483648"),
        **for_each("--checkpoints", "{files}/file"),
        "--step 3": "--step",
    },
    "benchmarks.speed.step_time": {
        "--models": "--models",
        "--ks": "--ks",
        **for_each("--precisions", "tf32"),  # which CPUs don't have
    },
    "benchmarks.speed.peers": {
        "--ks 0": "--ks 0",
        **for_each("--models", "vit-small"),  # which has no twin
    },
    "benchmarks.speed.scaling": {
        "": "parameters examples devices",
        "nonsense": "nonsense",
        "examples --k 1001": "--k 1001",
    },
    "benchmarks.speed.train_throughput": {
        "--dataset digits --models decoder": "--models decoder",
        "--dataset digits --batch-size 5000": "--batch-size 5000",
        "--dataset digits --k 2 --optimizer sam": "--k sam",
    },
    "benchmarks.reports": {
        "": "results .json",
        **{
            f"{{files}}/{name}": name
            for name in (
                *("missing.json", "folder.json", "file", "empty.json", "list.json"),
                *("object.json", "nonsense.json", "number.json", "cut.json"),
                *("binary.json", "deep.json", "renamed.md"),
            )
        },
    },
}
OF_FLAGS = [case for program in PROGRAMS for case in of_flags(program)]
OTHERS = [
    case
    for program in PROGRAMS
    for case in (
        *of_every_program(program),
        *(
            Case(program, tuple(shlex.split(line)), tuple(shlex.split(said)))
            for line, said in LISTED.get(program, {}).items()
        ),
    )
]
# For `make test`: of those listed, the first that says something of a flag. A flag of a
# number refuses about eight values: every 23rd case is of one flag after another, and
# of one value after another.
FIRST = {(case.program, case.said[0]): case for case in reversed(OTHERS)}
QUICK = {*FIRST.values(), *OF_FLAGS[::23]}
CASES = [
    pytest.param(case, marks=() if case in QUICK else pytest.mark.thorough)
    for case in (*OTHERS, *OF_FLAGS)
]


# How they are tried.


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """What cases name."""
    folder = tmp_path_factory.mktemp("files")
    lines = [f"line {i} of {i % 7} dogs in {i % 5} fields\n" for i in range(200)]
    packed = gzip.compress("".join(lines).encode())
    for name in ("folder", "folder.json", "folder.png"):
        (folder / name).mkdir()
    texts = {
        **dict.fromkeys(("file", "empty.txt", "empty.json"), ""),
        "source.txt": "".join(lines),
        "target.txt": "".join(lines).upper(),
        "short.txt": "".join(lines[:2]),
        "plain.gz": "".join(lines),
        "broken.json": '{"epochs": 3',
        "list.json": "[1]",
        "object.json": "{}",
        "unknown.json": '{"epoch": 3}',
        "text.json": '{"epochs": "many"}',
        "null.json": '{"epochs": null}',
        "infinite.json": '{"learning_rate": Infinity}',
        "not_a_number.json": '{"learning_rate": NaN}',
        "negative.json": '{"epochs": -3}',
        "huge.json": '{"epochs": 1e300}',
        "pair.json": '{"betas": [0.9]}',
        "deep.json": "[" * 100_000,
        "nonsense.json": '{"benchmark": "nonsense"}',
        "number.json": '{"benchmark": 5}',
        "cut.json": '{"benchmark": "peers"}',
        "renamed.md": '{"benchmark": "peers", "rows": []}',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    (folder / "latin.txt").write_bytes("für\n".encode("latin-1") * 200)
    (folder / "truncated.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "damaged.gz").write_bytes(packed[:30] + b"\xff" * 9 + packed[39:])
    (folder / "empty.gz").write_bytes(b"")
    return folder


def kept(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(autouse=True)
def nothing_trains(monkeypatch):
    """Whatever would begin the work fails, and with it a case that is let through."""

    def trained(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    for owner, name in (
        (runs, "run"),
        (Training, "init"),
        (comparisons, "compare"),
        (learning, "learn"),
        (federated, "make_round"),
        (quickstart, "train"),
        (multihost, "train"),
        (networks, "make"),
        (scaling, "measure"),
        (reports, "save"),
    ):
        monkeypatch.setattr(owner, name, trained)


@pytest.fixture(autouse=True, scope="module")
def datasets_are_read_once():
    """Digits take a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("find", "load"):
            patch.setattr(data, name, functools.cache(getattr(data, name)))
        yield


def says(message: str, word: str) -> bool:
    """Whether a word is there, however lines are broken; numbers as Python writes."""
    try:
        forms = (word, str(float(word)))
    except ValueError:
        forms = (word,)
    return any("".join(form.split()) in message for form in forms)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(case, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = PROGRAMS[case.program].main
    before = kept(files)
    with pytest.raises(SystemExit) as stop:
        main([argument.format(files=files) for argument in case.arguments])
    captured, code = capsys.readouterr(), stop.value.code
    message = f"{captured.err}{captured.out}"
    if isinstance(code, str):  # which Python prints, with status 1
        message += code
    else:
        assert code == 2
    if message.startswith("Error: "):  # our own line, where a parser prints more
        assert len(message.splitlines()) == 1
    assert "Traceback" not in message
    plain = "".join(message.replace("\u2502", "").split())
    missing = [word for word in case.said if not says(plain, word.format(files=files))]
    assert not missing, message
    assert kept(files) == before
    assert not list(tmp_path.iterdir())


def test_there_are_more_than_were_tried_before():
    assert len(CASES) > 316
