"""Servers: ``Server`` offers tasks, ``TextServer`` any protocol of lines."""
