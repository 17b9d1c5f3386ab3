"""Task processes: a clean template that forks them, one channel to each, and the pool that hands out the calls.

``processes`` (with ``population``, ``process``, ``link``) runs in the hub of the program that owns the pool, and
``executor`` in front of it; ``template`` and ``child`` run in processes of their own, which know neither gevent nor the
network.
"""
