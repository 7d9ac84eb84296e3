"""From integer kernels to a program for the machine: instruction selection, layout, start cycles, and their checker."""
