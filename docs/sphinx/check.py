"""Check a built site: python docs/sphinx/check.py FOLDER.

Every link between its pages must lead to a file and an anchor that are there, and no page may load anything (script,
style, font, picture) from outside the folder, so that it works without a network and tells nobody who reads it.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "embed": "src",
    "object": "data",
}
HARMLESS = {"canonical", "author", "license", "index", "search", "next", "prev", "genindex"}
"""Relations of a <link> that make a browser load nothing."""


class Page(HTMLParser):
    """What one page links to, what it loads and which anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        elif tag in LOADED and LOADED[tag] in known and known.get("rel") not in HARMLESS:
            self.loaded.append(known[LOADED[tag]])


def main(site: Path) -> int:
    """Print what is wrong and return how many things are."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    wrong = [f"{path}: {problem}" for path, page in pages.items() for problem in _problems(path, page, pages)]
    for style in sorted(site.rglob("*.css")):
        found = re.findall(r"(?:url\(|@import )[\"' ]*((?:https?:)?//[^\"')]+)", style.read_text())
        wrong += [f"{style}: loads {one}" for one in found]
    print("\n".join([*wrong, f"{site}: {len(pages)} pages, {len(wrong)} problems"]))
    return len(wrong)


def _problems(path: Path, page: Page, pages: dict[Path, Page]) -> list[str]:
    wrong = []
    for target in [*page.links, *page.loaded]:
        parts = urlsplit(target)
        if parts.scheme == "data" or (target in page.links and (parts.scheme or parts.netloc)):
            continue
        if parts.scheme or parts.netloc:
            wrong.append(f"loads {target}")
            continue
        there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not there.exists():
            wrong.append(f"links to {target}, which is not there")
        elif there in pages and unquote(parts.fragment) not in pages[there].anchors:
            wrong.append(f"links to {target}, which has no such anchor")
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]))))
