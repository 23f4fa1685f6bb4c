"""Map queries and documents: stored vectors are rewritten in place, never re-embedded."""

import tempfile

from llama_index.core import VectorStoreIndex

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, adapt_index, restore_index
from llama_index.tuning.demo import minilm, questions_about, reference_nodes
from llama_index.tuning.embeddings import AdapterOptions

nodes = reference_nodes()[::2]  # a part, to keep it short
train = questions_about(nodes, "train")
base = minilm()
index = VectorStoreIndex(nodes, embed_model=base)

with tempfile.TemporaryDirectory() as folder:
    engine = EmbeddingAdapterFinetuneEngine(
        train,
        base,
        vectors=index,
        options=AdapterOptions(side="both"),
        model_output_path=f"{folder}/adapter",
        accept="always",
    )
    print(engine.finetune())
    tuned = engine.get_finetuned_model()

    print(adapt_index(index, tuned, backup=f"{folder}/originals"))
    retriever = index.as_retriever(similarity_top_k=1, embed_model=tuned)
    print(retriever.retrieve("why does my list keep its values between calls")[0].node.node_id)
    print(restore_index(index, f"{folder}/originals"))
