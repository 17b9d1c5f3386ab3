"""Servers: ``Server`` offers tasks, ``TextServer`` any protocol of lines."""

from .server import Server
from .text import TextConnection, TextServer

__all__ = ["Server", "TextConnection", "TextServer"]
