"""Tune the parts of a LlamaIndex app on your own data: measured, gated, local first.

Names load on first use: `import llama_index.tuning` alone imports neither torch nor any
vendor's client.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
