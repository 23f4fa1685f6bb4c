"""Which questions a tuned component has learnt, so that nothing is measured on them unawares.

A component says it by an attribute `learned`. An embedding adapter also keeps what its
cross-fitting made of each question before that was learnt: where the questions are asked again to
tune what comes after it, `unseen` lets it answer with that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._files import read_json
from llama_index.tuning.artifacts import CONFIG, read_arrays
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.text.words import normalise

LEARNED = "learned.safetensors"
Codes = NDArray[np.uint64]

_IN_MEMORY: dict[str, Learned] = {}
"""Of models that were loaded from a folder which is gone, by the folder's name."""


@dataclass(frozen=True, eq=False)
class Learned:
    """The questions that a component has learnt.

    Attributes:
        name: of the component, for people.
        codes: of the questions, see `question_codes`.
        vectors: the first questions' vectors, by adapters that had not seen them; shape
            `(m, dim)`, no more than there are codes.
    """

    name: str
    codes: Codes
    vectors: NDArray[np.float16] | None = None

    def among(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that it has learnt."""
        known = np.isin(question_codes(texts), self.codes)
        return [text for text, learnt in zip(texts, known.tolist(), strict=True) if learnt]

    def before(self, texts: Sequence[str]) -> dict[str, list[float]]:
        """Text → its vector by an adapter that had not seen it, of those that have one."""
        if self.vectors is None:
            return {}
        rows = {code: row for row, code in enumerate(self.codes[: len(self.vectors)].tolist())}
        codes = dict(zip(texts, question_codes(texts).tolist(), strict=True))
        return {
            text: self.vectors[rows[code]].astype(np.float32).tolist()
            for text, code in codes.items()
            if code in rows
        }

    def write(self, folder: Path) -> None:
        """Write it into a component's folder."""
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[Any]] = {"codes": self.codes}
        if self.vectors is not None:
            arrays["vectors"] = np.ascontiguousarray(self.vectors)
        save_file(arrays, folder / LEARNED, {"name": self.name})

    @classmethod
    def read(cls, folder: Path, name: str) -> Learned | None:
        """What lies in a component's folder; `None` if nothing does."""
        if not (folder / LEARNED).is_file():
            file = folder / CONFIG
            config = read_json(file, ArtifactError) if file.is_file() else None
            details = config.get("details") if isinstance(config, dict) else None
            return cls.of_details(name, details) if isinstance(details, dict) else None
        arrays = read_arrays(folder, LEARNED)
        if "codes" not in arrays:
            raise ArtifactError(f"{folder / LEARNED} holds no 'codes' of the questions learnt")
        return cls(name, arrays["codes"], arrays.get("vectors"))

    def to_hex(self) -> str:
        """The codes as text, for a component's settings."""
        return self.codes.astype(">u8").tobytes().hex()

    @classmethod
    def of_details(cls, name: str, details: Mapping[str, Any]) -> Learned | None:
        """From the settings of a component that keeps `to_hex` there, under `"questions"`."""
        told = details.get("questions")
        if not told:
            return None
        codes = np.frombuffer(bytes.fromhex(told), ">u8").astype(np.uint64)
        return cls(name, codes)


class Answers(dict[str, list[float]]):
    """Question → vector, given in place of a component's own; and which of them were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def to(self, question: str) -> list[float]:
        """Its vector; it was asked."""
        self.asked.add(question)
        return self[question]

    @contextmanager
    def of(self, vectors: Mapping[str, list[float]]) -> Iterator[set[str]]:
        """Within the block these are given; yields the questions that were asked so far."""
        self.update(vectors)
        self.asked.clear()
        try:
            yield self.asked
        finally:
            self.clear()


def question_codes(texts: Iterable[str]) -> Codes:
    """64 bits of each text's hash, case and space aside; shape `(n,)`."""
    digests = [
        hashlib.blake2b(normalise(text).encode("utf-8", "replace"), digest_size=8).digest()
        for text in texts
    ]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def remember(model_name: str, learned: Learned) -> None:
    """Know a model by its name for as long as the process lives, if its folder goes."""
    _IN_MEMORY[model_name] = learned


def learned_of(component: Any) -> Learned | None:
    """What a component has learnt, as far as that can be known.

    Args:
        component: one of this package, or an embedding model whose name is a folder of it.
    """
    own = getattr(component, "learned", None)
    if isinstance(own, Learned):
        return own
    name = getattr(component, "model_name", None)
    if not isinstance(name, str):
        return None
    if name in _IN_MEMORY:
        return _IN_MEMORY[name]
    return Learned.read(Path(name), f"embedding model {name}")
