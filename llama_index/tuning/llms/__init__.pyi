from .hosted.azure import AzureOpenAIFinetuneEngine as AzureOpenAIFinetuneEngine
from .hosted.engine import OpenAIFinetuneEngine as OpenAIFinetuneEngine
from .hosted.files import JobEstimate as JobEstimate
from .local.engine import HuggingFaceFinetuneEngine as HuggingFaceFinetuneEngine
from .local.options import HuggingFaceOptions as HuggingFaceOptions
from .serving.export import export_llm as export_llm
from .serving.model import TunedHuggingFaceLLM as TunedHuggingFaceLLM
from .serving.tool_calls import ParsedReply as ParsedReply, ToolCall as ToolCall
from .serving.tool_parsers import HermesToolParser as HermesToolParser, ToolParser as ToolParser
from .tasks.calls import (
    CallItem as CallItem,
    ExpectedCall as ExpectedCall,
    call_dataset as call_dataset,
    call_scorer as call_scorer,
    call_scores as call_scores,
)
from .tasks.code import (
    CheckScorer as CheckScorer,
    PythonCheck as PythonCheck,
    check_scorer as check_scorer,
    checked_dataset as checked_dataset,
)
from .tasks.distil import (
    DistilledDataset as DistilledDataset,
    DroppedAnswer as DroppedAnswer,
    distillation_dataset as distillation_dataset,
    distillation_scorer as distillation_scorer,
)
from .tasks.knowledge import (
    knowledge_dataset as knowledge_dataset,
    knowledge_scorer as knowledge_scorer,
)
from .tasks.recipes import (
    call_task as call_task,
    check_task as check_task,
    distillation_task as distillation_task,
    knowledge_task as knowledge_task,
    sql_task as sql_task,
    style_task as style_task,
)
from .tasks.sql import (
    ExecutionScorer as ExecutionScorer,
    execution_scorer as execution_scorer,
    sql_dataset as sql_dataset,
    text_to_sql_prompt as text_to_sql_prompt,
)
from .tasks.style import (
    StyleItem as StyleItem,
    has_words as has_words,
    is_json as is_json,
    lacks as lacks,
    matches as matches,
    reads_at as reads_at,
    style_dataset as style_dataset,
    style_scorer as style_scorer,
)
from .tasks.task import LLMTask as LLMTask
