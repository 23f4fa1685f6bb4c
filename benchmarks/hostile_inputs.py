"""Damaged artefacts and wrong arguments: how each ends.

    python benchmarks/hostile_inputs.py [--only artefacts|calls] [--show]

Every loader gets artefacts that were damaged in one way: cut off, of another type, nested too deep,
a folder or a pipe where a file should be, another version, weights that were changed. Every public
name gets calls with one wrong argument, made from its signature. An error is good if it is of this
package's family, or a `TypeError`, `ValueError` or `OSError` that names the file or the argument.
Counted are also: raw errors, what passes in silence, what takes longer than five seconds, and calls
that asked a model or left a file before they failed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import inspect
import json
import logging
import os
import re
import resource
import shutil
import signal
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import ToolMetadata
from safetensors.numpy import load_file, save_file

import llama_index.tuning as tuning
from llama_index.tuning import datasets as data
from llama_index.tuning.app import AppReport
from llama_index.tuning.base import FinetuneEngine
from llama_index.tuning.collect import FinetuningRecorder, Traffic
from llama_index.tuning.errors import TuningError
from llama_index.tuning.report import FinetuneReport, Gain

SECONDS = 5
MEMORY = 6 * 2**30
FOLDERS = (
    "app asking collect datasets embeddings evaluate generate judges llms rerankers routers text "
    "vectors"
)


class TooSlow(BaseException):
    """A call that did not end in time."""


class Words(BaseEmbedding):
    """A vector for each word, by its hash; counts what it is asked."""

    asked: int = 0

    def __init__(self, **fields: object) -> None:
        super().__init__(**{"model_name": "words", **fields})

    def _vector(self, text: str) -> list[float]:
        self.asked += 1
        total = np.full(16, 1e-3)
        for word in re.findall(r"\w+", text.lower()):
            total += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(16)
        return (total / np.linalg.norm(total)).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)


class Asked(MockLLM):
    """A mock that counts what it is asked."""

    asked: int = 0

    def complete(self, *args: object, **kwargs: object) -> object:
        self.asked += 1
        return super().complete(*args, **kwargs)

    async def acomplete(self, *args: object, **kwargs: object) -> object:
        self.asked += 1
        return await super().acomplete(*args, **kwargs)


COLOURS, PLACES = ("red", "green", "blue", "grey"), ("roof", "cellar", "yard", "kitchen", "hall")
TEXTS = [
    f"The {COLOURS[i % 4]} pump number {i} is in the {PLACES[i % 5]}. Its price is {3 * i} euros."
    for i in range(40)
]
NODES = [TextNode(id_=f"n{i}", text=text) for i, text in enumerate(TEXTS)]
QUESTIONS = {f"q{i}": f"What is the price of the {COLOURS[i % 4]} pump {i}?" for i in range(40)}
RETRIEVAL = data.RetrievalDataset(
    QUESTIONS, {n.node_id: n.text for n in NODES}, {f"q{i}": [f"n{i}"] for i in range(40)}
)
PAIRS = [(f"{what} of the {c} {p}?", what) for what in ("price", "place") for c in COLOURS
         for p in PLACES]  # fmt: skip
ROUTING = data.RoutingDataset.from_pairs(
    PAIRS, choices={"price": "What things cost", "place": "Where things are"}
)
JUDGMENTS = data.JudgmentDataset(
    [
        data.Judgment(
            query=f"Where is pump {i}?",
            response=f"It is in the {PLACES[(i + i % 2) % 5]}.",
            contexts=[TEXTS[i]],
            passing=i % 2 == 0,
            source="human",
        )
        for i in range(40)
    ]
)
CHAT = data.ChatDataset.from_messages(
    [
        [
            {"role": "user", "content": f"Where is pump {i}?"},
            {"role": "assistant", "content": f"In the {PLACES[i % 5]}."},
        ]
        for i in range(12)
    ]
)
RELEVANCE = data.RelevanceDataset.from_labels(
    QUESTIONS,
    RETRIEVAL.corpus,
    {f"q{i}": {f"n{i}": 1, f"n{(i + 7) % 40}": 0} for i in range(40)},
)
GAINS = {"ndcg@10": Gain(0.5, 0.6, 0.05, 0.15, 40, 0.9)}


def index() -> VectorStoreIndex:
    return VectorStoreIndex(NODES, embed_model=Words())


# ---------------------------------------------------------------- artefacts


def sound(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Name → a sound artefact and its loader."""
    quiet = {"show_progress": False}
    made: dict[str, tuple[Path, Callable[[Path], object]]] = {}

    def add(name: str, save: Callable[[Path], object], load: Callable[[Path], object]) -> None:
        target = folder / name
        save(target)
        made[name] = (target, load)

    add("retrieval.json", RETRIEVAL.save_json, data.RetrievalDataset.load)
    add("routing.json", ROUTING.save_json, data.RoutingDataset.load)
    (folder / "routes").mkdir()
    add(
        "routes/routing.jsonl",
        lambda p: ROUTING.save_jsonl(p, p.with_name("labels.json")),
        data.RoutingDataset.load,
    )
    add("judgments.jsonl", JUDGMENTS.save_jsonl, data.JudgmentDataset.from_jsonl)
    add("chat.jsonl", CHAT.save_jsonl, data.ChatDataset.from_jsonl)
    add("relevance.jsonl", RELEVANCE.save_jsonl, data.RelevanceDataset.from_jsonl)
    rows = [{"question": q, "passage": TEXTS[i]} for i, q in enumerate(QUESTIONS.values())]
    lines = ["question,passage", *(f"{r['question']},{r['passage']}" for r in rows)]
    add("table.csv", lambda p: p.write_text("\n".join(lines)), data.RetrievalDataset.from_table)
    add("table.json", lambda p: p.write_text(json.dumps(rows)), data.RetrievalDataset.from_table)
    report = FinetuneReport(title="t", method="m", primary="ndcg@10", gains=GAINS)
    add("report.json", report.save_json, FinetuneReport.from_json)
    both = dict.fromkeys(("ndcg@10", "hit_rate@5"), GAINS["ndcg@10"])
    app = AppReport(served="s", kind="questions", changed=True, shown=True, reason="r", gains=both)
    add("app.json", app.save_json, AppReport.from_json)
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    corpus = [json.dumps({"_id": n.node_id, "text": n.text}) for n in NODES]
    (beir / "corpus.jsonl").write_text("\n".join(corpus))
    asked = [json.dumps({"_id": id_, "text": text}) for id_, text in QUESTIONS.items()]
    (beir / "queries.jsonl").write_text("\n".join(asked))
    labels = [f"q{i}\tn{i}\t1" for i in range(40)]
    (beir / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *labels]))
    made["beir"] = (beir, data.RetrievalDataset.load)
    with FinetuningRecorder(folder / "traffic.jsonl") as recorder:
        index().as_query_engine(llm=MockLLM()).query("Where is pump 3?")
        recorder.feedback(recorder.last_trace_id(), 1.0, relevant=["n3"])
    made["traffic.jsonl"] = (folder / "traffic.jsonl", Traffic.load)

    def component(name: str, engine: object, load: Callable[[Path], object]) -> None:
        engine.finetune()
        if (folder / name).is_dir():
            made[name] = (folder / name, load)

    where = {"accept": "always", **quiet}
    model = Words()
    component(
        "adapter",
        tuning.EmbeddingAdapterFinetuneEngine(
            RETRIEVAL, model, model_output_path=folder / "adapter", **where
        ),
        lambda p: tuning.AdapterEmbeddingModel(Words(), p),
    )
    component(
        "router",
        tuning.RouterFinetuneEngine(ROUTING, model, model_output_path=folder / "router", **where),
        lambda p: tuning.TunedSelector.load(p, Words()),
    )
    component(
        "judge",
        tuning.JudgeFinetuneEngine(JUDGMENTS, model_output_path=folder / "judge", **where),
        tuning.TunedJudge.load,
    )
    component(
        "reranker",
        tuning.LightRerankerFinetuneEngine(
            RELEVANCE, model_output_path=folder / "reranker", **where
        ),
        tuning.load_reranker,
    )
    base = index()
    tuned = tuning.TunedRetriever.from_index(base, top_k=4, reranker=tuning.LightReranker())
    add(
        "retriever",
        tuned.save,
        lambda p: tuning.TunedRetriever.load(p, base.as_retriever(), docstore=base.docstore),
    )
    served = tuning.tune_app(index(), RETRIEVAL, run_folder=None)
    add("app", served.save, lambda p: tuning.load_app(p, index()))
    return made


def replaced(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.unlink()
        write(file)

    return change


ANY_FILE: dict[str, Callable[[Path], None]] = {
    "missing": lambda f: f.unlink(),
    "empty": replaced(lambda f: f.write_bytes(b"")),
    "cut off": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
    "not UTF-8": replaced(lambda f: f.write_bytes(b"\xff\xfe\x81{}" * 9)),
    "zeros": replaced(lambda f: f.write_bytes(bytes(4096))),
    "a folder": replaced(lambda f: f.mkdir()),
    "a pipe": replaced(os.mkfifo),
    "a circle of links": replaced(lambda f: f.symlink_to(f.name)),
    "a device": replaced(lambda f: f.symlink_to("/dev/zero")),
    "a link to nothing": replaced(lambda f: f.symlink_to("not-there")),
}
JSON_FILE: dict[str, Callable[[Path], None]] = {
    "deep": replaced(lambda f: f.write_text("[" * 100_000 + "]" * 100_000)),
    "deep object": replaced(lambda f: f.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)),
    "a huge number": replaced(lambda f: f.write_text('{"a": ' + "9" * 50_000 + "}")),
    "a list": replaced(lambda f: f.write_text("[1, 2]")),
    "a list of lists": replaced(lambda f: f.write_text("[[1], [2]]")),
    "a text": replaced(lambda f: f.write_text('"text"')),
    "a number": replaced(lambda f: f.write_text("NaN")),
    "null": replaced(lambda f: f.write_text("null")),
}
WRONG_VALUES = (None, -1, "text", [], [None], {}, {"a": float("nan")}, float("nan"))


def json_changes(file: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of a JSON or JSON Lines file with one value changed or left out."""
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    found = json.loads(lines[0])
    many = isinstance(found, list) and found and isinstance(found[0], dict)
    row = found[0] if many else found
    if not isinstance(row, dict):
        return
    place = 1 if "header" in lines[0] and len(lines) > 1 else 0
    row = json.loads(lines[place]) if place else row
    if isinstance(row, list):
        row, many = row[0], True
        found = json.loads(lines[place])
    for number, key in enumerate(row):
        wrong = [WRONG_VALUES[(number + step) % len(WRONG_VALUES)] for step in (0, 3)]
        for what in ["left out", *wrong]:
            changed = {**row, key: what}
            if what == "left out":
                changed.pop(key)
            whole = [changed, *found[1:]] if many else changed
            text = "\n".join([*lines[:place], json.dumps(whole), *lines[place + 1 :]])
            yield f"{key} {what!r:.20}", text


def tensor_changes(file: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    tensors = load_file(file)
    for name, tensor in list(tensors.items())[:3]:
        rest = {key: value for key, value in tensors.items() if key != name}
        yield f"{name} missing", rest
        yield f"{name} of other shape", {**rest, name: np.concatenate([tensor, tensor])}
        yield f"{name} of text", {**rest, name: np.zeros(tensor.shape, np.uint8)}
        if tensor.dtype.kind == "f" and tensor.size:
            yield f"{name} NaN", {**rest, name: np.full_like(tensor, np.nan)}
            if np.any(tensor):
                yield f"{name} negated", {**rest, name: -tensor}


def artefacts(work: Path) -> Iterator[tuple[str, Callable[[], object], str]]:
    """(name, call, what a good error names)."""
    for name, (path, load) in sound(work / "sound").items():
        load(path)  # or the rest means nothing
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        for file in files:
            read = (
                file.name != "report.json" or path == file or (name, path) == ("app", file.parent)
            )
            if file.suffix in (".md", ".html") or not read:
                continue
            changes = dict(ANY_FILE)
            if file.suffix in (".json", ".jsonl"):
                changes |= JSON_FILE
                for what, text in json_changes(file):
                    changes[what] = lambda f, text=text: f.write_text(text)
            if file.suffix == ".safetensors":
                for what, tensors in tensor_changes(file):
                    changes[what] = lambda f, t=tensors: save_file(t, f)
            for what, change in changes.items():
                if what.startswith(("feedback", "comment", "answer", "choice")):
                    continue  # optional ones
                copy = work / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(path.parent if path.is_file() else path, copy / "it")
                place = copy / "it" / (path.name if path.is_file() else file.relative_to(path))
                change(place)
                target = place if path.is_file() else copy / "it"
                yield f"{name}/{file.name}: {what}", lambda t=target, f=load: f(t), str(copy)


# -------------------------------------------------------------------- calls

LLM, MODEL = Asked(), Words()
GIVEN: dict[str, Callable[[], object]] = {
    "embed_model": lambda: MODEL, "new_embed_model": lambda: MODEL, "llm": lambda: LLM,
    "old_model": lambda: MODEL, "new_model": lambda: MODEL, "teacher": lambda: LLM,
    "nodes": lambda: NODES, "documents": lambda: dict(enumerate(TEXTS)),
    "queries": lambda: dict(QUESTIONS), "corpus": lambda: RETRIEVAL.corpus,
    "relevant_docs": lambda: RETRIEVAL.relevant_docs, "index": index, "app": index,
    "retriever": lambda: index().as_retriever(), "choices": lambda: dict(ROUTING.choices),
    "examples": lambda: list(ROUTING.examples), "judgments": lambda: JUDGMENTS.judgments,
    "lists": lambda: RELEVANCE.lists, "evaluator": lambda: FaithfulnessEvaluator(llm=LLM),
    "reranker": lambda: tuning.LightReranker(), "text": lambda: "a text", "name": lambda: "router",
    "query": lambda: "Where is it?", "samples": lambda: JUDGMENTS.judgments[:3],
    "base": lambda: np.zeros(5), "tuned": lambda: np.ones(5), "query_ids": lambda: ["q0"],
    "found": lambda: [["n0"]], "relevant": lambda: [["n0"]], "rows": lambda: [{"a": 1}],
    "pairs": lambda: PAIRS, "conversations": lambda: [e.messages for e in CHAT.examples],
    "labels": lambda: {"q0": {"n0": 1.0}}, "records": list, "metadata": lambda: [
        ToolMetadata(name="a", description="b")], "table": lambda: [{"question": "a?",
        "passage": "b", "choice": "c", "answer": "d", "verdict": "yes"}],
    "base_embed_model": lambda: MODEL, "adapter_path": lambda: "not-there",
    "label": lambda: "yes", "data": lambda: {"a": 1}, "k": lambda: 3, "path": lambda: "not-there",
    "query_str": lambda: "Where?", "score": lambda: 1, "context": lambda: "text",
    "prompts": lambda: list(QUESTIONS.values()), "keep": lambda: lambda prompt, answer: True,
    "check": lambda: lambda row: None, "tools": list, "items": list, "checks": list,
    "texts": lambda: TEXTS, "folder": lambda: "not-there", "source": lambda: "not-there",
    "model_path": lambda: "not-there", "database": lambda: "not-there", "model_id": lambda: "m",
    "model": lambda: "not-there", "base_model": lambda: "m", "backup": lambda: "backup.json",
    "adapter": lambda: "not-there", "judge": lambda: FaithfulnessEvaluator(llm=LLM),
    "first": lambda: JUDGMENTS, "second": lambda: JUDGMENTS, "unlabelled": lambda: JUDGMENTS,
    "labelled": lambda: JUDGMENTS, "form": lambda: FaithfulnessEvaluator, "spans": list,
    "testset": lambda: [{"question": "a?", "contexts": ["b"]}], "router": lambda: None,
    "generated": lambda: list(QUESTIONS.values()), "real": lambda: list(QUESTIONS.values()),
    "positives": lambda: [np.array([0])] * 3, "rankings": lambda: [["n0"]],
    "missed": lambda: [np.array([])], "questions_list": lambda: list(QUESTIONS.values()),
    "query_context_pairs": lambda: RETRIEVAL, "relevant_passages": lambda: ["a"],
    "hard_negatives": lambda: ["b"], "response": lambda: "It is in the yard.",
    "item": lambda: NodeWithScore(node=NODES[0]),
}  # fmt: skip
DATASETS = {
    "Routing": ROUTING, "Router": ROUTING, "Judge": JUDGMENTS, "Chat": CHAT, "OpenAI": CHAT,
    "HuggingFace": CHAT, "Rerank": RELEVANCE, "CrossEncoder": RELEVANCE, "judgment": JUDGMENTS,
}  # fmt: skip
BAD = {
    "int": (-1, 2.5, "3", float("nan"), True, None, [3]),
    "float": (float("nan"), -1.0, "0.5", float("inf"), [1.0], True),
    "str": (5, b"bytes", None, ["a"]),
    "path": (5, b"bytes", "", "a\0b", ["a"], object()),
    "bool": ("yes", 5, None),
    "choice": ("no-such-option", 5, b"x"),
    "other": (5, "text", object(), b"bytes", [None], [object()], {1: 2}, float("nan")),
}


USABLE = {
    "max_steps": (-1,),  # no limit
    "scale": (5,), "tau": (5,), "passing_score": (-1.0,), "min_feedback": (-1.0,),
    "max_feedback": (-1.0,), "min_score": (-1.0,), "least": (-1.0,), "most": (-1.0,),
    "score": (-1.0, True),  # a thumb, down or up
}  # fmt: skip
"""Values that are odd and right."""


def wrong_for(kind: str, name: str) -> list[object]:
    """Wrong values of a kind of argument."""
    usable = USABLE.get(name, ())
    wrong = BAD[kind][: 4 if kind == "other" else 7]
    return [
        value for value in wrong if not any(type(value) is type(u) and value == u for u in usable)
    ]


def kind_of(name: str, annotation: str) -> str:
    if "Path" in annotation or name.endswith(("path", "folder", "cache")):
        return "path"
    if "Literal" in annotation or name in ("accept", "format", "scale", "style", "styles"):
        return "choice"
    for kind in ("int", "float", "bool", "str"):
        if re.fullmatch(rf"{kind}( \| None)?", annotation):
            return kind
    return "other"


def public() -> dict[str, Callable[..., object]]:
    """Public functions, classes and the classmethods that make them."""
    found: dict[int, tuple[str, Callable[..., object]]] = {}
    modules = [tuning, *(import_module(f"llama_index.tuning.{name}") for name in FOLDERS.split())]
    for module in modules:
        for name in module.__all__:
            each = getattr(module, name)
            if not callable(each) or getattr(each, "_is_protocol", False):
                continue
            found.setdefault(id(each), (name, each))
            for method, raw in vars(each).items() if inspect.isclass(each) else ():
                if isinstance(raw, classmethod) and not method.startswith(("_", "class_name")):
                    bound = getattr(each, method)
                    found.setdefault(id(raw), (f"{name}.{method}", bound))
    return dict(found.values())


MORE: dict[tuple[str, str], Callable[[], object]] = {
    ("mine_hard_negatives", "embed_model"): lambda: MODEL,
    ("TunedRetriever", "nodes"): lambda: NODES,
    ("label_by_reranker", "teacher"): lambda: tuning.LightReranker(),
    ("label_by_reranker", "retriever"): lambda: index().as_retriever(),
    ("label_judgments", "teacher"): lambda: FaithfulnessEvaluator(llm=LLM),
    ("DriftAdapterFinetuneEngine", "old_model"): lambda: MODEL,
    ("DriftAdapterFinetuneEngine", "new_model"): lambda: MODEL,
    ("top_k", "queries"): lambda: np.eye(3, dtype=np.float32),
    ("top_k", "documents"): lambda: np.eye(3, dtype=np.float32),
}


OF_FINETUNE = ("dataset", "val_dataset", "unlabelled", "vectors", "scores", "texts", "device")
"""What engines look at in `finetune()`, before any cost."""


def tuned_by(engine: Callable[[], FinetuneEngine]) -> object:
    return engine().finetune()


def given_for(owner: str, name: str) -> object:
    if (owner, name) in MORE:
        return MORE[owner, name]()
    if name in ("dataset", "train_dataset", "given", "data", "eval_dataset"):
        key = next((key for key in DATASETS if key in owner), None)
        return RETRIEVAL if key is None else DATASETS[key]
    return GIVEN[name]()


def calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """(name, call, argument) with one wrong argument each."""
    for name, function in sorted(public().items()):
        if "." in name and name.split(".")[1] in ("model_validate", "construct", "parse_obj"):
            continue
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            continue
        own = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        try:
            needed = {
                p.name: given_for(name, p.name)
                for p in own
                if p.default is p.empty or (name, p.name) in MORE
            }
        except KeyError:
            continue
        if dataclasses.is_dataclass(function) and not name.endswith(("Options", "Dataset", "Only")):
            continue  # records: their datasets check them
        tunes = isinstance(function, type) and issubclass(function, FinetuneEngine)
        call = partial(function, **needed)
        sound_ends = outcome(lambda c=call: ended(c()), "\n")[1]
        for p in own:
            if p.name.startswith("_") or p.name in ("callback_manager", "metadata_mode"):
                continue
            kind = kind_of(p.name, str(p.annotation))
            for value in wrong_for(kind, p.name):
                if value is None and (p.default is None or "None" in str(p.annotation)):
                    continue
                if kind == "other" and isinstance(value, str) and "str" in str(p.annotation):
                    continue
                if kind == "other" and value == 5 and re.search("int|float|Any", str(p.annotation)):
                    continue
                call = partial(function, **{**needed, p.name: value})
                if tunes and p.name in OF_FINETUNE:
                    call = partial(tuned_by, call)
                if sound_ends and outcome(lambda c=call: ended(c()), "\n")[1] == sound_ends:
                    continue  # it ends before it comes to this argument
                yield f"{name}({p.name}={value!r:.20})", lambda c=call: ended(c()), p.name


def methods() -> Iterator[tuple[str, Callable[..., object], dict[str, object]]]:
    """(name, method, sound arguments) of ready objects."""
    retriever = tuning.TunedRetriever.from_index(index(), top_k=3)
    selector = tuning.RouterFinetuneEngine(ROUTING, MODEL, model_output_path=None, accept="always")
    selector.finetune()
    routed = selector.get_finetuned_model()
    judge = tuning.JudgeFinetuneEngine(JUDGMENTS, model_output_path=None, accept="always")
    judge.finetune()
    judging = judge.get_finetuned_model()
    report = judge.report
    reranker = tuning.LightReranker()
    found = [NodeWithScore(node=node, score=0.5) for node in NODES[:4]]
    recorder = FinetuningRecorder("methods.jsonl")
    split = {"test_size": 0.2, "seed": 0}
    yield from (
        ("TunedRetriever.retrieve", retriever.retrieve, {"str_or_query_bundle": "Where?"}),
        ("TunedRetriever.candidates", retriever.candidates, {"query": "Where?"}),
        ("TunedRetriever.insert_nodes", retriever.insert_nodes, {"nodes": NODES[:1]}),
        ("TunedRetriever.delete_nodes", retriever.delete_nodes, {"node_ids": ["n1"]}),
        ("TunedRetriever.save", retriever.save, {"path": "saved-retriever"}),
        ("TunedRetriever.with_reranker", retriever.with_reranker, {"reranker": None}),
        ("LightReranker.postprocess_nodes", reranker.postprocess_nodes,
         {"nodes": found, "query_str": "Where?"}),
        ("LightReranker.save", reranker.save, {"path": "saved-reranker"}),
        ("TunedSelector.save", routed.save, {"path": "saved-selector"}),
        ("TunedSelector.recalibrate", routed.recalibrate, {"queries": list(QUESTIONS.values())}),
        ("TunedJudge.save", judging.save, {"path": "saved-judge"}),
        ("report.save_json", report.save_json, {"path": "r.json"}),
        ("report.save_html", report.save_html, {"path": "r.html"}),
        ("Recorder.feedback", recorder.feedback, {"trace_id": "none", "score": 1.0}),
        ("RetrievalDataset.split", RETRIEVAL.split, split),
        ("RetrievalDataset.save_json", RETRIEVAL.save_json, {"path": "d.json"}),
        ("RetrievalDataset.remap", RETRIEVAL.remap, {"nodes": NODES}),
        ("RoutingDataset.split", ROUTING.split, split),
        ("RoutingDataset.save_json", ROUTING.save_json, {"path": "d.json"}),
        ("RoutingDataset.extend", ROUTING.extend, {"other": ROUTING}),
        ("JudgmentDataset.split", JUDGMENTS.split, split),
        ("JudgmentDataset.save_jsonl", JUDGMENTS.save_jsonl, {"path": "d.jsonl"}),
        ("ChatDataset.split", CHAT.split, split),
        ("ChatDataset.save_jsonl", CHAT.save_jsonl, {"path": "d.jsonl"}),
        ("RelevanceDataset.save_jsonl", RELEVANCE.save_jsonl, {"path": "d.jsonl"}),
    )  # fmt: skip


def method_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """(name, call, argument) of methods, with one wrong argument each."""
    for name, method, sound_ones in methods():
        for p in inspect.signature(method).parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or p.name == "query_bundle":
                continue
            kind = kind_of(p.name, str(p.annotation))
            for value in wrong_for(kind, p.name):
                if value is None and (p.default is None or "None" in str(p.annotation)):
                    continue
                text = kind == "other" and isinstance(value, str)
                if text and re.search("str|QueryType", str(p.annotation)):
                    continue
                call = partial(method, **{**sound_ones, p.name: value})
                yield f"{name}({p.name}={value!r:.20})", lambda c=call: ended(c()), p.name


def ended(result: object) -> object:
    """A coroutine is run; an engine looks at its data when it is asked to tune."""
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    return result


# ------------------------------------------------------------------ running


def outcome(call: Callable[[], object], named: str) -> tuple[str, str]:
    """(how it ended, the error)."""

    def stop(*_: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        call()
    except TooSlow:
        return "too slow", ""
    except TuningError as exc:
        return "family", f"{type(exc).__name__}: {exc}"
    except (TypeError, ValueError, OSError, NotImplementedError) as exc:
        named_file = isinstance(exc, FileNotFoundError) and "does not exist" in str(exc)
        good = (
            named in str(exc)
            or named_file
            or re.search(rf"\b{re.escape(named.replace('_', ' '))}\b", str(exc))
        )
        bad = re.search(
            r"not supported between|object is not|has no attribute|unhashable", str(exc)
        )
        return ("named" if good and not bad else "raw"), f"{type(exc).__name__}: {exc}"
    except Exception as exc:
        return "raw", f"{type(exc).__name__}: {exc}"
    finally:
        signal.alarm(0)
    return "silent", ""


def run(cases: Iterator[tuple[str, Callable[[], object], str]], work: Path, show: bool) -> None:
    counts: Counter[str] = Counter()
    for name, call, named in cases:
        MODEL.asked = LLM.asked = 0
        before = {f for f in work.rglob("*") if "copy" not in f.parts[-2:]}
        try:
            how, error = outcome(call, named)
        except TooSlow:  # the moment that its answer was on the way
            how, error = "too slow", ""
        counts[how] += 1
        asked = MODEL.asked + LLM.asked
        left = {f for f in work.rglob("*") if "copy" not in f.parts[-2:]} - before
        if how in ("raw", "named", "family", "too slow"):
            counts["asked a model first"] += bool(asked)
            counts["left a file"] += bool(left)
        if show and (how in ("raw", "silent", "too slow") or (how != "silent" and (asked or left))):
            files = f" LEFT {[f.name for f in left][:3]}" if left else ""
            work_done = f" ASKED {asked}" if asked and how != "silent" else ""
            print(f"  {how}{files}{work_done}: {name}: {error[:150]!r}", flush=True)
        for file in left:
            shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink(
                missing_ok=True
            )
    total = sum(counts[how] for how in ("family", "named", "raw", "silent", "too slow"))
    print(f"{total} cases:", ", ".join(f"{number} {how}" for how, number in counts.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", choices=("artefacts", "calls"))
    parser.add_argument("--show", action="store_true", help="name every case that is not good")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    Settings.llm, Settings.embed_model = LLM, MODEL
    for name in ("torch", "transformers", "sentence_transformers", "datasets", "peft", "faiss"):
        import_module(name)  # or the first call that needs it is too slow
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # a reader of a device takes it all
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "sound").mkdir()
        (work / "cwd").mkdir()
        os.chdir(work / "cwd")
        if options.only != "calls":
            print("damaged artefacts")
            run(artefacts(work), work, options.show)
        if options.only != "artefacts":
            print("wrong arguments")
            run(calls(), work / "cwd", options.show)
            print("wrong arguments of methods")
            run(method_calls(), work / "cwd", options.show)


if __name__ == "__main__":
    main()
