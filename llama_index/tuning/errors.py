"""The errors of this package.

TuningError
├── DatasetError        (ValueError)    data that cannot be learnt from, with every fault named
├── VectorError         (ValueError)    vectors that are missing, of the wrong size, or not finite
├── StoreError          (ValueError)    a vector store that cannot do what was asked
├── ArtifactError       (ValueError)    a folder that is not, or no longer, a saved component
├── HostedEndedError    (RuntimeError)  a vendor no longer does this
├── HostedError         (RuntimeError)  a server of hosted jobs refused, or cannot be reached
│   └── JobError                        a hosted job failed or was cancelled
├── JobNotFinishedError (TimeoutError)  a hosted job is still running
├── OutOfScopeError     (ValueError)    a query that belongs to none of a router's choices
├── NotFinetunedError   (ValueError)    the engine was asked for a model before `finetune()`
├── JudgeRefusedError   (RuntimeError)  a tuned judge that beats no shortcut, and no other there
├── RunFileError        (ValueError)    a run file of another run, in use by another, or damaged
├── ReplyError          (ValueError)    an LLM's reply that does not hold what was asked for
├── GenerationError     (RuntimeError)  generation stopped; what was finished is in its run file
├── TemplateError       (ValueError)    a chat template that cannot write what it was given
├── BaseModelError      (ValueError)    a model to start from that is missing, damaged or another
└── MissingExtraError   (ImportError)   an optional dependency, with the line that installs it

Plain misuse of an argument stays `ValueError` or `TypeError`.
"""

from __future__ import annotations

from collections.abc import Sequence


class TuningError(Exception):
    """Base of every error that this package defines."""


class DatasetError(TuningError, ValueError):
    """Data that cannot be learnt from.

    `faults` holds one sentence for each fault, naming the id concerned; the message shows the
    first ten.
    """

    def __init__(self, what: str, faults: Sequence[str] = ()) -> None:
        self.faults = list(faults)
        shown = [f"  - {fault}" for fault in self.faults[:10]]
        if len(self.faults) > 10:
            shown.append(f"  - … and {len(self.faults) - 10} more (see the error's .faults)")
        super().__init__("\n".join([what, *shown]))


class VectorError(TuningError, ValueError):
    """Vectors that are missing, of the wrong dimension, or not finite."""


class StoreError(TuningError, ValueError):
    """A vector store that cannot do what was asked of it."""


class ArtifactError(TuningError, ValueError):
    """A folder that is not, or no longer, a saved component."""


class HostedEndedError(TuningError, RuntimeError):
    """A vendor no longer tunes this kind of model; the message says what does."""


class HostedError(TuningError, RuntimeError):
    """A server of hosted jobs refused a request, or cannot be reached.

    `status` is the HTTP status, `code` and `param` what the server names beside its message;
    each is None where there is none.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class JobError(HostedError):
    """A hosted job failed or was cancelled.

    `job_id` names it, `state` is `"failed"` or `"cancelled"`, `events` are its last messages.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        state: str,
        code: str | None = None,
        param: str | None = None,
        events: Sequence[str] = (),
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.job_id, self.state, self.events = job_id, state, list(events)


class JobNotFinishedError(TuningError, TimeoutError):
    """A hosted job is still running; `job_id` and `state` say which and how."""

    def __init__(self, message: str, *, job_id: str, state: str) -> None:
        super().__init__(message)
        self.job_id, self.state = job_id, state


class OutOfScopeError(TuningError, ValueError):
    """A query belongs to none of a router's choices, and its fallback is `"error"`."""


class NotFinetunedError(TuningError, ValueError, RuntimeError):
    """The engine was asked for its model before `finetune()` ran; a `RuntimeError` too."""


class JudgeRefusedError(TuningError, RuntimeError):
    """A tuned judge beats no shortcut, and there is no evaluator to return in its place."""


class RunFileError(TuningError, ValueError):
    """A run file that belongs to another run, is in use by another, or is damaged."""


class ReplyError(TuningError, ValueError):
    """An LLM's reply that does not hold what was asked for."""


class GenerationError(TuningError, RuntimeError):
    """Generation stopped: the first failed item was to end it, or no call can succeed."""


class TemplateError(TuningError, ValueError):
    """A chat template that is missing, or cannot write what it was given."""


class BaseModelError(TuningError, ValueError):
    """A model to start from that is not there, is damaged, or is not the one it should be."""


class MissingExtraError(TuningError, ImportError):
    """An optional dependency is missing; the message holds the line that installs it."""

    def __init__(self, wanted: str, library: str, extra: str) -> None:
        super().__init__(
            f"{wanted} needs {library}, which is not installed: "
            f"pip install 'llama-index-tuning[{extra}]'"
        )
