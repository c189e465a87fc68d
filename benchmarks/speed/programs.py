"""What a compiled program holds: its instructions, and what it sends between devices.

XLA prints a program as named computations, of which one is the entry. A line of each is
an instruction, with the shapes of what it makes on each device; those that call name
other computations, and a loop says how often its body runs, if it is known.
"""

from collections import Counter
from collections.abc import Iterator
import math
import re
from typing import Any
from typing import NamedTuple

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)


class Instruction(NamedTuple):
    """One line of a compiled program.

    Attributes:
      kind: what it does.
      arrays: elements and bytes of each array that it makes on a device.
      line: its text, but for its own name.
    """

    kind: str
    arrays: list[tuple[int, int]]
    line: str


class Traffic(NamedTuple):
    """Communication between devices in one run of a program.

    Attributes:
      arrays: by kind, how often an array of so many elements comes out on a device.
      bytes: of these by kind, the scalars left out.
      scalars: how many of them.
    """

    arrays: dict[str, Counter]
    bytes: dict[str, int]
    scalars: int


def arrays_in(shapes: str) -> list[tuple[int, int]]:
    """Elements and bytes of each array in the text of a shape."""
    found = []
    for dtype, dimensions in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shapes):
        bits = int((re.findall(r"\d+", dtype) or [8])[0])  # a pred has a byte
        elements = math.prod(int(n) for n in dimensions.split(",") if n)
        found.append((elements, elements * bits // 8))
    return found


def computations(compiled: Any) -> tuple[str, dict[str, list[Instruction]]]:
    """The name of the entry, and the instructions of each computation by name."""
    entry, found = "", {}
    lines: list[Instruction] = []
    for line in compiled.as_text().splitlines():
        header = re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line)
        instruction = re.match(
            r" +(?:ROOT )?%?[\w.-]+ = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)", line
        )
        if header:
            lines = found.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif instruction:
            shapes, kind, rest = instruction.groups()
            text = f"{shapes} {kind}({rest}"
            lines.append(Instruction(kind, arrays_in(shapes), text))
    assert found[entry]
    return entry, found


def instructions(compiled: Any) -> Iterator[Instruction]:
    """Every instruction once, whatever calls it."""
    for lines in computations(compiled)[1].values():
        yield from lines


def runs(compiled: Any) -> Iterator[tuple[Instruction, int]]:
    """Every instruction, and how often a run of the program executes it.

    Raises:
      ValueError: if the program branches, or loops for an unknown number of times.
    """
    entry, found = computations(compiled)

    def of(name: str, times: int) -> Iterator[tuple[Instruction, int]]:
        for instruction in found[name]:
            yield instruction, times
            repetitions = 1
            if instruction.kind == "while":
                known = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.line)
                if known is None:
                    raise ValueError(f"a loop of unknown length: {instruction.line}")
                repetitions = int(known[1])
            if instruction.kind == "conditional":
                raise ValueError(f"a branch: {instruction.line}")
            called = r"\b(?:calls|to_apply|body)=%?([\w.-]+)"
            for callee in re.findall(called, instruction.line):
                yield from of(callee, times * repetitions)

    return of(entry, 1)


def traffic(compiled: Any) -> Traffic:
    """Communication between devices in one run.

    Raises:
      ValueError: if the program branches, or loops for an unknown number of times.
    """
    arrays: dict[str, Counter] = {}
    sizes, scalars = Counter(), 0
    for instruction, times in runs(compiled):
        kind = instruction.kind.removesuffix("-start")
        if kind not in COLLECTIVES:
            assert not kind.startswith(COLLECTIVES) or kind.endswith("-done"), kind
            continue
        results = instruction.arrays
        if instruction.kind == "all-gather-start":  # names its operands as well
            results = results[len(results) // 2 :]
        for elements, bytes_ in results:
            if elements == 1:
                scalars += times
            else:
                arrays.setdefault(kind, Counter())[elements] += times
                sizes[kind] += times * bytes_
    return Traffic(arrays, dict(sizes), scalars)
