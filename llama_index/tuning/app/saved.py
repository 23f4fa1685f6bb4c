"""A tuned app on disk: one folder with its settings, its parts and its report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning import artifacts
from llama_index.tuning.app.ladder.choose import Stack, Vectors
from llama_index.tuning.app.parts.served import NAMES, ServedPart, load_part
from llama_index.tuning.app.report import AppReport
from llama_index.tuning.app.see import SeenApp, look_at
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.rerankers.light.features import LinearRanker
from llama_index.tuning.rerankers.light.model import LightReranker
from llama_index.tuning.text.words import Analyzer
from llama_index.tuning.vectors.identity import (
    base_name,
    check_signature,
    model_signature,
    same_name,
)

if TYPE_CHECKING:
    from llama_index.tuning.judges.judge import TunedJudge

KIND = "tuned_app"
JUDGE = "judge"
_ADAPTER, _RERANKER, _WRITTEN, _PART = "adapter", "reranker", "questions.json", "part"
_TEXTS = 1000
_HELD = 0.5
"""Share of the nodes' texts that an index must still have to be the one an app was tuned on."""


def save(
    path: artifacts.PathLike,
    seen: SeenApp,
    stack: Stack,
    report: AppReport,
    *,
    language: str,
    adapter: Adapter | None,
    ranker: LinearRanker | None,
    written: RetrievalDataset | None = None,
    evaluator: TunedJudge | None = None,
    part: ServedPart | None = None,
) -> None:
    """Write an app's settings, parts and report to one folder.

    Args:
        path: the folder.
        seen: the app before.
        stack: what is served on top of it.
        report: of the tuning.
        language: of the documents.
        adapter: if one is served.
        ranker: of the tuned light re-ranker, if that is served.
        written: questions that an LLM wrote.
        evaluator: judge of its answers.
        part: the optional part that is served.
    """
    model = seen.embed_model
    config = {
        "vectors": stack.vectors,
        "order": stack.order,
        "language": language,
        "top_k": seen.top_k,
        "base_model": "" if model is None else base_name(model),
        "signature": None if model is None else model_signature(model),
        "nodes": _hashes(seen),
    }
    artifacts.check_writable(path)
    with artifacts.replacing_folder(path) as folder:
        artifacts.write_component(folder, KIND, config, {}, _CARD)
        if adapter is not None:
            adapter.save(folder / _ADAPTER)
        if ranker is not None:
            LightReranker(ranker, Analyzer(language)).save(folder / _RERANKER)
        if written is not None:
            written.save_json(folder / _WRITTEN)
        if evaluator is not None:
            evaluator.save(folder / JUDGE)
        if part is not None:
            part.write(folder / _PART)
        report.save_json(folder / artifacts.REPORT)
        report.save_html(folder / "report.html")


def read(
    path: artifacts.PathLike, app: Any, reranker: BaseNodePostprocessor | None = None
) -> dict[str, Any]:
    """What `save` wrote, over the app it was tuned for: the arguments of `TunedApp`.

    Raises:
        ArtifactError: no tuned app, a damaged one, another index, or another embedding model.
        TypeError: `app` is no index, retriever or query engine.
    """
    config = artifacts.read_config(path, KIND)
    stack = _stack(path, config)
    if stack.given != (reranker is not None):
        hint = f"is served with {stack.order}: hand it over as reranker="
        raise ArtifactError(f"{path} {hint if stack.given else 'takes no reranker='}")
    seen = look_at(app)
    _check_index(path, config, seen)
    _check_model(path, config, seen)
    folder = Path(path)
    adapter = Adapter.load(folder / _ADAPTER) if stack.vectors == "adapted" else None
    ranker = LightReranker.load(folder / _RERANKER).ranker if stack.order == "tuned" else None
    try:
        report = AppReport.from_json(folder / artifacts.REPORT)
        language = str(config["language"])
    except (OSError, KeyError, TypeError, ValueError) as exc:
        raise ArtifactError(f"{path} is damaged: {exc}") from exc
    file = folder / _WRITTEN
    written = RetrievalDataset.from_json(file) if file.exists() else None
    artifacts.check_intact(path)
    evaluator = load_judge(folder, seen.embed_model)
    named = next((each for each in (stack.vectors, stack.order) if each in NAMES), None)
    return {
        "seen": seen,
        "stack": stack,
        "report": report,
        "language": language,
        "adapter": adapter,
        "ranker": ranker,
        "written": written,
        "given": reranker,
        "evaluator": evaluator,
        "part": None if named is None else load_part(named, folder / _PART, seen),
    }


def load_judge(folder: Path, model: BaseEmbedding | None) -> TunedJudge | None:
    """The judge that lies in an app's folder, if it has one."""
    if not (folder / JUDGE).exists():
        return None
    from llama_index.tuning.judges.judge import TunedJudge

    return TunedJudge.load(folder / JUDGE, model)


def takes_reranker(path: artifacts.PathLike) -> bool:
    """Whether what a folder serves is a re-ranker that has to be handed over."""
    return _stack(path, artifacts.read_config(path, KIND)).given


def _stack(path: artifacts.PathLike, config: Mapping[str, Any]) -> Stack:
    vectors, order = config.get("vectors"), config.get("order")
    if vectors not in get_args(Vectors) or not isinstance(order, str) or not order:
        raise ArtifactError(f"{path} is damaged: it serves {vectors!r} vectors in order {order!r}")
    return Stack(cast(Vectors, vectors), order)


def _check_index(path: artifacts.PathLike, config: Mapping[str, Any], seen: SeenApp) -> None:
    saved = config.get("nodes")
    if not isinstance(saved, list) or not saved:
        raise ArtifactError(f"{path} is damaged: it does not say which nodes it was tuned on")
    now = {_hash(text) for text in seen.texts.values()}
    held = sum(hash_ in now for hash_ in saved)
    if held < _HELD * len(saved):
        raise ArtifactError(
            f"{path} was tuned for another index: of {len(saved)} of its nodes this one has {held}"
        )


def _check_model(path: artifacts.PathLike, config: Mapping[str, Any], seen: SeenApp) -> None:
    name, model = config.get("base_model"), seen.embed_model
    if name and model is None:
        raise ArtifactError(f"{path} was tuned for the embedding model {name!r}; the app has none")
    if model is None:
        return
    if name and not same_name(str(name), base_name(model)):
        raise ArtifactError(
            f"{path} was tuned for the embedding model {name!r}, not for {base_name(model)!r}"
        )
    check_signature(model, config.get("signature"), f"the app {path}")


def _hashes(seen: SeenApp) -> list[str]:
    """Of a sample of the nodes' texts, spread over all."""
    texts = list(seen.texts.values())
    return [_hash(text) for text in texts[:: max(1, len(texts) // _TEXTS)]]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


_CARD = """# A tuned app

Made by llama-index-tuning. Use it with

    from llama_index.tuning import load_app
    app = load_app("this folder", index)
    query_engine = app.as_query_engine(llm=llm)

`report.html` says what was measured.
"""
