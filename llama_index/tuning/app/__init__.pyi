from .check import CheckResult as CheckResult
from .model import TunedApp as TunedApp, load_app as load_app
from .report import AppReport as AppReport
from .tune import tune_app as tune_app
