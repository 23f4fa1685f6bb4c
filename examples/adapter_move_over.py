"""The old package's documented example with the import changed."""

import tempfile

from llama_index.core.schema import MetadataMode

from llama_index.tuning import (  # was: llama_index.finetuning
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
)
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

nodes = reference_nodes()[::3]  # a part, to keep it short
written = questions_about(nodes, "train")

with tempfile.TemporaryDirectory() as folder:
    # A file as the old generate_qa_embedding_pairs wrote it.
    EmbeddingQAFinetuneDataset(
        queries=written.queries,
        corpus={node.node_id: node.get_content(MetadataMode.NONE) for node in nodes},
        relevant_docs=written.relevant_docs,
    ).save_json(f"{folder}/train_dataset.json")

    train_dataset = EmbeddingQAFinetuneDataset.from_json(f"{folder}/train_dataset.json")
    base_embed_model = minilm()
    finetune_engine = EmbeddingAdapterFinetuneEngine(
        train_dataset,
        base_embed_model,
        model_output_path=f"{folder}/model_output_test",
        epochs=4,
        verbose=True,
    )
    finetune_engine.finetune()
    embed_model = finetune_engine.get_finetuned_model()
    print(type(embed_model).__name__)

    # An alternative way to load the model.
    embed_model_2 = AdapterEmbeddingModel(base_embed_model, f"{folder}/model_output_test")
    print(len(embed_model_2.get_query_embedding("what does a generator return")))
