"""The documentation site: these pages, and the READMEs of the repository, with Sphinx, MyST and Furo.

It asks no other host for anything and has no script or style sheet within a page, so it works offline and under
``Content-Security-Policy: default-src 'self'; img-src 'self' data:``.
"""

import sys
from pathlib import Path

import oneiric

sys.path.append(str(Path(__file__).parent))

project = "Oneiric"
version = release = oneiric.__version__
html_title = f"Oneiric {release}"
html_show_copyright = False

extensions = ["myst_parser", "_site"]
myst_heading_anchors = 6
templates_path = ["_templates"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_domain_indices = html_use_index = False
pygments_style, pygments_dark_style = "tango", "github-dark"
