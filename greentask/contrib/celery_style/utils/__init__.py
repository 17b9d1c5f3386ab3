"""The part of Celery's utilities that task code imports."""
