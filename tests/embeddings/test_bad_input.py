"""Each bad input gets its clear error before any text is embedded, and nothing is written."""

import os

import numpy as np
import pytest
import torch
from llama_index.core.schema import ImageNode, TextNode
from llama_index.embeddings.adapter import LinearLayer

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.embeddings.adapter.data import documents_of
from llama_index.tuning.errors import ArtifactError, DatasetError, VectorError
from tests.conftest import TableEmbedding, rotated_problem

DATASET, MODEL = rotated_problem(n_documents=20, per_document=2, dim=4)
VECTORS = np.array([MODEL.vector(text) for text in DATASET.corpus.values()], dtype=np.float32)


def data(**changes):
    return RetrievalDataset(**{**DATASET.to_dict(), **changes})


def with_row(row, value):
    bad = VECTORS.copy()
    bad[row] = value
    return bad


def relabelled(answers):
    return dict.fromkeys(DATASET.queries, answers)


def frozen():
    layer = LinearLayer(4, 4)
    layer.requires_grad_(False)
    return layer


def options(**values):
    return lambda: AdapterOptions(**values)


OTHER_TEXT = {id_: f"something else, {id_}" for id_ in DATASET.corpus}
ONE_QUERY = DATASET.subset(list(DATASET.queries)[:1])
TRAIN, REST = DATASET.split(0.5, seed=0)

CASES = {
    # what is passed instead of a sound argument, the error, its words
    "no data": ({"dataset": None}, ValueError, "dataset and unlabelled are both None"),
    "a list as dataset": ({"dataset": [1]}, TypeError, "must be a RetrievalDataset, .* got list"),
    "a path as dataset": ({"dataset": "d.json"}, TypeError, "got str"),
    "an empty dataset": (
        {"dataset": data(queries={}, relevant_docs={})},
        DatasetError,
        "dataset has 0 different queries; at least 10",
    ),
    "one query": ({"dataset": ONE_QUERY}, DatasetError, "dataset has 1 different queries"),
    "one query many times": (
        {
            "dataset": lambda: data(
                queries=dict.fromkeys(DATASET.queries, "same"), relevant_docs=relabelled(["d1"])
            )
        },
        DatasetError,
        "dataset has 1 different queries",
    ),
    "all queries, one document": (
        {"dataset": data(relevant_docs=relabelled(["d1"]))},
        DatasetError,
        r"all 40 queries of dataset have the same relevant documents \(d1\)",
    ),
    "one document": (
        {"dataset": data(corpus={"d1": "x"}, relevant_docs=relabelled(["d1"]))},
        DatasetError,
        "one document; there is nothing to rank",
    ),
    "a damaged dataset of the old class": (
        {"dataset": type("Old", (), {"queries": {"q": "x"}, "corpus": {}, "relevant_docs": {}})()},
        DatasetError,
        "query 'q' has no entry in relevant_docs",
    ),
    "no model": ({"embed_model": None}, TypeError, "embed_model must be a BaseEmbedding, got None"),
    "a name as model": ({"embed_model": "minilm"}, TypeError, "got str"),
    "vectors with NaN": ({"vectors": with_row(3, np.nan)}, VectorError, "row 3 .* holds NaN"),
    "infinite vectors": (
        {"vectors": with_row(0, np.inf)},
        VectorError,
        "row 0 .* holds NaN or inf",
    ),
    "zero vectors": ({"vectors": with_row(19, 0)}, VectorError, "row 19 .* is all zeros"),
    "too few vectors": (
        {"vectors": VECTORS[:5]},
        VectorError,
        r"one row for each of the 20 .*\(5, 4",
    ),
    "one vector": ({"vectors": VECTORS[0]}, VectorError, r"must have shape \(documents, dim\)"),
    "whole numbers": ({"vectors": VECTORS.astype(int)}, VectorError, "floating-point"),
    "a bad vector by id": (
        {"vectors": {"d1": [1, 2, np.nan, 4]}},
        VectorError,
        r"vectors\['d1'\] holds NaN",
    ),
    "vectors of two sizes": (
        {"vectors": {id_: [1.0] * (3 + i % 2) for i, id_ in enumerate(DATASET.corpus)}},
        VectorError,
        r"several dimensions: \[3, 4\]",
    ),
    "something else as vectors": ({"vectors": 42}, TypeError, "vector store, got int"),
    "dim that does not fit": (
        {"vectors": VECTORS, "dim": 3},
        VectorError,
        "dim is 3, but the documents' vectors have 4",
    ),
    "a negative dim": ({"dim": -1}, ValueError, "dim must be a whole number >= 1, got -1"),
    "unlabelled as one text": ({"unlabelled": "a text"}, TypeError, "unlabelled must be a dict"),
    "unlabelled numbers": ({"unlabelled": [1, 2]}, TypeError, r"unlabelled\[0\] must be a node"),
    "unlabelled, empty": ({"unlabelled": {}}, DatasetError, "it holds no text"),
    "unlabelled without a text": ({"unlabelled": {"u": " "}}, DatasetError, "it holds no text"),
    "an unlabelled number": ({"unlabelled": {"u": 5}}, DatasetError, "'u' of unlabelled must be a"),
    "unlabelled without a sentence": (
        {"unlabelled": {"u": "Hm."}},
        DatasetError,
        "no sentence of 5",
    ),
    "a node id twice": (
        {"unlabelled": [TextNode(id_="n", text=f"one two {n} four five six.") for n in "ab"]},
        DatasetError,
        "two nodes with one id",
    ),
    "unlabelled with other texts": (
        {"unlabelled": {"d1": "Another text of more than five words altogether."}},
        DatasetError,
        "document 'd1' has different texts",
    ),
    "validation that was trained on": (
        {"val_dataset": REST, "dataset": DATASET},
        DatasetError,
        "of val_dataset is query 'q.*' of dataset",
    ),
    "an empty validation set": (
        {"val_dataset": data(queries={}, relevant_docs={})},
        DatasetError,
        "val_dataset has no queries",
    ),
    "validation over other texts": (
        {
            "dataset": TRAIN,
            "val_dataset": RetrievalDataset(REST.queries, OTHER_TEXT, REST.relevant_docs),
        },
        DatasetError,
        "has different texts in two of them",
    ),
    "a module of another kind": (
        {"adapter_model": torch.nn.Linear(4, 4)},
        TypeError,
        "must be a llama_index.embeddings.adapter.BaseAdapter, got Linear",
    ),
    "a frozen module": ({"adapter_model": frozen}, ValueError, "no parameter that can be trained"),
    "unknown accept": ({"accept": "maybe"}, ValueError, "unknown accept 'maybe'; choose one of"),
    "no workers": ({"num_workers": 0}, ValueError, "num_workers must be a whole number >= 1"),
    "half a worker": ({"num_workers": 2.5}, ValueError, "num_workers must be a whole number >= 1"),
    "no checkpoint steps": ({"checkpoint_save_steps": 0}, ValueError, "checkpoint_save_steps must"),
    "no epochs": ({"epochs": 0}, ValueError, "max_epochs must be a whole number >= 1, got 0"),
    "half a batch": ({"batch_size": 0.5}, ValueError, "batch_size must be a whole number >= 1"),
    "options as a dictionary": (
        {"options": {}},
        TypeError,
        "options must be AdapterOptions",
    ),
    "an unknown adapter": (
        {"options": options(adapter="cubic")},
        ValueError,
        "choose one of: linear",
    ),
    "an unknown side": (
        {"options": options(side="left")},
        ValueError,
        "choose one of: query, both",
    ),
    "a negative rate": (
        {"options": options(learning_rate=-1)},
        ValueError,
        "learning_rate must be",
    ),
    "a rate that is no number": (
        {"options": options(learning_rate=float("nan"))},
        ValueError,
        "learning_rate must be a number above 0, got nan",
    ),
    "one fold": ({"options": options(folds=1)}, ValueError, "folds must be a whole number >= 2"),
    "a share above one": (
        {"options": options(unlabelled_weight=2)},
        ValueError,
        "unlabelled_weight",
    ),
    "an unknown option": (
        {"options": options(lr=1)},
        TypeError,
        "unexpected keyword argument 'lr'",
    ),
    "an unknown argument": ({"optimizer": "sgd"}, TypeError, "unexpected argument"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_before_any_cost(case, tmp_path):
    changes, error, words = CASES[case]
    model = TableEmbedding(MODEL.table, dim=4)
    output = tmp_path / "adapter"

    def tune():
        arguments = {"dataset": DATASET, "embed_model": model, "model_output_path": output}
        for name, value in changes.items():
            made = callable(value) and not isinstance(value, torch.nn.Module)
            arguments[name] = value() if made else value
        EmbeddingAdapterFinetuneEngine(**arguments).finetune()

    with pytest.raises(error, match=words):
        tune()
    assert model.calls == []
    assert os.listdir(tmp_path) == []


def test_the_table_is_long_enough():
    assert len(CASES) >= 40


def test_an_output_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not a saved component"):
        EmbeddingAdapterFinetuneEngine(DATASET, MODEL, model_output_path=tmp_path).finetune()
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("shape", [(4, 4), (3, 3)])
def test_a_module_of_another_dimension_is_refused(tmp_path, shape):
    dataset, model = rotated_problem(n_documents=20, per_document=2, dim=6)
    engine = EmbeddingAdapterFinetuneEngine(
        dataset, model, adapter_model=LinearLayer(*shape), model_output_path=tmp_path / "a"
    )
    with pytest.raises(ValueError, match="does not take vectors of dimension 6"):
        engine.finetune()
    assert not (tmp_path / "a").exists()


def test_chunks_of_nothing_and_images_are_left_out_with_their_number(caplog):
    text = TextNode(id_="n", text="one two three four five six.")
    nodes = [text, TextNode(id_="e", text=" \n"), ImageNode(id_="i", image_path="a.png"), text]
    assert documents_of(nodes) == {"n": "one two three four five six."}
    assert "2 of 3 documents of unlabelled have no text, such as 'e'" in caplog.text
