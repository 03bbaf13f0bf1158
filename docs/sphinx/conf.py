"""Sphinx's settings for the documentation site, which `scripts/docs` builds; the pages are plain Markdown."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, get_origin

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import neuropil

sys.path.insert(0, str(Path(__file__).parent))
from navigation import navigation

project = "neuropil"
author = "The neuropil developers"
release = neuropil.__version__
html_title = f"neuropil {release}"
root_doc = "docs/index"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["docs/sphinx", "changes/[0-9]*"]
myst_heading_anchors = 4
highlight_language = "none"  # what is indented only: commands and what they print
default_role = "code"  # `name` in docstrings

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "NDArray": "NDArray"}  # as written, not what they stand for
add_module_names = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # they stand in the signature, and `np.bool_` would be a link
python_maximum_signature_line_length = 90
python_display_short_literal_types = True

html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["neuropil.css"]
html_show_sourcelink = False
html_show_copyright = False
html_extra_path = [str(Path(__file__).parent / "extra")]
html_theme_options = {"top_of_page_buttons": []}


def _add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == root_doc:
        source[0] += f"\n\n{navigation(source[0], PurePosixPath(docname).parent)}\n"


def _skip_annotated(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool:
    """Leave out aliases of annotated types, which show the docstring of `Annotated`."""
    return skip or get_origin(thing) is Annotated


def _unlink_fields(app: Sphinx, doctree: nodes.document) -> None:
    """Make bare lower-case words of fields plain text; they would be links to any attribute of that name anywhere."""
    for link in list(doctree.findall(pending_xref)):
        if link.get("reftype") in ("obj", "class") and link["reftarget"].islower() and "." not in link["reftarget"]:
            link.replace_self(link.children)


def _math(translator: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw by themselves; Sphinx's own ways load a script or need LaTeX."""
    inline = isinstance(node, nodes.math)
    translator.body.append(tex2mathml(node.astext(), as_block=not inline))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("source-read", _add_navigation)
    app.connect("autodoc-skip-member", _skip_annotated)
    app.connect("doctree-read", _unlink_fields)
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
