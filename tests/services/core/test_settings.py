"""Options from the environment."""

import pytest

from shoal_gateway.settings import Parser


def parser(**environment):
    made = Parser(prog="service", environment=environment)
    made.add_argument("--store", required=True)
    made.add_argument("--slots", type=int, required="SHOAL_SLOTS" in environment)
    made.add_argument("--store-wait", type=float, default=60.0)
    made.add_argument("--require-signed", action="store_true")
    made.add_argument("--log-level", choices=["INFO", "DEBUG"], default="INFO")
    made.add_argument("--version", default="1.0")
    made.add_argument("--cache")
    return made


def test_a_variable_does_what_its_option_does():
    options = parser(
        SHOAL_STORE="postgresql://shoal:a=b@db/shoal",
        SHOAL_STORE_WAIT="2.5",
        SHOAL_REQUIRE_SIGNED="true",
        SHOAL_LOG_LEVEL="DEBUG",
    ).parse_args([])
    assert options.store == "postgresql://shoal:a=b@db/shoal"
    assert (options.store_wait, options.require_signed, options.log_level) == (2.5, True, "DEBUG")


def test_the_command_line_wins():
    options = parser(SHOAL_STORE="a", SHOAL_STORE_WAIT="1").parse_args(["--store", "b"])
    assert (options.store, options.store_wait) == ("b", 1.0)


def test_the_command_line_wins_over_what_is_wrong():
    wrong = {
        "SHOAL_STORE_WAIT": "soon",
        "SHOAL_LOG_LEVEL": "LOUD",
        "SHOAL_REQUIRE_SIGNED": "perhaps",
    }
    said = ["--store", "b", "--store-wait", "2", "--log-level", "DEBUG", "--require-signed"]
    options = parser(**wrong).parse_args(said)
    assert (options.store_wait, options.log_level, options.require_signed) == (2.0, "DEBUG", True)


def test_help_comes_also_beside_what_is_wrong(capsys):
    with pytest.raises(SystemExit) as ended:
        parser(SHOAL_STORE_WAIT="soon").parse_args(["--help"])
    assert ended.value.code == 0
    assert "--store-wait" in capsys.readouterr().out


def test_an_empty_variable_is_none():
    options = parser(SHOAL_STORE_WAIT="", SHOAL_REQUIRE_SIGNED="").parse_args(["--store", "b"])
    assert (options.store_wait, options.require_signed) == (60.0, False)
    assert not parser(SHOAL_REQUIRE_SIGNED="no").parse_args(["--store", "b"]).require_signed


def test_a_value_may_look_like_an_option():
    assert parser(SHOAL_STORE="--odd").parse_args([]).store == "--odd"


def test_versions_and_caches_do_not_come_from_there():
    options = parser(SHOAL_VERSION="9", SHOAL_CACHE="/x").parse_args(["--store", "b"])
    assert (options.version, options.cache) == ("1.0", None)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SHOAL_STORE_WAIT": "soon"}, "SHOAL_STORE_WAIT=soon: invalid float value"),
        ({"SHOAL_LOG_LEVEL": "LOUD"}, "SHOAL_LOG_LEVEL=LOUD: invalid choice"),
        ({"SHOAL_REQUIRE_SIGNED": "perhaps"}, "SHOAL_REQUIRE_SIGNED=perhaps is neither true"),
        ({"SHOAL_SLOTS": "many"}, "SHOAL_SLOTS=many: invalid int value"),
    ],
)
def test_what_is_wrong_is_blamed_on_the_variable(environment, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parser(**environment).parse_args(["--store", "b"])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_missing_is_said(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args([])
    assert "required: --store" in capsys.readouterr().err
