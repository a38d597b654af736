"""Start the loopback Hub and point the libraries at it, before anything imports them: they read the endpoint at import."""

import os
import tempfile


os.environ.update(
    HF_HOME=tempfile.mkdtemp(prefix="ldlm-hf-tests-"),
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_EVALUATE_OFFLINE="1",
    HF_DATASETS_OFFLINE="0",
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


@pytest.fixture
def hub():
    """Return the loopback Hub, empty and without planned faults."""
    HUB.repositories.clear()
    HUB.faults.clear()
    return HUB


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_unconfigure():
    """Stop the Hub."""
    HUB.__exit__()
