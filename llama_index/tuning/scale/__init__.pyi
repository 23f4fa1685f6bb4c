from .asked import (
    generate_questions as generate_questions,
    judge_answers as judge_answers,
    label_relevance as label_relevance,
)
from .embed import embed_corpus as embed_corpus, vectors_to_array as vectors_to_array
from .negatives import mine_hard_negatives as mine_hard_negatives
from .options import ScaleOptions as ScaleOptions
from .run import FolderReport as FolderReport
