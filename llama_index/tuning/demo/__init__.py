"""What examples, tests and `make demo` run on: Python's own language reference and MiniLM."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
