"""The master of ``greentask serve``, which owns the listening sockets, and the fronts that it starts to serve them."""
