"""A few mutated files of every kind; the script beside this one runs thousands."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and alarms of other systems differ")
def test_mutated_files_never_hang_crash_or_exhaust_memory(masks_only):
    counts, faults = fuzz.fuzz(60, 7, Path(masks_only.model))
    assert faults == []
    assert sum(counts.values()) == 60
    # Both happen: files that are refused, and files whose change does no harm.
    assert any(kind.endswith("[5]") for kind in counts)
    assert any(kind.endswith("[0, 0]") for kind in counts)


def test_a_case_is_made_again_by_its_number(tmp_path):
    originals = fuzz.make_originals(tmp_path / "originals")
    assert all(path.exists() for path in originals)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for n in range(20):
        first, second = (fuzz.make_case(n, 1, originals, tmp_path / name) for name in ("a", "b"))
        if first.is_file():
            assert first.read_bytes() == second.read_bytes()
