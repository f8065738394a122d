"""Client stubs and server skeletons of `examples.search.contract`; edit the interface, not this file.

Made by `rpcfw gen examples.search.contract -o examples/search/stubs`.
"""

from .contract import SearchBlockingStub, SearchSkeleton, SearchStub

__all__ = ["SearchBlockingStub", "SearchSkeleton", "SearchStub"]
