"""What the site needs beyond MyST: links between pages as a code host has them, and lexers.

A link to a Markdown file leads to the page that is or includes it, one to a directory to the page of its README. What
else there is in the repository is named and no link, but a file beside our own pages, which is offered for download.
"""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from pygments.lexer import RegexLexer
from pygments.lexers.shell import BashSessionLexer
from pygments.token import Comment, Name, Number, Operator, String, Text
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class Links(SphinxPostTransform):
    """Point links that lead out of the site to the page that shows what they name; runs before MyST resolves them."""

    default_priority = 8

    def run(self, **_: Any) -> None:
        """Look at every link of one page."""
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link["reftype"] != "myst" or link.source is None:  # without a source it is an anchor in this page
                continue
            path, _, anchor = link["reftarget"].partition("#")
            if link["refdomain"] == "doc":  # MyST found this beside the page, which may not be beside what it includes
                here = (self.env.srcdir / link["refdoc"]).parent
                path, anchor = os.path.relpath(self.env.srcdir / f"{path}.md", here), link["reftargetid"]
            target = (Path(link.source).parent / path).resolve()
            page = self.shown.get(target) or self.shown.get(target / "README.md")
            if page is not None:
                link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", page, anchor
            elif target.exists():
                link.replace_self(link.children)

    @cached_property
    def shown(self) -> dict[Path, str]:
        """The Markdown files that the site shows, each with its page."""
        included = {
            (self.env.srcdir / file).resolve(): page for page, files in self.env.dependencies.items() for file in files
        }
        return included | {Path(self.env.doc2path(page)).resolve(): page for page in self.env.all_docs}


class Query(RegexLexer):
    """PromQL and LogQL, as far as colours go."""

    name = "Query"
    tokens = {
        "root": [
            (r"#.*", Comment),
            (r'"(?:\\.|[^"\\])*"|`[^`]*`', String),
            (r"\d[\w.]*", Number),
            (r"[A-Za-z_][\w:]*(?=\s*\()", Name.Function),
            (r"[A-Za-z_][\w:]*", Name),
            (r"\s+", Text),
            (r".", Operator),
        ]
    }


class Session(BashSessionLexer):
    """What is typed behind ``$``, and what answers; a line that begins with ``#`` is no prompt of root's."""

    _ps1rgx = re.compile(r"^(\$ )(.*\n?)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it."""
    app.add_post_transform(Links)
    for language in ("promql", "logql"):
        app.add_lexer(language, Query)
    app.add_lexer("console", Session)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
