"""What stands below the page, over a service that has no files of its own where no run is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.fake_service import FakeService


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return FakeService(tmp_path)
