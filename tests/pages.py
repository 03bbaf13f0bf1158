"""What stands on the pages of the documentation: commands, TOML and Python."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "changes").glob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Every line of a code block that calls neuropil, as argv."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    lines = [*fenced, *re.findall(r"^ {4}(.*)$", text, re.M)]
    calls = [part.strip() for line in lines for part in line.removeprefix("$ ").split("&&")]
    return [shlex.split(call, comments=True)[1:] for call in calls if re.match(r"neuropil [a-z-]", call)]


def toml_files(page: Path) -> dict[str, str]:
    """TOML blocks whose first line is a comment with a file's name, those of the README included."""
    named = {}
    for one in (ROOT / "README.md", page):
        for block in blocks(one, "toml"):
            if match := re.match(r"# (\S+\.toml)\n", block):
                named[match[1]] = block
    return named
