"""Our ids and labels against TRL's own way with the same conversations."""

import pytest

from llama_index.tuning import HuggingFaceFinetuneEngine
from llama_index.tuning.llms import HuggingFaceOptions
from tests.llms.conftest import fees
from tests.llms.tiny import PLAIN_TEMPLATE, save_tiny

# TRL would learn what the template writes after the end token, too.
TEMPLATE = PLAIN_TEMPLATE.replace("<|im_end|>\n", "<|im_end|>")


@pytest.mark.filterwarnings("ignore")  # TRL's and torch's own
def test_training_on_our_rows_is_trls_training_on_prompts_and_completions(tmp_path):
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    data = fees(20)
    texts = [m["content"] for e in data.examples for m in e.messages]
    folder = save_tiny(tmp_path / "m", texts, template=TEMPLATE)
    options = HuggingFaceOptions(weights="full", device="cpu", max_steps=4, learning_rate=1e-3)
    ours = HuggingFaceFinetuneEngine(
        data, folder, model_output_path=tmp_path / "ours", options=options, evaluate=lambda _: [0.5]
    ).finetune()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=Dataset.from_list(list(data.lines("trl-prompt-completion"))),
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"),
            max_steps=4,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=options.warmup,
            per_device_train_batch_size=8,
            use_cpu=True,
            bf16=False,
            seed=0,
            data_seed=0,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    theirs = trainer.train().training_loss
    assert ours.history[-1]["train_loss"] == pytest.approx(theirs, rel=1e-6)
