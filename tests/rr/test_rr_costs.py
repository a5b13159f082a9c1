"""Cost files: what comes along is honest about its sources, and what is wrong in another is named with its place."""

from __future__ import annotations

import re

import pytest

from kvmvfio_emu.rr import costs as cost_files
from kvmvfio_emu.rr.costs import BASES, CostError

BASE = 'base = "arm-2014"\n'


def load(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return cost_files.load(str(path))


def test_every_figure_has_a_range_and_a_source(costs):
    for one in costs.parameters.values():
        assert one.low <= one.value <= one.high
        assert one.low < one.high
        assert one.basis in BASES
        assert len(one.source) > 10


def test_figures_that_only_memory_vouches_for_say_so(costs):
    assert {name for name, one in costs.parameters.items() if one.basis == "recalled"} == {
        "vm_exit",
        "vm_entry",
        "gicv_access",
    }
    assert costs.value("vm_exit") + costs.value("vm_entry") == 5300  # Cortex-A15, a hypercall
    assert not [one for one in costs.parameters.values() if one.basis == "published"]


def test_a_file_may_say_only_what_differs(tmp_path, costs):
    own = load(tmp_path, BASE + 'name = "mine"\n[parameters.vm_exit]\nvalue = 100\n[events]\nwork = []\n')
    assert (own.name, own.value("vm_exit"), own.value("vm_entry")) == ("mine", 100, costs.value("vm_entry"))
    assert own.of("work") == ()
    assert own.of("host_irq") == costs.of("host_irq")


def test_a_figure_that_is_changed_loses_its_source_and_widens_its_range(tmp_path, costs):
    one = load(tmp_path, BASE + "[parameters.vm_exit]\nvalue = 9000\n").parameters["vm_exit"]
    assert one.basis == "assumed"
    assert "own.toml" in one.source
    assert (one.low, one.high) == (costs.parameters["vm_exit"].low, 9000)
    text = BASE + '[parameters.vm_exit]\nvalue = 9000\nbasis = "published"\nsource = "a paper"\n'
    assert load(tmp_path, text).parameters["vm_exit"].basis == "published"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x = = 1", "own.toml: not TOML: Invalid value .*line 1"),
        ('base = "nope"', "own.toml: base: no costs 'nope'; known: arm-2014"),
        ("base = 3", "own.toml: base: no costs 3"),
        (BASE + "foo = 1", "own.toml: foo: unknown key"),
        (BASE + "[parameters.vm_exit]\nvalue = -1", "own.toml: parameters.vm_exit: value: .*not negative, is -1"),
        (BASE + "[parameters.vm_exit]\nlow = -1", "own.toml: parameters.vm_exit: low: .*not negative, is -1"),
        (BASE + "[parameters.vm_exit]\nvalue = inf", "vm_exit: value: must be finite"),
        (BASE + "[parameters.vm_exit]\nvalue = nan", "vm_exit: value: must be finite"),
        (BASE + "[parameters.vm_exit]\nvalue = 1e12", "vm_exit: value: 1e.12 is more than"),
        (BASE + "[parameters.vm_exit]\nvalue = true", "vm_exit: value: must be a number, is True"),
        (BASE + '[parameters.vm_exit]\nvalue = "1"', "vm_exit: value: must be a number, is '1'"),
        (BASE + "[parameters.vm_exit]\nvalu = 1", "own.toml: parameters.vm_exit: valu: unknown key"),
        (BASE + "[parameters.vm_exit]\nvalue = 5\nhigh = 4", "vm_exit: value: 5 is not within low 5? ?.*high 4"),
        (BASE + '[parameters.vm_exit]\nunit = "ns"', "vm_exit: unit: 'ns'"),
        (BASE + '[parameters.wire]\nunit = "cycles"', "parameters.wire: unit: must be 'ns'"),
        (BASE + '[parameters.vm_exit]\nbasis = "guess"', "vm_exit: basis: 'guess' is none of measured, published"),
        (BASE + "[parameters]\nvm_exit = 3", "parameters: vm_exit: must be a table"),
        (BASE + "parameters = 3", "parameters: must be a table"),
        (BASE + "[parameters.more]\nvalue = 1", "parameters.more: basis: missing"),
        (
            BASE + '[parameters.more]\nvalue = 1\nbasis = "assumed"\nsource = "s"\nwhat = "w"',
            "parameters.more: no event costs it",
        ),
        (BASE + "[parameters.clock]\nvalue = 0", "parameters.clock: low: a clock of 0 GHz"),
        (BASE + "[events]\nwork = 3", "events: work: must be an array of parameter names"),
        (BASE + '[events]\nwork = ["nix"]', "events: work: no parameter 'nix'"),
        (BASE + "[events]\nwork = [[]]", "events: work: no parameter"),
        (BASE + '[events]\nwork = ["wire"]', "events: work: wire is not a cost of an event"),
        (BASE + "[events]\nvmexit_irqq = []", "events: vmexit_irqq: the model has no event 'vmexit_irqq'"),
        (BASE + '[events]\n"work after vmexit_irq" = []', "only a vmentry can be told apart"),
        (BASE + '[events]\n"vmentry after vmexit_nix" = []', "the model has no event 'vmexit_nix'"),
        ('name = "n"\ndescription = "d"', "own.toml: parameters.clock: missing"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, text, place):
    with pytest.raises(CostError) as error:
        load(tmp_path, text)
    assert re.search(place, str(error.value)), str(error.value)
    assert "own.toml" in str(error.value)


@pytest.mark.parametrize("name", ["nix", "/does/not/exist.toml", "/"])
def test_a_file_that_is_not_there(name):
    with pytest.raises(CostError, match=r"no costs 'nix'|No such file|Is a directory"):
        cost_files.load(name)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CostError, match="not TOML"):
        cost_files.load(str(path))
