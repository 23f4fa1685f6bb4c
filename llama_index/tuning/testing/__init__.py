"""Conformance kit: what every engine and component must do, ours and other packages' alike.

Needs no extra and no test runner: a failed check is an `AssertionError` that says what was asked.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
