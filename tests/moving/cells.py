"""The calls of the old package's notebooks, cell by cell, in code of our own.

Only cells that import or use the package are here; `llama_index.finetuning` is the one thing that
is changed in them when they run. What a notebook has from elsewhere (its documents, its LLM, its
model) is made in `tests/moving/test_cells.py`.
"""

from __future__ import annotations

OPENAI = """
from llama_index.finetuning.callbacks import OpenAIFineTuningHandler
from llama_index.core.callbacks import CallbackManager

finetuning_handler = OpenAIFineTuningHandler()
llm.callback_manager = CallbackManager([finetuning_handler])
# %%
{ask}
# %%
finetuning_handler.save_finetuning_events("finetuning_events.jsonl")
# %%
from llama_index.finetuning import OpenAIFinetuneEngine

finetune_engine = OpenAIFinetuneEngine("gpt-3.5-turbo", "finetuning_events.jsonl"{more})
# %%
finetune_engine.finetune()
# %%
finetune_engine.get_current_job()
# %%
ft_llm = finetune_engine.get_finetuned_model(temperature=0.3)
# %%
{use}
"""

NOTEBOOKS = {
    "Embedding model": """
from llama_index.finetuning import generate_qa_embedding_pairs
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.finetuning import EmbeddingQAFinetuneDataset
# %%
train_dataset = generate_qa_embedding_pairs(
    llm=llm, nodes=train_nodes, output_path="train_dataset.json"
)
val_dataset = generate_qa_embedding_pairs(llm=llm, nodes=val_nodes, output_path="val_dataset.json")
# %%
train_dataset = EmbeddingQAFinetuneDataset.from_json("train_dataset.json")
val_dataset = EmbeddingQAFinetuneDataset.from_json("val_dataset.json")
# %%
from llama_index.finetuning import SentenceTransformersFinetuneEngine

finetune_engine = SentenceTransformersFinetuneEngine(
    train_dataset,
    model_id=model_id,
    model_output_path="test_model",
    val_dataset=val_dataset,
)
# %%
finetune_engine.finetune()
# %%
embed_model = finetune_engine.get_finetuned_model()
embed_model.get_query_embedding("fee?")
# %%
corpus = val_dataset.corpus
queries = val_dataset.queries
relevant_docs = val_dataset.relevant_docs
assert relevant_docs[next(iter(queries))][0] in corpus
""",
    "Embedding adapter: linear, two layers, a class of one's own": """
from llama_index.finetuning import EmbeddingAdapterFinetuneEngine
import torch

finetune_engine = EmbeddingAdapterFinetuneEngine(
    train_dataset,
    base_embed_model,
    model_output_path="model_output_test",
    epochs=4,
    verbose=True,
)
# %%
finetune_engine.finetune()
# %%
embed_model = finetune_engine.get_finetuned_model()
# %%
from llama_index.embeddings.adapter import LinearAdapterEmbeddingModel

embed_model = LinearAdapterEmbeddingModel(base_embed_model, "model_output_test")
# %%
from llama_index.embeddings.adapter.utils import TwoLayerNN

adapter_model = TwoLayerNN(16, 32, 16, bias=True, add_residual=True)
finetune_engine = EmbeddingAdapterFinetuneEngine(
    train_dataset,
    base_embed_model,
    model_output_path="model5_output_test",
    model_checkpoint_path="model5_ck",
    adapter_model=adapter_model,
    epochs=4,
    verbose=True,
)
# %%
finetune_engine.finetune()
# %%
embed_model_2layer = finetune_engine.get_finetuned_model(adapter_cls=TwoLayerNN)
# %%
from llama_index.embeddings.adapter import AdapterEmbeddingModel

embed_model_2layer = AdapterEmbeddingModel(base_embed_model, "model5_output_test", TwoLayerNN)
# %%
from llama_index.embeddings.adapter import BaseAdapter


class CustomNN(BaseAdapter):
    def __init__(self, in_features, hidden_features, out_features, add_residual=False):
        super().__init__()
        self.sizes = (in_features, hidden_features, out_features)
        self.linear1 = torch.nn.Linear(in_features, hidden_features)
        self.linear2 = torch.nn.Linear(hidden_features, out_features)
        self.residual_weight = torch.nn.Parameter(torch.zeros(1))
        self.add_residual = add_residual

    def forward(self, embed):
        output = self.linear2(torch.relu(self.linear1(embed)))
        return self.residual_weight * output + embed if self.add_residual else output

    def get_config_dict(self):
        names = ("in_features", "hidden_features", "out_features")
        return {**dict(zip(names, self.sizes)), "add_residual": self.add_residual}
# %%
finetune_engine = EmbeddingAdapterFinetuneEngine(
    train_dataset,
    base_embed_model,
    model_output_path="custom_model_output",
    model_checkpoint_path="custom_model_ck",
    adapter_model=CustomNN(16, 32, 16, add_residual=True),
    epochs=4,
    verbose=True,
)
# %%
finetune_engine.finetune()
# %%
embed_model_custom = finetune_engine.get_finetuned_model(adapter_cls=CustomNN)
embed_model_custom.get_query_embedding("fee?")
""",
    "Cross-encoder": """
from llama_index.finetuning.cross_encoders.dataset_gen import (
    generate_ce_fine_tuning_dataset,
    generate_synthetic_queries_over_documents,
)
from llama_index.finetuning.cross_encoders import CrossEncoderFinetuneEngine
# %%
qas = generate_synthetic_queries_over_documents(
    documents=documents[:1], num_questions_per_chunk=2, llm=llm
)
# %%
finetuning_dataset = generate_ce_fine_tuning_dataset(
    documents=documents,
    questions_list=questions,
    max_chunk_length=256,
    top_k=4,
    llm=labeller,
    embed_model=base_embed_model,
)
# %%
finetuning_engine = CrossEncoderFinetuneEngine(
    dataset=finetuning_dataset, model_id=cross_encoder_id, epochs=2, batch_size=8
)
# %%
finetuning_engine.finetune()
# %%
reranker = finetuning_engine.get_finetuned_model(model_name="tuned_cross_encoder", top_n=3)
reranker.postprocess_nodes(found, query_str=questions[0])
""",
    "Router": """
from llama_index.finetuning import EmbeddingQAFinetuneDataset

train_dataset = EmbeddingQAFinetuneDataset(
    queries=routed, corpus=choices, relevant_docs=routes
)
# %%
from llama_index.finetuning import SentenceTransformersFinetuneEngine

finetune_engine = SentenceTransformersFinetuneEngine(
    train_dataset,
    model_id=model_id,
    model_output_path="test_model3",
    epochs=2,
    show_progress_bar=True,
)
# %%
finetune_engine.finetune()
# %%
ft_embed_model = finetune_engine.get_finetuned_model()
# %%
from llama_index.core.selectors import EmbeddingSingleSelector

ft_selector = EmbeddingSingleSelector.from_defaults(embed_model=ft_embed_model)
ft_selector.select(list(choices.values()), "What do the refund rules say?")
""",
    "Distilling GPT-4 into GPT-3.5": OPENAI.format(
        ask='for number in range(12):\n    llm.complete(f"Fee {number}?")',
        more="",
        use='ft_llm.complete("Fee?")',
    ),
    "Function calling": OPENAI.format(
        ask="for number in range(10):\n    program(movie_name=str(number))",
        more=", validate_json=False",
        use='ft_llm.complete("Fee?")',
    ),
    "Pairwise judge": OPENAI.format(
        ask="""from llama_index.core.evaluation import PairwiseComparisonEvaluator

for number in range(5):
    PairwiseComparisonEvaluator(llm=llm).evaluate(
        f"Fee {number}?", response="5 euros.", second_response="None.", reference="5 euros."
    )""",
        more="",
        use="PairwiseComparisonEvaluator(llm=ft_llm)",
    ),
    "Correctness judge": OPENAI.format(
        ask="""from llama_index.core.evaluation import CorrectnessEvaluator

for number in range(10):
    CorrectnessEvaluator(llm=llm).evaluate(
        query=f"Fee {number}?", response="5 euros.", reference="5 euros."
    )""",
        more="",
        use="CorrectnessEvaluator(llm=ft_llm)",
    ),
    "Cohere's re-ranker (the service has ended)": """
from llama_index.finetuning import (
    CohereRerankerFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    generate_cohere_reranker_finetuning_dataset,
)
# %%
train_dataset.save_json("train.json")
train_dataset = EmbeddingQAFinetuneDataset.from_json("train.json")
# %%
generate_cohere_reranker_finetuning_dataset(
    train_dataset, finetune_dataset_file_name="train.jsonl"
)
# %%
generate_cohere_reranker_finetuning_dataset(
    train_dataset,
    num_negatives=2,
    hard_negatives_gen_method="random",
    finetune_dataset_file_name="train_random.jsonl",
    embed_model=base_embed_model,
)
# %%
finetune_engine = CohereRerankerFinetuneEngine(
    train_file_name="train.jsonl", model_name="lyft_reranker", model_type="RERANK"
)
""",
}
