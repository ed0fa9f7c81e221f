"""The Celery side's tasks: as dependable as Celery has them."""

from __future__ import annotations

import os
import time

from celery import Celery

# Seconds until a task that a lost worker had taken is given to another; an hour unless it is said.
VISIBILITY = 5.0

NOOP = "noop"
WAIT = "wait"


def connected(url: str, *, results: str) -> Celery:
    """An app on a Redis server.

    Args:
        url: The broker.
        results: Where results are written; "disabled://" for who submits: with Redis it would
            subscribe to each result, which costs more than to submit.
    """
    made = Celery("bench", broker=url, backend=results, set_as_current=False)
    made.conf.update(
        task_acks_late=True,
        # A task whose process was killed runs again, instead of being failed.
        task_reject_on_worker_lost=True,
        broker_transport_options={"visibility_timeout": VISIBILITY},
        broker_connection_retry_on_startup=True,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        worker_send_task_events=False,
        task_send_sent_event=False,
    )
    return made


# The worker's.
_REDIS = os.environ.get("SHOAL_PEER_REDIS", "redis://127.0.0.1:6379/0")
app = connected(_REDIS, results=_REDIS)


# Celery has no types.
@app.task(name=NOOP)  # type: ignore[untyped-decorator]
def noop() -> None:
    """Does nothing."""


@app.task(name=WAIT)  # type: ignore[untyped-decorator]
def wait(seconds: float) -> float:
    """Waits, so that there is something to kill: the waiting is the task's work."""
    time.sleep(seconds)
    return seconds
