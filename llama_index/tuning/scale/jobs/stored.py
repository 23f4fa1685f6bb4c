"""An index as a folder: its nodes' texts and the vectors that are stored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.tuning._checks import check_counts
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.errors import VectorError
from llama_index.tuning.scale.folder import OutputFolder
from llama_index.tuning.scale.job import Counts
from llama_index.tuning.scale.jobs.embed import vector_lists
from llama_index.tuning.scale.run import FolderReport, alone
from llama_index.tuning.scale.shards import file_system, typed_table
from llama_index.tuning.vectors.indexed import index_node_ids, own_nodes
from llama_index.tuning.vectors.stores import StoredVectors, open_store


@own_work
def index_to_folder(index: Any, output: PathLike, *, rows_per_shard: int = 4096) -> FolderReport:
    """Write `id`, `text` and `vector` of all nodes of an index, for the other functions here.

    One shard is in memory at a time, beside the ids. Called again after an error or a kill, it goes
    on with the shards that are missing, as long as the index has the same ids.

    Args:
        index: LlamaIndex's, over the simple store, Chroma, Qdrant or another that lists its nodes.
        output: the folder that is written; a path, or a URL that fsspec knows.
        rows_per_shard: nodes in a file.

    Raises:
        StoreError: the store does not give its nodes or vectors back.
        RunFileError: the folder holds something else, or another index.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(text=text) for text in ("The fee is 5 euros.", "It opens at nine.")]
        >>> index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = index_to_folder(index, f"{folder}/passages")
        >>> report.written
        2
    """
    started = time.monotonic()
    check_counts(rows_per_shard=rows_per_shard)
    ids, store = index_node_ids(index), open_store(index)
    folder = OutputFolder(*file_system("output", output))
    header = {
        "task": "index",
        "source": store.fingerprint,
        "ids": hashlib.sha256("\0".join(ids).encode()).hexdigest()[:16],
        "rows_per_shard": rows_per_shard,
    }
    starts = range(0, len(ids), rows_per_shard)
    with alone(folder):
        folder.begin(header)
        done = folder.done()
        for number, start in enumerate(starts):
            if number not in done:
                page = ids[start : start + rows_per_shard]
                table, failures = _page(index, store, page)
                folder.write(number, table, failures, len(page))
        counts = [Counts(*folder.counts(number)) for number in range(len(starts))]
    return FolderReport.of(output, counts, resumed=len(done), started=started)


def _page(index: Any, store: StoredVectors, ids: Sequence[str]) -> tuple[Any, list[Failure]]:
    """The nodes that have a vector, and the others."""
    from llama_index.core.schema import MetadataMode

    found, matrix = store.get(ids)
    without = sorted(set(ids) - set(found))
    error = VectorError(f"{store.name} holds no vector of it")
    texts: Mapping[str, str] = {
        node.node_id: node.get_content(MetadataMode.EMBED) for node in own_nodes(index, found)
    }
    rows = [{"id": id_, "text": texts[id_]} for id_ in found]
    table = typed_table(rows, {"id": "string", "text": "string"})
    return table.append_column("vector", vector_lists([matrix])), [
        Failure.of(id_, "read", error, 1) for id_ in without
    ]
