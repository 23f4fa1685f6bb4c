"""One call for a whole app: what it has is looked at, measured, tuned, and handed back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
