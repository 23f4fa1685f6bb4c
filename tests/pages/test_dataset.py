from llama_index.tuning import JudgmentDataset, RelevanceDataset, RetrievalDataset, RoutingDataset
from llama_index.tuning.datasets import ChatDataset
from tests.pages.reports import EVIL
from tests.pages.test_report import Page

WORDS = EVIL.replace("\ud800", "").replace("\x00", "")


def shown(dataset):
    return Page(dataset._repr_html_()).text


def test_datasets_show_their_first_rows_in_a_notebook():
    numbers = range(8)
    retrieval = RetrievalDataset(
        {f"q{n}": f"question {n} {WORDS}" for n in numbers},
        {f"d{n}": f"document {n}" for n in numbers},
        {f"q{n}": [f"d{n}"] for n in numbers},
    )
    text = shown(retrieval)
    assert "RetrievalDataset(8 queries, 8 documents)" in text
    assert "question 4" in text
    assert "document 4" in text
    assert "question 5" not in text
    assert "and 3 more" in text
    assert "<script>alert(1)</script>" in text

    assert "Where is it? orders" in shown(RoutingDataset.from_pairs([("Where is it?", "orders")]))
    labels = {"q1": {"d1": 0, "d2": 1}}
    relevance = RelevanceDataset.from_labels({"q1": "fee"}, {"d1": "no", "d2": "5 euros"}, labels)
    assert "fee 5 euros 2" in shown(relevance)
    assert "Fee? 5 euros. True" in shown(
        JudgmentDataset.from_records([{"query": "Fee?", "response": "5 euros.", "passing": True}])
    )
    messages = [{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": "5 euros."}]
    assert "Fee? 5 euros." in shown(ChatDataset.from_messages([messages]))
