"""What a newcomer may do wrong: each mistake gets an error that says what was expected."""

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import (
    LightReranker,
    LightRerankerFinetuneEngine,
    TunedRetriever,
)
from llama_index.tuning.errors import DatasetError

from .conftest import NoisyRetriever


class Nothing(NoisyRetriever):
    def _retrieve(self, query_bundle):
        return []


class Fails(NoisyRetriever):
    def _retrieve(self, query_bundle):
        raise RuntimeError("the database is down")


@pytest.mark.parametrize("ranker", [5, "my_reranker"])
def test_arguments_of_other_rerankers_are_not_taken_for_weights(ranker):
    with pytest.raises(
        TypeError, match=r"ranker must be a LinearRanker.*LightReranker\.load\(path"
    ):
        LightReranker(ranker)


def test_a_language_is_no_analyzer():
    with pytest.raises(TypeError, match="analyzer must be an Analyzer, got 'german'"):
        LightReranker(analyzer="german")


def test_only_word_counts_are_statistics():
    with pytest.raises(TypeError, match=r"statistics must be WordStatistics, got 5; with_nodes\("):
        LightReranker(statistics=5)
    with pytest.raises(TypeError, match=r"nodes\[0\] must be a node, got str"):
        LightReranker().with_nodes(["text"])


def test_an_index_is_no_retriever(shop_data):
    index = VectorStoreIndex([TextNode(text="x")], embed_model=MockEmbedding(embed_dim=2))
    with pytest.raises(TypeError, match=r"got VectorStoreIndex; pass index\.as_retriever"):
        LightRerankerFinetuneEngine(shop_data, index)


def test_a_retriever_is_no_index(noisy):
    index = VectorStoreIndex([], embed_model=MockEmbedding(embed_dim=2))
    with pytest.raises(TypeError, match=r"got VectorStoreIndex; pass index\.as_retriever"):
        TunedRetriever(index, [])
    with pytest.raises(TypeError, match=r"index must be an index of LlamaIndex, got NoisyRetr"):
        TunedRetriever.from_index(noisy)


@pytest.mark.parametrize("wrong", ["text", NodeWithScore(node=TextNode(text="x"))])
def test_only_nodes_are_nodes(noisy, wrong):
    nodes = [TextNode(text="fine"), wrong]
    with pytest.raises(TypeError, match=r"nodes\[1\] must be a node, got (str|NodeWithScore)"):
        TunedRetriever(noisy, nodes)
    retriever = TunedRetriever(noisy, [])
    with pytest.raises(TypeError, match=r"nodes\[1\] must be a node"):
        retriever.insert_nodes(nodes)
    with pytest.raises(TypeError, match="nodes must be a list of nodes, got one TextNode"):
        retriever.insert_nodes(TextNode(text="fine"))
    assert len(retriever.index) == 0


def test_a_retriever_that_finds_nothing_is_named(shop_data):
    with pytest.raises(DatasetError, match="the retriever found nothing for any of 80 queries"):
        LightRerankerFinetuneEngine(shop_data, Nothing(shop_data)).finetune()


def test_a_retriever_that_fails_is_not_papered_over(shop_data):
    failing = Fails(shop_data)
    with pytest.raises(RuntimeError, match="the database is down"):
        TunedRetriever(failing, failing.nodes).retrieve("refund")


def test_odd_texts_and_queries_are_ranked(noisy):
    odd = ["", "🙂", "a\ud800b refund", "refund " * 20_000, "\x00"]
    nodes = [TextNode(id_=str(i), text=text) for i, text in enumerate(odd)]
    retriever = TunedRetriever(Nothing(noisy.dataset), nodes)
    assert {i.node_id for i in retriever.retrieve("refund \ud800")} == {"2", "3"}
    assert retriever.retrieve("🙂") == []
    assert len(retriever.retrieve("refund " * 10_000)) == 2


def test_a_classifier_of_two_outputs_is_named_as_one(tmp_path):
    import pytest
    from transformers import BertConfig, BertForSequenceClassification

    from llama_index.tuning.errors import ArtifactError
    from llama_index.tuning.hf.cross_encoders import load_cross_encoder
    from tests.tiny_bert import save_tiny_bert

    folder = save_tiny_bert(tmp_path / "two", ["some words"])
    config = BertConfig.from_pretrained(folder)
    config.num_labels = 2
    BertForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(ArtifactError, match="is a classifier of 2 outputs, and a re-ranker gives"):
        load_cross_encoder(folder, device="cpu", trust_remote_code=False)
