import time
from email.utils import formatdate

import pytest

from llama_index.tuning.asking.calls import RetryPolicy, hopeless, retry_after, status_of
from llama_index.tuning.errors import ReplyError


class Response:
    def __init__(self, status_code, headers):
        self.status_code, self.headers = status_code, headers


def error(status, text="", **headers):
    exc = RuntimeError(text)
    exc.response = Response(status, {name.replace("_", "-"): v for name, v in headers.items()})
    return exc


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry_after": "7"}, 7), ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
     ({"retry_after": "soon"}, None), ({}, None), ({"retry_after": "-3"}, 0)],
)  # fmt: skip
def test_the_header_is_read(headers, seconds):
    assert retry_after(error(429, **headers)) == seconds


def test_the_header_may_be_a_date():
    date = formatdate(time.time() + 20, usegmt=True)
    assert 15 < retry_after(error(503, retry_after=date)) <= 20
    assert retry_after(error(503, retry_after="Mon, 01 Jan 2001 00:00:00 GMT")) == 0


def test_the_status_is_found_where_clients_put_it():
    assert status_of(error(500)) == 500
    assert status_of(ValueError()) is None


def test_errors_that_no_other_try_mends():
    policy = RetryPolicy(3, 0.1)
    assert not policy.again(error(400))
    assert not policy.again(error(422))
    assert hopeless(error(401))
    assert hopeless(error(429, "You exceeded your quota: insufficient_quota"))
    assert not hopeless(error(429, "slow down"))
    assert policy.again(error(500))
    assert policy.again(ReplyError("no question"))
    assert not policy.again(KeyboardInterrupt())


def test_a_thread_of_our_own_never_waits_for_itself():
    from llama_index.tuning._running import run_async

    async def inner():
        return 1

    async def outer():
        return run_async(inner()) + 1

    assert run_async(outer()) == 2
