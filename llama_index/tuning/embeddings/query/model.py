"""The embedding model that an app uses: one encoder for questions, another for documents."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager

from llama_index.tuning import artifacts
from llama_index.tuning._checks import of_type
from llama_index.tuning.embeddings.over_base import answering, direct, given_base, without_spans
from llama_index.tuning.errors import ArtifactError, MissingExtraError
from llama_index.tuning.vectors.identity import base_name, check_signature
from llama_index.tuning.vectors.learned import Answers, Learned

logger = logging.getLogger(__name__)

KIND = "query_encoder"
Vector = list[float]


class QueryEncoderEmbeddingModel(BaseEmbedding):
    """A `BaseEmbedding` that embeds questions by a tuned model and documents by the base.

    What the base has stored stays as it is, and what is added through this model is embedded by the
    base too. Goes wherever an embedding model goes.

    Args:
        base_embed_model: the model that the stored vectors are of.
        encoder_path: folder of a tuned query encoder.
        device: that the query encoder runs on; a GPU by default, if there is one.
        embed_batch_size: documents a call; the base's by default.
        callback_manager: the base's by default.
        num_workers: concurrent calls of async batches; the base's by default.

    Raises:
        ArtifactError: no query encoder, a damaged one, or one that was tuned for another model.
        MissingExtraError: sentence-transformers is not installed.

    Example:
        >>> from llama_index.core import Settings
        >>> embed_model = QueryEncoderEmbeddingModel(
        ...     Settings.embed_model, "tuned_query_encoder"
        ... )  # doctest: +SKIP
        >>> retriever = index.as_retriever(embed_model=embed_model)  # doctest: +SKIP
    """

    encoder_path: str = Field(description="The query encoder's folder; empty for one in memory.")
    encoder_fingerprint: str = Field(description="Changes with the query encoder's weights.")
    base_model_name: str = Field(description="Name of the base embedding model.")

    _base: BaseEmbedding = PrivateAttr()
    _encoder: Any = PrivateAttr()
    _answers: Answers = PrivateAttr()
    _learned: Learned | None = PrivateAttr()
    _config: dict[str, Any] = PrivateAttr()

    def __init__(
        self,
        base_embed_model: BaseEmbedding,
        encoder_path: artifacts.PathLike,
        *,
        device: str | None = None,
        embed_batch_size: int | None = None,
        callback_manager: CallbackManager | None = None,
        num_workers: int | None = None,
    ) -> None:
        base = of_type("base_embed_model", base_embed_model, BaseEmbedding, "a BaseEmbedding")
        path = str(encoder_path)
        config = artifacts.read_config(encoder_path, KIND)
        try:
            prompt, fingerprint = config["query_prompt"], config["fingerprint"]
            signature = config["signature"]
        except KeyError as exc:
            raise ArtifactError(f"{path}: {artifacts.CONFIG} lacks {exc}") from None
        artifacts.check_intact(path)
        check_signature(base, signature, f"the query encoder {path}")
        super().__init__(
            model_name=f"Query encoder for {base.model_name}",
            embed_batch_size=embed_batch_size or base.embed_batch_size,
            callback_manager=callback_manager or base.callback_manager,
            num_workers=num_workers or base.num_workers,
            encoder_path=path,
            encoder_fingerprint=fingerprint,
            base_model_name=base.model_name,
        )
        self._base, self._answers, self._config = base, Answers(), config
        self._encoder = _loaded(path, prompt, device)
        self._learned = Learned.read(Path(path), f"the query encoder {path}")
        if config.get("accepted") is False:
            logger.warning(
                "%s: the gate had kept the base model: %s",
                path,
                config.get("reason", "no reason recorded"),
            )

    @classmethod
    def class_name(cls) -> str:
        return "QueryEncoderEmbeddingModel"

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        yield "base", base_name(self._base)
        if self.encoder_path:
            yield "path", self.encoder_path

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> QueryEncoderEmbeddingModel:
        """From `to_dict()`; the base model may hold keys, so it is given again.

        Args:
            data: what `to_dict()` gave.
            **kwargs: `base_embed_model`, and `device`.

        Raises:
            ArtifactError: the folder holds another query encoder by now, or there is none.
        """
        base, device = given_base(kwargs, "device")
        if not data.get("encoder_path"):
            raise ArtifactError("the model was never saved: its query encoder has no folder")
        model = cls(
            base,
            data["encoder_path"],
            device=device,
            embed_batch_size=data.get("embed_batch_size"),
            num_workers=data.get("num_workers"),
        )
        if model.encoder_fingerprint != data.get("encoder_fingerprint"):
            raise ArtifactError(f"{data['encoder_path']} holds another query encoder by now")
        return model

    @property
    def base_embed_model(self) -> BaseEmbedding:
        """The model that embeds documents."""
        return self._base

    @property
    def fingerprint(self) -> str:
        """The query encoder's fingerprint."""
        return self.encoder_fingerprint

    @property
    def learned(self) -> Learned | None:
        """The questions that the query encoder has learnt."""
        return self._learned

    @contextlib.contextmanager
    def answering(self, vectors: Mapping[str, Vector]) -> Iterator[set[str]]:
        """Within the block, these questions have these vectors.

        Args:
            vectors: question → its vector, as it goes to the vector store.

        Yields:
            The questions that were asked so far.
        """
        with answering(self, self._answers, vectors) as asked:
            yield asked

    def save(self, path: artifacts.PathLike) -> None:
        """Save the query encoder; load it with `QueryEncoderEmbeddingModel(base, path)`."""
        with artifacts.replacing_folder(path) as folder:
            write_encoder(folder, self._encoder._model, self._config, self._learned)

    def _get_query_embedding(self, query: str) -> Vector:
        if query in self._answers:
            return self._answers.to(query)
        return self._encoder._get_query_embedding(query)  # type: ignore[no-any-return]

    async def _aget_query_embedding(self, query: str) -> Vector:
        if query in self._answers:
            return self._answers.to(query)
        return await self._encoder._aget_query_embedding(query)  # type: ignore[no-any-return]

    def _get_text_embedding(self, text: str) -> Vector:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Vector:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Vector]:
        base = self._base
        embed = base._get_text_embeddings if direct(base) else base.get_text_embedding_batch
        return embed(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Vector]:
        base = self._base
        embed = base._aget_text_embeddings if direct(base) else base.aget_text_embedding_batch
        return await embed(texts)


def write_encoder(
    folder: Path, model: Any, config: Mapping[str, Any], learned: Learned | None
) -> None:
    """Write a query encoder's files into a folder that exists.

    Args:
        folder: where.
        model: the SentenceTransformer that embeds questions.
        config: what `tuning.json` says.
        learned: the questions that it has learnt.
    """
    own = {key: it for key, it in config.items() if key not in ("format", "kind", "version")}
    artifacts.write_component(folder, KIND, own, {}, "")
    model.save_pretrained(str(folder), create_model_card=False)
    artifacts.write_card(
        folder, _card(own), "sentence-transformers", pipeline_tag="sentence-similarity"
    )
    if learned is not None:
        learned.write(folder)


def _loaded(path: str, prompt: str, device: str | None) -> Any:
    """The query encoder, as LlamaIndex runs a sentence-transformers model."""
    try:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    except ImportError as exc:
        raise MissingExtraError(
            "QueryEncoderEmbeddingModel", "sentence-transformers", "sentence-transformers"
        ) from exc
    try:
        return HuggingFaceEmbedding(path, query_instruction=prompt or None, device=device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as exc:
        raise ArtifactError(f"{path} holds no query encoder that can be loaded: {exc}") from exc


def _card(config: Mapping[str, Any]) -> str:
    base = config.get("base_model", "?")
    return f"""# Query encoder

Embeds questions for stored vectors of `{base}`; documents stay with that model.

{config.get("reason", "")}

```python
from llama_index.tuning import QueryEncoderEmbeddingModel

embed_model = QueryEncoderEmbeddingModel(base_embed_model, "this/folder")
```

Written by llama-index-tuning; `tuning.json` holds options, data fingerprint and versions.
"""


without_spans(QueryEncoderEmbeddingModel)
