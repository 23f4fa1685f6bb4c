from dataclasses import asdict
from types import SimpleNamespace

import pytest

from llama_index.tuning import JudgeFinetuneEngine, TunedJudge
from llama_index.tuning.errors import ArtifactError, DatasetError
from llama_index.tuning.judges import JudgeOptions
from tests.conftest import TableEmbedding
from tests.judges.conftest import data, pairs, verdicts


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "recall"}, "unknown target 'recall'; choose one of: balanced accuracy"),
        ({"target_precision": 0}, "target_precision must be above 0 and at most 1, got 0"),
        ({"passing_score": float("nan")}, "passing_score must be a finite number, got nan"),
        ({"folds": 1}, "folds must be a whole number >= 2, got 1"),
        ({"folds": True}, "folds must be a whole number >= 2, got True"),
        ({"defer_share": 1.5}, "defer_share must be a number from 0 to 1, got 1.5"),
        ({"confidence": 1}, "confidence must be between 0 and 1, got 1"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
    ],
)
def test_options_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        JudgeOptions(**fields)


def changed(rows, number, **fields):
    return [{**row, **fields} if i == number else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "dataset is empty"),
        (verdicts(8), "8 verdicts are too few; a judge needs 10"),
        (verdicts(20, passing=True), "0 verdicts are fails; a judge needs 3 of each"),
        (verdicts(20, passing=False), "0 verdicts are passes"),
        (verdicts(20, query="the same"), "on 1 queries; options.folds=5 needs as many"),
        (changed(verdicts(20), 3, contexts=[]), "need contexts, or none:\n.*judgment 3 has no"),
        (changed(verdicts(20), 3, contexts=[" "]), "judgment 3 has no contexts"),
        (changed(verdicts(20), 2, query=None), "judgment 2 has no query"),
        (changed(verdicts(20), 2, reference="x"), "judgment 0 has no reference"),
        (changed(verdicts(20), 2, second_response="x"), "judgment 0 has no second_response"),
        (
            changed(verdicts(20), 4, passing=None, score=3.0),
            r"judgment 4: it has score 3.0 but no passing; set JudgeOptions\(passing_score",
        ),
        (changed(verdicts(20), 1, weight=float("inf")), "judgment 1: weight must be finite"),
        (changed(pairs(20), 6, score=4.0), r"judgment 6: a pair's score must be 1, 0.5 \(tie\)"),
        (pairs(20, ties=20), "all verdicts are ties"),
    ],
)
def test_verdicts_that_cannot_be_learnt_from(rows, message):
    model = TableEmbedding()
    with pytest.raises(DatasetError, match=f"(?s){message}"):
        JudgeFinetuneEngine(data(rows), model).finetune()
    assert not model.calls  # refused before anything was embedded


def test_no_verdict_at_all():
    rows = [{**row, "passing": None, "invalid": True} for row in verdicts(20)]
    with pytest.raises(DatasetError, match="dataset has no verdict: every judgment is invalid"):
        JudgeFinetuneEngine(data(rows)).finetune()
    with pytest.raises(DatasetError, match="judgment 0: it is invalid, so it must have neither"):
        data([{**rows[0], "score": 0.5}])
    with pytest.raises(DatasetError, match="judgment 0: invalid must be true or false, got 'no'"):
        data([{**rows[0], "invalid": "no"}])


@pytest.mark.parametrize("response", [None, True, 3])
def test_a_response_that_is_no_text(response):
    with pytest.raises(DatasetError, match="judgment 1: response must be a text, got"):
        data(changed(verdicts(20), 1, response=response))


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (verdicts(20), "must hold no query of dataset"),
        (pairs(20, seed=8), "val_dataset must have the fields that dataset has"),
        ([], "val_dataset is empty"),
    ],
)
def test_validation_verdicts_that_do_not_fit(val, message):
    with pytest.raises(DatasetError, match=message):
        JudgeFinetuneEngine(data(verdicts(20)), val_dataset=data(val)).finetune()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"accept": "never"}, ValueError, "unknown accept 'never'"),
        ({"options": {"folds": 3}}, TypeError, "options must be JudgeOptions, got dict"),
        ({"embed_model": "minilm"}, TypeError, "embed_model must be a BaseEmbedding, got str"),
        ({"defer_to": "gpt"}, TypeError, "defer_to must be a BaseEvaluator, got str"),
        ({"dataset": [1]}, TypeError, "dataset must be a JudgmentDataset, got list"),
        ({"options": JudgeOptions(language="klingon")}, ValueError, "unknown language 'klingon'"),
    ],
)
def test_arguments_of_the_engine(arguments, error, message):
    with pytest.raises(error, match=message):
        JudgeFinetuneEngine(**{"dataset": data(verdicts(20)), **arguments}).finetune()


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    engine = JudgeFinetuneEngine(data(verdicts(20)), model_output_path=tmp_path)
    with pytest.raises(ArtifactError, match="is not a saved component"):
        engine.finetune()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"response": ""}, "the response is empty"),
        ({"response": None}, "the response is empty"),
        ({"response": True}, "response must be a text, got bool"),
        ({"contexts": None}, "there are no contexts; this judge was trained on"),
        ({"contexts": ["", " "]}, "there are no contexts"),
        ({"contexts": "one text"}, "contexts must be a list of texts"),
        ({"contexts": [3]}, "contexts must be a list of texts"),
        ({"query": None}, "there is no query"),
        ({"second_response": "x"}, "was trained on single responses"),
    ],
)
def test_what_should_not_be_judged_comes_back_invalid(judge, given, reason):
    asked = {"query": "Code?", "response": "It is amber.", "contexts": ["It is amber."], **given}
    found = judge.evaluate(**asked)
    assert found.invalid_result
    assert reason in found.invalid_reason
    assert (found.passing, found.score) == (None, None)


def test_a_pair_without_its_second_is_invalid(pair_judge):
    assert "no second_response" in pair_judge.evaluate("What?", "This.").invalid_reason


def test_probabilities_name_what_should_not_be_judged(judge):
    rows = changed(verdicts(5), 3, contexts=None)
    with pytest.raises(DatasetError, match="judgment 3: there are no contexts"):
        judge.probabilities(data(rows))
    with pytest.raises(DatasetError, match="dataset is empty"):
        judge.probabilities([])
    item = data(verdicts(1)).judgments[0]
    with pytest.raises(DatasetError, match="judgment 1: the response is empty"):
        judge.probabilities([item, SimpleNamespace(**{**asdict(item), "response": None})])


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_out_of_range(judge, threshold):
    with pytest.raises(ValueError, match="threshold must be a number from 0 to 1"):
        TunedJudge(judge.model, threshold=threshold)


def test_a_threshold_for_pairs_is_refused(pair_judge):
    with pytest.raises(ValueError, match="not of pairs"):
        TunedJudge(pair_judge.model, threshold=0.7)


def test_another_embedding_model_is_refused(tmp_path):
    engine = JudgeFinetuneEngine(data(verdicts(30)), TableEmbedding(), accept="always")
    engine.finetune()
    engine.get_finetuned_model().save(tmp_path / "judge")
    with pytest.raises(ValueError, match="needs embed_model, the model 'table'"):
        TunedJudge.load(tmp_path / "judge")
    with pytest.raises(ValueError, match="trained on vectors of 'table', embed_model is 'other'"):
        TunedJudge.load(tmp_path / "judge", TableEmbedding(model_name="other"))


def test_a_folder_without_a_judge(tmp_path):
    with pytest.raises(ArtifactError, match="holds no saved component"):
        TunedJudge.load(tmp_path)
