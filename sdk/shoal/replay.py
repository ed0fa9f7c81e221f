"""A stream of requests that can be sent again, as long as little of it has gone out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Beyond this much there is no second attempt: a caller's memory is worth more.
LIMIT = 256 * 1024


class ReplayedRequests:
    """Serialized requests of one call, kept for another attempt up to `LIMIT` bytes.

    Each attempt reads through an iterator of its own (`reader`), on a thread of grpc's. The source
    is read once, by whichever reader is ahead; an attempt that failed while its reader waited for
    the source leaves that request to the next one.

    Args:
        source: The caller's requests.
        serialize: Turns one into bytes; None when they are bytes already.
    """

    def __init__(self, source: Iterable[Any], serialize: Callable[[Any], bytes] | None) -> None:
        self._source = iter(source)
        self._serialize = serialize
        self._kept: list[bytes] = []
        self._dropped = 0
        self._size = 0
        self._ended = False
        self._error: BaseException | None = None
        self._reading = False
        self._change = threading.Condition()

    @property
    def replayable(self) -> bool:
        """Whether everything that was read is still here."""
        return self._dropped == 0

    def reader(self) -> Iterator[bytes]:
        """All requests from the first on."""
        position = 0
        while (request := self._at(position)) is not None:
            yield request
            position += 1

    def _at(self, position: int) -> bytes | None:
        with self._change:
            while True:
                index = position - self._dropped
                if index < 0:
                    raise RuntimeError("a request stream was replayed after it was dropped")
                if index < len(self._kept):
                    return self._kept[index]
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return None
                if not self._reading:
                    self._reading = True
                    break
                self._change.wait()
        return self._read()

    def _read(self) -> bytes | None:
        request: bytes | None = None
        error: BaseException | None = None
        try:
            message = next(self._source)
            request = self._serialize(message) if self._serialize is not None else message
        except StopIteration:
            pass
        except BaseException as raised:
            # The caller's iterator failed: this attempt and any other must hear of it.
            error = raised
            raise
        finally:
            with self._change:
                self._reading = False
                self._error = error
                if request is None:
                    self._ended = True
                else:
                    self._keep(request)
                self._change.notify_all()
        return request

    def _keep(self, request: bytes) -> None:
        self._kept.append(request)
        self._size += len(request)
        if self._size > LIMIT:
            self._dropped += len(self._kept)
            self._kept.clear()
