"""Failure detection: which nodes are gone, by their heartbeats; which do badly, by their calls. No I/O, no clock."""

from rpcfw.detector.policy import FailureDetector

__all__ = ["FailureDetector"]
