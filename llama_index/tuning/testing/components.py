"""What any app asks of a component, whoever wrote it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import BaseEvaluator
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import BaseComponent

from llama_index.tuning._running import run_async
from llama_index.tuning.testing import apps
from llama_index.tuning.testing.kinds import Kind, Probe, kind_of

Rebuild = Callable[[dict[str, Any]], Any]
_DEADLINE = 60.0  # seconds that a forked process may take


@dataclass(frozen=True)
class Asked:
    """A component with what it is asked, and its answers when it is asked in turn."""

    component: Any
    kind: Kind
    probe: Probe
    rebuild: Rebuild | None
    fork: bool
    loaded: Any
    answers: list[Any]

    def again(self, component: Any | None = None) -> list[Any]:
        """The answers to the probe's questions, of this component or of a copy."""
        asked = self.component if component is None else component
        return [self.kind.ask(asked, self.probe, question) for question in self.probe.questions]


def check_component(
    component: Any,
    probe: Probe | None = None,
    *,
    rebuild: Rebuild | None = None,
    fork: bool = True,
    loaded: Any = None,
) -> None:
    """Ask of a component what every app asks, in all the ways and places of LlamaIndex.

    It must answer alike when asked again, asynchronously, in batches, from threads, in a forked
    process, after pickling, saving and `to_dict()`, and in the places of an app that it is for
    (`Settings`, `IngestionPipeline`, `RouterQueryEngine`, `RetrieverQueryEngine`,
    `BatchEvalRunner`, a `Workflow`).

    Args:
        component: an embedding model, selector, node postprocessor, retriever, evaluator or LLM.
            It must be deterministic.
        probe: what it is asked.
        rebuild: makes it of what `to_dict()` gave, if its class has one: usually its `from_dict`
            with what is not written out. By default it is only checked that the dictionary is JSON.
        fork: whether a forked process asks it too. A model on torch may hang there once it has
            worked in several threads: servers fork first and load then.
        loaded: the same component, opened from where it was saved.

    Raises:
        AssertionError: an answer differs; it says whose and which.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> check_component(MockEmbedding(embed_dim=4), rebuild=MockEmbedding.from_dict)
    """
    kind, probe = kind_of(component), probe or Probe()
    first = [kind.ask(component, probe, question) for question in probe.questions]
    asked = Asked(component, kind, probe, rebuild, fork, loaded, first)
    for check in COMPONENT_CHECKS:
        check(asked)


def same_when_asked_again(asked: Asked) -> None:
    """The same question has the same answer."""
    _same(asked.again(), asked.answers, "asked again")


def async_is_sync(asked: Asked) -> None:
    """Asynchronous calls, several at once, answer as the others do."""

    async def all_at_once() -> list[Any]:
        import asyncio

        calls = (asked.kind.aask(asked.component, asked.probe, q) for q in asked.probe.questions)
        return list(await asyncio.gather(*calls))

    _same(run_async(all_at_once()), asked.answers, "asked asynchronously")


def batch_is_single(asked: Asked) -> None:
    """Many texts at once have the vectors that they have one by one."""
    if not isinstance(asked.component, BaseEmbedding):
        return
    texts = list(asked.probe.texts)
    one_by_one = [asked.component.get_text_embedding(text) for text in texts]
    _same(asked.component.get_text_embedding_batch(texts), one_by_one, "texts in a batch")
    at_once = run_async(asked.component.aget_text_embedding_batch(texts))
    _same(at_once, one_by_one, "texts in an asynchronous batch")


def threads_do_not_mix(asked: Asked) -> None:
    """Eight threads get their own answers."""
    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(lambda _: asked.again(), range(8)):
            _same(answers, asked.answers, "asked from eight threads")


def a_fork_answers(asked: Asked) -> None:
    """A process forked off (a server's worker) answers, and does not hang."""
    if not asked.fork or not hasattr(os, "fork"):
        return
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        try:
            sender.send(asked.again())
        except BaseException as exc:
            sender.send(f"{type(exc).__name__}: {exc}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads exist, as in a server
        process = context.Process(target=work)
        process.start()
    try:
        assert receiver.poll(_DEADLINE), f"a forked process hangs: {_name(asked)}"
        _same(receiver.recv(), asked.answers, "asked in a forked process")
    finally:
        process.kill()
        process.join()


def pickling_keeps_it(asked: Asked) -> None:
    """It goes to another process as it is."""
    copy = pickle.loads(pickle.dumps(asked.component))  # nosec B301 # just pickled
    _same(asked.again(copy), asked.answers, "pickled")


def its_folder_keeps_it(asked: Asked) -> None:
    """What was saved and opened again answers as before."""
    if asked.loaded is not None:
        _same(asked.again(asked.loaded), asked.answers, "loaded from where it was saved")


def a_dictionary_keeps_it(asked: Asked) -> None:
    """What `to_dict()` gives is JSON, and makes the same component if there is a way back."""
    if not isinstance(asked.component, BaseComponent):
        return
    try:
        data = json.loads(json.dumps(asked.component.to_dict()))
    except (TypeError, ValueError) as exc:
        raise AssertionError(f"to_dict() of {_name(asked)} is not JSON: {exc}") from exc
    if asked.rebuild is not None:
        _same(asked.again(asked.rebuild(data)), asked.answers, "rebuilt from to_dict()")


def a_workflow_gets_its_answers(asked: Asked) -> None:
    """A step of a workflow asks it."""
    for question, answer in zip(asked.probe.questions, asked.answers, strict=True):
        found = apps.in_a_workflow(asked.component, asked.kind, asked.probe, question)
        _same(found, answer, "asked in a workflow")


def it_works_in_its_place(asked: Asked) -> None:
    """The parts of LlamaIndex that hold such a component give its answers."""
    component, probe = asked.component, asked.probe
    question, answer = probe.questions[0], asked.answers[0]
    if isinstance(component, BaseEmbedding):
        one_by_one = [component.get_text_embedding(text) for text in probe.texts]
        _same(apps.ingested(component, probe), one_by_one, "in an IngestionPipeline")
        found = apps.retrieved(component, probe, question)
        assert sorted(found) == [node.node_id for node in probe.nodes()], (
            f"{_name(asked)} in Settings: an index found {found}"
        )
    elif isinstance(component, BaseSelector):
        if len(answer) == 1:
            wanted = probe.choices[answer[0]]
            _same(apps.routed(component, probe, question), wanted, "in a RouterQueryEngine")
    elif isinstance(component, BaseNodePostprocessor):
        found = apps.source_nodes(probe, question, reranker=component)
        _same(found, answer, "in a RetrieverQueryEngine")
    elif isinstance(component, BaseRetriever):
        found = apps.source_nodes(probe, question, retriever=component)
        _same(found, answer, "in a RetrieverQueryEngine")
    elif isinstance(component, BaseEvaluator):
        _same(apps.judged_together(component, probe), asked.answers, "in a BatchEvalRunner")
    elif isinstance(component, LLM):
        alone = component.predict(PromptTemplate("{query_str}\n"), query_str=question)
        assert isinstance(alone, str), f"predict() of {_name(asked)} gives {alone!r:.100}"
        assert isinstance(apps.answered(component, probe, question), str)


COMPONENT_CHECKS: tuple[Callable[[Asked], None], ...] = (
    same_when_asked_again,
    async_is_sync,
    batch_is_single,
    threads_do_not_mix,
    a_fork_answers,
    pickling_keeps_it,
    its_folder_keeps_it,
    a_dictionary_keeps_it,
    a_workflow_gets_its_answers,
    it_works_in_its_place,
)
"""The checks, in the order in which `check_component` makes them."""


def _name(asked: Asked) -> str:
    return type(asked.component).__name__


def _same(found: Any, wanted: Any, how: str) -> None:
    assert _alike(found, wanted), f"{how}, it answers {found!r:.300} instead of {wanted!r:.300}"


def _alike(one: Any, other: Any) -> bool:
    """Equal, with numbers as near as single precision makes them."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True))
    with contextlib.suppress(ValueError):
        return bool(one == other)
    return False
