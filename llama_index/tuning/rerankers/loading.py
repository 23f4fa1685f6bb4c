"""A saved re-ranker, whichever it is."""

from __future__ import annotations

from typing import Any

from llama_index.tuning._checks import plain_arguments
from llama_index.tuning.artifacts import PathLike, load_component
from llama_index.tuning.rerankers.cross import model as tuned
from llama_index.tuning.rerankers.cross.model import TunedReranker
from llama_index.tuning.rerankers.light import model as light
from llama_index.tuning.rerankers.light.model import LightReranker

LOADERS = {
    light.KIND: "llama_index.tuning.rerankers.light.model:LightReranker.load",
    tuned.KIND: "llama_index.tuning.rerankers.cross.model:TunedReranker.load",
}


@plain_arguments
def load_reranker(path: PathLike, **arguments: Any) -> LightReranker | TunedReranker:
    """Load what an engine's re-ranker saved: light, or a cross-encoder.

    Args:
        path: the folder.
        **arguments: those of the re-ranker's constructor, such as `top_n`.

    Raises:
        ArtifactError: no re-ranker of this package, or a damaged one.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> LightReranker().save(folder)
        >>> load_reranker(folder, top_n=5).top_n
        5
    """
    reranker: LightReranker | TunedReranker = load_component(path, LOADERS, **arguments)
    return reranker
