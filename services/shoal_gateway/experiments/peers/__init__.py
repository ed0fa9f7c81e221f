"""Shoal and Celery with Redis do the same jobs on the same machine: rates, and what kills cost."""
