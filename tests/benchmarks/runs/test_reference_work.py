from __future__ import annotations

from benchmarks.runs.reference_work import costs, reference_work


def test_costs_are_multiples_of_the_reference_work() -> None:
    def nothing() -> None:
        pass

    def twice() -> None:
        reference_work()
        reference_work()

    found = costs({"nothing": nothing, "twice": twice}, 3)
    assert found["nothing"] < 0.1
    assert 1.0 < found["twice"] < 4.0
