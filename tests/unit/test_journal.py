"""The journal of reports: each once, in order, over restarts and half-written lines."""

from __future__ import annotations

from pathlib import Path

from app.agent import journal
from app.agent.journal import Journal


def test_numbers_rise_over_restarts_and_lost_files(tmp_path: Path) -> None:
    place = tmp_path / "reports.jsonl"
    first = Journal(place)
    for number in range(3):
        first.add("a", "id-a", 7, f"event {number}")
    seen = first.after(0)
    assert [report.text for report in seen] == ["event 0", "event 1", "event 2"]
    assert (seen[0].application, seen[0].application_id, seen[0].pid) == ("a", "id-a", 7)
    assert first.after(seen[1].number) == [seen[2]]
    first.close()

    with place.open("ab") as file:
        file.write(b'{"number": 12, "ti')  # a kill in the middle of a line
    second = Journal(place)
    second.add("a", "id-a", 7, "event 3")
    assert second.after(0)[:3] == seen
    assert [report.text for report in second.after(seen[-1].number)] == ["event 3"]
    second.close()

    last = second.after(0)[-1].number
    place.unlink()
    third = Journal(place)
    third.add("a", "id-a", 7, "event 4")
    assert [report.text for report in third.after(last)] == ["event 4"]
    third.close()


def test_the_file_does_not_grow_without_end(tmp_path: Path) -> None:
    place = tmp_path / "reports.jsonl"
    made = Journal(place)
    for number in range(4 * journal._KEPT):
        made.add("a", "id-a", 7, str(number))
    made.close()
    assert len(place.read_bytes().splitlines()) <= 2 * journal._KEPT + 1
    again = Journal(place)
    texts = [report.text for report in again.after(0)]
    assert texts == [str(number) for number in range(3 * journal._KEPT, 4 * journal._KEPT)]
    again.close()
