"""Training data from a running app: the recorder, and what reads it back."""

from llama_index.tuning.collect.callbacks import OpenAIFineTuningHandler
from llama_index.tuning.collect.recorder import FinetuningRecorder
from llama_index.tuning.collect.redact import mask_secrets
from llama_index.tuning.collect.traffic import Only, Record, Traffic

__all__ = [
    "FinetuningRecorder",
    "Only",
    "OpenAIFineTuningHandler",
    "Record",
    "Traffic",
    "mask_secrets",
]
