"""Jobs whose inputs, outputs and logs lie in S3: moto's server, spoken to by real services."""

import hashlib
import subprocess
import sys

import pytest

from shoal_gateway.client import Gateway, state_name
from shoal_gateway.objectstore import ObjectStore
from tests.support.hosts import hosts

__all__ = ["hosts"]

APPLICATION = """
name = "shout"
version = "1.0"
flavor = "local"
command = [
  "{python}", "-c",
  "text = open('in.txt').read(); print('heard'); open('out.txt', 'w').write(text.upper())",
]
inputs = ["in.txt"]
outputs = ["out.txt"]
"""


@pytest.mark.usefixtures("moto")
def test_a_job_is_run_with_all_its_content_in_s3(moto, hosts, tmp_path):
    bucket = moto.bucket()
    url = f"s3://{bucket}/objects"
    catalogue = tmp_path / "catalogue"
    catalogue.mkdir()
    (catalogue / "shout.toml").write_text(APPLICATION)
    hosts.start("api", 1, "--objects", url, "--catalogue", str(catalogue))
    hosts.start("scheduler", 1, "--poll", "0.1")
    # Two hosts that share nothing but the bucket.
    for number in (1, 2):
        hosts.manager(number, "--objects", url)
    gateway = Gateway(hosts.directory, "ada")
    (tmp_path / "in.txt").write_text("quiet words\n")
    content = gateway.upload(tmp_path / "in.txt")
    jobs = [gateway.submit("shout", inputs={"in.txt": content}, parameters={}).id for _ in range(4)]
    for job in jobs:
        *_, last = gateway.watch(job)
        assert state_name(last.state) == "SUCCEEDED"
        (file,) = gateway.outputs(job).files
        gateway.download(job, file, tmp_path / "got.txt")
        assert (tmp_path / "got.txt").read_text() == "QUIET WORDS\n"
        assert b"".join(gateway.logs(job)) == b"heard\n"
        head = moto.client("s3").head_object(Bucket=bucket, Key=f"objects/{file.object.key}")
        assert head["Metadata"]["sha256"] == hashlib.sha256(b"QUIET WORDS\n").hexdigest()
    assert not (tmp_path / "objects").exists()
    assert len(ObjectStore.open(url).list("jobs/")) == 2 * len(jobs)
    assert [each.key for each in ObjectStore.open(url).list("uploads/")] == [content.key]


@pytest.mark.parametrize("service", ["api", "appmanager"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such-bucket/x", "s3://no-such-bucket/x/ can't be used: there is no such bucket"),
        ("ftp://host/x", "file:///absolute/path or s3://bucket/prefix"),
    ],
)
def test_a_store_that_cannot_be_used_ends_the_service_with_a_sentence(
    moto, tmp_path, service, url, said
):
    command = [sys.executable, "-m", f"shoal_gateway.{service}", "--zookeeper", "127.0.0.1:1/none"]
    more = {
        "api": ["--catalogue", str(tmp_path)],
        "appmanager": ["--flavor", "local", "--root", str(tmp_path)],
    }
    done = subprocess.run(
        [*command, "--objects", url, *more[service]], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"python -m shoal_gateway.{service}: --objects: ")
    assert said in line


@pytest.mark.parametrize("service", ["api", "appmanager"])
def test_help_names_s3(service):
    command = [sys.executable, "-m", f"shoal_gateway.{service}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "s3://bucket/prefix" in done.stdout
