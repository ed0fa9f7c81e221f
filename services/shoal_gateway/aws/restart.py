"""Restarts the units of one instance through SSM: no SSH, no open port, and AWS keeps a record."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.instances import Instance

ALL_UNITS = ("shoal-*.service",)
# Seconds until the instance's agent has to have taken the command, and between looks at it.
DELIVERY, LOOK = 60, 1.0

# What a shell, which SSM hands the command to, can make nothing of.
_UNIT = re.compile(r"shoal-[A-Za-z0-9@*?_.-]*")
_OVER = frozenset({"Success", "Cancelled", "TimedOut", "Failed"})


def script(units: Sequence[str]) -> list[str]:
    """The commands that restart units by name or pattern, and print how each is then.

    Units that are off stay off. A restart is a stop, and so a drain, first; it ends when the units
    are ready again.

    Raises:
        ValueError: something is no name of a unit of ours.
    """
    for each in units:
        if not _UNIT.fullmatch(each):
            raise ValueError(f"{each!r} is no unit of Shoal's; they are called shoal-….service")
    wanted = " ".join(shlex.quote(each) for each in units)
    return [
        "set -eu",
        "found=$(systemctl list-units --plain --no-legend --full"
        f" --state=active,activating,failed {wanted} | cut -d ' ' -f 1)",
        f'[ -n "$found" ] || {{ echo no unit matches {wanted} here >&2; exit 1; }}',
        "systemctl restart -- $found",
        'for unit in $found; do echo "$unit $(systemctl is-active -- "$unit" || true)"; done',
    ]


class Restarts:
    """Restarts by SSM's RunCommand.

    Args:
        ssm: A client of SSM.
        clock: Monotonic seconds.
        sleep: Waits.
    """

    def __init__(
        self,
        ssm: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._ssm = ssm
        self._clock = clock
        self._sleep = sleep

    def restart(
        self, instance: Instance, units: Sequence[str] = ALL_UNITS, *, timeout: float = 300.0
    ) -> str:
        """Restarts an instance's units and waits for it; what the commands printed.

        When it is interrupted, the command is called back as far as that goes.

        Args:
            instance: Of a fleet whose tag was looked at.
            units: Names or patterns.
            timeout: Seconds that the restart itself may take.

        Raises:
            AwsError: it did not happen, did not end well, or its end is not known.
            ValueError: something is no name of a unit.
        """
        commands = script(units)
        with clients.spoken(
            f"{instance.id} can't be told (its SSM agent has to run and its role to allow"
            " AmazonSSMManagedInstanceCore)"
        ):
            sent = self._ssm.send_command(
                InstanceIds=[instance.id],
                DocumentName="AWS-RunShellScript",
                Parameters={"commands": commands, "executionTimeout": [str(int(timeout))]},
                TimeoutSeconds=DELIVERY,
                Comment=f"shoal fleet restart-instance ({instance.fleet})",
            )
        command = sent["Command"]["CommandId"]
        with self._called_back(command, instance):
            ended = self._wait(command, instance, timeout + DELIVERY)
        printed = str(ended.get("StandardOutputContent", "")).strip()
        if ended["Status"] != "Success":
            complaint = str(ended.get("StandardErrorContent", "")).strip() or printed
            status = ended.get("StatusDetails", ended["Status"])
            raise AwsError(
                f"{instance.id}: the restart ended with {status} (command {command})"
                f"{': ' + complaint if complaint else ''}"
            )
        return printed

    def _wait(self, command: str, instance: Instance, seconds: float) -> dict[str, Any]:
        until = self._clock() + seconds
        what = f"{instance.id}: how the restart went (command {command}) can't be read"
        while True:
            try:
                with clients.spoken(what):
                    answer: dict[str, Any] = self._ssm.get_command_invocation(
                        CommandId=command, InstanceId=instance.id
                    )
                if answer["Status"] in _OVER:
                    return answer
                status = answer["Status"]
            except AwsError as error:
                # SSM takes a moment to know its own command.
                if error.code != "InvocationDoesNotExist":
                    raise
                status = "not known yet"
            if self._clock() > until:
                raise AwsError(
                    f"{instance.id}: the restart (command {command}) is still {status} after"
                    f" {seconds:g} s; SSM's console shows how it goes on"
                )
            self._sleep(LOOK)

    @contextmanager
    def _called_back(self, command: str, instance: Instance) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            with clients.spoken(f"{instance.id}: command {command} can't be called back"):
                self._ssm.cancel_command(CommandId=command, InstanceIds=[instance.id])
            raise
