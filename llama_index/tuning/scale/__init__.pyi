from .embed import embed_corpus as embed_corpus, vectors_to_array as vectors_to_array
from .options import ScaleOptions as ScaleOptions
from .run import FolderReport as FolderReport
