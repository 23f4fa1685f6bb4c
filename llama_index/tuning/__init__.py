"""Tune the parts of a LlamaIndex app on your own data: measured, gated, local first.

Names load on first use: `import llama_index.tuning` alone imports neither torch nor any
vendor's client.
"""

import lazy_loader

from llama_index.tuning.predecessor.addresses import serve_old_addresses

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"

serve_old_addresses()
del serve_old_addresses
