"""What a compiled step does outside its gradients: fusions and copies, by name.

XLA keeps the name of the operation that an instruction comes from. What comes from a
loss has "jvp" in it, what comes from the algorithm has its own name, and a copy that
nobody asked for often has none.
"""

from collections import Counter
from collections.abc import Iterator
import re
from typing import Any

from benchmarks.speed import programs

KINDS = ("fusion", "copy", "copy-start", "transpose")


def find(compiled: Any, at_least: int) -> list[dict[str, Any]]:
    """Fusions and copies that come from no gradient, those that move the most first.

    Args:
      compiled: a step.
      at_least: elements of the largest array that one makes, to be listed.

    Returns:
      For each kind and name, the number of instructions, and the bytes that they make
      in a pass. Instructions in a loop are counted once.
    """
    counts, sizes = Counter(), Counter()
    for instruction in executed(compiled):
        name = operation(instruction.line)
        largest = max((size for size, _ in instruction.arrays), default=0)
        if instruction.kind not in KINDS or "jvp" in name or largest < at_least:
            continue
        counts[instruction.kind, name] += 1
        sizes[instruction.kind, name] += sum(size for _, size in instruction.arrays)
    return [
        {"kind": kind, "name": name, "count": counts[kind, name], "bytes": size}
        for (kind, name), size in sizes.most_common()
    ]


def executed(compiled: Any) -> Iterator[programs.Instruction]:
    """The instructions that run by themselves: those inside of a fusion don't."""
    entry, computations = programs.computations(compiled)
    names, seen = [entry], set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        for instruction in computations[name]:
            yield instruction
            if instruction.kind in ("while", "call", "conditional"):
                called = r"\b(?:to_apply|body|calls)=%?([\w.-]+)"
                names += re.findall(called, instruction.line)


def operation(line: str) -> str:
    """The name that XLA has for an instruction; "" if it has none."""
    found = re.search(r'op_name="([^"]*)"', line)
    return found[1] if found else ""
