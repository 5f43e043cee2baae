"""What the tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real and golden files; a clone elsewhere has none, and the tests that need it are skipped."""
    if not SHARED.is_dir():
        pytest.skip(f"the real test files ({SHARED.name}) are not beside this repository")
    return SHARED
