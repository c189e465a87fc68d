"""What a benchmark is told is checked before its work, which may take hours.

Each check ends the program with a line that names the option, what came, and what
should have.
"""

from collections.abc import Iterable
from pathlib import Path
import sys
import tempfile


def at_least(minimum: int, **told: int | Iterable[int] | None) -> None:
    """That each option's number, or each of its numbers, isn't below a minimum."""
    for option, value in told.items():
        for number in value if isinstance(value, Iterable) else (value,):
            if number is not None and number < minimum:
                name = option.replace("_", "-")
                sys.exit(f"Error: --{name} must be at least {minimum}; got {number}")


def among(names: Iterable[str], **told: Iterable[str]) -> None:
    """That each option names only what there is."""
    known = tuple(names)
    for option, values in told.items():
        for value in values:
            if value not in known:
                listed = ", ".join(known)
                sys.exit(f"Error: --{option} must be among {listed}; got {value}")


def writable(output: Path) -> Path:
    """The path of a JSON file that can be written, in a folder made if need be."""
    if output.suffix != ".json":  # the table or the picture might replace it
        sys.exit(f"Error: --output must end in .json; got {output}")
    if output.is_dir():
        sys.exit(f"Error: --output must be a file; {output} is a folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        folder = output.parent
        sys.exit(f"Error: --output: nothing can be written to {folder}: {error}")
    return output
