"""The wire: framing, JSON, messages and addresses, without any I/O."""
