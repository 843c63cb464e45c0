"""Shipped test tools: conformance suites (one file for each room), brute-force oracles, tiny nets."""
