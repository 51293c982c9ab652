#!/usr/bin/env python3
"""How long it takes from a clone to the end of the demo: the peers (Go), the program (Rust) and the demo
itself, each in seconds by the clock and in seconds of processors, and the ten crates that take most by
cargo's own timings. A clone of the present commit is built with caches of its own, all of which is removed
again. What is downloaded is downloaded before the clock starts. The result has one entry for each of cargo's
profiles that was measured.

What other programs do at the time counts in the seconds by the clock, not in those of processors; the load of the
machine, before and after, is in the result."""

import argparse
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
PLACE = ROOT / "target" / "bench" / "build"
RESULT = ROOT / "target" / "bench" / "build.json"
CARGO = os.environ.get("CARGO", "cargo")


def told(*command):
    """What a command prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def measured(command, clone, env):
    """Runs a command in the clone; its seconds by the clock, and those of processors with all it started."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=clone, check=True, env=env, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.monotonic() - begun, 1), "cpu_seconds": round(cpu, 1)}


def longest(page):
    """The crates that cargo was busy with for the longest time by the clock, build scripts among it."""
    found = re.search(r"const UNIT_DATA = (\[.*?\]);", page, re.S)
    if not found:
        sys.exit("cargo's timings have no list of units any more; teach benches/build/measure.py the new form")
    by_crate = {}
    for unit in json.loads(found.group(1)):
        name = f"{unit['name']} {unit['version']}"
        by_crate[name] = by_crate.get(name, 0) + unit["duration"]
    ten = sorted(by_crate.items(), key=lambda item: -item[1])[:10]
    return len(by_crate), [{"crate": name, "seconds": round(took, 1)} for name, took in ten]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--profile", default="demo", help="cargo's profile (demo)")
    parser.add_argument("--no-demo", action="store_true", help="build, and do not run the demo")
    return parser.parse_args()


def main():
    wanted = arguments()
    clone, target = PLACE / "clone", PLACE / "target"
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    subprocess.run([CARGO, "fetch", "--locked"], cwd=clone, check=True)
    subprocess.run(["go", "mod", "download"], cwd=clone / "tests" / "peers", check=True)
    env = {
        **os.environ,
        "CARGO_TARGET_DIR": str(target),
        # Nothing that was built before is taken from anywhere.
        "RUSTC_WRAPPER": "",
        "GOCACHE": str(PLACE / "go"),
        "XDG_CACHE_HOME": str(PLACE / "cache"),
    }
    build = [CARGO, "build", "--profile", wanted.profile, "--locked", "--timings", "--bin", "akash-redis"]
    stages = [("peers", ["tests/peers/build.sh"]), ("program", build)]
    if not wanted.no_demo:
        stages.append(("demo", [target / wanted.profile / "akash-redis", "demo"]))
    load = os.getloadavg()[0]
    try:
        took = {name: measured(command, clone, env) for name, command in stages}
        crates, ten = longest((target / "cargo-timings" / "cargo-timing.html").read_text())
    finally:
        # Go makes what it keeps unwritable.
        subprocess.run(["chmod", "--recursive", "u+w", PLACE], check=False)
        shutil.rmtree(PLACE)
    result = {
        "commit": told("git", "rev-parse", "--short", "HEAD"),
        "rustc": told("rustc", "--version").split()[1],
        "processors": len(os.sched_getaffinity(0)),
        "load": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        "stages": took,
        "crates": crates,
        "longest": ten,
    }
    by_profile = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    by_profile[wanted.profile] = result
    RESULT.write_text(json.dumps(by_profile, indent=2) + "\n")
    print(f"profile {wanted.profile}, {result['processors']} processors, load {load:.1f} to {os.getloadavg()[0]:.1f}")
    for name, one in took.items():
        print(f"  {name:8} {one['seconds']:7.1f} s, {one['cpu_seconds']:7.1f} s of processors")
    print(f"{crates} crates; those that took longest by the clock:")
    for one in ten:
        print(f"  {one['seconds']:7.1f} s  {one['crate']}")
    print(f"written: {RESULT.relative_to(ROOT)}")


main()
