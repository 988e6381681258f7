"""A few mutated files of every kind; the script beside this one runs thousands."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz
import fuzz_cases


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and alarms of other systems differ")
def test_mutated_files_never_hang_crash_or_exhaust_memory(masks_only):
    counts, faults = fuzz.fuzz(48, 7, Path(masks_only.model), whole_every=48)
    assert faults == []
    assert sum(counts.values()) == 48
    # Both happen: files that are refused, and files whose change does no harm.
    assert any(kind.startswith("image") and kind.endswith("[5]") for kind in counts)
    assert any(kind.startswith("image") and kind.endswith("[0, 0]") for kind in counts)


def test_a_case_is_made_again_by_its_number(tmp_path, masks_only):
    originals = tmp_path / "originals"
    fuzz_cases.make_originals(originals, Path(masks_only.model))
    (originals / "half").mkdir()
    (originals / "whole").mkdir()
    for kind in ("half", "whole"):  # which only runs make
        (originals / kind / "made.json").write_text('{"a": 1}')
    doors = set()
    for n in range(40):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        first, second = (fuzz_cases.make_case(n, 1, originals, tmp_path / name) for name in ("a", "b"))
        assert first.door == second.door
        doors.add(first.door)
        for file in (tmp_path / "a").rglob("*"):
            if file.is_file():
                assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
        for name in ("a", "b"):
            fuzz.clear(tmp_path / name)
            (tmp_path / name).rmdir()
    assert len(doors) > 5
