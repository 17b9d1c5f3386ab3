"""The client: calls that look like plain ones, over one connection."""

from .client import Client, Target
from .default import configure, default_client
from .flow import as_completed, gather, wait

__all__ = ["Client", "Target", "as_completed", "configure", "default_client", "gather", "wait"]
