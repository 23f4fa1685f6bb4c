from .components import (
    COMPONENT_CHECKS as COMPONENT_CHECKS,
    check_component as check_component,
)
from .engines import (
    ENGINE_CHECKS as ENGINE_CHECKS,
    EngineCase as EngineCase,
    EngineRun as EngineRun,
    check_engine as check_engine,
)
from .kinds import Probe as Probe
