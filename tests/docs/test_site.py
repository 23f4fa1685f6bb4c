"""The site: every page is in the menu and in llms.txt, links hold, what is quoted is there."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from llama_index.tuning.cli.app import GROUPS, run

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PROJECT = "https://github.com/llama-index-tuning/llama-index-tuning"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def hook(name):
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location(f"_site_{name}", DOCS / "_site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def menu(entries=CONFIG["nav"]):
    for entry in entries:
        for below in entry.values():
            yield from menu(below) if isinstance(below, list) else [below]


def written():
    return {str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md")}


def test_the_menu_has_every_page_once():
    api = hook("api_reference")
    made = {f"reference/{name}.md" for name in api.pages()} | {"reference/cli.md", "changelog.md"}
    assert sorted(menu()) == sorted(written() | made)


def test_llms_txt_names_every_page_with_a_line_of_its_own():
    pages = hook("pages")
    described = {path: f"about {path}" for path in menu()}
    for path in written():
        described[path] = pages.description((DOCS / path).read_text(encoding="utf-8"))
    text = pages.llms_txt(CONFIG["nav"], described, "https://here/", "What it is.")
    assert all(f"): {said}\n" in text for said in described.values())
    assert "](https://here/): " in text
    assert "](https://here/engines/adapters/): " in text


def test_the_reference_has_every_public_name():
    api = hook("api_reference")
    pages = api.pages()
    rooms = {path.parent.name for path in api.ROOT.glob("*/__init__.pyi")}
    assert {room for rooms_of in api.ROOMS.values() for room in rooms_of} == rooms
    for page, shown in api.ROOMS.items():
        for room in shown:
            assert all(f".{name}\n" in pages[page] for name in api.public(room))
    assert all(f"`{name}`" in pages["index"] for name in api.public(""))


def test_the_command_lines_page_has_every_command_and_option(capsys):
    page = hook("cli_reference").page()
    for words in (["demo"], ["adapter", "tune"], ["llm", "jobs", "create"]):
        assert run([*words, "--help"]) == 0
        section = page.split(f" {' '.join(words)}\n", 1)[1].split("\n## ")[0].split("\n### ")[0]
        options = set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out)) - {"--help"}
        assert options
        assert [option for option in options if option not in section] == []
    assert [name for name in GROUPS if f"\n## {name}\n" not in page] == []


def test_links_of_the_readme_are_whole_and_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []
    for link in links:
        if not link.startswith(PROJECT):
            continue
        path, _, anchor = link.removeprefix(PROJECT).partition("#")
        file = ROOT / re.sub(r"^/(blob|tree|raw)/main/", "", path)
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file), link


def anchors(page):
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_errors_that_troubleshooting_quotes_are_those_of_the_package():
    quoted = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M)
    said = {
        node.value
        for file in (ROOT / "llama_index" / "tuning").glob("**/*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(quoted) > 15
    for text in quoted:
        for part in filter(None, (part.strip(" ;:,()'") for part in text.split("…"))):
            assert any(part in one for one in said), f"no error says {part!r}"


@pytest.mark.parametrize("picture", sorted(DOCS.glob("pictures/*.svg")), ids=lambda p: p.name)
def test_drawings_are_used_and_say_what_they_show(picture):
    text = picture.read_text(encoding="utf-8")
    assert re.search(r"<title>\w.+</title>", text)
    assert "prefers-color-scheme: dark" in text
    used = [page for page in written() if f"pictures/{picture.name}" in (DOCS / page).read_text()]
    assert used
