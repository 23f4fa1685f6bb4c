"""Passages of a folder of documents, with ids that are the same in every process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.tuning.datasets._files import PathLike
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.calls import check_counts

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode, Document

_PLAIN = (".txt", ".md", ".markdown", ".rst", ".text", "")


def read_passages(
    path: PathLike, *, chunk_size: int = 512, chunk_overlap: int = 0
) -> list[BaseNode]:
    """The passages of a file or folder, ready to generate questions for and to index.

    Args:
        path: a file, or a folder that is read with its subfolders; hidden files are left out.
            Text and Markdown are read as they are, other kinds by `SimpleDirectoryReader`.
        chunk_size: tokens of a passage.
        chunk_overlap: tokens that neighbours share.

    Returns:
        Nodes with ids like `guide/fees.md#2`, so that a run started again finds its nodes.

    Raises:
        DatasetError: there is no text.
    """
    from llama_index.core.node_parser import SentenceSplitter

    check_counts(chunk_size=chunk_size)
    if not 0 <= chunk_overlap < chunk_size:
        raise ValueError(
            f"chunk_overlap must be from 0 to below chunk_size, got {chunk_overlap} of {chunk_size}"
        )
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"{path} does not exist")
    documents = [
        document
        for file in _files(root)
        for document in _read(file, file.name if root.is_file() else str(file.relative_to(root)))
    ]
    splitter = SentenceSplitter(
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        include_metadata=False,
        id_func=lambda number, document: f"{document.node_id}#{number}",
    )
    nodes = [n for n in splitter.get_nodes_from_documents(documents) if n.get_content().strip()]
    if not nodes:
        raise DatasetError(f"{path} holds no text in {len(documents)} documents")
    return nodes


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _read(file: Path, name: str) -> list[Document]:
    from llama_index.core import Document, SimpleDirectoryReader

    name = name.replace(os.sep, "/")
    if file.suffix.lower() in _PLAIN:
        try:
            return [Document(id_=name, text=file.read_text(encoding="utf-8-sig"))]
        except UnicodeDecodeError as exc:
            raise DatasetError(f"{file} is not UTF-8 text: {exc.reason}") from exc
    parts = SimpleDirectoryReader(input_files=[file], raise_on_error=True).load_data()
    for number, part in enumerate(parts):
        part.id_ = f"{name}/{number}"
        part.metadata = {}
    return parts
