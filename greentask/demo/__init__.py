"""The demo: a thousand mails go out, two reports are computed, and the service stays quick. All of it for real."""
