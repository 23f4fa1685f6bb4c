from .check import CheckResult as CheckResult
from .load import load_app as load_app
from .model import TunedApp as TunedApp
from .report import AppReport as AppReport
from .router.model import TunedRouter as TunedRouter
from .router.tune import tune_router as tune_router
from .tune import tune_app as tune_app
