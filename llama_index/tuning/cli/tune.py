"""Every command that tunes, from one table: which engine, what is loaded for it, what comes out.

Options of an engine are read from its options class: name, default, and the sentence under the
field as the help.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from llama_index.tuning.cli import common, models

if TYPE_CHECKING:
    from llama_index.tuning.report import FinetuneReport

Given = Mapping[str, Any]
"""The command's arguments by name."""


@dataclass(frozen=True)
class Tune:
    """One command.

    Attributes:
        command: its name.
        help: what it does, and how OUT loads.
        engine: `module:class` of this package.
        options: `module:class` of this package.
        fields: of the options class, each an option of the command.
        parameters: the command's other arguments: name → (type, typer's description).
        load: the arguments → what the engine is called with.
        what: the name of what is tuned, for the last line.
        kept: what an interrupted run leaves, and how to go on; `{out}` is the folder.
        flags: field → flag, if they differ.
    """

    command: str
    help: str
    engine: str
    options: str
    fields: tuple[str, ...]
    parameters: Mapping[str, tuple[Any, Any]]
    load: Callable[[Given], dict[str, Any]]
    what: str
    kept: str = "nothing was written to {out}; vectors are kept if --vector-cache names a file"
    flags: Mapping[str, str] | None = None


def add(app: typer.Typer, row: Tune) -> None:
    """Make the command of a row."""
    kind = _named(row.options)
    flags = {name: (row.flags or {}).get(name, name) for name in row.fields}
    described = {flags[name]: option for name, option in _options(kind, row.fields).items()}
    parameters = {**row.parameters, **described, **row.parameters, "accept": (str, common.ACCEPT)}
    parameters["json"] = (bool, common.JSON)

    def command(**given: Any) -> None:
        _run(row, kind, flags, given)

    command.__doc__ = row.help
    command.__annotations__ = {name: kind for name, (kind, _) in parameters.items()}
    signature = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in parameters.items()
    ]
    command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    app.command(row.command)(command)


def _run(row: Tune, kind: type[Any], flags: Mapping[str, str], given: dict[str, Any]) -> None:
    from llama_index.tuning.artifacts import check_writable
    from llama_index.tuning.gate import check_accept

    out, json = given["out"], given["json"]
    options = kind(**{name: _plain(kind, name, given[flag]) for name, flag in flags.items()})
    check_accept(given["accept"])
    check_writable(out)
    common.keep(row.kept.format(out=out))
    engine = _named(row.engine)(
        **row.load(given),
        options=options,
        model_output_path=out,
        accept=given["accept"],
        show_progress=not json,
    )
    if given.get("preflight"):
        ready = engine.preflight()
        common.show(str(ready), ready.to_dict(), json)
        return
    report: FinetuneReport = engine.finetune()
    report.save_html(out / "report.html")
    common.show_report(report, json, [*_figures(report), _where(row.what, out, report)])


def _where(what: str, out: Path, report: FinetuneReport) -> str:
    """Where what lies after a run."""
    inside = "report.json and report.html in it"
    if report.accepted:
        return f"saved to {out} ({inside})"
    return f"{out} holds the base or a note of it; the refused {what} lies in candidate/ ({inside})"


def _figures(report: Any) -> list[str]:
    """The figures that only some reports have, a line each."""
    lines = getattr(report, "summary_lines", None)
    if lines is not None:
        return list(lines())
    return [f"{name:<22}{value:.4f}" for name, value in getattr(report, "summary", {}).items()]


def _named(name: str) -> Any:
    module, attribute = name.split(":")
    return getattr(import_module(f"llama_index.tuning.{module}"), attribute)


def _options(kind: type[Any], names: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Name → (type, typer's description) of fields of an options class."""
    hints, docs = get_type_hints(kind), field_docs(kind)
    defaults = {field.name: field.default for field in fields(kind)}
    found = {}
    for name in names:
        default = defaults[name]
        assert default is not MISSING, f"{kind.__name__}.{name} needs a default"
        annotation = _annotation(hints[name])
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        text = docs[name]
        if get_origin(hints[name]) is tuple:  # written with commas alone
            text = re.sub(r"\(([\d., ]+)\)", lambda m: m[1].replace(" ", ""), text)
        found[name] = (annotation, typer.Option(default, help=text))
    return found


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Field → the text under it in the class, as plain words."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, doc in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            constant = doc.value if isinstance(doc, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                text = " ".join(constant.value.split())
                spans = re.compile("`([^`]*)`")
                found[field.target.id] = spans.sub(lambda m: m[1].replace('"', ""), text)
    return found


def _annotation(hint: Any) -> Any:
    """The type of the command's option: choices and lists are text, which the library checks."""
    if get_origin(hint) is Literal:
        return str
    if get_origin(hint) is tuple:
        return str
    if get_origin(hint) in (Union, UnionType):
        kinds = [_annotation(part) for part in get_args(hint) if part is not type(None)]
        return kinds[0] | None if len(kinds) < len(get_args(hint)) else str
    return hint


def _plain(kind: type[Any], name: str, value: Any) -> Any:
    """The value of a field; of a list of numbers, from its commas."""
    hint = get_type_hints(kind)[name]
    if get_origin(hint) is not tuple or not isinstance(value, str):
        return value
    part = get_args(hint)[0]
    try:
        return tuple(part(text) for text in value.split(",") if text.strip())
    except ValueError:
        wanted = "numbers" if part in (int, float) else "words"
        raise ValueError(f"{name} must be {wanted} with commas between, got {value!r}") from None


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
    names = ("batch_size", "loss", "epochs", "device", "vector_cache")
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
    from llama_index.tuning.cli.rerankers import exact_retriever
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
