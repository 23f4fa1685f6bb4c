from .engine import RouterFinetuneEngine as RouterFinetuneEngine
from .options import RouterOptions as RouterOptions
from .report import RouterReport as RouterReport
from .selector import TunedSelector as TunedSelector
from .tools import TunedToolRetriever as TunedToolRetriever
