"""`python -m benchmarks`: run them all, or some. Root can measure every driver; others overlay and copy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks import branching, many, starting
from benchmarks.harness import SIZES, Report, platform_on

RESULTS = Path(__file__).with_name("results") / "latest.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    drivers = ["btrfs", "reflink", "overlay", "copy"] if os.geteuid() == 0 else ["overlay", "copy"]
    parser.add_argument("--drivers", nargs="+", default=drivers)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--only", nargs="+", default=["a", "b", "c", "d"], choices=["a", "b", "c", "d"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--branches", type=int, default=200)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    report = Report(chosen.results)
    if {"b", "c"} & set(chosen.only):
        starting.by_hand(report, rounds=chosen.rounds)
    for number, driver in enumerate(chosen.drivers):
        with platform_on(driver) as lamp:
            if "c" in chosen.only:
                starting.new_project(lamp, report, driver=driver, rounds=chosen.rounds)
            if "b" in chosen.only:
                starting.start_suspended(lamp, report, driver=driver, rounds=chosen.rounds)
            if "a" in chosen.only:
                branching.run(
                    lamp, report, driver=driver, sizes=chosen.sizes, rounds=chosen.rounds, compare=number == 0
                )
            if "d" in chosen.only and driver != "copy":
                many.run(lamp, report, driver=driver, branches=chosen.branches)


if __name__ == "__main__":
    main()
