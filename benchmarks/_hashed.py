"""An embedding that costs next to nothing, in a module that workers can import."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding


class HashedWords(BaseEmbedding):
    """Word counts hashed into a few numbers: as cheap as an embedding gets."""

    dim: int = 64

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(n_features=self.dim).transform(texts).toarray().tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)
