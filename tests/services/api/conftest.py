"""An api that asks for users."""

from __future__ import annotations

import pytest

from tests.services.api.people import Clock
from tests.support.stack import running


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def stack(tmp_path, clock):
    async with running(tmp_path, users=True, clock=clock) as made:
        yield made


@pytest.fixture
async def channel(stack):
    return stack.raw("api")
