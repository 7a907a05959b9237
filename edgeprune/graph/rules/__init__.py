"""One rule for each kind of operator: how the labels of what it reads become those of what it writes."""
