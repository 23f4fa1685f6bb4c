"""The table of what tunes: each engine, what is loaded for it, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from llama_index.tuning.cli import common, models
from llama_index.tuning.cli.tune import Given, Tune


def _retrieval(given: Given) -> dict[str, Any]:
    """Training and validation data of a command on retrieval, over one corpus file if given."""
    from llama_index.tuning._files import read_json
    from llama_index.tuning.datasets import RetrievalDataset

    corpus, validation = given["corpus"], given["validation"]
    shared = read_json(corpus) if corpus else None
    return {
        "dataset": RetrievalDataset.load(given["data"], corpus=shared, split=given["split"]),
        "val_dataset": RetrievalDataset.load(validation, corpus=shared) if validation else None,
    }


def _unlabelled(given: Given) -> Any:
    from llama_index.tuning._files import read_json

    return read_json(given["unlabelled"]) if given["unlabelled"] else None


def _adapter(given: Given) -> dict[str, Any]:
    return {
        **_retrieval(given),
        "embed_model": models.embedding_model(given["model"]),
        "unlabelled": _unlabelled(given),
        "vector_cache": given["vector_cache"],
        "num_workers": given["num_workers"],
    }


def _full(given: Given) -> dict[str, Any]:
    return {**_query_encoder(given), "loss": given["loss"]}


def _query_encoder(given: Given) -> dict[str, Any]:
    names = ("batch_size", "epochs", "device", "vector_cache")
    return {
        **_retrieval(given),
        **{name: given[name] for name in names},
        "model_id": models.hugging_face_id(given["model"]),
        "resume_from_checkpoint": given["resume"],
        "unlabelled": _unlabelled(given),
    }


def _drift(given: Given) -> dict[str, Any]:
    from llama_index.tuning._files import read_json
    from llama_index.tuning.datasets import RetrievalDataset
    from llama_index.tuning.generate import read_passages

    texts, validation = given["texts"], given["validation"]
    return {
        "texts": read_json(texts) if texts.suffix == ".json" else read_passages(texts),
        "new_model": models.embedding_model(given["new"]),
        "old_model": models.embedding_model(given["old"]),
        "val_dataset": RetrievalDataset.load(validation, split=given["split"])
        if validation
        else None,
        "vector_cache": given["vector_cache"],
        "num_workers": given["num_workers"],
    }


def _reranker(given: Given) -> dict[str, Any]:
    from llama_index.tuning.cli.models import exact_retriever
    from llama_index.tuning.text.words import Analyzer

    found = _retrieval(given)
    fused = exact_retriever(
        found["dataset"],
        given["model"],
        given["depth"],
        given["vector_cache"],
        Analyzer(given["language"]),
        found["val_dataset"],
    )
    return {**found, "retriever": fused if given["bm25"] else fused.retriever}


def _cross_encoder(given: Given) -> dict[str, Any]:
    return {
        **_reranker(given),
        "model_id": models.hugging_face_id(given["cross_encoder"]),
        "batch_size": given["batch_size"],
        "epochs": given["epochs"],
    }


def _router(given: Given) -> dict[str, Any]:
    from llama_index.tuning.datasets import RoutingDataset

    dataset = RoutingDataset.load(given["data"], labels=given["labels"])
    validation = given["validation"]
    # A validation file of JSON Lines has the choices of the training data.
    labels = dataset.choices if validation and validation.suffix == ".jsonl" else None
    return {
        "dataset": dataset,
        "embed_model": models.embedding_model(given["model"]),
        "val_dataset": RoutingDataset.load(validation, labels=labels) if validation else None,
        "vector_cache": given["vector_cache"],
    }


def _judge(given: Given) -> dict[str, Any]:
    from llama_index.tuning.datasets import JudgmentDataset

    validation = given["validation"]
    return {
        "dataset": JudgmentDataset.from_jsonl(given["data"]),
        "embed_model": models.embedding_model_or_none(given["model"]),
        "val_dataset": JudgmentDataset.from_jsonl(validation) if validation else None,
        "vector_cache": given["vector_cache"],
    }


def _llm(given: Given) -> dict[str, Any]:
    from llama_index.tuning.datasets import ChatDataset

    validation = given["validation"]
    return {
        "dataset": ChatDataset.from_jsonl(given["data"]),
        "model_id": given["model"],
        "val_dataset": ChatDataset.from_jsonl(validation) if validation else None,
    }


def _out(what: str) -> tuple[Any, Any]:
    return (Path, typer.Option(..., help=f"Folder for {what} and its report."))


def _file(text: str) -> tuple[Any, Any]:
    return (Path | None, typer.Option(None, help=text, exists=True))


_RETRIEVAL: dict[str, tuple[Any, Any]] = {
    "data": (Path, common.RETRIEVAL_DATA),
    "model": (str, common.MODEL),
    "corpus": (Path | None, common.CORPUS),
    "split": (str, common.TRAIN_SPLIT),
    "validation": (Path | None, common.VALIDATION),
    "vector_cache": (Path | None, common.CACHE),
}


_UNLABELLED = _file("Corpus file whose sentences teach too, without labels.")


_CHECKPOINTS = "checkpoints are kept in {out}.checkpoints: the same command with --resume goes on"


ADAPTER = Tune(
    "tune",
    "Tune an adapter; the folder OUT loads with AdapterEmbeddingModel(base, OUT).",
    "embeddings.adapter.engine:EmbeddingAdapterFinetuneEngine",
    "embeddings.adapter.options:AdapterOptions",
    ("adapter", "side", "seed"),
    {
        **_RETRIEVAL,
        "out": _out("the tuned adapter"),
        "unlabelled": _UNLABELLED,
        "num_workers": (int, common.WORKERS),
    },
    _adapter,
    "adapter",
)


FULL = Tune(
    "tune",
    "Tune a sentence-transformers model; the folder OUT loads with HuggingFaceEmbedding(OUT).",
    "embeddings.full.engine:SentenceTransformersFinetuneEngine",
    "embeddings.full.options:SentenceTransformersOptions",
    (
        "learning_rate", "hard_negatives", "lora_rank", "matryoshka_dims", "merge", "max_length",
        "refit", "seed",
    ),
    {
        **_RETRIEVAL,
        "model": (str, typer.Option("minilm", help=models.TRAINED_HELP)),
        "out": _out("the tuned model"),
        "unlabelled": _UNLABELLED,
        "loss": (str, typer.Option("MultipleNegativesRankingLoss", help="Name of the loss.")),
        "epochs": (int, typer.Option(2, help="Passes over the training pairs.")),
        "batch_size": (int, typer.Option(16, help="Pairs in a step.")),
        "device": (str | None, typer.Option(None, help="Where to train; a GPU if there is one.")),
        "resume": (bool, common.RESUME),
    },
    _full,
    "model",
    _CHECKPOINTS,
    {"matryoshka_dims": "matryoshka"},
)  # fmt: skip


QUERY_ENCODER = Tune(
    "tune-queries",
    "Tune the query side alone; OUT loads with QueryEncoderEmbeddingModel(base, OUT).",
    "embeddings.query.engine:QueryEncoderFinetuneEngine",
    "embeddings.query.options:QueryEncoderOptions",
    (
        "learning_rates", "lora_rank", "merge", "folds", "max_documents", "max_length",
        "max_steps", "seed",
    ),
    {
        **_RETRIEVAL,
        "model": (str, typer.Option("minilm", help=models.TRAINED_HELP)),
        "out": _out("the tuned query encoder"),
        "unlabelled": _UNLABELLED,
        "epochs": (int, typer.Option(8, min=1, help="Passes over the questions, at most.")),
        "batch_size": (int, typer.Option(32, min=2, help="Questions in a step.")),
        "device": (str | None, typer.Option(None, help="Where to train; a GPU if there is one.")),
        "resume": (bool, common.RESUME),
    },
    _query_encoder,
    "query encoder",
    _CHECKPOINTS,
)  # fmt: skip


DRIFT = Tune(
    "drift",
    "Search the vectors of OLD with NEW; OUT loads with AdapterEmbeddingModel(new, OUT).",
    "embeddings.drift.engine:DriftAdapterFinetuneEngine",
    "embeddings.drift.options:DriftOptions",
    ("kind", "max_texts", "seed"),
    {
        "texts": (
            Path,
            typer.Argument(
                help="A sample of what the index holds: a corpus file (.json, id → text), or "
                "documents.",
                exists=True,
            ),
        ),
        "out": _out("the map"),
        "new": (str, typer.Option(..., help=f"The model to serve. {models.HELP}")),
        "old": (str, typer.Option(..., help="The model that made the stored vectors.")),
        "validation": _file("Labelled questions over the old index, to measure on."),
        "split": (str, common.TEST_SPLIT),
        "vector_cache": (Path | None, common.CACHE),
        "num_workers": (int, common.WORKERS),
    },
    _drift,
    "map",
)


_CANDIDATES: dict[str, tuple[Any, Any]] = {**_RETRIEVAL, "bm25": (bool, common.BM25)}


RERANKER = Tune(
    "tune",
    "Tune a light re-ranker; the folder OUT loads with LightReranker.load(OUT).",
    "rerankers.light.engine:LightRerankerFinetuneEngine",
    "rerankers.light.options:LightRerankerOptions",
    ("language", "depth", "seed"),
    {**_CANDIDATES, "out": _out("the tuned re-ranker"), "depth": (int, common.DEPTH)},
    _reranker,
    "re-ranker",
)


CROSS_ENCODER = Tune(
    "tune-cross-encoder",
    "Tune a cross-encoder against a light re-ranker; OUT loads with load_reranker(OUT).",
    "rerankers.cross.engine:CrossEncoderFinetuneEngine",
    "rerankers.cross.options:CrossEncoderOptions",
    (
        "loss", "partner", "learning_rate", "lora_rank", "max_length", "depth", "language", "bf16",
        "device", "resume", "seed",
    ),
    {
        **_CANDIDATES,
        "out": _out("the tuned cross-encoder"),
        "cross_encoder": (
            str,
            typer.Option(
                "cross-encoder/ms-marco-MiniLM-L-12-v2",
                help="Cross-encoder or encoder to start from: a Hugging Face name or folder, or "
                "'minilm'.",
            ),
        ),
        "epochs": (int, typer.Option(2, min=1, help="Passes over the training queries.")),
        "batch_size": (int, typer.Option(16, min=1, help="Pairs in a step.")),
    },
    _cross_encoder,
    "re-ranker",
    _CHECKPOINTS,
)  # fmt: skip


ROUTER = Tune(
    "tune",
    "Tune a router; the folder OUT loads with TunedSelector.load(OUT, embed_model).",
    "routers.engine:RouterFinetuneEngine",
    "routers.options:RouterOptions",
    ("balanced", "seed"),
    {
        "data": (Path, common.ROUTING_DATA),
        "out": _out("the tuned router"),
        "model": (str, common.MODEL),
        "labels": (Path | None, common.LABELS),
        "validation": _file("Dataset to measure on; cross-fitting without."),
        "vector_cache": (Path | None, common.CACHE),
    },
    _router,
    "router",
)


JUDGE = Tune(
    "tune",
    "Tune a judge; the folder OUT loads with TunedJudge.load(OUT, embed_model).",
    "judges.engine:JudgeFinetuneEngine",
    "judges.options:JudgeOptions",
    ("target", "target_precision", "passing_score", "seed"),
    {
        "data": (Path, common.JUDGMENTS),
        "out": _out("the judge"),
        "model": (str, common.JUDGE_MODEL),
        "validation": _file("Judgments to measure on; cross-fitting without."),
        "vector_cache": (Path | None, common.CACHE),
    },
    _judge,
    "judge",
)


LLM = Tune(
    "tune",
    "Tune a chat model; the folder OUT loads with TunedHuggingFaceLLM.load(OUT).",
    "llms.local.engine:HuggingFaceFinetuneEngine",
    "llms.local.options:HuggingFaceOptions",
    (
        "method", "weights", "lora_rank", "learning_rate", "epochs", "max_steps", "batch_size",
        "gradient_accumulation", "max_length", "too_long", "quantize", "merge", "device", "resume",
        "seed",
    ),
    {
        "data": (
            Path,
            typer.Argument(
                help="Conversations, JSON Lines: OpenAI's, TRL's or ShareGPT's format.",
                exists=True,
                dir_okay=False,
            ),
        ),
        "model": (str, typer.Option(..., help="Chat model: a folder, or a name of the hub.")),
        "out": _out("the tuned LLM"),
        "validation": (
            Path | None,
            typer.Option(
                None,
                help="Conversations to measure on; a share of DATA without.",
                exists=True,
                dir_okay=False,
            ),
        ),
        "preflight": (
            bool,
            typer.Option(False, "--preflight", help="Only say what would be done."),
        ),
    },
    _llm,
    "LLM",
    "checkpoints are kept in {out}.checkpoints: the same command goes on from there",
)  # fmt: skip
