"""How Sphinx builds the site: `make docs`, without a network."""

import os
from pathlib import Path
import re
import subprocess
import sys

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import lookbehind_optax

project = "lookbehind_optax"
author = "the lookbehind_optax authors"
project_copyright = author
release = version = lookbehind_optax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
default_role = "py:obj"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# A signature shows the names of arguments, and the text below it says what they are:
# their types, unions of JAX's own, would take half a page.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autosummary_imported_members = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 72

html_theme = "sphinx_book_theme"
html_title = "lookbehind_optax"
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_math_renderer = "mathml"

DOCS = Path(__file__).parent
PROGRAMS = ["images", "search", "translation", "lifelong", "federated"]


def write_flags(app):
    """What `--help` of each program says, for the page of the programs."""
    folder = DOCS / "reference" / "generated"
    folder.mkdir(exist_ok=True)
    plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "JAX_PLATFORMS": "cpu"}
    for name in PROGRAMS:
        command = [sys.executable, "-m", f"examples.{name}", "--help"]
        text = subprocess.check_output(command, cwd=DOCS.parent, env=plain, text=True)
        (folder / f"{name}.txt").write_text(text)


def link_to_repository(app, page, source):
    """Links to other files of the repository, until they have a public address.

    MyST copies such a file beside the page, but takes Markdown for a page of the site,
    and refuses folders, whose links become their text.
    """

    def link(found):
        path = (DOCS / page).parent / found["path"]
        if path.is_dir():
            return found["text"]
        if path.suffix == ".md" and DOCS not in path.resolve().parents:
            return f"{{download}}`{found['text']} <{found['path']}>`"
        return found[0]

    source[0] = re.sub(r"\[(?P<text>[^]]+)\]\((?P<path>\.\./[^)]+)\)", link, source[0])


def visit_math(writer, node):
    """Writes a formula as MathML, which browsers show without a script."""
    is_block = isinstance(node, nodes.math_block)
    writer.body.append(tex2mathml(node.astext(), as_block=is_block))
    raise nodes.SkipNode


def setup(app):
    """Adds the parts above."""
    app.connect("builder-inited", write_flags)
    app.connect("source-read", link_to_repository)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
