"""The file of results, its continuation, and the report."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import machine, ratios, report, results
from bench.cases import Case
from bench.results import OtherResultsError, Store

FOLDER = Path(__file__).resolve().parents[2] / "bench" / "results"

ABOUT = {"kind": "cpu", "device": "test data", "commit": "abc", "date": "2000-01-01"}
ABOUT.update(versions={"fastrnn": "0"}, missing={"Haste": "haste_pytorch is not installed"})


def row(case, fastrnn, other, **changes):
    """A row of made-up data."""

    def entry(seconds):
        times = {"low": 0.9 * seconds, "high": 1.1 * seconds, "rounds": 3}
        return {"status": "ok", "seconds": seconds, **times, "peak_mib": 12.0}

    peers = {"fastrnn": entry(fastrnn), "Other": entry(other), **changes}
    sizes = asdict(case)
    row = {"case": case.name, "sizes": sizes, "limit": 0.5, "bound": "math", "peers": peers}
    return {**row, "failures": []}


MXNET = {"status": "ok", "seconds": 4.0, "low": 4.0, "high": 4.0, "rounds": 3}


def content():
    rows = [
        row(Case("lstm", hidden=h), 1.0, r, MXNet=MXNET)
        for h, r in ((128, 0.5), (256, 1.0), (512, 2.0))
    ]
    rows.append(row(Case("gru"), 1.0, 2.0, Bad={"status": "wrong", "reason": "output: far off"}))
    return {"about": ABOUT, "rows": rows}


def test_what_a_run_on_a_gpu_says_of_it(monkeypatch, tmp_path):
    _C = pytest.importorskip("fastrnn._C", reason="installed without the native library")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 580.159.04'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(_C, "device_facts", lambda device: {"capability": 90 + device})
    about = machine.about("cuda", [], {"Haste": "not installed"})
    assert (about["device"], about["driver"]) == ("NVIDIA H100 80GB HBM3", "580.159.04")
    assert about["device facts"] == {"capability": 90}
    assert about["CUDA toolkit"] == _C.build_info()["cuda_toolkit"]
    assert about["missing"] == {"Haste": "not installed"}


def test_the_report_says_how_a_gpu_found_its_inputs():
    assert report.method(content()["rows"]) == []
    rows = [{**one, "evicted": 200 << 20} for one in content()["rows"]]
    said = "Before each timed call and replay, a pass read 200 MiB of other memory."
    assert report.method(rows) == ["", said]
    for one, seconds in zip(rows, (1e-6, 1.5e-6, 4e-6)):
        one["peers"]["fastrnn"]["graph_empty"] = seconds
    warm = {**content()["rows"][0], "case": "text", "warm": True}
    found = "Warm, behind a call of their own in place of a pass: text."
    assert report.method([warm]) == ["", found]
    assert report.method([*rows, warm])[1].endswith(f"own. {found}")
    text = report.markdown({"about": ABOUT, "rows": rows})
    assert f"{said} Of each replay's time, 1.5 µs (median) were subtracted" in text


def test_a_second_run_goes_on(tmp_path):
    path = tmp_path / "new" / "results.json"
    store = Store(path, ABOUT)
    store.add(row(Case("lstm"), 1.0, 2.0))
    again = Store(path, {**ABOUT, "date": "2000-01-02"})
    assert again.done(Case("lstm").name)
    assert not again.done(Case("gru").name)
    again.add(row(Case("gru"), 1.0, 2.0))
    assert len(json.loads(path.read_text())["rows"]) == 2


@pytest.mark.parametrize("key", results.IDENTITY)
def test_rows_of_something_else_are_not_mixed(tmp_path, key):
    Store(tmp_path / "r.json", ABOUT).add(row(Case("lstm"), 1.0, 2.0))
    with pytest.raises(OtherResultsError, match=f"{key} '{ABOUT[key]}', expected 'another'"):
        Store(tmp_path / "r.json", {**ABOUT, key: "another"})


def test_the_file_is_whole_or_not_there(tmp_path, monkeypatch):
    store = Store(tmp_path / "r.json", ABOUT)
    store.add(row(Case("lstm"), 1.0, 2.0))
    before = (tmp_path / "r.json").read_text()

    def fails(*_):
        raise OSError("full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="full"):
        store.add(row(Case("gru"), 1.0, 2.0))
    assert (tmp_path / "r.json").read_text() == before


def test_the_table_shows_losses_as_it_does_wins():
    text = report.markdown(content())
    assert (
        "| lstm 2x128 I=50 N=32 T=100 train | 1000 ±10% | 500 ±10% | 4000 ±0% | 0.5 | 4 |" in text
    )
    assert "| 2 |  | 500 | math | 50% | 12 / 12 / – |" in text
    assert "- lstm 2x128 I=50 N=32 T=100 train: Other takes 50% of fastrnn's time" in text
    assert "- gru 2x1000 I=50 N=32 T=100 train: Bad: wrong: output: far off" in text
    assert "Haste (haste_pytorch is not installed)" in text


def test_what_no_algorithm_can_beat_stands_beside_the_floor_of_fastrnns_plans():
    plain, floored = content()["rows"][:2]
    floored.update(limit=0.8, bound="steps", any_limit=0.25, any_bound="exchange")
    lines = report.table([floored, plain])
    assert "| set by | reached | any algorithm, ms | peak MiB |" in lines[0]
    assert "| 800 | steps | 80% | 250 (exchange) | 12 / 12 / – |" in lines[2]
    assert "| 500 | math | 50% | 500 (math) | 12 / 12 / – |" in lines[3]
    assert len({line.count("|") for line in lines}) == 1
    fast = {**floored, "limit": 1.5}
    assert report.exceeded([fast]) == [f"- {fast['case']}: 150% of what steps permits"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")))
def test_files_of_before_can_be_read(path):
    text = report.markdown(results.read(path))
    assert "| set by | reached |" in text


def graph(seconds):
    return {
        "graph_seconds": seconds,
        "graph_low": 0.8 * seconds,
        "graph_high": 1.2 * seconds,
        "graph_rounds": 3,
    }


def test_like_is_compared_with_like():
    one = row(Case("lstm"), 1.0, 2.0, Third={"status": "ok", "seconds": 3.0, "low": 3, "high": 3})
    one["peers"]["Other"].update(graph(0.1))
    # fastrnn has no graph: its calls are compared with calls.
    assert ratios.ratio(one, "Other") == (2.0, "calls")
    assert ratios.fraction(one) == 0.5
    one["peers"]["fastrnn"].update(graph(0.8))
    assert ratios.ratio(one, "Other") == (0.1 / 0.8, "graph")
    assert ratios.ratio(one, "Third") == (3.0, "calls")
    assert ratios.fraction(one) == 0.5 / 0.8
    (line,) = report.table([one])[2:]
    assert "| 1000 ±10% (800 ±20%) | 2000 ±10% (100 ±20%) | 3000 ±0% |" in line
    assert "| 0.125 (graph) | 3 | 500 | math | 62% (graph) |" in line
    assert report.losses([one]) == [
        "- lstm 2x1000 I=50 N=32 T=100 train: Other takes 12% of fastrnn's time (graph)"
    ]


def test_a_limit_that_is_none_is_said_to_be():
    fast = row(Case("lstm"), 0.25, 2.0)
    assert f"| 200%, {report.EXCEEDED} |" in report.table([fast])[2]
    text = report.markdown({"about": ABOUT, "rows": [fast]})
    assert "Limit exceeded: the model of the limit is wrong:" in text
    assert "- lstm 2x1000 I=50 N=32 T=100 train: 200% of what math permits" in text
    assert "exceeded" not in report.markdown(content())


def test_of_cudnn_the_best_counts():
    def entry(seconds, **more):
        return {"status": "ok", "seconds": seconds, "low": seconds, "high": seconds, **more}

    three = {
        "cuDNN A": entry(0.5),
        "cuDNN B": entry(3.0, **graph(0.2)),
        "cuDNN C": {"status": "unsupported", "reason": "no"},
    }
    merged = ratios.merged(row(Case("lstm"), 1.0, 2.0, **three))
    assert merged["peers"]["cuDNN"]["algorithm"] == "A"
    assert list(merged["peers"]) == ["fastrnn", "Other", "cuDNN"]
    both = row(Case("lstm"), 1.0, 2.0, **three)
    both["peers"]["fastrnn"].update(graph(0.9))
    assert ratios.merged(both)["peers"]["cuDNN"]["algorithm"] == "B"
    assert "| 3000 ±0% (200 ±20%) B |" in report.table([both])[2]
    assert [line.split(": ")[1] for line in report.losses([both])] == [
        "cuDNN takes 22% of fastrnn's time (graph)"
    ]
    none = row(Case("lstm"), 1.0, 2.0, **{"cuDNN C": three["cuDNN C"]})
    assert ratios.merged(none)["peers"]["cuDNN"]["status"] == "unsupported"


def test_the_time_of_all_runs_is_kept(tmp_path):
    now = iter([0.0, 60.0, 1000.0, 1030.0])
    Store(tmp_path / "r.json", dict(ABOUT), lambda: next(now)).add(row(Case("lstm"), 1.0, 2.0))
    Store(tmp_path / "r.json", dict(ABOUT), lambda: next(now)).add(row(Case("gru"), 1.0, 2.0))
    found = results.read(tmp_path / "r.json")
    assert found["about"]["seconds"] == 90.0
    assert "measured in 1.5 minutes" in report.markdown(found)


def test_a_row_that_did_not_end_is_a_failure(tmp_path):
    path = tmp_path / "r.json"
    assert results.give_up(path) is None
    store = Store(path, dict(ABOUT))
    hanging = {**row(Case("lstm"), 1.0, 2.0), "peers": {}}
    store.begin(hanging)
    assert results.give_up(path) == Case("lstm").name
    assert results.give_up(path) is None
    again = Store(path, dict(ABOUT))
    assert again.done(Case("lstm").name)
    assert again.failures() == [f"{Case('lstm').name}: it did not end, and was ended"]
    report.markdown(results.read(path))
    again.begin(row(Case("gru"), 1.0, 2.0))
    again.add(row(Case("gru"), 1.0, 2.0))
    assert results.give_up(path) is None


def test_the_commit_is_that_of_the_sources(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_COMMIT", raising=False)
    assert machine.commit(tmp_path) == "unknown"

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    git("init", "-q")
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "a.cu").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    clean = git("rev-parse", "HEAD").strip()
    assert machine.commit(tmp_path) == clean
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")  # of the call before
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "r.json").write_text("{}")
    assert machine.commit(tmp_path) == clean
    (tmp_path / "csrc" / "b.cu").write_text("2")
    assert machine.commit(tmp_path) == f"{clean} with changes"
    monkeypatch.setenv("BENCH_COMMIT", "said")
    assert machine.commit(tmp_path) == "said"


def test_the_command_puts_the_report_into_a_document(tmp_path, capsys):
    source, document = tmp_path / "r.json", tmp_path / "doc.md"
    source.write_text(json.dumps(content()))
    document.write_text("# A\n<!-- cpu -->\nold\n<!-- end -->\nafter\n")
    assert report.main([str(source), "--out", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("# A\n<!-- cpu -->\n\n")
    assert "old" not in text
    assert text.endswith("<!-- end -->\nafter\n")
    document.write_text("# A\n")
    assert report.main([str(source), "--out", str(document)]) == 2
    assert "has no <!-- cpu -->" in capsys.readouterr().err
    assert document.read_text() == "# A\n"
    assert report.main([str(source)]) == 0
    assert "| lstm 2x128" in capsys.readouterr().out


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    from bench import plots

    drawn = plots.draw_all(content(), tmp_path / "plots")
    assert [path.name for path in drawn] == [
        "cpu_ratio_by_hidden_lstm_float32_train.svg",
        "cpu_step_against_limit.svg",
    ]
    assert sorted(drawn) == sorted((tmp_path / "plots").iterdir())
    assert all(path.stat().st_size > 1000 for path in drawn)
