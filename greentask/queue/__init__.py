"""Durable tasks: kept in a file until they have ended, whatever dies meanwhile."""
