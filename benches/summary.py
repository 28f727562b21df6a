#!/usr/bin/env python3
"""Medians of a benchmark's JSON lines: requests a second, CPU per 10,000 requests, latency, and ratios to Envoy and to one policy."""
import json, statistics, sys

cells = {}
for line in open(sys.argv[1]):
    run = json.loads(line)
    if run.get("case") and not run.get("failed"):
        cells.setdefault((run["case"], run["entry"]), []).append(run)
def median(runs, field):
    values = [r[field] for r in runs if r.get(field) is not None]
    return statistics.median(values) if values else float("nan")
print("| case | entry | req/s | CPU s per 10,000 | p50 ms | p99 ms | errors | runs | peak RSS MB |")
print("|---|---|---|---|---|---|---|---|---|")
for (case, entry), runs in sorted(cells.items()):
    rss = statistics.median(sum(r["rss_peak_kb"].values()) / 1024 for r in runs)
    print(f"| {case} | {entry} | {median(runs, 'rps'):.0f} | {median(runs, 'cpu_per_10k'):.3f} | {median(runs, 'p50') / 1000:.2f} "
          f"| {median(runs, 'p99') / 1000:.2f} | {sum(r['errors'] for r in runs)} | {len(runs)} | {rss:.0f} |")
print()
for case in sorted({case for case, _ in cells}):
    of = {entry.split("-w")[0]: median(runs, "cpu_per_10k") for (c, entry), runs in cells.items() if c == case}
    for a, b in [("lateen-p1", "envoy-p1"), ("lateen-p1000", "envoy-p1000"), ("lateen-p1000", "lateen-p1"), ("envoy-p1000", "envoy-p1")]:
        if a in of and b in of:
            print(f"{case}: CPU per request, {a} / {b} = {of[a] / of[b]:.3f}")
