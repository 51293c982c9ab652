#!/usr/bin/env python3
"""How long the build of the demo takes from nothing: seconds, seconds of processors, and the ten crates
that take most. It builds into a directory of its own, which it removes, and reads cargo's own timings.
What is downloaded is downloaded before the clock starts."""

import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "bench" / "build"
RESULT = ROOT / "target" / "bench" / "build.json"
PROFILE = sys.argv[1] if len(sys.argv) > 1 else "demo"
CARGO = os.environ.get("CARGO", "cargo")


def units(page):
    """What cargo built, by its page of timings."""
    found = re.search(r"const UNIT_DATA = (\[.*?\]);", page, re.S)
    if not found:
        sys.exit("cargo's timings have no list of units any more; teach benches/build/measure.py the new form")
    return json.loads(found.group(1))


def main():
    subprocess.run([CARGO, "fetch", "--locked"], cwd=ROOT, check=True)
    shutil.rmtree(TARGET, ignore_errors=True)
    load = os.getloadavg()[0]
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    build = [CARGO, "build", "--profile", PROFILE, "--locked", "--timings", "--bin", "akash-redis"]
    subprocess.run(build, cwd=ROOT, check=True, env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)})
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    page = (TARGET / "cargo-timings" / "cargo-timing.html").read_text()
    by_crate = {}
    for unit in units(page):
        name = f"{unit['name']} {unit['version']}"
        by_crate[name] = by_crate.get(name, 0) + unit["duration"]
    longest = sorted(by_crate.items(), key=lambda item: -item[1])[:10]
    shutil.rmtree(TARGET)
    result = {
        "profile": PROFILE,
        "processors": os.cpu_count(),
        "load_before": round(load, 2),
        "seconds": round(seconds),
        "cpu_seconds": round(cpu),
        "crates": len(by_crate),
        "longest": [{"crate": name, "seconds": round(took, 1)} for name, took in longest],
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"profile {PROFILE}: {result['seconds']} s, {result['cpu_seconds']} s of {os.cpu_count()} processors")
    for name, took in longest:
        print(f"  {took:7.1f} s  {name}")
    print(f"written: {RESULT.relative_to(ROOT)}")


main()
