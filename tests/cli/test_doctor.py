"""What ``ephemeral doctor`` finds that needs no machine to look at."""

from __future__ import annotations

from datetime import timedelta

from ephemeral import names
from ephemeral_cli import doctor


def test_the_list_of_popular_names_is_told_with_its_size_and_month() -> None:
    count, day = names.popular()
    found = doctor.popular_names(day + timedelta(days=365))
    assert (found.what, found.state, found.fix) == ("names", "ok", "")
    assert found.detail == f"{count:,} packages, {day:%B %Y}"


def test_a_list_older_than_a_year_is_a_note_and_says_what_to_type() -> None:
    found = doctor.popular_names(names.popular()[1] + timedelta(days=367))
    assert found.state == "note"
    assert "older than a year" in found.detail
    assert found.fix.startswith("pip install --upgrade")
    assert doctor.usable([found])
