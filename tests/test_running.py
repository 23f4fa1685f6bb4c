"""What a forked child finds of its parent's locks and threads."""

import asyncio
import copy
import gc
import os
import pickle
import sqlite3
import threading
import time
import warnings

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from llama_index.tuning import _running
from llama_index.tuning._running import ThreadLock, cached_property, run_async
from llama_index.tuning.llms.tasks.sql import Database, QueryFailed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def in_child(work, seconds=10):
    """The exit status of a forked child that does this; 0 where it gave True in time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are what this is about
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "stuck"


def taken(lock):
    with lock:
        return True


def test_a_lock_that_another_thread_holds_is_free_in_the_child():
    lock, inside, leave = ThreadLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    assert in_child(lambda: taken(lock)) == 0
    leave.set()
    thread.join()
    assert taken(lock)


def test_the_thread_that_forks_keeps_its_lock():
    lock = ThreadLock()
    with lock:
        assert in_child(lambda: taken(lock)) == 0
    assert in_child(lambda: taken(lock)) == 0


def test_a_fork_waits_for_what_is_being_written():
    lock, state, stop = ThreadLock(), [0, 0], threading.Event()

    def write():
        while not stop.is_set():
            with lock:
                state[0] += 1
                time.sleep(0.002)
                state[1] += 1
            time.sleep(0.001)  # a thread that never lets go may keep the fork waiting too long

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert [in_child(lambda: state[0] == state[1]) for _ in range(15)] == [0] * 15
    finally:
        stop.set()
        thread.join()


def test_threads_may_fork_at_once():
    lock, forking, forked = ThreadLock(), threading.Event(), threading.Event()

    def slow_fork():  # what os.fork() calls, with another thread's whole fork in between
        _running._locks_before_fork()
        forking.set()
        forked.wait()
        _running._locks_after_fork_in_parent()

    thread = threading.Thread(target=slow_fork)
    thread.start()
    forking.wait()
    status = in_child(lambda: taken(lock))
    forked.set()
    thread.join()
    assert status == 0
    assert lock._taken_until(time.monotonic() + 1)


def test_copies_have_locks_of_their_own():
    lock = ThreadLock()
    for other in (copy.copy(lock), copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
        assert other is not lock
        assert taken(other)


def test_coroutines_run_in_a_child_too():
    assert run_async(asyncio.sleep(0, 5)) == 5
    assert in_child(lambda: run_async(asyncio.sleep(0, 6)) == 6) == 0
    assert run_async(asyncio.sleep(0, 7)) == 7


def test_a_busy_retriever_answers_in_every_child():
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.schema import TextNode

    from llama_index.tuning import TunedRetriever

    nodes = [TextNode(id_=str(i), text=f"Refund rule {i}") for i in range(50)]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    tuned, stop = TunedRetriever.from_index(index), threading.Event()

    def churn():
        n = 0
        while not stop.is_set():
            n += 1
            tuned.insert_nodes([TextNode(id_=f"n{n % 9}", text=f"Fee number {n} refund")])
            tuned.index.search("refund rule 7", 5)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        right = lambda: tuned.retrieve("refund rule 7")[0].node.node_id == "7"  # noqa: E731
        assert [in_child(right) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_property_that_another_thread_works_out_is_no_hindrance():
    inside, leave = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, waits):
            self.waits = waits

        @cached_property
        def value(self):
            if self.waits:
                inside.set()
                leave.wait()
            return 5

    thread = threading.Thread(target=lambda: Slow(waits=True).value)
    thread.start()
    inside.wait()
    try:
        assert in_child(lambda: Slow(waits=False).value == 5) == 0
    finally:
        leave.set()
        thread.join()


def test_a_query_that_another_thread_runs_is_no_hindrance(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    database = Database(tmp_path / "a.db", 60.0)
    assert database.run("SELECT a FROM t") == [(1,)]
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    failed = []

    def ask():
        try:
            database.run(endless)
        except QueryFailed as exc:
            failed.append(exc)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(0.2)  # until it is at it
    try:
        assert in_child(lambda: database.run("SELECT a FROM t") == [(1,)]) == 0
    finally:
        database._worker._process.kill()
        thread.join()
    assert len(failed) == 1


def test_a_child_that_ends_leaves_its_parents_copies_of_databases():
    engine = create_engine("sqlite://", poolclass=StaticPool)
    database = Database(engine, 5.0)
    files = database._files()
    child = os.fork()
    if child == 0:
        del database  # as at the end of a process, where os._exit() would leave it
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert all(os.path.exists(file) for _, file in files)
