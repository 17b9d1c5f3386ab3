"""What browsers talk to: a WebSocket in front of a client, and the page that uses it."""

from .gateway import Gateway
from .websocket import WebSocket

__all__ = ["Gateway", "WebSocket"]
