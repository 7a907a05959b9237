"""Probes, the measuring protocol, the table and the predictor."""
