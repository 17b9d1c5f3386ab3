"""Task processes: a clean template that forks them, one channel to each, and the pool that hands out the calls.

``pool``, ``process`` and ``outlet`` run in the hub of the program that owns the pool; ``template`` and ``child`` run
in processes of their own, which know neither gevent nor the network.
"""
