"""machine_code.py finds a kernel's step loop, and what is wrong in it."""

from __future__ import annotations

import machine_code
import pytest
import step_counts
import step_path

NAME = "_ZN7fastrnn4cuda23PersistentForwardKernelINS_8LstmCellENS0_8HalfMathELi2ELi1ELb0EEEvNS0_1XE"
# A loop over steps: a poll, a load of what was waited for, a product, a sum, and a flag.
CODE = f"""
.text.{NAME}:
        /*0000*/                   LD.E R9, desc[UR4][R8.64] ;
.L_x_1:
        /*0010*/                   LDG.E R7, desc[UR4][R2.64] ;
.L_x_2:
        /*0020*/                   LDG.E.STRONG.GPU R0, desc[UR4][R2.64] ;
        /*0030*/                   CCTL.IVALL ;
        /*0040*/              @!P0 BRA `(.L_x_2) ;
        /*0050*/                   LDG.E.128.STRONG.GPU R4, desc[UR4][R2.64] ;
        /*0060*/                   HMMA.16816.F32 R12, R16, R4, RZ ;
        /*0070*/                   HMMA.16816.F32 R12, R16, R6, R12 ;
        /*0080*/                   HMMA.16816.F32 R20, R16, R4, RZ ;
        /*0090*/                   HMMA.16816.F32 R20, R16, R6, R20 ;
        /*00a0*/                   STS [R1], R12 ;
        /*00b0*/                   BRA.DIV UR4, `(.L_x_4) ;
        /*00c0*/                   BAR.SYNC 0x0 ;
        /*00d0*/                   LDS R0, [R1] ;
        /*00e0*/               @P1 BRA `(.L_x_3) ;
        /*00f0*/                   MEMBAR.ALL.GPU ;
        /*0100*/                   STG.E.STRONG.GPU desc[UR4][R2.64], R0 ;
.L_x_3:
        /*0110*/              @!P2 BRA `(.L_x_1) ;
        /*0120*/                   EXIT ;
.L_x_4:
        /*0130*/                   CALL.REL.NOINC `($warpsync) ;
        /*0140*/                   BRA `(.L_x_3) ;
"""


def kernel(text=CODE):
    """Return the text's only kernel."""
    (found,) = machine_code.kernels(text)
    return found


def test_the_step_loop_is_found():
    loop = kernel().step_loop()
    assert [i.index for i in loop] == list(range(1, 18))
    found = machine_code.count(loop)
    assert (found["all"], found["mma"], found["exchanged"], found["call"]) == (17, 4, 2, 0)


def test_names_are_readable():
    assert machine_code.readable(NAME) == "Forward Lstm Half 2 1 0"
    assert machine_code.readable("_Z3fn") == "_Z3fn"


def test_a_clean_kernel_is_not_complained_of():
    assert not list(machine_code.lint(kernel()))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("LDS R0", "LD.E R0", "1 loads or stores of which the compiler does not know the memory"),
        ("LDS R0, [R1]", "CALL.REL.NOINC `($division)", "1 calls in a step"),
        ("LDS R0", "LDL R0", "1 accesses of local memory"),
        ("MEMBAR.ALL.GPU", "NOP", "0 fences in a step, not 1"),
        ("STS [R1], R12", "LDG.E R0, desc[UR4][R2.64]", "1 loads after an acquire are not LDG.ST"),
        ("STS [R1], R12", "LDG.E.128.STRONG.GPU R0, [R2]", "loads after the first product"),
        ("LDG.E.128.STRONG.GPU R4", "NOP R4", "no load of what other blocks have written"),
    ],
)
def test_lint(old, new, complaint):
    assert CODE.count(old) == 1
    (found,) = machine_code.lint(kernel(CODE.replace(old, new)))
    assert f"Forward Lstm Half 2 1 0: {complaint}" in found


def test_the_path_of_a_step():
    path = step_path.StepPath(kernel(), 1).find()
    assert [i.name for i in path][:2] == ["LDG", "HMMA"]
    assert len(path) == 10
    # A load from L2, two products that need each other, and the sum through shared memory. The
    # other two products end earlier.
    times = step_path.LATENCIES
    assert step_path.latency(path) == pytest.approx(
        times["LDG"] + 2 * times["HMMA"] + times["BAR"], abs=10
    )


# The loop with a second slice of the product, which a warp may not have.
TWO_SLICES = CODE.replace(
    "        /*00a0*/                   STS",
    """        /*0092*/              @!P3 BRA `(.L_x_5) ;
        /*0094*/                   HMMA.16816.F32 R12, R16, R4, R12 ;
        /*0096*/                   HMMA.16816.F32 R12, R16, R6, R12 ;
        /*0098*/                   HMMA.16816.F32 R20, R16, R4, R20 ;
        /*009a*/                   HMMA.16816.F32 R20, R16, R6, R20 ;
.L_x_5:
        /*00a0*/                   STS""",
)
ROW = step_counts.Key("Forward", 4, 2, 1, "kNone", False, "Flags")


def test_what_a_further_slice_adds_is_counted():
    found = step_counts.count(kernel(TWO_SLICES))
    assert (found.instructions, found.part_instructions) == (11, 4)
    assert found.part_latency == pytest.approx(2 * step_path.LATENCIES["HMMA"], abs=5)
    assert step_counts.place(kernel(TWO_SLICES)) == (ROW, 0)


def test_the_table_of_counts_is_as_it_was_written():
    text = step_counts.TABLE.read_text()
    table = step_counts.committed(text)
    assert step_counts.written(table) == text
    with pytest.raises(ValueError, match="is not what step_counts.py writes"):
        step_counts.committed(text.replace("false", "no", 1))


@pytest.mark.parametrize(("more", "complaints"), [(0, 0), (step_counts.LEAST, 0), (25, 1)])
def test_counts_that_are_far_from_the_table(monkeypatch, tmp_path, more, complaints):
    counted = step_counts.count(kernel(TWO_SLICES))
    row = [counted._replace(instructions=counted.instructions + more), *[step_counts.Counts()] * 2]
    monkeypatch.setattr(step_counts, "TABLE", tmp_path / "counts.inc")
    step_counts.TABLE.write_text(step_counts.written({ROW: row}))
    found = list(step_counts.differences([kernel(TWO_SLICES)]))
    assert len(found) == complaints
    assert all("run tests/gpu/step_counts.py" in complaint for complaint in found)
