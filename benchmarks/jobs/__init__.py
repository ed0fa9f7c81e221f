"""No-op jobs from submit to terminal record: Shoal beside Celery with Redis."""
