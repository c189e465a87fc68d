"""How results are kept: all numbers as JSON, a table as Markdown, a picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from examples.provenance import provenance


def save(
    folder: Path, name: str, results: dict[str, Any], table: str, figure: Any
) -> None:
    """Writes all three, prints the table, and says where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**provenance(), **results}, indent=1) + "\n"
    (folder / f"{name}.json").write_text(text)
    (folder / f"{name}.md").write_text(table + "\n")
    figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"{table}\n\nIt is in {folder / name}.md, with .json and .png beside it.")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: np.ndarray) -> str:
    """Mean and standard deviation, where there are several."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}"
