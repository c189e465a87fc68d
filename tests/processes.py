"""Programs run as a user runs them."""

import subprocess
import sys


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """`python -m` with these arguments, in a process of its own."""
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)
