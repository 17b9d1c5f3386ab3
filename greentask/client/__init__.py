"""The client: calls that look like plain ones, over one connection."""

from .client import Client, Target
from .default import configure, default_client

__all__ = ["Client", "Target", "configure", "default_client"]
