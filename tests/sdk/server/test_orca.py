"""Load reports on the wire, against the message that `xds-protos` has."""

import logging
import math
import subprocess
import sys

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from shoal import orca
from shoal_balancer import LoadReport
from tests.support.xds import XDS, OrcaLoadReport

amounts = st.floats(0.0, 1e12)
names = st.text(min_size=1, max_size=200).filter(
    lambda name: (
        name not in (orca.CPU, orca.MEMORY)
        and not name.startswith((orca.REQUEST_COST, orca.UTILIZATION))
    )
)
named = st.dictionaries(names, st.floats(-1e12, 1e12))
maps = st.dictionaries(st.text(max_size=20), amounts, max_size=4)


def test_bytes_are_those_of_the_real_message():
    report = LoadReport(utilisation=0.75, qps=12.5, eps=0.5, named={"in_flight": 3.0})
    real = OrcaLoadReport(
        application_utilization=0.75,
        rps_fractional=12.5,
        eps=0.5,
        named_metrics={"in_flight": 3.0},
    )
    assert orca.encode(report) == real.SerializeToString()


def test_nothing_said_is_no_bytes():
    assert orca.encode(LoadReport()) == OrcaLoadReport().SerializeToString() == b""
    assert orca.decode(b"") == LoadReport()


@given(amounts, amounts, amounts, named)
def test_the_real_message_reads_what_is_written(utilisation, qps, eps, named):
    real = OrcaLoadReport.FromString(orca.encode(LoadReport(utilisation, qps, eps, named)))
    assert (real.application_utilization, real.rps_fractional, real.eps) == (utilisation, qps, eps)
    assert dict(real.named_metrics) == named
    assert len(UnknownFieldSet(real)) == 0


@given(amounts, amounts, amounts, named, amounts, amounts, maps, maps)
def test_what_the_real_message_writes_is_read(
    utilisation, qps, eps, named, cpu, memory, cost, other
):
    real = OrcaLoadReport(
        application_utilization=utilisation,
        rps_fractional=qps,
        eps=eps,
        named_metrics=named,
        cpu_utilization=cpu,
        mem_utilization=memory,
        request_cost=cost,
        utilization=other,
    )
    expected = {
        **named,
        **({"cpu_utilization": cpu} if cpu else {}),
        **({"mem_utilization": memory} if memory else {}),
        **{f"request_cost.{name}": value for name, value in cost.items()},
        **{f"utilization.{name}": value for name, value in other.items()},
    }
    report = orca.decode(real.SerializeToString())
    assert report == LoadReport(utilisation, qps, eps, expected)
    # And all of it goes into the same fields again.
    assert OrcaLoadReport.FromString(orca.encode(report)) == real


def test_a_name_longer_than_a_byte_can_say():
    report = LoadReport(named={"x" * 300: 1.0})
    assert orca.encode(report) == OrcaLoadReport(named_metrics={"x" * 300: 1.0}).SerializeToString()


def test_the_old_rate_is_read_where_the_new_one_is_missing():
    assert orca.decode(OrcaLoadReport(rps=7).SerializeToString()).qps == 7.0
    assert orca.decode(OrcaLoadReport(rps=7, rps_fractional=7.5).SerializeToString()).qps == 7.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0])
def test_values_that_can_not_be_true_count_as_not_said(bad):
    real = OrcaLoadReport(application_utilization=bad, rps_fractional=bad, eps=bad)
    assert orca.decode(real.SerializeToString()) == LoadReport()


def test_named_values_may_be_negative_but_must_be_numbers():
    real = OrcaLoadReport(named_metrics={"below": -3.0, "odd": math.nan, "endless": math.inf})
    assert dict(orca.decode(real.SerializeToString()).named) == {"below": -3.0}


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"\x49\x00", b"I" + b"\x00" * 7, b"\x42\x7f", b"\x42\x03\x0a\x01\xff", "text", None],
)
def test_what_can_not_be_read_is_counted_and_ignored(data, caplog):
    before = orca.ignored()
    with caplog.at_level(logging.DEBUG, logger="shoal.orca"):
        assert orca.decode(data) is None
    assert orca.ignored() == before + 1
    assert "can't be read" in caplog.text


@given(st.binary(max_size=64))
def test_no_bytes_raise(data):
    report = orca.decode(data)
    assert report is None or (report.utilisation >= 0.0 and math.isfinite(report.qps))


def test_the_report_in_trailers():
    trailers = (("x", "1"), *orca.trailers(orca.encode(LoadReport(utilisation=0.5))))
    assert orca.report_in(trailers) == LoadReport(utilisation=0.5)
    assert {key for key, _ in trailers} == {"x", "shoal-load-bin", "endpoint-load-metrics-bin"}
    assert orca.report_in((("x", "1"),)) is None
    assert orca.report_in(None) is None


@pytest.mark.parametrize("order", ["shoal first", "xds first"])
def test_both_can_be_imported_in_one_process(order):
    """The default pool refuses a second, different file of the same name."""
    ours = "from shoal import orca\n"
    theirs = "from xds.data.orca.v3 import orca_load_report_pb2 as real\n"
    program = (
        f"import sys; sys.path.append({XDS!r})\n"
        "from google.protobuf import descriptor_pool\n"
        "pool = descriptor_pool.Default()\n"
        "def known():\n"
        "    try:\n"
        "        return bool(pool.FindMessageTypeByName('xds.data.orca.v3.OrcaLoadReport'))\n"
        "    except KeyError:\n"
        "        return False\n"
        + (ours + "assert not known()\n" + theirs if order == "shoal first" else theirs + ours)
        + "assert known()\n"
        "data = real.OrcaLoadReport(eps=2.0).SerializeToString()\n"
        "assert orca.decode(data).eps == 2.0\n"
        "print('fine')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_our_definition_is_the_real_one():
    """Each field: name, number, type, label; so that no report of others is misread."""
    ours = orca._Report.DESCRIPTOR
    real = OrcaLoadReport.DESCRIPTOR

    def shape(descriptor):
        return {
            (each.name, each.number, each.type, each.is_repeated) for each in descriptor.fields
        } | {
            (nested.name, *sorted((each.name, each.number, each.type) for each in nested.fields))
            for nested in descriptor.nested_types
        }

    assert shape(ours) == shape(real)
    assert ours.file.pool is not real.file.pool
