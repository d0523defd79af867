"""The chaos suite itself: a seed that holds, the same one again, naive code that is caught. `make chaos` runs more."""

import dataclasses

import pytest

from tests.chaos import naive
from tests.chaos.session import Scenario, play


def test_a_seed_holds_and_is_the_same_run_again():
    short = dataclasses.replace(Scenario.of(4, True), faults=100.0, lead=50.0, every=8.0, venues=("polymarket",))
    one, again = play(short), play(short)
    assert one.violations == []
    assert (one.faults, one.counts, one.script) == (again.faults, again.counts, again.script)
    assert one.counts["orders accepted"] > 10 and one.counts["rollovers"] and sum(one.faults.values()) > 5


@pytest.mark.parametrize("name", ["unknown_is_rejected"])
def test_naive_code_is_caught(name):
    variant = naive.VARIANTS[name]
    violations = naive.play(variant, 0).violations
    assert any(word in violation for word in variant.expected for violation in violations)


def test_every_naive_variant_says_what_must_catch_it_and_to_which_failure_mode_it_belongs():
    assert len(naive.VARIANTS) >= 40
    for variant in naive.VARIANTS.values():
        assert variant.modes and variant.expected


@pytest.mark.parametrize("name", naive.VARIANTS)
def test_every_naive_variant_finds_what_it_replaces(name):
    """One that replaced a function which had moved ran into an error of its own at once, and was never caught."""
    with naive.VARIANTS[name].patch():
        pass
