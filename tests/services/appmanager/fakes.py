"""A registry that a test holds in its hand."""

import threading
from collections import defaultdict

from shoal_gateway.appmanager.ports import Held, RegistryAwayError, TakenError


class FakeRegistry:
    """Remembers what runners said; answers as its fields say."""

    def __init__(self):
        self.lock = threading.Lock()
        self.away = False
        self.begin_error = None
        self.begun = []
        self.renewed = defaultdict(int)
        self.verdicts = {}
        self.refusals = {}
        self.reports = []

    def begin(self, job_id, fence, attempt, runner_id):
        self._check()
        if self.begin_error is not None:
            raise self.begin_error
        with self.lock:
            self.begun.append((job_id, fence, attempt, runner_id))
        return fence + 1

    def begin_many(self, beginnings):
        fences = []
        for each in beginnings:
            try:
                fences.append(self.begin(each.job_id, each.fence, each.attempt, each.runner_id))
            except TakenError as error:
                fences.append(str(error))
        return fences

    def report_many(self, results):
        return [self.report(each) for each in results]

    def renew(self, leases):
        self._check()
        for lease in leases:
            self.renewed[lease.job_id] += 1
        return [self.verdicts.get(each.job_id, (Held.HELD, each.fence)) for each in leases]

    def report(self, result):
        self._check()
        with self.lock:
            self.reports.append(result)
        return self.refusals.get(result.lease.fence)

    def of(self, job_id):
        return [each for each in self.reports if each.lease.job_id == job_id]

    def _check(self):
        if self.away:
            raise RegistryAwayError("nobody is there")
