"""The side bar of the site: it follows the links of docs/index.md, heading by heading.

A how-to page that the index does not link to yet is added at the end. A page that is in no table of contents at all
stops the build, as all of Sphinx's warnings do.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

HOWTOS, REFERENCE = "How to", "Reference"
FROM_CODE = ("api/commands", "api/index", "api/changes")
"""Pages that api.py writes."""
TITLES = {"README": "Cookbook", "changes/README": "How changes are noted"}
"""Names in the side bar of pages whose own titles suit another place."""


def navigation(index: str, at: PurePosixPath) -> str:
    """Return hidden tables of contents, one per heading of the index page, with the pages that it links to.

    Parameters
    ----------
    index
        The page in Markdown.
    at
        The folder it lies in.
    """
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)
    tables = []
    for title, text in zip(parts[1::2], parts[2::2]):
        found = [_clean(at / link) for link in re.findall(r"\]\(([^)#]+)\.md\)", text)]
        pages = [f"{TITLES[page]} </{page}>" if page in TITLES else f"/{page}" for page in dict.fromkeys(found)]
        if title == HOWTOS:
            pages.append(f"/{at}/howto/*")
        if title == REFERENCE:
            pages += [f"/{at}/{page}" for page in FROM_CODE]
        tables.append("\n".join(["```{toctree}", ":hidden:", ":glob:", f":caption: {title}", "", *pages, "```"]))
    return "\n\n".join(tables)


def _clean(path: PurePosixPath) -> str:
    """Return a path without `..`."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
