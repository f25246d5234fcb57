from __future__ import annotations

import pytest

from vggfeat.extraction import allocator


@pytest.mark.parametrize("context", [allocator.memory_kept, allocator.memory_returned])
def test_settings_are_made_and_taken_back(context: object, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        made.append((parameter, value))
        return 1

    monkeypatch.setattr(allocator, "_MALLOPT", mallopt)
    with context():  # type: ignore[operator]  # one of the two
        inside = dict(made)
        made.clear()
    after = dict(made)
    assert inside.keys() == after.keys()
    assert set(inside) <= {-1, -2, -3, -4}
    defaults = {-1: 131072, -2: 131072, -3: 131072, -4: 65536}  # of glibc, mallopt(3)
    assert after == {parameter: defaults[parameter] for parameter in inside}
    assert all(inside[parameter] != after[parameter] for parameter in inside)


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_MALLOPT", None)
    monkeypatch.setattr(allocator, "_TRIM", None)
    with allocator.memory_kept(), allocator.memory_returned():
        block = bytes(1 << 20)
    assert len(block) == 1 << 20


def test_freed_memory_is_given_back_only_where_it_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(allocator, "_TRIM", trimmed.append)
    with allocator.memory_kept() as give_back:
        give_back()
        assert trimmed == []
    with allocator.memory_returned() as give_back:
        trimmed.clear()
        give_back()
        assert trimmed == [0]
