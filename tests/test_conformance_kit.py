"""The kit finds what is wrong with a component; what it asks of ours is in test_engine_contract."""

import random
import subprocess
import sys

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor

from llama_index.tuning import LightReranker, TunedRetriever, load_app, tune_app
from llama_index.tuning.testing import COMPONENT_CHECKS, ENGINE_CHECKS, Probe, check_component
from tests.conftest import TableEmbedding


def test_stock_components_pass():
    check_component(MockEmbedding(embed_dim=4), rebuild=MockEmbedding.from_dict)
    check_component(SimilarityPostprocessor(similarity_cutoff=0.75))
    check_component(MockLLM(max_tokens=3))


class Embedding(MockEmbedding):
    """A right one, for the wrong ones below to be wrong in one place."""

    def _get_query_embedding(self, query):
        return [float(len(query))] * self.embed_dim

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text):
        return [1.0] * self.embed_dim

    async def _aget_text_embedding(self, text):
        return self._get_text_embedding(text)


class Drawn(Embedding):
    def _get_query_embedding(self, query):
        return [random.random()] * self.embed_dim


class OtherAsync(Embedding):
    async def _aget_query_embedding(self, query):
        return [0.0] * self.embed_dim


class OtherBatch(Embedding):
    def _get_text_embeddings(self, texts):
        return [[float(i)] * self.embed_dim for i, _ in enumerate(texts)]


class Unpicklable(Embedding):
    def __reduce__(self):
        raise TypeError("a client cannot be pickled")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Drawn, "asked again"),
        (OtherAsync, "asked asynchronously"),
        (OtherBatch, "texts in a batch"),
    ],
)
def test_a_wrong_component_is_told_where(kind, words):
    check_component(Embedding(embed_dim=4))
    with pytest.raises(AssertionError, match=words):
        check_component(kind(embed_dim=4))


def test_retrievers_and_apps_of_ours_pass(tmp_path):
    index = VectorStoreIndex(Probe().nodes(), embed_model=TableEmbedding())
    retriever = TunedRetriever.from_index(index, top_k=2)
    retriever.save(tmp_path / "retriever")
    again = TunedRetriever.load(
        tmp_path / "retriever", retriever.retriever, docstore=index.docstore
    )
    check_component(retriever, loaded=again)
    app = tune_app(index, run_folder=None)
    app.save(tmp_path / "app")
    check_component(app.retriever, loaded=load_app(tmp_path / "app", index).retriever)
    check_component(LightReranker(top_n=2))


def test_another_answer_from_the_folder_is_told():
    with pytest.raises(AssertionError, match="loaded from where it was saved"):
        check_component(Embedding(embed_dim=4), loaded=Embedding(embed_dim=5))


def test_what_cannot_be_pickled_or_rebuilt_is_said():
    with pytest.raises(TypeError, match="a client cannot be pickled"):
        check_component(Unpicklable(embed_dim=4))
    with pytest.raises(AssertionError, match=r"rebuilt from to_dict\(\)"):
        check_component(Embedding(embed_dim=4), rebuild=lambda data: Embedding(embed_dim=5))
    with pytest.raises(AssertionError, match="object derives from none of: BaseEmbedding"):
        check_component(object())


def test_it_costs_nothing_and_needs_no_test_runner():
    code = (
        "import sys, llama_index.tuning.testing\n"
        "print(*sorted({'torch', 'pytest', 'llama_index.core'} & set(sys.modules)), 'nothing')\n"
        "from llama_index.tuning.testing import *\n"
        "print('pytest' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["nothing", "False False"]


def test_each_check_says_what_it_asks():
    for check in (*COMPONENT_CHECKS, *ENGINE_CHECKS):
        assert check.__doc__
