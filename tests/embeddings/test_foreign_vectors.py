"""An index that another model filled: the base that is measured over it is nobody's app."""

import logging

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset
from tests.generate.scripted import WordEmbedding


class Other(WordEmbedding):
    """As many numbers, other ones."""

    def _word(self, word):
        return super()._word(word[::-1] + "!")


NODES = [TextNode(id_=f"n{i}", text=f"plan{i} costs fee{i} euros each month") for i in range(30)]
QUESTIONS = RetrievalDataset.from_nodes(
    NODES,
    {f"q{i}": f"what does plan{i} cost" for i in range(30)},
    {f"q{i}": [f"n{i}"] for i in range(30)},
)


@pytest.mark.parametrize(("filled_by", "told"), [(WordEmbedding, False), (Other, True)])
def test_vectors_of_another_model_are_told(filled_by, told, tmp_path, caplog):
    index = VectorStoreIndex(NODES, embed_model=filled_by())
    engine = EmbeddingAdapterFinetuneEngine(
        QUESTIONS, WordEmbedding(), vectors=index, model_output_path=tmp_path / "adapter"
    )
    with caplog.at_level(logging.WARNING):
        report = engine.finetune()
    assert ("made by another model?" in str(report)) == told
    assert ("made by another model?" in caplog.text) == told
