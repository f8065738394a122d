"""Client-side balancing: one policy per file."""

from rpcfw.balancer.consistent_hash import ConsistentHash, IpHash
from rpcfw.balancer.keys import Key, by_argument, by_metadata
from rpcfw.balancer.least_in_flight import LeastInFlight
from rpcfw.balancer.least_loaded import LeastLoaded
from rpcfw.balancer.policy import Balancer, Node, Timed
from rpcfw.balancer.power_of_two import PowerOfTwo
from rpcfw.balancer.round_robin import RoundRobin
from rpcfw.balancer.shortest_response import ShortestResponse
from rpcfw.balancer.smooth_weighted import SmoothWeighted
from rpcfw.balancer.statistics import Statistics
from rpcfw.balancer.weighted_random import WeightedRandom

__all__ = [
    "Balancer",
    "ConsistentHash",
    "IpHash",
    "Key",
    "LeastInFlight",
    "LeastLoaded",
    "Node",
    "PowerOfTwo",
    "RoundRobin",
    "ShortestResponse",
    "SmoothWeighted",
    "Statistics",
    "Timed",
    "WeightedRandom",
    "by_argument",
    "by_metadata",
]
