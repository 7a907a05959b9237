"""Load, save and describe models."""
