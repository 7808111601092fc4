"""Patterns that find the patient in names: regular expressions, plain patterns, and proposals where names repeat."""

import re

import pytest

from parfocal.data.group_patterns import compile_pattern, extract_groups, propose_patterns
from parfocal.errors import ParfocalError, UsageError
from parfocal.recipe import parse_changes

PATIENTS = [f"P{row // 4:03d}" for row in range(140)]


@pytest.mark.parametrize(
    ("pattern", "location", "group"),
    [
        ("P{patient}_{image}.png", "blast/P012_0034.png", "012"),
        ("{patient}_{image}", "blast/P012_0034_b.png", "P012"),
        ("{patient}_{eye}", "12_left", "12"),
        ("{patient}/{image}", "blast/P012/x.png", "P012"),
        ("{patient}/{folder}/{image}", "train/P012/blast/x.png", "P012"),
        ("{site}-{patient}-{image}.{suffix}", "B-7-12.tif", "7"),
        ("{eye}_{PatientID}_{image}", "left_p7_1.png", "p7"),
        (r"^(\w+?)_", "P012_0034.png", "P012"),
        (r"P\d{3}", "blast/P012_0034.png", "P012"),
        (r"(?P<image>\d+)-(?P<patient>\d+)", "3-4.png", "4"),
    ],
)
def test_a_pattern_finds_the_patient(pattern: str, location: str, group: str) -> None:
    compiled = compile_pattern(pattern)
    assert (compiled.kind, compiled.find(location)) == ("patients", group)


def test_a_plain_pattern_says_what_the_groups_are_and_takes_whole_names() -> None:
    eyes = compile_pattern("{eye}_{image}.png")
    assert (eyes.kind, eyes.is_narrow) == ("eyes", True)
    assert compile_pattern("P{patient}_{image}.png").find("XP012_0034.png") is None
    assert compile_pattern("{patient}.{image}.png").find("axbxpng") is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is not a regular expression"), ("{image}_{number}", "no placeholder for the patient. Write {patient}")],
)
def test_an_invalid_pattern_is_an_error(pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        compile_pattern(pattern)


def test_a_pattern_is_searched_in_ids_and_then_in_locations() -> None:
    ids, locations = ["1", "2"], ["a/P1/1.png", "a/P2/2.png"]
    assert extract_groups("{patient}/{image}", ids, locations)[0] == ["P1", "P2"]
    assert extract_groups(r"\d", ids, locations)[0] == ["1", "2"]
    with pytest.raises(ParfocalError, match=r"finds no group in 2 ids: "):
        extract_groups("Q{patient}", ids, locations)


def test_a_pattern_is_taken_from_the_command_line_as_it_is() -> None:
    for pattern in ("{patient}_{image}.png", "P{patient}_{image}.png", r"^(\w{1,3})_", "[a-c],(.)", "007"):
        assert parse_changes([f"columns.group_from={pattern}"]) == {"columns.group_from": pattern}


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        ([f"{patient}_{row:04d}.png" for row, patient in enumerate(PATIENTS)], "{patient}_{image}"),
        ([f"img_{patient}_{row:04d}.png" for row, patient in enumerate(PATIENTS)], "img_{patient}_{image}"),
        ([f"s{row % 2}-{patient}-{row:04d}.png" for row, patient in enumerate(PATIENTS)], "{parta}-{patient}-{image}"),
        ([f"{row // 2}_{('left', 'right')[row % 2]}.jpeg" for row in range(80)], "{patient}_{image}"),
        ([f"{row}_left.jpeg" for row in range(60)] + [f"{row}_right.jpeg" for row in range(20)], "{patient}_{image}"),
        ([f"{'ab'[row % 2]}/{patient}/{row}.png" for row, patient in enumerate(PATIENTS)], "{patient}/{image}"),
        (
            [f"{patient}/{'ab'[row % 2]}/{row}.png" for row, patient in enumerate(PATIENTS)],
            "{patient}/{folder}/{image}",
        ),
    ],
)
def test_names_that_repeat_as_patients_do_are_proposed_with_a_pattern_that_works(
    names: list[str], pattern: str
) -> None:
    (proposal,) = propose_patterns(names)
    assert f'columns.group_from="{pattern}"' in proposal
    groups, compiled = extract_groups(pattern, names, names)
    assert compiled.kind == "patients"
    assert f"there are {len(set(groups))}." in proposal
    assert len(set(groups)) < len(names)
