"""A fleet in moto's EC2."""

import pytest

from tests.support.awsfront import Refreshing, front
from tests.support.ec2 import Account

__all__ = ["front"]


@pytest.fixture
def account(moto):
    return Account(moto)


@pytest.fixture
def refreshing(front):
    return Refreshing(front)
