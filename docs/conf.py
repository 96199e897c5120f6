"""Sphinx configuration. Warnings are errors and nothing is fetched from the network."""

import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

project = "hpc"
author = "the hpc developers"
copyright = author
release = version = version_of("hpc")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples/README*"]
nitpicky = False

napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
# In docstrings `name` is code: most of the names are explained by their own docstrings, not by a page.
default_role = "code"

html_theme = "furo"
html_title = f"hpc {release}"
html_show_sphinx = False


class CommandHelp(Directive):
    """``.. command-help:: ipcluster start`` includes what that command prints for ``--help``, as it is today."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return a title and a literal block."""
        program, *subcommand = self.arguments[0].split()
        done = subprocess.run(
            [sys.executable, "-m", f"hpc.cli.{program}", *subcommand, "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": str(Path(sys.executable).parent), "COLUMNS": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if done.returncode:
            raise self.error(f"{self.arguments[0]} --help failed:\n{done.stderr}")
        text = f"$ {self.arguments[0]} --help\n{done.stdout.rstrip()}"
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> None:
    """Register what this file defines."""
    app.add_directive("command-help", CommandHelp)
