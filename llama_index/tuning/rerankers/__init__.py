"""Re-rankers: a light one and cross-encoders, tuned on the app's own candidates."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
