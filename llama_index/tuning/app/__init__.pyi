from .check import CheckResult as CheckResult
from .model import TunedApp as TunedApp, load_app as load_app
from .report import AppReport as AppReport
from .router.model import TunedRouter as TunedRouter
from .router.tune import tune_router as tune_router
from .tune import tune_app as tune_app
