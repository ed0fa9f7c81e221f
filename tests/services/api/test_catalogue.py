"""Applications from TOML, and the commands that they make."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_gateway.api import logic, parameters
from shoal_gateway.api.catalogue import Application, Catalogue, CatalogueError, version_key
from shoal_gateway.convert import unix
from shoal_gateway.errors import InvalidError, NotFoundError
from shoal_protos.gateway.api.v1 import api_pb2
from shoal_protos.gateway.model.v1 import job_pb2

CLIMATE = """
name = "climate"
version = "2.0"
flavor = "local"
command = ["{python}", "{app}/forecast.py", "--month={month}", "--city={city}", "--band={band}"]
inputs = ["observations.csv"]
outputs = ["forecast.json", "plots/forecast.png"]

[[parameters]]
name = "month"
type = "integer"
min = 1
max = 12

[[parameters]]
name = "city"
type = "string"
default = "Seattle"

[[parameters]]
name = "band"
type = "number"
default = 0.9
min = 0
max = 1

[resources]
wall_seconds = 30
memory_mib = 1024

[retry]
exit_codes = [75]
max_failures = 2
"""
SHA = "ab" * 32


@pytest.fixture
def catalogue(tmp_path):
    (tmp_path / "climate.toml").write_text(CLIMATE)
    old = CLIMATE.replace('version = "2.0"', 'version = "1.10"').replace("local", "local-legacy")
    (tmp_path / "climate-1.toml").write_text(old)
    (tmp_path / "climate-0.toml").write_text(CLIMATE.replace('version = "2.0"', 'version = "1.9"'))
    return Catalogue.load(tmp_path)


def request(**changes):
    stored = job_pb2.ObjectRef(key=f"uploads/{SHA}", sha256=SHA, size=3)
    fields = {
        "owner": "ada",
        "idempotency_key": "k",
        "application": "climate",
        "parameters": {"month": "7"},
        "inputs": [job_pb2.FileRef(name="observations.csv", object=stored)],
    }
    return api_pb2.SubmitRequest(**{**fields, **changes})


def test_a_submit_becomes_a_job_that_needs_no_catalogue(catalogue):
    found = logic.submission(request(), catalogue, 1000.0)
    assert found.spec == job_pb2.JobSpec(
        application="climate@2.0",
        flavor="local",
        command=[
            "{python}",
            "{app}/forecast.py",
            "--month=7",
            "--city=Seattle",
            "--band=0.9",
        ],
        parameters={"month": "7", "city": "Seattle", "band": "0.9"},
        inputs=request().inputs,
        outputs=["forecast.json", "plots/forecast.png"],
        resources=job_pb2.Resources(wall_seconds=30.0, memory_mib=1024),
        retryable_exit_codes=[75],
        max_failures=2,
    )


def test_the_newest_version_is_by_number_and_an_old_one_by_name(catalogue):
    assert catalogue.find("climate").full_name == "climate@2.0"
    assert catalogue.find("climate@1.10").flavor == "local-legacy"
    versions = [each.version for each in catalogue.applications]
    assert versions == ["1.9", "1.10", "2.0"]
    with pytest.raises(NotFoundError, match=r"climate@3.*climate@1\.9, climate@1\.10"):
        catalogue.find("climate@3")
    assert version_key("1.0-rc1") != version_key("1.0")


def test_a_deadline_counts_from_the_submit_and_does_not_change_what_the_key_means(catalogue):
    asked = request()
    asked.start_within.FromSeconds(60)
    first = logic.submission(asked, catalogue, 1000.0)
    again = logic.submission(asked, catalogue, 1007.0)
    assert unix(first.spec.deadline) == 1060.0
    assert unix(again.spec.deadline) == 1067.0
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != logic.submission(request(), catalogue, 1000.0).fingerprint


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"owner": ""}, "owner"),
        ({"owner": "x" * 129}, "owner"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"application": ""}, "application"),
        ({"parameters": {}}, "parameters[month]"),
        ({"parameters": {"month": "13"}}, "parameters[month]"),
        ({"parameters": {"month": "seven"}}, "parameters[month]"),
        ({"parameters": {"month": "7.0"}}, "parameters[month]"),
        ({"parameters": {"month": "1_0"}}, "parameters[month]"),
        ({"parameters": {"month": "7", "band": "nan"}}, "parameters[band]"),
        ({"parameters": {"month": "7", "band": "1.5"}}, "parameters[band]"),
        ({"parameters": {"month": "7", "city": "{python}"}}, "parameters[city]"),
        ({"parameters": {"month": "7", "city": "x" * 5000}}, "parameters[city]"),
        ({"parameters": {"month": "7", "town": "x"}}, "parameters[town]"),
        ({"inputs": []}, "inputs"),
        ({"max_attempts": -1}, "max_attempts"),
    ],
)
def test_what_is_wrong_is_named(catalogue, changes, field):
    with pytest.raises(InvalidError) as caught:
        logic.submission(request(**changes), catalogue, 0.0)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda file: file.object.ClearField("key"), "inputs[0].object.key"),
        (lambda file: setattr(file, "name", "../x"), "inputs[0].name"),
        (lambda file: setattr(file, "name", "other.csv"), "inputs[0].name"),
        (lambda file: setattr(file.object, "sha256", "AB"), "inputs[0].object.sha256"),
        (lambda file: setattr(file.object, "size", -1), "inputs[0].object.size"),
        # Another job's output is nobody's input.
        (lambda file: setattr(file.object, "key", "jobs/7/outputs/x"), "inputs[0].object.key"),
        (lambda file: file.ClearField("object"), "inputs[0].object"),
    ],
)
def test_a_wrong_input_is_named(catalogue, change, field):
    asked = request()
    change(asked.inputs[0])
    with pytest.raises(InvalidError) as caught:
        logic.submission(asked, catalogue, 0.0)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('flavor = "local"', "", "flavor"),
        ('"--month={month}"', '"--month={mont}"', "{mont} is not a parameter"),
        (', "--band={band}"', "", "band is not used"),
        ("default = 0.9", "default = 7", "default of band"),
        ('type = "integer"', 'type = "int"', "parameters.0.type"),
        ('name = "month"', 'name = "python"', "filled in by the host"),
        ('outputs = ["forecast.json"', 'outputs = ["/etc/passwd"', "outputs[0]"),
        ("exit_codes = [75]", "exit_codes = [0]", "exit code 0"),
        ("[resources]", "[resource]", "resource"),
        ("memory_mib = 1024", "memory_mib = -1", "resources.memory_mib"),
        ('name = "climate"', "name = climate", "Invalid value"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_reason(tmp_path, before, after, says):
    assert before in CLIMATE
    (tmp_path / "climate.toml").write_text(CLIMATE.replace(before, after))
    with pytest.raises(CatalogueError) as caught:
        Catalogue.load(tmp_path)
    assert str(tmp_path / "climate.toml") in str(caught.value)
    assert says in str(caught.value)


def test_two_of_the_same_name_and_version_are_refused(tmp_path):
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(CLIMATE)
    with pytest.raises(CatalogueError, match=r"climate@2\.0 is in the catalogue 2 times"):
        Catalogue.load(tmp_path)
    with pytest.raises(CatalogueError, match="not a directory"):
        Catalogue.load(tmp_path / "missing")


@given(st.text(max_size=50))
def test_no_value_adds_a_placeholder_or_an_argument(value):
    declared = [parameters.Parameter(name="city", type="string")]
    try:
        values = parameters.resolve(declared, {"city": value})
    except InvalidError:
        assert set(value) & set("{}\0")
        return
    filled = parameters.fill(["{python}", "--city={city}", "{app}"], values)
    assert filled == ["{python}", f"--city={value}", "{app}"]
    assert parameters.placeholders(filled) == {"python", "app"}


def test_applications_are_shown_with_their_defaults(catalogue):
    shown = logic.described(catalogue.find("climate"))
    assert [each.name for each in shown.parameters] == ["month", "city", "band"]
    assert not shown.parameters[0].HasField("default")
    assert shown.parameters[2].default == "0.9"


def test_the_examples_are_a_catalogue():
    examples = Path(__file__).parents[3] / "examples"
    for application in Catalogue.load(examples).applications:
        assert isinstance(application, Application)
