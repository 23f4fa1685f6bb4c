"""One model at a time: transformers patches itself while it builds one.

Two threads that do so leave it patched, after which every model lacks its tied weights.
"""

from __future__ import annotations

from llama_index.tuning._async import ThreadLock

BUILDING = ThreadLock()
