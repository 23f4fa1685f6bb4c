"""What engines learn from: plain data, validated, saved as JSON or JSON Lines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
