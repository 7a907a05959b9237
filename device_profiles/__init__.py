"""What is known of a device before it is measured."""
