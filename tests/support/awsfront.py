"""Stands before moto's server: answers what moto does not know, and fails where a test wants it to.

Moto 5.2 has no instance refreshes, no heartbeats and no completion of lifecycle hooks. What is
missing is answered here in AWS's own wire formats, over HTTP; everything else goes through to moto.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import pytest

# Headers of a connection, which are this server's own.
_OWN = {"connection", "content-length", "date", "server", "transfer-encoding"}
_NAMESPACE = "http://autoscaling.amazonaws.com/doc/2011-01-01/"


class RefusedError(Exception):
    """An error as AWS answers it."""

    def __init__(self, code, message="as the test wants it", status=400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Front:
    """The server.

    Attributes:
        failing: Errors by action, each answered once, before anything else is; S3's by method.
        answers: Functions of a request's parameters by action, for autoscaling, which speaks XML;
            what is in neither is moto's.
        json: The same for SSM.
        calls: Parameters of all requests by action.
    """

    def __init__(self, target) -> None:
        self._target = target.removeprefix("http://")
        self.failing = defaultdict(list)
        self.answers = {}
        self.json = {}
        self.calls = defaultdict(list)
        self.count = Counter()

    def handle(self, method, path, headers, body):
        action, parameters, form = _read(method, headers, body)
        self.count[action] += 1
        self.calls[action].append(parameters)
        try:
            if self.failing[action]:
                raise self.failing[action].pop(0)
            if action in self.json:
                return 200, {}, json.dumps(self.json[action](parameters)).encode()
            if action in self.answers:
                return (
                    200,
                    {"Content-Type": "text/xml"},
                    _xml(action, self.answers[action](parameters)),
                )
        except RefusedError as error:
            return error.status, {}, _error(error, form)
        connection = http.client.HTTPConnection(self._target, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


def _read(method, headers, body):
    target = headers.get("X-Amz-Target")
    if target:
        return target.rpartition(".")[2], json.loads(body or b"{}"), "json"
    if "form" not in headers.get("Content-Type", ""):
        return method, {}, "rest"
    parameters = dict(parse_qsl(body.decode(), keep_blank_values=True))
    form = "ec2" if parameters["Version"].startswith("2016") else "query"
    return parameters["Action"], parameters, form


def _value(value):
    if isinstance(value, dict):
        return "".join(f"<{key}>{_value(each)}</{key}>" for key, each in value.items())
    if isinstance(value, list):
        return "".join(f"<member>{_value(each)}</member>" for each in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


def _xml(action, result):
    return (
        f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>{_value(result)}</{action}Result>'
        f"<ResponseMetadata><RequestId>front</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


def _error(error, form):
    code, message = escape(error.code), escape(str(error))
    if form == "json":
        return json.dumps({"__type": error.code, "message": str(error)}).encode()
    inner = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    if form == "rest":
        return inner.encode()
    if form == "ec2":
        return f"<Response><Errors>{inner}</Errors><RequestID>front</RequestID></Response>".encode()
    return f"<ErrorResponse>{inner}<RequestId>front</RequestId></ErrorResponse>".encode()


@pytest.fixture
def front(moto, monkeypatch):
    """A front of this test's own, and an environment that leads to it."""
    made = Front(moto.url)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            status, answered, text = made.handle(self.command, self.path, headers, body)
            self.send_response(status)
            for key, value in answered.items():
                if key.lower() not in _OWN:
                    self.send_header(key, value)
            # What HEAD answers is as long as what GET would.
            length = answered.get("content-length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


class Leaving:
    """Lifecycle hooks at an instance's end as AWS has them; the hooks themselves are moto's.

    Attributes:
        beats: Hooks that got a heartbeat.
        completed: Hooks that were completed, each once; at the last the instance goes.
        refusing: Hooks that take neither.
    """

    def __init__(self, front, moto) -> None:
        self._autoscaling = moto.client("autoscaling")
        self._members = {}
        self.beats = []
        self.completed = []
        self.refusing = set()
        front.answers |= {
            "DescribeAutoScalingInstances": self._describe,
            "RecordLifecycleActionHeartbeat": lambda asked: (
                self.beats.append(self._hook(asked)) or {}
            ),
            "CompleteLifecycleAction": self._complete,
        }

    def hook(self, group, name, seconds=300, transition="TERMINATING"):
        self._autoscaling.put_lifecycle_hook(
            AutoScalingGroupName=group,
            LifecycleHookName=name,
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
            HeartbeatTimeout=seconds,
            DefaultResult="ABANDON",
        )

    def set(self, instance, group, state):
        self._members[instance] = {
            "InstanceId": instance,
            "AutoScalingGroupName": group,
            "LifecycleState": state,
            "HealthStatus": "HEALTHY",
        }

    def _describe(self, asked):
        wanted = [value for key, value in asked.items() if key.startswith("InstanceIds.")]
        found = [self._members[each] for each in wanted if each in self._members]
        return {"AutoScalingInstances": found}

    def _hook(self, asked):
        member = self._members.get(asked["InstanceId"], {"LifecycleState": ""})
        waits = member["LifecycleState"] == "Terminating:Wait"
        if not waits or member["AutoScalingGroupName"] != asked["AutoScalingGroupName"]:
            raise RefusedError("ValidationError", "No active Lifecycle Action found")
        name = asked["LifecycleHookName"]
        if name in self.refusing:
            raise RefusedError("AccessDenied", f"not {name}", 403)
        return name

    def _complete(self, asked):
        assert asked["LifecycleActionResult"] == "CONTINUE"
        if asked["LifecycleHookName"] in self.completed:
            raise RefusedError("ValidationError", "No active Lifecycle Action found")
        self.completed.append(self._hook(asked))
        return {}


class Refreshing:
    """Instance refreshes as AWS has them: one of a group at a time, each look finds more done.

    Attributes:
        step: Per cent that are done between two looks; 0: nothing happens.
        end: The status of one that is done.
        started: The requests that began one.
    """

    def __init__(self, front) -> None:
        self.step = 40
        self.end = "Successful"
        self.started = []
        self._numbers = itertools.count(1)
        self._refreshes = {}
        front.answers |= {
            "StartInstanceRefresh": self._start,
            "DescribeInstanceRefreshes": self._describe,
            "CancelInstanceRefresh": lambda asked: self._call_off(asked, "Cancelled"),
            "RollbackInstanceRefresh": lambda asked: self._call_off(asked, "RollbackSuccessful"),
        }

    def status(self, group):
        return self._refreshes[group][0]["Status"]

    def _start(self, asked):
        group = asked["AutoScalingGroupName"]
        before = self._refreshes.setdefault(group, [])
        if before and before[0]["Status"] in ("Pending", "InProgress"):
            raise RefusedError("InstanceRefreshInProgress", "one is running")
        self.started.append(asked)
        refresh = {
            "InstanceRefreshId": f"refresh-{next(self._numbers)}",
            "AutoScalingGroupName": group,
            "Status": "Pending",
            "PercentageComplete": 0,
            "InstancesToUpdate": 2,
        }
        version = asked.get("DesiredConfiguration.LaunchTemplate.Version")
        if version:
            refresh["DesiredConfiguration"] = {"LaunchTemplate": {"Version": version}}
        before.insert(0, refresh)
        return {"InstanceRefreshId": refresh["InstanceRefreshId"]}

    def _describe(self, asked):
        found = self._refreshes.get(asked["AutoScalingGroupName"], [])
        wanted = asked.get("InstanceRefreshIds.member.1")
        found = [each for each in found if wanted in (None, each["InstanceRefreshId"])][:1]
        for each in found:
            self._go_on(each)
        return {"InstanceRefreshes": found}

    def _go_on(self, refresh):
        if refresh["Status"] == "Pending":
            refresh["Status"] = "InProgress"
        elif refresh["Status"] == "InProgress":
            refresh["PercentageComplete"] = min(100, refresh["PercentageComplete"] + self.step)
            if refresh["PercentageComplete"] == 100:
                refresh["Status"] = self.end
                refresh["StatusReason"] = "" if self.end == "Successful" else "instances are unwell"
        elif refresh["Status"] in ("Cancelling", "RollbackInProgress"):
            refresh["Status"] = refresh.pop("after")

    def _call_off(self, asked, after):
        (refresh, *_) = self._refreshes.get(asked["AutoScalingGroupName"]) or [{"Status": ""}]
        if refresh["Status"] not in ("Pending", "InProgress"):
            raise RefusedError("ActiveInstanceRefreshNotFound", "none is running")
        if after == "RollbackSuccessful" and "DesiredConfiguration" not in refresh:
            raise RefusedError("IrreversibleInstanceRefresh", "no desired configuration")
        refresh["Status"] = "Cancelling" if after == "Cancelled" else "RollbackInProgress"
        refresh["after"] = after
        return {"InstanceRefreshId": refresh["InstanceRefreshId"]}
