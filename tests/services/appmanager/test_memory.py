"""A job's memory, in the processes of a real attempt."""

import pytest

from shoal_gateway.appmanager.ports import Ended
from tests.services.appmanager.host import Host


@pytest.mark.parametrize(
    "code",
    ["x = bytearray(1 << 40)", "x = [bytes(1 << 20) for _ in range(10000)]"],
    ids=["at once", "bit by bit"],
)
def test_a_memory_hog_fails_with_a_word_why_and_the_manager_lives(tmp_path, code):
    host = Host(tmp_path)
    host.open()
    try:
        job_id = host.python(code, memory_mib=200)
        result = host.report(job_id)
        assert (result.ended, result.exit_code) == (Ended.FAILED, 1)
        assert "its memory limit of 200 MiB" in result.reason
        failed = host.report(host.python("raise SystemExit(3)", memory_mib=200))
        assert "memory" not in failed.reason
    finally:
        host.close()
