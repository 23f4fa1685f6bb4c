from .words import Analyzer as Analyzer
