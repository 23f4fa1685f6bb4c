"""Questions over Python functions: the standard library's docstrings, asked of its sources."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from llama_index.tuning import RetrievalDataset

SKIPPED = ("test", "site-packages", "idlelib", "lib2to3")


def code_questions(
    documents: int = 1200, questions: int = 800, seed: int = 0
) -> tuple[RetrievalDataset, RetrievalDataset]:
    """Two halves of the questions, over one corpus of functions without their docstrings.

    A question is a docstring's first sentence; the function it stood in answers it.
    """
    found: dict[str, str] = {}
    for question, source in _functions(Path(sysconfig.get_paths()["stdlib"])):
        found.setdefault(question, source)
    found = {question: source for source, question in {s: q for q, s in found.items()}.items()}
    rows = list(found.items())
    random.Random(seed).shuffle(rows)
    corpus = {f"f{i}": source for i, (_, source) in enumerate(rows[:documents])}

    def part(first: int, last: int) -> RetrievalDataset:
        numbers = range(first, min(last, len(corpus)))
        queries = {f"q{i}": rows[i][0] for i in numbers}
        return RetrievalDataset(queries, corpus, {f"q{i}": [f"f{i}"] for i in numbers})

    return part(0, questions // 2), part(questions // 2, questions)


def _functions(root: Path) -> Iterator[tuple[str, str]]:
    """First sentence of the docstring, and the source without it."""
    for path in sorted(root.rglob("*.py")):
        if any(part.startswith(SKIPPED) for part in path.relative_to(root).parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (UnicodeDecodeError, SyntaxError):  # samples of bad sources lie in the library
            continue
        lines = text.splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            said = ast.get_docstring(node)
            if not said or len(node.body) < 2:
                continue
            question = " ".join(re.split(r"(?<=[.!?])\s|\n\s*\n", said.strip())[0].split())
            doc, last = node.body[0], node.end_lineno
            source = "\n".join(
                lines[node.lineno - 1 : doc.lineno - 1] + lines[doc.end_lineno : last]
            )
            if 5 <= len(question.split()) <= 25 and ">>>" not in question and len(source) > 80:
                yield question.rstrip("."), source
