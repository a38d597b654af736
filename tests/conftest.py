"""Start the loopback Hub and point the libraries at it, before anything imports them: they read the endpoint at import."""

import os
import shutil
import tempfile


HOME = tempfile.mkdtemp(prefix="ldlm-hf-tests-")
os.environ.update(
    HF_HOME=HOME,
    HF_HUB_OFFLINE="0",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DOWNLOAD_TIMEOUT=os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "2"),  # seconds that the Hub may say nothing
    HF_HUB_ETAG_TIMEOUT="2",
    HF_EVALUATE_OFFLINE="1",
    HF_DATASETS_OFFLINE="0",
    DISABLE_SAFETENSORS_CONVERSION="1",  # else transformers calls a public service where a checkpoint lacks safetensors
    NO_PROXY=",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"])),
    OMP_WAIT_POLICY="PASSIVE",
)

from tests.fake_hub import TOKEN, FakeHub  # noqa: E402


HUB = FakeHub()
HUB.__enter__()
os.environ.update(HF_ENDPOINT=HUB.endpoint, HF_TOKEN=TOKEN)

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402


datasets.disable_progress_bars()
transformers.utils.logging.disable_progress_bar()
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
torch.set_num_threads(max(1, min(2, os.cpu_count() or 1) // WORKERS))  # tiny models lose time on more


@pytest.fixture
def hub():
    """Return the loopback Hub, empty and without planned faults."""
    HUB.clear()
    return HUB


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_unconfigure():
    """Stop the Hub and remove what was downloaded."""
    HUB.__exit__()
    shutil.rmtree(HOME, ignore_errors=True)
