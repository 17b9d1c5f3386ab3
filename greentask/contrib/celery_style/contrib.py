"""Celery's own contrib isn't carried over: to import this says what to do instead."""

from .missing import refuse_module

refuse_module(__name__)
