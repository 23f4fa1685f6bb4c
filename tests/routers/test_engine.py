import json
import subprocess
import sys

import numpy as np
import pytest
from llama_index.core.selectors import EmbeddingSingleSelector

from llama_index.tuning import RouterFinetuneEngine, RoutingDataset, TunedSelector
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.errors import ArtifactError, NotFinetunedError
from llama_index.tuning.routers import RouterOptions
from llama_index.tuning.routers.report import RouterReport
from tests.conftest import TableEmbedding
from tests.routers.conftest import NAMES, world
from tests.selectors import ScriptedSelector


class Oracle(ScriptedSelector):
    """Answers from a table, and counts."""

    reason = "oracle"

    def __init__(self, table):
        self.table, self.calls = table, 0

    def number(self, choices, query):
        self.calls += 1
        names = [(choice.name or choice.description).split()[-1] for choice in choices]
        return names.index(self.table[query.query_str])


def test_a_shown_gain_is_accepted_and_the_report_says_by_how_much(tuned_world):
    _, _, engine, report = tuned_world
    assert report.accepted
    assert report.gains["accuracy"].tuned > 0.9 > report.gains["accuracy"].base
    assert report.summary["macro_f1"] > report.summary["macro_f1_base"]
    assert 0 <= report.summary["calibration_error"] <= 1
    assert isinstance(engine.get_finetuned_model(), TunedSelector)
    assert "accuracy" in str(report)
    assert "handed over" in str(report)


def test_a_question_that_came_up_again_is_no_more_evidence():
    dataset, model = world(per_choice=5)
    pairs = [(example.query, example.choices[0]) for example in dataset.examples]
    often = RoutingDataset.from_pairs(pairs * 5, choices=dataset.choices)
    report = RouterFinetuneEngine(often, model, options=RouterOptions(words=False)).finetune()
    assert {gain.n for gain in report.gains.values()} == {len(pairs)}
    assert {gain["accuracy"].n for gain in report.slices.values()} == {len(pairs)}


def test_the_stock_rule_is_what_the_stock_selector_answers(tuned_world):
    dataset, model, _, report = tuned_world
    stock = EmbeddingSingleSelector(model)
    choices = [f"all about {name}" for name in NAMES]
    right = [NAMES[stock.select(choices, e.query).ind] == e.choices[0] for e in dataset.examples]
    assert report.gains["accuracy"].base == pytest.approx(np.mean(right))


def test_shuffled_labels_gain_nothing_and_the_base_is_kept(caplog):
    dataset, model = world()
    labels = np.random.default_rng(1).permutation([e.choices[0] for e in dataset.examples])
    shuffled = RoutingDataset.from_pairs(
        list(zip(dataset.queries, labels.tolist(), strict=True)), choices=dataset.choices
    )
    engine = RouterFinetuneEngine(shuffled, model)
    report = engine.finetune()
    assert not report.accepted
    assert isinstance(engine.get_finetuned_model(), EmbeddingSingleSelector)
    assert "the base selector is kept: no gain" in caplog.text


def test_a_refused_router_lies_beside_a_note_that_says_what_was_kept(tmp_path):
    dataset, _ = world(per_choice=4)
    noise = TableEmbedding({}, dim=8)
    mine = Oracle({})
    engine = RouterFinetuneEngine(
        dataset,
        noise,
        options=RouterOptions(words=False),
        model_output_path=tmp_path / "router",
    )
    assert not engine.finetune().accepted
    engine.save(tmp_path / "copy")
    for folder in (tmp_path / "router", tmp_path / "copy"):
        assert RouterReport.from_json(folder / "report.json") == engine.report
        with pytest.raises(ArtifactError, match=r"base selector is kept .* lies in .*candidate"):
            TunedSelector.load(folder, noise)
        assert TunedSelector.load(folder / "candidate", noise).predict("anything").names
    engine.base_selector = mine
    assert engine.get_finetuned_model() is mine


def test_a_base_selector_whose_replies_name_nothing_is_never_right(caplog):
    class Silent(Oracle):
        def _select(self, choices, query):
            raise ValueError("Got invalid JSON object.")

    dataset, model = world()
    report = RouterFinetuneEngine(dataset, model, base_selector=Silent({})).finetune()
    assert report.gains["accuracy"].base == 0
    assert "named no choice for" in caplog.text
    assert "invalid JSON" in caplog.text


def test_a_router_can_be_saved_without_any_training_query(tmp_path):
    dataset, model = world()
    options = RouterOptions(keep_examples=0, words=False)
    engine = RouterFinetuneEngine(
        dataset, model, options=options, accept="always", model_output_path=tmp_path / "router"
    )
    engine.finetune()
    selector = TunedSelector.load(tmp_path / "router", model)
    assert selector.predict("orders question 3").nearest is None
    saved = (tmp_path / "router" / "tuning.json").read_text()
    assert not [query for query in dataset.queries if query in saved]


def test_an_update_writes_the_folder_anew(tmp_path):
    dataset, model = world()
    engine = RouterFinetuneEngine(
        dataset, model, accept="always", model_output_path=tmp_path / "router"
    )
    engine.finetune()
    old = TunedSelector.load(tmp_path / "router", model).model.fingerprint
    report = engine.update([RoutingExample("orders question 1 again", ("orders",))])
    again = TunedSelector.load(tmp_path / "router", model)
    assert again.model.fingerprint != old
    assert again.model.details["data"]["examples"] == report.data["examples"] == len(dataset) + 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"embed_model": "minilm"}, "embed_model must be a BaseEmbedding, got str"),
        ({"base_selector": "llm"}, "base_selector must be a BaseSelector, got str"),
        ({"defer_to": 3}, "defer_to must be a BaseSelector, got int"),
    ],
)
def test_wrong_parts_are_refused_by_the_constructor(arguments, words):
    with pytest.raises(TypeError, match=words):
        RouterFinetuneEngine(world()[0], **arguments)


def test_every_text_is_embedded_once():
    dataset, model = world()
    RouterFinetuneEngine(dataset, model).finetune()
    texts = [text for batch in model.calls for text in batch]
    assert len(texts) - len(set(texts)) <= 2  # the probe that finds how to embed queries


def test_the_same_seed_gives_the_same_router():
    routers = []
    for _ in range(2):
        dataset, model = world(noise=1.2)
        engine = RouterFinetuneEngine(dataset, model, accept="always")
        engine.finetune()
        routers.append(engine.get_finetuned_model().model.fingerprint)
    assert routers[0] == routers[1]


def test_a_validation_set_is_what_is_measured():
    dataset, model = world(per_choice=20)
    train, held_out = dataset.split(0.25)
    report = RouterFinetuneEngine(train, model, val_dataset=held_out).finetune()
    assert report.method == "validation queries"
    assert report.gains["accuracy"].n == len(held_out) == report.data["measured"]


def test_update_embeds_only_what_is_new_and_knows_the_new_choice():
    dataset, model = world(names=[*NAMES, "billing"])
    old = RoutingDataset(
        {name: dataset.choices[name] for name in NAMES},
        [e for e in dataset.examples if e.choices != ("billing",)],
    )
    engine = RouterFinetuneEngine(old, model, accept="always")
    engine.finetune()
    model.calls.clear()
    fresh = [e for e in dataset.examples if e.choices == ("billing",)]
    engine.update(RoutingDataset({"billing": dataset.choices["billing"]}, fresh))
    embedded = {text for batch in model.calls for text in batch}
    assert embedded == {e.query for e in fresh} | {"all about billing"}
    assert engine.get_finetuned_model().predict("billing question 3").names[0] == "billing"


def test_update_before_finetune_is_an_error():
    dataset, model = world()
    engine = RouterFinetuneEngine(dataset, model)
    with pytest.raises(NotFinetunedError, match="call finetune"):
        engine.update([RoutingExample("a", ("orders",))])
    with pytest.raises(NotFinetunedError, match="call finetune"):
        engine.get_finetuned_model()


def test_a_failed_update_leaves_the_engine_as_it_was(tuned_world):
    dataset, _, engine, report = tuned_world
    with pytest.raises(ValueError, match="not one of the choices"):
        engine.update([RoutingExample("a", ("nowhere",))])
    assert engine.dataset is dataset
    assert engine.report is report


def test_wrong_labels_are_weighed_down():
    dataset, model = world(per_choice=40, noise=0.5)
    pairs = [(e.query, e.choices[0]) for e in dataset.examples]
    wrong = range(0, len(pairs), 8)
    for row in wrong:
        pairs[row] = (pairs[row][0], NAMES[(NAMES.index(pairs[row][1]) + 1) % 4])
    noisy = RoutingDataset.from_pairs(pairs, choices=dataset.choices)
    engine = RouterFinetuneEngine(noisy, model, accept="always")
    report = engine.finetune()
    assert report.summary["label_noise"] == pytest.approx(1 / 8, abs=0.05)
    assert any("labels look wrong" in note for note in report.notes)
    right = [
        engine.get_finetuned_model().predict(e.query).names[0] == e.choices[0]
        for e in dataset.examples
    ]
    assert np.mean(right) > 0.98


def test_out_of_scope_examples_are_measured_and_never_trained_on():
    dataset, model = world(noise=0.4)
    far = [(f"nonsense {row}", None) for row in range(10)]
    pairs = [*((e.query, e.choices) for e in dataset.examples), *far]
    mixed = RoutingDataset.from_pairs(pairs, choices=dataset.choices)
    report = RouterFinetuneEngine(mixed, model).finetune()
    assert report.data["out_of_scope"] == 10
    assert report.summary["auroc"] > 0.8
    assert report.gains["accuracy"].n == len(dataset)


def test_a_deferral_selector_is_measured_on_the_least_certain_queries_only():
    dataset, model = world(noise=1.6, per_choice=20)
    oracle = Oracle({e.query: e.choices[0] for e in dataset.examples})
    options = RouterOptions(target_accuracy=0.95, words=False)
    engine = RouterFinetuneEngine(
        dataset, model, options=options, accept="always", defer_to=oracle, max_deferred=30
    )
    report = engine.finetune()
    assert oracle.calls == 30
    shares = {point.share: point.accuracy for point in report.deferral}
    assert shares[0] < shares[0.2]
    selector = engine.get_finetuned_model()
    assert selector.model.margin > 0
    oracle.calls = 0
    choices = [f"all about {name}" for name in NAMES]
    answers = [selector.select(choices, e.query) for e in dataset.examples]
    assert 0 < oracle.calls < len(dataset) / 2
    assert any(answer.reason == "oracle" for answer in answers)


def test_the_report_goes_to_json_html_and_plot(tuned_world, tmp_path):
    report = tuned_world[3]
    report.save_json(tmp_path / "report.json")
    assert RouterReport.from_json(tmp_path / "report.json") == report
    report.save_html(tmp_path / "report.html")
    assert "recall@3" in (tmp_path / "report.html").read_text()
    assert len(report.plot_confusion().axes[0].get_xticklabels()) == len(NAMES)


def test_choices_without_descriptions_are_learnt_too():
    dataset, model = world()
    bare = RoutingDataset.from_pairs([(e.query, e.choices) for e in dataset.examples])
    report = RouterFinetuneEngine(bare, model).finetune()
    assert report.gains["accuracy"].tuned > 0.9


def test_serving_imports_neither_torch_nor_scikit_learn(selector, tmp_path):
    selector.save(tmp_path / "router")
    code = f"""
import sys
from llama_index.tuning import TunedSelector
from tests.conftest import TableEmbedding
selector = TunedSelector.load({str(tmp_path / "router")!r}, TableEmbedding())
selector.select(list(selector.choices), "anything")
print(*{{"torch", "sklearn", "scipy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_saved_folder_holds_the_verdict(selector, tmp_path):
    selector.save(tmp_path / "router")
    config = json.loads((tmp_path / "router" / "tuning.json").read_text())
    assert config["details"]["accepted"] is True
    assert config["details"]["data"]["fingerprint"]
