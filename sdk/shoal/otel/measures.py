"""The metrics of the SDK: names, units and labels, after gRFCs A66, A91, A96, and our own."""

from __future__ import annotations

from shoal.otel.tables import BYTES, RETRIES, SECONDS, Tables

METHOD, TARGET, STATUS, LOCALITY = "grpc.method", "grpc.target", "grpc.status", "grpc.lb.locality"


class Measures:
    """All instruments that calls write to.

    Args:
        tables: Where they stand.
    """

    def __init__(self, tables: Tables) -> None:
        call = (METHOD, TARGET)
        ended = (METHOD, TARGET, LOCALITY, STATUS)
        # A66: callers.
        self.attempt_started = tables.sum(
            "grpc.client.attempt.started", "{attempt}", "Attempts of calls begun", *call
        )
        self.attempt_duration = tables.spread(
            "grpc.client.attempt.duration",
            "s",
            "From an attempt's sending to its end",
            SECONDS,
            *ended,
        )
        self.attempt_sent = tables.spread(
            "grpc.client.attempt.sent_total_compressed_message_size",
            "By",
            "Bytes of the request of an attempt with one request, before compression",
            BYTES,
            *ended,
        )
        self.attempt_received = tables.spread(
            "grpc.client.attempt.rcvd_total_compressed_message_size",
            "By",
            "Bytes of the response to an attempt with one response, after decompression",
            BYTES,
            *ended,
        )
        self.call_duration = tables.spread(
            "grpc.client.call.duration",
            "s",
            "A call with all its attempts and waits, as its caller sees it",
            SECONDS,
            *call,
            STATUS,
        )
        # A96.
        self.retries = tables.spread(
            "grpc.client.call.retries",
            "{retry}",
            "Attempts after the first, of calls that had any",
            RETRIES,
            *call,
        )
        self.hedges = tables.spread(
            "grpc.client.call.hedges",
            "{hedge}",
            "Copies beside an attempt under way, of calls that had any",
            RETRIES,
            *call,
        )
        self.retry_delay = tables.spread(
            "grpc.client.call.retry_delay",
            "s",
            "Time without an attempt under way, of calls with retries",
            SECONDS,
            *call,
        )
        # A91.
        self.ejections = tables.sum(
            "grpc.lb.outlier_detection.ejections_enforced",
            "{ejection}",
            "Replicas that a channel left alone for their failures",
            TARGET,
            LOCALITY,
        )
        # A66: servers.
        self.served_started = tables.sum(
            "grpc.server.call.started", "{call}", "Calls that came in", METHOD
        )
        self.served_duration = tables.spread(
            "grpc.server.call.duration",
            "s",
            "From a call's arrival at its handler to its end",
            SECONDS,
            METHOD,
            STATUS,
        )
        self.served_received = tables.spread(
            "grpc.server.call.rcvd_total_compressed_message_size",
            "By",
            "Bytes of the request of a call with one request, after decompression",
            BYTES,
            METHOD,
            STATUS,
        )
        self.served_sent = tables.spread(
            "grpc.server.call.sent_total_compressed_message_size",
            "By",
            "Bytes of the response of a call with one response, before compression",
            BYTES,
            METHOD,
            STATUS,
        )
        # Ours.
        self.readmissions = tables.sum(
            "shoal.lb.readmissions",
            "{readmission}",
            "Ejected replicas that have shown themselves well",
            TARGET,
            LOCALITY,
        )
        self.drains = tables.spread(
            "shoal.server.drain.duration",
            "s",
            "From the order to leave until the server had left",
            SECONDS,
            "shoal.service",
            "shoal.outcome",
        )
