"""Logs that change while they are read."""

from shoal_gateway.appmanager.attempt import Attempt, Spec
from shoal_gateway.appmanager.shipping import LogShipper


class Store:
    """Cuts a stream short after the shipper has looked at its size."""

    def __init__(self, path):
        self.path = path
        self.puts = []

    def list(self, prefix):
        self.path.write_bytes(b"")
        return []

    def put(self, key, chunks):
        self.puts.append((key.rpartition("/")[2], b"".join(chunks)))
        # An endless loop would be an endless test.
        assert len(self.puts) < 3


def test_a_stream_that_is_cut_short_meanwhile_is_no_endless_loop(tmp_path):
    spec = Spec("job", 1, "runner", ("true",), {}, (), 0.0, 0, str(tmp_path / "ledger.jsonl"))
    attempt = Attempt.create(tmp_path, spec)
    stdout = attempt.path / "stdout"
    stdout.write_bytes(b"long ago")
    store = Store(stdout)
    shipper = LogShipper(attempt, store)
    shipper.ship()
    assert store.puts == []
    # It goes on where it was when there is something to read again.
    stdout.write_bytes(b"more")
    shipper.ship()
    assert store.puts == [(f"{0:020d}", b"more")]
