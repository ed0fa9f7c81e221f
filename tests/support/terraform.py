"""The real Terraform with the real AWS provider, led to a moto server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# What the provider would ask AWS itself for must fail here, not go out.
SERVICES = (
    "autoscaling",
    "ec2",
    "iam",
    "kms",
    "rds",
    "route53",
    "s3",
    "secretsmanager",
    "ssm",
    "sts",
)
OVERRIDE = """
provider "aws" {{
  region                      = var.region
  access_key                  = "testing"
  secret_key                  = "testing"
  skip_metadata_api_check     = true
  skip_credentials_validation = true
  s3_use_path_style           = true

  endpoints {{
{endpoints}
  }}
}}
"""


def plugins() -> Path:
    """Where the provider is; the test is skipped, with what is missing, where there is none."""
    command = [REPOSITORY / "scripts" / "terraform.sh", "plugins"]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode == 3:
        pytest.skip(said.stderr.strip())
    said.check_returncode()
    return Path(said.stdout.strip())


def copied(to: Path) -> Path:
    """The tree that an environment needs, in a place of its own: Terraform writes beside files."""
    for each in ("terraform", "deploy/systemd", "examples/nap"):
        shutil.copytree(
            REPOSITORY / each,
            to / each,
            ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__"),
        )
    return to


class Environment:
    """A root module in a copy of the tree.

    Args:
        directory: The root module's.
        endpoint: Of the server that plays AWS.
        variables: Of the root module.
    """

    def __init__(self, directory: Path, endpoint: str, variables: dict[str, object]) -> None:
        self.directory = directory
        endpoints = "\n".join(f'    {service} = "{endpoint}"' for service in SERVICES)
        (directory / "moto_override.tf").write_text(OVERRIDE.format(endpoints=endpoints))
        (directory / "test.auto.tfvars.json").write_text(json.dumps(variables))
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("TF_", "AWS_")) and "proxy" not in key.lower()
        }
        # Whoever runs this may have credentials.
        self._environment |= {
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }

    def run(self, *arguments: str, timeout: float = 600.0) -> str:
        """One command; what it printed. A failure shows all of it."""
        process = subprocess.Popen(
            ["terraform", f"-chdir={self.directory}", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            printed, _ = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                # Its provider goes with it.
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        assert process.returncode == 0, f"terraform {' '.join(arguments)}:\n{printed}"
        return printed

    def init(self, mirror: Path) -> None:
        """Providers from the mirror only."""
        self.run("init", f"-plugin-dir={mirror}", "-input=false", "-no-color")

    def apply(self) -> None:
        """Everything, made."""
        self.run("apply", "-auto-approve", "-input=false", "-no-color", "-parallelism=30")

    def destroy(self) -> None:
        """Everything, gone."""
        self.run("destroy", "-auto-approve", "-input=false", "-no-color", "-parallelism=30")

    def outputs(self) -> dict[str, object]:
        """As the command line reads them."""
        said = json.loads(self.run("output", "-json"))
        return {name: output["value"] for name, output in said.items()}
