from __future__ import annotations

from benchmarks.runs.provenance import code_id, digest


def test_digest_tells_sequences_apart() -> None:
    sequences = [[""], ["ab", "c"], ["a", "bc"], ["c", "ab"], ["caf\udce9"]]
    assert len({digest(texts) for texts in sequences}) == len(sequences)
    assert digest(["ab", "c"]) == digest(iter(["ab", "c"]))


def test_code_has_an_id_of_its_own() -> None:
    assert code_id() == code_id() != digest([])
