"""What pages share: pictures that follow the reader's colours, the changelog, and llms.txt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PICTURE = re.compile(r"^!\[([^\]]*)\]\((?:\.\./)*pictures/([\w-]+\.svg)\)$", re.M)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the changelog as it stands in the repository, and llms.txt."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    meta = "---\ndescription: What changed for users, newest first.\n---\n"
    files.append(File.generated(config, "changelog.md", content=meta + changelog))
    described = {file.src_uri: description(_text(file)) for file in files.documentation_pages()}
    text = llms_txt(config["nav"], described, config["site_url"], config["site_description"])
    files.append(File.generated(config, "llms.txt", content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Pictures are put into the page itself, so that they are dark where the page is."""
    return PICTURE.sub(lambda found: picture(found[2], found[1]), markdown)


def picture(name: str, said: str) -> str:
    """The drawing as HTML, with `said` for readers who do not see it."""
    drawn = (ROOT / "docs" / "pictures" / name).read_text(encoding="utf-8")
    drawn = re.sub(r"\s*\n\s*", " ", drawn).strip()
    return f'<figure class="drawing" role="img" aria-label="{said}">{drawn}</figure>'


def description(text: str) -> str:
    """The line `description:` of a page's front matter.

    Raises:
        ValueError: the page has none.
    """
    found = re.match(r"---\n(?:.*\n)*?description: (.+)\n(?:.*\n)*?---\n", text)
    if not found:
        raise ValueError(f"a page has no `description:` on top: {text[:60]!r}")
    return found[1]


def llms_txt(nav: list[Any], described: dict[str, str], url: str, about: str) -> str:
    """The site's pages for language models: a link and a line each, in the order of the menu."""
    sections: dict[str, list[str]] = {}
    for section, title, path in _entries(nav, "Pages"):
        line = f"- [{title}]({url}{_address(path)}): {described[path]}"
        sections.setdefault(section, []).append(line)
    parts = [f"## {section}\n\n" + "\n".join(lines) for section, lines in sections.items()]
    return "\n\n".join(["# llama-index-tuning", f"> {about}", *parts]) + "\n"


def _entries(nav: list[Any], section: str) -> Iterator[tuple[str, str, str]]:
    for entry in nav:
        [(title, below)] = entry.items()
        if isinstance(below, list):
            yield from _entries(below, title)
        else:
            yield section, title, below


def _address(path: str) -> str:
    return re.sub(r"(^|/)index/$", r"\1", path.removesuffix(".md") + "/")


def _text(file: File) -> str:
    return file.content_string
