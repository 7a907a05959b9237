"""What runs on or uses a device."""
