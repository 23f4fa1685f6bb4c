"""The engine on a tiny model: results, repeatability, resuming, the gate."""

import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.llms import ChatMessage
from transformers import TrainerCallback

from llama_index.tuning import (
    ChatDataset,
    HuggingFaceFinetuneEngine,
    TunedHuggingFaceLLM,
    get_engine,
)
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import ArtifactError, BaseModelError, NotFinetunedError, TuningError
from llama_index.tuning.llms import HuggingFaceOptions
from llama_index.tuning.report import FinetuneReport
from tests.llms.conftest import fees
from tests.weights import same, weights

ROOT = Path(__file__).resolve().parents[2]
LORA_WARNS = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6


def engine(model, path, data=None, options=None, **arguments):
    settings = {"weights": "full", "device": "cpu", "learning_rate": 5e-3, "max_steps": 6}
    settings |= {"save_steps": 2, "held_out": 0.3, **(options or {})}
    return HuggingFaceFinetuneEngine(
        data or fees(40),
        model,
        model_output_path=path,
        options=HuggingFaceOptions(**settings),
        **arguments,
    )


class Interrupt(TrainerCallback):
    """As a kill would: at the start of a step, without a word."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The weights of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "full"
    engine(tiny, folder).finetune()
    return weights(folder)


@pytest.fixture(scope="module")
def whole_lora(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "lora"
    engine(tiny, folder, options={"weights": "lora", "lora_dropout": 0.1}).finetune()
    return weights(folder)


def test_it_learns_measures_and_saves(tiny, tmp_path):
    tuning = engine(tiny, tmp_path / "out", options={"max_steps": 30})
    report = tuning.finetune()
    assert report.accepted, report.reason
    gain = report.gains["log-likelihood"]
    assert gain.n == 12  # 30 % of 40 conversations
    assert gain.mean > 1
    saved = FinetuneReport.from_json(tmp_path / "out" / "report.json")
    assert (saved.gains, saved.unit) == (report.gains, "conversations")
    assert "all conversations (n=12" in str(report)
    llm = tuning.get_finetuned_model(max_new_tokens=20)
    assert isinstance(llm, TunedHuggingFaceLLM)
    assert "euros." in llm.complete("Fee in Oslo for 1?").text
    assert not (tmp_path / "out.checkpoints").exists()
    assert get_engine("huggingface-llm") is HuggingFaceFinetuneEngine
    config = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert "model.safetensors" in config["files"]


def test_the_same_seed_gives_the_same_weights(tiny, tmp_path, whole):
    engine(tiny, tmp_path / "again").finetune()
    same(weights(tmp_path / "again"), whole)
    engine(tiny, tmp_path / "other", options={"seed": 1}).finetune()
    other = weights(tmp_path / "other")
    assert any((other[name] != array).any() for name, array in whole.items())


@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=LORA_WARNS)])
def test_resuming_equals_never_having_stopped(tiny, tmp_path, kind, request):
    options = {"weights": kind, "lora_dropout": 0.1 if kind == "lora" else 0.0}
    with pytest.raises(KeyboardInterrupt):
        engine(tiny, tmp_path / "out", options=options, callbacks=[Interrupt(5)]).finetune()
    assert not (tmp_path / "out").exists()
    report = engine(tiny, tmp_path / "out", options=options).finetune()
    assert "resumed at step 4" in report.notes
    same(
        weights(tmp_path / "out"),
        request.getfixturevalue("whole" if kind == "full" else "whole_lora"),
    )


def lose_optimizer(checkpoint):
    (checkpoint / "optimizer.pt").unlink()


def lose_random_state(checkpoint):
    (checkpoint / "rng_state.pth").unlink()


def cut_weights(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def lose_marker(checkpoint):
    (checkpoint / "complete.json").unlink()


def spoil_marker(checkpoint):
    (checkpoint / "complete.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lose_optimizer, "its optimizer.pt is missing"),
        (lose_random_state, "its rng_state.pth is missing"),
        (cut_weights, "its model.safetensors is damaged"),
        (lose_marker, "it was not finished"),
        (spoil_marker, "its complete.json is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_with_a_message(tiny, tmp_path, whole, caplog, harm, said):
    with pytest.raises(KeyboardInterrupt):
        engine(tiny, tmp_path / "out", callbacks=[Interrupt(5)]).finetune()
    (newest,) = (tmp_path / "out.checkpoints").glob("*/checkpoint-4")
    harm(newest)
    with caplog.at_level(logging.WARNING):
        report = engine(tiny, tmp_path / "out").finetune()
    assert f"checkpoint-4 is skipped: {said}" in caplog.text
    assert "resumed at step 2" in report.notes
    same(weights(tmp_path / "out"), whole)


def test_a_run_killed_while_saving_its_result_is_not_trained_again(tiny, tmp_path, whole):
    from llama_index.tuning.llms.local import engine as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_llm", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            engine(tiny, tmp_path / "out").finetune()
    (tmp_path / ".out.new-killed").mkdir()  # what a kill would have left
    report = engine(tiny, tmp_path / "out", callbacks=[Interrupt(0)]).finetune()
    assert not list(tmp_path.glob(".out.new-*"))
    assert any("had been finished before" in note for note in report.notes)
    same(weights(tmp_path / "out"), whole)


def test_a_finished_run_is_not_trained_again_and_another_one_is(tiny, tmp_path, whole):
    engine(tiny, tmp_path / "out").finetune()
    report = engine(tiny, tmp_path / "out", callbacks=[Interrupt(0)]).finetune()
    assert any("measured again, not trained" in note for note in report.notes)
    same(weights(tmp_path / "out"), whole)
    for change in ({"seed": 1}, {"learning_rate": 1e-3}, {"resume": False}):
        with pytest.raises(KeyboardInterrupt):
            engine(tiny, tmp_path / "out", options=change, callbacks=[Interrupt(0)]).finetune()


def test_checkpoints_of_another_run_are_not_resumed_from(tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        engine(tiny, tmp_path / "out", callbacks=[Interrupt(5)]).finetune()
    report = engine(tiny, tmp_path / "out", data=fees(30)).finetune()
    assert not any("resumed" in note for note in report.notes)


@LORA_WARNS
def test_gradient_checkpointing_only_saves_memory(tiny, tmp_path, whole):
    options = {"gradient_checkpointing": True}
    engine(tiny, tmp_path / "out", options=options).finetune()
    for name, array in weights(tmp_path / "out").items():
        np.testing.assert_allclose(array, whole[name], atol=1e-5)


def test_gradients_are_accumulated(tiny, tmp_path, whole):
    options = {"batch_size": 4, "gradient_accumulation": 2}
    engine(tiny, tmp_path / "out", options=options).finetune()
    for name, array in weights(tmp_path / "out").items():
        np.testing.assert_allclose(array, whole[name], atol=1e-4)


@LORA_WARNS
def test_merged_and_unmerged_logits_agree(tiny, tmp_path):
    import torch

    engine(tiny, tmp_path / "out", options={"weights": "lora", "merge": True}).finetune()
    apart = TunedHuggingFaceLLM.load(tmp_path / "out", device="cpu")
    merged = TunedHuggingFaceLLM.load(tmp_path / "out", device="cpu", merged=True)
    ids = torch.tensor([apart.tokenizer("Fee in Oslo for 1?")["input_ids"]])
    with torch.no_grad():
        one, other = (llm.model(ids).logits for llm in (apart, merged))
    assert not hasattr(merged.model, "peft_config")
    assert float((one - other).abs().max()) < 1e-4
    base = apart.model.unload()
    with torch.no_grad():
        assert float((base(ids).logits - one).abs().max()) > 1e-2  # the adapter does something


@LORA_WARNS
def test_tuning_goes_on_from_an_adapters_merged_weights(tiny, tmp_path):
    """Supervised first, preferences next: each run needs a whole model below it."""
    first = tmp_path / "first"
    engine(tiny, first, options={"weights": "lora", "merge": True}).finetune()
    with pytest.raises(BaseModelError, match=r"it holds an adapter; tune on from .*merged"):
        engine(first, tmp_path / "second").preflight()
    assert engine(first / "merged", tmp_path / "second", data=fees(50)).finetune().history
    (first / "merged").rename(tmp_path / "elsewhere")
    with pytest.raises(BaseModelError, match=r"it holds an adapter; tune with merge=True"):
        engine(first, tmp_path / "second").preflight()


def test_a_conversation_that_came_up_again_is_measured_once(tiny, tmp_path):
    often = ChatDataset(fees(10).examples * 6)
    report = engine(tiny, tmp_path / "out", data=often, options={"max_steps": 1}).finetune()
    assert report.gains["log-likelihood"].n == 3


@LORA_WARNS
def test_an_adapter_asks_for_its_own_base(tiny, tmp_path):
    import shutil

    from tests.llms.tiny import save_tiny

    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    engine(base, tmp_path / "out", options={"weights": "lora"}).finetune()
    base.rename(tmp_path / "moved")
    with pytest.raises(BaseModelError, match="base_model= says where it is now"):
        TunedHuggingFaceLLM.load(tmp_path / "out", device="cpu")
    moved = TunedHuggingFaceLLM.load(
        tmp_path / "out", base_model=tmp_path / "moved", device="cpu", max_new_tokens=2
    )
    assert moved.complete("Fee?").text is not None
    other = save_tiny(tmp_path / "other", ["Fee in Oslo"] * 9, seed=1)
    with pytest.raises(BaseModelError, match="is not the model that the adapter in"):
        TunedHuggingFaceLLM.load(tmp_path / "out", base_model=other, device="cpu")


@LORA_WARNS
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_preferences_are_learnt(tiny, tmp_path, kind):
    def said(text):
        return {"role": "assistant", "content": text}

    data = ChatDataset(
        [
            ChatExample([{"role": "user", "content": f"Fee {n}?"}, said(f"{n} euros.")],
                        rejected=said(f"Who knows, {n}!"))
            for n in range(40)
        ]
    )  # fmt: skip
    options = {"method": "dpo", "weights": kind, "max_steps": 10, "learning_rate": 1e-2}
    report = engine(tiny, tmp_path / "out", data, options).finetune()
    assert report.accepted, report.reason
    assert report.gains["preference"].mean > 0.05


def answers(llm, n):
    asked = [[ChatMessage(role="user", content=f"Fee in Oslo for {i}?")] for i in range(n)]
    return [r.message.content for r in llm.chat_batch(asked, max_tokens=10)]


def numbered(llm):
    """1 where the answer names euros, for 20 questions."""
    return [float("euros" in answer) for answer in answers(llm, 20)]


def fading(llm):
    """An ability that the base has and the tuned model has not."""
    return [float("euros" not in answer) for answer in answers(llm, 25)]


def test_the_gate_looks_at_the_callers_scores_and_at_what_is_protected(tiny, tmp_path, caplog):
    options = {"max_steps": 30}
    good = engine(tiny, tmp_path / "good", options=options, evaluate=numbered)
    report = good.finetune()
    assert report.accepted
    assert report.primary == "score"
    assert "all items (n=20, scored by evaluate=)" in str(report)
    assert report.data["conversations"] == 40  # nothing is held out of the training
    guarded = engine(
        tiny, tmp_path / "lost", options=options, evaluate=numbered, protect={"old": fading}
    )
    report = guarded.finetune()
    assert not report.accepted
    assert report.reason.startswith("old lose: score -")
    assert any("was forgotten, from 1.000 to 0." in note for note in report.notes)
    with caplog.at_level(logging.WARNING):
        base = guarded.get_finetuned_model(max_new_tokens=5)
    assert "the base LLM is kept" in caplog.text
    assert base.metadata.model_name == str(tiny)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "evaluate must give one score for each item, got none"),
        ([0.5, 1.5], "evaluate must give scores between 0 and 1, got 1.5"),
        ([0.5, float("nan")], "evaluate must give scores between 0 and 1, got nan"),
    ],
)
def test_wrong_scores_are_named_before_training(tiny, tmp_path, scores, message):
    with pytest.raises(ValueError, match=message):
        engine(tiny, tmp_path / "out", evaluate=lambda llm: scores).finetune()
    assert not (tmp_path / "out.checkpoints").exists()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"peers": {"x": [0.5]}}, ValueError, "peers needs evaluate"),
        ({"peers": [[0.5]], "evaluate": len}, TypeError, "peers must map names .* got list"),
        ({"peers": {"x": "teacher"}, "evaluate": len}, TypeError, "must be an LLM or a list"),
        ({"peers": {"x": 0.5}, "evaluate": len}, TypeError, "must be an LLM or a list .* got 0.5"),
        (
            {"peers": {3: [0.5]}, "evaluate": len},
            TypeError,
            "peers must have texts as names, got 3",
        ),
        (
            {"peers": {"x": [0.5]}, "protect": {"x as the base": len}, "evaluate": len},
            ValueError,
            r"protect: the name 'x as the base' is taken by peers\['x'\]",
        ),
    ],
)
def test_wrong_peers_are_named_at_once(tiny, given, error, message):
    with pytest.raises(error, match=message):
        HuggingFaceFinetuneEngine(fees(), tiny, **given)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ([0.5] * 9, r"peers\['x'\] must have one score for each of evaluate's 10 items, got 9"),
        ([2.0] * 10, r"peers\['x'\] must give scores between 0 and 1, got 2.0"),
    ],
)
def test_a_peers_wrong_scores_are_named_before_training(tiny, tmp_path, peer, message):
    with pytest.raises(ValueError, match=message):
        engine(
            tiny, tmp_path / "out", evaluate=lambda llm: [0.5] * 10, peers={"x": peer}
        ).finetune()
    assert not (tmp_path / "out.checkpoints").exists()


def test_a_training_that_diverges_is_an_error_and_saves_nothing(tiny, tmp_path):
    for _ in range(2):  # the second time from its last checkpoint
        with pytest.raises(TuningError, match=r"the training diverged: .* a lower learning_rate"):
            engine(tiny, tmp_path / "out", options={"learning_rate": 1e30}).finetune()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scores", ["1010101010", {0: 0.5}, {0.5, 1.0}])
def test_scores_without_an_order_are_refused(tiny, tmp_path, scores):
    kind = type(scores).__name__
    with pytest.raises(TypeError, match=f"evaluate must give a list of numbers.* got {kind}"):
        engine(tiny, tmp_path / "out", evaluate=lambda llm: scores).finetune()


def test_two_threads_load_and_train_at_once(tiny, tmp_path, whole):
    def run(name):
        engine(tiny, tmp_path / name).finetune()
        return weights(tmp_path / name)

    with ThreadPoolExecutor(4) as pool:
        for one in pool.map(run, "abcd"):
            same(one, whole)


def test_misuse_is_named(tiny, tmp_path):
    with pytest.raises(NotFinetunedError, match=r"call finetune\(\) first"):
        engine(tiny, tmp_path / "out").get_finetuned_model()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="is not a saved component"):
        engine(tiny, tmp_path / "mine").finetune()
    with pytest.raises(TypeError, match="dataset must be a ChatDataset, got list"):
        HuggingFaceFinetuneEngine([], tiny)


def test_a_second_run_in_the_same_folder_is_refused(tiny, tmp_path):
    def second(llm):
        with pytest.raises(ArtifactError, match="is being written by another run"):
            engine(tiny, tmp_path / "out").finetune()
        return [0.5] * 10

    engine(tiny, tmp_path / "out", evaluate=second, options={"max_steps": 1}).finetune()


@pytest.mark.slow  # a process of its own
def test_nothing_asks_the_network(tiny, tmp_path):
    """A local LoRA run in a process whose every look-up of a host fails the test."""
    code = (
        "import socket, sys\n"
        "def refuse(host, *rest, **more):\n"
        "    sys.stderr.write(f'ASKED {host}\\n'); raise OSError('no network')\n"
        "socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from tests.llms.test_engine import engine\n"
        "out = Path(sys.argv[2])\n"
        "tuning = engine(Path(sys.argv[1]), out, options={'weights': 'lora', 'merge': True})\n"
        "tuning.finetune(); print(tuning.get_finetuned_model(max_new_tokens=2).complete('a'))\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ASKED" not in done.stderr


@pytest.mark.slow
def test_killed_while_training_and_saving_it_ends_as_if_nothing_had_been(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "llm_kill.py", "--kills", "4", "--weights", "lora"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = json.loads(done.stdout)
    assert result["identical"]
    assert sum(result["killed_during"].values()) == 4
