"""What the documentation promises: a page for each public name, and examples that run."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import reference as ref

import fastrnn

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "docs" / "api"
GUIDES = [
    ROOT / "docs" / f"{name}.md"
    for name in ("how_it_works", "pytorch", "regularisation", "layer_norm")
]
PAGES = [ROOT / "README.md", *GUIDES, *sorted(API.glob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{page.stem}-{k}")
    for page in PAGES
    for k, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
]


def page_of(name: str) -> str:
    text = (API / f"{name}.md").read_text()
    assert text.startswith("::: fastrnn."), f"docs/api/{name}.md does not begin with its object"
    return text


@pytest.mark.parametrize("module", ["fastrnn", "fastrnn.kernels", "fastrnn.plans", "fastrnn.torch"])
def test_each_public_name_has_a_page(module):
    if module == "fastrnn.torch":
        pytest.importorskip("torch", reason="without PyTorch")
    names = set(importlib.import_module(module).__all__) - {"__version__"}
    if module == "fastrnn.plans":
        names.remove("plan")  # it is fastrnn.kernels.plan
    prefix = f"{module}.".partition(".")[2]
    for name in names:
        assert page_of(prefix + name).startswith(f"::: {module}.{name}\n")


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "RNN"])
def test_pages_of_layers_list_their_arguments(layer):
    page = " ".join(page_of(layer).split()).replace('"', "'")
    signature = inspect.signature(getattr(fastrnn, layer))
    parameters = [str(p) for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert f"fastrnn.{layer}({', '.join(parameters)}, *, use_sequence_length=False, " in page


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run(example):
    if "fastrnn.torch" in example:
        pytest.importorskip("torch", reason="without PyTorch")
    if "kernels" in example or "plans" in example:
        pytest.importorskip("fastrnn._C", reason="installed without the native library")
    exec(example, {})


@pytest.mark.parametrize("mode", ref.MODES)
def test_what_forward_is_said_to_be_equivalent_to(mode):
    pytest.importorskip("fastrnn._C", reason="installed without the native library")
    from fastrnn import kernels

    page = {}
    exec(re.search(r"^```python\n(.*?)^```", page_of("kernels.forward"), re.M | re.S)[1], page)
    case = np.random.default_rng(1)

    def array(*shape):
        return case.normal(0, 0.5, shape).astype(np.float32)

    H, GH = 5, ref.GATES[mode] * 5
    weights = [array(GH, 3), array(GH, H), array(GH), array(GH)]
    x, h_0, c_0 = array(7, 2, 3), array(1, 2, H), array(1, 2, H) if mode == "lstm" else None
    result = kernels.forward(mode, x, weights, h_0, c_0)
    output, h_n, c_n = page["forward"](mode, x, weights, h_0[0], None if c_0 is None else c_0[0])
    np.testing.assert_allclose(result.output, output, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.h_n[0], h_n, rtol=1e-4, atol=1e-5)
    if c_0 is not None:
        np.testing.assert_allclose(result.c_n[0], c_n, rtol=1e-4, atol=1e-5)


def test_sources_that_how_it_works_names_exist():
    page = (ROOT / "docs" / "how_it_works.md").read_text()
    names = re.findall(r"`((?:csrc|fastrnn|tests)/[\w/.]+)`", page)
    assert len(names) > 20
    assert [name for name in names if not (ROOT / name).exists()] == []
    files = re.findall(r"`(\w+\.(?:cc|h|cu|cuh))`", page)
    assert [name for name in files if not list(ROOT.glob(f"csrc/**/{name}"))] == []


def test_each_preset_is_in_the_results():
    from fastrnn.lm.config import PRESETS

    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "results.md").read_text(), re.M)
    assert rows == list(PRESETS)
    readme = (ROOT / "README.md").read_text()
    assert [name for name in PRESETS if f"`{name}`" not in readme] == []
