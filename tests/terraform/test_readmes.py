"""What the modules' documents say is there."""

import re

import pytest

from tests.support.terraform import REPOSITORY

MODULES = sorted((REPOSITORY / "terraform/modules").iterdir())


def declared(module, kind):
    file = {"variable": "variables.tf", "output": "outputs.tf"}[kind]
    return re.findall(rf'^{kind} "(\w+)"', (module / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_tells_all_its_inputs_and_outputs(module):
    inputs, outputs = (module / "README.md").read_text().split("## Inputs")[1].split("## Outputs")
    assert re.findall(r"^\| `(\w+)`", inputs, re.MULTILINE) == declared(module, "variable")
    assert re.findall(r"^\| `(\w+)`", outputs, re.MULTILINE) == declared(module, "output")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_every_variable_and_output_is_described(module):
    for kind in ("variable", "output"):
        file = {"variable": "variables.tf", "output": "outputs.tf"}[kind]
        text = (module / file).read_text()
        assert len(re.findall(r'^  description = ".+"$', text, re.MULTILINE)) == len(
            declared(module, kind)
        )


def test_the_environment_tells_all_its_outputs():
    example = REPOSITORY / "terraform/environments/example"
    paragraph = (REPOSITORY / "terraform/README.md").read_text().split("**Outputs**")[1]
    told = re.findall(r"`(\w+)`", paragraph.split("```")[0])
    assert set(told) == set(declared(example, "output"))
