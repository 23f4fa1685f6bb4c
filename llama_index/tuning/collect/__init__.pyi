from .callbacks import (
    BaseFinetuningHandler as BaseFinetuningHandler,
    MistralAIFineTuningHandler as MistralAIFineTuningHandler,
    OpenAIFineTuningHandler as OpenAIFineTuningHandler,
)
from .masking import mask_secrets as mask_secrets
from .recorded import Only as Only, Record as Record
from .recorder import FinetuningRecorder as FinetuningRecorder
from .traffic import Traffic as Traffic
