from .engine import RouterFinetuneEngine as RouterFinetuneEngine
from .options import RouterOptions as RouterOptions
from .report import RouterReport as RouterReport
from .serving.selector import TunedSelector as TunedSelector
from .serving.tools import TunedToolRetriever as TunedToolRetriever
