"""The protocol without I/O: bytes in, frames out, with time passed in. docs/wire.md is its specification."""
