from .options import CallOptions as CallOptions, RunOptions as RunOptions
from .results import (
    Failure as Failure,
    GeneratedDataset as GeneratedDataset,
    QuestionAnswer as QuestionAnswer,
)
