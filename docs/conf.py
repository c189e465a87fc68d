"""How Sphinx builds the site: `make docs`, without a network."""

import os
from pathlib import Path
import re
import subprocess
import sys
import textwrap

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import lookbehind_optax

project = "lookbehind_optax"
author = "the lookbehind_optax authors"
project_copyright = author
release = version = lookbehind_optax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
default_role = "py:obj"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["notebooks"]  # the tutorials once more, for Jupyter

# The tutorials are notebooks. The build runs them; a cell that fails stops it.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

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
    "footer_content_items": ["copyright.html"],
    "navbar_persistent": [],
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]

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
        lines = (
            line if len(line) <= 80 else textwrap.fill(line, 80)
            for line in text.splitlines()
        )
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


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


def complete_tutorials(app, page, source):
    """Adds a hidden cell, for figures to be pictures, and a link to the notebook."""
    if not page.startswith("tutorials/"):
        return
    cell = "```{code-cell} python\n:tags: [remove-cell]\n%matplotlib inline\n```\n"
    link = f"{{download}}`Notebook <../notebooks/{Path(page).name}.ipynb>`"
    title = r"\n(# .*\n)"
    text = rf"\n{cell}\n\1\n{link} for Jupyter and Colab\n"
    source[0] = re.sub(title, text, source[0], count=1)


def visit_math(writer, node):
    """Writes a formula as MathML, which browsers show without a script."""
    if isinstance(node, nodes.math_block):
        formula = tex2mathml(node.astext(), as_block=True)
        writer.body.append(f'<div class="formula">{formula}</div>')
    else:
        writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def setup(app):
    """Adds the parts above."""
    app.connect("builder-inited", write_flags)
    app.connect("source-read", link_to_repository)
    app.connect("source-read", complete_tutorials)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
