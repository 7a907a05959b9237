"""A reference executor for Core ML packages: no Core ML runtime exists on Linux, so the program is run with torch.

What it proves is that the file, as written (program and weights), computes what the model computes. What it cannot
prove is how Apple's own kernels round: see `program.py` for how half precision is emulated.
"""

from __future__ import annotations

from edgeprune.verify.mil.program import Program, load_program, outputs_of_mlpackage, run_mlpackage

__all__ = ["Program", "load_program", "outputs_of_mlpackage", "run_mlpackage"]
