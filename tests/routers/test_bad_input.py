"""Whatever is wrong is said, and nothing is written."""

import json

import numpy as np
import pytest
from llama_index.core import MockEmbedding
from llama_index.core.tools import FunctionTool

from llama_index.tuning import (
    RouterFinetuneEngine,
    RoutingDataset,
    TunedSelector,
    TunedToolRetriever,
)
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.errors import ArtifactError, DatasetError, VectorError
from llama_index.tuning.routers import RouterOptions
from tests.conftest import TableEmbedding

TWO = {"x": "about x", "y": "about y"}
PAIRS = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]


def dataset(pairs=PAIRS, choices=TWO):
    return RoutingDataset.from_pairs(pairs, choices=choices)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dataset(choices=["x", "y", "x"]), "'x' occurs twice"),
        (lambda: dataset(choices={**TWO, "": "empty"}), "must be a non-empty string"),
        (lambda: dataset(choices={**TWO, "X ": "same"}), "differ only in case or space"),
        (lambda: dataset(choices={**TWO, "z": None}), "description must be a string"),
        (lambda: RoutingDataset({}, []), "there is no choice"),
        (lambda: RoutingDataset([("x", "y")], []), "must be a dictionary"),
        (lambda: dataset([("a", "nowhere")]), "'nowhere' is not one of the choices"),
        (lambda: dataset([("  ", "x")]), "the query is empty"),
        (lambda: dataset([(3, "x")]), "the query must be a string"),
        (lambda: dataset([("a", ["x", "x"])]), "a choice is named twice"),
        (
            lambda: RoutingDataset(TWO, [RoutingExample("a", ("x",), -1.0)]),
            "weight must be a number above 0",
        ),
        (
            lambda: RoutingDataset(TWO, [RoutingExample("a", ("x",), float("nan"))]),
            "weight must be a number above 0",
        ),
        (lambda: dataset().extend(["a"]), "example 4 must be a RoutingExample, got str"),
        (lambda: RoutingDataset.from_dict({"choices": TWO}), "choices and examples"),
        (
            lambda: RoutingDataset.from_selections([{"query": "a", "choices": ["x"]}]),
            "lacks selected",
        ),
        (
            lambda: RoutingDataset.from_selections(
                [{"query": "a", "choices": ["x"], "selected": 4}]
            ),
            "selected 4 is not one of the 1 choices",
        ),
        (
            lambda: RoutingDataset.from_selections(
                [{"query": "a", "choices": ["x"], "selected": 0, "feedback": "meh"}]
            ),
            "feedback must be",
        ),
    ],
)
def test_a_bad_dataset_names_its_fault(make, words):
    with pytest.raises(DatasetError, match=words):
        make()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"query": "a"', "line 1 is not valid JSON"),
        ('{"text": "a", "label": "x"}', "has no query"),
        ('{"query": "a"}', "label or labels"),
        ('{"query": "a", "label": 3}', "must be a string or null"),
        ("[1]", "must be a JSON object"),
    ],
)
def test_a_bad_file_names_the_line(tmp_path, line, words):
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(DatasetError, match=words):
        RoutingDataset.from_jsonl(tmp_path / "train.jsonl")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: dataset([("a", "x"), ("b", "x")], {"x": ""}), "at least 2 choices"),
        (lambda: dataset(choices={**TWO, "z": ""}), "'z' has neither an example nor"),
        (lambda: dataset([]), "at least 4 examples of choices are needed, got 0"),
        (lambda: dataset([(q, "x") for q in "abcd"]), "all examples belong to one choice"),
        (lambda: dataset([("a", n) for n in "xxyy"]), "only 1 different queries"),
    ],
)
@pytest.mark.filterwarnings("ignore:1 queries occur")
def test_data_that_cannot_be_learnt_from_costs_no_embedding(data, words):
    model = TableEmbedding()
    with pytest.raises(DatasetError, match=words):
        RouterFinetuneEngine(data(), model).finetune()
    assert model.calls == []


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        (dataset([("A ", "x")]), "shares the query 'A '"),
        (dataset([("e", None)]), "no example of any choice"),
        (dataset([("e", "z")], {"z": ""}), "must have the dataset's choices"),
    ],
)
def test_a_bad_validation_set_is_refused(held_out, words):
    with pytest.raises(DatasetError, match=words):
        RouterFinetuneEngine(dataset(), TableEmbedding(), val_dataset=held_out).finetune()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tau": 0}, "tau must be a number above 0"),
        ({"words": "yes"}, "words must be True, False or 'auto'"),
        ({"folds": 1}, "folds must be a whole number >= 2"),
        ({"in_scope_recall": 1.0}, "in_scope_recall must be from 0.5 to 1"),
        ({"target_accuracy": 95}, "target_accuracy must be a number from 0 to 1"),
        ({"words": 1}, "words must be True, False or 'auto'"),
        ({"balanced": "yes"}, "balanced must be True or False"),
        ({"robust": None}, "robust must be True or False"),
        ({"keep_examples": -1}, "keep_examples must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_bad_options_name_argument_rule_and_value(fields, words):
    with pytest.raises((TypeError, ValueError), match=words):
        RouterOptions(**fields)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.predict(""), ValueError, "query must not be empty"),
        (lambda s: s.select(["orders"], " \n"), ValueError, "query must not be empty"),
        (lambda s: s.predict(7), TypeError, "query must be a string"),
        (lambda s: s.select([], "a"), ValueError, "at least one choice"),
        (lambda s: s.select([""], "a"), ValueError, "neither a name nor a description"),
        (lambda s: s.add_choice("orders", "again"), ValueError, "has a choice 'orders' already"),
        (lambda s: s.add_choice("", "what"), ValueError, "name must be a non-empty string"),
        (lambda s: s.add_choice("new"), ValueError, "needs a description or examples"),
        (
            lambda s: s.add_choice("new", examples="abc"),
            TypeError,
            "examples must be a list of texts",
        ),
        (lambda s: s.add_choice("new", None), TypeError, "description must be a text"),
        (lambda s: s.remove_choice("nowhere"), ValueError, "unknown choice 'nowhere'"),
        (lambda s: s.update_prompts({"a": 1}), Exception, "prompt"),
        (lambda s: TunedSelector(s.model, "minilm"), TypeError, "must be a BaseEmbedding"),
        (
            lambda s: TunedSelector(s.model, s.embed_model, clauses=True),
            ValueError,
            "goes with multi=True",
        ),
        (
            lambda s: TunedSelector(s.model, s.embed_model, fallback=""),
            ValueError,
            "fallback must be",
        ),
        (
            lambda s: TunedSelector(s.model, s.embed_model, defer_to="llm"),
            TypeError,
            "defer_to must be a BaseSelector",
        ),
        (
            lambda s: TunedSelector(s.model, TableEmbedding(model_name="another")),
            ArtifactError,
            "tuned on the embedding model 'table', not 'another'",
        ),
        (
            lambda s: TunedSelector(s.model, MockEmbedding(embed_dim=3)).predict("a"),
            VectorError,
            "vectors of dimension 8, got shape",
        ),
        (lambda s: TunedToolRetriever(s, []), ValueError, "at least one tool"),
        (lambda s: TunedToolRetriever(s, ["fee"]), TypeError, "tools must be tools of LlamaIndex"),
        (lambda s: TunedToolRetriever(s, [tool()], top_k=0), ValueError, "top_k must be"),
        (lambda s: TunedToolRetriever(s, [tool(), tool()]), ValueError, "occurs twice"),
        (lambda s: TunedToolRetriever(s, [tool()], always=["b"]), ValueError, "not given: b"),
    ],
)
def test_bad_calls_of_a_selector(selector, call, error, words):
    with pytest.raises(error, match=words):
        call(selector)


def tool():
    return FunctionTool.from_defaults(lambda: 1, name="one", description="one")


def test_the_last_choice_stays(selector):
    for name in ("orders", "refunds", "accounts"):
        selector.remove_choice(name)
    with pytest.raises(ValueError, match="is the only choice"):
        selector.remove_choice("outages")


def test_a_missing_fallback_is_named_when_it_is_needed(tuned_world, selector):
    model = tuned_world[1]
    model.table["zzz"] = -np.sum([model.table[e.query] for e in tuned_world[0].examples], axis=0)
    selector.fallback = "web"
    with pytest.raises(ValueError, match="fallback 'web' is not one of the choices"):
        selector.select(["orders", "refunds"], "zzz")


def test_a_query_of_100_000_characters_is_answered(selector):
    assert len(selector.predict("card " * 20_000).names) == 4


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "not a safetensors file"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "tuning.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "tuning.json").unlink(), "no saved component"),
        (lambda f: edit(f, kind="embedding_adapter"), "not a 'router'"),
        (lambda f: edit(f, format=99), "has format 99"),
        (lambda f: edit(f, ends=[0]), "do not fit the choices"),
        (lambda f: edit(f, choices=[["x", ""]]), "has shape"),
        (lambda f: edit(f, threshold=1e9), "do not match"),
        (lambda f: edit(f, choices=None), "is damaged"),
    ],
)
def test_a_damaged_folder_is_refused(selector, tmp_path, damage, words):
    folder = tmp_path / "router"
    selector.save(folder)
    damage(folder)
    with pytest.raises(ArtifactError, match=words):
        TunedSelector.load(folder, selector.embed_model)


def edit(folder, **fields):
    config = json.loads((folder / "tuning.json").read_text())
    (folder / "tuning.json").write_text(json.dumps({**config, **fields}))


def test_saving_over_something_else_writes_nothing(selector, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not a saved component"):
        selector.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_unknown_arguments_of_load_are_errors(selector, tmp_path):
    selector.save(tmp_path / "router")
    with pytest.raises(TypeError, match="unknown arguments: fallbck"):
        TunedSelector.load(tmp_path / "router", selector.embed_model, fallbck="x")
