"""rpcfw on real input: full-text search over the Python standard library's source, in four server processes.

Read `contract` first, then `server` and `demo`. The search itself (`corpus`, `query`, `index`) knows nothing
of rpcfw.
"""
