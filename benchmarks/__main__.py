"""`python -m benchmarks`: run them all, or some. Root can measure every driver; others overlay and copy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks import branching, keys, many, relay, starting, through, tools, wake
from benchmarks.harness import SIZES, Report, platform_on

PARTS = "abcdefghijklmnop"
RESULTS = Path(__file__).with_name("results") / "latest.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    drivers = ["btrfs", "reflink", "overlay", "copy"] if os.geteuid() == 0 else ["overlay", "copy"]
    parser.add_argument("--drivers", nargs="+", default=drivers)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--branches", type=int, default=200)
    parser.add_argument("--wakes", type=int, default=200)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    report = Report(chosen.results)
    if {"b", "c"} & set(chosen.only):
        starting.by_hand(report, rounds=chosen.rounds)
    of_tools(report, chosen.only, rounds=chosen.rounds)
    of_gateway(report, chosen.only, driver=chosen.drivers[0], rounds=chosen.wakes)
    of_relay(report, chosen.only, rounds=chosen.rounds)
    if not {"a", "b", "c", "d"} & set(chosen.only):
        return
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


def of_relay(report: Report, only: list[str], *, rounds: int) -> None:
    if "k" in only:
        relay.throughput(report, rounds=rounds, seconds=4)
    if "l" in only:
        relay.idle(report)
    if "p" in only:
        through.run(report, rounds=rounds)


def of_gateway(report: Report, only: list[str], *, driver: str, rounds: int) -> None:
    """`rounds` of each wake and connection: what counts is the slow ones, too."""
    if "o" in only:
        wake.idle(report)
    if not {"m", "n", "o"} & set(only):
        return
    with platform_on(driver) as lamp:
        if "m" in only:
            wake.wakes(lamp, report, driver=driver, rounds=rounds)
        if "n" in only:
            wake.connecting(lamp, report, driver=driver, rounds=rounds)
        if "o" in only:
            wake.idle_tls(lamp, report)


def of_tools(report: Report, only: list[str], *, rounds: int) -> None:
    if "g" in only:
        tools.starting(report, rounds=rounds)
    if "f" in only:
        tools.call_cost(report)
    if "e" in only:
        tools.pacing(report)
    if "h" in only:
        with platform_on("overlay") as lamp:
            tools.long_list(lamp, report, rounds=rounds)
    if "i" in only:
        keys.rotation(report, rounds=rounds)
    if "j" in only:
        keys.audit(report, rounds=rounds)


if __name__ == "__main__":
    main()
