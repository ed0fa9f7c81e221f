"""What all commands have in common: JSON, examples, exit codes, and where their code lies."""

import re
import signal
from pathlib import Path

import pytest

from shoal_gateway.cli import app, codes, loading, root
from tests.support.commandtree import leaves, top_level

LEAVES = leaves()
ALL = pytest.mark.parametrize("words", LEAVES, ids=" ".join)
DOCS = Path(__file__).parents[3] / "docs" / "cli.md"

# Commands without --json, and why.
SAYS_NOTHING = "it prints no data"
WRITES_A_REPORT = "it writes report.json into --out"
WITHOUT_JSON = {
    ("down",): SAYS_NOTHING,
    ("demo",): WRITES_A_REPORT,
    ("logs",): "it prints what the job wrote, byte for byte",
    ("dashboard",): "it is a server",
    ("dns",): "it is a server",
    ("config", "edit"): "it opens an editor",
    **{words: WRITES_A_REPORT for words in LEAVES if words[0] == "experiment"},
}
del WITHOUT_JSON["experiment", "check"]

# What is given to commands that need a fleet, where there is none.
NEEDS_A_FLEET = {
    ("dashboard",): [],
    ("down",): [],
    ("ps",): [],
    ("top",): [],
    ("kill",): ["registry-1"],
    ("start",): [],
    ("apps",): [],
    ("submit",): ["nap"],
    ("jobs",): [],
    ("job",): ["7"],
    ("logs",): ["7"],
    ("cancel",): ["7"],
    ("replay",): ["7"],
    ("outputs",): ["7"],
    ("dns",): [],
    ("release",): ["1.1"],
    ("upgrade",): ["registry", "--to", "1.1"],
    ("config", "get"): ["api"],
    ("config", "set"): ["api", "limit=1"],
    ("config", "edit"): ["api"],
    ("config", "history"): ["api"],
    ("config", "rollback"): ["api"],
    ("config", "watch"): ["api"],
    ("keys", "publish"): ["A" * 43 + "="],
    ("keys", "list"): [],
    ("keys", "revoke"): ["3f"],
    ("users", "add"): ["ada"],
    ("users", "set"): ["ada"],
    ("users", "list"): [],
    ("users", "whoami"): [],
    ("tokens", "create"): ["ada"],
    ("tokens", "list"): [],
    ("tokens", "revoke"): ["7"],
    ("zookeeper", "protect"): [],
    ("zookeeper", "check"): [],
}
# Others that fail where there is nothing.
FAIL = {
    ("keys", "rotate"): [],
    ("certs", "issue"): ["nowhere", "api"],
    ("certs", "renew"): ["nowhere"],
    ("certs", "roll"): ["nowhere"],
    ("certs", "show"): ["nowhere"],
    ("certs", "check"): ["nowhere"],
}
# Those that make their own world, or have it in AWS.
ON_THEIR_OWN = {("up",), ("demo",), ("doctor",), ("certs", "init"), ("keys", "new")} | {
    words for words in LEAVES if words[0] in ("experiment", "fleet")
}


@ALL
def test_every_command_prints_json_or_has_a_reason_not_to(words):
    options = {option for each in LEAVES[words].params for option in each.opts}
    assert ("--json" in options) != (words in WITHOUT_JSON)


@ALL
def test_the_help_of_every_command_has_an_example_of_it(shoal, words):
    said = shoal(*words, "--help").out
    assert re.search(r"Examples?:", said)
    examples = said.partition("Example")[2]
    assert f"{' '.join(words)}" in " ".join(examples.split())


@ALL
def test_what_can_not_be_read_is_a_usage_error(shoal, words):
    assert "No such option" in shoal(*words, "--no-such-option", code=codes.USAGE).err


def test_a_command_that_nobody_knows_is_a_usage_error(shoal):
    assert "No such command" in shoal("nothing", code=codes.USAGE).err


def test_every_command_is_in_one_of_the_lists():
    assert set(LEAVES) == {*NEEDS_A_FLEET, *FAIL, *ON_THEIR_OWN}


@pytest.mark.parametrize("words", NEEDS_A_FLEET, ids=" ".join)
def test_without_a_fleet_there_is_nobody_to_talk_to(shoal, words):
    said = shoal(*words, *NEEDS_A_FLEET[words], code=codes.UNREACHABLE)
    assert "start one with `shoal up`" in said.err
    assert said.out == ""


@pytest.mark.parametrize("words", FAIL, ids=" ".join)
def test_what_fails_says_why(shoal, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert shoal(*words, *FAIL[words], code=codes.FAILED).err.startswith("shoal: ")


@ALL
def test_an_interrupted_command_says_so(shoal, words, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LEAVES[words].__class__, "invoke", lambda *_: interrupted(None))
    given = NEEDS_A_FLEET.get(words) or FAIL.get(words) or []
    required = {("certs", "init"): ["x"], ("experiment", "check"): ["x"]}.get(words, [])
    if words[0] == "fleet":
        required = ["--name", "blue"] if words[1] != "list" else []
        required += ["i-1"] if words[1].endswith("-instance") else []
    if words == ("experiment", "instances"):
        required = ["--name", "blue"]
    shoal(*words, *given, *required, code=codes.INTERRUPTED)


def test_an_interrupt_before_a_command_began_is_one_too(shoal, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", interrupted)
    shoal("ps", code=codes.INTERRUPTED)


def test_a_defect_is_no_exit_code(shoal, monkeypatch):
    def broken(_):
        raise KeyError("surprise")

    monkeypatch.setattr(loading, "load", broken)
    with pytest.raises(KeyError, match="surprise"):
        shoal("ps")


def test_each_command_is_found_in_its_module():
    assert set(loading.MODULES) == top_level()
    registered = {
        (each.name or each.callback.__name__.replace("_", "-")): each.callback.__module__
        for each in root.app.registered_commands
    }
    for name, module in registered.items():
        assert module == f"shoal_gateway.cli.{loading.MODULES[name]}"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], None),
        (["--version"], None),
        (["ps"], "ps"),
        (["--fleet", "jobs", "ps", "--json"], "ps"),
        (["--fleet=jobs", "--tls", "x", "config", "get", "api"], "config"),
        (["--owner"], None),
    ],
)
def test_the_command_in_a_command_line(arguments, command):
    assert loading.command_in(arguments) == command


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, None),
        ({"_SHOAL_COMPLETE": "x", "COMP_WORDS": "shoal ki", "COMP_CWORD": "1"}, []),
        ({"_SHOAL_COMPLETE": "x", "COMP_WORDS": "shoal kill re", "COMP_CWORD": "2"}, ["kill"]),
        ({"_SHOAL_COMPLETE": "x", "_TYPER_COMPLETE_ARGS": "shoal kill"}, []),
        ({"_SHOAL_COMPLETE": "x", "_TYPER_COMPLETE_ARGS": "shoal kill "}, ["kill"]),
        ({"_SHOAL_COMPLETE": "x", "_TYPER_COMPLETE_ARGS": "shoal kill re"}, ["kill"]),
    ],
)
def test_the_words_before_the_one_to_complete(environment, words):
    assert loading.completed(environment) == words


def test_the_docs_name_every_command_and_every_exit_code():
    text = DOCS.read_text(encoding="utf-8")
    for words in LEAVES:
        assert f"shoal {' '.join(words)}" in text, words
    for code in (
        codes.FINE,
        codes.FAILED,
        codes.USAGE,
        codes.UNREACHABLE,
        codes.PAUSED,
        codes.INTERRUPTED,
    ):
        assert f"| {code} |" in text


def test_sigterm_is_as_ctrl_c(shoal, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda _: signal.raise_signal(signal.SIGTERM))
    shoal("ps", code=codes.INTERRUPTED)


def test_app_is_the_entry_point():
    assert app.run.__module__ == "shoal_gateway.cli.app"
