"""Spans of other tools as the rows of a recorder's log: read twice, so that memory stays flat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from llama_index.tuning._files import PathLike
from llama_index.tuning.collect.imports.read import BROKEN, Faults, Note, Span, Spans, read
from llama_index.tuning.collect.imports.tell import Told, tell
from llama_index.tuning.collect.log import TrafficLog
from llama_index.tuning.collect.masking import Redact, mask_secrets
from llama_index.tuning.errors import DatasetError

Row = dict[str, Any]


def rows_of_spans(spans: Spans, faults: Faults) -> Iterator[Row]:
    """The rows, as a recorder writes them.

    Spans may come in any order: the first reading notes what encloses what and which nodes were
    found, the second makes the rows. Only ids are held in between.

    Args:
        spans: see `Traffic.from_spans`.
        faults: counts what could not be used, by its fault.

    Raises:
        DatasetError: there is no span at all.
    """
    is_file = isinstance(spans, str | PurePath | Mapping) or hasattr(spans, "columns")
    if not is_file and isinstance(spans, Iterable):
        spans = list(spans)
    outline = _Outline()
    for item in read(spans, faults):
        if isinstance(item, Span):
            outline.add(item, _told(item, faults))
        else:
            outline.notes.append(item)
    if not outline.parents:
        broken = "; ".join(f"{number} {fault}" for fault, number in faults.items())
        raise DatasetError(f"there is no span in {_named(spans)}{': ' if broken else ''}{broken}")
    written: dict[str, int] = {}
    for item in read(spans, Counter()):
        if not isinstance(item, Span):
            continue
        for told in _told(item, Counter()):
            for id_, text in told.texts.items():
                if written.get(id_) != hash(text):
                    written[id_] = hash(text)
                    yield {"kind": "node", "id": id_, "text": text}
            yield from outline.finished(item, told)
    yield from outline.feedback(faults)


def _told(span: Span, faults: Faults) -> list[Told]:
    try:
        return tell(span)
    except BROKEN as error:
        faults[f"that cannot be understood ({type(error).__name__})"] += 1
        return []


def write_spans(
    spans: Spans, path: PathLike, *, redact: Redact | None = mask_secrets
) -> tuple[int, Faults]:
    """Write the traces of other tools as a recorder's log, secrets masked as a recorder does.

    Args:
        spans: see `Traffic.from_spans`.
        path: the log, which must not exist; the recorder may go on in it.
        redact: as of the recorder.

    Returns:
        How many records were written, and what could not be used.

    Raises:
        FileExistsError: the log exists.
        OSError: records could not be written.
    """
    if Path(path).exists():
        raise FileExistsError(f"{path} exists; it is not written over")
    faults: Faults = Counter()
    count = 0
    log = TrafficLog(path, flush_every=1000, redact=redact)
    try:
        for row in rows_of_spans(spans, faults):
            log.append(row)
            count += row["kind"] != "node"
    finally:
        log.close()
    if log.lost:
        raise OSError(f"{log.lost} records could not be written to {path}")
    return count, faults


def _named(spans: Spans) -> str:
    return str(spans) if isinstance(spans, str | PurePath) else "what was given"


class _Outline:
    """What a span needs to know of the others: ids alone."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {}
        self.notes: list[Note] = []
        self._kinds: dict[str, str] = {}
        self._traces: dict[str, str] = {}
        self._found: dict[str, list[tuple[float, str, list[dict[str, Any]]]]] = {}
        self._nodes: dict[str, list[str]] = {}
        self._judged: dict[str, list[Note]] | None = None

    def add(self, span: Span, tells: list[Told]) -> None:
        """Note a span of the first reading, with what it tells."""
        self.parents[span.id] = span.parent
        self._traces[span.id] = span.trace
        for told in tells:
            self._kinds[span.id] = told.kind
            nodes = told.body.get("ranked", told.body.get("nodes"))
            if nodes and told.kind in ("retrieval", "rerank"):
                self._nodes[span.id] = [node["id"] for node in nodes]
                found = self._found.setdefault(span.trace, [])
                found.append((span.time, span.id, nodes))

    def _around(self, id_: str) -> Iterator[str]:
        seen = {id_}
        outer = self.parents.get(id_)
        while outer is not None and outer not in seen:
            seen.add(outer)
            yield outer
            outer = self.parents.get(outer)

    def finished(self, span: Span, told: Told) -> Iterator[Row]:
        """A record with its request; none of what an enclosing span tells as well."""
        around = [self._kinds[id_] for id_ in self._around(span.id) if id_ in self._kinds]
        if told.kind in ("llm", "selection", "evaluation") and told.kind in around:
            return  # chat() answered through complete(): the outer one tells it
        within = next((k for k in around if k in ("selection", "rerank", "evaluation")), None)
        head = {"kind": told.kind, "trace": span.trace, "time": span.time, "span": span.id}
        row = {**head, **told.body, "within": within}
        if told.kind == "query":
            row["inner"] = "query" in around
            row["nodes"] = row["nodes"] or self._last_found(span)
            if not row["inner"] and within is None:
                yield from self._verdicts(row)
        yield row

    def _last_found(self, query: Span) -> list[dict[str, Any]]:
        """What a query's answer was made from: what was found last within it."""
        found = self._found.get(query.trace, ())
        inside = [(time, nodes) for time, id_, nodes in found if query.id in self._around(id_)]
        return max(inside, key=lambda item: item[0])[1] if inside else []

    def _verdicts(self, query: Row) -> Iterator[Row]:
        if self._judged is None:
            self._judged = {}
            for note in self.notes:
                trace = self._trace(note)
                if not note.by_person and trace is not None and note.score is not None:
                    self._judged.setdefault(trace, []).append(note)
        for note in self._judged.pop(query["trace"], ()):
            asked = {"query": query["query"], "response": query["response"], "contexts": None}
            verdict = {"score": note.score, "passing": None, "feedback": note.comment}
            head = {"kind": "evaluation", "trace": query["trace"], "time": query["time"]}
            yield {**head, "by": note.name, "model": note.name, **asked, **verdict, "within": None}

    def _trace(self, note: Note) -> str | None:
        if note.span is not None and note.span in self._traces:
            return self._traces[note.span]
        return note.trace

    def feedback(self, faults: Faults) -> Iterator[Row]:
        """What people said; of documents, as the nodes that they found relevant."""
        named: dict[str, dict[str, list[str]]] = {}
        for note in sorted(self.notes, key=lambda note: note.time):
            trace = self._trace(note)
            if not note.by_person:
                continue
            if trace is None:
                faults["of an annotation whose span is not there"] += 1
            elif note.document is not None:
                nodes = self._nodes.get(note.span or "", [])
                if note.score is None or not 0 <= note.document < len(nodes):
                    faults["of an annotation whose document is not there"] += 1
                    continue
                judged = named.setdefault(trace, {"relevant": [], "irrelevant": []})
                key = "relevant" if note.score > 0 else "irrelevant"
                judged[key].append(nodes[note.document])
            elif note.score is None and note.answer is None:
                faults["of an annotation that is neither a number, thumbs nor an answer"] += 1
            else:
                said = {"score": note.score, "comment": note.comment, "answer": note.answer}
                yield {"kind": "feedback", "trace": trace, "time": note.time, **said}
        for trace, judged in named.items():
            yield {"kind": "feedback", "trace": trace, "time": 0.0, "score": None, **judged}
        unused = sum(map(len, (self._judged or {}).values()))
        if unused:
            faults["of a verdict on a request without a query"] += unused
