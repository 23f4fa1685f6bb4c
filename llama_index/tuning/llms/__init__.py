"""Tuned LLMs: on this machine, or by a hosted job."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
