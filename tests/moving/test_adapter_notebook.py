"""The calls of the old package's notebook on embedding adapters, with the import changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.adapter import (
    AdapterEmbeddingModel as StockAdapter,
    BaseAdapter,
    LinearAdapterEmbeddingModel,
)
from llama_index.embeddings.adapter.utils import TwoLayerNN

from llama_index.tuning import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    generate_qa_embedding_pairs,
)
from llama_index.tuning.embeddings import AdapterOptions
from tests.conftest import TableEmbedding, rotated_problem
from tests.generate.scripted import ScriptedLLM, WordEmbedding

FEW = {"epochs": 2, "options": AdapterOptions(folds=2)}
QUESTION = "question 3 1"


class CustomNN(BaseAdapter):
    """As in the notebook: two layers whose result is added to the vector."""

    def __init__(self, in_features, hidden_features, out_features, add_residual=True):
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
        return {**dict(zip(names, self.sizes, strict=True)), "add_residual": self.add_residual}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def problem():
    return rotated_problem(n_documents=20, per_document=2)


class UnitEmbedding(TableEmbedding):
    """Vectors of length one, as nearly all models give them: networks are trained on these."""

    def vector(self, text):
        found = np.array(super().vector(text))
        return (found / np.linalg.norm(found)).tolist()


@pytest.fixture
def nothing_to_learn():
    dataset, _ = rotated_problem(n_documents=12, per_document=1)
    return dataset, UnitEmbedding({}, dim=16)


def near(one, other):
    return one == pytest.approx(other, abs=1e-5)


def test_questions_from_nodes_are_saved_and_loaded():
    nodes = [TextNode(id_=f"n{i}", text=f"Rule {i} is about fee {i}.") for i in range(3)]
    llm = ScriptedLLM(answer=lambda prompt: "1. What is the fee?\n2. Which rule is it?")
    train_dataset = generate_qa_embedding_pairs(llm=llm, nodes=nodes, verbose=False)
    train_dataset.save_json("train_dataset.json")
    train_dataset = EmbeddingQAFinetuneDataset.from_json("train_dataset.json")
    assert set(train_dataset.queries.values()) == {"What is the fee?", "Which rule is it?"}
    assert list(train_dataset.corpus) == ["n0", "n1", "n2"]


def test_a_linear_adapter_is_tuned_used_and_loaded(problem):
    train_dataset, base_embed_model = problem
    finetune_engine = EmbeddingAdapterFinetuneEngine(
        train_dataset, base_embed_model, model_output_path="model_output_test", epochs=4,
        verbose=True, optimizer_class=torch.optim.AdamW, optimizer_params={"lr": 0.01},
    )  # fmt: skip
    assert finetune_engine.options.learning_rate == 0.01
    finetune_engine.finetune()
    embed_model = finetune_engine.get_finetuned_model()
    served = embed_model.get_query_embedding(QUESTION)
    assert not near(served, base_embed_model.get_query_embedding(QUESTION))
    stock = LinearAdapterEmbeddingModel(base_embed_model, "model_output_test")
    raw = torch.tensor(stock.get_query_embedding(QUESTION))
    assert near((raw / raw.norm()).tolist(), served)
    index = VectorStoreIndex(train_dataset.to_nodes(), embed_model=embed_model)
    assert len(index.as_retriever(similarity_top_k=2).retrieve(QUESTION)) == 2
    gain = finetune_engine.report.gains["ndcg@10"]
    assert gain.tuned > gain.base


def test_two_layers_with_checkpoints_and_the_class_named_on_loading():
    train_dataset, base_embed_model = rotated_problem(n_documents=40)
    adapter_model = TwoLayerNN(16, 32, 16, bias=True, add_residual=True)
    finetune_engine = EmbeddingAdapterFinetuneEngine(
        train_dataset,
        base_embed_model,
        batch_size=10,
        model_output_path="model5_output_test",
        model_checkpoint_path="model5_ck",
        checkpoint_save_steps=4,
        adapter_model=adapter_model,
        accept="always",
        **FEW,
    )
    finetune_engine.finetune()
    tuned = finetune_engine.get_finetuned_model(adapter_cls=TwoLayerNN)
    loaded = AdapterEmbeddingModel(base_embed_model, "model5_output_test", TwoLayerNN)
    assert near(loaded.get_query_embedding(QUESTION), tuned.get_query_embedding(QUESTION))
    saved = sorted(Path("model5_ck").glob("step_*"))
    checkpoint = AdapterEmbeddingModel(base_embed_model, str(saved[0]), TwoLayerNN)
    assert len(checkpoint.get_query_embedding(QUESTION)) == 16
    further = EmbeddingAdapterFinetuneEngine.from_model_path(
        train_dataset, base_embed_model, "model5_output_test", TwoLayerNN, **FEW
    )
    further.finetune()


@pytest.mark.parametrize("accept", ["always", "gain"])
@pytest.mark.parametrize("module", [CustomNN, TwoLayerNN])
def test_whatever_the_gate_said_stock_and_our_loader_read_the_folder(
    nothing_to_learn, accept, module
):
    train_dataset, base_embed_model = nothing_to_learn
    finetune_engine = EmbeddingAdapterFinetuneEngine(
        train_dataset,
        base_embed_model,
        model_output_path="custom_model_output",
        adapter_model=module(16, 32, 16, add_residual=True),
        accept=accept,
        **FEW,
    )
    finetune_engine.finetune()
    assert finetune_engine.report.accepted == (accept == "always")
    handed_out = finetune_engine.get_finetuned_model(adapter_cls=module)
    for loader in (AdapterEmbeddingModel, StockAdapter):
        loaded = loader(base_embed_model, "custom_model_output", module)
        vector = torch.tensor(loaded.get_query_embedding("fees?"))
        wanted = torch.tensor(handed_out.get_query_embedding("fees?"))
        assert near((vector / vector.norm()).tolist(), (wanted / wanted.norm()).tolist())


def test_going_on_from_trained_weights_a_refusal_is_the_identity_of_the_class(nothing_to_learn):
    train_dataset, base_embed_model = nothing_to_learn
    trained = TwoLayerNN(16, 32, 16, add_residual=True)
    trained.residual_weight.data.fill_(0.5)
    EmbeddingAdapterFinetuneEngine(
        train_dataset, base_embed_model, adapter_model=trained, model_output_path="out", **FEW
    ).finetune()
    stock = StockAdapter(base_embed_model, "out", TwoLayerNN)
    assert near(stock.get_query_embedding("x"), base_embed_model.get_query_embedding("x"))


def test_a_class_without_an_identity_is_said(nothing_to_learn, caplog):
    train_dataset, base_embed_model = nothing_to_learn
    EmbeddingAdapterFinetuneEngine(
        train_dataset,
        base_embed_model,
        adapter_model=CustomNN(16, 32, 16, add_residual=False),
        model_output_path="out",
        **FEW,
    ).finetune()
    assert "no weights of CustomNN do that" in caplog.text
    for loader in (AdapterEmbeddingModel, StockAdapter):
        loaded = loader(base_embed_model, "out")
        assert near(loaded.get_query_embedding("x"), base_embed_model.get_query_embedding("x"))


def test_arguments_of_the_old_training_loop_are_taken_or_refused_by_name(problem):
    def engine(**train_kwargs):
        return EmbeddingAdapterFinetuneEngine(*problem, **train_kwargs)

    options = engine(optimizer_params={"lr": 1e-3, "weight_decay": 0.0}).options
    assert (options.learning_rate, options.weight_decay) == (1e-3, 0.0)
    assert options.solver == "gradient"
    assert engine().options.solver == "convex"
    with pytest.raises(ValueError, match=r"optimizer_class: .* AdamW, got .*SGD"):
        engine(optimizer_class=torch.optim.SGD)
    with pytest.raises(ValueError, match=r"lr and weight_decay can be set, got momentum"):
        engine(optimizer_params={"momentum": 0.9})
    with pytest.raises(TypeError, match="max_grad_norm is not taken any more: gradients"):
        engine(max_grad_norm=1.0)
    with pytest.raises(TypeError, match="unexpected argument 'epoch'"):
        engine(epoch=3)
    with pytest.raises(ValueError, match="learning_rate must be a number above 0, got -1"):
        engine(optimizer_params={"lr": -1})


def test_the_tuned_model_is_the_apps_model(problem, monkeypatch):
    train_dataset, base_embed_model = problem
    engine = EmbeddingAdapterFinetuneEngine(train_dataset, base_embed_model, accept="always", **FEW)
    engine.finetune()
    monkeypatch.setattr(Settings, "_embed_model", WordEmbedding())
    Settings.embed_model = engine.get_finetuned_model()
    assert VectorStoreIndex(train_dataset.to_nodes()).as_retriever().retrieve(QUESTION)
