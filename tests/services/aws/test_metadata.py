"""The instance metadata service, version 2, and what a service takes from it."""

import socket

import pytest

from shoal_gateway import runtime
from shoal_gateway.aws.metadata import InstanceMetadata, MetadataError, Notice, Placement


@pytest.fixture
def slept():
    return []


@pytest.fixture
def metadata(imds, slept):
    return InstanceMetadata(sleep=slept.append)


def test_placement(metadata, imds):
    assert metadata.placement() == Placement(
        "i-0123456789abcdef0", "eu-central-1b", "eu-central-1", "127.0.0.1"
    )
    assert imds.tokens == 1


def test_a_slash_at_the_endpoints_end_is_no_matter(imds):
    assert InstanceMetadata(f"{imds.url}/").placement().zone == "eu-central-1b"


def test_an_expired_token_is_renewed(metadata, imds):
    metadata.placement()
    imds.forget_tokens()
    assert metadata.get("meta-data/instance-id") == "i-0123456789abcdef0"
    assert imds.tokens == 2


def test_what_is_not_there_is_none(metadata):
    assert metadata.get("meta-data/no-such") is None


@pytest.mark.parametrize("code", [503, 429, 500])
def test_a_busy_service_is_asked_again(metadata, imds, slept, code):
    imds.failures = [code, code, code]
    assert metadata.placement().host == "i-0123456789abcdef0"
    assert slept == [0.2, 0.4, 0.8]


def test_a_service_that_stays_busy_is_said(metadata, imds):
    imds.failures = [503] * 4
    with pytest.raises(MetadataError, match="503"):
        metadata.placement()


def test_a_service_that_is_turned_off_is_said_at_once(metadata, imds, slept):
    imds.failures = [403]
    with pytest.raises(MetadataError, match=r"refuses .*turned off"):
        metadata.placement()
    assert slept == []


@pytest.mark.parametrize("code", [401, 404])
def test_a_service_that_gives_no_token_is_not_asked_without(metadata, imds, code):
    # As where only version 1 is on; the fixture fails the test that asks so.
    imds.failures = [code] * 10
    with pytest.raises(MetadataError, match=str(code)):
        metadata.placement()
    assert imds.asked == []


def test_an_instance_without_ipv4_is_said(metadata, imds):
    del imds.values["meta-data/local-ipv4"]
    with pytest.raises(MetadataError, match="no meta-data/local-ipv4"):
        metadata.placement()


def test_nobody_there_is_said(slept):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    metadata = InstanceMetadata(f"http://127.0.0.1:{port}", sleep=slept.append)
    with pytest.raises(MetadataError, match="is this an EC2 instance"):
        metadata.placement()
    assert len(slept) == 3


def test_somebody_silent_is_said(slept):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        metadata = InstanceMetadata(url, timeout=0.05, sleep=slept.append)
        with pytest.raises(MetadataError, match="does not answer"):
            metadata.placement()


def test_proxies_are_passed_by(metadata, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert InstanceMetadata().placement().zone == "eu-central-1b"


@pytest.mark.parametrize(
    ("path", "value", "notice"),
    [
        ("meta-data/autoscaling/target-lifecycle-state", "Terminated", Notice("terminated")),
        ("meta-data/autoscaling/target-lifecycle-state", "Warmed:Terminated", Notice("terminated")),
        (
            "meta-data/spot/instance-action",
            '{"action": "terminate", "time": "2026-11-28T08:22:00Z"}',
            Notice("spot", "2026-11-28T08:22:00Z"),
        ),
        (
            "meta-data/events/recommendations/rebalance",
            '{"noticeTime": "2026-11-28T08:20:00Z"}',
            Notice("rebalance", "2026-11-28T08:20:00Z"),
        ),
    ],
)
def test_an_instance_hears_that_it_is_to_go(metadata, imds, path, value, notice):
    assert metadata.notice() is None
    imds.values[path] = value
    assert metadata.notice() == notice


def test_an_instance_outside_of_any_group_has_no_notice(metadata, imds):
    del imds.values["meta-data/autoscaling/target-lifecycle-state"]
    assert metadata.notice() is None


def options(*arguments):
    made = runtime.parser("registry", "", "")
    return runtime.common_options(made.parse_args(["--zookeeper", "zk", *arguments]))


def test_a_service_announces_itself_from_where_it_is(imds):
    found = options("--placement", "ec2")
    assert (found.host, found.zone) == ("i-0123456789abcdef0", "eu-central-1b")
    assert (found.bind, found.advertise) == ("127.0.0.1:0", "127.0.0.1")
    imds.values["meta-data/local-ipv4"] = "10.0.3.7"
    found = options("--placement", "ec2")
    assert (found.bind, found.advertise) == ("10.0.3.7:0", "10.0.3.7")


def test_what_is_told_is_not_asked(imds):
    told = ["--host", "h", "--zone", "z", "--bind", "0.0.0.0:50051", "--advertise", "10.9.9.9"]
    found = options("--placement", "ec2", *told)
    assert (found.host, found.zone, found.bind, found.advertise) == (
        "h",
        "z",
        "0.0.0.0:50051",
        "10.9.9.9",
    )


def test_without_the_option_nobody_is_asked(imds):
    assert options().host == ""
    assert options().bind == "127.0.0.1:0"
    assert imds.asked == []
    assert imds.tokens == 0


def test_the_environment_may_say_it(imds, monkeypatch, capsys):
    monkeypatch.setenv("SHOAL_PLACEMENT", "ec2")
    assert options().zone == "eu-central-1b"
    assert options("--placement", "told").zone == ""
    monkeypatch.setenv("SHOAL_PLACEMENT", "moon")
    with pytest.raises(SystemExit):
        options()
    assert "SHOAL_PLACEMENT=moon: invalid choice" in capsys.readouterr().err


def test_a_service_that_is_not_on_ec2_ends_with_a_sentence(imds):
    imds.failures = [403]
    with pytest.raises(SystemExit, match=r"python -m shoal_gateway.registry: --placement ec2: the"):
        options("--placement", "ec2")
