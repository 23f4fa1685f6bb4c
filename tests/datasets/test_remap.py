"""Labels survive another ingestion: other ids, other chunks, other metadata, small edits."""

import random
import time

import pytest
from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.errors import DatasetError

DRAW = random.Random(0)
VOCABULARY = [f"word{n}" for n in range(900)]
SENTENCES = [" ".join(DRAW.choices(VOCABULARY, k=12)).capitalize() + "." for _ in range(300)]
DOCUMENT = Document(text=" ".join(SENTENCES), metadata={"file_path": "/old/handbook.txt"})


def chunks(size, overlap=0, **metadata):
    document = Document(text=DOCUMENT.text, metadata={**DOCUMENT.metadata, **metadata})
    return SentenceSplitter(chunk_size=size, chunk_overlap=overlap)([document])


def dataset(nodes):
    queries = {f"q{n}": f"What of {node.text[:30]}?" for n, node in enumerate(nodes)}
    return RetrievalDataset.from_nodes(
        nodes, queries, {f"q{n}": [node.node_id] for n, node in enumerate(nodes)}
    )


def texts(found):
    return {
        query: [found.dataset.corpus[id_] for id_ in ids]
        for query, ids in found.dataset.relevant_docs.items()
    }


def test_the_same_chunks_under_new_ids_and_paths_are_found_exactly():
    old, new = chunks(200), chunks(200, file_path="/new/handbook.txt", page_label="7")
    DRAW.shuffle(new)
    found = dataset(old).remap(new)
    assert found.counts.keys() <= {"exact", "contained", "near", "split"}
    for node, (query, held) in zip(old, texts(found).items(), strict=True):
        assert any(node.text[40:200] in text for text in held), query


def test_new_ids_alone_change_nothing_else():
    old, new = chunks(200), chunks(200)
    found = dataset(old).remap(new)
    assert found.counts == {"exact": len(old)}
    pairs = list(found.dataset.relevant_docs.values())
    assert pairs == [[node.node_id] for node in new]
    again = dataset(old).remap(old)
    assert again.dataset.relevant_docs == dataset(old).relevant_docs


@pytest.mark.parametrize(("before", "after"), [(120, 400), (400, 120), (200, 230)])
@pytest.mark.parametrize("overlap", [0, 40])
def test_another_splitter_keeps_every_label_on_its_text(before, after, overlap):
    old, new = chunks(before), chunks(after, overlap)
    found = dataset(old).remap(new)
    assert not found.gone
    for node, ids in zip(old, found.dataset.relevant_docs.values(), strict=True):
        mine = set(node.text.split())
        for id_ in ids:
            other = set(next(n for n in new if n.node_id == id_).text.split())
            assert len(mine & other) >= 0.2 * min(len(mine), len(other))
        held = " ".join(found.dataset.corpus[id_] for id_ in ids)
        assert len(mine & set(held.split())) >= 0.6 * len(mine)
    assert "contained" in found.counts if before < after else "split" in found.counts


def test_a_small_edit_is_near_and_a_removed_text_is_gone():
    old = chunks(200)
    edited = [
        TextNode(id_=f"n{n}", text=node.text.replace(node.text.split()[30], "changed"))
        for n, node in enumerate(old[:-1])
    ]
    found = dataset(old).remap(edited)
    assert found.counts == {"near": len(old) - 1, "gone": 1}
    assert found.gone == [f"q{len(old) - 1}"]
    assert "1 queries lost all of theirs" in str(found)


def test_a_text_under_two_ids_is_found_under_both():
    old = RetrievalDataset({"q": "fee?"}, {"d": "The fee is 5 euros."}, {"q": ["d"]})
    nodes = [TextNode(id_=id_, text="The fee is 5 euros.") for id_ in "ab"]
    assert old.remap(nodes).dataset.relevant_docs == {"q": ["a", "b"]}


@pytest.mark.parametrize(
    "text", ["年費是五歐元。每月第一天收取。", "ค่าธรรมเนียมคือห้ายูโร", "शुल्क पाँच यूरो है।", "5 €"]
)
def test_every_script_is_found(text):
    old = RetrievalDataset({"q": "fee?"}, {"d": text}, {"q": ["d"]})
    nodes = [TextNode(id_="a", text="Other."), TextNode(id_="b", text=f"前 {text} 後")]
    found = old.remap(nodes)
    assert (found.dataset.relevant_docs, found.counts) == ({"q": ["b"]}, {"contained": 1})


def test_nothing_found_is_an_error():
    old = RetrievalDataset({"q": "fee?"}, {"d": "The fee is 5 euros."}, {"q": ["d"]})
    with pytest.raises(DatasetError, match="none of 1 labelled documents is found in the 1 nodes"):
        old.remap([TextNode(text="Something else.")])
    with pytest.raises(TypeError, match="nodes must be a list of nodes, got str"):
        old.remap("nodes")


def test_ten_thousand_nodes_take_seconds():
    nodes = [TextNode(text=" ".join(DRAW.choices(VOCABULARY, k=150))) for _ in range(10_000)]
    old = dataset(nodes[:500])
    new = [TextNode(text=node.text) for node in nodes]
    begun = time.perf_counter()
    assert old.remap(new).counts == {"exact": 500}
    assert time.perf_counter() - begun < 15
