from .engine import JudgeFinetuneEngine as JudgeFinetuneEngine
from .judge import TunedJudge as TunedJudge
from .label import LabelledJudgments as LabelledJudgments, label_judgments as label_judgments
from .options import JudgeOptions as JudgeOptions
from .pass_rates.compare import compare_versions as compare_versions
from .pass_rates.estimate import estimate_pass_rate as estimate_pass_rate
from .pass_rates.recalibrate import recalibrate_judge as recalibrate_judge
from .run import JudgeReport as JudgeReport
