"""The site: built by `make docs`, from the pages of this folder, the docstrings, the parser and the types."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import ClassVar

import msgspec
from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

project = "segment-fetch"
release = metadata.version("segment-fetch")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxarg.ext", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "segment-fetch"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

smartquotes = False  # an option begins with two hyphens
default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True}
autodoc_preserve_defaults = True

# autodoc sees only names that are in a module already, and these modules import theirs at the first use.
for lazy in ("segment_fetch", *(f"segment_fetch.{name}" for name in ("sinks", "analysis", "simulator", "testing"))):
    module = import_module(lazy)
    vars(module).update({name: getattr(module, name) for name in module.__all__})


class JsonSchema(SphinxDirective):
    """Shows the JSON schema of a type, which its dotted name says, as msgspec derives it."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        schema = msgspec.json.schema(getattr(import_module(module), name))
        text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
        block = nodes.literal_block(text, text)
        block["language"] = "json"
        return [block]


def setup(app: Sphinx) -> None:
    app.add_directive("json-schema", JsonSchema)
    app.add_lexer("cron", TextLexer)
