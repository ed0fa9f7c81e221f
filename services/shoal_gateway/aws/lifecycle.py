"""``python -m shoal_gateway.aws.lifecycle``: lets an instance go when it has drained, not before.

It runs on the instance. When autoscaling, or EC2 for a spot instance, says that the instance is to
go, it stops the services, whose stop is a drain, tells autoscaling meanwhile that the instance
still needs time, and at the end that it may go. Without it autoscaling would wait for the hook's
timeout.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shoal_gateway import runtime
from shoal_gateway.aws import clients
from shoal_gateway.aws.errors import AwsError
from shoal_gateway.aws.metadata import InstanceMetadata, MetadataError, Notice

logger = logging.getLogger(__name__)

TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
# An instance in one of these has hooks that wait for us.
_WAITING = ("Terminating:Wait", "Warmed:Terminating:Wait")
# Seconds between looks at the metadata. AWS says two minutes before a spot instance goes.
LOOK = 5.0
# A heartbeat comes so often in a hook's timeout, which it starts anew.
BEATS = 3
# Seconds until what failed is tried again.
AGAIN = 5.0
# Seconds between looks, while a drain runs, whether this process is to end.
GLANCE = 0.5
# Ours, as patterns: what is not on this host is no error. This program's own unit is none of them.
UNITS = " ".join(
    f"shoal-{each}*.service" for each in ("api", "appmanager", "registry", "scheduler")
)

EXAMPLES = """
examples:
  python -m shoal_gateway.aws.lifecycle
  python -m shoal_gateway.aws.lifecycle \\
      --drain "systemctl stop shoal-api.service shoal-registry.service"
  python -m shoal_gateway.aws.lifecycle --drain-timeout 600 --act-on terminated
"""


@dataclass(frozen=True, slots=True)
class Hook:
    """A lifecycle hook that waits at this instance's end.

    Attributes:
        group: The autoscaling group.
        name: The hook.
        timeout: Seconds from one heartbeat to the time that autoscaling waits no longer.
    """

    group: str
    name: str
    timeout: float


class Leaver:
    """What autoscaling has to be told of one instance's end.

    Args:
        instance: Its id.
        autoscaling: A client of autoscaling.
        only: Names of the hooks that are ours; none: all.
    """

    def __init__(self, instance: str, autoscaling: Any, only: Sequence[str] = ()) -> None:
        self._instance = instance
        self._autoscaling = autoscaling
        self._only = frozenset(only)

    def hooks(self) -> tuple[Hook, ...]:
        """Hooks that wait for this instance now.

        Raises:
            AwsError: AWS does not say.
        """
        with clients.spoken(f"the lifecycle of {self._instance} can't be read"):
            answer = self._autoscaling.describe_auto_scaling_instances(InstanceIds=[self._instance])
            for member in answer["AutoScalingInstances"]:
                if member["LifecycleState"] not in _WAITING:
                    continue
                group = member["AutoScalingGroupName"]
                found = self._autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=group)
                return tuple(
                    Hook(group, each["LifecycleHookName"], float(each["HeartbeatTimeout"]))
                    for each in found["LifecycleHooks"]
                    if each["LifecycleTransition"] == TERMINATING
                    and (not self._only or each["LifecycleHookName"] in self._only)
                )
        return ()

    def beat(self, hook: Hook) -> None:
        """Starts a hook's timeout anew.

        Raises:
            AwsError: AWS refuses: it may wait no longer.
        """
        with clients.spoken(f"no heartbeat for hook {hook.name} of {self._instance}"):
            self._autoscaling.record_lifecycle_action_heartbeat(**self._of(hook))

    def complete(self, hook: Hook) -> None:
        """Says that the instance may go.

        Raises:
            AwsError: AWS refuses.
        """
        with clients.spoken(f"hook {hook.name} of {self._instance} can't be completed"):
            self._autoscaling.complete_lifecycle_action(
                **self._of(hook), LifecycleActionResult="CONTINUE"
            )
        logger.info("hook %s of group %s is completed", hook.name, hook.group)

    def _of(self, hook: Hook) -> dict[str, str]:
        return {
            "AutoScalingGroupName": hook.group,
            "LifecycleHookName": hook.name,
            "InstanceId": self._instance,
        }


class Agent:
    """Waits for the end, drains, and lets go.

    Args:
        metadata: Of this instance.
        leaver: Talks with autoscaling.
        drain: A command that ends when the services have drained.
        patience: Seconds that it may take.
        act_on: Kinds of `Notice` to act on.
        stop: Set when this process is to end.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        metadata: InstanceMetadata,
        leaver: Leaver,
        *,
        drain: Sequence[str],
        patience: float,
        act_on: Sequence[str],
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metadata = metadata
        self._leaver = leaver
        self._drain = list(drain)
        self._patience = patience
        self._act_on = frozenset(act_on)
        self._stop = stop
        self._clock = clock

    def run(self) -> bool:
        """Until the instance may go, or this process is to end; whether it may go."""
        notice = self._await()
        if notice is None:
            return False
        logger.info(
            "this instance is to go (%s%s): draining with %s",
            notice.why,
            f", {notice.when}" if notice.when else "",
            shlex.join(self._drain),
        )
        drained = self._drained()
        if drained is None:
            # Nothing has drained yet. Whoever starts this program again starts the drain again, and
            # if nobody does, the hook's timeout holds.
            logger.warning("stopped before the drain was over; nothing is said to autoscaling")
            return False
        return self._let_go(drained, notice)

    def _await(self) -> Notice | None:
        """The notice that the instance is to go; None when this process is to end first."""
        heard = True
        while not self._stop.is_set():
            try:
                notice = self._metadata.notice()
                if notice is not None and notice.why in self._act_on:
                    return notice
                heard = True
            except MetadataError as error:
                # Once for each time that it is away; what we can't hear we may hear in a moment.
                logger.log(logging.WARNING if heard else logging.DEBUG, "%s", error)
                heard = False
            self._stop.wait(LOOK)
        return None

    def _drained(self) -> bool | None:
        """Runs the drain, with heartbeats beside it; whether it ended well.

        None: this process is to end first, and the drain with it.
        """
        until = self._clock() + self._patience
        try:
            # In a session of its own: our Ctrl-C is not for it.
            process = subprocess.Popen(self._drain, start_new_session=True)
        except OSError as error:
            logger.error("nothing is drained: %s", error)  # noqa: TRY400 - it says all
            return False
        beat = self._clock()
        while True:
            now = self._clock()
            if now >= beat:
                beat = now + self._beats()
            try:
                code = process.wait(max(0.0, min(until, beat, now + GLANCE) - self._clock()))
            except subprocess.TimeoutExpired:
                stopped = self._stop.is_set()
                if self._clock() < until and not stopped:
                    continue
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if stopped:
                    return None
                logger.warning("the drain is not over after %g s and given up", self._patience)
                return False
            if code and self._stop.is_set():
                # systemd stops a unit's processes all at once.
                return None
            if code:
                logger.error("the drain ended with exit code %d", code)
            return code == 0

    def _beats(self) -> float:
        """Tells the hooks that we still need time; seconds until that is due again."""
        try:
            hooks = self._leaver.hooks()
        except AwsError as error:
            # The hook's timeout is some beats away; the drain goes on in any case.
            logger.warning("%s", error)
            return AGAIN
        # No hook yet: the metadata may be ahead of autoscaling.
        if not hooks or len(self._tell(self._leaver.beat, hooks)) < len(hooks):
            return AGAIN
        return min(hook.timeout / BEATS for hook in hooks)

    def _tell(self, tell: Callable[[Hook], None], hooks: Sequence[Hook]) -> set[str]:
        """Tells each hook, whatever becomes of the others; names of those that took it."""
        told = set()
        for hook in hooks:
            try:
                tell(hook)
            except AwsError as error:
                logger.warning("%s", error)
            else:
                told.add(hook.name)
        return told

    def _let_go(self, drained: bool, notice: Notice) -> bool:
        """Completes the hooks, as soon as they wait; False: this process is to end first."""
        if not drained:
            # To hold it back would help nobody: its leases run out, and others take its jobs over.
            logger.warning("this instance goes without having drained")
        until = self._clock() + self._patience
        # To complete a hook once more is an error.
        done: set[str] = set()
        while True:
            try:
                waiting = [each for each in self._leaver.hooks() if each.name not in done]
                told = self._tell(self._leaver.complete, waiting)
                failed = len(told) < len(waiting)
                done |= told
            except AwsError as error:
                logger.warning("%s", error)
                failed = True
            late = self._clock() > until
            # None yet: of a spot instance its group may hear later. One that is terminated and has
            # none goes by itself.
            if not failed and (done or (late and notice.why == "terminated")):
                return True
            if failed and late:
                return False
            if self._stop.wait(AGAIN):
                return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code: 0 when the instance may go or SIGTERM came, 1 else."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal_gateway.aws.lifecycle",
        description="On an EC2 instance: when it is to go, drain its services, then let it go.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    units = os.environ.get("SHOAL_UNITS") or UNITS
    hook = os.environ.get("SHOAL_LIFECYCLE_HOOK")
    parser.add_argument(
        "--drain",
        default=f"systemctl stop -- {units}",
        metavar="COMMAND",
        help="ends when the services have drained; not a shell's (default: %(default)s, the units"
        " those of $SHOAL_UNITS)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="after which the instance is let go in any case (default: %(default)g)",
    )
    parser.add_argument(
        "--hook",
        action="append",
        default=None,
        metavar="NAME",
        help="only these hooks are ours to complete (default: $SHOAL_LIFECYCLE_HOOK, or all of the"
        " group's that wait at an instance's end)",
    )
    parser.add_argument(
        "--act-on",
        nargs="+",
        choices=["terminated", "spot", "rebalance"],
        default=["terminated", "spot"],
        help="which news to act on: terminated by its group, its spot capacity taken back in two"
        " minutes, or the early advice that it may be (default: terminated spot)",
    )
    parser.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    parsed = parser.parse_args(arguments)
    runtime.configure_logging(parsed.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metadata = InstanceMetadata()
    try:
        here = metadata.placement()
        autoscaling = clients.client("autoscaling", region=here.region)
    except AwsError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    agent = Agent(
        metadata,
        Leaver(here.host, autoscaling, parsed.hook or ([hook] if hook else [])),
        drain=shlex.split(parsed.drain),
        patience=parsed.drain_timeout,
        act_on=parsed.act_on,
        stop=stop,
    )
    logger.info("waiting for the end of %s in %s", here.host, here.zone)
    return 0 if agent.run() or stop.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
