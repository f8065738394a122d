"""The command line: `rpcfw run`, `call`, `list`, `services` and the others. Nothing of rpcfw imports it."""
