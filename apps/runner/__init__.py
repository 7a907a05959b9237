"""Programs that run on the device; they import nothing of edgeprune."""
