"""Cross-encoders of the families that people start from, tiny and with random weights."""

import pytest
import torch

from llama_index.tuning import CrossEncoderFinetuneEngine, RelevanceDataset, TunedReranker
from llama_index.tuning.rerankers import CrossEncoderOptions
from tests.tiny_bert import save_tiny_bert

from .conftest import NoisyRetriever, shop

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}


def families():
    """Name → a function from a tokenizer to an untrained model."""
    import transformers as t

    def modern_bert(tokenizer):  # an encoder without a head, as ModernBERT is published
        ids = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("pad", "cls", "sep")}
        ids |= {"bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
        config = t.ModernBertConfig(vocab_size=len(tokenizer), num_hidden_layers=2, **SMALL, **ids)
        return t.ModernBertForMaskedLM(config)

    def xlm_roberta(tokenizer):  # bge-reranker
        config = t.XLMRobertaConfig(
            vocab_size=len(tokenizer), num_hidden_layers=1, num_labels=1, type_vocab_size=2, **SMALL
        )
        return t.XLMRobertaForSequenceClassification(config)

    def qwen(tokenizer):  # a decoder
        config = t.Qwen3Config(
            vocab_size=len(tokenizer),
            num_hidden_layers=1,
            num_key_value_heads=1,
            head_dim=16,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
            **SMALL,
        )
        return t.Qwen3ForSequenceClassification(config)

    return {"ModernBERT": modern_bert, "XLM-RoBERTa": xlm_roberta, "Qwen3": qwen}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about transformers 6
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("family", ["ModernBERT", "XLM-RoBERTa", "Qwen3"])
def test_it_trains_body_and_head_and_loads_again(family, rank, tmp_path):
    from transformers import AutoTokenizer

    data = shop()
    texts = [*data.corpus.values(), *data.queries.values()]
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_bert(tmp_path / "tiny", texts))
    torch.manual_seed(0)
    families()[family](tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    options = CrossEncoderOptions(
        device="cpu", max_steps=3, learning_rate=1e-2, lora_rank=rank, max_length=64
    )
    tuning = CrossEncoderFinetuneEngine(
        RelevanceDataset.from_retriever(data, NoisyRetriever(data, k=5)),
        str(tmp_path / "base"),
        str(tmp_path / "out"),
        options=options,
        accept="always",
    )
    before = {k: v.clone() for k, v in tuning._new_model()[0].auto_model.state_dict().items()}
    tuning.finetune()
    after = TunedReranker.load(tmp_path / "out", device="cpu").model[0].auto_model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("classifier" in name or name.startswith("score") for name in changed)
    assert any("layers.0" in name or "layer.0" in name for name in changed)
