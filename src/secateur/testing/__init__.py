"""Shipped test tools: conformance suites (`constraints`, `saliencies`), brute-force oracles, tiny nets."""
