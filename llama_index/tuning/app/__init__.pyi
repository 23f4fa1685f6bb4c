from .check import CheckResult as CheckResult
from .model import TunedApp as TunedApp
from .report import AppReport as AppReport
from .saved import load_app as load_app
from .tune import tune_app as tune_app
