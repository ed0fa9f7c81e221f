"""A service that learns from its instance who and where it is."""

from tests.support.replicas import Replicas


def test_a_replica_is_announced_with_its_instance_and_zone(chroot, tmp_path, directories, imds):
    imds.values["meta-data/local-ipv4"] = "127.0.7.1"
    directory = directories()
    with Replicas(chroot, tmp_path, directory) as processes:
        name = processes.start("registry", 1, "--placement", "ec2")
        (replica,) = directory.watch("registry").replicas()
        assert (replica.id, replica.host, replica.zone) == (
            name,
            "i-0123456789abcdef0",
            "eu-central-1b",
        )
        assert replica.address == "127.0.7.1"
        # By the instance's own word only.
        assert imds.tokens == 1
        assert processes.terminate(name) == 0
