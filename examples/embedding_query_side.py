"""Tune the query side of a model over an index that stays as it is: no key, no GPU, a minute.

The questions are Python beginners' and the documents Python's own language reference; put your
own nodes and questions in their place.
"""

import tempfile

from llama_index.core import VectorStoreIndex

from llama_index.tuning import QueryEncoderFinetuneEngine, evaluate_retriever
from llama_index.tuning.demo import minilm, minilm_folder, questions_about, reference_nodes
from llama_index.tuning.embeddings import QueryEncoderOptions

nodes = reference_nodes()[::3]  # a part of them keeps the example short
train, test = questions_about(nodes, "train"), questions_about(nodes, "held_out")
index = VectorStoreIndex(nodes, embed_model=minilm())  # yours, filled long ago

with tempfile.TemporaryDirectory() as folder:
    engine = QueryEncoderFinetuneEngine(
        train,
        model_id=str(minilm_folder()),  # the model that filled the index
        vectors=index,
        model_output_path=f"{folder}/tuned",
        epochs=4,
        options=QueryEncoderOptions(folds=2),  # so do few passes and folds
    )
    print(engine.finetune())
    tuned = engine.get_finetuned_model()  # the base, where no gain is shown
    for name, model in (("base", minilm()), ("tuned", tuned)):
        retriever = index.as_retriever(embed_model=model, similarity_top_k=10)
        print(name, evaluate_retriever(retriever, test).mean()["ndcg@10"])
