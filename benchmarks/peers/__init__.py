"""The other frameworks that are measured, each in its most favourable ordinary configuration, a module each.

`benchmarks.catalog` finds them by what they define; one whose packages are missing hinders no other.
"""
