"""Machines that latency and accuracy are measured on."""
