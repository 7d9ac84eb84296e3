"""Number formats, calibration, integer kernels and the integer reference."""
