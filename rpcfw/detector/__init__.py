"""Failure detection: which nodes are gone, by their heartbeats; which do badly, by their calls. No I/O, no clock."""

from rpcfw.detector.misses import Misses
from rpcfw.detector.outlier import Judgement, Outlier, OutlierRules
from rpcfw.detector.phi_accrual import PhiAccrual
from rpcfw.detector.policy import FailureDetector

__all__ = ["FailureDetector", "Judgement", "Misses", "Outlier", "OutlierRules", "PhiAccrual"]
