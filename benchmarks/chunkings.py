"""Which chunk size finds Python's language reference best: `compare_chunkings` on 637 questions.

    python benchmarks/chunkings.py [--sizes 256 128 512] [--cache vectors.sqlite]

The questions were written for the demo, each with the words of the reference that answer it.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pydoc_data.topics import topics

from _data import arguments
from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter

from llama_index.tuning import compare_chunkings
from llama_index.tuning.demo import minilm
from llama_index.tuning.demo.reference import QUESTIONS


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 128, 512])
    given = parser.parse_args()
    given.cache.parent.mkdir(parents=True, exist_ok=True)
    documents = [Document(id_=name, text=text) for name, text in sorted(topics.items())]
    splitters = [SentenceSplitter(chunk_size=size, chunk_overlap=40) for size in given.sizes]
    lines = files("llama_index.tuning.demo").joinpath(QUESTIONS).read_text("utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    asked = [{"question": row["question"], "passage": row["quote"]} for row in written]
    found = compare_chunkings(
        documents, splitters, asked, embed_model=minilm(), vector_cache=given.cache
    )
    print(found)


if __name__ == "__main__":
    main()
