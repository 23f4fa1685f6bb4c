from .jobs.asked import (
    generate_questions as generate_questions,
    judge_answers as judge_answers,
    label_relevance as label_relevance,
)
from .jobs.embed import embed_corpus as embed_corpus, vectors_to_array as vectors_to_array
from .jobs.negatives import mine_hard_negatives as mine_hard_negatives
from .jobs.rerank import rerank as rerank
from .jobs.stored import index_to_folder as index_to_folder
from .options import ScaleOptions as ScaleOptions
from .run import FolderReport as FolderReport
