from pathlib import Path

from commands import call


def test_check_and_diff_and_show(tmp_path: Path) -> None:
    old, new, bad = (tmp_path / name for name in ("old.tsv", "new.tsv", "bad.tsv"))
    old.write_text("dog\tobject\tpup\ncat\n")
    new.write_text("dog\tobject\tpup\ncat\nsky\tscene\n")
    bad.write_text("dog\t\tcat\ncat\nDog\n")
    out, _ = call("vocab", "check", new)
    assert out.startswith("3 tags, 4 names, digest ")
    out, err = call("vocab", "check", bad, code=5)
    assert len(out.splitlines()) == 2
    assert "has 2 faults" in err
    out, _ = call("vocab", "diff", old, new)
    assert out.splitlines()[0].split() == ["added", "sky"]
    _, err = call("vocab", "diff", new, old, code=5)
    assert "add tags at its end only" in err
    out, _ = call("vocab", "show", "PUP", "--vocabulary", new)
    assert out.splitlines()[0] == "name       dog (id 0)"
    _, err = call("vocab", "show", "quux", code=2)
    assert "neither a name nor an alias of the built-in" in err
    assert "synset" in call("vocab", "show", "giraffe")[0]
