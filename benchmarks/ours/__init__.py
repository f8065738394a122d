"""rpcfw in its configurations."""
