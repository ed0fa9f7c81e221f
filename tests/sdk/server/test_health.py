"""``python -m shoal.health``, which containers ask."""

import pytest

from shoal import health

WAIT = 30
ECHO = "shoal.testing.v1.Echo"


def test_a_server_that_serves_is_healthy_and_one_that_leaves_is_not(made, directory, capsys):
    server = made()
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    target = f"127.0.0.1:{port}"
    # Started, and not announced.
    assert health.main([target]) == 1
    assert f"{target} NOT_SERVING" in capsys.readouterr().out
    replica = made().serve(directory)
    assert health.main([replica.target, "--service", ECHO]) == 0
    assert capsys.readouterr().out == f"{replica.target} SERVING\n"


def test_who_does_not_answer_is_not_healthy(capsys):
    assert health.main(["127.0.0.1:1", "--timeout", "5"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("bind", "target"),
    [
        ("0.0.0.0:7400", "127.0.0.1:7400"),
        ("127.0.2.1:7400", "127.0.2.1:7400"),
        ("[::]:7400", "[::1]:7400"),
        ("[fd00::7]:7400", "[fd00::7]:7400"),
    ],
)
def test_without_a_target_it_asks_the_server_of_its_container(bind, target):
    assert health.own_target({"SHOAL_BIND": bind}) == target


@pytest.mark.parametrize("environment", [{}, {"SHOAL_BIND": "0.0.0.0:0"}, {"SHOAL_BIND": "x"}])
def test_where_nobody_knows_the_target_it_says_so(environment):
    with pytest.raises(ValueError, match=r"SHOAL_BIND|host:port"):
        health.own_target(environment)
