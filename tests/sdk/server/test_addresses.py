import errno
import socket

import pytest

import shoal
from shoal.addresses import advertised, bound, exclusive, split_address, towards


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:50051", ("::1", 50051)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("host-1:80", ("host-1", 80)),
        (":80", ("", 80)),
    ],
)
def test_addresses_are_split(address, found):
    assert split_address(address) == found


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1:80", "a:b", "a:99999", "unix:/tmp/x", "a/b:1"]
)
def test_what_is_no_address_is_named(address):
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)


@pytest.mark.parametrize(
    ("bind", "advertise", "found"),
    [
        ("127.0.1.1:0", None, ("127.0.1.1", None)),
        ("[::1]:0", None, ("::1", None)),
        ("0.0.0.0:0", "10.0.0.5", ("10.0.0.5", None)),
        ("[::]:0", "[2001:db8::5]", ("2001:db8::5", None)),
        ("[::]:0", "2001:db8::5", ("2001:db8::5", None)),
        ("0.0.0.0:50051", "gateway.example:443", ("gateway.example", 443)),
        ("[::]:0", "[2001:db8::5]:443", ("2001:db8::5", 443)),
    ],
)
def test_what_callers_are_told(bind, advertise, found):
    assert advertised(bind, advertise) == found


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:50051", ":0", "*:0"])
def test_a_server_that_listens_everywhere_must_say_where_it_is_found(bind):
    with pytest.raises(ValueError, match="advertise="):
        advertised(bind, None)


def test_everywhere_is_not_an_address_to_advertise():
    with pytest.raises(ValueError, match=r"advertise='0\.0\.0\.0'"):
        advertised("127.0.0.1:0", "0.0.0.0")


def test_ports_are_exclusive_unless_the_user_says_so():
    assert exclusive([]) == [("grpc.so_reuseport", 0)]
    assert exclusive([("grpc.so_reuseport", 1), ("a", "b")]) == [
        ("grpc.so_reuseport", 1),
        ("a", "b"),
    ]


def refused():
    raise RuntimeError("Failed to bind to address; set GRPC_VERBOSITY=debug")


def test_a_taken_port_is_named_with_its_cause():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(shoal.BindError, match="in use") as caught:
            bound(address, refused)
    assert caught.value.errno == errno.EADDRINUSE
    assert address in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_address_of_another_machine_is_named():
    with pytest.raises(shoal.BindError, match="not an address of this machine") as caught:
        bound("192.0.2.1:0", refused)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(shoal.BindError, match=r"no-such-host\.invalid:0"):
        bound("no-such-host.invalid:0", refused)


def test_an_older_grpc_says_zero():
    with pytest.raises(shoal.BindError):
        bound("127.0.0.1:0", lambda: 0)


def test_a_port_that_is_taken_on_one_of_a_names_addresses_is_not_shared(monkeypatch):
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
    ]
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        resolved = [(*entry[:4], (entry[4][0], port)) for entry in both]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
        with pytest.raises(shoal.BindError, match="in use"):
            bound(f"my-host:{port}", lambda: port)
        # A number means itself.
        assert bound(f"127.0.0.1:{port}", lambda: port) == port


def test_the_address_towards_others_is_that_of_the_route():
    assert towards("127.0.0.1:2181,127.0.2.1:2181/gateway") == "127.0.0.1"
    # The first that has a route.
    assert towards("nonsense,127.0.0.1:2181") == "127.0.0.1"


def test_where_no_way_leads_anywhere_each_reason_is_told():
    with pytest.raises(OSError, match=r"no way leads to nonsense: .*; host:99999: "):
        towards("nonsense,host:99999/gateway")
