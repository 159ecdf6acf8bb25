"""The device check on tiny networks."""

import pytest

from experiments import device_check

pytestmark = pytest.mark.usefixtures("default_precision")

FEW = ("gradient", "compare_to_baseline")


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(device_check, "PRESETS", {k: device_check.PRESETS[k] for k in FEW})


def _rows(path) -> list[dict[str, str]]:
    lines = [line.strip("| \n").split(" | ") for line in path.read_text().splitlines()[2:]]
    header, _, *rows = ([cell.strip() for cell in line] for line in lines)
    return [dict(zip(header, row, strict=False)) for row in rows]


@pytest.mark.full
@pytest.mark.usefixtures("few")
def test_quick_check(tmp_path) -> None:
    device_check.main(["--quick", "--repeats", "1", "--workers", "2", "--output", str(tmp_path)])
    (path,) = tmp_path.glob("device_check_*.md")
    rows = _rows(path)
    assert len(rows) == 2 * 2 * (len(FEW) + 1)
    for row in rows:
        exact = 2e-5 if row["dtype"] == "float32" else 5e-2
        for column in ("value", "gradient", "completeness"):
            assert not row.get(column) or float(row[column]) <= exact, row
    assert [row["gradient"] for row in rows if row["rules"] == "gradient"] == ["0"] * 4


@pytest.mark.usefixtures("few")
def test_cross_lowering_needs_no_device(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(device_check, "TINY", {"ViT": device_check.TINY["ViT tiny"]})
    device_check.main(["--quick", "--cross-lower", "--output", str(tmp_path)])
    rows = _rows(tmp_path / "device_check_cross_lowered_quick.md")
    assert len(rows) == 2 * (len(FEW) + 1)
    assert all(int(row["cuda, tpu: bytes"]) > 0 for row in rows)


def test_every_preset_is_checked() -> None:
    missing = {name for name in device_check.rulesets.__all__ if name.islower()}
    assert missing - {*device_check.PRESETS, "preset"} == set()


@pytest.mark.usefixtures("few")
def test_what_is_chosen_is_written_at_once(tmp_path, monkeypatch, capsys) -> None:
    def cut_off(case, workers):
        if case.dtype == "bfloat16":
            raise ValueError("cut off")
        return made(case, workers)

    made = device_check.compiled
    monkeypatch.setattr(device_check, "compiled", cut_off)
    arguments = ["--quick", "--repeats", "1", "--networks", "ViT tiny", "--output", str(tmp_path)]
    assert device_check.main(arguments) == 2 and "cut off" in capsys.readouterr().err
    (path,) = tmp_path.glob("device_check_*.md")
    assert [row["dtype"] for row in _rows(path)] == ["float32"] * (len(FEW) + 1)
    assert device_check.main([*arguments, "--dtypes", "int4"]) == 2
    assert "--dtypes: no 'int4'; there are float32, bfloat16" in capsys.readouterr().err
