from __future__ import annotations

from typing import Any

import pytest

from benchmarks.protocols import mirex, nafp
from benchmarks.runs.provenance import code_id, digest
from benchmarks.suites import retrieval


def test_digest_differs_between_sequences() -> None:
    sequences = [[""], ["ab", "c"], ["a", "bc"], ["c", "ab"], ["caf\udce9"]]
    assert len({digest(texts) for texts in sequences}) == len(sequences)
    assert digest(["ab", "c"]) == digest(iter(["ab", "c"]))


def test_code_id_is_stable_and_depends_on_the_modules() -> None:
    ids = {code_id(), code_id(()), code_id(["queries/datasets"])}
    assert len(ids) == 3
    assert code_id(()) in ids


@pytest.mark.parametrize("suite", [mirex, nafp, retrieval])
def test_code_id_covers_modules_that_suites_name(suite: Any) -> None:
    assert code_id(suite._MODULES) != code_id(())


def test_code_id_module_that_does_not_exist_raises() -> None:
    with pytest.raises(FileNotFoundError, match="quiz"):
        code_id(["quiz"])
