"""Calibration and int8 schemes."""
