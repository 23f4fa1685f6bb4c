import json
import re

import pytest
from llama_index.core.schema import ImageNode, TextNode

from llama_index.tuning import (
    ChatDataset,
    EmbeddingQAFinetuneDataset,
    RelevanceDataset,
    RetrievalDataset,
)
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate import MinedDataset


def parts(**changes):
    sound = {
        "queries": {"q1": "one?", "q2": "two?"},
        "corpus": {"d1": "first", "d2": "second"},
        "relevant_docs": {"q1": ["d1"], "q2": ["d2"]},
    }
    return {**sound, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": ["one?"]}, "queries must be a dictionary, got list"),
        ({"corpus": None}, "corpus must be a dictionary, got NoneType"),
        ({"relevant_docs": 3}, "relevant_docs must be a dictionary, got int"),
        ({"mode": "image"}, "mode must be 'text', got 'image'"),
        ({"queries": {"q1": "one?", "q2": " \n"}}, "query 'q2': the text is empty"),
        ({"queries": {"q1": "one?", "q2": 7}}, "query 'q2': the text must be a string, got int"),
        ({"corpus": {"d1": "first", "d2": None}}, "document 'd2': the text must be a string"),
        ({"corpus": {"d1": "first", "": "x", "d2": "s"}}, "document id '' must be a non-empty"),
        ({"relevant_docs": {"q1": ["d1"], "q2": ["d9"]}}, "document 'd9' is not in the corpus"),
        ({"relevant_docs": {"q1": ["d1"]}}, "query 'q2' has no entry in relevant_docs"),
        ({"relevant_docs": {"q1": ["d1"], "q2": []}}, "query 'q2' has no relevant documents"),
        ({"relevant_docs": {"q1": ["d1"], "q2": "d2"}}, r"relevant_docs\['q2'\] must be a list"),
        ({"relevant_docs": {"q1": ["d1"], "q2": [2]}}, r"relevant_docs\['q2'\] must hold strings"),
        (
            {"relevant_docs": {"q1": ["d1"], "q2": ["d2"], "q9": ["d1"]}},
            "names query 'q9', which is not in queries",
        ),
    ],
)
def test_each_fault_is_named_with_its_id(changes, words):
    with pytest.raises(DatasetError, match=words):
        RetrievalDataset(**parts(**changes))


def test_all_faults_are_kept_and_the_message_stays_short():
    with pytest.raises(DatasetError, match="and 90 more") as caught:
        RetrievalDataset(
            {f"q{i}": "" for i in range(100)},
            {"d": "text"},
            {f"q{i}": ["d"] for i in range(100)},
        )
    assert len(caught.value.faults) == 100


def test_same_text_with_other_answers_warns_with_ids_and_can_be_merged():
    with pytest.warns(UserWarning, match="'q1', 'q2'"):
        dataset = RetrievalDataset(**parts(queries={"q1": "What is it?", "q2": "what  is it?"}))
    merged = dataset.merge_duplicates()
    assert merged.queries == {"q1": "What is it?"}
    assert merged.relevant_docs == {"q1": ["d1", "d2"]}


def test_the_old_packages_file_loads_unchanged(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**parts(), "mode": "text"}, indent=4))
    dataset = EmbeddingQAFinetuneDataset.from_json(str(path))
    assert dataset.query_docid_pairs == [("one?", ["d1"]), ("two?", ["d2"])]


def test_save_and_load_keep_every_character(tmp_path):
    dataset = RetrievalDataset(**parts(queries={"q1": "größe? 大小 🙂\u2028", "q2": "two?"}))
    dataset.save_json(tmp_path / "deep" / "data.json")
    loaded = RetrievalDataset.from_json(tmp_path / "deep" / "data.json")
    assert loaded == dataset
    assert loaded.fingerprint() == dataset.fingerprint()
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["data.json"]


def test_splits_share_one_corpus_file(tmp_path):
    sound = parts()
    (tmp_path / "corpus.json").write_text(json.dumps(sound.pop("corpus")))
    (tmp_path / "train.json").write_text(json.dumps(sound))
    dataset = RetrievalDataset.from_json(tmp_path / "train.json", corpus=tmp_path / "corpus.json")
    assert dataset.corpus["d2"] == "second"
    with pytest.raises(DatasetError, match="lacks corpus; pass corpus="):
        RetrievalDataset.from_json(tmp_path / "train.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"queries": {"q1": "one', "not valid JSON, or is truncated"),
        ("[1, 2]", "must be a JSON object, got list"),
        ('{"queries": {}, "corpus": {}, "relevant_docs": {}, "labels": 1}', "unknown keys: labels"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        ("", "bad.json is empty"),
        ('{"What is due?": ["n1"]}', r"relevant_docs: it must hold queries .*from_nodes\(\)"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, words):
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=words):
        RetrievalDataset.from_json(path)


def write_beir(folder, qrels="query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"):
    (folder / "qrels").mkdir()
    rows = [{"_id": "d1", "title": "T", "text": "first"}, {"_id": "d2", "text": "second"}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "queries.jsonl").write_text(
        json.dumps({"_id": "q1", "text": "one?"}) + "\n" + json.dumps({"_id": "q2", "text": "x"})
    )
    (folder / "qrels" / "test.tsv").write_text(qrels)


def test_beir_folder_loads_with_the_judged_queries_only(tmp_path):
    write_beir(tmp_path)
    dataset = RetrievalDataset.load(tmp_path)
    assert dataset.queries == {"q1": "one?"}
    assert dataset.corpus == {"d1": "T\nfirst", "d2": "second"}
    assert dataset.relevant_docs == {"q1": ["d1"]}


def test_beir_faults_name_file_and_line(tmp_path):
    write_beir(tmp_path, qrels="query-id\tcorpus-id\tscore\nq1 d1 1\n")
    with pytest.raises(DatasetError, match="line 2 must be"):
        RetrievalDataset.from_beir(tmp_path)
    with pytest.raises(DatasetError, match=r"missing:\n  - .*train.tsv"):
        RetrievalDataset.from_beir(tmp_path, split="train")


def many(n=40):
    return RetrievalDataset(
        {f"q{i}": f"question {i // 2}" for i in range(n)},
        {f"d{i}": f"text {i}" for i in range(n)},
        {f"q{i}": [f"d{i // 2 // 2}"] for i in range(n)},
    )


def test_split_never_puts_one_text_on_both_sides():
    for seed in range(20):
        train, test = many().split(0.3, seed=seed)
        assert not set(train.queries.values()) & set(test.queries.values())
        assert len(train) + len(test) == 40
        assert 12 <= len(test) <= 14


def test_split_by_document_keeps_answers_apart_and_is_seeded():
    train, test = many().split(0.3, by="document", seed=3)
    answers = [{d for docs in part.relevant_docs.values() for d in docs} for part in (train, test)]
    assert not answers[0] & answers[1]
    assert many().split(0.3, by="document", seed=3) == (train, test)
    assert many().split(0.3, by="document", seed=4) != (train, test)


def test_split_refuses_what_cannot_be_split(tiny_dataset):
    with pytest.raises(ValueError, match=r"test_size must be between 0 and 1, got 1\.5"):
        tiny_dataset.split(1.5)
    with pytest.raises(ValueError, match="unknown by 'node'; choose one of: query, document"):
        tiny_dataset.split(by="node")
    with pytest.raises(DatasetError, match="cannot split by document"):
        tiny_dataset.subset(["q1", "q3"]).split(by="document")


def test_nodes_round_trip():
    nodes = [TextNode(id_="n1", text="body", metadata={"title": "T"})]
    dataset = RetrievalDataset.from_nodes(nodes, {"q": "what?"}, {"q": ["n1"]})
    assert dataset.corpus == {"n1": "title: T\n\nbody"}
    assert [(n.node_id, n.text) for n in dataset.to_nodes()] == [("n1", "title: T\n\nbody")]
    assert RetrievalDataset.from_nodes(nodes * 2, {"q": "what?"}, {"q": ["n1"]}) == dataset
    other = TextNode(id_="n1", text="another body")
    with pytest.raises(DatasetError, match="node id 'n1' has 2 different texts"):
        RetrievalDataset.from_nodes([*nodes, other], {"q": "what?"}, {"q": ["n1"]})
    with pytest.raises(DatasetError, match=r"\['q'\] must be a list of document ids, got str"):
        RetrievalDataset.from_nodes(nodes, {"q": "what?"}, {"q": "n1"})


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        (RetrievalDataset(**parts()), r"RetrievalDataset\(\d+ queries, \d+ documents\)"),
        (MinedDataset(**parts()), r"MinedDataset\(\d+ queries, \d+ documents\)"),
        (
            RelevanceDataset.from_labels({"q": "one?"}, {"d": "first"}, {"q": {"d": 1}}),
            r"RelevanceDataset\(1 queries, 1 candidates\)",
        ),
        (ChatDataset([]), r"ChatDataset\(0 conversations\)"),
    ],
)
def test_a_dataset_at_a_prompt_is_one_line(dataset, shown):
    assert re.fullmatch(shown, repr(dataset))


def test_anything_of_the_same_shape_is_taken():
    class Old:
        queries, corpus, relevant_docs, mode = *parts().values(), "text"

    assert RetrievalDataset.coerce(Old()) == RetrievalDataset(**parts())
    with pytest.raises(TypeError, match="got dict"):
        RetrievalDataset.coerce(parts())


@pytest.mark.parametrize("part", ["queries", "corpus"])
def test_half_a_surrogate_pair_is_named_with_its_id(part):
    parts = {"queries": {"q": "fee?"}, "corpus": {"d": "text"}, "relevant_docs": {"q": ["d"]}}
    parts[part] = dict.fromkeys(parts[part], "a\ud83d")
    with pytest.raises(DatasetError, match=r"'[qd]': .*lone surrogate"):
        RetrievalDataset(**parts)


def test_nodes_without_text_are_left_out_and_counted(caplog):
    given = [
        TextNode(id_="a", text="Refunds take ten days."),
        TextNode(id_="empty", text=" \n"),
        ImageNode(id_="image", image_path="a.png"),
    ]
    labels = {"q1": ["a", "empty"], "q2": ["image"]}
    dataset = RetrievalDataset.from_nodes(given, {"q1": "How long?", "q2": "What is seen?"}, labels)
    assert dataset.corpus == {"a": "Refunds take ten days."}
    assert dataset.relevant_docs == {"q1": ["a"]}
    assert dataset.queries == {"q1": "How long?"}
    assert "2 of 3 nodes have no text, such as 'empty', and are left out" in caplog.text
    assert "1 of 2 queries are left out: none of their documents has a text" in caplog.text
    with pytest.raises(DatasetError, match="none of the 1 nodes has a text, such as 'image'"):
        RetrievalDataset.from_nodes(given[2:], {}, {})
