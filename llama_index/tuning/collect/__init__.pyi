from .callbacks import (
    BaseFinetuningHandler as BaseFinetuningHandler,
    MistralAIFineTuningHandler as MistralAIFineTuningHandler,
    OpenAIFineTuningHandler as OpenAIFineTuningHandler,
)
from .log import mask_secrets as mask_secrets
from .recorder import FinetuningRecorder as FinetuningRecorder
from .traffic import Only as Only, Record as Record, Traffic as Traffic
