"""A killed run goes on as if nothing had been; two processes train as one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llama_index.tuning.errors import TuningError
from llama_index.tuning.report import FinetuneReport

from .conftest import build_model, texts_of

SCRIPT = """
import os, sys
import transformers
from llama_index.tuning import RetrievalDataset, SentenceTransformersFinetuneEngine
from llama_index.tuning.embeddings import SentenceTransformersOptions

class Die(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if args.output_dir.endswith(sys.argv[5]) and state.global_step == int(sys.argv[4]):
            os.kill(os.getpid(), 9)

engine = SentenceTransformersFinetuneEngine(
    RetrievalDataset.from_json(sys.argv[1]), sys.argv[2], sys.argv[3], 4,
    evaluation_steps=2, device="cpu", accept="always",
    save_checkpoints=True, callbacks=[Die()],
    options=SentenceTransformersOptions(
        precision="fp32", learning_rate=2e-3, held_out=0.2, max_steps=8
    ),
)
engine.finetune()
engine.get_finetuned_model()
"""


def start(data, tiny, tmp_path, out, *before, die=-1, phase="checkpoints"):
    import torch

    (tmp_path / "train.py").write_text(SCRIPT)
    data.save_json(tmp_path / "data.json")
    return subprocess.run(
        [
            *(sys.executable, *before, str(tmp_path / "train.py"), str(tmp_path / "data.json")),
            *(tiny, str(tmp_path / out), str(die), phase),
        ],
        capture_output=True,
        text=True,
        # As many threads as here: how a sum is split decides its last bits.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads() if not before else 1)},
    )


def weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def gains(folder):
    return FinetuneReport.from_json(folder / "report.json").gains


def refit(folder):
    return FinetuneReport.from_json(folder / "report.json").data["refit"]


@pytest.fixture
def resumable(engine):
    def make(**arguments):
        settings = {"max_steps": 8, "refit": None}
        return engine(settings, save_checkpoints=True, accept="always", **arguments)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["checkpoints", "refit"])
def test_killed_and_resumed_equals_never_stopped_and_a_damaged_checkpoint_is_skipped(
    resumable, data, tiny, tmp_path, caplog, phase
):
    resumable(model_output_path=tmp_path / "whole").finetune()
    killed = start(data, tiny, tmp_path, "killed", die=7, phase=phase)
    assert killed.returncode == -9, killed.stderr[-2000:]
    folder = tmp_path / "killed.checkpoints"
    newest = (folder / "refit" if phase == "refit" else folder) / "checkpoint-6"
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:-100])
    resumable(model_output_path=tmp_path / "killed", resume_from_checkpoint=True).finetune()
    assert "checkpoint-6 is skipped: its optimizer.pt is damaged" in caplog.text
    for name, expected in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(tmp_path / "killed")[name], expected)
    assert gains(tmp_path / "killed") == gains(tmp_path / "whole")
    assert refit(tmp_path / "killed") == refit(tmp_path / "whole")
    assert refit(tmp_path / "whole")["kept"]


def test_resuming_takes_up_where_it_was_and_refuses_another_run(resumable, tmp_path):
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 5:
                raise KeyboardInterrupt

    resumable(model_output_path=tmp_path / "whole").finetune()
    with pytest.raises(KeyboardInterrupt):
        resumable(callbacks=[Stop()]).finetune()
    kept = tmp_path / "out.checkpoints"
    assert {p.name for p in kept.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    with pytest.raises(TuningError, match="belong to another run; different: epochs"):
        resumable(resume_from_checkpoint=True, epochs=3).finetune()
    report = resumable(resume_from_checkpoint=True).finetune()
    for name, expected in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(tmp_path / "out")[name], expected)
    assert report.gains == gains(tmp_path / "whole")

    # Resumed when training was over: no step more, the same best checkpoint.
    again = resumable(resume_from_checkpoint=True).finetune()
    assert again.gains == report.gains
    assert again.history == report.history[:-1]  # but for the line with the times

    from sentence_transformers import SentenceTransformer  # a kept checkpoint is a model

    assert SentenceTransformer(str(kept / "checkpoint-8"), device="cpu").encode("x").shape == (32,)


def test_checkpoints_are_limited(engine, tmp_path):
    engine(
        {"max_steps": 8},
        save_checkpoints=True,
        evaluation_steps=8,
        checkpoint_save_steps=1,
        checkpoint_save_total_limit=3,
    ).finetune()
    kept = {p.name for p in (tmp_path / "out.checkpoints").glob("checkpoint-*")}
    assert kept == {"checkpoint-6", "checkpoint-7", "checkpoint-8"}


@pytest.mark.slow
def test_two_processes_train_as_one(resumable, data, tmp_path):
    # Without dropout, which each process would draw for itself, nothing but rounding differs.
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = build_model(tmp_path / "still", texts_of(data), **still)
    resumable(model_id=model, model_output_path=tmp_path / "one").finetune()
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    done = start(data, model, tmp_path, "two", *launch)
    assert done.returncode == 0, done.stderr[-3000:]
    base = weights(Path(model))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    moved = max(np.abs(one[name] - base[name]).max() for name in one)
    apart = max(np.abs(one[name] - two[name]).max() for name in one)
    assert apart < 0.01 * moved
    first, second = (gains(tmp_path / name)["ndcg@10"] for name in ("one", "two"))
    assert second.tuned == pytest.approx(first.tuned, abs=0.01)
    assert refit(tmp_path / "one")["kept"]
    assert refit(tmp_path / "two")["kept"]
    assert (tmp_path / "two.checkpoints" / "checkpoint-8" / "rng_state_1.pth").is_file()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6
def test_checkpoints_hold_what_is_trained_alone(engine, tmp_path):
    sizes = {}
    for rank in (0, 1):
        out = tmp_path / f"rank-{rank}"
        engine({"lora_rank": rank}, model_output_path=out, save_checkpoints=True).finetune()
        (file, *_) = (out.parent / f"{out.name}.checkpoints").rglob("weights.safetensors")
        sizes[rank] = file.stat().st_size
    assert sizes[1] < sizes[0] / 5
