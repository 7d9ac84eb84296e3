"""Passes over the tensor graph and over kernels, one a file."""
