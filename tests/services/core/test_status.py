"""Errors of every kind of handler reach callers with their code, and only the contract's do."""

from __future__ import annotations

import grpc
import pytest

from shoal_gateway.errors import (
    AlreadyExistsError,
    DataLossError,
    GatewayError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from shoal_gateway.status import speaks_status, status_of

Code = grpc.StatusCode


class AbortedError(Exception):
    pass


class Context:
    """What a handler sees of grpc, sync side."""

    def abort(self, code, details):
        self.said = (code, details)
        raise AbortedError


class AioContext(Context):
    async def abort(self, code, details):
        super().abort(code, details)


class Contract:
    def Unary(self, request, context): ...

    def Stream(self, request, context): ...

    def AioUnary(self, request, context): ...

    def AioStream(self, request, context): ...


@speaks_status
class Servicer(Contract):
    def Unary(self, request, context):
        raise request

    def Stream(self, request, context):
        yield 1
        raise request

    async def AioUnary(self, request, context):
        raise request

    async def AioStream(self, request, context):
        yield 1
        raise request

    def helper(self, error):
        raise error


CASES = [
    (InvalidError("id", "must not be empty"), (Code.INVALID_ARGUMENT, "id: must not be empty")),
    (NotFoundError("no job 7"), (Code.NOT_FOUND, "no job 7")),
    (AlreadyExistsError("known"), (Code.ALREADY_EXISTS, "known")),
    (PreconditionError("not DEAD"), (Code.FAILED_PRECONDITION, "not DEAD")),
    (UnavailableError("locked"), (Code.UNAVAILABLE, "locked")),
    (DataLossError("rotten"), (Code.DATA_LOSS, "rotten")),
]


@pytest.mark.parametrize(("error", "status"), CASES)
async def test_each_error_has_its_code_in_every_kind_of_handler(error, status):
    servicer = Servicer()
    context = Context()
    with pytest.raises(AbortedError):
        servicer.Unary(error, context)
    assert context.said == status
    context = Context()
    with pytest.raises(AbortedError):
        list(servicer.Stream(error, context))
    assert context.said == status
    context = AioContext()
    with pytest.raises(AbortedError):
        await servicer.AioUnary(error, context)
    assert context.said == status
    context = AioContext()
    with pytest.raises(AbortedError):
        _ = [each async for each in servicer.AioStream(error, context)]
    assert context.said == status


@pytest.mark.parametrize(
    "defect", [ZeroDivisionError("/secret/path"), GatewayError("of no kind")], ids=repr
)
async def test_a_defect_is_logged_and_its_words_stay_there(defect, caplog):
    for call in ("Unary", "Stream", "AioUnary", "AioStream"):
        context = AioContext() if call.startswith("Aio") else Context()
        caplog.clear()
        with pytest.raises(AbortedError):
            await _all_of(getattr(Servicer(), call), defect, context)
        code, details = context.said
        assert code is Code.INTERNAL
        incident = details.rpartition(" ")[2]
        assert str(defect) not in details
        (record,) = caplog.records
        assert incident in record.message
        assert record.exc_info[1] is defect


async def _all_of(method, *arguments):
    answer = method(*arguments)
    if hasattr(answer, "__aiter__"):
        return [each async for each in answer]
    if hasattr(answer, "__await__"):
        return await answer
    return list(answer)


def test_a_call_that_is_no_method_of_the_contract_speaks_no_status():
    # Not a call of the contract: nobody's context is there to abort.
    with pytest.raises(NotFoundError):
        Servicer().helper(NotFoundError("x"))


class Downstream(grpc.RpcError):
    def __init__(self, code):
        self._code = code

    def code(self):
        return self._code

    def details(self):
        return "said below"


@pytest.mark.parametrize(
    ("code", "passed"),
    [(Code.NOT_FOUND, True), (Code.UNAVAILABLE, True), (Code.UNKNOWN, False)],
)
def test_what_another_service_answered_is_passed_on_when_it_is_meant_for_callers(code, passed):
    assert status_of(Downstream(code)) == ((code, "said below") if passed else None)
