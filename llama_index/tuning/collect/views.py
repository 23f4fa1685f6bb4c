"""Recorded traffic as retrieval, routing, relevance and judgment datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.tuning.datasets._ranked_scores import ranked_scores
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.tuning.collect.traffic import Record, Teacher, Traffic, Where
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.relevance import RelevanceDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.routing import RoutingDataset


def retrieval_dataset(
    traffic: Traffic, where: Where | None, teacher: Teacher | None, top_n: int
) -> RetrievalDataset:
    """Queries with the passages that users chose, a re-ranker put first, or an answer is from."""
    from llama_index.tuning.datasets.retrieval import RetrievalDataset

    if top_n < 1:
        raise ValueError(f"top_n must be >= 1, got {top_n}")
    ranked: dict[tuple[str, str], list[str]] = {}
    shown: dict[tuple[str, str], set[str]] = {}
    kinds = ("rerank",) if teacher is not None else ("retrieval", "query", "rerank")
    for kind in kinds:  # the later kind is the better witness and takes the place of the earlier
        for record in traffic.select(kind, where, teacher):
            if record.data.get("within") == "evaluation":
                continue
            found = record.data.get("ranked", record.data["nodes"])
            ids = [node["id"] for node in found if node["id"] in traffic.texts]
            if ids and record.data["query"].strip():
                key = record.trace, record.data["query"]
                ranked[key] = ids[:top_n]
                shown.setdefault(key, set()).update(ids)
    if teacher is None:  # people know better than any component
        ranked |= {
            key: chosen
            for key, ids in shown.items()
            if (chosen := _chosen(traffic, key[0], ids)) is not None
        }
    texts = {id_: text for id_, text in traffic.texts.items() if text.strip()}
    queries, relevant = {}, {}
    for number, ((_, query), ids) in enumerate(ranked.items()):
        if kept := [id_ for id_ in dict.fromkeys(ids) if id_ in texts]:
            queries[f"q{number}"], relevant[f"q{number}"] = query, kept
    _need(queries, "retrieval", "no retrieval or re-ranking", where, teacher)
    return RetrievalDataset(queries, texts, relevant)


def routing_dataset(
    traffic: Traffic, where: Where | None, teacher: Teacher | None
) -> RoutingDataset:
    """Queries with the choices that a router made, corrected by feedback."""
    from llama_index.tuning.datasets.routing import RoutingDataset

    rows = selection_rows(traffic, where, teacher)
    _need(rows, "routing", "no selection", where, teacher)
    return RoutingDataset.from_selections(rows)


def selection_rows(
    traffic: Traffic, where: Where | None, teacher: Teacher | None
) -> list[dict[str, Any]]:
    """Selections as plain rows: query, choices, selected positions, feedback."""
    rows = []
    for record in traffic.select("selection", where, teacher):
        row = {key: record.data[key] for key in ("query", "choices", "selected")}
        feedback = traffic.last_feedback(record.trace)
        if feedback is not None:
            liked = feedback["score"] > 0
            row["feedback"] = {"correct": feedback["choice"]} if feedback["choice"] else liked
        rows.append(row)
    return rows


def relevance_dataset(
    traffic: Traffic, where: Where | None, teacher: Teacher | None
) -> RelevanceDataset:
    """Queries with passages and a re-ranker's scores, the lowest of a list 0 or more."""
    from llama_index.tuning.datasets.relevance import Candidate, RelevanceDataset, RelevanceList

    rows = relevance_rows(traffic, where, teacher)
    _need(rows, "relevance", "no re-ranking", where, teacher)
    return RelevanceDataset(
        [
            RelevanceList(
                row["query_id"], row["query"], [Candidate(**c) for c in row["candidates"]]
            )
            for row in rows
        ]
    )


def users_relevance_dataset(traffic: Traffic, where: Where | None) -> RelevanceDataset:
    """Queries with the passages that were retrieved, 1 for those that users named, else 0."""
    from llama_index.tuning.datasets.relevance import RelevanceDataset

    found: dict[tuple[str, str], list[Record]] = {}
    for record in traffic.select("retrieval", where):
        found.setdefault((record.trace, record.data["query"]), []).append(record)
    rows = []
    for number, ((trace, query), records) in enumerate(found.items()):
        nodes = _found_nodes(traffic, records)
        chosen = _chosen(traffic, trace, set(nodes))
        if chosen and query.strip():
            irrelevant = (traffic.last_feedback(trace) or {}).get("irrelevant")
            head = {"id": f"q{number}", "query": query, "nodes": list(nodes.values())}
            rows.append({**head, "relevant": chosen, "irrelevant": irrelevant})
    _need(rows, "relevance", "no feedback(relevant=…) on a retrieval", where)
    return RelevanceDataset.from_feedback(rows)


def _found_nodes(traffic: Traffic, records: list[Record]) -> dict[str, dict[str, Any]]:
    """What one query found, by id; of retrievers within retrievers the innermost ended first.

    That one gave the candidates' own scores; what others added has none that compares.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for record in records:
        for node in record.data["nodes"]:
            text = traffic.texts.get(node["id"], "")
            if text.strip() and node["id"] not in nodes:
                score = node["score"] if record is records[0] else None
                nodes[node["id"]] = {"node_id": node["id"], "text": text, "score": score}
    return nodes


def _chosen(traffic: Traffic, trace: str, shown: set[str]) -> list[str] | None:
    """The nodes that a user's feedback names, of those shown; `None` where it names none."""
    named = (traffic.last_feedback(trace) or {}).get("relevant")
    return None if named is None else [id_ for id_ in dict.fromkeys(named) if id_ in shown]


def relevance_rows(
    traffic: Traffic, where: Where | None, teacher: Teacher | None
) -> list[dict[str, Any]]:
    """One plain row for each re-ranking: query_id, query, candidates in the order found.

    A passage that the re-ranker left out scores 0; the others as `ranked_scores` says.
    """
    rows = []
    for number, record in enumerate(traffic.select("rerank", where, teacher)):
        scores = _scores(record)
        found = {n["id"]: n for n in record.data["nodes"] if traffic.texts.get(n["id"], "").strip()}
        candidates = [
            {
                "node_id": id_,
                "text": traffic.texts[id_],
                "score": scores.get(id_, 0.0),
                "retrieval_score": node["score"],
            }
            for id_, node in found.items()
        ]
        if candidates and record.data["query"].strip():
            query = {"query_id": f"q{number}", "query": record.data["query"]}
            rows.append({**query, "candidates": candidates})
    return rows


def _scores(record: Record) -> dict[str, float]:
    given = {node["id"]: node["score"] for node in record.data["nodes"]}
    return ranked_scores([(n["id"], n["score"]) for n in record.data["ranked"]], given)


def judgment_dataset(
    traffic: Traffic, where: Where | None, teacher: Teacher | None
) -> JudgmentDataset:
    """Verdicts of judges, and users' feedback on answers."""
    from llama_index.tuning.datasets.judgments import JudgmentDataset

    rows = judgment_rows(traffic, where, teacher)
    _need(rows, "judgment", "no evaluation, and no feedback on an answer", where, teacher)
    return JudgmentDataset.from_records(rows)


def judgment_rows(
    traffic: Traffic, where: Where | None, teacher: Teacher | None
) -> list[dict[str, Any]]:
    """Verdicts as plain rows; those of people come only without `teacher=`."""
    keys = ("query", "response", "contexts", "reference", "second_response", "score", "passing")
    rows = []
    for record in traffic.select("evaluation", where, teacher):
        if record.data["invalid_result"]:
            continue
        row = {key: record.data[key] for key in keys}
        rows.append(
            {**row, "feedback": record.data["feedback"], "source": record.model, "judge": record.by}
        )
    for record in traffic.select("query", where) if teacher is None else ():
        feedback = traffic.last_feedback(record.trace)
        if feedback is None or record.data["response"] is None:
            continue
        if record.data["inner"] or record.data["within"] is not None:
            continue
        contexts = [
            traffic.texts[node["id"]]
            for node in record.data["nodes"]
            if node["id"] in traffic.texts
        ]
        rows.append(
            {
                **dict.fromkeys(keys),
                "query": record.data["query"],
                "response": record.data["response"],
                "contexts": contexts,
                "reference": feedback["answer"],
                "score": feedback["score"],
                "passing": feedback["score"] > 0,
                "feedback": feedback["comment"],
                "source": "human",
                "judge": None,
            }
        )
    return rows


def _need(found: Any, what: str, missing: str, *filters: object) -> None:
    if not found:
        seen = " that where= and teacher= let through" if any(filters) else ""
        raise DatasetError(f"no {what} dataset can be made: the log has {missing}{seen}")
