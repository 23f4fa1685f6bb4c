"""Each kind of engine in two processes, and on two hosts, as `torchrun` starts them."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from tests.embeddings.full.conftest import build_model, texts_of
from tests.llms.conftest import fees
from tests.llms.tiny import save_tiny
from tests.rerankers.conftest import shop
from tests.tiny_bert import save_tiny_bert
from tests.torchrun_engines import ENGINES
from tests.weights import same, weights

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("torchrun")]

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
SCRIPT = ("--module", "tests.torchrun_engines")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Kind → a tiny model."""
    folder, texts = tmp_path_factory.mktemp("models"), texts_of(shop(n=30))
    said = [m["content"] for e in fees(50).examples for m in e.messages]
    return {
        "embedding model": build_model(folder / "embedding", texts),
        "cross-encoder": save_tiny_bert(folder / "cross", texts),
        "LLM": str(save_tiny(folder / "llm", said)),
    }


def two_processes(kind, model, out, *step):
    script = (*SCRIPT, kind, model, str(out), *map(str, step))
    return subprocess.run(
        [*TORCHRUN, "--nproc-per-node", "2", *script],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.fixture(scope="module", params=ENGINES)
def undisturbed(request, models, tmp_path_factory):
    """A kind of engine, its model, and what two processes made of it."""
    kind, out = request.param, tmp_path_factory.mktemp("undisturbed") / "out"
    done = two_processes(kind, models[kind], out)
    assert done.returncode == 0, done.stderr[-3000:]
    return kind, models[kind], weights(out)


def test_one_process_killed_ends_both_and_resumed_they_end_as_if_undisturbed(undisturbed, tmp_path):
    kind, model, whole = undisturbed
    killed = two_processes(kind, model, tmp_path / "cut", 3)
    assert killed.returncode != 0
    assert re.search(r"rank\s*:\s*1\b.*Signal 9 \(SIGKILL\)", killed.stderr, re.DOTALL)
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut.checkpoints").is_dir()
    resumed = two_processes(kind, model, tmp_path / "cut")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "the first step is 2" in resumed.stdout
    same(weights(tmp_path / "cut"), whole)


@contextmanager
def hosts():
    """Two network namespaces with a cable between them; name → address."""
    names = {f"lit{os.getpid()}a": "10.213.7.1", f"lit{os.getpid()}b": "10.213.7.2"}
    (one, two) = names

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", one, "type", "veth", "peer", "cable", "netns", two)
        for name, address in names.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            for link in ("lo", "cable"):
                ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.skipif(os.getuid() != 0 or which("ip") is None, reason="needs root and iproute2")
def test_two_hosts_train_as_two_processes_of_one_do(undisturbed, tmp_path):
    kind, model, whole = undisturbed
    with hosts() as names:
        (first, *_) = names.values()
        started = [
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", name, *TORCHRUN, "--nnodes", "2"),
                    *("--nproc-per-node", "1", "--rdzv-backend", "c10d"),
                    *("--rdzv-endpoint", f"{first}:29500", "--local-addr", address),
                    # Hosts know themselves by their names, which these two have not.
                    *("--rdzv-conf", f"is_host={address == first}"),
                    *(*SCRIPT, kind, model, str(tmp_path / "two")),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "cable"},
            )
            for name, address in names.items()
        ]
        try:
            said = [process.communicate(timeout=300)[0] for process in started]
        finally:
            for process in started:
                process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)[-4000:]
    same(weights(tmp_path / "two"), whole)
