"""A Llama so small that it is made on the spot and tuned in seconds: for examples, first tries."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llama_index.tuning.demo.chatml import CHATML_WITH_TOOLS
from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.hf.processes import no_bars

_HIDDEN = 96
_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"


def tiny_llama(
    folder: str | os.PathLike[str], texts: Iterable[str], *, context: int = 1024
) -> Path:
    """A Llama of 0.2 million random weights in a folder: it speaks no language until it is tuned.

    Args:
        folder: where it and its tokenizer are written, in the format of transformers.
        texts: what the tokenizer learns its 320 pieces from, such as the training conversations. It
            knows every byte beside them, so that no text is unknown.
        context: tokens of the longest conversation.

    Returns:
        The folder.

    Raises:
        MissingExtraError: transformers is not installed.

    Example:
        >>> import tempfile
        >>> folder = tiny_llama(tempfile.mkdtemp(), ["How high is the fee?", "Five euros."])
        >>> sorted(file.suffix for file in folder.glob("model*"))
        ['.safetensors']
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM, set_seed
    except ImportError as exc:
        raise MissingExtraError("tiny_llama()", "transformers", "llm") from exc
    tokenizer = _tokenizer(texts)
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=context,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with no_bars():
        tokenizer.save_pretrained(folder)
        LlamaForCausalLM(config).save_pretrained(folder)
    return Path(folder)


def _tokenizer(texts: Iterable[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*texts, "system user assistant\n"], trainer)
    bpe.add_tokens([AddedToken(tag, special=False) for tag in ("<tool_call>", "</tool_call>")])
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=bpe, pad_token=_PAD, eos_token=_END)
    tokenizer.chat_template = CHATML_WITH_TOOLS
    return tokenizer
