"""`kvmvfio-emu tcp-rr`: its text, JSON and picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from kvmvfio_emu.cli.main import main
from kvmvfio_emu.rr.sweep import ask, swings, variants
from kvmvfio_emu.rr.workload import Workload

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def told(capsys):
    """``told(...)``: what the command prints, which must succeed."""

    def tell(*arguments: str) -> str:
        assert main(["tcp-rr", "--transactions", "20", *arguments]) == 0
        return capsys.readouterr().out

    return tell


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("idle", ["--no-sweep"]),
        ("running-elsewhere", ["--no-sweep", "--vcpu", "running", "--cpus", "2", "--irq-cpu", "1"]),
        ("devices", ["--no-sweep", "--devices", "3", "--answer", "handler", "--coalesce", "2"]),
    ],
)
def test_the_text_is_what_was_looked_at(told, name, arguments):
    assert told(*arguments) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_the_text_never_claims_a_measurement(told):
    text = told("--no-sweep")
    assert "None of this was measured on hardware." in text
    assert "recalled" in text
    assert "assumed" in text


def test_steps_that_somebody_measured_are_named_but_no_more_is_claimed(told, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('base = "arm-2014"\n[parameters.vm_exit]\nvalue = 1100\nbasis = "measured"\nsource = "my board"\n')
    text = told("--no-sweep", "--costs", str(own))
    assert "No transaction was measured on hardware, only single steps, says the file: vm_exit." in " ".join(
        text.split()
    )


def test_it_says_the_same_each_time(told):
    assert told("--json", "--devices", "2", "--no-sweep") == told("--json", "--devices", "2", "--no-sweep")


def test_json_has_both_modes_the_costs_and_the_sensitivity(told, costs):
    data = json.loads(told("--json"))
    assert data["measured_on_hardware"] is False
    assert (data["unforwarded"]["exits"], data["forwarded"]["exits"]) == (1, 0)
    assert data["unforwarded"]["cycles"] > data["forwarded"]["cycles"]
    for mode in ("unforwarded", "forwarded"):
        one = data[mode]
        assert sum(one["cycles_by_parameter"].values()) == pytest.approx(one["cycles"])
        assert one["cycles_before_response"] + one["cycles_after_response"] == pytest.approx(one["cycles"])
    assert data["costs"]["parameters"]["vm_exit"]["basis"] == "recalled"
    assert {entry["parameter"] for entry in data["sensitivity"]} == set(costs.parameters) - {"ipi"}  # nobody kicks
    assert {"all cycles at their lowest", "4 devices"} <= {entry["workload"] for entry in data["variants"]}


def test_json_of_costs_under_which_no_time_passes(told, tmp_path):
    own = tmp_path / "own.toml"
    lines = ['base = "arm-2014"', "parameters.wire = {value = 0}"]
    for name in ("guest_packet", "vm_exit"):
        lines.append(f"parameters.{name} = {{value = 0}}")
    own.write_text("\n".join(lines))
    assert json.loads(told("--json", "--no-sweep", "--costs", str(own)))["forwarded"]["cycles"] > 0


def test_the_sweep_goes_through_each_range_and_back_to_the_answer(costs):
    workload = Workload(transactions=8)
    base = ask(workload, costs)
    found = swings(workload, costs)
    by_name = {swing.parameter.name: swing for swing in found}
    for name in ("vm_exit", "gicd_access", "resampler", "eventfd_signal"):  # on the path that forwarding removes
        assert by_name[name].low.faster < base.faster < by_name[name].high.faster
        assert by_name[name].low.cheaper < base.cheaper < by_name[name].high.cheaper
    for name in ("wire", "guest_packet"):  # what is the same in both modes dilutes the gain
        assert by_name[name].low.faster > base.faster > by_name[name].high.faster
    assert by_name["wire"].low.cheaper == pytest.approx(by_name["wire"].high.cheaper)
    assert by_name["wire"].low.costs.value("wire") == costs.parameters["wire"].low
    widths = [swing.width(lambda answer: answer.faster) for swing in found]
    assert widths == sorted(widths, reverse=True)


def test_variants_differ_in_one_thing(costs):
    found = {variant.name: variant.answer for variant in variants(Workload(transactions=16), costs)}
    assert found["vCPU computes"].workload.idle is False
    assert found["guest answers in its handler"].faster < found["vCPU computes"].faster
    assert found["16 transactions an interrupt"].cheaper < found["4 transactions an interrupt"].cheaper
    assert found["interrupts to another CPU"].unforwarded.cpus.keys() == {0, 1}


def test_the_picture_is_svg_with_words_for_those_who_do_not_see_it(told, tmp_path):
    path = tmp_path / "out.svg"
    told("--plot", str(path))
    root = ElementTree.parse(path).getroot()
    names = {element.tag.partition("}")[2] for element in root.iter()}
    assert {"title", "desc", "rect", "text"} <= names
    assert root.get("role") == "img"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "vm_exit" in texts
    assert "wire *" in texts  # assumed
    width = float(root.get("viewBox", "").split()[2])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(box.get("width", "nan")) >= 0
        assert 0 <= float(box.get("x", "nan")) <= float(box.get("x", "nan")) + float(box.get("width", "nan")) <= width


def test_hostile_names_do_not_reach_the_picture_as_markup(told, tmp_path):
    own, path = tmp_path / "own.toml", tmp_path / "out.svg"
    own.write_text(
        'base = "arm-2014"\n[events]\nresample_ack = ["<script>&"]\n'
        '[parameters."<script>&"]\nvalue = 9000\nlow = 1\nhigh = 90000\nbasis = "assumed"\nsource = "s"\nwhat = "w"\n'
    )
    told("--plot", str(path), "--costs", str(own))
    assert "<script" not in path.read_text()
    assert "&lt;script&gt;&amp;" in path.read_text()
    ElementTree.parse(path)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--irq-cpu", "1"], "--irq-cpu 1: there is no such CPU; --cpus is 1"),
        (["--costs", "nix"], "no costs 'nix'"),
        (["--no-sweep", "--plot", "/does/not/exist/out.svg"], "No such file or directory"),
        (["--profile", "nix"], "no profile 'nix'"),
    ],
)
def test_a_wrong_use_is_told_in_a_line(capsys, arguments, complaint):
    assert main(["tcp-rr", *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--devices", "0"], ["--devices", "33"], ["--coalesce", "x"], ["--rate", "nan"], ["--jitter", "-1"]]
)
def test_a_number_out_of_range_is_refused(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["tcp-rr", *arguments])
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_kernel_without_forward_control_has_nothing_to_compare(capsys):
    assert main(["tcp-rr", "--profile", "mainline"]) == 1
    assert "no IRQ forward control" in capsys.readouterr().err


@pytest.mark.parametrize("profile", ["rfc-v2", "draft-v3", "draft-v4"])
def test_the_later_drafts_save_as_much(told, profile):
    data = json.loads(told("--json", "--no-sweep", "--profile", profile))
    assert data["unforwarded"]["events"]["vmexit_maint"] == 1
    assert "vmexit_maint" not in data["forwarded"]["events"]
