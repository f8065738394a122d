"""Client-side balancing: one policy per file."""

from rpcfw.balancer.policy import Balancer, Node
from rpcfw.balancer.round_robin import RoundRobin

__all__ = ["Balancer", "Node", "RoundRobin"]
