"""Folders of Parquet or JSON Lines files, worked through shard by shard: here, or on Ray Data."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
