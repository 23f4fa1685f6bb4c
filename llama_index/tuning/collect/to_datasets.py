"""Recorded traffic as retrieval, routing, relevance and judgment datasets."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import whole_number
from llama_index.tuning.collect.recorded import Recorded, say_left_out
from llama_index.tuning.datasets.checks import is_number
from llama_index.tuning.datasets.formats.routing import called, offered_pairs
from llama_index.tuning.datasets.relevance import ranked_scores
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.tuning.collect.recorded import Record, Teacher, Where
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.relevance import RelevanceDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.routing import RoutingDataset


Asked = tuple[str, str]  # a request's trace, and a query that it made
_BLANK = "with a blank query"
_NO_TEXT = "naming a node whose text is not there (give feedback the node, or use add_nodes)"
_DISLIKED = "that the user disliked, without a word on what would have helped"
_NO_QUERY = "naming a node that no query of the request found, of which there were several"


def retrieval_dataset(
    traffic: Recorded, where: Where | None, teacher: Teacher | None, top_n: int
) -> RetrievalDataset:
    """Queries with the passages that users chose, a re-ranker put first, or an answer is from."""
    from llama_index.tuning.datasets.retrieval import RetrievalDataset

    top_n = whole_number("top_n", top_n, 1)
    left_out: Counter[str] = Counter()
    texts = {id_: text for id_, text in traffic.texts.items() if text.strip()}
    ranked: dict[Asked, list[str]] = {}
    shown: dict[Asked, set[str]] = {}
    kinds = ("rerank",) if teacher is not None else ("retrieval", "query", "rerank")
    for kind in kinds:  # the later kind is the better witness and takes the place of the earlier
        for record in traffic.select(kind, where, teacher):
            if record.data.get("within") == "evaluation":
                continue
            if not record.data["query"].strip():
                left_out[_BLANK] += 1
                continue
            found = record.data.get("ranked", record.data["nodes"])
            ids = [node["id"] for node in found if node["id"] in texts]
            key = record.trace, record.data["query"]
            shown.setdefault(key, set()).update(ids)
            if ids:
                ranked[key] = ids[:top_n]
    if teacher is None:  # people know better than any component
        for key in [key for key in ranked if _disliked(traffic, key[0])]:
            del ranked[key]
            left_out[_DISLIKED] += 1
        for key, chosen in _chosen_by_users(traffic, shown, left_out).items():
            left_out[_NO_TEXT] += sum(id_ not in texts for id_ in chosen)
            ranked[key] = [id_ for id_ in chosen if id_ in texts]
    queries, relevant = {}, {}
    for number, ((_, query), ids) in enumerate(ranked.items()):
        if kept := list(dict.fromkeys(ids)):
            queries[f"q{number}"], relevant[f"q{number}"] = query, kept
    _tell(traffic, "retrieval", left_out)
    _need(queries, "retrieval", "no retrieval or re-ranking", left_out, where, teacher)
    return RetrievalDataset(queries, texts, relevant)


def _disliked(traffic: Recorded, trace: str) -> bool:
    said = traffic.last_feedback(trace) or {}
    return said.get("score") is not None and said["score"] <= 0 and said.get("relevant") is None


def _chosen_by_users(
    traffic: Recorded, shown: dict[Asked, set[str]], left_out: Counter[str]
) -> dict[Asked, list[str]]:
    """The nodes that users' feedback names, each for the query that found it.

    One that none of a request's queries found belongs to the query that the user asked.
    """
    requests: dict[str, list[Asked]] = {}
    for key in shown:
        requests.setdefault(key[0], []).append(key)
    chosen = {}
    for trace, keys in requests.items():
        named = (traffic.last_feedback(trace) or {}).get("relevant")
        if named is None:
            continue
        named = list(dict.fromkeys(named))
        missed = [id_ for id_ in named if not any(id_ in shown[key] for key in keys)]
        first = _asked_by_user(traffic, keys) if missed else None
        if missed and first is None:
            left_out[_NO_QUERY] += len(missed)
        for key in keys:
            wanted = {*missed, *shown[key]} if key == first else shown[key]
            chosen[key] = [id_ for id_ in named if id_ in wanted]
    return chosen


def _asked_by_user(traffic: Recorded, keys: list[Asked]) -> Asked | None:
    """Which of a request's queries is the user's own: others are made of it."""
    if len(keys) == 1:
        return keys[0]
    asked = {
        (record.trace, record.data["query"])
        for record in traffic.select("query", lambda record: record.trace == keys[0][0])
        if not record.data.get("inner") and record.data.get("within") is None
    }
    found = [key for key in keys if key in asked]
    return found[0] if len(found) == 1 else None


def routing_dataset(
    traffic: Recorded, where: Where | None, teacher: Teacher | None
) -> RoutingDataset:
    """Queries with the choices that a router made, corrected by feedback."""
    from llama_index.tuning.datasets.routing import RoutingDataset

    left_out: Counter[str] = Counter()
    rows = selection_rows(traffic, where, teacher, left_out)
    _tell(traffic, "routing", left_out)
    _need(rows, "routing", "no selection", left_out, where, teacher)
    return RoutingDataset.from_selections(rows)


def selection_rows(
    traffic: Recorded, where: Where | None, teacher: Teacher | None, left_out: Counter[str]
) -> list[dict[str, Any]]:
    """Selections as plain rows: query, choices, selected positions, feedback.

    A choice whose name changed in case or space keeps its first spelling.
    """
    records = list(traffic.select("selection", where, teacher))
    offers = [offered_pairs(record.data["choices"]) for record in records]
    counts = [Counter(name for name, _ in pairs) for pairs in offers]
    shared = {name for found in counts for name, number in found.items() if number > 1}
    spelling: dict[str, str] = {}
    rows = []
    for record, pairs in zip(records, offers, strict=True):
        choices = called(pairs, shared)
        folded = [normalise(name) for name, _ in choices]
        if not record.data["query"].strip():
            left_out[_BLANK] += 1
        elif not all(folded):
            left_out["with a choice that has neither name nor description"] += 1
        elif len(set(folded)) < len(folded):
            left_out["with two choices of the same name and description"] += 1
        elif any(position >= len(choices) for position in record.data["selected"]):
            left_out["with a selection that was not offered"] += 1
        else:
            names = [
                spelling.setdefault(fold, name)
                for fold, (name, _) in zip(folded, choices, strict=True)
            ]
            offered = {name: text for name, (_, text) in zip(names, choices, strict=True)}
            selected = [names[position] for position in record.data["selected"]]
            row = {"query": record.data["query"], "choices": offered, "selected": selected}
            rows.append((row, traffic.last_feedback(record.trace)))
    kept = []
    for row, given in rows:
        if given is not None and given["choice"]:
            correct = spelling.get(normalise(given["choice"]))
            if correct is None:
                left_out["corrected to a choice that no router offers"] += 1
                continue
            row["feedback"] = {"correct": correct}
        elif given is not None and given["score"] is not None:
            row["feedback"] = given["score"] > 0
        kept.append(row)
    return kept


def relevance_dataset(
    traffic: Recorded, where: Where | None, teacher: Teacher | None
) -> RelevanceDataset:
    """Queries with passages and a re-ranker's scores, the lowest of a list 0 or more."""
    from llama_index.tuning.datasets.records import Candidate, RelevanceList
    from llama_index.tuning.datasets.relevance import RelevanceDataset

    left_out: Counter[str] = Counter()
    rows = relevance_rows(traffic, where, teacher, left_out)
    _tell(traffic, "relevance", left_out)
    _need(rows, "relevance", "no re-ranking", left_out, where, teacher)
    return RelevanceDataset(
        [
            RelevanceList(
                row["query_id"], row["query"], [Candidate(**c) for c in row["candidates"]]
            )
            for row in rows
        ]
    )


def users_relevance_dataset(traffic: Recorded, where: Where | None) -> RelevanceDataset:
    """Queries with the passages that were retrieved, 1 for those that users named, else 0."""
    from llama_index.tuning.datasets.relevance import RelevanceDataset

    left_out: Counter[str] = Counter()
    found: dict[Asked, list[Record]] = {}
    for record in traffic.select("retrieval", where):
        if record.data["query"].strip():
            found.setdefault((record.trace, record.data["query"]), []).append(record)
        else:
            left_out[_BLANK] += 1
    nodes = {key: _found_nodes(traffic, records) for key, records in found.items()}
    chosen = _chosen_by_users(traffic, {key: set(ids) for key, ids in nodes.items()}, left_out)
    rows = []
    for number, key in enumerate(found):
        if chosen.get(key):
            irrelevant = (traffic.last_feedback(key[0]) or {}).get("irrelevant")
            head = {"id": f"q{number}", "query": key[1], "nodes": list(nodes[key].values())}
            rows.append({**head, "relevant": chosen[key], "irrelevant": irrelevant})
    _tell(traffic, "relevance", left_out)
    _need(rows, "relevance", "no feedback(relevant=…) on a retrieval", left_out, where)
    return RelevanceDataset.from_feedback(rows)


def _found_nodes(traffic: Recorded, records: list[Record]) -> dict[str, dict[str, Any]]:
    """What one query found, by id; of retrievers within retrievers the innermost ended first.

    That one gave the candidates' own scores; what others added has none that compares.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for record in records:
        for node in record.data["nodes"]:
            text = traffic.texts.get(node["id"], "")
            if text.strip() and node["id"] not in nodes:
                score = node["score"] if record is records[0] and is_number(node["score"]) else None
                nodes[node["id"]] = {"node_id": node["id"], "text": text, "score": score}
    return nodes


def relevance_rows(
    traffic: Recorded, where: Where | None, teacher: Teacher | None, left_out: Counter[str]
) -> list[dict[str, Any]]:
    """One plain row for each re-ranking: query_id, query, candidates in the order found.

    A passage that the re-ranker left out scores 0; the others as `ranked_scores` says.
    """
    rows = []
    for number, record in enumerate(traffic.select("rerank", where, teacher)):
        if not record.data["query"].strip():
            left_out[_BLANK] += 1
            continue
        if any(n["score"] is not None and not is_number(n["score"]) for n in record.data["ranked"]):
            left_out["with a score that is not finite"] += 1
            continue
        scores = _scores(record)
        found = {n["id"]: n for n in record.data["nodes"] if traffic.texts.get(n["id"], "").strip()}
        candidates = [
            {
                "node_id": id_,
                "text": traffic.texts[id_],
                "score": scores.get(id_, 0.0),
                "retrieval_score": node["score"] if is_number(node["score"]) else None,
            }
            for id_, node in found.items()
        ]
        if candidates:
            query = {"query_id": f"q{number}", "query": record.data["query"]}
            rows.append({**query, "candidates": candidates})
        else:
            left_out["without a passage's text"] += 1
    return rows


def _scores(record: Record) -> dict[str, float]:
    given = {n["id"]: n["score"] if is_number(n["score"]) else None for n in record.data["nodes"]}
    return ranked_scores([(n["id"], n["score"]) for n in record.data["ranked"]], given)


def judgment_dataset(
    traffic: Recorded, where: Where | None, teacher: Teacher | None
) -> JudgmentDataset:
    """Verdicts of judges, and users' feedback on answers."""
    from llama_index.tuning.datasets.checks import judgment_faults
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.records import Judgment

    left_out: Counter[str] = Counter()
    rows = judgment_rows(traffic, where, teacher, left_out)
    judgments = []
    for judgment in (Judgment(**row) for row in rows):
        fault = next(iter(judgment_faults(judgment)), None)
        if fault is None:
            judgments.append(judgment)
        else:
            left_out[f"because {fault}"] += 1
    _tell(traffic, "judgment", left_out)
    missing = "no evaluation, and no feedback on an answer"
    _need(judgments, "judgment", missing, left_out, where, teacher)
    return JudgmentDataset(judgments)


def judgment_rows(
    traffic: Recorded, where: Where | None, teacher: Teacher | None, left_out: Counter[str]
) -> list[dict[str, Any]]:
    """Verdicts as plain rows; those of people come only without `teacher=`."""
    keys = ("query", "response", "contexts", "reference", "second_response", "score", "passing")
    rows = []
    for record in traffic.select("evaluation", where, teacher):
        if record.data.get("invalid_result"):
            left_out["whose judge's reply could not be read"] += 1
            continue
        row = {key: record.data.get(key) for key in (*keys, "feedback")}
        rows.append({**row, "source": record.model, "judge": record.by})
    for record in traffic.select("query", where) if teacher is None else ():
        feedback = traffic.last_feedback(record.trace)
        if feedback is None or feedback["score"] is None or record.data["response"] is None:
            continue
        if record.data.get("inner") or record.data.get("within") is not None:
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


def _tell(traffic: Recorded, view: str, left_out: Counter[str]) -> None:
    left_out += Counter()  # drops what was counted as none
    traffic.left_out |= {f"{view}: {reason}": number for reason, number in left_out.items()}
    say_left_out(f"the {view} dataset", left_out)


def _need(found: Any, what: str, missing: str, left_out: Counter[str], *filters: object) -> None:
    if not found:
        seen = " that where= and teacher= let through" if any(filters) else ""
        faults = [f"{number} left out {reason}" for reason, number in left_out.items()]
        raise DatasetError(
            f"no {what} dataset can be made: the log has {missing}{seen}"
            f"{' that can be used:' if faults else ''}",
            faults,
        )
