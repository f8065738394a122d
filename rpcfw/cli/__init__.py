"""The command line: `rpcfw run`, `call`, `list`, `describe`, `new`, `gen`, `check`. Nothing of rpcfw imports it."""
