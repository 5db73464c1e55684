"""The file of results, its continuation, and the report."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import pytest
import sources  # noqa: F401

from bench import report, results
from bench.cases import Case
from bench.results import OtherResultsError, Store

ABOUT = {"kind": "cpu", "device": "test data", "commit": "abc", "date": "2000-01-01"}
ABOUT.update(versions={"fastrnn": "0"}, missing={"Haste": "haste_pytorch is not installed"})


def row(case, fastrnn, other, **changes):
    """A row of test data: nobody measured these."""

    def entry(seconds):
        times = {"low": 0.9 * seconds, "high": 1.1 * seconds, "rounds": 3}
        return {"status": "ok", "seconds": seconds, **times, "fraction": 0.5, "peak_mib": 12.0}

    peers = {"fastrnn": entry(fastrnn), "Other": entry(other), **changes}
    sizes = asdict(case)
    return {"case": case.name, "sizes": sizes, "limit": 0.5, "bound": "math", "peers": peers}


def content():
    rows = [row(Case("lstm", hidden=h), 1.0, r) for h, r in ((128, 0.5), (256, 1.0), (512, 2.0))]
    rows.append(row(Case("gru"), 1.0, 2.0, Bad={"status": "wrong", "reason": "output: far off"}))
    return {"about": ABOUT, "rows": rows}


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


@pytest.mark.parametrize("text, said", [("{", "is no JSON"), ("[]", "is no file of results")])
def test_a_file_of_something_else(tmp_path, text, said):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        results.read(tmp_path / "r.json")


def test_the_table_shows_losses_as_it_does_wins():
    text = report.markdown(content())
    assert "| lstm 2x128 I=50 N=32 T=100 train | 1000 ±10% | 500 ±10% | 0.5 |" in text
    assert "| 2 | 500 | math | 50% | 12 / 12 |" in text
    assert "- lstm 2x128 I=50 N=32 T=100 train: Other takes 50% of fastrnn's time" in text
    assert "- gru 2x1000 I=50 N=32 T=100 train: Bad: output: far off" in text
    assert "Haste (haste_pytorch is not installed)" in text


def test_a_graph_s_time_counts_where_it_is_shorter():
    fast = row(Case("lstm"), 1.0, 2.0)
    fast["peers"]["Other"]["graph_seconds"] = 0.5
    assert report.ratio(fast, "Other") == 0.5
    assert "2000 ±10% (500)" in "\n".join(report.table([fast]))


def test_numbers_have_no_exponent():
    assert [report.number(n) for n in (None, 0.01234, 12.34, 123456.0)] == [
        "",
        "0.0123",
        "12.3",
        "123456",
    ]


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
        "cpu_ratio_by_hidden.svg",
        "cpu_time_against_limit.svg",
    ]
    assert sorted(drawn) == sorted((tmp_path / "plots").iterdir())
    assert all(path.stat().st_size > 1000 for path in drawn)
