from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import ToolMetadata

from llama_index.tuning import TunedSelector
from llama_index.tuning.errors import OutOfScopeError
from tests.routers.conftest import NAMES


def metadata(names=NAMES):
    return [ToolMetadata(name=name, description=f"all about {name}") for name in names]


def middle(model, name):
    return np.mean([model.table[f"{name} question {row}"] for row in range(12)], axis=0)


def names_of(choices, result):
    return [choices[index].name for index in result.inds]


def test_choices_are_matched_by_name_in_any_order_and_subset(selector):
    for names in (NAMES, NAMES[::-1], ["outages", "refunds"]):
        choices = metadata(names)
        result = selector.select(choices, "refunds question 2")
        assert names_of(choices, result) == ["refunds"]


def test_choices_given_as_strings_are_matched_by_description_or_name(selector):
    described = [f"all about {name}" for name in NAMES]
    assert selector.select(described, "outages question 1").ind == 3
    assert selector.select(NAMES, "outages question 1").ind == 3


def test_tools_that_share_a_name_are_matched_by_description(selector):
    choices = [
        ToolMetadata(name="query_engine_tool", description=f"all about {name}") for name in NAMES
    ]
    assert selector.select(choices, "accounts question 4").ind == 2


def test_the_reason_says_probability_margin_and_the_nearest_training_query(selector):
    reason = selector.select(metadata(), "orders question 0").reason
    assert reason.startswith("orders: probability ")
    assert "margin " in reason
    assert "nearest training query 'orders question 0'" in reason


def test_one_embedding_a_query_and_none_for_known_choices(tuned_world, selector):
    model = tuned_world[1]
    model.calls.clear()
    selector.select(metadata(), "orders question 0")
    assert model.calls == [["orders question 0"]]


def test_an_unknown_choice_is_scored_by_its_description_embedded_once(tuned_world, selector):
    model = tuned_world[1]
    direction = np.eye(8)[0] * 0 + np.array(model.table["orders question 0"]) * -1
    model.table["weather and climate"] = direction
    model.table["will it rain"] = direction
    choices = [*metadata(), ToolMetadata(name="weather", description="weather and climate")]
    model.calls.clear()
    for _ in range(3):
        assert names_of(choices, selector.select(choices, "will it rain")) == ["weather"]
    assert model.calls.count(["weather and climate"]) == 1


def test_the_name_decides_and_a_description_that_says_something_else_is_said_once(
    tuned_world, selector, caplog
):
    model = tuned_world[1]
    model.table["all about the orders"] = np.array(model.table["all about orders"]) + 0.05
    model.table["nothing to do with it"] = -np.array(model.table["orders question 0"])
    choices = metadata()
    choices[0] = ToolMetadata(name="orders", description="all about the orders")
    assert selector.select(choices, "orders question 0").ind == 0
    assert not caplog.records
    choices[0] = ToolMetadata(name="orders", description="nothing to do with it")
    for query in ("orders question 0", "orders question 1"):
        assert selector.select(choices, query).ind == 0
    assert selector.select(choices[:2], "orders question 0").ind == 0
    assert len(caplog.records) == 1
    assert "choice 'orders' has another description than in training" in caplog.text


async def test_async_answers_the_same(selector):
    for query in ("orders question 1", "accounts question 5"):
        one = selector.select(metadata(), query)
        assert (await selector.aselect(metadata(), QueryBundle(query))) == one
        assert (await selector.apredict(query)) == selector.predict(query)


def test_predict_ranks_all_choices_with_probabilities_that_sum_to_one(selector):
    found = selector.predict("orders question 1")
    assert sorted(found.names) == sorted(NAMES)
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5)
    assert found.probabilities == sorted(found.probabilities, reverse=True)
    assert found.margin == pytest.approx(found.probabilities[0] - found.probabilities[1], abs=1e-6)
    assert not found.out_of_scope


@pytest.fixture
def nowhere(tuned_world):
    """A query whose vector is far from every choice's."""
    dataset, model, *_ = tuned_world
    towards = np.sum([model.table[e.query] for e in dataset.examples], axis=0)
    model.table["what is love"] = -towards
    return "what is love"


def test_out_of_scope_falls_back_as_told(selector, nowhere):
    assert selector.predict(nowhere).out_of_scope
    selector.fallback = "refunds"
    assert names_of(metadata(), selector.select(metadata(), nowhere)) == ["refunds"]
    selector.fallback = "all"
    assert selector.select(metadata(), nowhere).inds == [0, 1, 2, 3]
    selector.fallback = "error"
    with pytest.raises(OutOfScopeError, match="out of scope"):
        selector.select(metadata(), nowhere)
    selector.fallback = None
    assert len(selector.select(metadata(), nowhere).inds) == 1


def test_a_choice_is_added_and_removed_without_training(tuned_world, selector):
    model = tuned_world[1]
    weight = selector.model.weight.copy()
    away = -np.array(model.table["orders question 0"])
    for row in range(4):
        model.table[f"weather {row}"] = away + 0.1 * np.eye(8)[row]
    selector.add_choice("weather", examples=["weather 0", "weather 1", "weather 2"])
    assert selector.predict("weather 3").names[0] == "weather"
    assert selector.predict("weather 3").nearest.startswith("weather")
    assert np.array_equal(selector.model.weight[:4], weight)
    selector.remove_choice("refunds")
    assert "refunds" not in selector.predict("refunds question 1").names
    assert selector.predict("outages question 1").nearest.startswith("outages")
    selector.remove_choice("weather")
    assert list(selector.choices) == ["orders", "accounts", "outages"]


def test_multi_selects_what_is_likely_enough(tuned_world):
    _, model, engine, _ = tuned_world
    model.table["orders, plainly"] = middle(model, "orders")
    model.table["both at once"] = middle(model, "orders") + middle(model, "outages")
    selector = engine.get_finetuned_model(multi=True)
    assert set(selector.select(metadata(), "both at once").inds) == {0, 3}
    assert selector.select(metadata(), "orders, plainly").inds == [0]


def test_clauses_are_scored_apart(tuned_world):
    _, model, engine, _ = tuned_world
    for name, text in (("orders", "Where is my parcel now?"), ("refunds", "I want the money.")):
        model.table[text] = middle(model, name)
    joined = "Where is my parcel now? I want the money."
    model.table[joined] = middle(model, "orders")
    assert engine.get_finetuned_model(multi=True).select(metadata(), joined).inds == [0]
    apart = engine.get_finetuned_model(multi=True, clauses=True)
    assert set(apart.select(metadata(), joined).inds) == {0, 1}


def test_a_saved_selector_answers_the_same(tuned_world, selector, tmp_path):
    dataset, model, *_ = tuned_world
    selector.fallback = "orders"
    selector.add_choice("weather", "all about the weather")
    selector.save(tmp_path / "router")
    loaded = TunedSelector.load(tmp_path / "router", model)
    assert loaded.fallback == "orders"
    for query in dataset.queries[::5]:
        assert loaded.predict(query) == selector.predict(query)
    assert TunedSelector.load(tmp_path / "router", model, fallback="all").fallback == "all"


def test_words_are_kept_and_loaded(tmp_path):
    from llama_index.tuning import RouterFinetuneEngine
    from llama_index.tuning.routers import RouterOptions
    from tests.routers.conftest import world

    dataset, model = world(noise=3.0)
    engine = RouterFinetuneEngine(dataset, model, options=RouterOptions(words=True))
    report = engine.finetune()
    assert report.gains["accuracy"].tuned > 0.95  # each query holds its choice's name
    selector = engine.get_finetuned_model()
    selector.save(tmp_path / "router")
    loaded = TunedSelector.load(tmp_path / "router", model)
    for query in dataset.queries[::5]:
        assert loaded.predict(query) == selector.predict(query)
    assert selector.predict("orders, please").names[0] == "orders"


def test_choices_that_change_while_a_query_is_under_way_do_not_mix_rows(
    tuned_world, selector, monkeypatch
):
    model = tuned_world[1]
    embed = type(model)._get_query_embedding

    def meanwhile(self, query):
        if "orders" in selector.choices:
            selector.remove_choice("orders")  # the rows of all others move up by one
        return embed(self, query)

    monkeypatch.setattr(type(model), "_get_query_embedding", meanwhile)
    for _ in range(2):
        result = selector.select(metadata(), "outages question 1")
        assert names_of(metadata(), result) == ["outages"]


def test_many_threads_get_the_answers_of_one(selector):
    queries = [f"{name} question {row}" for name in NAMES for row in range(6)] * 4

    def ask(query):
        order = NAMES[len(query) % 4 :] + NAMES[: len(query) % 4]
        return names_of(metadata(order), selector.select(metadata(order), query))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, queries)) == [ask(query) for query in queries]


def test_vectors_of_descriptions_that_never_repeat_do_not_pile_up(
    tuned_world, selector, monkeypatch
):
    monkeypatch.setattr("llama_index.tuning.routers.serving.selector.DESCRIPTIONS", 3)
    for number in range(20):
        tuned_world[1].table[f"fresh {number}"] = np.ones(8)
        selector.select([f"fresh {number}", "all about orders"], "orders question 0")
    assert len(selector._vectors) <= 5


def test_a_selector_that_would_never_defer_says_so(tuned_world, selector, caplog):
    TunedSelector(selector.model, tuned_world[1], defer_to=selector)
    assert "defer_to is never asked" in caplog.text
