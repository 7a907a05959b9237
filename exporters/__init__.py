"""Exporter plugins, found by the entry-point group `edgeprune.exporters`."""
