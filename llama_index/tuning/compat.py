"""Our engines as the old package's: `import llama_index.tuning.compat` and `isinstance` holds.

For code that checks against `llama_index.finetuning`'s abstract base classes. It needs the extra
`[finetuning]`, which installs the old package with the pins that make it import. Its datasets are
taken by our engines without this.

Example:
    >>> import llama_index.tuning.compat  # doctest: +SKIP
    >>> from llama_index.finetuning.types import BaseEmbeddingFinetuneEngine  # doctest: +SKIP
"""

from __future__ import annotations

import warnings

from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.embeddings.adapter.engine import EmbeddingAdapterFinetuneEngine
from llama_index.tuning.embeddings.full.engine import SentenceTransformersFinetuneEngine
from llama_index.tuning.errors import MissingExtraError

try:
    with warnings.catch_warnings():
        # It says that it is deprecated; whoever imports this module knows.
        warnings.simplefilter("ignore", DeprecationWarning)
        from llama_index.finetuning.types import (
            BaseEmbeddingFinetuneEngine,
            BaseLLMFinetuneEngine as OldLLMFinetuneEngine,
        )
except ImportError as exc:
    raise MissingExtraError(
        "llama_index.tuning.compat", "a llama-index-finetuning that imports", "finetuning"
    ) from exc

BaseEmbeddingFinetuneEngine.register(EmbeddingAdapterFinetuneEngine)
BaseEmbeddingFinetuneEngine.register(SentenceTransformersFinetuneEngine)
OldLLMFinetuneEngine.register(BaseLLMFinetuneEngine)
