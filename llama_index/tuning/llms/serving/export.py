"""Hand a tuned LLM to other servers: merged weights, GGUF, Ollama."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from llama_index.tuning._checks import folder_path, plain_arguments
from llama_index.tuning.artifacts import CONFIG, read_config, replacing_folder
from llama_index.tuning.errors import ArtifactError, TemplateError
from llama_index.tuning.llms.serving.loading import Source, end_tokens, load_tokenizer
from llama_index.tuning.llms.serving.saved import KIND, PathLike, load_llm, save_merged
from llama_index.tuning.llms.serving.template import ChatTemplate

ExportFormat = Literal["merged", "gguf", "ollama"]

CONVERTER = "convert_hf_to_gguf.py"
_WHERE = "LLAMA_CPP"
_TYPES = ("f32", "f16", "bf16", "q8_0")
_ROLES = {"s": "system", "u": "user", "a": "assistant"}
_TALKS = ("u", "su", "uau", "suau", "uauau")
"""Conversations, a letter a message, that both template languages must write alike."""


@plain_arguments
def export_llm(
    source: PathLike,
    path: PathLike,
    format: ExportFormat = "merged",
    *,
    base_model: PathLike | None = None,
    converter: PathLike | None = None,
    weights: str = "f16",
) -> Path:
    """Write a saved LLM as other servers load it.

    `"merged"`: a folder of safetensors for transformers, vLLM, TGI and SGLang, with the adapter
    merged in. `"gguf"`: one file for llama.cpp and what is built on it, written by llama.cpp's own
    `convert_hf_to_gguf.py`. `"ollama"`: a folder with the merged weights and a `Modelfile` that
    holds template and stop words; `ollama create NAME -f Modelfile` reads it.

    Args:
        source: folder that the engine, or `TunedHuggingFaceLLM`, was saved in.
        path: folder, or for `"gguf"` the file, to write.
        format: see above.
        base_model: where the model below the adapter is now, if it was moved.
        converter: llama.cpp's script; None: looked for in `$LLAMA_CPP` and on the path.
        weights: `"gguf"` only: `"f32"`, `"f16"`, `"bf16"` or `"q8_0"`.

    Returns:
        The path written.

    Raises:
        ArtifactError: `source` is no saved LLM; the converter is missing (the error gives the
            command to run) or fails.
        TemplateError: Ollama's template language cannot say what the model's chat template does.

    Example:
        >>> export_llm("tuned_llm", "tuned_llm_merged")  # doctest: +SKIP
    """
    if format not in get_args(ExportFormat):
        known = ", ".join(get_args(ExportFormat))
        raise ValueError(f"unknown format {format!r}; choose one of: {known}")
    if weights not in _TYPES:
        raise ValueError(f"unknown weights {weights!r}; choose one of: {', '.join(_TYPES)}")
    target = folder_path("path", path)
    if (target / CONFIG).exists():
        raise ArtifactError(f"{path} holds a saved component; choose another path")
    config = read_config(source, KIND)  # loading looks at every file, and once is enough
    if format == "gguf":
        return _write_gguf(source, target, base_model, converter, weights)
    modelfile = _modelfile(source, config) if format == "ollama" else None
    with replacing_folder(target) as draft:
        loaded = load_llm(source, base_model=base_model, device="cpu")
        save_merged(loaded.model, loaded.tokenizer, draft)
        if modelfile is not None:
            (draft / "Modelfile").write_text(modelfile, encoding="utf-8")
    return target


def _write_gguf(
    source: PathLike,
    target: Path,
    base_model: PathLike | None,
    converter: PathLike | None,
    weights: str,
) -> Path:
    script = _converter(converter, target, weights)
    merged = target.with_name(f"{target.name}.merged")
    draft = target.with_name(f"{target.name}.part")
    if merged.exists():
        raise ArtifactError(f"{merged} is in the way: the merged weights are written there first")
    try:
        export_llm(source, merged, base_model=base_model)
        command = [sys.executable, str(script), str(merged), "--outfile", str(draft)]
        done = subprocess.run(  # nosec B603 # the converter that the caller names
            [*command, "--outtype", weights], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ArtifactError(f"{script} failed with status {done.returncode}: {last[0]}")
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
        shutil.rmtree(merged, ignore_errors=True)
    return target


def _converter(given: PathLike | None, target: Path, weights: str) -> Path:
    """llama.cpp's script, before any weight is loaded."""
    if given is not None:
        if not Path(given).is_file():
            raise ArtifactError(f"converter {given} is no file")
        return Path(given)
    folder = os.environ.get(_WHERE)
    found = Path(folder) / CONVERTER if folder else shutil.which(CONVERTER)
    if found is not None and Path(found).is_file():
        return Path(found)
    raise ArtifactError(
        f"format='gguf' needs llama.cpp's {CONVERTER}: git clone "
        f"https://github.com/ggml-org/llama.cpp, and pass converter= or set {_WHERE} to that "
        "folder. By hand: export with format='merged' to a folder, then: python "
        f"llama.cpp/{CONVERTER} FOLDER --outfile {target} --outtype {weights}"
    )


def _modelfile(source: PathLike, config: Mapping[str, Any]) -> str:
    """Ollama's description of the merged folder beside it."""
    folder = Path(source)
    tokenizer = load_tokenizer(Source(str(folder.resolve()), local=True))
    template = ChatTemplate(tokenizer, str(source), config.get("template_arguments"))
    stops = tokenizer.convert_ids_to_tokens(end_tokens(tokenizer, None))
    lines = ["FROM .", f'TEMPLATE """{go_template(template)}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    return "\n".join([*lines, "PARAMETER temperature 0", ""])


def go_template(template: ChatTemplate) -> str:
    """A chat template in Ollama's language (Go's), for those that wrap each message in words.

    Raises:
        TemplateError: the template does more than that, so that Ollama would serve other prompts
            than the model was tuned on.
    """
    wraps = _wraps(template)
    if wraps is None or any(
        _compose(wraps, talk) != _rendered(template, talk, answer=True) for talk in _TALKS
    ):
        raise TemplateError(
            f"the chat template of {template.name} cannot be said in Ollama's template language "
            "without changing prompts; export format='gguf', which keeps the template itself"
        )
    turns = [
        f'{{{{ if eq .Role "{role}" }}}}{_go(before)}{{{{ .Content }}}}{_go(after)}{{{{ end }}}}'
        for role, (before, after) in wraps.turns.items()
    ]
    unsaid = f'{{{{ if ne (index .Messages 0).Role "system" }}}}{_go(wraps.unsaid)}{{{{ end }}}}'
    return "".join(
        [
            unsaid if wraps.unsaid else "",
            "{{ range .Messages }}",
            *turns,
            "{{ end }}",
            _go(wraps.opening),
        ]
    )


@dataclass(frozen=True)
class _Wraps:
    """The words around messages.

    Attributes:
        turns: role → (words before a message, words after it).
        unsaid: what stands in the place of a system message where there is none.
        opening: what opens the answer.
    """

    turns: dict[str, tuple[str, str]]
    unsaid: str
    opening: str


def _wraps(template: ChatTemplate) -> _Wraps | None:
    """The words that a template puts around messages, as far as a few conversations tell."""
    try:
        user, ended = _around(template, "u"), _around(template, "ua")
        again, asked = _around(template, "uau"), _around(template, "u", answer=True)
        system = _around(template, "su")
    except TemplateError:
        return None
    after_user, after_answer = user[-1], ended[-1]
    before_user = again[2].removeprefix(after_answer)
    return _Wraps(
        turns={
            "system": (system[0], system[1].removesuffix(before_user)),
            "user": (before_user, after_user),
            "assistant": (again[1].removeprefix(after_user), after_answer),
        },
        unsaid=user[0].removesuffix(before_user),
        opening=asked[-1].removeprefix(after_user),
    )


def _around(template: ChatTemplate, talk: str, *, answer: bool = False) -> list[str]:
    """What a template writes before, between and after the messages of a conversation."""
    rest, found = _rendered(template, talk, answer=answer), []
    for place, role in enumerate(talk):
        before, value, rest = rest.partition(_said(role, place))
        if not value:
            raise TemplateError(f"the chat template of {template.name} changes messages")
        found.append(before)
    return [*found, rest]


def _rendered(template: ChatTemplate, talk: str, *, answer: bool) -> str:
    messages = [
        {"role": _ROLES[role], "content": _said(role, place)} for place, role in enumerate(talk)
    ]
    text = template.render(messages, answer=answer)
    tokenizer = template.tokenizer
    if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:  # then Ollama writes it too
        text = text.removeprefix(tokenizer.bos_token)
    return text


def _compose(wraps: _Wraps, talk: str) -> str:
    """What Ollama would send."""
    text = "" if talk.startswith("s") else wraps.unsaid
    for place, role in enumerate(talk):
        before, after = wraps.turns[_ROLES[role]]
        text += before + _said(role, place) + after
    return text + wraps.opening


def _said(role: str, place: int) -> str:
    return f"{_ROLES[role].title()} says {place}."


def _go(text: str) -> str:
    """A text as Go's template language writes it, where no space may be lost."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
