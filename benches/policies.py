#!/usr/bin/env python3
"""Puts N RBAC policies into an Envoy bootstrap on standard input, as istiod would write them for N AuthorizationPolicies."""
import json, sys

def more(rules, count):
    for i in range(1, count):
        rules["policies"][f"ns[default]-policy[team-{i}]-rule[0]"] = {
            "permissions": [{"and_rules": {"rules": [
                {"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}]}},
                {"or_rules": {"rules": [{"url_path": {"path": {"prefix": f"/team-{i}/"}}}]}}]}}],
            "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": [{"authenticated": {"principal_name": {
                "exact": f"spiffe://cluster.local/ns/team-{i}/sa/caller"}}}]}}]}}]}

def walk(value, count):
    if isinstance(value, dict):
        if "filters.http.rbac" in str(value.get("@type", "")) and "rules" in value:
            more(value["rules"], count)
        for inner in value.values():
            walk(inner, count)
    elif isinstance(value, list):
        for inner in value:
            walk(inner, count)

bootstrap = json.load(sys.stdin)
walk(bootstrap, int(sys.argv[1]))
json.dump(bootstrap, sys.stdout)
