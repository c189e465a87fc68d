"""Makes docs/notebooks of docs/tutorials: `make notebooks`, for Jupyter and Colab."""

from pathlib import Path

import jupytext
import nbformat

DOCS = Path(__file__).parent
PAGES = sorted((DOCS / "tutorials").glob("*.md"))
INSTALL = """\
# On Colab, or wherever the library isn't installed yet:
# %pip install "lookbehind-optax[examples]"
"""


def notebook(page: Path) -> str:
    """The text of a tutorial's notebook, which has no outputs."""
    pair = jupytext.read(page, fmt="md:myst")
    pair.cells.insert(1, nbformat.v4.new_code_cell(INSTALL.rstrip()))
    for number, cell in enumerate(pair.cells):
        cell.id = f"cell-{number}"  # by default another one each time
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    pair.metadata = nbformat.from_dict({"kernelspec": kernel})
    pair.nbformat, pair.nbformat_minor = 4, 5
    return nbformat.writes(pair) + "\n"


def path(page: Path) -> Path:
    """Where it is."""
    return DOCS / "notebooks" / f"{page.stem}.ipynb"


if __name__ == "__main__":
    for page in PAGES:
        path(page).write_text(notebook(page))
