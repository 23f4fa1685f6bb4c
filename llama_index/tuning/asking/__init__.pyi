from .calls import CallOptions as CallOptions
from .results import (
    Failure as Failure,
    GeneratedDataset as GeneratedDataset,
    QuestionAnswer as QuestionAnswer,
)
