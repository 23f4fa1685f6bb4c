"""Trained once more on all pairs: which ones, how far, and what the report says of it."""

from pathlib import Path

import numpy as np
import pytest

from llama_index.tuning import RelevanceDataset
from llama_index.tuning.embeddings.full import train
from llama_index.tuning.embeddings.full.settings import Prompts
from llama_index.tuning.embeddings.full.train import DecidingEvaluator
from llama_index.tuning.report import FinetuneReport


def weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def same(first, second):
    return all((first[name] == second[name]).all() for name in first)


def learnt(report):
    return report.data["refit"]


def in_refit(args):
    return args.output_dir.endswith("refit")


@pytest.fixture
def taught(engine, tmp_path):
    """Run an engine into a folder of its own; report, weights, and texts of each phase."""
    import transformers

    class Texts(transformers.TrainerCallback):
        def __init__(self):
            self.first, self.again, self.steps = set(), set(), []

        def on_train_begin(self, args, state, control, train_dataloader=None, **_):
            texts = set(train_dataloader.dataset["anchor"])
            (self.again if in_refit(args) else self.first).update(texts)

        def on_step_end(self, args, state, control, **_):
            self.steps.append("refit" if in_refit(args) else "first")

    def run(name, options=None, **arguments):
        arguments = {"accept": "always", "model_output_path": tmp_path / name, **arguments}
        texts = Texts()
        more = arguments.pop("callbacks", [])
        options = {"refit": None, **(options or {})}
        report = engine(options, callbacks=[texts, *more], **arguments).finetune()
        return report, weights(tmp_path / name), texts

    return run


def test_all_queries_teach_in_the_end_and_the_report_stays_that_of_the_model_without_them(
    taught, indifferent, data
):
    plain, once, _ = taught("once", {"refit": False})
    report, again, texts = taught("again")
    assert texts.again == set(data.queries.values())
    assert len(texts.first) < 0.75 * len(data)
    assert not texts.steps.count("refit") < texts.steps.count("first")
    assert report.gains == plain.gains
    looks = [[e["eval_ndcg@10"] for e in r.history if "eval_ndcg@10" in e] for r in (report, plain)]
    assert looks[0] == looks[1]
    assert learnt(report)["pairs"] == len(data) > report.data["pairs"]
    assert not same(once, again)
    assert "what is saved is trained once more in the same way, on all 60 pairs" in str(report)
    assert "refit" not in plain.data
    assert report.seconds["refit"] > 0


def test_a_refused_model_is_not_trained_again(taught):
    report, _, texts = taught(
        "out", {"max_steps": 2, "learning_rate": 1e-7}, evaluation_steps=1, accept="gain"
    )
    assert not report.accepted
    assert texts.again == set()
    assert "refit" not in report.data


def test_with_a_validation_set_what_is_measured_is_what_is_saved(taught, data, tmp_path):
    from sentence_transformers import SentenceTransformer

    train, rest = data.split(0.3, seed=3)
    arguments = {"dataset": train, "val_dataset": rest}
    default, _, texts = taught("default", **arguments)
    assert texts.again == set()
    assert "refit" not in default.data
    report, _, texts = taught("out", {"refit": True}, **arguments)
    assert texts.again == set(train.queries.values()) > texts.first
    assert not texts.again & set(rest.queries.values())
    saved = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    score = DecidingEvaluator(rest, Prompts("", ""))(saved)["ndcg@10"]
    assert report.gains["ndcg@10"].tuned == pytest.approx(score, abs=1e-6)
    assert "measured and saved is the model that was trained once more, on all" in str(report)


def test_it_goes_as_far_as_was_decided(taught, monkeypatch):
    # 6 steps, looked at after 2, 4 and 6; the look at 4 is the best. Two more are at the refit.
    scores = iter([0.1, 0.9, 0.2, 0.9, 0.9])
    monkeypatch.setattr(DecidingEvaluator, "scores", lambda *_: np.array([next(scores)]))
    monkeypatch.setattr(train, "PATIENCE", 9)
    report, _, texts = taught("out", {"max_steps": -1}, epochs=1)
    assert texts.steps.count("first") == len(texts.first) // 4 == 6
    assert learnt(report)["steps"] == texts.steps.count("refit") == round(4 / 6 * 60 // 4)


@pytest.fixture
def indifferent(monkeypatch):
    """All models rank alike: of a few queries and steps, either may come out ahead."""
    monkeypatch.setattr(DecidingEvaluator, "scores", lambda *_: np.full(9, 0.5))


def test_merged_with_the_share_that_was_decided(taught, tiny, indifferent):
    options = {"max_steps": 2}
    base, (_, tuned, _) = weights(Path(tiny)), taught("tuned", options)
    report, merged, _ = taught("merged", {**options, "merge": (0.25,)})
    assert report.data["merge"]["share"] == 0.25
    name = "encoder.layer.0.output.dense.weight"
    assert np.abs(tuned[name] - base[name]).max() > 0
    np.testing.assert_allclose(
        merged[name], 0.75 * base[name] + 0.25 * tuned[name], rtol=1e-4, atol=1e-6
    )


def test_a_training_that_went_wrong_does_not_replace_what_was_measured(taught, monkeypatch):
    _, once, _ = taught("once", {"refit": False})
    scores = iter([0.5, 0.6, 0.6, 0.3])
    monkeypatch.setattr(DecidingEvaluator, "scores", lambda *_: np.array([next(scores)] * 9))
    report, kept, _ = taught("kept")
    assert not learnt(report)["kept"]
    assert same(once, kept)
    assert "is not kept: it ranks the deciding queries, which it learnt, at 0.3000" in str(report)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about transformers 6
def test_low_rank_updates_and_matryoshka(taught, indifferent):
    options = {"lora_rank": 2, "matryoshka_dims": (32, 8), "max_steps": 2}
    _, once, _ = taught("once", {**options, "refit": False})
    report, again, _ = taught("again", options)
    assert learnt(report)["kept"]
    assert set(again) == set(once)
    assert not same(once, again)
    assert report.slices["first 8 dimensions"]["ndcg@10"].n


def test_a_teachers_scores_of_held_out_queries_and_their_hard_negatives_teach_too(taught, data):
    labels = {
        id_: {docs[0]: 0.9, f"d{(int(docs[0][1:]) + 1) % 30}": 0.2}
        for id_, docs in data.relevant_docs.items()
    }
    scores = RelevanceDataset.from_labels(data.queries, data.corpus, labels)
    options = {"max_steps": 1}
    report, _, _ = taught("scores", options, loss="MarginMSELoss", scores=scores)
    assert learnt(report)["pairs"] == len(data) > report.data["pairs"]
    report, _, texts = taught("mined", {**options, "hard_negatives": 1}, unlabelled=data.corpus)
    assert texts.again > set(data.queries.values())
    assert learnt(report)["pairs"] > len(data)


def test_stopped_while_it_is_trained_again_it_goes_on_there(taught, indifferent, tmp_path):
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if in_refit(args) and state.global_step == 5:
                raise KeyboardInterrupt

    options = {"max_steps": 8}
    whole, expected, _ = taught("whole", options)
    with pytest.raises(KeyboardInterrupt):
        taught("out", options, callbacks=[Stop()])
    kept = tmp_path / "out.checkpoints"
    assert {p.name for p in (kept / "refit").glob("checkpoint-*")} == {"checkpoint-4"}
    again = {"resume_from_checkpoint": True, "save_checkpoints": True}
    report, found, texts = taught("out", options, **again)
    assert texts.steps == ["refit"] * 4
    assert same(expected, found)
    assert report.gains == whole.gains
    assert learnt(report) == learnt(whole)
    # Both were over: nothing is trained, and the same is saved.
    report, found, texts = taught("out", options, **again)
    assert texts.steps == []
    assert same(expected, found)
    assert learnt(report) == learnt(whole)


def test_it_can_be_added_to_a_run_whose_checkpoints_were_kept(taught, indifferent, tmp_path):
    options = {"max_steps": 4}
    _, expected, _ = taught("whole", options)
    taught("out", {**options, "refit": False}, save_checkpoints=True)
    _, found, texts = taught("out", options, resume_from_checkpoint=True, save_checkpoints=True)
    assert texts.steps == ["refit"] * 4
    assert same(expected, found)
    # A run from the start takes nothing over from that one.
    _, _, texts = taught("out", options, save_checkpoints=True)
    assert texts.steps == ["first"] * 4 + ["refit"] * 4


def test_the_saved_report_has_it(taught, indifferent, tmp_path):
    report, _, _ = taught("out", {"max_steps": 1})
    saved = FinetuneReport.from_json(tmp_path / "out" / "report.json")
    assert learnt(saved) == learnt(report)
    assert saved.notes == report.notes
    assert "trained once more" in (tmp_path / "out" / "README.md").read_text()
