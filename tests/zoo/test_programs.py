"""Populations of compiled programs: reproducible, resumable, free of duplicates, and never wrong without a word."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weightspace.cli import main
from weightspace.errors import ZooError
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.language import fused
from weightspace.rasp.validate import analyse, settings
from weightspace.zoo.programs import making, shards
from weightspace.zoo.programs.config import ProgramZooConfig
from weightspace.zoo.programs.draws import accepted_draws, compiled_rows
from weightspace.zoo.programs.inspection import check_program_zoo, program_zoo_info
from weightspace.zoo.programs.making import make_program_zoo
from weightspace.zoo.programs.program_zoo import ProgramZoo
from weightspace.zoo.programs.splits import splits_of
from weightspace.zoo.recipes import PROGRAM_RECIPES, RecipeError, program_recipe
from weightspace.zoo.store import Zoo, write_manifest

SMALL = ProgramZooConfig(recipe="small", distribution="typed", count=150, shard_size=60)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> ProgramZoo:
    return make_program_zoo(SMALL, tmp_path_factory.mktemp("programs") / "zoo", 0, show=False)


def test_a_zoo_holds_as_many_different_programs_as_wanted(zoo: ProgramZoo) -> None:
    entries = list(zoo.entries())
    assert len(zoo) == len(entries) == 150
    assert [entry.number for entry in entries] == list(range(150))
    assert len({entry.key for entry in entries}) == 150
    assert check_program_zoo(zoo.folder) == []


def test_programs_and_weights_belong_together(zoo: ProgramZoo) -> None:
    for entry in zoo.entries("test"):
        program = entry.program
        analysis = analyse(program, *settings(program, None, None), "tracr_compat")
        assert canonical_key(analysis) == entry.key
        transformer = compile_program(program, mode="tracr_compat")
        np.testing.assert_array_equal(entry.flat, transformer.flat)
        assert entry.layout is transformer.layout


def test_programs_of_the_paper_are_stored_as_drawn_and_compiled_as_fused(tmp_path: Path) -> None:
    config = replace(SMALL, distribution="paper", count=20, shard_size=50, most_parameters=49_999)
    for entry in make_program_zoo(config, tmp_path / "zoo", 0, show=False).entries():
        transformer = compile_program(fused(entry.program), mode="tracr_compat")
        np.testing.assert_array_equal(entry.flat, transformer.flat)
        assert entry.layout.size < 50_000
    assert check_program_zoo(tmp_path / "zoo") == []


def test_workers_make_the_same_bytes_in_any_number(zoo: ProgramZoo, tmp_path: Path) -> None:
    make_program_zoo(SMALL, tmp_path / "other", 2, show=False)
    assert contents(tmp_path / "other") == contents(zoo.folder)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(zoo: ProgramZoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.folder, tmp_path / "zoo")
    (tmp_path / "zoo" / "manifest.json").unlink()
    (tmp_path / "zoo" / "index.parquet").unlink()
    (tmp_path / "zoo" / "shards" / "00001.parquet").unlink()
    (tmp_path / "zoo" / "shards" / ".00002.parquet.123.tmp").write_bytes(b"half")
    first = tmp_path / "zoo" / "shards" / "00000.parquet"
    before = first.stat().st_mtime_ns
    make_program_zoo(SMALL, tmp_path / "zoo", 0, show=False)
    assert contents(tmp_path / "zoo") == contents(zoo.folder)
    assert first.stat().st_mtime_ns == before, "what was finished is kept"


def test_a_damaged_shard_is_found_and_made_anew(zoo: ProgramZoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.folder, tmp_path / "zoo")
    shard = tmp_path / "zoo" / "shards" / "00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    assert "has changed" in check_program_zoo(tmp_path / "zoo")[0].text
    with pytest.raises(ZooError, match="cannot be read"):
        list(ProgramZoo.open(tmp_path / "zoo").entries())
    make_program_zoo(SMALL, tmp_path / "zoo", 0, show=False)
    assert contents(tmp_path / "zoo") == contents(zoo.folder)


def refinish(folder: Path) -> None:
    """Let the manifest agree with whatever the files hold now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    facts = {name: manifest[name] for name in ("networks", "shards", "dropped")}
    write_manifest(folder, sorted((folder / "shards").glob("*.parquet")), facts)


def rewritten(folder: Path, number: int, change: Callable[[Any], Any]) -> None:
    """Change a shard's table and write it with valid checksums of its own."""
    path = shards.shard_file(folder, number)
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"weightspace"])
    changed = change(table)
    facts["checksum"] = shards._checksum(changed, facts)
    shards._write(path, changed.replace_schema_metadata({b"weightspace": json.dumps(facts, sort_keys=True)}))


def swapped(table: Any) -> Any:
    programs = table["program"].to_pylist()
    programs[0], programs[1] = programs[1], programs[0]
    return table.set_column(table.column_names.index("program"), "program", pa.array(programs))


def test_a_shard_that_somebody_changed_is_made_anew(zoo: ProgramZoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.folder, tmp_path / "zoo")
    rewritten(tmp_path / "zoo", 0, swapped)
    make_program_zoo(SMALL, tmp_path / "zoo", 0, show=False)
    assert contents(tmp_path / "zoo") == contents(zoo.folder)


def test_a_shard_in_the_place_of_another_is_made_anew(zoo: ProgramZoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.folder, tmp_path / "zoo")
    (tmp_path / "zoo" / "manifest.json").unlink()
    shutil.copy(tmp_path / "zoo" / "shards" / "00000.parquet", tmp_path / "zoo" / "shards" / "00001.parquet")
    make_program_zoo(SMALL, tmp_path / "zoo", 0, show=False)
    assert contents(tmp_path / "zoo") == contents(zoo.folder)


def test_a_changed_byte_anywhere_in_a_shard_is_noticed_even_without_a_manifest(zoo: ProgramZoo, tmp_path: Path) -> None:
    whole = shards.shard_file(zoo.folder, 0).read_bytes()
    (tmp_path / "shards").mkdir()
    path = shards.shard_file(tmp_path, 0)
    wanted = shards.read_summary(shards.shard_file(zoo.folder, 0), SMALL, 0)
    assert wanted is not None
    places = np.random.default_rng(0).integers(0, len(whole), 150).tolist() + list(range(len(whole) - 300, len(whole)))
    for place in places:
        content = bytearray(whole)
        content[place] ^= 4
        path.write_bytes(content)
        found = shards.read_summary(path, SMALL, 0)
        if found is not None:  # a byte that says nothing, as in the name of the writer
            np.testing.assert_array_equal(found.keys, wanted.keys)
            assert found.reasons == wanted.reasons


def test_the_check_finds_weights_of_another_program_twins_and_wrong_splits(zoo: ProgramZoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.folder, tmp_path / "swapped")
    rewritten(tmp_path / "swapped", 0, swapped)
    refinish(tmp_path / "swapped")
    assert "does not compile to the weights beside it" in check_program_zoo(tmp_path / "swapped")[0].text
    for name, column in (("twice", "key"), ("sides", "split")):
        shutil.copytree(zoo.folder, tmp_path / name)
        index = pq.read_table(tmp_path / name / "index.parquet")
        values = index[column].to_pylist()
        values[0] = values[1] if column == "key" else ("test" if values[0] == "train" else "train")
        changed = index.set_column(index.column_names.index(column), column, pa.array(values, index[column].type))
        pq.write_table(changed, tmp_path / name / "index.parquet")
        refinish(tmp_path / name)
        assert any(name in finding.text or "splits" in finding.text for finding in check_program_zoo(tmp_path / name))


def test_shards_without_a_program_of_a_split_are_passed_over(tmp_path: Path) -> None:
    zoo = make_program_zoo(replace(SMALL, count=40, shard_size=2), tmp_path / "zoo", 0, show=False)
    assert sum(len(list(zoo.entries(split))) for split in ("train", "validation", "test")) == 40


def test_what_is_drawn_is_kept_or_counted_as_dropped(zoo: ProgramZoo) -> None:
    config = replace(SMALL, count=60, shard_size=60)
    reasons: Counter[str] = Counter()
    rows = compiled_rows(config, accepted_draws(config, 0, reasons), reasons)
    rejected = {"it is constant, or nearly", "it is None too often", "it does not reach its length"}
    rejected.add("Tracr's validator refuses it, or its evaluator meets a None")
    assert len(rows) + sum(count for reason, count in reasons.items() if reason not in rejected) == 60
    assert len(zoo) == 150


def test_another_seed_gives_another_zoo(zoo: ProgramZoo, tmp_path: Path) -> None:
    other = make_program_zoo(replace(SMALL, seed=1), tmp_path / "zoo", 0, show=False)
    ours, theirs = ({entry.key for entry in one.entries()} for one in (zoo, other))
    assert len(ours & theirs) < 75


def test_a_bad_length_leaves_no_trace(tmp_path: Path) -> None:
    assert main(["zoo", "make", "rasp-typed", "--lengths", "99", "--out", str(tmp_path / "zoo")]) == 2
    assert not (tmp_path / "zoo").exists()


def test_a_larger_zoo_of_the_same_seed_begins_with_the_smaller(zoo: ProgramZoo, tmp_path: Path) -> None:
    larger = make_program_zoo(replace(SMALL, count=200), tmp_path / "zoo", 0, show=False)
    ours, theirs = list(zoo.entries()), list(larger.entries())[:150]
    assert [(one.key, one.split) for one in ours] == [(other.key, other.split) for other in theirs]


def test_a_program_is_on_the_same_side_in_every_zoo(tmp_path: Path) -> None:
    sides: dict[bytes, set[str]] = {}
    for seed in (1, 2):
        config = replace(SMALL, seed=seed, count=150, lengths=(4,), shard_size=200)
        for entry in make_program_zoo(config, tmp_path / str(seed), 0, show=False).entries():
            sides.setdefault(entry.key, set()).add(entry.split)
    assert len(sides) < 300, "short programs come again under another seed"
    assert all(len(found) == 1 for found in sides.values())


def test_splits_have_their_shares() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
    shares = np.bincount(splits_of(keys)) / len(keys)
    np.testing.assert_allclose(shares, (0.6, 0.15, 0.25), atol=0.015)


def test_what_was_dropped_is_counted_by_reason(tmp_path: Path) -> None:
    config = replace(SMALL, lengths=(4,), count=100)
    dropped = program_zoo_info(make_program_zoo(config, tmp_path / "zoo", 0, show=False).folder)["dropped"]
    assert any("constant" in reason for reason in dropped)
    assert dropped["the same program stands in an earlier shard"] > 0
    assert all(isinstance(count, int) and count > 0 for count in dropped.values())


def test_a_distribution_that_runs_dry_ends_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "FRUITLESS", 1_000)
    config = replace(SMALL, lengths=(2,), count=10_000, shard_size=30)
    with pytest.raises(ZooError, match=r"hardly more than \d+ different programs"):
        make_program_zoo(config, tmp_path / "zoo", 0, show=False)


def test_a_folder_of_something_else_is_left_alone(zoo: ProgramZoo, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"differs in seed \(0, not 1\)"):
        make_program_zoo(replace(SMALL, seed=1), zoo.folder, 0, show=False)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(ZooError, match="is not empty and holds no zoo"):
        make_program_zoo(SMALL, tmp_path / "letters", 0, show=False)


def test_zoos_of_programs_and_of_networks_are_not_taken_for_each_other(zoo: ProgramZoo, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="holds programs, and networks are wanted here"):
        Zoo.open(zoo.folder)
    small = ["--count", "4", "--epochs", "1", "--workers", "0"]
    assert main(["zoo", "make", "digits-small", "--out", str(tmp_path / "digits"), *small]) == 0
    with pytest.raises(ZooError, match="holds networks, and programs are wanted here"):
        ProgramZoo.open(tmp_path / "digits")


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    write = shards.write_atomically

    def fill(path: Path, content: bytes) -> None:
        nonlocal written
        if path.suffix == ".parquet":
            written += 1
            if written > 1:
                raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(shards, "write_atomically", fill)
    with pytest.raises(OSError, match="No space left"):
        make_program_zoo(SMALL, tmp_path / "zoo", 0, show=False)
    assert [path.name for path in (tmp_path / "zoo" / "shards").iterdir()] == ["00000.parquet"]
    monkeypatch.undo()
    assert len(make_program_zoo(SMALL, tmp_path / "zoo", 0, show=False)) == 150


def test_the_command_line_makes_checks_and_describes_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "zoo")
    options = ["--count", "30", "--shard-size", "40", "--workers", "0"]
    assert main(["zoo", "make", "rasp-typed", "--out", where, *options, "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert facts["programs"] == 30
    assert facts["bytes a program"] > 0
    assert main(["zoo", "check", where]) == 0
    assert main(["zoo", "info", where]) == 0
    assert "tracr_compat" in capsys.readouterr().out
    assert main(["zoo", "make", "rasp-typed", "--out", where, "--epochs", "3"]) == 2
    assert "--epochs says nothing of a zoo of programs" in capsys.readouterr().err
    assert main(["zoo", "make", "rasp-typed", "--out", where, "--mode", "loose"]) == 2
    assert "mode is fixed or tracr_compat, not 'loose'" in capsys.readouterr().err
    assert main(["zoo", "make", "digits-small", "--out", where, "--mode", "fixed"]) == 2
    assert main(["train", where, "--out", str(tmp_path / "run")]) == 2
    assert "holds programs" in capsys.readouterr().err


def test_recipes_of_programs_are_whole_configurations() -> None:
    for name in PROGRAM_RECIPES:
        config = program_recipe(name, count=7, seed=3, lengths=(5,))
        assert (config.recipe, config.count, config.seed, config.lengths) == (name, 7, 3, (5,))
    with pytest.raises(RecipeError, match="did you mean 'rasp-typed'"):
        program_recipe("rasp-type")
    for wrong in ({"count": 0}, {"seed": -1}, {"most_parameters": 0}, {"shard_size": 0}):
        with pytest.raises(ZooError):
            replace(SMALL, **wrong)
